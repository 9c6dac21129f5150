//! Making tables, their version, and who meets another one.

use crate::server::{Server, here, refusal};
use keyfold::KeyStore;
use keyfold::testing::block_on;
use keyfold_store::PostgresStore;

#[test]
fn create_makes_tables_once_and_open_makes_none() {
    let Some(server) = Server::given() else { return };
    let schema = server.schema();
    let text = refusal(PostgresStore::open(&schema.uri(), here()));
    assert!(text.contains("keyfold migrate --store") && text.contains(&schema.name), "{text}");
    assert!(!text.contains(&server.password()));
    let exists = format!("SELECT count(*) FROM pg_namespace WHERE nspname = '{}'", schema.name);
    assert_eq!(schema.number(&exists), 0, "open made the schema");
    // An empty schema that an administrator has made.
    server.sql(&format!("CREATE SCHEMA {}", schema.name));
    assert!(refusal(PostgresStore::open(&schema.uri(), here())).contains("keyfold migrate"));
    let store = schema.create();
    let lineage = keyfold::Lineage::from_bytes([9; 16]);
    assert_eq!(block_on(store.allocate_generation(lineage, 0)).expect("allocated"), 1);
    assert_eq!(block_on(schema.create().allocate_generation(lineage, 0)).expect("allocated"), 2, "made anew");
    assert_eq!(schema.number("SELECT count(*) FROM migrations"), 2);
}

#[test]
fn many_creators_at_once_make_one_set_of_tables() {
    let Some(server) = Server::given() else { return };
    let schema = server.schema();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| schema.create());
        }
    });
    assert_eq!(schema.number("SELECT count(*) FROM migrations"), 2);
}

#[test]
fn tables_of_another_version_are_left_alone() {
    let Some(server) = Server::given() else { return };
    let schema = server.schema();
    schema.create();
    schema.sql("INSERT INTO migrations (version) VALUES (3)");
    for result in [PostgresStore::open(&schema.uri(), here()), PostgresStore::create(&schema.uri(), here())] {
        let text = refusal(result);
        assert!(text.contains("newer keyfold") && text.contains("version 3, this build knows 2"), "{text}");
    }
    schema.sql("DELETE FROM migrations WHERE version > 1");
    let text = refusal(PostgresStore::open(&schema.uri(), here()));
    assert!(text.contains("older keyfold") && text.contains("keyfold migrate --store"), "{text}");
    schema.sql("ALTER TABLE records ALTER COLUMN record SET STATISTICS 100");
    schema.create();
    let statistics =
        "SELECT attstattarget::bigint FROM pg_attribute WHERE attrelid = 'records'::regclass AND attname = 'record'";
    assert_eq!(schema.number(statistics), 0, "older tables are brought up to date");
}

#[test]
fn a_failed_migration_leaves_nothing() {
    let Some(server) = Server::given() else { return };
    let schema = server.schema();
    // A table in the way of the second statement.
    server.sql(&format!("CREATE SCHEMA {0}; CREATE TABLE {0}.scopes (x int)", schema.name));
    let text = refusal(PostgresStore::create(&schema.uri(), here()));
    assert!(text.contains("42P07"), "{text}");
    assert_eq!(
        schema.number(
            "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema::regnamespace"
        ),
        1
    );
    schema.sql("DROP TABLE scopes");
    schema.create();
}

#[test]
fn constraints_refuse_what_the_code_would_never_write() {
    let Some(server) = Server::given() else { return };
    let schema = server.schema();
    schema.create();
    for sql in [
        "INSERT INTO counters VALUES ('\\x01', 1)",
        "INSERT INTO counters VALUES (decode(repeat('01', 16), 'hex'), 0)",
        "INSERT INTO counters VALUES (decode(repeat('01', 16), 'hex'), 4294967296)",
        "INSERT INTO scopes VALUES (decode(repeat('01', 16), 'hex'), '\\x02', decode(repeat('03', 16), 'hex'))",
        "INSERT INTO records VALUES (decode(repeat('01', 16), 'hex'), decode(repeat('02', 23), 'hex'), 1, decode(repeat('03', 16), 'hex'), 1, NULL, 1, 1, '\\x00')",
        "INSERT INTO records VALUES (decode(repeat('01', 16), 'hex'), decode(repeat('02', 24), 'hex'), 1, decode(repeat('03', 16), 'hex'), 1, NULL, 1, -1, '\\x00')",
        "INSERT INTO records VALUES (decode(repeat('01', 16), 'hex'), decode(repeat('02', 24), 'hex'), 1, decode(repeat('03', 16), 'hex'), 1, NULL, 1, 1, '')",
    ] {
        let error = schema.try_sql(sql).expect_err(sql);
        assert_eq!(error.as_database_error().and_then(|e| e.code()).as_deref(), Some("23514"), "{sql}: {error}");
    }
    let orphan = "INSERT INTO records VALUES (decode(repeat('01', 16), 'hex'), decode(repeat('02', 24), 'hex'), 1, decode(repeat('03', 16), 'hex'), 1, decode(repeat('04', 32), 'hex'), 1, 1, '\\x00')";
    let error = schema.try_sql(orphan).expect_err("a scope tag without a scope");
    assert_eq!(error.as_database_error().and_then(|e| e.code()).as_deref(), Some("23503"));
}
