//! Statements that are authenticated under the KEK of the audit log.

use keyfold::{Error, ErrorKind, Result};
use std::path::Path;

const NO_AUDIT: Error = Error::new(
    ErrorKind::Configuration,
    "statements are authenticated under the KEK of the audit log: add an [audit] section that names one (docs/CONFIG.md)",
);

/// A statement of `kind` about `body`, authenticated under the audit KEK of the configuration file `config_path`.
///
/// # Errors
///
/// - [`Configuration`](ErrorKind::Configuration): the configuration has no `[audit]` section.
pub fn sign_statement(config_path: &Path, kind: &str, body: &serde_json::Value) -> Result<String> {
    let _ = (config_path, kind, body);
    Err(NO_AUDIT)
}

/// The body of a statement that [`sign_statement`] made, once it is verified.
///
/// # Errors
///
/// As for [`sign_statement`].
pub fn verify_statement(config_path: &Path, text: &str) -> Result<serde_json::Value> {
    let _ = (config_path, text);
    Err(NO_AUDIT)
}
