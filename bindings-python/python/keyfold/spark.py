"""DataFrames of Spark: the executors seal and open columns, batch by batch in Arrow's layout. Needs pyspark 4, which needs pandas, and pyarrow.

    import keyfold
    import keyfold.spark

    config = keyfold.Config("/etc/keyfold/keyfold.toml", ["/etc/keyfold/policy.toml"])
    sealed = keyfold.spark.encrypt(patients, {"ssn": "patient.ssn", "name": "patient.name"}, config, row="patient_id")
    opened = keyfold.spark.decrypt(sealed, {"ssn": "patient.ssn"}, config, row="patient_id")

`config` is what executors open the keyring with: a `Config`, whose files they have; one `with_records`, where they do not reach the
store; or a function without parameters that returns a `Keyring`, for whatever else opening it takes. Each Python worker of an
executor opens the keyring once and keeps it, so key services are asked once per worker, however many rows and partitions there are.
A worker notices a rotation within the `check_every` of the configuration; `reencrypt` opens the keyring anew, to miss none.

Everything is lazy, as in Spark, and nothing here collects. Sealing is not repeatable: write the sealed frame, or cache it, before it is
used twice. What is open is Spark's to keep: it may write it to its own files, which `spark.io.encryption.enabled` encrypts.

A field that binds its row takes the value of the column `row`; where `fields` names that column too, its value in clear. `scope` is of the
fields that have one: a deterministic field has a partition in its place.

What is wrong with the call is said by the driver, before there is a job: columns that the frame has not, and, where `config` is a `Config`
whose files the driver has, fields that the policy has not and a `row` that is missing. For that the driver reads these files, and neither the
store nor a key service.
"""

import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
from pyspark import cloudpickle
from pyspark.sql import DataFrame
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import BinaryType, DataType, StructField, StructType

from ._config import Config
from ._errors import DecryptionFailed, FormatError, KeyfoldError, PolicyRefused, StoreError
from ._frames import without_frames
from ._native import Field, Keyring, _read_policy, _row_bindings, to_text
from ._native import census as census_of
from ._native import inspect as inspected

__all__ = ["census", "decrypt", "encrypt", "reencrypt"]

Opener: TypeAlias = Config | Callable[[], Keyring]
"""How an executor comes to a keyring."""

# So long that it holds the header of a value, of which two under one key do not differ: FORMAT.md §3 and §6.
_HEAD_LEN, _TEXT_HEAD_LEN = 26, 42

_OPENED = {"bytes": "binary", "integer": "long", "float": "double", "boolean": "boolean", "date": "date", "timestamp": "timestamp"}
"""The types of Spark as which values of the policy's types open; the others open as string."""

_OURS = {"text": "string", "json": "string", "bytes": "binary"}
"""Names of types in policies that Spark does not have."""


@without_frames
def encrypt(
    frame: DataFrame,
    fields: Mapping[str, str],
    config: Opener,
    *,
    row: str | None = None,
    scope: str | None = None,
    context: Mapping[str, str | bytes] | None = None,
) -> DataFrame:
    """Return `frame` with the columns that `fields` maps to fields of the policy sealed, as binary. Nulls stay null.

    What cannot be sealed fails the job, with the text of keyfold's error; see `Field.encrypt_column`.
    """
    _policy_of(config, fields, row)
    work = _Work(_pickled(config), _checked(frame, fields, row), row, scope, _context(context))
    return frame.mapInArrow(partial(_encrypted, work), _with(frame.schema, dict.fromkeys(fields, BinaryType())))


