//! Random tokens in the place of values, which a table holds.

use super::Job;
use super::field::RowFailure;
use crate::failure::{Exit, Failure};
use keyfold::{Decryptor, Field, FieldMode, FieldPolicy, OpenedColumn, Searcher, TokenForm, Value};
use keyfold_tables::{TokenSpace, TokenTable};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

/// One table for all fields and threads.
pub(super) type Tokens = Arc<Mutex<TokenTable>>;

/// A field whose values have tokens.
pub(super) struct TokenJob {
    table: Tokens,
    space: TokenSpace,
    form: TokenForm,
    searcher: Searcher,
    decryptor: Decryptor,
}

impl Job<'_> {
    /// The table that `--tokens` names, if any.
    pub(super) fn tokens(&self) -> Result<Option<Tokens>, Failure> {
        let Some(uri) = &self.args.tokens else { return Ok(None) };
        let table = TokenTable::open(uri, Path::new("."), &self.args.token_table);
        Ok(Some(Arc::new(Mutex::new(table?))))
    }
}

impl TokenJob {
    /// `None`: the field is of another mode.
    pub(super) fn new(policy: &FieldPolicy, field: &Field, tokens: Option<&Tokens>) -> Result<Option<Self>, Failure> {
        let FieldMode::Token { partition, form } = &policy.mode else { return Ok(None) };
        let Some(table) = tokens else {
            return Err(Failure::new(
                Exit::Usage,
                "its values have random tokens: --tokens names the database with their table",
            ));
        };
        Ok(Some(Self {
            table: Arc::clone(table),
            space: TokenSpace { field: policy.name.clone(), partition: partition.clone() },
            form: *form,
            searcher: pollster::block_on(field.clone().searcher())?,
            decryptor: pollster::block_on(field.clone().decryptor())?,
        }))
    }

    /// The tokens of a batch, made where there are none.
    pub(super) fn protect(&self, values: &[Value<'_>]) -> Result<Vec<Zeroizing<String>>, RowFailure> {
        let at = |row| move |error: keyfold::Error| RowFailure { row, failure: error.into() };
        pollster::block_on(self.searcher.ready()).map_err(at(0))?;
        let forms = |(row, value): (usize, &Value<'_>)| match value {
            Value::Null => Err(RowFailure::new(row, Exit::Data, "a null has no token")),
            value => self.searcher.ciphertexts(*value).map_err(at(row)),
        };
        let forms: Vec<Vec<Vec<u8>>> = values.iter().enumerate().map(forms).collect::<Result<_, _>>()?;
        // Its methods leave it as it was where they fail.
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = table.tokens(&self.space, &forms, || self.form.draw()).map_err(at(0))?;
        Ok(tokens.into_iter().map(Zeroizing::new).collect())
    }

    /// The values of a batch of tokens.
    pub(super) fn reveal(&self, tokens: &[&str]) -> Result<OpenedColumn, RowFailure> {
        let at = |row| move |error: keyfold::Error| RowFailure { row, failure: error.into() };
        if let Some(row) = tokens.iter().position(|token| !self.form.fits(&Value::Text(token))) {
            return Err(RowFailure::new(row, Exit::Data, "the value is no token; plaintext is never passed through"));
        }
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let sealed = table.values(&self.space, tokens).map_err(at(0))?;
        drop(table);
        let missing = |row| RowFailure::new(row, Exit::Data, "the table of tokens does not have the token");
        let found = |(row, value): (usize, Option<Vec<u8>>)| value.ok_or_else(|| missing(row));
        let sealed: Vec<Vec<u8>> = sealed.into_iter().enumerate().map(found).collect::<Result<_, _>>()?;
        pollster::block_on(self.decryptor.load_keys(&sealed[..]))?;
        Ok(self.decryptor.decrypt_column(&sealed[..], None::<&[&[u8]]>)?)
    }
}
