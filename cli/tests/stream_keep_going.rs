//! Folders of streams behind what cannot be had: `--keep-going`, and what ends a run all the same (docs/CLI.md, Whole files).
#![allow(clippy::unwrap_used, reason = "a test")]

use crate::common::{DATA, KEY, KMS, POLICY, Run, STORAGE, USAGE, World, argument, check_silence, skip};
use crate::shared_streams::{PROTECT, REVEAL, content, failing, while_writing, world};
use rustix::fs::{CWD, Mode, mkfifoat};
use std::fs::{self, File};
use std::process::{Command, Stdio};

const STOPS: &str =
    "--resume stops at this file again until it is replaced or moved away, and --keep-going goes on behind it";

fn with<'a>(arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [arguments, more].concat()
}

/// Files of `in`, with their lengths.
fn fill(world: &World, files: &[(&str, usize)]) {
    for (name, len) in files {
        let path = world.path("in").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content(*len)).unwrap();
    }
}

fn is_there(world: &World, names: &[&str]) -> Vec<bool> {
    names.iter().map(|name| world.path(name).exists()).collect()
}

/// Lines that name what was left out, in order.
fn left_out(run: &Run) -> Vec<String> {
    let mut lines: Vec<_> = run.stderr.lines().filter(|line| line.ends_with("; it was left out")).collect();
    lines.sort_unstable();
    lines.into_iter().map(str::to_owned).collect()
}

#[test]
fn streams_that_do_not_open_are_named_and_left_out() {
    let world = world();
    let files = [("a", 20_000), ("b/cut", 40_000), ("b/d", 5), ("flipped", 20_000), ("other", 7), ("z", 0)];
    fill(&world, &files);
    world.succeeds(&PROTECT);
    let sealed = world.read("sealed/b/cut.kfs");
    world.write("sealed/b/cut.kfs", &sealed[..83 + 16_400]);
    let mut flipped = world.read("sealed/flipped.kfs");
    flipped[10_000] ^= 1;
    world.write("sealed/flipped.kfs", flipped);
    world.write("sealed/other.kfs", "no stream at all");
    // Wherever it stops, it says that it will again.
    let stopped = world.run(&REVEAL);
    assert!(stopped.stderr.contains(STOPS), "{}", stopped.stderr);
    let again = world.run(&with(&REVEAL, &["--resume"]));
    assert!(again.stderr.contains(STOPS) && again.code == stopped.code, "{}", again.stderr);
    fs::remove_dir_all(world.path("back")).unwrap();
    let run = world.run(&with(&REVEAL, &["--keep-going"])).expect(KEY, &["revealed 3 streams", "3 files left out"]);
    let lines = left_out(&run);
    let begins = ["keyfold: sealed/b/cut.kfs: ", "keyfold: sealed/flipped.kfs: ", "keyfold: sealed/other.kfs: "];
    assert!(lines.len() == 3 && lines.iter().zip(begins).all(|(line, with)| line.starts_with(with)), "{lines:?}");
    assert_eq!(
        is_there(&world, &["back/a", "back/b/d", "back/z", "back/b/cut", "back/flipped", "back/other"]),
        [true, true, true, false, false, false]
    );
    assert!(world.read("back/a") == content(20_000));
    // What is there is kept, and what does not open comes up again; scripts have the number.
    let summary = world.run(&with(&REVEAL, &["--keep-going", "--resume", "--json"])).expect(KEY, &[]).summary();
    let counts = ["streams", "kept", "failed", "bytes"].map(|name| summary[name].as_u64().unwrap());
    assert_eq!(counts, [0, 3, 3, 0]);
    // Of what does not open with 4 alone.
    for (name, _) in &files[3..4] {
        fs::remove_file(world.path(&format!("sealed/{name}.kfs"))).unwrap();
    }
    world.run(&with(&REVEAL, &["--keep-going", "--resume"])).expect(DATA, &["2 files left out"]);
    // An output that is there with another content stays.
    world.write("back/a", "mine");
    let kept = world.run(&with(&REVEAL, &["--keep-going", "--resume"])).expect(DATA, &["another content"]);
    assert!(left_out(&kept).len() == 3 && world.read("back/a") == b"mine", "{}", kept.stderr);
    world.refuses(
        &["reveal", "--stream", "image", "sealed/a.kfs", "--output", "x", "--keep-going"],
        USAGE,
        &["--keep-going is for folders"],
    );
}

