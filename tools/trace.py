#!/usr/bin/env python3
"""Traces each requirement of docs/FORMAT.md and docs/KMS-CONTRACT.md to the code that meets it and the tests that show it.

    trace.py            writes docs/TRACE.md
    trace.py --check    fails on a requirement without code or without a test, and on whatever else is not as it should be

A requirement is a sentence with an identifier behind it, in brackets; [F-1-4, no test: WHY] is one that no test can show. Code names the
identifier in a comment where it meets the requirement; a test in a comment right before the test, behind the word "Covers"; and
testvectors/covers.toml names the cases of testvectors/*.json that show one, by their notes.
"""

import json
import os
import re
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SPECIFICATIONS = ["docs/FORMAT.md", "docs/KMS-CONTRACT.md"]
TRACE = "docs/TRACE.md"
COVERS = "testvectors/covers.toml"
ID = r"(?:F-[1-9A-Z][0-9.]*|KC)-[0-9]+"
CITED = re.compile(rf"(?<![\w-])({ID})(?![\w-])")
DEFINED = re.compile(rf"\[({ID})(?:, no test: ([^\]]+))?\]")
# What is not of this project, or not its source.
IGNORED = {"target", "node_modules", "__pycache__"}
# Those of the trace itself, whose identifiers are examples.
OWN = {"tools/trace.py", "tools/trace_tests.py"}
COMMENT = {".rs": re.compile(r"\s*//[/!]?(.*)"), ".py": re.compile(r"\s*#(.*)")}
TEST = {".rs": re.compile(r"\s*(?:pub )?(?:async )?fn (\w+)"), ".py": re.compile(r"\s*def (test_\w+|check_\w+)")}


