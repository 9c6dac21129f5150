//! A look-up key is replaced by the steps that `keys rotate --partition` prints: published, sealing, retired. At each of them everything is
//! found, and at the end nothing is left under the old key: deterministic values in files by `keyfold reencrypt`, tokens of indexes in tables
//! by `keyfold index backfill`.

use crate::common::{self, DATA, KEY, PATIENTS, POLICY, Run, STORAGE, USAGE, World};
use crate::tables::{Database, databases};
use keyfold::Value;
use keyfold_tables::Cell;
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::fs;

const INDEXED: &str = r#"version = 1

[fields."patient.ssn"]
identifier = "G"
row_binding = "patient_id"
[fields."patient.ssn".index.lookup]
kind = "digits"
bits = 63
unique = true
column = "ssn_index"
"#;

/// The sections of the partition `default` for each step, by `keys rotate --partition`.
struct Sections {
    before: String,
    publish: String,
    seal: String,
    retire: String,
}

fn rotate(world: &World) -> Sections {
    let run = world.succeeds(&["keys", "rotate", "--partition", "default", "--json"]);
    let json: Json = run.json_lines().remove(0);
    let section = |name: &str| json[name].as_str().expect("a section").to_owned();
    let config = fs::read_to_string(world.config()).expect("a configuration");
    let start = config.find("[lookup.").expect("a section");
    let end = config[start..].find("]\n\n").map_or(config.len(), |end| start + end + 1);
    Sections {
        before: config[start..end].trim_end().to_owned(),
        publish: section("publish"),
        seal: section("seal"),
        retire: section("retire"),
    }
}

/// Puts the section of a step in the place of the one that is there.
fn configure(world: &World, from: &str, to: &str) {
    let config = fs::read_to_string(world.config()).expect("a configuration");
    // `init` spells the name of the partition as `keys partition` does.
    assert!(config.contains(from), "{from} is not in {config}");
    fs::write(world.config(), config.replace(from, to)).expect("written");
}

#[test]
fn values_under_the_old_lookup_key_are_sealed_again() {
    let world = World::new();
    world.protect(&[]);
    let steps = rotate(&world);
    configure(&world, &steps.before, &steps.publish);
    world.succeeds(&["protect", "in.csv", "--output", "published.csv"]);
    let firsts = |file: &str| -> Vec<String> {
        world.text(file).lines().map(|line| line.split(',').next().expect("a cell").to_owned()).collect()
    };
    assert_eq!(firsts("published.csv"), firsts("sealed.csv"), "published, and not yet in use");
    configure(&world, &steps.publish, &steps.seal);
    let summary = world.succeeds(&["reencrypt", "sealed.csv", "--output", "out.csv", "--statement", "s", "--json"]);
    assert!(
        summary.stderr.contains("\"outdated\":3") && summary.stderr.contains("\"values\":12"),
        "{}",
        summary.stderr
    );
    let ids = |file: &str| -> BTreeSet<String> {
        let census = world.succeeds(&["census", file, "--column", "patient_id", "--key-ids", "-"]);
        census.stdout_text().lines().map(|line| line.split('\t').next().expect("an ID").to_owned()).collect()
    };
    assert!(ids("sealed.csv").is_disjoint(&ids("out.csv")));
    assert!(ids("out.csv").iter().all(|id| steps.retire.contains(id)));
    // What is randomised stays byte for byte, although it is bound to what has changed.
    let cells = |file: &str| -> Vec<String> {
        world.text(file).lines().map(|line| line.split_once(',').expect("two cells").1.to_owned()).collect()
    };
    assert_eq!(cells("sealed.csv"), cells("out.csv"));
    // They join with what is sealed now.
    world.succeeds(&["protect", "in.csv", "--output", "new.csv"]);
    assert_eq!(firsts("out.csv"), firsts("new.csv"));
    configure(&world, &steps.seal, &steps.retire);
    world.succeeds(&["reveal", "out.csv", "--output", "clear.csv"]);
    assert_eq!(world.text("clear.csv"), PATIENTS);
}

