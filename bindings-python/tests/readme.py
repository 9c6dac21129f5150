"""Runs the examples of README.md, in order and in one new folder, with what is installed."""

import os
import re
import tempfile
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def main() -> None:
    examples = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert examples, "README.md has no example"
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        names: dict[str, object] = {}
        for number, example in enumerate(examples, 1):
            exec(compile(example, f"README.md, example {number}", "exec"), names)
        os.chdir("/")
    print(f"{len(examples)} passed, 0 failed")


if __name__ == "__main__":
    main()
