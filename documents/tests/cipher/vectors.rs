//! Runs testvectors/document-json.json (FORMAT.md §18.6), which the tests of core generate: every case must come to the result that it names.

use crate::world::{World, members};
use crate::{PROTECT, run};
use keyfold::{Context, Policy};
use keyfold_documents::{Direction, DocumentCipher, DocumentError, DocumentOptions, FieldKeys};
use serde_json::Value;

fn file() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../testvectors/document-json.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("a file")).expect("JSON")
}

fn text(json: &Value) -> &str {
    json.as_str().expect("a text")
}

fn context(case: &Value) -> Context {
    let byte = |at: usize, hex: &str| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    let bytes = |hex: &str| (0..hex.len()).step_by(2).map(|at| byte(at, hex)).collect::<Vec<u8>>();
    let pairs = case["context"].as_array().expect("a list").iter();
    pairs.fold(Context::new(), |context, pair| context.with(text(&pair[0]), bytes(text(&pair[1]))).expect("short"))
}

/// What becomes of a text under the policy of a case, with the keys of the vectors.
fn transform(file: &Value, case: &Value, direction: Direction, content: &str) -> Result<String, DocumentError> {
    let mut policy = Policy::new();
    let toml = text(&file["policies"][text(&case["policy"])]);
    keyfold::config::add_policy(&mut policy, toml, "policy.toml").expect("a policy");
    let mut world = World::generated();
    if let Direction::Protect { .. } = direction {
        // A key seals only if those after it never did.
        let later = |name| ["data-destroyed", "data-compromised", "data-destroy-pending"].contains(&name);
        for member in members().iter().filter(|member| later(member.name)) {
            world.store.0.remove(&member.key.key_id());
        }
    }
    let ring = world.keyring(policy).expect("a keyring");
    let keys = FieldKeys { ring: &ring, direction, scope: None, context: context(case), tokens: None };
    let options = DocumentOptions { many_lines: true, pass_unmatched: true };
    run(&DocumentCipher::new(&keys, options)?, content).map(|(text, _)| text)
}

#[test]
fn every_text_comes_to_the_result_that_it_names() {
    let file = file();
    let mut wrong = Vec::new();
    for case in file["cases"].as_array().expect("a list") {
        let found = match transform(&file, case, Direction::Reveal, text(&case["protected"])) {
            Ok(clear) if case["clear"] == *clear => "ok".to_owned(),
            Ok(clear) => format!("another text, {clear}"),
            Err(error) if case["expect"] == error.kind().name() => error.kind().name().to_owned(),
            Err(error) => format!("{}, {error}", error.kind().name()),
        };
        if found != text(&case["expect"]) {
            wrong.push(format!("{} ({}): {found}, expected {}", case["id"], case["note"], case["expect"]));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// A protected text without what is drawn for each document.
fn shape(text: &str) -> String {
    let is_manifest =
        |part: &str| part.len() == 54 && !part.contains(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_');
    let parts = text.split('"').map(|part| match part {
        header if header.starts_with("kf1.05") => "H".to_owned(),
        body if body.starts_with("kf1d.") => format!("B{}", body.len()),
        manifest if is_manifest(manifest) => "M".to_owned(),
        other => other.to_owned(),
    });
    parts.collect::<Vec<_>>().join("\"")
}

#[test]
fn a_writer_writes_what_the_file_says() {
    let file = file();
    let mut written = 0;
    for case in file["cases"].as_array().expect("a list").iter().filter(|case| case["written"] == true) {
        let sealed =
            transform(&file, case, PROTECT, text(&case["clear"])).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(shape(&sealed), shape(text(&case["protected"])), "{} ({})", case["id"], case["note"]);
        written += 1;
    }
    assert!(written > 15, "{written}");
}
