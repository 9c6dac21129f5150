//! Whether a value is sealed as its field says.

use crate::census::Seen;
use keyfold::wire::{BODY_TEXT_PREFIX, Suite, body_from_text, from_text, looks_sealed_text};
use keyfold::{FieldMode, FieldPolicy, Value};

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
        FieldMode::FormatPreserving { .. } => Some(Verdict::Untold),
        FieldMode::Token { .. } if text.is_empty() => Some(Verdict::Empty),
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

/// Whether a text of any column is sealed as a whole.
pub(super) fn is_sealed(text: &str) -> bool {
    let mut sealed = Vec::new();
    let is_value = looks_sealed_text(text.as_bytes()) && from_text(text.as_bytes(), &mut sealed).is_ok();
    is_value || body_from_text(text.as_bytes(), &mut sealed).is_ok()
}
