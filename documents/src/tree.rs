//! What a document says, as a flat list of its values, each with its place in the text.
//!
//! A `serde_json::Value` costs an allocation per value and does not know places, so that the text would have to be read once more to
//! find them. What is JSON is what serde_json says: it is asked about every text that is refused here, about strings with escapes and
//! numbers with exponents; a test compares the rest.
//!
//! A little over 500 lines: reading and asking go by the same list.

use super::path::{ROOT, push_index, push_name};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::iter::Peekable;
use std::ops::Range;
use std::sync::Arc;

/// What kind of value a node is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Object,
    Array,
    String,
    Number,
    Bool,
    Null,
}

/// The values of a document, each before those inside of it. The first is the whole.
#[derive(Clone)]
pub(crate) struct Tree<'a> {
    text: &'a str,
    nodes: Vec<Node>,
    /// The names of members that are spelled with escapes, if there are any: shared with all parts, of which there may be many.
    names: Option<Arc<Vec<String>>>,
    /// How deep values nest in the text that was read.
    depth: usize,
}

#[derive(Clone)]
struct Node {
    kind: Kind,
    /// Taken out: paths lead as if it were not there.
    is_hidden: bool,
    /// Whether a string has escapes.
    has_escapes: bool,
    /// Where the value is in the text.
    start: u32,
    end: u32,
    /// The node behind this one and all that is inside of it.
    next: u32,
    name: Name,
}

/// What a member is called.
#[derive(Clone, Copy)]
enum Name {
    /// It is no member.
    None,
    /// Where the name is in the text, without its quotes.
    Plain(u32, u32),
    /// Which of the names with escapes.
    Escaped(u32),
}

/// The place of a node in the list.
pub(crate) type NodeId = usize;

/// Nested deeper than this, serde_json refuses as well.
const MAX_DEPTH: usize = 127;

/// Up to this many members every name is compared with every other one.
const FEW_MEMBERS: usize = 24;

