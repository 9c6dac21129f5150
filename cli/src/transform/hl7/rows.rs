//! What values of messages are bound to.

use super::column::{Column, Identifiers};
use super::{Hl7Job, Item};
use crate::failure::{Exit, Failure, RowFailure};
use crate::files::hl7::{SegmentPath, SegmentRules, segment_id};
use data_encoding::HEXLOWER;
use keyfold::FieldPolicy;
use keyfold_documents::Locator;
use sha2::{Digest, Sha256};
use std::ops::Range;
use zeroize::Zeroizing;

/// The places whose texts are the row binding of a field, in order.
pub(super) struct RowPlaces(Vec<RowPlace>);

enum RowPlace {
    /// The text at a path, which may be missing where it is `optional`; and which rule protects it, if one does.
    Text { path: SegmentPath, optional: bool, rule: Option<usize> },
    /// The texts at a path in all repetitions and all segments of a message, of which there may be none; and which rule protects them.
    Everywhere { path: SegmentPath, rule: Option<usize> },
    /// Which segment of this name it is in a message.
    Segment([u8; 3]),
}

/// What a place is for all values of one message.
struct InMessage {
    /// The segments of its name.
    segments: Vec<usize>,
    /// What is there, of a place that is everywhere.
    everywhere: Zeroizing<String>,
}

impl RowPlaces {
    /// Those of a field; `None`: it is not bound.
    pub(super) fn of(
        field: &FieldPolicy,
        rules: &SegmentRules,
        may_be_row: impl Fn(usize) -> bool,
    ) -> Result<Option<Self>, Failure> {
        let wrong = |why: &str| Failure::new(Exit::Policy, why);
        let Some(places) = Locator::Segments.row(&field.row_binding)? else { return Ok(None) };
        let protects = |path: &SegmentPath| {
            let rule = rules.paths().iter().position(|other| other.overlaps(path));
            match rule {
                Some(rule) if rules.path(rule) != path || !may_be_row(rule) => {
                    let why = "is protected: it must be the same place, of a deterministic field or a token";
                    Err(wrong(&format!("is bound to {path}, but {} {why}", rules.path(rule))))
                }
                _ => Ok(rule),
            }
        };
        let read = |place: &String| {
            if let (Some(id), true) = (segment_id(place), places.len() > 1) {
                return Ok(RowPlace::Segment(id));
            }
            if places.len() > 1 && place.contains("[*]") {
                let path = SegmentPath::parse(&place.replace("[*]", ""))?;
                return match path.place("*", "*") == *place {
                    true => Ok(RowPlace::Everywhere { path, rule: protects(&path)? }),
                    false => Err(wrong(&format!("write {}, not {place}", path.place("*", "*")))),
                };
            }
            let (path, optional) = match place.strip_suffix('?') {
                Some(path) if places.len() > 1 => (path, true),
                _ => (place.as_str(), false),
            };
            let path = SegmentPath::parse(path)?;
            Ok(RowPlace::Text { path, optional, rule: protects(&path)? })
        };
        let places = places.iter().map(read).collect::<Result<Vec<_>, Failure>>()?;
        match places.iter().any(|place| matches!(place, RowPlace::Text { optional: false, .. })) {
            true => Ok(Some(Self(places))),
            false => Err(wrong("a place at least in its row_binding must be a path without a question mark or [*]")),
        }
    }

    /// Whether what this rule selects is among them.
    pub(super) fn is_bound_to(&self, rule: usize) -> bool {
        self.0.iter().any(|place| match place {
            RowPlace::Text { rule: known, .. } | RowPlace::Everywhere { rule: known, .. } => *known == Some(rule),
            RowPlace::Segment(_) => false,
        })
    }

