//! What handles say of themselves: policy, keys, and nothing secret to whoever prints them.

use crate::common::lab::*;
use crate::common::{block_on, refused};
use keyfold::wire::{Frame, Sealed, SealedValue, Suite, looks_sealed, looks_sealed_text};
use keyfold::{
    CopyStatus, DocumentPolicy, DocumentValue, ErrorKind, FieldPolicy, Format, IndexKind, IndexPolicy, KeyClass,
    KeyState, Keyring, KeyringConfig, RecordCopy, Value,
};
use std::collections::BTreeSet;
use std::fmt::Debug;

const CANARY: &str = "canary-4711";

fn ring(lab: &Lab) -> Keyring {
    let mut policy = policy();
    for field in [
        FieldPolicy::document("name"),
        FieldPolicy::stream("image"),
        FieldPolicy { accepted_suites: vec![Suite::Field, Suite::Frame], ..FieldPolicy::randomized("framed") },
        FieldPolicy::format_preserving("card", "other", Format::Digits),
        FieldPolicy {
            indexes: vec![IndexPolicy::new("whole", IndexKind::Exact, 8)],
            ..FieldPolicy::randomized("found")
        },
    ] {
        policy.add(field).unwrap();
    }
    policy.add_document(DocumentPolicy::new("patient")).unwrap();
    lab.process_with(KeyringConfig { policy, ..lab.config.clone() })
}

/// The text that `Debug` makes, in which nothing is secret.
fn printed(handle: &impl Debug, name: &str) -> String {
    let text = format!("{handle:?}");
    assert!(text.starts_with(name), "{text}");
    assert!(!text.contains(CANARY), "{text}");
    text
}

#[test]
fn handles_of_fields_name_their_field_and_keys_and_print_no_secret() {
    let lab = Lab::new();
    let ring = ring(&lab);
    let field = |name: &str| ring.field(name).unwrap();
    let plain = encryptor(&ring, "plain", None).unwrap();
    assert!(plain.is_ready());
    printed(&plain, "Encryptor");
    assert_eq!((plain.policy().name.as_str(), plain.key_id()), ("plain", data(DATA).key_id()));
    let sealed = plain.encrypt(Value::Text(CANARY), None).unwrap();
    let reader = decryptor(&ring, "plain", None).unwrap();
    block_on(reader.load_keys(&[&sealed][..])).unwrap();
    assert!(reader.is_current(&sealed).unwrap());
    assert_eq!(reader.policy().name, "plain");
    printed(&reader, "Decryptor");
    printed(&reader.decrypt(&sealed, None).unwrap(), "Opened");

    let rebinder = block_on(field("bound").rebinder()).unwrap();
    assert_eq!(rebinder.policy().name, "bound");
    printed(&rebinder, "Rebinder");
    let seals = |partition: &str| [lab.config.lookup[partition].seals];
    let searcher = block_on(field("mrn").searcher()).unwrap();
    assert_eq!((searcher.policy().name.as_str(), searcher.key_ids()), ("mrn", &seals("default")[..]));
    printed(&searcher, "Searcher");
    let indexer = block_on(field("found").indexer("whole")).unwrap();
    assert_eq!((indexer.policy().name.as_str(), indexer.key_ids()), ("found", &seals("default")[..]));
    printed(&indexer, "Indexer");
    let preserver = block_on(field("card").format_preserver()).unwrap();
    assert_eq!((preserver.policy().name.as_str(), preserver.key_id()), ("card", seals("other")[0]));
    printed(&preserver, "FormatPreserver");
    let kept = preserver.encrypt_column(&["999815679"]).unwrap();
    assert_eq!(preserver.decrypt_column(&[&*kept[0]]).unwrap()[0].as_str(), "999815679");
    let sealer = block_on(field("image").stream_sealer()).unwrap();
    assert!(sealer.is_ready());
    assert_eq!(sealer.policy().name, "image");
    assert_eq!(block_on(field("image").stream_opener()).unwrap().policy().name, "image");
}

#[test]
fn handles_of_documents_name_their_kind_and_print_no_value() {
    let lab = Lab::new();
    let ring = ring(&lab);
    let kind = || ring.documents("patient").unwrap();
    assert_eq!(kind().policy().name, "patient");
    printed(&kind(), "Documents");
    let sealer = block_on(kind().sealer()).unwrap();
    printed(&sealer, "DocumentSealer");
    assert!(sealer.is_ready() && block_on(sealer.ready()).is_ok());
    assert_eq!((sealer.policy().name.as_str(), sealer.key_id()), ("patient", data(DATA).key_id()));
    let value = DocumentValue { field: "name", path: "$['name']", value: Value::Text(CANARY) };
    let sealed = sealer.seal(None, &[value], &[], 1).unwrap();
    printed(&sealed, "SealedDocument");
    let opener = block_on(kind().opener()).unwrap();
    printed(&opener, "DocumentOpener");
    assert_eq!(opener.policy().name, "patient");
    block_on(opener.load_key(&sealed.header)).unwrap();
    assert!(opener.is_current(&sealed.header));
    ring.close();
    assert_eq!(refused(block_on(sealer.ready()), "closed"), ErrorKind::Closed);
}

