//! What may not be moved: sealed values between rows, columns, scopes, contexts, keyrings and join groups. And what
//! `protect` and `reveal` refuse to take for what it is not.

use crate::common::{self, DATA, KEY, PATIENTS, POLICY, Table, World};

const REVEAL: [&str; 4] = ["reveal", "moved.csv", "--output", "out.csv"];

impl World {
    /// Revealing `table` is refused, with the row and the column in the message.
    #[track_caller]
    fn refuses_table(&self, table: &str, kind: &str, row: usize, column: &str) {
        self.write("moved.csv", table);
        let place = format!("row {row} (line {}), column", row + 1);
        self.refuses(&REVEAL, KEY, &[kind, &place, column]);
    }
}

#[test]
fn a_value_that_is_bound_does_not_open_in_another_row() {
    let world = World::new();
    let sealed = world.protect(&[]);
    for (column, name) in [(1, "\"name\""), (2, "\"ssn\"")] {
        for (a, b) in [(1, 2), (2, 3)] {
            world.refuses_table(&sealed.swapped((a, column), (b, column)), "DecryptionFailed", a, name);
        }
    }
    // Moving the identifier that the others are bound to is the same.
    world.refuses_table(&sealed.swapped((1, 0), (3, 0)), "DecryptionFailed", 1, "\"name\"");
}

#[test]
fn a_value_does_not_open_in_another_column() {
    let world = World::new();
    let mut sealed = world.protect(&[]);
    world.refuses_table(&sealed.swapped((2, 1), (2, 2)), "DecryptionFailed", 2, "\"name\"");
    world.refuses_table(&sealed.swapped((2, 2), (2, 3)), "DecryptionFailed", 2, "");
    // Of the other suite: refused before any key is used.
    let id = sealed.cell((1, 0)).clone();
    *sealed.cell((1, 1)) = id;
    world.write("moved.csv", sealed.render());
    world.refuses(&REVEAL, POLICY, &["PolicyRefused", "row 1", "\"name\""]);
}

#[test]
fn whole_rows_and_unbound_values_may_move() {
    // What row binding does not promise; the documents say so.
    let world = World::new();
    let mut sealed = world.protect(&[]);
    world.write("moved.csv", sealed.swapped((1, 3), (2, 3)));
    world.succeeds(&REVEAL);
    assert_eq!(world.text("out.csv"), Table::parse(PATIENTS).swapped((1, 3), (2, 3)));
    sealed.0.swap(1, 3);
    world.write("moved.csv", sealed.render());
    world.succeeds(&["reveal", "moved.csv", "--output", "rows.csv"]);
    let mut rows = Table::parse(PATIENTS);
    rows.0.swap(1, 3);
    assert_eq!(world.text("rows.csv"), rows.render());
}

#[test]
fn documents_keep_their_values() {
    let world = World::new();
    let line = |n: u8| {
        format!(
            "{{\"id\":\"Canáry7391-{n}\",\"name\":\"Canáry7391 {n}\",\"ssn\":\"Canáry7391-{n}{n}\",\"note\":{n}}}\n"
        )
    };
    world.write("in.ndjson", line(1) + &line(2));
    world.succeeds(&["protect", "in.ndjson", "--output", "sealed.ndjson"]);
    let sealed: Vec<serde_json::Value> =
        world.text("sealed.ndjson").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let mut between_lines = sealed.clone();
    between_lines[0]["ssn"] = sealed[1]["ssn"].clone();
    let mut between_members = sealed.clone();
    between_members[1]["ssn"] = sealed[1]["name"].clone();
    between_members[1]["name"] = sealed[1]["ssn"].clone();
    for (moved, line) in [(between_lines, "line 1, field patient.ssn"), (between_members, "line 2, field patient.name")]
    {
        world.write("moved.ndjson", format!("{}\n{}\n", moved[0], moved[1]));
        world.refuses(&["reveal", "moved.ndjson", "--output", "out.ndjson"], KEY, &["DecryptionFailed", line]);
    }
    world.succeeds(&["reveal", "sealed.ndjson", "--output", "out.ndjson"]);
    assert_eq!(world.text("out.ndjson"), line(1) + &line(2));
}

