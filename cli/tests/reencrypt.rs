//! `keyfold reencrypt` of tables and files: what is old is sealed again, what is current stays byte for byte, nobody's newer
//! value is lost, and the statement is there exactly when nothing is left. Longer than most files: one verb, and all its tests
//! share how a hospital is set up and counted.

use crate::common::{self, DATA, KEY, POLICY, Run, STORAGE, USAGE, World, contains};
use crate::tables::{self, Hospital, databases, key_id, name, patient, sealed, ssn};
use keyfold::wire::SealedValue;
use keyfold::{ErrorKind, Value};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

fn hospitals() -> impl Iterator<Item = Hospital> {
    databases().into_iter().map(Hospital::new)
}

/// The summary, which a warning about the statement may follow.
fn summary_of(run: &Run) -> Json {
    let line = run.stderr.lines().find(|line| line.starts_with('{')).expect("a summary");
    serde_json::from_str(line).expect("JSON")
}

fn numbers(summary: &Json, names: &[&str]) -> Vec<u64> {
    names.iter().map(|name| summary[name].as_u64().expect(name)).collect()
}

#[test]
fn old_values_are_sealed_again_and_current_ones_stay() {
    for hospital in hospitals() {
        hospital.add_three_generations(3000);
        hospital.database.sql("INSERT INTO patients VALUES (5000, 'x', NULL, '', NULL)");
        let before = hospital.rows();
        let dry = hospital.reencrypt(&["--dry-run", "--json"]).expect(0, &[]);
        assert_eq!(numbers(&dry.summary(), &["rows", "resealed", "current", "empty"]), [3001, 4000, 2000, 2]);
        assert!(
            hospital.rows().iter().zip(&before).all(|(now, then)| now.cells == then.cells),
            "a dry run has written"
        );

        let run =
            hospital.reencrypt(&["--json", "--statement", "statement", "--batch-rows", "700"]).expect(0, &["[audit]"]);
        assert_eq!(
            numbers(&summary_of(&run), &["rows", "resealed", "current", "empty", "failed"]),
            [3001, 4000, 2000, 2, 0]
        );
        let after = hospital.rows();
        let current = key_id(&after[2999].cells[1]);
        for (now, then) in after[..3000].iter().zip(&before) {
            assert!([1, 2].iter().all(|&column| key_id(&now.cells[column]) == current));
            let id: usize = now.key.to_text().parse().expect("a number");
            assert_eq!(now.cells == then.cells, id >= 2000, "patient {id}");
        }
        assert!(after[3000].cells == before[3000].cells);
        hospital.assert_open(&after[..3000], |_| None);

        let statement: Json = serde_json::from_slice(&hospital.world.read("statement")).expect("JSON");
        assert_eq!(statement["unsigned"], true);
        let field = |at: usize| {
            [
                &statement["fields"][at]["older"],
                &statement["fields"][at]["generation"],
                &statement["fields"][at]["values"],
            ]
            .map(Json::clone)
        };
        assert_eq!(field(0), [json!(0), json!(current.generation()), json!(3000)]);
        assert_eq!(field(1), [json!(0), json!(current.generation()), json!(3000)]);
        hospital.assert_silent(&["statement"]);
        // Once more: nothing to do, and the statement is not overwritten.
        hospital.reencrypt(&["--statement", "statement"]).expect(USAGE, &["exists"]);
        let again = hospital.reencrypt(&["--json"]).expect(0, &[]).summary();
        assert_eq!(numbers(&again, &["resealed", "current"]), [0, 6000]);
    }
}

