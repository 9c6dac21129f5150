#!/usr/bin/env python3
"""Each system call of the command by which it reads or writes fails, the n-th for n = 1, 2, … until a run makes fewer; or it is killed there.

    python3 tools/io_faults.py COMMAND                     every operation, in minutes for each: ./test --long runs them
    python3 tools/io_faults.py COMMAND --only OPERATION    one

Whatever fails: no panic, an error with its exit code, no half of a file under its name and no temporary file; what was sealed before is
revealed, the key records are whole, and repeating finishes. Killed at any of them: the same, but for temporary files. Interrupted by a
signal at any (EINTR): it goes on as if nothing had been. The calls are made to fail by strace, in every thread.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "servers"))
import shared  # noqa: E402

READS = {"openat": "EMFILE", "read": "EIO", "pread64": "EIO"}
WRITES = {"write": "ENOSPC", "pwrite64": "ENOSPC", "ftruncate": "ENOSPC", "fsync": "EIO", "fdatasync": "EIO", "mkdir": "ENOSPC",
          "linkat": "EIO", "rename": "EIO", "renameat": "EIO", "renameat2": "EIO", "unlink": "EIO", "unlinkat": "EIO", "fchmod": "EPERM"}
LOCKS = {"flock": "ENOLCK", "fcntl": "ENOLCK"}
RANDOM = {"getrandom": "EIO"}
INTERRUPTED = ["openat", "read", "write", "flock", "getrandom"]
# std itself panics where it can draw no key for a hash map. Nothing has been sealed then, and nothing is written.
OF_STD = "failed to generate random data"
# Whatever removes a file that is not needed any more: where that fails, the file is still there.
REMOVES = {"unlink", "unlinkat"}
POLICY = """\
version = 1
[fields."patient.id"]
mode = "deterministic"
identifier = "R"
columns = ["patient_id"]
[fields."patient.ssn"]
identifier = "G"
row_binding = "patient_id"
columns = ["ssn"]
"""
OUT = "out.csv"
PLAIN = "patient_id,ssn\np-17,999-81-5679\np-18,999-81-5680\n"
FILES = ("keyfold.toml", "local.kek", "keys.db", "keys.high-water", ".gitignore")
KEYS = ["--config", "ring/keyfold.toml"]
FIELDS = [*KEYS, "--policy", "policy.toml"]
# By name: the arguments, and what it writes.
OPERATIONS = {
    "init": (["init", "new"], None),
    "protect": (["protect", *FIELDS, "plain.csv", "--output", OUT], "sealed"),
    "rotate": (["keys", "rotate", *KEYS], None),
    "reveal": (["reveal", *FIELDS, "sealed.csv", "--output", OUT], "plain"),
    "another root": (["keys", "rotate", "--root", *KEYS], None),
    "reparent": (["keys", "reparent", *KEYS], None),
    "re-encrypt": (["reencrypt", *FIELDS, "sealed.csv", "--output", OUT], "sealed"),
    "backup": (["keys", "backup", *KEYS, OUT], "backup"),
    "first key of a scope": (["protect", *FIELDS, "--scope", "ward", "plain.csv", "--output", OUT], "ward"),
}


class Failed(Exception):
    """What is wrong."""


class Command:
    def __init__(self, path, folder):
        self.path, self.folder = path, folder

    def run(self, arguments, folder, *under):
        return subprocess.run([*under, self.path, *arguments], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              errors="replace", timeout=120)

    def succeed(self, arguments, folder):
        done = self.run(arguments, folder)
        if done.returncode != 0:
            raise Failed(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()[-400:]}")
        return done.stdout

    def prepare(self):
        """A keyring with two generations, a file that is under the older one, and a second root."""
        folder = self.folder / "before"
        folder.mkdir()
        (folder / "policy.toml").write_text(POLICY)
        (folder / "plain.csv").write_text(PLAIN)
        self.succeed(["init", "ring"], folder)
        self.succeed(["protect", *FIELDS, "plain.csv", "--output", "sealed.csv"], folder)
        self.succeed(["keys", "rotate", *KEYS], folder)
        self.succeed(["keys", "rotate", "--root", *KEYS], folder)
        return folder

    def reveals(self, sealed, folder, ring="ring", *more):
        arguments = ["reveal", "--config", f"{ring}/keyfold.toml", "--policy", "policy.toml", *more, sealed, "--output", "-"]
        if self.succeed(arguments, folder) != PLAIN:
            raise Failed(f"{sealed} is revealed as something else")

    def check_output(self, kind, folder):
        """What stands under the name of the output is whole."""
        if kind == "plain" and (folder / OUT).read_text() != PLAIN:
            raise Failed("half of a file")
        if kind in ("sealed", "ward"):
            self.reveals(OUT, folder, "ring", *(["--scope", "ward"] if kind == "ward" else []))
        if kind == "backup":
            self.succeed(["keys", "restore", *KEYS, "--from", OUT, "--dry-run"], folder)

    def check_keys(self, folder, ring="ring"):
        """Every record is vouched for, and one key seals in each place."""
        listed = self.succeed(["keys", "list", "--config", f"{ring}/keyfold.toml", "--json"], folder)
        keys = [json.loads(line) for line in listed.splitlines()]
        sealing = [key["slot"] for key in keys if key["state"] == "active" and key["class"] == "data"]
        if len(set(sealing)) != len(sealing) or not sealing or not all(key["verified"] for key in keys):
            raise Failed(f"keys: {listed}")


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def attempt(command, before, operation, call, fault, n):
    """Makes the n-th `call` fail; whether there was one."""
    arguments, kind = OPERATIONS[operation]
    with tempfile.TemporaryDirectory(dir=command.folder) as path:
        folder, log = Path(path) / "work", Path(path) / "log"
        shutil.copytree(before, folder)
        inject = f"inject={call}:{'signal=KILL' if fault == 'KILL' else f'error={fault}'}:when={n}"
        done = command.run(arguments, folder, "strace", "-f", "-qq", "-o", log, "-e", f"trace={call}", "-e", inject)
        said = done.stderr.strip()[-400:]
        killed = done.returncode == -9
        reached = killed if fault == "KILL" else "(INJECTED)" in log.read_text()
        if not reached and done.returncode != 0:
            raise Failed(f"without a fault it ended with {done.returncode}: {said}")
        if reached and done.returncode == 127 and "loading shared libraries" in done.stderr:
            return True
        of_std = call == "getrandom" and OF_STD in done.stderr
        if not killed and not of_std and (done.returncode not in range(9) or "panicked" in done.stderr or (done.returncode and not said)):
            raise Failed(f"ended with {done.returncode}: {said}")
        if fault == "EINTR" and done.returncode != 0:
            raise Failed(f"ended with {done.returncode} where a signal came in between: {said}")
        # What was there before is as it was, and what is new is whole.
        command.reveals("sealed.csv", folder)
        if kind and (folder / OUT).exists():
            command.check_output(kind, folder)
            (folder / OUT).unlink()
        elif kind and done.returncode == 0:
            raise Failed("it succeeded and wrote nothing")
        if operation == "init" and done.returncode != 0:
            left = names(folder / "new") if (folder / "new").exists() else set()
            # Where only the message about it could not be written, it is complete.
            complete = set(FILES) <= left and "standard output" in said
            if left and not complete and not killed and call not in REMOVES:
                raise Failed(f"ended with {done.returncode} and left {left}: {said}")
            shutil.rmtree(folder / "new", ignore_errors=True)
        # Repeating finishes.
        if operation != "init" or done.returncode != 0:
            command.succeed(arguments, folder)
        if kind:
            command.check_output(kind, folder)
        ring = "new" if operation == "init" else "ring"
        if operation == "init":
            command.succeed(["protect", "--config", "new/keyfold.toml", "--policy", "policy.toml", "plain.csv", "--output", OUT], folder)
            command.reveals(OUT, folder, ring)
        command.check_keys(folder, ring)
        command.reveals("sealed.csv", folder)
        known = names(before) | {OUT} | {f"{place}/{file}{end}" for place in ("ring", "new") for file in FILES for end in ("", ".lock", "-wal", "-shm")}
        if not killed and call not in REMOVES and (strays := names(folder) - known):
            raise Failed(f"left {strays}")
        return reached


def every_call(command, before, operation, call, fault):
    """How many calls were made to fail, and what went wrong."""
    problems = []
    for n in range(1, 10_000):
        try:
            if not attempt(command, before, operation, call, fault, n):
                return n - 1, problems
        except (Failed, OSError, ValueError, subprocess.TimeoutExpired) as why:
            problems.append(f"{operation}: {call} {n}, {fault}: {why}")
            if len(problems) > 5:
                return n, problems
    raise Failed(f"{operation} never ends")


# Failures K2, K3, F16, N8
def system_calls(command, before, operations):
    kinds = [(call, fault) for calls in (READS, WRITES, LOCKS, RANDOM) for call, fault in calls.items()]
    kinds += [(call, "KILL") for call in WRITES] + [(call, "EINTR") for call in INTERRUPTED]
    passed = failed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for operation in operations:
            done = list(pool.map(lambda kind: every_call(command, before, operation, *kind), kinds))
            problems = [problem for _, found in done for problem in found]
            counts = ", ".join(f"{call} {fault} {count}" for (call, fault), (count, _) in zip(kinds, done) if count)
            print(f"{operation}: {counts}", *problems, sep="\n", flush=True)
            passed += sum(count for count, _ in done) - len(problems)
            failed += len(problems)
            # The faults were made at all.
            for needed in ("write", "openat", "read"):
                if not any(count for (call, _), (count, _) in zip(kinds, done) if call == needed):
                    print(f"{operation}: no {needed} was made to fail")
                    failed += 1
    return passed, failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", type=Path, metavar="COMMAND", help="keyfold")
    parser.add_argument("--only", choices=OPERATIONS, help="one operation")
    options = parser.parse_args()
    try:
        shared.need(lambda: shutil.which("strace"), "strace")
        if subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], capture_output=True).returncode != 0:
            raise shared.Unavailable("processes may not be traced here")
    except shared.Unavailable as why:
        print(f"SKIPPED: {why}")
        return shared.NOTHING_RAN
    with tempfile.TemporaryDirectory(prefix="keyfold-faults-") as path:
        command = Command(options.command.resolve(), Path(path))
        passed, failed = system_calls(command, command.prepare(), [options.only] if options.only else OPERATIONS)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
