//! Whether a value is sealed as its field says.

use crate::census::Seen;
use keyfold::wire::{BODY_TEXT_PREFIX, body_from_text, from_text, looks_sealed_text};
use keyfold::{FieldMode, FieldPolicy};

/// What a value is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// There is nothing.
    Empty,
    Sealed,
    /// It keeps its format, so that nobody can tell.
    Untold,
    /// What is wrong.
    Wrong(&'static str),
}

const CLEAR: Verdict = Verdict::Wrong("in clear");

/// A whole text: what stands before or behind a sealed value is in clear, unless the policy keeps that prefix.
pub(super) fn text(field: &FieldPolicy, text: &str) -> Verdict {
    let (_, rest) = field.split_prefix(text);
    match field.mode {
        FieldMode::Document if !text.is_empty() => {
            return match text.starts_with(BODY_TEXT_PREFIX) {
                true if body_from_text(text.as_bytes(), &mut Vec::new()).is_ok() => Verdict::Sealed,
                true => Verdict::Wrong("damaged, or in clear"),
                false => CLEAR,
            };
        }
        FieldMode::FormatPreserving { .. } => return Verdict::Untold,
        _ => {}
    }
    if rest.is_empty() {
        return if text.is_empty() { Verdict::Empty } else { CLEAR };
    }
    if !looks_sealed_text(rest.as_bytes()) {
        return CLEAR;
    }
    let mut sealed = Vec::with_capacity(rest.len());
    match from_text(rest.as_bytes(), &mut sealed) {
        Ok(()) => bytes(field, &sealed),
        Err(_) => Verdict::Wrong("damaged, or in clear"),
    }
}

/// A value in binary form, or a text that a driver hands out as bytes.
pub(super) fn bytes(field: &FieldPolicy, bytes: &[u8]) -> Verdict {
    if matches!(field.mode, FieldMode::FormatPreserving { .. }) {
        return Verdict::Untold;
    }
    match Seen::bytes(bytes) {
        Seen::Null | Seen::Empty => Verdict::Empty,
        Seen::Sealed(suite, _) if field.accepted_suites.contains(&suite) => Verdict::Sealed,
        Seen::Sealed(..) => Verdict::Wrong("sealed under a suite that the policy refuses"),
        Seen::Clear => CLEAR,
        Seen::Malformed => Verdict::Wrong("damaged, or in clear"),
    }
}

/// Whether a text of any column is sealed as a whole.
pub(super) fn is_sealed(text: &str) -> bool {
    let mut sealed = Vec::new();
    let is_value = looks_sealed_text(text.as_bytes()) && from_text(text.as_bytes(), &mut sealed).is_ok();
    is_value || body_from_text(text.as_bytes(), &mut sealed).is_ok()
}
