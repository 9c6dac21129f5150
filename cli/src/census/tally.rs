//! Counts by column and key, in bounded memory.

use super::Seen;
use crate::failure::{Exit, Failure};
use keyfold::wire::{KeyId, Suite};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// Most entries: some 100 bytes each. There is one per column, scope and generation, or without key IDs one per column and
/// generation, so that only invented values come here.
const MAX_ENTRIES: usize = 1_000_000;
/// Most columns, or paths of JSON documents.
pub(crate) const MAX_COLUMNS: usize = 10_000;

/// What was found in one place.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) place: String,
    pub(crate) rows: u64,
    /// Files and folders that could not be read, and are not counted.
    pub(crate) unread: u64,
    /// Whether the columns are those that somebody has named.
    pub(crate) named: bool,
    columns: Vec<Column>,
    with_ids: bool,
    entries: usize,
}

/// What was found in one column or at one path.
#[derive(Debug, Default)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) nulls: u64,
    pub(crate) empty: u64,
    pub(crate) clear: u64,
    pub(crate) malformed: u64,
    /// Values of documents, whose headers are counted by key.
    pub(crate) parts: u64,
    /// By suite, generation, and key ID if they are remembered.
    pub(crate) values: BTreeMap<(u8, u32, Option<KeyId>), u64>,
}

impl Tally {
    /// For columns that somebody has named; or for those of a file, as they come.
    pub(crate) fn new(place: &str, columns: &[String], with_ids: bool) -> Self {
        let named = !columns.is_empty();
        let columns = columns.iter().map(|name| Column { name: name.clone(), ..Column::default() }).collect();
        Self { place: place.to_owned(), rows: 0, unread: 0, named, columns, with_ids, entries: 0 }
    }

    /// What was found, by column.
    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Another column; its position.
    pub(crate) fn push(&mut self, name: String) -> Result<usize, Failure> {
        if self.columns.len() == MAX_COLUMNS {
            let why =
                format!("there are more than {MAX_COLUMNS} columns or paths; name those to look at with --column");
            return Err(Failure::new(Exit::Data, why));
        }
        self.columns.push(Column { name, ..Column::default() });
        Ok(self.columns.len() - 1)
    }

    /// Counts a value.
    ///
    /// # Errors
    ///
    /// There are more keys than can be counted in bounded memory.
    pub(crate) fn add(&mut self, column: usize, seen: Seen) -> Result<(), Failure> {
        let column = &mut self.columns[column];
        match seen {
            Seen::Null => column.nulls += 1,
            Seen::Empty => column.empty += 1,
            Seen::Clear => column.clear += 1,
            Seen::Malformed => column.malformed += 1,
            Seen::Part => column.parts += 1,
            Seen::Sealed(suite, key_id) => {
                let entry = (suite.id(), key_id.generation(), self.with_ids.then_some(key_id));
                let before = column.values.len();
                *column.values.entry(entry).or_insert(0) += 1;
                self.entries += column.values.len() - before;
                if self.entries > MAX_ENTRIES {
                    let why = format!(
                        "more than {MAX_ENTRIES} keys and columns; leave out --key-ids and --config, or columns"
                    );
                    return Err(Failure::new(Exit::Data, why));
                }
            }
        }
        Ok(())
    }

    /// Distinct key IDs with the number of their values; none unless they are remembered.
    pub(crate) fn key_ids(&self) -> impl Iterator<Item = (KeyId, u64)> {
        self.columns.iter().flat_map(|column| &column.values).filter_map(|((_, _, id), count)| Some(((*id)?, *count)))
    }

    /// For a checkpoint.
    pub(crate) fn to_json(&self) -> Json {
        let columns: Vec<Json> = self
            .columns
            .iter()
            .map(|column| {
                let values: Vec<Json> = column
                    .values
                    .iter()
                    .map(|((suite, generation, id), count)| {
                        json!([suite, generation, id.map(|id| id.to_string()), count])
                    })
                    .collect();
                json!({
                    "nulls": column.nulls, "empty": column.empty, "clear": column.clear, "malformed": column.malformed,
                    "parts": column.parts,
                    "values": values,
                })
            })
            .collect();
        json!({ "rows": self.rows, "columns": columns })
    }

    /// Takes over the counts of a checkpoint of the same columns.
    pub(crate) fn restore(&mut self, json: &Json) -> Result<(), Failure> {
        self.read(json).ok_or_else(|| Failure::new(Exit::Usage, "the checkpoint is damaged; start with another file"))
    }

    fn read(&mut self, json: &Json) -> Option<()> {
        self.rows = json["rows"].as_u64()?;
        let columns = json["columns"].as_array().filter(|columns| columns.len() == self.columns.len())?;
        for (column, json) in self.columns.iter_mut().zip(columns) {
            column.nulls = json["nulls"].as_u64()?;
            column.empty = json["empty"].as_u64()?;
            column.clear = json["clear"].as_u64()?;
            column.malformed = json["malformed"].as_u64()?;
            column.parts = json["parts"].as_u64().unwrap_or(0);
            for value in json["values"].as_array()? {
                let suite = u8::try_from(value[0].as_u64()?).ok().filter(|&suite| Suite::from_id(suite).is_ok())?;
                let generation = u32::try_from(value[1].as_u64()?).ok()?;
                let id = match &value[2] {
                    Json::Null => None,
                    id => Some(id.as_str()?.parse().ok()?),
                };
                column.values.insert((suite, generation, id), value[3].as_u64()?);
            }
            self.entries += column.values.len();
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> KeyId {
        let mut bytes = [7; KeyId::LEN];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        KeyId::from_bytes(bytes)
    }

    #[test]
    fn invented_keys_end_the_census_before_the_memory_does() {
        let mut tally = Tally::new("a table", &["a".to_owned()], false);
        let add = |number: usize, tally: &mut Tally| tally.add(0, Seen::Sealed(Suite::Field, key(number as u32)));
        assert!((0..MAX_ENTRIES).all(|number| add(number, &mut tally).is_ok()));
        assert!(add(0, &mut tally).is_ok(), "a known one");
        assert!(add(MAX_ENTRIES, &mut tally).is_err());
        let mut tally = Tally::new("a file", &[], false);
        assert!((0..MAX_COLUMNS).all(|number| tally.push(number.to_string()).is_ok()));
        assert!(tally.push("one more".to_owned()).is_err());
    }

    #[test]
    fn counts_come_back_from_a_checkpoint() {
        let columns = ["a".to_owned(), "b".to_owned()];
        for with_ids in [true, false] {
            let mut tally = Tally::new("a table", &columns, with_ids);
            tally.rows = 9;
            for (column, seen) in [
                (0, Seen::Sealed(Suite::Field, key(5))),
                (0, Seen::Sealed(Suite::Field, key(5))),
                (0, Seen::Sealed(Suite::Deterministic, key(6))),
                (1, Seen::Null),
                (1, Seen::Empty),
                (1, Seen::Clear),
                (1, Seen::Malformed),
            ] {
                tally.add(column, seen).expect("room");
            }
            let mut again = Tally::new("a table", &columns, with_ids);
            again.restore(&tally.to_json()).expect("good");
            assert_eq!(format!("{again:?}"), format!("{tally:?}"));
            let mut other = Tally::new("a table", &columns[..1], with_ids);
            assert!(other.restore(&tally.to_json()).is_err());
            assert!(again.restore(&Json::Null).is_err());
        }
    }
}
