//! Rows of a CSV file that get another identifier.

use super::{CsvJob, RowSource, at};
use crate::failure::{Exit, Failure};
use crate::files::csv::{CsvBatch, MAX_ROW_LEN};
use crate::transform::merges::Merge;
use crate::transform::{Counts, Direction, Done};
use keyfold::{ColumnBytes, Value};
use keyfold_documents::push_sealed;
use zeroize::Zeroizing;

/// A row whose identifier the map replaces.
struct Moved<'m> {
    row: usize,
    from: Zeroizing<Vec<u8>>,
    merge: &'m Merge,
}

impl CsvJob<'_> {
    /// Replaces the identifiers at `source` that the map names, and seals what is bound to them for their new row.
    pub(super) fn rebind(&self, batch: &CsvBatch, source: RowSource) -> Result<Done, Failure> {
        let clear = match source {
            RowSource::Clear(_) => None,
            RowSource::Protected(index) => {
                let job = &self.columns[index];
                let texts: Vec<&str> =
                    (0..batch.rows()).map(|row| batch.text(row, job.column)).collect::<Result<_, _>>()?;
                Some(self.fields[job.field].open(&texts, None).map_err(|failure| at(batch, job, failure))?)
            }
        };
        let bindings = self.bindings(batch, source, clear.as_ref())?;
        let moved: Vec<Moved<'_>> = bindings
            .into_iter()
            .enumerate()
            .filter_map(|(row, from)| {
                let from = Zeroizing::new(from.into_owned());
                Some(Moved { row, merge: self.merges.merge(&from)?, from })
            })
            .collect();
        let mut columns = vec![self.column_of(source)];
        let types = clear.as_ref().map(|clear| clear.types());
        let mut texts = vec![self.identifiers(batch, source, &moved, types)?];
        let mut counts =
            Counts { input_len: batch.raw_len() as u64, records: batch.rows() as u64, ..Counts::default() };
        for job in self.columns.iter().filter(|job| job.row == Some(source)) {
            let sealed: Vec<&str> =
                moved.iter().map(|moved| batch.text(moved.row, job.column)).collect::<Result<_, _>>()?;
            let from: Vec<&[u8]> = moved.iter().map(|moved| &moved.from[..]).collect();
            let to: Vec<&[u8]> = moved.iter().map(|moved| moved.merge.to.as_bytes()).collect();
            let rebound = self.fields[job.field].rebind(&sealed, &from, &to).map_err(|mut failure| {
                failure.row = failure.row.and_then(|row| moved.get(row)).map(|moved| moved.row);
                at(batch, job, failure)
            })?;
            columns.push(job.column);
            texts.push((0..moved.len()).map(|index| text_of(rebound.bytes(index))).collect());
            counts.values += moved.len() as u64;
        }
        counts.rebound = moved.len() as u64;
        for (index, moved) in moved.iter().enumerate() {
            let old: usize = columns.iter().map(|&column| batch.cell(moved.row, column).len()).sum();
            let new: usize = texts.iter().map(|texts| texts[index].len()).sum();
            let max_len = Direction::Reveal.limit(MAX_ROW_LEN);
            if batch.row_len(moved.row) + new > max_len + old {
                let why = format!("the row would be longer than {max_len} bytes, and could not be revealed");
                return Err(Failure::new(Exit::Data, why).at(batch.place(moved.row, columns[0])));
            }
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(batch.raw_len() + batch.raw_len() / 8));
        let mut index = 0;
        let rows = moved.iter().map(|moved| moved.row);
        batch.render_rows(&columns, rows, &mut bytes, |row, k, out| {
            if moved[index].row != row {
                index += 1;
            }
            out.extend_from_slice(&texts[k][index]);
        });
        Ok(Done { bytes, counts })
    }

    /// What stands in the place of the identifiers: the new ones, sealed where the old ones were.
    fn identifiers(
        &self,
        batch: &CsvBatch,
        source: RowSource,
        moved: &[Moved<'_>],
        types: Option<&[keyfold::ValueType]>,
    ) -> Result<Vec<Vec<u8>>, Failure> {
        let (RowSource::Protected(index), Some(types)) = (source, types) else {
            return Ok(moved.iter().map(|moved| moved.merge.to.as_bytes().to_vec()).collect());
        };
        let job = &self.columns[index];
        let field = &self.fields[job.field];
        let split: Vec<(&str, &str)> = moved.iter().map(|moved| field.policy().split_prefix(&moved.merge.to)).collect();
        let mut values = Vec::with_capacity(moved.len());
        for (moved, (_, rest)) in moved.iter().zip(&split) {
            let value = Value::from_text(types[moved.row], rest);
            values.push(value.map_err(|error| {
                Failure::from(error).at(format!("the new identifier of {}", batch.place(moved.row, job.column)))
            })?);
        }
        let protected = field.protect(&values, None).map_err(|mut failure| {
            failure.row = failure.row.and_then(|row| moved.get(row)).map(|moved| moved.row);
            at(batch, job, failure)
        })?;
        let text = |(row, (prefix, _)): (usize, &(&str, &str))| {
            let mut text = prefix.as_bytes().to_vec();
            protected.push(row, &mut text);
            text
        };
        Ok(split.iter().enumerate().map(text).collect())
    }
}

fn text_of(sealed: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    push_sealed(sealed, &mut text);
    text
}
