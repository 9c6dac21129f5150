//! FORMAT.md once more, written down from its text byte by byte: slow, and without a line of core's. Only the classes of errors have core's names, and
//! the primitives are RustCrypto's.

pub(crate) mod record;

use aes::Aes256;
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::AeadInOut;
use aes_siv::siv::Aes256Siv;
use cmac::Cmac;
use hmac::{Hmac, KeyInit, Mac};
use keyfold::ErrorKind;
use keyfold::ErrorKind::{DecryptionFailed, InvalidInput, LimitExceeded, Malformed, NoMatchingKey, Unsupported};
use sha2::{Sha256, Sha512};

pub(crate) const ROOT: u8 = 1;
pub(crate) const DATA: u8 = 2;
pub(crate) const LOOKUP: u8 = 3;

// Primitives (§1).

pub(crate) fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

fn hmac_sha512(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha512>::new_from_slice(key).expect("keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

fn cmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Cmac::<Aes256>::new_from_slice(key).expect("32 bytes");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

/// HKDF-Expand (RFC 5869 §2.3).
fn expand(hmac: fn(&[u8], &[u8]) -> Vec<u8>, prk: &[u8], info: &[u8], len: usize) -> Vec<u8> {
    let (mut out, mut last) = (Vec::new(), Vec::new());
    for i in 1.. {
        if out.len() >= len {
            break;
        }
        last = hmac(prk, &join(&[&last, info, &[i]]));
        out.extend_from_slice(&last);
    }
    out.truncate(len);
    out
}

/// Ciphertext ‖ tag.
fn gcm_seal(key: &[u8], nonce: &[u8], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let nonce = <[u8; 12]>::try_from(nonce).expect("12 bytes").into();
    let mut body = plaintext.to_vec();
    let cipher = Aes256Gcm::new_from_slice(key).expect("32 bytes");
    let tag = cipher.encrypt_inout_detached(&nonce, aad, body.as_mut_slice().into()).expect("short");
    join(&[&body, &tag])
}

fn gcm_open(key: &[u8], nonce: &[u8], aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (body, tag) = sealed.split_last_chunk::<16>()?;
    let nonce = <[u8; 12]>::try_from(nonce).expect("12 bytes").into();
    let mut body = body.to_vec();
    let cipher = Aes256Gcm::new_from_slice(key).expect("32 bytes");
    cipher.decrypt_inout_detached(&nonce, aad, body.as_mut_slice().into(), &(*tag).into()).ok()?;
    Some(body)
}

/// The key of AES-256-GCM under an XAES key (§4.5).
fn xaes_key(key: &[u8], prefix: &[u8]) -> Vec<u8> {
    let half = |i: u8| cmac(key, &join(&[&[0, i, b'X', 0], prefix]));
    join(&[&half(1), &half(2)])
}

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// Keys (§2).

#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) bytes: [u8; 32],
    pub(crate) lineage: [u8; 16],
    pub(crate) class: u8,
    pub(crate) slot: [u8; 16],
    pub(crate) generation: u32,
}

impl Key {
    pub(crate) fn identity(&self) -> Vec<u8> {
        join(&[&self.lineage, &[self.class], &self.slot, &self.generation.to_be_bytes()])
    }

    pub(crate) fn purpose(&self, label: &str, len: usize) -> Vec<u8> {
        let prk = hmac_sha256(&[0; 32], &self.bytes);
        expand(hmac_sha256, &prk, &join(&[&[label.len() as u8], label.as_bytes(), &self.identity()]), len)
    }

    pub(crate) fn commitment(&self) -> Vec<u8> {
        self.purpose("keyfold/v1/commitment", 32)
    }

    pub(crate) fn id(&self) -> Vec<u8> {
        join(&[&self.generation.to_be_bytes(), &self.commitment()[..20]])
    }

    pub(crate) fn header(&self, suite: u8) -> Vec<u8> {
        join(&[&[0xF5, suite], &self.id()])
    }
}

// Encoded values (§4.2).

#[derive(Clone, Debug)]
pub(crate) enum Plain {
    Bytes(Vec<u8>),
    Text(String),
    Integer(i128),
    Decimal(String),
    Float(f64),
    Boolean(bool),
    Date(i32),
    Timestamp(i64, u32),
    Json(String),
    Null,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Padding {
    None,
    Multiple(usize),
    Padme,
}

/// Type and canonical bytes.
pub(crate) type Canonical = (u8, Vec<u8>);

pub(crate) fn canonical(value: &Plain) -> Canonical {
    match value {
        Plain::Bytes(bytes) => (0x01, bytes.clone()),
        Plain::Text(text) => (0x02, text.clone().into_bytes()),
        Plain::Integer(number) => {
            let mut bytes = number.to_be_bytes().to_vec();
            while is_longer_than_needed(&bytes) {
                bytes.remove(0);
            }
            (0x03, bytes)
        }
        Plain::Decimal(text) => (0x04, text.clone().into_bytes()),
        Plain::Float(number) if number.is_nan() => (0x05, vec![0x7F, 0xF8, 0, 0, 0, 0, 0, 0]),
        Plain::Float(number) => (0x05, number.to_be_bytes().to_vec()),
        Plain::Boolean(truth) => (0x06, vec![if *truth { 1 } else { 0 }]),
        Plain::Date(days) => (0x07, days.to_be_bytes().to_vec()),
        Plain::Timestamp(seconds, nanoseconds) => (0x08, join(&[&seconds.to_be_bytes(), &nanoseconds.to_be_bytes()])),
        Plain::Json(text) => (0x09, text.clone().into_bytes()),
        Plain::Null => (0x0A, Vec::new()),
    }
}

/// Whether an integer says the same without its first byte.
fn is_longer_than_needed(bytes: &[u8]) -> bool {
    matches!(bytes, [0x00, 0x00..=0x7F, ..] | [0xFF, 0x80..=0xFF, ..])
}

/// JSON numbers (RFC 8259 §6): [ minus ] int [ frac ] [ exp ].
fn is_json_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| "0123456789".contains(c));
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(m, e)| (m, Some(e)));
    let (int, frac) = mantissa.split_once('.').map_or((mantissa, None), |(i, f)| (i, Some(f)));
    let exponent = exponent.map(|exponent| exponent.strip_prefix(['+', '-']).unwrap_or(exponent));
    digits(int) && (int == "0" || !int.starts_with('0')) && frac.is_none_or(digits) && exponent.is_none_or(digits)
}

