"""DataFrames of Spark, on two cores of this machine. One session for all tests."""

import datetime
import os
import shutil
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

import keyfold

if shutil.which("java") is None:
    pytest.skip("tests of Spark: no java on the PATH", allow_module_level=True)

import keyfold.spark
from pyspark.errors import PythonException
from pyspark.sql import DataFrame, SparkSession

ROWS = 600
PARTITIONS = 4
FIELDS = {"ssn": "patient.ssn", "age": "number", "seen": "any"}
TYPES = {"age": "long", "seen": "date"}


@pytest.fixture(scope="session")
def patients(spark: SparkSession) -> DataFrame:
    day = datetime.date(2026, 1, 1)
    rows = [
        (f"p-{n}", None if n % 7 == 0 else f"999-{n:06}", n % 90, day + datetime.timedelta(n), "left in clear")
        for n in range(ROWS)
    ]
    schema = "patient_id string, ssn string, age long, seen date, note string"
    return spark.createDataFrame(rows, schema).repartition(PARTITIONS).cache()


def content(frame: DataFrame) -> list[Any]:
    return sorted(frame.collect())


def test_frames_are_sealed_and_opened_on_executors(
    patients: DataFrame, config: keyfold.Config, ring: keyfold.Keyring
) -> None:
    sealed = keyfold.spark.encrypt(patients, FIELDS, config, row="patient_id")
    assert [(name, kind) for name, kind in sealed.dtypes if name in FIELDS] == [(name, "binary") for name in FIELDS]
    rows = sealed.collect()
    assert len(rows) == ROWS and {row["note"] for row in rows} == {"left in clear"}
    by_id = {row["patient_id"]: row for row in rows}
    assert by_id["p-7"]["ssn"] is None
    assert ring.field("patient.ssn").decrypt(bytes(by_id["p-8"]["ssn"]), row="p-8") == "999-000008"
    opened = keyfold.spark.decrypt(sealed, FIELDS, config, row="patient_id", types=TYPES)
    assert opened.schema == patients.schema
    assert content(opened) == content(patients)


def test_a_value_of_another_row_fails_the_job_or_is_reported(patients: DataFrame, config: keyfold.Config) -> None:
    from pyspark.sql import functions as f

    fields = {"ssn": "patient.ssn"}
    sealed = keyfold.spark.encrypt(patients, fields, config, row="patient_id")
    moved = sealed.withColumn("patient_id", f.when(f.col("patient_id") == "p-8", "p-9").otherwise(f.col("patient_id")))
    with pytest.raises(PythonException) as raised:
        keyfold.spark.decrypt(moved, fields, config, row="patient_id").collect()
    assert "DecryptionFailed" in str(raised.value)
    assert "999-" not in str(raised.value) and "p-8" not in str(raised.value)
    opened = keyfold.spark.decrypt(moved, fields, config, row="patient_id", errors="failed").collect()
    failed = [(row["patient_id"], row["ssn"], row["failed"]) for row in opened if row["failed"] is not None]
    assert failed == [("p-9", None, "ssn: DecryptionFailed")]
    assert sum(row["ssn"] is not None for row in opened) == ROWS - (ROWS + 6) // 7 - 1


def test_rows_may_be_sealed_themselves(patients: DataFrame, config: keyfold.Config) -> None:
    fields = {"patient_id": "mrn", "ssn": "patient.ssn"}
    sealed = keyfold.spark.encrypt(patients, fields, config, row="patient_id")
    assert content(keyfold.spark.decrypt(sealed, fields, config, row="patient_id")) == content(patients)


