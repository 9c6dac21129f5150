"""AESGCM of `cryptography`, with a key that its caller has unwrapped: what a program does that wants no library.

Fastest setting: one object per key, as its documentation says, and for a column the nonces of all rows by one `os.urandom`. The nonce
goes before the ciphertext, as it has to be kept. (`encrypt_into` one buffer is slower: slices of a memoryview cost more than bytes.) There is no key ID, no commitment, no version, and a limit of 2^32 values per key.
https://cryptography.io/en/stable/hazmat/primitives/aead/#cryptography.hazmat.primitives.ciphers.aead.AESGCM
"""

import os
from pathlib import Path
from typing import Any

import work
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


class Peer(work.Peer):
    packages = ["cryptography"]
    setting = "`AESGCM`, 256 bits, one object per key; nonces of a column by one `os.urandom`"
    source = "https://cryptography.io/en/stable/hazmat/primitives/aead/"
    note = "is the bare cipher: no key ID, so no rotation, and no commitment; its caller unwraps one key"

    def __init__(self, folder: Path, kms: work.Kms) -> None:
        self.cipher = AESGCM(kms.secret())

    def seal(self, value: bytes, binding: bytes) -> bytes:
        nonce = os.urandom(12)
        return nonce + self.cipher.encrypt(nonce, value, binding)

    def open(self, sealed: bytes, binding: bytes) -> bytes:
        return self.cipher.decrypt(sealed[:12], sealed[12:], binding)

    def seal_column(self, column: Any) -> list[bytes]:
        encrypt, nonces = self.cipher.encrypt, os.urandom(12 * len(column[0]))
        split = [nonces[at : at + 12] for at in range(0, len(nonces), 12)]
        return [nonce + encrypt(nonce, value, aad) for nonce, value, aad in zip(split, *column, strict=True)]

    def open_column(self, sealed: Any, column: Any) -> list[bytes]:
        decrypt = self.cipher.decrypt
        return [decrypt(one[:12], one[12:], aad) for one, aad in zip(sealed, column[1], strict=True)]
