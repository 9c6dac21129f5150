//! Columns of sealed values that are not opened for the caller: which key each is under, and sealing again under the one that seals
//! now.

use super::array::{Array, Kind};
use super::batch::{Failures, Items, Work};
use super::column::{Column, or_raise};
use super::output::{Output, bytes_like, text_like};
use super::{OnError, each_chunk, give_back};
use crate::errors::{at_row, to_py_err};
use crate::field::Field;
use crate::gil;
use crate::inspect::taken_apart;
use crate::wait::{wait, wait_for};
use arrow_schema::DataType;
use keyfold::wire::{self, Frame, KeyId, Suite};
use keyfold::{
    ColumnBytes, ColumnValues, Decryptor, Encryptor, Error, FieldMode, KeyState, OpenedColumn, Result, RowError, Value,
};
use pyo3::prelude::*;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::thread;
use std::time::Duration;

/// Rows between two looks at signals.
const SIGNALS_EVERY: usize = 1 << 16;
/// How long a batch waits for the key that another thread fetches: two seconds. A key that cannot be had does not stop sealing.
const MOST_TRIES: usize = 400;
const BETWEEN_TRIES: Duration = Duration::from_millis(5);

/// The sealed value at a place of an array that has the values, in its binary form.
pub(super) fn sealed_at(leaf: &Array, kind: Kind, place: usize) -> Result<Cow<'_, [u8]>> {
    let bytes = leaf.bytes(place)?;
    if kind == Kind::Bytes {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut decoded = Vec::new();
    wire::from_text(bytes, &mut decoded)?;
    Ok(Cow::Owned(decoded))
}

/// Sealed values of a batch, in binary form.
pub(super) struct Sealed<'a> {
    /// How they lie in the column.
    kind: Kind,
    pub(super) values: Vec<Cow<'a, [u8]>>,
}

impl Sealed<'_> {
    pub(super) const fn new(kind: Kind) -> Self {
        Self { kind, values: Vec::new() }
    }
}

impl<'a> Items<'a> for Sealed<'a> {
    fn clear(&mut self, room: usize) {
        self.values.clear();
        self.values.reserve(room);
    }

    fn add(&mut self, leaf: &'a Array, place: usize) -> Result<usize> {
        let value = sealed_at(leaf, self.kind, place)?;
        let len = value.len();
        self.values.push(value);
        Ok(len)
    }

    fn add_run(&mut self, array: &'a Array, rows: Range<usize>) -> Option<()> {
        if self.kind == Kind::Bytes { array.add_bytes(rows, &mut self.values) } else { None }
    }
}

/// Calls `look` for each row of the column `given`: with a sealed value, with what is wrong with it, or with nothing where it is null.
pub(crate) fn each_sealed(
    given: &Bound<'_, PyAny>,
    mut look: impl FnMut(Option<Result<Cow<'_, [u8]>>>) + Send,
) -> PyResult<()> {
    let py = given.py();
    let mut column = Column::of(given)?;
    let kind = column.sealed_kind(py)?;
    while let Some(array) = column.next(py)? {
        let mut start = 0;
        while start < array.len {
            let end = array.len.min(start + SIGNALS_EVERY);
            gil::detach(py, || {
                for row in start..end {
                    let place = array.place(row).transpose();
                    look(place.map(|place| sealed_at(array.leaf(), kind, place?)));
                }
            });
            py.check_signals()?;
            start = end;
        }
    }
    Ok(())
}

/// Of each row of the column `given` whether it is under the key that seals now; null stays null.
pub(crate) fn is_current<'py>(field: &Field, given: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = given.py();
    let decryptor = field.decryptor(py)?;
    wait(py, async { decryptor.load_keys(&[] as &[&[u8]]).await.map_err(Error::from) })?;
    let mut out = or_raise(py, Output::new(DataType::Boolean, 0))?;
    let mut failed = None;
    each_sealed(given, |sealed| {
        let pushed = match sealed.map(|sealed| decryptor.is_current(&sealed?)) {
            None => {
                out.push_nulls(1);
                return;
            }
            Some(current) => current.and_then(|current| out.push(Value::Boolean(current))),
        };
        if let Err(error) = pushed {
            // What it says of the rows behind is of no use to anybody.
            failed.get_or_insert((out.len(), error));
            out.push_nulls(1);
        }
    })?;
    if let Some((row, error)) = failed {
        return Err(at_row(py, to_py_err(py, &error, None), row));
    }
    // One chunk, whatever the chunks of `given`.
    give_back(given, None, DataType::Boolean, vec![(out.finish(), None)], !given.hasattr("__arrow_c_array__")?)
}

