//! `keyfold index backfill`: each token of an index, or proof of a random token, is what the key that seals makes of the value beside it. Rows that
//! others write meanwhile are read again; may be stopped anywhere and repeated.

mod check;
mod maker;
mod values;

use crate::args::IndexBackfill;
use crate::failure::{Exit, Failure};
use crate::files::interrupt::Interrupt;
use crate::files::standard::stderr;
use crate::tables::{self, Bindings, Checkpoint, Columns, Ledger, Pace, Rows, TokenRows, Trouble, settle};
use crate::{opening, outputs};
use keyfold::{AuditAction, AuditEvent, Context, Error, ErrorKind, FieldPolicy, IndexPolicy, Keyring, Policy};
use keyfold_tables::{Access, Cell, Extent, Guard, Row, Table};
use maker::Maker;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;
use values::Values;

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
struct Counts {
    rows: u64,
    /// Tokens that are written, or with --verify are not what they should be.
    written: u64,
    /// Those that were right.
    right: u64,
    /// Rows without a sealed value.
    empty: u64,
    /// Rows whose value the index cannot take: they have no token.
    #[serde(default)]
    unindexed: u64,
    /// Rows of a table of random tokens that are another field's.
    #[serde(default)]
    others: u64,
    failed: u64,
    gone: u64,
    busy: u64,
}

/// Rows that --verify names.
const MAX_NAMED: usize = 20;

/// Of a column that the policy does not name.
const WRITTEN_MEANWHILE: Error =
    Error::new(ErrorKind::Conflict, "something else than a token of the value was written there meanwhile: it is kept");

struct Job<'a> {
    ring: &'a Keyring,
    args: &'a IndexBackfill,
    table: Table,
    values: Values<'a>,
    /// Of proofs, the rows of the field.
    own: Option<TokenRows>,
    ledger: Ledger,
    counts: Counts,
    /// With --verify the numbers, along the key, of the first rows whose tokens are not what they should be.
    wrong_rows: Vec<u64>,
    to: usize,
    /// Whether the policy does not name the column, so that what stands there is kept unless it is a token of the value.
    keeps_others: bool,
}

pub(crate) fn backfill(args: &IndexBackfill) -> Result<ExitCode, Failure> {
    let interrupt =
        Interrupt::install().map_err(|error| Failure::new(Exit::System, format!("cannot handle signals: {error}")))?;
    let written =
        [("--errors", args.errors.errors.as_deref()), ("--checkpoint", args.table.walk.checkpoint.as_deref())];
    outputs::refuse(&written, outputs::keyring(&args.source, &args.policies.policy), &[], Some(&args.table.sql))?;
    let ring = opening::open(&args.source, &args.policies.policy)?;
    let policy = ring.policy();
    let no_field = || Failure::new(Exit::Policy, format!("the policy has no field {}", args.field));
    let field = policy.field(&args.field).ok_or_else(no_field)?;
    let to = destination(args, field)?;
    refuse_taken(args, &policy, &to)?;
    let mut columns = Columns::default();
    let mut fields = vec![(args.field.clone(), args.from.clone())];
    // Whoever protected the table by the whole policy has sealed the identifiers of its rows as well.
    fields.extend(tables::row_field(&policy, field, &args.binding)?);
    let bindings = Bindings::new(&ring, &fields, &args.binding, &mut columns, false)?.with_clear_rows();
    let taken = columns.0.contains(&to);
    let to = columns.add(&to);
    if taken {
        return Err(Failure::new(Exit::Usage, "the column for tokens is one that is read for the values"));
    }
    let context_columns =
        args.binding.context_column.iter().map(|(key, column)| (key.clone(), columns.add(column))).collect();
    let own = args.index.is_none().then(|| TokenRows::of(field, &mut columns)).flatten();
    let access = if args.verify { Access::Read } else { Access::Write };
    let table = tables::open(&args.table.sql, &args.table.walk, &columns.0, access)?;
    let index = maker::index(args, field)?;
    maker::check_column(&table, to, index)?;
    let walk = json!({
        "what": "index", "place": table.place(), "key": args.table.walk.key, "field": args.field, "from": args.from, "index": args.index,
        "to": columns.0[to], "row": args.binding.row, "scope_column": args.binding.scope_column,
        "context_columns": args.binding.context_column, "bound": bindings.identity(),
        "seals": seals(&ring, args)?,
    });
    let mut checkpoint = Checkpoint::open(args.table.walk.checkpoint.as_deref(), walk)?;
    let is_resumed = checkpoint.is_resumed();
    let (counts, mut ledger) = if is_resumed {
        let counts: Counts = checkpoint.counts()?;
        (counts, Ledger::resumed(&args.errors, &checkpoint.state["ledger"], counts.failed)?)
    } else {
        let ledger = Ledger::new(&args.errors, false)?;
        checkpoint.save(None, json!({ "counts": Counts::default(), "ledger": ledger.state() }))?;
        (Counts::default(), ledger)
    };
    ledger.open()?;
    let pace =
        Pace { interrupt, batch_rows: args.table.walk.batch_rows, rows_per_second: args.table.walk.rows_per_second };
    let values = Values::new(&ring, args, field, bindings, context_columns);
    let unnamed = index.filter(|index| !args.verify && index.column.as_deref() != Some(&columns.0[to]));
    let keeps_others = unnamed.is_some();
    let mut job =
        Job { ring: &ring, args, table, values, own, ledger, counts, wrong_rows: Vec::new(), to, keeps_others };
    if let Some(index) = unnamed {
        let checked = job.refuse_foreign(index, &columns.0[to], &pace, checkpoint.after.clone());
        if checked.is_err() {
            job.ledger.remove_empty()?;
            if !is_resumed {
                checkpoint.remove()?;
            }
        }
        checked?;
    }
    let done = job.walk(&pace, &mut checkpoint);
    job.record(done.is_ok())?;
    if done.is_ok() || !checkpoint.is_kept() {
        job.ledger.remove_empty()?;
    }
    // What is wrong with a row or the policy is wrong the next time as well.
    let goes_on = |failure: Failure| match failure.code {
        code if [Exit::Data, Exit::Policy, Exit::Key].iter().any(|exit| *exit as u8 == code) => {
            if args.verify {
                failure
            } else {
                failure.add("what was written before it stays")
            }
        }
        _ if args.verify => failure.add("start it again"),
        _ => failure.add("what was written stays: start it again, and it goes on"),
    };
    done.map_err(goes_on)?;
    job.report();
    checkpoint.remove()?;
    let counts = &job.counts;
    Ok(ExitCode::from(match job.ledger.exit_code() {
        0 if counts.busy > 0 || args.verify && counts.written > 0 => Exit::Data as u8,
        code => code,
    }))
}

