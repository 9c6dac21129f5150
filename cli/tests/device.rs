//! `keyfold device`: bundles, from the keyring to a device and back, and everything that must not leave one behind.

use crate::audited::Audited;
use crate::common::{DATA, KEY, POLICY, Run, STORAGE, Table, USAGE, World, argument, contains, repository, run};
use keyfold::aead::Backend;
use keyfold::device::{BUNDLE_LEN, Binding, Bundle, DeviceKey};
use keyfold::{Secret, Value, wire};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

const SCOPE: &str = "device-88";
const KEY_BYTES: [u8; 32] = *b"thirty-two bytes of a device key";
const PASSPHRASE: &str = "Passphrase4711 of six random words";
const PROVISION: [&str; 7] =
    ["device", "provision", SCOPE, "--output", "device.bundle", "--transport-key", "transport.key"];
const NOTE: Binding<'_> = Binding { field: "patient.note", pairs: &[] };

fn write_private(path: &Path, content: impl AsRef<[u8]>) {
    fs::write(path, content).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("changed");
}

fn world() -> World {
    let world = World::new();
    write_private(&world.path("transport.key"), KEY_BYTES);
    write_private(&world.path("passphrase"), format!("{PASSPHRASE}\n"));
    world
}

fn with_output<'a>(command: &'a str, output: &'a str) -> Vec<&'a str> {
    let mut arguments = PROVISION.to_vec();
    (arguments[1], arguments[4]) = (command, output);
    arguments
}

/// What a device makes of its bundle.
fn install(world: &World, bundle: &str) -> DeviceKey {
    let bytes = world.read(bundle);
    let bundle = Bundle::parse(&bytes).expect("a bundle");
    bundle.open(Backend::RustCrypto, &Secret::with(|key| *key = KEY_BYTES)).expect("it opens")
}

/// A note of the device, in text form.
fn note(device: &DeviceKey, text: &str) -> String {
    let (mut out, mut sealed) = ([0; 256], Vec::new());
    let random = |nonce: &mut [u8; 24]| {
        getrandom::fill(nonce).expect("random");
        Ok(())
    };
    wire::push_text(device.seal(Value::Text(text), NOTE, &mut out, random).expect("sealed"), &mut sealed)
        .expect("a value");
    String::from_utf8(sealed).expect("ASCII")
}

/// What the backend makes of it.
fn reveal(world: &World, note: &str) -> Run {
    let mut table = world.protect(&["--scope", SCOPE]);
    *table.cell((1, 3)) = note.to_owned();
    world.write("device.csv", table.render());
    world.run(&["reveal", "device.csv", "--output", "out.csv", "--scope", SCOPE, "--force"])
}

fn revealed(world: &World, note: &str) -> String {
    reveal(world, note).expect(0, &[]);
    Table::parse(&world.text("out.csv")).cell((1, 3)).clone()
}

/// As `World::run`, without a terminal whoever runs the tests.
fn without_terminal(world: &World, arguments: &[&str]) -> Run {
    let inner = world.command(arguments);
    let mut command = Command::new("setsid");
    command.arg("--wait").arg(inner.get_program()).args(inner.get_args()).current_dir(world.data());
    run(&mut command, b"")
}

