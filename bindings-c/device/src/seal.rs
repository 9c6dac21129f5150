//! Sealing and opening of single values.

use crate::counter::{CCounter, kfd_counter, with_counter};
use crate::key::{Opened, kfd_key, opened};
use crate::memory::{Output, apart, input, one, range, range_of, text};
use crate::result::{Outcome, erased, kf_result};
use crate::value::{KFD_MAX_VALUE_LEN, KFD_OPEN_EXTRA, KFD_SEALED_OVERHEAD, value_of};
use core::ffi::{c_char, c_void};
use core::ops::Range;
use keyfold::device::{Binding, DeviceKey, MAX_CONTEXT_LEN};
use keyfold::wire::NONCE_LEN;
use keyfold::{Error, ErrorKind};
use zeroize::Zeroize;

/// Most pairs of a kfd_binding.
pub const KFD_MAX_PAIRS: usize = 8;
/// Most bytes of context and row: of keys and values together, four bytes for each pair, one more, and ten for the row.
pub const KFD_MAX_CONTEXT_LEN: usize = 512;

/// One pair of the context.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kfd_pair {
    /// UTF-8, not empty, and not beginning with "kf:".
    pub key: *const c_char,
    pub key_len: usize,
    /// Any bytes.
    pub value: *const c_void,
    pub value_len: usize,
}

/// What a value is bound to: nothing of it is stored, and all of it has to be the same for opening.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kfd_binding {
    /// The name of the field, at most 255 bytes.
    pub field: *const c_char,
    pub field_len: usize,
    /// Where the policy has the field bound to its row: what identifies the row, not empty. NULL is no row.
    pub row: *const c_void,
    pub row_len: usize,
    /// At most KFD_MAX_PAIRS, in any order, no key twice. NULL is none.
    pub pairs: *const kfd_pair,
    pub pairs_len: usize,
}

/// Writes `len` bytes from a random generator to `out`, and returns KF_OK; anything else if it cannot. The bytes must be fit for keys.
pub type kfd_random_fn = Option<unsafe extern "C" fn(user: *mut c_void, out: *mut u8, len: usize) -> i32>;

/// What kfd_open found.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kfd_opened {
    /// Bytes of the value.
    pub len: usize,
    /// Its type: one of KFD_TYPE_*.
    pub value_type: u8,
    /// 0.
    pub reserved: [u8; 3],
}

const _: () = assert!(KFD_MAX_CONTEXT_LEN == MAX_CONTEXT_LEN);

const ROW: &[u8] = b"kf:row";

type Pair<'a> = (&'a [u8], &'a [u8]);

/// What a binding says, in the order of core.
struct Bound<'a> {
    field: &'a str,
    pairs: [Pair<'a>; KFD_MAX_PAIRS + 1],
    len: usize,
}

impl<'a> Bound<'a> {
    /// # Safety
    ///
    /// The contract of the header: `binding` and all in it is NULL or valid for its length.
    unsafe fn new(binding: *const kfd_binding, outputs: &[Range<usize>]) -> Outcome<Self> {
        // SAFETY: this function's contract.
        let binding = *unsafe { one(binding) }?;
        // SAFETY: this function's contract.
        let field = unsafe { text(binding.field, binding.field_len) }?;
        // SAFETY: this function's contract.
        let pairs = unsafe { input(binding.pairs, binding.pairs_len) }?;
        apart(&range_of(field.as_bytes()), outputs)?;
        apart(&range_of(pairs), outputs)?;
        let mut bound = Self { field, pairs: [(&[], &[]); KFD_MAX_PAIRS + 1], len: 0 };
        if pairs.len() > KFD_MAX_PAIRS {
            return Err(kf_result::LIMIT_EXCEEDED);
        }
        if !binding.row.is_null() || binding.row_len > 0 {
            // SAFETY: this function's contract.
            bound.add(ROW, unsafe { input(binding.row.cast(), binding.row_len) }?, outputs)?;
        }
        for pair in pairs {
            // SAFETY: this function's contract.
            let (key, value) =
                unsafe { (input::<u8>(pair.key.cast(), pair.key_len)?, input(pair.value.cast(), pair.value_len)?) };
            if key == ROW {
                return Err(kf_result::INVALID_INPUT);
            }
            bound.add(key, value, outputs)?;
        }
        Ok(bound)
    }

    /// Inserts a pair in its place. Keys that are the same are next to each other, which core refuses.
    fn add(&mut self, key: &'a [u8], value: &'a [u8], outputs: &[Range<usize>]) -> Outcome<()> {
        apart(&range_of(key), outputs)?;
        apart(&range_of(value), outputs)?;
        let mut carried = (key, value);
        for (at, place) in self.pairs.iter_mut().enumerate() {
            if at >= self.len {
                *place = carried;
                break;
            }
            if carried.0 < place.0 {
                core::mem::swap(place, &mut carried);
            }
        }
        self.len += 1;
        Ok(())
    }

