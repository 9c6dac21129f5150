//! `keyfold scan` finds what is in clear, needs no key, and says places, never values.

use crate::common::{self, CANARY, DATA, POLICY, STORAGE, USAGE, World, contains};
use crate::tables::{FIELDS, Hospital, databases};
use serde_json::{Value as Json, json};

/// The result of a scan that ends with `code`, in which no value stands.
fn scan(world: &World, arguments: &[&str], code: i32) -> Json {
    let run = world.run(&[&["scan", "--policy", "policy.toml", "--json"], arguments].concat()).expect(code, &[]);
    assert!(!contains(&run.stdout, CANARY.as_bytes()) && !contains(&run.stdout, b"ry7391"), "a value is printed");
    run.json_lines().remove(0)
}

fn findings(found: &Json) -> Vec<(String, String, u64)> {
    let of = |finding: &Json| {
        let text = |name: &str| finding[name].as_str().expect("a text").to_owned();
        (text("field"), text("what"), finding["values"].as_u64().expect("a number"))
    };
    found["findings"].as_array().expect("findings").iter().map(of).collect()
}

#[test]
fn a_protected_file_passes_and_what_was_put_back_in_clear_is_found() {
    let world = World::new();
    world.protect(&[]);
    // No key is needed.
    std::fs::rename(world.keys(), world.path("hidden")).expect("hidden");
    let found = scan(&world, &["sealed.csv"], 0);
    assert_eq!((&found["sealed"], &found["findings"]), (&12.into(), &json!([])), "the empty cell as well");
    let found = scan(&world, &["in.csv"], DATA);
    assert_eq!(findings(&found).iter().map(|(_, _, n)| n).sum::<u64>(), 11);
    let sealed = world.text("sealed.csv");
    let cell = sealed.lines().nth(2).and_then(|row| row.split(',').nth(2)).expect("a cell");
    for (name, other, what) in [
        ("clear", format!("{CANARY}-222"), "in clear"),
        ("before", format!("{CANARY} {cell}"), "in clear"),
        ("behind", format!("{cell} {CANARY}"), "damaged, or in clear"),
        ("cut", cell[..cell.len() - 5].to_owned(), "damaged, or in clear"),
        // The name of another suite: nothing says that it is sealed as the policy wants.
        ("suite", cell.replace("kf1.01", "kf1.02"), "sealed under a suite that the policy refuses"),
    ] {
        world.write("other.csv", sealed.replace(cell, &other));
        let found = scan(&world, &["other.csv"], DATA);
        let expected = if name == "cut" && findings(&found).is_empty() { continue } else { what };
        assert_eq!(findings(&found), [("patient.ssn".to_owned(), expected.to_owned(), 1)], "{name}");
        assert_eq!(found["places"][0]["place"], "row 2 (line 3), column 3 (\"ssn\")");
    }
}

