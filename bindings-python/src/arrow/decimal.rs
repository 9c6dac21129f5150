//! Decimal numbers: in Arrow whole numbers of a power of ten, and as values of fields text.

use super::array::{Array, Layout};
use arrow_buffer::{Buffer, i256};
use arrow_schema::DataType;
use bytes::Bytes;
use std::fmt::Write;
use zeroize::Zeroizing;

/// Most digits of a number of any of Arrow's types.
const MAX_DIGITS: usize = 76;
/// Most bytes that a number has beside its digits: `-0.00000`, or `-`, `.` and `E-127`.
const MAX_EXTRA_LEN: usize = 8;

/// Precision and scale, if `data_type` is one of decimals.
pub(super) const fn of_type(data_type: &DataType) -> Option<(u8, i8)> {
    match data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => Some((*precision, *scale)),
        _ => None,
    }
}

/// `array`, of decimals with `scale`, as an array of text.
pub(super) fn spelled(array: Array, scale: i8) -> Array {
    let layout = match array.layout {
        Layout::Dictionary { width, is_signed, keys, values } => {
            Layout::Dictionary { width, is_signed, keys, values: Box::new(spelled(*values, scale)) }
        }
        _ => {
            let validity = array.validity.as_ref().map(|bits| bits.bit_slice(array.offset, array.len));
            let layout = text_of(&array, scale);
            return Array { len: array.len, offset: 0, validity, layout };
        }
    };
    Array { layout, ..array }
}

fn text_of(array: &Array, scale: i8) -> Layout {
    let numbers = || (0..array.len).map(|row| array.place(row).ok().flatten().and_then(|row| array.bytes(row).ok()));
    let present = numbers().flatten().count();
    // All at once, since a vector that grows leaves copies behind.
    let digits = numbers().flatten().next().map_or(0, |number| most_digits(number.len()));
    let mut data = Zeroizing::new(String::with_capacity(present * (digits + MAX_EXTRA_LEN)));
    let mut offsets = Vec::with_capacity(array.len + 1);
    let mut number_text = Zeroizing::new(String::with_capacity(MAX_DIGITS + 2));
    offsets.push(0_i64);
    for number in numbers() {
        if let Some(number) = number {
            number_text.clear();
            push_number(number, &mut number_text);
            spell(&number_text, scale, &mut data);
        }
        offsets.push(data.len() as i64);
    }
    Layout::Offsets64 { offsets: offsets.into(), data: Buffer::from(Bytes::from_owner(data)) }
}

/// Most digits of a number of `width` bytes.
const fn most_digits(width: usize) -> usize {
    match width {
        4 => 10,
        8 => 19,
        16 => 39,
        _ => 78,
    }
}

/// Adds the whole number in `bytes`.
fn push_number(bytes: &[u8], out: &mut String) {
    // Writing to a string does not fail.
    let _ = match (bytes.try_into(), bytes.try_into(), bytes.try_into(), bytes.try_into()) {
        (Ok(four), ..) => write!(out, "{}", i32::from_ne_bytes(four)),
        (_, Ok(eight), ..) => write!(out, "{}", i64::from_ne_bytes(eight)),
        (.., Ok(sixteen), _) => write!(out, "{}", i128::from_ne_bytes(sixteen)),
        (.., Ok(bytes)) => write!(out, "{}", i256::from_le_bytes(bytes)),
        _ => Ok(()),
    };
}

/// Adds `number` · 10^-`scale` as `str(decimal.Decimal)` spells it, and `BigDecimal` of Java, so that a column and its single
/// values are the same to a deterministic field (General Decimal Arithmetic, to-scientific-string).
fn spell(number: &str, scale: i8, out: &mut String) {
    let (sign, digits) = number.strip_prefix('-').map_or(("", number), |digits| ("-", digits));
    let (len, scale) = (digits.len(), i64::from(scale));
    let exponent = len as i64 - 1 - scale;
    out.push_str(sign);
    if scale < 0 || exponent < -6 {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let _ = write!(out, "{first}{point}{rest}E{exponent:+}");
    } else if scale == 0 {
        out.push_str(digits);
    } else if exponent >= 0 {
        let (whole, rest) = digits.split_at(len - scale as usize);
        let _ = write!(out, "{whole}.{rest}");
    } else {
        let _ = write!(out, "0.{digits:0>width$}", width = scale as usize);
    }
}

/// The bytes of the decimal `text` in an array of `data_type`. `None`: it does not fit without loss.
pub(super) fn parse(text: &str, data_type: &DataType) -> Option<Zeroizing<Vec<u8>>> {
    let (precision, scale) = of_type(data_type)?;
    let number = unscaled(text, precision, scale)?;
    let bytes = match data_type {
        DataType::Decimal32(..) => number.parse::<i32>().ok()?.to_ne_bytes().to_vec(),
        DataType::Decimal64(..) => number.parse::<i64>().ok()?.to_ne_bytes().to_vec(),
        DataType::Decimal128(..) => number.parse::<i128>().ok()?.to_ne_bytes().to_vec(),
        _ => i256::from_string(&number)?.to_le_bytes().to_vec(),
    };
    Some(Zeroizing::new(bytes))
}

/// The whole number `text` · 10^`scale`, if it is one and has at most `precision` digits.
fn unscaled(text: &str, precision: u8, scale: i8) -> Option<Zeroizing<String>> {
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |text| ("-", text));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut number = Zeroizing::new(String::with_capacity(text.len() + MAX_DIGITS + 1));
    number.push_str(whole);
    number.push_str(fraction);
    let digits = number.trim_start_matches('0').len();
    if digits == 0 {
        return Some(Zeroizing::new("0".to_owned()));
    }
    let zeros = exponent.parse::<i64>().ok()?.checked_add(i64::from(scale))?.checked_sub(fraction.len() as i64)?;
    let digits = usize::try_from(zeros.checked_add(digits as i64)?).ok()?;
    if digits > usize::from(precision).min(MAX_DIGITS) {
        return None;
    }
    match usize::try_from(zeros) {
        Ok(zeros) => (0..zeros).for_each(|_| number.push('0')),
        Err(_) => {
            let end = number.len().checked_sub(usize::try_from(zeros.unsigned_abs()).ok()?)?;
            number[end..].bytes().all(|digit| digit == b'0').then(|| number.truncate(end))?;
        }
    }
    number.insert_str(0, sign);
    Some(number)
}
