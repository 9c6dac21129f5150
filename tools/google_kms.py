"""Our own fake of Google Cloud KMS (tools/google_kms_fake.py) for tests, on a free port of the loopback.

    python3 tools/google_kms.py COMMAND...   runs COMMAND with KEYFOLD_TEST_GOOGLE_KMS set
    python3 tools/google_kms.py --check      holds the fake to Google's own client and discovery document

Exits with 1 where it cannot be had, otherwise as COMMAND does. `./test` imports it. What it needs from PyPI is installed into
a virtual environment under target/. The fake never outlives its context: it is stopped by process ID however that ends.
"""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from postgres import Unavailable, end_with_us, ended

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
VENV = TARGET / "google-kms-venv"
PACKAGES = ["cryptography>=44,<60", "google-cloud-kms==3.18.0", "google-api-python-client==2.202.0"]


def python():
    """An interpreter that has the packages; made once per target folder."""
    program, done = VENV / "bin" / "python", VENV / "installed"
    if not done.exists():
        pip = [program, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
        for command in ([sys.executable, "-m", "venv", VENV], pip):
            made = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if made.returncode != 0:
                raise Unavailable(f"the packages of Google's client cannot be installed: {(made.stdout + made.stderr).strip()[-300:]}")
        done.touch()
    return program


class Server:
    """The fake. `environment` is what tests need to reach it."""

    def __init__(self):
        # A session of its own: Ctrl-C reaches us, and we stop it in order.
        self.process = subprocess.Popen(
            [python(), ROOT / "tools" / "google_kms_fake.py"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
            start_new_session=True, preexec_fn=end_with_us)
        # It listens before it prints.
        self.port = self.process.stdout.readline().strip()
        if not self.port.isdigit():
            self.stop()
            raise RuntimeError("the fake of Cloud KMS did not start")

    @property
    def environment(self):
        return {"KEYFOLD_TEST_GOOGLE_KMS": f"http://127.0.0.1:{self.port}"}

    def stop(self):
        """Ends it by its process ID, by force if it does not end itself."""
        for how, seconds in ((signal.SIGTERM, 5), (signal.SIGKILL, None)):
            if self.process.poll() is None:
                self.process.send_signal(how)
                try:
                    self.process.wait(seconds)
                except subprocess.TimeoutExpired:
                    pass


@contextmanager
def server():
    """A running fake, stopped when the context ends, also by Ctrl-C, SIGTERM or SIGHUP."""
    before = {number: signal.signal(number, ended) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        made = Server()
        try:
            yield made
        finally:
            made.stop()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments):
    if not arguments:
        print(__doc__)
        return 2
    try:
        with server() as made:
            if arguments == ["--check"]:
                arguments = [str(python()), str(ROOT / "tools" / "check_google_kms.py")]
            return subprocess.run(arguments, env={**os.environ, **made.environment}).returncode
    except Unavailable as why:
        # Whoever asked for a server must not take this for success; `./test`, which may skip, does not come this way.
        print(f"no fake of Google Cloud KMS: {why}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
