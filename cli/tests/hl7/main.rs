//! HL7 v2 messages: every byte comes back, what the policy names is sealed, and nothing that was moved or made up is revealed.

mod clear;
#[path = "../common/mod.rs"]
mod common;
mod merges;
mod moves;
mod replaced;

use common::{DATA, KEY, POLICY, USAGE, World, argument, contains, repository};
use std::fs;

const SAFE_HARBOR: &str = "policies/hl7v2-safe-harbor.toml";

const FIELDS: &str = r#"version = 1

[fields."patient.id"]
mode = "deterministic"
type = "text"
row_binding = "none"
columns = ["id"]
paths = ["$.id"]
segments = ["PID-3.1"]

[fields."patient.name"]
identifier = "A"
row_binding = { column = "id", path = "$.id", segment = "PID-3.1" }
columns = ["name"]
paths = ["$.name"]
segments = ["PID-5"]
"#;

/// Two patients, and the second one has two names.
const MESSAGES: &str = "MSH|^~\\&|A\rPID|1||Canáry7391-1^^^H|x|Canáry7391^Ann\\T\\B\rNK1|1\r\
                        MSH|^~\\&|A\rPID|1||Canáry7391-2~8^^^H||Canáry7391&x^Bob~Canáry7391^Rob\r";

impl World {
    fn hl7(policy: &str, messages: &str) -> Self {
        let world = Self::new();
        world.write("policy.toml", policy);
        world.write("in.hl7", messages);
        world
    }

    /// What comes back under `policy`, and what it was in between.
    #[track_caller]
    fn round_trip(&self, input: &str, more: &[&str]) -> String {
        self.succeeds(&[&["protect", input, "--output", "sealed.hl7", "--force"], more].concat());
        self.succeeds(&[&["reveal", "sealed.hl7", "--output", "out.hl7", "--force"], more].concat());
        assert!(self.read("out.hl7") == self.read(input), "other bytes came back: {}", self.text("out.hl7"));
        self.text("sealed.hl7")
    }

    #[track_caller]
    fn refuses_protect(policy: &str, messages: &str, code: i32, says: &[&str]) {
        Self::hl7(policy, messages).refuses(&["protect", "in.hl7", "--output", "out"], code, says);
    }

    #[track_caller]
    fn refuses_reveal(&self, messages: &str, code: i32, says: &[&str]) {
        self.write("moved.hl7", messages);
        self.refuses(&["reveal", "moved.hl7", "--output", "out"], code, says);
    }
}

/// A policy with one field of the given lines.
fn one(field: &str) -> String {
    format!("version = 1\n[fields.f]\n{field}\n")
}

/// What is left of a protected file without the sealed values.
fn clear_of(sealed: &str) -> String {
    let mut clear = String::new();
    for piece in sealed.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c)) {
        clear.push_str(if piece.starts_with("kf1.") { "#" } else { piece });
    }
    clear
}

/// The field `n` of the segment `id` of a message with the usual delimiters.
fn field<'m>(message: &'m str, id: &str, n: usize) -> &'m str {
    let segment = message.split('\r').find(|segment| segment.starts_with(id)).expect("the segment");
    segment.split('|').nth(n).expect("the field")
}

/// What may identify somebody in `examples/hl7`.
const IDENTIFIERS: &str = "500417;500418;499001;7720;Järvinen;Odell;O'Dell;Maribel;Thistle;1951;Mill;Dunmore;6712;555;mari.;7781;440-991;\
    212;Ottumwa;20251231;20260101;2026031;20190401;31337;88120;Hillside Primary;Vandermeer;Okafor;4471;Torvald;\
    2001;Rosamund;Quarry;W4N;55120;Abernathy;Quennell;Castellan;90871;Fell from;1998;GUAR;1949;1045;Prairie;PLAN-;\
    PAY-;Plains;Wichita;448812;20240101;20261231;3390;2009;Fenwick;Barnaby;1988;Ferry;called;CL2;77120;10029;\
    Sorrel;Marlowe;funeral;PF-1;FF-2;|187|;Ibarra;AN-SERIAL;5512;Called";

