//! `keyfold scan` looks at what stands in columns and members of indexes.

use crate::common::{DATA, World};
use crate::tables::databases;
use serde_json::{Value as Json, json};

const RULES: &str = r#"version = 1
rows = 1000000
[fields."patient.ssn"]
identifier = "G"
row_binding = { column = "id", path = "$.id" }
columns = ["ssn"]
paths = ["$.ssn"]
[fields."patient.ssn".index.lookup]
kind = "digits"
bits = 63
unique = true
column = "ssn_index"
[fields."patient.ssn".index.whole]
kind = "exact"
bits = 256
unique = true
column = "ssn_whole"
[fields."patient.name"]
row_binding = "none"
columns = ["name"]
paths = ["$.name[*]"]
[fields."patient.name".index.start]
kind = "prefix"
length = [3, 4]
bits = 6
column = "name_start"
"#;

fn world() -> World {
    let world = World::new();
    world.write("policy.toml", RULES);
    let row = |n: u32| format!("{n},{:03}-22-{n:04},Canáry7391 {n}\n", n % 900);
    world.write("in.csv", format!("id,ssn,name\n{}40,,\n", (0..40).map(row).collect::<String>()));
    let line = |n: u32| json!({"id": n.to_string(), "ssn": format!("{:03}-22-{n:04}", n % 900), "name": ["Canáry7391", format!("Canáry7391 {n}")]});
    world.write("in.ndjson", (0..40).map(|n| format!("{}\n", line(n))).collect::<String>());
    for file in ["csv", "ndjson"] {
        world.succeeds(&["protect", &format!("in.{file}"), "--output", &format!("sealed.{file}")]);
    }
    world
}

#[track_caller]
fn scan(world: &World, arguments: &[&str], code: i32) -> Json {
    let run = world.run(&[&["scan", "--policy", "policy.toml", "--json"], arguments].concat()).expect(code, &[]);
    run.json_lines().remove(0)
}

fn finding(field: &str, what: &str, values: u64) -> Json {
    json!({"field": field, "what": what, "values": values})
}

const LOOKUP: &str = "patient.ssn index lookup";
const NO_TOKEN: &str = "not a token of the index";
const TOO_SMALL: &str = "too small for tokens: perhaps clear numbers";

/// The file with another text in a column of each row but the header.
fn with_column(csv: &str, column: &str, cell: impl Fn(usize) -> String) -> String {
    let mut lines = csv.lines();
    let header = lines.next().expect("a header");
    let at = header.split(',').position(|name| name == column).expect("a column");
    let mut changed = format!("{header}\n");
    for (row, line) in lines.enumerate() {
        // The lists of prefixes have quotes and a comma.
        let line = line.replace("\"{", "{").replace("}\"", "}");
        let mut cells: Vec<String> = Vec::new();
        for part in line.split(',') {
            match cells.last_mut() {
                Some(last) if last.starts_with('{') && !last.ends_with('}') => *last += &format!(",{part}"),
                _ => cells.push(part.to_owned()),
            }
        }
        cells[at] = cell(row);
        let quoted = |cell: &String| if cell.contains(',') { format!("\"{cell}\"") } else { cell.clone() };
        changed += &cells.iter().map(quoted).collect::<Vec<_>>().join(",");
        changed.push('\n');
    }
    changed
}

#[test]
fn columns_of_indexes_hold_tokens_or_are_findings() {
    let world = world();
    let notes = json!(["patient.name index start", LOOKUP, "patient.ssn index whole"]);
    let found = scan(&world, &["sealed.csv"], 0);
    assert_eq!((&found["findings"], &found["untold"]), (&json!([]), &notes));
    let run = world.succeeds(&["scan", "--policy", "policy.toml", "sealed.csv"]);
    let said = "note: field patient.ssn index lookup: values keep their format, or have that of tokens";
    assert!(run.stdout_text().contains(said), "{}", run.stdout_text());
    // The last line, which is what people read, has what nobody can tell; and no row is without a token in silence.
    let last = run.stdout_text().lines().last().expect("a line");
    let untold = "cannot be told from values in clear: 80 of patient.name index start, 40 of patient.ssn index lookup, 41 of patient.ssn index whole";
    assert!(last.starts_with("82 values are sealed; nothing is in clear") && last.ends_with(untold), "{last}");
    let none = "note: patient.ssn index lookup: 1 row or document has no token";
    assert!(run.stdout_text().contains(none), "{}", run.stdout_text());
    let sealed = world.text("sealed.csv");
    let changed = |column: &str, cell: &dyn Fn(usize) -> String| {
        world.write("other.csv", with_column(&sealed, column, cell));
        scan(&world, &["other.csv"], DATA)
    };
    let text = |text: &'static str| move |_| text.to_owned();
    assert_eq!(changed("ssn_index", &text("123-45-6789"))["findings"], json!([finding(LOOKUP, NO_TOKEN, 41)]));
    for wrong in ["007", "-7", "9223372036854775808", "7.0", "{7}", "Canáry7391"] {
        assert_eq!(changed("ssn_index", &text(wrong))["findings"], json!([finding(LOOKUP, NO_TOKEN, 41)]), "{wrong}");
    }
    for wrong in ["123456789", "Canáry7391", "ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789"] {
        let expected = json!([finding("patient.ssn index whole", NO_TOKEN, 41)]);
        assert_eq!(changed("ssn_whole", &text(wrong))["findings"], expected, "{wrong}");
    }
    for wrong in ["Canáry7391", "{64}", "{1,2,3}", "{}", "7"] {
        let expected = json!([finding("patient.name index start", NO_TOKEN, 41)]);
        assert_eq!(changed("name_start", &text(wrong))["findings"], expected, "{wrong}");
    }
    let one = |row: usize| if row == 2 { "Canáry7391".to_owned() } else { String::new() };
    let found = changed("ssn_index", &one);
    assert_eq!(
        found["places"][0]["place"].as_str().map(|place| place.starts_with("row 3 (line 4), column ")),
        Some(true)
    );
}

