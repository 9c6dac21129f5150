//! Arrow's C interfaces in capsules of Python: arrays, streams of arrays and their schemas, in and out. The unsafe code of
//! this package is here, but for one request to the kernel in `pages`.
//!
//! A producer promises that its pointers are valid as long as what they come from is not released, and that nobody writes to
//! the buffers meanwhile. The interface does not say how long buffers are; here their lengths follow from the type, the number
//! of rows and the last offset. Nothing else is taken on trust: whoever reads a row checks where it lies.
#![allow(unsafe_code, reason = "the C interface consists of pointers")]

use super::array::{Array, Layout};
use arrow_buffer::Buffer;
use arrow_data::ArrayData;
use arrow_data::ffi::FFI_ArrowArray;
use arrow_schema::DataType;
use arrow_schema::ffi::FFI_ArrowSchema;
use keyfold::{Error, ErrorKind, Result};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::sync::Arc;

const SCHEMA: &CStr = c"arrow_schema";
const ARRAY: &CStr = c"arrow_array";
const STREAM: &CStr = c"arrow_array_stream";

const RELEASED: Error = Error::new(ErrorKind::InvalidInput, "the Arrow data has been released or taken already");
/// Most rows of an array that has no bytes for them, so that a number alone does not claim memory.
const MAX_ROWS_OF_NOTHING: usize = i32::MAX as usize;

const NOT_ARROW: Error = Error::new(ErrorKind::InvalidInput, "what the object gives is not laid out as Arrow says");

/// Moves what is in `capsule` out of it, and leaves `empty`, which has been released.
fn take<T>(capsule: &Bound<'_, PyAny>, name: &CStr, empty: T) -> PyResult<T> {
    let pointer: NonNull<T> = capsule.cast::<PyCapsule>()?.pointer_checked(Some(name))?.cast();
    // SAFETY: a capsule of this name holds a valid, aligned structure of this type (Arrow's PyCapsule interface), and the GIL
    // keeps others from it.
    Ok(unsafe { ptr::replace(pointer.as_ptr(), empty) })
}

/// What `schema`, a capsule, says that the type is.
pub(super) fn take_type(schema: &Bound<'_, PyAny>) -> PyResult<Result<DataType>> {
    let schema = take(schema, SCHEMA, FFI_ArrowSchema::empty())?;
    Ok(type_of(&schema))
}

fn type_of(schema: &FFI_ArrowSchema) -> Result<DataType> {
    if schema.release().is_none() {
        return Err(RELEASED);
    }
    // A schema without a format, or whose format is no text, panics.
    let parsed = catch_unwind(AssertUnwindSafe(|| DataType::try_from(schema)));
    parsed.ok().and_then(std::result::Result::ok).ok_or(NOT_ARROW)
}

/// The array in `array`, a capsule.
pub(super) fn take_array(array: &Bound<'_, PyAny>, data_type: &DataType) -> PyResult<Result<Array>> {
    let array = take(array, ARRAY, FFI_ArrowArray::empty())?;
    Ok(import(array, data_type))
}

fn import(array: FFI_ArrowArray, data_type: &DataType) -> Result<Array> {
    if array.is_released() {
        return Err(RELEASED);
    }
    let owner = Arc::new(array);
    // Pointers to nothing and numbers below zero panic.
    let imported = catch_unwind(AssertUnwindSafe(|| Import { owner: &owner, part: &owner }.array(data_type)));
    imported.unwrap_or(Err(NOT_ARROW))
}

/// An array, or a part of it, that is looked at.
struct Import<'a> {
    owner: &'a Arc<FFI_ArrowArray>,
    part: &'a FFI_ArrowArray,
}

