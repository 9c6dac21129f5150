//! Tokens of indexes beside protected values, and values that keep their format, in files.

use crate::common::{self, DATA, POLICY, World, contains};

const LOOKUP_POLICY: &str = r#"version = 1
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

[fields."patient.mrn"]
mode = "format-preserving"
format = "digits"
columns = ["mrn"]
paths = ["$.mrn"]
"#;

const CSV: &str = "id,ssn,name,mrn,state\r
1,111-22-3333,Canáry7391 Änne,123-4567,KS\r
2,111223333,\"Canáry7391, \"\"Bob\"\"\",765-4321,MO\r
3,,,000-0000,\"\"\r
4,,,,TX\r
";

fn world() -> World {
    let world = World::new();
    world.write("policy.toml", LOOKUP_POLICY);
    world.write("in.csv", CSV);
    world
}

/// One value among many that an index cannot take refuses all, or has no token and is counted: as the policy says, in every format.
#[test]
fn what_an_index_cannot_take_is_refused_or_counted() {
    let world = World::new();
    let policy = |rest: &str| {
        format!(
            "version = 1\nrows = 1000000\n[fields.phone]\ncolumns = [\"phone\"]\npaths = [\"$.phone\", \"$.more[*]\"]\n\
             [fields.phone.index.lookup]\nkind = \"phone\"\nbits = 6\ncolumn = \"phone_index\"\n{rest}\
             [fields.number]\ncolumns = [\"number\"]\npaths = [\"$.number\"]\n\
             [fields.number.index.lookup]\nkind = \"digits\"\nbits = 6\ncolumn = \"number_index\"\n{rest}"
        )
    };
    // The last one has nothing to find, which is no fault: an empty text.
    let good = "phone,number\n+1 555 010 4477,12\n,\n";
    let lines = "{\"phone\":\"+1 555 010 4477\",\"more\":[\"+1 555 010 4478\",\"none\"],\"number\":\"n/a\"}\n";
    let bad = [
        ("in.csv", "none,12", "\"phone\""),
        ("in.csv", "+1 555 010 4477,n/a", "\"number\""),
        ("in.ndjson", lines, "field "),
    ];
    for skip in ["", "on_unindexable = \"refuse\"\n", "on_unindexable = \"skip\"\n"] {
        world.write("policy.toml", policy(skip));
        world.write("in.csv", good);
        let run = world.succeeds(&["protect", "in.csv", "--output", "out.csv", "--force", "--json"]);
        assert_eq!(run.summary()["unindexed"], 0);
        for (file, row, says) in bad {
            let is_csv = file == "in.csv";
            let text = if is_csv { format!("{good}{row}\n") } else { row.to_owned() };
            world.write(file, &text);
            let protect = ["protect", file, "--output", &format!("sealed.{file}"), "--force", "--json"];
            if !skip.contains("skip") {
                let run = world.refuses(&protect, DATA, &[says]);
                assert!(!run.stderr.contains("none") && !run.stderr.contains("n/a"), "{}", run.stderr);
                continue;
            }
            let run = world.succeeds(&protect);
            assert_eq!(run.summary()["unindexed"], if is_csv { 1 } else { 2 }, "{file}");
            let said = world.succeeds(&protect[..5]);
            assert!(
                said.stderr.contains("values have no token, since their index cannot take them"),
                "{}",
                said.stderr
            );
            let sealed = world.text(&format!("sealed.{file}"));
            if is_csv {
                let cells: Vec<&str> = sealed.lines().nth(3).expect("a row").rsplitn(3, ',').collect();
                let [phone, number] = [cells[0], cells[1]].map(str::is_empty);
                assert_eq!([phone, number], [row.starts_with("none"), row.ends_with("n/a")], "{sealed}");
            }
            world.succeeds(&[
                "reveal",
                &format!("sealed.{file}"),
                "--output",
                "back",
                "--force",
                "--format",
                &file[3..],
            ]);
            assert_eq!(world.text("back"), text);
        }
    }
    world.write("policy.toml", policy("on_unindexable = \"maybe\"\n"));
    world.refuses(&["protect", "in.csv", "--output", "x.csv"], POLICY, &["policy.toml", "refuse"]);
}

