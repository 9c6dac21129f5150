//! The plaintext of a row beside what is sealed of it.

use crate::tables::{Form, Stored, Trouble};
use keyfold::{Error, ErrorKind, FieldPolicy, Result, Value, ValueType};
use keyfold_documents::{Resealer, same};
use keyfold_tables::{Cell, ColumnKind};
use serde_json::value::RawValue;

/// How the two columns of a row stand to each other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Pair {
    Empty,
    Missing,
    SealedOnly,
    Equal,
    Different,
}

/// Opens what is sealed and compares. Nothing of it is kept.
pub(super) fn compare(clear: &Cell, sealed: &Cell, cipher: &Resealer, row: Option<&[u8]>) -> Result<Pair, Trouble> {
    let stored = Stored::of(sealed, cipher.policy())?;
    match (clear, stored) {
        (Cell::Null, None) => Ok(Pair::Empty),
        (Cell::Null, Some(_)) => Ok(Pair::SealedOnly),
        (_, None) => Ok(Pair::Missing),
        (clear, Some(stored)) => {
            let (prefix, value) = value_of(clear, cipher.policy())?;
            let opened = pollster::block_on(cipher.open(&stored.sealed, row))?;
            let same_prefix = match &stored.form {
                Form::Text(known) => known == prefix,
                Form::Binary => prefix.is_empty(),
            };
            Ok(if same_prefix && same(&opened.value(), &value) { Pair::Equal } else { Pair::Different })
        }
    }
}

/// The cell that holds the plaintext, sealed.
pub(super) fn seal(clear: &Cell, kind: ColumnKind, cipher: &Resealer, row: Option<&[u8]>) -> Result<Cell, Trouble> {
    let (prefix, value) = value_of(clear, cipher.policy())?;
    let sealed = pollster::block_on(cipher.seal(value, row, false))?;
    Ok(Form::of_column(kind, prefix).cell(&sealed)?)
}

/// The prefix that stays in clear, and the value, by the type that the policy gives the field: text where it gives none.
fn value_of<'c>(clear: &'c Cell, policy: &FieldPolicy) -> Result<(&'c str, Value<'c>)> {
    match clear {
        Cell::Null => Ok(("", Value::Null)),
        Cell::Bytes(bytes) => Ok(("", Value::Bytes(bytes))),
        Cell::Text(text) => {
            let (prefix, rest) = policy.split_prefix(text);
            let value_type = policy.value_type.unwrap_or(ValueType::Text);
            if value_type == ValueType::Json && serde_json::from_str::<&RawValue>(rest).is_err() {
                return Err(Error::new(ErrorKind::InvalidInput, "the plaintext is not JSON"));
            }
            Ok((prefix, Value::from_text(value_type, rest)?))
        }
    }
}
