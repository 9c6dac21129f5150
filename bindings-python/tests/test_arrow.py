"""Columns in Arrow's layout: every type and kind, rows, dictionaries, and what goes wrong in a row."""

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

import keyfold

DAY = date(2024, 2, 29)
TIME = datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC)

TEXTS = [pa.string(), pa.large_string(), pa.string_view()]
BYTES = [pa.binary(), pa.large_binary(), pa.binary_view()]
WHOLE = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
ZONED = [pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in ("UTC", "Europe/Zurich")]
VALUES: list[tuple[pa.DataType, list[Any]]] = [
    *((kind, ["", "a", None, "twelve bytes", "thirteen byte", "ü" * 50, "\0"]) for kind in TEXTS),
    *((kind, [b"", b"a", None, b"\xff" * 12, b"\xff" * 13, b"\0" * 100]) for kind in BYTES),
    (pa.binary(3), [b"abc", None, b"\0\0\0"]),
    (pa.binary(0), [b"", None]),
    *((kind, [0, None, 127]) for kind in WHOLE),
    *((kind, [-128, None, -1]) for kind in WHOLE[:4]),
    (pa.int64(), [-(2**63), 2**63 - 1]),
    (pa.uint64(), [2**63 - 1]),
    (pa.float32(), [0.5, None, -0.0, float("inf")]),
    (pa.float64(), [0.1, None, -1e300]),
    (pa.bool_(), [True, None, False, *[True, False, None] * 5]),
    (pa.date32(), [DAY, None, date(1, 1, 1), date(9999, 12, 31)]),
    (pa.date64(), [DAY, None, date(1969, 12, 31)]),
    *((kind, [TIME.replace(microsecond=0), None, datetime(1950, 1, 1, tzinfo=UTC)]) for kind in ZONED),
    (pa.timestamp("us", "UTC"), [TIME, None, datetime(1, 1, 1, tzinfo=UTC)]),
]


def opened_type(given: pa.DataType) -> pa.DataType:
    """What values of a column of type `given` open as by default, from Binary or its like."""
    if pa.types.is_fixed_size_binary(given):
        return pa.binary()
    for test, opened in (
        (pa.types.is_integer, pa.int64()),
        (pa.types.is_floating, pa.float64()),
        (pa.types.is_date, pa.date32()),
        (pa.types.is_timestamp, pa.timestamp("us", "UTC")),
    ):
        if test(given):
            return opened
    return given


def sealed_type(given: pa.DataType, form: str) -> pa.DataType:
    which = next((at for at in (1, 2) if given in (TEXTS[at], BYTES[at])), 0)
    return (BYTES if form == "binary" else TEXTS)[which]


@pytest.mark.parametrize("form", ["binary", "text"])
@pytest.mark.parametrize(("kind", "values"), VALUES, ids=lambda value: str(value) if isinstance(value, pa.DataType) else "")
def test_every_type_opens_as_it_was(ring: keyfold.Keyring, kind: pa.DataType, values: list[Any], form: Any) -> None:
    field = ring.field("any")
    column = pa.array(values, kind)
    sealed = field.encrypt_column(column, form=form)
    sealed.validate(full=True)
    assert sealed.type == sealed_type(kind, form)
    assert [value is None for value in sealed.to_pylist()] == [value is None for value in values]

    opened = field.decrypt_column(sealed)
    opened.validate(full=True)
    assert opened.type == opened_type(kind)
    assert opened.cast(kind).equals(column)
    assert field.decrypt_column(sealed, type=kind).equals(column)


@pytest.mark.parametrize(
    "value", ["x", b"x", 17, -1, 0.5, True, DAY, TIME, "ü" * 1000], ids=lambda value: type(value).__name__
)
def test_a_row_of_a_column_is_the_value_alone(ring: keyfold.Keyring, value: Any) -> None:
    field = ring.field("any")
    kind = pa.timestamp("us", "UTC") if isinstance(value, datetime) else None
    assert field.decrypt(field.encrypt_column(pa.array([value], kind))[0].as_py()) == value
    assert field.decrypt_column(pa.array([field.encrypt(value)])).to_pylist() == [value]


def cut(column: pa.Array) -> pa.Array:
    return column.slice(3, 4)


