//! The primitives as a test case sees them: byte strings in, byte strings or a refusal out.

use aes_kw::KeyInit;
use keyfold::aead::{Backend, OpenFailed, hazmat};

/// The outcome of one case. The text says what differed and holds no bytes of it.
pub(super) type Check = Result<(), String>;

/// Length in bytes of every AES-GCM tag and of every synthetic IV that Keyfold writes.
pub(super) const TAG_LEN: usize = 16;

/// A cipher with everything but the message.
pub(super) enum Cipher<'a> {
    Gcm {
        backend: Backend,
        key: &'a [u8; 32],
        nonce: [u8; 12],
        aad: &'a [u8],
    },
    Xaes {
        backend: Backend,
        key: &'a [u8; 32],
        nonce: &'a [u8; 24],
        aad: &'a [u8],
    },
    /// `strings` is the vector of S2V in front of the plaintext; a message is IV ‖ ciphertext.
    Siv {
        key: &'a [u8; 64],
        strings: &'a [&'a [u8]],
    },
    /// RFC 3394, by the library that the local KEK uses.
    KeyWrap {
        kek: &'a [u8; 32],
    },
    /// RFC 5649, likewise.
    KeyWrapWithPadding {
        kek: &'a [u8; 32],
    },
}

impl Cipher<'_> {
    /// Passes if sealing `plaintext` gives exactly `sealed`, and opening `sealed` exactly `plaintext`.
    pub(super) fn reproduces(&self, plaintext: &[u8], sealed: &[u8]) -> Check {
        if self.seal(plaintext)? != sealed {
            return Err("sealed to other bytes".into());
        }
        match self.open(sealed.to_vec()) {
            Ok(opened) if opened == plaintext => Ok(()),
            Ok(_) => Err("opened to other bytes".into()),
            Err(_) => Err("a valid message was refused".into()),
        }
    }

    /// Passes if `sealed` does not open and nothing of it or of its plaintext stays in the buffer.
    pub(super) fn refuses(&self, sealed: &[u8]) -> Check {
        match self.open(sealed.to_vec()) {
            Ok(_) => Err("an invalid message was accepted".into()),
            Err(Refused { left }) if left.iter().any(|&byte| byte != 0) => {
                Err("refused, but the buffer was not zeroed".into())
            }
            Err(_) => Ok(()),
        }
    }

    fn seal(&self, plaintext: &[u8]) -> Result<Vec<u8>, String> {
        let mut body = plaintext.to_vec();
        match *self {
            Self::Gcm { backend, key, nonce, aad } => {
                let tag = hazmat::aes256gcm_seal(backend, key, nonce, aad, &mut body).map_err(not_sealed)?;
                body.extend_from_slice(&tag);
                Ok(body)
            }
            Self::Xaes { backend, key, nonce, aad } => {
                let tag = hazmat::xaes256gcm_seal(backend, key, nonce, aad, &mut body).map_err(not_sealed)?;
                body.extend_from_slice(&tag);
                Ok(body)
            }
            Self::Siv { key, strings } => {
                let mut sealed = hazmat::aes256siv_seal(key, strings, &mut body).map_err(not_sealed)?.to_vec();
                sealed.append(&mut body);
                Ok(sealed)
            }
            Self::KeyWrap { kek } => {
                let mut wrapped = vec![0; plaintext.len() + 8];
                aes_kw::KwAes256::new(kek.into()).wrap_key(plaintext, &mut wrapped).map_err(not_sealed)?;
                Ok(wrapped)
            }
            Self::KeyWrapWithPadding { kek } => {
                let mut wrapped = vec![0; plaintext.len().next_multiple_of(8) + 8];
                aes_kw::KwpAes256::new(kek.into()).wrap_key(plaintext, &mut wrapped).map_err(not_sealed)?;
                Ok(wrapped)
            }
        }
    }

    fn open(&self, mut sealed: Vec<u8>) -> Result<Vec<u8>, Refused> {
        match *self {
            Self::Gcm { backend, key, nonce, aad } => {
                let opened =
                    hazmat::aes256gcm_open(backend, key, nonce, aad, &mut sealed).map(|plaintext| plaintext.len());
                truncated(sealed, opened)
            }
            Self::Xaes { backend, key, nonce, aad } => {
                let opened =
                    hazmat::xaes256gcm_open(backend, key, nonce, aad, &mut sealed).map(|plaintext| plaintext.len());
                truncated(sealed, opened)
            }
            Self::Siv { key, strings } => {
                let Some((iv, body)) = sealed.split_first_chunk_mut::<TAG_LEN>() else {
                    return Err(Refused { left: Vec::new() });
                };
                let opened = hazmat::aes256siv_open(key, strings, iv, body);
                let body = body.to_vec();
                if opened.is_ok() { Ok(body) } else { Err(Refused { left: body }) }
            }
            // SP 800-38F §5.3.1 starts at two semiblocks of plaintext for KW and at one byte for KWP; the library does not.
            Self::KeyWrap { kek } => unwrapped(&sealed, 24, |wrapped, key| {
                aes_kw::KwAes256::new(kek.into()).unwrap_key(wrapped, key).map(<[u8]>::len)
            }),
            Self::KeyWrapWithPadding { kek } => unwrapped(&sealed, 16, |wrapped, key| {
                aes_kw::KwpAes256::new(kek.into()).unwrap_key(wrapped, key).map(<[u8]>::len)
            }),
        }
    }
}

