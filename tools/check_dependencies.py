"""Checks Cargo.lock against the bans of deny.toml and the version floors of tools/floors.toml, without a network."""

import re
import sys
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:
    print("SKIPPED: Python before 3.11 has no tomllib")
    sys.exit(0)

ROOT = Path(__file__).resolve().parent.parent


def load(name):
    return tomllib.loads((ROOT / name).read_text())


def parts(version):
    return tuple(int(number) for number in re.findall(r"\d+", version.split("-")[0].split("+")[0])[:3])


# Failure K16
def main():
    packages = load("Cargo.lock")["package"]
    # Banned everywhere, or but for those that may need it.
    banned = dict((ban, []) if isinstance(ban, str) else (ban["name"], ban["wrappers"]) for ban in load("deny.toml")["bans"]["deny"])
    floors = load("tools/floors.toml")["floors"]
    problems = [f"{p['name']} {p['version']} is banned by deny.toml" for p in packages if banned.get(p["name"]) == []]
    for package in packages:
        for needed in {dependency.split()[0] for dependency in package.get("dependencies", [])}:
            if banned.get(needed) and package["name"] not in banned[needed]:
                problems.append(f"{package['name']} needs {needed}, which deny.toml allows {', '.join(banned[needed])} alone")
    checked = 0
    for package in packages:
        if package["name"] in floors:
            floor, reason = floors[package["name"]]
            checked += 1
            if parts(package["version"]) < parts(floor):
                problems.append(f"{package['name']} {package['version']} is below {floor}: {reason}")
        if not package.get("source", "registry+").startswith("registry+"):
            problems.append(f"{package['name']} comes from {package['source']}")
    print(f"{len(packages)} packages: {len(banned)} bans and {checked} floors checked, {len(problems)} problems")
    print("\n".join(problems))
    return bool(problems)


sys.exit(main())
