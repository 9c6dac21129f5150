"""Copies the docstrings of the built module into its stub, python/keyfold/_native.pyi, whose types are written by hand.

    python tools/stubs.py           write the stub, with the keyfold that is installed
    python tools/stubs.py --check   say what differs, and end with 1 if anything does
"""

import ast
import inspect
import sys
from pathlib import Path
from typing import Any

STUB = Path(__file__).parent.parent / "python" / "keyfold" / "_native.pyi"

Documented = ast.ClassDef | ast.FunctionDef


def documented(tree: ast.Module) -> list[tuple[str, Documented]]:
    """The classes, methods and functions of the stub, by their names in the module. Python itself documents dunders."""
    found: list[tuple[str, Documented]] = []
    for node in tree.body:
        if isinstance(node, Documented):
            found.append((node.name, node))
        if isinstance(node, ast.ClassDef):
            found += [(f"{node.name}.{part.name}", part) for part in node.body if isinstance(part, Documented)]
    return [(name, node) for name, node in found if not node.name.startswith("_")]


def docstring(module: Any, name: str) -> str | None:
    thing = module
    for part in name.split("."):
        thing = getattr(thing, part)
    doc = thing.__doc__
    return inspect.cleandoc(doc) if doc else None


def overloads(tree: ast.Module) -> set[int]:
    """The lines of overloads but the last of each name: it has the docstring of all."""
    last: dict[str, int] = {}
    lines = set()
    for name, node in documented(tree):
        if isinstance(node, ast.FunctionDef) and any(ast.unparse(mark) == "overload" for mark in node.decorator_list):
            if name in last:
                lines.add(last[name])
            last[name] = node.lineno
    return lines


def spelled(doc: str, indent: str) -> list[str]:
    lines = [f"{indent}{line}".rstrip() for line in f'"""{doc}'.split("\n")]
    if len(lines) == 1:
        return [f'{lines[0]}"""']
    return [*lines, f'{indent}"""']


def rewritten(text: str, module: Any) -> tuple[str, list[str]]:
    """The stub with the docstrings of `module`, and the names of those that differed or are missing there."""
    tree, lines, differ = ast.parse(text), text.split("\n"), []
    passed_over = overloads(tree)
    # From the end, so that the lines before stay where they are.
    for name, node in reversed(documented(tree)):
        if node.lineno in passed_over:
            continue
        doc = docstring(module, name)
        if doc == ast.get_docstring(node):
            continue
        differ.append(name)
        if doc is None:
            continue
        body = node.body[0]
        indent = " " * (node.col_offset + 4)
        is_doc = ast.get_docstring(node) is not None
        if is_doc:
            lines[body.lineno - 1 : body.end_lineno] = spelled(doc, indent)
        elif body.lineno == node.lineno or lines[body.lineno - 1].endswith(": ..."):
            lines[body.lineno - 1] = lines[body.lineno - 1].removesuffix(" ...")
            lines[body.lineno : body.lineno] = spelled(doc, indent)
        else:
            lines[body.lineno - 1 : body.lineno - 1] = spelled(doc, indent)
    return "\n".join(lines), differ[::-1]


def main() -> int:
    from keyfold import _native

    text = STUB.read_text(encoding="utf-8")
    made, differ = rewritten(text, _native)
    if "--check" in sys.argv[1:]:
        for name in differ:
            print(f"{STUB.name}: {name} has another docstring in the module, or none there; run tools/stubs.py")
        return bool(differ)
    STUB.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
