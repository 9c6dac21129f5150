//! Synthea's patients, and the examples, under the ready-made policies: back byte for byte, joinable, and with no identifier left
//! in any disguise.

use crate::common::{World, argument, repository, shared};
use data_encoding::{BASE32_NOPAD, BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::Path;

impl World {
    /// Protects `input` and reveals it again; returns what is protected.
    #[track_caller]
    fn round_trip(&self, input: &Path, policy: &str) -> String {
        let policy = repository(policy);
        let name = argument(Path::new(input.file_name().expect("a name")));
        let (sealed, back) = (format!("sealed-{name}"), format!("back-{name}"));
        self.succeeds(&["protect", argument(input), "--output", &sealed, "--policy", argument(&policy)]);
        self.succeeds(&["reveal", &sealed, "--output", &back, "--policy", argument(&policy)]);
        assert!(self.read(&back) == fs::read(input).expect("the input"), "{name} came back changed");
        self.text(&sealed)
    }
}

fn documents(text: &str) -> Vec<Value> {
    text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Every text and number below `value`.
fn leaves(value: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => drop(out.insert(text.clone())),
        Value::Number(number) => drop(out.insert(number.to_string())),
        Value::Array(items) => items.iter().for_each(|item| leaves(item, out)),
        Value::Object(members) => members.values().for_each(|member| leaves(member, out)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// The identifiers in Patient and Device resources, found without the policy.
fn identifiers_of(resource: &Value, out: &mut BTreeSet<String>) {
    for pointer in [
        "/id",
        "/birthDate",
        "/deceasedDateTime",
        "/text/div",
        "/udiCarrier/0/deviceIdentifier",
        "/udiCarrier/0/carrierHRF",
        "/distinctIdentifier",
        "/manufactureDate",
        "/expirationDate",
        "/lotNumber",
        "/serialNumber",
    ] {
        resource.pointer(pointer).into_iter().for_each(|value| leaves(value, out));
    }
    // The narrative is sealed as a whole; none of its sentences may be anywhere else either.
    let narrative = resource.pointer("/text/div").and_then(Value::as_str).unwrap_or_default();
    let sentences =
        narrative.split(['<', '>']).map(str::trim).filter(|part| part.len() >= 8 && !part.starts_with("div "));
    out.extend(sentences.map(str::to_owned));
    let items = |member: &str| resource[member].as_array().cloned().unwrap_or_default();
    for name in items("name") {
        ["family", "given", "prefix", "suffix", "text"].iter().for_each(|part| leaves(&name[part], out));
    }
    items("identifier").iter().chain(&items("telecom")).for_each(|item| leaves(&item["value"], out));
    for address in items("address") {
        ["line", "city", "postalCode", "text"].iter().for_each(|part| leaves(&address[part], out));
        for place in address["extension"][0]["extension"].as_array().into_iter().flatten() {
            leaves(&place["valueDecimal"], out);
        }
    }
    for extension in items("extension") {
        match extension["url"].as_str().unwrap_or_default().rsplit('/').next() {
            Some("patient-mothersMaidenName") => leaves(&extension["valueString"], out),
            Some("patient-birthPlace") => leaves(&extension["valueAddress"]["city"], out),
            _ => {}
        }
    }
    if let Some((_, id)) = resource["patient"]["reference"].as_str().and_then(|reference| reference.split_once('/')) {
        out.insert(id.to_owned());
    }
}

/// The cells of the columns of a CSV file that are not in `clear`. Knows no quotes but those of whole cells.
fn cells_of(csv: &str, clear: &[&str]) -> BTreeSet<String> {
    let mut rows = parse_csv(csv).into_iter();
    let header = rows.next().expect("a header");
    rows.flat_map(|row| header.clone().into_iter().zip(row))
        .filter(|(column, _)| !clear.contains(&column.as_str()))
        .map(|(_, cell)| cell)
        .collect()
}

/// A second opinion on what is in a CSV file (RFC 4180).
fn parse_csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => cell.extend(characters.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\r' if !quoted => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            c => cell.push(c),
        }
    }
    rows
}

/// The spellings in which a value might survive, in lower case.
fn disguises(value: &str) -> Vec<String> {
    let utf16 = |bytes: fn(u16) -> [u8; 2]| value.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    let mut forms = vec![value.to_owned(), value.chars().rev().collect(), BASE32_NOPAD.encode(value.as_bytes())];
    forms.push(value.bytes().map(|byte| format!("%{byte:02x}")).collect());
    forms.push(url_encoded(value, false));
    forms.push(url_encoded(value, true));
    for bytes in [value.as_bytes().to_vec(), utf16(u16::to_le_bytes), utf16(u16::to_be_bytes)] {
        forms.push(HEXLOWER.encode(&bytes));
        // Inside of something longer, base64 starts at one of three places; its ends depend on the neighbours.
        for skip in 0..3 {
            let shifted = [&[0; 2][..skip], &bytes].concat();
            for text in [BASE64_NOPAD.encode(&shifted), BASE64URL_NOPAD.encode(&shifted)] {
                forms.push(text.get((skip * 8).div_ceil(6)..shifted.len() * 8 / 6).unwrap_or_default().to_owned());
            }
        }
    }
    let digits: String = value.chars().filter(char::is_ascii_digit).collect();
    if digits.len() >= 9 {
        forms.push(digits);
    }
    let escaped = |c: char| c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
    forms.push(value.chars().map(|c| if c.is_ascii() { c.to_string() } else { escaped(c) }).collect());
    forms.push(value.chars().map(escaped).collect());
    forms.push(value.chars().map(|c| format!("&#{};", c as u32)).collect());
    forms.push(value.chars().map(|c| format!("&#x{:x};", c as u32)).collect());
    forms.iter().map(|form| form.to_lowercase()).collect()
}

fn url_encoded(value: &str, plus: bool) -> String {
    value.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b' ' if plus => out.push('+'),
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02x}")),
        }
        out
    })
}

