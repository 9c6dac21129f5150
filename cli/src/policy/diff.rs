//! `keyfold policy diff`: what a change of policy does to data that is there.

mod hl7;

use super::documents;
use crate::args::PolicyDiff;
use crate::failure::{Exit, Failure, Printable};
use crate::print_failed;
use keyfold::{FieldMode, FieldPolicy, ManifestRule, MigrationPhase, Policy, RowBinding};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io::Write;
use std::mem::discriminant;
use std::path::Path;
use std::process::ExitCode;

/// What a change means, the worst first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Effect {
    /// Values that are there do not open any more.
    Unreadable,
    /// What was sealed is in clear from now on.
    Clear,
    /// A change of protected documents that was noticed is not noticed any more.
    Weaker,
    /// Values that are there are not found or joined any more until they are sealed again.
    Unmatched,
    /// Values that are there are protected less, or differently, than new ones until they are sealed again.
    Reencrypt,
    /// Data that is in clear is sealed from now on, and must be first.
    Seal,
    /// Good to know.
    Note,
}

impl Effect {
    const fn name(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Clear => "clear",
            Self::Weaker => "weaker",
            Self::Unmatched => "unmatched",
            Self::Reencrypt => "reencrypt",
            Self::Seal => "seal",
            Self::Note => "note",
        }
    }

    const fn is_loss(self) -> bool {
        matches!(self, Self::Unreadable | Self::Clear | Self::Weaker)
    }
}

struct Change {
    effect: Effect,
    field: String,
    what: String,
}

/// Prints what the change does. Ends with 3 if data would be lost, in clear, or less guarded.
pub(crate) fn diff(args: &PolicyDiff, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let read = |path: &Path| keyfold_open::read_policies(&[path.to_owned()]).map_err(Failure::of_opening);
    let mut changes = changes(&read(&args.old)?, &read(&args.new)?);
    changes.sort_by(|a, b| (a.effect, &a.field).cmp(&(b.effect, &b.field)));
    let ok = !changes.iter().any(|change| change.effect.is_loss());
    if args.json {
        let list = changes
            .iter()
            .map(|change| json!({ "effect": change.effect.name(), "field": change.field, "what": change.what }));
        writeln!(out, "{}", json!({ "ok": ok, "changes": list.collect::<Vec<Json>>() })).map_err(print_failed)?;
    } else {
        for Change { effect, field, what } in &changes {
            writeln!(out, "{}: {}: {}", Printable(field), effect.name(), Printable(what)).map_err(print_failed)?;
        }
        let verdict = match (changes.is_empty(), ok) {
            (true, _) => "nothing changes",
            (false, true) => "nothing that is there is lost",
            (false, false) => "DATA WOULD BE LOST, IN CLEAR OR LESS GUARDED",
        };
        writeln!(out, "{verdict}").map_err(print_failed)?;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::from(Exit::Policy as u8) })
}

fn changes(old: &Policy, new: &Policy) -> Vec<Change> {
    let mut found = Vec::new();
    compare_documents(old, new, &mut found);
    hl7::compare(old.hl7(), new.hl7(), &mut found);
    for before in old.fields() {
        match new.field(&before.name) {
            Some(after) => compare(before, after, &mut found),
            None => gone(before, old, new, &mut found),
        }
        for place in places(before) {
            if !new.fields().any(|field| places(field).contains(&place)) {
                let what = format!("{place} has no rule any more: new data is in clear there");
                found.push(Change { effect: Effect::Clear, field: before.name.clone(), what });
            }
        }
    }
    for after in new.fields() {
        for place in places(after) {
            if !old.fields().any(|field| places(field).contains(&place)) {
                let what =
                    format!("{place} is sealed from now on: protect what is there, or migrate it (docs/MIGRATION.md)");
                found.push(Change { effect: Effect::Seal, field: after.name.clone(), what });
            }
        }
        if old.field(&after.name).is_none() && places(after).is_empty() {
            found.push(Change { effect: Effect::Note, field: after.name.clone(), what: "the field is new".to_owned() });
        }
    }
    found
}

