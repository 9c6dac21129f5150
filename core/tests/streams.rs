//! Streams of suite 04: what every kind of reader makes of what an attacker makes of them (FORMAT.md §19, DESIGN F23).
//!
//! Over 500 lines: each attack is held against all readers in one place.

use crate::common::cache::Process;
use crate::common::lab::*;
use crate::common::{block_on, refused};
use crate::streams_async::{Slow, drain_async};
use keyfold::aead::Backend;
use keyfold::wire::{
    CHUNK_LEN, MAX_CHUNKS, SEALED_CHUNK_LEN, STREAM_HEADER_LEN, StreamHeader, Suite, opened_stream_len,
    sealed_stream_len,
};
use keyfold::{
    Context, Error, ErrorKind, FieldPolicy, KeyState, Keyring, KeyringConfig, OpeningStream, Policy, Result, Rotated,
    RotationPolicy, SealingStream, StreamRanges, StreamWriter, ValueType,
};
use proptest::prelude::*;
use std::cell::Cell;
use std::io::{self, BufRead, Cursor, Read, Seek, SeekFrom, Write};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

pub(crate) const CHUNK: usize = CHUNK_LEN;
/// Around all the lengths at which something changes.
pub(crate) const LENGTHS: [usize; 9] =
    [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 16 * CHUNK, 16 * CHUNK + 5, 70 * CHUNK - 1];

/// The fields `image` and `film`, and `scan`, which is bound to its row.
pub(crate) fn config(lab: &Lab) -> KeyringConfig {
    let mut policy = policy();
    for name in ["image", "film"] {
        policy.add(FieldPolicy::stream(name)).unwrap();
    }
    let row_binding = bound("scan").row_binding;
    policy.add(FieldPolicy { row_binding, ..FieldPolicy::stream("scan") }).unwrap();
    KeyringConfig { policy, ..lab.config.clone() }
}

pub(crate) fn context(tenant: &str) -> Context {
    Context::new().with("tenant", tenant).unwrap()
}

pub(crate) fn begin(ring: &Keyring, field: &str, row: Option<&str>) -> Result<SealingStream> {
    block_on(ring.field(field)?.context(context("t1")).stream_sealer())?.begin(row.map(str::as_bytes))
}

pub(crate) fn begin_to_open(
    ring: &Keyring,
    field: &str,
    tenant: &str,
    row: Option<&str>,
    sealed: &[u8],
) -> Result<OpeningStream> {
    let opener = block_on(ring.field(field)?.context(context(tenant)).stream_opener())?;
    let header = StreamHeader::parse(sealed)?;
    block_on(opener.load_key(&header))?;
    opener.begin(&header, row.map(str::as_bytes))
}

/// Bytes that differ wherever chunks could be mistaken for each other.
pub(crate) fn plaintext(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / CHUNK * 37 + i % 251) as u8).collect()
}

fn threads(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

pub(crate) fn seal_bytes(ring: &Keyring, plaintext: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let stream = begin(ring, "image", None).unwrap();
    let sealed = stream.seal_all(&mut &*plaintext, &mut out, threads(1), |_| Ok(())).unwrap();
    assert_eq!(sealed, plaintext.len() as u64);
    out
}

pub(crate) fn finished<W: Write>(mut writer: StreamWriter<W>) -> W {
    writer.finish().unwrap();
    writer.into_inner()
}

pub(crate) fn unwrapped(error: &io::Error) -> Error {
    Error::within(error).expect("an error of ours").clone()
}

/// What was released, and how it ended.
pub(crate) type Outcome = (Vec<u8>, Result<()>);

/// Reads by `read` until it ends.
fn drain(reader: &mut impl Read, size: usize) -> Outcome {
    let (mut out, mut buffer) = (Vec::new(), vec![0; size]);
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return (out, Ok(())),
            Ok(n) => out.extend_from_slice(&buffer[..n]),
            Err(error) => {
                let first = unwrapped(&error);
                // It keeps failing.
                assert_eq!(unwrapped(&reader.read(&mut buffer).unwrap_err()).kind(), first.kind());
                return (out, Err(first));
            }
        }
    }
}

/// Opens in every way that there is; all must agree about the end, and release nothing but a start of `expected`.
pub(crate) fn open_every_way(begin: impl Fn() -> Result<OpeningStream>, sealed: &[u8], expected: &[u8]) -> Result<()> {
    let chunks = sealed.get(STREAM_HEADER_LEN..).unwrap_or_default();
    let mut outcomes: Vec<(String, Outcome)> = Vec::new();
    for piece in [1000, SEALED_CHUNK_LEN, 100_000] {
        let (mut stream, mut out) = (begin()?, Vec::new());
        let updated = chunks.chunks(piece).try_for_each(|piece| stream.update(piece, &mut out));
        let ended = updated.and_then(|()| stream.finish(&mut out));
        outcomes.push((format!("pushed by {piece}"), (out, ended)));
    }
    for size in [7777, SEALED_CHUNK_LEN - 1, SEALED_CHUNK_LEN, 50_000] {
        outcomes.push((format!("read by {size}"), drain(&mut begin()?.into_reader(chunks), size)));
    }
    for (most, size) in [(1_000_000, 50_000), (3000, 7777)] {
        let reader = begin()?.into_async_reader(Slow::new(chunks, most));
        outcomes.push((format!("read in async code by {size}"), block_on(drain_async(reader, size))));
    }
    outcomes.push(("ranges".to_owned(), drain(&mut begin()?.into_ranges(Cursor::new(chunks)).unwrap(), 10_000)));
    for n in [1, 2, 5] {
        let mut out = Vec::new();
        let opened = begin()?.open_all(&mut &*chunks, &mut out, threads(n), |_| Ok(()));
        if let Ok(written) = opened {
            assert_eq!(written, out.len() as u64);
        }
        outcomes.push((format!("{n} threads"), (out, opened.map(drop))));
    }
    let ended = outcomes[0].1.1.clone();
    for (how, (released, outcome)) in outcomes {
        assert_eq!(outcome.as_ref().err().map(Error::kind), ended.as_ref().err().map(Error::kind), "{how}");
        assert!(expected.starts_with(&released), "{how} released what was not sealed there");
        if outcome.is_ok() {
            assert!(released == expected, "{how}: complete, but for {} of {}", released.len(), expected.len());
        }
    }
    ended
}

