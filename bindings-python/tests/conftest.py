"""A keyring per test session, in a folder of its own, and the policy of its fields."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import keyfold

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

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
[fields.dose]
row_binding = "none"
type = "decimal"
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


@pytest.fixture(scope="session")
def spark() -> "Iterator[SparkSession]":
    """One session for all tests: it takes seconds to start."""
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    builder = SparkSession.builder.master("local[2]").appName("keyfold").config("spark.ui.enabled", "false")
    builder = builder.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
    builder = builder.config("spark.sql.shuffle.partitions", "2").config("spark.log.level", "OFF")
    session = builder.getOrCreate()
    yield session
    session.stop()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also what takes longer")
