//! `keyfold policy`: what is classified has a rule that is strong enough, and what a change does to data is told.
//!
//! Over 500 lines: the two verbs are held against each other by the same policies.

use crate::common::{self, POLICY, STORAGE, USAGE, World, run};
use crate::tables::databases;
use serde_json::Value as Json;

const SCHEMA: &str = r#"version = 1
[tables.patients]
columns = { patient_id = "R", name = "A", ssn = "G" }
clear = ["note", "state"]

[documents.Patient]
paths = { "$.id" = "R", "$.name" = "A", "$.ssn" = "G" }
"#;

fn world() -> World {
    let world = World::new();
    world.write("schema.toml", SCHEMA);
    world
}

/// `policy check` with the exit code and the findings: name and place.
fn check(world: &World, arguments: &[&str], code: i32) -> Vec<(String, String)> {
    let run =
        world.run(&[&["policy", "check", "--policy", "policy.toml", "--json"], arguments].concat()).expect(code, &[]);
    let said = &run.json_lines()[0];
    assert_eq!(said["ok"], code == 0);
    let text = |finding: &Json, name: &str| finding[name].as_str().expect("a text").to_owned();
    let findings = said["findings"].as_array().expect("findings");
    findings.iter().map(|finding| (text(finding, "name"), text(finding, "place"))).collect()
}

fn pair(name: &str, place: &str) -> (String, String) {
    (name.to_owned(), place.to_owned())
}

#[test]
fn what_is_classified_has_a_rule() {
    let world = world();
    assert_eq!(check(&world, &["--schema", "schema.toml"], 0), []);
    // No key is needed.
    std::fs::rename(world.keys(), world.path("hidden")).expect("hidden");
    world.write(
        "schema.toml",
        SCHEMA.replace("ssn = \"G\"", "ssn = \"G\", mrn = \"H\"").replace("\"$.ssn\"", "\"$.contact[*].phone\""),
    );
    assert_eq!(
        check(&world, &["--schema", "schema.toml"], POLICY),
        [pair("no-rule", "patients.mrn"), pair("no-rule", "Patient $.contact[*].phone")]
    );
    world.write("schema.toml", SCHEMA.replace("name = \"A\"", "name = \"D\""));
    assert_eq!(check(&world, &["--schema", "schema.toml"], POLICY), [pair("other-class", "patients.name")]);
    world.write("schema.toml", SCHEMA.replace("name = \"A\"", "full = { identifier = \"A\", field = \"patient.name\" }, nick = { identifier = \"A\", field = \"patient.nick\" }"));
    assert_eq!(check(&world, &["--schema", "schema.toml"], POLICY), [pair("no-rule", "patients.nick")]);
    let text =
        world.run(&["policy", "check", "--policy", "policy.toml", "--schema", "schema.toml"]).expect(POLICY, &[]);
    assert!(text.stdout_text().contains("patients.nick: no-rule: (A) names: the policy has no field patient.nick"));
    world.write("schema.toml", "version = 1\n[tables.p]\ncolumn = {}\n");
    world.refuses(
        &["policy", "check", "--policy", "policy.toml", "--schema", "schema.toml"],
        POLICY,
        &["schema.toml: line 3"],
    );
    world.refuses(&["policy", "check", "--policy", "policy.toml", "--schema", "missing"], STORAGE, &["missing"]);
    world.refuses(&["policy", "check", "--policy", "policy.toml"], USAGE, &["--schema"]);
}