// Failure C23
#[test]
fn what_a_provisioned_device_seals_is_revealed_and_the_other_way() {
    let world = world();
    let made = world.succeeds(&[&PROVISION[..], &["--json"]].concat());
    let bytes = world.read("device.bundle");
    assert_eq!(bytes.len(), BUNDLE_LEN);
    assert_eq!(fs::metadata(world.path("device.bundle")).expect("metadata").permissions().mode() & 0o7777, 0o600);
    let json = &made.json_lines()[0];
    let bundle = Bundle::parse(&bytes).expect("a bundle");
    assert_eq!(json["key_id"], bundle.key_id().to_string());
    assert_eq!((&json["new_scope"], &json["protection"]), (&true.into(), &"transport-key".into()));
    assert_eq!((&json["slot"], &json["scope"]), (&bundle.scope().to_string().into(), &SCOPE.into()));
    let issued = bundle.issued() / 1_000_000;
    let until = json["seals_until"].as_u64().expect("a time");
    assert!(until.abs_diff(issued + 90 * 86_400) < 60, "{until}, {issued}");
    let device = install(&world, "device.bundle");
    assert_eq!(revealed(&world, &note(&device, "21.5 °C")), "21.5 °C");
    let sealed = world.protect(&["--scope", SCOPE]).cell((1, 3)).clone();
    let (mut bytes, mut scratch) = (Vec::new(), [0; 256]);
    wire::from_text(sealed.as_bytes(), &mut bytes).expect("a value");
    let opened = device.open(&bytes, NOTE, &mut scratch).expect("it opens");
    assert!(opened == Value::Text("Canáry7391 first"));
    // A second bundle of the scope has the same key, and another device ID.
    let again = world.succeeds(&[&with_output("provision", "second.bundle")[..], &["--json"]].concat());
    let again = &again.json_lines()[0];
    assert_eq!((&again["key_id"], &again["new_scope"]), (&json["key_id"], &false.into()));
    assert_ne!(again["device_id"], json["device_id"]);
    let second = world.read("second.bundle");
    assert!(Bundle::parse(&second).expect("a bundle").issued() > bundle.issued());
    // Of what is said, nothing is the key: neither its own bytes nor those that it is under.
    for said in [made.stdout_text(), &made.stderr] {
        assert!(!said.contains("thirty-two bytes") && !said.contains("7468697274792d74776f"), "{said}");
    }
}

#[test]
fn after_a_rotation_both_generations_open_and_after_a_revocation_neither() {
    let world = world();
    world.refuses(&with_output("rotate", "second.bundle"), KEY, &["no such scope"]);
    world.refuses(&["device", "revoke", SCOPE, "--yes"], KEY, &["no such scope"]);
    world.succeeds(&PROVISION);
    let rotated = world.succeeds(&with_output("rotate", "second.bundle"));
    for says in ["scope device-88: generation", "data_age", "generation before still opens"] {
        assert!(rotated.stdout_text().contains(says), "{}", rotated.stdout_text());
    }
    let (old, new) = (install(&world, "device.bundle"), install(&world, "second.bundle"));
    assert!(old.key_id().generation() < new.key_id().generation());
    for device in [&old, &new] {
        assert_eq!(revealed(&world, &note(device, "x")), "x");
    }
    let revoked = world.succeeds(&["device", "revoke", SCOPE, "--yes", "--reason", "stolen"]);
    for says in ["2 keys of scope", "open_compromised", "keys shred --scope"] {
        assert!(revoked.stdout_text().contains(says), "{}", revoked.stdout_text());
    }
    for device in [&old, &new] {
        reveal(&world, &note(device, "x")).expect(KEY, &["compromised"]);
    }
    let states = world.succeeds(&["keys", "list", "--json"]).json_lines();
    let state = |key: &DeviceKey| {
        states.iter().find(|line| line["key_id"] == key.key_id().to_string()).expect("listed")["state"].clone()
    };
    assert_eq!((state(&old), state(&new)), ("compromised".into(), "compromised".into()));
    // The one that seals now goes to the next device.
    world.succeeds(&with_output("provision", "third.bundle"));
    assert_eq!(revealed(&world, &note(&install(&world, "third.bundle"), "x")), "x");
    let again = world.succeeds(&["device", "revoke", SCOPE, "--yes", "--json"]).json_lines();
    let count = |name: &str| again[0][name].as_array().map(Vec::len);
    assert_eq!((count("keys"), count("already")), (Some(3), Some(2)));
    world.refuses(&["device", "revoke", SCOPE], USAGE, &["--yes"]);
    let text = world.succeeds(&["device", "revoke", SCOPE, "--yes"]);
    assert!(text.stdout_text().starts_with("1 key of scope device-88 (ID "), "{}", text.stdout_text());
    assert!(text.stdout_text().contains("and 3 were already"), "{}", text.stdout_text());
}

