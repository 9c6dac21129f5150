//! Rows of the table `records`, the same in every database: columns to search by, derived from the record that is kept
//! beside them.

use keyfold::wire::KeyId;
use keyfold::{Error, ErrorKind, Record, Result};

/// What a row says beside its record. Always computed from the record; never believed when read.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Columns {
    pub(crate) lineage: [u8; 16],
    pub(crate) key_id: [u8; KeyId::LEN],
    pub(crate) class: u8,
    pub(crate) slot: [u8; 16],
    pub(crate) generation: u32,
    pub(crate) scope_tag: Option<[u8; 32]>,
    pub(crate) state: u8,
    pub(crate) sequence: i64,
}

impl Columns {
    /// # Errors
    ///
    /// - [`Store`](ErrorKind::Store): the sequence is greater than the greatest integer of a database.
    pub(crate) fn of(record: &Record) -> Result<Self> {
        let too_large = |_| Error::new(ErrorKind::Store, "the sequence of the record is too large for the store");
        Ok(Self {
            lineage: *record.lineage().as_bytes(),
            key_id: *record.key_id().as_bytes(),
            class: record.class().id(),
            slot: *record.slot_id().as_bytes(),
            generation: record.key_id().generation(),
            scope_tag: record.scope_tag(),
            state: record.state().id(),
            sequence: i64::try_from(record.sequence()).map_err(too_large)?,
        })
    }

    /// The record of a row with these columns, from the bytes in it.
    ///
    /// # Errors
    ///
    /// - [`Store`](ErrorKind::Store): the bytes are not a record that this build reads, or not the record that the row says.
    // F-B-1, F-C-1.
    pub(crate) fn record(&self, bytes: &[u8]) -> Result<Record> {
        let record = Record::parse(bytes).map_err(|error| {
            let unusable = match error.kind() {
                ErrorKind::Unsupported => self.unusable("it was written by a newer keyfold"),
                _ => self.damaged("it is damaged"),
            };
            unusable.with_source(error)
        })?;
        if Self::of(&record)? != *self {
            return Err(self.damaged("the row and the record in it disagree"));
        }
        Ok(record)
    }

    pub(crate) fn damaged(&self, why: &str) -> Error {
        self.unusable(&format!("{why} (docs/BACKUP.md, A damaged record)"))
    }

    fn unusable(&self, why: &str) -> Error {
        let key_id = KeyId::from_bytes(self.key_id);
        Error::new(ErrorKind::Store, "the key store holds a record that cannot be used")
            .with_detail(format!("{key_id}: {why}"))
    }
}
