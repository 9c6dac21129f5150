//! Documents of suite 05: what their values are bound to, and what a manifest adds (FORMAT.md §18, DESIGN F18).

use crate::common::lab::*;
use crate::common::{block_on, refused};
use keyfold::wire::{DocumentHeader, MANIFEST_LEN, MAX_BODIES};
use keyfold::{
    Beside, ColumnBytes, Context, DocumentBody, DocumentPolicy, DocumentToSeal, DocumentValue, Documents, Error,
    ErrorKind, FieldPolicy, KeyState, Keyring, KeyringConfig, ManifestRule, OpenedDocument, Padding, Policy, Result,
    RotationPolicy, RowBinding, Value, ValueType,
};
use std::collections::BTreeMap;

/// A document as it is stored: what an attacker has in his hands.
#[derive(Clone)]
struct Stored {
    header: DocumentHeader,
    bodies: Vec<(String, String, Vec<u8>)>,
    beside: Vec<(String, Vec<u8>)>,
    manifest: Option<[u8; MANIFEST_LEN]>,
}

/// The kinds `patient` (bound to its ID), `written` and `none` (the same with another rule for manifests), `loose` (not bound).
fn config(lab: &Lab) -> KeyringConfig {
    let mut policy = policy();
    for field in ["name", "birth", "address"] {
        policy.add(FieldPolicy::document(field)).unwrap();
    }
    policy.add(FieldPolicy { padding: Padding::Padme, ..FieldPolicy::document("padded") }).unwrap();
    policy.add(FieldPolicy { value_type: Some(ValueType::Integer), ..FieldPolicy::document("count") }).unwrap();
    let bound = RowBinding::Bound { column: None, path: Some("$.id".into()), segment: None };
    let patient = DocumentPolicy { row_binding: bound, ..DocumentPolicy::new("patient") };
    for (name, manifest) in
        [("patient", ManifestRule::Required), ("written", ManifestRule::Written), ("none", ManifestRule::None)]
    {
        policy.add_document(DocumentPolicy { name: name.into(), manifest, ..patient.clone() }).unwrap();
    }
    policy.add_document(DocumentPolicy::new("loose")).unwrap();
    KeyringConfig { policy, ..lab.config.clone() }
}

fn kind(ring: &Keyring, name: &str) -> Documents {
    ring.documents(name).unwrap().context(Context::new().with("tenant", "t1").unwrap())
}

/// Seals `values` (field, path, text) of the document `row`.
fn seal(documents: Documents, row: Option<&str>, values: &[(&str, &str, &str)], mrn: &str) -> Result<Stored> {
    let values: Vec<_> =
        values.iter().map(|&(field, path, text)| DocumentValue { field, path, value: Value::Text(text) }).collect();
    let beside = [Beside { path: "$['mrn']", sealed: mrn.as_bytes() }];
    let sealed = block_on(documents.sealer())?.seal(row.map(str::as_bytes), &values, &beside, 7)?;
    let bodies = values
        .iter()
        .enumerate()
        .map(|(i, value)| (value.field.to_owned(), value.path.to_owned(), sealed.bodies.bytes(i).to_vec()));
    Ok(Stored {
        header: sealed.header,
        bodies: bodies.collect(),
        beside: vec![("$['mrn']".into(), mrn.into())],
        manifest: sealed.manifest,
    })
}

fn open(documents: Documents, row: Option<&str>, stored: &Stored) -> Result<OpenedDocument> {
    let opener = block_on(documents.opener())?;
    block_on(opener.load_key(&stored.header))?;
    let bodies: Vec<_> = stored.bodies.iter().map(|(field, path, body)| DocumentBody { field, path, body }).collect();
    let beside: Vec<_> = stored.beside.iter().map(|(path, sealed)| Beside { path, sealed }).collect();
    opener.open(&stored.header, row.map(str::as_bytes), &bodies, &beside, stored.manifest.as_ref())
}

fn texts(opened: &OpenedDocument) -> Vec<String> {
    let text = |row| match opened.values().value(row) {
        Value::Text(text) => text.to_owned(),
        _ => panic!("another type"),
    };
    (0..opened.values().len()).map(text).collect()
}

