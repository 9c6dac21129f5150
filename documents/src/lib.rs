//! JSON documents that are protected and revealed by policy: [`DocumentCipher`], and what it stands on.
//!
//! - [`Document`], [`JsonRules`], [`Place`] and [`splice`] find values by path and replace them in place. They know no keys. A text is
//!   parsed to evaluate paths on it, but never written from what was parsed: only the bytes of the replaced values change, so numbers,
//!   escapes, key order and white space survive.
//! - [`FieldKeys`] and [`FieldCipher`] are the fields of a policy with their keys, for columns of values of any format.
//!
//! No error and no `Debug` output contains what a JSON token holds; they name lines, columns, rules and the paths of the policy.

#![forbid(unsafe_code)]

mod cipher;
mod condition;
mod document_error;
mod erased;
mod error;
mod field;
mod filter;
mod header;
mod locate;
mod matcher;
mod path;
mod scalars;
mod shape;
mod simple;
mod span;
mod tree;
mod value;

pub use cipher::{
    Changed, DocumentCipher, DocumentCounts, DocumentOptions, DocumentText, EXACT_BITS, MAX_TEXT_LEN, RowMap,
    Transformed, UNMATCHED, count_sealed,
};
pub use condition::Conditions;
pub use document_error::{Cause, DocumentError};
pub use error::JsonError;
pub use field::{
    Direction, FieldCipher, FieldIndex, FieldKeys, FieldTokens, IS_TOKEN, LOOKS_SEALED, Locator, Protected, Resealed,
    Resealer, Revealed, SharedTokens, TokenStore, Used, push_sealed, same,
};
pub use header::{HeaderTexts, Inserted, Place};
pub use locate::{JsonRules, Located};
pub use simple::Coverage;

use keyfold::{Error, ErrorKind};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use serde_json::Value;
use tree::{Kind, NodeId, Tree};

/// Most values in a line: what a line means takes far more memory than what it says.
pub const MAX_VALUES: usize = 1 << 17;

/// A line of JSON: its text, and what it means.
///
/// Has no `Debug`: it holds plaintext.
pub struct Document<'a> {
    text: &'a str,
    tree: Tree<'a>,
    /// What the tree means, if somebody wants to know.
    value: OnceLock<Value>,
    line: u64,
    /// Where the text starts in that of the line.
    offset: usize,
}

impl<'a> Document<'a> {
    /// Parses the content of line `line` (from 1, for messages).
    ///
    /// # Errors
    ///
    /// - [`NotUtf8`](JsonError::NotUtf8), [`Invalid`](JsonError::Invalid).
    /// - [`TooManyValues`](JsonError::TooManyValues).
    /// - [`DuplicateMember`](JsonError::DuplicateMember): readers differ in which of the two they
    ///   see, and the one that paths do not see would stay in clear.
    pub fn parse(content: &'a [u8], line: u64) -> Result<Self, JsonError> {
        let text = std::str::from_utf8(content)
            .map_err(|error| JsonError::NotUtf8 { line, column: error.valid_up_to() + 1 })?;
        if has_too_many_values(content) {
            return Err(JsonError::TooManyValues { line });
        }
        let tree = match Tree::parse(text) {
            Some(tree) => tree,
            None => {
                let what = value::parse(text).err().map(|error| JsonError::of_parser(&error, line));
                let reason = "longer than 4 GiB".to_owned();
                return Err(what.unwrap_or(JsonError::Invalid { line, column: 1, reason }));
            }
        };
        Ok(Self { text, tree, value: OnceLock::new(), line, offset: 0 })
    }

    /// What the line means. Large numbers have lost digits here.
    pub fn value(&self) -> &Value {
        self.value.get_or_init(|| self.tree.to_value())
    }

    /// A value as a document of its own.
    fn part(&self, node: NodeId) -> Self {
        let span = self.tree.span(node);
        let (tree, offset) = (self.tree.part(node), self.offset + span.start);
        Self { text: &self.text[span], tree, value: OnceLock::new(), line: self.line, offset }
    }

