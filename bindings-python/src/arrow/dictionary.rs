//! Columns that are encoded with a dictionary: each value that a row has is worked on once.

use super::array::Array;
use super::batch::Failures;
use super::output::Output;
use arrow_data::ArrayData;
use arrow_schema::DataType;
use keyfold::{Error, ErrorKind, Result, Value};

/// The distinct values of an array that is encoded with a dictionary.
pub(super) struct Distinct {
    /// Where each is in the dictionary, by first use. What no row has is left out.
    pub(super) places: Vec<usize>,
    /// For each row, which of them it has.
    keys: Vec<Option<u32>>,
    /// Rows whose key leads nowhere.
    failures: Failures,
}

impl Distinct {
    pub(super) fn of(array: &Array) -> Self {
        let mut known = vec![None; array.leaf().len];
        let mut distinct = Self { places: Vec::new(), keys: Vec::with_capacity(array.len), failures: Failures::new() };
        for row in 0..array.len {
            let key = match array.place(row) {
                Ok(None) => None,
                Ok(Some(place)) => Some(*known[place].get_or_insert_with(|| {
                    distinct.places.push(place);
                    (distinct.places.len() - 1) as u32
                })),
                Err(error) => {
                    distinct.failures.push((row, error));
                    None
                }
            };
            distinct.keys.push(key);
        }
        distinct
    }

    /// The rows that failed: those that have one of the values that did, and those whose key leads nowhere.
    pub(super) fn rows_of(&self, failed: Failures) -> Failures {
        let mut errors = vec![None; self.places.len()];
        for (value, error) in failed {
            errors[value] = Some(error);
        }
        let rows = self.keys.iter().enumerate();
        let failed = rows.filter_map(|(row, key)| Some((row, errors[(*key)? as usize].clone()?)));
        let mut failed: Failures = failed.chain(self.failures.iter().cloned()).collect();
        failed.sort_by_key(|(row, _)| *row);
        failed
    }

    /// The array whose values are `values`.
    pub(super) fn encode(&self, key_type: &DataType, values: ArrayData) -> Result<ArrayData> {
        let mut keys = Output::new(key_type.clone(), self.keys.len())?;
        for key in &self.keys {
            // Which is a null of its own where the value is null, so that everybody sees it.
            let key = key.filter(|key| values.nulls().is_none_or(|nulls| nulls.is_valid(*key as usize)));
            keys.push(key.map_or(Value::Null, |key| Value::Integer(key.into())))?;
        }
        let keys = keys.finish()?.into_builder();
        let data_type = DataType::Dictionary(Box::new(key_type.clone()), Box::new(values.data_type().clone()));
        let encoded = keys.data_type(data_type).add_child_data(values);
        encoded.build().map_err(|_| Error::new(ErrorKind::Internal, "a dictionary that does not hold together"))
    }
}
