//! Key records as bytes (FORMAT.md §7). Knows the layout, not whether a record is genuine.

use super::{KeyId, Reader};
use crate::error::{Error, ErrorKind, Result};
use crate::keys::{KeyClass, Lineage, SlotId};
use crate::kms::{KekAlias, WrappedKey};
use crate::record::KeyState;

/// "KFR" and the version of the layout.
const MAGIC: &[u8; 4] = b"KFR\x01";
pub(crate) const MAC_LEN: usize = 32;
/// A child key under its root: nonce (24) ‖ ciphertext (32) ‖ tag (16).
pub(crate) const ROOT_WRAP_LEN: usize = 72;
pub(crate) const MAX_ENVIRONMENT_LEN: usize = 64;
pub(crate) const MAX_WRAP_COUNT: usize = 8;
/// Longest record: eight wraps of the longest kind and full extensions fit.
pub(crate) const MAX_RECORD_LEN: usize = 40 * 1024;
/// Extension types from here on must be understood by whoever reads the record.
const CRITICAL: u16 = 0x8000;
/// Wrap types from here on must be understood by whoever reads the record.
const CRITICAL_WRAP: u8 = 0x80;

/// The key of a record under one wrapping key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Wrap {
    /// Under the root that authenticates the record.
    Root([u8; ROOT_WRAP_LEN]),
    /// Under a KEK, named by alias.
    Kek { alias: KekAlias, wrapped: WrappedKey },
    /// Of a kind that a newer version added beside those that this build knows: kept byte for byte, never used.
    Unknown { kind: u8, alias: Vec<u8>, version: Vec<u8>, bytes: Vec<u8> },
}

impl Wrap {
    const ROOT: u8 = 1;
    const KEK: u8 = 2;
}

/// A root's word for a later root.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Endorsement {
    pub(crate) by: KeyId,
    pub(crate) mac: [u8; MAC_LEN],
}

/// Everything in a record before its MAC.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Body {
    pub(crate) class: KeyClass,
    pub(crate) state: KeyState,
    pub(crate) key_id: KeyId,
    pub(crate) commitment: [u8; 32],
    /// The root whose MAC ends the record; of a live root, itself.
    pub(crate) authenticator: KeyId,
    pub(crate) lineage: Lineage,
    pub(crate) slot: SlotId,
    /// Keyed name of the scope; zeros where there is none.
    pub(crate) scope_tag: [u8; 32],
    pub(crate) sequence: u64,
    pub(crate) created_at: u64,
    pub(crate) activated_at: u64,
    pub(crate) changed_at: u64,
    pub(crate) environment: String,
    pub(crate) wraps: Vec<Wrap>,
    pub(crate) endorsement: Option<Endorsement>,
    /// Kept byte for byte and covered by the MAC, so that an older build does not lose what a newer one added.
    pub(crate) extensions: Vec<u8>,
}

impl Body {
    /// Extension without content: the key was made under KEKs of its own. Tells whoever makes the next one, also from
    /// a tombstone, which has no wraps.
    pub(crate) const ISOLATED: u16 = 1;
    /// Extension of a key under legal hold: since when, in seconds since 1970 by the store's clock (8 bytes).
    pub(crate) const HOLD: u16 = 2;
    /// Extension without content: the key was compromised before its destruction was scheduled. Whoever takes that
    /// back must not make it a good key again.
    pub(crate) const COMPROMISED: u16 = 3;

    /// The extensions of a key that has `kind` alone, without content.
    pub(crate) fn extension(kind: u16) -> Vec<u8> {
        let [high, low] = kind.to_be_bytes();
        vec![high, low, 0, 0]
    }

    pub(crate) fn has_extension(&self, kind: u16) -> bool {
        self.extension_of(kind).is_some()
    }

    /// The content of the extension `kind`.
    pub(crate) fn extension_of(&self, kind: u16) -> Option<&[u8]> {
        self.all_extensions().find(|(found, _)| *found == kind).map(|(_, content)| content)
    }

    fn all_extensions(&self) -> impl Iterator<Item = (u16, &[u8])> {
        let mut rest = &self.extensions[..];
        std::iter::from_fn(move || {
            let [high, low, len_high, len_low, after @ ..] = rest else { return None };
            let (content, next) = after.split_at_checked(u16::from_be_bytes([*len_high, *len_low]).into())?;
            rest = next;
            Some((u16::from_be_bytes([*high, *low]), content))
        })
    }

