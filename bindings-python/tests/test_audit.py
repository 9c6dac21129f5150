"""What is done with keys is recorded, and a changed record is noticed."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal

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
