"""Long columns: memory, the GIL, Ctrl-C, threads, and how little is asked of the caller's copy."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

import numpy as np
import pyarrow as pa
import pytest

import keyfold

ROWS = 1_000_000
OVERHEAD = 64 * 1024 * 1024


def record_numbers(rows: int) -> pa.Array:
    """Numbers of 10 digits, made without a peak of memory."""
    digits = np.full((rows, 10), ord("0"), dtype=np.uint8)
    rest = np.arange(rows, dtype=np.int64)
    for place in range(9, 2, -1):
        digits[:, place] += (rest % 10).astype(np.uint8)
        rest //= 10
    offsets = np.arange(0, 10 * rows + 1, 10, dtype=np.int32)
    return pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(digits))


def memory(name: str) -> int:
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith(name))
    return int(line.split()[1]) * 1024


def report_peaks(config: str, policy: str, kind: str) -> None:
    """Prints by how much memory rose above output and start, while a column was sealed and while it was opened."""
    with keyfold.Keyring.open(config, policies=[policy]) as ring:
        field = ring.field("mrn" if kind == "dictionary" else "any")
        column = record_numbers(3 * ROWS if kind == "dictionary" else 2 * ROWS)
        if kind == "dictionary":
            column = pa.DictionaryArray.from_arrays(pa.array(np.arange(len(column), dtype=np.int32)), column)
        else:
            column = column.cast(kind)
        field.encrypt_column(column[:10])
        for work in (field.encrypt_column, field.decrypt_column):
            with open("/proc/self/clear_refs", "w", encoding="ascii") as clear:
                clear.write("5")
            before = memory("VmRSS")
            given, column = column, work(column)
            print(memory("VmHWM") - before - column.nbytes, given.nbytes, column.nbytes)


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "dictionary"])
def test_memory_rises_by_little_more_than_the_output(config: keyfold.Config, kind: str) -> None:
    code = f"import test_arrow_batches as t; t.report_peaks({str(config.path)!r}, {str(config.policies[0])!r}, {kind!r})"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=os.path.dirname(__file__))
    for line in run.stdout.splitlines():
        extra, given, made = map(int, line.split())
        # More than either array, so that a copy of one would show.
        assert max(given, made) > OVERHEAD
        assert extra < OVERHEAD, run.stdout
    assert len(run.stdout.splitlines()) == 2


FEW_ROWS_OF_A_LONG_DICTIONARY = """
import sys, resource, pyarrow as pa, keyfold
ring = keyfold.Keyring.open(sys.argv[1], policies=[sys.argv[2]])
mrn, field = ring.field("mrn"), ring.field("any")
mrn.encrypt("x")
field.encrypt("x")
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
nulls = pa.nulls(2**31 - 1)
sealed = mrn.encrypt_column(pa.DictionaryArray.from_arrays(pa.array([0, None], pa.int8()), nulls))
assert sealed.to_pylist() == [None, None], sealed
try:
    field.encrypt_column(nulls)
except keyfold.InvalidInput as error:
    assert error.kind == "LimitExceeded", error.kind
else:
    raise SystemExit("sealed")
"""


# Failure K11
def test_memory_that_is_not_there_is_an_error(config: keyfold.Config) -> None:
    arguments = [sys.executable, "-c", FEW_ROWS_OF_A_LONG_DICTIONARY, str(config.path), str(config.policies[0])]
    run = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")


# Failure F8
def test_others_run_meanwhile(ring: keyfold.Keyring) -> None:
    field, column = ring.field("any"), record_numbers(ROWS)
    done, longest = threading.Event(), 0.0

    def run() -> None:
        nonlocal longest
        last = time.perf_counter()
        while not done.is_set():
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for work in (field.encrypt_column, field.decrypt_column):
            longest, start = 0.0, time.perf_counter()
            column = work(column)
            assert longest < (time.perf_counter() - start) * 0.7
    finally:
        done.set()
        thread.join()


class Stop(Exception):
    pass


# Failure F12
def test_a_signal_ends_a_long_column(ring: keyfold.Keyring) -> None:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise Stop

    field, column = ring.field("any"), record_numbers(ROWS)
    before = signal.signal(signal.SIGVTALRM, stop)
    try:
        for work in (field.encrypt_column, field.decrypt_column):
            start = time.process_time()
            whole = work(column)
            took = time.process_time() - start
            start = time.process_time()
            # By CPU time of this process, so that others on the machine do not matter.
            signal.setitimer(signal.ITIMER_VIRTUAL, took / 20)
            with pytest.raises(Stop):
                work(column)
            assert time.process_time() - start < took / 2
            assert work(column[:3])[0].is_valid
            column = whole
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def test_threads_share_a_field(ring: keyfold.Keyring) -> None:
    field, column = ring.field("any"), record_numbers(20_000)

    def both(part: int) -> list[bytes]:
        given = column.slice(part * 1000, 1000)
        sealed = field.encrypt_column(given)
        assert field.decrypt_column(sealed).equals(given)
        return [value[:43] for value in sealed.to_pylist()]

    with ThreadPoolExecutor(8) as pool:
        heads = [head for part in pool.map(both, range(20)) for head in part]
    assert len(set(heads)) == 20_000, "a nonce was repeated"


def test_a_child_after_a_fork_repeats_no_nonce(ring: keyfold.Keyring) -> None:
    field, column = ring.field("any"), record_numbers(5000)
    heads = {value[:43] for value in field.encrypt_column(column).to_pylist()}
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        sealed = field.encrypt_column(column)
        assert field.decrypt_column(sealed).equals(column)
        with os.fdopen(writer, "wb") as out:
            out.write(b"".join(value[:43] for value in sealed.to_pylist()))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as given:
        data = given.read()
    assert os.waitpid(pid, 0)[1] == 0
    childs = {data[at : at + 43] for at in range(0, len(data), 43)}
    heads |= {value[:43] for value in field.encrypt_column(column).to_pylist()}
    assert len(childs) == 5000
    assert len(heads) == 10_000
    assert not heads & childs