#[test]
fn a_rule_is_no_weaker_than_the_baseline() {
    let world = world();
    world.write("baseline.toml", common::POLICY_FILE);
    let arguments = ["--schema", "schema.toml", "--baseline", "baseline.toml"];
    assert_eq!(check(&world, &arguments, 0), []);
    for (from, to) in [
        (
            "identifier = \"G\"\nrow_binding = { column = \"patient_id\", path = \"$.id\" }",
            "identifier = \"G\"\nrow_binding = \"none\"",
        ),
        (
            "identifier = \"G\"\nrow_binding = { column = \"patient_id\", path = \"$.id\" }",
            "identifier = \"G\"\nmode = \"deterministic\"",
        ),
        ("identifier = \"G\"", "identifier = \"G\"\naccept = [\"01\", \"03\"]"),
        ("identifier = \"G\"", "identifier = \"G\"\nmigration = { until = \"2040-01-01\", phase = \"dual-write\" }"),
    ] {
        assert!(common::POLICY_FILE.contains(from));
        world.write("policy.toml", common::POLICY_FILE.replace(from, to));
        assert_eq!(
            check(&world, &arguments, POLICY),
            [pair("weaker", "patients.ssn"), pair("weaker", "Patient $.ssn")],
            "{to}"
        );
    }
    // A rule of another name and place is held to those of its class.
    world.write(
        "policy.toml",
        common::POLICY_FILE.replace("patient.ssn", "patient.number").replace("\"ssn\"", "\"number\"").replace(
            "identifier = \"G\"\nrow_binding = { column = \"patient_id\", path = \"$.id\" }",
            "identifier = \"G\"\nrow_binding = \"none\"",
        ),
    );
    world.write("schema.toml", "version = 1\n[tables.patients.columns]\nnumber = \"G\"\n");
    assert_eq!(check(&world, &arguments, POLICY), [pair("weaker", "patients.number")]);
    for (key, value) in [("padding", "32"), ("required_context", "[\"tenant\"]"), ("unlinkable", "true")] {
        world.write("policy.toml", common::POLICY_FILE);
        world.write("schema.toml", SCHEMA);
        world.write(
            "baseline.toml",
            common::POLICY_FILE.replace("identifier = \"G\"", &format!("identifier = \"G\"\n{key} = {value}")),
        );
        assert_eq!(check(&world, &arguments, POLICY).len(), 2, "{key}");
    }
}

#[test]
fn every_column_of_a_database_is_classified() {
    for database in databases() {
        let world = world();
        database.sql("CREATE TABLE patients (patient_id TEXT PRIMARY KEY, name TEXT, ssn TEXT, note TEXT, state TEXT)");
        let uri = database.uri.clone();
        assert_eq!(check(&world, &["--schema", "schema.toml", "--database", &uri], 0), []);
        database.sql("ALTER TABLE patients ADD COLUMN e_mail TEXT");
        database.sql("CREATE TABLE visits (id INTEGER PRIMARY KEY)");
        assert_eq!(
            check(&world, &["--schema", "schema.toml", "--database", &uri], POLICY),
            [pair("unclassified", "patients.e_mail"), pair("unclassified", "visits.id")]
        );
        // Without a schema, by the names; what they do not say, nobody has said.
        let guessed = pair("no-rule", "patients.e_mail");
        let unsaid = ["patients.state", "visits.id"].map(|place| pair("unclassified", place));
        let all: Vec<_> = std::iter::once(guessed.clone()).chain(unsaid).collect();
        assert_eq!(check(&world, &["--database", &uri], POLICY), all);
        assert_eq!(check(&world, &["--database", &uri, "--guess-only"], POLICY), [guessed]);
        database.sql("ALTER TABLE patients DROP COLUMN e_mail");
        assert_eq!(check(&world, &["--database", &uri, "--guess-only"], 0), []);
        let noted = world.run(&["policy", "check", "--policy", "policy.toml", "--database", &uri, "--guess-only"]);
        assert!(noted.stdout_text().contains("note: visits.id: its name says nothing"), "{}", noted.stdout_text());
    }
}

#[test]
fn a_table_of_identifiers_in_clear_does_not_pass_by_its_names() {
    for database in databases() {
        let world = world();
        let columns = ["name", "full_name", "url", "photo", "age", "vin", "ip", "county"];
        let declared: Vec<_> = columns.iter().map(|column| format!("{column} TEXT")).collect();
        database.sql(&format!("CREATE TABLE people ({})", declared.join(", ")));
        // A policy that names none of these columns.
        world.write(
            "other.toml",
            "version = 1\n[fields.\"device.serial\"]\nidentifier = \"M\"\nrow_binding = \"none\"\n",
        );
        let arguments =
            ["policy", "check", "--policy", "other.toml", "--json", "--guess-only", "--database", &database.uri];
        let run = world.run(&arguments).expect(POLICY, &[]);
        let findings = run.json_lines()[0]["findings"].as_array().expect("findings").clone();
        let places: Vec<_> = findings.iter().map(|finding| finding["place"].as_str().expect("a place")).collect();
        for column in columns {
            assert!(places.contains(&&*format!("people.{column}")), "{column}: {places:?}");
        }
    }
}

/// A policy of documents, with `section` as the rest of `[documents.patient]`.
fn documents(section: &str) -> String {
    format!(
        "version = 1\n[documents.patient]\nonly_if = {{ \"$.resourceType\" = \"Patient\" }}\n{section}\n\
         [fields.\"patient.name\"]\nidentifier = \"A\"\nmode = \"document\"\npaths = [\"$.name\"]\n"
    )
}