#[test]
fn what_cannot_be_taken_is_left_out() {
    let world = world();
    let long = "n".repeat(252);
    fill(&world, &[("one", 5), ("sub/two", 5), ("twin", 5), ("twin.kfs/x", 5), (&long, 5)]);
    world.succeeds(&["protect", "--stream", "image", "in/one", "--output", "x"]);
    fs::rename(world.path("x"), world.path("in/sealed-already")).unwrap();
    std::os::unix::fs::symlink("one", world.path("in/link")).unwrap();
    mkfifoat(CWD, world.path("in/pipe"), Mode::RUSR).unwrap();
    let refused = world.run(&PROTECT);
    assert!(refused.stderr.contains("nothing was written; --keep-going leaves it out"), "{}", refused.stderr);
    assert!(!world.path("sealed").exists());
    let run = world.run(&with(&PROTECT, &["--keep-going"])).expect(DATA, &["protected 3 streams", "5 files left out"]);
    let lines = left_out(&run).join("\n");
    for says in [
        "in/link is a symbolic link",
        "in/pipe is a named pipe",
        "in/sealed-already: it is a stream",
        "256 bytes",
        "in/twin and the folder in/twin.kfs",
    ] {
        assert!(lines.contains(says), "{says:?}: {lines}");
    }
    assert_eq!(left_out(&run).len(), 5, "each once, though they are met twice: {}", run.stderr);
    assert_eq!(is_there(&world, &["sealed/one.kfs", "sealed/sub/two.kfs", "sealed/twin.kfs/x.kfs"]), [true; 3]);
    // A note beside the streams.
    world.write("sealed/readme", "x");
    world
        .run(&with(&REVEAL, &["--keep-going"]))
        .expect(DATA, &["sealed/readme does not end in .kfs", "1 file left out"]);
    assert_eq!(is_there(&world, &["back/one", "back/sub/two", "back/readme"]), [true, true, false]);
    // What a command line has wrong is refused as ever.
    world.refuses(&with(&PROTECT, &["--keep-going"]), USAGE, &["already exists", "nothing was written"]);
    let keys = world.keys();
    let own = ["protect", "--stream", "image", argument(&keys), "--output", "o", "--keep-going"];
    world.refuses(&own, USAGE, &["is a file of the keyring"]);
}

/// A key that is not to be used any more takes the streams under it along, and no others.
#[test]
fn streams_under_a_compromised_key_are_left_out() {
    let world = world();
    fill(&world, &[("one", 5), ("two", 6)]);
    world.succeeds(&PROTECT);
    let rotated = world.succeeds(&["keys", "rotate", "--json"]).json_lines();
    let old = rotated[0]["old"].as_str().unwrap().to_owned();
    fill(&world, &[("three", 7)]);
    world.succeeds(&with(&PROTECT, &["--resume"])).expect(0, &["2 are under an old generation"]);
    world.succeeds(&["keys", "state", &old, "compromised"]);
    let run = world.run(&with(&REVEAL, &["--keep-going"])).expect(KEY, &["revealed 1 stream of 7", "2 files left out"]);
    assert!(left_out(&run).len() == 2 && run.stderr.contains("KeyState"), "{}", run.stderr);
    assert_eq!(is_there(&world, &["back/one", "back/two", "back/three"]), [false, false, true]);
}

