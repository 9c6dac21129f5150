#!/usr/bin/env python3
"""The bill of materials of an artefact: CycloneDX 1.6 as JSON, from Cargo.lock and what `cargo metadata` resolves, by the library of CycloneDX.

    python3 tools/sbom.py --package keyfold-cli [--features all-kms] [--target TRIPLE] [--artefact FILE] --output keyfold.cdx.json
    python3 tools/sbom.py --check              that of each artefact that we make: valid, and what cargo would compile into it

In it is what is compiled into the artefact, with its licence, its authors, and its SHA-256 as Cargo.lock has it; of the artefact itself, if it is given. SQLite, which its crate
brings as C, is there under its own name; other crates with code in C or assembly say so in a property. What only builds or tests it, macros too, and the standard library of
Rust are not. The same Cargo.lock gives the same file. Needs the package cyclonedx-python-lib[json-validation]; `./test sbom` installs it.
"""

import argparse
import functools
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
import uuid
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path

from cyclonedx.exception import MissingOptionalDependencyException
from cyclonedx.model import HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.contact import OrganizationalContact, OrganizationalEntity
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

ROOT = Path(__file__).resolve().parent.parent
TARGET = "x86_64-unknown-linux-gnu"
# What we make, with the features of a release: the crate, as a program has it that asks for nothing else; command, C library and wheel; the library for devices, on Linux
# and on bare Cortex-M.
ARTEFACTS = [("keyfold", "", TARGET), ("keyfold-cli", "all-kms", TARGET), ("keyfold-c", "all-kms", TARGET), ("keyfold-python", "all-kms", TARGET),
             ("keyfold-device", "panic-abort", TARGET), ("keyfold-device", "panic-handler", "thumbv7em-none-eabihf"), ("keyfold-device", "panic-handler", "thumbv8m.main-none-eabihf")]
HOMEPAGE = "https://github.com/keyfold/keyfold"
# The namespace of serial numbers: anything that stays.
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:keyfold:sbom")


@functools.cache
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
    text = cargo("tree", "--locked", "-p", package, "--target", target, "-e", "normal,no-proc-macro", "--prefix", "none", "--no-dedupe", *arguments)
    return {(name, version) for name, version in re.findall(r"(?m)^(\S+) v(\S+)", text)}


def units(package, features, target):
    """What cargo would compile for the target into a package, by its plan of a build, which is made and not run: name and version. Another way than that of the bill."""
    arguments = ["--features", features] if features else []
    # The plan is asked of the stable cargo, which calls it unstable.
    done = subprocess.run(["cargo", "build", "--locked", "--release", "-p", package, "--target", target, "-Z", "unstable-options", "--unit-graph", *arguments],
                          cwd=ROOT, check=True, capture_output=True, text=True, env={**os.environ, "RUSTC_BOOTSTRAP": "1"})
    graph = json.loads(done.stdout)
    found, seen, todo = set(), set(), list(graph["roots"])
    while todo:
        at = todo.pop()
        unit = graph["units"][at]
        # Macros and build scripts are compiled for the machine that builds.
        if at in seen or unit["mode"] != "build" or unit["platform"] != target:
            continue
        seen.add(at)
        place, _, version = unit["pkg_id"].rpartition("#")
        name, _, version = version.rpartition("@")
        found.add((name or place.rpartition("/")[2], version))
        todo.extend(dependency["index"] for dependency in unit["dependencies"])
    return found


def sqlite(package):
    """SQLite itself, which the crate has as one file of C."""
    header = Path(package["manifest_path"]).parent / "sqlite3" / "sqlite3.h"
    version = re.search(r'^#define SQLITE_VERSION\s+"(.*)"', header.read_text(), re.MULTILINE)[1]
    return Component(type=ComponentType.LIBRARY, name="sqlite", version=version, bom_ref=f"sqlite@{version}", description="SQLite, in C, compiled in from the crate libsqlite3-sys",
                     purl=PackageURL("generic", name="sqlite", version=version), cpe=f"cpe:2.3:a:sqlite:sqlite:{version}:*:*:*:*:*:*:*",
                     supplier=OrganizationalEntity(name="The SQLite project", urls=[XsUri("https://www.sqlite.org")]),
                     licenses=[LicenseExpression("blessing")], hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256(header.with_name("sqlite3.c").read_bytes()).hexdigest())])


def key(package):
    return package["name"], package["version"]