/// A message that did not open, with what the primitive left in its buffer.
struct Refused {
    left: Vec<u8>,
}

fn not_sealed(error: impl std::fmt::Display) -> String {
    format!("not sealed: {error}")
}

/// Cuts an opened buffer to its plaintext.
fn truncated(mut buffer: Vec<u8>, opened: Result<usize, OpenFailed>) -> Result<Vec<u8>, Refused> {
    match opened {
        Ok(plaintext_len) => {
            buffer.truncate(plaintext_len);
            Ok(buffer)
        }
        // Shorter than a tag: there is no ciphertext, and the primitive has touched nothing.
        Err(OpenFailed) if buffer.len() < TAG_LEN => Err(Refused { left: Vec::new() }),
        Err(OpenFailed) => Err(Refused { left: buffer }),
    }
}

/// Unwraps `wrapped` of at least `min_len` bytes with `unwrap`, which returns the length of the key.
fn unwrapped(
    wrapped: &[u8],
    min_len: usize,
    unwrap: impl FnOnce(&[u8], &mut [u8]) -> Result<usize, aes_kw::Error>,
) -> Result<Vec<u8>, Refused> {
    if wrapped.len() < min_len {
        return Err(Refused { left: Vec::new() });
    }
    let mut key = vec![0; wrapped.len() - 8];
    match unwrap(wrapped, &mut key) {
        Ok(len) => {
            key.truncate(len);
            Ok(key)
        }
        Err(_) => Err(Refused { left: key }),
    }
}

/// Passes if HKDF-SHA-256 gives `len` bytes and they are `expected`.
pub(super) fn hkdf(key: &[u8], salt: &[u8], info: &[u8], len: u64, expected: &[u8]) -> Check {
    // Longer is refused by RFC 5869; asking for one byte more is enough to see that and bounds the buffer.
    const TOO_LONG: usize = 255 * 32 + 1;
    let mut out = vec![0; usize::try_from(len).unwrap_or(TOO_LONG).min(TOO_LONG)];
    hazmat::hkdf_sha256(key, salt, info, &mut out).map_err(|error| format!("not derived: {error}"))?;
    same(&out, expected, "derived other bytes")
}

/// Passes if the first `tag_len` bytes of HMAC-SHA-256 are `tag`.
pub(super) fn hmac(key: &[u8], message: &[u8], tag_len: usize, tag: &[u8]) -> Check {
    mac(&hazmat::hmac_sha256(key, message), tag_len, tag)
}

/// Passes if the first `tag_len` bytes of CMAC-AES-256 are `tag`.
pub(super) fn cmac(key: &[u8; 32], message: &[u8], tag_len: usize, tag: &[u8]) -> Check {
    mac(&hazmat::cmac_aes256(key, message), tag_len, tag)
}

fn mac(computed: &[u8], tag_len: usize, tag: &[u8]) -> Check {
    // Without the second condition every message would carry the empty tag.
    match computed.get(..tag_len) {
        Some(computed) if tag_len > 0 => same(computed, tag, "another tag"),
        _ => Err("no tag has that length".into()),
    }
}

fn same(computed: &[u8], expected: &[u8], otherwise: &str) -> Check {
    if computed == expected { Ok(()) } else { Err(otherwise.into()) }
}

/// FF1 of texts of the digits 0 to 9 and a to z, there and back.
pub(super) fn ff1(key: &[u8; 32], radix: u32, tweak: &[u8], plaintext: &str, expected: &str) -> Check {
    let numerals = |text: &str| -> Vec<u16> {
        text.chars().filter_map(|c| c.to_digit(36).and_then(|numeral| numeral.try_into().ok())).collect()
    };
    let run = |from: &str, encrypt| {
        hazmat::ff1_aes256(key, radix, tweak, numerals(from), encrypt).map_err(|error| error.to_string())
    };
    if run(plaintext, true)? != numerals(expected) {
        return Err("encrypted to other numerals".into());
    }
    if run(expected, false)? == numerals(plaintext) { Ok(()) } else { Err("decrypted to other numerals".into()) }
}
