"""What the servers for tests of cloud adapters share: a virtual environment under target/, and processes of our own on the
loopback that never outlive us."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from postgres import TARGET, Unavailable, end_with_us, ended

START_SECONDS = 60


def environment(name, packages):
    """The Python of a virtual environment with exactly these packages; made once per target folder."""
    folder = TARGET / name
    python, stamp = folder / "bin" / "python", folder / "packages"
    if stamp.exists() and stamp.read_text().split() == packages:
        return python
    TARGET.mkdir(parents=True, exist_ok=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    for command in ([sys.executable, "-m", "venv", folder], install):
        done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise Unavailable(f"{', '.join(packages)} cannot be installed: {(done.stdout + done.stderr).strip()[-300:]}")
    stamp.write_text(" ".join(packages))
    return python


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    """A server program, ready when `url` answers."""

    def __init__(self, command, url, log, variables=None):
        with open(log, "ab") as file:
            # A session of its own: Ctrl-C reaches us, and we stop it in order.
            self.process = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=log.parent,
                env={**os.environ, **(variables or {})}, start_new_session=True, preexec_fn=end_with_us)
        end = time.monotonic() + START_SECONDS
        while not self._answers(url):
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"{command[1]} did not start: {log.read_text(errors='replace').strip()[-600:]}")
            time.sleep(0.05)

    @staticmethod
    def _answers(url):
        try:
            # Whatever the environment says about proxies: this is a loopback address.
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10).close()
        except urllib.error.HTTPError:
            pass
        except OSError:
            return False
        return True

    def stop(self):
        """By its process ID, by force if it does not end itself."""
        for how, seconds in ((signal.SIGTERM, 5), (signal.SIGKILL, None)):
            if self.process.poll() is None:
                self.process.send_signal(how)
                try:
                    self.process.wait(seconds)
                except subprocess.TimeoutExpired:
                    pass


@contextmanager
def running(make):
    """What `make` returns, started, and removed when the context ends, also by Ctrl-C, SIGTERM or SIGHUP."""
    before = {number: signal.signal(number, ended) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        made = make()
        try:
            made.start()
            yield made
        finally:
            made.remove()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(make, arguments, document):
    """The command line of a server's file: `make` returns the server."""
    if not arguments:
        print(document)
        return 2
    try:
        with running(make) as made:
            if arguments == ["--check"]:
                return made.check()
            if arguments != ["--serve"]:
                return subprocess.run(arguments, env={**os.environ, **made.environment}).returncode
            for name, value in made.environment.items():
                print(f"{name}={value}", flush=True)
            sys.stdin.read()
    except Unavailable as why:
        # Whoever asked for a server must not take this for success; `./test`, which may skip, does not come this way.
        print(f"no server: {why}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
