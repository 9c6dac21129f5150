//! Restoring (DESIGN K12): copies of a store are put together so that no key is lost, none comes back that was destroyed,
//! and no generation is used twice.
//!
//! A plan is made first, from what a trusted root vouches for; carrying it out only ever raises what the store has of that, so it may be
//! stopped anywhere and repeated.

mod choose;

use super::Keyring;
use crate::audit::{AuditAction, AuditEvent};
use crate::error::{Error, ErrorKind, Result};
use crate::high_water::{HighWaterMark, MemoryHighWater};
use crate::keys::KeyClass;
use crate::record::{KeyState, Record};
use crate::store::RecordChange;
use crate::wire::{Generation, KeyId};
use choose::{Choice, Copies};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Records that are read or stored in one step.
const PAGE: usize = 500;
/// How far ahead of the newest key the number of a key may be of which there is nothing but the number. Whoever can write
/// data could otherwise use all numbers up.
// F-D-5.
const PLAUSIBLE: Generation = 1_000_000;

/// What a copy of a store says of a record.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum CopyStatus {
    /// The store refused it: nothing was sealed under it. Its generation was used all the same.
    Refused,
    /// It was to be stored; whether it was is not known.
    Intended,
    /// The store had it.
    Stored,
}

/// A record that was found in a backup or a journal.
#[derive(Clone, Debug)]
pub struct RecordCopy {
    /// The record.
    pub record: Record,
    /// What the copy says of it.
    pub status: CopyStatus,
}

/// What was seen of a keyring outside its store.
#[derive(Clone, Debug, Default)]
pub struct SeenElsewhere {
    /// The highest generation of a high-water file; 0 without one.
    pub generation: Generation,
    /// The highest generation that journals and backups say was used, with a key or without.
    pub given_out: Generation,
    /// The marks of keys in the high-water file.
    pub marks: Vec<(KeyId, HighWaterMark)>,
    /// The key IDs that were found in data.
    pub in_data: BTreeSet<KeyId>,
}

/// Something that was there and cannot be restored from what was given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Lost {
    /// The key was changed on this machine, and no copy has it.
    Key(KeyId, HighWaterMark),
    /// The high-water file saw a newer record of the key than every copy has: what it saw, and what there is.
    Newer(KeyId, HighWaterMark, HighWaterMark),
    /// Values under this key are in the data, and no copy has it.
    InData(KeyId),
    /// Generations that were used on this machine and are in no copy, first and last: keys may have been made with them.
    Generations(Generation, Generation),
    /// The store has a record of the key that is newer than what every copy has, and nobody vouches for it: what it says, and what takes
    /// its place. It is damaged or forged, or the pin of its root is missing here.
    Unvouched(KeyId, HighWaterMark, HighWaterMark),
}

/// Why a key of which there is a live record is destroyed by restoring.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Evidence {
    /// A store had its tombstone.
    Tombstone,
    /// Its tombstone was to be stored, and whether it was is not known.
    Intent,
    /// The high-water file says so, which nobody vouches for.
    Mark,
}

/// What restoring will do. Made by [`Keyring::plan_restore`].
#[derive(Clone, Debug, Default)]
pub struct RestorePlan {
    /// The records that the store lacks, or has in an older form, in the order in which they are stored: tombstones, then
    /// the other keys, then roots, without which nobody can use the store.
    pub records: Vec<Record>,
    /// Records that take the place of one for which nobody vouches and which they do not outrank: it was damaged or forged in the
    /// store. In the same order.
    pub displacing: Vec<RecordChange>,
    /// Records that are left out, with the reason: nobody trusted vouches for them, or they contradict others.
    pub refused: Vec<(Record, Error)>,
    /// Records of roots that were replaced: nobody vouches for them since their pins are gone, and no key needs them.
    pub retired: Vec<(Record, Error)>,
    /// What cannot be restored.
    pub lost: Vec<Lost>,
    /// Keys that will be destroyed although there is a live record of them, and why.
    pub destroyed: Vec<(KeyId, Evidence)>,
    /// How many keys there will be.
    pub keys: usize,
    /// How many of them are tombstones.
    pub tombstones: usize,
    /// Generations up to this one were used.
    pub generation: Generation,
}

