//! The PostgreSQL store, against the server that KEYFOLD_TEST_POSTGRES names (`./test` starts one, and so does
//! `python3 tools/servers/postgres.py cargo test …`).

mod away;
mod fork;
mod purge;
mod roles;
mod rows;
mod server;
mod tables;
mod tls;

use keyfold::testing::{SampleRecord, block_on, store_conformance};
use keyfold::{KeyState, KeyStore, RecordChange};
use server::{OURS, Server};
use std::time::{Duration, Instant};

#[test]
fn conforms() {
    let Some(server) = Server::given() else { return };
    let mut schemas = Vec::new();
    store_conformance(|| {
        let schema = server.schema();
        let stores = [schema.create(), schema.open()];
        schemas.push(schema);
        stores
    });
}

#[test]
fn debug_shows_no_password() {
    let Some(server) = Server::given() else { return };
    let schema = server.schema();
    let shown = format!("{:?}", schema.create());
    assert!(shown.contains(&schema.name) && !shown.contains(&server.password()), "{shown}");
}

#[test]
fn works_inside_a_runtime_and_outside() {
    let Some(server) = Server::given() else { return };
    let schema = server.schema();
    let store = schema.create();
    let once = || async { store.allocate_generation(OURS, 0).await.expect("allocated") };
    assert_eq!(block_on(once()), 1);
    // A runtime without I/O and timers of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    assert_eq!(runtime.block_on(once()), 2);
    // Opening blocks, and is allowed there all the same.
    let second = runtime.block_on(async { schema.open() });
    drop(runtime);
    // What was opened under a runtime that has gone works on.
    assert_eq!(block_on(second.allocate_generation(OURS, 0)).expect("allocated"), 3);
}

#[test]
fn a_dropped_future_leaves_no_half_done_change_and_no_lock() {
    let Some(server) = Server::given() else { return };
    let schema = server.schema();
    let store = schema.create();
    let (mut head, mut dropped) = (None, 0);
    for generation in 1..=40 {
        let record = SampleRecord::new(OURS, generation).build();
        {
            let mut insert = store.insert(&record, head);
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            // It may be done already, where this thread was held up.
            dropped += usize::from(insert.as_mut().poll(&mut context).is_pending());
            std::thread::sleep(Duration::from_micros(u64::from(generation) * 97));
        }
        // The work goes on; a rival for the same slot waits for it, and neither loses.
        let began = Instant::now();
        let rival = SampleRecord::new(OURS, generation + 1000).build();
        let inserted = block_on(store.insert(&rival, Some(record.key_id())));
        assert!(began.elapsed() < Duration::from_secs(5), "a lock was left");
        let stored = block_on(store.get(OURS, record.key_id())).expect("read");
        if inserted.is_ok() {
            assert_eq!(stored.as_ref(), Some(&record));
            schema.sql("DELETE FROM records WHERE generation > 1000");
        }
        let waited = Instant::now();
        while block_on(store.get(OURS, record.key_id())).expect("read").is_none() {
            assert!(waited.elapsed() < Duration::from_secs(5), "the work did not go on");
        }
        head = Some(record.key_id());
    }
    assert!(dropped > 20, "only {dropped} of 40 were dropped on the way");
}

#[test]
fn changes_that_are_in_each_others_way_are_repeated() {
    let Some(server) = Server::given() else { return };
    let schema = server.schema();
    let store = schema.create();
    let of = |n: u8, sequence| {
        let id = keyfold::SlotId::from_bytes([n; 16]);
        SampleRecord::new(OURS, u32::from(n)).slot(id).sequence(sequence).state(KeyState::Active).build()
    };
    for n in 1..=100 {
        block_on(store.insert(&of(n, 1), None)).expect("inserted");
    }
    for sequence in 1..=2 {
        let changes: Vec<_> =
            (1..=100).map(|n| RecordChange { record: of(n, sequence + 1), expected_sequence: sequence }).collect();
        std::thread::scope(|scope| {
            // A rival that holds one row in the middle, and then waits for the others. It is more patient than the
            // server's default, so that ours is the one that is rolled back.
            scope.spawn(|| {
                schema.sql(
                    "SET deadlock_timeout = '60s'; BEGIN; SELECT 1 FROM records WHERE generation = 50 FOR UPDATE; \
                     SELECT pg_sleep(0.6); SELECT 1 FROM records ORDER BY generation FOR UPDATE; COMMIT",
                )
            });
            std::thread::sleep(Duration::from_millis(300));
            assert_eq!(block_on(store.update_many(&changes)).expect("changed"), []);
        });
    }
    assert_eq!(block_on(store.get(OURS, of(50, 1).key_id())).expect("read"), Some(of(50, 3)));
}

#[test]
fn the_clock_is_the_databases() {
    let Some(server) = Server::given() else { return };
    let schema = server.schema();
    let store = schema.create();
    let ours = || schema.number("SELECT floor(extract(epoch FROM clock_timestamp()))::bigint");
    let (before, now, after) = (ours(), block_on(store.now()).expect("a clock"), ours());
    let now = i64::try_from(now).expect("small");
    assert!(before <= now && now <= after);
}
