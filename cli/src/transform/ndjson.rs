//! JSON, a document per line or one in the whole file: the values that the policy's paths select are replaced, every other byte stays.

mod documents;
mod rebind;
mod reencrypt;
mod values;

use super::field::{FieldJob, RowFailure};
use super::merges::Merges;
use super::progress::Progress;
use super::{Counts, Direction, Done, Job, pump};
use crate::failure::{Exit, Failure};
use crate::files::interrupt::Interrupt;
use crate::files::json::{
    Document, HeaderTexts, JsonRules, LineBatch, LineSource, Located, MAX_LINE_LEN, Token, splice,
};
use crate::files::output::{Output, Target};
use documents::Kind;
use keyfold::wire::{BODY_TEXT_PREFIX, TEXT_PREFIX};
use keyfold::{FieldPolicy, ManifestRule, RowBinding};
use serde_json_path::JsonPath;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Read;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use values::{protect, reveal, scalar_text};
use zeroize::Zeroizing;

struct NdjsonJob<'j> {
    direction: Direction,
    merges: &'j Merges,
    /// When rebinding: which of the row bindings holds the identifiers that are replaced.
    rebound: Option<usize>,
    pass_unmatched: bool,
    /// Whether the file is one document, over any number of lines.
    whole: bool,
    /// Deterministic fields first, since others may be bound to them; those of documents last.
    fields: Vec<FieldJob>,
    /// The kinds of documents whose values are sealed together.
    kinds: Vec<Kind>,
    /// Per field: members that must have these strings.
    conditions: Vec<Vec<(JsonPath, String)>>,
    /// Distinct row bindings, and which of them each field has.
    row_paths: Vec<String>,
    row_of_field: Vec<Option<usize>>,
    /// Per field: whether it applied to a document, and whether its paths selected a value.
    applied: Vec<AtomicBool>,
    selected: Vec<AtomicBool>,
    /// The compiled paths for whatever applies to a document.
    rules: Mutex<HashMap<Applies, Arc<Rules>>>,
}

/// What applies to a document: the kind whose values are sealed together, and fields.
type Applies = (Option<usize>, Vec<usize>);

/// The paths of the fields that apply to a document, and of their row bindings.
struct Rules {
    paths: JsonRules,
    /// The field of each path.
    field_of_path: Vec<usize>,
    rows: Vec<(usize, JsonRules)>,
}

/// A document of a batch, with what was found in it. A line has several where a kind of documents has its root inside.
struct Line<'b> {
    index: usize,
    document: Document<'b>,
    found: Vec<Located>,
    rules: Arc<Rules>,
    /// The kind of documents, if it is one whose values are sealed together.
    kind: Option<usize>,
    /// What the header of a protected document says, and where it is.
    header: Option<(HeaderTexts, Range<usize>)>,
}

/// The new text of a value: where it goes, and what.
type Replacement = (Range<usize>, Zeroizing<Vec<u8>>);

/// A value of a batch: in which line, and which of the values found there.
type Place = (usize, usize);

pub(super) fn run(
    job: &Job<'_>,
    input: impl Read + Send,
    whole: bool,
    target: Target,
    interrupt: &Interrupt,
    progress: &mut Progress,
    counts: &mut Counts,
) -> Result<Output, Failure> {
    let plan = NdjsonJob::plan(job, whole)?;
    let max_len = job.direction.limit(MAX_LINE_LEN);
    let mut source = if whole { LineSource::whole(input, max_len) } else { LineSource::new(input, max_len) };
    let mut output = Output::create(target, job.args.force)?;
    let read = || source.next_batch().map_err(Failure::from);
    pump(job, read, |batch| plan.transform(&batch), interrupt, progress, counts, &mut output)?;
    plan.refuse_unused()?;
    Ok(output)
}

