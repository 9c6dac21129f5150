"""Rows per CPU-second that Spark seals with keyfold.spark, against its own aes_encrypt: local[2], warm, in one session.

    python benches/python/spark.py [--rows N] [--rounds N] [--assert]

Needs the wheel, pyspark, pandas, pyarrow and a Java. 10^6 rows by default; the goal is stated for 10^7 (`--rows 10000000`). CPU time is
that of the driver's JVM, which is the executor here, and of all its Python workers. Both seal the same column of record numbers of 10
bytes and read their result by a count of its bytes; reading the column itself, which both do, is measured as well and taken from
neither. They take turns.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

import keyfold
import keyfold.spark

GOAL, LEAST = 5.0, 3.0
POLICY = 'version = 1\n[fields."patient.mrn"]\nrow_binding = "none"\ncolumns = ["mrn"]\n'
TICKS = os.sysconf("SC_CLK_TCK")


def processes() -> dict[int, tuple[int, int]]:
    """Parent and CPU ticks of each process; what a child that has ended took is in its parent's."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                # Behind the name, which may hold anything: state, parent, …, utime, stime, those of ended children.
                parts = (folder / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            found[int(folder.name)] = (int(parts[1]), sum(map(int, parts[11:15])))
    return found


def family(root: int, found: dict[int, tuple[int, int]] | None = None) -> set[int]:
    """The process `root` and all below it."""
    found = processes() if found is None else found
    members, grown = {root}, True
    while grown:
        grown = False
        for pid, (parent, _) in found.items():
            if parent in members and pid not in members:
                members.add(pid)
                grown = True
    return members


def cpu_seconds(root: int) -> float:
    """CPU time of the process `root` and all below it."""
    found = processes()
    return sum(found[pid][1] for pid in family(root, found) if pid in found) / TICKS


def read(frame: DataFrame) -> int:
    """Reads every value of the column `mrn`."""
    total: int = frame.select(f.sum(f.length("mrn"))).first()[0]
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm-rounds", type=int, default=2, help="rounds before, in which the JVM compiles")
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--assert", dest="asserts", action="store_true", help=f"fail below {LEAST:g} times")
    options = parser.parse_args()
    os.environ["PYSPARK_PYTHON"] = sys.executable
    with tempfile.TemporaryDirectory() as folder:
        policy = Path(folder) / "policy.toml"
        policy.write_text(POLICY)
        config = keyfold.Config(keyfold.init(Path(folder) / "ring"), [policy])
        with config.open() as ring:  # makes no scope: the data key is there
            ring.field("patient.mrn").encrypt(b"MRN0000000")
        builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").config("spark.log.level", "OFF")
        builder = builder.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
        session = builder.config("spark.driver.memory", "1g").getOrCreate()
        try:
            missed = measure(session, config, Path(folder), options)
        finally:
            session.stop()
    return 1 if missed and options.asserts else 0


def measure(session: SparkSession, config: keyfold.Config, folder: Path, options: argparse.Namespace) -> bool:
    numbers = session.range(0, options.rows, numPartitions=options.partitions)
    numbers.select(f.format_string("MRN%07d", "id").cast("binary").alias("mrn")).write.parquet(str(folder / "mrns"))
    column = session.read.parquet(str(folder / "mrns"))
    key = f.lit(os.urandom(32))
    built_in = column.select(f.aes_encrypt("mrn", key, f.lit("GCM"), f.lit("DEFAULT"), f.lit(b""), f.lit(b"patient.mrn")).alias("mrn"))
    work: dict[str, Callable[[], int]] = {
        "read alone": lambda: read(column),
        "aes_encrypt": lambda: read(built_in),
        "keyfold": lambda: read(keyfold.spark.encrypt(column, {"mrn": "patient.mrn"}, config)),
    }
    jvm = session.sparkContext._gateway.proc.pid
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for round_number in range(options.warm_rounds + options.rounds):
        for name in work if round_number % 2 == 0 else reversed(work):
            start = cpu_seconds(jvm)
            total = work[name]()
            if round_number >= options.warm_rounds:
                seconds[name].append(cpu_seconds(jvm) - start)
            if total < 10 * options.rows:
                raise SystemExit(f"{name} did not work on every row")
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"load average {os.getloadavg()[0]:.1f}; {options.rows:,} rows in {options.partitions} partitions, {options.rounds} warm rounds")
    for name, median in medians.items():
        spread = f"{min(seconds[name]):.2f} to {max(seconds[name]):.2f}"
        print(f"{name:12} {median:6.2f} CPU s ({spread})  {options.rows / median:>12,.0f} rows per CPU second")
    ratio = medians["aes_encrypt"] / medians["keyfold"]
    print(f"keyfold: {ratio:.2f} times the rows per CPU second of aes_encrypt (goal {GOAL:g}, at least {LEAST:g})")
    return ratio < LEAST


if __name__ == "__main__":
    sys.exit(main())
