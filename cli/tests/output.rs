//! Where the output goes: never over anything without `--force`, never over what is no regular file, whole or not at
//! all.

use crate::common::{
    self, CANARY, PATIENTS, POLICY_FILE, STORAGE, USAGE, World, argument, check_silence, contains, run, skip, snapshot,
};
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

fn protect<'a>(output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["protect", "in.csv", "--output", output], more].concat()
}

#[test]
fn nothing_is_overwritten_without_force() {
    let world = World::new();
    world.write("out.csv", "old");
    world.refuses(&protect("out.csv", &[]), USAGE, &["out.csv already exists", "--force"]);
    world.succeeds(&protect("out.csv", &["--force"]));
    world.succeeds(&["reveal", "out.csv", "--output", "back.csv"]);
    assert_eq!(world.text("back.csv"), PATIENTS);
    for name in ["out.csv", "back.csv"] {
        let mode = fs::metadata(world.path(name)).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(fs::read_dir(world.data()).expect("a folder").count(), 4, "a temporary file was left");
}

/// The empty string is what a script has of a variable that was not set.
#[test]
fn an_input_needs_a_name() {
    let world = World::new();
    let why = ["a name is needed for the input, and this one is empty"];
    for arguments in [
        &["protect", "", "--output", "out.csv"][..],
        &["protect", "", "--format", "csv", "--output", "out.csv"],
        &["protect", "--stream", "image", "", "--output", "out"],
        &["reveal", "", "--output", "out.csv"],
        &["census", ""],
    ] {
        world.write("policy.toml", "version = 1\n[fields.image]\nmode = \"stream\"\n");
        world.refuses(arguments, USAGE, &why);
    }
}

/// What SQLite puts beside the key store, and plays back or deletes at the next command, is made by none.
#[test]
fn nothing_is_written_that_the_key_store_would_take_for_its_own() {
    let world = World::new();
    world.write("transport.key", (0..32).collect::<Vec<u8>>());
    fs::set_permissions(world.path("transport.key"), fs::Permissions::from_mode(0o600)).expect("private");
    let store = world.keys().join("keys.db");
    world.succeeds(&["keys", "list"]);
    for suffix in ["-journal", "-wal", "-shm"] {
        let beside = world.keys().join(format!("keys.db{suffix}"));
        let beside = argument(&beside);
        world.refuses(
            &["device", "provision", "device-1", "--transport-key", "transport.key", "--output", beside],
            USAGE,
            &["is a file of the keyring or a policy", "is never overwritten"],
        );
        // Without a configuration only what is there says what the name is.
        let takes = ["is what SQLite would take for a file of its own, beside the database ", "keys.db, and play back"];
        for arguments in [
            &["keys", "new-kek", beside][..],
            &["device", "transport-key", "--output", beside],
            &["simulate", "scenario.toml", "--output", beside],
        ] {
            let mut command = common::keyfold();
            run(command.current_dir(world.data()).args(arguments), b"").expect(USAGE, &takes);
        }
        assert!(!fs::exists(beside).expect("a folder"), "{beside}");
    }
    assert!(store.exists() && !fs::exists(world.path("other-wal")).expect("a folder"));
    // Beside anything else it is a name as any other.
    world.write("other", "no database");
    run(common::keyfold().current_dir(world.data()).args(["keys", "new-kek", "other-wal"]), b"").expect(0, &[]);
}

/// A terminal that cannot move its cursor shows no progress.
#[test]
fn a_dumb_terminal_shows_no_progress() {
    let world = World::new();
    world.write("policy.toml", "version = 1\n[fields.image]\nmode = \"stream\"\n");
    File::create(world.path("large")).and_then(|file| file.set_len(256 << 20)).expect("a file");
    let shown = |terminal: &str| {
        let keyfold = env!("CARGO_BIN_EXE_keyfold");
        let config = world.config();
        let script = format!(
            "{keyfold} protect --config {} --policy policy.toml --stream image large --output out --force",
            config.display()
        );
        let mut command = Command::new("script");
        command.args(["-qec", &script, "/dev/null"]).env("TERM", terminal).current_dir(world.data());
        crate::common::run(&mut command, b"").expect(0, &[]).stdout_text().to_owned()
    };
    assert!(shown("xterm").contains("\x1b[2K"));
    let dumb = shown("dumb");
    assert!(
        dumb.contains("protected 1 stream of ") && !dumb.contains('\x1b') && !dumb.contains("protecting"),
        "{dumb}"
    );
}

#[test]
fn only_regular_files_are_replaced() {
    let world = World::new();
    fs::create_dir(world.path("folder")).expect("a folder");
    world.write("target.csv", "old");
    symlink("target.csv", world.path("link.csv")).expect("a link");
    symlink("missing.csv", world.path("dangling.csv")).expect("a link");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, world.path("pipe"), rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
    let targets = [
        ("folder", "a folder"),
        ("folder/", "a folder"),
        (".", "a folder"),
        ("link.csv", "a symbolic link"),
        ("dangling.csv", "a symbolic link"),
        ("pipe", "a named pipe"),
        ("/dev/null", "a device"),
    ];
    for (target, kind) in targets {
        for more in [&[][..], &["--force"]] {
            let run = world.refuses(&protect(target, more), USAGE, &[target, kind]);
            // Of no use for a folder, or for a link.
            let is_pipe = matches!(kind, "a named pipe" | "a device");
            assert_eq!(run.stderr.contains("use - for pipes"), is_pipe, "{}", run.stderr);
        }
    }
    world.refuses(&protect("missing/out.csv", &[]), STORAGE, &["missing/out.csv", "No such file"]);
    world.refuses(&protect("in.csv/out.csv", &[]), STORAGE, &["in.csv/out.csv", "Not a directory"]);
    world.refuses(&protect("", &[]), USAGE, &["a name is needed"]);
    world.refuses(&protect("newdir/", &[]), USAGE, &["a name is needed", "no folder newdir/"]);
}

#[test]
fn the_input_is_never_replaced() {
    let world = World::new();
    symlink("in.csv", world.path("link.csv")).expect("a link");
    fs::hard_link(world.path("in.csv"), world.path("hard.csv")).expect("a link");
    for (input, output) in
        [("in.csv", "in.csv"), ("link.csv", "in.csv"), ("hard.csv", "in.csv"), ("in.csv", "./../data/in.csv")]
    {
        world.refuses(&["protect", input, "--output", output, "--force"], USAGE, &["is also the input"]);
    }
    let mut command = world.command(&["protect", "-", "--format", "csv", "--output", "in.csv", "--force"]);
    let output = command.stdin(File::open(world.path("in.csv")).expect("the input")).output().expect("it runs");
    assert_eq!(output.status.code(), Some(USAGE));
    // `>> in.csv` would read what it writes, for ever.
    let append = OpenOptions::new().append(true).open(world.path("in.csv")).expect("the input");
    let output = world.command(&protect("-", &[])).stdout(append).output().expect("it runs");
    assert_eq!(output.status.code(), Some(USAGE));
    assert_eq!(world.text("in.csv"), PATIENTS);
}

#[test]
fn somebody_who_takes_the_name_meanwhile_keeps_it() {
    let world = World::new();
    let mut child = world
        .command(&["protect", "-", "--format", "csv", "--output", "out.csv"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // The output is open as soon as the header has been read; an empty pipe keeps the command waiting.
    let mut stdin = child.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut stdin, PATIENTS.as_bytes()).expect("written");
    let open = || {
        fs::read_dir(format!("/proc/{}/fd", child.id()))
            .into_iter()
            .flatten()
            .flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.starts_with(world.data())))
    };
    while !open() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    world.write("out.csv", "of somebody else");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(USAGE));
    assert!(String::from_utf8_lossy(&output.stderr).contains("already exists"));
    assert_eq!(world.text("out.csv"), "of somebody else");
    assert_eq!(fs::read_dir(world.data()).expect("a folder").count(), 3);
}

