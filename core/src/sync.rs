//! The locks and atomics under the cache, by one name: the model of the cache (core/tests/cache_model.rs) compiles the
//! same sources with locks and atomics whose every interleaving it can choose.

pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError, atomic};
