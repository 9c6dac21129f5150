//! `keyfold census`: how many values there are under which generation, from their headers alone. Needs no key.

mod files;
mod folder;
mod header;
mod report;
mod tally;

pub(crate) use files::{count_file, count_records};
pub(crate) use header::{EXTENT, Seen};
pub(crate) use tally::Tally;

use crate::args::Census;
use crate::failure::{Exit, Failure};
use crate::files::interrupt::Interrupt;
use crate::files::output::{Output, Target};
use crate::outputs;
use crate::print_failed;
use crate::tables::{self, Checkpoint, Pace, Rows};
use keyfold_tables::{Access, Extent};
use report::States;
use serde_json::json;
use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// A checkpoint holds all counts, so it is not written after each page, but this often, at the end and when interrupted.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(2);

pub(crate) fn run(args: &Census, out: &mut impl Write) -> Result<(), Failure> {
    let interrupt =
        Interrupt::install().map_err(|error| Failure::new(Exit::System, format!("cannot handle signals: {error}")))?;
    let key_ids = args.key_ids.as_deref().filter(|target| *target != "-").map(Path::new);
    let outputs = [("--key-ids", key_ids), ("--checkpoint", args.walk.checkpoint.as_deref())];
    let inputs: Vec<&OsStr> = args.files.iter().map(|file| &**file).collect();
    outputs::refuse(&outputs, args.config.as_deref().map(|config| (config, &[][..])), &inputs, args.sql.as_deref())?;
    if let Some(target) = &args.key_ids {
        // Before a long count, rather than at its end.
        drop(Output::create(Target::from_argument(target), args.force)?);
    }
    let open = |config: &std::path::PathBuf| keyfold_open::open(config, &[]).map_err(Failure::of_opening);
    let ring = args.config.as_ref().map(open).transpose()?;
    // Whoever does not ask for key IDs gets by without remembering them.
    let with_ids = args.config.is_some() || args.key_ids.is_some();
    let tallies = match &args.sql {
        Some(sql) => vec![count_table(args, sql, &interrupt, with_ids)?],
        None => {
            let count = |file: &std::ffi::OsString| {
                count_file(file, args.format, args.delimiter, &args.column, &interrupt, with_ids)
            };
            args.files.iter().map(count).collect::<Result<_, _>>()?
        }
    };
    // What was counted counts, whatever becomes of the rest.
    let (states, unknown) = match ring.as_ref().map(States::of).transpose() {
        Ok(states) => (states, None),
        Err(failure) => (None, Some(failure)),
    };
    let written = args.key_ids.as_ref().map(|target| write_key_ids(target, &tallies, args.force)).transpose();
    // Standard output is for one of the two.
    if args.key_ids.as_deref() != Some(OsStr::new("-")) {
        for tally in &tallies {
            report::print(tally, states.as_ref(), args.json, out)?;
        }
        out.flush().map_err(print_failed)?;
    }
    written?;
    if let Some(failure) = unknown {
        return Err(failure.add("the states of keys are not told; what was counted counts"));
    }
    let checked = states.map_or(Ok(()), |states| states.check(&tallies));
    match tallies.iter().map(|tally| tally.unread).sum::<u64>() {
        0 => checked,
        unread => {
            // Nobody may take it for everything.
            let why = format!("what could not be read is not counted: {unread}, each named above");
            Err(checked.map_or_else(|failure| failure.add(&why), |()| Failure::new(Exit::Storage, why.as_str())))
        }
    }
}

fn count_table(args: &Census, sql: &str, interrupt: &Interrupt, with_ids: bool) -> Result<Tally, Failure> {
    let mut table = tables::open(sql, &args.walk, &args.column, Access::Read)?;
    let walk = json!({
        "what": "census", "place": table.place(), "key": args.walk.key, "columns": args.column, "key_ids": with_ids,
    });
    let mut checkpoint = Checkpoint::open(args.walk.checkpoint.as_deref(), walk)?;
    let mut tally = Tally::new(table.place(), &args.column, with_ids);
    if checkpoint.is_resumed() {
        tally.restore(&checkpoint.state)?;
    }
    let pace = Pace {
        interrupt: interrupt.clone(),
        batch_rows: args.walk.batch_rows,
        rows_per_second: args.walk.rows_per_second,
    };
    let mut rows = Rows::new(&pace, checkpoint.after.clone(), Extent::Start(EXTENT), "counting");
    let (mut last, mut saved) = (None, Instant::now());
    loop {
        match rows.next(&mut table) {
            Ok(Some(page)) => {
                for row in &page {
                    tally.rows += 1;
                    for (column, cell) in row.cells.iter().enumerate() {
                        tally.add(column, Seen::cell(cell))?;
                    }
                }
                last = page.into_iter().last().map(|row| row.key).or(last);
                if checkpoint.is_kept() && saved.elapsed() > CHECKPOINT_EVERY {
                    checkpoint.save(last.as_ref(), tally.to_json())?;
                    saved = Instant::now();
                }
            }
            Ok(None) => {
                checkpoint.save(last.as_ref(), tally.to_json())?;
                return Ok(tally);
            }
            Err(failure) => {
                checkpoint.save(last.as_ref(), tally.to_json())?;
                return Err(match checkpoint.is_kept() {
                    true => failure.add("the counts so far are in the checkpoint: start it again and it goes on there"),
                    false => failure,
                });
            }
        }
    }
}

/// One key ID per line: 48 hexadecimal digits, a tab, the number of values.
fn write_key_ids(target: &OsStr, tallies: &[Tally], force: bool) -> Result<(), Failure> {
    let mut output = Output::create(Target::from_argument(target), force)?;
    let mut sums = std::collections::BTreeMap::new();
    for (key_id, count) in tallies.iter().flat_map(Tally::key_ids) {
        *sums.entry(key_id).or_insert(0_u64) += count;
    }
    for (key_id, count) in sums {
        output.write(format!("{key_id}\t{count}\n").as_bytes())?;
    }
    Ok(output.commit()?)
}

/// The name of an input, for people.
pub(crate) fn name_of(input: &OsStr) -> String {
    if input == "-" { "standard input".to_owned() } else { Path::new(input).display().to_string() }
}
