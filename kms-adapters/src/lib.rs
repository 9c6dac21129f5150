//! Key services for keyfold: each adapter makes one service look like [`keyfold::Kms`].
//!
//! - [`local`]: a key in a file, for one machine and for tests.
//! - [`passphrase`]: a key in a file that opens with a passphrase, kept offline for recovery.
#![cfg_attr(feature = "aws", doc = "- [`aws`]: AWS KMS (feature `aws`).")]
#![cfg_attr(feature = "azure", doc = "- [`azure`]: Azure Key Vault and Managed HSM (feature `azure`).")]
#![cfg_attr(
    feature = "vault",
    doc = "- [`vault`]: the transit engine of HashiCorp Vault and OpenBao (feature `vault`)."
)]
#![cfg_attr(feature = "gcp", doc = "- [`gcp`]: Google Cloud KMS (feature `gcp`).")]
#![cfg_attr(feature = "pkcs11", doc = "- [`pkcs11`]: hardware security modules (feature `pkcs11`).")]
#![cfg_attr(feature = "remote", doc = "- [`callback`]: functions of the host program (feature `remote`).")]
//!
//! [`Deadline`] ends the requests of any of them after a total time.
//!
//! # The shape of an adapter
//!
//! One module and, where it brings dependencies, one feature. In it, in this order:
//!
//! 1. **Configuration**: the URI by which `keyfold.toml` names the KEK, parsed and checked before anything is called.
//! 2. **Client**: one type that implements `layer::Adapter`, one KEK each; `wrap` and `unwrap` are one attempt each, and
//!    hold no lock while they wait. The layer above brings timeouts, repetition, breaker and rate limit.
//! 3. **Error table**: rows of data that sort every answer of the service into [`keyfold::KmsErrorKind`]; what is not in
//!    the table is `Rejected`. No error shows a payload, a credential or what a service wrote.
//! 4. **Tests**: `keyfold::testing::kms_conformance` against the service or a recording of it, and one case for each row of the table.
//!
//! docs/KMS-CONTRACT.md has the whole contract.
#![forbid(unsafe_code)]

#[cfg(feature = "aws")]
mod apart;
#[cfg(feature = "aws")]
pub mod aws;
#[cfg(feature = "azure")]
pub mod azure;
#[cfg(feature = "remote")]
pub mod callback;
#[cfg(feature = "remote")]
pub mod credentials;
mod deadline;
pub mod examine;
#[cfg(feature = "gcp")]
pub mod gcp;
#[cfg(feature = "http")]
pub mod http;
mod key_file;
mod kwp;
#[cfg(feature = "remote")]
pub mod layer;
pub mod local;
pub mod passphrase;
#[cfg(feature = "remote")]
mod per_process;
#[cfg(feature = "pkcs11")]
pub mod pkcs11;
#[cfg(any(feature = "aws", feature = "azure"))]
mod sdk;
#[cfg(feature = "remote")]
pub mod uri;
#[cfg(feature = "vault")]
pub mod vault;

pub use deadline::Deadline;
pub use local::LocalKek;
pub use passphrase::PassphraseKek;
