//! AES-GCM response files of NIST's Cryptographic Algorithm Validation Program, such as `gcmDecrypt256.rsp`.

use std::collections::BTreeMap;

use keyfold::aead::Backend;

use super::hex;
use super::primitive::{Check, Cipher, TAG_LEN};
use super::report::{FileOutcome, Tally};
use super::wycheproof::not_that_long;

/// Runs the cases of a response file.
pub(super) fn run(text: &[u8]) -> FileOutcome {
    let Ok(text) = std::str::from_utf8(text) else {
        return FileOutcome::unreadable("not text");
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut file = Reader::default();
    for line in lines {
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            if !file.section(section) {
                return FileOutcome::not_applicable("unknown format", 0);
            }
        } else if !file.sizes.describe_gcm() {
            return FileOutcome::not_applicable("unknown format", 0);
        } else {
            file.line(line);
        }
    }
    file.finish_case();
    if file.cases == 0 {
        return FileOutcome::not_applicable("unknown format", 0);
    }
    FileOutcome::Run { tally: file.tally, not_applicable: file.not_applicable }
}

#[derive(Default)]
struct Reader<'a> {
    sizes: Sizes,
    case: Option<Case<'a>>,
    cases: u64,
    tally: Tally,
    not_applicable: BTreeMap<String, u64>,
}

/// The bit lengths that the section in force declares. No other file type of NIST's names exactly these.
#[derive(Clone, Copy, Default)]
struct Sizes {
    key: Option<usize>,
    iv: Option<usize>,
    plaintext: Option<usize>,
    aad: Option<usize>,
    tag: Option<usize>,
}

impl Sizes {
    fn describe_gcm(&self) -> bool {
        matches!(self, Self { key: Some(_), iv: Some(_), plaintext: Some(_), aad: Some(_), tag: Some(_) })
    }
}

/// The lines of one case, not yet decoded.
#[derive(Default)]
struct Case<'a> {
    count: &'a str,
    key: Option<&'a str>,
    iv: Option<&'a str>,
    plaintext: Option<&'a str>,
    aad: Option<&'a str>,
    ciphertext: Option<&'a str>,
    tag: Option<&'a str>,
    fails: bool,
    malformed: Option<&'static str>,
}

impl<'a> Reader<'a> {
    /// Reads what stands between brackets; returns whether it belongs to a GCM file.
    fn section(&mut self, section: &str) -> bool {
        self.finish_case();
        let Some((name, Ok(bits))) = section.split_once('=').map(|(name, bits)| (name.trim(), bits.trim().parse()))
        else {
            return false;
        };
        let size = match name {
            "Keylen" => &mut self.sizes.key,
            "IVlen" => &mut self.sizes.iv,
            "PTlen" => &mut self.sizes.plaintext,
            "AADlen" => &mut self.sizes.aad,
            "Taglen" => &mut self.sizes.tag,
            _ => return false,
        };
        *size = Some(bits);
        true
    }

    fn line(&mut self, line: &'a str) {
        let (name, value) = line.split_once('=').map_or((line, ""), |(name, value)| (name.trim(), value.trim()));
        if name == "Count" {
            self.finish_case();
            self.case = Some(Case { count: value, ..Case::default() });
            return;
        }
        let case = self.case.get_or_insert_default();
        let field = match name {
            "Key" => &mut case.key,
            "IV" => &mut case.iv,
            "PT" => &mut case.plaintext,
            "AAD" => &mut case.aad,
            "CT" => &mut case.ciphertext,
            "Tag" => &mut case.tag,
            "FAIL" if line == "FAIL" && !case.fails => {
                case.fails = true;
                return;
            }
            _ => {
                case.malformed = Some("a line that is not understood");
                return;
            }
        };
        if field.replace(value).is_some() {
            case.malformed = Some("a line that occurs twice");
        }
    }

    fn finish_case(&mut self) {
        let Some(case) = self.case.take() else { return };
        self.cases += 1;
        let name = |sizes: &Sizes| {
            let bits = |size: Option<usize>| size.unwrap_or_default();
            let (plaintext, aad) = (bits(sizes.plaintext), bits(sizes.aad));
            format!("count {} of PTlen {plaintext}, AADlen {aad}", case.count)
        };
        match case.run(&self.sizes) {
            Ok(Ok(check)) => self.tally.record(name(&self.sizes), check),
            Ok(Err(reason)) => *self.not_applicable.entry(reason).or_default() += 1,
            Err(reason) => self.tally.record(name(&self.sizes), Err(format!("malformed: {reason}"))),
        }
    }
}

impl Case<'_> {
    /// Runs the case on every backend: the check, or why it is not applicable.
    ///
    /// # Errors
    ///
    /// What is wrong with its lines.
    fn run(&self, sizes: &Sizes) -> Result<Result<Check, String>, &'static str> {
        if let Some(reason) = self.malformed {
            return Err(reason);
        }
        let key = decode(self.key, sizes.key)?;
        let iv = decode(self.iv, sizes.iv)?;
        let aad = decode(self.aad, sizes.aad)?;
        let ciphertext = decode(self.ciphertext, sizes.plaintext)?;
        let tag = decode(self.tag, sizes.tag)?;
        let plaintext = match (self.fails, self.plaintext) {
            (false, plaintext) => Some(decode(plaintext, sizes.plaintext)?),
            (true, None) => None,
            (true, Some(_)) => return Err("both PT and FAIL"),
        };
        let Ok(key) = <&[u8; 32]>::try_from(key.as_slice()) else {
            return Ok(Err(not_that_long("key", key.len())));
        };
        let Ok(nonce) = <[u8; 12]>::try_from(iv.as_slice()) else {
            return Ok(Err(not_that_long("nonce", iv.len())));
        };
        if tag.len() != TAG_LEN {
            return Ok(Err(not_that_long("tag", tag.len())));
        }
        let sealed = [ciphertext, tag].concat();
        for &backend in Backend::ALL {
            let cipher = Cipher::Gcm { backend, key, nonce, aad: &aad };
            let check = match &plaintext {
                Some(plaintext) => cipher.reproduces(plaintext, &sealed),
                None => cipher.refuses(&sealed),
            };
            if let Err(reason) = check {
                return Ok(Ok(Err(format!("{}: {reason}", backend.name()))));
            }
        }
        Ok(Ok(Ok(())))
    }
}

/// Decodes a value that the section says is `bits` long.
fn decode(value: Option<&str>, bits: Option<usize>) -> Result<Vec<u8>, &'static str> {
    let bytes = hex(value.ok_or("a line is missing")?).ok_or("not hexadecimal")?;
    if bytes.len().checked_mul(8) == bits { Ok(bytes) } else { Err("not as long as the section declares") }
}
