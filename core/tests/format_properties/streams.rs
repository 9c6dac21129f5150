//! Streams (FORMAT.md §19): however they are cut into pieces their bytes are those of the reference, and what is put together otherwise ends as it says.

use super::draw::{self, Binding, cases};
use super::reference::{self, Key};
use super::sealed::{known, ring_with};
use super::{context, kind};
use crate::common::block_on;
use crate::common::lab::{DATA, Lab, bound, data};
use keyfold::wire::{STREAM_HEADER_LEN, StreamHeader};
use keyfold::{ErrorKind, Field, FieldPolicy};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

const CHUNK: usize = 16_384;
const SEALED_CHUNK: usize = CHUNK + 16;

struct Site {
    key: Key,
    field: Field,
    context: Vec<u8>,
    name: String,
    row: Option<Vec<u8>>,
}

impl Site {
    fn new(binding: &Binding) -> Self {
        let Binding { name, pairs, row } = binding;
        let stream = FieldPolicy::stream(name);
        let policy = match row {
            Some(_) => FieldPolicy { row_binding: bound(name).row_binding, ..stream },
            None => stream,
        };
        Self {
            key: known(&data(DATA)),
            field: ring_with(&Lab::new(), [policy]).field(name).unwrap().context(context(pairs).unwrap()),
            context: reference::context(pairs, row.as_deref()),
            name: name.clone(),
            row: row.clone(),
        }
    }

    fn seal(&self, plaintext: &[u8], pieces: &[usize]) -> Vec<u8> {
        let mut stream = block_on(self.field.clone().stream_sealer()).unwrap().begin(self.row.as_deref()).unwrap();
        let mut out = stream.header().as_bytes().to_vec();
        in_pieces(plaintext, pieces, |piece| stream.update(piece, &mut out)).unwrap();
        stream.finish(&mut out).unwrap();
        out
    }

    /// What was released, and how it ended.
    fn open(&self, sealed: &[u8], pieces: &[usize]) -> (Vec<u8>, Result<(), ErrorKind>) {
        let mut out = Vec::new();
        let opened = (|| {
            let header = StreamHeader::parse(sealed)?;
            let opener = block_on(self.field.clone().stream_opener())?;
            block_on(opener.load_key(&header))?;
            let mut stream = opener.begin(&header, self.row.as_deref())?;
            in_pieces(&sealed[STREAM_HEADER_LEN..], pieces, |piece| stream.update(piece, &mut out))?;
            stream.finish(&mut out)
        })();
        (out, kind(opened))
    }

    fn expect(&self, sealed: &[u8]) -> (Vec<u8>, Result<(), ErrorKind>) {
        reference::open_stream(&self.key, sealed, &self.name, &self.context)
    }

    fn reference(&self, salt: &[u8], plaintext: &[u8]) -> Vec<u8> {
        reference::seal_stream(&self.key, salt, &self.name, &self.context, plaintext)
    }
}

fn in_pieces(
    mut bytes: &[u8],
    pieces: &[usize],
    mut each: impl FnMut(&[u8]) -> keyfold::Result<()>,
) -> keyfold::Result<()> {
    for piece in pieces.iter().cycle() {
        let (now, later) = bytes.split_at(bytes.len().min(*piece));
        each(now)?;
        bytes = later;
        if bytes.is_empty() {
            break;
        }
    }
    Ok(())
}

fn plaintext() -> impl Strategy<Value = Vec<u8>> {
    let edges = select(vec![0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK]);
    prop_oneof![edges, 0..4 * CHUNK].prop_map(|len| (0..len).map(|i| (i / CHUNK * 37 + i % 251) as u8).collect())
}

fn pieces() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![1_usize..40_000, select(vec![1, 15, 16, 17, CHUNK - 1, CHUNK, CHUNK + 1, SEALED_CHUNK])], 1..8)
        // Single bytes alone would take long.
        .prop_map(|mut pieces| {
            pieces.push(5000);
            pieces
        })
}

