//! The roles of docs/POSTGRES.md, made by exactly the SQL that stands there: each can do what it needs, and no more.

use crate::server::{OURS, Server, here, refusal};
use keyfold::testing::{SampleRecord, block_on};
use keyfold::{ErrorKind, KeyState, KeyStore, RecordChange, SlotId};
use keyfold_store::PostgresStore;
use sqlx::Row;

const DOCUMENT: &str = include_str!("../../../docs/POSTGRES.md");
const ROLES: [&str; 3] = ["keyfold_owner", "keyfold_service", "keyfold_reader"];

/// The blocks of SQL in the document, in order.
fn blocks() -> Vec<&'static str> {
    DOCUMENT.split("```sql\n").skip(1).map(|rest| rest.split("```").next().expect("an end")).collect()
}

struct Database {
    administrator: Server,
    server: Server,
}

impl Database {
    /// A database with the documented roles; they belong to the server, so there is one at a time.
    fn new(server: &Server) -> Self {
        let mut own = server.clone();
        own.uri.set_path("/keyfold_test_roles");
        let this = Self { administrator: server.clone(), server: own };
        this.remove();
        server.sql("CREATE DATABASE keyfold_test_roles");
        let [before, after] = blocks().try_into().expect("two blocks of SQL");
        this.server.sql(before);
        for role in ROLES {
            this.server.sql(&format!("ALTER ROLE {role} PASSWORD 'secret of {role}'"));
        }
        PostgresStore::create(&this.uri("keyfold_owner"), here()).expect("the owner makes the tables");
        this.server.sql(after);
        this
    }

    fn uri(&self, role: &str) -> String {
        let mut uri = self.server.uri.clone();
        uri.set_username(role).expect("a name");
        uri.set_password(Some(&format!("secret of {role}"))).expect("a password");
        uri.query_pairs_mut().append_pair("sslrootcert", &self.server.ca);
        uri.into()
    }

    fn open(&self, role: &str) -> PostgresStore {
        PostgresStore::open(&self.uri(role), here()).expect("opened")
    }

    /// The SQLSTATE with which the role is refused, or nothing.
    fn refused(&self, role: &str, sql: &str) -> Option<String> {
        let mut server = self.server.clone();
        server.uri = self.uri(role).parse().expect("a URI");
        server.uri.set_query(None);
        let error = server.try_sql(sql).err()?;
        Some(error.as_database_error().and_then(|error| error.code()).expect("the database refuses").into_owned())
    }

    fn remove(&self) {
        self.administrator.sql("DROP DATABASE IF EXISTS keyfold_test_roles WITH (FORCE)");
        for role in ROLES {
            self.administrator.sql(&format!("DROP ROLE IF EXISTS {role}"));
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.remove();
        }
    }
}

