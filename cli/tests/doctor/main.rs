//! `keyfold doctor`, by the command alone.

#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "vault")]
mod fake;
mod gates;
mod servers;
#[path = "../common/streams.rs"]
mod shared_streams;

use common::World;
#[cfg(feature = "vault")]
use fake::{Behaviour, Transit};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// What the command found, and how it ended.
pub(crate) struct Found {
    pub(crate) code: Option<i32>,
    json: Value,
    /// All that it wrote.
    pub(crate) output: String,
}

impl Found {
    /// Severity, sentence and advice of the findings called `name` about `subject`.
    pub(crate) fn about(&self, subject: &str, name: &str) -> Vec<[String; 3]> {
        let reports = self.json["reports"].as_array().expect("reports");
        let of_subject = reports.iter().filter(|report| report["subject"] == subject);
        of_subject
            .flat_map(|report| report["findings"].as_array().expect("findings"))
            .filter(|finding| finding["name"] == name)
            .map(|finding| {
                ["severity", "sentence", "advice"].map(|member| finding[member].as_str().expect(member).to_owned())
            })
            .collect()
    }

    /// One of these findings has the severity and all of `texts`.
    #[track_caller]
    pub(crate) fn says(&self, subject: &str, name: &str, severity: &str, texts: &[&str]) -> &Self {
        let found = self.about(subject, name);
        let fits = |[s, sentence, advice]: &[String; 3]| {
            s == severity && texts.iter().all(|text| sentence.contains(text) || advice.contains(text))
        };
        assert!(
            found.iter().any(fits),
            "{subject} {name} {severity} {texts:?} is missing from {found:#?}\n{:#}",
            self.json
        );
        self
    }

