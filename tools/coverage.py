#!/usr/bin/env python3
"""Counts the lines of core that its tests run.

    python3 tools/coverage.py                    each file, and the lines that no test runs
    python3 tools/coverage.py --at-least 95      fails where it is less

The compiler counts, in the crates of this workspace alone; what it wrote is read by tools of the same LLVM, unpacked from Debian's packages into target/llvm-NN.
Tests do not count, as files or as the end of one, nor what core has for tests of others (`testing`, `vectors`); a line counts as run if any code of it did, in any instance of a generic function.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import debian  # noqa: E402
from debian import shared  # noqa: E402

ROOT = shared.ROOT
SOURCES = ROOT / "core" / "src"
FOLDER = shared.TARGET / "coverage"
# Optimised less, since that is compiled faster; the crates that core needs are those of other tests.
COMMAND = ["cargo", "test", "--locked", "--profile", "ci", "--config", "profile.ci.package.keyfold.opt-level=1", "--lib", "--tests", "--features", "keyfold/testing,keyfold/hazmat,keyfold/serde",
           "-p", "keyfold", "-p", "keyfold-store", "-p", "keyfold-audit", "-p", "keyfold-documents"]
TEST_FILES = re.compile(r"(^|/|_)tests(\.rs$|/)|^(testing|vectors)(\.rs$|/)")
TEST_MODULE = re.compile(r"^#\[cfg\(test\)\]\nmod tests \{", re.MULTILINE)


def llvm():
    """The folder of the tools that read what this compiler counts. Raises `shared.Unavailable` where they cannot be had."""
    version = subprocess.run(["rustc", "-vV"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    name = "llvm-" + re.search(r"LLVM version: (\d+)", version)[1]
    folder = shared.TARGET / name
    tools = folder / "usr" / "lib" / name / "bin"
    if not (tools / "llvm-cov").exists():
        debian.unpack(folder, [name])
    libraries = [folder / "usr" / "lib" / f"{platform.machine()}-linux-gnu", folder / "usr" / "lib" / name / "lib"]
    return tools, {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, libraries))}


def environment():
    """Of cargo and the tests: core is instrumented, and each process writes a file of its own."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("*.profraw"):
        old.unlink()
    wrapper = FOLDER / "rustc"
    wrapper.write_text('#!/bin/sh\nexec "$@" -Cinstrument-coverage\n')
    wrapper.chmod(0o755)
    return {**os.environ, "RUSTC_WORKSPACE_WRAPPER": str(wrapper), "LLVM_PROFILE_FILE": f"{FOLDER}/%p-%m.profraw"}


def programs(how):
    done = subprocess.run([*COMMAND, "--no-run", "--message-format", "json"], cwd=ROOT, env=how, check=True, stdout=subprocess.PIPE, text=True)
    return [message["executable"] for message in map(json.loads, done.stdout.splitlines()) if message.get("executable")]


def counts(tools, how, built):
    """For each file of core, how often each of its lines with code ran."""
    data = FOLDER / "tests.profdata"
    # What a killed process left half written counts for nothing.
    subprocess.run([tools / "llvm-profdata", "merge", "-sparse", "-failure-mode=all", "-o", data, *FOLDER.glob("*.profraw")], env=how, check=True)
    objects = [part for program in built[1:] for part in ("-object", program)]
    found, lines = {}, None
    report = subprocess.run([tools / "llvm-cov", "export", "-format=lcov", f"-instr-profile={data}", built[0], *objects, SOURCES],
                            env=how, check=True, capture_output=True, text=True).stdout
    for entry in report.splitlines():
        if entry.startswith("SF:"):
            lines = found.setdefault(Path(entry[3:]), {})
        elif entry.startswith("DA:"):
            line, count = map(int, entry[3:].split(",")[:2])
            lines[line] = max(count, lines.get(line, 0))
    return found


def without_tests(found):
    """What is left of `found`: for each file its lines with code, and those that never ran."""
    for path, lines in sorted(found.items()):
        name = str(path.relative_to(SOURCES))
        if TEST_FILES.search(name):
            continue
        text = path.read_text()
        tests = TEST_MODULE.search(text)
        end = text[:tests.start()].count("\n") + 1 if tests else float("inf")
        mine = {line: count for line, count in lines.items() if line < end}
        if mine:
            yield name, len(mine), [line for line, count in sorted(mine.items()) if not count]


def ranges(lines):
    """`3-5, 9` for 3, 4, 5 and 9."""
    parts = []
    for line in lines:
        if parts and line == parts[-1][1] + 1:
            parts[-1][1] = line
        else:
            parts.append([line, line])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-least", type=float, metavar="PERCENT", default=0)
    options = parser.parse_args()
    try:
        tools, how = llvm()
    except shared.Unavailable as why:
        print(f"SKIPPED: {why}")
        return shared.NOTHING_RAN
    of_tests = environment()
    built = programs(of_tests)
    subprocess.run(COMMAND, cwd=ROOT, env=of_tests, check=True)
    rows = list(without_tests(counts(tools, how, built)))
    for name, all_lines, missed in rows:
        print(f"{name:32} {100 * (1 - len(missed) / all_lines):6.1f} % of {all_lines:5}{f'  not {ranges(missed)}' if missed else ''}")
    lines, missed = sum(row[1] for row in rows), sum(len(row[2]) for row in rows)
    percent = 100 * (1 - missed / lines)
    print(f"core: {percent:.2f} % of {lines} lines run; {missed} do not")
    return percent < options.at_least


if __name__ == "__main__":
    sys.exit(main())
