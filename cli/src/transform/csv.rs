//! CSV: named columns are replaced, every other byte stays.

use super::field::{FieldJob, RowFailure, push_sealed};
use super::progress::Progress;
use super::{Counts, Direction, Done, Job, pump};
use crate::failure::{Exit, Failure};
use crate::files::csv::{CsvBatch, CsvOptions, CsvSource};
use crate::files::interrupt::Interrupt;
use crate::files::output::{Output, Target};
use keyfold::{ColumnBytes, OpenedColumn, RowBinding, SealedColumn, Value, ValueType};
use std::collections::BTreeSet;
use std::io::Read;
use zeroize::Zeroizing;

/// A column that is protected.
struct ColumnJob {
    /// Position in the file.
    column: usize,
    /// Index of its field.
    field: usize,
    row: Option<RowSource>,
}

/// Where a row binding comes from.
enum RowSource {
    /// A column that is in clear in the file.
    Clear(usize),
    /// A protected column, by its index among the jobs: opened before the columns that are bound to it.
    Protected(usize),
}

struct CsvJob {
    direction: Direction,
    seal_sealed: bool,
    fields: Vec<FieldJob>,
    /// Columns that are row bindings of others come first.
    columns: Vec<ColumnJob>,
}

pub(super) fn run(
    job: &Job<'_>,
    input: impl Read + Send,
    target: Target,
    interrupt: &Interrupt,
    progress: &mut Progress,
    counts: &mut Counts,
) -> Result<Output, Failure> {
    let policy = job.ring.policy();
    let mut named = BTreeSet::new();
    for field in policy.fields().filter(|field| !field.columns.is_empty()) {
        named.extend(field.columns.iter().cloned());
        if let RowBinding::Bound { column: Some(column), .. } = &field.row_binding {
            named.insert(column.clone());
        }
    }
    let named: Vec<String> = named.into_iter().collect();
    if named.is_empty() {
        return Err(Failure::new(Exit::Policy, "no field of the configuration or the policies names a CSV column"));
    }
    let mut source =
        CsvSource::new(input, CsvOptions { delimiter: job.args.delimiter, ..CsvOptions::new(named.clone()) })?;
    let position = |name: &str| named.iter().position(|n| n == name).and_then(|index| source.positions()[index]);
    let plan = CsvJob::plan(job, &position)?;
    let mut output = Output::create(target, job.args.force)?;
    output.write(source.header_raw())?;
    let read = || source.next_batch().map_err(Failure::from);
    pump(job, read, |batch| plan.transform(&batch), interrupt, progress, counts, &mut output)?;
    Ok(output)
}

impl CsvJob {
    /// Which columns are replaced, in which order, bound to what.
    fn plan(job: &Job<'_>, position: &impl Fn(&str) -> Option<usize>) -> Result<Self, Failure> {
        let missing = |field: &str, column: &str| {
            Failure::new(
                Exit::Policy,
                format!("field {field}: the input has no column {column:?}; nothing was written"),
            )
        };
        let present = |field: &keyfold::FieldPolicy| field.columns.iter().any(|column| position(column).is_some());
        for field in job.ring.policy().fields().filter(|field| !field.optional) {
            if let Some(column) = field.columns.iter().find(|column| position(column).is_none()) {
                return Err(missing(&field.name, column));
            }
        }
        let mut fields = job.fields(present)?;
        // Deterministic columns may be what others are bound to, so they are opened first.
        fields.sort_by_key(|field| !field.is_deterministic());
        let mut columns: Vec<ColumnJob> = Vec::new();
        for (index, field) in fields.iter().enumerate() {
            for name in &field.policy.columns {
                let Some(column) = position(name) else { continue };
                if columns.iter().any(|other| other.column == column) {
                    return Err(Failure::new(
                        Exit::Policy,
                        format!("field {}: two fields name the column {name:?}", field.policy.name),
                    ));
                }
                columns.push(ColumnJob { column, field: index, row: None });
            }
        }
        for index in 0..columns.len() {
            let field = &fields[columns[index].field];
            let name = match &field.policy.row_binding {
                RowBinding::Bound { column: Some(name), .. } => name,
                RowBinding::Bound { column: None, .. } => {
                    let why = "its row_binding names no CSV column; write { column = …, path = … }";
                    return Err(Failure::new(Exit::Policy, format!("field {}: {why}", field.policy.name)));
                }
                _ => continue,
            };
            let column = position(name).ok_or_else(|| missing(&field.policy.name, name))?;
            let protected = columns.iter().position(|other| other.column == column);
            if protected.is_some_and(|at| !fields[columns[at].field].is_deterministic()) {
                let why = format!("is bound to the column {name:?}, which is protected and so must be deterministic");
                return Err(Failure::new(Exit::Policy, format!("field {} {why}", field.policy.name)));
            }
            columns[index].row = Some(protected.map_or(RowSource::Clear(column), RowSource::Protected));
        }
        Ok(Self { direction: job.direction, seal_sealed: job.args.seal_sealed, fields, columns })
    }

