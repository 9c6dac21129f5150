#!/usr/bin/env python3
"""Packs the crates that are published, unpacks them into an empty folder, and builds and runs a program there that depends on them.

    python3 tools/crates.py --target FOLDER      FOLDER keeps what is compiled, for the next time

The program is open/examples/one_value.rs. What it needs of ours are the unpacked crates alone, all of which are built, the command too; what these need of others,
in the versions of our Cargo.lock.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What a program of somebody else may name that does not know our workspace.
DEPENDENCIES = {"keyfold": "", "keyfold-open": "", "pollster": "0.4"}
# In each package, beside the sources, which the compiler misses if they are not there.
EXPECTED = ["Cargo.toml", "LICENSE-APACHE", "LICENSE-MIT"]


def run(*command, **how):
    return subprocess.run([str(part) for part in command], check=True, **{"cwd": ROOT, **how})


def published():
    metadata = json.loads(subprocess.run(["cargo", "metadata", "--locked", "--no-deps", "--format-version", "1"], cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    return {package["name"]: package["version"] for package in metadata["packages"] if package["publish"] != []}


def pack(names, folder):
    """The packages as files."""
    chosen = [part for name in names for part in ("-p", name)]
    run("cargo", "package", "--quiet", "--locked", "--no-verify", "--allow-dirty", *chosen, env={**os.environ, "CARGO_TARGET_DIR": str(folder)})
    return sorted((folder / "package").glob("*.crate"))


def lay_out(folder, versions, unpacked):
    """A workspace of the program and the unpacked crates, which are taken for those of the registry."""
    app = folder / "app"
    (app / "src").mkdir(parents=True)
    shutil.copy(ROOT / "open" / "examples" / "one_value.rs", app / "src" / "main.rs")
    dependencies = "".join(f'{name} = "{version or versions[name]}"\n' for name, version in DEPENDENCIES.items())
    (app / "Cargo.toml").write_text(f'[package]\nname = "app"\nversion = "0.0.0"\nedition = "2024"\n[dependencies]\n{dependencies}')
    patches = "".join(f'{name} = {{ path = "{path}" }}\n' for name, path in unpacked.items())
    (folder / "Cargo.toml").write_text(f'[workspace]\nresolver = "3"\nmembers = ["app", "vendor/*"]\n[patch.crates-io]\n{patches}[profile.dev]\ndebug = false\n')
    shutil.copy(ROOT / "Cargo.lock", folder)


# Failure K16
def crates(target):
    problems, versions = [], published()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for packed in pack(versions, folder / "packing"):
            with tarfile.open(packed) as tar:
                tar.extractall(folder / "vendor", filter="data")
        unpacked = {name: folder / "vendor" / f"{name}-{version}" for name, version in versions.items()}
        problems += [f"{name} has no {file}" for name, path in unpacked.items() for file in EXPECTED if not (path / file).exists()]
        lay_out(folder, versions, unpacked)
        # All of them: each is compiled from what was packed, and the command as well.
        run("cargo", "build", "--quiet", "--workspace", cwd=folder, env={**os.environ, "CARGO_TARGET_DIR": str(target)})
        said = subprocess.run([target / "debug" / "app", "ring"], cwd=folder, check=True, capture_output=True, text=True).stdout
        version = subprocess.run([target / "debug" / "keyfold", "--version"], check=True, capture_output=True, text=True).stdout.split("\n")[0]
        if version != f"keyfold {versions['keyfold-cli']}":
            problems.append(f"the command says {version}")
        if "current: true" not in said or "kf1.01" not in said:
            problems.append(f"the program said {said}")
    print("\n".join(f"FAILED: {problem}" for problem in problems))
    print(f"{len(versions) + 1 - len(problems)} passed, {len(problems)} failed")
    return bool(problems)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, required=True)
    return crates(parser.parse_args().target.absolute())


if __name__ == "__main__":
    sys.exit(main())