#[test]
fn each_role_can_do_what_it_needs_and_nothing_else() {
    let Some(server) = Server::given() else { return };
    let database = Database::new(&server);
    let scope = SlotId::from_bytes([5; 16]);
    let record = SampleRecord::new(OURS, 1).scope(scope, [6; 32]).build();
    let update = SampleRecord::new(OURS, 1).scope(scope, [6; 32]).sequence(2).state(KeyState::Deactivated).build();
    let next = SampleRecord::new(OURS, 2).scope(scope, [6; 32]).build();

    let service = database.open("keyfold_service");
    assert_eq!(block_on(service.allocate_generation(OURS, 0)).expect("allocated"), 1);
    assert_eq!(block_on(service.allocate_generation(OURS, 7)).expect("allocated"), 8);
    block_on(service.insert(&record, None)).expect("inserted");
    assert_eq!(block_on(service.insert(&next, None)).expect_err("another head").kind(), ErrorKind::Conflict);
    block_on(service.update(&update, 1)).expect("updated");
    let change = RecordChange { record: update.clone(), expected_sequence: 1 };
    assert_eq!(block_on(service.update_many(&[change])).expect("tried"), [update.key_id()]);
    // Nothing is missing, so no more is needed than reading.
    drop(PostgresStore::create(&database.uri("keyfold_service"), here()).expect("nothing to do"));

    let reader = database.open("keyfold_reader");
    assert_eq!(block_on(reader.get(OURS, record.key_id())).expect("read"), Some(update.clone()));
    assert_eq!(block_on(reader.newest(record.slot(), 1)).expect("read").len(), 1);
    assert_eq!(block_on(reader.list(OURS, None, 9)).expect("read").len(), 1);
    assert_eq!(block_on(reader.scope_by_tag(OURS, [6; 32])).expect("read"), Some(scope));
    block_on(reader.now()).expect("a clock");
    for (text, needs) in [
        (refusal(block_on(reader.insert(&next, Some(record.key_id())))), "SELECT and INSERT on records and scopes"),
        (refusal(block_on(reader.update(&next, 1))), "UPDATE (state, sequence, record) on records"),
        (refusal(block_on(reader.allocate_generation(OURS, 0))), "UPDATE (generation) on counters"),
    ] {
        assert!(text.contains("lacks a privilege") && text.contains(needs), "{text}");
    }
    assert_eq!(block_on(reader.list(OURS, None, 9)).expect("read").len(), 1, "the reader added a record");

    const PRIVILEGE: &str = "42501";
    for role in ["keyfold_service", "keyfold_reader"] {
        for sql in [
            "DELETE FROM keyfold.records",
            "DELETE FROM keyfold.scopes",
            "DELETE FROM keyfold.counters",
            "TRUNCATE keyfold.records CASCADE",
            "ALTER TABLE keyfold.records ADD COLUMN x int",
            "DROP TABLE keyfold.records",
            "CREATE TABLE keyfold.x (x int)",
            "CREATE TRIGGER t BEFORE INSERT ON keyfold.records FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "UPDATE keyfold.records SET key_id = key_id",
            "UPDATE keyfold.records SET lineage = lineage",
            "UPDATE keyfold.scopes SET slot = slot",
            "UPDATE keyfold.counters SET lineage = lineage",
            "UPDATE keyfold.migrations SET version = 9",
            "INSERT INTO keyfold.migrations (version) VALUES (9)",
            "SET ROLE keyfold_owner",
        ] {
            assert_eq!(database.refused(role, sql).as_deref(), Some(PRIVILEGE), "{role}: {sql}");
        }
    }
    for sql in [
        "SELECT * FROM keyfold.counters",
        "UPDATE keyfold.records SET state = state",
        "INSERT INTO keyfold.scopes SELECT * FROM keyfold.scopes",
    ] {
        assert_eq!(database.refused("keyfold_reader", sql).as_deref(), Some(PRIVILEGE), "{sql}");
    }
    // Everybody else sees nothing.
    server.sql("DROP ROLE IF EXISTS keyfold_test_stranger");
    database.server.sql("CREATE ROLE keyfold_test_stranger LOGIN PASSWORD 'secret of keyfold_test_stranger'");
    // A grant by somebody who may not is a warning for the database, and grants nothing.
    database.refused("keyfold_service", "GRANT SELECT, DELETE ON keyfold.records TO PUBLIC");
    let granted =
        "SELECT has_table_privilege('keyfold_test_stranger', 'keyfold.records', 'SELECT, DELETE')::int::bigint";
    assert_eq!(database.server.sql(granted)[0].try_get_unchecked::<i64, _>(0).expect("a number"), 0);
    assert_eq!(database.refused("keyfold_test_stranger", "SELECT * FROM keyfold.records").as_deref(), Some(PRIVILEGE));
    // Nobody must read out of the error that a service needs the owner's role.
    let hint = "the GRANTs of docs/POSTGRES.md part 2";
    let text = refusal(PostgresStore::open(&database.uri("keyfold_test_stranger"), here()));
    assert!(text.contains("no key store in that schema"), "{text}");
    database.server.sql("GRANT USAGE ON SCHEMA keyfold TO keyfold_test_stranger");
    let text = refusal(PostgresStore::open(&database.uri("keyfold_test_stranger"), here()));
    assert!(text.contains(hint) && text.contains("keyfold migrate") && !text.contains("CREATE on"), "{text}");
    let text = refusal(PostgresStore::create(&database.uri("keyfold_test_stranger"), here()));
    assert!(text.contains(hint) && text.contains("for `keyfold migrate` alone"), "{text}");
    database.server.sql("REVOKE USAGE ON SCHEMA keyfold FROM keyfold_test_stranger");
    server.sql("DROP ROLE keyfold_test_stranger");
}
