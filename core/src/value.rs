//! Values and their one canonical encoding (FORMAT.md §4.2): format byte ‖ value ‖ padding.

use crate::error::{Error, ErrorKind, Result};
use crate::wire::MAX_VALUE_LEN;
use core::fmt;

/// A value of a field: what its plaintext means, and how it is spelled in bytes.
///
/// Has no `Debug` that shows it, so that it cannot be logged by accident.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Absent, where absence itself is protected.
    Null,
    /// Raw bytes.
    Bytes(&'a [u8]),
    /// Text, never normalised.
    Text(&'a str),
    /// A whole number.
    Integer(i128),
    /// A decimal number as it is written, in the grammar of JSON numbers: `1.50` stays `1.50`.
    Decimal(&'a str),
    /// An IEEE 754 double. All NaN are one value.
    Float(f64),
    /// True or false.
    Boolean(bool),
    /// Days since 1970-01-01 in the proleptic Gregorian calendar.
    Date(i32),
    /// A point in time: seconds since 1970-01-01T00:00:00Z, leap seconds not counted, and nanoseconds below 10⁹.
    Timestamp {
        /// Whole seconds, rounded down.
        seconds: i64,
        /// Nanoseconds within the second.
        nanoseconds: u32,
    },
    /// One JSON value exactly as written. Not checked here.
    Json(&'a str),
}

/// The type of a [`Value`], as the low seven bits of the format byte.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum ValueType {
    /// [`Value::Bytes`]
    Bytes = 1,
    /// [`Value::Text`]
    Text = 2,
    /// [`Value::Integer`]
    Integer = 3,
    /// [`Value::Decimal`]
    Decimal = 4,
    /// [`Value::Float`]
    Float = 5,
    /// [`Value::Boolean`]
    Boolean = 6,
    /// [`Value::Date`]
    Date = 7,
    /// [`Value::Timestamp`]
    Timestamp = 8,
    /// [`Value::Json`]
    Json = 9,
    /// [`Value::Null`]
    Null = 10,
}

/// How the length of values is blurred.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Padding {
    /// Not at all: the ciphertext shows how long the value is.
    #[default]
    None,
    /// The encoded value is filled up to a multiple of this many bytes, 2 to 4,096.
    Multiple(u16),
    /// The Padmé rule: at most 12 % more, and only O(log log n) bits about the length remain.
    Padme,
}

impl Padding {
    /// Bytes of format byte, value and padding, for a value of `canonical_len` bytes.
    // F-4.2-4.
    #[inline]
    pub(crate) fn encoded_len(self, canonical_len: usize) -> usize {
        let plain = 1 + canonical_len;
        match self {
            Self::None => plain,
            Self::Multiple(n) => (plain + 1).next_multiple_of(usize::from(n).max(1)),
            Self::Padme => padme(plain + 1),
        }
    }
}

pub(crate) const TOO_LONG: Error =
    Error::new(ErrorKind::LimitExceeded, "a field holds at most 1 MiB (1,048,576 bytes)");

/// Set in the format byte when padding follows the value.
const PADDED: u8 = 0x80;
const PADDING_START: u8 = 0x80;

impl ValueType {
    /// Every type.
    pub const ALL: [Self; 10] = [
        Self::Bytes,
        Self::Text,
        Self::Integer,
        Self::Decimal,
        Self::Float,
        Self::Boolean,
        Self::Date,
        Self::Timestamp,
        Self::Json,
        Self::Null,
    ];

    /// The type with the number `id`, as format bytes have it.
    #[must_use]
    pub const fn from_id(id: u8) -> Option<Self> {
        match id {
            1..=10 => Some(Self::ALL[id as usize - 1]),
            _ => None,
        }
    }

    /// The lower-case name, as configuration files write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Decimal => "decimal",
            Self::Float => "float",
            Self::Boolean => "boolean",
            Self::Date => "date",
            Self::Timestamp => "timestamp",
            Self::Json => "json",
            Self::Null => "null",
        }
    }
}

impl<'a> Value<'a> {
    /// The type.
    #[must_use]
    pub const fn value_type(&self) -> ValueType {
        match self {
            Self::Null => ValueType::Null,
            Self::Bytes(_) => ValueType::Bytes,
            Self::Text(_) => ValueType::Text,
            Self::Integer(_) => ValueType::Integer,
            Self::Decimal(_) => ValueType::Decimal,
            Self::Float(_) => ValueType::Float,
            Self::Boolean(_) => ValueType::Boolean,
            Self::Date(_) => ValueType::Date,
            Self::Timestamp { .. } => ValueType::Timestamp,
            Self::Json(_) => ValueType::Json,
        }
    }

