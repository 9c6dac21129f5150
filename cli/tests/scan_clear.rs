//! `keyfold scan --clear` lists what the policy names for nothing, and how much of it there is.

use crate::common::{DATA, World, repository};
use crate::tables::databases;
use serde_json::{Value as Json, json};

#[track_caller]
fn clear(world: &World, arguments: &[&str], code: i32) -> Vec<(String, String, u64)> {
    let run =
        world.run(&[&["scan", "--policy", "policy.toml", "--clear", "--json"], arguments].concat()).expect(code, &[]);
    let found: Json = run.json_lines().remove(0);
    let of = |one: &Json| {
        let text = |name: &str| one[name].as_str().expect("a text").to_owned();
        (text("source"), text("place"), one["values"].as_u64().expect("a number"))
    };
    found["clear"].as_array().expect("a list").iter().map(of).collect()
}

fn of(source: &str, places: &[(&str, u64)]) -> Vec<(String, String, u64)> {
    places.iter().map(|(place, n)| (source.to_owned(), (*place).to_owned(), *n)).collect()
}

#[test]
fn members_of_a_fhir_patient_that_no_field_selects() {
    let world = World::new();
    world.write("policy.toml", std::fs::read_to_string(repository("policies/fhir-r4.toml")).expect("the policy"));
    let patient = |id: u32| {
        json!({
            "resourceType": "Patient", "id": id.to_string(), "active": true, "gender": "female",
            "name": [{ "use": "official", "family": "Canáry7391", "given": ["Canáry7391", "Canáry7391"] }],
            "telecom": [{ "system": "phone", "value": "Canáry7391" }],
            "maritalStatus": { "text": "Canáry7391" },
            "birthDate": "1970-01-02",
            "generalPractitioner": null,
            // What a sender has made up, or misspelt.
            "Name": [{ "family": "Canáry7391" }, { "family": "Canáry7391" }], "new thing": "Canáry7391",
        })
    };
    let bundle = json!({ "resourceType": "Bundle", "type": "collection", "entry": [{ "resource": patient(1) }] });
    world.write("in.ndjson", format!("{}\n{}\n", patient(1), patient(2)));
    world.write("bundle.json", bundle.to_string());
    for (file, sealed) in [("in.ndjson", "sealed.ndjson"), ("bundle.json", "sealed.json")] {
        world.succeeds(&["protect", file, "--output", sealed]);
    }
    let places = |root: &str, n: u64| {
        [
            (format!("{root}.Name[*].family"), 2 * n),
            (format!("{root}.active"), n),
            (format!("{root}.gender"), n),
            (format!("{root}.maritalStatus.text"), n),
            (format!("{root}.name[*].use"), n),
            (format!("{root}.resourceType"), n),
            (format!("{root}.telecom[*].system"), n),
            (format!("{root}['new thing']"), n),
        ]
    };
    let expected = |source: &str, places: &[(String, u64)]| -> Vec<_> {
        places.iter().map(|(place, n)| (source.to_owned(), place.clone(), *n)).collect()
    };
    let listed = clear(&world, &["sealed.ndjson", "sealed.json"], 0);
    let (of_lines, of_bundle): (Vec<_>, Vec<_>) =
        listed.into_iter().partition(|(source, ..)| source == "sealed.ndjson");
    assert_eq!(of_lines, expected("sealed.ndjson", &places("$", 2)));
    let around = of("sealed.json", &[("$.resourceType", 1), ("$.type", 1)]);
    let inside: Vec<_> = of_bundle.iter().filter(|one| !around.contains(one)).cloned().collect();
    assert_eq!(of_bundle.len(), inside.len() + 2, "{of_bundle:?}");
    assert_eq!(inside, expected("sealed.json", &places("$.entry[*].resource", 1)));
    // Those that fields select are no part of it when they are in clear, either; and nothing is listed that nobody asked for.
    assert_eq!(clear(&world, &["in.ndjson"], DATA), expected("in.ndjson", &places("$", 2)));
    let run = world.succeeds(&["scan", "--policy", "policy.toml", "sealed.ndjson"]);
    assert!(!run.stdout_text().contains("new thing"), "{}", run.stdout_text());
    let run = world.succeeds(&["scan", "--policy", "policy.toml", "--clear", "sealed.ndjson"]);
    assert!(run.stdout_text().contains("sealed.ndjson: in clear: $['new thing']: 2\n"), "{}", run.stdout_text());
}

#[test]
fn the_list_ends_however_many_names_a_sender_makes_up() {
    let world = World::new();
    world.write("policy.toml", "version = 1\n[fields.a]\nrow_binding = \"none\"\npaths = [\"$.a\"]\noptional = true\n");
    let many: String = (0..3000).map(|n| format!(",\"n{n:04}\":{n}")).collect();
    world.write("in.json", format!("{{\"a\":null{many},\"{}\":1}}", "x".repeat(1000)));
    let listed = clear(&world, &["in.json"], 0);
    assert_eq!((listed.len(), listed.iter().map(|(.., n)| n).sum::<u64>()), (501, 3001));
    assert!(listed.iter().all(|(_, place, _)| place.len() < 20));
    assert!(listed.iter().any(|(_, place, n)| place == "other places" && *n == 2501));
}

#[test]
fn columns_and_fields_of_messages() {
    let world = World::new();
    world.protect(&[]);
    assert_eq!(clear(&world, &["sealed.csv"], 0), of("sealed.csv", &[("state", 3)]));
    world.write("other.csv", world.text("sealed.csv").replace(",MO\n", ",\n").replace(",state\n", ",\"st,ate\"\n"));
    assert_eq!(clear(&world, &["other.csv"], 0), of("other.csv", &[("st,ate", 2)]));
    world.write("policy.toml", "version = 1\n[fields.name]\nrow_binding = \"none\"\nsegments = [\"PID-5\"]\n");
    world.write("in.hl7", "MSH|^~\\&|A|||||||7|P|2.5\rPID|1||7^^^X||Canáry7391\r");
    world.succeeds(&["protect", "in.hl7", "--output", "sealed.hl7"]);
    let listed = clear(&world, &["sealed.hl7"], 0);
    assert!(listed.contains(&of("sealed.hl7", &[("PID-3.1", 1)])[0]), "{listed:?}");
    assert!(!listed.iter().any(|(_, place, _)| place.starts_with("PID-5")), "{listed:?}");
}

#[test]
fn columns_of_tables() {
    for database in databases() {
        let world = World::new();
        let table = world.protect(&[]);
        let ssn = &table.0[1][2];
        database.sql("CREATE TABLE patients (id INTEGER NOT NULL PRIMARY KEY, ssn TEXT, state TEXT, elsewhere TEXT)");
        database.sql(&format!("INSERT INTO patients VALUES (1, '{ssn}', 'KS', '{ssn}'), (2, NULL, '', NULL)"));
        let table = ["--sql", &database.uri, "--table", "patients", "--key", "id", "--field", "patient.ssn=ssn"];
        let listed = clear(&world, &table, 0);
        let places: Vec<_> = listed.iter().map(|(_, place, n)| (place.as_str(), *n)).collect();
        assert_eq!(places, [("id", 2), ("state", 1)]);
    }
}
