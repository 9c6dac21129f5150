//! The vectors of documents (FORMAT.md §18). Parts are in text form, so that the texts are tested with them.

use super::{Cases, File, Maker, document_edges, head, hex};
use crate::world::{World, bytes};
use keyfold::testing::block_on;
use keyfold::vectors::{self, Document, body_aad};
use keyfold::wire::{DocumentHeader, body_from_text, manifest_from_text, manifest_text, push_body_text};
use keyfold::{
    Beside, Context, DocumentBody, DocumentPolicy, DocumentValue, Error, FieldPolicy, ManifestRule, Padding, Policy,
    Result, RowBinding, Value,
};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;

/// A value: field, path, what it is, padding.
pub(super) type Member = (&'static str, &'static str, Value<'static>, Padding);

pub(super) struct Plan {
    pub(super) key: &'static str,
    pub(super) scope: Option<&'static str>,
    pub(super) context: Vec<(&'static str, &'static str)>,
    pub(super) row: Option<&'static str>,
    pub(super) values: Vec<Member>,
    pub(super) beside: Vec<(&'static str, String)>,
    /// `None`: sealed without a manifest.
    pub(super) sequence: Option<u64>,
}

impl Plan {
    fn context(&self) -> Context {
        self.context.iter().fold(Context::new(), |context, (k, v)| context.with(k, v).expect("a good context"))
    }

    pub(super) fn document(&self, make: &Maker, label: &str) -> Document {
        let id = bytes(&format!("document {label}"));
        let (context, row) = (self.context(), self.row.map(str::as_bytes));
        Document::new(&make.key(self.key), &id, self.sequence.is_some(), &context, row).expect("a good context")
    }

    /// The case, with every intermediate value.
    pub(super) fn seal(&self, make: &Maker, label: &str) -> Json {
        let document = self.document(make, label);
        let mut bodies = Vec::new();
        let mut shown = Vec::new();
        for (i, &(field, path, value, padding)) in self.values.iter().enumerate() {
            let nonce = bytes(&format!("body {label} {i}"));
            let body = document.body(DocumentValue { field, path, value }, padding, &nonce).expect("short");
            shown.push(json!({
                "field": field, "path": path, "body": text_of(&body), "type": value.value_type().name(),
                "value": hex(vectors::canonical(value)), "aad": hex(body_aad(field, path).expect("short")),
                "encoded": hex(vectors::encode(value, padding).expect("short")), "nonce": hex(nonce),
            }));
            bodies.push((path, body));
        }
        let bodies: Vec<(&str, &[u8])> = bodies.iter().map(|(path, body)| (*path, &body[..])).collect();
        let beside: Vec<_> = self.beside.iter().map(|(path, text)| Beside { path, sealed: text.as_bytes() }).collect();
        let mut case = json!({
            "manifest_rule": "none", "header": document.header.to_text(), "bodies": shown,
            "beside": self.beside, "manifest": null, "expect": "ok",
            "header_bytes": hex(document.header.as_bytes()), "document_key": hex(document.key),
            "context": self.context.iter().map(|(k, v)| json!([k, hex(v)])).collect::<Vec<_>>(),
        });
        if let Some(sequence) = self.sequence {
            let manifest = document.manifest(&bodies, &beside, sequence).expect("paths differ");
            (case["manifest_rule"], case["sequence"]) = (json!("required"), json!(sequence));
            (case["manifest"], case["manifest_bytes"]) = (json!(manifest_text(&manifest)), json!(hex(manifest)));
            case["manifest_key"] = json!(hex(document.mac_key));
        }
        if let Some(scope) = self.scope {
            case["scope"] = json!(scope);
        }
        if let Some(row) = self.row {
            (case["row"], case["row_bound"]) = (json!(hex(row)), json!(true));
        }
        case
    }
}

pub(super) fn text_of(body: &[u8]) -> String {
    let mut text = Vec::new();
    push_body_text(body, &mut text);
    String::from_utf8(text).expect("ASCII")
}

pub(super) fn bytes_of(text: &Json) -> Vec<u8> {
    let mut body = Vec::new();
    body_from_text(text.as_str().expect("a text").as_bytes(), &mut body).expect("a body");
    body
}

pub(super) fn file(make: &Maker) -> File {
    let mut cases = Cases("document", Vec::new());
    let reference = "Patient/kf1.020000000c.c6VUaw".to_owned();
    let patient = Plan {
        key: "data",
        scope: None,
        context: vec![("tenant", "t1")],
        row: Some("patient-1"),
        values: vec![
            ("patient.name", "$['name'][0]['family']", Value::Text("Lovelace"), Padding::None),
            ("patient.name", "$['name'][0]['given'][0]", Value::Text("Ada"), Padding::None),
            ("patient.name", "$['name'][0]['given'][1]", Value::Text("Ada"), Padding::None),
            ("patient.birth", "$['birthDate']", Value::Date(-56_270), Padding::None),
            ("patient.note", "$['text']['div']", Value::Text("short"), Padding::Multiple(16)),
        ],
        beside: vec![("$['managingOrganization']['reference']", reference)],
        sequence: Some(1),
    };
    let whole = patient.seal(make, "patient");
    cases.push("a resource with a row, a context, padding and a manifest over a deterministic value", whole.clone());
    let clinic = Plan { key: "clinic-17", scope: Some("clinic-17"), context: vec![], row: None, ..plan(&patient) };
    cases.push("of a scope, bound to no row and no context", clinic.seal(make, "clinic"));
    let odd = Plan {
        key: "data-old",
        values: vec![
            ("a", "$", Value::Json("[1, 2]"), Padding::Padme),
            ("a", "$['\\'\\u000b\\\\é']", Value::Null, Padding::None),
            ("a", "$['Z'][10]", Value::Integer(-129), Padding::None),
            ("a", "$['Z'][9]", Value::Boolean(true), Padding::None),
        ],
        beside: vec![],
        sequence: Some(u64::MAX),
        ..plan(&patient)
    };
    cases.push("under an old key; paths in the order of their bytes, escaped as RFC 9535 says", odd.seal(make, "odd"));
    let empty = Plan { values: vec![], beside: vec![], sequence: Some(0), ..plan(&patient) };
    cases.push("without protected values", empty.seal(make, "empty"));
    let without = Plan { sequence: None, ..plan(&patient) };
    let free = without.seal(make, "free");
    cases.push("sealed without a manifest", free.clone());
    for (note, case, rule) in [
        ("without a manifest, which the policy writes and does not require", &free, "written"),
        ("with a manifest, which the policy writes and does not require", &whole, "written"),
        ("with a manifest, which the policy does not write", &whole, "none"),
    ] {
        let mut case = case.clone();
        case["manifest_rule"] = json!(rule);
        cases.push(note, case);
    }
    let mut dropped = free.clone();
    dropped["bodies"].as_array_mut().expect("a list").remove(1);
    cases.push("without a manifest nothing shows that a value was deleted: opens", dropped);

    let others = |of: &Plan, other: &str, older: &str| {
        (Plan { row: Some("patient-2"), ..plan(of) }.seal(make, other), plan(of).seal(make, older))
    };
    let (other, older) = others(&patient, "other", "older");
    let (free_other, free_older) = others(&without, "free other", "free older");
    let whole = Family { one: whole, other, older };
    let free = Family { one: free, other: free_other, older: free_older };
    Negative { cases: &mut cases, whole, free }.all();
    document_edges::add(make, &mut cases);
    ("document.json", head("documents: what opens, and what must not"), cases.1)
}

fn plan(of: &Plan) -> Plan {
    Plan { context: of.context.clone(), values: of.values.clone(), beside: of.beside.clone(), ..*of }
}

/// A document, that of another row, and an older state of it.
#[derive(Clone)]
struct Family {
    one: Json,
    other: Json,
    older: Json,
}

/// A case made from `base` by `change`; what only explains the good one is left out.
pub(super) fn put(cases: &mut Cases, note: &str, expect: &str, base: &Json, change: impl FnOnce(&mut Json)) {
    let mut case = base.clone();
    change(&mut case);
    let map = case.as_object_mut().expect("an object");
    for explained in ["header_bytes", "manifest_bytes", "document_key", "manifest_key", "sequence"] {
        map.remove(explained);
    }
    for body in map["bodies"].as_array_mut().expect("a list") {
        let body = body.as_object_mut().expect("an object");
        body.retain(|key, _| ["field", "path", "body"].contains(&key.as_str()));
    }
    map.insert("expect".into(), json!(expect));
    cases.push(note, case);
}

struct Negative<'a> {
    cases: &'a mut Cases,
    /// With a manifest.
    whole: Family,
    /// Sealed without one.
    free: Family,
}

impl Negative<'_> {
    fn put(&mut self, note: &str, expect: &str, base: &Json, change: impl FnOnce(&mut Json)) {
        put(self.cases, note, expect, base, change);
    }

    fn both(&mut self, note: &str, expect: &str, change: impl Fn(&mut Json)) {
        self.mix(note, expect, |case, _| change(case));
    }

    /// As `both`, with something of the documents beside that one.
    fn mix(&mut self, note: &str, expect: &str, change: impl Fn(&mut Json, &Family)) {
        for (note, family) in [
            (format!("{note}, with a manifest"), self.whole.clone()),
            (format!("{note}, without one"), self.free.clone()),
        ] {
            self.put(&note, expect, &family.one, |case| change(case, &family));
        }
    }

    fn all(mut self) {
        let failed = "DecryptionFailed";
        type Pick = fn(&Family) -> &Json;
        let picks: [(&str, Pick); 2] =
            [("of another row", |family| &family.other), ("of an older state", |family| &family.older)];
        for (note, from) in picks {
            for i in [0, 3] {
                self.mix(&format!("body {i} is that {note}"), failed, |case, family| {
                    case["bodies"][i]["body"] = from(family)["bodies"][i]["body"].clone();
                });
            }
            self.mix(&format!("the header is that {note}"), failed, |case, family| {
                case["header"] = from(family)["header"].clone();
            });
            let whole = self.whole.clone();
            self.put(&format!("the manifest is that {note}"), failed, &whole.one, |case| {
                case["manifest"] = from(&whole)["manifest"].clone();
            });
        }
        self.both("two bodies of one field are swapped", failed, |case| {
            let body = case["bodies"][1]["body"].take();
            case["bodies"][1]["body"] = case["bodies"][2]["body"].take();
            case["bodies"][2]["body"] = body;
        });
        self.both("a body is copied over another", failed, |case| {
            case["bodies"][2]["body"] = case["bodies"][1]["body"].clone();
        });
        self.both("a body is at another path", failed, |case| {
            case["bodies"][0]["path"] = json!("$['name'][1]['family']")
        });
        self.both("a path is spelt otherwise", failed, |case| case["bodies"][0]["path"] = json!("$.name[0].family"));
        self.both("a body is taken for another field", failed, |case| {
            case["bodies"][0]["field"] = json!("patient.birth")
        });
        self.both("another row", failed, |case| case["row"] = json!(hex("patient-2")));
        self.both("no context", failed, |case| case["context"] = json!([]));
        let (whole, free) = (self.whole.one.clone(), self.free.one.clone());
        self.put("a body is deleted", failed, &whole, |case| drop(list(case, "bodies").remove(4)));
        self.put("all bodies are deleted", failed, &whole, |case| list(case, "bodies").clear());
        self.put("a body is added", failed, &whole, |case| {
            let mut body = case["bodies"][0].clone();
            body["path"] = json!("$['name'][1]['family']");
            list(case, "bodies").push(body);
        });
        self.put("the deterministic value is another", failed, &whole, |case| {
            case["beside"][0][1] = json!("Patient/kf1.020000000c.AAAAAA");
        });
        self.put("the deterministic value is elsewhere", failed, &whole, |case| case["beside"][0][0] = json!("$['x']"));
        self.put("the deterministic value is deleted", failed, &whole, |case| case["beside"] = json!([]));
        for (rule, expect) in [("required", "PolicyRefused"), ("written", failed), ("none", failed)] {
            self.put(&format!("the manifest is taken out, read as {rule}"), expect, &whole, |case| {
                (case["manifest"], case["manifest_rule"]) = (Json::Null, json!(rule));
            });
            self.put(&format!("the manifest and a value are taken out, read as {rule}"), expect, &whole, |case| {
                (case["manifest"], case["manifest_rule"]) = (Json::Null, json!(rule));
                drop(list(case, "bodies").remove(1));
            });
        }
        self.put("the manifest and all values are taken out", "PolicyRefused", &whole, |case| {
            (case["manifest"], case["bodies"]) = (Json::Null, json!([]));
        });
        self.put("sealed without a manifest where the policy requires one", "PolicyRefused", &free, |case| {
            case["manifest_rule"] = json!("required");
        });
        self.put("a manifest is put into a document that was sealed without one", failed, &free, |case| {
            case["manifest"] = whole["manifest"].clone();
        });
        for at in [0, 7, 8, 39] {
            self.put(&format!("byte {at} of the manifest: one bit flipped"), failed, &whole, |case| {
                let mut manifest = manifest_from_text(case["manifest"].as_str().expect("a text")).expect("a manifest");
                manifest[at] ^= 1;
                case["manifest"] = json!(manifest_text(&manifest));
            });
        }
        for (at, expect) in [(2, "NoMatchingKey"), (25, "NoMatchingKey"), (26, failed), (49, failed)] {
            self.put(&format!("byte {at} of the header: one bit flipped"), expect, &free, |case| {
                let mut header =
                    *DocumentHeader::from_text(case["header"].as_str().expect("a text")).expect("a header").as_bytes();
                header[at] ^= 4;
                case["header"] = json!(DocumentHeader::parse(&header).expect("a header").to_text());
            });
        }
        for at in [0, 11, 12, 36] {
            self.put(&format!("byte {at} of a body: one bit flipped"), failed, &free, |case| {
                let mut body = bytes_of(&case["bodies"][0]["body"]);
                body[at] ^= 0x40;
                case["bodies"][0]["body"] = json!(text_of(&body));
            });
        }
        self.put("a body is cut by a byte", failed, &free, |case| {
            let body = bytes_of(&case["bodies"][0]["body"]);
            case["bodies"][0]["body"] = json!(text_of(&body[..body.len() - 1]));
        });
        self.put("a body of 28 bytes", "Malformed", &free, |case| {
            case["bodies"][0]["body"] = json!(text_of(&bytes_of(&case["bodies"][0]["body"])[..28]));
        });
        self.put("two bodies at one path", "Malformed", &free, |case| {
            case["bodies"][1]["path"] = case["bodies"][0]["path"].clone();
        });
        self.put("another scope", "WrongScope", &free, |case| case["scope"] = json!("clinic-17"));
        self.put("no row where one is bound", "InvalidInput", &free, |case| {
            drop(case.as_object_mut().expect("an object").remove("row"));
        });
        self.put("a row where none is bound", "InvalidInput", &free, |case| case["row_bound"] = json!(false));
        self.whatever_the_rule(&whole);
        self.texts(&free);
    }

    /// A manifest that is there is verified whether or not the policy asks for one.
    fn whatever_the_rule(&mut self, whole: &Json) {
        let other = self.whole.other["manifest"].clone();
        let exchange = |case: &mut Json| case["manifest"] = other.clone();
        type Change<'c> = (&'static str, &'c dyn Fn(&mut Json));
        let changes: [Change<'_>; 7] = [
            ("a body is deleted", &|case| drop(list(case, "bodies").remove(4))),
            ("all bodies are deleted", &|case| list(case, "bodies").clear()),
            ("a body is copied over another", &|case| case["bodies"][2]["body"] = case["bodies"][1]["body"].clone()),
            ("the deterministic value is another", &|case| {
                case["beside"][0][1] = json!("Patient/kf1.020000000c.AAAAAA")
            }),
            ("the deterministic value is elsewhere", &|case| case["beside"][0][0] = json!("$['x']")),
            ("the deterministic value is deleted", &|case| case["beside"] = json!([])),
            ("the manifest is that of another row", &exchange),
        ];
        for rule in ["written", "none"] {
            for (note, change) in &changes {
                self.put(&format!("{note}, read as {rule}"), "DecryptionFailed", whole, |case| {
                    case["manifest_rule"] = json!(rule);
                    change(case);
                });
            }
        }
    }

    fn texts(&mut self, free: &Json) {
        let changed = |text: &Json, from: &str, to: &str| json!(text.as_str().expect("a text").replacen(from, to, 1));
        for (note, from, to) in [
            ("a header of suite 01", "kf1.05", "kf1.01"),
            ("a header of another version", "kf1.", "kf2."),
            ("a header with an upper-case digit", "kf1.0500000005", "kf1.050000000A"),
            ("a header with seven digits of generation", "kf1.0500000005", "kf1.050000005"),
            ("a header with padding", ".", ".="),
            ("a header with white space", "kf1", " kf1"),
        ] {
            self.put(note, "Malformed", free, |case| case["header"] = changed(&case["header"], from, to));
        }
        self.put("a header that is cut", "Malformed", free, |case| {
            let text = case["header"].as_str().expect("a text");
            case["header"] = json!(text[..text.len() - 2]);
        });
        self.put("no header", "Malformed", free, |case| case["header"] = json!(""));
        for (note, from, to) in [
            ("a body with the start of a value", "kf1d.", "kf1."),
            ("a body with padding", "kf1d.", "kf1d.="),
            ("a body that is in clear", "kf1d.", ""),
        ] {
            self.put(note, "Malformed", free, |case| {
                case["bodies"][0]["body"] = changed(&case["bodies"][0]["body"], from, to);
            });
        }
        let whole = self.whole.one.clone();
        self.put("a manifest that is cut", "Malformed", &whole, |case| {
            let text = case["manifest"].as_str().expect("a text");
            case["manifest"] = json!(text[..text.len() - 4]);
        });
        self.put("a manifest with other letters", "Malformed", &whole, |case| {
            case["manifest"] = json!("+".repeat(54));
        });
    }
}