#[test]
fn bad_rows_stay_and_are_named_in_the_ledger() {
    for hospital in hospitals() {
        hospital.add_three_generations(30);
        let rows = hospital.rows();
        let literal = |bytes: &[u8]| hospital.database.literal(&data_encoding::HEXLOWER.encode(bytes));
        let mut damaged = sealed(&rows[3].cells[1]);
        *damaged.last_mut().expect("bytes") ^= 1;
        let of_other_row = literal(&sealed(&rows[5].cells[1]));
        hospital.database.sql(&format!(
            "UPDATE patients SET ssn = {} WHERE id = 3; UPDATE patients SET ssn = {of_other_row} WHERE id = 4; \
             UPDATE patients SET name = '{}' WHERE id = 6; UPDATE patients SET patient_id = NULL WHERE id = 7",
            literal(&damaged),
            name(6)
        ));
        let before = hospital.rows();
        // Without a ledger the first one ends the run, and its batch is not written.
        let first = hospital.reencrypt(&[]).expect(KEY, &["DecryptionFailed", "--errors"]);
        assert!(!first.stderr.contains("patient 3"));
        assert!(hospital.rows().iter().zip(&before).all(|(now, then)| now.cells == then.cells));

        let run = hospital.reencrypt(&["--errors", "ledger", "--json", "--statement", "statement"]).expect(KEY, &[]);
        let summary = summary_of(&run);
        // Of 40 old values, those of row 7 count twice.
        assert_eq!(numbers(&summary, &["rows", "resealed", "current", "failed"]), [30, 35, 20, 5]);
        assert!(!hospital.world.path("statement").exists(), "a statement, with values left");
        let ledger = hospital.world.text("ledger");
        let lines: Vec<Json> = ledger.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines[0]["keys"], "hash");
        let codes: Vec<&str> = lines[1..].iter().map(|line| line["error"].as_str().expect("a name")).collect();
        assert_eq!(codes, ["DecryptionFailed", "DecryptionFailed", "Malformed", "InvalidInput", "InvalidInput"]);
        let keys: BTreeSet<&str> = lines[1..].iter().map(|line| line["row"].as_str().expect("a row")).collect();
        assert!(keys.len() == 4 && keys.iter().all(|key| key.len() == 64), "{keys:?}");
        hospital.assert_silent(&["ledger"]);
        let after = hospital.rows();
        for id in [3, 4, 7] {
            assert!(after[id].cells[1] == before[id].cells[1], "row {id} was changed");
        }
        assert!(after[6].cells[2] == before[6].cells[2]);

        // By their keys, if asked for; and not more than allowed.
        hospital.reencrypt(&["--errors", "ledger"]).expect(USAGE, &["exists"]);
        hospital
            .reencrypt(&["--errors", "plain", "--ledger-keys", "plain", "--max-errors", "2"])
            .expect(DATA, &["--max-errors"]);
        let plain = hospital.world.text("plain");
        assert!(
            plain.contains("\"row\":\"3\"") && plain.contains("\"row\":\"4\"") && plain.lines().count() == 4,
            "{plain}"
        );
    }
}

// Failure N14
#[test]
fn the_statement_says_what_is_left() {
    for hospital in hospitals() {
        hospital.add_three_generations(30);
        // A column that only the second field covers is left.
        let one = ["--field", "patient.name=name", "--statement", "statement"];
        hospital.run("reencrypt", &one).expect(0, &[]);
        let text = hospital.world.text("statement");
        assert!(text.contains("name") && !text.contains("ssn"));
        // Somebody puts an old value back while the run is on: here, a damaged one that is left for an error.
        let old = SealedValue::from_bytes(sealed(&hospital.rows()[0].cells[1])).expect("a value").to_text();
        hospital.database.sql(&format!("UPDATE patients SET name = '{old}' WHERE id = 29"));
        let more = ["--field", "patient.name=name", "--errors", "e", "--statement", "second"];
        hospital.run("reencrypt", &more).expect(KEY, &[]);
        assert!(!hospital.world.path("second").exists());
        hospital.database.sql("UPDATE patients SET name = 'kf1.01damaged' WHERE id = 29");
        hospital
            .run("reencrypt", &["--field", "patient.name=name", "--errors", "f", "--statement", "second"])
            .expect(DATA, &[]);
        assert!(!hospital.world.path("second").exists());
    }
}

