//! Whether a column that the policy does not name has anything but tokens.

use super::Job;
use crate::failure::{Exit, Failure};
use crate::tables::{Pace, Rows, Trouble};
use keyfold::IndexPolicy;
use keyfold_tables::{Extent, Row, RowKey};

impl Job<'_> {
    /// Refuses a column in which a row has something else than its tokens under a key that is named, before anything is written. Rows without anything there are
    /// not opened.
    pub(super) fn refuse_foreign(
        &mut self,
        index: &IndexPolicy,
        to: &str,
        pace: &Pace,
        after: Option<RowKey>,
    ) -> Result<(), Failure> {
        let mut number = self.counts.rows;
        let mut rows = Rows::new(pace, after, Extent::Whole, "checking");
        while let Some(page) = rows.next(&mut self.table)? {
            for row in &page {
                number += 1;
                if self.is_foreign(row)? {
                    let why = format!(
                        "row {number} has something else there than a token of index {} of its value: nothing was written by this run; if it may be written \
                         over, name the column in the policy, as `column` of the index",
                        index.name
                    );
                    return Err(Failure::new(Exit::Policy, why).at(format!("{}, column {to:?}", self.table.place())));
                }
            }
        }
        Ok(())
    }

    fn is_foreign(&mut self, row: &Row) -> Result<bool, Failure> {
        let (present, kind) = (&row.cells[self.to], self.table.kind(self.to));
        if present.as_bytes().is_none_or(<[u8]>::is_empty) {
            return Ok(false);
        }
        match self.values.open(row, |maker, value| maker.knows(kind, present, value)) {
            Ok(known) => Ok(!known.unwrap_or(false)),
            // Nothing is written there.
            Err(Trouble::Value(_)) => Ok(false),
            Err(Trouble::Run(error)) => Err(error.into()),
        }
    }
}
