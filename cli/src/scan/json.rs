//! Looking through JSON documents, path by path.

use super::hints::Hints;
use super::judge::{self, Indexed, Verdict};
use super::{Found, add_hints};
use crate::args::Scan;
use crate::failure::{Exit, Failure};
use crate::files::json::{Conditions, Document, JsonError, JsonRules, LineSource, Place, Token};
use keyfold::{DocumentPolicy, FieldPolicy, Policy};
use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

/// The fields of a policy that have paths, its kinds of documents and the members of its indexes, ready to be looked for.
struct JsonFields<'p> {
    fields: Vec<JsonField>,
    kinds: Vec<Kind>,
    indexes: Vec<Indexed<'p>>,
}

struct JsonField {
    policy: Arc<FieldPolicy>,
    conditions: Conditions,
    rules: JsonRules,
    /// Whether it applied to a document.
    applied: bool,
    /// Whether a document has had a value of it.
    seen: bool,
}

/// A kind of documents whose values are sealed together.
struct Kind {
    conditions: Conditions,
    /// Where its documents are; `None`: they are whole lines.
    root: Option<JsonRules>,
    root_path: String,
    header: Place,
}

fn compile(of: &str, only_if: &BTreeMap<String, String>) -> Result<Conditions, Failure> {
    let wrong = |error: JsonError| Failure::new(Exit::Policy, format!("{of}: only_if: {error}"));
    Conditions::compile("only_if", only_if).map_err(wrong)
}

impl<'p> JsonFields<'p> {
    fn new(policy: &'p Policy) -> Result<Self, Failure> {
        let of = |field: &Arc<FieldPolicy>| {
            Ok(JsonField {
                conditions: compile(&format!("field {}", field.name), &field.only_if)?,
                rules: JsonRules::compile(field.paths.iter().map(|path| (field.name.as_str(), path)))?,
                policy: field.clone(),
                applied: false,
                seen: false,
            })
        };
        let kind = |kind: &Arc<DocumentPolicy>| {
            Ok(Kind {
                conditions: compile(&format!("document {}", kind.name), &kind.only_if)?,
                root: if kind.root == "$" { None } else { Some(JsonRules::compile([("root", &kind.root)])?) },
                root_path: kind.root.clone(),
                header: Place(kind.header),
            })
        };
        let fields = policy.fields().filter(|field| !field.paths.is_empty()).map(of).collect::<Result<_, Failure>>()?;
        let kinds = policy.documents().map(kind).collect::<Result<_, Failure>>()?;
        Ok(Self { fields, kinds, indexes: Indexed::all(policy).filter(|index| index.has_paths).collect() })
    }

    /// Looks at a line, or a file that is one document, and at the documents inside of it.
    fn scan(
        &mut self,
        args: &Scan,
        mut whole: Document<'_>,
        hints: Option<&Hints>,
        found: &mut Found,
        line: Option<u64>,
    ) -> Result<(), Failure> {
        let text = whole.text();
        // Of kinds that apply, those with the most conditions, as when the document is protected.
        let holding: Vec<&Kind> = self.kinds.iter().filter(|kind| kind.conditions.hold(&whole)).collect();
        let most = holding.iter().map(|kind| kind.conditions.len()).max();
        let of = |is_inside: bool| {
            let mut kinds = holding.iter().filter(|kind| kind.root.is_some() == is_inside);
            kinds.find(|kind| Some(kind.conditions.len()) == most)
        };
        let [around, inside] = [false, true].map(of);
        let mut documents = match inside.and_then(|kind| kind.root.as_ref()) {
            Some(root) => root.take(&mut whole)?,
            None => Vec::new(),
        };
        // Headers are no values, and may stand where a path leads.
        if let Some(kind) = inside {
            for document in &mut documents {
                kind.header.take(document)?;
            }
        }
        if let Some(kind) = around {
            kind.header.take(&mut whole)?;
        }
        let root = inside.map_or("", |kind| &kind.root_path).to_owned();
        documents.push(whole);
        let mut taken = Vec::new();
        for document in &mut documents {
            self.scan_members(document, found, line, &mut taken);
        }
        // The whole is the last, and counts for itself only if nothing is inside.
        let counted = (documents.len() - 1).max(1);
        for (at, document) in documents.iter().enumerate() {
            let is_matched = self.scan_fields(document, found, line, &mut taken)?;
            found.unmatched += u64::from(!is_matched && at < counted);
        }
        if args.clear {
            let starts: HashSet<usize> = taken.iter().map(|span| span.start).collect();
            for (at, document) in documents.iter().enumerate() {
                let root = if at + 1 < documents.len() { &root } else { "$" };
                let is_taken = |at: usize| starts.contains(&(document.offset() + at));
                document.visit_scalars(root, &is_taken, &mut |path, raw| found.in_clear(path, raw.trim_matches('"')));
            }
        }
        if hints.is_some() {
            for (at, string) in strings(text) {
                if !taken.iter().any(|span| span.contains(&at)) {
                    add_hints(&string, hints, found, || place(line, at));
                }
            }
        }
        Ok(())
    }

