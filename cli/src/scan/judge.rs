//! Whether a value is sealed as its field says, and whether what stands in the column or member of an index can be tokens.

use crate::census::Seen;
use keyfold::wire::{BODY_TEXT_PREFIX, Suite, body_from_text, from_text, looks_sealed_text};
use keyfold::{FieldMode, FieldPolicy, IndexPolicy, Policy, Token, Value};
use keyfold_documents::EXACT_BITS;
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher};

/// What a value is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// There is nothing.
    Empty,
    Sealed,
    /// It keeps its format or has that of a random token, so that nobody can tell.
    Untold,
    /// What is wrong.
    Wrong(&'static str),
}

const CLEAR: Verdict = Verdict::Wrong("in clear");
const NO_TOKEN: Verdict = Verdict::Wrong("in clear: not of the form of a token");
const DAMAGED: Verdict = Verdict::Wrong("damaged, or in clear");

/// A whole text: what stands before or behind a sealed value is in clear, unless the policy keeps that prefix.
pub(super) fn text(field: &FieldPolicy, text: &str) -> Verdict {
    if let Some(verdict) = replaced(field, text) {
        return verdict;
    }
    let (_, rest) = field.split_prefix(text);
    if rest.is_empty() {
        return if text.is_empty() { Verdict::Empty } else { CLEAR };
    }
    if !looks_sealed_text(rest.as_bytes()) {
        return CLEAR;
    }
    let mut sealed = Vec::with_capacity(rest.len());
    if rest.starts_with(BODY_TEXT_PREFIX) {
        return match body_from_text(rest.as_bytes(), &mut sealed) {
            Ok(()) => suite(field, Suite::Document),
            Err(_) => DAMAGED,
        };
    }
    match from_text(rest.as_bytes(), &mut sealed) {
        Ok(()) => bytes(field, &sealed),
        Err(_) => DAMAGED,
    }
}

/// What a text is where values are replaced by others that look like values in clear. Tokens have a form at least.
fn replaced(field: &FieldPolicy, text: &str) -> Option<Verdict> {
    match &field.mode {
        // An empty text stands for itself.
        FieldMode::FormatPreserving { .. } | FieldMode::Token { .. } if text.is_empty() => Some(Verdict::Empty),
        FieldMode::FormatPreserving { .. } => Some(Verdict::Untold),
        FieldMode::Token { form, .. } => {
            let (_, rest) = field.split_prefix(text);
            Some(if form.fits(&Value::Text(rest)) { Verdict::Untold } else { NO_TOKEN })
        }
        _ => None,
    }
}

/// A well-formed value of a suite.
fn suite(field: &FieldPolicy, suite: Suite) -> Verdict {
    match field.accepted_suites.contains(&suite) {
        true => Verdict::Sealed,
        false => Verdict::Wrong("sealed under a suite that the policy refuses"),
    }
}

/// A value in binary form, or a text that a driver hands out as bytes.
pub(super) fn bytes(field: &FieldPolicy, bytes: &[u8]) -> Verdict {
    // What is no text is no token.
    if let Some(verdict) = replaced(field, &String::from_utf8_lossy(bytes)) {
        return verdict;
    }
    match Seen::bytes(bytes) {
        Seen::Null | Seen::Empty => Verdict::Empty,
        Seen::Sealed(found, _) => suite(field, found),
        Seen::Part => suite(field, Suite::Document),
        Seen::Clear => CLEAR,
        Seen::Malformed => DAMAGED,
    }
}

/// Whether bytes of any column are sealed as a whole.
pub(super) fn is_sealed_bytes(bytes: &[u8]) -> bool {
    matches!(Seen::bytes(bytes), Seen::Sealed(..) | Seen::Part)
}

/// Whether a text of any column is sealed as a whole.
pub(super) fn is_sealed(text: &str) -> bool {
    let mut sealed = Vec::new();
    let is_value = looks_sealed_text(text.as_bytes()) && from_text(text.as_bytes(), &mut sealed).is_ok();
    is_value || body_from_text(text.as_bytes(), &mut sealed).is_ok()
}

