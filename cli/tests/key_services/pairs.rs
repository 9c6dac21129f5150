//! From each key service to each other one.

use crate::common::{PATIENTS, Table};
use crate::keyring::{Ring, section};
use crate::services::{Service, alone, say};
use keyfold::wire::SealedValue;
use keyfold::{KekAlias, Keyring, Kms, RewrapOptions, Value};
use keyfold_store::{FileHighWater, SqliteStore};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// A way through `0..count` that goes from each number to each other one exactly once.
fn walk(count: usize) -> Vec<usize> {
    let mut way = vec![0];
    for from in 0..count - 1 {
        for to in from + 2..count {
            way.extend([to, from]);
        }
        way.push(from + 1);
    }
    way.extend((0..count - 1).rev());
    way
}

/// As a program opens it that brings its KEKs itself.
fn open(ring: &Ring, keks: &[(Service, &str)], retired: Option<Service>) -> Keyring {
    let (world, keys) = (&ring.world, ring.world.keys());
    let mut config = keyfold_open::read_config(&world.config(), &[world.path("policy.toml")]).expect("a configuration");
    config.keyring.keks.retired.extend(retired.map(alias));
    let keks = keks.iter().map(|(service, uri)| (alias(*service), service.open(uri, &keys)));
    let keks: BTreeMap<KekAlias, Arc<dyn Kms>> = keks.collect();
    let store = Arc::new(SqliteStore::open(keys.join("keys.db")).expect("a store"));
    let high_water = Arc::new(FileHighWater::open(keys.join("keys.high-water")).expect("a file"));
    Keyring::open(config.keyring, store, keks, high_water).expect("a keyring")
}

fn alias(service: Service) -> KekAlias {
    KekAlias::new(service.alias()).expect("an alias")
}

/// Adds the KEK `to`, and drops `from`.
fn rewrap(ring: &Ring, from: (Service, &str), to: (Service, &str)) {
    let keyring = open(ring, &[from, to], Some(from.0));
    let options = RewrapOptions { drop: BTreeSet::from([alias(from.0)]), ..RewrapOptions::default() };
    let mut rewrap = pollster::block_on(keyring.rewrap(options)).expect("begun");
    while !pollster::block_on(rewrap.step(100)).expect("a step").done {}
    let progress = rewrap.progress();
    assert_eq!((progress.added, progress.dropped, progress.kept), (1, 1, 0), "{from:?} {to:?} {:?}", rewrap.failures());
}

/// Reveals the protected file with `kek` alone: in another process, or here where no URI names the KEK.
fn reveal(ring: &Ring, (service, uri): (Service, &str)) {
    let world = &ring.world;
    if service != Service::Callback {
        ring.configure(&section(service, uri));
        world.succeeds(&["reveal", "sealed.csv", "--output", "out.csv", "--force"]);
        return assert_eq!(world.text("out.csv"), PATIENTS, "{service:?}");
    }
    let note = SealedValue::from_text(&Table::parse(&world.text("sealed.csv")).0[1][3]).expect("a sealed text");
    let note = note.as_bytes();
    let keyring = open(ring, &[(service, uri)], None);
    let opened = pollster::block_on(async {
        let reader = keyring.field("patient.note")?.decryptor().await?;
        reader.load_keys(&[note][..]).await.map_err(|error| error.error)?;
        reader.decrypt(note, None).map(|opened| opened.value() == Value::Text("Canáry7391 first"))
    });
    assert!(opened.expect("revealed"));
}

#[test]
fn one_protected_file_moves_from_each_key_service_to_each_other() {
    let _alone = alone();
    let services = Service::given();
    let ring = Ring::new();
    let first = ring.move_to(services[0]);
    ring.world.protect(&[]);
    let protected = ring.world.text("sealed.csv");
    let mut uris = vec![first];
    uris.extend(services[1..].iter().map(|service| service.new_key(&ring.world.keys())));
    let kek = |index: usize| (services[index], uris[index].as_str());
    let (way, start) = (walk(services.len()), Instant::now());
    let mut took = vec![vec![None; services.len()]; services.len()];
    for pair in way.windows(2) {
        let [from, to] = [pair[0], pair[1]];
        let start = Instant::now();
        rewrap(&ring, kek(from), kek(to));
        reveal(&ring, kek(to));
        assert!(took[from][to].replace(start.elapsed().as_millis()).is_none(), "twice");
    }
    assert_eq!(ring.world.text("sealed.csv"), protected, "no data was touched");
    let mut matrix = format!(
        "{} pairs in {:.1} s; milliseconds to rewrap and reveal, from row to column:\n",
        way.len() - 1,
        start.elapsed().as_secs_f64()
    );
    let name = |service: &Service| format!("{:>9}", format!("{service:?}"));
    matrix += &format!("{:9}{}\n", "", services.iter().map(name).collect::<String>());
    for (from, row) in took.iter().enumerate() {
        let cells = row.iter().map(|cell| cell.map_or(format!("{:>9}", "-"), |ms| format!("{ms:>9}")));
        matrix += &format!("{:9}{}\n", format!("{:?}", services[from]), cells.collect::<String>());
        for (to, cell) in row.iter().enumerate() {
            assert_eq!(cell.is_some(), from != to, "{from} to {to}");
        }
    }
    say(&matrix);
}