// Failure K3
#[test]
fn a_full_disk() {
    let world = World::new();
    let full = OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let output = world.command(&protect("-", &[])).stdout(full).output().expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(STORAGE), "{stderr}");
    assert!(stderr.contains("no space left behind standard output"), "{stderr}");
    check_silence(&stderr);
    let large =
        PATIENTS.to_owned() + &PATIENTS.lines().nth(1).map(|row| format!("{row}\n").repeat(20_000)).expect("a row");
    world.write("large.csv", large);
    world.write("old.csv", "old");
    // A file system of its own, in a name space of its own: it is gone with the process.
    let script = r#"mount -t tmpfs -o size=1m tmpfs mnt || exit 99
        cp old.csv mnt/old.csv; cat mnt/old.csv
        "$@" --output mnt/new.csv; echo " $?"
        "$@" --output mnt/old.csv --force; echo $?
        ls -A mnt; cat mnt/old.csv"#;
    let Some(text) = in_namespace(&world, script, &["protect", "large.csv"]) else { return };
    assert_eq!(text, "old 7\n7\nold.csv\nold");
    let script = r#"mount -t tmpfs -o ro tmpfs mnt || exit 99; "$@" --output mnt/new.csv; echo $?; ls -A mnt"#;
    let text = in_namespace(&world, script, &["protect", "in.csv"]).expect("as above");
    assert_eq!(text, "7\n");
}

