//! The strings, numbers and booleans of a document, by where they are.

use super::Document;
use super::path::push_name;
use super::tree::{Kind, NodeId, Tree};

impl Document<'_> {
    /// Calls `found` with the place of each string, number and boolean, and with how it is written. A place is a path in which `[*]` stands for every item of an
    /// array, behind `root`, which is `$` for a whole text: names of members stand in it as they are. What starts where `is_taken` says so is left out, with all
    /// that is in it; so are members that were [taken](Self::take_member).
    pub fn visit_scalars(&self, root: &str, is_taken: &dyn Fn(usize) -> bool, found: &mut dyn FnMut(&str, &str)) {
        visit(&self.tree, self.text, 0, &mut root.to_owned(), is_taken, found);
    }
}

fn visit(
    tree: &Tree<'_>,
    text: &str,
    node: NodeId,
    path: &mut String,
    is_taken: &dyn Fn(usize) -> bool,
    found: &mut dyn FnMut(&str, &str),
) {
    let span = tree.span(node);
    let kind = tree.kind(node);
    match kind {
        _ if is_taken(span.start) => {}
        Kind::Null => {}
        Kind::String | Kind::Number | Kind::Bool => found(path, &text[span]),
        Kind::Object | Kind::Array => {
            for child in tree.children(node) {
                let len = path.len();
                match kind {
                    Kind::Object => push_member(tree.name(child), path),
                    _ => path.push_str("[*]"),
                }
                visit(tree, text, child, path, is_taken, found);
                path.truncate(len);
            }
        }
    }
}

/// Leads on to a member, with a dot where RFC 9535 allows it.
fn push_member(name: &str, path: &mut String) {
    let is_first = |character: char| character.is_ascii_alphabetic() || character == '_' || !character.is_ascii();
    let is_plain = name.starts_with(is_first) && name.chars().all(|c| is_first(c) || c.is_ascii_digit());
    match is_plain {
        true => {
            path.push('.');
            path.push_str(name);
        }
        false => push_name(name, path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_scalars() {
        let text = r#"{"a":[{"b":"x","c d":1},{"b":"\u0031","1":true,"é":null,"e":[],"":{}}],"t":{"u":"y"},"'":2}"#;
        let mut document = Document::parse(text.as_bytes(), 1).expect("JSON");
        let at = text.find(r#"{"u""#).expect("there");
        let places = |document: &Document<'_>| {
            let mut all = Vec::new();
            document.visit_scalars("$", &|start| start == at, &mut |path, raw| all.push(format!("{path} {raw}")));
            all
        };
        let expected = ["$.a[*].b \"x\"", "$.a[*]['c d'] 1", "$.a[*].b \"\\u0031\"", "$.a[*]['1'] true", "$['\\''] 2"];
        assert_eq!(places(&document), expected);
        document.take_member("a").expect("there");
        assert_eq!(places(&document), expected[4..]);
        let mut found = 0;
        Document::parse(b"7", 1).expect("JSON").visit_scalars("$", &|_| false, &mut |path, raw| {
            assert_eq!((path, raw), ("$", "7"));
            found += 1;
        });
        assert_eq!(found, 1);
    }
}
