"""What the tests of both headers look at in them."""

import re
import shutil

WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
STANDARDS = {"c": ["c99", "c11", "c2x"], "c++": ["c++17", "c++20"]}


def bare(header):
    """A header without comments."""
    return re.sub(r"//.*", "", re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL))


def functions(header, prefix):
    return sorted(set(re.findall(rf"\b({prefix}_\w+)\(", bare(header))))


def declarations(header, prefix):
    """Functions, each in a line, in order of their text."""
    found = re.findall(rf"^((?:const )?\w+ \*?{prefix}_\w+\([^;{{]*\));", bare(header), re.MULTILINE)
    return sorted(" ".join(each.split()) + ";" for each in found)


def function_types(header, prefix):
    found = re.findall(rf"^typedef [^{{}};]*\(\*{prefix}_\w+\)[^;]*;", bare(header), re.MULTILINE)
    return [" ".join(each.split()) for each in found]


def structs(header, prefix):
    """The structs that are no handles, with their members."""
    member = re.compile(r"(?:\(\*(\w+)\)\(|(\w+)(?:\[\w+\])?$)")
    found = {}
    for body, name in re.findall(rf"typedef struct \{{([^}}]*)\}} ({prefix}_\w+);", bare(header)):
        parts = [" ".join(part.split()) for part in body.split(";") if part.strip()]
        found[name] = [(m := member.search(part))[1] or m[2] for part in parts]
    return found


def layout(header, prefix, include, macros):
    """A program that prints numbers, and where members begin."""
    lines = [f"#include <{include}>", "#include <stdio.h>", "int main(void)", "{"]
    lines += [f'    printf("{name} = %llu\\n", (unsigned long long){name});' for name in macros]
    lines.append('    puts("\\n# Structs: size, and where each member begins");')
    for name, members in structs(header, prefix).items():
        lines.append(f'    printf("{name} %zu:", sizeof({name}));')
        lines += [f'    printf(" {member} %zu", offsetof({name}, {member}));' for member in members]
        lines.append('    puts("");')
    return "\n".join([*lines, "}"]) + "\n"


def compilers(skip):
    """Compilers that are here, the language that each is for and its standards. What is not is passed to `skip`."""
    for name, language in {"gcc": "c", "clang": "c", "g++": "c++", "clang++": "c++"}.items():
        found = next(filter(None, map(shutil.which, [name, *(f"{name}-{version}" for version in range(30, 10, -1))])), None)
        if not found:
            skip(f"headers with {name}: it is not installed")
            continue
        yield found, language, STANDARDS[language]
