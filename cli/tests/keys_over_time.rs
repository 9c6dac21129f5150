//! Keys over time by command: leads, ages, reparenting, states, isolated scopes.

use crate::common::{self, KEY, PATIENTS, STORAGE, World, keyfold, run};
use serde_json::Value;
use std::fs;
use std::path::Path;

fn init(folder: &Path) {
    run(keyfold().arg("init").arg(folder), b"").expect(0, &[]);
}

/// The configuration of `world` with `section` added.
fn configure(world: &World, section: &str) {
    let config = fs::read_to_string(world.config()).expect("a configuration");
    fs::write(world.config(), format!("{config}\n{section}\n")).expect("written");
}

fn keys(world: &World) -> Vec<Value> {
    world.run(&["keys", "list", "--json"]).expect(0, &[]).json_lines()
}

fn states(world: &World) -> Vec<String> {
    let data = keys(world).into_iter().filter(|key| key["class"] == "data" && key["slot"].is_null());
    data.map(|key| key["state"].as_str().expect("a state").to_owned()).collect()
}

/// Rows and documents that are protected together may be more than a key may seal: the next keys seal the rest.
#[test]
fn batches_larger_than_what_a_key_may_seal_are_protected() {
    let world = World::new();
    configure(&world, "[rotation]\ndata_messages = 300");
    world.write(
        "policy.toml",
        "version = 1\n[fields.a]\noptional = true\ncolumns = [\"a\"]\n[fields.b]\nmode = \"document\"\noptional = true\npaths = [\"$.b\", \"$.c[*]\"]\n\
         [documents.all]\nroot = \"$\"\nrow_binding = \"none\"\n",
    );
    let csv = (0..2_000).fold("a,x\n".to_owned(), |all, n| all + &format!("Canáry7391 {n},x\n"));
    let json = (0..2_000).fold(String::new(), |all, n| all + &format!("{{\"b\":\"Canáry7391 {n}\"}}\n"));
    for (file, text) in [("in.csv", csv), ("in.ndjson", json)] {
        let before = states(&world).len();
        world.write(file, &text);
        world.succeeds(&["protect", file, "--output", "sealed", "--force"]);
        assert!((6..16).contains(&(states(&world).len() - before)), "{:?}", states(&world));
        world.succeeds(&["reveal", "sealed", "--format", &file[3..], "--output", "back", "--force"]);
        assert_eq!(world.text("back"), text);
    }
    // One document has one key. No line is told that is not at fault, and nothing is written.
    let values = vec!["\"Canáry7391\""; 301].join(",");
    world.write("large.ndjson", format!("{{\"c\":[{values}]}}\n"));
    world.refuses(&["protect", "large.ndjson", "--output", "out"], common::DATA, &["301 of 300", "data_messages"]);
    // Until the next key seals nothing is: of the whole batch, whose first row is not to blame.
    let world = World::new();
    configure(&world, "[rotation]\ndata_messages = 300\nlead = \"1h\"");
    world.write("policy.toml", "version = 1\n[fields.a]\ncolumns = [\"a\"]\n");
    world.write("in.csv", (0..301).fold("a\n".to_owned(), |all, n| all + &format!("Canáry7391 {n}\n")));
    let failed =
        world.refuses(&["protect", "in.csv", "--output", "out"], common::DATA, &["as many values", "LimitExceeded"]);
    assert!(!failed.stderr.contains("row 1"), "{}", failed.stderr);
}

