"""Fernet of `cryptography`, with a key that its caller has unwrapped: AES-128-CBC and HMAC, base64, no associated data.

It has one setting.
https://cryptography.io/en/stable/fernet/
"""

import base64
from pathlib import Path

import work
from cryptography.fernet import Fernet


class Peer(work.Peer):
    packages = ["cryptography"]
    setting = "`Fernet`, its only setting"
    source = "https://cryptography.io/en/stable/fernet/"
    binds = "nothing"

    def __init__(self, folder: Path, kms: work.Kms) -> None:
        self.cipher = Fernet(base64.urlsafe_b64encode(kms.secret()))

    def seal(self, value: bytes, binding: bytes) -> bytes:
        return self.cipher.encrypt(value)

    def open(self, sealed: bytes, binding: bytes) -> bytes:
        return self.cipher.decrypt(sealed)
