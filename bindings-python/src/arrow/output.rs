//! Arrays of Arrow that are made here, row by row.

use super::array::{Kind, per_second};
use super::capsule::unsupported;
use super::decimal;
use super::pages;
use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBufferBuilder};
use arrow_data::{ArrayData, ByteView, MAX_INLINE_VIEW_LEN};
use arrow_schema::{DataType, TimeUnit};
use keyfold::{Error, ErrorKind, Result, SealedColumn, Value, ValueType};
use std::mem;

/// Bytes of a buffer that views point into: small enough for their 32 bits, whatever the last value adds to it.
const VIEW_BUFFER_LEN: usize = 64 * 1024 * 1024;

/// An array that is being made.
pub(super) struct Output {
    data_type: DataType,
    /// The type of the values that it holds.
    holds: ValueType,
    rows: Rows,
    nulls: NullBufferBuilder,
    /// Bytes of rows for which there are pages.
    ready: usize,
}

enum Rows {
    Bits(BooleanBufferBuilder),
    Fixed { width: usize, data: Vec<u8> },
    Offsets32 { offsets: Vec<i32>, data: Vec<u8> },
    Offsets64 { offsets: Vec<i64>, data: Vec<u8> },
    Views { views: Vec<u128>, buffers: Vec<Buffer>, data: Vec<u8> },
}

