//! `keyfold keys shred` and `keyfold keys hold`: the end of a scope.

use super::certificate::{Certificate, MAX_LEN};
use super::time;
use crate::args::{KeysHold, KeysShred};
use crate::failure::{Exit, Failure};
use crate::files::output::{Output, Target};
use crate::files::standard::stderr;
use crate::opening;
use crate::{print_done, print_failed};
use keyfold::{AuditAction, AuditEvent, Record};
use keyfold_open::Records;
use serde_json::json;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// Does what the arguments ask for.
pub(crate) fn shred(args: &KeysShred, out: &mut impl Write) -> Result<(), Failure> {
    let records = opening::records(&args.source, &args.policy)?;
    match (&args.scope, &args.confirm) {
        (_, Some(file)) => confirm(args, &records, file, out),
        (Some(scope), None) if args.finish => finish(args, &records, scope, out),
        (Some(scope), None) if args.cancel => cancel(args, &records, scope, out),
        (Some(scope), None) => schedule(args, &records, scope, out),
        (None, None) => Err(Failure::new(Exit::Usage, "--scope or --confirm says what to do")),
    }
}

fn schedule(args: &KeysShred, records: &Records, scope: &str, out: &mut impl Write) -> Result<(), Failure> {
    let scheduled = pollster::block_on(records.ring.shred_scope(scope, args.reason.as_deref()))?;
    let (slot, from) = (scheduled.slot, time(scheduled.not_before));
    let neither = match scheduled.keys.len() {
        1 => format!("the key of scope {slot} neither seals nor opens any more"),
        keys => format!("the {keys} keys of scope {slot} neither seal nor open any more"),
    };
    let text = if args.json {
        let key_ids: Vec<_> = scheduled.keys.iter().map(|record| record.key_id().to_string()).collect();
        json!({ "slot": scheduled.slot.to_string(), "keys": key_ids, "not_before": scheduled.not_before }).to_string()
    } else {
        format!(
            "{neither}; from {from} on that can be made final (--finish), and until then it can be taken back (--cancel)"
        )
    };
    let done = format!("{neither}; from {from} on --finish makes that final, and --cancel takes it back");
    print_done(out, &text, &done)
}

fn cancel(args: &KeysShred, records: &Records, scope: &str, out: &mut impl Write) -> Result<(), Failure> {
    let seals: Record = pollster::block_on(records.ring.cancel_shred(scope, args.reason.as_deref()))?;
    let text = if args.json {
        json!({ "slot": seals.slot_id().to_string(), "seals": seals.key_id().to_string() }).to_string()
    } else {
        format!("the keys of scope {} open again, and {} seals", seals.slot_id(), seals.key_id())
    };
    let done = format!("the keys of scope {} open again; `keyfold keys list` shows them", seals.slot_id());
    print_done(out, &text, &done)
}

fn finish(args: &KeysShred, records: &Records, scope: &str, out: &mut impl Write) -> Result<(), Failure> {
    // Before anything is destroyed: a certificate that cannot be written is known now.
    let output = certificate_file(args)?;
    let shredded = pollster::block_on(records.ring.finish_shred(scope, args.reason.as_deref()))?;
    let done = format!("the keys of scope {} are destroyed", shredded.slot);
    let now = pollster::block_on(records.ring.store_time()).map_err(|error| Failure::from(error).add(&done))?;
    issue(args, records, &Certificate::new(&shredded, records, now), output, &done, out)
}

fn confirm(args: &KeysShred, records: &Records, file: &Path, out: &mut impl Write) -> Result<(), Failure> {
    let output = certificate_file(args)?;
    let mut certificate = Certificate::parse(&read(file)?, &args.source.config, &records.config)?;
    let slot = certificate.slot()?;
    certificate.hold_to(&pollster::block_on(records.ring.keys_of_slot(slot))?, records)?;
    let now = pollster::block_on(records.ring.store_time())?;
    let pending = certificate.pending();
    if !pending.is_empty() {
        certificate.update(&pollster::block_on(records.ring.purge(&pending))?, now);
    }
    let on_word = certificate.take_word([&args.place, &args.backup, &args.archive], now)?;
    certificate.close(now);
    let mut event = AuditEvent::new(AuditAction::ShredConfirmed)
        .detail("slot", slot)
        .detail("pending", certificate.number_pending())
        .detail("on_word", on_word.join(", "));
    event.reason = args.reason.clone();
    // A certificate is not handed out where the sink refuses what it cannot record.
    records.ring.audit(event)?;
    issue(args, records, &certificate, output, "what was confirmed is not lost", out)
}

fn certificate_file(args: &KeysShred) -> Result<Output, Failure> {
    let target = Target::from_argument(args.certificate.as_deref().unwrap_or(OsStr::new("-")));
    for file in keyfold_open::own_files(&args.source.config, &args.policy)? {
        target.refuse_own(&file)?;
    }
    Ok(Output::create(target, args.force)?)
}

/// Writes a certificate and says what is in it. `done` is what has happened before.
fn issue(
    args: &KeysShred,
    records: &Records,
    certificate: &Certificate,
    mut output: Output,
    done: &str,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let again = format!("{done}: run this again with another --certificate for one");
    let text = certificate.text(&records.ring, &args.source.config).map_err(|failure| failure.add(&again))?;
    let written = output.write(text.as_bytes()).and_then(|()| output.commit());
    written.map_err(|error| Failure::from(error).add(&again))?;
    let text = if args.json { certificate.json()?.to_string() } else { certificate.summary() };
    match args.certificate.as_deref().filter(|file| *file != "-") {
        Some(file) => print_done(out, &text, &format!("{done}; the certificate is in {}", Path::new(file).display())),
        None => writeln!(stderr(), "{text}").map_err(print_failed),
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    let failed = |error: io::Error| Failure::new(Exit::Storage, format!("cannot read {}: {error}", file.display()));
    let mut text = String::new();
    File::open(file).map_err(failed)?.take(MAX_LEN).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// Places a legal hold, or lifts it.
pub(crate) fn hold(args: &KeysHold, out: &mut impl Write) -> Result<(), Failure> {
    let ring = opening::open(&args.source, &[])?;
    let reason = Some(args.reason.as_str());
    let hold = pollster::block_on(async {
        if args.release {
            ring.release_scope(&args.scope, reason).await
        } else {
            ring.hold_scope(&args.scope, reason).await
        }
    })?;
    let keys: Vec<_> = hold.keys.iter().map(ToString::to_string).collect();
    let text = if args.json {
        json!({ "slot": hold.slot.to_string(), "held": !args.release, "keys": keys }).to_string()
    } else if args.release {
        format!("scope {} is under legal hold no more; a scheduled end waits anew", hold.slot)
    } else {
        let none = if keys.len() == 1 {
            "its 1 key cannot".to_owned()
        } else {
            format!("none of its {} keys can", keys.len())
        };
        format!("scope {} is under legal hold: {none} be destroyed", hold.slot)
    };
    let state = if args.release { "under legal hold no more" } else { "under legal hold" };
    print_done(out, &text, &format!("scope {} is {state}; `keyfold keys list` shows it", hold.slot))
}
