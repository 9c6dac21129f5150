//! Every truncation and every flipped bit of each suite and of the key records of FORMAT.md: none is accepted, none costs more than 1 MiB
//! of memory beyond the input or more than 50 ms. What each of them is refused with stands in the tests of its suite; here are the bounds.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

#[path = "support/bounds.rs"]
mod bounds;
#[allow(dead_code, reason = "shared with the test of the vectors")]
#[path = "support/world.rs"]
mod world;

use bounds::every_change;
use keyfold::device::{Bundle, Protection};
use keyfold::testing::block_on;
use keyfold::wire::{DocumentHeader, MANIFEST_LEN, STREAM_HEADER_LEN, StreamHeader, Suite};
use keyfold::{
    Beside, ColumnBytes, DocumentBody, DocumentOpener, DocumentPolicy, DocumentValue, FieldPolicy, Policy, Record,
    Result, Secret, StreamOpener, Value, vectors,
};
use world::{Opening, World, members, open_with};

/// A scope with a key that seals. That of the keyring itself has keys in every state.
const SCOPE: &str = "clinic-17";

/// Hands every truncation and every flipped bit of `bytes` to `open`, which must refuse it.
fn all_refused(name: &str, bytes: &[u8], mut open: impl FnMut(&[u8]) -> Result<()>) {
    open(bytes).unwrap_or_else(|error| panic!("{name}, unchanged: {error}"));
    every_change(name, bytes, open, |change, _, result| {
        assert!(result.is_err(), "{name}, {change}: accepted");
        false
    });
}

fn bound(field: &str) -> Opening {
    Opening { field: field.into(), row: Some(b"row-1".to_vec()), row_bound: true, ..Opening::default() }
}

/// A text of `opening`'s field under the key `member`, in suite 01.
fn seal_field(member: &str, opening: &Opening) -> Vec<u8> {
    let key = members().into_iter().find(|m| m.name == member).unwrap().key;
    let aad =
        vectors::aad(&key.header(Suite::Field), &opening.field, &opening.context(), opening.row.as_deref()).unwrap();
    let encoded = vectors::encode(Value::Text("123-45-6789"), keyfold::Padding::None).unwrap();
    key.seal_field(keyfold::aead::Backend::default(), &world::bytes("exhaustive"), &aad, &encoded).unwrap()
}

fn seal_deterministic(opening: &Opening) -> Vec<u8> {
    let key = members().into_iter().find(|m| m.name == "lookup-default").unwrap().key;
    let header = key.header(Suite::Deterministic);
    let strings = vectors::strings(&header, false, &opening.field, &opening.context()).unwrap();
    let encoded = vectors::encode(Value::Text("123-45-6789"), keyfold::Padding::None).unwrap();
    key.seal_deterministic(&strings, &encoded).unwrap()
}

#[test]
fn suites_01_and_02_and_their_texts() {
    let world = World::generated();
    let deterministic =
        Opening { field: "patient.mrn".into(), partition: Some("default".into()), ..Opening::default() };
    let randomised = bound("patient.ssn");
    for (name, sealed, opening) in [
        ("suite 01", seal_field("data", &randomised), &randomised),
        ("suite 02", seal_deterministic(&deterministic), &deterministic),
    ] {
        let decryptor = opening.decryptor(&world).unwrap();
        let row = opening.row.as_deref();
        all_refused(name, &sealed, |bytes| open_with(&decryptor, bytes, row).map(drop));
        let mut text = Vec::new();
        keyfold::wire::push_text(&sealed, &mut text).unwrap();
        all_refused(&format!("{name}, as text"), &text, |text| {
            let mut bytes = Vec::new();
            keyfold::wire::from_text(text, &mut bytes)?;
            open_with(&decryptor, &bytes, row).map(drop)
        });
    }
}

#[test]
fn suite_03() {
    let members = members();
    let find = |name: &str| members.iter().find(|m| m.name == name).unwrap();
    let (data, root) = (find("data"), find("root-1"));
    let opening = Opening { accept: vec![Suite::Field, Suite::Frame], ..bound("patient.ssn") };
    let mut world = World::generated();
    for member in [data, root] {
        world.store.0.remove(&member.key.key_id());
    }
    let each = |record: Vec<u8>| [&(record.len() as u16).to_be_bytes()[..], &record].concat();
    let records = [each(data.parts.to_bytes()), each(root.parts.to_bytes())].concat();
    let head = [&data.key.header(Suite::Frame)[..], &(records.len() as u32).to_be_bytes()].concat();
    let frame = [head, records, seal_field("data", &opening)].concat();
    // A keyring of its own each time, so that nothing is in memory, and none slows down after refused frames.
    all_refused("suite 03", &frame, |bytes| opening.open(&world, bytes).map(drop));
}

