//! Random tokens in the place of values, with their table in SQLite and PostgreSQL.

mod common;
#[path = "common/tables.rs"]
mod tables;

use common::{CANARY, DATA, USAGE, World, contains};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use tables::databases;

fn policy(partition: &str) -> String {
    format!(
        "version = 1\n[fields.\"patient.mrn\"]\nmode = \"token\"\npartition = \"{partition}\"\nlength = 11\n\
         columns = [\"mrn\"]\npaths = [\"$.mrn\"]\n"
    )
}

/// The SQL of docs/LOOKUP.md for the table of a database.
fn documented(tag: &str) -> String {
    let text = fs::read_to_string(common::repository("docs/LOOKUP.md")).expect("the document");
    let blocks = text.split("```").skip(1).step_by(2);
    let of = |block: &str| block.strip_prefix(&format!("sql {tag}\n")).map(str::to_owned);
    blocks.filter_map(of).find(|sql| sql.contains("keyfold_tokens")).expect("the SQL")
}

/// The tokens of a file, by row.
fn tokens(world: &World, file: &str) -> Vec<String> {
    world.text(file).lines().skip(1).map(|line| line.split(',').next().expect("a cell").to_owned()).collect()
}

#[test]
fn a_value_has_one_token_in_each_study_however_many_ask_at_once() {
    for database in databases() {
        let world = World::new();
        let tag = if database.is_postgres() { "postgresql" } else { "sqlite" };
        database.sql(&documented(tag));
        let section = world.succeeds(&["keys", "partition", "study"]);
        let config = fs::read_to_string(world.config()).expect("a configuration");
        fs::write(world.config(), format!("{config}\n{}", section.stdout_text())).expect("written");
        let text: String = (0..300)
            .map(|row| format!("{CANARY}-{},x\n", row % 100))
            .fold("mrn,other\n".to_owned(), |all, row| all + &row);
        world.write("in.csv", &text);
        world.write("policy.toml", policy("default"));
        world.write("study.toml", policy("study"));

        // Several processes, none of which finds tokens.
        std::thread::scope(|scope| {
            for n in 0..4 {
                let (world, uri) = (&world, &database.uri);
                scope.spawn(move || {
                    world.succeeds(&["protect", "in.csv", "--output", &format!("{n}.csv"), "--tokens", uri]);
                });
            }
        });
        let first = tokens(&world, "0.csv");
        assert!((1..4).all(|n| tokens(&world, &format!("{n}.csv")) == first));
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 100);
        assert!(first.iter().all(|token| token.len() == 11 && token.bytes().all(|byte| byte.is_ascii_alphanumeric())));
        let by_value: BTreeMap<usize, &String> =
            first.iter().enumerate().map(|(row, token)| (row % 100, token)).collect();
        assert!(first.iter().enumerate().all(|(row, token)| by_value[&(row % 100)] == token));
        world.succeeds(&["reveal", "0.csv", "--output", "back.csv", "--tokens", &database.uri]);
        assert_eq!(world.text("back.csv"), text);

        // Another study has tokens of its own, and cannot resolve those of the first.
        let study = ["--tokens", &database.uri, "--policy", "study.toml"];
        world.succeeds(&[&["protect", "in.csv", "--output", "study.csv"], &study[..]].concat());
        assert!(tokens(&world, "study.csv").iter().all(|token| !first.contains(token)));
        world.refuses(
            &[&["reveal", "0.csv", "--output", "x.csv"], &study[..]].concat(),
            DATA,
            &["row 1", "does not have"],
        );

        // The table tells no value, and neither does a token.
        for row in database.rows("keyfold_tokens", "token", &["field", "partition", "value"]) {
            let cells = row.cells.iter().filter_map(|cell| cell.as_bytes());
            assert!(cells.into_iter().all(|cell| !contains(cell, CANARY.as_bytes())));
        }
        world.write("forged.csv", "mrn,other\nkf1.x,x\n");
        let forged = ["reveal", "forged.csv", "--output", "x.csv", "--tokens", &database.uri];
        world.refuses(&forged, DATA, &["row 1", "no token"]);
        world.refuses(&["protect", "in.csv", "--output", "x.csv"], USAGE, &["patient.mrn", "--tokens"]);

        let json = format!("{{\"mrn\":\"{CANARY}-7\"}}\n");
        world.write("in.ndjson", &json);
        world.succeeds(&["protect", "in.ndjson", "--output", "sealed.ndjson", "--tokens", &database.uri]);
        assert_eq!(world.text("sealed.ndjson"), format!("{{\"mrn\":\"{}\"}}\n", first[7]));
        world.succeeds(&["reveal", "sealed.ndjson", "--output", "back.ndjson", "--tokens", &database.uri]);
        assert_eq!(world.text("back.ndjson"), json);
    }
}

#[test]
fn tokens_survive_a_new_lookup_key() {
    for database in databases() {
        let world = World::new();
        let tag = if database.is_postgres() { "postgresql" } else { "sqlite" };
        database.sql(&documented(tag));
        world.write("policy.toml", policy("default"));
        world.write("in.csv", format!("mrn,other\n{CANARY}-1,x\n{CANARY}-2,x\n"));
        let protect = |output: &str| {
            world.succeeds(&["protect", "in.csv", "--output", output, "--tokens", &database.uri, "--force"]);
            tokens(&world, output)
        };
        let before = protect("a.csv");
        let run = world.succeeds(&["keys", "rotate", "--partition", "default", "--json"]);
        let json = run.json_lines().remove(0);
        let section = |name: &str| json[name].as_str().expect("a section").to_owned();
        let config = fs::read_to_string(world.config()).expect("a configuration");
        let old = section("publish")
            .replace(&section("publish")[section("publish").find("opens").expect("a key")..], "opens = []");
        assert!(config.contains(&old), "{old}");
        fs::write(world.config(), config.replace(&old, &section("seal"))).expect("written");
        world.write("in.csv", format!("mrn,other\n{CANARY}-1,x\n{CANARY}-2,x\n{CANARY}-3,x\n"));
        let after = protect("b.csv");
        assert_eq!(after[..2], before[..]);
        // The values in the table are sealed again in place, and the tokens stay.
        let table = ["reencrypt", "--sql", &database.uri, "--table", "keyfold_tokens", "--key", "token"];
        world.succeeds(&[&table[..], &["--field", "patient.mrn=value"]].concat());
        let sealing = fs::read_to_string(world.config()).expect("a configuration");
        fs::write(world.config(), sealing.replace(&section("seal"), &section("retire"))).expect("written");
        assert_eq!(protect("c.csv"), after);
        world.succeeds(&["reveal", "a.csv", "--output", "back.csv", "--tokens", &database.uri]);
        assert_eq!(world.text("back.csv"), format!("mrn,other\n{CANARY}-1,x\n{CANARY}-2,x\n"));
    }
}