const STRONG: &str = "row_binding = \"$.id\"\nmanifest = \"required\"\nrequired_context = [\"tenant\"]";

#[test]
fn documents_are_no_weaker_than_the_baseline() {
    let world = world();
    world.write("schema.toml", "version = 1\n[documents.Patient]\nonly_if = { \"$.resourceType\" = \"Patient\" }\npaths = { \"$.name\" = \"A\" }\n");
    world.write("baseline.toml", documents(STRONG));
    let arguments = ["--schema", "schema.toml", "--baseline", "baseline.toml"];
    world.write("policy.toml", documents(STRONG));
    assert_eq!(check(&world, &arguments, 0), []);
    let (field, kind) = (pair("weaker", "Patient $.name"), pair("weaker", "documents patient"));
    for (from, to, expected) in [
        ("\"required\"", "\"written\"", vec![field.clone(), kind.clone()]),
        ("\"required\"", "\"none\"", vec![field.clone(), kind.clone()]),
        ("\"$.id\"", "\"none\"", vec![field.clone(), kind.clone()]),
        ("[\"tenant\"]", "[]", vec![kind.clone()]),
    ] {
        world.write("policy.toml", documents(&STRONG.replace(from, to)));
        assert_eq!(check(&world, &arguments, POLICY), expected, "{to}");
        let said = diff_of(&world, "baseline.toml", "policy.toml");
        assert!(said.iter().any(|(effect, _)| effect == "weaker"), "{to}: {said:?}");
    }
    // A section that is new may apply to what another one applied to.
    let new = format!("{}[documents.other]\nrow_binding = \"none\"\nmanifest = \"none\"\n", documents(STRONG));
    world.write("policy.toml", &new);
    let found = check(&world, &arguments, POLICY);
    assert!(found.contains(&pair("weaker", "documents other")), "{found:?}");
    let said = diff_of(&world, "baseline.toml", "policy.toml");
    assert!(
        said.iter().all(|(effect, what)| effect == "weaker" && what.contains("is new")) && said.len() == 3,
        "{said:?}"
    );
    world.run(&["policy", "diff", "baseline.toml", "policy.toml"]).expect(POLICY, &[]);
}

#[test]
fn a_field_that_is_named_for_a_path_leads_there() {
    let world = world();
    let named = |path: &str| {
        format!(
            "version = 1\n[documents.Patient.paths]\n\"{path}\" = {{ identifier = \"G\", field = \"patient.ssn\" }}\n"
        )
    };
    world.write("schema.toml", named("$.ssn"));
    assert_eq!(check(&world, &["--schema", "schema.toml"], 0), []);
    world.write("schema.toml", named("$.number"));
    assert_eq!(check(&world, &["--schema", "schema.toml"], POLICY), [pair("elsewhere", "Patient $.number")]);
    // No policy names columns of SQL tables: there it is the schema's word.
    world.write(
        "schema.toml",
        "version = 1\n[tables.p.columns]\nsealed = { identifier = \"G\", field = \"patient.ssn\" }\n",
    );
    assert_eq!(check(&world, &["--schema", "schema.toml"], 0), []);
    let run = world.run(&["policy", "check", "--policy", "policy.toml", "--schema", "schema.toml"]).expect(0, &[]);
    assert!(run.stdout_text().contains("note: p.sealed: that field patient.ssn holds it is the schema's word"));
}

/// The tokens of an index are no identifiers in clear.
#[test]
fn columns_of_indexes_are_known() {
    let indexed =
        "[fields.\"patient.ssn\".index.lookup]\nkind = \"digits\"\nbits = 63\nunique = true\ncolumn = \"ssn_index\"\n";
    for database in databases() {
        let world = world();
        database.sql("CREATE TABLE patients (patient_id TEXT PRIMARY KEY, name TEXT, ssn TEXT, ssn_index BIGINT, note TEXT, state TEXT)");
        let uri = database.uri.clone();
        // Without the index the same column is one.
        let finding = [pair("unclassified", "patients.ssn_index")];
        assert_eq!(check(&world, &["--schema", "schema.toml", "--database", &uri], POLICY), finding);
        assert_eq!(
            check(&world, &["--database", &uri, "--guess-only"], POLICY),
            [pair("no-rule", "patients.ssn_index")]
        );
        world.write("policy.toml", format!("{}{indexed}", common::POLICY_FILE));
        assert_eq!(check(&world, &["--schema", "schema.toml", "--database", &uri], 0), []);
        assert_eq!(check(&world, &["--database", &uri, "--guess-only"], 0), []);
        world.write(
            "schema.toml",
            SCHEMA
                .replace("ssn = \"G\"", "ssn = \"G\", ssn_index = \"G\"")
                .replace("\"$.ssn\"", "\"$.ssn_index\" = \"G\", \"$.ssn\""),
        );
        let arguments = ["--schema", "schema.toml", "--database", &uri];
        assert_eq!(check(&world, &arguments, 0), []);
        // What it is of has that rule, which a baseline may ask more of.
        world.write("baseline.toml", common::POLICY_FILE);
        let weaker = ["patients.ssn", "patients.ssn_index", "Patient $.ssn", "Patient $.ssn_index"];
        let found = check(&world, &[&arguments[..], &["--baseline", "baseline.toml"]].concat(), POLICY);
        assert_eq!(found, weaker.map(|place| pair("weaker", place)));
    }
}

