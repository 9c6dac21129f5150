//! The parts of a protected document: its header, and the bodies of its values (FORMAT.md §18).

use super::{GCM_NONCE_LEN, HEADER_LEN, KeyId, MAGIC, MAX_ENCODED_LEN, Suite, TAG_LEN, header};
use crate::error::{Error, ErrorKind, Result};
use core::fmt;
use data_encoding::{BASE64URL_NOPAD, Encoding, HEXLOWER};

/// Bytes of the random part of a header.
pub const DOCUMENT_ID_LEN: usize = 24;
/// Bytes of a document's header: magic, suite, key ID, document ID.
pub const DOCUMENT_HEADER_LEN: usize = HEADER_LEN + DOCUMENT_ID_LEN;
/// Bytes that suite 05 adds to each value, beside the header of the document: nonce, format byte, tag.
// F-18.1-1.
pub const BODY_OVERHEAD: usize = GCM_NONCE_LEN + 1 + TAG_LEN;
/// Bytes of a manifest: sequence (8), MAC (32).
pub const MANIFEST_LEN: usize = 8 + 32;
/// Most values in one document.
pub const MAX_BODIES: usize = 1 << 20;
/// Longest path of a value in its document.
pub const MAX_PATH_LEN: usize = u16::MAX as usize;
/// How every body in text form begins.
pub const BODY_TEXT_PREFIX: &str = "kf1d.";

/// `kf1.05` ‖ generation (8 hex) ‖ `.`
const HEADER_TEXT_PREFIX: &str = "kf1.05";
/// Characters of the text form of a header.
const HEADER_TEXT_LEN: usize = 74;
/// Magic, suite and generation: the bytes that the text form spells in hexadecimal.
const SPELLED_LEN: usize = 6;
/// Longer text cannot be a body of any size, and is refused before it is decoded.
const MAX_BODY_TEXT_LEN: usize = BODY_TEXT_PREFIX.len() + (BODY_OVERHEAD - 1 + MAX_ENCODED_LEN).div_ceil(3) * 4;

/// What stands once in a document: the key that sealed its values, and the random ID that makes the document's own key of it.
/// Says nothing about whether it is authentic.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct DocumentHeader([u8; DOCUMENT_HEADER_LEN]);

impl DocumentHeader {
    pub(crate) fn new(key_id: &KeyId, document_id: &[u8; DOCUMENT_ID_LEN]) -> Self {
        let mut bytes = [0; DOCUMENT_HEADER_LEN];
        bytes[..HEADER_LEN].copy_from_slice(&header(Suite::Document, key_id));
        bytes[HEADER_LEN..].copy_from_slice(document_id);
        Self(bytes)
    }

    /// Reads the 50 bytes of a header.
    ///
    /// # Errors
    ///
    /// - [`Malformed`](ErrorKind::Malformed): wrong magic or length.
    /// - [`Unsupported`](ErrorKind::Unsupported): of another suite.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.first() != Some(&MAGIC) {
            return Err(ErrorKind::Malformed.into());
        }
        if Suite::from_id(*bytes.get(1).ok_or(ErrorKind::Malformed)?)? != Suite::Document {
            return Err(Error::new(ErrorKind::Unsupported, "the header of a document has suite 05"));
        }
        Ok(Self(bytes.try_into().map_err(|_| ErrorKind::Malformed)?))
    }

    /// Reads a header in text form. Exactly one text of each is accepted.
    ///
    /// # Errors
    ///
    /// - [`Malformed`](ErrorKind::Malformed): not the text form of a document's header.
    pub fn from_text(text: &str) -> Result<Self> {
        let rest = text.strip_prefix(HEADER_TEXT_PREFIX).ok_or(ErrorKind::Malformed)?;
        let (generation, rest) = rest.split_once('.').ok_or(ErrorKind::Malformed)?;
        let mut bytes = [0; DOCUMENT_HEADER_LEN];
        (bytes[0], bytes[1]) = (MAGIC, Suite::Document.id());
        let (head, tail) = bytes[2..].split_at_mut(SPELLED_LEN - 2);
        decode_exactly(&HEXLOWER, generation, head)?;
        decode_exactly(&BASE64URL_NOPAD, rest, tail)?;
        Ok(Self(bytes))
    }

    /// The text form: `kf1.05`, generation, `.`, base64url of the rest. 74 characters.
    #[must_use]
    pub fn to_text(&self) -> String {
        let (head, rest) = self.0.split_at(SPELLED_LEN);
        let mut text = String::with_capacity(HEADER_TEXT_LEN);
        text.push_str(HEADER_TEXT_PREFIX);
        HEXLOWER.encode_append(&head[2..], &mut text);
        text.push('.');
        BASE64URL_NOPAD.encode_append(rest, &mut text);
        text
    }

    /// The 50 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; DOCUMENT_HEADER_LEN] {
        &self.0
    }

    /// The ID of the key that this claims the document's values to be sealed under.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        let bytes = self.0[2..].first_chunk().expect("the header has 50 bytes");
        KeyId::from_bytes(*bytes)
    }
}