def chunked(column: pa.Array) -> pa.ChunkedArray:
    return pa.chunked_array([column.slice(0, 2), column.slice(2, 0), column.slice(2)])


@pytest.mark.parametrize("shape", [cut, chunked], ids=["cut", "chunked"])
@pytest.mark.parametrize("kind", [*TEXTS, *BYTES, pa.binary(20), pa.int32(), pa.bool_()], ids=str)
def test_parts_of_arrays_are_as_if_alone(ring: keyfold.Keyring, kind: pa.DataType, shape: Callable[[pa.Array], Any]) -> None:
    field = ring.field("any")
    plain: list[Any]
    if kind == pa.bool_():
        plain = [True, None, False, True, True, None, False, False, True, None]
    elif kind == pa.int32():
        plain = [1, None, 3, 4, 5, 6, None, 8, 9, 10]
    else:
        plain = [str(n) * 20 if n != 4 else None for n in range(10)]
    column = shape(pa.array(plain, kind))
    sealed = field.encrypt_column(column)
    assert isinstance(sealed, pa.ChunkedArray) == isinstance(column, pa.ChunkedArray)
    assert field.decrypt_column(sealed, type=kind).equals(column)
    # Sealed columns in parts as well, with rows that are cut elsewhere.
    bound = ring.field("patient.ssn")
    rows = pa.array(range(len(column)))
    sealed = bound.encrypt_column(column, rows=rows)
    again = chunked(pa.concat_arrays(sealed.chunks) if isinstance(sealed, pa.ChunkedArray) else sealed)
    assert bound.decrypt_column(again, rows=rows, type=kind).to_pylist() == column.to_pylist()


@pytest.mark.parametrize("kind", [*TEXTS, pa.int64(), pa.bool_(), pa.null()], ids=str)
def test_empty_and_null_columns(ring: keyfold.Keyring, kind: pa.DataType) -> None:
    field = ring.field("any")
    for column in (pa.array([], kind), pa.nulls(3, kind), pa.chunked_array([], kind), pa.array(["x"], pa.string())[1:]):
        sealed = field.encrypt_column(column)
        assert sealed.null_count == len(sealed) == len(column)
        opened = field.decrypt_column(sealed)
        assert opened.null_count == len(opened) == len(column)
        assert opened.type in TEXTS


def test_chunks_without_values_have_the_type_of_the_others(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    column = pa.chunked_array([pa.nulls(2, pa.int64()), pa.array([1, None]), pa.nulls(1, pa.int64())])
    opened = field.decrypt_column(field.encrypt_column(column))
    assert opened.equals(column)
    assert [len(chunk) for chunk in opened.chunks] == [2, 2, 1]


def test_the_type_is_that_of_the_policy(ring: keyfold.Keyring) -> None:
    number, document = ring.field("number"), ring.field("document")
    assert number.decrypt_column(pa.array([], pa.binary())).type == pa.int64()
    assert number.decrypt_column(pa.nulls(2)).type == pa.int64()
    with pytest.raises(keyfold.InvalidInput, match="another type than the policy"):
        number.encrypt_column(pa.array(["1"]), on_error="null", errors=[])
    sealed = document.encrypt_column(pa.array(['{"a": 1}', None]))
    assert document.decrypt(sealed[0].as_py()) == '{"a": 1}'
    assert document.decrypt_column(sealed).to_pylist() == ['{"a": 1}', None]
    sealed = pa.array([ring.field("any").encrypt(Decimal("1.50"))])
    assert ring.field("any").decrypt_column(sealed).to_pylist() == ["1.50"]


def test_a_type_by_its_name(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    assert field.decrypt_column(pa.array([], pa.large_binary()), type="text").type == pa.large_string()
    assert field.decrypt_column(pa.array([], pa.binary()), type="timestamp").type == pa.timestamp("us", "UTC")
    with pytest.raises(keyfold.InvalidInput):
        field.decrypt_column(pa.array([], pa.binary()), type="null")
    with pytest.raises(TypeError, match="not int"):
        field.decrypt_column(pa.array([], pa.binary()), type=7)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (300, pa.int8()), (-1, pa.uint64()), (2**40, pa.int32()), (0.1, pa.float32()), ("x", pa.int64()), (b"x", pa.string()),
        (b"abcd", pa.binary(3)), (TIME, pa.timestamp("ms", "UTC")), (datetime(1, 1, 1, tzinfo=UTC), pa.timestamp("ns", "UTC")),
        (DAY, pa.timestamp("us", "UTC")), (1, pa.bool_()),
    ],
    ids=str,
)
def test_what_the_type_cannot_hold_is_an_error_of_the_row(ring: keyfold.Keyring, value: Any, kind: pa.DataType) -> None:
    field = ring.field("any")
    sealed = pa.array([None, field.encrypt(value)])
    with pytest.raises(keyfold.FormatError) as raised:
        field.decrypt_column(sealed, type=kind)
    assert raised.value.row == 1
    errors: list[keyfold.KeyfoldError] = []
    assert field.decrypt_column(sealed, type=kind, on_error="null", errors=errors).equals(pa.nulls(2, kind))
    assert [(error.kind, error.row) for error in errors] == [("Unsupported", 1)]