/// What `index advise` refuses by its values, a policy refuses by what it knows of them.
#[test]
fn indexes_of_few_values_are_refused() {
    let world = world();
    let policy = |name: &str, field: &str, index: &str| {
        format!(
            "version = 1\n[fields.\"{name}\"]\nrow_binding = \"none\"\n{field}\n[fields.\"{name}\".index.i]\n{index}\n"
        )
    };
    let arguments = ["--schema", "schema.toml"];
    let (exact, year) = ("kind = \"exact\"\nbits = 8", "kind = \"date-part\"\npart = \"year\"\nbits = 4");
    for (name, field, index, place) in [
        ("patient.gender", "", exact, "field patient.gender"),
        ("a", "columns = [\"maritalStatus\"]", exact, "field a"),
        ("a", "paths = [\"$.race\"]", exact, "field a"),
        ("patient.birth", "", year, "field patient.birth"),
    ] {
        let classified = format!("version = 1\n[tables.p.columns]\nx = {{ identifier = \"R\", field = \"{name}\" }}\n");
        world.write("schema.toml", classified);
        world.write("policy.toml", policy(name, field, index));
        assert_eq!(check(&world, &arguments, POLICY), [pair("few-values", place)]);
        world.write("policy.toml", policy(name, field, &format!("{index}\nfew_values = true")));
        assert_eq!(check(&world, &arguments, 0), []);
    }
    world.write("schema.toml", "version = 1\n[tables.p.columns]\nx = { identifier = \"R\", field = \"a\" }\n");
    // Of full width in all but name; of two values whatever the name is.
    for (field, index, says) in [
        ("columns = [\"x\"]", "kind = \"exact\"\nbits = 62", "more than 24 bits"),
        ("columns = [\"x\"]", "kind = \"prefix\"\nlength = [3, 4]\nbits = 13", "more than 24 bits"),
        ("type = \"boolean\"\ncolumns = [\"x\"]", "kind = \"exact\"\nbits = 2", "few_values"),
        ("columns = [\"x\"]", "kind = \"exact\"\nbits = 63\nunique = true\nfew_values = true", "unique or few_values"),
    ] {
        world.write("policy.toml", policy("a", field, index));
        for command in [
            &["policy", "check", "--policy", "policy.toml", "--schema", "schema.toml"][..],
            &["protect", "in.csv", "--output", "x.csv"],
        ] {
            world.refuses(command, POLICY, &["policy.toml", says]);
        }
    }
    world.write("policy.toml", policy("a", "columns = [\"x\"]", "kind = \"exact\"\nbits = 24"));
    assert_eq!(check(&world, &arguments, 0), []);
}

