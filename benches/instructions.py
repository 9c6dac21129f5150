"""Counts the instructions of what must stay fast (benches/benches/instructions.rs), and fails where one takes more than it did.

    instructions.py                    compares with instructions.json
    instructions.py --write            writes instructions.json anew
    instructions.py --program FILE     the built benchmark, where it is not to be built

Valgrind counts, so neither other work on the machine nor its clock matters, and no system call is in it. Each piece of work is done once, and then
again with as many repetitions more; the difference counts, so that what comes before does not. How many instructions there are depends on the
compiler, on the C library, and on what processor valgrind shows to the program. Under other ones than instructions.json was made with, what
counts is each piece as a multiple of bare ring's column in the same run, within wider bounds, since the compiler changes both.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMITTED = ROOT / "benches" / "instructions.json"
RING = "ring-seal-column"
# A column is mostly AES-GCM, in which what we add would not be seen: so what is above bare ring counts by itself, in the same environment.
ABOVE = {"seal-column": RING, "open-column": "ring-open-column"}
# How much more fails, and how much less is told: in the same environment, and in another one.
SAME, OTHER = 0.03, 0.10
# The profile builds crates in 16 units, and what is in a unit decides what is inlined: a change elsewhere in core has moved these by up to 10 %.
MOVING = {"derive", "ready", "parse-record", "seal-one", "open-one", "seal-deterministic", "open-deterministic",
          "open-batches-sorted", "open-batches-clustered", "open-batches-random"}


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr[-2000:]}")
    return done.stdout, done.stderr


def build():
    """The benchmark, with the profile of the tests."""
    command = ["cargo", "bench", "--profile", "ci", "-p", "keyfold-benches", "--bench", "instructions", "--no-run", "--message-format", "json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit("the benchmark was not built")
    messages = map(json.loads, done.stdout.splitlines())
    return next(message["executable"] for message in messages
                if message.get("target", {}).get("name") == "instructions" and message.get("executable"))


def environment():
    """What the counts depend on, beside the code."""
    cpu = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    flags = set(cpu[1].split()) if cpu else set()
    return {
        "rustc": run("rustc", "--version")[0].strip(),
        "valgrind": run("valgrind", "--version")[0].strip(),
        "libc": " ".join(platform.libc_ver()),
        # What there is of those for which our ciphers have other code. Valgrind shows none that it does not know.
        "processor": " ".join([platform.machine(), *sorted(flags & {"aes", "avx", "avx2", "bmi2", "pclmulqdq", "sha_ni", "ssse3"})]),
    }


def count(program, name, times):
    """Instructions of one process."""
    _, log = run("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, name, times)
    return int(re.search(r"Collected : (\d+)", log)[1])


def measure(program):
    """Instructions per row of each piece of work."""
    cases = [line.split() for line in run(program, "--list")[0].splitlines()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = [(name, int(times) * int(rows), [pool.submit(count, program, name, 1 + more) for more in (0, int(times))])
                for name, times, rows in cases]
        counts = {name: round((more.result() - once.result()) / rows, 1) for name, rows, (once, more) in runs}
    return counts | {f"{name} above ring": round(counts[name] - counts[ring], 1) for name, ring in ABOVE.items()}


def compare(made, committed):
    """Prints a line for each piece; those that take too much, and whether some take less."""
    same = made["environment"] == committed["environment"]
    if not same:
        differs = [f"{made['environment'][key]} instead of {value}" for key, value in committed["environment"].items() if made["environment"].get(key) != value]
        print(f"The counts were made elsewhere ({'; '.join(differs)}):\nso multiples of {RING} are compared, within {OTHER:.0%}.")
    now, before = ({name: n / (1 if same else all_of[RING]) for name, n in all_of.items()} for all_of in (made["instructions"], committed["instructions"]))
    if now.keys() != before.keys():
        sys.exit(f"other pieces of work than in {COMMITTED.name}: {', '.join(sorted(now.keys() ^ before.keys()))}; --write")
    more, fewer = [], []
    print(f"{'instructions per row':<26} {'now':>10} {'committed':>10}")
    for name, n in now.items():
        if not same and name.endswith("above ring"):
            continue
        change, bound = n / before[name] - 1, SAME if same and name not in MOVING else OTHER
        (more if change > bound else fewer if change < -bound else []).append(name)
        mark = "  MORE" if change > bound else "  fewer" if change < -bound else ""
        print(f"{name:<26} {made['instructions'][name]:>10.1f} {committed['instructions'][name]:>10.1f} {change:+7.1%}{mark}")
    return more, fewer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write instructions.json anew")
    parser.add_argument("--program", help="the built benchmark")
    options = parser.parse_args()
    made = {"environment": environment(), "instructions": measure(options.program or build())}
    if options.write:
        COMMITTED.write_text(json.dumps(made, indent=2) + "\n")
        return
    more, fewer = compare(made, json.loads(COMMITTED.read_text()))
    if fewer:
        print(f"Fewer than committed: {', '.join(fewer)}. If that is to stay: benches/instructions.py --write")
    # As the runner of the tests counts.
    print(f"{len(made['instructions']) - len(more)} passed, {len(more)} failed")
    if more:
        sys.exit(f"More instructions than committed: {', '.join(more)}. If that is worth it: benches/instructions.py --write")


if __name__ == "__main__":
    main()
