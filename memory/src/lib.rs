//! Memory for key bytes: locked where the system allows it, left out of core dumps, erased on drop.
//!
//! All keys of a process are in one arena. On Unix it consists of pages of its own, which are locked (`mlock`), so that they are not
//! written to swap; on Linux they are left out of core dumps as well (`MADV_DONTDUMP`). Locking is best effort: where the system refuses
//! it, such as beyond `RLIMIT_MEMLOCK`, keys are held in pages that are not locked, and [`status`] says how many bytes that are.
//! [`check_locked`] is for those who would rather have no keys then. Elsewhere keys are on the heap, and count as not locked.
//!
//! **Forks.** A child has the keys of its parent and may use them: pages that were zeros in the child would not make it fail, but seal
//! under a key of zeros. Locks are not inherited, so a child of `fork` locks its pages anew. Memory is never shared between
//! processes, so what one erases the other keeps. Handlers of `fork` see to it, which a bare system call `clone` passes by: its child must
//! not use or drop keys, but go on to `exec`.
//!
//! **What it does not do.** It does not hide keys from whoever may read the memory of the process, from hibernation, or from snapshots of
//! a machine; it knows nothing of copies in registers and on stacks, but for [`erasing_stack`], nor in the buffers of libraries, but for
//! [`ErasingAllocator`]. Pages stay with the arena until the process ends.

// Miri and AddressSanitizer know nothing of places within the arena: for them each key has a block of its own (tools/sanitizers.py).
mod allocator;
#[cfg(all(unix, not(any(miri, keyfold_heap))))]
mod arena;
#[cfg(not(all(unix, not(any(miri, keyfold_heap)))))]
#[path = "heap.rs"]
mod arena;
mod on_heap;
mod registers;

pub use allocator::{ErasingAllocator, erase_what_this_thread_frees};
pub use on_heap::OnHeap;

use std::io;
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Where the keys of this process are, in bytes.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Status {
    /// Of keys in locked memory, which is not swapped, and on Linux not in core dumps.
    pub locked: usize,
    /// Of keys in memory that is not locked, or that Linux does not leave out of core dumps.
    pub unlocked: usize,
    /// Of pages that are locked, whether they hold keys or not: what counts against `RLIMIT_MEMLOCK`.
    pub reserved: usize,
}

/// Where the keys of this process are. Takes a time that grows with the number of pages. Tries first to lock those that could not be locked, until the
/// system refuses one.
#[must_use]
pub fn status() -> Status {
    arena::status()
}

/// Refuses to go on where a key of this process is in memory that is not locked, or the next one of one of `sizes` bytes would be. Keeps locked
/// pages ready for each of them.
///
/// # Errors
///
/// What the system said when it last refused to lock memory, or to leave it out of core dumps: `ENOMEM` beyond `RLIMIT_MEMLOCK`, `EPERM`
/// where that is 0. `Unsupported` where memory is never locked. What is in memory stays there.
///
/// # Panics
///
/// If one of `sizes` is more than [`MAX_LEN`].
pub fn check_locked(sizes: &[usize]) -> io::Result<()> {
    assert!(sizes.iter().all(|size| *size <= MAX_LEN), "larger than MAX_LEN");
    arena::check_locked(sizes)
}

/// Largest value in bytes that [`Guarded`] holds.
pub const MAX_LEN: usize = 4096;

/// A value in the arena. When it is dropped, the value is dropped and its bytes are erased, whatever its own `Drop` does.
///
/// Takes up its size, or its alignment, rounded up to a power of two of at least 32 bytes.
pub struct Guarded<T> {
    at: NonNull<T>,
    owns: PhantomData<T>,
}

// SAFETY: it owns its value as a `Box` does, and the arena may be used by every thread.
unsafe impl<T: Send> Send for Guarded<T> {}
// SAFETY: as above; shared, it only gives out `&T`.
unsafe impl<T: Sync> Sync for Guarded<T> {}

impl<T> Guarded<T> {
    /// Bytes that a value takes up in the arena.
    pub const SLOT_LEN: usize = {
        let needed = if size_of::<T>() > align_of::<T>() { size_of::<T>() } else { align_of::<T>() };
        assert!(needed <= MAX_LEN, "larger than MAX_LEN");
        if needed <= 32 { 32 } else { needed.next_power_of_two() }
    };

