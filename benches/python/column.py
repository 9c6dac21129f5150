"""A column of 1,000,000 record numbers of 10 bytes, against a loop over cryptography's AESGCM in the same process, both ways.

    python benches/python/column.py [--rows N] [--runs N] [--assert]

Needs the wheel, pyarrow and cryptography. One thread; CPU time; the two take turns, and a ratio is one of medians.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import keyfold

GOAL = 6.0
POLICY = 'version = 1\n[fields."patient.mrn"]\nrow_binding = "none"\ncolumns = ["mrn"]\n'


def cpu_seconds(work: Callable[[], object]) -> tuple[float, object]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--assert", dest="asserts", action="store_true", help=f"fail if encrypting is not {GOAL:g} times as fast")
    options = parser.parse_args()

    values = [f"MRN{number:07}" for number in range(options.rows)]
    column = pa.array(values)
    encoded = [value.encode() for value in values]
    cipher = AESGCM(AESGCM.generate_key(256))
    # What a careful program binds: field and tenant.
    bound = b'{"tenant":"clinic-17","field":"patient.mrn"}'

    with tempfile.TemporaryDirectory() as folder:
        config = keyfold.init(Path(folder) / "ring")
        policy = Path(folder) / "policy.toml"
        policy.write_text(POLICY)
        ring = keyfold.Keyring.open(config, policies=[policy])
        field = ring.field("patient.mrn", context={"tenant": "clinic-17"})

        def loop_encrypt() -> list[bytes]:
            encrypt, random = cipher.encrypt, os.urandom
            sealed = []
            for value in encoded:
                nonce = random(12)
                sealed.append(nonce + encrypt(nonce, value, bound))
            return sealed

        def loop_decrypt(sealed: list[bytes]) -> list[bytes]:
            decrypt = cipher.decrypt
            return [decrypt(value[:12], value[12:], bound) for value in sealed]

        times: dict[str, list[float]] = {"loop encrypt": [], "loop decrypt": [], "column encrypt": [], "column decrypt": []}
        for _ in range(options.runs):
            seconds, looped = cpu_seconds(loop_encrypt)
            times["loop encrypt"].append(seconds)
            seconds, sealed = cpu_seconds(lambda: field.encrypt_column(column))
            times["column encrypt"].append(seconds)
            seconds, opened = cpu_seconds(lambda looped=looped: loop_decrypt(looped))
            times["loop decrypt"].append(seconds)
            assert opened == encoded
            seconds, opened = cpu_seconds(lambda sealed=sealed: field.decrypt_column(sealed))
            times["column decrypt"].append(seconds)
            assert column.equals(opened)
            del looped, sealed, opened

    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    for name, seconds in medians.items():
        print(f"{name:15} {seconds:.3f} s  {options.rows / seconds / 1e6:6.2f} million rows/s  ({seconds / options.rows * 1e9:.0f} ns per row)")
    ratios = {way: medians[f"loop {way}"] / medians[f"column {way}"] for way in ("encrypt", "decrypt")}
    print(", ".join(f"{way} {ratio:.1f} times as fast" for way, ratio in ratios.items()))
    if options.asserts and ratios["encrypt"] < GOAL:
        raise SystemExit(f"the goal is {GOAL:g}")


if __name__ == "__main__":
    main()
