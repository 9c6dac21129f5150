//! Simulates the life of a system with Keyfold (docs/SIMULATE.md): what it asks of its key service, holds in memory, costs a month,
//! and what an outage does to it.
//!
//! The keyring, its caches, rotation, rewrapping and the layer above key services are the real ones, driven by a virtual clock. The key
//! service behind them is a model with latency, quota and outage, and the store is in memory. [`Scenario::parse`] reads what is simulated,
//! [`simulate`] does it, and the [`Prediction`] is text, JSON or a page with charts.
#![forbid(unsafe_code)]

mod access;
mod engine;
mod operations;
mod prediction;
mod random;
mod render;
mod scenario;
mod service;
mod tally;
mod time;
mod world;

pub use engine::{simulate, simulate_watched};
pub use operations::{Operation, Operations};
pub use prediction::{Calls, Cost, Interval, Memory, OutageEffect, Prediction, Rotation, Traffic};
pub use scenario::{KeyService, Outage, Run, Scenario, System};