fn is_canonical(kind: u8, bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes);
    bytes.len() <= 1 << 20
        && match kind {
            0x01 => true,
            0x02 | 0x09 => text.is_ok(),
            0x03 => (1..=16).contains(&bytes.len()) && !is_longer_than_needed(bytes),
            0x04 => text.is_ok_and(is_json_number),
            0x05 => match <[u8; 8]>::try_from(bytes) {
                Ok(number) => !f64::from_be_bytes(number).is_nan() || number == [0x7F, 0xF8, 0, 0, 0, 0, 0, 0],
                Err(_) => false,
            },
            0x06 => bytes == [0] || bytes == [1],
            0x07 => bytes.len() == 4,
            0x08 => bytes.len() == 12 && u32::from_be_bytes(bytes[8..].try_into().expect("4 bytes")) < 1_000_000_000,
            0x0A => bytes.is_empty(),
            _ => false,
        }
}

/// Format byte ‖ canonical bytes ‖ padding.
pub(crate) fn encode((kind, canonical): &Canonical, padding: Padding) -> Vec<u8> {
    let p = 1 + canonical.len() + 1;
    let len = match padding {
        Padding::None => return join(&[&[*kind], canonical]),
        Padding::Multiple(n) => (p..).find(|len| len % n == 0),
        Padding::Padme => {
            let log2 = |n: usize| (0..).take_while(|e| 1 << e <= n).last().expect("n is not 0");
            let e = log2(p);
            let s = log2(e) + 1;
            let z = e.max(s) - s;
            (p..).find(|len| len % (1 << z) == 0)
        }
    };
    let mut out = join(&[&[kind + 0x80], canonical, &[0x80]]);
    out.resize(len.expect("there are multiples without end"), 0);
    out
}

