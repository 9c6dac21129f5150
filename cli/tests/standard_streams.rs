//! What is printed arrives or is an error: standard output that is closed, full, gone or made not to wait (docs/CLI.md, Files).

use crate::audited::Audited;
use crate::common::{PATIENTS, Run, STORAGE, USAGE, World, argument, check_silence, keyfold};
use crate::simulate::SMALL;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::OpenOptions;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::process::{Command, Stdio};
use std::thread::{sleep, spawn};
use std::time::Duration;

/// A recorded keyring with files for every command.
fn world() -> Audited {
    let audited = Audited::new();
    let world = &audited.0;
    world.protect(&[]);
    world.write("scenario.toml", SMALL);
    world.write("schema.toml", "version = 1\n[tables.patients]\ncolumns = { name = \"A\" }\n");
    audited
}

/// Whose result is what they print; CONFIG stands for the configuration.
const PRINTERS: &[&[&str]] = &[
    &["audit", "anchor", "--config", "CONFIG"],
    &["audit", "export", "--config", "CONFIG"],
    &["census", "sealed.csv"],
    &["completions", "bash"],
    &["index", "advise", "in.csv", "--column", "name", "--force"],
    &["inspect", "--file", "sealed.csv"],
    &["keys", "list", "--config", "CONFIG"],
    &["keys", "list", "--config", "CONFIG", "--json"],
    &["keys", "repair", "--config", "CONFIG", "--dry-run"],
    &["keys", "rewrap", "--config", "CONFIG", "--dry-run"],
    &["report", "--config", "CONFIG"],
    &["simulate", "scenario.toml"],
    &["--help"],
    &["--version"],
    &["keys", "rotate", "--help"],
    &["help", "keys"],
];

/// Whose result is the exit code, too.
const JUDGES: &[&[&str]] = &[
    &["audit", "verify", "--config", "CONFIG"],
    &["doctor", "--config", "CONFIG"],
    &["keys", "drill", "--config", "CONFIG"],
    &["keys", "verify", "--config", "CONFIG"],
    &["policy", "check", "--policy", "policy.toml", "--schema", "schema.toml"],
    &["policy", "diff", "policy.toml", "policy.toml"],
    &["scan", "in.csv", "--policy", "policy.toml"],
    &["selftest"],
];

/// What does something, and then prints.
const DOERS: &[&[&str]] =
    &[&["keys", "rotate", "--config", "CONFIG"], &["keys", "rewrap", "--config", "CONFIG"], &["init", "other"]];

/// `arguments` through a shell with `redirection`.
fn shell(audited: &Audited, arguments: &[&str], redirection: &str) -> Run {
    let mut command = Command::new("sh");
    let script = format!("\"$0\" \"$@\" {redirection}");
    command.current_dir(audited.0.data()).args(["-c", &script, env!("CARGO_BIN_EXE_keyfold")]);
    crate::common::run(with_config(&mut command, audited, arguments), b"")
}

fn with_config<'c>(command: &'c mut Command, audited: &Audited, arguments: &[&str]) -> &'c mut Command {
    let config = audited.0.config();
    command.args(arguments.iter().map(|of| if *of == "CONFIG" { argument(&config) } else { of }))
}

#[test]
fn whose_result_is_printed_is_refused_where_it_is_lost() {
    let audited = world();
    for (all, is_refused) in [(PRINTERS, true), (JUDGES, false)] {
        for arguments in all {
            let printed = shell(&audited, arguments, "");
            assert!(!printed.stdout.is_empty() && printed.code < Some(STORAGE), "{arguments:?}: {}", printed.stderr);
            let lost = if is_refused { "standard output is closed" } else { "" };
            for (redirection, says) in
                [(">&-", lost), (">/dev/full", "no space left behind standard output"), (">/dev/null <&-", "")]
            {
                let run = shell(&audited, arguments, redirection);
                let wanted = if says.is_empty() { printed.code } else { Some(STORAGE) };
                assert_eq!(run.code, wanted, "{arguments:?} {redirection}: {}", run.stderr);
                assert!(run.stderr.contains(says), "{arguments:?} {redirection}: {}", run.stderr);
            }
        }
    }
}

