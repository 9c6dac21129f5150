//! A change of KEK by command: planned, done, stopped half way, refused; repairs and drills.

use crate::common::{self, KEY, KMS, POLICY, World, keyfold, run};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Adds a section to the configuration.
fn configure(world: &World, section: &str) {
    let text = fs::read_to_string(world.config()).expect("a configuration") + "\n" + section;
    fs::write(world.config(), text).expect("written");
}

/// A keyring with a second KEK that wraps nothing yet.
fn with_second() -> World {
    let world = World::new();
    run(keyfold().args(["keys", "new-kek"]).arg(world.keys().join("second.kek")), b"").expect(0, &[]);
    configure(&world, "[keks.second]\nuri = \"local:second.kek\"\n");
    world
}

/// Says that the first KEK is to go.
fn retire_local(world: &World) {
    let config = fs::read_to_string(world.config()).expect("a configuration");
    let uri = "uri = \"local:local.kek\"\n";
    fs::write(world.config(), config.replace(uri, &format!("{uri}retired = true\n"))).expect("written");
}

fn json_of(world: &World, arguments: &[&str]) -> Value {
    let run = world.succeeds(&[arguments, &["--json"]].concat());
    run.json_lines().remove(0)
}

fn root(world: &World) -> Value {
    let lines = world.succeeds(&["keys", "list", "--json"]).json_lines();
    lines.into_iter().find(|line| line["class"] == "root").expect("a root")
}

#[test]
fn a_kek_takes_the_place_of_another() {
    let world = with_second();
    world.protect(&[]);
    assert_eq!(root(&world)["missing_keks"], json!(["second"]));
    let list = world.succeeds(&["keys", "list"]);
    assert!(list.stdout_text().contains("KEKs local; lacks KEK second: run keys repair"), "{}", list.stdout_text());
    // Dropped and still configured, the next repair would bring it back.
    world.refuses(&["keys", "rewrap", "--drop-kek", "local"], POLICY, &["retired = true"]);
    world.refuses(&["keys", "rewrap", "--drop-kek", "typo"], POLICY, &["typo", "neither is configured nor wraps"]);
    retire_local(&world);
    let plan = json_of(&world, &["keys", "rewrap", "--drop-kek", "local", "--dry-run"]);
    assert_eq!(plan["requests"]["second"], json!({ "unwraps": 0, "wraps": 1, "verifies": 1 }));
    assert_eq!(plan["requests"]["local"], json!({ "unwraps": 1, "wraps": 0, "verifies": 0 }));
    assert_eq!((&plan["records"], &plan["requests_total"], &plan["dry_run"]), (&json!(1), &json!(3), &json!(true)));
    assert_eq!(root(&world)["keks"], json!(["local"]), "a dry run changes nothing");
    let result = json_of(&world, &["keys", "rewrap", "--drop-kek", "local"]);
    let expected = [("changed", 1), ("added", 1), ("dropped", 1), ("renewed", 0), ("kept", 0), ("unopened", 0)];
    assert!(expected.iter().all(|(name, count)| result[name] == json!(count)), "{result}");
    assert_eq!((&result["done"], &result["failed"]), (&json!(true), &json!([])));
    assert_eq!(root(&world)["keks"], json!(["second"]));
    assert_eq!(root(&world)["missing_keks"], json!([]));
    let repaired = world.succeeds(&["keys", "repair"]);
    assert!(repaired.stdout_text().contains("were not tried: keys drill"), "{}", repaired.stdout_text());
    assert_eq!(root(&world)["keks"], json!(["second"]));
    // Its file and its section can go.
    fs::remove_file(world.keys().join("local.kek")).expect("removed");
    let config = fs::read_to_string(world.config()).expect("a configuration");
    fs::write(world.config(), config.replace("[keks.local]\nuri = \"local:local.kek\"\nretired = true\n", ""))
        .expect("written");
    world.succeeds(&["reveal", "sealed.csv", "--output", "out.csv"]);
    assert_eq!(world.text("out.csv"), common::PATIENTS);
    let again = world.succeeds(&["keys", "rewrap", "--renew", "second"]);
    assert!(again.stdout_text().contains("0 records changed"), "the same version: {}", again.stdout_text());
    assert_eq!(json_of(&world, &["keys", "repair"])["changed"], 0);
}

