//! Cobblestone-256 (c2sp.org/chunked-encryption): the keys of one stream, and its chunks.

use crate::aead::{Backend, GcmKey, HeldGcmKey, OpenFailed};
use crate::context::{NameKind, put_name};
use crate::error::{Error, ErrorKind, Result};
use crate::keys::{Secret, expand_sha512};
use crate::wire::stream::{STREAM_COMMITMENT_LEN, STREAM_FORMAT, TOO_LONG};
use crate::wire::{CHUNK_LEN, GCM_NONCE_LEN, HEADER_LEN, MAX_CHUNKS, SEALED_CHUNK_LEN, STREAM_SALT_LEN, TAG_LEN};
use zeroize::Zeroize;

/// Starts the `info` of every Cobblestone with AES-256-GCM.
const INFO: &[u8] = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0";
/// Starts the part of the binding that follows the header.
const LABEL: &[u8] = b"keyfold/stream/v1";

/// header (26) ‖ label length (1) ‖ label ‖ name ‖ format byte ‖ context: what Cobblestone calls the context.
pub(crate) fn binding(head: &[u8; HEADER_LEN], field: &str, context: [&[u8]; 4]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(head);
    out.push(LABEL.len() as u8);
    out.extend_from_slice(LABEL);
    put_name(&mut out, NameKind::Field, field)?;
    out.push(STREAM_FORMAT);
    context.iter().for_each(|part| out.extend_from_slice(part));
    Ok(out)
}

/// Bytes of key, base nonce and commitment.
pub(crate) const DERIVED_LEN: usize = 32 + GCM_NONCE_LEN + STREAM_COMMITMENT_LEN;

/// key (32) ‖ base nonce (12) ‖ commitment (32) = HKDF-Expand(key, INFO ‖ salt ‖ binding), with SHA-512
pub(crate) fn derive(key: &Secret<32>, salt: &[u8; STREAM_SALT_LEN], binding: &[u8]) -> Secret<DERIVED_LEN> {
    expand_sha512(key, &[INFO, salt, binding])
}

/// Seals and opens the chunks of one stream, each by its number, on any thread.
pub(crate) struct Chunks {
    gcm: HeldGcmKey,
    base_nonce: [u8; GCM_NONCE_LEN],
}

impl Chunks {
    /// The chunks under what [`derive`] gave, and the commitment to it.
    pub(crate) fn new(derived: &Secret<DERIVED_LEN>) -> (Self, [u8; STREAM_COMMITMENT_LEN]) {
        let (key, rest) = derived.expose().split_first_chunk().expect("76 bytes hold 32");
        let (base_nonce, commitment) = rest.split_first_chunk().expect("44 bytes hold 12");
        let commitment = commitment.try_into().expect("76 bytes are 32, 12 and 32");
        (Self { gcm: HeldGcmKey::new(Backend::default(), key), base_nonce: *base_nonce }, commitment)
    }

    /// base nonce XOR number
    fn nonce(&self, number: u64) -> Result<[u8; GCM_NONCE_LEN]> {
        if number >= MAX_CHUNKS {
            return Err(TOO_LONG);
        }
        let mut nonce = self.base_nonce;
        for (byte, other) in nonce[GCM_NONCE_LEN - 8..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= other;
        }
        Ok(nonce)
    }

    /// Seals chunk `number` where it is: `chunk` is its plaintext and 16 bytes of room behind.
    #[inline]
    fn seal_one(&self, gcm: &GcmKey, number: u64, chunk: &mut [u8]) -> Result<()> {
        let (body, tag) = chunk.split_last_chunk_mut::<TAG_LEN>().ok_or(NO_ROOM)?;
        *tag = gcm.seal(&mut self.nonce(number)?, &[], body)?;
        Ok(())
    }

    /// Seals the chunks from `first` on, which follow each other in `buffer`. After an error all of it has been erased.
    pub(crate) fn seal(&self, first: u64, buffer: &mut [u8]) -> Result<()> {
        let mut chunks = buffer.chunks_mut(SEALED_CHUNK_LEN).zip(first..);
        let sealed = self.gcm.with(|gcm| chunks.try_for_each(|(chunk, number)| self.seal_one(gcm, number, chunk)));
        sealed.inspect_err(|_| buffer.zeroize())
    }

    /// Opens the chunks from `first` on, which follow each other in `buffer`: the plaintext of each takes the first place of its own. After
    /// an error all of it has been erased.
    pub(crate) fn open(&self, first: u64, buffer: &mut [u8]) -> Result<()> {
        let mut chunks = buffer.chunks_mut(SEALED_CHUNK_LEN).zip(first..);
        let opened = self.gcm.with(|gcm| {
            chunks.try_for_each(|(chunk, number)| {
                gcm.open(self.nonce(number)?, &[], chunk).map_err(|OpenFailed| ErrorKind::DecryptionFailed)?;
                Ok(())
            })
        });
        opened.inspect_err(|_| buffer.zeroize())
    }
}

const NO_ROOM: Error = Error::new(ErrorKind::InvalidInput, "a chunk has 16 bytes of room behind its plaintext");

/// Refuses a buffer that is no row of whole chunks with their tags.
pub(super) fn check_whole(buffer: &[u8]) -> Result<u64> {
    if buffer.len().is_multiple_of(SEALED_CHUNK_LEN) {
        return Ok((buffer.len() / SEALED_CHUNK_LEN) as u64);
    }
    Err(Error::new(ErrorKind::InvalidInput, "a buffer of chunks has a multiple of 16,400 bytes"))
}

/// Refuses what cannot be the last chunk with its tag.
pub(super) fn check_last(chunk: &[u8]) -> Result<()> {
    if (TAG_LEN..SEALED_CHUNK_LEN).contains(&chunk.len()) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidInput, "the last chunk with its tag has 16 to 16,399 bytes"))
}

/// The plaintext parts of opened chunks that follow each other in `buffer`.
pub(super) fn opened_parts(buffer: &[u8]) -> impl Iterator<Item = &[u8]> {
    buffer.chunks(SEALED_CHUNK_LEN).map(|chunk| &chunk[..chunk.len() - TAG_LEN])
}

const _: () = assert!(CHUNK_LEN + TAG_LEN == SEALED_CHUNK_LEN);
