#!/usr/bin/env python3
"""keyfold and its peers on the same work, in interleaved rounds: speed, size, memory, cold start, KMS calls, a second thread.

    python3 benches/peers/run.py                    everything, 11 rounds, 10^5 rows; writes benches/peers/results
    python3 benches/peers/run.py --quick            3 rounds of 2,000 rows, to see that it works; writes target/peers-quick
    python3 benches/peers/run.py --only tink fernet rust/ring     these, and keyfold
    python3 benches/peers/run.py --render FILE      table and charts again, from a results.json

Makes a virtual environment in target/ with the peers at the versions of constraints.txt and the wheel of keyfold (--wheel, or built here with
maturin --release), and builds rust/ where there is a cargo. A peer that cannot be had is skipped aloud, with the reason, and counted.

Each peer is a process of its own, so that none disturbs another's memory or modules; only one works at a time. In a round every peer does each
work once, in an order that is shuffled with a fixed seed, and is compared with keyfold in the same round. CPU time unless it says wall.
"""

import argparse
import ast
import contextlib
import datetime
import hashlib
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import chart
import table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
VENV = TARGET / "peers-venv"
SEED = 20261126
# In the order of the table. keyfold is what all of these are compared with, rust/keyfold what those of Rust are.
PYTHON = ["keyfold", "keyfold_many", "aesgcm", "fernet", "tink", "tink_envelope", "asherah", "mongocrypt", "alloy", "esdk", "spark", "parquet"]
BARE = "is the bare cipher: no key ID, so no rotation, and no commitment"
USERSPACE = "draws its nonces from a generator in the process, where all others here ask the kernel for each value that is sealed alone"
# Of those in Rust the crate, and what a reader must know.
RUST = {
    "keyfold": ("keyfold", ""), "ring": ("ring", BARE), "aws_lc_rs": ("aws-lc-rs", BARE), "rustcrypto": ("aes-gcm", BARE),
    "tink": ("tink-aead", USERSPACE), "tink_envelope": ("tink-aead", f"makes a key per value, and {USERSPACE}"),
    "esdk": ("aws-esdk", "has no cache of data keys, and a context per message, here the same for all rows"),
}
# What each peer does in a round, besides a cold start.
WORKS = ["one", "column", "large", "threads", "handle"]
# Large values in memory that malloc keeps. Otherwise a megabyte is a measurement of page faults, for some peers and not for others.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "268435456", "MALLOC_TRIM_THRESHOLD_": "268435456"}


class Skipped(Exception):
    """A peer that cannot be had; the text says why."""


def say(*what):
    print(*what, flush=True)


# What is installed.


def declared(name):
    """What the class of peers/NAME.py says of its needs, without importing what it needs."""
    said = {"packages": [], "program": None}
    for node in ast.walk(ast.parse((HERE / "peers" / f"{name}.py").read_text())):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in said:
            said[node.targets[0].id] = ast.literal_eval(node.value)
    return said


def pip(*arguments):
    command = [VENV / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise Skipped(f"pip: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")


def built_wheel():
    """The wheel of a release, as its users have it; `./test python` builds one with checks on, which is slower."""
    out, build = TARGET / "peers-wheel", TARGET / "python-build"
    if not build.exists():
        subprocess.run([sys.executable, "-m", "venv", build], check=True)
        requirements = ROOT / "bindings-python" / "requirements-build.txt"
        subprocess.run([build / "bin" / "python", "-m", "pip", "install", "--quiet", "-r", requirements], check=True)
    shutil.rmtree(out, ignore_errors=True)
    maturin = [build / "bin" / "maturin", "build", "--release", "--locked", "--out", out]
    subprocess.run(maturin, cwd=ROOT / "bindings-python", check=True)
    return next(out.iterdir())


def install(names, wheel):
    """Installs the peers of Python; those that cannot be, with the reason."""
    if not VENV.exists():
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    skipped = {}
    for name in names:
        needs = declared(name)
        try:
            if needs["program"] and not shutil.which(needs["program"]):
                raise Skipped(f"{needs['program']} is not installed")
            packages = [package for package in needs["packages"] if package != "keyfold"]
            if packages:
                pip("--constraint", HERE / "constraints.txt", *packages)
        except Skipped as why:
            skipped[name] = str(why)
    try:
        pip("--no-deps", "--force-reinstall", wheel)
    except Skipped as why:
        raise SystemExit(f"{wheel}: {why}") from None
    return skipped


def built_rust(features):
    """The program of rust/."""
    command = ["cargo", "build", "--release", "--locked", *(["--features", features] if features else [])]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(TARGET / "peers-rust")}
    try:
        done = subprocess.run(["nice", *command], cwd=HERE / "rust", env=environment, capture_output=True, text=True)
    except FileNotFoundError:
        raise Skipped("no cargo") from None
    if done.returncode != 0:
        raise Skipped(f"cargo: {done.stderr.strip().splitlines()[-1]}")
    return TARGET / "peers-rust" / "release" / "keyfold-peers"