#[test]
fn a_path_of_which_parts_have_rules_is_told_from_one_without() {
    let world = world();
    let policy = |paths: &str| {
        format!(
            "version = 1\n[fields.\"patient.name\"]\nidentifier = \"A\"\nrow_binding = \"none\"\npaths = [{paths}]\n"
        )
    };
    let schema = |paths: &str| format!("version = 1\n[documents.Patient]\npaths = {{ {paths} }}\n");
    let family = "\"$.name[*].family\", \"$.name[*].given[*]\"";
    let parts = |place: &str| vec![pair("in-parts", place)];
    for (policy_paths, schema_paths, found) in [
        (family, "\"$.name\" = \"A\"", parts("Patient $.name")),
        // All items of an array are all of it.
        (family, "\"$.name[*].given\" = \"A\"", vec![]),
        // A part may be of another class than the whole.
        (family, "\"$.name\" = \"B\"", parts("Patient $.name")),
        (family, "\"$.name\" = { identifier = \"A\", field = \"patient.name\" }", parts("Patient $.name")),
        (family, "\"$.name[*].family\" = \"A\", \"$.name[*].given[*]\" = \"A\"", vec![]),
        (family, "\"$.name[0].family\" = \"A\"", vec![]),
        (family, "\"$.name[*].text\" = \"A\"", vec![pair("no-rule", "Patient $.name[*].text")]),
        (family, "\"$.names\" = \"A\"", vec![pair("no-rule", "Patient $.names")]),
        ("\"$.name[*]['family', 'given']\"", "\"$.name[*].given\" = \"A\"", vec![]),
        ("\"$.name[?@.use == 'official'].family\"", "\"$.name[*].family\" = \"A\"", parts("Patient $.name[*].family")),
        ("\"$.name[?@.use == 'official']\"", "\"$.name[?@.use == 'official'].family\" = \"A\"", vec![]),
    ] {
        world.write("policy.toml", policy(policy_paths));
        world.write("schema.toml", schema(schema_paths));
        let code = if found.is_empty() { 0 } else { POLICY };
        assert_eq!(check(&world, &["--schema", "schema.toml"], code), found, "{policy_paths} {schema_paths}");
    }
    world.write("policy.toml", policy(family));
    world.write("schema.toml", schema("\"$.name\" = \"A\""));
    let text =
        world.run(&["policy", "check", "--policy", "policy.toml", "--schema", "schema.toml"]).expect(POLICY, &[]);
    let said = "of $.name there are rules for $.name[*].family, $.name[*].given[*] alone";
    assert!(
        text.stdout_text().contains(said) && !text.stdout_text().contains("nothing that is classified"),
        "{}",
        text.stdout_text()
    );
}

/// What `policy check --baseline` calls weaker, `policy diff` does as well: it is one comparison.
#[test]
fn diff_and_check_agree_on_what_is_weaker() {
    let world = world();
    let strong = "identifier = \"G\"\nunlinkable = true\nrequired_context = [\"tenant\"]\npadding = 32";
    let indexed = "\n[fields.\"patient.ssn\".index.lookup]\nkind = \"digits\"\nbits = 12\n";
    let ssn_end = "paths = [\"$.ssn\"]\n";
    let base = common::POLICY_FILE
        .replace("identifier = \"G\"", strong)
        .replace("version = 1", "version = 1\nrows = 1000000")
        .replace("[fields.\"patient.note\"]", "[fields.\"patient.note\".index.lookup]\nkind = \"exact\"\nbits = 4\n\n[fields.\"patient.note\"]\nidentifier = \"R\"");
    world.write("base.toml", &base);
    world.write("schema.toml", SCHEMA.replace("name = \"A\"", "name = \"A\", note = \"R\"").replace("\"note\", ", ""));
    let arguments = ["--schema", "schema.toml", "--baseline", "base.toml"];
    let binding = "row_binding = { column = \"patient_id\", path = \"$.id\" }\ncolumns = [\"ssn\"]";
    for (from, to, is_weaker) in [
        ("padding = 32", "padding = 32\naccept = [\"01\", \"03\"]", true),
        ("required_context = [\"tenant\"]", "", true),
        ("unlinkable = true", "", true),
        ("padding = 32", "padding = 32\nmigration = { until = \"2040-01-01\", phase = \"dual-write\" }", true),
        ("padding = 32", "padding = 16", true),
        ("padding = 32", "padding = 32\noptional = true", true),
        (ssn_end, &format!("{ssn_end}{indexed}"), true),
        (binding, "row_binding = \"none\"\ncolumns = [\"ssn\"]", true),
        ("rows = 1000000", "", true),
        ("padding = 32", "padding = 64", false),
        ("identifier = \"A\"", "identifier = \"A\"\nunlinkable = true", false),
        ("bits = 4", "bits = 3", false),
        ("rows = 1000000", "rows = 900000", false),
    ] {
        assert!(base.contains(from), "{from}");
        let new = base.replace(from, to);
        world.write("policy.toml", &new);
        let found = check(&world, &arguments, if is_weaker { POLICY } else { 0 });
        assert!(found.iter().all(|(name, _)| name == "weaker"), "{to}: {found:?}");
        let said = diff_of(&world, "base.toml", "policy.toml");
        assert_eq!(said.iter().any(|(effect, _)| effect == "weaker"), is_weaker, "{to}: {said:?}");
        assert!(!said.is_empty(), "{to}: something changes");
    }
}

