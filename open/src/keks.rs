//! The KEKs that a configuration names.

use crate::absent::Absent;
use crate::{PassphraseSource, add};
use keyfold::config::Config;
use keyfold::{Error, ErrorKind, KekAlias, KekUse, Kms, KmsErrorKind, Result};
use keyfold_kms::{Deadline, LocalKek, PassphraseKek};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The forms that this build knows.
const FORMS: &[&str] = &[
    "local:FILE",
    "passphrase:FILE",
    #[cfg(feature = "aws")]
    "awskms://ARN?…",
    #[cfg(feature = "azure")]
    "azurekv://HOST/KEY?…",
    #[cfg(feature = "vault")]
    "vault://HOST:8200/MOUNT/KEY?…",
];

/// Opens every KEK of `config`. One that cannot be opened is absent, which is a warning, where the keyring can do without:
/// it is for isolated scopes, for recovery, or its file cannot be read while another one for roots was opened.
pub(crate) fn open_keks(
    config: &Config,
    folder: &Path,
    passphrase: Option<&PassphraseSource>,
) -> Result<BTreeMap<KekAlias, Arc<dyn Kms>>> {
    let policy = &config.keyring;
    let is_usual = |alias: &KekAlias| policy.keks.uses.get(alias).is_none_or(|use_| *use_ == KekUse::Always);
    let mut keks: BTreeMap<KekAlias, Arc<dyn Kms>> = BTreeMap::new();
    let mut away = Vec::new();
    for (alias, uri) in &config.keks {
        match open_kek(alias, uri, folder, passphrase) {
            Ok(kek) => {
                let kek = match config.deadlines.get(alias) {
                    Some(limit) => Arc::new(Deadline::new(kek, *limit)),
                    None => kek,
                };
                keks.insert(alias.clone(), kek);
            }
            Err(error) => away.push((alias.clone(), add(error, &format!("KEK {alias}")))),
        }
    }
    let is_asked = |alias: &KekAlias| is_usual(alias) || policy.keks.recovery.is_some();
    let opens_roots = keks.keys().any(|alias| is_asked(alias) && !policy.scope_keks.contains(alias));
    let mut fatal = None;
    for (alias, error) in away {
        let optional = policy.scope_keks.contains(&alias) || !is_usual(&alias);
        // A file that is there and wrong is for somebody to set right; one that is away is what the others are for.
        let others_do = opens_roots && error.kind() == ErrorKind::Io;
        if !optional && !others_do {
            fatal.get_or_insert(error);
            continue;
        }
        tracing::warn!("a KEK cannot be opened, and what it alone wraps cannot be used: {error}");
        let kind = ErrorKind::Kms(KmsErrorKind::Unavailable);
        let absent = Error::new(kind, "the KEK could not be opened when the keyring was");
        keks.insert(alias, Arc::new(Absent(absent.with_detail(error.to_string()))));
    }
    fatal.map_or(Ok(keks), Err)
}

pub(crate) fn open_kek(
    alias: &KekAlias,
    uri: &str,
    folder: &Path,
    passphrase: Option<&PassphraseSource>,
) -> Result<Arc<dyn Kms>> {
    match uri.split_once(':') {
        Some(("local", file)) => Ok(Arc::new(LocalKek::open(folder.join(file))?)),
        Some(("passphrase", file)) => {
            let (alias, source) = (alias.clone(), passphrase.cloned());
            let ask = move || match &source {
                Some(source) => source(&alias),
                None => Err(Error::new(ErrorKind::Configuration, "this program was given no way to ask for it")),
            };
            Ok(Arc::new(PassphraseKek::open(folder.join(file), Arc::new(ask))?))
        }
        #[cfg(feature = "vault")]
        Some(("vault", _)) => Ok(Arc::new(keyfold_kms::vault::VaultKek::from_uri(uri, folder)?)),
        #[cfg(feature = "aws")]
        Some(("awskms", _)) => Ok(Arc::new(keyfold_kms::aws::AwsKek::from_uri(uri, folder)?)),
        #[cfg(feature = "azure")]
        Some(("azurekv", _)) => Ok(Arc::new(keyfold_kms::azure::AzureKek::from_uri(uri, folder)?)),
        // Only the scheme is repeated: somebody may have written a password into the rest.
        other => Err(Error::new(ErrorKind::Configuration, "the KEK is not one that this build knows")
            .with_detail(format!("{}; known: {}", other.map_or("no scheme", |(scheme, _)| scheme), FORMS.join(", ")))),
    }
}

/// The files of the KEKs of `config`.
pub(crate) fn files(config: &Config, folder: &Path) -> Vec<PathBuf> {
    let of_one = |uri: &String| match uri.split_once(':') {
        Some(("local" | "passphrase", file)) => vec![folder.join(file)],
        #[cfg(any(feature = "aws", feature = "azure", feature = "vault"))]
        Some(("awskms" | "azurekv" | "vault", _)) => keyfold_kms::uri::files(uri, folder),
        _ => Vec::new(),
    };
    config.keks.values().chain(config.audit_keks.values()).flat_map(of_one).collect()
}
