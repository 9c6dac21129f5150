//! Protected values moved, copied, dropped or put in another order, within and between documents: wherever the header stands, in lines and
//! in bundles, with paths of every kind and with indexes.

use crate::Lab;
use keyfold::ErrorKind;
use serde_json::{Value, json};

fn policy(header: &str, manifest: &str) -> String {
    let documents = |name: &str, more: &str| {
        format!("[documents.{name}]\nrow_binding = \"$.id\"\nheader = \"{header}\"\nmanifest = \"{manifest}\"\n{more}")
    };
    let bundle = "root = \"$.entry[*].resource\"\nonly_if = { \"$.resourceType\" = \"Bundle\" }\n";
    format!(
        r#"version = 1
[fields.id]
mode = "deterministic"
join_group = "id"
type = "text"
keep_prefix = "Patient/"
row_binding = "none"
paths = ["$.id", "$.subject.reference"]
[fields.name]
mode = "document"
paths = ["$..family", "$.name[*].given[*]"]
only_if = {{ "$.resourceType" = "Patient" }}
[fields.name.index.lookup]
kind = "case-folded"
bits = 8
column = "name_index"
[fields.birth]
mode = "document"
paths = ["$['birthDate','deceasedDateTime']"]
only_if = {{ "$.resourceType" = "Patient" }}
[fields.extension]
mode = "document"
paths = ["$.extension[?@.url == 'u'].valueString"]
only_if = {{ "$.resourceType" = "Patient" }}
{}{}"#,
        documents("resource", ""),
        documents("bundle", bundle)
    )
}

fn patient(n: u8) -> Value {
    json!({
        "resourceType": "Patient", "id": format!("p{n}"), "name": [{ "family": format!("F{n}"), "given": ["A", "A"] }, { "family": "F" }],
        "birthDate": format!("190{n}-01-02"), "extension": [{ "url": "u", "valueString": "E" }],
    })
}

/// The places of all protected values of a document, as JSON pointers.
const PLACES: [&str; 6] = [
    "/name/0/family",
    "/name/0/given/0",
    "/name/0/given/1",
    "/name/1/family",
    "/birthDate",
    "/extension/0/valueString",
];

/// A change of two documents, and whether it moves or copies a body.
type Change = (String, [Value; 2], bool);

fn changes(sealed: &[Value; 2]) -> Vec<Change> {
    let mut changed = Vec::new();
    let mut put = |what: String, moves_body: bool, change: &dyn Fn(&mut [Value; 2])| {
        let mut documents = sealed.clone();
        change(&mut documents);
        changed.push((what, documents, moves_body));
    };
    let at = |n: usize, place: &str| sealed[n].pointer(place).expect("a value").clone();
    for (a, from) in (0..2).flat_map(|a| PLACES.map(|place| (a, place))) {
        for (b, to) in (0..2).flat_map(|b| PLACES.map(|place| (b, place))).filter(|to| *to != (a, from)) {
            put(format!("{a}{from} copied to {b}{to}"), true, &|d| {
                *d[b].pointer_mut(to).expect("a value") = at(a, from)
            });
            if (a, from) < (b, to) {
                put(format!("{a}{from} and {b}{to} swapped"), true, &|d| {
                    *d[b].pointer_mut(to).expect("a value") = at(a, from);
                    *d[a].pointer_mut(from).expect("a value") = at(b, to);
                });
            }
        }
        put(format!("{a}{from} deleted"), false, &|d| {
            let (parent, name) = from.rsplit_once('/').expect("a pointer");
            match d[a].pointer_mut(parent) {
                Some(Value::Object(members)) => drop(members.remove(name)),
                Some(Value::Array(items)) => drop(items.pop()),
                _ => panic!("no parent"),
            }
        });
        put(format!("{a}{from} once more, where another path leads"), true, &|d| {
            d[a]["more"] = json!({ "family": at(a, from) });
        });
    }
    for a in 0..2 {
        let list = |d: &mut [Value; 2], place: &str, change: &dyn Fn(&mut Vec<Value>)| {
            change(d[a].pointer_mut(place).and_then(Value::as_array_mut).expect("a list"));
        };
        put(format!("{a}: given names in another order"), true, &|d| {
            list(d, "/name/0/given", &|given| given.reverse())
        });
        put(format!("{a}: names in another order"), true, &|d| list(d, "/name", &|names| names.reverse()));
        put(format!("{a}: a name dropped"), false, &|d| list(d, "/name", &|names| drop(names.pop())));
        put(format!("{a}: a name twice"), true, &|d| list(d, "/name", &|names| names.push(names[0].clone())));
        put(format!("{a}: the other's identifier"), true, &|d| d[a]["id"] = sealed[1 - a]["id"].clone());
        put(format!("{a}: the identifier once more"), false, &|d| {
            d[a]["subject"] = json!({ "reference": sealed[a]["id"] })
        });
        put(format!("{a}: the other's header"), true, &|d| match d[a].get("_keyfold") {
            Some(_) => d[a]["_keyfold"] = sealed[1 - a]["_keyfold"].clone(),
            None => d[a]["extension"][1] = sealed[1 - a]["extension"][1].clone(),
        });
    }
    changed
}

#[test]
fn no_protected_value_can_be_moved() {
    for header in ["member", "fhir-extension"] {
        for manifest in ["required", "written", "none"] {
            let lab = Lab::new(&policy(header, manifest));
            let reveal = lab.cipher(keyfold_documents::Direction::Reveal).expect("a cipher");
            let of = |documents: &[Value; 2]| json!({ "resourceType": "Bundle", "entry": documents.clone().map(|resource| json!({ "resource": resource })) });
            for in_bundle in [false, true] {
                let documents = [patient(1), patient(2)];
                let sealed: [Value; 2] = if in_bundle {
                    let sealed: Value = serde_json::from_str(&lab.returns(&of(&documents).to_string())).expect("JSON");
                    [0, 1].map(|at| sealed["entry"][at]["resource"].clone())
                } else {
                    documents.map(|document| serde_json::from_str(&lab.returns(&document.to_string())).expect("JSON"))
                };
                assert!(sealed[0].get("name_index").is_some());
                for (what, changed, moves_body) in changes(&sealed) {
                    let texts = if in_bundle {
                        vec![of(&changed).to_string()]
                    } else {
                        changed.iter().map(Value::to_string).collect()
                    };
                    let revealed: Result<Vec<_>, _> = texts.iter().map(|text| crate::run(&reveal, text)).collect();
                    match revealed {
                        Err(error) => assert_eq!(
                            error.kind(),
                            ErrorKind::DecryptionFailed,
                            "{header} {manifest}: {what}: {error}"
                        ),
                        Ok(_) => assert!(manifest == "none" && !moves_body, "{header} {manifest} {in_bundle}: {what}"),
                    }
                }
            }
        }
    }
}
