//! `init`, `keys` and `inspect`.

use crate::common::{self, DATA, KEY, PATIENTS, STORAGE, World, argument, keyfold, run, skip, snapshot};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

const FILES: [&str; 4] = ["keyfold.toml", "local.kek", "keys.db", "keys.high-water"];

fn init(folder: &Path, more: &[&str]) -> common::Run {
    run(keyfold().arg("init").arg(folder).args(more), b"")
}

// Failure K8
#[test]
fn init_makes_files_that_only_the_owner_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = folder.path().join("a/b");
    let made = init(&keys, &[]).expect(0, &[]);
    for word in ["keyfold.toml", "local.kek", "keys.db", "losing it is losing the data", "keys.high-water", "Root pin"]
    {
        assert!(made.stdout_text().contains(word), "{word}");
    }
    for file in FILES {
        let metadata = fs::metadata(keys.join(file)).expect("a file");
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o600, "{file}");
    }
    let names: Vec<_> = snapshot(&keys).into_keys().collect();
    let allowed = |path: &Path| {
        path.ends_with(".gitignore")
            || FILES.iter().any(|file| path.ends_with(file) || path.ends_with(format!("{file}.lock")))
    };
    assert!(names.iter().all(|path| allowed(path)), "{names:?}");
}

#[test]
fn init_twice_changes_nothing() {
    let world = World::new();
    let before = snapshot(&world.keys());
    init(&world.keys(), &[]).expect(STORAGE, &["holds a keyring already; nothing was changed", "keyfold.toml"]);
    init(&world.keys(), &["--environment", "production", "--json"]).expect(STORAGE, &["nothing was changed"]);
    assert_eq!(snapshot(&world.keys()), before);
    world.protect(&[]);
}

#[test]
fn init_leaves_nothing_behind_when_it_fails() {
    for file in FILES.iter().chain(&["keys.db-wal", "keys.db-journal"]) {
        for kind in ["file", "folder", "link"] {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join(file);
            match kind {
                "file" => fs::write(&path, "old").expect("written"),
                "folder" => fs::create_dir(&path).expect("a folder"),
                _ => symlink("nowhere", &path).expect("a link"),
            }
            let before = snapshot(folder.path());
            let run = init(folder.path(), &[]);
            if FILES.contains(file) {
                assert_eq!(run.code, Some(STORAGE), "{file} as a {kind}: {}", run.stderr);
            }
            if run.code != Some(0) {
                assert_eq!(snapshot(folder.path()), before, "{file} as a {kind}");
            }
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    init(folder.path(), &["--environment", "Not A Name!"]).expect(DATA, &["environment"]);
    init(&folder.path().join("new"), &["--environment", ""]).expect(DATA, &["environment"]);
    assert_eq!(snapshot(folder.path()).len(), 0, "something was left");
    fs::write(folder.path().join("file"), "").expect("written");
    init(&folder.path().join("file"), &[]).expect(STORAGE, &["cannot make the folder"]);
    init(&folder.path().join("file/keys"), &[]).expect(STORAGE, &["cannot make the folder"]);
}

// Failure K3
#[test]
fn init_on_a_disk_that_fills_up() {
    // Each size stops it at another file.
    let folder = tempfile::tempdir().expect("a folder");
    let script = r#"mount -t tmpfs -o size="$1" tmpfs "$0" || exit 99; "$2" init "$0" >/dev/null; echo $?; ls -A "$0""#;
    let (mut failed, mut made) = (0, 0);
    for size in ["4k", "8k", "16k", "40k", "64k", "100k", "160k", "1m"] {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, argument(folder.path()), size]);
        let Ok(output) = command.arg(env!("CARGO_BIN_EXE_keyfold")).stdin(Stdio::null()).output() else { break };
        if !output.status.success() {
            break;
        }
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        match stdout.split_once('\n') {
            Some(("0", names)) => {
                assert!(FILES.iter().all(|file| names.contains(file)), "{size}: {names}");
                made += 1;
            }
            Some(("7", "")) => {
                let says = ["full", "disk I/O error", "No space left"];
                assert!(says.iter().any(|text| stderr.contains(text)), "{size}: {stderr}");
                failed += 1;
            }
            other => panic!("{size}: {other:?}: {stderr}"),
        }
    }
    if failed + made == 0 {
        skip("a small file system (unshare does not work here)");
        return;
    }
    assert!(failed > 1 && made > 0, "{failed} failed, {made} made");
}

