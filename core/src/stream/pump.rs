//! Whole streams from a reader to a writer: threads read and write in order, one at a time, and seal or open in between.

use super::{UNREADABLE, UNWRITABLE, from_io, read_full};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::stream::CUT;
use crate::wire::{CHUNK_LEN, SEALED_CHUNK_LEN, TAG_LEN};
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use zeroize::Zeroizing;

/// Chunks that a thread reads, works on and writes at once: enough that the locks cost nothing, few enough to stay in the cache of its core.
const BATCH: usize = 16;
/// Batches per thread: one to work on, and one that waits to be written.
const DEPTH: usize = 2;

/// Chunks that follow each other, sealed or about to be.
pub(super) struct Batch {
    buffer: Zeroizing<Vec<u8>>,
    first: u64,
    len: usize,
    is_last: bool,
}

impl Batch {
    fn new() -> Self {
        Self { buffer: Zeroizing::new(vec![0; BATCH * SEALED_CHUNK_LEN]), first: 0, len: 0, is_last: false }
    }

    /// Number of the first chunk.
    pub(super) const fn first(&self) -> u64 {
        self.first
    }

    /// The chunks.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.len]
    }

    /// Reads plaintext to where it is sealed; returns how much.
    pub(super) fn read_plaintext(&mut self, input: &mut impl Read) -> Result<u64> {
        (self.len, self.is_last) = (0, false);
        let mut read = 0;
        for chunk in self.buffer.chunks_exact_mut(SEALED_CHUNK_LEN) {
            let n = read_full(input, &mut chunk[..CHUNK_LEN]).map_err(|error| from_io(error, UNREADABLE))?;
            read += n as u64;
            self.len += n + TAG_LEN;
            if n < CHUNK_LEN {
                self.is_last = true;
                break;
            }
        }
        Ok(read)
    }

    /// Reads sealed chunks; returns how many bytes.
    pub(super) fn read_sealed(&mut self, input: &mut impl Read) -> Result<u64> {
        self.len = read_full(input, &mut self.buffer).map_err(|error| from_io(error, UNREADABLE))?;
        self.is_last = self.len < self.buffer.len();
        if self.is_last && self.len % SEALED_CHUNK_LEN < TAG_LEN {
            return Err(CUT);
        }
        Ok(self.len as u64)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // Erasing is much faster for what has been cleared, since all of it is spare capacity then.
        self.buffer.clear();
    }
}

/// An input that nobody asks any more once all has failed: it might take hours to fill a batch.
pub(super) struct WhileWanted<'p, R> {
    input: &'p mut R,
    has_failed: &'p AtomicBool,
}

impl<'p, R> WhileWanted<'p, R> {
    pub(super) const fn new(input: &'p mut R, has_failed: &'p AtomicBool) -> Self {
        Self { input, has_failed }
    }
}

impl<R: Read> Read for WhileWanted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // What failed comes first, so this error gets no further than to it.
        if self.has_failed.load(Relaxed) { Err(io::ErrorKind::Other.into()) } else { self.input.read(buffer) }
    }
}

pub(super) fn put(output: &mut impl Write, bytes: &[u8]) -> Result<()> {
    output.write_all(bytes).map_err(|error| from_io(error, UNWRITABLE))
}

/// Lets each batch be read, worked on and written, in this order and in the order of batches, until `read` gives the last one. The calling
/// thread is one of `threads`; where the system starts fewer, those do the work. `read` learns whether all has failed meanwhile.
///
/// A batch is read and worked on by one thread, so it stays in the cache of its core: handing it over costs as much as sealing it. Threads wait
/// for each other only where two want to read at the same time, while one of them writes, and when one is [`DEPTH`] batches behind.
pub(super) fn run(
    threads: NonZeroUsize,
    read: impl FnMut(&mut Batch, &AtomicBool) -> Result<()> + Send,
    work: impl Fn(&mut Batch) -> Result<()> + Sync,
    write: impl FnMut(&Batch) -> Result<()> + Send,
) -> Result<()> {
    let most = threads.get().saturating_mul(DEPTH);
    let output = Output { write, next: 0, done: Vec::new(), spare: Vec::new(), made: 0, most, failed: None };
    let pump = Pump {
        input: Mutex::new(Input { read, next: 0, ended: false }),
        work,
        output: Mutex::new(output),
        room: Condvar::new(),
        has_failed: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        let thread = || thread::Builder::new().name("keyfold-stream".to_owned());
        (1..threads.get()).take_while(|_| thread().spawn_scoped(scope, || pump.run()).is_ok()).for_each(drop);
        pump.run();
    });
    pump.output.into_inner().map_or(Err(ErrorKind::Internal.into()), |output| output.failed.map_or(Ok(()), Err))
}

