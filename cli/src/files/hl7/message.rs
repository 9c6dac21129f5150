//! One message, cut by its delimiters.

use std::ops::Range;

use super::delimiters::is_frame;
use super::path::{BATCH_SEGMENTS, is_segment_id};
use super::{Delimiters, END_BLOCK, Hl7Error, MAX_VALUES, START_BLOCK, SegmentPath, SegmentRules};
use crate::files::BYTE_ORDER_MARK;

/// A message: its bytes, with what is around them, and where its segments are.
///
/// Has no `Debug`: it holds plaintext.
pub(crate) struct Message<'a> {
    raw: &'a [u8],
    number: u64,
    delimiters: Delimiters,
    /// The values of a character set other than UTF-8 are sealed if they are ASCII.
    ascii_only: bool,
    segments: Vec<Segment>,
}

struct Segment {
    id: [u8; 3],
    /// Without its terminator.
    span: Range<usize>,
}

/// A value: which rule selects it, in which segment it is (from 0), in which repetition (from 1), and its bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Located {
    pub(crate) rule: usize,
    pub(crate) segment: usize,
    pub(crate) repetition: usize,
    pub(crate) span: Range<usize>,
}

/// A line of the file. In a message it is a segment.
struct Line {
    span: Range<usize>,
    end: &'static [u8],
}

impl<'a> Message<'a> {
    /// Parses the message `number` of a file (from 1, for messages); `None` if there are only segments of a batch.
    ///
    /// # Errors
    ///
    /// [`Message`](Hl7Error::Message), [`Segment`](Hl7Error::Segment), [`TooMany`](Hl7Error::TooMany): it is no message, or
    /// readers could cut it in different ways.
    pub(crate) fn parse(raw: &'a [u8], number: u64) -> Result<Option<Self>, Hl7Error> {
        let mut message: Option<Self> = None;
        // Whether the message goes on; how its segments end; whether the latest one did not end so.
        let (mut open, mut terminator, mut odd) = (false, None, false);
        for mut line in lines(raw, number) {
            if raw[line.span.clone()].starts_with(&[START_BLOCK]) {
                line.span.start += 1;
                open = false;
            }
            let ends_block = raw[line.span.clone()].ends_with(&[END_BLOCK]);
            if ends_block {
                line.span.end -= 1;
            }
            let content = &raw[line.span.clone()];
            let segment = message.as_ref().map_or(0, |message| message.segments.len());
            let wrong = |reason| Hl7Error::Segment { message: number, segment: segment + 1, reason };
            if content.iter().any(|&byte| is_frame(byte)) {
                return Err(wrong("a byte that begins or ends messages (hexadecimal 0B, 1C) is inside of a segment"));
            }
            if !content.is_empty() {
                let (id, rest) = content.split_at(content.len().min(3));
                let is_batch = BATCH_SEGMENTS.iter().any(|name| *name == id);
                let separated = |field: u8| rest.first().is_none_or(|&byte| byte == field);
                match &mut message {
                    None if id == b"MSH" => {
                        message = Some(Self::begin(content, raw, number)?);
                        open = true;
                    }
                    _ if is_batch && rest.first().is_none_or(u8::is_ascii_punctuation) => open = false,
                    None => {
                        let reason = "the input does not begin with MSH or the header of a batch: it is no HL7 v2";
                        return Err(Hl7Error::Message { message: number, reason });
                    }
                    Some(_) if !open => return Err(wrong("there is a segment behind the end of the message")),
                    Some(_) if odd => {
                        return Err(wrong(
                            "the segment before ends as no other does: a line break is inside of a value",
                        ));
                    }
                    Some(message) if !is_segment_id(id) || !separated(message.delimiters.field) => {
                        return Err(wrong("it has no name of a segment: a line break may be inside of a value"));
                    }
                    Some(_) if id == b"MSH" => return Err(wrong("it is a second MSH")),
                    Some(_) => {}
                }
                if let (true, Some(message)) = (open, &mut message) {
                    odd = *terminator.get_or_insert(line.end) != line.end;
                    if message.segments.len() == MAX_VALUES {
                        return Err(Hl7Error::TooMany { message: number });
                    }
                    message.segments.push(Segment { id: [id[0], id[1], id[2]], span: line.span });
                }
            }
            open &= !ends_block;
        }
        Ok(message)
    }