def bill(package, features, target, artefact=None):
    lock = (ROOT / "Cargo.lock").read_bytes()
    sums = {(found["name"], found["version"]): found.get("checksum") for found in tomllib.loads(lock.decode())["package"]}
    root, resolved = resolve(package, features, target)
    components, ours = {}, OrganizationalEntity(name="The Keyfold project", urls=[XsUri(HOMEPAGE)])
    for at, (found, _) in resolved.items():
        checksum, licence = sums[key(found)], (found["license"] or "").replace("/", " OR ")
        components[at] = Component(
            type=ComponentType.APPLICATION if at == root and package == "keyfold-cli" else ComponentType.LIBRARY,
            name=found["name"], version=found["version"], bom_ref=f"{found['name']}@{found['version']}", description=found["description"],
            purl=PackageURL("cargo", name=found["name"], version=found["version"]),
            supplier=ours if found["source"] is None else None,
            authors=[OrganizationalContact(name=author) for author in found["authors"]],
            properties=[Property(name="keyfold:native", value=f"C or assembly, as {found['links']}")] if found["links"] else [],
            licenses=[LicenseExpression(licence) if licence else DisjunctiveLicense(name=f"see {found['license_file']}")],
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=checksum)] if checksum else [],
        )
    # Of the artefact, whose file has another name than the crate's archive.
    if artefact:
        components[root].hashes.add(HashType(alg=HashAlgorithm.SHA_256, content=sha256(artefact.read_bytes()).hexdigest()))
    native = {at: sqlite(found) for at, (found, _) in resolved.items() if found["name"] == "libsqlite3-sys"}
    bom = Bom(components=[*(component for at, component in components.items() if at != root), *native.values()])
    bom.metadata.component, bom.metadata.supplier = components[root], ours
    bom.metadata.authors.add(OrganizationalContact(name="The Keyfold project"))
    bom.metadata.tools.components.add(Component(type=ComponentType.APPLICATION, name="tools/sbom.py", version=components[root].version, supplier=ours))
    bom.metadata.tools.components.add(Component(type=ComponentType.LIBRARY, name="cyclonedx-python-lib", version=importlib.metadata.version("cyclonedx-python-lib")))
    bom.metadata.timestamp = committed()
    bom.serial_number = uuid.uuid5(NAMESPACE, " ".join([sha256(lock).hexdigest(), package, features, target]))
    for at, (_, uses) in resolved.items():
        bom.register_dependency(components[at], [*(components[use] for use in uses), *([native[at]] if at in native else [])])
    for component in native.values():
        bom.register_dependency(component)
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def committed():
    """The time of the commit, so that the same source gives the same file."""
    done = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True)
    return datetime.fromtimestamp(int(done.stdout or 0), timezone.utc)


# Failure K16
def check():
    passed, failed = 0, 0
    for package, features, target in ARTEFACTS:
        text = bill(package, features, target)
        error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
        made = json.loads(text)
        crates = [part for part in made["components"] if part["purl"].startswith("pkg:cargo/")]
        listed = {key(part) for part in crates} | {key(made["metadata"]["component"])}
        compiled = units(package, features, target)
        others = {part["name"] for part in made["components"]} - {part["name"] for part in crates}
        expected = {"sqlite"} if any(part["name"] == "libsqlite3-sys" for part in crates) else set()
        unnamed = [name for name in ("supplier", "authors", "tools", "timestamp") if not made["metadata"].get(name)]
        bare = [part["name"] for part in made["components"] if "hashes" not in part and not part["name"].startswith("keyfold")]
        for what, wrong in [("is valid", error), ("has all that cargo compiles, and no more", listed ^ compiled), ("has every hash", bare),
                            ("has what crates bring in C", others ^ expected), ("says whose it is", unnamed), ("is the same again", text != bill(package, features, target))]:
            passed, failed = passed + (not wrong), failed + bool(wrong)
            if wrong:
                print(f"FAILED: the bill of {package} for {target} {what}: {wrong}")
        print(f"{package} for {target}: {len(made['components'])} components", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", default="keyfold-cli", help="a package of the workspace")
    parser.add_argument("--features", default="", help="its features, with commas between them")
    parser.add_argument("--target", default=TARGET, help="the platform")
    parser.add_argument("--artefact", type=Path, metavar="FILE", help="what was built, for its SHA-256")
    parser.add_argument("--output", type=Path, help="the file; by default standard output")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.check:
        return check()
    text = bill(options.package, options.features, options.target, options.artefact)
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
