#!/usr/bin/env python3
"""Reads the golden files of every version with the command of today: testvectors/golden/check.py KEYFOLD.

What an older version has sealed comes back byte for byte; its keyring is listed, verified, restored and written with. Works on
copies: a command that only reads adds to the audit file, and SQLite writes beside the store.
"""

import csv
import filecmp
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
RING = ["--config", "ring/keyfold.toml"]
# The SHA-256 of the file SHA256SUMS of each version. A line is added with a version, and never changed.
SUMS = {
    "0.1": "7a35a3c3e1ddbffccfab52bb2be43aaf8d4163efbfad14c95c188e1daaecd5d6",
}
PASSPHRASE = ["--passphrase-file", "ring/published-test-passphrase"]
# Wrong context, row or scope, or a key that opens no more (docs/CLI.md).
REFUSED = 5


class Version:
    def __init__(self, keyfold, golden, folder):
        self.keyfold, self.folder, self.passed, self.failed = keyfold, folder / "copy", 0, 0
        self.golden, self.made = golden, json.loads((golden / "made.json").read_text())

    def copy(self):
        """A fresh copy, with the modes that Git does not keep."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.golden, self.folder)
        for path in [*self.folder.glob("ring/*"), *self.folder.glob("device/*")]:
            path.chmod(0o600)

    def check(self, holds, what):
        self.passed += bool(holds)
        self.failed += not holds
        if not holds:
            print(f"FAILED: {self.golden.name}: {what}", flush=True)

    def run(self, *arguments, code=0):
        """What the command prints; that it ends with `code` is a check."""
        done = subprocess.run([self.keyfold, *map(str, arguments)], cwd=self.folder, capture_output=True, text=True)
        self.check(done.returncode == code, f"keyfold {' '.join(map(str, arguments))} ended with {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}")
        return done.stdout

    def lines(self, *arguments):
        return [json.loads(line) for line in self.run(*arguments, "--json").splitlines()]

    def unchanged(self):
        """Nobody has edited, added or removed a file."""
        sums = (self.golden / "SHA256SUMS").read_bytes()
        self.check(hashlib.sha256(sums).hexdigest() == SUMS[self.golden.name], "SHA256SUMS is another one")
        stated = {name: digest for digest, name in (line.split("  ") for line in sums.decode().splitlines())}
        found = {str(path.relative_to(self.golden)): hashlib.sha256(path.read_bytes()).hexdigest() for path in self.golden.rglob("*") if path.is_file()}
        del found["SHA256SUMS"]
        self.check(found == stated, f"other files than SHA256SUMS says: {sorted(dict(found.items() ^ stated.items()))}")

    def keys(self):
        """The keyring is what it was: its keys, its audit file, its backup, the bundles of its device."""
        # A later version may say more of a key, and nothing else.
        for key, said in zip(self.made["keys"], self.lines("keys", "list", *RING), strict=True):
            self.check(key.items() <= said.items(), f"of a key: {said}, and was {key}")
        census = [one for name in ("first", "second") for one in self.lines("census", f"{name}/patients.csv")]
        self.check(census == self.made["census"], f"the census says {census}")
        self.run("doctor", *RING)
        self.run("keys", "verify", *RING, "--journal", "--backup", "keys.backup")
        # Each KEK alone, also that of the passphrase.
        self.run("keys", "drill", *RING, *PASSPHRASE)
        self.run("keys", "shred", *RING, "--confirm", "lost/shredded.certificate", "--certificate", "confirmed.certificate", "--backup", "tapes")
        self.audit()
        for name, secret in {"by-key": ["--transport-key", "device/published-test-transport.key"], "by-passphrase": ["--device-passphrase-file", "ring/published-test-passphrase"]}.items():
            self.run("device", "inspect", f"device/{name}.bundle", *secret)

    def audit(self):
        report = self.lines("audit", "verify", *RING)[0]
        self.check(report["clean"] and report["authenticated"], f"the audit file: {report['findings']}")
        self.run("audit", "verify", *RING, "second/again.statement")

    def reveal(self, file, sealed):
        out = self.folder / "revealed"
        out.mkdir()
        self.run("reveal", *RING, *file["options"], sealed, "--output", out / "it")
        self.check(same(self.folder / file["clear"], out / "it"), f"{sealed} comes back as something else")
        shutil.rmtree(out)

    def reads(self):
        """Everything comes back byte for byte."""
        for file in self.made["files"]:
            self.reveal(file, file["sealed"])

    def refuses(self):
        """What is of a scope and bound to a context opens in no other, and what was destroyed or revoked not at all."""
        for lost in self.made["lost"]:
            self.refuse(lost["sealed"], lost["options"])
        for file in [file for file in self.made["files"] if "--scope" in file["options"]]:
            for option in ("--scope", "--context"):
                at = file["options"].index(option)
                self.refuse(file["sealed"], file["options"][:at] + file["options"][at + 2 :])

    def refuse(self, sealed, options):
        self.run("reveal", *RING, *options, sealed, "--output", "refused", code=REFUSED)
        left = [path for path in [self.folder / "refused", *self.folder.rglob("refused/**/*")] if path.is_file()]
        self.check(not left, f"{sealed} left {left}, though it was refused")
        shutil.rmtree(self.folder / "refused", ignore_errors=True)

    def writes(self):
        """What is sealed with the old keyring now opens; what is derived from a value is what it was."""
        for file in self.made["files"]:
            shutil.rmtree(self.folder / "sealed", ignore_errors=True)
            name = Path("sealed") / Path(file["clear"]).name
            (self.folder / "sealed").mkdir()
            self.run("protect", *RING, *file["options"], file["clear"], "--output", name)
            self.reveal(file, name)
            if file["steady"]:
                old, new = (steady(self.folder / path, file["steady"]) for path in (file["sealed"], name))
                self.check(old == new, f"{file['clear']}: {old} was derived, and now {new}")
                self.check((self.folder / file["sealed"]).read_bytes() != (self.folder / name).read_bytes(), "sealing is not random")

    def restored(self):
        """From its backup, and from its journal alone, the keyring comes back."""
        for source in (["--from", "keys.backup"], []):
            self.copy()
            for path in self.folder.glob("ring/keys.db*"):
                path.unlink()
            self.run("keys", "restore", *RING, *source, "--make-store")
            self.reads()
            self.refuses()

    # Failure C24
    def all(self):
        self.unchanged()
        self.copy()
        self.keys()
        self.reads()
        self.refuses()
        self.writes()
        self.run("keys", "rotate", *RING)
        self.run("keys", "rotate", *RING, "--scope", "clinic-17")
        self.writes()
        self.reads()
        self.audit()
        self.restored()


def same(one, other):
    """Whether two files, or folders with all that is in them, have the same bytes."""
    if not one.is_dir():
        return other.is_file() and filecmp.cmp(one, other, shallow=False)
    names = [sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file()) for folder in (one, other)]
    return names[0] == names[1] and all(same(one / name, other / name) for name in names[0])


def steady(path, names):
    """What a file has in the columns, or members, `names`."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file)) if path.suffix == ".csv" else [json.loads(line) for line in file]
    return [[row[name] for name in names] for row in rows]


def main():
    keyfold, passed, failed = Path(sys.argv[1]).resolve(), 0, 0
    there = sorted(path.name for path in HERE.iterdir() if (path / "made.json").exists())
    if there != sorted(SUMS):
        sys.exit(f"there are the versions {there}, and there should be {sorted(SUMS)}")
    for name in SUMS:
        with tempfile.TemporaryDirectory() as folder:
            version = Version(keyfold, HERE / name, Path(folder))
            version.all()
        print(f"version {name}: {version.passed} checks", flush=True)
        passed, failed = passed + version.passed, failed + version.failed
    print(f"{passed} passed, {failed} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
