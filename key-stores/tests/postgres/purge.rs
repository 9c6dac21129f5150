//! What is left of a replaced record: the table's files, and the write-ahead log.

use crate::server::{OURS, Schema, Server};
use keyfold::testing::{SampleRecord, block_on};
use keyfold::{KeyState, KeyStore, Remainder};
use std::time::{Duration, Instant};

fn place<'a>(remainders: &'a [Remainder], name: &str) -> &'a Remainder {
    remainders.iter().find(|remainder| remainder.place == name).expect("the place")
}

fn table_file(schema: &Schema) -> i64 {
    schema.number("SELECT pg_relation_filenode('records')")
}

/// How often the planner's statistics hold the record of the first key, which is alive.
fn in_statistics(schema: &Schema) -> i64 {
    let record = SampleRecord::new(OURS, 1).build();
    let hex: String = record.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    schema.number(&format!(
        "SELECT count(*) FROM pg_stats WHERE schemaname = '{}' AND \
         (histogram_bounds::text LIKE '%{hex}%' OR most_common_vals::text LIKE '%{hex}%')",
        schema.name
    ))
}

/// A store in which a key was destroyed, after the planner's statistics were made as in tables of the first version.
fn destroy(schema: &Schema, store: &dyn KeyStore) {
    let alive = SampleRecord::new(OURS, 1);
    block_on(store.insert(&alive.build(), None)).expect("inserted");
    for generation in 2..4 {
        let head = SampleRecord::new(OURS, generation - 1).build().key_id();
        block_on(store.insert(&SampleRecord::new(OURS, generation).build(), Some(head))).expect("inserted");
    }
    schema.sql("ANALYZE records");
    assert_eq!(in_statistics(schema), 0, "new tables keep none");
    schema.sql("ALTER TABLE records ALTER COLUMN record SET STATISTICS 100; ANALYZE records");
    assert_eq!(in_statistics(schema), 1, "the test sees them");
    block_on(store.update(&alive.sequence(2).state(KeyState::Destroyed).build(), 1)).expect("updated");
    assert_eq!(schema.number("SELECT count(*) FROM records"), 3);
}

#[test]
fn the_table_is_rewritten_by_its_owner_and_the_log_is_watched_until_it_is_gone() {
    let Some(server) = Server::given() else { return };
    let schema = server.schema();
    let store = schema.create();
    destroy(&schema, &store);
    let before = table_file(&schema);
    // Other tests of this server hold snapshots now and then.
    let began = Instant::now();
    let mut found = block_on(store.purge(&[])).expect("purged");
    while found.iter().any(|place| place.place != "write-ahead log" && !place.gone) {
        assert!(began.elapsed() < Duration::from_secs(20), "{found:?}");
        std::thread::sleep(Duration::from_millis(50));
        let log = place(&found, "write-ahead log").mark.clone();
        server.sql("SELECT txid_current(), pg_switch_wal()");
        found.retain(|place| !place.gone);
        found = block_on(store.purge(&found)).expect("purged");
        assert_ne!(place(&found, "write-ahead log").mark, log, "what was cleaned now is in newer segments");
    }
    assert_eq!(in_statistics(&schema), 0, "the planner keeps the record");
    assert_ne!(table_file(&schema), before, "the files are the old ones");
    assert_eq!(block_on(store.list(OURS, None, 9)).expect("listed").len(), 3);
    assert!(!place(&found, "write-ahead log").gone);
    // Segments go with checkpoints, and what is renamed for use again is written over.
    let (mut rounds, mut phases) = (0, Vec::new());
    while !place(&found, "write-ahead log").gone {
        rounds += 1;
        assert!(rounds < 60, "{found:?}");
        phases.push(place(&found, "write-ahead log").mark.split(' ').next().unwrap_or_default().to_owned());
        server.sql("SELECT txid_current(), pg_switch_wal(); CHECKPOINT");
        found.retain(|place| !place.gone);
        found = block_on(store.purge(&found)).expect("asked");
    }
    phases.dedup();
    assert_eq!(phases, ["after", "past"], "in two steps");
}

#[test]
fn a_session_that_sees_old_rows_and_a_role_that_cannot_see_keep_it_pending() {
    let Some(server) = Server::given() else { return };
    let schema = server.schema();
    let store = schema.create();
    destroy(&schema, &store);
    std::thread::scope(|scope| {
        let snapshot = scope.spawn(|| {
            server
                .sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class; SELECT pg_sleep(4); COMMIT")
        });
        std::thread::sleep(Duration::from_millis(1500));
        let found = block_on(store.purge(&[])).expect("purged");
        let table = place(&found, "store");
        assert!(!table.gone && table.detail.contains("rows from before"), "{table:?}");
        snapshot.join().expect("it ends");
        // The log has what this call cleans: the old mark does not count any more.
        server.sql("SELECT txid_current(), pg_switch_wal()");
        let next = block_on(store.purge(&found)).expect("purged");
        assert_ne!(place(&next, "write-ahead log").mark, place(&found, "write-ahead log").mark);
    });

    let role = format!("{}_service", schema.name);
    server.sql(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'pw'; GRANT USAGE ON SCHEMA {0} TO {role}; \
         GRANT SELECT ON {0}.migrations, {0}.records, {0}.scopes TO {role}",
        schema.name
    ));
    let uri = schema.uri_with(|uri| {
        uri.set_username(&role).expect("a user");
        uri.set_password(Some("pw")).expect("a password");
    });
    let service = keyfold_store::PostgresStore::open(&uri, crate::server::here()).expect("opened");
    schema.sql("ALTER TABLE records ALTER COLUMN record SET STATISTICS 100; ANALYZE records");
    let before = table_file(&schema);
    let found = block_on(service.purge(&[])).expect("asked");
    assert_eq!(table_file(&schema), before, "a service rewrote the table");
    let statistics = place(&found, "statistics");
    assert!(!statistics.gone && statistics.detail.contains("VACUUM FULL pg_statistic"), "{statistics:?}");
    assert!(!place(&found, "store").gone && place(&found, "store").detail.contains("as the owner"), "{found:?}");
    // Once the owner has, the service sees that; but not who else looks at old rows, nor the log.
    // A statement of its own, as it must be.
    server.sql(&format!("VACUUM FULL {}.records", schema.name));
    let found = block_on(service.purge(&found)).expect("asked");
    assert!(place(&found, "store").detail.contains("pg_monitor"), "{found:?}");
    let found = block_on(service.purge(&found)).expect("asked");
    assert!(!place(&found, "write-ahead log").gone);
    drop(service);
    server.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}
