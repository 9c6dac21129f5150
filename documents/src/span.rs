//! Where members and items stand in the text of a document, and what removes them so that every other byte stays.

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
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

/// Where the value of the member `name` of the object `text` is.
pub(crate) fn value_span(text: &str, name: &str) -> Option<Range<usize>> {
    let raw = serde_json::Deserializer::from_str(text).deserialize_map(FindMember(name)).ok()??;
    span_of(text, raw)
}

/// Where the item `index` of the array at `array` is, and it with its comma: the one before it, or else the one behind.
pub(crate) fn item_span(text: &str, array: Range<usize>, index: usize) -> Option<(Range<usize>, Range<usize>)> {
    let inside = text.get(array.clone())?;
    let raw = serde_json::Deserializer::from_str(inside).deserialize_seq(FindItem(index)).ok()??;
    let span = span_of(inside, raw)?;
    let with_comma = item_with_comma(inside, span.clone());
    let shift = |span: Range<usize>| array.start + span.start..array.start + span.end;
    Some((shift(span), shift(with_comma)))
}

/// The span, and the comma before it, or else the one behind.
fn item_with_comma(text: &str, span: Range<usize>) -> Range<usize> {
    if let Some(before) = text[..span.start].trim_end().strip_suffix(',') {
        return before.len()..span.end;
    }
    let behind = text[span.end..].trim_start();
    if behind.starts_with(',') { span.start..text.len() - behind.len() + 1 } else { span }
}

/// Where `part`, which is a part of `text`, is in it.
fn span_of(text: &str, part: &RawValue) -> Option<Range<usize>> {
    let start = (part.get().as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    Some(start..start + part.get().len())
}

struct FindMember<'n>(&'n str);

impl<'de> Visitor<'de> for FindMember<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = members.next_key::<std::borrow::Cow<'de, str>>()? {
            match name == self.0 {
                true => found = Some(members.next_value()?),
                false => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

struct FindItem(usize);

impl<'de> Visitor<'de> for FindItem {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        for _ in 0..self.0 {
            items.next_element::<IgnoredAny>()?;
        }
        let found = items.next_element()?;
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
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
