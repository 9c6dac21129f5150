//! What runs in a FIPS 140 module, and what is refused where only that is allowed (docs/FIPS.md). In a build without one most of it says so.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::block_on;
use common::lab::*;
use keyfold::fips::{self, Rule};
use keyfold::{
    DocumentPolicy, DocumentValue, ErrorKind, FieldPolicy, Format, Keyring, KeyringConfig, TokenForm, Value,
};
use std::sync::Arc;

/// Whether this build has a module.
const HAS_MODULE: bool = cfg!(feature = "fips");

fn config(lab: &Lab, rule: Rule) -> KeyringConfig {
    let mut policy = policy();
    for field in [
        FieldPolicy::stream("image"),
        FieldPolicy::document("name"),
        FieldPolicy::format_preserving("digits", "default", Format::Digits),
        FieldPolicy::token("code", "default", TokenForm::default()),
    ] {
        policy.add(field).unwrap();
    }
    policy.add_document(DocumentPolicy::new("patient")).unwrap();
    KeyringConfig { policy, fips: rule, ..lab.config.clone() }
}

#[test]
fn the_status_says_what_is_built_in() {
    let status = fips::status();
    assert_eq!(status.module.is_some(), HAS_MODULE);
    if let Some(module) = status.module {
        assert!(module.is_in_fips_mode);
        assert_eq!(module.name, "AWS-LC FIPS");
        assert!(module.version.starts_with("3."), "the pinned line of releases: {}", module.version);
    }
    let approved: Vec<_> = status.services.iter().filter(|service| service.is_approved).collect();
    assert_eq!(approved.is_empty(), !HAS_MODULE);
    for service in approved {
        assert_eq!(service.computed_by, "AWS-LC FIPS", "{}", service.name);
    }
    let others = ["Argon2id, AES-256-KWP", "SHA-256 of the key", "TLS 1.2 and 1.3", "random bytes, SHA-256"];
    for outside in ["AES-256-SIV", "FF1-AES-256", "SHA-256", "AES-256-KWP"].into_iter().chain(others) {
        let services: Vec<_> = status.services.iter().filter(|service| service.algorithm == outside).collect();
        assert!(!services.is_empty() && services.iter().all(|service| !service.is_approved), "{outside}");
    }
    fips::self_test().unwrap();
}

#[test]
fn a_required_module_that_is_not_there_opens_nothing() {
    let lab = Lab::new();
    let open = |rule| {
        let marks = Arc::new(lab.marks.clone());
        Keyring::open(config(&lab, rule), Arc::new(lab.store.clone()), lab.keks(), marks)
            .err()
            .map(|error| error.kind())
    };
    assert_eq!(open(Rule::Labelled), None);
    assert_eq!(open(Rule::Required), (!HAS_MODULE).then_some(ErrorKind::Configuration));

    let ring = lab.process();
    let reloaded = ring.reload(config(&lab, Rule::Required), lab.keks()).err().map(|error| error.kind());
    assert_eq!(reloaded, (!HAS_MODULE).then_some(ErrorKind::Configuration));
    seal(&ring, None, "x").expect("the present configuration stays, or the new one allows it");
}

#[cfg(feature = "config")]
#[test]
fn the_configuration_says_what_is_required() {
    use keyfold::config::Config;
    let created = keyfold::CreatedKeyring { config: Lab::new().config, root: root().key_id() };
    let keks = std::collections::BTreeMap::from([(alias(ALIAS), "local:kek".to_owned())]);
    let plain = Config::template(&created, "sqlite:keys.db", "high-water", &keks);
    let parse =
        |line: &str| Config::parse(&plain.replacen("[keyring]", &format!("[keyring]\n{line}"), 1), "keyfold.toml");
    for (line, rule) in
        [("", Rule::Labelled), ("fips = \"labelled\"", Rule::Labelled), ("fips = \"required\"", Rule::Required)]
    {
        assert_eq!(parse(line).unwrap().keyring.fips, rule, "{line}");
    }
    let error = parse("fips = true").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("keyfold.toml:5, fips"), "{error}");
}