/// As docs/RECOVERY.md says of moving a keyring.
#[test]
fn a_copy_from_before_the_move_opens_until_root_and_data_key_are_new() {
    let world = with_second();
    world.protect(&[]);
    let copy = tempfile::tempdir().expect("a folder");
    for entry in fs::read_dir(world.keys()).expect("read") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("copied");
    }
    retire_local(&world);
    world.succeeds(&["keys", "rewrap", "--drop-kek", "local"]);
    fs::remove_file(copy.path().join("second.kek")).expect("removed");
    let config = copy.path().join("keyfold.toml");
    let sealed_now_opens_in_the_copy = |name: &str| {
        let (sealed, out) = (format!("{name}.csv"), format!("{name}-opened.csv"));
        world.succeeds(&["protect", "in.csv", "--output", &sealed]);
        world.run(&["reveal", &sealed, "--output", &out, "--config", common::argument(&config)]).code
    };
    assert_eq!(sealed_now_opens_in_the_copy("moved"), Some(0));
    world.succeeds(&["keys", "rotate", "--root"]);
    world.succeeds(&["keys", "reparent"]);
    assert_eq!(sealed_now_opens_in_the_copy("new-root"), Some(0), "the data key is the same");
    world.succeeds(&["keys", "rotate"]);
    assert_eq!(sealed_now_opens_in_the_copy("new-key"), Some(KEY));
}

#[test]
fn a_kek_that_left_the_configuration_but_not_the_root_is_named_with_the_way_out() {
    let world = with_second();
    world.succeeds(&["keys", "repair"]);
    let config = fs::read_to_string(world.config()).expect("a configuration");
    fs::write(world.config(), config.replace("[keks.local]\nuri = \"local:local.kek\"\n", "")).expect("written");
    let rotate = ["keys", "rotate", "--root"];
    world.refuses(&rotate, POLICY, &["configure it again", "keys rewrap --drop-kek", "local"]);
    world.succeeds(&["keys", "rewrap", "--drop-kek", "local"]);
    world.succeeds(&rotate);
}

#[test]
fn a_kek_that_is_set_up_wrongly_is_not_called_away() {
    let world = World::new();
    configure(&world, "[keks.second]\nuri = \"ftp://127.0.0.1/key\"\n");
    let run = world.run(&["keys", "rewrap"]).expect(POLICY, &["which is set up wrongly", "ftp"]);
    assert!(!run.stderr.contains("was away"), "{}", run.stderr);
}

