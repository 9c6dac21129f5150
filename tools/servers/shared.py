"""What the servers for tests share: how they are installed, started, found by tests, stopped and removed, whatever happens.

Each server has a file with a class `Server`, which is also a command (`python3 tools/servers/NAME.py`); `./test` imports them.
A process that is killed can clean nothing up, so another one does it then: guard.py.
"""

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from guard import end_groups

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
REQUIREMENTS = HERE / "requirements"
START_SECONDS = 60
# What a tool ends with that ran nothing, and has said why in a line that begins with SKIPPED: `./test` counts that as skipped, and not as passed.
# Not 77, which others use for that: libFuzzer ends with it where it has found something.
NOTHING_RAN = 79
APT = threading.Lock()


class Unavailable(Exception):
    """No server can be had here; the text says why."""


class Guard:
    """The process that cleans up after us where we cannot."""

    def __init__(self):
        self.lock, self.process = threading.Lock(), None

    def _tell(self, line):
        with self.lock:
            if self.process is None:
                # A session of its own: Ctrl-C reaches us, and we clean up in order.
                self.process = subprocess.Popen(
                    [sys.executable, HERE / "guard.py"], stdin=subprocess.PIPE, text=True, start_new_session=True)
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def hold(self, what, value):
        self._tell(f"+{what} {value}")

    def release(self, what, value):
        self._tell(f"-{what} {value}")


GUARD = Guard()


class Group:
    """A process that never outlives us, nor does what it starts."""

    def __init__(self, command, **how):
        self.process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, start_new_session=True, **how)
        GUARD.hold("group", self.process.pid)

    def end(self, first=signal.SIGTERM):
        """At once, by its ID and not by its name."""
        end_groups([self.process.pid], first, self.process.poll)
        self.process.wait()
        GUARD.release("group", self.process.pid)

    @classmethod
    def output(cls, command, **how):
        """Exit code and output of a command that ends itself."""
        group = cls(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **how)
        try:
            text = group.process.communicate()[0]
            return group.process.returncode, text
        finally:
            group.end()


def make_folder(name, parent=None):
    """A temporary folder, which `remove_folder` removes, or the guard."""
    folder = Path(tempfile.mkdtemp(prefix=f"test-{name}-", dir=parent))
    GUARD.hold("folder", folder)
    return folder


def remove_folder(folder):
    shutil.rmtree(folder, ignore_errors=True)
    GUARD.release("folder", folder)


# Installation.


