//! The KEKs that a configuration names.

use crate::absent::Absent;
use crate::{Options, add};
use keyfold::config::Config;
use keyfold::{Error, ErrorKind, KekAlias, KekUse, Kms, KmsErrorKind, Result};
use keyfold_kms::examine::Examine;
use keyfold_kms::{Deadline, LocalKek, PassphraseKek};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A sort of key service.
#[derive(Clone, Copy, Debug)]
pub struct KeyService {
    /// The scheme of its URIs.
    pub scheme: &'static str,
    /// The feature that brings its adapter.
    pub feature: &'static str,
    /// Whether this build has it.
    pub is_built_in: bool,
    form: &'static str,
    absent: &'static str,
}

macro_rules! key_services {
    ($($scheme:literal, $feature:literal, $form:literal;)+) => {
        /// The key services that there are adapters for.
        pub const KEY_SERVICES: &[KeyService] = &[$(KeyService {
            scheme: $scheme,
            feature: $feature,
            is_built_in: cfg!(feature = $feature),
            form: concat!($scheme, "://", $form),
            absent: concat!($scheme, " is not in this build"),
        }),+];
    };
}

key_services! {
    "awskms", "aws", "ARN?…";
    "azurekv", "azure", "HOST/KEY?…";
    "gcpkms", "gcp", "projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY?…";
    "pkcs11", "pkcs11", "token=LABEL;object=LABEL?…";
    "vault", "vault", "HOST:8200/MOUNT/KEY?…";
}

/// Opens every KEK of `config`. One that cannot be opened is absent, and the log says why, where the keyring can do without:
/// it is for isolated scopes, for recovery, or another one for roots can be asked.
///
/// # Errors
///
/// - [`Configuration`](ErrorKind::Configuration): two aliases stand for one key, or the host program brings a KEK that no
///   alias stands for.
/// - Those of opening a KEK file, where no KEK for roots is left to ask.
pub(crate) fn open_keks(config: &Config, folder: &Path, options: &Options) -> Result<BTreeMap<KekAlias, Arc<dyn Kms>>> {
    check_host_keks(options, config.keks.values().chain(config.audit_keks.values()))?;
    let policy = &config.keyring;
    let use_of = |alias: &KekAlias| policy.keks.uses.get(alias).copied().unwrap_or_default();
    let mut keks: BTreeMap<KekAlias, Arc<dyn Kms>> = BTreeMap::new();
    let mut ids: BTreeMap<String, &KekAlias> = BTreeMap::new();
    let mut away = Vec::new();
    for (alias, uri) in &config.keks {
        match open_with_id(alias, uri, config.deadlines.get(alias), folder, options) {
            Ok((kek, id)) => {
                note_id(&mut ids, id, alias)?;
                keks.insert(alias.clone(), kek);
            }
            Err(error) => away.push((alias.clone(), error)),
        }
    }
    let wraps_roots = |alias: &KekAlias| !policy.scope_keks.contains(alias);
    let is_asked = |alias: &KekAlias| match (use_of(alias), &policy.keks.recovery) {
        (KekUse::Always, _) | (KekUse::Recovery, Some(_)) => true,
        (KekUse::BreakGlass, Some(recovery)) => recovery.reason.is_some(),
        (KekUse::Recovery | KekUse::BreakGlass, None) => false,
    };
    let opens_roots = keks.keys().any(|alias| is_asked(alias) && wraps_roots(alias));
    let waits = |wanted: KekUse| keks.keys().any(|alias| use_of(alias) == wanted && wraps_roots(alias));
    let way_out = match &policy.keks.recovery {
        None if waits(KekUse::Recovery) => "; a KEK for recovery is there: --recovery asks it",
        None | Some(_) if waits(KekUse::BreakGlass) => "; a break-glass KEK is there: --recovery=REASON asks it",
        _ => "",
    };
    let mut fatal = None;
    for (alias, error) in away {
        if !opens_roots && wraps_roots(&alias) && use_of(&alias) == KekUse::Always {
            let error = add(error, &format!("KEK {alias}"));
            let detail = format!("{}{way_out}", error.detail());
            fatal.get_or_insert(error.with_detail(detail));
            continue;
        }
        // One that is not there is what the others are for; one that is there and wrong, for somebody to set right.
        if error.kind() == ErrorKind::Io {
            tracing::warn!("a KEK cannot be opened, and what it alone wraps cannot be used: KEK {alias}: {error}");
        } else {
            tracing::error!("a KEK cannot be opened, and what it alone wraps cannot be used: KEK {alias}: {error}");
        }
        // A URI that somebody has to set right is no outage, which would pass. A file may be on a disk that is away.
        let is_file = |uri: &String| uri.starts_with("local:") || uri.starts_with("passphrase:");
        let kind = match error.kind() {
            ErrorKind::Configuration if !config.keks.get(&alias).is_some_and(is_file) => ErrorKind::Configuration,
            _ => ErrorKind::Kms(KmsErrorKind::Unavailable),
        };
        // It stays so as long as the keyring is open: keys under other KEKs need not wait for it.
        let absent = Error::new(kind, "the KEK could not be opened when the keyring was").lasting();
        keks.insert(alias, Arc::new(Absent(absent.with_detail(error.to_string()))));
    }
    fatal.map_or(Ok(keks), Err)
}

