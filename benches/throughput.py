#!/usr/bin/env python3
"""Measures `keyfold protect` and `keyfold reveal` of a CSV file with 8 protected columns, written to /dev/null.

Runs the release build of the command on made-up patients (examples/patients.py, examples/patients.toml): 100,000 rows,
and with --long also 1,000,000. Says wall time, CPU time of user and system, fields per second, and peak memory.
Python 3, standard library.

--assert fails when a target is missed: memory always; speed, and the same cost per row at both sizes, with --long
only, since a short run on a busy machine says nothing about either.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
COLUMNS = 8
SMALL, LARGE = 100_000, 1_000_000
# Issue 2: on two cores.
MIN_FIELDS_PER_SECOND = 1_000_000
MAX_MEMORY = 200_000_000
# How far the CPU time per row may differ between the sizes.
MAX_DRIFT = 0.2


def run(command, output):
    """Runs a command with its standard output in `output`; returns wall time, resource usage and the JSON summary."""
    start = time.monotonic()
    # wait4 speaks of this one child; RUSAGE_CHILDREN would keep the largest memory of all that ran before.
    with subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE) as child:
        errors = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - start
    if child.returncode != 0:
        sys.exit(f"{command[1]} failed with exit code {child.returncode}:\n{errors.decode(errors='replace')}")
    return wall, usage, json.loads(errors)


def measure(command, rows, repeat):
    """The median run, by CPU time, of `repeat` runs."""
    runs = []
    for _ in range(repeat):
        with open(os.devnull, "wb") as null:
            wall, usage, summary = run(command, null)
        if summary["values"] != rows * COLUMNS:
            sys.exit(f"{command[1]}: {summary['values']} values instead of {rows * COLUMNS}")
        runs.append((usage.ru_utime + usage.ru_stime, wall, usage))
    runs.sort(key=lambda one: one[0])
    cpu, wall, usage = runs[len(runs) // 2]
    fields = rows * COLUMNS
    return {
        "command": command[1],
        "rows": rows,
        "wall_seconds": round(wall, 3),
        "user_seconds": round(usage.ru_utime, 3),
        "system_seconds": round(usage.ru_stime, 3),
        "cpu_ns_per_field": round(cpu / fields * 1e9, 1),
        "cpu_ns_per_field_range": [round(one[0] / fields * 1e9, 1) for one in (runs[0], runs[-1])],
        "rows_per_second": round(rows / wall),
        "fields_per_second": round(fields / wall),
        "best_fields_per_second": round(fields / min(one[1] for one in runs)),
        "cores_used": round(cpu / wall, 2),
        # Linux counts in KiB.
        "peak_memory_bytes": max(one[2].ru_maxrss for one in runs) * 1024,
    }


def check(results, long):
    """The targets that were missed."""
    missed = []
    for one in results:
        name = f"{one['command']} of {one['rows']} rows"
        if one["peak_memory_bytes"] >= MAX_MEMORY:
            missed.append(f"{name}: {one['peak_memory_bytes'] / 1e6:.0f} MB, more than {MAX_MEMORY / 1e6:.0f}")
        if long and one["command"] == "protect" and one["best_fields_per_second"] < MIN_FIELDS_PER_SECOND:
            # A neighbour on the same cores shows as few cores used; that run should be repeated on a quiet machine.
            got = f"{one['cores_used']} cores' worth of time, load {os.getloadavg()[0]:.1f}"
            missed.append(f"{name}: {one['best_fields_per_second']} fields per second ({got})")
    for command in ("protect", "reveal") if long else ():
        small, large = (one["cpu_ns_per_field"] for one in results if one["command"] == command)
        if abs(large / small - 1) > MAX_DRIFT:
            missed.append(f"{command}: {small} ns per field in {SMALL} rows, {large} in {LARGE}")
    return missed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--keyfold", help="the command to measure (default: the release build)")
    parser.add_argument("--long", action="store_true", help=f"also {LARGE:,} rows; half a minute and 2 GB of disk")
    parser.add_argument("--rows", type=int, help="one size of your own instead")
    parser.add_argument("--repeat", type=int, default=5, help="runs per size and direction (default 5)")
    parser.add_argument("--threads", type=int, help="passed on to keyfold")
    parser.add_argument("--json", action="store_true", help="results as JSON")
    parser.add_argument("--assert", dest="check", action="store_true", help="fail when a target is missed")
    args = parser.parse_args()
    if args.repeat < 1 or (args.rows is not None and args.rows < 1):
        parser.error("--repeat and --rows are 1 or more")
    if args.rows is not None and args.long:
        parser.error("--rows and --long exclude each other")
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    keyfold = args.keyfold or os.path.join(target, "release", "keyfold")
    if not os.path.exists(keyfold):
        sys.exit(f"{keyfold} is missing: cargo build --release -p keyfold-cli")
    results = []
    with tempfile.TemporaryDirectory(prefix="keyfold-throughput-") as folder:
        subprocess.run([keyfold, "init", os.path.join(folder, "ring")], check=True, stdout=subprocess.PIPE)
        options = ["--config", os.path.join(folder, "ring", "keyfold.toml"), "--json"]
        options += ["--policy", os.path.join(ROOT, "examples", "patients.toml"), "--output", "-"]
        if args.threads:
            options += ["--threads", str(args.threads)]
        for rows in [args.rows] if args.rows else [SMALL, LARGE] if args.long else [SMALL]:
            plain, sealed = os.path.join(folder, f"plain-{rows}.csv"), os.path.join(folder, f"sealed-{rows}.csv")
            maker = os.path.join(ROOT, "examples", "patients.py")
            subprocess.run([sys.executable, maker, "--rows", str(rows), "--output", plain], check=True)
            with open(sealed, "wb") as file:
                run([keyfold, "protect", *options, plain], file)
            results.append(measure([keyfold, "protect", *options, plain], rows, args.repeat))
            results.append(measure([keyfold, "reveal", *options, sealed], rows, args.repeat))
            os.remove(plain)
            os.remove(sealed)
    missed = check(results, args.long)
    if args.json:
        # What the machine is, without its name.
        machine = {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
        print(json.dumps({"machine": machine, "results": results, "missed": missed}, indent=2))
    else:
        print(f"{'':8} {'rows':>9} {'wall s':>7} {'user s':>7} {'sys s':>6} {'ns CPU/field':>13} {'fields/s':>10}"
              f" {'cores':>5} {'peak MB':>7}")
        for one in results:
            print(f"{one['command']:8} {one['rows']:>9} {one['wall_seconds']:>7.2f} {one['user_seconds']:>7.2f}"
                  f" {one['system_seconds']:>6.2f} {one['cpu_ns_per_field']:>13.0f} {one['fields_per_second']:>10}"
                  f" {one['cores_used']:>5.2f} {one['peak_memory_bytes'] / 1e6:>7.0f}")
        for one in missed:
            print(f"MISSED: {one}")
    return 1 if args.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
