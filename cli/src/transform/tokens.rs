//! Tokens of indexes beside the values that they find, in files.

use keyfold::Token;

/// The tokens of a CSV cell: none, one, or as PostgreSQL spells an array.
pub(crate) fn cell(is_list: bool, tokens: &[Token]) -> String {
    let text = tokens.iter().map(Token::to_string).collect::<Vec<_>>().join(",");
    if is_list && !tokens.is_empty() { format!("{{{text}}}") } else { text }
}