#[test]
fn a_partition_whose_values_say_no_key_is_not_rotated() {
    let world = World::new();
    let formats = "version = 1\n[fields.mrn]\nmode = \"format-preserving\"\nformat = \"digits\"\ncolumns = [\"mrn\"]\n";
    world.write("formats.toml", formats);
    let rotate = ["keys", "rotate", "--partition", "default"];
    world.refuses(&[&rotate[..], &["--policy", "formats.toml"]].concat(), POLICY, &["field mrn", "another partition"]);
    world.refuses(&["keys", "rotate", "--partition", "none"], POLICY, &["no [lookup] section"]);
    let steps = world.succeeds(&rotate);
    assert_eq!(steps.stdout_text().matches("[lookup.\"default\"]").count(), 3, "{}", steps.stdout_text());
}

/// Once it is retired, the old key may be marked compromised, or be taken for so: the one that seals is none of its business.
#[test]
fn the_end_of_an_old_lookup_key_leaves_the_one_that_seals_alone() {
    for state in ["compromised", "deactivated"] {
        let world = World::new();
        let steps = rotate(&world);
        let id = |section: &str| section.split('"').find(|part| part.len() == 48).expect("a key ID").to_owned();
        let (old, new) = (
            id(&steps.publish[steps.publish.find("seals").expect("a key")..]),
            id(&steps.retire[steps.retire.find("seals").expect("a key")..]),
        );
        let keys = || {
            let run = world.succeeds(&["keys", "list", "--json"]);
            let of = |json: &Json| (json["key_id"].as_str().unwrap_or_default().to_owned(), json["state"].clone());
            run.json_lines().iter().map(of).collect::<std::collections::BTreeMap<_, _>>()
        };
        world.refuses(&["keys", "state", &old, state], POLICY, &["names"]);
        configure(&world, &steps.before, &steps.retire);
        let before = keys();
        world.succeeds(&["keys", "state", &old, state]);
        let after = keys();
        assert_eq!(after.len(), before.len(), "no other key is made");
        assert_eq!((&after[&old], &after[&new]), (&Json::from(state), &Json::from("active")));
        assert!(before.iter().all(|(key, was)| *key == old || after[key] == *was));
        world.succeeds(&["protect", "in.csv", "--output", "out.csv"]);
        world.succeeds(&["reveal", "out.csv", "--output", "back.csv"]);
    }
}

struct Clinic {
    world: World,
    database: Database,
}

fn ssn(id: usize) -> String {
    format!("{:03}-{:02}-{:04}", id % 900, id % 90, id)
}

impl Clinic {
    fn new(database: Database) -> Self {
        let world = World::new();
        world.write("policy.toml", INDEXED);
        database.sql(&format!(
            "CREATE TABLE patients (id INTEGER NOT NULL PRIMARY KEY, patient_id TEXT, ssn {}, ssn_index BIGINT)",
            database.bytes()
        ));
        Self { world, database }
    }

    fn ring(&self) -> keyfold::Keyring {
        keyfold_open::open(&self.world.config(), &[self.world.path("policy.toml")]).expect("it opens")
    }

    /// Patients, as a program writes them that knows the index, or one that does not yet.
    fn add(&self, ids: std::ops::Range<usize>, indexed: bool) {
        let ring = self.ring();
        let field = ring.field("patient.ssn").expect("a field");
        let encryptor = pollster::block_on(field.clone().encryptor()).expect("a key");
        let indexer = pollster::block_on(field.indexer("lookup")).expect("a key");
        let row = |id: usize| {
            let text = ssn(id);
            let sealed = encryptor.encrypt(Value::Text(&text), Some(id.to_string().as_bytes())).expect("sealed");
            let token = if indexed {
                indexer.tokens(Value::Text(&text)).expect("a token")[0].to_string()
            } else {
                "NULL".into()
            };
            format!("({id}, '{id}', {}, {token})", self.database.literal(&data_encoding::HEXLOWER.encode(&sealed)))
        };
        let rows: Vec<String> = ids.map(row).collect();
        self.database.sql(&format!("INSERT INTO patients VALUES {}", rows.join(", ")));
    }

