//! What of this build runs in a FIPS 140 module (docs/FIPS.md). Keyfold itself is not validated, whatever the build.
//!
//! With the feature `fips` that module is the one of AWS-LC. Its own self-tests run when the program starts, and end it when they fail; ours,
//! [`self_test`], runs before the first keyring is opened.

use crate::aead::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::policy::{FieldMode, FieldPolicy};

/// What is done with services that no FIPS 140 module performs in an approved way: those that [`Service::is_approved`] says no of.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Rule {
    /// They work as in every build; [`status`] says which they are.
    #[default]
    Labelled,
    /// Those by which values are sealed, searched for and opened are refused, and without such a module the keyring does not open. A
    /// reload that requires it does not concern handles that exist.
    Required,
}

/// What [`status`] says.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// The module; `None`: this build has none.
    pub module: Option<Module>,
    /// Everything cryptographic that this crate does, and what the other crates do that no module computes in any build. KEKs are not its
    /// own: docs/FIPS.md says which are inside.
    pub services: &'static [Service],
}

impl Status {
    /// The names of the services that no module performs in an approved way.
    pub fn not_approved(&self) -> impl Iterator<Item = &'static str> {
        self.services.iter().filter(|service| !service.is_approved).map(|service| service.name)
    }
}

/// One sentence, such as `AWS-LC FIPS 3.6.0, in FIPS mode; not approved: …`.
impl core::fmt::Display for Status {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Some(Module { name, version, is_in_fips_mode }) = self.module else {
            return f.write_str("no FIPS 140 module in this build");
        };
        let mode = if is_in_fips_mode { "in FIPS mode" } else { "NOT IN FIPS MODE" };
        write!(f, "{name} {version}, {mode}; not approved: {}", self.not_approved().collect::<Vec<_>>().join(", "))
    }
}

/// A cryptographic module.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub struct Module {
    /// Its name.
    pub name: &'static str,
    /// The version of the library that it is a part of, as the library says it when asked.
    pub version: &'static str,
    /// Whether it says that it is in FIPS mode.
    pub is_in_fips_mode: bool,
}

/// Something cryptographic that the library does.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// What for.
    pub name: &'static str,
    /// By which algorithms.
    pub algorithm: &'static str,
    /// What computes them.
    pub computed_by: &'static str,
    /// Whether that is the module, whose own indicator counts every call that is made of it for this as an approved one.
    pub is_approved: bool,
}

/// The computer of what a module takes over where there is one.
const fn by_module(otherwise: &'static str) -> &'static str {
    if cfg!(feature = "fips") { Backend::ALL[0].name() } else { otherwise }
}

const RUST_CRYPTO: &str = "RustCrypto";
/// What other crates than this one take without a module.
const OTHERS: &str = "the operating system, RustCrypto";

const fn inside(name: &'static str, algorithm: &'static str, otherwise: &'static str) -> Service {
    Service { name, algorithm, computed_by: by_module(otherwise), is_approved: cfg!(feature = "fips") }
}

const fn outside(name: &'static str, algorithm: &'static str, computed_by: &'static str) -> Service {
    Service { name, algorithm, computed_by, is_approved: false }
}

/// In the order of docs/FIPS.md.
static SERVICES: &[Service] = &[
    inside("fields (suite 01) and keys under a root", "AES-256-GCM, keys by CMAC-AES-256 in counter mode", GCM),
    inside("documents (suite 05)", "AES-256-GCM", GCM),
    inside("opening streams (suite 04)", "AES-256-GCM", GCM),
    outside("sealing streams (suite 04)", "AES-256-GCM under nonces that count", by_module(GCM)),
    inside("deriving keys", "HKDF-SHA-256, HKDF-Expand-SHA-512", RUST_CRYPTO),
    inside("key records, manifests, blind indexes, audit chains", "HMAC-SHA-256", RUST_CRYPTO),
    inside("keys, nonces and identifiers", "random bytes", "the operating system"),
    outside("deterministic fields and tokens (suite 02)", "AES-256-SIV", RUST_CRYPTO),
    outside("format-preserving fields", "FF1-AES-256", "fpe on RustCrypto"),
    outside("fingerprints and bindings of public bytes", "SHA-256", RUST_CRYPTO),
    outside("bundles for devices", "AES-256-KWP", RUST_CRYPTO),
    outside("KEKs behind a passphrase", "Argon2id, AES-256-KWP", RUST_CRYPTO),
    outside("identifiers and checksums of KEKs in files", "SHA-256 of the key", RUST_CRYPTO),
    outside("TLS to key services and databases", "TLS 1.2 and 1.3", "rustls on ring"),
    outside("salts, names of sessions, digests of files and trails", "random bytes, SHA-256", OTHERS),
];

/// What computes AES-256-GCM in a build without a module.
const GCM: &str = Backend::ALL[0].name();

/// Says which module this build has, whether that is in FIPS mode, and what runs in it. Asks the module, no key and no service.
#[must_use]
pub fn status() -> Status {
    #[cfg(feature = "fips")]
    let module = Some(Module {
        name: Backend::default().name(),
        version: aws_lc_rs::awslc_version(),
        is_in_fips_mode: aws_lc_rs::try_fips_mode().is_ok(),
    });
    #[cfg(not(feature = "fips"))]
    let module = None;
    Status { module, services: SERVICES }
}

impl Rule {
    /// As it is written in configurations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Labelled => "labelled",
            Self::Required => "required",
        }
    }

    /// Refuses to open a keyring without a module that is in FIPS mode, where one is required.
    pub(crate) fn check_build(self) -> Result<()> {
        if self == Self::Labelled || status().module.is_some_and(|module| module.is_in_fips_mode) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Configuration,
            "the configuration requires a FIPS 140 module (fips = \"required\"), and this build has none that is in FIPS mode",
        ))
    }

    /// Refuses a field whose algorithm is not approved, where that is required.
    pub(crate) fn check_field(self, field: &FieldPolicy) -> Result<()> {
        let algorithm = match &field.mode {
            FieldMode::FormatPreserving { .. } => "FF1",
            _ if field.deterministic_partition().is_some() => "AES-SIV",
            _ => return Ok(()),
        };
        self.refuse(&field.name, algorithm)
    }

    /// Refuses what `algorithm` does for a field, where only what is approved is allowed.
    pub(crate) fn refuse(self, field: &str, algorithm: &str) -> Result<()> {
        if self == Self::Labelled {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::PolicyRefused,
            "not approved by FIPS 140, which the configuration requires (fips = \"required\")",
        )
        .with_detail(format!("field {field}, {algorithm}")))
    }
}

