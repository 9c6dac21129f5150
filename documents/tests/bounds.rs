//! What a protected document costs after every truncation and every flipped bit, and what is revealed of it.

#[path = "../../core/tests/support/bounds.rs"]
mod bounds;
#[allow(dead_code, reason = "the tests of core use all of it")]
#[path = "../../core/tests/support/world.rs"]
mod world;

use bounds::{Change, every_change};
use keyfold::{Context, Policy};
use keyfold_documents::{Direction, DocumentCipher, DocumentError, DocumentOptions, DocumentText, FieldKeys};
use serde_json::Value;
use world::World;

const POLICY: &str = r#"version = 1
[fields.id]
mode = "deterministic"
row_binding = "none"
paths = ["$.id"]
[fields.name]
mode = "document"
paths = ["$.name[*].family", "$.name[*].given[*]"]
[fields.birth]
mode = "document"
paths = ["$.birthDate"]
[documents.patient]
row_binding = "$.id"
"#;
const PATIENT: &str =
    r#"{"id":"p1","name":[{"family":"Lovelace","given":["Ada"]}],"birthDate":"1815-12-10","active":true}"#;
const PLACES: [&str; 4] = ["/id", "/name/0/family", "/name/0/given/0", "/birthDate"];

fn transform(cipher: &DocumentCipher<'_>, text: &[u8]) -> Result<Vec<u8>, DocumentError> {
    let mut done = cipher.transform_all(&[DocumentText { content: text, line: 1 }])?;
    Ok(done.texts.remove(0).to_vec())
}

#[test]
fn no_change_of_a_document_costs_more_than_1_mib_and_50_ms_and_what_is_revealed_is_what_was_protected() {
    let mut policy = Policy::new();
    keyfold::config::add_policy(&mut policy, POLICY, "policy.toml").expect("a policy");
    let ring = World::generated().keyring(policy).expect("a keyring");
    let cipher = |direction| {
        let keys =
            FieldKeys { ring: &ring, direction, scope: Some("clinic-17"), context: Context::new(), tokens: None };
        DocumentCipher::new(&keys, DocumentOptions { pass_unmatched: false, many_lines: true }).expect("its keys")
    };
    let sealed = transform(&cipher(Direction::Protect { seal_sealed: false }), PATIENT.as_bytes()).expect("protected");
    let reveal = cipher(Direction::Reveal);
    assert_eq!(transform(&reveal, &sealed).expect("revealed"), PATIENT.as_bytes());
    let clear: Value = serde_json::from_str(PATIENT).expect("JSON");
    every_change(
        "protected JSON document",
        &sealed,
        |bytes| transform(&reveal, bytes),
        |change, _, revealed| {
            let Ok(revealed) = revealed else { return false };
            assert!(matches!(change, Change::Bit(_)), "{change}: revealed");
            // What nobody protects can be another one.
            let found: Value = serde_json::from_slice(&revealed).expect("JSON");
            assert!(PLACES.iter().all(|place| found.pointer(place) == clear.pointer(place)), "{change}: another value");
            true
        },
    );
}
