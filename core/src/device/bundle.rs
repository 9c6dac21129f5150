//! A key bundle: the data key of one scope on its way to a device, under a transport key (FORMAT.md §16).
//!
//! ```text
//! 0    4   "KFDB"
//! 4    1   version, 0x01
//! 5    1   protection: 0x01 transport key, 0x02 passphrase
//! 6    24  key ID
//! 30   16  lineage
//! 46   16  scope ID
//! 62   8   device ID: random, new in every bundle; starts the nonces of a device that counts (DESIGN F7)
//! 70   8   time of issue, in microseconds since 1970 in UTC
//! 78   16  salt of Argon2id             zeros where protection is 0x01
//! 94   4   memory of Argon2id, in KiB   likewise
//! 98   4   passes                       likewise
//! 102  4   lanes                        likewise
//! 106  72  AES-256-KWP(transport key, data key (32) ‖ SHA-256("keyfold/device-bundle/v1" ‖ bytes 0 to 105))
//! ```
//!
//! Numbers are big-endian. Where protection is 0x02 the transport key is Argon2id(passphrase, salt), version 0x13, 32 bytes.

use super::DeviceKey;
use crate::aead::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::{Lineage, Secret, SlotId};
use crate::wire::{KeyId, Reader};
use aes_kw::{KeyInit, KwpAes256};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Bytes of a bundle.
pub const BUNDLE_LEN: usize = HEADER_LEN + WRAPPED_LEN;
/// Bytes of a device ID.
pub const DEVICE_ID_LEN: usize = 8;

const HEADER_LEN: usize = 106;
/// AES-256-KWP of 64 bytes.
const WRAPPED_LEN: usize = 72;
const MAGIC: &[u8; 4] = b"KFDB";
const VERSION: u8 = 1;
const LABEL: &[u8] = b"keyfold/device-bundle/v1";

/// What the transport key of a bundle is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protection {
    /// 32 random bytes that the device has already.
    TransportKey,
    /// What Argon2id (RFC 9106, version 0x13) makes of a passphrase.
    Passphrase(PassphraseCost),
}

/// Salt and cost of Argon2id. Bounded both ways: nobody can make a bundle that costs next to nothing to guess, or more
/// memory than a machine has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PassphraseCost {
    /// Random, new in every bundle.
    pub salt: [u8; 16],
    /// Memory in KiB: 19 MiB to 1 GiB.
    pub memory: u32,
    /// Passes: 2 to 16.
    pub passes: u32,
    /// Lanes: 1 to 8.
    pub lanes: u32,
}

impl PassphraseCost {
    const fn is_bounded(&self) -> bool {
        matches!(self.memory, 19_456..=1_048_576) && matches!(self.passes, 2..=16) && matches!(self.lanes, 1..=8)
    }
}

/// The public part of a bundle: what it holds, without the key. Believed once [`open`](Self::open) has succeeded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bundle<'a> {
    header: &'a [u8; HEADER_LEN],
    wrapped: &'a [u8; WRAPPED_LEN],
    key_id: KeyId,
    protection: Protection,
}

