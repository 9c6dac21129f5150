//! Runs testvectors/: every case must come to exactly the result that it names (FORMAT.md §11).
//!
//! `KEYFOLD_WRITE_VECTORS=1 cargo test -p keyfold --features hazmat,testing --test all vectors::` writes the files anew.

#[path = "support/generate.rs"]
mod generate;

use crate::world::{BytesStore, Opening, World};
use generate::{files, hex, lookups, to_text};
use keyfold::aead::Backend;
use keyfold::device::{Binding, Bundle, Protection};
use keyfold::vectors::{self, Key};
use keyfold::wire::{self, KeyId, Suite};
use keyfold::{
    Error, ErrorKind, IndexKind, IndexPolicy, KeyClass, KeyringConfig, Lineage, LookupKeys, OnUnindexable, Padding,
    Policy, Secret, SlotId, Value, ValueType,
};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use sha3::Shake128;
use sha3::digest::{ExtendableOutput, Update, XofReader};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

const FILES: [&str; 11] = [
    "keyring.json",
    "field.json",
    "deterministic.json",
    "value.json",
    "text.json",
    "record.json",
    "frame.json",
    "bundle.json",
    "document.json",
    "document-json.json",
    "stream.json",
];
/// Those of FORMAT.md §17, whose values say nothing that could be wrong but their form.
const LOOKUPS: [&str; 3] = ["index.json", "fpe.json", "token.json"];
/// Those whose cases are values that the keyring opens.
const VALUES: std::ops::Range<usize> = 1..7;

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "testvectors", name].iter().collect()
}

fn read(name: &str) -> Json {
    serde_json::from_str(&std::fs::read_to_string(path(name)).unwrap()).unwrap()
}

// Failure C24
#[test]
fn the_committed_files_equal_regeneration() {
    for file in files() {
        let (name, text) = to_text(&file);
        if std::env::var_os("KEYFOLD_WRITE_VECTORS").is_some() {
            std::fs::write(path(&name), &text).unwrap();
        }
        // Parsed, so that the order of keys within a case does not matter.
        assert!(
            read(&name) == serde_json::from_str::<Json>(&text).unwrap(),
            "{name} differs; see the top of this file"
        );
    }
}

fn unhex(json: &Json) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(json.as_str().unwrap().as_bytes()).unwrap()
}

fn array<const N: usize>(json: &Json) -> [u8; N] {
    unhex(json).try_into().unwrap()
}

fn strings(json: &Json) -> Vec<String> {
    json.as_array().into_iter().flatten().map(|s| s.as_str().unwrap().to_owned()).collect()
}

/// The keyring as the file says, with what a case changes.
fn world(keyring: &Json, case: &Json) -> World {
    let get = |name: &str| case.get(name).unwrap_or(&keyring[name]);
    let key_id = |json: &Json| json.as_str().unwrap().parse::<KeyId>().unwrap();
    let lookup = get("lookup").as_object().unwrap().iter().map(|(name, keys)| {
        let opens = keys["opens"].as_array().unwrap().iter().map(key_id).collect();
        let keys = LookupKeys {
            partition: SlotId::from_bytes(array(&keys["partition"])),
            seals: key_id(&keys["seals"]),
            opens,
        };
        (name.clone(), keys)
    });
    let config = KeyringConfig {
        cache: keyfold::CachePolicy::default(),
        rotation: keyfold::RotationPolicy::default(),
        isolated: BTreeMap::new(),
        scope_keks: BTreeSet::new(),
        open_compromised: false,
        keks: keyfold::KekPolicy::default(),
        shred: keyfold::ShredPolicy { waiting: std::time::Duration::ZERO },
        fips: keyfold::fips::Rule::default(),
        memory: keyfold::MemoryLock::default(),
        name: "vectors".into(),
        environment: get("environment").as_str().unwrap().into(),
        lineage: Lineage::from_bytes(array(get("lineage"))),
        root_pins: get("root_pins").as_array().unwrap().iter().map(array).collect(),
        scope_names: key_id(get("scope_names")),
        lookup: lookup.collect(),
        policy: Policy::new(),
    };
    let records =
        keyring["cases"].as_array().unwrap().iter().map(|key| (key_id(&key["key_id"]), unhex(&key["record"])));
    let mut store: BTreeMap<KeyId, Vec<u8>> = records.collect();
    for missing in strings(&case["missing"]) {
        store.remove(&missing.parse().unwrap());
    }
    if let Some(asked) = case.get("asked") {
        store.insert(key_id(asked), unhex(&case["record"]));
    }
    World { kek: array(&get("keks")["local"]), config, store: BytesStore(store) }
}

