//! Opening values (FORMAT.md §8): one by one, or a column into one buffer.

use super::{ColumnBytes, Erased, OpenedColumn};
use crate::aead::{GcmKey, GcmKeys, HeldSivCipher, SivKey, XaesKey};
use crate::context::Strings;
use crate::error::{ErrorKind, Result};
use crate::row::split_nonce;
use crate::value::{Value, ValueType};
use crate::wire::{
    DETERMINISTIC_OVERHEAD, FIELD_OVERHEAD, GCM_NONCE_LEN, KeyId, NONCE_LEN, PREFIX_LEN, Sealed, TAG_LEN,
};
use std::collections::HashMap;
use zeroize::Zeroize;

/// One opened value. Erased on drop.
pub(crate) struct OpenedValue {
    /// The encoded value, and the tag behind it.
    data: Erased,
    value_type: ValueType,
    len: usize,
}

impl OpenedValue {
    /// Opens a suite 01 value under `key`.
    pub(crate) fn field(key: &XaesKey, sealed: &Sealed<'_>, aad: &[u8]) -> Result<Self> {
        let (nonce, body) = sealed.body().split_first_chunk::<NONCE_LEN>().ok_or(ErrorKind::Malformed)?;
        let (prefix, last) = split_nonce(nonce);
        let mut data = Erased(body.to_vec());
        // F-8.1-11.
        let encoded = key.with_derived(prefix, |key| key.open(*last, aad, &mut data.0))?;
        let (value_type, bytes) = Value::split_encoded(encoded).ok_or(ErrorKind::DecryptionFailed)?;
        let len = bytes.len();
        Ok(Self { data, value_type, len })
    }

    /// Opens a suite 02 value under `key`.
    pub(crate) fn deterministic(key: &SivKey, sealed: &Sealed<'_>, strings: &Strings) -> Result<Self> {
        let (iv, body) = sealed.body().split_first_chunk::<TAG_LEN>().ok_or(ErrorKind::Malformed)?;
        let mut data = Erased(body.to_vec());
        key.with_cipher(|cipher| cipher.open(&strings.with(sealed.header()), iv, &mut data.0))?;
        let (value_type, bytes) = Value::split_encoded(&data.0).ok_or(ErrorKind::DecryptionFailed)?;
        let len = bytes.len();
        Ok(Self { data, value_type, len })
    }

    /// The value: what follows the format byte.
    pub(crate) fn value(&self) -> Value<'_> {
        Value::from_canonical(self.value_type, &self.data.0[1..=self.len]).expect("checked when the value was opened")
    }
}

/// Opens rows one after the other into one buffer, and keeps the keys that were derived for recent prefixes (DESIGN F6).
pub(crate) struct Opening {
    out: OpenedColumn,
    prefixes: PrefixCache,
    /// The cipher of the latest deterministic value.
    siv: Option<(KeyId, HeldSivCipher)>,
}

impl Opening {
    pub(crate) fn new(sealed: &(impl ColumnBytes + ?Sized)) -> Self {
        let rows = sealed.len();
        let len: usize = (0..rows).map(|row| sealed.bytes(row).len().saturating_sub(DETERMINISTIC_OVERHEAD)).sum();
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        let out = OpenedColumn {
            data: Erased(Vec::with_capacity(len + FIELD_OVERHEAD)),
            offsets,
            types: Vec::with_capacity(rows),
            outdated: 0,
            compromised: 0,
        };
        Self { out, prefixes: PrefixCache::default(), siv: None }
    }

    /// Opens a suite 01 value under `key`.
    #[inline]
    pub(crate) fn field(&mut self, key: &XaesKey, sealed: &Sealed<'_>, aad: &[u8]) -> Result<()> {
        let (prefix, body) = sealed.body().split_first_chunk().ok_or(ErrorKind::Malformed)?;
        self.prefixes.hold(key, sealed.key_id(), prefix);
        self.next_field(body, aad)
    }

    /// Opens what follows the prefix of a suite 01 value that has key and prefix of the one before.
    #[inline]
    pub(crate) fn next_field(&mut self, body: &[u8], aad: &[u8]) -> Result<()> {
        let key = self.prefixes.held().ok_or(ErrorKind::Internal)?;
        let (nonce, body) = body.split_first_chunk::<GCM_NONCE_LEN>().ok_or(ErrorKind::Malformed)?;
        let start = self.out.data.0.len();
        self.out.data.0.extend_from_slice(body);
        let opened = key.open(*nonce, aad, &mut self.out.data.0[start..]).is_ok();
        self.take(start, body.len() - TAG_LEN, opened)
    }

