//! The header of a protected document in its JSON (FORMAT.md §18.6): put in, found, and taken out with every other byte as it was.

use super::locate::Selection;
use super::span::item_with_comma;
use super::tree::{Kind, NodeId, Tree};
use super::{Document, JsonError, push_string};
use keyfold::HeaderPlace;
use std::ops::Range;

/// The member that holds a header.
const MEMBER: &str = "_keyfold";
/// The member in which FHIR has extensions.
const EXTENSION: &str = "extension";
const URL: &str = "urn:keyfold:document:v1";

/// What a header says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeaderTexts {
    /// The text form of the header.
    pub document: String,
    /// The text form of the manifest, if there is one.
    pub manifest: Option<String>,
}

/// Where the header stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place(pub HeaderPlace);

impl Place {
    /// Whether a header may stand in the member `name`.
    pub(crate) fn has_member(self, name: &str) -> bool {
        name == MEMBER || self.0 == HeaderPlace::FhirExtension && name == EXTENSION
    }

    /// Where `header` goes in `document`, which has none, and of which the values that were `found` are replaced; what is put there is appended to `out`.
    ///
    /// A header goes into the member `extension` only if it can be told there from the document's own: not where that member is a value
    /// itself, or something else than an array with items. Then it stands in the member `_keyfold`.
    ///
    /// # Errors
    ///
    /// - [`Header`](JsonError::Header): the document is no object, or is replaced as a whole.
    // F-18.6-2.
    pub(crate) fn insert(
        self,
        document: &Document<'_>,
        found: &Selection,
        header: &HeaderTexts,
        out: &mut Vec<u8>,
    ) -> Result<usize, JsonError> {
        let wrong = |reason| JsonError::Header { line: document.line, reason };
        let tree = &document.tree;
        if !document.is_object() {
            return Err(wrong("a document is a JSON object"));
        }
        if found.position(0).is_some() {
            return Err(wrong("the document is a value as a whole, so its header has no place"));
        }
        let extension = tree.member(0, EXTENSION).filter(|_| self.0 == HeaderPlace::FhirExtension);
        let last = extension.filter(|array| tree.kind(*array) == Kind::Array && found.position(*array).is_none());
        match (extension, last.and_then(|array| tree.children(array).last())) {
            (_, Some(last)) => {
                out.push(b',');
                push_entry(header, out);
                return Ok(tree.span(last).end);
            }
            (None, _) if self.0 == HeaderPlace::FhirExtension => {
                out.extend_from_slice(b"\"extension\":[");
                push_entry(header, out);
                out.push(b']');
            }
            _ => push_member(header, out),
        }
        if tree.children(0).next().is_some() {
            out.push(b',');
        }
        Ok(tree.span(0).start + 1)
    }

    /// Refuses a document that has a header.
    ///
    /// # Errors
    ///
    /// [`Header`](JsonError::Header), [`DamagedHeader`](JsonError::DamagedHeader).
    // F-18.6-3.
    pub fn refuse_header(self, document: &Document<'_>) -> Result<(), JsonError> {
        let reason = "the document has a header already, so it is protected";
        match self.index(document)? {
            None => Ok(()),
            Some(_) => Err(JsonError::Header { line: document.line, reason }),
        }
    }

    /// Takes the header out of `document`, so that paths see the document as it was before it was protected. Returns what it says and
    /// where it stands; `None`: there is none.
    ///
    /// # Errors
    ///
    /// - [`DamagedHeader`](JsonError::DamagedHeader): two headers, or one with other members.
    // F-18.6-5.
    pub fn take(self, document: &mut Document<'_>) -> Result<Option<(HeaderTexts, Inserted)>, JsonError> {
        let line = document.line;
        let damaged = || JsonError::DamagedHeader { line, reason: "the header of the document is damaged" };
        let Some(index) = self.index(document)? else { return Ok(None) };
        let text = document.text;
        let tree = document.tree_mut();
        let (header, place) = match index {
            Index::Member(member) => {
                tree.hide(member);
                (of_member(tree, member), Inserted::Member(tree.span(member)))
            }
            Index::Item(array, item) => {
                tree.hide(item);
                let header = of_entry(tree, item);
                if tree.children(array).next().is_none() {
                    tree.hide(array);
                    (header, Inserted::Member(tree.span(array)))
                } else {
                    (header, Inserted::Item(item_with_comma(text, tree.span(item))))
                }
            }
        };
        Ok(Some((header.ok_or_else(damaged)?, place)))
    }

