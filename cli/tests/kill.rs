//! `kill -9` at random points of rotation, reparenting and rewrapping: every value opens afterwards, and resuming finishes.

mod common;

use common::{World, keyfold, kills, run, skip};
use keyfold::{KeyClass, KeyState, Keyring, Record, Value};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A keyring with a value in each of many scopes.
struct Clinic {
    world: World,
    config: PathBuf,
    /// By scope number.
    values: Vec<Vec<u8>>,
    random: u64,
}

fn text(ring: &Keyring, scope: usize) -> Vec<u8> {
    let field = ring.field("patient.note").expect("a field").scope(&scope_name(scope));
    let encryptor = pollster::block_on(field.encryptor()).expect("a key");
    encryptor.encrypt(Value::Text(&format!("kept {scope}")), None).expect("sealed")
}

fn scope_name(scope: usize) -> String {
    format!("clinic-{scope}")
}

impl Clinic {
    /// On the embedded store, or on the one at `uri`.
    fn new(uri: Option<&str>, scopes: usize) -> Self {
        let world = World::new();
        let mut config = world.config();
        if let Some(uri) = uri {
            let folder = world.path("ring");
            run(keyfold().arg("init").arg(&folder).args(["--store", uri]), b"").expect(0, &[]);
            config = folder.join("keyfold.toml");
        }
        let mut clinic = Self { world, config, values: Vec::new(), random: 0x5EED };
        let ring = clinic.open();
        clinic.values = (0..scopes).map(|scope| text(&ring, scope)).collect();
        clinic
    }

    fn open(&self) -> Keyring {
        keyfold_open::open(&self.config, &[self.world.path("policy.toml")]).expect("it opens")
    }

    /// Not for keys.
    fn below(&mut self, n: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % n
    }

    fn records(&self) -> Vec<Record> {
        let infos = pollster::block_on(self.open().list(None, usize::MAX)).expect("a list");
        infos.into_iter().map(|info| info.verified.map(|()| info.record).expect("vouched for")).collect()
    }

    /// Pins every root that there is, so that the chain of endorsements stays short.
    fn pin_all_roots(&self) {
        let infos = pollster::block_on(self.open().list(None, usize::MAX)).expect("a list");
        let roots = infos.iter().filter(|info| info.record.class() == KeyClass::Root);
        let pins: BTreeSet<String> = roots
            .map(|info| info.record.commitment().iter().map(|byte| format!("{byte:02x}")).collect::<String>())
            .map(|pin| format!("\"{pin}\""))
            .collect();
        let config = fs::read_to_string(&self.config).expect("a configuration");
        let pins = pins.into_iter().collect::<Vec<_>>().join(", ");
        let lines = config.lines().map(|line| match line.starts_with("root_pins") {
            true => format!("root_pins = [{pins}]"),
            false => line.to_owned(),
        });
        fs::write(&self.config, lines.collect::<Vec<_>>().join("\n")).expect("written");
    }

