//! Merges of patients: the IDs of a message, all of them, are bound to what else is sealed in it.

use super::common::{KEY, POLICY, World, repository};
use super::moves::swapped;
use super::{SAFE_HARBOR, one};
use std::ops::Range;

/// Two messages about merges, the first one about two; patients and the records that become theirs have several IDs.
const MERGES: &str = "MSH|^~\\&|ADT||||20260101||ADT^A40|A-1|P|2.5.1\rEVN|A40|20260102\r\
    PID|1||Canáry7391-1^^^H^MR~X1^^^H^PI||Canáry7391^Ann\rMRG|OLD1^^^H^MR~OLDER1^^^H^PI\r\
    PID|2||Canáry7391-2^^^H^MR||Canáry7391^Bob\rMRG|OLD2^^^H^MR\r\
    MSH|^~\\&|ADT||||20260103||ADT^A40|A-2|P|2.5.1\rEVN|A40|20260104\r\
    PID|1||Canáry7391-3^^^H^MR~X3^^^H^PI||Canáry7391^Cleo\rMRG|OLD3^^^H^MR~OLDER3^^^H^PI\r";

/// Which of its values are the IDs that are not the first of their patient.
const OTHER_IDS: [usize; 7] = [3, 5, 6, 9, 13, 15, 16];
/// Which values of its second message are no IDs: MSH-7, EVN-2, PID-5.
const NO_IDS: [usize; 3] = [10, 11, 14];

/// `messages`, protected under the ready-made policy, which is `policy.toml` from now on.
fn merges(messages: &str) -> (World, String) {
    let world = World::hl7("version = 1\n", messages);
    std::fs::copy(repository(SAFE_HARBOR), world.data().join("policy.toml")).expect("copied");
    let sealed = world.round_trip("in.hl7", &[]);
    (world, sealed)
}

/// Where the sealed values are.
fn sealed_values(messages: &str) -> Vec<Range<usize>> {
    let range = |(start, _): (usize, &str)| {
        let end = messages[start..].find(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c));
        start..end.map_or(messages.len(), |end| start + end)
    };
    messages.match_indices("kf1.").map(range).collect()
}

/// `messages` with other values at some places, which are in order.
fn with(messages: &str, changed: &[(&Range<usize>, &str)]) -> String {
    let mut out = messages.to_owned();
    changed.iter().rev().for_each(|(span, new)| out.replace_range((*span).clone(), new));
    out
}

/// No two values can be exchanged. How many there are, and how many of them are IDs.
#[track_caller]
fn refuses_exchanges(world: &World, sealed: &str) -> (usize, usize) {
    let values = sealed_values(sealed);
    let is_id = |value: &Range<usize>| sealed[value.clone()].starts_with("kf1.02");
    for (at, first) in values.iter().enumerate() {
        for second in &values[at + 1..] {
            let (code, says) = match is_id(first) == is_id(second) {
                true => (KEY, "DecryptionFailed"),
                false => (POLICY, "PolicyRefused"),
            };
            world.refuses_reveal(&swapped(sealed, first, second), code, &["field ", says]);
        }
    }
    (values.len(), values.iter().filter(|value| is_id(value)).count())
}

#[test]
fn no_two_values_of_merges_can_be_exchanged() {
    let (world, sealed) = merges(MERGES);
    assert_eq!(refuses_exchanges(&world, &sealed), (17, OTHER_IDS.len() + 3));
}

#[test]
fn no_two_patients_who_are_deleted_can_be_exchanged() {
    // Of whom the message has the ID and nothing else.
    let message = |number: u32| {
        format!(
            "MSH|^~\\&|ADT||||20260101||ADT^A23|A-{number}|P|2.5.1\rEVN|A23|20260102\rPID|||Canáry7391-{number}^^^H\r"
        )
    };
    let (world, sealed) = merges(&[message(1), message(2)].concat());
    assert_eq!(refuses_exchanges(&world, &sealed), (6, 2));
}

