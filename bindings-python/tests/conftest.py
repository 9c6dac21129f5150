"""A keyring per test session, in a folder of its own, and the policy of its fields."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import keyfold

POLICY = """\
version = 1
[fields."patient.ssn"]
identifier = "G"
row_binding = "patient_id"
columns = ["ssn"]
[fields.any]
row_binding = "none"
[fields.tenant]
row_binding = "none"
required_context = ["tenant"]
[fields.number]
row_binding = "none"
type = "integer"
[fields.document]
row_binding = "none"
type = "json"
[fields.mrn]
mode = "deterministic"
type = "text"
"""


def make_ring(folder: Path) -> keyfold.Config:
    config = keyfold.init(folder)
    policy = folder / "policy.toml"
    policy.write_text(POLICY)
    return keyfold.Config(config, [policy])


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> keyfold.Config:
    return make_ring(tmp_path_factory.mktemp("keyfold") / "ring")


@pytest.fixture
def own_config(tmp_path: Path) -> keyfold.Config:
    """Of a keyring that the test may change."""
    return make_ring(tmp_path / "ring")


@pytest.fixture
def ring(config: keyfold.Config) -> Iterator[keyfold.Keyring]:
    with config.open() as ring:
        yield ring


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also what takes longer")