@without_frames
def decrypt(
    frame: DataFrame,
    fields: Mapping[str, str],
    config: Opener,
    *,
    row: str | None = None,
    scope: str | None = None,
    context: Mapping[str, str | bytes] | None = None,
    types: Mapping[str, DataType | str] | None = None,
    errors: str | None = None,
) -> DataFrame:
    """Return `frame` with the columns that `fields` maps to fields of the policy open.

    They have the types that `types` names, as Spark does: `{"age": "long", "born": DateType()}`, or "text", "json" and "bytes" as policies do.
    A name that both have is Spark's: "integer" is a whole number of 32 bits, and "float" one of 32 bits. Without a name it is the type of the
    policy, where the driver can read that: whole numbers open as long, others as double. Otherwise it is string.

    A value that does not open fails the job. With `errors`, the name of a column to add, it becomes null instead, and the column
    says which of `fields` did not open and why: "ssn: DecryptionFailed". That may be tampering, so look at it. A key service or a
    store that fails ends the job all the same.
    """
    policy = _policy_of(config, fields, row)
    known = {name: _OPENED.get(policy.get(field, (False, None))[1] or "", "string") for name, field in fields.items()}
    asked = {name: _OURS.get(dtype, dtype) if isinstance(dtype, str) else dtype for name, dtype in (types or {}).items()}
    columns: dict[str, DataType | str] = {**known, **asked}
    if unknown := columns.keys() - fields:
        raise ValueError(f"types for columns that are not opened: {', '.join(sorted(unknown))}")
    schema = _with(frame.schema, columns)
    if errors is not None:
        if errors in frame.columns:
            raise ValueError(f"the frame has a column {errors!r} already")
        schema = schema.add(errors, "string")
    work = _Work(_pickled(config), _checked(frame, fields, row), row, scope, _context(context))
    return frame.mapInArrow(partial(_decrypted, work, to_arrow_schema(schema, timezone="UTC"), errors), schema)


@without_frames
def reencrypt(
    frame: DataFrame,
    fields: Mapping[str, str],
    config: Opener,
    *,
    row: str | None = None,
    scope: str | None = None,
    context: Mapping[str, str | bytes] | None = None,
) -> DataFrame:
    """Return `frame` with what is not under the key that seals now sealed again, in its form. All other values stay as they are: those
    that are current, nulls, and cells that are no sealed values, which `census` counts.

    Which key a value is under is read in its header. JSON in a field to which the policy gives no type becomes text. Opens the
    keyring anew in each worker, at the cost of one more request to the key service, so that every earlier rotation is seen.
    """
    _policy_of(config, fields, row)
    work = _Work(_pickled(config), _checked(frame, fields, row), row, scope, _context(context), as_of=str(uuid4()))
    return frame.mapInArrow(partial(_reencrypted, work), frame.schema)


def census(frame: DataFrame, columns: Sequence[str]) -> DataFrame:
    """Return how many values of `columns` are sealed under which key, from their headers alone: needs no keyring and no key.

    Its columns are `column`, `what` ("sealed", "null" or "not sealed"), `key_id`, `generation` and `count`.
    """
    counts = frame.select(*columns).mapInArrow(
        partial(_counted, tuple(columns)), "column string, what string, key_id string, generation long, count long"
    )
    # A user may have a column of that name, and not here.
    return counts.groupBy("column", "what", "key_id", "generation").sum("count").withColumnRenamed("sum(count)", "count")


