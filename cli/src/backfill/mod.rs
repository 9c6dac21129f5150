//! `keyfold backfill`: from a live plaintext column to a sealed one, step by step, each of which can be taken back but the last
//! (DESIGN F17, docs/MIGRATION.md).

mod counts;
mod job;
mod pair;

use crate::args::Backfill;
use crate::failure::{Exit, Failure};
use crate::files::interrupt::Interrupt;
use crate::files::standard::stderr;
use crate::tables::{self, Bindings, Checkpoint, Columns, Ledger, Pace};
use crate::transform::refuse_empty_context;
use crate::{opening, outputs};
use counts::Counts;
use job::{Erased, Job, Step};
use keyfold::{AuditAction, AuditEvent, FieldPolicy, Keyring, MigrationPhase, ValueType};
use keyfold_tables::{Access, ColumnKind, Table};
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;

pub(crate) fn run(args: &Backfill) -> Result<ExitCode, Failure> {
    let interrupt =
        Interrupt::install().map_err(|error| Failure::new(Exit::System, format!("cannot handle signals: {error}")))?;
    let step = Step::of(args);
    let outputs =
        [("--errors", args.errors.errors.as_deref()), ("--checkpoint", args.table.walk.checkpoint.as_deref())];
    outputs::refuse(&outputs, outputs::keyring(&args.source, &args.policies.policy), &[], Some(&args.table.sql))?;
    if step == Step::Fill {
        refuse_empty_context(&args.binding.context)?;
    }
    let ring = opening::open(&args.source, &args.policies.policy)?;
    let policy = ring.policy();
    let policy = policy.field(&args.field);
    let policy = policy.ok_or_else(|| Failure::new(Exit::Policy, format!("the policy has no field {}", args.field)))?;
    check_phase(policy, step)?;
    let erased = match policy.migration.map(|migration| migration.phase) {
        Some(MigrationPhase::DualWrite) if args.empty_erased => Erased::Emptied,
        Some(MigrationPhase::DualWrite) => Erased::Left,
        _ if step == Step::Finish && !args.keep_sealed_only => Erased::Left,
        _ => Erased::Right,
    };
    if args.empty_erased && (step != Step::Fill || erased != Erased::Emptied) {
        return Err(Failure::new(Exit::Usage, "--empty-erased is for sealing, in the phase \"dual-write\""));
    }
    let mut columns = Columns::default();
    let from = columns.add(&args.from);
    let field = [(args.field.clone(), args.to.clone())];
    let bindings = Bindings::new(&ring, &field, &args.binding, &mut columns, step == Step::Fill && !args.dry_run)?;
    if args.from == args.to {
        return Err(Failure::new(Exit::Usage, "--from and --to are the same column"));
    }
    let access = if step == Step::Verify || args.dry_run { Access::Read } else { Access::Write };
    let table = tables::open(&args.table.sql, &args.table.walk, &columns.0, access)?;
    check_columns(&table, policy, from, bindings.column(0), step, args.empty_erased)?;
    let walk = json!({
        "what": "backfill", "step": step.name(), "place": table.place(), "key": args.table.walk.key, "from": args.from, "to": args.to,
        "field": args.field, "row": args.binding.row, "scope_column": args.binding.scope_column,
        "context_columns": args.binding.context_column, "bound": bindings.identity(),
    });
    let mut checkpoint = Checkpoint::open(args.table.walk.checkpoint.as_deref(), walk)?;
    let (counts, mut ledger) = if checkpoint.is_resumed() {
        let counts: Counts = checkpoint.counts()?;
        (counts, Ledger::resumed(&args.errors, &checkpoint.state["ledger"], counts.failed)?)
    } else {
        let ledger = Ledger::new(&args.errors, args.dry_run)?;
        checkpoint.save(None, job::state(&Counts::default(), &ledger))?;
        (Counts::default(), ledger)
    };
    ledger.open()?;
    let pace =
        Pace { interrupt, batch_rows: args.table.walk.batch_rows, rows_per_second: args.table.walk.rows_per_second };
    let mut job = Job { table, bindings, ledger, counts, from, step, write: !args.dry_run, erased };
    let done = job.run(&pace, &mut checkpoint);
    record(&ring, args, &job, &done)?;
    if done.is_ok() || !checkpoint.is_kept() {
        job.ledger.remove_empty()?;
    }
    done.map_err(|failure| {
        failure.add(match args.dry_run || step == Step::Verify {
            true => "nothing was written",
            false => "what was written stays: start it again, and it goes on",
        })
    })?;
    report(args, &job);
    // The end was reached: what was left is for another run, from the start.
    checkpoint.remove()?;
    Ok(ExitCode::from(job.exit_code()))
}

