//! Looking through CSV, column by column.

use super::files::SEALED_GROWTH;
use super::hints::Hints;
use super::judge::{self, Indexed};
use super::{Found, add_hints};
use crate::args::Scan;
use crate::failure::Failure;
use crate::files::csv::{CsvOptions, CsvSource, DEFAULT_MAX_FIELD_LEN, MAX_ROW_LEN};
use crate::transform::{other_delimiter, similar};
use keyfold::{FieldPolicy, Policy, RowBinding};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;

pub(super) fn scan(
    args: &Scan,
    input: impl Read,
    policy: &Policy,
    hints: Option<&Hints>,
    found: &mut Found,
) -> Result<(), Failure> {
    // A column may be that of several fields; all of them must be content.
    let fields: Vec<(String, &Arc<FieldPolicy>)> =
        policy.fields().flat_map(|field| field.columns.iter().map(move |column| (column.clone(), field))).collect();
    let indexes: Vec<Indexed<'_>> = Indexed::all(policy).collect();
    let columns = fields.iter().map(|(column, _)| column.clone());
    let options = CsvOptions {
        delimiter: args.delimiter,
        columns: columns.chain(indexes.iter().map(|index| index.column.to_owned())).collect(),
        max_field_len: DEFAULT_MAX_FIELD_LEN * SEALED_GROWTH,
        max_row_len: MAX_ROW_LEN * SEALED_GROWTH,
    };
    let mut source = CsvSource::new(input, options)?;
    let all_positions = source.positions().to_vec();
    let (positions, index_positions) = all_positions.split_at(fields.len());
    let misnamed = add_misnamed(source.header(), policy, found);
    found.hint_at_header = other_delimiter(source.header());
    for (position, (_, field)) in positions.iter().zip(&fields) {
        if position.is_none() && !misnamed.contains(&field.name) {
            found.absent(field, true);
        }
    }
    let looks_at_others = hints.is_some() || args.clear;
    let names = source.header().to_vec();
    let is_other = |at: &usize| looks_at_others && !all_positions.contains(&Some(*at));
    let others: Vec<usize> = (0..names.len()).filter(is_other).collect();
    while let Some(batch) = source.next_batch()? {
        for row in 0..batch.rows() {
            for (position, (_, field)) in positions.iter().zip(&fields) {
                let Some(position) = *position else { continue };
                let verdict = match std::str::from_utf8(batch.cell(row, position)) {
                    Ok(text) => judge::text(field, text),
                    Err(_) => judge::bytes(field, batch.cell(row, position)),
                };
                found.judged(verdict, &field.name, || batch.place(row, position).to_string());
            }
            for (position, index) in index_positions.iter().zip(&indexes) {
                let Some(position) = *position else { continue };
                let text = std::str::from_utf8(batch.cell(row, position)).ok();
                let tokens = text.and_then(|text| judge::cell(index.policy, text));
                found.tokens(index, tokens, || batch.place(row, position).to_string());
            }
            for &position in &others {
                let text = String::from_utf8_lossy(batch.cell(row, position));
                found.in_clear(&names[position], &text);
                add_hints(&text, hints, found, || batch.place(row, position).to_string());
            }
        }
    }
    Ok(())
}

/// Finds columns that protecting refuses, since their names are nearly those of the policy; returns the fields whose columns they seem to be.
fn add_misnamed(header: &[String], policy: &Policy, found: &mut Found) -> BTreeSet<String> {
    let mut owners: BTreeMap<String, &FieldPolicy> = BTreeMap::new();
    for field in policy.fields().filter(|field| !field.columns.is_empty()) {
        let row = match &field.row_binding {
            RowBinding::Bound { column, .. } => column.as_ref(),
            _ => None,
        };
        let indexes = field.indexes.iter().filter_map(|index| index.column.as_ref());
        for column in row.into_iter().chain(indexes) {
            owners.entry(column.clone()).or_insert(field);
        }
    }
    for field in policy.fields() {
        owners.extend(field.columns.iter().map(|column| (column.clone(), &**field)));
    }
    let named: Vec<String> = owners.keys().cloned().collect();
    let mut misnamed = BTreeSet::new();
    for (name, place, why) in similar(header, &named) {
        let field = &owners[name].name;
        found.missing(field, format!("{place}: {why}"));
        misnamed.insert(field.clone());
    }
    misnamed
}
