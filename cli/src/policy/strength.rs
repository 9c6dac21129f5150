//! Which of two rules protects less (docs/POLICY.md has the order).

use super::documents;
use keyfold::wire::Suite;
use keyfold::{FieldMode, FieldPolicy, IndexKind, IndexPolicy, MigrationPhase, Padding, Policy, RowBinding};

/// A rule, in the policy that says what documents are.
#[derive(Clone, Copy)]
pub(super) struct Rule<'p> {
    pub(super) field: &'p FieldPolicy,
    pub(super) policy: &'p Policy,
}

const BOUND: u8 = 5;
const RANDOMIZED: u8 = 4;
const DETERMINISTIC: u8 = 3;

/// How much a rule hides: the higher, the more. What has no rule is 0.
fn rank(rule: Rule<'_>) -> (u8, &'static str) {
    match (&rule.field.mode, &rule.field.row_binding) {
        (FieldMode::Stream, RowBinding::Bound { .. }) => (BOUND, "a stream that is bound to its row"),
        (FieldMode::Stream, _) => (RANDOMIZED, "a stream"),
        (FieldMode::Randomized, RowBinding::Bound { .. }) => (BOUND, "randomized and bound to its row"),
        (FieldMode::Randomized, _) => (RANDOMIZED, "randomized"),
        // Such a value opens at its path of its document alone, but the document may be moved, and a value be dropped.
        (FieldMode::Document, _) if documents::are_whole(rule.policy) => {
            (BOUND, "sealed with its document, which is bound and has a manifest")
        }
        (FieldMode::Document, _) => (RANDOMIZED, "sealed with a document that is not bound, or may lack its manifest"),
        (FieldMode::Deterministic { .. }, _) => (DETERMINISTIC, "deterministic"),
        // Random, and proven in its table, which the value itself is not.
        (FieldMode::Token { .. }, _) => (2, "a random token"),
        // Derived from the value, and not authenticated.
        _ => (1, "format-preserving"),
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
    found.extend(places(&rule.row_binding, &bar.row_binding));
    found.extend(indexes(rule, bar, least));
    match (rule.table_rows, bar.table_rows) {
        (None, Some(_)) if rule.has_unchecked_indexes() => {
            found.push("without rows in its file nobody checks what the indexes of a table show together".to_owned());
        }
        (Some(ours), Some(least)) if ours > least && !rule.indexes.is_empty() => {
            found.push(format!("rows = {ours}, not {least}, lets indexes show more of a row"));
        }
        _ => {}
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

/// Where a row is bound to something else than under the bar: values can then be exchanged between rows that share it.
fn places(rule: &RowBinding, bar: &RowBinding) -> Option<String> {
    let (RowBinding::Bound { column, path, .. }, RowBinding::Bound { column: bar_column, path: bar_path, .. }) =
        (rule, bar)
    else {
        return None;
    };
    [(column, bar_column), (path, bar_path)].into_iter().find_map(|pair| match pair {
        (Some(ours), Some(asked)) if ours != asked => Some(format!("it is bound to {ours}, not {asked}")),
        _ => None,
    })
}

/// What the indexes show that those under the bar do not, one by one, or else together.
fn indexes(rule: &FieldPolicy, bar: &FieldPolicy, rank_of_bar: u8) -> Vec<String> {
    let mut found = Vec::new();
    // That whole values are equal, a deterministic value shows as well.
    let is_free = |index: &IndexPolicy| rank_of_bar <= DETERMINISTIC && index.kind == IndexKind::Exact;
    for index in rule.indexes.iter().filter(|index| !is_free(index)) {
        let same = || bar.indexes.iter().filter(|known| known.kind == index.kind);
        match same().map(|known| known.bits).max() {
            None => found.push(format!("it has an index {}, {}", index.name, index.kind.name())),
            Some(bits) if index.bits > bits => {
                found.push(format!("its index {} has {} bits, not {bits}", index.name, index.bits));
            }
            Some(_) if index.few_values && !same().any(|known| known.few_values) => {
                found.push(format!(
                    "its index {} is of few values, which their frequencies tell (few_values)",
                    index.name
                ));
            }
            Some(_) => {}
        }
    }
    let shown = |field: &FieldPolicy| {
        field.indexes.iter().filter(|index| !is_free(index)).map(IndexPolicy::shown_bits).sum::<usize>()
    };
    if found.is_empty() && shown(rule) > shown(bar) {
        found.push(format!("its indexes show {} bits of a row together, not {}", shown(rule), shown(bar)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyfold::{DocumentPolicy, Format, ManifestRule, TokenAlphabet, TokenForm};

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
        let exact = IndexPolicy { unique: true, ..IndexPolicy::new("lookup", IndexKind::Exact, 63) };
        let exact = FieldPolicy { indexes: vec![exact], ..deterministic.clone() };
        assert!(weaknesses(&exact, &deterministic).is_empty(), "equal values show there as well");
        let prefix = IndexPolicy::new("start", IndexKind::Prefix(vec![3, 4]), 6);
        let prefix = FieldPolicy { indexes: vec![prefix], ..deterministic.clone() };
        assert_eq!(weaknesses(&prefix, &deterministic).len(), 1, "and equal starts do not");
        let several = FieldPolicy { indexes: vec![index(8); 3], ..bound("f") };
        assert_eq!(weaknesses(&several, &indexed(8)).len(), 1, "24 bits in the place of 8");
        let few = FieldPolicy { indexes: vec![IndexPolicy { few_values: true, ..index(8) }], ..bound("f") };
        assert_eq!((weaknesses(&few, &indexed(8)).len(), weaknesses(&indexed(8), &few).len()), (1, 0));
        let rows = |rows| FieldPolicy { table_rows: Some(rows), ..indexed(8) };
        assert_eq!(
            (weaknesses(&rows(2_000), &rows(1_000)).len(), weaknesses(&rows(1_000), &rows(2_000)).len()),
            (1, 0)
        );
    }

    #[test]
    fn a_row_that_is_another_binds_less() {
        let to = |column: &str| FieldPolicy {
            row_binding: RowBinding::Bound { column: Some(column.to_owned()), path: None, segment: None },
            ..FieldPolicy::randomized("f")
        };
        assert_eq!(weaknesses(&to("country"), &to("id")), ["it is bound to country, not id"]);
        assert!(weaknesses(&to("id"), &to("id")).is_empty());
    }

    #[test]
    fn tokens_hide_more_than_formats_that_are_kept() {
        let token = FieldMode::Token {
            partition: "default".to_owned(),
            form: TokenForm { alphabet: TokenAlphabet::Alphanumeric, length: 22 },
        };
        let format = FieldMode::FormatPreserving { partition: "default".to_owned(), format: Format::Digits };
        let [token, format] = [token, format].map(|mode| FieldPolicy { mode, ..FieldPolicy::randomized("f") });
        assert_eq!((weaknesses(&format, &token).len(), weaknesses(&token, &format).len()), (1, 0));
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