/// Where a field is.
fn places(field: &FieldPolicy) -> BTreeSet<String> {
    let only_if = match field.only_if.is_empty() {
        true => String::new(),
        false => format!(
            " if {}",
            field.only_if.iter().map(|(path, value)| format!("{path} = {value:?}")).collect::<Vec<_>>().join(", ")
        ),
    };
    let columns = field.columns.iter().map(|column| format!("column {column}"));
    let paths = field.paths.iter().map(|path| format!("path {path}{only_if}"));
    columns.chain(paths).chain(field.segments.iter().map(|segment| format!("segment {segment}"))).collect()
}

/// A field that is not there any more, perhaps because it has another name now.
fn gone(before: &FieldPolicy, old: &Policy, new: &Policy, found: &mut Vec<Change>) {
    let ours = places(before);
    let is_heir =
        |field: &&std::sync::Arc<FieldPolicy>| old.field(&field.name).is_none() && !places(field).is_disjoint(&ours);
    let mut add = |effect, what: String| found.push(Change { effect, field: before.name.clone(), what });
    match new.fields().find(is_heir) {
        Some(heir) if group(before).is_some() && group(before) == group(heir) => {
            add(
                Effect::Note,
                format!("it is named {} now; values of a join group are not bound to the name", heir.name),
            );
            compare(before, heir, found);
        }
        Some(heir) => add(
            Effect::Unreadable,
            format!(
                "it is named {} now: values are bound to the name, and do not open under another. Keep the name",
                heir.name
            ),
        ),
        None => add(
            Effect::Unreadable,
            "it is gone: nobody opens its values with this policy. Reveal them first".to_owned(),
        ),
    }
}

fn group(field: &FieldPolicy) -> Option<(&str, &str)> {
    match &field.mode {
        FieldMode::Deterministic { partition, join_group: Some(group) } => Some((partition, group)),
        _ => None,
    }
}

fn is_deterministic(field: &FieldPolicy) -> bool {
    matches!(field.mode, FieldMode::Deterministic { .. })
}

/// Whether values are replaced by texts that say no key.
fn is_replaced(field: &FieldPolicy) -> bool {
    matches!(field.mode, FieldMode::FormatPreserving { .. } | FieldMode::Token { .. })
}

