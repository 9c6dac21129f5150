#!/usr/bin/env python3
"""Runs tests as on processors of x86-64 that lack instructions: what seals and opens chooses its machine code by what the processor says it has.

    python3 tools/processors.py ARGUMENT...     what `cargo` is given, for each processor

Emulated by qemu, of which tools/cross.py unpacks one. Before the tests, a program asks each processor what it has: an emulator that passes on the
instructions of this machine would show nothing.
"""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import cross  # noqa: E402
from debian import shared  # noqa: E402

FEATURES = ("ssse3", "aes", "pclmulqdq", "avx", "avx2")
# By their names in qemu, without what it warns that it lacks itself; with those of FEATURES that each has.
PROCESSORS = {
    "qemu64": (),
    "Conroe": ("ssse3",),
    "Westmere": ("ssse3", "aes", "pclmulqdq"),
    "Haswell-noTSX,-pcid,-x2apic,-tsc-deadline,-invpcid": ("ssse3", "aes", "pclmulqdq", "avx", "avx2"),
}
PROBE = """\
#include <cpuid.h>
#include <stdio.h>
int main(void) {
    unsigned a, b, c, d, leaf_7_b = 0;
    __cpuid_count(7, 0, a, leaf_7_b, c, d);
    __cpuid(1, a, b, c, d);
    if (c & bit_SSSE3) puts("ssse3");
    if (c & bit_AES) puts("aes");
    if (c & bit_PCLMUL) puts("pclmulqdq");
    if (c & bit_AVX) puts("avx");
    if (leaf_7_b & bit_AVX2) puts("avx2");
}
"""


def runner():
    """The variable that says how cargo runs what it builds for this machine: with another name it would run it as it is."""
    about = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    host = re.search(r"^host: (\S+)$", about, re.MULTILINE)[1]
    return f"CARGO_TARGET_{host.upper().replace('-', '_')}_RUNNER"


def probe():
    """A program that prints which of FEATURES the processor has."""
    program = shared.TARGET / "processor"
    subprocess.run([os.environ.get("CC", "cc"), "-x", "c", "-", "-o", program], input=PROBE, text=True, check=True)
    return program


# Failure T13
def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    if platform.machine() != "x86_64":
        print("SKIPPED: processors with fewer instructions: those that tools/processors.py knows are of x86-64")
        return shared.NOTHING_RAN
    try:
        cross.install()
    except shared.Unavailable as why:
        print(f"SKIPPED: processors with fewer instructions: {why}")
        return shared.NOTHING_RAN
    # Not by its wrapper, whose path of libraries the tests would take over.
    qemu, program, failed = cross.FOLDER / "usr" / "bin" / "qemu-x86_64-static", probe(), False
    for processor, expected in PROCESSORS.items():
        emulator = [str(qemu), "-cpu", processor]
        has = subprocess.run([*emulator, program], capture_output=True, text=True, check=True).stdout.split()
        if tuple(has) != expected:
            sys.exit(f"{processor} has {has}, and should have {list(expected)}")
        print(f"\n--- {processor.partition(',')[0]}: {', '.join(has) or 'none'} of {', '.join(FEATURES)}", flush=True)
        environment = {**os.environ, runner(): " ".join(emulator)}
        failed |= subprocess.run(["cargo", *sys.argv[1:]], cwd=shared.ROOT, env=environment).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
