//! `keyfold keys`: what keys there are, and what becomes of them.

mod backup;
mod certificate;
mod drill;
mod key_ids;
mod new_kek;
mod partition;
mod reparent;
mod restore;
mod rewrap;
mod rotate;
mod shred;
mod state;
mod verify;
mod walk;

pub(crate) use backup::{backup, make_journals};
pub(crate) use drill::drill;
pub(crate) use new_kek::new_kek;
pub(crate) use partition::partition;
pub(crate) use reparent::reparent;
pub(crate) use restore::restore;
pub(crate) use rewrap::{repair, rewrap};
pub(crate) use rotate::rotate;
pub(crate) use shred::{hold, shred};
pub(crate) use state::change_state;
pub(crate) use verify::verify;

use crate::args::KeysList;
use crate::failure::{Exit, Failure};
use crate::files::standard::stderr;
use crate::init::hex;
use crate::opening;
use crate::print_failed;
use keyfold::{KekAlias, KeyClass, KeyInfo, KeyState, SlotId};
use keyfold_open::is_no_answer;
use serde_json::json;
use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;

/// Records that are read from the store at once.
const PAGE: usize = 1000;

/// Most keys or records of a kind that a report for people names.
const NAMED: usize = 10;

/// Prints every key. Fails at the end if one of them is not vouched for by a trusted root, or could not be verified now.
pub(crate) fn list(args: &KeysList, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let ring = opening::open(&args.source, &[])?;
    if !args.json {
        writeln!(
            out,
            "{:<48}  {:>10}  {:<6}  {:<15}  {:<32}  {:<20}  note",
            "key ID", "generation", "class", "state", "scope or partition", "created"
        )
        .map_err(print_failed)?;
    }
    for name in pollster::block_on(ring.missing_isolated_scopes())? {
        // The name stands in the configuration.
        let note = "the configuration isolates a scope that the keyring does not have yet; check its spelling";
        writeln!(stderr(), "keyfold: {note}: {name:?}").map_err(print_failed)?;
    }
    let mut after = None;
    let (mut all_good, mut unanswered) = (true, None);
    // Whose keys there are, and roots that nobody vouches for: without a pin they are nothing, unless keys need them.
    let (mut parents, mut retired) = (BTreeSet::new(), Vec::new());
    loop {
        let page = pollster::block_on(ring.list(after, PAGE))?;
        for info in &page {
            let record = &info.record;
            if record.class() != KeyClass::Root {
                parents.insert(record.authenticator());
            } else if info.verified.as_ref().is_err_and(|error| !is_no_answer(error))
                && record.state() != KeyState::Active
            {
                retired.push(info.clone());
                continue;
            }
            match &info.verified {
                Err(error) if is_no_answer(error) => unanswered = Some(error.clone()),
                verified => all_good &= verified.is_ok(),
            }
            let missing = ring.missing_keks(record);
            writeln!(out, "{}", if args.json { json_line(info, &missing) } else { text_line(info, &missing) })
                .map_err(print_failed)?;
        }
        match page.last() {
            Some(last) => after = Some(last.record.key_id()),
            None => break,
        }
    }
    for mut info in retired {
        let unused = !parents.contains(&info.record.key_id());
        all_good &= unused;
        let line = if args.json {
            json_line(&info, &[])
        } else if unused {
            info.verified = Ok(());
            format!("{}; not pinned any more, and no key needs it", text_line(&info, &[]))
        } else {
            text_line(&info, &[])
        };
        writeln!(out, "{line}").map_err(print_failed)?;
    }
    if after.is_none() {
        return Err(Failure::new(Exit::Key, "the store has no key of this keyring: is it the right one?"));
    }
    match unanswered {
        _ if !all_good => Ok(ExitCode::from(Exit::Key as u8)),
        Some(error) => Err(Failure::from(error).add("the keys cannot be verified until that is changed")),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn json_line(info: &KeyInfo, missing: &[KekAlias]) -> String {
    let record = &info.record;
    json!({
        "key_id": record.key_id().to_string(),
        "generation": record.key_id().generation(),
        "class": record.class().name(),
        "state": record.state().name(),
        "slot": slot(record.slot_id()),
        "created_at": record.created_at(),
        "changed_at": record.changed_at(),
        "sequence": record.sequence(),
        "root": record.authenticator().to_string(),
        "commitment": hex(record.commitment()),
        "keks": record.kek_aliases().map(KekAlias::as_str).collect::<Vec<_>>(),
        "missing_keks": missing.iter().map(KekAlias::as_str).collect::<Vec<_>>(),
        "held_since": record.held_since(),
        "verified": info.verified.is_ok(),
        "error": info.verified.as_ref().err().map(ToString::to_string),
        "code": info.verified.as_ref().err().map(|error| error.kind().code()),
    })
    .to_string()
}

fn text_line(info: &KeyInfo, missing: &[KekAlias]) -> String {
    let record = &info.record;
    let note = match &info.verified {
        // The reason is said once, at the end.
        Err(error) if is_no_answer(error) => "cannot be verified now".to_owned(),
        Err(error) => format!("NOT TRUSTED: {error}"),
        Ok(()) if record.class() == KeyClass::Root => {
            let keks = format!("KEKs {}", record.kek_aliases().map(KekAlias::as_str).collect::<Vec<_>>().join(", "));
            match missing {
                [] => keks,
                missing => {
                    let missing = missing.iter().map(KekAlias::as_str).collect::<Vec<_>>().join(", ");
                    format!("{keks}; lacks KEK {missing}: run keys repair")
                }
            }
        }
        Ok(()) => {
            let use_of = match record.state() {
                KeyState::Active => "seals and opens",
                KeyState::PreActive => "published, does not seal yet",
                _ => "",
            };
            let keks = record.kek_aliases().map(KekAlias::as_str).collect::<Vec<_>>().join(", ");
            let isolated = if record.is_isolated() { format!("isolated, KEKs {keks}") } else { String::new() };
            let held = if record.held_since().is_some() { "legal hold" } else { "" };
            let notes = [use_of, isolated.as_str(), held];
            notes.into_iter().filter(|note| !note.is_empty()).collect::<Vec<_>>().join("; ")
        }
    };
    let row = format!(
        "{}  {:>10}  {:<6}  {:<15}  {:<32}  {:<20}  {note}",
        record.key_id(),
        record.key_id().generation(),
        record.class().name(),
        record.state().name(),
        slot(record.slot_id()).unwrap_or_else(|| "-".to_owned()),
        time(record.created_at()),
    );
    row.trim_end().to_owned()
}

fn slot(id: SlotId) -> Option<String> {
    (id != SlotId::NONE).then(|| id.to_string())
}

pub(crate) fn time(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().map(|seconds| keyfold::Value::Timestamp { seconds, nanoseconds: 0 });
    time.as_ref().and_then(keyfold::Value::to_text).map_or_else(|| seconds.to_string(), |text| text.into_owned())
}

/// Adds a line for each of the first, and how many more there are: whoever can write a backup can have it hold any number.
fn push_named<T>(text: &mut String, indent: &str, all: &[T], line: impl Fn(&T) -> String) {
    for one in all.iter().take(NAMED) {
        text.push_str(indent);
        text.push_str(&line(one));
    }
    if all.len() > NAMED {
        text.push_str(&format!("{indent}and {} more, which --json names", all.len() - NAMED));
    }
}
