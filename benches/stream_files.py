#!/usr/bin/env python3
"""Measures `keyfold protect --stream` and `reveal --stream` of one file, beside other commands that encrypt files.

    python3 benches/stream_files.py                 1 GiB of random bytes, 5 rounds; 3 GB in TMPDIR and a minute
    python3 benches/stream_files.py --mib 64        another size

Each command reads a file that was just read (so it is in memory) and writes to a pipe that is emptied, once in each round, in turns. Says MB
of plaintext per second of wall time and of CPU time (user and system) and the ratio of CPU time to keyfold's in the same round: medians. Beside:

- `openssl enc -aes-256-ctr`: AES in a mode that notices no change, so the least that has to be done
- `gpg --symmetric` with AES-256, no compression: what people use; it cannot give out a part before the end was verified, and does it all the same
- `age`, where it is installed

Runs the release build of the command. Python 3, standard library.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FIELD = "file"
POLICY = f'version = 1\n[fields."{FIELD}"]\nmode = "stream"\nidentifier = "Q"\nrow_binding = "none"\nrequired_context = []\n'
PIECE = 1 << 20


def run(command, size):
    """Wall and CPU seconds of a command, whose output is read to its end and has to be `size` bytes, or more."""
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        length = 0
        while piece := child.stdout.read(PIECE):
            length += len(piece)
        errors = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - start
    if child.returncode or length < size:
        sys.exit(f"{command[0]}: exit code {child.returncode}, {length} bytes\n{errors.decode(errors='replace')}")
    return wall, usage.ru_utime + usage.ru_stime


def commands(folder, keyfold):
    """Of each tool: how it writes `plain` encrypted and how it reads that. Passphrases are for nothing else, and in files."""
    def at(name):
        return os.path.join(folder, name)

    subprocess.run([keyfold, "init", at("ring")], check=True, stdout=subprocess.PIPE)
    with open(at("policy.toml"), "w", encoding="utf-8") as file:
        file.write(POLICY)
    with open(at("passphrase"), "w", encoding="utf-8") as file:
        file.write("a passphrase for a benchmark\n")
    options = ["--stream", FIELD, "--config", os.path.join(at("ring"), "keyfold.toml"), "--policy", at("policy.toml"), "--output", "-"]
    found = {"keyfold": ([keyfold, "protect", *options, at("plain")], [keyfold, "reveal", *options, at("keyfold")])}
    if openssl := shutil.which("openssl"):
        enc = [openssl, "enc", "-aes-256-ctr", "-pbkdf2", "-iter", "1", "-kfile", at("passphrase")]
        found["openssl"] = ([*enc, "-in", at("plain")], [*enc, "-d", "-in", at("openssl")])
    if gpg := shutil.which("gpg"):
        os.mkdir(at("gpg-home"), 0o700)
        all_ = [gpg, "--homedir", at("gpg-home"), "--batch", "--quiet", "--no-symkey-cache", "--pinentry-mode", "loopback", "--passphrase-file", at("passphrase"), "--output", "-"]
        found["gpg"] = (
            [*all_, "--symmetric", "--cipher-algo", "AES256", "--compress-algo", "none", "--s2k-count", "1024", at("plain")], [*all_, "--decrypt", at("gpg")])
    if (age := shutil.which("age")) and (keygen := shutil.which("age-keygen")):
        subprocess.run([keygen, "-o", at("age-key")], check=True, stderr=subprocess.DEVNULL)
        found["age"] = ([age, "--encrypt", "--identity", at("age-key"), at("plain")], [age, "--decrypt", "--identity", at("age-key"), at("age")])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--keyfold", help="the command to measure (default: the release build)")
    parser.add_argument("--mib", type=int, default=1024, help="size of the file in MiB (default 1024)")
    parser.add_argument("--rounds", type=int, default=5, help="(default 5)")
    args = parser.parse_args()
    if args.mib < 1 or args.rounds < 1:
        parser.error("--mib and --rounds are 1 or more")
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    keyfold = args.keyfold or os.path.join(target, "release", "keyfold")
    if not os.path.exists(keyfold):
        sys.exit(f"{keyfold} is missing: cargo build --release -p keyfold-cli")
    size = args.mib << 20
    with tempfile.TemporaryDirectory(prefix="keyfold-stream-") as folder:
        with open(os.path.join(folder, "plain"), "wb") as file:
            for _ in range(args.mib):
                file.write(os.urandom(PIECE))
        tools = commands(folder, keyfold)
        for name, (write, _) in tools.items():
            with open(os.path.join(folder, name), "wb") as file:
                subprocess.run(write, check=True, stdout=file, stderr=subprocess.DEVNULL)
        times = {(name, way): [] for name in tools for way in ("protect", "reveal")}
        for _ in range(args.rounds):
            for name, both in tools.items():
                for way, command in zip(("protect", "reveal"), both, strict=True):
                    times[name, way].append(run(command, size))
    print(f"{args.mib} MiB, {args.rounds} rounds, load {os.getloadavg()[0]:.1f}")
    print(f"{'':8} {'':8} {'MB/s':>7} {'MB/s CPU':>9}   CPU time of keyfold's (least to most)")
    for (name, way), runs in times.items():
        walls, cpus = zip(*runs, strict=True)
        ratios = [cpu / ours[1] for cpu, ours in zip(cpus, times["keyfold", way], strict=True)]
        rates = (size / statistics.median(of) / 1e6 for of in (walls, cpus))
        print(f"{name:8} {way:8} {next(rates):7.0f} {next(rates):9.0f}   {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
