//! Protected documents that were changed: what is revealed is what was protected, with everything that was.

use crate::edit::{Edit, edit};
use crate::lab::{PROTECT, documents, ring};
use arbitrary::{Arbitrary, Unstructured};
use keyfold_documents::{Direction, DocumentCipher, DocumentText};
use serde_json::Value;
use std::sync::OnceLock;

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

const PATIENTS: [&str; 2] = [
    r#"{"id":"p1","name":[{"family":"Lovelace","given":["Ada","Augusta"]},{"family":"Byron"}],"birthDate":"1815-12-10","active":true}"#,
    r#"{"id":"p2","name":[{"family":"Hopper","given":["Grace"]}],"birthDate":"1906-12-09"}"#,
];

/// The places of the first one's values, and of the header.
const PLACES: [&str; 8] = [
    "/id",
    "/name/0/family",
    "/name/0/given/0",
    "/name/0/given/1",
    "/name/1/family",
    "/birthDate",
    "/_keyfold/document",
    "/_keyfold/manifest",
];

/// A change of a document that stays one.
#[derive(Arbitrary, Debug)]
enum Move {
    /// What stands at one place stands at another one as well, perhaps from the other document.
    Copy {
        from: u8,
        to: u8,
        other: bool,
    },
    Swap {
        a: u8,
        b: u8,
    },
    /// It is gone.
    Delete {
        place: u8,
    },
    /// A text in clear in its place.
    Clear {
        place: u8,
        text: String,
    },
    /// A member that nobody protects.
    Add {
        name: String,
        from: u8,
    },
    /// Bytes of the text at a place are others.
    Change {
        place: u8,
        edits: Vec<Edit>,
    },
    /// The names in another order.
    Reverse,
}

#[derive(Arbitrary, Debug)]
enum Attack {
    Bytes(Vec<Edit>),
    Values(Vec<Move>),
}

struct Lab {
    reveal: DocumentCipher<'static>,
    sealed: [Vec<u8>; 2],
}

/// Changes a document, and reveals it.
pub fn run(data: &[u8]) {
    static LAB: OnceLock<Lab> = OnceLock::new();
    let lab = LAB.get_or_init(|| {
        let ring = ring(POLICY);
        let [protect, reveal] = [PROTECT, Direction::Reveal].map(|way| documents(&ring, way).expect("a policy"));
        let seal = |text: &str| transform(&protect, text.as_bytes()).expect("it is protected");
        Lab { reveal, sealed: PATIENTS.map(seal) }
    });
    let Ok(attack) = Attack::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let changed = match &attack {
        Attack::Bytes(edits) => edit(&lab.sealed[0], edits, &lab.sealed),
        Attack::Values(moves) => {
            let [mut document, other] = lab.sealed.each_ref().map(|text| parse(text));
            moves.iter().for_each(|one| apply(&mut document, &other, one));
            document.to_string().into_bytes()
        }
    };
    let Some(opened) = transform(&lab.reveal, &changed) else {
        assert!(changed != lab.sealed[0], "what was protected is not revealed");
        return;
    };
    // The other document is one as well, if all of it was taken.
    let is_whole = |original: &str| {
        let (found, original) = (parse(&opened), parse(original.as_bytes()));
        PLACES[..6].iter().all(|place| found.pointer(place) == original.pointer(place))
    };
    assert!(PATIENTS.iter().any(|patient| is_whole(patient)), "{}", opened.escape_ascii());
}

fn transform(cipher: &DocumentCipher<'_>, text: &[u8]) -> Option<Vec<u8>> {
    let mut done = cipher.transform_all(&[DocumentText { content: text, line: 1 }]).ok()?;
    Some(done.texts.remove(0).to_vec())
}

fn parse(text: &[u8]) -> Value {
    serde_json::from_slice(text).expect("what is revealed is JSON")
}

fn apply(document: &mut Value, other: &Value, one: &Move) {
    let place = |index: u8| PLACES[usize::from(index) % PLACES.len()];
    let mut put = |at: u8, value: Option<Value>| {
        if let (Some(place), Some(value)) = (document.pointer_mut(place(at)), value) {
            *place = value;
        }
    };
    match one {
        Move::Copy { from, to, other: true } => put(*to, other.pointer(place(*from)).cloned()),
        Move::Clear { place, text } => put(*place, Some(text.as_str().into())),
        Move::Copy { from, to, other: false } => {
            let value = document.pointer(place(*from)).cloned();
            if let (Some(place), Some(value)) = (document.pointer_mut(place(*to)), value) {
                *place = value;
            }
        }
        Move::Swap { a, b } => {
            let values = [a, b].map(|at| document.pointer(place(*at)).cloned());
            for (at, value) in [b, a].into_iter().zip(values) {
                if let (Some(place), Some(value)) = (document.pointer_mut(place(*at)), value) {
                    *place = value;
                }
            }
        }
        Move::Delete { place: at } => {
            let (parent, name) = place(*at).rsplit_once('/').expect("a pointer");
            match document.pointer_mut(parent) {
                Some(Value::Object(members)) => drop(members.remove(name)),
                Some(Value::Array(items)) => drop(items.pop()),
                _ => {}
            }
        }
        Move::Add { name, from } => {
            let value = document.pointer(place(*from)).cloned().unwrap_or_default();
            if let Some(members) = document.as_object_mut()
                && !members.contains_key(name)
            {
                members.insert(name.clone(), value);
            }
        }
        Move::Change { place: at, edits } => {
            let text = document.pointer(place(*at)).and_then(Value::as_str).unwrap_or_default();
            let changed = edit(text.as_bytes(), edits, &[text.as_bytes().to_vec()]);
            if let (Some(place), Ok(text)) = (document.pointer_mut(place(*at)), String::from_utf8(changed)) {
                *place = text.into();
            }
        }
        Move::Reverse => {
            if let Some(names) = document.pointer_mut("/name").and_then(Value::as_array_mut) {
                names.reverse();
            }
        }
    }
}
