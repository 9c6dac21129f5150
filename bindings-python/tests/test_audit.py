"""What is done with keys is recorded, and a changed record is noticed."""

import shutil
from pathlib import Path

import pytest

import keyfold


def test_a_trail_is_verified(own_config: keyfold.Config, tmp_path: Path) -> None:
    with pytest.raises(keyfold.ConfigurationError):
        keyfold.verify_audit(own_config.path)
    keyfold.init(tmp_path / "another")
    shutil.copy(tmp_path / "another" / "local.kek", own_config.path.parent / "audit.kek")
    with own_config.path.open("a") as file:
        file.write('[keks.audit]\nuri = "local:audit.kek"\nwraps = "audit"\n[audit]\nfile = "audit.jsonl"\nkek = "audit"\n')
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
