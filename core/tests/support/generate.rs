//! Writes the test vectors. Everything here is deterministic, so that the committed files must equal what it makes.
//!
//! Longer than other files: one function per vector file, all from the same samples, in the order of FORMAT.md.

#[path = "bundles.rs"]
mod bundles;
#[path = "document_edges.rs"]
mod document_edges;
#[path = "documents.rs"]
pub(crate) mod documents;
#[path = "frames.rs"]
mod frames;
#[path = "json_documents.rs"]
mod json_documents;
#[path = "lookup_edges.rs"]
mod lookup_edges;
#[path = "lookups.rs"]
pub(crate) mod lookups;
#[path = "stream_edges.rs"]
mod stream_edges;
#[path = "streams.rs"]
pub(crate) mod streams;

use crate::world::{ALIAS, ENVIRONMENT, Member, Opening, TIME, World, bytes, kek, kek_id, kwp, lineage, members, slot};
use keyfold::aead::Backend;
use keyfold::vectors::{self, Key, RecordParts, WrapParts};
use keyfold::wire::{self, KeyId, Suite};
use keyfold::{KeyClass, KeyState, Padding, Value, ValueType};
use serde_json::{Map, Value as Json, json};

pub(crate) fn hex(bytes: impl AsRef<[u8]>) -> String {
    data_encoding::HEXLOWER.encode(bytes.as_ref())
}

/// File name, what it is, cases.
pub(crate) type File = (&'static str, Json, Vec<Json>);

pub(crate) fn files() -> Vec<File> {
    let make = Maker { members: members(), world: World::generated() };
    vec![
        make.keyring(),
        make.fields(),
        make.deterministic(),
        make.values(),
        make.text(),
        make.records(),
        frames::file(&make),
        bundles::file(&make),
        documents::file(&make),
        json_documents::file(&make),
        streams::file(&make),
        lookups::indexes(&make),
        lookups::formats(&make),
        lookups::proofs(&make),
    ]
}

/// One case per line, so that a change shows as a line.
pub(crate) fn to_text((name, head, cases): &File) -> (String, String) {
    let mut out = String::from("{\n");
    for (key, value) in head.as_object().into_iter().flatten() {
        out.push_str(&format!("{}: {value},\n", Json::from(key.as_str())));
    }
    out.push_str("\"cases\": [\n");
    let lines: Vec<String> = cases.iter().map(ToString::to_string).collect();
    out.push_str(&lines.join(",\n"));
    out.push_str("\n]\n}\n");
    ((*name).to_owned(), out)
}

fn head(about: &str) -> Json {
    json!({ "format": "keyfold test vectors v1", "about": about })
}

struct Maker {
    members: Vec<Member>,
    world: World,
}

/// A value to seal, and how.
#[derive(Clone)]
struct Sample {
    key: &'static str,
    opening: Opening,
    value: Value<'static>,
    padding: Padding,
}

struct Cases(&'static str, Vec<Json>);

impl Cases {
    fn push(&mut self, note: &str, case: Json) {
        let mut map = Map::new();
        map.insert("id".into(), json!(format!("{}-{:03}", self.0, self.1.len() + 1)));
        map.insert("note".into(), json!(note));
        map.extend(case.as_object().expect("an object").clone());
        self.1.push(Json::Object(map));
    }

    fn negative(&mut self, note: &str, expect: &str, opening: &Opening, sealed: &[u8]) {
        self.push(note, json!({ "open": opening_json(opening), "sealed": hex(sealed), "expect": expect }));
    }
}

fn opening_json(o: &Opening) -> Json {
    let mut map = Map::new();
    map.insert("field".into(), json!(o.field));
    for (name, text) in [("partition", &o.partition), ("join_group", &o.join_group), ("scope", &o.scope)] {
        if let Some(text) = text {
            map.insert(name.into(), json!(text));
        }
    }
    if !o.context.is_empty() {
        map.insert("context".into(), o.context.iter().map(|(k, v)| json!([k, hex(v)])).collect());
    }
    if let Some(row) = &o.row {
        map.insert("row".into(), json!(hex(row)));
    }
    if o.row_bound {
        map.insert("row_bound".into(), json!(true));
    }
    if !o.required_context.is_empty() {
        map.insert("required_context".into(), json!(o.required_context));
    }
    if let Some(max) = o.max_frame_records {
        map.insert("max_frame_records".into(), json!(max));
    }
    if !o.accept.is_empty() {
        map.insert("accept".into(), o.accept.iter().map(|s| json!(s.to_string())).collect());
    }
    Json::Object(map)
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect()
}

fn field(name: &str, context: &[(&str, &str)], row: Option<&str>) -> Opening {
    Opening {
        field: name.into(),
        context: pairs(context),
        row: row.map(|r| r.as_bytes().to_vec()),
        row_bound: row.is_some(),
        ..Opening::default()
    }
}

fn lookup(name: &str, partition: &str, group: Option<&str>, context: &[(&str, &str)]) -> Opening {
    Opening { partition: Some(partition.into()), join_group: group.map(Into::into), ..field(name, context, None) }
}

fn flipped(bytes: &[u8], at: usize, bit: u8) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out[at] ^= 1 << bit;
    out
}

fn damaged_at(bytes: &[u8], at: usize, byte: u8) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out[at] = byte;
    out
}

fn text_of(sealed: &[u8]) -> String {
    let mut out = Vec::new();
    wire::push_text(sealed, &mut out).expect("it is a value");
    String::from_utf8(out).expect("ASCII")
}

impl Maker {
    fn key(&self, name: &str) -> Key {
        self.member(name).key
    }

    fn member(&self, name: &str) -> &Member {
        self.members.iter().find(|m| m.name == name).expect("a member")
    }

    /// The sealed value, and a description with every intermediate value.
    fn seal(&self, label: &str, sample: &Sample) -> (Vec<u8>, Json) {
        let encoded = vectors::encode(sample.value, sample.padding).expect("it has an encoding");
        let (sealed, mut json) = self.seal_encoded(label, sample.key, &sample.opening, &encoded);
        let map = json.as_object_mut().expect("an object");
        map.insert("expect".into(), json!("ok"));
        map.insert("type".into(), json!(sample.value.value_type().name()));
        map.insert("value".into(), json!(hex(vectors::canonical(sample.value))));
        (sealed, json)
    }

    fn seal_encoded(&self, label: &str, key: &str, o: &Opening, encoded: &[u8]) -> (Vec<u8>, Json) {
        let key = self.key(key);
        if key.class == KeyClass::Lookup {
            let header = key.header(Suite::Deterministic);
            let name = o.join_group.as_deref().unwrap_or(&o.field);
            let strings = vectors::strings(&header, o.join_group.is_some(), name, &o.context()).expect("short");
            let sealed = key.seal_deterministic(&strings, encoded).expect("three strings");
            let json = json!({
                "open": opening_json(o), "sealed": hex(&sealed), "encoded": hex(encoded), "key_id": key.key_id().to_string(),
                "strings": strings.iter().map(hex).collect::<Vec<_>>(),
            });
            return (sealed, json);
        }
        let nonce: [u8; 24] = bytes(&format!("nonce {label}"));
        let aad = vectors::aad(&key.header(Suite::Field), &o.field, &o.context(), o.row.as_deref()).expect("short");
        let [one, other] = [Backend::ALL[0], Backend::RustCrypto]
            .map(|backend| key.seal_field(backend, &nonce, &aad, encoded).expect("short"));
        assert_eq!(one, other, "all backends write the same bytes");
        let derived = key.derived_key(nonce.first_chunk().expect("24 bytes hold 12"));
        let json = json!({
            "open": opening_json(o), "sealed": hex(&one), "encoded": hex(encoded), "key_id": key.key_id().to_string(),
            "nonce": hex(nonce), "aad": hex(aad), "aes_key": hex(derived),
        });
        (one, json)
    }