#[test]
fn a_newer_value_of_somebody_else_is_never_lost() {
    for hospital in hospitals() {
        hospital.add(0..600, None);
        hospital.rotate(None);
        let ring = hospital.ring();
        let encryptor = pollster::block_on(ring.field("patient.name").expect("a field").encryptor()).expect("a key");
        let stop = AtomicBool::new(false);
        let written = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut written = Vec::new();
                for round in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let id = round * 7 % 600;
                    let value = format!("{} by round {round}", name(id));
                    let sealed = encryptor.encrypt(Value::Text(&value), Some(patient(id).as_bytes())).expect("sealed");
                    let text = SealedValue::from_bytes(sealed).expect("a value").to_text();
                    hospital.database.sql(&format!("UPDATE patients SET name = '{text}' WHERE id = {id}"));
                    written.push((id, value));
                    // An SQLite file gives way to whoever asks most often.
                    sleep(Duration::from_millis(3));
                }
                written
            });
            let run = hospital.reencrypt(&["--batch-rows", "20", "--rows-per-second", "600"]);
            stop.store(true, Ordering::Relaxed);
            let written = writer.join().expect("the writer");
            run.expect(0, &[]);
            written
        });
        assert!(written.len() > 3);
        let decryptor = pollster::block_on(ring.field("patient.name").expect("a field").decryptor()).expect("a key");
        let rows = hospital.rows();
        let mut last = std::collections::BTreeMap::new();
        for (id, value) in written {
            last.insert(id, value);
        }
        for (id, row) in rows.iter().enumerate() {
            let value = sealed(&row.cells[2]);
            pollster::block_on(decryptor.load_keys(&[&value[..]][..])).expect("keys");
            let opened = decryptor.decrypt(&value, row.cells[0].as_bytes()).expect("it opens");
            let expected = last.get(&id).cloned().unwrap_or_else(|| name(id));
            assert!(opened.value() == Value::Text(&expected), "patient {id}");
            assert!(opened.is_current());
        }
    }
}

#[test]
fn scopes_by_column() {
    for hospital in hospitals() {
        let scopes = ["clinic-a", "clinic-b", "clinic-c"];
        for (at, scope) in scopes.iter().enumerate() {
            hospital.add(at * 20..(at + 1) * 20, Some(scope));
        }
        hospital.rotate(Some("clinic-a"));
        hospital.rotate(Some("clinic-c"));
        let before = hospital.rows();
        let scope_of = |id: usize| Some(scopes[id / 20].to_owned());
        let by_column = ["--scope-column", "clinic", "--json", "--statement", "statement"];
        let run = hospital.reencrypt(&by_column).expect(0, &[]);
        assert_eq!(numbers(&summary_of(&run), &["resealed", "current"]), [80, 40]);
        let after = hospital.rows();
        assert!(after[20..40].iter().zip(&before[20..40]).all(|(now, then)| now.cells == then.cells));
        hospital.assert_open(&after, scope_of);
        // Scopes that the keyring does not have are errors of their rows, and are not made.
        hospital.database.sql(
            "UPDATE patients SET clinic = 'clinic-typo' WHERE id = 5; UPDATE patients SET clinic = NULL WHERE id = 6",
        );
        hospital.reencrypt(&["--scope-column", "clinic", "--errors", "ledger"]).expect(KEY, &[]);
        let ledger = hospital.world.text("ledger");
        assert_eq!((ledger.matches("NoMatchingKey").count(), ledger.matches("InvalidInput").count()), (2, 2));
        assert!(!ledger.contains("typo"));
        hospital.reencrypt(&["--scope", "clinic-typo"]).expect(KEY, &["no scope"]);
        let keys = hospital.world.succeeds(&["keys", "list", "--json"]).json_lines();
        let slots: BTreeSet<_> =
            keys.iter().filter(|key| key["class"] == "data").map(|key| key["slot"].to_string()).collect();
        assert_eq!(slots.len(), 4, "the keyring's own and three");
    }
}

#[test]
fn compromised_values_are_saved_where_the_configuration_says_so() {
    for hospital in hospitals() {
        hospital.add(0..10, None);
        let leaked = key_id(&hospital.rows()[0].cells[1]).to_string();
        hospital.world.succeeds(&["keys", "state", &leaked, "compromised"]);
        hospital.reencrypt(&[]).expect(KEY, &["KeyState"]);
        hospital.configuration(|text| text.replace("[store]", "open_compromised = true\n\n[store]"));
        let run = hospital.reencrypt(&["--json"]).expect(0, &[]);
        assert_eq!(numbers(&run.summary(), &["resealed", "compromised"]), [20, 20]);
        hospital.configuration(|text| text.replace("open_compromised = true\n", ""));
        hospital.assert_open(&hospital.rows(), |_| None);
    }
}

