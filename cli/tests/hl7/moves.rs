//! Values that were moved within a message, or to another one of the same patient.

use super::common::{DATA, KEY, World, argument, repository};
use super::{SAFE_HARBOR, field, one};
use std::ops::Range;

/// Two reports about one patient, with the numbers of segments that senders give: those of results begin anew with each order.
const REPORTS: &str = "MSH|^~\\&|LAB|||||||L-1|P|2.5.1\rPID|1||Canáry7391-1\r\
    OBR|1|||CHEM^Panel\rOBX|1|NM|GLU^Glucose||95|mg/dL\rOBX|2|NM|K^Potassium||4.1~4.2|mmol/L\rNTE|1||Canáry7391 fasting\r\
    OBR|2|||CHEM^Panel\rOBX|1|NM|GLU^Glucose||101|mg/dL\rNTE|1||Canáry7391 not fasting\r\
    MSH|^~\\&|LAB|||||||L-2|P|2.5.1\rPID|1||Canáry7391-1\r\
    OBR|1|||CHEM^Panel\rOBX|1|NM|GLU^Glucose||410|mg/dL\rOBX|2|NM|K^Potassium||5.9|mmol/L\r";

/// [`REPORTS`], protected under the ready-made policy, which is `policy.toml` from now on.
fn reports() -> (World, String) {
    let world = World::hl7("version = 1\n", REPORTS);
    std::fs::copy(repository(SAFE_HARBOR), world.data().join("policy.toml")).expect("copied");
    let sealed = world.round_trip("in.hl7", &[]);
    (world, sealed)
}

/// Where the values of a field are, repetitions apart.
fn values(messages: &str, segment: &str, number: usize) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    for line in messages.split_inclusive('\r') {
        if line.starts_with(segment) {
            let fields = line.trim_end().split('|');
            let before: usize = fields.clone().take(number).map(|field| field.len() + 1).sum();
            let mut start = at + before;
            for value in fields.clone().nth(number).unwrap_or_default().split('~') {
                found.push(start..start + value.len());
                start += value.len() + 1;
            }
        }
        at += line.len();
    }
    found
}

/// `messages` with two values exchanged.
pub(super) fn swapped(messages: &str, first: &Range<usize>, second: &Range<usize>) -> String {
    let [before, a, between, b, after] =
        [0..first.start, first.clone(), first.end..second.start, second.clone(), second.end..messages.len()]
            .map(|span| &messages[span]);
    [before, b, between, a, after].concat()
}

#[test]
fn no_two_results_or_comments_of_one_patient_can_be_exchanged() {
    let (world, sealed) = reports();
    for (segment, number, count) in [("OBX", 5, 6), ("NTE", 3, 2)] {
        let places = values(&sealed, segment, number);
        assert_eq!(places.len(), count);
        for (at, first) in places.iter().enumerate() {
            for second in &places[at + 1..] {
                let path = format!("{segment}-{number}");
                world.refuses_reveal(&swapped(&sealed, first, second), KEY, &[&path, "DecryptionFailed"]);
                let copy = sealed.replace(&sealed[second.clone()], &sealed[first.clone()]);
                world.refuses_reveal(&copy, KEY, &[&path, "DecryptionFailed"]);
            }
        }
    }
}

