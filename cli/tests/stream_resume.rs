//! Folders of streams a second time, and into folders that have something: what is made anew, what is left, and what the run says of it (docs/CLI.md, Whole files).
#![allow(clippy::unwrap_used, reason = "a test")]

use crate::common::{DATA, KEY, Run, STORAGE, USAGE, World, argument};
use crate::shared_streams::{PROTECT, REVEAL, content, failing, unprivileged, while_writing, world};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

/// What is said where the input is at fault, and nowhere else.
const INPUT: &str = "until it is replaced or moved away";

fn with<'a>(arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [arguments, more].concat()
}

/// `in` with two files.
fn two(world: &World) {
    fs::create_dir(world.path("in")).unwrap();
    for name in ["one", "two"] {
        fs::write(world.path("in").join(name), content(20_000)).unwrap();
    }
}

/// A new key seals; the ID of the one before.
fn rotate(world: &World) -> String {
    let rotated = world.succeeds(&["keys", "rotate", "--json"]).json_lines();
    rotated[0]["old"].as_str().unwrap().to_owned()
}

fn is_of_output(run: &Run, output: &str) {
    assert!(run.stderr.contains(&format!("keyfold: {output}/")) && !run.stderr.contains(INPUT), "{}", run.stderr);
    assert!(run.stderr.contains("; no file was written; --keep-going goes on behind it\n"), "{}", run.stderr);
}

/// An output under a key that does not open is one that `--force` replaces, as any other is.
#[test]
fn outputs_that_do_not_open_are_made_anew_on_demand() {
    let world = world();
    two(&world);
    world.succeeds(&PROTECT);
    world.succeeds(&["keys", "state", &rotate(&world), "compromised"]);
    let says =
        [" is there, and does not open: ", "is compromised", "`open_compromised = true`", "--force makes it anew"];
    let refused = world.run(&with(&PROTECT, &["--resume"])).expect(KEY, &says);
    is_of_output(&refused, "sealed");
    world.succeeds(&with(&PROTECT, &["--resume", "--force"])).expect(0, &["protected 2 streams of 40000 bytes\n"]);
    world.succeeds(&with(&PROTECT, &["--resume"])).expect(0, &["2 were there already, with the same content\n"]);
    // Of another scope, and of another keyring.
    world.succeeds(&with(&PROTECT, &["--force", "--scope", "ward"]));
    let refused = world.run(&with(&PROTECT, &["--resume"])).expect(KEY, &["WrongScope", "--force makes it anew"]);
    is_of_output(&refused, "sealed");
    world.succeeds(&with(&PROTECT, &["--resume", "--force"])).expect(0, &["protected 2 streams"]);
    world.succeeds(&["init", "other"]);
    world.succeeds(&with(&PROTECT, &["--force", "--config", "other/keyfold.toml"]));
    let unknown = ["NoMatchingKey", "it may be of another keyring (--config names", "--force makes it anew"];
    is_of_output(&world.run(&with(&PROTECT, &["--resume"])).expect(KEY, &unknown), "sealed");
    world.succeeds(&with(&PROTECT, &["--resume", "--force"])).expect(0, &["protected 2 streams"]);
    world.succeeds(&REVEAL);
    assert!(world.read("back/one") == content(20_000));
}

/// An output that cannot be read is no fault of its input, and `--force` makes it anew.
#[test]
fn outputs_that_cannot_be_read_are_made_anew_on_demand() {
    let world = world();
    two(&world);
    world.succeeds(&PROTECT);
    world.succeeds(&REVEAL);
    let anew = " of 20000 bytes; 1 was there already, with the same content\n";
    for (arguments, output) in [(PROTECT, "sealed/two.kfs"), (REVEAL, "back/two")] {
        let resume = with(&arguments, &["--resume"]);
        let forced = with(&arguments, &["--resume", "--force", "--keep-going"]);
        // At its beginning, and behind that.
        for calls in ["read:error=EIO", "read:error=EIO:when=2+"] {
            let Some(run) = failing(&world, &resume, output, calls) else { break };
            let message = format!(
                "keyfold: cannot read {output}: Input/output error (os error 5); it is there, and --force makes it anew; "
            );
            let run = run.expect(STORAGE, &[&message, "--keep-going goes on behind it\n"]);
            assert!(!run.stderr.contains(INPUT) && !run.stderr.contains("in/two"), "{}", run.stderr);
            failing(&world, &forced, output, calls).unwrap().expect(0, &["1 stream", anew]);
        }
        fs::set_permissions(world.path(output), fs::Permissions::from_mode(0o000)).unwrap();
        let Some(run) = unprivileged(&world, &resume) else { return };
        let run = run.expect(STORAGE, &[&format!("cannot read {output}: Permission denied"), "--force makes it anew"]);
        assert!(!run.stderr.contains(INPUT), "{}", run.stderr);
        unprivileged(&world, &forced).unwrap().expect(0, &["1 stream", anew]);
        // Too many open files are no matter of this one.
        let Some(run) = failing(&world, &forced, output, "openat:error=EMFILE") else { return };
        let run = run.expect(STORAGE, &[&format!("cannot read {output}: Too many open files")]);
        assert!(!run.stderr.contains("left out"), "{}", run.stderr);
    }
    // An input that cannot be read stays at fault. Two reads have looked whether it is a stream.
    let run = failing(&world, &with(&PROTECT, &["--resume", "--force"]), "in/two", "read:error=EIO:when=3+").unwrap();
    run.expect(STORAGE, &["in/two: cannot read the input: Input/output error", INPUT]);
}

