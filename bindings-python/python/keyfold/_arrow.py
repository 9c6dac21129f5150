"""Columns in the hands of the libraries that they came from."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._native import ArrowArray, ArrowStream


def like(given: Any, made: "ArrowArray | ArrowStream") -> Any:
    """Return `made` as the kind of object that `given` is; as it is, if there is none of that kind.

    Imports a library only where `given` comes from it.
    """
    match type(given).__module__.partition(".")[0]:
        case "pyarrow":
            import pyarrow as pa

            if isinstance(given, pa.Array):
                return pa.array(made)
            if isinstance(given, pa.ChunkedArray):
                return pa.chunked_array(made)
        case "polars":
            import polars as pl

            if isinstance(given, pl.Series):
                return pl.Series(made).rename(given.name)
        case "pandas":
            import pandas as pd
            import pyarrow as pa

            if isinstance(given, pd.Series):
                column = pa.chunked_array(made)
                is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
                # pandas has a type for text that all of it knows; for the others it has those of Arrow.
                dtype = "str" if is_text else pd.ArrowDtype(column.type)
                return pd.Series(pd.array(column, dtype=dtype), index=given.index, name=given.name)
    return made
