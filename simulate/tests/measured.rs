//! The check of the simulator: the same small system, once simulated and once for real, with processes of this machine, an SQLite store,
//! the clock of the system and a KEK that counts. docs/SIMULATE.md has the figures.
#![allow(clippy::unwrap_used, reason = "a test")]

use keyfold::config::Config;
use keyfold::wire::Sealed;
use keyfold::{
    BoxFuture, FieldPolicy, KekAlias, Keyring, KeyringConfig, Kms, MemoryHighWater, Result, Secret, UnwrapRequest,
    Value, WrapRequest, WrappedKey,
};
use keyfold_kms::local::LocalKek;
use keyfold_simulate::{Scenario, simulate};
use keyfold_store::SqliteStore;
use pollster::block_on;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where a process of the real run finds its files, and when it starts, in milliseconds since 1970.
const FOLDER: &str = "KEYFOLD_SIMULATE_FOLDER";
const START: &str = "KEYFOLD_SIMULATE_START";

const PROCESSES: usize = 4;
const TENANTS: usize = 4;
/// Tenants 0 and 2, as the simulator chooses them.
const ISOLATED: [usize; 2] = [0, 2];
const SECONDS: u64 = 20;
const SCENARIO: &str = "
    version = 1
    name = 'measured'
    seed = 1
    [system]
    processes = 4
    tenants = 4
    isolated_tenants = 2
    patients = 1000
    generations = 2
    refresh_every = '1s'
    reads_per_second = 800.0
    writes_per_second = 400.0
    [cache]
    max_age = '4s'
    check_every = '1s'
    [rotation]
    data_age = 'never'
    root_age = 'never'
    [key_service]
    latency_milliseconds = 0.0
    quota_per_second = 1000000
    price_per_10000_calls = 0.03
    price_per_key_and_month = 1.0
    currency = 'USD'
    [run]
    time = '20s'
    step = '1s'
    samples_per_step = 1000
";

/// A KEK that counts what it is asked.
struct Counting {
    kek: LocalKek,
    calls: Arc<AtomicU64>,
}

impl Kms for Counting {
    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Result<WrappedKey>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.kek.wrap(request)
    }

    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Result<Secret<64>>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.kek.unwrap(request)
    }
}

fn kek_names() -> Vec<String> {
    std::iter::once("kek-1".to_owned()).chain(ISOLATED.iter().map(|tenant| format!("tenant-{tenant}"))).collect()
}

fn keks(folder: &Path, calls: &Arc<AtomicU64>) -> BTreeMap<KekAlias, Arc<dyn Kms>> {
    let kek = |name: String| {
        let kek = LocalKek::open(folder.join(&name)).unwrap();
        let kms: Arc<dyn Kms> = Arc::new(Counting { kek, calls: calls.clone() });
        (KekAlias::new(&name).unwrap(), kms)
    };
    kek_names().into_iter().map(kek).collect()
}

fn open(folder: &Path, calls: &Arc<AtomicU64>) -> Keyring {
    let text = std::fs::read_to_string(folder.join("keyfold.toml")).unwrap();
    let mut config: KeyringConfig = Config::parse(&text, "keyfold.toml").unwrap().keyring;
    config.policy.add(FieldPolicy::randomized("f")).unwrap();
    let store = Arc::new(SqliteStore::open(folder.join("keys.db")).unwrap());
    Keyring::open(config, store, keks(folder, calls), Arc::new(MemoryHighWater::default())).unwrap()
}

async fn write(ring: &Keyring, tenant: usize) -> Vec<u8> {
    let field = ring.field("f").unwrap().scope(&format!("tenant-{tenant}"));
    field.encryptor().await.unwrap().encrypt(Value::Text("sixteen bytes, n"), None).unwrap()
}

async fn read(ring: &Keyring, tenant: usize, sealed: &[u8]) {
    let field = ring.field("f").unwrap().scope(&format!("tenant-{tenant}"));
    let reader = field.decryptor().await.unwrap();
    reader.load_keys(&[sealed][..]).await.unwrap_or_else(|failure| panic!("{}", failure.error));
    reader.decrypt(sealed, None).unwrap();
}