/// Re-encrypting does not open what it leaves, and so makes no tokens: it says so of the indexes that the file has.
#[test]
fn reencrypt_says_which_tokens_it_leaves() {
    let world = world();
    world.write("in.ndjson", "{\"id\":\"1\",\"ssn\":\"111-22-3333\",\"name\":[\"Canáry7391\"],\"mrn\":\"123-4567\"}\n");
    let expected = ["patient.ssn index lookup", "patient.ssn index whole", "patient.name index start"];
    for file in ["csv", "ndjson"] {
        let (input, sealed, out) = (format!("in.{file}"), format!("sealed.{file}"), format!("out.{file}"));
        world.succeeds(&["protect", &input, "--output", &sealed]);
        let reencrypt = ["reencrypt", &sealed, "--output", &out, "--force"];
        let run = world.succeeds(&reencrypt);
        let said = "; tokens of indexes stay as they were, also those under an old look-up key: ";
        let told = run.stderr.split_once(said).expect("it is said").1;
        assert!(told.contains("reveal and protect the file"), "{}", run.stderr);
        assert!(expected.iter().all(|index| told.contains(index)), "{}", run.stderr);
        assert_eq!(told.matches(" index ").count(), expected.len(), "{}", run.stderr);
        let summary = world.succeeds(&[&reencrypt[..], &["--json"]].concat()).summary();
        assert_eq!(summary["left_tokens"].as_array().map(Vec::len), Some(expected.len()));
        let summary = world.succeeds(&["reveal", &sealed, "--output", &out, "--force", "--json"]).summary();
        assert_eq!(summary["left_tokens"], serde_json::json!([]));
        assert_eq!(summary["missing_tokens"], serde_json::json!([]));
    }
    // A column of tokens that was renamed is nobody's, and would go out with what was revealed.
    world.write("renamed.csv", world.text("sealed.csv").replacen("ssn_index", "idx", 1));
    let reveal = ["reveal", "renamed.csv", "--output", "out.csv", "--force"];
    let run = world.succeeds(&reveal);
    assert!(run.stderr.contains("; without tokens in \"ssn_index\", where the policy has"), "{}", run.stderr);
    let summary = world.succeeds(&[&reveal[..], &["--json"]].concat()).summary();
    assert_eq!(summary["missing_tokens"], serde_json::json!(["ssn_index"]));
    world.write("policy.toml", common::POLICY_FILE);
    world.write("in.csv", common::PATIENTS);
    world.succeeds(&["protect", "in.csv", "--output", "plain.csv"]);
    let run = world.succeeds(&["reencrypt", "plain.csv", "--output", "out.csv", "--force"]);
    assert!(!run.stderr.contains("tokens"), "{}", run.stderr);
}

/// A message has no place for tokens: nobody would notice that they are missing.
#[test]
fn indexes_of_messages_are_refused() {
    let world = World::new();
    let policy = |column: &str| {
        format!(
            "version = 1\nrows = 1000000\n[fields.name]\nsegments = [\"PID-5\"]\n\
             [fields.name.index.lookup]\nkind = \"case-folded\"\nbits = 6\n{column}"
        )
    };
    world.write("in.hl7", "MSH|^~\\&|A|B|C|D|||ADT^A01|1|P|2.5\rPID|1||7||Canáry7391\r");
    let protect = ["protect", "in.hl7", "--output", "sealed.hl7"];
    world.write("policy.toml", policy("column = \"name_index\"\n"));
    world.refuses(&protect, POLICY, &["field name", "no message has a place", "\"name_index\""]);
    world.write("policy.toml", policy(""));
    world.succeeds(&protect);
    // What was protected is revealed under either.
    world.write("policy.toml", policy("column = \"name_index\"\n"));
    world.succeeds(&["reveal", "sealed.hl7", "--output", "back.hl7"]);
    assert_eq!(world.text("back.hl7"), world.text("in.hl7"));
}

