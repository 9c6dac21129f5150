"""Debian's packages, unpacked into a folder: nothing is installed, and no root is needed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "servers"))
import shared  # noqa: E402


def unpack(folder, packages):
    """Has `packages` and whatever they need and this machine has not in `folder`; `packages` may be a function of a way to ask
    apt-cache, for names that have a version in them. Raises `shared.Unavailable` where that cannot be."""
    if missing := [name for name in ("apt-get", "apt-cache", "dpkg") if not shutil.which(name)]:
        raise shared.Unavailable(f"what comes from Debian's packages cannot be had without {' and '.join(missing)}")
    with shared.APT:
        shutil.rmtree(folder, ignore_errors=True)
        debs = folder / "debs"
        for part in (debs, folder / "apt" / "lists" / "partial", folder / "apt" / "cache" / "archives" / "partial"):
            part.mkdir(parents=True, exist_ok=True)
        # Its own state, so that it works for everybody and changes nothing of the machine's.
        state = ["-o", f"Dir::State::lists={folder}/apt/lists", "-o", f"Dir::Cache={folder}/apt/cache"]
        apt = ["apt-get", "-q", *state]
        if os.geteuid() == 0:
            apt += ["-o", "APT::Sandbox::User=root"]
        run(*apt, "update", cwd=debs)
        if callable(packages):
            packages = packages(lambda *command: run("apt-cache", *state, *command, cwd=debs))
        plan = run(*apt, "install", "--simulate", "--no-install-recommends", *packages, cwd=debs)
        missing = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
        # What is installed is not in the plan, but is to be in this place as well.
        run(*apt, "download", *dict.fromkeys([*missing, *packages]), cwd=debs)
        for deb in debs.glob("*.deb"):
            run("dpkg", "-x", deb, folder, cwd=debs)
        shutil.rmtree(debs)
        shutil.rmtree(folder / "apt")


def run(*command, cwd):
    done = subprocess.run([str(part) for part in command], cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise shared.Unavailable(f"{' '.join(map(str, command[:8]))} failed: {done.stderr.strip()[-300:]}")
    return done.stdout
