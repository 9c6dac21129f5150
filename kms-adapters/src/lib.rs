//! Key services for keyfold: each adapter makes one service look like [`keyfold::Kms`].
//!
//! - [`local`]: a key in a file, for one machine and for tests.
//! - [`passphrase`]: a key in a file that opens with a passphrase, kept offline for recovery.
//!
//! [`Deadline`] ends the requests of any of them after a total time.
//!
//! # The shape of an adapter
//!
//! One module and, where it brings dependencies, one feature. In it, in this order:
//!
//! 1. **Configuration**: the URI by which `keyfold.toml` names the KEK, parsed and checked before anything is called.
//! 2. **Client**: one type that implements `Kms`, one KEK each; `wrap` and `unwrap` are one request each, with a timeout,
//!    and hold no lock while they wait.
//! 3. **Error table**: one function that sorts every answer of the service into [`keyfold::KmsErrorKind`]; what is not in
//!    the table is `Rejected`. No error shows a payload.
//! 4. **Tests**: `keyfold::testing::kms_conformance` against the service or a recording of it, and one case for each row of the table.
#![forbid(unsafe_code)]

mod deadline;
mod key_file;
pub mod local;
pub mod passphrase;

pub use deadline::Deadline;
pub use local::LocalKek;
pub use passphrase::PassphraseKek;
