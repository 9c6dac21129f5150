//! `keyfold keys restore`: the records put together again.

use super::{key_ids, push_named};
use crate::args::KeysRestore;
use crate::failure::{Exit, Failure};
use crate::opening;
use crate::print_done;
use keyfold::{Evidence, Lost, Record, RecordChange, RestorePlan};
use keyfold_open::{Accepted, Records};
use serde_json::{Value as Json, json};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Plans, says what is lost, and restores unless something is and that was not accepted.
pub(crate) fn restore(args: &KeysRestore, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let in_data = args.key_ids.as_deref().map(key_ids::read).transpose()?.unwrap_or_default();
    let options = opening::options(&args.source)?;
    let path = &args.source.config;
    let mut records = Records::open_to_plan(path, &options, args.make_store).map_err(Failure::of_opening)?;
    let missing = records.store_is_missing();
    let copies = records.copies(&args.from).map_err(Failure::of_opening)?;
    let foreign = copies.foreign.clone();
    let plan = |records: &Records| {
        pollster::block_on(records.plan(copies.clone(), in_data.clone())).map_err(Failure::of_opening)
    };
    let mut planned = plan(&records)?;
    // The store is made only for a plan that is carried out.
    if missing && args.make_store && !args.dry_run && refusal(&planned, args).is_none() {
        drop(records);
        records = Records::open_or_create(path, &options).map_err(Failure::of_opening)?;
        planned = plan(&records)?;
    }
    let plan = planned;
    let refused = refusal(&plan, args);
    let (mut done, mut old_marks) = (false, None);
    if !args.dry_run && refused.is_none() {
        let accepted = Accepted { loss: args.accept_loss, destruction: args.accept_destruction };
        old_marks = pollster::block_on(records.restore(&plan, accepted))?;
        done = true;
    }
    let text = if args.json {
        let mut result = of_plan(&plan);
        let foreign = foreign.iter().map(|(file, count)| json!({ "file": file, "records": count }));
        result["other_keyrings"] = foreign.collect();
        result["store_missing"] = json!(missing);
        result["restored"] = json!(done);
        result["old_high_water"] = json!(old_marks);
        result.to_string()
    } else {
        let mut lines = Vec::new();
        if missing && !done {
            lines.push("the store is missing: --make-store makes it".to_owned());
        }
        for (file, count) in &foreign {
            lines.push(format!("left out: {count} records of other keyrings in {}", file.display()));
        }
        lines.push(text_of(&plan));
        if let Some(old) = &old_marks {
            lines.push(format!("the old high-water file is {}", old.display()));
        }
        match (done, &refused) {
            (true, _) => lines.push("restored".to_owned()),
            (false, Some(_)) => {}
            (false, None) => lines.push("a dry run: nothing was changed".to_owned()),
        }
        lines.join("\n")
    };
    let end = match done {
        true => end_of(&plan, old_marks.as_deref()),
        false => "nothing was changed".to_owned(),
    };
    print_done(out, &text, &end)?;
    match refused {
        Some(message) => Err(Failure::new(Exit::Key, message)),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// What was done, where the result cannot be printed. What was lost is nowhere else afterwards: the new high-water file knows the restored records only.
fn end_of(plan: &RestorePlan, old_marks: Option<&Path>) -> String {
    let mut end = "the records were restored; `keyfold keys verify` looks at them".to_owned();
    if let Some(old) = old_marks {
        end.push_str(&format!("; the old high-water file is {}", old.display()));
    }
    for lost in &plan.lost {
        end.push_str(&format!("; LOST: {}", text_of_lost(lost)));
    }
    end
}

/// Why the plan is not carried out, if anything in it was not accepted.
fn refusal(plan: &RestorePlan, args: &KeysRestore) -> Option<&'static str> {
    if !plan.lost.is_empty() && !args.accept_loss {
        Some(
            "something would be lost, and nothing was changed: look for more backups and journals (--from), or accept it (--accept-loss)",
        )
    } else if plan.destroys_on_doubt() && !args.accept_destruction {
        Some(
            "keys would be destroyed of which it is not certain that they were, and nothing was changed: see docs/BACKUP.md, or accept it (--accept-destruction)",
        )
    } else {
        None
    }
}

fn evidence(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::Tombstone => "a copy has its tombstone",
        Evidence::Intent => "on doubt: a journal says that it was to be destroyed, and not whether it was",
        Evidence::Mark => "on doubt: the high-water file alone says that it was destroyed",
    }
}

fn text_of(plan: &RestorePlan) -> String {
    let mut text = format!(
        "{} keys, {} of them destroyed; {} records to store; generations up to {} are used",
        plan.keys,
        plan.tombstones,
        plan.to_store(),
        plan.generation
    );
    push_named(&mut text, "\n", &plan.refused, |(record, error)| {
        format!("left out: {} (sequence {}): {error}", record.key_id(), record.sequence())
    });
    push_named(&mut text, "\n", &plan.retired, |(record, _)| format!("left as it is: {}", text_of_retired(record)));
    push_named(&mut text, "\n", &plan.displacing, |RecordChange { record, .. }| {
        format!(
            "replaces {} in the store, for which nobody vouches, by a good copy (sequence {})",
            record.key_id(),
            record.sequence()
        )
    });
    for (key_id, why) in &plan.destroyed {
        text.push_str(&format!("\ndestroys {key_id}: {}", evidence(*why)));
    }
    for lost in &plan.lost {
        text.push_str(&format!("\nLOST: {}", text_of_lost(lost)));
    }
    text
}

fn text_of_lost(lost: &Lost) -> String {
    match lost {
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
        Lost::Unvouched(key_id, had, gets) => format!(
            "a change of {key_id}: in the store it is {} (sequence {}), for which nobody vouches, as it is damaged, forged or a pin is missing; the best copy is {} (sequence {})",
            had.state.name(),
            had.sequence,
            gets.state.name(),
            gets.sequence
        ),
    }
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
        Lost::Unvouched(key_id, had, gets) => json!({
            "key_id": key_id.to_string(), "unvouched_state": had.state.name(), "unvouched_sequence": had.sequence,
            "restored_state": gets.state.name(), "restored_sequence": gets.sequence,
        }),
    });
    let refused = of_all_refused(&plan.refused);
    let displaced: Vec<_> = plan.displacing.iter().map(|change| change.record.key_id().to_string()).collect();
    let destroyed = plan.destroyed.iter().map(|(key_id, why)| {
        let why = match why {
            Evidence::Tombstone => "tombstone",
            Evidence::Intent => "intent",
            Evidence::Mark => "high-water",
        };
        json!({ "key_id": key_id.to_string(), "evidence": why })
    });
    let destroyed: Vec<_> = destroyed.collect();
    json!({
        "destroyed": destroyed, "keys": plan.keys, "tombstones": plan.tombstones, "records": plan.to_store(), "generation": plan.generation,
        "refused": refused, "retired": of_all_refused(&plan.retired), "displaced": displaced, "lost": lost.collect::<Vec<_>>(),
    })
}

/// Each record with the reason why it does not count.
pub(super) fn of_all_refused(records: &[(Record, keyfold::Error)]) -> Vec<Json> {
    let of = |(record, error): &(Record, keyfold::Error)| {
        json!({
            "key_id": record.key_id().to_string(), "sequence": record.sequence(), "error": error.to_string(),
            "code": error.kind().code(),
        })
    };
    records.iter().map(of).collect()
}

pub(super) fn text_of_retired(record: &Record) -> String {
    format!(
        "a retired root, for which nothing need be done: {} (sequence {}): not pinned any more, and no key needs it",
        record.key_id(),
        record.sequence()
    )
}
