"""ironcore-alloy, standalone, standard documents: `encrypt_batch` and `decrypt_batch`, each document one field.

Standalone is its only mode without IronCore's own service, and batches are what its API has for many documents. Its caller unwraps the
secret. AES-256-GCM with a key per document, authenticated with the tenant by the header; no associated data.
https://pypi.org/project/ironcore-alloy/
"""

import asyncio
from pathlib import Path
from typing import Any

import ironcore_alloy as alloy
import work


class Peer(work.Peer):
    packages = ["ironcore-alloy"]
    setting = "standalone, standard, `encrypt_batch`"
    source = "https://pypi.org/project/ironcore-alloy/"
    binds = "nothing"
    note = "keeps a wrapped document key beside each value, which is counted with it"

    def __init__(self, folder: Path, kms: work.Kms) -> None:
        secrets = alloy.StandardSecrets(1, [alloy.StandaloneSecret(1, alloy.Secret(kms.secret()))])
        self.standard = alloy.Standalone(alloy.StandaloneConfiguration(secrets, {}, {})).standard()
        self.metadata = alloy.AlloyMetadata.new_simple(work.TENANT)
        self.loop = asyncio.new_event_loop()

    def close(self) -> None:
        self.loop.close()

    def seal(self, value: bytes, binding: Any) -> Any:
        return self.loop.run_until_complete(self.standard.encrypt({"mrn": value}, self.metadata))

    def open(self, sealed: Any, binding: Any) -> bytes:
        return self.loop.run_until_complete(self.standard.decrypt(sealed, self.metadata))["mrn"]

    def column(self, values: list[bytes]) -> Any:
        return {str(row): {"mrn": value} for row, value in enumerate(values)}

    def seal_column(self, column: Any) -> Any:
        return asyncio.run(self.standard.encrypt_batch(column, self.metadata)).successes

    def open_column(self, sealed: Any, column: Any) -> Any:
        return asyncio.run(self.standard.decrypt_batch(sealed, self.metadata)).successes

    def plain(self, opened: Any) -> list[bytes]:
        return [opened[str(row)]["mrn"] for row in range(len(opened))]

    def sealed_len(self, sealed: Any) -> int:
        return sum(len(one.edek) + len(one.document["mrn"]) for one in sealed.values())
