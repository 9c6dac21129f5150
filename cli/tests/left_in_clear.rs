//! Whatever the policy names is sealed, or nothing is written: typos, other shapes and other formats are refused.

use crate::common::{self, DATA, POLICY, USAGE, World};

const BINDING: &str = "row_binding = \"none\"\n";

/// Protects `content` under a policy with one field of the given lines, which must be refused with `says`.
fn refused(name: &str, content: &str, field: &str, code: i32, says: &[&str]) {
    let world = World::new();
    world.write("policy.toml", format!("version = 1\n[fields.\"patient.ssn\"]\n{BINDING}{field}\n"));
    world.write(name, content);
    world.refuses(&["protect", name, "--output", "out"], code, says);
}

#[test]
fn paths_that_select_nothing() {
    let line = "{\"id\":\"1\",\"ssn\":\"Canáry7391\"}\n";
    refused("in.ndjson", line, "paths = [\"$.ssm\"]", POLICY, &["line 1", "--pass-unmatched"]);
    refused("in.ndjson", line, "paths = [\"$.ssm\", \"$.SSN\"]", POLICY, &["line 1"]);
    // Some other field hides that this one selects nothing.
    let world = World::new();
    world.write(
        "policy.toml",
        format!("version = 1\n[fields.a]\npaths = [\"$.id\"]\n[fields.b]\n{BINDING}paths = [\"$.ssm\"]\n"),
    );
    world.write("in.ndjson", line.repeat(3));
    world.refuses(&["protect", "in.ndjson", "--output", "out"], POLICY, &["field b", "select nothing", "optional"]);
    // To a pipe the bytes are gone, but the exit code tells.
    world.write(
        "policy.toml",
        format!(
            "version = 1\n[fields.a]\npaths = [\"$.id\"]\n[fields.b]\n{BINDING}optional = true\npaths = [\"$.ssm\"]\n"
        ),
    );
    world.succeeds(&["protect", "in.ndjson", "--output", "out"]);
}

#[test]
fn documents_of_another_shape() {
    let people = "paths = [\"$.name[*].given[*]\"]";
    for (line, prefix) in [
        ("{\"name\":{\"given\":[\"Canáry7391\"]}}", "$.name "),
        ("{\"name\":[{\"given\":[\"A\"]},{\"given\":\"Canáry7391\"}]}", "$.name[*].given "),
        ("[{\"name\":\"Canáry7391\"}]", "$ "),
        ("\"Canáry7391\"", "$ "),
    ] {
        refused("in.ndjson", &format!("{line}\n"), people, DATA, &["line 1", "patient.ssn", prefix]);
    }
    let filter = "paths = ['''$.identifier[?@.system=='ssn'].value''']";
    let single = "{\"identifier\":{\"system\":\"ssn\",\"value\":\"Canáry7391\"}}\n";
    refused("in.ndjson", single, filter, DATA, &["line 1", "$.identifier "]);
}

#[test]
fn reveal_checks_the_shape_as_well() {
    let world = World::new();
    world.write("policy.toml", format!("version = 1\n[fields.a]\n{BINDING}paths = [\"$.name[*].family\"]\n"));
    world.write("forged.ndjson", "{\"name\":{\"family\":\"Canáry7391\"}}\n");
    world.refuses(&["reveal", "forged.ndjson", "--output", "out"], DATA, &["line 1", "$.name "]);
    world.write("forged.ndjson", "{\"other\":\"Canáry7391\"}\n");
    world.refuses(&["reveal", "forged.ndjson", "--output", "out"], POLICY, &["line 1", "--pass-unmatched"]);
}

#[test]
fn fields_of_the_other_format() {
    refused("in.ndjson", "{\"ssn\":\"Canáry7391\"}\n", "columns = [\"ssn\"]", POLICY, &["patient.ssn", "no paths"]);
    refused("in.csv", "ssn\nCanáry7391\n", "paths = [\"$.ssn\"]", POLICY, &["patient.ssn", "no columns"]);
}

#[test]
fn columns_that_are_almost_the_policy_s() {
    let optional = "optional = true\ncolumns = [\"ssn\"]";
    for header in ["id,SSN", "id, ssn", "id,ssn ,x", "\u{feff}\u{feff}ssn,id", "id,ssn,SSN"] {
        let content = format!("{header}\nCanáry7391{}\n", ",y".repeat(header.matches(',').count()));
        refused("in.csv", &content, optional, POLICY, &["header: column", "\"ssn\"", "stay in clear"]);
    }
    refused("in.csv", "id;ssn\n1;Canáry7391\n", optional, POLICY, &["none of the policy's columns"]);
    refused("in.csv", "sep=,\n1\n", optional, POLICY, &["none of the policy's columns"]);
}

#[test]
fn bindings_that_could_not_be_found_again() {
    let policy = |field: &str| format!("version = 1\n[fields.a]\n{field}\n");
    let world = World::new();
    let line = "{\"patient\":{\"id\":\"7\",\"name\":\"Canáry7391\"}}\n";
    world.write("in.ndjson", line);
    world.write("policy.toml", policy("row_binding = \"$.patient.id\"\npaths = [\"$.patient\"]"));
    world.refuses(&["protect", "in.ndjson", "--output", "out"], DATA, &["line 1"]);
    let line = "{\"ids\":[{\"type\":\"MR\",\"value\":\"7\"}]}\n";
    world.write("in.ndjson", line);
    let binding = "row_binding = '''$.ids[?@.type=='MR'].value'''\npaths = [\"$.ids[*].type\"]";
    world.write("policy.toml", policy(binding));
    world.refuses(&["protect", "in.ndjson", "--output", "out"], POLICY, &["line 1", "row binding"]);
}

#[test]
fn the_keyring_s_own_files_are_never_overwritten() {
    let world = World::new();
    let files = ["keys.db", "keys.db-journal", "local.kek", "keyfold.toml", "keys.high-water"];
    let own = files.iter().map(|file| common::argument(&world.keys().join(file)).to_owned());
    for own in own.chain(["policy.toml".to_owned()]) {
        let arguments = ["protect", "in.csv", "--output", &own, "--force"];
        world.refuses(&arguments, USAGE, &["never overwritten"]);
    }
}

#[test]
fn a_json_value_stays_one_value_on_one_line() {
    let json = "type = \"json\"\ncolumns = [\"v\"]\npaths = [\"$.v\"]";
    let two = "v\n\"1}\n{\"\"admin\"\":true\"\n";
    refused("in.csv", two, json, DATA, &["row 1", "not JSON"]);
    refused("in.csv", "v\n\"[1,\n2]\"\n", json, DATA, &["row 1", "not JSON on one line"]);
}

// Failure T9
#[test]
fn member_names_of_the_input_are_in_no_message() {
    let world = World::new();
    world.write(
        "policy.toml",
        "version = 1\n[fields.a]\npaths = [\"$.patients.*\"]\n[fields.b]\npaths = [\"$..ssn\"]\n",
    );
    world.write("in.ndjson", "{\"patients\":{\"Canáry7391\\u001b[2J\":{\"ssn\":1}}}\n");
    world.refuses(&["protect", "in.ndjson", "--output", "out"], DATA, &["line 1", "\"a\" and \"b\""]);
}