/// What `script` prints in a name space where it may mount over `mnt`; none where the system does not allow that.
fn in_namespace(world: &World, script: &str, arguments: &[&str]) -> Option<String> {
    fs::create_dir_all(world.path("mnt")).expect("a folder");
    let mut command = Command::new("unshare");
    command.current_dir(world.data()).args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    let config = world.config();
    command.arg(env!("CARGO_BIN_EXE_keyfold")).args(arguments);
    command.args(["--config", argument(&config), "--policy", "policy.toml"]);
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => output,
        other => {
            skip(&format!("a full and a read-only file system (unshare does not work here: {other:?})"));
            return None;
        }
    };
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    check_silence(&stderr);
    assert!(stderr.contains("no space left to write mnt/") || stderr.contains("Read-only file system"), "{stderr}");
    Some(String::from_utf8(output.stdout).expect("text"))
}

// Failure F16
#[test]
fn a_broken_pipe() {
    let world = World::new();
    let row = PATIENTS.lines().nth(1).expect("a row");
    world.write("large.csv", PATIENTS.to_owned() + &format!("{row}\n").repeat(20_000));
    let mut child = world
        .command(&["protect", "large.csv", "--output", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut head = [0; 10];
    child.stdout.take().expect("a pipe").read_exact(&mut head).expect("ten bytes");
    assert_eq!(&head, b"patient_id");
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(STORAGE), "{stderr}");
    assert!(stderr.contains("broken pipe"), "{stderr}");
    check_silence(&stderr);
    // Other commands end as quietly.
    let arguments: [&[&str]; 4] = [&["keys", "list"], &["completions", "bash"], &["inspect", "x"], &["--help"]];
    for arguments in arguments {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = world.command(arguments).stdout(writer).output().expect("it runs");
        check_silence(&String::from_utf8_lossy(&output.stderr));
        assert!(output.status.code().is_some());
    }
}

#[test]
fn closed_standard_streams() {
    let world = World::new();
    world.write("policy.toml", POLICY_FILE.to_owned() + "\n[fields.image]\nmode = \"stream\"\n");
    let config = world.config();
    let before = snapshot(&world.data());
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.current_dir(world.data()).args(["-c", script, env!("CARGO_BIN_EXE_keyfold"), argument(&config)]);
        run(&mut command, b"")
    };
    for format in ["--format csv", "--format ndjson", "--stream image"] {
        let protect = format!(r#""$0" protect --config "$1" --policy policy.toml {format}"#);
        shell(&format!("{protect} in.csv --output - >&-")).expect(STORAGE, &["standard output is closed"]);
        shell(&format!("{protect} - --output out.csv <&-")).expect(STORAGE, &["standard input is closed"]);
        // Whoever throws the output away means it.
        if format != "--format ndjson" {
            shell(&format!("{protect} in.csv --output - >/dev/null")).expect(0, &[]);
        }
    }
    assert_eq!(snapshot(&world.data()), before);
    shell(r#""$0" protect --config "$1" --policy policy.toml in.csv --output out.csv >&- 2>&- <&-"#).expect(0, &[]);
    world.succeeds(&["reveal", "out.csv", "--output", "back.csv"]);
    assert_eq!(world.text("back.csv"), PATIENTS);
}

#[test]
fn what_a_failing_pipe_has_written_is_sealed() {
    // The first rows are out before the bad one is read; the exit code says that they are not all.
    let world = World::new();
    let row = PATIENTS.lines().nth(1).expect("a row");
    let text = PATIENTS.to_owned() + &format!("{row}\n").repeat(20_000) + "ragged\n";
    let arguments = ["protect", "-", "--format", "csv", "--output", "-"];
    let run = run(&mut world.command(&arguments), text.as_bytes()).expect(common::DATA, &["row 20004"]);
    assert!(!run.stdout.is_empty() && !contains(&run.stdout, CANARY.as_bytes()));
}

/// Whoever misspells a scope, and something else, gets no key for it.
#[test]
fn a_run_that_is_refused_makes_no_scope() {
    let world = World::new();
    let stream =
        "\n[fields.image]\nmode = \"stream\"\n[fields.export]\nmode = \"stream\"\nrequired_context = [\"tenant\"]\n";
    world.write("policy.toml", POLICY_FILE.to_owned() + stream);
    world.write("other.csv", "x\n1\n");
    world.write("out.csv", "old");
    fs::create_dir(world.path("folder")).expect("a folder");
    symlink("missing", world.path("folder/link")).expect("a link");
    world.succeeds(&["protect", "--stream", "image", "in.csv", "--output", "sealed"]);
    let keys = || world.succeeds(&["keys", "list", "--json"]).json_lines().len();
    let before = keys();
    let runs: &[&[&str]] = &[
        &["missing.csv", "--output", "new.csv"],
        &["other.csv", "--output", "new.csv"],
        &["in.csv", "--output", "out.csv"],
        &["--stream", "image", "missing", "--output", "new"],
        &["--stream", "image", "in.csv", "--output", "out.csv"],
        &["--stream", "export", "in.csv", "--output", "new"],
        &["--stream", "image", "sealed", "--output", "new"],
        &["--stream", "image", "folder", "--output", "new"],
    ];
    for arguments in runs {
        let run = world.run(&[&["protect", "--scope", "clinc"], *arguments].concat());
        assert!(run.code.is_some_and(|code| code > 1), "{arguments:?}: {}", run.stderr);
        assert!(!run.stderr.contains("the scope is new"), "{arguments:?}: {}", run.stderr);
        assert_eq!(keys(), before, "{arguments:?}");
    }
    let context = POLICY_FILE.replacen(
        "[fields.\"patient.note\"]",
        "[fields.\"patient.note\"]\nrequired_context = [\"tenant\"]",
        1,
    );
    world.write("policy.toml", context);
    let run = world.run(&["protect", "--scope", "clinc", "in.csv", "--output", "new.csv"]);
    let run = run.expect(common::POLICY, &["--context KEY=VALUE gives it"]);
    assert!(!run.stderr.contains("the scope is new"), "{}", run.stderr);
    assert_eq!(keys(), before);
}

/// Nobody gets a line of their own into what the command says by the name of a file.
#[test]
fn a_name_forges_no_line() {
    let world = World::new();
    let name = "a\nkeyfold: all is well\u{1b}[2J";
    world.write(name, PATIENTS);
    symlink("in.csv", world.path(&format!("{name}.link"))).expect("a link");
    let (input, link, missing) = (name.to_owned(), format!("{name}.link"), format!("{name}.csv"));
    for arguments in [
        &["protect", "in.csv", "--output", &input][..],
        &["protect", "in.csv", "--output", &link],
        &["protect", &missing, "--output", "new.csv"],
        &["protect", "--stream", "image", &missing, "--output", "new"],
        &["reveal", "in.csv", "--output", "new.csv", "--tokens", &input],
    ] {
        let run = world.run(arguments);
        assert_ne!(run.code, Some(0));
        let forged = run.stderr.lines().find(|line| line.starts_with("keyfold: all") || line.contains('\u{1b}'));
        assert_eq!(forged, None, "{arguments:?}");
    }
}
