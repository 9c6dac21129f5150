"""What is done with keys is recorded, and a changed record is noticed."""

import concurrent.futures
import json
import multiprocessing
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pytest

import keyfold


@pytest.fixture
def audited(own_config: keyfold.Config, tmp_path: Path) -> keyfold.Config:
    """The configuration of a keyring with a trail."""
    keyfold.init(tmp_path / "another")
    shutil.copy(tmp_path / "another" / "local.kek", own_config.path.parent / "audit.kek")
    with own_config.path.open("a") as file:
        file.write('[keks.audit]\nuri = "local:audit.kek"\nwraps = "audit"\n[audit]\nfile = "audit.jsonl"\nkek = "audit"\n')
    return own_config


def counts(config: keyfold.Config) -> Counter[str]:
    """What the trail counts of the uses of keys."""
    found: Counter[str] = Counter()
    for file in config.path.parent.glob("audit*.jsonl"):
        for line in file.read_text().splitlines():
            event = json.loads(line)
            if event.get("action") == "use":
                found.update({name: int(n) for name, n in event["details"].items()})
    return found


def test_without_a_trail_there_is_nothing_to_verify(config: keyfold.Config) -> None:
    with pytest.raises(keyfold.ConfigurationError):
        keyfold.verify_audit(config.path)


@pytest.mark.parametrize("mode", ["raise", "null"])
def test_each_failure_is_counted_once(audited: keyfold.Config, mode: Literal["raise", "null"]) -> None:
    with audited.open() as ring:
        field = ring.field("any")
        sealed = field.encrypt_many(["a", "b", "c", "d"])
        damaged = [value and value[:-1] + bytes([value[-1] ^ (row in (1, 3))]) for row, value in enumerate(sealed)]
        calls: list[Callable[[], object]] = [
            lambda: field.decrypt_many(damaged, on_error=mode),
            lambda: field.decrypt_column(pa.array(damaged), on_error=mode),
            lambda: ring.field("dose").encrypt_column(pa.array(["1.5", "x", "2", "y"]), on_error=mode, errors=[]),
        ]
        for call in calls:
            if mode == "null":
                call()
            else:
                with pytest.raises((keyfold.DecryptionFailed, keyfold.InvalidInput)):
                    call()
    found = counts(audited)
    # Where the first failure is raised, nothing is known of the values after it.
    expected = {"DecryptionFailed": 4, "InvalidInput": 2} if mode == "null" else {"DecryptionFailed": 2, "InvalidInput": 1}
    expected |= {"sealed": 6, "opened": 4} if mode == "null" else {"sealed": 4}
    assert found == expected


def test_refresh_keeps_the_interval(audited: keyfold.Config) -> None:
    with audited.path.open("a") as file:
        file.write('interval = "1s"\n')
    with audited.open() as ring:
        field = ring.field("any")
        field.decrypt(field.encrypt(1))
        time.sleep(1.1)
        assert counts(audited) == {}
        ring.refresh()
        assert counts(audited) == {"sealed": 1, "opened": 1}
    with pytest.raises(keyfold.KeyfoldError) as closed:
        ring.refresh()
    assert closed.value.kind == "Closed"


_shared: keyfold.Field


def _open_many(sealed: list[bytes | None]) -> int:
    return len(_shared.decrypt_many(sealed))


def _keep_that_of_the_parent(_: keyfold.Config) -> None:
    pass


def _open_own(config: keyfold.Config) -> None:
    global _shared
    _shared = config.open().field("any")


# Failure F11
@pytest.mark.parametrize("how", ["fork", "own", "forkserver", "spawn"])
def test_children_are_in_the_trail_and_what_their_parent_counted_is_there_once(audited: keyfold.Config, how: str) -> None:
    global _shared
    context: Any = multiprocessing.get_context("fork" if how == "own" else how)
    initializer = _keep_that_of_the_parent if how == "fork" else _open_own
    with audited.open() as ring:
        _shared = ring.field("any")
        sealed = _shared.encrypt_many(range(100))
        with concurrent.futures.ProcessPoolExecutor(3, context, initializer, (audited,)) as workers:
            assert list(workers.map(_open_many, [sealed] * 6)) == [100] * 6
        pool = context.Pool(2, initializer, (audited,))
        assert pool.map(_open_many, [sealed] * 4) == [100] * 4
        pool.close()
        pool.join()
        if how == "fork":
            process = context.Process(target=_open_many, args=(sealed,))
            process.start()
            process.join()
        # What is not ended in such a way is not recorded.
        child = os.fork()
        if child == 0:
            _shared.decrypt_many(sealed)
            os._exit(0)
        os.waitpid(child, 0)
    assert counts(audited) == {"sealed": 100, "opened": 1100 if how == "fork" else 1000}
    assert keyfold.verify_audit(audited.path).clean


def test_a_trail_is_verified(audited: keyfold.Config) -> None:
    own_config = audited
    with own_config.open() as ring:
        ring.field("any").encrypt(1)
        ring.rotate()
    report = keyfold.verify_audit(own_config.path)
    assert report.clean and report.authenticated and report.findings == [] and report.lost == 0
    assert report.events > 3
    (trail,) = own_config.path.parent.glob("audit*.jsonl")
    text = trail.read_text()
    assert "active" in text
    trail.write_text(text.replace("active", "actife", 1))
    report = keyfold.verify_audit(own_config.path)
    assert not report.clean and report.findings


def test_what_somebody_puts_into_the_folder_of_the_trail_neither_panics_nor_waits(audited: keyfold.Config) -> None:
    with audited.open() as ring:
        ring.field("any").encrypt(1)
    (trail,) = audited.path.parent.glob("audit*.jsonl")
    good = trail.read_bytes()
    trail.write_bytes(good + b" " * (64 << 20) + b"\n")
    report = keyfold.verify_audit(audited.path)
    assert not report.clean and len(report.findings) == 1 and "no-line" in report.findings[0]
    trail.write_bytes(good)
    pipe = trail.with_name(trail.name + ".000009")
    os.mkfifo(pipe)
    with pytest.raises(keyfold.StoreError, match="not a regular file"):
        keyfold.verify_audit(audited.path)
    pipe.unlink()
    assert keyfold.verify_audit(audited.path).clean
