//! The vectors of frames (FORMAT.md §14).
//!
//! Longer than other files: one function per group of cases of one vector file, all from the same frame.

use super::{Cases, File, Maker, Sample, damaged_at, field, flipped, head, hex, lookup, opening_json};
use crate::world::{ALIAS, ENVIRONMENT, Opening, bytes, kek, kek_id, kwp};
use keyfold::vectors::{Key, RecordParts, WrapParts};
use keyfold::wire::{KeyId, MAX_FRAME_RECORDS_LEN, Suite};
use keyfold::{KeyState, Padding, SlotId, Value};
use serde_json::{Value as Json, json};

/// A frame in parts, so that each can be changed alone.
#[derive(Clone)]
struct Parts {
    header: Vec<u8>,
    /// Stated in place of the true length.
    len: Option<u32>,
    records: Vec<Vec<u8>>,
    value: Vec<u8>,
}

impl Parts {
    fn new(value: &[u8], record: Vec<u8>, root: Vec<u8>) -> Self {
        let mut header = value[..26].to_vec();
        header[1] = Suite::Frame.id();
        Self { header, len: None, records: vec![record, root], value: value.to_vec() }
    }

    fn records(&self) -> Vec<u8> {
        let each = |record: &Vec<u8>| [&(record.len() as u16).to_be_bytes()[..], record].concat();
        self.records.iter().flat_map(each).collect()
    }

    fn bytes(&self) -> Vec<u8> {
        let records = self.records();
        let len = self.len.unwrap_or(records.len() as u32);
        [&self.header[..], &len.to_be_bytes(), &records, &self.value].concat()
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut parts = self.clone();
        change(&mut parts);
        parts
    }
}

fn framed(opening: Opening) -> Opening {
    let own = if opening.partition.is_some() { Suite::Deterministic } else { Suite::Field };
    Opening { accept: vec![own, Suite::Frame], ..opening }
}

fn local(bytes: Vec<u8>) -> WrapParts {
    WrapParts { kind: 2, alias: ALIAS.into(), version: kek_id(&kek()), bytes }
}

/// Everything that the cases are made of.
struct Frames<'a> {
    make: &'a Maker,
    cases: Cases,
}

impl Frames<'_> {
    fn id(&self, name: &str) -> KeyId {
        self.make.key(name).key_id()
    }

    fn record(&self, name: &str) -> Vec<u8> {
        self.make.member(name).parts.to_bytes()
    }

    fn edited(&self, name: &str, change: impl FnOnce(&mut RecordParts<'static>)) -> Vec<u8> {
        let mut parts = self.make.member(name).parts.clone();
        change(&mut parts);
        parts.to_bytes()
    }

    fn put(&mut self, note: &str, expect: &str, opening: &Opening, missing: &[KeyId], frame: &[u8], more: Json) {
        let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
        let mut case =
            json!({ "open": opening_json(opening), "sealed": hex(frame), "missing": missing, "expect": expect });
        case.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        self.cases.push(note, case);
    }

    /// A text of the member `key` in a frame, and what a reader gets.
    fn sample(&self, key: &'static str, opening: &Opening) -> (Parts, Json) {
        let sample = Sample { key, opening: opening.clone(), value: Value::Text("framed"), padding: Padding::None };
        let (value, json) = self.make.seal(&format!("frame {key} {}", opening.field), &sample);
        let root = self.make.members.iter().find(|m| m.key.key_id() == self.make.member(key).parts.root.key_id());
        let root = root.expect("the root is a member").parts.to_bytes();
        let opened = json!({ "type": json["type"], "value": json["value"], "key_id": json["key_id"] });
        (Parts::new(&value, self.record(key), root), opened)
    }
}

