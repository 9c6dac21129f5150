//! Tables on SQLite and PostgreSQL: pages over odd keys, names that need quotes, writers in between.

mod common;

use common::{Database, databases};
use keyfold::ErrorKind;
use keyfold_tables::{Cell, Change, ColumnKind, Extent, Guard, Row, RowKey, Table};
use std::collections::BTreeSet;
use zeroize::Zeroizing;

fn text(text: &str) -> Cell {
    Cell::Text(Zeroizing::new(text.to_owned()))
}

/// Every row, by pages of `limit`.
fn all(table: &mut Table, limit: usize) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    loop {
        let page = table.page(rows.last().map(|row| &row.key), limit, Extent::Whole).expect("a page");
        if page.is_empty() {
            return rows;
        }
        rows.extend(page);
    }
}

fn keys(rows: &[Row]) -> Vec<(&'static str, String)> {
    rows.iter().map(|row| (row.key.kind(), row.key.to_text())).collect()
}

#[test]
fn pages_over_odd_keys() {
    for database in databases() {
        let (bytes, pg) = (database.bytes(), database.is_postgres());
        let uuid = if pg { "UUID" } else { "TEXT" };
        database.sql(&format!(
            "CREATE TABLE i (k BIGINT NOT NULL PRIMARY KEY, v TEXT); CREATE TABLE t (k TEXT NOT NULL PRIMARY KEY, v TEXT); \
             CREATE TABLE b (k {bytes} NOT NULL PRIMARY KEY, v TEXT); CREATE TABLE u (k {uuid} NOT NULL PRIMARY KEY, v TEXT); \
             INSERT INTO i VALUES (-9223372036854775807, 'a'), (-1, 'b'), (0, NULL), (5, ''), (9223372036854775807, 'e'); \
             INSERT INTO t VALUES ('', 'a'), ('A', 'b'), ('a', 'c'), ('a b', 'd'), ('a''; --', 'e'), ('ä', 'f'), ('10', 'g'), ('9', 'h'); \
             INSERT INTO b VALUES ({}, 'a'), ({}, 'b'), ({}, 'c'); \
             INSERT INTO u VALUES ('00000000-0000-0000-0000-00000000000a', 'a'), ('ffffffff-0000-4000-8000-00000000000b', 'b')",
            database.literal(""), database.literal("00"), database.literal("ff00"),
        ));
        for (name, count) in [("i", 5), ("t", 8), ("b", 3), ("u", 2)] {
            let mut table = database.open(name, "k", &["v"]).expect("opened");
            let whole = all(&mut table, 100);
            assert_eq!(whole.len(), count, "{name}");
            let distinct: BTreeSet<_> = keys(&whole).into_iter().collect();
            assert_eq!(distinct.len(), count, "{name}");
            for limit in 1..=count + 1 {
                let paged = all(&mut table, limit);
                assert_eq!(keys(&paged), keys(&whole), "{name} by {limit}");
                assert!(paged.iter().zip(&whole).all(|(a, b)| a.cells == b.cells), "{name} by {limit}");
            }
            // A checkpoint keeps keys as text; and each row is found by its key.
            let again: Vec<RowKey> =
                whole.iter().map(|row| RowKey::from_text(row.key.kind(), &row.key.to_text()).expect("a key")).collect();
            assert!(again.iter().zip(&whole).all(|(key, row)| *key == row.key));
            assert_eq!(table.rows(&again).expect("rows").len(), count, "{name}");
        }
    }
}

#[test]
fn a_column_that_is_the_key_as_well_is_read_in_the_order_of_the_key() {
    for database in databases() {
        database.sql("CREATE TABLE t (k INTEGER NOT NULL PRIMARY KEY, v TEXT); INSERT INTO t VALUES (9, 'a'), (10, 'b'), (-2, 'c')");
        let mut table = database.open("t", "k", &["k", "v"]).expect("opened");
        for limit in 1..4 {
            let read: Vec<String> = all(&mut table, limit).iter().map(|row| row.key.to_text()).collect();
            assert_eq!(read, ["-2", "9", "10"]);
        }
    }
}

#[test]
fn keys_that_only_look_equal_are_all_read() {
    // Under a collation that takes them for one, a page would end in the middle of them.
    for database in databases().into_iter().filter(|database| !database.is_postgres()) {
        database.sql(
            "CREATE TABLE t (k TEXT COLLATE NOCASE NOT NULL, v TEXT); CREATE UNIQUE INDEX x ON t (k COLLATE BINARY); \
             INSERT INTO t VALUES ('a', '1'), ('A', '2'), ('b', '3'), ('B', '4')",
        );
        let mut table = database.open("t", "k", &["v"]).expect("opened");
        assert_eq!(all(&mut table, 1).len(), 4);
    }
}