fn opening(json: &Json) -> Opening {
    let text = |name: &str| json.get(name).map(|t| t.as_str().unwrap().to_owned());
    let suite = |s: String| Suite::from_id(u8::from_str_radix(&s, 16).unwrap()).unwrap();
    Opening {
        field: text("field").unwrap(),
        partition: text("partition"),
        join_group: text("join_group"),
        scope: text("scope"),
        context: json["context"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|p| (p[0].as_str().unwrap().into(), unhex(&p[1])))
            .collect(),
        row: json.get("row").map(unhex),
        row_bound: json.get("row_bound").is_some(),
        required_context: strings(&json["required_context"]),
        accept: strings(&json["accept"]).into_iter().map(suite).collect(),
        max_frame_records: json.get("max_frame_records").map(|n| n.as_u64().unwrap() as usize),
    }
}

fn run(world: &World, case: &Json) -> Result<(&'static str, Vec<u8>), Error> {
    let sealed = match case.get("text") {
        Some(text) => {
            let mut sealed = Vec::new();
            wire::from_text(text.as_str().unwrap().as_bytes(), &mut sealed)?;
            sealed
        }
        None => unhex(&case["sealed"]),
    };
    opening(&case["open"]).open(world, &sealed)
}

// Failure C16
#[test]
fn every_case_comes_to_the_result_that_it_names() {
    let keyring = read("keyring.json");
    let plain = world(&keyring, &Json::Null);
    let mut wrong = Vec::new();
    for name in &FILES[VALUES] {
        for case in read(name)["cases"].as_array().unwrap() {
            let own = case.get("asked").or(case.get("missing")).map(|_| world(&keyring, case));
            let found = match run(own.as_ref().unwrap_or(&plain), case) {
                Ok((kind, value)) if kind == case["type"] && hex(&value) == case["value"] => "ok",
                Ok(_) => "another value",
                Err(error) => error.kind().name(),
            };
            if found != case["expect"] {
                wrong.push(format!("{name} {} ({}): {found}, expected {}", case["id"], case["note"], case["expect"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// The generator runs each case through the library, and compares with what it makes by hand.
#[test]
fn tokens_are_searched_as_they_are_stored() {
    let world = World::generated();
    for case in read(LOOKUPS[0])["cases"].as_array().unwrap().iter() {
        if case["expect"] != "ok" || case.get("search").is_some() {
            continue;
        }
        let kind = case["index"]["kind"].as_str().unwrap();
        let kind = match kind {
            "exact" => IndexKind::Exact,
            "case-folded" => IndexKind::CaseFolded,
            "digits" => IndexKind::Digits,
            _ => continue,
        };
        let bits = u16::try_from(case["index"]["bits"].as_u64().unwrap()).unwrap();
        let value_type = ValueType::ALL.into_iter().find(|known| case["type"] == known.name()).unwrap();
        let bytes = unhex(&case["value"]);
        let value = Value::from_canonical(value_type, &bytes).unwrap();
        let context: Vec<(String, String)> = strings_of_pairs(&case["context"]);
        let context: Vec<(&str, &str)> = context.iter().map(|(key, value)| (&**key, &**value)).collect();
        let index = IndexPolicy { on_unindexable: OnUnindexable::Skip, ..IndexPolicy::new("i", kind, bits) };
        let (stored, searched) = lookups::run(&world, &index, &context, value).unwrap();
        let stored: Vec<Json> = stored.iter().map(lookups::token_json).collect();
        assert_eq!(Json::from(stored.clone()), case["tokens"], "{}", case["id"]);
        // The key that writes comes first; the retired one is searched, too.
        assert_eq!(searched.first().map(lookups::token_json), stored.first().cloned(), "{}", case["id"]);
        assert_eq!(searched.len(), 2 * stored.len());
    }
}

fn strings_of_pairs(pairs: &Json) -> Vec<(String, String)> {
    let pairs = pairs.as_array().into_iter().flatten();
    pairs.map(|pair| (pair[0].as_str().unwrap().to_owned(), String::from_utf8(unhex(&pair[1])).unwrap())).collect()
}

/// What a device makes of a bundle, and of a value under its key.
fn install(case: &Json) -> Result<Vec<u8>, Error> {
    let bytes = unhex(&case["bundle"]);
    let bundle = Bundle::parse(&bytes)?;
    assert_eq!(matches!(bundle.protection(), Protection::Passphrase(_)), bytes[5] == 2);
    let transport_key = Secret::with(|key| *key = array(&case["transport_key"]));
    let mut opened = Vec::new();
    if case["expect"] != "ok" {
        bundle.open(Backend::RustCrypto, &transport_key)?;
        return Ok(opened);
    }
    for backend in Backend::ALL {
        let key = bundle.open(*backend, &transport_key)?;
        assert_eq!(key.key_id().to_string(), case["key_id"]);
        assert_eq!(bundle.lineage().to_string(), case["lineage"]);
        assert_eq!(bundle.scope().to_string(), case["slot"]);
        assert_eq!(hex(bundle.device_id()), case["device_id"]);
        assert_eq!(bundle.issued(), case["issued"]);
        let (sealed, row, tenant) =
            (unhex(&case["sealed"]), unhex(&case["open"]["row"]), unhex(&case["open"]["context"][0][1]));
        let pairs: [(&[u8], &[u8]); 2] = [(b"kf:row", &row), (b"tenant", &tenant)];
        let binding = Binding { field: case["open"]["field"].as_str().unwrap(), pairs: &pairs };
        let mut scratch = [0; 256];
        opened = vectors::canonical(key.open(&sealed, binding, &mut scratch)?);
    }
    Ok(opened)
}

#[test]
fn every_bundle_comes_to_the_result_that_it_names() {
    let mut wrong = Vec::new();
    for case in read("bundle.json")["cases"].as_array().unwrap() {
        let found = match install(case) {
            Ok(value) if hex(&value) == case["value"] => "ok",
            Ok(_) => "another value",
            Err(error) => error.kind().name(),
        };
        if found != case["expect"] {
            wrong.push(format!("{} ({}): {found}, expected {}", case["id"], case["note"], case["expect"]));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_document_comes_to_the_result_that_it_names() {
    let plain = world(&read("keyring.json"), &Json::Null);
    let mut wrong = Vec::new();
    for case in read("document.json")["cases"].as_array().unwrap() {
        let found = match generate::documents::open(&plain, case) {
            Ok((values, sequence)) => {
                let expected =
                    case["bodies"].as_array().unwrap().iter().map(|body| json!([body["type"], body["value"]]));
                let found = values.iter().map(|(kind, value)| json!([kind, value]));
                if found.eq(expected) && json!(sequence) == case["sequence"] { "ok" } else { "another value" }
            }
            Err(error) => error.kind().name(),
        };
        if found != case["expect"] {
            wrong.push(format!("{} ({}): {found}, expected {}", case["id"], case["note"], case["expect"]));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_stream_comes_to_the_result_that_it_names() {
    let keyring = read("keyring.json");
    let plain = world(&keyring, &Json::Null);
    let file = read("stream.json");
    let cases = file["cases"].as_array().unwrap();
    let mut wrong = Vec::new();
    for case in cases {
        let own = case.get("root_pins").map(|_| world(&keyring, case));
        let world = own.as_ref().unwrap_or(&plain);
        let (released, result) = generate::streams::open(world, cases, &opening(&case["open"]), case);
        let read = json!([released.len(), hex(Sha256::digest(&released))]);
        let found = match result {
            Ok(()) if read == json!([case["length"], case["sha256"]]) => "ok",
            Ok(()) => "another plaintext",
            Err(_) if case.get("released").is_some_and(|released| *released != read) => "something else released",
            Err(error) => error.kind().name(),
        };
        if found != case["expect"] {
            wrong.push(format!("{} ({}): {found}, expected {}", case["id"], case["note"], case["expect"]));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

// Failure N10
#[test]
fn keys_commit_and_derive_as_the_file_says() {
    for case in read("keyring.json")["cases"].as_array().unwrap() {
        let class =
            [KeyClass::Root, KeyClass::Data, KeyClass::Lookup].into_iter().find(|c| c.name() == case["class"]).unwrap();
        let key = Key {
            bytes: array(&case["key"]),
            lineage: Lineage::from_bytes(array(&read("keyring.json")["lineage"])),
            class,
            slot: SlotId::from_bytes(array(&case["slot"])),
            generation: u32::try_from(case["generation"].as_u64().unwrap()).unwrap(),
        };
        assert_eq!(hex(key.identity_bytes()), case["identity"]);
        assert_eq!(hex(key.commitment()), case["commitment"]);
        assert_eq!(key.key_id().to_string(), case["key_id"]);
        let purposes = case["purpose_keys"].as_object().unwrap();
        assert_eq!(purposes.len(), key.purpose_keys().len());
        for (label, derived) in key.purpose_keys() {
            assert_eq!(hex(derived), purposes[label], "{label}");
        }
        let record = keyfold::Record::parse(&unhex(&case["record"])).unwrap();
        assert_eq!(
            (record.key_id(), record.commitment(), record.state().name()),
            (key.key_id(), &key.commitment(), case["state"].as_str().unwrap())
        );
    }
}

#[test]
fn at_least_four_of_five_cases_are_negative() {
    let (mut positive, mut negative, mut notes) = (0, 0, std::collections::HashSet::new());
    for name in FILES {
        let file = read(name);
        let (mut ok, mut refused) = (0, 0);
        for case in file["cases"].as_array().unwrap() {
            if case["expect"] == "ok" {
                ok += 1;
            } else {
                refused += 1;
                let known =
                    ErrorKind::ALL.iter().map(|k| k.name()).chain(keyfold::KmsErrorKind::ALL.iter().map(|k| k.name()));
                assert!(known.into_iter().any(|k| case["expect"] == k), "{}: no such class", case["id"]);
            }
            assert!(notes.insert(case["id"].to_string()), "an ID twice");
        }
        println!("{name}: {ok} positive, {refused} negative");
        positive += ok;
        negative += refused;
    }
    println!("together: {positive} positive, {negative} negative");
    assert!(negative * 5 >= (negative + positive) * 4, "{negative} of {}", negative + positive);
}

/// FORMAT.md §11.3 describes the cases and records this hash.
const ACCUMULATED: &str = "359f00f912f30546f34f1a884648d71021a9eebefbc3def3acdb2b2c40b3a221";

#[test]
fn ten_thousand_generated_values_hash_as_recorded() {
    let mut seed = Shake128::default();
    seed.update(b"keyfold accumulated v1");
    let mut stream = seed.finalize_xof();
    let mut hash = Shake128::default();
    for i in 0..10_000_u32 {
        let mut draw = |n: usize| {
            let mut out = vec![0; n];
            stream.read(&mut out);
            out
        };
        let mut key = Key {
            bytes: draw(32).try_into().unwrap(),
            lineage: Lineage::from_bytes(draw(16).try_into().unwrap()),
            class: KeyClass::Data,
            slot: SlotId::from_bytes(draw(16).try_into().unwrap()),
            generation: u32::from_be_bytes(draw(4).try_into().unwrap()),
        };
        let nonce: [u8; 24] = draw(24).try_into().unwrap();
        let sizes = draw(6);
        let name = hex(draw(1 + usize::from(sizes[0] % 16)));
        let context = (0..sizes[1] % 4).fold(keyfold::Context::new(), |context, j| {
            context.with(&format!("k{j}"), draw(usize::from(sizes[2] % 32))).unwrap()
        });
        let row = draw(8);
        let row = (sizes[3] % 2 == 1).then_some(&row[..]);
        let value = draw(usize::from(u16::from_be_bytes([sizes[4], sizes[5]])) % 600);
        let padding = [Padding::None, Padding::Multiple(16), Padding::Padme][i as usize % 3];
        let encoded = vectors::encode(Value::Bytes(&value), padding).unwrap();
        let sealed = if i % 2 == 0 {
            let aad = vectors::aad(&key.header(Suite::Field), &name, &context, row).unwrap();
            let backend = Backend::ALL[i as usize / 2 % Backend::ALL.len()];
            key.seal_field(backend, &nonce, &aad, &encoded).unwrap()
        } else {
            key.class = KeyClass::Lookup;
            let strings = vectors::strings(&key.header(Suite::Deterministic), row.is_some(), &name, &context).unwrap();
            key.seal_deterministic(&strings, &encoded).unwrap()
        };
        hash.update(&sealed);
    }
    let mut out = [0; 32];
    hash.finalize_xof().read(&mut out);
    assert_eq!(hex(out), ACCUMULATED);
}

#[test]
fn four_of_five_cases_are_refused() {
    let files = FILES.iter().chain(&LOOKUPS);
    let cases: Vec<Json> = files.flat_map(|name| read(name)["cases"].as_array().unwrap().clone()).collect();
    let refused = cases.iter().filter(|case| case["expect"] != "ok").count();
    assert!(refused * 5 >= cases.len() * 4, "{refused} of {}", cases.len());
}

#[test]
fn the_specification_shows_what_the_files_hold() {
    let spec =
        std::fs::read_to_string([env!("CARGO_MANIFEST_DIR"), "..", "docs", "FORMAT.md"].iter().collect::<PathBuf>())
            .unwrap();
    let digits: String = spec.split_whitespace().collect();
    let find = |file: &str, id: &str| {
        let file = read(file);
        file["cases"].as_array().unwrap().iter().find(|case| case["id"] == id).unwrap().clone()
    };
    let field = find("field.json", "field-002");
    let deterministic = find("deterministic.json", "deterministic-004");
    let shown = ["sealed", "aad", "aes_key", "nonce", "encoded"].map(|name| &field[name]);
    let also = [
        &deterministic["sealed"],
        &deterministic["strings"][2],
        &find("field.json", "field-004")["aad"],
        &find("text.json", "text-004")["text"],
        &find("bundle.json", "bundle-001")["bundle"],
        &find("bundle.json", "bundle-001")["transport_key"],
    ];
    for json in shown.into_iter().chain(also) {
        assert!(digits.contains(json.as_str().unwrap()), "{json}");
    }
    let frame = find("frame.json", "frame-001");
    let bytes = unhex(&frame["sealed"]);
    assert!(digits.contains(&hex(wire::Frame::parse(&bytes).unwrap().value())));
    assert!(spec.contains(ACCUMULATED));
    let cases: Vec<Json> = FILES.iter().flat_map(|name| read(name)["cases"].as_array().unwrap().clone()).collect();
    let positive = cases.iter().filter(|case| case["expect"] == "ok").count();
    let counts = format!("hold {positive} positive and {} negative cases", cases.len() - positive);
    assert!(spec.contains(&counts), "FORMAT.md §11 should say that the files {counts}");
    let lookups = LOOKUPS.map(|name| read(name)["cases"].as_array().unwrap().len());
    let counts =
        format!("`index.json` holds {} cases, `fpe.json` {}, and `token.json` {}", lookups[0], lookups[1], lookups[2]);
    assert!(spec.contains(&counts), "FORMAT.md §17.6 should say that {counts}");
    for json in [
        &find("index.json", "index-003")["messages"][0],
        &find("fpe.json", "fpe-003")["tweak"],
        &find("token.json", "token-001")["message"],
    ] {
        assert!(digits.contains(json.as_str().unwrap()), "{json}");
    }
    for json in [&find("index.json", "index-012")["tokens"][0], &find("fpe.json", "fpe-001")["encrypted"]] {
        assert!(spec.contains(json.to_string().trim_matches('"')), "{json}");
    }
}
