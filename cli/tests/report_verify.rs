//! `keyfold report --verify` where something is missing: the report is made and says so, the command fails, and nothing is made anew.

use crate::audited::Audited;
use crate::common::{DATA, KEY, KMS, POLICY, Run, STORAGE, World, argument, keyfold, run};
use crate::report::{AT, json, report};
use crate::shared_streams::unprivileged;
use rustix::fs::inotify;
use serde_json::Value as Json;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// The report that was made although the command fails.
fn failed(world: &World, says: &[&str]) -> Json {
    let run = report(world, &["--verify", "--format", "json"]).expect(STORAGE, says);
    serde_json::from_slice(&run.stdout).expect("JSON")
}

fn warning(report: &Json, name: &str) -> Option<String> {
    let all = report["retention"].as_array().expect("warnings");
    all.iter().find(|found| found["warning"] == name)?["what"].as_str().map(str::to_owned)
}

#[test]
fn a_high_water_file_that_is_missing_is_said_again_and_again() {
    let world = World::new();
    world.protect(&[]);
    let marks = world.keys().join("keys.high-water");
    let there = |report: &Json| report["high_water"].clone();
    let before = fs::read(&marks).expect("the marks");
    assert_eq!((there(&json(&world, &[])), there(&json(&world, &["--verify"]))), ("there".into(), "there".into()));
    assert_eq!(fs::read(&marks).expect("the marks"), before, "a report raises no mark");
    fs::rename(&marks, world.path("aside")).expect("renamed");
    for _ in 0..2 {
        assert_eq!(there(&json(&world, &[])), "missing");
        let made = failed(&world, &["keys.high-water is missing", "the report was made", "keys list, makes it anew"]);
        assert_eq!((there(&made), &made["keys"]["verified"]), ("missing".into(), &true.into()));
        assert!(!marks.exists(), "the next report would find nothing wrong");
    }
    let text = report(&world, &[]).expect(0, &[]);
    for said in ["| High-water file | MISSING on this machine", "A MISSING HIGH-WATER FILE", "high-water file MISSING"]
    {
        assert!(text.stdout_text().contains(said), "{said}");
    }
    // With an output, too.
    report(&world, &["--verify", "--output", "report.md"]).expect(STORAGE, &["the report was made"]);
    assert!(world.text("report.md").contains("MISSING on this machine"));
    let config = fs::read_to_string(world.config()).expect("the configuration");
    let line = config.lines().find(|line| line.starts_with("high_water")).expect("a line");
    fs::write(world.config(), config.replace(line, "")).expect("written");
    assert_eq!(there(&json(&world, &["--verify"])), "not-set", "which is said, and fails nothing");
}

#[test]
fn an_older_store_is_found_by_the_marks() {
    let world = World::new();
    world.protect(&[]);
    let store = world.keys().join("keys.db");
    let old = fs::read(&store).expect("the store");
    let key =
        json(&world, &[])["keys"]["keys"].as_array().expect("keys").iter().find(|key| key["class"] == "data").cloned();
    let key = key.expect("a key")["key_id"].as_str().expect("an ID").to_owned();
    world.succeeds(&["keys", "state", &key, "compromised"]);
    fs::write(&store, old).expect("put back");
    let made = report(&world, &["--verify", "--format", "json"]).stdout;
    assert_eq!(serde_json::from_slice::<Json>(&made).expect("JSON")["keys"]["refused"], 1);
    let text = report(&world, &["--verify"]).expect(KEY, &["1 key record is not vouched for", "the report was made"]);
    assert!(text.stdout_text().contains("1 RECORD IS NOT VOUCHED FOR"));
    // Nor does the time that it says of itself.
    let earlier = report(&world, &["--verify", "--at", "2026-01-01"]);
    assert!(earlier.expect(KEY, &["1 key record is not vouched for"]).stdout_text().contains("1 RECORD IS NOT"));
    // That nobody answers for the others hides it as little as it hides them.
    run(keyfold().args(["keys", "new-kek"]).arg(world.keys().join("spare.kek")), b"").expect(0, &[]);
    let config = fs::read_to_string(world.config()).expect("the configuration");
    fs::write(world.config(), config + "\n[keks.spare]\nuri = \"local:spare.kek\"\n").expect("written");
    fs::remove_file(world.keys().join("local.kek")).expect("removed");
    let text = report(&world, &["--verify"]).expect(KEY, &["were not verified", "1 key record is not vouched for"]);
    for said in
        ["1 RECORD IS NOT VOUCHED FOR: treat it as tampering; RECORDS NOT VERIFIED: ", "NOT ALL VERIFIED: 1 refused; "]
    {
        assert!(text.stdout_text().contains(said), "{said}: {}", text.stdout_text());
    }
}

