//! Re-encrypting columns of a table in place, batch by batch.
//!
//! A batch is read; what is stale in it is opened, sealed and opened again to compare; then all of it is written in one
//! transaction, each value only where the old one still is; then the checkpoint is replaced. Whoever kills this between any two
//! of these steps finds old or new values, and both open.

use super::counts::Counts;
use super::{install, statement};
use crate::args::Reencrypt;
use crate::failure::{Exit, Failure};
use crate::files::standard::stderr;
use crate::tables::{self, Bindings, Checkpoint, Columns, Ledger, Pace, Rows, Stored, TokenRows, Trouble, settle};
use crate::{opening, outputs};
use keyfold::{AuditAction, AuditEvent, Keyring};
use keyfold_tables::{Access, Cell, Extent, Guard, Row, Table};
use serde_json::json;
use std::io::Write;

struct Job {
    table: Table,
    bindings: Bindings,
    /// Of fields with random tokens, the rows of each.
    own: Vec<Option<TokenRows>>,
    ledger: Ledger,
    counts: Counts,
    dry_run: bool,
}

/// Returns the exit code.
pub(super) fn run(args: &Reencrypt, sql: &str) -> Result<u8, Failure> {
    let interrupt = install()?;
    // A dry run may be given what the real one will be, and writes none of it.
    let statement = args.statement.as_deref().filter(|_| !args.dry_run);
    let file = args.columns.walk.checkpoint.as_deref();
    let outputs = [
        ("--statement", args.statement.as_deref()),
        ("--errors", args.errors.errors.as_deref()),
        ("--checkpoint", file),
    ];
    outputs::refuse(&outputs, outputs::keyring(&args.source, &args.policies.policy), &[], Some(sql))?;
    if let Some(path) = statement {
        statement::refuse_existing(path, args.force)?;
    }
    let ring = opening::open(&args.source, &args.policies.policy)?;
    let mut columns = Columns::default();
    let bindings = Bindings::new(&ring, &args.columns.field, &args.binding, &mut columns, false)?;
    let policy = ring.policy();
    let fields = args.columns.field.iter().filter_map(|(name, _)| policy.field(name));
    let own: Vec<Option<TokenRows>> = fields.map(|field| TokenRows::of(field, &mut columns)).collect();
    let access = if args.dry_run { Access::Read } else { Access::Write };
    let table = tables::open(sql, &args.columns.walk, &columns.0, access)?;
    let walk = json!({
        "what": "reencrypt", "place": table.place(), "key": args.columns.walk.key, "fields": args.columns.field, "row": args.binding.row,
        "scope_column": args.binding.scope_column, "context_columns": args.binding.context_column,
        "bound": bindings.identity(),
    });
    let mut checkpoint = Checkpoint::open(file.filter(|_| !args.dry_run), walk)?;
    // What counts is the key that seals now, whatever a checkpoint says: what an earlier process has sealed under an older one is left.
    let sealing = if bindings.is_one_scope() { Some(bindings.of_scope()?) } else { None };
    let (counts, mut ledger) = if checkpoint.is_resumed() {
        let counts: Counts = checkpoint.counts()?;
        (counts, Ledger::resumed(&args.errors, &checkpoint.state["ledger"], counts.failed)?)
    } else {
        let ledger = Ledger::new(&args.errors, args.dry_run)?;
        checkpoint.save(None, state(&Counts::default(), &ledger))?;
        (Counts::default(), ledger)
    };
    ledger.open()?;
    let pace = Pace {
        interrupt,
        batch_rows: args.columns.walk.batch_rows,
        rows_per_second: args.columns.walk.rows_per_second,
    };
    let mut job = Job { table, bindings, own, ledger, counts, dry_run: args.dry_run };
    let done = job.run(&pace, &mut checkpoint);
    record(&ring, &job.counts, args.dry_run, &done)?;
    if done.is_ok() || !checkpoint.is_kept() {
        job.ledger.remove_empty()?;
    }
    done.map_err(|failure| match checkpoint.is_kept() {
        _ if args.dry_run => failure.add("nothing was written: this is a dry run"),
        true => failure.add("what was written stays: start it again with the same checkpoint and it goes on there"),
        false => failure.add("what was written stays: start it again, and what is current already is left alone"),
    })?;
    report(args, &job);
    let mut exit = job.ledger.exit_code();
    if let Some(path) = statement {
        let found = statement::look_at_table(&mut job.table, &mut job.bindings, &job.own, &pace, sealing.as_deref())?;
        // What is left because of errors is said as well, but the code of those counts.
        match statement::write(&ring, args, path, found) {
            Err(failure) if exit != 0 => drop(writeln!(stderr(), "keyfold: {failure}")),
            written => written?,
        }
    }
    if exit == 0 && job.counts.busy > 0 {
        exit = Exit::Data as u8;
    }
    // The end was reached: what was left is for another run, from the start.
    checkpoint.remove()?;
    Ok(exit)
}