    fn keyring(&self) -> File {
        let config = &self.world.config;
        let lookup: Map<String, Json> = config
            .lookup
            .iter()
            .map(|(name, keys)| {
                let opens: Vec<_> = keys.opens.iter().map(ToString::to_string).collect();
                (
                    name.clone(),
                    json!({ "partition": keys.partition.to_string(), "seals": keys.seals.to_string(), "opens": opens }),
                )
            })
            .collect();
        let about = json!({
            "format": "keyfold test vectors v1",
            "about": "the keyring that all other files use: keys, purpose keys, key records",
            "environment": ENVIRONMENT,
            "lineage": lineage().to_string(),
            "keks": { ALIAS: hex(kek()) },
            "root_pins": config.root_pins.iter().map(hex).collect::<Vec<_>>(),
            "scope_names": config.scope_names.to_string(),
            "lookup": lookup,
        });
        let mut cases = Cases("key", Vec::new());
        for member in &self.members {
            let (key, parts) = (&member.key, &member.parts);
            let purposes: Map<String, Json> =
                key.purpose_keys().into_iter().map(|(label, key)| (label.to_owned(), json!(hex(key)))).collect();
            let mut case = json!({
                "class": key.class.name(), "slot": key.slot.to_string(), "generation": key.generation,
                "key": hex(key.bytes), "identity": hex(key.identity_bytes()), "commitment": hex(key.commitment()),
                "key_id": key.key_id().to_string(), "purpose_keys": purposes, "state": parts.state.name(),
                "record": hex(parts.to_bytes()), "expect": "ok",
            });
            let map = case.as_object_mut().expect("an object");
            if key.class == KeyClass::Root {
                map.insert("kek_payload".into(), json!(hex(key.kek_payload(ENVIRONMENT))));
            }
            if !member.scope.is_empty() {
                map.insert("scope".into(), json!(member.scope));
                map.insert("scope_tag".into(), json!(hex(parts.scope_tag.expect("scopes have tags"))));
            }
            cases.push(member.name, case);
        }
        ("keyring.json", about, cases.1)
    }

    fn fields(&self) -> File {
        let mut cases = Cases("field", Vec::new());
        let text = Value::Text("123-45-6789");
        let all = [("a", ""), ("k", "1"), ("tenant", "clinic-17"), ("ünïcode", "\u{1F9EC}"), ("zz", "z")];
        let many: Vec<(String, Vec<u8>)> = (0..32).map(|i| (format!("key-{i:02}"), vec![i])).collect();
        let scoped =
            |scope: &str| Opening { scope: Some(scope.into()), ..field("patient.ssn", &all[2..3], Some("row-1")) };
        let full = Opening { context: vec![("k".into(), vec![0xC5; 4090])], ..field("patient.ssn", &[], None) };
        let long_row = Opening { row: Some(vec![0x72; 4085]), row_bound: true, ..field("patient.ssn", &[], None) };
        let deterministic_too = Opening {
            accept: vec![Suite::Field, Suite::Deterministic],
            ..lookup("patient.id", "default", Some("patient"), &[])
        };
        let positives: Vec<(&str, &'static str, Opening)> = vec![
            ("no context, no row", "data", field("patient.ssn", &[], None)),
            ("row binding", "data", field("patient.ssn", &[], Some("row-1"))),
            ("one pair", "data", field("patient.ssn", &all[2..3], None)),
            (
                "pairs that sort before and after kf:row, an empty value, non-ASCII",
                "data",
                field("patient.ssn", &all, Some("row-1")),
            ),
            (
                "binary context value",
                "data",
                Opening { context: vec![("b".into(), (0..=255).collect())], ..field("patient.ssn", &[], None) },
            ),
            ("32 pairs and a row", "data", Opening { context: many, ..field("patient.ssn", &[], Some("r")) }),
            ("4,096 bytes of context", "data", full),
            ("row binding of the greatest length", "data", long_row),
            ("name of 255 bytes", "data", field(&"n".repeat(255), &[], None)),
            ("non-ASCII name", "data", field("paciente.número", &[], None)),
            ("scope", "clinic-17", scoped("clinic-17")),
            ("scope under an endorsed root", "clinic-18", scoped("clinic-18")),
            ("record with unknown wrap and extensions", "clinic-19", scoped("clinic-19")),
            ("deactivated key", "data-old", field("patient.ssn", &[], Some("row-1"))),
            ("pre-active key", "data-pre-active", field("patient.ssn", &[], Some("row-1"))),
            (
                "suite 01 in a field that is deterministic now: its own name counts, not the join group's",
                "data",
                deterministic_too,
            ),
        ];
        let mut sealed = Vec::new();
        for (note, key, opening) in positives {
            let sample = Sample { key, opening: opening.clone(), value: text, padding: Padding::None };
            let (bytes, json) = self.seal(&format!("field {note}"), &sample);
            cases.push(note, json);
            sealed.push((opening, bytes));
        }
        for (opening, bytes) in [&sealed[0], &sealed[3], &sealed[10]] {
            damaged(&mut cases, opening, bytes, 50, 16);
        }
        let (base, bytes) = &sealed[3];
        self.misused(&mut cases, base, bytes);
        let with = |change: &dyn Fn(&mut Opening)| {
            let mut opening = base.clone();
            change(&mut opening);
            opening
        };
        let failed = "DecryptionFailed";
        cases.negative("another row", failed, &with(&|o| o.row = Some(b"row-2".to_vec())), bytes);
        cases.negative("row in upper case", failed, &with(&|o| o.row = Some(b"ROW-1".to_vec())), bytes);
        cases.negative("row with trailing space", failed, &with(&|o| o.row = Some(b"row-1 ".to_vec())), bytes);
        cases.negative(
            "policy without row binding",
            failed,
            &with(&|o| {
                o.row = None;
                o.row_bound = false;
            }),
            bytes,
        );
        cases.negative("no row given", "InvalidInput", &with(&|o| o.row = None), bytes);
        cases.negative("empty row given", "InvalidInput", &with(&|o| o.row = Some(vec![])), bytes);
        cases.negative("row given where none is bound", "InvalidInput", &with(&|o| o.row_bound = false), bytes);
        let (plain, unbound) = &sealed[0];
        cases.negative(
            "policy with row binding",
            failed,
            &Opening { row: Some(b"row-1".to_vec()), row_bound: true, ..plain.clone() },
            unbound,
        );
        let boundary = Opening { context: pairs(&[("ab", "c")]), ..plain.clone() };
        let (sealed_boundary, _) =
            self.seal("boundary", &Sample { key: "data", opening: boundary, value: text, padding: Padding::None });
        let moved = |p: &[(&str, &str)], row: Option<&str>| field("patient.ssn", p, row);
        cases.negative("one byte moved from key to value", failed, &moved(&[("a", "bc")], None), &sealed_boundary);
        cases.negative("one byte moved from value to key", failed, &moved(&[("abc", "")], None), &sealed_boundary);
        cases.negative(
            "one byte moved from name to key",
            failed,
            &field("patient.ssna", &[("b", "c")], None),
            &sealed_boundary,
        );
        cases.negative("the pair in two", failed, &moved(&[("ab", ""), ("c", "")], None), &sealed_boundary);
        cases.negative("context as row binding", failed, &moved(&[], Some("c")), &sealed_boundary);

        let scoped_value = &sealed[10];
        let scope = |name: Option<&str>| Opening { scope: name.map(Into::into), ..scoped_value.0.clone() };
        cases.negative("another scope", "WrongScope", &scope(Some("clinic-18")), &scoped_value.1);
        cases.negative("no scope stated", "WrongScope", &scope(None), &scoped_value.1);
        cases.negative("unknown scope", "NoMatchingKey", &scope(Some("clinic-99")), &scoped_value.1);
        cases.negative("empty scope name", "InvalidInput", &scope(Some("")), &scoped_value.1);
        cases.negative("scope in upper case", "NoMatchingKey", &scope(Some("CLINIC-17")), &scoped_value.1);
        cases.negative(
            "keyring's value, scope stated",
            "WrongScope",
            &Opening { scope: Some("clinic-17".into()), ..plain.clone() },
            unbound,
        );
        for (key, expect) in [
            ("data-destroyed", "KeyState"),
            ("data-destroy-pending", "KeyState"),
            ("data-compromised", "KeyState"),
            ("root-1", "WrongScope"),
            ("lookup-default", "WrongScope"),
            ("scope-names", "WrongScope"),
        ] {
            let mut claimed = unbound.clone();
            claimed[2..26].copy_from_slice(self.key(key).key_id().as_bytes());
            cases.negative(&format!("key ID of {key}"), expect, plain, &claimed);
        }
        for (key, claims) in [
            ("data", "data-old"),
            ("data-old", "data"),
            ("clinic-17", "data"),
            ("root-1", "data"),
            ("lookup-default", "data"),
        ] {
            // Sealed under one key and labelled with another: what commitment is there to stop.
            let labelled = Key { ..self.key(claims) };
            let foreign = Key { bytes: self.key(key).bytes, ..self.key(key) };
            let aad =
                vectors::aad(&labelled.header(Suite::Field), &plain.field, &plain.context(), None).expect("short");
            let encoded = vectors::encode(text, Padding::None).expect("short");
            let mut value = foreign_seal(&foreign, &bytes24(key), &aad, &encoded);
            value[..26].copy_from_slice(&labelled.header(Suite::Field));
            cases.negative(&format!("sealed under {key}, labelled {claims}"), failed, plain, &value);
        }
        self.spliced(&mut cases, &sealed);
        ("field.json", head("suite 01: what opens, and what must not"), cases.1)
    }