/// A key that was not rotated because of what was to be said of it would be worse.
#[test]
fn who_does_something_does_it_without_a_standard_output() {
    let audited = world();
    for (arguments, done) in
        DOERS.iter().zip(["the key was rotated: ", "0 records were changed", "the keyring was made"])
    {
        // The result is lost, but not that there is one.
        let run = shell(&audited, arguments, ">&-").expect(0, &["keyfold: standard output is closed", done]);
        assert!(run.stdout.is_empty());
        shell(&audited, arguments, ">&- 2>&-");
    }
    assert!(audited.0.keys().parent().expect("a folder").join("data/other/keyfold.toml").exists());
    let rotated = audited.actions().iter().filter(|action| *action == "key-made").count();
    assert_eq!(rotated, 2, "{:?}", audited.actions());
    // What cannot be written is told all the same.
    shell(&audited, DOERS[0], ">/dev/full").expect(STORAGE, &["no space left behind standard output"]);
}

/// A pipe that is full, and that was made not to wait; and how much is in it.
fn full_pipe() -> (PipeReader, PipeWriter, usize) {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).expect("set");
    let mut len = 0;
    while let Ok(n) = writer.write(&[b' '; 4096]) {
        len += n;
    }
    (reader, writer, len)
}

/// The parent of a command may have made its pipe not to wait, as programs with an event loop do.
#[test]
fn a_pipe_that_was_made_not_to_wait_gets_all_of_it() {
    let audited = world();
    let shred = ["keys", "shred", "--config", "CONFIG", "--scope", "ward", "--json"];
    audited.0.succeeds(&["protect", "in.csv", "--scope", "ward", "--output", "ward.csv"]);
    let commands: [(&[&str], &str); 11] = [
        (&["--help"], "\n"),
        (&["help", "keys"], "\n"),
        (&["--version"], "\n"),
        (&["simulate", "scenario.toml", "--format", "html"], "</html>\n"),
        (&["completions", "bash"], "\n"),
        (&["report", "--config", "CONFIG", "--format", "html"], "</html>\n"),
        (&["keys", "list", "--config", "CONFIG"], "\n"),
        (&["audit", "export", "--config", "CONFIG"], "}\n"),
        (&["protect", "in.csv", "--config", "CONFIG", "--policy", "policy.toml", "--output", "-"], "\n"),
        (&["keys", "rotate", "--config", "CONFIG"], "\n"),
        (&shred, "}\n"),
    ];
    for (arguments, end) in commands {
        let (mut reader, writer, before) = full_pipe();
        let late = spawn(move || {
            sleep(Duration::from_millis(300));
            let mut read = Vec::new();
            reader.read_to_end(&mut read).map(|_| read)
        });
        let mut command = keyfold();
        with_config(command.current_dir(audited.0.data()), &audited, arguments);
        let output = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).output().expect("it runs");
        // Its end of the pipe.
        drop(command);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        check_silence(&stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}");
        let read = late.join().expect("the reader").expect("read");
        let printed = std::str::from_utf8(&read[before..]).expect("text");
        assert!(!printed.is_empty() && printed.ends_with(end), "{arguments:?}: {} bytes", printed.len());
    }
}

/// Likewise what is wrong with a command line.
#[test]
fn a_usage_error_gets_through_such_a_pipe() {
    let (mut reader, writer, before) = full_pipe();
    let late = spawn(move || {
        sleep(Duration::from_millis(300));
        let mut read = Vec::new();
        reader.read_to_end(&mut read).map(|_| read)
    });
    let mut command = keyfold();
    // The help of a command without its subcommand is longer than what a pipe takes at once.
    let output = command.arg("keys").stdin(Stdio::null()).stderr(writer).output().expect("it runs");
    drop(command);
    assert_eq!(output.status.code(), Some(USAGE));
    let read = late.join().expect("the reader").expect("read");
    let printed = std::str::from_utf8(&read[before..]).expect("text");
    let whole = keyfold().arg("keys").output().expect("it runs").stderr;
    assert!(!whole.contains(&0x1b) && printed.as_bytes() == whole, "{printed}");
}

