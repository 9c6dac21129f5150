"""Tables of another library's values, imported into a column beside: whole, with bad rows, in use, and after a run that ended."""

import os
import secrets
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from test_migrate import KEY, gcm

import keyfold
from keyfold import migrate


class Table:
    """The same table of patients in SQLite or PostgreSQL."""

    def __init__(self, connection: Any, mark: str, binary: str) -> None:
        self.connection, self.mark = connection, mark
        self.execute(f'CREATE TABLE patients (id integer PRIMARY KEY, "the ssn" {binary}, ssn_sealed {binary})')

    def execute(self, query: str, values: Any = ()) -> list[Any]:
        cursor = self.connection.cursor()
        cursor.execute(query.replace("?", self.mark), values)
        rows = cursor.fetchall() if cursor.description else []
        cursor.close()
        self.connection.commit()
        return rows

    def insert(self, count: int) -> None:
        for id in range(count):
            value = None if id % 5 == 4 else gcm(KEY, f"999-{id}".encode(), f"{id}".encode())
            self.execute("INSERT INTO patients VALUES (?, ?, NULL)", [id, value])

    def job(self, field: keyfold.Field, reader: migrate.Reader | None = None, **more: Any) -> migrate.TableImport:
        reader = reader or migrate.AesGcm(KEY, aad=lambda id: str(id).encode())
        return migrate.TableImport(
            self.connection, "patients", key="id", source="the ssn", target="ssn_sealed", aad="id", reader=reader, field=field,
            batch_rows=7, **more,
        )  # fmt: skip