#[test]
fn documents_by_line_and_as_a_whole() {
    let world = World::new();
    let line = |id: u32, ssn: &str| {
        format!("{{\"id\":\"{CANARY}-{id}\",\"name\":\"{CANARY}\",\"ssn\":{ssn},\"note\":null}}\n")
    };
    world.write("in.ndjson", line(1, "\"1\"") + &line(2, "\"2\""));
    world.succeeds(&["protect", "in.ndjson", "--output", "sealed.ndjson"]);
    assert_eq!(scan(&world, &["sealed.ndjson"], 0)["sealed"], 8, "null as well");
    let sealed = world.text("sealed.ndjson");
    let first = sealed.lines().next().expect("a line");
    world.write("two.ndjson", format!("{first}\n\n{}", line(3, "17")));
    let found = scan(&world, &["two.ndjson"], DATA);
    assert_eq!(findings(&found).len(), 3);
    assert!(
        found["places"]
            .as_array()
            .expect("places")
            .iter()
            .all(|place| place["place"].as_str().expect("a text").starts_with("line 3, byte "))
    );
    world.write("one.json", first);
    assert_eq!(scan(&world, &["one.json"], 0)["sealed"], 4);
    world.write("one.json", line(3, "{\"deep\": 1}"));
    assert_eq!(findings(&scan(&world, &["one.json"], DATA)).len(), 3);
    // A document that hides its values from the path.
    world.write("policy.toml", "version = 1\n[fields.f]\npaths = [\"$.list[*].ssn\"]\nrow_binding = \"none\"\n");
    world.write("one.json", format!("{{\"list\": {{\"ssn\": \"{CANARY}\"}}}}"));
    assert_eq!(findings(&scan(&world, &["one.json"], DATA))[0].1, "of another shape than the path");
    world.write("one.json", "{\"list\": []}");
    let found = scan(&world, &["one.json"], DATA);
    assert_eq!((&found["missing"][0]["field"], &found["unmatched"]), (&"f".into(), &1.into()), "as for protect");
    world.write(
        "policy.toml",
        "version = 1\n[fields.f]\npaths = [\"$.ssn\"]\nrow_binding = \"none\"\nonly_if = { \"$.type\" = \"A\" }\n",
    );
    world.write("one.json", "{\"type\": \"B\", \"ssn\": \"1\"}");
    let found = scan(&world, &["one.json"], DATA);
    assert_eq!((&found["unmatched"], &found["ok"]), (&1.into(), &false.into()));
    let found = scan(&world, &["one.json", "--pass-unmatched"], 0);
    assert_eq!((&found["unmatched"], &found["ok"]), (&1.into(), &true.into()));
    // A field applies, and selects nothing.
    world.write("one.json", "{\"type\": \"A\", \"social\": \"1\"}");
    assert_eq!(scan(&world, &["one.json"], DATA)["unmatched"], 1);
    let run = world.run(&["scan", "--policy", "policy.toml", "one.json"]).expect(DATA, &[]);
    for said in ["no field of the policy selects anything in 1 document or message", "--pass-unmatched"] {
        assert!(run.stdout_text().contains(said), "{said}");
    }
}

/// What `protect` and `reveal` refuse, a scan finds.
#[test]
fn what_is_not_there_or_spelled_in_another_way_is_a_finding() {
    let world = World::new();
    let field = |rules: &str| {
        format!(
            "version = 1\n[fields.s]\nrow_binding = \"none\"\n{rules}\n[fields.t]\nrow_binding = \"none\"\ncolumns = [\"t\"]\npaths = [\"$.t\"]\n"
        )
    };
    let ssn = "columns = [\"ssn\"]\npaths = [\"$.ssn\"]";
    world.write("clear.csv", "ssn,t\n1,2\n");
    world.write("policy.toml", field(ssn));
    world.succeeds(&["protect", "clear.csv", "--output", "sealed.csv"]);
    let sealed = world.text("sealed.csv");
    scan(&world, &["sealed.csv"], 0);
    let missing = |found: &Json| -> Vec<String> {
        let list = found["missing"].as_array().expect("a list");
        list.iter()
            .map(|one| format!("{} {}", one["field"].as_str().expect("a name"), one["what"].as_str().expect("a text")))
            .collect()
    };
    for header in ["SSN,t", " ssn,t", "Ssn ,t"] {
        world.write("other.csv", sealed.replace("ssn,t", header));
        let optional = field(&format!("{ssn}\noptional = true"));
        for policy in [field(ssn), optional] {
            world.write("policy.toml", policy);
            world.refuses(&["protect", "other.csv", "--output", "x"], POLICY, &["case or white space"]);
            let found = missing(&scan(&world, &["other.csv"], DATA));
            assert!(
                found.len() == 1 && found[0].contains("header: column 1") && found[0].contains("case or white space"),
                "{found:?}"
            );
        }
    }
    world.write("other.csv", sealed.replace("ssn,t", "number,t"));
    world.write("policy.toml", field(ssn));
    let found = missing(&scan(&world, &["other.csv"], DATA));
    assert!(found.len() == 1 && found[0].contains("not optional"), "{found:?}");
    let run = world.run(&["scan", "--policy", "policy.toml", "other.csv"]).expect(DATA, &[]);
    assert!(
        run.stdout_text().contains("other.csv: field s: nothing of it is there")
            && run.stdout_text().ends_with("A FIELD IS NOT THERE\n"),
        "{}",
        run.stdout_text()
    );
    // A field that applies, and selects nothing in the whole input.
    world.write("clear.ndjson", "{\"number\":\"1\",\"t\":\"2\"}\n");
    world.refuses(&["protect", "clear.ndjson", "--output", "x"], POLICY, &["field s"]);
    world.write("policy.toml", field("paths = [\"$.ssn\"]\noptional = true"));
    world.succeeds(&["protect", "clear.ndjson", "--output", "sealed.ndjson"]);
    assert_eq!(scan(&world, &["sealed.ndjson"], 0)["missing"], json!([]));
    world.write("policy.toml", field("paths = [\"$.ssn\"]"));
    assert_eq!(missing(&scan(&world, &["sealed.ndjson"], DATA)).len(), 1);
    world.write("policy.toml", field("paths = [\"$.ssn\"]\nonly_if = { \"$.a\" = \"b\" }"));
    assert_eq!(scan(&world, &["sealed.ndjson"], 0)["absent"][0]["field"], "s");
}