const VALUES: [(&str, &str, &str); 5] = [
    ("name", "$['name'][0]['given'][0]", "Ada"),
    ("name", "$['name'][0]['given'][1]", "Ada"),
    ("name", "$['name'][1]['given'][0]", "Augusta"),
    ("birth", "$['birthDate']", "1815-12-10"),
    ("padded", "$['note']", "short"),
];

#[test]
fn a_document_costs_50_bytes_once_and_29_per_value() {
    let lab = Lab::new();
    let ring = lab.process_with(config(&lab));
    let paths: Vec<String> = (0..15).map(|i| format!("$['name'][{i}]")).collect();
    let values: Vec<_> = paths.iter().map(|path| ("name", path.as_str(), "value")).collect();
    let stored = seal(kind(&ring, "patient"), Some("p1"), &values, "m").unwrap();
    assert_eq!(stored.header.as_bytes().len(), 50);
    assert_eq!(stored.bodies.len(), 15);
    assert!(stored.bodies.iter().all(|(_, _, body)| body.len() == "value".len() + 29));
    assert_eq!(stored.manifest.unwrap().len(), 40);
    let opened = open(kind(&ring, "patient"), Some("p1"), &stored).unwrap();
    assert_eq!(texts(&opened), vec!["value"; 15]);
    assert_eq!(opened.sequence(), Some(7));
    assert!(opened.is_current() && !opened.is_compromised());
    // Nothing repeats: neither between values nor between documents.
    let again = seal(kind(&ring, "patient"), Some("p1"), &values, "m").unwrap();
    let mut all: Vec<_> = stored.bodies.iter().chain(&again.bodies).map(|(_, _, body)| &body[..]).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 30);
    assert_ne!(stored.header, again.header);
}

/// Every document that differs from `one` by one change of its protected values, with what each change is.
fn changes(one: &Stored, other: &Stored) -> Vec<(String, Stored, bool)> {
    let mut changed = Vec::new();
    let n = one.bodies.len();
    let mut put = |what: String, is_move: bool, change: &dyn Fn(&mut Stored)| {
        let mut stored = one.clone();
        change(&mut stored);
        changed.push((what, stored, is_move));
    };
    for i in 0..n {
        for j in 0..n {
            put(format!("{j} of the other document to {i}"), true, &|s| s.bodies[i].2.clone_from(&other.bodies[j].2));
            if i != j {
                put(format!("{i} copied to {j}"), true, &|s| s.bodies[j].2 = s.bodies[i].2.clone());
                // As where an array is put in another order: the paths stay, the bodies do not.
                put(format!("{i} and {j} swapped"), true, &|s| {
                    let body = s.bodies[i].2.clone();
                    s.bodies[i].2 = std::mem::replace(&mut s.bodies[j].2, body);
                });
            }
        }
        put(format!("{i} added at another place"), true, &|s| {
            let (field, _, body) = s.bodies[i].clone();
            s.bodies.push((field, "$['name'][9]".into(), body));
        });
        put(format!("{i} of the other document added"), true, &|s| {
            let (field, _, body) = other.bodies[i].clone();
            s.bodies.push((field, "$['name'][9]".into(), body));
        });
        put(format!("{i} moved to another place"), true, &|s| s.bodies[i].1 = "$['name'][9]".into());
        put(format!("{i} taken for another field"), true, &|s| s.bodies[i].0 = "address".into());
        put(format!("{i} deleted"), false, &|s| drop(s.bodies.remove(i)));
        put(format!("{i} and those before it deleted"), false, &|s| drop(s.bodies.drain(..=i)));
    }
    put("all of the other's bodies".into(), true, &|s| s.bodies.clone_from(&other.bodies));
    put("the other's header".into(), true, &|s| s.header = other.header);
    put("the other's manifest".into(), false, &|s| s.manifest = other.manifest);
    put("the other's identifier".into(), false, &|s| s.beside.clone_from(&other.beside));
    put("no identifier".into(), false, &|s| s.beside.clear());
    put("the identifier elsewhere".into(), false, &|s| s.beside[0].0 = "$['ref']".into());
    put("an identifier more".into(), false, &|s| s.beside.push(("$['ref']".into(), b"m".to_vec())));
    changed
}

