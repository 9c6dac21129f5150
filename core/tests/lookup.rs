//! Blind indexes and values that keep their format (DESIGN F21, F22), through a keyring.

use crate::common::lab::*;
use crate::common::{block_on, refused};
use keyfold::{
    Context, DatePart, ErrorKind, FieldPolicy, Format, FormatPreserver, IndexKind, IndexPolicy, Indexer, KeyClass,
    KeyState, Keyring, KeyringConfig, OnUnindexable, Policy, Prover, Token, TokenForm, Value, ValueType,
};
use std::collections::HashSet;

const NEW_LOOKUP: u32 = 9;

fn index(name: &str, kind: IndexKind, bits: u16, partition: &str) -> IndexPolicy {
    IndexPolicy { partition: partition.to_owned(), unique: bits >= 63, ..IndexPolicy::new(name, kind, bits) }
}

/// `ssn` and `other` with the same indexes, `formatted` and `formatted2` with the same format, `study` in the other partition.
fn lab() -> (Lab, KeyringConfig) {
    let lab = Lab::new();
    let mut policy = Policy::new();
    for name in ["ssn", "other"] {
        // More rows than anybody has, for 34 bits.
        let mut field = FieldPolicy { table_rows: Some(1 << 40), ..FieldPolicy::randomized(name) };
        field.indexes = vec![
            index("whole", IndexKind::Exact, 256, "default"),
            index("digits", IndexKind::Digits, 63, "default"),
            index("short", IndexKind::Digits, 12, "default"),
            index("study", IndexKind::Digits, 63, "other"),
            index("start", IndexKind::Prefix(vec![3, 5]), 8, "default"),
            index("born", IndexKind::DatePart(DatePart::MonthDay), 6, "default"),
        ];
        policy.add(field).unwrap();
    }
    policy.add(FieldPolicy::format_preserving("formatted", "default", Format::Digits)).unwrap();
    policy.add(FieldPolicy::format_preserving("formatted2", "default", Format::Digits)).unwrap();
    policy.add(FieldPolicy::format_preserving("study", "other", Format::Digits)).unwrap();
    let config = KeyringConfig { policy, ..lab.config.clone() };
    (lab, config)
}

fn indexer(ring: &Keyring, field: &str, name: &str) -> keyfold::Result<Indexer> {
    block_on(ring.field(field)?.indexer(name))
}

fn preserver(ring: &Keyring, field: &str) -> keyfold::Result<FormatPreserver> {
    block_on(ring.field(field)?.format_preserver())
}

fn prover(ring: &Keyring, field: &str) -> keyfold::Result<Prover> {
    block_on(ring.field(field)?.prover())
}

/// The same keyring after the next look-up key was published and seals.
fn rotated(lab: &Lab, mut config: KeyringConfig) -> KeyringConfig {
    let next = ours(KeyClass::Lookup, DEFAULT_PARTITION, NEW_LOOKUP);
    lab.store.plant(&record(&child_parts(next, root())));
    let keys = config.lookup.get_mut("default").unwrap();
    keys.opens = vec![keys.seals];
    keys.seals = next.key_id();
    config
}

#[test]
fn what_was_written_is_found_at_each_step_of_a_rotation() {
    let (lab, config) = lab();
    let value = Value::Text("123-45-6789");
    let before = indexer(&lab.process_with(config.clone()), "ssn", "short").unwrap();
    let old = before.tokens(value).unwrap();
    assert_eq!(old, before.search_tokens(Value::Text("123 45 6789")).unwrap());
    assert!(matches!(old[..], [Token::Integer(0..4096)]));

    let sealing_new = rotated(&lab, config);
    // Published first: what seals is the old key still.
    let mut published = sealing_new.clone();
    let keys = published.lookup.get_mut("default").unwrap();
    (keys.seals, keys.opens) = (keys.opens[0], vec![keys.seals]);
    let between = indexer(&lab.process_with(published), "ssn", "short").unwrap();
    let after = indexer(&lab.process_with(sealing_new.clone()), "ssn", "short").unwrap();
    let new = after.tokens(value).unwrap();
    assert_ne!(new, old);
    assert_eq!(between.tokens(value).unwrap(), old);
    for (searcher, first, second) in [(&between, &old, &new), (&after, &new, &old)] {
        assert_eq!(searcher.search_tokens(value).unwrap(), [first[0], second[0]]);
    }
    // Retired: the old key is named nowhere.
    let mut retired = sealing_new;
    retired.lookup.get_mut("default").unwrap().opens.clear();
    let last = indexer(&lab.process_with(retired), "ssn", "short").unwrap();
    assert_eq!(last.search_tokens(value).unwrap(), new);
}