@pytest.mark.parametrize(
    ("column", "bad"),
    [
        (pa.array([1, 2**63, None, 2**64 - 1, 5], pa.uint64()), [1, 3]),
        (pa.array([1000, 1001, None, -1, 0], pa.timestamp("ns", "UTC")), [1, 3]),
        (pa.array([0, 1, None, -86_400_001, 86_400_000], pa.int64()).view(pa.date64()), [1, 3]),
    ],
    ids=["uint64", "nanoseconds", "date64"],
)
def test_what_has_no_encoding_is_an_error_of_the_row(ring: keyfold.Keyring, column: pa.Array, bad: list[int]) -> None:
    field = ring.field("any")
    with pytest.raises(keyfold.InvalidInput) as raised:
        field.encrypt_column(column)
    assert raised.value.row == bad[0]
    errors: list[keyfold.KeyfoldError] = []
    sealed = field.encrypt_column(column, on_error="null", errors=errors)
    assert [error.row for error in errors] == bad
    assert [row for row, value in enumerate(sealed) if not value.is_valid] == sorted([*bad, 2])
    assert field.decrypt_column(sealed).null_count == 3


@pytest.mark.parametrize(
    "column",
    [
        pa.array([TIME.replace(tzinfo=None)]), pa.array([[1]]), pa.array([{"a": 1, "b": 2}]),
        pa.array([1.5], pa.float16()), pa.array([1], pa.duration("s")), pa.array([1], pa.time32("s")),
    ],
    ids=lambda column: str(column.type),
)
def test_types_without_values_are_refused(ring: keyfold.Keyring, column: pa.Array) -> None:
    with pytest.raises(keyfold.InvalidInput):
        ring.field("any").encrypt_column(column)
    with pytest.raises(keyfold.InvalidInput):
        ring.field("any").decrypt_column(column)


@pytest.mark.parametrize(
    ("rows", "binding"),
    [
        (pa.array(["17", "x"]), "17"), (pa.array([b"\xff\0", b"x"]), b"\xff\0"), (pa.array([17, 2], pa.uint8()), "17"),
        (pa.array([-5, 2]), "-5"), (pa.array([0.5, 2]), "0.5"), (pa.array([True, False]), "true"),
        (pa.array([DAY, DAY]), "2024-02-29"), (pa.array([TIME, TIME], pa.timestamp("us", "Asia/Tokyo")), "2024-02-29T12:30:15.123456Z"),
        (pa.array(["17", "x"]).dictionary_encode(), "17"), (pa.chunked_array([["17"], [], ["x"]]), "17"),
    ],
    ids=lambda value: str(value.type) if hasattr(value, "type") else "",
)
def test_rows_of_every_type(ring: keyfold.Keyring, rows: Any, binding: str | bytes) -> None:
    field = ring.field("patient.ssn")
    sealed = field.encrypt_column(pa.array(["a", "b"]), rows=rows)
    assert field.decrypt(sealed[0].as_py(), row=binding) == "a"
    assert field.decrypt_column(sealed, rows=rows).to_pylist() == ["a", "b"]
    with pytest.raises(keyfold.DecryptionFailed) as raised:
        field.decrypt_column(sealed, rows=pa.array(["1", "2"]))
    assert raised.value.row == 0


