//! What values are bound to: encoded as FORMAT.md §4.3 says, and injective, since a naive reader gets back what went in.

use crate::world::members;
use arbitrary::{Arbitrary, Unstructured};
use keyfold::vectors::{self, Stream, body_aad};
use keyfold::wire::Suite;
use keyfold::{Context, Error, ErrorKind};
use std::collections::BTreeMap;

#[derive(Arbitrary, Debug)]
struct Binding {
    name: String,
    path: String,
    pairs: Vec<(Key, Bytes)>,
    row: Option<Bytes>,
}

/// Mostly near the ones that matter.
#[derive(Arbitrary, Debug)]
enum Key {
    Any(String),
    BeforeRow(u8),
    AfterRow(u8),
    Reserved(String),
    Long(u16),
}

#[derive(Arbitrary, Debug)]
enum Bytes {
    Any(Vec<u8>),
    Long(u16),
}

impl Key {
    fn text(&self) -> String {
        match self {
            Self::Any(text) => text.clone(),
            Self::BeforeRow(n) => format!("kf{}{n}", ['\0', '.', '9'][usize::from(n % 3)]),
            Self::AfterRow(n) => format!("kf;{n}"),
            Self::Reserved(text) => format!("kf:{text}"),
            Self::Long(len) => "k".repeat(usize::from(len % 4200)),
        }
    }
}

impl Bytes {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Any(bytes) => bytes.clone(),
            Self::Long(len) => vec![b'v'; usize::from(len % 4200)],
        }
    }
}

/// Encodes a context for each suite, and compares with the naive reference.
pub fn run(data: &[u8]) {
    let Ok(binding) = Binding::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let pairs: Vec<(String, Vec<u8>)> = binding.pairs.iter().map(|(key, value)| (key.text(), value.bytes())).collect();
    let row = binding.row.as_ref().map(Bytes::bytes);
    let context = pairs.iter().try_fold(Context::new(), |context, (key, value)| context.with(key, value));
    let context = match (context, reference(&pairs, None)) {
        (Ok(context), Ok(_)) => context,
        (Err(error), Err(wrong)) => return assert!(wrong.contains(&error.kind()), "{error}, {wrong:?}"),
        (Ok(_), Err(wrong)) => panic!("accepted, but {wrong:?}"),
        (Err(error), Ok(_)) => panic!("{error}"),
    };
    let key = members().iter().find(|member| member.name == "data").expect("a member").key;
    let head = |suite: Suite, label: &str| [&key.header(suite)[..], &[label.len() as u8], label.as_bytes()].concat();
    let named = |mut out: Vec<u8>, kind: u8| {
        out.extend([kind, binding.name.len() as u8]);
        out.extend_from_slice(binding.name.as_bytes());
        out
    };
    let too_long = (binding.name.len() > 255).then_some(ErrorKind::LimitExceeded);
    let encoded = reference(&pairs, row.as_deref()).map_err(|wrong| [wrong, too_long.into_iter().collect()].concat());
    let expect = |made: Result<Vec<u8>, Error>, before: Vec<u8>| match (made, &encoded, too_long) {
        (Ok(made), Ok(encoded), None) => {
            assert_eq!(made, [&before[..], encoded].concat());
            assert_eq!(read(&made[before.len()..]), all_pairs(&pairs, row.as_deref()));
        }
        (Err(error), Ok(_), Some(kind)) => assert_eq!(error.kind(), kind),
        (Err(error), Err(wrong), _) => assert!(wrong.contains(&error.kind()), "{error}, {wrong:?}"),
        (made, encoded, _) => panic!("{:?}, but {:?}", made.map(drop), encoded.as_ref().map(drop)),
    };
    let aad = vectors::aad(&key.header(Suite::Field), &binding.name, &context, row.as_deref());
    expect(aad, named(head(Suite::Field, "keyfold/field/v1"), 1));
    let stream = Stream::new(&key, &[7; 24], &binding.name, &context, row.as_deref());
    let mut before = named(head(Suite::Stream, "keyfold/stream/v1"), 1);
    before.push(1);
    expect(stream.map(|stream| stream.binding), before);

    // Suite 02 knows no rows, and a body of suite 05 neither rows nor contexts.
    for joined in [false, true] {
        match vectors::strings(&key.header(Suite::Deterministic), joined, &binding.name, &context) {
            Ok([header, name, context]) => {
                assert_eq!(header, key.header(Suite::Deterministic));
                assert_eq!(name, named(Vec::new(), 1 + u8::from(joined)));
                assert_eq!(read(&context), all_pairs(&pairs, None));
            }
            Err(error) => assert_eq!(Some(error.kind()), too_long),
        }
    }
    let label = "keyfold/document/v1";
    match body_aad(&binding.name, &binding.path) {
        Ok(aad) => {
            let before = named([&[label.len() as u8], label.as_bytes()].concat(), 1);
            let rest = aad.strip_prefix(&before[..]).expect("label and name");
            assert_eq!(rest, [&(binding.path.len() as u16).to_be_bytes()[..], binding.path.as_bytes()].concat());
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::LimitExceeded),
    }
}

/// A context as FORMAT.md §4.3 says it (and testvectors/context.py does it), or every class that the rules give it.
fn reference(pairs: &[(String, Vec<u8>)], row: Option<&[u8]>) -> Result<Vec<u8>, Vec<ErrorKind>> {
    let all = all_pairs(pairs, row);
    let encoded = all.iter().fold(vec![all.len() as u8], |mut out, (key, value)| {
        for part in [&key[..], value] {
            out.extend_from_slice(&(part.len() as u16).to_be_bytes());
            out.extend_from_slice(part);
        }
        out
    });
    let is_wrong = |(key, _): &(String, Vec<u8>)| key.is_empty() || key.starts_with("kf:");
    let twice = all.len() < pairs.len() + usize::from(row.is_some());
    let given: usize = pairs.iter().map(|(key, value)| 4 + key.len() + value.len()).sum();
    let rules = [
        (pairs.iter().any(is_wrong) || twice || row == Some(b""), ErrorKind::InvalidInput),
        (pairs.len() > 32 || encoded.len() > 4096 || 1 + given > 4096, ErrorKind::LimitExceeded),
    ];
    let wrong: Vec<ErrorKind> = rules.into_iter().filter(|(broken, _)| *broken).map(|(_, kind)| kind).collect();
    if wrong.is_empty() { Ok(encoded) } else { Err(wrong) }
}

fn all_pairs(pairs: &[(String, Vec<u8>)], row: Option<&[u8]>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let row = row.map(|row| (b"kf:row".to_vec(), row.to_vec()));
    pairs.iter().map(|(key, value)| (key.clone().into_bytes(), value.clone())).chain(row).collect()
}

/// A naive reader of encoded contexts.
fn read(encoded: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    fn part<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
        let (len, more) = rest.split_first_chunk().expect("a length");
        let (part, more) = more.split_at(usize::from(u16::from_be_bytes(*len)));
        *rest = more;
        part
    }
    let (count, mut rest) = encoded.split_first().expect("a number of pairs");
    let pairs: Vec<_> = (0..*count).map(|_| (part(&mut rest).to_vec(), part(&mut rest).to_vec())).collect();
    assert!(rest.is_empty() && pairs.is_sorted_by(|(a, _), (b, _)| a < b));
    pairs.into_iter().collect()
}
