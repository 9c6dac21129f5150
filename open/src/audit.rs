//! `[audit]`: the sink that it names, the trail that it left, and statements under its KEK.

use crate::absent::Absent;
use crate::keks::open_kek;
use crate::{Options, add, folder_of, key_files, read_config};
use keyfold::config::{AuditConfig, Config};
use keyfold::{
    AuditAction, AuditEvent, AuditSink, Error, ErrorKind, KekAlias, Keyring, Kms, KmsErrorKind, Lineage, Result,
};
use keyfold_audit::FileAudit;
use keyfold_store::files::resolve;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const NO_AUDIT: Error = Error::new(
    ErrorKind::Configuration,
    "the configuration has no [audit] section: make a KEK (`keyfold keys new-kek audit.kek`), add [keks.audit] with uri = \"local:audit.kek\" and wraps = \"audit\", and [audit] with file = \"audit.jsonl\" and kek = \"audit\"",
);

/// Signs `body` under the audit KEK of the configuration file `path`: see [`keyfold_audit::sign_statement`], whose result this
/// is. The audit trail of `ring`, which was opened with that configuration, gets an event with the SHA-256 of the result: so the
/// trail and its anchors say what was signed, and when. `None`, with a warning that says what to add: there is no `[audit]`
/// section. One request to the key service; blocks until it has answered.
///
/// # Errors
///
/// Those of [`read_config`], of opening the KEK, of signing and of the audit trail.
pub fn sign_statement(ring: &Keyring, path: &Path, kind: &str, body: &serde_json::Value) -> Result<Option<String>> {
    let config = read_config(path, &[])?;
    let Some(audit) = &config.audit else {
        tracing::warn!(kind, "not signed: {NO_AUDIT}");
        return Ok(None);
    };
    let kek = audit_kek(&config, audit, folder_of(path), &Options::default())?;
    let (alias, owned_kind, body) = (audit.kek.clone(), kind.to_owned(), body.clone());
    let (lineage, environment) = (config.keyring.lineage, config.keyring.environment);
    let text = keyfold_background::block(async move {
        keyfold_audit::sign_statement(&*kek, &alias, lineage, &environment, &owned_kind, &body).await
    })?;
    let digest = statement_digest(text.as_bytes());
    ring.audit(AuditEvent::new(AuditAction::StatementSigned).detail("kind", kind).detail("sha256", digest))?;
    Ok(Some(text))
}

/// What an audit trail knows a signed statement by: the SHA-256 of its file in hexadecimal.
#[must_use]
pub fn statement_digest(file: &[u8]) -> String {
    hex(Sha256::digest(file).as_slice())
}

/// The body of a statement of `kind` that [`sign_statement`] made for the keyring of the configuration file `path`, once it is
/// verified. One request to the key service, which needs the right to decrypt; blocks until it has answered.
///
/// # Errors
///
/// - [`Malformed`](ErrorKind::Malformed): not such a statement. - [`DecryptionFailed`](ErrorKind::DecryptionFailed): it was changed, or
///   is of another keyring. - [`Configuration`](ErrorKind::Configuration): there is no `[audit]` section.
/// - Those of [`read_config`], of opening the KEK and of the key service.
pub fn verify_statement(path: &Path, kind: &str, text: &str) -> Result<serde_json::Value> {
    let config = read_config(path, &[])?;
    let audit = config.audit.as_ref().ok_or(NO_AUDIT)?;
    let kek = audit_kek(&config, audit, folder_of(path), &Options::default())?;
    let text = text.to_owned();
    let mut statement = keyfold_background::block(async move { keyfold_audit::verify_statement(&text, &*kek).await })?;
    if statement["lineage"] != config.keyring.lineage.to_string() {
        return Err(Error::new(ErrorKind::DecryptionFailed, "the statement is of another keyring"));
    }
    if statement["kind"] != kind {
        return Err(Error::new(ErrorKind::Malformed, "the statement is of another kind").with_detail(kind));
    }
    Ok(statement["body"].take())
}

/// The audit files of a keyring, and what they are verified with.
pub struct AuditTrail {
    /// The files, oldest first.
    pub files: Vec<PathBuf>,
    /// The file that heads of chains are copied to.
    pub anchors: Option<PathBuf>,
    /// The audit KEKs. One that cannot be opened here says so when it is asked.
    pub keks: BTreeMap<KekAlias, Arc<dyn Kms>>,
    /// Those of them under which whoever runs a service can decrypt as well, so that he could forge its chains: files, and KEKs that
    /// wrap roots, too.
    pub forgeable: Vec<KekAlias>,
    /// The keyring.
    pub lineage: Lineage,
}

