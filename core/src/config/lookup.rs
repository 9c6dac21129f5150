//! `[fields.NAME.index.NAME]` and the formats of format-preserving fields.

use super::field::wrong;
use crate::error::Result;
use crate::lookup::{
    DatePart, Format, IndexKind, IndexPolicy, OnUnindexable, PhoneRule, TimeUnit, TokenAlphabet, TokenForm,
};
use crate::value::{Value, ValueType};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IndexToml {
    kind: KindToml,
    bits: u16,
    partition: Option<String>,
    column: Option<String>,
    part: Option<String>,
    length: Option<LengthToml>,
    country_code: Option<String>,
    trunk_prefix: Option<String>,
    international_prefix: Option<String>,
    #[serde(default)]
    unique: bool,
    #[serde(default)]
    few_values: bool,
    #[serde(default)]
    on_unindexable: OnUnindexableToml,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OnUnindexableToml {
    #[default]
    Refuse,
    Skip,
}

#[derive(Clone, Copy, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum KindToml {
    Exact,
    CaseFolded,
    Digits,
    Date,
    DatePart,
    Phone,
    Prefix,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number of characters or a list of them")]
enum LengthToml {
    One(u8),
    More(Vec<u8>),
}

impl IndexToml {
    /// `partition`: that of the field, where it has one.
    pub(super) fn to_policy(&self, name: &str, partition: &str) -> Result<IndexPolicy> {
        let is = |kind: KindToml| self.kind == kind;
        if self.part.is_some() && !is(KindToml::DatePart) {
            return Err(wrong("part is for an index of the kind date-part"));
        }
        if self.length.is_some() && !is(KindToml::Prefix) {
            return Err(wrong("length is for an index of the kind prefix"));
        }
        let of_phones = [&self.country_code, &self.trunk_prefix, &self.international_prefix];
        if of_phones.iter().any(|key| key.is_some()) && !is(KindToml::Phone) {
            return Err(wrong(
                "country_code, trunk_prefix and international_prefix are for an index of the kind phone",
            ));
        }
        let kind = match self.kind {
            KindToml::Exact => IndexKind::Exact,
            KindToml::CaseFolded => IndexKind::CaseFolded,
            KindToml::Digits => IndexKind::Digits,
            KindToml::Date => IndexKind::Date,
            KindToml::DatePart => IndexKind::DatePart(self.part()?),
            KindToml::Phone => IndexKind::Phone(PhoneRule {
                country_code: self.country_code.clone(),
                trunk_prefix: self.trunk_prefix.clone(),
                international_prefix: self.international_prefix.clone(),
            }),
            KindToml::Prefix => IndexKind::Prefix(match &self.length {
                Some(LengthToml::One(length)) => vec![*length],
                Some(LengthToml::More(lengths)) => lengths.clone(),
                None => return Err(wrong("an index of prefixes needs length = 3, or a list of lengths")),
            }),
        };
        let partition = self.partition.as_deref().unwrap_or(partition).to_owned();
        let (column, unique, few_values) = (self.column.clone(), self.unique, self.few_values);
        let on_unindexable = match self.on_unindexable {
            OnUnindexableToml::Refuse => OnUnindexable::Refuse,
            OnUnindexableToml::Skip => OnUnindexable::Skip,
        };
        Ok(IndexPolicy {
            partition,
            column,
            unique,
            few_values,
            on_unindexable,
            ..IndexPolicy::new(name, kind, self.bits)
        })
    }

    fn part(&self) -> Result<DatePart> {
        let known = DatePart::ALL.into_iter().find(|part| self.part.as_deref() == Some(part.name()));
        known.ok_or_else(|| {
            wrong("an index of the kind date-part needs part = \"year\", \"year-month\" or \"month-day\"")
        })
    }
}

/// What says the format of a format-preserving field.
#[derive(Default)]
pub(super) struct FormatToml<'a> {
    pub(super) format: Option<&'a str>,
    pub(super) from: Option<&'a str>,
    pub(super) until: Option<&'a str>,
    pub(super) unit: Option<&'a str>,
}

impl FormatToml<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.format.is_none() && self.has_no_window()
    }

    fn has_no_window(&self) -> bool {
        self.from.is_none() && self.until.is_none() && self.unit.is_none()
    }

    pub(super) fn to_format(&self) -> Result<Format> {
        let format = match self.format {
            Some("digits") => Format::Digits,
            Some("alphanumeric") => Format::Alphanumeric,
            Some("luhn") => Format::Luhn,
            Some("timestamp") => return self.to_window(),
            Some("date") => {
                return Err(wrong(
                    "there are too few dates for format-preserving encryption: use a randomised field with an index, or mode = \"token\"",
                ));
            }
            _ => return Err(wrong("format is \"digits\", \"alphanumeric\", \"luhn\" or \"timestamp\"")),
        };
        if self.has_no_window() {
            Ok(format)
        } else {
            Err(wrong("from, until and unit are for format = \"timestamp\""))
        }
    }

    fn to_window(&self) -> Result<Format> {
        let time = |text: Option<&str>| match Value::from_text(ValueType::Timestamp, text.unwrap_or_default()) {
            Ok(Value::Timestamp { seconds, nanoseconds: 0 }) => Ok(seconds),
            _ => Err(wrong(
                "from and until are times such as \"2024-01-01T00:00:00Z\": the first, and the first that is too late",
            )),
        };
        let unit = match self.unit {
            Some("second") => TimeUnit::Second,
            Some("minute") => TimeUnit::Minute,
            _ => return Err(wrong("unit is \"second\" or \"minute\"")),
        };
        Ok(Format::Timestamp { from: time(self.from)?, until: time(self.until)?, unit })
    }
}

/// The form of random tokens.
pub(super) fn token_form(alphabet: Option<&str>, length: Option<u8>) -> Result<TokenForm> {
    let usual = TokenForm::default();
    let alphabet = match alphabet {
        None => usual.alphabet,
        Some(name) => TokenAlphabet::ALL
            .into_iter()
            .find(|known| known.name() == name)
            .ok_or_else(|| wrong("alphabet is \"digits\", \"hex\" or \"alphanumeric\""))?,
    };
    // 128 bits at least, where nothing else is said.
    let length = length.unwrap_or(match alphabet {
        TokenAlphabet::Digits => 39,
        TokenAlphabet::Hex => 32,
        TokenAlphabet::Alphanumeric => usual.length,
    });
    Ok(TokenForm { alphabet, length })
}
