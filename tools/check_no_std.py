"""Checks that core without features and the library for devices, and everything they depend on, are free of std and of an allocator.

`cargo check` on a host cannot tell, since std is there. So: the crate says no_std, no dependency has a feature
that needs std or alloc switched on, and, where the toolchain has a bare-metal target, it really builds for one.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BARE_METAL = ["thumbv7em-none-eabihf", "thumbv7m-none-eabi", "thumbv8m.main-none-eabihf"]
CORE = ["-p", "keyfold", "--no-default-features"]


def output(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def main():
    source = (ROOT / "core/src/lib.rs").read_text()
    assert '#![cfg_attr(not(feature = "std"), no_std)]' in source, "core does not say no_std"
    assert "#![no_std]" in (ROOT / "bindings-c/device/src/lib.rs").read_text(), "the library for devices does not say no_std"
    for package in (CORE, ["-p", "keyfold-device"]):
        tree = output("cargo", "tree", *package, "-e", "normal,features", "--prefix", "none", "-f", "{p} [{f}]")
        wrong = [line for line in tree.splitlines()
                 if "[" in line and {"std", "alloc"} & set(line.rsplit("[", 1)[1].rstrip("]").split(","))]
        assert not wrong, f"a dependency has std or alloc switched on: {wrong}"
        print(f"no dependency of {len(set(tree.splitlines()))} lines has std or alloc switched on")
    sysroot = Path(output("rustc", "--print", "sysroot").strip())
    for target in BARE_METAL:
        if (sysroot / "lib/rustlib" / target / "lib").is_dir():
            subprocess.run(["cargo", "build", "--profile", "ci", *CORE, "--target", target], cwd=ROOT, check=True)
            print(f"built for {target}\n2 passed, 0 failed")
            return
    print("1 passed, 0 failed")
    print(f"SKIPPED: a bare-metal build of core, since the toolchain has no std-less target ({', '.join(BARE_METAL)})")


sys.exit(main())