/// What the threads share. Nobody takes both locks.
struct Pump<R, K, W> {
    input: Mutex<Input<R>>,
    work: K,
    output: Mutex<Output<W>>,
    /// A batch can be used again, or all has failed.
    room: Condvar,
    /// Whether [`Output::failed`] is there, for who must not wait for that lock.
    has_failed: AtomicBool,
}

struct Input<R> {
    read: R,
    /// Number of the first chunk of the next batch.
    next: u64,
    ended: bool,
}

struct Output<W> {
    write: W,
    /// Number of the first chunk of the batch that is to be written next.
    next: u64,
    /// Batches behind that one, by their first chunk.
    done: Vec<(u64, Result<Batch>)>,
    spare: Vec<Batch>,
    made: usize,
    most: usize,
    failed: Option<Error>,
}

impl<R, K, W> Pump<R, K, W>
where
    R: FnMut(&mut Batch, &AtomicBool) -> Result<()>,
    K: Fn(&mut Batch) -> Result<()>,
    W: FnMut(&Batch) -> Result<()>,
{
    /// What each thread does until there is no more.
    fn run(&self) {
        let _panic = FailsOnPanic(self);
        while let Some(mut batch) = self.take() {
            let Some(read) = self.read(&mut batch) else { break };
            let first = batch.first;
            // Also an error takes its turn: what comes before it is written, whatever the number of threads, and of several the first counts.
            self.put(first, read.and_then(|()| (self.work)(&mut batch)).map(|()| batch));
        }
    }

    /// A batch to fill, once there is room; none after a failure.
    fn take(&self) -> Option<Batch> {
        let mut output = self.output();
        loop {
            if output.failed.is_some() {
                return None;
            }
            if let Some(batch) = output.spare.pop() {
                return Some(batch);
            }
            if output.made < output.most {
                output.made += 1;
                return Some(Batch::new());
            }
            output = self.room.wait(output).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Reads the next batch, if there is one.
    fn read(&self, batch: &mut Batch) -> Option<Result<()>> {
        let mut input = lock_soon(&self.input).filter(|input| !input.ended)?;
        batch.first = input.next;
        input.next += BATCH as u64;
        let read = (input.read)(batch, &self.has_failed);
        input.ended = batch.is_last || read.is_err();
        Some(read)
    }

    /// Writes what now can be written.
    fn put(&self, first: u64, done: Result<Batch>) {
        let mut guard = self.output();
        let output = &mut *guard;
        output.done.push((first, done));
        while output.failed.is_none()
            && let Some(place) = output.done.iter().position(|(first, _)| *first == output.next)
        {
            match output.done.swap_remove(place).1.and_then(|batch| (output.write)(&batch).map(|()| batch)) {
                Ok(batch) => output.spare.push(batch),
                Err(error) => output.failed = Some(error),
            }
            output.next += BATCH as u64;
        }
        self.tell(output);
    }
}

impl<R, K, W> Pump<R, K, W> {
    fn output(&self) -> MutexGuard<'_, Output<W>> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the others that there is room, or that all has failed.
    fn tell(&self, output: &Output<W>) {
        self.has_failed.store(output.failed.is_some(), Relaxed);
        self.room.notify_all();
    }
}

/// Locks, and tries for a while before it sleeps: to sleep and be woken can take longer than the other one reads. None where one has panicked.
fn lock_soon<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    for _ in 0..200 {
        match mutex.try_lock() {
            Err(TryLockError::WouldBlock) => thread::yield_now(),
            locked => return locked.ok(),
        }
    }
    mutex.lock().ok()
}

/// Lets the others end where one panics: they would wait for its batch.
struct FailsOnPanic<'p, R, K, W>(&'p Pump<R, K, W>);

