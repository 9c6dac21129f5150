"""pymongocrypt: explicit encryption, random, one data key in a key vault in memory, wrapped by AWS KMS.

Fastest documented setting: explicit encryption with the data key's ID, one encrypter for the process, whose key cache lasts a minute (or a
lifetime that is set; it is, to ever). AES-256-CBC and HMAC-SHA-512; no associated data but the key ID.
https://www.mongodb.com/docs/manual/core/csfle/fundamentals/manual-encryption/
"""

import json
import uuid
from pathlib import Path
from typing import Any

import aws
import bson
import work
from bson.binary import Binary, UuidRepresentation
from pymongocrypt.options import MongoCryptOptions
from pymongocrypt.synchronous.explicit_encrypter import ExplicitEncrypter
from pymongocrypt.synchronous.state_machine import MongoCryptCallback


class Vault(MongoCryptCallback):  # type: ignore[misc]
    """A key vault of one key in a file; the key service by its HTTP messages."""

    def __init__(self, file: Path, kms: work.Kms) -> None:
        self.file, self.kms = file, kms

    def insert_data_key(self, data_key: bytes) -> Any:
        self.file.write_bytes(data_key)
        return bson.decode(data_key)["_id"]

    def fetch_keys(self, filter: bytes) -> list[bytes]:
        return [self.file.read_bytes()]

    def kms_request(self, kms_context: Any) -> None:
        head, _, body = kms_context.message.partition(b"\r\n\r\n")
        headers = dict(line.split(":", 1) for line in head.decode().lower().split("\r\n")[1:])
        operation = {"trentservice.encrypt": "Encrypt", "trentservice.decrypt": "Decrypt"}[headers["x-amz-target"].strip()]
        said = aws.answer(self.kms, operation, json.loads(body))
        said = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said)
        while wanted := kms_context.bytes_needed:
            kms_context.feed(said[:wanted])
            said = said[wanted:]

    def bson_encode(self, document: Any) -> bytes:
        return bson.encode(document)

    def collection_info(self, database: str, filter: bytes) -> None: ...
    def mark_command(self, database: str, command: bytes) -> None: ...
    def close(self) -> None: ...


def encrypter(folder: Path, kms: work.Kms) -> ExplicitEncrypter:
    aws_of = {"aws": {"accessKeyId": "bench", "secretAccessKey": "bench"}}
    return ExplicitEncrypter(Vault(folder / "vault", kms), MongoCryptOptions(aws_of, key_expiration_ms=0))


class Peer(work.Peer):
    packages = ["pymongocrypt", "pymongo"]
    setting = "explicit, `AEAD_AES_256_CBC_HMAC_SHA_512-Random`, keys cached for ever"
    source = "https://www.mongodb.com/docs/manual/core/csfle/fundamentals/manual-encryption/"
    binds = "nothing"
    kms_is = "AWS's messages, counted in the process"
    note = "seals BSON documents: to make and read these is part of its time and size"

    @classmethod
    def provision(cls, folder: Path, kms: work.Kms) -> None:
        made = encrypter(folder, kms).create_data_key("aws", {"region": "us-east-1", "key": aws.KEY})
        (folder / "key-id").write_bytes(bytes(made))

    def __init__(self, folder: Path, kms: work.Kms) -> None:
        self.encrypter = encrypter(folder, kms)
        key_id = uuid.UUID(bytes=(folder / "key-id").read_bytes())
        self.key_id = bytes(Binary.from_uuid(key_id, UuidRepresentation.STANDARD))

    def close(self) -> None:
        self.encrypter.close()

    def seal(self, value: bytes, binding: None) -> bytes:
        algorithm = "AEAD_AES_256_CBC_HMAC_SHA_512-Random"
        return self.encrypter.encrypt(bson.encode({"v": value}), algorithm, key_id=self.key_id)

    def open(self, sealed: bytes, binding: None) -> bytes:
        return bson.decode(self.encrypter.decrypt(sealed))["v"]
