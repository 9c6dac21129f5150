//! The values of a batch that is sealed, in memory of our own. What the caller has may change meanwhile, so it is read once: what is
//! checked is what is sealed.

use super::array::{Array, Kind, NOT_UTF8};
use super::batch::Items;
use crate::inspect::refuse_sealed;
use keyfold::{ColumnValues, Result, Value};
use std::mem;
use std::ops::Range;
use zeroize::{Zeroize, Zeroizing};

pub(super) struct Values {
    kind: Kind,
    /// Whether what looks sealed already is sealed once more.
    seal_sealed: bool,
    /// Of a kind that is text, what `places` lead to; of others, nothing.
    text: Zeroizing<String>,
    /// The same of bytes; and one value of text before it is known to be text.
    bytes: Zeroizing<Vec<u8>>,
    places: Vec<Place>,
}

enum Place {
    At(Range<usize>),
    Is(Value<'static>),
}

impl Values {
    pub(super) fn new(kind: Kind, seal_sealed: bool) -> Self {
        Self { kind, seal_sealed, text: Zeroizing::default(), bytes: Zeroizing::default(), places: Vec::new() }
    }

    /// A row of text.
    pub(super) fn text(&self, row: usize) -> &str {
        match self.value(row) {
            Value::Text(text) => text,
            _ => "",
        }
    }

    /// Refuses a row that is sealed already.
    fn check(&self, row: usize) -> Result<()> {
        if self.seal_sealed { Ok(()) } else { refuse_sealed(self.value(row)) }
    }

    /// Adds `bytes`, and checks of the copy that it is text.
    fn add_text(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        self.text.push_str(str::from_utf8(&self.bytes).map_err(|_| NOT_UTF8)?);
        Ok(())
    }
}

impl Items<'_> for Values {
    fn clear(&mut self, room: usize) {
        self.text.clear();
        self.bytes.clear();
        self.places.clear();
        self.places.reserve(room);
    }

    fn add(&mut self, leaf: &Array, place: usize) -> Result<usize> {
        let start = if self.kind.is_text() { self.text.len() } else { self.bytes.len() };
        let end = match self.kind {
            kind if kind.is_text() => {
                self.add_text(leaf.bytes(place)?)?;
                self.text.len()
            }
            Kind::Bytes => {
                self.bytes.extend_from_slice(leaf.bytes(place)?);
                self.bytes.len()
            }
            kind => {
                self.places.push(Place::Is(leaf.fixed(kind, place)?));
                return Ok(mem::size_of::<i64>());
            }
        };
        self.places.push(Place::At(start..end));
        if let Err(error) = self.check(self.places.len() - 1) {
            self.places.pop();
            return Err(error);
        }
        Ok(end - start)
    }

    fn add_run(&mut self, array: &Array, rows: Range<usize>) -> Option<()> {
        if !(self.kind.is_text() || self.kind == Kind::Bytes) {
            return None;
        }
        let (run, places) = array.run(rows)?;
        self.bytes.extend_from_slice(run);
        self.places.extend(places.map(Place::At));
        if self.kind.is_text() {
            match String::from_utf8(mem::take(&mut *self.bytes)) {
                Ok(text) => self.bytes = Zeroizing::new(mem::replace(&mut *self.text, text).into_bytes()),
                Err(error) => {
                    error.into_bytes().zeroize();
                    return None;
                }
            }
        }
        let is_good = |value: Value<'_>| self.seal_sealed || refuse_sealed(value).is_ok();
        let is_in_order = |place: &Place| match place {
            Place::At(range) if self.kind.is_text() => {
                self.text.get(range.clone()).is_some_and(|text| is_good(Value::Text(text)))
            }
            Place::At(range) => self.bytes.get(range.clone()).is_some_and(|bytes| is_good(Value::Bytes(bytes))),
            Place::Is(_) => true,
        };
        self.places.iter().all(is_in_order).then_some(())
    }
}

impl ColumnValues for Values {
    fn len(&self) -> usize {
        self.places.len()
    }

    #[inline]
    fn value(&self, row: usize) -> Value<'_> {
        let range = match &self.places[row] {
            Place::At(range) => range.clone(),
            Place::Is(value) => return *value,
        };
        match self.kind {
            Kind::Text => Value::Text(&self.text[range]),
            Kind::Json => Value::Json(&self.text[range]),
            Kind::Decimal => Value::Decimal(&self.text[range]),
            _ => Value::Bytes(&self.bytes[range]),
        }
    }
}
