//! Keys, in memory of the caller's.

use crate::memory::{Output, input, one, range, range_of};
use crate::result::{Outcome, erased, kf_result, result};
use core::mem::{align_of, size_of};
use core::ptr;
use keyfold::Secret;
use keyfold::aead::Backend;
use keyfold::device::{BUNDLE_LEN, Bundle, DEVICE_ID_LEN, Device, DeviceKey, Protection};
use keyfold::wire::KeyId;
use zeroize::Zeroize;

/// Bytes of a key bundle.
pub const KFD_BUNDLE_LEN: usize = 178;
/// Bytes of a transport key.
pub const KFD_TRANSPORT_KEY_LEN: usize = 32;
/// Bytes of a kfd_key, by 8.
#[cfg(target_pointer_width = "64")]
pub const KFD_KEY_WORDS: usize = 144;
/// Bytes of a kfd_key, by 8.
#[cfg(target_pointer_width = "32")]
pub const KFD_KEY_WORDS: usize = 80;
/// Bytes of a key ID. The first four are the key's generation, in big-endian order.
pub const KFD_KEY_ID_LEN: usize = 24;
/// Bytes of a device ID.
pub const KFD_DEVICE_ID_LEN: usize = 8;

const _: () =
    assert!(KFD_BUNDLE_LEN == BUNDLE_LEN && KFD_KEY_ID_LEN == KeyId::LEN && KFD_DEVICE_ID_LEN == DEVICE_ID_LEN);

/// A key, in memory of yours: static, on the stack or wherever there is room. Its members are nobody's business. It stays where it
/// was opened: a copy is no key.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kfd_key {
    pub words: [u64; KFD_KEY_WORDS],
}

/// What a bundle says of its key. All of it is public.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kfd_key_info {
    /// Which key it is: what sealed values begin with, after two bytes.
    pub key_id: [u8; KFD_KEY_ID_LEN],
    /// The keyring's lineage.
    pub lineage: [u8; 16],
    /// The scope that it seals for.
    pub scope: [u8; 16],
    /// The ID of the device: random, another one in each bundle.
    pub device_id: [u8; KFD_DEVICE_ID_LEN],
    /// When the bundle was made, in microseconds since 1970-01-01T00:00:00Z.
    pub issued: u64,
    /// The key's generation; rotation makes a higher one.
    pub generation: u32,
    /// 0.
    pub reserved: u32,
}

/// What is in a kfd_key that is open.
pub(crate) struct Opened {
    /// MARK and the address, so that neither garbage nor a copy is taken for a key.
    mark: usize,
    pub(crate) key: DeviceKey,
    pub(crate) info: kfd_key_info,
}

const MARK: usize = 0x4B46_444B;
/// What an `Opened` may need beyond the alignment of a kfd_key.
const SLACK: usize = align_of::<Opened>().saturating_sub(align_of::<kfd_key>());
const _: () = assert!(size_of::<Opened>() + SLACK <= size_of::<kfd_key>(), "KFD_KEY_WORDS is too small");

/// Where in a kfd_key the `Opened` is.
fn place(key: *const kfd_key) -> *const Opened {
    let misaligned = key.addr() % align_of::<Opened>();
    let skip = if misaligned == 0 { 0 } else { align_of::<Opened>() - misaligned };
    key.cast::<u8>().wrapping_add(skip).cast()
}

impl kfd_key_info {
    pub(crate) const fn device(&self) -> Device {
        Device { id: self.device_id, issued: self.issued }
    }
}

/// The open key at `key`.
///
/// # Safety
///
/// `key` is NULL or points to a kfd_key that nobody changes while the result is used.
pub(crate) unsafe fn opened<'a>(key: *const kfd_key) -> Outcome<&'a Opened> {
    // SAFETY: this function's contract. A kfd_key is numbers, and any bytes are some.
    let _: &kfd_key = unsafe { one(key) }?;
    let place = place(key);
    // SAFETY: within the kfd_key, as SLACK says, and aligned; `mark` is a number.
    if unsafe { ptr::addr_of!((*place).mark).read() } != MARK ^ key.addr() {
        return Err(kf_result::INVALID_HANDLE);
    }
    // SAFETY: the mark says that `put` has written it here.
    Ok(unsafe { &*place })
}

/// Has what `open` returns in `key`. If that fails, `key` is erased, as what was in it before is in any case.
///
/// # Safety
///
/// `key` can be written, and nothing else uses it; `open` does not.
pub(crate) unsafe fn put(key: *mut kfd_key, open: impl FnOnce() -> Outcome<(DeviceKey, kfd_key_info)>) -> Outcome<()> {
    // SAFETY: this function's contract.
    unsafe { erase(key) };
    let (opened, info) = open()?;
    // SAFETY: within the kfd_key, as SLACK says, and aligned; the rest is this function's contract.
    unsafe { place(key).cast_mut().write(Opened { mark: MARK ^ key.addr(), key: opened, info }) };
    Ok(())
}