/// What the field `name` refuses to do first.
fn refusal(ring: &Keyring, name: &str) -> Option<ErrorKind> {
    let made = match name {
        "image" => ring.field(name).and_then(|field| block_on(field.stream_sealer()).map(drop)),
        "digits" => ring.field(name).and_then(|field| block_on(field.format_preserver()).map(drop)),
        _ => encryptor(ring, name, None).map(drop),
    };
    made.err().map(|error| {
        assert!(error.to_string().contains(name) || error.kind() != ErrorKind::PolicyRefused, "{error}");
        error.kind()
    })
}

#[test]
fn what_is_not_approved_is_refused_where_that_is_required() {
    let lab = Lab::new();
    let labelled = lab.process_with(config(&lab, Rule::Labelled));
    for name in ["mrn", "code", "digits", "image", "plain", "bound"] {
        assert_eq!(refusal(&labelled, name), None, "{name}");
    }
    let sealed_stream = {
        let sealer = block_on(labelled.field("image").unwrap().stream_sealer()).unwrap();
        let mut stream = sealer.begin(None).unwrap();
        let mut out = stream.header().as_bytes().to_vec();
        stream.update(b"pixels", &mut out).unwrap();
        stream.finish(&mut out).unwrap();
        out
    };
    if !HAS_MODULE {
        return;
    }
    let required = lab.process_with(config(&lab, Rule::Required));
    lab.faults.reset();
    for name in ["mrn", "code", "digits", "image"] {
        assert_eq!(refusal(&required, name), Some(ErrorKind::PolicyRefused), "{name}");
    }
    assert_eq!(decryptor(&required, "mrn", None).err().map(|error| error.kind()), Some(ErrorKind::PolicyRefused));
    assert_eq!(lab.faults.log(), [""; 0], "before any key was touched");
    let (kept, sealing) = (labelled.field("mrn").unwrap(), encryptor(&labelled, "mrn", None).unwrap());
    let [digits, stays] = ["digits", "plain"].map(|name| labelled.field(name).unwrap());
    labelled.reload(config(&lab, Rule::Required), lab.keks()).unwrap();
    for made in [
        block_on(kept.clone().encryptor()).map(drop),
        block_on(kept.clone().decryptor()).map(drop),
        block_on(kept.searcher()).map(drop),
        block_on(digits.format_preserver()).map(drop),
    ] {
        assert_eq!(made.unwrap_err().kind(), ErrorKind::PolicyRefused, "a field that was kept from before");
    }
    assert!(block_on(stays.encryptor()).is_ok() && sealing.encrypt(Value::Text("x"), None).is_ok());
    for name in ["plain", "bound"] {
        assert_eq!(refusal(&required, name), None, "{name}");
    }
    let sealed = seal(&required, None, "x").unwrap();
    assert_eq!(reveal(&labelled, None, &sealed).unwrap().0, "x");

    let patients = block_on(required.documents("patient").unwrap().sealer()).unwrap();
    let values = [DocumentValue { field: "name", path: "$['name']", value: Value::Text("Ada") }];
    patients.seal(None, &values, &[], 0).unwrap();

    let opener = block_on(required.field("image").unwrap().stream_opener()).unwrap();
    let header = keyfold::wire::StreamHeader::parse(&sealed_stream).unwrap();
    block_on(opener.load_key(&header)).unwrap();
    let (mut stream, mut out) = (opener.begin(&header, None).unwrap(), Vec::new());
    stream.update(&sealed_stream[header.as_bytes().len()..], &mut out).unwrap();
    stream.finish(&mut out).unwrap();
    assert_eq!(out, b"pixels");
}

