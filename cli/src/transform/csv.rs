//! CSV: named columns are replaced, every other byte stays.

mod rebind;
mod reencrypt;

use super::merges::Merges;
use super::progress::Progress;
use super::{Counts, Direction, Done, Job, other_delimiter, pump, tokens, unauthenticated};
use crate::failure::{Exit, Failure};
use crate::files::csv::{CsvBatch, CsvOptions, CsvSource, DEFAULT_MAX_FIELD_LEN, MAX_ROW_LEN};
use crate::files::interrupt::Interrupt;
use crate::files::json::Token;
use crate::files::output::Output;
use keyfold::{OpenedColumn, RowBinding, RowError, Value, ValueType};
use keyfold_documents::{FieldCipher, FieldIndex, Locator, Protected, Revealed};
use std::borrow::Cow;
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
#[derive(Clone, Copy, PartialEq)]
enum RowSource {
    /// A column that is in clear in the file.
    Clear(usize),
    /// A protected column, by its index among the jobs: opened before the columns that are bound to it.
    Protected(usize),
}

struct CsvJob<'j> {
    direction: Direction,
    merges: &'j Merges,
    /// When rebinding: where the identifiers are that are replaced.
    rebound: Option<RowSource>,
    fields: Vec<FieldCipher>,
    /// Columns that are row bindings of others come first.
    columns: Vec<ColumnJob>,
    /// Where columns of indexes are, which reveal removes.
    dropped: Vec<usize>,
}

pub(super) fn run(
    job: &Job<'_>,
    input: impl Read + Send,
    output: &mut Output,
    interrupt: &Interrupt,
    progress: &mut Progress,
    counts: &mut Counts,
) -> Result<(), Failure> {
    let policy = job.ring.policy();
    let mut named = BTreeSet::new();
    for field in policy.fields().filter(|field| !field.columns.is_empty()) {
        named.extend(field.columns.iter().cloned());
        if let RowBinding::Bound { column: Some(column), .. } = &field.row_binding {
            named.insert(column.clone());
        }
    }
    Locator::Columns.refuse_elsewhere(&policy)?;
    let index_columns = index_columns(&job.ring.policy())?;
    named.extend(index_columns.iter().cloned());
    let named: Vec<String> = named.into_iter().collect();
    if named.is_empty() {
        return Err(Failure::new(Exit::Policy, "no field of the configuration or the policies names a CSV column"));
    }
    let options = CsvOptions {
        delimiter: job.args.delimiter,
        columns: named.clone(),
        max_field_len: job.direction.limit(DEFAULT_MAX_FIELD_LEN),
        max_row_len: job.direction.limit(MAX_ROW_LEN),
    };
    let mut source = CsvSource::new(input, options)?;
    let position = |name: &str| named.iter().position(|n| n == name).and_then(|index| source.positions()[index]);
    refuse_similar(source.header(), &named)?;
    let mut plan = CsvJob::plan(job, &position).map_err(|failure| match other_delimiter(source.header()) {
        Some(hint) => failure.add(hint),
        None => failure,
    })?;
    let present: Vec<usize> = index_columns.iter().filter_map(|name| position(name)).collect();
    let mut added = Vec::new();
    match job.direction {
        Direction::Protect { .. } => {
            if let Some(column) = present.first() {
                let why = "the column of an index is there already, as in a file that has been protected: reveal that first to protect it anew; a \
                           column in clear of the same name is to be renamed";
                return Err(Failure::new(Exit::Policy, why).at(format!("header: column {}", column + 1)));
            }
            added = plan.indexes().map(|(_, index)| index.column().to_owned()).collect();
        }
        Direction::Reveal => {
            plan.dropped = present.clone();
            let policy = job.ring.policy();
            let is_there = |column: &String| position(column).is_some();
            let indexes =
                policy.fields().filter(|field| field.columns.iter().any(is_there)).flat_map(|field| &field.indexes);
            let columns = indexes.filter_map(|index| index.column.clone());
            counts.missing_tokens = columns.filter(|column| !is_there(column)).collect();
        }
        Direction::Reencrypt => {
            counts.left_tokens = index_columns.iter().filter(|name| position(name).is_some()).cloned().collect()
        }
        Direction::Rebind => {}
    }
    counts.unauthenticated = unauthenticated(&plan.fields);
    if job.direction != Direction::Reveal {
        let sealed: Vec<usize> = plan.columns.iter().map(|job| job.column).collect();
        let covered = |index: &usize| sealed.contains(index) || present.contains(index);
        let clear = source.header().iter().enumerate().filter(|(index, _)| !covered(index));
        counts.clear_columns = clear.map(|(_, name)| name.clone()).collect();
    }
    output.write(&source.header_changed(&plan.dropped, &added))?;
    let read = || source.next_batch().map_err(Failure::from);
    pump(job, read, |batch| plan.transform(&batch), interrupt, progress, counts, output)
}

