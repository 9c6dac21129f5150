//! After a fork no two processes ever use one nonce (DESIGN F3, F4): real processes, real handles.
#![cfg(all(feature = "testing", feature = "hazmat", unix))]
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::block_on;
use common::lab::*;
use keyfold::wire::{STREAM_HEADER_LEN, sealed_stream_len};
use keyfold::{ColumnBytes, Encryptor, Error, ErrorKind, FieldPolicy, Value};
use std::io::{BufWriter, PipeReader, Read, Write, pipe};
use std::thread;
use tokio::io::AsyncWriteExt;

const CHILDREN: usize = 64;
const NONCES: usize = 100_000;
const COLUMN: usize = 1_000;
const NONCE_LEN: usize = 24;

/// Of one process, by threads that share its handle. KEYFOLD_NONCES sets another number.
const OF_ONE_PROCESS: usize = 1_000_000;
const THREADS: usize = 4;

type Nonce = [u8; NONCE_LEN];

fn nonce_of(sealed: &[u8]) -> Nonce {
    sealed[26..26 + NONCE_LEN].try_into().unwrap()
}

/// Of `count` values, half of them sealed one by one, half in columns.
fn nonces(encryptor: &Encryptor, count: usize) -> Vec<Nonce> {
    let mut all = Vec::with_capacity(count);
    all.extend((0..count / 2).map(|_| nonce_of(&encryptor.encrypt(Value::Text("x"), None).unwrap())));
    let values = [Value::Text("x"); COLUMN];
    for _ in 0..count / 2 / COLUMN {
        let column = encryptor.encrypt_column(&values[..], None::<&[&[u8]]>).unwrap();
        all.extend((0..COLUMN).map(|row| nonce_of(column.bytes(row))));
    }
    assert_eq!(all.len(), count, "a multiple of two columns");
    all
}

/// Forks a process that sends its nonces, and exits.
fn child(encryptor: &Encryptor) -> (libc::pid_t, PipeReader) {
    let (reader, mut writer) = pipe().unwrap();
    // SAFETY: the child runs this thread alone. It uses no lock that another thread of the test could have held: the
    // allocator is made ready by the C library, the handle takes none; and it leaves by `_exit`, without destructors.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            drop(reader);
            let sent = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                writer.write_all(nonces(encryptor, NONCES).as_flattened()).is_ok()
            }));
            // SAFETY: ends this process at once; nothing of it is used afterwards.
            unsafe { libc::_exit(i32::from(!sent.unwrap_or(false))) }
        }
        pid => (pid, reader),
    }
}

/// The nonces of a stream are fixed when it begins, so of two processes that have it only one may go on.
/// Covers F-19.3-2.
// Failure N2
#[test]
fn a_stream_goes_on_in_the_process_that_began_it() {
    let lab = Lab::new();
    let mut config = lab.config.clone();
    config.policy.add(FieldPolicy::stream("image")).unwrap();
    let ring = lab.process_with(config);
    let sealer = block_on(ring.field("image").unwrap().stream_sealer()).unwrap();
    let mut stream = sealer.begin(None).unwrap();
    let mut out = Vec::with_capacity(100_000);
    stream.update(&[1; 20_000], &mut out).unwrap();
    // What was sealed before and is not out yet does not go out twice.
    let mut writer = sealer.begin(None).unwrap().into_writer(BufWriter::with_capacity(50_000, Vec::new())).unwrap();
    writer.write_all(&[1; 20_000]).unwrap();
    let mut later = sealer.begin(None).unwrap().into_async_writer(Vec::new()).unwrap();
    assert_eq!(block_on(later.write(&[1; 20_000])).unwrap(), 16_384);
    let kind = |done: std::io::Result<()>| done.map_err(|error| Some(Error::within(&error)?.kind()));
    // SAFETY: as above.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            let kinds = [
                stream.update(&[2; 20_000], &mut out).map_err(|error| Some(error.kind())),
                stream.finish(&mut out).map_err(|error| Some(error.kind())),
                kind(writer.flush()),
                kind(writer.write_all(&[2; 20_000])),
                kind(writer.finish()),
                kind(block_on(later.flush())),
                kind(block_on(later.write_all(&[2; 20_000]))),
                kind(block_on(later.finish())),
                kind(block_on(later.shutdown())),
            ];
            let is_out = !writer.into_inner().get_ref().is_empty() || later.into_inner().len() != STREAM_HEADER_LEN;
            // SAFETY: as above.
            unsafe { libc::_exit(i32::from(kinds != [Err(Some(ErrorKind::Closed)); 9] || is_out)) }
        }
        pid => {
            let mut status = 0;
            // SAFETY: as above.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            assert_eq!(status, 0, "the child went on with the stream");
        }
    }
    stream.update(&[3; 20_000], &mut out).unwrap();
    stream.finish(&mut out).unwrap();
    writer.finish().unwrap();
    assert_eq!(writer.into_inner().get_ref().len() as u64, sealed_stream_len(20_000).unwrap());
    block_on(later.shutdown()).unwrap();
    assert_eq!(later.into_inner().len() as u64, sealed_stream_len(16_384).unwrap());
}

fn first_duplicate(all: &mut [Nonce]) -> Option<Nonce> {
    all.sort_unstable();
    all.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

// Failure N1
#[test]
fn no_nonce_is_used_twice_by_the_threads_of_a_process() {
    let count = std::env::var("KEYFOLD_NONCES").map_or(OF_ONE_PROCESS, |count| count.parse().expect("a number"));
    let lab = Lab::new();
    let ring = lab.process();
    let encryptor = encryptor(&ring, "plain", None).unwrap();
    let mut all = Vec::with_capacity(count);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| nonces(&encryptor, count / THREADS))).collect();
        threads.into_iter().for_each(|thread| all.append(&mut thread.join().unwrap()));
    });
    assert_eq!(all.len(), count);
    assert_eq!(first_duplicate(&mut all), None, "a nonce was used twice");
    println!("{count} nonces of one process, all different");
    // The search finds one.
    all[count / 3] = all[count - 1];
    assert!(first_duplicate(&mut all).is_some());
}

// Failures N1, N2, N3
#[test]
fn no_nonce_is_used_by_two_processes_after_a_fork() {
    let lab = Lab::new();
    let ring = lab.process();
    let encryptor = encryptor(&ring, "plain", None).unwrap();
    // Used before, so that whatever is kept is there.
    let mut all = nonces(&encryptor, NONCES);
    let children: Vec<_> = (0..CHILDREN).map(|_| child(&encryptor)).collect();
    all.extend(nonces(&encryptor, NONCES));
    for (pid, mut reader) in children {
        let mut bytes = Vec::with_capacity(NONCES * NONCE_LEN);
        reader.read_to_end(&mut bytes).unwrap();
        let mut status = 0;
        // SAFETY: waits for a child of this process; `status` is a valid place for its status.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!((status, bytes.len()), (0, NONCES * NONCE_LEN), "the child failed");
        all.extend_from_slice(bytes.as_chunks().0);
    }
    assert_eq!(all.len(), (CHILDREN + 2) * NONCES);
    assert_eq!(first_duplicate(&mut all), None, "a nonce was used twice");
    // The search finds one.
    all[1_234_567] = all[7_654_321 % all.len()];
    assert!(first_duplicate(&mut all).is_some());
}
