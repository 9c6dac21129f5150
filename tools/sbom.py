#!/usr/bin/env python3
"""The bill of materials of an artefact: CycloneDX 1.6 as JSON, from Cargo.lock and what `cargo metadata` resolves, by the library of CycloneDX.

    python3 tools/sbom.py --package keyfold-cli [--features all-kms] [--target TRIPLE] --output keyfold.cdx.json
    python3 tools/sbom.py --check              that of each artefact that we make: valid, and what cargo itself says is in it

In it is what is compiled into the artefact, with its licence, and its SHA-256 as Cargo.lock has it. What only builds or tests it, the standard
library of Rust, and the C code inside of crates (SQLite, for one) under names of its own are not: the crate stands for it. The same Cargo.lock gives
the same file. Needs the package cyclonedx-python-lib[json-validation]; `./test sbom` installs it.
"""

import argparse
import json
import re
import subprocess
import sys
import tomllib
import uuid
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path

from cyclonedx.exception import MissingOptionalDependencyException
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

ROOT = Path(__file__).resolve().parent.parent
TARGET = "x86_64-unknown-linux-gnu"
# What we make, with the features of a release: the crate, as a program has it that asks for nothing else; command, C library and wheel; the library for devices.
ARTEFACTS = [("keyfold", ""), ("keyfold-cli", "all-kms"), ("keyfold-c", "all-kms"), ("keyfold-python", "all-kms"), ("keyfold-device", "")]
# The namespace of serial numbers: anything that stays.
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:keyfold:sbom")


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def resolve(package, features, target):
    """The root, and all packages that are compiled into it, by ID, with what each depends on."""
    arguments = ["--features", features] if features else []
    metadata = json.loads(cargo("metadata", "--format-version", "1", "--locked", "--filter-platform", target,
                                "--manifest-path", str(manifest(package)), *arguments))
    packages = {found["id"]: found for found in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    [root] = [found["id"] for found in metadata["packages"] if found["name"] == package and found["source"] is None]
    # Of the features of the workspace, cargo resolves all together; the tree of cargo knows those of one package.
    compiled = tree(package, features, target)
    reached, todo = {}, [root]
    while todo:
        at = todo.pop()
        if at in reached:
            continue
        uses = [dep["pkg"] for dep in nodes[at]["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
        reached[at] = [use for use in uses if key(packages[use]) in compiled]
        todo.extend(reached[at])
    return root, {at: (packages[at], uses) for at, uses in reached.items()}


def manifest(package):
    metadata = json.loads(cargo("metadata", "--format-version", "1", "--locked", "--no-deps"))
    found = [known["manifest_path"] for known in metadata["packages"] if known["name"] == package]
    if not found:
        sys.exit(f"the workspace has no package {package}")
    return found[0]


def tree(package, features, target):
    """What `cargo tree` says is compiled into a package: name and version."""
    arguments = ["--features", features] if features else []
    text = cargo("tree", "--locked", "-p", package, "--target", target, "-e", "normal", "--prefix", "none", "--no-dedupe", *arguments)
    return {(name, version) for name, version in re.findall(r"(?m)^(\S+) v(\S+)", text)}


def key(package):
    return package["name"], package["version"]


def bill(package, features, target):
    lock = (ROOT / "Cargo.lock").read_bytes()
    sums = {(found["name"], found["version"]): found.get("checksum") for found in tomllib.loads(lock.decode())["package"]}
    root, resolved = resolve(package, features, target)
    components = {}
    for at, (found, _) in resolved.items():
        checksum, licence = sums[key(found)], (found["license"] or "").replace("/", " OR ")
        components[at] = Component(
            type=ComponentType.APPLICATION if at == root and package == "keyfold-cli" else ComponentType.LIBRARY,
            name=found["name"], version=found["version"], bom_ref=f"{found['name']}@{found['version']}", description=found["description"],
            purl=PackageURL("cargo", name=found["name"], version=found["version"]),
            licenses=[LicenseExpression(licence) if licence else DisjunctiveLicense(name=f"see {found['license_file']}")],
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=checksum)] if checksum else [],
        )
    bom = Bom(components=[component for at, component in components.items() if at != root])
    bom.metadata.component = components[root]
    bom.metadata.timestamp = committed()
    bom.serial_number = uuid.uuid5(NAMESPACE, " ".join([sha256(lock).hexdigest(), package, features, target]))
    for at, (_, uses) in resolved.items():
        bom.register_dependency(components[at], [components[use] for use in uses])
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def committed():
    """The time of the commit, so that the same source gives the same file."""
    done = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True)
    return datetime.fromtimestamp(int(done.stdout or 0), timezone.utc)


# Failure K16
def check():
    passed, failed = 0, 0
    for package, features in ARTEFACTS:
        text = bill(package, features, TARGET)
        error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
        made = json.loads(text)
        listed = {(part["name"], part["version"]) for part in made["components"]} | {key(made["metadata"]["component"])}
        compiled = tree(package, features, TARGET)
        bare = [part["name"] for part in made["components"] if "hashes" not in part and not part["name"].startswith("keyfold")]
        for what, wrong in [("is valid", error), ("has all that cargo says, and no more", listed ^ compiled), ("has every hash", bare),
                            ("is the same again", text != bill(package, features, TARGET))]:
            passed, failed = passed + (not wrong), failed + bool(wrong)
            if wrong:
                print(f"FAILED: the bill of {package} {what}: {wrong}")
        print(f"{package}: {len(made['components'])} components")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", default="keyfold-cli", help="a package of the workspace")
    parser.add_argument("--features", default="", help="its features, with commas between them")
    parser.add_argument("--target", default=TARGET, help="the platform")
    parser.add_argument("--output", type=Path, help="the file; by default standard output")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.check:
        return check()
    text = bill(options.package, options.features, options.target)
    if options.output:
        options.output.write_text(text)
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MissingOptionalDependencyException as error:
        sys.exit(f"pip install 'cyclonedx-python-lib[json-validation]': {error}")
