//! Documents: many values sealed together under one header (FORMAT.md §18, DESIGN F18).
//!
//! Where values are, and how they are spelled, is the caller's: he gives and gets fields, paths and values.

mod manifest;
mod open;
mod seal;

pub use open::{DocumentBody, DocumentOpener, OpenedDocument};
pub use seal::{DocumentSealer, DocumentToSeal, DocumentValue, SealedDocument};
#[cfg(feature = "hazmat")]
pub(crate) use {manifest::Entries, seal::seal_bodies};

use crate::aead::{Backend, HeldGcmKey};
use crate::context::{BoundContext, Context, NameKind, put_name};
use crate::error::{Error, ErrorKind, Result};
use crate::field::sealing::SealingKeys;
use crate::field::used::Uses;
use crate::keyring::{Keyring, Material, OpenKey};
use crate::keys::{Expander, Secret, erasing_hmac};
use crate::policy::{DocumentPolicy, FieldMode, FieldPolicy, Policy, RowBinding};
use crate::wire::{DocumentHeader, MAX_BODIES, MAX_PATH_LEN};
use std::collections::HashMap;
use std::sync::Arc;

/// Starts the AAD of a body.
const LABEL: &[u8] = b"keyfold/document/v1";
const KEY_LABEL: &[u8] = b"keyfold/document/v1/key";
const MAC_LABEL: &[u8] = b"keyfold/document/v1/manifest";

/// Documents about to be bound. Made by [`Keyring::documents`].
#[derive(Clone)]
pub struct Documents {
    ring: Keyring,
    policy: Arc<DocumentPolicy>,
    fields: Vec<Arc<FieldPolicy>>,
    scope: Option<String>,
    context: Context,
}

/// A value of another suite in a document, which its manifest covers: a deterministic identifier, say.
#[derive(Clone, Copy)]
pub struct Beside<'a> {
    /// Where it stands: as in [`DocumentValue`].
    pub path: &'a str,
    /// What stands there, sealed: of JSON, the decoded string.
    pub sealed: &'a [u8],
}

impl Documents {
    pub(crate) fn new(ring: Keyring, document: Arc<DocumentPolicy>, policy: &Policy) -> Self {
        let fields = policy.fields().filter(|field| field.mode == FieldMode::Document).cloned().collect();
        Self { ring, policy: document, fields, scope: None, context: Context::new() }
    }

    /// The policy of the documents.
    #[must_use]
    pub fn policy(&self) -> &DocumentPolicy {
        &self.policy
    }

    /// Uses the keys of this scope: a tenant, a clinic, a device.
    #[must_use]
    pub fn scope(mut self, name: &str) -> Self {
        self.scope = Some(name.to_owned());
        self
    }

    /// Binds documents to this context. A version in it makes an older state of the whole document fail, which nothing else does.
    #[must_use]
    pub fn context(mut self, context: Context) -> Self {
        self.context = context;
        self
    }

    /// A handle that seals documents. Makes the scope if the keyring has none of that name.
    ///
    /// # Errors
    ///
    /// As for [`Field::encryptor`](crate::Field::encryptor). Context keys that any field of documents requires are required here.
    pub async fn sealer(self) -> Result<DocumentSealer> {
        let uses = Uses::new(&self.ring, &self.policy.name);
        let made = async {
            let bound = self.bind()?;
            let current = self.ring.current(self.ring.data_slot_or_new(self.scope.as_deref()).await?, None);
            let keys = SealingKeys::new(&self.ring, current).await?;
            Ok(DocumentSealer { bound, keys })
        };
        made.await.map_err(|error| uses.failed(error))
    }

    /// A handle that opens documents. Never makes a scope.
    ///
    /// # Errors
    ///
    /// As for [`sealer`](Self::sealer), and [`NoMatchingKey`](ErrorKind::NoMatchingKey): there is no such scope.
    pub async fn opener(self) -> Result<DocumentOpener> {
        let uses = Uses::new(&self.ring, &self.policy.name);
        let made = async {
            let bound = self.bind()?;
            let slot = self.ring.data_slot(self.scope.as_deref()).await?;
            let current = self.ring.current(slot, None);
            self.ring.look_at_newest(&current).await;
            Ok(DocumentOpener::new(bound, slot, current))
        };
        made.await.map_err(|error| uses.failed(error))
    }