impl Output {
    /// An array of `data_type` that will have `len` rows or more.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): values do not open as that type.
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): there is no memory for as many rows.
    pub(super) fn new(data_type: DataType, len: usize) -> Result<Self> {
        let holds = Kind::of(&data_type, None)?.value_type();
        let rows = match &data_type {
            DataType::Boolean => Rows::Bits(BooleanBufferBuilder::new(len)),
            DataType::Utf8 | DataType::Binary => {
                let mut offsets = with_room(len + 1)?;
                offsets.push(0);
                Rows::Offsets32 { offsets, data: Vec::new() }
            }
            DataType::LargeUtf8 | DataType::LargeBinary => {
                let mut offsets = with_room(len + 1)?;
                offsets.push(0);
                Rows::Offsets64 { offsets, data: Vec::new() }
            }
            DataType::Utf8View | DataType::BinaryView => {
                Rows::Views { views: with_room(len)?, buffers: Vec::new(), data: Vec::new() }
            }
            DataType::FixedSizeBinary(width) => {
                let width = usize::try_from(*width).map_err(|_| unsupported(&data_type))?;
                Rows::Fixed { width, data: with_room(len.saturating_mul(width))? }
            }
            other => match other.primitive_width() {
                Some(width) => Rows::Fixed { width, data: with_room(len.saturating_mul(width))? },
                None => return Err(unsupported(other)),
            },
        };
        Ok(Self { data_type, holds, rows, nulls: NullBufferBuilder::new(len), ready: 0 })
    }

    pub(super) fn len(&self) -> usize {
        self.nulls.len()
    }

    /// Makes room for about `len` bytes of rows of any length.
    pub(super) fn expect(&mut self, len: usize) {
        if let Rows::Offsets32 { data, .. } | Rows::Offsets64 { data, .. } = &mut self.rows {
            pages::reserve(data, len);
        }
    }

    /// Lets `add` add sealed rows behind the bytes of those that there are; afterwards `offsets` says where they lie, and
    /// [`push_ends`](Self::push_ends) takes them as rows. `None`: the bytes of rows do not lie one after the other here.
    pub(super) fn add_sealed<T>(
        &mut self,
        offsets: &mut Vec<i64>,
        add: impl FnOnce(&mut SealedColumn) -> T,
    ) -> Option<T> {
        let (Rows::Offsets32 { data, .. } | Rows::Offsets64 { data, .. }) = &mut self.rows else { return None };
        pages::prepare(data, &mut self.ready);
        offsets.clear();
        offsets.push(data.len() as i64);
        let column = SealedColumn::from_parts(mem::take(data), mem::take(offsets));
        let mut column = column.expect("no row, and the end of the data");
        let added = add(&mut column);
        (*data, *offsets) = column.into_parts();
        Some(added)
    }

    /// Adds rows that [`add_sealed`](Self::add_sealed) has brought: row `rows[i]` ends at `ends[i]`, and rows between are null.
    pub(super) fn push_ends(&mut self, rows: &[usize], ends: &[i64]) -> Result<()> {
        self.push_moved(rows, ends, 0)
    }

    fn push_moved(&mut self, rows: &[usize], ends: &[i64], by: i64) -> Result<()> {
        let (Some(last), Some(end)) = (rows.last(), ends.last()) else { return Ok(()) };
        if matches!(self.rows, Rows::Offsets32 { .. }) {
            i32::try_from(end + by).map_err(|_| TOO_MUCH)?;
        }
        if self.len() + rows.len() == last + 1 {
            match &mut self.rows {
                Rows::Offsets32 { offsets, .. } => offsets.extend(ends.iter().map(|end| (end + by) as i32)),
                Rows::Offsets64 { offsets, .. } => offsets.extend(ends.iter().map(|end| end + by)),
                Rows::Bits(_) | Rows::Fixed { .. } | Rows::Views { .. } => {}
            }
            self.nulls.append_n_non_nulls(rows.len());
            return Ok(());
        }
        for (row, end) in rows.iter().zip(ends) {
            self.pad(*row);
            match &mut self.rows {
                Rows::Offsets32 { offsets, .. } => offsets.push((end + by) as i32),
                Rows::Offsets64 { offsets, .. } => offsets.push(end + by),
                Rows::Bits(_) | Rows::Fixed { .. } | Rows::Views { .. } => {}
            }
            self.nulls.append_non_null();
        }
        Ok(())
    }

    /// Adds null rows until there are `len`.
    pub(super) fn pad(&mut self, len: usize) {
        if len > self.len() {
            self.push_nulls(len - self.len());
        }
    }

    pub(super) fn push_nulls(&mut self, n: usize) {
        self.nulls.append_n_nulls(n);
        match &mut self.rows {
            Rows::Bits(bits) => bits.append_n(n, false),
            Rows::Fixed { width, data } => data.resize(data.len() + n * *width, 0),
            Rows::Offsets32 { offsets, .. } => offsets.resize(offsets.len() + n, offsets[offsets.len() - 1]),
            Rows::Offsets64 { offsets, .. } => offsets.resize(offsets.len() + n, offsets[offsets.len() - 1]),
            Rows::Views { views, .. } => views.resize(views.len() + n, 0),
        }
    }

    /// Adds a row of bytes, or of text that is given as bytes.
    #[inline]
    pub(super) fn push_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.rows {
            Rows::Offsets32 { offsets, data } => {
                let end = i32::try_from(data.len() + bytes.len()).map_err(|_| TOO_MUCH)?;
                data.extend_from_slice(bytes);
                offsets.push(end);
            }
            Rows::Offsets64 { offsets, data } => {
                data.extend_from_slice(bytes);
                offsets.push(data.len() as i64);
            }
            Rows::Views { views, buffers, data } => views.push(view(bytes, buffers, data)?),
            Rows::Fixed { width, data } if *width == bytes.len() => data.extend_from_slice(bytes),
            Rows::Fixed { .. } | Rows::Bits(_) => return Err(wrong_length(&self.data_type)),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// Adds rows of bytes, or of text that is given as bytes: row `rows[i]` is `bytes[offsets[i]..offsets[i + 1]]`, and rows between
    /// are null.
    pub(super) fn push_all(&mut self, rows: &[usize], bytes: &[u8], offsets: &[i64]) -> Result<()> {
        if let Rows::Offsets32 { data, .. } | Rows::Offsets64 { data, .. } = &mut self.rows {
            let by = data.len() as i64;
            data.extend_from_slice(bytes);
            return self.push_moved(rows, &offsets[1..], by);
        }
        rows.iter().zip(offsets.windows(2)).try_for_each(|(row, ends)| {
            self.pad(*row);
            self.push_bytes(&bytes[ends[0] as usize..ends[1] as usize])
        })
    }

    /// Whether values of `value_type` lie in the array as their canonical bytes, whatever their length.
    pub(super) fn takes_as_is(&self, value_type: ValueType) -> bool {
        let is_free = !matches!(self.rows, Rows::Fixed { .. });
        is_free && value_type == self.holds && matches!(value_type, ValueType::Text | ValueType::Bytes)
    }

    /// Adds a row that holds `value`.
    ///
    /// # Errors
    ///
    /// - [`Unsupported`](ErrorKind::Unsupported): the value has another type than the array, or does not fit. No row was added.
    pub(super) fn push(&mut self, value: Value<'_>) -> Result<()> {
        match value {
            Value::Null => {
                self.push_nulls(1);
                return Ok(());
            }
            Value::Decimal(text) if self.holds == ValueType::Decimal => {
                let number = decimal::parse(text, &self.data_type).ok_or_else(|| does_not_fit(&self.data_type))?;
                return self.push_bytes(&number);
            }
            _ if self.holds != stored_as(value.value_type()) => return Err(other_type(value, &self.data_type)),
            Value::Bytes(bytes) => return self.push_bytes(bytes),
            Value::Text(text) | Value::Json(text) | Value::Decimal(text) => return self.push_bytes(text.as_bytes()),
            Value::Boolean(truth) => {
                if let Rows::Bits(bits) = &mut self.rows {
                    bits.append(truth);
                }
                self.nulls.append_non_null();
                return Ok(());
            }
            _ => {}
        }
        let Some(fixed) = fixed(value, &self.data_type) else { return Err(does_not_fit(&self.data_type)) };
        self.push_bytes(fixed.bytes())
    }

    /// The array.
    pub(super) fn finish(mut self) -> Result<ArrayData> {
        let len = self.nulls.len();
        let buffers = match self.rows {
            Rows::Bits(mut bits) => vec![bits.finish().into_inner()],
            Rows::Fixed { data, .. } => vec![data.into()],
            Rows::Offsets32 { offsets, data } => vec![offsets.into(), data.into()],
            Rows::Offsets64 { offsets, data } => vec![offsets.into(), data.into()],
            Rows::Views { views, mut buffers, data } => {
                buffers.push(data.into());
                buffers.insert(0, views.into());
                buffers
            }
        };
        let array =
            ArrayData::builder(self.data_type).len(len).buffers(buffers).nulls(self.nulls.finish()).align_buffers(true);
        array.build().map_err(|_| Error::new(ErrorKind::Internal, "an array that does not hold together"))
    }
}

