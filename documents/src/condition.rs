//! The conditions under which a part of a policy applies to a document.

use super::filter::leads;
use super::simple::Simple;
use super::tree::{NodeId, Tree};
use super::{Document, JsonError};
use serde_json_path::JsonPath;

/// Paths that must each lead to a text: the `only_if` of a policy.
pub struct Conditions(Vec<Condition>);

struct Condition {
    text: String,
    path: JsonPath,
    simple: Option<Simple>,
    expected: String,
}

impl Conditions {
    /// Compiles paths and the text that each must lead to.
    ///
    /// # Errors
    ///
    /// [`JsonError::Path`], under the name `rule`.
    pub fn compile<P, T>(rule: &str, conditions: impl IntoIterator<Item = (P, T)>) -> Result<Self, JsonError>
    where
        P: AsRef<str>,
        T: Into<String>,
    {
        let compile = |(path, expected): (P, T)| {
            let parsed = JsonPath::parse(path.as_ref());
            let wrong = |error: serde_json_path::ParseError| JsonError::Path {
                rule: rule.to_owned(),
                reason: error.to_string(),
            };
            Ok(Condition {
                text: path.as_ref().to_owned(),
                path: parsed.map_err(wrong)?,
                simple: Simple::parse(path.as_ref()),
                expected: expected.into(),
            })
        };
        conditions.into_iter().map(compile).collect::<Result<_, _>>().map(Self)
    }

    /// Whether each path leads to its text in `document`, if perhaps to other values as well.
    #[must_use]
    pub fn hold(&self, document: &Document<'_>) -> bool {
        self.hold_with(document, &mut Latest::default())
    }

    /// As [`hold`](Self::hold), for one condition after the other on the same document.
    pub(crate) fn hold_with<'c>(&'c self, document: &Document<'_>, latest: &mut Latest<'c>) -> bool {
        let tree = &document.tree;
        self.0.iter().all(|condition| match &condition.simple {
            Some(path) => match latest.only(condition, path, tree) {
                Some(node) => tree.is_text(node, &condition.expected),
                None => leads(tree, 0, path.steps(), &|node| tree.is_text(node, &condition.expected)),
            },
            None => {
                let nodes = condition.path.query(document.value());
                nodes.iter().any(|node| node.as_str() == Some(&condition.expected))
            }
        })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The path that was looked at last in a document, and the one value to which it leads: most conditions have one path.
#[derive(Default)]
pub(crate) struct Latest<'c>(Option<(&'c str, Option<NodeId>)>);

impl<'c> Latest<'c> {
    fn only(&mut self, condition: &'c Condition, path: &Simple, tree: &Tree<'_>) -> Option<NodeId> {
        match self.0 {
            Some((text, node)) if text == condition.text => node,
            _ => self.0.insert((&condition.text, path.only(tree))).1,
        }
    }
}
