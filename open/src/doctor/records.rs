//! Key records: whether each counts, and whether the store has come as far as this machine saw it come.

use super::Notes;
use crate::marks::{Marks, RolledBack};
use crate::{Wraps, is_no_answer};
use keyfold::wire::KeyId;
use keyfold::{Error, HighWaterMark, KeyClass, KeyInfo, KeyState, KeyStore, Keyring, Lineage, Result};
use keyfold_kms::examine::Finding;
use std::collections::{BTreeMap, BTreeSet};

/// Most records that are verified: a check-up has an end, and `keys verify` looks at all.
const MOST: usize = 10_000;
/// Records that are verified at once, after the first one, by which it shows whether the KEKs answer.
const AT_ONCE: usize = 100;
/// Records that are read from the store at once.
const PAGE: usize = 1000;
/// Most keys that a finding names.
const NAMED: usize = 5;

/// Holds the store against what this machine had seen before the store is read.
pub(super) fn check_marks(notes: &Notes, marks: &Marks, store: &dyn KeyStore, lineage: Lineage) -> Result<()> {
    const NAME: &str = "high-water";
    if marks.file.is_none() {
        return Ok(());
    }
    let (mut stored, mut after) = (BTreeMap::new(), None);
    loop {
        let page = pollster::block_on(store.list(lineage, after, PAGE))?;
        let Some(last) = page.last() else { break };
        after = Some(last.key_id());
        stored.extend(page.iter().map(|record| (record.key_id(), HighWaterMark::of(record))));
    }
    let found: Vec<String> = marks.rolled_back(&stored).iter().map(sentence).collect();
    if !found.is_empty() {
        notes.add(Finding::problem(
            NAME,
            format!("the store was rolled back or edited, and no key is made or changed in it: {}", some(&found)),
            "unless you have put an old copy of it back, find out who did; keys restore --dry-run says what journals and backups bring back, and keys restore does it (docs/BACKUP.md)",
        ));
    }
    let newest = stored.keys().map(KeyId::generation).max().unwrap_or_default();
    if newest < marks.generation {
        let sentence = format!(
            "this machine saw generation {} used, and the newest key of the store has {newest}: a process failed while it made a key, or the store has lost one",
            marks.generation
        );
        let advice = "keys verify --journal says whether a key is lost".to_owned();
        notes.add(Finding { advice, ..Finding::note(NAME, sentence) });
    }
    Ok(())
}

fn sentence(RolledBack { key_id, seen, stored }: &RolledBack) -> String {
    let of = |mark: &HighWaterMark| format!("{} (sequence {})", mark.state.name(), mark.sequence);
    let stored =
        stored.as_ref().map_or_else(|| "does not have it".to_owned(), |stored| format!("has it {}", of(stored)));
    format!("this machine saw key {key_id} {}, and the store {stored}", of(seen))
}

/// The first of `texts`, and how many more there are.
fn some(texts: &[String]) -> String {
    let named = texts[..texts.len().min(NAMED)].join("; ");
    match texts.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named}; and {more} more"),
    }
}

/// What the records of a keyring are.
#[derive(Default)]
struct Verified {
    good: usize,
    /// Those that nobody vouches for.
    bad: Vec<(KeyId, Error)>,
    /// Roots that nobody vouches for and that do not seal: without a pin they are nothing, unless keys need them.
    retired: BTreeMap<KeyId, Error>,
    parents: BTreeSet<KeyId>,
    /// Those that the finding about the marks names.
    older: usize,
    /// Those that could not be verified.
    unanswered: usize,
    /// One of them may be in a moment, so that no more were looked at.
    passes: bool,
    /// Whether there are more than were looked at.
    more: bool,
    wraps: Wraps,
}

