//! All simple paths of a policy at once: one walk over a document says what each of them selects.

use super::filter::Filter;
use super::locate::Selection;
use super::path::{ROOT, push_index, push_name};
use super::simple::{Simple, Step};
use super::tree::{Kind, NodeId, Tree};

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
    names: Names,
    items: Vec<(usize, usize)>,
    every_item: Option<usize>,
    every: Option<usize>,
    filters: Vec<(Filter, usize)>,
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
        let state = self.states[from].names.get_or_insert(name, next);
        if state == next {
            self.states.push(State::default());
        }
        state
    }

    /// What the paths select, in the order of the document. A rule may select a value only once.
    pub(super) fn run(&self, tree: &Tree<'_>) -> Result<Selection, Misfit> {
        let mut walk = Walk {
            matcher: self,
            tree,
            active: Vec::with_capacity(16),
            place: String::with_capacity(64),
            found: Selection::default(),
        };
        walk.place.push_str(ROOT);
        if !self.states.is_empty() {
            walk.active.push(0);
            walk.visit(0, 0)?;
        }
        Ok(walk.found)
    }
}

/// The states that names of members lead to. By the length of the name, since few names that are looked for have any of these.
#[derive(Default)]
struct Names(Vec<Vec<NamedState>>);

struct NamedState {
    name: String,
    /// The step of normalized paths that leads to it.
    step: String,
    state: usize,
}

impl Names {
    fn get(&self, name: &str) -> Option<&NamedState> {
        // Of those of one length most differ in the last byte.
        let last = |name: &str| name.as_bytes().last().copied();
        self.0.get(name.len())?.iter().find(|known| last(&known.name) == last(name) && known.name == name)
    }

    /// The state of a name, which is `next` if it has none yet.
    fn get_or_insert(&mut self, name: &str, next: usize) -> usize {
        if let Some(known) = self.get(name) {
            return known.state;
        }
        if self.0.len() <= name.len() {
            self.0.resize_with(name.len() + 1, Vec::new);
        }
        let mut step = String::new();
        push_name(name, &mut step);
        self.0[name.len()].push(NamedState { name: name.to_owned(), step, state: next });
        next
    }
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
    /// The normalized path of the value.
    place: String,
    found: Selection,
}

impl Walk<'_, '_> {
    /// Visits a value that has the active states from `from` on.
    fn visit(&mut self, node: NodeId, from: usize) -> Result<(), Misfit> {
        let (to, kind) = (self.active.len(), self.tree.kind(node));
        let first = self.found.values.len();
        let mut leads_on = false;
        for at in from..to {
            let state = &self.matcher.states[self.active[at]];
            for &rule in &state.rules {
                if self.found.values[first..].iter().all(|found| found.rule != rule) {
                    self.found.push(rule, node, &self.place);
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
            let mut step = None;
            for at in from..to {
                let state = &self.matcher.states[self.active[at]];
                self.active.extend(state.every);
                if kind == Kind::Object {
                    if let Some(named) = state.names.get(name) {
                        self.active.push(named.state);
                        step = Some(&*named.step);
                    }
                    continue;
                }
                self.active.extend(state.every_item);
                self.active.extend(state.items.iter().filter(|(item, _)| *item == index).map(|(_, next)| *next));
                let holds = |(filter, _): &&(Filter, usize)| filter.holds(self.tree, child);
                self.active.extend(state.filters.iter().filter(holds).map(|(_, next)| *next));
            }
            if self.active.len() > to {
                let len = self.place.len();
                match (step, kind) {
                    (Some(step), _) => self.place.push_str(step),
                    (None, Kind::Object) => push_name(name, &mut self.place),
                    (None, _) => push_index(index, &mut self.place),
                }
                self.visit(child, to)?;
                self.place.truncate(len);
                self.active.truncate(to);
            }
        }
        Ok(())
    }
}
