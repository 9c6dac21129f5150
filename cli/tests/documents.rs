//! Documents whose values are sealed together: back byte for byte, joinable, and with no value that can be moved, copied or dropped.

use crate::common::{DATA, KEY, POLICY, World, shared};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;

const POLICY_HEAD: &str = r#"version = 1

[fields."patient.id"]
mode = "deterministic"
join_group = "patient.id"
type = "text"
keep_prefix = "Patient/"
identifier = "R"
row_binding = "none"
paths = ["$.id", "$.subject.reference"]

[fields."patient.name"]
mode = "document"
identifier = "A"
paths = ["$.name[*].family", "$.name[*].given[*]"]
only_if = { "$.resourceType" = "Patient" }

[fields."patient.birth"]
mode = "document"
identifier = "C"
paths = ["$.birthDate"]
only_if = { "$.resourceType" = "Patient" }

[fields."patient.address"]
mode = "document"
identifier = "B"
padding = "padme"
paths = ["$.address"]
only_if = { "$.resourceType" = "Patient" }
"#;

fn policy(header: &str, manifest: &str) -> String {
    let section = |name: &str, more: &str| {
        format!(
            "\n[documents.{name}]\nrow_binding = \"$.id\"\nheader = \"{header}\"\nmanifest = \"{manifest}\"\n{more}"
        )
    };
    let bundle = section("bundle", "root = \"$.entry[*].resource\"\nonly_if = { \"$.resourceType\" = \"Bundle\" }\n");
    format!("{POLICY_HEAD}{}{bundle}", section("resource", ""))
}

fn patient(n: u8) -> String {
    format!(
        r#"{{"resourceType":"Patient","id":"Canáry7391-{n}", "name":[{{"family":"Canáry7391 F","given":["Canáry7391 A","Canáry7391 A"]}},{{"family":"Canáry7391 {n}"}}],"birthDate" : "190{n}-01-02","extension":[{{"url":"u","valueInteger":{n}}}],"address":[{{"line":["Canáry7391 str"],"n":1.50}}]}}"#
    )
}

/// As a program writes it for people.
fn pretty(n: u8) -> String {
    let value: Value = serde_json::from_str(&patient(n)).expect("JSON");
    serde_json::to_string_pretty(&value).expect("JSON") + "\n"
}

fn bundle() -> String {
    format!(
        "{{\"resourceType\":\"Bundle\",\n \"id\":\"Canáry7391 b\",\"entry\":[\n{{\"resource\":{} }},\n{{\"resource\" : {}}},{{\"resource\":{{\"resourceType\":\"Observation\",\"id\":\"Canáry7391 o\",\"subject\":{{\"reference\":\"Patient/Canáry7391-1\"}}}}}}]}}\n",
        patient(1),
        pretty(2)
    )
}

impl World {
    fn with(header: &str, manifest: &str) -> Self {
        let world = Self::new();
        world.write("documents.toml", policy(header, manifest));
        world
    }

    #[track_caller]
    fn seal(&self, name: &str, text: &str) -> String {
        self.write(name, text);
        self.succeeds(&["protect", name, "--output", "sealed", "--force", "--policy", "documents.toml"]);
        let sealed = self.text("sealed");
        assert!(!sealed.contains("ry7391"), "plaintext is left: {sealed}");
        sealed
    }

    fn reveal(name: &str) -> [&str; 7] {
        ["reveal", name, "--output", "out", "--force", "--policy", "documents.toml"]
    }
}