/// A vector that has room for `len`, which may be a number that a producer gave.
///
/// # Errors
///
/// - [`LimitExceeded`](ErrorKind::LimitExceeded): there is no memory for it.
pub(super) fn with_room<T>(len: usize) -> Result<Vec<T>> {
    let mut made = Vec::new();
    let room = made.try_reserve_exact(len);
    room.map_err(|_| Error::new(ErrorKind::LimitExceeded, "there is no memory for as many rows"))?;
    Ok(made)
}

/// The value as it lies in an array of fixed width.
struct Fixed([u8; 8], usize);

impl Fixed {
    fn new<const N: usize>(bytes: [u8; N]) -> Self {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(&bytes);
        Self(wide, N)
    }

    fn bytes(&self) -> &[u8] {
        &self.0[..self.1]
    }
}

/// `None`: the value does not fit without loss.
fn fixed(value: Value<'_>, data_type: &DataType) -> Option<Fixed> {
    Some(match (value, data_type) {
        (Value::Integer(number), DataType::Int8) => Fixed::new(i8::try_from(number).ok()?.to_ne_bytes()),
        (Value::Integer(number), DataType::Int16) => Fixed::new(i16::try_from(number).ok()?.to_ne_bytes()),
        (Value::Integer(number), DataType::Int32) => Fixed::new(i32::try_from(number).ok()?.to_ne_bytes()),
        (Value::Integer(number), DataType::Int64) => Fixed::new(i64::try_from(number).ok()?.to_ne_bytes()),
        (Value::Integer(number), DataType::UInt8) => Fixed::new(u8::try_from(number).ok()?.to_ne_bytes()),
        (Value::Integer(number), DataType::UInt16) => Fixed::new(u16::try_from(number).ok()?.to_ne_bytes()),
        (Value::Integer(number), DataType::UInt32) => Fixed::new(u32::try_from(number).ok()?.to_ne_bytes()),
        (Value::Integer(number), DataType::UInt64) => Fixed::new(u64::try_from(number).ok()?.to_ne_bytes()),
        (Value::Float(number), DataType::Float64) => Fixed::new(number.to_ne_bytes()),
        (Value::Float(number), DataType::Float32) => {
            let short = number as f32;
            (f64::from(short) == number || number.is_nan()).then_some(Fixed::new(short.to_ne_bytes()))?
        }
        (Value::Date(days), DataType::Date32) => Fixed::new(days.to_ne_bytes()),
        (Value::Date(days), DataType::Date64) => Fixed::new((i64::from(days) * 86_400_000).to_ne_bytes()),
        (Value::Timestamp { seconds, nanoseconds }, DataType::Timestamp(unit, _)) => {
            let per_tick = 1_000_000_000 / per_second(*unit);
            let nanoseconds = i64::from(nanoseconds);
            (nanoseconds % per_tick == 0).then_some(())?;
            // In 128 bits, since the first second that there is begins before the first nanosecond that there is.
            let ticks = i128::from(seconds) * i128::from(per_second(*unit)) + i128::from(nanoseconds / per_tick);
            Fixed::new(i64::try_from(ticks).ok()?.to_ne_bytes())
        }
        _ => return None,
    })
}

