//! Formats that stay as they are while the value changes (FORMAT.md §17.4).

use super::ff1::Ff1;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::Secret;
use crate::value::{Value, ValueType};
use zeroize::{Zeroize, Zeroizing};

/// The form that a value has and keeps. What is not said to vary stays where it is, in clear, and is a space or ASCII punctuation.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// The digits 0 to 9 vary; 6 of them at least.
    Digits,
    /// Digits and capital letters A to Z vary, each into either; 4 of them at least. Small letters are refused.
    Alphanumeric,
    /// As [`Digits`](Self::Digits), but the last digit is the check digit of Luhn (ISO/IEC 7812-1), before and after; 7 digits at least.
    Luhn,
    /// A point in time varies within a window, in UTC.
    Timestamp {
        /// The first one, in seconds since 1970.
        from: i64,
        /// The first one that is too late; the window has at least 10⁶ units.
        until: i64,
        /// What all times are a whole number of, counted from `from`.
        unit: TimeUnit,
    },
}

/// The distance between two timestamps that follow each other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TimeUnit {
    /// One second.
    Second,
    /// 60 seconds.
    Minute,
}

impl TimeUnit {
    /// In seconds.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
        }
    }
}

/// Which way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    Encrypt,
    Decrypt,
}

/// Fewest values that may stand in the place of one another (NIST SP 800-38G Rev. 1).
const MIN_DOMAIN: i64 = 1_000_000;
/// Most numerals, since the time that FF1 takes grows with their square.
const MAX_NUMERALS: usize = 256;
/// Starts the tweak.
const LABEL: &[u8] = b"keyfold/fpe/v1";
const ALPHABET: &[u8; 36] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";

fn wrong(why: &'static str) -> Error {
    Error::new(ErrorKind::InvalidInput, why)
}

impl Format {
    /// The name in configurations.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Digits => "digits",
            Self::Alphanumeric => "alphanumeric",
            Self::Luhn => "luhn",
            Self::Timestamp { .. } => "timestamp",
        }
    }

    /// The type of its values.
    #[must_use]
    pub const fn value_type(&self) -> ValueType {
        match self {
            Self::Timestamp { .. } => ValueType::Timestamp,
            _ => ValueType::Text,
        }
    }

    /// Whether the format may be used at all; `Err` says why not.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let Self::Timestamp { from, until, unit } = *self else { return Ok(()) };
        let written = |seconds| Value::Timestamp { seconds, nanoseconds: 0 }.to_text().is_some();
        if !written(from) || !written(until) {
            return Err("from and until are times in the years 0000 to 9999");
        }
        if (until - from) / unit.seconds() < MIN_DOMAIN {
            return Err(
                "the window has fewer than 1,000,000 values: take seconds, or minutes over two years; dates belong into a randomised field with an index, or a token",
            );
        }
        Ok(())
    }

    const fn id(&self) -> u8 {
        match self {
            Self::Digits => 1,
            Self::Alphanumeric => 2,
            Self::Luhn => 3,
            Self::Timestamp { .. } => 4,
        }
    }

    const fn radix(&self) -> u32 {
        match self {
            Self::Digits | Self::Luhn => 10,
            Self::Alphanumeric => ALPHABET.len() as u32,
            Self::Timestamp { .. } => 2,
        }
    }

    /// label length (1) ‖ label ‖ `bound` ‖ format (1), and of a timestamp from (8) ‖ until (8) ‖ unit (1)
    pub(crate) fn tweak(&self, bound: &[u8]) -> Vec<u8> {
        let mut tweak = [&[LABEL.len() as u8], LABEL, bound, &[self.id()]].concat();
        if let Self::Timestamp { from, until, unit } = self {
            tweak.extend_from_slice(&from.to_be_bytes());
            tweak.extend_from_slice(&until.to_be_bytes());
            tweak.push(unit.seconds() as u8);
        }
        tweak
    }
}

/// A format with its key, for any number of values.
pub(crate) struct FormatKey<'t> {
    format: Format,
    tweak: &'t [u8],
    ff1: Ff1,
}

impl<'t> FormatKey<'t> {
    pub(crate) fn new(format: Format, tweak: &'t [u8], key: &Secret<32>) -> Self {
        Self { format, tweak, ff1: Ff1::new(key, format.radix()) }
    }

