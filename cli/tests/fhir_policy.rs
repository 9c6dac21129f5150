//! What the ready-made policy for FHIR promises of whole resources: what a value costs, and that none can be moved, copied or dropped.

use crate::common::{DATA, KEY, POLICY, World, repository};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

/// A Patient of whom 15 values are sealed with the resource: the path of each, and what its field pads to.
const PLACES: [(&str, usize); 15] = [
    ("/text/div", 1),
    ("/identifier/0/value", 1),
    ("/identifier/1/value", 1),
    ("/identifier/2/value", 1),
    ("/name/0/family", 16),
    ("/name/0/given/0", 16),
    ("/name/0/given/1", 16),
    ("/telecom/0/value", 16),
    ("/birthDate", 1),
    ("/deceasedDateTime", 1),
    ("/address/0/line/0", 32),
    ("/address/0/city", 16),
    ("/address/0/postalCode", 1),
    ("/photo", 1),
    ("/contact", 1),
];

fn patient(n: u8) -> Value {
    json!({
        "resourceType": "Patient", "id": format!("Canáry7391-{n}"),
        "text": { "status": "generated", "div": format!("<div>Canáry7391 {n}</div>") },
        "identifier": [
            { "system": "http://hl7.org/fhir/sid/us-ssn", "value": format!("Canáry7391-ssn-{n}") },
            { "system": "http://hospital.smarthealthit.org", "value": format!("Canáry7391-mrn-{n}") },
            { "value": format!("Canáry7391-{n}") },
        ],
        "name": [{ "family": format!("Canáry7391 F{n}"), "given": ["Canáry7391 A", "Canáry7391 A"] }],
        "telecom": [{ "system": "phone", "value": format!("Canáry7391 555-010{n}") }],
        "gender": "female", "birthDate": format!("Canáry7391-190{n}-01-02"), "deceasedDateTime": "Canáry7391-1999",
        "address": [{ "line": ["Canáry7391 street"], "city": "Canáry7391 town", "state": "MA", "postalCode": "Canáry7391-01002" }],
        "photo": [{ "data": "Canáry7391" }], "contact": [{ "name": { "text": "Canáry7391" } }],
    })
}

impl World {
    fn with_policy() -> Self {
        let world = Self::new();
        world.write("fhir.toml", std::fs::read_to_string(repository("policies/fhir-r4.toml")).expect("the policy"));
        world
    }