impl<'j> NdjsonJob<'j> {
    fn plan(job: &Job<'j>, whole: bool) -> Result<Self, Failure> {
        job.refuse_other_format(|field| (field.paths.is_empty(), field.columns.is_empty()), "paths")?;
        let mut fields = job.fields(|field| !field.paths.is_empty())?;
        if fields.is_empty() {
            return Err(Failure::new(Exit::Policy, "no field of the configuration or the policies has JSON paths"));
        }
        fields.sort_by_key(|field| (field.is_of_documents(), !field.is_deterministic()));
        let mut row_paths: Vec<String> = Vec::new();
        let mut row_of_field = Vec::new();
        let mut conditions = Vec::new();
        for field in &fields {
            row_of_field.push(row_path(&field.policy)?.map(|path| {
                row_paths.iter().position(|known| known == path).unwrap_or_else(|| {
                    row_paths.push(path.to_owned());
                    row_paths.len() - 1
                })
            }));
            let compiled = field.policy.only_if.iter().map(|(path, expected)| {
                let wrong =
                    |error| Failure::new(Exit::Policy, format!("field {}: only_if: {error}", field.policy.name));
                Ok((JsonPath::parse(path).map_err(wrong)?, expected.clone()))
            });
            conditions.push(compiled.collect::<Result<_, Failure>>()?);
        }
        let kinds = Kind::all(job, &mut row_paths, fields.iter().any(FieldJob::is_of_documents))?;
        let flags = || fields.iter().map(|_| AtomicBool::new(false)).collect();
        let rebound = match job.direction {
            Direction::Rebind => {
                let names: Vec<&str> = row_paths.iter().map(String::as_str).collect();
                let chosen = job.merges.choose_row(&names)?;
                row_paths.iter().position(|path| path == chosen)
            }
            _ => None,
        };
        let plan = Self {
            direction: job.direction,
            merges: job.merges,
            rebound,
            pass_unmatched: job.args.pass_unmatched,
            whole,
            applied: flags(),
            selected: flags(),
            fields,
            kinds,
            conditions,
            row_paths,
            row_of_field,
            rules: Mutex::default(),
        };
        // Compile every path now, so that a wrong one is reported before anything is read.
        plan.rules_for(None, (0..plan.fields.len()).collect())?;
        Ok(plan)
    }

    fn transform(&self, batch: &LineBatch) -> Result<Done, Failure> {
        let mut counts = Counts { input_len: batch.raw_len() as u64, ..Counts::default() };
        let lines = self.lines(batch, &mut counts)?;
        let mut replacements: Vec<Vec<Option<Replacement>>> =
            lines.iter().map(|line| line.found.iter().map(|_| None).collect()).collect();
        match (self.direction, self.rebound) {
            (_, Some(row_path)) => self.rebind(batch, &lines, row_path, &mut replacements, &mut counts)?,
            (Direction::Reencrypt, None) => self.reencrypt(batch, &lines, &mut replacements, &mut counts)?,
            _ => {
                for field in 0..self.fields.len() {
                    let places = places_of(&lines, field);
                    if !places.is_empty() && !self.fields[field].is_of_documents() {
                        self.transform_field(batch, &lines, field, &places, &mut replacements, &mut counts)?;
                    }
                }
                self.transform_documents(batch, &lines, &mut replacements, &mut counts)?;
                counts.values += lines.iter().map(|line| line.found.len() as u64).sum::<u64>();
            }
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(batch.raw_len() * 2));
        let mut next = lines.iter().zip(replacements).peekable();
        let mut first = 0;
        batch.render(&mut bytes, |index, out| {
            let mut changes: Vec<Replacement> = Vec::new();
            let mut of_line = 0;
            while let Some((line, replaced)) = next.next_if(|(line, _)| line.index == index) {
                let at = line.document.offset();
                changes.extend(replaced.into_iter().flatten().map(|(span, new)| (at + span.start..at + span.end, new)));
                of_line += 1;
            }
            let lines = &lines[first..first + of_line];
            first += of_line;
            changes.sort_by_key(|(span, _)| (span.start, span.end));
            let start = out.len();
            splice(batch.line(index), changes, out);
            self.check_output(lines, &out[start..], batch.number(index), &mut counts)
        })?;
        Ok(Done { bytes, counts })
    }