#[test]
fn no_bundle_of_a_scope_that_ends() {
    let world = world();
    world.succeeds(&PROVISION);
    let kept = note(&install(&world, "device.bundle"), "x");
    assert_eq!(revealed(&world, &kept), "x");
    world.succeeds(&["keys", "shred", "--scope", SCOPE]);
    for command in ["provision", "rotate"] {
        world.refuses(&with_output(command, "second.bundle"), KEY, &["--cancel"]);
    }
    world.refuses(&["device", "revoke", SCOPE, "--yes"], KEY, &["--cancel"]);
    world.refuses(&["reveal", "device.csv", "--output", "new.csv", "--scope", SCOPE], KEY, &["destroy-pending"]);
}

#[test]
fn wrong_arguments() {
    let world = world();
    let base = &PROVISION[..5];
    world.refuses(base, USAGE, &["--transport-key"]);
    world.refuses(
        &[base, &["--transport-key", "transport.key", "--device-passphrase"]].concat(),
        USAGE,
        &["cannot be used with"],
    );
    let both = ["--device-passphrase", "--device-passphrase-file", "passphrase"];
    world.refuses(&[base, &both].concat(), USAGE, &["cannot be used with"]);
    world.refuses(&[&PROVISION[..], &["--memory", "64"]].concat(), USAGE, &["cannot be used with"]);
    for memory in ["18", "1025"] {
        let arguments = ["--device-passphrase-file", "passphrase", "--memory", memory];
        world.refuses(&[base, &arguments].concat(), USAGE, &["--memory"]);
    }
    let [command, verb, ..] = PROVISION;
    world.refuses(&[command, verb, SCOPE, "--transport-key", "transport.key"], USAGE, &["--output"]);
    world.refuses(&[command, verb, "--output", "x", "--transport-key", "transport.key"], USAGE, &["<SCOPE>"]);
    for scope in ["", &"n".repeat(1025)] {
        let mut arguments = PROVISION.to_vec();
        arguments[2] = scope;
        world.refuses(&arguments, USAGE, &["1 to 1024 bytes"]);
    }
    world.refuses(&[&PROVISION[..], &["--config", "nowhere.toml"]].concat(), STORAGE, &["nowhere.toml"]);
}

// Failure N9
#[test]
fn transport_key_files_that_are_none() {
    let world = world();
    let with = |file: &str, code, says: &[&str]| {
        let mut arguments = PROVISION.to_vec();
        arguments[6] = file;
        let run = world.refuses(&arguments, code, says);
        assert!(!run.stderr.contains("thirty-two"), "{}", run.stderr);
    };
    with("nowhere", STORAGE, &["cannot read the transport key file", "nowhere"]);
    with(".", POLICY, &["chmod 600"]);
    for (name, content) in [
        ("empty", &[][..]),
        ("short", &KEY_BYTES[..31]),
        ("long", &[&KEY_BYTES[..], b"\n"].concat()),
        ("zeros", &[0; 32]),
        ("erased", &[0xFF; 32]),
    ] {
        write_private(&world.path(name), content);
        with(name, POLICY, &["32 random bytes", name]);
    }
    fs::set_permissions(world.path("transport.key"), fs::Permissions::from_mode(0o640)).expect("changed");
    with("transport.key", POLICY, &["chmod 600"]);
    // Whoever is not root cannot give a file away.
    write_private(&world.path("foreign"), KEY_BYTES);
    if chown(world.path("foreign"), Some(12_345), None).is_ok() {
        with("foreign", POLICY, &["belong to this user", "foreign"]);
        world.refuses(
            &[&PROVISION[..5], &["--device-passphrase-file", "foreign"]].concat(),
            POLICY,
            &["belong to this user"],
        );
    }
}

