"""Spark's built-in `aes_encrypt` and `aes_decrypt`: GCM with AAD, of the same column in Parquet, `local[2]`.

It has one setting besides the mode. The session is warm: rounds before the clock let the JVM compile. Both ways read a Parquet file and count
the bytes of what results, and CPU time is that of Python and the JVM. The key is a literal of the plan, which the driver unwraps.
https://spark.apache.org/docs/latest/api/sql/#aes_encrypt
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import work
from pyspark.sql import SparkSession
from pyspark.sql import functions as f

TICKS = os.sysconf("SC_CLK_TCK")


class Peer(work.Peer):
    packages = ["pyspark"]
    setting = "`aes_encrypt(…, 'GCM', 'DEFAULT', '', aad)`, `local[2]`, warm"
    source = "https://spark.apache.org/docs/latest/api/sql/#aes_encrypt"
    note = (
        "reads the column from Parquet and counts the result's bytes, which with the start of each job is a large part of its time "
        "(benches/python/spark.py has 10⁶ rows and more); the key stands in the query's plan"
    )
    has_one = has_large = False
    # A process has one session, and that has two threads.
    has_handle = has_threads = False
    program = "java"

    def __init__(self, folder: Path, kms: work.Kms) -> None:
        os.environ["PYSPARK_PYTHON"] = sys.executable
        options = {
            "spark.ui.enabled": "false", "spark.log.level": "OFF", "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1", "spark.driver.memory": "1g", "spark.sql.warehouse.dir": str(folder / "warehouse"),
            "spark.sql.shuffle.partitions": "2",
        }
        builder = SparkSession.builder.master("local[2]")
        for name, value in options.items():
            builder = builder.config(name, value)
        self.session = builder.getOrCreate()
        self.jvm = self.session.sparkContext._gateway.proc.pid
        self.key, self.folder = f.lit(kms.secret()), folder

    def aad(self) -> Any:
        return f.concat(f.lit(work.SAME_FOR_ALL_ROWS), f.col("row"))

    def column(self, values: list[bytes]) -> Any:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        pq.write_table(pa.table({"mrn": pa.array(values, pa.binary()), "row": pa.array(work.rows(len(values)), pa.binary())}), folder / "clear.parquet")
        clear = self.session.read.parquet(str(folder / "clear.parquet"))
        self.sealed(clear).write.parquet(str(folder / "sealed"))
        return clear, self.session.read.parquet(str(folder / "sealed"))

    def sealed(self, clear: Any) -> Any:
        sealed = f.aes_encrypt("mrn", self.key, f.lit("GCM"), f.lit("DEFAULT"), f.lit(b""), self.aad())
        return clear.select(sealed.alias("mrn"), "row")

    def opened(self, sealed: Any) -> Any:
        return sealed.select(f.aes_decrypt("mrn", self.key, f.lit("GCM"), f.lit("DEFAULT"), self.aad()).alias("mrn"))

    def count(self, frame: Any) -> int:
        total: int = frame.select(f.sum(f.length("mrn"))).first()[0]
        return total

    def seal_column(self, column: Any) -> Any:
        return self.count(self.sealed(column[0]))

    def open_column(self, sealed: Any, column: Any) -> Any:
        self.count(self.opened(column[1]))
        return self.opened(column[1])

    def plain(self, opened: Any) -> list[bytes]:
        return sorted(bytes(row[0]) for row in opened.collect())

    def sealed_len(self, sealed: Any) -> int:
        return int(sealed)

    def cpu(self) -> float:
        """That of this process and of the JVM, which is the executor."""
        # Behind the name, which may hold anything: state, parent, …, utime, stime.
        parts = Path(f"/proc/{self.jvm}/stat").read_text().rpartition(")")[2].split()
        return super().cpu() + sum(map(int, parts[11:13])) / TICKS

    def peak_memory(self) -> int:
        return super().peak_memory() + work.peak_of(self.jvm)