    fn bind(&self) -> Result<Bound> {
        let of_fields = self.fields.iter().flat_map(|field| &field.required_context);
        for required in self.policy.required_context.iter().chain(of_fields) {
            // F-18.7-1.
            if !self.context.keys().any(|key| key == required) {
                return Err(Error::new(ErrorKind::PolicyRefused, "the policy requires a context key that is missing")
                    .with_detail(format!("document {}, key {required}", self.policy.name)));
            }
        }
        let bound_field = |policy: &Arc<FieldPolicy>| {
            let uses = Uses::new(&self.ring, &policy.name);
            (policy.name.clone(), BoundField { policy: policy.clone(), uses })
        };
        Ok(Bound {
            ring: self.ring.clone(),
            policy: self.policy.clone(),
            context: BoundContext::new(&self.context, self.policy.row_binding != RowBinding::None)?,
            fields: self.fields.iter().map(bound_field).collect(),
            uses: Uses::new(&self.ring, &self.policy.name),
        })
    }
}

impl core::fmt::Debug for Documents {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Documents").field("name", &self.policy.name).finish_non_exhaustive()
    }
}

/// What both handles have.
struct Bound {
    ring: Keyring,
    policy: Arc<DocumentPolicy>,
    context: BoundContext,
    fields: HashMap<String, BoundField>,
    /// Failures of whole documents.
    uses: Uses,
}

struct BoundField {
    policy: Arc<FieldPolicy>,
    uses: Uses,
}

impl Bound {
    fn field(&self, name: &str) -> Result<&BoundField> {
        self.fields.get(name).ok_or_else(|| {
            Error::new(ErrorKind::PolicyRefused, "the policy has no such field of documents").with_detail(name)
        })
    }

    /// The keys of the document with this header, bound to `row`, and to whether it has a manifest.
    fn keys(
        &self,
        key: &OpenKey,
        header: &DocumentHeader,
        has_manifest: bool,
        row: Option<&[u8]>,
    ) -> Result<DocumentKeys> {
        let Material::Data { document: purpose, .. } = &key.material else { return Err(crate::field::WRONG_CLASS) };
        let keys = self
            .context
            .of_row(row, |context| DocumentKeys::new(derive_keys(purpose, header, has_manifest, context)))?;
        // When they are there: then it is known whether there was room.
        self.ring.check_memory()?;
        Ok(keys)
    }
}

/// The two keys of one document.
pub(crate) struct DocumentKeys {
    gcm: HeldGcmKey,
    mac: Secret<32>,
}

impl DocumentKeys {
    pub(crate) fn new([key, mac]: [Secret<32>; 2]) -> Self {
        Self { gcm: HeldGcmKey::with_random_nonces(Backend::default(), key.expose()), mac }
    }

    /// As [`new`](Self::new), for nonces that the caller chooses.
    #[cfg(feature = "hazmat")]
    pub(crate) fn for_any_nonce([key, mac]: [Secret<32>; 2]) -> Self {
        Self { gcm: HeldGcmKey::new(Backend::default(), key.expose()), mac }
    }
}

/// The key of a document's bodies and that of its manifest, from the purpose key of suite 05 and the parts of its context. A document
/// with a manifest has other keys than one without, so that nobody takes the manifest out, whatever the policy says of the kind that the
/// document claims to be.
// F-18.3-1.
pub(crate) fn derive_keys(
    purpose: &Secret<32>,
    header: &DocumentHeader,
    has_manifest: bool,
    [a, b, c, d]: [&[u8]; 4],
) -> [Secret<32>; 2] {
    erasing_hmac(|| {
        let (purpose, has_manifest) = (Expander::new(purpose), [u8::from(has_manifest)]);
        [KEY_LABEL, MAC_LABEL]
            .map(|label| purpose.expand(&[&[label.len() as u8], label, header.as_bytes(), &has_manifest, a, b, c, d]))
    })
}

/// Writes the AAD of a body: label, name of the field, path. `out` is used again for every value.
// F-18.4-3.
pub(crate) fn write_aad(out: &mut Vec<u8>, field: &str, path: &str) -> Result<()> {
    out.clear();
    out.push(LABEL.len() as u8);
    out.extend_from_slice(LABEL);
    put_name(out, NameKind::Field, field)?;
    out.extend_from_slice(&path_len(path)?);
    out.extend_from_slice(path.as_bytes());
    Ok(())
}

// F-18.4-1.
fn path_len(path: &str) -> Result<[u8; 2]> {
    debug_assert!(MAX_PATH_LEN == usize::from(u16::MAX));
    u16::try_from(path.len()).map(u16::to_be_bytes).map_err(|_| {
        Error::new(ErrorKind::LimitExceeded, "the path of a value in its document has at most 65,535 bytes")
    })
}

// F-18.1-2.
fn check_count(values: usize) -> Result<()> {
    if values <= MAX_BODIES {
        return Ok(());
    }
    Err(Error::new(ErrorKind::LimitExceeded, "a document has at most 2²⁰ (1,048,576) values"))
}