impl<'a> Tree<'a> {
    /// Reads `text`; `None` if it is not JSON, nests too deeply, has two members of one name in an object, or is longer than 4 GiB.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        u32::try_from(text.len()).ok()?;
        let tree = Tree { text, nodes: Vec::with_capacity(text.len() / 16 + 1), names: None, depth: 0 };
        let mut parser = Parser { tree, bytes: text.as_bytes(), at: 0, members: Vec::with_capacity(FEW_MEMBERS) };
        parser.space();
        parser.value(Name::None, 0)?;
        parser.space();
        (parser.at == text.len()).then_some(parser.tree)
    }

    /// Whether the text may nest too deeply once `levels` more were put into it.
    pub(crate) fn is_deep(&self, levels: usize) -> bool {
        self.depth + levels > MAX_DEPTH
    }

    pub(crate) fn kind(&self, node: NodeId) -> Kind {
        self.nodes[node].kind
    }

    pub(crate) fn span(&self, node: NodeId) -> Range<usize> {
        self.nodes[node].start as usize..self.nodes[node].end as usize
    }

    /// The node behind all that is inside of `node`.
    pub(crate) fn end(&self, node: NodeId) -> NodeId {
        self.nodes[node].next as usize
    }

    /// The value at `span`.
    pub(crate) fn at(&self, span: &Range<usize>) -> Option<NodeId> {
        // The values in a document start one behind the other.
        let node = self.nodes.binary_search_by_key(&span.start, |node| node.start as usize).ok()?;
        (self.span(node) == *span).then_some(node)
    }

    /// Whether a string is spelled with escapes.
    pub(crate) fn has_escapes(&self, node: NodeId) -> bool {
        self.nodes[node].has_escapes
    }

    /// The name of a member; of anything else the empty text.
    pub(crate) fn name(&self, node: NodeId) -> &str {
        match self.nodes[node].name {
            Name::None => "",
            Name::Plain(start, end) => &self.text[start as usize..end as usize],
            Name::Escaped(index) => self.names.as_ref().map_or("", |names| &names[index as usize]),
        }
    }

    fn name_len(&self, node: NodeId) -> usize {
        match self.nodes[node].name {
            Name::Plain(start, end) => (end - start) as usize,
            _ => self.name(node).len(),
        }
    }

    /// The members or items of a value, in the order of the text.
    pub(crate) fn children(&self, node: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let end = self.end(node);
        let mut next = match self.kind(node) {
            Kind::Object | Kind::Array => node + 1,
            _ => end,
        };
        std::iter::from_fn(move || {
            let child = (next < end).then_some(next)?;
            #[cfg(test)]
            STEPS.set(STEPS.get() + 1);
            next = self.end(child);
            Some(child)
        })
        .filter(|child| !self.nodes[*child].is_hidden)
    }

    /// The member `name` of an object.
    pub(crate) fn member(&self, node: NodeId, name: &str) -> Option<NodeId> {
        if self.kind(node) != Kind::Object {
            return None;
        }
        self.children(node).find(|member| self.name_len(*member) == name.len() && self.name(*member) == name)
    }

    /// The item `index` of an array.
    pub(crate) fn item(&self, node: NodeId, index: usize) -> Option<NodeId> {
        self.children(node).filter(|_| self.kind(node) == Kind::Array).nth(index)
    }

    /// Whether a value is a string that says `text`.
    pub(crate) fn is_text(&self, node: NodeId, text: &str) -> bool {
        match self.has_escapes(node) {
            _ if self.kind(node) != Kind::String => false,
            false => {
                self.text[self.span(node)].get(1..text.len() + 1) == Some(text)
                    && self.span(node).len() == text.len() + 2
            }
            true => self.string(node).is_some_and(|string| string == text),
        }
    }

    /// How many strings inside of `node` start with `prefix`, which needs no escapes, at any depth.
    pub(crate) fn count_starting(&self, node: NodeId, prefix: &str) -> usize {
        match self.kind(node) {
            Kind::String if self.has_escapes(node) => {
                usize::from(self.string(node).is_some_and(|string| string.starts_with(prefix)))
            }
            Kind::String => usize::from(self.text[self.span(node)][1..].starts_with(prefix)),
            _ => self.children(node).map(|child| self.count_starting(child, prefix)).sum(),
        }
    }

    /// What a string says; `None`: it is none.
    pub(crate) fn string(&self, node: NodeId) -> Option<String> {
        let text = &self.text[self.span(node)];
        match self.kind(node) {
            Kind::String if !self.has_escapes(node) => Some(text[1..text.len() - 1].to_owned()),
            Kind::String => serde_json::from_str(text).ok(),
            _ => None,
        }
    }

    /// Takes a member or an item out, as if it were not there; the text is left.
    pub(crate) fn hide(&mut self, node: NodeId) {
        self.nodes[node].is_hidden = true;
    }

    /// Takes what is inside of a value out: a null is left.
    pub(crate) fn empty(&mut self, node: NodeId) {
        self.nodes[node].kind = Kind::Null;
    }

    /// A value as a document of its own.
    pub(crate) fn part(&self, node: NodeId) -> Self {
        let span = self.span(node);
        let (shift, behind) = (span.start as u32, node as u32);
        let moved = |part: &Node| Node {
            start: part.start - shift,
            end: part.end - shift,
            next: part.next - behind,
            name: match part.name {
                Name::None => Name::None,
                Name::Plain(start, end) => Name::Plain(start - shift, end - shift),
                Name::Escaped(index) => Name::Escaped(index),
            },
            ..*part
        };
        let (whole, inside) = (&self.nodes[node], &self.nodes[node + 1..self.end(node)]);
        let whole = moved(&Node { name: Name::None, ..*whole });
        let nodes = std::iter::once(whole).chain(inside.iter().map(moved)).collect();
        Self { text: &self.text[span], nodes, names: self.names.clone(), depth: self.depth }
    }

    /// What the document means. Large numbers lose digits.
    pub(crate) fn to_value(&self) -> Value {
        self.value_of(0)
    }

    /// The node of each value inside of `value`, which is what the document means.
    pub(crate) fn nodes_of<'v>(&self, value: &'v Value) -> HashMap<*const Value, NodeId> {
        let mut nodes = HashMap::with_capacity(self.nodes.len());
        let mut rest: Vec<(NodeId, &'v Value)> = vec![(0, value)];
        while let Some((node, value)) = rest.pop() {
            nodes.insert(std::ptr::from_ref(value), node);
            match value {
                Value::Array(items) => rest.extend(self.children(node).zip(items)),
                Value::Object(members) => {
                    rest.extend(self.children(node).filter_map(|child| Some((child, members.get(self.name(child))?))));
                }
                _ => {}
            }
        }
        nodes
    }

    /// Calls `found` with the number and the normalized path of each of these nodes, which ascend: in one walk over the document, since
    /// each item knows its index only from those before it.
    pub(crate) fn visit_paths(&self, nodes: impl Iterator<Item = NodeId>, found: &mut impl FnMut(usize, &str)) {
        let mut nodes = nodes.enumerate().peekable();
        self.visit_path(0, &mut ROOT.to_owned(), &mut nodes, found);
    }

    fn visit_path(
        &self,
        node: NodeId,
        path: &mut String,
        nodes: &mut Peekable<impl Iterator<Item = (usize, NodeId)>>,
        found: &mut impl FnMut(usize, &str),
    ) {
        while let Some((at, _)) = nodes.next_if(|(_, next)| *next == node) {
            found(at, path);
        }
        for (index, child) in self.children(node).enumerate() {
            match nodes.peek() {
                None => return,
                Some((_, next)) if *next >= self.end(child) => continue,
                Some(_) => {}
            }
            let len = path.len();
            match self.kind(node) {
                Kind::Object => push_name(self.name(child), path),
                _ => push_index(index, path),
            }
            self.visit_path(child, path, nodes, found);
            path.truncate(len);
        }
    }

    /// What a value means.
    fn value_of(&self, node: NodeId) -> Value {
        match self.kind(node) {
            Kind::Object => {
                self.children(node).map(|child| (self.name(child).to_owned(), self.value_of(child))).collect()
            }
            Kind::Array => self.children(node).map(|child| self.value_of(child)).collect(),
            Kind::Null => Value::Null,
            // It was read as one before.
            Kind::String | Kind::Number | Kind::Bool => {
                serde_json::from_str(&self.text[self.span(node)]).unwrap_or_default()
            }
        }
    }
}

