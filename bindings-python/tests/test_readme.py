"""The examples of README.md that need other libraries, after the others; readme.py runs those with nothing else installed."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def test_the_examples_with_columns_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```(python|py)\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert [kind for kind, _ in examples].count("py") > 0
    names: dict[str, object] = {}
    for number, (_, example) in enumerate(examples, 1):
        exec(compile(example, f"README.md, example {number}", "exec"), names)
