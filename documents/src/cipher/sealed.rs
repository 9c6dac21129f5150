//! Documents whose values are sealed together: one header, a body in the place of each value, a manifest over all of them.

use super::lines::{HEADER_ROOM, Line};
use super::plan::compile;
use super::replaced::Replaced;
use super::values::{NOT_SEALED, protect_value, push_value, scalar_text};
use super::{DocumentCipher, DocumentCounts, Place as Found, refused};
use crate::condition::Latest;
use crate::field::{Direction, FieldKeys, Locator};
use crate::{Conditions, Document, DocumentError, HeaderTexts, JsonRules, Place, Token};
use keyfold::wire::{
    BODY_TEXT_PREFIX, DocumentHeader, body_from_text, looks_sealed_text, manifest_from_text, manifest_text,
    push_body_text,
};
use keyfold::{
    Beside, ColumnBytes, DocumentBody, DocumentOpener, DocumentPolicy, DocumentSealer, DocumentToSeal, DocumentValue,
    ErrorKind, ManifestRule, RowError, SealedDocument,
};
use std::borrow::Cow;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A kind of documents, with its keys.
pub(super) struct Kind {
    policy: Arc<DocumentPolicy>,
    conditions: Conditions,
    /// Where its documents are in a line; `None`: they are whole lines.
    pub(super) root: Option<JsonRules>,
    /// Which of the row bindings of the job.
    pub(super) row_path: Option<usize>,
    sealer: Option<DocumentSealer>,
    opener: Option<DocumentOpener>,
}

impl Kind {
    /// The kinds of the policy; their row bindings are added to `row_paths`. None if no field is one of documents.
    pub(super) fn all(
        keys: &FieldKeys<'_>,
        row_paths: &mut Vec<String>,
        is_needed: bool,
    ) -> Result<Vec<Self>, DocumentError> {
        if !is_needed {
            return Ok(Vec::new());
        }
        if matches!(keys.direction, Direction::Rebind | Direction::Reencrypt) {
            return Err(refused(
                "the policy has fields of documents, which are sealed as a whole: reveal the file and protect it again",
            ));
        }
        let of_kind = |policy: &Arc<DocumentPolicy>| {
            Self::new(keys, policy, row_paths).map_err(|error| error.of_document(&policy.name))
        };
        keys.ring.policy().documents().map(of_kind).collect()
    }

    fn new(
        keys: &FieldKeys<'_>,
        policy: &Arc<DocumentPolicy>,
        row_paths: &mut Vec<String>,
    ) -> Result<Self, DocumentError> {
        let documents = keys.documents(&policy.name)?;
        let row_path = Locator::Paths.row(&policy.row_binding)?.and_then(|paths| paths.first()).map(|path| {
            row_paths.iter().position(|known| known == path).unwrap_or_else(|| {
                row_paths.push(path.clone());
                row_paths.len() - 1
            })
        });
        let (mut sealer, mut opener) = (None, None);
        match keys.direction {
            Direction::Protect { .. } => sealer = Some(pollster::block_on(documents.sealer())?),
            _ => opener = Some(pollster::block_on(documents.opener())?),
        }
        let root = if policy.root == "$" { None } else { Some(JsonRules::compile([("root", &policy.root)])?) };
        let conditions = compile(&policy.only_if)?;
        Ok(Self { policy: policy.clone(), conditions, root, row_path, sealer, opener })
    }

    /// The kind of a line and that of the documents inside of it: of those whose conditions the line meets, the ones with the most.
    pub(super) fn of(kinds: &[Self], document: &Document<'_>) -> Result<[Option<usize>; 2], DocumentError> {
        let mut latest = Latest::default();
        let holds = |at: &usize| kinds[*at].conditions.hold_with(document, &mut latest);
        let holding: Vec<usize> = (0..kinds.len()).filter(holds).collect();
        let most = holding.iter().map(|at| kinds[*at].conditions.len()).max();
        let mut chosen: [Option<usize>; 2] = [None; 2];
        for at in holding.into_iter().filter(|at| Some(kinds[*at].conditions.len()) == most) {
            if let Some(other) = chosen[usize::from(kinds[at].root.is_some())].replace(at) {
                let why = "two kinds of documents of the policy both apply, under as many conditions";
                return Err(
                    refused(why).with_detail(format!("{}, {}", kinds[other].policy.name, kinds[at].policy.name))
                );
            }
        }
        Ok(chosen)
    }