pub(crate) fn reencrypt<'py>(
    field: &Field,
    given: &Bound<'py, PyAny>,
    rows: Option<&Bound<'py, PyAny>>,
    force: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let py = given.py();
    let mut column = Column::of(given)?;
    let kind = column.sealed_kind(py)?;
    let sealed_type = match kind {
        Kind::Bytes => bytes_like(column.leaf_type()),
        _ => text_like(column.leaf_type()),
    };
    let key_type = column.key_type().filter(|_| rows.is_none()).cloned();
    let on_error = OnError::new(py, "raise", None, |_| false)?;
    let mut again = Again { field, kind, sealed_type: sealed_type.clone(), force, states: HashMap::new() };
    let chunks = each_chunk(py, field, &mut column, rows, key_type.is_some(), &on_error, |work| again.all(py, work))?;
    let chunks = chunks.into_iter().map(|(out, distinct)| (out.finish(), distinct)).collect();
    give_back(given, key_type.as_ref(), sealed_type, chunks, column.is_stream())
}

/// Seals again.
struct Again<'a> {
    field: &'a Field,
    kind: Kind,
    sealed_type: DataType,
    /// Whether what is under the key that seals is sealed again as well.
    force: bool,
    /// Of keys of this field and scope that were met, by suite.
    states: HashMap<(u8, KeyId), KeyState>,
}