    #[track_caller]
    pub(crate) fn ends(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{:#}\n{}", self.json, self.output);
        self
    }
}

/// Runs `keyfold doctor --json` on the keyring of `world`.
#[track_caller]
pub(crate) fn doctor(world: &World, more: &[&str]) -> Found {
    let config = world.config();
    let arguments = [&["doctor", "--json", "--config", config.to_str().expect("text")], more].concat();
    found(world.run(&arguments))
}

fn found(run: common::Run) -> Found {
    let output = format!("{}{}", String::from_utf8_lossy(&run.stdout), run.stderr);
    let json = serde_json::from_slice(&run.stdout).unwrap_or_else(|error| panic!("{error}: {output}"));
    Found { code: run.code, json, output }
}

/// Adds `text` to the configuration.
pub(crate) fn configure(world: &World, text: &str) {
    let config = fs::read_to_string(world.config()).expect("the configuration");
    fs::write(world.config(), format!("{config}\n{text}\n")).expect("written");
}

/// Adds a KEK for scopes alone.
pub(crate) fn configure_kek(world: &World, alias: &str, uri: &str) {
    configure(world, &format!("[keks.{alias}]\nuri = \"{uri}\"\nwraps = \"scopes\""));
}

/// A local KEK beside the configuration.
pub(crate) fn new_kek(world: &World, file: &str) {
    common::run(common::keyfold().args(["keys", "new-kek"]).arg(world.keys().join(file)), b"").expect(0, &[]);
}

/// A file beside the configuration that its owner alone may read.
pub(crate) fn secret_file(world: &World, name: &str, text: &str) {
    let path = world.keys().join(name);
    fs::write(&path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("permissions");
}

#[test]
fn a_healthy_keyring_is_well_and_left_as_it_was() {
    let world = World::new();
    let before = common::snapshot(&world.keys());
    let found = doctor(&world, &["--strict"]);
    found.ends(0);
    assert_eq!((&found.json["ok"], &found.json["worst"]), (&Value::Bool(true), &Value::from("note")));
    found
        .says("KEK local", "wrap", "note", &["wraps: first", "median"])
        .says("KEK local", "unwrap", "note", &["unwraps: first"])
        .says("KEK local", "context", "note", &["keyfold binds it"])
        .says("KEK local", "roots", "note", &["opens 1 of 1 roots"])
        .says("KEK local", "clock", "note", &["does not tell the time"])
        .says("store", "root", "note", &["0 days old"])
        .says("keyring", "keys", "note", &["verified under a trusted root"])
        .says("files", "key-file", "note", &["mode 0600"]);
    // Every member that scripts rely on.
    let report = &found.json["reports"].as_array().expect("reports")[1];
    for member in
        ["subject", "kek", "severity", "findings", "wrap_ms", "unwrap_ms", "requests", "request_ids", "clock_ahead_s"]
    {
        assert!(report.get(member).is_some(), "{member} is missing from {report:#}");
    }
    let keys = |files: std::collections::BTreeMap<std::path::PathBuf, Vec<u8>>| {
        files
            .into_iter()
            .filter(|(path, _)| path.extension().is_none_or(|e| e != "db-wal" && e != "db-shm"))
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(common::snapshot(&world.keys())), keys(before));
    // For people.
    let config = world.config();
    let run = world.run(&["doctor", "--config", config.to_str().expect("text")]).expect(0, &[]);
    let text = String::from_utf8(run.stdout).expect("text");
    assert!(text.contains("KEK local: well\n") && text.ends_with("0 problems, 0 warnings\n"), "{text}");
}

#[test]
fn a_kek_file_that_others_may_read_or_that_is_missing_hides_nothing_else() {
    let world = World::new();
    let kek = world.keys().join("local.kek");
    fs::set_permissions(&kek, fs::Permissions::from_mode(0o644)).expect("permissions");
    doctor(&world, &[])
        .ends(1)
        .says("KEK local", "kek-opens", "problem", &["0644", "chmod 600"])
        .says("keyring", "keyring", "problem", &["does not open"])
        .says("store", "store", "note", &["opens and answers"]);
    fs::remove_file(&kek).expect("removed");
    doctor(&world, &[]).ends(1).says("KEK local", "kek-opens", "problem", &["local.kek", "restore the offline copy"]);
    // Without a configuration there is nothing to look at.
    world.run(&["doctor", "--config", "nowhere.toml"]).expect(common::STORAGE, &["nowhere.toml"]);
}

#[test]
fn the_wrong_store_and_missing_files_are_told() {
    let world = World::new();
    let config = fs::read_to_string(world.config()).expect("the configuration");
    let other = World::new();
    fs::copy(other.keys().join("keys.db"), world.keys().join("other.db")).expect("copied");
    let changed = config.replace("sqlite:keys.db", "sqlite:other.db").replace("keys.high-water", "gone.high-water");
    assert_ne!(changed, config);
    fs::write(world.config(), changed).expect("written");
    doctor(&world, &[])
        .ends(1)
        .says("store", "root-pins", "problem", &["no root in the store has the pin"])
        .says("store", "high-water", "problem", &["gone.high-water", "older copy"])
        .says("KEK local", "wrap", "note", &["first"]);
    let config = world.config();
    let unknown = ["doctor", "--kek", "nobody", "--config", config.to_str().expect("text")];
    world.run(&unknown).expect(common::POLICY, &["nobody"]);
}

#[test]
fn keks_for_recovery_are_left_alone_unless_asked_for() {
    let world = World::new();
    for (file, alias, more) in [
        ("a.kek", "safe", "use = \"recovery\""),
        ("b.kek", "glass", "use = \"break-glass\""),
        ("c.kek", "old", "retired = true"),
    ] {
        new_kek(&world, file);
        configure(&world, &format!("[keks.{alias}]\nuri = \"local:{file}\"\n{more}"));
    }
    let found = doctor(&world, &[]);
    found
        .ends(0)
        .says("KEK safe", "not-asked", "note", &["--kek safe"])
        .says("KEK glass", "not-asked", "note", &["--recovery=REASON"])
        .says("KEK old", "wrap", "note", &["not asked to wrap"]);
    assert!(found.about("KEK safe", "wrap").is_empty());
    let named = doctor(&world, &["--kek", "safe", "--kek", "glass"]);
    named.says("KEK safe", "roots", "warning", &["keys repair"]).says("KEK glass", "not-asked", "note", &[]);
    assert!(named.about("KEK local", "wrap").is_empty(), "it was not named");
    doctor(&world, &["--recovery=ticket 4711"]).says("KEK glass", "wrap", "note", &["first"]);
    // Nothing needs it.
    fs::remove_file(world.keys().join("c.kek")).expect("removed");
    doctor(&world, &[]).ends(0).says("KEK old", "kek-opens", "warning", &["wraps no root", "take its section out"]);
    // One that wraps the root.
    fs::remove_file(world.keys().join("local.kek")).expect("removed");
    doctor(&world, &[]).ends(1).says("KEK local", "kek-opens", "problem", &["put its file where"]);
}

#[test]
fn probes_are_in_the_audit_trail_and_its_chain_is_ended() {
    let world = World::new();
    new_kek(&world, "audit.kek");
    configure(
        &world,
        "[keks.audit]\nuri = \"local:audit.kek\"\nwraps = \"audit\"\n[audit]\nfile = \"audit.jsonl\"\nkek = \"audit\"",
    );
    // Begins the trail, which doctor does not.
    world.succeeds(&["keys", "list"]);
    doctor(&world, &[]).ends(0).says("KEK audit", "wrap", "note", &["first"]);
    let trail = fs::read_to_string(world.keys().join("audit.jsonl")).expect("a trail");
    let probed: Vec<Value> = trail
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .filter(|line: &Value| line["action"] == "probe")
        .collect();
    let keks: Vec<_> = probed.iter().map(|line| line["kek"].as_str().expect("a KEK")).collect();
    assert_eq!(keks, ["local", "audit"], "{trail}");
    let config = world.config();
    world.run(&["audit", "verify", "--config", config.to_str().expect("text")]).expect(0, &[]);
}

// Failure A21
#[cfg(feature = "vault")]
#[test]
fn clocks_that_differ_are_told_with_their_side() {
    for (ahead, severity, side, code) in [
        (30, "note", "behind", 0),
        (120, "warning", "behind", 0),
        (-120, "warning", "ahead of", 0),
        (1000, "problem", "behind", 1),
    ] {
        let server = Transit::start(Behaviour { ahead, ..Behaviour::default() });
        let world = World::new();
        server.configure(&world);
        let found = doctor(&world, &[]);
        found.ends(code).says("KEK remote", "clock", severity, &[side, "the service"]);
        if severity != "note" {
            found.says("KEK remote", "clock", severity, &["NTP"]);
        }
        if severity == "warning" {
            doctor(&world, &["--strict"]).ends(1);
        }
        found.says("KEK remote", "key-rotation", "note", &["newest version of the key is 3", "every 30 days"]);
        found.says("KEK remote", "context", "note", &["refuses another context"]);
    }
}

#[cfg(feature = "vault")]
#[test]
fn a_service_that_ignores_contexts_throttles_or_hangs() {
    let world = World::new();
    let server = Transit::start(Behaviour { careless: true, ..Behaviour::default() });
    server.configure(&world);
    doctor(&world, &[]).ends(1).says("KEK remote", "context", "problem", &["must not", "docs/kms/vault.md"]);

    let world = World::new();
    let server = Transit::start(Behaviour { status: Some(429), ..Behaviour::default() });
    server.configure(&world);
    doctor(&world, &[]).ends(1).says("KEK remote", "wrap", "problem", &["too many requests", "quota"]).says(
        "KEK local",
        "roots",
        "note",
        &["opens 1 of 1"],
    );

    let world = World::new();
    let server = Transit::start(Behaviour { hangs: true, ..Behaviour::default() });
    server.configure(&world);
    doctor(&world, &["--timeout", "1"])
        .ends(1)
        .says("KEK remote", "timeout", "problem", &["did not end in time", "--timeout"])
        .says("KEK local", "wrap", "note", &["first"]);
}

/// Ctrl-C ends it, with what was found until then.
#[cfg(feature = "vault")]
#[test]
fn a_signal_ends_it() {
    let world = World::new();
    let server = Transit::start(Behaviour { hangs: true, ..Behaviour::default() });
    server.configure(&world);
    let config = world.config();
    let mut command = world.command(&["doctor", "--config", config.to_str().expect("text")]);
    let child =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().expect("started");
    // It has begun when the server hears of it.
    server.wait();
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).expect("a process")).expect("a process");
    let sent = std::time::Instant::now();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("sent");
    let done = child.wait_with_output().expect("ended");
    assert!(sent.elapsed() < std::time::Duration::from_secs(2), "it waited for the KEK, whose timeout is 3 s");
    let said = String::from_utf8_lossy(&done.stdout);
    assert_eq!(done.status.code(), Some(130), "{said}");
    assert!(said.contains("KEK remote: SOMETHING MUST BE DONE"), "{said}");
    assert!(said.contains("was called off") && !said.contains("--timeout"), "{said}");
}

