#!/usr/bin/env python3
"""Several processes over one SQLite store for a long time, while the key service, the disk and the processes themselves fail: nothing is lost, nothing grows.

    python3 tools/soak.py PROGRAM                     30 minutes (PROGRAM: open/examples/soak.rs, which says what a process does)
    python3 tools/soak.py PROGRAM --minutes 3         shorter
    python3 tools/soak.py PROGRAM --plant memory      with a fault in the processes, which must be found: also `descriptors` and `loss`

Two processes run all the time, a third is killed (SIGKILL) after seconds and started anew. Two KEKs are in a key service here that behaves as Vault
does and, KEK by KEK, now works, now throttles, fails, hangs, resets connections, answers nonsense or is slow. From time to time one of the two may write to no file
any more (RLIMIT_FSIZE: the disk is full) or open none (RLIMIT_NOFILE), for seconds. In the end all are killed, the key service works, and another process
opens every value that was acknowledged.

Resident memory and open descriptors of the two are sampled each second. Over the second half of the time a straight line is laid through them by least
squares: it may rise by at most MEMORY_KIB and DESCRIPTORS, or by less than twice the error of its slope, from beginning to end of that half. The judge is tried first, on
samples that are made up: a line that rises as ours did is let pass, and one that rises by a quarter more than it may is not.
"""

import argparse
import base64
import collections
import contextlib
import io
import json
import math
import os
import random
import resource
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

STEADY, KILLED = ("steady-1", "steady-2"), "killed"
# Most that the line may rise in the second half of the time. What rises is what is known of each key that was ever made, and 28 are made a minute here, in a day as many as
# a keyring that rotates once a day makes in a century; 512 KiB in a quarter of an hour are 48 MiB a day, and 1.2 KiB for each key.
MEMORY_KIB, DESCRIPTORS = 512, 2
DAY = 24 * 60
PLANTS = ("memory", "descriptors", "loss")
# What a KEK does for a while, and how often that is drawn.
MOODS = {"works": 8, "throttles": 2, "fails": 2, "hangs": 1, "resets": 1, "nonsense": 1, "slow": 1}


class Kek:
    """A transit key: wraps by remembering, which is all that a test needs."""

    def __init__(self):
        self.lock, self.wrapped, self.mood, self.calls = threading.Lock(), {}, "works", collections.Counter()

    def answer(self, operation, body):
        """Status and JSON, as Vault has them."""
        context = body.get("context")
        if not context:
            return 400, {"errors": ["missing 'context' for key derivation; the key was created using a derived key"]}
        if operation == "encrypt":
            ciphertext = "vault:v1:" + base64.b64encode(secrets.token_bytes(92)).decode()
            with self.lock:
                self.wrapped[ciphertext] = (context, body["plaintext"])
            return 200, {"data": {"ciphertext": ciphertext}}
        with self.lock:
            known = self.wrapped.get(body.get("ciphertext"))
        if known is None or known[0] != context:
            return 400, {"errors": ["cipher: message authentication failed"]}
        return 200, {"data": {"plaintext": known[1]}}


class Vault(BaseHTTPRequestHandler):
    """/v1/transit/{encrypt,decrypt}/NAME and the renewal of a token."""

    protocol_version = "HTTP/1.1"
    # Half of an answer must not wait for an acknowledgement of the other.
    disable_nagle_algorithm = True
    timeout = 30
    keks = {}

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        if self.path == "/v1/auth/token/renew-self":
            return self.send(200, {"auth": {"client_token": self.headers.get("x-vault-token"), "renewable": False}})
        operation, name = self.path.split("/")[-2:]
        kek = self.keks[name]
        # Not every request, so that what follows an error is tried as well; and not the look at whether the key is derived, of which nonsense would say no.
        mood = kek.mood if body.get("context") and random.random() < 0.8 else "works"
        kek.calls[mood] += 1
        if mood == "throttles":
            return self.send(429, {"errors": ["request rate limit exceeded"]}, {"retry-after": "1"})
        if mood == "fails":
            return self.send(503, {"errors": ["internal error"]})
        if mood == "hangs":
            time.sleep(5)
            self.close_connection = True
            return None
        if mood == "resets":
            self.close_connection = True
            return None
        if mood == "nonsense":
            return self.send(200, {"data": {"ciphertext": 7, "plaintext": "???"}})
        if mood == "slow":
            time.sleep(0.3)
        return self.send(*kek.answer(operation, body))

    def send(self, status, value, headers=None):
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"content-type": "application/json", "content-length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Clients that are killed or tired of waiting are what this is about."""


