"""Columns of Polars: `import keyfold.polars` adds a namespace `keyfold` to expressions and series.

    import polars as pl
    import keyfold
    import keyfold.polars

    ssn = ring.field("patient.ssn")
    frame.with_columns(pl.col("ssn").keyfold.encrypt(ssn, row=pl.col("patient_id")))

A field is a `keyfold.Field`, or its name after `keyfold.use(ring)`. Expressions work lazily, and batch by batch in the streaming
engine; their type is known before they run. The row in an error is that of the batch, which is the column's where there is one
batch. The GIL is let go of while a batch is worked on. `encrypt` is not repeatable: run
twice, the ciphertexts differ, so collect or sink what you mean to keep.
"""

from collections.abc import Callable, Sequence
from typing import Literal, cast

import polars as pl

from ._errors import KeyfoldError
from ._fields import field_of
from ._frames import without_frames
from ._native import Field

__all__ = ["ExprNamespace", "SeriesNamespace"]


def _encrypt(
    data: pl.Series,
    field: Field,
    row: pl.Series | None,
    form: Literal["binary", "text"],
    on_error: Literal["raise", "null"],
    errors: list[KeyfoldError] | None,
) -> pl.Series:
    sealed = field.encrypt_column(data, rows=row, form=form, on_error=on_error, errors=errors)
    return cast("pl.Series", sealed)


def _decrypt(
    data: pl.Series,
    field: Field,
    row: pl.Series | None,
    dtype: pl.DataType | None,
    on_error: Literal["raise", "null"],
    errors: list[KeyfoldError] | None,
) -> pl.Series:
    wanted = None if dtype is None else pl.Schema({"": dtype})
    return cast("pl.Series", field.decrypt_column(data, rows=row, type=wanted, on_error=on_error, errors=errors))


def _instance(dtype: pl.DataType | type[pl.DataType] | None) -> pl.DataType | None:
    return dtype() if isinstance(dtype, type) else dtype


def _map(
    data: pl.Expr, row: pl.Expr | None, work: Callable[[pl.Series, pl.Series | None], pl.Series], dtype: pl.DataType
) -> pl.Expr:
    @without_frames
    def work_on(columns: Sequence[pl.Series]) -> pl.Series:
        try:
            return work(columns[0], columns[1] if len(columns) == 2 else None)
        except KeyfoldError as error:
            raise _lasting(error) from None

    columns = [data] if row is None else [data, row]
    return pl.map_batches(columns, work_on, return_dtype=dtype, is_elementwise=True)


def _lasting(error: KeyfoldError) -> KeyfoldError:
    """Return `error` as one that keeps its code when Polars makes another exception of its class, out of a longer text alone."""
    known = type(error)

    def init(self: KeyfoldError, message: str) -> None:
        known.__init__(self, message, error.code, error.kind, error.retryable, error.row)

    made: type[KeyfoldError] = type(known.__name__, (known,), {"__init__": init, "__module__": known.__module__})
    return made(str(error))


@pl.api.register_expr_namespace("keyfold")
class ExprNamespace:
    """`pl.col(…).keyfold`"""

    def __init__(self, expr: pl.Expr) -> None:
        self._expr = expr

    @without_frames
    def encrypt(
        self,
        field: Field | str,
        /,
        *,
        row: pl.Expr | None = None,
        form: Literal["binary", "text"] = "binary",
        on_error: Literal["raise", "null"] = "raise",
    ) -> pl.Expr:
        """Return the values sealed, as Binary, or as String in text form; see `Field.encrypt_column`.

        Polars works once on what occurs twice in a query: two equal expressions give equal ciphertexts, and so do all rows of a
        literal. Both show that their values are equal.
        """
        bound = field_of(field)
        dtype: pl.DataType = pl.String() if form == "text" else pl.Binary()
        return _map(self._expr, row, lambda data, rows: _encrypt(data, bound, rows, form, on_error, None), dtype)

    @without_frames
    def decrypt(
        self,
        field: Field | str,
        /,
        *,
        row: pl.Expr | None = None,
        dtype: pl.DataType | type[pl.DataType] | None = None,
        on_error: Literal["raise", "null"] = "raise",
    ) -> pl.Expr:
        """Return the values of sealed ones, as `dtype`; see `Field.decrypt_column`.

        Without `dtype` it is that of the policy, or String where the policy gives the field none: the type of an expression must be
        known before there is a value to look at.
        """
        bound = field_of(field)
        # Of no value at all the type is what it is without a look at values.
        known = _instance(dtype) or _decrypt(pl.Series(dtype=pl.Binary), bound, _no_rows(row), None, "raise", None).dtype
        return _map(self._expr, row, lambda data, rows: _decrypt(data, bound, rows, known, on_error, None), known)


def _no_rows(row: pl.Expr | None) -> pl.Series | None:
    return None if row is None else pl.Series(dtype=pl.Binary)


@pl.api.register_series_namespace("keyfold")
class SeriesNamespace:
    """`series.keyfold`"""

    def __init__(self, series: pl.Series) -> None:
        self._series = series

    @without_frames
    def encrypt(
        self,
        field: Field | str,
        /,
        *,
        row: pl.Series | None = None,
        form: Literal["binary", "text"] = "binary",
        on_error: Literal["raise", "null"] = "raise",
        errors: list[KeyfoldError] | None = None,
    ) -> pl.Series:
        """Return the values sealed; see `Field.encrypt_column`."""
        return _encrypt(self._series, field_of(field), row, form, on_error, errors)

    @without_frames
    def decrypt(
        self,
        field: Field | str,
        /,
        *,
        row: pl.Series | None = None,
        dtype: pl.DataType | type[pl.DataType] | None = None,
        on_error: Literal["raise", "null"] = "raise",
        errors: list[KeyfoldError] | None = None,
    ) -> pl.Series:
        """Return the values of sealed ones; see `Field.decrypt_column`."""
        return _decrypt(self._series, field_of(field), row, _instance(dtype), on_error, errors)