    /// The paths that its conditions look at.
    pub(super) fn conditions(&self) -> impl Iterator<Item = &String> {
        self.policy.only_if.keys()
    }

    pub(super) fn name(&self) -> &str {
        &self.policy.name
    }

    /// The path of its documents.
    pub(super) fn root_path(&self) -> &str {
        &self.policy.root
    }

    pub(super) fn place(&self) -> Place {
        Place(self.policy.header)
    }

    pub(super) fn manifest(&self) -> ManifestRule {
        self.policy.manifest
    }
}

impl DocumentCipher<'_> {
    /// Seals or opens every document of a batch whose values are sealed together. Values of other suites have been replaced already.
    pub(super) fn transform_documents(
        &self,
        lines: &[Line<'_>],
        replaced: &mut [Replaced],
        counts: &mut DocumentCounts,
    ) -> Result<(), DocumentError> {
        for (at, kind) in self.kinds.iter().enumerate() {
            let of_kind = (0..lines.len()).filter(|&line| lines[line].kind == Some(at));
            match (&kind.sealer, &kind.opener) {
                (Some(sealer), _) => self.seal_documents(lines, kind, sealer, of_kind.collect(), replaced)?,
                (None, Some(opener)) => {
                    for line in of_kind {
                        let done = self.open_document(&lines[line], kind, opener, &mut replaced[line], counts);
                        done.map_err(|error| lines[line].failed(error.of_document(kind.name())))?;
                    }
                }
                (None, None) => return Err(DocumentError::new(ErrorKind::Internal, "documents without keys")),
            }
        }
        Ok(())
    }

    /// Seals the documents of one kind.
    fn seal_documents(
        &self,
        lines: &[Line<'_>],
        kind: &Kind,
        sealer: &DocumentSealer,
        of_kind: Vec<usize>,
        replaced: &mut [Replaced],
    ) -> Result<(), DocumentError> {
        if of_kind.is_empty() {
            return Ok(());
        }
        let in_line = |line: usize| move |error: DocumentError| lines[line].failed(error.of_document(kind.name()));
        let mut rows = Vec::with_capacity(of_kind.len());
        for &line in &of_kind {
            rows.push(self.document_row(&lines[line], kind, &replaced[line]).map_err(in_line(line))?);
        }
        let (own, other): (Vec<Found>, Vec<Found>) = of_kind
            .iter()
            .flat_map(|&line| (0..lines[line].found.values.len()).map(move |found| (line, found)))
            .partition(|&(line, found)| self.fields[lines[line].field_of(found)].is_of_documents());
        let tokens: Vec<Token<'_>> = own.iter().map(|&(line, found)| lines[line].token(found)).collect();
        let mut values = Vec::with_capacity(own.len());
        for (&(line, found), token) in own.iter().zip(&tokens) {
            let policy = self.fields[lines[line].field_of(found)].policy();
            let value = protect_value(policy, token, self.direction);
            let value = value.map_err(|error| in_line(line)(error.of_field(&policy.name)))?;
            values.push(DocumentValue { field: &policy.name, path: lines[line].found.path(found), value });
        }
        let sealed = {
            let mut texts = Vec::with_capacity(other.len());
            for &(line, found) in &other {
                texts.push(sealed_text(replaced[line].get(found)).map_err(in_line(line))?);
            }
            let beside = other.iter().zip(&texts).map(|(&(line, found), text)| beside(&lines[line], found, text));
            let beside: Vec<_> = beside.collect();
            let parts = of_lines(&of_kind, &own, &values).zip(of_lines(&of_kind, &other, &beside));
            let documents: Vec<_> = parts
                .zip(&rows)
                .map(|((values, beside), row)| DocumentToSeal {
                    row: row.as_ref().map(|row| row.as_bytes()),
                    values,
                    beside,
                    sequence: 1,
                })
                .collect();
            let failed = |failed: RowError| match failed.row {
                Some(row) => in_line(of_kind[row])(failed.error.into()),
                None => failed.error.into(),
            };
            pollster::block_on(sealer.seal_parts(&documents)).map_err(failed)?
        };
        for ((&line, sealed), own) in of_kind.iter().zip(&sealed).zip(of_lines(&of_kind, &own, &own)) {
            let put = self.put_sealed(&lines[line], kind, sealed, own, &mut replaced[line]);
            put.map_err(in_line(line))?;
        }
        Ok(())
    }

    /// Puts the bodies and the header of a sealed document where they belong.
    fn put_sealed(
        &self,
        line: &Line<'_>,
        kind: &Kind,
        sealed: &SealedDocument,
        own: &[Found],
        replaced: &mut Replaced,
    ) -> Result<(), DocumentError> {
        if sealed.manifest.is_none() && strays(line) > 0 {
            return Err(refused(
                "a value that no field covers looks like one of a protected document, so the document could not be revealed",
            ));
        }
        for (i, &(_, found)) in own.iter().enumerate() {
            let body = sealed.bodies.bytes(i);
            replaced.set(found, |out| {
                // Base64url, the prefix and quotes.
                let out = out.with_room(body.len() * 4 / 3 + 16);
                out.push(b'"');
                push_body_text(body, out);
                out.push(b'"');
            });
        }
        let header =
            HeaderTexts { document: sealed.header.to_text(), manifest: sealed.manifest.as_ref().map(manifest_text) };
        replaced.add(|out| {
            let at = kind.place().insert(&line.document, &line.found, &header, out.with_room(HEADER_ROOM))?;
            Ok(at..at)
        })
    }

    fn open_document(
        &self,
        line: &Line<'_>,
        kind: &Kind,
        opener: &DocumentOpener,
        replaced: &mut Replaced,
        counts: &mut DocumentCounts,
    ) -> Result<(), DocumentError> {
        let (own, other) = self.split(line);
        let Some(header) = &line.header else {
            return match (own.is_empty(), kind.policy.manifest) {
                (false, _) => Err(DocumentError::new(
                    ErrorKind::Malformed,
                    // F-18.7-2.
                    "the document has no header, so its values cannot be opened; plaintext is never passed through",
                )),
                (true, ManifestRule::Required) => Err(DocumentError::new(
                    ErrorKind::PolicyRefused,
                    // F-18.5-4.
                    "the document has no header, so no manifest, which the policy requires",
                )),
                (true, _) => Ok(()),
            };
        };
        // A manifest says which values there are. Without one a value that the policy covers no longer would stay, without its header.
        if header.manifest.is_none() && strays(line) > 0 {
            let why = "a protected value of the document is covered by no field of the policy, and would be lost with its header";
            return Err(refused(why));
        }
        let row = self.document_row(line, kind, replaced)?;
        let malformed = |found: usize, why| {
            DocumentError::new(ErrorKind::Malformed, why).of_field(&self.fields[line.field_of(found)].policy().name)
        };
        let sealed_text = |found: &[usize], row: usize| match line.token(found[row]) {
            Token::String { text, .. } => Ok(text),
            _ => Err(malformed(found[row], NOT_SEALED)),
        };
        let others = (0..other.len()).map(|row| sealed_text(&other, row)).collect::<Result<Vec<_>, _>>()?;
        let len = own.iter().map(|&found| line.document.tree.span(line.found.values[found].node).len()).sum();
        let (mut data, mut ends) = (Vec::with_capacity(len), Vec::with_capacity(own.len()));
        for row in 0..own.len() {
            body_from_text(sealed_text(&own, row)?.as_bytes(), &mut data).map_err(|_| {
                malformed(own[row], "the value is not sealed, or damaged; plaintext is never passed through")
            })?;
            ends.push(data.len());
        }
        let mut bodies = Vec::with_capacity(own.len());
        let mut start = 0;
        for (&found, &end) in own.iter().zip(&ends) {
            let field = &self.fields[line.field_of(found)].policy().name;
            bodies.push(DocumentBody { field, path: line.found.path(found), body: &data[start..end] });
            start = end;
        }
        let beside: Vec<_> = other.iter().zip(&others).map(|(&found, text)| beside(line, found, text)).collect();
        let damaged = |error: keyfold::Error| match error.kind() {
            ErrorKind::Malformed => DocumentError::new(ErrorKind::Malformed, "the header of the document is damaged"),
            _ => error.into(),
        };
        let sealed = DocumentHeader::from_text(&header.document).map_err(damaged)?;
        let manifest = header.manifest.as_deref().map(manifest_from_text).transpose().map_err(damaged)?;
        pollster::block_on(opener.load_key(&sealed))?;
        let row = row.as_ref().map(|row| row.as_bytes());
        let opened = opener.open(&sealed, row, &bodies, &beside, manifest.as_ref())?;
        counts.outdated += if opened.is_current() { 0 } else { own.len() as u64 };
        counts.compromised += if opened.is_compromised() { own.len() as u64 } else { 0 };
        for (i, &found) in own.iter().enumerate() {
            replaced.try_set(found, |out| push_value("", &opened.values().value(i), self.one_line(), out))?;
        }
        Ok(())
    }

    /// What a document is bound to, in clear.
    fn document_row(
        &self,
        line: &Line<'_>,
        kind: &Kind,
        replaced: &Replaced,
    ) -> Result<Option<Zeroizing<String>>, DocumentError> {
        kind.row_path.map(|row_path| self.row_binding(line, row_path, replaced)).transpose()
    }

    /// The values of the document itself, and those of other suites: which of those that were found.
    fn split(&self, line: &Line<'_>) -> (Vec<usize>, Vec<usize>) {
        (0..line.found.values.len()).partition(|&found| self.fields[line.field_of(found)].is_of_documents())
    }
}

/// Of things that have these places, those of each line.
fn of_lines<'p, T>(lines: &'p [usize], places: &'p [Found], things: &'p [T]) -> impl Iterator<Item = &'p [T]> {
    let mut start = 0;
    lines.iter().map(move |line| {
        let end = start + places[start..].iter().take_while(|(of, _)| of == line).count();
        &things[std::mem::replace(&mut start, end)..end]
    })
}

fn beside<'a>(line: &'a Line<'_>, found: usize, text: &'a str) -> Beside<'a> {
    Beside { path: line.found.path(found), sealed: text.as_bytes() }
}

/// How many values that look like those of a protected document no field covers.
fn strays(line: &Line<'_>) -> usize {
    let tree = &line.document.tree;
    let covered: usize = line.found.values.iter().map(|found| tree.count_starting(found.node, BODY_TEXT_PREFIX)).sum();
    tree.count_starting(0, BODY_TEXT_PREFIX).saturating_sub(covered)
}

/// What the JSON string of a value says that was sealed by itself.
fn sealed_text(replaced: Option<&[u8]>) -> Result<Cow<'_, str>, DocumentError> {
    let json = replaced.and_then(|text| std::str::from_utf8(text).ok());
    let text = scalar_text(json.and_then(Token::parse));
    text.ok_or_else(|| DocumentError::new(ErrorKind::Internal, "a value of the document was not sealed before it"))
}

/// Whether a value looks sealed already, as part of a document or alone.
pub(super) fn looks_sealed(token: &Token<'_>) -> bool {
    matches!(token, Token::String { text, .. } if looks_sealed_text(text.as_bytes()))
}
