//! Looking through files: CSV by column, JSON by path, HL7 by segment.

use super::Found;
use super::hints::Hints;
use super::judge::{self, Verdict};
use crate::args::{Format, Scan};
use crate::failure::{Exit, Failure};
use crate::files::csv::{CsvOptions, CsvSource, DEFAULT_MAX_FIELD_LEN, MAX_ROW_LEN};
use crate::files::hl7::{MAX_MESSAGE_LEN, Message, MessageSource, SegmentPath, SegmentRules};
use crate::files::interrupt::{Interrupt, Interruptible};
use crate::files::json::{Conditions, Document, JsonError, JsonRules, LineSource, MAX_LINE_LEN, Place, Token};
use crate::transform::{Clear, Input, format_of, similar};
use keyfold::{DocumentPolicy, FieldPolicy, Policy, RowBinding};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

/// Sealed values are a third longer than what they seal.
const SEALED_GROWTH: usize = 2;
/// Longest line, and longest file of one document.
const MAX_LEN: usize = MAX_LINE_LEN * SEALED_GROWTH;

pub(super) fn scan(
    args: &Scan,
    input: &OsStr,
    policy: &Policy,
    hints: Option<&Hints>,
    interrupt: &Interrupt,
    found: &mut Found,
) -> Result<(), Failure> {
    let source = found.source.clone();
    let format = args.format.map_or_else(|| format_of(input), Ok).map_err(|failure| failure.at(&source))?;
    let reader = Interruptible::new(Input::open(input)?, interrupt.clone());
    let scanned = match format {
        Format::Csv => scan_csv(reader, args.delimiter, policy, hints, found),
        Format::Ndjson => scan_json(LineSource::new(reader, MAX_LEN), format, policy, hints, found),
        Format::Json => scan_json(LineSource::whole(reader, MAX_LEN), format, policy, hints, found),
        Format::Hl7 => scan_hl7(reader, policy, hints, found),
    };
    scanned.map_err(|failure| failure.at(source))
}

fn scan_csv(
    input: impl Read,
    delimiter: u8,
    policy: &Policy,
    hints: Option<&Hints>,
    found: &mut Found,
) -> Result<(), Failure> {
    // A column may be that of several fields; all of them must be content.
    let fields: Vec<(String, &Arc<FieldPolicy>)> =
        policy.fields().flat_map(|field| field.columns.iter().map(move |column| (column.clone(), field))).collect();
    let options = CsvOptions {
        delimiter,
        columns: fields.iter().map(|(column, _)| column.clone()).collect(),
        max_field_len: DEFAULT_MAX_FIELD_LEN * SEALED_GROWTH,
        max_row_len: MAX_ROW_LEN * SEALED_GROWTH,
    };
    let mut source = CsvSource::new(input, options)?;
    let positions = source.positions().to_vec();
    let misnamed = add_misnamed(source.header(), policy, found);
    for (position, (_, field)) in positions.iter().zip(&fields) {
        if position.is_none() && !misnamed.contains(&field.name) {
            found.absent(field, true);
        }
    }
    let others: Vec<usize> = (0..source.header().len()).filter(|at| !positions.contains(&Some(*at))).collect();
    while let Some(batch) = source.next_batch()? {
        for row in 0..batch.rows() {
            for (position, (_, field)) in positions.iter().zip(&fields) {
                let Some(position) = *position else { continue };
                let verdict = match std::str::from_utf8(batch.cell(row, position)) {
                    Ok(text) => judge::text(field, text),
                    Err(_) => judge::bytes(field, batch.cell(row, position)),
                };
                found.judged(verdict, &field.name, || batch.place(row, position).to_string());
            }
            for &position in others.iter().filter(|_| hints.is_some()) {
                let text = String::from_utf8_lossy(batch.cell(row, position));
                add_hints(&text, hints, found, || batch.place(row, position).to_string());
            }
        }
    }
    Ok(())
}

/// Finds columns that protecting refuses, since their names are nearly those of the policy; returns the fields whose columns they seem to be.
fn add_misnamed(header: &[String], policy: &Policy, found: &mut Found) -> BTreeSet<String> {
    let mut owners: BTreeMap<String, &FieldPolicy> = BTreeMap::new();
    for field in policy.fields().filter(|field| !field.columns.is_empty()) {
        let row = match &field.row_binding {
            RowBinding::Bound { column, .. } => column.as_ref(),
            _ => None,
        };
        let indexes = field.indexes.iter().filter_map(|index| index.column.as_ref());
        for column in row.into_iter().chain(indexes) {
            owners.entry(column.clone()).or_insert(field);
        }
    }
    for field in policy.fields() {
        owners.extend(field.columns.iter().map(|column| (column.clone(), &**field)));
    }
    let named: Vec<String> = owners.keys().cloned().collect();
    let mut misnamed = BTreeSet::new();
    for (name, place, why) in similar(header, &named) {
        let field = &owners[name].name;
        found.missing(field, format!("{place}: {why}"));
        misnamed.insert(field.clone());
    }
    misnamed
}

