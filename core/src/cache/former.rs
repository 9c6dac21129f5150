//! What the cache has let go of while somebody held it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

/// So many keys at least of which there are values, before those are looked for that nobody holds.
const SWEEP: usize = 16;

/// Values that were forgotten or replaced while somebody held them: they end with their key.
pub(super) struct Former<K, V> {
    values: HashMap<K, Vec<Weak<V>>>,
    /// At how many keys those are looked for whose values nobody holds any more.
    sweep_at: usize,
}

impl<K: Clone + Eq + Hash, V> Former<K, V> {
    /// Bytes of one key: tables grow by doubling, the shortest list has four places, and a weak reference keeps the
    /// block of a value whose content is gone. 16: the reference counts.
    const NOTE: usize = 2 * (size_of::<(K, Vec<Weak<V>>)>() + 1) + 4 * size_of::<Weak<V>>() + size_of::<V>() + 16;

    pub(super) fn new() -> Self {
        Self { values: HashMap::new(), sweep_at: SWEEP }
    }

    pub(super) fn bytes(&self) -> usize {
        self.values.len() * Self::NOTE
    }

    /// The cache lets go of `value`.
    pub(super) fn add(&mut self, key: &K, value: &Arc<V>) {
        if Arc::strong_count(value) == 1 {
            return;
        }
        let values = self.values.entry(key.clone()).or_default();
        values.retain(|value| value.strong_count() > 0);
        values.push(Arc::downgrade(value));
        if self.values.len() >= self.sweep_at {
            self.sweep();
        }
    }

    /// Forgets what nobody holds any more.
    pub(super) fn sweep(&mut self) {
        self.values.retain(|_, values| {
            values.retain(|value| value.strong_count() > 0);
            !values.is_empty()
        });
        self.sweep_at = SWEEP.max(2 * self.values.len());
        self.values.shrink_to(self.sweep_at);
    }

    /// The values of `key` that somebody still holds.
    pub(super) fn of(&self, key: &K) -> impl Iterator<Item = Arc<V>> {
        self.values.get(key).into_iter().flatten().filter_map(Weak::upgrade)
    }

    /// The values of `key`, which are no longer remembered.
    pub(super) fn remove(&mut self, key: &K) -> Vec<Arc<V>> {
        self.values.remove(key).iter().flatten().filter_map(Weak::upgrade).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, Arc<V>)> {
        self.values
            .iter()
            .flat_map(|(key, values)| values.iter().filter_map(move |value| Some((key, value.upgrade()?))))
    }
}