#[cfg(feature = "vault")]
#[test]
fn a_credential_that_is_a_pipe_or_missing_or_readable_by_others() {
    let server = Transit::start(Behaviour::default());
    let world = World::new();
    server.configure(&world);
    let token = world.keys().join("token");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).expect("permissions");
    let found = doctor(&world, &[]);
    found.ends(0).says("files", "credential-file", "warning", &["0644", "chmod 600"]);
    assert!(!found.output.contains(fake::TOKEN), "{}", found.output);
    fs::remove_file(&token).expect("removed");
    doctor(&world, &[]).ends(1).says("files", "credential-file", "problem", &["token"]).says(
        "KEK remote",
        "wrap",
        "problem",
        &["cannot read the file", "Options"],
    );
    rustix::fs::mknodat(rustix::fs::CWD, &token, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .expect("a pipe");
    doctor(&world, &[]).ends(1).says("files", "credential-file", "problem", &["not a regular file"]);
}

/// A key service that is away is no tampering, and one cause is one problem.
#[cfg(feature = "vault")]
#[test]
fn an_outage_is_said_once_and_is_no_tampering() {
    let world = World::new();
    fs::remove_dir_all(world.keys()).expect("removed");
    fs::create_dir(world.keys()).expect("a folder");
    secret_file(&world, "token", fake::TOKEN);
    let server = Transit::start(Behaviour::default());
    let kek = format!("remote={}", server.uri());
    common::run(common::keyfold().args(["init", "--kek", &kek]).arg(world.keys()), b"").expect(0, &[]);
    world.run(&["keys", "list"]).expect(0, &[]);
    server.go_away();
    let listed = world.run(&["keys", "list"]).expect(common::KMS, &["405 Unavailable", "cannot be verified"]);
    let text = listed.stdout_text();
    assert!(text.contains("cannot be verified now") && !text.contains("NOT TRUSTED"), "{text}");
    let found = doctor(&world, &[]);
    found
        .ends(1)
        .says("KEK remote", "wrap", "problem", &["firewall"])
        .says("KEK remote", "roots", "note", &["did not answer"])
        .says("keyring", "keys", "warning", &["be verified now", "see the KEKs"]);
    let findings =
        found.json["reports"].as_array().into_iter().flatten().flat_map(|report| report["findings"].as_array());
    let problems = findings.flatten().filter(|finding| finding["severity"] == "problem").count();
    assert_eq!(problems, 1, "{:#}", found.json);
    assert!(found.about("KEK remote", "clock").is_empty(), "it was not reached");
    let path = world.config();
    let run = world.run(&["doctor", "--config", path.to_str().expect("text")]).expect(1, &[]);
    assert!(run.stdout_text().ends_with("1 problem, 1 warning\n"), "{}", run.stdout_text());
}

