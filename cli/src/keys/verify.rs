//! `keyfold keys verify`: whether the records count, and whether they are all there: in the store, and in copies of it.

use super::restore::{of_all_refused, text_of_retired};
use super::{key_ids, push_named};
use crate::args::KeysVerify;
use crate::failure::{Exit, Failure};
use crate::opening;
use crate::print_failed;
use keyfold::wire::KeyId;
use keyfold::{CopyStatus, Error, HighWaterMark, KeyClass, KeyState, Record, RecordCopy};
use keyfold_open::{Marks, Records, Wraps};
use keyfold_store::Found;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Checks the store, and what else was named. Fails at the end if anything is wrong.
pub(crate) fn verify(args: &KeysVerify, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let wanted = args.key_ids.as_deref().map(key_ids::read).transpose()?;
    let records = opening::records(&args.source, &[])?;
    let marks = records.marks().map_err(Failure::of_opening)?;
    let stored = pollster::block_on(records.all_stored())?;
    if stored.is_empty() {
        return Err(Failure::new(Exit::Key, "the store has no key of this keyring: is it the right one?"));
    }
    let of_store = |record: &Record| RecordCopy { record: record.clone(), status: CopyStatus::Stored };
    let mut reports = vec![Report::of("store", &records, stored.iter().map(of_store).collect(), &[])?];
    for file in &args.backup {
        reports.push(Report::of_copy(file, &records, keyfold_store::read_records(file), &stored));
    }
    if args.journal {
        for journal in records.journals() {
            let mut report = Report::of_copy(journal.path(), &records, journal.read(), &stored);
            // A backup may be older than the store. A journal never is.
            report.bad |= !report.behind.is_empty();
            reports.push(report);
        }
        if records.journals().is_empty() {
            return Err(Failure::new(Exit::Policy, "the configuration names no journal"));
        }
    }
    reports.extend(of_marks(&marks, &stored));
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
    if let Some(failure) = reports.iter_mut().find_map(|report| report.failed.take()) {
        return Err(failure);
    }
    let bad = missing || reports.iter().any(|report| report.bad);
    Ok(if bad { ExitCode::from(Exit::Key as u8) } else { ExitCode::SUCCESS })
}

/// What was found in one place.
#[derive(Default)]
struct Report {
    place: String,
    keys: usize,
    /// Whether the place has records, of which it is told whether somebody vouches for them.
    has_records: bool,
    /// Why nothing more can be told of it.
    failed: Option<Failure>,
    /// Records that nobody vouches for.
    refused: Vec<(Record, Error)>,
    /// Records of roots that were replaced: nobody vouches for them, and nobody needs to.
    retired: Vec<(Record, Error)>,
    /// Keys that the store has, or has in a newer form.
    behind: Vec<KeyId>,
    /// Keys of which there is a newer record than the store has, with the state in it.
    ahead: Vec<(KeyId, HighWaterMark)>,
    bad: bool,
}

/// Holds the store to what this machine has seen. `None`: the configuration names no high-water file.
fn of_marks(marks: &Marks, stored: &[Record]) -> Option<Report> {
    let file = marks.file.as_ref()?;
    let stored = stored.iter().map(|record| (record.key_id(), HighWaterMark::of(record))).collect();
    let ahead: Vec<_> = marks.rolled_back(&stored).iter().map(|back| (back.key_id, back.seen)).collect();
    Some(Report {
        place: file.display().to_string(),
        keys: marks.keys.len(),
        bad: !ahead.is_empty(),
        ahead,
        ..Report::default()
    })
}

/// Where no root opens at all. Changed records or another KEK: not known, and in neither case is the service away.
fn unopened(error: Error) -> Failure {
    let do_not_unwrap = Wraps::do_not_unwrap(&error);
    let failure = Failure::from(error);
    if do_not_unwrap { failure.add(Wraps::ADVICE).of_keys() } else { failure }
}

impl Report {
    /// Of a copy of the store: what is wrong with one hides nothing of the others.
    fn of_copy(path: &Path, records: &Records, found: Result<Found, Error>, stored: &[Record]) -> Self {
        let place = path.display().to_string();
        let report = match found {
            // The error names the file.
            Err(error) => Err(Failure::of_opening(error)),
            Ok(found) => Self::of(&place, records, found.copies, stored).map_err(|failure| failure.at(&place)),
        };
        report.unwrap_or_else(|failure| Self { place, failed: Some(failure), bad: true, ..Self::default() })
    }

