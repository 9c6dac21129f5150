//! Values and key records made from given keys, nonces and times: how test vectors are generated and run.
//!
//! Repeating a nonce breaks AES-GCM, and a record made here is vouched for by whatever root the caller holds:
//! never use this to protect data. The raw primitives are in [`crate::aead::hazmat`].

mod document;
mod stream;
pub use document::{Document, body_aad};
pub use stream::{Cobblestone, Stream};

use crate::aead::hazmat::{aes256siv_seal, cmac_aes256, xaes256gcm_seal};
use crate::aead::{Backend, XaesKey};
use crate::context::{Aad, Context, NameKind, Strings};
use crate::error::Result;
use crate::keys::{KeyClass, KeyIdentity, KeySchedule, Lineage, Purpose, Secret, SlotId, hmac_sha256};
use crate::kms::{KekAlias, WrappedKey};
use crate::record::{KeyState, RootKey, child_wrap_aad, kms_binding};
use crate::row::split_nonce;
use crate::value::{Padding, Value};
use crate::wire::record::{Body, Wrap};
use crate::wire::{Generation, HEADER_LEN, KeyId, NONCE_LEN, PREFIX_LEN, Suite, header};

/// A key whose bytes are known, and whose key it is (FORMAT.md §2.1).
#[derive(Clone, Copy)]
pub struct Key {
    /// The 32 bytes.
    pub bytes: [u8; 32],
    /// The keyring.
    pub lineage: Lineage,
    /// What it is for.
    pub class: KeyClass,
    /// The scope or partition.
    pub slot: SlotId,
    /// Its number.
    pub generation: Generation,
}

impl Key {
    fn identity(&self) -> KeyIdentity {
        KeyIdentity { lineage: self.lineage, class: self.class, slot: self.slot, generation: self.generation }
    }

    fn schedule(&self) -> KeySchedule {
        KeySchedule::new(&Secret::with(|k| *k = self.bytes), self.identity())
    }

    fn root(&self) -> RootKey {
        RootKey::new(Backend::default(), &self.schedule())
    }

    /// The 37 bytes that every derivation is bound to.
    #[must_use]
    pub fn identity_bytes(&self) -> [u8; 37] {
        self.identity().encode()
    }

    /// The commitment.
    #[must_use]
    pub fn commitment(&self) -> [u8; 32] {
        self.schedule().commitment()
    }