// Failures C4, C8
#[test]
fn every_move_copy_and_deletion_is_refused_under_a_manifest_and_every_move_of_a_body_without() {
    let lab = Lab::new();
    let ring = lab.process_with(config(&lab));
    let of = |name: &str, row: &str| seal(kind(&ring, name), Some(row), &VALUES, &format!("mrn of {row}")).unwrap();
    for (name, has_manifest) in [("patient", true), ("written", true), ("none", false)] {
        let one = of(name, "p1");
        assert_eq!(one.manifest.is_some(), has_manifest);
        // Of another patient; and an older state of the same document.
        for other in [of(name, "p2"), of(name, "p1")] {
            assert_eq!(texts(&open(kind(&ring, name), Some("p1"), &one).unwrap()).len(), VALUES.len());
            for (what, stored, is_move) in changes(&one, &other) {
                // The paths of both documents are the same, so an identifier of the same row is no change.
                if stored.beside == one.beside
                    && (stored.bodies == one.bodies && stored.header == one.header && stored.manifest == one.manifest)
                {
                    continue;
                }
                let opened = open(kind(&ring, name), Some("p1"), &stored);
                if has_manifest || is_move {
                    assert_eq!(refused(opened, &what), ErrorKind::DecryptionFailed, "{name}: {what}");
                } else {
                    assert!(
                        opened.is_ok(),
                        "{name}: {what}: nothing detects it without a manifest, and FORMAT.md says so"
                    );
                }
            }
        }
        // Replay of a whole document is the stated exception; of another row it is none.
        let older = of(name, "p1");
        assert!(open(kind(&ring, name), Some("p1"), &older).is_ok());
        assert_eq!(refused(open(kind(&ring, name), Some("p2"), &older), "row"), ErrorKind::DecryptionFailed);
        // A version in the context detects it.
        let versioned = |v: &str| ring.documents(name).unwrap().context(Context::new().with("version", v).unwrap());
        let older = seal(versioned("1"), Some("p1"), &VALUES, "m").unwrap();
        assert_eq!(refused(open(versioned("2"), Some("p1"), &older), "version"), ErrorKind::DecryptionFailed);
    }
}

/// Covers F-18.3-1, F-18.5-3, F-18.7-3, F-18.7-6.
#[test]
fn a_manifest_that_was_taken_out_is_refused() {
    let lab = Lab::new();
    let ring = lab.process_with(config(&lab));
    let mut stored = seal(kind(&ring, "patient"), Some("p1"), &VALUES, "m").unwrap();
    stored.manifest = None;
    assert_eq!(refused(open(kind(&ring, "patient"), Some("p1"), &stored), "none"), ErrorKind::PolicyRefused);
    // Nor by a kind that requires none, as an attacker may choose: values that were sealed with a manifest do not open without.
    for name in ["written", "none"] {
        let mut stored = stored.clone();
        while !stored.bodies.is_empty() {
            let opened = open(kind(&ring, name), Some("p1"), &stored);
            assert_eq!(refused(opened, name), ErrorKind::DecryptionFailed);
            stored.bodies.pop();
        }
    }
    // The other way round: what has none gets none, and is no document of a kind that requires one.
    let mut without = seal(kind(&ring, "none"), Some("p1"), &VALUES, "m").unwrap();
    assert!(without.manifest.is_none());
    assert!(open(kind(&ring, "written"), Some("p1"), &without).is_ok());
    assert_eq!(refused(open(kind(&ring, "patient"), Some("p1"), &without), "none"), ErrorKind::PolicyRefused);
    let whole = seal(kind(&ring, "patient"), Some("p1"), &VALUES, "m").unwrap();
    without.manifest = whole.manifest;
    for name in ["patient", "written", "none"] {
        assert_eq!(refused(open(kind(&ring, name), Some("p1"), &without), name), ErrorKind::DecryptionFailed);
    }
    // With all of its values gone as well.
    stored.bodies.clear();
    assert_eq!(refused(open(kind(&ring, "patient"), Some("p1"), &stored), "empty"), ErrorKind::PolicyRefused);
    // A manifest is verified even where the policy writes none; and no bit of it is free.
    let whole = seal(kind(&ring, "patient"), Some("p1"), &VALUES, "m").unwrap();
    assert_eq!(open(kind(&ring, "none"), Some("p1"), &whole).unwrap().sequence(), Some(7));
    for bit in 0..MANIFEST_LEN * 8 {
        let mut stored = whole.clone();
        stored.manifest.as_mut().unwrap()[bit / 8] ^= 1 << (bit % 8);
        for name in ["patient", "none"] {
            assert_eq!(refused(open(kind(&ring, name), Some("p1"), &stored), "a bit"), ErrorKind::DecryptionFailed);
        }
    }
}

