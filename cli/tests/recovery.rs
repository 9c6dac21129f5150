//! Recovery: KEKs with a passphrase, recovery mode and break-glass, without a terminal; and docs/RECOVERY.md, line by line.

use crate::common::{self, KMS, PATIENTS, Run, STORAGE, USAGE, World, keyfold, repository, run};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const PASSPHRASE: &str = "Passphrase4711 of six random words";

fn write_private(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("changed");
}

/// A keyring with `sealed.csv`, whose root an offline KEK wraps as well, for `use_`.
fn with_offline(use_: &str) -> World {
    let world = World::new();
    write_private(&world.path("passphrase"), &format!("{PASSPHRASE}\n"));
    let offline = world.keys().join("offline.kek");
    let new_kek = ["keys", "new-kek", "--passphrase", "--memory", "19", "--passphrase-file"];
    run(keyfold().args(new_kek).arg(world.path("passphrase")).arg(&offline), b"").expect(0, &[]);
    let config = fs::read_to_string(world.config()).expect("a configuration");
    let config = config + &format!("\n[keks.offline]\nuri = \"passphrase:offline.kek\"\nuse = \"{use_}\"\n");
    fs::write(world.config(), config).expect("written");
    world.succeeds(&["keys", "repair", "--passphrase-file", "passphrase"]);
    world.protect(&[]);
    world
}

/// Every usual KEK is lost.
fn lose_local(world: &World) {
    fs::remove_file(world.keys().join("local.kek")).expect("removed");
}

/// As `World::run`, without a terminal whoever runs the tests.
fn without_terminal(world: &World, arguments: &[&str]) -> Run {
    let inner = world.command(arguments);
    let mut command = Command::new("setsid");
    command.arg("--wait").arg(inner.get_program()).args(inner.get_args()).current_dir(world.data());
    for (name, value) in inner.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    run(&mut command, b"")
}

const REVEAL: [&str; 4] = ["reveal", "sealed.csv", "--output", "out.csv"];

#[test]
fn a_keyring_is_made_under_a_passphrase_without_a_terminal() {
    let world = with_offline("recovery");
    let init = |folder: &str, more: &[&str], file: Option<&str>| {
        let mut command = Command::new("setsid");
        command.arg("--wait").arg(keyfold().get_program()).current_dir(world.data());
        command.arg("init").arg(folder).arg("--kek");
        command.arg(format!("pp=passphrase:{}", world.keys().join("offline.kek").display())).args(more);
        file.map(|file| command.env("KEYFOLD_PASSPHRASE_FILE", world.path(file)));
        run(&mut command, b"")
    };
    init("none", &[], None).expect(KMS, &["--passphrase-file pp=FILE", "KEYFOLD_PASSPHRASE_FILE"]);
    init("option", &["--passphrase-file", "passphrase"], None).expect(0, &[]);
    init("alias", &["--passphrase-file", "pp=passphrase"], None).expect(0, &[]);
    init("variable", &[], Some("passphrase")).expect(0, &[]);
    write_private(&world.path("other"), "another passphrase\n");
    init("wrong", &["--passphrase-file", "other"], None).expect(KMS, &[]);
}

#[test]
fn the_kek_from_the_safe_opens_everything_in_recovery_mode_alone() {
    let world = with_offline("recovery");
    // Day by day nobody is asked for a passphrase.
    let usual = without_terminal(&world, &[&REVEAL[..], &["--force"]].concat()).expect(0, &[]);
    assert!(!usual.stderr.contains("recovery"), "{}", usual.stderr);
    fs::remove_file(world.path("out.csv")).expect("removed");
    lose_local(&world);
    world.refuses(&REVEAL, STORAGE, &["KEK local", "local.kek", "--recovery asks it"]);
    world.refuses(&[&REVEAL[..], &["--recovery="]].concat(), USAGE, &["--recovery"]);
    let with_file = [&REVEAL[..], &["--passphrase-file", "passphrase"]].concat();
    world.refuses(&with_file, STORAGE, &["KEK local"]);
    let recovered = world.succeeds(&[&with_file[..], &["--recovery"]].concat());
    assert_eq!(world.text("out.csv"), PATIENTS);
    assert!(recovered.stderr.contains("recovery mode is on"), "{}", recovered.stderr);
    assert!(!recovered.stderr.contains("Passphrase4711"), "{}", recovered.stderr);
    // The variable names the file as well.
    let mut command = world.command(&[&REVEAL[..], &["--force", "--recovery"]].concat());
    run(command.env("KEYFOLD_PASSPHRASE_FILE", world.path("passphrase")), b"").expect(0, &[]);
}

