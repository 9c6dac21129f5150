//! Random tokens in the place of values, which a store holds.

use keyfold::{Error, Field, OpenedColumn, RowError, Value};
use std::sync::Arc;

/// Where tokens are kept, each with the sealed value that it stands for: a table of the application.
pub trait TokenStore: Send + Sync {
    /// What puts tokens in the place of the values of a field.
    ///
    /// # Errors
    ///
    /// Those of acquiring the keys of the field.
    fn of(&self, field: Field) -> Result<Box<dyn FieldTokens>, Error>;
}

/// The tokens of one field. It believes nothing that the store has without a proof by somebody who has the look-up key.
pub trait FieldTokens: Send + Sync {
    /// The token of each value of a batch, made where there is none. The empty text has an empty one.
    ///
    /// # Errors
    ///
    /// With the row: a null, an entry of the store that is not proven, and those of the store and the keys.
    fn protect(&self, values: &[Value<'_>]) -> Result<Vec<String>, RowError>;

    /// The first value of a batch that is a token of the field already, if there is one.
    ///
    /// # Errors
    ///
    /// With the row: an entry of the store that is not proven, and those of the store and the keys.
    fn known(&self, values: &[Value<'_>]) -> Result<Option<usize>, RowError>;

    /// The value of each token of a batch.
    ///
    /// # Errors
    ///
    /// With the row: a text that is no token, one that the store does not have, and as for [`protect`](Self::protect).
    fn reveal(&self, tokens: &[&str]) -> Result<OpenedColumn, RowError>;
}

/// One store for all fields and threads.
pub type SharedTokens = Arc<dyn TokenStore>;
