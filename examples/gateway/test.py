#!/usr/bin/env python3
"""Builds the gateway and has it go through a year: provisioning, no network, kill -9, rotation, a backend that decodes everything.

    examples/gateway/test.py --keyfold KEYFOLD --device FOLDER [--measure]

FOLDER has the library for devices, as bindings-c/device/build writes it. Needs sqlite3.h and its library, or takes them for another
processor from arm.py, which has the program emulated.

--measure prints what the gateway costs instead: bytes of the program, memory, seals per second.
"""

import argparse
import base64
import contextlib
import json
import os
import pty
import random
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCOPE = "gateway-7"
CANARY = "Canáry7391"


class Site:
    """A backend with its keyring, and a gateway with its credentials and spool."""

    def __init__(self, folder, options):
        self.folder, self.keyfold = folder, options.keyfold
        self.program, self.spool, self.credentials = folder / "gateway", folder / "spool.db", folder / "credentials"
        self.credentials.mkdir()
        options.build(self.program, options.device)
        self.run_keyfold("init", folder / "ring")
        self.config = folder / "ring" / "keyfold.toml"
        self.run_keyfold("device", "transport-key", "--output", self.credentials / "transport-key")
        self.provision("provision")

    def run_keyfold(self, *arguments):
        ended = subprocess.run([self.keyfold, *arguments], capture_output=True, text=True)
        assert ended.returncode == 0, f"{arguments}: {ended.stderr}"
        return ended.stdout

    def provision(self, verb, *protection):
        """A new bundle takes the place of the one before, over a file; the gateway reads it when it starts again."""
        made = self.folder / "made.bundle"
        protection = protection or ["--transport-key", self.credentials / "transport-key"]
        said = self.run_keyfold("device", verb, SCOPE, "--config", self.config, "--output", made, *protection, "--json")
        made.replace(self.credentials / "bundle")
        return json.loads(said)

    def gateway(self, *arguments, text="", code=0):
        environment = {"CREDENTIALS_DIRECTORY": str(self.credentials), "PATH": os.environ["PATH"]}
        ended = subprocess.run([self.program, *arguments], input=text, capture_output=True, text=True, env=environment)
        assert ended.returncode == code, f"{arguments}: {ended.returncode}: {ended.stderr}"
        assert CANARY not in ended.stderr
        return ended.stdout if code == 0 else ended.stderr

    def seal(self, readings):
        """Seals pairs of patient and reading, and returns row: pair."""
        lines = "".join(f"{patient}\t{reading}\n" for patient, reading in readings)
        rows = self.gateway("seal", self.spool, text=lines).split()
        assert len(rows) == len(readings)
        return dict(zip(rows, readings))

    def decode(self, pending):
        """What the backend makes of the lines of `pending`: row: pair."""
        (self.folder / "batch.ndjson").write_text(pending)
        revealed = self.run_keyfold("reveal", "--config", self.config, "--policy", HERE / "policy.toml", "--scope", SCOPE,
                                    self.folder / "batch.ndjson", "--output", "-")
        documents = [json.loads(line) for line in revealed.splitlines()]
        return {document["row"]: (document["patient"], document["reading"]) for document in documents}

    def pending(self):
        return self.gateway("pending", self.spool, "1000000")

    def upload(self):
        """Everything that waits, by the script, to a backend that decodes it."""
        inbox = self.folder / "inbox"
        inbox.unlink(missing_ok=True)
        subprocess.run(["sh", HERE / "upload.sh", self.spool, "sh", "-c", f"cat >>'{inbox}'"], check=True,
                       env=os.environ | {"GATEWAY": str(self.program)})
        assert self.pending() == "", "what was confirmed is forgotten"
        return self.decode(inbox.read_text())


def build(program, device, compiler="cc", sqlite=("-lsqlite3",)):
    """Builds the gateway."""
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Werror"]
    library = device / "lib" / "libkeyfold_device.a"
    subprocess.run([compiler, *flags, f"-I{device / 'include'}", HERE / "gateway.c", library, *sqlite, "-Wl,--gc-sections", "-s",
                    "-o", program], check=True)


