//! The arena on Unix: chunks of pages, cut into slots of one length each.
//!
//! A chunk is aligned to its length, so a slot leads to the head of its chunk, which stands in the place of the first slot. Slots that
//! nobody has are zero but for their first word, the list of those of their length. Chunks are never given back.

use crate::{MAX_LEN, Status};
use std::alloc::{Layout, handle_alloc_error};
use std::cell::UnsafeCell;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::Once;

/// Least bytes of a chunk. Small, as a process that has one key has chunks for several lengths, and limits of 64 KiB have been seen.
const CHUNK_LEN: usize = 16 * 1024;
const MIN_LEN: usize = 32;
/// Lengths of slots: 32, 64, … [`MAX_LEN`].
const LENGTHS: usize = MAX_LEN.ilog2() as usize - MIN_LEN.ilog2() as usize + 1;

/// Stands at the start of each chunk.
struct Head {
    next: *mut Head,
    /// And left out of core dumps, on Linux.
    is_locked: bool,
    /// Bytes of slots that somebody has.
    used: usize,
}

const _: () = assert!(size_of::<Head>() <= MIN_LEN);

/// A slot that nobody has.
struct Free {
    next: *mut Free,
}

struct State {
    chunks: *mut Head,
    /// By length, of chunks that are locked and of others.
    free: [[*mut Free; 2]; LENGTHS],
    /// Bytes of a chunk; 0 before the first use.
    chunk_len: usize,
    /// What the system said when a chunk last could not be locked.
    refusal: i32,
    /// Whether there may be chunks that are not locked. Without any, nobody goes through all of them to find one.
    has_unlocked: bool,
}

/// Which of the two lists of a length.
#[derive(Clone, Copy)]
enum Listed {
    Locked = 0,
    Unlocked = 1,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Locking {
    BestEffort,
    Required,
}

struct Arena {
    /// The C library's, which can be held across a fork and let go in parent and child.
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    state: UnsafeCell<State>,
}

// SAFETY: `state` is used by whoever holds `mutex` alone, and that is made for several threads.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena {
    mutex: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
    state: UnsafeCell::new(State {
        chunks: ptr::null_mut(),
        free: [[ptr::null_mut(); 2]; LENGTHS],
        chunk_len: 0,
        refusal: 0,
        has_unlocked: false,
    }),
};

extern "C" fn lock() {
    // SAFETY: a valid mutex; no code below takes it twice, calls back or panics while it has it.
    unsafe { libc::pthread_mutex_lock(ARENA.mutex.get()) };
}

extern "C" fn unlock() {
    // SAFETY: whoever calls this has taken it; in a child of `fork`, the thread that forked.
    unsafe { libc::pthread_mutex_unlock(ARENA.mutex.get()) };
}

extern "C" fn unlock_in_child() {
    // SAFETY: this thread has taken the mutex before it forked, and is the only one.
    unsafe { &mut *ARENA.state.get() }.lock_anew();
    unlock();
}

static START: Once = Once::new();

/// Has the C library call the handlers above whenever this process forks.
extern "C" fn start() {
    START.call_once(|| {
        // SAFETY: no pointer is involved; and each of the three may be called by whoever forks.
        let (refused, page) = unsafe {
            let refused = libc::pthread_atfork(Some(lock), Some(unlock), Some(unlock_in_child));
            (refused, libc::sysconf(libc::_SC_PAGESIZE))
        };
        if refused != 0 {
            // It refuses for want of memory alone. Children would take pages for locked that are not.
            handle_alloc_error(Layout::new::<State>());
        }
        // SAFETY: every other use waits for this one.
        unsafe { (*ARENA.state.get()).chunk_len = usize::try_from(page).unwrap_or(0).max(CHUNK_LEN) };
    });
}

/// Called by the system before `main`, or when the library is loaded: nobody has a key yet then. Were the handlers registered with the first key, a thread
/// that forks meanwhile would leave its child with a `START` that never ends, or with a mutex that nobody lets go.
#[used]
#[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
#[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
static BEFORE_MAIN: extern "C" fn() = start;

fn with<T>(work: impl FnOnce(&mut State) -> T) -> T {
    // Where a linker leaves the above out.
    start();
    lock();
    // SAFETY: the mutex is held, and `work` does not get here again.
    let result = work(unsafe { &mut *ARENA.state.get() });
    unlock();
    result
}

