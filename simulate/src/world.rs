//! What is there before the simulated time begins: a keyring in a store, its tenants with as many generations as the scenario says, and
//! one value under each.

use crate::random::Random;
use crate::scenario::Scenario;
use crate::service::{Kek, KekName, Service};
use crate::time::{VirtualTime, run_alone};
use keyfold::wire::Generation;
use keyfold::{
    FieldPolicy, KekAlias, Keyring, KeyringConfig, Kms, MemoryHighWater, Result, RotationPolicy, RowBinding, Value,
};
use keyfold_kms::layer::{Layered, Limits};
use keyfold_store::MemoryStore;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The field whose values are written and read.
pub(crate) const FIELD: &str = "simulated";
/// What the store's clock shows when the simulation begins: so late that keys can be older than any age that rotates them.
const STORE_ZERO: u64 = 1 << 40;
/// How far apart generations are made where no age rotates them.
const DEFAULT_AGE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

pub(crate) struct World {
    pub(crate) time: VirtualTime,
    pub(crate) service: Arc<Service>,
    pub(crate) config: KeyringConfig,
    pub(crate) tenants: Vec<Tenant>,
    store: MemoryStore,
    /// KEKs that wrap the root.
    keks: usize,
    /// Of which tenants there is a KEK.
    isolated: Vec<usize>,
    deadline: Duration,
}

pub(crate) struct Tenant {
    pub(crate) scope: String,
    /// A value under each generation, the newest last.
    pub(crate) values: RefCell<Vec<Stored>>,
}

#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) generation: Generation,
    pub(crate) sealed: Rc<[u8]>,
    pub(crate) row: u64,
}

impl World {
    pub(crate) fn new(scenario: &Scenario, random: &mut Random) -> Result<Self> {
        let store = MemoryStore::new();
        let time = VirtualTime::new(random.fork(), store.clone(), STORE_ZERO);
        let service = Service::new(time.clone(), scenario.key_service.clone(), scenario.outage.clone());
        let system = &scenario.system;
        // Over all of them, so that busy and quiet ones are among them.
        let isolated = (0..system.isolated_tenants).map(|n| n * system.tenants / system.isolated_tenants).collect();
        let mut world = Self {
            config: Self::config(&time, &service, &store, scenario)?,
            tenants: (0..system.tenants).map(Tenant::new).collect(),
            time,
            service,
            store,
            keks: scenario.key_service.keks,
            isolated,
            deadline: scenario.key_service.deadline,
        };
        world.config.cache = scenario.cache;
        for &tenant in &world.isolated {
            let alias = alias(KekName::Tenant(tenant))?;
            world.config.isolated.insert(world.tenants[tenant].scope.clone(), vec![alias.clone()]);
            world.config.scope_keks.insert(alias);
        }
        world.config.rotation =
            RotationPolicy { data_age: None, root_age: None, data_messages: None, lead: Duration::ZERO };
        world.make_generations(scenario, random)?;
        world.config.rotation = scenario.rotation;
        world.store.set_now(STORE_ZERO);
        Ok(world)
    }

    /// A keyring with its root, which becomes due when the scenario says.
    fn config(
        time: &VirtualTime,
        service: &Arc<Service>,
        store: &MemoryStore,
        scenario: &Scenario,
    ) -> Result<KeyringConfig> {
        store.set_now(made_at(scenario.run.root_rotation_at, scenario.rotation.root_age));
        let keks =
            keks((0..scenario.key_service.keks).map(KekName::Root), service, time, scenario.key_service.deadline)?;
        let marks = Arc::new(MemoryHighWater::default());
        let created = Keyring::create(&scenario.name, "simulation", Arc::new(store.clone()), keks, marks);
        let mut config = run_alone(time, created)?.config;
        let mut field = FieldPolicy::randomized(FIELD);
        field.row_binding = RowBinding::Bound { column: Some("patient".to_owned()), path: None, segment: None };
        config.policy.add(field)?;
        Ok(config)
    }