#[test]
fn a_rotation_with_a_lead_is_published_and_activated() {
    let world = World::new();
    configure(&world, "[rotation]\nlead = \"10m\"");
    let run = world.run(&["keys", "rotate"]).expect(0, &[]);
    assert!(run.stdout_text().contains("is published and seals from 20"), "{}", run.stdout_text());
    assert!(run.stdout_text().contains("seals until then and opens"), "{}", run.stdout_text());
    assert_eq!(states(&world), ["active", "pre-active"]);
    assert!(world.run(&["keys", "list"]).expect(0, &[]).stdout_text().contains("published, does not seal yet"));
    let again = world.run(&["keys", "rotate"]).expect(0, &[]);
    assert!(again.stdout_text().contains("it was there already"), "{}", again.stdout_text());
    let now = world.run(&["keys", "rotate", "--now", "--json"]).expect(0, &[]).json_lines();
    assert_eq!((&now[0]["state"], &now[0]["by_other"]), (&Value::from("active"), &Value::from(true)));
    assert_eq!(states(&world), ["deactivated", "active"]);
    world.run(&["keys", "rotate", "--now"]).expect(0, &[]);
    assert_eq!(states(&world), ["deactivated", "deactivated", "active"]);
}

#[test]
fn a_key_is_rotated_by_the_policy_when_it_is_next_used() {
    let world = World::new();
    configure(&world, "[rotation]\ndata_age = \"1s\"\nroot_age = \"never\"");
    world.protect(&[]);
    std::thread::sleep(std::time::Duration::from_millis(2100));
    world.run(&["protect", "in.csv", "--output", "again.csv"]).expect(0, &[]);
    assert_eq!(states(&world).iter().filter(|state| *state == "active").count(), 1);
    assert!(states(&world).len() >= 2, "{:?}", states(&world));
    for (protected, revealed) in [("sealed.csv", "one.csv"), ("again.csv", "two.csv")] {
        world.run(&["reveal", protected, "--output", revealed]).expect(0, &[]);
        assert_eq!(world.text(revealed), PATIENTS);
    }
}

#[test]
fn reparenting_lets_the_old_pin_go() {
    let world = World::new();
    let config = fs::read_to_string(world.config()).expect("a configuration");
    let journal = "[store]\njournal = \"file:keys.journal\"";
    fs::write(world.config(), config.replace("[store]", journal)).expect("written");
    world.run(&["keys", "journal"]).expect(0, &[]);
    world.protect(&["--scope", "clinic"]);
    let rotated = world.run(&["keys", "rotate", "--root", "--json"]).expect(0, &[]).json_lines();
    let pin = rotated[0]["root_pin"].as_str().expect("a pin").to_owned();
    // Taking the older pin away now would leave nothing that is trusted.
    let unpinned = format!("pin {pin}, is not pinned here: if you know of it, add that");
    let text = world.run(&["keys", "reparent", "--records-per-second", "1000000"]).expect(0, &[&unpinned]);
    let doctor = || run(keyfold().args(["doctor", "--config"]).arg(world.config()), b"").expect(0, &[]);
    let told = doctor().stdout_text().replace("\n", " ");
    assert!(told.contains("is not pinned here, and trusted because") && told.contains(&pin), "{told}");
    assert!(text.stdout_text().contains("no key is under another one"), "{}", text.stdout_text());
    let again = world.run(&["keys", "reparent", "--json"]).expect(0, &[]).json_lines();
    assert_eq!((&again[0]["moved"], &again[0]["root"]), (&Value::from(0), &rotated[0]["new"]));
    // The new pin alone.
    let config = fs::read_to_string(world.config()).expect("a configuration");
    let line = config.lines().find(|line| line.starts_with("root_pins")).expect("pins").to_owned();
    fs::write(world.config(), config.replace(&line, &format!("root_pins = [\"{pin}\"]"))).expect("written");
    world.run(&["reveal", "sealed.csv", "--scope", "clinic", "--output", "revealed.csv"]).expect(0, &[]);
    assert_eq!(world.text("revealed.csv"), PATIENTS);
    // The root that was replaced is no sign of tampering.
    let list = world.run(&["keys", "list"]).expect(0, &[]);
    assert!(list.stdout_text().contains("not pinned any more, and no key needs it"), "{}", list.stdout_text());
    // Nor are its older records in a journal, in which it still seals.
    let verified = world.run(&["keys", "verify", "--journal"]).expect(0, &[]);
    assert!(!verified.stdout_text().contains("NOT VOUCHED FOR"), "{}", verified.stdout_text());
    assert_eq!(verified.stdout_text().matches(", a trusted root vouches for each").count(), 2);
    let again = world.run(&["keys", "reparent"]).expect(0, &[]);
    assert!(!again.stderr.contains("is not pinned here"), "{}", again.stderr);
    let told = doctor().stdout_text().to_owned();
    assert!(told.contains("0 problems") && !told.contains("is not pinned here"), "{told}");
}

