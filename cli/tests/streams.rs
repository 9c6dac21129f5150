//! Whole files as streams: what goes in comes out, nothing half done appears, and what is not whole is refused (docs/STREAMS.md).
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
#[path = "common/streams.rs"]
mod shared_streams;

use common::{CANARY, DATA, KEY, POLICY, STORAGE, USAGE, World, contains, run, snapshot};
use rustix::process::{Pid, Signal, kill_process};
use shared_streams::{PROTECT, REVEAL, RULES, content, world};
use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

#[test]
fn files_of_any_length_come_back() {
    let world = world();
    for len in [0, 1, 16_383, 16_384, 16_385, 1_000_000, 5_000_000] {
        world.write("in", content(len));
        let run = world.succeeds(&[&PROTECT[..], &["--force", "--json"]].concat());
        assert_eq!((&run.summary()["streams"], &run.summary()["bytes"]), (&1.into(), &len.into()));
        let sealed = world.read("sealed");
        assert_eq!(sealed.len(), 83 + len + 16 * (len / 16_384 + 1));
        assert!(!contains(&sealed, CANARY.as_bytes()));
        world.succeeds(&[&REVEAL[..], &["--force"]].concat());
        assert!(world.read("back") == content(len), "{len} bytes");
        let run = world.succeeds(&["inspect", "--file", "sealed", "--json"]);
        assert_eq!((&run.json_lines()[0]["kind"], &run.json_lines()[0]["len"]), (&"stream".into(), &len.into()));
        for threads in ["1", "3", "200"] {
            world.succeeds(&[&PROTECT[..], &["--force", "--threads", threads]].concat());
            world.succeeds(&[&REVEAL[..], &["--force", "--threads", threads]].concat());
            assert!(world.read("back") == content(len), "{len} bytes, {threads} threads");
        }
    }
    world.succeeds(&["keys", "rotate"]);
    world
        .succeeds(&["reveal", "--stream", "image", "sealed", "--output", "later"])
        .expect(0, &["under an old generation"]);
    let census = world.succeeds(&["census", "sealed", "--json"]);
    let found = &census.json_lines()[0]["columns"][0]["generations"][0];
    assert_eq!((&found["suite"], &found["values"]), (&"04".into(), &1.into()));
}