/// Where compromised keys open, what is under them is kept and told, and `--force` seals it again though its content is the same.
#[test]
fn outputs_that_may_be_forged_are_made_anew_on_demand() {
    let world = world();
    two(&world);
    world.succeeds(&PROTECT);
    world.succeeds(&["keys", "state", &rotate(&world), "compromised"]);
    let config = fs::read_to_string(world.config()).unwrap();
    fs::write(world.config(), config.replace("[store]", "open_compromised = true\n\n[store]")).unwrap();
    let kept = ["2 were there already", "2 are under a compromised key and may be forged: --force seals them again"];
    world.succeeds(&with(&PROTECT, &["--resume"])).expect(0, &kept);
    fs::remove_file(world.path("sealed/one.kfs")).unwrap();
    let kept = ["1 was there already", "1 is under an old generation", "1 is under a compromised key"];
    world.succeeds(&with(&PROTECT, &["--resume"])).expect(0, &kept);
    let anew = ["protected 1 stream of 20000 bytes; 1 was there already, with the same content\n"];
    world.succeeds(&with(&PROTECT, &["--resume", "--force"])).expect(0, &anew);
}

/// Whether a stream opens may be a matter of the command line or the configuration: moving it away would help nobody.
#[test]
fn what_is_at_fault_is_named() {
    let world = world();
    two(&world);
    world.succeeds(&with(&PROTECT, &["--scope", "ward"]));
    let elsewhere = |run: Run| assert!(!run.stderr.contains(INPUT), "{}", run.stderr);
    let goes_on = "; no file was written; --keep-going goes on behind it\n";
    elsewhere(world.run(&REVEAL).expect(KEY, &["WrongScope", "--scope must name", goes_on]));
    world.succeeds(&["init", "other"]);
    world.succeeds(&with(&PROTECT, &["--force", "--config", "other/keyfold.toml"]));
    elsewhere(world.run(&REVEAL).expect(KEY, &["NoMatchingKey", "--config", goes_on]));
    world.succeeds(&with(&PROTECT, &["--force"]));
    world.succeeds(&["keys", "state", &rotate(&world), "compromised"]);
    elsewhere(world.run(&REVEAL).expect(KEY, &["KeyState", "`open_compromised = true`", goes_on]));
    world.write("sealed/one.kfs", "damaged");
    world.write("sealed/two.kfs", "damaged");
    world.run(&REVEAL).expect(DATA, &[INPUT]);
}

/// A rotation during the run leaves under an old key what was made before it, and the summary says so.
#[test]
fn the_summary_knows_what_became_of_the_keys_meanwhile() {
    let world = world();
    for state in ["deactivated", "compromised"] {
        let mut command = world.command(&["protect", "--stream", "image", "-", "--output", state, "--json"]);
        command.stdin(Stdio::piped()).stderr(Stdio::piped()).env("KEYFOLD_LOG", "error");
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // More than what a pipe holds: it has begun, under a key.
        stdin.write_all(&content(1 << 20)).unwrap();
        let old = rotate(&world);
        if state == "compromised" {
            world.succeeds(&["keys", "state", &old, state]);
        }
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        let summary: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        let compromised = u64::from(state == "compromised");
        assert_eq!((&summary["outdated"], &summary["compromised"]), (&1.into(), &compromised.into()), "{said}");
    }
}