pub(super) fn file(make: &Maker) -> File {
    let mut frames = Frames { make, cases: Cases("frame", Vec::new()) };
    let plain = framed(field("patient.ssn", &[("tenant", "t1")], Some("row-1")));
    let (parts, opened) = frames.sample("data", &plain);
    let missing = [frames.id("data"), frames.id("root-1")];
    what_opens(&mut frames, &plain, &parts, &opened, &missing);
    policies(&mut frames, &plain, &parts, &missing);
    layouts(&mut frames, &plain, &parts, &missing);
    stores(&mut frames, &plain, &parts, &missing);
    records(&mut frames, &plain, &parts, &missing);
    roots(&mut frames, &plain, &parts, &missing);
    ("frame.json", head("frames: the store does not have the records of the keys in `missing`"), frames.cases.1)
}

fn what_opens(frames: &mut Frames<'_>, plain: &Opening, parts: &Parts, opened: &Json, missing: &[KeyId]) {
    let frame = parts.bytes();
    frames.put("the store has neither key nor root", "ok", plain, missing, &frame, opened.clone());
    frames.put("the store has the root", "ok", plain, &missing[..1], &frame, opened.clone());
    frames.put(
        "the store has the key, not the root: as without a frame",
        "RecordRejected",
        plain,
        &missing[1..],
        &frame,
        json!({}),
    );
    frames.put("the store has both", "ok", plain, &[], &frame, opened.clone());
    let empty = parts.with(|p| p.records = vec![vec![], vec![]]).bytes();
    frames.put("the store has the key, so that empty records do not count", "ok", plain, &[], &empty, opened.clone());
    let exact = Opening { max_frame_records: Some(parts.records().len()), ..plain.clone() };
    frames.put("as many bytes of records as the policy allows", "ok", &exact, missing, &frame, opened.clone());
    for key in ["data-old", "data-pre-active"] {
        let (parts, opened) = frames.sample(key, plain);
        let missing = [frames.id(key), missing[1]];
        frames.put(&format!("key {key}"), "ok", plain, &missing, &parts.bytes(), opened);
    }
    for opening in
        [lookup("patient.mrn", "default", None, &[("k", "1")]), lookup("patient.id", "default", Some("patient"), &[])]
    {
        let (parts, opened) = frames.sample("lookup-default", &framed(opening.clone()));
        let missing = [frames.id("lookup-default"), missing[1]];
        frames.put("suite 02", "ok", &framed(opening), &missing, &parts.bytes(), opened);
    }
    // Under a root that is endorsed, not pinned: the endorser is the store's.
    let (key, record) = under_root_2(frames);
    let value = seal(&key, plain);
    let endorsed = Parts::new(&value, record, frames.record("root-2"));
    let of_key = json!({ "type": opened["type"], "value": opened["value"], "key_id": key.key_id().to_string() });
    let root_2 = frames.id("root-2");
    frames.put("endorsed root", "ok", plain, &[root_2], &endorsed.bytes(), of_key);
    frames.put(
        "endorsed root, its endorser is not in the store",
        "RecordRejected",
        plain,
        &[root_2, missing[1]],
        &endorsed.bytes(),
        json!({}),
    );
    let pinned = json!({ "root_pins": [hex(frames.make.key("root-2").commitment())] });
    let second = json!({ "root_pins": [hex([1; 32])] });
    frames.put("endorsed root, neither is pinned", "RecordRejected", plain, &[root_2], &endorsed.bytes(), second);
    let mut both = pinned;
    both.as_object_mut().expect("an object").extend(
        json!({ "type": opened["type"], "value": opened["value"], "key_id": key.key_id().to_string() })
            .as_object()
            .cloned()
            .expect("an object"),
    );
    frames.put("the endorsed root is the pinned one", "ok", plain, &[root_2, missing[1]], &endorsed.bytes(), both);
}

/// A data key under the second root, which no store has.
fn under_root_2(frames: &Frames<'_>) -> (Key, Vec<u8>) {
    let key = Key { bytes: bytes("framed"), slot: SlotId::NONE, generation: 97, ..frames.make.key("data") };
    let root = frames.make.key("root-2");
    let record = frames.edited("data", |p| {
        (p.key, p.root) = (key, root);
        p.wraps[0].bytes = key.wrap(&root, &bytes("wrap framed")).expect("short").to_vec();
    });
    (key, record)
}

