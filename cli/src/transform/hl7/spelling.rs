//! Values as they are sealed, and as they stand in a message.

use crate::failure::{Exit, Failure};
use crate::files::hl7::{Message, SegmentPath};
use keyfold::{FieldMode, FieldPolicy, Spelling};
use std::borrow::Cow;
use std::ops::Range;

/// A value of a message, spelled as it is sealed: as it stands, in the standard delimiters; or without escapes, where the
/// policy normalises.
pub(super) struct Spelled<'i> {
    text: Cow<'i, str>,
    spelling: Spelling,
    path: &'i SegmentPath,
    message: &'i Message<'i>,
}

impl<'i> Spelled<'i> {
    /// Reads the value at `span`, which `path` selects.
    pub(super) fn read(
        policy: &FieldPolicy,
        path: &'i SegmentPath,
        message: &'i Message<'_>,
        span: Range<usize>,
    ) -> Result<Self, Failure> {
        let wrong = |why| Failure::new(Exit::Data, why);
        let (text, spelling) = (message.text(span).map_err(wrong)?, policy.spelling);
        let text = match spelling {
            Spelling::Normalise => message.delimiters().decode(text),
            Spelling::Keep => match without_escapes(policy) {
                Some(why) if message.delimiters().has_escape(text) => Err(why),
                _ => message.delimiters().to_standard(text),
            },
        };
        Ok(Self { text: text.map_err(wrong)?, spelling, path, message })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// `text` as it stands at the place of this value.
    pub(super) fn spell(&self, text: &str) -> Result<Vec<u8>, Failure> {
        let mut out = String::with_capacity(text.len() + 8);
        let pushed = match self.spelling {
            Spelling::Normalise => {
                self.message.delimiters().push_encoded(text, &mut out);
                Ok(())
            }
            Spelling::Keep => self.message.delimiters().push_standard(text, self.path, &mut out),
        };
        match pushed.and_then(|()| self.message.check_set(&out)) {
            Ok(()) => Ok(out.into_bytes()),
            Err(why) => Err(Failure::new(Exit::Data, why)),
        }
    }
}

/// Why a value that keeps its spelling must have no escapes.
fn without_escapes(policy: &FieldPolicy) -> Option<&'static str> {
    match policy.mode {
        FieldMode::Deterministic { .. } => Some(
            "the value has escapes, so it would not join with others that are spelled without; \
             spelling = \"normalise\" in the policy accepts it",
        ),
        FieldMode::FormatPreserving { .. } => Some(
            "the value has escapes, whose letters and digits would be replaced as well; \
             spelling = \"normalise\" in the policy accepts it",
        ),
        _ => None,
    }
}
