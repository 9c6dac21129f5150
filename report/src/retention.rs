//! Six years: 45 CFR 164.316(b)(2)(i) asks that documentation be kept for six years from when it was made or last in effect.
//! What would be lost earlier, or cannot be verified any more, is a warning.

use crate::evidence::Evidence;
use crate::inventory::Inventory;
use crate::text;
use crate::time;
use crate::trail::AuditSummary;
use keyfold::KeyState;
use keyfold::config::OnAuditFailure;
use serde::Serialize;

/// Something that is, or would be, lost before six years have passed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Retention {
    /// Its name: `no-trail`, `trail-begins-late`, `earlier-files`, `unverifiable`, `no-anchors`, `events-may-be-lost`,
    /// `audit-kek-is-a-file`, `destroyed`, `destroy-pending`, `no-backup`.
    pub warning: &'static str,
    /// The same for people.
    pub what: String,
    /// What to do about it.
    pub advice: &'static str,
}

/// Seconds in which a new keyring may be given its trail: `init` makes a configuration without one.
const SET_UP: u64 = time::HOUR;
/// Most keys that are named in one warning.
const MAX_NAMED: usize = 5;

pub(crate) fn warnings(evidence: &Evidence, keys: &Inventory, audit: Option<&AuditSummary>) -> Vec<Retention> {
    let mut found = Vec::new();
    let mut add = |warning, what: String, advice| found.push(Retention { warning, what, advice });
    let Some(config) = evidence.services.first().map(|service| &service.config) else { return found };
    match (&config.audit, audit) {
        (Some(settings), Some(audit)) => {
            if settings.on_failure == OnAuditFailure::Count || audit.lost > 0 {
                let what = match audit.lost {
                    0 => "on_failure = \"count\": what cannot be recorded is done all the same".to_owned(),
                    lost => format!("{lost} events are missing, because they could not be recorded"),
                };
                add("events-may-be-lost", what, "on_failure = \"refuse\" records everything that is done");
            }
            if audit.gap.is_none() {
                let what = "there are no anchors: if the end of the trail is cut off, that does not show".to_owned();
                add("no-anchors", what, "set [audit] anchors to a file that only takes additions");
            }
            if !audit.authenticated && audit.events > 0 {
                let what = "not every chain could be checked under its audit KEK in this report".to_owned();
                add(
                    "unverifiable",
                    what,
                    "run the report with --verify; keep audit KEKs and their old versions for six years",
                );
            }
            if !audit.forgeable.is_empty() {
                let what = format!(
                    "audit KEK {} is a file, or wraps roots as well: whoever has it can forge chains, and its loss ends verification",
                    audit.forgeable.join(", ")
                );
                add(
                    "audit-kek-is-a-file",
                    what,
                    "use a key service where services may encrypt and auditors alone may decrypt",
                );
            }
            begins(evidence, keys, audit, &mut add);
        }
        _ => add(
            "no-trail",
            "the configuration has no [audit] section: nothing is recorded".to_owned(),
            "add it (docs/AUDIT.md)",
        ),
    }
    let since = time::six_years_before(evidence.at);
    let young = |state: KeyState| -> Vec<String> {
        let of = keys.keys.iter().filter(|key| key.state == state.name());
        // Values under the key may have been written until its state changed.
        of.filter(|key| time::parse(&key.changed_at).is_some_and(|changed| changed > since))
            .map(|key| key.key_id.clone())
            .collect()
    };
    for (state, warning, what) in [
        (KeyState::DestroyPending, "destroy-pending", "to be destroyed less than six years after the last use"),
        (KeyState::Destroyed, "destroyed", "destroyed less than six years after the last use"),
    ] {
        let ids = young(state);
        if !ids.is_empty() {
            let named = ids.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
            let more = if ids.len() > MAX_NAMED { " and others" } else { "" };
            let what = format!(
                "{} {what} ({named}{more}): what is sealed under such a key still, or in a copy, cannot be read then",
                text::counted(ids.len(), "key")
            );
            add(
                warning,
                what,
                "keyfold census counts what is under them; a legal hold (keys hold) keeps a scope; keep the certificates of those that are gone",
            );
        }
    }
    if audit.is_some_and(|audit| audit.latest("backup", evidence.at).is_none()) && config.journals.is_empty() {
        let what =
            "the trail has no backup of the key records, and there is no journal: with the store the data is lost";
        add("no-backup", what.to_owned(), "run keys backup, or set [store] journal (docs/BACKUP.md)");
    }
    found
}