/// Two chunks: a full one and a short one.
#[test]
fn suite_04() {
    let mut policy = Policy::new();
    policy.add(FieldPolicy::stream("image")).unwrap();
    let field = World::generated().keyring(policy).unwrap().field("image").unwrap().scope(SCOPE);
    let sealer = block_on(field.clone().stream_sealer()).unwrap();
    let opener = block_on(field.stream_opener()).unwrap();
    for (name, len) in [("suite 04, one chunk", 40), ("suite 04, two chunks", keyfold::wire::CHUNK_LEN + 10)] {
        let (mut stream, plaintext) = (sealer.begin(None).unwrap(), vec![0x5A; len]);
        let mut sealed = stream.header().as_bytes().to_vec();
        stream.update(&plaintext, &mut sealed).unwrap();
        stream.finish(&mut sealed).unwrap();
        all_refused(name, &sealed, |bytes| open_stream(&opener, bytes, &plaintext));
    }
}

fn open_stream(opener: &StreamOpener, sealed: &[u8], plaintext: &[u8]) -> Result<()> {
    let header = StreamHeader::parse(sealed)?;
    block_on(opener.load_key(&header))?;
    let mut stream = opener.begin(&header, None)?;
    let mut out = Vec::with_capacity(sealed.len());
    let opened = stream.update(&sealed[STREAM_HEADER_LEN..], &mut out).and_then(|()| stream.finish(&mut out));
    assert!(plaintext.starts_with(&out), "bytes that were not sealed there");
    opened
}

/// Header, body and manifest, each for itself.
#[test]
fn suite_05() {
    const PATH: &str = "$['name']";
    let mut policy = Policy::new();
    policy.add(FieldPolicy::document("name")).unwrap();
    policy.add_document(DocumentPolicy::new("patient")).unwrap();
    let documents = World::generated().keyring(policy).unwrap().documents("patient").unwrap().scope(SCOPE);
    let value = DocumentValue { field: "name", path: PATH, value: Value::Text("Lovelace") };
    let beside = [Beside { path: "$['mrn']", sealed: b"another value" }];
    let sealed = block_on(documents.clone().sealer()).unwrap().seal(None, &[value], &beside, 7).unwrap();
    let opener = block_on(documents.opener()).unwrap();
    let (header, body, manifest) = (sealed.header, sealed.bodies.bytes(0), sealed.manifest.unwrap());
    let open = |header: &DocumentHeader, body: &[u8], beside: &[u8], manifest: &[u8]| -> Result<()> {
        block_on(opener.load_key(header))?;
        let manifest: &[u8; MANIFEST_LEN] = manifest.try_into().map_err(|_| keyfold::ErrorKind::Malformed)?;
        let beside = [Beside { path: "$['mrn']", sealed: beside }];
        open_document(&opener, header, &DocumentBody { field: "name", path: PATH, body }, &beside, manifest)
    };
    let mrn = beside[0].sealed;
    all_refused("suite 05, header", header.as_bytes(), |bytes| {
        open(&DocumentHeader::parse(bytes)?, body, mrn, &manifest)
    });
    all_refused("suite 05, body", body, |bytes| open(&header, bytes, mrn, &manifest));
    all_refused("suite 05, manifest", &manifest, |bytes| open(&header, body, mrn, bytes));
    all_refused("suite 05, value of another suite", mrn, |bytes| open(&header, body, bytes, &manifest));
}

fn open_document(
    opener: &DocumentOpener,
    header: &DocumentHeader,
    body: &DocumentBody<'_>,
    beside: &[Beside<'_>],
    manifest: &[u8; MANIFEST_LEN],
) -> Result<()> {
    opener.open(header, None, &[*body], beside, Some(manifest)).map(drop)
}

/// The key of a scope for a device.
#[test]
fn key_bundles() {
    let transport_key = || Secret::with(|key: &mut [u8; 32]| key.fill(6));
    let ring = World::generated().keyring(Policy::new()).unwrap();
    let made = block_on(ring.provision_device(SCOPE, &transport_key(), Protection::TransportKey)).unwrap();
    all_refused("key bundle", &made.bundle, |bytes| {
        Bundle::parse(bytes)?.open(keyfold::aead::Backend::default(), &transport_key()).map(drop)
    });
}

/// Of a data key, its root, a key of a scope, a root that another one endorses, and one with parts that only later versions know.
#[test]
fn key_records() {
    for (changed, sealing, scope) in [
        ("data", "data", None),
        ("root-1", "data", None),
        ("clinic-18", "clinic-18", Some("clinic-18")),
        ("root-2", "clinic-18", Some("clinic-18")),
        ("clinic-19", "clinic-19", Some("clinic-19")),
    ] {
        let mut world = World::generated();
        let opening = Opening { scope: scope.map(str::to_owned), ..bound("patient.ssn") };
        let sealed = seal_field(sealing, &opening);
        let key_id = members().iter().find(|m| m.name == changed).unwrap().key.key_id();
        let record = world.store.0[&key_id].clone();
        all_refused(&format!("record of {changed}"), &record, |bytes| {
            // The store is asked for each: whatever it has of it.
            let parsed = Record::parse(bytes).map(drop);
            world.store.0.insert(key_id, bytes.to_vec());
            let opened = opening.open(&world, &sealed).map(drop);
            assert!(parsed.is_ok() || opened.is_err(), "a record that does not parse was used");
            opened
        });
    }
}