#[test]
fn a_forgotten_kek_of_the_root_and_a_lonely_one_are_told() {
    let world = World::new();
    doctor(&world, &[]).ends(0).says("store", "root-keks", "note", &["KEK local alone", "docs/RECOVERY.md"]);
    new_kek(&world, "b.kek");
    let alone = fs::read_to_string(world.config()).expect("the configuration");
    configure(&world, "[keks.second]\nuri = \"local:b.kek\"");
    world.succeeds(&["keys", "repair"]);
    assert!(doctor(&world, &[]).ends(0).about("store", "root-keks").is_empty());
    fs::write(world.config(), &alone).expect("written");
    doctor(&world, &["--strict"]).ends(1).says(
        "store",
        "root-keks",
        "warning",
        &["KEK second, which is not configured: it cannot be rotated", "keys rewrap --drop-kek second"],
    );
    // What it advises helps.
    world.succeeds(&["keys", "rewrap", "--drop-kek", "second"]);
    doctor(&world, &["--strict"]).ends(0);
    // Where no KEK is left that opens the root, nothing can be dropped.
    fs::write(world.config(), alone.replace("[keks.local]", "[keks.other]")).expect("written");
    let found = doctor(&world, &[]);
    found.says("store", "root-keks", "warning", &["nor is another one of its KEKs", "configure it again"]);
    assert!(!found.output.contains("--drop-kek"), "{}", found.output);
    world.run(&["keys", "rewrap", "--drop-kek", "local", "--dry-run"]).expect(common::POLICY, &["is configured here"]);
}