    fn spliced(&self, cases: &mut Cases, sealed: &[(Opening, Vec<u8>)]) {
        let (opening, a) = &sealed[1];
        let (_, b) = &sealed[3];
        for (note, at) in [
            ("header and nonce of one value, rest of another", 50),
            ("header of one value, rest of another", 26),
            ("tag of another value", a.len() - 16),
        ] {
            cases.negative(note, "DecryptionFailed", opening, &[&a[..at], &b[b.len() - (a.len() - at)..]].concat());
        }
        let (_, old) = &sealed[13];
        cases.negative("body of another generation", "DecryptionFailed", opening, &[&a[..26], &old[26..]].concat());
        cases.negative("another field's context and value", "DecryptionFailed", opening, b);
        let twice = [&a[..], a].concat();
        cases.negative("the value twice", "DecryptionFailed", opening, &twice);
        cases.negative("two headers", "DecryptionFailed", opening, &[&a[..26], a].concat());
    }

    /// The ways to state something else than what was sealed that both suites share.
    fn misused(&self, cases: &mut Cases, base: &Opening, bytes: &[u8]) {
        let with = |change: &dyn Fn(&mut Opening)| {
            let mut opening = base.clone();
            change(&mut opening);
            opening
        };
        let failed = "DecryptionFailed";
        if base.join_group.is_none() {
            cases.negative("another field", failed, &with(&|o| o.field = "patient.other".into()), bytes);
            cases.negative("field name with a letter more", failed, &with(&|o| o.field.push('x')), bytes);
            cases.negative("field name in upper case", failed, &with(&|o| o.field = o.field.to_uppercase()), bytes);
        }
        cases.negative("a pair missing", failed, &with(&|o| drop(o.context.remove(0))), bytes);
        cases.negative("no context", failed, &with(&|o| o.context.clear()), bytes);
        cases.negative("a pair more", failed, &with(&|o| o.context.push(("more".into(), vec![]))), bytes);
        cases.negative("a changed value", failed, &with(&|o| o.context[1].1 = b"2".to_vec()), bytes);
        cases.negative("a changed key", failed, &with(&|o| o.context[1].0 = "l".into()), bytes);
        cases.negative(
            "two values exchanged",
            failed,
            &with(&|o| {
                let v = o.context[0].1.clone();
                o.context[0].1 = std::mem::replace(&mut o.context[1].1, v);
            }),
            bytes,
        );
        cases.negative(
            "required context key not given",
            "PolicyRefused",
            &with(&|o| o.required_context = vec!["site".into()]),
            bytes,
        );
        let accept = if base.partition.is_some() { Suite::Field } else { Suite::Deterministic };
        if base.partition.is_some() {
            cases.negative(
                "policy accepts another suite only",
                "PolicyRefused",
                &with(&|o| o.accept = vec![accept]),
                bytes,
            );
        }
        let mut other_suite = bytes.to_vec();
        other_suite[1] ^= 3;
        if base.partition.is_some() {
            // Suite 01 values are longer; too short is another cause.
            other_suite.extend([0; 30]);
        }
        cases.negative("suite byte of the other live suite", "PolicyRefused", base, &other_suite);
    }

    fn deterministic(&self) -> File {
        let mut cases = Cases("deterministic", Vec::new());
        let two = [("a", "x"), ("k", "1"), ("tenant", "t")];
        let mrn = Value::Text("MRN-0001");
        let both = |o: Opening| Opening { accept: vec![Suite::Field, Suite::Deterministic], ..o };
        let positives: Vec<(&str, &'static str, Opening, Value<'static>, Padding)> = vec![
            ("field", "lookup-default", lookup("patient.mrn", "default", None, &[]), mrn, Padding::None),
            ("join group", "lookup-default", lookup("patient.id", "default", Some("patient"), &[]), mrn, Padding::None),
            (
                "join group, other field, same ciphertext",
                "lookup-default",
                lookup("device.patient", "default", Some("patient"), &[]),
                mrn,
                Padding::None,
            ),
            ("context", "lookup-default", lookup("patient.mrn", "default", None, &two), mrn, Padding::None),
            ("other partition", "lookup-study", lookup("patient.mrn", "study", None, &[]), mrn, Padding::None),
            (
                "key that only opens",
                "lookup-default-old",
                lookup("patient.mrn", "default", None, &[]),
                mrn,
                Padding::None,
            ),
            ("padded to 16", "lookup-default", lookup("patient.mrn", "default", None, &[]), mrn, Padding::Multiple(16)),
            (
                "Padmé",
                "lookup-default",
                lookup("patient.mrn", "default", None, &[]),
                Value::Text("a longer text, so that Padmé adds something"),
                Padding::Padme,
            ),
            (
                "empty text",
                "lookup-default",
                lookup("patient.mrn", "default", None, &[]),
                Value::Text(""),
                Padding::None,
            ),
            ("null", "lookup-default", lookup("patient.mrn", "default", None, &[]), Value::Null, Padding::None),
            (
                "integer",
                "lookup-default",
                lookup("patient.number", "default", None, &[]),
                Value::Integer(-129),
                Padding::None,
            ),
            (
                "date",
                "lookup-default",
                lookup("patient.birth", "default", None, &[]),
                Value::Date(-7353),
                Padding::None,
            ),
            (
                "sixteen bytes, one block",
                "lookup-default",
                lookup("patient.raw", "default", None, &[]),
                Value::Bytes(b"fifteen bytes.."),
                Padding::None,
            ),
            (
                "policy accepts both suites",
                "lookup-default",
                both(lookup("patient.mrn", "default", None, &[])),
                mrn,
                Padding::None,
            ),
        ];
        let mut sealed = Vec::new();
        for (note, key, opening, value, padding) in positives {
            let (bytes, json) = self.seal(note, &Sample { key, opening: opening.clone(), value, padding });
            cases.push(note, json);
            sealed.push((opening, bytes));
        }
        assert_eq!(sealed[1].1, sealed[2].1, "joined fields give equal ciphertexts");
        for (opening, bytes) in [&sealed[0], &sealed[1]] {
            damaged(&mut cases, opening, bytes, 42, 0);
        }
        let (base, bytes) = &sealed[3];
        self.misused(&mut cases, base, bytes);
        let failed = "DecryptionFailed";
        let (plain, plain_bytes) = &sealed[0];
        let (joined, joined_bytes) = &sealed[1];
        cases.negative(
            "another join group",
            failed,
            &lookup("patient.id", "default", Some("device"), &[]),
            joined_bytes,
        );
        cases.negative(
            "a field of the join group's name",
            failed,
            &lookup("patient", "default", None, &[]),
            joined_bytes,
        );
        cases.negative(
            "a join group of the field's name",
            failed,
            &lookup("x", "default", Some("patient.mrn"), &[]),
            plain_bytes,
        );
        cases.negative("another partition", "WrongScope", &lookup("patient.mrn", "study", None, &[]), plain_bytes);
        cases.negative("the other partition's value", "WrongScope", plain, &sealed[4].1);
        cases.negative(
            "unknown partition",
            "Configuration",
            &lookup("patient.mrn", "elsewhere", None, &[]),
            plain_bytes,
        );
        cases.negative(
            "row binding given",
            "InvalidInput",
            &Opening { row: Some(b"r".to_vec()), ..plain.clone() },
            plain_bytes,
        );
        cases.negative("field is randomised by policy", "PolicyRefused", &field("patient.mrn", &[], None), plain_bytes);
        let other_suite = {
            let mut b = plain_bytes.clone();
            b[1] = 1;
            b.extend([0; 30]);
            b
        };
        cases.negative("as suite 01, accepted, under a lookup key", "WrongScope", &both(plain.clone()), &other_suite);
        for (key, expect) in [
            ("data", "WrongScope"),
            ("scope-names", "WrongScope"),
            ("root-1", "WrongScope"),
            ("lookup-study", "WrongScope"),
            ("lookup-default-old", failed),
        ] {
            let mut claimed = plain_bytes.clone();
            claimed[2..26].copy_from_slice(self.key(key).key_id().as_bytes());
            cases.negative(&format!("key ID of {key}"), expect, plain, &claimed);
        }
        for (note, a, b) in [("synthetic IV of another value", 42, 1), ("header of another generation", 26, 5)] {
            cases.negative(note, failed, plain, &[&sealed[b].1[..a], &plain_bytes[a..]].concat());
        }
        cases.negative("IV and ciphertext exchanged with the joined value", failed, joined, plain_bytes);
        ("deterministic.json", head("suite 02: what opens, and what must not"), cases.1)
    }

