//! From a plaintext column to a sealed one by the steps of docs/MIGRATION.md, on SQLite and PostgreSQL.

use crate::common::{CANARY, DATA, POLICY, Run, USAGE, World, contains, repository};
use crate::tables::{Database, databases, sealed};
use keyfold::Value;
use keyfold_tables::{Cell, Row};
use serde_json::Value as Json;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

const PHASES: &str = r#"version = 1

[fields."patient.ssn"]
identifier = "G"
row_binding = "id"
migration = { until = "2999-12-31", phase = "dual-write" }
"#;

struct Clinic {
    world: World,
    database: Database,
}

/// The SQL of the document for a database, in order.
fn documented(tag: &str) -> Vec<String> {
    let text = fs::read_to_string(repository("docs/MIGRATION.md")).expect("the document");
    let blocks = text.split("```").skip(1).step_by(2);
    let of = |block: &str| block.strip_prefix(&format!("sql {tag}\n")).map(str::to_owned);
    blocks.filter_map(of).collect()
}

fn ssn(id: usize) -> String {
    format!("{CANARY}-ssn-{id}")
}

impl Clinic {
    /// A table with plaintext, and the column of step 1.
    fn new(database: Database, patients: usize) -> Self {
        let rows: Vec<String> = (0..patients).map(|id| format!("({id}, '{}')", ssn(id))).collect();
        database.sql(&format!(
            "CREATE TABLE patients (id INTEGER NOT NULL PRIMARY KEY, ssn TEXT); INSERT INTO patients VALUES {}; \
             INSERT INTO patients VALUES (100000, NULL)",
            rows.join(", ")
        ));
        let tag = if database.is_postgres() { "postgresql" } else { "sqlite" };
        database.sql(&documented(tag)[0]);
        let clinic = Self { world: World::new(), database };
        clinic.world.write("policy.toml", PHASES);
        clinic
    }

    fn all() -> impl Iterator<Item = Self> {
        databases().into_iter().map(|database| Self::new(database, 1500))
    }

    fn phase(&self, phase: &str) {
        self.world.write("policy.toml", PHASES.replace("dual-write", phase));
    }

    fn backfill(&self, more: &[&str]) -> Run {
        let table = ["backfill", "--sql", &self.database.uri, "--table", "patients", "--key", "id"];
        let columns = ["--from", "ssn", "--to", "ssn_sealed", "--field", "patient.ssn", "--json"];
        self.world.run(&[&table[..], &columns, more].concat())
    }

    fn rows(&self) -> Vec<Row> {
        self.database.rows("patients", "id", &["ssn", "ssn_sealed"])
    }

    /// What an application's dual write stores.
    fn seal(&self, id: usize, value: &str) -> String {
        let ring = keyfold_open::open(&self.world.config(), &[self.world.path("policy.toml")]).expect("it opens");
        let encryptor = pollster::block_on(ring.field("patient.ssn").expect("a field").encryptor()).expect("a key");
        let sealed = encryptor.encrypt(Value::Text(value), Some(id.to_string().as_bytes())).expect("sealed");
        self.database.literal(&data_encoding::HEXLOWER.encode(&sealed))
    }

    #[track_caller]
    fn assert_open(&self, id: usize, row: &Row, expected: &str) {
        let ring = keyfold_open::open(&self.world.config(), &[self.world.path("policy.toml")]).expect("it opens");
        let decryptor = pollster::block_on(ring.field("patient.ssn").expect("a field").decryptor()).expect("a key");
        let value = sealed(&row.cells[1]);
        pollster::block_on(decryptor.load_keys(&[&value[..]][..])).expect("keys");
        let opened = decryptor.decrypt(&value, Some(id.to_string().as_bytes())).expect("it opens");
        assert!(opened.value() == Value::Text(expected));
    }
}

fn numbers(summary: &Json, names: &[&str]) -> Vec<u64> {
    names.iter().map(|name| summary[name].as_u64().expect(name)).collect()
}

