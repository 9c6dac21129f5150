//! Values of messages that are under an older key, under the current one.

use super::column::{Column, Outcome};
use crate::failure::Failure;
use zeroize::Zeroizing;

impl Column<'_> {
    /// Seals what is stale again.
    pub(super) fn reencrypt(&self, outcome: &mut Outcome) -> Result<(), Failure> {
        let job = self.job();
        let texts = self.texts();
        let stale = job.stale(&texts).map_err(|error| self.at(error))?;
        outcome.counts.values += texts.len() as u64;
        outcome.counts.outdated += stale.len() as u64;
        if !stale.is_empty() {
            let bindings = self.bindings(&outcome.identifiers).map_err(|error| self.at(error))?;
            for (row, sealed) in stale {
                let binding = bindings.as_ref().map(|bindings| bindings[row].as_slice());
                let (text, compromised) =
                    job.reseal(row, texts[row], &sealed, binding).map_err(|error| self.at(error))?;
                outcome.counts.compromised += u64::from(compromised);
                let new = self.spell(row, &String::from_utf8_lossy(&text))?;
                self.replace(row, Zeroizing::new(new), outcome);
            }
        }
        // Others may be bound to it, and come later.
        if self.plan.is_bound_to(self.field) {
            let opened = job.reveal(&texts, None).map_err(|error| self.at(error))?;
            for (row, text) in texts.iter().enumerate() {
                let rest = opened.text(row).unwrap_or_default();
                let text = Zeroizing::new(format!("{}{rest}", job.policy().split_prefix(text).0));
                self.remember(row, &text, outcome);
            }
        }
        Ok(())
    }
}