def readings(count, note=""):
    return [(f"{CANARY} p-{n}", f'{{"spo2":{n},"note":"{note}"}}') for n in range(count)]


def a_day(site):
    """Sealed without a network, unreadable in the spool, decoded by the backend; lines that are none are answered, and the rest go on."""
    sealed = site.seal(readings(700))
    for file in site.folder.glob("spool.db*"):
        assert CANARY.encode() not in file.read_bytes(), file
    assert site.decode(site.pending()) == sealed, "the backend decodes what waits"
    assert site.upload() == sealed and len(sealed) == 700
    answers = site.gateway("seal", site.spool, text="p-1\t97\nno tab\n\t97\np-1\t\np-2\t98\n").splitlines()
    assert [answer.split(":")[0] == "refused" for answer in answers] == [False, True, True, True, False], answers
    assert sorted(site.upload().values()) == [("p-1", "97"), ("p-2", "98")]
    assert "has no end" in site.gateway("seal", site.spool, text="p-1\t97", code=1)
    site.gateway("seal", site.spool, "too many", code=2)


def lines(site):
    """A line that is too long is refused like any other, whatever comes before and after; one from Windows has no CR in it."""
    longest = "p\t" + "9" * 65_533
    for at in (0, 1, 65_534):
        before = "a\tb\n" * 3 + "p" * at
        text = f"{before}\n{longest}\n{longest}9\n{'9' * 500_000}\np-2\t98\r\n"
        answers = site.gateway("seal", site.spool, text=text).splitlines()
        assert [answer.split(":")[0] == "refused" for answer in answers] == [False] * 3 + [True, False, True, True, False], answers
        assert "65535" in answers[-2]
        assert list(site.upload().values())[-2:] == [("p", "9" * 65_533), ("p-2", "98")]
    assert "has no end" in site.gateway("seal", site.spool, text="9" * 70_000, code=1)
    assert "has no end" in site.gateway("seal", site.spool, text="9" * 65_536, code=1)


def command_line(site):
    """What is wrong with it is said, by the script for uploading as well, and makes no spool."""
    (row,) = site.seal([("a", "b")])
    for number in ("abc", "-5", "0", "5x", "9" * 30 + "x"):
        site.gateway("pending", site.spool, number, code=2)
    for nonsense in ("x", row[1:], row + "0", row.upper() if row.upper() != row else "A" * 32, f"{row}\nx"):
        assert "no ID of a row" in site.gateway("done", site.spool, text=nonsense + "\n", code=1)
    assert row in site.pending(), "nothing is forgotten"
    missing, no_spool = site.folder / "missing.db", site.folder / "no-spool.db"
    no_spool.write_text("These are no pages of a database.\n" * 100)
    for spool in (missing, no_spool):
        for verb in ("pending", "done"):
            site.gateway(verb, spool, code=1)
    for program, spool in ((site.program, missing), (site.program, no_spool), (site.folder / "no-program", site.spool)):
        ended = subprocess.run(["sh", HERE / "upload.sh", spool, "cat"], env=os.environ | {"GATEWAY": str(program)}, capture_output=True)
        assert ended.returncode != 0 and not ended.stdout, f"{program}, {spool}: {ended}"
    assert not missing.exists()
    ended = subprocess.run(["sh", HERE / "upload.sh", site.spool, "false"], env=os.environ | {"GATEWAY": str(site.program)})
    assert ended.returncode != 0 and site.upload() == {row: ("a", "b")}


