//! Which key service the URI of a KEK names.

use keyfold::{Error, ErrorKind, Kms, Result};
use keyfold_kms::local::LocalKek;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The forms that this build knows.
const FORMS: &[&str] = &[
    "local:FILE",
    #[cfg(feature = "gcp")]
    "gcpkms://projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY?…",
    #[cfg(feature = "pkcs11")]
    "pkcs11://token=LABEL;object=LABEL?module-path=FILE&pin_file=FILE&…",
    #[cfg(feature = "vault")]
    "vault://HOST:8200/MOUNT/KEY?…",
];

/// Opens the KEK that `uri` names. Calls no key service yet.
pub(crate) fn open_kek(uri: &str, folder: &Path) -> Result<Arc<dyn Kms>> {
    match uri.split_once(':') {
        Some(("local", file)) => Ok(Arc::new(LocalKek::open(folder.join(file))?)),
        #[cfg(feature = "gcp")]
        Some(("gcpkms", _)) => Ok(Arc::new(keyfold_kms::gcp::GcpKek::from_uri(uri, folder)?)),
        #[cfg(feature = "pkcs11")]
        Some(("pkcs11", _)) => Ok(Arc::new(keyfold_kms::pkcs11::Pkcs11Kek::from_uri(uri, folder)?)),
        #[cfg(feature = "vault")]
        Some(("vault", _)) => Ok(Arc::new(keyfold_kms::vault::VaultKek::from_uri(uri, folder)?)),
        // Only the scheme is repeated: somebody may have written a password into the rest.
        other => Err(Error::new(ErrorKind::Configuration, "the KEK is not one that this build knows")
            .with_detail(format!("{}; known: {}", other.map_or("no scheme", |(scheme, _)| scheme), FORMS.join(", ")))),
    }
}

/// The files that the URI of a KEK names.
pub(crate) fn files(uri: &str, folder: &Path) -> Vec<PathBuf> {
    match uri.split_once(':') {
        Some(("local", file)) => vec![folder.join(file)],
        #[cfg(any(feature = "gcp", feature = "pkcs11", feature = "vault"))]
        Some(("gcpkms" | "pkcs11" | "vault", _)) => keyfold_kms::uri::files(uri, folder),
        _ => Vec::new(),
    }
}
