"""Columns in the hands of the libraries that they came from."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._native import ArrowArray, ArrowStream


def without_missing(values: Any) -> Any:
    """Return the values of a series, an index or an array of pandas, with None for what is missing: NaN, NaT and NA."""
    import pandas as pd

    if not isinstance(values, pd.Series | pd.Index | pd.api.extensions.ExtensionArray):
        return values
    return [None if missing else value for value, missing in zip(values, values.isna(), strict=True)]


def not_a_column(given: Any, raised: str) -> tuple[str, int | None]:
    """Say what is wrong with `given`, which raised an exception of the class `raised`, and in which row, without a value of it."""
    if type(given).__module__.partition(".")[0] == "pandas" and hasattr(type(given), "items"):
        import pandas as pd

        if isinstance(given, pd.Series) and given.dtype == object:
            known: type | None = None
            for row, value in enumerate(without_missing(given)):
                if value is None or type(value) is known:
                    continue
                if known is not None:
                    return f"column {given.name!r} has {known.__name__}, and {type(value).__name__} in row {row}", row
                known = type(value)
    return f"{type(given).__name__} raised {raised}", None


def schema_of(dtype: Any) -> Any:
    """Return what has the Arrow schema of `dtype`, if that is a type of Polars or pandas; otherwise `dtype` itself."""
    match (dtype if isinstance(dtype, type) else type(dtype)).__module__.partition(".")[0]:
        case "polars":
            import polars as pl

            if isinstance(dtype, pl.DataType) or (isinstance(dtype, type) and issubclass(dtype, pl.DataType)):
                return pl.Schema({"": dtype})
        case "pandas":
            import pandas as pd

            if isinstance(dtype, pd.ArrowDtype):
                return dtype.pyarrow_dtype
    return dtype


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