#[test]
fn the_ready_made_policy_seals_every_identifier_and_gives_every_byte_back() {
    let world = World::new();
    let policy = repository(SAFE_HARBOR);
    for (name, values) in [("adt.hl7", 74), ("oru.hl7", 33), ("batch.hl7", 113)] {
        let input = repository("examples/hl7").join(name);
        world.write(name, fs::read(&input).expect("an example"));
        let sealed = world.round_trip(name, &["--policy", argument(&policy)]);
        let left = clear_of(&sealed);
        for identifier in IDENTIFIERS.split(';') {
            assert!(!left.contains(identifier), "{identifier} is in clear in {name}: {left}");
        }
        // What the policy says stays in clear.
        for clear in ["HILLSIDE", "2.5.1", "Penicillin"].iter().filter(|_| name != "oru.hl7") {
            assert!(left.contains(clear), "{clear}");
        }
        let found = sealed.matches("kf1.").count();
        assert_eq!(found, values, "values in {name}");
    }
    // A merged record joins with the patient that it was.
    let sealed = world.text("sealed.hl7");
    let patients: Vec<&str> = sealed.split(['\r', '\n']).filter(|segment| segment.starts_with("PID")).collect();
    let id = |segment: &str| {
        let ids = segment.split(['|', '!']).nth(3).expect("PID-3");
        ids.split(['^', '@', '~']).next().map(str::to_owned)
    };
    assert_eq!(id(patients[1]), id(patients[2]), "one patient in two messages");
    assert_ne!(id(patients[0]), id(patients[1]));
}

#[test]
fn values_join_with_those_of_other_formats() {
    let world = World::hl7(FIELDS, "MSH|^~\\&|A\rPID|1||Canáry7391-1||x\rMSH!@#$%!A\rPID!1!!Canáry7391-1!!y\r");
    world.write("in.csv", "id,name\nCanáry7391-1,x\n");
    world.write("in.ndjson", "{\"id\":\"Canáry7391-1\",\"name\":\"x\"}\n");
    let messages = world.round_trip("in.hl7", &[]);
    let id = field(&messages, "PID", 3).to_owned();
    world.succeeds(&["protect", "in.csv", "--output", "sealed.csv"]);
    world.succeeds(&["protect", "in.ndjson", "--output", "sealed.ndjson"]);
    assert_eq!(messages.matches(&id).count(), 2, "the delimiters make no difference");
    assert!(world.text("sealed.csv").contains(&id) && world.text("sealed.ndjson").contains(&id));
    // The row binding is the same, too.
    let csv = world.text("sealed.csv");
    let name = csv.lines().nth(1).and_then(|row| row.split(',').nth(1)).expect("a cell");
    world.write("moved.hl7", messages.replacen(field(&messages, "PID", 5), name, 1));
    world.succeeds(&["reveal", "moved.hl7", "--output", "moved.out"]);
    assert_eq!(world.read("moved.out"), world.read("in.hl7"));
}

#[test]
fn values_do_not_move() {
    let world = World::hl7(FIELDS, MESSAGES);
    let sealed = world.round_trip("in.hl7", &[]);
    assert!(!contains(sealed.as_bytes(), "Canáry".as_bytes()));
    let (first, second) = sealed.split_at(sealed[3..].find("MSH").expect("two messages") + 3);
    let names = [field(first, "PID", 5), field(second, "PID", 5).split('~').next().expect("a name")];
    let swapped = sealed.replace(names[0], "#").replace(names[1], names[0]).replace('#', names[1]);
    world.refuses_reveal(&swapped, KEY, &["message 1, segment 2, PID-5, field patient.name", "DecryptionFailed"]);
    // Another ID takes the values with it no more than another name does.
    let ids = [first, second]
        .map(|message| field(message, "PID", 3).split('^').next().expect("an ID").split('~').next().expect("it"));
    world.refuses_reveal(&sealed.replace(ids[0], ids[1]), KEY, &["message 1", "PID-5", "DecryptionFailed"]);
    world.refuses_reveal(&sealed.replace(names[0], ids[0]), POLICY, &["message 1", "PID-5", "PolicyRefused"]);
    // Without its ID a value has no row.
    world.refuses_reveal(
        &sealed.replacen(ids[0], "", 1),
        DATA,
        &["message 1, segment 2, PID-5", "PID-3.1", "is empty"],
    );
    // Plaintext is never passed through.
    world.refuses_reveal(&sealed.replace(names[0], "Canáry7391"), DATA, &["message 1", "not sealed"]);
    world.refuses_reveal(&sealed.replace(names[0], "\"\""), DATA, &["message 1", "not sealed"]);
    world.refuses_reveal(&sealed.replace(names[0], &format!("{}^x", names[0])), DATA, &["message 1", "PID-5"]);
}

