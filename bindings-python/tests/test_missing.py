"""What is missing, and numbers and times of NumPy and pandas: None or an error, never a value that nobody meant."""

import math
import traceback
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import keyfold
import keyfold.pandas  # noqa: F401

CANARY = "999-81-5679"


@pytest.mark.parametrize("missing", [pd.NA, pd.NaT])
def test_missing_values_are_no_values(ring: keyfold.Keyring, missing: Any) -> None:
    field = ring.field("any")
    with pytest.raises(keyfold.InvalidInput, match="use None"):
        field.encrypt(missing)
    with pytest.raises(keyfold.InvalidInput, match="use None") as raised:
        field.encrypt_many(["a", missing])
    assert raised.value.row == 1


@pytest.mark.parametrize(
    "series",
    [
        pd.Series(["a", np.nan, None], dtype=object), pd.Series(["a", pd.NA, None], dtype="string"), pd.Series([0.5, np.nan, np.nan]),
        pd.Series([pd.Timestamp("2026-01-01", tz="UTC"), pd.NaT, pd.NaT]), pd.Series([1, None, None], dtype="Int64"),
        pd.Series([1, np.nan, np.nan], dtype="float32"), pd.Index(["a", None, np.nan], dtype=object),
    ],
    ids=lambda series: str(series.dtype),
)  # fmt: skip
def test_a_list_out_of_pandas_is_as_a_column_of_it(ring: keyfold.Keyring, series: Any) -> None:
    field = ring.field("any")
    sealed = field.encrypt_many(series)
    assert [value is None for value in sealed] == [False, True, True]
    assert field.decrypt_many(pd.Series(sealed, dtype=object)) == [field.decrypt(sealed[0] or b""), None, None]
    if isinstance(series, pd.Series):
        assert field.encrypt_column(series).isna().tolist() == [False, True, True]


