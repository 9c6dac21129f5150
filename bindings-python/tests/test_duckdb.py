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


ROUND_TRIPS = {
    "VARCHAR": "'é'", "TEXT": "' '", "BLOB": "'\\x00\\xff'::blob", "BOOLEAN": "true", "TINYINT": "-128", "SMALLINT": "-32768", "INTEGER": "42",
    "BIGINT": "9223372036854775807", "UTINYINT": "255", "USMALLINT": "65535", "UINTEGER": "4294967295", "UBIGINT": "9223372036854775807",
    "FLOAT": "1.1::float", "DOUBLE": "'nan'::double", "DATE": "'2024-02-29'::date", "TIMESTAMPTZ": "'2026-03-29 01:59:59.999999+00'::timestamptz",
    "UUID": "'5b2074b6-5659-4535-ad77-dbeb39285681'::uuid",
}  # fmt: skip


@pytest.mark.parametrize("sql_type", ROUND_TRIPS)
def test_each_type_that_can_be_registered_opens_as_it_was(
    ring: keyfold.Keyring, con: duckdb.DuckDBPyConnection, sql_type: str
) -> None:
    keyfold.duckdb.register(con, "it", ring.field("any"), value=sql_type)
    keyfold.duckdb.register(con, "bound", ring.field("patient.ssn"), row=sql_type)
    con.sql(f"create table clear as select ({ROUND_TRIPS[sql_type]})::{sql_type} as v union all select null")
    con.sql("create table sealed as select v, encrypt_it(v) as e from clear")
    opened = con.sql("select v is not distinct from decrypt_it(e), typeof(decrypt_it(e)) = typeof(v), count(e) from sealed group by all")
    assert opened.fetchall() == [(True, True, 1)]
    # NaN is a value, and no row.
    row = "0.5::double" if "nan" in ROUND_TRIPS[sql_type] else "v"
    bound = con.sql(f"select decrypt_bound(encrypt_bound('value', {row}), {row}) from clear where v is not null")
    assert bound.fetchall() == [("value",)]
    if row != "v":
        with pytest.raises(duckdb.InvalidInputException, match="is NaN"):
            con.sql("select encrypt_bound('value', v) from clear").fetchall()


@pytest.mark.parametrize(
    "sql_type",
    ["BIT", "JSON", "ENUM('a', 'b')", "TIMESTAMP", "TIMESTAMP_NS", "HUGEINT", "UHUGEINT", "DECIMAL(10, 2)", "TIME", "TIMETZ", "INTERVAL", "BIGNUM", "INTEGER[]"],
)
def test_types_that_would_open_as_something_else_are_refused(
    ring: keyfold.Keyring, con: duckdb.DuckDBPyConnection, sql_type: str
) -> None:
    before = con.sql("select count(*) from duckdb_functions()").fetchall()
    for types in ({"value": sql_type}, {"row": sql_type}):
        with pytest.raises(keyfold.InvalidInput, match="cast in the query"):
            keyfold.duckdb.register(con, "it", ring.field("any"), **types)
    assert con.sql("select count(*) from duckdb_functions()").fetchall() == before