#[test]
fn a_value_is_bound_to_the_patient_before_it() {
    // Two patients that trade beds are one message.
    let swap =
        "MSH|^~\\&|A\rPID|1||Canáry7391-1||Canáry7391 A\rPV1|1||a\rPID|2||Canáry7391-2||Canáry7391 B\rPV1|1||b\r";
    let policy =
        format!("{FIELDS}[fields.bed]\nrow_binding = {{ segment = \"PID-3.1\" }}\nsegments = [\"PV1-3\", \"MSH-3\"]\n");
    let world = World::hl7(&policy, swap);
    let sealed = world.round_trip("in.hl7", &[]);
    let beds: Vec<&str> =
        sealed.split('\r').filter(|s| s.starts_with("PV1")).map(|s| s.split('|').nth(3).expect("a bed")).collect();
    let moved = sealed.replace(beds[0], "#").replace(beds[1], beds[0]).replace('#', beds[1]);
    world.refuses_reveal(&moved, KEY, &["message 1, segment 3, PV1-3, field bed", "DecryptionFailed"]);
    World::refuses_protect(&policy, "MSH|^~\\&|Canáry7391\rPV1|1||a\r", DATA, &["PID-3.1 is not in the message"]);
    World::refuses_protect(&policy, "MSH|^~\\&|A\rPID|1||\"\"||x\r", DATA, &["row binding PID-3.1", "is null"]);
}

#[test]
fn empty_is_no_value_and_null_is_one() {
    let world = World::hl7(
        &one("segments = [\"PID-5\"]"),
        "MSH|^~\\&|A\rPID|1||x||\"\"\rPID|||||\rPID\rPID|||||~Canáry7391~\r",
    );
    let sealed = world.round_trip("in.hl7", &[]);
    assert_eq!(sealed.matches("kf1.").count(), 2);
    assert!(sealed.contains("\rPID|||||\rPID\rPID|||||~kf1.") && sealed.ends_with("~\r"));
    let clear = one("row_binding = { segment = \"PID-3\" }\nsegments = [\"PID-5\"]");
    World::refuses_protect(
        &clear,
        "MSH|^~\\&|A\rPID|1||\"\"||Canáry7391\r",
        DATA,
        &["row binding PID-3, in segment 2", "is null"],
    );
}

#[test]
fn escapes() {
    let message = |id: &str| format!("MSH|^~\\&|A\rPID|1||{id}\r");
    let keep = one("mode = \"deterministic\"\nsegments = [\"PID-3.1\"]");
    let normalise = one("mode = \"deterministic\"\nspelling = \"normalise\"\nsegments = [\"PID-3.1\"]");
    World::refuses_protect(
        &keep,
        &message("Canáry7391\\T\\"),
        DATA,
        &["message 1, segment 2, PID-3.1, field f", "escapes", "normalise"],
    );
    World::refuses_protect(&normalise, &message("Canáry7391&x"), DATA, &["components"]);
    World::refuses_protect(
        &normalise,
        &message("Canáry7391\\.br\\"),
        DATA,
        &["escape sequence that stands for no character"],
    );
    // What is spelled in two ways joins, and comes back in one.
    let world = World::hl7(&normalise, &(message("a\\T\\\\X6D\\") + &message("a\\T\\m")));
    world.succeeds(&["protect", "in.hl7", "--output", "sealed.hl7"]);
    world.succeeds(&["reveal", "sealed.hl7", "--output", "out.hl7"]);
    assert_eq!(world.text("out.hl7"), message("a\\T\\m").repeat(2));
    // Randomised ones come back as they stood.
    let world = World::hl7(&one("segments = [\"PID-3\"]"), &message("a\\T\\\\X6D\\^\\.br\\&\\\\Z"));
    world.round_trip("in.hl7", &[]);
}

