//! Nonces of a device that has no trusted random generator: it counts (DESIGN F7).
//!
//! A nonce is device ID (8) ‖ boot counter (4) ‖ message counter (12). A boot counter is stored before the first nonce with it
//! is made, and counts up at each start and whenever its messages or blocks are many (F4), so none comes twice.
//!
//! Of two slots the older one is written, so that a power cut at any moment leaves the newer one. Where one of them cannot be
//! read as a counter nobody knows whether it was the newer one: then a number is left out, and both are written anew.
//! With neither there is no going on: an erased memory under an old bundle must not count from 0 again. Nor must a bundle that a
//! later one has replaced, so slots say when the bundle was issued.
//!
//! ```text
//! 0   8   device ID
//! 8   8   time of issue of its bundle
//! 16  4   boot counter
//! 20  12  SHA-256("keyfold/device-counter/v1" ‖ bytes 0 to 19), truncated
//! ```
//!
//! Numbers are big-endian.

use super::{Bundle, DEVICE_ID_LEN};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::{NONCE_LEN, PREFIX_LEN, Reader};
use sha2::{Digest, Sha256};

/// Bytes of a slot.
pub const SLOT_LEN: usize = 32;
/// Most messages under one boot counter.
const MESSAGES: u32 = 1 << 16;
/// Most AES blocks under one boot counter.
const BLOCKS: u64 = 1 << 32;

const CHECKED_LEN: usize = DEVICE_ID_LEN + 8 + 4;
const LABEL: &[u8] = b"keyfold/device-counter/v1";

/// Whom a counter counts for: a bundle, each of which has an ID of its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Device {
    /// The device ID of the bundle.
    pub id: [u8; DEVICE_ID_LEN],
    /// When the bundle was issued.
    pub issued: u64,
}

impl From<&Bundle<'_>> for Device {
    fn from(bundle: &Bundle<'_>) -> Self {
        Self { id: bundle.device_id(), issued: bundle.issued() }
    }
}

/// Memory that keeps two slots while the device has no power. Slot 0 and slot 1 can be written one without the other.
pub trait Slots {
    /// Reads a slot. What was never written may be anything.
    ///
    /// # Errors
    ///
    /// It cannot be read now; nothing is counted then.
    fn read(&mut self, slot: u8, bytes: &mut [u8; SLOT_LEN]) -> Result<()>;

    /// Writes a slot, so that it is there even if the power fails after the return.
    ///
    /// # Errors
    ///
    /// It was not, or perhaps not, written.
    fn write(&mut self, slot: u8, bytes: &[u8; SLOT_LEN]) -> Result<()>;
}

/// Makes each nonce once.
pub struct Counter<S> {
    slots: S,
    device: Device,
    /// The boot counter in use, or that of a start which has not been finished.
    boot: u32,
    /// The slot that has it.
    newer: u8,
    messages: u32,
    blocks: u64,
}

impl<S: Slots> Counter<S> {
    /// Begins to count, under a bundle that this device has never had.
    ///
    /// # Errors
    ///
    /// - [`KeyState`](ErrorKind::KeyState): it has counted already; [`start`](Self::start) goes on.
    /// - [`RecordRejected`](ErrorKind::RecordRejected): it has counted under a bundle that was issued later, or at the same time.
    /// - [`Store`](ErrorKind::Store): a slot does not read as it was written.
    /// - Whatever `slots` returns.
    pub fn create(mut slots: S, device: Device) -> Result<Self> {
        let mut first = 0;
        for slot in 0..2 {
            match read(&mut slots, slot)? {
                Some((found, _)) if found == device => {
                    let why = "the device has counted under this bundle already: start it";
                    return Err(Error::new(ErrorKind::KeyState, why));
                }
                Some((found, _)) if found.issued >= device.issued => {
                    return Err(Error::new(
                        ErrorKind::RecordRejected,
                        "the device has had a later bundle than this one",
                    ));
                }
                Some(_) => {}
                None => first = slot,
            }
        }
        let mut counter = Self { slots, device, boot: 0, newer: 0, messages: 0, blocks: 0 };
        // A slot that holds nothing goes first, so that there is always one that tells of the last bundle. What that left is gone
        // from both before the first nonce.
        counter.store(first, 0)?;
        counter.renew()?;
        Ok(counter)
    }