#[test]
fn what_a_result_is_about_cannot_be_changed() {
    let (world, sealed) = reports();
    let segments: Vec<&str> = sealed.split_inclusive('\r').collect();
    let with_order = |order: &[usize]| order.iter().map(|&at| segments[at]).collect::<String>();
    for (what, moved) in [
        (
            "the codes of two tests",
            sealed
                .replacen("GLU^Glucose", "#", 1)
                .replacen("K^Potassium", "GLU^Glucose", 1)
                .replace('#', "K^Potassium"),
        ),
        ("a unit", sealed.replacen("mg/dL", "mmol/L", 1)),
        ("a type", sealed.replacen("|NM|", "|TX|", 1)),
        ("a sub-ID", sealed.replacen("GLU^Glucose||", "GLU^Glucose|1|", 1)),
        ("the number of a message", sealed.replace("L-1", "L-2")),
        ("two segments", with_order(&[0, 1, 2, 4, 3, 5, 6, 7, 8])),
        ("a result under another order", with_order(&[0, 1, 2, 3, 6, 4, 5, 7, 8])),
        ("a segment twice", with_order(&[0, 1, 2, 3, 3, 4, 5, 6, 7, 8])),
        ("a segment less", with_order(&[0, 1, 2, 4, 5, 6, 7, 8])),
    ] {
        let says = if what == "a sub-ID" { "OBX-5" } else { "message 1" };
        world.refuses_reveal(&moved, KEY, &[says, "DecryptionFailed"]);
    }
    // What says nothing about places makes no difference.
    let longer = with_order(&[0, 1]) + "ZPD|x\r" + &with_order(&[2, 3, 4, 5, 6, 7, 8]);
    world.write("longer.hl7", longer);
    world.succeeds(&["reveal", "longer.hl7", "--output", "longer.out"]);
    assert!(world.text("longer.out").contains("ZPD|x\rOBR|1|||CHEM^Panel\rOBX|1|NM|GLU^Glucose||95|mg/dL\r"));
    world.succeeds(&["keys", "rotate"]);
    world.succeeds(&["reencrypt", "sealed.hl7", "--output", "new.hl7", "--statement", "s.json"]);
    world.succeeds(&["reveal", "new.hl7", "--output", "new.out"]);
    assert_eq!(world.text("new.out"), REPORTS);
    assert_ne!(field(&world.text("new.hl7"), "OBX", 5), field(&sealed, "OBX", 5));
}

#[test]
fn places_that_may_be_missing() {
    let world = World::hl7(
        &one("row_binding = { segments = [\"MSH-10\", \"PV1-19?\", \"OBX-4?\"] }\nsegments = [\"OBX-5\", \"MSH-3\"]"),
        "MSH|^~\\&|Canáry7391|||||||7\rOBX|1|||a|Canáry7391 x\rOBX|2||||Canáry7391 y\rPV1|1\r",
    );
    let sealed = world.round_trip("in.hl7", &[]);
    // Empty and missing are one, and differ from every text.
    world.write("same.hl7", sealed.replace("PV1|1\r", ""));
    world.succeeds(&["reveal", "same.hl7", "--output", "same.out"]);
    // What is in front of the first OBX is bound to that one.
    world.refuses_reveal(&sealed.replace("|a|", "||"), KEY, &["segment 1, MSH-3", "DecryptionFailed"]);
    world.refuses_reveal(&sealed.replace("OBX|2||||", "OBX|2|||\"\"|"), KEY, &["OBX-5", "DecryptionFailed"]);
    world.refuses_reveal(&sealed.replace("||7\r", "||\r"), DATA, &["row binding MSH-10", "is empty"]);
    // From one place to the other, so that the texts together stay the same.
    let moved = sealed.replace("|a|", "||").replace("PV1|1\r", &format!("PV1|1{}a\r", "|".repeat(18)));
    world.refuses_reveal(&moved, KEY, &["DecryptionFailed"]);
}

#[test]
fn every_value_of_the_examples_is_at_its_place() {
    let world = World::new();
    let policy = repository(SAFE_HARBOR);
    let input = repository("examples/hl7").join("adt.hl7");
    world.write("in.hl7", std::fs::read(&input).expect("an example"));
    let sealed = world.round_trip("in.hl7", &["--policy", argument(&policy)]);
    // The message as its own successor under another number: an older state of the patient.
    let other = world.text("in.hl7").replace("REG00417", "REG00418");
    world.write("other.hl7", &other);
    world.succeeds(&["protect", "other.hl7", "--output", "other.sealed", "--policy", argument(&policy)]);
    let other = world.text("other.sealed");
    for (segment, number) in [("PID", 5), ("PID", 11), ("PV1", 3), ("DG1", 5), ("NK1", 2), ("IN1", 16)] {
        let (ours, theirs) = (field(&sealed, segment, number), field(&other, segment, number));
        world.write("moved.hl7", sealed.replace(ours, theirs));
        let run = ["reveal", "moved.hl7", "--output", "x", "--policy", argument(&policy)];
        world.refuses(&run, KEY, &[&format!("{segment}-{number}"), "DecryptionFailed"]);
    }
}
