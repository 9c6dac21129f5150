"""A column of another library's values, sealed by keyfold."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from .._arrow import like, without_missing
from .._errors import FormatError, InvalidInput, KeyfoldError, PolicyRefused, invalid
from .._frames import without_frames
from .._native import Field, to_text
from .._types import Value
from ._readers import Reader

# Values that are in clear at a time.
_CHUNK = 4096


def text(plaintext: bytes) -> str:
    """Return the text that `plaintext` is in UTF-8.

    Raises:
        FormatError: it is none.
    """
    try:
        return plaintext.decode()
    except UnicodeDecodeError:
        raise FormatError("the plaintext is not text in UTF-8", 200, "Malformed") from None


@without_frames
def import_column(
    column: Any,
    reader: Reader,
    field: Field,
    *,
    rows: Any = None,
    aad: Any = None,
    decode: Callable[[bytes], Value] = text,
    form: Literal["binary", "text"] = "binary",
    on_error: Literal["raise", "null"] = "raise",
    errors: list[KeyfoldError] | None = None,
) -> Any:
    """Return the column `column`, which `reader` opens, sealed as values of `field`, each bound to its row of `rows`.

    `column` is a column of pyarrow, Polars or pandas, or a list, and the result is one too; nulls stay null. `rows` and `aad`, which has
    what `reader` needs besides each value, are as long. `decode` makes the value of its bytes: `bytes` leaves them as they are, and a
    function of the caller makes numbers or dates. No more than 4,096 values are in clear at a time.

    Until now nothing may have bound a value to its row: what stands in a row is what is bound to it from now on.

    Raises:
        FormatError, NoMatchingKey, DecryptionFailed: a value does not open, or `decode` refused it with a `ValueError`; with the row in
            `.row`. With `on_error="null"` it becomes null, and the error is added to `errors`, which is needed then.
        InvalidInput: as `Field.encrypt`, and where columns differ in length.
        PolicyRefused, KeyRefused, KmsError, StoreError: as `Field.encrypt`.
        What a library raises whose key service fails.
    """
    if on_error == "null" and errors is None:
        raise invalid("a value that is not imported is lost here: give a list for the errors")
    count = len(column)
    for other in (rows, aad):
        if other is not None and len(other) != count:
            raise invalid(f"{count} values, and {len(other)} rows or associated data")
    sealed: list[bytes | None] = []
    failed: list[KeyfoldError] = []
    for start in range(0, count, _CHUNK):
        part = slice(start, start + _CHUNK)
        values, found = open_values(_values(column, part), reader, _optional(aad, part), decode)
        chunk, refused = seal_values(values, field, _optional(rows, part))
        for error in sorted(found + refused, key=lambda error: error.row or 0):
            error.row = start + (error.row or 0)
            if on_error == "raise":
                raise error
            failed.append(error)
        sealed += chunk
    if errors is not None:
        errors += failed
    return _column_like(column, in_form(sealed, form), form)


def open_values(
    sealed: Sequence[Any], reader: Reader, aad: Sequence[Any] | None, decode: Callable[[bytes], Value]
) -> tuple[list[Value | None], list[KeyfoldError]]:
    """Return what `reader` opens, with None for what is None or does not open, and the errors with their rows."""
    values: list[Value | None] = []
    errors: list[KeyfoldError] = []
    for row, each in enumerate(sealed):
        value: Value | None = None
        try:
            if each is not None:
                value = _decoded(reader.open(each, None if aad is None else aad[row]), decode)
        except InvalidInput:
            # The caller's, about all values.
            raise
        except KeyfoldError as error:
            error.row = row
            errors.append(error)
        values.append(value)
    return values, errors


def seal_values(
    values: list[Value | None], field: Field, rows: Sequence[Any] | None
) -> tuple[list[bytes | None], list[KeyfoldError]]:
    """Return `values` sealed, with None for those that cannot be, and the errors with their rows."""
    # A row without a value has nothing to be bound.
    given = None if rows is None else ["" if value is None else row for value, row in zip(values, rows, strict=True)]
    errors: list[KeyfoldError] = []
    values = list(values)
    while True:
        try:
            return field.encrypt_many(values, rows=given), errors
        except (InvalidInput, PolicyRefused) as error:
            if error.row is None or values[error.row] is None:
                raise
            errors.append(error)
            values[error.row] = None
            if given is not None:
                given[error.row] = ""


def in_form(sealed: list[bytes | None], form: Literal["binary", "text"]) -> Sequence[bytes | str | None]:
    """Return sealed values as they are, or in text form."""
    return sealed if form == "binary" else [None if each is None else to_text(each) for each in sealed]


def _decoded(plaintext: bytes, decode: Callable[[bytes], Value]) -> Value:
    try:
        return decode(plaintext)
    except KeyfoldError:
        raise
    except (ValueError, ArithmeticError):
        # Its text may have the plaintext.
        raise FormatError("the plaintext is not what `decode` takes", 200, "Malformed") from None


def _optional(column: Any, part: slice) -> list[Any] | None:
    return None if column is None else _values(column, part)


def _values(column: Any, part: slice) -> list[Any]:
    """Return some of a column as objects of Python, with None for what is missing."""
    match type(column).__module__.partition(".")[0]:
        case "pyarrow":
            return list(column[part].to_pylist())
        case "polars":
            return list(column[part].to_list())
        case "pandas":
            return [_plain(value) for value in without_missing(column.iloc[part])]
    return list(column[part])


def _plain(value: Any) -> Any:
    """Return a number of NumPy as one of Python."""
    return value.item() if type(value).__module__.partition(".")[0] == "numpy" else value


def _column_like(given: Any, values: Sequence[Any], form: Literal["binary", "text"]) -> Any:
    """Return `values` as the kind of column that `given` is, a list of lists."""
    match type(given).__module__.partition(".")[0]:
        case "pyarrow" | "pandas":
            import pyarrow as pa

            kind = pa.string() if form == "text" else pa.binary()
            pieces = [pa.array(values[start : start + _CHUNK], kind) for start in range(0, max(len(values), 1), _CHUNK)]
            return pa.concat_arrays(pieces) if isinstance(given, pa.Array) else like(given, pa.chunked_array(pieces, kind))
        case "polars":
            import polars as pl

            return pl.Series(given.name, values, dtype=pl.String if form == "text" else pl.Binary)
    return values
