"""Checks Cargo.lock against the bans of deny.toml, without a network and without cargo-deny.

Plants first what each check must refuse, in a copy of Cargo.lock in memory: a banned crate, each version that is one too old, a crate below one that may
not need it, and crates that are not from the registry.
"""

import operator
import re
import sys
import tomllib
from pathlib import Path


ROOT = Path(__file__).resolve().parent.parent
COMPARE = {"<": operator.lt, "<=": operator.le, "=": operator.eq, ">=": operator.ge, ">": operator.gt}
REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"


def load(name):
    return tomllib.loads((ROOT / name).read_text())


def parts(version):
    """A version for comparison, without what stands behind `-` and `+`."""
    return tuple(int(number) for number in re.match(r"(\d+)\.(\d+)\.(\d+)", version).groups())


def bans():
    """Name, comparisons of versions, who may need it, and why, of each ban."""
    found = []
    for ban in load("deny.toml")["bans"]["deny"]:
        ban = {"crate": ban} if isinstance(ban, str) else ban
        name, _, versions = ban["crate"].partition(":")
        # Whole versions with an operator alone, so that this means what cargo-deny takes it for.
        compared = [re.fullmatch(r"(<=|>=|<|=|>)(\d+\.\d+\.\d+)", part.strip()).groups() for part in versions.split(",") if part]
        found.append((name, compared, ban.get("wrappers", []), ban.get("reason", "")))
    return found


def problems_of(packages, banned):
    problems = []
    for name, compared, wrappers, reason in banned:
        for package in packages:
            if package["name"] == name and not wrappers and all(COMPARE[how](parts(package["version"]), parts(than)) for how, than in compared):
                problems.append(f"{name} {package['version']} is banned by deny.toml{': ' if reason else ''}{reason}")
            needed = {dependency.split()[0] for dependency in package.get("dependencies", [])}
            if wrappers and name in needed and package["name"] not in wrappers:
                problems.append(f"{package['name']} needs {name}, which deny.toml allows {', '.join(wrappers)} alone")
    for package in packages:
        # What has no source is in the workspace.
        if package.get("source", REGISTRY) != REGISTRY:
            problems.append(f"{package['name']} comes from {package['source']}")
    return problems


def newest(compared):
    """The newest version that the comparisons hold of, so to speak: for `<` the one before, else the one that is named."""
    how, version = compared[-1]
    if how != "<":
        return version
    numbers = list(parts(version))
    last = max(at for at in range(3) if numbers[at])
    return ".".join(map(str, [*numbers[:last], numbers[last] - 1, *[999] * (2 - last)]))


def not_refused(packages, banned):
    """How much was planted, and what of it was not found."""
    plants = []
    for name, compared, wrappers, _ in banned:
        if wrappers:
            plants.append({"name": "planted", "version": "1.0.0", "dependencies": [f"{name} 1.0.0"]})
        else:
            plants.append({"name": name, "version": newest(compared) if compared else "1.0.0", "source": REGISTRY})
    for source in ["git+https://example.org/planted#0", "registry+https://example.org/index"]:
        plants.append({"name": "planted", "version": "1.0.0", "source": source})
    return len(plants), [f"not refused: {plant}" for plant in plants if len(problems_of([*packages, plant], banned)) != 1]


# Failure K16
def main():
    packages, banned = load("Cargo.lock")["package"], bans()
    problems = problems_of(packages, banned)
    planted, missed = (0, []) if problems else not_refused(packages, banned)
    print(f"{len(packages)} packages: {len(banned)} bans checked, {len(problems)} problems; {planted} planted, {len(missed)} not refused")
    print("\n".join([*problems, *missed]))
    return bool(problems or missed)


sys.exit(main())
