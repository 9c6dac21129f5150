//! The keys of a keyring and of its audit chain, made again from its files.

use crate::child::{DOCUMENT, FAILED, STREAM};
use data_encoding::HEXLOWER;
use keyfold::aead::Backend;
use keyfold::aead::hazmat::{aes256gcm_open, cmac_aes256, hmac_sha256, xaes256gcm_open};
use keyfold::vectors::{Document, Key, Stream, body_aad};
use keyfold::wire::KeyId;
use keyfold::{Context, KeyClass, Kms, KmsContext, Lineage, Record, SlotId, UnwrapRequest, WrappedKey};
use keyfold_kms::local::LocalKek;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Secrets by their names.
pub(crate) type Secrets = Vec<(String, Vec<u8>)>;

/// Every key of the keyring in `folder`, by name: KEK, root, data and look-up keys, the purpose keys of each, and the AES-256-GCM keys of `prefixes` (of nonces,
/// salts, IDs) and of what the root has wrapped.
pub(crate) fn keys_of(folder: &Path, prefixes: &BTreeMap<String, String>) -> Secrets {
    let ring = keyfold_open::open(&folder.join("keyfold.toml"), &[]).unwrap();
    let records: Vec<Record> =
        pollster::block_on(ring.list(None, 100)).unwrap().into_iter().map(|info| info.record).collect();
    let of = |record: &Record, bytes: [u8; 32]| Key {
        bytes,
        lineage: record.lineage(),
        class: record.class(),
        slot: record.slot_id(),
        generation: record.key_id().generation(),
    };
    let record = records.iter().find(|record| record.class() == KeyClass::Root).unwrap();
    let kek = LocalKek::open(folder.join("local.kek")).unwrap();
    let (_, wrapped) = record.kek_wraps().next().unwrap();
    let payload = pollster::block_on(kek.unwrap(UnwrapRequest::new(wrapped, &record.kms_context()))).unwrap();
    let root = of(record, *payload.expose().first_chunk().unwrap());
    let child_wrap = &root.purpose_keys().into_iter().find(|(label, _)| label.ends_with("child-wrap")).unwrap().1;
    let child_wrap: &[u8; 32] = child_wrap[..].try_into().unwrap();
    let (mut keys, mut derived) = (vec![root], Vec::new());
    for record in records.iter().filter(|record| record.class() != KeyClass::Root) {
        let aad = [&of(record, [0; 32]).identity_bytes()[..], record.commitment()].concat();
        // nonce (24) ‖ ciphertext ‖ tag, wherever that is in the record.
        let opened = record.as_bytes().windows(72).find_map(|wrap| {
            let mut key = wrap[24..].to_vec();
            let nonce = wrap[..24].try_into().unwrap();
            xaes256gcm_open(Backend::default(), child_wrap, &nonce, &aad, &mut key).ok()?;
            Some((*key.first_chunk().unwrap(), *wrap.first_chunk().unwrap()))
        });
        let (key, prefix) = opened.expect("the key under the root");
        let key = of(record, key);
        derived.push((format!("{DERIVED} {} {}", key.class.name(), key.generation), derive(child_wrap, prefix)));
        keys.push(key);
    }
    let kek = fs::read_to_string(folder.join("local.kek")).unwrap();
    let kek = kek.lines().nth(1).unwrap().as_bytes();
    let mut all = vec![("KEK".to_owned(), HEXLOWER.decode(kek).unwrap()), ("KEK in its file".to_owned(), kek.to_vec())];
    for key in keys {
        assert!(records.iter().any(|record| record.key_id() == key.key_id()), "not the key of its record");
        all.push((format!("{} {}", key.class.name(), key.generation), key.bytes.to_vec()));
        for (label, bytes) in key.purpose_keys() {
            if label.ends_with("/01-field") {
                // Which of the data keys has sealed what, nobody asks.
                derived.extend(prefixes.iter().map(|(name, prefix)| {
                    let prefix = HEXLOWER.decode(prefix.as_bytes()).unwrap();
                    let derived = match name.as_str() {
                        STREAM | FAILED => stream_key(&key, &prefix),
                        DOCUMENT => document_key(&key, &prefix),
                        _ => derive(bytes[..].try_into().unwrap(), prefix.try_into().unwrap()),
                    };
                    (format!("{DERIVED} {name}, by data {}", key.generation), derived)
                }));
            }
            all.push((format!("{} {}: {label}", key.class.name(), key.generation), bytes));
        }
    }
    if let Some(sealed) = prefixes.get(DOCUMENT) {
        let body = HEXLOWER.decode(sealed.as_bytes()).unwrap().split_off(24);
        let opens = |(name, key): &&(String, Vec<u8>)| name.contains(DOCUMENT) && opens_body(key, &body);
        assert!(
            derived.iter().any(|derived| opens(&derived)),
            "the key of the document is among those that are looked for"
        );
    }
    all.extend(derived);
    all
}

