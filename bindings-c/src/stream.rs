//! Streams: data of any length, pushed piece by piece.

use crate::boundary::{Outcome, boundary};
use crate::field::kf_field;
use crate::handle::{self, Object, Table, held};
use crate::memory::{Output, input, optional, range_of};
use crate::result::{kf_error, kf_result};
use keyfold::wire::{SEALED_CHUNK_LEN, STREAM_HEADER_LEN, StreamHeader};
use keyfold::{OpeningStream, SealingStream};
use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};
use zeroize::Zeroizing;

/// Bytes of the header of a stream.
pub const KF_STREAM_HEADER_LEN: usize = 83;
/// Bytes of plaintext in every chunk of a stream but the last.
pub const KF_STREAM_CHUNK_LEN: usize = 16384;

const _: () = assert!(KF_STREAM_HEADER_LEN == STREAM_HEADER_LEN && KF_STREAM_CHUNK_LEN == keyfold::wire::CHUNK_LEN);

/// A stream that is being sealed or opened piece by piece, in order.
pub struct kf_stream(Mutex<Pushed>);

struct Pushed {
    way: Way,
    /// What a call gives, until it is in the buffer of the program. Erased with the stream.
    out: Zeroizing<Vec<u8>>,
}

enum Way {
    Seal(SealingStream),
    /// Large, as it has an expanded key in it.
    Open(Box<OpeningStream>),
}

impl Object for kf_stream {
    fn table() -> &'static Table<Self> {
        static TABLE: Table<kf_stream> = Table::new(7);
        &TABLE
    }
}

impl Way {
    /// Has the key confirmed, if that is due.
    fn renew(&mut self) -> keyfold::Result<()> {
        match self {
            Self::Seal(stream) if stream.needs_renewal() => pollster::block_on(stream.renew()),
            Self::Open(stream) if stream.needs_renewal() => pollster::block_on(stream.renew()),
            _ => Ok(()),
        }
    }

    fn update(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> keyfold::Result<()> {
        self.renew()?;
        match self {
            Self::Seal(stream) => stream.update(bytes, out),
            Self::Open(stream) => stream.update(bytes, out),
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> keyfold::Result<()> {
        self.renew()?;
        match self {
            Self::Seal(stream) => stream.finish(out),
            Self::Open(stream) => stream.finish(out),
        }
    }

    /// A compromised key does not seal.
    fn is_compromised(&self) -> bool {
        matches!(self, Self::Open(stream) if stream.is_compromised())
    }
}

impl kf_stream {
    fn new(way: Way) -> Self {
        Self(Mutex::new(Pushed { way, out: Zeroizing::default() }))
    }

    fn pushed(&self) -> MutexGuard<'_, Pushed> {
        // Every call leaves it whole: a stream that has failed says so itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work`, and puts what it gives into `out`.
    ///
    /// # Safety
    ///
    /// `out` and `out_len` are valid for what they say, apart from each other and from `bytes`.
    unsafe fn push(
        &self,
        bytes: &[u8],
        out: *mut c_void,
        out_cap: usize,
        out_len: *mut usize,
        work: impl FnOnce(&mut Way, &mut Vec<u8>) -> keyfold::Result<()>,
    ) -> Outcome<()> {
        let mut len = Output::one(out_len)?;
        let most = kf_stream_out_len_max(bytes.len());
        let mut room = Output::new(out.cast::<u8>(), out_cap, most)?;
        let inputs = [range_of(bytes), len.range()];
        room.apart_from(&inputs)?;
        len.apart_from(&inputs[..1])?;
        let mut pushed = self.pushed();
        let Pushed { way, out } = &mut *pushed;
        out.clear();
        if out.capacity() < most {
            // Growing would leave what it held before where it was.
            *out = Zeroizing::new(Vec::with_capacity(most));
        }
        work(way, out)?;
        // SAFETY: this function's contract; the room is as long as anything that `bytes` can give.
        unsafe {
            room.set(out);
            len.set(&[out.len()]);
        }
        Ok(())
    }
}

/// Bytes that `out` of kf_stream_update must have for `input_len` bytes of input, and of kf_stream_finish for 0, although fewer may be written. A pure
/// function.
///
/// Threads: any. Never blocks.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn kf_stream_out_len_max(input_len: usize) -> usize {
    (input_len / KF_STREAM_CHUNK_LEN + 1).saturating_mul(SEALED_CHUNK_LEN)
}

/// Begins to seal a stream for a field with mode = "stream", bound to `row` where the policy binds it; otherwise `row` is NULL. Writes the header, the first
/// KF_STREAM_HEADER_LEN bytes of the stream, to `header`; what kf_stream_update and kf_stream_finish write follows it, in order. Release the
/// stream with kf_stream_free.
///
/// Only kf_stream_finish makes the stream complete: one that was released before is refused at its end, whatever is read of it until then.
/// After a fork only the process that has begun a stream goes on with it: KF_ERR_CLOSED in others, since two would seal with the same nonces.
///
/// Threads: any, with the same field. Blocks as kf_encrypt does.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_OVERLAP; KF_ERR_BUFFER_TOO_SMALL; KF_ERR_INVALID_INPUT: row missing or not wanted;
/// KF_ERR_LIMIT_EXCEEDED: the row is too long; KF_ERR_POLICY_REFUSED: the field is none of streams, or the context lacks a required key; KF_ERR_KEY_STATE,
/// KF_ERR_RECORD_REJECTED, KF_ERR_KMS_*, KF_ERR_STORE; KF_ERR_RANDOMNESS_UNAVAILABLE, KF_ERR_DEADLINE_EXCEEDED, KF_ERR_CLOSED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_stream_seal(
    field: *const kf_field,
    row: *const c_void,
    row_len: usize,
    header: *mut u8,
    header_cap: usize,
    stream: *mut *mut kf_stream,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let field = held(field)?;
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let row = unsafe { optional(row.cast(), row_len) }?;
        let (mut out, mut head) = (Output::one(stream)?, Output::new(header, header_cap, STREAM_HEADER_LEN)?);
        let inputs = [range_of(row.unwrap_or_default()), out.range()];
        head.apart_from(&inputs)?;
        out.apart_from(&inputs[..1])?;
        let begun = field.stream_sealer()?.begin(row)?;
        let bytes = *begun.header().as_bytes();
        let made = handle::give(kf_stream::new(Way::Seal(begun)))?;
        // SAFETY: the contract of the header: both can be written, and are apart.
        unsafe {
            head.set(&bytes);
            out.set(&[made]);
        }
        Ok(())
    })
}