/// What is wrong with a value that is no token of its index.
pub(super) const NOT_OF_INDEX: &str = "not a token of the index";
/// What is wrong with tokens that chance cannot have made.
pub(super) const TOO_SMALL: &str = "too small for tokens: perhaps clear numbers";

/// An index that has a column, or a member at the top of documents.
pub(super) struct Indexed<'p> {
    /// What messages call it.
    pub(super) name: String,
    pub(super) field: &'p str,
    pub(super) column: &'p str,
    pub(super) policy: &'p IndexPolicy,
    /// Whether documents have a place for it.
    pub(super) has_paths: bool,
}

impl<'p> Indexed<'p> {
    pub(super) fn all(policy: &'p Policy) -> impl Iterator<Item = Self> {
        let of_field = |field: &'p FieldPolicy| {
            field.indexes.iter().filter_map(move |index| {
                Some(Self {
                    name: format!("{} index {}", field.name, index.name),
                    field: &field.name,
                    column: index.column.as_deref()?,
                    policy: index,
                    has_paths: !field.paths.is_empty(),
                })
            })
        };
        policy.fields().flat_map(move |field| of_field(field))
    }
}

/// The tokens in a cell, spelled as `protect` writes them, of which there may be none; `None`: it holds something else.
pub(super) fn cell(index: &IndexPolicy, text: &str) -> Option<Vec<Token>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    if index.tokens_per_value() == 1 {
        return Some(vec![token(index, text)?]);
    }
    let list = text.strip_prefix('{')?.strip_suffix('}')?;
    let tokens: Option<Vec<Token>> = list.split(',').map(|text| token(index, text)).collect();
    tokens.filter(|tokens| tokens.len() <= index.tokens_per_value())
}

/// As [`cell`], of a cell that is bytes: those of a text, or of the one token of 256 bits.
pub(super) fn binary(index: &IndexPolicy, bytes: &[u8]) -> Option<Vec<Token>> {
    match bytes.try_into() {
        Ok(bytes) if index.bits == IndexPolicy::FULL => Some(vec![Token::Bytes(bytes)]),
        _ => cell(index, std::str::from_utf8(bytes).ok()?),
    }
}

/// As [`cell`], of a member of a document: a list of tokens where the document has several values, too.
pub(super) fn member(index: &IndexPolicy, raw: &str) -> Option<Vec<Token>> {
    let one = |value: &Json| match value {
        Json::Number(number) if index.bits <= EXACT_BITS => token(index, &number.to_string()),
        Json::String(text) if index.bits > EXACT_BITS => token(index, text),
        _ => None,
    };
    match serde_json::from_str(raw).ok()? {
        Json::Null => Some(Vec::new()),
        Json::Array(values) => values.iter().map(one).collect(),
        value if index.tokens_per_value() == 1 => Some(vec![one(&value)?]),
        _ => None,
    }
}

/// Reads a token in the one spelling that it has.
fn token(index: &IndexPolicy, text: &str) -> Option<Token> {
    if index.bits == IndexPolicy::FULL {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?;
        return bytes.try_into().ok().map(Token::Bytes);
    }
    let number: i64 = text.parse().ok()?;
    let fits = number >= 0 && number >> index.bits == 0;
    (fits && number.to_string() == text).then_some(Token::Integer(number))
}

/// Most tokens of a sample.
const MAX_SAMPLE: usize = 1024;
/// Fewest small tokens that say anything.
const MIN_SMALL: usize = 20;
/// Of the tokens of an index one in 2 to this power is small.
const SMALL_BITS: u16 = 8;

/// How the integers of an index spread: tokens are random numbers, all equally likely, and clear numbers are not.
#[derive(Default)]
pub(super) struct Spread {
    /// The different numbers whose hashes are the least: which these are has nothing to do with the order of rows, or how often a value is there.
    sample: BTreeSet<(u64, i64)>,
    /// Numbers that are small, each as often as it was there.
    small: u64,
    /// Likewise those that are tiny.
    tiny: u64,
    /// All numbers.
    count: u64,
    /// The least of those that are tiny.
    least: Option<i64>,
}