/// A keyring from the lower layer, as of an image: its files are copied up, and have other inodes then, when they are first written.
// Failure K9
#[test]
fn a_keyring_on_an_overlay() {
    let world = World::new();
    fs::create_dir(world.path("mnt")).expect("a folder");
    let script = r#"mount -t tmpfs tmpfs mnt && cd mnt && mkdir lower upper work merged && cp -a "$2" lower/ring || exit 99
        mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work,userxattr overlay merged || exit 99
        cp ../in.csv ../policy.toml merged && cd merged || exit 99
        of="--config ring/keyfold.toml --policy policy.toml"
        set -e
        "$1" protect $of in.csv --output sealed.csv
        "$1" keys rotate --config ring/keyfold.toml >/dev/null
        "$1" reveal $of sealed.csv --output -
        "$1" protect $of in.csv --output sealed.csv --force
        "$1" keys rotate --config ring/keyfold.toml >/dev/null
        "$1" reveal $of sealed.csv --output -; ls -A"#;
    let mut command = Command::new("unshare");
    command.current_dir(world.data()).args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    let command = command.arg(env!("CARGO_BIN_EXE_keyfold")).arg(world.keys()).stdin(Stdio::null());
    let Some(output) = command.output().ok().filter(|output| !matches!(output.status.code(), Some(1 | 99))) else {
        skip("an overlay file system (unshare or mount does not work here)");
        return;
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let expected = format!("{PATIENTS}{PATIENTS}in.csv\npolicy.toml\nring\nsealed.csv\n");
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{stderr}");
}

#[test]
fn init_for_scripts() {
    let folder = tempfile::tempdir().expect("a folder");
    let made =
        init(folder.path(), &["--json", "--environment", "test.eu-1", "--name", "Ein \"Name\"\n= 1"]).expect(0, &[]);
    let [made] = &made.json_lines()[..] else { panic!("one object") };
    assert_eq!(made["environment"], "test.eu-1");
    for file in ["config", "kek", "store"] {
        assert!(Path::new(made[file].as_str().expect("a path")).is_file());
    }
    let config = fs::read_to_string(folder.path().join("keyfold.toml")).expect("the configuration");
    assert!(config.contains(made["root_pins"][0].as_str().expect("a pin")));
    let listed = run(keyfold().args(["keys", "list", "--config", made["config"].as_str().expect("a path")]), b"");
    listed.expect(0, &[]);
}

impl World {
    #[track_caller]
    fn keys_json(&self) -> Vec<Value> {
        self.succeeds(&["keys", "list", "--json"]).json_lines()
    }
}

/// Classes and states, in the order of generations.
fn states(keys: &[Value]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    keys.iter().map(|key| (text(&key["class"]), text(&key["state"]))).collect()
}

#[test]
fn keys_are_listed_and_rotated() {
    let world = World::new();
    let keys = world.keys_json();
    let classes: Vec<_> = states(&keys).into_iter().map(|(class, _)| class).collect();
    assert_eq!(classes, ["root", "lookup", "lookup", "data"]);
    assert!(keys.iter().all(|key| key["verified"] == true && key["state"] == "active" && key["error"].is_null()));
    let [rotated] = &world.succeeds(&["keys", "rotate", "--json"]).json_lines()[..] else { panic!("one object") };
    assert_eq!(
        (&rotated["old"], &rotated["by_other"], &rotated["root_pin"]),
        (&keys[3]["key_id"], &Value::Bool(false), &Value::Null)
    );
    let after = world.keys_json();
    assert_eq!(after.len(), 5);
    assert_eq!((&after[3]["state"], &after[4]["state"]), (&"deactivated".into(), &"active".into()));
    assert_eq!(after[4]["key_id"], rotated["new"]);
    assert!(after[4]["generation"].as_u64() > keys[3]["generation"].as_u64());
    let text = world.succeeds(&["keys", "rotate"]);
    assert!(text.stdout_text().contains("seals from now on") && text.stdout_text().contains("still opens"));
    let listed = world.succeeds(&["keys", "list"]);
    assert_eq!(listed.stdout_text().lines().count(), 7);
    assert!(listed.stdout_text().contains("KEKs local"));
    world.refuses(&["keys", "rotate", "--scope", "nobody"], KEY, &["NoMatchingKey"]);
}

#[test]
fn scopes_have_keys_of_their_own() {
    let world = World::new();
    world.protect(&["--scope", "Canáry7391"]);
    let keys = world.keys_json();
    assert_eq!(states(&keys)[4].0, "data");
    assert!(keys[4]["slot"].is_string() && keys[3]["slot"].is_null());
    world.succeeds(&["keys", "rotate", "--scope", "Canáry7391"]);
    let after = world.keys_json();
    let deactivated: Vec<_> = after.iter().filter(|key| key["state"] == "deactivated").collect();
    assert_eq!(deactivated.len(), 1);
    assert_eq!(deactivated[0]["key_id"], keys[4]["key_id"]);
    // The name of a scope can name a patient, so it is nowhere.
    for (path, content) in snapshot(&world.keys()) {
        assert!(
            !common::contains(&content, "ry7391".as_bytes()) || path.ends_with("keyfold.toml"),
            "{}",
            path.display()
        );
    }
}

#[test]
fn reveal_counts_what_is_under_an_old_generation() {
    let world = World::new();
    let reveal = |more: &[&'static str]| world.run(&[&["reveal", "sealed.csv", "--output", "-"], more].concat());
    world.protect(&[]);
    reveal(&[]).expect(0, &["revealed 12 values in 3 records; 0 values are under an old generation"]);
    world.succeeds(&["keys", "rotate"]);
    let old = reveal(&["--json"]).expect(0, &[]);
    assert_eq!(old.stdout, PATIENTS.as_bytes());
    // Deterministic values stay under their lookup key.
    assert_eq!((old.summary()["values"].as_u64(), old.summary()["outdated"].as_u64()), (Some(12), Some(9)));
    world.protect(&[]);
    assert_eq!(reveal(&["--json"]).expect(0, &[]).summary()["outdated"], 0);
}

#[test]
fn a_new_root_vouches_for_new_keys() {
    let world = World::new();
    world.protect(&[]);
    let [rotated] = &world.succeeds(&["keys", "rotate", "--root", "--json"]).json_lines()[..] else {
        panic!("one object")
    };
    let pin = rotated["root_pin"].as_str().expect("a pin").to_owned();
    world.succeeds(&["keys", "rotate"]);
    world.succeeds(&["keys", "list"]);
    world.succeeds(&["reveal", "sealed.csv", "--output", "old.csv"]);
    world.protect(&[]);
    // With the new pin alone, new values open, and old keys are not vouched for any more.
    let text = fs::read_to_string(world.config()).expect("the configuration");
    let line = text.lines().find(|line| line.starts_with("root_pins")).expect("pins").to_owned();
    fs::write(world.config(), text.replace(&line, &format!("{}, \"{pin}\"]", line.trim_end_matches(']'))))
        .expect("written");
    world.succeeds(&["reveal", "sealed.csv", "--output", "new.csv"]);
    assert_eq!((world.text("old.csv"), world.text("new.csv")), (PATIENTS.to_owned(), PATIENTS.to_owned()));
    let text = world.succeeds(&["keys", "rotate", "--root"]).stdout_text().to_owned();
    assert!(text.contains("new root pin") && text.contains("keep the old pin"));
}

#[test]
fn many_processes_at_once() {
    let world = World::new();
    world.protect(&[]);
    for round in 0..3 {
        let spawn = |arguments: &[&str]| {
            world
                .command(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("it starts")
        };
        let outputs: Vec<String> = (0..4).map(|n| format!("at-once-{round}-{n}.csv")).collect();
        let mut children = Vec::new();
        for n in 0..8 {
            children.push(("rotate", spawn(&["keys", "rotate", "--json"])));
            if n % 2 == 0 {
                children
                    .push(("protect", spawn(&["protect", "in.csv", "--output", &outputs[n / 2], "--scope", "new"])));
            }
        }
        for (what, child) in children {
            let output = child.wait_with_output().expect("it ends");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{what} in round {round}: {:?}: {stderr}", output.status.code());
            common::check_silence(&stderr);
        }
        for name in &outputs {
            let back = world.succeeds(&["reveal", name, "--output", "-", "--scope", "new"]);
            assert_eq!(back.stdout, PATIENTS.as_bytes());
        }
    }
    let keys = world.keys_json();
    let active = |slot: &dyn Fn(&Value) -> bool| {
        keys.iter().filter(|key| key["class"] == "data" && key["state"] == "active" && slot(&key["slot"])).count()
    };
    assert_eq!((active(&Value::is_null), active(&Value::is_string)), (1, 1), "one key seals");
    let generations: std::collections::BTreeSet<_> = keys.iter().map(|key| key["generation"].as_u64()).collect();
    assert_eq!(generations.len(), keys.len(), "a generation was used twice");
    world.succeeds(&["reveal", "sealed.csv", "--output", "back.csv"]);
    assert_eq!(world.text("back.csv"), PATIENTS);
}

#[test]
fn inspect_tells_what_needs_no_key() {
    let world = World::new();
    let mut table = world.protect(&[]);
    let (id, name) = (table.cell((1, 0)).clone(), table.cell((1, 1)).clone());
    let keys = world.keys_json();
    // Outside of any keyring.
    let inspect = |arguments: &[&str], input: &str| {
        run(keyfold().current_dir("/").arg("inspect").args(arguments), input.as_bytes())
    };
    let text = inspect(&[&id, &name, &format!("Patient/{id}")], "").expect(0, &[]);
    let lines: Vec<&str> = text.stdout_text().lines().collect();
    assert!(lines[0].starts_with("value 1: suite 02 (deterministic field"), "{}", lines[0]);
    assert!(lines[1].starts_with("value 2: suite 01 (field, XAES-256-GCM)"), "{}", lines[1]);
    assert!(lines[2].contains("behind a prefix in clear") && !lines[2].contains("Patient/"), "{}", lines[2]);
    let json = inspect(&["--json", &id, &name], "").expect(0, &[]).json_lines();
    assert_eq!((&json[0]["key_id"], &json[1]["key_id"]), (&keys[2]["key_id"], &keys[3]["key_id"]));
    assert_eq!(json[1]["generation"], keys[3]["generation"]);
    assert_eq!(json[1]["encoded_len"].as_u64(), Some(1 + "Canáry7391 Änne".len() as u64));
    let piped = inspect(&["-", "--json"], &format!("{id}\r\n{name}\n{id}")).expect(0, &[]);
    assert_eq!(piped.json_lines(), [&json[0], &json[1], &json[0]].map(Clone::clone));
}

#[test]
fn inspect_never_shows_what_is_not_sealed() {
    let world = World::new();
    let sealed = world.protect(&[]).cell((1, 1)).clone();
    let cut = &sealed[..30];
    for value in ["Canáry7391", "", "kf1.", "kf1.Canáry7391", cut, "kf1.ff00000001.AAAA", "\u{1b}[31mry7391"] {
        let both = run(keyfold().args(["inspect", "--", value, &sealed]), b"").expect(DATA, &[]);
        assert_eq!(both.stdout_text().lines().count(), 2, "the others are still inspected");
        let json = run(keyfold().args(["inspect", "--json", "--", value]), b"").expect(DATA, &[]);
        assert!(json.json_lines()[0]["error"].is_string());
        let piped = run(keyfold().args(["inspect", "-"]), format!("{value}\n{sealed}\n").as_bytes()).expect(DATA, &[]);
        for run in [both, json, piped] {
            assert!(!run.stdout_text().contains("ry7391"), "{}", run.stdout_text());
        }
    }
    let not_text = run(keyfold().args(["inspect", "-"]), b"Can\xe1ry7391\n");
    assert!(matches!(not_text.code, Some(DATA | STORAGE)), "{}", not_text.stderr);
}

#[test]
fn inspect_shows_binary_values_and_frames_from_files() {
    let world = World::new();
    let sealed = world.protect(&[]).cell((1, 1)).clone();
    let mut value = Vec::new();
    ::keyfold::wire::from_text(sealed.as_bytes(), &mut value).unwrap();
    let (data, keys) = (&value[2..26], world.keys_json());
    let store = rusqlite::Connection::open(world.keys().join("keys.db")).unwrap();
    let record = |key: &Value| -> Vec<u8> {
        let key_id = data_encoding::HEXLOWER.decode(key["key_id"].as_str().unwrap().as_bytes()).unwrap();
        let select = "SELECT record FROM records WHERE key_id = ?1";
        let record: Vec<u8> = store.query_row(select, [key_id], |row| row.get(0)).unwrap();
        [&u16::try_from(record.len()).unwrap().to_be_bytes()[..], &record].concat()
    };
    let records = [record(&keys[3]), record(&keys[0])].concat();
    let len = u32::try_from(records.len()).unwrap().to_be_bytes();
    let frame = [&[0xF5, 3], data, &len, &records, &value].concat();
    world.write("value", &value);
    world.write("frame", &frame);
    world.write("cut", &frame[..frame.len() - value.len()]);
    world.write("clear", "Canáry7391".as_bytes());
    let inspect = |arguments: &[&str]| run(world.command(&["inspect"]).args(arguments), b"");
    let text = inspect(&["--file", "value", "--file", "frame"]).expect(0, &[]);
    let lines: Vec<&str> = text.stdout_text().lines().collect();
    assert!(lines[0].starts_with("value: suite 01 (field"), "{}", lines[0]);
    assert!(lines[1].starts_with("frame: suite 03 (frame), generation"), "{}", lines[1]);
    assert!(
        lines[1].contains("data") && lines[1].contains("root") && lines[1].contains("around: suite 01"),
        "{}",
        lines[1]
    );
    let json = inspect(&["--json", "--file", "frame", "--file", "value", &sealed]).expect(0, &[]).json_lines();
    assert_eq!((&json[0], &json[1]["value"]), (&json[2], &json[0]), "the text, its value, and the value in the frame");
    assert_eq!(json[1]["records_len"].as_u64(), Some(records.len() as u64));
    let classes = [0, 1].map(|i| json[1]["records"][i]["class"].clone());
    assert_eq!(classes, ["data", "root"].map(Value::from));
    for file in ["cut", "clear"] {
        let refused = inspect(&["--file", file]).expect(DATA, &[]);
        assert!(refused.stdout_text().contains("not a canonical keyfold value"), "{}", refused.stdout_text());
        assert!(!refused.stdout_text().contains("ry7391"), "{}", refused.stdout_text());
    }
    inspect(&["--file", "missing"]).expect(STORAGE, &["missing"]);
}

#[test]
fn a_partition_is_used_once_its_section_is_added() {
    let world = World::new();
    let policy = |partition: &str| {
        format!(
            "version = 1\n[fields.name]\nmode = \"deterministic\"\ntype = \"text\"\npartition = '{partition}'\ncolumns = [\"name\"]\n"
        )
    };
    world.write("one.csv", "name\nAda\nAda\n");
    let name = r#"study "7""#;
    world.write("study.toml", policy(name));
    world.write("default.toml", policy("default"));
    let protect = |policy: &str| {
        world.succeeds(&["protect", "--policy", policy, "one.csv", "--output", "sealed.csv", "--force"]);
        let sealed = world.text("sealed.csv");
        let cells: Vec<String> = sealed.lines().skip(1).map(str::to_owned).collect();
        assert_eq!(cells[0], cells[1]);
        cells[0].clone()
    };
    world.refuses(&["protect", "--policy", "study.toml", "one.csv", "--output", "o.csv"], common::POLICY, &["study"]);

    let before = fs::read_to_string(world.config()).expect("the configuration");
    let made = world.succeeds(&["keys", "partition", name]);
    assert_eq!(fs::read_to_string(world.config()).expect("the configuration"), before, "printed, and no more");
    fs::write(world.config(), format!("{before}\n{}", made.stdout_text())).expect("written");
    let of_study = protect("study.toml");
    assert_ne!(of_study, protect("default.toml"));
    assert_eq!(protect("study.toml"), of_study);
    world.succeeds(&["reveal", "--policy", "study.toml", "sealed.csv", "--output", "out.csv"]);
    assert_eq!(world.text("out.csv"), world.text("one.csv"));

    world.refuses(&["keys", "partition", name], common::USAGE, &["NAME", "has a partition of that name"]);
    for wrong in ["", "a\nb"] {
        world.refuses(
            &["keys", "partition", wrong],
            common::USAGE,
            &["NAME", "a partition has a name of 1 to 255 bytes"],
        );
    }
    let json = &world.succeeds(&["keys", "partition", "other", "--json"]).json_lines()[0];
    assert_eq!(json["name"], "other");
    assert!(json["section"].as_str().expect("a section").starts_with("[lookup.\"other\"]\npartition = \""));
    assert_eq!(json["partition"].as_str().map(str::len), Some(32));
    assert_eq!(json["seals"].as_str().map(str::len), Some(48));
}
