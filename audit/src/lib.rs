//! Audit files (docs/AUDIT.md, docs/FORMAT.md §15): one event per line, each with a MAC under a key that is forgotten at once,
//! so that whoever gets onto the machine later can neither change nor remove what was written before without its showing.
//!
//! - [`FileAudit`]: the sink that a keyring writes to. Any number of threads and processes share one file.
//! - [`AuditFiles`], [`verify`]: what is wrong with such files, by file and line.
//! - [`sign_statement`], [`verify_statement`]: a single statement, such as a certificate, as a file of its own.
//! - [`Event`]: an event as it is in a file, for reports.
//! - [`Ecs`]: events as the Elastic Common Schema names them.
#![forbid(unsafe_code)]

mod anchor;
mod ecs;
mod event;
mod file;
mod line;
mod statement;
mod verify;

pub use anchor::{Anchor, read_anchors};
pub use ecs::Ecs;
pub use event::{Event, NoLine};
pub use file::{FileAudit, files_of, lock_of};
pub use line::event_json;
pub use statement::{sign_statement, signed_digest, verify_statement};
pub use verify::{AuditFiles, AuditText, ChainEnd, ChainReport, Expected, Finding, FindingKind, Report, verify};