#[test]
fn reparenting_waits_for_a_root_that_is_published() {
    let world = World::new();
    configure(&world, "[rotation]\nlead = \"1h\"");
    let rotated = world.run(&["keys", "rotate", "--root"]).expect(0, &[]);
    assert!(rotated.stdout_text().contains("reparent`, not before 20"), "{}", rotated.stdout_text());
    world.run(&["keys", "reparent"]).expect(STORAGE, &["keys rotate --root --now"]);
    world.run(&["keys", "rotate", "--root", "--now"]).expect(0, &[]);
    world.run(&["keys", "reparent"]).expect(0, &[]);
}

#[test]
fn a_scope_that_is_isolated_later_is_so_at_once_and_misspelt_ones_are_told() {
    let world = World::new();
    world.protect(&["--scope", "tenant 7"]);
    let new_kek = || run(keyfold().args(["keys", "new-kek"]).arg(world.keys().join("tenant.kek")), b"");
    new_kek().expect(0, &[]);
    new_kek().expect(STORAGE, &["tenant.kek"]);
    configure(
        &world,
        "[rotation]\nlead = \"1h\"\n[keks.tenant]\nuri = \"local:tenant.kek\"\nwraps = \"scopes\"\n\n[scopes.\"tenant 7\"]\nkeks = [\"tenant\"]\n[scopes.\"tenant 77\"]\nkeks = [\"tenant\"]",
    );
    world.protect(&["--scope", "tenant 7"]);
    let list = world.run(&["keys", "list"]).expect(0, &["check its spelling", "tenant 77"]);
    assert!(list.stdout_text().contains("seals and opens; isolated, KEKs tenant"), "{}", list.stdout_text());
    // Its KEK is missing: the others go on.
    fs::remove_file(world.keys().join("tenant.kek")).expect("removed");
    world
        .run(&["reveal", "sealed.csv", "--scope", "tenant 7", "--output", "no.csv"])
        .expect(common::KMS, &["KEK tenant"]);
    world.run(&["protect", "in.csv", "--output", "own.csv"]).expect(0, &["cannot be opened"]);
}

#[test]
fn a_compromised_key_opens_only_with_the_flag_and_gets_a_successor() {
    let world = World::new();
    world.protect(&[]);
    let sealing = keys(&world).into_iter().find(|key| key["class"] == "data").expect("a data key");
    let key_id = sealing["key_id"].as_str().expect("an ID");
    world.run(&["keys", "state", key_id, "compromised"]).expect(0, &[]);
    assert_eq!(states(&world), ["compromised", "active"]);
    world.run(&["reveal", "sealed.csv", "--output", "no.csv"]).expect(KEY, &["is compromised"]);
    world.run(&["protect", "in.csv", "--output", "fresh.csv"]).expect(0, &[]);
    let config = fs::read_to_string(world.config()).expect("a configuration");
    fs::write(world.config(), config.replace("[store]", "open_compromised = true\n\n[store]")).expect("written");
    let run = world.run(&["reveal", "sealed.csv", "--output", "revealed.csv"]).expect(0, &[]);
    assert!(run.stderr.contains("under a compromised key"), "{}", run.stderr);
    assert_eq!(world.text("revealed.csv"), PATIENTS);
    world.run(&["keys", "state", key_id, "active"]).expect(KEY, &["cannot change that way"]);
    // It comes back as what it was.
    let pending = world.run(&["keys", "state", key_id, "destroy-pending"]).expect(0, &[]);
    let back = "`keyfold keys state KEY compromised` takes that back";
    assert!(pending.stdout_text().contains(back), "{}", pending.stdout_text());
    world.run(&["keys", "state", key_id, "deactivated"]).expect(KEY, &["cannot change that way"]);
    world.run(&["keys", "state", key_id, "compromised"]).expect(0, &[]);
    world.run(&["keys", "state", "00", "active"]).expect(common::USAGE, &["48 lower-case hexadecimal digits"]);
    let root = keys(&world).into_iter().find(|key| key["class"] == "root").expect("a root");
    let root = root["key_id"].as_str().expect("an ID").to_owned();
    world.run(&["keys", "state", &root, "compromised"]).expect(common::POLICY, &["rotate it and reparent"]);
    // No setting lets a compromised root open anything.
    let rotated = &world.run(&["keys", "rotate", "--root", "--json"]).expect(0, &[]).json_lines()[0];
    let pin = rotated["root_pin"].as_str().expect("a pin");
    let config = fs::read_to_string(world.config()).expect("a configuration");
    let pinned = config.replace("root_pins = [", &format!("root_pins = [\"{pin}\", "));
    fs::write(world.config(), pinned).expect("written");
    world.run(&["keys", "reparent"]).expect(0, &[]);
    let marked = world.run(&["keys", "state", &root, "compromised"]).expect(0, &[]);
    let said = marked.stdout_text();
    assert!(said.contains("nothing opens under it") && !said.contains("open_compromised"), "{said}");
}