impl Spread {
    /// Whether it is tiny, and less than all before.
    pub(super) fn add(&mut self, index: &IndexPolicy, number: i64) -> bool {
        self.count += 1;
        let is_tiny = is_tiny(index, number);
        self.tiny += u64::from(is_tiny);
        let is_least = is_tiny && self.least.is_none_or(|least| number < least);
        if is_least {
            self.least = Some(number);
        }
        self.small += u64::from(is_small(index, number));
        let mut hash = DefaultHasher::new();
        hash.write_i64(number);
        self.sample.insert((hash.finish(), number));
        if self.sample.len() > MAX_SAMPLE {
            self.sample.pop_last();
        }
        is_least
    }

    /// How many numbers are small, if an eighth of the different ones is, and 20 at least. Of tokens each is with a probability of 1/256, so that chance
    /// makes this of them with less than (e · 8 / 256)^20 < 2^-71.
    pub(super) fn too_small(&self, index: &IndexPolicy) -> Option<u64> {
        let small = self.sample.iter().filter(|(_, number)| is_small(index, *number)).count();
        (small >= MIN_SMALL && small * 8 >= self.sample.len()).then_some(self.small)
    }

    /// How many numbers are tiny, if one of them is less than any that chance makes of as many tokens. Of up to 2^20 tokens that is every tiny one: each is with a
    /// probability of 2^-30. Of n, more than these, it is one below 2^bits / (n · 2^10). So chance does it to a whole column with less than 2^-10.
    pub(super) fn impossible(&self, index: &IndexPolicy) -> Option<u64> {
        let numbers = i128::from(self.count.max(TOKENS_OF_TINY));
        let is_impossible = |least: i64| (i128::from(least) + 1) * numbers * ODDS <= 1_i128 << index.bits;
        self.least.is_some_and(is_impossible).then_some(self.tiny)
    }
}

/// Of the tokens of an index one in 2 to this power is tiny.
const TINY_BITS: u16 = 30;
/// Of as many tokens chance makes a tiny one with a probability of one in [`ODDS`].
const TOKENS_OF_TINY: u64 = 1 << 20;
const ODDS: i128 = 1 << 10;

fn is_tiny(index: &IndexPolicy, number: i64) -> bool {
    index.bits >= TINY_BITS && number >> (index.bits - TINY_BITS) == 0
}

