//! Which of two rules protects less (docs/POLICY.md has the order).

use keyfold::wire::Suite;
use keyfold::{FieldMode, FieldPolicy, MigrationPhase, Padding, RowBinding};

/// How much a rule hides: the higher, the more. What has no rule is 0.
fn rank(rule: &FieldPolicy) -> (u8, &'static str) {
    match (&rule.mode, &rule.row_binding) {
        (FieldMode::Randomized, RowBinding::Bound { .. }) => (4, "randomized and bound to its row"),
        (FieldMode::Randomized, _) => (3, "randomized"),
        // Such a value opens at its path of its document alone.
        (FieldMode::Document, _) => (4, "sealed with its document"),
        (FieldMode::Deterministic { .. }, _) => (2, "deterministic"),
        // Modes that neither authenticate nor hide as much: formats that are kept, and tokens.
        _ => (1, "format-preserving or a token"),
    }
}

/// In what `rule` is weaker than `bar`; nothing: it is as strong or stronger.
pub(super) fn weaknesses(rule: &FieldPolicy, bar: &FieldPolicy) -> Vec<String> {
    let mut found = Vec::new();
    let ((ours, is), (least, asked)) = (rank(rule), rank(bar));
    if ours < least {
        found.push(format!("it is {is}, the baseline {asked}"));
    }
    if let (Padding::None, Padding::Multiple(_) | Padding::Padme) = (rule.padding, bar.padding) {
        found.push("it shows lengths that the baseline pads".to_owned());
    }
    if let (Padding::Multiple(ours), Padding::Multiple(least)) = (rule.padding, bar.padding)
        && ours < least
    {
        found.push(format!("it pads to {ours} bytes, the baseline to {least}"));
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
            // Equal values show in the baseline as well.
            None if least <= 2 => {}
            None => found.push(format!("it has an index {}, {}", index.name, index.kind.name())),
            Some(bits) if index.bits > bits => {
                found.push(format!("its index {} has {} bits, the baseline {bits}", index.name, index.bits));
            }
            Some(_) => {}
        }
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
            name: "lookup".to_owned(),
            kind: keyfold::IndexKind::Digits,
            bits,
            partition: "default".to_owned(),
            column: None,
            unique: bits >= 63,
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
        ];
        for rule in weaker {
            assert_eq!(weaknesses(&rule, &bar).len(), 1);
            assert!(weaknesses(&bar, &rule).is_empty());
        }
        let joined = FieldPolicy::deterministic("f", "default", Some("g"));
        assert_eq!(weaknesses(&joined, &FieldPolicy::deterministic("f", "default", None)).len(), 1);
    }
}
