//! Documents by policy: the values that its paths select are replaced, every other byte stays.
//!
//! Over 600 lines: what is planned, found and replaced hangs together, and the parts that can be told from it are modules.

mod check;
mod members;
mod rebind;
mod reencrypt;
mod replaced;
mod sealed;
mod values;

pub use check::count_sealed;
pub use rebind::RowMap;

use crate::condition::Latest;
use crate::field::{Direction, FieldCipher, FieldKeys, Locator, Used};
use crate::locate::{Match, Selection};
use crate::tree::NodeId;
use crate::{Conditions, Document, DocumentError, HeaderTexts, Inserted, JsonError, JsonRules, Token, splice};
use keyfold::{Error, ErrorKind, FieldPolicy, ManifestRule, RowError};
use replaced::Replaced;
use sealed::Kind;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use values::{protect, reveal, scalar_text};
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
    members: Vec<String>,
}

/// Most combinations of conditions whose compiled paths are kept.
const MAX_RULES: usize = 256;

/// What applies to a document: the kind whose values are sealed together, and which of the distinct conditions of fields hold.
type Applies = (Option<usize>, Vec<bool>);

/// The paths of the fields that apply to a document, and of their row bindings.
struct Rules {
    of: Applies,
    paths: JsonRules,
    /// The field of each path.
    field_of_path: Vec<usize>,
    rows: Vec<(usize, JsonRules)>,
    /// Whether they select the same in what was protected, whatever the document.
    settled: bool,
}

/// A document of a batch, with what was found in it. A line has several where a kind of documents has its root inside.
struct Line<'b> {
    /// Of the text, and the number of its line.
    index: usize,
    number: u64,
    document: Document<'b>,
    found: Selection,
    rules: Arc<Rules>,
    /// The kind of documents, if it is one whose values are sealed together.
    kind: Option<usize>,
    /// What the header of a protected document says.
    header: Option<HeaderTexts>,
    /// What protecting had put in.
    inserted: Vec<Inserted>,
}

impl Line<'_> {
    /// An error in this document.
    fn failed(&self, error: impl Into<DocumentError>) -> DocumentError {
        error.into().in_text(self.index, self.number)
    }

    /// The field of a value that was found.
    fn field_of(&self, found: usize) -> usize {
        self.rules.field_of_path[self.found.values[found].rule]
    }

    fn token(&self, found: usize) -> Token<'_> {
        self.document.token_of(self.found.values[found].node)
    }

    /// The values at the path of a row binding.
    fn row(&self, row_path: usize) -> Result<Vec<NodeId>, JsonError> {
        let Some((_, rules)) = self.rules.rows.iter().find(|(known, _)| *known == row_path) else {
            return Ok(Vec::new());
        };
        match rules.only(&self.document.tree) {
            Some(node) => Ok(vec![node]),
            None => Ok(rules.select(&self.document)?.values.iter().map(|found| found.node).collect()),
        }
    }

    /// What is to be replaced in it; nothing is yet.
    fn replaced(&self) -> Replaced {
        let span = |found: &Match| self.document.tree.span(found.node).len();
        // A sealed value is a third longer in its text, and has a header, a nonce and a tag.
        let len = self.found.values.iter().map(|found| span(found) * 3 / 2 + SEALED_ROOM).sum::<usize>();
        Replaced::new(self.found.values.len(), len + HEADER_ROOM)
    }
}

/// About as many bytes as a sealed value has beside its own.
const SEALED_ROOM: usize = 72;
/// About as many changes as a header and tokens are.
const HEADER_CHANGES: usize = 3;
/// About as many bytes as a header takes.
const HEADER_ROOM: usize = 200;

/// A value of a batch: in which line, and which of the values found there.
type Place = (usize, usize);

/// Documents whose values were replaced. Has no `Debug`: it may hold plaintext.
pub struct Transformed {
    /// The new texts, in the order of the old ones.
    pub texts: Vec<Zeroizing<Vec<u8>>>,
    /// What was done.
    pub counts: DocumentCounts,
}

/// Documents whose values were replaced, about to be written. Holds plaintext.
pub struct Changed<'c, 'b> {
    cipher: &'c DocumentCipher<'c>,
    texts: &'b [DocumentText<'b>],
    lines: Vec<Line<'b>>,
    /// Per line.
    replaced: Vec<Replaced>,
    /// The text that is written next.
    next: usize,
    counts: DocumentCounts,
}

