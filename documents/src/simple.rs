//! Paths of names, indices, wildcards and filters of texts, which nearly all are: a whole engine of queries is not needed for them.

use super::filter::Filter;
use super::tree::{Kind, NodeId, Tree};

/// One step of a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// `.name`, `['name']`, `['name', 'other']`: expects an object.
    Names(Vec<String>),
    /// `[3]`: expects an array.
    Item(usize),
    /// `[*]`: expects an array.
    Items,
    /// `.*`: expects an object or an array.
    Every,
    /// `[?…]`: expects an array.
    Filter(Filter),
}

impl Step {
    /// What a step that leads to one value at most leads to.
    pub(super) fn only(&self, tree: &Tree<'_>, node: NodeId) -> Option<NodeId> {
        match self {
            Self::Names(names) => match &names[..] {
                [name] => tree.member(node, name),
                _ => None,
            },
            Self::Item(index) => tree.item(node, *index),
            Self::Items | Self::Every | Self::Filter(_) => None,
        }
    }

    /// Whether the step can lead from a value of this kind. What is null leads nowhere, and fits every path.
    pub(super) fn fits(&self, kind: Kind) -> bool {
        match self {
            _ if kind == Kind::Null => true,
            Self::Names(_) => kind == Kind::Object,
            Self::Item(_) | Self::Items | Self::Filter(_) => kind == Kind::Array,
            Self::Every => matches!(kind, Kind::Object | Kind::Array),
        }
    }

    /// Whether the step leads to whatever another one leads to.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Every, _) => true,
            (Self::Names(names), Self::Names(others)) => others.iter().all(|name| names.contains(name)),
            (Self::Items, Self::Items | Self::Item(_) | Self::Filter(_)) => true,
            _ => self == other,
        }
    }

    /// Whether two steps from one value can lead to one value.
    fn can_meet(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Every, _) | (_, Self::Every) => true,
            (Self::Names(names), Self::Names(others)) => names.iter().any(|name| others.contains(name)),
            (Self::Names(_), _) | (_, Self::Names(_)) => false,
            (Self::Item(index), Self::Item(other)) => index == other,
            _ => true,
        }
    }
}

/// A path without slices, `..`, indices from the end, functions, and filters of other shapes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Simple(Vec<Step>);

impl Simple {
    /// Reads a path that the engine has parsed; `None` if it is another one, or spelled in an unusual way.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut cursor = Cursor { rest: text.strip_prefix('$')? };
        let steps = cursor.steps()?;
        cursor.rest.is_empty().then_some(Self(steps))
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }

    /// What it leads to, if each of its steps leads to one value at most; `None` also if one can lead to several.
    pub(super) fn only(&self, tree: &Tree<'_>) -> Option<NodeId> {
        self.0.iter().try_fold(0, |node, step| step.only(tree, node))
    }

    /// Where it leads as the path of a condition, which unlike that of a field may go through objects and arrays alike.
    pub(super) fn of_condition(&self) -> Self {
        Self(self.0.iter().map(any).collect())
    }

    /// The paths that its filters look at, whether it is that of a field or of a condition.
    pub(super) fn looks_at(&self) -> Vec<Self> {
        let mut paths = Vec::new();
        look(&[], &self.0, &mut paths);
        paths
    }

    /// Whether the two paths can lead to one value, or one of them to a part of what the other leads to.
    pub(super) fn can_meet(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a.can_meet(b))
    }
}

/// How much of what one path selects another one does, with all that is in it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Coverage {
    /// Nothing.
    None,
    /// Perhaps some of it, or parts of it: a filter, or names in it, decide.
    Parts,
    /// All of it, whatever the document.
    All,
}

impl Coverage {
    /// How much of `path` the path `known` selects. Of paths with slices, `..` and the like, what their texts tell.
    #[must_use]
    pub fn of(path: &str, known: &str) -> Self {
        let (covers, meets) = match (Simple::parse(path), Simple::parse(known)) {
            (Some(path), Some(known)) => {
                // All items of an array are all of it; the members of an object have names besides.
                let behind = known.0.get(path.0.len()..).unwrap_or_default();
                let is_all = behind.iter().all(|step| *step == Step::Items);
                let covers = is_all && known.0.iter().zip(&path.0).all(|(known, step)| known.covers(step));
                (covers, known.can_meet(&path))
            }
            _ => {
                let starts = |path: &str, start: &str| {
                    path.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
                };
                (starts(path, known), starts(known, path))
            }
        };
        match (covers, meets) {
            (true, _) => Self::All,
            (false, true) => Self::Parts,
            (false, false) => Self::None,
        }
    }

