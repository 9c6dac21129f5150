//! Values of messages that are under an older key, under the current one.

use super::{Bindings, Hl7Job, Identifiers, Item, Place, Replacements, Spelled};
use crate::failure::{Failure, RowFailure};
use crate::transform::Counts;
use zeroize::Zeroizing;

impl Hl7Job {
    /// Seals what is stale of a field again.
    pub(super) fn reencrypt(
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
        let texts: Vec<&str> = spelled.iter().map(Spelled::text).collect();
        let stale = job.stale(&texts).map_err(RowFailure::from).map_err(at)?;
        counts.outdated += stale.len() as u64;
        if !stale.is_empty() {
            let bindings = self.bindings(items, field, places, identifiers).map_err(at)?;
            let rows = bindings.as_ref().map(Bindings::rows);
            for (row, sealed) in stale {
                let binding = rows.as_ref().map(|rows| rows[row]);
                let (text, compromised) =
                    job.reseal(row, texts[row], &sealed, binding).map_err(RowFailure::from).map_err(at)?;
                counts.compromised += u64::from(compromised);
                let new = spelled[row].spell(&String::from_utf8_lossy(&text));
                let (item, index) = places[row];
                replacements[item][index] =
                    Some(Zeroizing::new(new.map_err(|failure| at(RowFailure { row, failure }))?));
            }
        }
        // Others may be bound to it, and come later.
        if self.rows.iter().any(|row| row.rule.is_some_and(|rule| self.field_of_rule[rule] == field)) {
            let opened = job.reveal(&texts, None).map_err(RowFailure::from).map_err(at)?;
            for (row, place) in places.iter().enumerate() {
                let rest = opened.text(row).unwrap_or_default();
                let text = Zeroizing::new(format!("{}{rest}", job.policy().split_prefix(texts[row]).0));
                self.remember(items, *place, &text, identifiers);
            }
        }
        Ok(())
    }
}
