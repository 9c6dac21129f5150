//! What is in the file of a local KEK.

use crate::key_file::{self, damaged, wrong_first_line};
use data_encoding::HEXLOWER;
use keyfold::{Result, Secret};
use sha2::{Digest, Sha256};
use std::path::Path;
use zeroize::Zeroizing;

const FAMILY: &str = "keyfold-local-kek-";
const FIRST_LINE: &[u8; 20] = b"keyfold-local-kek-1\n";
const CHECKSUM_LEN: usize = 8;
/// First line, 64 digits, line feed, 16 digits, line feed.
const FILE_LEN: usize = FIRST_LINE.len() + 64 + 1 + 2 * CHECKSUM_LEN + 1;

pub(super) fn create(path: &Path, key: &Secret<32>) -> Result<()> {
    key_file::create(path, &*encode(key))
}

pub(super) fn read(path: &Path) -> Result<Secret<32>> {
    let mut text = Zeroizing::new([0; FILE_LEN + 1]);
    let len = key_file::read(path, &mut *text)?;
    decode(&text[..len], path)
}

fn encode(key: &Secret<32>) -> Zeroizing<[u8; FILE_LEN]> {
    let mut text = Zeroizing::new([b'\n'; FILE_LEN]);
    let (first, rest) = text.split_at_mut(FIRST_LINE.len());
    let (digits, rest) = rest.split_at_mut(64);
    first.copy_from_slice(FIRST_LINE);
    HEXLOWER.encode_mut(key.expose(), digits);
    HEXLOWER.encode_mut(&checksum(key), &mut rest[1..=2 * CHECKSUM_LEN]);
    text
}

/// First 8 bytes of SHA-256(first line ‖ key)
fn checksum(key: &Secret<32>) -> [u8; CHECKSUM_LEN] {
    let digest = Sha256::new().chain_update(FIRST_LINE).chain_update(key.expose()).finalize();
    let mut out = [0; CHECKSUM_LEN];
    out.copy_from_slice(&digest[..CHECKSUM_LEN]);
    out
}

// F-A-1.
fn decode(text: &[u8], path: &Path) -> Result<Secret<32>> {
    if !text.starts_with(FIRST_LINE) {
        return Err(wrong_first_line(text, FAMILY, FIRST_LINE, path));
    }
    if text.len() < FILE_LEN {
        return Err(damaged("it is cut off", path));
    }
    let digits = text.get(FIRST_LINE.len()..FIRST_LINE.len() + 64).unwrap_or_default();
    let key = Secret::try_with(|key: &mut [u8; 32]| {
        // The position that the decoder reports would say something about the key.
        HEXLOWER.decode_mut(digits, key).map(drop).map_err(|_| damaged("its key is not 64 hexadecimal digits", path))
    })?;
    // One comparison covers the checksum, the line feeds and everything after them.
    if text == encode(&key).as_slice() { Ok(key) } else { Err(damaged("its checksum does not fit", path)) }
}
