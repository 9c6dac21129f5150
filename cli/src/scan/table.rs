//! Looking through a table of a database.

use super::Found;
use super::hints::Hints;
use super::judge::{self, Verdict};
use crate::args::Scan;
use crate::failure::{Exit, Failure};
use crate::files::interrupt::Interrupt;
use crate::tables::{self, Pace, Rows};
use keyfold::{FieldPolicy, Policy};
use keyfold_tables::{Access, Cell, Extent};
use std::path::Path;
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
    let mut fields: Vec<Option<&Arc<FieldPolicy>>> = Vec::new();
    let mut columns: Vec<String> = Vec::new();
    for (name, column) in &args.columns.field {
        let missing = || Failure::new(Exit::Policy, format!("the policy has no field {name:?}"));
        fields.push(Some(policy.field(name).ok_or_else(missing)?));
        columns.push(column.clone());
    }
    if hints.is_some() {
        let others = other_columns(args, sql, &columns)?;
        fields.extend(others.iter().map(|_| None));
        columns.extend(others);
    }
    let mut table = tables::open(sql, &args.columns.walk, &columns, Access::Read)?;
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
            for ((cell, field), column) in row.cells.iter().zip(&fields).zip(&columns) {
                let place = || format!("row {number}, column {column:?}");
                match field {
                    Some(field) => found.judged(judge(field, cell), &field.name, place),
                    None => hint(cell, hints, found, place),
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

fn hint(cell: &Cell, hints: Option<&Hints>, found: &mut Found, place: impl Fn() -> String) {
    if let (Cell::Text(text), Some(hints)) = (cell, hints)
        && !judge::is_sealed(text)
    {
        hints.of(text).for_each(|what| found.hint(what, &place));
    }
}

/// Columns of the table that no field is named for. A table of another schema than that of the URI has none here.
fn other_columns(args: &Scan, sql: &str, known: &[String]) -> Result<Vec<String>, Failure> {
    let Some(table) = &args.columns.walk.table else { return Ok(Vec::new()) };
    if table.schema.is_some() {
        return Err(Failure::new(
            Exit::Usage,
            "--patterns: name the schema in the URI (?schema=…), and the table alone",
        ));
    }
    let mut tables = keyfold_tables::columns(sql, Path::new("."))?;
    let all = tables.remove(&table.table).unwrap_or_default();
    Ok(all.into_iter().filter(|column| !known.contains(column)).collect())
}
