//! Keyfold encrypts fields: patient identifiers, results, telemetry, under keys that a key service guards.
//!
//! # Where things are
//!
//! - [`Keyring`]: start here. Opens a named set of keys; makes [`Field`] handles that encrypt and decrypt.
//! - [`Value`], [`Context`]: what goes into a field and what it is bound to.
//! - [`Policy`]: what is encrypted how; [`config`] reads it from `keyfold.toml`.
//! - [`Kms`] and [`KeyStore`]: the two traits to implement for another key service or database, with a
//!   conformance suite for each in `testing`.
//! - [`StreamSealer`], [`StreamOpener`]: files and other data of any length, piece by piece.
//! - [`Documents`]: many values of one record that are sealed together, under one header.
//! - [`wire`]: key IDs, suites, the text form, frames. Needs no key.
//! - [`fips`]: what runs in a FIPS 140 module, in builds that have one.
//!
//! # What it does not do
//!
//! It does not hide how long a value is unless padding is configured, hides nothing from code that runs in the
//! same process, stores no data, and does not detect that an old value of the same field was put back.
//! docs/THREAT-MODEL.md says the rest; docs/FORMAT.md specifies every byte.
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

pub mod aead;
mod context;
pub mod device;
mod error;
mod keys;
mod prf;
mod row;
mod value;
pub mod wire;

#[cfg(feature = "std")]
mod audit;
#[cfg(feature = "std")]
mod cache;
#[cfg(feature = "std")]
mod clock;
#[cfg(feature = "std")]
mod column;
#[cfg(feature = "config")]
pub mod config;
#[cfg(feature = "std")]
mod document;
#[cfg(feature = "std")]
mod field;
#[cfg(feature = "std")]
pub mod fips;
#[cfg(feature = "std")]
mod high_water;
#[cfg(feature = "std")]
mod keyring;
#[cfg(feature = "std")]
mod kms;
#[cfg(feature = "std")]
mod lookup;
#[cfg(feature = "std")]
mod migration;
#[cfg(feature = "std")]
mod observe;
#[cfg(feature = "std")]
mod policy;
#[cfg(feature = "std")]
mod random;
#[cfg(feature = "std")]
mod record;
#[cfg(feature = "std")]
mod rotation;
#[cfg(feature = "std")]
mod share;
#[cfg(feature = "std")]
mod store;
#[cfg(feature = "std")]
mod stream;
#[cfg(feature = "std")]
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "hazmat")]
pub mod vectors;

pub use error::{Error, ErrorKind, KmsErrorKind, Result};
#[cfg(feature = "std")]
pub use keyfold_memory::{Status as KeyMemory, status as key_memory};
#[cfg(feature = "std")]
pub use keys::{ChainId, MemoryLock};
pub use keys::{KeyClass, Lineage, Secret, SlotId};
pub use value::{Padding, Value, ValueType};

#[cfg(feature = "std")]
pub use {
    audit::{AuditAction, AuditEvent, AuditSink, ChainStart, Ratchet},
    cache::CachePolicy,
    clock::{Clock, SystemClock},
    column::{Column, ColumnBytes, ColumnValues, OpenedColumn, RowError, SealedColumn},
    context::Context,
    document::{
        Beside, DocumentBody, DocumentOpener, DocumentSealer, DocumentToSeal, DocumentValue, Documents, OpenedDocument,
        SealedDocument,
    },
    field::{Decryptor, Encryptor, Field, FormatPreserver, Indexer, Opened, Prover, Rebinder, Revealed, Searcher},
    high_water::{HighWater, HighWaterMark, MemoryHighWater},
    keyring::{
        CopyStatus, CreatedKeyring, Drill, DrillReport, Evidence, Hold, KekCalls, KekPolicy, KekUse, KeyInfo, Keyring,
        KeyringConfig, LookupKeys, Lost, MAX_SCOPE_NAME_LEN, Provisioned, RecordCopy, Recovery, Reparent,
        ReparentProgress, RestorePlan, Revoked, Rewrap, RewrapOptions, RewrapPlan, RewrapProgress, Rotated,
        SeenElsewhere, ShredPolicy, ShredScheduled, Shredded,
    },
    kms::{BoxFuture, KekAlias, Kms, KmsContext, KmsTrace, UnwrapRequest, WrapRequest, WrappedKey},
    lookup::{
        DatePart, Format, IndexKind, IndexPolicy, OnUnindexable, PhoneRule, TimeUnit, Token, TokenAlphabet, TokenForm,
        Tokens, most_bits,
    },
    migration::{Migration, MigrationPhase},
    policy::{
        DocumentPolicy, FieldMode, FieldPolicy, HeaderPlace, HipaaClass, Hl7Policy, ManifestRule, Name, Policy,
        RowBinding, Spelling, check_shown_bits,
    },
    record::{KeyState, Record},
    rotation::RotationPolicy,
    store::{KeyStore, RecordChange, Remainder, Slot},
    stream::{
        AsyncStreamReader, AsyncStreamWriter, OpeningStream, SealingStream, StreamOpener, StreamProgress, StreamRanges,
        StreamReader, StreamSealer, StreamWriter,
    },
};
