//! Sealing documents.

use super::manifest::Entries;
use super::{Beside, Bound, BoundField, DocumentKeys, check_count, write_aad};
use crate::aead::GcmKey;
use crate::audit::Use;
use crate::column::{ColumnBytes, RowError, SealedColumn};
use crate::error::{Error, ErrorKind, Result};
use crate::field::check_type;
use crate::field::sealing::SealingKeys;
use crate::keyring::{OpenKey, too_many};
use crate::policy::{DocumentPolicy, ManifestRule};
use crate::random;
use crate::value::{Padding, Value};
use crate::wire::{BODY_OVERHEAD, DOCUMENT_ID_LEN, DocumentHeader, GCM_NONCE_LEN, KeyId, MANIFEST_LEN, TAG_LEN};
use zeroize::Zeroize;

/// A value to be sealed in a document.
#[derive(Clone, Copy)]
pub struct DocumentValue<'a> {
    /// The field: one with [`FieldMode::Document`](crate::FieldMode::Document).
    pub field: &'a str,
    /// Where the value stands in the document: of JSON its normalized path (RFC 9535 §2.7), from the document's root. The value is bound
    /// to it.
    pub path: &'a str,
    /// The value.
    pub value: Value<'a>,
}

/// A document to be sealed: see [`DocumentSealer::seal`].
#[derive(Clone, Copy)]
pub struct DocumentToSeal<'a> {
    /// What it is bound to, where the policy binds documents.
    pub row: Option<&'a [u8]>,
    /// Its values.
    pub values: &'a [DocumentValue<'a>],
    /// Its values of other suites, which the manifest covers.
    pub beside: &'a [Beside<'a>],
    /// What the manifest vouches for besides.
    pub sequence: u64,
}

/// What takes the place of a document's values.
pub struct SealedDocument {
    /// The header, once per document.
    pub header: DocumentHeader,
    /// The body of each value, in the order in which they were given: 29 bytes more than the value, and padding.
    pub bodies: SealedColumn,
    /// The manifest, unless the policy wants none.
    pub manifest: Option<[u8; MANIFEST_LEN]>,
}

impl core::fmt::Debug for SealedDocument {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SealedDocument")
            .field("header", &self.header)
            .field("bodies", &self.bodies.len())
            .finish_non_exhaustive()
    }
}

/// Seals documents of one kind under one scope and context. Cannot open; shared freely between threads.
pub struct DocumentSealer {
    pub(super) bound: Bound,
    pub(super) keys: SealingKeys,
}

impl DocumentSealer {
    /// The policy of the documents.
    #[must_use]
    pub fn policy(&self) -> &DocumentPolicy {
        &self.bound.policy
    }

