//! Arrays of Arrow as they lie in memory. Every look at a row checks that the row lies within its buffers, so that what
//! contradicts itself, or is changed meanwhile, is an error and nothing worse.

use arrow_buffer::Buffer;
use arrow_schema::{DataType, TimeUnit};
use keyfold::{Error, ErrorKind, Result, Value, ValueType};
use std::borrow::Cow;
use std::ops::Range;

const DAY_IN_MILLISECONDS: i64 = 86_400_000;
pub(super) const NOT_UTF8: Error = Error::new(ErrorKind::InvalidInput, "the text is not UTF-8");
const CONTRADICTION: Error = Error::new(ErrorKind::InvalidInput, "the buffers of the column contradict each other");

/// An array of another program. Clones share its buffers.
#[derive(Clone)]
pub(super) struct Array {
    pub(super) len: usize,
    pub(super) offset: usize,
    pub(super) validity: Option<Buffer>,
    pub(super) layout: Layout,
}

#[derive(Clone)]
pub(super) enum Layout {
    /// Every row is null.
    Null,
    Bits(Buffer),
    Fixed {
        width: usize,
        data: Buffer,
    },
    Offsets32 {
        offsets: Buffer,
        data: Buffer,
    },
    Offsets64 {
        offsets: Buffer,
        data: Buffer,
    },
    Views {
        views: Buffer,
        data: Vec<Buffer>,
    },
    Dictionary {
        width: usize,
        is_signed: bool,
        keys: Buffer,
        values: Box<Array>,
    },
}

impl Array {
    /// The rows from `offset` on.
    pub(super) fn slice(self, offset: usize, len: usize) -> Option<Self> {
        (offset.checked_add(len)? <= self.len).then_some(())?;
        Some(Self { offset: self.offset + offset, len, ..self })
    }

    /// How many rows are not null, and how many bytes their values have together, as far as that is seen without a look at each.
    pub(super) fn expected(&self) -> (usize, usize) {
        let rows = match (&self.validity, &self.layout) {
            (_, Layout::Null) => 0,
            (Some(bits), _) if bits.len() >= (self.offset + self.len).div_ceil(8) => {
                bits.count_set_bits_offset(self.offset, self.len)
            }
            _ => self.len,
        };
        let bytes = match &self.layout {
            Layout::Offsets32 { data, .. } | Layout::Offsets64 { data, .. } if self.len > 0 => {
                let first = self.ends(self.offset).map_or(0, |(start, _)| start);
                let last = self.ends(self.offset + self.len - 1).map_or(0, |(_, end)| end.min(data.len()));
                last.saturating_sub(first)
            }
            Layout::Fixed { width, .. } => rows * width,
            _ => 0,
        };
        (rows, bytes)
    }

    /// The array that has the values: the dictionary's, if this is one.
    pub(super) fn leaf(&self) -> &Self {
        match &self.layout {
            Layout::Dictionary { values, .. } => values,
            _ => self,
        }
    }

    /// Where in [`leaf`](Self::leaf) the value of a row is; `None` if the row is null.
    #[inline]
    pub(super) fn place(&self, row: usize) -> Result<Option<usize>> {
        if self.is_null(row)? {
            return Ok(None);
        }
        let Layout::Dictionary { width, is_signed, keys, values } = &self.layout else { return Ok(Some(row)) };
        let key = keys.get((self.offset + row) * width..).and_then(|rest| rest.get(..*width));
        let key = key.and_then(|key| unsigned(key, *is_signed)).filter(|key| *key < values.len).ok_or(CONTRADICTION)?;
        Ok((!values.is_null(key)?).then_some(key))
    }

    #[inline]
    fn is_null(&self, row: usize) -> Result<bool> {
        match (&self.validity, &self.layout) {
            (_, Layout::Null) => Ok(true),
            (None, _) => Ok(false),
            (Some(validity), _) => bit(validity, self.offset + row).map(|valid| !valid).ok_or(CONTRADICTION),
        }
    }

    /// The bytes of a row of text, of bytes, or of a fixed width.
    #[inline]
    pub(super) fn bytes(&self, row: usize) -> Result<&[u8]> {
        self.find(self.offset + row).ok_or(CONTRADICTION)
    }

    #[inline]
    fn find(&self, at: usize) -> Option<&[u8]> {
        match &self.layout {
            Layout::Fixed { width, data } => data.get(at * width..)?.get(..*width),
            Layout::Offsets32 { data, .. } | Layout::Offsets64 { data, .. } => {
                let (start, end) = self.ends(at)?;
                data.get(start..end)
            }
            Layout::Views { views, data } => {
                let view = views.get(at * 16..at * 16 + 16)?;
                let part = |from: usize| Some(u32::from_ne_bytes(*view.get(from..)?.first_chunk()?) as usize);
                let len = part(0)?;
                match view.get(4..4 + len) {
                    Some(inline) => Some(inline),
                    None => data.get(part(8)?)?.get(part(12)?..)?.get(..len),
                }
            }
            Layout::Null | Layout::Bits(_) | Layout::Dictionary { .. } => None,
        }
    }