impl RestorePlan {
    /// How many records will be stored.
    #[must_use]
    pub fn to_store(&self) -> usize {
        self.records.len() + self.displacing.len()
    }

    /// Whether keys would be destroyed of which it is not certain that they were.
    #[must_use]
    pub fn destroys_on_doubt(&self) -> bool {
        self.destroyed.iter().any(|(_, evidence)| *evidence != Evidence::Tombstone)
    }
}

impl Keyring {
    /// The records as the store has them, in ascending order of key ID, those after `after`, at most `limit`. Nobody has
    /// vouched for them: for backups, which must not depend on a key service.
    ///
    /// # Errors
    ///
    /// - [`Store`](ErrorKind::Store): the database failed.
    pub async fn stored(&self, after: Option<KeyId>, limit: usize) -> Result<Vec<Record>> {
        self.inner.store.list(self.lineage(), after, limit).await
    }

    /// Plans how the store is to be restored from `copies`, together with what it has itself: of each key the tombstone
    /// wins, then the highest sequence, then a record that a store had over one that was only to be stored, then
    /// the more restrictive state. A record that was only to be stored does not count beside one that a store had with the same
    /// sequence or a higher one. Only records count for which a trusted root vouches, in the store as well: what is there of a key and does
    /// not count gives way to the best copy that does, even to an older one, which is a [loss](Lost::Unvouched). What a mark says was
    /// destroyed is destroyed, unless the key is under legal hold; whoever carries the plan out decides whether what
    /// [`destroyed`](RestorePlan::destroyed) names may be. Changes nothing. Records of other keyrings are passed over.
    ///
    /// # Errors
    ///
    /// - [`RecordRejected`](ErrorKind::RecordRejected): there is no trusted root among the records.
    /// - [`Malformed`](ErrorKind::Malformed): `given_out` is far above the generation of every key that counts.
    /// - [`Kms`](ErrorKind::Kms), [`Configuration`](ErrorKind::Configuration): a root cannot be unwrapped. Nothing is left
    ///   out because a key service is away.
    pub async fn plan_restore(&self, copies: Vec<RecordCopy>, seen: &SeenElsewhere) -> Result<RestorePlan> {
        let present = self.all_stored().await?;
        let mut all = Copies::default();
        for copy in copies.into_iter().filter(|copy| copy.record.lineage() == self.lineage()) {
            all.add(copy.record, copy.status);
        }
        // Last, so that of several of one rank it is looked at: a damaged one would otherwise stay behind a good copy.
        for record in present.values() {
            all.add(record.clone(), CopyStatus::Stored);
        }
        let Choice { mut chosen, mut refused, retired, above } = self.choose(all).await?;
        let newest = chosen.keys().map(KeyId::generation).max().unwrap_or_default();
        let plausible = |generation: &Generation| *generation <= newest.saturating_add(PLAUSIBLE);
        if !plausible(&seen.given_out) {
            return Err(implausible(seen.given_out, newest));
        }
        let known = newest.max(seen.given_out);
        refuse_second_scopes(&mut chosen, &mut refused);
        let intended = chosen.iter().filter(|(id, (record, status))| {
            record.state() == KeyState::Destroyed && *status == CopyStatus::Intended && above.contains_key(id)
        });
        let intended: BTreeSet<KeyId> = intended.map(|(id, _)| *id).collect();
        let chosen: BTreeMap<KeyId, Record> = chosen.into_iter().map(|(id, (record, _))| (id, record)).collect();
        let ring = self.over(chosen.clone())?;
        let mut plan = RestorePlan { refused, retired, keys: chosen.len(), ..RestorePlan::default() };
        plan.generation = seen.in_data.iter().map(KeyId::generation).filter(plausible).max().unwrap_or_default();
        plan.generation = plan.generation.max(known).max(seen.generation);
        let marks: BTreeMap<KeyId, HighWaterMark> = seen.marks.iter().copied().collect();
        for (key_id, mark) in &marks {
            // A root without its pin is not lost where a copy has it as it was last seen.
            let is_retired =
                |(root, _): &(Record, Error)| root.key_id() == *key_id && mark.check(HighWaterMark::of(root)).is_ok();
            if mark.state != KeyState::Destroyed && !chosen.contains_key(key_id) && !plan.retired.iter().any(is_retired)
            {
                plan.lost.push(Lost::Key(*key_id, *mark));
            }
        }
        for key_id in &seen.in_data {
            if !chosen.contains_key(key_id) {
                plan.lost.push(Lost::InData(*key_id));
            }
        }
        if seen.generation > known {
            plan.lost.push(Lost::Generations(known + 1, seen.generation));
        }
        for (key_id, mut record) in chosen {
            let mark = marks.get(&key_id);
            let destroyed = record.state() == KeyState::Destroyed;
            let ends = mark.is_some_and(|mark| mark.state == KeyState::Destroyed) && record.held_since().is_none();
            let lives = |present: &Record| present.state() != KeyState::Destroyed;
            if intended.contains(&key_id) {
                plan.destroyed.push((key_id, Evidence::Intent));
            } else if destroyed && present.get(&key_id).is_some_and(lives) {
                plan.destroyed.push((key_id, Evidence::Tombstone));
            } else if !destroyed && ends {
                plan.destroyed.push((key_id, Evidence::Mark));
            }
            // A tombstone must not be older than anything that was seen of the key, or readers refuse it as a replay.
            let least = [mark.map(|mark| mark.sequence), above.get(&key_id).map(|highest| highest + 1)];
            let least = least.into_iter().flatten().max().unwrap_or_default();
            if destroyed && record.sequence() < least || !destroyed && ends {
                let root = ring.current_root().await?;
                let sequence = least.max(record.sequence().saturating_add(u64::from(!destroyed)));
                record = root.tombstone(&record, sequence, self.inner.store.now().await?);
            } else if let Some(mark) = mark.filter(|mark| mark.check(HighWaterMark::of(&record)).is_err()) {
                plan.lost.push(Lost::Newer(key_id, *mark, HighWaterMark::of(&record)));
            }
            plan.tombstones += usize::from(record.state() == KeyState::Destroyed);
            match present.get(&key_id) {
                // Nobody vouches for it: it would have been chosen otherwise.
                Some(present) if *present != record && !record.outranks(present) => {
                    if present.outranks(&record) && record.state() != KeyState::Destroyed {
                        let (had, gets) = (HighWaterMark::of(present), HighWaterMark::of(&record));
                        plan.lost.push(Lost::Unvouched(key_id, had, gets));
                    }
                    plan.displacing.push(RecordChange { record, expected_sequence: present.sequence() });
                }
                Some(present) if *present == record => {}
                _ => plan.records.push(record),
            }
        }
        // Tombstones first, roots last; of a scope the newest key first, so that the one that seals is the first to be seen.
        let place = |record: &Record| match record.state() {
            KeyState::Destroyed => 0,
            _ if record.class() != KeyClass::Root => 1,
            _ => 2,
        };
        let order = |record: &Record| (place(record), std::cmp::Reverse(record.key_id()));
        plan.records.sort_by_key(order);
        plan.displacing.sort_by_key(|change| order(&change.record));
        Ok(plan)
    }

