//! Folders of streams under a new key: the commands of docs/STREAMS.md, and what `census` says before and after.
#![allow(clippy::unwrap_used, reason = "a test")]

use crate::common::{DATA, KEY, Run, STORAGE, World, argument, repository, run};
use crate::shared_streams::{PROTECT, content, unprivileged, world};
use serde_json::Value as Json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// What the census of a folder says: files, streams by generation and state, and what is none.
fn census(world: &World, folder: &str, more: &[&str]) -> (Json, Vec<(u64, Json, u64)>, [u64; 3]) {
    let config = world.config();
    let arguments = [&["census", folder, "--json", "--config", config.to_str().unwrap()], more].concat();
    let run = world.run(&arguments).expect(0, &[]);
    let found = run.json_lines().remove(0);
    let column = &found["columns"][0];
    assert_eq!(column["column"], "(stream)");
    let generations = column["generations"].as_array().unwrap().iter();
    let generations =
        generations.map(|of| (of["generation"].as_u64().unwrap(), of["state"].clone(), of["values"].as_u64().unwrap()));
    let others = ["clear", "malformed", "empty"].map(|name| column[name].as_u64().unwrap());
    (found["rows"].clone(), generations.collect(), others)
}

#[test]
fn a_census_counts_the_streams_of_a_folder() {
    let world = world();
    fs::create_dir_all(world.path("in/a/b")).unwrap();
    for (n, name) in ["one", "a/two", "a/b/three"].iter().enumerate() {
        fs::write(world.path("in").join(name), content(n * 10_000)).unwrap();
    }
    world.succeeds(&PROTECT);
    world.succeeds(&["keys", "rotate"]);
    fs::write(world.path("in/four"), content(4)).unwrap();
    world.succeeds(&[&PROTECT[..], &["--resume"]].concat()).expect(0, &["3 are under an old generation"]);
    let (rows, generations, others) = census(&world, "sealed", &[]);
    let [(old, retired, 3), (new, current, 1)] = &generations[..] else { panic!("{generations:?}") };
    assert!(rows == 4 && old < new && *retired == "retired" && *current == "current" && others == [0; 3]);
    // What is no stream is counted, too; a link is named.
    let sealed = world.read("sealed/one.kfs");
    for (name, bytes) in [("cut", &sealed[..50]), ("clear", &content(10)[..]), ("empty", b""), ("byte", &sealed[..1])] {
        world.write(&format!("sealed/{name}"), bytes);
    }
    std::os::unix::fs::symlink("one.kfs", world.path("sealed/link")).unwrap();
    let (rows, _, others) = census(&world, "sealed", &[]);
    assert!(rows == 8 && others == [1, 2, 1], "{others:?}");
    let text = world.run(&["census", "sealed"]).expect(0, &["sealed/link is a symbolic link, and is not counted"]);
    assert!(text.stdout_text().starts_with("sealed: 8 rows\n"), "{}", text.stdout_text());
    // For `keys verify`, without the keyring.
    let ids = world.run(&["census", "sealed", "in", "--key-ids", "-"]).expect(0, &[]);
    let counts: Vec<_> = ids.stdout_text().lines().map(|line| line.split_once('\t').unwrap().1).collect();
    assert_eq!(counts, ["3", "1"]);
    world.run(&["census", "sealed", "--column", "x"]).expect(DATA, &["sealed: a stream has no columns"]);
}

