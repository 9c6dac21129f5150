//! Blind indexes (FORMAT.md §17.1): what may be looked up of a field, and in how many bits.

use super::normal::Normal;
use crate::error::{Error, ErrorKind, Result};
use crate::policy::{Name, is_name};
use crate::value::Value;
use zeroize::Zeroizing;

/// A blind index of a field: short keyed hashes of a normal form of its values, to be stored beside them and compared.
///
/// An index shows which rows may be equal. The fewer its bits, the more rows share a token by chance and the less it shows; whoever
/// searches opens what he finds and compares.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IndexPolicy {
    /// Its name among the indexes of the field. Not part of a token.
    pub name: Name,
    /// What of a value is compared.
    pub kind: IndexKind,
    /// Bits of a token: 1 to 63 for integers, 256 for 32 bytes.
    pub bits: u16,
    /// The partition whose keys make the tokens: the name of a `[lookup.NAME]` section.
    pub partition: Name,
    /// The CSV column, or the member at the top of a JSON document, that files have for it.
    pub column: Option<String>,
    /// Whether nearly every row of the table has a value of its own. Said of each index of full width, and of no other.
    pub unique: bool,
    /// Whether the column may have few values, such as a gender, which the frequencies of its tokens tell whatever their bits.
    pub few_values: bool,
    /// What becomes of values that it cannot take.
    pub on_unindexable: OnUnindexable,
}

/// What becomes of a value that an index cannot take: it has no normal form of the kind, or an empty one though it is no null and no empty text,
/// such as a telephone number `n/a`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnUnindexable {
    /// It is refused.
    #[default]
    Refuse,
    /// It has no token, so that nobody finds it, and is counted.
    Skip,
}

/// What of a value is compared.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum IndexKind {
    /// The value with its type, byte by byte.
    Exact,
    /// A text without regard to case, width, composition and repeated spaces.
    CaseFolded,
    /// The digits 0 to 9 of a text, in order.
    Digits,
    /// A date, or the date in UTC of a timestamp.
    Date,
    /// A part of a date.
    DatePart(DatePart),
    /// A telephone number in the form of E.164.
    Phone(PhoneRule),
    /// The first characters of a case-folded text, once for each of these lengths: 1 to 8 of them, ascending, 3 to 32.
    Prefix(Vec<u8>),
}

/// A part of a date.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum DatePart {
    /// `YYYY`
    Year = 1,
    /// `YYYY-MM`
    YearMonth = 2,
    /// `MM-DD`
    MonthDay = 3,
}

impl DatePart {
    /// Every part.
    pub const ALL: [Self; 3] = [Self::Year, Self::YearMonth, Self::MonthDay];

    /// The name in configurations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Year => "year",
            Self::YearMonth => "year-month",
            Self::MonthDay => "month-day",
        }
    }
}

/// How numbers without a country code are read. With neither part, they are refused.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PhoneRule {
    /// Put in front of numbers that start neither with `+` nor with `00`: 1 to 3 digits.
    pub country_code: Option<String>,
    /// Dropped from the front of such numbers first: `0` in much of Europe, `1` in North America.
    pub trunk_prefix: Option<String>,
    /// What says, beside `+` and `00`, that a country code follows: `011` in North America.
    pub international_prefix: Option<String>,
}

impl IndexKind {
    /// The number that tokens are bound to, and its name in configurations.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::CaseFolded => "case-folded",
            Self::Digits => "digits",
            Self::Date => "date",
            Self::DatePart(_) => "date-part",
            Self::Phone(_) => "phone",
            Self::Prefix(_) => "prefix",
        }
    }

    pub(super) const fn id(&self) -> u8 {
        match self {
            Self::Exact => 1,
            Self::CaseFolded => 2,
            Self::Digits => 3,
            Self::Date => 4,
            Self::DatePart(_) => 5,
            Self::Phone(_) => 6,
            Self::Prefix(_) => 7,
        }
    }
}

impl IndexPolicy {
    /// Bits of a token that is the whole hash, as bytes.
    pub const FULL: u16 = 256;
    /// Most bits of an integer, which stays positive in every database.
    pub const MAX_INTEGER: u16 = 63;
    /// Most bits of a prefix: prefixes are guessed easily.
    pub const MAX_PREFIX: u16 = 16;