class _Pickled(bytes):
    """A pickled `Opener`. A function may hold whatever the user put there, which is not shown."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<keyfold.spark opener>"


@dataclass(frozen=True)
class _Work:
    """What an executor is to do, in a form that can be sent to it."""

    opener: _Pickled
    fields: tuple[tuple[str, str], ...]
    row: str | None
    scope: str | None
    context: tuple[tuple[str, str | bytes], ...]
    as_of: str = ""
    """Set where a keyring that has been open for a while does not do."""

    def bound(self) -> dict[str, Field]:
        ring, context, bound = _ring(self.opener, self.as_of), dict(self.context), {}
        for name, field in self.fields:
            bound[name] = ring.field(field, context=context)
            if self.scope is not None and bound[name].mode == "randomized":
                bound[name] = ring.field(field, scope=self.scope, context=context)
        return bound

    def __repr__(self) -> str:
        # Spark may show it, and a context is for nobody's eyes.
        return f"<keyfold.spark {', '.join(name for name, _ in self.fields)}>"


# Keyrings of this process, and as of what each was opened; the oldest first.
_rings: dict[_Pickled, tuple[str, Keyring]] = {}
_MAX_RINGS = 16


def _ring(opener: _Pickled, as_of: str) -> Keyring:
    """The keyring of this process, for every task that it is given; opened anew for each new `as_of`, which takes the place of the old."""
    known = _rings.get(opener)
    if known is not None and as_of in ("", known[0]):
        return known[1]
    made = pickle.loads(opener)
    ring: Keyring = made.open() if isinstance(made, Config) else made()
    _rings.pop(opener, None)
    if len(_rings) >= _MAX_RINGS:
        del _rings[next(iter(_rings))]
    _rings[opener] = as_of, ring
    return ring


def _pickled(config: Opener) -> _Pickled:
    # By value where it is a function of the main module or a notebook, which executors cannot import.
    pickled: bytes = cloudpickle.dumps(config)  # type: ignore[no-untyped-call]
    return _Pickled(pickled)


def _context(context: Mapping[str, str | bytes] | None) -> tuple[tuple[str, str | bytes], ...]:
    return tuple(sorted((context or {}).items()))


def _checked(frame: DataFrame, fields: Mapping[str, str], row: str | None) -> tuple[tuple[str, str], ...]:
    for name in [*fields, *([] if row is None else [row])]:
        if frame.columns.count(name) != 1:
            raise ValueError(f"the frame has {frame.columns.count(name)} columns {name!r}")
    return tuple(fields.items())


def _policy_of(config: Opener, fields: Mapping[str, str], row: str | None) -> dict[str, tuple[bool, str | None]]:
    """Check the arguments against each other and against the policy, and return that: of each field whether it binds its row, and its
    type. Empty where only executors have the policy."""
    if isinstance(config, Keyring):
        raise TypeError("a keyring stays where it is: give its `config`, or a function that opens one")
    if not isinstance(config, Config) and not callable(config):
        raise TypeError(f"config is a keyfold.Config, or a function that opens a keyring, not {type(config).__name__}")
    for name in [*fields, *fields.values(), *([] if row is None else [row])]:
        if not isinstance(name, str):
            raise TypeError(f"fields maps names of columns to names of fields, and row is one of a column, not {type(name).__name__}")
    if not isinstance(config, Config):
        return {}
    try:
        policy = _read_policy(config.path, config.policies)
    except StoreError:
        # The driver does not have the files, and need not. Executors say what is wrong if they have not either.
        return {}
    for column, field in fields.items():
        if field not in policy:
            raise PolicyRefused(f"the policy has no field {field!r} for the column {column!r}", 110, "PolicyRefused")
        if policy[field][0] and row is None:
            raise ValueError(f"the policy binds {field!r} to its row: name the column of rows as `row`")
    return policy


def _with(schema: StructType, columns: Mapping[str, DataType | str]) -> StructType:
    made = StructType()
    for field in schema.fields:
        if (dtype := columns.get(field.name)) is None:
            made.add(field)
        else:
            # Metadata that was of the other type stays away.
            made.add(StructField(field.name, StructType().add("it", dtype)["it"].dataType, True))
    return made


def _put(batch: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    return batch.set_column(batch.schema.get_field_index(name), name, column)


def _rows(batch: pa.RecordBatch, work: _Work, field: Field) -> Any:
    """The rows that a field is bound to, if it is."""
    return batch.column(work.row) if work.row is not None and field.binds_row else None


def _about_rows(error: DecryptionFailed, rows: Any) -> DecryptionFailed:
    """Return `error`, with a hint where the rows are sealed: they may have been in clear when values were bound to them."""
    try:
        inspected(rows.drop_null()[0].as_py())
    except (FormatError, AttributeError, IndexError, TypeError):
        return error
    hint = f"{error}; the column of rows is sealed: if the values were bound to rows in clear, name it in `fields` too"
    return DecryptionFailed(hint, error.code, error.kind, error.retryable, error.row)


def _encrypted(work: _Work, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    return map(partial(_encrypted_batch, work, work.bound()), batches)


@without_frames
def _encrypted_batch(work: _Work, fields: Mapping[str, Field], batch: pa.RecordBatch) -> pa.RecordBatch:
    sealed = batch
    for name, field in fields.items():
        sealed = _put(sealed, name, field.encrypt_column(batch.column(name), rows=_rows(batch, work, field)))
    return sealed


def _rows_opened(
    batch: pa.RecordBatch, work: _Work, fields: Mapping[str, Field], errors: list[KeyfoldError] | None = None
) -> pa.RecordBatch:
    """`batch`, with the rows in clear where they are sealed themselves: by a field that binds none, so it can be opened first.

    With `errors`, rows that do not open become null, and why is added to it.
    """
    if work.row is None or (field := fields.get(work.row)) is None:
        return batch
    on_error: Literal["raise", "null"] = "raise" if errors is None else "null"
    return _put(batch, work.row, field.decrypt_column(batch.column(work.row), on_error=on_error, errors=errors))


def _decrypted(
    work: _Work, schema: pa.Schema, errors: str | None, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    return map(partial(_decrypted_batch, work, work.bound(), schema, errors), batches)


@without_frames
def _decrypted_batch(
    work: _Work, fields: Mapping[str, Field], schema: pa.Schema, errors: str | None, batch: pa.RecordBatch
) -> pa.RecordBatch:
    # What is wrong with a row that does not open is said where that is opened as a column.
    bound_to, opened, failures = _rows_opened(batch, work, fields, None if errors is None else []), batch, []
    for name, field in fields.items():
        failed: list[KeyfoldError] = []
        rows = _rows(bound_to, work, field)
        try:
            column = field.decrypt_column(
                batch.column(name), rows=rows, type=schema.field(name).type,
                on_error="raise" if errors is None else "null", errors=failed,
            )
        except DecryptionFailed as error:
            raise _about_rows(error, rows) from None
        opened = _put(opened, name, column)
        failures += [(error.row, f"{name}: {error.kind}") for error in failed]
    if errors is not None:
        opened = opened.append_column(errors, _by_row(failures, len(batch), schema.field(errors).type))
    return opened


def _by_row(failures: Iterable[tuple[int | None, str]], count: int, dtype: pa.DataType) -> pa.Array:
    texts: list[str | None] = [None] * count
    for row, text in failures:
        assert row is not None, "it is about a value of a column"
        texts[row] = text if texts[row] is None else f"{texts[row]}, {text}"
    return pa.array(texts, dtype)


def _reencrypted(work: _Work, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    return map(partial(_reencrypted_batch, work, work.bound()), batches)


@without_frames
def _reencrypted_batch(work: _Work, fields: Mapping[str, Field], batch: pa.RecordBatch) -> pa.RecordBatch:
    old = {name: _under_older_keys(batch.column(name), field) for name, field in fields.items()}
    old = {name: mask for name, mask in old.items() if pc.any(mask).as_py()}
    bound_to, made = _rows_opened(batch, work, fields) if old else batch, batch
    for name, mask in old.items():
        rows = _rows(bound_to, work, fields[name])
        made = _put(made, name, _sealed_again(batch.column(name), mask, fields[name], rows))
    return made


def _under_older_keys(column: pa.Array, field: Field) -> pa.Array:
    is_text = _is_text(column)
    heads = pc.utf8_slice_codeunits(column, 0, _TEXT_HEAD_LEN) if is_text else pc.binary_slice(column, 0, _HEAD_LEN)
    distinct = heads.drop_null().unique()
    older = [head for head in distinct if _is_old(column[pc.index(heads, head).as_py()].as_py(), field)]
    return pc.is_in(heads, value_set=pa.array(older, heads.type), skip_nulls=True)


def _is_old(value: bytes | str, field: Field) -> bool:
    try:
        return not field.is_current(value)
    except FormatError:
        return False


def _sealed_again(column: pa.Array, old: pa.Array, field: Field, rows: pa.Array | None) -> pa.Array:
    # Value by value: a column would give all of them one type.
    bindings = None if rows is None else _row_bindings(rows.filter(old))
    values = field.decrypt_many(column.filter(old).to_pylist(), rows=bindings)
    sealed = [value for value in field.encrypt_many(values, rows=bindings) if value is not None]
    again = [to_text(value) for value in sealed] if _is_text(column) else sealed
    return pc.replace_with_mask(column, old, pa.array(again, column.type))


def _is_text(column: pa.Array) -> bool:
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def _counted(columns: tuple[str, ...], batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    return map(partial(_counted_batch, columns), batches)


@without_frames
def _counted_batch(columns: tuple[str, ...], batch: pa.RecordBatch) -> pa.RecordBatch:
    lines: list[tuple[str, str, str | None, int | None, int]] = []
    for name in columns:
        found = census_of(batch.column(name))
        lines += [(name, "sealed", key_id, int(key_id[:8], 16), count) for key_id, count in found.keys.items()]
        lines += [
            (name, what, None, None, count)
            for what, count in (("null", found.nulls), ("not sealed", found.not_sealed))
            if count
        ]
    names = ["column", "what", "key_id", "generation", "count"]
    types = [pa.string(), pa.string(), pa.string(), pa.int64(), pa.int64()]
    transposed = zip(*lines, strict=True) if lines else [[]] * len(names)
    return pa.record_batch([pa.array(values, t) for values, t in zip(transposed, types, strict=True)], names)
