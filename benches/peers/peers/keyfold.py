"""keyfold itself: `encrypt_column` of Arrow with a row binding for each value; `Field.encrypt` where values come one by one.

Its columns are documented as the fast way in docs/python.md. Nonces, row bindings and key commitment are part of what is measured. keyfold
needs no package, but columns come from one: pyarrow is imported where there is a column, and counts where memory of a column is measured.
"""

from pathlib import Path
from typing import Any

import keyfold
import work

POLICY = f'version = 1\n[fields."{work.FIELD}"]\ntype = "bytes"\nrow_binding = "row"\ncolumns = ["mrn"]\n'


class Kek:
    """The counting key service as a KEK."""

    def __init__(self, kms: work.Kms) -> None:
        self.kms = kms

    def wrap(self, payload: bytes, context: dict[str, str], /) -> bytes:
        return self.kms.wrap(payload)

    def unwrap(self, wrapped: bytes, context: dict[str, str], version: str, /) -> bytes:
        return self.kms.unwrap(wrapped)


class Peer(work.Peer):
    packages = ["keyfold", "pyarrow"]
    setting = "`encrypt_column` of Arrow, `Field.encrypt` for one value; key in a keyring, root under the KMS"
    source = "docs/python.md"

    @classmethod
    def provision(cls, folder: Path, kms: work.Kms) -> None:
        (folder / "policy.toml").write_text(POLICY)
        keyfold.init(folder / "ring", keks={"kms": "host:kms"}, host_keks={"kms": Kek(kms)})
        cls(folder, kms).field.encrypt(b"makes the data key", row=b"row")

    def __init__(self, folder: Path, kms: work.Kms) -> None:
        config, policies = folder / "ring" / "keyfold.toml", [folder / "policy.toml"]
        self.ring = keyfold.Keyring.open(config, policies=policies, host_keks={"kms": Kek(kms)})
        self.field = self.ring.field(work.FIELD, context={"tenant": work.TENANT})

    def close(self) -> None:
        self.ring.close()

    def seal(self, value: bytes, binding: bytes) -> bytes:
        return self.field.encrypt(value, row=binding)

    def open(self, sealed: bytes, binding: bytes) -> Any:
        return self.field.decrypt(sealed, row=binding)

    def bindings(self, count: int) -> list[bytes]:
        return work.rows(count)

    def column(self, values: list[bytes]) -> Any:
        import pyarrow as pa

        return pa.array(values, pa.binary()), pa.array(self.bindings(len(values)), pa.binary())

    def seal_column(self, column: Any) -> Any:
        values, rows = column
        return self.field.encrypt_column(values, rows=rows)

    def open_column(self, sealed: Any, column: Any) -> Any:
        return self.field.decrypt_column(sealed, rows=column[1])

    def plain(self, opened: Any) -> list[bytes]:
        return opened.to_pylist()

    def sealed_len(self, sealed: Any) -> int:
        return sum(map(len, sealed.to_pylist()))