/// The AES-256-GCM key of the nonces that start with `prefix` (FORMAT.md §4.5).
fn derive(key: &[u8; 32], prefix: [u8; 12]) -> Vec<u8> {
    [1, 2].map(|i| cmac_aes256(key, &[&[0, i, b'X', 0][..], &prefix].concat())).concat()
}

fn stream_key(key: &Key, salt: &[u8]) -> Vec<u8> {
    let stream = Stream::new(key, salt.try_into().unwrap(), "image", &Context::new(), None).unwrap();
    stream.message.key.to_vec()
}

fn document_key(key: &Key, id_and_body: &[u8]) -> Vec<u8> {
    Document::new(key, id_and_body.first_chunk().unwrap(), true, &Context::new(), None).unwrap().key.to_vec()
}

/// Whether `key` is that of the document whose body for `$.name` this is.
fn opens_body(key: &[u8], body: &[u8]) -> bool {
    let (nonce, body) = body.split_first_chunk().unwrap();
    let aad = body_aad("name", "$.name").unwrap();
    aes256gcm_open(Backend::default(), key.try_into().unwrap(), *nonce, &aad, &mut body.to_vec()).is_ok()
}

/// What the names of AES-256-GCM keys begin with: that of a value, of a column, of a stream, of a document, of a key that the root has wrapped.
pub(crate) const DERIVED: &str = "AES-256-GCM key of";

/// As [`keys_of`], of a keyring that is in nobody's use.
pub(crate) fn keys_of_other(folder: &Path) -> Secrets {
    if !folder.join("keyfold.toml").exists() {
        return Vec::new();
    }
    keys_of(folder, &BTreeMap::new()).into_iter().map(|(name, key)| (format!("{OTHER}, {name}"), key)).collect()
}

/// The audit KEK, the key that it wraps, and the keys of all lines so far and of the next one, which alone is held.
pub(crate) fn audit_keys_of(folder: &Path) -> Secrets {
    let file = folder.join("audit.kek");
    let (kek, digits) = (LocalKek::open(&file).unwrap(), fs::read_to_string(&file).unwrap());
    let digits = HEXLOWER.decode(digits.lines().nth(1).unwrap().as_bytes()).unwrap();
    let lines = fs::read_to_string(folder.join("audit.jsonl")).unwrap();
    let first: Json = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let text = |name: &str| first[name].as_str().unwrap().to_owned();
    let bytes = |name: &str| HEXLOWER.decode(text(name).as_bytes()).unwrap();
    let (lineage, chain): (Lineage, SlotId) = (text("lineage").parse().unwrap(), text("chain").parse().unwrap());
    let key_id = KeyId::new(0, &bytes("commitment").try_into().unwrap());
    let context = KmsContext::new(&text("environment"), lineage, key_id);
    let wrapped = WrappedKey { kek_version: text("kek_version"), bytes: bytes("wrapped") };
    let payload = pollster::block_on(kek.unwrap(UnwrapRequest::new(&wrapped, &context))).unwrap();
    let bytes = *payload.expose().first_chunk().unwrap();
    let key = Key { bytes, lineage, class: KeyClass::Audit, slot: chain, generation: 0 };
    assert_eq!(key.key_id(), key_id, "not the key of the chain");
    let mut secrets = vec![("audit KEK".to_owned(), digits), ("audit chain".to_owned(), bytes.to_vec())];
    let (_, mut of_line) = key.purpose_keys().remove(0);
    for line in 0..lines.lines().count() {
        let next = hmac_sha256(&of_line, &[2]).to_vec();
        secrets.push((format!("audit chain: line {line}"), std::mem::replace(&mut of_line, next)));
    }
    secrets.push((NEXT_LINE.to_owned(), of_line));
    secrets
}

/// The key of the line that is written next.
pub(crate) const NEXT_LINE: &str = "audit chain: the next line";
/// What the names of another keyring's keys begin with.
const OTHER: &str = "other";

/// The keys of the keyring that are used as they are, and so are in memory while it is open.
pub(crate) fn is_held(name: &str) -> bool {
    let is_of_ring = !name.starts_with(OTHER) && !name.starts_with("audit");
    name == "KEK" || is_of_ring && name.contains(": ") && !name.contains("token-proof")
}

/// Those, the keys of lines, and all of another keyring's, and those that are derived: what HMAC hashes and ciphers expand.
pub(crate) fn is_used(name: &str) -> bool {
    is_held(name) || name.starts_with("audit") || name.starts_with(OTHER) || name.starts_with(DERIVED)
}

/// Keys that are in memory expanded: held so, or for a call.
pub(crate) fn is_expanded(name: &str) -> bool {
    name.ends_with("/01-field") || name.ends_with("/child-wrap") || name.starts_with(DERIVED)
}