    /// Takes the members of indexes out of a document, as revealing does, and looks at their tokens.
    fn scan_members(
        &self,
        document: &mut Document<'_>,
        found: &mut Found,
        line: Option<u64>,
        taken: &mut Vec<Range<usize>>,
    ) {
        let offset = document.offset();
        for index in &self.indexes {
            let Some(span) = document.take_member(index.column) else { continue };
            let tokens = judge::member(index.policy, &document.text()[span.clone()]);
            found.tokens(index, tokens, || place(line, offset + span.start));
            taken.push(offset + span.start..offset + span.end);
        }
    }

    /// Looks at the values of every field that applies to a document; whether one selects anything, without which protecting refuses the
    /// document. Adds to `taken` where they are.
    fn scan_fields(
        &mut self,
        document: &Document<'_>,
        found: &mut Found,
        line: Option<u64>,
        taken: &mut Vec<Range<usize>>,
    ) -> Result<bool, Failure> {
        let offset = document.offset();
        let mut is_matched = false;
        for field in self.fields.iter_mut().filter(|field| field.conditions.hold(document)) {
            field.applied = true;
            let located = match field.rules.locate(document) {
                Ok(located) => located,
                // What the path means is hidden from it, so it is not sealed.
                Err(JsonError::Shape { .. }) => {
                    (field.seen, is_matched) = (true, true);
                    found.add(&field.policy.name, "of another shape than the path", || place(line, offset));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            for value in located {
                (field.seen, is_matched) = (true, true);
                let verdict = match document.token(value.span.clone())? {
                    Token::String { text, .. } => judge::text(&field.policy, &text),
                    Token::Null => Verdict::Empty,
                    _ => Verdict::Wrong("in clear"),
                };
                let span = offset + value.span.start..offset + value.span.end;
                found.judged(verdict, &field.policy.name, || place(line, span.start));
                taken.push(span);
            }
        }
        Ok(is_matched)
    }

    fn end(&self, found: &mut Found) {
        let unseen = self.fields.iter().filter(|field| !field.seen);
        unseen.for_each(|field| found.absent(&field.policy, field.applied));
    }
}

/// `by_line`: each line is a document.
pub(super) fn scan(
    args: &Scan,
    mut source: LineSource<impl Read>,
    by_line: bool,
    policy: &Policy,
    hints: Option<&Hints>,
    found: &mut Found,
) -> Result<(), Failure> {
    let mut fields = JsonFields::new(policy)?;
    while let Some(batch) = source.next_batch()? {
        for index in (0..batch.len()).filter(|&index| !batch.is_blank(index)) {
            let document = Document::parse(batch.line(index), batch.number(index))?;
            let line = by_line.then(|| batch.number(index));
            fields.scan(args, document, hints, found, line)?;
        }
    }
    fields.end(found);
    Ok(())
}

/// A byte of a line, or of a file that is one document; from 1.
fn place(line: Option<u64>, at: usize) -> String {
    match line {
        Some(line) => format!("line {line}, byte {}", at + 1),
        None => format!("byte {}", at + 1),
    }
}

/// The strings of a JSON text, names of members among them, and where each begins. The text has been parsed before.
fn strings(text: &str) -> impl Iterator<Item = (usize, String)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + bytes.get(at..)?.iter().position(|&byte| byte == b'"')?;
        let mut end = start + 1;
        while *bytes.get(end)? != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        at = end + 1;
        Some((start, serde_json::from_str(&text[start..at]).unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::strings;

    #[test]
    fn strings_with_escapes_and_names() {
        let found: Vec<_> = strings(r#"{"a\"b": ["\u0031\\", "", 7, "x"]}"#).collect();
        let texts: Vec<_> = found.iter().map(|(at, text)| (*at, text.as_str())).collect();
        assert_eq!(texts, [(1, "a\"b"), (10, "1\\"), (22, ""), (29, "x")]);
        assert_eq!(strings("12").count(), 0);
    }
}