#[test]
fn every_length_is_sealed_and_opened_in_every_way() {
    let lab = Lab::new();
    let ring = lab.process_with(config(&lab));
    for len in LENGTHS {
        let plaintext = plaintext(len);
        let expected_len = sealed_stream_len(len as u64).unwrap();
        let mut all = vec![seal_bytes(&ring, &plaintext)];
        for n in [2, 5] {
            let (stream, mut out) = (begin(&ring, "image", None).unwrap(), Vec::new());
            stream.seal_all(&mut &*plaintext, &mut out, threads(n), |_| Ok(())).unwrap();
            all.push(out);
        }
        for piece in [1000, CHUNK, 100_000] {
            let mut stream = begin(&ring, "image", None).unwrap();
            let mut out = stream.header().as_bytes().to_vec();
            plaintext.chunks(piece).for_each(|piece| stream.update(piece, &mut out).unwrap());
            stream.finish(&mut out).unwrap();
            all.push(out);
            let mut writer = begin(&ring, "image", None).unwrap().into_writer(Vec::new()).unwrap();
            plaintext.chunks(piece).for_each(|piece| writer.write_all(piece).unwrap());
            all.push(finished(writer));
        }
        let mut in_place = begin(&ring, "image", None).unwrap();
        let mut out = in_place.header().as_bytes().to_vec();
        let (full, last) = plaintext.as_chunks::<CHUNK>();
        let mut buffer: Vec<u8> = full.iter().flat_map(|chunk| [&chunk[..], &[0; 16]].concat()).collect();
        in_place.seal_in_place(&mut buffer).unwrap();
        let mut last = [last, &[0; 16]].concat();
        in_place.finish_in_place(&mut last).unwrap();
        all.push([&out[..], &buffer, &last].concat());
        out.clear();
        for sealed in all {
            assert_eq!(sealed.len() as u64, expected_len);
            assert_eq!(opened_stream_len(expected_len).unwrap(), len as u64);
            open_every_way(|| begin_to_open(&ring, "image", "t1", None, &sealed), &sealed, &plaintext).unwrap();
        }
        // In place.
        let sealed = seal_bytes(&ring, &plaintext);
        let mut stream = begin_to_open(&ring, "image", "t1", None, &sealed).unwrap();
        let mut buffer = sealed[STREAM_HEADER_LEN..].to_vec();
        let whole = buffer.len() / SEALED_CHUNK_LEN * SEALED_CHUNK_LEN;
        let (full, last) = buffer.split_at_mut(whole);
        stream.open_in_place(full).unwrap();
        stream.finish_in_place(last).unwrap();
        let opened = buffer.chunks(SEALED_CHUNK_LEN).flat_map(|chunk| &chunk[..chunk.len() - 16]);
        assert!(opened.eq(&plaintext));
    }
}

/// Three full chunks and a short one of two streams of one key, and what can be made of them.
// Failures C3, C6
#[test]
fn chunks_stay_where_they_were_put() {
    let lab = Lab::new();
    let ring = lab.process_with(config(&lab));
    let plaintext = plaintext(3 * CHUNK + 100);
    let [one, other] = [0, 1].map(|_| seal_bytes(&ring, &plaintext));
    let parts = |sealed: &[u8]| -> Vec<Vec<u8>> {
        sealed[STREAM_HEADER_LEN..].chunks(SEALED_CHUNK_LEN).map(<[u8]>::to_vec).collect()
    };
    let ([a, b, c, d], theirs): ([Vec<u8>; 4], _) = (parts(&one).try_into().unwrap(), parts(&other));
    let check = |what: &str, chunks: &[&[u8]], expected: Option<ErrorKind>| {
        let sealed = [&one[..STREAM_HEADER_LEN], &chunks.concat()].concat();
        let opened = open_every_way(|| begin_to_open(&ring, "image", "t1", None, &sealed), &sealed, &plaintext);
        assert_eq!(opened.err().map(|error| error.kind()), expected, "{what}");
    };
    let (failed, cut) = (Some(ErrorKind::DecryptionFailed), Some(ErrorKind::Malformed));
    check("unchanged", &[&a, &b, &c, &d], None);
    for (n, left) in [&[][..], &[&a[..]], &[&a, &b], &[&a, &b, &c]].into_iter().enumerate() {
        check(&format!("cut behind chunk {n}"), left, cut);
    }
    for left in 0..16 {
        check("cut to less than a tag", &[&a, &b[..left]], cut);
        check("cut to less than a tag", &[&a, &b, &c, &d[..left]], cut);
    }
    for left in [16, 17, 100, SEALED_CHUNK_LEN - 1] {
        check("cut within a chunk", &[&a, &b[..left]], failed);
    }
    check("the last one cut", &[&a, &b, &c, &d[..115]], failed);
    check("exchanged", &[&b, &a, &c, &d], failed);
    check("exchanged", &[&a, &c, &b, &d], failed);
    check("repeated", &[&a, &a, &b, &c, &d], failed);
    check("repeated in the place of the next", &[&a, &b, &b, &d], failed);
    check("left out", &[&a, &c, &d], failed);
    check("the first left out", &[&b, &c, &d], failed);
    check("the last one too early", &[&a, &b, &d], failed);
    check("bytes added", &[&a, &b, &c, &d, b"x"], failed);
    check("a chunk added", &[&a, &b, &c, &d, &a], failed);
    check("the last one twice", &[&a, &b, &c, &d, &d], failed);
    for i in 0..4 {
        let ours = [&a, &b, &c, &d];
        let spliced: Vec<&[u8]> = (0..4).map(|j| if i == j { &theirs[j][..] } else { ours[j] }).collect();
        check(&format!("chunk {i} of another stream of the key"), &spliced, failed);
    }
    let rest: Vec<&[u8]> = [&a[..]].into_iter().chain(theirs[1..].iter().map(|chunk| &chunk[..])).collect();
    check("the rest of another stream", &rest, failed);
}

/// Covers F-19.4-5.
// Failures C1, C2
#[test]
fn every_bit_flip_and_every_truncation_is_refused() {
    let lab = Lab::new();
    let ring = lab.process_with(config(&lab));
    let plaintext = plaintext(40);
    let sealed = seal_bytes(&ring, &plaintext);
    let open = |sealed: &[u8]| {
        open_every_way(|| begin_to_open(&ring, "image", "t1", None, sealed), sealed, &plaintext).map_err(|e| e.kind())
    };
    assert_eq!(open(&sealed), Ok(()));
    for bit in 0..sealed.len() * 8 {
        let mut flipped = sealed.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let expected = match bit / 8 {
            0 => ErrorKind::Malformed,
            1 | 26 => ErrorKind::Unsupported,
            2..26 => ErrorKind::NoMatchingKey,
            _ => ErrorKind::DecryptionFailed,
        };
        assert_eq!(open(&flipped), Err(expected), "bit {bit}");
    }
    for len in 0..sealed.len() {
        let expected = if len < STREAM_HEADER_LEN + 16 { ErrorKind::Malformed } else { ErrorKind::DecryptionFailed };
        assert_eq!(open(&sealed[..len]), Err(expected), "{len} bytes");
    }
}

