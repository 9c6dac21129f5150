//! Tests of the library through its public interface, in one program (Cargo.toml says why, and what is not in it).
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod audit;
mod cache_apart;
mod cache_control;
mod cache_limits;
mod cache_matrix;
mod cache_outage;
mod cache_sealing;
mod columns;
mod common;
mod documents;
mod format_properties;
mod frames;
mod handles;
mod keyring;
mod keyring_drill;
mod keyring_isolated;
mod keyring_keks;
mod keyring_marks;
mod keyring_provision;
mod keyring_records;
mod keyring_refused;
mod keyring_reparent;
mod keyring_restore;
mod keyring_rewrap;
mod keyring_rotation;
mod keyring_shred;
mod keyring_states;
mod keyring_succession;
mod limits;
mod lookup;
mod migration;
mod policies;
mod rebind;
#[cfg(feature = "serde")]
mod sealed_value;
mod search;
mod single_values;
mod streams;
mod streams_async;
mod vectors;
#[path = "support/world.rs"]
mod world;

use std::fs;
use std::path::Path;

#[test]
fn every_file_is_in_a_program() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let named = [fs::read_to_string(package.join("tests/main.rs")), fs::read_to_string(package.join("Cargo.toml"))];
    let [modules, programs] = named.map(Result::unwrap);
    for file in fs::read_dir(package.join("tests")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") || path.ends_with("main.rs") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        let is_named =
            modules.contains(&format!("\nmod {name};")) || programs.contains(&format!("name = \"{name}\"\n"));
        assert!(is_named, "{} is neither a module of tests/main.rs nor a [[test]] in Cargo.toml", path.display());
    }
}
