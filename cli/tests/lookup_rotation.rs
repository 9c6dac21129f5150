//! `keyfold reencrypt` where a look-up key was replaced: deterministic values under the old one are sealed again, so that all of
//! them join once more. No command makes a second look-up key yet, so the test does, from the bytes of the root.

mod common;

use common::{PATIENTS, World, argument, keyfold, run};
use keyfold::config::Config;
use keyfold::vectors::{Key, RecordParts, WrapParts};
use keyfold::wire::KeyId;
use keyfold::{
    BoxFuture, KekAlias, KeyClass, KeyState, KeyStore, Keyring, Kms, MemoryHighWater, Record, Result, Secret, SlotId,
    UnwrapRequest, WrapRequest, WrappedKey,
};
use keyfold_kms::local::LocalKek;
use keyfold_store::SqliteStore;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// A KEK that remembers what it wraps.
struct Watched {
    inner: LocalKek,
    root: Arc<Mutex<Option<[u8; 32]>>>,
}

impl Kms for Watched {
    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Result<WrappedKey>> {
        let key = request.payload.expose().first_chunk().expect("a key").to_owned();
        *self.root.lock().expect("not poisoned") = Some(key);
        self.inner.wrap(request)
    }

    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Result<Secret<64>>> {
        self.inner.unwrap(request)
    }
}

/// Makes a keyring in `folder` with two look-up keys, of which the first seals; returns its configuration and both IDs.
fn keyring(folder: &Path) -> (String, KeyId, KeyId) {
    let root = Arc::default();
    let kek = Watched { inner: LocalKek::create(folder.join("local.kek")).expect("a KEK"), root: Arc::clone(&root) };
    let alias = KekAlias::new("local").expect("an alias");
    let store = Arc::new(SqliteStore::create(folder.join("keys.db")).expect("a store"));
    let keks: BTreeMap<KekAlias, Arc<dyn Kms>> = BTreeMap::from([(alias.clone(), Arc::new(kek) as Arc<dyn Kms>)]);
    let marks = Arc::new(MemoryHighWater::default());
    let created = pollster::block_on(Keyring::create("test", "test", store.clone(), keks, marks)).expect("a keyring");
    let lineage = created.config.lineage;
    let lookup = created.config.lookup["default"].clone();
    let bytes = root.lock().expect("not poisoned").expect("the root was wrapped");
    let root = Key { bytes, lineage, class: KeyClass::Root, slot: SlotId::NONE, generation: created.root.generation() };
    assert_eq!(root.key_id(), created.root);
    let generation =
        pollster::block_on(store.allocate_generation(lineage, lookup.seals.generation())).expect("a number");
    let second = Key { bytes: [9; 32], lineage, class: KeyClass::Lookup, slot: lookup.partition, generation };
    let wrapped = second.wrap(&root, &[3; 24]).expect("wrapped").to_vec();
    let now = pollster::block_on(store.now()).expect("a time");
    let record = RecordParts {
        key: second,
        root,
        state: KeyState::Active,
        scope_tag: None,
        sequence: 1,
        times: [now; 3],
        environment: "test",
        wraps: vec![WrapParts { kind: 1, alias: String::new(), version: String::new(), bytes: wrapped }],
        endorser: None,
        extensions: Vec::new(),
    };
    let record = Record::parse(&record.to_bytes()).expect("a record");
    pollster::block_on(store.insert(&record, Some(lookup.seals))).expect("stored");
    let keks = BTreeMap::from([(alias, "local:local.kek".to_owned())]);
    (Config::template(&created, "sqlite:keys.db", "keys.high-water", &keks), lookup.seals, second.key_id())
}

#[test]
fn values_under_the_old_lookup_key_are_sealed_again() {
    let world = World::new();
    let folder = world.path("ring");
    fs::create_dir(&folder).expect("a folder");
    let (config, first, second) = keyring(&folder);
    let path = folder.join("keyfold.toml");
    fs::write(&path, &config).expect("written");
    let command = |arguments: &[&str]| {
        let mut command = keyfold();
        command.current_dir(world.data()).args(arguments);
        run(command.args(["--config", argument(&path), "--policy", "policy.toml"]), b"")
    };
    command(&["protect", "in.csv", "--output", "sealed.csv"]).expect(0, &[]);
    // The second one seals, and the first still opens.
    let [first, second] = [first.to_string(), second.to_string()];
    fs::write(&path, config.replace(&first, &second).replace("opens = []", &format!("opens = [\"{first}\"]")))
        .expect("written");
    let summary =
        command(&["reencrypt", "sealed.csv", "--output", "out.csv", "--statement", "s", "--json"]).expect(0, &[]);
    assert!(
        summary.stderr.contains("\"outdated\":3") && summary.stderr.contains("\"values\":12"),
        "{}",
        summary.stderr
    );
    let ids = |file: &str| -> BTreeSet<String> {
        let census = world.succeeds(&["census", file, "--column", "patient_id", "--key-ids", "-"]);
        census.stdout_text().lines().map(|line| line.split('\t').next().expect("an ID").to_owned()).collect()
    };
    assert_eq!(ids("sealed.csv"), BTreeSet::from([first]));
    assert_eq!(ids("out.csv"), BTreeSet::from([second]));
    // What is randomised stays byte for byte, although it is bound to what has changed.
    let cells = |file: &str| -> Vec<String> {
        world.text(file).lines().map(|line| line.split_once(',').expect("two cells").1.to_owned()).collect()
    };
    assert_eq!(cells("sealed.csv"), cells("out.csv"));
    // They join with what is sealed now.
    command(&["protect", "in.csv", "--output", "new.csv"]).expect(0, &[]);
    let firsts = |file: &str| -> Vec<String> {
        world.text(file).lines().map(|line| line.split(',').next().expect("a cell").to_owned()).collect()
    };
    assert_eq!(firsts("out.csv"), firsts("new.csv"));
    command(&["reveal", "out.csv", "--output", "clear.csv"]).expect(0, &[]);
    assert_eq!(world.text("clear.csv"), PATIENTS);
}
