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

TARGETS = {
    "aarch64": ("aarch64-unknown-linux-gnu", "aarch64-linux-gnu", "qemu-aarch64-static"),
    "armv7": ("armv7-unknown-linux-gnueabihf", "arm-linux-gnueabihf", "qemu-arm-static"),
}
BUILD_STD = "-Zbuild-std=std,panic_unwind"


class Emulated(run.Tests):
    """Programs are built for another processor, with the static library, and are scripts that run them."""

    def __init__(self, name, library):
        _, self.tools, self.emulator = TARGETS[name]
        self.library, self.passed, self.failed, self.keyfold = library, 0, 0, None
        self.environment, self.include = dict(os.environ), run.PACKAGE / "include"
        self.header = (self.include / "keyfold.h").read_text()

    def program(self, source, out, *more, std="c11"):
        built = out.with_suffix(".arm")
        self.run(cross.tool(f"{self.tools}-gcc"), f"-std={std}", "-D_GNU_SOURCE", "-g", "-O1", *run.WARNINGS, *more, "-I", self.include,
                 source, "-o", built, "-static", self.library, "-pthread", "-ldl", "-lm")
        out.write_text(f'#!/bin/sh\nexec {cross.tool(self.emulator)} {built} "$@"\n')
        out.chmod(0o755)
        return out


def cargo(*arguments, **more):
    """Under Rust's own flags and no others."""
    subprocess.run(["cargo", *arguments], check=True, cwd=ROOT, env={**os.environ, **cross.environment(), **more})


def main():
    try:
        cross.install()
    except shared.Unavailable as why:
        print(f"SKIPPED: the C library on ARM: {why}")
        return 0
    passed = failed = 0
    for name in sys.argv[1:] or TARGETS:
        target, tools, emulator = TARGETS[name]
        cargo("build", "--locked", "--profile", "ci", "-p", "keyfold-c", "--target", target, BUILD_STD)
        made = Path(cross.environment()["CARGO_TARGET_DIR"]) / target / "ci"
        tests = Emulated(name, made / "libkeyfold_c.a")
        for case in (run.values, run.misuse):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    case(tests, Path(folder))
                except run.Failed as why:
                    tests.check(False, f"{name}, {case.__name__}: {why}")
        sizes = tests.run(cross.tool(f"{tools}-size"), made / "libkeyfold_c.so").splitlines()[-1].split()
        print(f"{name}: libkeyfold.so has {int(sizes[0]):,} bytes of code and {int(sizes[1]) + int(sizes[2]):,} of data")
        runner = f"CARGO_TARGET_{target.upper().replace('-', '_')}_RUNNER"
        cargo("test", "--locked", "--profile", "ci", "-p", "keyfold", "--features", "testing,hazmat", "--test", "vectors", "--target", target,
              BUILD_STD, **{runner: str(cross.tool(emulator))})
        passed, failed = passed + tests.passed, failed + tests.failed
    print(f"\n{passed} passed, {failed} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