/// As on a disk that is full: the store has the change, and the file of marks does not.
#[test]
fn a_change_whose_mark_cannot_be_written_is_told() {
    let world = World::new();
    world.protect(&[]);
    let sealing = keys(&world).into_iter().find(|key| key["class"] == "data").expect("a data key");
    let key_id = sealing["key_id"].as_str().expect("an ID");
    let [store, lock] = ["keys.db", "keys.high-water.lock"].map(|name| world.keys().join(name));
    let old = fs::read(&store).expect("the store");
    fs::remove_file(&lock).expect("removed");
    fs::create_dir(&lock).expect("a folder in its place");
    let told = format!("{key_id} is deactivated all the same");
    world.run(&["keys", "state", key_id, "deactivated"]).expect(STORAGE, &["keys.high-water", &told]);
    fs::remove_dir(&lock).expect("removed");
    world.run(&["keys", "state", key_id, "deactivated"]).expect(KEY, &["cannot change that way"]);
    fs::write(&store, &old).expect("put back");
    world.run(&["reveal", "sealed.csv", "--output", "no.csv"]).expect(KEY, &["304 RecordRejected", "rolled back"]);
}

#[test]
fn an_isolated_scope_is_under_its_own_kek() {
    let world = World::new();
    let tenant = tempfile::tempdir().expect("a folder");
    init(tenant.path());
    fs::copy(tenant.path().join("local.kek"), world.keys().join("tenant.kek")).expect("copied");
    configure(
        &world,
        "[keks.tenant]\nuri = \"local:tenant.kek\"\nwraps = \"scopes\"\n\n[scopes.\"tenant 7\"]\nkeks = [\"tenant\"]",
    );
    world.protect(&["--scope", "tenant 7"]);
    let list = world.run(&["keys", "list"]).expect(0, &[]);
    assert!(list.stdout_text().contains("seals and opens; isolated, KEKs tenant"), "{}", list.stdout_text());
    world.run(&["reveal", "sealed.csv", "--scope", "tenant 7", "--output", "one.csv"]).expect(0, &[]);
    // Without the tenant's KEK its scope does not open, and others do.
    fs::remove_file(world.keys().join("tenant.kek")).expect("removed");
    init(&tenant.path().join("other"));
    fs::copy(tenant.path().join("other/local.kek"), world.keys().join("tenant.kek")).expect("copied");
    world
        .run(&["reveal", "sealed.csv", "--scope", "tenant 7", "--output", "two.csv"])
        .expect(common::KMS, &["KEK tenant"]);
    world.run(&["protect", "in.csv", "--output", "own.csv"]).expect(0, &[]);
    configure(&world, "[scopes.\"tenant 8\"]\nkeks = [\"nobody\"]");
    world.run(&["keys", "list"]).expect(common::POLICY, &["there is no [keks] section", "nobody"]);
}