def test_nan_is_a_number_where_there_is_null_for_what_is_missing(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    for column in (pl.Series([math.nan, None]), pa.array([math.nan, None])):
        sealed = field.encrypt_column(column)
        assert sealed.null_count() == 1 if isinstance(column, pl.Series) else sealed.null_count == 1
    assert None not in field.encrypt_many([math.nan])


def test_numbers_of_numpy(ring: keyfold.Keyring) -> None:
    field, number = ring.field("any"), ring.field("number")
    given: Any  # mypy takes what Python takes for these, and numbers of NumPy for none of it
    for given, value in (
        (np.int64(3), 3), (np.uint8(7), 7), (np.float32(0.5), 0.5), (np.float64(0.1), 0.1), (np.bool_(True), True),
        (np.str_("x"), "x"),
    ):  # fmt: skip
        opened = field.decrypt(field.encrypt(given))
        assert (opened, type(opened)) == (value, type(value))
    assert number.decrypt_many(number.encrypt_many(np.array([1, 2], dtype=np.int32))) == [1, 2]
    # Of a time in nanoseconds NumPy makes a whole number, and of a long double nothing.
    wrong: Any
    for wrong in (np.datetime64(1, "ns"), np.datetime64("NaT"), np.longdouble(1), np.array([1]), np.array(1)[None]):
        with pytest.raises(TypeError):
            field.encrypt(wrong)


def test_nanoseconds_are_not_cut(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    time = pd.Timestamp("2026-01-01T00:00:00.123456789Z")
    with pytest.raises(keyfold.InvalidInput, match="whole microseconds"):
        field.encrypt(time)
    assert field.decrypt(field.encrypt(time.round("us"))) == time.round("us")


@pytest.mark.parametrize(
    ("row", "same"),
    [(17, "17"), (np.int64(17), "17"), (date(2026, 11, 25), "2026-11-25"), (True, "true"), (bytearray(b"x"), b"x"), (0.5, "0.5")],
)
def test_rows_are_spelled_as_in_columns(ring: keyfold.Keyring, row: Any, same: str | bytes) -> None:
    ssn = ring.field("patient.ssn")
    sealed = ssn.encrypt("a", row=row)
    assert ssn.decrypt(sealed, row=same) == "a"
    assert ssn.decrypt_many(ssn.encrypt_many(["a"], rows=[row]), rows=[same]) == ["a"]
    column = ssn.encrypt_column(pa.array(["a", None]), rows=[row, None])
    assert ssn.decrypt_column(column, rows=(same, None)).to_pylist() == ["a", None]
    with pytest.raises(keyfold.InvalidInput) as raised:
        ssn.encrypt_column(pa.array(["a", "b"]), rows=[row, None])
    assert raised.value.row == 1
    with pytest.raises(TypeError, match="not list"):
        ssn.encrypt("a", row=[1])  # type: ignore[arg-type]


# pandas makes NaN of an ID that is missing: all of these would be one row, and their values could change places.
def test_nan_is_no_row(ring: keyfold.Keyring) -> None:
    ssn, nan = ring.field("patient.ssn"), float("nan")
    calls: list[Callable[[], object]] = [
        lambda: ssn.encrypt("a", row=nan),
        lambda: ssn.encrypt("a", row=np.float64("nan")),
        lambda: ssn.encrypt_many(["a", "b"], rows=[1.0, nan]),
        lambda: ssn.encrypt_column(pa.array(["a", "b"]), rows=[1.0, nan]),
        lambda: ssn.encrypt_column(pa.array(["a", "b"]), rows=pa.array([1.0, nan])),
        lambda: ssn.decrypt_column(ssn.encrypt_column(pa.array(["a"]), rows=["NaN"]), rows=pa.array([nan])),
    ]
    for call in calls:
        with pytest.raises(keyfold.InvalidInput, match="is NaN"):
            call()
    # A value that is missing has no row.
    assert ssn.encrypt_column(pa.array(["a", None]), rows=pa.array([1.0, nan])).null_count == 1


def chain(error: BaseException) -> str:
    """All that a log or a debugger may show of an exception."""
    seen: list[BaseException] = []
    parts: list[BaseException | None] = [error]
    while parts:
        part = parts.pop()
        if part is not None and part not in seen:
            seen.append(part)
            parts += [part.__cause__, part.__context__]
    notes = [note for part in seen for note in getattr(part, "__notes__", [])]
    return "".join([*map(repr, seen), *map(str, seen), *notes, *traceback.format_exception(error)])


@pytest.mark.parametrize("values", [[17, CANARY], [None, 1.5, CANARY], [CANARY, 5, {"a": CANARY}], ["\ud800" + CANARY]])
@pytest.mark.parametrize("role", ["data", "rows"])
def test_errors_of_conversions_show_no_value(ring: keyfold.Keyring, values: list[Any], role: str) -> None:
    ssn = ring.field("patient.ssn")
    mixed: Any = pd.Series(values, dtype=object, name="ssn")
    fine: Any = pd.Series(["a"] * len(values))
    data, rows = (mixed, fine) if role == "data" else (fine, mixed)
    for accessor in (False, True):
        with pytest.raises(keyfold.InvalidInput) as raised:
            data.keyfold.encrypt(ssn, row=rows) if accessor else ssn.encrypt_column(data, rows=rows)
        assert CANARY not in chain(raised.value)
        if len(values) > 1:
            assert raised.value.row == (2 if values[0] is None else 1)
            assert "'ssn'" in str(raised.value)


def test_an_object_that_raises(ring: keyfold.Keyring) -> None:
    class Broken:
        error: BaseException = ValueError(CANARY)

        def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
            raise self.error

    with pytest.raises(keyfold.InvalidInput, match="Broken raised ValueError") as raised:
        ring.field("any").encrypt_column(Broken())
    assert CANARY not in chain(raised.value)
    Broken.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        ring.field("any").encrypt_column(Broken())


def test_structures_are_no_columns_and_tables_of_one_column_are(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    for structure in (
        pa.array([{"a": "x"}]), pa.chunked_array([[{"a": "x"}]]), pl.Series([{"a": "x"}]),
        pd.Series(pa.array([{"a": "x"}]), dtype=pd.ArrowDtype(pa.struct([("a", pa.string())]))),
    ):  # fmt: skip
        with pytest.raises(keyfold.InvalidInput, match="no column of values"):
            field.encrypt_column(structure)
    table = pa.table({"a": ["x"]})
    for whole in (table, table.to_batches()[0], table.to_reader(), pl.DataFrame({"a": ["x"]}), pd.DataFrame({"a": ["x"]})):
        assert field.decrypt_column(pa.chunked_array(field.encrypt_column(whole))).to_pylist() == ["x"]