// Failure C4
#[test]
fn field_context_row_and_scope_are_bound() {
    let lab = Lab::new();
    lab.add_scope("clinic", 20);
    lab.add_scope("other-clinic", 21);
    let ring = lab.process_with(config(&lab));
    let sealed = seal_bytes(&ring, b"x");
    let kind = |field, tenant, row, sealed: &[u8]| refused(begin_to_open(&ring, field, tenant, row, sealed), field);
    assert_eq!(kind("film", "t1", None, &sealed), ErrorKind::DecryptionFailed);
    assert_eq!(kind("image", "t2", None, &sealed), ErrorKind::DecryptionFailed);
    assert_eq!(kind("image", "t1", Some("r"), &sealed), ErrorKind::InvalidInput);
    assert_eq!(kind("scan", "t1", Some("r"), &sealed), ErrorKind::DecryptionFailed);
    assert_eq!(refused(begin(&ring, "scan", None), "no row"), ErrorKind::InvalidInput);
    assert_eq!(refused(begin(&ring, "scan", Some("")), "an empty row"), ErrorKind::InvalidInput);
    assert_eq!(refused(begin(&ring, "scan", Some(&"r".repeat(4096))), "a long row"), ErrorKind::LimitExceeded);
    let mut scan = begin(&ring, "scan", Some("row-1")).unwrap().into_writer(Vec::new()).unwrap();
    scan.write_all(b"x").unwrap();
    let scan = finished(scan);
    assert_eq!(kind("scan", "t1", Some("row-2"), &scan), ErrorKind::DecryptionFailed);
    assert_eq!(kind("scan", "t1", None, &scan), ErrorKind::InvalidInput);
    let opened = || begin_to_open(&ring, "scan", "t1", Some("row-1"), &scan);
    open_every_way(opened, &scan, b"x").unwrap();
    // Another scope's key is refused before it is used, and a scope is made by sealing only.
    let field = |scope: &str| ring.field("image").unwrap().scope(scope);
    let mut stream = block_on(field("clinic").stream_sealer()).unwrap().begin(None).unwrap();
    let header = *stream.header();
    stream.update(b"x", &mut Vec::new()).unwrap();
    let opener = block_on(field("other-clinic").stream_opener()).unwrap();
    assert_eq!(refused(block_on(opener.load_key(&header)), "another scope"), ErrorKind::WrongScope);
    assert_eq!(refused(opener.begin(&header, None), "not loaded"), ErrorKind::NoMatchingKey);
    assert_eq!(refused(block_on(field("new").stream_opener()), "no such scope"), ErrorKind::NoMatchingKey);
}

#[test]
fn a_field_is_of_values_or_of_streams() {
    let lab = Lab::new();
    let ring = lab.process_with(config(&lab));
    let field = |name| ring.field(name).unwrap();
    assert_eq!(refused(encryptor(&ring, "image", None), "values"), ErrorKind::PolicyRefused);
    assert_eq!(refused(decryptor(&ring, "image", None), "values"), ErrorKind::PolicyRefused);
    assert_eq!(refused(block_on(field("plain").stream_sealer()), "a stream"), ErrorKind::PolicyRefused);
    assert_eq!(refused(block_on(field("plain").stream_opener()), "a stream"), ErrorKind::PolicyRefused);
    let sealed = seal_bytes(&ring, b"x");
    let value = decryptor(&ring, "plain", None).unwrap().decrypt(&sealed, None);
    assert_eq!(refused(value, "a stream as a value"), ErrorKind::Unsupported);
    assert_eq!(
        refused(StreamHeader::parse(&seal(&ring, None, &"x".repeat(99)).unwrap()), "a value as a stream"),
        ErrorKind::Unsupported
    );
    let mut text = Vec::new();
    assert_eq!(refused(keyfold::wire::push_text(&sealed, &mut text), "a text form"), ErrorKind::Unsupported);
    let check = |field: FieldPolicy| Policy::new().add(field).map_err(|error: Error| error.kind());
    let stream = FieldPolicy::stream("f");
    assert_eq!(check(FieldPolicy { value_type: Some(ValueType::Bytes), ..stream.clone() }), Ok(()));
    for wrong in [
        FieldPolicy { accepted_suites: vec![Suite::Stream, Suite::Field], ..stream.clone() },
        FieldPolicy { accepted_suites: vec![Suite::Stream], ..FieldPolicy::randomized("f") },
        FieldPolicy { value_type: Some(ValueType::Text), ..stream.clone() },
        FieldPolicy { columns: vec!["a".into()], ..stream.clone() },
        FieldPolicy { paths: vec!["$.a".into()], ..stream.clone() },
        FieldPolicy { unlinkable: true, ..stream.clone() },
        FieldPolicy { padding: keyfold::Padding::Padme, ..stream.clone() },
        FieldPolicy { optional: true, ..stream.clone() },
    ] {
        assert_eq!(check(wrong), Err(ErrorKind::Configuration));
    }
    let required = FieldPolicy { required_context: ["tenant".into()].into(), ..stream };
    let mut policy = Policy::new();
    policy.add(required).unwrap();
    let ring = lab.process_with(KeyringConfig { policy, ..lab.config.clone() });
    assert_eq!(refused(block_on(ring.field("f").unwrap().stream_sealer()), "no context"), ErrorKind::PolicyRefused);
}

/// Counts the bytes that are read of it.
struct Counting<'a>(Cursor<&'a [u8]>, &'a Cell<usize>);

impl Read for Counting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(buffer)?;
        self.1.set(self.1.get() + n);
        Ok(n)
    }
}

impl Seek for Counting<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

