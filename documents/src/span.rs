//! Where members and items stand in the text of a document, and what removes them so that every other byte stays.

use std::ops::Range;

/// What removes the members of these values from the object that `text` is: each run of them with the comma behind it, or else the one
/// before it. No two overlap, and none touches another value.
pub(crate) fn removals(text: &str, values: Vec<Range<usize>>) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut members: Vec<Range<usize>> =
        values.into_iter().map(|value| name_start(bytes, value.start)..value.end).collect();
    members.sort_by_key(|member| member.start);
    for member in members {
        let joins = |run: &Range<usize>| text[run.end..member.start].trim_matches([' ', '\t', '\r', '\n']) == ",";
        match runs.last_mut().filter(|run| joins(run)) {
            Some(run) => run.end = member.end,
            None => runs.push(member),
        }
    }
    let is_space = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_whitespace);
    for run in &mut runs {
        let mut end = run.end;
        while is_space(end) {
            end += 1;
        }
        if bytes.get(end) == Some(&b',') {
            run.end = end + 1;
            continue;
        }
        let mut start = run.start;
        while start > 0 && is_space(start - 1) {
            start -= 1;
        }
        if start > 0 && bytes[start - 1] == b',' {
            run.start = start - 1;
        }
    }
    runs
}

/// Where the name begins whose value begins at `value`: back over the colon to its closing quote, and on to its opening one.
fn name_start(bytes: &[u8], value: usize) -> usize {
    let closing = bytes[..value].iter().rposition(|byte| *byte == b'"').unwrap_or_default();
    let opening = (0..closing).rev().find(|at| bytes[*at] == b'"' && !is_escaped(bytes, *at));
    opening.unwrap_or_default()
}

/// Whether an odd number of backslashes stands before `at`.
fn is_escaped(bytes: &[u8], at: usize) -> bool {
    bytes[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// The span, and the comma before it, or else the one behind.
pub(crate) fn item_with_comma(text: &str, span: Range<usize>) -> Range<usize> {
    if let Some(before) = text[..span.start].trim_end().strip_suffix(',') {
        return before.len()..span.end;
    }
    let behind = text[span.end..].trim_start();
    if behind.starts_with(',') { span.start..text.len() - behind.len() + 1 } else { span }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_go_with_their_commas() {
        for (text, left) in [
            (r#"{"i":1,"a":2}"#, r#"{"a":2}"#),
            (r#"{"a":2 , "i" : 1 }"#, r#"{"a":2  }"#),
            (r#"{"a":2,"i":1,"b":3}"#, r#"{"a":2,"b":3}"#),
            (r#"{"i":1}"#, "{}"),
            (r#"{"x\"i":1,"a":2}"#, r#"{"a":2}"#),
            (r#"{"a":2,"i":1, "j":1}"#, r#"{"a":2}"#),
            (r#"{"i":1,"j":1,"a":2}"#, r#"{"a":2}"#),
            (r#"{"i":1,"a":2,"j":1}"#, r#"{"a":2}"#),
        ] {
            let values = text.match_indices('1').map(|(at, _)| at..at + 1).collect();
            let mut out = String::new();
            let mut copied = 0;
            for span in removals(text, values) {
                out.push_str(&text[copied..span.start]);
                copied = span.end;
            }
            out.push_str(&text[copied..]);
            assert_eq!(out, left);
        }
    }
}
