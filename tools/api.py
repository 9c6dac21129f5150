#!/usr/bin/env python3
"""The public interface of each crate that is published, a line per item, in docs/api: what a change to it is held to.

    python3 tools/api.py CARGO-PUBLIC-API            writes them
    python3 tools/api.py CARGO-PUBLIC-API --check    says which lines are gone or other (breaking) and which are new, and fails on any

With every feature but `testing` and `hazmat`, which are no part of the promise, and `fips` and `aws-lc-rs`, which add no item. Without what the compiler
derives for all types (blanket and most auto traits) but `Send`, `Sync` and `Unpin`, which a type may lose by a change inside of it.
rustdoc's JSON, from which cargo-public-api makes the lines, is asked of the stable compiler by RUSTC_BOOTSTRAP, for rustdoc alone so that nothing is compiled
again because of it. Its format belongs to the compiler: FORMATS says which cargo-public-api reads which; with another compiler this is skipped aloud.
"""

import argparse
import difflib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "servers"))
import shared  # noqa: E402
from crates import published  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "api"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
FEATURES = "keyfold/serde,keyfold-open/aws,keyfold-open/azure,keyfold-open/gcp,keyfold-open/pkcs11,keyfold-open/vault,keyfold-store/postgres"
# The version of rustdoc's JSON that cargo-public-api 0.52.0 reads.
FORMAT = 57
# What the compiler derives without being asked, but for Send, Sync and Unpin.
DERIVED = re.compile(r"^impl.* !?core::(marker::(Freeze|UnsafeUnpin|StructuralPartialEq)|panic::unwind_safe::\w+)\b")


def documented(names):
    """The JSON of each library, by the name of its package."""
    tools = TARGET / "tools"
    tools.mkdir(parents=True, exist_ok=True)
    rustdoc = tools / "rustdoc-json"
    rustdoc.write_text('#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc "$@"\n')
    rustdoc.chmod(0o755)
    environment = {**os.environ, "RUSTDOC": str(rustdoc), "RUSTDOCFLAGS": "-Z unstable-options --output-format json"}
    chosen = [part for name in names for part in ("-p", name)]
    command = ["cargo", "doc", "--profile", "ci", "--locked", "--no-deps", "--lib", *chosen, "--features", FEATURES]
    subprocess.run(command, cwd=ROOT, check=True, env=environment)
    return {name: TARGET / "doc" / f"{name.replace('-', '_')}.json" for name in names}


def interface(tool, path):
    text = subprocess.run([tool, "public-api", "--rustdoc-json", path, "--omit", "blanket-impls", "--color", "never"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return "".join(f"{line}\n" for line in sorted(set(text.splitlines())) if not DERIVED.match(line))


def changes(before, after):
    """Lines that are gone, and lines that are new."""
    lines = [line for line in difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0) if not line.startswith(("---", "+++", "@@"))]
    return [line for line in lines if line[0] == "-"], [line for line in lines if line[0] == "+"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    # The command is no library.
    names = sorted(name for name in published() if name != "keyfold-cli")
    passed = failed = 0
    found = documented(names)
    if (said := json.loads(found["keyfold"].read_text())["format_version"]) != FORMAT:
        print(f"SKIPPED: this compiler's rustdoc writes JSON of version {said}, and tools/api.py knows {FORMAT}")
        return shared.NOTHING_RAN
    FOLDER.mkdir(exist_ok=True)
    for name, path in found.items():
        made, kept = interface(options.tool.resolve(), path), FOLDER / f"{name}.txt"
        if not options.check:
            kept.write_text(made)
            continue
        gone, new = changes(kept.read_text() if kept.exists() else "", made)
        passed, failed = passed + (not gone and not new), failed + bool(gone or new)
        for what, lines in (("BREAKING: gone, or reads otherwise now", gone), ("new", new)):
            if lines:
                print(f"FAILED: docs/api/{name}.txt, {what}:", *lines, sep="\n  ")
    if options.check:
        if failed:
            print("If that is meant: python3 tools/api.py writes the files; what is breaking raises the version (docs/RELEASE.md).")
        print(f"{passed} passed, {failed} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
