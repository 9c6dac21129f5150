//! `keyfold keys rewrap` and `keyfold keys repair`: the same keys under other KEKs.

use super::walk::{End, Place, walk};
use crate::args::{KeysRepair, KeysRewrap};
use crate::failure::{Exit, Failure};
use crate::opening;
use crate::{print_done, print_failed};
use keyfold::{Keyring, Rewrap, RewrapOptions, RewrapPlan};
use serde_json::{Value, json};
use std::io::Write;
use std::process::ExitCode;

/// Gives every root and isolated key the wraps it should have. May be stopped anywhere and repeated.
pub(crate) fn rewrap(args: &KeysRewrap, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let options =
        RewrapOptions { renew: args.renew.iter().cloned().collect(), drop: args.drop_kek.iter().cloned().collect() };
    let ring = opening::open(&args.source, &[])?;
    run(&ring, options, args.dry_run, args.records_per_second, args.json, out)
}

/// Makes the wraps that are missing.
pub(crate) fn repair(args: &KeysRepair, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let ring = opening::open(&args.source, &[])?;
    run(&ring, RewrapOptions::default(), args.dry_run, None, args.json, out)
}

fn run(
    ring: &Keyring,
    options: RewrapOptions,
    dry_run: bool,
    rate: Option<u32>,
    json: bool,
    out: &mut impl Write,
) -> Result<ExitCode, Failure> {
    let mut rewrap = pollster::block_on(ring.rewrap(options.clone()))?;
    if dry_run {
        let plan = pollster::block_on(rewrap.plan())?;
        let text = if json { plan_json(&plan).to_string() } else { plan_text(&plan) };
        writeln!(out, "{text}").map_err(print_failed)?;
        return Ok(ExitCode::SUCCESS);
    }
    let end = walk(("rewrapping", "changed"), rate, async |limit| {
        let progress = rewrap.step(limit).await?;
        Ok(Place { seen: progress.seen, changed: progress.changed, done: progress.done })
    })?;
    let text = if json { result_json(&rewrap).to_string() } else { result_text(&rewrap, &options) };
    let changed = rewrap.progress().changed;
    print_done(out, &text, &format!("{changed} records were changed: --dry-run says what is left to do"))?;
    match end {
        End::Interrupted(interrupted) => Err(interrupted.into()),
        End::Done if is_complete(&rewrap) => Ok(ExitCode::SUCCESS),
        End::Done => {
            let failed = rewrap.failures().values().next();
            Ok(ExitCode::from(failed.map_or(Exit::Kms as u8, |error| Failure::from(error.clone()).code)))
        }
    }
}

/// Whether everything was done that was to be done.
fn is_complete(rewrap: &Rewrap) -> bool {
    let progress = rewrap.progress();
    rewrap.failures().is_empty() && progress.unopened == 0 && progress.kept == 0
}

fn plan_json(plan: &RewrapPlan) -> Value {
    let requests = plan.calls.iter().map(|(alias, calls)| {
        let calls = json!({ "unwraps": calls.unwraps, "wraps": calls.wraps, "verifies": calls.verifies });
        (alias.to_string(), calls)
    });
    json!({
        "dry_run": true, "seen": plan.seen, "records": plan.records, "added": plan.added, "renewed": plan.renewed,
        "dropped": plan.dropped, "requests": Value::Object(requests.collect()), "requests_total": plan.total(),
    })
}

fn plan_text(plan: &RewrapPlan) -> String {
    let mut text = format!(
        "{} of {} records would change: {} wraps added, {} made anew, {} dropped; {} requests",
        plan.records,
        plan.seen,
        plan.added,
        plan.renewed,
        plan.dropped,
        plan.total()
    );
    for (alias, calls) in &plan.calls {
        text.push_str(&format!(
            "\nKEK {alias}: {} to unwrap, {} to wrap, {} to verify",
            calls.unwraps, calls.wraps, calls.verifies
        ));
    }
    text
}

fn result_json(rewrap: &Rewrap) -> Value {
    let progress = rewrap.progress();
    let failed: Vec<_> = rewrap
        .failures()
        .iter()
        .map(|(alias, error)| json!({ "kek": alias.as_str(), "error": error.to_string(), "code": error.kind().code() }))
        .collect();
    json!({
        "dry_run": false, "done": progress.done, "seen": progress.seen, "changed": progress.changed,
        "added": progress.added, "renewed": progress.renewed, "dropped": progress.dropped, "kept": progress.kept,
        "unopened": progress.unopened, "failed": failed,
    })
}

fn result_text(rewrap: &Rewrap, options: &RewrapOptions) -> String {
    let progress = rewrap.progress();
    let mut text = format!(
        "{} records changed: {} wraps added, {} made anew, {} dropped",
        progress.changed, progress.added, progress.renewed, progress.dropped
    );
    for (alias, error) in rewrap.failures() {
        text.push_str(&format!("\nKEK {alias} did not wrap: run keys repair when that is mended: {error}"));
    }
    if progress.unopened > 0 {
        text.push_str(&format!("\n{} isolated keys were opened by no KEK and stay as they are", progress.unopened));
    }
    if progress.kept > 0 {
        text.push_str(&format!("\n{} wraps stay, since too few others were verified: run it again", progress.kept));
    }
    if !progress.done {
        text.push_str("\nnot finished: run it again to go on");
    } else if is_complete(rewrap) {
        text.push_str("; every root and isolated key is wrapped by the KEKs that should wrap it");
        if options.renew.is_empty() {
            text.push_str(
                "\nversions of KEKs were not compared: after the rotation of a KEK, keys rewrap --renew ALIAS wraps again \
                 under its present version",
            );
        }
        if options.is_repair() {
            text.push_str("\nwraps that were there already were not tried: keys drill does that");
        }
        for alias in &options.drop {
            text.push_str(&format!(
                "\nremove [keks.{alias}] wherever this keyring is configured, then end the KEK; backups and frames made before still need it"
            ));
        }
    }
    text
}