class Process:
    """A worker, and what it says."""

    def __init__(self, program, folder, name, plant):
        environment = {**os.environ, "VAULT_TOKEN": "soak", **({"KEYFOLD_SOAK_PLANT": plant} if plant else {})}
        # As Python has set it and a child keeps it: a write beyond RLIMIT_FSIZE fails, and is not the end of the process.
        self.child = subprocess.Popen([program, "work", folder, name], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                      text=True, errors="replace", restore_signals=False)
        self.name, self.did, self.said = name, collections.Counter(), []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.child.stdout:
            if line.startswith("did "):
                self.did = collections.Counter({what: int(count) for what, count in (pair.split("=") for pair in line.split()[1:])})
            else:
                self.said.append(f"{self.name}: {line.strip()}")

    def kill(self):
        """Says whether it was still running."""
        ran = self.child.poll() is None
        self.child.kill()
        self.child.wait()
        self.reader.join()
        return ran

    def sample(self):
        """Resident KiB and open descriptors."""
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(resident.split()[1]), len(os.listdir(f"/proc/{self.child.pid}/fd"))

    def limit(self, which, seconds):
        """No file grows, or none is opened, for so long."""
        before = resource.prlimit(self.child.pid, which)
        resource.prlimit(self.child.pid, which, (0, before[1]))

        def restore():
            try:
                resource.prlimit(self.child.pid, which, before)
            except ProcessLookupError:
                pass

        timer = threading.Timer(seconds, restore)
        timer.daemon = True
        timer.start()