#[test]
fn pipes_carry_streams() {
    let world = world();
    let plain = content(3_000_000);
    let sealed =
        run(&mut world.command(&["protect", "--stream", "image", "-", "--output", "-"]), &plain).expect(0, &[]);
    let opened = ["reveal", "--stream", "image", "-", "--output", "-"];
    let back = run(&mut world.command(&opened), &sealed.stdout).expect(0, &["revealed 1 stream of 3000000 bytes"]);
    assert!(back.stdout == plain);
    // Between two chunks: what was there comes out, and the exit code says that it is not all.
    let mut child =
        world.command(&opened).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let cut = sealed.stdout[..83 + 50 * 16_400].to_vec();
    let mut stdin = child.stdin.take().unwrap();
    let feeder = thread::spawn(move || stdin.write_all(&cut));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(DATA), "{said}");
    assert!(said.contains("cut, or never finished") && said.contains("discard it"), "{said}");
    assert!(plain.starts_with(&output.stdout));
    // A reader that goes away.
    let mut child = world.command(&["protect", "--stream", "image", "-", "--output", "-"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    let feeder = thread::spawn(move || stdin.write_all(&plain));
    let output = child.wait_with_output().unwrap();
    drop(feeder.join().unwrap());
    assert_eq!(output.status.code(), Some(STORAGE), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_is_not_as_it_was_sealed_leaves_no_file() {
    let world = world();
    world.write("in", content(100_000));
    world.succeeds(&PROTECT);
    let sealed = world.read("sealed");
    let header = sealed[..83].to_vec();
    let refuses = |sealed: &[u8], code: i32, says: &str| {
        world.write("sealed", sealed);
        // With the file, and what it may be.
        let hint = match says {
            "Malformed" if sealed.starts_with(&header) => "cut, or never finished",
            "Malformed" if sealed.is_empty() => "it is empty",
            "Malformed" if header.starts_with(sealed) => "cut in its header",
            "Malformed" => "does not begin as a stream does",
            _ if sealed.starts_with(&header) => "was changed, or cut",
            _ => "",
        };
        drop(world.refuses(&REVEAL, code, &["keyfold: sealed: ", says, hint]));
    };
    for len in [0, 40, 83, 83 + 16_400, 83 + 3 * 16_400, sealed.len() - 1, sealed.len() - 2000] {
        let is_length = len < 99 || (len - 83) % 16_400 < 16;
        refuses(
            &sealed[..len],
            if is_length { DATA } else { KEY },
            if is_length { "Malformed" } else { "DecryptionFailed" },
        );
    }
    refuses(&[&sealed[..], b"x"].concat(), KEY, "DecryptionFailed");
    for at in [30, 60, 100, 50_000, sealed.len() - 1] {
        let mut flipped = sealed.clone();
        flipped[at] ^= 4;
        refuses(&flipped, KEY, "DecryptionFailed");
    }
    refuses(&content(1000), DATA, "Malformed");
    world.write("sealed", &sealed);
    let reveal = |more: &[&'static str]| [&["reveal", "sealed", "--output", "back"][..], more].concat();
    let elsewhere = ["sealed: ", "DecryptionFailed", "--context and --row-file", "or its header was changed"];
    world.refuses(&reveal(&["--stream", "export", "--context", "tenant=t"]), KEY, &elsewhere);
    world.refuses(&reveal(&["--stream", "image", "--context", "tenant=t"]), KEY, &["DecryptionFailed"]);
    // What somebody has sealed so in the past must open.
    world.refuses(&reveal(&["--stream", "image", "--context", "tenant="]), KEY, &["DecryptionFailed"]);
    world.refuses(&reveal(&["--stream", "image", "--scope", "no such"]), KEY, &["NoMatchingKey", "check how --scope"]);
    world.refuses(
        &reveal(&["--stream", "export"]),
        POLICY,
        &["context key that is missing", "tenant", "--context KEY"],
    );
    world.succeeds(&["protect", "--stream", "image", "in", "--output", "of-scope", "--scope", "clinic"]);
    world.refuses(
        &["reveal", "--stream", "image", "of-scope", "--output", "back"],
        KEY,
        &["WrongScope", "--scope must name the scope"],
    );
    let whole = ["reveal", "--stream", "image", "sealed", "--output", "back", "--scope", "clinic"];
    world.refuses(&whole, KEY, &["WrongScope", "left out if there was none"]);
    world.succeeds(&["reveal", "--stream", "image", "of-scope", "--output", "back", "--scope", "clinic"]);
    assert!(world.read("back") == content(100_000));
}

#[test]
fn a_row_is_read_from_a_file() {
    let world = world();
    world.write("in", content(10));
    world.write("row", "Canáry7391-id-1\n");
    world.write("other", "Canáry7391-id-2");
    let protect =
        |more: &[&'static str]| [&["protect", "--stream", "scan", "in", "--output", "sealed"][..], more].concat();
    world.refuses(&protect(&[]), USAGE, &["row binding is needed", "--row-file names a file with it"]);
    world.succeeds(&protect(&["--row-file", "row"]));
    let reveal =
        |more: &[&'static str]| [&["reveal", "--stream", "scan", "sealed", "--output", "back"][..], more].concat();
    world.refuses(&reveal(&["--row-file", "other"]), KEY, &["DecryptionFailed"]);
    world.refuses(&reveal(&[]), USAGE, &["row binding is needed", "--row-file names a file with it"]);
    world.succeeds(&reveal(&["--row-file", "row"]));
    assert_eq!(world.read("back"), content(10));
    run(&mut world.command(&reveal(&["--row-file", "-", "--force"])), b"Can\xc3\xa1ry7391-id-1\n").expect(0, &[]);
    let both = ["reveal", "--stream", "scan", "-", "--output", "back", "--row-file", "-"];
    world.refuses(&both, USAGE, &["standard input"]);
    world.refuses(&["reveal", "in", "--output", "x"], USAGE, &["--format", "--stream FIELD"]);
    world.write("image.kfs", world.read("sealed"));
    world.run(&["scan", "--policy", "policy.toml", "image.kfs"]).expect(USAGE, &["it is a stream", "census"]);
    for (bad, code) in [("", DATA), ("\n", DATA), ("a\nb", DATA), (&"x".repeat(5000)[..], DATA)] {
        world.write("bad", bad);
        world.refuses(
            &reveal(&["--row-file", "bad", "--force"]),
            code,
            &["--row-file: bad has ", "the row binding is one line"],
        );
    }
    for unseen in ["Canáry7391-id-1\r\n", "\u{feff}Canáry7391-id-1\n"] {
        world.write("bad", unseen);
        world.refuses(
            &reveal(&["--row-file", "bad", "--force"]),
            DATA,
            &["--row-file: bad has a byte order mark or a carriage"],
        );
    }
    world.refuses(&reveal(&["--row-file", "missing", "--force"]), STORAGE, &["--row-file: cannot read missing"]);
    let unbound = [&PROTECT[..], &["--row-file", "row", "--force"]].concat();
    world.refuses(&unbound, USAGE, &["not bound to its row", "leave --row-file out"]);
}

#[test]
fn wrong_command_lines_are_refused() {
    let world = world();
    world.write("in", content(10));
    let with = |more: &[&'static str]| [&PROTECT[..], more].concat();
    for more in [&["--format", "csv"][..], &["--delimiter", ";"], &["--tokens", "sqlite:t"], &["--pass-unmatched"]] {
        world.refuses(&with(more), USAGE, &["cannot be used with"]);
    }
    for flags in [&["--resume"][..], &["--row-file", "in"]] {
        world.refuses(&[&["protect", "in.csv", "--output", "out"][..], flags].concat(), USAGE, &["--stream"]);
    }
    world.refuses(&with(&["--resume"]), USAGE, &["--resume is for folders"]);
    // `--context tenant=$TENANT` where that is not set.
    let empty = ["--context", "tenant="];
    world.refuses(&with(&empty), USAGE, &["--context tenant= has an empty value: is a variable unset?"]);
    world.refuses(&[&["protect", "in.csv", "--output", "out"][..], &empty].concat(), USAGE, &["has an empty value"]);
    world.refuses(&["protect", "--stream", "name", "in", "--output", "o"], POLICY, &["none of streams"]);
    world.refuses(
        &["protect", "--stream", "missing", "in", "--output", "o"],
        POLICY,
        &["no such field: missing; it has ", "scan"],
    );
    world.refuses(&["protect", "--stream", "image", "missing", "--output", "o"], STORAGE, &["cannot read missing"]);
    world.refuses(&["protect", "--stream", "image", "in", "--output", "in", "--force"], USAGE, &["also the input"]);
    world.refuses(
        &["protect", "--stream", "image", "in", "--output", "policy.toml", "--force"],
        USAGE,
        &["never overwritten"],
    );
    world.refuses(&["protect", "--stream", "image", "in", "--output", "no/folder"], STORAGE, &["cannot create"]);
    world.succeeds(&PROTECT);
    world.refuses(&PROTECT, USAGE, &["already exists"]);
    // Twice is a mistake, unless it is meant.
    world.refuses(&["protect", "--stream", "image", "sealed", "--output", "o"], POLICY, &["--seal-sealed"]);
    world.succeeds(&["protect", "--stream", "image", "sealed", "--output", "twice", "--seal-sealed"]);
    world.succeeds(&["reveal", "--stream", "image", "twice", "--output", "once"]);
    assert_eq!(world.read("once"), world.read("sealed"));
}

#[test]
fn other_inputs_have_no_streams_of_the_policy() {
    let world = world();
    world.write("names.csv", "name\nCanáry7391\n");
    world.write("names.ndjson", "{\"name\":\"Canáry7391\"}\n");
    world.write("policy.toml", RULES.replace("columns = [\"name\"]", "columns = [\"name\"]\npaths = [\"$.name\"]"));
    for name in ["names.csv", "names.ndjson"] {
        let [sealed, newer, statement] = ["sealed", "newer", "statement"].map(|what| format!("{what}-{name}"));
        world.succeeds(&["protect", name, "--output", &sealed]).expect(0, &["protected 1 values"]);
        world.succeeds(&["keys", "rotate"]);
        world.succeeds(&["reencrypt", &sealed, "--output", &newer, "--statement", &statement]);
        world.succeeds(&["reveal", &newer, "--output", "back", "--force"]);
        assert_eq!(world.read("back"), world.read(name));
    }
}

/// Whoever forgets --stream is told so.
#[test]
fn whole_files_without_the_option_are_told_of_it() {
    let world = world();
    world.write("in", [&[0; 128][..], &content(1000)].concat());
    world.refuses(&["protect", "in", "--output", "out"], USAGE, &["--format", "--stream FIELD protects a whole file"]);
    world.refuses(
        &["reveal", "in", "--output", "out"],
        USAGE,
        &["--stream FIELD reveals what `protect --stream` made"],
    );
    world.succeeds(&PROTECT);
    world.write("map.csv", "from,to\na,b\n");
    for name in ["sealed", "image.kfs", "image.csv", "image.json"] {
        world.write(name, world.read("sealed"));
        let says = |how| [name, "is a stream", how];
        world.refuses(&["protect", name, "--output", "out"], POLICY, &says("protected already"));
        world.refuses(&["reveal", name, "--output", "out"], USAGE, &says("--stream FIELD reveals it"));
        world.refuses(&["reencrypt", name, "--output", "out"], USAGE, &says("reveal it, and protect it again"));
        let rebind = ["rebind", name, "--map", "map.csv", "--output", "out"];
        world.refuses(&rebind, USAGE, &says("reveal it, and protect it again"));
        world.refuses(&["reveal", name, "--format", "csv", "--output", "out"], USAGE, &says("--stream FIELD"));
    }
    fs::create_dir(world.path("folder")).unwrap();
    for verb in ["protect", "reveal"] {
        world.refuses(&[verb, "folder", "--output", "out"], USAGE, &["folder is a folder; --stream FIELD"]);
    }
}

#[test]
fn a_signal_leaves_no_half_of_a_stream() {
    for (input, output) in [("-", "out"), ("-", "-")] {
        let world = world();
        let before = snapshot(&world.data());
        let mut child = world.command(&["protect", "--stream", "image", input, "--output", output]);
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let reader = thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
        let feeder = thread::spawn(move || while stdin.write_all(&[7; 50_000]).is_ok() {});
        thread::sleep(Duration::from_millis(1500));
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let ended = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        reader.join().unwrap().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(130), "{said}");
        let expected = if output == "-" { "discard it" } else { "no file was written" };
        assert!(said.contains(expected), "{said}");
        assert_eq!(snapshot(&world.data()), before);
    }
}

// Failure F16
/// A signal that arrives when an output has its name does not unmake it: what is said of files is so.
#[test]
fn a_signal_is_told_with_what_is_there() {
    let end = |child: Child| {
        let ended = child.wait_with_output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    let start = |world: &World, arguments: &[&str]| {
        world.command(arguments).env("KEYFOLD_LOG", "error").stderr(Stdio::piped()).spawn().unwrap()
    };
    for round in 0..5 {
        let world = world();
        world.write("in", content(10));
        let child = start(&world, &PROTECT);
        while !world.path("sealed").exists() {}
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        assert_eq!(end(child), (Some(0), "protected 1 stream of 10 bytes\n".to_owned()), "round {round}");
    }
    // A folder, after n of its files.
    let world = world();
    fs::create_dir(world.path("in")).unwrap();
    const FILES: usize = 60;
    for n in 0..FILES {
        fs::write(world.path(&format!("in/{n}")), content(n)).unwrap();
    }
    let there = || fs::read_dir(world.path("sealed")).map_or(0, Iterator::count);
    for round in 0..FILES {
        let child = start(&world, &PROTECT);
        while there() <= round {}
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        match end(child) {
            (Some(0), said) => assert!(there() == FILES && said.contains("60 streams"), "round {round}: {said}"),
            (Some(130), said) => {
                let says = format!("interrupted by SIGINT; {} file", there());
                assert!(said.contains(&says), "round {round}: {} files are there: {said}", there());
            }
            ended => panic!("round {round}: {ended:?}"),
        }
        fs::remove_dir_all(world.path("sealed")).unwrap();
    }
}

/// Links to one file and to one stream stand for as many files: what is kept of a folder with a hundred times the files is the same.
#[test]
fn a_folder_of_any_length_needs_little_memory() {
    const MOST_KIB: u64 = 1024;
    let world = world();
    world.write("in", "");
    world.succeeds(&PROTECT);
    let peaks = [100, 10_000].map(|files| {
        let [input, output] = ["in", "sealed"].map(|name| {
            let folder = format!("{name}-{files}");
            fs::create_dir(world.path(&folder)).unwrap();
            for n in 0..files {
                let suffix = if name == "in" { "" } else { ".kfs" };
                fs::hard_link(world.path(name), world.path(&format!("{folder}/scan-of-some-length-{n}{suffix}")))
                    .unwrap();
            }
            folder
        });
        let kept = format!("{files} were there already");
        let resumed =
            peak_of(&world, &["protect", "--stream", "image", &input, "--output", &output, "--resume"], 0, &kept);
        // What is left out is named, and not remembered.
        let stream = world.read("sealed");
        world.write("sealed", "no stream, under all its names");
        let left_out = format!("{files} files left out");
        let reveal = ["reveal", "--stream", "image", &output, "--output", &format!("back-{files}"), "--keep-going"];
        let left_out = peak_of(&world, &reveal, DATA, &left_out);
        world.write("sealed", stream);
        [resumed, left_out]
    });
    println!("peak resident sizes with 100 and 10,000 files: {peaks:?} KiB");
    let [few, many] = peaks;
    assert!(few.iter().zip(many).all(|(few, many)| *few > 0 && many < few + MOST_KIB), "{peaks:?} KiB");
}

/// The greatest resident size of a command that ends with `code` and says `says`.
fn peak_of(world: &World, arguments: &[&str], code: i32, says: &str) -> u64 {
    let mut child = world.command(arguments).env("KEYFOLD_LOG", "error").stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    // What it says is read meanwhile: it may be more than what a pipe holds.
    let said = thread::spawn(move || {
        let mut said = Vec::new();
        stderr.read_to_end(&mut said).map(|_| said)
    });
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        peak = peak_kib(&child).unwrap_or(peak).max(peak);
        thread::sleep(Duration::from_millis(1));
    }
    let said = said.join().unwrap().unwrap();
    assert!(contains(&said, says.as_bytes()), "{}", String::from_utf8_lossy(&said));
    assert_eq!(child.wait().unwrap().code(), Some(code));
    peak
}

/// The greatest resident size of a process so far, in KiB.
fn peak_kib(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// 256 MiB, or KEYFOLD_STREAM_MIB, through protect and reveal, each in less than 32 MiB.
#[test]
fn a_stream_of_any_length_needs_little_memory() {
    const MIB: usize = 1 << 20;
    const MOST_KIB: u64 = 32 * 1024;
    let len = std::env::var("KEYFOLD_STREAM_MIB").map_or(256, |mib| mib.parse().expect("a number"));
    let world = world();
    let start = |verb: &str, input: Stdio| {
        let mut command = world.command(&[verb, "--stream", "image", "-", "--output", "-"]);
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts")
    };
    let mut protect = start("protect", Stdio::piped());
    let mut reveal = start("reveal", protect.stdout.take().expect("a pipe").into());
    let (mut into, mut out) = (protect.stdin.take().expect("a pipe"), reveal.stdout.take().expect("a pipe"));
    let base = content(MIB);
    let part = move |n: usize| [&n.to_le_bytes()[..], &base[8..]].concat();
    let sent = part.clone();
    let feeder = thread::spawn(move || (0..len).try_for_each(|n| into.write_all(&sent(n))));
    let (mut buffer, mut peaks) = (vec![0; MIB], [0; 2]);
    for n in 0..len {
        out.read_exact(&mut buffer).expect("as much as went in");
        assert!(buffer == part(n), "part {n} came back changed");
        for (peak, child) in peaks.iter_mut().zip([&protect, &reveal]) {
            *peak = peak_kib(child).unwrap_or(*peak).max(*peak);
        }
    }
    assert_eq!(out.read(&mut buffer).expect("the end"), 0);
    feeder.join().expect("the feeder").expect("all was read");
    for child in [&mut protect, &mut reveal] {
        assert!(child.wait().expect("a status").success());
    }
    println!("{len} MiB; peak resident sizes: {peaks:?} KiB");
    assert!(peaks.iter().all(|peak| (1..MOST_KIB).contains(peak)), "{peaks:?} KiB");
}