/// `text` in lower case without its sealed values and manifests, in which any few characters occur by chance.
fn without_sealed(text: &str) -> String {
    let text = text.replace("kf1d.", "kf1.").replace("\"manifest\":\"", "\"manifest\":\"kf1.");
    let mut parts = text.split("kf1.");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push('#');
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')));
    }
    out.to_lowercase()
}

/// None of `identifiers` is in `protected`, in any disguise.
#[track_caller]
fn check_absent(identifiers: &BTreeSet<String>, protected: &str) {
    const GRAM: usize = 6;
    let whole = protected.to_lowercase();
    let clear = without_sealed(protected);
    assert!(clear.len() * 3 < whole.len() * 2, "much of the file is sealed");
    // Most needles start with six bytes that are nowhere in the text, so this is quick.
    let grams: HashSet<&[u8]> = whole.as_bytes().windows(GRAM).collect();
    let mut checked = 0;
    for identifier in identifiers.iter().filter(|identifier| identifier.len() >= 4) {
        for needle in disguises(identifier).iter().filter(|needle| needle.len() >= 4) {
            checked += 1;
            let bounded = |(at, _): (usize, &str)| {
                let before = clear[..at].chars().next_back();
                let after = clear[at + needle.len()..].chars().next();
                !before.into_iter().chain(after).any(char::is_alphanumeric)
            };
            let short = needle.len() < 10;
            let found = if short {
                clear.match_indices(needle.as_str()).any(bounded)
            } else {
                grams.contains(&needle.as_bytes()[..GRAM]) && whole.contains(needle.as_str())
            };
            assert!(!found, "{identifier:?} is in the protected file as {needle:?}");
        }
    }
    assert!(checked > 500, "only {checked} spellings were looked for");
}