#[test]
fn nothing_is_overwritten_and_nothing_half_done_is_left() {
    let world = world();
    for name in ["there", "link-target"] {
        world.write(name, "kept");
    }
    symlink("link-target", world.path("link")).expect("a link");
    symlink("nowhere", world.path("dangling")).expect("a link");
    fs::create_dir(world.path("folder")).expect("a folder");
    let keys = fs::read(world.keys().join("keys.db")).expect("the store");
    for (output, says) in [
        ("there", "already exists, and is never overwritten"),
        ("link", "a symbolic link"),
        ("dangling", "a symbolic link"),
        ("folder", "a folder"),
        (argument(&world.config()), "never overwritten"),
    ] {
        world.refuses(&with_output("provision", output), USAGE, &[says]);
        world.refuses(&["device", "transport-key", "--output", output], USAGE, &[says]);
    }
    let refused = world.refuses(&with_output("provision", "no/such/folder"), STORAGE, &["no/such/folder"]);
    assert!(!refused.stderr.contains(".tmp"), "{}", refused.stderr);
    assert_eq!(fs::read(world.keys().join("keys.db")).expect("the store"), keys, "a scope was made for nothing");
}

#[test]
fn a_bundle_that_cannot_be_written_says_what_was_done() {
    let world = world();
    let full = |command: &str, says: &str| {
        let disk = fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux");
        let ended = world.command(&with_output(command, "-")).stdout(disk).output().expect("it runs");
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.code() == Some(STORAGE) && stderr.contains(says), "{stderr}");
    };
    full("provision", "the scope was made all the same");
    full("provision", "no key was changed");
    let keys = || world.succeeds(&["keys", "list", "--json"]).json_lines().len();
    let before = keys();
    full("rotate", "the key was rotated all the same");
    assert_eq!(keys(), before + 1);
    let disk = fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux");
    let ended = world.command(&PROVISION).stdout(disk).output().expect("it runs");
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(STORAGE) && stderr.contains("the bundle is in device.bundle"), "{stderr}");
    assert_eq!(world.read("device.bundle").len(), BUNDLE_LEN);
}

/// Covers F-16-3.
#[test]
fn what_nobody_records_is_said() {
    let world = world();
    for (arguments, says) in [
        (&PROVISION[..], "nothing records which key leaves"),
        (&with_output("rotate", "second.bundle"), "nothing records which key leaves"),
        (&["device", "revoke", SCOPE, "--yes", "--reason", "stolen"], "nothing records this, nor the reason"),
    ] {
        let run = world.succeeds(arguments);
        assert!(run.stderr.contains(says), "{}", run.stderr);
    }
    let audited = Audited::new();
    write_private(&audited.0.path("transport.key"), KEY_BYTES);
    let run = audited.0.succeeds(&PROVISION);
    assert!(!run.stderr.contains("nothing records"), "{}", run.stderr);
}

#[test]
fn a_transport_key_is_made() {
    let world = world();
    let made = world.succeeds(&["device", "transport-key", "--output", "new.key"]);
    assert!(made.stderr.contains("in new.key"), "{}", made.stderr);
    let key = world.read("new.key");
    assert_eq!(key.len(), 32);
    assert_eq!(fs::metadata(world.path("new.key")).expect("metadata").permissions().mode() & 0o7777, 0o600);
    let piped = world.succeeds(&["device", "transport-key", "--output", "-"]);
    assert!(piped.stdout.len() == 32 && piped.stdout != key);
    let mut arguments = PROVISION.to_vec();
    arguments[6] = "new.key";
    world.succeeds(&arguments);
    world.succeeds(&["device", "inspect", "device.bundle", "--transport-key", "new.key"]);
}