#[test]
fn documents_come_back_byte_for_byte_and_still_join() {
    for (header, manifest) in [("member", "required"), ("fhir-extension", "required"), ("member", "none")] {
        let world = World::with(header, manifest);
        let lines = format!("{}\n\n{}\r\n", patient(1), patient(2));
        for (name, text) in [("in.ndjson", lines), ("in.json", pretty(3)), ("bundle.json", bundle())] {
            let sealed = world.seal(name, &text);
            world.write(name, &sealed);
            world.succeeds(&World::reveal(name));
            assert_eq!(world.text("out"), text, "{header} {name}");
            if name == "in.json" {
                assert!(
                    sealed.lines().count() > 10 && sealed.lines().count() < text.lines().count(),
                    "one array became one value"
                );
            }
        }
        let sealed: Value = serde_json::from_str(&world.seal("bundle.json", &bundle())).expect("JSON");
        let [first, _, observation] = [0, 1, 2].map(|at| &sealed["entry"][at]["resource"]);
        let reference = observation["subject"]["reference"].as_str().expect("a text");
        assert_eq!(format!("Patient/{}", first["id"].as_str().expect("a text")), reference);
        // The Observation has no value of the document, but a manifest over its reference where there is one.
        assert_eq!(observation.get("_keyfold").is_some(), header == "member" && manifest == "required");
    }
}

#[test]
fn a_resource_of_a_bundle_is_a_document_by_itself() {
    let world = World::with("member", "required");
    let sealed: Value = serde_json::from_str(&world.seal("bundle.json", &bundle())).expect("JSON");
    world.write("alone.ndjson", sealed["entry"][0]["resource"].to_string() + "\n");
    world.succeeds(&World::reveal("alone.ndjson"));
    let back: Value = serde_json::from_str(&world.text("out")).expect("JSON");
    assert_eq!(back, serde_json::from_str::<Value>(&patient(1)).expect("JSON"));
}

/// The places of all protected values of a document, as JSON pointers.
const PLACES: [&str; 6] =
    ["/name/0/family", "/name/0/given/0", "/name/0/given/1", "/name/1/family", "/birthDate", "/address"];

/// Two documents with one protected value moved, copied or dropped, or an array put in another order.
fn changes(sealed: &[Value; 2]) -> Vec<(String, [Value; 2], bool)> {
    let mut changed = Vec::new();
    let mut put = |what: String, moves_body: bool, change: &dyn Fn(&mut [Value; 2])| {
        let mut documents = sealed.clone();
        change(&mut documents);
        changed.push((what, documents, moves_body));
    };
    let at = |documents: &[Value; 2], n: usize, place: &str| documents[n].pointer(place).expect("a value").clone();
    for (a, from) in (0..2).flat_map(|a| PLACES.map(|place| (a, place))) {
        for (b, to) in (0..2).flat_map(|b| PLACES.map(|place| (b, place))) {
            if (a, from) == (b, to) {
                continue;
            }
            put(format!("{a}{from} copied to {b}{to}"), true, &|d| {
                *d[b].pointer_mut(to).expect("a value") = at(sealed, a, from)
            });
            if (b, to) < (a, from) {
                continue;
            }
            put(format!("{a}{from} and {b}{to} swapped"), true, &|d| {
                *d[b].pointer_mut(to).expect("a value") = at(sealed, a, from);
                *d[a].pointer_mut(from).expect("a value") = at(sealed, b, to);
            });
        }
        put(format!("{a}{from} deleted"), false, &|d| {
            let (parent, name) = from.rsplit_once('/').expect("a pointer");
            match d[a].pointer_mut(parent) {
                Some(Value::Object(members)) => drop(members.remove(name)),
                Some(Value::Array(items)) => drop(items.pop()),
                _ => panic!("no parent"),
            }
        });
    }
    for a in 0..2 {
        put(format!("{a}: given names in another order"), true, &|d| {
            d[a].pointer_mut("/name/0/given").and_then(Value::as_array_mut).expect("a list").reverse();
        });
        put(format!("{a}: names in another order"), true, &|d| d[a]["name"].as_array_mut().expect("a list").reverse());
        put(format!("{a}: a name dropped"), false, &|d| drop(d[a]["name"].as_array_mut().expect("a list").pop()));
        put(format!("{a}: a name twice"), true, &|d| {
            let name = d[a]["name"][0].clone();
            d[a]["name"].as_array_mut().expect("a list").push(name);
        });
        put(format!("{a}: the other's identifier"), true, &|d| d[a]["id"] = sealed[1 - a]["id"].clone());
        put(format!("{a}: the other's header"), true, &|d| d[a]["_keyfold"] = sealed[1 - a]["_keyfold"].clone());
        put(format!("{a}: the identifier once more"), false, &|d| {
            d[a]["subject"] = serde_json::json!({ "reference": sealed[a]["id"] });
        });
    }
    changed
}

