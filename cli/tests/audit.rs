//! `[audit]` and `keyfold audit`: what every command leaves in the audit file, and what verification says of it.

use crate::audited::Audited;
use crate::common::{self, CANARY, DATA, KEY, POLICY, STORAGE, argument, contains, keyfold, run};
use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

/// Of the last values nothing would be known, and the output would be there all the same.
#[test]
fn output_whose_uses_cannot_be_recorded_does_not_appear() {
    let audited = Audited::new();
    let world = &audited.0;
    let (head, rows) = common::PATIENTS.split_once('\n').expect("a head");
    // More than a batch, so that a key is unwrapped before the end.
    world.write("many.csv", format!("{head}\n{}", rows.repeat(20_000)));
    world.succeeds(&["protect", "many.csv", "--output", "many.sealed"]);
    world.write("image.toml", "version = 1\n[fields.image]\nmode = \"stream\"\n");
    let image = ["--stream", "image", "--policy", "image.toml"];
    world.succeeds(&[&["protect", "in.csv", "--output", "image.kf"][..], &image].concat());
    let reveal = ["reveal", "-", "--output", "out"];
    let csv = ["--format", "csv"];
    for (input, how) in [("many.sealed", &csv[..]), ("image.kf", &image)] {
        let arguments = [&reveal[..], how].concat();
        let mut child =
            world.command(&arguments).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = world.read(input);
        stdin.write_all(&input[..input.len() - 1]).expect("written");
        let is_unwrapped =
            || audited.actions().iter().rev().take_while(|action| *action != "opened").any(|action| action == "unwrap");
        while !is_unwrapped() {
            assert!(child.try_wait().expect("a child").is_none(), "it ended");
            sleep(Duration::from_millis(5));
        }
        let file = audited.file();
        fs::rename(&file, world.path("aside")).expect("renamed");
        fs::create_dir(&file).expect("made");
        stdin.write_all(&input[input.len() - 1..]).expect("written");
        drop(stdin);
        let ended = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(STORAGE), "{said}");
        assert!(said.contains("cannot open the audit file"), "{said}");
        assert!(!world.path("out").exists());
        fs::remove_dir(&file).expect("removed");
        fs::rename(world.path("aside"), &file).expect("put back");
    }
}

#[test]
fn every_command_is_recorded_and_ends_its_chain_whether_it_fails_or_not() {
    let audited = Audited::new();
    let world = &audited.0;
    world.protect(&["--scope", CANARY, "--context", &format!("tenant={CANARY}")]);
    assert_eq!(audited.actions().first().map(String::as_str), Some("chain-begun"));
    for action in ["opened", "unwrap", "key-made", "use", "chain-ended"] {
        assert!(audited.actions().iter().any(|known| known == action), "{action}");
    }
    // Another scope and context than it was sealed under.
    world.refuses(&["reveal", "sealed.csv", "--output", "out.csv"], KEY, &[]);
    let arguments = ["reveal", "sealed.csv", "--output", "out.csv", "--scope", CANARY, "--context"];
    world.refuses(&[&arguments[..], &["tenant=x"]].concat(), KEY, &[]);
    world.succeeds(&[&arguments[..], &[&format!("tenant={CANARY}")]].concat());
    world.succeeds(&["keys", "rotate"]);
    world.succeeds(&["keys", "list"]);
    let actions = audited.actions();
    let count = |action: &str| actions.iter().filter(|known| *known == action).count();
    assert_eq!((count("chain-begun"), count("chain-ended"), count("opened")), (6, 6, 6), "{actions:?}");
    assert_eq!(actions.last().map(String::as_str), Some("chain-ended"));
    let text = fs::read_to_string(audited.file()).expect("the audit file");
    assert!(text.contains("\"opened\":\"") && text.contains("\"DecryptionFailed\":\"1\""), "{text}");

    let report = audited.audit(&["audit", "verify"]).expect(0, &[]);
    assert!(report.stdout_text().ends_with("nothing is wrong\n"), "{}", report.stdout_text());
    assert!(report.stdout_text().contains("can forge these chains, and only anchors protect"));
    let json = audited.audit(&["audit", "verify", "--json"]).expect(0, &[]).json_lines();
    assert_eq!((&json[0]["clean"], &json[0]["gap"]), (&true.into(), &0.into()));
    // Neither plaintext nor scope nor context nor a key.
    let kek = fs::read_to_string(world.keys().join("local.kek")).expect("the KEK");
    for file in ["audit.jsonl", "anchors.jsonl"] {
        let bytes = fs::read(world.keys().join(file)).expect("a file");
        for secret in [CANARY, "ry7391", kek.lines().nth(1).expect("the key")] {
            assert!(!contains(&bytes, secret.as_bytes()), "{file}");
        }
    }
    let events = audited.audit(&["audit", "export", "--format", "ecs"]).expect(0, &[]).json_lines();
    assert_eq!(events.len() + 12, actions.len());
    assert!(events.iter().all(|event| event["service"]["name"] == "keyfold" && event["ecs"]["version"].is_string()));
}

