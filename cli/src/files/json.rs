//! Files of JSON lines, and files that are one JSON value.

mod lines;
#[cfg(test)]
mod tests;

pub(crate) use keyfold_documents::{
    Conditions, Document, JsonError, JsonRules, MAX_TEXT_LEN as MAX_LINE_LEN, Place, Token, splice,
};
pub(crate) use lines::{LineBatch, LineSource};
