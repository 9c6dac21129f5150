//! Values: types, and the bytes of those that are not bytes anyway.

use crate::boundary::{Failure, Outcome, boundary};
use crate::memory::{Output, input, one, range, range_of};
use crate::result::{kf_error, kf_result};
use keyfold::wire::{DETERMINISTIC_OVERHEAD, FIELD_OVERHEAD, MAX_VALUE_LEN};
use keyfold::{Error, ErrorKind, Value, ValueType};

/// Bytes that sealing adds to a value, unless the policy has it padded. A deterministic field adds fewer.
pub const KF_SEALED_OVERHEAD: usize = 67;
/// Bytes that sealing adds to a value of a deterministic field, unless the policy has it padded.
pub const KF_DETERMINISTIC_OVERHEAD: usize = 43;
/// Most bytes of a value.
pub const KF_MAX_VALUE_LEN: usize = 1_048_576;
/// Most bytes of a number, date or time.
pub const KF_MAX_NUMBER_LEN: usize = 16;

const _: () = assert!(KF_SEALED_OVERHEAD == FIELD_OVERHEAD && KF_DETERMINISTIC_OVERHEAD == DETERMINISTIC_OVERHEAD);
const _: () = assert!(KF_MAX_VALUE_LEN == MAX_VALUE_LEN);

/// What a value is, and what its bytes mean. Types are sealed with the value and come back with it.
#[repr(u8)]
#[derive(Clone, Copy)]
pub enum kf_type {
    /// Any bytes.
    KF_TYPE_BYTES = 1,
    /// Text: UTF-8, never normalised.
    KF_TYPE_TEXT = 2,
    /// A whole number: 1 to 16 bytes, the shortest two's complement form in big-endian order. See kf_number_encode.
    KF_TYPE_INTEGER = 3,
    /// A decimal number as it is written, in the grammar of JSON numbers: "1.50" stays "1.50".
    KF_TYPE_DECIMAL = 4,
    /// An IEEE 754 double: 8 bytes in big-endian order; NaN has one form. See kf_number_encode.
    KF_TYPE_FLOAT = 5,
    /// True or false: one byte, 1 or 0.
    KF_TYPE_BOOLEAN = 6,
    /// Days since 1970-01-01 in the proleptic Gregorian calendar: 4 bytes. See kf_number_encode.
    KF_TYPE_DATE = 7,
    /// A point in time: seconds since 1970-01-01T00:00:00Z and nanoseconds, 8 and 4 bytes. See kf_number_encode.
    KF_TYPE_TIMESTAMP = 8,
    /// One JSON value as it is written, in UTF-8. Not checked.
    KF_TYPE_JSON = 9,
    /// Absent, where absence itself is protected: no bytes.
    KF_TYPE_NULL = 10,
}

/// A value that is not bytes, as C has it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kf_number {
    /// KF_TYPE_INTEGER: the number. KF_TYPE_BOOLEAN: 0 or 1. KF_TYPE_DATE: the days. KF_TYPE_TIMESTAMP: the seconds, rounded down.
    pub integer: i64,
    /// KF_TYPE_FLOAT: the number.
    pub real: f64,
    /// KF_TYPE_TIMESTAMP: nanoseconds within the second, below 1,000,000,000.
    pub nanoseconds: u32,
    /// 0.
    pub reserved: u32,
}

const NO_TYPE: Failure = Failure::own(kf_result::KF_ERR_INVALID_INPUT, "a type is none of KF_TYPE_*");

/// The value of type `id` whose bytes are `bytes`.
#[inline]
pub(crate) fn value_of(id: u8, bytes: &[u8]) -> Outcome<Value<'_>> {
    let value_type = ValueType::from_id(id).ok_or(NO_TYPE)?;
    let too_long = bytes.len() > MAX_VALUE_LEN;
    Value::from_canonical(value_type, bytes).ok_or_else(|| {
        let (kind, message) = match too_long {
            true => (ErrorKind::LimitExceeded, "a field holds at most 1 MiB (1,048,576 bytes)"),
            false => (ErrorKind::InvalidInput, "the bytes are not the encoding of a value of the type"),
        };
        Error::new(kind, message).with_detail(value_type.name()).into()
    })
}