// Failure T10
#[test]
fn wrong_missing_and_readable_passphrases() {
    let world = with_offline("recovery");
    lose_local(&world);
    let refused = |file: &str, says: &[&str]| {
        let arguments = [&REVEAL[..], &["--recovery", "--passphrase-file", file]].concat();
        let run = world.refuses(&arguments, KMS, says);
        assert!(!run.stderr.contains("Passphrase4711"), "{}", run.stderr);
    };
    write_private(&world.path("wrong"), "Passphrase4711 of other words\n");
    refused("wrong", &["the passphrase of the KEK is wrong", "[408 Credentials]"]);
    write_private(&world.path("empty"), "");
    refused("empty", &["[408 Credentials]"]);
    write_private(&world.path("long"), &"Passphrase4711".repeat(600));
    refused("long", &["too long"]);
    write_private(&world.path("binary"), "x");
    fs::write(world.path("binary"), [0xFF, 0xFE, b'\n']).expect("written");
    refused("binary", &["not UTF-8"]);
    refused("nowhere", &["cannot read the passphrase file"]);
    fs::set_permissions(world.path("passphrase"), fs::Permissions::from_mode(0o644)).expect("changed");
    refused("passphrase", &["chmod 600"]);
    // No terminal and no file: an error at once that says what to do, and not a command that waits for ever.
    let run = without_terminal(&world, &[&REVEAL[..], &["--recovery"]].concat());
    run.expect(KMS, &["there is no terminal", "--passphrase-file"]);
    assert!(!world.path("out.csv").exists());
    // A damaged file says so, and is not a wrong passphrase.
    let offline = world.keys().join("offline.kek");
    let text = fs::read_to_string(&offline).expect("a file");
    fs::write(&offline, text.replace("t=2", "t=3").replace("t=3 p=4", "t=4 p=4")).expect("written");
    world.run(&[&REVEAL[..], &["--recovery"]].concat()).expect(STORAGE, &["is damaged"]);
}

#[test]
fn with_a_quorum_the_root_is_rotated_without_the_passphrase_and_repaired_with_it() {
    let world = with_offline("recovery");
    let rotate = ["keys", "rotate", "--root", "--json"];
    // Nobody is there to ask.
    without_terminal(&world, &rotate).expect(KMS, &["KEK offline", "there is no terminal"]);
    let config = fs::read_to_string(world.config()).expect("a configuration");
    fs::write(world.config(), config.replace("[keyring]", "[keyring]\nquorum = 1")).expect("written");
    let rotated = without_terminal(&world, &rotate).expect(0, &["run keys repair"]);
    assert_eq!(rotated.json_lines()[0]["missing_keks"][0], "offline");
    let repaired = world.succeeds(&["keys", "repair", "--json", "--passphrase-file", "passphrase"]);
    assert_eq!(repaired.json_lines()[0]["added"], 1);
    world.succeeds(&["keys", "drill", "--only", "offline", "--passphrase-file", "passphrase"]);
}