/// A column or path that another field holds from now on is no place without a rule, but is held by a rule that may be weaker, and its values are bound to the name.
#[test]
fn a_place_that_another_field_holds_is_told() {
    let world = World::new();
    let moved = common::POLICY_FILE
        .replace("columns = [\"ssn\"]", "columns = []")
        .replace("columns = [\"note\"]", "columns = [\"note\", \"ssn\"]");
    let said = diff(&world, &moved, POLICY);
    let effects: Vec<_> = said.iter().map(|(effect, _)| effect.as_str()).collect();
    assert_eq!(effects, ["unreadable", "weaker"], "{said:?}");
    assert!(said[0].1.contains("column ssn") && said[0].1.contains("patient.note"), "{said:?}");
    assert!(said[1].1.contains("against patient.ssn"), "{said:?}");
}

/// A rule that gets wider leaves nothing in clear.
#[test]
fn a_wider_rule_is_no_loss_of_one() {
    let world = World::new();
    let policy = |rules: &str| format!("version = 1\n[fields.f]\nrow_binding = \"none\"\n{rules}\n");
    let told = |old: &str, new: &str, code: i32| {
        world.write("policy.toml", policy(old));
        diff(&world, &policy(new), code)
    };
    let effects = |said: &[(String, String)]| said.iter().map(|(effect, _)| effect.clone()).collect::<Vec<_>>();
    let sometimes = "paths = [\"$.ssn\"]\nonly_if = { \"$.t\" = \"P\" }";
    let always = "paths = [\"$.ssn\"]";
    assert_eq!(effects(&told(sometimes, always, 0)), ["seal"]);
    let narrower = told(always, sometimes, POLICY);
    assert_eq!(effects(&narrower), ["clear"], "{narrower:?}");
    for (old, new, found) in [
        ("$.name[*].given", "$.name[*]['family', 'given']", vec!["seal"]),
        ("$.name[*].family", "$.name", vec!["unreadable", "seal"]),
        ("$.name", "$.name[*]", vec!["unreadable"]),
        ("$.name", "$.name[*].family", vec!["clear"]),
        ("$.name", "$.names", vec!["clear", "seal"]),
    ] {
        let [before, after] = [old, new].map(|path| format!("paths = [\"{path}\"]"));
        let code = if found == ["seal"] { 0 } else { POLICY };
        let said = told(&before, &after, code);
        assert_eq!(effects(&said), found, "{old} {new}: {said:?}");
        assert_eq!(said.iter().any(|(_, what)| what.contains("no rule any more")), new == "$.names", "{said:?}");
    }
    let segments = |path: &str| format!("segments = [\"{path}\"]");
    assert_eq!(effects(&told(&segments("PID-5.1"), &segments("PID-5"), POLICY)), ["unreadable", "seal"]);

    // And so it is: under the wider policies nothing is in clear, and what is said not to open does not.
    world.write("in.ndjson", "{\"t\":\"P\",\"ssn\":\"Canáry7391\",\"name\":[{\"family\":\"Canáry7391\"}]}\n");
    for (old, new, opens) in
        [(sometimes, always, true), ("paths = [\"$.name[*].family\"]", "paths = [\"$.name\"]", false)]
    {
        world.write("policy.toml", policy(old));
        world.succeeds(&["protect", "in.ndjson", "--output", "old.ndjson", "--force"]);
        world.write("policy.toml", policy(new));
        let reveal = ["reveal", "old.ndjson", "--output", "out.ndjson", "--force"];
        assert_eq!(run(&mut world.command(&reveal), b"").code == Some(0), opens, "{new}");
        world.succeeds(&["protect", "in.ndjson", "--output", "new.ndjson", "--force"]);
        world.succeeds(&["scan", "--policy", "policy.toml", "new.ndjson"]);
    }
}

