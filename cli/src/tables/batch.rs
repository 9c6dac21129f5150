//! A batch of rows whose values are replaced, while others write to the same table.

use crate::failure::Failure;
use keyfold_tables::{Cell, Change, Guard, Row, RowKey, Table};
use std::collections::BTreeMap;

/// How often a row is read again that somebody else changed before its value could be replaced.
const MAX_ROUNDS: u32 = 5;

/// What became of the values that were to be replaced.
pub(crate) struct Settled<T> {
    /// What `plan` said of those that were.
    pub(crate) made: Vec<T>,
    /// Values whose row was deleted meanwhile.
    pub(crate) gone: u64,
    /// Values that were changed by somebody else each time.
    pub(crate) busy: u64,
}

/// Asks `plan` about each row and each of the fields, which are in `columns`, replaces in one transaction what it wants
/// replaced, and asks again about rows that somebody else has changed meanwhile. Without `write` nothing is replaced.
///
/// `plan` gets the row and the field, and gives the new value and what to call the change; `None`: it has dealt with it.
pub(crate) fn settle<T>(
    table: &mut Table,
    page: Vec<Row>,
    columns: &[usize],
    guard: Guard,
    write: bool,
    mut plan: impl FnMut(&Row, usize) -> Result<Option<(Cell, T)>, Failure>,
) -> Result<Settled<T>, Failure> {
    let mut settled = Settled { made: Vec::new(), gone: 0, busy: 0 };
    let all: Vec<usize> = (0..columns.len()).collect();
    let mut work: Vec<(Row, Vec<usize>)> = page.into_iter().map(|row| (row, all.clone())).collect();
    for _ in 0..MAX_ROUNDS {
        let (mut places, mut changes, mut calls) = (Vec::new(), Vec::new(), Vec::new());
        for (at, (row, wanted)) in work.iter().enumerate() {
            for &field in wanted {
                if let Some((new, call)) = plan(row, field)? {
                    places.push((at, field));
                    changes.push(Change { row, column: columns[field], new, guard });
                    calls.push(call);
                }
            }
        }
        let made = if write { table.replace(&changes)? } else { vec![true; changes.len()] };
        let mut left: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for ((call, (at, field)), made) in calls.into_iter().zip(places).zip(made) {
            match made {
                true => settled.made.push(call),
                false => left.entry(at).or_default().push(field),
            }
        }
        if left.is_empty() {
            return Ok(settled);
        }
        let keys: Vec<RowKey> = left.keys().map(|&at| work[at].0.key.clone()).collect();
        let mut rows = table.rows(&keys)?;
        let mut again = Vec::new();
        for (at, fields) in left {
            match rows.iter().position(|row| row.key == work[at].0.key) {
                Some(found) => again.push((rows.swap_remove(found), fields)),
                None => settled.gone += fields.len() as u64,
            }
        }
        work = again;
    }
    settled.busy = work.iter().map(|(_, fields)| fields.len() as u64).sum();
    Ok(settled)
}
