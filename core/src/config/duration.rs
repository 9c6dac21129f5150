//! Durations as configuration files write them: a number and a unit, such as `"90d"`.

use crate::error::{Error, ErrorKind, Result};
use core::time::Duration;

/// The word that switches an age off.
const NEVER: &str = "never";

/// The duration `text`: a whole number followed by `s`, `m`, `h` or `d`, such as `90d` or `0s`. A day has 24 hours.
///
/// # Errors
///
/// - [`Configuration`](ErrorKind::Configuration): anything else, or more seconds than 64 bits hold.
pub fn parse(text: &str) -> Result<Duration> {
    let wrong =
        || Error::new(ErrorKind::Configuration, "a duration is a whole number and a unit, such as 90d, 12h, 10m, 30s");
    let (number, seconds) = match text.char_indices().next_back() {
        Some((end, 's')) => (&text[..end], 1),
        Some((end, 'm')) => (&text[..end], 60),
        Some((end, 'h')) => (&text[..end], 60 * 60),
        Some((end, 'd')) => (&text[..end], 24 * 60 * 60),
        _ => return Err(wrong()),
    };
    // `parse` would take a sign as well.
    if number.is_empty() || !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// As [`parse`], or `never` for none.
///
/// # Errors
///
/// As for [`parse`].
pub(super) fn parse_or_never(text: &str) -> Result<Option<Duration>> {
    if text == NEVER { Ok(None) } else { parse(text).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_with_a_unit() {
        for (text, seconds) in [
            ("0s", 0),
            ("30s", 30),
            ("10m", 600),
            ("12h", 43_200),
            ("90d", 7_776_000),
            ("007d", 604_800),
            ("18446744073709551615s", u64::MAX),
        ] {
            assert_eq!(parse(text).unwrap(), Duration::from_secs(seconds), "{text}");
            assert_eq!(parse_or_never(text).unwrap(), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse_or_never("never").unwrap(), None);
    }

    // Failure B8
    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            "s",
            "90",
            "d90",
            "-1d",
            "+1d",
            "1.5h",
            " 1d",
            "1d ",
            "1 d",
            "1D",
            "1w",
            "1ms",
            "1d12h",
            "never",
            "١d",
            "1µ",
            "18446744073709551616s",
            "307445734561825861m",
        ] {
            assert_eq!(parse(text).unwrap_err().kind(), ErrorKind::Configuration, "{text:?}");
        }
        assert!(parse_or_never("Never").is_err());
    }
}