#[test]
fn through_pipes() {
    let world = world();
    let mut arguments = with_output("provision", "-");
    arguments[6] = "/dev/stdin";
    arguments.push("--json");
    let made = run(&mut world.command(&arguments), &KEY_BYTES).expect(0, &[]);
    assert_eq!((made.stdout.len(), &made.summary()["generation"]), (BUNDLE_LEN, &5.into()));
    let mut inspect = world.command(&["device", "inspect", "-", "--transport-key", "transport.key", "--json"]);
    let inspected = run(&mut inspect, &made.stdout).expect(0, &[]);
    let json = &inspected.json_lines()[0];
    assert_eq!((&json["key_id"], &json["opened"]), (&made.summary()["key_id"], &true.into()));
    let mut command = world.command(&arguments);
    run(&mut command, &KEY_BYTES[..31]).expect(POLICY, &["32 random bytes"]);
}

#[test]
fn a_bundle_under_a_passphrase() {
    let world = world();
    let base = ["device", "provision", SCOPE, "--output", "device.bundle", "--memory", "19"];
    without_terminal(&world, &[&base[..], &["--device-passphrase"]].concat())
        .expect(USAGE, &["there is no terminal", "--device-passphrase-file"]);
    write_private(&world.path("short"), "eleven char\n");
    world.refuses(&[&base[..], &["--device-passphrase-file", "short"]].concat(), DATA, &["at least 12 characters"]);
    write_private(&world.path("long"), "p".repeat(1025));
    world.refuses(&[&base[..], &["--device-passphrase-file", "long"]].concat(), DATA, &["at most 1,024 bytes"]);
    // The passphrase of a KEK is none of a device.
    let mut command = world.command(&[&base[..], &["--device-passphrase-file", "nowhere"]].concat());
    run(command.env("KEYFOLD_PASSPHRASE_FILE", world.path("passphrase")), b"").expect(STORAGE, &["nowhere"]);
    let made = world.succeeds(&[&base[..], &["--device-passphrase-file", "passphrase"]].concat());
    assert!(made.stdout_text().contains("under a passphrase, 19 MiB"), "{}", made.stdout_text());
    let inspect = ["device", "inspect", "device.bundle"];
    let with = |option: &str, file: &str| world.run(&[&inspect[..], &[option, file]].concat());
    let opened = with("--device-passphrase-file", "passphrase").expect(0, &[]);
    assert!(opened.stdout_text().ends_with("it opens\n"), "{}", opened.stdout_text());
    write_private(&world.path("wrong"), "Passphrase4711 of other words\n");
    let wrong = with("--device-passphrase-file", "wrong").expect(KEY, &["the passphrase is another one"]);
    with("--transport-key", "transport.key").expect(USAGE, &["with a passphrase"]);
    without_terminal(&world, &[&inspect[..], &["--device-passphrase"]].concat())
        .expect(USAGE, &["there is no terminal", "--device-passphrase-file"]);
    for run in [made, opened, wrong] {
        assert!(!run.stderr.contains("Passphrase4711") && !contains(&run.stdout, b"Passphrase4711"), "{}", run.stderr);
    }
    world.succeeds(&with_output("provision", "second.bundle"));
    world
        .run(&["device", "inspect", "second.bundle", "--device-passphrase-file", "passphrase"])
        .expect(USAGE, &["with a transport key"]);
}

#[test]
fn the_vectors_under_a_passphrase() {
    let world = world();
    let vectors = fs::read_to_string(repository("testvectors/bundle.json")).expect("the vectors");
    let vectors: serde_json::Value = serde_json::from_str(&vectors).expect("JSON");
    let cases = vectors["cases"].as_array().expect("cases").iter();
    let mut codes = Vec::new();
    for case in cases.filter(|case| case["passphrase"].is_string()) {
        let bundle = case["bundle"].as_str().expect("a text").as_bytes();
        world.write("vector.bundle", data_encoding::HEXLOWER.decode(bundle).expect("hexadecimal"));
        write_private(&world.path("vector"), case["passphrase"].as_str().expect("a text"));
        let run = world.run(&["device", "inspect", "vector.bundle", "--device-passphrase-file", "vector"]);
        codes.push((case["expect"].as_str().expect("a text"), run.code));
    }
    codes.sort_unstable();
    assert_eq!(
        codes,
        [("DecryptionFailed", Some(KEY)), ("DecryptionFailed", Some(KEY)), ("ok", Some(0)), ("ok", Some(0))]
    );
}

