//! The delimiters that a message declares, and how texts are spelled with them.

use std::borrow::Cow;

use super::SegmentPath;
use super::{END_BLOCK, START_BLOCK};

/// `|^~\&`, which nearly every message has.
const STANDARD: Delimiters =
    Delimiters { field: b'|', component: b'^', repetition: b'~', escape: b'\\', subcomponent: b'&', truncation: None };

/// The characters that cut a message, of MSH-1 and MSH-2.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Delimiters {
    pub(super) field: u8,
    pub(super) component: u8,
    pub(super) repetition: u8,
    pub(super) escape: u8,
    pub(super) subcomponent: u8,
    /// Since v2.7: at the end of a value it says that the rest was cut off.
    truncation: Option<u8>,
}

/// Why a text has no place in a message.
pub(crate) type Refused = &'static str;

impl Delimiters {
    /// Reads the start of an MSH segment.
    ///
    /// # Errors
    ///
    /// There are none, or they do not cut a message in one way, or occur in sealed values.
    pub(super) fn parse(header: &[u8]) -> Result<Self, Refused> {
        let [b'M', b'S', b'H', field, rest @ ..] = header else { return Err("MSH has no delimiters") };
        let end = rest.iter().position(|byte| byte == field).unwrap_or(rest.len());
        let (component, repetition, escape, subcomponent, truncation) = match rest[..end] {
            [component, repetition, escape, subcomponent] => (component, repetition, escape, subcomponent, None),
            [component, repetition, escape, subcomponent, last] => {
                (component, repetition, escape, subcomponent, Some(last))
            }
            _ => return Err("MSH-2 has 4 or 5 delimiters"),
        };
        let delimiters = Self { field: *field, component, repetition, escape, subcomponent, truncation };
        let all: Vec<u8> = delimiters.own().into_iter().chain(truncation).collect();
        if all.iter().enumerate().any(|(at, byte)| all[..at].contains(byte)) {
            return Err("two delimiters are the same");
        }
        // The last two would be taken for a null, and for white space at the end of a line.
        if !all.iter().all(|&byte| byte.is_ascii_punctuation() && !matches!(byte, b'.' | b'-' | b'_' | b'"')) {
            return Err("a delimiter occurs in sealed values, or is none: it is ASCII punctuation other than . - _ \"");
        }
        Ok(delimiters)
    }

    const fn own(&self) -> [u8; 5] {
        [self.field, self.component, self.repetition, self.escape, self.subcomponent]
    }

    /// Whether `text` has an escape sequence.
    pub(crate) fn has_escape(&self, text: &str) -> bool {
        text.as_bytes().contains(&self.escape)
    }

    /// A value as it stands, but in the standard delimiters: what is sealed does not depend on those of its message.
    ///
    /// # Errors
    ///
    /// A standard delimiter is a character like others in this message, so it would be taken for one.
    pub(crate) fn to_standard<'t>(&self, text: &'t str) -> Result<Cow<'t, str>, Refused> {
        if self.own() == STANDARD.own() {
            return Ok(Cow::Borrowed(text));
        }
        let spelled = text.chars().map(|c| match u8::try_from(c) {
            Ok(byte) if byte == self.component => Ok('^'),
            Ok(byte) if byte == self.subcomponent => Ok('&'),
            Ok(byte) if byte == self.escape => Ok('\\'),
            Ok(byte) if STANDARD.own().contains(&byte) => Err(
                "the value has one of | ^ ~ \\ & as a plain character, which it is not where these are the delimiters",
            ),
            _ => Ok(c),
        });
        spelled.collect::<Result<String, _>>().map(Cow::Owned)
    }

    /// The way back: appends `text` as it stands at `path` of a message with these delimiters.
    ///
    /// # Errors
    ///
    /// There it would be more than one value of that place.
    pub(crate) fn push_standard(&self, text: &str, path: &SegmentPath, out: &mut String) -> Result<(), Refused> {
        for c in text.chars() {
            out.push(match c {
                '^' if path.component.is_none() => char::from(self.component),
                '&' if path.subcomponent.is_none() => char::from(self.subcomponent),
                '\\' => char::from(self.escape),
                c if self.cuts(c) || matches!(c, '^' | '&' | '|' | '~') => {
                    return Err("the value has delimiters or line breaks that would cut it in pieces here; \
                                spelling = \"normalise\" in the policy writes them as escapes");
                }
                c => c,
            });
        }
        Ok(())
    }

    /// What a value without components says: its text without escapes.
    ///
    /// # Errors
    ///
    /// It has components, or an escape sequence that stands for no character.
    pub(crate) fn decode<'t>(&self, text: &'t str) -> Result<Cow<'t, str>, Refused> {
        let bytes = text.as_bytes();
        if bytes.iter().any(|byte| [self.component, self.subcomponent].contains(byte)) {
            return Err(
                "the value has components, so what it says is no single text: name its components in the policy",
            );
        }
        if !self.has_escape(text) {
            return Ok(Cow::Borrowed(text));
        }
        let unknown =
            "the value has an escape sequence that stands for no character; spelling = \"keep\" seals it as it stands";
        let (mut out, mut pieces) = (Vec::with_capacity(bytes.len()), bytes.split(|byte| *byte == self.escape));
        out.extend_from_slice(pieces.next().unwrap_or_default());
        while let Some(sequence) = pieces.next() {
            match sequence {
                b"F" => out.push(self.field),
                b"S" => out.push(self.component),
                b"T" => out.push(self.subcomponent),
                b"R" => out.push(self.repetition),
                b"E" => out.push(self.escape),
                [b'X', digits @ ..] if !digits.is_empty() => {
                    out.extend(data_encoding::HEXUPPER_PERMISSIVE.decode(digits).map_err(|_| unknown)?);
                }
                _ => return Err(unknown),
            }
            // What follows the second escape character; without that one the sequence does not end.
            out.extend_from_slice(pieces.next().ok_or(unknown)?);
        }
        String::from_utf8(out).map(Cow::Owned).map_err(|_| unknown)
    }

    /// The way back: appends `text` with delimiters and line breaks as escapes.
    pub(crate) fn push_encoded(&self, text: &str, out: &mut String) {
        let escape = char::from(self.escape);
        for c in text.chars() {
            let name = match u8::try_from(c) {
                Ok(byte) if byte == self.field => "F",
                Ok(byte) if byte == self.component => "S",
                Ok(byte) if byte == self.subcomponent => "T",
                Ok(byte) if byte == self.repetition => "R",
                Ok(byte) if byte == self.escape => "E",
                Ok(b'\r') => "X0D",
                Ok(b'\n') => "X0A",
                Ok(START_BLOCK) => "X0B",
                Ok(END_BLOCK) => "X1C",
                _ => {
                    out.push(c);
                    continue;
                }
            };
            out.push(escape);
            out.push_str(name);
            out.push(escape);
        }
    }

    /// Whether a character ends a part of a message.
    fn cuts(&self, c: char) -> bool {
        u8::try_from(c).is_ok_and(|byte| self.own().contains(&byte) || is_frame(byte))
    }
}

/// Whether a byte ends segments or messages.
pub(super) const fn is_frame(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n' | START_BLOCK | END_BLOCK)
}
