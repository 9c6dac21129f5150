//! Random tokens in the place of values, which a store holds.

use super::refused;
use keyfold::{
    Decryptor, Error, ErrorKind, Field, FieldMode, FieldPolicy, OpenedColumn, RowError, Searcher, TokenForm, Value,
};
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

/// Where tokens are kept, each with the sealed value that it stands for: a table of the application.
pub trait TokenStore: Send {
    /// A token for each value of `field` in `partition`, by all forms in which the value may be stored, the current one first. Values
    /// without a token get one from `draw`.
    ///
    /// # Errors
    ///
    /// Those of the store; it is then as it was.
    fn tokens(
        &mut self,
        field: &str,
        partition: &str,
        values: &[Vec<Vec<u8>>],
        draw: &mut dyn FnMut() -> Result<String, Error>,
    ) -> Result<Vec<String>, Error>;

    /// The sealed value of each token; `None` where the store does not have it.
    ///
    /// # Errors
    ///
    /// Those of the store.
    fn values(&mut self, field: &str, partition: &str, tokens: &[&str]) -> Result<Vec<Option<Vec<u8>>>, Error>;
}

/// One store for all fields and threads.
pub type SharedTokens = Arc<Mutex<dyn TokenStore>>;

/// A field whose values have tokens.
pub(super) struct TokenCipher {
    store: SharedTokens,
    field: String,
    partition: String,
    form: TokenForm,
    searcher: Searcher,
    decryptor: Decryptor,
}

impl TokenCipher {
    /// `None`: the field is of another mode.
    pub(super) fn new(
        policy: &FieldPolicy,
        field: &Field,
        tokens: Option<&SharedTokens>,
    ) -> Result<Option<Self>, Error> {
        let FieldMode::Token { partition, form } = &policy.mode else { return Ok(None) };
        let Some(store) = tokens else {
            return Err(Error::new(
                ErrorKind::PolicyRefused,
                "its values have random tokens, and nothing was given that holds them",
            ));
        };
        Ok(Some(Self {
            store: Arc::clone(store),
            field: policy.name.clone(),
            partition: partition.clone(),
            form: *form,
            searcher: pollster::block_on(field.clone().searcher())?,
            decryptor: pollster::block_on(field.clone().decryptor())?,
        }))
    }

    /// The tokens of a batch, made where there are none.
    pub(super) fn protect(&self, values: &[Value<'_>]) -> Result<Vec<Zeroizing<String>>, RowError> {
        let at = |row| move |error| RowError { row, error };
        pollster::block_on(self.searcher.ready()).map_err(at(0))?;
        let forms = |(row, value): (usize, &Value<'_>)| match value {
            Value::Null => Err(refused(row, ErrorKind::InvalidInput, "a null has no token")),
            value => self.searcher.ciphertexts(*value).map_err(at(row)),
        };
        let forms: Vec<Vec<Vec<u8>>> = values.iter().enumerate().map(forms).collect::<Result<_, _>>()?;
        // Its methods leave it as it was where they fail.
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = store.tokens(&self.field, &self.partition, &forms, &mut || self.form.draw()).map_err(at(0))?;
        Ok(tokens.into_iter().map(Zeroizing::new).collect())
    }

    /// The values of a batch of tokens.
    pub(super) fn reveal(&self, tokens: &[&str]) -> Result<OpenedColumn, RowError> {
        let at = |row| move |error| RowError { row, error };
        if let Some(row) = tokens.iter().position(|token| !self.form.fits(&Value::Text(token))) {
            return Err(refused(
                row,
                ErrorKind::InvalidInput,
                "the value is no token; plaintext is never passed through",
            ));
        }
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let sealed = store.values(&self.field, &self.partition, tokens).map_err(at(0))?;
        drop(store);
        let missing = |row| refused(row, ErrorKind::InvalidInput, "the table of tokens does not have the token");
        let found = |(row, value): (usize, Option<Vec<u8>>)| value.ok_or_else(|| missing(row));
        let sealed: Vec<Vec<u8>> = sealed.into_iter().enumerate().map(found).collect::<Result<_, _>>()?;
        pollster::block_on(self.decryptor.load_keys(&sealed[..]))?;
        self.decryptor.decrypt_column(&sealed[..], None::<&[&[u8]]>)
    }
}
