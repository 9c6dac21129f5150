//! Values: types, and the bytes of those that are not bytes anyway.

use crate::memory::{Output, input, one, range, range_of};
use crate::result::{Outcome, kf_result, result};
use keyfold::device::canonical;
use keyfold::wire::{FIELD_OVERHEAD, MAX_VALUE_LEN};
use keyfold::{Value, ValueType};

/// Bytes that sealing adds to a value.
pub const KFD_SEALED_OVERHEAD: usize = 67;
/// Bytes that kfd_open needs beyond those of the value.
pub const KFD_OPEN_EXTRA: usize = 17;
/// Most bytes of a value.
pub const KFD_MAX_VALUE_LEN: usize = 1_048_576;
/// Most bytes of a number, date or time.
pub const KFD_MAX_NUMBER_LEN: usize = 16;

const _: () = assert!(KFD_SEALED_OVERHEAD == FIELD_OVERHEAD && KFD_MAX_VALUE_LEN == MAX_VALUE_LEN);

/// What a value is, and what its bytes mean. Types are sealed with the value and come back with it. The numbers are those of KF_TYPE_*.
#[repr(u8)]
#[derive(Clone, Copy)]
pub enum kfd_type {
    /// Any bytes.
    KFD_TYPE_BYTES = 1,
    /// Text: UTF-8, never normalised.
    KFD_TYPE_TEXT = 2,
    /// A whole number: 1 to 16 bytes, the shortest two's complement form in big-endian order. See kfd_number_encode.
    KFD_TYPE_INTEGER = 3,
    /// A decimal number as it is written, in the grammar of JSON numbers: "1.50" stays "1.50".
    KFD_TYPE_DECIMAL = 4,
    /// An IEEE 754 double: 8 bytes in big-endian order; NaN has one form. See kfd_number_encode.
    KFD_TYPE_FLOAT = 5,
    /// True or false: one byte, 1 or 0.
    KFD_TYPE_BOOLEAN = 6,
    /// Days since 1970-01-01 in the proleptic Gregorian calendar: 4 bytes. See kfd_number_encode.
    KFD_TYPE_DATE = 7,
    /// A point in time: seconds since 1970-01-01T00:00:00Z and nanoseconds, 8 and 4 bytes. See kfd_number_encode.
    KFD_TYPE_TIMESTAMP = 8,
    /// One JSON value as it is written, in UTF-8. Not checked.
    KFD_TYPE_JSON = 9,
    /// Absent, where absence itself is protected: no bytes.
    KFD_TYPE_NULL = 10,
}

/// A value that is not bytes, as C has it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kfd_number {
    /// KFD_TYPE_INTEGER: the number. KFD_TYPE_BOOLEAN: 0 or 1. KFD_TYPE_DATE: the days. KFD_TYPE_TIMESTAMP: the seconds, rounded down.
    pub integer: i64,
    /// KFD_TYPE_FLOAT: the number.
    pub real: f64,
    /// KFD_TYPE_TIMESTAMP: nanoseconds within the second, below 1,000,000,000.
    pub nanoseconds: u32,
    /// 0.
    pub reserved: u32,
}

/// The value of type `id` whose bytes are `bytes`.
pub(crate) fn value_of(id: u8, bytes: &[u8]) -> Outcome<Value<'_>> {
    if bytes.len() > MAX_VALUE_LEN {
        return Err(kf_result::LIMIT_EXCEEDED);
    }
    ValueType::from_id(id).and_then(|of| Value::from_canonical(of, bytes)).ok_or(kf_result::INVALID_INPUT)
}

/// Writes the bytes of a number, date or time of type `type` to `out`, whose `out_cap` must be at least KFD_MAX_NUMBER_LEN, and how
/// many they are to `*out_len`. Members of `number` that the type does not use are not looked at.
///
/// Threads: any.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_BUFFER_TOO_SMALL, KF_ERR_OVERLAP; KF_ERR_INVALID_INPUT: not such a type, a date beyond 32 bits,
/// a boolean other than 0 and 1, or too many nanoseconds.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kfd_number_encode(
    r#type: u8,
    number: *const kfd_number,
    out: *mut u8,
    out_cap: usize,
    out_len: *mut usize,
) -> kf_result {
    result((|| {
        let (mut out, mut len) = (Output::new(out, out_cap, KFD_MAX_NUMBER_LEN)?, Output::one(out_len)?);
        out.apart_from(&[range(number, 1), len.range()])?;
        len.apart_from(&[range(number, 1)])?;
        // SAFETY: the contract of the header: `number` is NULL or valid.
        let number = *unsafe { one(number) }?;
        let value = match ValueType::from_id(r#type) {
            Some(ValueType::Integer) => Value::Integer(number.integer.into()),
            Some(ValueType::Float) => Value::Float(number.real),
            Some(ValueType::Boolean) if matches!(number.integer, 0 | 1) => Value::Boolean(number.integer == 1),
            Some(ValueType::Date) => Value::Date(number.integer.try_into().map_err(|_| kf_result::INVALID_INPUT)?),
            Some(ValueType::Timestamp) if number.nanoseconds < 1_000_000_000 => {
                Value::Timestamp { seconds: number.integer, nanoseconds: number.nanoseconds }
            }
            _ => return Err(kf_result::INVALID_INPUT),
        };
        // SAFETY: the contract of the header: both can be written; they are apart.
        unsafe {
            let written = canonical(&value, out.get())?.len();
            len.set(written);
        }
        Ok(())
    })())
}

/// Reads a number, date or time of type `type` from its bytes. Members of `*number` that the type does not use are 0 then.
///
/// Threads: any.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_OVERLAP; KF_ERR_INVALID_INPUT: not such a type, or not its bytes; KF_ERR_UNSUPPORTED: a whole
/// number beyond 64 bits, whose bytes are right.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kfd_number_decode(
    r#type: u8,
    value: *const u8,
    value_len: usize,
    number: *mut kfd_number,
) -> kf_result {
    result((|| {
        let mut out = Output::one(number)?;
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let value = unsafe { input(value, value_len) }?;
        out.apart_from(&[range_of(value)])?;
        let mut read = kfd_number { integer: 0, real: 0.0, nanoseconds: 0, reserved: 0 };
        match value_of(r#type, value)? {
            Value::Integer(number) => read.integer = number.try_into().map_err(|_| kf_result::UNSUPPORTED)?,
            Value::Float(number) => read.real = number,
            Value::Boolean(truth) => read.integer = truth.into(),
            Value::Date(days) => read.integer = days.into(),
            Value::Timestamp { seconds, nanoseconds } => (read.integer, read.nanoseconds) = (seconds, nanoseconds),
            _ => return Err(kf_result::INVALID_INPUT),
        }
        // SAFETY: the contract of the header: `number` can be written; it is apart from the value.
        unsafe { out.set(read) };
        Ok(())
    })())
}