pub(crate) fn decode(encoded: &[u8]) -> Option<Canonical> {
    let (format, rest) = encoded.split_first()?;
    let (kind, mut bytes) = (format % 0x80, rest.to_vec());
    if *format >= 0x80 {
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        if bytes.pop() != Some(0x80) {
            return None;
        }
    }
    is_canonical(kind, &bytes).then_some((kind, bytes))
}

// What values are bound to (§4.3, §5.2).

pub(crate) type Pair = (String, Vec<u8>);

/// Everything for which a caller's pairs are refused.
pub(crate) fn faults_of_pairs(pairs: &[Pair]) -> Vec<ErrorKind> {
    let mut faults = Vec::new();
    for (i, (key, _)) in pairs.iter().enumerate() {
        if key.is_empty() || key.starts_with("kf:") || pairs[..i].iter().any(|(other, _)| other == key) {
            faults.push(InvalidInput);
        }
    }
    if pairs.len() > 32 || context(pairs, None).len() > 4096 {
        faults.push(LimitExceeded);
    }
    faults
}

/// Number of pairs ‖ pairs, with the row binding among them.
pub(crate) fn context(pairs: &[Pair], row: Option<&[u8]>) -> Vec<u8> {
    let mut pairs: Vec<(&[u8], &[u8])> = pairs.iter().map(|(key, value)| (key.as_bytes(), &value[..])).collect();
    pairs.extend(row.map(|row| (&b"kf:row"[..], row)));
    pairs.sort();
    let mut out = vec![pairs.len() as u8];
    for (key, value) in pairs {
        for part in [key, value] {
            out.extend_from_slice(&(part.len() as u16).to_be_bytes());
            out.extend_from_slice(part);
        }
    }
    out
}

pub(crate) const FIELD: u8 = 1;
pub(crate) const JOIN_GROUP: u8 = 2;

pub(crate) fn name(kind: u8, name: &str) -> Vec<u8> {
    join(&[&[kind, name.len() as u8], name.as_bytes()])
}

pub(crate) fn aad(header: &[u8], field: &str, context: &[u8]) -> Vec<u8> {
    join(&[header, &[0x10], b"keyfold/field/v1", &name(FIELD, field), context])
}

/// A binding by its AAD alone: header, name, pairs.
pub(crate) fn read_aad(aad: &[u8]) -> Option<(Vec<u8>, String, Vec<Pair>)> {
    let (header, mut rest) = aad.split_at_checked(26)?;
    let mut take = |n: usize| {
        let (taken, after) = rest.split_at_checked(n)?;
        rest = after;
        Some(taken.to_vec())
    };
    (take(18)? == b"\x10keyfold/field/v1\x01").then_some(())?;
    let len = take(1)?[0];
    let name = String::from_utf8(take(len.into())?).ok()?;
    let mut pairs = Vec::new();
    for _ in 0..take(1)?[0] {
        let mut part = || {
            let len = take(2)?;
            take(usize::from(len[0]) * 256 + usize::from(len[1]))
        };
        pairs.push((String::from_utf8(part()?).ok()?, part()?));
    }
    rest.is_empty().then_some((header.to_vec(), name, pairs))
}

// Values (§4, §5).

