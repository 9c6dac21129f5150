//! Fields under a single provisioned key, for devices: no operating system, no allocation (DESIGN §3).
//!
//! Writes the same bytes as a keyring does. The key comes in a [`Bundle`]; the device library for C rests on this.

mod bundle;
mod counter;

#[cfg(feature = "std")]
pub(crate) use bundle::Issue;
pub use bundle::{BUNDLE_LEN, Bundle, DEVICE_ID_LEN, PassphraseCost, Protection};
pub use counter::{Counter, Device, SLOT_LEN, Slots};

use crate::aead::{Backend, XaesKey};
use crate::context::write_aad;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::{KeyClass, KeyIdentity, KeySchedule, Lineage, Purpose, Secret, SlotId};
use crate::row::{encode_row, row_start, seal_row, split_nonce};
use crate::value::{Padding, Value};
use crate::wire::{FIELD_OVERHEAD, Generation, HEADER_LEN, KeyId, NONCE_LEN, Sealed, Suite, header};
use zeroize::Zeroize;

/// Most bytes of an encoded context, row binding included, that a device has room for.
pub const MAX_CONTEXT_LEN: usize = 512;
/// Bytes of an AAD without name and context: header and label, and kind and length of the name.
const FIXED_LEN: usize = HEADER_LEN + 17 + 2;
/// Longest AAD that a device builds.
const MAX_AAD_LEN: usize = FIXED_LEN + 255 + MAX_CONTEXT_LEN;

const TOO_SMALL: Error = Error::new(ErrorKind::LimitExceeded, "the output buffer is smaller than sealed_len");

/// Writes the canonical bytes of `value` into the front of `out` and returns them. Cannot panic, as nothing here can.
///
/// # Errors
///
/// - [`LimitExceeded`](ErrorKind::LimitExceeded): `out` is shorter than [`canonical_len`](Value::canonical_len).
pub fn canonical<'o>(value: &Value<'_>, out: &'o mut [u8]) -> Result<&'o mut [u8]> {
    const SHORT: Error = Error::new(ErrorKind::LimitExceeded, "the output buffer is smaller than canonical_len");
    let out = out.get_mut(..value.canonical_len()).ok_or(SHORT)?;
    value.try_write_canonical(out).ok_or(SHORT)?;
    Ok(out)
}

/// Seals and opens fields of one scope under one data key.
pub struct DeviceKey {
    key_id: KeyId,
    field: XaesKey,
}

/// What a value is bound to: the field's name and pairs in ascending order of key, `kf:row` among them.
#[derive(Clone, Copy)]
pub struct Binding<'a> {
    /// The field's name.
    pub field: &'a str,
    /// Key/value pairs; authenticated, never stored.
    pub pairs: &'a [(&'a [u8], &'a [u8])],
}

impl Binding<'_> {
    fn write_aad<'b>(&self, buffer: &'b mut [u8; MAX_AAD_LEN], header: &[u8; HEADER_LEN]) -> Result<&'b [u8]> {
        // The same for names of every length.
        let len = FIXED_LEN + self.field.len().min(255) + MAX_CONTEXT_LEN;
        write_aad(buffer.get_mut(..len).unwrap_or_default(), header, self.field, self.pairs)
    }
}

impl DeviceKey {
    /// The data key `key` of the scope `scope`.
    #[must_use]
    pub fn new(backend: Backend, key: &Secret<32>, lineage: Lineage, scope: SlotId, generation: Generation) -> Self {
        let identity = KeyIdentity { lineage, class: KeyClass::Data, slot: scope, generation };
        let schedule = KeySchedule::new(key, identity);
        Self { key_id: schedule.key_id(), field: XaesKey::new(backend, &schedule.expand(Purpose::Field)) }
    }

    /// The ID of the key.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Bytes that `value` takes when sealed.
    #[must_use]
    pub fn sealed_len(value: &Value<'_>) -> usize {
        FIELD_OVERHEAD - 1 + value.encoded_len(Padding::None)
    }

