"""What the same Spark job costs by rows and by partitions: requests to the key service, CPU time and memory, with keyfold.spark on local[2].

    python benches/python/spark_scale.py [--rows N ...] [--partitions N ...] [--rounds N] [--assert]

Needs the wheel, pyspark, pandas, pyarrow and a Java. 10^5, 10^6 and 10^7 rows in 1, 2, 4 and 8 partitions by default. The job makes record numbers of 13 bytes, seals
them, opens what was sealed, and reads every result. Each job has a Spark context of its own in one warm JVM, so Python workers that must ask for their keys. CPU time is
that of the JVM and all Python workers; what the same job takes for 1,000 rows is what starting takes, and is shown beside it. Memory is the largest peak (VmHWM) of a
Python worker. Requests are counted by the key service, which is a class in the worker (`host:` KEK) that writes a line for each.
"""

import argparse
import contextlib
import os
import random
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from pyspark.sql import SparkSession
from pyspark.sql import functions as f
from spark import cpu_seconds, family, read

import keyfold
import keyfold.spark

POLICY = 'version = 1\n[fields."patient.mrn"]\nrow_binding = "none"\ncolumns = ["mrn"]\n'
FEW = 1_000
# A worker opens the keyring once, and local[2] has two at a time for each of the two stages in a job.
MOST_REQUESTS = 4
# Above the smallest of all sizes: what a row may cost more, and by how much a worker may be larger.
MOST_CPU, MOST_MEMORY = 1.5, 1.25
SERVICE = """
import os
from pathlib import Path
import keyfold

FOLDER = Path({folder!r})

class Service:
    def wrap(self, payload, context, /):
        return payload

    def unwrap(self, wrapped, context, version, /):
        with open(FOLDER / "requests", "a") as log:
            log.write("asked\\n")
        return wrapped

def open_ring():
    return keyfold.Config(FOLDER / "ring" / "keyfold.toml", [FOLDER / "policy.toml"]).open(host_keks={{"ward": Service()}})
"""


class Cost(NamedTuple):
    """Of one job: CPU seconds, requests to the key service, bytes of the largest worker at its peak."""

    cpu: float
    requests: int
    memory: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--partitions", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--assert", dest="asserts", action="store_true", help="fail where requests, time or memory per row grow")
    options = parser.parse_args()
    os.environ["PYSPARK_PYTHON"] = sys.executable
    with tempfile.TemporaryDirectory() as folder:
        failed = measure(Job(prepare(Path(folder))), options)
    return 1 if failed and options.asserts else 0


def prepare(folder: Path) -> Any:
    """A keyring whose KEK is the counting service, with a data key, and the module that opens it."""
    (folder / "policy.toml").write_text(POLICY)
    (folder / "counting_service.py").write_text(SERVICE.format(folder=str(folder)))
    sys.path.insert(0, str(folder))
    import counting_service

    path = keyfold.init(folder / "ring")
    with_both = path.read_text() + '[keks.ward]\nuri = "host:ward"\n'
    path.write_text(with_both)
    with counting_service.open_ring() as ring:
        ring.field("patient.mrn").encrypt(b"MRN0000000000")
        ring.repair()
    path.write_text(with_both.replace('[keks.local]\nuri = "local:local.kek"', ""))
    return counting_service


class Job:
    """The job, each time in a new context, whose workers have no keys yet."""

    def __init__(self, service: Any) -> None:
        self.service = service
        self.log = service.FOLDER / "requests"

    def run(self, rows: int, partitions: int) -> Cost:
        builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").config("spark.ui.showConsoleProgress", "false").config("spark.log.level", "OFF")
        builder = builder.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
        session = builder.config("spark.driver.memory", "1g").getOrCreate()
        try:
            session.sparkContext.addPyFile(self.service.__file__)
            self.log.write_text("")
            jvm = session.sparkContext._gateway.proc.pid
            number = f.lpad(f.col("id").cast("string"), 10, "0")
            numbers = session.range(0, rows, numPartitions=partitions).select(f.concat(f.lit("MRN"), number).alias("mrn"))
            fields = {"mrn": "patient.mrn"}
            opened = keyfold.spark.decrypt(keyfold.spark.encrypt(numbers, fields, self.service.open_ring), fields, self.service.open_ring)
            begun = cpu_seconds(jvm)
            if read(opened) != 13 * rows:
                raise SystemExit("the job did not work on every row")
            return Cost(cpu_seconds(jvm) - begun, len(self.log.read_text().split()), largest_worker(jvm))
        finally:
            session.stop()


def largest_worker(jvm: int) -> int:
    """The largest peak of memory among the Python processes below the JVM, in bytes."""
    peaks = []
    for pid in family(jvm) - {jvm}:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            said = (Path("/proc") / str(pid) / "status").read_text()
            peaks += [int(line.split()[1]) * 1024 for line in said.splitlines() if line.startswith("VmHWM")]
    return max(peaks)


def measure(job: Job, options: argparse.Namespace) -> bool:
    for _ in range(3):
        job.run(1_000_000, 2)  # the JVM compiles
    sizes = [(rows, partitions) for rows in [FEW, *options.rows] for partitions in options.partitions]
    costs: dict[tuple[int, int], list[Cost]] = {size: [] for size in sizes}
    shuffle = random.Random(20261126)
    for _ in range(options.rounds):
        for size in shuffle.sample(sizes, len(sizes)):
            costs[size].append(job.run(*size))
    found = {
        size: Cost(
            statistics.median(cost.cpu for cost in runs), max(cost.requests for cost in runs), max(cost.memory for cost in runs)
        )
        for size, runs in costs.items()
    }
    print(f"load average {os.getloadavg()[0]:.1f}, medians of {options.rounds} rounds of CPU time")
    print("| rows | partitions | requests | CPU s | µs per row above a job of 1,000 | largest worker, MB |\n|---|---|---|---|---|---|")
    per_row = {}
    for (rows, partitions), cost in found.items():
        per_row[rows, partitions] = (cost.cpu - found[FEW, partitions].cpu) / rows * 1e6
        more = f"{per_row[rows, partitions]:.2f}" if rows != FEW else ""
        print(f"| {rows:,} | {partitions} | {cost.requests} | {cost.cpu:.2f} | {more} | {cost.memory / 1e6:.0f} |")
    million = [size for size in sizes if size[0] >= 1_000_000]  # in less than that, what starting takes is most of it
    times, memory = [per_row[size] for size in million], [found[size].memory for size in million]
    requests = max(cost.requests for cost in found.values())
    grow = max(times) / min(times) if times else 1
    larger = max(memory) / min(memory) if memory else 1
    print(f"requests at most {requests} (goal {MOST_REQUESTS}); from 10^6 rows on: per row at most {grow:.2f} times the least (goal {MOST_CPU}), worker {larger:.2f} (goal {MOST_MEMORY})")
    return requests > MOST_REQUESTS or grow > MOST_CPU or larger > MOST_MEMORY


if __name__ == "__main__":
    sys.exit(main())
