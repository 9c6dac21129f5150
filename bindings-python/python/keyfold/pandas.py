"""Columns of pandas: `import keyfold.pandas` adds an accessor `keyfold` to series and frames. Needs pandas 3 and pyarrow.

    import pandas as pd
    import keyfold.pandas

    ssn = ring.field("patient.ssn")
    frame["ssn"].keyfold.encrypt(ssn, row=frame["patient_id"])
    frame.keyfold.encrypt({"ssn": ssn, "mrn": ring.field("patient.mrn")}, row="patient_id")

A field is a `keyfold.Field`, or its name after `keyfold.use(ring)`. Rows go by position: a series of rows has the index of the values, so
that nothing is bound to another row than it looks. Sealed columns and opened ones keep index and name, and have the types of Arrow
(`binary[pyarrow]`, `int64[pyarrow]`); text opens as `str`.

What pandas calls missing (None, NaN, NaT, NA) is null: it is not sealed and not protected. Bytes that are written to CSV become texts like
"b'…'", which do not open: seal with `form="text"` what goes there.
"""

from collections.abc import Mapping
from typing import Literal, cast

import pandas as pd

from ._errors import KeyfoldError, invalid
from ._fields import field_of
from ._frames import without_frames
from ._native import Field

__all__ = ["FrameAccessor", "SeriesAccessor"]

if not hasattr(pd.Series, "__arrow_c_stream__"):
    raise ImportError(f"keyfold.pandas needs pandas 3, whose columns have Arrow's interface, and this is {pd.__version__}")


def _check_aligned(values: "pd.Series", row: object) -> None:
    """Refuse rows that another position belongs to by their index. What has no index goes by position."""
    if isinstance(row, pd.Series) and not row.index.equals(values.index):
        raise invalid("the index of row is not that of the values: align it first, with row.reindex(values.index) or values.loc[row.index]")


@pd.api.extensions.register_series_accessor("keyfold")
class SeriesAccessor:
    """`series.keyfold`"""

    def __init__(self, series: "pd.Series") -> None:
        self._series = series

    @without_frames
    def encrypt(
        self,
        field: Field | str,
        *,
        row: "pd.Series | None" = None,
        form: Literal["binary", "text"] = "binary",
        on_error: Literal["raise", "null"] = "raise",
        errors: list[KeyfoldError] | None = None,
        seal_sealed: bool = False,
    ) -> "pd.Series":
        """Return the values sealed; see `Field.encrypt_column`.

        Raises:
            InvalidInput: `row` is a series whose index is not that of the values.
        """
        _check_aligned(self._series, row)
        sealed = field_of(field).encrypt_column(
            self._series, rows=row, form=form, on_error=on_error, errors=errors, seal_sealed=seal_sealed
        )
        return cast("pd.Series", sealed)

    @without_frames
    def decrypt(
        self,
        field: Field | str,
        *,
        row: "pd.Series | None" = None,
        type: object | None = None,
        on_error: Literal["raise", "null"] = "raise",
        errors: list[KeyfoldError] | None = None,
    ) -> "pd.Series":
        """Return the values of sealed ones, as the Arrow type `type`; see `Field.decrypt_column`.

        Raises:
            InvalidInput: `row` is a series whose index is not that of the values.
        """
        _check_aligned(self._series, row)
        opened = field_of(field).decrypt_column(self._series, rows=row, type=type, on_error=on_error, errors=errors)
        return cast("pd.Series", opened)

    @without_frames
    def reencrypt(self, field: Field | str, *, row: "pd.Series | None" = None, force: bool = False) -> "pd.Series":
        """Return what is under older keys sealed again; see `Field.reencrypt_column`."""
        _check_aligned(self._series, row)
        return cast("pd.Series", field_of(field).reencrypt_column(self._series, rows=row, force=force))

    @without_frames
    def is_current(self, field: Field | str) -> "pd.Series":
        """Return whether each value is under the key that seals now; see `Field.is_current`."""
        return cast("pd.Series", field_of(field).is_current(self._series))


@pd.api.extensions.register_dataframe_accessor("keyfold")
class FrameAccessor:
    """`frame.keyfold`"""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame

    @without_frames
    def encrypt(self, fields: Mapping[str, Field | str], *, row: str | None = None) -> pd.DataFrame:
        """Return a copy in which the columns that `fields` names are sealed: where the policy binds rows, each value to its row's
        value of the column `row`, which is not sealed yet. What seals that column itself must not bind it to its own row.

        Raises:
            InvalidInput: the column `row` is among `fields`, with a field that binds rows: it would not open.
        """
        bound = _bound(fields)
        if row in bound and bound[row].binds_row:
            raise invalid(f"the column {row!r} cannot be bound to itself")
        sealed = {
            name: SeriesAccessor(self._frame[name]).encrypt(field, row=self._rows(field, row)) for name, field in bound.items()
        }
        return self._frame.assign(**sealed)

    @without_frames
    def decrypt(self, fields: Mapping[str, Field | str], *, row: str | None = None) -> pd.DataFrame:
        """Return a copy in which the columns that `fields` names are open: that of `row` first, if it is among them."""
        bound = _bound(fields)
        if row in bound and not bound[row].binds_row:
            rows = SeriesAccessor(self._frame[row]).decrypt(bound.pop(row))
            return FrameAccessor(self._frame.assign(**{row: rows})).decrypt(bound, row=row)
        opened = {
            name: SeriesAccessor(self._frame[name]).decrypt(field, row=self._rows(field, row)) for name, field in bound.items()
        }
        return self._frame.assign(**opened)

    def _rows(self, field: Field, row: str | None) -> "pd.Series | None":
        """What values of `field` are bound to, if to anything."""
        rows = None if row is None else self._frame[row]
        return rows if field.binds_row else None


def _bound(fields: Mapping[str, Field | str]) -> dict[str, Field]:
    return {name: field_of(field) for name, field in fields.items()}