impl<'j> CsvJob<'j> {
    /// Which columns are replaced, in which order, bound to what.
    fn plan(job: &Job<'j>, position: &impl Fn(&str) -> Option<usize>) -> Result<Self, Failure> {
        let present = |field: &keyfold::FieldPolicy| field.columns.iter().any(|column| position(column).is_some());
        let policy = job.ring.policy();
        let needed = policy.fields().filter(|field| !field.optional);
        let columns = needed.flat_map(|field| field.columns.iter().map(move |column| (&field.name, column)));
        let missing: Vec<String> = columns
            .filter(|(_, column)| position(column).is_none())
            .map(|(field, column)| format!("{column:?} (field {field})"))
            .collect();
        if !missing.is_empty() {
            let columns = if missing.len() == 1 { "column" } else { "columns" };
            let why = format!(
                "the input has no {columns} {}; optional = true in the policy allows that; nothing was written",
                missing.join(", ")
            );
            return Err(Failure::new(Exit::Policy, why));
        }
        let none = "the input has none of the policy's columns (another delimiter? no header?); nothing was written";
        let fields = job.keys(present)?.plan(present, none)?;
        let mut columns: Vec<ColumnJob> = Vec::new();
        for (index, field) in fields.iter().enumerate() {
            for name in &field.policy().columns {
                let Some(column) = position(name) else { continue };
                if columns.iter().any(|other| other.column == column) {
                    return Err(Failure::new(
                        Exit::Policy,
                        format!("field {}: two fields name the column {name:?}", field.policy().name),
                    ));
                }
                columns.push(ColumnJob { column, field: index, row: None });
            }
        }
        let mut bound_to: Vec<(&str, RowSource)> = Vec::new();
        for index in 0..columns.len() {
            let field = &fields[columns[index].field];
            let row = Locator::Columns
                .row(&field.policy().row_binding)
                .map_err(|error| Failure::from(error).at(format!("field {}", field.policy().name)))?;
            let Some(name) = row.and_then(|names| names.first()) else { continue };
            let column = position(name).ok_or_else(|| {
                let field = &field.policy().name;
                let why = format!("field {field}: the input has no column {name:?}, which its values are bound to; nothing was written");
                Failure::new(Exit::Policy, why)
            })?;
            let protected = columns.iter().position(|other| other.column == column);
            if protected.is_some_and(|at| !fields[columns[at].field].may_be_row()) {
                let why = format!(
                    "is bound to the column {name:?}, which is protected and so must be deterministic, or a token"
                );
                return Err(Failure::new(Exit::Policy, format!("field {} {why}", field.policy().name)));
            }
            let source = protected.map_or(RowSource::Clear(column), RowSource::Protected);
            columns[index].row = Some(source);
            if bound_to.iter().all(|(known, _)| known != name) {
                bound_to.push((name, source));
            }
        }
        let rebound = match job.direction {
            Direction::Rebind => {
                let names: Vec<&str> = bound_to.iter().map(|(name, _)| *name).collect();
                let chosen = job.merges.choose_row(&names)?;
                bound_to.iter().find(|(name, _)| *name == chosen).map(|(_, source)| *source)
            }
            _ => None,
        };
        Ok(Self { direction: job.direction, merges: job.merges, rebound, fields, columns, dropped: Vec::new() })
    }