def silent(site):
    """A connection that says nothing ends, and so does one that takes no answers: there are not many at a time. One that goes on stays."""
    for number in ("0", "-1", "2147484", "1x"):
        site.gateway("seal", site.spool, number, code=2)

    @contextlib.contextmanager
    def connection():
        ours, theirs = socket.socketpair()
        with ours, theirs:
            program = subprocess.Popen([site.program, "seal", site.spool, "1"], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE,
                                       env={"CREDENTIALS_DIRECTORY": str(site.credentials)}, text=True)
            theirs.close()
            ours.settimeout(30)
            try:
                yield ours, program
            finally:
                program.kill()

    rows = {}
    for rest, code, said in (("", 0, ""), ("a\t", 1, "has no end")):
        with connection() as (ours, program):
            # Longer than the second in all, and never silent for as long as that.
            for n in range(8):
                ours.sendall(f"a\t{n}\n".encode())
                rows[ours.recv(64).decode().strip()] = ("a", str(n))
                time.sleep(0.2)
            ours.sendall(rest.encode())
            errors = program.communicate(timeout=30)[1]
            assert program.returncode == code and said in errors, errors
    with connection() as (ours, program):
        ours.setblocking(False)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(1000):
                with contextlib.suppress(BlockingIOError):
                    ours.send(b"b\tc\n" * 1000)
                time.sleep(0.01)
        assert program.wait(timeout=30) == 1 and "nobody reads the answers" in program.stderr.read()
    uploaded = site.upload()
    assert rows.items() <= uploaded.items() and {pair for row, pair in uploaded.items() if row not in rows} == {("b", "c")}