    /// Bytes of the canonical encoding (FORMAT.md §4.2), without format byte and padding.
    #[must_use]
    #[inline]
    pub fn canonical_len(&self) -> usize {
        match self {
            Self::Null => 0,
            Self::Bytes(bytes) => bytes.len(),
            Self::Text(text) | Self::Decimal(text) | Self::Json(text) => text.len(),
            Self::Integer(number) => integer_len(*number),
            Self::Float(_) => 8,
            Self::Boolean(_) => 1,
            Self::Date(_) => 4,
            Self::Timestamp { .. } => 12,
        }
    }

    /// Writes the canonical encoding; `out` has exactly [`canonical_len`](Self::canonical_len) bytes.
    ///
    /// # Panics
    ///
    /// If it has another length.
    pub fn write_canonical(&self, out: &mut [u8]) {
        self.try_write_canonical(out).expect("out has canonical_len bytes");
    }

    /// As [`write_canonical`](Self::write_canonical), for code that must not panic: `None` if `out` has another length.
    pub(crate) fn try_write_canonical(&self, out: &mut [u8]) -> Option<()> {
        fn put(out: &mut [u8], bytes: &[u8]) -> Option<()> {
            if out.len() != bytes.len() {
                return None;
            }
            out.copy_from_slice(bytes);
            Some(())
        }
        match self {
            Self::Null => put(out, &[]),
            Self::Bytes(bytes) => put(out, bytes),
            Self::Text(text) | Self::Decimal(text) | Self::Json(text) => put(out, text.as_bytes()),
            Self::Integer(number) => {
                let wide = number.to_be_bytes();
                put(out, wide.get(wide.len().checked_sub(out.len())?..)?)
            }
            Self::Float(number) => {
                let bits = if number.is_nan() { 0x7FF8_0000_0000_0000 } else { number.to_bits() };
                put(out, &bits.to_be_bytes())
            }
            Self::Boolean(truth) => put(out, &[u8::from(*truth)]),
            Self::Date(days) => put(out, &days.to_be_bytes()),
            Self::Timestamp { seconds, nanoseconds } => {
                let (whole, rest) = out.split_first_chunk_mut::<8>()?;
                *whole = seconds.to_be_bytes();
                put(rest, &nanoseconds.to_be_bytes())
            }
        }
    }