    /// The key ID.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.schedule().key_id()
    }

    /// The 26 bytes that start a value of `suite` under this key.
    #[must_use]
    pub fn header(&self, suite: Suite) -> [u8; HEADER_LEN] {
        header(suite, &self.key_id())
    }

    /// The purpose keys of this key's class: label and bytes.
    #[must_use]
    pub fn purpose_keys(&self) -> Vec<(&'static str, Vec<u8>)> {
        let purposes: &[Purpose] = match self.class {
            KeyClass::Root => &[Purpose::RecordMac, Purpose::ChildWrap, Purpose::Endorsement],
            KeyClass::Data => &[Purpose::Field, Purpose::Stream, Purpose::Document],
            KeyClass::Lookup => &[
                Purpose::Deterministic,
                Purpose::ScopeNames,
                Purpose::Index,
                Purpose::FormatPreserving,
                Purpose::TokenProof,
            ],
            KeyClass::Audit => &[Purpose::AuditChain],
        };
        let schedule = self.schedule();
        purposes
            .iter()
            .map(|&purpose| {
                let key = match purpose {
                    Purpose::Deterministic => schedule.expand::<64>(purpose).expose().to_vec(),
                    _ => schedule.expand::<32>(purpose).expose().to_vec(),
                };
                (core::str::from_utf8(purpose.label()).expect("labels are ASCII"), key)
            })
            .collect()
    }

    fn purpose(&self, purpose: Purpose) -> [u8; 32] {
        *self.schedule().expand::<32>(purpose).expose()
    }

    /// The AES-256-GCM key of fields whose nonce starts with `prefix`.
    #[must_use]
    pub fn derived_key(&self, prefix: &[u8; PREFIX_LEN]) -> [u8; 32] {
        let mut derived = [0; 32];
        for (i, half) in (1_u8..).zip(derived.chunks_exact_mut(16)) {
            let message = [&[0, i, b'X', 0][..], prefix].concat();
            half.copy_from_slice(&cmac_aes256(&self.purpose(Purpose::Field), &message));
        }
        derived
    }

    /// A suite 01 value: `encoded` sealed under this key with the given nonce and AAD.
    ///
    /// # Errors
    ///
    /// - [`LimitExceeded`](crate::ErrorKind::LimitExceeded): longer than AES-GCM allows.
    pub fn seal_field(&self, backend: Backend, nonce: &[u8; NONCE_LEN], aad: &[u8], encoded: &[u8]) -> Result<Vec<u8>> {
        let mut body = encoded.to_vec();
        let tag = xaes256gcm_seal(backend, &self.purpose(Purpose::Field), nonce, aad, &mut body)?;
        Ok([&self.header(Suite::Field)[..], nonce, &body, &tag].concat())
    }

    /// A suite 02 value: `encoded` sealed under this key with the given associated strings.
    ///
    /// # Errors
    ///
    /// - [`LimitExceeded`](crate::ErrorKind::LimitExceeded): more strings than S2V takes.
    pub fn seal_deterministic(&self, strings: &[Vec<u8>; 3], encoded: &[u8]) -> Result<Vec<u8>> {
        let mut body = encoded.to_vec();
        let key = self.schedule().expand::<64>(Purpose::Deterministic);
        let iv = aes256siv_seal(key.expose(), &[&strings[0], &strings[1], &strings[2]], &mut body)?;
        Ok([&self.header(Suite::Deterministic)[..], &iv, &body].concat())
    }

    /// The keyed name of a scope under this lookup key.
    #[must_use]
    pub fn scope_tag(&self, name: &str) -> [u8; 32] {
        hmac_sha256(&self.schedule().expand(Purpose::ScopeNames), &[name.as_bytes()])
    }

    /// What a KEK wraps: key ‖ SHA-256(binding).
    #[must_use]
    pub fn kek_payload(&self, environment: &str) -> [u8; 64] {
        let mut payload = [0; 64];
        payload[..32].copy_from_slice(&self.bytes);
        payload[32..].copy_from_slice(&kms_binding(&self.identity(), &self.commitment(), environment));
        payload
    }

    /// The MAC of this root over the bytes of a record before its MAC.
    #[must_use]
    pub fn record_mac(&self, authenticated: &[u8]) -> [u8; 32] {
        hmac_sha256(&Secret::with(|k| *k = self.purpose(Purpose::RecordMac)), &[authenticated])
    }

    /// This key wrapped by `root`: nonce ‖ ciphertext ‖ tag.
    ///
    /// # Errors
    ///
    /// Never for a key of 32 bytes.
    pub fn wrap(&self, root: &Self, nonce: &[u8; NONCE_LEN]) -> Result<[u8; 72]> {
        let mut wrap = [0; 72];
        let (prefix, last) = split_nonce(nonce);
        wrap[..NONCE_LEN].copy_from_slice(nonce);
        wrap[NONCE_LEN..56].copy_from_slice(&self.bytes);
        let child_wrap = XaesKey::new(Backend::default(), &root.schedule().expand(Purpose::ChildWrap));
        let aad = child_wrap_aad(&self.identity(), &self.commitment());
        let body = &mut wrap[NONCE_LEN..56];
        let tag = child_wrap.with_derived_for_any_nonce(prefix, |key| key.seal(&mut { *last }, &aad, body))?;
        wrap[56..].copy_from_slice(&tag);
        Ok(wrap)
    }
}

/// The encoded value: format byte ‖ value ‖ padding.
///
/// # Errors
///
/// - [`InvalidInput`](crate::ErrorKind::InvalidInput): it has no canonical encoding.
/// - [`LimitExceeded`](crate::ErrorKind::LimitExceeded): it is too long.
pub fn encode(value: Value<'_>, padding: Padding) -> Result<Vec<u8>> {
    value.check()?;
    let mut out = vec![0; value.encoded_len(padding)];
    value.encode(padding, &mut out);
    Ok(out)
}

