//! The header of a protected document in its JSON (FORMAT.md §18.6): put in, found, and taken out with every other byte as it was.

use super::{Document, JsonError, push_string};
use keyfold::HeaderPlace;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::fmt;
use std::ops::Range;

const MEMBER: &str = "_keyfold";
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

/// A change of a document's text: what the span is replaced by.
pub type Change = (Range<usize>, Vec<u8>);

/// Where the header stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place(pub HeaderPlace);

impl Place {
    /// What puts `header` into `document`, which must have none.
    ///
    /// # Errors
    ///
    /// - [`Header`](JsonError::Header): the document is no object, has a header already, or a member `extension` that is no array
    ///   with items.
    pub fn insert(self, document: &Document<'_>, header: &HeaderTexts) -> Result<Change, JsonError> {
        let wrong = |reason| JsonError::Header { line: document.line, reason };
        let Value::Object(members) = &document.value else { return Err(wrong("a document is a JSON object")) };
        if self.index(document)?.is_some() {
            return Err(wrong("the document has a header already, so it is protected"));
        }
        let mut text = Vec::new();
        let behind_brace = |text: Vec<u8>| {
            let at = document.text.find('{').map_or(0, |at| at + 1);
            let mut text = text;
            if !members.is_empty() {
                text.push(b',');
            }
            Ok((at..at, text))
        };
        match (self.0, members.get(EXTENSION)) {
            (HeaderPlace::FhirExtension, Some(Value::Array(items))) if !items.is_empty() => {
                let last = item_span(document, items.len() - 1)
                    .ok_or_else(|| wrong("the array extension has no last item"))?;
                text.push(b',');
                push_entry(header, &mut text);
                Ok((last.end..last.end, text))
            }
            (HeaderPlace::FhirExtension, Some(_)) => {
                Err(wrong("the member extension is no array with items, as FHIR has it, so the header has no place"))
            }
            (HeaderPlace::FhirExtension, None) => {
                text.extend_from_slice(b"\"extension\":[");
                push_entry(header, &mut text);
                text.push(b']');
                behind_brace(text)
            }
            (_, _) => {
                text.extend_from_slice(b"\"_keyfold\":{\"document\":");
                push_string(&header.document, &mut text);
                if let Some(manifest) = &header.manifest {
                    text.extend_from_slice(b",\"manifest\":");
                    push_string(manifest, &mut text);
                }
                text.push(b'}');
                behind_brace(text)
            }
        }
    }

    /// Takes the header out of what `document` means, so that paths lead as if it were not there; its text is left. Returns what the
    /// header says, and the change that takes it out of the text.
    ///
    /// # Errors
    ///
    /// - [`Header`](JsonError::Header): two headers, or one with other members.
    pub fn take(self, document: &mut Document<'_>) -> Result<Option<(HeaderTexts, Change)>, JsonError> {
        let line = document.line;
        let damaged = || JsonError::Header { line, reason: "the header of the document is damaged [200 Malformed]" };
        let Some(index) = self.index(document)? else { return Ok(None) };
        let (header, span) = match index {
            Index::Member => {
                let value = document.value.as_object_mut().and_then(|members| members.remove(MEMBER));
                (
                    value.and_then(|value| of_member(&value)),
                    member_span(document.text, MEMBER).map(|span| with_comma(document.text, span)),
                )
            }
            Index::Item(at) => {
                let span = item_span(document, at);
                let items = document.value.get_mut(EXTENSION).and_then(Value::as_array_mut).ok_or_else(damaged)?;
                let header = of_entry(&items.remove(at));
                if items.is_empty() {
                    document.value.as_object_mut().map(|members| members.remove(EXTENSION));
                    (header, member_span(document.text, EXTENSION).map(|span| with_comma(document.text, span)))
                } else {
                    (header, span.map(|span| item_with_comma(document.text, span)))
                }
            }
        };
        let header = header.ok_or_else(damaged)?;
        Ok(Some((header, (span.ok_or_else(damaged)?, Vec::new()))))
    }