    /// Reads the MSH segment.
    fn begin(header: &[u8], raw: &'a [u8], number: u64) -> Result<Self, Hl7Error> {
        let wrong = |reason| Hl7Error::Segment { message: number, segment: 1, reason };
        let delimiters = Delimiters::parse(header).map_err(wrong)?;
        // MSH-1 is the first delimiter itself.
        let character_sets = header.split(|byte| *byte == delimiters.field).nth(17).unwrap_or_default();
        let mut ascii_only = false;
        for set in character_sets.split(|byte| *byte == delimiters.repetition) {
            match set {
                b"" | b"ASCII" | b"UNICODE UTF-8" | b"UNICODE" | b"UTF-8" => {}
                // One byte each, and the lower half is ASCII.
                _ if set.starts_with(b"8859/") => ascii_only = true,
                // In the others a byte that looks like a delimiter may be half a character.
                _ => return Err(wrong("MSH-18 is another character set than ASCII, UTF-8 or 8859: convert the file")),
            }
        }
        Ok(Self { raw, number, delimiters, ascii_only, segments: Vec::new() })
    }

    /// The bytes, with what is around the message.
    pub(crate) const fn raw(&self) -> &'a [u8] {
        self.raw
    }

    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    pub(crate) const fn delimiters(&self) -> &Delimiters {
        &self.delimiters
    }

    /// What the rules select, in the order of the message. What is empty is no value.
    ///
    /// # Errors
    ///
    /// [`TooMany`](Hl7Error::TooMany).
    pub(crate) fn locate(&self, rules: &SegmentRules) -> Result<Vec<Located>, Hl7Error> {
        let mut found = Vec::new();
        for (index, segment) in self.segments.iter().enumerate() {
            let mut wanted = rules.of(segment.id);
            for (number, field) in self.fields(segment) {
                let of_field = wanted.partition_point(|&rule| rules.path(rule).field <= number);
                let (now, later) = wanted.split_at(of_field);
                wanted = later;
                let now = &now[now.partition_point(|&rule| rules.path(rule).field < number)..];
                if !now.is_empty() {
                    for (repetition, whole) in (1..).zip(self.split(field, self.delimiters.repetition)) {
                        let values = now.iter().map(|&rule| (rule, self.part(whole.clone(), rules.path(rule))));
                        let values =
                            values.filter_map(|(rule, span)| Some((rule, span.filter(|span| !span.is_empty())?)));
                        found.extend(values.map(|(rule, span)| Located { rule, segment: index, repetition, span }));
                        if found.len() > MAX_VALUES {
                            return Err(Hl7Error::TooMany { message: self.number });
                        }
                    }
                }
                if wanted.is_empty() {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Hands every value that has no parts to `found`, with its path: that of its field or component where these have one
    /// part only.
    ///
    /// # Errors
    ///
    /// The first of `found`.
    pub(crate) fn walk<E>(&self, mut found: impl FnMut(SegmentPath, &'a [u8]) -> Result<(), E>) -> Result<(), E> {
        for segment in &self.segments {
            for (field, span) in self.fields(segment) {
                for repetition in self.split(span, self.delimiters.repetition) {
                    let composite = self.raw[repetition.clone()].contains(&self.delimiters.component);
                    for (component, span) in (1..).zip(self.split(repetition, self.delimiters.component)) {
                        let deep = self.raw[span.clone()].contains(&self.delimiters.subcomponent);
                        for (subcomponent, value) in (1..).zip(self.split(span, self.delimiters.subcomponent)) {
                            let component = (composite || deep).then_some(component);
                            let subcomponent = deep.then_some(subcomponent);
                            found(
                                SegmentPath { segment: segment.id, field, component, subcomponent },
                                &self.raw[value],
                            )?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The indexes of the segments of this name.
    pub(crate) fn segments_of(&self, id: [u8; 3]) -> Vec<usize> {
        (0..self.segments.len()).filter(|&index| self.segments[index].id == id).collect()
    }

    /// The value of `path` in one of its segments, in the first repetition; `None` if it is not there or empty.
    pub(crate) fn first(&self, path: &SegmentPath, segment: usize) -> Option<Range<usize>> {
        let (_, field) = self.fields(&self.segments[segment]).find(|(number, _)| *number == path.field)?;
        let repetition = self.split(field, self.delimiters.repetition).next()?;
        self.part(repetition, path).filter(|span| !span.is_empty())
    }

    /// The values of `path` in one of its segments, each with its repetition (from 1). What is empty is no value.
    pub(crate) fn each(&self, path: &SegmentPath, segment: usize) -> Vec<(usize, Range<usize>)> {
        let field = self.fields(&self.segments[segment]).find(|(number, _)| *number == path.field);
        let Some((_, field)) = field else { return Vec::new() };
        let repetitions = (1..).zip(self.split(field, self.delimiters.repetition));
        let values = repetitions.filter_map(|(repetition, whole)| Some((repetition, self.part(whole, path)?)));
        values.filter(|(_, span)| !span.is_empty()).collect()
    }

    /// The text at `span`.
    ///
    /// # Errors
    ///
    /// Why it is none.
    pub(crate) fn text(&self, span: Range<usize>) -> Result<&'a str, &'static str> {
        let text = std::str::from_utf8(&self.raw[span]).map_err(|_| "the value is not UTF-8: convert the file")?;
        self.check_set(text)?;
        Ok(text)
    }

    /// Refuses text that the character set of the message does not have.
    pub(crate) fn check_set(&self, text: &str) -> Result<(), &'static str> {
        match self.ascii_only && !text.is_ascii() {
            true => Err("the value is not ASCII, and MSH-18 is not UTF-8: convert the file"),
            false => Ok(()),
        }
    }

    /// The fields of a segment, with their numbers.
    fn fields(&self, segment: &Segment) -> impl Iterator<Item = (u32, Range<usize>)> {
        // MSH-1 is the delimiter itself, and MSH-2 the others: they would cut it.
        let (skip, first) = if segment.id == *b"MSH" { (2, 3) } else { (1, 1) };
        (first..).zip(self.split(segment.span.clone(), self.delimiters.field).skip(skip))
    }

    /// What `path` selects of one repetition of its field.
    fn part(&self, repetition: Range<usize>, path: &SegmentPath) -> Option<Range<usize>> {
        let nth = |number: u32| number as usize - 1;
        let Some(component) = path.component else { return Some(repetition) };
        let component = self.split(repetition, self.delimiters.component).nth(nth(component))?;
        let Some(subcomponent) = path.subcomponent else { return Some(component) };
        self.split(component, self.delimiters.subcomponent).nth(nth(subcomponent))
    }

    /// The pieces between delimiters.
    fn split(&self, span: Range<usize>, delimiter: u8) -> impl Iterator<Item = Range<usize>> + use<'a> {
        let mut start = span.start;
        let raw: &'a [u8] = self.raw;
        raw[span].split(move |byte| *byte == delimiter).map(move |piece| {
            let piece_start = start;
            start += piece.len() + 1;
            piece_start..piece_start + piece.len()
        })
    }
}

/// The lines of a message.
fn lines(raw: &[u8], number: u64) -> impl Iterator<Item = Line> {
    let mut at = if number == 1 && raw.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    std::iter::from_fn(move || {
        let rest = raw.get(at..).filter(|rest| !rest.is_empty())?;
        let len = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(rest.len());
        let end: &'static [u8] = match rest[len..] {
            [b'\r', b'\n', ..] => b"\r\n",
            [b'\r', ..] => b"\r",
            [_, ..] => b"\n",
            [] => b"",
        };
        let span = at..at + len;
        at = span.end + end.len();
        Some(Line { span, end })
    })
}