#[test]
fn every_change_of_protected_values_is_refused_under_a_manifest_and_every_move_of_a_body_without() {
    for manifest in ["required", "none"] {
        let world = World::with("member", manifest);
        let sealed = world.seal("in.ndjson", &format!("{}\n{}\n", patient(1), patient(2)));
        let documents: Vec<Value> = sealed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let sealed: [Value; 2] = documents.try_into().expect("two");
        let mut batch = String::new();
        let mut kept = 0;
        for (what, [one, two], moves_body) in changes(&sealed) {
            if manifest == "none" && !moves_body {
                // Not detected, and said so: collected into one file, which opens.
                batch.push_str(&format!("{one}\n{two}\n"));
                kept += 1;
                continue;
            }
            world.write("moved.ndjson", format!("{one}\n{two}\n"));
            let run = world.run(&World::reveal("moved.ndjson"));
            assert!(
                run.code == Some(KEY) && run.stderr.contains("DecryptionFailed"),
                "{manifest}: {what}: {}",
                run.stderr
            );
        }
        if kept > 0 {
            world.write("kept.ndjson", batch);
            world.succeeds(&World::reveal("kept.ndjson"));
        }
    }
}

#[test]
fn what_lacks_its_header_or_manifest_is_refused() {
    let world = World::with("member", "required");
    let sealed: Value = serde_json::from_str(&world.seal("in.ndjson", &(patient(1) + "\n"))).expect("JSON");
    let try_to = |change: &dyn Fn(&mut Value), code: i32, says: &[&str]| {
        let mut changed = sealed.clone();
        change(&mut changed);
        world.write("changed.ndjson", changed.to_string() + "\n");
        world.refuses(&World::reveal("changed.ndjson"), code, says);
    };
    let members = |value: &mut Value| value.as_object_mut().expect("an object").clone();
    try_to(
        &|d| drop(d["_keyfold"].as_object_mut().and_then(|m| m.remove("manifest"))),
        POLICY,
        &["PolicyRefused", "line 1, document resource"],
    );
    try_to(&|d| drop(d.as_object_mut().and_then(|m| m.remove("_keyfold"))), DATA, &["Malformed", "no header"]);
    try_to(
        &|d| {
            let kept = members(d).into_iter().filter(|(name, _)| ["resourceType", "id"].contains(&name.as_str()));
            *d = Value::Object(kept.collect());
        },
        POLICY,
        &["no manifest, which the policy requires"],
    );
    try_to(&|d| d["_keyfold"] = Value::Null, DATA, &["Malformed"]);
    try_to(&|d| d["_keyfold"]["document"] = "kf1.05".into(), DATA, &["Malformed"]);
    try_to(&|d| d["_keyfold"]["manifest"] = "AA".into(), DATA, &["Malformed"]);
    try_to(&|d| d["birthDate"] = "1900-01-01".into(), DATA, &["Malformed", "field patient.birth"]);
    try_to(&|d| d["birthDate"] = 5.into(), DATA, &["Malformed", "field patient.birth"]);
    // Replay of a whole document is the stated exception.
    let older = world.seal("in.ndjson", &(patient(1) + "\n"));
    world.seal("in.ndjson", &(patient(1) + "\n"));
    world.write("older.ndjson", older);
    world.succeeds(&World::reveal("older.ndjson"));
}

