//! What is written beside a value: tokens of an index, or the proof of a random token.

use crate::args::IndexBackfill;
use crate::failure::{Exit, Failure};
use keyfold::wire::KeyId;
use keyfold::{Error, ErrorKind, Field, FieldMode, FieldPolicy, IndexPolicy, Indexer, Prover, Token, Value};
use keyfold_tables::{Cell, ColumnKind, Row, Table};
use zeroize::Zeroizing;

pub(super) enum Maker {
    Tokens(Indexer),
    Proof(Prover),
}

/// The index that is to be filled; `None`: the field has random tokens.
pub(super) fn index<'f>(args: &IndexBackfill, field: &'f FieldPolicy) -> Result<Option<&'f IndexPolicy>, Failure> {
    let refused = |why: &str| Err(Failure::new(Exit::Policy, format!("field {}: {why}", field.name)));
    match &args.index {
        Some(name) => match field.indexes.iter().find(|index| index.name == *name) {
            None => refused(&format!("it has no index {name}")),
            index => Ok(index),
        },
        None if matches!(field.mode, FieldMode::Token { .. }) => Ok(None),
        None => Err(Failure::new(Exit::Usage, "--index names the index that is to be filled")),
    }
}

pub(super) fn check_column(table: &Table, to: usize, index: Option<&IndexPolicy>) -> Result<(), Failure> {
    let refused = |why| Err(Failure::new(Exit::Policy, why).at(table.place()));
    let Some(index) = index else {
        return match table.kind(to) {
            ColumnKind::Binary => Ok(()),
            _ => refused("the column for proofs is not binary: make it BYTEA or BLOB"),
        };
    };
    match table.kind(to) {
        ColumnKind::Binary if index.bits != IndexPolicy::FULL || index.tokens_per_value() > 1 => {
            refused("the column for tokens is binary, which is for one token of 256 bits")
        }
        ColumnKind::Other if index.bits == IndexPolicy::FULL => {
            refused("the column for tokens is one of numbers, and the index has 256 bits: make it BYTEA, BLOB or TEXT")
        }
        ColumnKind::Other if index.tokens_per_value() > 1 && !table.is_list(to) => refused(
            "the column for tokens is one of numbers, and a value has several tokens: make it an array of integers, or TEXT",
        ),
        ColumnKind::Other if index.tokens_per_value() == 1 && table.is_list(to) => {
            refused("the column for tokens is an array, and a value has one token: make it an integer, or TEXT")
        }
        _ if !table.is_nullable(to) => {
            refused("the column for tokens may not be null, and rows without a value have no token")
        }
        _ => Ok(()),
    }
}

impl Maker {
    pub(super) fn new(args: &IndexBackfill, field: Field) -> Result<Self, Error> {
        Ok(match &args.index {
            Some(name) => Self::Tokens(pollster::block_on(field.indexer(name))?),
            None => Self::Proof(pollster::block_on(field.prover())?),
        })
    }

    pub(super) fn ready(&self) -> Result<(), Error> {
        match self {
            Self::Tokens(indexer) => pollster::block_on(indexer.ready()).map(drop),
            Self::Proof(prover) => pollster::block_on(prover.ready()).map(drop),
        }
    }

    /// The key under which it makes them.
    pub(super) fn seals(&self) -> KeyId {
        match self {
            Self::Tokens(indexer) => indexer.key_ids()[0],
            Self::Proof(prover) => prover.key_ids()[0],
        }
    }

    /// Whether the index cannot take `value`, which has no token therefore.
    pub(super) fn skips(&self, value: &Value<'_>) -> bool {
        matches!(self, Self::Tokens(indexer) if indexer.index().skips(value))
    }

    /// Whether `present` holds what any key that is named makes of `value`. Of several tokens under a key that no longer seals one is looked for.
    pub(super) fn knows(&self, kind: ColumnKind, present: &Cell, value: Value<'_>) -> Result<bool, Error> {
        let Self::Tokens(indexer) = self else { return Ok(true) };
        let (own, is_list) = (indexer.tokens(value)?, indexer.index().tokens_per_value() > 1);
        if own.is_empty() || cell(kind, is_list, &own) == *present {
            return Ok(!own.is_empty());
        }
        let wanted = match indexer.search_tokens(value) {
            Err(error) if error.kind() == ErrorKind::InvalidInput => return Ok(false),
            wanted => wanted?,
        };
        let text = match present {
            Cell::Text(text) if is_list => text.strip_prefix('{').and_then(|text| text.strip_suffix('}')),
            _ => return Ok(wanted.iter().any(|token| cell(kind, false, std::slice::from_ref(token)) == *present)),
        };
        let parts: Vec<&str> = text.unwrap_or_default().split(',').collect();
        Ok(parts.len() == own.len() && wanted.iter().any(|token| parts.contains(&&*token.to_string())))
    }

    /// The cell beside `value`, where `present` is. A proof is renewed, and never made for a row that has none.
    pub(super) fn cell(&self, kind: ColumnKind, row: &Row, present: &Cell, value: Value<'_>) -> Result<Cell, Error> {
        match self {
            Self::Tokens(indexer) => {
                let tokens = indexer.tokens(value)?;
                Ok(cell(kind, indexer.index().tokens_per_value() > 1, &tokens))
            }
            Self::Proof(prover) => {
                let token = row.key.to_text();
                prover.check(&token, value, present.as_bytes().unwrap_or_default())?;
                Ok(Cell::Bytes(Zeroizing::new(prover.prove(&token, value)?.to_vec())))
            }
        }
    }
}

/// The cell that holds these tokens.
fn cell(kind: ColumnKind, is_list: bool, tokens: &[Token]) -> Cell {
    match (kind, tokens) {
        (_, []) => Cell::Null,
        (ColumnKind::Binary, [Token::Bytes(bytes), ..]) => Cell::Bytes(Zeroizing::new(bytes.to_vec())),
        _ => Cell::Text(Zeroizing::new(crate::transform::token_cell(is_list, tokens))),
    }
}