    fn values(&self) -> File {
        let mut cases = Cases("value", Vec::new());
        let opening = field("v", &[], None);
        let long: &'static str = "padding hides how long a text is, up to a point; this one has more than a hundred bytes, so that Padmé rounds by more than one";
        let positives: Vec<(Value<'static>, Padding)> = [
            Value::Null,
            Value::Bytes(b""),
            Value::Bytes(&[0, 0xFF, 0x80]),
            Value::Text(""),
            Value::Text("123-45-6789"),
            Value::Text("Zoë 田中 \u{1F600}"),
            Value::Text("e\u{301}"),
            Value::Text(long),
            Value::Integer(0),
            Value::Integer(127),
            Value::Integer(128),
            Value::Integer(-1),
            Value::Integer(-128),
            Value::Integer(-129),
            Value::Integer(i128::MAX),
            Value::Integer(i128::MIN),
            Value::Integer(i64::MAX as i128),
            Value::Decimal("1.50"),
            Value::Decimal("39.155185939682845"),
            Value::Decimal("-0"),
            Value::Decimal("1E+5"),
            Value::Float(0.0),
            Value::Float(-0.0),
            Value::Float(6.5),
            Value::Float(f64::NAN),
            Value::Float(f64::NEG_INFINITY),
            Value::Float(5e-324),
            Value::Boolean(false),
            Value::Boolean(true),
            Value::Date(0),
            Value::Date(-7353),
            Value::Date(i32::MAX),
            Value::Date(i32::MIN),
            Value::Timestamp { seconds: 0, nanoseconds: 0 },
            Value::Timestamp { seconds: -1, nanoseconds: 999_999_999 },
            Value::Timestamp { seconds: i64::MAX, nanoseconds: 1 },
            Value::Json("{\"b\": 1, \"a\": [1.50]}"),
            Value::Json("\"\\u00e9\""),
        ]
        .into_iter()
        .map(|v| (v, Padding::None))
        .chain([
            (Value::Text(""), Padding::Multiple(16)),
            (Value::Text("fourteen bytes"), Padding::Multiple(16)),
            (Value::Text("fifteen bytes.."), Padding::Multiple(16)),
            (Value::Null, Padding::Multiple(2)),
            (Value::Bytes(&[0x80, 0, 0]), Padding::Multiple(8)),
            (Value::Integer(7), Padding::Multiple(4096)),
            (Value::Text(""), Padding::Padme),
            (Value::Text(long), Padding::Padme),
            (Value::Bytes(&[0; 40]), Padding::Padme),
        ])
        .collect();
        for (i, (value, padding)) in positives.into_iter().enumerate() {
            let sample = Sample { key: "data", opening: opening.clone(), value, padding };
            let (_, mut json) = self.seal(&format!("value {i}"), &sample);
            let map = json.as_object_mut().expect("an object");
            map.insert(
                "padding".into(),
                match padding {
                    Padding::Multiple(n) => json!(n),
                    Padding::Padme => json!("padme"),
                    _ => json!("none"),
                },
            );
            cases.push(value.value_type().name(), json);
        }
        let t = |kind: ValueType, bytes: &[u8]| [&[kind as u8], bytes].concat();
        let p = |kind: ValueType, bytes: &[u8]| [&[kind as u8 | 0x80], bytes].concat();
        use ValueType::{Boolean, Date, Decimal, Float, Integer, Json as J, Null, Text, Timestamp};
        let mut bad: Vec<(String, Vec<u8>)> = vec![
            ("format byte 0".into(), vec![0, b'a']),
            ("format byte 0 and padding".into(), vec![0x80, 0x80]),
            ("unknown type 11".into(), vec![11]),
            ("unknown type 127".into(), vec![127]),
            ("unknown type 11, padded".into(), vec![0x8B, 0x80]),
            ("null with a byte".into(), t(Null, &[0])),
            ("integer without bytes".into(), t(Integer, &[])),
            ("integer with a redundant 00".into(), t(Integer, &[0, 1])),
            ("integer with a redundant FF".into(), t(Integer, &[0xFF, 0x80])),
            ("integer 0 in two bytes".into(), t(Integer, &[0, 0])),
            ("integer of 17 bytes".into(), t(Integer, &[1; 17])),
            ("boolean without bytes".into(), t(Boolean, &[])),
            ("boolean 2".into(), t(Boolean, &[2])),
            ("boolean FF".into(), t(Boolean, &[0xFF])),
            ("boolean of two bytes".into(), t(Boolean, &[0, 1])),
            ("date of 3 bytes".into(), t(Date, &[0; 3])),
            ("date of 5 bytes".into(), t(Date, &[0; 5])),
            ("timestamp of 8 bytes".into(), t(Timestamp, &[0; 8])),
            ("timestamp of 13 bytes".into(), t(Timestamp, &[0; 13])),
            (
                "timestamp with 10⁹ nanoseconds".into(),
                t(Timestamp, &[&[0; 8][..], &1_000_000_000_u32.to_be_bytes()].concat()),
            ),
            ("float of 4 bytes".into(), t(Float, &[0; 4])),
            ("NaN with another payload".into(), t(Float, &0x7FF8_0000_0000_0001_u64.to_be_bytes())),
            ("negative NaN".into(), t(Float, &0xFFF8_0000_0000_0000_u64.to_be_bytes())),
            ("signalling NaN".into(), t(Float, &0x7FF0_0000_0000_0001_u64.to_be_bytes())),
            ("text with FF".into(), t(Text, &[0xFF])),
            ("text with an overlong slash".into(), t(Text, &[0xC0, 0xAF])),
            ("text with a surrogate".into(), t(Text, &[0xED, 0xA0, 0x80])),
            ("text cut in a character".into(), t(Text, &[0xE7, 0x94])),
            ("JSON with FF".into(), t(J, &[0xFF])),
            ("decimal with FF".into(), t(Decimal, &[0xFF])),
            ("padded without padding".into(), p(Text, &[])),
            ("padded, no 80 before the zeros".into(), p(Text, b"a\0\0")),
            ("padded, only zeros".into(), p(Text, &[0; 15])),
            ("padded, 81 before the zeros".into(), p(Text, b"a\x81\0")),
            ("padded, a byte after the zeros".into(), p(Text, b"a\x80\0\x01")),
            ("padded null with a byte".into(), p(Null, &[0, 0x80])),
            ("padded boolean without value".into(), p(Boolean, &[0x80])),
            ("padded integer with a redundant 00".into(), p(Integer, &[0, 1, 0x80, 0])),
            ("padded text with FF".into(), p(Text, &[0xFF, 0x80])),
        ];
        for decimal in [
            "", "-", "+1", "01", "1.", ".5", "1e", "1e+", "0x1", "NaN", "Infinity", "1 ", " 1", "1_000", "1,5", "--1",
            "１",
        ] {
            bad.push((format!("decimal {decimal:?}"), t(Decimal, decimal.as_bytes())));
        }
        for id in [12_u8, 32, 64, 100] {
            bad.push((format!("unknown type {id} with a text"), [&[id][..], b"text"].concat()));
        }
        for decimal in ["1.2.3", "1e1.5", "e5", "-.5", "1e5e5", "\u{2212}1", "1\0"] {
            bad.push((format!("decimal {decimal:?}"), t(Decimal, decimal.as_bytes())));
        }
        for (note, encoded) in bad {
            let (_, mut json) = self.seal_encoded(&note, "data", &opening, &encoded);
            json.as_object_mut().expect("an object").insert("expect".into(), json!("DecryptionFailed"));
            cases.push(&note, json);
        }
        (
            "value.json",
            head("encoded values under valid tags: each type, padding, and encodings that are refused"),
            cases.1,
        )
    }

