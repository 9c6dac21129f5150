//! What the fuzz targets do with their bytes. Each target is a function here, and a program of a few lines in `fuzz_targets`.
//!
//! A target asserts what must hold, and libFuzzer's panic hook makes an abort of every panic, of any thread.

pub mod audit;
pub mod backup;
pub mod bundle;
pub mod config;
pub mod context;
pub mod csv;
pub mod document;
mod edit;
pub mod export;
/// The readers of the command, which has no library.
#[allow(dead_code, unused_imports, reason = "the command uses the rest")]
#[path = "../../cli/src/files/mod.rs"]
mod files;
pub mod high_water;
pub mod hl7;
pub mod json;
pub mod kms;
mod lab;
mod memory;
mod pieces;
pub mod record;
pub mod report;
pub mod stream;
mod trail;
pub mod value;
pub mod wire;
#[allow(dead_code, reason = "shared with the tests of core")]
#[path = "../../core/tests/support/world.rs"]
mod world;

/// A target: `fuzz_target!` of cargo-fuzz, for a function of this crate.
#[macro_export]
macro_rules! target {
    ($function:path) => {
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $function(data));
    };
}
