//! HL7 v2: the values at the policy's segments are replaced, every other byte stays.

mod reencrypt;
mod spelling;

use super::progress::Progress;
use super::{Counts, Direction, Done, Job, pump};
use crate::failure::{Exit, Failure, RowFailure};
use crate::files::hl7::{
    Hl7Error, Located, MAX_MESSAGE_LEN, Message, MessageBatch, MessageSource, SegmentPath, SegmentRules,
};
use crate::files::interrupt::Interrupt;
use crate::files::json::splice;
use crate::files::output::{Output, Target};
use keyfold::{FieldPolicy, RowBinding, Value, ValueType};
use keyfold_documents::{FieldCipher, count_sealed, refuse_elsewhere};
use spelling::Spelled;
use std::collections::HashMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use zeroize::Zeroizing;

struct Hl7Job {
    direction: Direction,
    pass_unmatched: bool,
    /// Deterministic fields first, since others may be bound to them.
    fields: Vec<FieldCipher>,
    rules: SegmentRules,
    /// The field of each rule.
    field_of_rule: Vec<usize>,
    /// Distinct row bindings, and which of them each field has.
    rows: Vec<RowPath>,
    row_of_field: Vec<Option<usize>>,
    /// Per field: whether something was selected.
    selected: Vec<AtomicBool>,
}

/// Where a row binding is, and which rule protects it, if one does.
struct RowPath {
    path: SegmentPath,
    rule: Option<usize>,
}

/// A message of a batch, with what was found in it.
struct Item<'b> {
    message: Message<'b>,
    found: Vec<Located>,
}

/// A value of a batch: in which message, and which of the values found there.
type Place = (usize, usize);

/// What takes the place of each value that was found, per message.
type Replacements = Vec<Vec<Option<Zeroizing<Vec<u8>>>>>;

/// What identifiers say in clear, where values are bound to them.
type Identifiers = HashMap<Place, Zeroizing<String>>;

pub(super) fn run(
    job: &Job<'_>,
    input: impl Read + Send,
    target: Target,
    interrupt: &Interrupt,
    progress: &mut Progress,
    counts: &mut Counts,
) -> Result<Output, Failure> {
    if job.direction == Direction::Rebind {
        let why = "rebind does not change HL7 messages: reveal them, change the identifiers, and protect them again";
        return Err(Failure::new(Exit::Usage, why));
    }
    let plan = Hl7Job::plan(job)?;
    let mut source = MessageSource::new(input, job.direction.limit(MAX_MESSAGE_LEN));
    let mut output = Output::create(target, job.args.force)?;
    let read = || source.next_batch().map_err(Failure::from);
    pump(job, read, |batch| plan.transform(&batch), interrupt, progress, counts, &mut output)?;
    if counts.records > 0 {
        plan.refuse_unused()?;
    }
    Ok(output)
}

