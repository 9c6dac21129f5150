"""The code of each guide in docs/coming-from runs, in order, in an empty folder, with the library that it is about."""

import re
from pathlib import Path

import pytest

GUIDES = Path(__file__).parent.parent.parent / "docs" / "coming-from"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
NEEDS = {
    "aes-gcm": ["cryptography"],
    "fernet": ["cryptography", "pandas"],
    "tink": ["tink", "polars", "pyarrow"],
    "aws-encryption-sdk": ["aws_encryption_sdk", "aws_cryptographic_material_providers"],
}


def test_every_guide_is_run() -> None:
    assert {guide.stem for guide in GUIDES.glob("*.md")} == {*NEEDS, "README"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("guide", NEEDS)
def test_the_guide_runs(guide: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in NEEDS[guide]:
        pytest.importorskip(module, reason=f"docs/coming-from/{guide}.md: no package {module}")
    monkeypatch.chdir(tmp_path)
    page = GUIDES / f"{guide}.md"
    text = page.read_text(encoding="utf-8")
    names: dict[str, object] = {"__name__": "__main__"}
    found = list(BLOCK.finditer(text))
    assert len(found) >= 2
    for block in found:
        # So that a failure names the line of the page.
        line = text[: block.start(1)].count("\n")
        exec(compile("\n" * line + block[1], str(page), "exec"), names)