    /// An index of the partition `default` that no file has a column for, of values that repeat.
    #[must_use]
    pub fn new(name: &str, kind: IndexKind, bits: u16) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            bits,
            partition: "default".to_owned(),
            column: None,
            unique: false,
            few_values: false,
            on_unindexable: OnUnindexable::default(),
        }
    }

    /// As [`new`](Self::new), of full width, for values that nearly every row has one of its own of.
    #[must_use]
    pub fn unique(name: &str, kind: IndexKind, bits: u16) -> Self {
        Self { unique: true, ..Self::new(name, kind, bits) }
    }

    /// Tokens of each value: one, or for prefixes one per length.
    #[must_use]
    pub fn tokens_per_value(&self) -> usize {
        match &self.kind {
            IndexKind::Prefix(lengths) => lengths.len(),
            _ => 1,
        }
    }

    /// Whether no two values share a token by chance, so that it shows which rows are equal: 63 or 256 bits. For identifiers that are unique
    /// and cannot be guessed.
    #[must_use]
    pub const fn is_full_width(&self) -> bool {
        self.bits >= Self::MAX_INTEGER
    }

    /// Bits that it shows of a row: of all its tokens, if they are not of full width.
    #[must_use]
    pub fn shown_bits(&self) -> usize {
        if self.is_full_width() { 0 } else { usize::from(self.bits) * self.tokens_per_value() }
    }

    /// What is compared of a value, one byte string per token: values with an equal one share that token. In clear.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): the index cannot take the value, and [`OnUnindexable::Refuse`].
    pub fn normal_forms(&self, value: &Value<'_>) -> Result<Vec<Zeroizing<Vec<u8>>>> {
        Ok(self.stored_forms(value)?.unwrap_or_default().into_iter().map(|(_, form)| form).collect())
    }

    /// Whether the index cannot take the value, which therefore has no token: [`OnUnindexable::Skip`].
    #[must_use]
    pub fn skips(&self, value: &Value<'_>) -> bool {
        matches!(self.stored_forms(value), Ok(None))
    }

    /// The normal forms of a value that is stored, none where there is nothing to find; `None`: it is skipped.
    ///
    /// # Errors
    ///
    /// As for [`normal_forms`](Self::normal_forms).
    // F-17.1-3, F-17.1-4.
    pub(super) fn stored_forms(&self, value: &Value<'_>) -> Result<Option<Vec<Normal>>> {
        let is_blank = matches!(value, Value::Null) || matches!(value, Value::Text(text) if text.trim().is_empty());
        let forms = self.kind.normal_forms(value).and_then(|forms| match forms.is_empty() && !is_blank {
            true => {
                Err(Error::new(ErrorKind::InvalidInput, "the value has nothing that an index of this kind could find"))
            }
            false => Ok(forms),
        });
        match forms {
            Err(error) if error.kind() == ErrorKind::InvalidInput && self.on_unindexable == OnUnindexable::Skip => {
                Ok(None)
            }
            forms => forms.map(Some),
        }
    }

    /// Checks the rules that concern this index alone.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): names the index and the rule.
    // F-17.1-1.
    pub fn check(&self) -> Result<()> {
        let wrong = |why: &'static str| {
            Err(Error::new(ErrorKind::Configuration, why).with_detail(format!("index {}", self.name)))
        };
        if !is_name(&self.name) || !is_name(&self.partition) {
            return wrong("indexes and partitions have names of 1 to 255 bytes without control characters");
        }
        if !matches!(self.bits, 1..=Self::MAX_INTEGER | Self::FULL) {
            return wrong("bits is 1 to 63 for a column of integers, or 256 for one of bytes");
        }
        if self.is_full_width() && !self.unique {
            return wrong(
                "63 or 256 bits show which rows are equal: for values that nearly every row has one of its own of, which unique = true says; \
                 fewer bits for others",
            );
        }
        if self.unique && !self.is_full_width() {
            return wrong("unique = true is for an index of full width: 63 or 256 bits");
        }
        if self.unique && self.few_values {
            return wrong(
                "a column of which nearly every row has a value of its own does not have few values: unique or few_values",
            );
        }
        match &self.kind {
            IndexKind::Prefix(lengths) => {
                let in_order = lengths.is_sorted_by(|a, b| a < b);
                if lengths.len() > 8 || !in_order || lengths.first().is_none_or(|first| *first < 3) {
                    return wrong("the lengths of prefixes are 1 to 8 numbers from 3 to 32, ascending");
                }
                if lengths.last().is_some_and(|last| *last > 32) {
                    return wrong("the lengths of prefixes are 1 to 8 numbers from 3 to 32, ascending");
                }
                if self.bits > Self::MAX_PREFIX {
                    return wrong("a prefix is guessed easily, so its tokens have at most 16 bits");
                }
            }
            IndexKind::Phone(rule) => {
                let digits = |text: &Option<String>, max: usize| {
                    text.as_deref().is_none_or(|text| {
                        (1..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
                    })
                };
                if !digits(&rule.country_code, 3) || rule.country_code.as_deref().is_some_and(|c| c.starts_with('0')) {
                    return wrong("country_code is 1 to 3 digits, such as \"1\" or \"49\"");
                }
                if !digits(&rule.trunk_prefix, 2) || rule.country_code.is_none() && rule.trunk_prefix.is_some() {
                    return wrong("trunk_prefix is 1 or 2 digits, and goes with country_code");
                }
                if !digits(&rule.international_prefix, 5) {
                    return wrong("international_prefix is 1 to 5 digits, such as \"011\"");
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The most bits that all indexes of a row may show together where a table has `rows` rows: the largest number below log₂(rows) − 3, so that
/// a row shares all its tokens with more than eight others; 0 if there is none.
#[must_use]
pub const fn most_bits(rows: u64) -> usize {
    // bits < log₂(rows) − 3, which is 2^(bits + 3) < rows.
    let Some(before) = rows.checked_sub(1) else { return 0 };
    match before.checked_ilog2() {
        Some(log) => (log as usize).saturating_sub(3),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Failure T12
    #[test]
    fn the_rule_of_bits_is_exact() {
        for (rows, bits) in [(0, 0), (1, 0), (16, 0), (17, 1), (32, 1), (33, 2), (1 << 20, 16), ((1 << 20) + 1, 17)] {
            assert_eq!(most_bits(rows), bits, "{rows}");
            assert!(bits == 0 || 1_u64 << (bits + 3) < rows);
            assert!(rows == 0 || 1_u64 << (bits + 4) >= rows);
        }
        assert_eq!(most_bits(1_000_000), 16);
    }

    #[test]
    fn rules_of_an_index() {
        let prefix = |lengths: &[u8], bits| IndexPolicy::new("p", IndexKind::Prefix(lengths.to_vec()), bits).check();
        assert!(prefix(&[3], 16).is_ok() && prefix(&[3, 4, 32], 1).is_ok());
        for (lengths, bits) in [(&[2][..], 8), (&[], 8), (&[4, 3], 8), (&[3, 3], 8), (&[3, 33], 8), (&[3], 17)] {
            assert_eq!(prefix(lengths, bits).unwrap_err().kind(), ErrorKind::Configuration);
        }
        for (bits, good) in [(0, false), (1, true), (63, true), (64, false), (255, false), (256, true), (257, false)] {
            let index = IndexPolicy { unique: bits >= 63, ..IndexPolicy::new("e", IndexKind::Exact, bits) };
            assert_eq!(index.check().is_ok(), good, "{bits}");
            // Full width is for what is unique, in writing, and the other way round.
            assert!(IndexPolicy { unique: !index.unique, ..index }.check().is_err(), "{bits}");
        }
        let phone = |country_code: Option<&str>, trunk_prefix: Option<&str>| {
            let rule = PhoneRule {
                country_code: country_code.map(str::to_owned),
                trunk_prefix: trunk_prefix.map(str::to_owned),
                international_prefix: None,
            };
            IndexPolicy::new("t", IndexKind::Phone(rule), 16).check().is_ok()
        };
        assert!(phone(None, None) && phone(Some("1"), Some("1")) && phone(Some("353"), None));
        assert!(!phone(Some("049"), None) && !phone(Some("+49"), None) && !phone(None, Some("0")));
        let index = IndexPolicy::new("p", IndexKind::Prefix(vec![3, 5]), 6);
        assert_eq!((index.tokens_per_value(), index.shown_bits(), index.is_full_width()), (2, 12, false));
        assert_eq!(IndexPolicy::unique("e", IndexKind::Exact, 256).shown_bits(), 0);
    }
}
