//! `keyfold keys shred` and `keyfold keys hold`: the end of a scope.

use super::certificate::{Certificate, MAX_LEN};
use super::time;
use crate::args::{KeysHold, KeysShred};
use crate::failure::{Exit, Failure};
use crate::files::output::{Output, Target};
use crate::opening;
use crate::print_failed;
use keyfold::{KeyState, Record};
use keyfold_open::Records;
use serde_json::json;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// Does what the arguments ask for.
pub(crate) fn shred(args: &KeysShred) -> Result<(), Failure> {
    let records = opening::records(&args.source, &args.policy)?;
    match (&args.scope, &args.confirm) {
        (_, Some(file)) => confirm(args, &records, file),
        (Some(scope), None) if args.finish => finish(args, &records, scope),
        (Some(scope), None) if args.cancel => cancel(args, &records, scope),
        (Some(scope), None) => schedule(args, &records, scope),
        (None, None) => Err(Failure::new(Exit::Usage, "--scope or --confirm says what to do")),
    }
}

fn schedule(args: &KeysShred, records: &Records, scope: &str) -> Result<(), Failure> {
    let scheduled = pollster::block_on(records.ring.shred_scope(scope))?;
    let keys = scheduled.keys.len();
    print(&if args.json {
        let key_ids: Vec<_> = scheduled.keys.iter().map(|record| record.key_id().to_string()).collect();
        json!({ "slot": scheduled.slot.to_string(), "keys": key_ids, "not_before": scheduled.not_before }).to_string()
    } else {
        format!(
            "{keys} keys of scope {} neither seal nor open any more; they can be destroyed from {} (--finish), and until then that can be taken back (--cancel)",
            scheduled.slot,
            time(scheduled.not_before)
        )
    })
}

fn cancel(args: &KeysShred, records: &Records, scope: &str) -> Result<(), Failure> {
    let seals: Record = pollster::block_on(records.ring.cancel_shred(scope))?;
    print(&if args.json {
        json!({ "slot": seals.slot_id().to_string(), "seals": seals.key_id().to_string() }).to_string()
    } else {
        format!("the keys of scope {} open again, and {} seals", seals.slot_id(), seals.key_id())
    })
}

fn finish(args: &KeysShred, records: &Records, scope: &str) -> Result<(), Failure> {
    // Before anything is destroyed: a certificate that cannot be written is known now.
    let output = certificate_file(args)?;
    let shredded = pollster::block_on(records.ring.finish_shred(scope))?;
    let now = pollster::block_on(records.ring.store_time())?;
    issue(args, &Certificate::new(&shredded, &records.config, now), output)
}

fn confirm(args: &KeysShred, records: &Records, file: &Path) -> Result<(), Failure> {
    let output = certificate_file(args)?;
    let config = &args.source.config;
    let mut certificate = Certificate::parse(&read(file)?, config)?;
    let keyring = &records.config.keyring;
    if certificate.lineage != keyring.lineage.to_string() || certificate.environment != keyring.environment {
        return Err(Failure::new(Exit::Data, "the certificate is about another keyring"));
    }
    let key_ids = certificate.keys.iter().map(|key| key.key_id.parse()).collect::<Result<_, keyfold::Error>>()?;
    let states = pollster::block_on(records.states_of(&key_ids))?;
    if let Some((key_id, _)) = states.iter().find(|(_, state)| **state != Some(KeyState::Destroyed)) {
        let why =
            "the store does not show the key as destroyed any more: was it rolled back? `keyfold keys restore` helps";
        return Err(Failure::new(Exit::Key, format!("{key_id}: {why}")));
    }
    let now = pollster::block_on(records.ring.store_time())?;
    let pending = certificate.pending();
    if !pending.is_empty() {
        certificate.update(&pollster::block_on(records.ring.purge(&pending))?, now);
    }
    certificate.take_word([&args.place, &args.backup, &args.archive], now)?;
    certificate.close(now);
    issue(args, &certificate, output)
}

fn certificate_file(args: &KeysShred) -> Result<Output, Failure> {
    let target = Target::from_argument(args.certificate.as_deref().unwrap_or(OsStr::new("-")));
    for file in keyfold_open::own_files(&args.source.config, &args.policy)? {
        target.refuse_own(&file)?;
    }
    Ok(Output::create(target, args.force)?)
}

fn issue(args: &KeysShred, certificate: &Certificate, mut output: Output) -> Result<(), Failure> {
    output.write(certificate.text(&args.source.config)?.as_bytes())?;
    output.commit()?;
    let text = if args.json { certificate.json()?.to_string() } else { certificate.summary() };
    let to_stdout = args.certificate.as_deref() == Some(OsStr::new("-"));
    if to_stdout { writeln!(anstream::stderr(), "{text}").map_err(print_failed) } else { print(&text) }
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
    let reason = args.reason.as_deref();
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
        format!("scope {} is under legal hold: none of its {} keys can be destroyed", hold.slot, keys.len())
    };
    writeln!(out, "{text}").map_err(print_failed)
}

fn print(text: &str) -> Result<(), Failure> {
    writeln!(io::stdout(), "{text}").map_err(print_failed)
}
