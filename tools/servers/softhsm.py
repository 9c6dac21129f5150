"""Tokens of SoftHSM, a real PKCS#11 library, for tests: in a temporary folder under target/, with keys in them.

    python3 tools/servers/softhsm.py COMMAND...   runs COMMAND with KEYFOLD_TEST_PKCS11_* and SOFTHSM2_CONF set
    python3 tools/servers/softhsm.py --serve      prints them, and keeps the tokens until its input ends

Exits with 1 where no SoftHSM can be had, otherwise as COMMAND does. Where none is installed, root on Debian installs the
packages `softhsm2` and `opensc`; anybody else is told. No process goes on: a token is a folder.
"""

import os
import secrets
import shutil
import sys
from pathlib import Path

import shared

MODULES = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/opt/homebrew/lib/softhsm/libsofthsm2.so"]
# By what tests do with them: use, log in with a wrong PIN, pull out, log out, fork.
# Labels and IDs of the keys on each token. What changes keys has tokens of its own: SoftHSM in other processes reads a token
# anew once a key of it has changed, and may meet a file that is half written.
KEK = ("kek", "01")
TOKENS = {"keyfold": [KEK, ("twice", "04"), ("twice", "05")], "changed": [("deleted", "02"), ("disabled", "03")], "wrong-pin": [KEK],
          "removed": [KEK], "log-out": [KEK], "forked": [KEK]}


def module():
    """The library, or None where it or a program that makes tokens is missing."""
    found = next((path for path in MODULES if Path(path).exists()), None)
    return found if found and shutil.which("softhsm2-util") and shutil.which("pkcs11-tool") else None


class Server(shared.Server):
    name, provider, kind, variable = "softhsm", "PKCS#11", "real token, in software", "KEYFOLD_TEST_PKCS11_MODULE"

    def install(self):
        self.module = shared.need(module, "softhsm2", "opensc")

    @property
    def version(self):
        return f"SoftHSM {self.run('softhsm2-util', '--version').strip()}"

    @property
    def environment(self):
        return {"KEYFOLD_TEST_PKCS11_MODULE": self.module, "KEYFOLD_TEST_PKCS11_PIN": self.pin,
                "KEYFOLD_TEST_PKCS11_TOKENS": str(self.folder / "tokens"), "SOFTHSM2_CONF": str(self.folder / "softhsm2.conf")}

    def prepare(self):
        self.pin = secrets.token_hex(8)
        (self.folder / "tokens").mkdir()
        (self.folder / "softhsm2.conf").write_text(
            f"directories.tokendir = {self.folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n")
        environment = {**os.environ, **self.environment}
        for token, keys in TOKENS.items():
            # A throw-away PIN may stand on a command line; that of a real token may not.
            self.run("softhsm2-util", "--init-token", "--free", "--label", token, "--so-pin", secrets.token_hex(8), "--pin",
                     self.pin, env=environment)
            for label, key_id in keys:
                self.run("pkcs11-tool", "--module", self.module, "--token-label", token, "--login", "--pin", self.pin, "--keygen",
                         "--key-type", "AES:32", "--label", label, "--id", key_id, "--sensitive", env=environment)


if __name__ == "__main__":
    sys.exit(shared.main(Server, __doc__))