    /// Whether the path `known` selects what `path` selects as the same values, rather than as parts of others or by its parts: `$.name` and
    /// `$.name[*].family[*]` do not for `$.name[*].family`, whose values they seal in another way.
    #[must_use]
    pub fn is_same(path: &str, known: &str) -> bool {
        let is_as_deep = match (Simple::parse(path), Simple::parse(known)) {
            (Some(path), Some(known)) => known.0.len() == path.0.len(),
            _ => known == path,
        };
        is_as_deep && Self::of(path, known) == Self::All
    }
}

/// A step of a path that goes through whatever is there, where an object has items as well: that of a filter, or of a condition.
fn any(step: &Step) -> Step {
    match step {
        Step::Items | Step::Filter(_) => Step::Every,
        step => step.clone(),
    }
}

/// Adds what the filters of `steps`, which start at `prefix`, look at.
fn look(prefix: &[Step], steps: &[Step], paths: &mut Vec<Simple>) {
    let mut place = prefix.to_vec();
    for step in steps {
        place.push(match step {
            Step::Filter(_) if prefix.is_empty() => Step::Items,
            step if prefix.is_empty() => step.clone(),
            step => any(step),
        });
        let Step::Filter(filter) = step else { continue };
        filter.looks_at(&mut |inside| {
            paths.push(Simple(place.iter().cloned().chain(inside.iter().map(any)).collect()));
            look(&place, inside, paths);
        });
    }
}

/// What is left of the text of a path.
pub(super) struct Cursor<'t> {
    rest: &'t str,
}