/// A summary comes, whatever there is that cannot be looked at.
#[test]
fn what_is_left_is_counted_past_what_cannot_be_looked_at() {
    let world = world();
    fs::create_dir_all(world.path("in/closed")).unwrap();
    fs::write(world.path("in/one"), content(5)).unwrap();
    fs::write(world.path("in/closed/two"), content(5)).unwrap();
    world.succeeds(&PROTECT);
    world.succeeds(&REVEAL);
    // The name of its stream would be too long for any file.
    fs::write(world.path("back").join("n".repeat(252)), b"x").unwrap();
    world.succeeds(&with(&REVEAL, &["--resume"])).expect(0, &["2 were there", "left there: 1 output, back/nnn"]);
    // What is below a folder that was left out is not looked for in it.
    fs::set_permissions(world.path("in/closed"), fs::Permissions::from_mode(0o000)).unwrap();
    let resume = with(&PROTECT, &["--resume", "--keep-going"]);
    let Some(run) = unprivileged(&world, &resume) else { return };
    let says =
        ["cannot read in/closed", "; it was left out", "; 1 was there already", "; 1 folder left out, each named"];
    let run = run.expect(STORAGE, &says);
    assert!(!run.stderr.contains("without an input"), "{}", run.stderr);
    // Nothing can be taken, and nothing was made.
    fs::set_permissions(world.path("in"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::rename(world.path("sealed"), world.path("elsewhere")).unwrap();
    let run = unprivileged(&world, &resume).unwrap();
    run.expect(STORAGE, &["cannot read in:", "protected 0 streams of 0 bytes; 1 folder left out"]);
}

/// A folder without a file may be the wrong one.
#[test]
fn a_folder_without_files_is_told() {
    let world = world();
    fs::create_dir_all(world.path("in/empty")).unwrap();
    world.succeeds(&PROTECT).expect(0, &["keyfold: there is no file in in\n", "protected 0 streams"]);
    fs::write(world.path("in/one"), b"").unwrap();
    for more in [&["--force"][..], &["--resume"]] {
        let run = world.succeeds(&with(&PROTECT, more));
        assert!(!run.stderr.contains("there is no file"), "{}", run.stderr);
    }
}

/// Not even what SQLite makes after a crash only, and plays back whatever is in it.
#[test]
fn a_stream_never_becomes_a_file_of_the_keyring() {
    let world = world();
    world.write("in", content(10));
    world.succeeds(&PROTECT);
    let keys = world.keys();
    for name in ["keys.db", "keys.db-journal", "keys.db-wal", "local.kek"] {
        let output = keys.join(name);
        let reveal = ["reveal", "--stream", "image", "sealed", "--output", argument(&output), "--force"];
        world.refuses(&reveal, USAGE, &[name, "is a file of the keyring or a policy, and is never overwritten"]);
    }
    fs::create_dir(world.path("streams")).unwrap();
    fs::copy(world.path("sealed"), world.path("streams/keys.db-journal.kfs")).unwrap();
    let reveal = ["reveal", "--stream", "image", "streams", "--output", argument(&keys)];
    for more in [&[][..], &["--force"], &["--resume", "--keep-going"]] {
        world.refuses(&with(&reveal, more), USAGE, &["keys.db-journal", "is never overwritten", "nothing was written"]);
    }
    assert!(!keys.join("keys.db-journal").exists());
}

/// What is put into the folder during the run was not checked before it.
#[test]
fn files_of_the_keyring_that_appear_meanwhile_are_refused() {
    let world = world();
    let own = |name: &str| world.keys().join(name);
    for is_input in [true, false] {
        for folder in ["in/a", "in/b"] {
            fs::create_dir_all(world.path(folder)).unwrap();
            // Long enough that the other folder is still to come.
            File::create(world.path(folder).join("large")).unwrap().set_len(256 << 20).unwrap();
        }
        let arguments = with(&PROTECT, &["--threads", "1", "--keep-going", "--force"]);
        let before = fs::read(own("local.kek")).unwrap();
        let (code, said) = while_writing(&world, &arguments, |at| {
            let other = if at.starts_with(world.path("sealed/a")) { "b" } else { "a" };
            let input = world.path("in").join(other).join("late");
            if is_input {
                fs::hard_link(own("local.kek"), input).unwrap();
            } else {
                fs::write(input, content(5)).unwrap();
                fs::create_dir(world.path("sealed").join(other)).unwrap();
                fs::hard_link(own("local.kek"), world.path("sealed").join(other).join("late.kfs")).unwrap();
            }
        });
        assert_eq!(code, Some(USAGE), "{said}");
        assert!(said.contains("is a file of the keyring or a policy") && !said.contains("left out"), "{said}");
        assert!(fs::read(own("local.kek")).unwrap() == before);
        fs::remove_dir_all(world.path("in")).unwrap();
        fs::remove_dir_all(world.path("sealed")).unwrap();
    }
}
