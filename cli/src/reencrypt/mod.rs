//! `keyfold reencrypt`: what is under older generations is opened and sealed under the current key, in a file or in the columns
//! of a table.

mod counts;
mod statement;
mod table;

use crate::args::Reencrypt;
use crate::failure::{Exit, Failure};
use crate::files::interrupt::Interrupt;
use crate::opening::refuse_new_scope;
use crate::transform::{self, Direction};
use crate::{opening, outputs};
use keyfold::{Context, FieldMode, Keyring};
use keyfold_documents::Resealer;
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn run(args: &Reencrypt) -> Result<ExitCode, Failure> {
    match &args.columns.sql {
        Some(sql) => table::run(args, sql).map(ExitCode::from),
        None => file(args).map(|()| ExitCode::SUCCESS),
    }
}

fn file(args: &Reencrypt) -> Result<(), Failure> {
    let job = args.transform();
    let Some(path) = &args.statement else { return transform::run(&job, Direction::Reencrypt).map(drop) };
    if job.output == "-" {
        return Err(Failure::new(Exit::Usage, "a statement is about a file: name one as --output"));
    }
    let output = Some(Path::new(&job.output));
    let outputs = [("--output", output), ("--statement", Some(&**path))];
    outputs::refuse(
        &outputs,
        outputs::keyring(&args.source, &args.policies.policy),
        &[&job.input],
        args.tokens.as_deref(),
    )?;
    statement::refuse_existing(path, args.force)?;
    // What counts is the key that sealed when the run began.
    let ring = opening::open(&args.source, &args.policies.policy)?;
    let sealing = sealing(&ring, args)?;
    let interrupt = transform::run(&job, Direction::Reencrypt)?;
    let found =
        statement::look_at_file(&job, &sealing, &interrupt).map_err(|failure| match failure.is_interruption() {
            true => failure.add("the output is written, and no statement"),
            false => failure,
        })?;
    statement::write(&ring, args, path, found)
}

/// The fields of the policy with the keys that seal, of those that a file may hold.
fn sealing(ring: &Keyring, args: &Reencrypt) -> Result<Vec<Resealer>, Failure> {
    refuse_new_scope(ring, args.binding.scope.as_deref())?;
    let context =
        args.binding.context.iter().try_fold(Context::new(), |context, (key, value)| context.with(key, value));
    let context = context.map_err(|error| Failure::of_argument("--context", error))?;
    let mut sealing = Vec::new();
    // What stands for values has no key in it that could be replaced: it stays as it is. A stream is in no column and no document.
    let stays = |mode: &FieldMode| {
        matches!(mode, FieldMode::FormatPreserving { .. } | FieldMode::Token { .. } | FieldMode::Stream)
    };
    for policy in ring.policy().fields().filter(|field| !stays(&field.mode)) {
        let mut field = ring.field(&policy.name)?.context(context.clone());
        if let Some(scope) = &args.binding.scope {
            field = field.scope(scope);
        }
        sealing.push(pollster::block_on(Resealer::new(field))?);
    }
    Ok(sealing)
}

/// The flag of signals.
fn install() -> Result<Interrupt, Failure> {
    Interrupt::install().map_err(|error| Failure::new(Exit::System, format!("cannot handle signals: {error}")))
}