#[test]
fn break_glass_needs_a_reason() {
    let world = with_offline("break-glass");
    lose_local(&world);
    let recovery = |option| [&REVEAL[..], &["--passphrase-file", "passphrase", option]].concat();
    world.refuses(&recovery("--recovery"), STORAGE, &["KEK local", "--recovery=REASON asks it"]);
    world.refuses(&recovery("--recovery= "), USAGE, &["--recovery", "reason"]);
    world.succeeds(&recovery("--recovery=ticket 7"));
    assert_eq!(world.text("out.csv"), PATIENTS);
}

#[test]
fn the_configuration_can_turn_recovery_mode_on() {
    let world = with_offline("recovery");
    lose_local(&world);
    let config = fs::read_to_string(world.config()).expect("a configuration");
    fs::write(world.config(), config + "\n[recovery]\non = true\nreason = \"ticket 7\"\n").expect("written");
    world.succeeds(&[&REVEAL[..], &["--passphrase-file", "passphrase"]].concat());
    assert_eq!(world.text("out.csv"), PATIENTS);
}

#[test]
fn a_new_kek_with_a_passphrase() {
    let world = World::new();
    let path = world.path("new.kek");
    let arguments = ["keys", "new-kek", "new.kek", "--passphrase"];
    let mut command = Command::new("setsid");
    command.arg("--wait").arg(env!("CARGO_BIN_EXE_keyfold")).args(arguments).current_dir(world.data());
    run(&mut command, b"twelve letters\n").expect(USAGE, &["there is no terminal", "--passphrase-file"]);
    let mut command = keyfold();
    command.args(arguments).current_dir(world.data());
    write_private(&world.path("short"), "eleven char\n");
    run(command.args(["--passphrase-file", "short"]), b"").expect(common::DATA, &["at least 12 characters"]);
    assert!(!path.exists());
    // Through a pipe, with line ends of another system.
    let script = format!(
        "printf 'Passphrase4711 long\\r\\n' | {} {} --passphrase-file /dev/stdin --memory 19",
        env!("CARGO_BIN_EXE_keyfold"),
        arguments.join(" ")
    );
    let made = run(Command::new("sh").args(["-c", &script]).current_dir(world.data()), b"").expect(0, &[]);
    assert!(made.stdout_text().contains("keep copies offline"));
    let text = fs::read_to_string(&path).expect("a file");
    assert!(text.starts_with("keyfold-passphrase-kek-1\nargon2id m=19456 t=3 p=4\n"), "{text}");
    assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    run(keyfold().args(["keys", "new-kek"]).arg(world.path("x")).args(["--memory", "64"]), b"").expect(USAGE, &[]);
    // A passphrase that would protect nothing.
    let unprotected = ["--passphrase-file", "short"];
    let mut command = keyfold();
    run(command.args(["keys", "new-kek", "x"]).args(unprotected).current_dir(world.data()), b"")
        .expect(USAGE, &["--passphrase"]);
    assert!(!world.path("x").exists());
    // What exists is not written over, and nobody is asked first: neither a terminal nor the file is missed.
    let mut command = Command::new("setsid");
    command.arg("--wait").arg(env!("CARGO_BIN_EXE_keyfold")).args(arguments).current_dir(world.data());
    run(&mut command, b"").expect(STORAGE, &["File exists"]);
    assert_eq!(fs::read_to_string(&path).expect("a file"), text);
}

#[test]
fn every_command_of_the_page_on_recovery_works() {
    let page = fs::read_to_string(repository("docs/RECOVERY.md")).expect("the page");
    let folder = tempfile::tempdir().expect("a folder");
    write_private(&folder.path().join("passphrase"), PASSPHRASE);
    let mut script = "set -eu\n".to_owned();
    let mut inside = false;
    for line in page.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => script.push_str(&format!("{line}\n")),
            _ => {}
        }
    }
    assert!(script.matches("keyfold ").count() > 15, "{script}");
    let binary = Path::new(env!("CARGO_BIN_EXE_keyfold")).parent().expect("a folder");
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(folder.path()).env("PATH", path);
    command.env("KEYFOLD_PASSPHRASE_FILE", folder.path().join("passphrase"));
    let done = run(&mut command, b"").expect(0, &[]);
    assert!(done.stdout_text().contains("lacks KEK second: run keys repair"));
    assert_eq!(done.stdout_text().matches(": ok; ").count(), 1 + 1 + 1 + 1, "{}", done.stdout_text());
    assert_eq!(fs::read(folder.path().join("out.csv")).ok(), fs::read(folder.path().join("in.csv")).ok());
    assert!(!done.stderr.contains("Passphrase4711"));
}

