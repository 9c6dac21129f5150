//! Columns: many values in one call. Sealing them.

use crate::boundary::{Failure, Outcome, boundary};
use crate::field::kf_field;
use crate::handle::held;
use crate::memory::{Output, input, one, range, range_of};
use crate::result::{kf_error, kf_result};
use crate::value::{KF_MAX_VALUE_LEN, kf_type, value_of};
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
const KF_TYPE_JSON: u8 = kf_type::KF_TYPE_JSON as u8;

/// A column of the caller's.
pub(crate) struct Given<'a> {
    pub(crate) column: Column<'a>,
    pub(crate) data_len: usize,
    /// The bytes of all rows.
    bytes: &'a [u8],
    offsets: &'a [i64],
    pub(crate) memory: [Range<usize>; 3],
}

impl<'a> Given<'a> {
    /// The column at `column`.
    ///
    /// # Safety
    ///
    /// As for [`input`], of the struct and what it points to.
    pub(crate) unsafe fn new(column: *const kf_column) -> Outcome<Self> {
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
        let column = Column::new(data, offsets)?;
        // There is an offset, and all are within the data.
        let bytes = &data[offsets[0] as usize..offsets[offsets.len() - 1] as usize];
        Ok(Self { column, data_len: data.len(), bytes, offsets, memory })
    }

    /// As [`new`](Self::new), where NULL means that there is none.
    ///
    /// # Safety
    ///
    /// As for [`new`](Self::new).
    pub(crate) unsafe fn optional(column: *const kf_column) -> Outcome<Option<Self>> {
        // SAFETY: this function's contract.
        if column.is_null() { Ok(None) } else { unsafe { Self::new(column) }.map(Some) }
    }

    pub(crate) fn rows(&self) -> usize {
        ColumnBytes::len(&self.column)
    }
}

/// The values of a column with their types, all of which have been checked.
struct Typed<'a> {
    types: &'a [u8],
    column: Column<'a>,
}

impl<'a> Typed<'a> {
    fn new(types: &'a [u8], values: &Given<'a>) -> Outcome<Self> {
        // Every part of ASCII is text, so that a look at all of it at once spares one at each row.
        let is_ascii = values.bytes.is_ascii();
        for (row, &id) in types.iter().enumerate() {
            let bytes = values.column.bytes(row);
            let is_known = match id {
                KF_TYPE_BYTES => true,
                KF_TYPE_TEXT | KF_TYPE_JSON => is_ascii,
                _ => false,
            };
            if !is_known || bytes.len() > KF_MAX_VALUE_LEN {
                value_of(id, bytes).map_err(|failure| failure.in_row(row))?;
            }
        }
        Ok(Self { types, column: values.column })
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
            // SAFETY: as above.
            KF_TYPE_JSON => Value::Json(unsafe { str::from_utf8_unchecked(bytes) }),
            id => other_value(id, bytes),
        }
    }
}

/// Apart, so that the others cost no call.
#[inline(never)]
fn other_value(id: u8, bytes: &[u8]) -> Value<'_> {
    value_of(id, bytes).expect("checked by Typed::new")
}

/// Room of the caller's for a column.
pub(crate) struct Room {
    pub(crate) data: Output<u8>,
    pub(crate) offsets: Output<i64>,
}

impl Room {
    /// The room at `out`, where at most `data_len` bytes of `rows` rows are going to be written, or less of it.
    ///
    /// # Safety
    ///
    /// `out` is NULL or can be read.
    pub(crate) unsafe fn at_most(out: *const kf_column_out, data_len: usize, rows: usize) -> Outcome<Self> {
        // SAFETY: this function's contract.
        let out = unsafe { one(out) }?;
        Ok(Self {
            data: Output::at_most(out.data, out.data_cap, data_len)?,
            offsets: Output::at_most(out.offsets, out.offsets_cap, rows.saturating_add(1))?,
        })
    }

    /// Refuses less room than is needed.
    pub(crate) fn check(&self) -> Outcome<()> {
        self.data.check()?;
        self.offsets.check()
    }

    /// Refuses to write over itself, or where something is read from.
    pub(crate) fn apart_from(&self, inputs: &[Range<usize>]) -> Outcome<()> {
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
        let len = column_len(&field, &values)?;
        // SAFETY: the contract of the header: `sealed_len` can be written; it is apart from the inputs.
        unsafe { out.set(&[len]) };
        Ok(())
    })
}

fn column_len(field: &kf_field, values: &Given<'_>) -> Outcome<usize> {
    const TOO_LONG: Failure = Failure::own(kf_result::KF_ERR_LIMIT_EXCEEDED, "the sealed column is larger than memory");
    // Neither negative nor longer than the data.
    let lens = values.offsets.windows(2).map(|ends| (ends[1] - ends[0]) as usize);
    let fits = |len: &usize| isize::try_from(*len).is_ok();
    if field.is_padded() || lens.clone().any(|len| len > KF_MAX_VALUE_LEN) {
        return lens.enumerate().try_fold(0_usize, |sum, (row, len)| {
            let sealed = field.sealed_len(len).map_err(|failure| failure.in_row(row))?;
            sum.checked_add(sealed).filter(fits).ok_or(TOO_LONG)
        });
    }
    let overhead = field.sealed_len(0)?.checked_mul(values.rows());
    overhead.and_then(|overhead| overhead.checked_add(values.bytes.len())).filter(fits).ok_or(TOO_LONG)
}

/// Encrypts a column. `types` has the type of each row (KF_TYPE_*), `values` their bytes; `rows` what each is bound to, where the policy binds
/// rows, and is NULL otherwise. Rows that are absent are left out by the caller, or are of KF_TYPE_NULL where absence itself is protected.
/// `out` needs what kf_sealed_column_len says.
///
/// Where the column has more rows than the rotation policy lets a key seal, the next key seals the rest.
///
/// On KF_OK all rows are written. On any other result nothing has been changed, and kf_error::row says which row it is about, or is KF_NO_ROW;
/// after KF_ERR_RANDOMNESS_UNAVAILABLE and KF_ERR_INTERNAL, and where another key than the first could not be had, data and offsets may have
/// been erased.
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
        let mut room = unsafe { Room::at_most(out, column_len(&field, &values)?, values.rows()) }?;
        room.check()?;
        let mut memory = vec![range_of(types), range(out, 1)];
        memory.extend_from_slice(&values.memory);
        memory.extend(rows.iter().flat_map(|rows| rows.memory.clone()));
        room.apart_from(&memory)?;
        let values = Typed::new(types, &values)?;
        let rows = rows.as_ref().map(|rows| &rows.column);
        // SAFETY: the contract of the header: both can be written; they are apart from each other and from the inputs.
        let (data, offsets) = unsafe { (room.data.get(), room.offsets.get()) };
        pollster::block_on(field.encryptor()?.encrypt_parts_into_slices(&values, rows, data, offsets))?;
        Ok(())
    })
}