#[test]
fn what_a_build_lacks_is_told_from_what_nobody_knows() {
    let version = common::run(common::keyfold().arg("--version"), b"").expect(0, &[]);
    let version = version.stdout_text().to_owned();
    for (scheme, feature, is_built_in) in [
        ("awskms", "aws", cfg!(feature = "aws")),
        ("azurekv", "azure", cfg!(feature = "azure")),
        ("gcpkms", "gcp", cfg!(feature = "gcp")),
        ("pkcs11", "pkcs11", cfg!(feature = "pkcs11")),
        ("vault", "vault", cfg!(feature = "vault")),
    ] {
        let (built_in, absent) = version.split_once("not in this build").expect("both lists");
        assert_eq!((built_in.contains(scheme), absent.contains(scheme)), (is_built_in, !is_built_in), "{version}");
        let world = World::new();
        configure(&world, &format!("[keks.remote]\nuri = \"{scheme}:\""));
        let says = match is_built_in {
            true => format!("{scheme}://"),
            false => format!("{scheme} is not in this build: cargo build -p keyfold-cli --features {feature}"),
        };
        doctor(&world, &[]).ends(1).says("KEK remote", "kek-opens", "problem", &[&says]);
        // Somebody has to act, so that it is no outage.
        world.run(&["keys", "rewrap"]).expect(common::POLICY, &[&says]);
    }
    let world = World::new();
    configure(&world, "[keks.remote]\nuri = \"awsksm://x\"");
    doctor(&world, &[]).ends(1).says("KEK remote", "kek-opens", "problem", &["awsksm; known: local:FILE"]);
}

#[test]
fn monitors_get_json_whatever_happens_and_people_the_names_there_are() {
    let world = World::new();
    let run = world.run(&["doctor", "--json", "--config", "missing.toml"]).expect(common::STORAGE, &["missing.toml"]);
    let json: Value = serde_json::from_slice(&run.stdout).expect("JSON");
    assert_eq!((&json["ok"], &json["code"]), (&Value::Bool(false), &Value::from(601)), "{json}");
    assert!(json["error"].as_str().is_some_and(|error| error.contains("missing.toml")), "{json}");
    let config = world.config();
    let unknown = ["doctor", "--kek", "nope", "--config", config.to_str().expect("text")];
    world.run(&unknown).expect(common::POLICY, &["nope; there are: local"]);
}

