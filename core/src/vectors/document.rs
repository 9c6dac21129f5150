//! Documents under given keys, document IDs and nonces (FORMAT.md §18).

use super::Key;
use crate::context::{BoundContext, Context};
use crate::document::{Beside, DocumentKeys, DocumentValue, Entries, derive_keys, seal_bodies, write_aad};
use crate::error::{Error, ErrorKind, Result};
use crate::keys::{Purpose, Secret};
use crate::value::Padding;
use crate::wire::{BODY_OVERHEAD, DOCUMENT_ID_LEN, DocumentHeader, GCM_NONCE_LEN, MANIFEST_LEN};

/// A document whose keys are known.
pub struct Document {
    /// Its header.
    pub header: DocumentHeader,
    /// The AES-256-GCM key of its bodies.
    pub key: [u8; 32],
    /// The HMAC-SHA-256 key of its manifest.
    pub mac_key: [u8; 32],
}

impl Document {
    /// The document with this random ID under `key`, with or without a manifest.
    ///
    /// # Errors
    ///
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded), [`InvalidInput`](ErrorKind::InvalidInput): a context or row binding that no document
    ///   has.
    pub fn new(
        key: &Key,
        document_id: &[u8; DOCUMENT_ID_LEN],
        has_manifest: bool,
        context: &Context,
        row: Option<&[u8]>,
    ) -> Result<Self> {
        let header = DocumentHeader::new(&key.key_id(), document_id);
        let purpose = key.schedule().expand(Purpose::Document);
        let keys = BoundContext::new(context, row.is_some())?
            .of_row(row, |context| derive_keys(&purpose, &header, has_manifest, context))?;
        let [key, mac_key] = keys.map(|key| *key.expose());
        Ok(Self { header, key, mac_key })
    }

    fn keys(&self) -> DocumentKeys {
        DocumentKeys::for_any_nonce([self.key, self.mac_key].map(|key| Secret::with(|bytes| *bytes = key)))
    }

    /// The body of one value.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput), [`LimitExceeded`](ErrorKind::LimitExceeded): a value that has no encoding, or is too
    ///   long.
    pub fn body(&self, value: DocumentValue<'_>, padding: Padding, nonce: &[u8; GCM_NONCE_LEN]) -> Result<Vec<u8>> {
        value.value.check()?;
        let mut body = vec![0; BODY_OVERHEAD - 1 + value.value.encoded_len(padding)];
        let offsets = [0, body.len() as i64];
        seal_bodies(&self.keys(), &[value], |_| padding, &[*nonce], &offsets, &mut body)?;
        Ok(body)
    }

    /// The manifest of all protected values: paths and bodies of suite 05, and what else the document has.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): two values at one path.
    pub fn manifest(
        &self,
        bodies: &[(&str, &[u8])],
        beside: &[Beside<'_>],
        sequence: u64,
    ) -> Result<[u8; MANIFEST_LEN]> {
        let entries = Entries::new(bodies.iter().copied(), beside)?;
        entries.ok_or(Error::from(ErrorKind::InvalidInput))?.manifest(&self.keys(), sequence)
    }
}

/// The AAD of a body.
///
/// # Errors
///
/// - [`LimitExceeded`](ErrorKind::LimitExceeded): name or path is too long.
pub fn body_aad(field: &str, path: &str) -> Result<Vec<u8>> {
    let mut aad = Vec::new();
    write_aad(&mut aad, field, path)?;
    Ok(aad)
}