def test_rows_that_do_not_open_are_reported_too(patients: DataFrame, config: keyfold.Config) -> None:
    from pyspark.sql import functions as f

    fields = {"patient_id": "mrn", "ssn": "patient.ssn"}
    some = patients.where("patient_id in ('p-8', 'p-9', 'p-10')").select("patient_id", "ssn")
    sealed = keyfold.spark.encrypt(some, fields, config, row="patient_id").cache()
    first, second, _ = sorted(bytes(row["patient_id"]) for row in sealed.collect())
    damaged = f.when(f.col("patient_id").eqNullSafe(f.lit(first)), f.lit(b"damaged")).when(f.col("patient_id").eqNullSafe(f.lit(second)), f.lit(None))
    broken = sealed.withColumn("patient_id", damaged.otherwise(f.col("patient_id")))
    with pytest.raises(PythonException):
        keyfold.spark.decrypt(broken, fields, config, row="patient_id").collect()
    opened = keyfold.spark.decrypt(broken, fields, config, row="patient_id", errors="failed").collect()
    found = {(row["ssn"] is None, row["patient_id"] is None, row["failed"]) for row in opened}
    assert found == {
        (True, True, "patient_id: Malformed, ssn: InvalidInput"), (True, True, "ssn: InvalidInput"), (False, False, None),
    }  # fmt: skip


def test_cells_that_are_not_sealed_stay_as_they_are(spark: SparkSession, own_config: keyfold.Config) -> None:
    with own_config.open() as ring:
        old = ring.field("any").encrypt("x")
        ring.rotate()
        frame = spark.createDataFrame([(old,), (b"no value",), (None,)], "it binary")
        again = [row["it"] and bytes(row["it"]) for row in keyfold.spark.reencrypt(frame, {"it": "any"}, own_config).collect()]
        assert sorted(value or b"" for value in again if value in (None, b"no value")) == [b"", b"no value"]
        (new,) = [value for value in again if value not in (None, b"no value")]
        assert ring.field("any").is_current(new) and ring.field("any").decrypt(new) == "x"


COUNTING_KMS = """
import fcntl, os
from pathlib import Path
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
import keyfold

# Executors have a copy of this file elsewhere.
FOLDER = Path({folder!r})

class Service:
    \"\"\"A key service that notes each request, with the process that made it.\"\"\"
    def _key(self, context):
        return AESGCM((FOLDER / "service.key").read_bytes()), repr(sorted(context.items())).encode()
    def wrap(self, payload, context, /):
        key, bound = self._key(context)
        nonce = os.urandom(12)
        return nonce + key.encrypt(nonce, payload, bound)
    def unwrap(self, wrapped, context, version, /):
        with open(FOLDER / "requests", "a") as log:
            log.write(f"{os.getpid()}\\n")
        key, bound = self._key(context)
        return key.decrypt(wrapped[:12], wrapped[12:], bound)

def config():
    return keyfold.Config(FOLDER / "ring" / "keyfold.toml", [FOLDER / "ring" / "policy.toml"])

def open_ring():
    return config().open(host_keks={"ward": Service()})
"""