    fn text(&self) -> File {
        let mut cases = Cases("text", Vec::new());
        let openings = [
            (field("patient.ssn", &[], Some("row-1")), "data"),
            (lookup("patient.mrn", "default", None, &[]), "lookup-default"),
        ];
        let mut texts = Vec::new();
        // Lengths of 0 to 3 reach every remainder of base64.
        for (opening, key) in &openings {
            for value in ["", "a", "ab", "abc"] {
                let sample =
                    Sample { key, opening: opening.clone(), value: Value::Text(value), padding: Padding::None };
                let (bytes, mut json) = self.seal(&format!("text {key} {value}"), &sample);
                let text = text_of(&bytes);
                let map = json.as_object_mut().expect("an object");
                map.remove("sealed");
                map.insert("text".into(), json!(text));
                cases.push(&format!("suite {:02x}, a text of {} bytes", bytes[1], value.len()), json);
                texts.push((opening, text));
            }
        }
        let mut negative = |note: &str, expect: &str, opening: &Opening, text: String| {
            cases.push(note, json!({ "open": opening_json(opening), "text": text, "expect": expect }));
        };
        for (opening, text) in [&texts[1], &texts[5]] {
            let body = &text[15..];
            let bad = "Malformed";
            negative("empty", bad, opening, String::new());
            negative("prefix alone", bad, opening, "kf1.".into());
            for len in [3, 4, 6, 14, 15, 16, 40, 55] {
                negative(&format!("the first {len} characters"), bad, opening, text[..len].into());
            }
            negative("KF1 in upper case", bad, opening, text.replace("kf1.", "KF1."));
            negative("kf2", bad, opening, text.replace("kf1.", "kf2."));
            negative("another first dot", bad, opening, text.replacen('.', "-", 1));
            negative("another second dot", bad, opening, format!("{}:{body}", &text[..14]));
            negative("no second dot", bad, opening, format!("{}{body}", &text[..14]));
            negative("space in front", bad, opening, format!(" {text}"));
            negative("byte order mark in front", bad, opening, format!("\u{FEFF}{text}"));
            for (note, end) in [
                ("space", " "),
                ("line feed", "\n"),
                ("carriage return and line feed", "\r\n"),
                ("NUL", "\0"),
                ("base64 padding", "="),
                ("base64 padding twice", "=="),
            ] {
                negative(&format!("{note} at the end"), bad, opening, format!("{text}{end}"));
            }
            negative("a line feed within", bad, opening, format!("{}\n{}", &text[..30], &text[30..]));
            negative("quoted", bad, opening, format!("\"{text}\""));
            negative("generation in upper case", bad, opening, format!("{}0000000A.{body}", &text[..6]));
            negative("generation of seven digits", bad, opening, format!("{}{}", &text[..6], &text[7..]));
            negative("suite of one digit", bad, opening, format!("kf1.{}", &text[5..]));
            negative("a plus sign for a digit", bad, opening, format!("{}+{}", &text[..6], &text[7..]));
            for (at, c) in [(20, '+'), (21, '/'), (22, '='), (23, ' '), (24, '.'), (25, 'é'), (26, '\u{FF21}')] {
                negative(
                    &format!("{c:?} among the base64url characters"),
                    bad,
                    opening,
                    format!("{}{c}{}", &text[..at], &text[at + 1..]),
                );
            }
            for suite in ["00", "03", "04", "05", "06", "07", "08", "7f", "80", "fe", "ff"] {
                negative(&format!("suite {suite}"), "Unsupported", opening, format!("kf1.{suite}{}", &text[6..]));
            }
            negative("suite in upper case", bad, opening, format!("kf1.FF{}", &text[6..]));
            // Two faults: the suite decides what follows the dot, not what precedes it.
            for (note, expect, two) in [
                ("suite 03 and a stray character", "Unsupported", format!("kf1.03{}+{}", &text[6..20], &text[21..])),
                ("suite ff and base64 padding at the end", "Unsupported", format!("kf1.ff{}=", &text[6..])),
                ("suite 80 and nothing after the dot", "Unsupported", format!("kf1.80{}", &text[6..15])),
                ("suite 03 and a generation in upper case", bad, format!("kf1.030000000A.{body}")),
                ("suite 03 and no second dot", bad, format!("kf1.03{}{body}", &text[6..14])),
            ] {
                negative(note, expect, opening, two);
            }
            negative("another generation", "NoMatchingKey", opening, format!("{}000000ff.{body}", &text[..6]));
            negative("generation 0", "NoMatchingKey", opening, format!("{}00000000.{body}", &text[..6]));
            let exchange = |at: usize| {
                let c = if &text[at..=at] == "A" { "B" } else { "A" };
                format!("{}{c}{}", &text[..at], &text[at + 1..])
            };
            negative("another fingerprint", "NoMatchingKey", opening, exchange(15));
            negative("another nonce or synthetic IV", "DecryptionFailed", opening, exchange(45));
            negative(
                "another character in the ciphertext or tag",
                "DecryptionFailed",
                opening,
                exchange(text.len() - 2),
            );
            negative("four characters more", "DecryptionFailed", opening, format!("{text}AAAA").replace("==", ""));
        }
        // Stray bits: a last character that decodes to the same bytes, and one that leaves a lone character.
        for (opening, text) in &texts {
            let bits = match (text.len() - 15) % 4 {
                2 => 4,
                3 => 2,
                _ => continue,
            };
            let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let last = text.as_bytes()[text.len() - 1];
            let index = alphabet.iter().position(|&c| c == last).expect("it is base64url");
            for stray in 1..(1 << bits).min(4) {
                let c = alphabet[index | stray] as char;
                negative(
                    &format!("stray bits {stray} in the last character"),
                    "Malformed",
                    opening,
                    format!("{}{c}", &text[..text.len() - 1]),
                );
            }
        }
        ("text.json", head("the text form: exactly one text of each value is accepted"), cases.1)
    }