    fn index(self, document: &Document<'_>) -> Result<Option<Index>, JsonError> {
        match self.0 {
            HeaderPlace::FhirExtension => {
                let items = document.value.get(EXTENSION).and_then(Value::as_array);
                let ours = |item: &Value| item.get("url").and_then(Value::as_str) == Some(URL);
                let mut found =
                    items.into_iter().flatten().enumerate().filter(|(_, item)| ours(item)).map(|(at, _)| at);
                match (found.next(), found.next()) {
                    (_, Some(_)) => Err(JsonError::Header {
                        line: document.line,
                        reason: "the document has two headers [200 Malformed]",
                    }),
                    (found, None) => Ok(found.map(Index::Item)),
                }
            }
            _ => Ok(document.value.get(MEMBER).map(|_| Index::Member)),
        }
    }
}

enum Index {
    Member,
    Item(usize),
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

fn of_member(value: &Value) -> Option<HeaderTexts> {
    let members = value.as_object()?;
    let text = |name| members.get(name).map(|value| value.as_str().map(str::to_owned));
    let (document, manifest) = (text("document")??, text("manifest"));
    let header = HeaderTexts { document, manifest: manifest.map_or(Some(None), |text| text.map(Some))? };
    (members.len() == 1 + usize::from(header.manifest.is_some())).then_some(header)
}

fn of_entry(entry: &Value) -> Option<HeaderTexts> {
    let parts = entry.get("extension")?.as_array()?;
    let text = |at: usize, url: &str| {
        let part = parts.get(at)?.as_object().filter(|part| part.len() == 2)?;
        (part.get("url")?.as_str()? == url).then(|| part.get("valueString")?.as_str().map(str::to_owned))?
    };
    let manifest = if parts.len() == 2 { Some(text(1, "manifest")?) } else { None };
    (entry.as_object()?.len() == 2 && parts.len() <= 2)
        .then_some(HeaderTexts { document: text(0, "document")?, manifest })
}

/// The member `name` of the object `text`, from its name to the end of its value; `None` if its name is spelled with escapes.
fn member_span(text: &str, name: &str) -> Option<Range<usize>> {
    let value = value_span(text, name)?;
    let before = text[..value.start].trim_end().strip_suffix(':')?.trim_end();
    let start = before.strip_suffix('"')?.strip_suffix(name)?.strip_suffix('"')?.len();
    Some(start..value.end)
}

/// The span, and the comma that separates it from what follows, or from what is before it.
fn with_comma(text: &str, span: Range<usize>) -> Range<usize> {
    let behind = text[span.end..].trim_start();
    if behind.starts_with(',') {
        return span.start..text.len() - behind.len() + 1;
    }
    item_with_comma(text, span)
}

/// The span, and the comma before it, or else the one behind.
fn item_with_comma(text: &str, span: Range<usize>) -> Range<usize> {
    if let Some(before) = text[..span.start].trim_end().strip_suffix(',') {
        return before.len()..span.end;
    }
    let behind = text[span.end..].trim_start();
    if behind.starts_with(',') { span.start..text.len() - behind.len() + 1 } else { span }
}

/// Where the value of the member `name` of the object `text` is.
fn value_span(text: &str, name: &str) -> Option<Range<usize>> {
    let raw = serde_json::Deserializer::from_str(text).deserialize_map(FindMember(name)).ok()??;
    span_of(text, raw)
}

/// Where the item `index` of the member `extension` is.
fn item_span(document: &Document<'_>, index: usize) -> Option<Range<usize>> {
    let array = value_span(document.text, EXTENSION)?;
    let text = &document.text[array.clone()];
    let raw = serde_json::Deserializer::from_str(text).deserialize_seq(FindItem(index)).ok()??;
    let span = span_of(text, raw)?;
    Some(array.start + span.start..array.start + span.end)
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
    use crate::splice;

    fn header(manifest: bool) -> HeaderTexts {
        HeaderTexts { document: "kf1.05".into(), manifest: manifest.then(|| "m".into()) }
    }

    fn parse(text: &str) -> Document<'_> {
        Document::parse(text.as_bytes(), 1).expect("JSON")
    }

