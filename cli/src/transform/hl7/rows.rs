//! What values of messages are bound to.

use super::column::{Column, Identifiers};
use super::{Hl7Job, Item};
use crate::failure::{Exit, Failure, RowFailure};
use crate::files::hl7::{SegmentPath, SegmentRules, segment_id};
use keyfold::{FieldPolicy, RowBinding};
use zeroize::Zeroizing;

/// The places whose texts are the row binding of a field, in order.
pub(super) struct RowPlaces(Vec<RowPlace>);

enum RowPlace {
    /// The text at a path, which may be missing where it is `optional`; and which rule protects it, if one does.
    Text { path: SegmentPath, optional: bool, rule: Option<usize> },
    /// Which segment of this name it is in a message.
    Segment([u8; 3]),
}

impl RowPlaces {
    /// Those of a field; `None`: it is not bound.
    pub(super) fn of(
        field: &FieldPolicy,
        rules: &SegmentRules,
        is_deterministic: impl Fn(usize) -> bool,
    ) -> Result<Option<Self>, Failure> {
        let wrong = |why: &str| Failure::new(Exit::Policy, why);
        let places = match &field.row_binding {
            RowBinding::Bound { segment: Some(places), .. } => places,
            RowBinding::Bound { segment: None, .. } => {
                return Err(wrong("its row_binding names no HL7 segment; write { segment = … }"));
            }
            _ => return Ok(None),
        };
        let read = |place: &String| {
            if let (Some(id), true) = (segment_id(place), places.len() > 1) {
                return Ok(RowPlace::Segment(id));
            }
            let (path, optional) = match place.strip_suffix('?') {
                Some(path) if places.len() > 1 => (path, true),
                _ => (place.as_str(), false),
            };
            let path = SegmentPath::parse(path)?;
            let rule = rules.paths().iter().position(|other| other.overlaps(&path));
            match rule {
                Some(rule) if *rules.path(rule) != path || !is_deterministic(rule) => {
                    let why = "is protected: it must be the same place, of a deterministic field";
                    Err(wrong(&format!("is bound to {path}, but {} {why}", rules.path(rule))))
                }
                _ => Ok(RowPlace::Text { path, optional, rule }),
            }
        };
        let places = places.iter().map(read).collect::<Result<Vec<_>, Failure>>()?;
        match places.iter().any(|place| matches!(place, RowPlace::Text { optional: false, .. })) {
            true => Ok(Some(Self(places))),
            false => Err(wrong("a place at least in its row_binding must be a path without a question mark")),
        }
    }

    /// Whether what this rule selects is among them.
    pub(super) fn is_bound_to(&self, rule: usize) -> bool {
        self.0.iter().any(|place| matches!(place, RowPlace::Text { rule: Some(known), .. } if *known == rule))
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
}

impl RowPlace {
    fn segment(&self) -> [u8; 3] {
        match self {
            Self::Text { path, .. } => path.segment(),
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
        // The latest message, and per place its segments of that name.
        let mut latest: Option<(usize, Vec<Vec<usize>>)> = None;
        for (row, &(item, index)) in self.places.iter().enumerate() {
            let message = &self.items[item].message;
            let segments = match &mut latest {
                Some((known, segments)) if *known == item => segments,
                _ => {
                    let segments = places.iter().map(|place| message.segments_of(place.segment())).collect();
                    &mut latest.insert((item, segments)).1
                }
            };
            let texts = places.iter().zip(segments.iter());
            let texts = texts.map(|(place, segments)| self.text(place, segments, item, index, identifiers));
            let texts: Vec<_> = texts.collect::<Result<_, _>>().map_err(|failure| RowFailure { row, failure })?;
            bindings.push(RowPlaces::bytes(&texts));
        }
        Ok(Some(bindings))
    }

    /// The text of a place for one value; `segments` are those of its name.
    fn text(
        &self,
        place: &RowPlace,
        segments: &[usize],
        item: usize,
        index: usize,
        identifiers: &Identifiers,
    ) -> Result<Zeroizing<String>, Failure> {
        let Item { message, found } = &self.items[item];
        let located = &found[index];
        let before = segments.partition_point(|&segment| segment <= located.segment);
        let (path, optional, rule) = match place {
            RowPlace::Text { path, optional, rule } => (path, *optional, rule),
            RowPlace::Segment(id) => {
                let path = self.plan.rules.path(located.rule);
                return Ok(Zeroizing::new(match path.segment() == *id {
                    true => path.place(before, located.repetition),
                    false => format!("{}[{before}]", id.escape_ascii()),
                }));
            }
        };
        let wrong = |why: &str| Failure::new(Exit::Data, why);
        let Some(&segment) = segments.get(before.saturating_sub(1)) else {
            return match optional {
                true => Ok(Zeroizing::default()),
                false => Err(wrong(&format!("the row binding {path} is not in the message: it has no such segment"))),
            };
        };
        let wrong =
            |why: &str| wrong(&format!("the row binding {path}, in segment {} of the message, {why}", segment + 1));
        let Some(span) = message.first(path, segment) else {
            return if optional { Ok(Zeroizing::default()) } else { Err(wrong("is empty")) };
        };
        let text = match rule {
            Some(_) => {
                let index = found.binary_search_by_key(&span.start, |located| located.span.start);
                let text = index.ok().and_then(|index| identifiers.get(&(item, index)));
                text.cloned().ok_or_else(|| Failure::new(Exit::Internal, "a protected row binding was not opened"))?
            }
            None => {
                let text = message.text(span).and_then(|text| message.delimiters().to_standard(text)).map_err(wrong)?;
                Zeroizing::new(text.into_owned())
            }
        };
        if *text == "\"\"" && !optional { Err(wrong("is null")) } else { Ok(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::{RowPlaces, Zeroizing};

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
}
