//! What operators do, after the simulated time, when nobody else asks the key service.

use crate::world::World;
use keyfold::{Result, RewrapOptions};
use serde::Serialize;
use std::time::Duration;

/// Records of a step.
const PAGE: usize = 1000;

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
        let renew = world.kek_aliases()?.into_iter().collect();
        let rewrap = run(world, async {
            let mut walk = ring.rewrap(RewrapOptions { renew, ..RewrapOptions::default() }).await?;
            while !walk.step(PAGE).await?.done {}
            match walk.failures().values().next() {
                Some(error) => Err(error.clone()),
                None => Ok(walk.progress().changed),
            }
        })?;
        let rotate_all = run(world, async {
            for tenant in &world.tenants {
                ring.rotate_data_key(Some(&tenant.scope)).await?;
            }
            Ok(world.tenants.len() as u64)
        })?;
        let rotate_root = run(world, async {
            ring.rotate_root().await?;
            ring.activate_root().await?;
            Ok(1)
        })?;
        let reparent = run(world, async {
            let mut walk = ring.reparent().await?;
            while !walk.step(PAGE).await?.done {}
            Ok(walk.progress().moved)
        })?;
        Ok(Self { rewrap, rotate_all, rotate_root, reparent })
    }
}

fn run(world: &World, work: impl Future<Output = Result<u64>>) -> Result<Operation> {
    let before = world.service.counts().answered();
    let (records, took): (Result<u64>, Duration) = world.timed(work);
    Ok(Operation { records: records?, calls: world.service.counts().answered() - before, seconds: took.as_secs_f64() })
}