/// What files hold beside the values changes with the column of an index.
#[test]
fn another_column_of_an_index_is_told() {
    let world = World::new();
    let index = |column: &str, more: &str| {
        let index = format!("[fields.\"patient.note\".index.lookup]\nkind = \"exact\"\nbits = 4\n{column}{more}");
        format!("{}{index}", common::POLICY_FILE.replace("version = 1", "version = 1\nrows = 1000000"))
    };
    world.write("policy.toml", index("column = \"note_index\"\n", ""));
    for (column, more, effect, what) in [
        ("column = \"nidx\"\n", "", "unmatched", "note_index"),
        ("", "", "unmatched", "note_index"),
        ("column = \"note_index\"\n", "on_unindexable = \"skip\"\n", "note", "lookup"),
    ] {
        let said = diff(&world, &index(column, more), 0);
        assert!(said.len() == 1 && said[0].0 == effect && said[0].1.contains(what), "{said:?}");
    }
    let rows = |rows: &str| index("column = \"note_index\"\n", "").replace("rows = 1000000", rows);
    let said = diff(&world, &rows("rows = 500000"), 0);
    assert!(said.len() == 1 && said[0].0 == "note" && said[0].1.contains("500000"), "{said:?}");
    let said = diff(&world, &rows("rows = 2000000"), POLICY);
    assert!(said.iter().any(|(effect, what)| effect == "weaker" && what.contains("2000000")), "{said:?}");
    let said = diff(&world, &common::POLICY_FILE.replace("identifier = \"G\"", ""), 0);
    assert!(said.iter().any(|(_, what)| what == "identifier was G and is none"), "{said:?}");
}

#[test]
fn a_classification_of_nothing_fails() {
    let world = world();
    let empty = [pair("empty", "schema")];
    for schema in ["version = 1\n", "version = 1\n[tables.logs]\nclear = [\"line\"]\n"] {
        world.write("schema.toml", schema);
        assert_eq!(check(&world, &["--schema", "schema.toml"], POLICY), empty);
    }
    for database in databases() {
        database.sql("CREATE TABLE logs (line TEXT)");
        assert_eq!(check(&world, &["--database", &database.uri, "--guess-only"], POLICY), empty);
    }
    world.refuses(&["policy", "check", "--policy", "policy.toml"], USAGE, &["--schema", "--database"]);
}

/// Fields that nothing of the schema can be in, or that are optional, are one note.
#[test]
fn fields_without_a_place_in_the_schema_are_summed_up() {
    let world = world();
    let more =
        |name: &str, rules: &str| format!("[fields.{name}]\nidentifier = \"R\"\nrow_binding = \"none\"\n{rules}\n");
    let fields = [
        more("often", "columns = [\"often\"]"),
        more("rare", "columns = [\"rare\"]\noptional = true"),
        more("device", "paths = [\"$.serial\"]\nonly_if = { \"$.type\" = \"Device\" }"),
        more("hl7", "segments = [\"PID-5\"]"),
    ];
    world.write("policy.toml", format!("{}{}", common::POLICY_FILE, fields.concat()));
    let run = world.succeeds(&["policy", "check", "--policy", "policy.toml", "--schema", "schema.toml"]);
    let notes: Vec<_> = run.stdout_text().lines().filter(|line| line.contains("classified is held")).collect();
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(
        notes[0].contains("field often") && notes[1].contains("3 more fields") && notes[1].contains("--json"),
        "{notes:?}"
    );
    let run = world.succeeds(&["policy", "check", "--policy", "policy.toml", "--schema", "schema.toml", "--json"]);
    assert_eq!(run.json_lines()[0]["idle"], serde_json::json!(["device", "hl7", "often", "rare"]));
}

/// `policy diff` from the usual policy to `new`, with the exit code: effects and what is said.
fn diff(world: &World, new: &str, code: i32) -> Vec<(String, String)> {
    world.write("new.toml", new);
    world.run(&["policy", "diff", "policy.toml", "new.toml"]).expect(code, &[]);
    diff_of(world, "policy.toml", "new.toml")
}

/// `policy diff` between two files.
fn diff_of(world: &World, old: &str, new: &str) -> Vec<(String, String)> {
    let run = world.run(&["policy", "diff", old, new, "--json"]);
    let said = &run.json_lines()[0];
    assert_eq!(said["ok"], run.code == Some(0));
    let text = |change: &Json, name: &str| change[name].as_str().expect("a text").to_owned();
    said["changes"]
        .as_array()
        .expect("changes")
        .iter()
        .map(|change| (text(change, "effect"), text(change, "what")))
        .collect()
}

