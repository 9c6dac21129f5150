#!/usr/bin/env python3
"""The failure matrix, docs/FAILURE-MATRIX.md: what can fail (docs/failures.toml), and the tests that name it.

    python3 tools/failures.py                   writes the page
    python3 tools/failures.py --check           fails if it is not what the tests say, or a row has neither test nor reason
    python3 tools/failures.py --results FILE    prints the table with what became of each test in a run: ./test 2>&1 | tee FILE

A test names rows in a comment directly above it: `// Failure A1`, `# Failures A1, B2`, `/* Failure A1 */`.
"""

import argparse
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "FAILURE-MATRIX.md"
MARK = re.compile(r"\s*(?://|#|/\*) Failures? ([A-Z]\d+(?:, [A-Z]\d+)*)(?: \*/)?$")
LOOSE = re.compile(r"(?://|#|/\*) Failures? [A-Z]\d")
FUNCTION = re.compile(r"\s*(?:pub )?(?:async )?(?:fn|def) (\w+)|static \w+ \*?(\w+)\(")
# What may stand between: attributes, decorators, comments.
BETWEEN = re.compile(r"\s*(?:#\[|@|//|#|/?\*)")
# Which step of ./test runs what is not a test in Rust.
STEPS = {
    "bindings-c/device/tests/": "device", "bindings-c/tests/": "c", "bindings-python/tests/": "python", "testvectors/golden/": "golden", "testvectors/": "decoder",
    "examples/gateway/": "gateway", "tools/check_decoder.py": "decoder", "tools/check_dependencies.py": "dependencies",
    "tools/interop.py": "interop", "tools/io_faults.py": "io_faults", "tools/languages/": "languages", "tools/sanitizers.py": "c_sanitizers", "tools/sbom.py": "sbom",
    "tools/check_deny.py": "deny", "tools/package_tests.py": "archives", "tools/release_tests.py": "release", "tools/reproducible.py": "reproducible",
    "tools/crates.py": "crates", "benches/side-channels/": "side_channels",
    "tools/portable.py": "portable", "tools/processors.py": "processors", "tools/soak.py": "soak",
}
# What `./test --long` alone runs, of steps that run more than that; tests in Rust say so themselves, and ./test says which steps it skips whole.
LONG = {"bindings-c/tests/arm.py", "tools/portable.py"}
INTRODUCTION = """\
# Failure matrix

Ways in which a library of this kind fails, and the tests that show what it does then. Made by `python3 tools/failures.py` from [failures.toml](failures.toml) and from
the comments of the tests (`Failure A1`); `./test failures` fails where it is out of date, names a test that is not there, or has a row with neither test nor reason.
What became of each test in a run: `./test 2>&1 | tee run.log`, then `python3 tools/failures.py --results run.log`. A test that cannot run, or not in full, says so and counts as
skipped there; what else the run skipped stands below that table. The gates that all of it has to pass, with their figures: [GATES.md](GATES.md).

A test is `crate/file::test`. `./test --long` alone runs those marked *long*.

"""


class Test(NamedTuple):
    path: str
    name: str
    step: str
    long: bool

    def __str__(self):
        place = re.sub(r"/(src|tests)(/|$)", r"\2", str(Path(self.path).parent)) + "/" + Path(self.path).name.removesuffix(".rs")
        return f"`{place}::{self.name}`{' *long*' if self.long else ''}"


def long_steps(text):
    """The steps of ./test, whose text this is, that are skipped whole without --long."""
    return set(re.findall(r'^def (\w+)\(results, options\):\n    """.*"""\n    if not options\.long:\n        raise Skip', text, re.MULTILINE))


def rows_of(groups):
    return {row: what for group in groups.values() for row, what in group.items() if row != "title"}


def test_below(path, lines, at, always_long):
    """The test that a comment in line `at` is about; a text that says what is wrong if there is none."""
    between = []
    for line in lines[at + 1 :]:
        if match := FUNCTION.match(line):
            name = match[1] or match[2]
            is_test = not path.endswith(".rs") or re.search(r"#\[(?:\w+::)?test\b", "\n".join(between))
            if not is_test:
                return f"{path}: {name} is no test"
            step = next((step for prefix, step in STEPS.items() if path.startswith(prefix)), "tests" if path.endswith(".rs") else None)
            if step is None:
                return f"{path}: no step of ./test is known to run it"
            return Test(path, name, step, "#[ignore" in "\n".join(between) or path in LONG or step in always_long)
        if not BETWEEN.match(line):
            break
        between.append(line)
    return f"{path}:{at + 1}: no test stands below the comment"


