//! Columns: many values in one call.

use crate::boundary::{Failure, Outcome, boundary};
use crate::field::kf_field;
use crate::handle::held;
use crate::memory::{Output, input, one, range, range_of};
use crate::result::{kf_error, kf_result};
use crate::value::{KF_DETERMINISTIC_OVERHEAD, kf_type, value_of};
use keyfold::{Column, ColumnBytes, ColumnValues, Value};
use std::ops::Range;

/// Byte strings, one per row, in the layout of Arrow's LargeBinary: row `i` is `data[offsets[i]]` to `data[offsets[i + 1]]`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kf_column {
    /// The bytes of all rows. May be NULL if there are none.
    pub data: *const u8,
    /// How many.
    pub data_len: usize,
    /// Where each row begins, and where the last one ends: `rows + 1` numbers that ascend from 0 or more. May be NULL if there are no rows.
    pub offsets: *const i64,
    /// Rows.
    pub rows: usize,
}

/// Room for byte strings, one per row, in the same layout.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kf_column_out {
    /// Room for the bytes of all rows.
    pub data: *mut u8,
    /// How much.
    pub data_cap: usize,
    /// Room for `rows + 1` numbers, which will begin with 0; the last one says how many bytes were written.
    pub offsets: *mut i64,
    /// For how many there is room.
    pub offsets_cap: usize,
}

const KF_TYPE_BYTES: u8 = kf_type::KF_TYPE_BYTES as u8;
const KF_TYPE_TEXT: u8 = kf_type::KF_TYPE_TEXT as u8;

/// A column of the caller's.
struct Given<'a> {
    column: Column<'a>,
    data_len: usize,
    memory: [Range<usize>; 3],
}

impl<'a> Given<'a> {
    /// The column at `column`.
    ///
    /// # Safety
    ///
    /// As for [`input`], of the struct and what it points to.
    unsafe fn new(column: *const kf_column) -> Outcome<Self> {
        // SAFETY: this function's contract.
        let given = unsafe { one(column) }?;
        // SAFETY: this function's contract.
        let data = unsafe { input(given.data, given.data_len) }?;
        let offsets: &[i64] = if given.rows == 0 {
            &[0]
        } else {
            // SAFETY: this function's contract.
            unsafe { input(given.offsets, given.rows.saturating_add(1)) }?
        };
        let memory = [range(column, 1), range_of(data), range(given.offsets, offsets.len())];
        Ok(Self { column: Column::new(data, offsets)?, data_len: data.len(), memory })
    }

    /// As [`new`](Self::new), where NULL means that there is none.
    ///
    /// # Safety
    ///
    /// As for [`new`](Self::new).
    unsafe fn optional(column: *const kf_column) -> Outcome<Option<Self>> {
        // SAFETY: this function's contract.
        if column.is_null() { Ok(None) } else { unsafe { Self::new(column) }.map(Some) }
    }

    fn rows(&self) -> usize {
        ColumnBytes::len(&self.column)
    }
}

/// The values of a column with their types, all of which have been checked.
struct Typed<'a> {
    types: &'a [u8],
    column: Column<'a>,
}

impl<'a> Typed<'a> {
    fn new(types: &'a [u8], column: Column<'a>) -> Outcome<Self> {
        for (row, &id) in types.iter().enumerate() {
            value_of(id, column.bytes(row)).map_err(|failure| failure.in_row(row))?;
        }
        Ok(Self { types, column })
    }
}

impl ColumnValues for Typed<'_> {
    fn len(&self) -> usize {
        self.types.len()
    }

    #[inline]
    fn value(&self, row: usize) -> Value<'_> {
        let bytes = self.column.bytes(row);
        match self.types[row] {
            KF_TYPE_BYTES => Value::Bytes(bytes),
            // SAFETY: `new` has checked that it is UTF-8, and nobody changes it while it is borrowed.
            KF_TYPE_TEXT => Value::Text(unsafe { str::from_utf8_unchecked(bytes) }),
            id => value_of(id, bytes).expect("checked by new"),
        }
    }
}

/// Room of the caller's for a column.
struct Room {
    data: Output<u8>,
    offsets: Output<i64>,
}

impl Room {
    /// The room at `out`, where at most `data_len` bytes of `rows` rows are going to be written, or less of it.
    ///
    /// # Safety
    ///
    /// `out` is NULL or can be read.
    unsafe fn at_most(out: *const kf_column_out, data_len: usize, rows: usize) -> Outcome<Self> {
        // SAFETY: this function's contract.
        let out = unsafe { one(out) }?;
        Ok(Self {
            data: Output::at_most(out.data, out.data_cap, data_len)?,
            offsets: Output::at_most(out.offsets, out.offsets_cap, rows.saturating_add(1))?,
        })
    }

    /// Refuses less room than is needed.
    fn check(&self) -> Outcome<()> {
        self.data.check()?;
        self.offsets.check()
    }

    /// Refuses to write over itself, or where something is read from.
    fn apart_from(&self, inputs: &[Range<usize>]) -> Outcome<()> {
        self.data.apart_from(inputs)?;
        self.data.apart_from(&[self.offsets.range()])?;
        self.offsets.apart_from(inputs)
    }
}