impl Cursor<'_> {
    pub(super) fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn take(&mut self, token: &str) -> bool {
        let behind = self.rest.strip_prefix(token);
        self.rest = behind.unwrap_or(self.rest);
        behind.is_some()
    }

    /// Takes a token and the space before it.
    pub(super) fn take_spaced(&mut self, token: &str) -> bool {
        let behind = self.rest.trim_start_matches([' ', '\t', '\n', '\r']).strip_prefix(token);
        self.rest = behind.unwrap_or(self.rest);
        behind.is_some()
    }

    /// Whether one of these follows, behind space.
    pub(super) fn starts_spaced(&self, characters: [char; 2]) -> bool {
        self.rest.trim_start_matches([' ', '\t', '\n', '\r']).starts_with(characters)
    }

    /// The steps that follow.
    pub(super) fn steps(&mut self) -> Option<Vec<Step>> {
        let mut steps = Vec::new();
        loop {
            if self.take_spaced("[") {
                steps.push(self.bracket()?);
            } else if self.take_spaced(".") {
                let step = if self.take("*") { Step::Every } else { Step::Names(vec![self.name()?]) };
                steps.push(step);
            } else {
                return Some(steps);
            }
        }
    }

    /// What follows an opening bracket, and its end.
    fn bracket(&mut self) -> Option<Step> {
        self.space();
        let step = if self.take("*") {
            Step::Items
        } else if self.take("?") {
            Step::Filter(Filter::parse(self)?)
        } else if self.rest.starts_with(['\'', '"']) {
            let mut names = vec![self.string()?];
            while self.take_spaced(",") {
                self.space();
                let name = self.string()?;
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            Step::Names(names)
        } else {
            let len = self.rest.find(|character: char| !character.is_ascii_digit())?;
            let (index, behind) = self.rest.split_at(len);
            self.rest = behind;
            Step::Item(index.parse().ok()?)
        };
        self.take_spaced("]").then_some(step)
    }

    fn name(&mut self) -> Option<String> {
        let is_plain = |character: char| character.is_ascii_alphanumeric() || character == '_' || !character.is_ascii();
        let len = self.rest.find(|character| !is_plain(character)).unwrap_or(self.rest.len());
        let (name, behind) = self.rest.split_at(len);
        self.rest = behind;
        (len > 0).then(|| name.to_owned())
    }

    /// A string without escapes.
    pub(super) fn string(&mut self) -> Option<String> {
        let quote = self.rest.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
        let (text, behind) = self.rest[1..].split_once(quote)?;
        self.rest = behind;
        (!text.contains('\\')).then(|| text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simple(path: &str) -> Simple {
        Simple::parse(path).expect("a simple path")
    }

    #[test]
    fn paths_that_are_not_simple_are_left_to_the_engine() {
        for path in [
            "$..a",
            "$[1:2]",
            "$[-1]",
            "$['a\\'']",
            "$[0,1]",
            "$['a',0]",
            "$.a-b",
            "$[?@.a == 1]",
            "$[?@.a < 'b']",
            "$[?'b' == @.a]",
            "$[?$.a]",
            "$[?length(@.a) == 1]",
            "$[?@.a == 'b', 1]",
            "$[?@..a]",
        ] {
            assert_eq!(Simple::parse(path), None, "{path}");
        }
        assert_eq!(simple("$['a'][0].b[*].*").steps().len(), 5);
        assert_eq!(simple("$").steps().len(), 0);
        assert_eq!(
            simple("$ ['a',\n \"b\" , 'a'] [ ? @ .x=='1'||@.x == \"2\" ]"),
            simple("$['a','b'][?@.x=='1'||@.x=='2']")
        );
    }

    #[test]
    fn conditions_on_one_text_are_one() {
        let Step::Filter(filter) = simple("$[?@.a != '1' && @.a != '2' && @.b == '3']").steps()[0].clone() else {
            panic!()
        };
        let Filter::All(all) = filter else { panic!("{filter:?}") };
        assert!(matches!(&all[0], Filter::Text { texts, is_one: false, .. } if texts == &["1", "2"]));
        assert_eq!(all.len(), 2);
        // One of the two differs from any text.
        let Step::Filter(filter) = simple("$[?@.a != '1' || @.a != '2']").steps()[0].clone() else { panic!() };
        assert!(matches!(filter, Filter::Any(any) if any.len() == 2));
    }

    #[test]
    fn paths_meet_where_one_can_lead_into_the_other() {
        for (a, b, meet) in [
            ("$.a", "$.a", true),
            ("$.a", "$.b", false),
            ("$.a", "$.a.b[0]", true),
            ("$.a[*].b", "$.a[3].b", true),
            ("$.a[1].b", "$.a[3].b", false),
            ("$.*.b", "$.a.b.c", true),
            ("$.a[*].b", "$.a[*].c", false),
            ("$.a[?@.x == 'y'].b", "$.a[*].b", true),
            ("$.a[?@.x == 'y'].b", "$.a[2]['c','b']", true),
            ("$.a[?@.x == 'y'].b", "$.a[*]['c','d']", false),
            ("$", "$.a", true),
        ] {
            assert_eq!((simple(a).can_meet(&simple(b)), simple(b).can_meet(&simple(a))), (meet, meet), "{a} {b}");
        }
    }

    #[test]
    fn how_much_of_a_path_is_covered() {
        for (path, known, coverage) in [
            ("$.name", "$.name", Coverage::All),
            ("$.name[*].family", "$.name", Coverage::All),
            ("$.name[*].family", "$['name'][*]['given', 'family']", Coverage::All),
            ("$.name[2]", "$.name[*]", Coverage::All),
            ("$.a[?@.b == 'c'].d", "$.a[*].d", Coverage::All),
            ("$.a[?@.b == 'c'].d", "$.a[?@.b == 'c']", Coverage::All),
            ("$.a.b", "$.*", Coverage::All),
            ("$..a.b", "$..a", Coverage::All),
            ("$.a[*].line", "$.a[*].line[*]", Coverage::All),
            ("$.name", "$.name[*].family", Coverage::Parts),
            ("$.name[*]['given', 'family']", "$.name[*].family", Coverage::Parts),
            ("$.name[*]", "$.name[2]", Coverage::Parts),
            ("$.a[*].d", "$.a[?@.b == 'c'].d", Coverage::Parts),
            ("$.a", "$.a[1:2]", Coverage::Parts),
            ("$.a", "$.a[*].b", Coverage::Parts),
            ("$.a", "$.a[0]", Coverage::Parts),
            ("$.a", "$.a.*", Coverage::Parts),
            ("$.names", "$.name", Coverage::None),
            ("$.name[*].family", "$.name[*].given", Coverage::None),
            ("$.a[1:2]", "$.b", Coverage::None),
        ] {
            assert_eq!(Coverage::of(path, known), coverage, "{path} {known}");
        }
    }

    #[test]
    fn what_filters_look_at_is_known() {
        let of = |path| simple(path).looks_at();
        assert_eq!(of("$.a[*].b"), []);
        assert_eq!(of("$.a[?@.b == 'x' || @.c.d != 'y'].e"), [simple("$.a[*].b"), simple("$.a[*].c.d")]);
        let nested = ["$.a[*].b.*", "$.a[*].b.*.c"].map(simple);
        assert_eq!(of("$.a[?@.b[?@.c == 'x']].e"), nested);
    }
}
