//! Sealed values of suites 01, 02 and 03 that were changed: nothing opens but what was sealed.

use crate::edit::{Edit, edit};
use crate::memory::bounded;
use crate::world::{Opening, World, bytes, members, open_with};
use arbitrary::{Arbitrary, Unstructured};
use keyfold::aead::Backend;
use keyfold::wire::{Suite, from_text, push_text};
use keyfold::{Padding, Value, vectors};
use std::sync::OnceLock;

struct Sealed {
    opening: Opening,
    bytes: Vec<u8>,
    text: &'static str,
}

struct Lab {
    /// Its store has every key, but for a frame, which brings its own.
    worlds: [World; 2],
    values: Vec<Sealed>,
    /// What a writer has seen: the values, values of other fields and rows, key records.
    seen: Vec<Vec<u8>>,
}

#[derive(Arbitrary, Debug)]
struct Attack {
    value: u8,
    as_text: bool,
    edits: Vec<Edit>,
}

/// Opens a value after some changes.
pub fn run(data: &[u8]) {
    static LAB: OnceLock<Lab> = OnceLock::new();
    let lab = LAB.get_or_init(Lab::new);
    let Ok(attack) = Attack::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let index = usize::from(attack.value) % lab.values.len();
    let value = &lab.values[index];
    let changed = edit(&value.bytes, &attack.edits, &lab.seen);
    let changed = if attack.as_text { through_text(&changed) } else { Some(changed) };
    let Some(changed) = changed else { return };
    // A keyring of its own each time: after many refused frames one slows down.
    let world = &lab.worlds[usize::from(value.opening.accept.contains(&Suite::Frame))];
    let decryptor = value.opening.decryptor(world).expect("a keyring");
    let opened = bounded(changed.len(), 4, || open_with(&decryptor, &changed, value.opening.row.as_deref()));
    match opened {
        Ok((kind, found)) => {
            assert_eq!(changed, value.bytes, "another value was opened");
            assert_eq!((kind, &found[..]), ("text", value.text.as_bytes()));
        }
        Err(error) => assert_ne!(changed, value.bytes, "{error}"),
    }
}

/// What its text says, where it has one.
fn through_text(bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut text, mut back) = (Vec::new(), Vec::new());
    push_text(bytes, &mut text).ok()?;
    from_text(&text, &mut back).ok()?;
    assert_eq!(back, bytes);
    Some(back)
}

impl Lab {
    fn new() -> Self {
        let mut without = World::generated();
        let members = members();
        let find = |name: &str| members.iter().find(|member| member.name == name).expect("a member");
        let (data, root) = (find("data"), find("root-1"));
        for member in [data, root] {
            without.store.0.remove(&member.key.key_id());
        }
        let bound = |field: &str, accept| Opening {
            field: field.into(),
            row: Some(b"row-1".to_vec()),
            row_bound: true,
            accept,
            ..Opening::default()
        };
        let in_partition =
            |field: &str| Opening { field: field.into(), partition: Some("default".into()), ..Opening::default() };
        let frame = |value: &[u8]| {
            let each = |record: Vec<u8>| [&(record.len() as u16).to_be_bytes()[..], &record].concat();
            let records = [each(data.parts.to_bytes()), each(root.parts.to_bytes())].concat();
            [&data.key.header(Suite::Frame)[..], &(records.len() as u32).to_be_bytes(), &records, value].concat()
        };
        let field = seal_field(&bound("patient.ssn", vec![]), "123-45-6789");
        let framed = bound("patient.ssn", vec![Suite::Field, Suite::Frame]);
        let deterministic = in_partition("patient.mrn");
        let other = seal_field(&bound("patient.name", vec![]), "a longer value, elsewhere");
        let other_row = Opening { row: Some(b"row-2".to_vec()), ..bound("patient.ssn", vec![]) };
        let other_row = seal_field(&other_row, "999-99-9999");
        let other_mrn = seal_deterministic(&in_partition("patient.id"), "MRN-2");
        let values = vec![
            Sealed { opening: bound("patient.ssn", vec![]), bytes: field.clone(), text: "123-45-6789" },
            Sealed { bytes: seal_deterministic(&deterministic, "MRN-1"), opening: deterministic, text: "MRN-1" },
            Sealed { opening: framed, bytes: frame(&field), text: "123-45-6789" },
        ];
        let mut seen: Vec<Vec<u8>> = values.iter().map(|value| value.bytes.clone()).collect();
        seen.extend([frame(&other), other, other_row, other_mrn]);
        seen.extend(members.iter().map(|member| member.parts.to_bytes()));
        Self { worlds: [World::generated(), without], values, seen }
    }
}

fn seal_field(opening: &Opening, text: &'static str) -> Vec<u8> {
    let members = members();
    let key = members.iter().find(|member| member.name == "data").expect("a member").key;
    let encoded = vectors::encode(Value::Text(text), Padding::None).expect("a short text");
    let aad = vectors::aad(&key.header(Suite::Field), &opening.field, &opening.context(), opening.row.as_deref());
    key.seal_field(Backend::default(), &bytes(&format!("fuzz {text}")), &aad.expect("short"), &encoded)
        .expect("it seals")
}

fn seal_deterministic(opening: &Opening, text: &'static str) -> Vec<u8> {
    let members = members();
    let key = members.iter().find(|member| member.name == "lookup-default").expect("a member").key;
    let encoded = vectors::encode(Value::Text(text), Padding::None).expect("a short text");
    let strings = vectors::strings(&key.header(Suite::Deterministic), false, &opening.field, &opening.context());
    key.seal_deterministic(&strings.expect("short"), &encoded).expect("it seals")
}