    /// Where in its data a row with offsets starts and ends.
    #[inline]
    fn ends(&self, at: usize) -> Option<(usize, usize)> {
        match &self.layout {
            Layout::Offsets32 { offsets, .. } => {
                let [start, end] = offsets.get(at * 4..at * 4 + 8)?.as_chunks::<4>().0 else { return None };
                let [start, end] = [*start, *end].map(|bytes| usize::try_from(i32::from_ne_bytes(bytes)).ok());
                Some((start?, end?))
            }
            Layout::Offsets64 { offsets, .. } => {
                let [start, end] = offsets.get(at * 8..at * 8 + 16)?.as_chunks::<8>().0 else { return None };
                let [start, end] = [*start, *end].map(|bytes| usize::try_from(i64::from_ne_bytes(bytes)).ok());
                Some((start?, end?))
            }
            _ => None,
        }
    }

    /// The bytes of `rows`, if these lie one after the other and none is null, and where in them each starts and ends.
    pub(super) fn run(&self, rows: Range<usize>) -> Option<(&[u8], impl Iterator<Item = Range<usize>>)> {
        let (Layout::Offsets32 { data, .. } | Layout::Offsets64 { data, .. }) = &self.layout else { return None };
        if self.validity.is_some() || rows.is_empty() {
            return None;
        }
        let (first, _) = self.ends(self.offset + rows.start)?;
        let (_, last) = self.ends(self.offset + rows.end - 1)?;
        // An offset that leads nowhere is beyond every end.
        let place = move |at: usize| match self.ends(at) {
            Some((start, end)) => start.wrapping_sub(first)..end.wrapping_sub(first),
            None => usize::MAX..usize::MAX,
        };
        Some((data.get(first..last)?, rows.map(move |row| place(self.offset + row))))
    }

    /// Bytes of `rows`, if these lie one after the other and none is null.
    pub(super) fn run_len(&self, rows: Range<usize>) -> Option<usize> {
        self.run(rows).map(|(bytes, _)| bytes.len())
    }

    /// Adds the bytes of `rows` to `values`, if these lie one after the other and all are in order. `None`: what
    /// it has added does not count, and a look at each row says what is wrong.
    pub(super) fn add_bytes<'a>(&'a self, rows: Range<usize>, values: &mut Vec<Cow<'a, [u8]>>) -> Option<()> {
        let (bytes, mut places) = self.run(rows)?;
        places.try_for_each(|place| bytes.get(place).map(|bytes| values.push(Cow::Borrowed(bytes))))
    }

    #[inline]
    fn number<const N: usize>(&self, row: usize) -> Result<[u8; N]> {
        self.bytes(row)?.try_into().map_err(|_| CONTRADICTION)
    }

    /// The value of a row, which is not null.
    #[inline]
    pub(super) fn value(&self, kind: Kind, row: usize) -> Result<Value<'_>> {
        let text = || str::from_utf8(self.bytes(row)?).map_err(|_| NOT_UTF8);
        Ok(match kind {
            Kind::Text => Value::Text(text()?),
            Kind::Json => Value::Json(text()?),
            Kind::Decimal => Value::Decimal(text()?),
            Kind::Bytes => Value::Bytes(self.bytes(row)?),
            fixed => self.fixed(fixed, row)?,
        })
    }

    /// The value of a row, which is not null, of a kind that has one width.
    #[inline]
    pub(super) fn fixed(&self, kind: Kind, row: usize) -> Result<Value<'static>> {
        Ok(match kind {
            Kind::Text | Kind::Json | Kind::Decimal | Kind::Bytes => return Err(CONTRADICTION),
            Kind::Boolean => {
                let Layout::Bits(bits) = &self.layout else { return Err(CONTRADICTION) };
                Value::Boolean(bit(bits, self.offset + row).ok_or(CONTRADICTION)?)
            }
            Kind::Int8 => Value::Integer(i8::from_ne_bytes(self.number(row)?).into()),
            Kind::Int16 => Value::Integer(i16::from_ne_bytes(self.number(row)?).into()),
            Kind::Int32 => Value::Integer(i32::from_ne_bytes(self.number(row)?).into()),
            Kind::Int64 => Value::Integer(i64::from_ne_bytes(self.number(row)?).into()),
            Kind::UInt8 => Value::Integer(u8::from_ne_bytes(self.number(row)?).into()),
            Kind::UInt16 => Value::Integer(u16::from_ne_bytes(self.number(row)?).into()),
            Kind::UInt32 => Value::Integer(u32::from_ne_bytes(self.number(row)?).into()),
            Kind::UInt64 => {
                let number = i64::try_from(u64::from_ne_bytes(self.number(row)?));
                let number = number.map_err(|_| {
                    Error::new(
                        ErrorKind::InvalidInput,
                        "a whole number of a column is at most 2⁶³ - 1, as it opens as int64",
                    )
                });
                Value::Integer(number?.into())
            }
            Kind::Float32 => Value::Float(f32::from_ne_bytes(self.number(row)?).into()),
            Kind::Float64 => Value::Float(f64::from_ne_bytes(self.number(row)?)),
            Kind::Date32 => Value::Date(i32::from_ne_bytes(self.number(row)?)),
            Kind::Date64 => {
                let since = i64::from_ne_bytes(self.number(row)?);
                let days = (since % DAY_IN_MILLISECONDS == 0).then_some(since / DAY_IN_MILLISECONDS);
                let days = days.and_then(|days| i32::try_from(days).ok());
                Value::Date(days.ok_or(Error::new(ErrorKind::InvalidInput, "a date64 is a whole number of days"))?)
            }
            Kind::Timestamp(unit) => timestamp(unit, i64::from_ne_bytes(self.number(row)?))?,
        })
    }
}