    /// The text that stands in the place of `text`, or the text that it stands for.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): not of the format, or fewer than 10⁶ values are.
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): more than 256 characters vary.
    pub(crate) fn apply(&self, way: Way, text: &str) -> Result<Zeroizing<String>> {
        match self.format {
            Format::Digits => self.characters(way, text, 0),
            Format::Alphanumeric => self.characters(way, text, 0),
            Format::Luhn => self.characters(way, text, 1),
            Format::Timestamp { from, until, unit } => self.timestamp(way, text, (from, until, unit)),
        }
    }

    fn numerals(&self, way: Way, numerals: Vec<u16>) -> Result<Vec<u16>> {
        match way {
            Way::Encrypt => self.ff1.encrypt(self.tweak, numerals),
            Way::Decrypt => self.ff1.decrypt(self.tweak, numerals),
        }
    }

    /// `checks`: how many digits at the end are computed from the others.
    // F-17.4-1.
    fn characters(&self, way: Way, text: &str, checks: usize) -> Result<Zeroizing<String>> {
        let alphabet = &ALPHABET[..self.format.radix() as usize];
        let mut places = Vec::new();
        let mut numerals = Vec::new();
        for (at, byte) in text.bytes().enumerate() {
            if let Some(numeral) = alphabet.iter().position(|known| *known == byte) {
                places.push(at);
                numerals.push(numeral as u16);
            } else if !(byte == b' ' || byte.is_ascii_punctuation()) {
                numerals.zeroize();
                return Err(wrong(match self.format {
                    Format::Alphanumeric => {
                        "the text has other characters than digits, capital letters, spaces and ASCII punctuation"
                    }
                    _ => "the text has other characters than digits, spaces and ASCII punctuation",
                }));
            }
        }
        if places.len() > MAX_NUMERALS {
            numerals.zeroize();
            // F-17.4-3.
            return Err(Error::new(ErrorKind::LimitExceeded, "more than 256 characters would vary"));
        }
        let found = numerals.split_off(numerals.len().saturating_sub(checks));
        if checks == 1 && found.first() != Some(&luhn(&numerals)) {
            numerals.zeroize();
            // F-17.4-2.
            return Err(wrong("the last digit is not the check digit of Luhn"));
        }
        let mut replaced = self.numerals(way, numerals)?;
        if checks == 1 {
            replaced.push(luhn(&replaced));
        }
        let mut bytes = Zeroizing::new(text.as_bytes().to_vec());
        for (place, numeral) in places.into_iter().zip(&replaced) {
            bytes[place] = alphabet[usize::from(*numeral)];
        }
        replaced.zeroize();
        // Only ASCII was replaced, and by ASCII.
        Ok(Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()))
    }

    // F-17.4-4.
    fn timestamp(&self, way: Way, text: &str, (from, until, unit): (i64, i64, TimeUnit)) -> Result<Zeroizing<String>> {
        let Value::Timestamp { seconds, nanoseconds } = Value::from_text(ValueType::Timestamp, text)
            .map_err(|_| wrong("the text is no timestamp of the form YYYY-MM-DDThh:mm:ssZ"))?
        else {
            return Err(Error::new(ErrorKind::Internal, "a timestamp is parsed as one"));
        };
        let count = (until - from) / unit.seconds();
        let is_whole = nanoseconds == 0 && (seconds - from).rem_euclid(unit.seconds()) == 0;
        let mut index = (seconds - from).div_euclid(unit.seconds());
        if !is_whole || !(0..count).contains(&index) {
            return Err(wrong("the timestamp is outside the window of the format, or no whole number of its units"));
        }
        let width = 64 - (count - 1).leading_zeros();
        // Cycle walking: a permutation leads back into the window, after two steps on average at most.
        loop {
            let bits = (0..width).rev().map(|bit| u16::from(index >> bit & 1 == 1)).collect();
            let walked = self.numerals(way, bits)?;
            index = walked.iter().fold(0, |number, bit| number << 1 | i64::from(*bit));
            if index < count {
                break;
            }
        }
        let seconds = from + index * unit.seconds();
        let text = Value::Timestamp { seconds, nanoseconds: 0 }.to_text();
        text.map(|text| Zeroizing::new(text.into_owned()))
            .ok_or_else(|| Error::new(ErrorKind::Internal, "a time of the window can be written"))
    }
}