fn add_hints(text: &str, hints: Option<&Hints>, found: &mut Found, place: impl Fn() -> String) {
    if judge::is_sealed(text) {
        return;
    }
    for what in hints.into_iter().flat_map(|hints| hints.of(text)) {
        found.hint(what, &place);
    }
}

/// The fields of a policy that have paths, and its kinds of documents, ready to be looked for.
struct JsonFields {
    fields: Vec<JsonField>,
    kinds: Vec<Kind>,
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
    header: Place,
}

fn compile(of: &str, only_if: &BTreeMap<String, String>) -> Result<Conditions, Failure> {
    let wrong = |error: JsonError| Failure::new(Exit::Policy, format!("{of}: only_if: {error}"));
    Conditions::compile("only_if", only_if).map_err(wrong)
}

impl JsonFields {
    fn new(policy: &Policy) -> Result<Self, Failure> {
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
                header: Place(kind.header),
            })
        };
        let fields = policy.fields().filter(|field| !field.paths.is_empty()).map(of).collect::<Result<_, Failure>>()?;
        Ok(Self { fields, kinds: policy.documents().map(kind).collect::<Result<_, Failure>>()? })
    }

    /// Looks at a line, or a file that is one document, and at the documents inside of it.
    fn scan(
        &mut self,
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
        documents.push(whole);
        let mut taken = Vec::new();
        // The whole is the last, and counts for itself only if nothing is inside.
        let counted = (documents.len() - 1).max(1);
        for (at, document) in documents.iter().enumerate() {
            let is_matched = self.scan_fields(document, found, line, &mut taken)?;
            found.unmatched += u64::from(!is_matched && at < counted);
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

fn scan_hl7(input: impl Read, policy: &Policy, hints: Option<&Hints>, found: &mut Found) -> Result<(), Failure> {
    let mut paths = Vec::new();
    let mut fields = Vec::new();
    for field in policy.fields() {
        for path in &field.segments {
            paths.push(SegmentPath::parse(path)?);
            fields.push(field);
        }
    }
    let rules = SegmentRules::new(paths)?;
    let clear = Clear::new(policy.hl7(), &rules).map_err(|failure| failure.at("[hl7]"))?;
    let (mut has_messages, mut seen) = (false, BTreeSet::new());
    let mut source = MessageSource::new(input, MAX_MESSAGE_LEN * SEALED_GROWTH);
    while let Some(batch) = source.next_batch()? {
        for (raw, number) in batch.messages() {
            let Some(message) = Message::parse(raw, number)? else { continue };
            has_messages = true;
            let place = |path: &str| format!("message {number}, {path}");
            if clear.other_version(&message).is_some() {
                found.elsewhere("MSH-12", "of a version that the policy was not made for", || place("MSH-12"));
            }
            clear.find(&message, &rules, |path, value| {
                let path = path.to_string();
                if !judge::is_sealed(&String::from_utf8_lossy(value)) {
                    found.elsewhere(&path, "neither sealed nor listed under clear in [hl7]", || place(&path));
                }
                Ok(())
            })?;
            let values = message.locate(&rules)?;
            found.unmatched += u64::from(values.is_empty());
            for located in values {
                let (field, path) = (fields[located.rule], rules.path(located.rule).to_string());
                seen.insert(&field.name);
                let verdict = match std::str::from_utf8(&raw[located.span.clone()]) {
                    Ok(text) => judge::text(field, text),
                    Err(_) => judge::bytes(field, &raw[located.span.clone()]),
                };
                found.judged(verdict, &field.name, || place(&path));
            }
            if hints.is_some() {
                message.walk(|path, value| {
                    if !rules.select(&path) {
                        add_hints(&String::from_utf8_lossy(value), hints, found, || place(&path.to_string()));
                    }
                    Ok::<(), Failure>(())
                })?;
            }
        }
    }
    for field in policy.fields().filter(|field| !field.segments.is_empty() && !seen.contains(&field.name)) {
        found.absent(field, has_messages);
    }
    found.clear_columns.extend(clear.into_left());
    Ok(())
}

fn scan_json(
    mut source: LineSource<impl Read>,
    format: Format,
    policy: &Policy,
    hints: Option<&Hints>,
    found: &mut Found,
) -> Result<(), Failure> {
    let mut fields = JsonFields::new(policy)?;
    while let Some(batch) = source.next_batch()? {
        for index in (0..batch.len()).filter(|&index| !batch.is_blank(index)) {
            let document = Document::parse(batch.line(index), batch.number(index))?;
            let line = (format == Format::Ndjson).then(|| batch.number(index));
            fields.scan(document, hints, found, line)?;
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
