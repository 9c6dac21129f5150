#!/usr/bin/env python3
"""Checks what the documents point at: every test, step of ./test and linked file or heading that they name is there.

    python3 tools/check_documents.py              all documents
    python3 tools/check_documents.py --self-test  that each kind of mistake is found

A test is named in backquotes as `folder/file::name`: the test `name` in `file` of `folder`, or of its `tests` or `src`, without the ending; or with the whole
path, `folder/tests/file.rs::name`. The file may be a folder, or have modules: `key-stores/postgres::tls::name`. `::name` stands for another one in the file that was named last in the paragraph or row. `name*`
stands for all that begin so, of which there is one at least. In docs/THREAT-MODEL.md each row of a table that has a column of tests names one there, a step
of ./test or a file, or says why not.
"""

import os
import re
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEST = re.compile(r"`(?P<file>[a-z][\w.-]*(?:/[\w.-]+)+)?::(?P<name>(?:\w+::)*(?:\w+\*?|\*))`")
# What looks like one and is none, such as a name that was shortened.
ALMOST = re.compile(r"`[a-z][\w-]*/[\w/.-]*::[^`]*`")
LINK = re.compile(r"\[[^\][]*(?:\[[^\][]*\][^\][]*)?\]\(([^()\s]+)\)")
STEP = re.compile(r"`(?:\./test|test) (?:--long )?([a-z]\w*)`")
# Made by tools/failures.py, which finds the tests that it names.
MADE = ["FAILURE-MATRIX.md"]
# What a test looks like where it is defined. Of Rust an attribute is asked for, since not every function is a test.
DEFINED = {
    ".rs": r"#\[(?:\w+::)*test(?:\([^)]*\))?\]\s*(?:(?:#\[[^\n]*\]|//[^\n]*)\s*)*(?:async )?fn (NAME)\(",
    ".py": r"^\s*(?:async )?def (NAME)\(",
    ".c": r"^static [\w ]+?\*?(NAME)\(",
}


def documents(root):
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in ("target", "node_modules") and not name.startswith("."))
        found += [Path(folder, name) for name in sorted(files) if name.endswith(".md")]
    return found


@cache
def files_of(root, named):
    """The source files that `folder/file` stands for."""
    parts = named.split("/")
    found = [root / named] if Path(named).suffix in DEFINED and (root / named).is_file() else []
    for split in range(1, len(parts)):
        folder, rest = root.joinpath(*parts[:split]), "/".join(parts[split:])
        for base in (folder / "tests", folder / "src", folder):
            found += [base / (rest + ending) for ending in DEFINED if (base / (rest + ending)).is_file()]
            found += [path for path in sorted((base / rest).rglob("*")) if path.suffix in DEFINED and path.is_file()]
    return found


def has_test(root, named, name):
    name = name.rsplit("::", 1)[-1]
    pattern = name[:-1] + r"\w*" if name.endswith("*") else name
    return any(re.search(DEFINED[path.suffix].replace("NAME", pattern), path.read_text(), re.MULTILINE) for path in files_of(root, named))


@cache
def headings(path):
    """The anchors of a document, as GitHub makes them."""
    found = []
    for line in prose(path.read_text()):
        if match := re.match(r"#+ (.*)", line[1]):
            slug = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match[1]).lower()).strip().replace(" ", "-")
            found.append(slug if slug not in found else f"{slug}-{found.count(slug)}")
    return found


def prose(text):
    """Numbered lines outside of blocks of code."""
    code = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            code = not code
        elif not code:
            yield number, line


def problems_of(root, path, steps):
    """What is wrong in one document, and how many tests it names."""
    problems, count, column, last = [], 0, None, None
    for number, line in prose(path.read_text()):
        at = f"{path.relative_to(root)}:{number}"
        if not line.strip() or line.startswith("|"):
            last = None
        for match in TEST.finditer(line if path.name not in MADE else ""):
            last = match["file"] or last
            count += 1
            if last is None or not has_test(root, last, match["name"]):
                problems.append(f"{at}: there is no test {last or ''}::{match['name']}")
        problems += [f"{at}: {span} is no whole name of a test" for span in ALMOST.findall(line) if not TEST.fullmatch(span)]
        problems += [f"{at}: there is no step {step} of ./test" for step in STEP.findall(line) if step not in steps]
        for link in LINK.findall(re.sub(r"`[^`]*`", "", line)):
            target, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            linked = (path.parent / target).resolve() if target else path
            if not linked.exists():
                problems.append(f"{at}: there is no {link}")
            elif anchor and linked.suffix == ".md" and anchor not in headings(linked):
                problems.append(f"{at}: {target or path.name} has no heading #{anchor}")
        if path.name == "THREAT-MODEL.md":
            cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
            if not cells:
                column = None
            elif "test" in cells:
                column = cells.index("test")
            elif column is not None:
                cell = cells[column] if len(cells) > column else ""
                if not cell:
                    problems.append(f"{at}: the row names no test, and does not say why")
                for span in re.findall("`[^`]*`", cell):
                    if not (TEST.fullmatch(span) or STEP.fullmatch(span) or (root / span.strip("`")).is_file()):
                        problems.append(f"{at}: {span} is neither a test, a step of ./test nor a file")
    return problems, count


def check(root):
    steps = re.findall(r"^def (\w+)\(results, options\):", (root / "test").read_text(), re.MULTILINE)
    problems, tests, all_documents = [], 0, documents(root)
    for path in all_documents:
        found, count = problems_of(root, path, steps)
        problems += found
        tests += count
    print(f"{len(all_documents)} documents: {tests} names of tests checked, {len(problems)} problems")
    print("\n".join(problems))
    return problems


def self_test():
    """Each of these lines is one problem, and the last none."""
    rows = "| threat | test |\n|---|---|\n| a | CELL |"
    bad = ["`core/hostile::there_is_no_such_test`", "`core/no_such_file::any`", "`::nothing_before`", "`core/hostile::no_such_*`", "`core/hostile::every_…`", "`./test no_such_step`",
           "[a](NO-SUCH-FILE.md)", "[a](#no-such-heading)", rows.replace("CELL", ""), rows.replace("CELL", "`no_test`"), rows.replace("CELL", "`core/tests/no-such-file.rs`"),
           "`core/common/store::get`"]
    good = "# A heading\n`core/hostile::a_million_mutations_neither_panic_nor_open`, `::a_million_*`, `core/tests/limits.rs::unlinkable_rows_share_no_prefix`; [a](#a-heading); `./test fmt`\n"
    with tempfile.TemporaryDirectory(dir=ROOT / "docs") as folder:
        page = Path(folder) / "THREAT-MODEL.md"
        for text in [*bad, good]:
            page.write_text(text)
            headings.cache_clear()
            found, _ = problems_of(ROOT, page, ["fmt"])
            if len(found) != (text != good):
                print(f"the self-test failed: {text!r} has the problems {found}")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(self_test() if sys.argv[1:] == ["--self-test"] else self_test() or bool(check(ROOT)))