    /// Records that the store serves in place of the right one, and a value that needs them.
    fn records(&self) -> File {
        let mut cases = Cases("record", Vec::new());
        let probes: Vec<(&str, Opening, Vec<u8>)> =
            [("data", None), ("clinic-17", Some("clinic-17")), ("clinic-18", Some("clinic-18"))]
                .into_iter()
                .map(|(key, scope)| {
                    let opening = Opening { scope: scope.map(Into::into), ..field("probe", &[], None) };
                    let sample =
                        Sample { key, opening: opening.clone(), value: Value::Text("probe"), padding: Padding::None };
                    (key, opening, self.seal(&format!("probe {key}"), &sample).0)
                })
                .collect();
        let mut put = |note: &str, expect: &str, probe: &str, asked: KeyId, record: &[u8], more: Json| {
            let (_, opening, sealed) = probes.iter().find(|(key, ..)| *key == probe).expect("a probe");
            let mut case = json!({
                "asked": asked.to_string(), "record": hex(record), "open": opening_json(opening), "sealed": hex(sealed), "expect": expect,
            });
            let map = case.as_object_mut().expect("an object");
            if expect == "ok" {
                map.insert("type".into(), json!("text"));
                map.insert("value".into(), json!(hex("probe")));
            }
            map.extend(more.as_object().cloned().unwrap_or_default());
            cases.push(note, case);
        };
        let none = || json!({});
        let id = |name: &str| self.key(name).key_id();
        let data = &self.member("data").parts;
        let root = &self.member("root-1").parts;
        let root_2 = &self.member("root-2").parts;
        let good = data.to_bytes();
        let kek_wrap = |key: &Key| WrapParts {
            kind: 2,
            alias: ALIAS.into(),
            version: kek_id(&kek()),
            bytes: kwp(&kek(), &key.kek_payload(ENVIRONMENT)),
        };
        let with = |parts: &RecordParts<'static>, change: &dyn Fn(&mut RecordParts<'static>)| {
            let mut parts = parts.clone();
            change(&mut parts);
            parts.to_bytes()
        };
        // What a root may well say.
        put("the record", "ok", "data", id("data"), &good, none());
        for (state, expect) in [
            (KeyState::PreActive, "ok"),
            (KeyState::Deactivated, "ok"),
            (KeyState::Compromised, "KeyState"),
            (KeyState::DestroyPending, "KeyState"),
        ] {
            put(
                &format!("state {}", state.name()),
                expect,
                "data",
                id("data"),
                &with(data, &|p| p.state = state),
                none(),
            );
            put(
                &format!("root in state {}", state.name()),
                expect,
                "data",
                id("root-1"),
                &with(root, &|p| p.state = state),
                none(),
            );
        }
        let tombstone = |p: &mut RecordParts<'static>| {
            p.state = KeyState::Destroyed;
            p.wraps.clear();
        };
        put("tombstone", "KeyState", "data", id("data"), &with(data, &tombstone), none());
        let by_another = |p: &mut RecordParts<'static>| {
            tombstone(p);
            p.root = self.key("root-2");
        };
        put("tombstone of a root", "KeyState", "data", id("root-1"), &with(root, &by_another), none());
        put("tombstone of a root, signed by itself", "KeyState", "data", id("root-1"), &with(root, &tombstone), none());
        put("a later sequence", "ok", "data", id("data"), &with(data, &|p| p.sequence = u64::MAX), none());
        put(
            "sequence and times of zero",
            "ok",
            "data",
            id("data"),
            &with(data, &|p| (p.sequence, p.times) = (0, [0; 3])),
            none(),
        );
        put(
            "an extension that need not be understood",
            "ok",
            "data",
            id("data"),
            &with(data, &|p| p.extensions = b"\x7f\xff\x00\x02ok".to_vec()),
            none(),
        );
        put(
            "a wrap that need not be understood",
            "ok",
            "data",
            id("data"),
            &with(data, &|p| {
                p.wraps.push(WrapParts { kind: 3, alias: "\0".into(), version: String::new(), bytes: vec![] })
            }),
            none(),
        );
        put(
            "a second KEK that is not configured",
            "ok",
            "data",
            id("root-1"),
            &with(root, &|p| {
                let mut w = p.wraps[0].clone();
                w.alias = "elsewhere".into();
                p.wraps.insert(0, w);
            }),
            none(),
        );
        put(
            "a first wrap that does not unwrap",
            "ok",
            "data",
            id("root-1"),
            &with(root, &|p| {
                let mut w = p.wraps[0].clone();
                w.bytes[0] ^= 1;
                p.wraps.insert(0, w);
            }),
            none(),
        );

        // Every field of the layout, one bit each, with the MAC left as it was.
        let env = 182 + ENVIRONMENT.len();
        let spots: Vec<(&str, usize, &str)> = vec![
            ("magic", 0, "Malformed"),
            ("magic", 2, "Malformed"),
            ("layout version", 3, "Unsupported"),
            ("class", 4, "RecordRejected"),
            ("generation", 9, "RecordRejected"),
            ("fingerprint", 10, "Malformed"),
            ("fingerprint", 29, "Malformed"),
            ("commitment", 30, "Malformed"),
            ("commitment", 49, "Malformed"),
            ("commitment", 50, "RecordRejected"),
            ("commitment", 61, "RecordRejected"),
            ("authenticator", 65, "RecordRejected"),
            ("authenticator", 85, "RecordRejected"),
            ("lineage", 86, "RecordRejected"),
            ("lineage", 101, "RecordRejected"),
            ("slot", 102, "RecordRejected"),
            ("slot", 117, "RecordRejected"),
            ("scope tag", 118, "RecordRejected"),
            ("scope tag", 149, "RecordRejected"),
            ("sequence", 157, "RecordRejected"),
            ("created", 165, "RecordRejected"),
            ("activated", 173, "RecordRejected"),
            ("changed", 181, "RecordRejected"),
            ("length of the environment", 182, "Malformed"),
            ("environment", 183, "RecordRejected"),
            ("number of wraps", env + 1, "Malformed"),
            ("wrap type", env + 2, "Malformed"),
            ("length of the alias", env + 3, "Malformed"),
            ("length of the KEK version", env + 4, "Malformed"),
            ("length of the wrap", env + 6, "Malformed"),
            ("wrap nonce", env + 7, "RecordRejected"),
            ("wrapped key", env + 31, "RecordRejected"),
            ("wrap tag", env + 78, "RecordRejected"),
            ("endorsement flag", env + 79, "Malformed"),
            ("length of the extensions", env + 81, "Malformed"),
            ("MAC", env + 82, "RecordRejected"),
            ("MAC", env + 113, "RecordRejected"),
        ];
        assert_eq!(good.len(), env + 114, "the layout of a record with one root wrap");
        for (what, at, expect) in spots {
            put(
                &format!("{what} (byte {at}): one bit flipped"),
                expect,
                "data",
                id("data"),
                &flipped(&good, at, 0),
                none(),
            );
        }
        put(
            "state: active to deactivated",
            "RecordRejected",
            "data",
            id("data"),
            &{
                let mut b = good.clone();
                b[5] = 3;
                b
            },
            none(),
        );
        put(
            "state: active to destroyed",
            "Malformed",
            "data",
            id("data"),
            &{
                let mut b = good.clone();
                b[5] = 6;
                b
            },
            none(),
        );
        put(
            "sequence raised",
            "RecordRejected",
            "data",
            id("data"),
            &{
                let mut b = good.clone();
                b[150..158].copy_from_slice(&9_u64.to_be_bytes());
                b
            },
            none(),
        );
        for len in
            [0, 3, 4, 5, 29, 61, 182, 183, env + 1, env + 2, env + 40, good.len() - 33, good.len() - 32, good.len() - 1]
        {
            put(&format!("the first {len} bytes"), "Malformed", "data", id("data"), &good[..len], none());
        }
        put("a byte more", "Malformed", "data", id("data"), &[&good[..], &[0]].concat(), none());
        put("the record twice", "Malformed", "data", id("data"), &[&good[..], &good].concat(), none());

        // Under a good MAC: what even a root may not say. Bytes are edited and the root signs again.
        let signed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut body = good[..good.len() - 32].to_vec();
            change(&mut body);
            let mac = self.key("root-1").record_mac(&body);
            body.extend_from_slice(&mac);
            body
        };
        let wrap_at = env + 2;
        let with_wrap = |wrap: &[u8]| {
            signed(&|b| {
                b[env + 1] = 2;
                b.splice(env + 79..env + 79, wrap.iter().copied());
            })
        };
        let edits: Vec<(&str, &str, Vec<u8>)> = vec![
            ("layout version 2", "Unsupported", signed(&|b| b[3] = 2)),
            ("class 0", "Unsupported", signed(&|b| b[4] = 0)),
            ("class 5", "Unsupported", signed(&|b| b[4] = 5)),
            ("state 0", "Unsupported", signed(&|b| b[5] = 0)),
            ("state 7", "Unsupported", signed(&|b| b[5] = 7)),
            ("generation 0", "Malformed", signed(&|b| b[6..10].fill(0))),
            ("environment that is not UTF-8", "Malformed", signed(&|b| b[183] = 0xFF)),
            ("endorsement flag 2", "Malformed", signed(&|b| b[env + 79] = 2)),
            (
                "endorsement of a data key",
                "Malformed",
                signed(&|b| {
                    b[env + 79] = 1;
                    b.splice(env + 80..env + 80, [0; 56]);
                }),
            ),
            (
                "nine wraps",
                "Malformed",
                signed(&|b| {
                    let wrap = b[wrap_at..env + 79].to_vec();
                    b[env + 1] = 9;
                    for _ in 0..8 {
                        b.splice(wrap_at..wrap_at, wrap.clone());
                    }
                }),
            ),
            (
                "live key without a wrap",
                "Malformed",
                signed(&|b| {
                    b[env + 1] = 0;
                    b.drain(wrap_at..env + 79);
                }),
            ),
            ("tombstone with a wrap", "Malformed", with(data, &|p| p.state = KeyState::Destroyed)),
            ("wrap of type 0", "Malformed", with(data, &|p| p.wraps[0].kind = 0)),
            ("wrap of critical type 80", "Unsupported", with(data, &|p| p.wraps[0].kind = 0x80)),
            (
                "wrap of critical type FF beside a good one",
                "Unsupported",
                with(data, &|p| {
                    let mut w = p.wraps[0].clone();
                    w.kind = 0xFF;
                    p.wraps.push(w);
                }),
            ),
            ("root wrap with an alias", "Malformed", with(data, &|p| p.wraps[0].alias = "local".into())),
            ("root wrap with a version", "Malformed", with(data, &|p| p.wraps[0].version = "1".into())),
            ("root wrap of 71 bytes", "Malformed", with(data, &|p| p.wraps[0].bytes.truncate(71))),
            ("root wrap of 73 bytes", "Malformed", with(data, &|p| p.wraps[0].bytes.push(0))),
            (
                "wrap of 4,097 bytes",
                "Malformed",
                with(data, &|p| {
                    p.wraps.push(WrapParts {
                        kind: 2,
                        alias: "local".into(),
                        version: String::new(),
                        bytes: vec![0; 4097],
                    })
                }),
            ),
            (
                "unknown wrap of 4,097 bytes",
                "Malformed",
                with(data, &|p| {
                    p.wraps.push(WrapParts {
                        kind: 9,
                        alias: "local".into(),
                        version: String::new(),
                        bytes: vec![0; 4097],
                    })
                }),
            ),
            ("KEK version that is not UTF-8", "Malformed", with_wrap(b"\x02\x05local\x01\xff\0\0")),
            ("unknown wrap whose alias and version are not UTF-8", "ok", with_wrap(b"\x03\x01\xff\x01\xff\0\0")),
            ("only a wrap that this version does not know", "RecordRejected", with(data, &|p| p.wraps[0].kind = 3)),
            ("extension cut short", "Malformed", with(data, &|p| p.extensions = b"\x00\x01\x00\x05four".to_vec())),
            ("extension header cut short", "Malformed", with(data, &|p| p.extensions = b"\x00\x01\x00".to_vec())),
            (
                "extensions out of order",
                "Malformed",
                with(data, &|p| p.extensions = b"\x00\x02\x00\x00\x00\x01\x00\x00".to_vec()),
            ),
            (
                "an extension twice",
                "Malformed",
                with(data, &|p| p.extensions = b"\x00\x01\x00\x00\x00\x01\x00\x00".to_vec()),
            ),
            ("critical extension", "Unsupported", with(data, &|p| p.extensions = b"\x80\x00\x00\x00".to_vec())),
            (
                "critical extension after another",
                "Unsupported",
                with(data, &|p| p.extensions = b"\x00\x01\x00\x00\xff\xff\x00\x01x".to_vec()),
            ),
            (
                "more than 40 KiB",
                "Malformed",
                with(data, &|p| p.extensions = [&b"\x00\x01\xa0\x00"[..], &[0; 0xA000]].concat()),
            ),
            ("another environment", "RecordRejected", with(data, &|p| p.environment = "production")),
            ("no environment", "Malformed", with(data, &|p| p.environment = "")),
            ("MAC of another root", "RecordRejected", {
                let mut b = good[..good.len() - 32].to_vec();
                let mac = self.key("root-2").record_mac(&b);
                b.extend_from_slice(&mac);
                b
            }),
            ("MAC of zeros", "RecordRejected", [&good[..good.len() - 32], &[0; 32]].concat()),
            (
                "another root named, MAC of the right one",
                "RecordRejected",
                signed(&|b| b[62..86].copy_from_slice(id("root-2").as_bytes())),
            ),
            ("named as its own root", "RecordRejected", with(data, &|p| p.root = p.key)),
            ("a data key named as root", "RecordRejected", with(data, &|p| p.root = self.key("data-old"))),
            ("a root that the store does not have", "RecordRejected", with(data, &|p| p.root.generation = 77)),
            (
                "root wrap of another key",
                "RecordRejected",
                with(data, &|p| p.wraps[0].bytes = self.member("data-old").parts.wraps[0].bytes.clone()),
            ),
            (
                "root wrap bound to another generation",
                "RecordRejected",
                with(data, &|p| {
                    p.wraps[0].bytes = Key { generation: 99, ..p.key }.wrap(&p.root, &[1; 24]).expect("short").to_vec()
                }),
            ),
            (
                "root wrap bound to another scope",
                "RecordRejected",
                with(data, &|p| {
                    p.wraps[0].bytes =
                        Key { slot: slot("clinic-17"), ..p.key }.wrap(&p.root, &[1; 24]).expect("short").to_vec()
                }),
            ),
            (
                "root wrap bound to another class",
                "RecordRejected",
                with(data, &|p| {
                    p.wraps[0].bytes =
                        Key { class: KeyClass::Lookup, ..p.key }.wrap(&p.root, &[1; 24]).expect("short").to_vec()
                }),
            ),
            (
                "root wrap under another root",
                "RecordRejected",
                with(data, &|p| p.wraps[0].bytes = p.key.wrap(&self.key("root-2"), &[1; 24]).expect("short").to_vec()),
            ),
            ("wrapped by a KEK only: isolated", "ok", with(data, &|p| p.wraps = vec![kek_wrap(&p.key)])),
            (
                "isolated, the wrap is of another key",
                "InvalidCiphertext",
                with(data, &|p| p.wraps = vec![kek_wrap(&self.key("data-old"))]),
            ),
            (
                "isolated, the wrap does not unwrap",
                "InvalidCiphertext",
                with(data, &|p| p.wraps = vec![WrapParts { bytes: vec![7; 72], ..kek_wrap(&p.key) }]),
            ),
            (
                "isolated, under a KEK that is not configured",
                "Configuration",
                with(data, &|p| p.wraps = vec![WrapParts { alias: "other".into(), ..kek_wrap(&p.key) }]),
            ),
            (
                "isolated, under two KEKs, one of them not configured",
                "ok",
                with(data, &|p| {
                    p.wraps = vec![WrapParts { alias: "other".into(), ..kek_wrap(&p.key) }, kek_wrap(&p.key)]
                }),
            ),
            (
                "a wrap under a KEK before one under the root, which counts",
                "ok",
                with(data, &|p| p.wraps.insert(0, WrapParts { bytes: vec![7; 72], ..kek_wrap(&p.key) })),
            ),
            (
                "a wrap under the root that does not open before one under a KEK",
                "RecordRejected",
                with(data, &|p| {
                    p.wraps[0].bytes[0] ^= 1;
                    p.wraps.push(kek_wrap(&p.key));
                }),
            ),
            (
                "a wrap of an unknown kind only",
                "RecordRejected",
                with(data, &|p| p.wraps = vec![WrapParts { kind: 9, ..kek_wrap(&p.key) }]),
            ),
            ("the record of another key", "RecordRejected", self.member("data-old").parts.to_bytes()),
            ("the record of a key of another scope", "RecordRejected", self.member("clinic-17").parts.to_bytes()),
            ("a root's record", "RecordRejected", root.to_bytes()),
        ];
        for (note, expect, record) in edits {
            put(note, expect, "data", id("data"), &record, none());
        }
        // The same key in another slot: the value's own class of refusal.
        let clinic = &self.member("clinic-17").parts;
        put(
            "scope tag of another scope",
            "NoMatchingKey",
            "clinic-17",
            id("clinic-17"),
            &with(clinic, &|p| p.scope_tag = Some([7; 32])),
            none(),
        );
        put(
            "no scope tag",
            "NoMatchingKey",
            "clinic-17",
            id("clinic-17"),
            &with(clinic, &|p| p.scope_tag = None),
            none(),
        );
        // Another record of the slot. Finding a scope depends on its newest one; opening without a scope on none.
        let newer = |key: Key, scope_tag| {
            let mut parts = RecordParts { key, scope_tag, ..clinic.clone() };
            parts.wraps[0].bytes = key.wrap(&parts.root, &[1; 24]).expect("short").to_vec();
            (key.key_id(), parts.to_bytes())
        };
        let unsigned = |(id, record): (KeyId, Vec<u8>)| {
            let last = record.len() - 1;
            (id, flipped(&record, last, 0))
        };
        let later = |key: Key| Key { bytes: bytes("later"), generation: 99, ..key };
        let in_scope = later(clinic.key);
        for (note, expect, probe, (asked, record)) in [
            ("a later key of the scope without its tag", "RecordRejected", "clinic-17", newer(in_scope, None)),
            (
                "a later key of the scope that no root vouches for",
                "RecordRejected",
                "clinic-17",
                unsigned(newer(in_scope, clinic.scope_tag)),
            ),
            (
                "a later lookup key in the slot of the scope",
                "ok",
                "clinic-17",
                newer(Key { class: KeyClass::Lookup, ..in_scope }, None),
            ),
            ("a later key of the slot that no root vouches for", "ok", "data", unsigned(newer(later(data.key), None))),
        ] {
            put(note, expect, probe, asked, &record, none());
        }

        // Roots.
        let local = |bytes: Vec<u8>| WrapParts { kind: 2, alias: ALIAS.into(), version: kek_id(&kek()), bytes };
        let two_wraps = |first: &dyn Fn(&mut WrapParts), second: &dyn Fn(&mut WrapParts)| {
            with(root, &|p| {
                p.wraps.push(p.wraps[0].clone());
                first(&mut p.wraps[0]);
                second(&mut p.wraps[1]);
            })
        };
        let roots: Vec<(&str, &str, Vec<u8>)> = vec![
            ("root named by another authenticator", "RecordRejected", with(root, &|p| p.root = self.key("root-2"))),
            ("root with one bit of its MAC flipped", "RecordRejected", {
                let b = root.to_bytes();
                flipped(&b, b.len() - 1, 0)
            }),
            ("root of another environment", "RecordRejected", with(root, &|p| p.environment = "production")),
            ("root cut short", "Malformed", root.to_bytes()[..200].to_vec()),
            ("root of layout version 2", "Unsupported", flipped(&flipped(&root.to_bytes(), 3, 0), 3, 1)),
            ("root's slot, one bit flipped", "InvalidCiphertext", flipped(&root.to_bytes(), 117, 0)),
            ("root's state edited to compromised", "KeyState", {
                let mut b = root.to_bytes();
                b[5] = KeyState::Compromised.id();
                b
            }),
            ("first wrap of another KEK, second damaged: the last refusal counts", "InvalidCiphertext", {
                two_wraps(&|w| w.version = "0123456789abcdef".into(), &|w| w.bytes[40] ^= 1)
            }),
            ("first wrap damaged, second of another KEK: the last refusal counts", "WrongKey", {
                two_wraps(&|w| w.bytes[40] ^= 1, &|w| w.version = "0123456789abcdef".into())
            }),
            ("first wrap damaged, second under an alias that is not configured", "InvalidCiphertext", {
                two_wraps(&|w| w.bytes[40] ^= 1, &|w| w.alias = "elsewhere".into())
            }),
            ("first payload bound to another environment, second good", "ok", {
                two_wraps(&|w| w.bytes = kwp(&kek(), &root.key.kek_payload("production")), &|_| ())
            }),
            ("first payload with the right binding and another key, second good", "RecordRejected", {
                let mut payload = root.key.kek_payload(ENVIRONMENT);
                payload[0] ^= 1;
                two_wraps(&|w| w.bytes = kwp(&kek(), &payload), &|_| ())
            }),
            (
                "payload bound to another environment",
                "InvalidCiphertext",
                with(root, &|p| p.wraps[0] = local(kwp(&kek(), &p.key.kek_payload("production")))),
            ),
            (
                "payload bound to another root",
                "InvalidCiphertext",
                with(root, &|p| p.wraps[0] = local(kwp(&kek(), &self.key("root-2").kek_payload(ENVIRONMENT)))),
            ),
            (
                "payload bound to another generation",
                "InvalidCiphertext",
                with(root, &|p| {
                    p.wraps[0] = local(kwp(&kek(), &Key { generation: 9, ..p.key }.kek_payload(ENVIRONMENT)))
                }),
            ),
            (
                "right binding, another key",
                "RecordRejected",
                with(root, &|p| {
                    let mut payload = p.key.kek_payload(ENVIRONMENT);
                    payload[0] ^= 1;
                    p.wraps[0] = local(kwp(&kek(), &payload));
                }),
            ),
            (
                "wrapped under another KEK",
                "InvalidCiphertext",
                with(root, &|p| p.wraps[0] = local(kwp(&[9; 32], &p.key.kek_payload(ENVIRONMENT)))),
            ),
            ("wrap with one bit flipped", "InvalidCiphertext", with(root, &|p| p.wraps[0].bytes[40] ^= 1)),
            (
                "wrap of another local KEK's version",
                "WrongKey",
                with(root, &|p| p.wraps[0].version = "0123456789abcdef".into()),
            ),
            ("wrap without a version", "WrongKey", with(root, &|p| p.wraps[0].version.clear())),
            ("wrap without bytes", "InvalidCiphertext", with(root, &|p| p.wraps[0].bytes.clear())),
            (
                "wrap under an alias that is not configured",
                "Configuration",
                with(root, &|p| p.wraps[0].alias = "elsewhere".into()),
            ),
            (
                "alias in upper case",
                "Malformed",
                with(root, &|p| {
                    p.wraps[0].alias = "LOCAL".into();
                    p.wraps[0].kind = 2;
                }),
            ),
            ("alias with a slash", "Malformed", with(root, &|p| p.wraps[0].alias = "arn/x".into())),
            ("empty alias", "Malformed", with(root, &|p| p.wraps[0].alias.clear())),
            ("only a wrap that this version does not know", "Configuration", with(root, &|p| p.wraps[0].kind = 3)),
            (
                "root wrapped by a root",
                "Configuration",
                with(root, &|p| {
                    p.wraps = vec![WrapParts {
                        kind: 1,
                        alias: String::new(),
                        version: String::new(),
                        bytes: p.key.wrap(&p.key, &[1; 24]).expect("short").to_vec(),
                    }]
                }),
            ),
        ];
        for (note, expect, record) in roots {
            put(note, expect, "data", id("root-1"), &record, none());
        }
        put("the endorsed root", "ok", "clinic-18", id("root-2"), &root_2.to_bytes(), none());
        let planted = Key { bytes: bytes("planted"), ..self.key("root-2") };
        let endorsements: Vec<(&str, Vec<u8>)> = vec![
            ("no endorsement", with(root_2, &|p| p.endorser = None)),
            ("endorsed by itself", with(root_2, &|p| p.endorser = Some(p.key))),
            (
                "endorsed by a root that the store does not have",
                with(root_2, &|p| p.endorser = Some(Key { generation: 77, ..self.key("root-1") })),
            ),
            ("endorsed by a data key", with(root_2, &|p| p.endorser = Some(self.key("data")))),
            ("endorsement MAC with one bit flipped", {
                let b = root_2.to_bytes();
                flipped(&b, b.len() - 32 - 2 - 1, 0)
            }),
            ("endorser with one bit flipped", {
                let b = root_2.to_bytes();
                flipped(&b, b.len() - 32 - 2 - 33, 0)
            }),
        ];
        for (note, record) in endorsements {
            put(note, "RecordRejected", "clinic-18", id("root-2"), &record, none());
        }
        put(
            "planted by one who may encrypt under the KEK: neither pinned nor endorsed",
            "RecordRejected",
            "clinic-18",
            id("root-2"),
            &with(root_2, &|p| {
                p.key = planted;
                p.root = planted;
                p.endorser = None;
                p.wraps[0] = local(kwp(&kek(), &planted.kek_payload(ENVIRONMENT)));
            }),
            none(),
        );
        put(
            "planted, with the endorsement of the real root",
            "RecordRejected",
            "clinic-18",
            id("root-2"),
            &{
                let real = root_2.to_bytes();
                let mut fake = with(root_2, &|p| {
                    p.key = planted;
                    p.root = planted;
                    p.wraps[0] = local(kwp(&kek(), &planted.kek_payload(ENVIRONMENT)));
                });
                let at = fake.len() - 32 - 2 - 56;
                let from = real.len() - 32 - 2 - 56;
                fake[at..at + 56].copy_from_slice(&real[from..from + 56]);
                let end = fake.len() - 32;
                let mac = planted.record_mac(&fake[..end]);
                fake[end..].copy_from_slice(&mac);
                fake
            },
            none(),
        );
        // What the configuration says.
        put(
            "another root is pinned",
            "RecordRejected",
            "data",
            id("data"),
            &good,
            json!({ "root_pins": [hex([1; 32])] }),
        );
        put(
            "the second root is pinned, this one is not",
            "RecordRejected",
            "data",
            id("data"),
            &good,
            json!({ "root_pins": [hex(self.key("root-2").commitment())] }),
        );
        put("nothing is pinned", "Configuration", "data", id("data"), &good, json!({ "root_pins": [] }));
        put(
            "another environment is configured",
            "RecordRejected",
            "data",
            id("data"),
            &good,
            json!({ "environment": "production" }),
        );
        put(
            "another KEK is configured",
            "WrongKey",
            "data",
            id("data"),
            &good,
            json!({ "keks": { ALIAS: hex([9; 32]) } }),
        );
        put(
            "the key that hides scope names is another",
            "NoMatchingKey",
            "clinic-17",
            id("data"),
            &good,
            json!({ "scope_names": KeyId::from_bytes([9; 24]).to_string() }),
        );
        put(
            "a partition's key hides scope names",
            "WrongScope",
            "clinic-17",
            id("data"),
            &good,
            json!({ "scope_names": id("lookup-default").to_string() }),
        );
        put(
            "both roots are pinned",
            "ok",
            "clinic-18",
            id("data"),
            &good,
            json!({ "root_pins": [hex(self.key("root-2").commitment()), hex(self.key("root-1").commitment())] }),
        );
        put(
            "the second root is pinned",
            "ok",
            "clinic-18",
            id("root-2"),
            &with(root_2, &|p| p.endorser = None),
            json!({ "root_pins": [hex(self.key("root-2").commitment()), hex(self.key("root-1").commitment())] }),
        );
        let _ = TIME;
        (
            "record.json",
            head("key records: the store serves `record` when it is asked for `asked`, then the value is opened"),
            cases.1,
        )
    }
}