/// The nonces that the module draws are in what is sealed, and no two of them are equal.
#[test]
fn nonces_of_a_column_differ() {
    use std::collections::HashSet;
    let lab = Lab::new();
    let encryptor = encryptor(&lab.process(), "plain", None).unwrap();
    let column = encryptor.encrypt_column(&[Value::Text("x"); 10_000][..], None::<&[&[u8]]>).unwrap();
    let nonces: HashSet<_> =
        (0..10_000).map(|row| keyfold::ColumnBytes::bytes(&column, row)[26..50].to_vec()).collect();
    assert_eq!(nonces.len(), 10_000);
    assert!(nonces.iter().all(|nonce| nonce[12..] != [0; 12]), "what was drawn is written");
}

/// The indicator of the module (FIPS 140-3 IG 2.4.C) counts the approved services that a thread has called.
#[cfg(feature = "fips")]
mod indicator {
    use super::*;
    use keyfold::Context;

    // Of aws-lc-fips-sys, which has its version in its symbols: when Cargo.lock moves, so does this.
    unsafe extern "C" {
        #[link_name = "aws_lc_fips_0_13_17_FIPS_service_indicator_before_call"]
        fn approved_calls() -> u64;
    }

    /// How many approved services `work` calls.
    fn approved<T>(work: impl FnOnce() -> T) -> (T, u64) {
        // SAFETY: it takes nothing, and reads a counter of this thread.
        let count = || unsafe { approved_calls() };
        let before = count();
        let made = work();
        (made, count() - before)
    }

    #[test]
    fn counts_what_the_status_calls_approved_and_nothing_else() {
        let lab = Lab::new();
        let ring = lab.process_with(config(&lab, Rule::Labelled));
        let plain = encryptor(&ring, "plain", None).unwrap();
        // Random bytes, two blocks by CMAC, one value by AES-GCM under a nonce of the module's.
        let (sealed, calls) = approved(|| plain.encrypt(Value::Text("x"), None).unwrap());
        assert_eq!(calls, 4, "sealing a value");
        let opener = decryptor(&ring, "plain", None).unwrap();
        block_on(opener.load_keys(&[&sealed[..]][..])).map_err(|failed| failed.error).unwrap();
        let (opened, calls) = approved(|| opener.decrypt(&sealed, None).map(drop));
        opened.unwrap();
        assert_eq!(calls, 3, "opening it: as much, but for random bytes");
        let (_, calls) = approved(|| plain.encrypt_column(&[Value::Text("x"); 1000][..], None::<&[&[u8]]>).map(drop));
        assert_eq!(calls, 1003, "random bytes and one derivation for a column");

        let mrn = encryptor(&ring, "mrn", None).unwrap();
        let (_, calls) = approved(|| mrn.encrypt(Value::Text("x"), None).unwrap());
        assert_eq!(calls, 0, "AES-SIV");
        let digits = block_on(ring.field("digits").unwrap().format_preserver()).unwrap();
        let (_, calls) = approved(|| digits.encrypt("12345678").unwrap());
        assert_eq!(calls, 0, "FF1");

        // Random bytes, HKDF-Expand twice, and AES-GCM once per value; HMAC-SHA-256 for the manifest, where there is one.
        let patients = block_on(ring.documents("patient").unwrap().context(Context::new()).sealer()).unwrap();
        let values = ["a", "b", "c"].map(|path| DocumentValue { field: "name", path, value: Value::Text("Ada") });
        let has_manifest = u64::from(patients.policy().manifest != keyfold::ManifestRule::None);
        let (_, calls) = approved(|| patients.seal(None, &values, &[], 0).map(drop).unwrap());
        assert_eq!(calls, 1 + 2 + 3 + has_manifest, "a document of three values");

        let sealer = block_on(ring.field("image").unwrap().stream_sealer()).unwrap();
        let (mut stream, calls) = approved(|| sealer.begin(None).unwrap());
        assert_eq!(calls, 2, "random bytes and HKDF-Expand for a stream");
        let mut out = stream.header().as_bytes().to_vec();
        stream.update(b"pixels", &mut out).unwrap();
        let (_, calls) = approved(|| stream.finish(&mut out).unwrap());
        assert_eq!(calls, 0, "AES-GCM under a nonce that counts");
    }
}
