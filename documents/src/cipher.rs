//! Documents by policy: the values that its paths select are replaced, every other byte stays.

mod changed;
mod check;
mod lines;
mod members;
mod plan;
mod rebind;
mod reencrypt;
mod replaced;
mod sealed;
mod values;

pub use changed::Changed;
pub use check::count_sealed;
pub use members::EXACT_BITS;
pub use rebind::RowMap;

use crate::field::{Direction, FieldCipher, Used};
use crate::{Conditions, DocumentError, Token};
use keyfold::{ErrorKind, RowError};
use lines::Line;
use members::Member;
use plan::{Applies, Rules};
use replaced::Replaced;
use sealed::Kind;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use values::{protect, reveal};
use zeroize::Zeroizing;

/// Most bytes in the text of a document that is not sealed yet.
pub const MAX_TEXT_LEN: usize = 16 * 1024 * 1024;

/// What an error says of a document that no field of the policy applies to.
pub const UNMATCHED: &str = "no field of the policy applies to anything in the document";

/// How documents are taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct DocumentOptions {
    /// Passes documents that no field of the policy applies to as they are, instead of refusing them.
    pub pass_unmatched: bool,
    /// Whether a text may go over several lines: a JSON file instead of a line of NDJSON. Otherwise values with line feeds are refused on
    /// the way back.
    pub many_lines: bool,
}

/// A text that is one JSON document.
#[derive(Clone, Copy)]
pub struct DocumentText<'a> {
    /// UTF-8, without a byte order mark.
    pub content: &'a [u8],
    /// The number of its first line, for messages.
    pub line: u64,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DocumentCounts {
    /// Values that were encrypted or decrypted.
    pub values: u64,
    /// Documents whose identifier was replaced.
    pub rebound: u64,
    /// Values whose key no longer seals.
    pub outdated: u64,
    /// Values under a compromised key: whoever has that can have made them.
    pub compromised: u64,
    /// Documents that were passed through, since no field applies.
    pub unmatched: u64,
    /// Values that an index cannot take, and that have no token in it, for each index.
    pub unindexed: u64,
    /// Values that look sealed after revealing, because no rule covers them. A hint for people.
    pub still_sealed: u64,
}

/// Protects or reveals JSON documents by policy: made once, shared between threads.
///
/// Blocks while keys are acquired. Fields of a document may be of any mode: those whose values are sealed together
/// ([`FieldMode::Document`](keyfold::FieldMode::Document)) need a `[documents]` section of the policy that applies.
pub struct DocumentCipher<'m> {
    direction: Direction,
    options: DocumentOptions,
    /// When rebinding: which of the row bindings holds the identifiers that are replaced, and by what.
    moves: Option<(usize, &'m dyn RowMap)>,
    /// Deterministic fields and tokens first, since others may be bound to them; those of documents last.
    fields: Vec<FieldCipher>,
    /// The kinds of documents whose values are sealed together.
    kinds: Vec<Kind>,
    /// The distinct conditions of fields, and which of them each field has.
    conditions: Vec<Conditions>,
    condition_of_field: Vec<usize>,
    /// Whether no condition of a kind looks into the documents that another one has inside.
    roots_are_settled: bool,
    /// Distinct row bindings, and which of them each field has.
    row_paths: Vec<String>,
    row_of_field: Vec<Option<usize>>,
    used: Used,
    /// The compiled paths for whatever applies to a document.
    rules: Mutex<HashMap<Applies, Arc<Rules>>>,
    /// The members that indexes have at the top of documents.
    members: Vec<Member>,
}

/// A value of a batch: in which line, and which of the values found there.
type Place = (usize, usize);

/// Documents whose values were replaced. Has no `Debug`: it may hold plaintext.
pub struct Transformed {
    /// The new texts, in the order of the old ones.
    pub texts: Vec<Zeroizing<Vec<u8>>>,
    /// What was done.
    pub counts: DocumentCounts,
}

impl<'m> DocumentCipher<'m> {
    /// The fields that have paths.
    #[must_use]
    pub fn fields(&self) -> &[FieldCipher] {
        &self.fields
    }

    /// The members of indexes that protected documents had so far.
    pub fn seen_members(&self) -> impl Iterator<Item = &str> {
        self.members.iter().filter(|member| member.is_seen.load(Ordering::Relaxed)).map(|member| &*member.name)
    }

    /// The distinct row bindings.
    #[must_use]
    pub fn row_paths(&self) -> &[String] {
        &self.row_paths
    }

    /// Where values get another row: the identifiers at `row_path`, one of [`row_paths`](Self::row_paths), are replaced as `map` says.
    #[must_use]
    pub fn moving(mut self, row_path: &str, map: &'m dyn RowMap) -> Self {
        self.moves = self.row_paths.iter().position(|path| path == row_path).map(|row| (row, map));
        self
    }

