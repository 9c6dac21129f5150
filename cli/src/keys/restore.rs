//! `keyfold keys restore`: the records put together again.

use super::key_ids;
use crate::args::KeysRestore;
use crate::failure::{Exit, Failure};
use crate::opening;
use crate::print_failed;
use keyfold::{Lost, Record, RestorePlan};
use keyfold_open::Records;
use serde_json::{Value as Json, json};
use std::io::Write;
use std::process::ExitCode;

/// Plans, says what is lost, and restores unless something is and that was not accepted.
pub(crate) fn restore(args: &KeysRestore, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let in_data = args.key_ids.as_deref().map(key_ids::read).transpose()?.unwrap_or_default();
    let records = if args.make_store && !args.dry_run {
        let options = opening::options(&args.source)?;
        Records::open_or_create(&args.source.config, &options).map_err(Failure::of_opening)?
    } else {
        opening::records(&args.source, &[])?
    };
    let plan = pollster::block_on(records.plan(&args.from, in_data)).map_err(Failure::of_opening)?;
    let refused = !plan.lost.is_empty() && !args.accept_loss;
    let (mut done, mut old_marks) = (false, None);
    if !args.dry_run && !refused {
        old_marks = pollster::block_on(records.restore(&plan, args.accept_loss))?;
        done = true;
    }
    if args.json {
        let mut result = of_plan(&plan);
        result["restored"] = json!(done);
        result["old_high_water"] = json!(old_marks);
        writeln!(out, "{result}").map_err(print_failed)?;
    } else {
        write_text(&plan, out)?;
        if let Some(old) = old_marks {
            writeln!(out, "the old high-water file is {}", old.display()).map_err(print_failed)?;
        }
        let end = match (done, refused) {
            (true, _) => "restored",
            (false, true) => "",
            (false, false) => "a dry run: nothing was changed",
        };
        if !end.is_empty() {
            writeln!(out, "{end}").map_err(print_failed)?;
        }
    }
    if refused {
        return Err(Failure::new(
            Exit::Key,
            "something would be lost, and nothing was changed: look for more backups and journals (--from), or accept it (--accept-loss)",
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn write_text(plan: &RestorePlan, out: &mut impl Write) -> Result<(), Failure> {
    let mut text = format!(
        "{} keys, {} of them destroyed; {} records to store; generations up to {} are used",
        plan.keys,
        plan.tombstones,
        plan.records.len(),
        plan.generation
    );
    for (record, error) in &plan.refused {
        text.push_str(&format!("\nleft out: {} (sequence {}): {error}", record.key_id(), record.sequence()));
    }
    for lost in &plan.lost {
        text.push_str("\nLOST: ");
        text.push_str(&match lost {
            Lost::Key(key_id, mark) => {
                format!("{key_id}, which was {} when this machine last saw it", mark.state.name())
            }
            Lost::Newer(key_id, seen, found) => format!(
                "a change of {key_id}: this machine saw it {} (sequence {}), and there is {} (sequence {})",
                seen.state.name(),
                seen.sequence,
                found.state.name(),
                found.sequence
            ),
            Lost::InData(key_id) => format!("{key_id}, under which there is data"),
            Lost::Generations(first, last) => {
                format!("generations {first} to {last}: this machine saw them used, and no copy has a key of them")
            }
        });
    }
    writeln!(out, "{text}").map_err(print_failed)
}

fn of_plan(plan: &RestorePlan) -> Json {
    let lost = plan.lost.iter().map(|lost| match lost {
        Lost::Key(key_id, mark) => json!({ "key_id": key_id.to_string(), "state": mark.state.name() }),
        Lost::Newer(key_id, seen, found) => json!({
            "key_id": key_id.to_string(), "state": seen.state.name(), "sequence": seen.sequence,
            "restored_state": found.state.name(), "restored_sequence": found.sequence,
        }),
        Lost::InData(key_id) => json!({ "key_id": key_id.to_string(), "in_data": true }),
        Lost::Generations(first, last) => json!({ "first_generation": first, "last_generation": last }),
    });
    let refused = plan.refused.iter().map(|(record, error)| of_refused(record, error));
    json!({
        "keys": plan.keys, "tombstones": plan.tombstones, "records": plan.records.len(), "generation": plan.generation,
        "refused": refused.collect::<Vec<_>>(), "lost": lost.collect::<Vec<_>>(),
    })
}

pub(super) fn of_refused(record: &Record, error: &keyfold::Error) -> Json {
    json!({
        "key_id": record.key_id().to_string(), "sequence": record.sequence(), "error": error.to_string(),
        "code": error.kind().code(),
    })
}
