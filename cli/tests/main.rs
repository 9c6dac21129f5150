//! Tests of the command, in one program (Cargo.toml says why, and what is not in it).

mod audit;
#[path = "common/audited.rs"]
mod audited;
mod backfill;
mod backup;
mod bad_input;
mod bad_setup;
mod census;
mod common;
mod database;
mod device;
mod documents;
mod fhir_policy;
mod index_advise;
mod keyring;
mod keys_over_time;
mod left_in_clear;
mod lookup;
mod lookup_false_matches;
mod lookup_recipes;
mod lookup_rotation;
mod mutations;
mod output;
mod policy;
mod rebind;
mod recovery;
mod reencrypt;
mod report;
mod report_uses;
mod report_verify;
mod rewrap;
mod round_trip;
mod scan;
mod scan_clear;
mod scan_indexes;
#[path = "common/streams.rs"]
mod shared_streams;
mod shred;
mod signed;
mod simulate;
mod standard_streams;
mod stream_folders;
mod stream_keep_going;
mod stream_new_key;
mod stream_resume;
mod swaps;
mod synthea;
#[path = "common/tables.rs"]
mod tables;
mod tokens;
mod usage;
#[cfg(feature = "vault")]
mod vault;

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
