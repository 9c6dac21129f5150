//! The vectors of documents in JSON (FORMAT.md §18.6). The texts, and the paths of their values, are written here by hand; core cannot read
//! them, so documents/tests/cipher/vectors.rs runs the cases.
//!
//! Longer than other files: texts, which stand in it as they are.

use super::documents::text_of;
use super::lookups::{messages, tokens};
use super::{File, Maker};
use crate::world::bytes;
use keyfold::vectors::{self, Document};
use keyfold::wire::{self, Suite, manifest_text};
use keyfold::{Beside, Context, DocumentValue, IndexKind, IndexPolicy, Padding, Value};
use serde_json::{Map, Value as Json, json};

/// The policies of the cases, by name.
fn policies() -> Json {
    let fields = r#"version = 1
[fields."patient.name"]
mode = "document"
paths = ["$.name[*].family", "$.name[*].given[*]"]
[fields."patient.birth"]
mode = "document"
type = "date"
paths = ["$.birthDate"]
[fields."patient.any"]
mode = "document"
paths = ["$.any.*"]
[fields."patient.organization"]
mode = "deterministic"
keep_prefix = "Organization/"
paths = ["$.managingOrganization.reference"]
"#;
    let kind = |header: &str, manifest: &str, row: &str| {
        format!("{fields}[documents.all]\nrow_binding = \"{row}\"\nheader = \"{header}\"\nmanifest = \"{manifest}\"\n")
    };
    let bundle = "[documents.bundle]\nrow_binding = \"$.id\"\nroot = \"$.entry[*].resource\"\nonly_if = { \"$.resourceType\" = \"Bundle\" }\n";
    let of_id = "[fields.\"patient.id\"]\nmode = \"deterministic\"\nkeep_prefix = \"Patient/\"\npaths = [\"$.id\"]\n";
    let index = "[fields.\"patient.name\".index.by_name]\nkind = \"exact\"\nbits = 63\nunique = true\ncolumn = \"name_token\"\n";
    json!({
        "with an index": kind("member", "required", "none") + index,
        "member, required": kind("member", "required", "none"),
        "member, written": kind("member", "written", "none"),
        "member, none": kind("member", "none", "none"),
        "extension, required": kind("fhir-extension", "required", "none"),
        "extension, none": kind("fhir-extension", "none", "none"),
        "of a row": kind("member", "required", "$.id"),
        "of a protected row": kind("member", "required", "$.id") + of_id,
        "bundle": kind("member", "required", "$.id") + bundle,
    })
}