/// Steps 5 to 7 of §8.1; a frame is none of these.
pub(crate) fn read_header(sealed: &[u8]) -> Result<(u8, Vec<u8>), ErrorKind> {
    if sealed.len() < 2 || sealed[0] != 0xF5 {
        return Err(Malformed);
    }
    let (shortest, longest) = match sealed[1] {
        0x01 => (67, 1_114_179),
        0x02 => (43, 1_114_155),
        _ => return Err(Unsupported),
    };
    if sealed.len() < shortest || sealed.len() > longest {
        return Err(Malformed);
    }
    Ok((sealed[1], sealed[2..26].to_vec()))
}

pub(crate) fn seal_field(key: &Key, nonce: &[u8], aad: &[u8], encoded: &[u8]) -> Vec<u8> {
    let (prefix, last) = nonce.split_at(12);
    let aes_key = xaes_key(&key.purpose("keyfold/v1/data/01-field", 32), prefix);
    join(&[&key.header(0x01), nonce, &gcm_seal(&aes_key, last, aad, encoded)])
}

/// The encoded value.
pub(crate) fn open_field(key: &Key, sealed: &[u8], aad: &[u8]) -> Result<Vec<u8>, ErrorKind> {
    if read_header(sealed)? != (0x01, key.id()) {
        return Err(NoMatchingKey);
    }
    let aes_key = xaes_key(&key.purpose("keyfold/v1/data/01-field", 32), &sealed[26..38]);
    gcm_open(&aes_key, &sealed[38..50], aad, &sealed[50..]).ok_or(DecryptionFailed)
}

/// The strings of §5.2 under the header of `key`.
pub(crate) fn strings(key: &Key, kind: u8, called: &str, pairs: &[Pair]) -> [Vec<u8>; 3] {
    [key.header(0x02), name(kind, called), context(pairs, None)]
}

fn siv(key: &Key) -> Aes256Siv {
    Aes256Siv::new_from_slice(&key.purpose("keyfold/v1/lookup/02-deterministic", 64)).expect("64 bytes")
}

pub(crate) fn seal_deterministic(key: &Key, strings: &[Vec<u8>; 3], encoded: &[u8]) -> Vec<u8> {
    let mut body = encoded.to_vec();
    let iv = siv(key).encrypt_inout_detached(strings, body.as_mut_slice().into()).expect("three strings");
    join(&[&key.header(0x02), &iv, &body])
}

pub(crate) fn open_deterministic(key: &Key, sealed: &[u8], strings: &[Vec<u8>; 3]) -> Result<Vec<u8>, ErrorKind> {
    if read_header(sealed)? != (0x02, key.id()) {
        return Err(NoMatchingKey);
    }
    let iv = <[u8; 16]>::try_from(&sealed[26..42]).expect("16 bytes").into();
    let mut body = sealed[42..].to_vec();
    let opened = siv(key).decrypt_inout_detached(strings, body.as_mut_slice().into(), &iv);
    opened.map(|()| body).map_err(|_| DecryptionFailed)
}

// Texts (§6).

const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn bits(numbers: impl Iterator<Item = u8>, each: u32) -> Vec<bool> {
    numbers.flat_map(|number| (0..each).rev().map(move |bit| number >> bit & 1 == 1)).collect()
}

fn number(bits: &[bool], width: usize) -> u8 {
    (0..width).fold(0, |number, i| number * 2 + u8::from(bits.get(i) == Some(&true)))
}

pub(crate) fn text(sealed: &[u8]) -> String {
    let bits = bits(sealed[6..].iter().copied(), 8);
    let rest: String = bits.chunks(6).map(|six| char::from(BASE64URL[usize::from(number(six, 6))])).collect();
    format!("kf1.{}{}.{rest}", hex(&sealed[1..2]), hex(&sealed[2..6]))
}