const fn index(len: usize) -> usize {
    (len.ilog2() - MIN_LEN.ilog2()) as usize
}

/// `len` zeros, aligned to `len`, a power of two of at least [`MIN_LEN`]. Locked if that is possible.
pub(crate) fn allocate(len: usize) -> NonNull<u8> {
    let slot = with(|state| {
        if state.free[index(len)].iter().all(|list| list.is_null()) {
            state.add_chunk(len, Locking::BestEffort);
        }
        state.take(len)
    });
    slot.unwrap_or_else(|| {
        handle_alloc_error(Layout::from_size_align(len, len).expect("the length of a slot is a small power of two"))
    })
}

/// Takes back a slot.
///
/// # Safety
///
/// It is from [`allocate`] with the same `len`, not used any more, and all zeros.
pub(crate) unsafe fn free(slot: NonNull<u8>, len: usize) {
    with(|state| {
        // SAFETY: each slot is in a chunk, at whose start a head is.
        let head = unsafe { &mut *state.head_of(slot.as_ptr()) };
        head.used -= len;
        state.put(slot.as_ptr(), len, head.is_locked);
    });
}

pub(crate) fn status() -> Status {
    with(|state| {
        state.lock_again();
        state.status()
    })
}

pub(crate) fn check_locked(sizes: &[usize]) -> io::Result<()> {
    with(|state| {
        state.lock_again();
        let has_room = sizes.iter().all(|size| {
            let len = size.next_power_of_two().max(MIN_LEN);
            let [locked, _] = state.free[index(len)];
            // Without a slot at hand it is tried whether the next one would be locked.
            !locked.is_null() || state.add_chunk(len, Locking::Required)
        });
        if has_room && (!state.has_unlocked || state.status().unlocked == 0) {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(state.refusal))
    })
}

impl State {
    /// A slot that nobody has, in a locked chunk if there is one.
    fn take(&mut self, len: usize) -> Option<NonNull<u8>> {
        let list = self.free[index(len)].iter_mut().find(|list| !list.is_null())?;
        let slot = *list;
        // SAFETY: what is in a list is a slot that nobody has, so its first word is the next one; zeroed, it is all zeros.
        unsafe {
            *list = (*slot).next;
            (*slot).next = ptr::null_mut();
            (*self.head_of(slot.cast())).used += len;
        }
        NonNull::new(slot.cast())
    }

    fn put(&mut self, slot: *mut u8, len: usize, is_locked: bool) {
        let list = &mut self.free[index(len)][usize::from(!is_locked)];
        let slot = slot.cast::<Free>();
        // SAFETY: a slot that nobody has, and that is aligned to more than a word.
        unsafe { (*slot).next = *list };
        *list = slot;
    }

    fn head_of(&self, slot: *mut u8) -> *mut Head {
        slot.map_addr(|addr| addr & !(self.chunk_len - 1)).cast()
    }

    fn status(&self) -> Status {
        let mut status = Status::default();
        let mut chunk = self.chunks;
        // SAFETY: chunks are never given back.
        while let Some(head) = unsafe { chunk.as_ref() } {
            if head.is_locked {
                status.locked += head.used;
                status.reserved += self.chunk_len;
            } else {
                status.unlocked += head.used;
            }
            chunk = head.next;
        }
        status
    }

    /// Locks the pages of a forked child, to which the locks of its parent do not extend.
    fn lock_anew(&mut self) {
        let mut chunk = self.chunks;
        let mut is_as_before = true;
        // SAFETY: chunks are never given back, and nobody else has a reference to this head.
        while let Some(head) = unsafe { chunk.as_mut() } {
            if head.is_locked {
                head.is_locked = self.mlock(chunk.cast());
                is_as_before &= head.is_locked;
            }
            chunk = head.next;
        }
        if !is_as_before {
            self.has_unlocked = true;
            self.sort_slots(Listed::Locked);
        }
    }

    /// Locks the chunks that could not be locked, as far as there is room by now.
    fn lock_again(&mut self) {
        if !self.has_unlocked {
            return;
        }
        self.has_unlocked = false;
        let mut chunk = self.chunks;
        let mut is_as_before = true;
        // SAFETY: chunks are never given back, and nobody else has a reference to this head.
        while let Some(head) = unsafe { chunk.as_mut() } {
            if !head.is_locked {
                head.is_locked = self.mlock(chunk.cast());
                if !head.is_locked {
                    self.has_unlocked = true;
                    break;
                }
                is_as_before = false;
            }
            chunk = head.next;
        }
        if !is_as_before {
            self.sort_slots(Listed::Unlocked);
        }
    }

