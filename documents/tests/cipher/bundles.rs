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

#[test]
fn a_document_without_a_value_has_a_header() {
    let lab = Lab::new(&policy("required", "member"));
    let text = r#"{"resourceType":"Patient","active":true}"#;
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
