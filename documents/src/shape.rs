//! Whether a document has the shape that a path expects: where it has not, the path selects nothing, and a value that
//! the policy means would silently stay in clear.

use serde_json::Value;
use serde_json_path::JsonPath;

/// What a path expects to find before its next step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Expected {
    /// An object: the next step is a member's name.
    Object,
    /// An array: the next step is an index, a slice, `[*]` or a filter.
    Array,
    /// One or the other: the next step is `.*`.
    Either,
}

/// The prefixes of paths, and what each must lead to. A value that is absent or null fits every shape.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    prefixes: Vec<Prefix>,
}

#[derive(Debug)]
struct Prefix {
    text: String,
    path: JsonPath,
    expected: Expected,
    rule: usize,
}

impl Shapes {
    /// Adds the prefixes of the path `text` of rule `rule`. Stops at a step that can lead to anything (`..`).
    pub(super) fn add(&mut self, rule: usize, text: &str) {
        for (end, expected) in steps(text) {
            let prefix = &text[..end];
            if self.prefixes.iter().any(|known| known.text == prefix && known.expected == expected) {
                continue;
            }
            // A prefix of a valid path at a step's boundary is valid; one that is not is not checked.
            if let Ok(path) = JsonPath::parse(prefix) {
                self.prefixes.push(Prefix { text: prefix.to_owned(), path, expected, rule });
            }
        }
    }

    /// The rule and the prefix whose expectation `document` does not meet.
    pub(super) fn misfit(&self, document: &Value) -> Option<(usize, &str)> {
        let fits = |prefix: &Prefix| {
            prefix.path.query(document).iter().all(|node| match node {
                Value::Null => true,
                Value::Object(_) => prefix.expected != Expected::Array,
                Value::Array(_) => prefix.expected != Expected::Object,
                _ => false,
            })
        };
        self.prefixes.iter().find(|prefix| !fits(prefix)).map(|prefix| (prefix.rule, prefix.text.as_str()))
    }
}

/// Where each step of a path starts, and what it expects there.
fn steps(path: &str) -> Vec<(usize, Expected)> {
    let bytes = path.as_bytes();
    let mut steps = Vec::new();
    let mut at = 1;
    while at < bytes.len() {
        let expected = match bytes[at] {
            b' ' | b'\t' | b'\r' | b'\n' => {
                at += 1;
                continue;
            }
            b'.' if bytes.get(at + 1) == Some(&b'.') => break,
            b'.' if bytes.get(at + 1) == Some(&b'*') => Expected::Either,
            b'.' => Expected::Object,
            b'[' => match bytes[at + 1..].iter().find(|byte| !byte.is_ascii_whitespace()) {
                Some(b'\'' | b'"') => Expected::Object,
                Some(_) => Expected::Array,
                None => break,
            },
            _ => break,
        };
        steps.push((at, expected));
        at = if bytes[at] == b'[' { past_bracket(bytes, at) } else { past_name(bytes, at + 1) };
    }
    steps
}

fn past_name(bytes: &[u8], start: usize) -> usize {
    let ends = |byte: &u8| matches!(byte, b'.' | b'[' | b' ' | b'\t' | b'\r' | b'\n');
    bytes[start..].iter().position(ends).map_or(bytes.len(), |len| start + len)
}

/// Behind the bracket that closes the one at `start`; strings inside may hold brackets.
fn past_bracket(bytes: &[u8], start: usize) -> usize {
    let (mut depth, mut quote, mut at) = (0_usize, None, start);
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, byte @ (b'\'' | b'"')) => quote = Some(byte),
            (None, b'[') => depth += 1,
            (None, b']') => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn steps_are_told_apart() {
        use Expected::{Array, Either, Object};
        let prefixes = |path: &'static str| steps(path).into_iter().map(|(at, e)| (&path[..at], e)).collect::<Vec<_>>();
        assert_eq!(prefixes("$.name[*].family"), [("$", Object), ("$.name", Array), ("$.name[*]", Object)]);
        assert_eq!(
            prefixes("$.x[?@.a == ']' && @.b[0] == \"[\"].v"),
            [("$", Object), ("$.x", Array), ("$.x[?@.a == ']' && @.b[0] == \"[\"]", Object)]
        );
        assert_eq!(prefixes("$['a b'].*"), [("$", Object), ("$['a b']", Either)]);
        assert_eq!(prefixes("$.a..b"), [("$", Object)]);
        assert_eq!(prefixes("$"), []);
    }

    #[test]
    fn a_document_of_another_shape_is_found() {
        let mut shapes = Shapes::default();
        shapes.add(7, "$.name[*].given[*]");
        for good in [json!({}), json!({"name": null}), json!({"name": []}), json!({"name": [{"given": ["A"]}, null]})] {
            assert_eq!(shapes.misfit(&good), None, "{good}");
        }
        for (bad, prefix) in [
            (json!([]), "$"),
            (json!("x"), "$"),
            (json!({"name": {"given": ["A"]}}), "$.name"),
            (json!({"name": "Ada"}), "$.name"),
            (json!({"name": [{"given": ["A"]}, "Ada"]}), "$.name[*]"),
            (json!({"name": [{"given": "Ada"}]}), "$.name[*].given"),
        ] {
            assert_eq!(shapes.misfit(&bad), Some((7, prefix)), "{bad}");
        }
    }
}
