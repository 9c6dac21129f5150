"""Which objects are values of fields, and columns of them."""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Protocol, TypeAlias

Value: TypeAlias = str | bytes | bytearray | memoryview | int | float | bool | date | datetime | Decimal
"""What can be encrypted. A datetime has a time zone."""

Opened: TypeAlias = str | bytes | int | float | bool | date | datetime | Decimal | None
"""What decrypting gives: `bytes` for every kind of buffer, datetimes in UTC, None for a null that was sealed elsewhere."""


Sealed: TypeAlias = bytes | bytearray | memoryview | str
"""A sealed value: in binary form, or as `str` in text form."""

Token: TypeAlias = int | bytes
"""What a blind index stores and compares: a number of at most 63 bits, or 32 bytes."""


class ArrowArrayLike(Protocol):
    """A column of one piece: a pyarrow `Array`, and what else has Arrow's C data interface."""

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]: ...


class ArrowStreamLike(Protocol):
    """A column in chunks: a pyarrow `ChunkedArray`, a series of Polars or pandas, a relation of DuckDB with one column."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


ArrowColumn: TypeAlias = ArrowArrayLike | ArrowStreamLike
"""A column of any library that has Arrow's C interfaces."""

ArrowRows: TypeAlias = ArrowColumn | Sequence[Value | None]
"""What a column of values is bound to: a column, or a list."""
