//! How often keys were used, per key and field: counted by many threads that do not meet, and taken together per interval.

use super::{AuditAction, AuditEvent};
use crate::error::ErrorKind;
use crate::share::{SHARE_COUNT, share_of_thread};
use crate::wire::KeyId;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most pairs of key and field that are counted apart, of 1 KiB each.
const MAX_PAIRS: usize = 4096;
/// What is counted of values that a key sealed or opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Use {
    Sealed,
    Opened,
    /// Made to be looked for.
    Searched,
}

impl Use {
    const ALL: [Self; 3] = [Self::Sealed, Self::Opened, Self::Searched];

    const fn name(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::Opened => "opened",
            Self::Searched => "searched",
        }
    }
}

/// The counts of one key in one field. `None`: of values whose key is not known, or not counted apart.
pub(crate) struct UseCell {
    key_id: Option<KeyId>,
    field: Arc<str>,
    shares: [Share; SHARE_COUNT],
    /// Seldom, so in one place.
    failures: Mutex<HashMap<ErrorKind, u64>>,
}

/// On a cache line of its own, with its neighbour that the processor fetches along.
#[derive(Default)]
#[repr(align(128))]
struct Share([AtomicU64; Use::ALL.len()]);

impl UseCell {
    fn new(key_id: Option<KeyId>, field: Arc<str>) -> Self {
        Self { key_id, field, shares: Default::default(), failures: Mutex::default() }
    }

