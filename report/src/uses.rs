//! Who used which key, and when.

use crate::Report;
use crate::counts::{Counts, UseCounts};
use crate::document::{MAX_ROWS, lines, moment, table};
use crate::evidence::Evidence;
use crate::page::{Block, Section};
use crate::time;
use serde::Serialize;
use std::collections::BTreeMap;

/// What one actor did with one key, over the whole trail.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeyUse {
    /// The key; `None`: values that name none or failed, or keys that were not counted apart.
    pub key_id: Option<String>,
    /// Its class; `None`: there is no key, or no record of it.
    pub class: Option<&'static str>,
    /// Who.
    pub actor: String,
    /// When the first and the last event of it were recorded (RFC 3339), which have the uses of an interval before.
    pub first: String,
    /// Likewise.
    pub last: String,
    /// Values that were sealed, likewise those that a blind index made tokens of.
    pub sealed: u64,
    /// Values that were opened, but for those of drills.
    pub opened: u64,
    /// Values that were searched for.
    pub searched: u64,
    /// Values that did not open or were refused.
    pub failed: u64,
    /// Values that drills opened.
    pub drilled: u64,
    /// How often a key service unwrapped the key, for drills as well.
    pub unwrapped: u64,
}

impl KeyUse {
    /// What was done, in words.
    fn counts(&self) -> impl Iterator<Item = Option<String>> {
        let all = [
            ("opened", self.opened),
            ("sealed", self.sealed),
            ("searched for", self.searched),
            ("failed", self.failed),
            ("opened by drills", self.drilled),
            ("unwrapped by a key service", self.unwrapped),
        ];
        all.into_iter().map(|(what, n)| (n > 0).then(|| format!("{what}: {n}")))
    }
}

/// All of them, who used a key last first.
pub(crate) fn uses(evidence: &Evidence, counts: &Counts) -> Vec<KeyUse> {
    let classes: BTreeMap<String, &'static str> =
        evidence.made().map(|key| (key.record.key_id().to_string(), key.record.class().name())).collect();
    let mut uses: Vec<_> = counts.uses.iter().filter_map(|(of, counts)| Some((of, counts, counts.span?))).collect();
    uses.sort_by_key(|(of, _, (_, last))| (std::cmp::Reverse(*last), *of));
    let row = |((key_id, actor), counts, (first, last)): (&(Option<String>, String), &UseCounts, _)| KeyUse {
        key_id: key_id.clone(),
        class: key_id.as_ref().and_then(|id| classes.get(id).copied()),
        actor: actor.clone(),
        first: time::rfc3339(first),
        last: time::rfc3339(last),
        sealed: counts.values.sealed,
        opened: counts.values.opened,
        searched: counts.values.searched,
        failed: counts.values.failed,
        drilled: counts.drilled,
        unwrapped: counts.unwrapped,
    };
    uses.into_iter().map(row).collect()
}

pub(crate) fn section(report: &Report) -> Section {
    let title = "Use of keys";
    let Some(audit) = &report.audit else {
        let none = "Not recorded: there is no audit trail, and nobody can say who used a key.";
        return Section { title, blocks: vec![Block::Text(none.to_owned())] };
    };
    let row = |of: &KeyUse| {
        let class = match (&of.key_id, of.class) {
            (None, _) => None,
            (Some(_), Some(class)) => Some(class.to_owned()),
            (Some(_), None) => Some("NO RECORD OF THIS KEY".to_owned()),
        };
        vec![
            lines([Some(of.key_id.clone().unwrap_or_else(|| "no key of its own".to_owned())), class]),
            of.actor.clone().into(),
            lines([Some(format!("first {}", moment(&of.first))), Some(format!("last {}", moment(&of.last)))]),
            lines(of.counts()),
        ]
    };
    let rows: Vec<_> = audit.uses.iter().take(MAX_ROWS).map(row).collect();
    let more = match audit.uses.len() - rows.len() {
        0 => String::new(),
        n => format!(" And {n} more, which were used last before these: JSON has them."),
    };
    let span = match (&audit.first, &audit.last) {
        (Some(first), Some(last)) => format!("from {} to {} UTC", moment(first), moment(last)),
        _ => "which has no event yet".to_owned(),
    };
    let intro = format!(
        "By key and actor over the whole trail, {span}. Times are of the events, which have the values of an interval before. An actor is a service by \
         its own word, and no person. Values that failed or name no key are without one; so are those of keys beyond 4,096 that a process used at a time. Keys that a \
         root unwraps show by their values alone. Which fields: keyfold audit export.{more}"
    );
    let found = match rows.is_empty() {
        true => Block::Text("No key was used.".to_owned()),
        false => {
            let caption = format!("Keys and who used them: the latest {} of {}", rows.len(), audit.uses.len());
            table(caption, &["Key", "Who", "When (UTC)", "Values"], rows)
        }
    };
    Section { title, blocks: vec![Block::Text(intro), found] }
}
