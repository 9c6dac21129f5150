#!/usr/bin/env python3
"""Builds the gateway for Linux on ARM, 64 and 32 bits, with SQLite and libc inside, and has test.py run it under emulation:
`examples/gateway/arm.py --keyfold KEYFOLD`. Takes what tools/cross.py unpacks."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import test

ROOT = test.HERE.parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import cross  # noqa: E402
import shared  # noqa: E402


def sqlite_source():
    """The folder of sqlite3.c: that of the crate which puts SQLite into the command."""
    said = subprocess.run(["cargo", "metadata", "--format-version", "1", "--locked"], cwd=ROOT, capture_output=True, check=True).stdout
    crates = [package for package in json.loads(said)["packages"] if package["name"] == "libsqlite3-sys"]
    return Path(crates[0]["manifest_path"]).parent / "sqlite3"


class Emulated(argparse.Namespace):
    """Options of test.py for one processor."""

    def build(self, program, device):
        real = program.with_suffix(".arm")
        sqlite = [self.sqlite, "-static", "-pthread", "-lm"]
        test.build(real, device, cross.tool(f"{self.prefix}-gcc"), [f"-I{sqlite_source()}", *sqlite])
        print(f"{self.prefix}: {real.stat().st_size / 1024:.0f} KiB, with SQLite and libc")
        program.write_text(f'#!/bin/sh\nexec {cross.tool(self.emulator)} {real} "$@"\n')
        program.chmod(0o755)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keyfold", required=True, type=lambda text: Path(text).resolve())
    keyfold, passed = parser.parse_args().keyfold, 0
    try:
        cross.install()
    except shared.Unavailable as why:
        print(f"SKIPPED: the gateway on ARM: {why}")
        sys.exit(shared.NOTHING_RAN)
    with tempfile.TemporaryDirectory() as folder:
        for target, prefix, emulator in cross.LINUX.values():
            device = Path(folder) / target
            subprocess.run([sys.executable, ROOT / "bindings-c" / "device" / "build", "--target", target, "--build-std", "--out", device],
                           check=True, env=os.environ | cross.environment())
            sqlite = Path(folder) / f"{prefix}-sqlite3.o"
            # A static program loads no extensions.
            subprocess.run([cross.tool(f"{prefix}-gcc"), "-O2", "-ffunction-sections", "-DSQLITE_OMIT_LOAD_EXTENSION", "-c",
                            sqlite_source() / "sqlite3.c", "-o", sqlite], check=True)
            cases = [case for case in test.CASES if case is not test.units]
            passed += test.run(Emulated(keyfold=keyfold, device=device, sqlite=sqlite, prefix=prefix, emulator=emulator), cases)
    print(f"{passed} passed, 0 failed")


if __name__ == "__main__":
    sys.exit(main())