#[test]
fn fields_that_did_not_apply_or_are_optional_are_one_line() {
    let world = World::new();
    let field = |name: &str, rules: &str| format!("[fields.{name}]\nrow_binding = \"none\"\n{rules}\n");
    let fields = [
        field("a", "paths = [\"$.a\"]"),
        field("b", "paths = [\"$.b\"]\noptional = true"),
        field("c", "paths = [\"$.c\"]\nonly_if = { \"$.t\" = \"C\" }"),
    ];
    world.write("policy.toml", format!("version = 1\n{}", fields.concat()));
    world.write("in.ndjson", "{\"a\":\"1\"}\n");
    world.succeeds(&["protect", "in.ndjson", "--output", "sealed.ndjson"]);
    let run = world.succeeds(&["scan", "--policy", "policy.toml", "sealed.ndjson"]);
    let notes: Vec<_> = run.stdout_text().lines().filter(|line| line.starts_with("note:")).collect();
    assert_eq!(
        notes,
        ["note: sealed.ndjson: nothing of 2 fields that are optional or did not apply (--json names them)"]
    );
    let found = scan(&world, &["sealed.ndjson"], 0);
    assert_eq!(found["absent"].as_array().map(Vec::len), Some(2));
}

/// A message of version 2.5 whose name is sealed under the policy below.
const MESSAGE: &str = "MSH|^~\\&|A|||||||7|P|2.5\rPID|1||||Canáry7391\r";

fn hl7(world: &World, rules: &str) -> String {
    let field = "[fields.name]\nrow_binding = \"none\"\nsegments = [\"PID-5\"]\n";
    world.write("policy.toml", format!("version = 1\n{rules}{field}"));
    world.write("in.hl7", MESSAGE);
    world.succeeds(&["protect", "in.hl7", "--output", "sealed.hl7"]);
    world.text("sealed.hl7")
}