#[test]
fn a_trail_that_is_missing_is_not_begun_anew() {
    let audited = Audited::new();
    let world = &audited.0;
    world.protect(&[]);
    let anchors = world.keys().join("anchors.jsonl");
    let aside = world.path("aside");
    fs::rename(&anchors, &aside).expect("renamed");
    let made = failed(world, &["anchors.jsonl", "key records were not verified", "the report was made"]);
    let why = "opening the keyring would make anew the file of anchors, which is missing";
    assert_eq!((&made["keys"]["not_verified"], &made["keys"]["verified"]), (&why.into(), &false.into()));
    assert_eq!((&made["audit"]["clean"], anchors.exists()), (&false.into(), false));
    // Both are gone, and so is what they could say.
    fs::remove_file(audited.file()).expect("removed");
    for _ in 0..2 {
        let made = failed(world, &["audit.jsonl", "key records were not verified"]);
        assert_eq!(made["audit"]["events"], 0);
        assert!(!audited.file().exists() && !anchors.exists());
    }
    let text = report(world, &["--verify"]).expect(STORAGE, &[]);
    let text = text.stdout_text();
    assert!(text.contains("RECORDS NOT VERIFIED: opening the keyring would make anew the audit file"), "{text}");
    assert!(text.contains("| First event | none |") && text.contains("; the oldest key was made on 20"), "{text}");
    let late = warning(&json(world, &["--at", AT]), "trail-begins-late").expect("a warning");
    assert!(late.starts_with("the trail has no event, the keyring on 20"), "{late}");
    assert_eq!(warning(&json(world, &[]), "trail-begins-late"), None, "a keyring that was made just now");
    // Another command begins it; both times are in the report from then on.
    world.succeeds(&["keys", "list"]);
    let made = json(world, &["--verify"]);
    let (first, oldest) = (&made["audit"]["first"], &made["keys"]["oldest"]);
    assert!(first.is_string() && oldest.is_string());
    let text = report(world, &[]).expect(0, &[]);
    for time in [first, oldest] {
        assert!(text.stdout_text().contains(&format!("| {} |", time.as_str().expect("a time"))), "{time}");
    }
    assert!(text.stdout_text().contains("; it begins on 20"));
    // What was put aside is not what is written.
    fs::rename(audited.file(), audited.file().with_extension("jsonl.000001")).expect("renamed");
    let why = "opening the keyring would make anew the audit file, which is missing, though files that were put aside are there";
    for _ in 0..2 {
        let made =
            failed(world, &["audit.jsonl", "a process ended before it began the next file", "were not verified"]);
        assert_eq!((&made["keys"]["not_verified"], &made["keys"]["verified"]), (&why.into(), &false.into()));
        assert!(!audited.file().exists(), "the next report would find nothing wrong");
    }
    world.succeeds(&["keys", "list"]);
    assert_eq!(json(world, &["--verify"])["keys"]["verified"], true);
}

