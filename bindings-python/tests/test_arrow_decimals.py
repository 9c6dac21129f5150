"""Decimal columns, and the types of time that are no values."""

import random
from decimal import Decimal
from typing import Any, Literal

import polars as pl
import pyarrow as pa
import pytest

import keyfold

TYPES = [pa.decimal32(9, 2), pa.decimal64(18, 0), pa.decimal128(38, 10), pa.decimal256(76, 40), pa.decimal128(5, -3)]
TYPES += [pa.decimal128(38, 38), pa.decimal32(7, 7)]


def numbers(of_type: Any, count: int) -> Any:
    """Numbers of all lengths, both signs and zero, with nulls between."""
    source = random.Random(7)
    extremes = [0, 1, -1, 10**of_type.precision - 1, 1 - 10**of_type.precision]
    lengths = [source.randint(1, of_type.precision) for _ in range(count)]
    unscaled = extremes + [source.choice((1, -1)) * source.randrange(10**length) for length in lengths]
    values = [Decimal((number < 0, tuple(map(int, str(abs(number)))), -of_type.scale)) for number in unscaled]
    with_nulls = [each for value in values for each in (value, None)[: source.randint(1, 2)]]
    return pa.array([None, *with_nulls], of_type)


@pytest.mark.parametrize("of_type", TYPES, ids=str)
def test_a_column_and_its_single_values_are_the_same(ring: keyfold.Keyring, of_type: Any) -> None:
    field = ring.field("any")
    column = numbers(of_type, 300)
    values = column.to_pylist()
    sealed = field.encrypt_column(column)
    assert sealed.type == pa.binary() and sealed.null_count == column.null_count > 0
    assert field.decrypt_many(sealed.to_pylist()) == values
    texts = field.decrypt_column(sealed)
    assert texts.type == pa.string()
    assert texts.to_pylist() == [None if value is None else str(value) for value in values]
    # Single values, as Python has them, as a column of their type.
    assert field.decrypt_column(pa.array(field.encrypt_many(values)), type=of_type) == column


def test_deterministic_columns_are_found_by_value(own_config: keyfold.Config) -> None:
    with own_config.policies[0].open("a") as file:
        file.write('[fields.weight]\nmode = "deterministic"\ntype = "decimal"\n')
    with own_config.open() as ring:
        field = ring.field("weight")
        column = pa.array([Decimal("1.50"), Decimal("0.00"), None, Decimal("1.50")], pa.decimal128(10, 2))
        sealed = field.encrypt_column(column).to_pylist()
        assert sealed[0] == sealed[3] == field.encrypt(Decimal("1.50"))
        # Both numbers are equal and spelled differently.
        assert sealed[0] != field.encrypt(Decimal("1.5"))
        small = pa.array([Decimal("0.00000001")], pa.decimal128(20, 8))
        assert field.encrypt_column(small)[0].as_py() == field.encrypt(Decimal("1E-8"))
        words = column.dictionary_encode()
        encoded = field.encrypt_column(words)
        assert pa.types.is_dictionary(encoded.type) and encoded.to_pylist() == sealed
        assert field.decrypt_column(encoded, type=column.type).cast(column.type) == column
        with pytest.raises(keyfold.InvalidInput, match="another type"):
            field.encrypt_column(pa.array([1.5]))


