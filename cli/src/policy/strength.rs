//! Which of two rules protects less (docs/POLICY.md has the order).

use super::documents;
use keyfold::wire::Suite;
use keyfold::{FieldMode, FieldPolicy, MigrationPhase, Padding, Policy, RowBinding};

/// A rule, in the policy that says what documents are.
#[derive(Clone, Copy)]
pub(super) struct Rule<'p> {
    pub(super) field: &'p FieldPolicy,
    pub(super) policy: &'p Policy,
}

/// How much a rule hides: the higher, the more. What has no rule is 0.
fn rank(rule: Rule<'_>) -> (u8, &'static str) {
    match (&rule.field.mode, &rule.field.row_binding) {
        (FieldMode::Stream, RowBinding::Bound { .. }) => (4, "a stream that is bound to its row"),
        (FieldMode::Stream, _) => (3, "a stream"),
        (FieldMode::Randomized, RowBinding::Bound { .. }) => (4, "randomized and bound to its row"),
        (FieldMode::Randomized, _) => (3, "randomized"),
        // Such a value opens at its path of its document alone, but the document may be moved, and a value be dropped.
        (FieldMode::Document, _) if documents::are_whole(rule.policy) => {
            (4, "sealed with its document, which is bound and has a manifest")
        }
        (FieldMode::Document, _) => (3, "sealed with a document that is not bound, or may lack its manifest"),
        (FieldMode::Deterministic { .. }, _) => (2, "deterministic"),
        // Modes that neither authenticate nor hide as much: formats that are kept, and tokens.
        _ => (1, "format-preserving or a token"),
    }
}