#[test]
fn verification_says_what_is_wrong_in_text_json_and_exit_code() {
    let audited = Audited::new();
    let world = &audited.0;
    audited.audit(&["audit", "verify"]).expect(STORAGE, &["no audit file yet"]);
    world.protect(&[]);
    let good = fs::read_to_string(audited.file()).expect("the audit file");
    let edited = good.replacen("\"sealed\":\"", "\"sealed\":\"9", 1);
    world.write("edited.jsonl", &edited);
    let line = good.lines().position(|line| line.contains("\"sealed\"")).expect("a line") + 1;
    let report = audited.audit(&["audit", "verify", "edited.jsonl"]).expect(DATA, &[]);
    assert!(report.stdout_text().contains(&format!("edited.jsonl:{line}: edited: it is not what was written")));
    assert!(report.stdout_text().ends_with("NOT WHAT WAS WRITTEN\n"));
    let json = audited.audit(&["audit", "verify", "edited.jsonl", "--json"]).expect(DATA, &[]).json_lines();
    assert_eq!(
        json[0]["findings"][0],
        serde_json::json!({
            "file": "edited.jsonl", "line": line, "kind": "edited", "detail": "it is not what was written"
        })
    );
    // Without a configuration, or without the KEK, it is not the same.
    world.write("good.jsonl", &good);
    let report = world.run(&["audit", "verify", "good.jsonl"]).expect(KEY, &["only the structure is checked"]);
    assert!(report.stdout_text().contains("ONLY THE STRUCTURE WAS CHECKED"));
    // What was printed by hand is an anchor.
    let heads = audited.audit(&["audit", "anchor"]).expect(0, &[]);
    world.write("heads", &heads.stdout);
    let all: Vec<_> = good.split_inclusive('\n').collect();
    world.write("cut.jsonl", all[..all.len() - 1].concat());
    for arguments in [&["audit", "verify", "cut.jsonl"][..], &["audit", "verify", "cut.jsonl", "--anchors", "heads"]] {
        let report = audited.audit(arguments).expect(DATA, &[]);
        assert!(report.stdout_text().contains("missing-tail"), "{}", report.stdout_text());
    }
    fs::rename(audited.file(), world.keys().join("kept")).expect("renamed");
    let report = audited.audit(&["audit", "verify"]).expect(DATA, &[]);
    assert!(report.stdout_text().contains("missing-chain"), "{}", report.stdout_text());
    fs::rename(world.keys().join("kept"), audited.file()).expect("renamed");
    fs::remove_file(world.keys().join("audit.kek")).expect("removed");
    let report = audited.audit(&["audit", "verify"]).expect(KEY, &[]);
    assert!(report.stdout_text().contains("the audit KEK cannot be opened here"), "{}", report.stdout_text());
}