    /// Adds or replaces the extension `kind`, or with `None` removes it. The others stay, in ascending order.
    ///
    /// # Errors
    ///
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): the record has no room for it.
    pub(crate) fn set_extension(&mut self, kind: u16, content: Option<&[u8]>) -> Result<()> {
        let others = self.all_extensions().filter(|(found, _)| *found != kind);
        let mut all: Vec<_> = others.chain(content.map(|content| (kind, content))).collect();
        all.sort_by_key(|(kind, _)| *kind);
        let mut out = Vec::new();
        for (kind, content) in all {
            out.extend_from_slice(&kind.to_be_bytes());
            push_long(&mut out, content);
        }
        if out.len() > usize::from(u16::MAX) {
            return Err(Error::new(ErrorKind::LimitExceeded, "the key record has no room for another extension"));
        }
        self.extensions = out;
        Ok(())
    }

    /// The bytes that the MAC covers.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(MAGIC);
        out.push(self.class.id());
        out.push(self.state.id());
        out.extend_from_slice(self.key_id.as_bytes());
        out.extend_from_slice(&self.commitment);
        out.extend_from_slice(self.authenticator.as_bytes());
        out.extend_from_slice(self.lineage.as_bytes());
        out.extend_from_slice(self.slot.as_bytes());
        out.extend_from_slice(&self.scope_tag);
        for number in [self.sequence, self.created_at, self.activated_at, self.changed_at] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        push_short(&mut out, self.environment.as_bytes());
        out.push(u8::try_from(self.wraps.len()).expect("at most MAX_WRAP_COUNT"));
        for wrap in &self.wraps {
            match wrap {
                Wrap::Root(bytes) => {
                    out.push(Wrap::ROOT);
                    push_short(&mut out, b"");
                    push_short(&mut out, b"");
                    push_long(&mut out, bytes);
                }
                Wrap::Kek { alias, wrapped } => {
                    out.push(Wrap::KEK);
                    push_short(&mut out, alias.as_str().as_bytes());
                    push_short(&mut out, wrapped.kek_version.as_bytes());
                    push_long(&mut out, &wrapped.bytes);
                }
                Wrap::Unknown { kind, alias, version, bytes } => {
                    out.push(*kind);
                    push_short(&mut out, alias);
                    push_short(&mut out, version);
                    push_long(&mut out, bytes);
                }
            }
        }
        match &self.endorsement {
            None => out.push(0),
            Some(endorsement) => {
                out.push(1);
                out.extend_from_slice(endorsement.by.as_bytes());
                out.extend_from_slice(&endorsement.mac);
            }
        }
        push_long(&mut out, &self.extensions);
        out
    }

    /// Takes a record apart; returns its body and its MAC. Accepts only what [`encode`](Self::encode) produces.
    ///
    /// # Errors
    ///
    /// - [`Malformed`](ErrorKind::Malformed): not a record, truncated, trailing bytes or not canonical.
    /// - [`Unsupported`](ErrorKind::Unsupported): a layout, class, state, critical wrap or critical extension that
    ///   this build does not know.
    pub(crate) fn parse(bytes: &[u8]) -> Result<(Self, [u8; MAC_LEN])> {
        const MALFORMED: Error = Error::new(ErrorKind::Malformed, "not a canonical key record");
        const NEWER: Error =
            Error::new(ErrorKind::Unsupported, "the key record has a class or state that this build does not know");
        // F-7.1-2.
        if bytes.len() > MAX_RECORD_LEN {
            return Err(MALFORMED);
        }
        let mut r = Reader::new(bytes);
        let magic = r.array::<4>()?;
        if magic[..3] != MAGIC[..3] {
            return Err(MALFORMED);
        }
        if magic != MAGIC {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the key record has a layout that this build does not know",
            ));
        }
        let body = Self {
            // F-7.1-1.
            class: KeyClass::from_id(r.u8()?).ok_or(NEWER)?,
            state: KeyState::from_id(r.u8()?).ok_or(NEWER)?,
            key_id: KeyId::from_bytes(*r.array()?),
            commitment: *r.array()?,
            authenticator: KeyId::from_bytes(*r.array()?),
            lineage: Lineage::from_bytes(*r.array()?),
            slot: SlotId::from_bytes(*r.array()?),
            scope_tag: *r.array()?,
            // F-7.1-7.
            sequence: r.u64()?,
            created_at: r.u64()?,
            activated_at: r.u64()?,
            changed_at: r.u64()?,
            // F-7.1-4.
            environment: Some(text(r.short()?, MAX_ENVIRONMENT_LEN)?)
                .filter(|text| is_environment(text))
                .ok_or(MALFORMED)?,
            wraps: parse_wraps(&mut r)?,
            // F-7.1-6.
            endorsement: match r.u8()? {
                0 => None,
                1 => Some(Endorsement { by: KeyId::from_bytes(*r.array()?), mac: *r.array()? }),
                _ => return Err(MALFORMED),
            },
            // F-1-1.
            extensions: parse_extensions(r.long()?)?.to_vec(),
        };
        let mac = *r.array()?;
        let tombstone = body.state == KeyState::Destroyed;
        // F-7.1-3, F-7.1-5, F-7.1-6.
        let consistent = body.key_id == KeyId::new(body.key_id.generation(), &body.commitment)
            && body.key_id.generation() != 0
            && body.wraps.is_empty() == tombstone
            && (body.endorsement.is_none() || body.class == KeyClass::Root);
        if !r.rest().is_empty() || !consistent {
            return Err(MALFORMED);
        }
        Ok((body, mac))
    }
}