/// In what `rule` is weaker than `bar`; nothing: it is as strong or stronger.
pub(super) fn weaknesses(rule: Rule<'_>, bar: Rule<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let ((ours, is), (least, asked)) = (rank(rule), rank(bar));
    let (rule, bar) = (rule.field, bar.field);
    if ours < least {
        found.push(format!("it is {is}, not {asked}"));
    }
    if let (Padding::None, Padding::Multiple(_) | Padding::Padme) = (rule.padding, bar.padding) {
        found.push("it shows lengths: nothing pads them".to_owned());
    }
    if let (Padding::Multiple(ours), Padding::Multiple(least)) = (rule.padding, bar.padding)
        && ours < least
    {
        found.push(format!("it pads to {ours} bytes, not to {least}"));
    }
    for key in bar.required_context.difference(&rule.required_context) {
        found.push(format!("it does not require the context key {key}"));
    }
    let frames = |rule: &FieldPolicy| rule.accepted_suites.contains(&Suite::Frame);
    if frames(rule) && !frames(bar) {
        found.push("it accepts frames, suite 03".to_owned());
    }
    if matches!(rule.mode, FieldMode::Randomized)
        && matches!(bar.mode, FieldMode::Randomized)
        && bar.unlinkable
        && !rule.unlinkable
    {
        found.push("rows show that they were written together".to_owned());
    }
    for index in &rule.indexes {
        let same = bar.indexes.iter().filter(|known| known.kind == index.kind);
        match same.map(|known| known.bits).max() {
            // Equal values show under the bar as well.
            None if least <= 2 => {}
            None => found.push(format!("it has an index {}, {}", index.name, index.kind.name())),
            Some(bits) if index.bits > bits => {
                found.push(format!("its index {} has {} bits, not {bits}", index.name, index.bits));
            }
            Some(_) => {}
        }
    }
    if rule.has_unchecked_indexes() && bar.table_rows.is_some() {
        found.push("without rows in its file nobody checks what the indexes of a table show together".to_owned());
    }
    if rule.optional && !bar.optional {
        found.push("it is optional: an input that lacks it passes".to_owned());
    }
    if rule.keep_prefix.is_some() && rule.keep_prefix != bar.keep_prefix {
        found.push("it keeps a prefix in clear".to_owned());
    }
    let group = |rule: &FieldPolicy| match &rule.mode {
        FieldMode::Deterministic { join_group, .. } => join_group.clone(),
        _ => None,
    };
    if group(rule).is_some() && group(rule) != group(bar) {
        found.push("it joins with other fields".to_owned());
    }
    let reads_clear = |rule: &FieldPolicy| {
        rule.migration.as_ref().is_some_and(|migration| migration.phase == MigrationPhase::DualWrite)
    };
    if reads_clear(rule) && !reads_clear(bar) {
        found.push("it is in migration: values in clear are read".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyfold::{DocumentPolicy, ManifestRule};

    fn weaknesses(rule: &FieldPolicy, bar: &FieldPolicy) -> Vec<String> {
        let policy = Policy::default();
        super::weaknesses(Rule { field: rule, policy: &policy }, Rule { field: bar, policy: &policy })
    }

    fn bound(name: &str) -> FieldPolicy {
        let row_binding = RowBinding::Bound { column: Some("id".to_owned()), path: None, segment: None };
        FieldPolicy { row_binding, ..FieldPolicy::randomized(name) }
    }

    #[test]
    fn the_order_of_modes() {
        let order = [FieldPolicy::deterministic("f", "default", None), FieldPolicy::randomized("f"), bound("f")];
        for (a, rule) in order.iter().enumerate() {
            for (b, bar) in order.iter().enumerate() {
                assert_eq!(weaknesses(rule, bar).is_empty(), a >= b, "{a} {b}");
            }
        }
    }

    #[test]
    fn an_index_that_shows_more_is_said_once() {
        let index = |bits| keyfold::IndexPolicy {
            unique: bits >= 63,
            ..keyfold::IndexPolicy::new("lookup", keyfold::IndexKind::Digits, bits)
        };
        let indexed = |bits| FieldPolicy { indexes: vec![index(bits)], ..bound("f") };
        assert_eq!(weaknesses(&indexed(8), &bound("f")).len(), 1);
        assert_eq!(weaknesses(&indexed(16), &indexed(8)).len(), 1);
        assert!(weaknesses(&indexed(8), &indexed(16)).is_empty());
        let deterministic = FieldPolicy::deterministic("f", "default", None);
        assert!(weaknesses(&indexed(63), &deterministic).is_empty(), "equal values show there as well");
    }

    #[test]
    fn what_else_makes_a_rule_weaker() {
        let bar = FieldPolicy {
            padding: Padding::Multiple(32),
            unlinkable: true,
            required_context: ["tenant".to_owned()].into(),
            ..bound("f")
        };
        assert_eq!(weaknesses(&bar, &bar), Vec::<String>::new());
        let weaker = [
            FieldPolicy { padding: Padding::None, ..bar.clone() },
            FieldPolicy { padding: Padding::Multiple(16), ..bar.clone() },
            FieldPolicy { unlinkable: false, ..bar.clone() },
            FieldPolicy { required_context: Default::default(), ..bar.clone() },
            FieldPolicy { accepted_suites: vec![Suite::Field, Suite::Frame], ..bar.clone() },
            FieldPolicy { optional: true, ..bar.clone() },
        ];
        for rule in weaker {
            assert_eq!(weaknesses(&rule, &bar).len(), 1);
            assert!(weaknesses(&bar, &rule).is_empty());
        }
        let joined = FieldPolicy::deterministic("f", "default", Some("g"));
        assert_eq!(weaknesses(&joined, &FieldPolicy::deterministic("f", "default", None)).len(), 1);
    }

    #[test]
    fn a_field_of_documents_is_as_strong_as_they_are() {
        let with = |manifest, row_binding: &RowBinding| {
            let mut policy = Policy::default();
            let kind = DocumentPolicy { manifest, row_binding: row_binding.clone(), ..DocumentPolicy::new("patient") };
            policy.add_document(kind).expect("a kind");
            policy
        };
        let (field, other) = (FieldPolicy::document("f"), bound("f"));
        let to = RowBinding::Bound { column: None, path: Some("$.id".to_owned()), segment: None };
        let bar = Rule { field: &other, policy: &Policy::default() };
        let weaknesses = |policy: &Policy| super::weaknesses(Rule { field: &field, policy }, bar).len();
        assert_eq!(weaknesses(&with(ManifestRule::Required, &to)), 0);
        assert_eq!(weaknesses(&with(ManifestRule::Written, &to)), 1);
        assert_eq!(weaknesses(&with(ManifestRule::Required, &RowBinding::None)), 1);
    }
}