/// Each step belongs to a phase, in which one of the two columns counts: the other must not overwrite it.
fn check_phase(policy: &FieldPolicy, step: Step) -> Result<(), Failure> {
    let needed = match step {
        Step::Verify => return Ok(()),
        Step::Fill | Step::Undo => MigrationPhase::DualWrite,
        Step::Finish => MigrationPhase::CutOver,
    };
    if policy.migration.is_some_and(|migration| migration.phase == needed) {
        return Ok(());
    }
    let why = format!(
        "field {}: this step is for a field whose policy says migration = {{ until = …, phase = \"{}\" }}",
        policy.name,
        needed.name()
    );
    Err(Failure::new(Exit::Policy, why))
}

fn check_columns(
    table: &Table,
    policy: &FieldPolicy,
    from: usize,
    to: usize,
    step: Step,
    empty_erased: bool,
) -> Result<(), Failure> {
    let wrong = |why: &str| Err(Failure::new(Exit::Policy, why).at(table.place()));
    if table.kind(to) == ColumnKind::Other {
        return wrong("the column for sealed values is neither binary nor text");
    }
    if table.kind(to) == ColumnKind::Binary && policy.keep_prefix.is_some() {
        return wrong("the policy keeps a prefix in clear, for which a binary column has no place: use a text column");
    }
    if table.kind(from) == ColumnKind::Binary && policy.value_type.is_some_and(|known| known != ValueType::Bytes) {
        return wrong("the plaintext column is binary, and the policy gives the field another type than bytes");
    }
    let emptied = match step {
        Step::Fill if !empty_erased => return Ok(()),
        Step::Verify => return Ok(()),
        Step::Fill | Step::Undo => to,
        Step::Finish => from,
    };
    if table.is_nullable(emptied) {
        return Ok(());
    }
    wrong("the column that is to be emptied may not be null: ALTER TABLE … ALTER COLUMN … DROP NOT NULL first")
}

fn record(ring: &Keyring, args: &Backfill, job: &Job, done: &Result<(), Failure>) -> Result<(), Failure> {
    if !job.write {
        return Ok(());
    }
    let counts = &job.counts;
    let mut event = AuditEvent::new(AuditAction::Backfill)
        .detail("step", job.step.name())
        .detail("finished", done.is_ok())
        .detail("rows", counts.rows)
        .detail("sealed", counts.sealed + counts.replaced)
        .detail("emptied", counts.emptied)
        .detail("failed", counts.failed);
    event.field = Some(args.field.clone());
    Ok(ring.audit(event)?)
}

fn report(args: &Backfill, job: &Job) {
    let line = if args.json {
        let mut json = json!(job.counts);
        json["step"] = job.step.name().into();
        json["dry_run"] = (!job.write).into();
        json.to_string()
    } else {
        let dry = if job.write { "" } else { " (dry run)" };
        format!("{}{dry}: {}", job.step.name(), job.counts)
    };
    // The work is done: a closed standard error is no reason to fail.
    let _ = writeln!(stderr(), "{line}");
    if job.has_erased() {
        let why = "rows hold a sealed value and no plaintext: erased by a program that writes the plaintext only; --empty-erased \
                   empties the sealed values too";
        let _ = writeln!(stderr(), "keyfold: {} {why}", job.counts.sealed_only);
    }
}
