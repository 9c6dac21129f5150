//! Headers and members of indexes: put in, found wherever they stand, and taken out with every other byte as it was.

use crate::{Lab, PROTECT};
use keyfold::ErrorKind;
use keyfold_documents::Direction;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

fn field(name: &str, path: &str, mode: &str) -> String {
    format!("[fields.{name}]\nmode = \"{mode}\"\npaths = [\"{path}\"]\n")
}

fn index(field: &str, name: &str, column: &str) -> String {
    format!("[fields.{field}.index.{name}]\nkind = \"exact\"\nbits = 63\nunique = true\ncolumn = \"{column}\"\n")
}

fn documents(header: &str, manifest: &str) -> String {
    format!("[documents.all]\nrow_binding = \"none\"\nheader = \"{header}\"\nmanifest = \"{manifest}\"\n")
}

/// Every order of `items`.
fn orders<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    if items.len() < 2 {
        return vec![items.to_vec()];
    }
    let without = |at: usize| [&items[..at], &items[at + 1..]].concat();
    let of_first = |at: usize| orders(&without(at)).into_iter().map(move |rest| (at, rest));
    (0..items.len()).flat_map(of_first).map(|(at, rest)| [&[items[at].clone()], &rest[..]].concat()).collect()
}

#[test]
fn members_are_taken_out_in_whatever_order_they_stand() {
    for (header, manifest) in [("member", "required"), ("member", "none"), ("fhir-extension", "required")] {
        for indexes in 0..4 {
            let mut policy = "version = 1\n".to_owned() + &field("ssn", "$.ssn", "document");
            (0..indexes).for_each(|n| policy += &index("ssn", &format!("i{n}"), &format!("idx\\\\\\\"{n}")));
            let lab = Lab::new(&(policy + &documents(header, manifest)));
            for text in [r#"{"ssn":"123"}"#, r#"{"ssn":"123","a\"":[{}]}"#, r#"{ "z" : 1 , "ssn" : "123" }"#] {
                let original: Value = serde_json::from_str(text).expect("JSON");
                let sealed = lab.returns(text);
                let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&sealed).expect("JSON");
                let members: Vec<String> = members
                    .iter()
                    .map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), value.get()))
                    .collect();
                for (at, order) in orders(&members).into_iter().enumerate() {
                    let separator = [",", " , ", ",\n\t"][at % 3];
                    let moved = format!("{{ {} }}", order.join(separator));
                    let back = lab.reveal(&moved).unwrap_or_else(|error| panic!("{moved}: {error}")).0;
                    assert_eq!(serde_json::from_str::<Value>(&back).expect("JSON"), original, "{moved}");
                }
            }
        }
    }
}

/// Covers F-18.6-2, F-18.6-3.
#[test]
fn an_extension_that_is_a_value_does_not_hold_the_header() {
    let texts = [
        r#"{"extension":[{"url":"u"}],"a":"x"}"#,
        r#"{"a":"x"}"#,
        r#"{"extension":[],"a":"x"}"#,
        r#"{"extension":null,"a":"x"}"#,
        r#"{"extension":"E","a":"x"}"#,
        r#"{"extension":{"url":"u"},"a":"x"}"#,
        r#"{"extension" : [ "E" , {"valueString":"V"} ] }"#,
    ];
    for path in ["$.extension", "$.extension[*]", "$.extension[*].valueString", "$.extension[?@.url].url", "$..url"] {
        for manifest in ["required", "none"] {
            let policy = "version = 1\n".to_owned() + &field("e", path, "document") + &field("a", "$.a", "document");
            let lab = Lab::new(&(policy + &documents("fhir-extension", manifest)));
            let mut returned = 0;
            for text in texts {
                // A path of items does not fit what is no array, which is refused as ever.
                match lab.run(PROTECT, text) {
                    Ok(_) => {
                        let sealed = lab.returns(text);
                        lab.refuses(PROTECT, &sealed, ErrorKind::InvalidInput, "has a header already");
                        returned += 1;
                    }
                    Err(error) => {
                        let says = error.to_string();
                        let expected = ["cannot be applied", "no field of the policy applies"];
                        assert!(expected.iter().any(|why| says.contains(why)), "{path} {text} {says}");
                    }
                }
            }
            assert!(returned >= 3, "{path}");
        }
    }
    let whole = "version = 1\n".to_owned() + &field("all", "$", "document") + &documents("member", "required");
    Lab::new(&whole).refuses(PROTECT, texts[0], ErrorKind::InvalidInput, "header has no place");
}

