"""A keyring per test session, in a folder of its own."""

from pathlib import Path

import pytest

import keyfold

POLICY = """\
version = 1
[fields."patient.ssn"]
identifier = "G"
row_binding = "patient_id"
columns = ["ssn"]
[fields."patient.note"]
row_binding = "none"
columns = ["note"]
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keyfold") / "ring"
    keyfold.init(folder)
    (folder / "policy.toml").write_text(POLICY)
    return folder


@pytest.fixture
def ring(folder: Path) -> keyfold.Keyring:
    return keyfold.Keyring.open(folder / "keyfold.toml", policies=[folder / "policy.toml"])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also what takes longer")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        for item in items:
            if "long" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="takes longer; ./test --long runs it"))