/// Numbers of nine digits have the form of wide tokens, and are not random.
#[test]
fn numbers_that_chance_did_not_make_are_findings() {
    let world = world();
    let sealed = world.text("sealed.csv");
    world.write("other.csv", with_column(&sealed, "ssn_index", |row| (123_456_789 + row * 1_000_003).to_string()));
    let found = scan(&world, &["other.csv"], DATA);
    assert_eq!(found["findings"], json!([finding(LOOKUP, TOO_SMALL, 41)]));
    assert_eq!(found["places"][0]["place"], "column or member \"ssn_index\"");
    // One that is smaller than any of a million tokens is enough, and its place is told.
    let one = |number: i64| {
        let cell = move |row: usize| {
            if row == 6 { number.to_string() } else { (i64::MAX / 42 * (row as i64 + 1)).to_string() }
        };
        world.write("other.csv", with_column(&sealed, "ssn_index", cell));
    };
    one(123_456_789);
    let found = scan(&world, &["other.csv"], DATA);
    assert_eq!(found["findings"], json!([finding(LOOKUP, TOO_SMALL, 1)]));
    let place = found["places"][0]["place"].as_str().expect("a place").to_owned();
    assert!(place.starts_with("row 7 (line 8), column "), "{place}");
    one(1 << 33);
    assert_eq!(
        scan(&world, &["other.csv"], 0)["untold"],
        json!(["patient.name index start", LOOKUP, "patient.ssn index whole"])
    );
    world.write("other.csv", with_column(&sealed, "ssn_index", |_| "123456789".to_owned()));
    assert_eq!(scan(&world, &["other.csv"], DATA)["findings"], json!([finding(LOOKUP, TOO_SMALL, 41)]));
    // Some larger ones are told by nobody.
    let few = |row: usize| if row < 19 { (12_345_678_901 + row).to_string() } else { String::new() };
    world.write("other.csv", with_column(&sealed, "ssn_index", few));
    scan(&world, &["other.csv"], 0);
    // Each file is held to it by itself.
    world.write("other.csv", with_column(&sealed, "ssn_index", |row| (123_456_789 + row).to_string()));
    let run = world.run(&["scan", "--policy", "policy.toml", "sealed.csv", "other.csv"]).expect(DATA, &[]);
    let said = "other.csv: column or member \"ssn_index\": patient.ssn index lookup: too small";
    assert!(run.stdout_text().contains(said), "{}", run.stdout_text());
}

#[test]
fn members_of_indexes_hold_tokens_or_are_findings() {
    let world = world();
    let found = scan(&world, &["sealed.ndjson"], 0);
    assert_eq!((&found["findings"], &found["sealed"]), (&json!([]), &120.into()));
    let sealed = world.text("sealed.ndjson");
    let first = sealed.lines().next().expect("a document");
    let document: serde_json::Map<String, Json> = serde_json::from_str(first).expect("JSON");
    for (member, name, wrong) in [
        ("ssn_index", LOOKUP, json!("123-45-6789")),
        // One of 63 bits is a text.
        ("ssn_index", LOOKUP, json!(123_456_789)),
        ("ssn_index", LOOKUP, json!({"ssn": 1})),
        ("ssn_whole", "patient.ssn index whole", json!("Canáry7391")),
        ("name_start", "patient.name index start", json!("Canáry7391")),
        ("name_start", "patient.name index start", json!(["7", 8])),
        ("name_start", "patient.name index start", json!([7, 64])),
    ] {
        let mut other = document.clone();
        other[member] = wrong.clone();
        world.write("other.ndjson", format!("{first}\n{}\n", Json::from(other)));
        let found = scan(&world, &["other.ndjson"], DATA);
        assert_eq!(found["findings"], json!([finding(name, NO_TOKEN, 1)]), "{wrong}");
        assert!(found["places"][0]["place"].as_str().is_some_and(|place| place.starts_with("line 2, byte ")));
    }
    let numbers = |line: (usize, &str)| {
        let mut other: serde_json::Map<String, Json> = serde_json::from_str(line.1).expect("JSON");
        other["ssn_index"] = (123_456_789 + line.0).to_string().into();
        format!("{}\n", Json::from(other))
    };
    world.write("other.ndjson", sealed.lines().enumerate().map(numbers).collect::<String>());
    assert_eq!(scan(&world, &["other.ndjson"], DATA)["findings"], json!([finding(LOOKUP, TOO_SMALL, 40)]));
    // In documents that are inside of another one as well, and hints are not told twice.
    let kinds = "[documents.person]\nroot = \"$.entry[*]\"\nrow_binding = \"$.id\"\n[fields.born]\nmode = \"document\"\npaths = [\"$.born\"]\n";
    world.write("policy.toml", format!("{RULES}{kinds}"));
    let mut other = document;
    other["ssn_index"] = "123-45-6789".into();
    world.write("other.json", json!({ "entry": [other] }).to_string());
    let found = scan(&world, &["other.json", "--patterns"], DATA);
    assert_eq!((&found["findings"], &found["hints"]), (&json!([finding(LOOKUP, NO_TOKEN, 1)]), &json!({})));
}

