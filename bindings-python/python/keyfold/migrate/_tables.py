"""A column of a SQL table that another library has sealed, into another column of it."""

import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from .._errors import FormatError, KeyfoldError, invalid
from .._frames import without_frames
from .._native import Field
from .._types import Value
from ._columns import in_form, open_values, seal_values, text
from ._readers import Reader


class RowError(NamedTuple):
    """What is wrong with one row. Keys may identify patients: keep them as you keep the table."""

    key: Any
    """The key of the row."""
    error: KeyfoldError | None
    """Why its value does not open or cannot be sealed; None: both values open, and are not equal."""


@dataclass
class TableReport:
    """What became of each row that was read. Has no value of any column but the keys in `errors`."""

    sealed: int = 0
    """Rows that were written by `run`."""
    equal: int = 0
    """Rows of which `verify` has opened both values, and they are equal."""
    missing: int = 0
    """Rows whose old value is not imported yet, found by `verify`."""
    alone: int = 0
    """Rows that have a new value and no old one, found by `verify`: written since, or deleted by whoever knows the old column only."""
    changed: int = 0
    """Rows that somebody wrote while `run` had them; they are as that one has left them, and the next run reads them."""
    errors: list[RowError] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether `verify` has found every old value imported, and nothing else."""
        return not (self.missing or self.alone or self.errors)


class TableImport:
    """Copies a column that `reader` opens into another column of the table, sealed as values of `field`.

    `connection` is one of Python's database API (`sqlite3`, `psycopg`), with no transaction open. `key` is a column that is unique and
    not null; `rows` the column that values are bound to (the key, unless given), where the policy binds them; `aad` the column with what
    `reader` needs besides each value. `target` is a column of its own, with nulls where nothing is imported yet: that tells what is left
    to do, whatever ended the run before. `decode` and `form` are as in `import_column`. Names are taken literally.
    """

    def __init__(
        self,
        connection: Any,
        table: str,
        /,
        *,
        key: str,
        source: str,
        target: str,
        reader: Reader,
        field: Field,
        rows: str | None = None,
        aad: str | None = None,
        decode: Callable[[bytes], Value] = text,
        form: Literal["binary", "text"] = "binary",
        batch_rows: int = 1000,
    ) -> None:
        """Raises:
        InvalidInput: `target` is `source`, a batch has no row, or the connection is of a module that writes parameters another way
            than `?` or `%s`.
        """
        if target == source:
            raise invalid("the target is a column of its own: what is imported could not be told from what is not")
        if batch_rows < 1:
            raise invalid("a batch has at least one row")
        self._connection, self._reader, self._field = connection, reader, field
        self._decode, self._form, self._batch_rows = decode, form, batch_rows
        self._mark = _mark(connection)
        self._binds = field.binds_row
        # `SCHEMA.TABLE` has a name in each part.
        self._table = ".".join(_quoted(part) for part in table.split("."))
        self._key, self._source, self._target = _quoted(key), _quoted(source), _quoted(target)
        self._rows, self._aad = _quoted(rows or key), "NULL" if aad is None else _quoted(aad)

    @without_frames
    def run(self, *, max_errors: int = 0) -> TableReport:
        """Import what is not imported yet, batch by batch, each in a transaction of its own, and return what was done.

        A row is written only where its old value still is what was read, and the new one still is null. It may be stopped and
        started again anywhere. Rows with errors stay as they are, and are tried again by the next run.

        Raises:
            FormatError, NoMatchingKey, DecryptionFailed, InvalidInput: there are more than `max_errors` of these. The batch is not
                written; those before it are.
            KmsError, StoreError, and what the library of the old values or the database raises: likewise.
            InvalidInput: the connection has a transaction open, which is left as it is.
        """
        report = TableReport()
        for batch in self._batches(f"{self._source} IS NOT NULL AND {self._target} IS NULL"):
            values, errors = open_values([row[2] for row in batch], self._reader, [row[4] for row in batch], self._decode)
            sealed, refused = seal_values(values, self._field, self._bound(batch))
            self._note(report, batch, errors + refused, max_errors)
            self._write(report, batch, in_form(sealed, self._form))
        return report

    @without_frames
    def verify(self, *, max_errors: int = 100) -> TableReport:
        """Open both values of every row, compare them, and return what was found. Changes nothing.

        Raises:
            FormatError, NoMatchingKey, DecryptionFailed: there are more than `max_errors` of these and of unequal values, which raise
                FormatError then.
            KmsError, StoreError, and what the library of the old values or the database raises.
        """
        report = TableReport()
        for batch in self._batches(f"({self._source} IS NOT NULL OR {self._target} IS NOT NULL)"):
            report.missing += sum(row[3] is None for row in batch)
            report.alone += sum(row[2] is None for row in batch)
            both = [row for row in batch if row[2] is not None and row[3] is not None]
            old, errors = open_values([row[2] for row in both], self._reader, [row[4] for row in both], self._decode)
            refused: list[KeyfoldError] = []
            new = self._field.decrypt_many([row[3] for row in both], rows=self._bound(both), on_error="null", errors=refused)
            bad = {error.row for error in errors + refused}
            unequal = [row for row in range(len(both)) if row not in bad and not _same(old[row], new[row])]
            report.equal += len(both) - len(bad) - len(unequal)
            self._note(report, both, errors + refused, max_errors)
            report.errors += [RowError(both[row][0], None) for row in unequal]
            if len(report.errors) > max_errors:
                raise _unequal(len(report.errors))
        return report

    def _bound(self, batch: list[tuple[Any, ...]]) -> list[Any] | None:
        return [str(row[1]) if isinstance(row[1], uuid.UUID) else row[1] for row in batch] if self._binds else None

    def _batches(self, where: str) -> Iterator[list[tuple[Any, ...]]]:
        """Yield rows of key, row, old value, new value and associated data, along the key."""
        _check_idle(self._connection)
        columns = ", ".join([self._key, self._rows, self._source, self._target, self._aad])
        last: list[Any] = []
        while True:
            after = f" AND {self._key} > {self._mark}" if last else ""
            query = f"SELECT {columns} FROM {self._table} WHERE {where}{after} ORDER BY {self._key} LIMIT {self._batch_rows}"
            cursor = self._connection.cursor()
            try:
                cursor.execute(query, last)
                batch = [tuple(row) for row in cursor.fetchall()]
            finally:
                cursor.close()
                # Reading has begun a transaction, which would hold old versions of all rows.
                self._connection.rollback()
            if not batch:
                return
            last = [batch[-1][0]]
            yield batch

    def _write(self, report: TableReport, batch: list[tuple[Any, ...]], sealed: Any) -> None:
        change = (
            f"UPDATE {self._table} SET {self._target} = {self._mark}"
            f" WHERE {self._key} = {self._mark} AND {self._source} = {self._mark} AND {self._target} IS NULL"
        )
        written = changed = 0
        cursor = self._connection.cursor()
        try:
            for row, new in zip(batch, sealed, strict=True):
                if new is not None:
                    cursor.execute(change, [new, row[0], row[2]])
                    written += cursor.rowcount
                    changed += 1 - cursor.rowcount
            self._connection.commit()
        except BaseException:
            self._connection.rollback()
            raise
        finally:
            cursor.close()
        report.sealed += written
        report.changed += changed

    @staticmethod
    def _note(report: TableReport, batch: list[tuple[Any, ...]], errors: list[KeyfoldError], max_errors: int) -> None:
        for error in sorted(errors, key=lambda error: error.row or 0):
            key = batch[error.row or 0][0]
            # It is counted from the start of a batch that nobody knows.
            error.row = None
            report.errors.append(RowError(key, error))
            if len(report.errors) > max_errors:
                raise error


def _same(old: Any, new: Any) -> bool:
    """Whether two opened values are one. NaN is one."""
    return bool(old == new) or (old != old and new != new)


def _unequal(count: int) -> KeyfoldError:
    return FormatError(f"{count} rows have errors or unequal values", 200, "Malformed")


def _check_idle(connection: Any) -> None:
    """Refuse a connection with a transaction open, as `sqlite3` or `psycopg` tell: what it has done would be undone."""
    status = getattr(getattr(connection, "info", None), "transaction_status", 0)
    if getattr(connection, "in_transaction", False) or status != 0:
        raise invalid("the connection has a transaction open: commit it first")


def _mark(connection: Any) -> str:
    """Return how the module of `connection` writes a parameter."""
    module = type(connection).__module__.partition(".")[0]
    style = getattr(sys.modules.get(module), "paramstyle", None)
    marks = {"qmark": "?", "format": "%s", "pyformat": "%s"}
    if style not in marks:
        raise invalid(f"connections of {module} have parameters that are written neither ? nor %s")
    return marks[style]


def _quoted(name: str) -> str:
    """Return `name` as SQL has it, taken literally."""
    # Of a parameter style `%s`, a per cent sign would be one.
    if "\0" in name or "%" in name:
        raise invalid("a name of a table or column has no NUL and no per cent sign here")
    return '"' + name.replace('"', '""') + '"'
