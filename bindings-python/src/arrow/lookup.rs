//! Columns of tokens, and of texts that keep their format.

use super::array::Kind;
use super::batch::{Batch, Turn, Work};
use super::column::{Column, or_raise};
use super::give_back;
use super::output::{Output, text_like};
use super::seal::check_type;
use super::values::Values;
use crate::errors::{at_row, invalid_with, to_py_err};
use crate::fork::detached;
use crate::gil;
use crate::lookup::{Index, Preserver, Way};
use arrow_buffer::NullBufferBuilder;
use arrow_data::ArrayData;
use arrow_schema::{DataType, Field as Member};
use keyfold::{ColumnValues, Error, ErrorKind, IndexKind, IndexPolicy, Result, RowError, Token, Value, ValueType};
use pyo3::prelude::*;
use std::sync::Arc;

/// The tokens of each row of the column `given`.
pub(crate) fn tokens<'py>(index: &Index, given: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = given.py();
    let _call = gil::Call::begin(py);
    let mut column = Column::of(given)?;
    let kind = column.kind(index.value_type());
    check_type(py, index.policy(), &column, kind)?;
    let of_index = index.indexer(py)?.index();
    let new = |len| Tokens::new(of_index, len);
    let chunks = each_batch(
        py,
        &mut column,
        kind,
        new,
        || index.indexer(py),
        |indexer, batch, out| {
            let made = indexer.tokens_column(&batch.items)?;
            batch.rows.iter().zip(&made).try_for_each(|(row, tokens)| out.push(*row, tokens))?;
            Ok(out.pad(batch.end)?)
        },
    )?;
    let chunks = chunks.into_iter().map(|out| (out.finish(), None)).collect();
    give_back(given, None, Tokens::data_type(of_index), chunks, column.is_stream())
}

/// What stands in the place of each text of the column `given`, or what it stands for.
pub(crate) fn replace<'py>(preserver: &Preserver, way: Way, given: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = given.py();
    let _call = gil::Call::begin(py);
    let mut column = Column::of(given)?;
    let kind = column.kind(None);
    if kind.value_type() != ValueType::Text && *column.leaf_type() != DataType::Null {
        let found = column.leaf_type().to_string();
        return Err(invalid_with(py, "values that keep their format are a column of text", found));
    }
    let text_type = text_like(column.leaf_type());
    let new = |len| Output::new(text_type.clone(), len);
    let chunks = each_batch(
        py,
        &mut column,
        kind,
        new,
        || preserver.preserver(py),
        |preserver, batch, out| {
            let texts: Vec<&str> = (0..batch.items.len()).map(|row| batch.items.text(row)).collect();
            let replaced = way.column(preserver, &texts)?;
            for (row, text) in batch.rows.iter().zip(&replaced) {
                out.pad(*row);
                out.push_bytes(text.as_bytes())?;
            }
            out.pad(batch.end);
            Ok(())
        },
    )?;
    let chunks = chunks.into_iter().map(|out| (out.finish(), None)).collect();
    give_back(given, None, text_type, chunks, column.is_stream())
}