impl Hl7Job {
    /// What is replaced, in which order, bound to what. Paths meet or they do not, whatever the messages are, so everything
    /// that the policy has wrong is found here.
    fn plan(job: &Job<'_>) -> Result<Self, Failure> {
        let elsewhere = |field: &FieldPolicy| field.columns.is_empty() && field.paths.is_empty();
        let has_segments = |field: &FieldPolicy| !field.segments.is_empty();
        let keys = job.keys(has_segments)?;
        refuse_elsewhere(&job.ring.policy(), |field| (field.segments.is_empty(), elsewhere(field)), "segments")?;
        let mut fields = keys.fields(has_segments)?;
        if fields.is_empty() {
            return Err(Failure::new(Exit::Policy, "no field of the configuration or the policies has HL7 segments"));
        }
        fields.sort_by_key(|field| !field.is_deterministic());
        let (mut paths, mut field_of_rule) = (Vec::new(), Vec::new());
        for (index, field) in fields.iter().enumerate() {
            let of_field = |failure: Failure| failure.at(format!("field {}", field.policy().name));
            if field.policy().value_type == Some(ValueType::Json) {
                return Err(of_field(Failure::new(Exit::Policy, "values of HL7 messages are no JSON")));
            }
            for path in &field.policy().segments {
                paths.push(SegmentPath::parse(path).map_err(|error| of_field(error.into()))?);
                field_of_rule.push(index);
            }
        }
        let rules = SegmentRules::new(paths)?;
        let (mut rows, mut row_of_field): (Vec<RowPath>, _) = (Vec::new(), Vec::new());
        for field in &fields {
            let of_field = |failure: Failure| failure.at(format!("field {}", field.policy().name));
            let path = match &field.policy().row_binding {
                RowBinding::Bound { segment: Some(path), .. } => SegmentPath::parse(path).map_err(Failure::from),
                RowBinding::Bound { segment: None, .. } => {
                    let why = "its row_binding names no HL7 segment; write { segment = … }";
                    Err(Failure::new(Exit::Policy, why))
                }
                _ => {
                    row_of_field.push(None);
                    continue;
                }
            };
            let path = path.map_err(of_field)?;
            let rule = rules.paths().iter().position(|other| other.overlaps(&path));
            if let Some(rule) = rule
                && (*rules.path(rule) != path || !fields[field_of_rule[rule]].is_deterministic())
            {
                let why = format!(
                    "is bound to {path}, but {} is protected: it must be the same place, of a deterministic field",
                    rules.path(rule)
                );
                return Err(Failure::new(Exit::Policy, format!("field {} {why}", field.policy().name)));
            }
            let row = rows.iter().position(|known| known.path == path).unwrap_or_else(|| {
                rows.push(RowPath { path, rule });
                rows.len() - 1
            });
            row_of_field.push(Some(row));
        }
        let selected = fields.iter().map(|_| AtomicBool::new(false)).collect();
        let (direction, pass_unmatched) = (job.direction, job.args.pass_unmatched);
        Ok(Self { direction, pass_unmatched, fields, rules, field_of_rule, rows, row_of_field, selected })
    }

    fn transform(&self, batch: &MessageBatch) -> Result<Done, Failure> {
        let mut counts = Counts { input_len: batch.raw_len() as u64, ..Counts::default() };
        // Per message: what is around it, and it, if there is one.
        let mut bytes = Zeroizing::new(Vec::with_capacity(batch.raw_len() * 4));
        let mut items = Vec::new();
        for (raw, number) in batch.messages() {
            match Message::parse(raw, number)? {
                Some(message) => items.push(self.item(message, &mut counts)?),
                // Without a message it is the only one of the file.
                None => bytes.extend_from_slice(raw),
            }
        }
        let mut replacements: Replacements = items.iter().map(|item| vec![None; item.found.len()]).collect();
        let mut identifiers = Identifiers::new();
        for (field, places) in self.places(&items).iter().enumerate().filter(|(_, places)| !places.is_empty()) {
            counts.values += places.len() as u64;
            match self.direction {
                Direction::Reencrypt => {
                    self.reencrypt(&items, field, places, &mut identifiers, &mut replacements, &mut counts)?;
                }
                _ => self.transform_field(&items, field, places, &mut identifiers, &mut replacements, &mut counts)?,
            }
        }
        for (item, replaced) in items.iter().zip(replacements) {
            let start = bytes.len();
            let spans = item.found.iter().map(|located| located.span.clone());
            let changed = spans.zip(replaced).filter_map(|(span, new)| Some((span, new?)));
            splice(item.message.raw(), changed, &mut bytes)?;
            self.check_output(item, &bytes[start..], &mut counts)?;
        }
        Ok(Done { bytes, counts })
    }