// Failure T6
#[test]
fn memory_that_may_not_be_locked_is_a_warning_and_a_problem_where_it_must_be() {
    let world = World::new();
    doctor(&world, &[]).ends(0).says("keyring", "memory", "note", &["in locked memory"]);
    let config = world.config();
    let command = world.command(&["doctor", "--json", "--config", config.to_str().expect("text")]);
    // Root may lock whatever its limit is, unless it has lost that right.
    let without_right = if rustix::process::geteuid().is_root() { "setpriv --bounding-set=-ipc_lock" } else { "" };
    let unlocked = || {
        let script = format!("ulimit -l 0 && exec {without_right} \"$0\" \"$@\"");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &script]).arg(command.get_program()).args(command.get_args()).current_dir(world.data());
        found(common::run(&mut shell, b""))
    };
    unlocked().ends(0).says("keyring", "memory", "warning", &["bytes of keys", "not locked", "raise RLIMIT_MEMLOCK"]);
    configure(&world, "[memory]\nlock = \"required\"");
    unlocked().ends(1).says("keyring", "keyring", "problem", &["does not open", "[memory] requires"]);
    doctor(&world, &[]).ends(0).says("keyring", "memory", "note", &["in locked memory"]);
}

#[cfg(feature = "vault")]
#[test]
fn advice_fits_the_cause() {
    let world = World::new();
    let config = fs::read_to_string(world.config()).expect("the configuration");
    let with = |uri: &str, texts: &[&str]| {
        fs::write(world.config(), format!("{config}\n[keks.remote]\nuri = \"{uri}\"\n")).expect("written");
        doctor(&world, &[]).ends(1).says("KEK remote", "kek-opens", "problem", texts);
    };
    with("vault:HOST/transit/key", &["lacks // after its scheme: vault://"]);
    with(
        "vault://127.0.0.1:1/transit/key?tls=off&token_file=t&tokn=1",
        &["tokn; known here: ", "token_env", "docs/kms/vault.md"],
    );
    with("local:gone.kek", &["gone.kek", "put its file where"]);
    #[cfg(feature = "pkcs11")]
    with("pkcs11://token=a;object=b?module-path=m&pin-value=9471", &["a PIN never stands in the URI", "pin_file="]);
    for (status, advice) in [(503, "see whether the service works"), (403, "correct the name of key or mount")] {
        let world = World::new();
        Transit::start(Behaviour { status: Some(status), ..Behaviour::default() }).configure(&world);
        let found = doctor(&world, &[]);
        let said = found.ends(1).output.contains(advice);
        assert!(said, "{status}: {}", found.output);
    }
}

/// What waits for a key service is interrupted, and nothing is half written.
#[cfg(feature = "vault")]
#[test]
fn a_signal_ends_a_repair_that_waits() {
    let world = World::new();
    let server = Transit::start(Behaviour { hangs: true, ..Behaviour::default() });
    secret_file(&world, "token", fake::TOKEN);
    configure(&world, &format!("[keks.remote]\nuri = \"{}\"", server.uri()));
    let mut command = world.command(&["keys", "repair"]);
    let quiet = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = quiet.spawn().expect("started");
    server.wait();
    let pid = rustix::process::Pid::from_child(&child);
    let sent = std::time::Instant::now();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("sent");
    let code = child.wait().expect("ended").code();
    assert_eq!(code, Some(130));
    assert!(sent.elapsed() < std::time::Duration::from_secs(2), "it waited for the KEK: {:?}", sent.elapsed());
    fs::write(
        world.config(),
        fs::read_to_string(world.config()).expect("text").split("[keks.remote]").next().expect("a part"),
    )
    .expect("written");
    world.succeeds(&["keys", "verify"]);
}
