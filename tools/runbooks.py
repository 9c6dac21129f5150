#!/usr/bin/env python3
"""Runs the commands of docs/KEY-MANAGEMENT.md and of each page in docs/runbooks, in order, on a keyring with KEKs in files.

    python3 tools/runbooks.py KEYFOLD [PAGE...]      KEYFOLD is the command, a page its name without `.md`

Blocks that begin with ```sh are run, and those with ```sh safe with the passphrase of the offline KEK; in blocks that begin with ```sh check
each line must succeed, or fail if it begins with `!`.
The procedure begins with nothing. The runbooks begin where its part on generation ends, in the folder `clinic`, with a table of patients,
an export and a folder of images that are sealed. Everything is in a folder that goes in the end.
"""

import argparse
import csv
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
PROCEDURE = DOCS / "KEY-MANAGEMENT.md"
PATIENTS = 120
KINDS = ("```sh", "```sh check", "```sh safe")
POLICY = """\
version = 1

[fields."patient.ssn"]
identifier = "G"
row_binding = "id"
columns = ["ssn"]

[fields."patient.mrn"]
mode = "deterministic"
type = "text"
identifier = "H"
optional = true
columns = ["mrn"]

[fields."patient.image"]
mode = "stream"
identifier = "Q"
row_binding = "image_id"
required_context = []
"""
# Streams of a few chunks.
IMAGES = {"image-17": b"\x17" * 40_000, "image-18": b"\x18" * 100}


def blocks(page, heading=None):
    """Line, kind and text of each block of `page`, or of what is under `heading` alone."""
    found, kind, under = [], None, None
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if kind is None and line.startswith("## "):
            under = line[3:]
        if kind is None and line in KINDS:
            kind, start, lines = line, number + 1, []
        elif kind and line == "```":
            if heading in (None, under):
                found.append((start, kind, "\n".join(lines)))
            kind = None
        elif kind:
            lines.append(line)
    return found


def script(page, found):
    """One script, so that folders and variables last from block to block. Each failure is told with its line."""
    out = ["set -eu", "trap 'test $? = 0 || echo \"failed in the block at $PLACE\" >&2' EXIT"]
    for start, kind, text in found:
        out.append(f"PLACE={page.name}:{start}")
        if kind == "```sh safe":
            out += ["export KEYFOLD_PASSPHRASE_FILE=$HOME/passphrase", text, "unset KEYFOLD_PASSPHRASE_FILE"]
            continue
        if kind == "```sh":
            out.append(text)
            continue
        for offset, line in enumerate(text.splitlines()):
            # A `!` hides a failure from `set -e`, and a condition does as well: hence our own exit.
            out.append(f"{line} || {{ echo 'does not hold: {page.name}:{start + offset}' >&2; exit 1; }}")
    return "\n".join(out) + "\n"


def sh(text, folder, environment):
    """Ends with what was printed if a command fails."""
    done = subprocess.run(["sh", "-c", text], cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def patients(folder, environment):
    """A table and an export, whose values are sealed."""
    clinic = folder / "clinic"
    (clinic / "policy.toml").write_text(POLICY)
    plain = [[str(number), f"M-{number:05}", f"999-81-{number:04}"] for number in range(1, PATIENTS + 1)]
    with open(clinic / "plain.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([["id", "mrn", "ssn"], *plain])
    sh("keyfold protect --policy policy.toml plain.csv --output export.csv", clinic, environment)
    images = clinic / "plain-images"
    images.mkdir()
    for name, content in IMAGES.items():
        (images / name).write_bytes(content)
    sh("keyfold protect --policy policy.toml --stream patient.image plain-images --output images", clinic, environment)
    with open(clinic / "export.csv", newline="") as file:
        rows = list(csv.reader(file))[1:]
    table = sqlite3.connect(clinic / "clinic.db")
    table.execute("CREATE TABLE patients (id INTEGER PRIMARY KEY, ssn TEXT)")
    table.executemany("INSERT INTO patients VALUES (?, ?)", [(row[0], row[2]) for row in rows])
    table.commit()
    table.close()


def run(page, keyfold):
    found = blocks(page)
    commands = sum(text.count("keyfold ") for _, _, text in found)
    checks = sum(len(text.splitlines()) for _, kind, text in found if kind == "```sh check")
    if commands < 5 or checks < 3:
        raise SystemExit(f"{page.name} has {commands} commands and {checks} checks: are its blocks ```sh and ```sh check?")
    if unknown := re.findall(r"^```(?!sh$|sh check$|sh safe$|toml$|$).*", page.read_text(), re.MULTILINE):
        raise SystemExit(f"{page.name} has blocks that nobody runs: {unknown}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        secret = folder / "passphrase"
        secret.touch(mode=0o600)
        secret.write_text("a passphrase for tests alone\n")
        environment = {
            "PATH": f"{keyfold.parent}{os.pathsep}{os.environ['PATH']}", "HOME": name, "TMPDIR": name, "LC_ALL": "C.UTF-8",
        }
        if page == PROCEDURE:
            printed = sh(script(page, found), folder, environment)
        else:
            sh(script(PROCEDURE, blocks(PROCEDURE, "Generation")), folder, environment)
            patients(folder, environment)
            printed = sh(script(page, found), folder / "clinic", environment)
        if re.search(r"999-81-\d|a passphrase for tests", printed):
            raise SystemExit(f"{page.name}: what was printed has a patient's number, or the passphrase")
    return checks


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keyfold", type=Path)
    parser.add_argument("pages", nargs="*")
    options = parser.parse_args()
    pages = [PROCEDURE, *sorted(page for page in (DOCS / "runbooks").glob("*.md") if page.stem != "README")]
    if options.pages:
        pages = [page for page in pages if page.stem in options.pages]
    passed = failed = 0
    for page in pages:
        try:
            checks = run(page, options.keyfold.resolve())
            print(f"{page.relative_to(DOCS)}: {checks} checks hold")
            passed += 1
        except SystemExit as why:
            print(f"{page.relative_to(DOCS)}: FAILED\n{why}")
            failed += 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