/// What is different in a field that is there before and after.
fn compare(before: &FieldPolicy, after: &FieldPolicy, found: &mut Vec<Change>) {
    let mut add = |effect, what: String| found.push(Change { effect, field: before.name.clone(), what });
    if is_replaced(before) || is_replaced(after) {
        if before.mode != after.mode {
            let what = "values are replaced rather than sealed before or after, with another partition, format or mode: reveal it before, and protect it again";
            add(Effect::Unreadable, what.to_owned());
        }
    } else if discriminant(&before.mode) != discriminant(&after.mode) {
        let own = before
            .accepted_suites
            .iter()
            .filter(|suite| !after.accepted_suites.contains(suite))
            .map(ToString::to_string);
        let lost: Vec<_> = own.collect();
        match lost.is_empty() {
            true => add(Effect::Reencrypt, format!("it becomes {}: reencrypt seals what is there again", mode(after))),
            false => add(
                Effect::Unreadable,
                format!(
                    "it becomes {}, and values of suite {} are refused: set accept until reencrypt has sealed them again",
                    mode(after),
                    lost.join(", ")
                ),
            ),
        }
    } else {
        for suite in before.accepted_suites.iter().filter(|suite| !after.accepted_suites.contains(suite)) {
            add(Effect::Unreadable, format!("values of suite {suite} are refused"));
        }
    }
    if let (
        FieldMode::Deterministic { partition: p, join_group: g },
        FieldMode::Deterministic { partition: q, join_group: h },
    ) = (&before.mode, &after.mode)
    {
        if p != q {
            add(Effect::Unreadable, format!("its partition was {p} and is {q}: the keys of {p} are not asked"));
        }
        if g != h {
            let what = "its join group changes, which values are bound to: they do not open, and are not found";
            add(Effect::Unreadable, what.to_owned());
        }
        if before.padding != after.padding {
            add(
                Effect::Unmatched,
                "its padding changes: equal values differ until reencrypt has sealed the old ones again".to_owned(),
            );
        }
        if before.keep_prefix != after.keep_prefix {
            add(Effect::Unmatched, "the prefix that it keeps in clear changes: old and new values differ".to_owned());
        }
    } else if before.padding != after.padding {
        add(Effect::Reencrypt, "its padding changes: old values keep theirs until they are sealed again".to_owned());
    }
    match (&before.row_binding, &after.row_binding) {
        (RowBinding::None, RowBinding::Bound { .. }) => {
            add(Effect::Unreadable, "it is bound to its row from now on: values that are not do not open".to_owned());
        }
        (RowBinding::Bound { .. }, RowBinding::None) => {
            add(Effect::Unreadable, "it is not bound to its row any more: values that are do not open".to_owned());
        }
        (
            RowBinding::Bound { column: a, path: b, segment: c },
            RowBinding::Bound { column: d, path: e, segment: f },
        ) => {
            let moved = |old: &Option<String>, new: &Option<String>| old.is_some() && old != new;
            if moved(a, d) || moved(b, e) || (c.is_some() && c != f) {
                let what = "its row is named by another column, path or segment: values open only where that holds the same text";
                add(Effect::Unreadable, what.to_owned());
            }
        }
        _ => {}
    }
    for key in after.required_context.difference(&before.required_context) {
        add(
            Effect::Unreadable,
            format!("it requires the context key {key}: values that were sealed without it do not open"),
        );
    }
    for key in before.required_context.difference(&after.required_context) {
        add(
            Effect::Note,
            format!(
                "it does not require the context key {key} any more: values that were sealed with it still need it"
            ),
        );
    }
    compare_indexes(before, after, &mut add);
    note(before, after, &mut add);
}

/// What becomes of tokens that are stored.
fn compare_indexes(before: &FieldPolicy, after: &FieldPolicy, add: &mut impl FnMut(Effect, String)) {
    for index in &before.indexes {
        match after.indexes.iter().find(|other| other.name == index.name) {
            None => add(Effect::Unmatched, format!("index {} is gone: nothing is found by it", index.name)),
            Some(other)
                if (&index.kind, index.bits, &index.partition) != (&other.kind, other.bits, &other.partition) =>
            {
                add(
                    Effect::Unmatched,
                    format!(
                        "index {} has another kind, partition or number of bits: its tokens are made anew",
                        index.name
                    ),
                )
            }
            Some(_) => {}
        }
    }
    for index in after.indexes.iter().filter(|index| before.indexes.iter().all(|other| other.name != index.name)) {
        add(Effect::Seal, format!("index {} is new: tokens of the rows that are there are to be made", index.name));
    }
}