/// Begins to open the stream that starts with `header`, KF_STREAM_HEADER_LEN bytes, for a field with mode = "stream", bound to the row that it was sealed with.
/// What follows the header goes to kf_stream_update, in order, and gives plaintext that was verified. Release the stream with kf_stream_free.
///
/// **Plaintext is not final until kf_stream_finish has returned KF_OK.** What was given out before stands where it was put, but may not be all: act on nothing that
/// must be whole before that.
///
/// Threads: any, with the same field. Blocks as kf_decrypt does.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_OVERLAP; KF_ERR_INVALID_INPUT: row missing or not wanted; KF_ERR_POLICY_REFUSED: the
/// field is none of streams, or the context lacks a required key; KF_ERR_MALFORMED, KF_ERR_UNSUPPORTED: not the header of a stream; KF_ERR_NO_MATCHING_KEY,
/// KF_ERR_WRONG_SCOPE, KF_ERR_KEY_STATE, KF_ERR_RECORD_REJECTED, KF_ERR_KMS_*, KF_ERR_STORE; KF_ERR_DECRYPTION_FAILED: another field, context or
/// row; KF_ERR_DEADLINE_EXCEEDED, KF_ERR_CLOSED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_stream_open(
    field: *const kf_field,
    header: *const u8,
    header_len: usize,
    row: *const c_void,
    row_len: usize,
    stream: *mut *mut kf_stream,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let field = held(field)?;
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let (header, row) = unsafe { (input(header, header_len)?, optional(row.cast(), row_len)?) };
        let mut out = Output::one(stream)?;
        out.apart_from(&[range_of(header), range_of(row.unwrap_or_default())])?;
        let begun = field.begin_to_open(header, row)?;
        let made = handle::give(kf_stream::new(Way::Open(Box::new(begun))))?;
        // SAFETY: the contract of the header: `stream` can be written.
        unsafe { out.set(&[made]) };
        Ok(())
    })
}