#[test]
fn names_that_need_quotes() {
    for database in databases() {
        let odd = r#""we""ird; DROP TABLE other""#;
        database.sql(&format!(
            "CREATE TABLE other (k INTEGER NOT NULL PRIMARY KEY); \
             CREATE TABLE {odd} (\"the key\" INTEGER NOT NULL PRIMARY KEY, \"a\"\"b\" TEXT, \"select\" TEXT); \
             INSERT INTO {odd} VALUES (1, 'x', 'y')"
        ));
        let name = format!("{}.{odd}", database.schema);
        let mut table = database.open(&name, "the key", &["a\"b", "select"]).expect("opened");
        let rows = all(&mut table, 10);
        assert_eq!(rows[0].cells, [text("x"), text("y")]);
        let change = Change { row: &rows[0], column: 1, new: text("'); DROP TABLE other; --"), guard: Guard::Column };
        assert_eq!(table.replace(&[change]).expect("replaced"), [true]);
        assert_eq!(all(&mut table, 10)[0].cells[1], text("'); DROP TABLE other; --"));
        database.open("other", "k", &[]).expect("it is still there");
    }
}

#[test]
fn what_cannot_be_walked_through_is_refused() {
    for database in databases() {
        database.sql(
            "CREATE TABLE t (a INTEGER NOT NULL, b INTEGER, c REAL NOT NULL UNIQUE, d INTEGER NOT NULL, e TEXT UNIQUE, \
             PRIMARY KEY (a, d)); CREATE UNIQUE INDEX x ON t (b) WHERE b > 5; CREATE VIEW w AS SELECT * FROM t; \
             INSERT INTO t VALUES (1, 1, 1, 1, NULL)",
        );
        let refusal = |table: &str, key: &str, column: &str| {
            let error = match database.open(table, key, &[column]) {
                Err(error) => error,
                Ok(mut table) => table.page(None, 10, Extent::Whole).expect_err("a key without an order"),
            };
            error.to_string()
        };
        for key in ["a", "b", "e"] {
            assert!(refusal("t", key, "a").contains("not unique"), "{key}");
        }
        assert!(refusal("t", "c", "a").contains("type"));
        assert!(refusal("t", "nothing", "a").contains("no such column"));
        assert!(refusal("absent", "a", "a").ends_with("no such table: \"absent\""));
        assert!(refusal("w", "a", "a").contains("no such table"));
        database.sql("CREATE UNIQUE INDEX y ON t (d)");
        assert!(refusal("t", "d", "nothing").contains("no such column"));
        database.open("t", "d", &["a"]).expect("a unique index will do");
    }
}

/// A table with a sealed column and one in clear.
fn two_columns(database: &Database, kind: &str) -> Table {
    database.sql(&format!(
        "CREATE TABLE t (k INTEGER NOT NULL PRIMARY KEY, clear TEXT, sealed {kind}); \
         INSERT INTO t (k, clear) VALUES (1, 'one'), (2, 'two'), (3, NULL)"
    ));
    database.open("t", "k", &["clear", "sealed"]).expect("opened")
}

fn sealed(kind: ColumnKind, content: &str) -> Cell {
    match kind {
        ColumnKind::Binary => Cell::Bytes(Zeroizing::new(content.as_bytes().to_vec())),
        _ => text(content),
    }
}

#[test]
fn a_writer_in_between_is_not_overwritten() {
    for database in databases() {
        for declared in ["TEXT", database.bytes()] {
            let mut table = two_columns(&database, declared);
            let kind = table.kind(1);
            let rows = all(&mut table, 10);
            let put =
                |rows: &[Row], content: &str| -> Vec<Cell> { rows.iter().map(|_| sealed(kind, content)).collect() };
            let changes = |rows, new: Vec<Cell>, guard| -> Vec<Change<'_>> {
                let rows: &[Row] = rows;
                rows.iter().zip(new).map(|(row, new)| Change { row, column: 1, new, guard }).collect()
            };
            assert_eq!(table.replace(&changes(&rows, put(&rows, "s1"), Guard::Row)).expect("made"), [true; 3]);
            // The same once more: all of them have changed since they were read.
            assert_eq!(table.replace(&changes(&rows, put(&rows, "s2"), Guard::Row)).expect("made"), [false; 3]);
            assert_eq!(table.replace(&changes(&rows, put(&rows, "s2"), Guard::Column)).expect("made"), [false; 3]);
            let rows = all(&mut table, 10);
            assert!(rows.iter().all(|row| row.cells[1] == sealed(kind, "s1")));

            // Another client writes one column of row 1, deletes row 2 and leaves row 3 alone.
            database.sql("UPDATE t SET clear = 'uno' WHERE k = 1; DELETE FROM t WHERE k = 2");
            assert_eq!(
                table.replace(&changes(&rows, put(&rows, "s3"), Guard::Row)).expect("made"),
                [false, false, true],
                "{declared}"
            );
            // For a guard of the column the other column does not matter.
            assert_eq!(
                table.replace(&changes(&rows, put(&rows, "s4"), Guard::Column)).expect("made"),
                [true, false, false]
            );
            let rows = all(&mut table, 10);
            assert_eq!(rows[0].cells, [text("uno"), sealed(kind, "s4")]);
            assert_eq!(rows[1].cells, [Cell::Null, sealed(kind, "s3")]);
            // And nulls, there and back.
            assert_eq!(
                table.replace(&changes(&rows, vec![Cell::Null, Cell::Null], Guard::Column)).expect("made"),
                [true; 2]
            );
            let rows = all(&mut table, 10);
            assert!(rows.iter().all(|row| row.cells[1] == Cell::Null));
            assert_eq!(table.replace(&changes(&rows, put(&rows, "s5"), Guard::Column)).expect("made"), [true; 2]);
            database.sql("DROP TABLE t");
        }
    }
}