impl<'a> Import<'a> {
    fn array(&self, data_type: &DataType) -> Result<Array> {
        let (len, offset) = (self.part.len(), self.part.offset());
        let end = offset.checked_add(len).filter(|end| isize::try_from(*end).is_ok()).ok_or(NOT_ARROW)?;
        if let DataType::Struct(fields) = data_type {
            return self.only_column(fields, offset, len);
        }
        let needed = usize::from(*data_type != DataType::Null);
        if self.part.num_buffers() < needed || isize::try_from(self.part.num_buffers()).is_err() {
            return Err(NOT_ARROW);
        }
        let layout = match data_type {
            DataType::Null => Layout::Null,
            DataType::Boolean => Layout::Bits(self.buffer(1, Some(end.div_ceil(8)))?),
            DataType::Utf8 | DataType::Binary => {
                let offsets = self.buffer(1, self.offsets_len(end, 4))?;
                let last = offsets.len().checked_sub(4).and_then(|at| offsets[at..].try_into().ok());
                let data_len = last.map_or(Some(0), |last| usize::try_from(i32::from_ne_bytes(last)).ok());
                Layout::Offsets32 { offsets, data: self.buffer(2, data_len)? }
            }
            DataType::LargeUtf8 | DataType::LargeBinary => {
                let offsets = self.buffer(1, self.offsets_len(end, 8))?;
                let last = offsets.len().checked_sub(8).and_then(|at| offsets[at..].try_into().ok());
                let data_len = last.map_or(Some(0), |last| usize::try_from(i64::from_ne_bytes(last)).ok());
                Layout::Offsets64 { offsets, data: self.buffer(2, data_len)? }
            }
            DataType::Utf8View | DataType::BinaryView => self.views(end)?,
            DataType::Dictionary(keys, values) => {
                let width = keys.primitive_width().ok_or(NOT_ARROW)?;
                let data = self.buffer(1, end.checked_mul(width))?;
                let part = self.part.dictionary().ok_or(NOT_ARROW)?;
                let values = Import { owner: self.owner, part }.array(values)?;
                Layout::Dictionary { width, is_signed: keys.is_signed_integer(), keys: data, values: Box::new(values) }
            }
            DataType::FixedSizeBinary(width) => {
                let width = usize::try_from(*width).map_err(|_| NOT_ARROW)?;
                Layout::Fixed { width, data: self.buffer(1, end.checked_mul(width))? }
            }
            other => {
                let width = other.primitive_width().ok_or_else(|| unsupported(other))?;
                Layout::Fixed { width, data: self.buffer(1, end.checked_mul(width))? }
            }
        };
        if matches!(layout, Layout::Null | Layout::Fixed { width: 0, .. }) && end > MAX_ROWS_OF_NOTHING {
            let why = "an array without bytes has at most 2,147,483,647 rows";
            return Err(Error::new(ErrorKind::LimitExceeded, why));
        }
        let validity = match layout {
            Layout::Null => None,
            _ if self.part.null_count() == 0 || self.part.buffer(0).is_null() => None,
            _ => Some(self.buffer(0, Some(end.div_ceil(8)))?),
        };
        Ok(Array { len, offset, validity, layout })
    }

    /// The column of a table that has one.
    fn only_column(&self, fields: &arrow_schema::Fields, offset: usize, len: usize) -> Result<Array> {
        let [field] = &fields[..] else {
            return Err(Error::new(ErrorKind::InvalidInput, "a table is taken as a column only if it has just one"));
        };
        if self.part.num_buffers() > 0 && self.part.null_count() != 0 && !self.part.buffer(0).is_null() {
            return Err(Error::new(ErrorKind::InvalidInput, "a table does not have rows that are null"));
        }
        let child = Import { owner: self.owner, part: self.part.child(0) }.array(field.data_type())?;
        child.slice(offset, len).ok_or(NOT_ARROW)
    }

