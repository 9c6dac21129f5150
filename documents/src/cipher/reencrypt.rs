//! Values of documents that are under an older key, under the current one.

use super::lines::Line;
use super::replaced::Replaced;
use super::values::{push_text, sealed_texts};
use super::{DocumentCipher, DocumentCounts, Place, RowFailed};
use crate::{DocumentError, Token};

impl DocumentCipher<'_> {
    /// Seals what is stale in a batch again.
    pub(super) fn reencrypt(
        &self,
        lines: &[Line<'_>],
        replaced: &mut [Replaced],
        counts: &mut DocumentCounts,
    ) -> Result<(), DocumentError> {
        let mut opened: Vec<Replaced> = lines.iter().map(Line::replaced).collect();
        for (field, places) in self.places(lines).into_iter().enumerate() {
            if places.is_empty() {
                continue;
            }
            counts.values += places.len() as u64;
            self.reencrypt_field(lines, field, &places, &opened, replaced, counts)?;
            // Others may be bound to it, and come later.
            if self.fields[field].may_be_row() && self.row_of_field.iter().any(Option::is_some) {
                self.transform_field(lines, field, &places, &mut opened, &mut DocumentCounts::default())?;
            }
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "what a batch is, and where it goes")]
    fn reencrypt_field(
        &self,
        lines: &[Line<'_>],
        field: usize,
        places: &[Place],
        opened: &[Replaced],
        replaced: &mut [Replaced],
        counts: &mut DocumentCounts,
    ) -> Result<(), DocumentError> {
        let job = &self.fields[field];
        let at = |failed: RowFailed| failed.of(job, lines, places);
        let tokens: Vec<Token<'_>> = places.iter().map(|&(line, found)| lines[line].token(found)).collect();
        let texts = sealed_texts(&tokens).map_err(at)?;
        let stale = job.stale(&texts).map_err(RowFailed::from).map_err(at)?;
        counts.outdated += stale.len() as u64;
        if stale.is_empty() {
            return Ok(());
        }
        let bindings = self.rows(lines, field, places, opened).map_err(at)?;
        for (row, sealed) in stale {
            let (line, found) = places[row];
            let binding = bindings.as_ref().map(|bindings| bindings[&line].as_bytes());
            let (text, compromised) =
                job.reseal(row, texts[row], &sealed, binding).map_err(RowFailed::from).map_err(at)?;
            counts.compromised += u64::from(compromised);
            replaced[line].set(found, |out| push_text(&String::from_utf8_lossy(&text), out));
        }
        Ok(())
    }
}
