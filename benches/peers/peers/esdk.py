"""The AWS Encryption SDK for Python with its cache of data keys, and without signatures.

Fastest documented setting: the caching materials manager with one context for all values (a context per row would miss the cache), the
committing suite without a signature, one frame per value. The master key is one in memory, that counts: a key of AWS KMS wraps to more bytes.
https://docs.aws.amazon.com/encryption-sdk/latest/developer-guide/data-key-caching.html
"""

import secrets
from pathlib import Path
from typing import Any

import aws_encryption_sdk as sdk
import work
from aws_encryption_sdk.identifiers import Algorithm, CommitmentPolicy, EncryptionKeyType, WrappingAlgorithm
from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey
from aws_encryption_sdk.key_providers.raw import RawMasterKeyProvider

# 100 bytes of names and values, as the AAD of the others.
CONTEXT = {"field": work.FIELD, "tenant": work.TENANT, "padding": "-" * 64}


class Counting(WrappingKey):
    """A wrapping key that counts."""

    kms: work.Kms

    def encrypt(self, *given: Any, **named: Any) -> Any:
        self.kms.counted += 1
        return super().encrypt(*given, **named)

    def decrypt(self, *given: Any, **named: Any) -> Any:
        self.kms.counted += 1
        return super().decrypt(*given, **named)


class Raw(RawMasterKeyProvider):
    """One raw AES key."""

    provider_id = "bench"
    key: WrappingKey

    def _get_raw_key(self, key_id: bytes) -> WrappingKey:
        return self.key


class Peer(work.Peer):
    packages = ["aws-encryption-sdk", "aws-cryptographic-material-providers"]
    setting = "caching CMM, `AES_256_GCM_HKDF_SHA512_COMMIT_KEY`, raw master key"
    source = "https://docs.aws.amazon.com/encryption-sdk/latest/developer-guide/data-key-caching.html"
    binds = "column"
    kms_is = "a raw master key, counted in the process"
    note = "has a context per message, which must be the same for all rows to meet its cache: rows can be swapped"

    @classmethod
    def provision(cls, folder: Path, kms: work.Kms) -> None:
        # The master key itself, which stands for one inside of AWS KMS: to have it is no call.
        (folder / "master").write_bytes(secrets.token_bytes(32))

    def __init__(self, folder: Path, kms: work.Kms) -> None:
        master = (folder / "master").read_bytes()
        key = Counting(WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING, master, EncryptionKeyType.SYMMETRIC)
        key.kms = kms
        provider = Raw()
        provider.key = key
        provider.add_master_key("one")
        self.client = sdk.EncryptionSDKClient(commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)
        self.manager = sdk.CachingCryptoMaterialsManager(
            master_key_provider=provider, cache=sdk.LocalCryptoMaterialsCache(100), max_age=86400.0, max_messages_encrypted=1 << 32
        )

    def seal(self, value: bytes, binding: Any) -> bytes:
        algorithm = Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY
        return self.client.encrypt(source=value, encryption_context=CONTEXT, materials_manager=self.manager, algorithm=algorithm)[0]

    def open(self, sealed: bytes, binding: Any) -> bytes:
        return self.client.decrypt(source=sealed, materials_manager=self.manager)[0]
