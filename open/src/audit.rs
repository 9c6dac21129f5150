//! `[audit]`: the KEK of audit chains, and statements under it.

use crate::{add, folder_of, open_kek, read_config};
use keyfold::config::{AuditConfig, Config};
use keyfold::{Error, ErrorKind, Kms, Result};
use std::path::Path;
use std::sync::Arc;

const NO_AUDIT: Error = Error::new(
    ErrorKind::Configuration,
    "the configuration has no [audit] section: make a KEK (`keyfold keys new-kek audit.kek`), add [keks.audit] with uri = \"local:audit.kek\" and wraps = \"audit\", and [audit] with file = \"audit.jsonl\" and kek = \"audit\"",
);

/// Signs `body` under the audit KEK of the configuration file `path`: see [`keyfold_audit::sign_statement`], whose result this
/// is. One request to the key service; blocks until it has answered.
///
/// # Errors
///
/// - [`Configuration`](ErrorKind::Configuration): there is no `[audit]` section; the error says what to add.
/// - Those of [`read_config`], of opening the KEK and of signing.
pub fn sign_statement(path: &Path, kind: &str, body: &serde_json::Value) -> Result<String> {
    let config = read_config(path, &[])?;
    let audit = config.audit.as_ref().ok_or(NO_AUDIT)?;
    let kek = audit_kek(&config, audit, folder_of(path))?;
    let (alias, kind, body) = (audit.kek.clone(), kind.to_owned(), body.clone());
    let (lineage, environment) = (config.keyring.lineage, config.keyring.environment);
    keyfold_background::block(async move {
        keyfold_audit::sign_statement(&*kek, &alias, lineage, &environment, &kind, &body).await
    })
}

fn audit_kek(config: &Config, audit: &AuditConfig, folder: &Path) -> Result<Arc<dyn Kms>> {
    let uri = config.audit_keks.get(&audit.kek).ok_or(NO_AUDIT)?;
    open_kek(uri, folder).map_err(|error| add(error, &format!("KEK {}", audit.kek)))
}
