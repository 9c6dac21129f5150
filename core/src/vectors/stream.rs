//! Streams under given keys and salts (FORMAT.md §19), and Cobblestone under a given context.

use super::Key;
use crate::context::{BoundContext, Context};
use crate::error::Result;
use crate::keys::{Purpose, Secret};
use crate::stream::{Chunks, binding, derive};
use crate::wire::stream::CUT;
use crate::wire::{CHUNK_LEN, GCM_NONCE_LEN, STREAM_SALT_LEN, StreamHeader, TAG_LEN};

/// A message of Cobblestone-256 (c2sp.org/chunked-encryption) whose keys are known.
pub struct Cobblestone {
    /// The AES-256-GCM key of its chunks.
    pub key: [u8; 32],
    /// The nonce of chunk 0.
    pub base_nonce: [u8; GCM_NONCE_LEN],
    /// What commits to both.
    pub commitment: [u8; 32],
    chunks: Chunks,
}

impl Cobblestone {
    /// The message with this salt under an input key and a context.
    #[must_use]
    pub fn new(key: &[u8; 32], salt: &[u8; STREAM_SALT_LEN], context: &[u8]) -> Self {
        let derived = derive(&Secret::with(|k| *k = *key), salt, context);
        let (chunks, commitment) = Chunks::new(&derived);
        let (key, rest) = derived.expose().split_first_chunk().expect("76 bytes hold 32");
        let base_nonce = *rest.first_chunk().expect("44 bytes hold 12");
        Self { key: *key, base_nonce, commitment, chunks }
    }

    /// The chunks of `plaintext`, one after the other.
    ///
    /// # Errors
    ///
    /// Never for what fits into memory.
    pub fn seal(&self, plaintext: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let (full, last) = plaintext.as_chunks::<CHUNK_LEN>();
        for chunk in full.iter().map(|chunk| &chunk[..]).chain([last]) {
            out.extend_from_slice(chunk);
            out.extend_from_slice(&[0; TAG_LEN]);
        }
        self.chunks.seal(0, &mut out)?;
        Ok(out)
    }

    /// The plaintext of one chunk.
    ///
    /// # Errors
    ///
    /// - [`Malformed`](crate::ErrorKind::Malformed): shorter than a tag.
    /// - [`DecryptionFailed`](crate::ErrorKind::DecryptionFailed), [`LimitExceeded`](crate::ErrorKind::LimitExceeded).
    pub fn open(&self, number: u64, chunk: &[u8]) -> Result<Vec<u8>> {
        let mut opened = chunk.to_vec();
        self.chunks.open(number, &mut opened)?;
        opened.truncate(chunk.len().checked_sub(TAG_LEN).ok_or(CUT)?);
        Ok(opened)
    }
}

/// A stream whose keys are known.
pub struct Stream {
    /// Its header.
    pub header: StreamHeader,
    /// What Cobblestone takes for its context.
    pub binding: Vec<u8>,
    /// Its keys.
    pub message: Cobblestone,
}

impl Stream {
    /// The stream with this salt under `key`.
    ///
    /// # Errors
    ///
    /// - [`LimitExceeded`](crate::ErrorKind::LimitExceeded), [`InvalidInput`](crate::ErrorKind::InvalidInput): a name, context or row binding
    ///   that no stream has.
    pub fn new(
        key: &Key,
        salt: &[u8; STREAM_SALT_LEN],
        field: &str,
        context: &Context,
        row: Option<&[u8]>,
    ) -> Result<Self> {
        let mut parts = None;
        let header = StreamHeader::new(&key.key_id(), salt, |head| {
            let binding = BoundContext::new(context, row.is_some())?.of_row(row, |c| binding(head, field, c))??;
            let message = Cobblestone::new(&key.purpose(Purpose::Stream), salt, &binding);
            let commitment = message.commitment;
            parts = Some((binding, message));
            Ok(commitment)
        })?;
        let (binding, message) = parts.ok_or(crate::ErrorKind::Internal)?;
        Ok(Self { header, binding, message })
    }
}
