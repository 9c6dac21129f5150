//! Streams as C calls them, where only Rust can look: what is left in memory that was given back, and a key that runs out within a call.
//!
//! They stand here because a test outside of the library would have the library's own allocator.
#![allow(clippy::unwrap_used, reason = "tests")]

use crate::field::{kf_field, kf_field_new};
use crate::keyring::kf_keyring_open;
use crate::options::{kf_options_add_policy, kf_options_new};
use crate::result::kf_result;
use crate::stream::*;
use crate::stream_reader::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::c_void;
use std::fs;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Plaintext, wherever a block has it.
const TEXT: [u8; 16] = *b"DICM of patients";

/// Looks for it in every block that is freed.
struct Watching;

static WATCHING: AtomicBool = AtomicBool::new(false);
static FOUND: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged; in between a block that is still allocated is
// read, within its size.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`, which is that of the system's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if WATCHING.load(Ordering::Relaxed) {
            // SAFETY: the block has these bytes, which `alloc` had filled with zeros at first.
            let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
            FOUND.fetch_add(usize::from(bytes.windows(16).any(|here| here == TEXT)), Ordering::Relaxed);
        }
        // SAFETY: the caller keeps the contract of `dealloc`, which is that of the system's.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

fn check(result: kf_result) {
    assert_eq!(result, kf_result::KF_OK);
}

/// The field `image` of a keyring whose keys are confirmed every second.
fn image() -> *mut kf_field {
    let folder = tempfile::tempdir().unwrap();
    let made = pollster::block_on(keyfold_open::init(folder.path(), "ring", "test")).unwrap();
    let config = fs::read_to_string(&made.config).unwrap();
    fs::write(&made.config, config + "\n[cache]\nmax_age = \"1s\"\ngrace = \"0s\"\n").unwrap();
    let policy = folder.path().join("policy.toml");
    fs::write(&policy, "version = 1\n[fields.image]\nmode = \"stream\"\n").unwrap();
    let (config, policy) = (made.config.to_str().unwrap(), policy.to_str().unwrap());
    let (mut options, mut ring, mut field) = (null_mut(), null_mut(), null_mut());
    // SAFETY: every pointer is valid for its length, or null where that is allowed.
    unsafe {
        check(kf_options_new(&raw mut options, null_mut()));
        check(kf_options_add_policy(options, policy.as_ptr().cast(), policy.len(), null_mut()));
        check(kf_keyring_open(config.as_ptr().cast(), config.len(), options, &raw mut ring, null_mut()));
        check(kf_field_new(ring, c"image".as_ptr(), 5, null(), 0, null(), &raw mut field, null_mut()));
    }
    // Its store is read again when keys are confirmed.
    std::mem::forget(folder);
    field
}

/// Appends what `stream` gives for `piece`, or at its end.
fn push(stream: *mut kf_stream, piece: Option<&[u8]>, out: &mut Vec<u8>) {
    let (at, room, mut len) = (out.len(), kf_stream_out_len_max(piece.map_or(0, <[u8]>::len)), 0);
    out.resize(at + room, 0);
    let to = out[at..].as_mut_ptr().cast();
    // SAFETY: as above.
    check(unsafe {
        match piece {
            Some(bytes) => {
                kf_stream_update(stream, bytes.as_ptr().cast(), bytes.len(), to, room, &raw mut len, null_mut())
            }
            None => kf_stream_finish(stream, to, room, &raw mut len, null_mut()),
        }
    });
    out.truncate(at + len);
}

fn seal(field: *mut kf_field, plaintext: &[u8]) -> Vec<u8> {
    let (mut sealed, mut stream) = (vec![0; KF_STREAM_HEADER_LEN], null_mut());
    // SAFETY: as above.
    check(unsafe { kf_stream_seal(field, null(), 0, sealed.as_mut_ptr(), sealed.len(), &raw mut stream, null_mut()) });
    push(stream, Some(plaintext), &mut sealed);
    push(stream, None, &mut sealed);
    check(kf_stream_free(stream));
    sealed
}

// Failure T4
#[test]
fn what_a_call_gave_is_erased_when_the_next_one_gives_more() {
    let field = image();
    let plaintext = TEXT.repeat(10_000);
    let sealed = seal(field, &plaintext);
    let (mut out, mut stream) = (Vec::with_capacity(500_000), null_mut());
    // SAFETY: as above.
    check(unsafe {
        kf_stream_open(field, sealed.as_ptr(), KF_STREAM_HEADER_LEN, null(), 0, &raw mut stream, null_mut())
    });
    let (one, more) = sealed[KF_STREAM_HEADER_LEN..].split_at(KF_STREAM_CHUNK_LEN + 16);
    drop(std::hint::black_box(TEXT.to_vec()));
    WATCHING.store(true, Ordering::Relaxed);
    drop(std::hint::black_box(TEXT.to_vec()));
    assert_eq!(FOUND.swap(0, Ordering::Relaxed), 1, "the allocator sees what is freed without being erased");
    push(stream, Some(one), &mut out);
    push(stream, Some(more), &mut out);
    push(stream, None, &mut out);
    check(kf_stream_free(stream));
    WATCHING.store(false, Ordering::Relaxed);
    assert!(out == plaintext);
    assert_eq!(FOUND.load(Ordering::Relaxed), 0, "plaintext was freed without being erased");
}

/// Reads slowly, as from an object store, and at last so slowly that the key runs out within a chunk.
unsafe extern "C" fn read_at(user: *mut c_void, offset: u64, out: *mut c_void, len: usize, read: *mut usize) -> i32 {
    // SAFETY: the test gives a `Vec<u8>` that outlives the reader.
    let sealed = unsafe { &*user.cast::<Vec<u8>>() };
    let rest = sealed.get(offset as usize..).unwrap_or_default();
    let n = rest.len().min(len);
    std::thread::sleep(Duration::from_millis(if offset > 300_000 { 1_100 } else { 100 }));
    // SAFETY: the contract of kf_read_at_fn.
    unsafe {
        rest.as_ptr().copy_to_nonoverlapping(out.cast(), n);
        read.write(n);
    }
    0
}

#[test]
fn a_read_may_take_longer_than_a_key_is_used() {
    let field = image();
    let plaintext = b"0123456789abcdef".repeat(20 * 1024);
    let mut sealed = seal(field, &plaintext);
    let (mut reader, mut out, mut len) = (null_mut(), vec![1; plaintext.len() + 1], 0);
    // SAFETY: as above.
    unsafe {
        let (user, sealed_len) = ((&raw mut sealed).cast(), sealed.len() as u64);
        let made = &raw mut reader;
        check(kf_stream_reader_new(field, sealed_len, Some(read_at), user, null(), 0, made, null_mut()));
        let began = std::time::Instant::now();
        check(kf_stream_read_at(reader, 0, out.as_mut_ptr().cast(), out.len(), &raw mut len, null_mut()));
        assert!(began.elapsed() > Duration::from_secs(4), "the key ran out meanwhile");
        check(kf_stream_reader_free(reader));
    }
    assert!(out[..len] == plaintext);
}