def test_rows_that_do_not_match(ring: keyfold.Keyring) -> None:
    field, free = ring.field("patient.ssn"), ring.field("any")
    column = pa.array(["a", "b", None])
    sealed = field.encrypt_column(column, rows=pa.array(["1", "2", None]))
    for call, data in ((field.encrypt_column, column), (field.decrypt_column, sealed)):
        for wrong, why in ((["1"], "fewer"), (["1", "2", "3", "4"], "more"), (None, "is needed")):
            with pytest.raises(keyfold.InvalidInput, match=why):
                call(data, rows=None if wrong is None else pa.array(wrong), on_error="null", errors=[])
        for no_row in (None, ""):
            with pytest.raises(keyfold.InvalidInput) as raised:
                call(data, rows=pa.array(["1", no_row, "3"]))
            assert raised.value.row == 1
    for call, data in ((free.encrypt_column, column), (free.decrypt_column, free.encrypt_column(column))):
        with pytest.raises(keyfold.InvalidInput, match="not bound"):
            call(data, rows=pa.array(["1", "2", "3"]))
    with pytest.raises(TypeError, match="not dict"):
        field.encrypt_column(column, rows={"1": "2"})  # type: ignore[arg-type]


def test_rows_that_do_not_open_are_reported(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    n = 40_000
    sealed = field.encrypt_column(pa.array([str(row) for row in range(n)])).to_pylist()
    flipped = bytearray(sealed[20_000])
    flipped[-1] ^= 1
    sealed[5], sealed[20_000], sealed[39_999], sealed[7] = b"", bytes(flipped), b"no value", None
    column = pa.chunked_array([sealed[:30_000], sealed[30_000:]])
    with pytest.raises(keyfold.FormatError) as raised:
        field.decrypt_column(column)
    assert raised.value.row == 5
    errors: list[keyfold.KeyfoldError] = []
    opened = field.decrypt_column(column, on_error="null", errors=errors)
    assert [(error.row, error.kind) for error in errors] == [
        (5, "Malformed"), (20_000, "DecryptionFailed"), (39_999, "Malformed")
    ]
    lost = {5, 7, 20_000, 39_999}
    assert opened.to_pylist() == [None if row in lost else str(row) for row in range(n)]
    with pytest.raises(keyfold.InvalidInput, match="on_error"):
        field.decrypt_column(column, on_error="ignore")  # type: ignore[arg-type]


def test_a_dictionary_is_sealed_once_per_value(ring: keyfold.Keyring) -> None:
    mrn = ring.field("mrn")
    values = ["a", "b", None, "a", "c", "a"]
    for keys in (pa.int8(), pa.uint32(), pa.int64()):
        column = pa.array(values).dictionary_encode().cast(pa.dictionary(keys, pa.string()))
        sealed = mrn.encrypt_column(column)
        sealed.validate(full=True)
        assert sealed.type == pa.dictionary(keys, pa.binary())
        assert len(sealed.dictionary) == 3
        assert sealed.cast(pa.binary()).equals(mrn.encrypt_column(pa.array(values)))
        opened = mrn.decrypt_column(sealed)
        opened.validate(full=True)
        assert opened.type == column.type
        assert opened.to_pylist() == values
        # Of a part, only what the part has.
        assert len(mrn.encrypt_column(column.slice(3, 2)).dictionary) == 2
    null_value = pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), pa.array(["a", None]))
    assert mrn.decrypt_column(mrn.encrypt_column(null_value)).to_pylist() == ["a", None, None]


def test_a_dictionary_shows_nothing_in_a_randomized_field(ring: keyfold.Keyring) -> None:
    column = pa.array(["a", "b", "a", None]).dictionary_encode()
    sealed = ring.field("any").encrypt_column(column)
    assert sealed.type == pa.binary()
    assert len(set(sealed.to_pylist())) == 4
    assert ring.field("any").decrypt_column(sealed).to_pylist() == ["a", "b", "a", None]
    bound = ring.field("patient.ssn")
    rows = pa.array([1, 2, 3, 4])
    again = bound.encrypt_column(column, rows=rows).dictionary_encode()
    assert bound.decrypt_column(again, rows=rows).to_pylist() == ["a", "b", "a", None]