/// Covers F-18.6-4.
#[test]
fn a_document_that_has_the_member_of_an_index_is_refused_even_if_it_gets_no_token() {
    let policy = "version = 1\n".to_owned()
        + &field("ssn", "$.ssn", "randomized").replace("mode", "row_binding = \"none\"\noptional = true\nmode")
        + &field("name", "$.name", "randomized").replace("mode", "row_binding = \"none\"\nmode")
        + &index("ssn", "i", "ssn_idx");
    let lab = Lab::new(&policy);
    lab.returns(r#"{"ssn":"1","name":"A"}"#);
    lab.returns(r#"{"name":"B","k":1}"#);
    for lab in [lab, Lab::new(&policy).passing_unmatched()] {
        for text in [r#"{"name":"B","ssn_idx":"999","k":1}"#, r#"{"ssn":"1","ssn_idx":1}"#, r#"{"ssn_idx":"999"}"#] {
            lab.refuses(PROTECT, text, ErrorKind::PolicyRefused, "member of an index already: ssn_idx");
        }
    }
}

#[test]
fn what_could_not_be_revealed_is_refused() {
    let with = |column: &str, header: &str| {
        let policy = "version = 1\n".to_owned() + &field("ssn", "$.ssn", "document") + &index("ssn", "i", column);
        Lab::new(&(policy + &documents(header, "required"))).cipher(PROTECT).map(drop)
    };
    for (column, header) in [("_keyfold", "member"), ("_keyfold", "fhir-extension"), ("extension", "fhir-extension")] {
        let error = with(column, header).expect_err("refused").to_string();
        assert!(error.contains("headers of documents stand"), "{error}");
    }
    with("extension", "member").expect("another member");
    // A path that leads to every member does not lead to those that were put in.
    for path in ["$.*", "$[*]", "$..*"] {
        let policy = "version = 1\n".to_owned() + &field("all", path, "document") + &index("all", "i", "idx");
        let lab = Lab::new(&(policy + &documents("member", "required")));
        match lab.run(PROTECT, r#"{"a":"1","b":"2"}"#) {
            Ok(_) => drop(lab.returns(r#"{"a":"1","b":"2"}"#)),
            Err(error) => assert!(path == "$[*]" && error.to_string().contains("cannot be applied"), "{error}"),
        }
    }
}

#[test]
fn tokens_do_not_tell_which_values_of_a_document_are_equal() {
    let policy = "version = 1\n".to_owned() + &field("name", "$.name[*]", "document") + &index("name", "i", "idx");
    let lab = Lab::new(&(policy + &documents("member", "required")));
    let tokens = |text: &str| -> Vec<u64> {
        let sealed: Value = serde_json::from_str(&lab.returns(text)).expect("JSON");
        let texts: Vec<String> =
            serde_json::from_value(sealed["idx"].clone()).expect("a list of texts, since they have 63 bits");
        texts.iter().map(|text| text.parse().expect("a number")).collect()
    };
    let (equal, different) =
        (tokens(r#"{"name":["Alice","Bob","Alice"]}"#), tokens(r#"{"name":["Alice","Bob","Eve"]}"#));
    assert_eq!((equal.len(), different.len()), (3, 3));
    assert!(equal.windows(2).all(|pair| pair[0] < pair[1]), "in order, and none twice");
    assert_eq!(equal.iter().filter(|token| different.contains(token)).count(), 2, "both names are found");
    lab.refuses(Direction::Reveal, r#"{"idx":[1],"name":["x"]}"#, ErrorKind::Malformed, "no header");
}

#[test]
fn conditions_of_documents_do_not_fill_the_memory() {
    let mut policy = "version = 1\n".to_owned()
        + &field("name", "$.name", "randomized").replace("mode", "row_binding = \"none\"\nmode");
    for n in 0..10 {
        let field = field(&format!("f{n}"), &format!("$.v{n}"), "randomized");
        policy += &field.replace("mode", &format!("row_binding = \"none\"\nonly_if = {{ \"$.c{n}\" = \"x\" }}\nmode"));
    }
    let lab = Lab::new(&policy);
    let (protect, reveal) = (lab.cipher(PROTECT).expect("a cipher"), lab.cipher(Direction::Reveal).expect("a cipher"));
    // More combinations than are kept.
    for set in 0..600_u32 {
        let members = (0..10).filter(|n| set >> n & 1 == 1).map(|n| format!(",\"c{n}\":\"x\",\"v{n}\":\"{n}\""));
        let text = format!("{{\"name\":\"N\"{}}}", members.collect::<String>());
        let (sealed, counts) = crate::run(&protect, &text).expect("protected");
        assert_eq!(counts.values, u64::from(set.count_ones()) + 1);
        assert_eq!(crate::run(&reveal, &sealed).expect("revealed").0, text);
    }
}

#[test]
fn a_header_stays_where_a_value_would_be_left_without_it() {
    // On the way back the condition meets the text that stands in the place of the value.
    let conditions = r#"version = 1
[fields.b]
mode = "document"
paths = ["$.a.b"]
only_if = { "$.a[?@=='x']" = "x" }
[documents.d]
row_binding = "none"
only_if = { "$.a[*]" = "x" }
manifest = "none"
[documents.e]
row_binding = "none"
manifest = "none"
"#;
    Lab::new(conditions).refuses(PROTECT, r#"{"a":{"b":"x","c":"1"}}"#, ErrorKind::PolicyRefused, "looks at a value");
    let lab = Lab::new(
        r#"version = 1
[fields.a]
mode = "document"
paths = ["$.a"]
[fields.b]
mode = "document"
optional = true
paths = ["$.b"]
only_if = { "$.kind" = "x" }
[documents.d]
row_binding = "none"
manifest = "none"
"#,
    );
    let sealed = lab.returns(r#"{"kind":"x","a":"1","b":"2"}"#).replace("\"x\"", "\"y\"");
    lab.refuses(Direction::Reveal, &sealed, ErrorKind::PolicyRefused, "would be lost");
    lab.refuses(PROTECT, r#"{"a":"1","b":"kf1d.AAAA"}"#, ErrorKind::PolicyRefused, "could not be revealed");
}
