//! Rows that somebody has edited.

use crate::server::{OURS, Schema, Server, refusal};
use keyfold::testing::{SampleRecord, block_on, sample_records};
use keyfold::{KeyStore, Record};

fn filled(schema: &Schema) -> (keyfold_store::PostgresStore, Vec<Record>) {
    let store = schema.create();
    let records = sample_records(OURS);
    for record in &records {
        let head = block_on(store.newest(record.slot(), 1)).expect("read").first().map(Record::key_id);
        block_on(store.insert(record, head)).expect("inserted");
    }
    (store, records)
}

/// Covers F-C-1.
#[test]
fn a_row_that_disagrees_with_its_record_is_an_error() {
    let Some(server) = Server::given() else { return };
    for edit in [
        "class = class % 5 + 1",
        "slot = decode(repeat('7f', 16), 'hex'), scope_tag = NULL",
        "generation = generation + 1",
        "scope_tag = NULL",
        "state = state % 5 + 1",
        "sequence = sequence + 1",
        "record = set_byte(record, 40, 255 - get_byte(record, 40))",
        "record = substring(record FOR length(record) - 1)",
        "record = '\\x00'",
    ] {
        let schema = server.schema();
        let (store, records) = filled(&schema);
        let victim = records.iter().find(|record| record.scope_tag().is_some()).expect("a scope's key");
        let key_id: String = victim.key_id().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        schema.sql(&format!("UPDATE records SET {edit} WHERE key_id = '\\x{key_id}'"));
        let text = match block_on(store.get(OURS, victim.key_id())) {
            // A bit of the part that only the root's MAC covers: the keyring finds it.
            Ok(Some(record)) => {
                assert_ne!(&record, victim, "{edit}");
                continue;
            }
            other => refusal(other),
        };
        assert!(text.contains("cannot be used") && text.contains(&victim.key_id().to_string()), "{edit}: {text}");
        assert!(refusal(block_on(store.list(OURS, None, 100))).contains("cannot be used"), "{edit}");
        // The others are not harmed.
        let other = records.iter().find(|record| record.slot() != victim.slot()).expect("another");
        assert_eq!(block_on(store.get(OURS, other.key_id())).expect("read").as_ref(), Some(other));
    }
}

#[test]
fn columns_of_another_type_or_length_are_an_error_and_show_no_value() {
    let Some(server) = Server::given() else { return };
    for edit in [
        "ALTER TABLE records DROP CONSTRAINT records_slot_check; UPDATE records SET scope_tag = NULL, slot = '\\xca11ca11ca11'",
        "ALTER TABLE records ALTER COLUMN state TYPE text USING 'canary'",
        "UPDATE records SET state = -7",
        "ALTER TABLE records ALTER COLUMN record DROP NOT NULL; UPDATE records SET record = NULL",
    ] {
        let schema = server.schema();
        let (store, records) = filled(&schema);
        schema.sql("ALTER TABLE records DROP CONSTRAINT records_state_check");
        schema.sql(edit);
        let text = refusal(block_on(store.get(OURS, records[0].key_id())));
        assert!(!text.contains("canary") && !text.contains("ca11ca11ca11"), "{edit}: {text}");
    }
}

#[test]
fn an_edited_scope_and_counter_are_errors_or_harmless() {
    let Some(server) = Server::given() else { return };
    let schema = server.schema();
    let (store, records) = filled(&schema);
    let tag = records.iter().find_map(Record::scope_tag).expect("a scope");
    schema.sql("ALTER TABLE records DROP CONSTRAINT records_lineage_scope_tag_slot_fkey");
    schema.sql("ALTER TABLE scopes DROP CONSTRAINT scopes_slot_check; UPDATE scopes SET slot = '\\x01'");
    assert!(refusal(block_on(store.scope_by_tag(OURS, tag))).contains("length"));
    // A counter that was set back, or deleted, stays above the records.
    let highest = records.iter().map(|record| record.key_id().generation()).max().expect("records");
    schema.sql("UPDATE counters SET generation = 1");
    assert!(block_on(store.allocate_generation(OURS, 0)).expect("allocated") > highest);
    schema.sql("DELETE FROM counters");
    assert!(block_on(store.allocate_generation(OURS, 0)).expect("allocated") > highest);
}

#[test]
fn a_sequence_that_no_integer_holds_is_refused() {
    let Some(server) = Server::given() else { return };
    let schema = server.schema();
    let store = schema.create();
    let record = SampleRecord::new(OURS, 1).sequence(u64::MAX).build();
    assert!(refusal(block_on(store.insert(&record, None))).contains("too large"));
    assert_eq!(block_on(store.list(OURS, None, 10)).expect("read"), []);
}