def locked():
    """Versions in rust/Cargo.lock."""
    lines = (HERE / "rust" / "Cargo.lock").read_text().splitlines()
    return {line[8:-1]: following[11:-1] for line, following in zip(lines, lines[1:], strict=False) if line.startswith("name = ")}


# Peers that run.


class Worker:
    """A peer's process."""

    def __init__(self, name, command, folder):
        self.name, self.folder, self.rounds = name, folder, {}
        folder.mkdir(parents=True, exist_ok=True)
        self.log = (folder / "log").open("a+")
        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment(MALLOC))
        self.about = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise Skipped(last_line(self.folder))
        return json.loads(line)

    def order(self, *what):
        try:
            self.process.stdin.write(" ".join(map(str, what)) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Skipped(last_line(self.folder)) from None

    def do(self, *what):
        self.order(*what)
        return self.answer()

    def end(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.log.close()


def environment(more=None):
    """Ours, without what would lead Python elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | (more or {})


def last_line(folder):
    lines = (folder / "log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it ended without a word"


def python_worker(name, folder):
    return Worker(name, [VENV / "bin" / "python", HERE / "worker.py", name, folder], folder)


def rust_worker(program, name, folder):
    worker = Worker(f"rust/{name}", [program, name], folder)
    crate, note = RUST[name]
    worker.about |= {
        "versions": {crate: locked()[crate]}, "source": "core" if name == "keyfold" else f"https://docs.rs/{crate}", "kms_is": "none: a key in memory",
        "binds": "column" if name == "esdk" else "row", "note": note}
    return worker


def alone(worker, *arguments):
    """One answer of a new process of a peer, and what the process took: wall time in nanoseconds."""
    command = [VENV / "bin" / "python", HERE / "worker.py", worker.name, worker.folder, *map(str, arguments)]
    start = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=worker.log, text=True, env=environment())
    if done.returncode != 0:
        raise Skipped(last_line(worker.folder))
    return json.loads(done.stdout) | {"wall": (time.monotonic() - start) * 1e9}


# The measurement.


def counts(worker, options):
    """How often a peer does each work in a round: as long as to be measured well, and no longer."""
    short = 0.02 if options.quick else 0.2
    amounts = {"column": options.rows, "handle": 1, "large": 1 if options.quick else 8}
    compiling = 4 if options.quick else 12  # rounds in which the JVM compiles
    for _ in range(compiling if worker.name == "spark" else 1):
        each = worker.do("column", options.rows)["seal"]
    amounts["threads"] = max(500, min(1_000_000, round(short * 1e9 / each)))
    if "one" in worker.about["works"]:
        each = worker.do("one", 50)["seal"]
        amounts["one"] = max(50, min(100_000, round(short * 1e9 / each)))
    for work in ("large", "threads"):
        if work in worker.about["works"]:
            worker.do(work, amounts[work])
    return amounts


def two_processes(pair, rows):
    """What a second process gains over one, doing the column of `cryptography` or of ring: what the machine has to give. Wall time."""
    took = []
    for workers in (pair[:1], pair):
        start = time.monotonic()
        for worker in workers:
            worker.order("column", rows)
        for worker in workers:
            worker.answer()
        took.append(time.monotonic() - start)
    return 2 * took[0] / took[1]


def take_turns(workers, skipped, each):
    """Calls `each` with every worker. One that fails is no longer measured, and says why; without keyfold nothing can be compared."""
    for worker in list(workers):
        try:
            each(worker)
        except Skipped as why:
            skip(skipped, worker.name, why)
            workers.remove(worker)


def skip(skipped, name, why):
    if name in ("keyfold", "rust/keyfold"):
        raise SystemExit(f"{name}: {why}")
    skipped[name] = str(why)
    say(f"SKIPPED: {name}: {why}")


def measure(workers, skipped, pairs, options):
    shuffle, amounts = random.Random(SEED), {}

    def warm(worker):
        say(f"warming up: {worker.name}")
        amounts[worker.name] = counts(worker, options)

    def turn(worker):
        if work in worker.about["works"]:
            took = alone(worker, "--cold") if work == "cold" else worker.do(work, amounts[worker.name][work])
            worker.rounds.setdefault(work, []).append(took)

    def count(worker):
        if "calls" in worker.about["works"]:
            say(f"KMS calls and memory: {worker.name}")
            few, many = 100, 1_000 if options.quick else 10_000
            worker.calls = {str(count): worker.do("calls", count) for count in (few, many)}
            worker.memory = [alone(worker, "--memory", options.rows) for _ in range(1 if options.quick else 3)]

    take_turns(workers, skipped, warm)
    reference, order = {name: [] for name in pairs}, list(workers)
    for number in range(options.rounds):
        say(f"round {number + 1} of {options.rounds}")
        for work in [*WORKS, "cold"]:
            shuffle.shuffle(workers)
            take_turns(workers, skipped, turn)
        for name, pair in pairs.items():
            if pair[0] in workers:
                reference[name].append(two_processes(pair, options.rows))
    workers.sort(key=order.index)
    take_turns(workers, skipped, count)
    return reference


def machine():
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "unknown")
    return {"processor": model, "cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}


def results(workers, skipped, reference, options, wheel, load, minutes):
    def of(worker):
        return worker.about | {"rounds": worker.rounds, "calls": getattr(worker, "calls", {}), "memory": getattr(worker, "memory", [])}

    file = wheel["file"]
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"), "machine": machine(), "load": [load, os.getloadavg()[0]],
        "wheel": {"name": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "how": wheel["how"]},
        "minutes": round(minutes, 1), "quick": options.quick, "seed": SEED, "rounds": options.rounds, "rows": options.rows,
        "peers": {worker.name: of(worker) for worker in workers}, "skipped": skipped, "two_processes": reference,
    }


def write(found, out):
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    (out / "table.md").write_text(table.table(found))
    for name, text in chart.charts(found).items():
        (out / name).write_text(text)
    say(f"wrote {out}")


def chosen(options):
    """Names of Python and of Rust."""
    every = [*PYTHON, *(f"rust/{name}" for name in RUST)]
    if unknown := set(options.only or []) - set(every):
        raise SystemExit(f"no peer {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    wanted = options.only or every
    python = [name for name in PYTHON if name in wanted or name == "keyfold"]
    rust = [name for name in RUST if f"rust/{name}" in wanted]
    return python, ["keyfold", *(name for name in rust if name != "keyfold")] if rust else []


def start(python, rust, options, folder, wheel):
    """Those that run, and why others do not."""
    workers, skipped = [], {}
    cannot = install(python, wheel["file"])
    program = None
    if rust:
        try:
            program = built_rust(options.features)
        except Skipped as why:
            for name in rust:
                skipped[f"rust/{name}"] = str(why)
            rust = []
    for name in [*python, *(f"rust/{name}" for name in rust)]:
        place = folder / name
        try:
            if name in cannot:
                raise Skipped(cannot[name])
            if name == "rust/esdk" and "esdk" not in options.features:
                raise Skipped("compiles for a quarter of an hour; --features esdk builds it")
            plain = name.removeprefix("rust/")
            workers.append(python_worker(name, place) if plain == name else rust_worker(program, plain, place))
        except Skipped as why:
            skip(skipped, name, why)
    return workers, skipped, program


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small, to see that it works: the numbers mean nothing")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these peers, and keyfold")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--rows", type=int, help="of a column")
    parser.add_argument("--wheel", type=Path, help="of keyfold; otherwise one is built, with --release")
    parser.add_argument("--features", default="", help="of rust/: esdk")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--render", type=Path, metavar="FILE", help="measure nothing")
    options = parser.parse_args()
    if options.render:
        write(json.loads(options.render.read_text()), options.out or options.render.parent)
        return
    options.rounds = options.rounds or (3 if options.quick else 11)
    options.rows = options.rows or (2_000 if options.quick else 100_000)
    out = options.out or (TARGET / "peers-quick" if options.quick else HERE / "results")
    python, rust = chosen(options)
    wheel = {"file": options.wheel, "how": "as given"} if options.wheel else {"file": built_wheel(), "how": "built with --release"}
    load, begun, every = os.getloadavg()[0], time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="keyfold-peers-") as place:
        folder = Path(place)
        workers, skipped, program = start(python, rust, options, folder, wheel)
        every += workers  # also those that fail later
        by_name, pairs = {worker.name: worker for worker in workers}, {}
        try:
            if "aesgcm" in by_name:
                pairs["python"] = [by_name["aesgcm"], python_worker("aesgcm", folder / "second")]
            if "rust/ring" in by_name:
                pairs["rust"] = [by_name["rust/ring"], rust_worker(program, "ring", folder / "rust/second")]
            every += [pair[1] for pair in pairs.values()]
            reference = measure(workers, skipped, pairs, options)
        finally:
            for worker in every:
                worker.end()
    write(results(workers, skipped, reference, options, wheel, load, (time.monotonic() - begun) / 60), out)
    say(f"{len(workers)} measured, {len(skipped)} skipped")
    for name, why in skipped.items():
        say(f"SKIPPED: {name}: {why}")


if __name__ == "__main__":
    main()