    fn changed(text: &str, change: Change) -> String {
        let mut out = Vec::new();
        splice(text.as_bytes(), [change], &mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    const DOCUMENTS: [&str; 8] = [
        "{}",
        " { \n} ",
        r#"{"a":1}"#,
        "{\n  \"a\" : [1, {}],\n  \"z\": null\n}\n",
        r#"{"extension":[{"url":"x"}]}"#,
        "{\"a\":1,\n \"extension\" : [ {\"url\":\"x\"} , 2\n ] }",
        r#"{"extension":[[1,"]"]],"b":"\"_keyfold\":"}"#,
        r#"{"a":{"_keyfold":{"document":"other"}}}"#,
    ];

    #[test]
    fn what_was_put_in_is_taken_out_again() {
        for place in [HeaderPlace::Member, HeaderPlace::FhirExtension].map(Place) {
            for (text, manifest) in DOCUMENTS.into_iter().flat_map(|text| [(text, true), (text, false)]) {
                let with = changed(text, place.insert(&parse(text), &header(manifest)).expect("it has a place"));
                let mut document = parse(&with);
                assert!(place.insert(&document, &header(manifest)).is_err(), "twice: {with}");
                let (found, change) = place.take(&mut document).expect("good").expect("there");
                assert_eq!(found, header(manifest));
                assert_eq!(document.value, parse(text).value, "{with}");
                assert_eq!(changed(&with, change), text);
                assert!(place.take(&mut parse(text)).expect("good").is_none());
            }
        }
        let place = Place(HeaderPlace::FhirExtension);
        for text in ["[]", "1", r#"{"extension":[]}"#, r#"{"extension":{}}"#] {
            assert!(place.insert(&parse(text), &header(true)).is_err(), "{text}");
        }
    }

    #[test]
    fn other_spellings_are_read_and_other_contents_are_not() {
        let member = Place(HeaderPlace::Member);
        for (text, without) in [
            ("{ \"a\" : 1 , \"_keyfold\" : { \"manifest\" : \"m\", \"document\":\"kf1.05\"} }", "{ \"a\" : 1  }"),
            ("{\n \"_keyfold\":{\"document\":\"kf1.05\",\"manifest\":\"m\"} }", "{\n  }"),
        ] {
            let (found, change) = member.take(&mut parse(text)).expect("good").expect("there");
            assert_eq!((found, changed(text, change)), (header(true), without.to_owned()));
        }
        for wrong in [
            r#"{"_keyfold":1}"#,
            r#"{"_keyfold":{}}"#,
            r#"{"_keyfold":{"document":1}}"#,
            r#"{"_keyfold":{"document":"x","manifest":1}}"#,
            r#"{"_keyfold":{"document":"x","more":"y"}}"#,
            r#"{"_keyf\u006fld":{"document":"x"}}"#,
        ] {
            assert!(matches!(member.take(&mut parse(wrong)), Err(JsonError::Header { .. })), "{wrong}");
        }
        let entry = |parts: &str| format!(r#"{{"extension":[{{"url":"{URL}","extension":[{parts}]}}]}}"#);
        let good = r#"{"url":"document","valueString":"x"}"#;
        let place = Place(HeaderPlace::FhirExtension);
        assert!(place.take(&mut parse(&entry(good))).expect("good").is_some());
        for wrong in ["", r#"{"url":"manifest","valueString":"x"}"#, &format!("{good},{good}"), &format!("{good},1,2")]
        {
            assert!(matches!(place.take(&mut parse(&entry(wrong))), Err(JsonError::Header { .. })), "{wrong}");
        }
        let twice = format!(r#"{{"extension":[{{"url":"{URL}"}},{{"url":"{URL}"}}]}}"#);
        assert!(place.take(&mut parse(&twice)).is_err());
    }
}