#[test]
fn every_step_and_back() {
    for clinic in Clinic::all() {
        let dry = clinic.backfill(&["--dry-run"]).expect(0, &[]).summary();
        assert_eq!(numbers(&dry, &["rows", "sealed", "empty"]), [1501, 1500, 1]);
        assert!(clinic.rows().iter().all(|row| row.cells[1] == Cell::Null), "a dry run has written");
        clinic.backfill(&["--verify"]).expect(DATA, &[]);
        // `--context tenant=$TENANT` where that is not set.
        clinic.backfill(&["--context", "tenant="]).expect(USAGE, &["has an empty value: is a variable unset?"]);
        assert!(clinic.rows().iter().all(|row| row.cells[1] == Cell::Null), "a refusal has written");
        // Two rows by dual writing, of which one has had its plaintext changed by an old program since.
        let (one, two) = (clinic.seal(1, &ssn(1)), clinic.seal(2, "older"));
        clinic.database.sql(&format!(
            "UPDATE patients SET ssn_sealed = {one} WHERE id = 1; UPDATE patients SET ssn_sealed = {two} WHERE id = 2"
        ));
        let filled = clinic.backfill(&["--batch-rows", "400"]).expect(0, &[]).summary();
        assert_eq!(numbers(&filled, &["rows", "sealed", "replaced", "equal", "empty"]), [1501, 1498, 1, 1, 1]);
        let rows = clinic.rows();
        for id in [0, 1, 2, 1499] {
            clinic.assert_open(id, &rows[id], &ssn(id));
        }
        let verified = clinic.backfill(&["--verify"]).expect(0, &[]).summary();
        assert_eq!(numbers(&verified, &["rows", "equal", "empty", "missing", "different"]), [1501, 1500, 1, 0, 0]);
        assert!(clinic.rows().iter().zip(&rows).all(|(now, then)| now.cells == then.cells));
        // Back to the start, and forth again.
        let undone = clinic.backfill(&["--undo"]).expect(0, &[]).summary();
        assert_eq!(numbers(&undone, &["emptied"]), [1500]);
        assert!(clinic.rows().iter().all(|row| row.cells[1] == Cell::Null));
        clinic.backfill(&[]).expect(0, &[]);
        // Cut over, back, and over again; each step in its phase only.
        clinic.backfill(&["--finish", "--yes"]).expect(POLICY, &["cut-over"]);
        clinic.phase("cut-over");
        clinic.backfill(&[]).expect(POLICY, &["dual-write"]);
        clinic.backfill(&["--undo"]).expect(POLICY, &["dual-write"]);
        clinic.backfill(&["--verify"]).expect(0, &[]);
        clinic.backfill(&["--finish"]).expect(USAGE, &["--yes"]);
        // Not while one of them is missing.
        clinic.database.sql("UPDATE patients SET ssn_sealed = NULL WHERE id = 7");
        clinic.backfill(&["--finish", "--yes"]).expect(DATA, &["nothing was emptied"]);
        assert!(clinic.rows()[..1500].iter().all(|row| row.cells[0] != Cell::Null));
        clinic.phase("dual-write");
        clinic.backfill(&[]).expect(0, &[]);
        clinic.phase("cut-over");
        let finished = clinic.backfill(&["--finish", "--yes"]).expect(0, &[]).summary();
        assert_eq!(numbers(&finished, &["emptied", "empty"]), [1500, 1]);
        let rows = clinic.rows();
        assert!(rows.iter().all(|row| row.cells[0] == Cell::Null));
        clinic.assert_open(3, &rows[3], &ssn(3));
        // There is nothing to undo it from.
        clinic.phase("dual-write");
        let kept = clinic.backfill(&["--undo"]).expect(DATA, &[]).summary();
        assert_eq!(numbers(&kept, &["emptied", "sealed_only"]), [0, 1500]);
        let tag = if clinic.database.is_postgres() { "postgresql-after" } else { "sqlite-after" };
        for statement in documented(tag)[0].lines() {
            clinic.database.sql(statement);
        }
    }
}

#[test]
fn the_sql_of_the_document_works() {
    for clinic in Clinic::all() {
        let pg = clinic.database.is_postgres();
        let tag = if pg { "postgresql" } else { "sqlite" };
        let blocks = documented(tag);
        assert_eq!(blocks.len(), if pg { 4 } else { 3 });
        let value = clinic.seal(77_000, "x");
        for statement in blocks[1].lines() {
            let parameters = [("1", "77000"), ("2", "'x'"), ("3", &value)];
            let sign = if pg { "$" } else { "?" };
            let filled = parameters
                .iter()
                .fold(statement.to_owned(), |sql, (at, with)| sql.replace(&format!("{sign}{at}"), with));
            clinic.database.sql(&filled);
        }
        for block in &blocks[2..] {
            clinic.database.sql(block);
        }
        clinic.assert_open(77_000, &clinic.rows()[1500], "x");
    }
}

