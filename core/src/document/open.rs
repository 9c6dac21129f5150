//! Opening documents.

use super::manifest::Entries;
use super::{Beside, Bound, BoundField, check_count, write_aad};
use crate::audit::Use;
use crate::column::{OpenedColumn, Opening};
use crate::error::{Error, ErrorKind, Result};
use crate::field::opening::OpeningKeys;
use crate::keyring::CurrentKey;
use crate::policy::{DocumentPolicy, ManifestRule};
use crate::store::Slot;
use crate::wire::document::check_body;
use crate::wire::{DocumentHeader, MANIFEST_LEN};
use std::sync::Arc;

/// A sealed value of a document, and where it stands.
#[derive(Clone, Copy)]
pub struct DocumentBody<'a> {
    /// The field.
    pub field: &'a str,
    /// Where the value stands: as in [`DocumentValue`](crate::DocumentValue).
    pub path: &'a str,
    /// The body, in binary form.
    pub body: &'a [u8],
}

/// The values of a document that was opened. Erased on drop.
pub struct OpenedDocument {
    values: OpenedColumn,
    sequence: Option<u64>,
    is_current: bool,
    is_compromised: bool,
}

impl OpenedDocument {
    /// The values, in the order in which their bodies were given.
    #[must_use]
    pub fn values(&self) -> &OpenedColumn {
        &self.values
    }

    /// The sequence that the manifest vouches for; `None`: there was no manifest.
    #[must_use]
    pub const fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// Whether the key of the document is still the one that seals. If not, seal the document again when convenient.
    #[must_use]
    pub const fn is_current(&self) -> bool {
        self.is_current
    }

    /// Whether the key is compromised: whoever has it can have made the document.
    #[must_use]
    pub const fn is_compromised(&self) -> bool {
        self.is_compromised
    }
}

impl core::fmt::Debug for OpenedDocument {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("OpenedDocument").field("values", &self.values.len()).finish_non_exhaustive()
    }
}

/// Opens documents of one kind under one scope and context. Cannot seal; shared freely between threads.
pub struct DocumentOpener {
    bound: Bound,
    keys: OpeningKeys,
}

impl DocumentOpener {
    pub(super) fn new(bound: Bound, slot: Slot, current: Arc<CurrentKey>) -> Self {
        Self { bound, keys: OpeningKeys::new(slot, current) }
    }

    /// The policy of the documents.
    #[must_use]
    pub fn policy(&self) -> &DocumentPolicy {
        &self.bound.policy
    }

    /// Acquires the key of the document with this header unless the handle holds it, and has it renewed when that is due. Costs a few
    /// loads when there is nothing to do.
    ///
    /// # Errors
    ///
    /// - [`NoMatchingKey`](ErrorKind::NoMatchingKey), [`WrongScope`](ErrorKind::WrongScope),
    ///   [`RecordRejected`](ErrorKind::RecordRejected), [`KeyState`](ErrorKind::KeyState), [`Kms`](ErrorKind::Kms),
    ///   [`Store`](ErrorKind::Store), [`Closed`](ErrorKind::Closed).
    // F-18.7-4.
    pub async fn load_key(&self, header: &DocumentHeader) -> Result<()> {
        self.keys.load(&self.bound.ring, header.key_id()).await.map_err(|error| self.bound.uses.failed(error))
    }

    /// Whether `header` names the key that seals, as [`load_key`](Self::load_key) last saw it. What a header claims is not authenticated.
    #[must_use]
    pub fn is_current(&self, header: &DocumentHeader) -> bool {
        self.keys.is_current(header.key_id())
    }

    /// Opens the values of one document. Its key must be held. A manifest that is there is verified, whatever the policy says; values that
    /// were sealed with one do not open without it.
    ///
    /// `bodies` and `beside` are all protected values that the document has now; the manifest says whether these are they.
    ///
    /// # Errors
    ///
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): no manifest, which the policy requires; or a field that is none of documents.
    /// - [`Malformed`](ErrorKind::Malformed): something that cannot be a body, or two values at one path.
    /// - [`NoMatchingKey`](ErrorKind::NoMatchingKey), [`WrongScope`](ErrorKind::WrongScope),
    ///   [`DeadlineExceeded`](ErrorKind::DeadlineExceeded): as for [`Decryptor::decrypt`](crate::Decryptor::decrypt).
    /// - [`InvalidInput`](ErrorKind::InvalidInput): row binding missing or not wanted.
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): more than 2²⁰ values, or a path that is too long.
    /// - [`DecryptionFailed`](ErrorKind::DecryptionFailed): anything else: a body of another document, path or field, another row or
    ///   context, a manifest of other values, or none where values were
    ///   sealed with one.
    ///
    /// The plaintext of all values has been erased after an error.
    pub fn open(
        &self,
        header: &DocumentHeader,
        row: Option<&[u8]>,
        bodies: &[DocumentBody<'_>],
        beside: &[Beside<'_>],
        manifest: Option<&[u8; MANIFEST_LEN]>,
    ) -> Result<OpenedDocument> {
        let opened = self.try_open(header, row, bodies, beside, manifest);
        opened.map_err(|error| self.bound.uses.failed(error))
    }

    fn try_open(
        &self,
        header: &DocumentHeader,
        row: Option<&[u8]>,
        bodies: &[DocumentBody<'_>],
        beside: &[Beside<'_>],
        manifest: Option<&[u8; MANIFEST_LEN]>,
    ) -> Result<OpenedDocument> {
        self.bound.ring.check_open()?;
        // F-18.7-2.
        check_count(bodies.len())?;
        let fields: Vec<&BoundField> = bodies.iter().map(|body| self.bound.field(body.field)).collect::<Result<_>>()?;
        bodies.iter().try_for_each(|body| check_body(body.body))?;
        let entries = Entries::new(bodies.iter().map(|body| (body.path, body.body)), beside)?;
        let entries = entries.ok_or(ErrorKind::Malformed)?;
        // F-18.5-3, F-18.7-3.
        if manifest.is_none() && self.bound.policy.manifest == ManifestRule::Required {
            return Err(Error::new(
                ErrorKind::PolicyRefused,
                "the document has no manifest, which the policy requires",
            )
            .with_detail(&self.bound.policy.name));
        }
        let key = self.keys.usable(&self.bound.ring, header.key_id())?;
        let keys = self.bound.keys(&key, header, manifest.is_some(), row)?;
        let sequence = match manifest {
            None => None,
            Some(manifest) => Some(entries.verify(&keys, manifest)?.ok_or(ErrorKind::DecryptionFailed)?),
        };
        let sealed: Vec<&[u8]> = bodies.iter().map(|body| body.body).collect();
        let mut opening = Opening::new(&sealed[..]);
        let mut aad = Vec::with_capacity(256);
        keys.gcm.with(|gcm| {
            bodies.iter().try_for_each(|body| {
                write_aad(&mut aad, body.field, body.path)?;
                // F-18.7-7.
                opening.body(gcm, body.body, &aad)
            })
        })?;
        fields.iter().for_each(|field| field.uses.count(header.key_id(), Use::Opened, 1));
        Ok(OpenedDocument {
            values: opening.finish(),
            sequence,
            is_current: self.is_current(header),
            is_compromised: key.is_compromised(),
        })
    }
}

impl core::fmt::Debug for DocumentOpener {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("DocumentOpener").field("document", &self.bound.policy.name).finish_non_exhaustive()
    }
}
