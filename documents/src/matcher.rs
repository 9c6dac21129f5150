//! All simple paths of a policy at once: one walk over a document says what each of them selects.

use super::filter::Filter;
use super::simple::{Simple, Step};
use super::tree::{Kind, NodeId, Tree};
use serde_json_path::PathElement;
use std::cmp::Ordering;

/// The paths as a tree of their steps: paths that begin alike share them.
#[derive(Default)]
pub(super) struct Matcher {
    /// The first is the start of all.
    states: Vec<State>,
}

/// What is known when some steps of paths have led to a value.
#[derive(Default)]
struct State {
    /// The rules whose path ends here.
    rules: Vec<usize>,
    /// A rule whose path leads through, for complaints.
    through: usize,
    /// The steps that lead on, of each kind once.
    kinds: Vec<Step>,
    /// By name, in [`order`].
    names: Vec<(String, usize)>,
    items: Vec<(usize, usize)>,
    every_item: Option<usize>,
    every: Option<usize>,
    filters: Vec<(Filter, usize)>,
}

/// A value that a rule selects.
pub(super) struct Match {
    pub(super) rule: usize,
    pub(super) node: NodeId,
    /// Its normalized path.
    pub(super) path: String,
}

/// The document has another shape than the path of this rule expects.
#[derive(Debug)]
pub(super) struct Misfit(pub(super) usize);

impl Matcher {
    /// Adds the path of a rule.
    pub(super) fn add(&mut self, rule: usize, path: &Simple) {
        if self.states.is_empty() {
            self.states.push(State::default());
        }
        let mut ends = vec![0];
        for step in path.steps() {
            ends = ends.into_iter().flat_map(|end| self.lead(end, step, rule)).collect();
        }
        for end in ends {
            self.states[end].rules.push(rule);
        }
    }

    /// The states behind `step`.
    fn lead(&mut self, from: usize, step: &Step, rule: usize) -> Vec<usize> {
        let state = &mut self.states[from];
        if state.kinds.is_empty() {
            state.through = rule;
        }
        if !state.kinds.iter().any(|known| std::mem::discriminant(known) == std::mem::discriminant(step)) {
            state.kinds.push(step.clone());
        }
        if let Step::Names(names) = step {
            return names.iter().map(|name| self.lead_to_member(from, name)).collect();
        }
        let next = self.states.len();
        let state = &mut self.states[from];
        let known = match step {
            Step::Item(index) => find_or_push(&mut state.items, index, next),
            Step::Filter(filter) => find_or_push(&mut state.filters, filter, next),
            Step::Items => *state.every_item.get_or_insert(next),
            Step::Every | Step::Names(_) => *state.every.get_or_insert(next),
        };
        if known == next {
            self.states.push(State::default());
        }
        vec![known]
    }

    fn lead_to_member(&mut self, from: usize, name: &str) -> usize {
        let next = self.states.len();
        let names = &mut self.states[from].names;
        match names.binary_search_by(|(known, _)| order(known, name)) {
            Ok(at) => names[at].1,
            Err(at) => {
                names.insert(at, (name.to_owned(), next));
                self.states.push(State::default());
                next
            }
        }
    }

    /// What the paths select, in the order of the document. A rule may select a value only once.
    pub(super) fn run(&self, tree: &Tree<'_>) -> Result<Vec<Match>, Misfit> {
        let mut walk = Walk { matcher: self, tree, active: Vec::new(), place: Vec::new(), found: Vec::new() };
        if !self.states.is_empty() {
            walk.active.push(0);
            walk.visit(0, 0)?;
        }
        Ok(walk.found)
    }
}

/// The order of names: by length first, since most then differ without being read.
fn order(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

fn find_or_push<K: Clone + PartialEq>(known: &mut Vec<(K, usize)>, key: &K, next: usize) -> usize {
    if let Some((_, state)) = known.iter().find(|(known, _)| known == key) {
        return *state;
    }
    known.push((key.clone(), next));
    next
}

struct Walk<'w, 't> {
    matcher: &'w Matcher,
    tree: &'t Tree<'t>,
    /// The states at the value that is visited and at those around it, one after the other.
    active: Vec<usize>,
    /// Where the value is.
    place: Vec<PathElement<'t>>,
    found: Vec<Match>,
}

impl<'t> Walk<'_, 't> {
    /// Visits a value that has the active states from `from` on.
    fn visit(&mut self, node: NodeId, from: usize) -> Result<(), Misfit> {
        let (to, kind) = (self.active.len(), self.tree.kind(node));
        let first = self.found.len();
        let mut leads_on = false;
        for at in from..to {
            let state = &self.matcher.states[self.active[at]];
            for &rule in &state.rules {
                if self.found[first..].iter().all(|found| found.rule != rule) {
                    let path = super::path::normalized(&self.place);
                    self.found.push(Match { rule, node, path });
                }
            }
            if !state.kinds.iter().all(|step| step.fits(kind)) {
                return Err(Misfit(state.through));
            }
            leads_on |= !state.kinds.is_empty();
        }
        if !leads_on {
            return Ok(());
        }
        for (index, child) in self.tree.children(node).enumerate() {
            let name = if kind == Kind::Object { self.tree.name(child) } else { "" };
            for at in from..to {
                let state = &self.matcher.states[self.active[at]];
                self.active.extend(state.every);
                if kind == Kind::Object {
                    let found = state.names.binary_search_by(|(known, _)| order(known, name));
                    self.active.extend(found.ok().map(|at| state.names[at].1));
                    continue;
                }
                self.active.extend(state.every_item);
                self.active.extend(state.items.iter().filter(|(item, _)| *item == index).map(|(_, next)| *next));
                let holds = |(filter, _): &&(Filter, usize)| filter.holds(self.tree, child);
                self.active.extend(state.filters.iter().filter(holds).map(|(_, next)| *next));
            }
            if self.active.len() > to {
                self.place.push(if kind == Kind::Object { PathElement::Name(name) } else { PathElement::Index(index) });
                self.visit(child, to)?;
                self.place.pop();
                self.active.truncate(to);
            }
        }
        Ok(())
    }
}