    /// The documents of a batch, and what the paths select in them.
    fn lines<'b>(&self, batch: &'b LineBatch, counts: &mut Counts) -> Result<Vec<Line<'b>>, Failure> {
        let mut lines = Vec::with_capacity(batch.len());
        for index in (0..batch.len()).filter(|&index| !batch.is_blank(index)) {
            let has_header = !matches!(self.direction, Direction::Protect { .. });
            let of_line = self.lines_of(batch.line(index), index, batch.number(index), has_header)?;
            if of_line.iter().all(|line| line.found.is_empty() && line.header.is_none()) {
                self.refuse_unmatched(batch.number(index))?;
                counts.unmatched += 1;
            }
            for line in &of_line {
                for &field in &line.rules.field_of_path {
                    self.applied[field].store(true, Ordering::Relaxed);
                }
                for located in &line.found {
                    self.selected[line.rules.field_of_path[located.rule]].store(true, Ordering::Relaxed);
                }
            }
            counts.records += 1;
            lines.extend(of_line);
        }
        Ok(lines)
    }

    /// The documents of one line: the whole, and those that the kind of it has inside.
    fn lines_of<'b>(
        &self,
        text: &'b [u8],
        index: usize,
        number: u64,
        has_header: bool,
    ) -> Result<Vec<Line<'b>>, Failure> {
        let mut whole = Document::parse(text, number)?;
        let kind = Kind::of(&self.kinds, &whole).map_err(|failure| failure.at(format!("line {number}")))?;
        let inside = match kind.and_then(|kind| self.kinds[kind].root.as_ref()) {
            Some(root) => root.take(&mut whole)?,
            None => return Ok(vec![self.line(whole, index, number, kind, has_header)?]),
        };
        let mut lines = vec![self.line(whole, index, number, None, has_header)?];
        for document in inside {
            lines.push(self.line(document, index, number, kind, has_header)?);
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
    ) -> Result<Line<'b>, Failure> {
        let place = kind.filter(|_| has_header).map(|kind| self.kinds[kind].place());
        let header = place.map(|place| place.take(&mut document)).transpose()?.flatten();
        let fields = self.applicable(&document);
        // What no field applies to is no document of the kind: another type of resource, say.
        let is_document = header.is_some()
            || fields.iter().any(|&field| self.fields[field].is_of_documents())
            || kind.is_some_and(|kind| self.kinds[kind].manifest() != ManifestRule::None) && !fields.is_empty();
        let kind = kind.filter(|_| is_document);
        let rules = self.rules_for(kind, fields)?;
        let found = rules.paths.locate(&document)?;
        let of_documents = |located: &Located| self.fields[rules.field_of_path[located.rule]].is_of_documents();
        if kind.is_none() && found.iter().any(of_documents) {
            let why = "a field of documents is in the line, but no [documents] section of the policy applies to it";
            return Err(Failure::new(Exit::Policy, why).at(format!("line {number}")));
        }
        Ok(Line { index, document, found, rules, kind, header: header.map(|(texts, (span, _))| (texts, span)) })
    }

    /// Whether a value with line feeds would break the format.
    fn one_line(&self) -> bool {
        !self.whole
    }

    fn refuse_unmatched(&self, number: u64) -> Result<(), Failure> {
        if self.pass_unmatched {
            return Ok(());
        }
        let why = "no field of the policy applies to anything in the document; --pass-unmatched would pass it through as it is";
        Err(Failure::new(Exit::Policy, why).at(format!("line {number}")))
    }

    /// Refuses fields that applied to documents and never selected anything: a path with a typo leaves values in clear.
    fn refuse_unused(&self) -> Result<(), Failure> {
        for (index, field) in self.fields.iter().enumerate() {
            let (applied, selected) = (&self.applied[index], &self.selected[index]);
            if applied.load(Ordering::Relaxed) && !selected.load(Ordering::Relaxed) && !field.policy.optional {
                let why =
                    "its paths select nothing in the whole input (a typo?); optional = true in the policy allows that";
                return Err(Failure::new(Exit::Policy, format!("field {}: {why}", field.policy.name)));
            }
        }
        Ok(())
    }

    /// Encrypts or decrypts the values of one field in a batch.
    fn transform_field(
        &self,
        batch: &LineBatch,
        lines: &[Line<'_>],
        field: usize,
        places: &[Place],
        replacements: &mut [Vec<Option<Replacement>>],
        counts: &mut Counts,
    ) -> Result<(), Failure> {
        let job = &self.fields[field];
        let at = |failure: RowFailure| {
            let line = &lines[places[failure.row].0];
            failure.failure.at(format!("line {}, field {}", batch.number(line.index), job.policy.name))
        };
        let bindings = self.rows(lines, field, places, replacements).map_err(at)?;
        let rows: Option<Vec<&[u8]>> =
            bindings.as_ref().map(|bindings| places.iter().map(|(line, _)| bindings[line].as_bytes()).collect());
        let tokens: Vec<Token<'_>> = places
            .iter()
            .map(|&(line, found)| lines[line].document.token(lines[line].found[found].span.clone()))
            .collect::<Result<_, _>>()?;
        let texts = match self.direction {
            Direction::Protect { seal_sealed } => {
                for (row, token) in tokens.iter().enumerate() {
                    if let (Token::String { text, .. }, false) = (token, seal_sealed) {
                        job.refuse_sealed(row, text).map_err(at)?;
                    }
                }
                protect(job, &tokens, rows.as_deref()).map_err(at)?
            }
            Direction::Reveal | Direction::Rebind | Direction::Reencrypt => {
                let (texts, opened) = reveal(job, &tokens, rows.as_deref(), self.one_line()).map_err(at)?;
                counts.outdated += opened.outdated() as u64;
                counts.compromised += opened.compromised() as u64;
                texts
            }
        };
        for (&(line, found), text) in places.iter().zip(texts) {
            replacements[line][found] = Some((lines[line].found[found].span.clone(), text));
        }
        Ok(())
    }

    /// The fields whose conditions a document meets.
    fn applicable(&self, document: &Document<'_>) -> Vec<usize> {
        let holds = |(path, expected): &(JsonPath, String)| {
            let nodes = path.query(document.value()).all();
            nodes.len() == 1 && nodes[0].as_str() == Some(expected)
        };
        (0..self.fields.len()).filter(|&field| self.conditions[field].iter().all(holds)).collect()
    }

    fn rules_for(&self, kind: Option<usize>, fields: Vec<usize>) -> Result<Arc<Rules>, Failure> {
        // The map only ever grows by whole entries, so a panic elsewhere leaves it good.
        let mut known = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let of = (kind, fields);
        if let Some(rules) = known.get(&of) {
            return Ok(rules.clone());
        }
        let fields = &of.1;
        let mut named = Vec::new();
        let mut field_of_path = Vec::new();
        let mut rows: Vec<(usize, JsonRules)> = Vec::new();
        for &field in fields {
            for path in &self.fields[field].policy.paths {
                named.push((self.fields[field].policy.name.clone(), path.clone()));
                field_of_path.push(field);
            }
        }
        let of_kind = kind.and_then(|kind| self.kinds[kind].row_path);
        for row in fields.iter().filter_map(|&field| self.row_of_field[field]).chain(of_kind) {
            if rows.iter().all(|(known, _)| *known != row) {
                rows.push((row, JsonRules::compile([("row binding", &self.row_paths[row])])?));
            }
        }
        let rules = Arc::new(Rules { paths: JsonRules::compile(named)?, field_of_path, rows });
        known.insert(of, rules.clone());
        Ok(rules)
    }

    /// The row binding of each line that has values of a field: what stands at the path of the binding, in clear.
    fn rows(
        &self,
        lines: &[Line<'_>],
        field: usize,
        places: &[Place],
        replacements: &[Vec<Option<Replacement>>],
    ) -> Result<Option<HashMap<usize, Zeroizing<String>>>, RowFailure> {
        let Some(row_path) = self.row_of_field[field].filter(|_| self.fields[field].is_bound()) else {
            return Ok(None);
        };
        let mut rows = HashMap::new();
        for (at, &(line, _)) in places.iter().enumerate() {
            if let Entry::Vacant(row) = rows.entry(line) {
                let binding = self.row_binding(&lines[line], row_path, &replacements[line]);
                row.insert(binding.map_err(|failure| RowFailure { row: at, failure })?);
            }
        }
        Ok(Some(rows))
    }

    fn row_binding(
        &self,
        line: &Line<'_>,
        row_path: usize,
        replacements: &[Option<Replacement>],
    ) -> Result<Zeroizing<String>, Failure> {
        let path = &self.row_paths[row_path];
        let wrong = |why: &str| Failure::new(Exit::Data, format!("the row binding {path} {why}"));
        let rules = line.rules.rows.iter().find(|(known, _)| *known == row_path).map(|(_, rules)| rules);
        let found = rules.map(|rules| rules.locate(&line.document)).transpose()?.unwrap_or_default();
        let [place] = &found[..] else {
            return Err(wrong(&format!("selects {} values, but must select exactly one", found.len())));
        };
        let protected = line.found.iter().position(|other| other.span == place.span);
        let bound = match (protected, self.direction) {
            (Some(at), _) if !self.fields[line.rules.field_of_path[line.found[at].rule]].is_deterministic() => {
                return Err(Failure::new(
                    Exit::Policy,
                    format!("the row binding {path} is protected and so must be deterministic"),
                ));
            }
            // Deterministic fields come first, so this one has been opened already.
            (Some(at), Direction::Reveal | Direction::Rebind | Direction::Reencrypt) => {
                let opened = replacements[at].as_ref().and_then(|(_, text)| std::str::from_utf8(text).ok());
                scalar_text(opened.and_then(Token::parse))
            }
            _ => scalar_text(Some(line.document.token(place.span.clone())?)),
        };
        bound.filter(|text| !text.is_empty()).ok_or_else(|| wrong("is not a text or a number, or is empty"))
    }

    /// After protecting: the same paths must select the same values, or they could not be revealed. After revealing:
    /// counts what still looks sealed.
    fn check_output(&self, lines: &[Line<'_>], out: &[u8], number: u64, counts: &mut Counts) -> Result<(), Failure> {
        let max_len = Direction::Reveal.limit(MAX_LINE_LEN);
        match self.direction {
            Direction::Protect { .. } | Direction::Rebind | Direction::Reencrypt if out.len() > max_len => {
                let why = format!("the protected line would be longer than {max_len} bytes, and could not be revealed");
                return Err(Failure::new(Exit::Data, why).at(format!("line {number}")));
            }
            Direction::Protect { .. } => {
                let same = self.looks_the_same(lines, out, number, |line, again| {
                    Ok(bindings_of(&again.rules, &again.document, &again.found)?
                        == bindings_of(&line.rules, &line.document, &line.found)?)
                })?;
                if !same {
                    let why = "a filter, an only_if or a row binding of the policy looks at a value that the policy protects, so the document could not be revealed";
                    return Err(Failure::new(Exit::Policy, why).at(format!("line {number}")));
                }
            }
            Direction::Rebind | Direction::Reencrypt => {
                if !self.looks_the_same(lines, out, number, |_, _| Ok(true))? {
                    let why = "a filter or an only_if of the policy looks at a value that was replaced, so the document could not be revealed";
                    return Err(Failure::new(Exit::Policy, why).at(format!("line {number}")));
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
        also: impl Fn(&Line<'_>, &Line<'_>) -> Result<bool, Failure>,
    ) -> Result<bool, Failure> {
        let again = self.lines_of(out, 0, number, true)?;
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

/// Whether the paths select the same values as before.
fn selects_the_same(line: &Line<'_>, again: &Line<'_>) -> bool {
    let places =
        |line: &Line<'_>| line.found.iter().map(|located| (located.rule, located.path.clone())).collect::<Vec<_>>();
    Arc::ptr_eq(&again.rules, &line.rules) && again.kind == line.kind && places(again) == places(line)
}

/// A row binding: which of the protected values it is, or else what it says in clear.
type Binding = (Option<usize>, Option<Zeroizing<String>>);

/// The row bindings of a document.
fn bindings_of(rules: &Rules, document: &Document<'_>, found: &[Located]) -> Result<Vec<Binding>, Failure> {
    let mut bindings = Vec::new();
    for (_, paths) in &rules.rows {
        for place in paths.locate(document)? {
            let protected = found.iter().position(|located| located.span == place.span);
            let clear = if protected.is_none() { scalar_text(Some(document.token(place.span)?)) } else { None };
            bindings.push((protected, clear));
        }
    }
    Ok(bindings)
}

/// How many values in `text` look sealed. A hint for people, not a decision.
fn count_sealed(text: &str) -> u64 {
    let digits = |at: usize| text.as_bytes().get(at + TEXT_PREFIX.len()..).and_then(|rest| rest.first_chunk::<11>());
    let looks =
        |at: usize| digits(at).is_some_and(|[suite @ .., dot]| *dot == b'.' && suite.iter().all(u8::is_ascii_hexdigit));
    let values = text.match_indices(TEXT_PREFIX).filter(|(at, _)| looks(*at)).count();
    (values + text.matches(BODY_TEXT_PREFIX).count()) as u64
}

/// Where the values of `field` are in a batch.
fn places_of(lines: &[Line<'_>], field: usize) -> Vec<Place> {
    let mut places = Vec::new();
    for (line, found) in
        lines.iter().enumerate().flat_map(|(at, line)| line.found.iter().enumerate().map(move |(i, _)| (at, i)))
    {
        if lines[line].rules.field_of_path[lines[line].found[found].rule] == field {
            places.push((line, found));
        }
    }
    places
}

fn row_path(policy: &FieldPolicy) -> Result<Option<&str>, Failure> {
    match &policy.row_binding {
        RowBinding::Bound { path: Some(path), .. } => Ok(Some(path)),
        RowBinding::Bound { path: None, .. } => {
            let why = "its row_binding names no JSONPath; write { column = …, path = … }";
            Err(Failure::new(Exit::Policy, format!("field {}: {why}", policy.name)))
        }
        _ => Ok(None),
    }
}
