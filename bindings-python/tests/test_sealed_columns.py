"""Columns of sealed values: a census, which values are under the key that seals now, and sealing again after a rotation."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import keyfold
import keyfold.pandas
import keyfold.polars  # noqa: F401

KINDS: list[Callable[[pa.Array], Any]] = [
    lambda array: array,
    lambda array: pa.chunked_array([array.slice(0, 1), array.slice(1)]),
    lambda array: pl.Series("s", array),
    lambda array: pd.Series(array, dtype=pd.ArrowDtype(array.type), name="s"),
]
NAMES = ["array", "chunked array", "polars", "pandas"]


def listed(column: Any) -> list[Any]:
    if isinstance(column, pd.Series):
        return [None if pd.isna(value) else value for value in column]
    return list(column.to_pylist() if hasattr(column, "to_pylist") else column.to_list())


@pytest.fixture
def ring(own_config: keyfold.Config) -> Any:
    """One that a test rotates."""
    with own_config.open() as ring:
        yield ring


@pytest.mark.parametrize("form", ["binary", "text"])
@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_what_is_under_older_keys_is_sealed_again(ring: keyfold.Keyring, kind: Callable[..., Any], form: Any) -> None:
    ssn = ring.field("patient.ssn")
    values, rows = pa.array(["a", None, "c", "d"]), pa.array(["1", "2", "3", "4"])
    old = ssn.encrypt_column(values, rows=rows, form=form).to_pylist()
    ring.rotate()
    new = ssn.encrypt("d", row="4")
    given = kind(pa.array([*old[:3], keyfold.to_text(new) if form == "text" else new]))
    assert listed(ssn.is_current(given)) == [False, None, False, True]

    again = ssn.reencrypt_column(given, rows=kind(rows))
    assert type(again) is type(given)
    assert listed(ssn.is_current(again)) == [True, None, True, True]
    assert listed(again)[3] == listed(given)[3]
    assert listed(ssn.decrypt_column(again, rows=kind(rows))) == ["a", None, "c", "d"]
    # Nothing is left to do, so nothing changes; unless it is asked for.
    assert listed(ssn.reencrypt_column(again, rows=kind(rows))) == listed(again)
    forced = listed(ssn.reencrypt_column(again, rows=kind(rows), force=True))
    assert [now == before for now, before in zip(forced, listed(again), strict=True)] == [False, True, False, False]
    assert len(keyfold.census(again).keys) == 1


def test_values_keep_type_and_mode(ring: keyfold.Keyring) -> None:
    field, mrn = ring.field("any"), ring.field("mrn")
    values: list[keyfold.Value] = ["a", 1, 0.5, b"b", True]
    sealed = pa.array([field.encrypt(value) for value in values])
    ring.rotate()
    assert [field.decrypt(value.as_py()) for value in field.reencrypt_column(sealed)] == values
    same = mrn.encrypt_column(pa.array(["x", "y", "x"]).dictionary_encode())
    assert mrn.reencrypt_column(same).equals(same)
    assert field.reencrypt_column(pa.nulls(3)).null_count == 3


def test_many_rows_of_which_some_are_old(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    count = 50_000
    old = field.encrypt_column(pa.array([str(row) for row in range(count)])).to_pylist()
    ring.rotate()
    new = field.encrypt_column(pa.array([str(row) for row in range(count)])).to_pylist()
    mixed = pa.array([old[row] if row % 3 == 0 else new[row] for row in range(count)])
    again = field.reencrypt_column(mixed)
    assert field.decrypt_column(again).to_pylist() == [str(row) for row in range(count)]
    changed = [row for row in range(count) if again[row] != mixed[row]]
    assert changed == list(range(0, count, 3))


def test_what_does_not_open_is_not_passed_on(ring: keyfold.Keyring) -> None:
    ssn, rows = ring.field("patient.ssn"), pa.array(["1", "2"])
    sealed = ssn.encrypt_column(pa.array(["a", "b"]), rows=rows)
    foreign = ring.field("patient.ssn", scope="other").encrypt("b", row="2")
    ring.rotate()
    with pytest.raises(keyfold.DecryptionFailed) as failed:
        ssn.reencrypt_column(sealed, rows=pa.array(["1", "3"]))
    assert failed.value.row == 1
    with pytest.raises(keyfold.KeyRefused) as refused:
        ssn.reencrypt_column(pa.array([sealed[0].as_py(), foreign]), rows=rows)
    assert (refused.value.kind, refused.value.row) == ("WrongScope", 1)
    for call in (ssn.is_current, lambda column: ssn.reencrypt_column(column, rows=rows)):
        with pytest.raises(keyfold.FormatError) as malformed:
            call(pa.array([sealed[0].as_py(), b"plain"]))
        assert malformed.value.row == 1
        with pytest.raises(keyfold.InvalidInput, match="Int64"):
            call(pa.array([1, 2]))
    with pytest.raises(keyfold.InvalidInput, match="is needed"):
        ssn.reencrypt_column(sealed)
    with pytest.raises(keyfold.NoMatchingKey):
        ring.field("patient.ssn", scope="never").reencrypt_column(sealed, rows=rows)


def test_namespaces(ring: keyfold.Keyring) -> None:
    ssn = ring.field("patient.ssn")
    frame = pl.DataFrame({"id": ["1", "2"], "ssn": ["a", None]})
    sealed = frame.with_columns(keyfold.polars.encrypt("ssn", ssn, row="id"))
    ring.rotate()
    lazy = sealed.lazy().with_columns(
        keyfold.polars.is_current("ssn", ssn).alias("current"), keyfold.polars.reencrypt(pl.col("ssn"), ssn, row="id")
    )
    assert lazy.collect_schema() == pl.Schema({"id": pl.String, "ssn": pl.Binary, "current": pl.Boolean})
    again = lazy.collect()
    assert again["current"].to_list() == [False, None]
    assert again["ssn"].keyfold.is_current(ssn).to_list() == [True, None]  # type: ignore[attr-defined]
    assert again.select(keyfold.polars.decrypt("ssn", ssn, row="id"))["ssn"].to_list() == ["a", None]
    given: Any = sealed.to_pandas()
    series = given["ssn"].keyfold.reencrypt(ssn, row=given["id"])
    assert series.keyfold.is_current(ssn).tolist() == [True, pd.NA]


def test_a_census_of_columns(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    sealed = field.encrypt("a")
    text = keyfold.to_text(sealed)
    columns: list[Any] = [
        [sealed, bytearray(sealed), memoryview(sealed), text, None, float("nan"), b"plain"],
        pa.array([sealed] * 4 + [None] * 2 + [b"plain"]),
        pa.chunked_array([[text] * 4, [None] * 2, ["plain"]]).dictionary_encode(),
        pl.Series([sealed] * 4 + [None] * 2 + [b"plain"]),
        pd.Series([sealed] * 4 + [None, float("nan"), b"plain"], dtype=object),
        pd.Series([sealed, bytearray(sealed), text, text, pd.NA, pd.NaT, "plain"], dtype=object),
    ]
    for column in columns:
        found = keyfold.census(column)
        assert (sum(found.keys.values()), found.nulls, found.not_sealed) == (4, 2, 1), type(column)
    for wrong in (pa.array([1]), pl.Series([1.5])):
        with pytest.raises(keyfold.InvalidInput):
            keyfold.census(wrong)
    with pytest.raises(TypeError):
        keyfold.census([1])  # type: ignore[list-item]


def test_buffers_are_sealed_values(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    sealed = field.encrypt("a")
    for given in (bytearray(sealed), memoryview(sealed), memoryview(b"x" + sealed + b"x")[1:-1]):
        assert field.decrypt(given) == "a" and field.is_current(given)
        assert keyfold.inspect(given) == keyfold.inspect(sealed)
        assert field.decrypt_many([given, None]) == ["a", None]
    with pytest.raises(keyfold.InvalidInput):
        field.decrypt(memoryview(sealed + b"xx").cast("H") if len(sealed) % 2 == 0 else memoryview(sealed + b"x").cast("H"))
