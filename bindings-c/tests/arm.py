#!/usr/bin/env python3
"""Builds the C library for Linux on ARM, 64 and 32 bits, and runs under emulation its tests in C and the vectors of core:
`bindings-c/tests/arm.py [aarch64] [armv7]`. Takes what tools/cross.py unpacks, and many minutes: it builds Rust's own library too."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import run

ROOT = run.PACKAGE.parent
sys.path.insert(0, str(ROOT / "tools"))
import cross  # noqa: E402
import shared  # noqa: E402

BUILD_STD = "-Zbuild-std=std,panic_unwind"


def cargo(*arguments):
    """Cargo with the cross compilers."""
    subprocess.run(["cargo", *arguments], check=True, cwd=ROOT, env={**os.environ, **cross.environment()})


# Failure F17
def main():
    try:
        cross.install()
    except shared.Unavailable as why:
        print(f"SKIPPED: the C library on ARM: {why}")
        return shared.NOTHING_RAN
    passed = failed = 0
    for name in sys.argv[1:] or cross.LINUX:
        target, tools, emulator = cross.LINUX[name]
        cargo("build", "--locked", "--profile", "ci", "-p", "keyfold-c", "--target", target, BUILD_STD)
        made = Path(cross.environment()["CARGO_TARGET_DIR"]) / target / "ci"
        flags = f"-I{run.PACKAGE}/include -static {made}/libkeyfold_c.a -pthread -ldl -lm"
        tests = run.Tests(run.PACKAGE, None, cross.tool(f"{tools}-gcc"), flags, [cross.tool(emulator)])
        for case in (run.values, run.misuse, run.sizes, run.sequences):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    case(tests, Path(folder))
                except run.Failed as why:
                    tests.check(False, f"{name}, {case.__name__}: {why}")
        sizes = tests.run(cross.tool(f"{tools}-size"), made / "libkeyfold_c.so").splitlines()[-1].split()
        print(f"{name}: libkeyfold.so has {int(sizes[0]):,} bytes of code and {int(sizes[1]) + int(sizes[2]):,} of data")
        cargo("test", "--locked", "--profile", "ci", "-p", "keyfold", "--features", "testing,hazmat", "--test", "all", "--target", target,
              BUILD_STD, "vectors::")
        passed, failed = passed + tests.passed, failed + tests.failed
    print(f"\n{passed} passed, {failed} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