    /// Each of these patients is found by their number, as whoever is configured now searches.
    #[track_caller]
    fn finds(&self, ids: impl IntoIterator<Item = usize>) {
        let ring = self.ring();
        let field = ring.field("patient.ssn").expect("a field");
        let indexer = pollster::block_on(field.clone().indexer("lookup")).expect("a key");
        let decryptor = pollster::block_on(field.decryptor()).expect("a key");
        let rows = self.database.rows("patients", "id", &["patient_id", "ssn", "ssn_index"]);
        for id in ids {
            // Spelled in another way.
            let text = ssn(id).replace('-', " ");
            let wanted = indexer.search_tokens(Value::Text(&text)).expect("tokens");
            let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            let is_found = |cell: &Cell| matches!(cell, Cell::Text(token) if wanted.contains(token));
            let found: Vec<_> = rows.iter().filter(|row| is_found(&row.cells[2])).collect();
            assert_eq!(found.len(), 1, "patient {id}");
            let sealed = found[0].cells[1].as_bytes().expect("a value");
            pollster::block_on(decryptor.load_keys(&[sealed][..])).expect("keys");
            let opened = decryptor.decrypt(sealed, found[0].cells[0].as_bytes()).expect("it opens");
            assert!(opened.value() == Value::Text(&ssn(id)));
        }
    }

    fn backfill(&self, more: &[&str]) -> Run {
        self.backfill_text(&[&["--json"], more].concat())
    }

    fn backfill_text(&self, more: &[&str]) -> Run {
        let table = ["index", "backfill", "--sql", &self.database.uri, "--table", "patients", "--key", "id"];
        let config = self.world.config();
        let fields = ["--field", "patient.ssn", "--from", "ssn", "--index", "lookup", "--config"];
        let own = [common::argument(&config), "--policy", "policy.toml"];
        self.world.run(&[&table[..], &fields, &own, more].concat())
    }

    #[track_caller]
    fn counts(&self, more: &[&str], code: i32, expected: [(&str, u64); 3]) {
        let summary = self.backfill(more).expect(code, &[]).summary();
        for (name, count) in expected {
            assert_eq!(summary[name], count, "{name} of {summary}");
        }
    }
}

#[test]
fn everything_is_found_at_each_step() {
    for database in databases() {
        let clinic = Clinic::new(database);
        // An index is added to a table that has values.
        clinic.add(0..200, false);
        clinic.database.sql("INSERT INTO patients VALUES (9000, '9000', NULL, 7)");
        clinic.counts(&["--verify"], DATA, [("written", 201), ("right", 0), ("empty", 1)]);
        clinic.counts(&["--batch-rows", "64"], 0, [("written", 201), ("right", 0), ("empty", 1)]);
        clinic.counts(&["--verify"], 0, [("written", 0), ("right", 200), ("empty", 1)]);
        clinic.finds([0, 63, 64, 199]);

        let steps = rotate(&clinic.world);
        // Some processes write under the new key while others have only been told that it is there.
        configure(&clinic.world, &steps.before, &steps.publish);
        clinic.add(200..210, true);
        configure(&clinic.world, &steps.publish, &steps.seal);
        clinic.add(210..220, true);
        for (from, to) in [(&steps.seal, &steps.publish), (&steps.publish, &steps.seal)] {
            configure(&clinic.world, from, to);
            clinic.finds([0, 199, 200, 209, 210, 219]);
        }
        // Half way, and to the end.
        clinic.database.sql("CREATE TABLE halted AS SELECT * FROM patients WHERE id >= 100");
        clinic.database.sql("DELETE FROM patients WHERE id >= 100 AND id < 9000");
        clinic.counts(&[], 0, [("written", 100), ("right", 0), ("empty", 1)]);
        clinic.database.sql("INSERT INTO patients SELECT * FROM halted WHERE id < 9000");
        clinic.finds([0, 99, 100, 199, 200, 219]);
        clinic.counts(&["--checkpoint", "c"], 0, [("written", 110), ("right", 110), ("empty", 1)]);
        assert!(!clinic.world.path("c").exists(), "the walk has ended");
        configure(&clinic.world, &steps.seal, &steps.retire);
        clinic.finds((0..220).step_by(7));
        clinic.counts(&["--verify"], 0, [("written", 0), ("right", 220), ("empty", 1)]);

        // What does not open keeps its token, and is named.
        clinic.database.sql("UPDATE patients SET patient_id = 'x', ssn_index = 1 WHERE id = 5");
        let run = clinic.backfill(&[]).expect(KEY, &["DecryptionFailed"]);
        assert!(!run.stderr.contains("start it again"), "it ends there again: {}", run.stderr);
        let run = clinic.backfill(&["--verify"]).expect(KEY, &["DecryptionFailed"]);
        assert!(!run.stderr.contains("start it again") && !run.stderr.contains("what was written"), "{}", run.stderr);
        clinic.backfill(&["--errors", "e"]).expect(KEY, &[]);
        let rows = clinic.database.rows("patients", "id", &["ssn_index"]);
        assert!(rows[5].cells[0] == Cell::Text("1".to_owned().into()));
        clinic.backfill(&["--to", "ssn"]).expect(USAGE, &["read for the values"]);
        clinic.backfill(&["--to", "patient_id"]).expect(USAGE, &["read for the values"]);
        for key in ["id", "ID"] {
            clinic.backfill(&["--to", key]).expect(POLICY, &["--key"]);
        }
    }
}

