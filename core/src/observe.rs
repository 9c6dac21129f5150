//! What operators see of the caches: counters and gauges through the `metrics` facade. docs/METRICS.md lists them.
//!
//! Labels are names of this code, aliases of KEKs and outcomes; never scopes, fields or keys.

#[cfg(feature = "metrics")]
mod facade {
    use keyfold_memory::Status;
    use metrics::{counter, gauge, histogram};
    use std::time::Duration;

    pub(crate) fn hit(cache: &'static str) {
        counter!("keyfold_cache_hits_total", "cache" => cache).increment(1);
    }

    pub(crate) fn miss(cache: &'static str) {
        counter!("keyfold_cache_misses_total", "cache" => cache).increment(1);
    }

    pub(crate) fn renewal(cache: &'static str) {
        counter!("keyfold_cache_renewals_total", "cache" => cache).increment(1);
    }

    pub(crate) fn stale_use(cache: &'static str) {
        counter!("keyfold_cache_stale_uses_total", "cache" => cache).increment(1);
    }

    #[allow(clippy::cast_precision_loss, reason = "a gauge is a float")]
    pub(crate) fn occupancy(cache: &'static str, entries: usize, bytes: usize) {
        gauge!("keyfold_cache_entries", "cache" => cache).set(entries as f64);
        gauge!("keyfold_cache_bytes", "cache" => cache).set(bytes as f64);
    }

    pub(crate) fn kms_request(kek: &str, operation: &'static str, outcome: &'static str, took: Duration) {
        let labels = [("kek", kek.to_owned()), ("operation", operation.to_owned()), ("outcome", outcome.to_owned())];
        counter!("keyfold_kms_requests_total", &labels).increment(1);
        histogram!("keyfold_kms_request_seconds", &labels).record(took);
    }

    pub(crate) fn bad_wrap(kek: &str) {
        counter!("keyfold_kek_bad_wraps_total", "kek" => kek.to_owned()).increment(1);
    }

    pub(crate) fn missing_wrap(kek: &str) {
        counter!("keyfold_kek_missing_wraps_total", "kek" => kek.to_owned()).increment(1);
    }

    pub(crate) fn recovery_unwrap(kek: &str, action: &'static str) {
        counter!("keyfold_recovery_unwraps_total", "kek" => kek.to_owned(), "action" => action).increment(1);
    }

    pub(crate) fn rotation_failed(class: &'static str) {
        counter!("keyfold_rotation_failures_total", "class" => class).increment(1);
    }

    pub(crate) fn unknown_key(outcome: &'static str) {
        counter!("keyfold_unknown_key_ids_total", "outcome" => outcome).increment(1);
    }

    pub(crate) fn clear_value() {
        counter!("keyfold_clear_values_total").increment(1);
    }

    pub(crate) fn unindexed_value() {
        counter!("keyfold_unindexed_values_total").increment(1);
    }

    pub(crate) fn oldest_generation(generation: u32) {
        gauge!("keyfold_oldest_generation_in_use").set(generation);
    }

    #[allow(clippy::cast_precision_loss, reason = "a gauge is a float")]
    pub(crate) fn key_memory(status: Status) {
        gauge!("keyfold_key_memory_bytes", "memory" => "locked").set(status.locked as f64);
        gauge!("keyfold_key_memory_bytes", "memory" => "unlocked").set(status.unlocked as f64);
    }
}

#[cfg(not(feature = "metrics"))]
mod facade {
    use keyfold_memory::Status;
    use std::time::Duration;

    pub(crate) fn hit(_: &'static str) {}
    pub(crate) fn miss(_: &'static str) {}
    pub(crate) fn renewal(_: &'static str) {}
    pub(crate) fn stale_use(_: &'static str) {}
    pub(crate) fn occupancy(_: &'static str, _: usize, _: usize) {}
    pub(crate) fn kms_request(_: &str, _: &'static str, _: &'static str, _: Duration) {}
    pub(crate) fn bad_wrap(_: &str) {}
    pub(crate) fn missing_wrap(_: &str) {}
    pub(crate) fn recovery_unwrap(_: &str, _: &'static str) {}
    pub(crate) fn rotation_failed(_: &'static str) {}
    pub(crate) fn unknown_key(_: &'static str) {}
    pub(crate) fn clear_value() {}
    pub(crate) fn unindexed_value() {}
    pub(crate) fn oldest_generation(_: u32) {}
    pub(crate) fn key_memory(_: Status) {}
}

pub(crate) use facade::*;
