//! Whether what was written can be read again.

use super::lines::Line;
use super::values::scalar_text;
use super::{DocumentCipher, DocumentCounts, MAX_TEXT_LEN, refused};
use crate::field::Direction;
use crate::{DocumentError, MAX_VALUES, has_too_many_values};
use keyfold::ErrorKind;
use keyfold::wire::{BODY_TEXT_PREFIX, TEXT_PREFIX};

use zeroize::Zeroizing;

impl DocumentCipher<'_> {
    /// After protecting: the same paths must select the same values, or they could not be revealed. After revealing:
    /// counts what still looks sealed.
    pub(super) fn check_output(
        &self,
        lines: &[Line<'_>],
        out: &[u8],
        number: u64,
        counts: &mut DocumentCounts,
    ) -> Result<(), DocumentError> {
        let max_len = Direction::Reveal.limit(MAX_TEXT_LEN);
        match self.direction {
            Direction::Protect { .. } | Direction::Rebind | Direction::Reencrypt if out.len() > max_len => {
                let why = "the protected document would be too long, and could not be revealed";
                return Err(DocumentError::new(ErrorKind::LimitExceeded, why).with_detail(format!("{max_len} bytes")));
            }
            Direction::Protect { .. } if has_too_many_values(out) => {
                let why = "the protected document would have too many values, headers and tokens among them, and could not be revealed";
                return Err(
                    DocumentError::new(ErrorKind::LimitExceeded, why).with_detail(format!("{MAX_VALUES} values"))
                );
            }
            Direction::Protect { .. } if lines.iter().all(is_settled) => {}
            Direction::Protect { .. } => {
                let same = self
                    .looks_the_same(lines, out, number, |line, again| Ok(bindings_of(again)? == bindings_of(line)?))?;
                if !same {
                    let why = "a filter, an only_if or a row binding of the policy looks at a value that the policy protects, so the document could not be revealed";
                    return Err(refused(why));
                }
            }
            Direction::Rebind | Direction::Reencrypt => {
                if !self.looks_the_same(lines, out, number, |_, _| Ok(true))? {
                    let why = "a filter or an only_if of the policy looks at a value that was replaced, so the document could not be revealed";
                    return Err(refused(why));
                }
            }
            Direction::Reveal => {
                let text = std::str::from_utf8(out).unwrap_or_default();
                counts.still_sealed += count_sealed(text);
            }
        }
        Ok(())
    }

    /// Whether a line that was written has the same documents, in which the paths select the same values.
    fn looks_the_same(
        &self,
        lines: &[Line<'_>],
        out: &[u8],
        number: u64,
        also: impl Fn(&Line<'_>, &Line<'_>) -> Result<bool, DocumentError>,
    ) -> Result<bool, DocumentError> {
        let again = self.lines_of(out, 0, number, true, None)?;
        if again.len() != lines.len() {
            return Ok(false);
        }
        for (line, again) in lines.iter().zip(&again) {
            if !selects_the_same(line, again) || !also(line, again)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Levels that a header or a list of tokens may need below the root of a document.
const HEADER_DEPTH: usize = 4;

/// Whether what was protected need not be read again to know that it can be revealed.
fn is_settled(line: &Line<'_>) -> bool {
    line.rules.settled && !line.document.tree.is_deep(HEADER_DEPTH)
}

/// Whether the paths select the same values as before.
fn selects_the_same(line: &Line<'_>, again: &Line<'_>) -> bool {
    again.rules.of == line.rules.of && again.kind == line.kind && again.found.places().eq(line.found.places())
}

/// A row binding: which of the protected values it is, or else what it says in clear.
type Binding = (Option<usize>, Option<Zeroizing<String>>);

/// The row bindings of a document.
fn bindings_of(line: &Line<'_>) -> Result<Vec<Binding>, DocumentError> {
    let mut bindings = Vec::new();
    for (row_path, _) in &line.rules.rows {
        for node in line.row(*row_path)? {
            let protected = line.found.position(node);
            let clear = if protected.is_none() { scalar_text(Some(line.document.token_of(node))) } else { None };
            bindings.push((protected, clear.map(|text| Zeroizing::new(text.into_owned()))));
        }
    }
    Ok(bindings)
}

/// How many values in `text` look sealed. A hint for people, not a decision.
pub fn count_sealed(text: &str) -> u64 {
    // Both prefixes begin with it, and it is seldom: all else is passed over quickly.
    const FIRST: char = 'k';
    let is_value = |rest: &str| {
        let digits = rest.strip_prefix(TEXT_PREFIX).and_then(|rest| rest.as_bytes().first_chunk::<11>());
        digits.is_some_and(|[suite @ .., dot]| *dot == b'.' && suite.iter().all(u8::is_ascii_hexdigit))
    };
    let looks = |at: usize| text[at..].starts_with(BODY_TEXT_PREFIX) || is_value(&text[at..]);
    text.match_indices(FIRST).filter(|(at, _)| looks(*at)).count() as u64
}