/// One document: its row, its protected values, and those of another suite with field and kept prefix.
#[derive(Default)]
struct Part {
    row: Option<&'static str>,
    values: Vec<(&'static str, &'static str, Value<'static>)>,
    beside: Vec<(&'static str, &'static str, &'static str, &'static str)>,
    sequence: Option<u64>,
}

const FAMILY: (&str, &str, Value<'static>) = ("patient.name", "$['name'][0]['family']", Value::Text("Lovelace"));

fn family(sequence: Option<u64>) -> Vec<Part> {
    vec![Part { values: vec![FAMILY], sequence, ..Part::default() }]
}

struct Texts<'a> {
    make: &'a Maker,
    cases: super::Cases,
}

impl Texts<'_> {
    /// `template` with `«H0»` for the header of document 0, `«M0»` for its manifest, `«0.1»` for the body of its value 1 and `«0:1»` for its
    /// value 1 of another suite.
    fn fill(&self, label: &str, template: &str, parts: &[Part]) -> String {
        let mut text = template.to_owned();
        let mut put = |place: String, with: &str| text = text.replace(&place, with);
        let context = Context::new().with("tenant", "t1").expect("short");
        for (n, part) in parts.iter().enumerate() {
            let id = bytes(&format!("json document {label} {n}"));
            let row = part.row.map(str::as_bytes);
            let has_manifest = part.sequence.is_some();
            let document = Document::new(&self.make.key("data"), &id, has_manifest, &context, row).expect("short");
            let mut bodies = Vec::new();
            for (i, &(field, path, value)) in part.values.iter().enumerate() {
                let nonce = bytes(&format!("json body {label} {n} {i}"));
                let body = document.body(DocumentValue { field, path, value }, Padding::None, &nonce).expect("short");
                put(format!("«{n}.{i}»"), &text_of(&body));
                bodies.push((path, body));
            }
            let mut others = Vec::new();
            for (i, (path, prefix, field, value)) in part.beside.iter().enumerate() {
                let key = self.make.key("lookup-default");
                let strings =
                    vectors::strings(&key.header(Suite::Deterministic), false, field, &context).expect("short");
                let encoded = vectors::encode(Value::Text(value), Padding::None).expect("short");
                let mut sealed = prefix.as_bytes().to_vec();
                wire::push_text(&key.seal_deterministic(&strings, &encoded).expect("short"), &mut sealed)
                    .expect("a value");
                let sealed = String::from_utf8(sealed).expect("ASCII");
                put(format!("«{n}:{i}»"), &sealed);
                others.push((*path, sealed));
            }
            put(format!("«H{n}»"), &document.header.to_text());
            if let Some(sequence) = part.sequence {
                let bodies: Vec<(&str, &[u8])> = bodies.iter().map(|(path, body)| (*path, &body[..])).collect();
                let beside: Vec<_> =
                    others.iter().map(|(path, sealed)| Beside { path, sealed: sealed.as_bytes() }).collect();
                put(
                    format!("«M{n}»"),
                    &manifest_text(&document.manifest(&bodies, &beside, sequence).expect("paths differ")),
                );
            }
        }
        assert!(!text.contains('«'), "{text}");
        text
    }

    fn case(&mut self, note: &str, policy: &str, expect: &str, template: &str, parts: &[Part], clear: Option<&str>) {
        let text = self.fill(note, template, parts);
        let mut case = Map::new();
        case.insert("policy".into(), json!(policy));
        case.insert("context".into(), json!([["tenant", super::hex("t1")]]));
        case.insert("protected".into(), json!(text));
        if let Some(clear) = clear {
            case.insert("clear".into(), json!(clear));
        }
        case.insert("expect".into(), json!(expect));
        self.cases.push(note, Json::Object(case));
    }

    /// What a writer makes of `clear`.
    fn good(&mut self, note: &str, policy: &str, clear: &str, template: &str, parts: &[Part]) {
        self.case(note, policy, "ok", template, parts, Some(clear));
        self.cases.1.last_mut().expect("just pushed")["written"] = json!(true);
    }

    /// What a reader accepts beside that.
    fn accepted(&mut self, note: &str, policy: &str, clear: &str, template: &str, parts: &[Part]) {
        self.case(note, policy, "ok", template, parts, Some(clear));
    }

    fn bad(&mut self, note: &str, policy: &str, expect: &str, template: &str, parts: &[Part]) {
        self.case(note, policy, expect, template, parts, None);
    }

    /// The token of `Lovelace`, by hand.
    fn token(&self) -> String {
        let index = IndexPolicy::new("i", IndexKind::Exact, 63);
        let message = messages(&index, &[("tenant", "t1")], &[(0, "\u{2}Lovelace")]);
        tokens(&self.make.key("lookup-default"), 63, &message)[0].to_string()
    }

    fn all(&mut self) {
        self.members();
        self.extensions();
        self.values();
        self.headers();
        self.changes();
    }