    /// Puts slots that nobody has, and whose chunks may have changed, where they belong now.
    fn sort_slots(&mut self, listed: Listed) {
        for index in 0..LENGTHS {
            let mut slot = std::mem::replace(&mut self.free[index][listed as usize], ptr::null_mut());
            // SAFETY: what is in a list is a slot that nobody has.
            while let Some(free) = unsafe { slot.as_ref() } {
                let next = free.next;
                // SAFETY: each slot is in a chunk, at whose start a head is.
                let is_locked = unsafe { (*self.head_of(slot.cast())).is_locked };
                self.put(slot.cast(), MIN_LEN << index, is_locked);
                slot = next;
            }
        }
    }

    /// Adds a chunk of slots of `len` bytes, if the system has one to give; whether it did.
    fn add_chunk(&mut self, len: usize, locking: Locking) -> bool {
        let Some(start) = self.map() else {
            self.refusal = errno();
            return false;
        };
        let is_locked = self.mlock(start);
        if !is_locked && locking == Locking::Required {
            // SAFETY: the mapping is new, and nobody has it.
            unsafe { libc::munmap(start.cast(), self.chunk_len) };
            return false;
        }
        let head = start.cast::<Head>();
        // SAFETY: `start` is a new mapping of `chunk_len` bytes, aligned to them.
        unsafe { head.write(Head { next: self.chunks, is_locked, used: 0 }) };
        self.chunks = head;
        self.has_unlocked |= !is_locked;
        // Not the first, where the head is.
        for slot in (1..self.chunk_len / len).rev() {
            // SAFETY: within the mapping.
            self.put(unsafe { start.add(slot * len) }, len, is_locked);
        }
        true
    }

    /// New pages, private to this process, aligned to their length.
    ///
    /// Twice as many as needed, of which the last that are aligned stay: Linux maps downwards, so the next chunk is below this one, and
    /// the kernel makes one mapping of both. It has a limit on how many there are.
    fn map(&self) -> Option<*mut u8> {
        let len = self.chunk_len;
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
        // SAFETY: a new mapping, which takes the place of none.
        let start = unsafe { libc::mmap(ptr::null_mut(), 2 * len, access, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            return None;
        }
        let start = start.cast::<u8>();
        let after = start.addr() & (len - 1);
        // SAFETY: within the mapping, which nobody has. What cannot be given back stays, unused.
        unsafe {
            if after > 0 {
                libc::munmap(start.add(2 * len - after).cast(), after);
            }
            libc::munmap(start.cast(), len - after);
            Some(start.add(len - after))
        }
    }

    /// Locks a chunk, and leaves it out of core dumps, as far as the system allows that; whether it is locked, and not in dumps where
    /// there is a way to say so.
    fn mlock(&mut self, start: *mut u8) -> bool {
        let mut refuses = |result: libc::c_int| {
            if result != 0 {
                self.refusal = errno();
            }
            result != 0
        };
        #[cfg(any(target_os = "linux", target_os = "android"))]
        // SAFETY: of the whole mapping, and does not change what is in it.
        let is_dumped = refuses(unsafe { libc::madvise(start.cast(), self.chunk_len, libc::MADV_DONTDUMP) });
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let is_dumped = false;
        // SAFETY: likewise. Also where it does not count: better one of the two than none.
        let is_swapped = refuses(unsafe { libc::mlock(start.cast(), self.chunk_len) });
        !is_dumped && !is_swapped
    }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::ENOMEM)
}

#[cfg(test)]
mod tests {
    use super::START;
    use std::process::Command;

    const CHILD: &str = "KEYFOLD_ARENA_TEST";

    /// In a process that runs nothing but this, so that no key was made.
    // Failure T7
    #[test]
    fn the_handlers_of_fork_are_there_before_the_first_key() {
        if std::env::var_os(CHILD).is_some() {
            return assert!(START.is_completed());
        }
        let name = "arena::tests::the_handlers_of_fork_are_there_before_the_first_key";
        let output =
            Command::new(std::env::current_exe().unwrap()).args(["--exact", name]).env(CHILD, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }
}