/// Writes the bytes of a number, date or time of type `type` to `out`, whose `out_cap` must be at least KF_MAX_NUMBER_LEN, and how many
/// they are to `*out_len`. Members of `number` that the type does not use are not looked at.
///
/// Threads: any. Never blocks.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_BUFFER_TOO_SMALL, KF_ERR_OVERLAP; KF_ERR_INVALID_INPUT: not such a type, a date beyond 32 bits,
/// a boolean other than 0 and 1, or too many nanoseconds.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_number_encode(
    r#type: u8,
    number: *const kf_number,
    out: *mut u8,
    out_cap: usize,
    out_len: *mut usize,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let invalid = |message| Failure::own(kf_result::KF_ERR_INVALID_INPUT, message);
        let (mut out, mut len) = (Output::new(out, out_cap, KF_MAX_NUMBER_LEN)?, Output::one(out_len)?);
        let inputs = range(number, 1);
        out.apart_from(&[inputs.clone(), len.range()])?;
        len.apart_from(&[inputs])?;
        // SAFETY: the contract of the header: `number` is NULL or valid.
        let kf_number { integer, real, nanoseconds, reserved: _ } = *unsafe { one(number) }?;
        let value = match ValueType::from_id(r#type).ok_or(NO_TYPE)? {
            ValueType::Integer => Value::Integer(integer.into()),
            ValueType::Float => Value::Float(real),
            ValueType::Boolean => match integer {
                0 | 1 => Value::Boolean(integer == 1),
                _ => return Err(invalid("a boolean is 0 or 1")),
            },
            ValueType::Date => Value::Date(i32::try_from(integer).map_err(|_| invalid("a date has at most 32 bits"))?),
            ValueType::Timestamp if nanoseconds < 1_000_000_000 => Value::Timestamp { seconds: integer, nanoseconds },
            ValueType::Timestamp => return Err(invalid("a timestamp has fewer than 10⁹ nanoseconds")),
            _ => return Err(invalid("the type is not one of numbers: its bytes are the value")),
        };
        let mut bytes = [0; KF_MAX_NUMBER_LEN];
        let bytes = &mut bytes[..value.canonical_len()];
        value.write_canonical(bytes);
        // SAFETY: the contract of the header: both can be written; they are apart.
        unsafe {
            out.set(bytes);
            len.set(&[bytes.len()]);
        }
        Ok(())
    })
}

/// Reads a number, date or time of type `type` from its bytes. Members of `*number` that the type does not use are 0 then.
///
/// Threads: any. Never blocks.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_OVERLAP; KF_ERR_INVALID_INPUT: not such a type, or not its bytes; KF_ERR_UNSUPPORTED: a whole
/// number beyond 64 bits, whose bytes are right.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_number_decode(
    r#type: u8,
    value: *const u8,
    value_len: usize,
    number: *mut kf_number,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let mut out = Output::one(number)?;
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let value = unsafe { input(value, value_len) }?;
        out.apart_from(&[range_of(value)])?;
        let mut read = kf_number { integer: 0, real: 0.0, nanoseconds: 0, reserved: 0 };
        match value_of(r#type, value)? {
            Value::Integer(number) => {
                read.integer = i64::try_from(number)
                    .map_err(|_| Error::new(ErrorKind::Unsupported, "the number has more than 64 bits"))?;
            }
            Value::Float(number) => read.real = number,
            Value::Boolean(truth) => read.integer = truth.into(),
            Value::Date(days) => read.integer = days.into(),
            Value::Timestamp { seconds, nanoseconds } => (read.integer, read.nanoseconds) = (seconds, nanoseconds),
            _ => {
                let message = "the type is not one of numbers: its bytes are the value";
                return Err(Failure::own(kf_result::KF_ERR_INVALID_INPUT, message));
            }
        }
        // SAFETY: the contract of the header: `number` can be written; it is apart from the value.
        unsafe { out.set(&[read]) };
        Ok(())
    })
}