#[test]
fn a_kek_that_is_away_is_reported_and_repaired_later() {
    let world = with_second();
    world.protect(&[]);
    fs::rename(world.keys().join("second.kek"), world.keys().join("away")).expect("renamed");
    let run = world.run(&["keys", "repair", "--json"]).expect(KMS, &["a KEK cannot be opened"]);
    assert_eq!(run.json_lines()[0]["failed"][0]["kek"], "second");
    world.run(&["keys", "repair"]).expect(KMS, &[]);
    world.succeeds(&["reveal", "sealed.csv", "--output", "out.csv"]);
    fs::rename(world.keys().join("away"), world.keys().join("second.kek")).expect("renamed");
    assert_eq!(json_of(&world, &["keys", "repair"])["added"], 1);
    // Now the first one may be away instead, though not its file be wrong.
    let local = world.keys().join("local.kek");
    let content = fs::read(&local).expect("a file");
    fs::remove_file(&local).expect("removed");
    world.succeeds(&["reveal", "sealed.csv", "--output", "out.csv", "--force"]);
    assert_eq!(world.text("out.csv"), common::PATIENTS);
    fs::write(&local, content).expect("written");
    fs::set_permissions(&local, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("changed");
    // One that is there and wrong is away as well, and the log says what is to be set right.
    let reveal = ["reveal", "sealed.csv", "--output", "out.csv", "--force"];
    let says = |what: &str| world.run(&reveal).expect(0, &["ERROR", "KEK local", what]);
    says("chmod 600");
    fs::remove_file(&local).expect("removed");
    fs::write(&local, "keyfold-local-kek-1\nnot what it was\n").expect("written");
    fs::set_permissions(&local, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("changed");
    says("is damaged");
    fs::remove_file(&local).expect("removed");
    fs::create_dir(&local).expect("a folder");
    says("regular file");
    let drilled = world.run(&["keys", "drill"]).expect(KMS, &[]);
    let line = drilled.stdout_text().lines().find(|line| line.contains("KEK local: FAILED")).expect("a line");
    assert!(line.matches("KEK local").count() == 2, "whose it is, and which one failed: {line}");
    // Without another one it is the end.
    fs::remove_file(world.keys().join("second.kek")).expect("removed");
    world.refuses(&["reveal", "sealed.csv", "--output", "other.csv"], POLICY, &["KEK local", "regular file"]);
    fs::remove_dir(&local).expect("removed");
    // A copy under another alias is no second KEK.
    common::run(keyfold().args(["keys", "new-kek"]).arg(&local), b"").expect(0, &[]);
    fs::copy(&local, world.keys().join("second.kek")).expect("copied");
    world.refuses(&["keys", "repair"], POLICY, &["the same key", "local, second"]);
}

#[test]
fn drills_measure_and_find_what_does_not_open() {
    let world = with_second();
    world.protect(&[]);
    let lines = world.run(&["keys", "drill", "--json"]).expect(3, &[]).json_lines();
    assert_eq!((&lines[0]["keks"], &lines[0]["ok"]), (&json!(["local"]), &json!(true)));
    assert_eq!((&lines[1]["keks"], &lines[1]["ok"]), (&json!(["second"]), &json!(false)));
    let error = lines[1]["error"].as_str().expect("a text");
    assert!(error.contains("wraps nothing yet: run keys repair") && !error.contains("local"), "{error}");
    assert!(lines[0]["first_value_ms"].as_f64().expect("a number") > 0.0);
    world.succeeds(&["keys", "repair"]);
    let text = world.succeeds(&["keys", "drill"]);
    assert!(text.stdout_text().contains("KEK second: ok; 1 roots and 0 isolated keys opened, first value after "));
    assert_eq!(json_of(&world, &["keys", "drill", "--without", "local"])["keks"], json!(["second"]));
    let text = world.succeeds(&["keys", "drill", "--without", "local"]);
    assert!(text.stdout_text().contains("without KEK local, by one of second: ok; "), "{}", text.stdout_text());
    fs::remove_file(world.keys().join("second.kek")).expect("removed");
    let run = world.run(&["keys", "drill"]).expect(KMS, &[]);
    assert!(run.stdout_text().contains("KEK second: FAILED"), "{}", run.stdout_text());
    assert!(run.stdout_text().contains("KEK local: ok"), "{}", run.stdout_text());
    world.run(&["keys", "drill", "--only", "nobody"]).expect(POLICY, &["no KEK of this name"]);
    world.run(&["keys", "drill", "--only", "local", "--without", "local"]).expect(common::USAGE, &[]);
}

#[test]
fn after_a_compromise_it_is_refused_with_what_helps() {
    let world = with_second();
    world.succeeds(&["keys", "repair"]);
    let config = fs::read_to_string(world.config()).expect("a configuration");
    let marked = config.replace("uri = \"local:local.kek\"\n", "uri = \"local:local.kek\"\ncompromised = true\n");
    fs::write(world.config(), marked).expect("written");
    for arguments in [["--drop-kek", "local"], ["--renew", "second"]] {
        let says = ["keys rotate --root --drop-kek", "KEK local"];
        world.refuses(&[&["keys", "rewrap"], &arguments[..]].concat(), POLICY, &says);
    }
    // The new root is made without it.
    let rotated = json_of(&world, &["keys", "rotate", "--root"]);
    let lines = world.succeeds(&["keys", "list", "--json"]).json_lines();
    let new = lines.iter().find(|line| line["key_id"] == rotated["new"]).expect("the new root");
    assert_eq!(new["keks"], json!(["second"]));
}

/// Interrupts a command that looks at one key a second, and returns what it printed to standard output.
fn interrupted(world: &World, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--records-per-second", "1", "--json"]].concat();
    let mut command = world.command(&arguments);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    std::thread::sleep(Duration::from_millis(1500));
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process")).expect("a process");
    let asked = Instant::now();
    kill_process(pid, Signal::INT).expect("interrupted");
    let output = child.wait_with_output().expect("it ends");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("interrupted by SIGINT"), "{stderr}");
    serde_json::from_slice(&output.stdout).expect("what was done, as JSON")
}

#[test]
fn half_way_through_ctrl_c_prints_what_was_done() {
    let world = with_second();
    world.protect(&[]);
    let result = interrupted(&world, &["keys", "rewrap"]);
    assert_eq!((&result["done"], &result["changed"]), (&json!(false), &json!(1)), "{result}");
    let result = json_of(&world, &["keys", "rewrap"]);
    assert_eq!((&result["done"], &result["changed"]), (&json!(true), &json!(0)));
    world.succeeds(&["keys", "rotate", "--root"]);
    let result = interrupted(&world, &["keys", "reparent"]);
    assert_eq!(result["done"], false, "{result}");
    assert!(result["seen"].as_u64().expect("a number") >= 1, "{result}");
    assert_eq!(json_of(&world, &["keys", "reparent"])["done"], true);
    world.succeeds(&["reveal", "sealed.csv", "--output", "out.csv"]);
}