    fn of(place: &str, records: &Records, copies: Vec<RecordCopy>, stored: &[Record]) -> Result<Self, Failure> {
        let lineage = records.config.keyring.lineage;
        let copies: Vec<_> = copies.into_iter().filter(|copy| copy.record.lineage() == lineage).collect();
        let newest = newest(copies.iter().filter(|copy| copy.status != CopyStatus::Refused).map(|copy| &copy.record));
        let behind = stored
            .iter()
            .filter(|stored| newest.get(&stored.key_id()).is_none_or(|known| stored.sequence() > known.sequence()));
        let behind = behind.map(Record::key_id).collect();
        let had: Vec<Record> =
            copies.iter().filter(|copy| copy.status == CopyStatus::Stored).map(|copy| copy.record.clone()).collect();
        let refused = pollster::block_on(records.ring.check_copies(copies)).map_err(unopened)?;
        // A root that is not pinned any more and on which nothing depends is nothing, nor are older records of it, which a
        // journal keeps.
        let children = newest.values().filter(|record| record.authenticator() != record.key_id());
        let parents: BTreeSet<KeyId> = children.map(Record::authenticator).collect();
        let harmless = |record: &Record| {
            record.class() == KeyClass::Root
                && newest.get(&record.key_id()).is_some_and(|known| known.state() != KeyState::Active)
                && !parents.contains(&record.key_id())
        };
        let (retired, refused): (Vec<_>, Vec<_>) = refused.into_iter().partition(|(record, _)| harmless(record));
        // Of a place that is the store itself nothing is held against the store.
        let ahead = if stored.is_empty() { Vec::new() } else { ahead(records, &had, &refused, &retired, stored)? };
        let bad = !refused.is_empty() || !ahead.is_empty();
        let place = place.to_owned();
        Ok(Self { place, keys: newest.len(), has_records: true, failed: None, refused, retired, behind, ahead, bad })
    }

    fn text(&self) -> String {
        let (keys, place) = (counted(self.keys, "key"), &self.place);
        if let Some(failure) = &self.failed {
            return format!("{place}: CANNOT BE CHECKED: {failure}");
        }
        if !self.has_records {
            return format!("{place}: marks of {keys}{}", self.text_of_ahead());
        }
        let mut text = format!("{place}: {keys}");
        match self.refused.len() {
            0 => text.push_str(", a trusted root vouches for each"),
            count => text.push_str(&format!(
                ", and {} that no trusted root vouches for: take that for tampering, unless a pin is missing in the configuration",
                counted(count, "record")
            )),
        }
        push_named(&mut text, "\n  ", &self.refused, |(record, error)| {
            format!("NOT VOUCHED FOR: {} (sequence {}): {error}", record.key_id(), record.sequence())
        });
        push_named(&mut text, "\n  ", &self.retired, |(record, _)| text_of_retired(record));
        if !self.behind.is_empty() {
            let are = if self.behind.len() == 1 { "is" } else { "are" };
            text.push_str(&format!(
                "\n  {} of the store {are} missing here or older",
                counted(self.behind.len(), "key")
            ));
        }
        text + &self.text_of_ahead()
    }

    fn text_of_ahead(&self) -> String {
        if self.ahead.is_empty() {
            return String::new();
        }
        let mut text = format!(
            "\n  THE STORE IS BEHIND: it lacks {}, or has an older record; unless you have put an old copy of it back, find out who did; keys restore brings it up to date (docs/BACKUP.md)",
            counted(self.ahead.len(), "key")
        );
        push_named(&mut text, "\n    ", &self.ahead, |(key_id, mark)| {
            format!("{key_id}: {} here (sequence {})", mark.state.name(), mark.sequence)
        });
        text
    }

    fn json(&self) -> Json {
        json!({
            "place": self.place, "keys": self.keys, "good": !self.bad, "error": self.failed.as_ref().map(Failure::to_string),
            "refused": of_all_refused(&self.refused), "retired": of_all_refused(&self.retired),
            "behind": self.behind.iter().map(KeyId::to_string).collect::<Vec<_>>(),
            "ahead": self.ahead.iter().map(|(key_id, _)| key_id.to_string()).collect::<Vec<_>>(),
        })
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The record of each key that outranks the others.
fn newest<'a>(records: impl Iterator<Item = &'a Record>) -> BTreeMap<KeyId, Record> {
    let mut newest: BTreeMap<KeyId, Record> = BTreeMap::new();
    for record in records {
        let known = newest.entry(record.key_id()).or_insert_with(|| record.clone());
        if record.outranks(known) {
            *known = record.clone();
        }
    }
    newest
}

/// The keys of which a copy has a record that outranks the one in the store, or that the store lacks. Records never leave a store, and a tombstone
/// outranks every other: so what was destroyed is not missed. Only what a store had counts (`had`): what was to be stored may have been refused. Nor does what nobody vouches
/// for: whoever can write a journal could otherwise have it say that of any store.
fn ahead(
    records: &Records,
    had: &[Record],
    refused: &[(Record, Error)],
    retired: &[(Record, Error)],
    stored: &[Record],
) -> Result<Vec<(KeyId, HighWaterMark)>, Failure> {
    let bad: HashSet<&[u8]> = refused.iter().chain(retired).map(|(record, _)| record.as_bytes()).collect();
    let copied = newest(had.iter().filter(|record| !bad.contains(record.as_bytes())));
    let missing = |stored: &[Record]| -> Vec<(KeyId, HighWaterMark)> {
        let stored: BTreeMap<KeyId, &Record> = stored.iter().map(|record| (record.key_id(), record)).collect();
        let is_newer =
            |(key_id, copy): &(&KeyId, &Record)| stored.get(*key_id).is_none_or(|stored| copy.outranks(stored));
        copied.iter().filter(is_newer).map(|(key_id, copy)| (*key_id, HighWaterMark::of(copy))).collect()
    };
    let found = missing(stored);
    if found.is_empty() {
        return Ok(found);
    }
    // Others may have changed keys since the store was read, and the journal has that: the store has it, too, by now.
    Ok(missing(&pollster::block_on(records.all_stored())?))
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