@pytest.fixture(params=["sqlite", "postgresql"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "sqlite":
        connection: Any = sqlite3.connect(tmp_path / "clinic.db")
        yield Table(connection, "?", "blob")
    else:
        psycopg = pytest.importorskip("psycopg", reason="tables in PostgreSQL: psycopg is not installed")
        if "KEYFOLD_TEST_POSTGRES" not in os.environ:
            pytest.skip("tables in PostgreSQL: KEYFOLD_TEST_POSTGRES is not set")
        connection = psycopg.connect(os.environ["KEYFOLD_TEST_POSTGRES"])
        schema = f"migrate_{secrets.token_hex(6)}"
        connection.execute(f"CREATE SCHEMA {schema}")
        connection.execute(f"SET search_path TO {schema}")
        yield Table(connection, "%s", "bytea")
        connection.rollback()
        connection.execute(f"DROP SCHEMA {schema} CASCADE")
        connection.commit()
    connection.close()


def test_a_table_is_imported_and_verified(ring: keyfold.Keyring, table: Table) -> None:
    table.insert(50)
    field = ring.field("patient.ssn")
    job = table.job(field)
    before = job.verify()
    assert (before.missing, before.equal, before.complete) == (40, 0, False)
    assert job.run() == migrate.TableReport(sealed=40)
    assert job.run() == migrate.TableReport()  # what is there is left alone
    after = job.verify()
    assert (after.equal, after.missing, after.alone, after.errors, after.complete) == (40, 0, 0, [], True)
    for id, sealed in table.execute("SELECT id, ssn_sealed FROM patients WHERE ssn_sealed IS NOT NULL"):
        assert field.decrypt(sealed, row=id) == f"999-{id}"

    # A new value of the old library, one that is gone there, and a sealed one that was moved.
    table.execute('UPDATE patients SET "the ssn" = ? WHERE id = 0', [gcm(KEY, b"changed", b"0")])
    table.execute('UPDATE patients SET "the ssn" = NULL WHERE id = 1')
    table.execute("UPDATE patients SET ssn_sealed = (SELECT ssn_sealed FROM patients WHERE id = 3) WHERE id = 2")
    found = job.verify()
    assert (found.equal, found.alone, found.complete) == (37, 1, False)
    assert sorted((error.key, error.error and error.error.kind) for error in found.errors) == [(0, None), (2, "DecryptionFailed")]
    with pytest.raises(keyfold.KeyfoldError):
        job.verify(max_errors=1)


def test_a_transaction_of_the_caller_is_not_undone(ring: keyfold.Keyring, table: Table) -> None:
    table.insert(3)
    cursor = table.connection.cursor()
    cursor.execute("DELETE FROM patients WHERE id = 2")
    for call in (table.job(ring.field("patient.ssn")).run, table.job(ring.field("patient.ssn")).verify):
        with pytest.raises(keyfold.InvalidInput, match="transaction open"):
            call()
    table.connection.commit()
    assert table.job(ring.field("patient.ssn")).run().sealed == 2


def test_bad_rows_of_a_table(ring: keyfold.Keyring, table: Table) -> None:
    table.insert(20)
    # Of another row, which its associated data tells.
    table.execute('UPDATE patients SET "the ssn" = (SELECT "the ssn" FROM patients WHERE id = 0) WHERE id = 8')
    job = table.job(ring.field("patient.ssn"))
    with pytest.raises(keyfold.DecryptionFailed):
        job.run()
    done = table.execute("SELECT count(*) FROM patients WHERE ssn_sealed IS NOT NULL")
    # The batches before are written, of the one with the bad row none.
    assert done[0][0] == 7
    report = job.run(max_errors=1)
    assert (report.sealed, [(error.key, error.error and error.error.kind) for error in report.errors]) == (8, [(8, "DecryptionFailed")])
    assert [error.error and error.error.row for error in report.errors] == [None]
    assert job.verify().missing == 1


def test_what_is_written_meanwhile_stays(ring: keyfold.Keyring, table: Table) -> None:
    table.insert(6)
    inner = migrate.AesGcm(KEY, aad=lambda id: str(id).encode())

    class Meddling:
        """Writes to the table while a batch is in the hands of the import."""

        def open(self, sealed: bytes | str, aad: Any, /) -> bytes:
            if aad == 5:
                table.execute('UPDATE patients SET "the ssn" = ? WHERE id = 0', [gcm(KEY, b"newer", b"0")])
                table.execute("UPDATE patients SET ssn_sealed = ? WHERE id = 1", [b"of the application"])
                table.execute("DELETE FROM patients WHERE id = 2")
            return inner.open(sealed, aad)

    field = ring.field("patient.ssn")
    report = table.job(field, Meddling()).run()
    assert (report.sealed, report.changed) == (2, 3)
    rows = dict(table.execute("SELECT id, ssn_sealed FROM patients ORDER BY id"))
    assert (rows[0], bytes(rows[1]), 2 in rows) == (None, b"of the application", False)
    assert table.job(field).run().sealed == 1
    assert field.decrypt(table.execute("SELECT ssn_sealed FROM patients WHERE id = 0")[0][0], row=0) == "newer"


def test_a_run_that_ends_is_taken_up(ring: keyfold.Keyring, table: Table) -> None:
    table.insert(30)
    inner = migrate.AesGcm(KEY, aad=lambda id: str(id).encode())

    class Dying:
        left = 15

        def open(self, sealed: bytes | str, aad: Any, /) -> bytes:
            self.left -= 1
            if self.left < 0:
                raise ConnectionError("the key service is away")
            return inner.open(sealed, aad)

    job = table.job(ring.field("patient.ssn"), Dying())
    with pytest.raises(ConnectionError):
        job.run(max_errors=100)
    assert table.job(ring.field("patient.ssn")).run().sealed == 24 - 14
    assert table.job(ring.field("patient.ssn")).verify().complete


def test_tables_that_make_no_sense(ring: keyfold.Keyring, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "clinic.db")
    how: dict[str, Any] = {"key": "id", "source": "ssn", "reader": migrate.AesGcm(KEY), "field": ring.field("any")}
    with pytest.raises(keyfold.InvalidInput, match="a column of its own"):
        migrate.TableImport(connection, "patients", target="ssn", **how)
    with pytest.raises(keyfold.InvalidInput, match="at least one row"):
        migrate.TableImport(connection, "patients", target="new", batch_rows=0, **how)
    with pytest.raises(keyfold.InvalidInput, match="neither"):
        migrate.TableImport(object(), "patients", target="new", **how)
    with pytest.raises(keyfold.InvalidInput, match="per cent"):
        migrate.TableImport(connection, "patients", target="new%s", **how)
    connection.close()