def debian(*packages):
    """Installs packages of Debian, if we may."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Unavailable(f"{' and '.join(packages)} not installed, and only root on Debian can do that here")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    keep = ["-o", "Dpkg::Options::=--force-confold"]
    with APT:
        for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-q", "-y", *keep, *packages]):
            done = subprocess.run(command, env=quiet, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if done.returncode != 0:
                raise Unavailable(f"{' '.join(command)} failed: {done.stderr.strip()[-300:]}")


def need(found, *packages):
    """What `found` returns, after an installation where it returns nothing."""
    if value := found():
        return value
    debian(*packages)
    importlib.invalidate_caches()
    if value := found():
        return value
    raise Unavailable(f"not found after the installation of {' and '.join(packages)}")


def need_venv():
    """Debian has a package of its own for what `python3 -m venv` needs."""
    need(lambda: importlib.util.find_spec("ensurepip"), "python3-venv")


def environment(name):
    """The Python of a virtual environment with exactly the packages of requirements/; made once per target folder."""
    folder = TARGET / f"{name.replace('_', '-')}-venv"
    python, stamp = folder / "bin" / "python", folder / "installed"
    files = [file for file in (REQUIREMENTS / f"{name}.hashed.txt", REQUIREMENTS / f"{name}.txt") if file.exists()]
    wanted = "".join(file.read_text() for file in files)
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    TARGET.mkdir(parents=True, exist_ok=True)
    need_venv()
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    hashes = {True: ["--require-hashes"], False: []}
    installs = [[*pip, *hashes[".hashed." in file.name], "-r", file] for file in files]
    for command in ([sys.executable, "-m", "venv", "--clear", folder], *installs):
        code, said = Group.output(command)
        if code != 0:
            raise Unavailable(f"the packages of {name}.txt cannot be installed: {said.strip()[-300:]}")
    stamp.write_text(wanted)
    return python


def pinned(name, package):
    """The version of a package in requirements/."""
    text = "".join(file.read_text() for file in REQUIREMENTS.glob(f"{name}.*txt"))
    return re.search(rf"^{re.escape(package)}==(\S+)", text, re.MULTILINE)[1]


# Running.


_given, _giving = set(), threading.Lock()


def free_port():
    """A port that nothing listens on, and that was not given before: it is some time before a server binds it."""
    with _giving:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            if port not in _given:
                _given.add(port)
                return port


def answers(url):
    """Whether there is an answer to a request, whatever it says."""
    try:
        # Whatever the environment says about proxies: this is a loopback address.
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10).close()
    except urllib.error.HTTPError:
        pass
    except OSError:
        return False
    return True


def certificates(folder, run):
    """ca.crt, and server.crt and server.key for 127.0.0.1 and nothing else: `localhost` is the wrong name, for tests of that."""
    path = folder.joinpath
    new = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    path("extensions").write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\n")
    run(*new, "-x509", "-days", "2", "-subj", "/CN=keyfold test CA", "-keyout", path("ca.key"), "-out", path("ca.crt"))
    run(*new, "-subj", "/CN=keyfold test server", "-keyout", path("server.key"), "-out", path("server.csr"))
    run("openssl", "x509", "-req", "-days", "2", "-in", path("server.csr"), "-CA", path("ca.crt"), "-CAkey", path("ca.key"),
        "-CAcreateserial", "-extfile", path("extensions"), "-out", path("server.crt"))


class Server:
    """A server in a folder of its own, which `begin` makes and `remove` removes.

    Subclasses say what it is, and have what is particular to it: `install`, `prepare` (files in its folder), `start`, and
    `environment`, the variables by which tests find it. The first of these is `variable`: whoever sets it has a server.
    """

    name = provider = kind = variable = ""
    # The file that holds a stand-in to the provider's own client, for whoever has one.
    client = None
    first_signal = signal.SIGTERM

    def __init__(self):
        self.folder, self.groups, self.python = None, [], None

    @property
    def version(self):
        """What runs, for people."""
        raise NotImplementedError

    @property
    def environment(self):
        raise NotImplementedError

    def install(self):
        self.python = environment(self.name)

    def prepare(self):
        pass

    def start(self):
        pass

    def make_folder(self):
        TARGET.mkdir(parents=True, exist_ok=True)
        return make_folder(self.name, TARGET)

    def begin(self):
        self.install()
        self.folder = self.make_folder()
        self.prepare()
        self.start()

    def run(self, *command, **how):
        """A command that must succeed."""
        code, said = Group.output(command, **how)
        if code != 0:
            raise RuntimeError(f"{command[0]} failed: {said.strip()[-600:]}")
        return said

    def serve(self, command, ready, log="log", **how):
        """Starts a program, and waits until `ready` holds of it."""
        log = self.folder / log
        log.touch(mode=0o600)
        with open(log, "ab") as file:
            group = Group(command, **{"cwd": self.folder, "stdout": file, "stderr": file, **how})
        self.groups.append(group)
        end = time.monotonic() + START_SECONDS
        while not ready():
            if group.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.provider} did not start: {log.read_text(errors='replace').strip()[-600:]}")
            time.sleep(0.05)

    def stop(self):
        while self.groups:
            self.groups.pop().end(self.first_signal)

    def remove(self):
        self.stop()
        if self.folder:
            remove_folder(self.folder)
            self.folder = None


def ended(number, frame):
    raise SystemExit(128 + number)


@contextlib.contextmanager
def tidy():
    """Whoever ends us by SIGTERM or SIGHUP lets us clean up, as by Ctrl-C."""
    before = {number: signal.signal(number, ended) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def running(*kinds):
    """Pairs of a server and why it cannot be had, or None; started side by side, and removed when the context ends."""
    servers = [kind() for kind in kinds]
    with tidy(), ThreadPoolExecutor(max(1, len(kinds))) as pool:
        begun = [pool.submit(server.begin) for server in servers]
        try:
            yield [(server, why_not(future)) for server, future in zip(servers, begun, strict=True)]
        finally:
            pool.shutdown(cancel_futures=True)
            for server in servers:
                server.remove()


def why_not(begun):
    try:
        begun.result()
    except Unavailable as why:
        return str(why)
    return None


def main(kind, document):
    """The command line of a server's file."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(document)
        return 0 if arguments else 2
    try:
        with running(kind) as [(server, why)]:
            if why:
                # Whoever asked for a server must not take this for success; `./test`, which may skip, does not come this way.
                print(f"no server: {why}", file=sys.stderr)
                return 1
            variables = {**os.environ, **server.environment}
            if arguments == ["--check"] and server.client:
                arguments = [server.python, HERE / server.client]
            if arguments != ["--serve"]:
                return subprocess.run(arguments, env=variables).returncode
            for name, value in server.environment.items():
                print(f"{name}={value}", flush=True)
            print("running until standard input ends (Ctrl-D); obeys lines `stop` and `start`", file=sys.stderr, flush=True)
            orders = {"stop": server.stop, "start": server.start}
            for line in sys.stdin:
                order = orders.get(line.strip())
                if order is None:
                    print("stop or start?", file=sys.stderr, flush=True)
                    continue
                order()
                print("done", flush=True)
    except KeyboardInterrupt:
        return 130
    return 0