def killed(site):
    """kill -9 at any moment: what was answered is in the spool, what is there opens, and no nonce comes twice."""
    environment = {"CREDENTIALS_DIRECTORY": str(site.credentials)}
    answered, moments = set(), random.Random(7)
    lines = [f"{patient}\t{reading}\n".encode() for patient, reading in readings(400, "killed")]
    for kill in range(25):
        program = subprocess.Popen([site.program, "seal", site.spool], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        if kill % 2:
            # Not while it starts, which may take longer than all the rest.
            os.write(program.stdin.fileno(), lines[0])
            answered.add(program.stdout.readline().decode().strip())
        # A few at a time, so that there are many transactions; the pipe holds more than all of them.
        for at in range(0, moments.randrange(len(lines)), 4):
            os.write(program.stdin.fileno(), b"".join(lines[at:at + 4]))
            time.sleep(moments.uniform(0, 0.0005))
        program.kill()
        # The last answer may be cut.
        answered.update(program.communicate()[0].decode().split("\n")[:-1])
    pending = site.pending()
    decoded = site.decode(pending)
    assert answered and answered <= decoded.keys(), "a row that was answered is lost"
    sealed = [json.loads(line)[field] for line in pending.splitlines() for field in ("patient", "reading")]
    nonces = {base64.urlsafe_b64decode(text[15:] + "==")[20:44] for text in sealed}
    assert len(nonces) == 2 * len(decoded), "a nonce came twice"
    assert site.upload() == decoded
    return f"25 kills, {len(decoded)} rows spooled, none that was answered is lost"


def full_disk(site):
    """A row that could not be stored is not answered, however many come at once; and half a batch is not uploaded."""
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    for count in (10, 3_000, 16_000):
        ended = subprocess.run([site.program, "seal", site.spool], input="a\tb\n" * count, capture_output=True, text=True,
                               env={"CREDENTIALS_DIRECTORY": str(site.credentials)}, preexec_fn=limit)
        pending = site.pending()
        stored = {json.loads(line)["row"] for line in pending.splitlines()}
        assert set(ended.stdout.split()) <= stored, f"{count}: answered, and lost"
        assert (ended.returncode == 1 and "spool: " in ended.stderr) == (count > 10), ended
    sealed = site.seal([("a", "b")] * 16_000)
    pending = site.pending()
    assert len(pending) > 200_000 and stored | sealed.keys() == {json.loads(line)["row"] for line in pending.splitlines()}
    inbox = site.folder / "inbox"
    script = ["sh", HERE / "upload.sh", site.spool, "sh", "-c", f"cat >>'{inbox}'"]
    inbox.unlink(missing_ok=True)
    half = site.folder / "half"
    half.write_text(f'#!/bin/sh\n"{site.program}" "$@" || exit\n[ "$1" != pending ] || exit 1\n')
    half.chmod(0o700)
    ended = subprocess.run(script, env=os.environ | {"GATEWAY": str(half)})
    assert ended.returncode == 1 and not inbox.exists() and site.pending() == pending
    assert site.upload().keys() == stored | sealed.keys()


def damaged(site):
    """A value in the spool that is none is said, and not read beyond its end."""
    (row,) = site.seal([("a", "b")])
    for column, short in (("patient", b""), ("reading", b"\xf5\x01\0\0")):
        with contextlib.closing(sqlite3.connect(site.spool)) as spool:
            (was,) = spool.execute(f"SELECT {column} FROM spool WHERE row = ?", (row,)).fetchone()
            spool.execute(f"UPDATE spool SET {column} = ? WHERE row = ?", (short, row))
            spool.commit()
            assert "the spool is damaged" in site.gateway("pending", site.spool, code=1)
            spool.execute(f"UPDATE spool SET {column} = ? WHERE row = ?", (was, row))
            spool.commit()
    assert site.upload() == {row: ("a", "b")}


def a_year_offline(site):
    """The backend rotates four times while the gateway is away. All of it is decoded, before and after the gateway has its new key."""
    sealed = {}
    for quarter in range(4):
        sealed |= site.seal(readings(50, f"quarter {quarter}"))
        site.run_keyfold("keys", "rotate", "--scope", SCOPE, "--config", site.config)
    old = (site.credentials / "bundle").read_bytes()
    new = site.provision("rotate")
    assert new["generation"] > int.from_bytes(old[6:10], "big") + 3
    sealed |= site.seal(readings(50, "with the new key"))
    assert site.upload() == sealed and len(sealed) == 250
    (site.credentials / "bundle").write_bytes(old)
    assert "older than one" in site.gateway("seal", site.spool, text="p\t1\n", code=1)
    site.provision("provision")


def revoked(site):
    """What a revoked gateway seals is refused."""
    kept = site.seal(readings(3))
    site.run_keyfold("device", "revoke", SCOPE, "--yes", "--config", site.config)
    (site.folder / "batch.ndjson").write_text(site.pending())
    refused = subprocess.run([site.keyfold, "reveal", "--config", site.config, "--policy", HERE / "policy.toml", "--scope", SCOPE,
                              site.folder / "batch.ndjson", "--output", "-"], capture_output=True, text=True)
    assert refused.returncode == 5 and "compromised" in refused.stderr, refused.stderr
    site.gateway("done", site.spool, text="\n".join(kept) + "\n")


def bundles(site):
    """Under a passphrase; with a wrong key, an edited bundle, and nothing at all."""
    key, bundle = site.credentials / "transport-key", site.credentials / "bundle"
    secret = site.credentials / "passphrase"
    secret.touch(mode=0o600)
    secret.write_text("six random words of a passphrase\n")
    transport_key = key.read_bytes()
    key.unlink()
    site.provision("provision", "--device-passphrase-file", secret, "--memory", "19")
    for end in ("", "\n", "\r\n", "\r\nmore\n"):
        secret.write_bytes(b"six random words of a passphrase" + end.encode())
        assert site.seal(readings(3)).keys() == site.upload().keys()
    secret.write_text("six other words of a passphrase\n")
    assert "DecryptionFailed (301)" in site.gateway("seal", site.spool, code=1)
    secret.unlink()
    assert "neither" in site.gateway("seal", site.spool, code=1)
    key.touch(mode=0o600)
    key.write_bytes(transport_key)
    site.provision("provision")
    good = bundle.read_bytes()
    for at in range(0, len(good), 7):
        bundle.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1:])
        assert "gateway: the bundle" in site.gateway("seal", site.spool, code=1), at
    bundle.write_bytes(good)
    key.write_bytes(bytes(range(32)))
    assert "DecryptionFailed (301)" in site.gateway("seal", site.spool, code=1)
    bundle.unlink()
    site.gateway("seal", site.spool, code=1)


def at_a_terminal(site):
    """A passphrase that is asked for twice and not shown, and bytes that are not for a terminal."""
    passphrase = "six random words of a passphrase"
    (site.credentials / "transport-key").unlink(missing_ok=True)
    (site.credentials / "passphrase").touch(mode=0o600)
    (site.credentials / "passphrase").write_text(passphrase + "\n")
    bundle = site.folder / "typed.bundle"
    provision = ["device", "provision", SCOPE, "--config", site.config, "--output", bundle, "--device-passphrase", "--memory", "19"]
    code, said = typed([site.keyfold, *provision], [passphrase, passphrase[::-1]])
    assert code == 2 and "the two passphrases differ" in said and not bundle.exists(), said
    code, said = typed([site.keyfold, *provision], ["too short"])
    assert code == 4 and "at least 12 characters" in said and "once more" not in said, said
    code, said = typed([site.keyfold, *provision], [passphrase, passphrase])
    assert code == 0 and "words" not in said, said
    bundle.replace(site.credentials / "bundle")
    assert site.seal(readings(3)).keys() == site.upload().keys()
    code, said = typed([site.keyfold, "device", "transport-key", "--output", "-"], [])
    assert code == 2 and "not for a terminal" in said, said


