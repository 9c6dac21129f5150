//! Keyrings whose roots are wrapped in key services, through the front door: a `keyfold.toml` and the command.
//!
//! `./test` starts what stands for each service. With OpenBao alone: `python3 tools/servers/openbao.py cargo test …`.

#![cfg(all(feature = "aws", feature = "azure", feature = "gcp", feature = "pkcs11", feature = "vault"))]

#[path = "../common/mod.rs"]
mod common;

mod by_command;
mod foreign;
mod keyring;
mod pairs;
mod rotation;
mod services;