impl Changed<'_, '_> {
    /// Appends the next text to `out`: each once, in their order.
    ///
    /// # Errors
    ///
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): what was protected could not be revealed, since a path or condition looks at it.
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): it would be too long for that.
    /// - [`Internal`](ErrorKind::Internal): there is no further text.
    pub fn push_next(&mut self, out: &mut Vec<u8>) -> Result<(), DocumentError> {
        let index = self.next;
        let Some(text) = self.texts.get(index) else {
            return Err(DocumentError::new(ErrorKind::Internal, "there is no further document"));
        };
        self.next += 1;
        let start = out.len();
        let first = self.lines.partition_point(|line| line.index < index);
        let behind = self.lines.partition_point(|line| line.index <= index);
        let lines = &self.lines[first..behind];
        let values = lines.iter().map(|line| line.found.values.len() + HEADER_CHANGES);
        let mut changes: Vec<(Range<usize>, &[u8])> = Vec::with_capacity(values.sum());
        for (line, replaced) in lines.iter().zip(&self.replaced[first..behind]) {
            let at = line.document.offset();
            let new = replaced.changes(|found| line.document.tree.span(line.found.values[found].node));
            changes.extend(new.map(|(span, new)| (at + span.start..at + span.end, new)));
        }
        changes.sort_by_key(|(span, _)| (span.start, span.end));
        let spliced = splice(text.content, changes, out);
        spliced.map_err(|error| DocumentError::from(error).in_text(index, text.line))?;
        let checked = self.cipher.check_output(lines, &out[start..], text.line, &mut self.counts);
        checked.map_err(|error| error.in_text(index, text.line))
    }

    /// What was done so far.
    #[must_use]
    pub const fn counts(&self) -> DocumentCounts {
        self.counts
    }
}