impl<R, K, W> Drop for FailsOnPanic<'_, R, K, W> {
    fn drop(&mut self) {
        if thread::panicking() {
            let mut output = self.0.output();
            output.failed.get_or_insert(ErrorKind::Internal.into());
            self.0.tell(&output);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    const BATCHES: u64 = 40;

    fn number(batch: &Batch) -> u64 {
        batch.first / BATCH as u64
    }

    /// Numbers of the batches that were written, and how it ended, where `fault` is asked in each step of each batch.
    fn pumped(threads: usize, fault: impl Fn(&str, u64) -> Result<()> + Sync) -> (Vec<u64>, Result<()>) {
        let (mut written, working, most) = (Vec::new(), AtomicU64::new(0), AtomicU64::new(0));
        let done = run(
            NonZeroUsize::new(threads).unwrap(),
            |batch, _| {
                batch.is_last = number(batch) == BATCHES - 1;
                fault("read", number(batch))
            },
            |batch| {
                most.fetch_max(working.fetch_add(1, Relaxed) + 1, Relaxed);
                // Some take much longer than others, so that they would overtake.
                thread::sleep(std::time::Duration::from_micros(batch.first * 7919 % 500));
                working.fetch_sub(1, Relaxed);
                fault("work", number(batch))
            },
            |batch| {
                written.push(number(batch));
                fault("write", number(batch))
            },
        );
        assert!(most.into_inner() <= threads as u64);
        (written, done)
    }

    #[test]
    fn an_error_leaves_what_stands_before_it_whatever_the_number_of_threads() {
        for threads in [1, 2, 3, 8] {
            let (written, done) = pumped(threads, |_, _| Ok(()));
            assert_eq!(written, (0..BATCHES).collect::<Vec<_>>());
            done.unwrap();
            for (step, at) in [("read", 0), ("read", 17), ("work", 17), ("write", 17), ("work", BATCHES - 1)] {
                // Those behind fail, too, and perhaps sooner.
                let fault = |now: &str, number| match number {
                    n if now == step && n == at => Err(ErrorKind::DecryptionFailed.into()),
                    n if now == "work" && n > at => Err(ErrorKind::Malformed.into()),
                    _ => Ok(()),
                };
                let (written, done) = pumped(threads, fault);
                let expected = at + u64::from(step == "write");
                assert_eq!(written, (0..expected).collect::<Vec<_>>(), "{step} of {at} with {threads} threads");
                assert_eq!(
                    done.unwrap_err().kind(),
                    ErrorKind::DecryptionFailed,
                    "{step} of {at} with {threads} threads"
                );
            }
        }
    }

    /// Gives one byte a time, and counts them.
    struct Trickling<'a>(&'a AtomicU64);

    impl Read for Trickling<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.fetch_add(1, Relaxed);
            thread::sleep(std::time::Duration::from_millis(1));
            buffer[0] = 0;
            Ok(1)
        }
    }

    #[test]
    fn an_input_that_trickles_is_left_when_the_output_fails() {
        let read = AtomicU64::new(0);
        let done = run(
            NonZeroUsize::new(2).unwrap(),
            |batch, has_failed| match batch.first {
                0 => Ok(()),
                _ => batch.read_plaintext(&mut WhileWanted::new(&mut Trickling(&read), has_failed)).map(drop),
            },
            |batch| {
                // Until the other one reads.
                while batch.first == 0 && read.load(Relaxed) == 0 {
                    thread::yield_now();
                }
                Ok(())
            },
            |_| Err(ErrorKind::Unsupported.into()),
        );
        assert_eq!(done.unwrap_err().kind(), ErrorKind::Unsupported);
        assert!(read.load(Relaxed) < 10_000, "all of a batch was waited for");
    }

    #[test]
    fn nobody_waits_for_whoever_panicked() {
        for threads in [1, 2, 8] {
            for step in ["read", "work", "write"] {
                let fault = |now: &str, number| if now == step && number == 5 { panic!("as planted") } else { Ok(()) };
                assert!(
                    catch_unwind(AssertUnwindSafe(|| pumped(threads, fault))).is_err(),
                    "{step} with {threads} threads"
                );
            }
        }
    }
}