// Failure N12
#[test]
fn goes_on_after_ctrl_c_and_the_counts_add_up() {
    for hospital in hospitals() {
        hospital.add(0..900, None);
        hospital.rotate(None);
        let options = ["--checkpoint", "point", "--batch-rows", "50"];
        let slow = [&tables::FIELDS[..], &options, &["--rows-per-second", "1000"]].concat();
        let mut stopped = 0;
        for wait in [180, 260, 340] {
            let mut command = hospital.world.command(&hospital.arguments("reencrypt", &slow));
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
            sleep(Duration::from_millis(wait));
            rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
                .expect("sent");
            stopped += usize::from(child.wait().expect("it ends").code() == Some(130));
            hospital.assert_open(&hospital.rows(), |_| None);
        }
        assert!(stopped > 0, "none was stopped");
        hospital.assert_silent(&["point"]);
        // With other fields it is another walk.
        hospital
            .run("reencrypt", &["--field", "patient.name=name", "--checkpoint", "point"])
            .expect(USAGE, &["another place"]);
        let run = hospital.reencrypt(&[&options[..], &["--json", "--statement", "statement"]].concat()).expect(0, &[]);
        let counts = numbers(&summary_of(&run), &["rows", "resealed", "current", "failed", "empty", "gone", "busy"]);
        assert_eq!((counts[0], counts[1..].iter().sum::<u64>()), (900, 1800));
        assert!(!hospital.world.path("point").exists(), "nothing is left to go on with");
        hospital.assert_open(&hospital.rows(), |_| None);
    }
}

#[test]
fn an_identifier_that_is_sealed_itself_is_opened() {
    for hospital in hospitals() {
        hospital.add(0..20, None);
        let ring = hospital.ring();
        let encryptor = pollster::block_on(ring.field("patient.id").expect("a field").encryptor()).expect("a key");
        for id in 0..20 {
            let text = SealedValue::from_bytes(encryptor.encrypt(Value::Text(&patient(id)), None).expect("sealed"));
            let text = text.expect("a value").to_text();
            hospital.database.sql(&format!("UPDATE patients SET patient_id = '{text}' WHERE id = {id}"));
        }
        hospital.rotate(None);
        let before = hospital.rows();
        let run = hospital.reencrypt(&["--field", "patient.id=patient_id", "--json"]).expect(0, &[]);
        assert_eq!(numbers(&run.summary(), &["resealed", "current"]), [40, 20]);
        let decryptor = pollster::block_on(ring.field("patient.ssn").expect("a field").decryptor()).expect("a key");
        for (id, (row, before)) in hospital.rows().iter().zip(&before).enumerate() {
            assert!(row.cells[0] == before.cells[0] && row.cells[1] != before.cells[1]);
            let value = sealed(&row.cells[1]);
            pollster::block_on(decryptor.load_keys(&[&value[..]][..])).expect("keys");
            let opened = decryptor.decrypt(&value, Some(patient(id).as_bytes())).expect("it opens");
            assert!(opened.value() == Value::Text(&ssn(id)));
        }
    }
}