/// Colours are where the parser would have them.
#[test]
fn colours_are_for_terminals() {
    let coloured = |force: &str| {
        let output = keyfold().arg("--help").env("CLICOLOR_FORCE", force).env_remove("NO_COLOR").output();
        output.expect("it runs").stdout.contains(&0x1b)
    };
    assert!(coloured("1") && !coloured(""));
}

/// Whoever changes something and cannot say what came of it says that it was done, and where it can be seen.
#[test]
fn what_was_done_is_told_where_its_result_cannot_be_written() {
    let audited = world();
    let world = &audited.0;
    let config = std::fs::read_to_string(world.config()).expect("the configuration");
    std::fs::write(world.config(), config + "\n[shred]\nwaiting = \"none\"\n").expect("written");
    world.succeeds(&["protect", "in.csv", "--scope", "ward", "--output", "ward.csv"]);
    world.succeeds(&["device", "transport-key", "--output", "transport.key"]);
    let provision = |verb, bundle| -> [&str; 9] {
        ["device", verb, "pump", "--config", "CONFIG", "--output", bundle, "--transport-key", "transport.key"]
    };
    let lost = |arguments: &[&str], says: &[&str]| {
        let run = shell(&audited, arguments, ">/dev/full");
        run.expect(STORAGE, &[&["no space left behind standard output; "], says].concat())
    };
    let keys = || world.succeeds(&["keys", "list", "--json"]).json_lines();
    lost(&["init", "another"], &["the keyring was made: another/keyfold.toml has its root pin"]);
    let rotated =
        lost(&["keys", "rotate", "--config", "CONFIG"], &["the key was rotated", "`keyfold keys list` shows"]);
    let newest = keys().into_iter().rfind(|key| key["class"] == "data" && key["state"] == "active").expect("a key");
    assert!(rotated.stderr.contains(newest["key_id"].as_str().expect("an ID")), "{}", rotated.stderr);
    lost(
        &["keys", "partition", "--config", "CONFIG", "names"],
        &["the keys of partition ", "a repeated command makes others"],
    );
    lost(&["keys", "reparent", "--config", "CONFIG"], &[" keys were put under root ", "run it again"]);
    lost(&["keys", "rewrap", "--config", "CONFIG"], &["0 records were changed: --dry-run says what is left"]);
    lost(&["keys", "new-kek", "new.kek"], &["new.kek was made"]);
    lost(&["keys", "restore", "--config", "CONFIG"], &["the records were restored"]);
    lost(&["keys", "restore", "--config", "CONFIG", "--dry-run"], &["nothing was changed"]);
    lost(&provision("provision", "one.bundle"), &["the bundle is in one.bundle"]);
    lost(&provision("rotate", "two.bundle"), &["the key was rotated: ", " the bundle is in two.bundle"]);
    lost(&["device", "revoke", "pump", "--config", "CONFIG", "--yes"], &["was compromised: do not repeat that"]);
    let hold = ["keys", "hold", "--config", "CONFIG", "--scope", "ward", "--reason", "case 7"];
    lost(&hold, &[" is under legal hold; "]);
    lost(&[&hold[..], &["--release"]].concat(), &[" is under legal hold no more"]);
    let shred = ["keys", "shred", "--config", "CONFIG", "--scope", "ward"];
    lost(&shred, &["the key of scope ", " neither seals nor opens any more; ", "--cancel takes it back"]);
    lost(&[&shred[..], &["--cancel"]].concat(), &["open again"]);
    lost(&shred, &["--cancel"]);
    let finish = |file| [&shred[..], &["--finish", "--yes", "--certificate", file]].concat();
    lost(&finish("-"), &["are destroyed: run this again with another --certificate"]);
    lost(&finish("c1.json"), &["are destroyed; the certificate is in c1.json"]);
    let confirm = ["keys", "shred", "--config", "CONFIG", "--confirm", "c1.json", "--certificate"];
    lost(&[&confirm[..], &["-"]].concat(), &["what was confirmed is not lost: run this again"]);
    lost(
        &["keys", "state", "--config", "CONFIG", newest["key_id"].as_str().expect("an ID"), "deactivated"],
        &["is deactivated now"],
    );
    // Without its pin nobody could trust a new root.
    let root = lost(&["keys", "rotate", "--root", "--config", "CONFIG"], &["the root was rotated", "keys list --json"]);
    let text = root.stderr.split_once("its pin ").expect("a pin").1;
    let pin = text.split(';').next().expect("a pin");
    let id = root.stderr.split_once("the new one is ").expect("an ID").1.split(',').next().expect("an ID");
    let config = std::fs::read_to_string(world.config()).expect("the configuration");
    std::fs::write(world.config(), config.replace("root_pins = [", &format!("root_pins = [\"{pin}\", ")))
        .expect("written");
    let root = keys().into_iter().find(|key| key["key_id"] == id).expect("the root");
    assert!(root["verified"] == true && root["commitment"] == pin, "{root}");
}