impl<'a> Bundle<'a> {
    /// Reads a bundle. Needs no key and proves nothing.
    ///
    /// # Errors
    ///
    /// - [`Malformed`](ErrorKind::Malformed): these are not [`BUNDLE_LEN`] bytes in the layout of a bundle.
    /// - [`Unsupported`](ErrorKind::Unsupported): a version or protection that this build does not know.
    // F-16.2-1.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        if reader.array()? != MAGIC {
            return Err(ErrorKind::Malformed.into());
        }
        let [version, protection] = *reader.array()?;
        if version != VERSION {
            return Err(Error::new(ErrorKind::Unsupported, "a bundle of another version"));
        }
        // The layout of another version is not known, so lengths come after it.
        let (header, wrapped) = bytes.split_first_chunk().ok_or(ErrorKind::Malformed)?;
        let wrapped = wrapped.try_into().map_err(|_| ErrorKind::Malformed)?;
        let key_id = KeyId::from_bytes(*reader.array()?);
        reader.bytes(Lineage::LEN + SlotId::LEN + DEVICE_ID_LEN + 8)?;
        let cost = PassphraseCost {
            salt: *reader.array()?,
            memory: u32::from_be_bytes(*reader.array()?),
            passes: u32::from_be_bytes(*reader.array()?),
            lanes: u32::from_be_bytes(*reader.array()?),
        };
        // F-16.2-2.
        const NONE: PassphraseCost = PassphraseCost { salt: [0; 16], memory: 0, passes: 0, lanes: 0 };
        let protection = match protection {
            1 if cost == NONE => Protection::TransportKey,
            2 if cost.is_bounded() => Protection::Passphrase(cost),
            1 | 2 => return Err(ErrorKind::Malformed.into()),
            _ => return Err(Error::new(ErrorKind::Unsupported, "a bundle under a protection that is not known here")),
        };
        Ok(Self { header, wrapped, key_id, protection })
    }

    /// The ID of the data key.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The keyring's lineage.
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        Lineage::from_bytes(self.part(30))
    }

    /// The scope that the key seals for.
    #[must_use]
    pub fn scope(&self) -> SlotId {
        SlotId::from_bytes(self.part(46))
    }

    /// Random, new in every bundle.
    #[must_use]
    pub fn device_id(&self) -> [u8; DEVICE_ID_LEN] {
        self.part(62)
    }

    /// When it was made, in microseconds since 1970 in UTC.
    #[must_use]
    pub fn issued(&self) -> u64 {
        u64::from_be_bytes(self.part(70))
    }

    /// What the transport key is.
    #[must_use]
    pub const fn protection(&self) -> Protection {
        self.protection
    }

    /// The data key, ready to be used.
    ///
    /// # Errors
    ///
    /// - [`DecryptionFailed`](ErrorKind::DecryptionFailed): another transport key, or the bundle was edited.
    pub fn open(&self, backend: Backend, transport_key: &Secret<32>) -> Result<DeviceKey> {
        const FAILED: Error =
            Error::new(ErrorKind::DecryptionFailed, "the transport key is another one, or the bundle was edited");
        let payload = Secret::<64>::try_with(|payload| {
            match KwpAes256::new(transport_key.expose().into()).unwrap_key(self.wrapped, payload) {
                Ok(found) if found.len() == 64 => Ok(()),
                _ => Err(FAILED),
            }
        })?;
        let (key, binding) = payload.expose().split_at(32);
        // F-16.2-3.
        if !bool::from(binding.ct_eq(&bind(self.header))) {
            return Err(FAILED);
        }
        let key = Secret::with(|bytes: &mut [u8; 32]| bytes.copy_from_slice(key));
        let opened = DeviceKey::new(backend, &key, self.lineage(), self.scope(), self.key_id.generation());
        // F-16.2-4.
        // A commitment that does not fit is a fault of who made it; the key must not be used (F8).
        if !bool::from(opened.key_id().as_bytes().ct_eq(self.key_id.as_bytes())) {
            return Err(FAILED);
        }
        Ok(opened)
    }

    /// Bytes of the header from `at`.
    fn part<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut part = [0; N];
        part.copy_from_slice(&self.header[at..at + N]);
        part
    }
}

/// SHA-256(label ‖ header)
fn bind(header: &[u8; HEADER_LEN]) -> [u8; 32] {
    Sha256::new().chain_update(LABEL).chain_update(header).finalize().into()
}

/// What goes into a new bundle beside its keys.
#[cfg(feature = "std")]
pub(crate) struct Issue {
    pub(crate) key_id: KeyId,
    pub(crate) lineage: Lineage,
    pub(crate) scope: SlotId,
    pub(crate) device_id: [u8; DEVICE_ID_LEN],
    pub(crate) issued: u64,
    pub(crate) protection: Protection,
}