#[test]
fn files_with_a_statement() {
    let world = World::new();
    world.protect(&[]);
    let old = world.text("sealed.csv");
    world.succeeds(&["keys", "rotate"]);
    world.write("mixed.csv", "");
    world.succeeds(&["protect", "in.csv", "--output", "new.csv"]);
    let new = world.text("new.csv");
    let second = new.split_once('\n').expect("rows").1;
    world.write("mixed.csv", format!("{old}{second}").replace("\n", "\r\n"));
    let run = world.succeeds(&["reencrypt", "mixed.csv", "--output", "out.csv", "--statement", "statement", "--json"]);
    let summary = summary_of(&run);
    assert_eq!(numbers(&summary, &["records", "values", "outdated"]), [6, 24, 9]);
    let (before, after) = (world.text("mixed.csv"), world.text("out.csv"));
    let (before, after): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    assert!(before[4..] == after[4..] && before[0] == after[0] && before[1] != after[1]);
    // The deterministic cell, under a look-up key that still seals, stays.
    assert_eq!(before[1].split(',').next(), after[1].split(',').next());
    world.succeeds(&["reveal", "out.csv", "--output", "clear.csv"]);
    let twice = common::PATIENTS.split_once('\n').expect("rows").1;
    assert_eq!(world.text("clear.csv"), format!("{}{twice}", common::PATIENTS).replace('\n', "\r\n"));
    let statement: Json = serde_json::from_slice(&world.read("statement")).expect("JSON");
    assert_eq!((&statement["rows"], statement["fields"].as_array().map(Vec::len)), (&json!(6), Some(4)));
    assert!(!contains(&world.read("statement"), common::CANARY.as_bytes()));
    world.refuses(&["reencrypt", "mixed.csv", "--output", "out.csv"], USAGE, &["exists"]);
    world.refuses(&["reencrypt", "in.csv", "--output", "x.csv"], DATA, &["never passed through"]);
    world.refuses(&["reencrypt", "mixed.csv", "--output", "-", "--statement", "s"], USAGE, &["--output"]);
    world.refuses(&["reencrypt", "mixed.csv", "--output", "x.csv", "--scope", "typo"], KEY, &["no scope"]);
    world.refuses(&["reencrypt", "mixed.csv"], USAGE, &["--output"]);
    // A clear column that holds an old value is no field's, and is left: so no statement.
    let stray = old.lines().nth(1).expect("a row").split(',').nth(2).expect("a cell");
    world.write("stray.csv", before.join("\n").replacen(",KS", &format!(",{stray}"), 1) + "\n");
    world
        .run(&["reencrypt", "stray.csv", "--output", "stray-out.csv", "--statement", "s"])
        .expect(DATA, &["left", "state"]);
    assert!(!world.path("s").exists());
}

#[test]
fn documents() {
    let world = World::new();
    let documents: String = (0..5)
        .map(|at| format!("{{ \"id\":\"p{at}\", \"name\" : \"n{at}\",\"ssn\":null, \"note\":[1, {at}] }}\n"))
        .collect();
    world.write("in.ndjson", &documents);
    world.succeeds(&["protect", "in.ndjson", "--output", "old.ndjson"]);
    world.succeeds(&["keys", "rotate"]);
    world.succeeds(&["protect", "in.ndjson", "--output", "new.ndjson"]);
    world.write("mixed.ndjson", world.text("old.ndjson") + &world.text("new.ndjson"));
    world.succeeds(&["reencrypt", "mixed.ndjson", "--output", "out.ndjson", "--statement", "statement"]);
    let (mixed, out) = (world.text("mixed.ndjson"), world.text("out.ndjson"));
    assert_eq!(mixed.lines().skip(5).collect::<Vec<_>>(), out.lines().skip(5).collect::<Vec<_>>());
    let count = world.succeeds(&["census", "out.ndjson", "--json"]).json_lines();
    for column in count[0]["columns"].as_array().expect("columns") {
        assert_eq!(column["generations"].as_array().map(Vec::len), Some(1), "{column}");
    }
    world.succeeds(&["reveal", "out.ndjson", "--output", "clear.ndjson"]);
    assert_eq!(world.text("clear.ndjson"), documents.repeat(2));
}

#[test]
fn what_the_table_and_the_policy_do_not_have_is_refused() {
    for hospital in hospitals() {
        hospital.add(0..3, None);
        hospital.run("reencrypt", &["--field", "patient.nothing=name"]).expect(POLICY, &["patient.nothing"]);
        hospital.run("reencrypt", &["--field", "patient.name=nothing"]).expect(POLICY, &["no such column"]);
        hospital
            .run("reencrypt", &["--field", "patient.name=name", "--field", "patient.ssn=name"])
            .expect(USAGE, &["two fields"]);
        hospital
            .run("reencrypt", &["--field", "patient.name=name", "--row", "absent"])
            .expect(POLICY, &["no such column"]);
        hospital.run("reencrypt", &[]).expect(USAGE, &["--field"]);
        // Bound to another column than they were sealed for: nothing opens, nothing is lost.
        hospital.rotate(None);
        let before = hospital.rows();
        hospital.reencrypt(&["--row", "clinic"]).expect(DATA, &["missing in its row"]);
        assert!(hospital.rows().iter().zip(&before).all(|(now, then)| now.cells == then.cells));
        assert_eq!(ErrorKind::InvalidInput.name(), "InvalidInput");
    }
}

