//! The table of random tokens that `--tokens` names.

use super::Job;
use crate::failure::{Exit, Failure};
use keyfold::{Error, Field, FieldPolicy, OpenedColumn, RowError, Value};
use keyfold_documents::{FieldTokens, SharedTokens, TokenStore};
use keyfold_tables::{TokenTable, Tokenizer};
use std::path::Path;
use std::sync::Arc;

struct Table(Arc<TokenTable>);

impl TokenStore for Table {
    fn of(&self, field: Field) -> Result<Box<dyn FieldTokens>, Error> {
        Ok(Box::new(OfField { table: Arc::clone(&self.0), tokenizer: Tokenizer::new(field)? }))
    }
}

struct OfField {
    table: Arc<TokenTable>,
    tokenizer: Tokenizer,
}

impl FieldTokens for OfField {
    fn protect(&self, values: &[Value<'_>]) -> Result<Vec<String>, RowError> {
        self.tokenizer.tokens(&self.table, values)
    }

    fn known(&self, values: &[Value<'_>]) -> Result<Option<usize>, RowError> {
        self.tokenizer.known(&self.table, values)
    }

    fn reveal(&self, tokens: &[&str]) -> Result<OpenedColumn, RowError> {
        self.tokenizer.values(&self.table, tokens)
    }
}

impl Job<'_> {
    /// The table, if the command line names one; it must if one of the fields that `keep` chooses has tokens.
    pub(super) fn tokens(&self, keep: impl Fn(&FieldPolicy) -> bool) -> Result<Option<SharedTokens>, Failure> {
        let Some(uri) = &self.args.tokens else {
            let policy = self.ring.policy();
            let needs = |field: &FieldPolicy| keep(field) && self.direction.needs_tokens(&policy, field);
            return match policy.fields().find(|field| needs(field)) {
                None => Ok(None),
                Some(field) => {
                    let why = "its values have random tokens: --tokens names the database with their table";
                    Err(Failure::new(Exit::Usage, why).at(format!("field {}", field.name)))
                }
            };
        };
        let table = TokenTable::open(uri, Path::new("."), &self.args.token_table)?;
        Ok(Some(Arc::new(Table(Arc::new(table)))))
    }
}
