//! What the cache and streams really occupy, and what is left of keys in memory that was given back. An allocator counts every
//! byte and looks into every block that is freed.
//!
//! Keys themselves are in an arena that it does not see (docs/MEMORY.md): here they must be given back to that, which the crate `memory`
//! shows to erase them, and come to no block of the heap.
#![cfg(all(feature = "testing", feature = "hazmat"))]
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::block_on;
use common::cache::Process;
use common::lab::*;
use common::store::LabStore;
use keyfold::testing::FakeKms;
use keyfold::vectors::{Key, RecordParts};
use keyfold::wire::KeyId;
use keyfold::{
    BoxFuture, ChainStart, ErrorKind, FieldPolicy, KeyClass, KeyStore, Keyring, Kms, KmsContext, Lineage,
    MemoryHighWater, Record, RecordChange, Result, Slot, SlotId, UnwrapRequest, Value,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

struct Watching;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static WATCHING: AtomicBool = AtomicBool::new(false);
static FOUND: AtomicUsize = AtomicUsize::new(0);
/// The first bytes of a key, wherever they are looked for.
static NEEDLE: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

/// Tests that count or watch run one at a time.
static ALONE: Mutex<()> = Mutex::new(());

// SAFETY: every call is passed on to the system's allocator unchanged; in between a block that is still allocated is
// read, within its size.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`, which is that of the system's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        if WATCHING.load(Ordering::Relaxed) {
            let needle = NEEDLE.each_ref().map(|half| half.load(Ordering::Relaxed));
            for at in (0..(layout.size() + 1).saturating_sub(16)).step_by(4) {
                // SAFETY: 16 bytes from `at` are within the block, which `alloc` had filled with zeros at first.
                let here = unsafe { block.add(at).cast::<[usize; 2]>().read_unaligned() };
                if here == needle {
                    FOUND.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        // SAFETY: the caller keeps the contract of `dealloc`, which is that of the system's.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// How many freed blocks held the start of `key` while `run` ran.
fn found_in_freed_memory(key: &[u8], run: impl FnOnce()) -> usize {
    for (half, bytes) in NEEDLE.iter().zip(key.as_chunks::<8>().0) {
        half.store(usize::from_ne_bytes(*bytes), Ordering::Relaxed);
    }
    FOUND.store(0, Ordering::Relaxed);
    WATCHING.store(true, Ordering::Relaxed);
    run();
    WATCHING.store(false, Ordering::Relaxed);
    FOUND.load(Ordering::Relaxed)
}

/// Bytes of the arena that keys have.
fn held() -> usize {
    let keys = keyfold::key_memory();
    keys.locked + keys.unlocked
}

// Failures B4, T4
#[test]
fn keys_are_erased_when_their_last_user_drops_them() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let lab = Lab::new();
    let key = data(DATA);
    let purposes = key.purpose_keys();
    let field_key = &purposes.iter().find(|(label, _)| label.ends_with("field")).unwrap().1;
    let wrapped_key = &key.bytes;
    let control = found_in_freed_memory(field_key, || drop(std::hint::black_box(field_key.clone())));
    assert_eq!(control, 1, "the allocator sees what is freed without being erased");
    let before = held();
    for secret in [&field_key[..], &wrapped_key[..]] {
        let found = found_in_freed_memory(secret, || {
            let process = Process::quick(&lab, lab.config.clone());
            let encryptor = encryptor(&process.ring, "plain", None).unwrap();
            let sealed = encryptor.encrypt(Value::Text("x"), None).unwrap();
            assert!(reveal(&process.ring, None, &sealed).is_ok());
            // Dropped by the cache while a handle has it, then by the handle.
            process.ring.close();
            let left = held();
            assert!(left > before, "a handle holds its key");
            drop(encryptor);
            assert!(held() < left);
            drop(process);
        });
        assert_eq!(found, 0, "a key was freed without being erased");
        assert_eq!(held(), before, "the arena has every key back");
    }
    let found = found_in_freed_memory(field_key, || {
        let mut config = lab.config.clone();
        config.cache.max_keys = 0;
        let process = Process::quick(&lab, config);
        assert!(seal(&process.ring, None, "evicted at once").is_ok());
    });
    assert_eq!(found, 0);
}

/// Bytes on the heap, and of keys.
fn live() -> usize {
    LIVE.load(Ordering::Relaxed) + held()
}

/// Allocations of `run`, and how many bytes it had at once more than before.
fn cost_of(run: impl FnOnce()) -> (usize, usize) {
    let (allocations, live) = (ALLOCATIONS.load(Ordering::Relaxed), LIVE.load(Ordering::Relaxed));
    PEAK.store(live, Ordering::Relaxed);
    run();
    (ALLOCATIONS.load(Ordering::Relaxed) - allocations, PEAK.load(Ordering::Relaxed) - live)
}

/// On the heap, and by the arena; `open/memory_residue` looks at stacks.
///
/// Covers F-15.1-2.
#[test]
fn the_key_of_a_line_of_an_audit_chain_is_erased_with_the_step_to_the_next() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let kms = FakeKms::new();
    let (start, mut ratchet) = block_on(ChainStart::begin(&kms, LINEAGE, ENVIRONMENT)).unwrap();
    let context = KmsContext::new(ENVIRONMENT, LINEAGE, KeyId::new(0, &start.commitment));
    let payload = block_on(kms.unwrap(UnwrapRequest::new(&start.wrapped, &context))).unwrap();
    let slot = SlotId::from_bytes(*start.id.as_bytes());
    let bytes = payload.expose()[..32].try_into().unwrap();
    let (_, first) =
        Key { bytes, lineage: LINEAGE, class: KeyClass::Audit, slot, generation: 0 }.purpose_keys().remove(0);
    let control = found_in_freed_memory(&first, || drop(std::hint::black_box(first.clone())));
    assert_eq!(control, 1, "the allocator sees what is freed without being erased");
    let before = ratchet.mac(&[0; 32], b"line");
    let held_before = held();
    assert_eq!(found_in_freed_memory(&first, || ratchet.step()), 0, "freed without being erased");
    assert_eq!(held(), held_before, "the arena has the key back");
    assert_ne!(ratchet.mac(&[0; 32], b"line"), before);
}

/// A whole stream costs the same however long it is, and nothing per chunk; what is given back holds no plaintext.
// Failure T4
#[test]
fn streams_of_any_length_take_the_same_memory() {
    const CHUNK: u64 = keyfold::wire::CHUNK_LEN as u64;
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let lab = Lab::new();
    let mut config = lab.config.clone();
    config.policy.add(FieldPolicy::stream("image")).unwrap();
    let process = Process::quick(&lab, config);
    let field = || process.ring.field("image").unwrap();
    let (sealer, opener) = (block_on(field().stream_sealer()).unwrap(), block_on(field().stream_opener()).unwrap());
    for threads in [1, 2, 4] {
        let threads = NonZeroUsize::new(threads).unwrap();
        let costs = [40, 4000].map(|chunks| {
            let mut sealed = Vec::with_capacity(keyfold::wire::sealed_stream_len(chunks * CHUNK).unwrap() as usize);
            let seal = cost_of(|| {
                let (stream, mut input) = (sealer.begin(None).unwrap(), io::repeat(7).take(chunks * CHUNK));
                stream.seal_all(&mut input, &mut sealed, threads, |_| Ok(())).unwrap();
            });
            let header = keyfold::wire::StreamHeader::parse(&sealed).unwrap();
            block_on(opener.load_key(&header)).unwrap();
            let chunks = &sealed[keyfold::wire::STREAM_HEADER_LEN..];
            let begin = || opener.begin(&header, None).unwrap();
            let open = cost_of(|| {
                begin().open_all(&mut { chunks }, &mut io::sink(), threads, |_| Ok(())).unwrap();
            });
            let mut buffer = vec![0; 100_000];
            let read = cost_of(|| {
                let mut reader = begin().into_reader(chunks);
                while reader.read(&mut buffer).unwrap() > 0 {}
            });
            let write = cost_of(|| {
                let mut writer = sealer.begin(None).unwrap().into_writer(io::sink()).unwrap();
                (0..chunks.len().div_ceil(1000)).for_each(|_| writer.write_all(&buffer[..1000]).unwrap());
                writer.finish().unwrap();
            });
            [seal, open, read, write]
        });
        for (what, (short, long)) in
            ["seal", "open", "read", "write"].into_iter().zip(costs[0].into_iter().zip(costs[1]))
        {
            println!(
                "{what} with {threads} threads: {} and {} allocations, {} and {} bytes",
                short.0, long.0, short.1, long.1
            );
            // Other threads allocate as well, those of the tests' program too: but not 4,000 times for 4,000 chunks, nor 250 times for as many batches.
            assert!(long.0 <= short.0 + 64, "{what} with {threads} threads: {} allocations, then {}", short.0, long.0);
            let most = if threads.get() == 1 { 350_000 } else { threads.get() * (512 * 1024 + 16_384) + 65_536 };
            assert!(long.1 <= most, "{what} with {threads} threads: {} bytes", long.1);
        }
    }
    let text = b"a text that nobody else has in memory, and of which nothing may be left";
    let found = found_in_freed_memory(text, || {
        let mut stream = sealer.begin(None).unwrap();
        stream.update(text, &mut Vec::new()).unwrap();
        drop(stream);
        let mut stream = sealer.begin(None).unwrap();
        stream.update(text, &mut Vec::new()).unwrap();
        stream.finish(&mut Vec::new()).unwrap();
        let mut writer = sealer.begin(None).unwrap().into_writer(io::sink()).unwrap();
        writer.write_all(text).unwrap();
        drop(writer);
        let mut writer = sealer.begin(None).unwrap().into_async_writer(tokio::io::sink()).unwrap();
        block_on(tokio::io::AsyncWriteExt::write_all(&mut writer, text)).unwrap();
        drop(writer);
        let mut sealed = Vec::with_capacity(1000);
        sealer.begin(None).unwrap().seal_all(&mut &text[..], &mut sealed, NonZeroUsize::MIN, |_| Ok(())).unwrap();
        let header = keyfold::wire::StreamHeader::parse(&sealed).unwrap();
        let chunks = &sealed[keyfold::wire::STREAM_HEADER_LEN..];
        opener
            .begin(&header, None)
            .unwrap()
            .open_all(&mut { chunks }, &mut io::sink(), NonZeroUsize::MIN, |_| Ok(()))
            .unwrap();
        let mut reader = opener.begin(&header, None).unwrap().into_reader(chunks);
        assert_eq!(reader.read(&mut [0]).unwrap(), 1);
        let mut reader = opener.begin(&header, None).unwrap().into_async_reader(chunks);
        assert_eq!(block_on(tokio::io::AsyncReadExt::read(&mut reader, &mut [0])).unwrap(), 1);
    });
    assert_eq!(found, 0, "plaintext was freed without being erased");
}

/// A store of any number of scopes, whose records are made when they are asked for.
struct ManyScopes {
    lab: LabStore,
    by_tag: HashMap<[u8; 32], u32>,
}

/// The generation of scope 0; that of scope n is n more.
const FIRST: u32 = 100;

fn name_of(scope: u32) -> String {
    format!("device-{scope}")
}

fn id_of(scope: u32) -> SlotId {
    let mut id = [0x53; 16];
    id[..4].copy_from_slice(&scope.to_be_bytes());
    SlotId::from_bytes(id)
}

fn record_of(scope: u32) -> Record {
    let key = ours(KeyClass::Data, id_of(scope), FIRST + scope);
    record(&RecordParts { scope_tag: Some(scope_tag(&name_of(scope))), ..child_parts(key, root()) })
}

impl ManyScopes {
    fn scope(&self, generation: u32) -> Option<u32> {
        generation.checked_sub(FIRST).filter(|scope| (*scope as usize) < self.by_tag.len())
    }
}

impl KeyStore for ManyScopes {
    fn get(&self, lineage: Lineage, key_id: KeyId) -> BoxFuture<'_, Result<Option<Record>>> {
        match self.scope(key_id.generation()) {
            Some(scope) => Box::pin(async move { Ok(Some(record_of(scope))) }),
            None => self.lab.get(lineage, key_id),
        }
    }

    fn newest(&self, slot: Slot, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        let scope = u32::from_be_bytes(slot.id.as_bytes()[..4].try_into().unwrap());
        if slot.id == id_of(scope) {
            return Box::pin(async move { Ok(vec![record_of(scope)]) });
        }
        self.lab.newest(slot, limit)
    }

    fn scope_by_tag(&self, _: Lineage, tag: [u8; 32]) -> BoxFuture<'_, Result<Option<SlotId>>> {
        Box::pin(async move { Ok(self.by_tag.get(&tag).map(|scope| id_of(*scope))) })
    }

    fn list(&self, _: Lineage, _: Option<KeyId>, _: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        Box::pin(async { Err(ErrorKind::Store.into()) })
    }

    fn allocate_generation(&self, _: Lineage, _: u32) -> BoxFuture<'_, Result<u32>> {
        Box::pin(async { Err(ErrorKind::Store.into()) })
    }

    fn insert<'a>(&'a self, _: &'a Record, _: Option<KeyId>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Err(ErrorKind::Store.into()) })
    }

    fn update<'a>(&'a self, _: &'a Record, _: u64) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Err(ErrorKind::Store.into()) })
    }

    fn update_many<'a>(&'a self, _: &'a [RecordChange]) -> BoxFuture<'a, Result<Vec<KeyId>>> {
        Box::pin(async { Err(ErrorKind::Store.into()) })
    }

    fn now(&self) -> BoxFuture<'_, Result<u64>> {
        self.lab.now()
    }
}