/// Verifies every record under the root that vouches for it.
pub(super) fn check(notes: &Notes, ring: &Keyring, marks: &Marks) {
    const NAME: &str = "keys";
    let verified = match verify(ring, marks) {
        Ok(verified) => verified,
        Err(error) => {
            return notes.add(Finding::problem(
                NAME,
                error.to_string(),
                "docs/BACKUP.md, \"A damaged record\", if that is what it is; or see the store",
            ));
        }
    };
    let Verified { good, mut bad, retired, parents, older, unanswered, passes, more, wraps } = verified;
    let (needed, retired): (Vec<_>, Vec<_>) = retired.into_iter().partition(|(key_id, _)| parents.contains(key_id));
    bad.extend(needed);
    let count = |n: usize| format!("{n} key record{}", if n == 1 { "" } else { "s" });
    if !bad.is_empty() {
        let of = |(key_id, error): &(KeyId, Error)| format!("{key_id}: {error}");
        let (texts, is): (Vec<_>, _) = (bad.iter().map(of).collect(), if bad.len() == 1 { "is" } else { "are" });
        let sentence = format!("{} {is} not vouched for: {}", count(bad.len()), some(&texts));
        // What else is wrong is tampering whatever the KEKs are.
        notes.add(if wraps.are_of_other_keks() && bad.iter().all(|(_, error)| Wraps::do_not_unwrap(error)) {
            let sentence = format!("{sentence}; nothing opens that their KEK wraps, so it is another KEK, or each was changed");
            Finding::problem(NAME, sentence, Wraps::ADVICE)
        } else {
            let advice =
                "take it for tampering, unless a pin is missing in the configuration: run keys verify, and see the KEKs";
            Finding::problem(NAME, sentence, advice)
        });
    }
    if unanswered > 0 {
        let sentence = match good {
            _ if !passes => format!(
                "{} cannot be verified here: no KEK that wraps them can be asked; {good} could",
                count(unanswered)
            ),
            // It ends with the first one, since each waits for the KEKs.
            0 => "key records cannot be verified now".to_owned(),
            _ => format!("not all key records can be verified now: {good} could, before one that cannot"),
        };
        notes.add(Finding::warning(NAME, sentence, "see the KEKs, and which of them are configured"));
    } else if good + bad.len() + older == 0 {
        notes.add(Finding::problem(NAME, "the store has no key of this keyring", "is it the right store?"));
    } else if good > 0 {
        let rest = match retired.len() {
            0 => String::new(),
            1 => "; 1 retired root is not pinned any more, and no key needs it".to_owned(),
            n => format!("; {n} retired roots are not pinned any more, and no key needs them"),
        };
        let note = Finding::note(NAME, format!("{} verified under a trusted root{rest}", counted(good)));
        notes.add(note);
    }
    if more {
        let sentence = format!("no more than {} were looked at", count(MOST));
        notes.add(Finding { advice: "keys verify looks at all".to_owned(), ..Finding::note(NAME, sentence) });
    }
}

fn counted(good: usize) -> String {
    if good == 1 { "1 key record was".to_owned() } else { format!("{good} key records were") }
}

fn verify(ring: &Keyring, marks: &Marks) -> Result<Verified> {
    let mut all = Verified::default();
    let (mut after, mut at_once, mut seen) = (None, 1, 0);
    loop {
        let page = pollster::block_on(ring.list(after, at_once))?;
        let Some(last) = page.last() else { return Ok(all) };
        after = Some(last.record.key_id());
        seen += page.len();
        page.into_iter().for_each(|info| all.add(info, marks));
        if all.passes {
            return Ok(all);
        }
        at_once = AT_ONCE.min(MOST.saturating_sub(seen));
        if at_once == 0 {
            all.more = !pollster::block_on(ring.stored(after, 1))?.is_empty();
            return Ok(all);
        }
    }
}

impl Verified {
    fn add(&mut self, info: KeyInfo, marks: &Marks) {
        let KeyInfo { record, verified } = info;
        let is_root = record.class() == KeyClass::Root;
        self.wraps.note(&record, verified.as_ref().copied());
        if !is_root {
            self.parents.insert(record.authenticator());
        }
        match verified {
            Ok(()) => self.good += 1,
            Err(error) if is_no_answer(&error) => {
                self.unanswered += 1;
                self.passes |= !error.is_lasting();
            }
            Err(_) if marks.refuses(&record) => self.older += 1,
            Err(error) if is_root && record.state() != KeyState::Active => {
                self.retired.insert(record.key_id(), error);
            }
            Err(error) => self.bad.push((record.key_id(), error)),
        }
    }
}