#[test]
fn a_bundle_that_was_edited_anywhere_or_is_under_another_key_does_not_open() {
    let world = world();
    world.succeeds(&PROVISION);
    let bytes = world.read("device.bundle");
    let inspect = ["device", "inspect", "edited.bundle", "--transport-key"];
    for at in 0..BUNDLE_LEN {
        let mut edited = bytes.clone();
        edited[at] ^= 1;
        world.write("edited.bundle", &edited);
        let code = world.run(&[&inspect[..], &["transport.key"]].concat()).code;
        // Said is what is public: the layout (4), or that it is no bundle under this key (5).
        let wrapped = at >= 106;
        assert!(
            code == Some(KEY) || (code == Some(DATA) && !wrapped) || (code == Some(USAGE) && at == 5),
            "{at}: {code:?}"
        );
    }
    for len in [0, 3, 5, 106, BUNDLE_LEN - 1] {
        world.write("edited.bundle", &bytes[..len]);
        world.refuses(&inspect[..3], DATA, &["edited.bundle", "[200 Malformed]"]);
    }
    world.write("edited.bundle", [&bytes[..], b"\n"].concat());
    world.refuses(&inspect[..3], DATA, &["[200 Malformed]"]);
    world.write("edited.bundle", &bytes);
    write_private(&world.path("other.key"), *b"another 32 bytes of a device key");
    world.refuses(&[&inspect[..], &["other.key"]].concat(), KEY, &["the transport key is another one"]);
    let shown = world.succeeds(&inspect[..3]);
    assert!(shown.stdout_text().contains("nothing of this is proven"), "{}", shown.stdout_text());
    world.refuses(&["device", "inspect", "nowhere"], STORAGE, &["nowhere"]);
    world.write("other.file", "id,name\n1,2\n");
    world.refuses(&["device", "inspect", "other.file"], DATA, &["other.file", "not a bundle"]);
    let value = world.run(&["inspect", "--file", "device.bundle"]);
    assert!(value.stdout_text().contains("`keyfold device inspect` shows it"), "{}", value.stdout_text());
}

#[test]
fn an_export_is_recorded_before_the_bundle_is_there_or_does_not_happen() {
    let audited = Audited::new();
    let world = &audited.0;
    write_private(&world.path("transport.key"), KEY_BYTES);
    world.succeeds(&PROVISION);
    world.succeeds(&with_output("rotate", "second.bundle"));
    world.succeeds(&["device", "revoke", SCOPE, "--yes", "--reason", "stolen"]);
    let text = fs::read_to_string(audited.file()).expect("the audit file");
    let events: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |action: &str| events.iter().filter(|event| event["action"] == action).collect::<Vec<_>>();
    let (exports, revoked) = (of("provision"), of("revoke"));
    assert_eq!((exports.len(), revoked.len()), (2, 1));
    for (export, bundle) in exports.iter().zip(["device.bundle", "second.bundle"]) {
        assert_eq!(export["key_id"], install(world, bundle).key_id().to_string());
        assert_eq!((&export["outcome"], &export["actor"]), (&"ok".into(), &"keyfold".into()));
    }
    assert_eq!((&revoked[0]["reason"], &revoked[0]["details"]["keys"]), (&"stolen".into(), &"2".into()));
    assert!(!text.contains(SCOPE), "the name of a scope");
    audited.audit(&["audit", "verify"]).expect(0, &[]);
    // It cannot be recorded: a folder is in the place of the file.
    fs::remove_file(audited.file()).expect("removed");
    fs::create_dir(audited.file()).expect("a folder");
    let refused = world.run(&with_output("provision", "third.bundle"));
    assert!(refused.code != Some(0) && !world.path("third.bundle").exists(), "{}", refused.stderr);
}