fn is_small(index: &IndexPolicy, number: i64) -> bool {
    number >> index.bits.saturating_sub(SMALL_BITS) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyfold::IndexKind;

    #[test]
    fn tokens_have_one_spelling() {
        let index = |bits| IndexPolicy { bits, ..IndexPolicy::new("i", IndexKind::Digits, 8) };
        let is_token = |bits, text| cell(&index(bits), text).map(|tokens| tokens.len());
        let hex = "0f".repeat(32);
        for (bits, text, expected) in [
            (8, "", Some(0)),
            (8, "0", Some(1)),
            (8, "255", Some(1)),
            (8, "256", None),
            (8, "-1", None),
            (8, "+1", None),
            (8, "07", None),
            (8, " 7", None),
            (8, "7.0", None),
            (8, "{7}", None),
            (63, "9223372036854775807", Some(1)),
            (63, "9223372036854775808", None),
            (63, "123-45-6789", None),
            (256, &hex, Some(1)),
            (256, &hex.to_uppercase(), None),
            (256, &hex[2..], None),
            (256, "7", None),
        ] {
            assert_eq!(is_token(bits, text), expected, "{text:?} of {bits} bits");
        }
        assert!(cell(&index(256), &"x".repeat(32)).is_none(), "a text of 32 bytes");
        assert_eq!(binary(&index(256), &[7; 32]).map(|tokens| tokens.len()), Some(1));
        assert!(binary(&index(256), &[7; 31]).is_none() && binary(&index(63), &[7; 32]).is_none());
        let prefixes = IndexPolicy::new("i", IndexKind::Prefix(vec![3, 5]), 8);
        for (text, expected) in
            [("{7,9}", Some(2)), ("{7}", Some(1)), ("{}", None), ("7", None), ("{1,2,3}", None), ("{7, 9}", None)]
        {
            assert_eq!(cell(&prefixes, text).map(|tokens| tokens.len()), expected, "{text:?}");
        }
        let of_member = |bits, raw| member(&index(bits), raw).map(|tokens| tokens.len());
        for (bits, raw, expected) in [
            (53, "null", Some(0)),
            (53, "7", Some(1)),
            (53, "[7,9,11]", Some(3)),
            (53, "\"7\"", None),
            (53, "7.5", None),
            (53, "7e0", None),
            (54, "7", None),
            (54, "\"7\"", Some(1)),
            (54, "[\"7\",9]", None),
            (54, "{\"a\":\"7\"}", None),
            (54, "true", None),
        ] {
            assert_eq!(of_member(bits, raw), expected, "{raw} of {bits} bits");
        }
        assert!(member(&prefixes, "7").is_none() && member(&prefixes, "[7]").is_some());
    }

    #[test]
    fn numbers_that_chance_makes_pass_and_others_do_not() {
        let index = IndexPolicy::unique("i", IndexKind::Digits, 63);
        // In ascending order, as a table that is sorted by its tokens, and each often.
        let spread = |numbers: &mut dyn Iterator<Item = i64>| {
            let mut spread = Spread::default();
            for number in numbers {
                spread.add(&index, number);
            }
            spread.too_small(&index)
        };
        assert_eq!(spread(&mut (0..100_000).map(|n| n * (i64::MAX / 100_000))), None);
        assert_eq!(spread(&mut (0..100_000).map(|n| n % 19)), None, "too few to tell");
        assert_eq!(spread(&mut (0..20).map(|n| 123_456_789 + n)), Some(20));
        let mixed = |of: i64| move |n: i64| if n % of == 0 { n } else { n * (i64::MAX / 100_000) };
        assert!(spread(&mut (1..100_000).map(mixed(4))).is_some());
        assert_eq!(spread(&mut (1..100_000).map(mixed(40))), None);
        let narrow = IndexPolicy::new("i", IndexKind::Digits, 8);
        let mut all = Spread::default();
        for number in 0..256 {
            all.add(&narrow, number);
        }
        assert_eq!((all.too_small(&narrow), all.impossible(&narrow)), (None, None));
    }

    #[test]
    fn one_number_that_chance_does_not_make_is_enough() {
        let impossible = |bits: u16, numbers: &mut dyn Iterator<Item = i64>| {
            let index = IndexPolicy { bits, ..IndexPolicy::new("i", IndexKind::Digits, 8) };
            let mut spread = Spread::default();
            for number in numbers {
                spread.add(&index, number);
            }
            spread.impossible(&index)
        };
        // A social security number of nine digits among tokens, and the bound.
        assert_eq!(impossible(63, &mut [i64::MAX / 3, 123_456_789, i64::MAX / 7].into_iter()), Some(1));
        assert_eq!(impossible(63, &mut [(1 << 33) - 1].into_iter()), Some(1));
        assert_eq!(impossible(63, &mut [1 << 33].into_iter()), None);
        assert_eq!(impossible(53, &mut [(1 << 23) - 1, 7, 7].into_iter()), Some(3));
        assert_eq!(impossible(53, &mut [1 << 23].into_iter()), None);
        // Of 30 bits zero is as unlikely as that, and of fewer nothing is.
        assert_eq!((impossible(30, &mut [0].into_iter()), impossible(30, &mut [1].into_iter())), (Some(1), None));
        assert_eq!(impossible(29, &mut [0].into_iter()), None);
        // In four times as many tokens the bound is a quarter.
        let many = |least: i64| std::iter::once(least).chain(std::iter::repeat_n(i64::MAX, (1 << 22) - 1));
        assert_eq!(impossible(63, &mut many((1 << 31) - 1)), Some(1));
        assert_eq!(impossible(63, &mut many(1 << 31)), None);
    }
}