#[test]
fn a_value_of_another_format_cannot_break_a_message() {
    let world = World::hl7(&one("columns = [\"v\"]\nsegments = [\"PID-5\"]"), "MSH|^~\\&|A\rPID|1||||x\r");
    world.write("in.csv", "v\n\"Canáry7391\rPID|1||9\"\n");
    world.succeeds(&["protect", "in.csv", "--output", "sealed.csv"]);
    let forged = |world: &World| {
        let csv = world.text("sealed.csv");
        world.write(
            "moved.hl7",
            format!("MSH|^~\\&|A\rPID|1||||{}\r", csv.lines().nth(1).expect("a row").trim_matches('"')),
        );
    };
    forged(&world);
    world.refuses(
        &["reveal", "moved.hl7", "--output", "out"],
        DATA,
        &["message 1, segment 2, PID-5", "cut it in pieces"],
    );
    world.write("policy.toml", one("columns = [\"v\"]\nspelling = \"normalise\"\nsegments = [\"PID-5\"]"));
    world.succeeds(&["reveal", "moved.hl7", "--output", "out"]);
    assert_eq!(world.text("out"), "MSH|^~\\&|A\rPID|1||||Canáry7391\\X0D\\PID\\F\\1\\F\\\\F\\9\r");
}

#[test]
fn what_the_policy_has_wrong() {
    let message = "MSH|^~\\&|A\rPID|1||1||Canáry7391\r";
    for (policy, says) in [
        (one("columns = [\"x\"]"), &["field f", "no segments"][..]),
        ("version = 1\n[fields.a]\noptional = true\ncolumns = [\"x\"]\n".to_owned(), &["has HL7 segments"]),
        (one("segments = [\"PID5\"]"), &["field f", "\"PID5\"", "SEG-FIELD"]),
        (one("segments = [\"MSH-2\"]"), &["delimiters"]),
        (one("segments = [\"BHS-3\"]"), &["stay as they are"]),
        (one("segments = [\"PID-5\", \"PID-5.1\"]"), &["PID-5 and PID-5.1"]),
        (one("type = \"json\"\nsegments = [\"PID-5\"]"), &["no JSON"]),
        (one("row_binding = \"$.id\"\nsegments = [\"PID-5\"]"), &["field f", "names no HL7 segment"]),
        (one("row_binding = { segment = \"PID\" }\nsegments = [\"PID-5\"]"), &["field f", "SEG-FIELD"]),
        (
            one("row_binding = { segments = [\"PID\", \"MSH-10?\"] }\nsegments = [\"PID-5\"]"),
            &["field f", "question mark"],
        ),
        (
            one("row_binding = { segments = [\"PID\", \"PID[*]-3[*].1\"] }\nsegments = [\"PID-5\"]"),
            &["field f", "question mark or [*]"],
        ),
        (
            one("row_binding = { segments = [\"MSH-10\", \"PID-3[*].1\"] }\nsegments = [\"PID-5\"]"),
            &["field f", "write PID[*]-3[*].1, not PID-3[*].1"],
        ),
        (
            one("row_binding = { segments = [\"MSH-10\", \"PID[*]-3[*]1\"] }\nsegments = [\"PID-5\"]"),
            &["field f", "write PID[*]-31[*], not PID[*]-3[*]1"],
        ),
        (one("row_binding = { segments = [\"PID[*]-3[*]\"] }\nsegments = [\"PID-5\"]"), &["field f", "SEG-FIELD"]),
        (
            one("row_binding = { segments = [\"MSH-10\", \"PID[*]-5[*].1\"] }\nsegments = [\"PID-5\"]"),
            &["is bound to PID-5.1", "PID-5 is protected"],
        ),
        (one("row_binding = { segments = [\"PID-3.1?\"] }\nsegments = [\"PID-5\"]"), &["field f", "SEG-FIELD"]),
        (
            one("row_binding = { segments = [\"PID-3\", \"PID-5\"] }\nsegments = [\"PID-5\"]"),
            &["is bound to PID-5", "PID-5 is protected"],
        ),
        (one("only_if = { \"PID-8\" = \"F\" }\nsegments = [\"PID-5\"]"), &["field f", "only_if is about JSON paths"]),
        (
            one("row_binding = { segment = \"PID-5.1\" }\nsegments = [\"PID-5\"]"),
            &["is bound to PID-5.1", "PID-5 is protected"],
        ),
        (FIELDS.replace("PID-3.1\"]", "PID-3\"]"), &["is bound to PID-3.1", "PID-3 is protected"]),
        (one("segments = [\"PID-6\"]"), &["message 1", "--pass-unmatched"]),
        (
            one("segments = [\"PID-5\"]\n[fields.g]\nsegments = [\"PID-6\"]"),
            &["field g", "nothing in the whole input", "optional"],
        ),
    ] {
        World::refuses_protect(&policy, message, POLICY, says);
    }
    let world = World::hl7(&one("optional = true\nsegments = [\"PID-6\"]"), message);
    world.succeeds(&["protect", "in.hl7", "--output", "out", "--pass-unmatched"]);
    assert_eq!(world.text("out"), message);
    // Of other formats, too.
    world.write("policy.toml", one("row_binding = \"none\"\nsegments = [\"PID-5\"]"));
    world.write("in.ndjson", "{\"id\":1}\n");
    world.refuses(&["protect", "in.csv", "--output", "x"], POLICY, &["field f", "no columns"]);
    world.refuses(&["protect", "in.ndjson", "--output", "x"], POLICY, &["field f", "no paths"]);
    world.refuses(&["protect", "in.hl7", "--format", "csv", "--output", "x"], POLICY, &["no columns"]);
}

