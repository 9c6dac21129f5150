//! The C library. What it promises is written in its header, include/keyfold.h, which is made from cbindgen.toml and from the
//! documentation of the functions here.
//!
//! `handle` turns what a C program holds into objects, `memory` its pointers into slices, `boundary` errors and panics into
//! results; every other module is a part of the header.
#![allow(non_camel_case_types, reason = "types are called as C programs call them")]
#![allow(clippy::missing_safety_doc, reason = "what pointers must be is said once, at the head of the header")]

mod boundary;
pub mod callback;
pub mod column;
pub mod column_open;
pub mod context;
pub mod documents;
pub mod field;
pub mod fips;
mod handle;
pub mod inspect;
pub mod keyring;
pub mod log;
pub mod lookup;
mod memory;
pub mod options;
pub mod result;
pub mod search;
pub mod stream;
pub mod stream_reader;
pub mod value;

#[cfg(not(test))]
use keyfold_memory::ErasingAllocator;
#[cfg(not(test))]
use std::alloc::System;

/// Answers of key services, which have keys in clear, go through buffers of others. Tests have one that looks at what is freed.
#[cfg(not(test))]
#[global_allocator]
static ALLOCATOR: ErasingAllocator<System> = ErasingAllocator(System);
