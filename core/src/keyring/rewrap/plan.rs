//! What a rewrap would do, and what it would cost: without a request to a key service.

use super::{Rewrap, Work};
use crate::error::Result;
use crate::keys::KeyClass;
use crate::kms::KekAlias;
use crate::record::Record;
use crate::wire::KeyId;
use std::collections::{BTreeMap, BTreeSet};

/// Records that are read from the store at once.
const PAGE: usize = 1000;

/// What a [`Rewrap`] is going to do.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RewrapPlan {
    /// Records that were looked at.
    pub seen: u64,
    /// Records that would change.
    pub records: u64,
    /// Wraps that are missing.
    pub added: u64,
    /// Wraps that would be made anew; fewer, where a KEK turns out to have no newer version.
    pub renewed: u64,
    /// Wraps that would be dropped.
    pub dropped: u64,
    /// Requests to each KEK, if every one answers and nothing is in memory.
    pub calls: BTreeMap<KekAlias, KekCalls>,
}

/// Requests to one KEK.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct KekCalls {
    /// To unwrap a key that is to be wrapped, or that of a root which vouches for one.
    pub unwraps: u64,
    /// To make a wrap.
    pub wraps: u64,
    /// To unwrap it again, or one that is to stay when others are dropped.
    pub verifies: u64,
}

impl RewrapPlan {
    /// All requests.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.calls.values().map(|calls| calls.unwraps + calls.wraps + calls.verifies).sum()
    }

    fn count(&mut self, alias: &KekAlias) -> &mut KekCalls {
        self.calls.entry(alias.clone()).or_default()
    }

    fn add(&mut self, work: &Work) {
        self.records += 1;
        self.added += work.add.len() as u64;
        self.renewed += work.renew.len() as u64;
        self.dropped += work.drop.len() as u64;
        for alias in work.add.union(&work.renew) {
            self.count(alias).wraps += 1;
            self.count(alias).verifies += 1;
        }
        for alias in &work.prove {
            self.count(alias).verifies += 1;
        }
    }
}

impl Rewrap {
    /// What [`step`](Self::step) would do from here to the end, and the requests that it would take. Reads every record
    /// and asks no key service.
    ///
    /// # Errors
    ///
    /// - [`Store`](crate::ErrorKind::Store): the database failed.
    /// - [`RecordRejected`](crate::ErrorKind::RecordRejected): a record is older than one seen before.
    /// - [`Configuration`](crate::ErrorKind::Configuration), [`PolicyRefused`](crate::ErrorKind::PolicyRefused): no KEK of a root that would change is
    ///   configured, or is asked in the present mode, so that `step` would end there.
    pub async fn plan(&self) -> Result<RewrapPlan> {
        let ring = &self.ring;
        let mut plan = RewrapPlan::default();
        let (mut changed_roots, mut vouching) = (BTreeSet::new(), BTreeSet::new());
        // The oldest first, as they are walked.
        for key_id in self.roots.iter().rev() {
            let record = ring.record(*key_id).await?;
            plan.seen += 1;
            let Some(work) = self.work_of(&record) else { continue };
            self.add_vouchers(&record, &mut vouching).await?;
            plan.add(&work);
            // Without a root the walk ends.
            if ring.order_of_asking(&record).is_empty() {
                return Err(ring.nobody_to_ask(&record));
            }
            self.count_unwrap(&mut plan, &record);
            changed_roots.insert(*key_id);
        }
        let mut after = self.after;
        loop {
            let page = ring.inner.store.list(ring.lineage(), after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key_id());
            for record in page.iter().filter(|record| record.class() != KeyClass::Root) {
                plan.seen += 1;
                let Some(work) = self.work_of(record).filter(|_| record.is_isolated()) else { continue };
                self.add_vouchers(record, &mut vouching).await?;
                plan.add(&work);
                self.count_unwrap(&mut plan, record);
            }
        }
        // To find whose an isolated key is, the names of scopes were hidden under a root before anything was unwrapped.
        let mut open_before = BTreeSet::new();
        if !self.isolated.is_empty() {
            let names = ring.record(ring.configured().keyring.scope_names).await?;
            self.add_vouchers(&names, &mut open_before).await?;
        }
        for key_id in vouching.difference(&changed_roots).filter(|key_id| !open_before.contains(*key_id)) {
            self.count_unwrap(&mut plan, &ring.record(*key_id).await?);
        }
        Ok(plan)
    }

    /// The roots that must be open for `record` to be trusted.
    async fn add_vouchers(&self, record: &Record, vouching: &mut BTreeSet<KeyId>) -> Result<()> {
        let of = |record: &Record| match record.class() {
            KeyClass::Root if self.ring.is_pinned(record) => None,
            KeyClass::Root => record.endorsed_by(),
            _ => Some(record.authenticator()),
        };
        let mut next = of(record);
        while let Some(key_id) = next.filter(|key_id| vouching.insert(*key_id)) {
            next = of(&self.ring.record(key_id).await?);
        }
        Ok(())
    }

    fn count_unwrap(&self, plan: &mut RewrapPlan, record: &Record) {
        if let Some((alias, _)) = self.ring.order_of_asking(record).first() {
            plan.count(alias).unwraps += 1;
        }
    }
}