pub(super) fn list<'j>(case: &'j mut Json, name: &str) -> &'j mut Vec<Json> {
    case[name].as_array_mut().expect("a list")
}

/// The type and the canonical bytes of a value that was opened.
type Found = (&'static str, String);

/// What a case comes to: type and canonical bytes of each value, and the sequence.
pub(crate) fn open(world: &World, case: &Json) -> Result<(Vec<Found>, Option<u64>)> {
    let text = |json: &Json| json.as_str().expect("a text").to_owned();
    let unhex = |json: &Json| data_encoding::HEXLOWER.decode(json.as_str().expect("a text").as_bytes()).expect("hex");
    let bodies: Vec<_> = case["bodies"].as_array().expect("a list").iter().collect();
    let required_context = case["required_context"].as_array().into_iter().flatten().map(text).collect();
    let mut policy = Policy::new();
    for field in bodies.iter().map(|body| text(&body["field"])).collect::<BTreeSet<_>>() {
        policy.add(FieldPolicy::document(&field))?;
    }
    policy.add_document(DocumentPolicy {
        row_binding: match case["row_bound"] == true {
            true => RowBinding::Bound { column: None, path: Some("$.id".into()), segment: None },
            false => RowBinding::None,
        },
        manifest: match case["manifest_rule"].as_str().expect("a text") {
            "required" => ManifestRule::Required,
            "written" => ManifestRule::Written,
            _ => ManifestRule::None,
        },
        required_context,
        ..DocumentPolicy::new("d")
    })?;
    let context =
        case["context"].as_array().expect("a list").iter().try_fold(Context::new(), |context, pair| {
            context.with(pair[0].as_str().expect("a text"), unhex(&pair[1]))
        })?;
    let mut documents = world.keyring(policy)?.documents("d")?.context(context);
    if let Some(scope) = case["scope"].as_str() {
        documents = documents.scope(scope);
    }
    let header = DocumentHeader::from_text(&text(&case["header"]))?;
    let manifest = case["manifest"].as_str().map(manifest_from_text).transpose()?;
    let parsed = bodies.iter().map(|body| {
        let mut bytes = Vec::new();
        body_from_text(text(&body["body"]).as_bytes(), &mut bytes)?;
        Ok((text(&body["field"]), text(&body["path"]), bytes))
    });
    let parsed = parsed.collect::<Result<Vec<_>, Error>>()?;
    let opener = block_on(documents.opener())?;
    block_on(opener.load_key(&header))?;
    let bodies: Vec<_> = parsed.iter().map(|(field, path, body)| DocumentBody { field, path, body }).collect();
    let beside: Vec<_> =
        case["beside"].as_array().expect("a list").iter().map(|b| (text(&b[0]), text(&b[1]))).collect();
    let beside: Vec<_> = beside.iter().map(|(path, sealed)| Beside { path, sealed: sealed.as_bytes() }).collect();
    let row = case.get("row").map(unhex);
    let opened = opener.open(&header, row.as_deref(), &bodies, &beside, manifest.as_ref())?;
    let values = (0..opened.values().len()).map(|row| {
        let value = opened.values().value(row);
        (value.value_type().name(), hex(vectors::canonical(value)))
    });
    Ok((values.collect(), opened.sequence()))
}