/// A key whose KEKs cannot be asked, or refuse, or are files that are missing, takes the streams under it along, and no others.
#[test]
fn streams_whose_kek_is_not_to_be_had_are_left_out() {
    let world = world();
    fill(&world, &[("a", 5)]);
    world.succeeds(&PROTECT);
    world.second_root();
    fill(&world, &[("b", 6), ("c", 7)]);
    world.succeeds(&with(&PROTECT, &["--resume"]));
    let config = fs::read_to_string(world.config()).unwrap();
    let section = "[keks.local]\nuri = \"local:local.kek\"\nretired = true\n";
    assert!(config.contains(section), "{config}");
    let changed = |to: &str| fs::write(world.config(), config.replace(section, to)).unwrap();
    let another = ["keys", "new-kek", "another.kek"];
    crate::common::run(crate::common::keyfold().current_dir(world.keys()).args(another), b"").expect(0, &[]);
    let of = |uri: &str, more: &str| format!("[keks.local]\nuri = \"{uri}\"\nretired = true\n{more}");
    for (section, code, says) in [
        (String::new(), POLICY, "none of the KEKs that wrap the key is configured here: local [111 Configuration]"),
        (of("local:another.kek", ""), KMS, "[410 WrongKey]"),
        (of("ftp://127.0.0.1/key", ""), POLICY, "[111 Configuration]"),
        (of("local:gone.kek", ""), KMS, "/gone.kek"),
        (of("local:local.kek", "use = \"recovery\"\n"), POLICY, "--recovery"),
    ] {
        changed(&section);
        for more in [&[][..], &["--resume"]] {
            let stopped = world.run(&with(&REVEAL, more)).expect(code, &[says, "; --keep-going goes on behind it\n"]);
            assert!(!stopped.stderr.contains("--resume goes on"), "{}", stopped.stderr);
        }
        fs::remove_dir_all(world.path("back")).unwrap();
        let run = world.run(&with(&REVEAL, &["--keep-going"])).expect(code, &["revealed 2 streams", "1 file left out"]);
        let lines = left_out(&run);
        assert!(
            lines.len() == 1 && lines[0].starts_with("keyfold: sealed/a.kfs: ") && lines[0].contains(says),
            "{lines:?}"
        );
        assert_eq!(is_there(&world, &["back/a", "back/b", "back/c"]), [false, true, true]);
        fs::remove_dir_all(world.path("back")).unwrap();
    }
    // An output that only its KEK keeps away may be whole.
    changed("");
    let hint = "run this again when its KEK is to be had; only if it never is, --force makes it anew";
    world.run(&with(&PROTECT, &["--resume"])).expect(POLICY, &["a.kfs is there, and does not open", hint]);
    changed(section);
    world.succeeds(&with(&REVEAL, &["--resume"]));
    assert_eq!(is_there(&world, &["back/a", "back/b", "back/c"]), [true; 3]);
}

/// A limit on the length of files is an error, and not the end by a signal; shorter files are within it.
#[test]
fn a_file_size_limit_is_an_error() {
    let world = world();
    fill(&world, &[("large", 3_000_000), ("small", 50_000)]);
    world.write("large", content(3_000_000));
    let limited = |arguments: &[&str]| {
        let inner = world.command(arguments);
        let mut command = Command::new("sh");
        // Blocks of 512 bytes, or of 1024 where sh is bash; the key store is shorter.
        command.args(["-c", "ulimit -f 2000; exec \"$0\" \"$@\""]).arg(inner.get_program()).args(inner.get_args());
        crate::common::run(command.current_dir(world.data()), b"")
    };
    let before = crate::common::snapshot(&world.data());
    limited(&["protect", "--stream", "image", "large", "--output", "out"])
        .expect(STORAGE, &["cannot write out", "File too large"]);
    assert_eq!(crate::common::snapshot(&world.data()), before);
    let limit =
        ["cannot write sealed/large.kfs", "the limit is ", " bytes (`ulimit -f`)", "--keep-going goes on behind it"];
    let stopped = limited(&PROTECT).expect(STORAGE, &limit);
    assert!(!stopped.stderr.contains(STOPS), "{}", stopped.stderr);
    let run = limited(&with(&PROTECT, &["--keep-going", "--resume"])).expect(STORAGE, &["1 file left out"]);
    assert!(left_out(&run)[0].contains("File too large"), "{}", run.stderr);
    assert_eq!(is_there(&world, &["sealed/small.kfs", "sealed/large.kfs"]), [true, false]);
}

