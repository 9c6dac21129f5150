//! What stays in clear: listed by the policy, told, or refused.

use super::common::{POLICY, World, argument, repository};
use super::{SAFE_HARBOR, one};

/// A message of version 2.8 with places that 2.5.1 has not.
const NEWER: &str = "MSH|^~\\&|A|||||||7|P|2.8\rPID|1||Canáry7391-1|||||F||||||||||||||||||||||||||||||||^PRN^PH^^1^620^Canáry7391\r\
    NK1|1||SPO|||||||||||||||||||||||||||||||||||||^PRN^PH^^1^620^Canáry7391\r\
    PDA|S72^Fracture|Canáry7391 Hospital\rPRT|1|AD||AP|^Canáry7391\r";

fn protect(policy: &str) -> [&str; 6] {
    ["protect", "in.hl7", "--output", "out", "--policy", policy]
}

#[test]
fn the_ready_made_policy_refuses_what_it_does_not_know() {
    let (world, policy) = (World::hl7("version = 1\n", NEWER), repository(SAFE_HARBOR));
    let policy = argument(&policy);
    let sealed = world.round_trip("in.hl7", &["--policy", policy]);
    assert!(!sealed.contains("Canáry") && sealed.matches("kf1.").count() == 7, "{sealed}");
    let run = world.succeeds(&["protect", "in.hl7", "--output", "-", "--policy", policy, "--json"]);
    assert_eq!(run.summary()["clear_columns"], serde_json::json!([]), "what is listed is known");
    for (message, says) in [
        (format!("{NEWER}ZPD|1|Canáry7391\r"), "message 1: ZPD-1: the policy neither seals it nor lists it"),
        (NEWER.replace("Canáry7391-1|", "Canáry7391-1^^^^^^^^^^Canáry7391|"), "PID-3.11"),
        (NEWER.replace("PRT|1|AD||AP|", &format!("PRT|1|AD||AP|{}Canáry7391|", "|".repeat(30))), "PRT-35"),
        (NEWER.replace("|2.8\r", "|2.9\r"), "none of those in [hl7] of the policy: 2.1, 2.2"),
        (NEWER.replace("|P|2.8\r", "\r"), "the version of the message, MSH-12"),
        // A message that would be passed through is no exception.
        ("MSH|^~\\&|A|||||||7|P|2.8\rZPD|Canáry7391\r".to_owned(), "ZPD-1"),
    ] {
        world.write("in.hl7", message);
        world.refuses(&[&protect(policy)[..], &["--pass-unmatched"]].concat(), POLICY, &["message 1", says]);
    }
    // Another file may list more.
    world.write("in.hl7", format!("{NEWER}ZPD|1|x\r"));
    world.write("more.toml", "version = 1\n[hl7]\nclear = [\"ZPD\"]\n");
    world.succeeds(&[&protect(policy)[..], &["--policy", "more.toml"]].concat());
}

#[test]
fn a_policy_without_a_list_tells_what_it_leaves() {
    let world = World::hl7(&one("segments = [\"PID-3.1\"]"), "MSH|^~\\&|A\rPID|1||Canáry7391^4||x\rZPD|1|x\rZPD|2\r");
    let run = world.succeeds(&["protect", "in.hl7", "--output", "-"]);
    assert!(run.stderr.contains("in clear: \"MSH\", \"PID-1\", \"PID-3\", \"PID-5\", \"ZPD\""), "{}", run.stderr);
    let run = world.succeeds(&["protect", "in.hl7", "--output", "-", "--json"]);
    assert_eq!(run.summary()["clear_columns"], serde_json::json!(["MSH", "PID-1", "PID-3", "PID-5", "ZPD"]));
    // However many a sender makes up.
    world.write("in.hl7", format!("MSH|^~\\&|A\rPID|1||Canáry7391|{}\r", "x|".repeat(9000)));
    let run = world.succeeds(&["protect", "in.hl7", "--output", "-", "--json"]);
    assert_eq!(run.summary()["clear_columns"].as_array().map(Vec::len), Some(500));
}

#[test]
fn a_list_that_contradicts_the_fields_is_refused() {
    let message = "MSH|^~\\&|A\rPID|1||1||Canáry7391\r";
    for (clear, says) in [
        ("PID-5.1", &["[hl7]", "PID-5 and PID-5.1"][..]),
        ("PID", &["[hl7]", "PID is listed as clear, but fields seal places in it"]),
        ("PID5", &["[hl7]", "SEG-FIELD"]),
        ("PID-1", &["PID-3", "neither seals it nor lists it"]),
    ] {
        let policy = format!("{}[hl7]\nclear = [\"MSH\", \"{clear}\"]\n", one("segments = [\"PID-5\"]"));
        World::refuses_protect(&policy, message, POLICY, says);
    }
}