#[test]
fn what_only_one_column_holds_is_never_emptied() {
    for clinic in Clinic::all() {
        clinic.backfill(&[]).expect(0, &[]);
        let newer = clinic.seal(5, "newer");
        clinic.database.sql(&format!(
            "UPDATE patients SET ssn_sealed = {newer} WHERE id = 5; UPDATE patients SET ssn = NULL WHERE id = 6"
        ));
        let undone = clinic.backfill(&["--undo"]).expect(DATA, &[]).summary();
        assert_eq!(numbers(&undone, &["emptied", "different", "sealed_only"]), [1498, 1, 1]);
        let rows = clinic.rows();
        clinic.assert_open(5, &rows[5], "newer");
        clinic.assert_open(6, &rows[6], &ssn(6));
        clinic.phase("cut-over");
        clinic.backfill(&["--finish", "--yes"]).expect(DATA, &["nothing was emptied"]);
        assert!(clinic.rows()[7].cells[0] != Cell::Null);
    }
}

#[test]
fn a_writer_in_between_wins() {
    for clinic in Clinic::all() {
        std::thread::scope(|scope| {
            let running =
                scope.spawn(|| clinic.backfill(&["--batch-rows", "50", "--rows-per-second", "1500"]).expect(0, &[]));
            // Old programs, which write the plaintext alone; and one with dual writing.
            for round in 0..40 {
                let id = 1499 - round * 30;
                clinic.database.sql(&format!("UPDATE patients SET ssn = '{}-new' WHERE id = {id}", ssn(id)));
            }
            running.join().expect("it ends");
        });
        // Whatever the order was: what it sealed is what stood there, so a second run seals the rest.
        clinic.backfill(&[]).expect(0, &[]);
        let verified = clinic.backfill(&["--verify"]).expect(0, &[]).summary();
        assert_eq!(numbers(&verified, &["equal"]), [1500]);
        clinic.assert_open(1499, &clinic.rows()[1499], &format!("{}-new", ssn(1499)));
    }
}

#[test]
fn killed_and_interrupted_it_goes_on() {
    for clinic in Clinic::all() {
        let table = ["backfill", "--sql", &clinic.database.uri, "--table", "patients", "--key", "id"];
        let columns = ["--from", "ssn", "--to", "ssn_sealed", "--field", "patient.ssn"];
        let slow = ["--checkpoint", "point", "--batch-rows", "50", "--rows-per-second", "2000"];
        for wait in [120, 200, 280, 360] {
            let mut command = clinic.world.command(&[&table[..], &columns, &slow].concat());
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
            sleep(Duration::from_millis(wait));
            if wait % 80 == 0 {
                child.kill().expect("killed");
            } else {
                rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
                    .expect("sent");
            }
            child.wait().expect("it ends");
        }
        let done = clinic.backfill(&["--checkpoint", "point"]).expect(0, &[]).summary();
        let counts = numbers(&done, &["rows", "sealed", "equal", "empty", "replaced", "failed"]);
        assert_eq!((counts[0], counts[1..].iter().sum::<u64>()), (1501, 1501));
        clinic.backfill(&["--verify"]).expect(0, &[]);
    }
}

#[test]
fn bad_rows_and_wrong_columns() {
    for clinic in Clinic::all() {
        clinic.world.write("policy.toml", PHASES.replace("identifier", "type = \"integer\"\nidentifier"));
        clinic.database.sql("UPDATE patients SET ssn = '42' WHERE id > 3");
        clinic.backfill(&[]).expect(DATA, &["InvalidInput", "--errors"]);
        let summary = clinic.backfill(&["--errors", "ledger"]).expect(DATA, &[]).summary();
        assert_eq!(numbers(&summary, &["failed"]), [4]);
        assert!(!contains(&clinic.world.read("ledger"), CANARY.as_bytes()));
        assert_eq!(clinic.world.text("ledger").lines().count(), 5);
        clinic.world.write("policy.toml", PHASES);
        let table = ["backfill", "--sql", &clinic.database.uri, "--table", "patients", "--key", "id"];
        let run = |columns: &[&str]| clinic.world.run(&[&table[..], columns].concat());
        run(&["--from", "ssn", "--to", "ssn", "--field", "patient.ssn"]).expect(USAGE, &["same column"]);
        run(&["--from", "ssn", "--to", "id", "--field", "patient.ssn", "--row", "ssn_sealed"])
            .expect(POLICY, &["neither binary nor text"]);
        run(&["--from", "ssn", "--to", "absent", "--field", "patient.ssn"]).expect(POLICY, &["no such column"]);
        run(&["--from", "ssn", "--to", "ssn_sealed", "--field", "absent"]).expect(POLICY, &["no field"]);
        clinic.world.write(
            "policy.toml",
            PHASES.lines().filter(|line| !line.starts_with("migration")).collect::<Vec<_>>().join("\n"),
        );
        clinic.backfill(&[]).expect(POLICY, &["migration = "]);
    }
}