fn seal(key: &Key, opening: &Opening) -> Vec<u8> {
    use keyfold::vectors::{aad, encode};
    let encoded = encode(Value::Text("framed"), Padding::None).expect("short");
    let aad = aad(&key.header(Suite::Field), &opening.field, &opening.context(), opening.row.as_deref());
    super::foreign_seal(key, &super::bytes24("framed"), &aad.expect("short"), &encoded)
}

fn policies(frames: &mut Frames<'_>, plain: &Opening, parts: &Parts, missing: &[KeyId]) {
    let frame = parts.bytes();
    let mut put = |note: &str, expect: &str, change: &dyn Fn(&mut Opening), frame: &[u8]| {
        let mut opening = plain.clone();
        change(&mut opening);
        frames.put(note, expect, &opening, missing, frame, json!({}));
    };
    put("the policy does not accept frames", "PolicyRefused", &|o| o.accept.clear(), &frame);
    let garbage = [&parts.header[..], &[0xFF; 9]].concat();
    put("the policy does not accept frames, whatever follows", "PolicyRefused", &|o| o.accept.clear(), &garbage);
    put("the policy accepts nothing but frames", "Configuration", &|o| o.accept = vec![Suite::Frame], &frame);
    let len = parts.records().len();
    put(
        "a byte of records more than the policy allows",
        "LimitExceeded",
        &|o| o.max_frame_records = Some(len - 1),
        &frame,
    );
    let padded = parts.with(|p| p.records[1] = vec![0; 4097 - 4 - p.records[0].len()]).bytes();
    put("4,097 bytes of records where the policy does not say how many", "LimitExceeded", &|_| (), &padded);
    put("a limit of 0", "Configuration", &|o| o.max_frame_records = Some(0), &frame);
    put("a limit of 65,537", "Configuration", &|o| o.max_frame_records = Some(65_537), &frame);
    put("another row", "DecryptionFailed", &|o| o.row = Some(b"row-2".to_vec()), &frame);
    put("no row", "InvalidInput", &|o| o.row = None, &frame);
    put("another field", "DecryptionFailed", &|o| o.field = "patient.other".into(), &frame);
    put("no context", "DecryptionFailed", &|o| o.context.clear(), &frame);
    put("a required context key is missing", "PolicyRefused", &|o| o.required_context = vec!["site".into()], &frame);
    // Which scope is meant, the store alone says.
    let scoped = Opening { scope: Some("clinic-17".into()), ..plain.clone() };
    frames.put("a scope is stated", "WrongScope", &scoped, &missing[..1], &frame, json!({}));
    frames.put(
        "a scope is stated, its root is not in the store",
        "RecordRejected",
        &scoped,
        missing,
        &frame,
        json!({}),
    );
    let (own, opened) = frames.sample("clinic-17", &scoped);
    let clinic = [frames.id("clinic-17")];
    frames.put("the scope is not in the store", "NoMatchingKey", &scoped, &clinic, &own.bytes(), json!({}));
    let key = Key { bytes: bytes("framed scope"), generation: 96, ..frames.make.key("clinic-17") };
    let record = frames.edited("clinic-17", |p| {
        p.key = key;
        p.wraps[0].bytes = key.wrap(&p.root, &bytes("wrap framed scope")).expect("short").to_vec();
    });
    let later = Parts::new(&seal(&key, &scoped), record, own.records[1].clone()).bytes();
    let of_key = json!({ "type": "text", "value": opened["value"], "key_id": key.key_id().to_string() });
    frames.put("a later key of a scope that the store has", "ok", &scoped, &[], &later, of_key);
    let other = Opening { scope: Some("clinic-18".into()), ..scoped };
    frames.put("a later key of another scope", "WrongScope", &other, &[], &later, json!({}));
    frames.put("a key of a scope, none is stated", "WrongScope", plain, &[], &later, json!({}));
    // A value of the other suite in the frame.
    let other = framed(lookup("patient.mrn", "default", None, &[]));
    let (lookup_parts, _) = frames.sample("lookup-default", &other);
    let lookup_missing = [frames.id("lookup-default"), missing[1]];
    frames.put(
        "suite 02 in the frame of a randomised field",
        "PolicyRefused",
        plain,
        &lookup_missing,
        &lookup_parts.bytes(),
        json!({}),
    );
    frames.put("suite 01 in the frame of a deterministic field", "PolicyRefused", &other, missing, &frame, json!({}));
    let elsewhere = Opening { partition: Some("study".into()), ..other };
    frames.put("another partition", "WrongScope", &elsewhere, &lookup_missing, &lookup_parts.bytes(), json!({}));
}

