//! Filters of the shapes that policies have: `[?@.system == 'phone' || @.system == 'sms']`, `[?@.url != 'a' && @.url != 'b']`,
//! `[?@.code.coding[?@.code == '1']]`. They mean what RFC 9535 says; any other filter is left to the engine of paths.

use super::simple::{Cursor, Step};
use super::tree::{NodeId, Tree};

/// A condition on an item.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
    /// Whether what the path leads to is one of these texts, or none of them. Each step of the path leads to one value at most.
    Text {
        path: Vec<Step>,
        texts: Vec<String>,
        is_one: bool,
    },
    /// Whether the path leads to anything.
    Exists(Vec<Step>),
}

impl Filter {
    /// Reads alternatives; `None` if the filter is of another shape.
    pub(super) fn parse(cursor: &mut Cursor<'_>) -> Option<Self> {
        let mut any = vec![Self::parse_all(cursor)?];
        while cursor.take_spaced("||") {
            push(&mut any, Self::parse_all(cursor)?, true);
        }
        Some(if any.len() == 1 { any.remove(0) } else { Self::Any(any) })
    }

    fn parse_all(cursor: &mut Cursor<'_>) -> Option<Self> {
        let mut all = vec![Self::parse_one(cursor)?];
        while cursor.take_spaced("&&") {
            push(&mut all, Self::parse_one(cursor)?, false);
        }
        Some(if all.len() == 1 { all.remove(0) } else { Self::All(all) })
    }

    fn parse_one(cursor: &mut Cursor<'_>) -> Option<Self> {
        if cursor.take_spaced("!") {
            return Self::parse_one(cursor).map(|filter| Self::Not(Box::new(filter)));
        }
        if cursor.take_spaced("(") {
            let inside = Self::parse(cursor)?;
            return cursor.take_spaced(")").then_some(inside);
        }
        if !cursor.take_spaced("@") {
            return None;
        }
        let path = cursor.steps()?;
        let is_one = match (cursor.take_spaced("=="), cursor.take_spaced("!=")) {
            (false, false) => return (!cursor.starts_spaced(['<', '>'])).then_some(Self::Exists(path)),
            (is_one, _) => is_one,
        };
        cursor.space();
        Some(Self::Text { path, texts: vec![cursor.string()?], is_one })
    }

    pub(super) fn holds(&self, tree: &Tree<'_>, node: NodeId) -> bool {
        match self {
            Self::All(all) => all.iter().all(|filter| filter.holds(tree, node)),
            Self::Any(any) => any.iter().any(|filter| filter.holds(tree, node)),
            Self::Not(filter) => !filter.holds(tree, node),
            Self::Text { path, texts, is_one } => {
                let found = path.iter().try_fold(node, |node, step| step.only(tree, node));
                found.is_some_and(|found| texts.iter().any(|text| tree.is_text(found, text))) == *is_one
            }
            Self::Exists(path) => leads(tree, node, path, &|_| true),
        }
    }

    /// Calls `found` with every path, from the item, that the filter looks at.
    pub(super) fn looks_at(&self, found: &mut impl FnMut(&[Step])) {
        match self {
            Self::All(filters) | Self::Any(filters) => filters.iter().for_each(|filter| filter.looks_at(found)),
            Self::Not(filter) => filter.looks_at(found),
            Self::Text { path, .. } | Self::Exists(path) => found(path),
        }
    }
}

/// Adds a condition; one about the text at a path joins the one that is there.
fn push(filters: &mut Vec<Filter>, filter: Filter, is_any: bool) {
    if let (Some(Filter::Text { path, texts, is_one }), Filter::Text { path: other, texts: more, is_one: is_too }) =
        (filters.last_mut(), &filter)
        && (&*path, &*is_one, is_any) == (other, is_too, *is_one)
    {
        texts.extend_from_slice(more);
        return;
    }
    filters.push(filter);
}

/// Whether a path leads to a value that `is_wanted`: unlike the paths of rules, whatever it goes through.
pub(super) fn leads(tree: &Tree<'_>, node: NodeId, path: &[Step], is_wanted: &impl Fn(NodeId) -> bool) -> bool {
    let Some((step, behind)) = path.split_first() else { return is_wanted(node) };
    let leads = |node| leads(tree, node, behind, is_wanted);
    match step {
        Step::Names(names) => names.iter().filter_map(|name| tree.member(node, name)).any(leads),
        Step::Item(index) => tree.item(node, *index).is_some_and(leads),
        Step::Items | Step::Every => tree.children(node).any(leads),
        Step::Filter(filter) => tree.children(node).any(|child| filter.holds(tree, child) && leads(child)),
    }
}