/// As long as a key service is away nobody knows of a record, which must not look as if nobody had asked.
#[test]
fn without_an_answer_records_are_not_verified() {
    let world = World::new();
    world.protect(&[]);
    world.second_root();
    assert_eq!(json(&world, &["--verify"])["keys"]["verified"], true);
    fs::rename(world.keys().join("local.kek"), world.path("aside")).expect("renamed");
    let run = report(&world, &["--verify", "--format", "json"]);
    let made: Json = serde_json::from_slice(&run.stdout).expect("JSON");
    let keys = made["keys"]["keys"].as_array().expect("keys");
    let unanswered = keys.iter().filter(|key| key["verified"].is_null()).count();
    let verified = keys.iter().filter(|key| key["verified"] == true).count();
    assert!(unanswered > 0 && verified > 0 && unanswered + verified == keys.len(), "{keys:#?}");
    let records = format!("{unanswered} of {} key records", keys.len());
    let run = run.expect(
        KMS,
        &["KEK local", &format!("{records} were not verified"), "the report was made", "[405 Unavailable]"],
    );
    assert!(!run.stderr.contains("RECORD"), "{}", run.stderr);
    let why = format!("{records}: the key service did not answer, or refused (405 Unavailable)");
    assert_eq!((&made["keys"]["not_verified"], &made["keys"]["verified"]), (&why.clone().into(), &false.into()));
    let text = report(&world, &["--verify"]).expect(KMS, &[]);
    let text = text.stdout_text();
    assert!(text.contains(&format!("RECORDS NOT VERIFIED: {why}")) && !text.contains("(--verify)"), "{text}");
    assert!(!text.contains("local.kek") && !text.contains("VOUCHED"), "{text}");
    // Nobody has asked.
    assert!(report(&world, &[]).expect(0, &[]).stdout_text().contains("not verified (--verify)"));
    fs::rename(world.path("aside"), world.keys().join("local.kek")).expect("renamed");
    assert_eq!(json(&world, &["--verify"])["keys"]["verified"], true);
}

/// Nor does what the configuration lacks: that is no tampering.
#[test]
fn without_their_keks_in_the_configuration_records_are_not_verified() {
    let world = World::new();
    world.protect(&[]);
    let config = fs::read_to_string(world.config()).expect("the configuration");
    assert_eq!(config.matches("[keks.local]").count(), 1);
    fs::write(world.config(), config.replace("[keks.local]", "[keks.other]")).expect("written");
    let run = report(&world, &["--verify", "--format", "json"])
        .expect(POLICY, &["none of the KEKs that wrap the key is configured here: local", "the report was made"]);
    let made: Json = serde_json::from_slice(&run.stdout).expect("JSON");
    let why = made["keys"]["not_verified"].as_str().expect("a text");
    assert!(why.ends_with("the configuration lacks their KEKs (111 Configuration)"), "{why}");
    assert_eq!((&made["keys"]["verified"], &made["keys"]["refused"]), (&false.into(), &0.into()));
    let text = report(&world, &["--verify"]).expect(POLICY, &[]);
    assert!(!text.stdout_text().contains("VOUCHED"), "{}", text.stdout_text());
    let listed = world.run(&["keys", "list"]).expect(POLICY, &["none of the KEKs"]);
    assert!(!listed.stdout_text().contains("NOT TRUSTED"), "{}", listed.stdout_text());
    let found = world.run(&["doctor"]);
    assert!(!found.stdout_text().contains("tampering"), "{}", found.stdout_text());
}