/// Seals or opens the next bytes of a stream, any number of them: writes the chunks that they complete to `out`, whose `out_cap` must be at least what
/// kf_stream_out_len_max says, and holds back the rest. `*out_len` may be 0.
///
/// On KF_OK `*out_len` has the number of bytes written. On any other result neither `out` nor `*out_len` has been changed, and nothing of `input` was
/// taken. Where the key could not be confirmed, as after KF_ERR_KMS_*, KF_ERR_STORE and KF_ERR_DEADLINE_EXCEEDED, the call can be repeated; after
/// KF_ERR_DECRYPTION_FAILED, KF_ERR_LIMIT_EXCEEDED and KF_ERR_CLOSED every further call fails.
///
/// Threads: any; calls with one stream wait for each other. Blocks for the store and for one request to the key service where the key of the
/// stream has to be confirmed, which is seldom.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_OVERLAP; KF_ERR_BUFFER_TOO_SMALL; KF_ERR_LIMIT_EXCEEDED: more than 4 PiB; KF_ERR_DECRYPTION_FAILED: a
/// chunk was changed, moved, repeated or left out; KF_ERR_KEY_STATE, KF_ERR_RECORD_REJECTED, KF_ERR_KMS_*, KF_ERR_STORE, KF_ERR_DEADLINE_EXCEEDED;
/// KF_ERR_CLOSED: the keyring is closed, or the stream is finished.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_stream_update(
    stream: *mut kf_stream,
    input: *const c_void,
    input_len: usize,
    out: *mut c_void,
    out_cap: usize,
    out_len: *mut usize,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let stream = held(stream)?;
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let bytes = unsafe { self::input(input.cast::<u8>(), input_len) }?;
        // SAFETY: as above; `push` checks that they are apart.
        unsafe { stream.push(bytes, out, out_cap, out_len, |way, room| way.update(bytes, room)) }
    })
}

/// Seals or opens the last chunk of a stream, from what was held back, and writes it to `out`, whose `out_cap` must be at least kf_stream_out_len_max(0). On
/// KF_OK the stream is complete: of one that was opened it is known now that nothing is missing. The handle is still to be released.
///
/// On KF_OK `*out_len` has the number of bytes written. On any other result neither `out` nor `*out_len` has been changed, and the call can be
/// repeated where kf_stream_update can.
///
/// Threads, blocking: as for kf_stream_update.
///
/// Returns what kf_stream_update does, and KF_ERR_MALFORMED: the stream that was opened was cut, or never finished. KF_ERR_DECRYPTION_FAILED is also one that
/// was cut within a chunk, or lengthened.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_stream_finish(
    stream: *mut kf_stream,
    out: *mut c_void,
    out_cap: usize,
    out_len: *mut usize,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let stream = held(stream)?;
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths; `push` checks that they are apart.
        unsafe { stream.push(&[], out, out_cap, out_len, Way::finish) }
    })
}

/// Says in `*is_compromised` whether the key of a stream that is opened is compromised, as kf_opened does of a value: whoever has the key can have made the
/// stream. Such a stream opens only where the configuration says so. Of one that is sealed it says false.
///
/// Threads: any; calls with one stream wait for each other. Asks nobody: it says what was so when the key was last confirmed.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_stream_is_compromised(
    stream: *mut kf_stream,
    is_compromised: *mut bool,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let stream = held(stream)?;
        let mut out = Output::one(is_compromised)?;
        let told = stream.pushed().way.is_compromised();
        // SAFETY: the contract of the header: `is_compromised` can be written.
        unsafe { out.set(&[told]) };
        Ok(())
    })
}

/// Releases a stream, finished or not. NULL does nothing.
///
/// Threads: any. Never blocks.
///
/// Returns KF_ERR_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn kf_stream_free(stream: *mut kf_stream) -> kf_result {
    boundary(std::ptr::null_mut(), || handle::release(stream))
}

impl kf_field {
    /// A stream of this field that begins with `header`.
    pub(crate) fn begin_to_open(&self, header: &[u8], row: Option<&[u8]>) -> Outcome<OpeningStream> {
        let header = StreamHeader::parse(header)?;
        let opener = self.stream_opener()?;
        pollster::block_on(opener.load_key(&header))?;
        Ok(opener.begin(&header, row)?)
    }
}

#[cfg(test)]
mod tests;
