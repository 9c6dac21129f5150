//! From the paths of a policy to the bytes of a line.

use std::ops::Range;

use serde_json_path::JsonPath;

use super::matcher::{Matcher, Misfit};
use super::shape::Shapes;
use super::simple::Simple;
use super::tree::{NodeId, Tree};
use super::{Document, JsonError};

/// Named JSON paths (RFC 9535).
pub struct JsonRules {
    rules: Vec<Rule>,
    shapes: Shapes,
    /// The simple paths together.
    matcher: Matcher,
}

struct Rule {
    name: String,
    path: JsonPath,
    /// The path once more, if it is a simple one.
    simple: Option<Simple>,
}

/// A value that a rule selects.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Located {
    /// Which rule, in the order given to [`JsonRules::compile`].
    pub rule: usize,
    /// Where the value is in the text of the document: from its first byte to its last, without white space.
    pub span: Range<usize>,
    /// Its normalized path in the document (RFC 9535 §2.7).
    pub path: String,
}

/// What rules select in a document, in the order of its text: as [`Located`], with all paths in one text.
#[derive(Default)]
pub(crate) struct Selection {
    pub(crate) values: Vec<Match>,
    paths: String,
}

/// A value that a rule selects.
#[derive(Clone)]
pub(crate) struct Match {
    pub(crate) rule: usize,
    pub(crate) node: NodeId,
    path: Range<usize>,
}

impl Selection {
    pub(crate) fn push(&mut self, rule: usize, node: NodeId, path: &str) {
        if self.values.is_empty() {
            self.values.reserve(16);
            self.paths.reserve(512);
        }
        let start = self.paths.len();
        self.paths.push_str(path);
        self.values.push(Match { rule, node, path: start..self.paths.len() });
    }

    /// The normalized path of a value.
    pub(crate) fn path(&self, at: usize) -> &str {
        &self.paths[self.values[at].path.clone()]
    }

    /// Which rules select what, in the order of the document.
    pub(crate) fn places(&self) -> impl Iterator<Item = (usize, &str)> {
        (0..self.values.len()).map(|at| (self.values[at].rule, self.path(at)))
    }

    /// Which of the values a node is.
    pub(crate) fn position(&self, node: NodeId) -> Option<usize> {
        self.values.binary_search_by_key(&node, |found| found.node).ok()
    }
}

impl JsonRules {
    /// Compiles rules of a name and a path.
    ///
    /// # Errors
    ///
    /// [`JsonError::Path`].
    pub fn compile<N, P>(rules: impl IntoIterator<Item = (N, P)>) -> Result<Self, JsonError>
    where
        N: Into<String>,
        P: AsRef<str>,
    {
        let mut compiled = Self { rules: Vec::new(), shapes: Shapes::default(), matcher: Matcher::default() };
        for (name, path) in rules {
            let (name, text) = (name.into(), path.as_ref());
            let path = match JsonPath::parse(text) {
                Ok(path) => path,
                Err(error) => return Err(JsonError::Path { rule: name, reason: error.to_string() }),
            };
            let (at, simple) = (compiled.rules.len(), Simple::parse(text));
            compiled.shapes.add(at, text);
            if let Some(simple) = &simple {
                compiled.matcher.add(at, simple);
            }
            compiled.rules.push(Rule { name, path, simple });
        }
        Ok(compiled)
    }

    /// Finds every value that a rule selects, in the order of the line. No two of them overlap.
    ///
    /// # Errors
    ///
    /// [`JsonError::Overlap`]: such a value could not be replaced by two rules at once. A rule that
    /// selects the same value in two ways is fine. [`JsonError::Shape`]: the document holds, say, an object where
    /// a path expects an array, so that what the path means would not be selected.
    pub fn locate(&self, document: &Document<'_>) -> Result<Vec<Located>, JsonError> {
        let found = self.select(document)?;
        let located = |(at, value): (usize, &Match)| Located {
            rule: value.rule,
            span: document.tree.span(value.node),
            path: found.path(at).to_owned(),
        };
        Ok(found.values.iter().enumerate().map(located).collect())
    }