def found_tests():
    """The tests of each row, and problems."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.rs", "*.py", "*.c"], cwd=ROOT, check=True, capture_output=True, text=True)
    tests, problems = defaultdict(list), []
    always_long = long_steps((ROOT / "test").read_text())
    for path in sorted(listed.stdout.split()):
        if path == "tools/failures.py":
            continue
        lines = (ROOT / path).read_text().splitlines()
        for at, line in enumerate(lines):
            if not (match := MARK.match(line)):
                if LOOSE.search(line):
                    problems.append(f"{path}:{at + 1}: a comment that cannot be read: {line.strip()}")
                continue
            test = test_below(path, lines, at, always_long)
            if isinstance(test, str):
                problems.append(test)
                continue
            for row in match[1].split(", "):
                tests[row].append(test)
    return tests, problems


def problems_of(rows, tests):
    problems = [f"docs/failures.toml has no row {row}" for row in tests if row not in rows]
    for row, what in rows.items():
        reasons = [reason for reason in ("not_applicable", "not_shown") if reason in what]
        if unknown := what.keys() - {"fails", "besides", "not_applicable", "not_shown"}:
            problems.append(f"{row}: unknown {unknown}")
        if bool(tests.get(row)) + len(reasons) != 1:
            problems.append(f"{row}: needs tests, or one reason why there are none; has {len(tests.get(row, []))} and {len(reasons)}")
        if len(set(tests.get(row, []))) != len(tests.get(row, [])):
            problems.append(f"{row}: a test names it twice")
    steps = re.search(r"^STEPS = \[(.*?)\]", (ROOT / "test").read_text(), re.DOTALL | re.MULTILINE)[1]
    problems += [f"./test has no step {step}" for step in {*STEPS.values()} if not re.search(rf"\b{step}\b", steps)]
    return problems


# Outcomes with which a row is not shown by a run.
LACKING = ("FAILED", "not run", "skipped")


class Run:
    """What `./test` printed: outcomes of tests in Rust by name, and of steps."""

    def __init__(self, text):
        self.tests, self.steps, self.skipped = defaultdict(set), {}, []
        self.long = "\n=== What ran, with --long\n" in text
        # Steps that passed and skipped a part.
        self.partial, step = set(), None
        for line in text.splitlines():
            if match := re.match(r"test (?:[\w/.-]+ - )?([\w:]+)(?: - should panic)? \.\.\. (\w+)", line):
                self.tests[match[1].rpartition("::")[2]].add(match[2])
            elif match := re.match(r"SKIPPED (?:\w+::)*(\w+): ", line):
                self.tests[match[1]].add("skipped")
            elif match := re.match(r"(\w+) +[\d.]+ s  (passed|skipped|FAILED)", line):
                step = match[1]
                self.steps[step] = match[2]
            elif match := re.match(r" {26}skipped: (.*)", line):
                self.skipped.append(f"`{step}`: {match[1]}")
                self.partial.add(step)

    def outcome(self, test):
        if test.path.endswith(".rs"):
            # Tests of one name in several crates count as one.
            found = self.tests.get(test.name, set())
            return next((outcome for word, outcome in (("FAILED", "FAILED"), ("skipped", "skipped"), ("ok", "passed")) if word in found), "not run")
        outcome = self.steps.get(test.step, "not run")
        if outcome == "passed" and test.long and not self.long:
            return "not run"
        return "passed in part" if outcome == "passed" and test.step in self.partial else outcome


def result_of(what, tests, run):
    if "not_applicable" in what:
        return "not applicable"
    if "not_shown" in what:
        return "**not shown**"
    if run is None:
        return ", ".join(sorted({f"`{test.step}`" for test in tests}))
    outcomes = [run.outcome(test) for test in tests]
    worst = next(outcome for outcome in (*LACKING, "passed in part", "passed") if outcome in outcomes)
    return f"passed ({len(tests)})" if worst == "passed" else f"**{worst}**: {', '.join(str(t) for t, o in zip(tests, outcomes) if o == worst)}"


def page(groups, tests, run=None):
    rows = rows_of(groups)
    shown = sum(bool(tests.get(row)) for row in rows)
    reasons = {reason: sum(reason in what for what in rows.values()) for reason in ("not_applicable", "not_shown")}
    text = INTRODUCTION if run is None else ""
    text += f"{len(rows)} ways: {shown} with {len({test for of_row in tests.values() for test in of_row})} tests, {reasons['not_applicable']} that do not apply, {reasons['not_shown']} that no test shows.\n"
    for letter, group in groups.items():
        text += f"\n## {letter}. {group['title']}\n\n| | what fails | tests, or why there are none | {'run by' if run is None else 'result'} |\n|---|---|---|---|\n"
        for row, what in group.items():
            if row == "title":
                continue
            of_row = tests.get(row, [])
            cell = ", ".join(map(str, of_row)) or what.get("not_applicable") or what.get("not_shown")
            if "besides" in what:
                cell += f". Not shown: {what['besides']}"
            text += f"| {row} | {what['fails']} | {cell} | {result_of(what, of_row, run)} |\n"
    if run is not None and run.skipped:
        text += "\nSkipped in this run:\n\n" + "".join(f"- {what}\n" for what in dict.fromkeys(run.skipped))
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--check", action="store_true", help="write nothing; fail if the page is out of date")
    how.add_argument("--results", type=Path, metavar="FILE", help="what ./test printed")
    options = parser.parse_args()
    groups = tomllib.loads((ROOT / "docs" / "failures.toml").read_text())
    tests, problems = found_tests()
    problems += problems_of(rows_of(groups), tests)
    if problems:
        print(*problems, sep="\n")
        return 1
    if options.results:
        text = page(groups, tests, Run(options.results.read_text(errors="replace")))
        print(text, end="")
        return int(any(f"**{outcome}**" in text for outcome in LACKING))
    text = page(groups, tests)
    if not options.check:
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        print("docs/FAILURE-MATRIX.md is out of date: python3 tools/failures.py")
        return 1
    print(text.splitlines()[len(INTRODUCTION.splitlines())])
    return 0


if __name__ == "__main__":
    sys.exit(main())