    /// Goes on counting after a start of the device.
    ///
    /// # Errors
    ///
    /// - [`KeyState`](ErrorKind::KeyState): neither slot has a counter of this device ID, so nobody knows which nonces were used.
    ///   The device needs a new bundle.
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): all of 2³² boot counters are used up. The device needs a new bundle.
    /// - [`Store`](ErrorKind::Store): a slot does not read as it was written.
    /// - Whatever `slots` returns.
    pub fn start(mut slots: S, device: Device) -> Result<Self> {
        let mut boot_of = |slot| -> Result<Option<u32>> {
            let found = read(&mut slots, slot)?;
            Ok(found.and_then(|(found, boot)| (found == device).then_some(boot)))
        };
        let found = (boot_of(0)?, boot_of(1)?);
        let (boot, newer) = match found {
            (Some(one), Some(other)) if one > other => (one, 0),
            (_, Some(other)) => (other, 1),
            (Some(one), None) => (one, 0),
            (None, None) => {
                let why = "no counter of this bundle is stored: provision the device anew";
                return Err(Error::new(ErrorKind::KeyState, why));
            }
        };
        let mut counter = Self { slots, device, boot, newer, messages: 0, blocks: 0 };
        if found.0.is_none() || found.1.is_none() {
            // The other one may have been newer, by one, and in use: this number is not going to be.
            counter.renew()?;
        }
        counter.renew()?;
        Ok(counter)
    }

    /// Writes the next nonce, of a sealed value of `sealed_len` bytes.
    ///
    /// # Errors
    ///
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded), [`Store`](ErrorKind::Store): as for [`start`](Self::start), where a new boot
    ///   counter is needed. Repeating the call tries again.
    /// - [`KeyState`](ErrorKind::KeyState): likewise, and another counter has started with these slots since: only that one goes on.
    /// - Whatever `slots` returns.
    // F-4.4-4.
    pub fn next(&mut self, sealed_len: usize, nonce: &mut [u8; NONCE_LEN]) -> Result<()> {
        // More than there are.
        let blocks = sealed_len as u64 / 16 + 2;
        if self.messages >= MESSAGES || self.blocks + blocks > BLOCKS {
            self.renew()?;
        }
        nonce[..DEVICE_ID_LEN].copy_from_slice(&self.device.id);
        nonce[DEVICE_ID_LEN..PREFIX_LEN].copy_from_slice(&self.boot.to_be_bytes());
        nonce[PREFIX_LEN..NONCE_LEN - 4].fill(0);
        nonce[NONCE_LEN - 4..].copy_from_slice(&self.messages.to_be_bytes());
        self.messages += 1;
        self.blocks += blocks;
        Ok(())
    }

    /// Whom it counts for.
    #[must_use]
    pub const fn device(&self) -> Device {
        self.device
    }

    /// Stores the next boot counter in the older slot, and only then uses it.
    fn renew(&mut self) -> Result<()> {
        let older = read(&mut self.slots, 1 - self.newer)?;
        if older.is_some_and(|(device, boot)| device == self.device && boot > self.boot) {
            return Err(Error::new(ErrorKind::KeyState, "another counter has started with these slots since"));
        }
        self.store(1 - self.newer, self.boot.checked_add(1).ok_or(EXHAUSTED)?)?;
        self.messages = 0;
        self.blocks = 0;
        Ok(())
    }

    /// Writes `boot` to `slot` and reads it back.
    fn store(&mut self, slot: u8, boot: u32) -> Result<()> {
        self.slots.write(slot, &encode(self.device, boot))?;
        if read(&mut self.slots, slot)? != Some((self.device, boot)) {
            return Err(Error::new(ErrorKind::Store, "the counter does not read as it was written"));
        }
        self.boot = boot;
        self.newer = slot;
        Ok(())
    }
}

const EXHAUSTED: Error =
    Error::new(ErrorKind::LimitExceeded, "the device has started 4,294,967,295 times: provision it anew");

fn encode(device: Device, boot: u32) -> [u8; SLOT_LEN] {
    let mut slot = [0; SLOT_LEN];
    slot[..8].copy_from_slice(&device.id);
    slot[8..16].copy_from_slice(&device.issued.to_be_bytes());
    slot[16..CHECKED_LEN].copy_from_slice(&boot.to_be_bytes());
    let check: [u8; 32] = Sha256::new().chain_update(LABEL).chain_update(&slot[..CHECKED_LEN]).finalize().into();
    slot[CHECKED_LEN..].copy_from_slice(&check[..SLOT_LEN - CHECKED_LEN]);
    slot
}

/// The counter in a slot, if there is one, and whose it is.
fn read(slots: &mut impl Slots, slot: u8) -> Result<Option<(Device, u32)>> {
    let mut bytes = [0; SLOT_LEN];
    slots.read(slot, &mut bytes)?;
    let mut reader = Reader::new(&bytes);
    let id = *reader.array()?;
    let device = Device { id, issued: u64::from_be_bytes(*reader.array()?) };
    let boot = u32::from_be_bytes(*reader.array()?);
    Ok((bytes == encode(device, boot)).then_some((device, boot)))
}

#[cfg(all(test, feature = "std"))]
#[path = "counter_tests.rs"]
mod tests;
