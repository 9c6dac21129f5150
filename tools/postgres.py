"""A PostgreSQL server of our own for tests: a fresh cluster under target/, TLS with a throw-away CA, on a free port.

    python3 tools/postgres.py COMMAND...   runs COMMAND with KEYFOLD_TEST_POSTGRES and KEYFOLD_TEST_POSTGRES_CA set
    python3 tools/postgres.py --serve      prints the two, then obeys lines `stop` and `start`, until its input ends

Exits with 1 where no server can be had, otherwise as COMMAND does.
`./test` imports it. Where no PostgreSQL is installed, root on Debian installs the package `postgresql`; anybody else
is told. The server never outlives its context: it is stopped by process ID however that ends.
"""

import ctypes
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
START_SECONDS = 60


class Unavailable(Exception):
    """No server can be had here; the text says why."""


def find():
    """The folder of the newest server programs, or None."""
    folders = [Path(found).resolve().parent for found in [shutil.which("postgres")] if found]
    folders += Path("/usr/lib/postgresql").glob("*/bin")
    folders = [folder for folder in folders if all((folder / name).exists() for name in ("postgres", "initdb"))]

    def version(folder):
        said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True).stdout
        return [int(number) for number in re.findall(r"\d+", said)[:2]]

    return max(folders, key=version, default=None)


def install():
    """Debian's package, without the cluster that it would start."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Unavailable("PostgreSQL is not installed, and only root on Debian can install it here")
    # Read by pg_createcluster's maintainer scripts: programs only, no cluster.
    settings = Path("/etc/postgresql-common/createcluster.conf")
    if not settings.exists():
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text("create_main_cluster = false\n")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    keep = ["-o", "Dpkg::Options::=--force-confold"]
    for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-q", "-y", *keep, "postgresql", "openssl"]):
        done = subprocess.run(command, env=quiet, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise Unavailable(f"{' '.join(command)} failed: {done.stderr.strip()[-300:]}")


def unprivileged():
    """The user whom the server runs as: PostgreSQL refuses root. None stands for ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            pass
    raise Unavailable("PostgreSQL refuses to run as root, and there is no user postgres or nobody")


def end_with_us():
    """In the server's process, before it starts: Linux interrupts it if we are killed and cannot stop it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG


class Server:
    """One cluster in a temporary folder. `environment` is what tests need to reach it."""

    def __init__(self):
        self.programs = find() or (install() or find())
        if self.programs is None:
            raise Unavailable("PostgreSQL is still not found after its installation")
        if not shutil.which("openssl"):
            raise Unavailable("openssl is not installed; the server's certificate is made with it")
        self.user, self.process = unprivileged(), None
        self.folder = self._folder()
        self.data, self.log = self.folder / "data", self.folder / "log"
        self.password = secrets.token_urlsafe(18)
        try:
            self._certificates()
            self._cluster()
        except BaseException:
            self.remove()
            raise

    @property
    def environment(self):
        uri = f"postgres://postgres:{self.password}@127.0.0.1:{self.port}/postgres"
        return {"KEYFOLD_TEST_POSTGRES": uri, "KEYFOLD_TEST_POSTGRES_CA": str(self.folder / "ca.crt")}

    def _folder(self):
        """Under target/, unless the server's user cannot get there: then in the system's folder for temporary files."""
        TARGET.mkdir(parents=True, exist_ok=True)
        for parent in (TARGET, Path(tempfile.gettempdir())):
            folder = Path(tempfile.mkdtemp(prefix="test-postgres-", dir=parent))
            folder.chmod(0o755)
            if self.user:
                os.chown(folder, self.user.pw_uid, self.user.pw_gid)
            if self._run("test", "-w", folder, check=False).returncode == 0:
                return folder
            folder.rmdir()
        raise Unavailable(f"user {self.user.pw_name} can write neither {TARGET} nor {tempfile.gettempdir()}")

    def _as_user(self):
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []} if self.user else {}

    def _run(self, *command, check=True):
        done = subprocess.run([str(part) for part in command], cwd="/", capture_output=True, text=True, **self._as_user())
        if check and done.returncode != 0:
            raise RuntimeError(f"{command[0]} failed: {(done.stdout + done.stderr).strip()}")
        return done

    def _certificates(self):
        """A CA, and a certificate for 127.0.0.1 and nothing else: `localhost` is the wrong name, for tests of that."""
        path = self.folder.joinpath
        new = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        self._run(*new, "-x509", "-days", "2", "-subj", "/CN=keyfold test CA", "-keyout", path("ca.key"), "-out", path("ca.crt"))
        self._run(*new, "-subj", "/CN=keyfold test server", "-keyout", path("server.key"), "-out", path("server.csr"))
        path("extensions").write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\n")
        self._run("openssl", "x509", "-req", "-days", "2", "-in", path("server.csr"), "-CA", path("ca.crt"), "-CAkey",
                  path("ca.key"), "-CAcreateserial", "-extfile", path("extensions"), "-out", path("server.crt"))
        self._run("chmod", "600", path("server.key"))

    def _cluster(self):
        secret = self.folder / "password"
        secret.write_text(self.password)
        if self.user:
            os.chown(secret, self.user.pw_uid, self.user.pw_gid)
        secret.chmod(0o600)
        self._run(self.programs / "initdb", "--pgdata", self.data, "--username=postgres", f"--pwfile={secret}",
                  "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync")
        # Passwords, and TLS or nothing, except for tests of `sslmode=disable` on the loopback.
        (self.data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        # What tests must not lose is a process, not the machine's power: so no fsync, which is half of the time.
        settings = {
            "listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "max_connections": 300,
            "ssl": "on", "ssl_cert_file": self.folder / "server.crt", "ssl_key_file": self.folder / "server.key",
            "password_encryption": "scram-sha-256", "fsync": "off", "full_page_writes": "off",
            "shared_buffers": "32MB", "autovacuum": "off", "log_min_messages": "fatal",
        }
        with open(self.data / "postgresql.conf", "a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def start(self):
        with open(self.log, "ab") as log:
            # A session of its own: Ctrl-C reaches us, and we stop it in order.
            self.process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.data], cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=end_with_us, **self._as_user())
        end = time.monotonic() + START_SECONDS
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"PostgreSQL did not start: {self.log.read_text(errors='replace').strip()[-600:]}")
            time.sleep(0.05)

    def _ready(self):
        """The server writes `ready` as the last line of its lock file."""
        try:
            lines = (self.data / "postmaster.pid").read_text().split("\n")
        except OSError:
            return False
        return len(lines) > 7 and lines[0] == str(self.process.pid) and lines[7].strip() == "ready"

    def stop(self):
        """Ends it by its process ID: at once for its clients, and by force if that takes long."""
        if self.process is None:
            return
        for how, seconds in ((signal.SIGINT, 10), (signal.SIGQUIT, 10), (signal.SIGKILL, None)):
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


def ended(number, frame):
    raise SystemExit(128 + number)


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
            for name, value in made.environment.items():
                print(f"{name}={value}", flush=True)
            for line in sys.stdin:
                {"stop": made.stop, "start": made.start}[line.strip()]()
                print("done", flush=True)
    except Unavailable as why:
        # Whoever asked for a server must not take this for success; `./test`, which may skip, does not come this way.
        print(f"no PostgreSQL server: {why}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