#[test]
fn what_is_no_audit_file_and_what_is_gone_is_one_finding_with_a_name() {
    let audited = Audited::new();
    let world = &audited.0;
    world.protect(&[]);
    // Another file, whatever its length, and whatever the anchors know of the trail.
    world.write("report.json", format!("{{\n{}}}\n", "  \"line\": 1,\n".repeat(1930)));
    let json = audited.audit(&["audit", "verify", "report.json", "--json"]).expect(DATA, &[]).json_lines();
    let findings = json[0]["findings"].as_array().expect("findings");
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!((&findings[0]["kind"], &findings[0]["line"]), (&"no-line".into(), &serde_json::Value::Null));
    assert!(findings[0]["detail"].as_str().is_some_and(|detail| detail.starts_with("this is no audit file")));
    // With the trail gone the anchors say what is missing.
    fs::rename(audited.file(), world.keys().join("kept")).expect("renamed");
    let report = audited.audit(&["audit", "verify"]).expect(DATA, &[]);
    let first = report.stdout_text().lines().next().expect("a finding").to_owned();
    assert!(first.contains("anchors.jsonl: missing-chain: "), "{first}");
    fs::rename(world.keys().join("kept"), audited.file()).expect("renamed");
    // With the anchors gone somebody says what becomes of them.
    let anchors = world.keys().join("anchors.jsonl");
    fs::rename(&anchors, world.path("copy")).expect("renamed");
    audited.audit(&["audit", "verify"]).expect(STORAGE, &["anchors.jsonl are missing", "--anchors FILE", "keys list"]);
    audited.audit(&["audit", "verify", "--anchors", "copy"]).expect(0, &[]);
    assert!(!anchors.exists(), "verifying made them");
}

/// Anchors that were configured later and such as were lost and begun anew look alike: no finding, and told with their number.
#[test]
fn chains_that_no_anchor_knows_are_counted() {
    let audited = Audited::new();
    let world = &audited.0;
    world.protect(&[]);
    world.succeeds(&["keys", "list"]);
    let json = audited.audit(&["audit", "verify", "--json"]).expect(0, &[]).json_lines();
    assert_eq!((&json[0]["unanchored"], &json[0]["gap"]), (&0.into(), &0.into()));
    fs::remove_file(world.keys().join("anchors.jsonl")).expect("removed");
    world.succeeds(&["keys", "list"]);
    let json = audited.audit(&["audit", "verify", "--json"]).expect(0, &[]).json_lines();
    assert_eq!(json[0]["unanchored"], 2, "{json:?}");
    let text = audited.audit(&["audit", "verify"]).expect(0, &[]);
    assert!(text.stdout_text().contains("note: 2 of 3 chains are in no anchor: "), "{}", text.stdout_text());
}

#[test]
fn a_statement_is_verified_by_itself_and_looked_for_in_the_trail() {
    let audited = Audited::new();
    let world = &audited.0;
    world.protect(&[]);
    world.succeeds(&["reencrypt", "sealed.csv", "--output", "new.csv", "--statement", "statement"]);
    let report = audited.audit(&["audit", "verify", "statement"]).expect(0, &[]);
    assert!(
        report.stdout_text().contains("statement: the audit trail has its digest, at "),
        "{}",
        report.stdout_text()
    );
    let json = audited.audit(&["audit", "verify", "statement", "--json"]).expect(0, &[]).json_lines();
    let line = json[0]["statements"][0]["recorded_at"]["line"].as_u64().expect("a line");
    assert_eq!(audited.actions()[line as usize - 1], "statement-signed");
    audited.audit(&["audit", "verify"]).expect(0, &[]);
    fs::remove_file(audited.file()).expect("removed");
    let report = audited.audit(&["audit", "verify", "statement"]).expect(0, &[]);
    assert!(report.stdout_text().contains("does not have its digest"), "{}", report.stdout_text());
}

#[test]
fn an_error_of_the_anchors_names_them_and_no_kek() {
    let audited = Audited::new();
    let world = &audited.0;
    fs::create_dir(world.keys().join("anchors.jsonl")).expect("a folder in their place");
    let run = world.refuses(&["protect", "in.csv", "--output", "sealed.csv"], STORAGE, &["anchors of the audit file"]);
    assert!(!run.stderr.contains("KEK local"), "{}", run.stderr);
}

#[test]
fn what_cannot_be_recorded_is_not_done_unless_the_policy_says_so() {
    let audited = Audited::new();
    let world = &audited.0;
    fs::create_dir(audited.file()).expect("a folder in its place");
    world.refuses(&["protect", "in.csv", "--output", "sealed.csv"], STORAGE, &["audit file"]);
    let config = fs::read_to_string(world.config()).expect("the configuration");
    fs::write(world.config(), config.replace("kek = \"audit\"\n", "kek = \"audit\"\non_failure = \"count\"\n"))
        .expect("written");
    world.succeeds(&["protect", "in.csv", "--output", "sealed.csv"]);
    // Without the KEK there is no chain, whatever the policy: that is a mistake in the set-up.
    fs::remove_file(world.keys().join("audit.kek")).expect("removed");
    world.refuses(&["protect", "in.csv", "--output", "again.csv"], STORAGE, &["KEK audit"]);
}