/// # Safety
///
/// `key` can be written, and nothing else uses it.
unsafe fn erase(key: *mut kfd_key) {
    // SAFETY: this function's contract; any bytes are numbers.
    unsafe { &mut (*key).words }.zeroize();
}

/// What a bundle that has been opened says, with its key.
pub(crate) fn open_under(
    bundle: &Bundle<'_>,
    key: &Secret<32>,
    least_generation: u32,
) -> Outcome<(DeviceKey, kfd_key_info)> {
    let opened = bundle.open(Backend::RustCrypto, key)?;
    let key_id = opened.key_id();
    if key_id.generation() < least_generation {
        return Err(kf_result::RECORD_REJECTED);
    }
    let info = kfd_key_info {
        key_id: *key_id.as_bytes(),
        lineage: *bundle.lineage().as_bytes(),
        scope: *bundle.scope().as_bytes(),
        device_id: bundle.device_id(),
        issued: bundle.issued(),
        generation: key_id.generation(),
        reserved: 0,
    };
    Ok((opened, info))
}

/// Opens a key bundle under a transport key of KFD_TRANSPORT_KEY_LEN bytes, into `*key`, which is erased if that fails. A bundle whose
/// key has a generation below `least_generation` is refused, so that nobody puts back an old one: pass that of the key in use, or 0.
///
/// Threads: any; nobody uses `*key` meanwhile.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_OVERLAP; KF_ERR_INVALID_INPUT: a wrong length or alignment, or the bundle is under a passphrase;
/// KF_ERR_MALFORMED: not a bundle; KF_ERR_UNSUPPORTED: a bundle of a version that this build does not know; KF_ERR_DECRYPTION_FAILED: the
/// transport key is another one, or the bundle was changed; KF_ERR_RECORD_REJECTED: an old bundle.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kfd_key_open(
    bundle: *const u8,
    bundle_len: usize,
    transport_key: *const u8,
    transport_key_len: usize,
    least_generation: u32,
    key: *mut kfd_key,
) -> kf_result {
    erased(|| {
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let inputs = unsafe { both((bundle, bundle_len), (transport_key, transport_key_len), key) }?;
        let open = || {
            let (bundle, transport) = inputs?;
            let transport: &[u8; 32] = transport.try_into().map_err(|_| kf_result::INVALID_INPUT)?;
            let bundle = Bundle::parse(bundle)?;
            if bundle.protection() != Protection::TransportKey {
                return Err(kf_result::INVALID_INPUT);
            }
            let transport = Secret::with(|bytes| *bytes = *transport);
            open_under(&bundle, &transport, least_generation)
        };
        // SAFETY: the contract of the header; apart from the inputs.
        unsafe { put(key, open) }
    })
}

/// Two inputs that are apart from the key, or why they are none, which is to be said when the key has been erased.
///
/// # Safety
///
/// The contract of the header: pointers are NULL or valid for their lengths.
pub(crate) unsafe fn both<'a>(
    one: (*const u8, usize),
    other: (*const u8, usize),
    key: *mut kfd_key,
) -> Outcome<Outcome<(&'a [u8], &'a [u8])>> {
    let place = place_for(key)?;
    // SAFETY: this function's contract.
    let inputs = unsafe { input(one.0, one.1).and_then(|one| Ok((one, input(other.0, other.1)?))) };
    if let Ok((one, other)) = inputs {
        place.apart_from(&[range_of(one), range_of(other)])?;
    }
    Ok(inputs)
}

/// Room for a key.
pub(crate) fn place_for(key: *mut kfd_key) -> Outcome<Output<u64>> {
    Output::new(key.cast(), KFD_KEY_WORDS, KFD_KEY_WORDS)
}

/// Erases a key, open or not. It is not one any more.
///
/// Threads: any; nobody uses `*key` meanwhile.
///
/// Returns KF_ERR_NULL_POINTER; KF_ERR_INVALID_INPUT: not aligned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kfd_key_wipe(key: *mut kfd_key) -> kf_result {
    // SAFETY: the contract of the header.
    result(place_for(key).map(|_| unsafe { erase(key) }))
}

/// What the bundle of `*key` says.
///
/// Threads: any.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_OVERLAP.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kfd_key_get_info(key: *const kfd_key, info: *mut kfd_key_info) -> kf_result {
    result((|| {
        let mut out = Output::one(info)?;
        out.apart_from(&[range(key, 1)])?;
        // SAFETY: the contract of the header; apart from the key.
        unsafe { out.set(opened(key)?.info) };
        Ok(())
    })())
}