// Failure T12
#[test]
fn tokens_differ_between_fields_partitions_contexts_indexes_and_keyrings() {
    let (lab, config) = lab();
    let ring = lab.process_with(config);
    let value = Value::Text("123456789");
    let of = |field: &str, name: &str, context: Context| {
        block_on(ring.field(field).unwrap().context(context).indexer(name)).unwrap().tokens(value).unwrap()
    };
    let tenant = |name: &str| Context::new().with("tenant", name).unwrap();
    let all = [
        of("ssn", "digits", Context::new()),
        of("other", "digits", Context::new()),
        of("ssn", "study", Context::new()),
        of("ssn", "digits", tenant("a")),
        of("ssn", "digits", tenant("b")),
        of("ssn", "whole", Context::new()),
    ];
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    // Not the first bits of one another, although the hash is over the same digits.
    let [Token::Integer(wide)] = of("ssn", "digits", Context::new())[..] else { panic!("an integer") };
    let [Token::Integer(short)] = of("ssn", "short", Context::new())[..] else { panic!("an integer") };
    assert_ne!(wide >> (63 - 12), short);
    assert!(matches!(of("ssn", "whole", Context::new())[..], [Token::Bytes(_)]));
}

#[test]
fn prefixes_find_what_starts_with_them() {
    let (lab, config) = lab();
    let start = indexer(&lab.process_with(config), "ssn", "start").unwrap();
    let stored = start.tokens(Value::Text("Müller")).unwrap();
    assert!(stored.len() == 2 && stored.is_sorted());
    for prefix in ["mül", "MÜLL", "Müller", "Mülle"] {
        let [token] = start.search_tokens(Value::Text(prefix)).unwrap()[..] else { panic!("one key") };
        assert!(stored.contains(&token), "{prefix}");
    }
    assert_eq!(start.tokens(Value::Text("Mü")).unwrap().len(), 2);
    assert_eq!(refused(start.search_tokens(Value::Text("Mü")), "too short"), ErrorKind::InvalidInput);
}

#[test]
fn columns_are_as_single_values() {
    let (lab, config) = lab();
    let ring = lab.process_with(config);
    let born = indexer(&ring, "ssn", "born").unwrap();
    let values = [Value::Date(0), Value::Null, Value::Text("2000-02-29"), Value::Text("")];
    let column = born.tokens_column(&values[..]).unwrap();
    for (value, tokens) in values.iter().zip(&column) {
        assert_eq!(&born.tokens(*value).unwrap(), tokens);
    }
    assert_eq!(column.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0, 1, 0]);
    let failed = born.tokens_column(&[Value::Date(0), Value::Text("29.2.2000")][..]).unwrap_err();
    assert_eq!((failed.row, failed.error.kind()), (Some(1), ErrorKind::InvalidInput));
}

#[test]
fn what_cannot_be_indexed_is_refused() {
    let (lab, config) = lab();
    let ring = lab.process_with(config.clone());
    assert_eq!(refused(indexer(&ring, "ssn", "none"), "no such index"), ErrorKind::PolicyRefused);
    let whole = indexer(&ring, "ssn", "whole").unwrap();
    assert_eq!(refused(whole.search_tokens(Value::Null), "a null"), ErrorKind::InvalidInput);
    assert_eq!(refused(whole.tokens(Value::Decimal("x")), "no number"), ErrorKind::InvalidInput);
    ring.close();
    assert_eq!(refused(whole.tokens(Value::Text("x")), "closed"), ErrorKind::Closed);
    assert_eq!(refused(whole.search_tokens(Value::Text("x")), "closed"), ErrorKind::Closed);
    assert_eq!(refused(block_on(whole.ready()), "closed"), ErrorKind::Closed);

    // A retired key finds, but writes nothing more.
    let retired = ours(KeyClass::Lookup, DEFAULT_PARTITION, LOOKUP);
    lab.store.plant(&record(&in_state(child_parts(retired, root()), KeyState::Deactivated)));
    let ring = lab.process_with(config.clone());
    let whole = indexer(&ring, "ssn", "whole").unwrap();
    assert!(whole.search_tokens(Value::Text("x")).is_ok());
    assert_eq!(refused(whole.tokens(Value::Text("x")), "retired"), ErrorKind::KeyState);
    let formatted = preserver(&ring, "formatted").unwrap();
    assert!(formatted.decrypt("123456").is_ok());
    assert_eq!(refused(formatted.encrypt("123456"), "retired"), ErrorKind::KeyState);

    let mut missing = config;
    missing.lookup.remove("other");
    assert_eq!(refused(lab.process_with(missing).field("ssn"), "no partition"), ErrorKind::Configuration);
}

