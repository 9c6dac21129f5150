"""Columns of pandas: series and frames by the accessor, and what types they open as."""

from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import keyfold
import keyfold.pandas  # noqa: F401


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {"patient_id": [11, 12, 13], "ssn": ["a", None, "c"], "age": pd.array([30, None, 32], dtype="Int64")}, index=[7, 3, 5]
    )


def test_series_keep_name_and_index(ring: keyfold.Keyring, frame: pd.DataFrame) -> None:
    ssn = ring.field("patient.ssn")
    given: Any = frame["ssn"]
    sealed = given.keyfold.encrypt(ssn, row=frame["patient_id"])
    assert (sealed.name, list(sealed.index)) == ("ssn", [7, 3, 5])
    assert ssn.decrypt(sealed[7], row="11") == "a"
    pd.testing.assert_series_equal(sealed.keyfold.decrypt(ssn, row=frame["patient_id"]), given)
    errors: list[keyfold.KeyfoldError] = []
    lost = sealed.keyfold.decrypt(ssn, row=frame["patient_id"] + 1, on_error="null", errors=errors)
    assert lost.isna().all()
    assert [error.row for error in errors] == [0, 2]


def test_frames(ring: keyfold.Keyring, frame: pd.DataFrame) -> None:
    fields = {"ssn": ring.field("patient.ssn"), "age": ring.field("patient.ssn")}
    before = frame.copy()
    given: Any = frame
    sealed = given.keyfold.encrypt(fields, row="patient_id")
    pd.testing.assert_frame_equal(frame, before)
    assert list(sealed.columns) == list(frame.columns)
    opened = sealed.keyfold.decrypt(fields, row="patient_id")
    assert str(opened["age"].dtype) == "int64[pyarrow]"
    pd.testing.assert_frame_equal(opened.astype({"age": "Int64"}), frame)


def test_a_frame_with_fields_that_bind_rows_and_others(ring: keyfold.Keyring, frame: pd.DataFrame) -> None:
    frame["mrn"] = ["m-1", "m-2", "m-1"]
    keyfold.use(ring)
    try:
        fields = {"ssn": "patient.ssn", "mrn": "mrn"}
        given: Any = frame
        sealed = given.keyfold.encrypt(fields, row="patient_id")
        assert sealed["mrn"].iloc[0] == sealed["mrn"].iloc[2] == ring.field("mrn").encrypt("m-1")
        assert ring.field("patient.ssn").decrypt(sealed["ssn"].iloc[2], row="13") == "c"
        pd.testing.assert_frame_equal(sealed.keyfold.decrypt(fields, row="patient_id"), frame)
        with pytest.raises(keyfold.InvalidInput, match="a column of rows is needed"):
            given.keyfold.encrypt(fields)
        # The rows themselves, which are opened before what is bound to them.
        for names in (["ssn", "patient_id"], ["patient_id", "ssn"]):
            kinds = {"ssn": "patient.ssn", "patient_id": "any"}
            both = {name: kinds[name] for name in names}
            hidden = given.keyfold.encrypt(both, row="patient_id")
            assert not set(hidden["patient_id"]) & set(frame["patient_id"])
            pd.testing.assert_frame_equal(hidden.keyfold.decrypt(both, row="patient_id"), frame, check_dtype=False)
        with pytest.raises(keyfold.InvalidInput, match="cannot be bound to itself"):
            given.keyfold.encrypt({"patient_id": "patient.ssn"}, row="patient_id")
        # Without a field that binds rows, a column that the frame has not is a mistake all the same.
        with pytest.raises(KeyError):
            given.keyfold.encrypt({"mrn": "mrn"}, row="patient")
    finally:
        keyfold.use(None)


@pytest.mark.parametrize("dtype", ["str", "object", "string", "string[pyarrow]", "category"])
def test_text_of_every_kind(ring: keyfold.Keyring, dtype: str) -> None:
    for name in ("any", "mrn"):
        field = ring.field(name)
        series = pd.Series(["a", None, "b", "a"], dtype=dtype)
        opened = field.decrypt_column(field.encrypt_column(series))
        assert opened.astype("str").isna().tolist() == [False, True, False, False]
        assert opened.dropna().tolist() == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2], "int16"), ([1, 2], "uint64[pyarrow]"), ([0.5, -1.0], "float32"), ([True, False], "bool"),
        (["2024-02-29T12:00:00", "1950-01-01"], "datetime64[us, UTC]"),
    ],
)
def test_other_types(ring: keyfold.Keyring, values: list[Any], dtype: str) -> None:
    field = ring.field("any")
    times = pd.Series(pd.to_datetime(values, format="ISO8601", utc=True)) if "datetime" in dtype else None
    series = pd.Series(values, dtype=dtype) if times is None else times.astype(dtype)
    opened = field.decrypt_column(field.encrypt_column(series))
    assert opened.tolist() == series.tolist()
    naive = pd.Series(pd.to_datetime(["2024-02-29"]))
    with pytest.raises(keyfold.InvalidInput, match="time zone"):
        field.encrypt_column(naive)


def test_rows_of_another_index_are_refused(ring: keyfold.Keyring, frame: pd.DataFrame) -> None:
    ssn = ring.field("patient.ssn")
    given: Any = frame["ssn"]
    rows = frame["patient_id"]
    sealed = given.keyfold.encrypt(ssn, row=rows)
    shuffled = rows.sort_index()
    for call in (given.keyfold.encrypt, sealed.keyfold.decrypt):
        with pytest.raises(keyfold.InvalidInput, match="align") as raised:
            call(ssn, row=shuffled)
        assert (raised.value.code, raised.value.kind) == (100, "InvalidInput")
        with pytest.raises(keyfold.InvalidInput, match="align"):
            call(ssn, row=rows.reset_index(drop=True))
    assert sealed.keyfold.decrypt(ssn, row=shuffled.reindex(sealed.index)).tolist()[0] == "a"
    assert sealed.keyfold.decrypt(ssn, row=pa.array(rows)).tolist()[0] == "a"
    doubled: Any = pd.concat([frame, frame])
    assert len(doubled.keyfold.encrypt({"ssn": ssn}, row="patient_id")) == 6