/// A table that was filled from what `protect` wrote has sealed identifiers of rows, where the policy has a field of them.
#[test]
fn tokens_are_written_beside_values_whose_row_is_sealed() {
    for database in databases() {
        let clinic = Clinic::new(database);
        let id =
            "[fields.\"patient.id\"]\nmode = \"deterministic\"\nrow_binding = \"none\"\ncolumns = [\"patient_id\"]\n";
        let policy = INDEXED.replace("identifier = \"G\"", "columns = [\"ssn\"]");
        clinic.world.write("policy.toml", format!("{policy}{id}"));
        let rows: String = (0..20).map(|row| format!("p-{row},{}\n", ssn(row))).collect();
        clinic.world.write("in.csv", format!("patient_id,ssn\n{rows}"));
        clinic.world.succeeds(&["protect", "in.csv", "--output", "sealed.csv"]);
        clinic.database.sql("DROP TABLE patients");
        clinic.database.sql(
            "CREATE TABLE patients (id INTEGER NOT NULL PRIMARY KEY, patient_id TEXT, ssn TEXT, ssn_index BIGINT)",
        );
        for (row, line) in clinic.world.text("sealed.csv").lines().skip(1).enumerate() {
            let cells: Vec<&str> = line.split(',').collect();
            let token = if row < 5 { cells[2] } else { "NULL" };
            assert!(cells[0].starts_with("kf1.") && cells.len() == 3, "{line}");
            let insert = format!("INSERT INTO patients VALUES ({row}, '{}', '{}', {token})", cells[0], cells[1]);
            clinic.database.sql(&insert);
        }
        // Without the field nothing is opened, which is no sign of tampering.
        clinic.world.write("policy.toml", &policy);
        clinic.backfill(&[]).expect(KEY, &["DecryptionFailed", "the identifier of the row is sealed"]);
        clinic.world.write("policy.toml", format!("{policy}{id}"));
        // The policy may name a column that is in clear here.
        clinic.database.sql("UPDATE patients SET patient_id = 'p-7' WHERE id = 7");
        clinic.counts(&[], 0, [("written", 15), ("right", 5), ("empty", 0)]);
        clinic.counts(&["--verify"], 0, [("written", 0), ("right", 20), ("empty", 0)]);
        clinic.backfill(&["--to", "patient_id"]).expect(POLICY, &["of field patient.id"]);
        let steps = rotate(&clinic.world);
        configure(&clinic.world, &steps.before, &steps.seal);
        clinic.database.sql("ALTER TABLE patients RENAME COLUMN patient_id TO pid");
        clinic.backfill(&["--to", "pid", "--row", "pid"]).expect(USAGE, &["read for the values"]);
        clinic.counts(&["--row", "pid"], 0, [("written", 20), ("right", 0), ("empty", 0)]);
        // Values that were exchanged are found as before.
        clinic.database.sql("UPDATE patients SET pid = (SELECT pid FROM patients WHERE id = 2) WHERE id = 1");
        clinic.backfill(&["--row", "pid"]).expect(KEY, &["DecryptionFailed"]);
    }
}

