//! The keys: how old they are, in which state, and what is due.

use crate::evidence::{Evidence, Key};
use crate::text::counted;
use crate::time::{self, DAY};
use keyfold::{KeyClass, KeyState, SlotId};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A key.
#[derive(Clone, Debug, Serialize)]
pub struct KeyRow {
    /// Its ID, which every value under it carries.
    pub key_id: String,
    /// Its generation.
    pub generation: u32,
    /// `root`, `data` or `lookup`.
    pub class: &'static str,
    /// Its state, as NIST SP 800-57 names it.
    pub state: &'static str,
    /// The random number that stands for its scope or partition; names of scopes are in no report.
    pub slot: Option<String>,
    /// When it was made (RFC 3339).
    pub created_at: String,
    /// When its state last changed.
    pub changed_at: String,
    /// Whether that was after the time of the report, when it was in another state, which no record tells.
    pub changed_later: bool,
    /// Its age in whole days.
    pub age_days: u64,
    /// The KEKs that wrap it; none where a root does.
    pub keks: Vec<String>,
    /// Since when a legal hold keeps it.
    pub held_since: Option<String>,
    /// Whether a trusted root vouches for its record; `None`: nobody has looked.
    pub verified: Option<bool>,
    /// Whether it is a root that was retired: not pinned any more, so that nobody vouches for it, and no key needs it.
    pub retired: bool,
    /// Days since it should have been replaced.
    pub overdue_days: Option<u64>,
}

/// The keys, counted.
#[derive(Clone, Debug, Serialize)]
pub struct Inventory {
    /// Keys by class and state.
    pub counts: BTreeMap<&'static str, BTreeMap<&'static str, usize>>,
    /// When the oldest key was made (RFC 3339), with which the keyring begins.
    pub oldest: Option<String>,
    /// Whether the records were verified.
    pub verified: bool,
    /// Why they were not, or not all, though that was asked for.
    pub not_verified: Option<String>,
    /// Records that no trusted root vouches for.
    pub refused: usize,
    /// Active keys that should have been replaced.
    pub overdue: usize,
    /// Keys that were made after the time of the report: in no other number of it.
    pub later: usize,
    /// After how long data keys and roots are replaced.
    pub data_rotation: String,
    /// Likewise roots.
    pub root_rotation: String,
    /// By class, keys that took the place of another one.
    pub rotations: BTreeMap<&'static str, Rotations>,
    /// Every key, the newest generation first.
    pub keys: Vec<KeyRow>,
}

/// Keys that took the place of an older one of the same class and slot: the first key of a scope or partition replaces none.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rotations {
    /// How many there are.
    pub count: usize,
    /// When the latest was made (RFC 3339).
    pub latest: Option<String>,
}

/// Ages in days up to which keys are counted together.
const AGES: [(u64, &str); 5] =
    [(30, "to 30 days"), (90, "to 90 days"), (180, "to 180 days"), (365, "to 1 year"), (u64::MAX, "over a year")];