/// Whether `text` can be the name of an environment: 1 to 64 of `a`–`z`, `0`–`9`, `-`, `_`, `.`.
pub(crate) fn is_environment(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= MAX_ENVIRONMENT_LEN && text.bytes().all(allowed)
}

fn parse_wraps(r: &mut Reader<'_>) -> Result<Vec<Wrap>> {
    let count = usize::from(r.u8()?);
    // F-7.1-5.
    if count > MAX_WRAP_COUNT {
        return Err(Error::new(ErrorKind::Malformed, "a key record has at most 8 wraps"));
    }
    (0..count)
        .map(|_| {
            let kind = r.u8()?;
            let alias = r.short()?;
            let version = r.short()?;
            let bytes = r.long()?;
            match kind {
                // F-7.2-2.
                Wrap::ROOT if alias.is_empty() && version.is_empty() => {
                    Ok(Wrap::Root(bytes.try_into().map_err(|_| ErrorKind::Malformed)?))
                }
                // F-7.2-3, F-7.2-6.
                Wrap::KEK if bytes.len() <= WrappedKey::MAX_LEN => Ok(Wrap::Kek {
                    alias: KekAlias::new(&text(alias, KekAlias::MAX_LEN)?).map_err(|_| ErrorKind::Malformed)?,
                    wrapped: WrappedKey {
                        kek_version: text(version, WrappedKey::MAX_VERSION_LEN)?,
                        bytes: bytes.to_vec(),
                    },
                }),
                // F-7.2-1.
                0 | Wrap::ROOT | Wrap::KEK => Err(ErrorKind::Malformed.into()),
                // F-7.2-4, F-7.2-6.
                _ if kind < CRITICAL_WRAP && bytes.len() <= WrappedKey::MAX_LEN => {
                    Ok(Wrap::Unknown { kind, alias: alias.to_vec(), version: version.to_vec(), bytes: bytes.to_vec() })
                }
                _ if kind < CRITICAL_WRAP => Err(ErrorKind::Malformed.into()),
                _ => {
                    // F-7.2-5.
                    Err(Error::new(ErrorKind::Unsupported, "the key record has a critical wrap unknown to this build"))
                }
            }
        })
        .collect()
}

/// Checks a list of extensions: type (2) ‖ length (2) ‖ bytes, in strictly ascending order of type.
fn parse_extensions(bytes: &[u8]) -> Result<&[u8]> {
    let mut r = Reader::new(bytes);
    let mut last = None;
    let mut remaining = bytes.len();
    while remaining > 0 {
        let kind = r.u16()?;
        let value = r.long()?;
        remaining -= 4 + value.len();
        // F-7.5-1.
        if last.is_some_and(|last| kind <= last) {
            return Err(ErrorKind::Malformed.into());
        }
        // F-7.5-4, F-7.5-5.
        if kind >= CRITICAL {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the key record has a critical extension unknown to this build",
            ));
        }
        last = Some(kind);
    }
    Ok(bytes)
}

fn text(bytes: &[u8], max_len: usize) -> Result<String> {
    match core::str::from_utf8(bytes) {
        Ok(text) if text.len() <= max_len => Ok(text.to_owned()),
        _ => Err(ErrorKind::Malformed.into()),
    }
}

fn push_short(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(u8::try_from(bytes.len()).expect("checked when the part was made: at most 255 bytes"));
    out.extend_from_slice(bytes);
}

fn push_long(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u16::try_from(bytes.len()).expect("checked when the part was made: at most 65,535 bytes");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
}
