//! What a policy may say, each rule by the field that breaks it, and the names of what is in policies and audit files.

use crate::common::lab::Lab;
use crate::common::refused;
use keyfold::config::Config;
use keyfold::wire::Suite;
use keyfold::{
    DocumentPolicy, ErrorKind, FieldMode, FieldPolicy, Format, HeaderPlace, HipaaClass, KeyringConfig, ManifestRule,
    Migration, MigrationPhase, Padding, Policy, RowBinding, TokenAlphabet, TokenForm,
};
use std::collections::BTreeSet;

fn bound() -> RowBinding {
    RowBinding::Bound { column: Some("id".into()), path: None, segment: None }
}

fn migration() -> Option<Migration> {
    Some(Migration::until("2999-12-31", MigrationPhase::DualWrite).unwrap())
}

#[test]
fn each_rule_refuses_what_breaks_it_and_names_field_and_rule() {
    let plain = || FieldPolicy::randomized("f");
    let deterministic = || FieldPolicy::deterministic("f", "default", None);
    let token = || FieldPolicy::token("f", "default", TokenForm { alphabet: TokenAlphabet::Digits, length: 39 });
    let kept = || FieldPolicy::format_preserving("f", "default", Format::Digits);
    let (document, stream) = (|| FieldPolicy::document("f"), || FieldPolicy::stream("f"));
    let cases = [
        (FieldPolicy { accepted_suites: vec![], ..plain() }, "the list of accepted suites is empty"),
        (FieldPolicy { accepted_suites: vec![Suite::Frame], ..plain() }, "also accepts the suite of the values inside"),
        (FieldPolicy { max_frame_records: 0, ..plain() }, "max_frame_records"),
        (FieldPolicy { padding: Padding::Multiple(1), ..plain() }, "a multiple of 2 to 4096"),
        (FieldPolicy { keep_prefix: Some("P/".into()), ..plain() }, "keep_prefix is for"),
        (FieldPolicy { accepted_suites: vec![Suite::Deterministic], ..plain() }, "accepts suite 02 is deterministic"),
        (FieldPolicy { accepted_suites: vec![Suite::Field, Suite::Stream], ..plain() }, "suite 04 is for fields"),
        (FieldPolicy { accepted_suites: vec![Suite::Field, Suite::Document], ..plain() }, "suite 05 is for fields"),
        (FieldPolicy::deterministic("f", "", None), "partitions and join groups have names"),
        (FieldPolicy::deterministic("f", "default", Some("a\n")), "partitions and join groups have names"),
        (FieldPolicy { row_binding: bound(), ..deterministic() }, "cannot be bound to its row"),
        (
            FieldPolicy { padding: Padding::Padme, ..FieldPolicy::deterministic("f", "default", Some("g")) },
            "share one type and no padding",
        ),
        (FieldPolicy { unlinkable: true, ..deterministic() }, "linkable by design"),
        (FieldPolicy { keep_prefix: Some("kf1.x".into()), ..deterministic() }, "the start of a sealed text"),
        (FieldPolicy::format_preserving("f", "", Format::Digits), "partitions and join groups have names"),
        (FieldPolicy { value_type: Some(keyfold::ValueType::Integer), ..kept() }, "is of the type text"),
        (FieldPolicy { migration: migration(), ..kept() }, "replaced, not sealed"),
        (FieldPolicy { row_binding: bound(), ..kept() }, "replaced, not sealed"),
        (FieldPolicy { mode: FieldMode::Randomized, ..kept() }, "the list of accepted suites is empty"),
        (FieldPolicy { row_binding: bound(), ..token() }, "stands for its value in any row"),
        (FieldPolicy { keep_prefix: Some("Patient".into()), ..token() }, "a character that no token has"),
        (FieldPolicy { accepted_suites: vec![Suite::Field], ..document() }, "accepts suite 05 alone"),
        (FieldPolicy { row_binding: bound(), ..document() }, "bound to its document"),
        (FieldPolicy { keep_prefix: Some("P/".into()), ..document() }, "keep_prefix is for"),
        (FieldPolicy { columns: vec!["c".into()], ..document() }, "has paths, and no columns"),
        (FieldPolicy { migration: migration(), ..document() }, "no migration"),
        (FieldPolicy { unlinkable: true, ..document() }, "unlinkable cannot be kept"),
        (FieldPolicy { accepted_suites: vec![Suite::Field], ..stream() }, "accepts suite 04 alone"),
        (FieldPolicy { value_type: Some(keyfold::ValueType::Text), ..stream() }, "of the type bytes"),
        (FieldPolicy { columns: vec!["c".into()], ..stream() }, "a file of its own"),
        (FieldPolicy { padding: Padding::Padme, ..stream() }, "no padding"),
        (FieldPolicy { optional: true, ..stream() }, "no table may lack it"),
        (FieldPolicy::randomized(""), "a field's name"),
    ];
    for (field, rule) in cases {
        let name = field.name.clone();
        let error = Policy::new().add(field).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{rule}");
        assert!(error.to_string().contains(rule), "{error} instead of {rule}");
        assert!(error.detail().contains(&format!("field {name}")), "{error}");
    }
    for good in [plain(), deterministic(), token(), kept(), document(), stream()] {
        Policy::new().add(good).unwrap();
    }
    let column = RowBinding::Bound { column: Some("id".into()), path: None, segment: None };
    for wrong in [DocumentPolicy::new(""), DocumentPolicy { row_binding: column, ..DocumentPolicy::new("d") }] {
        assert_eq!(refused(Policy::new().add_document(wrong), "a document"), ErrorKind::Configuration);
    }
}

