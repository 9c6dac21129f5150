#!/usr/bin/env python3
"""Runs core's tests of the format where numbers have other sizes and another order of bytes.

    python3 tools/portable.py            on i686, of 32 bits, which x86-64 runs by itself
    python3 tools/portable.py --long     on s390x too, which is big-endian, under emulation

With the RustCrypto backend, which is there for every target. Takes what tools/cross.py unpacks, and builds Rust's own library too.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import cross  # noqa: E402
from debian import shared  # noqa: E402

# Core is optimised less: that is compiled faster by more than the tests are slower. What it needs is optimised, cryptography above all.
CORE = ["test", "--locked", "--profile", "ci", "--config", "profile.ci.package.keyfold.opt-level=1", "-p", "keyfold", "--no-fail-fast",
        "--no-default-features", "--features", "std,config,testing,hazmat", "-Zbuild-std=std,panic_unwind"]
WHOLE = ["--lib", "--test", "hostile"]
# Of the program of most tests, the modules about what is sealed and opened.
MODULES = ["vectors::", "single_values::", "columns::", "documents::", "frames::", "streams::", "lookup::", "rebind::"]
# A million mutations, which an emulator takes a quarter of an hour for. They are the same ones everywhere.
SLOW = ["--", "--skip", "mutat"]


# Failure K13
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="on s390x too")
    options = parser.parse_args()
    try:
        cross.install()
    except shared.Unavailable as why:
        print(f"SKIPPED: core on other machines: {why}")
        return shared.NOTHING_RAN
    failed = False
    for name, (target, _, _) in cross.PORTABLE.items():
        if name == "s390x" and not options.long:
            print("SKIPPED: core on a big-endian machine, which takes minutes to build; ./test --long runs it")
            continue
        for tests in (WHOLE + (SLOW if name == "s390x" else []), ["--test", "all", "--", *MODULES]):
            command = ["cargo", *CORE, "--target", target, *tests]
            failed |= subprocess.run(command, cwd=shared.ROOT, env={**os.environ, **cross.environment()}).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