/// Which section applies hangs on a member in clear, so a section that requires no manifest must not help who takes it out.
#[test]
fn a_kind_that_requires_no_manifest_does_not_open_what_was_sealed_with_one() {
    let world = World::new();
    let lax = |manifest: &str| {
        format!(
            r#"version = 1
[documents.strict]
only_if = {{ "$.kind" = "strict" }}
row_binding = "none"
manifest = "required"
[documents.lax]
row_binding = "none"
manifest = "{manifest}"
[fields."p.x"]
mode = "document"
paths = ["$.x", "$.y"]
"#
        )
    };
    for manifest in ["none", "written"] {
        world.write("documents.toml", lax(manifest));
        let sealed: Value = serde_json::from_str(
            &world.seal("in.ndjson", "{\"kind\":\"strict\",\"x\":\"Canáry7391\",\"y\":\"Canáry7391\"}\n"),
        )
        .expect("JSON");
        let reveal = |change: &dyn Fn(&mut Value)| {
            let mut changed = sealed.clone();
            changed["kind"] = "other".into();
            change(&mut changed);
            world.write("changed.ndjson", changed.to_string() + "\n");
            world.run(&World::reveal("changed.ndjson"))
        };
        let manifest_out = |d: &mut Value| drop(d["_keyfold"].as_object_mut().and_then(|m| m.remove("manifest")));
        reveal(&manifest_out).expect(KEY, &["DecryptionFailed"]);
        let and_value = |d: &mut Value| {
            manifest_out(d);
            d.as_object_mut().and_then(|members| members.remove("y"));
        };
        reveal(&and_value).expect(KEY, &["DecryptionFailed"]);
        // By its manifest it still opens, and only whole.
        reveal(&|_| ()).expect(0, &[]);
        reveal(&|d| drop(d.as_object_mut().and_then(|m| m.remove("y")))).expect(KEY, &["DecryptionFailed"]);
    }
}