/// Whether what was recorded first is still here.
fn begins(
    evidence: &Evidence,
    keys: &Inventory,
    audit: &AuditSummary,
    add: &mut impl FnMut(&'static str, String, &'static str),
) {
    const KEEP: &str = "keep every audit file with its anchors for six years; a report takes all of them";
    const LATE: &str = "unless [audit] was set so late, look for the earlier files and anchors; keep them for six years, a report takes all of them";
    let missing = evidence.trail.as_ref().is_some_and(|trail| {
        trail.verification.findings.iter().any(|finding| {
            use keyfold_audit::FindingKind::{MissingChain, MissingFile, MissingTail};
            matches!(finding.kind, MissingChain | MissingFile | MissingTail)
        })
    });
    if missing {
        add("earlier-files", "files, chains or ends of chains that were there are missing".to_owned(), KEEP);
    }
    let since = time::six_years_before(evidence.at);
    let Some(oldest) = keys.oldest.as_deref().and_then(time::parse) else { return };
    let first = audit.first.as_deref().and_then(time::parse);
    // A trail that is there and has no event would begin with the next one.
    let begin = first.unwrap_or(evidence.at);
    if begin > oldest.max(since) + SET_UP || audit.unrecorded > 0 && begin > since {
        let begins = match first {
            Some(first) => format!("the trail begins on {}", time::minute(first)),
            None => "the trail has no event".to_owned(),
        };
        let made = match audit.unrecorded {
            0 => String::new(),
            n => format!("; keys that were made in between, without an event here: {n}"),
        };
        let what = format!(
            "{begins}, the keyring on {}{made}. What happened before is recorded elsewhere or nowhere",
            time::minute(oldest)
        );
        add("trail-begins-late", what, LATE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Report;
    use crate::samples::{evidence, key, line};
    use crate::time::{DAY, HOUR};

    /// The keyring was made then.
    const NEW: &str = "2028-02-01T09:00:00Z";

    #[test]
    fn a_trail_that_begins_after_keys_that_it_does_not_know_is_late() {
        let new = time::parse(NEW).expect("a time");
        // What `init` makes, and a key that was made 20 minutes later.
        let first = || vec![key(1, new), key(2, new + 1), key(3, new + 2)];
        let later = || [first(), vec![key(4, new + 1200)]].concat();
        let late = |at: u64, keys: Vec<keyfold::Record>, lines: &[Vec<u8>]| {
            let report = Report::new(&evidence(at, keys, lines));
            let found = report.retention.into_iter().find(|found| found.warning == "trail-begins-late");
            (report.audit.expect("a trail").unrecorded, found.map(|found| found.what))
        };
        let begin = |after: u64| line(&time::rfc3339(new + after), "opened", "");
        let year = new + 365 * DAY;
        // A configuration with a trail comes after the keyring.
        assert_eq!(late(year, first(), &[begin(HOUR)]), (0, None));
        let (unrecorded, what) = late(year, first(), &[begin(HOUR + 1)]);
        let said = "the trail begins on 2028-02-01 10:00, the keyring on 2028-02-01 09:00. What happened before is recorded elsewhere or nowhere";
        assert_eq!((unrecorded, what.as_deref()), (0, Some(said)));
        // A key that was made later is in the trail, or the trail is not all of it: without a wait.
        assert_eq!(late(year, later(), &[begin(1199)]), (0, None));
        let (unrecorded, what) = late(year, later(), &[begin(1201)]);
        assert!(unrecorded == 1 && what.expect("late").contains("made in between, without an event here: 1."));
        // The clock of the store is behind that of the machine.
        let made = format!(",\"key_id\":\"{}\"", key(4, new).key_id());
        let made = line(&time::rfc3339(new + 1300), "key-made", &made);
        assert_eq!(late(year, later(), &[begin(1299), made]), (0, None));
        // No event at all.
        assert_eq!(late(new + HOUR, first(), &[]), (0, None));
        let (unrecorded, what) = late(new + 1500, later(), &[]);
        assert!(
            unrecorded == 1
                && what.expect("late").starts_with("the trail has no event, the keyring on 2028-02-01 09:00;")
        );
        assert_eq!(late(year + 7 * 365 * DAY, later(), &[begin(1201)]).1, None, "six years have passed");
    }
}