/// Likewise where a signal ends the wait for whoever does not read: by default it would end the process at once, and with it the only one who knows the pin.
#[test]
fn what_was_done_is_told_where_a_signal_ends_the_wait() {
    let audited = world();
    let (_reader, writer, _) = full_pipe();
    let mut command = keyfold();
    with_config(command.current_dir(audited.0.data()), &audited, &["keys", "rotate", "--root", "--config", "CONFIG"]);
    let mut child = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).spawn().expect("it starts");
    let status = format!("/proc/{}/status", child.id());
    // Bit 1 is SIGINT (proc_pid_status(5)).
    let is_caught = || {
        let status = std::fs::read_to_string(&status).expect("a status");
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a mask").trim();
        u64::from_str_radix(mask, 16).expect("a number") >> 1 & 1 == 1
    };
    let begun = std::time::Instant::now();
    while !is_caught() {
        assert!(child.try_wait().expect("its state").is_none() && begun.elapsed().as_secs() < 20, "it has no handler");
        sleep(Duration::from_millis(1));
    }
    kill_process(Pid::from_child(&child), Signal::INT).expect("sent");
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8(output.stderr).expect("text");
    check_silence(&said);
    assert_eq!(output.status.code(), Some(130), "{said}");
    for says in ["interrupted by SIGINT; the root was rotated: the new one is ", ", its pin "] {
        assert!(said.contains(says), "{says:?}: {said}");
    }
}

/// A certificate that is printed is whole; the keys are gone by then.
#[test]
fn a_certificate_gets_through_such_a_pipe() {
    let world = World::new();
    let config = std::fs::read_to_string(world.config()).expect("the configuration");
    std::fs::write(world.config(), config + "\n[shred]\nwaiting = \"none\"\n").expect("written");
    world.succeeds(&["protect", "in.csv", "--scope", "ward", "--output", "ward.csv"]);
    world.succeeds(&["keys", "shred", "--scope", "ward"]);
    let (mut reader, writer, before) = full_pipe();
    let late = spawn(move || {
        sleep(Duration::from_millis(300));
        let mut read = Vec::new();
        reader.read_to_end(&mut read).map(|_| read)
    });
    let mut command = world.command(&["keys", "shred", "--scope", "ward", "--finish", "--yes", "--certificate", "-"]);
    let output = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).output().expect("it runs");
    drop(command);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let read = late.join().expect("the reader").expect("read");
    let _: serde_json::Value = serde_json::from_slice(&read[before..]).expect("a whole certificate");
}

/// `keyfold … | head` of a pipe that is gone.
#[test]
fn a_pipe_that_nobody_reads_is_an_error() {
    let audited = world();
    for arguments in [PRINTERS[0], JUDGES[0], DOERS[0], &["--help"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = keyfold();
        let command = with_config(command.current_dir(audited.0.data()), &audited, arguments);
        let output = command.stdout(writer).stderr(Stdio::piped()).output().expect("it runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(STORAGE), "{arguments:?}: {stderr}");
        assert!(stderr.contains("broken pipe") || stderr.contains("Broken pipe"), "{arguments:?}: {stderr}");
    }
    // Standard output that is open for reading only.
    let file = OpenOptions::new().read(true).open(audited.0.path("in.csv")).expect("a file");
    let (reader, _kept) = std::io::pipe().expect("a pipe");
    for stdout in [Stdio::from(file), Stdio::from(reader)] {
        let mut command = keyfold();
        let output = command.args(["completions", "bash"]).stdout(stdout).output().expect("it runs");
        assert_eq!(output.status.code(), Some(STORAGE), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(audited.0.text("in.csv"), PATIENTS);
}