/// Covers F-19.4-8.
#[test]
fn a_range_costs_its_chunks_and_does_not_prove_the_length() {
    let lab = Lab::new();
    let ring = lab.process_with(config(&lab));
    let plaintext = plaintext(1000 * CHUNK + 7);
    let sealed = seal_bytes(&ring, &plaintext);
    let read = Cell::new(0);
    let ranges = |sealed: &'static [u8], read: &'static Cell<usize>| {
        let stream = begin_to_open(&ring, "image", "t1", None, sealed).unwrap();
        let mut input = Counting(Cursor::new(sealed), read);
        input.seek(SeekFrom::Start(STREAM_HEADER_LEN as u64)).unwrap();
        stream.into_ranges(input).unwrap()
    };
    let (sealed, read): (&'static [u8], &'static Cell<usize>) = (sealed.leak(), Box::leak(Box::new(read)));
    let byte_at = |ranges: &mut StreamRanges<_>, at: u64| {
        let mut byte = [0];
        ranges.seek(SeekFrom::Start(at)).unwrap();
        ranges.read(&mut byte).map(|n| (n, byte[0])).map_err(|error| unwrapped(&error).kind())
    };
    let mut whole = ranges(sealed, read);
    for at in [500 * CHUNK + 3, 0, plaintext.len() - 1, 999 * CHUNK + 16_383] {
        read.set(0);
        assert_eq!(byte_at(&mut whole, at as u64).unwrap(), (1, plaintext[at]));
        assert_eq!(read.get(), if at == plaintext.len() - 1 { 7 + 16 } else { SEALED_CHUNK_LEN }, "at {at}");
        read.set(0);
        assert_eq!(byte_at(&mut whole, at as u64 / 2 * 2).unwrap().0, 1);
        assert_eq!(read.get(), 0, "the chunk is there");
    }
    for end in [plaintext.len() as u64, plaintext.len() as u64 + 1, 2000 * CHUNK as u64, u64::MAX / 2, u64::MAX] {
        assert_eq!(byte_at(&mut ranges(sealed, read), end).unwrap().0, 0, "behind the end at {end}");
    }
    let mut tail = Vec::new();
    let mut from_end = ranges(sealed, read);
    assert_eq!(from_end.seek(SeekFrom::End(-20_000)).unwrap(), plaintext.len() as u64 - 20_000);
    from_end.read_to_end(&mut tail).unwrap();
    assert!(tail == plaintext[plaintext.len() - 20_000..]);
    assert_eq!(from_end.stream_position().unwrap(), plaintext.len() as u64);
    let before = from_end.seek(SeekFrom::Current(i64::MIN)).unwrap_err();
    assert_eq!(unwrapped(&before).kind(), ErrorKind::InvalidInput);
    // Cut between two chunks: what is left is readable, and nobody is told that it is all.
    let cut = &sealed[..STREAM_HEADER_LEN + 600 * SEALED_CHUNK_LEN];
    let mut short = ranges(cut, read);
    assert_eq!(byte_at(&mut short, 500 * CHUNK as u64).unwrap(), (1, plaintext[500 * CHUNK]));
    assert_eq!(byte_at(&mut short, 600 * CHUNK as u64), Err(ErrorKind::Malformed));
    assert_eq!(unwrapped(&short.verified_len().unwrap_err()).kind(), ErrorKind::Malformed);
    assert_eq!(unwrapped(&short.seek(SeekFrom::End(0)).unwrap_err()).kind(), ErrorKind::Malformed);
    // Lengths that are possible, but not true.
    for len in [17, SEALED_CHUNK_LEN - 1] {
        let cut = &sealed[..STREAM_HEADER_LEN + 600 * SEALED_CHUNK_LEN + len];
        assert_eq!(unwrapped(&ranges(cut, read).verified_len().unwrap_err()).kind(), ErrorKind::DecryptionFailed);
        let sought = ranges(cut, read).seek(SeekFrom::End(0)).unwrap_err();
        assert_eq!(
            unwrapped(&sought).kind(),
            ErrorKind::DecryptionFailed,
            "no place is told before the end was opened"
        );
    }
    // The last chunk of the whole stream at the place where this one ends.
    let moved = [cut, &sealed[STREAM_HEADER_LEN + 1000 * SEALED_CHUNK_LEN..]].concat().leak();
    assert_eq!(unwrapped(&ranges(moved, read).verified_len().unwrap_err()).kind(), ErrorKind::DecryptionFailed);
}

/// A stream of zeros of any length that is sealed where it is read.
struct Sealed {
    stream: keyfold::vectors::Stream,
    len: u64,
    position: u64,
    read: u64,
}

impl Read for Sealed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let at = self.position.checked_sub(STREAM_HEADER_LEN as u64).expect("behind the header");
        let (number, offset) = (at / SEALED_CHUNK_LEN as u64, (at % SEALED_CHUNK_LEN as u64) as usize);
        let mut chunk = vec![0; (self.len - number * CHUNK as u64).min(CHUNK as u64) as usize];
        let mut nonce = self.stream.message.base_nonce;
        nonce[4..].iter_mut().zip(number.to_be_bytes()).for_each(|(byte, other)| *byte ^= other);
        let key = &self.stream.message.key;
        let tag = keyfold::aead::hazmat::aes256gcm_seal(Backend::default(), key, nonce, &[], &mut chunk).unwrap();
        chunk.extend_from_slice(&tag);
        let n = buffer.len().min(chunk.len() - offset);
        buffer[..n].copy_from_slice(&chunk[offset..][..n]);
        (self.position, self.read) = (self.position + n as u64, self.read + n as u64);
        Ok(n)
    }
}

impl Seek for Sealed {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(by) => self.position.checked_add_signed(by).expect("within"),
            SeekFrom::End(by) => sealed_stream_len(self.len).unwrap().checked_add_signed(by).expect("within"),
        };
        Ok(self.position)
    }
}

#[test]
fn a_byte_of_a_gigabyte_costs_one_chunk() {
    let lab = Lab::new();
    let ring = lab.process_with(config(&lab));
    for len in [1 << 30, (1 << 30) + 5, 1 << 50] {
        let stream = keyfold::vectors::Stream::new(&data(DATA), &[7; 24], "image", &context("t1"), None).unwrap();
        let opening = begin_to_open(&ring, "image", "t1", None, stream.header.as_bytes()).unwrap();
        let input = Sealed { stream, len, position: STREAM_HEADER_LEN as u64, read: 0 };
        let mut ranges = opening.into_ranges(input).unwrap();
        for at in [len / 2, 3, len - CHUNK as u64 - 1] {
            let mut byte = [1];
            assert_eq!(ranges.seek(SeekFrom::Start(at)).unwrap(), at);
            assert_eq!((ranges.read(&mut byte).unwrap(), byte), (1, [0]));
        }
        assert_eq!(ranges.verified_len().unwrap(), len);
        let last = len % CHUNK as u64 + 16;
        assert_eq!(ranges.into_inner().read, 3 * SEALED_CHUNK_LEN as u64 + last, "{len}");
    }
}

/// Fails at some byte.
struct Failing<T>(T, usize);

impl<T: Read> Read for Failing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.1 == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let n = buffer.len().min(self.1);
        let n = self.0.read(&mut buffer[..n])?;
        self.1 -= n;
        Ok(n)
    }
}

impl<T: Write> Write for Failing<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.1 == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let n = self.0.write(&bytes[..bytes.len().min(self.1)])?;
        self.1 -= n;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Panics once, when it is written to or read from for the n-th time.
struct Panicking<T>(T, u32);

impl<T> Panicking<T> {
    fn inner(&mut self) -> &mut T {
        self.1 = self.1.wrapping_sub(1);
        assert!(self.1 != 0, "as planted");
        &mut self.0
    }
}

impl<W: Write> Write for Panicking<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner().flush()
    }
}

impl<R: Read> Read for Panicking<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner().read(buffer)
    }
}

/// A part of a chunk may be lost then, and what follows would not be what it seems.
#[test]
fn after_a_panic_of_input_or_output_nothing_goes_on() {
    let lab = Lab::new();
    let ring = lab.process_with(config(&lab));
    let plaintext = plaintext(2 * CHUNK + 9);
    let panics = |work: &mut dyn FnMut()| catch_unwind(AssertUnwindSafe(work)).is_err();
    // The header is written first, then two chunks; at the end the last chunk, and the flush.
    for at in 2..=5 {
        let mut out = Vec::new();
        let output = Panicking(&mut out, at);
        let mut writer = begin(&ring, "image", None).unwrap().into_writer(output).unwrap();
        assert_eq!(panics(&mut || writer.write_all(&plaintext).unwrap()), at <= 3);
        if at > 3 {
            assert!(panics(&mut || writer.finish().unwrap()));
        }
        for _ in 0..2 {
            for done in [writer.write_all(b"more"), writer.flush(), writer.finish()] {
                assert_eq!(unwrapped(&done.unwrap_err()).kind(), ErrorKind::Io, "at {at}");
            }
        }
    }
    let whole = seal_bytes(&ring, &plaintext);
    let chunks = Panicking(&whole[STREAM_HEADER_LEN..], 2);
    let mut reader = begin_to_open(&ring, "image", "t1", None, &whole).unwrap().into_reader(chunks);
    let mut released = Vec::new();
    assert!(panics(&mut || drop(reader.read_to_end(&mut released))));
    assert_eq!(unwrapped(&reader.read_to_end(&mut released).unwrap_err()).kind(), ErrorKind::Io);
}

