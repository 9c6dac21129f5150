//! The text form of sealed values, for CSV, JSON and text columns (FORMAT.md §6).

use super::document::BODY_TEXT_PREFIX;
use super::sealed::{A_STREAM, NOT_A_VALUE};
use super::{HEADER_LEN, KeyId, MAGIC, MAX_ENCODED_LEN, NONCE_LEN, Suite, TAG_LEN};
use crate::error::{Error, ErrorKind, Result};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};

/// How every value in text form begins.
pub const TEXT_PREFIX: &str = "kf1.";
/// `kf1.` ‖ suite (2 hex) ‖ generation (8 hex) ‖ `.`
const TEXT_HEADER_LEN: usize = 4 + 2 + 8 + 1;
/// Magic, suite and generation: the bytes that the text form spells in hexadecimal.
const SPELLED_LEN: usize = 6;
/// Longer text cannot be a value of any size, and is refused before it is decoded.
const MAX_TEXT_LEN: usize = TEXT_HEADER_LEN + (HEADER_LEN + NONCE_LEN + TAG_LEN + MAX_ENCODED_LEN).div_ceil(3) * 4;

const NO_TEXT_FORM: Error = Error::new(ErrorKind::Unsupported, "a frame has no text form");

/// Characters of the text form of a sealed value of `sealed_len` bytes; `usize::MAX` if there is no such number.
#[must_use]
pub fn text_len(sealed_len: usize) -> usize {
    let bytes = sealed_len.saturating_sub(SPELLED_LEN);
    // The library for base64 counts bits, of which there is no number long before.
    let rest = [0, 2, 3][bytes % 3];
    (bytes / 3).saturating_mul(4).saturating_add(rest + TEXT_HEADER_LEN)
}

/// Appends the text form of the sealed value `sealed` to `out`.
///
/// # Errors
///
/// - [`Malformed`](ErrorKind::Malformed): `sealed` is too short to be a value.
/// - [`Unsupported`](ErrorKind::Unsupported): a frame, which has no text form.
pub fn push_text(sealed: &[u8], out: &mut Vec<u8>) -> Result<()> {
    if sealed.len() < HEADER_LEN || sealed[0] != MAGIC {
        return Err(ErrorKind::Malformed.into());
    }
    if sealed[1] == Suite::Frame.id() {
        return Err(NO_TEXT_FORM);
    }
    if sealed[1] == Suite::Stream.id() {
        return Err(A_STREAM);
    }
    if sealed[1] == Suite::Document.id() {
        return Err(NOT_A_VALUE);
    }
    out.extend_from_slice(TEXT_PREFIX.as_bytes());
    let start = out.len();
    out.resize(start + 10, 0);
    HEXLOWER.encode_mut(&sealed[1..SPELLED_LEN], &mut out[start..]);
    out.push(b'.');
    let body = &sealed[SPELLED_LEN..];
    let start = out.len();
    out.resize(start + BASE64URL_NOPAD.encode_len(body.len()), 0);
    BASE64URL_NOPAD.encode_mut(body, &mut out[start..]);
    Ok(())
}

/// Appends the binary form of the value whose text form is `text` to `out`.
///
/// Exactly one text of each value is accepted: no white space, padding, upper-case hexadecimal or stray bits.
///
/// # Errors
///
/// - [`Malformed`](ErrorKind::Malformed): not the text form of a value. `out` is unchanged.
/// - [`Unsupported`](ErrorKind::Unsupported): a suite that has no text form in this build. `out` is unchanged.
pub fn from_text(text: &[u8], out: &mut Vec<u8>) -> Result<()> {
    // F-6-1, F-8.1-4.
    if text.len() < TEXT_HEADER_LEN {
        return Err(ErrorKind::Malformed.into());
    }
    let spelled = text.strip_prefix(TEXT_PREFIX.as_bytes()).ok_or(ErrorKind::Malformed)?;
    let (digits, rest) = spelled.split_at(10);
    let (&dot, body) = rest.split_first().ok_or(ErrorKind::Malformed)?;
    let mut head = [0; SPELLED_LEN - 1];
    // F-6-4.
    HEXLOWER.decode_mut(digits, &mut head).map_err(|_| ErrorKind::Malformed)?;
    if dot != b'.' {
        return Err(ErrorKind::Malformed.into());
    }
    // What follows is only known for suites that this build opens.
    // F-6-2.
    match Suite::from_id(head[0])? {
        Suite::Frame => return Err(NO_TEXT_FORM),
        Suite::Stream => return Err(A_STREAM),
        Suite::Document => return Err(NOT_A_VALUE),
        Suite::Field | Suite::Deterministic => {}
    }
    if text.len() > MAX_TEXT_LEN {
        return Err(ErrorKind::Malformed.into());
    }
    let body_len = BASE64URL_NOPAD.decode_len(body.len()).map_err(|_| ErrorKind::Malformed)?;
    if body_len < KeyId::FINGERPRINT_LEN {
        return Err(ErrorKind::Malformed.into());
    }
    let start = out.len();
    out.push(MAGIC);
    out.extend_from_slice(&head);
    let body_start = out.len();
    out.resize(body_start + body_len, 0);
    // F-6-3.
    if BASE64URL_NOPAD.decode_mut(body, &mut out[body_start..]).is_err() {
        out.truncate(start);
        return Err(ErrorKind::Malformed.into());
    }
    Ok(())
}

/// Whether `text` starts like the text form of a sealed value. A hint for tools, never a security decision.
#[must_use]
pub fn looks_sealed_text(text: &[u8]) -> bool {
    text.starts_with(TEXT_PREFIX.as_bytes()) || text.starts_with(BODY_TEXT_PREFIX.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_value_has_a_text_form_and_a_longer_one_is_refused_undecoded() {
        let text_of = |len: usize| {
            let mut value = vec![0; len];
            (value[0], value[1]) = (MAGIC, Suite::Field.id());
            let mut text = Vec::new();
            push_text(&value, &mut text).expect("long enough for a header");
            (value, text)
        };
        let longest = HEADER_LEN + NONCE_LEN + TAG_LEN + MAX_ENCODED_LEN;
        let ((value, text), mut read) = (text_of(longest), Vec::new());
        from_text(&text, &mut read).expect("the longest");
        assert!(read == value);
        let (_, text) = text_of(longest + SPELLED_LEN + 3);
        let mut read = Vec::new();
        assert_eq!(from_text(&text, &mut read).expect_err("too long").kind(), ErrorKind::Malformed);
        assert_eq!(read.capacity(), 0);
    }

    #[test]
    fn the_text_form_is_as_long_as_it_is_said_to_be() {
        for len in 0..200 {
            let sealed = len.max(HEADER_LEN);
            let mut value = vec![0; sealed];
            (value[0], value[1]) = (MAGIC, Suite::Field.id());
            let mut text = Vec::new();
            push_text(&value, &mut text).expect("long enough for a header");
            assert_eq!(text.len(), text_len(sealed));
        }
        for len in [usize::MAX / 512, usize::MAX / 8, usize::MAX / 4 * 3 - 20, usize::MAX / 4 * 3 + 20, usize::MAX] {
            let bytes = (len - SPELLED_LEN) as u128;
            let exact = TEXT_HEADER_LEN as u128 + (bytes * 4).div_ceil(3);
            assert_eq!(text_len(len) as u128, exact.min(usize::MAX as u128), "{len}");
        }
    }
}
