"""Tokens of SoftHSM, a real PKCS#11 library, for tests: in a temporary folder under target/, with keys in them.

    python3 tools/softhsm.py COMMAND...   runs COMMAND with SOFTHSM2_CONF and KEYFOLD_TEST_PKCS11_* set

Exits with 1 where no SoftHSM can be had, otherwise as COMMAND does. `./test` imports it. Where none is installed, root on
Debian installs the packages `softhsm2` and `opensc`; anybody else is told. No process goes on: a token is a folder.
"""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from postgres import Unavailable

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
MODULES = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/opt/homebrew/lib/softhsm/libsofthsm2.so"]
# By what tests do with them: use, log in with a wrong PIN, pull out, log out, fork.
TOKENS = ["keyfold", "wrong-pin", "removed", "log-out", "forked"]
# Labels and IDs on the first token; the others have the first key alone.
KEYS = [("kek", "01"), ("deleted", "02"), ("disabled", "03"), ("twice", "04"), ("twice", "05")]



def module():
    """The library, or None where it or a program that makes tokens is missing."""
    found = next((path for path in MODULES if Path(path).exists()), None)
    return found if found and shutil.which("softhsm2-util") and shutil.which("pkcs11-tool") else None


def install():
    """Debian's packages."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Unavailable("SoftHSM and OpenSC are not installed, and only root on Debian can install them here")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-q", "-y", "softhsm2", "opensc"]):
        done = subprocess.run(command, env=quiet, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise Unavailable(f"{' '.join(command)} failed: {done.stderr.strip()[-300:]}")


class Tokens:
    """Tokens in a temporary folder. `environment` is what tests need to use them."""

    def __init__(self):
        self.module = module() or (install() or module())
        if self.module is None:
            raise Unavailable("SoftHSM is still not found after its installation")
        TARGET.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="test-softhsm-", dir=TARGET))
        self.pin = secrets.token_hex(8)
        try:
            self._make()
        except BaseException:
            self.remove()
            raise

    @property
    def environment(self):
        return {"SOFTHSM2_CONF": str(self.folder / "softhsm2.conf"), "KEYFOLD_TEST_PKCS11_MODULE": self.module,
                "KEYFOLD_TEST_PKCS11_PIN": self.pin, "KEYFOLD_TEST_PKCS11_TOKENS": str(self.folder / "tokens")}

    def _make(self):
        (self.folder / "tokens").mkdir()
        (self.folder / "softhsm2.conf").write_text(
            f"directories.tokendir = {self.folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n")
        for token in TOKENS:
            # A throw-away PIN may stand on a command line; that of a real token may not.
            self._run("softhsm2-util", "--init-token", "--free", "--label", token, "--so-pin", secrets.token_hex(8), "--pin", self.pin)
            for label, key_id in KEYS if token == TOKENS[0] else KEYS[:1]:
                self._run("pkcs11-tool", "--module", self.module, "--token-label", token, "--login", "--pin", self.pin, "--keygen",
                          "--key-type", "AES:32", "--label", label, "--id", key_id, "--sensitive")

    def _run(self, *command):
        done = subprocess.run(command, env={**os.environ, "SOFTHSM2_CONF": str(self.folder / "softhsm2.conf")},
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]} failed: {(done.stdout + done.stderr).strip()[-600:]}")

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def tokens():
    """Tokens, removed when the context ends."""
    made = Tokens()
    try:
        yield made
    finally:
        made.remove()


def main(arguments):
    if not arguments:
        print(__doc__)
        return 2
    try:
        with tokens() as made:
            return subprocess.run(arguments, env={**os.environ, **made.environment}).returncode
    except Unavailable as why:
        # Whoever asked for a token must not take this for success; `./test`, which may skip, does not come this way.
        print(f"no SoftHSM: {why}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
