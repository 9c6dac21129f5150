//! `keyfold policy diff`: what a change of policy does to data that is there.

mod hl7;

use super::check::{holds, holds_otherwise};
use super::documents;
use super::schema::At;
use super::strength::{Rule, weaknesses};
use crate::args::PolicyDiff;
use crate::failure::{Exit, Failure, Printable};
use crate::print_failed;
use keyfold::{FieldMode, FieldPolicy, HipaaClass, ManifestRule, MigrationPhase, Policy, RowBinding};
use keyfold_documents::Coverage;
use serde_json::{Value as Json, json};
use std::io::Write;
use std::mem::discriminant;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// What a change means, the worst first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Effect {
    /// Values that are there do not open any more.
    Unreadable,
    /// What was sealed is in clear from now on.
    Clear,
    /// New values are guarded less than those that are there: docs/POLICY.md says what is weaker.
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
        let after = new.field(&before.name);
        match after {
            Some(after) => compare(before, after, &mut found),
            None => gone(before, old, new, &mut found),
        }
        let places = At::of(before);
        found.extend(places.iter().filter_map(|place| left(before, after, place, new)).map(|(effect, what)| Change {
            effect,
            field: before.name.clone(),
            what,
        }));
    }
    for after in new.fields() {
        let places = At::of(after);
        for place in &places {
            if !old.fields().any(|field| holds(field, place)) {
                let what =
                    format!("{place} is sealed from now on: protect what is there, or migrate it (docs/MIGRATION.md)");
                found.push(Change { effect: Effect::Seal, field: after.name.clone(), what });
            }
        }
        if old.field(&after.name).is_none() && places.is_empty() {
            found.push(Change { effect: Effect::Note, field: after.name.clone(), what: "the field is new".to_owned() });
        }
        found.extend(weaker(after, old, new));
    }
    found
}

/// What becomes of a place of the field `before`, which is `after` now, where that does not seal it as before.
fn left(before: &FieldPolicy, after: Option<&Arc<FieldPolicy>>, place: &At, new: &Policy) -> Option<(Effect, String)> {
    if let Some(after) = after.filter(|after| holds(after, place)) {
        let what = format!(
            "{place} is sealed with what it is in, or in parts, from now on: values that are there do not open. Reveal them first"
        );
        return holds_otherwise(after, place).then_some((Effect::Unreadable, what));
    }
    if let Some(other) = new.fields().find(|field| holds(field, place)) {
        // Of a field that is gone, `gone` tells.
        let opens = after.is_none() || group(before).is_some() && group(before) == group(other);
        let what = format!(
            "{place} is held by field {} now: values are bound to the name, and do not open under another",
            other.name
        );
        return (!opens).then_some((Effect::Unreadable, what));
    }
    let parts: Vec<String> = new
        .fields()
        .flat_map(|field| At::of(field))
        .filter(|part| is_part(part, place))
        .map(|part| part.to_string())
        .collect();
    let what = match parts.is_empty() {
        true => format!("{place} has no rule any more: new data is in clear there"),
        false => {
            format!("of {place} only {} is sealed from now on: what else is new there is in clear", parts.join(", "))
        }
    };
    Some((Effect::Clear, what))
}

/// Whether one place is a part of another, or the same in some documents alone.
fn is_part(part: &At, place: &At) -> bool {
    match (part, place) {
        (At::Path(part, _), At::Path(path, _)) => Coverage::of(path, part) != Coverage::None,
        (At::Segment(part), At::Segment(path)) => {
            part.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('.'))
        }
        _ => false,
    }
}

/// In what a rule is weaker than the old ones of its name, or of places that the field of its name did not have: what `policy check` says of it too.
fn weaker(after: &FieldPolicy, old: &Policy, new: &Policy) -> Vec<Change> {
    let same = old.field(&after.name);
    let taken: Vec<At> =
        At::of(after).into_iter().filter(|place| !same.is_some_and(|before| holds(before, place))).collect();
    let is_bar = |bar: &&Arc<FieldPolicy>| bar.name == after.name || taken.iter().any(|place| holds(bar, place));
    let mut found = Vec::new();
    for bar in old.fields().filter(is_bar) {
        // Where both are of documents, the sections are compared by themselves.
        let is_of_documents = [after, bar].iter().all(|field| field.mode == FieldMode::Document);
        let policy = if is_of_documents { new } else { old };
        let against = if bar.name == after.name { String::new() } else { format!("against {}: ", bar.name) };
        let weaker = weaknesses(Rule { field: after, policy: new }, Rule { field: bar, policy });
        found.extend(weaker.into_iter().map(|what| Change {
            effect: Effect::Weaker,
            field: after.name.clone(),
            what: format!("{against}{what}"),
        }));
    }
    found
}

