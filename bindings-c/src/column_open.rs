//! Opening columns.

use crate::boundary::{Failure, Outcome, boundary};
use crate::column::{Given, Room, kf_column, kf_column_out};
use crate::field::kf_field;
use crate::handle::held;
use crate::memory::{Output, range};
use crate::result::{kf_error, kf_result};
use crate::value::KF_DETERMINISTIC_OVERHEAD;
use keyfold::{Column, ColumnBytes};

/// What there is to know of an opened column.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct kf_opened_column {
    /// Rows whose key is no longer the one that seals: what waits for being encrypted again.
    pub outdated: usize,
    /// Rows whose key is compromised; they count as outdated as well.
    pub compromised: usize,
    /// Rows that did not open, which only kf_decrypt_column_each lets happen.
    pub failed: usize,
}

/// Bytes of data that `out` must have for opening a column of `sealed_len` bytes in `rows` rows, whatever is in it. A pure function.
///
/// Threads: any. Never blocks.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn kf_opened_column_len_max(sealed_len: usize, rows: usize) -> usize {
    // A row that is shorter than this is no sealed value, and nothing is written then.
    sealed_len.saturating_sub(rows.saturating_mul(KF_DETERMINISTIC_OVERHEAD))
}

/// Decrypts a column, each row bound to what it was encrypted with, and writes types, values and offsets. `types` has room for a type per
/// row, `out` for kf_opened_column_len_max(sealed->data_len, sealed->rows) bytes and `rows + 1` offsets. `opened` may be NULL.
///
/// On KF_OK all rows are written. On any other result `types`, the offsets and `*opened` have not been changed, kf_error::row says which
/// row it is about, and the room for data is zero or unchanged as kf_decrypt says of `out`.
///
/// Threads: any, with the same field. Blocks as kf_decrypt does, for each key that is in the column.
///
/// Returns what kf_decrypt returns; KF_ERR_INVALID_INPUT also where `rows` has another number of rows.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_decrypt_column(
    field: *const kf_field,
    sealed: *const kf_column,
    rows: *const kf_column,
    types: *mut u8,
    types_cap: usize,
    out: *const kf_column_out,
    opened: *mut kf_opened_column,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let field = held(field)?;
        let places = Places { types, types_cap, out, results: None, opened };
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        unsafe { decrypt(&field, sealed, rows, &places) }
    })
}

/// Decrypts a column as kf_decrypt_column does, where a row that does not open leaves the others alone: `results` has room for a
/// kf_result per row, which is KF_OK or says why there is none, and then its type is 0 and it has no bytes. `out` needs room for
/// sealed->data_len bytes, since a row that is no sealed value can be of any length.
///
/// On KF_OK all rows are written, be it that none of them opened: look at `opened->failed`. On any other result nothing can be opened
/// at present, or at all; then `results` has not been changed either, and all else is as kf_decrypt_column says.
///
/// Threads: any, with the same field. Blocks as kf_decrypt_column does.
///
/// Returns what kf_decrypt_column returns. Only in `results` are, with a row: KF_ERR_MALFORMED, KF_ERR_UNSUPPORTED,
/// KF_ERR_NO_MATCHING_KEY, KF_ERR_WRONG_SCOPE, KF_ERR_KEY_STATE, KF_ERR_RECORD_REJECTED, KF_ERR_DECRYPTION_FAILED; KF_ERR_POLICY_REFUSED: the
/// suite; KF_ERR_INVALID_INPUT, KF_ERR_LIMIT_EXCEEDED: what the row is bound to is empty or too long.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_decrypt_column_each(
    field: *const kf_field,
    sealed: *const kf_column,
    rows: *const kf_column,
    types: *mut u8,
    types_cap: usize,
    out: *const kf_column_out,
    results: *mut i32,
    results_cap: usize,
    opened: *mut kf_opened_column,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let field = held(field)?;
        let places = Places { types, types_cap, out, results: Some((results, results_cap)), opened };
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        unsafe { decrypt(&field, sealed, rows, &places) }
    })
}

/// Where the caller wants an opened column.
struct Places {
    types: *mut u8,
    types_cap: usize,
    out: *const kf_column_out,
    /// What became of each row, where one that does not open is no failure.
    results: Option<(*mut i32, usize)>,
    opened: *mut kf_opened_column,
}

