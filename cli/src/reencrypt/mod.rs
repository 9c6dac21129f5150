//! `keyfold reencrypt`: what is under older generations is opened and sealed under the current key, in a file or in the columns
//! of a table.

mod counts;
mod statement;
mod table;

use crate::args::Reencrypt;
use crate::failure::{Exit, Failure};
use crate::files::interrupt::Interrupt;
use crate::opening;
use crate::reseal::refuse_new_scope;
use crate::transform::{self, Direction};
use keyfold::{Context, FieldMode, Keyring};
use statement::Floors;
use std::collections::BTreeSet;
use std::process::ExitCode;

pub(crate) fn run(args: &Reencrypt) -> Result<ExitCode, Failure> {
    match &args.sql {
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
    statement::refuse_existing(path, args.force)?;
    // What counts is the key that sealed when the run began.
    let ring = opening::open(&args.source, &args.policy)?;
    let floors = floors_of(&ring, args)?;
    let interrupt = transform::run(&job, Direction::Reencrypt)?;
    let found = statement::look_at_file(&job, &floors, &interrupt)?;
    statement::write(args, path, found)
}

/// The keys of the fields of the policy that a file may hold.
fn floors_of(ring: &Keyring, args: &Reencrypt) -> Result<Floors, Failure> {
    refuse_new_scope(ring, args.binding.scope.as_deref())?;
    let context =
        args.binding.context.iter().try_fold(Context::new(), |context, (key, value)| context.with(key, value));
    let context = context.map_err(|error| Failure::of_argument("--context", error))?;
    let mut floors = Floors { generation: None, lookup_keys: BTreeSet::new() };
    for policy in ring.policy().fields() {
        let mut field = ring.field(&policy.name)?.context(context.clone());
        if let Some(scope) = &args.binding.scope {
            field = field.scope(scope);
        }
        let key_id = pollster::block_on(field.encryptor())?.key_id();
        match &policy.mode {
            FieldMode::Deterministic { .. } => drop(floors.lookup_keys.insert(key_id)),
            _ => floors.generation = Some(key_id.generation()),
        }
    }
    Ok(floors)
}

/// The flag of signals.
fn install() -> Result<Interrupt, Failure> {
    Interrupt::install().map_err(|error| Failure::new(Exit::System, format!("cannot handle signals: {error}")))
}
