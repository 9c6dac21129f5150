//! The vectors of streams (FORMAT.md §19). A stream is long, so a case that is made of another one names its parts.

use super::{Cases, File, Maker, field, flipped, head, hex, opening_json, stream_edges};
use crate::world::{Opening, World, bytes};
use keyfold::testing::block_on;
use keyfold::vectors::Stream;
use keyfold::wire::{CHUNK_LEN, SEALED_CHUNK_LEN, STREAM_HEADER_LEN, StreamHeader};
use keyfold::{Context, Error, FieldPolicy, Policy, Result, StreamRanges};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use sha3::Shake128;
use sha3::digest::{ExtendableOutput, Update, XofReader};
use std::io::{Cursor, Read, Seek, SeekFrom};

fn plaintext(label: &str, len: usize) -> Vec<u8> {
    let mut shake = Shake128::default();
    shake.update(b"keyfold stream plaintext ");
    shake.update(label.as_bytes());
    let mut out = vec![0; len];
    shake.finalize_xof().read(&mut out);
    out
}

/// A stream of the file, by the ID of its case.
pub(super) struct Made {
    id: String,
    pub(super) opening: Opening,
    pub(super) sealed: Vec<u8>,
    pub(super) plaintext: Vec<u8>,
}

impl Made {
    /// The bytes from `from` to `to`, by name.
    pub(super) fn part(&self, from: usize, to: usize) -> Json {
        json!([self.id, from, to])
    }

    /// Chunk `i`, by name.
    pub(super) fn chunk(&self, i: usize) -> Json {
        let start = STREAM_HEADER_LEN + i * SEALED_CHUNK_LEN;
        self.part(start, self.sealed.len().min(start + SEALED_CHUNK_LEN))
    }

    pub(super) fn header(&self) -> Json {
        self.part(0, STREAM_HEADER_LEN)
    }
}

pub(super) struct Streams<'a> {
    pub(super) make: &'a Maker,
    pub(super) cases: Cases,
}