/// Streams that name keys that nobody has are looked up no faster than a thousand in a second, which is no fault of any other.
#[test]
fn made_up_key_ids_leave_no_genuine_stream_out() {
    let world = world();
    let names: Vec<String> = (0..20).map(|n| format!("{n}")).collect();
    fill(&world, &names.iter().map(|name| (&**name, 5)).collect::<Vec<_>>());
    world.succeeds(&PROTECT);
    let mut stream = world.read("sealed/0.kfs");
    for n in 1..=3000_u64 {
        // From the second byte on, the key ID.
        stream[2..26]
            .copy_from_slice(&[n; 3].map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).map(u64::to_le_bytes).concat());
        world.write(&format!("sealed/made-up-{n}.kfs"), &stream);
    }
    let mut command = world.command(&with(&REVEAL, &["--keep-going"]));
    let run = crate::common::run(command.env("KEYFOLD_LOG", "error"), b"");
    assert!(
        !run.stderr.contains("LimitExceeded"),
        "{}",
        run.stderr.lines().find(|line| line.contains("Limit")).unwrap()
    );
    assert_eq!(left_out(&run).iter().filter(|line| line.contains("[300 NoMatchingKey]")).count(), 3000);
    let run = run.expect(KEY, &["revealed 20 streams", "3000 files left out"]);
    assert!(names.iter().all(|name| world.path("back").join(name).exists()), "{}", run.stderr);
}

/// A key that seals no more is no fault of the file that comes next.
#[test]
fn a_key_that_is_used_up_ends_the_run() {
    let world = world();
    let config = fs::read_to_string(world.config()).unwrap();
    fs::write(world.config(), config + "\n[rotation]\ndata_messages = 3\nlead = \"1h\"\n").unwrap();
    fill(&world, &[("a", 5), ("b", 5), ("c", 5), ("d", 5), ("e", 5)]);
    for more in [&["--keep-going"][..], &[]] {
        let says = [
            " has sealed as many values as [rotation] data_messages lets a key",
            "the next one seals when its `lead` has passed [103 LimitExceeded]",
            "; 3 files written, whole; --resume goes on behind them\n",
        ];
        let run = world.run(&with(&PROTECT, more)).expect(DATA, &says);
        assert!(!run.stderr.contains("left out") && !run.stderr.contains("await"), "{}", run.stderr);
        assert_eq!(fs::read_dir(world.path("sealed")).unwrap().count(), 3);
        fs::remove_dir_all(world.path("sealed")).unwrap();
    }
    // A row that is too long is one of its file.
    let deep = ["d".repeat(200).as_str(); 20].join("/");
    fill(&world, &[(&format!("{deep}/x"), 5)]);
    for name in ["a", "b", "c", "d", "e"] {
        fs::remove_file(world.path("in").join(name)).unwrap();
    }
    let context = format!("clinic={}", "c".repeat(200));
    let bound = ["protect", "--stream", "scan", "in", "--output", "sealed", "--context", &context, "--keep-going"];
    world.run(&bound).expect(DATA, &["at most 4,096 bytes", "; it was left out\n", "1 file left out"]);
}

