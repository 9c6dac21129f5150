//! Key records (§7) and frames (§14).

use super::{Key, gcm_open, gcm_seal, hex, hmac_sha256, join, xaes_key};
use keyfold::ErrorKind::{self, Malformed, Unsupported};
use sha2::{Digest, Sha256};

pub(crate) const DESTROYED: u8 = 6;
pub(crate) const UNDER_ROOT: u8 = 1;
pub(crate) const UNDER_KEK: u8 = 2;

#[derive(Clone, Debug)]
pub(crate) struct Wrap {
    pub(crate) kind: u8,
    pub(crate) alias: String,
    pub(crate) version: String,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) state: u8,
    pub(crate) key: Key,
    pub(crate) root: Key,
    pub(crate) scope_tag: [u8; 32],
    pub(crate) sequence: u64,
    /// Created, activated, changed.
    pub(crate) times: [u64; 3],
    pub(crate) environment: String,
    pub(crate) wraps: Vec<Wrap>,
    pub(crate) endorser: Option<Key>,
    pub(crate) extensions: Vec<(u16, Vec<u8>)>,
}

fn with_1_byte_length(part: &[u8]) -> Vec<u8> {
    join(&[&[part.len() as u8], part])
}

fn with_2_byte_length(part: &[u8]) -> Vec<u8> {
    join(&[&(part.len() as u16).to_be_bytes(), part])
}

impl Record {
    pub(crate) fn extensions(&self) -> Vec<u8> {
        let one = |(kind, content): &(u16, Vec<u8>)| join(&[&kind.to_be_bytes(), &with_2_byte_length(content)]);
        self.extensions.iter().flat_map(one).collect()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"KFR\x01".to_vec();
        out.extend([self.key.class, self.state]);
        out.extend(self.key.id());
        out.extend(self.key.commitment());
        out.extend(self.root.id());
        out.extend(self.key.lineage);
        out.extend(self.key.slot);
        out.extend(self.scope_tag);
        out.extend(self.sequence.to_be_bytes());
        self.times.iter().for_each(|time| out.extend(time.to_be_bytes()));
        out.extend(with_1_byte_length(self.environment.as_bytes()));
        out.push(self.wraps.len() as u8);
        for wrap in &self.wraps {
            out.push(wrap.kind);
            out.extend(with_1_byte_length(wrap.alias.as_bytes()));
            out.extend(with_1_byte_length(wrap.version.as_bytes()));
            out.extend(with_2_byte_length(&wrap.bytes));
        }
        match &self.endorser {
            None => out.push(0),
            Some(endorser) => {
                out.push(1);
                out.extend(endorser.id());
                let covered = join(&[&self.key.id(), &self.key.commitment(), &self.key.lineage]);
                out.extend(hmac_sha256(&endorser.purpose("keyfold/v1/root/endorsement", 32), &covered));
            }
        }
        out.extend(with_2_byte_length(&self.extensions()));
        let mac = hmac_sha256(&self.root.purpose("keyfold/v1/root/record-mac", 32), &out);
        join(&[&out, &mac])
    }
}

/// `key` under `root` (§7.3).
pub(crate) fn wrap_by_root(key: &Key, root: &Key, nonce: &[u8; 24]) -> Wrap {
    let aes_key = xaes_key(&root.purpose("keyfold/v1/root/child-wrap", 32), &nonce[..12]);
    let sealed = gcm_seal(&aes_key, &nonce[12..], &join(&[&key.identity(), &key.commitment()]), &key.bytes);
    Wrap { kind: UNDER_ROOT, alias: String::new(), version: String::new(), bytes: join(&[nonce, &sealed]) }
}

/// The key of a record that `root` vouches for and wraps, and no other.
pub(crate) fn open(record: &[u8], root: &Key) -> Option<Key> {
    let (covered, mac) = record.split_at(record.len().checked_sub(32)?);
    let is_vouched_for = mac == hmac_sha256(&root.purpose("keyfold/v1/root/record-mac", 32), covered);
    let wrap = 184 + usize::from(record[182]);
    if !faults(record).is_empty()
        || !is_vouched_for
        || record[62..86] != root.id()
        || record[wrap..wrap + 5] != [1, 0, 0, 0, 72]
    {
        return None;
    }
    let (nonce, sealed) = record[wrap + 5..wrap + 77].split_at(24);
    let aad = join(&[&record[86..102], &record[4..5], &record[102..118], &record[6..10], &record[30..62]]);
    let aes_key = xaes_key(&root.purpose("keyfold/v1/root/child-wrap", 32), &nonce[..12]);
    let key = Key {
        bytes: gcm_open(&aes_key, &nonce[12..], &aad, sealed)?.try_into().ok()?,
        lineage: record[86..102].try_into().ok()?,
        class: record[4],
        slot: record[102..118].try_into().ok()?,
        generation: u32::from_be_bytes(record[6..10].try_into().ok()?),
    };
    (key.commitment() == record[30..62] && key.id() == record[6..30]).then_some(key)
}

