"""Columns of Polars: `import keyfold.polars` adds a namespace `keyfold` to expressions and series.

    import polars as pl
    import keyfold
    import keyfold.polars

    ssn = ring.field("patient.ssn")
    frame.with_columns(pl.col("ssn").keyfold.encrypt(ssn, row=pl.col("patient_id")))

The same as functions, which type checkers know:

    frame.with_columns(keyfold.polars.encrypt(pl.col("ssn"), ssn, row=pl.col("patient_id")))

A field is a `keyfold.Field`, or its name after `keyfold.use(ring)`; a `row`, and an expression of the functions, may be the name of a
column. Expressions work lazily, and batch by batch in the streaming engine; their type is known before they run. The row in an error of
an expression is that of the batch, as the error says: which rows of the column a batch has is not known here. Errors of a series name the
row of the series. The GIL is let go of while a batch is worked on. `encrypt` is not repeatable: run twice, the ciphertexts differ, so
collect or sink what you mean to keep.

Null is what is missing, as always in Polars; NaN is a number, and is sealed and opened like one.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import polars as pl

from ._errors import KeyfoldError
from ._fields import field_of
from ._frames import without_frames
from ._native import Field

__all__ = ["ExprNamespace", "SeriesNamespace", "decrypt", "encrypt", "is_current", "reencrypt"]


def encrypt(
    expr: pl.Expr | str,
    field: Field | str,
    /,
    *,
    row: pl.Expr | str | None = None,
    form: Literal["binary", "text"] = "binary",
    on_error: Literal["raise", "null"] = "raise",
    errors: list[KeyfoldError] | None = None,
    seal_sealed: bool = False,
) -> pl.Expr:
    """Return the values of `expr` sealed, as Binary, or as String in text form; see `Field.encrypt_column`.

    Polars works once on what occurs twice in a query: two equal expressions give equal ciphertexts, and so do all rows of a
    literal. Both show that their values are equal.
    """
    bound = field_of(field)
    if on_error == "null" and errors is None:
        raise ValueError('what cannot be sealed is lost with on_error="null": give a list as `errors` that says what')

    def work(data: pl.Series, rows: pl.Series | None) -> pl.Series:
        sealed = bound.encrypt_column(
            data, rows=rows, form=form, on_error=on_error, errors=errors, seal_sealed=seal_sealed
        )
        return cast("pl.Series", sealed)

    return _map(expr, row, work, pl.String() if form == "text" else pl.Binary())


def decrypt(
    expr: pl.Expr | str,
    field: Field | str,
    /,
    *,
    row: pl.Expr | str | None = None,
    dtype: pl.DataType | type[pl.DataType] | None = None,
    on_error: Literal["raise", "null"] = "raise",
    errors: list[KeyfoldError] | None = None,
) -> pl.Expr:
    """Return the values of sealed ones, as `dtype`; see `Field.decrypt_column`.

    Without `dtype` it is that of the policy, or String where the policy gives the field none: the type of an expression must be
    known before there is a value to look at.
    """
    bound = field_of(field)
    # Of no value at all the type is what it is without a look at values.
    no_rows = None if row is None else pl.Series(dtype=pl.Binary)
    known: pl.DataType = _instance(dtype) or bound.decrypt_column(pl.Series(dtype=pl.Binary), rows=no_rows).dtype

    def work(data: pl.Series, rows: pl.Series | None) -> pl.Series:
        return cast("pl.Series", bound.decrypt_column(data, rows=rows, type=known, on_error=on_error, errors=errors))

    return _map(expr, row, work, known)


def reencrypt(
    expr: pl.Expr | str, field: Field | str, /, *, row: pl.Expr | str | None = None, force: bool = False
) -> pl.Expr:
    """Return sealed values, with those sealed again that are not under the key that seals now; see `Field.reencrypt_column`."""
    bound = field_of(field)

    def work(data: pl.Series, rows: pl.Series | None) -> pl.Series:
        return cast("pl.Series", bound.reencrypt_column(data, rows=rows, force=force))

    return _map(expr, row, work, pl.dtype_of(_expr(expr)))


def is_current(expr: pl.Expr | str, field: Field | str, /) -> pl.Expr:
    """Return whether each sealed value is under the key that seals now; see `Field.is_current`."""
    bound = field_of(field)
    return _map(expr, None, lambda data, rows: cast("pl.Series", bound.is_current(data)), pl.Boolean())


def _expr(expr: pl.Expr | str) -> pl.Expr:
    return pl.col(expr) if isinstance(expr, str) else expr


def _instance(dtype: pl.DataType | type[pl.DataType] | None) -> pl.DataType | None:
    return dtype() if isinstance(dtype, type) else dtype


def _map(
    data: pl.Expr | str,
    row: pl.Expr | str | None,
    work: Callable[[pl.Series, pl.Series | None], pl.Series],
    dtype: pl.DataType | pl.DataTypeExpr,
) -> pl.Expr:
    @without_frames
    def work_on(columns: Sequence[pl.Series]) -> pl.Series:
        try:
            return work(columns[0], columns[1] if len(columns) == 2 else None)
        except KeyfoldError as error:
            raise _lasting(error) from None

    columns = [_expr(data)] if row is None else [_expr(data), _expr(row)]
    return pl.map_batches(columns, work_on, return_dtype=dtype, is_elementwise=True)


def _lasting(error: KeyfoldError) -> KeyfoldError:
    """Return `error` as one that keeps its code when Polars makes another exception of its class, out of a longer text alone."""
    known = type(error)

    def init(self: KeyfoldError, message: str) -> None:
        known.__init__(self, message, error.code, error.kind, error.retryable, error.row)

    def reduce(self: KeyfoldError) -> tuple[type[KeyfoldError], tuple[Any, ...]]:
        # This class is known nowhere else.
        return known, self.args

    names = {"__init__": init, "__reduce__": reduce, "__module__": known.__module__}
    made: type[KeyfoldError] = type(known.__name__, (known,), names)
    return made(str(error) if error.row is None else f"{error} (in row {error.row} of a batch)")


@pl.api.register_expr_namespace("keyfold")
class ExprNamespace:
    """`pl.col(…).keyfold`"""

    def __init__(self, expr: pl.Expr) -> None:
        self._expr = expr

    @without_frames
    def encrypt(
        self,
        field: Field | str,
        *,
        row: pl.Expr | str | None = None,
        form: Literal["binary", "text"] = "binary",
        on_error: Literal["raise", "null"] = "raise",
        errors: list[KeyfoldError] | None = None,
        seal_sealed: bool = False,
    ) -> pl.Expr:
        """Return the values sealed: see `keyfold.polars.encrypt`."""
        return encrypt(
            self._expr, field, row=row, form=form, on_error=on_error, errors=errors, seal_sealed=seal_sealed
        )

    @without_frames
    def decrypt(
        self,
        field: Field | str,
        *,
        row: pl.Expr | str | None = None,
        dtype: pl.DataType | type[pl.DataType] | None = None,
        on_error: Literal["raise", "null"] = "raise",
        errors: list[KeyfoldError] | None = None,
    ) -> pl.Expr:
        """Return the values of sealed ones, as `dtype`: see `keyfold.polars.decrypt`."""
        return decrypt(self._expr, field, row=row, dtype=dtype, on_error=on_error, errors=errors)

    def reencrypt(self, field: Field | str, *, row: pl.Expr | str | None = None, force: bool = False) -> pl.Expr:
        """Return what is under older keys sealed again: see `keyfold.polars.reencrypt`."""
        return reencrypt(self._expr, field, row=row, force=force)

    def is_current(self, field: Field | str) -> pl.Expr:
        """Return whether each value is under the key that seals now: see `keyfold.polars.is_current`."""
        return is_current(self._expr, field)


@pl.api.register_series_namespace("keyfold")
class SeriesNamespace:
    """`series.keyfold`"""

    def __init__(self, series: pl.Series) -> None:
        self._series = series

    @without_frames
    def encrypt(
        self,
        field: Field | str,
        *,
        row: pl.Series | None = None,
        form: Literal["binary", "text"] = "binary",
        on_error: Literal["raise", "null"] = "raise",
        errors: list[KeyfoldError] | None = None,
        seal_sealed: bool = False,
    ) -> pl.Series:
        """Return the values sealed; see `Field.encrypt_column`."""
        sealed = field_of(field).encrypt_column(
            self._series, rows=row, form=form, on_error=on_error, errors=errors, seal_sealed=seal_sealed
        )
        return cast("pl.Series", sealed)

    @without_frames
    def decrypt(
        self,
        field: Field | str,
        *,
        row: pl.Series | None = None,
        dtype: pl.DataType | type[pl.DataType] | None = None,
        on_error: Literal["raise", "null"] = "raise",
        errors: list[KeyfoldError] | None = None,
    ) -> pl.Series:
        """Return the values of sealed ones; see `Field.decrypt_column`."""
        opened = field_of(field).decrypt_column(self._series, rows=row, type=dtype, on_error=on_error, errors=errors)
        return cast("pl.Series", opened)

    @without_frames
    def reencrypt(self, field: Field | str, *, row: pl.Series | None = None, force: bool = False) -> pl.Series:
        """Return what is under older keys sealed again; see `Field.reencrypt_column`."""
        return cast("pl.Series", field_of(field).reencrypt_column(self._series, rows=row, force=force))

    @without_frames
    def is_current(self, field: Field | str) -> pl.Series:
        """Return whether each value is under the key that seals now; see `Field.is_current`."""
        return cast("pl.Series", field_of(field).is_current(self._series))