#[test]
fn synthea_comes_back_joins_and_shows_nothing() {
    let Some(folder) = shared("data/synthea") else { return };
    let world = World::new();
    let csv = world.round_trip(&folder.join("patients.csv"), "policies/csv-safe-harbor.toml");
    let patients = world.round_trip(&folder.join("Patient.ndjson"), "policies/fhir-r4.toml");
    let devices = world.round_trip(&folder.join("Device.ndjson"), "policies/fhir-r4.toml");

    let read = |name: &str| fs::read_to_string(folder.join(name)).expect("data");
    let mut identifiers = cells_of(&read("patients.csv"), &["gender", "state", "language", "prefix"]);
    for resource in documents(&(read("Patient.ndjson") + &read("Device.ndjson"))) {
        identifiers_of(&resource, &mut identifiers);
    }
    assert!(identifiers.len() > 2000, "{} identifiers", identifiers.len());
    for protected in [&csv, &patients, &devices] {
        check_absent(&identifiers, protected);
    }
    check_clear_columns(&read("patients.csv"), &csv);
    let clear = |text: &str| {
        documents(text).iter().map(|p| (p["gender"].clone(), p["address"][0]["state"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(clear(&patients), clear(&read("Patient.ndjson")));
    check_joins(&csv, &patients, &devices, &read("Device.ndjson"), &read("Patient.ndjson"));
}

fn check_clear_columns(plain: &str, protected: &str) {
    let (plain, protected) = (parse_csv(plain), parse_csv(protected));
    assert_eq!((plain.len(), &plain[0]), (protected.len(), &protected[0]));
    for (column, name) in plain[0].iter().enumerate() {
        let clear = ["gender", "state", "language"].contains(&name.as_str());
        for (before, after) in plain.iter().zip(&protected).skip(1) {
            match clear {
                true => assert_eq!(before[column], after[column]),
                false => assert!(after[column].starts_with("kf1."), "{name} is not sealed"),
            }
        }
    }
}

/// `Device.patient.reference`, without `Patient/`, is the sealed text of that patient's `id`, here and in the CSV file.
fn check_joins(csv: &str, patients: &str, devices: &str, plain_devices: &str, plain_patients: &str) {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let ids = |text_of: &str| documents(text_of).iter().map(|patient| text(&patient["id"])).collect::<Vec<_>>();
    let sealed_id: BTreeMap<String, String> = ids(plain_patients).into_iter().zip(ids(patients)).collect();
    assert_eq!(BTreeSet::from_iter(sealed_id.values()).len(), sealed_id.len());
    let mut joined = 0;
    for (plain, sealed) in documents(plain_devices).iter().zip(documents(devices)) {
        let reference = text(&sealed["patient"]["reference"]);
        let sealed = reference.strip_prefix("Patient/").expect("the prefix stays in clear");
        let plain = text(&plain["patient"]["reference"]).replacen("Patient/", "", 1);
        assert!(sealed.starts_with("kf1.02"));
        if let Some(id) = sealed_id.get(&plain) {
            assert_eq!(id, sealed);
            joined += 1;
        }
    }
    assert!(joined > 100, "{joined} devices joined");
    let in_csv: BTreeSet<String> = parse_csv(csv).into_iter().skip(1).map(|row| row[0].clone()).collect();
    assert_eq!(in_csv, BTreeSet::from_iter(sealed_id.into_values()));
}

#[test]
fn the_examples_come_back_and_show_nothing() {
    let world = World::new();
    let csv = world.round_trip(&repository("examples/patients.csv"), "examples/patients.toml");
    let ndjson = world.round_trip(&repository("examples/patients.ndjson"), "examples/patients.toml");
    let plain = fs::read_to_string(repository("examples/patients.csv")).expect("an example");
    let identifiers = cells_of(&plain, &["sex", "hba1c"]);
    assert!(identifiers.len() > 1000, "{} identifiers", identifiers.len());
    check_absent(&identifiers, &csv);
    check_absent(&identifiers, &ndjson);
    // The same patients in both: they join across the formats.
    let ids: BTreeSet<String> = parse_csv(&csv).into_iter().skip(1).map(|row| row[0].clone()).collect();
    assert!(documents(&ndjson).iter().all(|patient| ids.contains(patient["id"].as_str().expect("an ID"))));
}

#[test]
fn every_resource_of_the_policy_comes_back_joins_and_shows_nothing() {
    let world = World::new();
    let sealed = world.round_trip(&repository("policies/resources.ndjson"), "policies/fhir-r4.toml");
    let planted = fs::read_to_string(repository("policies/resources.identifiers")).expect("the list");
    let identifiers: BTreeSet<String> =
        planted.lines().map(|line| serde_json::from_str(line).expect("a text")).collect();
    assert!(identifiers.len() > 1500, "{} identifiers", identifiers.len());
    check_absent(&identifiers, &sealed);
    // Every field has a value there: the policy without `optional` refuses none.
    let policy = fs::read_to_string(repository("policies/fhir-r4.toml")).expect("the policy");
    world.write("strict.toml", policy.replace("\noptional = true", ""));
    let resources = repository("policies/resources.ndjson");
    world.succeeds(&["protect", argument(&resources), "--output", "strict.ndjson", "--policy", "strict.toml"]);

    let plain = fs::read_to_string(repository("policies/resources.ndjson")).expect("resources");
    let (plain, sealed) = (documents(&plain), documents(&sealed));
    let ids = |of: &[Value]| of.iter().map(|each| each["id"].as_str().expect("an ID").to_owned()).collect::<Vec<_>>();
    let sealed_id: BTreeMap<String, String> = ids(&plain).into_iter().zip(ids(&sealed)).collect();
    // Each reference to a resource of the file is its sealed ID, behind the type that stays in clear.
    let joins = ["/patient", "/subject", "/encounter", "/device", "/hasMember/0"];
    let mut joined = BTreeMap::<&str, usize>::new();
    for (plain, sealed) in plain.iter().zip(&sealed) {
        for pointer in joins {
            let of =
                |value: &Value| value.pointer(pointer).and_then(|found| found["reference"].as_str().map(str::to_owned));
            let (Some(plain), Some(sealed)) = (of(plain), of(sealed)) else { continue };
            let (kind, id) = plain.split_once('/').expect("a type and an ID");
            if let Some(id) = sealed_id.get(id) {
                assert_eq!(sealed, format!("{kind}/{id}"));
                *joined.entry(pointer).or_default() += 1;
            }
        }
    }
    assert_eq!(joined.len(), joins.len(), "{joined:?}");
    let patients = sealed.iter().filter(|each| each["resourceType"] == "Patient");
    assert!(patients.clone().count() > 4 && patients.clone().all(|each| each["multipleBirthInteger"].is_string()));
    // In the Bundle they are the same resources once more.
    let bundle = (&plain[plain.len() - 1]["entry"], &sealed[sealed.len() - 1]["entry"]);
    for (plain, sealed) in bundle.0.as_array().expect("entries").iter().zip(bundle.1.as_array().expect("entries")) {
        assert_eq!(sealed_id[plain["resource"]["id"].as_str().expect("an ID")], sealed["resource"]["id"]);
    }
    // What the policy leaves for analysis, and an age, which it does not.
    let results = sealed.iter().filter(|each| each["resourceType"] == "Observation");
    let is_age = |each: &&Value| {
        let codings = each["code"]["coding"].as_array().expect("codings");
        codings.iter().any(|coding| coding["code"] == "30525-0")
    };
    let (ages, others): (Vec<_>, Vec<_>) = results.partition(is_age);
    assert!(ages.iter().any(|each| each["code"]["coding"][0]["code"] != "30525-0"));
    assert!(ages.iter().chain(&others).all(|each| each["component"][2]["valueQuantity"]["value"].is_string()));
    assert!(!ages.is_empty() && ages.iter().all(|each| each["valueQuantity"]["value"].is_string()));
    assert!(others.iter().any(|each| each["valueQuantity"]["value"].is_number()));
    assert!(others.iter().all(|each| each["component"][1]["valueQuantity"]["value"].is_number()));
}

#[test]
fn every_clause_of_safe_harbor_has_a_column() {
    // A flat file with every column that the policy knows, each value of its own.
    let policy = fs::read_to_string(repository("policies/csv-safe-harbor.toml")).expect("the policy");
    let of = |key: &str| {
        let lines = policy.lines().filter_map(move |line| line.strip_prefix(key)?.strip_prefix(" = "));
        lines.map(|value| value.trim_matches(['[', ']', '"']).to_owned()).collect::<Vec<_>>()
    };
    let clauses = BTreeSet::from_iter(of("identifier"));
    assert_eq!(clauses, ('A'..='R').map(String::from).collect());
    let columns = of("columns");
    let world = World::new();
    let row = |row: usize| columns.iter().map(|column| format!("{column}-{row}-value")).collect::<Vec<_>>().join(",");
    let rows = (0..40).map(row).collect::<Vec<_>>().join("\n");
    world.write("flat.csv", format!("{}\n{rows}\n", columns.join(",")));
    let sealed = world.round_trip(&world.path("flat.csv"), "policies/csv-safe-harbor.toml");
    check_absent(&cells_of(&world.text("flat.csv"), &[]), &sealed);
}

#[test]
fn the_search_would_find_an_identifier() {
    // Guards the guard: each disguise is found where it is planted.
    let identifiers = BTreeSet::from_iter((0..100).map(|n| format!("Yundt{n} Åström")));
    let sealed = "kf1.0100000001.".to_owned() + &"x".repeat(4000);
    check_absent(&identifiers, &sealed);
    for disguise in disguises("Yundt42 Åström") {
        let planted = format!("{sealed} {disguise} ");
        let caught = std::panic::catch_unwind(|| check_absent(&identifiers, &planted)).is_err();
        assert!(caught, "{disguise}");
    }
}
