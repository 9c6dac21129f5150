"""Asherah: one session, kept, with session caching on; a data row key per value, as its format has it.

Fastest documented setting: `EnableSessionCaching`, and the factory and session API, kept for long. Its KMS is AWS's over HTTP, in a
process of its own; its metastore SQLite. There is no associated data: a record is bound to its partition by its intermediate key.
https://pypi.org/project/asherah/ (Performance)
"""

import os
from pathlib import Path
from typing import ClassVar

import asherah
import aws
import work


class Peer(work.Peer):
    packages = ["asherah"]
    setting = "one session, `EnableSessionCaching`, SQLite metastore"
    source = "https://pypi.org/project/asherah/"
    binds = "nothing"
    kms_is = "AWS's protocol over HTTP, counted in a process of its own, the start of which is in its cold open"
    note = "makes a key per value and keeps it, wrapped, with it as JSON"

    # One for all handles of the process; it ends with it.
    server: ClassVar[aws.Server | None] = None

    @classmethod
    def provision(cls, folder: Path, kms: work.Kms) -> None:
        peer = cls(folder, kms)
        peer.seal(b"makes the keys of the partition", None)
        peer.close()

    def __init__(self, folder: Path, kms: work.Kms) -> None:
        Peer.server = Peer.server or aws.Server(folder)
        os.environ |= {
            "AWS_ENDPOINT_URL": Peer.server.url, "AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null",
        }
        self.factory = asherah.SessionFactory.from_config({
            "ServiceName": "bench", "ProductID": "keyfold", "Metastore": "sqlite", "ConnectionString": str(folder / "metastore.db"),
            "EnableSessionCaching": True, "KMS": "aws", "RegionMap": {"us-east-1": aws.KEY}, "PreferredRegion": "us-east-1",
        })
        self.session = self.factory.get_session(work.TENANT)

    def close(self) -> None:
        self.session.close()
        self.factory.close()

    def seal(self, value: bytes, binding: None) -> str:
        return self.session.encrypt_bytes(value)

    def open(self, sealed: str, binding: None) -> bytes:
        return self.session.decrypt_bytes(sealed)