    fn assert_open(&self, scopes: impl Iterator<Item = usize>) {
        let ring = self.open();
        for scope in scopes {
            let field = ring.field("patient.note").expect("a field").scope(&scope_name(scope));
            let sealed = &self.values[scope];
            let opened = pollster::block_on(async {
                let decryptor = field.decryptor().await?;
                decryptor.load_keys(&[&sealed[..]][..]).await?;
                decryptor.decrypt(sealed, None)
            })
            .unwrap_or_else(|error| panic!("scope {scope}: {error}"));
            assert_eq!(opened.value(), Value::Text(&format!("kept {scope}")));
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = keyfold();
        command.args(arguments).arg("--config").arg(&self.config);
        command
    }

    /// Runs `keyfold` with `arguments` and kills it after `limit`; says whether it had ended before.
    fn run_for(&self, arguments: &[&str], limit: Duration) -> bool {
        let mut command = self.command(arguments);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        sleep(limit);
        child.kill().expect("killed");
        child.wait().expect("it ends").success()
    }

    /// Runs `keyfold` to its end; says how long that takes.
    fn time(&self, arguments: &[&str]) -> Duration {
        let began = Instant::now();
        run(&mut self.command(arguments), b"").expect(0, &[]);
        began.elapsed()
    }
}

// Failure N11
#[test]
fn every_value_opens_after_kill_9_at_random_points_and_resuming_finishes() {
    kill_at_random_points(Clinic::new(None, 1200), kills(200));
}

#[test]
fn likewise_on_a_database() {
    let Ok(uri) = std::env::var("KEYFOLD_TEST_POSTGRES") else {
        skip("KEYFOLD_TEST_POSTGRES names no PostgreSQL server");
        return;
    };
    let ca = std::env::var("KEYFOLD_TEST_POSTGRES_CA").expect("KEYFOLD_TEST_POSTGRES_CA names the CA");
    let uri = format!("{uri}?sslrootcert={ca}&schema=kill_{}", std::process::id());
    run(keyfold().args(["migrate", "--store", &uri]), b"").expect(0, &[]);
    kill_at_random_points(Clinic::new(Some(&uri), 600), kills(60));
}

fn kill_at_random_points(mut clinic: Clinic, kills: usize) {
    let scopes = clinic.values.len();
    // Slowly, so that it is killed between its steps as well as within them.
    let reparent: &[&str] = &["keys", "reparent", "--records-per-second", "3000"];
    let rotate_root: &[&str] = &["keys", "rotate", "--root"];
    let [root_takes, reparent_takes] = [rotate_root, reparent].map(|arguments| clinic.time(arguments));
    clinic.pin_all_roots();
    let (mut interrupted, mut half_way) = (0, 0);
    for kill in 0.. {
        if interrupted == kills {
            break;
        }
        assert!(kill < 5 * kills, "only {interrupted} of {kill} were killed before their end");
        let scope = scope_name(clinic.below(scopes as u64) as usize);
        let rotate_scope = ["keys", "rotate", "--scope", &scope];
        // Some rotations come to their end, so that there is something to reparent.
        let (arguments, most) = match kill % 4 {
            0 => (rotate_root, root_takes * 2),
            1 => (&rotate_scope[..], root_takes),
            _ => (reparent, reparent_takes),
        };
        let limit = most.mul_f64(clinic.below(1000) as f64 / 1000.0);
        interrupted += usize::from(!clinic.run_for(arguments, limit));
        clinic.pin_all_roots();
        let records = clinic.records();
        let keys = records.iter().filter(|record| record.class() != KeyClass::Root);
        half_way += usize::from(keys.map(Record::authenticator).collect::<BTreeSet<_>>().len() > 1);
        let first = clinic.below(scopes as u64 - 40) as usize;
        clinic.assert_open(first..first + 40);
        if kill % 20 == 0 {
            // New values are under keys of before and after alike.
            let ring = clinic.open();
            let at = clinic.below(scopes as u64) as usize;
            clinic.values[at] = text(&ring, at);
        }
    }
    assert!(half_way > 0, "none left keys under several roots");
    clinic.time(rotate_root);
    clinic.time(reparent);
    clinic.assert_open(0..scopes);
    // A rotation that was killed half way is finished by whoever next seals in its scope.
    let ring = clinic.open();
    (0..scopes).for_each(|scope| drop(text(&ring, scope)));
    let records = clinic.records();
    let roots = records.iter().filter(|record| record.class() == KeyClass::Root);
    let active: Vec<_> = roots.filter(|record| record.state() == KeyState::Active).collect();
    assert_eq!(active.len(), 1, "one root is active");
    for record in records.iter().filter(|record| record.class() != KeyClass::Root) {
        assert_eq!(record.authenticator(), active[0].key_id(), "{record:?}");
    }
    let sealing: Vec<_> =
        records.iter().filter(|r| r.class() == KeyClass::Data && r.state() == KeyState::Active).collect();
    let slots: BTreeSet<_> = sealing.iter().map(|record| record.slot_id().to_string()).collect();
    assert_eq!((sealing.len(), slots.len()), (scopes + 1, scopes + 1), "one key seals in each scope");
    clinic.time(&["keys", "rotate", "--scope", "clinic-7"]);
    println!("{interrupted} killed before their end, {half_way} with keys under several roots");
}

#[test]
fn a_change_of_keks_survives_kill_9_at_random_points() {
    let kills = kills(50);
    const SCOPES: usize = 150;
    let mut clinic = Clinic::new(None, 0);
    let folder = clinic.config.parent().expect("a folder").to_owned();
    let aliases = ["second", "third"];
    let mut config = fs::read_to_string(&clinic.config).expect("a configuration");
    for alias in aliases {
        run(keyfold().args(["keys", "new-kek"]).arg(folder.join(alias)), b"").expect(0, &[]);
        config.push_str(&format!("\n[keks.{alias}]\nuri = \"local:{alias}\"\n"));
    }
    // Isolated, so that there are many records to rewrap.
    for scope in 0..SCOPES {
        config.push_str(&format!("\n[scopes.\"{}\"]\nkeks = [\"local\", \"second\", \"third\"]\n", scope_name(scope)));
    }
    let path = clinic.config.clone();
    let retired = config.replace("uri = \"local:second\"\n", "uri = \"local:second\"\nretired = true\n");
    let retire = |second: bool| fs::write(&path, if second { &retired } else { &config }).expect("written");
    retire(false);
    let ring = clinic.open();
    clinic.values = (0..SCOPES).map(|scope| text(&ring, scope)).collect();
    let add: &[&str] = &["keys", "rewrap"];
    let drop_second: &[&str] = &["keys", "rewrap", "--drop-kek", "second"];
    retire(true);
    clinic.time(drop_second);
    retire(false);
    let takes = clinic.time(add);
    let wrapped = |records: &[Record], count: usize| {
        let by_keks = records.iter().filter(|record| record.kek_aliases().next().is_some());
        by_keks.filter(|record| record.kek_aliases().count() == count).count()
    };
    let (mut interrupted, mut half_way) = (0, 0);
    for kill in 0.. {
        if interrupted == kills {
            break;
        }
        assert!(kill < 5 * kills, "only {interrupted} of {kill} were killed before their end");
        retire(kill % 2 == 0);
        let arguments = if kill % 2 == 0 { drop_second } else { add };
        let limit = takes.mul_f64(clinic.below(1000) as f64 / 1000.0);
        interrupted += usize::from(!clinic.run_for(arguments, limit));
        let records = clinic.records();
        assert_eq!(wrapped(&records, 2) + wrapped(&records, 3), SCOPES + 1, "two wraps at least, each");
        half_way += usize::from(wrapped(&records, 2) > 0 && wrapped(&records, 3) > 0);
        let first = clinic.below(SCOPES as u64 - 20) as usize;
        clinic.assert_open(first..first + 20);
    }
    assert!(half_way > 0, "none left records of both kinds");
    retire(true);
    clinic.time(drop_second);
    assert_eq!(wrapped(&clinic.records(), 2), SCOPES + 1, "resuming finishes");
    fs::remove_file(folder.join("second")).expect("removed");
    clinic.assert_open(0..SCOPES);
    println!("{interrupted} killed before their end, {half_way} with records of both kinds");
}
