//! Six years: 45 CFR 164.316(b)(2)(i) asks that documentation be kept for six years from when it was made or last in effect.
//! What would be lost earlier, or cannot be verified any more, is a warning.

use crate::evidence::Evidence;
use crate::inventory::Inventory;
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
        (
            KeyState::DestroyPending,
            "destroy-pending",
            "are to be destroyed less than six years after they were last in use",
        ),
        (KeyState::Destroyed, "destroyed", "were destroyed less than six years after they were last in use"),
    ] {
        let ids = young(state);
        if !ids.is_empty() {
            let named = ids.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
            let more = if ids.len() > MAX_NAMED { " and others" } else { "" };
            let what = format!(
                "{} keys {what} ({named}{more}): documentation that is under them still, or in a copy, cannot be read then",
                ids.len()
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
    let oldest = keys.keys.iter().filter_map(|key| time::parse(&key.created_at)).min();
    let first = audit.first.as_deref().and_then(time::parse);
    if let (Some(oldest), Some(first)) = (oldest, first)
        && first > oldest.max(since) + time::DAY
    {
        let what = format!(
            "the trail begins on {}, the keyring on {}: what happened between is recorded elsewhere or nowhere",
            time::date(first),
            time::date(oldest)
        );
        add("trail-begins-late", what, KEEP);
    }
}