    fn index(self, document: &Document<'_>) -> Result<Option<Index>, JsonError> {
        let tree = &document.tree;
        let member = tree.member(0, MEMBER).map(Index::Member);
        let array = tree.member(0, EXTENSION).filter(|_| self.0 == HeaderPlace::FhirExtension);
        let items = array.filter(|array| tree.kind(*array) == Kind::Array).into_iter();
        let items = items.flat_map(|array| tree.children(array).map(move |item| Index::Item(array, item)));
        let is_ours = |found: &Index| match found {
            Index::Member(_) => true,
            Index::Item(_, item) => tree.member(*item, "url").is_some_and(|url| tree.is_text(url, URL)),
        };
        let mut found = member.into_iter().chain(items).filter(is_ours);
        match (found.next(), found.next()) {
            (_, Some(_)) => {
                // F-18.6-6.
                Err(JsonError::DamagedHeader { line: document.line, reason: "the document has two headers" })
            }
            (found, None) => Ok(found),
        }
    }
}

/// What was inserted into a document.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Inserted {
    /// A member: where its value is.
    Member(Range<usize>),
    /// An item of an array: where it is, with its comma.
    Item(Range<usize>),
}

enum Index {
    Member(NodeId),
    /// The array, and the item.
    Item(NodeId, NodeId),
}

fn push_member(header: &HeaderTexts, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"_keyfold\":{\"document\":");
    push_string(&header.document, out);
    if let Some(manifest) = &header.manifest {
        out.extend_from_slice(b",\"manifest\":");
        push_string(manifest, out);
    }
    out.push(b'}');
}

fn push_entry(header: &HeaderTexts, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"{\"url\":\"urn:keyfold:document:v1\",\"extension\":[{\"url\":\"document\",\"valueString\":",
    );
    push_string(&header.document, out);
    if let Some(manifest) = &header.manifest {
        out.extend_from_slice(b"},{\"url\":\"manifest\",\"valueString\":");
        push_string(manifest, out);
    }
    out.extend_from_slice(b"}]}");
}

fn of_member(tree: &Tree<'_>, member: NodeId) -> Option<HeaderTexts> {
    let document = tree.string(tree.member(member, "document")?)?;
    let manifest = tree.member(member, "manifest").map(|manifest| tree.string(manifest));
    let header = HeaderTexts { document, manifest: manifest.map_or(Some(None), |text| text.map(Some))? };
    (tree.children(member).count() == 1 + usize::from(header.manifest.is_some())).then_some(header)
}

