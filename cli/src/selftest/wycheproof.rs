//! Test vectors in the JSON of the Wycheproof project (github.com/C2SP/wycheproof).

use std::collections::BTreeMap;

use keyfold::aead::Backend;
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny};
use serde_json::value::RawValue;

use super::hex;
use super::primitive::{self, Check, Cipher, TAG_LEN};
use super::report::{FileOutcome, Tally, printable};

/// Runs the cases of a JSON file and returns what it says it tests.
///
/// The file is parsed layer by layer, so that one malformed case is one failure. Nothing here recurses: serde_json
/// skips values without recursion and stops typed parsing at a depth of 128.
pub(super) fn run(text: &[u8]) -> (Option<String>, FileOutcome) {
    if let Err(error) = serde_json::from_slice::<IgnoredAny>(text) {
        return (None, FileOutcome::unreadable(format!("malformed JSON: {error}")));
    }
    let unknown = || FileOutcome::not_applicable("unknown format", 0);
    let Ok(members) = serde_json::from_slice::<BTreeMap<String, &RawValue>>(text) else {
        return (None, unknown());
    };
    let algorithm = members.get("algorithm").and_then(|value| serde_json::from_str::<String>(value.get()).ok());
    let (Some(algorithm), Some(groups)) = (algorithm, members.get("testGroups")) else {
        return (None, unknown());
    };
    let outcome = match serde_json::from_str::<Vec<Group<'_>>>(groups.get()) {
        Ok(groups) => run_groups(Algorithm::from_name(&algorithm), &algorithm, &groups),
        Err(error) => FileOutcome::unreadable(format!("malformed test groups: {error}")),
    };
    (Some(printable(&algorithm)), outcome)
}

fn run_groups(algorithm: Option<Algorithm>, name: &str, groups: &[Group<'_>]) -> FileOutcome {
    let cases = groups.iter().map(|group| group.tests.len() as u64).sum();
    let Some(algorithm) = algorithm else {
        return FileOutcome::not_applicable(format!("algorithm not used: {name}"), cases);
    };
    let mut tally = Tally::default();
    let mut not_applicable = BTreeMap::new();
    let tests = groups.iter().flat_map(|group| group.tests.iter().map(move |test| (group, test)));
    for (number, (group, test)) in (1_u64..).zip(tests) {
        let case: Case = match serde_json::from_str(test.get()) {
            Ok(case) => case,
            Err(error) => {
                tally.record(format!("case {number} of the file"), Err(format!("malformed: {error}")));
                continue;
            }
        };
        match algorithm.run(&case, group.tag_bits) {
            Ok(check) => tally.record(format!("tcId {}", case.tc_id), check),
            Err(reason) => *not_applicable.entry(reason).or_default() += 1,
        }
    }
    FileOutcome::Run { tally, not_applicable }
}

#[derive(Deserialize)]
struct Group<'a> {
    #[serde(rename = "tagSize")]
    tag_bits: Option<u64>,
    #[serde(borrow)]
    tests: Vec<&'a RawValue>,
}

/// The union of what the algorithms need; each takes its own and reports what is missing.
#[derive(Deserialize)]
struct Case {
    #[serde(rename = "tcId")]
    tc_id: u64,
    result: Expectation,
    key: Option<Bytes>,
    iv: Option<Bytes>,
    aad: Option<Bytes>,
    msg: Option<Bytes>,
    ct: Option<Bytes>,
    tag: Option<Bytes>,
    ikm: Option<Bytes>,
    salt: Option<Bytes>,
    info: Option<Bytes>,
    okm: Option<Bytes>,
    size: Option<u64>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expectation {
    Valid,
    Invalid,
    /// Legal to accept and legal to refuse.
    Acceptable,
}

/// Bytes in hexadecimal.
struct Bytes(Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex(&text).map(Self).ok_or_else(|| de::Error::custom("not hexadecimal"))
    }
}

#[derive(Clone, Copy)]
enum Algorithm {
    AesGcm,
    /// RFC 5297 with one associated string.
    AesSiv,
    /// RFC 5297 §6: the strings are AAD and nonce.
    AesSivWithNonce,
    HkdfSha256,
    HmacSha256,
    AesCmac,
    AesKeyWrap,
    AesKeyWrapWithPadding,
}

/// Why a case has no counterpart in Keyfold.
type NotApplicable = String;

