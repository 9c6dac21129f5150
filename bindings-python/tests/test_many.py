"""Lists of values."""

import signal
import threading
import time
from collections.abc import Iterator

import pytest

import keyfold


def test_more_than_a_chunk_comes_back_in_order(ring: keyfold.Keyring) -> None:
    ssn = ring.field("patient.ssn")
    values = [None if i % 7 == 0 else f"{i}" for i in range(40_000)]
    rows = [f"p-{i}" for i in range(40_000)]
    sealed = ssn.encrypt_many(values, rows=rows)
    assert [value is None for value in sealed] == [value is None for value in values]
    assert ssn.decrypt_many(sealed, rows=iter(rows)) == values
    assert ssn.encrypt_many([], rows=[]) == [] and ssn.decrypt_many(iter([])) == []
    assert ssn.encrypt_many([None, None]) == [None, None] == ssn.decrypt_many([None, None])
    last = sealed[-1]
    assert last is not None and ssn.decrypt(last, row=rows[-1]) == values[-1]


def test_rows_and_values_have_one_number(ring: keyfold.Keyring) -> None:
    ssn = ring.field("patient.ssn")
    for rows in ([], ["p"], ["p", "q", "r"]):
        with pytest.raises(keyfold.InvalidInput):
            ssn.encrypt_many(["x", "y"], rows=rows)


def test_the_first_wrong_value_raises_and_nothing_is_returned(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    with pytest.raises(TypeError) as wrong:
        field.encrypt_many([1, 2, object()])  # type: ignore[list-item]
    assert wrong.value.__notes__ == ["in row 2"]
    sealed = field.encrypt_many(range(20_000))
    sealed[17_000], sealed[18_000] = sealed[18_000], b"\xf1 no value"
    with pytest.raises(keyfold.FormatError) as first:
        field.decrypt_many(sealed)
    assert first.value.row == 18_000


def test_wrong_values_may_become_null(ring: keyfold.Keyring, own_config: keyfold.Config) -> None:
    ssn = ring.field("patient.ssn")
    rows = [f"p-{i}" for i in range(20_000)]
    sealed: list[bytes | str | None] = list(ssn.encrypt_many(range(20_000), rows=rows))
    with own_config.open() as other:
        foreign = other.field("patient.ssn").encrypt(0, row="p-3")
    sealed[0], sealed[1], sealed[2], sealed[3], sealed[19_999] = sealed[1], sealed[0], "kf1.", foreign, None
    errors: list[keyfold.KeyfoldError] = []
    opened = ssn.decrypt_many(sealed, rows=rows, on_error="null", errors=errors)
    assert opened == [None, None, None, None, *range(4, 19_999), None]
    found = sorted((error.row, error.kind) for error in errors)
    assert found == [(0, "DecryptionFailed"), (1, "DecryptionFailed"), (2, "Malformed"), (3, "NoMatchingKey")]
    assert opened == ssn.decrypt_many(sealed, rows=rows, on_error="null")
    with pytest.raises(keyfold.InvalidInput):
        ssn.decrypt_many(sealed, rows=rows, on_error="ignore")  # type: ignore[arg-type]


def test_an_error_of_the_callers_iterator_is_his(ring: keyfold.Keyring) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        ring.field("any").encrypt_many(broken())


# Failure F12
def test_ctrl_c_ends_a_long_call_and_the_keyring_goes_on(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    values = [b"x" * 1000] * 1_000_000
    start = time.monotonic()
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        field.encrypt_many(values)
    assert time.monotonic() - start < 1.5
    assert field.decrypt(field.encrypt(1)) == 1


# Failure F8
def test_other_threads_go_on_during_a_long_call(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    values = [b"x" * 2**20] * 128
    field.encrypt(0)
    took: list[float] = []

    def call() -> None:
        start = time.perf_counter()
        field.encrypt_many(values)
        took.append(time.perf_counter() - start)

    worker = threading.Thread(target=call)
    # From before it starts, since it could begin by keeping the GIL.
    longest, before, ended = 0.0, time.perf_counter(), False
    worker.start()
    while not ended:
        ended, now = bool(took), time.perf_counter()
        longest, before = max(longest, now - before), now
    worker.join()
    # With the GIL held this thread would stand still for nearly all of the call.
    assert longest < took[0] / 2, (longest, took)


def test_32_threads_share_one_keyring(ring: keyfold.Keyring) -> None:
    ssn = ring.field("patient.ssn")
    sealed: list[list[bytes]] = [[] for _ in range(32)]
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for i in range(200):
                value = ssn.encrypt(i, row=f"{number}")
                assert ssn.decrypt(value, row=f"{number}") == i
                sealed[number].append(value)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    nonces = {value[26:50] for values in sealed for value in values}
    assert len(nonces) == 32 * 200