    /// The indexes that get columns, each with the column job whose values it finds.
    fn indexes(&self) -> impl Iterator<Item = (usize, &FieldIndex)> {
        let of_column =
            |(k, job): (usize, &ColumnJob)| self.fields[job.field].indexes().iter().map(move |index| (k, index));
        self.columns.iter().enumerate().flat_map(of_column)
    }

    fn transform(&self, batch: &CsvBatch) -> Result<Done, Failure> {
        if let Some(source) = self.rebound {
            return self.rebind(batch, source);
        }
        if self.direction == Direction::Reencrypt {
            return self.reencrypt(batch);
        }
        let mut bytes = Zeroizing::new(Vec::new());
        let columns: Vec<usize> = self.columns.iter().map(|job| job.column).collect();
        let mut counts = Counts {
            input_len: batch.raw_len() as u64,
            records: batch.rows() as u64,
            values: (batch.rows() * columns.len()) as u64,
            ..Counts::default()
        };
        match self.direction {
            Direction::Protect { .. } => {
                bytes.reserve(batch.raw_len() + batch.rows() * columns.len() * 112);
                let (sealed, tokens) = self.protect(batch, &mut counts)?;
                self.check_lengths(batch, &sealed, &tokens)?;
                let replacement = |row: usize, k: usize, out: &mut Vec<u8>| {
                    out.extend_from_slice(self.prefix(batch, row, k));
                    sealed[k].push(row, out);
                };
                batch.render_changed(&columns, &[], tokens.len(), &mut bytes, replacement, |row, k, out| {
                    out.extend_from_slice(tokens[k][row].as_bytes());
                });
            }
            Direction::Reveal | Direction::Rebind | Direction::Reencrypt => {
                bytes.reserve(batch.raw_len());
                let opened = self.reveal(batch)?;
                for (k, column) in opened.iter().enumerate() {
                    let (outdated, compromised) = column.counts();
                    counts.outdated += outdated;
                    counts.compromised += compromised;
                    self.check_texts(batch, k, column)?;
                }
                let replacement = |row: usize, k: usize, out: &mut Vec<u8>| {
                    out.extend_from_slice(self.prefix(batch, row, k));
                    out.extend_from_slice(opened[k].text(row).unwrap_or_default().as_bytes());
                };
                batch.render_changed(&columns, &self.dropped, 0, &mut bytes, replacement, |_, _, _| {});
            }
        }
        Ok(Done { bytes, counts })
    }

