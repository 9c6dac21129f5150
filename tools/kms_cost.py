#!/usr/bin/env python3
"""What the key service adapters cost: crates for each feature, and the processor time of a cold debug build.

    python3 tools/kms_cost.py          the crates (seconds; Linux, normal dependencies, core included)
    python3 tools/kms_cost.py --build  also a cold build of all adapters in an empty folder (minutes)

docs/KMS-CONTRACT.md states them with their date; `./test --long` prints them.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ADAPTERS = ["aws", "azure", "gcp", "pkcs11", "vault"]


def crates(features):
    """The crates that keyfold-kms is built from with `features`, itself included."""
    command = ["cargo", "tree", "--locked", "-p", "keyfold-kms", "--no-default-features", "--features", features,
               "--edges", "normal", "--prefix", "none", "--format", "{p}"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {" ".join(line.split()[:2]) for line in listed.splitlines() if line}


def without_core(features):
    """How many crates the optional dependencies of `features` are and bring: what programs have that use them without Keyfold."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu",
               "--manifest-path", "kms-adapters/Cargo.toml", "--no-default-features", "--features", features]
    known = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    package = next(package for package in known["packages"] if package["name"] == "keyfold-kms")
    optional = {dependency["name"] for dependency in package["dependencies"] if dependency["optional"]}
    nodes = {node["id"]: node for node in known["resolve"]["nodes"]}
    names = {package["id"]: package["name"] for package in known["packages"]}
    labels = {package["id"]: f"{package['name']} v{package['version']}" for package in known["packages"]}

    def needs(identity):
        return [dependency["pkg"] for dependency in nodes[identity]["deps"] if any(kind["kind"] is None for kind in dependency["dep_kinds"])]

    todo = [identity for identity in needs(package["id"]) if names[identity] in optional]
    found = set()
    while todo:
        identity = todo.pop()
        if identity not in found:
            found.add(identity)
            todo += needs(identity)
    # The metadata have the features of the whole workspace, the tree those of this crate.
    return len({labels[identity] for identity in found} & crates(features))


def main():
    base = crates("")
    print(f"{'none: KEKs in files':24} {len(base):4} crates")
    for features in ["remote", "http", *ADAPTERS, ",".join(ADAPTERS)]:
        found = crates(features)
        banned = sorted(name for name in found if name.startswith("aws-lc"))
        if banned:
            print(f"banned: {', '.join(banned)}")
            return 1
        print(f"{features:24} {len(found):4} crates, {len(found - base)} of them for it")
    print(f"what the optional dependencies of all of them are and bring: {without_core(','.join(ADAPTERS))} crates")
    if "--build" in sys.argv:
        with tempfile.TemporaryDirectory(prefix="keyfold-cost-") as folder:
            command = ["cargo", "build", "--locked", "--quiet", "-p", "keyfold-kms", "--features", ",".join(ADAPTERS)]
            subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "CARGO_TARGET_DIR": folder, "CARGO_PROFILE_DEV_DEBUG": "0"})
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(f"cold debug build of all: {spent.ru_utime + spent.ru_stime:.0f} CPU-seconds")
    return 0


sys.exit(main())
