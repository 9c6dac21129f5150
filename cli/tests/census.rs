//! `keyfold census` counts what a naive count counts, needs no key, and goes on where it was stopped.

use crate::common::{self, DATA, POLICY, USAGE, World, keyfold, run};
use crate::tables::{Hospital, databases, key_id};
use keyfold::wire::{Sealed, TEXT_PREFIX};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

const CENSUS: [&str; 4] = ["--column", "ssn", "--column", "name"];

/// One hospital per database: three generations, and everything that is no sealed value.
fn hospitals(patients: usize) -> Vec<Hospital> {
    databases()
        .into_iter()
        .map(|database| {
            let hospital = Hospital::new(database);
            hospital.add_three_generations(patients);
            hospital
        })
        .collect()
}

fn generations(hospital: &Hospital) -> BTreeMap<(usize, u32), u64> {
    let mut counts = BTreeMap::new();
    for row in hospital.rows() {
        for column in [1, 2] {
            *counts.entry((column, key_id(&row.cells[column]).generation())).or_insert(0) += 1;
        }
    }
    counts
}

fn counted(json: &Json) -> BTreeMap<(usize, u32), u64> {
    let columns = json["columns"].as_array().expect("columns");
    let of = |(at, column): (usize, &Json)| -> Vec<((usize, u32), u64)> {
        let generations = column["generations"].as_array().expect("generations").clone();
        let number = |json: &Json| json.as_u64().expect("a number");
        let entry = |json: Json| ((at + 1, number(&json["generation"]) as u32), number(&json["values"]));
        generations.into_iter().map(entry).collect()
    };
    columns.iter().enumerate().flat_map(of).collect()
}

#[test]
fn equals_a_naive_count_and_needs_no_key() {
    for hospital in hospitals(3000) {
        let naive = generations(&hospital);
        assert_eq!(naive.len(), 6);
        // Without the KEK and the store.
        std::fs::rename(hospital.world.keys(), hospital.world.path("hidden")).expect("hidden");
        for batch in ["1000", "7", "3000", "100000"] {
            let run =
                hospital.run("census", &[&CENSUS[..], &["--json", "--batch-rows", batch]].concat()).expect(0, &[]);
            let json = &run.json_lines()[0];
            assert_eq!(counted(json), naive, "batches of {batch}");
            assert_eq!(json["rows"], 3000);
        }
        let text = hospital.run("census", &CENSUS).expect(0, &[]);
        assert!(text.stdout_text().contains("3000 rows") && text.stdout_text().contains("ssn"));
    }
}

#[test]
fn what_is_no_sealed_value_is_counted_apart() {
    for hospital in hospitals(9) {
        let bytes = |hex: &str| hospital.database.literal(hex);
        hospital.database.sql(&format!(
            "INSERT INTO patients VALUES (100, 'x', NULL, NULL, NULL), (101, 'x', {}, '', NULL), \
             (102, 'x', {}, '999-81-5679', NULL), (103, 'x', {}, 'kf1.01', NULL), (104, 'x', {}, 'see kf1.txt', NULL)",
            bytes(""),
            bytes("414243"),
            bytes("f501"),
            bytes("f509000000")
        ));
        let run = hospital.run("census", &[&CENSUS[..], &["--json"]].concat()).expect(0, &[]);
        let columns = &run.json_lines()[0]["columns"];
        for (column, clear, malformed) in [(0, 1, 2), (1, 2, 1)] {
            let expected = json!([1, 1, clear, malformed]);
            let found = &columns[column];
            assert_eq!(json!([found["null"], found["empty"], found["clear"], found["malformed"]]), expected);
            assert_eq!(found["generations"].as_array().expect("generations").len(), 3);
        }
    }
}