/// A keyring in `folder` with two generations of each tenant, and a file with a value under each.
fn make(folder: &Path) {
    for name in kek_names() {
        LocalKek::create(folder.join(name)).unwrap();
    }
    let store = Arc::new(SqliteStore::create(folder.join("keys.db")).unwrap());
    let mut root_kek = keks(folder, &Arc::default());
    root_kek.retain(|alias, _| alias.as_str() == "kek-1");
    let marks = Arc::new(MemoryHighWater::default());
    let created = block_on(Keyring::create("measured", "test", store, root_kek, marks)).unwrap();
    let uris = BTreeMap::from([(KekAlias::new("kek-1").unwrap(), "local:kek-1".to_owned())]);
    let mut text = Config::template(&created, "sqlite:keys.db", "unused", &uris);
    text.push_str("[cache]\nmax_age = '4s'\ncheck_every = '1s'\n[rotation]\ndata_age = 'never'\nroot_age = 'never'\n");
    for tenant in ISOLATED {
        text.push_str(&format!("[keks.tenant-{tenant}]\nuri = 'local:tenant-{tenant}'\nwraps = 'scopes'\n"));
        text.push_str(&format!("[scopes.tenant-{tenant}]\nkeks = ['tenant-{tenant}']\n"));
    }
    std::fs::write(folder.join("keyfold.toml"), text).unwrap();
    let ring = open(folder, &Arc::default());
    for tenant in 0..TENANTS {
        let older = block_on(write(&ring, tenant));
        block_on(ring.rotate_data_key(Some(&format!("tenant-{tenant}")))).unwrap();
        ring.invalidate();
        let newer = block_on(write(&ring, tenant));
        let generation = |sealed: &[u8]| Sealed::parse(sealed).unwrap().key_id().generation();
        assert!(generation(&older) < generation(&newer));
        std::fs::write(folder.join(format!("older-{tenant}")), older).unwrap();
        std::fs::write(folder.join(format!("newer-{tenant}")), newer).unwrap();
    }
}

/// One of the processes of the real run; nothing where no folder is named. Prints what it asked its KEKs.
#[test]
fn process_of_the_real_run() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let at: u64 = std::env::var(START).unwrap().parse().unwrap();
    let values: Vec<[Vec<u8>; 2]> = (0..TENANTS)
        .map(|tenant| ["older", "newer"].map(|name| std::fs::read(folder.join(format!("{name}-{tenant}"))).unwrap()))
        .collect();
    let calls = Arc::<AtomicU64>::default();
    let ring = open(folder, &calls);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    std::thread::sleep(Duration::from_millis(at).checked_sub(now).expect("started in time"));
    let start = Instant::now();
    let mut first = 0;
    for second in 0..SECONDS {
        std::thread::sleep((Duration::from_secs(second)).saturating_sub(start.elapsed()));
        for (tenant, sealed) in values.iter().enumerate() {
            block_on(write(&ring, tenant));
            sealed.iter().for_each(|sealed| block_on(read(&ring, tenant, sealed)));
        }
        if second == 0 {
            first = calls.load(Ordering::Relaxed);
        }
        std::thread::sleep((Duration::from_secs(second) + Duration::from_millis(500)).saturating_sub(start.elapsed()));
        block_on(ring.refresh()).unwrap();
    }
    println!("\ncalls {} {first}", calls.load(Ordering::Relaxed));
}

/// At the start both ask for each key in each process exactly once. Later keys are renewed at moments that are drawn, so that calls agree on
/// average: within 12 %, which is some three times the deviation of so few.
#[test]
fn a_small_real_run_asks_what_was_predicted() {
    let scenario = Scenario::parse(SCENARIO, "measured").unwrap();
    let seeds = 1..=20;
    let predicted = seeds.clone().map(|seed| {
        let mut scenario = scenario.clone();
        scenario.seed = seed;
        simulate(&scenario).unwrap().calls
    });
    let (mut mean, mut starts) = (0.0, Vec::new());
    for calls in predicted {
        assert_eq!((calls.wraps, calls.throttled, calls.lost), (0, 0, 0));
        mean += calls.unwraps as f64 / *seeds.end() as f64;
        starts.push(calls.peak_at_start_per_second);
    }

    let folder = tempfile::tempdir().unwrap();
    make(folder.path());
    let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(2);
    let spawn = |_| {
        Command::new(std::env::current_exe().unwrap())
            .args(["process_of_the_real_run", "--exact", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(START, soon.as_millis().to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let processes: Vec<_> = (0..PROCESSES).map(spawn).collect();
    let (mut total, mut first) = (0, 0);
    for process in processes {
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("calls ")).unwrap();
        let (of_all, at_start) = line.split_once(' ').unwrap();
        total += of_all.parse::<u64>().unwrap();
        first += at_start.parse::<u32>().unwrap();
    }
    println!("predicted {mean:.1} calls, asked {total}; at the start predicted {}, asked {first}", starts[0]);
    // A root, and two generations of each isolated tenant.
    assert_eq!(first, (PROCESSES * (1 + 2 * ISOLATED.len())) as u32);
    assert!(starts.iter().all(|&start| start == first), "{starts:?}");
    let off = total as f64 / mean - 1.0;
    assert!(off.abs() < 0.12, "predicted {mean:.1}, asked {total}");
}