/// The audit trail of the configuration file `path`. Opens no keyring and writes nothing.
///
/// # Errors
///
/// - [`Configuration`](ErrorKind::Configuration): there is no `[audit]` section; the error says what to add.
/// - Those of [`read_config`]; [`Io`](ErrorKind::Io): the folder of the audit files cannot be read.
pub fn audit_trail(path: &Path) -> Result<AuditTrail> {
    let config = read_config(path, &[])?;
    let audit = config.audit.as_ref().ok_or(NO_AUDIT)?;
    let folder = folder_of(path);
    let open = |(alias, uri): (&KekAlias, &String)| -> (KekAlias, Arc<dyn Kms>) {
        let kek =
            open_kek(alias, uri, config.deadlines.get(alias), folder, &Options::default()).unwrap_or_else(|error| {
                let away = Error::new(ErrorKind::Kms(KmsErrorKind::Unavailable), "the audit KEK cannot be opened here");
                Arc::new(Absent(away.with_detail(error.to_string()).lasting()))
            });
        (alias.clone(), kek)
    };
    Ok(AuditTrail {
        files: keyfold_audit::files_of(&folder.join(&audit.file))?,
        anchors: audit.anchors.as_ref().map(|file| folder.join(file)),
        keks: config.audit_keks.iter().map(open).collect(),
        forgeable: config
            .audit_keks
            .iter()
            .filter(|(_, uri)| is_forgeable(&config, uri))
            .map(|(alias, _)| alias.clone())
            .collect(),
        lineage: config.keyring.lineage,
    })
}

/// Whether whoever runs a service can decrypt under the audit KEK at `uri`, and so forge its chains.
pub(crate) fn is_forgeable(config: &Config, uri: &str) -> bool {
    uri.starts_with("local:") || config.keks.values().any(|other| other == uri)
}

/// The files of the audit trail, its anchors aside: those that exist, the lock, and the one that is written.
pub(crate) fn files(audit: &AuditConfig, folder: &Path) -> Result<Vec<PathBuf>> {
    let file = folder.join(&audit.file);
    let mut files = keyfold_audit::files_of(&file)?;
    files.extend([keyfold_audit::lock_of(&file), file]);
    Ok(files)
}

/// Refuses an audit file, or anchors, in the place of another file of the keyring: they are added to at their end, which would
/// destroy a KEK. A configuration or a policy is none of these: it exists, and is refused for what is in it.
fn check_files(config: &Config, audit: &AuditConfig, folder: &Path) -> Result<()> {
    let refuse = |what: &str, path: &Path, others: &[PathBuf]| match others.iter().find(|other| is_same(path, other)) {
        Some(_) => Err(Error::new(ErrorKind::Configuration, "an audit file is another file of the keyring as well")
            .with_detail(format!("[audit] {what}: {}", path.display()))),
        None => Ok(()),
    };
    let (trail, keys) = (files(audit, folder)?, key_files(config, folder)?);
    trail.iter().try_for_each(|file| refuse("file", file, &keys))?;
    let Some(anchors) = audit.anchors.as_ref().map(|file| folder.join(file)) else { return Ok(()) };
    refuse("anchors", &anchors, &keys)?;
    refuse("anchors", &anchors, &trail)
}

/// Whether two paths name one file, or will once it is made.
fn is_same(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| resolve(path).unwrap_or_else(|_| path.to_owned());
    let file = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    place(one) == place(other) || file(one).is_some_and(|one| file(other) == Some(one))
}

/// The sink that the configuration names, or that of the host program.
pub(crate) fn sink(config: &Config, folder: &Path, options: &Options) -> Result<Option<Arc<dyn AuditSink>>> {
    let Some(audit) = &config.audit else { return Ok(options.audit.clone()) };
    if options.audit.is_some() {
        return Err(Error::new(
            ErrorKind::Configuration,
            "the configuration has an [audit] section, and the program brings an audit sink: a keyring has one of them",
        ));
    }
    check_files(config, audit, folder)?;
    let kek = audit_kek(config, audit, folder, options)?;
    Ok(Some(Arc::new(FileAudit::open(audit, folder, &config.keyring, kek)?)))
}

/// The event that a configuration took effect.
pub(crate) fn of_configuration(action: AuditAction, digest: Sha256) -> AuditEvent {
    AuditEvent::new(action)
        .detail("configuration_sha256", hex(digest.finalize().as_slice()))
        .detail("version", env!("CARGO_PKG_VERSION"))
}

/// In hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn audit_kek(config: &Config, audit: &AuditConfig, folder: &Path, options: &Options) -> Result<Arc<dyn Kms>> {
    let uri = config.audit_keks.get(&audit.kek).ok_or(NO_AUDIT)?;
    open_kek(&audit.kek, uri, config.deadlines.get(&audit.kek), folder, options)
        .map_err(|error| add(error, &format!("audit KEK {}", audit.kek)))
}