    /// The resources after protecting them.
    fn seal_resources(&self, resources: &[Value]) -> Vec<Value> {
        let text: String = resources.iter().map(|resource| format!("{resource}\n")).collect();
        self.write("in.ndjson", &text);
        self.succeeds(&["protect", "in.ndjson", "--output", "sealed.ndjson", "--force", "--policy", "fhir.toml"]);
        let sealed = self.text("sealed.ndjson");
        assert!(!sealed.contains("ry7391"), "plaintext is left: {sealed}");
        sealed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Revealing `resources` is refused.
    #[track_caller]
    fn refuses_to_reveal(&self, what: &str, resources: &[&Value], code: i32) {
        let text: String = resources.iter().map(|resource| format!("{resource}\n")).collect();
        self.write("changed.ndjson", text);
        let run = self.run(&["reveal", "changed.ndjson", "--output", "out", "--force", "--policy", "fhir.toml"]);
        assert_eq!(run.code, Some(code), "{what}: {}", run.stderr);
    }
}

#[test]
fn a_patient_with_15_values_pays_50_bytes_once_and_29_per_value() {
    let world = World::with_policy();
    let plain = patient(1);
    let sealed = world.seal_resources(std::slice::from_ref(&plain)).remove(0);
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let header = text(&sealed["_keyfold"]["document"]);
    let (start, rest) = header.rsplit_once('.').expect("three parts");
    // Two digits of format and suite and eight of the generation stand for six bytes.
    assert_eq!((start.len(), BASE64URL_NOPAD.decode(rest.as_bytes()).expect("base64url").len() + 6), (14, 50));
    assert_eq!(BASE64URL_NOPAD.decode(text(&sealed["_keyfold"]["manifest"]).as_bytes()).expect("base64url").len(), 40);
    let bodies = sealed.to_string().matches("\"kf1d.").count();
    assert_eq!(bodies, PLACES.len());
    for (place, multiple) in PLACES {
        let value = plain.pointer(place).expect("it is there");
        let len = value.as_str().map_or_else(|| value.to_string().len(), str::len);
        let body = text(sealed.pointer(place).expect("it is there"));
        let body = BASE64URL_NOPAD.decode(body.trim_start_matches("kf1d.").as_bytes()).expect("base64url");
        let padding = if multiple == 1 { 0 } else { (len + 2).next_multiple_of(multiple) - len - 1 };
        assert_eq!(body.len(), len + padding + 29, "{place}");
    }
}

#[test]
fn no_value_of_a_resource_can_be_moved_copied_or_dropped() {
    let world = World::with_policy();
    let sealed: [Value; 2] = world.seal_resources(&[patient(1), patient(2)]).try_into().expect("two");
    let [one, two] = &sealed;
    let at = |place: &str| one.pointer(place).expect("it is there").clone();
    let set = |place: &str, value: Value| {
        let mut changed = one.clone();
        *changed.pointer_mut(place).expect("it is there") = value;
        changed
    };
    for (index, (place, _)) in PLACES.iter().enumerate() {
        let (next, _) = PLACES[(index + 1) % PLACES.len()];
        let mut swapped = set(place, at(next));
        *swapped.pointer_mut(next).expect("it is there") = at(place);
        world.refuses_to_reveal(&format!("{place} and {next} swapped"), &[&swapped, two], KEY);
        world.refuses_to_reveal(&format!("{place} copied to {next}"), &[&set(next, at(place)), two], KEY);
        let other = two.pointer(place).expect("it is there").clone();
        world.refuses_to_reveal(&format!("{place} of another patient"), &[&set(place, other), two], KEY);
        let mut dropped = one.clone();
        let (parent, name) = place.rsplit_once('/').expect("a place");
        match dropped.pointer_mut(parent).expect("it is there") {
            Value::Object(members) => drop(members.remove(name)),
            Value::Array(items) => drop(items.remove(name.parse().expect("an index"))),
            other => panic!("{other}"),
        }
        world.refuses_to_reveal(&format!("{place} dropped"), &[&dropped, two], KEY);
    }
    world.refuses_to_reveal("another patient's id", &[&set("/id", two["id"].clone()), two], KEY);
    world.refuses_to_reveal("another patient's header", &[&set("/_keyfold", two["_keyfold"].clone()), two], KEY);
    let without = |place: &str, name: &str| {
        let mut changed = one.clone();
        changed.pointer_mut(place).and_then(Value::as_object_mut).expect("an object").remove(name);
        changed
    };
    world.refuses_to_reveal("no manifest", &[&without("/_keyfold", "manifest"), two], POLICY);
    world.refuses_to_reveal("no header", &[&without("", "_keyfold"), two], DATA);
    // All of them in another order of lines, or one alone: whole resources are not bound to their file.
    world.write("changed.ndjson", format!("{two}\n{one}\n"));
    world.succeeds(&["reveal", "changed.ndjson", "--output", "out", "--force", "--policy", "fhir.toml"]);
}

#[test]
fn bundles_hold_resources_as_lines_do() {
    let world = World::with_policy();
    let entry = |n: u8| json!({ "fullUrl": format!("urn:uuid:Canáry7391-{n}"), "resource": patient(n) });
    let bundle = json!({ "resourceType": "Bundle", "type": "collection", "entry": [entry(1), entry(2)] });
    let sealed = world.seal_resources(&[bundle.clone(), patient(1)]);
    world.succeeds(&["reveal", "sealed.ndjson", "--output", "out", "--force", "--policy", "fhir.toml"]);
    assert_eq!(world.text("out"), world.text("in.ndjson"));
    let resource = |at: usize| &sealed[0]["entry"][at]["resource"];
    assert_eq!(resource(0)["id"], sealed[1]["id"]);
    assert!(sealed[0]["entry"][0]["fullUrl"].as_str().is_some_and(|url| url.starts_with("kf1d.")));
    // What is around the resources is a document as well.
    let mut others = sealed[0].clone();
    let urls = [0, 1].map(|at| sealed[0]["entry"][at]["fullUrl"].clone());
    (others["entry"][0]["fullUrl"], others["entry"][1]["fullUrl"]) = (urls[1].clone(), urls[0].clone());
    world.refuses_to_reveal("URLs exchanged", &[&others], KEY);
    others["entry"].as_array_mut().expect("entries").iter_mut().for_each(|entry| {
        entry.as_object_mut().expect("an object").remove("fullUrl");
    });
    world.refuses_to_reveal("no URLs", &[&others], KEY);
    others.as_object_mut().expect("an object").remove("_keyfold");
    world.refuses_to_reveal("no URLs and no header", &[&others], POLICY);
    // A resource is the same outside of its Bundle, and another one's value is refused inside of it.
    world.write("alone.ndjson", format!("{}\n", resource(1)));
    world.succeeds(&["reveal", "alone.ndjson", "--output", "out", "--force", "--policy", "fhir.toml"]);
    assert_eq!(world.text("out"), format!("{}\n", patient(2)));
    let mut moved = sealed[0].clone();
    moved["entry"][0]["resource"]["birthDate"] = resource(1)["birthDate"].clone();
    world.refuses_to_reveal("a birth date of the other", &[&moved], KEY);
    // Of other types the policy knows nothing, and a Bundle in a Bundle has resources that nobody looks at.
    let mut inside = bundle;
    inside["id"] = "x".into();
    for (resource, why) in
        [(json!({ "resourceType": "RelatedPerson", "id": "x" }), "no field of the policy applies"), (inside, "$.id")]
    {
        let mut unknown = json!({ "resourceType": "Bundle", "type": "collection", "entry": [entry(1)] });
        unknown["entry"][0]["resource"] = resource;
        world.write("unknown.ndjson", format!("{unknown}\n"));
        world.refuses(
            &["protect", "unknown.ndjson", "--output", "out", "--force", "--policy", "fhir.toml"],
            POLICY,
            &[why],
        );
    }
}

#[test]
fn an_age_is_sealed_whichever_coding_says_so() {
    let world = World::with_policy();
    let age = json!({ "coding": [{ "system": "local", "code": "AGE" }, { "system": "http://loinc.org", "code": "30525-0" }] });
    let rate = json!({ "coding": [{ "system": "http://loinc.org", "code": "8867-4" }, { "code": "local" }] });
    let observation = |id: &str, code: &Value, component: &Value| {
        json!({
            "resourceType": "Observation", "id": format!("Canáry7391-{id}"), "code": code, "valueQuantity": { "value": 97 },
            "component": [{ "code": component, "valueQuantity": { "value": 98 } }, { "code": { "text": "Age" }, "valueInteger": 3 }],
        })
    };
    let sealed = world.seal_resources(&[observation("1", &age, &rate), observation("2", &rate, &age)]);
    let shows = |resource: &Value| {
        [&resource["valueQuantity"], &resource["component"][0]["valueQuantity"]].map(|value| value["value"].is_number())
    };
    assert_eq!([shows(&sealed[0]), shows(&sealed[1])], [[false, true], [true, false]]);
    assert!(sealed.iter().all(|resource| resource["component"][1]["valueInteger"] == 3));
    world.succeeds(&["reveal", "sealed.ndjson", "--output", "out", "--force", "--policy", "fhir.toml"]);
    assert_eq!(world.text("out"), world.text("in.ndjson"));
    // Whatever type the value has, and with whatever hangs on it.
    let extension = json!([{ "url": "x", "valueString": "Canáry7391" }]);
    let quantity =
        json!({ "value": 1731797317, "unit": "a", "extension": extension, "_value": { "extension": extension } });
    let concept = json!({
        "text": "Canáry7391", "_text": { "extension": extension }, "extension": extension,
        "coding": [{ "code": "Canáry7391", "display": "Canáry7391", "id": "Canáry7391", "extension": extension }],
    });
    let mut all: Vec<Value> = Vec::new();
    for (kind, value) in [
        ("valueQuantity", quantity.clone()),
        ("valueRange", json!({ "low": quantity, "high": quantity, "extension": extension })),
        ("valueRatio", json!({ "numerator": quantity, "denominator": quantity })),
        (
            "valueSampledData",
            json!({ "origin": quantity, "data": "1731797317", "lowerLimit": 1731797317, "upperLimit": 1731797317, "period": 1, "dimensions": 1 }),
        ),
        ("valueCodeableConcept", concept),
        ("valueInteger", json!(1731797317)),
        ("valueString", json!("Canáry7391")),
    ] {
        let id = format!("Canáry7391-{kind}");
        all.push(json!({ "resourceType": "Observation", "id": id, "code": age, kind: value, "component": [{ "code": age, kind: value }] }));
    }
    let sealed = world.seal_resources(&all);
    assert!(sealed.iter().all(|resource| !resource.to_string().contains("1731797317")));
    world.succeeds(&["reveal", "sealed.ndjson", "--output", "out", "--force", "--policy", "fhir.toml"]);
    assert_eq!(world.text("out"), world.text("in.ndjson"));
}