    /// The key that sealed last, or would now; [`ready`](Self::ready) may bring another.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.keys.key_id()
    }

    /// Makes sure that the handle seals under the current key: see [`Encryptor::ready`](crate::Encryptor::ready).
    ///
    /// # Errors
    ///
    /// As for [`Encryptor::ready`](crate::Encryptor::ready).
    pub async fn ready(&self) -> Result<&Self> {
        self.keys.ready(&self.bound.ring).await.map_err(|error| self.bound.uses.failed(error))?;
        Ok(self)
    }

    /// Whether [`ready`](Self::ready) has nothing to do.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.keys.is_ready(&self.bound.ring)
    }

    /// Seals the values of one document, under keys of its own and bound to `row` where the policy binds documents.
    ///
    /// The manifest, where the policy has it written, covers `values`, `beside` and `sequence`, which the caller may count up with each
    /// state of the document; nothing else depends on it.
    ///
    /// # Errors
    ///
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): a field that is none of documents.
    /// - [`InvalidInput`](ErrorKind::InvalidInput): two values at one path, a value of the wrong type or without canonical encoding, row
    ///   binding missing or not wanted.
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): more than 2²⁰ values, a value, path or row binding that is too long, or a key that
    ///   has sealed as many values as the rotation policy allows.
    /// - [`RandomnessUnavailable`](ErrorKind::RandomnessUnavailable), [`DeadlineExceeded`](ErrorKind::DeadlineExceeded): as for
    ///   [`Encryptor::encrypt`](crate::Encryptor::encrypt).
    ///
    /// Nothing is returned after an error.
    pub fn seal(
        &self,
        row: Option<&[u8]>,
        values: &[DocumentValue<'_>],
        beside: &[Beside<'_>],
        sequence: u64,
    ) -> Result<SealedDocument> {
        let document = DocumentToSeal { row, values, beside, sequence };
        let mut sealed = self.seal_all(&[document])?;
        sealed.pop().ok_or_else(|| ErrorKind::Internal.into())
    }

    /// As [`seal`](Self::seal), of many documents, in their order: what is random in all of them takes one request to the operating
    /// system.
    ///
    /// # Errors
    ///
    /// As for [`seal`](Self::seal), with the number of the document as the row. Nothing is returned for the others.
    pub fn seal_all(&self, documents: &[DocumentToSeal<'_>]) -> Result<Vec<SealedDocument>, RowError> {
        self.try_seal_all(documents).inspect_err(|failure| self.bound.uses.count_failure(failure.error.kind()))
    }

    /// As [`ready`](Self::ready) and [`seal_all`](Self::seal_all), under as many keys as it takes: where the documents have more values
    /// than the rotation policy lets a key seal, the next one seals the rest. A document has one key.
    ///
    /// # Errors
    ///
    /// As for both. [`LimitExceeded`](ErrorKind::LimitExceeded): the next key does not seal yet, or a document has more values than any key
    /// may seal. What was sealed until then counts, and is not returned.
    pub async fn seal_parts(&self, documents: &[DocumentToSeal<'_>]) -> Result<Vec<SealedDocument>, RowError> {
        let sealed = self.try_seal_parts(documents).await;
        sealed.inspect_err(|failure| self.bound.uses.count_failure(failure.error.kind()))
    }

    fn try_seal_all(&self, documents: &[DocumentToSeal<'_>]) -> Result<Vec<SealedDocument>, RowError> {
        let layouts = self.lay_out_all(documents)?;
        let key = self.keys.usable(&self.bound.ring, documents.iter().map(|document| document.values.len()).sum())?;
        let mut sealed = Vec::with_capacity(documents.len());
        self.seal_under(&key, documents, layouts, &mut sealed)?;
        Ok(sealed)
    }

    async fn try_seal_parts(&self, documents: &[DocumentToSeal<'_>]) -> Result<Vec<SealedDocument>, RowError> {
        let mut layouts = self.lay_out_all(documents)?;
        let limit = self.bound.ring.data_messages().unwrap_or(u64::MAX);
        if let Some(row) = documents.iter().position(|document| document.values.len() as u64 > limit) {
            return Err(RowError::at(row)(too_many(documents[row].values.len() as u64, limit)));
        }
        let mut sealed = Vec::with_capacity(documents.len());
        while sealed.len() < documents.len() {
            let rest = &documents[sealed.len()..];
            // At least the first: as many as the key may still seal.
            let count = |key: &OpenKey| {
                key.count(rest[0].values.len() as u64)?;
                let more = rest[1..].iter().take_while(|document| key.count(document.values.len() as u64).is_ok());
                Ok(1 + more.count())
            };
            let (key, n) = self.keys.take(&self.bound.ring, count).await?;
            let behind = layouts.split_off(n);
            self.seal_under(&key, &rest[..n], layouts, &mut sealed)?;
            layouts = behind;
        }
        Ok(sealed)
    }

    /// Seals documents under a key that has counted their values, behind those that are sealed.
    fn seal_under(
        &self,
        key: &OpenKey,
        documents: &[DocumentToSeal<'_>],
        layouts: Vec<Layout<'_>>,
        sealed: &mut Vec<SealedDocument>,
    ) -> Result<(), RowError> {
        let values = documents.iter().map(|document| document.values.len()).sum::<usize>();
        // F-18.1-3.
        // All values are in memory and checked, so a snapshot taken from here on can only repeat identical bytes (DESIGN F4).
        let mut drawn = vec![0; documents.len() * DOCUMENT_ID_LEN + values * GCM_NONCE_LEN];
        random::fill(&mut drawn)?;
        let mut rest = &drawn[..];
        for (document, layout) in documents.iter().zip(layouts) {
            let (drawn, behind) = rest.split_at(DOCUMENT_ID_LEN + document.values.len() * GCM_NONCE_LEN);
            rest = behind;
            let row = sealed.len();
            sealed.push(self.seal_one(key, document, layout, drawn).map_err(RowError::at(row))?);
        }
        Ok(())
    }

    fn lay_out_all(&self, documents: &[DocumentToSeal<'_>]) -> Result<Vec<Layout<'_>>, RowError> {
        let layout =
            |(row, document): (usize, &DocumentToSeal<'_>)| self.lay_out(document.values).map_err(RowError::at(row));
        documents.iter().enumerate().map(layout).collect()
    }

    /// Checks the values of a document.
    fn lay_out(&self, values: &[DocumentValue<'_>]) -> Result<Layout<'_>> {
        check_count(values.len())?;
        let mut fields = Vec::with_capacity(values.len());
        let mut offsets = Vec::with_capacity(values.len() + 1);
        let mut len = 0;
        offsets.push(0);
        for value in values {
            let field = self.bound.field(value.field)?;
            check_type(&field.policy, &value.value)?;
            value.value.check()?;
            len += BODY_OVERHEAD - 1 + value.value.encoded_len(field.policy.padding);
            offsets.push(len as i64);
            fields.push(field);
        }
        Ok(Layout { fields, offsets, len })
    }

    /// Seals a document under the ID and the nonces that were drawn for it.
    fn seal_one(
        &self,
        key: &OpenKey,
        document: &DocumentToSeal<'_>,
        Layout { fields, offsets, len }: Layout<'_>,
        drawn: &[u8],
    ) -> Result<SealedDocument> {
        let DocumentToSeal { row, values, beside, sequence } = *document;
        let (id, nonces) = drawn.split_first_chunk::<DOCUMENT_ID_LEN>().ok_or(ErrorKind::Internal)?;
        let header = DocumentHeader::new(&key.key_id, id);
        let has_manifest = self.bound.policy.manifest != ManifestRule::None;
        let keys = self.bound.keys(key, &header, has_manifest, row)?;
        let mut data = vec![0; len];
        let padding = |i: usize| fields[i].policy.padding;
        seal_bodies(&keys, values, padding, nonces.as_chunks().0, &offsets, &mut data)?;
        let bodies = SealedColumn::of_parts(data, offsets);
        let of_values = values.iter().enumerate().map(|(i, value)| (value.path, bodies.bytes(i)));
        let entries = Entries::new(of_values, beside)?
            .ok_or(Error::new(ErrorKind::InvalidInput, "two values of a document are at the same path"))?;
        let manifest = has_manifest.then(|| entries.manifest(&keys, sequence)).transpose()?;
        fields.iter().for_each(|field| field.uses.count(key.key_id, Use::Sealed, 1));
        Ok(SealedDocument { header, bodies, manifest })
    }
}

/// The fields of a document's values, and where their bodies will be.
struct Layout<'a> {
    fields: Vec<&'a BoundField>,
    offsets: Vec<i64>,
    len: usize,
}

/// Seals each value into its part of `data`; erases all of them after a failure.
pub(crate) fn seal_bodies(
    keys: &DocumentKeys,
    values: &[DocumentValue<'_>],
    padding: impl Fn(usize) -> Padding,
    nonces: &[[u8; GCM_NONCE_LEN]],
    offsets: &[i64],
    data: &mut [u8],
) -> Result<()> {
    let mut aad = Vec::with_capacity(256);
    let mut seal_all = |gcm: &GcmKey, data: &mut [u8]| {
        for (i, (value, nonce)) in values.iter().zip(nonces).enumerate() {
            write_aad(&mut aad, value.field, value.path)?;
            let out = &mut data[offsets[i] as usize..offsets[i + 1] as usize];
            let (body, tag) = out[GCM_NONCE_LEN..].split_last_chunk_mut::<TAG_LEN>().ok_or(ErrorKind::Internal)?;
            value.value.encode(padding(i), body);
            let mut nonce = *nonce;
            *tag = gcm.seal(&mut nonce, &aad, body)?;
            out[..GCM_NONCE_LEN].copy_from_slice(&nonce);
        }
        Ok(())
    };
    keys.gcm.with(|gcm| seal_all(gcm, data)).inspect_err(|_| data.zeroize())
}

impl core::fmt::Debug for DocumentSealer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("DocumentSealer")
            .field("document", &self.bound.policy.name)
            .field("key_id", &self.key_id())
            .finish_non_exhaustive()
    }
}
