//! The documents of a batch, and what was found in them.

use super::plan::Rules;
use super::replaced::Replaced;
use super::sealed::Kind;
use super::values::scalar_text;
use super::{DocumentCipher, DocumentCounts, DocumentText, MAX_TEXT_LEN, Place, RowFailed, UNMATCHED, refused};
use crate::condition::Latest;
use crate::field::Direction;
use crate::locate::{Match, Selection};
use crate::tree::NodeId;
use crate::{Document, DocumentError, HeaderTexts, Inserted, JsonError, Token};
use keyfold::{ErrorKind, ManifestRule};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A document of a batch, with what was found in it. A line has several where a kind of documents has its root inside.
pub(super) struct Line<'b> {
    /// Of the text, and the number of its line.
    pub(super) index: usize,
    pub(super) number: u64,
    pub(super) document: Document<'b>,
    pub(super) found: Selection,
    pub(super) rules: Arc<Rules>,
    /// The kind of documents, if it is one whose values are sealed together.
    pub(super) kind: Option<usize>,
    /// What the header of a protected document says.
    pub(super) header: Option<HeaderTexts>,
    /// What protecting had put in.
    pub(super) inserted: Vec<Inserted>,
}

impl Line<'_> {
    /// An error in this document.
    pub(super) fn failed(&self, error: impl Into<DocumentError>) -> DocumentError {
        error.into().in_text(self.index, self.number).in_part(self.document.offset())
    }

    /// The field of a value that was found.
    pub(super) fn field_of(&self, found: usize) -> usize {
        self.rules.field_of_path[self.found.values[found].rule]
    }

    pub(super) fn token(&self, found: usize) -> Token<'_> {
        self.document.token_of(self.found.values[found].node)
    }

    /// The values at the path of a row binding.
    pub(super) fn row(&self, row_path: usize) -> Result<Vec<NodeId>, JsonError> {
        let Some((_, rules)) = self.rules.rows.iter().find(|(known, _)| *known == row_path) else {
            return Ok(Vec::new());
        };
        match rules.only(&self.document.tree) {
            Some(node) => Ok(vec![node]),
            None => Ok(rules.select(&self.document)?.values.iter().map(|found| found.node).collect()),
        }
    }

    /// What is to be replaced in it; nothing is yet.
    pub(super) fn replaced(&self) -> Replaced {
        let span = |found: &Match| self.document.tree.span(found.node).len();
        // A sealed value is a third longer in its text, and has a header, a nonce and a tag.
        let len = self.found.values.iter().map(|found| span(found) * 3 / 2 + SEALED_ROOM).sum::<usize>();
        Replaced::new(self.found.values.len(), len + HEADER_ROOM)
    }
}

/// About as many bytes as a sealed value has beside its own.
const SEALED_ROOM: usize = 72;
/// About as many bytes as a header takes.
pub(super) const HEADER_ROOM: usize = 320;