@pytest.mark.parametrize(
    ("value", "of_type", "opened"),
    [
        ("1.50", pa.decimal128(3, 1), "1.5"),
        ("150", pa.decimal128(5, 2), "150.00"),
        ("1.5E+3", pa.decimal32(4, 0), "1500"),
        ("1500", pa.decimal32(2, -2), "15E+2"),
        ("-0.0010", pa.decimal64(3, 3), "-0.001"),
        ("0E+999999999", pa.decimal32(1, 0), "0"),
        ("-" + "9" * 76, pa.decimal256(76, 0), "-" + "9" * 76),
        ("0." + "0" * 75 + "1", pa.decimal256(76, 76), "1E-76"),
        ("1.5", pa.decimal128(3, 0), None),
        ("1500", pa.decimal128(3, 0), None),
        ("1550", pa.decimal32(2, -2), None),
        ("0.01", pa.decimal32(9, 1), None),
        ("1E+999999999", pa.decimal256(76, 0), None),
        ("1E-999999999", pa.decimal256(76, 76), None),
        ("1" + "0" * 76, pa.decimal256(76, 0), None),
        ("2147483648", pa.decimal32(9, 0), None),
    ],
)
def test_opening_as_a_type_loses_nothing(ring: keyfold.Keyring, value: str, of_type: Any, opened: str | None) -> None:
    field = ring.field("any")
    sealed = pa.array([field.encrypt(Decimal(value))])
    if opened is None:
        with pytest.raises(keyfold.FormatError, match="without loss") as failed:
            field.decrypt_column(sealed, type=of_type)
        assert failed.value.row == 0 and value not in str(failed.value)
    else:
        assert field.decrypt_column(sealed, type=of_type).to_pylist() == [Decimal(opened)]


def test_numbers_that_are_no_decimals_do_not_open_as_such(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    for value in (1, 1.5, "1.5", True):
        with pytest.raises(keyfold.FormatError, match="another type"):
            field.decrypt_column(pa.array([field.encrypt(value)]), type=pa.decimal128(5, 2))


def test_slices_chunks_and_rows(ring: keyfold.Keyring) -> None:
    bound = ring.field("patient.ssn")
    column = numbers(pa.decimal128(12, 2), 50)
    rows = pa.array([Decimal(number) / 4 for number in range(len(column))], pa.decimal128(10, 2))
    for start, count in ((0, 3), (1, 17), (9, 40), (len(column), 0)):
        part, of = column.slice(start, count), rows.slice(start, count)
        sealed = bound.encrypt_column(part, rows=of)
        assert bound.decrypt_many(sealed.to_pylist(), rows=[str(row) for row in of.to_pylist()]) == part.to_pylist()
        assert bound.decrypt_column(sealed, rows=of, type=part.type) == part
    chunked = pa.chunked_array([column.slice(0, 5), column.slice(5, 0), column.slice(5)])
    assert bound.decrypt_column(bound.encrypt_column(chunked, rows=rows), rows=rows, type=column.type) == chunked
    empty = pa.array([None, None], pa.decimal256(40, 3))
    assert ring.field("any").encrypt_column(empty).to_pylist() == [None, None]


def test_polars(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    series = pl.Series("dose", [Decimal("1.50"), None, Decimal("-0.25")], pl.Decimal(10, 2))
    opened = field.decrypt_column(field.encrypt_column(series), type=pa.decimal128(10, 2))
    assert opened.equals(series) and opened.dtype == series.dtype


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([0], pa.timestamp("us")), "time zone.*assume_timezone.*tz_localize.*as text"),
        (pa.array([0], pa.time32("s")), "times of day.*whole numbers of a unit.*Time32"),
        (pa.array([0], pa.time64("ns")), "times of day.*Time64"),
        (pa.array([0], pa.duration("us")), "durations.*Duration"),
        (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), "intervals.*Interval"),
        (pa.array([[1]], pa.list_(pa.int8())), "no column of values"),
    ],
    ids=lambda given: str(getattr(given, "type", "")),
)
def test_what_is_no_value_is_refused_with_a_way_out(ring: keyfold.Keyring, column: Any, said: str) -> None:
    field, bound = ring.field("any"), ring.field("patient.ssn")
    modes: list[Literal["raise", "null"]] = ["raise", "null"]
    for on_error in modes:
        with pytest.raises(keyfold.InvalidInput, match=said):
            field.encrypt_column(column, on_error=on_error, errors=[])
    with pytest.raises(keyfold.InvalidInput, match=said):
        bound.encrypt_column(pa.array([1]), rows=column)
    with pytest.raises(keyfold.InvalidInput, match=said):
        field.decrypt_column(pa.array([b""]), type=column.type)