/// Something that a store may do to the chunks of a stream.
#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Cut(Index),
    CutBetween(Index),
    Append(Vec<u8>),
    Swap(Index, Index),
    Repeat(Index),
    Leave(Index),
    /// The same chunk of another stream with the same plaintext.
    Exchange(Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        (at(), 0_u8..8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        at().prop_map(Change::Cut),
        at().prop_map(Change::CutBetween),
        vec(any::<u8>(), 1..40).prop_map(Change::Append),
        (at(), at()).prop_map(|(a, b)| Change::Swap(a, b)),
        at().prop_map(Change::Repeat),
        at().prop_map(Change::Leave),
        at().prop_map(Change::Exchange),
    ]
}

fn changed(sealed: &[u8], other: &[u8], change: &Change) -> Vec<u8> {
    let (header, chunks) = sealed.split_at(STREAM_HEADER_LEN);
    let mut chunks: Vec<_> = chunks.chunks(SEALED_CHUNK).map(<[u8]>::to_vec).collect();
    let count = chunks.len();
    match change {
        Change::Flip(at, bit) => {
            let mut out = sealed.to_vec();
            out[at.index(sealed.len())] ^= 1 << bit;
            return out;
        }
        Change::Cut(at) => return sealed[..at.index(sealed.len())].to_vec(),
        Change::CutBetween(at) => chunks.truncate(at.index(count)),
        Change::Append(bytes) => chunks.push(bytes.clone()),
        Change::Swap(a, b) => chunks.swap(a.index(count), b.index(count)),
        Change::Repeat(at) => chunks.insert(at.index(count), chunks[at.index(count)].clone()),
        Change::Leave(at) => drop(chunks.remove(at.index(count))),
        Change::Exchange(at) => {
            let at = at.index(count);
            chunks[at] = other[STREAM_HEADER_LEN..].chunks(SEALED_CHUNK).nth(at).unwrap().to_vec();
        }
    }
    [header, &chunks.concat()].concat()
}

proptest! {
    #![proptest_config(cases(300))]

    /// Covers F-19.1-3, F-19.2-1, F-19.3-1.
    #[test]
    fn a_stream_is_the_same_however_it_is_cut(
        binding in draw::binding(), plaintext in plaintext(), writes in pieces(), reads in pieces(), salt: [u8; 24],
    ) {
        let site = Site::new(&binding);
        let sealed = site.seal(&plaintext, &writes);
        prop_assert_eq!(sealed.len(), 83 + plaintext.len() + 16 * (plaintext.len() / CHUNK + 1));
        prop_assert!(site.reference(&sealed[27..51], &plaintext) == sealed, "other bytes than the reference's");
        prop_assert!(site.expect(&sealed) == (plaintext.clone(), Ok(())), "the reference does not open it");
        let theirs = site.reference(&salt, &plaintext);
        prop_assert!(site.open(&theirs, &reads) == (plaintext, Ok(())), "it does not open what the reference has sealed");
    }

    /// Covers F-19.4-2, F-19.4-4, F-19.4-5, F-19.4-6.
    #[test]
    fn a_stream_that_was_changed_ends_as_it_should(
        binding in draw::binding(), plaintext in plaintext(), change in change(), reads in pieces(), salts: [[u8; 24]; 2],
    ) {
        let site = Site::new(&binding);
        let [sealed, other] = salts.map(|salt| site.reference(&salt, &plaintext));
        let changed = changed(&sealed, &other, &change);
        let (released, ended) = site.open(&changed, &reads);
        let (may_release, expected) = site.expect(&changed);
        prop_assert_eq!(ended, expected);
        prop_assert!(may_release.starts_with(&released), "more was released than was verified");
        prop_assert!(plaintext.starts_with(&released), "what was not sealed there was released");
        prop_assert_eq!(ended.is_ok(), changed == sealed, "{:?}", change);
    }

    /// Covers F-19.4-4.
    #[test]
    fn another_binding_opens_no_stream(a in draw::binding_of_few(), b in draw::binding_of_few()) {
        let (sealer, reader) = (Site::new(&a), Site::new(&b));
        let sealed = sealer.seal(b"image", &[5]);
        let expected = if a == b { (b"image".to_vec(), Ok(())) } else { (Vec::new(), Err(ErrorKind::DecryptionFailed)) };
        prop_assert_eq!(reader.open(&sealed, &[100]), expected.clone());
        prop_assert_eq!(reader.expect(&sealed), expected);
    }
}
