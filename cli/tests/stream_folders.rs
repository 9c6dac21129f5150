//! Folders of files as streams: all of it comes back, or it is said before anything is written why not (docs/CLI.md, Whole files).
#![allow(clippy::unwrap_used, reason = "a test")]

use crate::common::{DATA, KEY, POLICY, STORAGE, USAGE, World};
use crate::shared_streams::{PROTECT, REVEAL, content, unprivileged, world};
use rustix::fs::{CWD, Mode, mkfifoat};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Every file below a folder.
fn tree(world: &World, folder: &str) -> Vec<(String, Vec<u8>)> {
    let (mut found, mut todo) = (Vec::new(), vec![world.path(folder)]);
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let name = path.strip_prefix(world.path(folder)).unwrap().to_str().unwrap().to_owned();
            found.push((name, fs::read(path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn folders_go_file_by_file_and_resume_by_comparing() {
    let world = world();
    fs::create_dir_all(world.path("in/a/b")).unwrap();
    fs::create_dir_all(world.path("in/empty")).unwrap();
    for (name, len) in [("one", 5), ("a/two.dcm", 20_000), ("a/b/three", 0), ("z.kfs", 16_384)] {
        fs::write(world.path("in").join(name), content(len)).unwrap();
    }
    let protect =
        |more: &[&'static str]| [&["protect", "--stream", "scan", "in", "--output", "sealed"][..], more].concat();
    let reveal =
        |more: &[&'static str]| [&["reveal", "--stream", "scan", "sealed", "--output", "back"][..], more].concat();
    world.succeeds(&protect(&[])).expect(0, &["protected 4 streams of 36389 bytes"]);
    let sealed = tree(&world, "sealed");
    let names: Vec<&str> = sealed.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["a/b/three.kfs", "a/two.dcm.kfs", "one.kfs", "z.kfs.kfs"]);
    world.succeeds(&reveal(&[]));
    assert!(tree(&world, "back") == tree(&world, "in"));
    assert!(world.path("back/empty").is_dir());
    // Again: everything is there.
    world.refuses(&protect(&[]), USAGE, &["already exists", "--resume"]);
    world.succeeds(&protect(&["--resume"])).expect(0, &["protected 0 streams", "4 were there already"]);
    assert!(tree(&world, "sealed") == sealed, "what is there was not sealed anew");
    world.succeeds(&reveal(&["--resume"])).expect(0, &["4 were there already"]);
    // One is missing, one was changed since.
    fs::remove_file(world.path("sealed/one.kfs")).unwrap();
    world.succeeds(&protect(&["--resume"])).expect(0, &["protected 1 stream of 5 bytes", "3 were there"]);
    fs::write(world.path("in/a/two.dcm"), content(20_001)).unwrap();
    world.run(&protect(&["--resume"])).expect(USAGE, &["a/two.dcm", "with another content; --force replaces it"]);
    world.succeeds(&protect(&["--resume", "--force"])).expect(0, &["protected 1 stream of 20001 bytes"]);
    world.succeeds(&reveal(&["--resume", "--force"]));
    // A stream that was exchanged for another one, and one that was cut.
    fs::copy(world.path("sealed/one.kfs"), world.path("sealed/z.kfs.kfs")).unwrap();
    let other = ["z.kfs", "is no stream of this field and context", "--force replaces it"];
    world.run(&protect(&["--resume"])).expect(USAGE, &other);
    for unlike in [&b""[..], &[7; 5000]] {
        fs::write(world.path("sealed/z.kfs.kfs"), unlike).unwrap();
        world.run(&protect(&["--resume"])).expect(USAGE, &other);
    }
    fs::write(world.path("sealed/z.kfs.kfs"), &sealed[3].1[..83 + 16_400]).unwrap();
    world.run(&protect(&["--resume"])).expect(USAGE, &["z.kfs", "was changed, or cut", "--force replaces it"]);
    let back = world.path("back/z.kfs");
    world.run(&reveal(&["--resume"])).expect(KEY, &["z.kfs.kfs: ", "was changed, or cut", "was left as it is"]);
    assert_eq!(fs::read(back).unwrap(), content(16_384));
    fs::copy(world.path("sealed/one.kfs"), world.path("sealed/z.kfs.kfs")).unwrap();
    fs::remove_dir_all(world.path("back")).unwrap();
    let run = world.run(&reveal(&[])).expect(KEY, &["z.kfs.kfs", "DecryptionFailed"]);
    let files = tree(&world, "back").len();
    let told = match files {
        0 => "no file was written; --resume stops at this file again".to_owned(),
        1 => "1 file written, whole; --resume stops at this file again".to_owned(),
        _ => format!("{files} files written, whole; --resume stops at this file again"),
    };
    assert!(run.stderr.contains(&told), "{told}: {}", run.stderr);
    assert!(tree(&world, "back").iter().all(|(name, bytes)| fs::read(world.path("in").join(name)).unwrap() == *bytes));
    fs::write(world.path("sealed/z.kfs.kfs"), &sealed[3].1[..83 + 16_400]).unwrap();
    world.run(&reveal(&["--resume"])).expect(DATA, &["cut, or never finished"]);
    assert!(!world.path("back/z.kfs").exists());
}

/// What was deleted since the last run is left protected, and that is told: nobody may rely on its being gone.
#[test]
fn outputs_whose_input_is_gone_are_told() {
    let world = world();
    fs::create_dir_all(world.path("in/a")).unwrap();
    for name in ["a/one", "a/two", "three", "four"] {
        fs::write(world.path("in").join(name), content(5)).unwrap();
    }
    world.succeeds(&PROTECT);
    let resume = |arguments: &[&str], more: &[&str]| world.succeeds(&[arguments, &["--resume"], more].concat());
    let complete = resume(&PROTECT, &["--json"]);
    assert_eq!((&complete.summary()["left"], &complete.summary()["first_left"]), (&0.into(), &serde_json::Value::Null));
    assert!(!resume(&PROTECT, &[]).stderr.contains("without an input"));
    world.succeeds(&REVEAL);
    fs::remove_dir_all(world.path("in/a")).unwrap();
    fs::remove_file(world.path("in/three")).unwrap();
    // What no run has made is none of its outputs.
    fs::write(world.path("sealed/a/readme"), b"x").unwrap();
    std::os::unix::fs::symlink("nowhere", world.path("sealed/link.kfs")).unwrap();
    let before = tree(&world, "sealed/a");
    let says =
        ["1 was there already", "; without an input any more, and left there: 3 outputs, sealed/a/one.kfs first"];
    resume(&PROTECT, &[]).expect(0, &says);
    let summary = resume(&PROTECT, &["--json"]).summary();
    assert_eq!((&summary["left"], &summary["first_left"]), (&3.into(), &"sealed/a/one.kfs".into()));
    assert_eq!(tree(&world, "sealed/a"), before);
    // A file where its folder was.
    fs::write(world.path("in/a"), content(5)).unwrap();
    resume(&PROTECT, &[]).expect(0, &["protected 1 stream", "left there: 3 outputs, sealed/a/one.kfs first"]);
    fs::remove_file(world.path("in/a")).unwrap();
    // Likewise when revealing, and not without --resume, which finds nothing there.
    for name in ["link.kfs", "a/readme", "a/one.kfs", "three.kfs", "a.kfs"] {
        fs::remove_file(world.path("sealed").join(name)).unwrap();
    }
    resume(&REVEAL, &[]).expect(0, &["2 were there already", "left there: 2 outputs, back/a/one first"]);
    assert!(world.path("back/a/one").exists());
}

#[test]
fn folders_with_surprises_are_refused_before_anything_is_written() {
    let world = world();
    fs::create_dir(world.path("in")).unwrap();
    fs::write(world.path("in/one"), content(5)).unwrap();
    let protect = ["protect", "--stream", "image", "in", "--output", "sealed"];
    world.refuses(&["protect", "--stream", "image", "in", "--output", "-"], USAGE, &["go to a folder"]);
    world.refuses(&["protect", "--stream", "image", "in", "--output", "in"], USAGE, &["contain each other"]);
    world.refuses(&["protect", "--stream", "image", "in", "--output", "in/sealed"], USAGE, &["contain each other"]);
    world.refuses(
        &[&protect[..], &["--row-file", "policy.toml"]].concat(),
        DATA,
        &["--row-file: policy.toml has ", "row binding is one line"],
    );
    world.write("row", "r");
    world.refuses(&[&protect[..], &["--row-file", "row"]].concat(), USAGE, &["bound to their names"]);
    std::os::unix::fs::symlink("one", world.path("in/two")).unwrap();
    world.refuses(&protect, DATA, &["in/two is a symbolic link", "move it away", "nothing was written"]);
    fs::remove_file(world.path("in/two")).unwrap();
    mkfifoat(CWD, world.path("in/two"), Mode::RUSR).unwrap();
    world.refuses(&protect, DATA, &["in/two is a named pipe", "move it away", "nothing was written"]);
    fs::remove_file(world.path("in/two")).unwrap();
    world.write("file", "x");
    world.refuses(&["protect", "--stream", "image", "in", "--output", "file"], USAGE, &["file is a file", "folder"]);
    world.succeeds(&protect);
    fs::write(world.path("sealed/readme"), "x").unwrap();
    let reveal = ["reveal", "--stream", "image", "sealed", "--output", "back"];
    world.refuses(&reveal, DATA, &["sealed/readme", "does not end in .kfs", "move it away", "nothing was written"]);
    fs::remove_file(world.path("sealed/readme")).unwrap();
    // A folder where a file is to be, and the other way round.
    fs::create_dir_all(world.path("back/one")).unwrap();
    for more in [&[][..], &["--force"], &["--resume"]] {
        world.refuses(&[&reveal[..], more].concat(), USAGE, &["back/one is a folder", "nothing was written"]);
    }
    fs::create_dir(world.path("in/a")).unwrap();
    world.write("sealed/a", "x");
    world.refuses(&[&protect[..], &["--resume"]].concat(), USAGE, &["sealed/a is a file, where a folder is to be"]);
    fs::remove_file(world.path("sealed/a")).unwrap();
    std::os::unix::fs::symlink("../in", world.path("sealed/a")).unwrap();
    world.refuses(
        &[&protect[..], &["--resume"]].concat(),
        USAGE,
        &["sealed/a is a symbolic link, where a folder is to be"],
    );
    fs::remove_file(world.path("sealed/a")).unwrap();
    world.write("sealed/a", "x");
}

#[test]
fn names_that_are_impossible_are_refused_before_anything_is_written() {
    let world = world();
    for folder in ["in", "sealed"] {
        fs::create_dir(world.path(folder)).unwrap();
        fs::write(world.path(folder).join("one.kfs"), content(5)).unwrap();
    }
    let (longest, longer) = ("n".repeat(251), "n".repeat(252));
    let protect = |to| ["protect", "--stream", "image", "in", "--output", to];
    fs::write(world.path("in").join(&longer), content(5)).unwrap();
    let why = ["would become a file whose name has 256 bytes, of which 255 are possible", "nothing was written"];
    world.refuses(&protect("new"), DATA, &why);
    world.refuses(&protect("sealed"), DATA, &why);
    assert!(!world.path("new").exists());
    fs::rename(world.path("in").join(longer), world.path("in").join(&longest)).unwrap();
    world.succeeds(&protect("new")).expect(0, &["protected 2 streams"]);
    world.succeeds(&["reveal", "--stream", "image", "new", "--output", "back"]);
    assert!(tree(&world, "back") == tree(&world, "in"));
    for name in [".kfs", "..kfs", "...kfs"] {
        fs::write(world.path("new").join(name), b"").unwrap();
        let reveal = ["reveal", "--stream", "image", "new", "--output", "other"];
        world.refuses(&reveal, DATA, &[name, "does not end in .kfs behind a name", "nothing was written"]);
        fs::remove_file(world.path("new").join(name)).unwrap();
        assert!(!world.path("other").exists());
    }
}

#[test]
fn an_empty_folder_becomes_one() {
    let world = world();
    fs::create_dir(world.path("in")).unwrap();
    world.succeeds(&PROTECT).expect(0, &["protected 0 streams of 0 bytes"]);
    world.succeeds(&REVEAL);
    assert!(world.path("back").is_dir());
}

/// A file and a folder whose outputs have one name are told before anything is written.
#[test]
fn outputs_of_one_name_are_refused() {
    let world = world();
    for (file, folder) in [("a", "a.kfs"), ("a.kfs", "a")] {
        let is_protect = file == "a";
        let input = if is_protect { "in" } else { "sealed" };
        fs::create_dir_all(world.path(input).join("b").join(folder)).unwrap();
        for name in ["one.kfs", "two.kfs"] {
            fs::write(world.path(input).join("b").join(folder).join(name), content(5)).unwrap();
        }
        fs::write(world.path(input).join("b").join(file), content(5)).unwrap();
        let arguments = if is_protect { &PROTECT } else { &REVEAL };
        let [file, folder] = [file, folder].map(|name| format!("{input}/b/{name}"));
        for more in [&[][..], &["--force"], &["--resume"]] {
            let says = [&*file, &*folder, "both become", "nothing was written"];
            world.refuses(&[&arguments[..], more].concat(), DATA, &says);
        }
    }
}

/// What it takes to open a stream is not put into one.
#[test]
fn the_keyring_is_not_protected_by_itself() {
    let world = world();
    let keys = world.keys();
    let keys = keys.to_str().unwrap();
    let why = ["is a file of the keyring or a policy", "keys backup"];
    for name in ["keyfold.toml", "local.kek", "keys.db", "keys.high-water"] {
        let file = format!("{keys}/{name}");
        world.refuses(
            &["protect", "--stream", "image", &file, "--output", "out"],
            USAGE,
            &[&why[..], &[name]].concat(),
        );
    }
    world.refuses(&["protect", "--stream", "image", "policy.toml", "--output", "out"], USAGE, &why);
    let nothing = [&why[..], &["nothing was written"]].concat();
    world.refuses(&["protect", "--stream", "image", keys, "--output", "out"], USAGE, &nothing);
    // By a name of its own, in a folder of its own.
    fs::create_dir_all(world.path("in/a")).unwrap();
    fs::hard_link(world.keys().join("local.kek"), world.path("in/a/image.dcm")).unwrap();
    world.refuses(&PROTECT, USAGE, &[&nothing[..], &["in/a/image.dcm"]].concat());
}

/// What ends a run in its middle is found before, where it can be.
#[test]
fn files_that_cannot_be_taken_are_found_before_anything_is_written() {
    let world = world();
    fs::create_dir(world.path("in")).unwrap();
    for name in ["one", "two"] {
        fs::write(world.path("in").join(name), content(5)).unwrap();
    }
    world.succeeds(&["protect", "--stream", "image", "in/one", "--output", "x"]);
    fs::rename(world.path("x"), world.path("in/three")).unwrap();
    world.refuses(&PROTECT, POLICY, &["in/three: it is a stream already", "nothing was written"]);
    fs::remove_file(world.path("in/three")).unwrap();
    fs::set_permissions(world.path("in/two"), fs::Permissions::from_mode(0o000)).unwrap();
    let Some(run) = unprivileged(&world, &PROTECT) else { return };
    run.expect(STORAGE, &["cannot read in/two", "Permission denied", "nothing was written"]);
    assert!(!world.path("sealed").exists());
}

/// Folders are as open as those that they come from, and no more.
#[test]
fn folders_keep_their_mode() {
    let world = world();
    for (name, mode) in [("in", 0o700), ("in/open", 0o755), ("in/fixed", 0o555)] {
        fs::create_dir(world.path(name)).unwrap();
        fs::write(world.path(name).join("file"), content(5)).unwrap();
        fs::set_permissions(world.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    world.succeeds(&PROTECT);
    world.succeeds(&REVEAL);
    for folder in ["sealed", "back"] {
        for (name, most) in [("", 0o700), ("open", 0o755), ("fixed", 0o755)] {
            let mode = fs::metadata(world.path(folder).join(name)).unwrap().permissions().mode() & 0o777;
            assert!(mode & !most == 0 && mode & 0o700 == 0o700, "{folder}/{name}: {mode:o}");
        }
    }
}