    /// Moves `value` into the arena, and erases where it was when it came here. Copies that the compiler made before are outside of
    /// its control.
    pub fn new(value: T) -> Self {
        let mut value = ManuallyDrop::new(value);
        let at = arena::allocate(Self::SLOT_LEN).cast::<T>();
        // SAFETY: the slot is new, at least as large as `T` and as much aligned. `value` is not used again, nor dropped, so its bytes
        // are nobody's.
        unsafe {
            at.copy_from_nonoverlapping(NonNull::from(&mut *value), 1);
            erase(NonNull::from(&mut value).cast(), size_of::<T>());
        }
        Self { at, owns: PhantomData }
    }
}

impl<const N: usize> Guarded<[u8; N]> {
    /// `N` zeros, made in place.
    #[must_use]
    pub fn zeroed() -> Self {
        // Slots that nobody has are zero.
        Self { at: arena::allocate(Self::SLOT_LEN).cast(), owns: PhantomData }
    }
}

impl<T> Deref for Guarded<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: it points to a value of its own, from `new` or `zeroed` until `drop`.
        unsafe { self.at.as_ref() }
    }
}

impl<T> DerefMut for Guarded<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and nobody else has it.
        unsafe { self.at.as_mut() }
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        /// Erases and gives back the slot, also if the value panics when it is dropped.
        struct Slot(NonNull<u8>, usize);
        impl Drop for Slot {
            fn drop(&mut self) {
                // SAFETY: the slot is this one's, its value was dropped, and it is given back once.
                unsafe {
                    erase(self.0, self.1);
                    arena::free(self.0, self.1);
                }
            }
        }
        let _slot = Slot(self.at.cast(), Self::SLOT_LEN);
        // SAFETY: the value is not used again.
        unsafe { self.at.drop_in_place() };
    }
}

/// Runs `work`, and overwrites what it and all that it called have left on the stack, as far as they went down 16 KiB, and on x86-64 but for Windows in
/// the vector registers, also where it panics. Libraries that expand keys leave copies there. Keys must not be in what it returns, but where that points to.
pub fn erasing_stack<T>(work: impl FnOnce() -> T) -> T {
    erasing_stack_of::<{ 16 * 1024 }, T>(work)
}

/// As [`erasing_stack`], for work that goes down no more than `LEN` bytes.
pub fn erasing_stack_of<const LEN: usize, T>(work: impl FnOnce() -> T) -> T {
    struct Erase<const LEN: usize>;

    impl<const LEN: usize> Drop for Erase<LEN> {
        #[inline(always)]
        fn drop(&mut self) {
            erase_stack_of::<LEN>();
        }
    }

    // Both begin where this function ends.
    #[inline(never)]
    fn run<T>(work: impl FnOnce() -> T) -> T {
        work()
    }
    let _erase = Erase::<LEN>;
    run(work)
}

/// Overwrites the 16 KiB of the stack that are below the caller, and the vector registers likewise: what calls that have ended left there.
pub fn erase_stack() {
    erase_stack_of::<{ 16 * 1024 }>();
}

#[inline(never)]
fn erase_stack_of<const LEN: usize>() {
    /// Aligned, so that it is erased by lines.
    #[repr(align(16))]
    struct Room<const LEN: usize>([u8; LEN]);
    let mut room = MaybeUninit::<Room<LEN>>::uninit();
    // SAFETY: `room` has so many bytes, and is not used otherwise.
    unsafe { erase(NonNull::from(&mut room).cast(), LEN) };
    registers::erase();
}