/// A KEK file of another machine under the right alias unwraps nothing. One that unwraps something is the right one.
#[test]
fn a_wrong_kek_file_is_told_from_records_that_were_changed() {
    let world = World::new();
    world.protect(&[]);
    world.succeeds(&["keys", "list"]);
    let kek = world.keys().join("local.kek");
    let right = fs::read(&kek).expect("the KEK");
    fs::write(&kek, fs::read(World::new().keys().join("local.kek")).expect("another KEK")).expect("written");
    const WHY: &str =
        "nothing opens that their KEK wraps, so it is another KEK, or each record was changed (410 WrongKey)";
    let run = report(&world, &["--verify", "--format", "json"]).expect(
        KEY,
        &["[410 WrongKey]", "KEK local", "were not verified", "put back the KEK file", "the report was made"],
    );
    assert!(!run.stderr.contains("vouched"), "{}", run.stderr);
    let made: Json = serde_json::from_slice(&run.stdout).expect("JSON");
    assert_eq!((&made["keys"]["verified"], &made["keys"]["refused"]), (&false.into(), &0.into()));
    assert!(made["keys"]["not_verified"].as_str().is_some_and(|why| why.ends_with(WHY)), "{}", made["keys"]);
    let text = report(&world, &["--verify"]).expect(KEY, &[]);
    assert!(!text.stdout_text().contains("VOUCHED") && text.stdout_text().contains(WHY), "{}", text.stdout_text());
    let found = world.run(&["doctor", "--config", argument(&world.config())]).expect(1, &[]);
    let found = found.stdout_text();
    assert!(
        found.contains("so it is another KEK, or each was changed") && found.contains("put back the KEK file"),
        "{found}"
    );
    assert!(!found.contains("unless a pin is missing"), "{found}");
    let verified =
        world.run(&["keys", "verify"]).expect(KEY, &["KEK local", "no root opens, so the KEK is not the one"]);
    assert!(!verified.stderr.contains("pins"), "{}", verified.stderr);
    // The same KEK wraps a second root, and somebody changes the first one.
    fs::write(&kek, right).expect("written");
    let rotated = world.succeeds(&["keys", "rotate", "--root", "--json"]).json_lines();
    let pin = rotated[0]["root_pin"].as_str().expect("a pin");
    let config = fs::read_to_string(world.config()).expect("the configuration");
    let pinned = config.replace("root_pins = [", &format!("root_pins = [\"{pin}\", "));
    fs::write(world.config(), pinned).expect("written");
    assert_eq!(json(&world, &["--verify"])["keys"]["verified"], true);
    let store = world.keys().join("keys.db");
    let good = fs::read(&store).expect("the store");
    let id = keyfold_kms::LocalKek::open(&kek).expect("the KEK").id().to_owned();
    let places = (0..good.len()).filter(|&at| good[at..].starts_with(id.as_bytes()));
    // Not each place is that of a record that counts.
    let told = places.map(|at| {
        let mut changed = good.clone();
        changed[at] ^= 1;
        fs::write(&store, changed).expect("written");
        report(&world, &["--verify"])
    });
    let told = told.filter(|run| run.code == Some(KEY) && run.stdout_text().contains("VOUCHED")).collect::<Vec<_>>();
    assert!(!told.is_empty() && told.iter().all(|run| !run.stdout_text().contains("another KEK")), "{}", told.len());
}

/// A census counts all the same; of the states of what it counted it says that nobody could look, or that no root vouches for them.
#[test]
fn a_census_ends_with_what_keeps_the_keys_that_it_counted_from_being_trusted() {
    let world = World::new();
    world.protect(&[]);
    world.second_root();
    let (config, kek) = (world.config(), world.keys().join("local.kek"));
    let census = |file| world.run(&["census", file, "--config", argument(&config)]);
    fs::rename(&kek, world.path("aside")).expect("renamed");
    let run = census("sealed.csv")
        .expect(KMS, &["[405 Unavailable]", "the states of keys cannot be told until that is changed"]);
    let said = run.stdout_text();
    assert!(said.contains("not verified") && !said.contains("trusted"), "{said}");
    fs::copy(World::new().keys().join("local.kek"), &kek).expect("another KEK");
    let run = census("sealed.csv").expect(KEY, &["keyfold: key 0", "[410 WrongKey]", "values were counted under it"]);
    let said = run.stdout_text();
    assert!(said.contains("not trusted") && !said.contains("verified"), "{said}");
    // Nothing is under these keys.
    census("in.csv").expect(0, &[]);
}