/// A keyring of so many scopes, which has sealed once.
fn ring_of(lab: &Lab, scopes: u32, max_bytes: usize) -> Keyring {
    let by_tag = (0..scopes).map(|scope| (scope_tag(&name_of(scope)), scope)).collect();
    let store = Arc::new(ManyScopes { lab: lab.store.clone(), by_tag });
    let mut config = lab.config.clone();
    config.cache.max_bytes = max_bytes;
    // Marks of a file are not memory of the cache.
    let marks = Arc::new(MemoryHighWater::with_capacity(1));
    let ring = Keyring::open(config, store, lab.keks(), marks).unwrap();
    assert!(seal(&ring, None, "x").is_ok());
    lab.faults.reset();
    ring
}

fn scopes_stay_within(scopes: u32, max_bytes: usize) {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let lab = Lab::new();
    let ring = ring_of(&lab, scopes, max_bytes);
    let before = live();
    let mut most = 0;
    for scope in 0..scopes {
        let name = name_of(scope);
        let sealed = seal(&ring, Some(&name), "x").unwrap();
        assert!(reveal(&ring, Some(&name), &sealed).is_ok());
        if scope % 64 == 0 || scope + 1 == scopes {
            lab.faults.reset();
            most = most.max(live().saturating_sub(before));
        }
    }
    let (entries, counted) = ring.occupancy();
    println!(
        "{scopes} scopes, {max_bytes} bytes configured: {entries} entries, {counted} bytes counted, {most} allocated"
    );
    assert!(counted <= max_bytes, "{counted} bytes counted of {max_bytes}");
    assert!(counted > max_bytes / 2, "{counted} bytes counted: the cache was filled");
    assert!(most <= max_bytes, "{most} bytes allocated of {max_bytes}");
}