#[test]
fn an_interrupted_command_ends_its_chain() {
    let audited = Audited::new();
    let world = &audited.0;
    let mut command = world.command(&["protect", "-", "--format", "csv", "--output", "out.csv"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(common::PATIENTS.as_bytes()).expect("written");
    while !fs::read_to_string(audited.file()).is_ok_and(|text| text.contains("\"unwrap\"")) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::INT).expect("sent");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert_eq!(audited.actions().last().map(String::as_str), Some("chain-ended"));
    audited.audit(&["audit", "verify"]).expect(0, &[]);
}

#[test]
fn audit_files_are_never_overwritten_and_audit_keks_wrap_nothing_else() {
    let audited = Audited::new();
    let world = &audited.0;
    world.protect(&[]);
    for name in ["audit.jsonl", "audit.jsonl.lock", "anchors.jsonl", "audit.kek"] {
        let output = world.keys().join(name);
        let before = fs::read(&output).expect("a file");
        let code = world.run(&["protect", "in.csv", "--output", argument(&output), "--force"]).code;
        assert_ne!(code, Some(0), "{name}");
        assert!(fs::read(&output).expect("a file").starts_with(&before), "{name}");
    }
    let listed = world.succeeds(&["keys", "list"]);
    assert!(listed.stdout_text().contains("KEKs local") && !listed.stdout_text().contains("audit"));
    let config = fs::read_to_string(world.config()).expect("the configuration");
    for (from, to, says) in [
        ("wraps = \"audit\"", "wraps = \"roots\"", "wraps = \"audit\""),
        ("[audit]\n", "[audit]\ninterval = \"0s\"\n", "interval"),
        ("[audit]\n", "[audit]\nactor = \"\"\n", "actor"),
        ("[audit]\n", "[scopes.x]\nkeks = [\"audit\"]\n[audit]\n", "[keks] section"),
    ] {
        fs::write(world.config(), config.replace(from, to)).expect("written");
        world.refuses(&["protect", "in.csv", "--output", "x.csv"], POLICY, &["keyfold.toml:", says]);
    }
}

/// Whoever writes the folder of the trail has nobody wait for him, nor read what is no file.
#[test]
fn a_pipe_in_the_folder_of_the_trail_is_refused_and_one_that_is_named_is_read() {
    let audited = Audited::new();
    let world = &audited.0;
    world.protect(&[]);
    let pipe = audited.file().with_extension("jsonl.000009");
    mkfifoat(CWD, &pipe, Mode::from_raw_mode(0o600)).expect("a pipe");
    for arguments in [
        &["audit", "verify"][..],
        &["audit", "anchor"],
        &["audit", "export", "--format", "ecs"],
        &["report", "--verify"],
        &["report"],
    ] {
        audited.audit(arguments).expect(STORAGE, &["audit.jsonl.000009", "not a regular file"]);
    }
    fs::remove_file(&pipe).expect("removed");
    let (anchors, aside) = (world.keys().join("anchors.jsonl"), world.path("aside"));
    fs::rename(&anchors, &aside).expect("renamed");
    mkfifoat(CWD, &anchors, Mode::from_raw_mode(0o600)).expect("a pipe");
    for arguments in [&["audit", "verify"][..], &["report", "--verify"]] {
        audited.audit(arguments).expect(STORAGE, &["anchors.jsonl", "not a regular file"]);
    }
    // By name, it is meant.
    let trail = fs::read(audited.file()).expect("the trail");
    let config = world.config();
    let mut command = keyfold();
    command.args(["audit", "verify", "/dev/stdin", "--anchors"]).arg(&aside).arg("--config").arg(&config);
    run(&mut command, &trail).expect(0, &[]);
    let mut command = keyfold();
    command.args(["audit", "anchor", "/dev/stdin", "--config"]).arg(&config);
    assert!(run(&mut command, &trail).expect(0, &[]).stdout_text().contains("\"chain\""));
    let mut command = keyfold();
    command.args(["audit", "anchor", "/dev/stdin", "--config"]).arg(&config);
    run(&mut command, b"no trail\n").expect(DATA, &["there is no head"]);
}