#[test]
fn several_passphrases_without_a_terminal() {
    let world = with_offline("recovery");
    write_private(&world.path("other"), "another passphrase\n");
    let new_kek = ["keys", "new-kek", "--passphrase", "--memory", "19", "--passphrase-file"];
    run(keyfold().args(new_kek).arg(world.path("other")).arg(world.keys().join("glass.kek")), b"").expect(0, &[]);
    let config = fs::read_to_string(world.config()).expect("a configuration");
    let config = config + "\n[keks.glass]\nuri = \"passphrase:glass.kek\"\nuse = \"break-glass\"\n";
    fs::write(world.config(), config).expect("written");
    for files in [["passphrase", "glass=other"], ["glass=other", "offline=passphrase"]] {
        let files = files.map(|file| format!("--passphrase-file={file}"));
        let repair = ["keys", "repair", &files[0], &files[1]];
        without_terminal(&world, &repair).expect(0, &[]);
        let drill = ["keys", "drill", "--recovery=ticket 7", &files[0], &files[1]];
        without_terminal(&world, &drill).expect(0, &[]);
    }
    // Of the KEK that no file is named for nothing is known.
    without_terminal(&world, &["keys", "drill", "--only", "offline", "--passphrase-file", "glass=other"])
        .expect(KMS, &[]);
    // What is missing is said, and what there is instead.
    lose_local(&world);
    let other = [&REVEAL[..], &["--recovery", "--passphrase-file", "glass=other"]].concat();
    let missing = ["--passphrase-file offline=FILE", "KEYFOLD_PASSPHRASE_FILE", "what is named now is for glass"];
    without_terminal(&world, &other).expect(KMS, &missing);
}

/// Runs `script` with a terminal of its own, at which somebody types what `typist` prints.
fn at_terminal(world: &World, script: &str, typist: &str) -> Run {
    let outer = format!("({typist}) | script -qec '{script}' /dev/null");
    let mut command = Command::new("sh");
    run(command.args(["-c", &outer]).current_dir(world.data()), b"")
}

#[test]
fn whoever_gives_up_at_a_prompt_is_asked_nothing_more_and_the_terminal_is_as_before() {
    let world = with_offline("recovery");
    lose_local(&world);
    let keyfold = env!("CARGO_BIN_EXE_keyfold");
    let reveal = format!(
        "{keyfold} reveal --config {} --policy {} --recovery sealed.csv --output out.csv",
        world.config().display(),
        world.path("policy.toml").display()
    );
    let end = "; echo code=$?; stty -a";
    let typed = at_terminal(&world, &format!("{reveal}{end}"), "sleep 2; printf '\\003'; sleep 1");
    let shown = typed.stdout_text();
    assert!(shown.contains("code=130") && shown.matches("passphrase of KEK").count() == 1, "{shown}");
    assert!(shown.contains(" echo ") && !shown.contains("-echo "), "{shown}");
    let quiet = "until stty -a < /dev/tty | grep -q -- \"-echo \"; do sleep 0.1; done";
    let killed = format!("{reveal} & pid=$!; {quiet}; kill -TERM $pid; wait $pid{end}");
    let killed = at_terminal(&world, &killed, "sleep 4");
    let shown = killed.stdout_text();
    assert!(shown.contains("code=143"), "{shown}");
    assert!(shown.contains(" echo ") && !shown.contains("-echo "), "{shown}");
    assert!(!world.path("out.csv").exists());
}