#[test]
fn messages_have_nothing_in_clear_that_the_policy_does_not_list() {
    let world = World::new();
    let sealed = hl7(&world, "[hl7]\nversions = [\"2.5\"]\nclear = [\"MSH\", \"PID-1\"]\n");
    let found = scan(&world, &["sealed.hl7"], 0);
    assert_eq!((&found["sealed"], &found["elsewhere"], &found["clear_columns"]), (&1.into(), &json!([]), &json!([])));
    world.write("more.hl7", format!("{sealed}ZPI|1|{CANARY}|999-81-5679\rNK1|{CANARY}~x\r"));
    let found = scan(&world, &["more.hl7"], DATA);
    let what = "neither sealed nor listed under clear in [hl7]";
    let of = |place: &str, n: u64| json!({"place": place, "what": what, "values": n});
    assert_eq!(found["elsewhere"], json!([of("NK1-1", 2), of("ZPI-1", 1), of("ZPI-2", 1), of("ZPI-3", 1)]));
    assert_eq!((&found["ok"], &found["places"][0]["place"]), (&false.into(), &"message 1, ZPI-1".into()));
    let run = world.run(&["scan", "--policy", "policy.toml", "more.hl7"]).expect(DATA, &[]);
    for said in ["ZPI-3: 1 value is neither sealed", "NK1-1: 2 values are neither sealed", "DATA IS NOT SEALED"] {
        assert!(run.stdout_text().contains(said), "{}", run.stdout_text());
    }
    world.write("other.hl7", sealed.replace("|2.5\r", "|2.9\r"));
    let found = scan(&world, &["other.hl7"], DATA);
    assert_eq!(found["elsewhere"][0]["place"], "MSH-12");
    // However many places a sender makes up.
    world.write("many.hl7", format!("{sealed}ZPI|{}\r", "x|".repeat(9000)));
    let found = scan(&world, &["many.hl7"], DATA);
    let places = found["elsewhere"].as_array().expect("places");
    assert_eq!((places.len(), places.iter().filter_map(|place| place["values"].as_u64()).sum::<u64>()), (501, 9000));
}

#[test]
fn messages_without_a_sealed_value_are_counted_and_places_without_a_list_told() {
    let world = World::new();
    let sealed = hl7(&world, "");
    let found = scan(&world, &["sealed.hl7"], 0);
    assert_eq!((&found["clear_columns"], &found["elsewhere"]), (&json!(["MSH", "PID-1"]), &json!([])));
    let run = world.succeeds(&["scan", "--policy", "policy.toml", "sealed.hl7"]);
    assert!(run.stdout_text().contains("in clear: \"MSH\", \"PID-1\""), "{}", run.stdout_text());
    world.write("two.hl7", format!("{sealed}MSH|^~\\&|A\rNK1|1|{CANARY}\r"));
    assert_eq!(scan(&world, &["two.hl7"], DATA)["unmatched"], 1);
    assert_eq!(scan(&world, &["two.hl7", "--pass-unmatched"], 0)["clear_columns"], json!(["MSH", "NK1", "PID-1"]));
}

#[test]
fn documents_that_are_sealed_as_a_whole() {
    let world = World::new();
    world.write(
        "policy.toml",
        "version = 1\n[documents.patient]\nrow_binding = \"$.id\"\nroot = \"$.entry[*].resource\"\n\
         [fields.name]\nmode = \"document\"\nidentifier = \"A\"\npaths = [\"$.name\"]\n",
    );
    let resource = |id: u32| format!("{{\"resource\":{{\"id\":\"{id}\",\"name\":\"{CANARY}\"}}}}");
    world.write("in.ndjson", format!("{{\"entry\":[{},{}]}}\n", resource(1), resource(2)));
    assert_eq!(findings(&scan(&world, &["in.ndjson"], DATA)), [("name".to_owned(), "in clear".to_owned(), 2)]);
    world.succeeds(&["protect", "in.ndjson", "--output", "sealed.ndjson"]);
    let found = scan(&world, &["sealed.ndjson"], 0);
    assert_eq!((&found["sealed"], &found["unmatched"]), (&2.into(), &0.into()));
    let sealed = world.text("sealed.ndjson");
    let body = sealed.split('"').find(|text| text.starts_with("kf1d.")).expect("a body");
    world.write("cut.ndjson", sealed.replace(body, "kf1d.x"));
    assert_eq!(
        findings(&scan(&world, &["cut.ndjson"], DATA)),
        [("name".to_owned(), "damaged, or in clear".to_owned(), 1)]
    );
}

#[test]
fn values_that_keep_their_format_are_said_not_to_be_told() {
    let world = World::new();
    world.write(
        "policy.toml",
        "version = 1\n[fields.ssn]\nmode = \"format-preserving\"\nformat = \"digits\"\ncolumns = [\"ssn\"]\n",
    );
    world.write("numbers.csv", "ssn\n999815679\n");
    let found = scan(&world, &["numbers.csv"], 0);
    assert_eq!((&found["untold"], &found["sealed"]), (&json!(["ssn"]), &0.into()));
}