    /// Carries `plan` out, and moves the counter of generations past everything that was seen. Stop every process that uses
    /// the store before. May be stopped anywhere and repeated, with a new plan.
    ///
    /// # Errors
    ///
    /// - [`Store`](ErrorKind::Store), [`Conflict`](ErrorKind::Conflict): a part of the records may be stored.
    pub async fn restore(&self, plan: &RestorePlan) -> Result<()> {
        let restored = self.carry_out(plan).await;
        let event = AuditEvent::new(AuditAction::Restore)
            .detail("records", plan.to_store())
            .detail("refused", plan.refused.len())
            .detail("lost", plan.lost.len())
            .outcome(&restored);
        let recorded = self.audit(event);
        restored.and(recorded)
    }

    async fn carry_out(&self, plan: &RestorePlan) -> Result<()> {
        let inner = &*self.inner;
        for page in plan.records.chunks(PAGE) {
            inner.store.restore(page).await?;
        }
        for page in plan.displacing.chunks(PAGE) {
            if let Some(key_id) = inner.store.update_many(page).await?.first() {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    "a record for which nobody vouches was not replaced: it is of another class or scope than the copy, or others change keys",
                )
                .with_detail(key_id.to_string()));
            }
        }
        // The number is used by nobody: it moves the counter.
        inner.store.allocate_generation(self.lineage(), plan.generation).await?;
        inner.high_water.raise(self.lineage(), plan.generation, None)?;
        self.invalidate();
        Ok(())
    }

    /// Which of `key_ids` the keyring has, with their states; each must be vouched for to count.
    ///
    /// # Errors
    ///
    /// Those of acquiring a key.
    pub async fn states_of(&self, key_ids: &BTreeSet<KeyId>) -> Result<BTreeMap<KeyId, KeyState>> {
        let mut found = BTreeMap::new();
        for key_id in key_ids {
            match self.record(*key_id).await {
                Ok(record) => {
                    self.verify_shown(&record).await?;
                    found.insert(*key_id, record.state());
                }
                Err(error) if error.kind() == ErrorKind::NoMatchingKey => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Checks records that are not in the store, such as those of a backup, as if they were all that there is. Returns those
    /// for which no trusted root vouches.
    ///
    /// # Errors
    ///
    /// As for [`plan_restore`](Self::plan_restore).
    pub async fn check_copies(&self, copies: Vec<RecordCopy>) -> Result<Vec<(Record, Error)>> {
        let mut all = Copies::default();
        copies.into_iter().for_each(|copy| all.add(copy.record, copy.status));
        let Choice { refused, retired, .. } = self.choose(all).await?;
        Ok(refused.into_iter().chain(retired).collect())
    }

    async fn all_stored(&self) -> Result<BTreeMap<KeyId, Record>> {
        let mut all = BTreeMap::new();
        let mut after = None;
        loop {
            let page = self.stored(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(all) };
            after = Some(last.key_id());
            all.extend(page.into_iter().map(|record| (record.key_id(), record)));
        }
    }

    /// This keyring over `records` instead of its store, on a machine that has seen nothing.
    fn over(&self, records: BTreeMap<KeyId, Record>) -> Result<Self> {
        let configured = self.configured();
        Self::open_with_clock(
            configured.keyring.clone(),
            Arc::new(choose::Fixed { records, now: self.inner.store.clone() }),
            configured.keks.clone(),
            Arc::new(MemoryHighWater::default()),
            self.inner.clock.clone(),
        )
    }
}

fn implausible(given_out: Generation, newest: Generation) -> Error {
    Error::new(
        ErrorKind::Malformed,
        "a journal or backup says that a generation was used that is far above every key: it is forged, or not the only one to restore from",
    )
    .with_detail(format!("generation {given_out}; the newest key has {newest}"))
}

/// Leaves out the scopes that were only to be made while somebody else made them: one keyed name, one scope.
fn refuse_second_scopes(chosen: &mut BTreeMap<KeyId, (Record, CopyStatus)>, refused: &mut Vec<(Record, Error)>) {
    let mut owners = BTreeMap::new();
    for (record, status) in chosen.values() {
        let Some(tag) = record.scope_tag() else { continue };
        // One that a store had; of several of these, which only a forked history has, the oldest.
        let claim = (std::cmp::Reverse(*status), record.key_id().generation(), record.slot_id());
        let owner = owners.entry(tag).or_insert(claim);
        if claim.0 < owner.0 || claim.0 == owner.0 && claim.1 < owner.1 {
            *owner = claim;
        }
    }
    let second = |record: &Record| record.scope_tag().is_some_and(|tag| owners[&tag].2 != record.slot_id());
    let others: Vec<_> = chosen.iter().filter(|(_, (record, _))| second(record)).map(|(id, _)| *id).collect();
    for key_id in others {
        if let Some((record, _)) = chosen.remove(&key_id) {
            let error = Error::new(ErrorKind::Conflict, "the name of its scope belongs to another one")
                .with_detail(key_id.to_string());
            refused.push((record, error));
        }
    }
}
