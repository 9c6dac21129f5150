//! Which of two kinds of documents protects less.

use keyfold::{DocumentPolicy, ManifestRule, Policy, RowBinding};
use std::sync::Arc;

/// How much of a document a manifest guards: the higher, the more.
const fn rank(rule: ManifestRule) -> (u8, &'static str) {
    match rule {
        ManifestRule::Required => (2, "required"),
        ManifestRule::Written => (1, "written"),
        ManifestRule::None => (0, "none"),
    }
}

/// What a rule for manifests is called.
pub(super) const fn name(rule: ManifestRule) -> &'static str {
    rank(rule).1
}

/// Whether one rule for manifests notices less than another.
const fn notices_less(rule: ManifestRule, bar: ManifestRule) -> bool {
    rank(rule).0 < rank(bar).0
}

/// Whether every kind of documents is bound to something and has a manifest: each of them may apply to a document, since that hangs on
/// members in clear.
pub(super) fn are_whole(policy: &Policy) -> bool {
    let is_bound = |kind: &Arc<DocumentPolicy>| matches!(kind.row_binding, RowBinding::Bound { .. });
    policy.documents().all(|kind| is_bound(kind) && kind.manifest == ManifestRule::Required)
}

/// The kinds of `policy` that `kind` is held to: those of its name, or for the same documents; or else all, since a new kind may apply to
/// what another one applied to.
pub(super) fn bars<'p>(kind: &DocumentPolicy, policy: &'p Policy) -> Vec<&'p DocumentPolicy> {
    let all = || policy.documents().map(|bar| &**bar);
    let is_same =
        |bar: &&DocumentPolicy| bar.name == kind.name || (&bar.only_if, &bar.root) == (&kind.only_if, &kind.root);
    let near: Vec<_> = all().filter(is_same).collect();
    if near.is_empty() { all().collect() } else { near }
}

/// In what `kind` is weaker than `bar`; nothing: it is as strong or stronger.
pub(super) fn weaknesses(kind: &DocumentPolicy, bar: &DocumentPolicy) -> Vec<String> {
    let mut found = Vec::new();
    if notices_less(kind.manifest, bar.manifest) {
        let (is, asked) = (name(kind.manifest), name(bar.manifest));
        found.push(format!(
            "its manifest is {is:?}, not {asked:?}: documents that are emptied of their values are not missed, and with none new ones that lack some"
        ));
    }
    if let (RowBinding::None, RowBinding::Bound { .. }) = (&kind.row_binding, &bar.row_binding) {
        found.push("its documents are bound to no row".to_owned());
    }
    for key in bar.required_context.difference(&kind.required_context) {
        found.push(format!("it does not require the context key {key}"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_a_kind_weaker() {
        let row_binding = RowBinding::Bound { column: None, path: Some("$.id".to_owned()), segment: None };
        let bar = DocumentPolicy {
            row_binding,
            required_context: ["tenant".to_owned()].into(),
            ..DocumentPolicy::new("patient")
        };
        assert_eq!(weaknesses(&bar, &bar), Vec::<String>::new());
        for kind in [
            DocumentPolicy { manifest: ManifestRule::Written, ..bar.clone() },
            DocumentPolicy { manifest: ManifestRule::None, ..bar.clone() },
            DocumentPolicy { row_binding: RowBinding::None, ..bar.clone() },
            DocumentPolicy { required_context: Default::default(), ..bar.clone() },
        ] {
            assert_eq!(weaknesses(&kind, &bar).len(), 1);
            assert!(weaknesses(&bar, &kind).is_empty());
        }
    }

    #[test]
    fn a_kind_that_is_new_is_held_to_all() {
        let mut policy = Policy::default();
        for name in ["patient", "device"] {
            policy
                .add_document(DocumentPolicy {
                    only_if: [("$.resourceType".to_owned(), name.to_owned())].into(),
                    ..DocumentPolicy::new(name)
                })
                .expect("a kind");
        }
        assert_eq!(bars(&DocumentPolicy::new("patient"), &policy).len(), 1);
        assert_eq!(bars(&DocumentPolicy::new("other"), &policy).len(), 2);
    }
}
