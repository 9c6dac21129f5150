//! The table of random tokens that `--tokens` names.

use super::Job;
use crate::failure::{Exit, Failure};
use keyfold::{Error, FieldPolicy};
use keyfold_documents::{SharedTokens, TokenStore};
use keyfold_tables::{TokenSpace, TokenTable};
use std::path::Path;
use std::sync::{Arc, Mutex};

struct Table(TokenTable);

impl TokenStore for Table {
    fn tokens(
        &mut self,
        field: &str,
        partition: &str,
        values: &[Vec<Vec<u8>>],
        draw: &mut dyn FnMut() -> Result<String, Error>,
    ) -> Result<Vec<String>, Error> {
        self.0.tokens(&space(field, partition), values, draw)
    }

    fn values(&mut self, field: &str, partition: &str, tokens: &[&str]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.0.values(&space(field, partition), tokens)
    }
}

fn space(field: &str, partition: &str) -> TokenSpace {
    TokenSpace { field: field.to_owned(), partition: partition.to_owned() }
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
        Ok(Some(Arc::new(Mutex::new(Table(table)))))
    }
}
