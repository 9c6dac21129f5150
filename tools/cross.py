#!/usr/bin/env python3
"""Compilers and emulators for devices and other machines, unpacked from Debian's packages into target/cross: nothing is installed, and no root is needed.

    python3 tools/cross.py      fetches what is missing (some 400 MB) and says where the tools are

Cross gcc for Linux on ARM (64 and 32 bits), i686 and s390x and for bare Cortex-M, qemu for all, and a rustc with the source of its standard library,
which `cargo -Zbuild-std` builds for each target.
"""

import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import debian  # noqa: E402
from debian import shared  # noqa: E402

FOLDER = shared.TARGET / "cross"
PACKAGES = [
    "gcc-arm-none-eabi", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "gcc-arm-linux-gnueabihf", "libc6-dev-armhf-cross",
    "gcc-i686-linux-gnu", "libc6-dev-i386-cross", "gcc-s390x-linux-gnu", "libc6-dev-s390x-cross",
    "qemu-system-arm", "qemu-user-static", "rustc-web", "rust-web-src",
    # By name: what a machine has installed is not fetched with what needs it.
    "binutils-arm-none-eabi", "binutils-aarch64-linux-gnu", "binutils-arm-linux-gnueabihf", "binutils-i686-linux-gnu",
    "binutils-s390x-linux-gnu",
]
PREFIXES = ["arm-none-eabi", "aarch64-linux-gnu", "arm-linux-gnueabihf", "i686-linux-gnu", "s390x-linux-gnu"]
# For each machine: the target of Rust, the prefix of its tools, and its emulator.
LINUX = {
    "aarch64": ("aarch64-unknown-linux-gnu", "aarch64-linux-gnu", "qemu-aarch64-static"),
    "armv7": ("armv7-unknown-linux-gnueabihf", "arm-linux-gnueabihf", "qemu-arm-static"),
}
# The same of machines on which the format must not differ: one of 32 bits, which x86-64 runs by itself, and a big-endian one.
PORTABLE = {
    "i686": ("i686-unknown-linux-gnu", "i686-linux-gnu", "qemu-i386-static"),
    "s390x": ("s390x-unknown-linux-gnu", "s390x-linux-gnu", "qemu-s390x-static"),
}
TOOLS = [
    *(f"{prefix}-{name}" for prefix in PREFIXES for name in ("gcc", "ar", "ld", "nm", "objcopy", "size")),
    "qemu-system-arm", "qemu-aarch64-static", "qemu-arm-static", "qemu-i386-static", "qemu-s390x-static", "qemu-x86_64-static",
    "rustc", "rustdoc",
]
WRAPPER = """\
#!/bin/sh
root=$(cd "$(dirname "$0")/.." && pwd)
export LD_LIBRARY_PATH="$root/usr/lib/{machine}-linux-gnu:$root/lib/{machine}-linux-gnu${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
exec "$root/usr/bin/{name}" "$@"
"""


def tool(name):
    return FOLDER / "bin" / name


def environment():
    """For cargo: its own rustc, and its own target folder, since another rustc made what is in the usual one. And how to run what it builds."""
    found = {
        "RUSTC": str(tool("rustc")),
        "RUSTDOC": str(tool("rustdoc")),
        "RUSTC_BOOTSTRAP": "1",
        "CARGO_TARGET_DIR": str(FOLDER / "build"),
    }
    for target, prefix, emulator in (LINUX | PORTABLE).values():
        of_cargo = f"CARGO_TARGET_{target.upper().replace('-', '_')}"
        found[f"{of_cargo}_LINKER"] = str(tool(f"{prefix}-gcc"))
        found[f"{of_cargo}_RUNNER"] = f"{tool(emulator)} -L {FOLDER}/usr/{prefix}"
        if prefix.startswith("i686") and platform.machine() == "x86_64":
            libraries = FOLDER / "usr" / prefix / "lib"
            found[f"{of_cargo}_RUNNER"] = f"{libraries}/ld-linux.so.2 --library-path {libraries}"
        found[f"CC_{target.replace('-', '_')}"] = str(tool(f"{prefix}-gcc"))
        found[f"AR_{target.replace('-', '_')}"] = str(tool(f"{prefix}-ar"))
    return found


def install():
    """Has everything in FOLDER. Raises `shared.Unavailable` where that cannot be."""
    stamp = FOLDER / "installed"
    wanted = "\n".join(PACKAGES + TOOLS)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    debian.unpack(FOLDER, PACKAGES)
    relocate()
    stamp.write_text(wanted)


def relocate():
    """Makes what was unpacked work from where it is."""
    for script in FOLDER.glob("usr/*-linux-gnu*/lib/lib*.so"):
        if script.is_file() and not script.is_symlink() and script.stat().st_size < 4096:
            # The linker finds the files by name in its own folders.
            script.write_text(script.read_text().replace(f"/usr/{script.parts[-3]}/lib/", ""))
    bin_folder = FOLDER / "bin"
    bin_folder.mkdir(exist_ok=True)
    for name in TOOLS:
        if not (FOLDER / "usr" / "bin" / name).exists():
            raise shared.Unavailable(f"{name} is in none of Debian's packages here")
        tool(name).write_text(WRAPPER.format(name=name, machine=platform.machine()))
        tool(name).chmod(0o755)


if __name__ == "__main__":
    try:
        install()
    except shared.Unavailable as why:
        sys.exit(str(why))
    for name in TOOLS:
        print(tool(name))