// Failure B12
#[test]
fn many_scopes_stay_within_the_configured_bytes() {
    for max_bytes in [1 << 20, 3 << 20, 4 << 20, 5 << 20] {
        scopes_stay_within(10_000, max_bytes);
    }
}

// Failure B12
#[test]
#[ignore = "takes minutes; ./test --long runs it"]
fn a_million_scopes_stay_within_the_configured_bytes() {
    scopes_stay_within(1_000_000, 64 << 20);
}

#[test]
fn what_handles_held_beside_the_cache_is_given_back() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (scopes, max_bytes) = (5_000, 1 << 20);
    let lab = Lab::new();
    let ring = ring_of(&lab, scopes, max_bytes);
    let before = live();
    let handles: Vec<_> = (0..scopes).map(|scope| encryptor(&ring, "plain", Some(&name_of(scope))).unwrap()).collect();
    let (held, counted) = (live() - before, ring.occupancy().1);
    drop(handles);
    block_on(ring.refresh()).unwrap();
    lab.faults.reset();
    let left = live().saturating_sub(before);
    println!("{held} bytes with {scopes} handles, of which {counted} are counted; {left} afterwards");
    assert!(left <= max_bytes && ring.occupancy().1 <= max_bytes, "{left} bytes are left of {held}");
}

#[test]
fn what_is_not_needed_is_not_held() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let lab = Lab::new();
    let process = Process::quick(&lab, lab.config.clone());
    let before = live();
    for _ in 0..10_000 {
        assert!(reveal(&process.ring, None, &sealed_under(&data(OLD_DATA), &[1; 24], "x")).is_ok());
        lab.faults.reset();
    }
    let grown = live().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} bytes more after ten thousand uses of one key");
}