@pytest.fixture
def counting(own_config: keyfold.Config, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module that opens `own_config`, whose keys a service guards that counts its requests."""
    folder = own_config.path.parent.parent
    (folder / "counting_kms.py").write_text(COUNTING_KMS.replace("{folder!r}", repr(str(folder))))
    (folder / "service.key").write_bytes(os.urandom(32))
    monkeypatch.syspath_prepend(str(folder))
    import counting_kms  # type: ignore[import-not-found]

    with own_config.path.open("a") as file:
        file.write('[keks.ward]\nuri = "host:ward"\n')
    with counting_kms.open_ring() as ring:
        ring.repair()
    text = own_config.path.read_text().replace('[keks.local]\nuri = "local:local.kek"', "")
    own_config.path.write_text(text)
    (folder / "requests").write_text("")
    yield counting_kms
    del sys.modules["counting_kms"]


def requests(counting: Any) -> list[str]:
    asked: list[str] = (counting.FOLDER / "requests").read_text().split()
    return asked


def test_each_worker_asks_the_key_service_once(spark: SparkSession, patients: DataFrame, counting: Any) -> None:
    spark.sparkContext.addPyFile(counting.__file__)
    fields = {"ssn": "patient.ssn", "age": "number"}
    for partitions in (1, 16):
        frame = patients.select("patient_id", "ssn", "age").repartition(partitions)
        sealed = keyfold.spark.encrypt(frame, fields, counting.open_ring, row="patient_id")
        opened = keyfold.spark.decrypt(sealed, fields, counting.open_ring, row="patient_id", types={"age": "long"})
        assert opened.count() == ROWS
        asked = requests(counting)
        assert 1 <= len(asked) == len(set(asked)) <= 4, "once per worker; two cores have two at a time, of each pipeline"


def test_records_take_the_place_of_the_store(patients: DataFrame, own_config: keyfold.Config) -> None:
    with own_config.open() as ring:
        ring.field("any", scope="ward-7").encrypt(1)
        copied = own_config.with_records(ring.records())
        for name in ("keys.db", "keys.high-water"):
            (own_config.path.parent / name).rename(own_config.path.parent / f"away-{name}")
    fields = {"age": "any"}
    sealed = keyfold.spark.encrypt(patients, fields, copied, scope="ward-7")
    assert content(keyfold.spark.decrypt(sealed, fields, copied, scope="ward-7", types={"age": "long"})) == content(patients)
    with pytest.raises(PythonException, match="the key records are a copy"):
        keyfold.spark.encrypt(patients, fields, copied, scope="ward-8").collect()


def test_what_is_old_is_sealed_again_and_a_census_shows_it(
    patients: DataFrame, own_config: keyfold.Config, tmp_path: Path, spark: SparkSession
) -> None:
    path = str(tmp_path / "sealed.parquet")
    keyfold.spark.encrypt(patients, FIELDS, own_config, row="patient_id").write.parquet(path)
    sealed = spark.read.parquet(path)
    with own_config.open() as ring:
        old = {key.key_id for key in ring.keys() if key.kind == "data"}
        new = ring.rotate().key_id
        # Workers that know the keyring notice the rotation within a minute; those that get it with these records at once.
        rotated = own_config.with_records(ring.records())
    half = keyfold.spark.encrypt(patients.where("age < 45"), FIELDS, rotated, row="patient_id")
    half.write.parquet(str(tmp_path / "half.parquet"))
    mixed = sealed.where("patient_id != 'p-8'").unionByName(spark.read.parquet(str(tmp_path / "half.parquet")))

    counts = {(row["column"], row["what"], row["key_id"]): row["count"] for row in keyfold.spark.census(mixed, ["ssn"]).collect()}
    assert {key for _, what, key in counts if what == "sealed"} == {*old, new}
    assert sum(counts.values()) == mixed.count() and counts["ssn", "null", None] > 0

    again_path = str(tmp_path / "again.parquet")
    keyfold.spark.reencrypt(mixed, FIELDS, own_config, row="patient_id").write.parquet(again_path)
    again = spark.read.parquet(again_path)
    for name in FIELDS:
        found = {row["key_id"] for row in keyfold.spark.census(again, [name]).collect() if row["what"] == "sealed"}
        assert found == {new}
    opened = keyfold.spark.decrypt(again, FIELDS, own_config, row="patient_id", types=TYPES)
    assert content(opened) == content(keyfold.spark.decrypt(mixed, FIELDS, own_config, row="patient_id", types=TYPES))
    current = {bytes(row["age"]) for row in spark.read.parquet(str(tmp_path / "half.parquet")).select("age").collect()}
    assert current < {bytes(row["age"]) for row in again.select("age").collect()}, "what is current stays as it is"


def test_a_census_needs_no_keyring(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(b"\xf5 no value",), (None,), (b"clear",)], "mrn binary")
    found = {(row["what"], row["key_id"], row["generation"], row["count"]) for row in keyfold.spark.census(frame, ["mrn"]).collect()}
    assert found == {("not sealed", None, None, 2), ("null", None, None, 1)}


ROWS_OF_ALL_TYPES = "true as a, 1.5d as b, float(1.1) as c, timestamp'2024-01-01 00:00:00.5' as d, date'2024-02-29' as e, 17 as f, 'x' as g, X'00ff' as h"


def test_values_are_sealed_again_whatever_the_type_of_their_row(spark: SparkSession, own_config: keyfold.Config) -> None:
    frame = spark.sql(f"select *, 'value' as ssn from (select {ROWS_OF_ALL_TYPES})")
    module: Any = keyfold.spark
    opener = module._pickled(own_config)
    sealed = {row: keyfold.spark.encrypt(frame, {"ssn": "patient.ssn"}, own_config, row=row).toArrow() for row in "abcdefgh"}
    with own_config.open() as ring:
        ring.rotate()
        field = ring.field("patient.ssn")
        for row, table in sealed.items():
            # As on an executor.
            work = module._Work(opener, (("ssn", "patient.ssn"),), row, None, (), as_of="after the rotation")
            (again,) = module._reencrypted(work, table.to_batches())
            assert field.is_current(again.column("ssn").to_pylist()[0]), row
            assert field.decrypt_column(again.column("ssn"), rows=again.column(row)).to_pylist() == ["value"], row


def test_text_is_sealed_again_as_text(spark: SparkSession, own_config: keyfold.Config) -> None:
    with own_config.open() as ring:
        field = ring.field("patient.ssn")
        rows = [(n, keyfold.to_text(field.encrypt(f"999-{n}", row=str(n)))) for n in range(10)]
        ring.rotate()
        frame = spark.createDataFrame(rows, "id long, ssn string")
        again = keyfold.spark.reencrypt(frame, {"ssn": "patient.ssn"}, own_config, row="id").collect()
        assert len(again) == 10
        for row in again:
            assert field.is_current(row["ssn"]) and field.decrypt(row["ssn"], row=str(row["id"])) == f"999-{row['id']}"


def test_one_keyring_is_kept_however_often_it_is_opened_anew(config: keyfold.Config) -> None:
    module: Any = keyfold.spark
    opener = module._pickled(config)
    assert str(config.path) not in repr(opener)
    first = module._ring(opener, "")
    assert module._ring(module._pickled(config), "") is first
    later = module._ring(opener, "job 1")
    assert later is not first
    assert module._ring(opener, "job 1") is module._ring(opener, "") is later
    gone = weakref.ref(later)
    del first, later
    assert module._ring(opener, "job 2") is not None and gone() is None
    for number in range(40):
        # A pickle ends where it says, so these are others of the same.
        module._ring(module._Pickled(opener + bytes(number)), "")
    assert len(module._rings) <= 16


MAIN = """
def open_ring():
    return config.open()
"""


def test_a_function_of_the_main_module_can_open_the_keyring(patients: DataFrame, config: keyfold.Config) -> None:
    # As in a script or a notebook: executors have another main module.
    main: dict[str, Any] = {"__name__": "__main__", "config": config}
    exec(MAIN, main)
    sealed = keyfold.spark.encrypt(patients, {"ssn": "any"}, main["open_ring"])
    assert content(keyfold.spark.decrypt(sealed, {"ssn": "any"}, main["open_ring"])) == content(patients)


def test_columns_that_do_not_fit_are_named_before_the_job(patients: DataFrame, config: keyfold.Config) -> None:
    fields = {"ssn": "patient.ssn"}
    with pytest.raises(ValueError, match="0 columns 'snn'"):
        keyfold.spark.encrypt(patients, {"snn": "patient.ssn"}, config, row="patient_id")
    with pytest.raises(ValueError, match="not opened: age"):
        keyfold.spark.decrypt(patients, fields, config, row="patient_id", types={"age": "long"})
    with pytest.raises(ValueError, match="'note' already"):
        keyfold.spark.decrypt(patients, fields, config, row="patient_id", errors="note")


def test_plans_show_no_context(patients: DataFrame, config: keyfold.Config, capsys: pytest.CaptureFixture[str]) -> None:
    sealed = keyfold.spark.encrypt(patients, {"age": "tenant"}, config, context={"tenant": "canary-7"})
    sealed.explain(True)
    assert "canary" not in capsys.readouterr().out
    opened = keyfold.spark.decrypt(sealed, {"age": "tenant"}, config, context={"tenant": "canary-7"}, types={"age": "long"})
    assert content(opened) == content(patients)


def test_what_the_policy_does_not_have_is_said_by_the_driver(patients: DataFrame, config: keyfold.Config, ring: keyfold.Keyring) -> None:
    fields = {"ssn": "patient.ssn"}
    for call in (keyfold.spark.encrypt, keyfold.spark.decrypt, keyfold.spark.reencrypt):
        with pytest.raises(keyfold.PolicyRefused, match=r"no field 'patient\.snn' for the column 'ssn'"):
            call(patients, {"ssn": "patient.snn"}, config, row="patient_id")
        with pytest.raises(ValueError, match="name the column of rows"):
            call(patients, fields, config)
        with pytest.raises(TypeError, match="give its `config`"):
            call(patients, fields, ring, row="patient_id")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="not str"):
            call(patients, fields, str(config.path), row="patient_id")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="row is one of a column, not Column"):
            call(patients, fields, config, row=patients["patient_id"])  # type: ignore[arg-type]
        with pytest.raises(keyfold.ConfigurationError, match="defined twice"):
            call(patients, fields, keyfold.Config(config.path, config.policies * 2), row="patient_id")
        # Executors may have files that the driver has not.
        call(patients, fields, keyfold.Config("/nowhere/keyfold.toml"))


def test_types_are_those_of_the_policy_or_as_named(patients: DataFrame, config: keyfold.Config) -> None:
    from pyspark.sql.types import DateType

    sealed = keyfold.spark.encrypt(patients, FIELDS, config, row="patient_id")
    opened = keyfold.spark.decrypt(sealed, FIELDS, config, row="patient_id", types={"ssn": "text", "seen": DateType()})
    assert opened.schema == patients.schema
    assert content(opened) == content(patients)
    unread = keyfold.spark.decrypt(sealed, {"age": "number"}, config.open)
    assert dict(unread.dtypes)["age"] == "string"


def test_a_scope_is_of_the_fields_that_have_one(patients: DataFrame, config: keyfold.Config, ring: keyfold.Keyring) -> None:
    fields = {"patient_id": "mrn", "ssn": "patient.ssn"}
    sealed = keyfold.spark.encrypt(patients, fields, config, row="patient_id", scope="asthma")
    opened = keyfold.spark.decrypt(sealed, fields, config, row="patient_id", scope="asthma")
    assert content(opened) == content(patients)
    by_id = {bytes(row["patient_id"]): row["ssn"] for row in sealed.collect()}
    ssn = bytes(by_id[ring.field("mrn").encrypt("p-8")])
    assert ring.field("patient.ssn", scope="asthma").decrypt(ssn, row="p-8") == "999-000008"
    with pytest.raises(keyfold.KeyRefused):
        ring.field("patient.ssn").decrypt(ssn, row="p-8")


def test_rows_that_are_sealed_and_not_named_are_hinted_at(patients: DataFrame, config: keyfold.Config) -> None:
    sealed = keyfold.spark.encrypt(patients, {"patient_id": "mrn", "ssn": "patient.ssn"}, config, row="patient_id")
    with pytest.raises(PythonException, match="name it in `fields` too"):
        keyfold.spark.decrypt(sealed, {"ssn": "patient.ssn"}, config, row="patient_id").collect()