impl fmt::Debug for DocumentHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

/// Appends the text form of the body of a value to `out`.
pub fn push_body_text(body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(BODY_TEXT_PREFIX.as_bytes());
    push_base64url(body, out);
}

/// Appends the body whose text form is `text` to `out`. Exactly one text of each body is accepted.
///
/// # Errors
///
/// - [`Malformed`](ErrorKind::Malformed): not the text form of a body. `out` is unchanged.
pub fn body_from_text(text: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let encoded = text.strip_prefix(BODY_TEXT_PREFIX.as_bytes()).filter(|_| text.len() <= MAX_BODY_TEXT_LEN);
    let encoded = encoded.ok_or(ErrorKind::Malformed)?;
    let len = BASE64URL_NOPAD.decode_len(encoded.len()).map_err(|_| ErrorKind::Malformed)?;
    let start = out.len();
    out.resize(start + len, 0);
    if BASE64URL_NOPAD.decode_mut(encoded, &mut out[start..]).is_err() {
        out.truncate(start);
        return Err(ErrorKind::Malformed.into());
    }
    Ok(())
}

/// The text form of a manifest: base64url, 54 characters.
#[must_use]
pub fn manifest_text(manifest: &[u8; MANIFEST_LEN]) -> String {
    BASE64URL_NOPAD.encode(manifest)
}

/// The manifest whose text form is `text`.
///
/// # Errors
///
/// - [`Malformed`](ErrorKind::Malformed): not the text form of a manifest.
pub fn manifest_from_text(text: &str) -> Result<[u8; MANIFEST_LEN]> {
    let mut manifest = [0; MANIFEST_LEN];
    decode_exactly(&BASE64URL_NOPAD, text, &mut manifest)?;
    Ok(manifest)
}

/// Refuses a text that does not fill `out`.
// F-18.2-1.
fn decode_exactly(encoding: &Encoding, text: &str, out: &mut [u8]) -> Result<()> {
    let fits = encoding.decode_len(text.len()) == Ok(out.len());
    let decoded = fits && encoding.decode_mut(text.as_bytes(), out) == Ok(out.len());
    if decoded { Ok(()) } else { Err(ErrorKind::Malformed.into()) }
}

/// Refuses what cannot be the body of a value, whatever the key.
pub(crate) fn check_body(body: &[u8]) -> Result<()> {
    match (BODY_OVERHEAD..BODY_OVERHEAD + MAX_ENCODED_LEN).contains(&body.len()) {
        true => Ok(()),
        false => Err(ErrorKind::Malformed.into()),
    }
}

fn push_base64url(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + BASE64URL_NOPAD.encode_len(bytes.len()), 0);
    BASE64URL_NOPAD.encode_mut(bytes, &mut out[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_one_text() {
        let header = DocumentHeader::new(&KeyId::from_bytes([7; 24]), &[0xA5; 24]);
        let text = header.to_text();
        assert_eq!(text.len(), HEADER_TEXT_LEN);
        assert_eq!(DocumentHeader::from_text(&text).unwrap(), header);
        assert_eq!(header.key_id(), KeyId::from_bytes([7; 24]));
        for wrong in
            [&text[1..], &text[..73], "", "kf1.05", &text.to_uppercase(), &format!("{text}="), &format!("{text}AA")]
        {
            assert_eq!(DocumentHeader::from_text(wrong).unwrap_err().kind(), ErrorKind::Malformed, "{wrong}");
        }
        let (mut text, mut back) = (Vec::new(), Vec::new());
        push_body_text(&[1; 29], &mut text);
        body_from_text(&text, &mut back).unwrap();
        assert_eq!(back, [1; 29]);
        for wrong in [&text[1..], b"kf1d.A", b"kf1d.AB", b"kf1.AA", b"kf1d.AA="] {
            assert_eq!(body_from_text(wrong, &mut back).unwrap_err().kind(), ErrorKind::Malformed);
            assert_eq!(back.len(), 29);
        }
        assert_eq!(manifest_from_text(&manifest_text(&[9; 40])).unwrap(), [9; 40]);
    }
}
