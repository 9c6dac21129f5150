//! Documents inside of others: none goes unseen, in either direction.

use crate::{Lab, PROTECT};
use keyfold::ErrorKind;
use keyfold_documents::{Direction, UNMATCHED};
use serde_json::{Value, json};

fn policy(manifest: &str, header: &str) -> String {
    format!(
        r#"version = 1
[fields.name]
mode = "document"
paths = ["$.name"]
only_if = {{ "$.resourceType" = "Patient" }}
[fields.birth]
mode = "document"
paths = ["$.birthDate"]
only_if = {{ "$.resourceType" = "Patient" }}
[documents.bundle]
row_binding = "none"
root = "$.entry[*].resource"
only_if = {{ "$.resourceType" = "Bundle" }}
manifest = "{manifest}"
header = "{header}"
[documents.resource]
row_binding = "none"
manifest = "{manifest}"
header = "{header}"
"#
    )
}

fn bundle(resources: &[Value]) -> String {
    let entries: Vec<Value> = resources.iter().map(|resource| json!({ "resource": resource })).collect();
    json!({ "resourceType": "Bundle", "entry": entries }).to_string()
}

fn patient() -> Value {
    json!({ "resourceType": "Patient", "name": "N", "birthDate": "1970-01-01" })
}

#[test]
fn a_resource_that_no_field_covers_is_refused_or_counted() {
    let others = [
        json!({ "resourceType": "RelatedPerson", "name": "LEAKED" }),
        json!({ "resourceType": "Bundle", "entry": [{ "resource": patient() }] }),
    ];
    for (manifest, header) in [("required", "member"), ("required", "fhir-extension"), ("none", "member")] {
        for other in &others {
            let text = bundle(&[patient(), other.clone()]);
            let lab = Lab::new(&policy(manifest, header));
            lab.refuses(PROTECT, &text, ErrorKind::PolicyRefused, UNMATCHED);
            let lab = lab.passing_unmatched();
            let sealed = lab.returns(&text);
            assert_eq!(lab.run(PROTECT, &text).expect("passed").1.unmatched, 1);
            // It has a header where every document has: taking away that of a patient cannot make one of these.
            let is_marked = sealed.matches("kf1.05").count() == 2;
            assert_eq!(is_marked, manifest == "required", "{sealed}");
        }
        for other in [json!(["LEAKED"]), json!("LEAKED"), json!(7), Value::Null] {
            let lab = Lab::new(&policy(manifest, header)).passing_unmatched();
            lab.refuses(PROTECT, &bundle(&[patient(), other]), ErrorKind::InvalidInput, "no object");
        }
    }
    // A bundle without resources matches nothing, either.
    let lab = Lab::new(&policy("required", "member"));
    lab.refuses(PROTECT, r#"{"resourceType":"Bundle"}"#, ErrorKind::PolicyRefused, UNMATCHED);
}

#[test]
fn a_resource_that_lost_its_header_is_refused_whatever_it_says_to_be() {
    for header in ["member", "fhir-extension"] {
        for lab in [Lab::new(&policy("required", header)), Lab::new(&policy("required", header)).passing_unmatched()] {
            let sealed = lab.returns(&bundle(&[patient(), patient()]));
            let sealed: Value = serde_json::from_str(&sealed).expect("JSON");
            for (forged, kind) in [
                (json!({ "resourceType": "Basic" }), ErrorKind::PolicyRefused),
                (json!({ "resourceType": "Basic", "birthDate": "1900-01-01" }), ErrorKind::PolicyRefused),
                (json!({ "resourceType": "Patient" }), ErrorKind::PolicyRefused),
                (json!({ "resourceType": "Patient", "birthDate": "1900-01-01" }), ErrorKind::Malformed),
            ] {
                let mut bundle = sealed.clone();
                bundle["entry"][0]["resource"] = forged.clone();
                lab.refuses(Direction::Reveal, &bundle.to_string(), kind, "no header");
                lab.refuses(Direction::Reveal, &forged.to_string(), kind, "no header");
            }
        }
    }
}

/// Covers F-18.5-4.
#[test]
fn a_document_without_a_value_has_a_header() {
    let text = r#"{"resourceType":"Patient","active":true}"#;
    // Fields apply, and none selects anything: as it may have what the policy forgot, it passes on request only.
    Lab::new(&policy("required", "member")).refuses(PROTECT, text, ErrorKind::PolicyRefused, UNMATCHED);
    let lab = Lab::new(&policy("required", "member")).passing_unmatched();
    let sealed = lab.returns(text);
    assert!(sealed.contains("_keyfold"), "{sealed}");
    lab.refuses(Direction::Reveal, text, ErrorKind::PolicyRefused, "no header");
    let lab = Lab::new(&policy("none", "member"));
    lab.refuses(PROTECT, text, ErrorKind::PolicyRefused, UNMATCHED);
}

#[test]
fn a_value_that_holds_other_documents_is_refused() {
    let policy = policy("required", "member")
        + "[fields.all]\nrow_binding = \"none\"\npaths = [\"$.entry[*].resource\"]\nonly_if = { \"$.resourceType\" = \"Bundle\" }\n";
    let lab = Lab::new(&policy);
    lab.refuses(PROTECT, &bundle(&[patient()]), ErrorKind::PolicyRefused, "part of another");
}

const AROUND: &str = r#"[fields.url]
mode = "document"
paths = ["$.entry[*].request['url', 'etag']"]
only_if = { "$.resourceType" = "Bundle" }
[documents.around]
row_binding = "none"
only_if = { "$.resourceType" = "Bundle" }
"#;

#[test]
fn what_is_around_documents_can_be_a_document_itself() {
    let entry = |n: u8| json!({ "request": { "url": format!("Patient/{n}"), "etag": "1" }, "resource": patient() });
    let text = json!({ "resourceType": "Bundle", "entry": [entry(1), entry(2)] }).to_string();
    for header in ["member", "fhir-extension"] {
        let lab = Lab::new(&(policy("required", header) + AROUND));
        let sealed = lab.returns(&text);
        assert_eq!(sealed.matches("kf1.05").count(), 3, "{sealed}");
        let sealed: Value = serde_json::from_str(&sealed).expect("JSON");
        let urls = ["/entry/0/request/url", "/entry/0/request/etag", "/entry/1/request/url", "/entry/1/request/etag"];
        for (at, url) in urls.iter().enumerate() {
            for other in &urls[..at] {
                let mut swapped = sealed.clone();
                let taken = swapped.pointer(url).expect("it is there").clone();
                let there = std::mem::replace(swapped.pointer_mut(other).expect("it is there"), taken);
                *swapped.pointer_mut(url).expect("it is there") = there;
                lab.refuses(Direction::Reveal, &swapped.to_string(), ErrorKind::DecryptionFailed, "around");
            }
            let mut dropped = sealed.clone();
            let (parent, name) = url.rsplit_once('/').expect("a place");
            dropped.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object").remove(name);
            lab.refuses(Direction::Reveal, &dropped.to_string(), ErrorKind::DecryptionFailed, "around");
        }
        let mut reordered = sealed.clone();
        reordered["entry"].as_array_mut().expect("entries").reverse();
        lab.refuses(Direction::Reveal, &reordered.to_string(), ErrorKind::DecryptionFailed, "around");
        let mut bare = sealed.clone();
        let members = bare.as_object_mut().expect("an object");
        assert!(members.remove("_keyfold").or_else(|| members.remove("extension")).is_some());
        lab.refuses(Direction::Reveal, &bare.to_string(), ErrorKind::Malformed, "around");
        for entry in bare["entry"].as_array_mut().expect("entries") {
            entry.as_object_mut().expect("an object").remove("request");
        }
        lab.refuses(Direction::Reveal, &bare.to_string(), ErrorKind::PolicyRefused, "around");
    }
}

#[test]
fn what_would_be_too_large_to_be_revealed_is_refused() {
    let lab = Lab::new(&policy("required", "member"));
    let fits: Vec<Value> = (0..14_000).map(|_| patient()).collect();
    lab.returns(&bundle(&fits));
    // Three members more for each header.
    let more: Vec<Value> = (0..20_000).map(|_| patient()).collect();
    lab.refuses(PROTECT, &bundle(&more), ErrorKind::LimitExceeded, "too many values");
    for header in ["member", "fhir-extension"] {
        let lab = Lab::new(&policy("required", header));
        for depth in 115..127 {
            let mut deep = patient();
            deep["other"] = (3..depth).fold(json!([]), |inside, _| json!([inside]));
            let text = deep.to_string();
            if let Ok((sealed, _)) = lab.run(PROTECT, &text) {
                assert_eq!(lab.reveal(&sealed).expect("it is revealed").0, text, "{header}, {depth}");
            }
            // Where the root itself is deep in the line.
            let nested = (3..depth).fold(deep["name"].clone(), |inside, _| json!({ "a": inside }));
            let text =
                json!({ "resourceType": "Bundle", "entry": [{ "resource": patient() }], "x": nested }).to_string();
            if let Ok((sealed, _)) = lab.run(PROTECT, &text) {
                assert_eq!(lab.reveal(&sealed).expect("it is revealed").0, text, "{header}, {depth}");
            }
        }
    }
}