#[cfg(feature = "std")]
impl Issue {
    /// The bundle of `key` under `transport_key`.
    ///
    /// # Errors
    ///
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): the cost of the passphrase is out of bounds.
    // F-16.1-1.
    pub(crate) fn write(&self, key: &Secret<32>, transport_key: &Secret<32>) -> Result<[u8; BUNDLE_LEN]> {
        let mut bundle = [0; BUNDLE_LEN];
        let (header, wrapped) = bundle.split_first_chunk_mut::<HEADER_LEN>().expect("a bundle starts with its header");
        header[..4].copy_from_slice(MAGIC);
        header[4] = VERSION;
        header[6..30].copy_from_slice(self.key_id.as_bytes());
        header[30..46].copy_from_slice(self.lineage.as_bytes());
        header[46..62].copy_from_slice(self.scope.as_bytes());
        header[62..70].copy_from_slice(&self.device_id);
        header[70..78].copy_from_slice(&self.issued.to_be_bytes());
        header[5] = match self.protection {
            Protection::TransportKey => 1,
            Protection::Passphrase(cost) if cost.is_bounded() => {
                header[78..94].copy_from_slice(&cost.salt);
                header[94..98].copy_from_slice(&cost.memory.to_be_bytes());
                header[98..102].copy_from_slice(&cost.passes.to_be_bytes());
                header[102..].copy_from_slice(&cost.lanes.to_be_bytes());
                2
            }
            Protection::Passphrase(_) => {
                return Err(Error::new(
                    ErrorKind::LimitExceeded,
                    "Argon2id takes 19 MiB to 1 GiB of memory, 2 to 16 passes and 1 to 8 lanes here",
                ));
            }
        };
        let payload = Secret::<64>::with(|payload| {
            payload[..32].copy_from_slice(key.expose());
            payload[32..].copy_from_slice(&bind(header));
        });
        KwpAes256::new(transport_key.expose().into())
            .wrap_key(payload.expose(), wrapped)
            .map_err(|_| Error::new(ErrorKind::Internal, "AES-KWP refused 64 bytes"))?;
        Ok(bundle)
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;

    fn secret(fill: u8) -> Secret<32> {
        Secret::with(|bytes: &mut [u8; 32]| bytes.fill(fill))
    }

    fn bundle(protection: Protection) -> [u8; BUNDLE_LEN] {
        let (lineage, scope) = (Lineage::from_bytes([1; 16]), SlotId::from_bytes([2; 16]));
        let key_id = DeviceKey::new(Backend::RustCrypto, &secret(5), lineage, scope, 9).key_id();
        let issue = Issue { key_id, lineage, scope, device_id: [3; 8], issued: 1 << 50, protection };
        issue.write(&secret(5), &secret(6)).expect("the cost is in bounds")
    }

    const COST: PassphraseCost = PassphraseCost { salt: [4; 16], memory: 19_456, passes: 2, lanes: 1 };

    #[test]
    fn what_was_written_is_read() {
        for protection in [Protection::TransportKey, Protection::Passphrase(COST)] {
            let bytes = bundle(protection);
            let read = Bundle::parse(&bytes).unwrap();
            assert_eq!((read.protection(), read.issued(), read.device_id()), (protection, 1 << 50, [3; 8]));
            assert_eq!((read.lineage().as_bytes(), read.scope().as_bytes()), (&[1; 16], &[2; 16]));
            assert_eq!(read.key_id().generation(), 9);
            let key = read.open(Backend::RustCrypto, &secret(6)).unwrap();
            assert_eq!(key.key_id(), read.key_id());
            let other = read.open(Backend::RustCrypto, &secret(7)).err().map(|error| error.kind());
            assert_eq!(other, Some(ErrorKind::DecryptionFailed));
        }
    }

    /// Covers F-16.2-1, F-16.2-3.
    #[test]
    fn every_flipped_bit_and_every_other_length_is_refused() {
        for protection in [Protection::TransportKey, Protection::Passphrase(COST)] {
            let bytes = bundle(protection);
            for bit in 0..BUNDLE_LEN * 8 {
                let mut edited = bytes;
                edited[bit / 8] ^= 1 << (bit % 8);
                let opened =
                    Bundle::parse(&edited).and_then(|read| read.open(Backend::RustCrypto, &secret(6)).map(drop));
                assert!(opened.is_err(), "bit {bit}");
            }
            for len in 0..BUNDLE_LEN {
                assert_eq!(Bundle::parse(&bytes[..len]).unwrap_err().kind(), ErrorKind::Malformed, "{len} bytes");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(Bundle::parse(&longer).unwrap_err().kind(), ErrorKind::Malformed);
        }
    }

    /// Covers F-16.2-2.
    // Failure K7
    #[test]
    fn a_cost_out_of_bounds_is_neither_written_nor_read() {
        for cost in [
            PassphraseCost { memory: 19_455, ..COST },
            PassphraseCost { memory: 1_048_577, ..COST },
            PassphraseCost { passes: 1, ..COST },
            PassphraseCost { passes: 17, ..COST },
            PassphraseCost { lanes: 0, ..COST },
            PassphraseCost { lanes: 9, ..COST },
        ] {
            let mut edited = bundle(Protection::Passphrase(COST));
            edited[94..98].copy_from_slice(&cost.memory.to_be_bytes());
            edited[98..102].copy_from_slice(&cost.passes.to_be_bytes());
            edited[102..106].copy_from_slice(&cost.lanes.to_be_bytes());
            assert_eq!(Bundle::parse(&edited).unwrap_err().kind(), ErrorKind::Malformed, "{cost:?}");
            let (lineage, scope) = (Lineage::from_bytes([1; 16]), SlotId::NONE);
            let key_id = DeviceKey::new(Backend::RustCrypto, &secret(5), lineage, scope, 9).key_id();
            let protection = Protection::Passphrase(cost);
            let issue = Issue { key_id, lineage, scope, device_id: [3; 8], issued: 0, protection };
            let refused = issue.write(&secret(5), &secret(6)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::LimitExceeded, "{cost:?}");
        }
    }
}
