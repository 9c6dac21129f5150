"""Tink's KmsEnvelopeAead: a data key per value, and so a call of the KMS for each value, sealed or opened.

What Tink's documentation calls client-side encryption with a KMS. It has no cache of data keys: a template is all there is to choose. The
key service here is a key of Tink's own in memory that counts, as each value needs it.
https://developers.google.com/tink/client-side-encryption
"""

from pathlib import Path

import tink
import work
from tink import aead, cleartext_keyset_handle


class Remote(aead.Aead):
    """A key of Tink's own that counts."""

    def __init__(self, kms: work.Kms, key: aead.Aead) -> None:
        self.kms, self.key = kms, key

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        self.kms.counted += 1
        return self.key.encrypt(plaintext, associated_data)

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        self.kms.counted += 1
        return self.key.decrypt(ciphertext, associated_data)


class Peer(work.Peer):
    packages = ["tink"]
    setting = "`KmsEnvelopeAead` with `AES256_GCM`"
    source = "https://developers.google.com/tink/client-side-encryption"
    kms_is = "a key of Tink's own, counted in the process"
    note = "asks the KMS for every value; what a real one wraps is longer than what is counted here"

    @classmethod
    def provision(cls, folder: Path, kms: work.Kms) -> None:
        aead.register()
        handle = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
        with (folder / "kek.json").open("w") as file:
            cleartext_keyset_handle.write(tink.JsonKeysetWriter(file), handle)

    def __init__(self, folder: Path, kms: work.Kms) -> None:
        aead.register()
        handle = cleartext_keyset_handle.read(tink.JsonKeysetReader((folder / "kek.json").read_text()))
        remote = Remote(kms, handle.primitive(aead.Aead))
        self.primitive = aead.KmsEnvelopeAead(aead.aead_key_templates.AES256_GCM, remote)

    def seal(self, value: bytes, binding: bytes) -> bytes:
        return self.primitive.encrypt(value, binding)

    def open(self, sealed: bytes, binding: bytes) -> bytes:
        return self.primitive.decrypt(sealed, binding)