pub(crate) fn from_text(text: &[u8]) -> Result<Vec<u8>, ErrorKind> {
    let is_digit = |byte: &u8| b"0123456789abcdef".contains(byte);
    if text.len() < 15 || &text[..4] != b"kf1." || !text[4..14].iter().all(is_digit) || text[14] != b'.' {
        return Err(Malformed);
    }
    if &text[4..6] != b"01" && &text[4..6] != b"02" {
        return Err(Unsupported);
    }
    let digits = text[4..14].iter().map(|digit| char::from(*digit).to_digit(16).expect("it is a digit") as u8);
    let mut out = vec![0xF5];
    out.extend(bits(digits, 4).chunks(8).map(|eight| number(eight, 8)));
    let six = |character: &u8| BASE64URL.iter().position(|other| other == character).map(|six| six as u8);
    let rest: Vec<u8> = text[15..].iter().map(six).collect::<Option<_>>().ok_or(Malformed)?;
    let rest = bits(rest.into_iter(), 6);
    let (whole, stray) = rest.split_at(rest.len() / 8 * 8);
    if stray.len() > 4 || stray.contains(&true) {
        return Err(Malformed);
    }
    out.extend(whole.chunks(8).map(|eight| number(eight, 8)));
    Ok(out)
}

// Streams (§19).

const CHUNK: usize = 16_384;

/// Key, base nonce, commitment.
fn stream_keys(key: &Key, salt: &[u8], field: &str, context: &[u8]) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let header = key.header(0x04);
    let binding = join(&[&header, b"\x11keyfold/stream/v1", &name(FIELD, field), &[0x01], context]);
    let info = join(&[b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00", salt, &binding]);
    let out = expand(hmac_sha512, &key.purpose("keyfold/v1/data/04-stream", 32), &info, 76);
    (out[..32].to_vec(), out[32..44].to_vec(), out[44..].to_vec())
}

fn chunk_nonce(base: &[u8], i: usize) -> Vec<u8> {
    let i = (i as u128).to_be_bytes();
    base.iter().zip(&i[4..]).map(|(a, b)| a ^ b).collect()
}

pub(crate) fn seal_stream(key: &Key, salt: &[u8], field: &str, context: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let (chunk_key, base, commitment) = stream_keys(key, salt, field, context);
    let mut out = join(&[&key.header(0x04), &[0x01], salt, &commitment]);
    let mut rest = plaintext;
    for i in 0.. {
        let (chunk, after) = rest.split_at(rest.len().min(CHUNK));
        out.extend_from_slice(&gcm_seal(&chunk_key, &chunk_nonce(&base, i), b"", chunk));
        rest = after;
        if chunk.len() < CHUNK {
            break;
        }
    }
    out
}

/// What a reader from the front releases, and how it ends.
pub(crate) fn open_stream(key: &Key, sealed: &[u8], field: &str, context: &[u8]) -> (Vec<u8>, Result<(), ErrorKind>) {
    let mut released = Vec::new();
    if sealed.len() < 83 || sealed[0] != 0xF5 {
        return (
            released,
            Err(if sealed.len() > 1 && sealed[0] == 0xF5 && sealed[1] != 4 { Unsupported } else { Malformed }),
        );
    }
    if sealed[1] != 0x04 || sealed[26] != 0x01 {
        return (released, Err(Unsupported));
    }
    if sealed[2..26] != key.id() {
        return (released, Err(NoMatchingKey));
    }
    let (chunk_key, base, commitment) = stream_keys(key, &sealed[27..51], field, context);
    if sealed[51..83] != commitment {
        return (released, Err(DecryptionFailed));
    }
    let mut rest = &sealed[83..];
    for i in 0.. {
        let (chunk, after) = rest.split_at(rest.len().min(CHUNK + 16));
        if chunk.len() < 16 {
            return (released, Err(Malformed));
        }
        match gcm_open(&chunk_key, &chunk_nonce(&base, i), b"", chunk) {
            Some(plaintext) => released.extend_from_slice(&plaintext),
            None => return (released, Err(DecryptionFailed)),
        }
        rest = after;
        if chunk.len() < CHUNK + 16 {
            break;
        }
    }
    (released, Ok(()))
}
