//! Normalized paths (RFC 9535 §2.7): the one spelling of where a value stands, to which it is bound (FORMAT.md §18.4).

#[cfg(test)]
use serde_json_path::PathElement;
use std::fmt::Write as _;

/// The text of a path of the engine, which does not escape names itself, so that two places could have one text.
#[cfg(test)]
pub(crate) fn normalized<'p, 'v: 'p>(path: impl IntoIterator<Item = &'p PathElement<'v>>) -> String {
    let mut out = ROOT.to_owned();
    for element in path {
        match element {
            PathElement::Name(name) => push_name(name, &mut out),
            PathElement::Index(index) => push_index(*index, &mut out),
        }
    }
    out
}

/// The path of the whole document.
pub(crate) const ROOT: &str = "$";

/// Leads on to an item.
pub(crate) fn push_index(index: usize, out: &mut String) {
    out.push('[');
    push_number(index, out);
    out.push(']');
}

/// Formatting would take longer than all else here.
fn push_number(number: usize, out: &mut String) {
    if number >= 10 {
        push_number(number / 10, out);
    }
    out.push(char::from(b'0' + (number % 10) as u8));
}

/// Leads on to a member.
pub(crate) fn push_name(name: &str, out: &mut String) {
    out.push_str("['");
    if name.bytes().all(|byte| byte >= b' ' && byte != b'\'' && byte != b'\\') {
        out.push_str(name);
        out.push_str("']");
        return;
    }
    for character in name.chars() {
        match character {
            '\'' | '\\' => out.extend(['\\', character]),
            '\u{8}' => out.push_str(r"\b"),
            '\t' => out.push_str(r"\t"),
            '\n' => out.push_str(r"\n"),
            '\u{c}' => out.push_str(r"\f"),
            '\r' => out.push_str(r"\r"),
            '\0'..' ' => write!(out, "\\u{:04x}", u32::from(character)).expect("memory takes all writes"),
            _ => out.push(character),
        }
    }
    out.push_str("']");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use serde_json_path::JsonPath;

    #[test]
    fn every_place_has_one_path_that_leads_to_it() {
        let names = ["a", "a'][0]['b", "'", "\\", "\\'", "\u{b}\u{1f}\u{8}\t\n\u{c}\r", "é\u{7f}\u{10ffff}", "", "0"];
        let object: serde_json::Map<String, Value> = names.iter().map(|name| ((*name).into(), json!([name]))).collect();
        let document = json!({ "top": object });
        let mut seen = std::collections::HashSet::new();
        for node in JsonPath::parse("$.top.*[0]").expect("a path").query_located(&document) {
            let path = normalized(node.location().iter());
            let again = JsonPath::parse(&path).expect("a path").query(&document).exactly_one().expect("one value");
            assert_eq!(again, node.node());
            assert!(seen.insert(path));
        }
        assert_eq!(seen.len(), names.len());
        assert!(seen.contains(r"$['top']['\u000b\u001f\b\t\n\f\r'][0]"));
        assert!(seen.contains(r"$['top']['a\'][0][\'b'][0]"));
    }
}