    /// The part of a cell that stays in clear.
    fn prefix<'b>(&self, batch: &'b CsvBatch, row: usize, k: usize) -> &'b [u8] {
        let job = &self.columns[k];
        match self.fields[job.field].policy().keep_prefix.as_deref() {
            Some(prefix) => {
                let cell = batch.cell(row, job.column);
                if cell.starts_with(prefix.as_bytes()) { &cell[..prefix.len()] } else { b"" }
            }
            None => b"",
        }
    }

    /// The columns, and the cells of the indexes' columns.
    fn protect(&self, batch: &CsvBatch, counts: &mut Counts) -> Result<(Vec<Protected>, Vec<Vec<String>>), Failure> {
        let mut bindings = None;
        let mut cells = Vec::new();
        let columns = self
            .columns
            .iter()
            .map(|job| {
                let field = &self.fields[job.field];
                let value_type = field.policy().value_type.unwrap_or(ValueType::Text);
                let mut values = Vec::with_capacity(batch.rows());
                for row in 0..batch.rows() {
                    let text = batch.replaceable(row, job.column)?;
                    if self.direction == (Direction::Protect { seal_sealed: false }) {
                        field.refuse_sealed(row, text).map_err(|failure| at(batch, job, failure))?;
                    }
                    let (_, rest) = field.policy().split_prefix(text);
                    if value_type == ValueType::Json && (Token::parse(rest).is_none() || rest.contains(['\n', '\r'])) {
                        return Err(Failure::new(Exit::Data, "the cell is not JSON on one line")
                            .at(batch.place(row, job.column)));
                    }
                    let value = Value::from_text(value_type, rest);
                    values.push(value.map_err(|error| Failure::from(error).at(batch.place(row, job.column)))?);
                }
                let rows = self.rows(batch, job, &[], &mut bindings)?;
                for index in field.indexes() {
                    let (tokens, skipped) = index.tokens(&values).map_err(|failure| at(batch, job, failure))?;
                    counts.unindexed += skipped;
                    let cell = |tokens: &Vec<keyfold::Token>| tokens::cell(index.is_list(), tokens);
                    cells.push(tokens.iter().map(cell).collect());
                }
                field.protect(&values, rows.as_deref()).map_err(|failure| at(batch, job, failure))
            })
            .collect::<Result<_, Failure>>()?;
        Ok((columns, cells))
    }

    fn reveal(&self, batch: &CsvBatch) -> Result<Vec<Revealed>, Failure> {
        let mut opened = Vec::with_capacity(self.columns.len());
        let mut bindings = None;
        for job in &self.columns {
            let texts: Vec<&str> =
                (0..batch.rows()).map(|row| batch.text(row, job.column)).collect::<Result<_, _>>()?;
            let rows = self.rows(batch, job, &opened, &mut bindings)?;
            opened.push(
                self.fields[job.field].reveal(&texts, rows.as_deref()).map_err(|failure| at(batch, job, failure))?,
            );
        }
        Ok(opened)
    }

    /// The row bindings of a column: the text of the binding column, in clear. Most columns of a file have the same,
    /// so the ones of the column before are kept in `latest`.
    fn rows<'b, 'l>(
        &self,
        batch: &'b CsvBatch,
        job: &ColumnJob,
        opened: &[Revealed],
        latest: &'l mut Option<(RowSource, Vec<Cow<'b, [u8]>>)>,
    ) -> Result<Option<Vec<&'l [u8]>>, Failure> {
        let Some(source) = job.row else { return Ok(None) };
        if latest.as_ref().is_none_or(|(known, _)| *known != source) {
            let clear = match source {
                RowSource::Clear(_) => None,
                RowSource::Protected(index) => match opened.get(index) {
                    Some(Revealed::Opened(column)) => Some(column),
                    _ => None,
                },
            };
            *latest = Some((source, self.bindings(batch, source, clear)?));
        }
        Ok(latest.as_ref().map(|(_, rows)| rows.iter().map(|row| &row[..]).collect()))
    }

    /// The row bindings of a batch; `clear` is what stands in a protected column.
    fn bindings<'b>(
        &self,
        batch: &'b CsvBatch,
        source: RowSource,
        clear: Option<&OpenedColumn>,
    ) -> Result<Vec<Cow<'b, [u8]>>, Failure> {
        let column = self.column_of(source);
        let binding = |row: usize| -> Result<Cow<'b, [u8]>, Failure> {
            let text = batch.text(row, column)?;
            let bound = match (source, clear) {
                (RowSource::Protected(index), Some(opened)) => {
                    let (prefix, _) = self.fields[self.columns[index].field].policy().split_prefix(text);
                    let rest = opened.value(row).to_text().unwrap_or_default();
                    format!("{prefix}{rest}").into_bytes().into()
                }
                _ => text.as_bytes().into(),
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
        rows.collect()
    }

    fn column_of(&self, source: RowSource) -> usize {
        match source {
            RowSource::Clear(column) => column,
            RowSource::Protected(index) => self.columns[index].column,
        }
    }

    /// Refuses rows that would be too long to be revealed.
    fn check_lengths(&self, batch: &CsvBatch, sealed: &[Protected], tokens: &[Vec<String>]) -> Result<(), Failure> {
        let max_len = Direction::Reveal.limit(MAX_ROW_LEN);
        for row in 0..batch.rows() {
            let sealed_len = sealed.iter().map(|column| column.text_len(row)).sum::<usize>()
                // Each with a delimiter, and quotes where it is a list.
                + tokens.iter().map(|column| column[row].len() + 3).sum::<usize>();
            // Quick, and exact only where it matters: the texts that are replaced are still in the row's length.
            let mut len = batch.row_len(row) + sealed_len;
            if len > max_len {
                len -= self.columns.iter().map(|job| batch.cell(row, job.column).len()).sum::<usize>();
            }
            if len > max_len {
                let why = format!("the protected row would be longer than {max_len} bytes, and could not be revealed");
                return Err(Failure::new(Exit::Data, why).at(batch.place(row, 0)));
            }
        }
        Ok(())
    }

    /// Refuses values that a CSV cell cannot hold.
    fn check_texts(&self, batch: &CsvBatch, k: usize, opened: &Revealed) -> Result<(), Failure> {
        match (0..opened.len()).find(|&row| opened.text(row).is_none()) {
            Some(row) => {
                Err(Failure::new(Exit::Data, "the value has no text form").at(batch.place(row, self.columns[k].column)))
            }
            None => Ok(()),
        }
    }
}