/// What a KEK wraps (§7.3).
pub(crate) fn kek_payload(key: &Key, environment: &str) -> Vec<u8> {
    let bound = join(&[b"keyfold/v1/kms-binding", &key.identity(), &key.commitment(), environment.as_bytes()]);
    join(&[&key.bytes, &Sha256::digest(bound)])
}

/// `kf:env`, `kf:key`, `kf:keyring` (§7.3).
pub(crate) fn kms_context(key: &Key, environment: &str) -> [(&'static str, String); 3] {
    [("kf:env", environment.to_owned()), ("kf:key", hex(&key.id())), ("kf:keyring", hex(&key.lineage))]
}

pub(crate) fn scope_tag(names: &Key, scope: &str) -> [u8; 32] {
    let tag = hmac_sha256(&names.purpose("keyfold/v1/lookup/scope-names", 32), scope.as_bytes());
    tag.try_into().expect("32 bytes")
}

/// Everything for which the bytes of a record are refused before anybody looks at its MAC (§7.1, §7.2, §7.5).
pub(crate) fn faults(record: &[u8]) -> Vec<ErrorKind> {
    let mut faults = Vec::new();
    if read(record, &mut faults).is_none() {
        faults.push(Malformed);
    }
    faults
}

/// `None`: something is missing.
fn read(record: &[u8], faults: &mut Vec<ErrorKind>) -> Option<()> {
    let mut rest = record;
    let mut take = |n: usize| {
        let (taken, after) = rest.split_at_checked(n)?;
        rest = after;
        Some(taken)
    };
    let long = |bytes: &[u8]| usize::from(bytes[0]) * 256 + usize::from(bytes[1]);
    let mut fault = |is: bool, kind: ErrorKind| {
        if is {
            faults.push(kind)
        }
    };
    fault(record.len() > 40_960, Malformed);
    fault(take(3)? != b"KFR", Malformed);
    fault(take(1)? != [1], Unsupported);
    let class = take(1)?[0];
    fault(!(1..=4).contains(&class), Unsupported);
    let state = take(1)?[0];
    fault(!(1..=6).contains(&state), Unsupported);
    let (key_id, commitment) = (take(24)?, take(32)?);
    fault(key_id[4..] != commitment[..20] || key_id[..4] == [0; 4], Malformed);
    take(24 + 16 + 16 + 32 + 4 * 8)?;
    let len = take(1)?[0];
    let environment = take(len.into())?;
    let allowed = |with_dot: bool| {
        move |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_') || with_dot && *byte == b'.'
    };
    fault(!(1..=64).contains(&len) || !environment.iter().all(allowed(true)), Malformed);
    let wraps = take(1)?[0];
    fault(wraps > 8 || (state == DESTROYED) != (wraps == 0), Malformed);
    for _ in 0..wraps {
        let kind = take(1)?[0];
        let len = take(1)?[0];
        let alias = take(len.into())?;
        let len = take(1)?[0];
        let version = take(len.into())?;
        let len = long(take(2)?);
        let bytes = take(len)?;
        match kind {
            0x00 => fault(true, Malformed),
            0x01 => fault(!alias.is_empty() || !version.is_empty() || bytes.len() != 72, Malformed),
            0x02 => {
                fault(!(1..=64).contains(&alias.len()) || !alias.iter().all(allowed(false)), Malformed);
                fault(std::str::from_utf8(version).is_err(), Malformed);
            }
            0x03..=0x7F => {}
            _ => fault(true, Unsupported),
        }
        fault(bytes.len() > 4096, Malformed);
    }
    let endorsement = take(1)?[0];
    fault(endorsement > 1 || (endorsement == 1 && class != 1), Malformed);
    if endorsement == 1 {
        take(24 + 32)?;
    }
    let len = long(take(2)?);
    let mut extensions = take(len)?;
    let mut last = None;
    while !extensions.is_empty() {
        let (head, after) = extensions.split_at_checked(4)?;
        let kind = long(head);
        fault(last.is_some_and(|last| last >= kind), Malformed);
        fault(kind >= 0x8000, Unsupported);
        last = Some(kind);
        extensions = after.split_at_checked(long(&head[2..]))?.1;
    }
    take(32)?;
    fault(!rest.is_empty(), Malformed);
    Some(())
}

/// `value` with the records of its key and of the root that vouches for that (§14.1).
pub(crate) fn frame(record: &[u8], root: &[u8], value: &[u8]) -> Vec<u8> {
    let records = join(&[&with_2_byte_length(record), &with_2_byte_length(root)]);
    join(&[&[0xF5, 0x03], &value[2..26], &(records.len() as u32).to_be_bytes(), &records, value])
}