/// Overwrites `len` bytes with zeros, in a way that no compiler leaves out.
///
/// # Safety
///
/// They may be written, and nobody reads them as anything but bytes afterwards.
unsafe fn erase(at: NonNull<u8>, len: usize) {
    /// What one instruction writes. A longer type would be written twice: where the compiler makes it, and from there.
    #[cfg(target_arch = "x86_64")]
    type Word = std::arch::x86_64::__m128i;
    #[cfg(not(target_arch = "x86_64"))]
    type Word = u64;
    /// Words between which nothing is counted.
    const AT_ONCE: usize = 16;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every processor of this kind has it.
    let zero = unsafe { std::arch::x86_64::_mm_setzero_si128() };
    #[cfg(not(target_arch = "x86_64"))]
    let zero = 0;
    let before = (at.addr().get().wrapping_neg() % align_of::<Word>()).min(len);
    let words = (len - before) / size_of::<Word>();
    for i in (0..before).chain(before + words * size_of::<Word>()..len) {
        // SAFETY: within the bytes.
        unsafe { at.add(i).write_volatile(0) };
    }
    // SAFETY: within the bytes.
    let first = unsafe { at.add(before) }.cast::<Word>();
    let many = words - words % AT_ONCE;
    for start in (0..many).step_by(AT_ONCE) {
        for i in start..start + AT_ONCE {
            // SAFETY: within the bytes, and aligned.
            unsafe { first.add(i).write_volatile(zero) };
        }
    }
    for i in many..words {
        // SAFETY: likewise.
        unsafe { first.add(i).write_volatile(zero) };
    }
    std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[repr(align(64))]
    struct Aligned(#[allow(dead_code, reason = "only its place matters")] u8);

    #[test]
    fn values_are_aligned_dropped_once_and_start_as_zeros() {
        let counted = Rc::new(());
        let held: Vec<_> = (0..1000).map(|_| Guarded::new((counted.clone(), [1_u8; 100]))).collect();
        assert_eq!(Rc::strong_count(&counted), 1001);
        assert!(held.iter().all(|value| value.1 == [1; 100]));
        drop(held);
        assert_eq!(Rc::strong_count(&counted), 1);
        let aligned: Vec<_> = (0..100).map(|_| Guarded::new(Aligned(1))).collect();
        assert!(aligned.iter().all(|value| (&raw const **value).addr() % 64 == 0));
        // In the places of those above.
        let zeros: Vec<_> = (0..2000).map(|_| Guarded::<[u8; 116]>::zeroed()).collect();
        assert!(zeros.iter().all(|value| **value == [0; 116]));
        assert_eq!((Guarded::<[u8; 0]>::SLOT_LEN, Guarded::<[u8; 33]>::SLOT_LEN), (32, 64));
        assert_eq!(Guarded::<[u8; MAX_LEN]>::zeroed()[..], [0; MAX_LEN]);
    }

    /// In lengths that no other test has: whoever takes the place next would write there.
    // Failure T4
    #[cfg(all(unix, not(any(miri, keyfold_heap))))]
    #[test]
    fn a_place_is_all_zeros_once_its_value_was_dropped() {
        fn check<const N: usize>() {
            let value = Guarded::new([0xa5_u8; N]);
            let at = value.at.cast::<u8>();
            assert_eq!(*value, [0xa5; N]);
            drop(value);
            // SAFETY: chunks are never given back, and nobody has the place: its first word is of the list of such places.
            let left = unsafe { std::slice::from_raw_parts(at.as_ptr().add(8), N - 8) };
            assert!(left.iter().all(|&byte| byte == 0), "{N} bytes");
            // SAFETY: likewise. An address of this arena, or none.
            assert_ne!(unsafe { at.cast::<[u8; 8]>().read() }, [0xa5; 8]);
        }
        check::<512>();
        check::<1024>();
    }

    /// From every alignment on, and of lengths on both sides of those that are written at once.
    #[test]
    fn just_the_bytes_that_are_named_are_erased() {
        for start in 0..32 {
            for len in (0..80).chain(240..280).chain(500..530) {
                let (mut bytes, mut expected) = ([0xa5_u8; 600], [0xa5_u8; 600]);
                // SAFETY: bytes of an array, which nobody has.
                unsafe { erase(NonNull::from(&mut bytes[start..start + len]).cast(), len) };
                expected[start..start + len].fill(0);
                assert_eq!(bytes, expected, "{start}, {len}");
            }
        }
    }

    #[test]
    fn no_two_values_have_one_place_in_many_threads() {
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                scope.spawn(move || {
                    let mut held = Vec::new();
                    // Miri takes a second for a hundred.
                    for n in 0..if cfg!(miri) { 200 } else { 20_000_u64 } {
                        held.push((n, Guarded::new([thread, n])));
                        if n % 3 == 0 {
                            let (n, value) = held.swap_remove((n as usize * 7) % held.len());
                            assert_eq!(*value, [thread, n]);
                        }
                    }
                    assert!(held.iter().all(|(n, value)| **value == [thread, *n]));
                });
            }
        });
    }

    #[test]
    fn a_value_that_panics_when_it_is_dropped_gives_its_place_back() {
        struct Panics;
        impl Drop for Panics {
            fn drop(&mut self) {
                panic!("on purpose");
            }
        }
        // Of a size that no other test has.
        let in_use = || status().locked + status().unlocked;
        let value = Guarded::new((Panics, [1_u8; 2000]));
        assert!(in_use() >= 2048);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(value))).is_err());
        let again = Guarded::<[u8; 2048]>::zeroed();
        assert_eq!(*again, [0; 2048]);
    }
}