    fn members(&mut self) {
        self.good(
            "a header in front of what is there",
            "member, required",
            "{\n  \"name\" : [ { \"family\" : \"Lovelace\" } ]\n}\n",
            "{\"_keyfold\":{\"document\":\"«H0»\",\"manifest\":\"«M0»\"},\n  \"name\" : [ { \"family\" : \"«0.0»\" } ]\n}\n",
            &family(Some(1)),
        );
        self.good(
            "a header in an object that is empty",
            "member, written",
            " { } ",
            r#" {"_keyfold":{"document":"«H0»","manifest":"«M0»"} } "#,
            &[Part { sequence: Some(1), ..Part::default() }],
        );
        self.good(
            "a header without a manifest",
            "member, none",
            r#"{"name":[{"family":"Lovelace"}],"x":1.50}"#,
            r#"{"_keyfold":{"document":"«H0»"},"name":[{"family":"«0.0»"}],"x":1.50}"#,
            &family(None),
        );
        self.accepted(
            "a header of nothing, without a manifest",
            "member, none",
            r#"{"x":1}"#,
            r#"{"_keyfold":{"document":"«H0»"},"x":1}"#,
            &[Part::default()],
        );
        self.good(
            "a token of an index between the header and the rest",
            "with an index",
            r#"{"name":[{"family":"Lovelace"}]}"#,
            &format!(
                r#"{{"_keyfold":{{"document":"«H0»","manifest":"«M0»"}},"name_token":"{}","name":[{{"family":"«0.0»"}}]}}"#,
                self.token()
            ),
            &family(Some(1)),
        );
        self.accepted(
            "tokens in front of the header, and the manifest in front of the document",
            "with an index",
            r#"{"name":[{"family":"Lovelace"}]}"#,
            r#"{"name_token":["17","203"],"_keyfold":{"manifest":"«M0»","document":"«H0»"},"name":[{"family":"«0.0»"}]}"#,
            &family(Some(1)),
        );
        self.accepted(
            "white space around the header",
            "member, required",
            "{ \"name\":[{\"family\":\"Lovelace\"}]}",
            "{ \"_keyfold\" : { \"document\":\"«H0»\", \"manifest\":\"«M0»\" } \n,\"name\":[{\"family\":\"«0.0»\"}]}",
            &family(Some(1)),
        );
        self.accepted(
            "a header at the end, and spelt otherwise",
            "member, required",
            "{\"name\":[{\"family\":\"Lovelace\"}]  }",
            "{\"name\":[{\"family\":\"«0.0»\"}] , \"_keyf\\u006fld\" : { \"document\" : \"«H0»\" , \"manifest\" : \"«M0»\" } }",
            &family(Some(1)),
        );
        self.good(
            "a member of that name elsewhere is none",
            "member, required",
            r#"{"name":[{"family":"Lovelace"}],"other":{"_keyfold":{"document":"x"}}}"#,
            r#"{"_keyfold":{"document":"«H0»","manifest":"«M0»"},"name":[{"family":"«0.0»"}],"other":{"_keyfold":{"document":"x"}}}"#,
            &family(Some(1)),
        );
    }

