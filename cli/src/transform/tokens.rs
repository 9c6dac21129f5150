//! Tokens of indexes beside the values that they find.

use super::field::RowFailure;
use keyfold::{Field, FieldPolicy, Indexer, Token, Value};

use crate::failure::Failure;

/// An index that has a column of its own in files.
pub(super) struct IndexJob {
    pub(super) column: String,
    indexer: Indexer,
}

impl IndexJob {
    /// Those of a field.
    pub(super) fn of(policy: &FieldPolicy, field: &Field) -> Result<Vec<Self>, Failure> {
        let with_column = policy.indexes.iter().filter_map(|index| Some((index, index.column.clone()?)));
        let jobs = with_column.map(|(index, column)| {
            let indexer = pollster::block_on(field.clone().indexer(&index.name))?;
            Ok(Self { column, indexer })
        });
        jobs.collect()
    }

    /// The tokens of each value of a batch.
    pub(super) fn tokens(&self, values: &[Value<'_>]) -> Result<Vec<Vec<Token>>, RowFailure> {
        Ok(self.indexer.tokens_column(values)?)
    }

    /// Whether a value may have several tokens, so that they always stand as a list.
    pub(super) fn is_list(&self) -> bool {
        self.indexer.index().tokens_per_value() > 1
    }
}

/// The tokens of a CSV cell: none, one, or as PostgreSQL spells an array.
pub(crate) fn cell(is_list: bool, tokens: &[Token]) -> String {
    let text = tokens.iter().map(Token::to_string).collect::<Vec<_>>().join(",");
    if is_list && !tokens.is_empty() { format!("{{{text}}}") } else { text }
}

/// The tokens as JSON: a number, or a text of hexadecimal digits, or a list of them; `null` if there is none.
pub(super) fn json(is_list: bool, tokens: &[Token]) -> String {
    let one = |token: &Token| match token {
        Token::Integer(_) => token.to_string(),
        Token::Bytes(_) => format!("\"{token}\""),
    };
    match tokens {
        [] => "null".to_owned(),
        [token] if !is_list => one(token),
        _ => format!("[{}]", tokens.iter().map(one).collect::<Vec<_>>().join(",")),
    }
}