    /// A message, and what the policy selects in it.
    fn item<'b>(&self, message: Message<'b>, counts: &mut Counts) -> Result<Item<'b>, Failure> {
        let found = message.locate(&self.rules)?;
        if found.is_empty() {
            if !self.pass_unmatched {
                let why = "no field of the policy selects anything in the message; --pass-unmatched would pass it through as it is";
                return Err(Failure::new(Exit::Policy, why).at(format!("message {}", message.number())));
            }
            counts.unmatched += 1;
        }
        for located in &found {
            self.selected[self.field_of_rule[located.rule]].store(true, Ordering::Relaxed);
        }
        counts.records += 1;
        Ok(Item { message, found })
    }

    /// Where the values of each field are in a batch.
    fn places(&self, items: &[Item<'_>]) -> Vec<Vec<Place>> {
        let mut places = vec![Vec::new(); self.fields.len()];
        for (at, item) in items.iter().enumerate() {
            for (index, located) in item.found.iter().enumerate() {
                places[self.field_of_rule[located.rule]].push((at, index));
            }
        }
        places
    }

    /// Refuses fields that selected nothing in any message: a path with a typo leaves values in clear.
    fn refuse_unused(&self) -> Result<(), Failure> {
        let unused =
            |index: &usize| !self.selected[*index].load(Ordering::Relaxed) && !self.fields[*index].policy().optional;
        match (0..self.fields.len()).find(unused) {
            None => Ok(()),
            Some(index) => {
                let why = "its segments have no value in the whole input (a typo?); optional = true in the policy allows that";
                Err(Failure::new(Exit::Policy, format!("field {}: {why}", self.fields[index].policy().name)))
            }
        }
    }

    /// Encrypts or decrypts the values of one field in a batch.
    fn transform_field(
        &self,
        items: &[Item<'_>],
        field: usize,
        places: &[Place],
        identifiers: &mut Identifiers,
        replacements: &mut Replacements,
        counts: &mut Counts,
    ) -> Result<(), Failure> {
        let job = &self.fields[field];
        let at = |failure: RowFailure| self.at(items, field, places, failure);
        let spelled = self.spelled(items, field, places).map_err(at)?;
        let bindings = self.bindings(items, field, places, identifiers).map_err(at)?;
        let rows = bindings.as_ref().map(Bindings::rows);
        let texts: Vec<&str> = spelled.iter().map(Spelled::text).collect();
        match self.direction {
            Direction::Protect { seal_sealed } => {
                let mut values = Vec::with_capacity(texts.len());
                for (row, text) in texts.iter().enumerate() {
                    if !seal_sealed {
                        job.refuse_sealed(row, text).map_err(RowFailure::from).map_err(at)?;
                    }
                    let rest = job.policy().split_prefix(text).1;
                    values.push(match job.policy().value_type.unwrap_or(ValueType::Text) {
                        ValueType::Text => Value::Text(rest),
                        other => Value::from_text(other, rest)
                            .map_err(|error| at(RowFailure { row, failure: error.into() }))?,
                    });
                }
                let sealed = job.protect(&values, rows.as_deref()).map_err(RowFailure::from).map_err(at)?;
                for (row, place) in places.iter().enumerate() {
                    let mut new = Zeroizing::new(
                        spelled[row]
                            .spell(job.policy().split_prefix(texts[row]).0)
                            .map_err(|failure| at(RowFailure { row, failure }))?,
                    );
                    sealed.push(row, &mut new);
                    replacements[place.0][place.1] = Some(new);
                    self.remember(items, *place, texts[row], identifiers);
                }
            }
            _ => {
                let opened = job.reveal(&texts, rows.as_deref()).map_err(RowFailure::from).map_err(at)?;
                let (outdated, compromised) = opened.counts();
                counts.outdated += outdated;
                counts.compromised += compromised;
                for (row, place) in places.iter().enumerate() {
                    let none = || RowFailure::new(row, Exit::Data, "the value has no text form");
                    let rest = opened.text(row).ok_or_else(none).map_err(at)?;
                    let text = Zeroizing::new(format!("{}{rest}", job.policy().split_prefix(texts[row]).0));
                    let new = spelled[row].spell(&text).map_err(|failure| at(RowFailure { row, failure }))?;
                    replacements[place.0][place.1] = Some(Zeroizing::new(new));
                    self.remember(items, *place, &text, identifiers);
                }
            }
        }
        Ok(())
    }

    /// The failure of one of `places`, and where that is.
    fn at(&self, items: &[Item<'_>], field: usize, places: &[Place], failure: RowFailure) -> Failure {
        let (item, index) = places[failure.row];
        let (message, located) = (&items[item].message, &items[item].found[index]);
        let (path, name) = (self.rules.path(located.rule), &self.fields[field].policy().name);
        let (number, segment) = (message.number(), located.segment + 1);
        failure.failure.at(format!("message {number}, segment {segment}, {path}, field {name}"))
    }

    /// The texts of a field's values, spelled as they are sealed.
    fn spelled<'i>(
        &'i self,
        items: &'i [Item<'_>],
        field: usize,
        places: &[Place],
    ) -> Result<Vec<Spelled<'i>>, RowFailure> {
        let spelled = places.iter().enumerate().map(|(row, &(item, index))| {
            let Item { message, found } = &items[item];
            let (policy, path) = (&self.fields[field].policy(), self.rules.path(found[index].rule));
            Spelled::read(policy, path, message, found[index].span.clone())
                .map_err(|failure| RowFailure { row, failure })
        });
        spelled.collect()
    }

    /// Keeps what an identifier says, if values are bound to it.
    fn remember(&self, items: &[Item<'_>], place: Place, text: &str, identifiers: &mut Identifiers) {
        let rule = items[place.0].found[place.1].rule;
        if self.rows.iter().any(|row| row.rule == Some(rule)) {
            identifiers.insert(place, Zeroizing::new(text.to_owned()));
        }
    }

    /// The row bindings of a field's values: the identifier in the segment of the value or in the last one before it, or
    /// else in the first one of the message.
    fn bindings(
        &self,
        items: &[Item<'_>],
        field: usize,
        places: &[Place],
        identifiers: &Identifiers,
    ) -> Result<Option<Bindings>, RowFailure> {
        let Some(row) = self.row_of_field[field] else { return Ok(None) };
        let path = &self.rows[row].path;
        let mut bindings = Bindings { texts: Vec::new(), of_value: Vec::with_capacity(places.len()) };
        // The segments of the latest message that hold the identifier, and which of them was the latest.
        let mut latest: Option<(usize, Vec<usize>, usize)> = None;
        for (at, &(item, index)) in places.iter().enumerate() {
            let Item { message, found } = &items[item];
            if latest.as_ref().is_none_or(|(known, ..)| *known != item) {
                latest = Some((item, message.segments_of(path), usize::MAX));
            }
            let Some((_, segments, bound)) = &mut latest else { continue };
            let before = segments.partition_point(|&segment| segment <= found[index].segment);
            let failed = |failure: Failure| RowFailure { row: at, failure };
            let Some(&segment) = segments.get(before.saturating_sub(1)) else {
                let why = format!("the row binding {path} is not in the message: it has no such segment");
                return Err(failed(Failure::new(Exit::Data, why)));
            };
            if *bound != segment {
                bindings.texts.push(self.binding(items, item, row, segment, identifiers).map_err(failed)?);
                *bound = segment;
            }
            bindings.of_value.push(bindings.texts.len() - 1);
        }
        Ok(Some(bindings))
    }

    fn binding(
        &self,
        items: &[Item<'_>],
        item: usize,
        row: usize,
        segment: usize,
        identifiers: &Identifiers,
    ) -> Result<Zeroizing<String>, Failure> {
        let (RowPath { path, rule }, Item { message, found }) = (&self.rows[row], &items[item]);
        let wrong = |why: &str| {
            Failure::new(
                Exit::Data,
                format!("the row binding {path}, in segment {} of the message, {why}", segment + 1),
            )
        };
        let span = message.first(path, segment).ok_or_else(|| wrong("is empty"))?;
        let text = match rule {
            Some(_) => {
                let index = found.binary_search_by_key(&span.start, |located| located.span.start);
                let text = index.ok().and_then(|index| identifiers.get(&(item, index)));
                text.cloned().ok_or_else(|| Failure::new(Exit::Internal, "a protected row binding was not opened"))?
            }
            None => {
                let text = message.text(span).and_then(|text| message.delimiters().to_standard(text)).map_err(wrong)?;
                Zeroizing::new(text.into_owned())
            }
        };
        if *text == "\"\"" { Err(wrong("is null")) } else { Ok(text) }
    }

    /// After protecting: refuses what could not be revealed. After revealing: counts what still looks sealed.
    fn check_output(&self, item: &Item<'_>, out: &[u8], counts: &mut Counts) -> Result<(), Failure> {
        let max_len = Direction::Reveal.limit(MAX_MESSAGE_LEN);
        match self.direction {
            Direction::Reveal => counts.still_sealed += count_sealed(&String::from_utf8_lossy(out)),
            _ if out.len() > max_len => {
                return Err(Hl7Error::TooLong { message: item.message.number(), max_len }.into());
            }
            _ => {}
        }
        Ok(())
    }
}

/// The row bindings of values: texts, and which of them each value has.
struct Bindings {
    texts: Vec<Zeroizing<String>>,
    of_value: Vec<usize>,
}

impl Bindings {
    fn rows(&self) -> Vec<&[u8]> {
        self.of_value.iter().map(|&text| self.texts[text].as_bytes()).collect()
    }
}