impl Algorithm {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "AES-GCM" => Some(Self::AesGcm),
            "AES-SIV-CMAC" => Some(Self::AesSiv),
            "AEAD-AES-SIV-CMAC" => Some(Self::AesSivWithNonce),
            "HKDF-SHA-256" => Some(Self::HkdfSha256),
            "HMACSHA256" => Some(Self::HmacSha256),
            "AES-CMAC" => Some(Self::AesCmac),
            "AES-WRAP" | "AES-KW" => Some(Self::AesKeyWrap),
            "AES-KWP" => Some(Self::AesKeyWrapWithPadding),
            _ => None,
        }
    }

    fn run(self, case: &Case, tag_bits: Option<u64>) -> Result<Check, NotApplicable> {
        match self.try_run(case, tag_bits) {
            Ok(check) => Ok(check),
            Err(Stopped::NotApplicable(reason)) => Err(reason),
            Err(Stopped::Missing(field)) => Ok(Err(format!("malformed: no {field}"))),
        }
    }

    fn try_run(self, case: &Case, tag_bits: Option<u64>) -> Result<Check, Stopped> {
        match self {
            Self::AesGcm => gcm(case),
            Self::AesSiv => siv(case),
            Self::AesSivWithNonce => siv_with_nonce(case),
            Self::HkdfSha256 => {
                let size = case.size.ok_or(Stopped::Missing("size"))?;
                let (key, salt) = (field(&case.ikm, "ikm")?, field(&case.salt, "salt")?);
                let (info, okm) = (field(&case.info, "info")?, field(&case.okm, "okm")?);
                Ok(case.judge(primitive::hkdf(key, salt, info, size, okm)))
            }
            Self::HmacSha256 => {
                let (key, message, tag) =
                    (field(&case.key, "key")?, field(&case.msg, "msg")?, field(&case.tag, "tag")?);
                Ok(case.judge(primitive::hmac(key, message, tag_len(tag_bits, tag), tag)))
            }
            Self::AesCmac => {
                let key = sized("key", field(&case.key, "key")?)?;
                let (message, tag) = (field(&case.msg, "msg")?, field(&case.tag, "tag")?);
                Ok(case.judge(primitive::cmac(key, message, tag_len(tag_bits, tag), tag)))
            }
            Self::AesKeyWrap => {
                let kek = sized("key", field(&case.key, "key")?)?;
                case.try_cipher(&Cipher::KeyWrap { kek }, field(&case.ct, "ct")?)
            }
            Self::AesKeyWrapWithPadding => {
                let kek = sized("key", field(&case.key, "key")?)?;
                case.try_cipher(&Cipher::KeyWrapWithPadding { kek }, field(&case.ct, "ct")?)
            }
        }
    }
}

fn gcm(case: &Case) -> Result<Check, Stopped> {
    let key = sized("key", field(&case.key, "key")?)?;
    let nonce: &[u8; 12] = sized("nonce", field(&case.iv, "iv")?)?;
    let tag: &[u8; TAG_LEN] = sized("tag", field(&case.tag, "tag")?)?;
    let sealed = [field(&case.ct, "ct")?, tag].concat();
    let aad = field(&case.aad, "aad")?;
    for &backend in Backend::ALL {
        let check = case.try_cipher(&Cipher::Gcm { backend, key, nonce: *nonce, aad }, &sealed)?;
        if let Err(reason) = check {
            return Ok(Err(format!("{}: {reason}", backend.name())));
        }
    }
    Ok(Ok(()))
}

fn siv(case: &Case) -> Result<Check, Stopped> {
    let key = sized("key", field(&case.key, "key")?)?;
    let strings = [field(&case.aad, "aad")?];
    case.try_cipher(&Cipher::Siv { key, strings: &strings }, field(&case.ct, "ct")?)
}

fn siv_with_nonce(case: &Case) -> Result<Check, Stopped> {
    let key = sized("key", field(&case.key, "key")?)?;
    let strings = [field(&case.aad, "aad")?, field(&case.iv, "iv")?];
    let tag: &[u8; TAG_LEN] = sized("tag", field(&case.tag, "tag")?)?;
    let sealed = [tag.as_slice(), field(&case.ct, "ct")?].concat();
    case.try_cipher(&Cipher::Siv { key, strings: &strings }, &sealed)
}

impl Case {
    fn try_cipher(&self, cipher: &Cipher<'_>, sealed: &[u8]) -> Result<Check, Stopped> {
        let plaintext = field(&self.msg, "msg")?;
        Ok(match self.result {
            Expectation::Valid => cipher.reproduces(plaintext, sealed),
            Expectation::Invalid => cipher.refuses(sealed),
            Expectation::Acceptable => cipher.refuses(sealed).or_else(|_| cipher.reproduces(plaintext, sealed)),
        })
    }

    /// Compares what happened with what the case expects, where accepting and computing are the same.
    fn judge(&self, check: Check) -> Check {
        match (self.result, check) {
            (Expectation::Valid, check) => check,
            (Expectation::Invalid, Ok(())) => Err("an invalid case was accepted".into()),
            (Expectation::Invalid, Err(_)) | (Expectation::Acceptable, _) => Ok(()),
        }
    }
}

/// Why a case was not run.
enum Stopped {
    NotApplicable(NotApplicable),
    Missing(&'static str),
}

fn field<'a>(bytes: &'a Option<Bytes>, name: &'static str) -> Result<&'a [u8], Stopped> {
    bytes.as_ref().map(|bytes| bytes.0.as_slice()).ok_or(Stopped::Missing(name))
}

fn sized<'a, const N: usize>(what: &str, bytes: &'a [u8]) -> Result<&'a [u8; N], Stopped> {
    bytes.try_into().map_err(|_| Stopped::NotApplicable(not_that_long(what, bytes.len())))
}

/// The reason in the words of the vector files, which count bits.
pub(super) fn not_that_long(what: &str, len: usize) -> NotApplicable {
    format!("{what} size {} bits", len * 8)
}

/// Bytes that the tag must have; a group without a size leaves it to the case.
fn tag_len(tag_bits: Option<u64>, tag: &[u8]) -> usize {
    match tag_bits {
        Some(bits) if bits % 8 == 0 => usize::try_from(bits / 8).unwrap_or(usize::MAX),
        Some(_) => usize::MAX,
        None => tag.len(),
    }
}