/// What is different in a kind of documents.
fn compare_documents(old: &Policy, new: &Policy, found: &mut Vec<Change>) {
    for before in old.documents() {
        let mut add =
            |effect, what: String| found.push(Change { effect, field: format!("documents {}", before.name), what });
        let Some(after) = new.document(&before.name) else {
            add(
                Effect::Unreadable,
                "the section is gone: unless another one applies, its documents do not open".to_owned(),
            );
            continue;
        };
        if before.row_binding != after.row_binding {
            add(
                Effect::Unreadable,
                "its row binding changes: documents open only where the new one holds the same text".to_owned(),
            );
        }
        for key in after.required_context.difference(&before.required_context) {
            add(
                Effect::Unreadable,
                format!("it requires the context key {key}: documents that were sealed without it do not open"),
            );
        }
        if before.header != after.header {
            add(Effect::Unreadable, "the header is looked for in another place".to_owned());
        }
        match (before.manifest, after.manifest) {
            (ManifestRule::None, ManifestRule::Required) => {
                add(
                    Effect::Unreadable,
                    "a manifest is required, which documents that are there do not have".to_owned(),
                );
            }
            (was, is) if documents::notices_less(is, was) => add(
                Effect::Weaker,
                format!(
                    "its manifest was {:?} and is {:?}: documents that are emptied of their values are not missed, and with none new ones that lack some",
                    documents::name(was),
                    documents::name(is)
                ),
            ),
            (was, is) if was != is => add(
                Effect::Note,
                format!("its manifest was {:?} and is {:?}", documents::name(was), documents::name(is)),
            ),
            _ => {}
        }
        for key in before.required_context.difference(&after.required_context) {
            let what = format!(
                "it does not require the context key {key} any more: documents that were sealed with it still need it"
            );
            add(Effect::Note, what);
        }
        if before.root != after.root || before.only_if != after.only_if {
            add(Effect::Unreadable, "root or only_if change: what was a document may be none any more".to_owned());
        }
    }
    for after in new.documents().filter(|after| old.document(&after.name).is_none()) {
        let field = format!("documents {}", after.name);
        let mut weaker = Vec::new();
        for before in documents::bars(after, old) {
            let of = |what| format!("the section is new; against {}: {what}", before.name);
            weaker.extend(documents::weaknesses(after, before).into_iter().map(of));
        }
        if weaker.is_empty() {
            found.push(Change { effect: Effect::Note, field: field.clone(), what: "the section is new".to_owned() });
        }
        found.extend(weaker.into_iter().map(|what| Change { effect: Effect::Weaker, field: field.clone(), what }));
    }
}

/// What changes for new data alone.
fn note(before: &FieldPolicy, after: &FieldPolicy, add: &mut impl FnMut(Effect, String)) {
    let named = |value: Option<keyfold::ValueType>| value.map_or("any", keyfold::ValueType::name);
    if before.value_type != after.value_type {
        let what = format!(
            "its type was {} and is {}: values that are there keep theirs",
            named(before.value_type),
            named(after.value_type)
        );
        add(if is_deterministic(after) { Effect::Unmatched } else { Effect::Note }, what);
    }
    if before.spelling != after.spelling {
        add(Effect::Note, "unusual spellings are treated in another way".to_owned());
    }
    if before.unlinkable != after.unlinkable {
        add(
            Effect::Reencrypt,
            "whether rows show that they were written together changes for new values alone".to_owned(),
        );
    }
    if before.max_frame_records > after.max_frame_records {
        add(Effect::Note, "frames with more bytes of key records are refused".to_owned());
    }
    let clear = |field: &FieldPolicy| field.migration.as_ref().map(|migration| migration.phase);
    match (clear(before), clear(after)) {
        (Some(MigrationPhase::DualWrite), Some(MigrationPhase::CutOver) | None) => {
            add(Effect::Note, "values in clear are not read any more: backfill --verify first".to_owned());
        }
        (None | Some(MigrationPhase::CutOver), Some(MigrationPhase::DualWrite)) => {
            add(Effect::Note, "values in clear may be read until the migration ends".to_owned());
        }
        _ => {}
    }
    let mut changed = |what: &str, before: &dyn Debug, after: &dyn Debug| {
        let (before, after) = (format!("{before:?}"), format!("{after:?}"));
        if before != after {
            add(Effect::Note, format!("{what} was {before} and is {after}"));
        }
    };
    changed(
        "identifier",
        &before.identifier.map(keyfold::HipaaClass::letter),
        &after.identifier.map(keyfold::HipaaClass::letter),
    );
    changed("optional", &before.optional, &after.optional);
}

const fn mode(field: &FieldPolicy) -> &'static str {
    match field.mode {
        FieldMode::Randomized => "randomized",
        FieldMode::Deterministic { .. } => "deterministic",
        FieldMode::Document => "a field of documents",
        FieldMode::Stream => "a field of streams",
        FieldMode::FormatPreserving { .. } => "format-preserving, which is not authenticated",
        FieldMode::Token { .. } => "one of random tokens",
        _ => "of another mode",
    }
}