/// Covers F-17.5-2.
#[test]
fn proofs_hold_for_their_field_and_partition_under_every_live_key() {
    let (lab, mut config) = lab();
    for (name, partition) in [("mrn-token", "default"), ("other-token", "default"), ("study-token", "other")] {
        config.policy.add(FieldPolicy::token(name, partition, TokenForm::default())).unwrap();
    }
    let token = TokenForm::default().draw().unwrap();
    let value = Value::Text("M-1");
    let ring = lab.process_with(config.clone());
    let mrn = prover(&ring, "mrn-token").unwrap();
    let old = mrn.prove(&token, value).unwrap();
    mrn.check(&token, value, &old).unwrap();
    for other in ["other-token", "study-token"] {
        let other = prover(&ring, other).unwrap();
        assert_eq!(refused(other.check(&token, value, &old), "another field"), ErrorKind::DecryptionFailed);
    }
    assert_eq!(refused(mrn.prove("short", value), "no token"), ErrorKind::InvalidInput);
    assert_eq!(refused(mrn.check(&token, Value::Decimal("x"), &old), "no number"), ErrorKind::InvalidInput);
    assert_eq!(refused(mrn.check(&token, value, &[]), "none"), ErrorKind::DecryptionFailed);
    assert_eq!(refused(prover(&ring, "ssn"), "randomised"), ErrorKind::PolicyRefused);

    // Both keys are believed while both are named, and then the new one alone.
    let mut both = rotated(&lab, config);
    let after = prover(&lab.process_with(both.clone()), "mrn-token").unwrap();
    let new = after.prove(&token, value).unwrap();
    assert_ne!(old, new);
    for proof in [old, new] {
        after.check(&token, value, &proof).unwrap();
    }
    both.lookup.get_mut("default").unwrap().opens.clear();
    let retired = prover(&lab.process_with(both), "mrn-token").unwrap();
    retired.check(&token, value, &new).unwrap();
    assert_eq!(refused(retired.check(&token, value, &old), "retired"), ErrorKind::DecryptionFailed);
    ring.close();
    assert_eq!(refused(mrn.prove(&token, value), "closed"), ErrorKind::Closed);
    assert_eq!(refused(mrn.check(&token, value, &old), "closed"), ErrorKind::Closed);
}

/// Covers F-17.4-5.
#[test]
fn formats_stay_and_differ_between_fields_and_partitions() {
    let (lab, config) = lab();
    let ring = lab.process_with(config.clone());
    let text = "123-45-6789";
    let encrypted: Vec<String> =
        ["formatted", "formatted2", "study"].map(|f| preserver(&ring, f).unwrap().encrypt(text).unwrap()).into();
    for (field, encrypted) in ["formatted", "formatted2", "study"].iter().zip(&encrypted) {
        assert_eq!((encrypted.len(), encrypted.as_bytes()[3], encrypted.as_bytes()[6]), (11, b'-', b'-'));
        assert_eq!(*preserver(&ring, field).unwrap().decrypt(encrypted).unwrap(), text);
    }
    assert_eq!(encrypted.iter().collect::<HashSet<_>>().len(), 3);
    let formatted = preserver(&ring, "formatted").unwrap();
    let failed = formatted.encrypt_column(&["123456", "12345"]).unwrap_err();
    assert_eq!((failed.row, failed.error.kind()), (Some(1), ErrorKind::InvalidInput));

    // Nothing else opens or seals such a field, and it opens no other.
    assert_eq!(refused(encryptor(&ring, "formatted", None), "no suite"), ErrorKind::PolicyRefused);
    assert_eq!(refused(decryptor(&ring, "formatted", None), "no suite"), ErrorKind::PolicyRefused);
    assert_eq!(refused(preserver(&ring, "ssn"), "randomised"), ErrorKind::PolicyRefused);
    // With two keys nobody could say which one a value is under.
    let two = rotated(&lab, config);
    assert_eq!(refused(preserver(&lab.process_with(two), "formatted"), "two keys"), ErrorKind::Configuration);
}

