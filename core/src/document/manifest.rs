//! The manifest: which protected values a document has, and where (FORMAT.md §18.5).

use super::{Beside, DocumentKeys, check_count, path_len};
use crate::error::Result;
use crate::keys::erasing_hmac;
use crate::prf::HmacSha256;
use crate::wire::{MANIFEST_LEN, TAG_LEN};
use subtle::ConstantTimeEq;

const LABEL: &[u8] = b"keyfold/document/v1/manifest";

/// A protected value as the manifest has it.
#[derive(Clone, Copy)]
pub(crate) enum Entry<'a> {
    /// A value of suite 05, by its tag.
    Body { path: &'a str, tag: &'a [u8; TAG_LEN] },
    /// A value of another suite, by what stands there.
    Beside { path: &'a str, sealed: &'a [u8] },
}

impl Entry<'_> {
    fn path(&self) -> &str {
        match self {
            Self::Body { path, .. } | Self::Beside { path, .. } => path,
        }
    }
}

/// All protected values of a document, in the order of their paths.
pub(crate) struct Entries<'a>(Vec<Entry<'a>>);

impl<'a> Entries<'a> {
    /// The values of a document; `None` if two are at the same path.
    // F-18.4-2, F-18.5-1.
    pub(crate) fn new(
        bodies: impl Iterator<Item = (&'a str, &'a [u8])>,
        beside: &'a [Beside<'a>],
    ) -> Result<Option<Self>> {
        let tag = |body: &'a [u8]| body.last_chunk().expect("the body of a value has a tag, which was checked");
        let mut entries: Vec<Entry<'a>> = bodies.map(|(path, body)| Entry::Body { path, tag: tag(body) }).collect();
        entries.extend(beside.iter().map(|other| Entry::Beside { path: other.path, sealed: other.sealed }));
        check_count(entries.len())?;
        entries.sort_unstable_by(|a, b| a.path().cmp(b.path()));
        let is_twice = entries.windows(2).any(|pair| pair[0].path() == pair[1].path());
        Ok((!is_twice).then_some(Self(entries)))
    }

    /// sequence (8) ‖ HMAC-SHA-256(MAC key, label ‖ sequence ‖ count (4) ‖ entries)
    pub(crate) fn manifest(&self, keys: &DocumentKeys, sequence: u64) -> Result<[u8; MANIFEST_LEN]> {
        erasing_hmac(|| self.mac(keys, sequence))
    }

    fn mac(&self, keys: &DocumentKeys, sequence: u64) -> Result<[u8; MANIFEST_LEN]> {
        let mut mac = HmacSha256::new(keys.mac.expose());
        mac.update(&[LABEL.len() as u8]);
        mac.update(LABEL);
        mac.update(&sequence.to_be_bytes());
        mac.update(&(self.0.len() as u32).to_be_bytes());
        for entry in &self.0 {
            let kind = if matches!(entry, Entry::Body { .. }) { 1 } else { 2 };
            mac.update(&[kind]);
            mac.update(&path_len(entry.path())?);
            mac.update(entry.path().as_bytes());
            match entry {
                Entry::Body { tag, .. } => mac.update(*tag),
                Entry::Beside { sealed, .. } => {
                    mac.update(&(sealed.len() as u64).to_be_bytes());
                    mac.update(sealed);
                }
            }
        }
        let mut manifest = [0; MANIFEST_LEN];
        let (head, tail) = manifest.split_at_mut(8);
        head.copy_from_slice(&sequence.to_be_bytes());
        tail.copy_from_slice(&mac.finalize());
        Ok(manifest)
    }

    /// The sequence that `manifest` vouches for; `None` if it is not the manifest of these values.
    // F-18.7-6.
    pub(crate) fn verify(&self, keys: &DocumentKeys, manifest: &[u8; MANIFEST_LEN]) -> Result<Option<u64>> {
        let sequence = u64::from_be_bytes(*manifest.first_chunk().expect("a manifest has 40 bytes"));
        let is_genuine = bool::from(self.manifest(keys, sequence)?.ct_eq(manifest));
        Ok(is_genuine.then_some(sequence))
    }
}
