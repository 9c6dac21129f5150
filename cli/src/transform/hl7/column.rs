//! The values of one field in a batch of messages.

use super::spelling::Spelled;
use super::{Counts, Hl7Job, Item, Place};
use crate::failure::{Exit, Failure, RowFailure};
use keyfold::{Value, ValueType};
use keyfold_documents::FieldCipher;
use std::collections::HashMap;
use zeroize::Zeroizing;

/// What identifiers say in clear, where values are bound to them.
pub(super) type Identifiers = HashMap<Place, Zeroizing<String>>;

/// What becomes of a batch.
pub(super) struct Outcome {
    /// What takes the place of each value that was found, per message.
    pub(super) replacements: Vec<Vec<Option<Zeroizing<Vec<u8>>>>>,
    pub(super) identifiers: Identifiers,
    pub(super) counts: Counts,
}

/// The values of a field: where they are, and their texts, spelled as they are sealed.
pub(super) struct Column<'i> {
    pub(super) plan: &'i Hl7Job,
    pub(super) items: &'i [Item<'i>],
    pub(super) field: usize,
    pub(super) places: &'i [Place],
    spelled: Vec<Spelled<'i>>,
}

impl Outcome {
    /// Nothing is replaced yet.
    pub(super) fn new(items: &[Item<'_>], counts: Counts) -> Self {
        let replacements = items.iter().map(|item| vec![None; item.found.len()]).collect();
        Self { replacements, identifiers: Identifiers::new(), counts }
    }
}

impl<'i> Column<'i> {
    pub(super) fn read(
        plan: &'i Hl7Job,
        items: &'i [Item<'i>],
        field: usize,
        places: &'i [Place],
    ) -> Result<Self, Failure> {
        let mut column = Self { plan, items, field, places, spelled: Vec::with_capacity(places.len()) };
        for (row, &(item, index)) in places.iter().enumerate() {
            let Item { message, found } = &items[item];
            let (policy, path) = (column.job().policy(), plan.rules.path(found[index].rule));
            let spelled = Spelled::read(policy, path, message, found[index].span.clone());
            let spelled = spelled.map_err(|failure| column.at(RowFailure { row: Some(row), failure }))?;
            column.spelled.push(spelled);
        }
        Ok(column)
    }

    pub(super) fn job(&self) -> &'i FieldCipher {
        &self.plan.fields[self.field]
    }

    pub(super) fn texts(&self) -> Vec<&str> {
        self.spelled.iter().map(Spelled::text).collect()
    }

    /// A failure, and where that is.
    pub(super) fn at(&self, failure: impl Into<RowFailure>) -> Failure {
        let failure = failure.into();
        let Some((item, index)) = failure.row.map(|row| self.places[row]) else { return failure.failure };
        let (message, located) = (&self.items[item].message, &self.items[item].found[index]);
        let (path, name) = (self.plan.rules.path(located.rule), &self.job().policy().name);
        let (number, segment) = (message.number(), located.segment + 1);
        failure.failure.at(format!("message {number}, segment {segment}, {path}, field {name}"))
    }

    /// Encrypts the values.
    pub(super) fn protect(&self, seal_sealed: bool, outcome: &mut Outcome) -> Result<(), Failure> {
        let job = self.job();
        let texts = self.texts();
        let mut values = Vec::with_capacity(texts.len());
        for (row, text) in texts.iter().enumerate() {
            if !seal_sealed {
                job.refuse_sealed(row, text).map_err(|error| self.at(error))?;
            }
            let rest = job.policy().split_prefix(text).1;
            values.push(match job.policy().value_type.unwrap_or(ValueType::Text) {
                ValueType::Text => Value::Text(rest),
                other => Value::from_text(other, rest)
                    .map_err(|error| self.at(RowFailure { row: Some(row), failure: error.into() }))?,
            });
        }
        let bindings = self.bindings(&outcome.identifiers).map_err(|error| self.at(error))?;
        let rows = bindings.as_ref().map(|bindings| bindings.iter().map(|row| row.as_slice()).collect::<Vec<_>>());
        let sealed = job.protect(&values, rows.as_deref()).map_err(|error| self.at(error))?;
        outcome.counts.values += texts.len() as u64;
        for (row, text) in texts.iter().enumerate() {
            let mut new = Zeroizing::new(job.policy().split_prefix(text).0.as_bytes().to_vec());
            sealed.push(row, &mut new);
            // A value that keeps its format keeps its delimiters, which may be others in this message.
            let new = self.spell(row, &String::from_utf8_lossy(&new))?;
            self.replace(row, Zeroizing::new(new), outcome);
            self.remember(row, text, outcome);
        }
        Ok(())
    }

    /// Decrypts the values.
    pub(super) fn reveal(&self, outcome: &mut Outcome) -> Result<(), Failure> {
        let job = self.job();
        let texts = self.texts();
        let bindings = self.bindings(&outcome.identifiers).map_err(|error| self.at(error))?;
        let rows = bindings.as_ref().map(|bindings| bindings.iter().map(|row| row.as_slice()).collect::<Vec<_>>());
        let opened = job.reveal(&texts, rows.as_deref()).map_err(|error| self.at(error))?;
        let (outdated, compromised) = opened.counts();
        outcome.counts.values += texts.len() as u64;
        outcome.counts.outdated += outdated;
        outcome.counts.compromised += compromised;
        for (row, text) in texts.iter().enumerate() {
            let none = || self.at(RowFailure::new(row, Exit::Data, "the value has no text form"));
            let rest = opened.text(row).ok_or_else(none)?;
            let text = Zeroizing::new(format!("{}{rest}", job.policy().split_prefix(text).0));
            self.replace(row, Zeroizing::new(self.spell(row, &text)?), outcome);
            self.remember(row, &text, outcome);
        }
        Ok(())
    }

    /// `text` as it stands at the place of a value.
    pub(super) fn spell(&self, row: usize, text: &str) -> Result<Vec<u8>, Failure> {
        self.spelled[row].spell(text).map_err(|failure| self.at(RowFailure { row: Some(row), failure }))
    }

    pub(super) fn replace(&self, row: usize, new: Zeroizing<Vec<u8>>, outcome: &mut Outcome) {
        let (item, index) = self.places[row];
        outcome.replacements[item][index] = Some(new);
    }

    /// Keeps what an identifier says, if values are bound to it.
    pub(super) fn remember(&self, row: usize, text: &str, outcome: &mut Outcome) {
        let (item, index) = self.places[row];
        if self.plan.is_identifier(self.items[item].found[index].rule) {
            outcome.identifiers.insert((item, index), Zeroizing::new(text.to_owned()));
        }
    }
}