/// What an index cannot take is refused, or has no token: never the one without the policy saying so.
#[test]
fn what_an_index_cannot_take_is_refused_or_skipped() {
    let (lab, mut config) = lab();
    let mut field = FieldPolicy::randomized("f");
    for (name, kind) in [("digits", IndexKind::Digits), ("date", IndexKind::Date), ("folded", IndexKind::CaseFolded)] {
        let refuse = index(&format!("{name} or nothing"), kind.clone(), 4, "default");
        field.indexes.push(IndexPolicy { on_unindexable: OnUnindexable::Skip, ..index(name, kind, 4, "default") });
        field.indexes.push(refuse);
    }
    config.policy.add(field).unwrap();
    let ring = lab.process_with(config);
    for (name, bad, good) in [
        ("digits", "n/a", "a1"),
        ("digits", "\u{661}", "1"),
        ("date", "n/a", "2000-02-29"),
        ("folded", "a\u{378}", "a"),
    ] {
        let (skip, refuse) =
            (indexer(&ring, "f", name).unwrap(), indexer(&ring, "f", &format!("{name} or nothing")).unwrap());
        let values = [Value::Text(bad), Value::Text(good), Value::Text(""), Value::Text(" "), Value::Null];
        let counts = |indexer: &Indexer| {
            let of =
                |value: &Value<'_>| indexer.tokens(*value).map(|tokens| tokens.len()).map_err(|error| error.kind());
            values.iter().map(of).collect::<Vec<_>>()
        };
        let is_date = name == "date";
        let blank = if is_date { Err(ErrorKind::InvalidInput) } else { Ok(0) };
        assert_eq!(counts(&refuse), [Err(ErrorKind::InvalidInput), Ok(1), Ok(0), blank, Ok(0)], "{name}");
        assert_eq!(counts(&skip), [Ok(0), Ok(1), Ok(0), Ok(0), Ok(0)], "{name}");
        assert_eq!(values.map(|value| skip.index().skips(&value)), [true, false, false, is_date, false], "{name}");
        let failed = refuse.tokens_column(&[values[1], values[0]][..]).unwrap_err();
        assert_eq!((failed.row, failed.error.kind()), (Some(1), ErrorKind::InvalidInput));
        assert_eq!(skip.tokens_column(&[values[1], values[0]][..]).unwrap()[1], []);
        // Whoever looks for it is told.
        assert_eq!(skip.search_tokens(values[0]).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn policies_that_cannot_be_meant_are_refused() {
    let bad = |change: &dyn Fn(&mut FieldPolicy)| {
        let mut field = FieldPolicy::format_preserving("f", "default", Format::Digits);
        change(&mut field);
        assert_eq!(field.check().unwrap_err().kind(), ErrorKind::Configuration);
    };
    bad(&|field| field.value_type = Some(ValueType::Integer));
    bad(&|field| field.unlinkable = true);
    bad(&|field| field.keep_prefix = Some("x".into()));
    bad(&|field| field.accepted_suites = vec![keyfold::wire::Suite::Deterministic]);
    bad(&|field| field.row_binding = bound("x").row_binding);
    bad(&|field| field.indexes = vec![IndexPolicy::new("a", IndexKind::Exact, 64)]);
    bad(&|field| field.indexes = vec![IndexPolicy::new("a", IndexKind::Exact, 8); 2]);
    let mut field = FieldPolicy::randomized("f");
    field.indexes = vec![
        IndexPolicy::new("a", IndexKind::Exact, 10),
        IndexPolicy::new("b", IndexKind::Prefix(vec![3, 4]), 3),
        IndexPolicy::unique("c", IndexKind::Exact, 256),
    ];
    assert!(keyfold::check_shown_bits(1_000_000, [&field]).is_ok(), "16 bits of 16");
    // Without rows 24 bits at most, of all indexes together.
    let with = |bits: u16, rows: Option<u64>| {
        let indexes = vec![IndexPolicy::new("a", IndexKind::Exact, bits), IndexPolicy::new("b", IndexKind::Exact, 4)];
        FieldPolicy { indexes, table_rows: rows, ..FieldPolicy::randomized("f") }.check().is_ok()
    };
    assert_eq!([(20, None), (21, None), (21, Some(1 << 40))].map(|(bits, rows)| with(bits, rows)), [true, false, true]);
    // Of two values it is known that they are few.
    let of_truth = |few_values: bool| {
        let indexes = vec![IndexPolicy { few_values, ..IndexPolicy::new("a", IndexKind::Exact, 2) }];
        FieldPolicy { indexes, value_type: Some(ValueType::Boolean), ..FieldPolicy::randomized("f") }.check().is_ok()
    };
    assert_eq!([of_truth(false), of_truth(true)], [false, true]);
    assert_eq!(keyfold::check_shown_bits(500_000, [&field]).unwrap_err().kind(), ErrorKind::Configuration);
}