impl Streams<'_> {
    /// A stream with every intermediate value.
    pub(super) fn good(&mut self, note: &str, key: &str, opening: &Opening, len: usize) -> Made {
        let salt = bytes(&format!("salt {note}"));
        let key = self.make.key(key);
        let stream = Stream::new(&key, &salt, &opening.field, &opening.context(), opening.row.as_deref());
        let stream = stream.expect("a good context");
        let plaintext = plaintext(note, len);
        let chunks = stream.message.seal(&plaintext).expect("short");
        let sealed = [&stream.header.as_bytes()[..], &chunks].concat();
        self.cases.push(
            note,
            json!({
                "open": opening_json(opening), "sealed": [hex(&sealed)], "expect": "ok", "length": len,
                "sha256": hex(Sha256::digest(&plaintext)), "key_id": key.key_id().to_string(), "salt": hex(salt),
                "binding": hex(&stream.binding), "aes_key": hex(stream.message.key),
                "base_nonce": hex(stream.message.base_nonce), "commitment": hex(stream.message.commitment),
            }),
        );
        let id = self.cases.1.last().expect("just pushed")["id"].as_str().expect("a text").to_owned();
        Made { id, opening: opening.clone(), sealed, plaintext }
    }

    pub(super) fn bad(&mut self, note: &str, expect: &str, opening: &Opening, parts: &[Json]) {
        self.cases.push(note, json!({ "open": opening_json(opening), "sealed": parts, "expect": expect }));
    }

    fn chunks(&mut self, one: &Made, other: &Made) {
        let (failed, cut) = ("DecryptionFailed", "Malformed");
        let (h, c) = (one.header(), [0, 1, 2].map(|i| one.chunk(i)));
        let theirs = [0, 1, 2].map(|i| other.chunk(i));
        let of = |parts: &[&Json]| -> Vec<Json> { parts.iter().map(|part| (*part).clone()).collect() };
        let mut put = |note: &str, expect: &str, parts: &[&Json]| self.bad(note, expect, &one.opening, &of(parts));
        put("cut behind the header", cut, &[&h]);
        put("cut behind chunk 0", cut, &[&h, &c[0]]);
        put("cut behind chunk 1", cut, &[&h, &c[0], &c[1]]);
        put("the chunks exchanged", failed, &[&h, &c[1], &c[0], &c[2]]);
        put("chunk 0 twice", failed, &[&h, &c[0], &c[0], &c[1], &c[2]]);
        put("chunk 0 in the place of chunk 1", failed, &[&h, &c[0], &c[0], &c[2]]);
        put("without chunk 0", failed, &[&h, &c[1], &c[2]]);
        put("without chunk 1", failed, &[&h, &c[0], &c[2]]);
        put("the last chunk twice", failed, &[&h, &c[0], &c[1], &c[2], &c[2]]);
        put("chunk 0 behind the last one", failed, &[&h, &c[0], &c[1], &c[2], &c[0]]);
        put("a byte behind the last chunk", failed, &[&h, &c[0], &c[1], &c[2], &json!("00")]);
        for (i, theirs) in theirs.iter().enumerate() {
            let mut parts = vec![&h, &c[0], &c[1], &c[2]];
            parts[i + 1] = theirs;
            put(&format!("chunk {i} of another stream of the key"), failed, &parts);
        }
        put("the header of another stream of the key", failed, &[&other.header(), &c[0], &c[1], &c[2]]);
        put("from chunk 1 on another stream of the key", failed, &[&h, &c[0], &theirs[1], &theirs[2]]);
        let end = one.sealed.len();
        for (bytes, expect) in [(1, failed), (100, failed), (101, cut), (115, cut)] {
            put(&format!("the last {bytes} bytes cut off"), expect, &[&one.part(0, end - bytes)]);
        }
        for within in [16, SEALED_CHUNK_LEN - 1] {
            let to = STREAM_HEADER_LEN + SEALED_CHUNK_LEN + within;
            put(&format!("cut to {within} bytes of chunk 1"), failed, &[&one.part(0, to)]);
        }
        for at in [STREAM_HEADER_LEN, STREAM_HEADER_LEN + CHUNK_LEN, end - 117, end - 116, end - 1] {
            let bit = json!(hex(&flipped(&one.sealed, at, 2)[at..=at]));
            put(&format!("byte {at}: one bit flipped"), failed, &[&one.part(0, at), &bit, &one.part(at + 1, end)]);
        }
    }

    fn headers(&mut self, one: &Made) {
        let failed = "DecryptionFailed";
        let mut put = |note: &str, expect: &str, opening: &Opening, sealed: &[u8]| {
            self.bad(note, expect, opening, &[json!(hex(sealed))]);
        };
        let sealed = &one.sealed;
        for len in [0, 1, 2, 25, 26, 27, 50, 51, 82, 83, 98] {
            put(&format!("the first {len} bytes"), "Malformed", &one.opening, &sealed[..len]);
        }
        put("the first 99 bytes", failed, &one.opening, &sealed[..99]);
        put("a byte in front", "Malformed", &one.opening, &[&[0], &sealed[..]].concat());
        put("magic, bit 0 flipped", "Malformed", &one.opening, &flipped(sealed, 0, 0));
        for suite in [0x00, 0x01, 0x02, 0x03, 0x05, 0x06, 0x7F, 0x80, 0xFF] {
            let other = super::damaged_at(sealed, 1, suite);
            put(&format!("suite {suite:02x}"), "Unsupported", &one.opening, &other);
        }
        for format in [0x00, 0x02, 0x81, 0xFF] {
            let other = super::damaged_at(sealed, 26, format);
            put(&format!("format byte {format:02x}"), "Unsupported", &one.opening, &other);
        }
        for (at, expect) in [(2, "NoMatchingKey"), (25, "NoMatchingKey")] {
            put(&format!("byte {at}: one bit flipped"), expect, &one.opening, &flipped(sealed, at, 3));
        }
        for at in [27, 50, 51, 82, 83, sealed.len() - 1] {
            put(&format!("byte {at}: one bit flipped"), failed, &one.opening, &flipped(sealed, at, 6));
        }
        let with = |change: &dyn Fn(&mut Opening)| {
            let mut opening = one.opening.clone();
            change(&mut opening);
            opening
        };
        type Change = fn(&mut Opening);
        let changes: [(&str, &str, Change); 10] = [
            ("another field", failed, |o| o.field = "device.scan".into()),
            ("another context", failed, |o| o.context[0].1 = b"t2".to_vec()),
            ("no context", failed, |o| o.context.clear()),
            ("another row", failed, |o| o.row = Some(b"image-2".to_vec())),
            ("no row where one is bound", "InvalidInput", |o| o.row = None),
            ("an empty row", "InvalidInput", |o| o.row = Some(Vec::new())),
            ("a row where none is bound", "InvalidInput", |o| o.row_bound = false),
            ("bound to no row", failed, |o| (o.row, o.row_bound) = (None, false)),
            ("another scope", "WrongScope", |o| o.scope = Some("clinic-17".into())),
            ("a required key of the context is missing", "PolicyRefused", |o| o.required_context = vec!["site".into()]),
        ];
        for (note, expect, change) in changes {
            put(note, expect, &with(&change), sealed);
        }
        let retired = [("data-destroyed", "KeyState"), ("data-compromised", "KeyState"), ("clinic-17", "WrongScope")];
        for (key, expect) in retired {
            let mut other = sealed.clone();
            other[2..26].copy_from_slice(self.make.key(key).key_id().as_bytes());
            self.bad(&format!("the key ID of {key}"), expect, &one.opening, &[json!(hex(other))]);
        }
        let mut other = sealed.clone();
        other[2..26].copy_from_slice(self.make.key("data-old").key_id().as_bytes());
        self.bad("the key ID of another key of the slot", failed, &one.opening, &[json!(hex(other))]);
    }
}

