"""The code of docs/python.md runs, in order and in an empty folder; so does the example of a FHIR export."""

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import keyfold

ROOT = Path(__file__).parent.parent.parent
# With its indentation, that of a list.
BLOCK = re.compile(r"^( *)```python([^\n]*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)


def blocks() -> list[tuple[int, str, str]]:
    """The blocks of the page: line, what is said of them behind `python`, code."""
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    return [(text[: found.start(3)].count("\n") + 1, found[2].strip(), found[3]) for found in BLOCK.finditer(text)]


def run(found: list[tuple[int, str, str]]) -> None:
    names: dict[str, object] = {"__name__": "__main__"}
    for line, _, code in found:
        # So that a failure names the line of the page.
        exec(compile("\n" * (line - 1) + code, str(ROOT / "docs" / "python.md"), "exec"), names)


def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plain = [block for block in blocks() if block[1] == ""]
    assert len(plain) >= 8
    run(plain)


@pytest.mark.skipif(shutil.which("java") is None, reason="the part on Spark: no java on the PATH")
def test_the_tutorial_runs_with_spark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("spark")
    monkeypatch.chdir(tmp_path)
    assert {block[1] for block in blocks()} == {"", "spark", "no-run"}
    run([block for block in blocks() if block[1] != "no-run"])


def test_the_example_of_a_fhir_export(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "fhir_join.py"), str(tmp_path / "work")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "joined" in ended.stdout
    for arguments, why in (([], "usage"), ([str(tmp_path / "work")], "made anew each time")):
        ended = subprocess.run([*command[:2], *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 1 and why in ended.stderr and "Traceback" not in ended.stderr


def test_help_has_the_manual() -> None:
    from keyfold import _native

    public = [getattr(_native, name) for name in dir(_native) if not name.startswith("_")]
    parts = [(thing, name) for thing in public if isinstance(thing, type) for name in vars(thing) if not name.startswith("_")]
    empty = [f"{thing.__name__}.{name}" for thing, name in parts if not getattr(thing, name).__doc__]
    empty += [thing.__name__ for thing in public if not thing.__doc__]
    assert not empty
    assert "Raises:" in (keyfold.Field.encrypt.__doc__ or "")
    assert list(inspect.signature(keyfold.Field.decrypt).parameters) == ["self", "sealed", "row"]