/// Covers F-18.7-2, F-18.7-4, F-18.7-7.
// Failure C2
#[test]
fn every_bit_of_header_and_bodies_counts() {
    let lab = Lab::new();
    let ring = lab.process_with(config(&lab));
    let whole = seal(kind(&ring, "none"), Some("p1"), &VALUES, "m").unwrap();
    for bit in 0..50 * 8 {
        let mut bytes = *whole.header.as_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let opened = DocumentHeader::parse(&bytes)
            .and_then(|header| open(kind(&ring, "none"), Some("p1"), &Stored { header, ..whole.clone() }));
        let expected: &[ErrorKind] = match bit / 8 {
            0 => &[ErrorKind::Malformed],
            1 => &[ErrorKind::Unsupported],
            2..26 => &[ErrorKind::NoMatchingKey],
            _ => &[ErrorKind::DecryptionFailed],
        };
        assert!(expected.contains(&refused(opened, "a bit")), "bit {bit}");
    }
    for value in 0..VALUES.len() {
        for bit in 0..whole.bodies[value].2.len() * 8 {
            let mut stored = whole.clone();
            stored.bodies[value].2[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(refused(open(kind(&ring, "none"), Some("p1"), &stored), "a bit"), ErrorKind::DecryptionFailed);
        }
        for len in 0..29 {
            let mut stored = whole.clone();
            stored.bodies[value].2.truncate(len);
            assert_eq!(refused(open(kind(&ring, "none"), Some("p1"), &stored), "short"), ErrorKind::Malformed);
        }
    }
}

#[test]
fn documents_stay_in_their_scope_context_and_key_class() {
    let lab = Lab::new();
    lab.add_scope("a", 10);
    lab.add_scope("b", 11);
    let ring = lab.process_with(config(&lab));
    let stored = seal(kind(&ring, "none").scope("a"), Some("p1"), &VALUES, "m").unwrap();
    assert!(open(kind(&ring, "none").scope("a"), Some("p1"), &stored).is_ok());
    for (what, documents) in [("another scope", kind(&ring, "none").scope("b")), ("no scope", kind(&ring, "none"))] {
        assert_eq!(refused(open(documents, Some("p1"), &stored), what), ErrorKind::WrongScope);
    }
    assert_eq!(refused(open(kind(&ring, "none").scope("c"), Some("p1"), &stored), "scope"), ErrorKind::NoMatchingKey);
    let bare = ring.documents("none").unwrap().scope("a");
    assert_eq!(refused(open(bare, Some("p1"), &stored), "context"), ErrorKind::DecryptionFailed);
    let mut bytes = *stored.header.as_bytes();
    bytes[2..26].copy_from_slice(ours(keyfold::KeyClass::Lookup, DEFAULT_PARTITION, LOOKUP).key_id().as_bytes());
    let header = DocumentHeader::parse(&bytes).unwrap();
    let of_lookup = Stored { header, ..stored.clone() };
    assert_eq!(refused(open(kind(&ring, "none").scope("a"), Some("p1"), &of_lookup), "class"), ErrorKind::WrongScope);
    // Key states and currency are those of fields.
    lab.store.plant(&record(&in_state(child_parts(data(DATA), root()), KeyState::Deactivated)));
    let ring = lab.process_with(config(&lab));
    assert_eq!(refused(seal(kind(&ring, "none"), Some("p1"), &VALUES, "m"), "no key seals"), ErrorKind::KeyState);
}

#[test]
fn an_older_key_opens_and_is_called_so_and_a_compromised_one_does_not() {
    let lab = Lab::new();
    let stored = seal(kind(&lab.process_with(config(&lab)), "none"), Some("p1"), &VALUES, "m").unwrap();
    let retired = in_state(child_parts(data(DATA), root()), KeyState::Deactivated);
    lab.store.plant(&record(&retired));
    lab.store.plant(&record(&child_parts(data(12), root())));
    let opened = open(kind(&lab.process_with(config(&lab)), "none"), Some("p1"), &stored).unwrap();
    assert!(!opened.is_current());
    lab.store.plant(&record(&in_state(retired, KeyState::Compromised)));
    let ring = lab.process_with(config(&lab));
    assert_eq!(refused(open(kind(&ring, "none"), Some("p1"), &stored), "compromised"), ErrorKind::KeyState);
    let ring = lab.process_with(KeyringConfig { open_compromised: true, ..config(&lab) });
    assert!(open(kind(&ring, "none"), Some("p1"), &stored).unwrap().is_compromised());
}

/// Covers F-18.1-2, F-18.4-1, F-18.4-2.
#[test]
fn what_is_no_document_is_refused() {
    let lab = Lab::new();
    let ring = lab.process_with(config(&lab));
    let kind_of = |name| kind(&ring, name);
    let text = |values: &[(&str, &str, &str)]| seal(kind_of("loose"), None, values, "m");
    assert_eq!(refused(text(&[("plain", "$['a']", "x")]), "a field of suite 01"), ErrorKind::PolicyRefused);
    assert_eq!(refused(text(&[("no such", "$['a']", "x")]), "no field"), ErrorKind::PolicyRefused);
    assert_eq!(refused(text(&[("count", "$['a']", "x")]), "another type"), ErrorKind::InvalidInput);
    assert_eq!(refused(text(&[("name", "$['a']", "x"), ("birth", "$['a']", "y")]), "twice"), ErrorKind::InvalidInput);
    assert_eq!(refused(text(&[("name", "$['mrn']", "x")]), "also beside"), ErrorKind::InvalidInput);
    assert_eq!(refused(text(&[("name", &"p".repeat(65_536), "x")]), "path"), ErrorKind::LimitExceeded);
    assert!(text(&[("name", &"p".repeat(65_535), "x")]).is_ok());
    assert_eq!(refused(seal(kind_of("loose"), Some("p1"), &VALUES, "m"), "a row"), ErrorKind::InvalidInput);
    assert_eq!(refused(seal(kind_of("patient"), None, &VALUES, "m"), "no row"), ErrorKind::InvalidInput);
    assert_eq!(refused(ring.documents("no such"), "no kind"), ErrorKind::PolicyRefused);
    // A field of documents has no values alone.
    assert_eq!(refused(encryptor(&ring, "name", None), "alone"), ErrorKind::PolicyRefused);
    assert_eq!(refused(decryptor(&ring, "name", None), "alone"), ErrorKind::PolicyRefused);
    // An empty document is one.
    let empty = seal(kind_of("loose"), None, &[], "m").unwrap();
    assert_eq!(open(kind_of("loose"), None, &empty).unwrap().values().len(), 0);
    let twice = Stored { bodies: vec![("name".into(), "$".into(), vec![0; 30]); 2], ..empty };
    assert_eq!(refused(open(kind_of("loose"), None, &twice), "twice"), ErrorKind::Malformed);
    // One value more than a document may have.
    let value = DocumentValue { field: "name", path: "", value: Value::Null };
    let sealer = block_on(kind_of("loose").sealer()).unwrap();
    let too_many = vec![value; MAX_BODIES + 1];
    assert_eq!(refused(sealer.seal(None, &too_many, &[], 0), "2^20 + 1"), ErrorKind::LimitExceeded);
    let opener = block_on(kind_of("loose").opener()).unwrap();
    let too_many = vec![DocumentBody { field: "name", path: "", body: &[] }; MAX_BODIES + 1];
    let opened = opener.open(&twice.header, None, &too_many, &[], None);
    assert_eq!(refused(opened, "2^20 + 1, reading"), ErrorKind::LimitExceeded);
    ring.close();
    assert_eq!(refused(sealer.seal(None, &[], &[], 0), "closed"), ErrorKind::Closed);
}

#[test]
fn documents_that_are_sealed_in_one_call_share_nothing_random() {
    let lab = Lab::new();
    let ring = lab.process_with(config(&lab));
    let of = |path, text| DocumentValue { field: "name", path, value: Value::Text(text) };
    let values = [[of("$['a']", "A"), of("$['b']", "B")], [of("$['a']", "A"), of("$['b']", "B")]];
    let document =
        |row: &'static str, values| DocumentToSeal { row: Some(row.as_bytes()), values, beside: &[], sequence: 1 };
    let documents = [document("p1", &values[0][..]), document("p2", &[]), document("p3", &values[1])];
    let sealer = block_on(kind(&ring, "patient").sealer()).unwrap();
    let sealed = sealer.seal_all(&documents).unwrap();
    let mut random: Vec<Vec<u8>> = Vec::new();
    for (document, sealed) in documents.iter().zip(&sealed) {
        random.push(sealed.header.as_bytes()[26..].to_vec());
        random.extend((0..sealed.bodies.len()).map(|row| sealed.bodies.bytes(row)[..12].to_vec()));
        let bodies: Vec<_> = document
            .values
            .iter()
            .enumerate()
            .map(|(row, value)| DocumentBody { field: value.field, path: value.path, body: sealed.bodies.bytes(row) })
            .collect();
        let opener = block_on(kind(&ring, "patient").opener()).unwrap();
        block_on(opener.load_key(&sealed.header)).unwrap();
        let opened = opener.open(&sealed.header, document.row, &bodies, &[], sealed.manifest.as_ref()).unwrap();
        assert_eq!(opened.values().len(), document.values.len());
    }
    let count = random.len();
    random.sort();
    random.dedup();
    assert_eq!((sealed.len(), count, random.len()), (3, 7, 7));
    // The error says which document it is.
    let unknown = [DocumentValue { field: "no such", ..values[0][0] }];
    let wrong = [documents[0], document("p2", &unknown), documents[2]];
    let failed = sealer.seal_all(&wrong).unwrap_err();
    assert_eq!((failed.row, failed.error.kind()), (Some(1), ErrorKind::PolicyRefused));
    let wrong = [documents[0], documents[1], document("", &values[1])];
    let failed = sealer.seal_all(&wrong).unwrap_err();
    assert_eq!((failed.row, failed.error.kind()), (Some(2), ErrorKind::InvalidInput));
}

#[test]
fn documents_are_sealed_in_parts_by_as_many_keys_as_it_takes() {
    let lab = Lab::new();
    let mut config = config(&lab);
    config.rotation = RotationPolicy { data_messages: Some(100), ..config.rotation };
    let ring = lab.process_with(config);
    let of = |n: usize| DocumentValue { field: "name", path: ["$['a']", "$['b']", "$['c']"][n], value: Value::Null };
    let values = [of(0), of(1), of(2)];
    let document = |n| DocumentToSeal { row: Some(b"p"), values: &values[..n], beside: &[], sequence: 1 };
    let documents: Vec<_> = (0..400).map(|n| document(n % 4)).collect();
    let sealer = block_on(kind(&ring, "patient").sealer()).unwrap();
    // At once they are too many, which is no document's fault.
    let failed = sealer.seal_all(&documents).unwrap_err();
    assert_eq!((failed.row, failed.error.kind()), (None, ErrorKind::LimitExceeded));
    let sealed = block_on(sealer.seal_parts(&documents)).unwrap();
    assert_eq!(sealed.len(), 400);
    let opener = block_on(kind(&ring, "patient").opener()).unwrap();
    let mut counts = BTreeMap::<_, usize>::new();
    for (document, sealed) in documents.iter().zip(&sealed) {
        *counts.entry(sealed.header.key_id()).or_default() += document.values.len();
        let body =
            |(row, value): (usize, &DocumentValue<'_>)| (value.path.to_owned(), sealed.bodies.bytes(row).to_vec());
        let bodies: Vec<_> = document.values.iter().enumerate().map(body).collect();
        let bodies: Vec<_> = bodies.iter().map(|(path, body)| DocumentBody { field: "name", path, body }).collect();
        block_on(opener.load_key(&sealed.header)).unwrap();
        opener.open(&sealed.header, document.row, &bodies, &[], sealed.manifest.as_ref()).unwrap();
    }
    assert!((6..10).contains(&counts.len()) && counts.values().all(|&count| count <= 100), "{counts:?}");
    // A document has one key, whatever it takes.
    let many: Vec<DocumentValue<'_>> = (0..101).map(|_| of(0)).collect();
    let failed = block_on(sealer.seal_parts(&[DocumentToSeal { values: &many, ..document(1) }])).unwrap_err();
    assert_eq!(failed.error.kind(), ErrorKind::LimitExceeded);
    assert!(failed.to_string().contains("101 of 100"), "{failed}");
    assert!(block_on(sealer.seal_parts(&[])).unwrap().is_empty());
    // One that no key may seal is named, and nothing is counted.
    let lab = Lab::new();
    let mut config = self::config(&lab);
    config.rotation = RotationPolicy { data_messages: Some(2), ..config.rotation };
    let sealer = block_on(kind(&lab.process_with(config), "patient").sealer()).unwrap();
    let failed = block_on(sealer.seal_parts(&[document(1), document(2), document(3)])).unwrap_err();
    assert_eq!((failed.row, failed.error.kind()), (Some(2), ErrorKind::LimitExceeded));
    assert_eq!(block_on(sealer.seal_parts(&[document(2)])).unwrap()[0].header.key_id(), data(DATA).key_id());
}

#[test]
fn policies_that_cannot_be_kept_are_refused() {
    let check = |field: FieldPolicy| Policy::new().add(field).map_err(|error: Error| error.kind());
    let document = FieldPolicy::document("f");
    assert_eq!(check(document.clone()), Ok(()));
    for wrong in [
        FieldPolicy { accepted_suites: vec![keyfold::wire::Suite::Field], ..document.clone() },
        FieldPolicy { accepted_suites: vec![keyfold::wire::Suite::Document], ..FieldPolicy::randomized("f") },
        FieldPolicy { unlinkable: true, ..document.clone() },
        FieldPolicy { keep_prefix: Some("P/".into()), ..document.clone() },
        FieldPolicy { row_binding: bound("f").row_binding, ..document },
    ] {
        assert_eq!(check(wrong), Err(ErrorKind::Configuration));
    }
    let mut policy = Policy::new();
    policy.add_document(DocumentPolicy::new("d")).unwrap();
    assert_eq!(refused(policy.add_document(DocumentPolicy::new("d")), "twice"), ErrorKind::Configuration);
    let required = DocumentPolicy { required_context: ["tenant".into()].into(), ..DocumentPolicy::new("r") };
    policy.add_document(required).unwrap();
    policy.add(FieldPolicy { required_context: ["site".into()].into(), ..FieldPolicy::document("f") }).unwrap();
    let lab = Lab::new();
    let ring = lab.process_with(KeyringConfig { policy, ..lab.config.clone() });
    let with = |name: &str, keys: &[&str]| {
        let context = keys.iter().fold(Context::new(), |context, key| context.with(key, "x").unwrap());
        block_on(ring.documents(name).unwrap().context(context).sealer())
    };
    assert!(with("r", &["tenant", "site"]).is_ok());
    assert_eq!(refused(with("r", &["site"]), "of the documents"), ErrorKind::PolicyRefused);
    assert_eq!(refused(with("d", &["tenant"]), "of a field"), ErrorKind::PolicyRefused);
}