    /// Seals `value` into the front of `out` and returns those bytes. `random` fills its argument with fresh random
    /// bytes from a trusted generator.
    ///
    /// # Errors
    ///
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): value, name or pairs are too long, or `out` is too small.
    /// - [`InvalidInput`](ErrorKind::InvalidInput): the pairs do not ascend, or the value has no canonical encoding.
    /// - Whatever `random` returns. `out` is unchanged in each case, or erased.
    pub fn seal<'o>(
        &self,
        value: Value<'_>,
        binding: Binding<'_>,
        out: &'o mut [u8],
        random: impl FnOnce(&mut [u8; NONCE_LEN]) -> Result<()>,
    ) -> Result<&'o mut [u8]> {
        value.check()?;
        let out = out.get_mut(..Self::sealed_len(&value)).ok_or(TOO_SMALL)?;
        let header = header(Suite::Field, &self.key_id);
        let mut buffer = [0; MAX_AAD_LEN];
        let aad = binding.write_aad(&mut buffer, &header)?;
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce)?;
        let (prefix, last) = split_nonce(&nonce);
        whole_or_erased(out, |out| {
            encode_row(&row_start(&header, prefix), value, Padding::None, out)?;
            self.field.with_derived(prefix, |key| seal_row(key, &mut { *last }, aad, out))
        })?;
        Ok(out)
    }

    /// Opens `sealed`, using `scratch` for the plaintext, which the returned value borrows.
    ///
    /// # Errors
    ///
    /// - [`Malformed`](ErrorKind::Malformed), [`Unsupported`](ErrorKind::Unsupported): not a value that this build opens.
    /// - [`NoMatchingKey`](ErrorKind::NoMatchingKey): sealed under another key.
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): `scratch` is shorter than `sealed`.
    /// - [`DecryptionFailed`](ErrorKind::DecryptionFailed): anything else; `scratch` has been zeroed.
    pub fn open<'s>(&self, sealed: &[u8], binding: Binding<'_>, scratch: &'s mut [u8]) -> Result<Value<'s>> {
        let sealed = Sealed::parse(sealed)?;
        if sealed.suite() != Suite::Field {
            return Err(Error::new(ErrorKind::Unsupported, "a device opens suite 01 only"));
        }
        if sealed.key_id() != self.key_id {
            return Err(ErrorKind::NoMatchingKey.into());
        }
        let mut buffer = [0; MAX_AAD_LEN];
        let aad = binding.write_aad(&mut buffer, sealed.header())?;
        let (nonce, body) = sealed.body().split_first_chunk::<NONCE_LEN>().ok_or(ErrorKind::Malformed)?;
        let (prefix, last) = split_nonce(nonce);
        let scratch = scratch
            .get_mut(..body.len())
            .ok_or(Error::new(ErrorKind::LimitExceeded, "the scratch buffer is smaller than the sealed value"))?;
        scratch.copy_from_slice(body);
        let encoded = self.field.with_derived(prefix, |key| key.open(*last, aad, scratch))?;
        let decoded = Value::split_encoded(encoded).and_then(|(kind, bytes)| Value::from_canonical(kind, bytes));
        decoded.ok_or_else(|| ErrorKind::DecryptionFailed.into())
    }
}

/// What `seal` makes in `out`. If it fails, `out` is erased: the value may be there in clear by then.
fn whole_or_erased(out: &mut [u8], seal: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<()> {
    seal(out).inspect_err(|_| out.zeroize())
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;

    fn key() -> DeviceKey {
        let key = Secret::with(|k: &mut [u8; 32]| k.fill(5));
        DeviceKey::new(Backend::RustCrypto, &key, Lineage::from_bytes([1; 16]), SlotId::from_bytes([2; 16]), 9)
    }

    #[test]
    fn nothing_of_a_value_stays_where_sealing_fails() {
        let mut out = [7; 4 + FIELD_OVERHEAD];
        let refused = whole_or_erased(&mut out, |out| {
            let header = header(Suite::Field, &key().key_id);
            encode_row(&row_start(&header, &[3; 12]), Value::Text("SN-1"), Padding::None, out)?;
            Err(ErrorKind::LimitExceeded.into())
        });
        assert_eq!((refused.unwrap_err().kind(), out), (ErrorKind::LimitExceeded, [0; 4 + FIELD_OVERHEAD]));
    }

    // Failures N8, K11
    #[test]
    fn seals_and_opens_without_allocation() {
        let pairs: [(&[u8], &[u8]); 2] = [(b"kf:row", b"row-1"), (b"tenant", b"t")];
        let binding = Binding { field: "device.serial", pairs: &pairs };
        let mut out = [0; 128];
        let fill = |nonce: &mut [u8; NONCE_LEN]| {
            nonce.fill(3);
            Ok(())
        };
        let sealed = key().seal(Value::Text("SN-1"), binding, &mut out, fill).unwrap().to_vec();
        assert_eq!(sealed.len(), 4 + FIELD_OVERHEAD);
        let mut scratch = [0; 128];
        assert!(key().open(&sealed, binding, &mut scratch).unwrap() == Value::Text("SN-1"));
        let other = Binding { field: "device.other", ..binding };
        assert_eq!(key().open(&sealed, other, &mut scratch).unwrap_err().kind(), ErrorKind::DecryptionFailed);
        let failing = |_: &mut [u8; NONCE_LEN]| Err(ErrorKind::RandomnessUnavailable.into());
        let mut untouched = [7; 128];
        assert!(key().seal(Value::Text("SN-1"), binding, &mut untouched, failing).is_err());
        assert_eq!(untouched, [7; 128]);
        assert_eq!(
            key().seal(Value::Text("SN-1"), binding, &mut [0; 70], fill).unwrap_err().kind(),
            ErrorKind::LimitExceeded
        );
    }
}