    /// Adds `n` values.
    #[inline]
    pub(crate) fn count(&self, used: Use, n: u64) {
        self.shares[share_of_thread()].0[used as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// Adds `n` failures.
    pub(crate) fn count_failures(&self, kind: ErrorKind, n: u64) {
        *self.failures().entry(kind).or_default() += n;
    }

    /// Takes out what was counted; `None`: nothing.
    fn take(&self) -> Option<Counts> {
        let mut counts = Counts { uses: [0; Use::ALL.len()], failures: Vec::new() };
        for share in &self.shares {
            for (sum, count) in counts.uses.iter_mut().zip(&share.0) {
                // Looked at first: most have not changed, and writing would take the line from its thread.
                if count.load(Ordering::Relaxed) > 0 {
                    *sum += count.swap(0, Ordering::Relaxed);
                }
            }
        }
        counts.failures.extend(self.failures().drain());
        counts.failures.sort_unstable_by_key(|(kind, _)| kind.code());
        (counts.uses.iter().any(|n| *n > 0) || !counts.failures.is_empty()).then_some(counts)
    }

    fn put_back(&self, counts: &Counts) {
        for (used, n) in Use::ALL.into_iter().zip(counts.uses) {
            self.count(used, n);
        }
        counts.failures.iter().for_each(|(kind, n)| self.count_failures(*kind, *n));
    }

    fn event(&self, counts: &Counts) -> AuditEvent {
        let mut event = AuditEvent::new(AuditAction::Use);
        event.key_id = self.key_id;
        event.field = Some(self.field.to_string());
        let uses = Use::ALL.into_iter().zip(counts.uses).filter(|(_, n)| *n > 0).map(|(used, n)| (used.name(), n));
        let failures = counts.failures.iter().map(|(kind, n)| (kind.name(), *n));
        event.details = uses.chain(failures).map(|(name, n)| (name, n.to_string())).collect();
        if counts.uses == [0; Use::ALL.len()] {
            // Nothing but failures: the first kind of them stands for all.
            event.error = counts.failures.first().map(|(kind, _)| *kind);
        }
        event
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<ErrorKind, u64>> {
        // Changed in single steps: a panic elsewhere cannot leave it half changed.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a cell has counted.
struct Counts {
    uses: [u64; Use::ALL.len()],
    failures: Vec<(ErrorKind, u64)>,
}

/// Cells by key and field.
type Cells = BTreeMap<(Option<KeyId>, Arc<str>), Arc<UseCell>>;

/// The cells of a keyring.
#[derive(Default)]
pub(crate) struct Usage {
    cells: Mutex<Cells>,
}

/// Counts that were taken out, to be recorded or put back.
pub(crate) struct Taken(Vec<(Arc<UseCell>, Counts)>);

impl Usage {
    /// The cell of a key in a field; `None`: there are too many.
    pub(crate) fn cell(&self, key_id: Option<KeyId>, field: &Arc<str>) -> Option<Arc<UseCell>> {
        let mut cells = self.cells();
        let key = (key_id, field.clone());
        // Fields without a key are as many as the policy has.
        if key_id.is_some() && cells.len() >= MAX_PAIRS && !cells.contains_key(&key) {
            return None;
        }
        Some(cells.entry(key).or_insert_with(|| Arc::new(UseCell::new(key_id, field.clone()))).clone())
    }

    /// Takes out all counts, and forgets the cells that nobody holds any more.
    pub(crate) fn take(&self) -> Taken {
        let mut taken = Vec::new();
        self.cells().retain(|_, cell| {
            // Before it is looked at for the last time: whoever held it has counted by then.
            let is_held = Arc::strong_count(cell) > 1;
            if let Some(counts) = cell.take() {
                taken.push((cell.clone(), counts));
            }
            is_held
        });
        Taken(taken)
    }

    /// Counts what could not be recorded once more.
    pub(crate) fn put_back(&self, taken: Taken) {
        let mut cells = self.cells();
        for (cell, counts) in taken.0 {
            let key = (cell.key_id, cell.field.clone());
            cells.entry(key).or_insert(cell).put_back(&counts);
        }
    }

    fn cells(&self) -> MutexGuard<'_, Cells> {
        // Changed in single steps: a panic elsewhere cannot leave it half changed.
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// One event per key and field.
    pub(crate) fn events(&self) -> Vec<AuditEvent> {
        self.0.iter().map(|(cell, counts)| cell.event(counts)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn key(n: u8) -> KeyId {
        KeyId::from_bytes([n; 24])
    }

    #[test]
    fn counts_are_exact_while_many_threads_count_and_others_take_them_out() {
        let usage = Usage::default();
        let field: Arc<str> = "patient.ssn".into();
        let sum = AtomicU64::new(0);
        let add_up = |taken: Taken| {
            let total: u64 = taken.0.iter().map(|(_, counts)| counts.uses[Use::Sealed as usize]).sum();
            sum.fetch_add(total, Ordering::Relaxed);
        };
        thread::scope(|scope| {
            for n in 0..16 {
                let (usage, field, add_up) = (&usage, &field, &add_up);
                scope.spawn(move || {
                    // As handles do that are made and dropped again.
                    for _ in 0..100 {
                        let cell = usage.cell(Some(key(n % 3)), field).unwrap();
                        (0..100).for_each(|_| cell.count(Use::Sealed, 1));
                        drop(cell);
                        add_up(usage.take());
                    }
                });
            }
        });
        add_up(usage.take());
        assert_eq!(sum.into_inner(), 16 * 100 * 100);
        assert!(usage.cells().is_empty(), "nobody holds a cell");
    }

    #[test]
    fn threads_count_on_cache_lines_of_their_own() {
        let cell = UseCell::new(None, "f".into());
        let mut lines: Vec<_> = cell.shares.iter().map(|share| std::ptr::from_ref(share).addr() / 128).collect();
        assert!(cell.shares.iter().all(|share| std::ptr::from_ref(share).addr() % 128 == 0));
        lines.dedup();
        assert_eq!(lines.len(), SHARE_COUNT);
    }

    #[test]
    fn what_could_not_be_recorded_is_counted_again() {
        let usage = Usage::default();
        let field: Arc<str> = "f".into();
        usage.cell(Some(key(1)), &field).unwrap().count(Use::Opened, 7);
        usage.cell(None, &field).unwrap().count_failures(ErrorKind::WrongScope, 2);
        let taken = usage.take();
        assert!(usage.take().0.is_empty());
        usage.put_back(taken);
        let events = usage.take().events();
        assert_eq!(events.len(), 2);
        assert_eq!(
            (events[0].error, &events[0].details[..]),
            (Some(ErrorKind::WrongScope), &[("WrongScope", "2".to_owned())][..])
        );
        assert_eq!((events[1].error, &events[1].details[..]), (None, &[("opened", "7".to_owned())][..]));
    }

    #[test]
    fn pairs_are_bounded() {
        let usage = Usage::default();
        let field: Arc<str> = "f".into();
        let pair = |n: usize| KeyId::from_bytes(std::array::from_fn(|i| (n as u64).to_be_bytes()[i % 8]));
        let held: Vec<_> = (0..MAX_PAIRS).map(|n| usage.cell(Some(pair(n)), &field).unwrap()).collect();
        assert!(usage.cell(Some(pair(MAX_PAIRS)), &field).is_none());
        assert!(usage.cell(Some(pair(0)), &field).is_some());
        assert!(usage.cell(None, &field).is_some());
        drop(held);
        assert!(usage.take().0.is_empty());
        assert!(usage.cell(Some(pair(MAX_PAIRS)), &field).is_some());
    }
}