pub(super) fn file(make: &Maker) -> File {
    let mut streams = Streams { make, cases: Cases("stream", Vec::new()) };
    let image = field("patient.image", &[("tenant", "t1")], Some("image-1"));
    let free = field("patient.image", &[], None);
    let short = streams.good("a few bytes, bound to a row and a context", "data", &image, 21);
    streams.good("empty", "data", &free, 0);
    let clinic = Opening { scope: Some("clinic-17".into()), ..free.clone() };
    streams.good("of a scope", "clinic-17", &clinic, 1);
    streams.good("under an old key, a byte less than a chunk", "data-old", &free, CHUNK_LEN - 1);
    streams.good("exactly one chunk, so that an empty one follows", "data", &free, CHUNK_LEN);
    let one = streams.good("three chunks", "data", &free, 2 * CHUNK_LEN + 100);
    let other = streams.good("three chunks of another stream", "data", &free, 2 * CHUNK_LEN + 100);
    streams.chunks(&one, &other);
    streams.headers(&short);
    stream_edges::add(&mut streams, &short, &one, &other);
    ("stream.json", head("streams: what opens, and what must not"), streams.cases.1)
}

/// The bytes of a case, whose parts are hexadecimal, or from where to where of which case.
fn assemble(cases: &[Json], parts: &Json) -> Vec<u8> {
    let part = |part: &Json| match part {
        Json::String(hex) => data_encoding::HEXLOWER.decode(hex.as_bytes()).expect("hexadecimal"),
        part => {
            let of = cases.iter().find(|case| case["id"] == part[0]).expect("a case");
            let at = |i: usize| part[i].as_u64().expect("an offset") as usize;
            assemble(cases, &of["sealed"])[at(1)..at(2)].to_vec()
        }
    };
    parts.as_array().expect("a list").iter().flat_map(part).collect()
}

/// What of the plaintext of a case is released, and whether that is all that was asked for.
pub(crate) fn open(world: &World, cases: &[Json], opening: &Opening, case: &Json) -> (Vec<u8>, Result<()>) {
    let mut released = Vec::new();
    let result = open_into(world, &assemble(cases, &case["sealed"]), opening, case, &mut released);
    (released, result)
}

fn open_into(world: &World, sealed: &[u8], opening: &Opening, case: &Json, out: &mut Vec<u8>) -> Result<()> {
    let row_binding = opening.policy().row_binding;
    let base = match case["mode"].as_str() {
        Some("randomized") => FieldPolicy::randomized(&opening.field),
        _ => FieldPolicy::stream(&opening.field),
    };
    let required_context = opening.required_context.iter().cloned().collect();
    let mut policy = Policy::new();
    policy.add(FieldPolicy { row_binding, required_context, ..base })?;
    let context = opening.context.iter().try_fold(Context::new(), |context, (key, value)| context.with(key, value))?;
    let mut field = world.keyring(policy)?.field(&opening.field)?.context(context);
    if let Some(scope) = &opening.scope {
        field = field.scope(scope);
    }
    let opener = block_on(field.stream_opener())?;
    let header = StreamHeader::parse(sealed)?;
    block_on(opener.load_key(&header))?;
    let mut stream = opener.begin(&header, opening.row.as_deref())?;
    let chunks = &sealed[STREAM_HEADER_LEN..];
    if let Some(number) = case["chunk"].as_u64() {
        let ranges = stream.into_ranges(Sparse { chunk: chunks, start: number * SEALED_CHUNK_LEN as u64, at: 0 });
        return read(ranges, SeekFrom::Start(number * CHUNK_LEN as u64), CHUNK_LEN as u64, out).map_err(inner);
    }
    if let Some(range) = case["range"].as_array() {
        let (from, length) = (range[0].as_i64().expect("a number"), range[1].as_u64().expect("a number"));
        let from = u64::try_from(from).map_or(SeekFrom::End(from), SeekFrom::Start);
        return read(stream.into_ranges(Cursor::new(chunks)), from, length, out).map_err(inner);
    }
    chunks.chunks(SEALED_CHUNK_LEN).try_for_each(|chunk| stream.update(chunk, out))?;
    stream.finish(out)
}

/// An input that has one chunk, in its place, and whose other bytes nobody may read.
struct Sparse<'a> {
    chunk: &'a [u8],
    start: u64,
    at: u64,
}

impl Read for Sparse<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let at = self.at.checked_sub(self.start).expect("nothing in front is read");
        let rest = self.chunk.get(at as usize..).unwrap_or_default();
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for Sparse<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(0) => self.at,
            _ => panic!("the end was not asked for"),
        };
        Ok(self.at)
    }
}

/// Appends `length` bytes from `from`, or as many as there are.
fn read<R: Read + Seek>(
    ranges: std::io::Result<StreamRanges<R>>,
    from: SeekFrom,
    length: u64,
    out: &mut Vec<u8>,
) -> std::io::Result<()> {
    let mut ranges = ranges?;
    ranges.seek(from)?;
    ranges.take(length).read_to_end(out).map(drop)
}

fn inner(error: std::io::Error) -> Error {
    Error::within(&error).expect("an error of the stream").clone()
}