def typed(command, lines):
    """Runs a command at a terminal of its own, at which each line is typed when something is asked; returns its code and all that was shown."""
    process, terminal = pty.fork()
    if process == 0:
        os.execv(command[0], command)
    said, lines = b"", list(lines)
    with contextlib.suppress(OSError):  # It has gone.
        while part := os.read(terminal, 65536):
            said += part
            if lines and part.endswith(b": "):
                os.write(terminal, lines.pop(0).encode() + b"\r")
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), said.decode()


def units(site):
    """systemd finds nothing wrong with the units, and their exposure low."""
    if not shutil.which("systemd-analyze"):
        print("SKIPPED: the units of systemd: systemd-analyze is not installed")
        return
    folder = site.folder / "units"
    folder.mkdir()
    for unit in HERE.glob("keyfold-gateway*"):
        text = unit.read_text().replace("/usr/libexec/keyfold-gateway-upload", "/bin/true").replace("/usr/libexec/keyfold-gateway", "/bin/true")
        (folder / unit.name.replace("@.", "@1.")).write_text(text)
        (folder / unit.name).write_text(text)
    services = sorted(unit for unit in folder.iterdir() if "@." not in unit.name)
    assert len(services) == 4
    for unit in services:
        found = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
        assert found.returncode == 0 and not found.stderr.strip(), f"{unit.name}: {found.stderr}"
    version = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True).stdout.split()[1]
    if not version.isdigit() or int(version) < 250:
        print(f"SKIPPED: the exposure of the units: systemd {version} cannot measure what is not installed")
        return
    for name in ("keyfold-gateway@1.service", "keyfold-gateway-upload.service"):
        found = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--threshold=15", folder / name], capture_output=True, text=True)
        assert found.returncode == 0, f"{name}: {found.stdout.splitlines()[-1:]}"


CASES = [a_day, lines, command_line, silent, killed, full_disk, damaged, a_year_offline, revoked, bundles, at_a_terminal, units]


def measure(site):
    """What it costs."""
    lines = "".join(f"p-{n % 100}\t{n % 100:16}\n" for n in range(200_000))
    started = time.monotonic()
    site.gateway("seal", site.spool, text=lines)
    took = time.monotonic() - started
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    del lines
    program = subprocess.Popen([site.program, "seal", site.spool], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               env={"CREDENTIALS_DIRECTORY": str(site.credentials)})
    program.stdin.write(b"p-1\t97\n")
    program.stdin.flush()
    program.stdout.readline()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{program.pid}/status").read_text().splitlines())
    program.communicate()
    print(f"program            {site.program.stat().st_size / 1024:.0f} KiB, without libsqlite3 and libc, which are shared")
    print(f"memory, resident   {status['VmHWM'].strip()}, of which its own {status['RssAnon'].strip()}")
    print(f"seals              {400_000 / took:.0f} per second, two of a row of 16 bytes, durable, on this disk")
    assert most > 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("keyfold", "device"):
        parser.add_argument(f"--{option}", required=True, type=lambda text: Path(text).resolve())
    parser.add_argument("--measure", action="store_true")
    options = parser.parse_args()
    options.build = build
    if not options.measure:
        print(f"{run(options, CASES)} passed, 0 failed")
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(Site(Path(folder), options))


def run(options, cases):
    """Runs the cases, one after the other on one site; returns how many."""
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder), options)
        for case in cases:
            said = case(site)
            print(f"{case.__name__}: {said or 'as it should be'}", flush=True)
    return len(cases)


if __name__ == "__main__":
    sys.exit(main())
