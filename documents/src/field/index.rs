//! Tokens of indexes beside the values that they find.

use keyfold::{Error, Field, FieldPolicy, Indexer, RowError, Token, Value};

/// An index that has a column or a member of its own in files.
pub struct FieldIndex {
    column: String,
    indexer: Indexer,
}

impl FieldIndex {
    /// Those of a field.
    pub(super) fn of(policy: &FieldPolicy, field: &Field) -> Result<Vec<Self>, Error> {
        let with_column = policy.indexes.iter().filter_map(|index| Some((index, index.column.clone()?)));
        let made = with_column.map(|(index, column)| {
            let indexer = pollster::block_on(field.clone().indexer(&index.name))?;
            Ok(Self { column, indexer })
        });
        made.collect()
    }

    /// The column or member.
    #[must_use]
    pub fn column(&self) -> &str {
        &self.column
    }

    /// The tokens of each value of a batch, and how many values the index cannot take, which the policy leaves without one.
    ///
    /// # Errors
    ///
    /// As for [`Indexer::ready`] and [`Indexer::tokens_column`].
    pub fn tokens(&self, values: &[Value<'_>]) -> Result<(Vec<Vec<Token>>, u64), RowError> {
        pollster::block_on(self.indexer.ready())?;
        let tokens = self.indexer.tokens_column(values)?;
        let without = values.iter().zip(&tokens).filter(|(_, tokens)| tokens.is_empty());
        let skipped = without.filter(|(value, _)| self.indexer.index().skips(value)).count() as u64;
        Ok((tokens, skipped))
    }

    /// The bits of its tokens.
    #[must_use]
    pub fn bits(&self) -> u16 {
        self.indexer.index().bits
    }

    /// Whether a value may have several tokens, so that they always stand as a list.
    #[must_use]
    pub fn is_list(&self) -> bool {
        self.indexer.index().tokens_per_value() > 1
    }
}
