//! Columns that are encoded with a dictionary: each value that a row has is worked on once.

use super::array::Array;
use super::batch::Failures;
use super::output::{Output, with_room};
use arrow_data::ArrayData;
use arrow_schema::DataType;
use keyfold::{Error, ErrorKind, Result, Value};
use std::collections::HashMap;

/// A dictionary that has more values than this for each row is looked up in a map of those that rows have.
const SPARSE: usize = 4;

/// The distinct values of an array that is encoded with a dictionary.
pub(super) struct Distinct {
    /// Where each is in the dictionary, by first use. What no row has is left out.
    pub(super) places: Vec<u32>,
    /// For each row, which of them it has.
    keys: Keys,
    /// Rows whose key leads nowhere.
    failures: Failures,
}

/// For each row, which value it has; [`NONE`](Self::NONE) for null.
pub(super) struct Keys(Vec<u32>);

/// Which number the value at a place of the dictionary has.
enum Known {
    All(Vec<u32>),
    Some(HashMap<usize, u32>),
}

impl Known {
    fn of(array: &Array) -> Result<Self> {
        let len = array.leaf().len;
        if len / SPARSE > array.len {
            return Ok(Self::Some(HashMap::new()));
        }
        let mut all = with_room(len)?;
        all.resize(len, Keys::NONE);
        Ok(Self::All(all))
    }

    /// The number at `place`: `next`, if there is none yet.
    fn number(&mut self, place: usize, next: u32) -> u32 {
        match self {
            Self::All(all) if all[place] == Keys::NONE => all[place] = next,
            Self::All(all) => return all[place],
            Self::Some(some) => return *some.entry(place).or_insert(next),
        }
        next
    }
}

impl Distinct {
    /// # Errors
    ///
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): there is no memory for as many rows, or a dictionary has more than 2³² - 1 values.
    pub(super) fn of(array: &Array) -> Result<Self> {
        let mut known = Known::of(array)?;
        let (mut places, mut keys, mut failures) = (Vec::new(), with_room(array.len)?, Failures::new());
        for row in 0..array.len {
            let key = match array.place(row) {
                Ok(None) => Keys::NONE,
                Ok(Some(place)) => {
                    let at = u32::try_from(place).ok().filter(|at| *at != Keys::NONE).ok_or(TOO_MANY)?;
                    let key = known.number(place, places.len() as u32);
                    if key as usize == places.len() {
                        places.push(at);
                    }
                    key
                }
                Err(error) => {
                    failures.push((row, error));
                    Keys::NONE
                }
            };
            keys.push(key);
        }
        Ok(Self { places, keys: Keys(keys), failures })
    }

    /// The rows that failed: those that have one of the values that did, and those whose key leads nowhere.
    pub(super) fn rows_of(&self, failed: Failures) -> Failures {
        if failed.is_empty() {
            return self.failures.clone();
        }
        let errors: HashMap<usize, Error> = failed.into_iter().collect();
        let rows = self.keys.0.iter().enumerate();
        let failed = rows.filter_map(|(row, key)| Some((row, errors.get(&(*key as usize))?.clone())));
        let mut failed: Failures = failed.chain(self.failures.iter().cloned()).collect();
        failed.sort_by_key(|(row, _)| *row);
        failed
    }

    pub(super) fn into_keys(self) -> Keys {
        self.keys
    }
}

const TOO_MANY: Error = Error::new(ErrorKind::LimitExceeded, "a dictionary has at most 2³² - 1 values");

impl Keys {
    const NONE: u32 = u32::MAX;

    /// The array whose values are `values`.
    pub(super) fn encode(&self, key_type: &DataType, values: ArrayData) -> Result<ArrayData> {
        let mut keys = Output::new(key_type.clone(), self.0.len())?;
        for &key in &self.0 {
            // Which is a null of its own where the value is null, so that everybody sees it.
            let has_value = key != Self::NONE && values.nulls().is_none_or(|nulls| nulls.is_valid(key as usize));
            keys.push(if has_value { Value::Integer(key.into()) } else { Value::Null })?;
        }
        let keys = keys.finish()?.into_builder();
        let data_type = DataType::Dictionary(Box::new(key_type.clone()), Box::new(values.data_type().clone()));
        let encoded = keys.data_type(data_type).add_child_data(values);
        encoded.build().map_err(|_| Error::new(ErrorKind::Internal, "a dictionary that does not hold together"))
    }
}