#[cfg(test)]
thread_local! {
    /// How many members and items the thread has looked at.
    pub(crate) static STEPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How many bytes go before the first that a string cannot have as it is: a quote, a backslash or a control character.
pub(crate) fn plain_len(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    // The lowest byte that is marked is a zero; those above it may not be.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
    let ends = |byte: &u8| *byte < b' ' || *byte == b'"' || *byte == b'\\';
    // Compilers make one comparison of many of these. Sealed values are long.
    let has_end = |chunk: &[u8; 32]| chunk.iter().fold(false, |found, byte| found | ends(byte));
    let mut len = 32 * bytes.as_chunks().0.iter().take_while(|chunk| !has_end(chunk)).count();
    for chunk in bytes[len..].as_chunks().0 {
        let word = u64::from_le_bytes(*chunk);
        let ends = zeros(word ^ (ONES * 0x22)) | zeros(word ^ (ONES * 0x5c)) | zeros(word & (ONES * 0xe0));
        if ends != 0 {
            return len + ends.trailing_zeros() as usize / 8;
        }
        len += 8;
    }
    len + bytes[len..].iter().position(ends).unwrap_or(bytes.len() - len)
}

/// A reader of one JSON text. Whatever returns `None` found no JSON.
struct Parser<'a> {
    tree: Tree<'a>,
    bytes: &'a [u8],
    at: usize,
    /// The members so far of the objects that are open.
    members: Vec<u32>,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.bytes[self.at..].starts_with(word.as_bytes()).then(|| self.at += word.len())
    }

    fn value(&mut self, name: Name, depth: usize) -> Option<()> {
        let (node, start) = (self.tree.nodes.len(), self.at as u32);
        let new = Node { kind: Kind::Null, is_hidden: false, has_escapes: false, start, end: 0, next: 0, name };
        self.tree.nodes.push(new);
        let mut has_escapes = false;
        let kind = match self.peek()? {
            b'{' => self.object(depth + 1).map(|()| Kind::Object)?,
            b'[' => self.array(depth + 1).map(|()| Kind::Array)?,
            b'"' => {
                has_escapes = self.string()?;
                Kind::String
            }
            b't' => self.word("true").map(|()| Kind::Bool)?,
            b'f' => self.word("false").map(|()| Kind::Bool)?,
            b'n' => self.word("null").map(|()| Kind::Null)?,
            _ => self.number().map(|()| Kind::Number)?,
        };
        let next = self.tree.nodes.len() as u32;
        let known = &mut self.tree.nodes[node];
        (known.kind, known.has_escapes, known.end, known.next) = (kind, has_escapes, self.at as u32, next);
        Some(())
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        self.tree.depth = self.tree.depth.max(depth);
        let first = self.members.len();
        self.at += 1;
        self.space();
        if depth > MAX_DEPTH || self.take(b'}').is_some() {
            return (depth <= MAX_DEPTH).then_some(());
        }
        loop {
            let start = self.at;
            if self.peek()? != b'"' {
                return None;
            }
            let name = match self.string()? {
                false => Name::Plain(start as u32 + 1, self.at as u32 - 1),
                true => {
                    let name = serde_json::from_str(&self.tree.text[start..self.at]).ok()?;
                    let names = Arc::make_mut(self.tree.names.get_or_insert_default());
                    names.push(name);
                    Name::Escaped(names.len() as u32 - 1)
                }
            };
            self.space();
            self.take(b':')?;
            self.space();
            self.members.push(self.tree.nodes.len() as u32);
            self.value(name, depth)?;
            self.space();
            if self.take(b',').is_none() {
                break;
            }
            self.space();
        }
        self.take(b'}')?;
        let is_known = self.has_twins(first);
        self.members.truncate(first);
        (!is_known).then_some(())
    }

    /// Whether two of the members from `first` on have one name.
    fn has_twins(&self, first: usize) -> bool {
        let name = |member: &u32| self.tree.name(*member as usize);
        let is_same = |a: &u32, b: &u32| {
            let len = |member: &u32| self.tree.name_len(*member as usize);
            len(a) == len(b) && name(a) == name(b)
        };
        let members = &self.members[first..];
        if members.len() <= FEW_MEMBERS {
            // Most have another length or another last byte than all before them.
            let mut marks = 0_u64;
            return members.iter().enumerate().any(|(at, a)| {
                let last = name(a).as_bytes().last().copied().unwrap_or_default();
                let mark = 1_u64 << ((self.tree.name_len(*a as usize) + 7 * usize::from(last)) % 64);
                let may_be_known = marks & mark != 0;
                marks |= mark;
                may_be_known && members[..at].iter().any(|b| is_same(a, b))
            });
        }
        let mut seen = HashSet::with_capacity(members.len());
        !members.iter().all(|member| seen.insert(name(member)))
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.tree.depth = self.tree.depth.max(depth);
        self.at += 1;
        self.space();
        if depth > MAX_DEPTH || self.take(b']').is_some() {
            return (depth <= MAX_DEPTH).then_some(());
        }
        loop {
            self.value(Name::None, depth)?;
            self.space();
            if self.take(b',').is_none() {
                return self.take(b']');
            }
            self.space();
        }
    }

    /// Whether a string has escapes.
    fn string(&mut self) -> Option<bool> {
        let start = self.at;
        self.at += 1;
        let mut has_escapes = false;
        loop {
            self.at += plain_len(&self.bytes[self.at..]);
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    has_escapes = true;
                    self.at += 2;
                    self.bytes.get(self.at)?;
                }
                _ => return None,
            }
        }
        self.at += 1;
        // Which escapes there are is for serde_json to say.
        if has_escapes
            && serde_json::from_str::<std::borrow::Cow<'_, str>>(self.tree.text.get(start..self.at)?).is_err()
        {
            return None;
        }
        Some(has_escapes)
    }

    fn number(&mut self) -> Option<()> {
        let start = self.at;
        let _ = self.take(b'-');
        if self.take(b'0').is_none() {
            self.digits()?;
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        let has_exponent = matches!(self.peek(), Some(b'e' | b'E'));
        if has_exponent {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        // Which are too large is for serde_json to say.
        let may_be_large = has_exponent || self.at - start > 300;
        (!may_be_large || serde_json::from_str::<Value>(&self.tree.text[start..self.at]).is_ok()).then_some(())
    }

    /// At least one digit.
    fn digits(&mut self) -> Option<()> {
        let count = self.bytes[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        (count > 0).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_share_names_with_escapes() {
        let tree = Tree::parse(r#"[{"\u0061":1},{"\u0061":2}]"#).expect("JSON");
        let parts: Vec<_> = tree.children(0).map(|node| tree.part(node)).collect();
        let names = |tree: &Tree<'_>| tree.names.as_ref().map(Arc::as_ptr);
        assert!(parts.len() == 2 && parts.iter().all(|part| names(part).is_some() && names(part) == names(&tree)));
        assert!(parts.iter().all(|part| part.member(0, "a").is_some()));
    }
}