/// Compares what the module computes with a published answer of XAES-256-GCM, which is made of its CMAC and AES-256-GCM. Once per process,
/// before the first keyring is opened; this only says again what came out. Without a module there is nothing to do.
///
/// # Errors
///
/// - [`Internal`](ErrorKind::Internal): another answer. No keyring opens in this process.
pub fn self_test() -> Result<()> {
    #[cfg(feature = "fips")]
    {
        static PASSED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        if !PASSED.get_or_init(answers::are_right) {
            return Err(Error::new(ErrorKind::Internal, "the FIPS module does not compute what its standards say"));
        }
    }
    Ok(())
}

#[cfg(feature = "fips")]
mod answers {
    use crate::aead::{Backend, XaesKey};
    use crate::keys::Secret;

    /// C2SP XAES-256-GCM, the first of its test vectors: what is sealed with the module opens elsewhere, and the other way round.
    pub(super) fn are_right() -> bool {
        const PLAINTEXT: &[u8; 12] = b"XAES-256-GCM";
        const SEALED: [u8; 28] = [
            0xce, 0x54, 0x6e, 0xf6, 0x3c, 0x9c, 0xc6, 0x07, 0x65, 0x92, 0x36, 0x09, 0xb3, 0x3a, 0x9a, 0x19, 0x74, 0xe9,
            0x6e, 0x52, 0xda, 0xf2, 0xfc, 0xf7, 0x07, 0x5e, 0x22, 0x71,
        ];
        let (prefix, last) = (b"ABCDEFGHIJKL", b"MNOPQRSTUVWX");
        let key = Secret::with(|key: &mut [u8; 32]| key.fill(1));
        let [module, other] =
            [Backend::default(), Backend::RustCrypto].map(|by| XaesKey::new(by, &key).hold_derived(prefix));
        let mut sealed = SEALED;
        let opened = module.open(*last, b"", &mut sealed).is_ok_and(|opened| opened == PLAINTEXT);
        // The module draws its nonce, so no published answer has one: another implementation says whether it is right.
        let mut sealed = SEALED;
        sealed[..12].copy_from_slice(PLAINTEXT);
        let mut nonce = *last;
        let Ok(tag) = module.seal(&mut nonce, b"", &mut sealed[..12]) else { return false };
        sealed[12..].copy_from_slice(&tag);
        opened && other.open(nonce, b"", &mut sealed).is_ok_and(|opened| opened == PLAINTEXT)
    }
}
