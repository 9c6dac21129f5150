//! A bounded memory of what was seen.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Remembers the last `capacity` keys that were put in, and forgets the oldest beyond.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    capacity: usize,
    values: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K: Copy + Eq + Hash, V> Recent<K, V> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, values: HashMap::new(), order: VecDeque::new() }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key)
    }

    pub(crate) fn entry_or_insert(&mut self, key: K, value: V) -> &mut V {
        if !self.values.contains_key(&key) {
            while self.order.len() >= self.capacity.max(1) {
                if let Some(oldest) = self.order.pop_front() {
                    self.values.remove(&oldest);
                }
            }
            self.order.push_back(key);
        }
        self.values.entry(key).or_insert(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_oldest() {
        let mut recent = Recent::new(2);
        for key in 0..5 {
            *recent.entry_or_insert(key, 0) += key;
        }
        assert_eq!([0, 1, 2, 3, 4].map(|key| recent.get(&key).copied()), [None, None, None, Some(3), Some(4)]);
        assert_eq!(*recent.entry_or_insert(3, 9), 3);
    }
}