/// Opens a column.
///
/// # Safety
///
/// All pointers are NULL or valid for their lengths, and nobody else writes there.
unsafe fn decrypt(field: &kf_field, sealed: *const kf_column, rows: *const kf_column, places: &Places) -> Outcome<()> {
    // SAFETY: this function's contract.
    let (sealed, rows) = unsafe { (Given::new(sealed)?, Given::optional(rows)?) };
    let n = sealed.rows();
    let needed = match places.results {
        Some(_) => sealed.data_len,
        None => kf_opened_column_len_max(sealed.data_len, n),
    };
    // SAFETY: as above.
    let mut room = unsafe { Room::at_most(places.out, needed, n) }?;
    let mut types = Output::at_most(places.types, places.types_cap, n)?;
    let mut results = match places.results {
        Some((results, cap)) => Some(Output::at_most(results, cap, n)?),
        None => None,
    };
    let mut told = if places.opened.is_null() { None } else { Some(Output::one(places.opened)?) };
    let mut memory = vec![range(places.out, 1)];
    memory.extend_from_slice(&sealed.memory);
    memory.extend(rows.iter().flat_map(|rows| rows.memory.clone()));
    types.apart_from(&memory)?;
    memory.push(types.range());
    if let Some(results) = &results {
        results.apart_from(&memory)?;
        memory.push(results.range());
    }
    if let Some(told) = &told {
        told.apart_from(&memory)?;
        memory.push(told.range());
    }
    room.apart_from(&memory)?;
    let checked = room.check().and_then(|()| types.check());
    let checked = checked.and_then(|()| results.as_ref().map_or(Ok(()), Output::check));
    let (column, rows) = (&sealed.column, rows.map(|rows| rows.column));
    let open = if results.is_some() { open_each } else { open_all };
    // SAFETY: as above; everything is apart from everything else.
    let outcome = checked.and_then(|()| open(field, column, rows, unsafe { room.data.get() }));
    match outcome {
        Ok(opened) => {
            // SAFETY: as above.
            unsafe {
                room.offsets.set(&opened.offsets);
                types.set(&opened.types);
                if let Some(results) = &mut results {
                    results.set(&opened.results);
                }
                if let Some(told) = &mut told {
                    told.set(&[opened.told]);
                }
            }
            Ok(())
        }
        Err(failure) => {
            // SAFETY: as above.
            unsafe { room.data.erase() };
            Err(failure)
        }
    }
}

/// An opened column whose data has been written.
#[derive(Default)]
struct OpenedRows {
    offsets: Vec<i64>,
    types: Vec<u8>,
    results: Vec<i32>,
    told: kf_opened_column,
}

/// Opens all rows, and writes their values to `data`, or none.
fn open_all(field: &kf_field, sealed: &Column<'_>, rows: Option<Column<'_>>, data: &mut [u8]) -> Outcome<OpenedRows> {
    let values = field.open_column(sealed, rows)?;
    data[..values.data().len()].copy_from_slice(values.data());
    Ok(OpenedRows {
        offsets: values.offsets().to_vec(),
        types: values.types().iter().map(|&kind| kind as u8).collect(),
        results: vec![kf_result::KF_OK as i32; values.len()],
        told: kf_opened_column { outdated: values.outdated(), compromised: values.compromised(), failed: 0 },
    })
}

/// Opens those rows that open, and writes their values to `data`.
fn open_each(field: &kf_field, sealed: &Column<'_>, rows: Option<Column<'_>>, data: &mut [u8]) -> Outcome<OpenedRows> {
    field.check_rows(ColumnBytes::len(sealed), rows.as_ref())?;
    // All at once, as nearly always.
    let mut first = match open_all(field, sealed, rows, data) {
        Err(failure) if failure.is_about_a_row() => Some(failure),
        outcome => return outcome,
    };
    let mut opened = OpenedRows { offsets: vec![0], ..OpenedRows::default() };
    let mut end = 0;
    for row in 0..ColumnBytes::len(sealed) {
        // The first one that failed has been counted.
        let one = match first.take_if(|first| first.row() == Some(row)) {
            Some(first) => Err(first),
            None => field.open(sealed.bytes(row), rows.as_ref().map(|rows| rows.bytes(row))),
        };
        let (kind, result) = match one {
            Ok(one) => {
                let (value, start) = (one.value(), end);
                end += value.canonical_len();
                value.write_canonical(&mut data[start..end]);
                opened.told.outdated += usize::from(!one.is_current());
                opened.told.compromised += usize::from(one.is_compromised());
                (value.value_type() as u8, kf_result::KF_OK)
            }
            Err(failure) => {
                let failure = failure.in_row(row);
                if !failure.is_about_a_row() {
                    return Err(failure);
                }
                opened.told.failed += 1;
                (0, failure.result())
            }
        };
        opened.types.push(kind);
        opened.results.push(result as i32);
        opened.offsets.push(end as i64);
    }
    Ok(opened)
}

impl Failure {
    /// Whether a row of a column cannot be opened, rather than that nothing can be at present.
    fn is_about_a_row(&self) -> bool {
        use kf_result::*;
        self.row().is_some()
            && matches!(
                self.result(),
                KF_ERR_MALFORMED
                    | KF_ERR_UNSUPPORTED
                    | KF_ERR_NO_MATCHING_KEY
                    | KF_ERR_WRONG_SCOPE
                    | KF_ERR_KEY_STATE
                    | KF_ERR_RECORD_REJECTED
                    | KF_ERR_DECRYPTION_FAILED
                    | KF_ERR_POLICY_REFUSED
                    | KF_ERR_INVALID_INPUT
                    | KF_ERR_LIMIT_EXCEEDED
            )
    }
}
