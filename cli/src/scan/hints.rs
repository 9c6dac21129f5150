//! What values look like. A hint may be wrong both ways.

use crate::failure::{Exit, Failure};
use regex_lite::Regex;

/// Longest text that is looked at: its start.
const MAX_LEN: usize = 64 * 1024;

pub(super) struct Hints(Vec<(&'static str, Regex)>);

impl Hints {
    pub(super) fn new() -> Result<Self, Failure> {
        let patterns = [
            ("a social security number", r"\b\d{3}-\d{2}-\d{4}\b"),
            ("an e-mail address", r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}"),
            ("a telephone number", r"\+\d{8,15}\b|\(\d{3}\) ?\d{3}-\d{4}\b|\b(?:1[-. ])?\d{3}[-. ]\d{3}[-. ]\d{4}\b"),
            ("a medical record number", r"(?i)\bMRN[ :#=-]*[A-Z]{0,3}\d{4,}\b"),
        ];
        let compiled = patterns.into_iter().map(|(name, pattern)| Ok((name, Regex::new(pattern)?)));
        let compiled: Result<_, regex_lite::Error> = compiled.collect();
        compiled.map(Self).map_err(|error| Failure::new(Exit::Internal, error.to_string()))
    }

    /// What a text looks like.
    pub(super) fn of(&self, text: &str) -> impl Iterator<Item = &'static str> {
        let mut end = text.len().min(MAX_LEN);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = &text[..end];
        // Most values have neither, and are not searched.
        let may_match = text.bytes().any(|byte| byte.is_ascii_digit() || byte == b'@');
        let matching = self.0.iter().filter(move |(_, pattern)| may_match && pattern.is_match(text));
        matching.map(|(name, _)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_values_look_like() {
        let hints = Hints::new().expect("patterns");
        for (text, expected) in [
            ("999-81-5679", vec!["a social security number"]),
            ("write to jane.doe+x@clinic.example.org", vec!["an e-mail address"]),
            ("+4915112345678", vec!["a telephone number"]),
            ("(555) 123-4567", vec!["a telephone number"]),
            ("1-555-123-4567", vec!["a telephone number"]),
            ("mrn: AB12345", vec!["a medical record number"]),
            ("call 555-123-4567 of 123-45-6789", vec!["a social security number", "a telephone number"]),
            ("2026-11-26T09:00:00Z", vec![]),
            ("1234567", vec![]),
            ("me@home", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(hints.of(text).collect::<Vec<_>>(), expected, "{text}");
        }
        assert_eq!(hints.of(&"é".repeat(MAX_LEN)).count(), 0);
    }
}