#[test]
fn key_ids_and_states() {
    let hospital = hospitals(30).remove(0);
    let keys = hospital.world.succeeds(&["keys", "list", "--json"]).json_lines();
    let data: Vec<&Json> = keys.iter().filter(|key| key["class"] == "data").collect();
    let oldest = data.iter().min_by_key(|key| key["generation"].as_u64()).expect("a key")["key_id"].clone();
    hospital.world.succeeds(&["keys", "state", oldest.as_str().expect("an ID"), "compromised"]);
    // Of another keyring.
    let other = World::new();
    other.protect(&[]);
    let stranger =
        other.text("sealed.csv").lines().nth(1).expect("a row").split(',').nth(1).expect("a cell").to_owned();
    hospital.database.sql(&format!("UPDATE patients SET name = '{stranger}' WHERE id = 0"));
    let config = hospital.world.config();
    let config = ["--config", common::argument(&config), "--json"];
    let run = hospital.run("census", &[&CENSUS[..], &config].concat()).expect(0, &[]);
    let states: Vec<Json> = run.json_lines()[0]["columns"][1]["generations"].as_array().expect("generations").clone();
    let mut states: Vec<(&str, u64)> = states
        .iter()
        .map(|g| (g["state"].as_str().expect("a state"), g["values"].as_u64().expect("a number")))
        .collect();
    states.sort_unstable();
    assert_eq!(states, [("compromised", 9), ("current", 10), ("retired", 10), ("unknown", 1)]);

    hospital.run("census", &[&CENSUS[..], &["--key-ids", "ids"]].concat()).expect(0, &[]);
    let ids = hospital.world.text("ids");
    assert_eq!(ids.lines().count(), 4);
    let mut sum = 0;
    for line in ids.lines() {
        let (id, count) = line.split_once('\t').expect("a tab");
        assert!(id.len() == 48 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        sum += count.parse::<u64>().expect("a number");
    }
    assert_eq!(sum, 60);
    hospital.run("census", &[&CENSUS[..], &["--key-ids", "ids"]].concat()).expect(USAGE, &["exists"]);
    hospital.run("census", &[&CENSUS[..], &["--key-ids", "ids", "--force"]].concat()).expect(0, &[]);
    let printed = hospital.run("census", &[&CENSUS[..], &["--key-ids", "-"]].concat()).expect(0, &[]);
    assert_eq!(printed.stdout_text(), ids);
}

#[test]
fn goes_on_after_ctrl_c_and_counts_nothing_twice() {
    for hospital in hospitals(3000) {
        let naive = generations(&hospital);
        let slow =
            [&CENSUS[..], &["--checkpoint", "point", "--rows-per-second", "2000", "--batch-rows", "100"]].concat();
        let mut stopped = 0;
        for wait in [150, 250, 350] {
            let mut command = hospital.world.command(&hospital.arguments("census", &slow));
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
            sleep(Duration::from_millis(wait));
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("sent");
            let status = child.wait().expect("it ends");
            stopped += usize::from(status.code() == Some(130));
        }
        assert!(stopped > 0, "none was stopped");
        let finish = [&CENSUS[..], &["--checkpoint", "point", "--json"]].concat();
        let run = hospital.run("census", &finish).expect(0, &[]);
        assert_eq!((counted(&run.json_lines()[0]), &run.json_lines()[0]["rows"]), (naive.clone(), &json!(3000)));
        // Later, only what is new is looked at.
        hospital.add(3000..3010, None);
        let run = hospital.run("census", &finish).expect(0, &[]);
        assert_eq!(run.json_lines()[0]["rows"], 3010);
        assert_eq!(counted(&run.json_lines()[0]), generations(&hospital));
        // A checkpoint of something else is refused, and stays as it is.
        let before = hospital.world.text("point");
        let other = ["--column", "name", "--checkpoint", "point"];
        hospital.run("census", &other).expect(USAGE, &["another place"]);
        hospital.world.write("damaged", "{}");
        hospital
            .run("census", &[&CENSUS[..], &["--checkpoint", "damaged"]].concat())
            .expect(USAGE, &["not a checkpoint"]);
        assert_eq!(hospital.world.text("point"), before);
        // So is one of a newer version, which may count otherwise.
        let newer = before.replacen("\"version\":1", "\"version\":2", 1);
        assert_ne!(newer, before);
        hospital.world.write("point", &newer);
        hospital.run("census", &finish).expect(USAGE, &["not a checkpoint that this version has written"]);
        assert_eq!(hospital.world.text("point"), newer);
    }
}

#[test]
fn is_no_faster_than_allowed() {
    let hospital = hospitals(600).remove(0);
    let began = Instant::now();
    hospital
        .run("census", &[&CENSUS[..], &["--rows-per-second", "600", "--batch-rows", "100"]].concat())
        .expect(0, &[]);
    assert!(began.elapsed() > Duration::from_millis(750), "{:?}", began.elapsed());
}

#[test]
fn files_by_column_and_by_path() {
    let world = World::new();
    world.protect(&[]);
    world.succeeds(&["keys", "rotate"]);
    world.succeeds(&["protect", "in.csv", "--output", "second.csv"]);
    let second = world.text("second.csv").split_once('\n').expect("rows").1.to_owned();
    world.write("both.csv", world.text("sealed.csv") + &second);
    let run = world.succeeds(&["census", "both.csv", "sealed.csv", "--json"]);
    let [both, first] = &run.json_lines()[..] else { panic!("two places") };
    let columns = both["columns"].as_array().expect("columns");
    // `state` is in clear, and so is not named.
    assert_eq!(
        columns.iter().map(|c| c["column"].as_str().expect("a name")).collect::<Vec<_>>(),
        ["patient_id", "name", "ssn", "note"]
    );
    for column in columns {
        let values: Vec<u64> = column["generations"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|g| g["values"].as_u64().expect("a number"))
            .collect();
        assert_eq!(values, if column["column"] == "patient_id" { vec![6] } else { vec![3, 3] });
    }
    assert_eq!(first["rows"], 3);
    let named = world.succeeds(&["census", "both.csv", "--column", "state", "--json"]).json_lines();
    assert_eq!((&named[0]["columns"][0]["clear"], named[0]["columns"].as_array().map(Vec::len)), (&json!(6), Some(1)));
    world.refuses(&["census", "both.csv", "--column", "absent"], DATA, &["absent"]);

    world.write(
        "in.ndjson",
        "{\"id\":\"p1\",\"name\":\"a\",\"ssn\":\"b\",\"note\":\"c\",\"more\":[{\"x\":1},{\"x\":null}]}\n\n{\"id\":\"p2\",\"name\":\"d\",\"ssn\":\"e\",\"note\":\"f\",\"more\":[]}\n",
    );
    world.succeeds(&["protect", "in.ndjson", "--output", "sealed.ndjson"]);
    // A reference keeps its prefix in clear.
    let text = world.text("sealed.ndjson").replacen("\"kf1.02", "\"Patient/kf1.02", 1);
    assert!(text.contains(&format!("Patient/{TEXT_PREFIX}")));
    world.write("sealed.ndjson", text);
    let run = world.succeeds(&["census", "sealed.ndjson", "--json"]).json_lines();
    let paths: BTreeMap<&str, u64> = run[0]["columns"]
        .as_array()
        .expect("columns")
        .iter()
        .map(|c| (c["column"].as_str().expect("a path"), c["generations"][0]["values"].as_u64().expect("a number")))
        .collect();
    assert_eq!(paths, BTreeMap::from([("$.id", 2), ("$.name", 2), ("$.note", 2), ("$.ssn", 2)]));
    let run = world.succeeds(&["census", "sealed.ndjson", "--column", "$.more[*].x", "--json"]).json_lines();
    assert_eq!((&run[0]["columns"][0]["clear"], &run[0]["columns"][0]["null"]), (&json!(1), &json!(1)));
    assert!(Sealed::parse(b"").is_err());
}

#[test]
fn wrong_places_are_refused() {
    let hospital = hospitals(9).remove(0);
    let uri = &hospital.database.uri;
    let census =
        |arguments: &[&str]| run(keyfold().arg("census").args(arguments).current_dir(hospital.world.data()), b"");
    census(&["--sql", uri, "--table", "patients", "--key", "name", "--column", "ssn"]).expect(POLICY, &["not unique"]);
    census(&["--sql", uri, "--table", "patients", "--key", "id", "--column", "absent"])
        .expect(POLICY, &["no such column"]);
    census(&["--sql", uri, "--table", "absent", "--key", "id", "--column", "ssn"]).expect(POLICY, &["no such table"]);
    census(&["--sql", "mysql://u:hunter2@h/d", "--table", "t", "--key", "id", "--column", "c"])
        .expect(POLICY, &["postgres://"]);
    census(&["--sql", "sqlite:absent.db", "--table", "t", "--key", "id", "--column", "c"])
        .expect(common::STORAGE, &["absent.db"]);
    census(&["--sql", uri, "--table", "patients", "--key", "id"]).expect(USAGE, &["--column"]);
    census(&[]).expect(USAGE, &[]);
    census(&["in.xml"]).expect(common::STORAGE, &["in.xml"]);
    hospital.world.write("in.xml", "<a/>");
    census(&["in.xml"]).expect(USAGE, &["--format"]);
    assert!(!hospital.world.path("absent.db").exists());
}