#[test]
fn an_id_cannot_be_changed_added_or_removed() {
    let (world, sealed) = merges(MERGES);
    let values = sealed_values(&sealed);
    let refuses = |moved: &str| world.refuses_reveal(moved, KEY, &["DecryptionFailed"]);
    for at in OTHER_IDS {
        refuses(&with(&sealed, &[(&values[at], "")]));
        // The ID of the first patient, who is nobody else.
        refuses(&with(&sealed, &[(&values[at], &sealed[values[2].clone()])]));
        refuses(&with(&sealed, &[(&values[at], &format!("{0}~{0}", &sealed[values[at].clone()]))]));
    }
    // From one merge to the other.
    let id = &sealed[values[6].clone()];
    let both = format!("{}~{id}", &sealed[values[9].clone()]);
    refuses(&with(&sealed, &[(&values[6], ""), (&values[9], &both)]));
    // IDs that the current key seals are found again.
    world.succeeds(&["keys", "rotate"]);
    let run = world.succeeds(&["reencrypt", "sealed.hl7", "--output", "new.hl7", "--statement", "s.json"]);
    assert!(run.stderr.contains("re-encrypted 7 of 17 values in 2 records"), "look-up keys stay: {}", run.stderr);
    world.succeeds(&["reveal", "new.hl7", "--output", "new.out"]);
    assert_eq!(world.text("new.out"), MERGES);
}

#[test]
fn one_value_that_is_left_is_enough_and_without_any_nothing_shows() {
    let (world, sealed) = merges(MERGES);
    let values = sealed_values(&sealed);
    let exchanged = |emptied: &[usize]| {
        let (id, prior) = (&values[13], &values[15]);
        let mut changed = vec![(id, &sealed[prior.clone()]), (prior, &sealed[id.clone()])];
        changed.extend(emptied.iter().map(|&at| (&values[at], "")));
        changed.sort_by_key(|(span, _)| span.start);
        with(&sealed, &changed)
    };
    for left in NO_IDS {
        let emptied: Vec<_> = NO_IDS.into_iter().filter(|&at| at != left).collect();
        world.refuses_reveal(&exchanged(&emptied), KEY, &["message 2", "DecryptionFailed"]);
    }
    // As the head of the policy says.
    world.write("moved.hl7", exchanged(&NO_IDS));
    world.succeeds(&["reveal", "moved.hl7", "--output", "moved.out"]);
    assert!(world.text("moved.out").contains("~OLD3^^^H^PI||\rMRG|X3^^^H^MR~OLDER3"), "{}", world.text("moved.out"));
}

#[test]
fn all_values_of_a_path() {
    let many: Vec<String> = (0..500).map(|number| format!("MRN-{number}")).collect();
    let message = |number: u32, rest: &str| {
        format!("MSH|^~\\&|A|||||||{number}|P|2.5.1\rPID|||||Canáry7391 x~Canáry7391 y\r{rest}")
    };
    let world = World::hl7(
        &one("row_binding = { segments = [\"MSH-10\", \"MRG[*]-1[*].1\"] }\nsegments = [\"PID-5\"]"),
        &[message(1, "MRG|a~b^c\rMRG|d\r"), message(2, ""), message(3, &format!("MRG|{}\r", many.join("~")))].concat(),
    );
    let sealed = world.round_trip("in.hl7", &[]);
    for (from, to) in [
        ("MRG|a~b", "MRG|b~a"),
        ("MRG|a~b^c\rMRG|d", "MRG|d\rMRG|a~b^c"),
        ("MRG|a~b^c\rMRG|d", "MRG|a\rMRG|b^c~d"),
        ("MRG|a~b^c\rMRG|d", "MRG|a~b^c~d\rMRG|"),
        ("MRG|a~b", "MRG|a~~b"),
        ("MRG|d\r", "MRG|d\rMRG|e\r"),
        ("MRG|d\r", "MRG|\"\"\r"),
        ("MRG|d\r", ""),
    ] {
        world.refuses_reveal(&sealed.replacen(from, to, 1), KEY, &["message 1", "PID-5", "DecryptionFailed"]);
    }
    let added = sealed.replacen("\rMSH|^~\\&|A|||||||3", "\rMRG|e\rMSH|^~\\&|A|||||||3", 1);
    world.refuses_reveal(&added, KEY, &["message 2", "PID-5", "DecryptionFailed"]);
    world.refuses_reveal(&sealed.replace("~MRN-499", "~MRN-498"), KEY, &["message 3", "PID-5", "DecryptionFailed"]);
    // What is empty, what is beside the path, and the delimiters make no difference.
    let same = sealed.replace("MRG|a~b^c", "MRG|a^x~b^y~||z").replace('~', "@");
    world.write("same.hl7", same);
    world.succeeds(&["reveal", "same.hl7", "--output", "same.out"]);
    assert!(world.text("same.out").contains("PID|||||Canáry7391 x@Canáry7391 y\rMRG|a^x@b^y@||z\r"));
}