    /// Refuses what has no canonical encoding or is too long.
    ///
    /// # Errors
    ///
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): longer than [`MAX_VALUE_LEN`].
    /// - [`InvalidInput`](ErrorKind::InvalidInput): a decimal outside the JSON grammar, a second with 10⁹ nanoseconds.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        if self.canonical_len() > MAX_VALUE_LEN {
            return Err(TOO_LONG);
        }
        match self {
            Self::Decimal(text) if !is_json_number(text.as_bytes()) => {
                Err(Error::new(ErrorKind::InvalidInput, "a decimal is written like a JSON number"))
            }
            Self::Timestamp { nanoseconds, .. } if *nanoseconds >= 1_000_000_000 => {
                Err(Error::new(ErrorKind::InvalidInput, "a timestamp has fewer than 10⁹ nanoseconds"))
            }
            _ => Ok(()),
        }
    }

    /// Bytes of format byte, value and padding.
    #[inline]
    pub(crate) fn encoded_len(&self, padding: Padding) -> usize {
        padding.encoded_len(self.canonical_len())
    }

    /// Writes format byte, value and padding; `out` has exactly [`encoded_len`](Self::encoded_len) bytes.
    #[cfg(feature = "std")]
    #[inline]
    pub(crate) fn encode(&self, padding: Padding, out: &mut [u8]) {
        self.try_encode(padding, out).expect("out has encoded_len bytes");
    }

    /// As [`encode`](Self::encode), for code that must not panic: `None` if `out` is too short.
    #[inline]
    pub(crate) fn try_encode(&self, padding: Padding, out: &mut [u8]) -> Option<()> {
        let flag = if padding == Padding::None { 0 } else { PADDED };
        let (format, rest) = out.split_first_mut()?;
        *format = self.value_type() as u8 | flag;
        let (canonical, rest) = rest.split_at_mut_checked(self.canonical_len())?;
        self.try_write_canonical(canonical)?;
        if let Some((start, zeros)) = rest.split_first_mut() {
            *start = PADDING_START;
            zeros.fill(0);
        }
        Some(())
    }

    /// The type and the canonical bytes of an encoded value whose tag has been verified.
    // F-4.2-3, F-4.2-5.
    pub(crate) fn split_encoded(encoded: &[u8]) -> Option<(ValueType, &[u8])> {
        let (&format, rest) = encoded.split_first()?;
        let value_type = ValueType::from_id(format & !PADDED)?;
        let bytes = if format & PADDED == 0 {
            rest
        } else {
            let end = rest.iter().rposition(|&byte| byte != 0)?;
            (rest[end] == PADDING_START).then_some(&rest[..end])?
        };
        Value::from_canonical(value_type, bytes)?;
        Some((value_type, bytes))
    }

    /// The value whose canonical encoding is `bytes`; `None` if `bytes` is not canonical.
    // F-4.2-2, F-1-1.
    #[must_use]
    pub fn from_canonical(value_type: ValueType, bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() > MAX_VALUE_LEN {
            return None;
        }
        Some(match value_type {
            ValueType::Null => bytes.is_empty().then_some(Self::Null)?,
            ValueType::Bytes => Self::Bytes(bytes),
            ValueType::Text => Self::Text(core::str::from_utf8(bytes).ok()?),
            ValueType::Json => Self::Json(core::str::from_utf8(bytes).ok()?),
            ValueType::Decimal => {
                is_json_number(bytes).then_some(())?;
                Self::Decimal(core::str::from_utf8(bytes).ok()?)
            }
            ValueType::Integer => {
                let first = *bytes.first()?;
                let mut wide = [if first & 0x80 == 0 { 0 } else { 0xFF }; 16];
                wide.get_mut(16_usize.checked_sub(bytes.len())?..)?.copy_from_slice(bytes);
                let number = i128::from_be_bytes(wide);
                (integer_len(number) == bytes.len()).then_some(Self::Integer(number))?
            }
            ValueType::Float => {
                let number = f64::from_bits(u64::from_be_bytes(bytes.try_into().ok()?));
                let canonical = !number.is_nan() || number.to_bits() == 0x7FF8_0000_0000_0000;
                canonical.then_some(Self::Float(number))?
            }
            ValueType::Boolean => match bytes {
                [0] => Self::Boolean(false),
                [1] => Self::Boolean(true),
                _ => return None,
            },
            ValueType::Date => Self::Date(i32::from_be_bytes(bytes.try_into().ok()?)),
            ValueType::Timestamp => {
                let (seconds, nanoseconds) = bytes.split_first_chunk::<8>()?;
                let nanoseconds = u32::from_be_bytes(nanoseconds.try_into().ok()?);
                let seconds = i64::from_be_bytes(*seconds);
                (nanoseconds < 1_000_000_000).then_some(Self::Timestamp { seconds, nanoseconds })?
            }
        })
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({})", self.value_type().name())
    }
}

/// Bytes of the shortest two's complement form, at least one.
fn integer_len(number: i128) -> usize {
    let significant = 128 - if number < 0 { number.leading_ones() } else { number.leading_zeros() };
    significant as usize / 8 + 1
}

/// The Padmé length of `len` bytes (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files", 2019, §4.3).
fn padme(len: usize) -> usize {
    let exponent = len.max(2).ilog2();
    let last_bits = exponent - (exponent.ilog2() + 1).min(exponent);
    len.next_multiple_of(1 << last_bits)
}

/// RFC 8259 §6.
fn is_json_number(text: &[u8]) -> bool {
    fn digits(text: &[u8]) -> Option<&[u8]> {
        let len = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        text.get(len..).filter(|_| len > 0)
    }
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let whole = match text {
        [b'0', rest @ ..] => Some(rest),
        _ => digits(text),
    };
    let fraction = whole.and_then(|rest| rest.strip_prefix(b".").map_or(Some(rest), digits));
    let exponent = fraction.and_then(|rest| match rest {
        [b'e' | b'E', b'+' | b'-', rest @ ..] | [b'e' | b'E', rest @ ..] => digits(rest),
        _ => Some(rest),
    });
    exponent.is_some_and(<[u8]>::is_empty)
}

#[cfg(feature = "std")]
mod text;

#[cfg(all(test, feature = "std"))]
mod tests;