/// Refuses a KEK of the host program that none of `uris` names.
fn check_host_keks<'a>(options: &Options, uris: impl Iterator<Item = &'a String> + Clone) -> Result<()> {
    let is_named = |name: &str| uris.clone().any(|uri| uri.strip_prefix("host:") == Some(name));
    match options.host_keks.keys().find(|name| !is_named(name)) {
        None => Ok(()),
        Some(name) => Err(Error::new(ErrorKind::Configuration, "no KEK of the keyring is this one of the program")
            .with_detail(format!("host:{name}"))),
    }
}

/// Opens all of `uris`, for a new keyring that each of them is to open.
pub(crate) fn open_all(
    uris: &BTreeMap<KekAlias, String>,
    folder: &Path,
    options: &Options,
) -> Result<BTreeMap<KekAlias, Arc<dyn Kms>>> {
    check_host_keks(options, uris.values())?;
    let mut keks: BTreeMap<KekAlias, Arc<dyn Kms>> = BTreeMap::new();
    let mut ids = BTreeMap::new();
    for (alias, uri) in uris {
        let opened = open_with_id(alias, uri, None, folder, options);
        let (kek, id) = opened.map_err(|error| add(error, &format!("KEK {alias}")))?;
        note_id(&mut ids, id, alias)?;
        keks.insert(alias.clone(), kek);
    }
    Ok(keks)
}

/// Refuses a key that another alias stands for.
fn note_id<'a>(ids: &mut BTreeMap<String, &'a KekAlias>, id: String, alias: &'a KekAlias) -> Result<()> {
    match ids.insert(id, alias) {
        None => Ok(()),
        Some(other) => Err(Error::new(
            ErrorKind::Configuration,
            "two aliases stand for the same key, and one KEK would count as two",
        )
        .with_detail(format!("{other}, {alias}"))),
    }
}

pub(crate) fn open_kek(
    alias: &KekAlias,
    uri: &str,
    deadline: Option<&Duration>,
    folder: &Path,
    options: &Options,
) -> Result<Arc<dyn Kms>> {
    open_with_id(alias, uri, deadline, folder, options).map(|(kek, _)| -> Arc<dyn Kms> { kek })
}