    fn make_generations(&self, scenario: &Scenario, random: &mut Random) -> Result<()> {
        let ring = self.process()?;
        let age = scenario.rotation.data_age.unwrap_or(DEFAULT_AGE).as_secs();
        let count = self.tenants.len() as u64;
        for older in (0..scenario.system.generations as u64).rev() {
            for (n, tenant) in self.tenants.iter().enumerate() {
                let later = scenario.run.rotation_spread.as_secs() * n as u64 / count;
                let at = scenario.run.rotation_at.map(|at| at + Duration::from_secs(later));
                let made = made_at(at, scenario.rotation.data_age).saturating_sub(older * age);
                self.store.set_now(made);
                if !tenant.values.borrow().is_empty() {
                    run_alone(&self.time, ring.rotate_data_key(Some(&tenant.scope)))?;
                }
                let row = random.below(scenario.system.patients);
                run_alone(&self.time, tenant.write(&ring, row))?;
            }
            // What was sealed by this process under an older key would be taken for the newest.
            ring.invalidate();
        }
        Ok(())
    }

    /// A process that has just started: nothing in memory.
    pub(crate) fn process(&self) -> Result<Keyring> {
        let names = (0..self.keks).map(KekName::Root).chain(self.isolated.iter().copied().map(KekName::Tenant));
        let keks = keks(names, &self.service, &self.time, self.deadline)?;
        let (store, marks) = (Arc::new(self.store.clone()), Arc::new(MemoryHighWater::default()));
        Keyring::open_with_clock(self.config.clone(), store, keks, marks, Arc::new(self.time.clone()))
    }

    /// The KEKs that wrap the root or a tenant's keys.
    pub(crate) fn kek_aliases(&self) -> Result<Vec<KekAlias>> {
        let names = (0..self.keks).map(KekName::Root).chain(self.isolated.iter().copied().map(KekName::Tenant));
        names.map(alias).collect()
    }
}

impl Tenant {
    fn new(number: usize) -> Self {
        Self { scope: format!("tenant-{number}"), values: RefCell::default() }
    }

    /// Seals a value for `row` and keeps it as the newest of its generation. Returns that.
    pub(crate) async fn write(&self, ring: &Keyring, row: u64) -> Result<Generation> {
        let encryptor = ring.field(FIELD)?.scope(&self.scope).encryptor().await?;
        let sealed = encryptor.encrypt(Value::Text("sixteen bytes, n"), Some(&row.to_be_bytes()))?;
        let generation = keyfold::wire::Sealed::parse(&sealed)?.key_id().generation();
        let stored = Stored { generation, sealed: sealed.into(), row };
        let mut values = self.values.borrow_mut();
        match values.binary_search_by_key(&generation, |stored| stored.generation) {
            Ok(place) => values[place] = stored,
            Err(place) => values.insert(place, stored),
        }
        Ok(generation)
    }

    /// Opens the value of a generation, of which the newest is the first of `choice`.
    pub(crate) async fn read(&self, ring: &Keyring, newest_first: usize) -> Result<()> {
        let stored = {
            let values = self.values.borrow();
            let Some(last) = values.len().checked_sub(1) else { return Ok(()) };
            values[last - newest_first.min(last)].clone()
        };
        let decryptor = ring.field(FIELD)?.scope(&self.scope).decryptor().await?;
        decryptor.load_keys(&[&stored.sealed[..]][..]).await.map_err(|failure| failure.error)?;
        decryptor.decrypt(&stored.sealed, Some(&stored.row.to_be_bytes())).map(drop)
    }
}

/// When a key was made, by the store's clock, so that it is as old as `age` allows at `due`.
fn made_at(due: Option<Duration>, age: Option<Duration>) -> u64 {
    match (due, age) {
        (Some(due), Some(age)) => (STORE_ZERO + due.as_secs()).saturating_sub(age.as_secs()),
        _ => STORE_ZERO,
    }
}

fn alias(name: KekName) -> Result<KekAlias> {
    KekAlias::new(&match name {
        KekName::Root(number) => format!("kek-{}", number + 1),
        KekName::Tenant(number) => format!("tenant-{number}"),
    })
}

/// The KEKs `names` as one process has them, each under a layer of its own.
fn keks(
    names: impl Iterator<Item = KekName>,
    service: &Arc<Service>,
    time: &VirtualTime,
    deadline: Duration,
) -> Result<BTreeMap<KekAlias, Arc<dyn Kms>>> {
    let kek = |name: KekName| {
        let adapter = Kek { service: Arc::clone(service), name };
        let layered =
            Layered::new(adapter, Limits::default())?.with_deadline(deadline)?.by_timer(Arc::new(time.clone()));
        let kms: Arc<dyn Kms> = Arc::new(layered);
        Ok((alias(name)?, kms))
    };
    names.map(kek).collect()
}
