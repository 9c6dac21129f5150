"""One value per call through a bound field, against AESGCM of `cryptography` with a nonce from `os.urandom`, both ways.

    python benches/python/one_value.py [--assert]     with the wheel and `cryptography` installed

CPU time, in one process, the contenders taking turns; the ratio is of the medians. `--assert` fails below GOAL.
The peer keeps one key and gets its nonce and associated data from its caller; ours derives a key per value, binds field and row,
and knows the key by the value's header.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import keyfold

GOAL = 1.2
ROUNDS, CALLS = 15, 10_000
VALUE, ROW = b"MRN-004711", "p-17"
POLICY = 'version = 1\n[fields.mrn]\nidentifier = "H"\nrow_binding = "patient_id"\ncolumns = ["mrn"]\n'


def seconds_per_call(call: Callable[[], object]) -> float:
    start = time.process_time()
    for _ in range(CALLS):
        call()
    return (time.process_time() - start) / CALLS


def contenders(folder: Path) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Ours and the peer, by what they do."""
    policy = folder / "policy.toml"
    policy.write_text(POLICY)
    field = keyfold.Config(keyfold.init(folder / "ring"), [policy]).open().field("mrn")
    peer, aad = AESGCM(AESGCM.generate_key(256)), b"mrn" + ROW.encode()
    sealed = field.encrypt(VALUE, row=ROW)
    nonce = os.urandom(12)
    theirs = nonce + peer.encrypt(nonce, VALUE, aad)

    def peer_encrypts() -> bytes:
        nonce = os.urandom(12)
        return nonce + peer.encrypt(nonce, VALUE, aad)

    return {
        "encrypt": (lambda: field.encrypt(VALUE, row=ROW), peer_encrypts),
        "decrypt": (lambda: field.decrypt(sealed, row=ROW), lambda: peer.decrypt(theirs[:12], theirs[12:], aad)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assert", dest="asserts", action="store_true", help="fail below the goal")
    options = parser.parse_args()
    slow = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, (ours, peer) in contenders(Path(folder)).items():
            rounds = [(seconds_per_call(ours), seconds_per_call(peer)) for _ in range(ROUNDS)]
            mine, other = (statistics.median(times) for times in zip(*rounds, strict=True))
            ratio = other / mine
            slow += ratio < GOAL
            print(f"{name}: keyfold {mine * 1e9:.0f} ns, cryptography {other * 1e9:.0f} ns: {ratio:.2f} times as fast")
    return 1 if slow and options.asserts else 0


if __name__ == "__main__":
    sys.exit(main())