/// The KEK, and what tells it from every other one.
pub(crate) fn open_with_id(
    alias: &KekAlias,
    uri: &str,
    deadline: Option<&Duration>,
    folder: &Path,
    options: &Options,
) -> Result<(Arc<dyn Examine>, String)> {
    match uri.split_once(':') {
        Some(("local", file)) => {
            let kek = LocalKek::open(folder.join(file))?;
            let id = kek.id().to_owned();
            Ok((within(deadline, kek), id))
        }
        Some(("passphrase", file)) => {
            let (alias, source) = (alias.clone(), options.passphrase.clone());
            let ask = move || match &source {
                Some(source) => source(&alias),
                None => Err(Error::new(ErrorKind::Configuration, "this program was given no way to ask for it")),
            };
            let kek = PassphraseKek::open(folder.join(file), Arc::new(ask))?;
            let id = kek.file_id();
            Ok((within(deadline, kek), id))
        }
        Some(("host", name)) => match options.host_keks.get(name) {
            Some(make) => Ok((make(deadline.copied())?, uri.to_owned())),
            None => {
                Err(Error::new(ErrorKind::Configuration, "this program brings no KEK of that name").with_detail(name))
            }
        },
        #[cfg(feature = "vault")]
        Some(("vault", _)) => remote(deadline, keyfold_kms::vault::VaultKek::from_uri(uri, folder)?),
        #[cfg(feature = "aws")]
        Some(("awskms", _)) => remote(deadline, keyfold_kms::aws::AwsKek::from_uri(uri, folder)?),
        #[cfg(feature = "azure")]
        Some(("azurekv", _)) => remote(deadline, keyfold_kms::azure::AzureKek::from_uri(uri, folder)?),
        #[cfg(feature = "gcp")]
        Some(("gcpkms", _)) => remote(deadline, keyfold_kms::gcp::GcpKek::from_uri(uri, folder)?),
        #[cfg(feature = "pkcs11")]
        Some(("pkcs11", _)) => remote(deadline, keyfold_kms::pkcs11::Pkcs11Kek::from_uri(uri, folder)?),
        other => Err(unknown(other.map(|(scheme, _)| scheme))),
    }
}

#[cfg(any(feature = "aws", feature = "azure", feature = "gcp", feature = "pkcs11", feature = "vault"))]
fn remote<A: keyfold_kms::layer::Adapter>(
    deadline: Option<&Duration>,
    kek: keyfold_kms::layer::Layered<A>,
) -> Result<(Arc<dyn Examine>, String)> {
    let id = kek.adapter().label().to_owned();
    let kek = match deadline {
        Some(deadline) => kek.with_deadline(*deadline)?,
        None => kek,
    };
    Ok((Arc::new(kek), id))
}

/// Why a URI of `scheme` opens no KEK. Only the scheme is repeated: somebody may have written a password into the rest.
fn unknown(scheme: Option<&str>) -> Error {
    let of_scheme = |service: &&KeyService| Some(service.scheme) == scheme;
    if let Some(service) = KEY_SERVICES.iter().find(of_scheme) {
        return Error::new(ErrorKind::Configuration, service.absent)
            .with_detail(format!("cargo build -p keyfold-cli --features {}", service.feature));
    }
    let built_in = KEY_SERVICES.iter().filter(|service| service.is_built_in).map(|service| service.form);
    let forms =
        ["local:FILE", "passphrase:FILE", "host:NAME"].into_iter().chain(built_in).collect::<Vec<_>>().join(", ");
    Error::new(ErrorKind::Configuration, "the KEK is not one that this build knows")
        .with_detail(format!("{}; known: {forms}", scheme.unwrap_or("no scheme")))
}

/// A KEK that has no layer of its own, which would keep a deadline.
fn within(deadline: Option<&Duration>, kek: impl Examine + 'static) -> Arc<dyn Examine> {
    match deadline {
        Some(deadline) => Arc::new(Deadline::new(Arc::new(kek), *deadline)),
        None => Arc::new(kek),
    }
}

/// The files of the KEKs of `config`.
pub(crate) fn files(config: &Config, folder: &Path) -> Vec<PathBuf> {
    let of_one = |uri: &String| match uri.split_once(':') {
        Some(("local" | "passphrase", file)) => vec![folder.join(file)],
        #[cfg(any(feature = "aws", feature = "azure", feature = "gcp", feature = "pkcs11", feature = "vault"))]
        Some(("awskms" | "azurekv" | "gcpkms" | "pkcs11" | "vault", _)) => keyfold_kms::uri::files(uri, folder),
        _ => Vec::new(),
    };
    config.keks.values().chain(config.audit_keks.values()).flat_map(of_one).collect()
}