/// How the rows of an array are read.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Text,
    Json,
    Decimal,
    Bytes,
    Boolean,
    Int8,
    Int16,
    Int32,
    Int64,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    Float32,
    Float64,
    Date32,
    Date64,
    Timestamp(TimeUnit),
}

impl Kind {
    /// How rows of `data_type` are read, where the policy gives the field `value_type`.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): the type has no values, or is a timestamp without a time zone.
    pub(super) fn of(data_type: &DataType, value_type: Option<ValueType>) -> Result<Self> {
        Ok(match data_type {
            // No row is read.
            DataType::Null => Self::Bytes,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => match value_type {
                Some(ValueType::Json) => Self::Json,
                Some(ValueType::Decimal) => Self::Decimal,
                _ => Self::Text,
            },
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Self::Bytes
            }
            DataType::Boolean => Self::Boolean,
            DataType::Int8 => Self::Int8,
            DataType::Int16 => Self::Int16,
            DataType::Int32 => Self::Int32,
            DataType::Int64 => Self::Int64,
            DataType::UInt8 => Self::UInt8,
            DataType::UInt16 => Self::UInt16,
            DataType::UInt32 => Self::UInt32,
            DataType::UInt64 => Self::UInt64,
            DataType::Float32 => Self::Float32,
            DataType::Float64 => Self::Float64,
            DataType::Date32 => Self::Date32,
            DataType::Date64 => Self::Date64,
            DataType::Timestamp(unit, Some(_)) => Self::Timestamp(*unit),
            DataType::Timestamp(_, None) => {
                let why = "a timestamp needs a time zone: without one it is no point in time. Say which one it is in \
                           (pyarrow.compute.assume_timezone, Polars dt.replace_time_zone, pandas dt.tz_localize), or give it as text";
                return Err(Error::new(ErrorKind::InvalidInput, why));
            }
            DataType::Time32(_) | DataType::Time64(_) | DataType::Duration(_) | DataType::Interval(_) => {
                let why = "times of day, durations and intervals are no values of fields: give them as whole numbers of a unit, or as text";
                return Err(Error::new(ErrorKind::InvalidInput, why).with_detail(data_type.to_string()));
            }
            // They are spelled as text when the column is read.
            DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
                Self::Decimal
            }
            other => return Err(super::capsule::unsupported(other)),
        })
    }

    /// Whether rows are text as it lies in memory.
    pub(super) const fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Json | Self::Decimal)
    }

    /// The type of the values.
    pub(super) const fn value_type(self) -> ValueType {
        match self {
            Self::Text => ValueType::Text,
            Self::Json => ValueType::Json,
            Self::Decimal => ValueType::Decimal,
            Self::Bytes => ValueType::Bytes,
            Self::Boolean => ValueType::Boolean,
            Self::Float32 | Self::Float64 => ValueType::Float,
            Self::Date32 | Self::Date64 => ValueType::Date,
            Self::Timestamp(_) => ValueType::Timestamp,
            _ => ValueType::Integer,
        }
    }
}

/// A whole number of 1 to 8 bytes, unless it is below zero.
#[inline]
fn unsigned(bytes: &[u8], is_signed: bool) -> Option<usize> {
    let number = match *bytes {
        [a] => u64::from(a),
        [a, b] => u16::from_ne_bytes([a, b]).into(),
        [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]).into(),
        _ => u64::from_ne_bytes(bytes.try_into().ok()?),
    };
    let is_negative = is_signed && number >> (bytes.len() * 8 - 1) == 1;
    if is_negative { None } else { usize::try_from(number).ok() }
}

#[inline]
fn bit(bits: &Buffer, at: usize) -> Option<bool> {
    Some(bits.get(at / 8)? >> (at % 8) & 1 == 1)
}

/// Ticks of a unit in a second.
pub(super) const fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

fn timestamp(unit: TimeUnit, ticks: i64) -> Result<Value<'static>> {
    let per_second = per_second(unit);
    let nanoseconds = ticks.rem_euclid(per_second) * (1_000_000_000 / per_second);
    if nanoseconds % 1000 != 0 {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "a timestamp of a column has whole microseconds, as it opens as such",
        ));
    }
    Ok(Value::Timestamp { seconds: ticks.div_euclid(per_second), nanoseconds: nanoseconds as u32 })
}
