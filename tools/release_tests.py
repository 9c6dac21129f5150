#!/usr/bin/env python3
"""Runs the commands of docs/RELEASE.md by which a release is signed and verified, with a key that is thrown away, and what must not verify."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "RELEASE.md"
SIGNERS = 'keyfold-release namespaces="keyfold-release,git",valid-after="20200101" '


def block(kind):
    return re.search(rf"```sh {kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]


def sh(text, folder, **environment):
    """How a block ends of which each line must succeed, and what it prints."""
    clean = {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8", "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(["sh", "-euc", text], cwd=folder, env={**clean, **environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def new_key(folder, name):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", folder / name], check=True)
    return folder / f"{name}.pub"


def release(folder, key, signer):
    """A signed release of three files, as its user has it."""
    folder.mkdir()
    for name in ("keyfold-0.1.0-linux-x86_64.tar.gz", "keyfold_0.1.0_amd64.deb", "keyfold-cli.cdx.json"):
        (folder / name).write_text(f"made up: {name}\n")
    code, said = sh(block("sums"), folder, KEY=str(key))
    assert code == 0, said
    (folder / "release-signers").write_text(SIGNERS + signer.read_text())


def forgeries(key, other):
    """What must not verify: a name, what is done to the folder of a good release, and what the commands have to say."""

    def append(name):
        return lambda folder: (folder / name).write_text((folder / name).read_text() + "x")

    def signed_again(namespace, by):
        def change(folder):
            (folder / "SHA256SUMS.sig").unlink()
            subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-f", by, "-n", namespace, "SHA256SUMS"], cwd=folder, check=True, capture_output=True)
        return change

    def signers(text):
        return lambda folder: (folder / "release-signers").write_text(text)

    def without_files(folder):
        for name in ("keyfold-0.1.0-linux-x86_64.tar.gz", "keyfold_0.1.0_amd64.deb", "keyfold-cli.cdx.json"):
            (folder / name).unlink()

    public = key.read_text()
    yield "a file that was changed", append("keyfold_0.1.0_amd64.deb"), "FAILED"
    yield "a list that was changed", append("SHA256SUMS"), "Signature verification failed"
    yield "the key of somebody else", signed_again("keyfold-release", other), "Could not verify signature"
    yield "our key, for another purpose", signed_again("file", key), "namespace"
    yield "a key that may sign tags alone", signers(f'keyfold-release namespaces="git" {public}'), "not permitted"
    yield "a key that is out of use", signers(f'keyfold-release valid-before="20200101" {public}'), "expired"
    yield "another signer's name", signers(f"somebody {public}"), "Could not verify signature"
    yield "no signature", lambda folder: (folder / "SHA256SUMS.sig").unlink(), "No such file"
    yield "none of the files", without_files, "no file was verified"
    yield "a file that is not in the list", lambda folder: (folder / "keyfold-0.1.1-linux-x86_64.tar.gz").write_text("x"), "keyfold-0.1.1-linux-x86_64.tar.gz\n"
    yield "a hidden file that is not in the list", lambda folder: (folder / ".sh").write_text("x"), ".sh\n"


# Failure K16
def signed_releases():
    passed = failed = 0

    def check(holds, what):
        nonlocal passed, failed
        passed, failed = passed + bool(holds), failed + (not holds)
        if not holds:
            print(f"FAILED: {what}")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        key, other = new_key(folder, "release"), new_key(folder, "other")
        good = folder / "good"
        release(good, key, key)
        code, said = sh(block("verify"), good)
        check(code == 0 and said.count(": OK") == 3, f"a good release: {code}, {said}")
        (good / "keyfold-cli.cdx.json").unlink()
        code, said = sh(block("verify"), good)
        check(code == 0 and said.count(": OK") == 2, f"some of its files: {code}, {said}")
        for number, (what, change, why) in enumerate(forgeries(key, other)):
            forged = folder / f"forged-{number}"
            release(forged, key, key)
            change(forged)
            code, said = sh(block("verify"), forged)
            check(code != 0 and why in said, f"{what}: {code}, {said}")
        revoked = folder / "revoked"
        release(revoked, key, key)
        for taken_back, holds in ((key, False), (other, True)):
            shutil.copy(taken_back, revoked / "release-revoked")
            code, said = sh(block("verify").replace("-I keyfold-release", "-r release-revoked -I keyfold-release", 1), revoked)
            check((code == 0) == holds, f"{'another' if holds else 'the'} key was taken back: {code}, {said}")
        clone = folder / "clone"
        clone.mkdir()
        prepare = "git init -q\ngit config user.name x\ngit config user.email x@example.org\ngit commit -q --allow-empty -m x\n"
        made, said = sh(prepare + block("sign"), clone, KEY=str(key))
        check(made == 0, f"a tag cannot be signed: {said}")
        for signer, holds in ((key, True), (other, False)):
            (clone / "release-signers").write_text(SIGNERS + signer.read_text())
            code, said = sh(block("verify-tag"), clone)
            check((code == 0) == holds, f"a tag, by {'our' if holds else 'the other'} key: {code}, {said}")
        sh("git tag -f -a -m 'not signed' v0.1.0", clone)
        (clone / "release-signers").write_text(SIGNERS + key.read_text())
        code, said = sh(block("verify-tag"), clone)
        check(code != 0, f"a tag that nobody signed: {code}, {said}")
    print(f"{passed} passed, {failed} failed")
    return bool(failed)


if __name__ == "__main__":
    if missing := [tool for tool in ("ssh-keygen", "git", "sha256sum") if not shutil.which(tool)]:
        sys.exit(f"not installed: {', '.join(missing)}")
    sys.exit(signed_releases())