impl Job {
    fn run(&mut self, pace: &Pace, checkpoint: &mut Checkpoint) -> Result<(), Failure> {
        let mut rows = Rows::new(pace, checkpoint.after.clone(), Extent::Whole, "re-encrypting");
        while let Some(page) = rows.next(&mut self.table)? {
            let last = page.last().map(|row| row.key.clone());
            self.counts.rows += page.len() as u64;
            self.batch(page)?;
            if !self.dry_run {
                self.ledger.sync()?;
                checkpoint.save(last.as_ref(), state(&self.counts, &self.ledger))?;
            }
        }
        Ok(())
    }

    fn batch(&mut self, page: Vec<Row>) -> Result<(), Failure> {
        let Self { table, bindings, own, ledger, counts, dry_run } = self;
        let place = table.place().to_owned();
        let columns: Vec<usize> = (0..bindings.len()).map(|field| bindings.column(field)).collect();
        let settled = settle(table, page, &columns, Guard::Column, !*dry_run, |row, field| {
            if own[field].as_ref().is_some_and(|own| !own.has(row)) {
                counts.others += 1;
                return Ok(None);
            }
            match next(bindings, counts, row, field) {
                Ok(new) => Ok(new),
                Err(Trouble::Run(error)) => Err(error.into()),
                Err(Trouble::Value(error)) => {
                    counts.failed += 1;
                    ledger.record(&place, &row.key, bindings.name(field), error)?;
                    Ok(None)
                }
            }
        })?;
        counts.resealed += settled.made.len() as u64;
        counts.compromised += settled.made.iter().filter(|&&compromised| compromised).count() as u64;
        counts.gone += settled.gone;
        counts.busy += settled.busy;
        Ok(())
    }
}

/// What a run that goes on has to know.
fn state(counts: &Counts, ledger: &Ledger) -> serde_json::Value {
    json!({ "counts": counts, "ledger": ledger.state() })
}

/// The new cell of a value, and whether the old one was under a compromised key; `None`: it stays as it is, and is counted.
fn next(
    bindings: &mut Bindings,
    counts: &mut Counts,
    row: &Row,
    field: usize,
) -> Result<Option<(Cell, bool)>, Trouble> {
    let bound = bindings.bind(row)?;
    let cipher = &bound.ciphers[field];
    let Some(stored) = Stored::of(&row.cells[bindings.column(field)], cipher.policy())? else {
        counts.empty += 1;
        return Ok(None);
    };
    if !pollster::block_on(cipher.needs(&stored.sealed))? {
        counts.current += 1;
        return Ok(None);
    }
    let binding = bindings.row_of(&bound, field)?;
    let resealed = pollster::block_on(cipher.reseal(&stored.sealed, binding.as_deref().map(Vec::as_slice)))?;
    Ok(Some((stored.form.cell(&resealed.bytes)?, resealed.compromised)))
}

fn record(ring: &Keyring, counts: &Counts, dry_run: bool, done: &Result<(), Failure>) -> Result<(), Failure> {
    if dry_run {
        return Ok(());
    }
    let event = AuditEvent::new(AuditAction::Reencrypt)
        .detail("finished", done.is_ok())
        .detail("rows", counts.rows)
        .detail("resealed", counts.resealed)
        .detail("compromised", counts.compromised)
        .detail("current", counts.current)
        .detail("failed", counts.failed);
    Ok(ring.audit(event)?)
}

fn report(args: &Reencrypt, job: &Job) {
    let counts = &job.counts;
    let line = if args.json {
        let mut json = json!(counts);
        json["direction"] = "re-encrypted".into();
        json["dry_run"] = job.dry_run.into();
        json.to_string()
    } else {
        let verb = if job.dry_run { "would re-encrypt" } else { "re-encrypted" };
        let mut line =
            format!("{verb} {} values in {} rows; {} were current", counts.resealed, counts.rows, counts.current);
        for (count, what) in [
            (counts.empty, "null or empty"),
            (counts.others, "of other fields or partitions"),
            (counts.compromised, "of them were under a compromised key and may be forged"),
            (counts.failed, "left as they are because of errors"),
            (counts.busy, "changed by others again and again, and left"),
            (counts.gone, "deleted meanwhile"),
        ] {
            if count > 0 {
                line.push_str(&format!("; {count} {what}"));
            }
        }
        line
    };
    // The work is done: a closed standard error is no reason to fail.
    let _ = writeln!(stderr(), "{line}");
}