/// The columns of all indexes. A column of the file has one name, so an index has one field with one column.
fn index_columns(policy: &keyfold::Policy) -> Result<BTreeSet<String>, Failure> {
    let mut names = BTreeSet::new();
    for field in policy.fields() {
        for column in field.indexes.iter().filter_map(|index| index.column.as_ref()) {
            let refused = |why: &str| Err(Failure::new(Exit::Policy, format!("field {}: {why}", field.name)));
            if field.columns.len() > 1 {
                return refused("it has several columns, so no index of it can have one: give each column a field");
            }
            if !names.insert(column.clone()) {
                return refused(&format!("two indexes have the column {column:?}"));
            }
        }
    }
    let taken = policy.fields().flat_map(|field| &field.columns).find(|column| names.contains(*column));
    match taken {
        Some(column) => Err(Failure::new(Exit::Policy, format!("the column {column:?} is a field's and an index's"))),
        None => Ok(names),
    }
}

/// Refuses a column whose name differs from one of the policy in case or white space only: it would stay in clear.
fn refuse_similar(header: &[String], named: &[String]) -> Result<(), Failure> {
    match similar(header, named).next() {
        Some((_, at, why)) => Err(Failure::new(Exit::Policy, why).at(at)),
        None => Ok(()),
    }
}

/// Columns of a header whose names differ from one of `named` in case or white space only: which of these, where it is, and what is wrong.
pub(crate) fn similar<'n>(header: &[String], named: &'n [String]) -> impl Iterator<Item = (&'n str, String, String)> {
    let folded = |name: &str| name.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}').to_lowercase();
    let others = header.iter().enumerate().filter(|(_, column)| !named.contains(column));
    others.filter_map(move |(index, column)| {
        let similar = named.iter().find(|name| folded(name) == folded(column))?;
        let why = format!(
            "its name differs from the policy's {similar:?} in case or white space only, so it would stay in clear"
        );
        Some((similar.as_str(), format!("header: column {}", index + 1), why))
    })
}

fn at(batch: &CsvBatch, job: &ColumnJob, failed: RowError) -> Failure {
    let failure = Failure::from(failed.error);
    match failed.row {
        Some(row) => failure.at(batch.place(row, job.column)),
        None => failure,
    }
}