def line(points):
    """Slope by least squares, and its standard error. The samples are averaged in at most 30 groups: neighbours say nearly the same."""
    size = max(1, len(points) // 30)
    groups = [points[at:at + size] for at in range(0, len(points) - size + 1, size)]
    xs, ys = ([statistics.fmean(point[i] for point in group) for group in groups] for i in (0, 1))
    slope, intercept = statistics.linear_regression(xs, ys)
    squares = sum((y - slope * x - intercept) ** 2 for x, y in zip(xs, ys, strict=True))
    spread = sum((x - statistics.fmean(xs)) ** 2 for x in xs)
    return slope, math.sqrt(squares / max(1, len(xs) - 2) / spread)


def change_moods(keks, end):
    """One KEK after the other does something else; in the end all work."""
    while time.monotonic() < end:
        kek = random.choice(keks)
        kek.mood = random.choices(list(MOODS), MOODS.values())[0]
        time.sleep(random.uniform(1, 4))
    for kek in keks:
        kek.mood = "works"


def run(options, folder, keks):
    """The time of the soak; returns the processes that ran, how often one was killed, and the samples of each that stayed."""
    start = time.monotonic()
    end = start + options.minutes * 60
    changing = threading.Thread(target=change_moods, args=(keks, end), daemon=True)
    changing.start()

    def begin(name):
        return Process(options.program, folder, name, options.plant)

    living, ended, samples = {name: begin(name) for name in (*STEADY, KILLED)}, [], collections.defaultdict(list)
    kills, wrong, limits, kill_at, limit_at = 0, [], collections.Counter(), start + 8, start + 15
    try:
        while (now := time.monotonic()) < end:
            time.sleep(max(0, start + math.ceil(now - start + 0.01) - now))
            for name in STEADY:
                if living[name].child.poll() is None:
                    samples[name].append((time.monotonic() - start, *living[name].sample()))
            for process in [process for process in living.values() if process.child.poll() is not None]:
                wrong.append(f"{process.name} ended by itself with {process.child.returncode}")
                process.kill()
                ended.append(process)
                living[process.name] = begin(process.name)
            if now > kill_at:
                kills += living[KILLED].kill()
                ended.append(living[KILLED])
                living[KILLED], kill_at = begin(KILLED), now + random.uniform(2, 20)
            if now > limit_at:
                which = random.choice(["RLIMIT_FSIZE", "RLIMIT_NOFILE"])
                # Not the one that may just have been started, and opens its own file.
                living[random.choice(STEADY)].limit(getattr(resource, which), random.uniform(0.5, 3))
                limits[which] += 1
                limit_at = now + random.uniform(8, 20)
    finally:
        for process in living.values():
            process.kill()
            ended.append(process)
        changing.join()
    return ended, kills, wrong, limits, samples


# Failure K18
def judge(samples, minutes):
    """Prints how memory and descriptors went; returns what is wrong with that."""
    wrong = []
    for name in STEADY:
        half = [sample for sample in samples[name] if sample[0] > minutes * 30]
        for index, what, most in ((1, "resident KiB", MEMORY_KIB), (2, "open descriptors", DESCRIPTORS)):
            values = [sample[index] for sample in half]
            if len(values) < 20:
                wrong.append(f"{name}: {len(values)} samples of {what} in the second half")
                continue
            slope, error = line([(sample[0], sample[index]) for sample in half])
            length = minutes * 30
            rise, doubt = slope * length, 2 * error * length
            print(f"{name}: {what} {min(values)} to {max(values)}, mean {statistics.fmean(values):.1f}; the line rises by {rise:+.1f} (± {doubt:.1f}) in {length / 60:.1f} minutes,"
                  f" {slope * 60:+.2f} a minute, {slope * 60 * DAY:+,.0f} in a day of this")
            if rise > most and rise > doubt:
                wrong.append(f"{name}: {what} grow: {rise:+.1f} in the second half, more than {most}")
    return wrong


def made_up(rise, descriptors, minutes=30):
    """Samples of the second half of a run, in which memory and descriptors rise by so much, up and down as they go."""
    drawn = random.Random(7)
    half = minutes * 30
    return {name: [(half + at, 19_000 + rise * at / half + drawn.gauss(0, 60) + 40 * (at % 97 < 30), round(15 + descriptors * at / half + drawn.gauss(0, 1)))
                   for at in range(1, half)] for name in STEADY}


def judge_fails():
    """What the judge lets pass and must not, or the other way about."""
    cases = {"as was measured": (337, 0.2, 0), "memory": (MEMORY_KIB * 1.25, 0, 2), "descriptors": (0, DESCRIPTORS * 1.5, 2), "both": (MEMORY_KIB * 1.25, DESCRIPTORS * 1.5, 4)}
    failed = []
    for what, (rise, descriptors, expected) in cases.items():
        with contextlib.redirect_stdout(io.StringIO()):
            found = judge(made_up(rise, descriptors), 30)
        if len(found) != expected:
            failed.append(f"of made up samples, {what}: {found}")
    return failed


def soak(options, folder):
    Vault.keks = {"kek-0": Kek(), "kek-1": Kek()}
    server = Server(("127.0.0.1", 0), Vault)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {**os.environ, "VAULT_TOKEN": "soak"}
    uris = [f"vault://127.0.0.1:{server.server_port}/transit/{name}?tls=off&token_env=VAULT_TOKEN&timeout=500ms&attempts=2" for name in Vault.keks]
    subprocess.run([options.program, "init", folder, *uris], check=True, env=environment)
    ended, kills, wrong, limits, samples = run(options, folder, list(Vault.keks.values()))
    did = sum((process.did for process in ended), collections.Counter())
    said = [text for process in ended for text in process.said]
    wrong += said[:20]
    # Of what is said only the last full second of a process is missing.
    print(f"{options.minutes:g} minutes, {len(ended)} processes, {kills} killed; limits: {dict(limits)}")
    print("processes:", ", ".join(f"{what} {count}" for what, count in sorted(did.items())))
    for name, kek in Vault.keks.items():
        print(f"key service, {name}:", ", ".join(f"{mood} {count}" for mood, count in sorted(kek.calls.items())))
    wrong += judge(samples, options.minutes)
    done = subprocess.run([options.program, "verify", folder], env=environment, capture_output=True, text=True)
    print(done.stdout[-2000:], end="")
    if done.returncode:
        wrong.append(f"a value was lost: {done.stderr.strip()[-400:]}")
    for what in ("acknowledged", "opened", "rotated", "reparented", "rewrapped", "reloaded"):
        if not did[what]:
            wrong.append(f"nothing was {what}")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=lambda name: Path(name).resolve())
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--plant", choices=PLANTS, help="with this fault; succeeds if it is found")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if failed := judge_fails():
        print("FAILED:", *failed)
        return 1
    with tempfile.TemporaryDirectory(prefix="keyfold-soak-") as folder:
        wrong = soak(options, Path(folder) / "ring")
    for text in wrong:
        print(f"{'found' if options.plant else 'FAILED'}: {text}")
    passed = bool(wrong) == bool(options.plant)
    if options.plant and passed:
        # For another reason than the one that was planted it would say nothing.
        expected = {"memory": "resident KiB grow", "descriptors": "open descriptors grow", "loss": "a value was lost"}[options.plant]
        passed = any(expected in text for text in wrong)
    if options.plant and not passed:
        print(f"FAILED: the planted fault, {options.plant}, was not found")
    print(f"{int(passed)} passed, {int(not passed)} failed")
    return not passed


if __name__ == "__main__":
    sys.exit(main())
