//! `kill -9` at random points of shredding and of restoring: what should open opens, what was shredded does not, and
//! repeating finishes.

mod common;

use common::{World, keyfold, kills, run};
use keyfold::{KeyClass, KeyState, Keyring, Value};
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A keyring with a journal and a value in each of some scopes.
struct Clinics {
    world: World,
    values: Vec<Vec<u8>>,
    random: u64,
}

/// Keys of every scope: shredding destroys one after the other.
const KEYS: usize = 5;
/// More keys than are restored in one step, 500.
const SCOPES: usize = 220;

fn name(scope: usize) -> String {
    format!("clinic-{scope}")
}

impl Clinics {
    fn new(scopes: usize) -> Self {
        let world = World::new();
        let config = fs::read_to_string(world.config()).expect("a configuration");
        let config = config.replace("[store]\n", "[store]\njournal = \"file:keys.journal\"\n");
        fs::write(world.config(), config + "\n[shred]\nwaiting = \"none\"\n").expect("written");
        world.succeeds(&["keys", "journal"]);
        let mut clinics = Self { world, values: Vec::new(), random: 0x5EED };
        clinics.add(scopes);
        clinics
    }

    /// Adds scopes, with a value under the first key of each.
    fn add(&mut self, scopes: usize) {
        let ring = self.open();
        for scope in self.values.len()..self.values.len() + scopes {
            let field = ring.field("patient.note").expect("a field").scope(&name(scope));
            let encryptor = pollster::block_on(field.encryptor()).expect("a key");
            self.values.push(encryptor.encrypt(Value::Text("kept"), None).expect("sealed"));
            for _ in 1..KEYS {
                pollster::block_on(ring.rotate_data_key(Some(&name(scope)))).expect("rotated");
            }
        }
    }

    fn open(&self) -> Keyring {
        keyfold_open::open(&self.world.config(), &[self.world.path("policy.toml")]).expect("it opens")
    }

    /// Not for keys.
    fn below(&mut self, n: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % n
    }

    fn opens(&self, ring: &Keyring, scope: usize) -> bool {
        let field = ring.field("patient.note").expect("a field").scope(&name(scope));
        let sealed = &self.values[scope];
        pollster::block_on(async {
            let decryptor = field.decryptor().await?;
            decryptor.load_keys(&[&sealed[..]][..]).await?;
            decryptor.decrypt(sealed, None).map(drop)
        })
        .is_ok()
    }

    fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = keyfold();
        command.args(arguments).arg("--config").arg(self.world.config()).current_dir(self.world.data());
        command
    }

    fn time(&self, arguments: &[impl AsRef<OsStr>]) -> Duration {
        let began = Instant::now();
        run(&mut self.command(arguments), b"").expect(0, &[]);
        began.elapsed()
    }

    /// Runs a command and kills it after a random part of `most`; says whether it had not ended before.
    fn kills(&mut self, arguments: &[impl AsRef<OsStr>], most: Duration) -> bool {
        let limit = most.mul_f64(self.below(1000) as f64 / 1000.0);
        let mut command = self.command(arguments);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        sleep(limit);
        child.kill().expect("killed");
        !child.wait().expect("it ends").success()
    }

    fn store(&self) -> PathBuf {
        self.world.keys().join("keys.db")
    }
}