/// The SQL of docs/REENCRYPTION.md, on a table of this kind.
#[test]
fn the_sql_of_the_document_works() {
    let text = std::fs::read_to_string(common::repository("docs/REENCRYPTION.md")).expect("the document");
    for hospital in hospitals() {
        hospital.add(0..3, None);
        let tag = if hospital.database.is_postgres() { "sql postgresql\n" } else { "sql sqlite\n" };
        let blocks = text.split("```").skip(1).step_by(2);
        let statements: Vec<&str> = blocks.filter_map(|block| block.strip_prefix(tag)).flat_map(str::lines).collect();
        assert_eq!(statements.len(), 3);
        for statement in statements {
            hospital.database.sql(statement);
        }
        if hospital.database.is_postgres() {
            let named = text.split("```sql\n").nth(1).and_then(|block| block.lines().next()).expect("a statement");
            hospital.rotate(None);
            hospital.database.sql("UPDATE patients SET name = 'kf1.x' WHERE id = 1");
            hospital.reencrypt(&["--errors", "ledger"]).expect(DATA, &[]);
            let lines: Vec<Json> =
                hospital.world.text("ledger").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
            let of = |json: &Json| json.as_str().expect("a text").to_owned();
            let query = named.replace("SALT", &of(&lines[0]["salt"])).replace("ROW", &of(&lines[1]["row"]));
            // Deletes the row that it finds, to be seen by its absence.
            hospital.database.sql(&query.replace("SELECT id", "DELETE"));
            let left: Vec<String> = hospital.rows().iter().map(|row| row.key.to_text()).collect();
            assert_eq!(left, ["0", "2"]);
        }
    }
}

// Failure N12
#[test]
fn a_failure_of_the_database_or_the_disk_leaves_whole_batches() {
    for hospital in hospitals() {
        hospital.add(0..100, None);
        hospital.rotate(None);
        let before = hospital.rows();
        let batches = ["--batch-rows", "20"];
        // Where no checkpoint can be written, nothing is begun.
        hospital.reencrypt(&["--checkpoint", "absent/point"]).expect(STORAGE, &["absent/point"]);
        assert!(hospital.rows().iter().zip(&before).all(|(now, then)| now.cells == then.cells));
        let (refuse, allow) = match hospital.database.is_postgres() {
            true => (
                "ALTER TABLE patients ADD CONSTRAINT c CHECK (id <> 55) NOT VALID",
                "ALTER TABLE patients DROP CONSTRAINT c",
            ),
            false => (
                "CREATE TRIGGER c BEFORE UPDATE ON patients WHEN NEW.id = 55 BEGIN SELECT RAISE(ABORT, 'Canáry7391'); END",
                "DROP TRIGGER c",
            ),
        };
        hospital.database.sql(refuse);
        let with_point = [&batches[..], &["--checkpoint", "point", "--json"]].concat();
        hospital.reencrypt(&with_point).expect(STORAGE, &["same checkpoint"]);
        let changed: Vec<usize> = hospital
            .rows()
            .iter()
            .zip(&before)
            .enumerate()
            .filter(|(_, (a, b))| a.cells != b.cells)
            .map(|(at, _)| at)
            .collect();
        assert_eq!(changed, (0..40).collect::<Vec<_>>());
        hospital.assert_open(&hospital.rows(), |_| None);
        hospital.database.sql(allow);
        let run = hospital.reencrypt(&with_point).expect(0, &[]);
        assert_eq!(numbers(&run.summary(), &["rows", "resealed", "current"]), [100, 200, 0]);
        hospital.assert_open(&hospital.rows(), |_| None);
    }
}