#[test]
fn what_a_change_does_to_data_is_told() {
    let world = World::new();
    let old = common::POLICY_FILE;
    assert_eq!(diff(&world, old, 0), []);
    assert_eq!(world.succeeds(&["policy", "diff", "policy.toml", "new.toml"]).stdout_text(), "nothing changes\n");
    for (from, to, code, effects) in [
        ("patient.ssn", "patient.number", POLICY, &["unreadable"][..]),
        ("[fields.\"patient.id\"]", "[fields.\"person.id\"]", 0, &["note"]),
        ("join_group = \"patient.id\"", "join_group = \"other\"", POLICY, &["unreadable", "weaker"]),
        ("mode = \"deterministic\"", "mode = \"deterministic\"\npartition = \"study\"", POLICY, &["unreadable"]),
        ("identifier = \"G\"", "identifier = \"G\"\nrequired_context = [\"tenant\"]", POLICY, &["unreadable"]),
        ("identifier = \"G\"", "identifier = \"H\"", 0, &["note"]),
        ("identifier = \"G\"", "identifier = \"G\"\npadding = 32", 0, &["reencrypt"]),
        (
            "identifier = \"G\"\nrow_binding = { column = \"patient_id\", path = \"$.id\" }",
            "identifier = \"G\"\nrow_binding = \"none\"",
            POLICY,
            &["unreadable", "weaker"],
        ),
        (
            "identifier = \"G\"\nrow_binding = { column = \"patient_id\", path = \"$.id\" }",
            "identifier = \"G\"\nrow_binding = { column = \"id\", path = \"$.id\" }",
            POLICY,
            &["unreadable", "weaker"],
        ),
        (
            "identifier = \"G\"\nrow_binding = { column = \"patient_id\", path = \"$.id\" }",
            "identifier = \"G\"\nmode = \"deterministic\"",
            POLICY,
            &["unreadable", "unreadable", "weaker"],
        ),
        (
            "identifier = \"G\"\nrow_binding = { column = \"patient_id\", path = \"$.id\" }",
            "identifier = \"G\"\nmode = \"deterministic\"\naccept = [\"01\", \"02\"]",
            POLICY,
            &["unreadable", "weaker", "reencrypt"],
        ),
        (
            "columns = [\"note\"]",
            "columns = [\"note\"]\nmode = \"deterministic\"\naccept = [\"01\", \"02\"]",
            POLICY,
            &["weaker", "reencrypt"],
        ),
        ("columns = [\"ssn\"]", "columns = []", POLICY, &["clear"]),
        ("columns = [\"note\"]", "columns = [\"note\", \"state\"]", 0, &["seal"]),
    ] {
        assert!(old.contains(from));
        let changes = diff(&world, &old.replace(from, to), code);
        let found: Vec<_> = changes.iter().map(|(effect, _)| effect.as_str()).collect();
        assert_eq!(found, effects, "{to}: {changes:?}");
    }
    let without = old.split("[fields.\"patient.note\"]").next().expect("a part");
    let effects: Vec<_> = diff(&world, without, POLICY).into_iter().map(|(effect, _)| effect).collect();
    assert_eq!(effects, ["unreadable", "clear", "clear"]);
    let text = world.run(&["policy", "diff", "policy.toml", "new.toml"]).expect(POLICY, &[]);
    assert!(text.stdout_text().ends_with("DATA WOULD BE LOST, IN CLEAR OR LESS GUARDED\n"));
}

#[test]
fn what_is_said_of_a_change_is_so() {
    // Protected under the old policy, revealed under the new one.
    let world = World::new();
    world.protect(&[]);
    let opens = |policy: &str| {
        world.write("new.toml", policy);
        let arguments = ["reveal", "--policy", "new.toml", "sealed.csv", "--output", "out.csv", "--force"];
        run(&mut world.command(&arguments), b"").code == Some(0)
    };
    let old = common::POLICY_FILE;
    let binding = "identifier = \"G\"\nrow_binding = { column = \"patient_id\", path = \"$.id\" }";
    for (from, to) in [
        ("patient.ssn", "patient.number"),
        ("[fields.\"patient.id\"]", "[fields.\"person.id\"]"),
        ("join_group = \"patient.id\"", "join_group = \"other\""),
        ("identifier = \"G\"", "identifier = \"G\"\npadding = 32"),
        (binding, "identifier = \"G\"\nrow_binding = \"none\""),
        (binding, "identifier = \"G\"\nmode = \"deterministic\""),
        (binding, "identifier = \"G\"\nmode = \"deterministic\"\naccept = [\"01\", \"02\"]"),
        ("columns = [\"note\"]", "columns = [\"note\"]\nmode = \"deterministic\"\naccept = [\"01\", \"02\"]"),
        ("identifier = \"G\"", "identifier = \"G\"\ntype = \"text\""),
    ] {
        assert!(old.contains(from));
        let new = old.replace(from, to);
        world.write("new.toml", &new);
        let said = diff_of(&world, "policy.toml", "new.toml");
        assert_eq!(opens(&new), said.iter().all(|(effect, _)| effect != "unreadable"), "{to}: {said:?}");
    }
}