/// Covers F-18.6-3.
#[test]
fn what_cannot_be_protected_is_refused() {
    let world = World::with("member", "required");
    let sealed = world.seal("in.ndjson", &(patient(1) + "\n"));
    let protect = |name| ["protect", name, "--output", "out", "--force", "--policy", "documents.toml"];
    world.write("sealed.ndjson", &sealed);
    world.refuses(&protect("sealed.ndjson"), DATA, &["has a header already"]);
    let twice = protect("sealed.ndjson").into_iter().chain(["--seal-sealed"]).collect::<Vec<_>>();
    world.refuses(&twice, DATA, &["has a header already"]);
    for verb in ["reencrypt", "rebind"] {
        let run = match verb {
            "rebind" => {
                world.write("map.csv", "from,to\na,b\n");
                world.run(&[
                    "rebind",
                    "sealed.ndjson",
                    "--output",
                    "out",
                    "--map",
                    "map.csv",
                    "--policy",
                    "documents.toml",
                ])
            }
            _ => world.run(&["reencrypt", "sealed.ndjson", "--output", "out", "--policy", "documents.toml"]),
        };
        run.expect(POLICY, &["reveal the file and protect it again"]);
    }
    // Two kinds under as many conditions; a value where no document is; a column.
    let both = policy("member", "required") + "\n[documents.other]\nrow_binding = \"none\"\n";
    for (what, says) in [
        (both, "both apply"),
        (POLICY_HEAD.to_owned(), "no [documents] section"),
        (POLICY_HEAD.replace("paths = [\"$.birthDate\"]", "columns = [\"birth\"]"), "has paths, and no columns"),
        (policy("member", "sometimes"), "unknown variant"),
    ] {
        world.write("documents.toml", what);
        world.refuses(&protect("in.ndjson"), POLICY, &[says]);
    }
    let world = World::with("fhir-extension", "required");
    // Where it cannot be told from the document's own extensions, the header is a member.
    let sealed = world.seal("in.ndjson", &(patient(1).replace(r#"[{"url":"u","valueInteger":1}]"#, "[]") + "\n"));
    assert!(sealed.starts_with("{\"_keyfold\":"), "{sealed}");
}

#[test]
fn a_resource_of_a_bundle_that_no_field_covers_is_refused_and_told_by_scan() {
    let world = World::new();
    let unbound = policy("member", "required").replace("row_binding = \"$.id\"", "row_binding = \"none\"");
    world.write("documents.toml", unbound);
    let other = r#"{"resourceType":"RelatedPerson","name":"clear"}"#;
    world.write(
        "bundle.json",
        bundle().replace("},{\"resource\":{\"res", &format!("}},{{\"resource\":{other}}},{{\"resource\":{{\"res")),
    );
    let protect = ["protect", "bundle.json", "--output", "sealed.json", "--policy", "documents.toml"];
    let at = world.text("bundle.json").find(other).expect("the resource") + 1;
    let place = format!("line 1, byte {at}, document bundle, number 3 at $.entry[*].resource: no field of the policy");
    world.refuses(&protect, POLICY, &[&place, "--pass-unmatched"]);
    // So do other errors say which of the documents it is.
    let found = world.text("bundle.json");
    for (inside, code, place) in [
        (r#"{"resourceType":"Patient","birthDate":"kf1d.AAAA"}"#, POLICY, "line 1, byte"),
        (r#"{"_keyfold":{},"birthDate":"1"}"#, DATA, "the document at byte"),
    ] {
        world.write("other.json", found.replace(other, inside));
        let protect = ["protect", "other.json", "--output", "x", "--policy", "documents.toml"];
        world.refuses(&protect, code, &[&format!("{place} {at}")]);
    }
    let summary = world.succeeds(&[&protect[..], &["--pass-unmatched", "--json"]].concat()).summary();
    assert_eq!(summary["unmatched"], 1);
    let scan = ["scan", "sealed.json", "--policy", "documents.toml"];
    let run = world.run(&[&scan[..], &["--json"]].concat()).expect(DATA, &[]);
    assert_eq!(run.json_lines().remove(0)["unmatched"], 1);
    let run = world.succeeds(&[&scan[..], &["--pass-unmatched"]].concat());
    assert!(run.stdout_text().contains("selects anything in 1 document or message"));
    // It has a header as all of them, so that none can pass for one that never had.
    world.succeeds(&World::reveal("sealed.json"));
    assert_eq!(world.text("out"), world.text("bundle.json"));
}

#[test]
fn a_header_is_inspected_and_counted() {
    let world = World::with("member", "required");
    let sealed: Value = serde_json::from_str(&world.seal("in.ndjson", &(patient(1) + "\n"))).expect("JSON");
    let header = sealed["_keyfold"]["document"].as_str().expect("a text");
    assert!(world.succeeds(&["inspect", header]).stdout_text().contains("suite 05 (document), generation"));
    let body = sealed["birthDate"].as_str().expect("a text");
    assert!(world.run(&["inspect", body]).expect(DATA, &[]).stdout_text().contains("header of the document"));
    world.write("sealed.ndjson", sealed.to_string() + "\n");
    let counted = world.succeeds(&["census", "sealed.ndjson", "--json"]);
    let text = counted.stdout_text();
    assert!(text.contains("$._keyfold.document") && !text.contains("\"malformed\":1"), "{text}");
}

#[test]
fn patients_of_synthea_come_back_and_no_value_is_left() {
    let Some(input) = shared("data/synthea/Patient.ndjson") else { return };
    let world = World::with("fhir-extension", "required");
    let text = fs::read_to_string(&input).expect("the patients");
    world.write("in.ndjson", &text);
    world.succeeds(&["protect", "in.ndjson", "--output", "sealed.ndjson", "--policy", "documents.toml"]);
    world.succeeds(&World::reveal("sealed.ndjson"));
    assert!(world.text("out") == text, "not what it was");
    let sealed = world.text("sealed.ndjson");
    let names: BTreeSet<String> = text
        .lines()
        .flat_map(|line| {
            let patient: Value = serde_json::from_str(line).expect("JSON");
            [&patient["name"][0]["family"], &patient["birthDate"], &patient["id"]].map(|v| v.to_string())
        })
        .collect();
    for line in sealed.lines() {
        let patient: Value = serde_json::from_str(line).expect("JSON");
        for value in [&patient["name"][0]["family"], &patient["birthDate"], &patient["id"]] {
            assert!(!names.contains(&value.to_string()));
        }
    }
}