    /// Replaces the values of documents, which [`Changed`] then writes.
    ///
    /// # Errors
    ///
    /// The first of any text; none of them is then of use. The kinds that its cause has are those of [`FieldCipher`],
    /// [`DocumentSealer::seal`](keyfold::DocumentSealer::seal), [`DocumentOpener::open`](keyfold::DocumentOpener::open), and
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput), [`LimitExceeded`](ErrorKind::LimitExceeded): a text is no JSON that paths can be
    ///   applied to, a value has another type than the policy says, a row binding is not there once.
    /// - [`Malformed`](ErrorKind::Malformed): something that should be sealed is not.
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): no field applies ([`UNMATCHED`]), a value looks sealed already
    ///   ([`LOOKS_SEALED`](crate::LOOKS_SEALED)), a manifest is missing.
    pub fn transform<'c, 'b>(&'c self, texts: &'b [DocumentText<'b>]) -> Result<Changed<'c, 'b>, DocumentError> {
        let mut counts = DocumentCounts::default();
        let lines = self.lines(texts, &mut counts)?;
        let mut replaced: Vec<Replaced> = lines.iter().map(Line::replaced).collect();
        let mut members: Vec<members::Members> = lines.iter().map(|_| members::Members::new()).collect();
        match (self.direction, self.moves) {
            (_, Some((row_path, map))) => self.rebind(&lines, row_path, map, &mut replaced, &mut counts)?,
            (Direction::Reencrypt, None) => self.reencrypt(&lines, &mut replaced, &mut counts)?,
            _ => {
                for (field, places) in self.places(&lines).into_iter().enumerate() {
                    if places.is_empty() {
                        continue;
                    }
                    if !self.fields[field].is_of_documents() {
                        self.transform_field(&lines, field, &places, &mut replaced, &mut counts)?;
                    }
                    if let Direction::Protect { .. } = self.direction {
                        self.add_tokens(&lines, field, &places, &mut members, &mut counts)?;
                    }
                }
                self.transform_documents(&lines, &mut replaced, &mut counts)?;
                counts.values += lines.iter().map(|line| line.found.values.len() as u64).sum::<u64>();
            }
        }
        for ((line, replaced), members) in lines.iter().zip(&mut replaced).zip(members) {
            self.edit_members(line, members, replaced).map_err(|error| line.failed(error))?;
        }
        Ok(Changed { cipher: self, texts, lines, replaced, next: 0, counts })
    }

    /// As [`transform`](Self::transform), with the new texts.
    ///
    /// # Errors
    ///
    /// As for [`transform`](Self::transform) and [`Changed::push_next`].
    pub fn transform_all(&self, texts: &[DocumentText<'_>]) -> Result<Transformed, DocumentError> {
        let mut changed = self.transform(texts)?;
        let mut all = Vec::with_capacity(texts.len());
        for text in texts {
            let mut out = Zeroizing::new(Vec::with_capacity(text.content.len() * 2));
            changed.push_next(&mut out)?;
            all.push(out);
        }
        Ok(Transformed { texts: all, counts: changed.counts() })
    }

    /// Whether a value with line feeds would break the format.
    fn one_line(&self) -> bool {
        !self.options.many_lines
    }

    /// Refuses fields that applied to documents and never selected anything in all that was transformed so far: a path with a typo
    /// leaves values in clear.
    ///
    /// # Errors
    ///
    /// [`PolicyRefused`](ErrorKind::PolicyRefused).
    pub fn refuse_unused(&self) -> Result<(), DocumentError> {
        self.used.refuse_unused(&self.fields)
    }

    /// Encrypts or decrypts the values of one field in a batch.
    fn transform_field(
        &self,
        lines: &[Line<'_>],
        field: usize,
        places: &[Place],
        replaced: &mut [Replaced],
        counts: &mut DocumentCounts,
    ) -> Result<(), DocumentError> {
        let job = &self.fields[field];
        let at = |failed: RowFailed| failed.of(job, lines, places);
        let bindings = self.rows(lines, field, places, replaced).map_err(at)?;
        let rows: Option<Vec<&[u8]>> =
            bindings.as_ref().map(|bindings| places.iter().map(|(line, _)| bindings[line].as_bytes()).collect());
        let tokens: Vec<Token<'_>> = places.iter().map(|&(line, found)| lines[line].token(found)).collect();
        match self.direction {
            Direction::Protect { seal_sealed } => {
                for (row, token) in tokens.iter().enumerate() {
                    if let (Token::String { text, .. }, false) = (token, seal_sealed) {
                        job.refuse_sealed(row, text).map_err(RowFailed::from).map_err(at)?;
                    }
                }
                let texts = protect(job, &tokens, rows.as_deref()).map_err(at)?;
                for (row, &(line, found)) in places.iter().enumerate() {
                    replaced[line].set(found, |out| texts.push(row, out));
                }
            }
            Direction::Reveal | Direction::Rebind | Direction::Reencrypt => {
                let texts = reveal(job, &tokens, rows.as_deref(), self.one_line()).map_err(at)?;
                let (outdated, compromised) = texts.counts();
                counts.outdated += outdated;
                counts.compromised += compromised;
                for (row, &(line, found)) in places.iter().enumerate() {
                    replaced[line].try_set(found, |out| texts.push(row, out)).map_err(at)?;
                }
            }
        }
        Ok(())
    }
}

/// What the policy does not allow.
fn refused(why: &'static str) -> DocumentError {
    DocumentError::new(ErrorKind::PolicyRefused, why)
}

/// A value of a batch that was refused, and why; the caller knows where it is. `None`: the batch was, whatever its values are.
struct RowFailed {
    row: Option<usize>,
    error: DocumentError,
}

impl RowFailed {
    fn new(row: usize, kind: ErrorKind, why: &'static str) -> Self {
        Self { row: Some(row), error: DocumentError::new(kind, why) }
    }

    /// The error, with the line and the field of a value at one of these places.
    fn of(self, job: &FieldCipher, lines: &[Line<'_>], places: &[Place]) -> DocumentError {
        match self.row.and_then(|row| places.get(row)) {
            Some(&(line, _)) => lines[line].failed(self.error.of_field(&job.policy().name)),
            None => self.error,
        }
    }
}

impl From<RowError> for RowFailed {
    fn from(failed: RowError) -> Self {
        Self { row: failed.row, error: failed.error.into() }
    }
}
