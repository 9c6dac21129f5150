"""Columns of Polars: expressions, lazily and in the streaming engine, and series."""

from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal, assert_series_equal

import keyfold
import keyfold.polars  # noqa: F401

FRAME = pl.DataFrame(
    {
        "patient_id": [f"p-{row}" for row in range(1000)],
        "ssn": [None if row % 7 == 0 else f"999-{row:06}" for row in range(1000)],
        "age": [None if row % 11 == 0 else row % 100 for row in range(1000)],
    }
)


def spelled(expr: pl.Expr) -> Any:
    """The namespace of an expression: mypy does not know of it."""
    return expr.keyfold  # type: ignore[attr-defined]


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_expressions_work_lazily(ring: keyfold.Keyring, engine: Any) -> None:
    ssn, number = ring.field("patient.ssn"), ring.field("number")
    sealed = FRAME.lazy().with_columns(
        spelled(pl.col("ssn")).encrypt(ssn, row=pl.col("patient_id")), spelled(pl.col("age")).encrypt(number)
    )
    assert sealed.collect_schema() == pl.Schema({"patient_id": pl.String, "ssn": pl.Binary, "age": pl.Binary})
    frame = sealed.collect(engine=engine)
    assert frame.schema == sealed.collect_schema()
    assert ssn.decrypt(frame["ssn"][1], row="p-1") == "999-000001"
    opened = frame.lazy().with_columns(
        spelled(pl.col("ssn")).decrypt(ssn, row=pl.col("patient_id")), spelled(pl.col("age")).decrypt(number)
    )
    assert opened.collect_schema() == FRAME.schema
    assert_frame_equal(opened.collect(engine=engine), FRAME)
    filtered = opened.filter(pl.col("age") == 5).select("ssn", "age").collect(engine=engine)
    assert_frame_equal(filtered, FRAME.filter(pl.col("age") == 5).select("ssn", "age"))


def test_fields_by_name_need_a_keyring(ring: keyfold.Keyring) -> None:
    with pytest.raises(TypeError, match="keyfold.use"):
        spelled(pl.col("ssn")).encrypt("patient.ssn")
    keyfold.use(ring)
    try:
        sealed = FRAME.with_columns(spelled(pl.col("ssn")).encrypt("patient.ssn", row=pl.col("patient_id")))
        opened = sealed.with_columns(spelled(pl.col("ssn")).decrypt("patient.ssn", row=pl.col("patient_id")))
        assert_frame_equal(opened, FRAME)
    finally:
        keyfold.use(None)


def test_errors_reach_the_caller(ring: keyfold.Keyring) -> None:
    ssn = ring.field("patient.ssn")
    sealed = FRAME.with_columns(spelled(pl.col("ssn")).encrypt(ssn, row=pl.col("patient_id")))
    moved = sealed.lazy().with_columns(pl.col("patient_id").reverse())
    opening = spelled(pl.col("ssn")).decrypt(ssn, row=pl.col("patient_id"))
    with pytest.raises(keyfold.DecryptionFailed) as raised:
        moved.select(opening).collect(engine="in-memory")
    assert (raised.value.kind, raised.value.code, raised.value.row) == ("DecryptionFailed", 301, 1)
    lost = moved.select(spelled(pl.col("ssn")).decrypt(ssn, row=pl.col("patient_id"), on_error="null")).collect()
    assert lost["ssn"].null_count() == 1000
    with pytest.raises(keyfold.InvalidInput):
        FRAME.select(spelled(pl.col("ssn")).encrypt(ssn))
    with pytest.raises(keyfold.InvalidInput):
        spelled(pl.col("ssn")).decrypt(ssn)


def test_types_of_expressions(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    frame = pl.DataFrame({"a": pl.Series([1, None, 3], dtype=pl.UInt16), "b": pl.Series(["x", "y", "x"], dtype=pl.Categorical)})
    sealed = frame.lazy().select(spelled(pl.col("a")).encrypt(field, form="text"), spelled(pl.col("b")).encrypt(field))
    assert sealed.collect_schema() == pl.Schema({"a": pl.String, "b": pl.Binary})
    assert sealed.collect().schema == sealed.collect_schema()
    opened = sealed.select(spelled(pl.col("a")).decrypt(field, dtype=pl.UInt16), spelled(pl.col("b")).decrypt(field))
    assert opened.collect_schema() == pl.Schema({"a": pl.UInt16, "b": pl.String})
    assert_frame_equal(opened.collect(), frame.with_columns(pl.col("b").cast(pl.String)))
    # Text is what a field without a type in the policy opens as, unless it is said.
    with pytest.raises(keyfold.FormatError):
        sealed.select(spelled(pl.col("a")).decrypt(field)).collect()


def test_series(ring: keyfold.Keyring) -> None:
    ssn, mrn = ring.field("patient.ssn"), ring.field("mrn")
    given, rows = FRAME["ssn"], FRAME["patient_id"]
    sealed = given.keyfold.encrypt(ssn, row=rows)  # type: ignore[attr-defined]
    assert (sealed.name, sealed.dtype) == ("ssn", pl.Binary)
    assert_series_equal(sealed.keyfold.decrypt(ssn, row=rows), given)
    errors: list[keyfold.KeyfoldError] = []
    lost = sealed.keyfold.decrypt(ssn, row=rows.reverse(), on_error="null", errors=errors)
    assert lost.null_count() == 1000
    assert len(errors) == 1000 - given.null_count()

    category = pl.Series("c", ["a", "b", "a", None], dtype=pl.Categorical)
    sealed = mrn.encrypt_column(category)
    assert sealed.dtype == pl.Binary
    assert sealed.n_unique() == 3
    assert mrn.decrypt_column(sealed).to_list() == category.to_list()
    pieces = pl.concat([given, given], rechunk=False)
    again = ring.field("any").encrypt_column(pieces)
    assert again.n_chunks() == 2
    assert_series_equal(ring.field("any").decrypt_column(again), pieces)