    fn views(&self, end: usize) -> Result<Layout> {
        let buffers = self.part.num_buffers().checked_sub(3).ok_or(NOT_ARROW)?;
        let lens = self.buffer(2 + buffers, buffers.checked_mul(8))?;
        let lens = lens.as_chunks::<8>().0.iter().map(|len| usize::try_from(i64::from_ne_bytes(*len)).ok());
        let data = lens.enumerate().map(|(index, len)| self.buffer(2 + index, len)).collect::<Result<_>>()?;
        Ok(Layout::Views { views: self.buffer(1, end.checked_mul(16))?, data })
    }

    /// Bytes of the offsets of the rows before `end`. An array that never had a row need not have any.
    fn offsets_len(&self, end: usize, width: usize) -> Option<usize> {
        if end == 0 { Some(0) } else { end.checked_add(1)?.checked_mul(width) }
    }

    /// The buffer `index`, of `len` bytes; `None`: that many that they cannot be counted.
    fn buffer(&self, index: usize, len: Option<usize>) -> Result<Buffer> {
        let len = len.filter(|len| isize::try_from(*len).is_ok()).ok_or(NOT_ARROW)?;
        if len == 0 {
            return Ok(Buffer::default());
        }
        if index >= self.part.num_buffers() {
            return Err(NOT_ARROW);
        }
        let pointer = NonNull::new(self.part.buffer(index).cast_mut()).ok_or(NOT_ARROW)?;
        // SAFETY: the producer promises that the buffer has as many bytes as type, rows and offsets say, until the array is
        // released, which is when its last owner lets go of it.
        Ok(unsafe { Buffer::from_custom_allocation(pointer, len, self.owner.clone()) })
    }
}

pub(super) fn unsupported(data_type: &DataType) -> Error {
    Error::new(ErrorKind::InvalidInput, "a column of this Arrow type is no column of values")
        .with_detail(data_type.to_string())
}

/// Arrow's C stream interface.
#[repr(C)]
struct CStream {
    get_schema: Option<unsafe extern "C" fn(*mut Self, *mut FFI_ArrowSchema) -> c_int>,
    get_next: Option<unsafe extern "C" fn(*mut Self, *mut FFI_ArrowArray) -> c_int>,
    get_last_error: Option<unsafe extern "C" fn(*mut Self) -> *const c_char>,
    release: Option<unsafe extern "C" fn(*mut Self)>,
    private_data: *mut c_void,
}

// SAFETY: a stream may be read from any thread, by one at a time.
unsafe impl Send for CStream {}

impl CStream {
    const EMPTY: Self =
        Self { get_schema: None, get_next: None, get_last_error: None, release: None, private_data: ptr::null_mut() };
}

impl Drop for CStream {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: the stream has not been released, since releasing it takes the callback away.
            unsafe { release(self) }
        }
    }
}

/// Arrays that a producer gives one after the other.
pub(super) struct Stream {
    stream: CStream,
    data_type: DataType,
}

impl Stream {
    /// The stream in `stream`, a capsule.
    pub(super) fn take(stream: &Bound<'_, PyAny>) -> PyResult<Result<Self>> {
        let mut stream = take(stream, STREAM, CStream::EMPTY)?;
        let (Some(get_schema), Some(_)) = (stream.get_schema, stream.release) else { return Ok(Err(RELEASED)) };
        let mut schema = FFI_ArrowSchema::empty();
        // SAFETY: the stream has not been released, and `schema` is there to be written.
        if unsafe { get_schema(&mut stream, &mut schema) } != 0 {
            return Ok(Err(stopped()));
        }
        Ok(type_of(&schema).map(|data_type| Self { stream, data_type }))
    }

    pub(super) fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// The next array; `None` at the end. May take long, and may need the GIL: let go of it first.
    pub(super) fn next(&mut self) -> Result<Option<Array>> {
        let Some(get_next) = self.stream.get_next else { return Err(RELEASED) };
        let mut array = FFI_ArrowArray::empty();
        // SAFETY: the stream has not been released, and `array` is there to be written.
        if unsafe { get_next(&mut self.stream, &mut array) } != 0 {
            return Err(stopped());
        }
        if array.is_released() { Ok(None) } else { import(array, &self.data_type).map(Some) }
    }
}