fn layouts(frames: &mut Frames<'_>, plain: &Opening, parts: &Parts, missing: &[KeyId]) {
    let frame = parts.bytes();
    let (record, root) = (parts.records[0].clone(), parts.records[1].clone());
    let n = parts.records().len();
    let value_at = 30 + n;
    let mut put = |note: &str, expect: &str, frame: &[u8]| frames.put(note, expect, plain, missing, frame, json!({}));
    let bad = "Malformed";
    for len in [
        2,
        25,
        26,
        29,
        30,
        31,
        32,
        33,
        32 + record.len(),
        34 + record.len(),
        value_at - 1,
        value_at,
        value_at + 1,
        value_at + 26,
        value_at + 66,
    ] {
        put(&format!("the first {len} bytes"), bad, &frame[..len]);
    }
    for len in [value_at + 67, frame.len() - 1] {
        put(&format!("the first {len} bytes"), "DecryptionFailed", &frame[..len]);
    }
    put("a byte more", "DecryptionFailed", &[&frame[..], &[0]].concat());
    put("the frame twice", "DecryptionFailed", &[&frame[..], &frame].concat());
    let bits: Vec<(&str, usize, &str)> = vec![
        ("magic", 0, bad),
        ("generation", 5, bad),
        ("fingerprint", 6, bad),
        ("fingerprint", 25, bad),
        ("length of the records", 26, bad),
        ("length of the records", 28, bad),
        ("length of the records", 29, bad),
        ("length of the first record", 30, bad),
        ("length of the first record", 31, bad),
        ("length of the second record", 32 + record.len(), bad),
        ("length of the second record", 33 + record.len(), bad),
        ("magic of the value", value_at, bad),
        ("generation of the value", value_at + 2, bad),
        ("fingerprint of the value", value_at + 25, bad),
        ("nonce", value_at + 26, "DecryptionFailed"),
        ("ciphertext", value_at + 50, "DecryptionFailed"),
        ("tag", frame.len() - 1, "DecryptionFailed"),
    ];
    for (what, at, expect) in bits {
        put(&format!("{what} (byte {at}): one bit flipped"), expect, &flipped(&frame, at, 0));
    }
    for (note, len) in [
        ("0", 0),
        ("4", 4),
        ("one less", n as u32 - 1),
        ("one more", n as u32 + 1),
        ("to the end", (frame.len() - 30) as u32),
        ("2³¹", 1 << 31),
        ("2³²−1", u32::MAX),
    ] {
        put(&format!("length of the records: {note}"), bad, &parts.with(|p| p.len = Some(len)).bytes());
    }
    let long = parts.with(|p| p.records[1].resize(MAX_FRAME_RECORDS_LEN - 4 - record.len() + 1, 0)).bytes();
    put("65,537 bytes of records", bad, &long);
    for (note, records) in [
        ("no records", vec![]),
        ("the key's record alone", vec![record.clone()]),
        ("the root's record alone", vec![root.clone()]),
        ("a third record", vec![record.clone(), root.clone(), root.clone()]),
        ("an empty third record", vec![record.clone(), root.clone(), vec![]]),
        ("both records as one", vec![[&record[..], &root].concat()]),
        ("an empty first record", vec![vec![], root.clone()]),
        ("an empty second record", vec![record.clone(), vec![]]),
        ("two empty records", vec![vec![], vec![]]),
    ] {
        put(note, bad, &parts.with(|p| p.records = records).bytes());
    }
    put(
        "without lengths of the records",
        bad,
        &[&parts.header[..], &(n as u32 - 4).to_be_bytes(), &record, &root, &parts.value].concat(),
    );
    put(
        "length of the records in little-endian order",
        bad,
        &[&parts.header[..], &(n as u32).to_le_bytes(), &parts.records(), &parts.value].concat(),
    );
    put("no value", bad, &parts.with(|p| p.value.clear()).bytes());
    put("a frame in the frame", bad, &parts.with(|p| p.value = frame.clone()).bytes());
    put("the start of a frame in the frame", bad, &parts.with(|p| p.value[1] = 3).bytes());
    put("the value without its header", bad, &parts.with(|p| drop(p.value.drain(..26))).bytes());
    put("the value behind a zero", bad, &parts.with(|p| p.value.insert(0, 0)).bytes());
    put("a text form in the frame", bad, &parts.with(|p| p.value = super::text_of(&p.value).into_bytes()).bytes());
    for suite in [0x00, 0x04, 0x05, 0x06, 0x07, 0x08, 0x7F, 0x80, 0xFE, 0xFF] {
        put(&format!("suite {suite:02x} in the frame"), "Unsupported", &parts.with(|p| p.value[1] = suite).bytes());
        put(&format!("suite {suite:02x} of the frame"), "Unsupported", &parts.with(|p| p.header[1] = suite).bytes());
    }
    put("suite 02 in the frame", "PolicyRefused", &parts.with(|p| p.value[1] = 2).bytes());
    // Taken for a value, it is one of a key that the store does not have.
    put("suite 01 of the frame", "NoMatchingKey", &parts.with(|p| p.header[1] = 1).bytes());
    put("suite 02 of the frame", "PolicyRefused", &parts.with(|p| p.header[1] = 2).bytes());
    put("the value without its frame", "NoMatchingKey", &parts.value);
}