/// The value in `encoded`; `None` if it is not a canonical encoding.
#[must_use]
pub fn decode(encoded: &[u8]) -> Option<Value<'_>> {
    Value::split_encoded(encoded).and_then(|(kind, bytes)| Value::from_canonical(kind, bytes))
}

/// The canonical bytes of a value, without format byte and padding.
#[must_use]
pub fn canonical(value: Value<'_>) -> Vec<u8> {
    encode(value, Padding::None).map_or_else(|_| Vec::new(), |encoded| encoded[1..].to_vec())
}

/// The AAD of a suite 01 value (FORMAT.md §4.3).
///
/// # Errors
///
/// - [`LimitExceeded`](crate::ErrorKind::LimitExceeded): name, context or row binding is too long.
pub fn aad(header: &[u8; HEADER_LEN], field: &str, context: &Context, row: Option<&[u8]>) -> Result<Vec<u8>> {
    Aad::new(header, field, context, row.is_some())?.of_row(row).map(<[u8]>::to_vec)
}

/// The associated strings of a suite 02 value (FORMAT.md §5.2), for the field or, if `joined`, the join group `name`.
///
/// # Errors
///
/// - [`LimitExceeded`](crate::ErrorKind::LimitExceeded): the name is too long.
pub fn strings(header: &[u8; HEADER_LEN], joined: bool, name: &str, context: &Context) -> Result<[Vec<u8>; 3]> {
    let kind = if joined { NameKind::JoinGroup } else { NameKind::Field };
    let strings = Strings::new(kind, name, context)?;
    Ok(strings.with(header).map(<[u8]>::to_vec))
}

/// What a key record says (FORMAT.md §7.1).
#[derive(Clone)]
pub struct RecordParts<'a> {
    /// The key.
    pub key: Key,
    /// The root whose MAC ends the record; the key itself for a live root.
    pub root: Key,
    /// The state.
    pub state: KeyState,
    /// The keyed name of the scope.
    pub scope_tag: Option<[u8; 32]>,
    /// The sequence.
    pub sequence: u64,
    /// When the key was made, when it began to seal, when the record changed.
    pub times: [u64; 3],
    /// The environment.
    pub environment: &'a str,
    /// The wraps.
    pub wraps: Vec<WrapParts>,
    /// The root that endorses this root.
    pub endorser: Option<Key>,
    /// The extensions, encoded.
    pub extensions: Vec<u8>,
}

/// One wrap of a record.
#[derive(Clone)]
pub struct WrapParts {
    /// 1: under the root; 2: under a KEK; others are not known to this version.
    pub kind: u8,
    /// The alias of the KEK; empty for kind 1.
    pub alias: String,
    /// The version of the KEK; empty for kind 1.
    pub version: String,
    /// The wrapped bytes.
    pub bytes: Vec<u8>,
}

impl RecordParts<'_> {
    /// The record with its MAC. Not checked: whether it parses, and whether anyone accepts it, is what a test finds out.
    ///
    /// # Panics
    ///
    /// If a part is longer than its length prefix can say.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let wraps = self.wraps.iter().map(|wrap| match (wrap.kind, KekAlias::new(&wrap.alias)) {
            (2, Ok(alias)) => Wrap::Kek {
                alias,
                wrapped: WrappedKey { kek_version: wrap.version.clone(), bytes: wrap.bytes.clone() },
            },
            (kind, _) => Wrap::Unknown {
                kind,
                alias: wrap.alias.clone().into_bytes(),
                version: wrap.version.clone().into_bytes(),
                bytes: wrap.bytes.clone(),
            },
        });
        let mut body = Body {
            class: self.key.class,
            state: self.state,
            key_id: self.key.key_id(),
            commitment: self.key.commitment(),
            authenticator: self.root.key_id(),
            lineage: self.key.lineage,
            slot: self.key.slot,
            scope_tag: self.scope_tag.unwrap_or_default(),
            sequence: self.sequence,
            created_at: self.times[0],
            activated_at: self.times[1],
            changed_at: self.times[2],
            environment: self.environment.to_owned(),
            wraps: wraps.collect(),
            endorsement: None,
            extensions: self.extensions.clone(),
        };
        body.endorsement = self.endorser.map(|endorser| endorser.root().endorse(&body));
        self.root.root().sign(body).as_bytes().to_vec()
    }
}
