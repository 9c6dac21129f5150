#!/usr/bin/env python3
"""Builds a release twice from the commit that is checked out, in two folders, and compares every file: equal digests, or what differs.

    python3 tools/reproducible.py            command and C library, and their packages (tools/package.py): half an hour of one processor
    python3 tools/reproducible.py library    the C library alone: a quarter of an hour
    python3 tools/reproducible.py device     the library for devices: two minutes
    … --keep FOLDER                          leaves both builds there, a folder that does not exist yet: for whoever looks for what differs

The folders have paths of different lengths, and the second build other values of TZ, LC_ALL, USER and the umask, and one job at a time. Paths are taken out by
--remap-path-prefix, and by -ffile-prefix-map of the C code in crates; times by SOURCE_DATE_EPOCH. Toolchain, linker and crates are the same, those of this
machine and Cargo.lock: another rustc makes other bytes. What `environment` of tools/package.py says is what somebody needs who wants to repeat a release: docs/RELEASE.md.
"""

import argparse
import contextlib
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import package

ROOT = Path(__file__).resolve().parent.parent


# What makes each, into a folder.
MAKE = {
    "packages": ["tools/package.py", "--output"],
    "library": ["bindings-c/install", "--prefix", "/usr", "--destdir"],
    "device": ["bindings-c/device/build", "--out"],
}

# It says where it was put, as it should.
ELSEWHERE = {"lib/pkgconfig/keyfold_device.pc"}


def output(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def build(folder, what, commit, other, umask):
    """Makes a release in `folder` from an export of `commit`; returns where its files are."""
    source, made = folder / "source", folder / "made"
    source.mkdir(parents=True)
    archive = subprocess.Popen(["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE)
    subprocess.run(["tar", "-x", "-C", source], stdin=archive.stdout, check=True)
    if archive.wait():
        raise SystemExit("git archive failed")
    time = output("git", "log", "-1", "--format=%ct", commit)
    environ = {**os.environ, **package.environment(source, folder / "target", time), **other}
    subprocess.run([sys.executable, *MAKE[what], made], cwd=source, check=True, umask=umask, env=environ)
    return made


def files(folder):
    found = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file() or path.is_symlink()}
    return {name: path for name, path in found.items() if name not in ELSEWHERE}


def members(archive):
    with tarfile.open(archive) as tar:
        return {member.name: tar.extractfile(member).read() if member.isreg() else member.linkname for member in tar}


def difference(one, other):
    """What differs between two files; nothing if they are equal."""
    if one.is_symlink() or other.is_symlink():
        return "" if one.is_symlink() and other.is_symlink() and one.readlink() == other.readlink() else "another link"
    first, second = one.read_bytes(), other.read_bytes()
    if first == second:
        return ""
    if one.name.endswith(".tar.gz"):
        first, second = members(one), members(other)
        return "different: " + ", ".join(name for name in sorted(first.keys() | second.keys()) if first.get(name) != second.get(name))
    at = next((at for at, (a, b) in enumerate(zip(first, second)) if a != b), min(len(first), len(second)))
    return f"{len(first)} and {len(second)} bytes, different from byte {at} on: {first[max(0, at - 40):at + 40]!r}, {second[max(0, at - 40):at + 40]!r}"


# Failure K16
def two_builds(what, keep):
    commit = output("git", "rev-parse", "HEAD")
    if keep:
        keep.mkdir(parents=True)
    with contextlib.nullcontext(keep) if keep else tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        # One after the other, so that they share no clock.
        one = files(build(folder / "a", what, commit, {"TZ": "UTC", "LC_ALL": "C"}, 0o022))
        differs = {"TZ": "Asia/Kolkata", "LC_ALL": "C.UTF-8", "USER": "somebody", "CARGO_BUILD_JOBS": "1"}
        other = files(build(folder / "another-folder-with-a-longer-name" / "b", what, commit, differs, 0o027))
        problems = [f"{name} is in one build only" for name in sorted(set(one) ^ set(other))]
        for name in sorted(set(one) & set(other)):
            if found := difference(one[name], other[name]):
                problems.append(f"{name}: {found}")
            elif not one[name].is_symlink():
                print(f"{hashlib.sha256(one[name].read_bytes()).hexdigest()}  {name}, {one[name].stat().st_size} bytes, twice")
        places = [str(folder).encode(), str(Path.home() / ".cargo").encode()]
        named = [name for name, path in one.items() if path.is_file() and any(place in path.read_bytes() for place in places)]
    problems += [f"{name} names a folder of the machine that made it" for name in named]
    print(f"commit {commit}, {output('rustc', '--version')}, {output('ld', '--version').splitlines()[0]}")
    print("\n".join(f"FAILED: {problem}" for problem in problems))
    print(f"{len(one) - len(problems)} passed, {len(problems)} failed")
    return bool(problems) or not one


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=MAKE, default="packages")
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    return two_builds(args.what, args.keep)


if __name__ == "__main__":
    sys.exit(main())
