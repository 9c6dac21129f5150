//! The counter of devices without a random generator, in memory of the caller's.

use crate::key::{kfd_key, opened};
use crate::memory::{Output, one, range};
use crate::result::{Outcome, kf_result, result};
use core::ffi::c_void;
use core::mem::{align_of, size_of};
use core::ptr;
use keyfold::device::{Counter, Device, SLOT_LEN, Slots};
use keyfold::{Error, ErrorKind};

/// Bytes of a slot.
pub const KFD_SLOT_LEN: usize = 32;
/// Bytes of a kfd_counter, by 8.
pub const KFD_COUNTER_WORDS: usize = 12;

const _: () = assert!(KFD_SLOT_LEN == SLOT_LEN);

/// Two slots of KFD_SLOT_LEN bytes each in memory that survives a power cut, and of which one can be written without harm to the other: in
/// flash each has a page of its own.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kfd_slots {
    /// Reads slot 0 or 1 into `bytes` and returns KF_OK; anything else if it cannot be read now. Bytes that were never written, or not
    /// completely, may be anything.
    pub read: Option<unsafe extern "C" fn(user: *mut c_void, slot: u32, bytes: *mut u8) -> i32>,
    /// Writes slot 0 or 1. Returns KF_OK once the bytes would survive a power cut; anything else if they perhaps would not.
    pub write: Option<unsafe extern "C" fn(user: *mut c_void, slot: u32, bytes: *const u8) -> i32>,
    /// The first argument of both.
    pub user: *mut c_void,
}

/// A counter, in memory of yours. Its members are nobody's business. It stays where it was started: a copy is no counter.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kfd_counter {
    pub words: [u64; KFD_COUNTER_WORDS],
}

pub(crate) type CCounter = Counter<CSlots>;

pub(crate) struct CSlots {
    read: unsafe extern "C" fn(user: *mut c_void, slot: u32, bytes: *mut u8) -> i32,
    write: unsafe extern "C" fn(user: *mut c_void, slot: u32, bytes: *const u8) -> i32,
    user: *mut c_void,
}

fn done(said: i32) -> keyfold::Result<()> {
    if said == 0 { Ok(()) } else { Err(Error::from(ErrorKind::Store)) }
}

impl Slots for CSlots {
    fn read(&mut self, slot: u8, bytes: &mut [u8; SLOT_LEN]) -> keyfold::Result<()> {
        // SAFETY: the contract of kfd_slots.
        done(unsafe { (self.read)(self.user, slot.into(), bytes.as_mut_ptr()) })
    }

    fn write(&mut self, slot: u8, bytes: &[u8; SLOT_LEN]) -> keyfold::Result<()> {
        // SAFETY: the contract of kfd_slots.
        done(unsafe { (self.write)(self.user, slot.into(), bytes.as_ptr()) })
    }
}

/// What is in a kfd_counter that is started.
struct Started {
    /// MARK and the address, so that neither garbage nor a copy is taken for a counter; 0 while it is in use.
    mark: usize,
    counter: CCounter,
}

const MARK: usize = 0x4B46_4443;
const _: () =
    assert!(size_of::<Started>() <= size_of::<kfd_counter>() && align_of::<Started>() <= align_of::<kfd_counter>());

/// Has what `make` returns in `counter`.
///
/// # Safety
///
/// The contract of the header.
unsafe fn put(
    key: *const kfd_key,
    slots: *const kfd_slots,
    counter: *mut kfd_counter,
    make: fn(CSlots, Device) -> keyfold::Result<CCounter>,
) -> Outcome<()> {
    let room = Output::<u64>::new(counter.cast(), KFD_COUNTER_WORDS, KFD_COUNTER_WORDS)?;
    room.apart_from(&[range(key, 1), range(slots, 1)])?;
    let started = counter.cast::<Started>();
    // SAFETY: there is room, as has been seen; not a counter until it is a new one.
    unsafe { ptr::addr_of_mut!((*started).mark).write(0) };
    // SAFETY: this function's contract.
    let (opened, slots) = unsafe { (opened(key)?, *one(slots)?) };
    let (Some(read), Some(write)) = (slots.read, slots.write) else {
        return Err(kf_result::NULL_POINTER);
    };
    let made = make(CSlots { read, write, user: slots.user }, opened.info.device())?;
    // SAFETY: likewise.
    unsafe { started.write(Started { mark: MARK ^ counter.addr(), counter: made }) };
    Ok(())
}

/// Has `work` use the counter at `counter`.
///
/// # Safety
///
/// `counter` is NULL or points to a kfd_counter that nobody else uses.
pub(crate) unsafe fn with_counter(
    counter: *mut kfd_counter,
    work: impl FnOnce(&mut CCounter) -> Outcome<()>,
) -> Outcome<()> {
    let _ = Output::<u64>::new(counter.cast(), KFD_COUNTER_WORDS, KFD_COUNTER_WORDS)?;
    let started = counter.cast::<Started>();
    let mark = MARK ^ counter.addr();
    // SAFETY: this function's contract; `mark` is a number.
    if unsafe { ptr::addr_of!((*started).mark).read_volatile() } != mark {
        return Err(kf_result::INVALID_HANDLE);
    }
    // SAFETY: the mark says that `put` has written it, and that it is not in use. While it is, nobody else takes it for a counter.
    unsafe {
        ptr::addr_of_mut!((*started).mark).write_volatile(0);
        let outcome = work(&mut (*started).counter);
        ptr::addr_of_mut!((*started).mark).write_volatile(mark);
        outcome
    }
}

/// Begins to count for a bundle that this device has never had. Both slots are written; a bundle that was there before cannot be used with a
/// counter any more: until this returns, a power cut may leave either in use, so the device keeps both. `*slots` is copied; what its `user`
/// points to has to stay.
///
/// Threads: any; nobody uses `*counter` or the slots meanwhile.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_OVERLAP; KF_ERR_INVALID_INPUT: not aligned; KF_ERR_KEY_STATE: this bundle has
/// counted already: kfd_counter_start goes on; KF_ERR_RECORD_REJECTED: a bundle that was issued later has; KF_ERR_STORE: a slot cannot be
/// read or written, or does not read as it was written.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kfd_counter_create(
    key: *const kfd_key,
    slots: *const kfd_slots,
    counter: *mut kfd_counter,
) -> kf_result {
    // SAFETY: the contract of the header.
    result(unsafe { put(key, slots, counter, Counter::create) })
}

/// Goes on counting after a start of the device, once for each start. Writes a slot. A counter that was started with the same slots before
/// ends with its 65,536 values.
///
/// Threads: any; nobody uses `*counter` or the slots meanwhile.
///
/// Returns what kfd_counter_create does, but KF_ERR_KEY_STATE: neither slot has a counter of this bundle, so nobody knows which nonces were
/// used, and the device needs a new bundle; KF_ERR_LIMIT_EXCEEDED: the counter has come to its end, likewise.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kfd_counter_start(
    key: *const kfd_key,
    slots: *const kfd_slots,
    counter: *mut kfd_counter,
) -> kf_result {
    // SAFETY: the contract of the header.
    result(unsafe { put(key, slots, counter, Counter::start) })
}