impl Inventory {
    pub(crate) fn new(evidence: &Evidence) -> Self {
        let rotation = evidence.services.first().map(|service| service.config.keyring.rotation).unwrap_or_default();
        // Of each slot the newest key that seals is the one whose age counts; the ones before it only open.
        let mut newest: BTreeMap<_, _> = BTreeMap::new();
        for key in evidence.made() {
            let record = &key.record;
            if record.state() == KeyState::Active {
                let slot = (record.class().name(), record.slot_id().to_string());
                let known = newest.entry(slot).or_insert(record.key_id().generation());
                *known = record.key_id().generation().max(*known);
            }
        }
        let sealing: BTreeSet<_> = newest.into_values().collect();
        let not_root = |key: &&Key| key.record.class() != KeyClass::Root;
        let needed: BTreeSet<_> = evidence.made().filter(not_root).map(|key| key.record.authenticator()).collect();
        let row = |key: &Key| {
            let record = &key.record;
            let is_retired = key.verified == Some(false)
                && record.class() == KeyClass::Root
                && record.state() != KeyState::Active
                && !needed.contains(&record.key_id());
            let age = evidence.at.saturating_sub(record.created_at());
            let allowed = match record.class() {
                KeyClass::Data => rotation.data_age,
                KeyClass::Root => rotation.root_age,
                _ => None,
            };
            let seals = record.state() == KeyState::Active && sealing.contains(&record.key_id().generation());
            let in_use = evidence.at.saturating_sub(record.activated_at());
            let overdue = allowed.filter(|_| seals).and_then(|allowed| in_use.checked_sub(allowed.as_secs()));
            KeyRow {
                key_id: record.key_id().to_string(),
                generation: record.key_id().generation(),
                class: record.class().name(),
                state: record.state().name(),
                slot: (record.slot_id() != SlotId::NONE).then(|| record.slot_id().to_string()),
                created_at: time::rfc3339(record.created_at()),
                changed_at: time::rfc3339(record.changed_at()),
                changed_later: record.changed_at() > evidence.at,
                age_days: age / DAY,
                keks: record.kek_aliases().map(ToString::to_string).collect(),
                held_since: record.held_since().map(time::rfc3339),
                verified: key.verified.filter(|_| !is_retired),
                retired: is_retired,
                overdue_days: overdue.map(|seconds| seconds / DAY),
            }
        };
        let mut keys: Vec<_> = evidence.made().map(row).collect();
        keys.sort_by(|a, b| b.generation.cmp(&a.generation).then_with(|| a.key_id.cmp(&b.key_id)));
        let mut counts: BTreeMap<&'static str, BTreeMap<&'static str, usize>> = BTreeMap::new();
        for key in &keys {
            *counts.entry(key.class).or_default().entry(key.state).or_default() += 1;
        }
        Self {
            counts,
            oldest: evidence.oldest().map(time::rfc3339),
            not_verified: evidence.not_verified.clone(),
            verified: evidence.not_verified.is_none()
                && !keys.is_empty()
                && keys.iter().all(|key| key.verified.is_some() || key.retired),
            refused: keys.iter().filter(|key| key.verified == Some(false)).count(),
            overdue: keys.iter().filter(|key| key.overdue_days.is_some()).count(),
            later: evidence.keys.len() - keys.len(),
            data_rotation: crate::services::age(rotation.data_age),
            root_rotation: crate::services::age(rotation.root_age),
            rotations: rotations(&keys),
            keys,
        }
    }

    /// How many keys there are in each state, active and compromised ones always named.
    pub(crate) fn by_state(&self) -> String {
        let mut sums = BTreeMap::from([(KeyState::Active.name(), 0), (KeyState::Compromised.name(), 0)]);
        for (state, n) in self.counts.values().flatten() {
            *sums.entry(state).or_default() += n;
        }
        let sums: Vec<_> = sums.into_iter().map(|(state, n)| format!("{n} {state}")).collect();
        format!("{}: {}", counted(self.keys.len(), "key"), sums.join(", "))
    }

    /// How many keys of each class are how old, those that are gone aside.
    pub(crate) fn ages(&self) -> Vec<(&'static str, BTreeMap<&'static str, u64>)> {
        let lower = |at: usize| at.checked_sub(1).map_or(0, |before| AGES[before].0 + 1);
        let of = |(at, (upper, label)): (usize, (u64, &'static str))| {
            let mut counts = BTreeMap::new();
            let alive = self.keys.iter().filter(|key| key.state != KeyState::Destroyed.name());
            for key in alive.filter(|key| (lower(at)..=upper).contains(&key.age_days)) {
                *counts.entry(key.class).or_insert(0) += 1;
            }
            (label, counts)
        };
        AGES.into_iter().enumerate().map(of).collect()
    }

    /// How many generations there were at the end of each day on which one was made, by class: the days, and per class the counts.
    pub(crate) fn growth(&self) -> (Vec<String>, BTreeMap<&'static str, Vec<u64>>) {
        let day = |key: &KeyRow| key.created_at.get(..10).unwrap_or_default().to_owned();
        let days: BTreeSet<String> = self.keys.iter().map(day).collect();
        let days: Vec<String> = days.into_iter().collect();
        let mut counts: BTreeMap<&'static str, Vec<u64>> = BTreeMap::new();
        for key in &self.keys {
            let made = day(key);
            let sums = counts.entry(key.class).or_insert_with(|| vec![0; days.len()]);
            for (sum, day) in sums.iter_mut().zip(&days) {
                *sum += u64::from(*day >= made);
            }
        }
        (days, counts)
    }
}

/// What the key records say of rotations.
fn rotations(keys: &[KeyRow]) -> BTreeMap<&'static str, Rotations> {
    let mut first: BTreeMap<_, u32> = BTreeMap::new();
    let place = |key: &KeyRow| (key.class, key.slot.clone());
    for key in keys {
        let generation = first.entry(place(key)).or_insert(key.generation);
        *generation = key.generation.min(*generation);
    }
    let mut found: BTreeMap<&'static str, Rotations> = BTreeMap::new();
    for key in keys {
        let rotations = found.entry(key.class).or_default();
        if first.get(&place(key)) != Some(&key.generation) {
            rotations.count += 1;
            rotations.latest = rotations.latest.take().max(Some(key.created_at.clone()));
        }
    }
    found
}