#[test]
fn hostile_input() {
    let name = one("segments = [\"PID-5\"]");
    for (message, says) in [
        ("PID|1||||Canáry7391\r", &["message 1", "does not begin with MSH"][..]),
        ("{\"name\":\"Canáry7391\"}\n", &["no HL7 v2"]),
        ("MSH|^~\\&|A\rPID|1||||Canáry7391\nCanáry7391|\r", &["segment 3"]),
        ("MSH|^~\\&|A\rPID|1||||Canáry7391\rCan", &["segment 3", "no name"]),
        ("MSH|^~\\&|A\rPID|1||||x\nNTE|Canáry7391\r", &["segment 3", "ends as no other does"]),
        ("MSH|^^\\&|A\rPID|1||||Canáry7391\r", &["two delimiters"]),
        ("MSH|^~\\_|A\rPID|1||||Canáry7391\r", &["occurs in sealed values"]),
        ("MSH|^~\\&|A|||||||||||||||SHIFT-JIS\rPID|1||||Canáry7391\r", &["segment 1", "character set"]),
        ("MSH|^~\\&|A|||||||||||||||8859/1\rPID|1||||Canáry7391\r", &["segment 2, PID-5", "not ASCII"]),
        ("MSH!^~\\@!A\rPID!1!!!!Canáry7391&\r", &["segment 2, PID-5", "plain character"]),
    ] {
        World::refuses_protect(&name, message, DATA, says);
    }
    let world = World::hl7(&name, "");
    world.round_trip("in.hl7", &[]);
    world.write("in.hl7", b"MSH|^~\\&|A\rPID|1||||Can\xe1ry7391\r");
    world.refuses(&["protect", "in.hl7", "--output", "x"], DATA, &["segment 2, PID-5", "not UTF-8"]);
    // Bytes that are not protected may be any.
    world.write("in.hl7", b"MSH|^~\\&|A\rPID|1|\xff\0||\0|Can\0\rOBX|\xe1\x1b\r");
    world.succeeds(&["protect", "in.hl7", "--output", "sealed.hl7", "--force"]);
    world.succeeds(&["reveal", "sealed.hl7", "--output", "again.hl7"]);
    assert_eq!(world.read("again.hl7"), world.read("in.hl7"));
    let sealed = world.read("sealed.hl7");
    world.write("twice.hl7", sealed);
    world.refuses(&["protect", "twice.hl7", "--output", "x"], POLICY, &["looks sealed already"]);
    world.write("in.hl7", format!("MSH|^~\\&|A\rPID|1||||{}\r", "y".repeat(17 << 20)));
    world.refuses(&["protect", "in.hl7", "--output", "x"], DATA, &["message 1: longer than 16777216 bytes"]);
    world.write("in.hl7", format!("MSH|^~\\&|A\rPID|1||||{}\r", "y".repeat(2 << 20)));
    world.refuses(&["protect", "in.hl7", "--output", "x"], DATA, &["message 1, segment 2, PID-5", "LimitExceeded"]);
}

