#!/usr/bin/env python3
"""Shows that cargo-deny refuses by our deny.toml what it should: `python3 tools/check_deny.py CARGO-DENY`.

Each project is in a folder of its own that goes in the end, and depends on one crate that was made up there: nothing is downloaded.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = '[package]\nname = "{name}"\nversion = "{version}"\nedition = "2021"\nlicense = "{licence}"\npublish = false\n'
# What it is, the dependency, and the check that refuses it with which code; none for what must pass.
PLANTS = [
    ("nothing to refuse", {"name": "aes-gcm", "version": "0.11.1"}, None, ""),
    ("a version with an advisory", {"name": "aes-gcm", "version": "0.10.2"}, "bans", "banned"),
    ("one of a range of versions with an advisory", {"name": "rand", "version": "0.9.2"}, "bans", "banned"),
    ("a crate that is banned", {"name": "rsa", "version": "0.9.9"}, "bans", "banned"),
    ("a second TLS stack", {"name": "aws-lc-rs", "version": "1.17.1"}, "bans", "banned"),
    ("a licence that is not allowed", {"name": "copyleft", "version": "1.0.0", "licence": "GPL-3.0-only"}, "licenses", "rejected"),
    ("a source that is no registry", {"name": "elsewhere", "version": "1.0.0", "git": True}, "sources", "source-not-allowed"),
]


def make(folder, name, version, licence="MIT", git=False):
    """A project that depends on the crate."""
    for of, text in ((folder / name, PACKAGE.format(name=name, version=version, licence=licence)),
                     (folder / "app", PACKAGE.format(name="app", version="0.0.0", licence="MIT"))):
        (of / "src").mkdir(parents=True)
        (of / "src" / "lib.rs").touch()
        (of / "Cargo.toml").write_text(text)
    where = f'path = "../{name}"'
    if git:
        for command in (["init", "-q"], ["add", "."], ["-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-q", "-m", "x"]):
            subprocess.run(["git", *command], cwd=folder / name, check=True)
        where = f'git = "file://{folder / name}"'
    with open(folder / "app" / "Cargo.toml", "a") as manifest:
        manifest.write(f"[dependencies]\n{name} = {{ {where} }}\n")
    shutil.copy(ROOT / "deny.toml", folder / "app")


# Failure K16
def planted(tool):
    passed = failed = 0
    for what, crate, check, code in PLANTS:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), **crate)
            done = subprocess.run([tool, "check", *([check] if check else ["bans", "licenses", "sources"])], cwd=Path(folder, "app"), capture_output=True, text=True)
        said = done.stdout + done.stderr
        holds = done.returncode == 0 if check is None else done.returncode != 0 and f"error[{code}]" in said and crate["name"] in said
        passed, failed = passed + holds, failed + (not holds)
        if not holds:
            print(f"FAILED: {what}: ended with {done.returncode}\n{said}")
    print(f"{passed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(bool(planted(Path(sys.argv[1]).resolve())))