/// Who names a column on the command line alone may have named the wrong one.
#[test]
fn a_column_that_the_policy_does_not_name_keeps_what_is_no_token() {
    for database in databases() {
        let clinic = Clinic::new(database);
        clinic.add(0..5, false);
        let add = ["account", "other"].map(|name| format!("ALTER TABLE patients ADD COLUMN {name} BIGINT"));
        clinic.database.sql(&add.join("; "));
        clinic.database.sql("UPDATE patients SET account = 770000770000 + id WHERE id >= 3");
        let cells = || -> Vec<_> {
            let rows = clinic.database.rows("patients", "id", &["account", "other", "ssn_index"]);
            rows.into_iter().map(|row| row.cells).collect()
        };
        let before = cells();
        let refused =
            ["column \"account\": row 4 ", "index lookup", "nothing was written", "name the column in the policy"];
        let run =
            clinic.backfill(&["--to", "account", "--batch-rows", "2", "--checkpoint", "c"]).expect(POLICY, &refused);
        assert!(!run.stderr.contains("770000770003"), "{}", run.stderr);
        assert!(cells() == before && !clinic.world.path("c").exists());
        // Without a value there is no token either.
        clinic
            .database
            .sql("UPDATE patients SET account = NULL WHERE id < 4; UPDATE patients SET ssn = NULL WHERE id = 4");
        clinic.backfill(&["--to", "account"]).expect(POLICY, &["row 5 "]);
        // Empty, half full, and full of tokens under a key that no longer seals.
        clinic.counts(&["--to", "other"], 0, [("written", 4), ("right", 0), ("empty", 1)]);
        clinic.database.sql("UPDATE patients SET other = NULL WHERE id > 1");
        clinic.counts(&["--to", "other"], 0, [("written", 2), ("right", 2), ("empty", 1)]);
        let steps = rotate(&clinic.world);
        configure(&clinic.world, &steps.before, &steps.seal);
        clinic.counts(&["--to", "other"], 0, [("written", 4), ("right", 0), ("empty", 1)]);
        // One that is the token of nothing that is there is looked at, and renewed where the policy names the column.
        clinic.database.sql("UPDATE patients SET other = 7 WHERE id = 2");
        clinic.backfill(&["--to", "other"]).expect(POLICY, &["row 3 "]);
        clinic.counts(&["--to", "other", "--verify"], DATA, [("written", 1), ("right", 3), ("empty", 1)]);
        // Which rows these are.
        let verify = ["--to", "other", "--verify", "--errors", "wrong", "--ledger-keys", "plain"];
        let summary = clinic.backfill(&verify).expect(DATA, &[]).summary();
        assert_eq!(summary["wrong_rows"], serde_json::json!([3]));
        let named = clinic.world.text("wrong");
        assert!(named.lines().count() == 2 && named.contains("\"row\":\"2\"") && named.contains("\"what\""), "{named}");
        clinic
            .backfill_text(&["--to", "other", "--verify"])
            .expect(DATA, &["1 tokens not what they should be (along the key in row 3)"]);
        clinic.world.write("policy.toml", INDEXED.replace("ssn_index", "other"));
        clinic.counts(&["--to", "other"], 0, [("written", 1), ("right", 3), ("empty", 1)]);
    }
}

/// Between the look at all rows and the row itself another program may write. SQLite alone, since its triggers need no function.
#[test]
fn what_others_write_meanwhile_is_kept() {
    for database in databases().into_iter().filter(|database| !database.is_postgres()) {
        let clinic = Clinic::new(database);
        clinic.add(0..3, false);
        clinic.database.sql("ALTER TABLE patients ADD COLUMN other BIGINT");
        clinic.database.sql(
            "CREATE TRIGGER meanwhile AFTER UPDATE OF other ON patients WHEN NEW.id = 0 \
             BEGIN UPDATE patients SET other = 770000770003 WHERE id = 2; END",
        );
        let run =
            clinic.backfill(&["--to", "other", "--batch-rows", "1"]).expect(STORAGE, &["written there meanwhile"]);
        assert!(!run.stderr.contains("770000770003"), "{}", run.stderr);
        let rows = clinic.database.rows("patients", "id", &["other"]);
        let others: Vec<_> = rows.into_iter().map(|row| row.cells[0].clone()).collect();
        assert!(
            others[2] == Cell::Text("770000770003".to_owned().into()) && others[1] != Cell::Null,
            "row 3 is as it was written"
        );
        clinic.counts(&["--to", "other", "--verify"], DATA, [("written", 1), ("right", 2), ("empty", 0)]);
    }
}