#[test]
fn what_has_no_sealed_form_has_no_length_of_one() {
    for field in [FieldPolicy::stream("f"), FieldPolicy::format_preserving("f", "default", Format::Digits)] {
        assert_eq!(refused(field.sealed_len(3), "no values"), ErrorKind::PolicyRefused);
    }
    assert_eq!(refused(FieldPolicy::randomized("f").sealed_len((1 << 20) + 1), "long"), ErrorKind::LimitExceeded);
    // A body of a document has no header.
    let [field, body] = [FieldPolicy::randomized("f"), FieldPolicy::document("f")].map(|f| f.sealed_len(3).unwrap());
    assert!(body < field, "{body} and {field}");
}

#[test]
fn documents_in_a_policy_file() {
    const KEYRING: &str = include_str!("../src/config/tests.toml");
    let with = |policy: &str| Config::parse(&format!("{KEYRING}{policy}"), "keyfold.toml");
    let of = |section: &str| {
        let config = with(&format!("[documents.patient]\n{section}\n")).unwrap();
        config.keyring.policy.documents().next().unwrap().clone()
    };
    let plain = of("row_binding = \"none\"");
    assert_eq!((plain.name.as_str(), plain.root.as_str(), &plain.row_binding), ("patient", "$", &RowBinding::None));
    assert_eq!((plain.header, plain.manifest), (HeaderPlace::Member, ManifestRule::Required));
    let full = of(
        "row_binding = \"$.id\"\nroot = \"$.entry[*].resource\"\nheader = \"fhir-extension\"\nmanifest = \"written\"\nrequired_context = [\"tenant\"]",
    );
    let path = RowBinding::Bound { column: None, path: Some("$.id".into()), segment: None };
    assert_eq!((full.root.as_str(), &full.row_binding), ("$.entry[*].resource", &path));
    assert_eq!((full.header, full.manifest), (HeaderPlace::FhirExtension, ManifestRule::Written));
    assert_eq!(full.required_context, BTreeSet::from(["tenant".to_owned()]));
    assert_eq!(of("row_binding = \"none\"\nmanifest = \"none\"").manifest, ManifestRule::None);
    let wrong = with("[documents.patient]\nrow_binding = \"id\"\n").unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Configuration);
    assert!(wrong.to_string().contains("the JSONPath of an immutable identifier"), "{wrong}");

    let refused_because = |field: &str, why: &str| {
        let error = with(&format!("[fields.f]\n{field}\n")).unwrap_err();
        assert!(error.to_string().contains(why), "{field}: {error}");
    };
    refused_because("partition = \"default\"", "are for deterministic fields");
    refused_because("mode = \"document\"\npartition = \"default\"", "deterministic fields");
    refused_because("mode = \"stream\"\njoin_group = \"g\"", "deterministic fields");
    refused_because("mode = \"stream\"\nidentifier = \"Q\"", "a name for what tells the streams apart");
    refused_because("mode = \"token\"\njoin_group = \"g\"", "join_group is for deterministic fields");
    refused_because("padding = \"large\"", "padding");
    refused_because("type = \"number\"", "type");
    let padded = with("[fields.f]\npadding = \"padme\"\ntype = \"text\"\n").unwrap();
    assert_eq!(padded.keyring.policy.field("f").unwrap().padding, Padding::Padme);
}

#[test]
fn names_are_told_apart() {
    let classes: Vec<_> = ('A'..='R').map(|letter| HipaaClass::new(letter).unwrap()).collect();
    let titles: BTreeSet<_> = classes.iter().map(|class| class.title()).collect();
    assert_eq!(titles.len(), 18);
    assert_eq!(classes[6].to_string(), "G");
    assert_eq!((classes[6].letter(), classes[6].title()), ('G', "social security numbers"));
    assert!(HipaaClass::new('S').is_none() && HipaaClass::new('a').is_none());
    assert_eq!(
        [MigrationPhase::DualWrite, MigrationPhase::CutOver].map(MigrationPhase::name),
        ["dual-write", "cut-over"]
    );
    assert_eq!(
        [Format::Digits, Format::Alphanumeric, Format::Luhn].map(|format| format.name()),
        ["digits", "alphanumeric", "luhn"]
    );
    assert_eq!(refused(Migration::until("31.12.2999", MigrationPhase::CutOver), "no date"), ErrorKind::InvalidInput);
}

#[test]
fn a_field_that_is_not_there_names_those_that_are() {
    let lab = Lab::new();
    let mut config = lab.config.clone();
    let text = |config: &KeyringConfig| lab.process_with(config.clone()).field("nope").unwrap_err().to_string();
    config.policy = Policy::default();
    assert!(text(&config).contains("no such field: nope; it has none"), "{}", text(&config));
    (0..3).for_each(|n| config.policy.add(FieldPolicy::randomized(&format!("f{n}"))).unwrap());
    assert!(text(&config).contains("nope; it has f0, f1, f2"), "{}", text(&config));
    (3..12).for_each(|n| config.policy.add(FieldPolicy::randomized(&format!("g{n:02}"))).unwrap());
    assert!(text(&config).contains("g09 and 2 more"), "{}", text(&config));
}