fn of_entry(tree: &Tree<'_>, entry: NodeId) -> Option<HeaderTexts> {
    let list = tree.member(entry, EXTENSION).filter(|list| tree.kind(*list) == Kind::Array)?;
    let parts = tree.children(list).count();
    let text = |at: usize, url: &str| {
        let part = tree.item(list, at).filter(|part| tree.children(*part).count() == 2)?;
        tree.is_text(tree.member(part, "url")?, url).then(|| tree.string(tree.member(part, "valueString")?))?
    };
    let manifest = if parts == 2 { Some(text(1, "manifest")?) } else { None };
    (tree.children(entry).count() == 2 && parts <= 2)
        .then_some(HeaderTexts { document: text(0, "document")?, manifest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::splice;

    fn header(manifest: bool) -> HeaderTexts {
        HeaderTexts { document: "kf1.05".into(), manifest: manifest.then(|| "m".into()) }
    }

    fn parse(text: &str) -> Document<'_> {
        Document::parse(text.as_bytes(), 1).expect("JSON")
    }

    type Change = (Range<usize>, Vec<u8>);

    /// What puts a header into a document of which nothing is replaced.
    fn insertion(place: Place, document: &Document<'_>, header: &HeaderTexts) -> Result<Change, JsonError> {
        let mut text = Vec::new();
        let at = place.insert(document, &Selection::default(), header, &mut text)?;
        Ok((at..at, text))
    }

    fn changed(text: &str, change: Change) -> String {
        let mut out = Vec::new();
        splice(text.as_bytes(), [change], &mut out).expect("one change");
        String::from_utf8(out).expect("UTF-8")
    }

    fn removal(text: &str, inserted: Inserted) -> Change {
        let span = match inserted {
            Inserted::Member(value) => crate::span::removals(text, vec![value]).remove(0),
            Inserted::Item(span) => span,
        };
        (span, Vec::new())
    }

    const DOCUMENTS: [&str; 10] = [
        "{}",
        " { \n} ",
        r#"{"a":1}"#,
        "{\n  \"a\" : [1, {}],\n  \"z\": null\n}\n",
        r#"{"extension":[{"url":"x"}]}"#,
        r#"{"extension":[]}"#,
        r#"{"extension":"kf1d.x","a":1}"#,
        "{\"a\":1,\n \"extension\" : [ {\"url\":\"x\"} , 2\n ] }",
        r#"{"extension":[[1,"]"]],"b":"\"_keyfold\":"}"#,
        r#"{"a":{"_keyfold":{"document":"other"}}}"#,
    ];

    #[test]
    fn what_was_put_in_is_taken_out_again() {
        for place in [HeaderPlace::Member, HeaderPlace::FhirExtension].map(Place) {
            for (text, manifest) in DOCUMENTS.into_iter().flat_map(|text| [(text, true), (text, false)]) {
                let with = changed(text, insertion(place, &parse(text), &header(manifest)).expect("it has a place"));
                let mut document = parse(&with);
                assert!(place.refuse_header(&document).is_err(), "twice: {with}");
                let (found, inserted) = place.take(&mut document).expect("good").expect("there");
                assert_eq!(found, header(manifest));
                let change = removal(&with, inserted);
                assert_eq!(document.value(), parse(text).value(), "{with}");
                assert_eq!(changed(&with, change), text);
                assert!(place.take(&mut parse(text)).expect("good").is_none());
            }
        }
        let place = Place(HeaderPlace::FhirExtension);
        for text in ["[]", "1"] {
            assert!(insertion(place, &parse(text), &header(true)).is_err(), "{text}");
        }
    }

    #[test]
    fn other_spellings_are_read_and_other_contents_are_not() {
        let member = Place(HeaderPlace::Member);
        for (text, without) in [
            ("{ \"a\" : 1 , \"_keyfold\" : { \"manifest\" : \"m\", \"document\":\"kf1.05\"} }", "{ \"a\" : 1  }"),
            (r#"{"_keyf\u006fld":{"document":"kf1.05","manifest":"m"},"a":1}"#, r#"{"a":1}"#),
            ("{\n \"_keyfold\":{\"document\":\"kf1.05\",\"manifest\":\"m\"} }", "{\n  }"),
        ] {
            let (found, inserted) = member.take(&mut parse(text)).expect("good").expect("there");
            let change = removal(text, inserted);
            assert_eq!((found, changed(text, change)), (header(true), without.to_owned()));
        }
        for wrong in [
            r#"{"_keyfold":1}"#,
            r#"{"_keyfold":{}}"#,
            r#"{"_keyfold":{"document":1}}"#,
            r#"{"_keyfold":{"document":"x","manifest":1}}"#,
            r#"{"_keyfold":{"document":"x","more":"y"}}"#,
        ] {
            assert!(matches!(member.take(&mut parse(wrong)), Err(JsonError::DamagedHeader { .. })), "{wrong}");
        }
        let entry = |parts: &str| format!(r#"{{"extension":[{{"url":"{URL}","extension":[{parts}]}}]}}"#);
        let good = r#"{"url":"document","valueString":"x"}"#;
        let place = Place(HeaderPlace::FhirExtension);
        assert!(place.take(&mut parse(&entry(good))).expect("good").is_some());
        for wrong in ["", r#"{"url":"manifest","valueString":"x"}"#, &format!("{good},{good}"), &format!("{good},1,2")]
        {
            assert!(matches!(place.take(&mut parse(&entry(wrong))), Err(JsonError::DamagedHeader { .. })), "{wrong}");
        }
        let twice = format!(r#"{{"extension":[{{"url":"{URL}"}},{{"url":"{URL}"}}]}}"#);
        assert!(place.take(&mut parse(&twice)).is_err());
        let both = format!(r#"{{"_keyfold":{{"document":"x"}},"extension":[{{"url":"{URL}","extension":[{good}]}}]}}"#);
        assert!(place.take(&mut parse(&both)).is_err());
    }
}