/// The column that is written.
fn destination(args: &IndexBackfill, field: &FieldPolicy) -> Result<String, Failure> {
    let of_policy = match maker::index(args, field)? {
        Some(index) => index.column.clone(),
        None => Some("proof".to_owned()),
    };
    let no_column = || Failure::new(Exit::Usage, "the policy names no column for the index; --to does");
    args.to.clone().or(of_policy).ok_or_else(no_column)
}

/// Refuses a column that the policy gives to something else.
fn refuse_taken(args: &IndexBackfill, policy: &Policy, to: &str) -> Result<(), Failure> {
    let refused = |of: String| {
        let why = format!("the column {to:?} is that {of}: tokens would be written over what is there");
        Err(Failure::new(Exit::Policy, why))
    };
    // Names of columns in SQL differ in more than case, or not at all.
    if args.table.walk.key.as_deref().is_some_and(|key| key.eq_ignore_ascii_case(to)) {
        return refused("of --key, by which rows are found".to_owned());
    }
    for field in policy.fields() {
        if field.columns.iter().any(|column| column == to) {
            return refused(format!("of field {}", field.name));
        }
        let is_other = |index: &IndexPolicy| field.name != args.field || args.index.as_ref() != Some(&index.name);
        let mut others = field.indexes.iter().filter(|index| is_other(index));
        if let Some(index) = others.find(|index| index.column.as_deref() == Some(to)) {
            return refused(format!("of index {} of field {}", index.name, field.name));
        }
    }
    Ok(())
}

/// The key that makes the tokens, which a checkpoint is bound to: under another one all rows are to be looked at again.
fn seals(ring: &Keyring, args: &IndexBackfill) -> Result<String, Failure> {
    let field = ring.field(&args.field)?.context(context(args, &[])?);
    Ok(Maker::new(args, field)?.seals().to_string())
}

/// The context of a row: the pairs of the arguments, and `more` from its columns, or empty values in their places.
fn context(args: &IndexBackfill, more: &[(String, String)]) -> Result<Context, Error> {
    let missing = args.binding.context_column.iter().map(|(key, _)| (key.clone(), String::new()));
    let of_columns: Vec<(String, String)> = if more.is_empty() { missing.collect() } else { more.to_vec() };
    let pairs = args.binding.context.iter().chain(&of_columns);
    pairs.into_iter().try_fold(Context::new(), |context, (key, value)| context.with(key, value))
}

