"""Parquet modular encryption of pyarrow: a file in memory with one encrypted column.

Fastest documented setting: double wrapping, which is the default and saves calls of the KMS, key material in the file; neither dictionary
nor compression, of which values that differ have no use. Keys of 256 bits, as all others have. It encrypts and authenticates *pages*
with their position in the file, not values: it has no value that could stand alone in a row of a database.
https://arrow.apache.org/docs/dev/python/parquet/parquet_encryption.html
"""

import base64
import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import work


class Client(pe.KmsClient):  # type: ignore[misc]
    """The counting key service as Parquet's."""

    def __init__(self, kms: work.Kms) -> None:
        super().__init__()
        self.kms = kms

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        return base64.b64encode(self.kms.wrap(key_bytes))

    def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
        return self.kms.unwrap(base64.b64decode(wrapped_key))


class Peer(work.Peer):
    packages = ["pyarrow"]
    setting = "a file in memory, one column, double wrapping, 256 bits, no dictionary, no compression"
    source = "https://arrow.apache.org/docs/dev/python/parquet/parquet_encryption.html"
    binds = "column"
    note = "encrypts pages and not values: one nonce and tag for thousands of rows, which can only be read from the file, and together"
    has_one = False

    @classmethod
    def provision(cls, folder: Path, kms: work.Kms) -> None:
        pass

    def __init__(self, folder: Path, kms: work.Kms) -> None:
        self.factory = pe.CryptoFactory(lambda _: Client(kms))
        self.connection = pe.KmsConnectionConfig()
        day = datetime.timedelta(days=1)
        self.sealing = pe.EncryptionConfiguration(
            footer_key="footer", column_keys={"column": ["mrn"]}, data_key_length_bits=256, cache_lifetime=day)
        self.opening = pe.DecryptionConfiguration(cache_lifetime=day)

    def column(self, values: list[bytes]) -> pa.Table:
        return pa.table({"mrn": pa.array(values, pa.binary())})

    def seal_column(self, column: pa.Table) -> pa.Buffer:
        properties = self.factory.file_encryption_properties(self.connection, self.sealing)
        sink = pa.BufferOutputStream()
        options = {"use_dictionary": False, "compression": "none", "write_statistics": False}
        with pq.ParquetWriter(sink, column.schema, encryption_properties=properties, **options) as writer:
            writer.write_table(column)
        return sink.getvalue()

    def open_column(self, sealed: pa.Buffer, column: Any) -> pa.Table:
        properties = self.factory.file_decryption_properties(self.connection, self.opening)
        return pq.ParquetFile(pa.BufferReader(sealed), decryption_properties=properties).read(use_threads=False)

    def plain(self, opened: pa.Table) -> list[bytes]:
        return opened["mrn"].to_pylist()

    def sealed_len(self, sealed: pa.Buffer) -> int:
        return sealed.size

    def seal_large(self) -> pa.Buffer:
        return self.seal_column(self.column([work.LARGE]))

    def open_large(self, sealed: pa.Buffer) -> bytes:
        return self.plain(self.open_column(sealed, None))[0]