/// Covers F-19.4-6, F-19.4-7.
#[test]
fn what_was_never_finished_is_not_complete() {
    let lab = Lab::new();
    let ring = lab.process_with(config(&lab));
    let plaintext = plaintext(2 * CHUNK);
    let open = |sealed: &[u8]| {
        open_every_way(|| begin_to_open(&ring, "image", "t1", None, sealed), sealed, &plaintext).map_err(|e| e.kind())
    };
    // A writer that is dropped, at a boundary of chunks even.
    let mut sealed = Vec::new();
    let mut writer = begin(&ring, "image", None).unwrap().into_writer(&mut sealed).unwrap();
    writer.write_all(&plaintext).unwrap();
    writer.flush().unwrap();
    drop(writer);
    assert_eq!(sealed.len(), STREAM_HEADER_LEN + 2 * SEALED_CHUNK_LEN);
    assert_eq!(open(&sealed), Err(ErrorKind::Malformed));
    // Inputs and outputs that fail, at any place: an error, and never a complete stream.
    for at in [0, 50, STREAM_HEADER_LEN, 20_000, STREAM_HEADER_LEN + SEALED_CHUNK_LEN, 32_898] {
        for n in [1, 3] {
            let (stream, mut out) = (begin(&ring, "image", None).unwrap(), Vec::new());
            let short = at.min(plaintext.len() - 1);
            let failed = stream.seal_all(&mut Failing(&plaintext[..], short), &mut out, threads(n), |_| Ok(()));
            assert_eq!(refused(failed, "input"), ErrorKind::Io);
            assert!(open(&out).is_err());
            let (stream, mut out) = (begin(&ring, "image", None).unwrap(), Vec::new());
            let failed = stream.seal_all(&mut &*plaintext, &mut Failing(&mut out, at), threads(n), |_| Ok(()));
            assert_eq!(refused(failed, "output"), ErrorKind::Io);
            assert!(open(&out).is_err());
        }
        let mut out = Vec::new();
        let written = begin(&ring, "image", None).unwrap().into_writer(Failing(&mut out, at)).and_then(|mut writer| {
            let written = writer.write_all(&plaintext);
            if written.is_err() {
                // What is written after a failure is not taken for its successor.
                assert!(writer.write_all(b"more").is_err());
            }
            writer.finish()
        });
        assert!(written.is_err());
        assert!(open(&out).is_err());
        let whole = seal_bytes(&ring, &plaintext);
        let chunks = &whole[STREAM_HEADER_LEN..];
        let stream = begin_to_open(&ring, "image", "t1", None, &whole).unwrap();
        let (released, ended) = drain(&mut stream.into_reader(Failing(chunks, at.min(chunks.len() - 1))), 100_000);
        assert!(plaintext.starts_with(&released));
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Io);
    }
    // The caller stops it.
    let stop = |_: &mut keyfold::StreamProgress<'_>| Err(Error::new(ErrorKind::Closed, "enough"));
    let (stream, mut out) = (begin(&ring, "image", None).unwrap(), Vec::new());
    assert_eq!(refused(stream.seal_all(&mut &*plaintext, &mut out, threads(2), stop), "stop"), ErrorKind::Closed);
    assert!(open(&out).is_err());
}

#[test]
fn the_ways_of_one_stream_do_not_mix() {
    let lab = Lab::new();
    let ring = lab.process_with(config(&lab));
    let mut out = Vec::new();
    let mut stream = begin(&ring, "image", None).unwrap();
    for wrong in [1, SEALED_CHUNK_LEN - 1, SEALED_CHUNK_LEN + 1] {
        assert_eq!(refused(stream.seal_in_place(&mut vec![7; wrong]), "length"), ErrorKind::InvalidInput);
    }
    stream.update(b"abc", &mut out).unwrap();
    let mut buffer = vec![7; SEALED_CHUNK_LEN];
    assert_eq!(refused(stream.seal_in_place(&mut buffer), "held back"), ErrorKind::InvalidInput);
    assert!(buffer.iter().all(|byte| *byte == 7));
    let all = stream.seal_all(&mut io::empty(), &mut io::sink(), threads(1), |_| Ok(()));
    assert_eq!(refused(all, "begun"), ErrorKind::InvalidInput);
    let mut stream = begin(&ring, "image", None).unwrap();
    stream.update(b"abc", &mut out).unwrap();
    let writer = stream.into_writer(io::sink()).map_err(|error| unwrapped(&error));
    assert_eq!(refused(writer, "begun"), ErrorKind::InvalidInput);
    for wrong in [0, 15, SEALED_CHUNK_LEN] {
        let last = begin(&ring, "image", None).unwrap().finish_in_place(&mut vec![0; wrong]);
        assert_eq!(refused(last, "the last chunk"), ErrorKind::InvalidInput, "{wrong}");
    }
    let sealed = seal_bytes(&ring, &plaintext(CHUNK + 1));
    let begin = || begin_to_open(&ring, "image", "t1", None, &sealed).unwrap();
    let mut stream = begin();
    stream.update(&sealed[STREAM_HEADER_LEN..][..5], &mut out).unwrap();
    assert_eq!(refused(stream.open_in_place(&mut buffer), "held back"), ErrorKind::InvalidInput);
    let all = stream.open_all(&mut io::empty(), &mut io::sink(), threads(1), |_| Ok(()));
    assert_eq!(refused(all, "begun"), ErrorKind::InvalidInput);
    let mut stream = begin();
    stream.update(&sealed[STREAM_HEADER_LEN..][..5], &mut out).unwrap();
    let read = drain(&mut stream.into_reader(io::empty()), 10).1;
    assert_eq!(refused(read, "begun"), ErrorKind::InvalidInput);
    assert_eq!(refused(begin().finish_in_place(&mut [0; 15]), "cut"), ErrorKind::Malformed);
    let mut stream = begin();
    assert_eq!(refused(stream.finish_in_place(&mut buffer), "full"), ErrorKind::InvalidInput);
    for (number, len, expected) in [(1, 17, 1), (0, SEALED_CHUNK_LEN, CHUNK)] {
        let mut chunk = sealed[STREAM_HEADER_LEN + number * SEALED_CHUNK_LEN..][..len].to_vec();
        assert_eq!(stream.open_chunk(number as u64, &mut chunk).unwrap(), expected);
        assert_eq!(chunk[0], plaintext(CHUNK + 1)[number * CHUNK]);
    }
    assert_eq!(refused(stream.open_chunk(0, &mut [0; 15]), "cut"), ErrorKind::Malformed);
    for number in [MAX_CHUNKS, u64::MAX] {
        assert_eq!(refused(stream.open_chunk(number, &mut [0; 17]), "no such chunk"), ErrorKind::LimitExceeded);
    }
    assert_eq!(refused(stream.open_chunk(0, &mut vec![0; SEALED_CHUNK_LEN + 1]), "long"), ErrorKind::InvalidInput);
    let mut moved = sealed[STREAM_HEADER_LEN..][..SEALED_CHUNK_LEN].to_vec();
    assert_eq!(refused(stream.open_chunk(1, &mut moved), "moved"), ErrorKind::DecryptionFailed);
    // A buffer that fails is left without anything of the plaintext, and the stream fails from then on.
    let mut stream = begin();
    let mut chunks = [&sealed[STREAM_HEADER_LEN..][..SEALED_CHUNK_LEN]; 2].concat();
    assert_eq!(refused(stream.open_in_place(&mut chunks), "twice"), ErrorKind::DecryptionFailed);
    assert!(chunks.iter().all(|byte| *byte == 0));
    let mut good = sealed[STREAM_HEADER_LEN..][..SEALED_CHUNK_LEN].to_vec();
    assert_eq!(refused(stream.open_in_place(&mut good), "afterwards"), ErrorKind::DecryptionFailed);
    // Lines.
    let text = seal_bytes(&ring, b"one\ntwo\n");
    let stream = begin_to_open(&ring, "image", "t1", None, &text).unwrap();
    let lines: Vec<String> = stream.into_reader(&text[STREAM_HEADER_LEN..]).lines().map(Result::unwrap).collect();
    assert_eq!(lines, ["one", "two"]);
}

