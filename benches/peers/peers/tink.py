"""Tink, AES256_GCM of a keyset that the KMS has encrypted as a whole: the KMS is asked once per process.

The fastest of Tink's ways with a KMS: its documentation has the keyset encrypted by a KMS key, and after that nobody is asked.
https://developers.google.com/tink/generate-encrypted-keyset
"""

from pathlib import Path

import tink
import work
from tink import aead


class Remote(aead.Aead):
    """The counting key service as Tink's remote key."""

    def __init__(self, kms: work.Kms) -> None:
        self.kms = kms

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        return self.kms.wrap(plaintext)

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        return self.kms.unwrap(ciphertext)


class Peer(work.Peer):
    packages = ["tink"]
    setting = "`AES256_GCM`, keyset encrypted by the KMS and read once"
    source = "https://developers.google.com/tink/generate-encrypted-keyset"

    @classmethod
    def provision(cls, folder: Path, kms: work.Kms) -> None:
        aead.register()
        handle = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
        sealed = tink.json_proto_keyset_format.serialize_encrypted(handle, Remote(kms), b"")
        (folder / "keyset.json").write_text(sealed)

    def __init__(self, folder: Path, kms: work.Kms) -> None:
        aead.register()
        handle = tink.json_proto_keyset_format.parse_encrypted((folder / "keyset.json").read_text(), Remote(kms), b"")
        self.primitive = handle.primitive(aead.Aead)

    def seal(self, value: bytes, binding: bytes) -> bytes:
        return self.primitive.encrypt(value, binding)

    def open(self, sealed: bytes, binding: bytes) -> bytes:
        return self.primitive.decrypt(sealed, binding)
