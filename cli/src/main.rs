//! The `keyfold` command: protect and reveal files, look at and rotate keys.
#![forbid(unsafe_code)]

mod args;
mod audit;
mod backfill;
mod census;
mod device;
mod doctor;
mod failure;
mod files;
mod index;
mod init;
mod inspect;
mod keys;
mod opening;
mod outputs;
mod passphrase;
mod policy;
mod progress;
mod reencrypt;
mod report;
mod scan;
mod selftest;
mod simulate;
mod stream;
mod tables;
mod transform;

use anstream::{AutoStream, ColorChoice};
use args::{Audit, Cli, Command, Device, Index, Keys, Policy, Transform, Whole};
use clap::{CommandFactory, Parser};
use failure::{Exit, Failure};
use files::interrupt;
use files::output::Target;
use files::standard::{Stdout, stderr, stdout};
use keyfold_memory::ErasingAllocator;
use std::alloc::System;
use std::io::{self, IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;
use transform::Direction;

/// Answers of key services, which have keys in clear, go through buffers of others.
#[global_allocator]
static ALLOCATOR: ErasingAllocator<System> = ErasingAllocator(System);

fn main() -> ExitCode {
    // Without it the limit ends the process, which says less.
    let _ = interrupt::ignore_file_size_limit();
    let parsed = Cli::try_parse();
    // A panic has said what it has to say when it gets here. It is a bug, and ends with the code of one.
    let result = catch_unwind(AssertUnwindSafe(|| match parsed {
        Ok(cli) => set_up_log(&cli.log).and_then(|()| run(cli.command)),
        Err(said) => print_parsed(&said),
    }));
    match result {
        Err(_) => ExitCode::from(Exit::Internal as u8),
        Ok(Ok(code)) => code,
        Ok(Err(failure)) => {
            // Nothing is left to tell anyone if standard error is gone, too.
            let _ = writeln!(stderr(), "keyfold: {failure}");
            ExitCode::from(failure.code)
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    let mut out = stdout();
    let code = execute(command, &mut out)?;
    out.flush().map_err(print_failed)?;
    Ok(code)
}

/// Refuses a standard output that is closed, for commands whose result is what they print. Others change something, which is worth more than
/// what they say of it, or judge, which the exit code says too.
fn needed(out: &mut Stdout) -> Result<&mut Stdout, Failure> {
    Target::Stdout.refuse_closed()?;
    Ok(out)
}

fn execute(command: Command, out: &mut Stdout) -> Result<ExitCode, Failure> {
    match command {
        Command::Init(args) => init::run(&args, out)?,
        Command::Migrate(args) => init::migrate(&args, out)?,
        Command::Protect(args) => {
            let direction = Direction::Protect { seal_sealed: args.seal_sealed };
            return protect_or_reveal(&args.transform, &args.whole, direction);
        }
        Command::Reveal(args) => return protect_or_reveal(&args.transform, &args.whole, Direction::Reveal),
        Command::Rebind(args) => transform::rebind(&args)?,
        Command::Reencrypt(args) => return reencrypt::run(&args),
        Command::Backfill(args) => return backfill::run(&args),
        Command::Index(Index::Advise(args)) => return index::advise(&args, needed(out)?),
        Command::Index(Index::Backfill(args)) => return index::backfill(&args),
        Command::Census(args) => census::run(&args, needed(out)?)?,
        Command::Inspect(args) => return inspect::run(&args, needed(out)?),
        Command::Doctor(args) => return doctor::run(&args, out),
        Command::Policy(Policy::Check(args)) => return policy::check(&args, out),
        Command::Policy(Policy::Diff(args)) => return policy::diff(&args, out),
        Command::Scan(args) => return scan::run(&args, out),
        Command::Report(args) => report::run(&args)?,
        Command::Simulate(args) => simulate::run(&args)?,
        Command::Keys(Keys::List(args)) => return keys::list(&args, needed(out)?),
        Command::Keys(Keys::Rotate(args)) => keys::rotate(&args, out)?,
        Command::Keys(Keys::Partition(args)) => keys::partition(&args, out)?,
        Command::Keys(Keys::Reparent(args)) => keys::reparent(&args, out)?,
        Command::Keys(Keys::State(args)) => keys::change_state(&args, out)?,
        Command::Keys(Keys::NewKek(args)) => keys::new_kek(&args, out)?,
        Command::Keys(Keys::Rewrap(args)) => {
            return keys::rewrap(&args, if args.dry_run { needed(out)? } else { out });
        }
        Command::Keys(Keys::Repair(args)) => {
            return keys::repair(&args, if args.dry_run { needed(out)? } else { out });
        }
        Command::Keys(Keys::Drill(args)) => return keys::drill(&args, out),
        Command::Audit(Audit::Verify(args)) => return audit::verify(&args, out),
        Command::Audit(Audit::Anchor(args)) => audit::anchor(&args, needed(out)?)?,
        Command::Audit(Audit::Export(args)) => audit::export(&args, needed(out)?)?,
        Command::Keys(Keys::Backup(args)) => keys::backup(&args)?,
        Command::Keys(Keys::Journal(args)) => keys::make_journals(&args, out)?,
        Command::Keys(Keys::Restore(args)) => {
            return keys::restore(&args, if args.dry_run { needed(out)? } else { out });
        }
        Command::Keys(Keys::Verify(args)) => return keys::verify(&args, out),
        Command::Keys(Keys::Shred(args)) => keys::shred(&args, out)?,
        Command::Keys(Keys::Hold(args)) => keys::hold(&args, out)?,
        Command::Device(Device::Provision(args)) => device::provision(&args, device::Generation::Present, out)?,
        Command::Device(Device::Rotate(args)) => device::provision(&args, device::Generation::Next, out)?,
        Command::Device(Device::Revoke(args)) => device::revoke(&args, out)?,
        Command::Device(Device::TransportKey(args)) => device::make_transport_key(&args)?,
        Command::Device(Device::Inspect(args)) => device::inspect(&args, needed(out)?)?,
        Command::Selftest(args) => {
            let passed = selftest::run(args.vectors.as_deref(), args.json, out)?;
            return Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "keyfold", &mut script);
            needed(out)?.write_all(&script).map_err(print_failed)?;
        }
        Command::Man { folder } => write_man_pages(&folder)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What the parser says of the command line: that it is wrong, or what `--help` and `--version` ask for. In colour where the parser would print it so.
fn print_parsed(said: &clap::Error) -> Result<ExitCode, Failure> {
    let text = |choice| match (choice, said.render()) {
        (ColorChoice::Never, text) => text.to_string(),
        (_, text) => text.ansi().to_string(),
    };
    if said.use_stderr() {
        // As with any other failure.
        let _ = stderr().write_all(text(AutoStream::choice(&io::stderr())).as_bytes());
        return Ok(ExitCode::from(Exit::Usage as u8));
    }
    let mut out = stdout();
    let text = text(AutoStream::choice(&io::stdout()));
    needed(&mut out)?.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(print_failed)?;
    Ok(ExitCode::SUCCESS)
}

/// Fields in files, or whole files.
fn protect_or_reveal(transform: &Transform, whole: &Whole, direction: Direction) -> Result<ExitCode, Failure> {
    match &whole.stream {
        Some(field) => stream::run(transform, whole, field, direction),
        None => transform::run(transform, direction).map(|_| ExitCode::SUCCESS),
    }
}

fn write_man_pages(folder: &Path) -> Result<(), Failure> {
    let written = std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(Cli::command(), folder));
    written.map_err(|error| {
        Failure::new(Exit::Storage, format!("cannot write man pages to {}: {error}", folder.display()))
    })
}

/// Logs to standard error, for this command's crates only: a level cannot make a library print what it should not.
fn set_up_log(level: &str) -> Result<(), Failure> {
    let level: tracing::Level = level
        .parse()
        .map_err(|_| Failure::new(Exit::Usage, "--log (or KEYFOLD_LOG) is one of error, warn, info, debug, trace"))?;
    let ours =
        ["keyfold", "keyfold_audit", "keyfold_cli", "keyfold_kms", "keyfold_open", "keyfold_store", "keyfold_tables"]
            .map(|name| (name, level));
    let layer = tracing_subscriber::fmt::layer().with_writer(stderr).with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry().with(layer).with(Targets::new().with_targets(ours)).init();
    Ok(())
}

/// Prints the result of a command that has changed something. Where it cannot be printed, the failure says with `done` what was changed all the same, and
/// where it can be seen: whoever takes the failure for one of the change would repeat that, or never know its pin. Where standard output is closed, that is
/// said as well, and is no failure: nobody waits for a result there.
fn print_done(out: &mut impl Write, text: &str, done: &str) -> Result<(), Failure> {
    // A signal that ends the process while nobody reads would take all of that along. Without handlers it does, as before.
    let _ = interrupt::Interrupt::install();
    if let Err(closed) = Target::Stdout.refuse_closed() {
        let _ = writeln!(stderr(), "keyfold: {}", Failure::from(closed).add(done));
        return Ok(());
    }
    let printed = writeln!(out, "{text}").and_then(|()| out.flush());
    printed.map_err(|error| print_failed(error).add(done))
}

/// The failure of printing a result.
fn print_failed(error: io::Error) -> Failure {
    Target::Stdout.error("write to", error).into()
}
