//! Files of JSON lines, and files that are one JSON value.

mod lines;
#[cfg(test)]
mod tests;

pub(crate) use keyfold_documents::{
    Document, HeaderTexts, JsonError, JsonRules, Located, Place, Token, push_string, splice,
};
pub(crate) use lines::{LineBatch, LineSource, MAX_LINE_LEN};