#[test]
fn columns_of_indexes_come_and_go() {
    let world = world();
    let run = world.succeeds(&["protect", "in.csv", "--output", "sealed.csv"]);
    assert!(run.stderr.contains("in clear: \"id\", \"state\"; not authenticated"), "{}", run.stderr);
    let sealed = world.text("sealed.csv");
    let mut lines = sealed.lines();
    assert_eq!(lines.next().unwrap_or_default(), "id,ssn,name,mrn,state,name_start,ssn_index,ssn_whole");
    let rows: Vec<&str> = lines.collect();
    let ends: Vec<(&str, &str, &str)> = rows
        .iter()
        .map(|row| {
            let (rest, whole) = row.rsplit_once(',').expect("a cell");
            let (rest, index) = rest.rsplit_once(',').expect("a cell");
            let start = rest.find("\"{").map_or("", |at| &rest[at..]);
            (index, whole, start)
        })
        .collect();
    // The digits are equal, the texts are not; what is empty has nothing to find but the fact that it is.
    assert!(ends[0].0.parse::<i64>().is_ok() && ends[0].0 == ends[1].0 && ends[0].1 != ends[1].1);
    assert!(ends[0].1.len() == 64 && ends[0].2.starts_with("\"{") && ends[0].2 == ends[1].2);
    assert_eq!((ends[2].0, ends[2].2), ("", ""));
    assert!(!sealed.contains("Canáry7391") && !sealed.contains("123-4567"));
    world.succeeds(&["reveal", "sealed.csv", "--output", "back.csv"]);
    assert_eq!(world.text("back.csv"), CSV);

    // A column of an index is dropped wherever it stands; one that is in the way is not overwritten.
    let moved: String = sealed
        .lines()
        .map(|line| {
            let cells: Vec<&str> = line.splitn(2, ',').collect();
            format!(
                "{},{},{}\n",
                if cells[0] == "id" { "ssn_index" } else { "7" },
                cells[0],
                cells[1].replace("ssn_index", "other")
            )
        })
        .collect();
    world.write("moved.csv", moved);
    world.succeeds(&["reveal", "moved.csv", "--output", "moved-back.csv"]);
    assert!(world.text("moved-back.csv").starts_with("id,ssn,name,mrn,state,other\n1,111-22-3333,"));
    world.write("in.csv", CSV.replace("state", "ssn_index"));
    world.refuses(&["protect", "in.csv", "--output", "x.csv"], POLICY, &["column 5", "index"]);
    world.write("in.csv", CSV.replace("state", "SSN_index"));
    world.refuses(&["protect", "in.csv", "--output", "x.csv"], POLICY, &["case or white space"]);
}

#[test]
fn that_nobody_checks_what_indexes_show_is_said() {
    let world = world();
    let run = world.succeeds(&["protect", "in.csv", "--output", "sealed.csv"]);
    assert!(!run.stderr.contains("WARNING"), "{}", run.stderr);
    world.write("policy.toml", LOOKUP_POLICY.replace("rows = 1000000\n", ""));
    let run = world.succeeds(&["protect", "in.csv", "--output", "sealed.csv", "--force"]);
    assert!(
        run.stderr.contains("WARNING") && run.stderr.contains("rows") && run.stderr.contains("patient.name"),
        "{}",
        run.stderr
    );
    // The ones of full width alone are said to be unique.
    assert!(!run.stderr.contains("show together: patient.name, patient.ssn"), "{}", run.stderr);
    let config = world.config();
    let doctor = ["doctor", "--json", "--config", common::argument(&config), "--policy", "policy.toml"];
    let doctor = world.run(&doctor);
    let doctor = doctor.stdout_text();
    assert!(
        doctor.contains("field patient.name: nobody checks")
            && doctor.contains("field patient.ssn: index lookup shows which rows are equal"),
        "{doctor}"
    );
}

