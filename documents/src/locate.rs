//! From the paths of a policy to the bytes of a line.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json_path::{JsonPath, NormalizedPath, PathElement};

use super::path::normalized;
use super::shape::Shapes;
use super::{Document, JsonError};

/// Named JSON paths (RFC 9535).
pub struct JsonRules {
    rules: Vec<(String, JsonPath)>,
    shapes: Shapes,
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
        let mut compiled = Self { rules: Vec::new(), shapes: Shapes::default() };
        for (name, path) in rules {
            let rule = name.into();
            match JsonPath::parse(path.as_ref()) {
                Ok(parsed) => {
                    compiled.shapes.add(compiled.rules.len(), path.as_ref());
                    compiled.rules.push((rule, parsed));
                }
                Err(error) => return Err(JsonError::Path { rule, reason: error.to_string() }),
            }
        }
        Ok(compiled)
    }

    /// Finds every value that a rule selects, in the order of the line. No two of them overlap.
    ///
    /// # Errors
    ///
    /// [`JsonError::Overlap`]: such a value could not be replaced by two rules at once. A rule that
    /// selects the same value in two ways is fine. [`JsonError::Shape`]: the document holds, say, an object where
    /// a path expects an array, so that what the path means would not be selected. [`JsonError::TooManyValues`].
    pub fn locate(&self, document: &Document<'_>) -> Result<Vec<Located>, JsonError> {
        if let Some((rule, prefix)) = self.shapes.misfit(&document.value) {
            let (rule, prefix) = (self.rules[rule].0.clone(), prefix.to_owned());
            return Err(JsonError::Shape { line: document.line, rule, prefix });
        }
        let mut wanted = Wanted::default();
        for (rule, (name, path)) in self.rules.iter().enumerate() {
            for node in path.query_located(&document.value).dedup() {
                wanted.insert(node.location(), rule, normalized(node.location())).map_err(|other| {
                    JsonError::Overlap { line: document.line, first: self.rules[other].0.clone(), second: name.clone() }
                })?;
            }
        }
        let mut found = Vec::new();
        if wanted.nodes.is_empty() {
            return Ok(found);
        }
        let walk = Walk { wanted: &wanted, node: 0, text: document.text, found: &mut found };
        walk.deserialize(&mut serde_json::Deserializer::from_str(document.text))
            .map_err(|error| JsonError::of_parser(&error, document.line))?;
        Ok(found)
    }
}

impl JsonRules {
    /// Takes every value that a rule selects out of `document`, as a document of its own: paths start there, and nothing leads from
    /// `document` into it any more.
    ///
    /// # Errors
    ///
    /// As for [`locate`](Self::locate).
    pub fn take<'a>(&self, document: &mut Document<'a>) -> Result<Vec<Document<'a>>, JsonError> {
        let found = self.locate(document)?;
        let mut pointers = std::collections::HashMap::new();
        for (_, path) in &self.rules {
            for node in path.query_located(&document.value) {
                pointers.insert(normalized(node.location()), node.location().to_json_pointer());
            }
        }
        let part = |located: Located| {
            let value = document.value.pointer_mut(pointers.get(&located.path)?).map(serde_json::Value::take)?;
            let text = document.text.get(located.span.clone())?;
            Some(Document { text, value, line: document.line, offset: document.offset + located.span.start })
        };
        // Every path that was located leads to a value.
        Ok(found.into_iter().filter_map(part).collect())
    }
}

/// The wanted paths of a line as a tree, so that one pass over the line finds them all.
#[derive(Default)]
struct Wanted<'v> {
    /// The first is the root, if there is any.
    nodes: Vec<Node<'v>>,
}

#[derive(Default)]
struct Node<'v> {
    /// The rule that selects this value or something in it.
    rule: usize,
    /// The normalized path of a value that is selected.
    path: String,
    members: BTreeMap<&'v str, usize>,
    items: BTreeMap<usize, usize>,
}

impl Node<'_> {
    /// Every node is made for a path that leads to it or through it, so this one ends here.
    fn is_selected(&self) -> bool {
        self.members.is_empty() && self.items.is_empty()
    }
}

impl<'v> Wanted<'v> {
    /// Adds `path` for `rule`; fails with the rule of an overlapping path.
    fn insert(&mut self, path: &NormalizedPath<'v>, rule: usize, normalized: String) -> Result<(), usize> {
        let mut at = 0;
        let mut is_new = self.nodes.is_empty();
        if is_new {
            self.nodes.push(Node { rule, ..Node::default() });
        }
        for element in path.iter() {
            let next = self.nodes.len();
            let node = &mut self.nodes[at];
            if !is_new && node.is_selected() {
                return Err(node.rule);
            }
            at = match element {
                PathElement::Name(name) => *node.members.entry(name).or_insert(next),
                PathElement::Index(index) => *node.items.entry(*index).or_insert(next),
            };
            is_new = at == next;
            if is_new {
                self.nodes.push(Node { rule, ..Node::default() });
            }
        }
        if !is_new {
            return Err(self.nodes[at].rule);
        }
        self.nodes[at].path = normalized;
        Ok(())
    }
}

/// Reads one value and records the wanted places in it.
struct Walk<'w, 'v> {
    wanted: &'w Wanted<'v>,
    node: usize,
    text: &'w str,
    found: &'w mut Vec<Located>,
}

impl Walk<'_, '_> {
    fn node(&self) -> &Node<'_> {
        &self.wanted.nodes[self.node]
    }

    fn child(&mut self, node: usize) -> Walk<'_, '_> {
        Walk { wanted: self.wanted, node, text: self.text, found: self.found }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if !self.node().is_selected() {
            return deserializer.deserialize_any(self);
        }
        // Borrowed, so its place in memory is its place in the line.
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        let start = (raw.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        let span = start..start.wrapping_add(raw.len());
        if self.text.get(span.clone()) != Some(raw) {
            return Err(D::Error::custom("not borrowed from the line"));
        }
        self.found.push(Located { rule: self.node().rule, span, path: self.node().path.clone() });
        Ok(())
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the array or object that the path was found in")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        while let Some(child) = members.next_key_seed(FindMember(self.node()))? {
            match child {
                Some(node) => members.next_value_seed(self.child(node))?,
                None => members.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        for index in 0.. {
            let more = match self.node().items.get(&index).copied() {
                Some(node) => items.next_element_seed(self.child(node))?,
                None => items.next_element::<IgnoredAny>()?.map(drop),
            };
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }
}

/// Looks a member name up, after its escapes are resolved, without keeping it.
struct FindMember<'w, 'v>(&'w Node<'v>);

impl<'de> DeserializeSeed<'de> for FindMember<'_, '_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FindMember<'_, '_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.members.get(name).copied())
    }
}