impl DocumentCipher<'_> {
    /// The documents of all texts, and what the paths select in them.
    pub(super) fn lines<'b>(
        &self,
        texts: &[DocumentText<'b>],
        counts: &mut DocumentCounts,
    ) -> Result<Vec<Line<'b>>, DocumentError> {
        let mut lines = Vec::with_capacity(texts.len());
        let mut applied: Option<Arc<Rules>> = None;
        let max_len = self.direction.limit(MAX_TEXT_LEN);
        for (index, text) in texts.iter().enumerate() {
            if text.content.len() > max_len {
                let too_long = DocumentError::from(JsonError::LineTooLong { line: text.line, max_len });
                return Err(too_long.in_text(index, text.line));
            }
            let has_header = !matches!(self.direction, Direction::Protect { .. });
            let of_line = self.lines_of(text.content, index, text.line, has_header, applied.as_ref());
            let of_line = of_line.map_err(|error| error.in_text(index, text.line))?;
            // F-18.6-7.
            // Of a line with documents inside these count, each by itself, and not what they are in.
            let documents = if of_line.len() > 1 { &of_line[1..] } else { &of_line[..] };
            for (at, line) in documents.iter().enumerate().filter(|(_, line)| self.is_unmatched(line)) {
                if !self.options.pass_unmatched {
                    let error = refused(UNMATCHED);
                    return Err(line.failed(match line.kind {
                        Some(kind) if of_line.len() > 1 => {
                            let kind = &self.kinds[kind];
                            error.of_document(&format!("{}, number {} at {}", kind.name(), at + 1, kind.root_path()))
                        }
                        _ => error,
                    }));
                }
                counts.unmatched += 1;
            }
            for line in &of_line {
                if !applied.as_ref().is_some_and(|applied| Arc::ptr_eq(applied, &line.rules)) {
                    line.rules.field_of_path.iter().for_each(|&field| self.used.applied(field));
                    applied = Some(line.rules.clone());
                }
                for found in &line.found.values {
                    self.used.selected(line.rules.field_of_path[found.rule]);
                }
            }
            lines.extend(of_line);
        }
        Ok(lines)
    }

    /// The documents of one line: the whole, and those that a kind has inside of it, which are no part of the whole then.
    pub(super) fn lines_of<'b>(
        &self,
        text: &'b [u8],
        index: usize,
        number: u64,
        has_header: bool,
        latest: Option<&Arc<Rules>>,
    ) -> Result<Vec<Line<'b>>, DocumentError> {
        let mut whole = Document::parse(text, number)?;
        let [around, kind] = Kind::of(&self.kinds, &whole)?;
        let Some((root_of, root)) = kind.and_then(|kind| Some((kind, self.kinds[kind].root.as_ref()?))) else {
            return Ok(vec![self.line(whole, index, number, around, has_header, latest)?]);
        };
        let inside = root.take(&mut whole)?;
        let mut lines = vec![self.line(whole, index, number, around, has_header, latest)?];
        for document in inside {
            if !document.is_object() {
                let why = "the root of the documents leads to something that is no object";
                let error = DocumentError::new(ErrorKind::InvalidInput, why);
                return Err(error.of_document(self.kinds[root_of].name()));
            }
            let offset = document.offset();
            let line = self.line(document, index, number, kind, has_header, lines.last().map(|line| &line.rules));
            lines.push(line.map_err(|error| error.in_part(offset))?);
        }
        Ok(lines)
    }

    fn line<'b>(
        &self,
        mut document: Document<'b>,
        index: usize,
        number: u64,
        kind: Option<usize>,
        has_header: bool,
        latest: Option<&Arc<Rules>>,
    ) -> Result<Line<'b>, DocumentError> {
        let (mut header, mut inserted) = (None, Vec::new());
        let place = kind.map(|kind| self.kinds[kind].place());
        if has_header {
            inserted = self.take_members(&mut document);
            if let Some((texts, place)) = place.map(|place| place.take(&mut document)).transpose()?.flatten() {
                header = Some(texts);
                inserted.push(place);
            }
        } else {
            // Even where nothing is put in: what stands there would be taken for ours.
            self.refuse_members(&document)?;
            place.map(|place| place.refuse_header(&document)).transpose()?;
        }
        let mut path = Latest::default();
        let holding: Vec<bool> =
            self.conditions.iter().map(|conditions| conditions.hold_with(&document, &mut path)).collect();
        // A kind with manifests has a header in each document, so that a document without one is known to have lost it.
        let is_document = |kind: &usize| {
            let manifest = match has_header {
                false => self.kinds[*kind].manifest() != ManifestRule::None,
                true => self.kinds[*kind].manifest() == ManifestRule::Required,
            };
            let has_own = || self.fields_under(&holding).any(|field| self.fields[field].is_of_documents());
            manifest || header.is_some() || has_own()
        };
        let kind = kind.filter(is_document);
        let rules = match latest.filter(|latest| latest.of.0 == kind && latest.of.1 == holding) {
            Some(latest) => latest.clone(),
            None => self.rules_for(kind, holding)?,
        };
        let found = rules.paths.select(&document)?;
        let of_documents = |found: &Match| self.fields[rules.field_of_path[found.rule]].is_of_documents();
        if kind.is_none() && found.values.iter().any(of_documents) {
            return Err(refused(
                "a field of documents is in the document, but no [documents] section of the policy applies to it",
            ));
        }
        Ok(Line { index, number, document, found, rules, kind, header, inserted })
    }

    /// Whether no field selects anything in a document. What should have a manifest on the way back is refused with the documents.
    fn is_unmatched(&self, line: &Line<'_>) -> bool {
        let is_required = line.kind.is_some_and(|kind| self.kinds[kind].manifest() == ManifestRule::Required);
        let is_protected = !matches!(self.direction, Direction::Protect { .. }) && is_required;
        line.found.values.is_empty() && line.header.is_none() && !is_protected
    }

    /// Where the values of each field are in a batch; but of those that are sealed with their documents, unless they have indexes.
    pub(super) fn places(&self, lines: &[Line<'_>]) -> Vec<Vec<Place>> {
        let mut places = vec![Vec::new(); self.fields.len()];
        for (at, line) in lines.iter().enumerate() {
            for found in 0..line.found.values.len() {
                let field = line.field_of(found);
                if !self.fields[field].is_of_documents() || !self.fields[field].indexes().is_empty() {
                    places[field].push((at, found));
                }
            }
        }
        places
    }

    /// The row binding of each line that has values of a field: what stands at the path of the binding, in clear.
    pub(super) fn rows(
        &self,
        lines: &[Line<'_>],
        field: usize,
        places: &[Place],
        replaced: &[Replaced],
    ) -> Result<Option<HashMap<usize, Zeroizing<String>>>, RowFailed> {
        let Some(row_path) = self.row_of_field[field].filter(|_| self.fields[field].is_bound()) else {
            return Ok(None);
        };
        let mut rows = HashMap::new();
        for (at, &(line, _)) in places.iter().enumerate() {
            if let Entry::Vacant(row) = rows.entry(line) {
                let binding = self.row_binding(&lines[line], row_path, &replaced[line]);
                row.insert(binding.map_err(|error| RowFailed { row: Some(at), error })?);
            }
        }
        Ok(Some(rows))
    }

    pub(super) fn row_binding(
        &self,
        line: &Line<'_>,
        row_path: usize,
        replaced: &Replaced,
    ) -> Result<Zeroizing<String>, DocumentError> {
        let path = &self.row_paths[row_path];
        let wrong = |why: &'static str| DocumentError::new(ErrorKind::InvalidInput, why).with_detail(path);
        let node = match &line.row(row_path)?[..] {
            [node] => *node,
            [] => return Err(wrong("the row binding selects no value, but must select exactly one")),
            _ => return Err(wrong("the row binding selects several values, but must select exactly one")),
        };
        let bound = match (line.found.position(node), self.direction) {
            (Some(at), _) if !self.fields[line.field_of(at)].may_be_row() => {
                return Err(
                    refused("the row binding is protected and so must be deterministic, or a token").with_detail(path)
                );
            }
            // Such fields come first, so this one has been opened already.
            (Some(at), Direction::Reveal | Direction::Rebind | Direction::Reencrypt) => {
                let opened = replaced.get(at).and_then(|text| std::str::from_utf8(text).ok());
                scalar_text(opened.and_then(Token::parse))
            }
            _ => scalar_text(Some(line.document.token_of(node))),
        };
        bound
            .filter(|text| !text.is_empty())
            .map(|text| Zeroizing::new(text.into_owned()))
            // F-4.3-6.
            .ok_or_else(|| wrong("the row binding is not a text or a number, or is empty"))
    }
}
