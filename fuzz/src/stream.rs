//! Streams that were changed, and bytes that are none: what is given out was verified, and stands where it was put.

use arbitrary::{Arbitrary, Unstructured};
use keyfold::testing::block_on;
use keyfold::wire::{CHUNK_LEN, SEALED_CHUNK_LEN, STREAM_HEADER_LEN, StreamHeader, opened_stream_len};
use keyfold::{Error, FieldPolicy, OpeningStream, Policy, StreamOpener};
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::num::NonZeroUsize;
use std::sync::OnceLock;

use crate::lab::SCOPE;
use crate::world::World;

const LENGTHS: [usize; 4] = [3 * CHUNK_LEN + 100, 2 * CHUNK_LEN, 40, 0];

struct Lab {
    opener: StreamOpener,
    /// Plaintexts and their streams; then another stream of the first plaintext.
    streams: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Arbitrary, Debug)]
enum Change {
    Flip {
        at: u32,
        bit: u8,
    },
    Truncate {
        len: u32,
    },
    /// Chunks, by their numbers.
    Swap {
        a: u8,
        b: u8,
    },
    Drop {
        chunk: u8,
    },
    Repeat {
        chunk: u8,
        at: u8,
    },
    Foreign {
        stream: u8,
        chunk: u8,
        at: u8,
    },
    ForeignHeader {
        stream: u8,
    },
    Append {
        bytes: Vec<u8>,
    },
}

#[derive(Arbitrary, Debug)]
struct Attack {
    stream: u8,
    changes: Vec<Change>,
    /// How it is read: what is asked for at once, and where from.
    piece: u16,
    ranges: Vec<(u32, u16)>,
    threads: u8,
    raw: Option<Vec<u8>>,
}

/// Changes a stream, and reads it in every way.
pub fn run(data: &[u8]) {
    static LAB: OnceLock<Lab> = OnceLock::new();
    let lab = LAB.get_or_init(Lab::new);
    let Ok(attack) = Attack::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let (plaintext, original) = &lab.streams[usize::from(attack.stream) % lab.streams.len()];
    let sealed = attack.raw.clone().unwrap_or_else(|| lab.change(original, &attack.changes));
    let begin = || -> Result<OpeningStream, Error> {
        let header = StreamHeader::parse(&sealed)?;
        block_on(lab.opener.load_key(&header))?;
        lab.opener.begin(&header, None)
    };
    if let Err(error) = begin() {
        assert!(sealed != *original, "{error}");
        return;
    }
    // Of whatever header it is now.
    let expected = lab.streams.iter().find(|(_, stream)| stream[..STREAM_HEADER_LEN] == sealed[..STREAM_HEADER_LEN]);
    let (plaintext, original) = expected.map_or((plaintext, original), |(plaintext, stream)| (plaintext, stream));
    let chunks = &sealed[STREAM_HEADER_LEN..];
    let piece = 1 + usize::from(attack.piece);
    let check = |how: &str, released: &[u8], complete: bool| {
        assert!(plaintext.starts_with(released), "{how}: bytes that were not sealed there");
        assert_eq!(complete, sealed == *original, "{how}: {} bytes", released.len());
        assert!(!complete || released == plaintext, "{how}: {} bytes", released.len());
    };

    let (mut stream, mut out) = (begin().expect("it began"), Vec::new());
    let updated = chunks.chunks(piece).try_for_each(|piece| stream.update(piece, &mut out));
    let ended = updated.and_then(|()| stream.finish(&mut out));
    check("pushed", &out, ended.is_ok());

    let (released, ended) = drain(begin().expect("it began").into_reader(chunks), piece);
    check("read", &released, ended);

    let mut out = Vec::new();
    let threads = NonZeroUsize::new(1 + usize::from(attack.threads % 2)).expect("not 0");
    let opened = begin().expect("it began").open_all(&mut &*chunks, &mut out, threads, |_| Ok(()));
    check("by threads", &out, opened.is_ok());

    let ranges = begin().expect("it began").into_ranges(Cursor::new(chunks));
    let mut ranges = ranges.expect("memory can be read");
    for (at, len) in attack.ranges {
        let at = u64::from(at) % (4 * CHUNK_LEN as u64 + 200);
        let mut buffer = vec![0; usize::from(len)];
        let read = ranges.seek(SeekFrom::Start(at)).and_then(|_| ranges.read(&mut buffer));
        if let Ok(read) = read {
            let there = plaintext.get(at as usize..).unwrap_or_default();
            assert!(there.starts_with(&buffer[..read]), "a range: bytes that were not sealed there");
        }
    }
    if let Ok(len) = ranges.verified_len() {
        // One end was put at that place, and no other.
        assert_eq!(len, plaintext.len() as u64);
        assert_eq!(opened_stream_len(sealed.len() as u64).expect("its length is one"), len);
    }
}