impl Again<'_> {
    /// Seals the rows of `work` again that are to be; up to the first that fails.
    fn all(&mut self, py: Python<'_>, work: &Work<'_>) -> PyResult<(Output, Failures)> {
        let mut out = or_raise(py, Output::new(self.sealed_type.clone(), work.len()))?;
        let mut failures = Failures::new();
        // The one that opens first: the other would make a scope that there is not.
        let decryptor = self.field.decryptor(py)?;
        while out.len() < work.len() && failures.is_empty() {
            let encryptor = self.field.encryptor(py)?;
            let done = wait_for(py, self.batch((encryptor, decryptor), work, &mut out, &mut failures))?;
            or_raise(py, done)?;
            py.check_signals()?;
        }
        Ok((out, failures))
    }

    /// Seals what is to be of the next batch.
    ///
    /// # Errors
    ///
    /// - [`LimitExceeded`](keyfold::ErrorKind::LimitExceeded): the output cannot hold as much.
    async fn batch(
        &mut self,
        (encryptor, decryptor): (&Encryptor, &Decryptor),
        work: &Work<'_>,
        out: &mut Output,
        failures: &mut Failures,
    ) -> Result<()> {
        // While another thread fetches a new key, `ready` lets this one go on with the old, under which all would seem current.
        let mut tries = 0;
        while !encryptor.is_ready() && tries < MOST_TRIES {
            encryptor.ready().await?;
            if !encryptor.is_ready() {
                thread::sleep(BETWEEN_TRIES);
            }
            tries += 1;
        }
        let kind = self.kind;
        let mut batch = work.batches(Sealed::new(kind));
        batch.end = out.len();
        work.next(&mut batch);
        if !batch.failures.is_empty() {
            failures.append(&mut batch.failures);
            return Ok(());
        }
        let mut old = Vec::new();
        for (index, sealed) in batch.items.values.iter().enumerate() {
            match self.is_stale(encryptor, decryptor, sealed).await {
                Ok(true) => old.push(index),
                Ok(false) => {}
                Err(error) => {
                    failures.push((batch.rows[index], error));
                    return Ok(());
                }
            }
        }
        let stale: Vec<&[u8]> = old.iter().map(|index| &*batch.items.values[*index]).collect();
        let bindings = batch.bindings.as_ref();
        let bindings: Option<Vec<&[u8]>> = bindings.map(|all| old.iter().map(|index| &*all[*index]).collect());
        let again = match seal_again(encryptor, decryptor, &stale, bindings.as_deref()).await {
            Ok(again) => again,
            Err(RowError { row: None, error }) => return Err(error),
            Err(RowError { row: Some(row), error }) => {
                let row = old.get(row).and_then(|index| batch.rows.get(*index));
                failures.push((row.copied().unwrap_or(batch.end - 1), error));
                return Ok(());
            }
        };
        let (mut again, mut text) = (old.iter().zip(&again).peekable(), Vec::new());
        for (index, row) in batch.rows.iter().enumerate() {
            let sealed =
                again.next_if(|(old, _)| **old == index).map_or(&*batch.items.values[index], |(_, sealed)| sealed);
            out.pad(*row);
            if kind == Kind::Bytes {
                out.push_bytes(sealed)?;
            } else {
                text.clear();
                wire::push_text(sealed, &mut text)?;
                out.push_bytes(&text)?;
            }
        }
        out.pad(batch.end);
        Ok(())
    }

    /// Whether a value is to be sealed again: it is under a compromised key, or not under the one that seals nor one of the same scope
    /// that came after it. Generations alone say nothing: they count over the whole keyring.
    ///
    /// # Errors
    ///
    /// Those of [`Decryptor::key_state`]: the key is none of this field in this scope, so that nobody knows.
    async fn is_stale(&mut self, encryptor: &Encryptor, decryptor: &Decryptor, sealed: &[u8]) -> Result<bool> {
        let (sealed, _) = taken_apart(sealed)?;
        let (suite, key_id, current) = (sealed.suite(), sealed.key_id(), encryptor.key_id());
        let state = match self.states.get(&(suite.id(), key_id)) {
            Some(state) => *state,
            None => {
                let state = decryptor.key_state(suite, key_id).await?;
                self.states.insert((suite.id(), key_id), state);
                state
            }
        };
        let own = match self.field.policy().mode {
            FieldMode::Deterministic { .. } => Suite::Deterministic,
            _ => Suite::Field,
        };
        Ok(match state {
            _ if self.force => true,
            KeyState::Compromised => true,
            _ if key_id == current => false,
            _ => suite != own || own == Suite::Deterministic || key_id.generation() < current.generation(),
        })
    }
}

/// `stale` opened and sealed under the key that seals now, what came in a frame in a frame.
async fn seal_again(
    encryptor: &Encryptor,
    decryptor: &Decryptor,
    stale: &[&[u8]],
    bindings: Option<&[&[u8]]>,
) -> Result<Vec<Vec<u8>>, RowError> {
    decryptor.load_keys(stale).await?;
    let opened = decryptor.decrypt_column(stale, bindings)?;
    let column = encryptor.encrypt_parts(&Values(&opened), bindings).await?;
    let mut sealed = Vec::with_capacity(stale.len());
    for (row, old) in stale.iter().enumerate() {
        sealed.push(if Frame::parse(old).is_ok() {
            let framed = encryptor.encrypt_framed(opened.value(row), bindings.map(|bindings| bindings[row])).await;
            framed.map_err(RowError::at(row))?
        } else {
            column.bytes(row).to_vec()
        });
    }
    Ok(sealed)
}

struct Values<'a>(&'a OpenedColumn);

impl ColumnValues for Values<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn value(&self, row: usize) -> Value<'_> {
        self.0.value(row)
    }
}