/// Without the producer's text, which may have anything in it.
fn stopped() -> Error {
    Error::new(ErrorKind::Io, "the stream of Arrow data stopped with an error")
}

fn schema_of(data_type: &DataType) -> Result<FFI_ArrowSchema> {
    let schema = FFI_ArrowSchema::try_from(data_type).and_then(|schema| schema.with_name(""));
    let schema = schema.and_then(|schema| schema.with_flags(arrow_schema::ffi::Flags::NULLABLE));
    schema.map_err(|_| Error::new(ErrorKind::Internal, "a type without a schema"))
}

pub(super) fn give_type<'py>(py: Python<'py>, data_type: &DataType) -> PyResult<Result<Bound<'py, PyCapsule>>> {
    schema_of(data_type)
        .map(|schema| PyCapsule::new_with_value(py, schema, SCHEMA))
        .map_or_else(|e| Ok(Err(e)), |made| made.map(Ok))
}

pub(super) fn give_array<'py>(py: Python<'py>, array: &ArrayData) -> PyResult<Bound<'py, PyCapsule>> {
    PyCapsule::new_with_value(py, FFI_ArrowArray::new(array), ARRAY)
}

pub(super) fn give_stream<'py>(
    py: Python<'py>,
    data_type: DataType,
    chunks: impl IntoIterator<Item = ArrayData>,
) -> PyResult<Bound<'py, PyCapsule>> {
    let rest = Box::new(Given { data_type, chunks: chunks.into_iter().collect() });
    let stream = CStream {
        get_schema: Some(give_schema),
        get_next: Some(give_next),
        get_last_error: Some(no_text),
        release: Some(release),
        private_data: Box::into_raw(rest).cast(),
    };
    PyCapsule::new_with_value(py, stream, STREAM)
}

/// What a stream of ours has still to give.
struct Given {
    data_type: DataType,
    chunks: VecDeque<ArrayData>,
}

/// Of the errors of C, that of an argument that is not valid.
const EINVAL: c_int = 22;

/// # Safety
///
/// `stream` is one of [`give_stream`] that has not been released; `out` is valid for writes.
unsafe extern "C" fn give_schema(stream: *mut CStream, out: *mut FFI_ArrowSchema) -> c_int {
    // SAFETY: `give_stream` has put it there, and nobody else has it.
    let given = unsafe { &*(*stream).private_data.cast::<Given>() };
    let Ok(schema) = schema_of(&given.data_type) else { return EINVAL };
    // SAFETY: valid for writes; what was there need not be released.
    unsafe { out.write(schema) };
    0
}

/// # Safety
///
/// `stream` is one of [`give_stream`] that has not been released; `out` is valid for writes.
unsafe extern "C" fn give_next(stream: *mut CStream, out: *mut FFI_ArrowArray) -> c_int {
    // SAFETY: `give_stream` has put it there, and nobody else has it.
    let given = unsafe { &mut *(*stream).private_data.cast::<Given>() };
    let next = given.chunks.pop_front().map_or_else(FFI_ArrowArray::empty, |chunk| FFI_ArrowArray::new(&chunk));
    // SAFETY: valid for writes; what was there need not be released.
    unsafe { out.write(next) };
    0
}

/// # Safety
///
/// None is needed.
unsafe extern "C" fn no_text(_stream: *mut CStream) -> *const c_char {
    ptr::null()
}

/// # Safety
///
/// `stream` is one of [`give_stream`] that has not been released.
unsafe extern "C" fn release(stream: *mut CStream) {
    // SAFETY: it is valid, and what `give_stream` has put there is taken back once, because the callback goes with it.
    unsafe {
        drop(Box::from_raw((*stream).private_data.cast::<Given>()));
        (*stream).private_data = ptr::null_mut();
        (*stream).release = None;
    }
}