#[test]
fn scopes_are_apart() {
    let world = World::new();
    world.protect(&["--scope", "clinic-b"]);
    world.protect(&["--scope", "clinic-a"]);
    let reveal = |more: &[&'static str]| [&["reveal", "sealed.csv", "--output", "out.csv"], more].concat();
    world.refuses(&reveal(&["--scope", "clinic-b"]), KEY, &["WrongScope", "row 1", "\"name\""]);
    world.refuses(&reveal(&[]), KEY, &["WrongScope", "row 1", "\"name\""]);
    world.refuses(&reveal(&["--scope", "clinic-c"]), KEY, &["NoMatchingKey", "no such scope"]);
    world.succeeds(&reveal(&["--scope", "clinic-a"]));
    assert_eq!(world.text("out.csv"), PATIENTS);
}

#[test]
fn contexts_are_apart() {
    let world = World::new();
    world.protect(&["--context", "tenant=a", "--context", "table=patients"]);
    let reveal = |more: &[&'static str]| [&["reveal", "sealed.csv", "--output", "out.csv"], more].concat();
    let others: [&[&str]; 5] = [
        &[],
        &["--context", "tenant=a"],
        &["--context", "tenant=b", "--context", "table=patients"],
        &["--context", "table=a", "--context", "tenant=patients"],
        &["--context", "tenant=a", "--context", "table=patients", "--context", "more=x"],
    ];
    for other in others {
        world.refuses(&reveal(other), KEY, &["DecryptionFailed", "row 1", "\"patient_id\""]);
    }
    world.succeeds(&reveal(&["--context", "table=patients", "--context", "tenant=a"]));
    assert_eq!(world.text("out.csv"), PATIENTS);
}

#[test]
fn keyrings_are_apart() {
    let (world, other) = (World::new(), World::new());
    world.protect(&[]);
    let config = other.config();
    let reveal = ["reveal", "sealed.csv", "--output", "out.csv", "--config", common::argument(&config)];
    world.refuses(&reveal, KEY, &["NoMatchingKey", "row 1"]);
}

#[test]
fn environments_are_apart() {
    let world = World::new();
    world.protect(&[]);
    let text = std::fs::read_to_string(world.config()).expect("the configuration");
    std::fs::write(world.config(), text.replace("\"development\"", "\"production\"")).expect("written");
    world.refuses(&["reveal", "sealed.csv", "--output", "out.csv"], KEY, &["RecordRejected", "another environment"]);
    world.refuses(&["protect", "in.csv", "--output", "out.csv"], KEY, &["RecordRejected", "another environment"]);
}

/// Columns `a` and `b` are in one join group, `c` in another, `d` in none.
const JOINS: &str = r#"version = 1
[fields.a]
mode = "deterministic"
join_group = "one"
columns = ["a"]
[fields.b]
mode = "deterministic"
join_group = "one"
columns = ["b"]
[fields.c]
mode = "deterministic"
join_group = "two"
columns = ["c"]
[fields.d]
mode = "deterministic"
columns = ["d"]
"#;

#[test]
fn deterministic_values_stay_in_their_join_group() {
    let world = World::new();
    world.write("policy.toml", JOINS);
    let plain = "a,b,c,d\nCanáry7391,Canáry7391,Canáry7391,Canáry7391\nCanáry7391-2,Canáry7391-3,x,y\n";
    world.write("in.csv", plain);
    let mut sealed = world.protect(&[]);
    assert_eq!(sealed.cell((1, 0)).clone(), *sealed.cell((1, 1)), "fields of a join group join");
    let distinct = std::collections::BTreeSet::from([0, 2, 3].map(|column| sealed.cell((1, column)).clone()));
    assert_eq!(distinct.len(), 3, "fields of other groups do not");
    for (a, b) in [(0, 2), (1, 3), (2, 3)] {
        world.refuses_table(&sealed.swapped((1, a), (1, b)), "DecryptionFailed", 1, "");
    }
    // Inside a group and inside a column they can be swapped, as the documents say.
    world.write("moved.csv", sealed.swapped((2, 0), (2, 1)));
    world.succeeds(&REVEAL);
    assert_eq!(world.text("out.csv"), Table::parse(plain).swapped((2, 0), (2, 1)));
    std::fs::remove_file(world.path("out.csv")).expect("removed");
    let elsewhere = world.protect(&["--context", "tenant=b"]).cell((1, 0)).clone();
    assert_ne!(elsewhere, *sealed.cell((1, 0)), "other contexts do not join");
    *sealed.cell((1, 0)) = elsewhere;
    world.refuses_table(&sealed.render(), "DecryptionFailed", 1, "\"a\"");
    world.write("policy.toml", JOINS.replace("\"deterministic\"", "\"deterministic\"\npartition = \"study-2\""));
    world.refuses(&REVEAL, POLICY, &["Configuration", "study-2"]);
}

#[test]
fn reveal_never_passes_plaintext_through() {
    let world = World::new();
    let sealed = world.protect(&[]);
    for plain in ["Canáry7391", "", "kf1.", "KF1.0100000001.Canáry7391", " ", "kf1.01"] {
        for (row, column, name) in [(1, 1, "name"), (3, 0, "patient_id"), (3, 3, "note")] {
            let mut table = sealed.clone();
            *table.cell((row, column)) = plain.to_owned();
            world.write("moved.csv", table.render());
            let place = format!("row {row} (line {}), column {} ({name:?})", row + 1, column + 1);
            world.refuses(&REVEAL, DATA, &["plaintext is never passed through [200 Malformed]", &place]);
        }
    }
    for value in ["\"Canáry7391\"", "7391", "null", "true", "[\"Canáry7391\"]", "{\"a\":1}"] {
        world.write("moved.ndjson", format!("\n{{\"note\":{value}}}\n"));
        let says = ["plaintext is never passed through [200 Malformed]", "line 2, field patient.note"];
        world.refuses(&["reveal", "moved.ndjson", "--output", "out.ndjson"], DATA, &says);
    }
}

#[test]
fn sealed_values_are_sealed_again_only_on_request() {
    let world = World::new();
    world.protect(&[]);
    let twice = ["protect", "sealed.csv", "--output", "twice.csv"];
    world.refuses(&twice, POLICY, &["row 1", "\"patient_id\"", "--seal-sealed"]);
    world.succeeds(&[&twice[..], &["--seal-sealed"]].concat());
    world.succeeds(&["reveal", "twice.csv", "--output", "once.csv"]);
    assert_eq!(world.text("once.csv"), world.text("sealed.csv"));
    world.succeeds(&["reveal", "once.csv", "--output", "plain.csv"]);
    assert_eq!(world.text("plain.csv"), PATIENTS);
    world.refuses(&["reveal", "twice.csv", "--output", "x.csv", "--seal-sealed"], common::USAGE, &["--seal-sealed"]);
}