    /// The tree, to be changed.
    fn tree_mut(&mut self) -> &mut Tree<'a> {
        self.value = OnceLock::new();
        &mut self.tree
    }

    /// The line as written, without its terminator.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Where the document starts in the line: 0, unless it was [taken](JsonRules::take) out of another one.
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// Takes a member of the object that the document is out of what it means, so that no path leads there; its text is left. Returns
    /// where the value is in that; `None`: there is no such member.
    pub fn take_member(&mut self, name: &str) -> Option<Range<usize>> {
        let member = self.tree.member(0, name)?;
        self.tree_mut().hide(member);
        Some(self.tree.span(member))
    }

    /// Whether the object that the document is has a member of this name.
    pub(crate) fn has_member(&self, name: &str) -> bool {
        self.tree.member(0, name).is_some()
    }

    pub(crate) fn is_object(&self) -> bool {
        self.tree.kind(0) == Kind::Object
    }

    /// The token at `span`, as [`JsonRules::locate`] found it.
    ///
    /// # Errors
    ///
    /// [`Invalid`](JsonError::Invalid): there is no JSON value at this place.
    pub fn token(&self, span: Range<usize>) -> Result<Token<'a>, JsonError> {
        let column = span.start + 1;
        let invalid = || JsonError::Invalid { line: self.line, column, reason: "no value here".to_owned() };
        let raw = self.text.get(span.clone()).ok_or_else(invalid)?;
        match self.tree.at(&span) {
            Some(node) => Ok(self.token_of(node)),
            None => Token::parse(raw).ok_or_else(invalid),
        }
    }

    /// The token of a value.
    pub(crate) fn token_of(&self, node: NodeId) -> Token<'a> {
        let raw = &self.text[self.tree.span(node)];
        match self.tree.kind(node) {
            Kind::Object => Token::Object(raw),
            Kind::Array => Token::Array(raw),
            Kind::Number => Token::Number(raw),
            Kind::String if !self.tree.has_escapes(node) => {
                Token::String { text: raw[1..raw.len() - 1].into(), raw, canonical: true }
            }
            Kind::String | Kind::Bool | Kind::Null => Token::parse(raw).expect("it was read as a value before"),
        }
    }
}

/// Whether a text has more values than are read.
fn has_too_many_values(content: &[u8]) -> bool {
    // Every value but the first follows one of these; inside of strings they count as well, which is on the safe side.
    let values = || content.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
    content.len() > MAX_VALUES && values() > MAX_VALUES
}

/// A JSON value as written.
#[derive(Clone, Eq, PartialEq)]
pub enum Token<'a> {
    /// A string.
    String {
        /// What it says.
        text: Cow<'a, str>,
        /// With quotes and escapes.
        raw: &'a str,
        /// Whether our serialiser writes `text` as `raw`, so that `text` alone restores the bytes.
        canonical: bool,
    },
    /// A number, as its literal.
    Number(&'a str),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
    /// An array, raw.
    Array(&'a str),
    /// An object, raw.
    Object(&'a str),
}

impl<'a> Token<'a> {
    /// Reads a single JSON value that fills `raw`; `None` if it is none.
    pub fn parse(raw: &'a str) -> Option<Self> {
        // Nearly all values: a string that needs no escapes, and so has one spelling.
        if let Some(text) = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'))
            && tree::plain_len(text.as_bytes()) == text.len()
        {
            return Some(Self::String { text: text.into(), raw, canonical: true });
        }
        // Refuses white space and anything else around the value. Cheap next to what follows.
        let value: &serde_json::value::RawValue = serde_json::from_str(raw).ok()?;
        if value.get() != raw {
            return None;
        }
        Some(match raw.as_bytes().first()? {
            b'"' => {
                let text: String = serde_json::from_str(raw).ok()?;
                let canonical = serde_json::to_string(&text).is_ok_and(|written| written == raw);
                Self::String { text: text.into(), raw, canonical }
            }
            b't' => Self::Bool(true),
            b'f' => Self::Bool(false),
            b'n' => Self::Null,
            b'[' => Self::Array(raw),
            b'{' => Self::Object(raw),
            _ => Self::Number(raw),
        })
    }
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::String { text: _, raw: _, canonical: _ } => "String(..)",
            Self::Number(_) => "Number(..)",
            Self::Bool(_) => "Bool(..)",
            Self::Null => "Null",
            Self::Array(_) => "Array(..)",
            Self::Object(_) => "Object(..)",
        })
    }
}

/// Appends `text` to `out` as a JSON string, in the one spelling that
/// [`canonical`](Token::String::canonical) speaks of.
pub fn push_string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a string is always JSON and memory takes all writes");
}

/// Bytes of what [`push_string`] appends.
pub(crate) fn string_len(text: &str) -> usize {
    let len = |byte: u8| match byte {
        b'"' | b'\\' | 0x08 | b'\t' | b'\n' | 0x0C | b'\r' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    2 + text.bytes().map(len).sum::<usize>()
}

/// Appends `line` to `out` with the given spans replaced, and every other byte as it is. Spans are in ascending order.
///
/// # Errors
///
/// [`PolicyRefused`](ErrorKind::PolicyRefused): two spans overlap, or one reaches past the end; `out` is then of no use.
pub fn splice<T: AsRef<[u8]>>(
    line: &[u8],
    replacements: impl IntoIterator<Item = (Range<usize>, T)>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let overlap = || Error::new(ErrorKind::PolicyRefused, "a value that is replaced is a part of another one");
    let mut copied = 0;
    for (span, new) in replacements {
        out.extend_from_slice(line.get(copied..span.start).ok_or_else(overlap)?);
        out.extend_from_slice(new.as_ref());
        copied = span.end;
    }
    out.extend_from_slice(line.get(copied..).ok_or_else(overlap)?);
    Ok(())
}

#[cfg(test)]
mod tests;