    fn binding(&self) -> Binding<'_> {
        Binding { field: self.field, pairs: self.pairs.get(..self.len).unwrap_or(&[]) }
    }
}

/// Bytes that a value of `value_len` bytes takes when it is sealed; 0 if it is too long.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kfd_sealed_len(value_len: usize) -> usize {
    if value_len > KFD_MAX_VALUE_LEN { 0 } else { value_len + KFD_SEALED_OVERHEAD }
}

/// Bytes that kfd_open needs for a sealed value of `sealed_len` bytes: those of the value and KFD_OPEN_EXTRA more.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kfd_open_len(sealed_len: usize) -> usize {
    sealed_len.saturating_sub(KFD_SEALED_OVERHEAD - KFD_OPEN_EXTRA)
}

/// All that sealing needs but its nonce.
struct Sealing<'a> {
    opened: &'a Opened,
    bound: Bound<'a>,
    kind: u8,
    value: &'a [u8],
    out: Output<u8>,
    len: Output<usize>,
}

/// The arguments that both ways of sealing have.
struct Arguments {
    key: *const kfd_key,
    binding: *const kfd_binding,
    kind: u8,
    value: *const c_void,
    value_len: usize,
    out: *mut u8,
    out_cap: usize,
    out_len: *mut usize,
}

impl<'a> Sealing<'a> {
    /// # Safety
    ///
    /// The contract of the header: pointers are NULL or valid for their lengths.
    unsafe fn new(with: &Arguments, more: Range<usize>) -> Outcome<Self> {
        if with.value_len > KFD_MAX_VALUE_LEN {
            return Err(if isize::try_from(with.value_len).is_ok() {
                kf_result::LIMIT_EXCEEDED
            } else {
                kf_result::INVALID_INPUT
            });
        }
        // SAFETY: this function's contract.
        let value = unsafe { input(with.value.cast(), with.value_len) }?;
        let len = Output::one(with.out_len)?;
        #[cfg(kfd_planted)]
        assert!(with.out_cap < 12_345, "planted, so that the test which looks for panics has one to find");
        let out = Output::new(with.out, with.out_cap, kfd_sealed_len(value.len()))?;
        let inputs = [range(with.key, 1), range(with.binding, 1), range_of(value), more];
        out.apart_from(&inputs)?;
        len.apart_from(&inputs)?;
        out.apart_from(&[len.range()])?;
        // SAFETY: this function's contract.
        let (opened, bound) = unsafe { (opened(with.key)?, Bound::new(with.binding, &[out.range(), len.range()])?) };
        Ok(Self { opened, bound, kind: with.kind, value, out, len })
    }

    fn seal(mut self, nonce: impl FnOnce(&mut [u8; NONCE_LEN]) -> keyfold::Result<()>) -> Outcome<()> {
        let value = value_of(self.kind, self.value)?;
        // SAFETY: the contract of the header; `new` has seen that it is apart from all else.
        let sealed = self.opened.key.seal(value, self.bound.binding(), unsafe { self.out.get() }, nonce)?.len();
        // SAFETY: likewise.
        unsafe { self.len.set(sealed) };
        Ok(())
    }
}