#[test]
fn keys_rotate_and_end_while_streams_are_under_way() {
    let lab = Lab::new();
    let process = Process::quick(&lab, config(&lab));
    let ring = &process.ring;
    let sealer = block_on(ring.field("image").unwrap().context(context("t1")).stream_sealer()).unwrap();
    let mut stream = sealer.begin(None).unwrap();
    let mut sealed = stream.header().as_bytes().to_vec();
    stream.update(&plaintext(CHUNK), &mut sealed).unwrap();
    let Rotated { new, .. } = block_on(ring.rotate_data_key(None)).unwrap();
    process.clock.advance(Duration::from_secs(120));
    // The stream goes on under its own key; the next one begins under the new one.
    stream.update(b"more", &mut sealed).unwrap();
    assert_eq!(block_on(sealer.ready()).unwrap().begin(None).unwrap().header().key_id(), new.key_id());
    // A day later its key must be confirmed first, and nothing was lost.
    process.clock.advance(Duration::from_secs(86_400));
    assert!(stream.needs_renewal());
    assert_eq!(refused(stream.update(b" of it", &mut sealed), "too old"), ErrorKind::DeadlineExceeded);
    block_on(stream.renew()).unwrap();
    stream.update(b" of it", &mut sealed).unwrap();
    stream.finish(&mut sealed).unwrap();
    let expected = [&plaintext(CHUNK)[..], b"more of it"].concat();
    let begin = || begin_to_open(ring, "image", "t1", None, &sealed);
    open_every_way(begin, &sealed, &expected).unwrap();
    let opener = block_on(ring.field("image").unwrap().context(context("t1")).stream_opener()).unwrap();
    assert!(!opener.is_current(&StreamHeader::parse(&sealed).unwrap()));
    // The same for a reader, a writer, and whole streams, which renew as they go.
    let mut reader = begin().unwrap().into_reader(&sealed[STREAM_HEADER_LEN..]);
    let mut start = [0; 10];
    reader.read_exact(&mut start).unwrap();
    process.clock.advance(Duration::from_secs(86_400));
    let late = reader.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(unwrapped(&late).kind(), ErrorKind::DeadlineExceeded);
    block_on(reader.renew()).unwrap();
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert!(rest == expected[10..], "nothing of the chunk in memory was given out, or lost");
    block_on(sealer.ready()).unwrap();
    let mut writer = sealer.begin(None).unwrap().into_writer(Vec::new()).unwrap();
    process.clock.advance(Duration::from_secs(86_400));
    assert!(writer.write_all(&plaintext(CHUNK)).is_err());
    block_on(writer.renew()).unwrap();
    writer.write_all(&plaintext(CHUNK)).unwrap();
    finished(writer);
    block_on(sealer.ready()).unwrap();
    let long = plaintext(100 * CHUNK);
    let sealed_all = |renew: bool| {
        block_on(sealer.ready()).unwrap();
        sealer.begin(None).unwrap().seal_all(&mut &*long, &mut io::sink(), threads(2), |progress| {
            process.clock.advance(Duration::from_secs(3_000));
            if renew && progress.needs_renewal() { block_on(progress.renew()) } else { Ok(()) }
        })
    };
    assert_eq!(sealed_all(true).unwrap(), long.len() as u64);
    assert_eq!(refused(sealed_all(false), "too old"), ErrorKind::DeadlineExceeded);
    // A key that is found to be compromised ends what is under way when it is confirmed.
    block_on(sealer.ready()).unwrap();
    let mut stream = sealer.begin(None).unwrap();
    block_on(lab.process().change_state(new.key_id(), KeyState::Compromised)).unwrap();
    process.clock.advance(Duration::from_secs(700));
    assert!(block_on(stream.renew()).is_err());
    assert!(stream.update(&long, &mut sealed).is_err());
    ring.close();
    assert_eq!(refused(sealer.begin(None), "closed"), ErrorKind::Closed);
}

