//! Streams: data of any length, pulled from anywhere in it.

use crate::boundary::{Failure, Outcome, boundary};
use crate::callback::{NO_FUNCTION, User, kf_read_at_fn};
use crate::field::kf_field;
use crate::handle::{self, Object, Table, held};
use crate::memory::{Output, optional, range_of};
use crate::result::{kf_error, kf_result};
use keyfold::wire::STREAM_HEADER_LEN;
use keyfold::{Error, ErrorKind, StreamRanges};
use std::ffi::c_void;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A stream of which any part can be read.
pub struct kf_stream_reader(Mutex<StreamRanges<Pulled>>);

impl Object for kf_stream_reader {
    fn table() -> &'static Table<Self> {
        static TABLE: Table<kf_stream_reader> = Table::new(8);
        &TABLE
    }
}

/// The sealed stream, as a function of the program gives it.
struct Pulled {
    read_at: unsafe extern "C" fn(*mut c_void, u64, *mut c_void, usize, *mut usize) -> i32,
    user: User,
    len: u64,
    position: u64,
}

impl Read for Pulled {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut read = 0;
        // SAFETY: the contract of kf_read_at_fn; the buffer is valid for its length and read by nobody else.
        let code = unsafe {
            (self.read_at)(self.user.pointer(), self.position, buffer.as_mut_ptr().cast(), buffer.len(), &raw mut read)
        };
        if code != 0 || read > buffer.len() {
            let why = "the program's function did not read the stream";
            return Err(Error::new(ErrorKind::Io, why).with_detail(code.to_string()).into());
        }
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Pulled {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
        }
        .ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// Makes a reader of any part of a stream of `sealed_len` bytes, header included, which `read_at` reads; it is called in this call and in those that read,
/// one at a time, and given `user`. Release the reader with kf_stream_reader_free, before what `user` stands for.
///
/// Threads: any, with the same field. Blocks as kf_decrypt does, and for `read_at`.
///
/// Returns what kf_stream_open does; KF_ERR_IO: `read_at` did not return KF_OK.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_stream_reader_new(
    field: *const kf_field,
    sealed_len: u64,
    read_at: kf_read_at_fn,
    user: *mut c_void,
    row: *const c_void,
    row_len: usize,
    reader: *mut *mut kf_stream_reader,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let field = held(field)?;
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let row = unsafe { optional(row.cast(), row_len) }?;
        let mut out = Output::one(reader)?;
        out.apart_from(&[range_of(row.unwrap_or_default())])?;
        let read_at = read_at.ok_or(NO_FUNCTION)?;
        let mut input = Pulled { read_at, user: User::new(user, None), len: sealed_len, position: 0 };
        let mut header = Vec::with_capacity(STREAM_HEADER_LEN);
        input.by_ref().take(STREAM_HEADER_LEN as u64).read_to_end(&mut header).map_err(of_io)?;
        let begun = field.begin_to_open(&header, row)?;
        let made = handle::give(kf_stream_reader(Mutex::new(begun.into_ranges(input).map_err(of_io)?)))?;
        // SAFETY: the contract of the header: `reader` can be written.
        unsafe { out.set(&[made]) };
        Ok(())
    })
}

/// Reads plaintext from `offset` on into `out`, and says in `*out_len` how much: `out_cap` bytes, or fewer where the stream ends, which was verified then. Asks
/// `read_at` for one chunk where that is enough. What was read proves nothing about what follows it.
///
/// On any other result than KF_OK `*out_len` has not been changed, and `out` is zero.
///
/// Threads: any; calls with one reader wait for each other. Blocks for `read_at`, and as kf_stream_update does.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_OVERLAP; KF_ERR_DECRYPTION_FAILED: a chunk was changed, moved, repeated or left
/// out; KF_ERR_MALFORMED: the stream was cut, or never finished, and `offset` is behind that; KF_ERR_IO; and those of keys.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_stream_read_at(
    reader: *mut kf_stream_reader,
    offset: u64,
    out: *mut c_void,
    out_cap: usize,
    out_len: *mut usize,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let reader = held(reader)?;
        let (mut len, mut room) = (Output::one(out_len)?, Output::new(out.cast::<u8>(), out_cap, out_cap)?);
        room.apart_from(&[len.range()])?;
        let mut ranges = reader.ranges();
        ranges.seek(SeekFrom::Start(offset)).map_err(of_io)?;
        let mut filled = 0;
        let read = {
            // SAFETY: the contract of the header: `out` can be written; it is apart from everything else.
            let buffer = unsafe { room.get() };
            loop {
                // Each chunk for itself, since all of them can take longer than the key may be used.
                match renewing(&mut ranges, |ranges| ranges.read(&mut buffer[filled..])) {
                    Ok(0) => break Ok(()),
                    Ok(n) => filled += n,
                    Err(error) => break Err(error),
                }
            }
        };
        // SAFETY: as above.
        read.inspect_err(|_| unsafe { room.erase() })?;
        // SAFETY: as above, of `out_len`.
        unsafe { len.set(&[filled]) };
        Ok(())
    })
}

/// Says how many bytes of plaintext the stream has, after it has opened the last chunk: so nobody has cut or lengthened it.
///
/// Threads, blocking: as for kf_stream_read_at.
///
/// Returns what kf_stream_read_at does.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_stream_verified_len(
    reader: *mut kf_stream_reader,
    len: *mut u64,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let reader = held(reader)?;
        let mut out = Output::one(len)?;
        let len = renewing(&mut reader.ranges(), StreamRanges::verified_len)?;
        // SAFETY: the contract of the header: `len` can be written.
        unsafe { out.set(&[len]) };
        Ok(())
    })
}

/// As kf_stream_is_compromised, of a reader.
///
/// Threads, blocking, results: as for kf_stream_is_compromised; it waits for calls with the same reader.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_stream_reader_is_compromised(
    reader: *mut kf_stream_reader,
    is_compromised: *mut bool,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let reader = held(reader)?;
        let mut out = Output::one(is_compromised)?;
        let told = reader.ranges().is_compromised();
        // SAFETY: the contract of the header: `is_compromised` can be written.
        unsafe { out.set(&[told]) };
        Ok(())
    })
}

/// Releases a reader. NULL does nothing.
///
/// Threads: any. Never blocks.
///
/// Returns KF_ERR_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn kf_stream_reader_free(reader: *mut kf_stream_reader) -> kf_result {
    boundary(std::ptr::null_mut(), || handle::release(reader))
}

impl kf_stream_reader {
    fn ranges(&self) -> MutexGuard<'_, StreamRanges<Pulled>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads, and has the key confirmed whenever that is due: before, and when it ran out while the program's function read a chunk, which is not read again.
fn renewing<T>(
    ranges: &mut StreamRanges<Pulled>,
    mut read: impl FnMut(&mut StreamRanges<Pulled>) -> io::Result<T>,
) -> Outcome<T> {
    loop {
        if ranges.needs_renewal() {
            pollster::block_on(ranges.renew())?;
        }
        match read(ranges).map_err(of_io) {
            Err(failure) if failure.result() == kf_result::KF_ERR_DEADLINE_EXCEEDED && ranges.needs_renewal() => {}
            done => return done,
        }
    }
}

/// The error of keyfold's within one of `std::io`.
fn of_io(error: io::Error) -> Failure {
    match Error::within(&error) {
        Some(inner) => inner.clone().into(),
        None => Error::new(ErrorKind::Io, "the stream cannot be read").with_source(error).into(),
    }
}