#[test]
fn a_high_water_file_that_cannot_be_looked_at_is_not_called_missing() {
    let world = World::new();
    let locked = world.keys().join("locked");
    fs::create_dir(&locked).expect("a folder");
    fs::rename(world.keys().join("keys.high-water"), locked.join("keys.high-water")).expect("renamed");
    let config = fs::read_to_string(world.config()).expect("the configuration");
    fs::write(world.config(), config.replace("\"keys.high-water", "\"locked/keys.high-water")).expect("written");
    assert_eq!(json(&world, &["--verify"])["high_water"], "there");
    let mode = |mode| fs::set_permissions(&locked, fs::Permissions::from_mode(mode)).expect("permissions");
    mode(0);
    let config = world.config();
    let runs = ["--verify", "--format=json"]
        .map(|option| unprivileged(&world, &["report", option, "--config", argument(&config)]));
    mode(0o700);
    for run in runs.into_iter().flatten() {
        let run = run.expect(STORAGE, &["locked/keys.high-water", "Permission denied"]);
        assert!(!run.stderr.contains("is missing: ") && run.stdout.is_empty(), "{}", run.stderr);
    }
}

#[test]
fn without_the_audit_kek_there_is_a_report_that_says_so() {
    let audited = Audited::new();
    let world = &audited.0;
    world.protect(&[]);
    fs::remove_file(world.keys().join("audit.kek")).expect("removed");
    let made = failed(world, &["audit.kek", "key records were not verified", "the report was made"]);
    assert_eq!((&made["audit"]["authenticated"], &made["audit"]["clean"]), (&false.into(), &true.into()));
    assert!(warning(&made, "unverifiable").is_some());
    assert_eq!(made["keys"]["not_verified"], "the keyring does not open (601 Io); the command says why");
    assert!(!made.to_string().contains("audit.kek"), "a report names no URI");
}

#[test]
fn one_is_singular() {
    let audited = Audited::new();
    let world = &audited.0;
    world.protect(&[]);
    let good = fs::read_to_string(audited.file()).expect("the trail");
    let last = good.trim_end().rfind('\n').expect("lines") + 1;
    fs::write(audited.file(), &good[..last]).expect("written");
    let text = |run: Run| String::from_utf8(run.stdout).expect("a text");
    let text = text(report(world, &["--verify"]).expect(DATA, &[]));
    assert!(text.contains(" in 1 file; NOT WHAT WAS WRITTEN: 1 finding"), "{text}");
    for plural in [" 1 findings", " 1 files", " 1 events", " 1 records", " 1 wraps", " 1 unwraps", " 1 keys", " 1 days"]
    {
        assert!(!text.contains(plural), "{plural}");
    }
}

/// Whoever writes the folder of the trail puts another file into its place as soon as it has been opened for verification.
#[test]
fn what_is_reported_is_what_was_verified_whatever_lies_there_by_then() {
    let audited = Audited::new();
    audited.0.protect(&[]);
    let genuine = fs::read_to_string(audited.file()).expect("the trail");
    let forged = genuine.replace("\"actor\":\"keyfold\"", "\"actor\":\"dr-house\"");
    assert_ne!(forged, genuine);
    let other = audited.file().with_extension("other");
    fs::write(&other, forged).expect("written");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).expect("set");
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).expect("a watch");
    inotify::add_watch(&watch, audited.file(), inotify::WatchFlags::OPEN).expect("watched");
    let made = std::thread::scope(|scope| {
        scope.spawn(|| {
            rustix::io::read(&watch, &mut [0; 4096]).expect("it was opened");
            fs::rename(&other, audited.file()).expect("renamed");
        });
        report(&audited.0, &["--verify"]).expect(0, &[])
    });
    let text = made.stdout_text();
    assert!(!other.exists() && text.contains("verified under the audit KEK, nothing is wrong"), "{text}");
    assert!(text.contains("keyfold |") && !text.contains("dr-house"), "{text}");
}
