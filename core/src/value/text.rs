//! Values as CSV cells and JSON scalars spell them. Only one spelling of each value is accepted, so that what is
//! revealed is what was protected.

use super::{Value, ValueType};
use crate::error::{Error, ErrorKind, Result};

impl<'a> Value<'a> {
    /// The value of type `value_type` that `text` spells.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): not a value of that type, or not spelled as
    ///   [`to_text`](Self::to_text) would spell it (`007`, `2.50e1`, a time with a zone other than `Z`).
    pub fn from_text(value_type: ValueType, text: &'a str) -> Result<Self> {
        let value = match value_type {
            ValueType::Bytes => Some(Self::Bytes(text.as_bytes())),
            ValueType::Text => Some(Self::Text(text)),
            ValueType::Json => Some(Self::Json(text)),
            ValueType::Decimal => Some(Self::Decimal(text)),
            ValueType::Integer => text.parse().ok().map(Self::Integer),
            ValueType::Float => text.parse().ok().map(Self::Float),
            ValueType::Boolean => text.parse().ok().map(Self::Boolean),
            ValueType::Date => parse_date(text).map(Self::Date),
            ValueType::Timestamp => parse_timestamp(text),
            ValueType::Null => text.is_empty().then_some(Self::Null),
        };
        let value =
            value.filter(|value| value.check().is_ok() && value.to_text().is_some_and(|spelled| spelled == text));
        value.ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "not the canonical spelling of the field's type")
                .with_detail(value_type.name())
        })
    }

    /// The one spelling of this value as text; `None` for bytes that are not UTF-8 and dates beyond the year 9999.
    // F-4.2-6.
    #[must_use]
    pub fn to_text(&self) -> Option<std::borrow::Cow<'a, str>> {
        Some(match *self {
            Self::Null => "".into(),
            Self::Bytes(bytes) => core::str::from_utf8(bytes).ok()?.into(),
            Self::Text(text) | Self::Decimal(text) | Self::Json(text) => text.into(),
            Self::Integer(number) => number.to_string().into(),
            Self::Float(number) => number.to_string().into(),
            Self::Boolean(truth) => (if truth { "true" } else { "false" }).into(),
            Self::Date(days) => date_text(i64::from(days))?.into(),
            Self::Timestamp { seconds, nanoseconds } => {
                let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
                let mut text = date_text(days)?;
                text.push_str(&format!("T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60));
                if nanoseconds > 0 {
                    text.push_str(format!(".{nanoseconds:09}").trim_end_matches('0'));
                }
                text.push('Z');
                text.into()
            }
        })
    }
}

/// `YYYY-MM-DD`
fn parse_date(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let (year, month, day) = (number(&bytes[..4])?, number(&bytes[5..7])?, number(&bytes[8..])?);
    let days = days_from_civil(year, month, day)?;
    i32::try_from(days).ok()
}

/// `YYYY-MM-DDThh:mm:ssZ`, with a fraction of 1 to 9 digits if there is one.
fn parse_timestamp(text: &str) -> Option<Value<'static>> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let bytes = clock.as_bytes();
    if bytes.len() != 8 || bytes[2] != b':' || bytes[5] != b':' || !(1..=9).contains(&fraction.len()) {
        return None;
    }
    let (hour, minute, second) = (number(&bytes[..2])?, number(&bytes[3..5])?, number(&bytes[6..])?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let scale = 10_i64.pow(u32::try_from(9 - fraction.len()).ok()?);
    let nanoseconds = u32::try_from(number(fraction.as_bytes())? * scale).ok()?;
    let seconds = i64::from(parse_date(date)?) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(Value::Timestamp { seconds, nanoseconds })
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().all(u8::is_ascii_digit).then(|| digits.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0')))
}

/// Days from 1970-01-01 (the algorithm of Howard Hinnant's "chrono-Compatible Low-Level Date Algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    (civil_from_days(days) == (year, month, day)).then_some(days)
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn date_text(days: i64) -> Option<String> {
    // Beyond any four-digit year; also keeps the arithmetic far from overflow.
    if days.abs() > 4_000_000 {
        return None;
    }
    let (year, month, day) = civil_from_days(days);
    (0..=9999).contains(&year).then(|| format!("{year:04}-{month:02}-{day:02}"))
}
