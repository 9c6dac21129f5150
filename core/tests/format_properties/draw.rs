//! What is drawn: values, bindings, and changes of bytes. Edges come often, and things that are nearly the same.

use super::reference::{Padding, Pair, Plain};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::RngSeed;
use std::ops::Range;

/// `count` cases of a property: the same in each run, and shrunk when they fail.
pub(crate) fn cases(count: u32) -> ProptestConfig {
    let number = |name: &str| std::env::var(name).map_or(1, |number| number.parse().expect("a number"));
    ProptestConfig {
        cases: count * number("KEYFOLD_FORMAT_TIMES"),
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(number("KEYFOLD_FORMAT_SEED").into()),
        ..ProptestConfig::default()
    }
}

pub(crate) fn mostly(byte: u8) -> impl Strategy<Value = u8> {
    prop_oneof![9 => Just(byte), 1 => any::<u8>()]
}

pub(crate) fn suite() -> impl Strategy<Value = u8> {
    prop_oneof![3 => 1_u8..3, 1 => 0_u8..9, 1 => any::<u8>()]
}

fn integer() -> impl Strategy<Value = i128> {
    // Around the powers of two, where another byte is needed.
    let near = (0_u32..127, -2_i128..3, any::<bool>()).prop_map(|(bit, by, negative)| {
        let number = (1_i128 << bit) + by;
        if negative { -number } else { number }
    });
    prop_oneof![near, any::<i128>(), select(vec![0, -1, i128::MIN, i128::MAX])]
}

fn float() -> impl Strategy<Value = f64> {
    let edges = vec![0.0, -0.0, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, 5e-324];
    prop_oneof![select(edges), any::<u64>().prop_map(f64::from_bits)]
}

pub(crate) fn plain() -> impl Strategy<Value = Plain> {
    prop_oneof![
        // Some end in what looks like padding.
        (vec(any::<u8>(), 0..80), 0_usize..3).prop_map(|(mut bytes, tail)| {
            bytes.extend(&[0x80, 0, 0][..tail]);
            Plain::Bytes(bytes)
        }),
        (0_usize..5000).prop_map(|len| Plain::Bytes(vec![0; len])),
        ".{0,40}".prop_map(Plain::Text),
        integer().prop_map(Plain::Integer),
        r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?".prop_map(Plain::Decimal),
        float().prop_map(Plain::Float),
        any::<bool>().prop_map(Plain::Boolean),
        any::<i32>().prop_map(Plain::Date),
        (any::<i64>(), 0_u32..1_000_000_000).prop_map(|(seconds, nanoseconds)| Plain::Timestamp(seconds, nanoseconds)),
        r#"\{"a": ".{0,20}"\}"#.prop_map(Plain::Json),
        Just(Plain::Null),
    ]
}

/// Of so few values that two are often the same, or have bytes in common.
pub(crate) fn plain_of_few() -> impl Strategy<Value = Plain> {
    let text = || select(vec!["", "0", "1", "1.0", "1e0", "-0", "\0", "\u{1}"]).prop_map(str::to_owned);
    prop_oneof![
        text().prop_map(|text| Plain::Bytes(text.into_bytes())),
        select(vec![vec![0x80], vec![0], vec![0x80, 0], vec![]]).prop_map(Plain::Bytes),
        text().prop_map(Plain::Text),
        (-2_i128..3).prop_map(Plain::Integer),
        select(vec!["0", "1", "1.0", "1e0", "-0"]).prop_map(|text| Plain::Decimal(text.to_owned())),
        select(vec![0.0, -0.0, 1.0, f64::NAN, -f64::NAN]).prop_map(Plain::Float),
        any::<bool>().prop_map(Plain::Boolean),
        (-1_i32..2).prop_map(Plain::Date),
        (-1_i64..2, 0_u32..2).prop_map(|(seconds, nanoseconds)| Plain::Timestamp(seconds, nanoseconds)),
        text().prop_map(Plain::Json),
        Just(Plain::Null),
    ]
}

pub(crate) fn padding() -> impl Strategy<Value = Padding> {
    let multiple = prop_oneof![2_usize..40, 2_usize..=4096].prop_map(Padding::Multiple);
    prop_oneof![Just(Padding::None), multiple, Just(Padding::Padme)]
}

/// What a value is bound to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Binding {
    pub(crate) name: String,
    pub(crate) pairs: Vec<Pair>,
    pub(crate) row: Option<Vec<u8>>,
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![6 => r"[a-zé.\PC]{1,20}", 1 => Just("n".repeat(255)), 1 => select(vec!["a", "ab"]).prop_map(str::to_owned)]
}