#[test]
fn what_has_not_the_form_of_a_token_is_in_clear() {
    let world = World::new();
    world.write(
        "policy.toml",
        "version = 1\n[fields.mrn]\nmode = \"token\"\ncolumns = [\"mrn\"]\npaths = [\"$.mrn\"]\nrow_binding = \"none\"\n",
    );
    let clear = |n: u64| [("mrn".to_owned(), "in clear: not of the form of a token".to_owned(), n)];
    world.write("in.csv", "mrn\nMRN-0001\n0123456789abcdefABCDEF\n999-81-5679\n\"\"\n");
    let found = scan(&world, &["in.csv"], DATA);
    assert_eq!((findings(&found).as_slice(), &found["untold"]), (&clear(2)[..], &json!(["mrn"])));
    world.write("in.json", "{\"mrn\": \"MRN-0001\"}");
    assert_eq!(findings(&scan(&world, &["in.json"], DATA)), clear(1));
    world.write("in.json", "{\"mrn\": \"0123456789abcdefABCDEF\"}");
    assert_eq!(scan(&world, &["in.json"], 0)["untold"], json!(["mrn"]));
}

#[test]
fn hints_are_told_from_findings() {
    let world = World::new();
    world.protect(&[]);
    world.write("notes.csv", "patient_id,name,ssn,note,state\n,,,,call 555-123-4567\n,,,,999-81-5679 or a@b.example\n");
    assert_eq!(scan(&world, &["notes.csv"], 0)["hints"], json!({}));
    let found = scan(&world, &["--patterns", "notes.csv"], 0);
    assert_eq!(found["hints"], json!({"a social security number": 1, "a telephone number": 1, "an e-mail address": 1}));
    assert_eq!(found["places"][0]["place"], "row 1 (line 2), column 5");
    scan(&world, &["--patterns", "--strict", "notes.csv"], DATA);
    scan(&world, &["--patterns", "--strict", "sealed.csv"], 0);
    world.write("one.json", "{\"other\": {\"a@b.example\": [\"\\u0039\\u0039\\u0039-81-5679\"]}}");
    world.write(
        "policy.toml",
        common::POLICY_FILE.replace("[\"$.", "[\"$.x.").replace("columns", "optional = true\ncolumns"),
    );
    let found = scan(&world, &["--patterns", "--pass-unmatched", "one.json"], 0);
    assert_eq!(found["hints"], json!({"a social security number": 1, "an e-mail address": 1}));
    let text =
        world.run(&["scan", "--policy", "policy.toml", "--patterns", "--places", "1", "notes.csv"]).expect(0, &[]);
    assert!(
        !text.stdout_text().contains("999-81")
            && text.stdout_text().lines().filter(|line| line.contains("row ")).count() == 1
    );
}

#[test]
fn tables_are_looked_through_without_a_key() {
    for database in databases() {
        let hospital = Hospital::new(database);
        hospital.add(0..30, None);
        let run = |arguments: &[&str], code| {
            let uri = hospital.database.uri.clone();
            let table = ["--sql", &uri, "--table", "patients", "--key", "id", "--batch-rows", "7"];
            scan(&hospital.world, &[&table[..], &FIELDS[..], arguments].concat(), code)
        };
        let found = run(&[], 0);
        assert_eq!((&found["sealed"], &found["findings"]), (&60.into(), &json!([])));
        hospital.database.sql(&format!("UPDATE patients SET name = '{CANARY} Änne' WHERE id = 17"));
        hospital.database.sql("UPDATE patients SET clinic = 'a@b.example' WHERE id = 3");
        let found = run(&["--patterns"], DATA);
        assert_eq!(findings(&found), [("patient.name".to_owned(), "in clear".to_owned(), 1)]);
        assert_eq!(found["hints"], json!({"an e-mail address": 1}));
        let places: Vec<_> = found["places"]
            .as_array()
            .expect("places")
            .iter()
            .map(|place| place["place"].as_str().expect("a text"))
            .collect();
        assert_eq!(places, ["row 4, column \"clinic\"", "row 18, column \"name\""]);
    }
}

