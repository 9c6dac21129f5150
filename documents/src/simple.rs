//! Paths of names, indices and wildcards alone, which nearly all are: found by descending once, where a whole engine of queries is not needed.

use serde_json::Value;
use serde_json_path::PathElement;

/// One step of a path.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Step {
    /// `.name`, `['name']`: expects an object.
    Name(String),
    /// `[3]`: expects an array.
    Item(usize),
    /// `[*]`: expects an array.
    Items,
    /// `.*`: expects an object or an array.
    Every,
}

/// A path without filters, slices, `..` and indices from the end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Simple(Vec<Step>);

/// The document has another shape than the path expects.
#[derive(Debug)]
pub(super) struct Misfit;

impl Simple {
    /// Reads a path that the engine has parsed; `None` if it is another one, or spelled in an unusual way.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut rest = text.strip_prefix('$')?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, behind) = step(rest)?;
            steps.push(step);
            rest = behind;
        }
        Some(Self(steps))
    }

    /// Calls `found` with every place in `value` that the path leads to.
    pub(super) fn find<'v>(&self, value: &'v Value, found: &mut impl FnMut(&[PathElement<'v>])) -> Result<(), Misfit> {
        descend(value, &self.0, &mut Vec::with_capacity(self.0.len()), found)
    }

    /// Whether the two paths can lead to one value, or one of them to a part of what the other leads to.
    pub(super) fn can_meet(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| match (a, b) {
            (Step::Every, _) | (_, Step::Every) => true,
            (Step::Items, Step::Items | Step::Item(_)) | (Step::Item(_), Step::Items) => true,
            (a, b) => a == b,
        })
    }

    /// The number of steps.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

fn step(text: &str) -> Option<(Step, &str)> {
    if let Some(name) = text.strip_prefix('.') {
        if let Some(behind) = name.strip_prefix('*') {
            return Some((Step::Every, behind));
        }
        let is_plain = |character: char| character.is_ascii_alphanumeric() || character == '_' || !character.is_ascii();
        let len = name.find(|character| !is_plain(character)).unwrap_or(name.len());
        return (len > 0).then(|| (Step::Name(name[..len].to_owned()), &name[len..]));
    }
    let (inside, behind) = text.strip_prefix('[')?.split_once(']')?;
    let step = match inside.strip_prefix('\'').and_then(|name| name.strip_suffix('\'')) {
        Some(name) if !name.contains(['\'', '\\', '"']) => Step::Name(name.to_owned()),
        Some(_) => return None,
        None if inside == "*" => Step::Items,
        None => Step::Item(inside.parse().ok().filter(|index: &usize| index.to_string() == inside)?),
    };
    Some((step, behind))
}

fn descend<'v>(
    value: &'v Value,
    steps: &[Step],
    place: &mut Vec<PathElement<'v>>,
    found: &mut impl FnMut(&[PathElement<'v>]),
) -> Result<(), Misfit> {
    let Some((step, behind)) = steps.split_first() else {
        found(place);
        return Ok(());
    };
    let mut into = |element, value: &'v Value, place: &mut Vec<PathElement<'v>>| {
        place.push(element);
        descend(value, behind, place, found)?;
        place.pop();
        Ok(())
    };
    match (step, value) {
        // What is absent or null fits every shape.
        (_, Value::Null) => Ok(()),
        (Step::Name(name), Value::Object(members)) => match members.get_key_value(name) {
            Some((name, value)) => into(PathElement::Name(name), value, place),
            None => Ok(()),
        },
        (Step::Every, Value::Object(members)) => {
            members.iter().try_for_each(|(name, value)| into(PathElement::Name(name), value, place))
        }
        (Step::Item(index), Value::Array(items)) => match items.get(*index) {
            Some(value) => into(PathElement::Index(*index), value, place),
            None => Ok(()),
        },
        (Step::Items | Step::Every, Value::Array(items)) => {
            items.iter().enumerate().try_for_each(|(index, value)| into(PathElement::Index(index), value, place))
        }
        _ => Err(Misfit),
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
            "$[?@.a]",
            "$[1:2]",
            "$[-1]",
            "$['a\\'']",
            "$[\"a\"]",
            "$ .a",
            "$[ 1 ]",
            "$[0,1]",
            "$['a','b']",
            "$.a-b",
        ] {
            assert_eq!(Simple::parse(path), None, "{path}");
        }
        assert_eq!(simple("$['a'][0].b[*].*").len(), 5);
        assert_eq!(simple("$").len(), 0);
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
            ("$", "$.a", true),
        ] {
            assert_eq!((simple(a).can_meet(&simple(b)), simple(b).can_meet(&simple(a))), (meet, meet), "{a} {b}");
        }
    }
}