/// A field that is not there any more, perhaps because it has another name now.
fn gone(before: &FieldPolicy, old: &Policy, new: &Policy, found: &mut Vec<Change>) {
    let ours = At::of(before);
    let is_heir =
        |field: &&Arc<FieldPolicy>| old.field(&field.name).is_none() && ours.iter().any(|place| holds(field, place));
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
        add(Effect::Note, format!("values that were sealed with the context key {key} still need it"));
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
            Some(other) if index.column.is_some() && index.column != other.column => {
                let what = "reveal does not remove it from files that have it, and nobody searches it. Rename it there";
                add(
                    Effect::Unmatched,
                    format!(
                        "the column of index {} was {}: {what}",
                        index.name,
                        index.column.as_deref().unwrap_or_default()
                    ),
                );
            }
            Some(other) if index != other => {
                let what = match () {
                    () if index.few_values != other.few_values => "is of few values, or is not any more (few_values)",
                    () if index.column != other.column => "has a column",
                    () => "takes and skips other values, or is unique",
                };
                add(Effect::Note, format!("index {} {what}", index.name))
            }
            Some(_) => {}
        }
    }
    let rows = |field: &FieldPolicy| field.table_rows.filter(|_| !field.indexes.is_empty());
    if let (Some(was), Some(is)) = (rows(before), rows(after))
        && was != is
    {
        add(Effect::Note, format!("rows was {was} and is {is}, by which the sum of what indexes show is checked"));
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
            (was, is) if was != is => add(
                Effect::Note,
                format!("its manifest was {:?} and is {:?}", documents::name(was), documents::name(is)),
            ),
            _ => {}
        }
        for key in before.required_context.difference(&after.required_context) {
            add(Effect::Note, format!("documents that were sealed with the context key {key} still need it"));
        }
        if before.root != after.root || before.only_if != after.only_if {
            add(Effect::Unreadable, "root or only_if change: what was a document may be none any more".to_owned());
        }
    }
    for after in new.documents() {
        let field = format!("documents {}", after.name);
        let is_new = old.document(&after.name).is_none();
        let mut weaker = Vec::new();
        for before in documents::bars(after, old) {
            let of = |what| match (is_new, before.name == after.name) {
                (true, _) => format!("the section is new; against {}: {what}", before.name),
                (false, true) => what,
                (false, false) => format!("against {}: {what}", before.name),
            };
            weaker.extend(documents::weaknesses(after, before).into_iter().map(of));
        }
        if is_new && weaker.is_empty() {
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
    if after.unlinkable && !before.unlinkable {
        add(
            Effect::Reencrypt,
            "new rows do not show that they were written together; old ones do until they are sealed again".to_owned(),
        );
    }
    if before.max_frame_records > after.max_frame_records {
        add(Effect::Note, "frames with more bytes of key records are refused".to_owned());
    }
    let reads_clear = |field: &FieldPolicy| {
        field.migration.as_ref().is_some_and(|migration| migration.phase == MigrationPhase::DualWrite)
    };
    if reads_clear(before) && !reads_clear(after) {
        add(Effect::Note, "values in clear are not read any more: backfill --verify first".to_owned());
    }
    let mut changed = |what: &str, before: String, after: String| {
        if before != after {
            add(Effect::Note, format!("{what} was {before} and is {after}"));
        }
    };
    let letter = |class: Option<HipaaClass>| class.map_or("none".to_owned(), |class| class.letter().to_string());
    changed("identifier", letter(before.identifier), letter(after.identifier));
    // Otherwise it is weaker.
    if before.optional && !after.optional {
        add(Effect::Note, "it is not optional any more: an input that lacks it is refused".to_owned());
    }
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