impl Job<'_> {
    fn walk(&mut self, pace: &Pace, checkpoint: &mut Checkpoint) -> Result<(), Failure> {
        let mut rows = Rows::new(pace, checkpoint.after.clone(), Extent::Whole, "indexing");
        while let Some(page) = rows.next(&mut self.table)? {
            let last = page.last().map(|row| row.key.clone());
            self.counts.rows += page.len() as u64;
            self.batch(page)?;
            if checkpoint.is_kept() {
                self.ledger.sync()?;
                checkpoint.save(last.as_ref(), json!({ "counts": self.counts, "ledger": self.ledger.state() }))?;
            }
        }
        Ok(())
    }

    fn batch(&mut self, page: Vec<Row>) -> Result<(), Failure> {
        let Self { args, table, values, own, ledger, counts, wrong_rows, to, keeps_others, .. } = self;
        let mut number = counts.rows - page.len() as u64;
        let (place, kind, to) = (table.place().to_owned(), table.kind(*to), *to);
        // The whole row: a token is true of the value that was read.
        let settled = settle(table, page, &[to], Guard::Row, !args.verify, |row, _| {
            number += 1;
            if own.as_ref().is_some_and(|own| !own.has(row)) {
                counts.others += 1;
                return Ok(None);
            }
            // It had nothing or tokens when it was checked; who writes it meanwhile loses nothing.
            let keeps = *keeps_others && row.cells[to].as_bytes().is_some_and(|bytes| !bytes.is_empty());
            let mut next = || -> Result<Option<Cell>, Trouble> {
                let made = values.open(row, |maker, value| {
                    let cell = maker.cell(kind, row, &row.cells[to], value)?;
                    if keeps && cell != row.cells[to] && !maker.knows(kind, &row.cells[to], value)? {
                        return Err(WRITTEN_MEANWHILE);
                    }
                    counts.unindexed += u64::from(cell == Cell::Null && maker.skips(&value));
                    Ok(cell)
                })?;
                let Some(cell) = made else {
                    if keeps {
                        return Err(WRITTEN_MEANWHILE.into());
                    }
                    counts.empty += 1;
                    return Ok((row.cells[to] != Cell::Null).then_some(Cell::Null));
                };
                if cell == row.cells[to] {
                    counts.right += 1;
                    return Ok(None);
                }
                Ok(Some(cell))
            };
            match next() {
                // Nothing is written then, so each row comes once.
                Ok(Some(cell)) if args.verify => {
                    if wrong_rows.len() < MAX_NAMED {
                        wrong_rows.push(number);
                    }
                    ledger.note(&place, &row.key, &args.field, "not what it should be")?;
                    Ok(Some((cell, ())))
                }
                Ok(cell) => Ok(cell.map(|cell| (cell, ()))),
                Err(Trouble::Run(error)) => Err(error.into()),
                Err(Trouble::Value(error)) => {
                    counts.failed += 1;
                    ledger.record(&place, &row.key, &args.field, error)?;
                    Ok(None)
                }
            }
        })?;
        counts.written += settled.made.len() as u64;
        counts.gone += settled.gone;
        counts.busy += settled.busy;
        Ok(())
    }

    fn record(&self, finished: bool) -> Result<(), Failure> {
        if self.args.verify {
            return Ok(());
        }
        let counts = &self.counts;
        let mut event = AuditEvent::new(AuditAction::Backfill)
            .detail("step", if self.args.index.is_some() { "index" } else { "proof" })
            .detail("finished", finished)
            .detail("rows", counts.rows)
            .detail("written", counts.written)
            .detail("failed", counts.failed);
        event.field = Some(self.args.field.clone());
        Ok(self.ring.audit(event)?)
    }

    fn report(&self) {
        let counts = &self.counts;
        let line = if self.args.json {
            let mut json = json!(counts);
            json["verify"] = self.args.verify.into();
            json["wrong_rows"] = self.wrong_rows.clone().into();
            json.to_string()
        } else {
            let what = if self.args.index.is_some() { "tokens" } else { "proofs" };
            let verb = if self.args.verify { "not what they should be" } else { "written" };
            let rows: Vec<String> = self.wrong_rows.iter().map(u64::to_string).collect();
            let rows = match counts.written.saturating_sub(rows.len() as u64) {
                _ if rows.is_empty() => String::new(),
                0 => format!(" (along the key in row {})", rows.join(", ")),
                more => format!(" (along the key in row {}, and {more} more)", rows.join(", ")),
            };
            format!(
                "{} rows; {} {what} {verb}{rows}; {} right; {} rows without a value; {} without a token, since the index cannot take their value; \
                 {} left because of errors; {} deleted meanwhile; {} busy",
                counts.rows,
                counts.written,
                counts.right,
                counts.empty,
                counts.unindexed,
                counts.failed,
                counts.gone,
                counts.busy
            )
        };
        let line = match counts.others {
            _ if self.args.json => line,
            0 => line,
            others => format!("{line}; {others} of other fields or partitions"),
        };
        // The work is done: a closed standard error is no reason to fail.
        let _ = writeln!(stderr(), "{line}");
    }
}