fn drain(mut reader: impl Read, size: usize) -> (Vec<u8>, bool) {
    let (mut out, mut buffer) = (Vec::new(), vec![0; size]);
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return (out, true),
            Ok(read) => out.extend_from_slice(&buffer[..read]),
            Err(_) => {
                // An error stays one.
                assert!(reader.read(&mut buffer).is_err(), "something after an error");
                return (out, false);
            }
        }
    }
}

impl Lab {
    fn new() -> Self {
        let mut policy = Policy::new();
        policy.add(FieldPolicy::stream("image")).expect("a field");
        let ring = World::generated().keyring(policy).expect("a keyring");
        let field = ring.field("image").expect("a field").scope(SCOPE);
        let sealer = block_on(field.clone().stream_sealer()).expect("its key");
        let seal = |len: usize| {
            let plaintext: Vec<u8> = (0..len).map(|i| (i / 251 + i) as u8).collect();
            let mut stream = sealer.begin(None).expect("it begins");
            let mut sealed = stream.header().as_bytes().to_vec();
            stream.update(&plaintext, &mut sealed).expect("it goes on");
            stream.finish(&mut sealed).expect("it ends");
            (plaintext, sealed)
        };
        let streams = LENGTHS.into_iter().chain([LENGTHS[0]]).map(seal).collect();
        Self { opener: block_on(field.stream_opener()).expect("its key"), streams }
    }

    fn change(&self, original: &[u8], changes: &[Change]) -> Vec<u8> {
        let mut header = original[..STREAM_HEADER_LEN].to_vec();
        let mut chunks = split(original);
        for change in changes {
            let count = chunks.len().max(1);
            let number = |chunk: u8| usize::from(chunk) % count;
            let theirs = |stream: u8| &self.streams[usize::from(stream) % self.streams.len()].1;
            match change {
                Change::Swap { a, b } if !chunks.is_empty() => chunks.swap(number(*a), number(*b)),
                Change::Drop { chunk } if !chunks.is_empty() => drop(chunks.remove(number(*chunk))),
                Change::Repeat { chunk, at } if !chunks.is_empty() => {
                    let again = chunks[number(*chunk)].clone();
                    chunks.insert(number(*at), again);
                }
                Change::Foreign { stream, chunk, at } if !chunks.is_empty() => {
                    let theirs = split(theirs(*stream));
                    chunks[number(*at)] = theirs[usize::from(*chunk) % theirs.len()].clone();
                }
                Change::ForeignHeader { stream } => header = theirs(*stream)[..STREAM_HEADER_LEN].to_vec(),
                Change::Append { bytes } => chunks.push(bytes.clone()),
                Change::Flip { at, bit } => {
                    let at = *at as usize % (header.len() + chunks.iter().map(Vec::len).sum::<usize>());
                    let bytes = std::iter::once(&mut header).chain(&mut chunks).flatten();
                    bytes.skip(at).take(1).for_each(|byte| *byte ^= 1 << (bit % 8));
                }
                Change::Truncate { len } => {
                    let mut whole = [&header[..], &chunks.concat()].concat();
                    whole.truncate(STREAM_HEADER_LEN.max(*len as usize % whole.len()));
                    chunks = split(&whole);
                }
                _ => {}
            }
        }
        [header, chunks.concat()].concat()
    }
}

fn split(sealed: &[u8]) -> Vec<Vec<u8>> {
    sealed[STREAM_HEADER_LEN..].chunks(SEALED_CHUNK_LEN).map(<[u8]>::to_vec).collect()
}