def test_a_dictionary_moves_no_value_to_another_row(ring: keyfold.Keyring) -> None:
    bound = ring.field("patient.ssn")
    sealed = bound.encrypt_column(pa.array(["a", "b"]), rows=pa.array([1, 2])).to_pylist()
    column = pa.array([sealed[0], sealed[1], sealed[0]]).dictionary_encode()
    assert bound.decrypt_column(column, rows=pa.array([1, 2, 1])).to_pylist() == ["a", "b", "a"]
    with pytest.raises(keyfold.DecryptionFailed) as raised:
        bound.decrypt_column(column, rows=pa.array([1, 2, 3]))
    assert raised.value.row == 2


def test_errors_of_a_dictionary_are_those_of_its_rows(ring: keyfold.Keyring) -> None:
    mrn = ring.field("mrn")
    sealed = mrn.encrypt_column(pa.array(["a", "b"])).to_pylist()
    column = pa.DictionaryArray.from_arrays(pa.array([0, 2, None, 1, 2, 0]), pa.array([*sealed, b"no value"]))
    with pytest.raises(keyfold.FormatError) as raised:
        mrn.decrypt_column(column)
    assert raised.value.row == 1
    errors: list[keyfold.KeyfoldError] = []
    assert mrn.decrypt_column(column, on_error="null", errors=errors).to_pylist() == ["a", None, None, "b", None, "a"]
    assert [error.row for error in errors] == [1, 4]


class Stranger:
    """A column of a library that keyfold does not know."""

    def __init__(self, column: pa.Array) -> None:
        self.column = column

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        return self.column.__arrow_c_array__(requested_schema)  # type: ignore[no-any-return]


def test_what_is_not_known_comes_back_as_an_arrow_array(ring: keyfold.Keyring) -> None:
    field = ring.field("any")
    sealed = field.encrypt_column(Stranger(pa.array(["a", None])))
    assert isinstance(sealed, keyfold.ArrowArray)
    assert len(sealed) == 2
    assert repr(sealed) == "<keyfold.ArrowArray of 2 Binary>"
    opened = field.decrypt_column(sealed)
    assert pa.array(opened).to_pylist() == pa.array(opened).to_pylist() == ["a", None]
    assert pa.field(opened).type == pa.string()

    table = pa.table({"one": pa.chunked_array([["a"], ["b"]])})
    stream = field.encrypt_column(table)
    assert isinstance(stream, keyfold.ArrowStream)
    assert repr(stream) == "<keyfold.ArrowStream of 2 Binary in 2 chunks>"
    for _ in range(2):
        assert pa.chunked_array(field.decrypt_column(stream)).to_pylist() == ["a", "b"]
    with pytest.raises(keyfold.InvalidInput):
        field.encrypt_column(pa.table({"one": ["a"], "two": ["b"]}))
    with pytest.raises(TypeError, match="not list"):
        field.encrypt_column(["a"])  # type: ignore[arg-type]


def test_keyfold_needs_none_of_them() -> None:
    for name in ("pyarrow", "polars", "pandas", "duckdb", "numpy"):
        code = f"import sys; sys.modules[{name!r}] = None; import keyfold"
        subprocess.run([sys.executable, "-c", code], check=True)
    loaded = "import sys, keyfold; print(sorted({'pyarrow', 'polars', 'pandas', 'duckdb', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True, text=True).stdout == "[]\n"


def test_rows_that_are_null_or_too_long_cost_their_values_alone(ring: keyfold.Keyring) -> None:
    ssn = ring.field("patient.ssn")
    values = pa.array(["a", None, "c", "d"])
    sealed = ssn.encrypt_column(values, rows=pa.array(["1", "2", "3", "4"]))
    rows = pa.array(["1", None, None, "4" * 5000])
    errors: list[keyfold.KeyfoldError] = []
    opened = ssn.decrypt_column(sealed, rows=rows, on_error="null", errors=errors)
    assert opened.to_pylist() == ["a", None, None, None]
    assert [(error.row, error.kind) for error in errors] == [(2, "InvalidInput"), (3, "LimitExceeded")]
    with pytest.raises(keyfold.InvalidInput) as raised:
        ssn.decrypt_column(sealed, rows=rows)
    assert raised.value.row == 2
