//! Cells whose values are under an older key, under the current one.

use super::{CsvJob, RowSource, at};
use crate::failure::{Exit, Failure};
use crate::files::csv::{CsvBatch, MAX_ROW_LEN};
use crate::transform::{Counts, Direction, Done};
use keyfold_documents::Revealed;
use std::collections::BTreeSet;
use zeroize::Zeroizing;

impl CsvJob<'_> {
    /// Seals what is stale in a batch again. Every other byte stays as it is.
    pub(super) fn reencrypt(&self, batch: &CsvBatch) -> Result<Done, Failure> {
        let mut counts =
            Counts { input_len: batch.raw_len() as u64, records: batch.rows() as u64, ..Counts::default() };
        // Per column, the new texts of its stale cells.
        let mut texts: Vec<Vec<Option<Vec<u8>>>> = Vec::with_capacity(self.columns.len());
        let (mut opened, mut bindings) = (Vec::new(), None);
        for job in &self.columns {
            let field = &self.fields[job.field];
            let cells: Vec<&str> =
                (0..batch.rows()).map(|row| batch.text(row, job.column)).collect::<Result<_, _>>()?;
            let stale = field.stale(&cells).map_err(|failure| at(batch, job, failure))?;
            counts.values += cells.len() as u64;
            counts.outdated += stale.len() as u64;
            let mut new = vec![None; cells.len()];
            if !stale.is_empty() {
                self.open_identifiers(batch, job.row, &mut opened)?;
                let rows = self.rows(batch, job, &opened, &mut bindings)?;
                for (row, sealed) in stale {
                    let binding = rows.as_ref().map(|rows| rows[row]);
                    let (text, compromised) =
                        field.reseal(row, cells[row], &sealed, binding).map_err(|failure| at(batch, job, failure))?;
                    counts.compromised += u64::from(compromised);
                    new[row] = Some(text);
                }
            }
            texts.push(new);
        }
        let changed: BTreeSet<usize> =
            (0..batch.rows()).filter(|&row| texts.iter().any(|column| column[row].is_some())).collect();
        for &row in &changed {
            let (mut old, mut new) = (0, 0);
            for (job, column) in self.columns.iter().zip(&texts) {
                if let Some(text) = &column[row] {
                    old += batch.cell(row, job.column).len();
                    new += text.len();
                }
            }
            let max_len = Direction::Reveal.limit(MAX_ROW_LEN);
            if batch.row_len(row) + new > max_len + old {
                let why = format!("the row would be longer than {max_len} bytes, and could not be revealed");
                return Err(Failure::new(Exit::Data, why).at(batch.place(row, 0)));
            }
        }
        let columns: Vec<usize> = self.columns.iter().map(|job| job.column).collect();
        let mut bytes = Zeroizing::new(Vec::with_capacity(batch.raw_len()));
        batch.render_rows(&columns, changed, &mut bytes, |row, k, out| {
            let text = texts[k][row].as_deref().unwrap_or_else(|| batch.cell(row, columns[k]));
            out.extend_from_slice(text);
        });
        Ok(Done { bytes, counts })
    }

    /// Opens the deterministic columns up to the one that a column is bound to, once per batch.
    fn open_identifiers(
        &self,
        batch: &CsvBatch,
        row: Option<RowSource>,
        opened: &mut Vec<Revealed>,
    ) -> Result<(), Failure> {
        let Some(RowSource::Protected(index)) = row else { return Ok(()) };
        for job in self.columns.iter().take(index + 1).skip(opened.len()) {
            let cells: Vec<&str> =
                (0..batch.rows()).map(|row| batch.text(row, job.column)).collect::<Result<_, _>>()?;
            let column = self.fields[job.field].open(&cells, None).map_err(|failure| at(batch, job, failure))?;
            opened.push(Revealed::Opened(column));
        }
        Ok(())
    }
}