/// Says how many bytes kf_encrypt_column is going to write for `values`: no more and no fewer. Looks at offsets only.
///
/// Threads: any. Never blocks.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_OVERLAP; KF_ERR_INVALID_INPUT: the offsets do not ascend within the data;
/// KF_ERR_LIMIT_EXCEEDED: a value is too long, or all are.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_sealed_column_len(
    field: *const kf_field,
    values: *const kf_column,
    sealed_len: *mut usize,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let field = held(field)?;
        let mut out = Output::one(sealed_len)?;
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let values = unsafe { Given::new(values) }?;
        out.apart_from(&values.memory)?;
        let len = column_len(&field, &values.column)?;
        // SAFETY: the contract of the header: `sealed_len` can be written; it is apart from the inputs.
        unsafe { out.set(&[len]) };
        Ok(())
    })
}

fn column_len(field: &kf_field, values: &Column<'_>) -> Outcome<usize> {
    let mut len = 0_usize;
    for row in 0..ColumnBytes::len(values) {
        let sealed = field.sealed_len(values.bytes(row).len()).map_err(|failure| failure.in_row(row))?;
        let too_long = Failure::own(kf_result::KF_ERR_LIMIT_EXCEEDED, "the sealed column is larger than memory");
        len = len.checked_add(sealed).filter(|&len| isize::try_from(len).is_ok()).ok_or(too_long)?;
    }
    Ok(len)
}

/// Encrypts a column. `types` has the type of each row (KF_TYPE_*), `values` their bytes; `rows` what each is bound to, where the policy binds
/// rows, and is NULL otherwise. Rows that are absent are left out by the caller, or are of KF_TYPE_NULL where absence itself is protected.
/// `out` needs what kf_sealed_column_len says.
///
/// On KF_OK all rows are written. On any other result nothing has been changed, and kf_error::row says which row it is about.
///
/// Threads: any, with the same field. Blocks as kf_encrypt does.
///
/// Returns what kf_encrypt returns; KF_ERR_INVALID_INPUT also where `rows` has another number of rows.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_encrypt_column(
    field: *const kf_field,
    types: *const u8,
    values: *const kf_column,
    rows: *const kf_column,
    out: *const kf_column_out,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let field = held(field)?;
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let (values, rows) = unsafe { (Given::new(values)?, Given::optional(rows)?) };
        // SAFETY: as above.
        let types = unsafe { input(types, values.rows()) }?;
        // SAFETY: as above.
        let mut room = unsafe { Room::at_most(out, column_len(&field, &values.column)?, values.rows()) }?;
        room.check()?;
        let mut memory = vec![range_of(types), range(out, 1)];
        memory.extend_from_slice(&values.memory);
        memory.extend(rows.iter().flat_map(|rows| rows.memory.clone()));
        room.apart_from(&memory)?;
        let values = Typed::new(types, values.column)?;
        let sealed = field.encryptor()?.encrypt_column(&values, rows.as_ref().map(|rows| &rows.column))?;
        // SAFETY: the contract of the header: both can be written; they are apart from each other and from the inputs.
        unsafe {
            room.data.set(sealed.data());
            room.offsets.set(sealed.offsets());
        }
        Ok(())
    })
}

/// What there is to know of an opened column.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kf_opened_column {
    /// Rows whose key is no longer the one that seals: what waits for being encrypted again.
    pub outdated: usize,
    /// Rows whose key is compromised; they count as outdated as well.
    pub compromised: usize,
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
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let (sealed, rows) = unsafe { (Given::new(sealed)?, Given::optional(rows)?) };
        let needed = kf_opened_column_len_max(sealed.data_len, sealed.rows());
        // SAFETY: as above.
        let mut room = unsafe { Room::at_most(out, needed, sealed.rows()) }?;
        let mut types = Output::at_most(types, types_cap, sealed.rows())?;
        let mut told = if opened.is_null() { None } else { Some(Output::one(opened)?) };
        let mut memory = vec![range(out, 1)];
        memory.extend_from_slice(&sealed.memory);
        memory.extend(rows.iter().flat_map(|rows| rows.memory.clone()));
        types.apart_from(&memory)?;
        memory.push(types.range());
        if let Some(told) = &told {
            told.apart_from(&memory)?;
            memory.push(told.range());
        }
        room.apart_from(&memory)?;
        let column = &sealed.column;
        let open = || {
            room.check()
                .and_then(|()| types.check())
                .and_then(|()| field.open_column(column, rows.map(|rows| rows.column)))
        };
        match open() {
            Ok(values) => {
                let ids: Vec<u8> = values.types().iter().map(|&kind| kind as u8).collect();
                // SAFETY: the contract of the header: all can be written; they are apart from each other and from the inputs.
                unsafe {
                    room.data.set(values.data());
                    room.offsets.set(values.offsets());
                    types.set(&ids);
                    if let Some(told) = &mut told {
                        let (outdated, compromised) = (values.outdated(), values.compromised());
                        told.set(&[kf_opened_column { outdated, compromised }]);
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
    })
}
