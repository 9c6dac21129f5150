//! Whole streams from a reader to a writer: one thread reads and writes in order, others seal or open in between.

use super::{UNREADABLE, UNWRITABLE, from_io, read_full};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::stream::CUT;
use crate::wire::{CHUNK_LEN, SEALED_CHUNK_LEN, TAG_LEN};
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Scope};
use zeroize::Zeroizing;

/// Chunks that are handed to a thread at once: enough that handing over costs nothing, few enough to stay in its cache.
const BATCH: usize = 16;
/// Batches per thread: one to work on, and one that is read or written meanwhile.
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

pub(super) fn put(output: &mut impl Write, bytes: &[u8]) -> Result<()> {
    output.write_all(bytes).map_err(|error| from_io(error, UNWRITABLE))
}

/// Lets each batch be read, worked on and written, in this order and in the order of batches, until `read` gives the last one.
pub(super) fn run(
    threads: NonZeroUsize,
    mut read: impl FnMut(&mut Batch) -> Result<()>,
    work: impl Fn(&mut Batch) -> Result<()> + Sync,
    mut write: impl FnMut(&Batch) -> Result<()>,
) -> Result<()> {
    let threads = threads.get();
    if threads == 1 {
        let mut batch = Batch::new();
        while !batch.is_last {
            read(&mut batch)?;
            work(&mut batch)?;
            write(&batch)?;
            batch.first += BATCH as u64;
        }
        return Ok(());
    }
    thread::scope(|scope| {
        let lanes: Vec<Lane> = (0..threads).map(|_| Lane::new(scope, &work)).collect::<Result<_>>()?;
        let ahead = threads * DEPTH;
        let (mut sent, mut ended) = (0, false);
        while !ended {
            // Batches go round, so the one that was sent `ahead` batches ago comes from the same lane, and makes room in it.
            let lane = &lanes[sent % threads];
            let mut batch = if sent < ahead { Batch::new() } else { lane.receive_and(&mut write)? };
            batch.first = (sent * BATCH) as u64;
            read(&mut batch)?;
            ended = batch.is_last;
            lane.sender.send(batch).map_err(|_| ErrorKind::Internal)?;
            sent += 1;
        }
        for number in sent.saturating_sub(ahead)..sent {
            lanes[number % threads].receive_and(&mut write)?;
        }
        Ok(())
    })
}

/// A thread with what it has to do and what it has done. It ends when its lane is dropped.
struct Lane {
    sender: SyncSender<Batch>,
    receiver: Receiver<Result<Batch>>,
}

impl Lane {
    fn new<'s>(scope: &'s Scope<'s, '_>, work: &'s (impl Fn(&mut Batch) -> Result<()> + Sync)) -> Result<Self> {
        let (sender, todo) = sync_channel::<Batch>(DEPTH);
        let (done, receiver) = sync_channel(DEPTH);
        let run = move || {
            for mut batch in todo {
                let worked = work(&mut batch).map(|()| batch);
                if done.send(worked).is_err() {
                    break;
                }
            }
        };
        thread::Builder::new()
            .name("keyfold-stream".to_owned())
            .spawn_scoped(scope, run)
            .map_err(|error| Error::new(ErrorKind::Io, "a thread for a stream cannot be started").with_source(error))?;
        Ok(Self { sender, receiver })
    }

    fn receive_and(&self, write: &mut impl FnMut(&Batch) -> Result<()>) -> Result<Batch> {
        let batch = self.receiver.recv().map_err(|_| ErrorKind::Internal)??;
        write(&batch)?;
        Ok(batch)
    }
}
