"""DuckDB: functions of SQL, and relations as columns."""

from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pytest

import keyfold
import keyfold.duckdb


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        con.sql("create table patients as select i as id, case when i % 7 > 0 then 'ssn-' || i end as ssn, i % 90 as age from range(10000) t(i)")
        yield con


def test_functions(ring: keyfold.Keyring, con: duckdb.DuckDBPyConnection) -> None:
    ssn = ring.field("patient.ssn")
    keyfold.duckdb.register(con, "ssn", ssn, row="BIGINT")
    con.sql("create table sealed as select id, encrypt_ssn(ssn, id) as ssn from patients")
    assert con.sql("select typeof(ssn), count(ssn) from sealed group by 1 order by 1").fetchall() == [("BLOB", 8571)]
    one = con.sql("select ssn from sealed where id = 17").fetchall()[0][0]
    assert ssn.decrypt(one, row="17") == "ssn-17"
    same = "select count(*) from sealed join patients using (id) where decrypt_ssn(sealed.ssn, id) is not distinct from patients.ssn"
    assert con.sql(same).fetchall() == [(10000,)]


def test_values_of_other_types(ring: keyfold.Keyring, con: duckdb.DuckDBPyConnection) -> None:
    keyfold.duckdb.register(con, "age", ring.field("number"), value="SMALLINT")
    query = "select age, decrypt_age(encrypt_age(age::smallint)) from patients where id < 200"
    described = con.sql(query).types
    assert str(described[1]) == "SMALLINT"
    assert all(age == opened for age, opened in con.sql(query).fetchall())


def test_equal_values_join(ring: keyfold.Keyring, con: duckdb.DuckDBPyConnection) -> None:
    keyfold.duckdb.register(con, "mrn", ring.field("mrn"))
    joined = "select count(*) from patients a join patients b on encrypt_mrn(a.ssn) = encrypt_mrn(b.ssn) where a.id < 100 and b.id < 200"
    assert con.sql(joined).fetchall() == [(85,)]


def test_errors_end_the_query(ring: keyfold.Keyring, con: duckdb.DuckDBPyConnection) -> None:
    keyfold.duckdb.register(con, "ssn", ring.field("patient.ssn"), row="BIGINT")
    with pytest.raises(duckdb.Error, match="DecryptionFailed|decryption failed") as raised:
        con.sql("select decrypt_ssn(encrypt_ssn(ssn, id), id + 1) from patients").fetchall()
    assert "ssn-" not in str(raised.value)
    with pytest.raises(duckdb.Error, match="bound to is null"):
        con.sql("select encrypt_ssn('a', null)").fetchall()


def test_a_relation_of_one_column_is_a_column(ring: keyfold.Keyring, con: duckdb.DuckDBPyConnection) -> None:
    field = ring.field("any")
    sealed = field.encrypt_column(con.sql("select ssn from patients order by id"))
    assert isinstance(sealed, keyfold.ArrowStream)
    opened = pa.chunked_array(field.decrypt_column(sealed)).to_pylist()
    assert opened == [row[0] for row in con.sql("select ssn from patients order by id").fetchall()]
    with pytest.raises(keyfold.InvalidInput):
        field.encrypt_column(con.sql("select id, ssn from patients"))
