//! What is in the file of a KEK with a passphrase.

use super::Argon2Params;
use crate::key_file::{self, damaged, wrong_first_line};
use data_encoding::HEXLOWER;
use keyfold::Result;
use sha2::{Digest, Sha256};
use std::path::Path;

const FAMILY: &str = "keyfold-passphrase-kek-";
const FIRST_LINE: &[u8; 25] = b"keyfold-passphrase-kek-1\n";
/// 32 bytes of key, and 8 of KWP's integrity value.
pub(super) const WRAPPED_LEN: usize = 32 + aes_kw::IV_LEN;
/// More than any such file has.
const MAX_FILE_LEN: usize = 512;

/// The file. Worth nothing without the passphrase, as much as that is worth.
pub(super) struct Sealed {
    pub(super) params: Argon2Params,
    pub(super) salt: [u8; 16],
    pub(super) wrapped: [u8; WRAPPED_LEN],
}

impl Sealed {
    /// Salt and wrapped key, which are random.
    pub(super) fn id(&self) -> String {
        HEXLOWER.encode(&self.salt) + &HEXLOWER.encode(&self.wrapped)
    }

    fn encode(&self) -> Vec<u8> {
        let Argon2Params { memory, passes, lanes } = self.params;
        let (salt, wrapped) = (HEXLOWER.encode(&self.salt), HEXLOWER.encode(&self.wrapped));
        let mut text = FIRST_LINE.to_vec();
        text.extend_from_slice(format!("argon2id m={memory} t={passes} p={lanes}\n{salt}\n{wrapped}\n").as_bytes());
        let digest = Sha256::digest(&text);
        text.extend_from_slice(HEXLOWER.encode(&digest[..8]).as_bytes());
        text.push(b'\n');
        text
    }
}

pub(super) fn create(path: &Path, sealed: &Sealed) -> Result<()> {
    key_file::create(path, &sealed.encode())
}

pub(super) fn read(path: &Path) -> Result<Sealed> {
    let mut text = [0; MAX_FILE_LEN];
    let len = key_file::read(path, &mut text)?;
    let text = &text[..len];
    if !text.starts_with(FIRST_LINE) {
        return Err(wrong_first_line(text, FAMILY, FIRST_LINE, path));
    }
    let sealed = parse(text).ok_or_else(|| damaged("its lines are not those of such a file", path))?;
    let Some(sealed) = sealed else {
        return Err(damaged("the parameters of Argon2id are outside of the bounds", path));
    };
    // One comparison covers the checksum, the spelling of numbers and everything after the last line.
    if text == sealed.encode() { Ok(sealed) } else { Err(damaged("its checksum does not fit", path)) }
}

/// The parts of the file, not yet checked against their checksum; `Some(None)`: with parameters outside of the bounds.
// F-A-3.
fn parse(text: &[u8]) -> Option<Option<Sealed>> {
    let mut lines = std::str::from_utf8(text).ok()?.lines().skip(1);
    let mut params = lines.next()?.strip_prefix("argon2id ")?.split(' ');
    let mut number = |name: &str| params.next()?.strip_prefix(name)?.parse::<u32>().ok();
    let (memory, passes, lanes) = (number("m=")?, number("t=")?, number("p=")?);
    let mut hex = || HEXLOWER.decode(lines.next()?.as_bytes()).ok();
    let (salt, wrapped) = (hex()?.try_into().ok()?, hex()?.try_into().ok()?);
    Some(Argon2Params::new(memory, passes, lanes).ok().map(|params| Sealed { params, salt, wrapped }))
}