#[test]
fn columns_of_tables_that_the_policy_names_for_indexes_are_looked_at() {
    for database in databases() {
        let world = world();
        let bytes = database.bytes();
        database.sql(&format!(
            "CREATE TABLE patients (id INTEGER NOT NULL PRIMARY KEY, ssn TEXT, ssn_index TEXT, ssn_whole {bytes}, name_start TEXT)"
        ));
        for (id, line) in world.text("sealed.csv").replace("\"{", "{").replace("}\"", "}").lines().enumerate().skip(1) {
            let (cells, start) = line.split_once('{').unwrap_or((line.trim_end_matches(','), ""));
            let cells: Vec<&str> = cells.split(',').collect();
            let (start, rest) = start.split_once("},").unwrap_or(("", ","));
            let (index, whole) = rest.split_once(',').expect("two cells");
            if start.is_empty() {
                database.sql(&format!("INSERT INTO patients VALUES ({id}, NULL, '', NULL, NULL)"));
                continue;
            }
            let whole = database.literal(whole);
            database
                .sql(&format!("INSERT INTO patients VALUES ({id}, '{}', '{index}', {whole}, '{{{start}}}')", cells[1]));
        }
        let run = |code| {
            let table = ["--sql", &database.uri, "--table", "patients", "--key", "id", "--field", "patient.ssn=ssn"];
            scan(&world, &table, code)
        };
        let found = run(0);
        assert_eq!((&found["findings"], &found["sealed"]), (&json!([]), &40.into()));
        assert_eq!(found["untold"], json!(["patient.name index start", LOOKUP, "patient.ssn index whole"]));
        database.sql("UPDATE patients SET ssn_index = '123-45-6789', name_start = 'Canáry7391' WHERE id = 3");
        database.sql(&format!("UPDATE patients SET ssn_whole = {} WHERE id = 4", database.literal("3132")));
        let found = run(DATA);
        let expected = [
            finding("patient.name index start", NO_TOKEN, 1),
            finding(LOOKUP, NO_TOKEN, 1),
            finding("patient.ssn index whole", NO_TOKEN, 1),
        ];
        assert_eq!(found["findings"], json!(expected));
        assert_eq!(found["places"][0]["place"], "row 3, column \"ssn_index\"");
        database.sql("UPDATE patients SET name_start = NULL, ssn_whole = NULL, ssn_index = '12345678901'");
        let found = run(0);
        assert_eq!(found["untold_values"], json!({ LOOKUP: 41 }));
        let without = json!({ "patient.name index start": 41, "patient.ssn index whole": 41 });
        assert_eq!(found["without_tokens"], without);
        database.sql("UPDATE patients SET ssn_index = '123456789' WHERE id = 3");
        let found = run(DATA);
        assert_eq!(found["findings"], json!([finding(LOOKUP, TOO_SMALL, 1)]));
        assert_eq!(found["places"][0]["place"], "row 3, column \"ssn_index\"");
        database.sql("UPDATE patients SET ssn_index = CAST(123456789 + id AS TEXT)");
        assert_eq!(run(DATA)["findings"], json!([finding(LOOKUP, TOO_SMALL, 41)]));
        // The table has no such columns.
        database.sql("CREATE TABLE others (id INTEGER NOT NULL PRIMARY KEY, ssn TEXT)");
        let table = ["--sql", &database.uri, "--table", "others", "--key", "id", "--field", "patient.ssn=ssn"];
        scan(&world, &table, 0);
    }
}

#[test]
fn a_check_of_the_policy_says_who_looks() {
    let world = world();
    world.write("schema.toml", "version = 1\n[tables.patients]\ncolumns = { ssn = \"G\", ssn_index = \"G\" }\n");
    let run = world.succeeds(&["policy", "check", "--policy", "policy.toml", "--schema", "schema.toml"]);
    let said = run.stdout_text().lines().filter(|line| line.contains("keyfold scan")).collect::<Vec<_>>();
    assert!(said.len() == 1 && said[0].starts_with("note: patients.ssn_index: "), "{}", run.stdout_text());
}