/// A key that runs out at the end loses no stream, and what is complete is complete once.
#[test]
fn the_end_may_be_repeated_until_it_is_there() {
    use tokio::io::AsyncWriteExt;
    let lab = Lab::new();
    let process = Process::quick(&lab, config(&lab));
    let plaintext = plaintext(CHUNK + 100);
    // What fails until the key was renewed, what succeeds then, and what is refused from then on.
    macro_rules! ends {
        ($stream:ident, $finish:expr, $then:expr) => {
            process.clock.advance(Duration::from_secs(86_400));
            for _ in 0..2 {
                assert_eq!(refused($finish, "too old"), ErrorKind::DeadlineExceeded);
            }
            block_on($stream.renew()).unwrap();
            $finish.unwrap();
            assert_eq!(refused($then, "more"), ErrorKind::Closed);
        };
    }
    let io = |done: io::Result<()>| done.map_err(|error| unwrapped(&error));
    let mut all = Vec::new();

    let mut stream = begin(&process.ring, "image", None).unwrap();
    let mut out = stream.header().as_bytes().to_vec();
    stream.update(&plaintext, &mut out).unwrap();
    ends!(stream, stream.finish(&mut out), stream.update(b"more", &mut out));
    assert_eq!(refused(stream.finish(&mut out), "again"), ErrorKind::Closed);
    all.push(out);

    let mut stream = begin(&process.ring, "image", None).unwrap();
    let mut first = [&plaintext[..CHUNK], &[0; 16]].concat();
    let mut last = [&plaintext[CHUNK..], &[0; 16]].concat();
    stream.seal_in_place(&mut first).unwrap();
    ends!(stream, stream.finish_in_place(&mut last), stream.seal_in_place(&mut vec![0; SEALED_CHUNK_LEN]));
    all.push([stream.header().as_bytes(), &first[..], &last].concat());

    let mut writer = begin(&process.ring, "image", None).unwrap().into_writer(Vec::new()).unwrap();
    writer.write_all(&plaintext).unwrap();
    ends!(writer, io(writer.finish()), io(writer.write_all(b"more")));
    writer.finish().expect("it is complete");
    all.push(writer.into_inner());

    let mut writer = begin(&process.ring, "image", None).unwrap().into_async_writer(Vec::new()).unwrap();
    block_on(writer.write_all(&plaintext)).unwrap();
    ends!(writer, io(block_on(writer.finish())), io(block_on(writer.write_all(b"more"))));
    block_on(writer.finish()).expect("it is complete");
    all.push(writer.into_inner());

    for sealed in all {
        let begin = || begin_to_open(&process.ring, "image", "t1", None, &sealed);
        open_every_way(begin, &sealed, &plaintext).unwrap();
        let (first, last) = sealed[STREAM_HEADER_LEN..].split_at(SEALED_CHUNK_LEN);
        let (mut stream, mut out) = (begin().unwrap(), Vec::new());
        stream.update(&sealed[STREAM_HEADER_LEN..], &mut out).unwrap();
        ends!(stream, stream.finish(&mut out), stream.update(last, &mut out));
        assert_eq!(refused(stream.finish(&mut out), "again"), ErrorKind::Closed);
        assert!(out == plaintext);
        let mut stream = begin().unwrap();
        let (mut first, mut last) = (first.to_vec(), last.to_vec());
        stream.open_in_place(&mut first).unwrap();
        ends!(stream, stream.finish_in_place(&mut last), stream.open_in_place(&mut first.clone()));
        assert!([&first[..CHUNK], &last[..100]].concat() == plaintext);
    }
}

/// What was opened and not given out is not given out once the keyring is closed or the key may not be used: by no reader.
#[test]
fn a_chunk_in_memory_is_not_given_out_under_a_key_that_has_ended() {
    /// Reads up to 10 bytes, or renews the key.
    type Reading = Box<dyn FnMut(bool) -> Result<Vec<u8>>>;
    let lab = Lab::new();
    let plaintext = plaintext(CHUNK + 100);
    let sealed = seal_bytes(&lab.process_with(config(&lab)), &plaintext);
    let chunks = &sealed[STREAM_HEADER_LEN..];
    let readers = |ring: &Keyring| -> Vec<(&str, Reading)> {
        let begin = || begin_to_open(ring, "image", "t1", None, &sealed).unwrap();
        macro_rules! reader {
            ($reader:expr, $read:expr) => {{
                let mut reader = $reader;
                Box::new(move |renew: bool| {
                    let mut buffer = [0; 10];
                    if renew {
                        return block_on(reader.renew()).map(|()| Vec::new());
                    }
                    let n: io::Result<usize> = $read(&mut reader, &mut buffer);
                    n.map(|n| buffer[..n].to_vec()).map_err(|error| unwrapped(&error))
                })
            }};
        }
        let chunks = Cursor::new(chunks.to_vec());
        vec![
            ("read", reader!(begin().into_reader(chunks.clone()), Read::read)),
            (
                "fill_buf",
                reader!(
                    begin().into_reader(chunks.clone()),
                    |reader: &mut keyfold::StreamReader<_>, buffer: &mut [u8; 10]| {
                        buffer.copy_from_slice(&reader.fill_buf()?[..10]);
                        reader.consume(10);
                        Ok(10)
                    }
                ),
            ),
            (
                "async",
                reader!(
                    begin().into_async_reader(chunks.clone()),
                    |reader: &mut keyfold::AsyncStreamReader<_>, buffer: &mut [u8; 10]| {
                        block_on(tokio::io::AsyncReadExt::read(reader, buffer))
                    }
                ),
            ),
            ("ranges", reader!(begin().into_ranges(chunks).unwrap(), Read::read)),
        ]
    };
    let process = Process::quick(&lab, config(&lab));
    for (how, mut read) in readers(&process.ring) {
        assert_eq!(read(false).unwrap(), &plaintext[..10], "{how}");
        process.clock.advance(Duration::from_secs(86_400));
        assert_eq!(refused(read(false), how), ErrorKind::DeadlineExceeded);
        read(true).unwrap();
        assert_eq!(read(false).unwrap(), &plaintext[10..20], "{how}");
    }
    let mut open = readers(&process.ring);
    for (how, read) in &mut open {
        assert_eq!(read(false).unwrap(), &plaintext[..10], "{how}");
    }
    process.ring.close();
    for (how, mut read) in open {
        assert_eq!(refused(read(false), how), ErrorKind::Closed);
    }
    // A key that was revoked.
    let process = Process::quick(&lab, config(&lab));
    let mut open = readers(&process.ring);
    for (how, read) in &mut open {
        assert_eq!(read(false).unwrap(), &plaintext[..10], "{how}");
    }
    let header = StreamHeader::parse(&sealed).unwrap();
    block_on(lab.process().change_state(header.key_id(), KeyState::Compromised)).unwrap();
    process.clock.advance(Duration::from_secs(700));
    for (how, mut read) in open {
        assert_eq!(refused(read(true), how), ErrorKind::KeyState);
        assert_eq!(refused(read(false), how), ErrorKind::KeyState);
    }
}

