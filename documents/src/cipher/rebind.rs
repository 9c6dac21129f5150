//! Documents that get another identifier.

use super::lines::Line;
use super::replaced::Replaced;
use super::values::{protect, push_sealed_string, push_text, sealed_texts};
use super::{DocumentCipher, DocumentCounts, RowFailed};
use crate::erased::Erased;
use crate::tree::NodeId;
use crate::{DocumentError, Token};
use keyfold::{ColumnBytes, ErrorKind};
use std::collections::HashMap;
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
type Identifier = (NodeId, Option<usize>);

impl DocumentCipher<'_> {
    /// Replaces the identifiers at `row_path` that the map names, and seals what is bound to them for their new row.
    pub(super) fn rebind(
        &self,
        lines: &[Line<'_>],
        row_path: usize,
        map: &dyn RowMap,
        replaced: &mut [Replaced],
        counts: &mut DocumentCounts,
    ) -> Result<(), DocumentError> {
        let identifiers: Vec<Option<Identifier>> =
            lines.iter().map(|line| identifier(line, row_path)).collect::<Result<_, _>>()?;
        let protected = |line: usize| identifiers[line].as_ref().and_then(|(_, found)| *found);
        // Those that are protected are opened, to be looked up; most are then left as they were.
        let all = self.places(lines);
        for field in (0..self.fields.len()).filter(|&field| self.fields[field].may_be_row()) {
            let mut places = all[field].clone();
            places.retain(|&(line, found)| protected(line) == Some(found));
            if !places.is_empty() {
                self.transform_field(lines, field, &places, replaced, counts)?;
            }
        }
        let mut moved: HashMap<usize, Moved<'_>> = HashMap::new();
        for (at, line) in lines.iter().enumerate() {
            let opened = std::mem::replace(&mut replaced[at], line.replaced());
            let from = match self.row_binding(line, row_path, &opened) {
                Err(error) if self.has_bound(line, row_path) => return Err(line.failed(error)),
                // Nothing is bound to what is no identifier, or not there.
                Err(_) => continue,
                Ok(from) => from,
            };
            let Some(to) = map.find(from.as_bytes()) else { continue };
            if let Some((node, found)) = identifiers[at] {
                let push = |out: &mut Erased| self.push_identifier(line, node, found, &opened, to, out);
                match found {
                    Some(found) => replaced[at].try_set(found, push),
                    None => replaced[at].add(|out| push(out).map(|()| line.document.tree.span(node))),
                }
                .map_err(|error| line.failed(error))?;
            }
            moved.insert(at, Moved { from, to });
        }
        counts.rebound += moved.len() as u64;
        for field in (0..self.fields.len()).filter(|&field| self.row_of_field[field] == Some(row_path)) {
            let mut places = all[field].clone();
            places.retain(|(line, _)| moved.contains_key(line));
            counts.values += places.len() as u64;
            self.rebind_field(lines, field, &places, &moved, replaced)?;
        }
        Ok(())
    }

    /// Whether the document has values that are bound to what is at `row_path`.
    fn has_bound(&self, line: &Line<'_>, row_path: usize) -> bool {
        (0..line.found.values.len()).any(|found| self.row_of_field[line.field_of(found)] == Some(row_path))
    }

    /// Appends what takes the place of an identifier: spelled as that one was, and sealed if that one was.
    fn push_identifier(
        &self,
        line: &Line<'_>,
        node: NodeId,
        protected: Option<usize>,
        opened: &Replaced,
        to: &str,
        out: &mut Erased,
    ) -> Result<(), DocumentError> {
        let wrong = || DocumentError::new(ErrorKind::InvalidInput, "the identifier is no JSON value");
        let Some(found) = protected else {
            return push_like(&line.document.token_of(node), to, out);
        };
        let parse = |text| std::str::from_utf8(text).ok().and_then(Token::parse).ok_or_else(wrong);
        let old = parse(opened.get(found).ok_or_else(wrong)?)?;
        let mut new = Erased::default();
        push_like(&old, to, &mut new)?;
        let tokens = [parse(&new)?];
        protect(&self.fields[line.field_of(found)], &tokens, None).map_err(|failed| failed.error)?.push(0, out);
        Ok(())
    }

    /// Seals the values of one field for their new rows.
    fn rebind_field(
        &self,
        lines: &[Line<'_>],
        field: usize,
        places: &[(usize, usize)],
        moved: &HashMap<usize, Moved<'_>>,
        replaced: &mut [Replaced],
    ) -> Result<(), DocumentError> {
        let job = &self.fields[field];
        let at = |failed: RowFailed| failed.of(job, lines, places);
        let tokens: Vec<Token<'_>> = places.iter().map(|&(line, found)| lines[line].token(found)).collect();
        let texts = sealed_texts(&tokens).map_err(at)?;
        let from: Vec<&[u8]> = places.iter().map(|(line, _)| moved[line].from.as_bytes()).collect();
        let to: Vec<&[u8]> = places.iter().map(|(line, _)| moved[line].to.as_bytes()).collect();
        let rebound = job.rebind(&texts, &from, &to).map_err(RowFailed::from).map_err(at)?;
        for (row, &(line, found)) in places.iter().enumerate() {
            replaced[line].set(found, |out| push_sealed_string("", rebound.bytes(row), out));
        }
        Ok(())
    }
}

/// Where the identifier of a document is; `None` if it is not there once, or no field that is bound to it applies.
fn identifier(line: &Line<'_>, row_path: usize) -> Result<Option<Identifier>, DocumentError> {
    let [node] = line.row(row_path)?[..] else { return Ok(None) };
    Ok(Some((node, line.found.position(node))))
}

/// Appends the new identifier, spelled as the old one was: as a string or as a number.
fn push_like(old: &Token<'_>, to: &str, out: &mut Erased) -> Result<(), DocumentError> {
    match old {
        Token::Number(_) if matches!(Token::parse(to), Some(Token::Number(_))) => {
            out.with_room(to.len()).extend_from_slice(to.as_bytes());
            Ok(())
        }
        Token::Number(_) => {
            let why = "the identifier is a number, and the one that the map puts in its place is not";
            Err(DocumentError::new(ErrorKind::InvalidInput, why))
        }
        _ => {
            push_text(to, out);
            Ok(())
        }
    }
}