/// No more files can be opened, whichever comes next; nor can it be told what else a folder has, which others do not suffer from.
#[test]
fn what_the_process_lacks_ends_the_run_and_half_a_folder_does_not() {
    let world = world();
    fill(&world, &[("a", 5), ("b", 5), ("sub/c", 5), ("sub/d", 5)]);
    // The check opens it first.
    for (calls, says) in [
        ("openat:error=EMFILE:when=1", "; nothing was written\n"),
        ("openat:error=EMFILE:when=2", "Too many open files"),
        ("read:error=ESTALE:when=2", "Stale file handle"),
    ] {
        let Some(run) = failing(&world, &with(&PROTECT, &["--keep-going", "--force"]), "in/b", calls) else { return };
        let run = run.expect(STORAGE, &[says]);
        assert!(!run.stderr.contains("left out") && !run.stderr.contains(STOPS), "{calls}: {}", run.stderr);
    }
    fs::remove_dir_all(world.path("sealed")).unwrap_or_default();
    // The first call has all entries, and the next one is to say that there are no more.
    let calls = "getdents64:error=EIO:when=2+2";
    let run = failing(&world, &with(&PROTECT, &["--keep-going"]), "in/sub", calls).unwrap();
    let run = run.expect(STORAGE, &["protected 4 streams", "1 folder left out"]);
    let line = "keyfold: cannot read the rest of in/sub: Input/output error (os error 5); it was left out";
    assert_eq!(left_out(&run), [line]);
    let run = failing(&world, &with(&PROTECT, &["--force"]), "in/sub", calls).unwrap();
    run.expect(STORAGE, &["cannot read the rest of in/sub", "nothing was written"]);
}

/// A disk that is full is full for the next file as well.
#[test]
fn a_full_disk_ends_the_run() {
    let world = world();
    fill(&world, &[("a", 400_000), ("b", 400_000), ("c", 400_000), ("d", 400_000)]);
    fs::create_dir(world.path("mnt")).unwrap();
    let script = "mount -t tmpfs -o size=1m tmpfs mnt || exit 99; \"$@\"; code=$?; ls mnt/out | wc -l; exit $code";
    let mut command = Command::new("unshare");
    command.current_dir(world.data()).args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    let inner = world.command(&["protect", "--stream", "image", "in", "--output", "mnt/out", "--keep-going"]);
    command.arg(inner.get_program()).args(inner.get_args());
    let Ok(output) = command.stdin(Stdio::null()).output() else {
        return skip("a full disk (no unshare)");
    };
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    check_silence(&stderr);
    if output.status.code() != Some(STORAGE) && (stderr.contains("unshare") || output.status.code() == Some(99)) {
        return skip(&format!("a full disk (unshare does not work here: {stderr})"));
    }
    assert_eq!(output.status.code(), Some(STORAGE), "{stderr}");
    let written = String::from_utf8(output.stdout).unwrap();
    assert_eq!(written, "2\n");
    assert!(stderr.contains("no space left") && !stderr.contains("left out"), "{stderr}");
    assert!(stderr.contains("2 files written, whole; --resume goes on behind them\n"), "{stderr}");
}

/// Two runs into one folder: who comes second to a file is told what to do, which is not --force.
#[test]
fn an_output_that_appears_meanwhile_is_left() {
    let world = world();
    fs::create_dir(world.path("in")).unwrap();
    // Long enough that the output is still being written when somebody else's appears.
    File::create(world.path("in/large")).unwrap().set_len(256 << 20).unwrap();
    for more in [&["--resume"][..], &["--resume", "--keep-going"], &[]] {
        let arguments = [&PROTECT[..], &["--threads", "1"], more].concat();
        let (code, said) = while_writing(&world, &arguments, |_| world.write("sealed/large.kfs", "of another run"));
        assert_eq!(code, Some(USAGE), "{said}");
        for says in
            ["sealed/large.kfs appeared meanwhile", "another run may be at work", "run this again with --resume"]
        {
            assert!(said.contains(says), "{says:?}: {said}");
        }
        assert!(!said.contains("--force"), "{said}");
        assert_eq!(world.read("sealed/large.kfs"), b"of another run");
        fs::remove_dir_all(world.path("sealed")).unwrap();
    }
}

/// What is sealed already has one exit code, with the option and without.
#[test]
fn what_is_sealed_already_is_refused_with_one_code() {
    let world = world();
    world.write("in", content(10));
    world.succeeds(&PROTECT);
    world.refuses(&["protect", "--stream", "image", "sealed", "--output", "x"], POLICY, &["it is a stream already"]);
    world.refuses(&["protect", "sealed", "--output", "x"], POLICY, &["sealed is a stream"]);
}
