"""Functions of SQL in DuckDB, which hands columns over in Arrow's layout. Needs duckdb and pyarrow.

    import duckdb
    import keyfold.duckdb

    con = duckdb.connect()
    keyfold.duckdb.register(con, "ssn", ring.field("patient.ssn"), row="VARCHAR")
    con.sql("select patient_id, encrypt_ssn(ssn, patient_id) as ssn from patients")
    con.sql("select decrypt_ssn(ssn, patient_id) from sealed")

A relation that has one column is a column to `Field.encrypt_column` as well. Do not give two relations for values and rows: DuckDB
runs each on its own, and need not give their rows in one order.
"""

from collections.abc import Callable
from typing import Any

import duckdb
import pyarrow as pa

from ._errors import invalid
from ._fields import field_of
from ._frames import without_frames
from ._native import Field

__all__ = ["register"]


def register(
    con: duckdb.DuckDBPyConnection, name: str, field: Field | str, /, *, value: str = "VARCHAR", row: str | None = None
) -> None:
    """Add the functions `encrypt_NAME` and `decrypt_NAME` to `con`, for values of the SQL type `value`.

    Where the policy binds the field to its row, `row` is the SQL type of the row, which is the second argument of both. Nulls stay
    null; a null row does not. What fails ends the query with an error of DuckDB that has the text of keyfold's.

    Types of values and rows are VARCHAR, BLOB, BOOLEAN, whole numbers of up to 64 bits, FLOAT, DOUBLE, DATE, TIMESTAMPTZ and UUID. Cast
    others in the query: `encrypt_NAME(document::varchar)`.

    Raises:
        InvalidInput: another SQL type. Nothing was added.
    """
    bound = field_of(field)
    rows = [] if row is None else [row]
    opened_type = _arrow_type(con, value)
    for other in rows:
        _arrow_type(con, other)

    def encrypt(data: Any, rows: Any = None) -> pa.ChunkedArray:
        return pa.chunked_array(bound.encrypt_column(data, rows=rows)).cast(pa.binary())

    def decrypt(data: Any, rows: Any = None) -> pa.ChunkedArray:
        return pa.chunked_array(bound.decrypt_column(data, rows=rows, type=opened_type))

    # Nulls come to us: DuckDB alone would let a value vanish whose row is null.
    how: dict[str, Any] = {"type": "arrow", "null_handling": "special"}
    con.create_function(f"encrypt_{name}", _of(encrypt, rows), [value, *rows], "BLOB", side_effects=True, **how)
    con.create_function(f"decrypt_{name}", _of(decrypt, rows), ["BLOB", *rows], value, **how)


# Those that open as they were, by DuckDB's own names.
_SQL_TYPES = {
    "VARCHAR", "BLOB", "BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT",
    "FLOAT", "DOUBLE", "DATE", "TIMESTAMP WITH TIME ZONE", "UUID",
}  # fmt: skip


def _arrow_type(con: duckdb.DuckDBPyConnection, sql_type: str) -> pa.DataType:
    """Return what values of `sql_type` are in Arrow."""
    nothing = con.sql(f"select null::{sql_type} as it")
    if (name := str(nothing.types[0])) not in _SQL_TYPES:
        raise invalid(f"values of the SQL type {name} would not open as they were: register VARCHAR, say, and cast in the query")
    return nothing.to_arrow_table().schema.field("it").type


def _of(work: Callable[..., pa.ChunkedArray], rows: list[str]) -> Callable[..., pa.ChunkedArray]:
    """Return `work` with as many parameters as DuckDB gives, since it counts them."""
    counted: Callable[..., pa.ChunkedArray] = (lambda data, row: work(data, row)) if rows else (lambda data: work(data))
    return without_frames(counted)