fn bytes24(label: &str) -> [u8; 24] {
    bytes(&format!("nonce {label}"))
}

/// Sealed under `key`'s field key, even if it is of a class that seals no fields.
fn foreign_seal(key: &Key, nonce: &[u8; 24], aad: &[u8], encoded: &[u8]) -> Vec<u8> {
    key.seal_field(Backend::RustCrypto, nonce, aad, encoded).expect("short")
}

/// Truncations, appended bytes, flipped bits: the same for both suites but for where the body starts.
fn damaged(cases: &mut Cases, opening: &Opening, sealed: &[u8], body_at: usize, tag_len: usize) {
    let min = body_at + 1 + tag_len;
    for len in [0, 1, 2, 25, 26, body_at - 1, body_at, min - 1] {
        cases.negative(&format!("the first {len} bytes"), "Malformed", opening, &sealed[..len]);
    }
    for len in [min, sealed.len() - 1] {
        cases.negative(&format!("the first {len} bytes"), "DecryptionFailed", opening, &sealed[..len]);
    }
    cases.negative("a byte more", "DecryptionFailed", opening, &[sealed, &[0]].concat());
    cases.negative("a byte in front", "Malformed", opening, &[&[0][..], sealed].concat());
    for bit in [0, 7] {
        cases.negative(&format!("magic, bit {bit} flipped"), "Malformed", opening, &flipped(sealed, 0, bit));
    }
    for suite in [0x00, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x7F, 0x80, 0xFE, 0xFF] {
        let mut other = sealed.to_vec();
        other[1] = suite;
        let expect = if suite == Suite::Frame.id() { "PolicyRefused" } else { "Unsupported" };
        cases.negative(&format!("suite {suite:02x}"), expect, opening, &other);
    }
    for (at, what) in [(2, "generation"), (5, "generation"), (6, "fingerprint"), (25, "fingerprint")] {
        cases.negative(
            &format!("{what} (byte {at}): one bit flipped"),
            "NoMatchingKey",
            opening,
            &flipped(sealed, at, 3),
        );
    }
    for at in [26, body_at - 1, body_at, sealed.len() - 16, sealed.len() - 1] {
        cases.negative(&format!("byte {at}: one bit flipped"), "DecryptionFailed", opening, &flipped(sealed, at, 5));
    }
}