#[test]
fn a_field_that_has_become_deterministic() {
    let world = World::new();
    world.write("policy.toml", "version = 1\n[fields.state]\ncolumns = [\"state\"]\n");
    world.protect(&[]);
    let policy =
        "version = 1\n[fields.state]\nmode = \"deterministic\"\naccept = [\"01\", \"02\"]\ncolumns = [\"state\"]\n";
    world.write("policy.toml", policy);
    world.succeeds(&["reencrypt", "sealed.csv", "--output", "out.csv", "--statement", "statement"]);
    let states: Vec<String> =
        world.text("out.csv").lines().skip(1).map(|line| line.rsplit(',').next().expect("a cell").to_owned()).collect();
    assert!(states.iter().all(|state| state.starts_with("kf1.02")));
    assert!(states[0] == states[2] && states[0] != states[1]);
    world.succeeds(&["reveal", "out.csv", "--output", "clear.csv"]);
    assert_eq!(world.text("clear.csv"), common::PATIENTS);
    // Nothing is left to do.
    let again = world.succeeds(&["reencrypt", "out.csv", "--output", "same.csv", "--json"]).summary();
    assert_eq!(numbers(&again, &["outdated", "values"]), [0, 3]);
    assert_eq!(world.text("same.csv"), world.text("out.csv"));
}

#[test]
fn no_output_is_a_file_that_the_command_lives_on() {
    for hospital in hospitals() {
        hospital.add_three_generations(6);
        let world = &hospital.world;
        let keyring = ["local.kek", "keys.db", "keyfold.toml", "keys.high-water"].map(|file| world.keys().join(file));
        let mut own = [&keyring[..], &[world.path("policy.toml")]].concat();
        if let Some(file) = hospital.database.uri.strip_prefix("sqlite:") {
            own.extend(["", "-wal"].map(|suffix| format!("{file}{suffix}").into()));
        }
        for file in own {
            let (before, path) = (std::fs::read(&file).ok(), file.to_str().expect("UTF-8"));
            for option in ["--statement", "--errors", "--checkpoint"] {
                hospital.reencrypt(&[option, path, "--force"]).expect(USAGE, &[option, "never overwritten"]);
                assert_eq!(std::fs::read(&file).ok(), before, "{option} {path}");
            }
        }
        hospital.reencrypt(&["--errors", "x", "--checkpoint", "./x"]).expect(USAGE, &["another output"]);
        hospital.reencrypt(&["--statement", "x", "--errors", "../data/x"]).expect(USAGE, &["another output"]);
        // The same holds for the other commands over tables.
        let policy = world.path("policy.toml");
        let policy = policy.to_str().expect("UTF-8");
        let count = ["--column", "ssn", "--config", keyring[2].to_str().expect("UTF-8")];
        let kek = keyring[0].to_str().expect("UTF-8");
        hospital.run("census", &[&count[..], &["--key-ids", kek, "--force"]].concat()).expect(USAGE, &["--key-ids"]);
        hospital.run("census", &[&count[..], &["--checkpoint", kek]].concat()).expect(USAGE, &["--checkpoint"]);
        let fill = ["--from", "name", "--to", "ssn", "--field", "patient.ssn"];
        hospital.run("backfill", &[&fill[..], &["--errors", policy]].concat()).expect(USAGE, &["--errors"]);
    }
    let world = World::new();
    world.protect(&[]);
    for statement in ["sealed.csv", "out.csv", "policy.toml", "../keys/local.kek"] {
        let file = ["reencrypt", "sealed.csv", "--output", "out.csv", "--statement", statement, "--force"];
        world.refuses(&file, USAGE, &["never overwritten"]);
    }
}