/// What `work` makes of each chunk of `column`, batch by batch, with the handle that `ready` gives. Of a dictionary every row is worked on.
fn each_batch<H: Send + Sync, T: Send>(
    py: Python<'_>,
    column: &mut Column,
    kind: Kind,
    new: impl Fn(usize) -> Result<T>,
    ready: impl Fn() -> PyResult<H>,
    work: impl Fn(&H, &Batch<'_, Values>, &mut T) -> Result<(), RowError> + Sync,
) -> PyResult<Vec<T>> {
    let (mut made, mut start) = (Vec::new(), 0);
    while let Some(array) = column.next(py)? {
        let rows = Work { array: &array, picked: None, bindings: None, goes_on: false };
        let (mut batch, mut out) = (rows.batches(Values::new(kind, true)), or_raise(py, new(array.len))?);
        while batch.end < array.len {
            let handle = ready()?;
            let turn = Turn::begin();
            let done = detached(py, || {
                while batch.end < array.len && !turn.is_over() {
                    rows.next(&mut batch);
                    let done = match batch.failures.pop() {
                        Some((row, error)) => Err(RowError::at(row)(error)),
                        None => work(&handle, &batch, &mut out).map_err(|failed| RowError {
                            row: failed.row.and_then(|row| batch.rows.get(row).copied()),
                            ..failed
                        }),
                    };
                    if done.is_err() {
                        return Ok(done);
                    }
                }
                Ok(Ok(()))
            });
            if let Err(RowError { row, error }) = or_raise(py, done)? {
                let error = to_py_err(py, &error, None);
                return Err(match row {
                    Some(row) => at_row(py, error, start + row),
                    None => error,
                });
            }
            py.check_signals()?;
        }
        made.push(out);
        start += array.len;
    }
    Ok(made)
}

/// A column of tokens that is being made: of prefixes, where a value has several, one of lists.
struct Tokens {
    tokens: Output,
    lists: Option<Lists>,
}

struct Lists {
    ends: Vec<i32>,
    nulls: NullBufferBuilder,
}

impl Tokens {
    fn new(index: &IndexPolicy, len: usize) -> Result<Self> {
        let lists = matches!(index.kind, IndexKind::Prefix(_));
        let lists = lists.then(|| Lists { ends: vec![0], nulls: NullBufferBuilder::new(len) });
        Ok(Self { tokens: Output::new(token_type(index), len)?, lists })
    }

    fn data_type(index: &IndexPolicy) -> DataType {
        match index.kind {
            IndexKind::Prefix(_) => DataType::List(Arc::new(Member::new("item", token_type(index), false))),
            _ => token_type(index),
        }
    }

    /// Adds null rows until there are `len`.
    fn pad(&mut self, len: usize) -> Result<()> {
        let Some(Lists { ends, nulls }) = &mut self.lists else {
            self.tokens.pad(len);
            return Ok(());
        };
        let missing = len.saturating_sub(nulls.len());
        nulls.append_n_nulls(missing);
        ends.resize(ends.len() + missing, list_end(&self.tokens)?);
        Ok(())
    }

    fn push(&mut self, row: usize, tokens: &[Token]) -> Result<()> {
        // What has nothing to find is null, as what is null.
        if tokens.is_empty() {
            return Ok(());
        }
        self.pad(row)?;
        for token in tokens {
            match token {
                Token::Integer(number) => self.tokens.push(Value::Integer((*number).into()))?,
                Token::Bytes(bytes) => self.tokens.push_bytes(bytes)?,
            }
        }
        if let Some(Lists { ends, nulls }) = &mut self.lists {
            nulls.append_non_null();
            ends.push(list_end(&self.tokens)?);
        }
        Ok(())
    }

    fn finish(self) -> Result<ArrayData> {
        let tokens = self.tokens.finish()?;
        let Some(Lists { ends, mut nulls }) = self.lists else { return Ok(tokens) };
        let member = Member::new("item", tokens.data_type().clone(), false);
        let lists = ArrayData::builder(DataType::List(Arc::new(member))).len(nulls.len());
        let lists = lists.add_buffer(ends.into()).nulls(nulls.finish()).add_child_data(tokens);
        lists.build().map_err(|_| Error::new(ErrorKind::Internal, "an array that does not hold together"))
    }
}

fn token_type(index: &IndexPolicy) -> DataType {
    if index.bits == IndexPolicy::FULL { DataType::Binary } else { DataType::Int64 }
}

/// Where in the tokens a list ends now.
fn list_end(tokens: &Output) -> Result<i32> {
    i32::try_from(tokens.len()).map_err(|_| {
        Error::new(ErrorKind::LimitExceeded, "a column of lists holds at most 2³¹ - 1 tokens: give it in chunks")
    })
}