#[inline]
fn view(bytes: &[u8], buffers: &mut Vec<Buffer>, data: &mut Vec<u8>) -> Result<u128> {
    let len = u32::try_from(bytes.len()).map_err(|_| TOO_MUCH)?;
    if len <= MAX_INLINE_VIEW_LEN {
        let mut view = [0; 16];
        view[..4].copy_from_slice(&len.to_ne_bytes());
        view[4..4 + bytes.len()].copy_from_slice(bytes);
        return Ok(u128::from_ne_bytes(view));
    }
    if data.len() >= VIEW_BUFFER_LEN {
        buffers.push(mem::take(data).into());
    }
    let view = ByteView::new(len, &bytes[..4]).with_offset(data.len() as u32).with_buffer_index(buffers.len() as u32);
    data.extend_from_slice(bytes);
    Ok(view.as_u128())
}

/// The Arrow type that values of `value_type` open as, with text and bytes like those of `like`.
pub(super) fn default_type(value_type: ValueType, like: &DataType) -> DataType {
    match value_type {
        ValueType::Bytes => bytes_like(like),
        ValueType::Integer => DataType::Int64,
        ValueType::Float => DataType::Float64,
        ValueType::Boolean => DataType::Boolean,
        ValueType::Date => DataType::Date32,
        ValueType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        _ => text_like(like),
    }
}

/// The type of bytes whose rows lie as those of `like` do.
pub(super) fn bytes_like(like: &DataType) -> DataType {
    match like {
        DataType::LargeUtf8 | DataType::LargeBinary => DataType::LargeBinary,
        DataType::Utf8View | DataType::BinaryView => DataType::BinaryView,
        _ => DataType::Binary,
    }
}

/// The type of text whose rows lie as those of `like` do.
pub(super) fn text_like(like: &DataType) -> DataType {
    match like {
        DataType::LargeUtf8 | DataType::LargeBinary => DataType::LargeUtf8,
        DataType::Utf8View | DataType::BinaryView => DataType::Utf8View,
        _ => DataType::Utf8,
    }
}

/// How arrays hold values of a type: what is spelled as text they hold as text.
const fn stored_as(value_type: ValueType) -> ValueType {
    match value_type {
        ValueType::Json | ValueType::Decimal => ValueType::Text,
        other => other,
    }
}

const TOO_MUCH: Error = Error::new(
    ErrorKind::LimitExceeded,
    "a column with 32-bit offsets holds at most 2 GiB: give it in chunks, or as large_binary or large_string",
);

#[cold]
fn other_type(value: Value<'_>, data_type: &DataType) -> Error {
    let is = value.value_type().name();
    Error::new(ErrorKind::Unsupported, "the value has another type than the column")
        .with_detail(format!("{is}, not {data_type}"))
}

#[cold]
fn does_not_fit(data_type: &DataType) -> Error {
    Error::new(ErrorKind::Unsupported, "the value does not fit the type of the column without loss")
        .with_detail(data_type.to_string())
}

#[cold]
fn wrong_length(data_type: &DataType) -> Error {
    Error::new(ErrorKind::Unsupported, "the value has another length than the type of the column")
        .with_detail(data_type.to_string())
}