    /// The bytes that a value is bound to: the text of one place, or those of several with their lengths, so that no two lists of
    /// texts give the same.
    fn bytes(texts: &[Zeroizing<String>]) -> Zeroizing<Vec<u8>> {
        let [text] = texts else {
            let mut bytes = Zeroizing::new(Vec::new());
            for text in texts {
                // No message is that long.
                let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
                bytes.extend_from_slice(&len.to_be_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
            return bytes;
        };
        Zeroizing::new(text.as_bytes().to_vec())
    }

    /// The text that stands for places and their texts in turn, of which there may be more than a context has room for.
    fn digest(texts: &[Zeroizing<String>]) -> Zeroizing<String> {
        Zeroizing::new(HEXLOWER.encode(&Sha256::digest(Self::bytes(texts).as_slice())))
    }
}

impl RowPlace {
    fn segment(&self) -> [u8; 3] {
        match self {
            Self::Text { path, .. } | Self::Everywhere { path, .. } => path.segment(),
            Self::Segment(id) => *id,
        }
    }
}

impl Hl7Job {
    /// Whether values are bound to those of `field`.
    pub(super) fn is_bound_to(&self, field: usize) -> bool {
        let rules = (0..self.field_of_rule.len()).filter(|&rule| self.field_of_rule[rule] == field);
        rules.into_iter().any(|rule| self.is_identifier(rule))
    }
}

impl Column<'_> {
    /// The row bindings of the values. A place is that in the segment of the value or in the last one of its name before it, or else
    /// in the first one of the message.
    pub(super) fn bindings(&self, identifiers: &Identifiers) -> Result<Option<Vec<Zeroizing<Vec<u8>>>>, RowFailure> {
        let Some(RowPlaces(places)) = &self.plan.rows[self.field] else { return Ok(None) };
        let mut bindings = Vec::with_capacity(self.places.len());
        // The latest message, and what its places are.
        let mut latest: Option<(usize, Vec<InMessage>)> = None;
        for (row, &(item, index)) in self.places.iter().enumerate() {
            let at = |failure| RowFailure { row: Some(row), failure };
            let known = match latest.take() {
                Some((known, in_message)) if known == item => in_message,
                _ => {
                    let known = places.iter().map(|place| self.in_message(place, item, identifiers));
                    known.collect::<Result<_, _>>().map_err(at)?
                }
            };
            let texts = places.iter().zip(&known);
            let texts = texts.map(|(place, known)| self.text(place, known, item, index, identifiers));
            let texts: Vec<_> = texts.collect::<Result<_, _>>().map_err(at)?;
            bindings.push(RowPlaces::bytes(&texts));
            latest = Some((item, known));
        }
        Ok(Some(bindings))
    }

    /// What a place is for all values of a message.
    fn in_message(&self, place: &RowPlace, item: usize, identifiers: &Identifiers) -> Result<InMessage, Failure> {
        let message = &self.items[item].message;
        let segments = message.segments_of(place.segment());
        let RowPlace::Everywhere { path, rule } = place else {
            return Ok(InMessage { segments, everywhere: Zeroizing::default() });
        };
        let mut texts = Vec::new();
        for (number, &segment) in (1_usize..).zip(&segments) {
            for (repetition, span) in message.each(path, segment) {
                let text = self.clear(span, *rule, item, identifiers);
                let at = |failure: Failure| failure.at(format!("the row binding {}", path.place(number, repetition)));
                texts.extend([Zeroizing::new(path.place(number, repetition)), text.map_err(at)?]);
            }
        }
        Ok(InMessage { segments, everywhere: RowPlaces::digest(&texts) })
    }

    /// The text of a place for one value.
    fn text(
        &self,
        place: &RowPlace,
        known: &InMessage,
        item: usize,
        index: usize,
        identifiers: &Identifiers,
    ) -> Result<Zeroizing<String>, Failure> {
        let Item { message, found } = &self.items[item];
        let located = &found[index];
        let before = known.segments.partition_point(|&segment| segment <= located.segment);
        let (path, optional, rule) = match place {
            RowPlace::Text { path, optional, rule } => (path, *optional, rule),
            RowPlace::Everywhere { .. } => return Ok(known.everywhere.clone()),
            RowPlace::Segment(id) => {
                let path = self.plan.rules.path(located.rule);
                return Ok(Zeroizing::new(match path.segment() == *id {
                    true => path.place(before, located.repetition),
                    false => format!("{}[{before}]", id.escape_ascii()),
                }));
            }
        };
        let wrong = |why: &str| Failure::new(Exit::Data, why);
        let Some(&segment) = known.segments.get(before.saturating_sub(1)) else {
            return match optional {
                true => Ok(Zeroizing::default()),
                false => Err(wrong(&format!("the row binding {path} is not in the message: it has no such segment"))),
            };
        };
        let here = format!("the row binding {path}, in segment {} of the message", segment + 1);
        let Some(span) = message.first(path, segment) else {
            return if optional { Ok(Zeroizing::default()) } else { Err(wrong(&format!("{here}, is empty"))) };
        };
        let text = self.clear(span, *rule, item, identifiers).map_err(|failure| failure.at(&here))?;
        if *text == "\"\"" && !optional { Err(wrong(&format!("{here}, is null"))) } else { Ok(text) }
    }

    /// What stands at `span` of a message in clear, where this rule protects it.
    fn clear(
        &self,
        span: Range<usize>,
        rule: Option<usize>,
        item: usize,
        identifiers: &Identifiers,
    ) -> Result<Zeroizing<String>, Failure> {
        let Item { message, found } = &self.items[item];
        if rule.is_some() {
            let index = found.binary_search_by_key(&span.start, |located| located.span.start);
            let text = index.ok().and_then(|index| identifiers.get(&(item, index)));
            return text.cloned().ok_or_else(|| Failure::new(Exit::Internal, "a protected row binding was not opened"));
        }
        let text = message.text(span).and_then(|text| message.delimiters().to_standard(text));
        let text = text.map_err(|why| Failure::new(Exit::Data, why))?;
        Ok(Zeroizing::new(text.into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::{RowPlaces, Zeroizing};

    // Failure C5
    #[test]
    fn no_two_lists_of_texts_are_bound_alike() {
        let bytes = |texts: &[&str]| {
            let texts: Vec<_> = texts.iter().map(|&text| Zeroizing::new(text.to_owned())).collect();
            RowPlaces::bytes(&texts).to_vec()
        };
        assert_eq!(bytes(&["MRN-1"]), b"MRN-1", "as in other formats");
        assert_eq!(bytes(&["MRN-1", "", "ä"]), b"\0\0\0\x05MRN-1\0\0\0\0\0\0\0\x02\xc3\xa4", "as docs/HL7.md says");
        let lists: [&[&str]; 6] =
            [&["ab", "c"], &["a", "bc"], &["abc", ""], &["", "abc"], &["c", "ab"], &["ab", "c", ""]];
        for (at, list) in lists.iter().enumerate() {
            assert!(lists[at + 1..].iter().all(|other| bytes(other) != bytes(list)), "{list:?}");
        }
    }

    #[test]
    fn all_values_of_a_path_are_bound_as_their_digest() {
        // As docs/HL7.md says, computed with Python's hashlib and struct.
        for (texts, digest) in [
            (&[][..], "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (
                &["MRG[1]-1[1].1", "OLD1", "MRG[1]-1[2].1", "ä"],
                "718716e32b54ecee82cd41a891004a4c627b1ec3f92ae0479712582eecbc65d8",
            ),
        ] {
            let texts: Vec<_> = texts.iter().map(|&text| Zeroizing::new(text.to_owned())).collect();
            assert_eq!(*RowPlaces::digest(&texts), digest);
        }
    }
}
