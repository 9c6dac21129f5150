//! What operators do, after the simulated time, when nobody else asks the key service.

use crate::time::run_alone;
use crate::world::World;
use keyfold::{Clock, KekAlias, Result, RewrapOptions};
use keyfold_kms::layer::Timer;
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Duration;

/// Records of a step that asks no key service.
const PAGE: usize = 1000;
/// How often something is tried again that the key service had no time for.
const ATTEMPTS: u32 = 1000;
const PAUSE: Duration = Duration::from_secs(1);

/// What commands of operators cost.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Operations {
    /// `keyfold keys rewrap`, after every KEK has got a new version.
    pub rewrap: Operation,
    /// `keyfold keys rotate` for every tenant.
    pub rotate_all: Operation,
    /// `keyfold keys rotate --root`.
    pub rotate_root: Operation,
    /// `keyfold keys reparent`, which puts every key under the new root.
    pub reparent: Operation,
}

/// One of them.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Operation {
    /// Records that were made or changed.
    pub records: u64,
    /// Requests that the key service answered.
    pub calls: u64,
    /// How long it waited for the key service.
    pub seconds: f64,
}

impl Operations {
    pub(crate) fn measure(world: &World) -> Result<Self> {
        let ring = world.process()?;
        world.service.rotate_keks();
        let renew: BTreeSet<KekAlias> = world.kek_aliases()?.into_iter().collect();
        let rewrap = Operator::new(world).run(async |operator| {
            let mut changed = 0;
            // What a KEK was too busy for is left to another walk.
            operator
                .repeat(async || {
                    let options = RewrapOptions { renew: renew.clone(), ..RewrapOptions::default() };
                    let mut walk = ring.rewrap(options).await?;
                    while !operator.repeat(async || walk.step(1).await).await?.done {
                        operator.wait().await;
                    }
                    changed += walk.progress().changed;
                    walk.failures().values().next().map_or(Ok(()), |error| Err(error.clone()))
                })
                .await?;
            Ok(changed)
        })?;
        let rotate_all = Operator::new(world).run(async |operator| {
            for tenant in &world.tenants {
                operator.repeat(async || ring.rotate_data_key(Some(&tenant.scope)).await).await?;
                operator.wait().await;
            }
            Ok(world.tenants.len() as u64)
        })?;
        let rotate_root = Operator::new(world).run(async |operator| {
            operator.repeat(async || ring.rotate_root().await).await?;
            operator.repeat(async || ring.activate_root().await).await?;
            Ok(1)
        })?;
        let reparent = Operator::new(world).run(async |operator| {
            let mut walk = operator.repeat(async || ring.reparent().await).await?;
            while !operator.repeat(async || walk.step(PAGE).await).await?.done {}
            Ok(walk.progress().moved)
        })?;
        Ok(Self { rewrap, rotate_all, rotate_root, reparent })
    }
}

/// Somebody at a command, who spares the key service (`--records-per-second`).
struct Operator<'a> {
    world: &'a World,
    begun: Duration,
    /// What was answered before.
    answered: u64,
}

impl<'a> Operator<'a> {
    fn new(world: &'a World) -> Self {
        Self { world, begun: world.time.now(), answered: world.service.counts().answered() }
    }

    fn run(self, work: impl AsyncFnOnce(&Self) -> Result<u64>) -> Result<Operation> {
        let records = run_alone(&self.world.time, work(&self))?;
        let seconds = (self.world.time.now() - self.begun).as_secs_f64();
        Ok(Operation { records, calls: self.calls(), seconds })
    }

    fn calls(&self) -> u64 {
        self.world.service.counts().answered() - self.answered
    }

    /// Waits until the quota allows for what was asked.
    async fn wait(&self) {
        let needed = self.calls() as f64 / f64::from(self.world.service.quota_per_second());
        let until = self.begun + Duration::from_secs_f64(needed);
        self.world.time.sleep(until.saturating_sub(self.world.time.now())).await;
    }

    /// Does `work` again every second while it fails in a way that passes, such as by throttling.
    async fn repeat<T>(&self, mut work: impl AsyncFnMut() -> Result<T>) -> Result<T> {
        let mut attempts_left = ATTEMPTS;
        loop {
            attempts_left -= 1;
            match work().await {
                Err(error) if error.is_retryable() && attempts_left > 0 => self.world.time.sleep(PAUSE).await,
                done => return done,
            }
        }
    }
}
