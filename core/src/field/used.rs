//! Counting what a handle does, for an audit trail.

use crate::audit::{Use, UseCell};
use crate::error::{Error, ErrorKind};
use crate::keyring::{Audit, Keyring};
use crate::wire::KeyId;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The counts of one handle, by key. Without an audit sink it is nothing.
pub(crate) struct Uses(Option<Counting>);

struct Counting {
    audit: Audit,
    field: Arc<str>,
    /// Replaced as a whole, so that threads that count never meet.
    cells: ArcSwap<BTreeMap<Option<KeyId>, Arc<UseCell>>>,
}

impl Uses {
    pub(crate) fn new(ring: &Keyring, field: &str) -> Self {
        let audit = ring.audit_of();
        let counting = || Counting { audit: audit.clone(), field: field.into(), cells: ArcSwap::default() };
        Self(audit.is_on().then(counting))
    }

    /// A batch that is counted at its end, once per key, if it ends well.
    pub(crate) fn batch(&self, used: Use) -> Batch<'_> {
        Batch { uses: self, used, run: None, counts: BTreeMap::new() }
    }

    /// Counts `n` values under a key.
    #[inline]
    pub(crate) fn count(&self, key_id: KeyId, used: Use, n: u64) {
        if let Some(counting) = &self.0 {
            counting.cell(Some(key_id), |cell| cell.count(used, n));
        }
    }

    /// Counts a failure, and returns its error.
    #[cold]
    pub(crate) fn failed(&self, error: Error) -> Error {
        self.count_failure(error.kind());
        error
    }

    #[cold]
    pub(crate) fn count_failure(&self, kind: ErrorKind) {
        if let Some(counting) = &self.0 {
            // Whoever invents values chooses their key IDs, so they are not told apart.
            counting.cell(None, |cell| cell.count_failures(kind, 1));
        }
    }
}

impl Counting {
    #[inline]
    fn cell(&self, key_id: Option<KeyId>, count: impl Fn(&UseCell)) {
        match self.cells.load().get(&key_id) {
            Some(cell) => count(cell),
            None => self.first(key_id, count),
        }
    }

    #[cold]
    fn first(&self, key_id: Option<KeyId>, count: impl Fn(&UseCell)) {
        // A new counter is moved to the heap, and takes along what was on the stack between its numbers: nothing of a key that was used just now.
        keyfold_memory::erase_stack();
        let Some(cell) = self.audit.cell(key_id, &self.field) else { return };
        count(&cell);
        self.cells.rcu(|cells| {
            let mut cells = BTreeMap::clone(cells);
            cells.insert(key_id, cell.clone());
            cells
        });
    }
}

/// The values of a batch, by key.
pub(crate) struct Batch<'a> {
    uses: &'a Uses,
    used: Use,
    /// The key of the last values, and how many they are.
    run: Option<(KeyId, u64)>,
    counts: BTreeMap<KeyId, u64>,
}

impl Batch<'_> {
    #[inline]
    pub(crate) fn add(&mut self, key_id: KeyId, values: usize) {
        match &mut self.run {
            Some((last, n)) if *last == key_id => *n += values as u64,
            _ => self.begin_run(key_id, values as u64),
        }
    }

    fn begin_run(&mut self, key_id: KeyId, values: u64) {
        if let Some((last, n)) = self.run.replace((key_id, values)) {
            *self.counts.entry(last).or_default() += n;
        }
    }

    pub(crate) fn finish(self) {
        for (key_id, n) in self.counts.into_iter().chain(self.run) {
            self.uses.count(key_id, self.used, n);
        }
    }
}
