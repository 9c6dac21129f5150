//! Tokens of indexes as members at the top of documents: written behind the opening brace, so that taking them away again restores every
//! byte.

use super::values::values_of;
use super::{DocumentCipher, Line, Place, Replacement, RowFailed, refused};
use crate::field::Direction;
use crate::{DocumentError, JsonRules, Token as JsonToken, push_string};
use keyfold::{ErrorKind, Policy, Token};
use std::collections::BTreeMap;
use std::ops::Range;
use zeroize::Zeroizing;

/// The tokens of a document by member, and whether they stand as a list whatever their number.
pub(super) type Members = BTreeMap<String, (bool, Vec<Token>)>;

/// The members of all indexes, each with where it is in a document.
pub(super) fn members(policy: &Policy) -> Result<Vec<(String, JsonRules)>, DocumentError> {
    let mut members: Vec<(String, JsonRules)> = Vec::new();
    for field in policy.fields().filter(|field| !field.paths.is_empty()) {
        for name in field.indexes.iter().filter_map(|index| index.column.as_ref()) {
            if members.iter().any(|(known, _)| known == name) {
                return Err(refused("two indexes have the same member").with_detail(name).of_field(&field.name));
            }
            let mut quoted = Vec::new();
            push_string(name, &mut quoted);
            let path = format!("$[{}]", String::from_utf8_lossy(&quoted));
            members.push((name.clone(), JsonRules::compile([("index", &path)])?));
        }
    }
    Ok(members)
}

impl DocumentCipher<'_> {
    /// Adds the tokens of one field in a batch to those of its documents.
    pub(super) fn add_tokens(
        &self,
        lines: &[Line<'_>],
        field: usize,
        places: &[Place],
        members: &mut [Members],
    ) -> Result<(), DocumentError> {
        let job = &self.fields[field];
        if job.indexes().is_empty() {
            return Ok(());
        }
        let at = |failed: RowFailed| lines[places[failed.row].0].failed(failed.error.of_field(&job.policy().name));
        let json: Vec<JsonToken<'_>> = places
            .iter()
            .map(|&(line, found)| lines[line].document.token(lines[line].found[found].span.clone()))
            .collect::<Result<_, _>>()?;
        let values = values_of(job, &json).map_err(at)?;
        for index in job.indexes() {
            for (&(line, _), tokens) in places.iter().zip(index.tokens(&values).map_err(RowFailed::from).map_err(at)?) {
                let (is_list, all) =
                    members[line].entry(index.column().to_owned()).or_insert((index.is_list(), Vec::new()));
                // Several values of one document: which token belongs to which does not show.
                *is_list |= !all.is_empty();
                all.extend(tokens);
                all.sort_unstable();
                all.dedup();
            }
        }
        Ok(())
    }

    /// What changes in a document beside its values.
    pub(super) fn member_edits(&self, line: &Line<'_>, members: &Members) -> Result<Vec<Replacement>, DocumentError> {
        let text = line.document.text();
        match self.direction {
            Direction::Protect { .. } if !members.is_empty() => {
                let no_object = "the document is no object, so it has no place for an index";
                let brace = text.find(|c: char| !c.is_ascii_whitespace()).filter(|at| text[*at..].starts_with('{'));
                let start = brace.ok_or_else(|| DocumentError::new(ErrorKind::InvalidInput, no_object))? + 1;
                let mut added = String::new();
                for (name, rules) in &self.members {
                    if !rules.locate(&line.document)?.is_empty() {
                        return Err(refused("the document has the member of an index already").with_detail(name));
                    }
                    let Some((is_list, tokens)) = members.get(name) else { continue };
                    let mut quoted = Vec::new();
                    push_string(name, &mut quoted);
                    added.push_str(&String::from_utf8_lossy(&quoted));
                    added.push(':');
                    added.push_str(&json(*is_list, tokens));
                    added.push(',');
                }
                Ok(vec![(start..start, Zeroizing::new(added.into_bytes()))])
            }
            Direction::Reveal => {
                let mut values = Vec::new();
                for (_, rules) in &self.members {
                    values.extend(rules.locate(&line.document)?.into_iter().map(|found| found.span));
                }
                Ok(member_spans(text, values).into_iter().map(|span| (span, Zeroizing::default())).collect())
            }
            _ => Ok(Vec::new()),
        }
    }
}

/// The tokens as JSON: a number, or a text of hexadecimal digits, or a list of them; `null` if there is none.
fn json(is_list: bool, tokens: &[Token]) -> String {
    let one = |token: &Token| match token {
        Token::Integer(_) => token.to_string(),
        Token::Bytes(_) => format!("\"{token}\""),
    };
    match tokens {
        [] => "null".to_owned(),
        [token] if !is_list => one(token),
        _ => format!("[{}]", tokens.iter().map(one).collect::<Vec<_>>().join(",")),
    }
}

/// The members of these values, each run of them with the comma behind it, or else the one before it.
fn member_spans(text: &str, values: Vec<Range<usize>>) -> Vec<Range<usize>> {
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
            for span in member_spans(text, values) {
                out.push_str(&text[copied..span.start]);
                copied = span.end;
            }
            out.push_str(&text[copied..]);
            assert_eq!(out, left);
        }
    }
}