#[test]
fn starts_of_values_and_numbers_as_text() {
    for database in databases() {
        database.sql(&format!(
            "CREATE TABLE t (k INTEGER NOT NULL PRIMARY KEY, a TEXT, b {}, c INTEGER, d DATE); \
             INSERT INTO t VALUES (1, 'äöüß', {}, 42, '2026-11-25')",
            database.bytes(),
            database.literal("f5010000")
        ));
        let mut table = database.open("t", "k", &["a", "b", "c", "d"]).expect("opened");
        let page = table.page(None, 1, Extent::Start(2)).expect("a page");
        assert_eq!(page[0].cells[0], text("äö"));
        assert_eq!(page[0].cells[1].as_bytes(), Some(&[0xF5, 1][..]));
        database.sql(&format!("INSERT INTO t VALUES (2, '', {}, NULL, NULL)", database.literal("")));
        let empty = &table.page(Some(&page[0].key), 1, Extent::Start(2)).expect("a page")[0].cells;
        assert_eq!(empty[..2].iter().map(Cell::as_bytes).collect::<Vec<_>>(), [Some(&b""[..]); 2]);
        assert_eq!(empty[2..], [Cell::Null, Cell::Null]);
        let whole = table.page(None, 1, Extent::Whole).expect("a page");
        assert_eq!(whole[0].cells[2], text("42"));
        assert_eq!(whole[0].cells[3], text("2026-11-25"));
        // A number that was read is the number that is there.
        let change = Change { row: &whole[0], column: 2, new: Cell::Null, guard: Guard::Row };
        assert_eq!(table.replace(&[change]).expect("made"), [true]);
    }
}

#[test]
fn a_refused_change_takes_back_the_whole_batch() {
    for database in databases() {
        database.sql(
            "CREATE TABLE t (k INTEGER NOT NULL PRIMARY KEY, v TEXT NOT NULL CHECK (v <> 'secret')); \
             INSERT INTO t VALUES (1, 'a'), (2, 'b')",
        );
        let mut table = database.open("t", "k", &["v"]).expect("opened");
        assert!(!table.is_nullable(0));
        let rows = all(&mut table, 10);
        let change = |row: usize, new: Cell| Change { row: &rows[row], column: 0, new, guard: Guard::Column };
        for bad in [Cell::Null, text("secret")] {
            let error = table.replace(&[change(0, text("c")), change(1, bad)]).expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Store);
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        }
        // The connection is good again, and nothing was changed.
        assert!(all(&mut table, 10).iter().zip(&rows).all(|(now, then)| now.cells == then.cells));
        assert!(
            !table.place().contains("postgres@") && !format!("{table:?}").contains(':')
                || !database.is_postgres()
                || !table.place().contains('@')
        );
    }
}

#[test]
fn rows_that_the_database_would_hide_are_an_error() {
    for database in databases().into_iter().filter(Database::is_postgres) {
        database.sql(
            "CREATE TABLE parent (k INT NOT NULL PRIMARY KEY, v TEXT); CREATE TABLE child () INHERITS (parent); \
             CREATE TABLE parts (k INT NOT NULL PRIMARY KEY, v TEXT) PARTITION BY RANGE (k); \
             CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (100); INSERT INTO parts VALUES (1, 'a'); \
             CREATE TABLE hidden (k INT NOT NULL PRIMARY KEY, v TEXT); INSERT INTO hidden VALUES (1, 'a'), (2, 'b'); \
             ALTER TABLE hidden ENABLE ROW LEVEL SECURITY; ALTER TABLE hidden FORCE ROW LEVEL SECURITY",
        );
        assert_eq!(database.open("parent", "k", &["v"]).expect_err("inherited").kind(), ErrorKind::Configuration);
        assert_eq!(all(&mut database.open("parts", "k", &["v"]).expect("opened"), 10).len(), 1);
        // A superuser sees them all; whoever does not gets an error.
        let role = format!("role_{}", database.schema);
        database.sql(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT USAGE ON SCHEMA {0} TO {role}; GRANT SELECT ON {0}.hidden TO {role}",
            database.schema
        ));
        let mut limited = database.as_role(&role, "hidden", "k", &["v"]);
        let error = limited.page(None, 10, Extent::Whole).expect_err("hidden rows");
        assert!(error.to_string().contains("row-level security"), "{error}");
        drop(limited);
        database.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    }
}