/// The digit that makes the sum of Luhn a multiple of ten behind `digits`.
fn luhn(digits: &[u16]) -> u16 {
    let sum: u16 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| if at % 2 == 0 { digit * 2 / 10 + digit * 2 % 10 } else { *digit })
        .sum();
    (10 - sum % 10) % 10
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn key() -> Secret<32> {
        Secret::with(|key| key.fill(7))
    }

    fn both(format: Format, text: &str) -> Result<String> {
        let tweak = format.tweak(b"x");
        let (key, other) = (key(), format.tweak(b"y"));
        let format_key = FormatKey::new(format, &tweak, &key);
        let encrypted = format_key.apply(Way::Encrypt, text)?;
        assert_eq!(*format_key.apply(Way::Decrypt, &encrypted).unwrap(), text);
        assert_ne!(
            FormatKey::new(format, &other, &key).apply(Way::Encrypt, text).unwrap(),
            encrypted,
            "the tweak counts"
        );
        Ok(encrypted.to_string())
    }

    fn refused(format: Format, text: &str) {
        assert_eq!(both(format, text).unwrap_err().kind(), ErrorKind::InvalidInput, "{text}");
    }

    // Failure C21
    #[test]
    fn the_form_stays() {
        let shape = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "9");
        for text in ["123456", "123-45-6789", "(555) 010-4477", &"9".repeat(256)] {
            let encrypted = both(Format::Digits, text).unwrap();
            assert!(encrypted != text && shape(&encrypted) == shape(text), "{encrypted}");
        }
        assert_eq!(
            both(Format::Digits, "123-45-6789").unwrap().replace('-', ""),
            both(Format::Digits, "123456789").unwrap()
        );
        let encrypted = both(Format::Alphanumeric, "MRN-0001").unwrap();
        assert!(encrypted.as_bytes()[3] == b'-' && encrypted.bytes().all(|b| ALPHABET.contains(&b) || b == b'-'));
        for text in ["4539 1488 0343 6467", "79927398713"] {
            let encrypted = both(Format::Luhn, text).unwrap();
            let digits: Vec<u16> = encrypted.bytes().filter(u8::is_ascii_digit).map(|b| u16::from(b - b'0')).collect();
            assert_eq!(luhn(&digits[..digits.len() - 1]), digits[digits.len() - 1]);
        }
        for text in ["12345", "", "---", "MRN123456", "١٢٣٤٥٦", "123456\n"] {
            refused(Format::Digits, text);
        }
        for text in ["A1B", "abcdef", "MÜLLER"] {
            refused(Format::Alphanumeric, text);
        }
        for text in ["79927398710", "123455", ""] {
            refused(Format::Luhn, text);
        }
        assert_eq!(both(Format::Digits, &"9".repeat(257)).unwrap_err().kind(), ErrorKind::LimitExceeded);
    }

    #[test]
    fn timestamps_stay_in_their_window() {
        let format = |from, until, unit| Format::Timestamp { from, until, unit };
        let seconds = format(1_700_000_000, 1_701_000_000, TimeUnit::Second);
        assert!(seconds.check().is_ok());
        assert!(format(1_700_000_000, 1_700_999_999, TimeUnit::Second).check().is_err());
        assert!(format(1_700_000_000, 1_700_000_000 + 59_999_999, TimeUnit::Minute).check().is_err());
        assert!(format(i64::MIN, i64::MAX, TimeUnit::Second).check().is_err());
        let mut seen = HashSet::new();
        for index in (0..1_000).chain(999_000..1_000_000) {
            let text = Value::Timestamp { seconds: 1_700_000_000 + index, nanoseconds: 0 }.to_text().unwrap();
            let encrypted = both(seconds, &text).unwrap();
            let Value::Timestamp { seconds, .. } = Value::from_text(ValueType::Timestamp, &encrypted).unwrap() else {
                unreachable!()
            };
            assert!((1_700_000_000..1_701_000_000).contains(&seconds));
            assert!(seen.insert(seconds));
        }
        let minutes = format(1_700_000_000, 1_700_000_000 + 60_000_000, TimeUnit::Minute);
        assert!(both(minutes, "2023-11-14T22:14:20Z").is_ok());
        for text in [
            "2023-11-14T22:14:21Z",
            "2023-11-14T22:14:20.5Z",
            "2023-11-14T22:12:20Z",
            "2023-11-14",
            "2030-01-01T00:00:20Z",
        ] {
            refused(minutes, text);
        }
    }

    #[test]
    fn the_check_digit_is_that_of_luhn() {
        assert_eq!(luhn(&[7, 9, 9, 2, 7, 3, 9, 8, 7, 1]), 3);
        assert_eq!(luhn(&[]), 0);
    }
}