    /// Takes every value that a rule selects out of `document`, as a document of its own: paths start there, and nothing leads from
    /// `document` into it any more.
    ///
    /// # Errors
    ///
    /// As for [`locate`](Self::locate).
    pub fn take<'a>(&self, document: &mut Document<'a>) -> Result<Vec<Document<'a>>, JsonError> {
        let found = self.select(document)?.values;
        let parts = found.iter().map(|found| document.part(found.node)).collect();
        let tree = document.tree_mut();
        found.iter().for_each(|found| tree.empty(found.node));
        Ok(parts)
    }

    /// As [`locate`](Self::locate).
    pub(crate) fn select(&self, document: &Document<'_>) -> Result<Selection, JsonError> {
        let (tree, line) = (&document.tree, document.line);
        let shape = |rule: usize, prefix: &str| {
            Err(JsonError::Shape { line, rule: self.rules[rule].name.clone(), prefix: prefix.to_owned() })
        };
        let simple = self.matcher.run(tree);
        let others = || self.rules.iter().enumerate().filter(|(_, rule)| rule.simple.is_none());
        // Which part of a path it is that does not fit is looked for when something is known to be wrong, or cannot be known.
        if (simple.is_err() || others().next().is_some())
            && let Some((rule, prefix)) = self.shapes.misfit(document.value())
        {
            return shape(rule, prefix);
        }
        let mut found = match simple {
            Ok(found) => found,
            Err(Misfit(rule)) => return shape(rule, "a part of it"),
        };
        if others().next().is_some() {
            let value = document.value();
            let nodes = tree.nodes_of(value);
            let mut selected: Vec<(NodeId, usize)> = Vec::new();
            for (rule, other) in others() {
                let of_rule = other.path.query(value);
                selected.extend(of_rule.iter().map(|value| (nodes[&std::ptr::from_ref(*value)], rule)));
            }
            // A path may lead to a value in several ways.
            selected.sort_unstable();
            selected.dedup();
            // Before paths are written, which are long where values nest.
            if let Some((first, second)) = overlap(tree, selected.iter().copied()) {
                return self.overlaps(line, first, second);
            }
            tree.visit_paths(selected.iter().map(|(node, _)| *node), &mut |at, path| {
                let (node, rule) = selected[at];
                found.push(rule, node, path);
            });
            found.values.sort_by_key(|found| found.node);
        }
        match overlap(tree, found.values.iter().map(|found| (found.node, found.rule))) {
            None => Ok(found),
            Some((first, second)) => self.overlaps(line, first, second),
        }
    }

    fn overlaps<T>(&self, line: u64, first: usize, second: usize) -> Result<T, JsonError> {
        let [first, second] = [first.min(second), first.max(second)].map(|rule| self.rules[rule].name.clone());
        Err(JsonError::Overlap { line, first, second })
    }

    /// The value that a rule selects which is alone and can select one at most; `None`: it is another rule, or selects nothing. What
    /// [`select`](Self::select) says, without a walk.
    pub(crate) fn only(&self, tree: &Tree<'_>) -> Option<NodeId> {
        match &self.rules[..] {
            [Rule { simple: Some(path), .. }] => path.only(tree),
            _ => None,
        }
    }

    /// Whether replacing what the rules select by texts changes nothing about what they and `others`, which are paths too, select, so
    /// that it need not be looked at again: all are simple, none leads into what another selects, and no filter looks there. Of
    /// `others` those that are allowed `to_select` may be the path of a rule.
    #[must_use]
    pub fn is_settled<'p>(&self, others: impl IntoIterator<Item = (&'p str, bool)>) -> bool {
        let simple: Option<Vec<&Simple>> = self.rules.iter().map(|rule| rule.simple.as_ref()).collect();
        let Some(simple) = simple else { return false };
        let is_same_depth = |a: &Simple, b: &Simple| a.steps().len() == b.steps().len();
        let stays = |path: &Simple| simple.iter().all(|rule| !rule.can_meet(path));
        let has_settled_filters = |path: &Simple| path.looks_at().iter().all(stays);
        simple
            .iter()
            .enumerate()
            .all(|(at, a)| has_settled_filters(a) && simple[..at].iter().all(|b| is_same_depth(a, b) || !a.can_meet(b)))
            && others.into_iter().all(|(path, to_select)| {
                Simple::parse(path).is_some_and(|other| {
                    // Conditions go through objects as through arrays.
                    let filters = other.looks_at().iter().map(Simple::of_condition).all(|path| stays(&path));
                    let other = other.of_condition();
                    let may_select = |rule: &&Simple| to_select && is_same_depth(rule, &other);
                    filters && simple.iter().all(|rule| !rule.can_meet(&other) || may_select(rule))
                })
            })
    }
}

/// The rules of two values, in the order of the document, of which one is the other or a part of it.
fn overlap(tree: &Tree<'_>, found: impl Iterator<Item = (NodeId, usize)> + Clone) -> Option<(usize, usize)> {
    let mut pairs = found.clone().zip(found.skip(1));
    pairs.find(|((node, _), (next, _))| *next < tree.end(*node)).map(|((_, first), (_, second))| (first, second))
}