#[test]
fn sealed_values_go_to_bytes_and_back() {
    let lab = Lab::new();
    let ring = ring(&lab);
    let plain = encryptor(&ring, "plain", None).unwrap();
    let sealed = plain.encrypt(Value::Text("x"), None).unwrap();
    let value = SealedValue::try_from(sealed.clone()).unwrap();
    assert_eq!(value.as_ref(), &sealed[..]);
    assert!(looks_sealed(&sealed) && !looks_sealed(b"x") && !looks_sealed(b""));
    assert!(looks_sealed_text(value.to_text().as_bytes()) && !looks_sealed_text(b"kf"));
    assert_eq!(Vec::from(value), sealed);
    assert_eq!(refused(SealedValue::try_from(b"x".to_vec()), "no value"), ErrorKind::Malformed);
    let parts = Sealed::parse(&sealed).unwrap();
    assert_eq!(parts.encoded_len(), 2, "a format byte and the value");
    let equal = encryptor(&ring, "mrn", None).unwrap().encrypt(Value::Text("x"), None).unwrap();
    assert_eq!(Sealed::parse(&equal).unwrap().encoded_len(), parts.encoded_len());

    let framed = encryptor(&ring, "framed", None).unwrap();
    let framed = block_on(framed.encrypt_framed(Value::Text("x"), None)).unwrap();
    assert_eq!(refused(Sealed::parse(&framed), "a frame"), ErrorKind::Unsupported);
    let frame = Frame::parse(&framed).unwrap();
    assert!(framed.ends_with(frame.value()) && frame.value().len() == sealed.len());
    assert_eq!(lab.store.find(frame.key_id()).as_bytes(), frame.record());
}

#[test]
fn the_keyring_tells_what_it_has() {
    let lab = Lab::new();
    let ring = ring(&lab);
    assert!(!block_on(ring.has_scope("clinic")).unwrap());
    assert_eq!(refused(block_on(ring.has_scope("")), "no name"), ErrorKind::InvalidInput);
    let sealed = seal(&ring, Some("clinic"), "x").unwrap();
    assert!(block_on(ring.has_scope("clinic")).unwrap());

    let known = key_id_of(&sealed);
    let unknown = ours(KeyClass::Data, scope_id("nowhere"), 77).key_id();
    let states = block_on(ring.states_of(&BTreeSet::from([known, unknown]))).unwrap();
    assert_eq!(states.into_iter().collect::<Vec<_>>(), [(known, KeyState::Active)]);
    lab.faults.fail_store(true);
    assert_eq!(refused(block_on(ring.states_of(&BTreeSet::from([unknown]))), "away"), ErrorKind::Store);
    lab.faults.fail_store(false);

    // Copies: those of the store are vouched for, and one of a root that nobody trusts is not.
    let copy = |record| RecordCopy { record, status: CopyStatus::Stored };
    let all: Vec<_> = lab.store.state().records.values().cloned().map(copy).collect();
    assert!(block_on(ring.check_copies(all.clone())).unwrap().is_empty());
    let foreign = key_from(9, KeyClass::Root, keyfold::SlotId::NONE, 99);
    let stranger = copy(record(&child_parts(ours(KeyClass::Data, scope_id("s"), 98), foreign)));
    let refused_copies = block_on(ring.check_copies([all, vec![stranger.clone()]].concat())).unwrap();
    assert_eq!(
        refused_copies.iter().map(|(record, _)| record.key_id()).collect::<Vec<_>>(),
        [stranger.record.key_id()]
    );
}

#[test]
fn partitions_are_made_and_their_keys_renewed() {
    let lab = Lab::new();
    let ring = ring(&lab);
    assert_eq!(refused(block_on(ring.create_partition("default")), "there is one"), ErrorKind::InvalidInput);
    assert_eq!(refused(block_on(ring.create_partition("a\n")), "no name"), ErrorKind::InvalidInput);
    let made = block_on(ring.create_partition("study")).unwrap();
    assert!(lab.store.find(made.seals).state() == KeyState::Active && made.opens.is_empty());
    assert_ne!(made.partition, lab.config.lookup["default"].partition);

    // Its values say no key, so there is one only.
    assert_eq!(refused(block_on(ring.rotate_lookup_key("other")), "keeps formats"), ErrorKind::PolicyRefused);
    assert_eq!(refused(block_on(ring.rotate_lookup_key("nowhere")), "no partition"), ErrorKind::Configuration);
    let renewed = block_on(ring.rotate_lookup_key("default")).unwrap();
    let present = &lab.config.lookup["default"];
    assert_eq!((renewed.partition, renewed.seals, renewed.opens.len()), (present.partition, present.seals, 1));

    // Where configurations name it, it opens beside the one that seals.
    let mut config = lab.config.clone();
    config.lookup.insert("default".into(), renewed.clone());
    let searcher = block_on(lab.process_with(config).field("mrn").unwrap().searcher()).unwrap();
    assert_eq!(searcher.key_ids(), [renewed.seals, renewed.opens[0]]);
}

#[test]
fn a_key_of_another_keyring_is_told_by_its_neighbours() {
    let (lab, other) = (Lab::new(), Lab::new());
    let sealed = seal(&ring(&other), Some("clinic"), "x").unwrap();
    let ring = ring(&lab);
    let reader = decryptor(&ring, "plain", Some("clinic")).unwrap_err();
    assert_eq!(reader.kind(), ErrorKind::NoMatchingKey);
    let reader = decryptor(&ring, "plain", None).unwrap();
    let alone = block_on(reader.load_keys(&[&sealed][..])).unwrap_err();
    assert!(!alone.error.to_string().contains("another keyring"), "{alone:?}");
    ring.add_neighbour(other.process());
    let told = block_on(reader.load_keys(&[&sealed][..])).unwrap_err();
    assert_eq!(told.error.kind(), alone.error.kind());
    assert!(told.error.to_string().contains("another keyring"), "{told:?}");
    other.faults.fail_store(true);
    let away = block_on(reader.load_keys(&[&sealed][..])).unwrap_err();
    assert!(!away.error.to_string().contains("another keyring"), "{away:?}");
}