#[test]
fn what_cannot_be_looked_through_is_refused() {
    let world = World::new();
    world.write("a.csv", "x\n\"y\n");
    for (arguments, code, says) in [
        (&["scan", "in.csv"][..], USAGE, "--policy"),
        (&["scan", "--policy", "policy.toml"], USAGE, "FILES"),
        (&["scan", "--policy", "policy.toml", "--strict", "in.csv"], USAGE, "--patterns"),
        (&["scan", "--policy", "in.csv", "in.csv"], POLICY, "in.csv"),
    ] {
        world.refuses(arguments, code, &[says]);
    }
}

/// What was found in one file is printed, and counts, whatever becomes of the others.
#[test]
fn a_file_that_fails_hides_nothing() {
    let world = World::new();
    world.protect(&[]);
    world.write("a.csv", "x\n\"y\n");
    let header = world.text("in.csv").lines().next().expect("a header").to_owned();
    let ragged = format!("{}x,y\n", world.text("in.csv"));
    world.write("ragged.csv", &ragged);
    for (files, code, sealed, failed) in [
        (&["in.csv", "nofile.csv"][..], DATA, 0, &[STORAGE][..]),
        (&["nofile.csv", "in.csv"], DATA, 0, &[STORAGE]),
        (&["in.csv", "scan.dcm"], DATA, 0, &[STORAGE]),
        (&["policy.toml", "in.csv", "nofile.csv"], DATA, 0, &[USAGE, STORAGE]),
        (&["ragged.csv"], DATA, 0, &[DATA]),
        (&["sealed.csv", "nofile.csv"], STORAGE, 12, &[STORAGE]),
        (&["nofile.csv", "policy.toml", "sealed.csv"], STORAGE, 12, &[STORAGE, USAGE]),
        (&["policy.toml"], USAGE, 0, &[USAGE]),
    ] {
        let found = scan(&world, files, code);
        assert_eq!((&found["sealed"], &found["ok"]), (&sealed.into(), &false.into()), "{files:?}");
        let codes = found["failed"].as_array().expect("a list").iter().map(|one| one["code"].clone());
        assert_eq!(codes.collect::<Json>(), json!(failed), "{files:?}");
        assert_eq!(findings(&found).is_empty(), !files.contains(&"in.csv"));
    }
    let run = world.run(&["scan", "--policy", "policy.toml", "in.csv", "nofile.csv"]);
    let run = run.expect(DATA, &["keyfold: cannot read nofile.csv"]);
    assert!(run.stdout_text().contains("nofile.csv: not looked at to its end"), "{}", run.stdout_text());
    assert!(run.stdout_text().trim_end().ends_with("DATA IS NOT SEALED"), "{}", run.stdout_text());
    let run = world.run(&["scan", "--policy", "policy.toml", "a.csv"]).expect(DATA, &["keyfold: a.csv: "]);
    assert!(run.stdout_text().contains("a.csv: not looked at to its end"), "{}", run.stdout_text());
    let run = world.run(&["scan", "--policy", "policy.toml", "sealed.csv", "policy.toml"]).expect(USAGE, &["--format"]);
    assert!(run.stdout_text().contains("12 values are sealed; NOT EVERYTHING WAS LOOKED AT"), "{}", run.stdout_text());
    // A table in which nothing has the name that it should have, since all of it is one column.
    for (delimiter, says) in [(";", "--delimiter ';'"), ("\t", "--delimiter '\\t'")] {
        world.write("other.csv", format!("{}\n", header.replace(',', delimiter)));
        let run = world.run(&["scan", "--policy", "policy.toml", "other.csv"]).expect(DATA, &[]);
        assert!(run.stdout_text().contains(says), "{}", run.stdout_text());
        world.refuses(&["protect", "other.csv", "--output", "x"], POLICY, &[says]);
    }
}