/// One file that cannot be read is no reason to know nothing of the others, and the exit code says that they are not all.
#[test]
fn a_census_names_what_it_cannot_read_and_goes_on() {
    let world = world();
    fs::create_dir_all(world.path("in/closed")).unwrap();
    for name in ["one", "tw\x1bo", "closed/three"] {
        fs::write(world.path("in").join(name), content(5)).unwrap();
    }
    world.succeeds(&PROTECT);
    for name in ["tw\x1bo.kfs", "closed"] {
        fs::set_permissions(world.path("sealed").join(name), fs::Permissions::from_mode(0o000)).unwrap();
    }
    let Some(run) = unprivileged(&world, &["census", "sealed"]) else { return };
    let says =
        ["cannot read sealed/closed: ", "cannot read sealed/tw\\u{1b}o.kfs: ", "is not counted: 2, each named above"];
    let run = run.expect(STORAGE, &says);
    assert!(run.stdout_text().starts_with("sealed: 1 row\n"), "{}", run.stdout_text());
    // That nobody vouches for a key does not hide behind it.
    fs::copy(World::new().keys().join("local.kek"), world.keys().join("local.kek")).expect("another KEK");
    let config = world.config();
    let run = unprivileged(&world, &["census", "sealed", "--config", argument(&config)]).expect("as above");
    run.expect(KEY, &["[410 WrongKey]", "is not counted: 2, each named above"]);
}

/// Names of files may hold what a terminal would obey.
#[test]
fn names_are_printed_as_they_are_not() {
    let world = world();
    world.write("in", content(5));
    world.succeeds(&["protect", "--stream", "image", "in", "--output", "tw\x1bo"]);
    for arguments in [&["inspect", "--file", "tw\x1bo"][..], &["census", "tw\x1bo"]] {
        let run = world.succeeds(arguments);
        assert!(run.stdout_text().starts_with("tw\\u{1b}o: "), "{}", run.stdout_text());
    }
}

/// The commands of the page, the second time after an interruption.
#[test]
fn the_commands_of_the_page_on_streams_work() {
    let page = fs::read_to_string(repository("docs/STREAMS.md")).unwrap();
    let section = page.split("\n## To a new key\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let script = section.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(script.matches("keyfold ").count(), 4, "{script}");
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let binary = Path::new(env!("CARGO_BIN_EXE_keyfold")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap_or_default());
    let sh = |script: &str| -> Run {
        let mut command = Command::new("sh");
        let script = format!("set -eu\n{script}");
        run(command.args(["-c", &script]).current_dir(folder.path()).env("PATH", &path), b"").expect(0, &[])
    };
    sh("keyfold init .");
    let mut config = fs::read_to_string(at("keyfold.toml")).unwrap();
    config.push_str("\n[fields.\"patient.image\"]\nmode = \"stream\"\nrow_binding = \"image_id\"\nrequired_context = [\"tenant\"]\n");
    fs::write(at("keyfold.toml"), config).unwrap();
    fs::create_dir_all(at("scans/a")).unwrap();
    for name in ["one", "a/two", "three"] {
        fs::write(at("scans").join(name), content(20_000)).unwrap();
    }
    sh("keyfold protect --stream patient.image scans --output protected --context tenant=clinic-17");
    let done = sh(script);
    let census = |done: &Run| {
        done.stdout_text().lines().filter(|line| line.contains("(stream)")).map(str::to_owned).collect::<Vec<_>>()
    };
    let [line] = &census(&done)[..] else { panic!("{}", done.stdout_text()) };
    assert!(line.ends_with(" 3  current"), "{line}");
    // Interrupted: what is there is kept, and the rest follows.
    for name in ["clear/one", "renewed/one.kfs", "renewed/a/two.kfs"] {
        fs::remove_file(at(name)).unwrap();
    }
    let repeated = script.lines().filter(|line| !line.contains("keys rotate")).collect::<Vec<_>>().join("\n");
    let done = sh(&repeated);
    for says in ["revealed 1 stream of 20000 bytes; 2 were there", "protected 2 streams of 40000 bytes; 1 was there"] {
        assert!(done.stderr.contains(says), "{says:?}: {}", done.stderr);
    }
    assert!(census(&done)[0].ends_with(" 3  current"), "{}", done.stdout_text());
    // Into the folder that is there, --resume keeps what is under the old key, and it shows.
    let kept = sh(
        "keyfold protect --stream patient.image clear --output protected --context tenant=clinic-17 --resume; keyfold census protected --config keyfold.toml",
    );
    assert!(kept.stderr.contains("3 were there already, with the same content; 3 are under an old generation"));
    assert!(census(&kept)[0].ends_with(" 3  retired"), "{}", kept.stdout_text());
}