/// Seals a value with a nonce of random bytes: writes kfd_sealed_len(value_len) bytes to `out`, and how many to `*out_len`. `random` is
/// called once, for 24 bytes; bytes that are all the same are not random and are refused.
///
/// Threads: any; `random` is called on the caller's.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_BUFFER_TOO_SMALL, KF_ERR_INVALID_HANDLE, KF_ERR_OVERLAP; KF_ERR_INVALID_INPUT: not the bytes of a
/// value of the type, or a binding that no value may have; KF_ERR_LIMIT_EXCEEDED: value, name or context are too long;
/// KF_ERR_RANDOMNESS_UNAVAILABLE: `random` returned something else than KF_OK.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kfd_seal(
    key: *const kfd_key,
    binding: *const kfd_binding,
    r#type: u8,
    value: *const c_void,
    value_len: usize,
    random: kfd_random_fn,
    user: *mut c_void,
    out: *mut u8,
    out_cap: usize,
    out_len: *mut usize,
) -> kf_result {
    erased(|| {
        let random = random.ok_or(kf_result::NULL_POINTER)?;
        let with = Arguments { key, binding, kind: r#type, value, value_len, out, out_cap, out_len };
        // SAFETY: the contract of the header.
        let sealing = unsafe { Sealing::new(&with, 0..0) }?;
        sealing.seal(|nonce| {
            // SAFETY: the contract of kfd_random_fn.
            let said = unsafe { random(user, nonce.as_mut_ptr(), nonce.len()) };
            let first = nonce[0];
            if said != 0 || nonce.iter().all(|&byte| byte == first) {
                return Err(Error::from(ErrorKind::RandomnessUnavailable));
            }
            Ok(())
        })
    })
}

/// As kfd_seal, with a nonce that is counted, for devices that have no random generator to be trusted. After 65,536 values, or 64 GiB, a
/// slot is written first.
///
/// Threads: any; nobody uses `*counter` meanwhile, an interrupt included: KF_ERR_INVALID_HANDLE.
///
/// Returns what kfd_seal does, without the last one; KF_ERR_WRONG_SCOPE: the counter is not that of this key's bundle; KF_ERR_STORE: a slot
/// cannot be read or written, and nothing was sealed; KF_ERR_LIMIT_EXCEEDED also if the counter has come to its end; KF_ERR_KEY_STATE: another
/// one was started with the same slots since.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kfd_seal_counted(
    key: *const kfd_key,
    counter: *mut kfd_counter,
    binding: *const kfd_binding,
    r#type: u8,
    value: *const c_void,
    value_len: usize,
    out: *mut u8,
    out_cap: usize,
    out_len: *mut usize,
) -> kf_result {
    let with = Arguments { key, binding, kind: r#type, value, value_len, out, out_cap, out_len };
    erased(|| {
        // SAFETY: the contract of the header.
        let sealing = unsafe { Sealing::new(&with, range(counter, 1)) }?;
        let used = |counter: &mut CCounter| {
            if counter.device() != sealing.opened.info.device() {
                return Err(kf_result::WRONG_SCOPE);
            }
            let len = DeviceKey::sealed_len(&value_of(sealing.kind, sealing.value)?);
            sealing.seal(|nonce| counter.next(len, nonce))
        };
        // SAFETY: the contract of the header.
        unsafe { with_counter(counter, used) }
    })
}

/// Opens a sealed value, which is at the front of `out` then; what it is is in `*opened`. `out` needs kfd_open_len(sealed_len) bytes, and is
/// erased behind the value. If opening fails, these bytes are erased, unless it is for an argument (1xx).
///
/// Threads: any.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_BUFFER_TOO_SMALL, KF_ERR_INVALID_HANDLE, KF_ERR_OVERLAP; KF_ERR_INVALID_INPUT: a binding that no
/// value may have; KF_ERR_LIMIT_EXCEEDED: name or context are too long; KF_ERR_MALFORMED: not a sealed value; KF_ERR_UNSUPPORTED: one of
/// another suite than 01; KF_ERR_NO_MATCHING_KEY: sealed under another key; KF_ERR_DECRYPTION_FAILED: anything else.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kfd_open(
    key: *const kfd_key,
    binding: *const kfd_binding,
    sealed: *const u8,
    sealed_len: usize,
    out: *mut c_void,
    out_cap: usize,
    opened: *mut kfd_opened,
) -> kf_result {
    erased(|| {
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let sealed = unsafe { input(sealed, sealed_len) }?;
        let mut what = Output::one(opened)?;
        let mut out = Output::new(out.cast::<u8>(), out_cap, kfd_open_len(sealed.len()))?;
        let inputs = [range(key, 1), range(binding, 1), range_of(sealed)];
        out.apart_from(&inputs)?;
        what.apart_from(&inputs)?;
        out.apart_from(&[what.range()])?;
        // SAFETY: the contract of the header.
        let (opened, bound) = unsafe { (self::opened(key)?, Bound::new(binding, &[out.range(), what.range()])?) };
        // SAFETY: apart from all else, as has been seen.
        let room = unsafe { out.get() };
        match open(&opened.key, &bound, sealed, room) {
            Ok(found) => {
                // SAFETY: likewise.
                unsafe { what.set(found) };
                Ok(())
            }
            Err(why) => {
                room.zeroize();
                Err(why)
            }
        }
    })
}

/// The value goes to the front of `room`, and the rest of that is erased.
fn open(key: &DeviceKey, bound: &Bound<'_>, sealed: &[u8], room: &mut [u8]) -> Outcome<kfd_opened> {
    let value = key.open(sealed, bound.binding(), room)?;
    let found = kfd_opened { len: value.canonical_len(), value_type: value.value_type() as u8, reserved: [0; 3] };
    // It is behind the format byte, and before the tag.
    if found.len >= room.len() {
        return Err(kf_result::INTERNAL);
    }
    room.copy_within(1..=found.len, 0);
    room.get_mut(found.len..).unwrap_or(&mut []).zeroize();
    Ok(found)
}