    /// Opens a suite 05 body under the key of its document.
    pub(crate) fn body(&mut self, key: &GcmKey, body: &[u8], aad: &[u8]) -> Result<()> {
        let (nonce, body) = body.split_first_chunk::<GCM_NONCE_LEN>().ok_or(ErrorKind::Malformed)?;
        let start = self.out.data.0.len();
        self.out.data.0.extend_from_slice(body);
        let opened = key.open(*nonce, aad, &mut self.out.data.0[start..]).is_ok();
        self.take(start, body.len() - TAG_LEN, opened)
    }

    /// Opens a suite 02 value under `key`.
    pub(crate) fn deterministic(&mut self, key: &SivKey, sealed: &Sealed<'_>, strings: &Strings) -> Result<()> {
        let (iv, body) = sealed.body().split_first_chunk::<TAG_LEN>().ok_or(ErrorKind::Malformed)?;
        let start = self.out.data.0.len();
        self.out.data.0.extend_from_slice(body);
        if self.siv.as_ref().is_none_or(|(id, _)| *id != sealed.key_id()) {
            self.siv = Some((sealed.key_id(), key.held_cipher()));
        }
        let cipher = &mut self.siv.as_mut().expect("set above").1;
        let opened = cipher.open(&strings.with(sealed.header()), iv, &mut self.out.data.0[start..]).is_ok();
        self.take(start, body.len(), opened)
    }

    /// Turns the encoded value at `start` into a row: checks it, and drops its format byte and padding.
    #[inline]
    fn take(&mut self, start: usize, encoded_len: usize, opened: bool) -> Result<()> {
        let encoded = &self.out.data.0[start..start + encoded_len];
        let split = if opened { Value::split_encoded(encoded).map(|(kind, bytes)| (kind, bytes.len())) } else { None };
        let Some((value_type, len)) = split else {
            // F-1-2, F-1-3, F-8.1-12.
            self.out.data.0[start..].zeroize();
            self.out.data.0.truncate(start);
            return Err(ErrorKind::DecryptionFailed.into());
        };
        self.out.data.0.copy_within(start + 1..start + 1 + len, start);
        self.out.data.0.truncate(start + len);
        self.out.types.push(value_type);
        self.out.offsets.push(self.out.data.0.len() as i64);
        Ok(())
    }

    /// Counts rows that were opened.
    pub(crate) fn count(&mut self, rows: usize, is_outdated: bool, is_compromised: bool) {
        self.out.outdated += if is_outdated { rows } else { 0 };
        self.out.compromised += if is_compromised { rows } else { 0 };
    }

    pub(crate) fn finish(self) -> OpenedColumn {
        self.out
    }
}

/// The AES-256-GCM keys of nonce prefixes.
#[derive(Default)]
struct PrefixCache {
    places: HashMap<(KeyId, [u8; PREFIX_LEN]), usize>,
    keys: GcmKeys,
    /// The place in `keys` of that of the latest value.
    latest: usize,
}

impl PrefixCache {
    /// Rows of up to this many batches open in any order without deriving again. Half a kilobyte each.
    const MOST: usize = 4096;

    /// Makes the key of `prefix` be the one that is held. Whether it had to be derived.
    fn hold(&mut self, key: &XaesKey, key_id: KeyId, prefix: &[u8; PREFIX_LEN]) -> bool {
        if let Some(&place) = self.places.get(&(key_id, *prefix)) {
            self.latest = place;
            return false;
        }
        if self.keys.len() == Self::MOST {
            // Begins anew, which costs less than to keep account of which was used last.
            self.places.clear();
            self.keys.clear();
        }
        self.latest = self.keys.len();
        self.places.insert((key_id, *prefix), self.latest);
        key.add_derived(prefix, &mut self.keys);
        true
    }

    #[inline]
    fn held(&self) -> Option<&GcmKey> {
        self.keys.get(self.latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aead::Backend;
    use crate::keys::Secret;
    use crate::random;

    /// Derivations for the rows of `batches` batches of 16 rows, which come one from each batch in turn.
    fn derivations(batches: usize) -> usize {
        let key = XaesKey::new(Backend::default(), &Secret::with(|k: &mut [u8; 32]| k.fill(1)));
        let mut cache = PrefixCache::default();
        let prefixes: Vec<_> = (0..batches).map(|_| random::array().unwrap()).collect();
        let rows = (0..16).flat_map(|_| &prefixes);
        rows.filter(|prefix| cache.hold(&key, KeyId::from_bytes([1; KeyId::LEN]), prefix)).count()
    }

    #[test]
    fn each_batch_costs_one_derivation_in_whatever_order_its_rows_come() {
        assert_eq!(derivations(1000), 1000);
        assert_eq!(derivations(PrefixCache::MOST), PrefixCache::MOST);
        assert_eq!(
            derivations(PrefixCache::MOST + 1),
            16 * (PrefixCache::MOST + 1),
            "begun anew each time, and never more than one per row"
        );
    }
}