/// The server logs every statement with its parameters, and there is no plaintext among them.
#[test]
fn no_plaintext_in_the_log_of_the_server() {
    for database in databases().into_iter().filter(Database::is_postgres) {
        let role = format!("logged_{}", std::process::id());
        let mut clinic = Clinic::new(database, 300);
        let schema = clinic.database.schema.clone();
        clinic.database.sql(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'p'; ALTER ROLE {role} SET log_statement = 'all'; \
             ALTER ROLE {role} SET log_min_messages = 'log'; ALTER ROLE {role} SET log_min_duration_statement = 0; \
             GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT, UPDATE ON patients TO {role}"
        ));
        let ours = clinic.database.uri.clone();
        let at = ours.find('@').expect("a host");
        clinic.database.uri = format!("postgres://{role}:p{}", &ours[at..]);
        clinic.backfill(&[]).expect(0, &[]);
        clinic.database.sql(&format!("UPDATE patients SET ssn_sealed = {} WHERE id = 4", clinic.seal(4, "other")));
        clinic.backfill(&[]).expect(0, &[]);
        clinic.backfill(&["--verify"]).expect(0, &[]);
        clinic.backfill(&["--undo"]).expect(0, &[]);
        clinic.backfill(&[]).expect(0, &[]);
        clinic.phase("cut-over");
        clinic.backfill(&["--finish", "--yes"]).expect(0, &[]);
        let ca = std::env::var("KEYFOLD_TEST_POSTGRES_CA").expect("the CA");
        let log = fs::read(Path::new(&ca).with_file_name("log")).expect("the log of the server");
        let statements = String::from_utf8_lossy(&log).into_owned();
        assert!(statements.contains("ssn_sealed") && statements.contains("xmin"), "the statements were not logged");
        // Our own client, which writes plaintext, does not log.
        assert!(!contains(&log, CANARY.as_bytes()), "plaintext in the log of the server");
        clinic.database.uri = ours;
        clinic.database.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    }
}

#[test]
fn a_value_that_was_erased_does_not_come_back() {
    for clinic in Clinic::all() {
        clinic.backfill(&[]).expect(0, &[]);
        clinic.database.sql("UPDATE patients SET ssn = NULL WHERE id = 7");
        // Nobody empties it unasked, and nobody passes over it.
        for step in [&[][..], &["--verify"]] {
            let run = clinic.backfill(step).expect(DATA, &["--empty-erased"]);
            assert!(run.stderr.contains("\"sealed_only\":1"), "{}", run.stderr);
        }
        assert!(clinic.rows()[7].cells[1] != Cell::Null);
        clinic.phase("cut-over");
        clinic.backfill(&["--finish", "--yes"]).expect(DATA, &["nothing was emptied", "--keep-sealed-only"]);
        assert!(clinic.rows()[8].cells[0] != Cell::Null);
        clinic.backfill(&["--empty-erased"]).expect(POLICY, &["dual-write"]);
        clinic.phase("dual-write");
        clinic.backfill(&["--empty-erased", "--verify"]).expect(USAGE, &[]);
        let emptied = clinic.backfill(&["--empty-erased"]).expect(0, &[]).summary();
        assert_eq!(numbers(&emptied, &["emptied", "equal", "empty"]), [1, 1499, 1]);
        assert!(clinic.rows()[7].cells[1] == Cell::Null);
        clinic.backfill(&["--verify"]).expect(0, &[]);
        // After the cut-over a sealed value alone is right, but --finish cannot tell and wants to be told.
        clinic.phase("cut-over");
        let new = clinic.seal(7, "new");
        clinic.database.sql(&format!("UPDATE patients SET ssn_sealed = {new} WHERE id = 7"));
        clinic.backfill(&["--verify"]).expect(0, &[]);
        clinic.backfill(&["--finish", "--yes"]).expect(DATA, &["nothing was emptied"]);
        let done = clinic.backfill(&["--finish", "--yes", "--keep-sealed-only"]).expect(0, &[]).summary();
        assert_eq!(numbers(&done, &["emptied", "sealed_only"]), [1499, 1]);
        clinic.assert_open(7, &clinic.rows()[7], "new");
    }
}
