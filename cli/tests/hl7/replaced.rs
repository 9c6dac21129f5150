//! Values that others stand for: of the same format, or random tokens.

use super::common::{DATA, POLICY, USAGE, World, repository};
use super::{field, one};
use std::fs;

const FIELDS: &str = r#"version = 1
[fields.ssn]
mode = "format-preserving"
format = "digits"
segments = ["PID-19"]

[fields.account]
mode = "token"
length = 11
segments = ["PID-18.1"]

[fields.name]
row_binding = { segment = "MSH-10" }
segments = ["PID-5"]
"#;

const MESSAGES: &str = "MSH|^~\\&|A|||||||1\rPID|1||||Canáry7391|||||||||||||Canáry7391-77^^^H|123-45-6789\r\
                        MSH!@#$%!A!!!!!!!2\rPID!1!!!!Canáry7391!!!!!!!!!!!!!Canáry7391-77@@@H!987-65-4321\r";

const TOKENS: &[&str] = &["--tokens", "sqlite:tokens.db"];

fn world() -> World {
    let world = World::hl7(FIELDS, MESSAGES);
    let text = fs::read_to_string(repository("docs/LOOKUP.md")).expect("the document");
    let blocks = text.split("```").filter_map(|block| block.strip_prefix("sql sqlite\n"));
    let table = blocks.filter(|sql| sql.contains("TABLE keyfold_tokens")).collect::<String>();
    rusqlite::Connection::open(world.path("tokens.db")).expect("a database").execute_batch(&table).expect("a table");
    world
}

#[test]
fn formats_and_tokens_come_back() {
    let world = world();
    let sealed = world.round_trip("in.hl7", TOKENS);
    let (first, second) = sealed.split_at(sealed.find("MSH!").expect("two messages"));
    let second = second.replace('!', "|");
    let [ssn, other] = [first, second.as_str()].map(|message| field(message, "PID", 19).to_owned());
    assert!(ssn != "123-45-6789" && ssn != other, "{sealed}");
    assert!(ssn.bytes().zip(b"123-45-6789").all(|(new, old)| new.is_ascii_digit() == old.is_ascii_digit()));
    let token = field(first, "PID", 18).strip_suffix("^^^H").expect("the rest stays").to_owned();
    assert_eq!(token.len(), 11);
    assert_eq!(field(&second, "PID", 18), format!("{token}@@@H"), "one value, one token");
    // Nothing shows whether a value of that format was changed, and the summary says so.
    let run = world.succeeds(&[&["protect", "in.hl7", "--output", "-"], TOKENS].concat());
    assert!(
        run.stderr.contains("not authenticated, since the format is kept: ssn (nor does it show"),
        "{}",
        run.stderr
    );

    world.succeeds(&["keys", "rotate"]);
    world.succeeds(&["reencrypt", "sealed.hl7", "--output", "new.hl7", "--statement", "s.json"]);
    let new = world.text("new.hl7");
    assert_eq!((field(&new, "PID", 18), field(&new, "PID", 19)), (field(first, "PID", 18), ssn.as_str()));
    assert_ne!(field(&new, "PID", 5), field(first, "PID", 5));
    world.succeeds(&[&["reveal", "new.hl7", "--output", "new.out"], TOKENS].concat());
    assert_eq!(world.text("new.out"), MESSAGES);
}

#[test]
fn what_is_neither_is_refused() {
    let world = world();
    let sealed = world.round_trip("in.hl7", TOKENS);
    let refuses = |messages: &str, says: &[&str]| {
        world.write("moved.hl7", messages);
        world.refuses(&[&["reveal", "moved.hl7", "--output", "out"], TOKENS].concat(), DATA, says);
    };
    let token = field(&sealed, "PID", 18).split('^').next().expect("a token");
    refuses(&sealed.replace(token, "short"), &["segment 2, PID-18.1, field account", "no token"]);
    refuses(&sealed.replace(token, "00000000000"), &["PID-18.1, field account", "does not have the token"]);
    let ssn = field(&sealed, "PID", 19);
    refuses(&sealed.replace(ssn, "12"), &["segment 2, PID-19, field ssn"]);
    world.refuses(&["reveal", "sealed.hl7", "--output", "out"], USAGE, &["field account", "--tokens"]);
    // Such values are no row.
    let bound = FIELDS.replace("MSH-10", "PID-19");
    world.write("policy.toml", bound);
    world.refuses(&[&["protect", "in.hl7", "--output", "out"], TOKENS].concat(), POLICY, &["deterministic field"]);
}

#[test]
fn a_format_has_the_delimiters_of_its_message() {
    let policy = |more: &str| {
        one(&format!("mode = \"format-preserving\"\nformat = \"alphanumeric\"\n{more}segments = [\"PID-18\"]"))
    };
    let message = |delimiters: &str, value: &str| format!("MSH|{delimiters}|A\rPID{}{value}\r", "|".repeat(18));
    let messages = [
        message("^~\\&", "CANARY7391^EFGH34"),
        // What is a component here is a repetition by the standard.
        message("~^\\&", "CANARY7391~EFGH34"),
        message("$~\\&", "CANARY7391$EFGH34"),
        message("^~\\$", "A1^B2$C3D4"),
    ];
    let world = World::hl7(&policy(""), &messages.concat());
    let sealed = world.round_trip("in.hl7", &[]);
    let shape = |text: &str| text.replace(|c: char| c.is_ascii_alphanumeric(), "x");
    assert_eq!(shape(&sealed), shape(&messages.concat()));
    let values: Vec<&str> =
        sealed.split('\r').filter_map(|segment| segment.strip_prefix("PID||||||||||||||||||")).collect();
    assert!(values.len() == 4 && !sealed.contains("CANARY7391"), "{sealed}");
    assert_eq!(values[1].replace('~', "^"), values[0], "the delimiters make no difference");
    assert_eq!(values[2].replace('$', "^"), values[0]);
    // The letters of escapes are no letters of the value.
    let escaped = message("^~\\&", "A1\\T\\B2C3D4");
    World::refuses_protect(&policy(""), &escaped, DATA, &["PID-18, field f", "escapes", "normalise"]);
    let world = World::hl7(&policy("spelling = \"normalise\"\n"), &escaped);
    let sealed = world.round_trip("in.hl7", &[]);
    let (before, behind) = field(&sealed, "PID", 18).split_once("\\T\\").expect("the escape");
    assert!(before.len() == 2 && behind.len() == 6 && format!("{before}{behind}") != "A1B2C3D4", "{sealed}");
}