/// A stream that goes through another one whose key has run out: an error of the output is not our own, which `renew` would end.
#[test]
fn only_its_own_key_is_renewed() {
    let lab = Lab::new();
    let ring = lab.process_with(config(&lab));
    let plaintext = plaintext(2 * CHUNK);
    let late = || io::Error::from(Error::from(ErrorKind::DeadlineExceeded));
    /// Fails once at some byte.
    struct Late<T, F>(T, usize, F);
    impl<T: Write, F: Fn() -> io::Error> Write for Late<T, F> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.1 == 0 {
                self.1 = usize::MAX;
                return Err(self.2());
            }
            let n = self.0.write(&bytes[..bytes.len().min(self.1)])?;
            self.1 -= n;
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.write(b"").map(drop)
        }
    }
    impl<T: Read, F: Fn() -> io::Error> Read for Late<T, F> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.1 == 0 {
                self.1 = usize::MAX;
                return Err(self.2());
            }
            let most = buffer.len().min(self.1);
            let n = self.0.read(&mut buffer[..most])?;
            self.1 -= n;
            Ok(n)
        }
    }
    let check = |error: &io::Error, what: &str| {
        let error = unwrapped(error);
        assert_eq!(error.kind(), ErrorKind::Io, "{what}");
        let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<io::Error>()).unwrap();
        assert_eq!(unwrapped(cause).kind(), ErrorKind::DeadlineExceeded, "{what}");
    };
    let whole = seal_bytes(&ring, &plaintext);
    for at in [0, STREAM_HEADER_LEN, 20_000, STREAM_HEADER_LEN + 2 * SEALED_CHUNK_LEN, whole.len()] {
        let mut out = Vec::new();
        match begin(&ring, "image", None).unwrap().into_writer(Late(&mut out, at, late)) {
            Err(error) => check(&error, "the header"),
            Ok(mut writer) => {
                let written = writer.write_all(&plaintext).and_then(|()| writer.finish());
                check(&written.unwrap_err(), "a chunk");
                block_on(writer.renew()).unwrap();
                check(&writer.write_all(b"more").err().or_else(|| writer.flush().err()).unwrap(), "later");
                check(&writer.finish().unwrap_err(), "later");
            }
        }
        assert_eq!(out.len(), at, "nothing followed");
        let mut out = Vec::new();
        let stream = begin(&ring, "image", None).unwrap();
        let sealed = stream.seal_all(&mut &*plaintext, &mut Late(&mut out, at, late), threads(1), |_| Ok(()));
        if at < whole.len() {
            assert_eq!(refused(sealed, "seal_all"), ErrorKind::Io);
        }
    }
    for at in [0, 5, SEALED_CHUNK_LEN, SEALED_CHUNK_LEN + 5] {
        let stream = begin_to_open(&ring, "image", "t1", None, &whole).unwrap();
        let mut reader = stream.into_reader(Late(&whole[STREAM_HEADER_LEN..], at, late));
        let mut out = Vec::new();
        check(&reader.read_to_end(&mut out).unwrap_err(), "input");
        block_on(reader.renew()).unwrap();
        check(&reader.read_to_end(&mut out).unwrap_err(), "input, later");
        assert!(plaintext.starts_with(&out));
    }
}

/// How much of a stream that was cut is given out depends on the reader: docs/STREAMS.md says how.
#[test]
fn what_is_given_out_before_a_cut() {
    let lab = Lab::new();
    let ring = lab.process_with(config(&lab));
    let plaintext = plaintext(40 * CHUNK);
    let sealed = seal_bytes(&ring, &plaintext);
    let chunks = &sealed[STREAM_HEADER_LEN..STREAM_HEADER_LEN + 37 * SEALED_CHUNK_LEN];
    let begin = || begin_to_open(&ring, "image", "t1", None, &sealed).unwrap();
    // Each chunk: readers, and those who push pieces.
    assert_eq!(drain(&mut begin().into_reader(chunks), 1000).0.len(), 37 * CHUNK);
    assert_eq!(block_on(drain_async(begin().into_async_reader(chunks), 1000)).0.len(), 37 * CHUNK);
    assert_eq!(drain(&mut begin().into_ranges(Cursor::new(chunks)).unwrap(), 1000).0.len(), 37 * CHUNK);
    // Whole steps of 16.
    for n in [1, 2, 5] {
        let mut out = Vec::new();
        let opened = begin().open_all(&mut &*chunks, &mut out, threads(n), |_| Ok(()));
        assert_eq!(refused(opened, "cut"), ErrorKind::Malformed);
        assert!(out.len().is_multiple_of(16 * CHUNK) && out.len() <= 32 * CHUNK, "{}", out.len());
        assert!(n > 1 || out.len() == 32 * CHUNK);
    }
    // Whole calls.
    let (mut stream, mut out) = (begin(), Vec::new());
    let mut changed = chunks.to_vec();
    changed[30 * SEALED_CHUNK_LEN] ^= 1;
    let pushed = changed.chunks(10 * SEALED_CHUNK_LEN).try_for_each(|piece| stream.update(piece, &mut out));
    assert_eq!((refused(pushed, "changed"), out.len()), (ErrorKind::DecryptionFailed, 30 * CHUNK));
}

#[test]
fn a_stream_counts_as_one_value() {
    let lab = Lab::new();
    let rotation = RotationPolicy { data_messages: Some(3), ..RotationPolicy::default() };
    let ring = lab.process_with(KeyringConfig { rotation, ..config(&lab) });
    let sealer = block_on(ring.field("image").unwrap().stream_sealer()).unwrap();
    for _ in 0..3 {
        sealer.begin(None).unwrap().update(&plaintext(5 * CHUNK), &mut Vec::new()).unwrap();
    }
    assert_eq!(refused(sealer.begin(None), "one too many"), ErrorKind::LimitExceeded);
    let before = sealer.key_id();
    block_on(sealer.ready()).unwrap();
    assert_ne!(sealer.begin(None).unwrap().header().key_id(), before);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// However plaintext is cut into pieces, and whichever pieces are then read, the bytes are the same.
    #[test]
    fn pieces_of_any_size(
        len in 0_usize..5 * CHUNK,
        pieces in prop::collection::vec(1_usize..40_000, 1..12),
        ranges in prop::collection::vec((0_u64..6 * CHUNK as u64, 1_usize..40_000), 1..12),
    ) {
        let lab = Lab::new();
        let ring = lab.process_with(config(&lab));
        let plaintext = plaintext(len);
        let mut writer = begin(&ring, "image", None).unwrap().into_writer(Vec::new()).unwrap();
        let mut rest = &plaintext[..];
        for piece in pieces.iter().cycle() {
            let (now, later) = rest.split_at(rest.len().min(*piece));
            writer.write_all(now).unwrap();
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        let sealed = finished(writer);
        let stream = || begin_to_open(&ring, "image", "t1", None, &sealed).unwrap();
        let (mut pushed, mut opened, mut rest) = (stream(), Vec::new(), &sealed[STREAM_HEADER_LEN..]);
        for piece in pieces.iter().rev().cycle() {
            let (now, later) = rest.split_at(rest.len().min(*piece));
            pushed.update(now, &mut opened).unwrap();
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        pushed.finish(&mut opened).unwrap();
        prop_assert!(opened == plaintext);
        let mut reader = stream().into_ranges(Cursor::new(&sealed[STREAM_HEADER_LEN..])).unwrap();
        for (at, len) in ranges {
            let mut found = Vec::new();
            reader.seek(SeekFrom::Start(at)).unwrap();
            Read::by_ref(&mut reader).take(len as u64).read_to_end(&mut found).unwrap();
            let start = plaintext.len().min(at as usize);
            prop_assert!(found == plaintext[start..plaintext.len().min(start + len)]);
        }
        prop_assert_eq!(reader.verified_len().unwrap(), plaintext.len() as u64);
    }
}