#[test]
fn a_feed_of_many_messages_on_all_cores() {
    let world = World::hl7(FIELDS, &MESSAGES.repeat(3000));
    let sealed = world.round_trip("in.hl7", &["--threads", "3"]);
    assert_eq!(sealed.matches("kf1.").count(), 3000 * 6);
    let run = world.succeeds(&["protect", "in.hl7", "--output", "-", "--json"]);
    let summary = run.summary();
    assert_eq!((summary["records"].as_u64(), summary["values"].as_u64()), (Some(6000), Some(18_000)));
}

#[test]
fn census_and_new_generations() {
    let world = World::hl7(FIELDS, MESSAGES);
    world.round_trip("in.hl7", &[]);
    let count_of = |file: &str, more: &[&str]| {
        let run = world.run(&[&["census", file, "--json"], more].concat()).expect(0, &[]);
        let columns = run.json_lines()[0]["columns"].as_array().expect("columns").clone();
        let of = |column: &serde_json::Value| {
            let generations = column["generations"].as_array().expect("it").iter();
            let sealed = generations.map(|g| (g["generation"].as_u64(), g["values"].as_u64())).collect::<Vec<_>>();
            (column["column"].as_str().expect("a name").to_owned(), sealed, column["clear"].as_u64())
        };
        columns.iter().map(of).collect::<Vec<_>>()
    };
    let count = |more: &[&str]| count_of("sealed.hl7", more);
    let one = |n| vec![(Some(4), Some(n))];
    let found: Vec<_> = count(&[])
        .into_iter()
        .map(|(name, sealed, _)| (name, sealed.iter().filter_map(|s| s.1).sum::<u64>()))
        .collect();
    assert_eq!(found, [("PID-3.1".to_owned(), 2), ("PID-5".to_owned(), 3), ("PID-3".to_owned(), 1)]);
    let named = count(&["--column", "PID-5", "--column", "MSH-3"]);
    assert_eq!(named, [("PID-5".to_owned(), one(3), Some(0)), ("MSH-3".to_owned(), vec![], Some(2))]);
    world.run(&["census", "sealed.hl7", "--column", "PID"]).expect(POLICY, &["SEG-FIELD"]);

    world.succeeds(&["keys", "rotate"]);
    let run = world.succeeds(&["reencrypt", "sealed.hl7", "--output", "new.hl7", "--statement", "s.json", "--json"]);
    let summary = run.stderr.lines().find(|line| line.starts_with('{')).expect("a summary");
    assert!(summary.contains("\"outdated\":3,"), "the names, since look-up keys stay: {summary}");
    let [(_, newer, _)] = &count_of("new.hl7", &["--column", "PID-5"])[..] else { panic!("one column") };
    assert_eq!(newer, &[(Some(5), Some(3))]);
    world.succeeds(&["reveal", "new.hl7", "--output", "again.hl7"]);
    assert_eq!(world.text("again.hl7"), MESSAGES);
    let statement = world.text("s.json");
    assert!(statement.contains("patient.id") && statement.contains("PID-5"), "{statement}");
    let (old, new) = (world.text("sealed.hl7"), world.text("new.hl7"));
    assert_eq!(field(&old, "PID", 3), field(&new, "PID", 3));
    assert_ne!(field(&old, "PID", 5), field(&new, "PID", 5));
}

#[test]
fn rebinding_is_refused_in_a_sentence() {
    let world = World::hl7(FIELDS, MESSAGES);
    world.write("map.csv", "from,to\na,b\n");
    world.refuses(
        &["rebind", "in.hl7", "--map", "map.csv", "--output", "out"],
        USAGE,
        &["reveal them", "protect them again"],
    );
}