// Failure K2
#[test]
fn shredding_killed_at_random_points_destroys_what_was_said_and_nothing_else() {
    let kills = kills(50);
    let mut clinics = Clinics::new(2 * kills);
    let schedule = |scope: &str| ["keys", "shred", "--scope", scope].map(str::to_owned).to_vec();
    let finish = |scope: &str| {
        [
            &schedule(scope)[..],
            &["--finish", "--yes", "--force", "--certificate", "certificate.json"].map(str::to_owned),
        ]
        .concat()
    };
    let takes = clinics.time(&schedule(&name(0))).max(clinics.time(&finish(&name(0))));
    let (mut interrupted, mut half_way, mut gone) = (0, 0, vec![0]);
    for scope in 1.. {
        if interrupted >= kills || scope == clinics.values.len() {
            break;
        }
        let victim = name(scope);
        // Killed while it is scheduled, or while it is finished, or both.
        interrupted += usize::from(clinics.kills(&schedule(&victim), takes));
        clinics.time(&schedule(&victim));
        interrupted += usize::from(clinics.kills(&finish(&victim), takes));
        let ring = clinics.open();
        assert!(!clinics.opens(&ring, scope), "a scheduled scope opened");
        let infos = pollster::block_on(ring.list(None, usize::MAX)).expect("listed");
        assert!(infos.iter().all(|info| info.verified.is_ok()));
        let of_data = infos.iter().filter(|info| info.record.class() == KeyClass::Data);
        let pending = of_data.filter(|info| info.record.state() == KeyState::DestroyPending).count();
        assert!(pending <= KEYS, "keys of another scope");
        half_way += usize::from(pending > 0 && pending < KEYS);
        clinics.time(&finish(&victim));
        gone.push(scope);
    }
    assert!(interrupted >= kills, "only {interrupted} were killed before their end");
    assert!(half_way > 0, "none was killed between the keys of a scope");
    println!(
        "{interrupted} killed before their end, {half_way} with some keys of the scope destroyed, of {}",
        gone.len()
    );
    let ring = clinics.open();
    for scope in 0..clinics.values.len() {
        assert_eq!(clinics.opens(&ring, scope), !gone.contains(&scope), "scope {scope}");
    }
    // The journal has gone the same way: a store from it alone shows the same.
    run(&mut clinics.command(&["keys", "verify", "--journal"]), b"").expect(0, &[]);
    fs::remove_file(clinics.store()).expect("removed");
    drop(ring);
    let _ = ["-wal", "-shm"].map(|suffix| fs::remove_file(clinics.world.keys().join(format!("keys.db{suffix}"))));
    clinics.time(&["keys", "restore", "--make-store"]);
    let ring = clinics.open();
    for scope in 0..clinics.values.len() {
        assert_eq!(clinics.opens(&ring, scope), !gone.contains(&scope), "scope {scope}, from the journal");
    }
}

#[test]
fn restoring_killed_at_random_points_ends_with_every_key_and_revives_none() {
    let kills = kills(50);
    let mut clinics = Clinics::new(SCOPES / 10);
    let day_old = fs::read(clinics.store()).expect("read");
    let keys_then = run(&mut clinics.command(&["keys", "list", "--json"]), b"").expect(0, &[]).json_lines().len();
    clinics.add(SCOPES - SCOPES / 10);
    for scope in [3, 4] {
        clinics.time(&["keys", "shred", "--scope", &name(scope)]);
        clinics.time(&[
            "keys",
            "shred",
            "--scope",
            &name(scope),
            "--finish",
            "--yes",
            "--force",
            "--certificate",
            "c.json",
        ]);
    }
    let listed =
        |clinics: &Clinics| run(&mut clinics.command(&["keys", "list", "--json"]), b"").expect(0, &[]).json_lines();
    let before = listed(&clinics);
    let remove = |clinics: &Clinics| {
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(clinics.world.keys().join(format!("keys.db{suffix}")));
        }
    };
    let restore = ["keys", "restore", "--make-store"];
    remove(&clinics);
    let takes = clinics.time(&restore);
    assert_eq!(listed(&clinics), before);
    let (mut interrupted, mut half_way) = (0, 0);
    for round in 0.. {
        // At least one of them between the steps.
        if interrupted >= kills && half_way > 0 {
            break;
        }
        assert!(round < 10 * kills, "{interrupted} were killed before their end, {half_way} between the steps");
        remove(&clinics);
        let mut there = 0;
        if round % 2 == 0 {
            there = keys_then;
            // In which the shredded scopes are alive, but this machine knows better.
            fs::write(clinics.store(), &day_old).expect("written");
        }
        if !clinics.kills(&restore, takes) {
            continue;
        }
        interrupted += 1;
        if clinics.store().exists() {
            let ring = clinics.open();
            assert!(!clinics.opens(&ring, 3) && !clinics.opens(&ring, 4), "a shredded scope opened");
            let infos = pollster::block_on(ring.list(None, usize::MAX)).expect("listed");
            half_way += usize::from(infos.len() > there && infos.len() < before.len());
        }
        clinics.time(&restore);
        assert_eq!(listed(&clinics), before);
    }
    println!("{interrupted} killed before their end, {half_way} with a part of the keys");
    let ring = clinics.open();
    for scope in 0..clinics.values.len() {
        assert_eq!(clinics.opens(&ring, scope), scope != 3 && scope != 4, "scope {scope}");
    }
}
