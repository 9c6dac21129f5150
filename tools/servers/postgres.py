"""A PostgreSQL server of our own for tests: a fresh cluster under target/, TLS with a throw-away CA, on a free port.

    python3 tools/servers/postgres.py COMMAND...   runs COMMAND with KEYFOLD_TEST_POSTGRES and KEYFOLD_TEST_POSTGRES_CA set
    python3 tools/servers/postgres.py --serve      prints the two, then obeys lines `stop` and `start`, until its input ends

Exits with 1 where no server can be had, otherwise as COMMAND does. Where no PostgreSQL is installed, root on Debian installs
the package `postgresql`; anybody else is told.
"""

import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import shared


def programs():
    """The folder of the newest server programs, or None."""
    folders = [Path(found).resolve().parent for found in [shutil.which("postgres")] if found]
    folders += Path("/usr/lib/postgresql").glob("*/bin")
    folders = [folder for folder in folders if all((folder / name).exists() for name in ("postgres", "initdb"))]
    return max(folders, key=lambda folder: [int(number) for number in re.findall(r"\d+", version(folder))[:2]], default=None)


def version(folder):
    return subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True).stdout.strip()


def unprivileged():
    """The user whom the server runs as: PostgreSQL refuses root. None stands for ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            pass
    raise shared.Unavailable("PostgreSQL refuses to run as root, and there is no user postgres or nobody")


class Server(shared.Server):
    name, provider, kind, variable = "postgres", "PostgreSQL", "real server", "KEYFOLD_TEST_POSTGRES"
    # At once for its clients.
    first_signal = signal.SIGINT

    def install(self):
        # Read by the maintainer scripts of Debian's package: programs only, no cluster.
        settings = Path("/etc/postgresql-common/createcluster.conf")
        if not programs() and os.geteuid() == 0 and not settings.exists():
            settings.parent.mkdir(parents=True, exist_ok=True)
            settings.write_text("create_main_cluster = false\n")
        self.programs = shared.need(programs, "postgresql")
        shared.need(lambda: shutil.which("openssl"), "openssl")
        self.user = unprivileged()

    @property
    def version(self):
        return version(self.programs)

    @property
    def environment(self):
        uri = f"postgres://postgres:{self.password}@127.0.0.1:{self.port}/postgres"
        return {"KEYFOLD_TEST_POSTGRES": uri, "KEYFOLD_TEST_POSTGRES_CA": str(self.folder / "ca.crt")}

    def make_folder(self):
        """Under target/, unless the server's user cannot get there: then in the system's folder for temporary files."""
        shared.TARGET.mkdir(parents=True, exist_ok=True)
        for parent in (shared.TARGET, Path(tempfile.gettempdir()), Path("/tmp")):
            folder = shared.make_folder(self.name, parent)
            folder.chmod(0o755)
            if self.user:
                os.chown(folder, self.user.pw_uid, self.user.pw_gid)
            if shared.Group.output(["test", "-w", folder], **self._as_user())[0] == 0:
                return folder
            shared.remove_folder(folder)
        raise shared.Unavailable(f"user {self.user.pw_name} can write neither {shared.TARGET} nor {tempfile.gettempdir()}")

    def _as_user(self):
        user = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []} if self.user else {}
        return {"cwd": "/", **user}

    def run(self, *command):
        return super().run(*command, **self._as_user())

    def prepare(self):
        self.password, self.port, self.data = secrets.token_urlsafe(18), shared.free_port(), self.folder / "data"
        shared.certificates(self.folder, self.run)
        self.run("chmod", "600", self.folder / "server.key")
        secret = self.folder / "password"
        secret.touch(mode=0o600)
        secret.write_text(self.password)
        if self.user:
            os.chown(secret, self.user.pw_uid, self.user.pw_gid)
        self.run(self.programs / "initdb", "--pgdata", self.data, "--username=postgres", f"--pwfile={secret}",
                 "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync")
        # Passwords, and TLS or nothing, except for tests of `sslmode=disable` on the loopback.
        (self.data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
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
        self.serve([self.programs / "postgres", "-D", self.data], self._ready, **self._as_user())

    def _ready(self):
        """The server writes `ready` as the last line of its lock file."""
        try:
            lines = (self.data / "postmaster.pid").read_text().split("\n")
        except OSError:
            return False
        return len(lines) > 7 and lines[0] == str(self.groups[-1].process.pid) and lines[7].strip() == "ready"


if __name__ == "__main__":
    sys.exit(shared.main(Server, __doc__))