#[test]
fn values_that_an_index_cannot_take_are_errors_or_counted() {
    for database in databases() {
        let clinic = Clinic::new(database);
        // None of the numbers is a date.
        let dates = INDEXED.replace("kind = \"digits\"", "kind = \"date\"");
        clinic.world.write("policy.toml", &dates);
        clinic.add(0..5, false);
        clinic.database.sql("UPDATE patients SET ssn_index = 9 WHERE id = 2");
        clinic.backfill(&[]).expect(DATA, &["InvalidInput"]);
        clinic.counts(&["--errors", "e"], DATA, [("failed", 5), ("unindexed", 0), ("written", 0)]);
        clinic.world.write("policy.toml", dates.replace("kind = ", "on_unindexable = \"skip\"\nkind = "));
        clinic.counts(&["--verify"], DATA, [("unindexed", 5), ("written", 1), ("right", 4)]);
        clinic.counts(&[], 0, [("unindexed", 5), ("written", 1), ("right", 4)]);
        clinic.counts(&["--verify"], 0, [("unindexed", 5), ("written", 0), ("right", 5)]);
    }
}

#[test]
fn prefixes_and_whole_hashes_have_columns_of_their_own() {
    for database in databases() {
        let clinic = Clinic::new(database);
        let policy = INDEXED.replace("kind = \"digits\"\nbits = 63", "kind = \"exact\"\nbits = 256")
            + "[fields.\"patient.ssn\".index.start]\nkind = \"prefix\"\nlength = [3, 5]\nbits = 8\n";
        clinic.world.write("policy.toml", policy);
        clinic.add(0..5, false);
        let (bytes, array) = if clinic.database.is_postgres() { ("BYTEA", "BIGINT[]") } else { ("BLOB", "TEXT") };
        clinic.database.sql(&format!(
            "ALTER TABLE patients ADD COLUMN whole {bytes}; ALTER TABLE patients ADD COLUMN start {array}"
        ));
        clinic.counts(&["--to", "whole"], 0, [("written", 5), ("right", 0), ("empty", 0)]);
        clinic.backfill(&["--to", "ssn_index"]).expect(POLICY, &["256 bits"]);
        let start = ["--index", "start", "--to", "start"];
        let table = ["index", "backfill", "--sql", &clinic.database.uri, "--table", "patients", "--key", "id"];
        let config = clinic.world.config();
        let fields = [
            "--field",
            "patient.ssn",
            "--from",
            "ssn",
            "--config",
            common::argument(&config),
            "--policy",
            "policy.toml",
        ];
        clinic.world.succeeds(&[&table[..], &fields, &start].concat());
        let rows = clinic.database.rows("patients", "id", &["whole", "start"]);
        for row in rows {
            assert_eq!(row.cells[0].as_bytes().map(<[u8]>::len), Some(32));
            let start = row.cells[1].as_bytes().expect("a list");
            assert!(start.starts_with(b"{") && start.iter().filter(|byte| **byte == b',').count() == 1);
        }
        // The policy does not name this column: it keeps what is no list of its tokens.
        let backfill = [&table[..], &fields, &start].concat();
        let steps = rotate(&clinic.world);
        configure(&clinic.world, &steps.before, &steps.seal);
        clinic.world.succeeds(&backfill);
        clinic.world.succeeds(&[&backfill[..], &["--verify"]].concat());
        clinic.database.sql("UPDATE patients SET start = '{1,2,3}' WHERE id = 3");
        clinic.world.refuses(&backfill, POLICY, &["row 4 ", "index start"]);
        clinic.database.sql("UPDATE patients SET start = NULL WHERE id = 3");
        clinic.world.succeeds(&backfill);
        // Columns that are another's, or for one token, are refused before anything is written.
        let before = clinic.database.rows("patients", "id", &["whole", "start", "ssn_index"]);
        let to = |index: &str, column: &str, says: &[&str]| {
            let own = ["--index", index, "--to", column];
            clinic.world.refuses(&[&table[..], &fields, &own].concat(), POLICY, says);
        };
        to("start", "ssn_index", &["ssn_index", "of index lookup of field patient.ssn"]);
        clinic.database.sql("ALTER TABLE patients ADD COLUMN number BIGINT");
        to("start", "number", &["several tokens", "TEXT"]);
        if clinic.database.is_postgres() {
            clinic.world.write("policy.toml", INDEXED);
            to("lookup", "start", &["an array", "one token"]);
        }
        let after = clinic.database.rows("patients", "id", &["whole", "start", "ssn_index"]);
        assert!(before.iter().zip(&after).all(|(before, after)| before.cells == after.cells));
    }
}