    fn transform(&self, batch: &CsvBatch) -> Result<Done, Failure> {
        let mut bytes = Zeroizing::new(Vec::new());
        let columns: Vec<usize> = self.columns.iter().map(|job| job.column).collect();
        let mut counts = Counts {
            input_len: batch.raw_len() as u64,
            records: batch.rows() as u64,
            values: (batch.rows() * columns.len()) as u64,
            ..Counts::default()
        };
        match self.direction {
            Direction::Protect => {
                bytes.reserve(batch.raw_len() + batch.rows() * columns.len() * 112);
                let sealed = self.protect(batch)?;
                batch.render(&columns, &mut bytes, |row, k, out| {
                    let field = &self.fields[self.columns[k].field];
                    // The cell was checked to be text when it was sealed.
                    let text = std::str::from_utf8(batch.cell(row, columns[k])).unwrap_or_default();
                    out.extend_from_slice(field.policy.split_prefix(text).0.as_bytes());
                    push_sealed(sealed[k].bytes(row), out);
                });
            }
            Direction::Reveal => {
                bytes.reserve(batch.raw_len());
                let opened = self.reveal(batch)?;
                for (k, column) in opened.iter().enumerate() {
                    counts.outdated += column.outdated() as u64;
                    self.check_texts(batch, k, column)?;
                }
                batch.render(&columns, &mut bytes, |row, k, out| {
                    let field = &self.fields[self.columns[k].field];
                    let text = std::str::from_utf8(batch.cell(row, columns[k])).unwrap_or_default();
                    out.extend_from_slice(field.policy.split_prefix(text).0.as_bytes());
                    out.extend_from_slice(opened[k].value(row).to_text().unwrap_or_default().as_bytes());
                });
            }
        }
        Ok(Done { bytes, counts })
    }

    fn protect(&self, batch: &CsvBatch) -> Result<Vec<SealedColumn>, Failure> {
        self.columns
            .iter()
            .map(|job| {
                let field = &self.fields[job.field];
                let value_type = field.policy.value_type.unwrap_or(ValueType::Text);
                let mut values = Vec::with_capacity(batch.rows());
                for row in 0..batch.rows() {
                    let text = batch.text(row, job.column)?;
                    if !self.seal_sealed {
                        field.refuse_sealed(row, text).map_err(|failure| at(batch, job, failure))?;
                    }
                    let (_, rest) = field.policy.split_prefix(text);
                    let value = Value::from_text(value_type, rest);
                    values.push(value.map_err(|error| Failure::from(error).at(batch.place(row, job.column)))?);
                }
                let rows = self.rows(batch, job, &[])?;
                let rows: Option<Vec<&[u8]>> = rows.as_ref().map(|rows| rows.iter().map(|row| &row[..]).collect());
                field.protect(&values, rows.as_deref()).map_err(|failure| at(batch, job, failure))
            })
            .collect()
    }

    fn reveal(&self, batch: &CsvBatch) -> Result<Vec<OpenedColumn>, Failure> {
        let mut opened = Vec::with_capacity(self.columns.len());
        for job in &self.columns {
            let texts: Vec<&str> =
                (0..batch.rows()).map(|row| batch.text(row, job.column)).collect::<Result<_, _>>()?;
            let rows = self.rows(batch, job, &opened)?;
            let rows: Option<Vec<&[u8]>> = rows.as_ref().map(|rows| rows.iter().map(|row| &row[..]).collect());
            opened.push(
                self.fields[job.field].reveal(&texts, rows.as_deref()).map_err(|failure| at(batch, job, failure))?,
            );
        }
        Ok(opened)
    }

    /// The row bindings of a column: the text of the binding column, in clear.
    fn rows<'b>(
        &self,
        batch: &'b CsvBatch,
        job: &ColumnJob,
        opened: &'b [OpenedColumn],
    ) -> Result<Option<Vec<std::borrow::Cow<'b, [u8]>>>, Failure> {
        let Some(source) = &job.row else { return Ok(None) };
        let (column, clear) = match source {
            RowSource::Clear(column) => (*column, None),
            RowSource::Protected(index) => {
                (self.columns[*index].column, opened.get(*index).map(|column| (*index, column)))
            }
        };
        let binding = |row: usize| -> Result<std::borrow::Cow<'b, [u8]>, Failure> {
            let text = batch.text(row, column)?;
            let bound = match clear {
                None => text.as_bytes().into(),
                Some((index, opened)) => {
                    let (prefix, _) = self.fields[self.columns[index].field].policy.split_prefix(text);
                    let rest = opened.value(row).to_text().unwrap_or_default();
                    format!("{prefix}{rest}").into_bytes().into()
                }
            };
            Ok(bound)
        };
        let rows = (0..batch.rows()).map(|row| {
            let bound = binding(row)?;
            if bound.is_empty() {
                let why = "the cell is empty, but other columns of the row are bound to it";
                return Err(Failure::new(Exit::Data, why).at(batch.place(row, column)));
            }
            Ok(bound)
        });
        rows.collect::<Result<_, _>>().map(Some)
    }

    /// Refuses values that a CSV cell cannot hold.
    fn check_texts(&self, batch: &CsvBatch, k: usize, opened: &OpenedColumn) -> Result<(), Failure> {
        match (0..opened.len()).find(|&row| opened.value(row).to_text().is_none()) {
            Some(row) => {
                Err(Failure::new(Exit::Data, "the value has no text form").at(batch.place(row, self.columns[k].column)))
            }
            None => Ok(()),
        }
    }
}

fn at(batch: &CsvBatch, job: &ColumnJob, failure: RowFailure) -> Failure {
    failure.failure.at(batch.place(failure.row, job.column))
}
