//! `[shred]`: from the file to a [`ShredPolicy`].

use super::duration::parse;
use super::position::{Origin, Spanned};
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::ShredPolicy;
use serde::Deserialize;
use std::time::Duration;

const DAY: u64 = 24 * 3600;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShredToml {
    waiting: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) backups: Vec<String>,
    #[serde(default)]
    pub(super) archives: Vec<String>,
}

impl ShredToml {
    pub(super) fn to_policy(&self, origin: &Origin<'_>) -> Result<ShredPolicy> {
        let Some(text) = &self.waiting else { return Ok(ShredPolicy::default()) };
        let waiting = origin.at(text, |text| waiting(text))?;
        Ok(ShredPolicy { waiting })
    }
}

/// Whoever wants no time to think says so in writing.
fn waiting(text: &str) -> Result<Duration> {
    if text == "none" {
        return Ok(Duration::ZERO);
    }
    let waiting = parse(text)?;
    if (7 * DAY..=30 * DAY).contains(&waiting.as_secs()) {
        return Ok(waiting);
    }
    Err(Error::new(
        ErrorKind::Configuration,
        "keys wait 7d to 30d for their destruction, or \"none\" where no data is real",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_to_a_month_or_none_in_writing() {
        for (text, days) in [("7d", 7), ("168h", 7), ("30d", 30), ("none", 0)] {
            assert_eq!(waiting(text).unwrap(), Duration::from_secs(days * DAY), "{text}");
        }
        for text in ["0s", "6d", "31d", "604799s", "never", ""] {
            assert_eq!(waiting(text).unwrap_err().kind(), ErrorKind::Configuration, "{text}");
        }
    }
}
