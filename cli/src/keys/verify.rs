//! `keyfold keys verify`: whether the records count, and whether they are all there.

use super::key_ids;
use super::restore::of_refused;
use crate::args::KeysVerify;
use crate::failure::{Exit, Failure};
use crate::opening;
use crate::print_failed;
use keyfold::wire::KeyId;
use keyfold::{CopyStatus, Error, KeyState, Record, RecordCopy};
use keyfold_open::Records;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

/// Checks the store, and what else was named. Fails at the end if anything is wrong.
pub(crate) fn verify(args: &KeysVerify, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let wanted = args.key_ids.as_deref().map(key_ids::read).transpose()?;
    let records = opening::records(&args.source, &[])?;
    let stored = pollster::block_on(records.all_stored())?;
    if stored.is_empty() {
        return Err(Failure::new(Exit::Key, "the store has no key of this keyring: is it the right one?"));
    }
    let of_store = |record: &Record| RecordCopy { record: record.clone(), status: CopyStatus::Stored };
    let mut reports = vec![Report::of("store", &records, stored.iter().map(of_store).collect(), &[])?];
    for file in &args.backup {
        let found = keyfold_store::read_records(file).map_err(Failure::of_opening)?;
        reports.push(Report::of(&file.display().to_string(), &records, found.copies, &stored)?);
    }
    if args.journal {
        for journal in records.journals() {
            let found = journal.read().map_err(Failure::of_opening)?;
            let mut report = Report::of(&journal.path().display().to_string(), &records, found.copies, &stored)?;
            // A backup may be older than the store. A journal never is.
            report.bad |= !report.behind.is_empty();
            reports.push(report);
        }
        if records.journals().is_empty() {
            return Err(Failure::new(Exit::Policy, "the configuration names no journal"));
        }
    }
    let states = match &wanted {
        Some(key_ids) => Some(pollster::block_on(records.states_of(key_ids))?),
        None => None,
    };
    let missing = states.iter().flatten().any(|(_, state)| state.is_none());
    if args.json {
        let reports: Vec<_> = reports.iter().map(Report::json).collect();
        let data = states.as_ref().map(of_states);
        writeln!(out, "{}", json!({ "checked": reports, "data": data })).map_err(print_failed)?;
    } else {
        for report in &reports {
            writeln!(out, "{}", report.text()).map_err(print_failed)?;
        }
        if let Some(states) = &states {
            writeln!(out, "{}", text_of_states(states)).map_err(print_failed)?;
        }
    }
    let bad = missing || reports.iter().any(|report| report.bad);
    Ok(if bad { ExitCode::from(Exit::Key as u8) } else { ExitCode::SUCCESS })
}

/// What was found in one place.
struct Report {
    place: String,
    keys: usize,
    refused: Vec<(Record, Error)>,
    /// Keys that the store has, or has in a newer form.
    behind: Vec<KeyId>,
    bad: bool,
}

impl Report {
    fn of(place: &str, records: &Records, copies: Vec<RecordCopy>, stored: &[Record]) -> Result<Self, Failure> {
        let mut newest: BTreeMap<KeyId, Record> = BTreeMap::new();
        let lineage = records.config.keyring.lineage;
        let copies: Vec<_> = copies.into_iter().filter(|copy| copy.record.lineage() == lineage).collect();
        for copy in copies.iter().filter(|copy| copy.status != CopyStatus::Refused) {
            let known = newest.entry(copy.record.key_id()).or_insert_with(|| copy.record.clone());
            if copy.record.outranks(known) {
                *known = copy.record.clone();
            }
        }
        let behind = stored
            .iter()
            .filter(|stored| newest.get(&stored.key_id()).is_none_or(|known| stored.sequence() > known.sequence()));
        let behind = behind.map(Record::key_id).collect();
        let refused = pollster::block_on(records.ring.check_copies(copies))?;
        // A root that is not pinned any more and on which nothing depends is nothing, nor are older records of it, which a
        // journal keeps.
        let parents: Vec<_> = newest.values().filter(|record| record.authenticator() != record.key_id()).collect();
        let harmless = |record: &Record| {
            record.class() == keyfold::KeyClass::Root
                && newest.get(&record.key_id()).is_some_and(|known| known.state() != KeyState::Active)
                && !parents.iter().any(|child| child.authenticator() == record.key_id())
        };
        let bad = refused.iter().any(|(record, _)| !harmless(record));
        Ok(Self { place: place.to_owned(), keys: newest.len(), refused, behind, bad })
    }

    fn text(&self) -> String {
        let mut text = format!("{}: {} keys", self.place, self.keys);
        match self.refused.len() {
            0 => text.push_str(", a trusted root vouches for each"),
            count => text.push_str(&format!(", {count} records that no trusted root vouches for")),
        }
        for (record, error) in &self.refused {
            text.push_str(&format!("\n  {} (sequence {}): {error}", record.key_id(), record.sequence()));
        }
        if !self.behind.is_empty() {
            text.push_str(&format!("\n  {} keys of the store are missing here or older", self.behind.len()));
        }
        text
    }

    fn json(&self) -> Json {
        json!({
            "place": self.place, "keys": self.keys, "good": !self.bad,
            "refused": self.refused.iter().map(|(record, error)| of_refused(record, error)).collect::<Vec<_>>(),
            "behind": self.behind.iter().map(KeyId::to_string).collect::<Vec<_>>(),
        })
    }
}

/// Key IDs by what is worth saying about them.
fn sorted(states: &BTreeMap<KeyId, Option<KeyState>>) -> [(&'static str, Vec<String>); 4] {
    let of = |wanted: fn(&Option<KeyState>) -> bool| {
        states.iter().filter(|(_, state)| wanted(state)).map(|(key_id, _)| key_id.to_string()).collect::<Vec<_>>()
    };
    [
        ("missing", of(Option::is_none)),
        ("destroyed", of(|state| *state == Some(KeyState::Destroyed))),
        ("destroy_pending", of(|state| *state == Some(KeyState::DestroyPending))),
        ("compromised", of(|state| *state == Some(KeyState::Compromised))),
    ]
}

fn of_states(states: &BTreeMap<KeyId, Option<KeyState>>) -> Json {
    let mut result = json!({ "keys": states.len() });
    for (name, key_ids) in sorted(states) {
        result[name] = json!(key_ids);
    }
    result
}

fn text_of_states(states: &BTreeMap<KeyId, Option<KeyState>>) -> String {
    let mut text = format!("data: {} keys", states.len());
    for (name, key_ids) in sorted(states) {
        for key_id in key_ids {
            text.push_str(&format!("\n  {}: {key_id}", name.replace('_', "-")));
        }
    }
    text
}