impl<'m> DocumentCipher<'m> {
    /// Acquires the keys of all fields that have paths, and compiles these.
    ///
    /// # Errors
    ///
    /// - As for [`FieldKeys::fields`] and [`Locator::refuse_elsewhere`].
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): no field has paths; a row binding has no path; documents whose values are sealed
    ///   together cannot be rebound or re-encrypted; two indexes have one member.
    /// - [`Configuration`](ErrorKind::Configuration): a path is not one of RFC 9535.
    pub fn new(keys: &FieldKeys<'_>, options: DocumentOptions) -> Result<Self, DocumentError> {
        Locator::Paths.refuse_elsewhere(&keys.ring.policy())?;
        let none = "no field of the configuration or the policies has JSON paths";
        let fields = keys.plan(|field| !field.paths.is_empty(), none)?;
        let mut row_paths: Vec<String> = Vec::new();
        let mut row_of_field = Vec::new();
        let mut distinct: Vec<&BTreeMap<String, String>> = Vec::new();
        let (mut conditions, mut condition_of_field) = (Vec::new(), Vec::new());
        for field in &fields {
            row_of_field.push(row_path(field.policy())?.map(|path| {
                row_paths.iter().position(|known| known == path).unwrap_or_else(|| {
                    row_paths.push(path.to_owned());
                    row_paths.len() - 1
                })
            }));
            let only_if = &field.policy().only_if;
            let known = distinct.iter().position(|known| *known == only_if);
            condition_of_field.push(known.unwrap_or(distinct.len()));
            if known.is_none() {
                distinct.push(only_if);
                conditions.push(compile(only_if).map_err(|error| error.of_field(&field.policy().name))?);
            }
        }
        let kinds = Kind::all(keys, &mut row_paths, fields.iter().any(FieldCipher::is_of_documents))?;
        let members = members::members(&keys.ring.policy(), &kinds)?;
        let of_kinds = || kinds.iter().flat_map(Kind::conditions).map(|path| (path.as_str(), false));
        let roots_are_settled =
            kinds.iter().filter_map(|kind| kind.root.as_ref()).all(|root| root.is_settled(of_kinds()));
        let made = Self {
            direction: keys.direction,
            options,
            moves: None,
            used: Used::new(fields.len()),
            fields,
            kinds,
            conditions,
            condition_of_field,
            roots_are_settled,
            row_paths,
            row_of_field,
            rules: Mutex::default(),
            members,
        };
        // Compile every path now, so that a wrong one is reported before anything is read.
        made.rules_for(None, made.conditions.iter().map(|_| true).collect())?;
        Ok(made)
    }

    /// The fields that have paths.
    #[must_use]
    pub fn fields(&self) -> &[FieldCipher] {
        &self.fields
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
                        self.add_tokens(&lines, field, &places, &mut members)?;
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

    /// The documents of all texts, and what the paths select in them.
    fn lines<'b>(
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
            // Of a line with documents inside these count, each by itself, and not what they are in.
            let documents = if of_line.len() > 1 { &of_line[1..] } else { &of_line[..] };
            for line in documents.iter().filter(|line| self.is_unmatched(line)) {
                if !self.options.pass_unmatched {
                    let error = refused(UNMATCHED);
                    return Err(line.failed(match line.kind {
                        Some(kind) if of_line.len() > 1 => error.of_document(self.kinds[kind].name()),
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
    fn lines_of<'b>(
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
            lines.push(self.line(document, index, number, kind, has_header, lines.last().map(|line| &line.rules))?);
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

    /// Where the values of each field are in a batch; but of those that are sealed with their documents, unless they have indexes.
    fn places(&self, lines: &[Line<'_>]) -> Vec<Vec<Place>> {
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
        let at = |failed: RowFailed| lines[places[failed.row].0].failed(failed.error.of_field(&job.policy().name));
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

    /// The fields whose conditions hold.
    fn fields_under<'s>(&'s self, holding: &'s [bool]) -> impl Iterator<Item = usize> + 's {
        (0..self.fields.len()).filter(|&field| holding[self.condition_of_field[field]])
    }

    fn rules_for(&self, kind: Option<usize>, holding: Vec<bool>) -> Result<Arc<Rules>, DocumentError> {
        let of = (kind, holding);
        // The map only ever grows by whole entries, so a panic elsewhere leaves it good.
        let mut known = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rules) = known.get(&of) {
            return Ok(rules.clone());
        }
        let fields: Vec<usize> = self.fields_under(&of.1).collect();
        let mut named = Vec::new();
        let mut field_of_path = Vec::new();
        let mut rows: Vec<(usize, JsonRules)> = Vec::new();
        for &field in &fields {
            for path in &self.fields[field].policy().paths {
                named.push((self.fields[field].policy().name.clone(), path.clone()));
                field_of_path.push(field);
            }
        }
        let of_kind = kind.and_then(|kind| self.kinds[kind].row_path);
        for row in fields.iter().filter_map(|&field| self.row_of_field[field]).chain(of_kind) {
            if rows.iter().all(|(known, _)| *known != row) {
                rows.push((row, JsonRules::compile([("row binding", &self.row_paths[row])])?));
            }
        }
        let paths = JsonRules::compile(named)?;
        let conditions = self.fields.iter().flat_map(|field| field.policy().only_if.keys());
        let conditions =
            conditions.chain(self.kinds.iter().flat_map(Kind::conditions)).map(|path| (path.as_str(), false));
        let bindings = rows.iter().map(|(row, _)| (self.row_paths[*row].as_str(), true));
        let roots = self.kinds.iter().filter_map(|kind| kind.root.as_ref().map(|_| (kind.root_path(), false)));
        let settled = self.roots_are_settled && paths.is_settled(conditions.chain(bindings).chain(roots));
        let rules = Arc::new(Rules { of, paths, field_of_path, rows, settled });
        // Documents choose what applies, so that hostile ones could have every combination.
        if known.len() < MAX_RULES {
            known.insert(rules.of.clone(), rules.clone());
        }
        Ok(rules)
    }

    /// The row binding of each line that has values of a field: what stands at the path of the binding, in clear.
    fn rows(
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
                row.insert(binding.map_err(|error| RowFailed { row: at, error })?);
            }
        }
        Ok(Some(rows))
    }

    fn row_binding(
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
            .ok_or_else(|| wrong("the row binding is not a text or a number, or is empty"))
    }
}

fn row_path(policy: &FieldPolicy) -> Result<Option<&str>, DocumentError> {
    let row =
        Locator::Paths.row(&policy.row_binding).map_err(|error| DocumentError::from(error).of_field(&policy.name));
    Ok(row?.and_then(|paths| paths.first()).map(String::as_str))
}

fn compile(only_if: &BTreeMap<String, String>) -> Result<Conditions, DocumentError> {
    let wrong = |error: crate::JsonError| {
        Error::new(ErrorKind::Configuration, "only_if is no JSONPath").with_detail(error.to_string()).into()
    };
    Conditions::compile("only_if", only_if).map_err(wrong)
}

/// What the policy does not allow.
fn refused(why: &'static str) -> DocumentError {
    DocumentError::new(ErrorKind::PolicyRefused, why)
}

/// A value of a batch that was refused, and why; the caller knows where it is.
struct RowFailed {
    row: usize,
    error: DocumentError,
}

impl RowFailed {
    fn new(row: usize, kind: ErrorKind, why: &'static str) -> Self {
        Self { row, error: DocumentError::new(kind, why) }
    }
}

impl From<RowError> for RowFailed {
    fn from(failed: RowError) -> Self {
        Self { row: failed.row, error: failed.error.into() }
    }
}