fn key() -> impl Strategy<Value = String> {
    // Around the place of `kf:row`.
    let near = vec!["k", "kf", "kf9", "kf;", "kg", "K", "l", "ke", "kf.row", "kfrow"];
    prop_oneof![
        select(near).prop_map(str::to_owned),
        r"\PC{1,8}".prop_filter("Keyfold's own", |key| !key.starts_with("kf:"))
    ]
}

/// Some whose lengths need more than a byte.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![8 => vec(any::<u8>(), 1..40), 1 => Just(Vec::new()), 1 => (100_usize..600).prop_map(|len| vec![7; len])]
}

/// In the order of their keys.
pub(crate) fn pairs() -> impl Strategy<Value = Vec<Pair>> {
    let some = btree_map(key(), bytes(), 0..5);
    let all = btree_map(r"[a-z]{2,4}", vec(any::<u8>(), 0..40), 28..=32);
    prop_oneof![9 => some, 1 => all].prop_map(|pairs| pairs.into_iter().collect())
}

pub(crate) fn binding() -> impl Strategy<Value = Binding> {
    let row = prop::option::of(bytes().prop_filter("no row", |row| !row.is_empty()));
    (name(), pairs(), row).prop_map(|(name, pairs, row)| Binding { name, pairs, row })
}

/// Two of these are often the same, or have parts that are the same one after the other.
pub(crate) fn binding_of_few() -> impl Strategy<Value = Binding> {
    let bytes = || select(vec![&b""[..], b"a", b"ab", b"b", b"\0\x01a", b"\0\x01a\0\0"]).prop_map(<[u8]>::to_vec);
    let pairs = btree_map(select(vec!["a", "ab", "b", "z"]).prop_map(str::to_owned), bytes(), 0..3);
    let row = prop::option::of(select(vec![b"a".to_vec(), b"ab".to_vec()]));
    let name = select(vec!["a", "ab", "b"]).prop_map(str::to_owned);
    (name, pairs, row).prop_map(|(name, pairs, row)| Binding { name, pairs: pairs.into_iter().collect(), row })
}

/// In any order, and some that no context has.
pub(crate) fn any_pairs() -> impl Strategy<Value = Vec<Pair>> {
    let key = prop_oneof![8 => key(), 1 => select(vec!["", "kf:", "kf:row", "kf:x", "k"]).prop_map(str::to_owned)];
    let len = prop_oneof![8 => 0_usize..40, 1 => 4000_usize..4100];
    let some = vec((key, len.prop_map(|len| vec![7; len])), 0..6);
    let many = (31_usize..35).prop_map(|count| (0..count).map(|i| (format!("k{i}"), Vec::new())).collect());
    prop_oneof![9 => some, 1 => many]
}

#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Flip(u8),
    Set(u8),
    Insert(u8),
    Remove,
    Cut,
    Push(u8),
}

pub(crate) fn edits(count: Range<usize>) -> impl Strategy<Value = Vec<(Index, Edit)>> {
    edits_with(count, any::<u8>().boxed())
}

/// Of characters that have to do with texts of values.
pub(crate) fn edits_of_texts(count: Range<usize>) -> impl Strategy<Value = Vec<(Index, Edit)>> {
    edits_with(count, select(b"kf1.0aAfFgzZ-_=+/ \n\r".to_vec()).boxed())
}

fn edits_with(count: Range<usize>, byte: BoxedStrategy<u8>) -> impl Strategy<Value = Vec<(Index, Edit)>> {
    let edit = prop_oneof![
        (0_u8..8).prop_map(Edit::Flip),
        byte.clone().prop_map(Edit::Set),
        byte.clone().prop_map(Edit::Insert),
        Just(Edit::Remove),
        Just(Edit::Cut),
        byte.prop_map(Edit::Push),
    ];
    vec((any::<Index>(), edit), count)
}

pub(crate) fn edited(bytes: &[u8], edits: &[(Index, Edit)]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for (at, edit) in edits {
        if out.is_empty() {
            break;
        }
        let at = at.index(out.len());
        match edit {
            Edit::Flip(bit) => out[at] ^= 1 << bit,
            Edit::Set(byte) => out[at] = *byte,
            Edit::Insert(byte) => out.insert(at, *byte),
            Edit::Remove => drop(out.remove(at)),
            Edit::Cut => out.truncate(at),
            Edit::Push(byte) => out.push(*byte),
        }
    }
    out
}
