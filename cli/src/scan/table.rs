//! Looking through a table of a database.

use super::hints::Hints;
use super::judge::{self, Indexed, Verdict};
use super::{Found, add_hints};
use crate::args::Scan;
use crate::failure::{Exit, Failure};
use crate::files::interrupt::Interrupt;
use crate::tables::{self, Pace, Rows};
use keyfold::{FieldPolicy, Policy, Token};
use keyfold_tables::{Access, Cell, Extent};
use std::sync::Arc;

/// A place is the number of the row along the key, which may identify a patient, and the column.
pub(super) fn scan(
    args: &Scan,
    sql: &str,
    policy: &Policy,
    hints: Option<&Hints>,
    interrupt: &Interrupt,
    found: &mut Found,
) -> Result<(), Failure> {
    let mut fields: Vec<&Arc<FieldPolicy>> = Vec::new();
    let mut columns: Vec<String> = Vec::new();
    for (name, column) in &args.columns.field {
        let missing = || Failure::new(Exit::Policy, format!("the policy has no field {name:?}"));
        fields.push(policy.field(name).ok_or_else(missing)?);
        columns.push(column.clone());
    }
    let mut table = tables::open(sql, &args.columns.walk, &columns, Access::Read)?;
    let named = columns.len();
    let indexes: Vec<Indexed<'_>> = Indexed::all(policy).collect();
    let looks_at_all = hints.is_some() || args.clear;
    let is_looked_at = |column: &&String| looks_at_all || indexes.iter().any(|index| index.column == **column);
    let others = table.column_names().iter().filter(|column| !columns.contains(column)).filter(is_looked_at);
    let others: Vec<String> = others.cloned().collect();
    if !others.is_empty() {
        columns.extend(others);
        table = tables::open(sql, &args.columns.walk, &columns, Access::Read)?;
    }
    let indexes_of: Vec<Vec<&Indexed<'_>>> =
        columns[named..].iter().map(|column| of_column(&indexes, column, &args.columns.field)).collect();
    found.begin(table.place());
    let pace = Pace {
        interrupt: interrupt.clone(),
        batch_rows: args.columns.walk.batch_rows,
        rows_per_second: args.columns.walk.rows_per_second,
    };
    // All of each value: what follows a sealed one would be in clear.
    let mut rows = Rows::new(&pace, None, Extent::Whole, "scanning");
    let mut number = 0_u64;
    while let Some(page) = rows.next(&mut table)? {
        for row in &page {
            number += 1;
            let (sealed, others) = row.cells.split_at(named);
            let place = |column: &str| format!("row {number}, column {column:?}");
            for ((cell, field), column) in sealed.iter().zip(&fields).zip(&columns) {
                found.judged(judge(field, cell), &field.name, || place(column));
            }
            for ((cell, indexes), column) in others.iter().zip(&indexes_of).zip(&columns[named..]) {
                for index in indexes {
                    found.tokens(index, tokens(index, cell), || place(column));
                }
                match cell {
                    Cell::Text(text) if indexes.is_empty() => {
                        found.in_clear(column, text);
                        add_hints(text, hints, found, || place(column));
                    }
                    Cell::Bytes(bytes) if indexes.is_empty() && !judge::is_sealed_bytes(bytes) => {
                        let text = String::from_utf8_lossy(bytes);
                        found.in_clear(column, &text);
                        add_hints(&text, hints, found, || place(column));
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

fn judge(field: &FieldPolicy, cell: &Cell) -> Verdict {
    match cell {
        Cell::Null => Verdict::Empty,
        Cell::Text(text) => judge::text(field, text),
        Cell::Bytes(bytes) => judge::bytes(field, bytes),
    }
}

fn tokens(index: &Indexed<'_>, cell: &Cell) -> Option<Vec<Token>> {
    match cell {
        Cell::Null => Some(Vec::new()),
        Cell::Text(text) => judge::cell(index.policy, text),
        Cell::Bytes(bytes) => judge::binary(index.policy, bytes),
    }
}

/// The indexes whose tokens stand in a column: those of fields that are looked at, or else of any field that the policy has.
fn of_column<'i, 'p>(indexes: &'i [Indexed<'p>], column: &str, fields: &[(String, String)]) -> Vec<&'i Indexed<'p>> {
    let all: Vec<_> = indexes.iter().filter(|index| index.column == column).collect();
    let is_near = |index: &&&Indexed<'_>| fields.iter().any(|(field, _)| field == index.field);
    let near: Vec<_> = all.iter().filter(is_near).copied().collect();
    if near.is_empty() { all } else { near }
}