#[test]
fn members_of_indexes_come_and_go() {
    let world = world();
    let lines = concat!(
        r#"{"id":"1","ssn":"111-22-3333","name":["Canáry7391"],"mrn":"123-4567"}"#,
        "\n",
        r#"  { "id" : "2", "ssn" : null, "name" : ["Canáry7391", "Änne"], "mrn": "7654321" }"#,
        "\n",
        r#"{"id":"3","ssn":"111223333"}"#,
        "\n"
    );
    world.write("in.ndjson", lines);
    world.succeeds(&["protect", "in.ndjson", "--output", "sealed.ndjson"]);
    let sealed: Vec<serde_json::Value> =
        world.text("sealed.ndjson").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(sealed[0]["ssn_index"].is_string() && sealed[0]["ssn_index"] == sealed[2]["ssn_index"], "63 bits");
    assert_eq!(sealed[0]["ssn_whole"].as_str().map(str::len), Some(64));
    assert!(sealed[1]["ssn_index"].is_null() && sealed[1].get("ssn_index").is_some());
    assert!((3..=4).contains(&sealed[1]["name_start"].as_array().map_or(0, Vec::len)));
    assert!(sealed[2].get("name_start").is_none());
    assert!(!contains(&world.read("sealed.ndjson"), "Canáry7391".as_bytes()));
    world.succeeds(&["reveal", "sealed.ndjson", "--output", "back.ndjson"]);
    assert_eq!(world.text("back.ndjson"), lines);

    world.write("in.ndjson", r#"{"id":"1","ssn":"1","ssn_index":7}"#);
    world.refuses(&["protect", "in.ndjson", "--output", "x.ndjson"], POLICY, &["ssn_index", "already"]);
}

#[test]
fn values_that_cannot_keep_their_format_are_refused() {
    let world = world();
    for (from, to, says) in
        [("123-4567", "12345", "row 1"), ("765-4321", "A765-4321", "row 2"), ("000-0000", "-", "row 3")]
    {
        world.write("in.csv", CSV.replace(from, to));
        world.refuses(&["protect", "in.csv", "--output", "x.csv"], DATA, &[says, "mrn"]);
    }
    world.write("in.ndjson", r#"{"id":"1","ssn":"1","name":[],"mrn":null}"#);
    world.refuses(&["protect", "in.ndjson", "--output", "x.ndjson"], DATA, &["line 1", "patient.mrn"]);
    // There is nothing to renew in such a value, and the tokens stay what they are.
    world.write("in.csv", CSV);
    world.succeeds(&["protect", "in.csv", "--output", "sealed.csv"]);
    world.succeeds(&["reencrypt", "sealed.csv", "--output", "again.csv"]);
    assert_eq!(world.read("again.csv"), world.read("sealed.csv"));
}

#[test]
fn policies_whose_columns_cannot_be_meant_are_refused() {
    let world = world();
    for (from, to, says) in [
        ("column = \"ssn_whole\"", "column = \"ssn_index\"", "same column"),
        ("column = \"name_start\"", "column = \"ssn_index\"", "two indexes"),
        ("column = \"name_start\"", "column = \"mrn\"", "a field's and an index's"),
        ("columns = [\"name\"]", "columns = [\"name\", \"state\"]", "several columns"),
        ("rows = 1000000", "rows = 1000", "12 bits, of which 1000 rows allow 6"),
        ("bits = 63\nunique = true", "bits = 63", "unique = true"),
        ("length = [3, 4]", "length = [3, 4]\nunique = true", "full width"),
    ] {
        world.write("policy.toml", LOOKUP_POLICY.replace(from, to));
        world.refuses(&["protect", "in.csv", "--output", "x.csv"], POLICY, &[says]);
    }
}