fn stores(frames: &mut Frames<'_>, plain: &Opening, parts: &Parts, missing: &[KeyId]) {
    let frame = parts.bytes();
    let data = missing[0];
    let served = |record: &[u8]| json!({ "asked": data.to_string(), "record": hex(record) });
    let tombstone = frames.edited("data", |p| {
        p.state = KeyState::Destroyed;
        p.wraps.clear();
    });
    // What the store says wins over the frame, and so does what it cannot say.
    for (note, expect, record) in [
        ("the store has a tombstone", "KeyState", tombstone),
        ("the store says compromised", "KeyState", frames.edited("data", |p| p.state = KeyState::Compromised)),
        ("the store says destroy-pending", "KeyState", frames.edited("data", |p| p.state = KeyState::DestroyPending)),
        ("the store has a record that nobody vouches for", "RecordRejected", {
            let record = frames.record("data");
            flipped(&record, record.len() - 1, 0)
        }),
        ("the store has the record of another key", "RecordRejected", frames.record("data-old")),
        ("the store has half a record", "Malformed", frames.record("data")[..100].to_vec()),
    ] {
        frames.put(note, expect, plain, &[], &frame, served(&record));
    }
    let root = missing[1];
    let served = |record: &[u8]| json!({ "asked": root.to_string(), "record": hex(record) });
    for (note, expect, record) in [
        (
            "the store says that the root is compromised",
            "KeyState",
            frames.edited("root-1", |p| p.state = KeyState::Compromised),
        ),
        (
            "the store has a root's record under another environment",
            "RecordRejected",
            frames.edited("root-1", |p| p.environment = "production"),
        ),
        (
            "the store has the root under a wrap that does not unwrap",
            "InvalidCiphertext",
            frames.edited("root-1", |p| p.wraps[0].bytes[9] ^= 1),
        ),
        ("the store has half a root", "Malformed", frames.record("root-1")[..100].to_vec()),
    ] {
        frames.put(note, expect, plain, &missing[..1], &frame, served(&record));
    }
    for (note, more) in [
        ("another root is pinned", json!({ "root_pins": [hex([1; 32])] })),
        ("another environment is configured", json!({ "environment": "production" })),
        ("another lineage is configured", json!({ "lineage": hex([1; 16]) })),
    ] {
        frames.put(note, "RecordRejected", plain, missing, &frame, more);
    }
    frames.put("nothing is pinned", "Configuration", plain, missing, &frame, json!({ "root_pins": [] }));
    frames.put(
        "another KEK is configured",
        "WrongKey",
        plain,
        missing,
        &frame,
        json!({ "keks": { ALIAS: hex([9; 32]) } }),
    );
}

