//! Which rows of a table of random tokens are of a field: several fields and partitions may share a table.

use super::Columns;
use keyfold::{FieldMode, FieldPolicy};
use keyfold_tables::{Cell, Row};

pub(crate) struct TokenRows {
    /// What stands in the columns `field` and `partition` of the field's own rows.
    own: [String; 2],
    columns: [usize; 2],
}

impl TokenRows {
    /// Bytes of the columns that have to be read: names are no longer.
    pub(crate) const EXTENT: u32 = 256;

    /// Those of a field; `None`: it has no random tokens, and is in any row.
    pub(crate) fn of(field: &FieldPolicy, columns: &mut Columns) -> Option<Self> {
        let FieldMode::Token { partition, .. } = &field.mode else { return None };
        let own = [field.name.clone(), partition.clone()];
        Some(Self { own, columns: ["field", "partition"].map(|column| columns.add(column)) })
    }

    pub(crate) fn has(&self, row: &Row) -> bool {
        let is_own = |(own, column): (&String, usize)| matches!(&row.cells[column], Cell::Text(text) if **text == *own);
        self.own.iter().zip(self.columns).all(is_own)
    }
}
