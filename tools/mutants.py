#!/usr/bin/env python3
"""Changes core in one place at a time (a condition turned round, a result replaced) and asks whether a test of core notices: the mutation score.

    python3 tools/mutants.py TOOL                        every mutant of FILES, which takes days
    python3 tools/mutants.py TOOL --sample 120           about so many: every n-th of them
    python3 tools/mutants.py TOOL --shard 0/8            every eighth of them; run all eight, then add up what they print
    python3 tools/mutants.py TOOL --file core/src/row.rs one file, or several

TOOL is cargo-mutants, which `./test --long mutants` installs into target/tools. Works on a copy of the tree, tests that first as it is, and
.cargo/mutants.toml says what is not changed and why. What it did is in target/mutants.out.

The score is killed / (killed + survived). A mutant is killed if a test fails, or if the tests take TIMES as long as they take without it: it hangs.
One that the compiler refuses counts for neither. Fails below the least score.
"""

import argparse
import collections
import json
import math
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
# Format, cache, and what makes, changes and trusts keys.
FILES = [
    "core/src/wire/*.rs", "core/src/value.rs", "core/src/value/text.rs", "core/src/context.rs", "core/src/row.rs", "core/src/record.rs", "core/src/record/*.rs",
    "core/src/column.rs", "core/src/column/*.rs", "core/src/document.rs", "core/src/document/*.rs", "core/src/stream.rs", "core/src/stream/*.rs",
    "core/src/cache/*.rs", "core/src/keyring.rs", "core/src/keyring/*.rs", "core/src/keys/*.rs",
]
# Without those of a few minutes each: the memory of a full cache, and every bit of every structure.
TESTS = ["--lib", "--test=all", "--test=hostile", "--test=cache_flight", "--test=cache_model", "--test=cache_observe"]
LEAST, TIMES = 0.85, 5
KILLED = {"CaughtMutant": "killed", "Timeout": "timeouts", "MissedMutant": "survived", "Unviable": "unviable"}


def count(tool, filters):
    """How many mutants there are."""
    return len(json.loads(subprocess.run([tool, "mutants", "--list", "--json", *filters], cwd=ROOT, check=True, capture_output=True, text=True).stdout))


def run(tool, filters):
    """The outcome of each mutant: its name and file, and what became of it."""
    command = [
        tool, "mutants", "--package=keyfold", "--features=testing,hazmat", "--profile=mutants", f"--output={TARGET}", "--colors=never", "--no-times",
        f"--timeout-multiplier={TIMES}", "--minimum-test-timeout=120", *[f"--cargo-arg={test}" for test in TESTS], *filters]
    TARGET.mkdir(parents=True, exist_ok=True)
    code = subprocess.run(command, cwd=ROOT).returncode
    # 2: some survived, 3: some hung. Anything else is no result.
    if code not in (0, 2, 3):
        raise SystemExit(f"FAILED: cargo-mutants ended with {code} (4: the tests fail without any change); see {TARGET}/mutants.out")
    outcomes = json.loads((TARGET / "mutants.out" / "outcomes.json").read_text())["outcomes"]
    return [(outcome["scenario"]["Mutant"], KILLED[outcome["summary"]]) for outcome in outcomes if outcome["scenario"] != "Baseline"]


def interval(part, whole):
    """Between what a share lies with 95 % confidence where `whole` were drawn (Wilson)."""
    z, share = 1.96, part / whole
    middle, half = share + z * z / (2 * whole), z * math.sqrt(share * (1 - share) / whole + z * z / (4 * whole * whole))
    return (middle - half) / (1 + z * z / whole), (middle + half) / (1 + z * z / whole)


def report(outcomes, drawn_from):
    """Prints a line per file, those that survived, and the score; returns the score."""
    files = collections.defaultdict(collections.Counter)
    for mutant, outcome in outcomes:
        files[mutant["file"]][outcome] += 1
    total = sum(files.values(), collections.Counter())
    names = list(KILLED.values())
    print(f"\n{'file':36}", *[f"{name:>9}" for name in names])
    for file, counts in [*sorted(files.items()), ("all", total)]:
        print(f"{file:36}", *[f"{counts[name]:9}" for name in names])
    for mutant, outcome in outcomes:
        if outcome != "killed" and outcome != "unviable":
            print(f"{outcome}: {mutant['name']}")
    killed = total["killed"] + total["timeouts"]
    judged = killed + total["survived"]
    if not judged:
        raise SystemExit("FAILED: no mutant was judged")
    score = killed / judged
    print(f"mutation score {100 * score:.1f} %: {killed} of {judged} killed, {total['timeouts']} of them by a timeout; {total['unviable']} not counted, since they do not compile")
    if drawn_from:
        low, high = interval(killed, judged)
        print(f"of {drawn_from} mutants, {len(outcomes)} were drawn: with 95 % confidence the score of all is between {100 * low:.0f} and {100 * high:.0f} %")
    return score


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", type=Path)
    parser.add_argument("--file", action="append", metavar="GLOB", help="instead of all files")
    some = parser.add_mutually_exclusive_group()
    some.add_argument("--sample", type=int, metavar="N", help="only about so many, every n-th")
    some.add_argument("--shard", metavar="K/N", help="only the N-th part, from 0 on")
    parser.add_argument("--least", type=float, default=LEAST, help=f"score below which this fails; {LEAST} where nothing is said")
    options = parser.parse_args()
    tool = options.tool.resolve()
    filters = [f"--file={glob}" for glob in options.file or FILES]
    drawn_from = 0
    shard = options.shard
    if options.sample:
        # Not by name: cargo-mutants 27.1.0 keeps all that delete a field, whatever --re says.
        drawn_from = count(tool, filters)
        shard = f"0/{max(1, round(drawn_from / options.sample))}"
    if shard:
        filters += [f"--shard={shard}", "--sharding=round-robin"]
    score = report(run(tool, filters), drawn_from)
    passed = score >= options.least
    if not passed:
        print(f"FAILED: the score is below {100 * options.least:.0f} %")
    print(f"{int(passed)} passed, {int(not passed)} failed")
    return not passed


if __name__ == "__main__":
    sys.exit(main())