fn records(frames: &mut Frames<'_>, plain: &Opening, parts: &Parts, missing: &[KeyId]) {
    let good = parts.records[0].clone();
    let env = 182 + ENVIRONMENT.len();
    let root = frames.make.key("root-1");
    let own: Vec<(&str, &str, Vec<u8>)> = vec![
        ("layout version 2", "Unsupported", damaged_at(&good, 3, 2)),
        ("class edited", "RecordRejected", damaged_at(&good, 4, 3)),
        ("state edited to deactivated", "RecordRejected", damaged_at(&good, 5, 3)),
        ("state edited to destroyed", "Malformed", damaged_at(&good, 5, 6)),
        ("generation, one bit flipped", "RecordRejected", flipped(&good, 9, 0)),
        ("fingerprint, one bit flipped", "Malformed", flipped(&good, 10, 0)),
        ("commitment, one bit flipped", "RecordRejected", flipped(&good, 61, 0)),
        ("authenticator, one bit flipped", "RecordRejected", flipped(&good, 85, 0)),
        ("lineage, one bit flipped", "RecordRejected", flipped(&good, 86, 0)),
        ("slot, one bit flipped", "RecordRejected", flipped(&good, 117, 0)),
        ("sequence, one bit flipped", "RecordRejected", flipped(&good, 157, 0)),
        ("environment, one bit flipped", "RecordRejected", flipped(&good, 183, 0)),
        ("wrapped key, one bit flipped", "RecordRejected", flipped(&good, env + 40, 0)),
        ("MAC, one bit flipped", "RecordRejected", flipped(&good, good.len() - 1, 0)),
        ("a byte more", "Malformed", [&good[..], &[0]].concat()),
        ("a byte less", "Malformed", good[..good.len() - 1].to_vec()),
        ("compromised", "KeyState", frames.edited("data", |p| p.state = KeyState::Compromised)),
        ("destroy-pending", "KeyState", frames.edited("data", |p| p.state = KeyState::DestroyPending)),
        (
            "a tombstone",
            "KeyState",
            frames.edited("data", |p| {
                p.state = KeyState::Destroyed;
                p.wraps.clear();
            }),
        ),
        ("of another slot", "RecordRejected", frames.edited("data", |p| p.key.slot = SlotId::from_bytes([7; 16]))),
        ("of another key", "RecordRejected", frames.record("data-old")),
        ("of the root", "RecordRejected", frames.record("root-1")),
        ("of another environment", "RecordRejected", frames.edited("data", |p| p.environment = "production")),
        (
            "under the other root, whose record is not in the frame",
            "RecordRejected",
            frames.edited("data", |p| {
                p.root = frames.make.key("root-2");
            }),
        ),
        (
            "wrapped by a KEK alone",
            "RecordRejected",
            frames.edited("data", |p| p.wraps = vec![local(kwp(&kek(), &p.key.kek_payload(ENVIRONMENT)))]),
        ),
        (
            "with the wrap of another key",
            "RecordRejected",
            frames.edited("data", |p| {
                p.wraps[0].bytes = frames.make.key("data-old").wrap(&root, &[1; 24]).expect("short").to_vec();
            }),
        ),
    ];
    for (note, expect, record) in own {
        let frame = parts.with(|p| p.records[0] = record).bytes();
        frames.put(&format!("the key's record: {note}"), expect, plain, missing, &frame, json!({}));
    }
    // Genuine records in the wrong place.
    let swapped = parts.with(|p| p.records.swap(0, 1)).bytes();
    frames.put("records exchanged", "RecordRejected", plain, missing, &swapped, json!({}));
    let (claims, expect) = (["clinic-17", "lookup-default", "scope-names", "root-1"], "WrongScope");
    for name in claims {
        let mut value = parts.value.clone();
        value[2..26].copy_from_slice(frames.id(name).as_bytes());
        let frame = Parts::new(&value, frames.record(name), parts.records[1].clone()).bytes();
        let missing = [frames.id(name), missing[1]];
        let expect = if name == "root-1" { "WrongScope" } else { expect };
        frames.put(
            &format!("value, frame and record name {name}"),
            expect,
            plain,
            &missing[..2 - usize::from(name == "root-1")],
            &frame,
            json!({}),
        );
    }
    // Sealed under another key than the record holds.
    let mut value = parts.value.clone();
    value[2..26].copy_from_slice(frames.id("data-old").as_bytes());
    let relabelled = Parts::new(&value, frames.record("data-old"), parts.records[1].clone()).bytes();
    let old = [frames.id("data-old"), missing[1]];
    frames.put("value, frame and record name an older key", "DecryptionFailed", plain, &old, &relabelled, json!({}));
    // A key that an attacker made, under his own root, which anyone can make who may encrypt under the KEK.
    let theirs = Key { bytes: bytes("planted root"), generation: 90, ..root };
    let key = Key { bytes: bytes("planted key"), generation: 91, ..frames.make.key("data") };
    let planted_root = frames.edited("root-1", |p| {
        (p.key, p.root) = (theirs, theirs);
        p.wraps[0] = local(kwp(&kek(), &theirs.kek_payload(ENVIRONMENT)));
    });
    let planted = |root: &Key, frames: &Frames<'_>| {
        frames.edited("data", |p| {
            (p.key, p.root) = (key, *root);
            p.wraps[0].bytes = key.wrap(root, &[1; 24]).expect("short").to_vec();
        })
    };
    let frame = Parts::new(&seal(&key, plain), planted(&theirs, frames), planted_root).bytes();
    frames.put("planted key under a planted root", "RecordRejected", plain, missing, &frame, json!({}));
    let forged = planted(&Key { bytes: bytes("not the root"), ..root }, frames);
    let frame = Parts::new(&seal(&key, plain), forged, parts.records[1].clone()).bytes();
    frames.put("planted key that names another authenticator", "RecordRejected", plain, missing, &frame, json!({}));
    let mut forged = planted(&theirs, frames);
    forged[62..86].copy_from_slice(root.key_id().as_bytes());
    let frame = Parts::new(&seal(&key, plain), forged, parts.records[1].clone()).bytes();
    frames.put("planted key that names the pinned root", "RecordRejected", plain, missing, &frame, json!({}));
}