    fn extensions(&mut self) {
        let entry = |manifest: bool| {
            let manifest = if manifest { r#",{"url":"manifest","valueString":"«M0»"}"# } else { "" };
            format!(
                r#"{{"url":"urn:keyfold:document:v1","extension":[{{"url":"document","valueString":"«H0»"}}{manifest}]}}"#
            )
        };
        let (with, without) = (entry(true), entry(false));
        let clear = r#"{"name":[{"family":"Lovelace"}]}"#;
        let sealed = r#""name":[{"family":"«0.0»"}]"#;
        let required = "extension, required";
        self.good(
            "an extension where there was none",
            required,
            clear,
            &format!(r#"{{"extension":[{with}],{sealed}}}"#),
            &family(Some(1)),
        );
        self.good(
            "the same without a manifest",
            "extension, none",
            clear,
            &format!(r#"{{"extension":[{without}],{sealed}}}"#),
            &family(None),
        );
        self.good(
            "an extension behind others",
            required,
            r#"{"name":[{"family":"Lovelace"}],"extension" : [ {"url":"x"} ] }"#,
            &format!(r#"{{{sealed},"extension" : [ {{"url":"x"}},{with} ] }}"#),
            &family(Some(1)),
        );
        for (note, extension) in
            [("is empty", "[]"), ("is no array", "\"x\""), ("is an object", "{\"url\":\"x\"}"), ("is null", "null")]
        {
            self.good(
                &format!("the member, since extension {note}"),
                required,
                &format!(r#"{{"extension":{extension},"name":[{{"family":"Lovelace"}}]}}"#),
                &format!(r#"{{"_keyfold":{{"document":"«H0»","manifest":"«M0»"}},"extension":{extension},{sealed}}}"#),
                &family(Some(1)),
            );
        }
        let swapped = r#"{"url":"urn:keyfold:document:v1","extension":[{"url":"manifest","valueString":"«M0»"},{"url":"document","valueString":"«H0»"}]}"#;
        let more =
            r#"{"url":"urn:keyfold:document:v1","id":"1","extension":[{"url":"document","valueString":"«H0»"}]}"#;
        let other = with.replace(r#""url":"manifest""#, r#""url":"x""#);
        let empty = r#"{"url":"urn:keyfold:document:v1","extension":[]}"#;
        let member = r#""_keyfold":{"document":"«H0»","manifest":"«M0»"}"#;
        for (note, text) in [
            ("two entries", format!(r#"{{"extension":[{with},{with}],{sealed}}}"#)),
            ("a member and an entry", format!(r#"{{{member},"extension":[{with}],{sealed}}}"#)),
            ("an entry whose parts are exchanged", format!(r#"{{"extension":[{swapped}],{sealed}}}"#)),
            ("an entry with another member", format!(r#"{{"extension":[{more}],{sealed}}}"#)),
            ("an entry with a part of another URL", format!(r#"{{"extension":[{other}],{sealed}}}"#)),
            ("an entry without parts", format!(r#"{{"extension":[{empty}],{sealed}}}"#)),
            ("an entry where the policy wants members", String::new()),
        ] {
            let (policy, text) = match text.is_empty() {
                true => ("member, required", format!(r#"{{"extension":[{with}],{sealed}}}"#)),
                false => (required, text),
            };
            self.bad(note, policy, "Malformed", &text, &family(Some(1)));
        }
        let url = r#"{"url":"document","valueString":"«H0»"}"#;
        self.accepted(
            "an extension with white space in it",
            required,
            clear,
            &format!(
                "{{{sealed},\n \"extension\" : [ {{ \"extension\" : [ {url} , {{ \"valueString\" : \"«M0»\", \"url\" : \"manifest\" }} ], \"url\" : \"urn:keyfold:document:v1\" }} ]}}"
            ),
            &family(Some(1)),
        );
    }

    fn values(&mut self) {
        let any = "patient.any";
        self.good(
            "paths of names that are escaped, and values of every type",
            "member, required",
            r#"{"any":{"'":"a","\\":-129,"\b\t\n\f\r\u0001\u001f\u007f":1.50,"é'\u005d":true,"":null,"a/b":[1, "x"],"\ud83d\ude00":{"a" : 1}}}"#,
            r#"{"_keyfold":{"document":"«H0»","manifest":"«M0»"},"any":{"'":"«0.0»","\\":"«0.1»","\b\t\n\f\r\u0001\u001f\u007f":"«0.2»","é'\u005d":"«0.3»","":"«0.4»","a/b":"«0.5»","\ud83d\ude00":"«0.6»"}}"#,
            &[Part {
                values: vec![
                    (any, r"$['any']['\'']", Value::Text("a")),
                    (any, r"$['any']['\\']", Value::Integer(-129)),
                    (any, "$['any']['\\b\\t\\n\\f\\r\\u0001\\u001f\u{7f}']", Value::Decimal("1.50")),
                    (any, r"$['any']['é\']']", Value::Boolean(true)),
                    (any, "$['any']['']", Value::Null),
                    (any, "$['any']['a/b']", Value::Json("[1, \"x\"]")),
                    (any, "$['any']['\u{1f600}']", Value::Json("{\"a\" : 1}")),
                ],
                sequence: Some(1),
                ..Part::default()
            }],
        );
        self.good(
            "texts with characters that JSON escapes",
            "member, none",
            "{\"any\":[\"\\\"\\\\\\b\\t\\n\\f\\r\\u0001/\u{7f}é\u{1f600}\"]}",
            r#"{"_keyfold":{"document":"«H0»"},"any":["«0.0»"]}"#,
            &[Part {
                values: vec![(any, "$['any'][0]", Value::Text("\"\\\u{8}\t\n\u{c}\r\u{1}/\u{7f}é\u{1f600}"))],
                ..Part::default()
            }],
        );
        self.good(
            "items of arrays, a date, and a value of another suite with its kept prefix",
            "member, required",
            r#"{"birthDate":"1815-12-10","managingOrganization":{"reference":"Organization/o-1"},"name":[{"given":["Augusta","Ada"]},{"family":"King"}]}"#,
            r#"{"_keyfold":{"document":"«H0»","manifest":"«M0»"},"birthDate":"«0.0»","managingOrganization":{"reference":"«0:0»"},"name":[{"given":["«0.1»","«0.2»"]},{"family":"«0.3»"}]}"#,
            &[Part {
                values: vec![
                    ("patient.birth", "$['birthDate']", Value::Date(-56_270)),
                    ("patient.name", "$['name'][0]['given'][0]", Value::Text("Augusta")),
                    ("patient.name", "$['name'][0]['given'][1]", Value::Text("Ada")),
                    ("patient.name", "$['name'][1]['family']", Value::Text("King")),
                ],
                beside: vec![(
                    "$['managingOrganization']['reference']",
                    "Organization/",
                    "patient.organization",
                    "o-1",
                )],
                sequence: Some(1),
                ..Part::default()
            }],
        );
        for (note, row, id) in [("a text", "p-\u{e9}", "\"p-\\u00e9\""), ("a number, as it is written", "1.50", "1.50")]
        {
            self.good(
                &format!("bound to {note}"),
                "of a row",
                &format!(r#"{{"id":{id},"name":[{{"family":"Lovelace"}}]}}"#),
                &format!(
                    r#"{{"_keyfold":{{"document":"«H0»","manifest":"«M0»"}},"id":{id},"name":[{{"family":"«0.0»"}}]}}"#
                ),
                &[Part { row: Some(row), values: vec![FAMILY], sequence: Some(1), ..Part::default() }],
            );
        }
        let of_row = || Part { row: Some("p-1"), values: vec![FAMILY], sequence: Some(1), ..Part::default() };
        let text = |id: &str| {
            format!(r#"{{"_keyfold":{{"document":"«H0»","manifest":"«M0»"}},"id":{id},"name":[{{"family":"«0.0»"}}]}}"#)
        };
        for (note, id, expect) in [
            ("another row", "\"p-2\"", "DecryptionFailed"),
            ("an empty row", "\"\"", "InvalidInput"),
            ("a row that is null", "null", "InvalidInput"),
            ("a row that is a truth", "true", "InvalidInput"),
        ] {
            self.bad(note, "of a row", expect, &text(id), &[of_row()]);
        }
        self.bad("no row", "of a row", "InvalidInput", &text("1").replace("\"id\":1,", ""), &[of_row()]);
        let protected = || Part {
            row: Some("Patient/p-1"),
            beside: vec![("$['id']", "Patient/", "patient.id", "p-1")],
            ..of_row()
        };
        self.good(
            "bound to what stands in a deterministic field, with its kept prefix",
            "of a protected row",
            r#"{"id":"Patient/p-1","name":[{"family":"Lovelace"}]}"#,
            &text("\"«0:0»\""),
            &[protected()],
        );
        let damaged = text("\"Patient/kf1.020000000c.AAAA\"");
        self.bad(
            "a row that does not open, told before the header",
            "of a protected row",
            "Malformed",
            &damaged,
            &[protected()],
        );
        self.good(
            "documents inside of another one",
            "bundle",
            r#"{"resourceType":"Bundle","entry":[{"resource":{"id":1,"name":[{"family":"Lovelace"}]}},{"resource":{"id":"b","name":[{"family":"King"}]}}]}"#,
            r#"{"resourceType":"Bundle","entry":[{"resource":{"_keyfold":{"document":"«H0»","manifest":"«M0»"},"id":1,"name":[{"family":"«0.0»"}]}},{"resource":{"_keyfold":{"document":"«H1»","manifest":"«M1»"},"id":"b","name":[{"family":"«1.0»"}]}}]}"#,
            &inside(),
        );
        self.bad(
            "the value of another document inside",
            "bundle",
            "DecryptionFailed",
            r#"{"resourceType":"Bundle","entry":[{"resource":{"_keyfold":{"document":"«H0»","manifest":"«M0»"},"id":1,"name":[{"family":"«1.0»"}]}}]}"#,
            &inside(),
        );
        self.bad(
            "one of them without its header",
            "bundle",
            "Malformed",
            r#"{"resourceType":"Bundle","entry":[{"resource":{"id":1,"name":[{"family":"«0.0»"}]}}]}"#,
            &inside(),
        );
        self.bad(
            "one of them replaced by one in clear",
            "bundle",
            "PolicyRefused",
            r#"{"resourceType":"Bundle","entry":[{"resource":{"id":1}}]}"#,
            &[],
        );
    }

    /// Without a header, and with one that is damaged.
    fn headers(&mut self) {
        for (rule, nothing) in [("required", "PolicyRefused"), ("written", "ok"), ("none", "ok")] {
            let policy = format!("member, {rule}");
            let clear = r#"{"x":1}"#;
            let kept = (nothing == "ok").then_some(clear);
            self.case(&format!("no header and no value, read as {rule}"), &policy, nothing, clear, &[], kept);
            let lost = r#"{"name":[{"family":"«0.0»"}]}"#;
            self.bad(&format!("no header, but a value, read as {rule}"), &policy, "Malformed", lost, &family(None));
            let clear = r#"{"name":[{"family":"Lovelace"}]}"#;
            self.bad(&format!("no header, and a value in clear, read as {rule}"), &policy, "Malformed", clear, &[]);
            let alone = r#"{"_keyfold":{"document":"«H0»"},"x":1}"#;
            let kept = (nothing == "ok").then_some(r#"{"x":1}"#);
            let parts = [Part::default()];
            self.case(&format!("a header alone, read as {rule}"), &policy, nothing, alone, &parts, kept);
        }
        let value = r#""name":[{"family":"«0.0»"}]"#;
        for (note, header) in [
            ("that is a text", "\"«H0»\""),
            ("that is null", "null"),
            ("that is empty", "{}"),
            ("with another member", "{\"document\":\"«H0»\",\"manifest\":\"«M0»\",\"x\":1}"),
            ("whose manifest is null", "{\"document\":\"«H0»\",\"manifest\":null}"),
            ("whose document is a number", "{\"document\":1,\"manifest\":\"«M0»\"}"),
            ("without a document", "{\"manifest\":\"«M0»\"}"),
            ("with an empty document", "{\"document\":\"\",\"manifest\":\"«M0»\"}"),
        ] {
            let text = format!("{{\"_keyfold\":{header},{value}}}");
            self.bad(&format!("a header {note}"), "member, required", "Malformed", &text, &family(Some(1)));
        }
        let header = r#""_keyfold":{"document":"«H0»","manifest":"«M0»"}"#;
        for (note, text) in [
            ("the header twice", format!("{{{header},{header},{value}}}")),
            ("a member twice", format!("{{{header},{value},\"x\":1,\"x\":1}}")),
            ("a member twice, spelt otherwise", format!("{{{header},{value},\"x\":1,\"\\u0078\":1}}")),
            ("half of a surrogate pair", format!("{{{header},{value},\"x\":\"\\ud83d\"}}")),
            ("half of one in a name", format!("{{{header},{value},\"\\udc00\":1}}")),
            ("a comma too many", format!("{{{header},{value},}}")),
            ("no JSON", "{".to_owned()),
            ("two documents in one text", format!("{{{header},{value}}}{{}}")),
        ] {
            self.bad(note, "member, required", "InvalidInput", &text, &family(Some(1)));
        }
    }

    fn changes(&mut self) {
        let header = r#""_keyfold":{"document":"«H0»","manifest":"«M0»"}"#;
        let without = r#""_keyfold":{"document":"«H0»"}"#;
        let failed = "DecryptionFailed";
        for (note, value) in [
            ("a value in another item", r#""name":[{},{"family":"«0.0»"}]"#),
            ("a value of another member of its field", r#""name":[{"given":["«0.0»"]}]"#),
            ("a value in another field", r#""birthDate":"«0.0»""#),
        ] {
            self.bad(note, "member, required", failed, &format!("{{{header},{value}}}"), &family(Some(1)));
            self.bad(
                &format!("{note}, without a manifest"),
                "member, none",
                failed,
                &format!("{{{without},{value}}}"),
                &family(None),
            );
        }
        self.bad("a value deleted", "member, written", failed, &format!(r#"{{{header},"name":[]}}"#), &family(Some(1)));
        self.accepted(
            "a value deleted, without a manifest",
            "member, none",
            r#"{"name":[]}"#,
            &format!(r#"{{{without},"name":[]}}"#),
            &family(None),
        );
        for value in ["1", "null", "[]", "\"in clear\"", "\"kf1d.\""] {
            let text = format!(r#"{{{header},"name":[{{"family":{value}}}]}}"#);
            self.bad(
                &format!("{value} in the place of a value"),
                "member, required",
                "Malformed",
                &text,
                &family(Some(1)),
            );
        }
        for value in ["1", "null", "\"Organization/o-1\""] {
            let text =
                format!(r#"{{{header},"managingOrganization":{{"reference":{value}}},"name":[{{"family":"«0.0»"}}]}}"#);
            self.bad(
                &format!("{value} in the place of a deterministic value"),
                "member, required",
                "Malformed",
                &text,
                &family(Some(1)),
            );
        }
        let stray = |header: &str| format!(r#"{{{header},"x":"kf1d.AAAA","name":[{{"family":"«0.0»"}}]}}"#);
        self.bad(
            "a value that no field covers, without a manifest",
            "member, none",
            "PolicyRefused",
            &stray(without),
            &family(None),
        );
        let clear = r#"{"x":"kf1d.AAAA","name":[{"family":"Lovelace"}]}"#;
        self.good(
            "a text that looks like one, under a manifest",
            "member, required",
            clear,
            &stray(header),
            &family(Some(1)),
        );
    }
}

fn inside() -> Vec<Part> {
    let part = |row, name| Part {
        row: Some(row),
        values: vec![("patient.name", "$['name'][0]['family']", Value::Text(name))],
        sequence: Some(1),
        ..Part::default()
    };
    vec![part("1", "Lovelace"), part("b", "King")]
}

pub(super) fn file(make: &Maker) -> File {
    let mut texts = Texts { make, cases: super::Cases("document-json", Vec::new()) };
    texts.all();
    let mut head = super::head("documents in JSON: what opens, and what must not");
    head["policies"] = policies();
    ("document-json.json", head, texts.cases.1)
}
