//! The sealed values of a table, opened row by row, each with what makes its tokens.

use super::context;
use super::maker::Maker;
use crate::args::IndexBackfill;
use crate::tables::{Bindings, Stored, Trouble};
use keyfold::wire::looks_sealed_text;
use keyfold::{Error, ErrorKind, FieldPolicy, Keyring, Value};
use keyfold_tables::{Cell, Row};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Contexts whose handles are held at once.
const MAX_HELD: usize = 1024;

pub(super) struct Values<'a> {
    ring: &'a Keyring,
    args: &'a IndexBackfill,
    policy: &'a FieldPolicy,
    bindings: Bindings,
    /// The columns that hold values of the context.
    context_columns: Vec<(String, usize)>,
    /// By the values of the context that are in columns.
    makers: HashMap<Vec<String>, Maker>,
}

impl<'a> Values<'a> {
    pub(super) fn new(
        ring: &'a Keyring,
        args: &'a IndexBackfill,
        policy: &'a FieldPolicy,
        bindings: Bindings,
        context_columns: Vec<(String, usize)>,
    ) -> Self {
        Self { ring, args, policy, bindings, context_columns, makers: HashMap::new() }
    }

    /// Opens the value of a row, for `then`; `None`: it has none.
    pub(super) fn open<T>(
        &mut self,
        row: &Row,
        then: impl FnOnce(&Maker, Value<'_>) -> Result<T, Error>,
    ) -> Result<Option<T>, Trouble> {
        let Some(stored) = Stored::of(&row.cells[self.bindings.column(0)], self.policy)? else { return Ok(None) };
        let bound = self.bindings.bind(row)?;
        let binding = self.bindings.row_of(&bound, 0)?;
        let row_text = binding.as_ref().map(|row| &row[..]);
        let opened = pollster::block_on(bound.ciphers[0].open(&stored.sealed, row_text));
        let opened = opened.map_err(|error| match error.kind() {
            ErrorKind::DecryptionFailed if row_text.is_some_and(looks_sealed_text) => {
                let why = "decryption failed: the identifier of the row is sealed, and the policy has no deterministic field of its column";
                Error::new(ErrorKind::DecryptionFailed, why)
            }
            _ => error,
        })?;
        Ok(Some(then(self.maker(row)?, opened.value())?))
    }

    /// What makes the tokens of a row, in its context.
    fn maker(&mut self, row: &Row) -> Result<&Maker, Trouble> {
        let value = |(key, column): &(String, usize)| match &row.cells[*column] {
            Cell::Text(text) => Ok((key.clone(), text.to_string())),
            _ => Err(Error::new(
                ErrorKind::InvalidInput,
                "the column that names a context value of the row is null or not text",
            )),
        };
        let more: Vec<(String, String)> = self.context_columns.iter().map(value).collect::<Result<_, _>>()?;
        let names: Vec<String> = more.iter().map(|(_, value)| value.clone()).collect();
        if self.makers.len() == MAX_HELD && !self.makers.contains_key(&names) {
            self.makers.clear();
        }
        let maker = match self.makers.entry(names) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let context = context(self.args, &more)?;
                let field = self.ring.field(&self.args.field).map_err(Trouble::Run)?.context(context);
                entry.insert(Maker::new(self.args, field).map_err(Trouble::Run)?)
            }
        };
        maker.ready()?;
        Ok(maker)
    }
}