#[test]
fn a_key_of_another_scope_or_keyring_is_never_current() {
    for hospital in hospitals() {
        hospital.add(0..3, None);
        // Its key has a higher generation than the one that seals without a scope.
        hospital.add(3..5, Some("clinic-a"));
        hospital.reencrypt(&["--statement", "s"]).expect(KEY, &["WrongScope"]);
        let run = hospital.reencrypt(&["--errors", "e", "--json", "--statement", "s"]).expect(KEY, &["left"]);
        assert_eq!(numbers(&summary_of(&run), &["current", "failed"]), [6, 4]);
        assert!(!hospital.world.path("s").exists());
        let other = World::new();
        let config = other.config();
        let foreign = ["--config", config.to_str().expect("UTF-8"), "--policy", "policy.toml", "--statement", "s"];
        hospital.reencrypt(&foreign).expect(KEY, &["NoMatchingKey"]);
        assert!(!hospital.world.path("s").exists());
    }
    let world = World::new();
    world.protect(&["--scope", "clinic-a"]);
    let file = ["reencrypt", "sealed.csv", "--output", "out.csv", "--statement", "s"];
    world.refuses(&file, KEY, &["WrongScope"]);
}

#[test]
fn a_ledger_goes_on_with_its_run_and_no_other() {
    for hospital in hospitals() {
        hospital.add_three_generations(30);
        hospital.database.sql("UPDATE patients SET name = 'clear' WHERE id IN (2, 8, 14)");
        let point = ["--checkpoint", "point", "--batch-rows", "5", "--errors"];
        hospital.reencrypt(&[&point[..], &["e", "--max-errors", "1"]].concat()).expect(DATA, &["--max-errors"]);
        hospital.world.write("mine", "precious");
        hospital.reencrypt(&[&point[..], &["mine"]].concat()).expect(USAGE, &["has its errors in"]);
        assert_eq!(hospital.world.text("mine"), "precious");
        // Nor is another file taken that has its name now.
        let ledger = hospital.world.text("e");
        hospital.world.write("e", "precious");
        hospital.reencrypt(&[&point[..], &["e"]].concat()).expect(USAGE, &["is not the file"]);
        assert_eq!(hospital.world.text("e"), "precious");
        hospital.world.write("e", &ledger);
        hospital.reencrypt(&[&point[..], &["e"]].concat()).expect(DATA, &[]);
        let whole = hospital.world.text("e");
        assert!(whole.starts_with(ledger.lines().next().expect("a header")));
        assert_eq!((whole.matches("\"salt\"").count(), whole.lines().count()), (1, 4), "{whole}");
        // Where nothing fails, there is no file, and the next run may name it again.
        hospital.database.sql("UPDATE patients SET name = NULL WHERE id IN (2, 8, 14)");
        for _ in 0..2 {
            hospital.reencrypt(&["--errors", "none"]).expect(0, &[]);
            assert!(!hospital.world.path("none").exists());
        }
    }
}

#[test]
fn a_checkpoint_says_nothing_about_what_is_left() {
    for hospital in hospitals() {
        hospital.add_three_generations(30);
        hospital.database.sql("UPDATE patients SET name = 'clear' WHERE id = 29");
        let run = ["--checkpoint", "point", "--batch-rows", "5", "--statement", "s"];
        // A dry run takes the whole command line, and writes nothing.
        let before = common::snapshot(&hospital.world.data());
        hospital.reencrypt(&[&run[..], &["--dry-run", "--errors", "e"]].concat()).expect(DATA, &[]);
        let dry = hospital.reencrypt(&[&run[..], &["--dry-run"]].concat());
        let dry = dry.expect(DATA, &["Malformed", "nothing was written"]);
        assert!(!dry.stderr.contains("stays"), "{}", dry.stderr);
        assert!(common::snapshot(&hospital.world.data()) == before);
        hospital.reencrypt(&run).expect(DATA, &["Malformed"]);
        hospital.reencrypt(&[&run[..], &["--context", "tenant=a"]].concat()).expect(USAGE, &["other columns"]);
        hospital.world.succeeds(&["keys", "rotate"]);
        let mut point: Json = serde_json::from_slice(&hospital.world.read("point")).expect("JSON");
        point["state"]["generations"] = json!([0, 0]);
        point["after"] = json!({ "kind": "integer", "text": "28" });
        hospital.world.write("point", point.to_string());
        hospital.database.sql("UPDATE patients SET name = NULL WHERE id = 29");
        let rest = hospital.reencrypt(&run);
        rest.expect(DATA, &["values are left"]);
        assert!(!hospital.world.path("s").exists());
    }
}