fn roots(frames: &mut Frames<'_>, plain: &Opening, parts: &Parts, missing: &[KeyId]) {
    let good = parts.records[1].clone();
    let opened = |frames: &Frames<'_>| json!({ "type": "text", "value": hex("framed"), "key_id": frames.id("data").to_string() });
    let wrapped_twice = |first: &dyn Fn(&mut WrapParts)| {
        frames.edited("root-1", |p| {
            p.wraps.push(p.wraps[0].clone());
            first(&mut p.wraps[0]);
        })
    };
    let cases: Vec<(&str, &str, &str, Vec<u8>)> = vec![
        ("a later sequence", "ok", "ok", frames.edited("root-1", |p| p.sequence = 99)),
        ("a second KEK that is not configured", "ok", "ok", wrapped_twice(&|w| w.alias = "elsewhere".into())),
        (
            "a first wrap that does not unwrap, a second of the same KEK",
            "InvalidCiphertext",
            "ok",
            wrapped_twice(&|w| w.bytes[0] ^= 1),
        ),
        ("active", "ok", "ok", frames.edited("root-1", |p| p.state = KeyState::Active)),
        // The store's own record of the root decides about its state; the frame's need only be genuine then.
        ("compromised", "KeyState", "ok", frames.edited("root-1", |p| p.state = KeyState::Compromised)),
        ("destroy-pending", "KeyState", "ok", frames.edited("root-1", |p| p.state = KeyState::DestroyPending)),
        (
            "no wrap of a configured KEK",
            "Configuration",
            "ok",
            frames.edited("root-1", |p| p.wraps[0].alias = "elsewhere".into()),
        ),
        (
            "a wrap that does not unwrap, signed",
            "InvalidCiphertext",
            "ok",
            frames.edited("root-1", |p| p.wraps[0].bytes[40] ^= 1),
        ),
        (
            "of another environment",
            "RecordRejected",
            "RecordRejected",
            frames.edited("root-1", |p| p.environment = "production"),
        ),
        ("of another root", "RecordRejected", "RecordRejected", frames.record("root-2")),
        ("of a data key", "RecordRejected", "RecordRejected", frames.record("data-old")),
        ("state edited to compromised", "KeyState", "RecordRejected", damaged_at(&good, 5, 4)),
        ("sequence, one bit flipped", "RecordRejected", "RecordRejected", flipped(&good, 157, 0)),
        ("slot, one bit flipped", "InvalidCiphertext", "RecordRejected", flipped(&good, 117, 0)),
        ("commitment, one bit flipped", "RecordRejected", "RecordRejected", flipped(&good, 61, 0)),
        ("fingerprint, one bit flipped", "Malformed", "Malformed", flipped(&good, 10, 0)),
        ("lineage, one bit flipped", "RecordRejected", "RecordRejected", flipped(&good, 86, 0)),
        (
            "wrapped bytes, one bit flipped",
            "InvalidCiphertext",
            "RecordRejected",
            flipped(&good, 182 + ENVIRONMENT.len() + 60, 0),
        ),
        ("MAC, one bit flipped", "RecordRejected", "RecordRejected", flipped(&good, good.len() - 1, 0)),
        ("layout version 2", "Unsupported", "Unsupported", damaged_at(&good, 3, 2)),
        ("a byte less", "Malformed", "Malformed", good[..good.len() - 1].to_vec()),
        ("a byte more", "Malformed", "Malformed", [&good[..], &[0]].concat()),
        (
            "named by another authenticator",
            "RecordRejected",
            "RecordRejected",
            frames.edited("root-1", |p| p.root = frames.make.key("root-2")),
        ),
        (
            "a payload bound to another environment",
            "InvalidCiphertext",
            "ok",
            frames.edited("root-1", |p| p.wraps[0] = local(kwp(&kek(), &p.key.kek_payload("production")))),
        ),
        (
            "a tombstone",
            "KeyState",
            "RecordRejected",
            frames.edited("root-1", |p| {
                (p.state, p.root) = (KeyState::Destroyed, frames.make.key("root-2"));
                p.wraps.clear();
            }),
        ),
    ];
    for (note, alone, beside, record) in cases {
        let frame = parts.with(|p| p.records[1] = record).bytes();
        for (expect, missing, where_) in [(alone, missing, ""), (beside, &missing[..1], ", the store has the root")] {
            let more = if expect == "ok" { opened(frames) } else { json!({}) };
            frames.put(&format!("the root's record: {note}{where_}"), expect, plain, missing, &frame, more);
        }
    }
    // Endorsed by what only the frame has: its own records never endorse.
    let (key, record) = under_root_2(frames);
    let value = seal(&key, plain);
    let root_2 = frames.id("root-2");
    for (note, root) in [
        ("without endorsement", frames.edited("root-2", |p| p.endorser = None)),
        ("endorsed by itself", frames.edited("root-2", |p| p.endorser = Some(p.key))),
        ("endorsed by a data key", frames.edited("root-2", |p| p.endorser = Some(frames.make.key("data")))),
        (
            "endorsed by a root that the store does not have",
            frames.edited("root-2", |p| {
                p.endorser = Some(Key { generation: 3, ..frames.make.key("root-1") });
            }),
        ),
    ] {
        let frame = Parts::new(&value, record.clone(), root).bytes();
        frames.put(
            &format!("a root that is not pinned, {note}"),
            "RecordRejected",
            plain,
            &[root_2],
            &frame,
            json!({}),
        );
    }
}
