//! HL7 v2: the values at the policy's segments are replaced, every other byte stays.

mod clear;
mod column;
mod reencrypt;
mod rows;
mod spelling;

use super::progress::Progress;
use super::{Counts, Direction, Done, Job, pump, unauthenticated};
use crate::failure::{Exit, Failure};
use crate::files::hl7::{
    Hl7Error, Located, MAX_MESSAGE_LEN, Message, MessageBatch, MessageSource, SegmentPath, SegmentRules,
};
use crate::files::interrupt::Interrupt;
use crate::files::json::splice;
use crate::files::output::Output;
pub(crate) use clear::Clear;
use column::{Column, Outcome};
use keyfold::{FieldPolicy, ValueType};
use keyfold_documents::{FieldCipher, Locator, Used, count_sealed};
use rows::RowPlaces;
use std::io::Read;
use zeroize::Zeroizing;

struct Hl7Job {
    direction: Direction,
    pass_unmatched: bool,
    /// Deterministic fields first, since others may be bound to them.
    fields: Vec<FieldCipher>,
    rules: SegmentRules,
    /// The field of each rule.
    field_of_rule: Vec<usize>,
    /// What the values of each field are bound to.
    rows: Vec<Option<RowPlaces>>,
    clear: Clear,
    used: Used,
}

/// A message of a batch, with what was found in it.
struct Item<'b> {
    message: Message<'b>,
    found: Vec<Located>,
}

/// A value of a batch: in which message, and which of the values found there.
type Place = (usize, usize);

pub(super) fn run(
    job: &Job<'_>,
    input: impl Read + Send,
    output: &mut Output,
    interrupt: &Interrupt,
    progress: &mut Progress,
    counts: &mut Counts,
) -> Result<(), Failure> {
    if job.direction == Direction::Rebind {
        let why = "rebind does not change HL7 messages: reveal them, change the identifiers, and protect them again";
        return Err(Failure::new(Exit::Usage, why));
    }
    let plan = Hl7Job::plan(job)?;
    counts.unauthenticated = unauthenticated(&plan.fields);
    let mut source = MessageSource::new(input, job.direction.limit(MAX_MESSAGE_LEN));
    let read = || source.next_batch().map_err(Failure::from);
    pump(job, read, |batch| plan.transform(&batch), interrupt, progress, counts, output)?;
    plan.used.refuse_unused(&plan.fields)?;
    counts.clear_columns = plan.clear.into_left();
    Ok(())
}

impl Hl7Job {
    /// What is replaced, in which order, bound to what. Paths meet or they do not, whatever the messages are, so everything
    /// that the policy has wrong is found here.
    fn plan(job: &Job<'_>) -> Result<Self, Failure> {
        Locator::Segments.refuse_elsewhere(&job.ring.policy())?;
        let has_segments = |field: &FieldPolicy| !field.segments.is_empty();
        let none = "no field of the configuration or the policies has HL7 segments";
        let fields = job.keys(has_segments)?.plan(has_segments, none)?;
        let (mut paths, mut field_of_rule) = (Vec::new(), Vec::new());
        for (index, field) in fields.iter().enumerate() {
            let of_field = |failure: Failure| failure.at(format!("field {}", field.policy().name));
            if field.policy().value_type == Some(ValueType::Json) {
                return Err(of_field(Failure::new(Exit::Policy, "values of HL7 messages are no JSON")));
            }
            if let (Some(index), Direction::Protect { .. }) = (field.indexes().first(), job.direction) {
                let why = "no message has a place for the tokens of its index";
                let how = "give the segments a field of their own without it, or the index no column";
                return Err(of_field(Failure::new(Exit::Policy, format!("{why}, column {:?}: {how}", index.column()))));
            }
            // What it says could as well be meant for the segments.
            if field.policy().paths.is_empty() && !field.policy().only_if.is_empty() {
                return Err(of_field(Failure::new(
                    Exit::Policy,
                    "only_if is about JSON paths, and it has segments alone",
                )));
            }
            for path in &field.policy().segments {
                paths.push(SegmentPath::parse(path).map_err(|error| of_field(error.into()))?);
                field_of_rule.push(index);
            }
        }
        let rules = SegmentRules::new(paths)?;
        let may_be_row = |rule: usize| fields[field_of_rule[rule]].may_be_row();
        let rows = fields.iter().map(|field| {
            RowPlaces::of(field.policy(), &rules, may_be_row)
                .map_err(|failure| failure.at(format!("field {}", field.policy().name)))
        });
        let rows = rows.collect::<Result<_, _>>()?;
        let clear = Clear::new(job.ring.policy().hl7(), &rules).map_err(|failure| failure.at("[hl7]"))?;
        let used = Used::new(fields.len());
        let (direction, pass_unmatched) = (job.direction, job.args.pass_unmatched);
        Ok(Self { direction, pass_unmatched, fields, rules, field_of_rule, rows, clear, used })
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
        let mut outcome = Outcome::new(&items, counts);
        for (field, places) in self.places(&items).iter().enumerate().filter(|(_, places)| !places.is_empty()) {
            let column = Column::read(self, &items, field, places)?;
            match self.direction {
                Direction::Protect { seal_sealed } => column.protect(seal_sealed, &mut outcome)?,
                Direction::Reencrypt => column.reencrypt(&mut outcome)?,
                Direction::Reveal | Direction::Rebind => column.reveal(&mut outcome)?,
            }
        }
        let Outcome { replacements, mut counts, .. } = outcome;
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
        if matches!(self.direction, Direction::Protect { .. }) {
            self.clear.check(&message, &self.rules)?;
        }
        let found = message.locate(&self.rules)?;
        if found.is_empty() {
            if !self.pass_unmatched {
                let why = "no field of the policy selects anything in the message; --pass-unmatched would pass it through as it is";
                return Err(Failure::new(Exit::Policy, why).at(format!("message {}", message.number())));
            }
            counts.unmatched += 1;
        }
        for located in &found {
            self.used.selected(self.field_of_rule[located.rule]);
        }
        (0..self.fields.len()).for_each(|field| self.used.applied(field));
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

    /// Whether values are bound to what this rule selects.
    fn is_identifier(&self, rule: usize) -> bool {
        self.rows.iter().flatten().any(|row| row.is_bound_to(rule))
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
