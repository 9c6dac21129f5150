//! Documents that get another identifier.

use super::values::{protect, sealed_string, sealed_texts};
use super::{DocumentCipher, DocumentCounts, Line, Replacement, RowFailed};
use crate::{DocumentError, Token, push_string};
use keyfold::{ColumnBytes, ErrorKind};
use std::collections::HashMap;
use std::ops::Range;
use zeroize::Zeroizing;

/// Which rows take the place of which.
pub trait RowMap: Sync {
    /// What replaces the identifier `from`, if anything does.
    fn find(&self, from: &[u8]) -> Option<&str>;
}

/// A document whose identifier the map replaces.
struct Moved<'m> {
    from: Zeroizing<String>,
    to: &'m str,
}

/// The identifier of a document: where it is, and which of the protected values it is, if it is one.
type Identifier = (Range<usize>, Option<usize>);

impl DocumentCipher<'_> {
    /// Replaces the identifiers at `row_path` that the map names, and seals what is bound to them for their new row.
    pub(super) fn rebind(
        &self,
        lines: &[Line<'_>],
        row_path: usize,
        map: &dyn RowMap,
        replacements: &mut [Vec<Option<Replacement>>],
        counts: &mut DocumentCounts,
    ) -> Result<(), DocumentError> {
        let identifiers: Vec<Option<Identifier>> =
            lines.iter().map(|line| identifier(line, row_path)).collect::<Result<_, _>>()?;
        let protected = |line: usize| identifiers[line].as_ref().and_then(|(_, found)| *found);
        // Those that are protected are opened, to be looked up; most are then left as they were.
        let all = self.places(lines);
        for field in (0..self.fields.len()).filter(|&field| self.fields[field].is_deterministic()) {
            let mut places = all[field].clone();
            places.retain(|&(line, found)| protected(line) == Some(found));
            if !places.is_empty() {
                self.transform_field(lines, field, &places, replacements, counts)?;
            }
        }
        let mut moved: HashMap<usize, Moved<'_>> = HashMap::new();
        for (at, line) in lines.iter().enumerate() {
            let opened: Vec<_> = replacements[at].iter_mut().map(Option::take).collect();
            let from = match self.row_binding(line, row_path, &opened) {
                Err(error) if self.has_bound(line, row_path) => return Err(line.failed(error)),
                // Nothing is bound to what is no identifier, or not there.
                Err(_) => continue,
                Ok(from) => from,
            };
            let Some(to) = map.find(from.as_bytes()) else { continue };
            if let Some((span, found)) = &identifiers[at] {
                let new = self.new_identifier(line, span, *found, &opened, to).map_err(|error| line.failed(error))?;
                let replacement = Some((span.clone(), new));
                match *found {
                    Some(found) => replacements[at][found] = replacement,
                    None => replacements[at].push(replacement),
                }
            }
            moved.insert(at, Moved { from, to });
        }
        counts.rebound += moved.len() as u64;
        for field in (0..self.fields.len()).filter(|&field| self.row_of_field[field] == Some(row_path)) {
            let mut places = all[field].clone();
            places.retain(|(line, _)| moved.contains_key(line));
            counts.values += places.len() as u64;
            self.rebind_field(lines, field, &places, &moved, replacements)?;
        }
        // An identifier in clear is none of the protected values: it takes its place in the order of the line.
        for &line in moved.keys() {
            replacements[line].sort_by_key(|replacement| replacement.as_ref().map(|(span, _)| span.start));
        }
        Ok(())
    }

    /// Whether the document has values that are bound to what is at `row_path`.
    fn has_bound(&self, line: &Line<'_>, row_path: usize) -> bool {
        line.found.iter().any(|found| self.row_of_field[line.rules.field_of_path[found.rule]] == Some(row_path))
    }

    /// What takes the place of an identifier: spelled as that one was, and sealed if that one was.
    fn new_identifier(
        &self,
        line: &Line<'_>,
        span: &Range<usize>,
        protected: Option<usize>,
        opened: &[Option<Replacement>],
        to: &str,
    ) -> Result<Zeroizing<Vec<u8>>, DocumentError> {
        let wrong = || DocumentError::new(ErrorKind::InvalidInput, "the identifier is no JSON value");
        let Some(found) = protected else {
            return identifier_like(&line.document.token(span.clone())?, to);
        };
        let parse = |text| std::str::from_utf8(text).ok().and_then(Token::parse).ok_or_else(wrong);
        let old = opened[found].as_ref().map(|(_, text)| &text[..]).ok_or_else(wrong)?;
        let new = identifier_like(&parse(old)?, to)?;
        let job = &self.fields[line.rules.field_of_path[line.found[found].rule]];
        let sealed = protect(job, &[parse(&new)?], None).map_err(|failed| failed.error)?;
        sealed.into_iter().next().ok_or_else(wrong)
    }

    /// Seals the values of one field for their new rows.
    fn rebind_field(
        &self,
        lines: &[Line<'_>],
        field: usize,
        places: &[(usize, usize)],
        moved: &HashMap<usize, Moved<'_>>,
        replacements: &mut [Vec<Option<Replacement>>],
    ) -> Result<(), DocumentError> {
        let job = &self.fields[field];
        let at = |failed: RowFailed| {
            let error = failed.error.of_field(&job.policy().name);
            match places.get(failed.row) {
                Some(&(line, _)) => lines[line].failed(error),
                None => error,
            }
        };
        let tokens: Vec<Token<'_>> = places
            .iter()
            .map(|&(line, found)| lines[line].document.token(lines[line].found[found].span.clone()))
            .collect::<Result<_, _>>()?;
        let texts = sealed_texts(&tokens).map_err(at)?;
        let from: Vec<&[u8]> = places.iter().map(|(line, _)| moved[line].from.as_bytes()).collect();
        let to: Vec<&[u8]> = places.iter().map(|(line, _)| moved[line].to.as_bytes()).collect();
        let rebound = job.rebind(&texts, &from, &to).map_err(RowFailed::from).map_err(at)?;
        for (row, &(line, found)) in places.iter().enumerate() {
            let text = sealed_string("", rebound.bytes(row));
            replacements[line][found] = Some((lines[line].found[found].span.clone(), text));
        }
        Ok(())
    }
}

/// Where the identifier of a document is; `None` if it is not there once, or no field that is bound to it applies.
fn identifier(line: &Line<'_>, row_path: usize) -> Result<Option<Identifier>, DocumentError> {
    let Some((_, rules)) = line.rules.rows.iter().find(|(known, _)| *known == row_path) else { return Ok(None) };
    let places = rules.locate(&line.document)?;
    let [place] = &places[..] else { return Ok(None) };
    let found = line.found.iter().position(|located| located.span == place.span);
    Ok(Some((place.span.clone(), found)))
}

/// The new identifier, spelled as the old one was: as a string or as a number.
fn identifier_like(old: &Token<'_>, to: &str) -> Result<Zeroizing<Vec<u8>>, DocumentError> {
    match old {
        Token::Number(_) if matches!(Token::parse(to), Some(Token::Number(_))) => {
            Ok(Zeroizing::new(to.as_bytes().to_vec()))
        }
        Token::Number(_) => {
            let why = "the identifier is a number, and the one that the map puts in its place is not";
            Err(DocumentError::new(ErrorKind::InvalidInput, why))
        }
        _ => {
            let mut text = Vec::new();
            push_string(to, &mut text);
            Ok(Zeroizing::new(text))
        }
    }
}
