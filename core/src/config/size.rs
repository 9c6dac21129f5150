//! Sizes in memory as configuration files write them: a number of bytes, or a number and a unit, such as `"64MiB"`.

use crate::error::{Error, ErrorKind, Result};
use serde::Deserialize;

const UNITS: [(&str, usize); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number of bytes or a size such as \"64MiB\"")]
pub(super) enum SizeToml {
    Bytes(usize),
    Text(String),
}

impl SizeToml {
    /// The size in bytes.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): not a whole number and a unit, or more than memory can hold.
    pub(super) fn bytes(&self) -> Result<usize> {
        match self {
            Self::Bytes(bytes) => Ok(*bytes),
            Self::Text(text) => parse(text).ok_or_else(|| {
                Error::new(ErrorKind::Configuration, "a size is a whole number and KiB, MiB or GiB, such as 64MiB")
            }),
        }
    }
}

fn parse(text: &str) -> Option<usize> {
    let (number, unit) = UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))?;
    // `parse` would take a sign as well.
    if !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    number.parse::<usize>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_with_a_unit() {
        for (text, bytes) in
            [("0KiB", Some(0)), ("64MiB", Some(64 << 20)), ("1GiB", Some(1 << 30)), ("007KiB", Some(7 << 10))]
        {
            assert_eq!(parse(text), bytes, "{text}");
        }
        for text in ["", "MiB", "64", "64MB", "64 MiB", "-1MiB", "+1MiB", "1.5GiB", "64mib", "١MiB", "99999999999GiB"]
        {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