class Trace:
    """What the files under `root` say, and what is wrong with it."""

    def __init__(self, root):
        self.root = root
        # By identifier: the sentence, and where it stands.
        self.requirements = {}
        self.code = defaultdict(set)
        self.tests = defaultdict(set)
        # Why there is no test, where the sentence says so.
        self.untested = {}
        self.problems = []
        for name in SPECIFICATIONS:
            self.read_specification(name)
        for path in sources(root):
            self.read_source(path)
        self.read_vectors()
        self.compare()

    def read_specification(self, name):
        section = ""
        for number, block in blocks((self.root / name).read_text()):
            if heading := re.match(r"#+ (.*)", block):
                section = heading[1]
                continue
            sentences = re.split(r"(?<=\.)\s+(?=[A-Z`*])", block)
            for sentence in sentences:
                if re.search(r"\bMUST\b", sentence) and not DEFINED.search(sentence) and "RFC 2119" not in sentence:
                    self.problems.append(f"{name}:{number}: a sentence with MUST has no identifier: {shorten(sentence)}")
            # An item of a list and a row of a table is shown as a whole.
            for text in [block] if re.match(r"\d+\. |[-*] |\|", block) else sentences:
                start = 0
                for found in DEFINED.finditer(text):
                    if found[1] in self.requirements:
                        self.problems.append(f"{name}:{number}: {found[1]} is there twice")
                    self.requirements[found[1]] = (name, section, text[start : found.start()].strip(" ,;"))
                    start = found.end()
                    if found[2]:
                        self.untested[found[1]] = found[2]

    def read_source(self, path):
        name = path.relative_to(self.root).as_posix()
        comment, test = COMMENT[path.suffix], TEST[path.suffix]
        # Of the comment that is read, or that was read right before: what it covers, and the attributes since.
        covered, covering, attributes = [], False, ""
        for number, line in enumerate(path.read_text().splitlines(), 1):
            text = comment.match(line)
            if text or line.lstrip().startswith("#["):
                words = text[1] if text else ""
                before, covers, after = words.partition("Covers ")
                if covers or covering:
                    covering = covering or bool(covers)
                    covered += [(identifier, number) for identifier in CITED.findall(after if covers else words)]
                    words = before if covers else ""
                else:
                    self.cite(name, words)
                attributes += line if not text else ""
                covering = covering and bool(text)
                continue
            self.cite(name, line)
            if covered:
                found = test.match(line)
                is_test = found and (path.suffix == ".py" or re.search(r"#\[(\w+::)*test\b", attributes))
                for identifier, at in covered:
                    if is_test:
                        self.tests[identifier].add(f"{name}: `{found[1]}`")
                    else:
                        self.problems.append(f"{name}:{at}: {identifier} is said to be covered, but no test follows")
            covered, covering, attributes = [], False, ""

    def cite(self, name, text):
        for identifier in CITED.findall(text):
            if "tests" in name.split("/"):
                self.problems.append(f"{name} names {identifier} without saying that it is covered")
            else:
                self.code[identifier].add(name)

    def read_vectors(self):
        cases = {}
        for identifier, files in tomllib.loads((self.root / COVERS).read_text()).items():
            for stem, notes in files.items():
                if stem not in cases:
                    cases[stem] = json.loads((self.root / f"testvectors/{stem}.json").read_text())["cases"]
                shown = set()
                for note in notes:
                    pattern = re.compile(re.escape(note).replace(r"\*", ".*"))
                    found = {case["id"] for case in cases[stem] if pattern.fullmatch(case["note"])}
                    if not found:
                        self.problems.append(f"{COVERS}: {identifier}: no case of {stem}.json has the note {note!r}")
                    shown |= found
                self.tests[identifier].add(f"testvectors/{stem}.json: {', '.join(ranges(shown))}")

    def compare(self):
        for identifier in self.requirements:
            if identifier not in self.code:
                self.problems.append(f"{identifier} has no code")
            if (identifier in self.tests) == (identifier in self.untested):
                has = "has a test and says that it has none" if identifier in self.tests else "has no test"
                self.problems.append(f"{identifier} {has}")
        for cited in (self.code, self.tests):
            for identifier in sorted(cited.keys() - self.requirements.keys()):
                self.problems.append(f"{identifier}, which {', '.join(sorted(cited[identifier]))} names, is no requirement")

    def page(self):
        lines = [
            "# Requirements, code and tests",
            "",
            "Made by `python3 tools/trace.py`; `./test trace` fails where it is out of date, and where a requirement has no code or no test. Each requirement of",
            "[FORMAT.md](FORMAT.md) and [KMS-CONTRACT.md](KMS-CONTRACT.md) has an identifier, which code and tests name in their comments: `grep -rn F-7.6-9 .` finds them. Whoever",
            "writes an identifier before a test vouches that it shows the requirement: that it would fail without the code, no tool has checked. Cases of `testvectors/*.json` are run by",
            "`core/tests/vectors.rs`, those of `document-json.json` by `documents/tests/cipher/vectors.rs`, and all of them by the decoder in Python as well.",
        ]
        part = None
        for identifier, (name, section, sentence) in self.requirements.items():
            if (name, section) != part:
                part = (name, section)
                lines += ["", f"## {Path(name).name}: {section}", "", "| | requirement | code | tests |", "|---|---|---|---|"]
            tests = self.tests[identifier] or [f"none: {self.untested.get(identifier)}"]
            cells = [shorten(sentence).replace("|", r"\|"), *("<br>".join(sorted(found)) for found in (self.code[identifier], tests))]
            lines.append(f"| {identifier} | {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"


def sources(root):
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in IGNORED and not name.startswith("."))
        for name in sorted(names):
            path = Path(folder) / name
            if path.suffix in COMMENT and path.relative_to(root).as_posix() not in OWN:
                yield path


def blocks(text):
    """Paragraphs, items of lists, rows of tables and headings, without blocks of code; with the lines where they begin."""
    block, start, fenced = [], 0, False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        fence = line.startswith("```")
        if not line.strip() or fence or fenced or re.match(r"\s*(\d+\. |[-*] |\||#)", line):
            if block:
                yield start, " ".join(block)
            block = []
        fenced ^= fence
        if line.strip() and not fence and not fenced:
            start = start if block else number
            block.append(line.strip())


def shorten(sentence, length=240):
    """The end of a sentence that is long: that is where the identifier stands."""
    sentence = re.sub(r"^(\d+\.|[-*]|\|)\s+", "", sentence)
    return sentence if len(sentence) <= length else "… " + sentence[-length:].split(" ", 1)[1]


def ranges(names):
    """Of names such as field-007: those that follow each other as 007–009."""
    runs = []
    for number in sorted(int(name.rsplit("-", 1)[1]) for name in names):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [f"{first:03}" if first == last else f"{first:03}–{last:03}" for first, last in runs]


def main(arguments):
    trace = Trace(ROOT)
    page = ROOT / TRACE
    if arguments == ["--check"]:
        if not page.exists() or page.read_text() != trace.page():
            trace.problems.append(f"{TRACE} is out of date: python3 tools/trace.py")
    elif arguments:
        sys.exit(__doc__)
    else:
        page.write_text(trace.page())
    for problem in trace.problems:
        print(problem)
    print(f"{len(trace.requirements)} requirements, {len(trace.problems)} problems")
    return bool(trace.problems)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
