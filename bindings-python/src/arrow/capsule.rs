//! Arrow's C interfaces in capsules of Python: arrays, streams of arrays and their schemas, in and out. But for one line of
//! `lib.rs` and one request to the kernel in `pages`, all the unsafe code of this package is here.
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

/// Most levels of a type, of which a column of values has three: a table, its column, the dictionary of that.
const MAX_LEVELS: usize = 64;
/// Most parts of a type at all levels, so that a few that contain each other do not become very many.
const MAX_PARTS: usize = 4096;

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
    check_schema(schema)?;
    // What it panics at is refused above, as far as we know it.
    let parsed = catch_unwind(AssertUnwindSafe(|| DataType::try_from(schema)));
    parsed.ok().and_then(std::result::Result::ok).ok_or(NOT_ARROW)
}

/// Arrow's C schema.
#[repr(C)]
struct CSchema {
    format: *const c_char,
    name: *const c_char,
    metadata: *const c_char,
    flags: i64,
    n_children: i64,
    children: *const *const FFI_ArrowSchema,
    dictionary: *const FFI_ArrowSchema,
    release: Option<unsafe extern "C" fn(*mut Self)>,
    private_data: *mut c_void,
}

const _: () = assert!(size_of::<CSchema>() == size_of::<FFI_ArrowSchema>());

/// Refuses a schema that must not be parsed, since that recurses and panics, and types that are not what they are stored as.
fn check_schema(schema: &FFI_ArrowSchema) -> Result<()> {
    let mut found = vec![(schema, 1)];
    let mut seen = 0;
    while let Some((part, level)) = found.pop() {
        seen += 1;
        // SAFETY: both are Arrow's C schema.
        let raw = unsafe { &*ptr::from_ref(part).cast::<CSchema>() };
        let format = text(raw.format)?.ok_or(NOT_ARROW)?;
        text(raw.name)?;
        let children = usize::try_from(raw.n_children).map_err(|_| NOT_ARROW)?;
        let needed = match format {
            _ if !format.starts_with('+') || format == "+s" => 0,
            "+r" => 2,
            _ => 1,
        };
        if children < needed || children > 0 && raw.children.is_null() {
            return Err(NOT_ARROW);
        }
        if level > MAX_LEVELS || seen + found.len() + children > MAX_PARTS {
            return Err(Error::new(ErrorKind::LimitExceeded, "a type of Arrow has at most 64 levels and 4,096 parts"));
        }
        if let Some(name) = part.metadata().map_err(|_| NOT_ARROW)?.get("ARROW:extension:name") {
            let why =
                "an extension type of Arrow would not open as it was: cast the column to the type it is stored as";
            return Err(Error::new(ErrorKind::InvalidInput, why).with_detail(name.clone()));
        }
        for index in 0..children {
            // SAFETY: the producer promises as many pointers to children, each of which is null or valid as long as the schema.
            let child = unsafe { raw.children.add(index).read_unaligned().as_ref() };
            found.push((child.ok_or(NOT_ARROW)?, level + 1));
        }
        found.extend(part.dictionary().map(|values| (values, level + 1)));
    }
    Ok(())
}

/// The text at `pointer`, if there is one.
fn text<'a>(pointer: *const c_char) -> Result<Option<&'a str>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the producer promises that it ends with a zero, and lives as long as the schema.
    unsafe { CStr::from_ptr(pointer) }.to_str().map(Some).map_err(|_| NOT_ARROW)
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
    // SAFETY: both are Arrow's C array.
    let part = unsafe { &*ptr::from_ref(&*owner).cast::<CArray>() };
    Import { owner: &owner, part }.array(data_type)
}

/// Arrow's C array. Its own type for the numbers and pointers of a producer, of which none is taken on trust.
#[repr(C)]
struct CArray {
    length: i64,
    null_count: i64,
    offset: i64,
    n_buffers: i64,
    n_children: i64,
    buffers: *const *const u8,
    children: *const *const Self,
    dictionary: *const Self,
    release: Option<unsafe extern "C" fn(*mut Self)>,
    private_data: *mut c_void,
}

const _: () = assert!(size_of::<CArray>() == size_of::<FFI_ArrowArray>());

/// An array, or a part of it, that is looked at.
struct Import<'a> {
    owner: &'a Arc<FFI_ArrowArray>,
    part: &'a CArray,
}

impl Import<'_> {
    fn array(&self, data_type: &DataType) -> Result<Array> {
        let (len, offset) = (count(self.part.length)?, count(self.part.offset)?);
        let end = offset.checked_add(len).filter(|end| isize::try_from(*end).is_ok()).ok_or(NOT_ARROW)?;
        if let DataType::Struct(fields) = data_type {
            return self.only_column(fields, offset, len);
        }
        if count(self.part.n_buffers)? < usize::from(*data_type != DataType::Null) {
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
                // SAFETY: null, or valid as long as the array.
                let part = unsafe { self.part.dictionary.as_ref() }.ok_or(NOT_ARROW)?;
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
            _ if self.part.null_count == 0 || self.pointer(0)?.is_none() => None,
            _ => Some(self.buffer(0, Some(end.div_ceil(8)))?),
        };
        Ok(Array { len, offset, validity, layout })
    }

    /// The column of a table that has one.
    fn only_column(&self, fields: &arrow_schema::Fields, offset: usize, len: usize) -> Result<Array> {
        let [field] = &fields[..] else {
            return Err(Error::new(ErrorKind::InvalidInput, "a table is taken as a column only if it has just one"));
        };
        if self.part.n_buffers > 0 && self.part.null_count != 0 && self.pointer(0)?.is_some() {
            return Err(Error::new(ErrorKind::InvalidInput, "a table does not have rows that are null"));
        }
        if self.part.n_children < 1 || self.part.children.is_null() {
            return Err(NOT_ARROW);
        }
        // SAFETY: the producer promises as many pointers to children, each of which is null or valid as long as the array.
        let part = unsafe { self.part.children.read_unaligned().as_ref() }.ok_or(NOT_ARROW)?;
        let child = Import { owner: self.owner, part }.array(field.data_type())?;
        child.slice(offset, len).ok_or(NOT_ARROW)
    }

    fn views(&self, end: usize) -> Result<Layout> {
        let buffers = count(self.part.n_buffers)?.checked_sub(3).ok_or(NOT_ARROW)?;
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
        let pointer = self.pointer(index)?.ok_or(NOT_ARROW)?;
        // SAFETY: the producer promises that the buffer has as many bytes as type, rows and offsets say, until the array is
        // released, which is when its last owner lets go of it.
        Ok(unsafe { Buffer::from_custom_allocation(pointer, len, self.owner.clone()) })
    }

    /// Where the buffer `index` is, if anywhere.
    fn pointer(&self, index: usize) -> Result<Option<NonNull<u8>>> {
        if index >= count(self.part.n_buffers)? || self.part.buffers.is_null() {
            return Err(NOT_ARROW);
        }
        // SAFETY: the producer promises as many pointers.
        Ok(NonNull::new(unsafe { self.part.buffers.add(index).read_unaligned() }.cast_mut()))
    }
}

/// A number of a producer that counts something.
fn count(number: i64) -> Result<usize> {
    usize::try_from(number).map_err(|_| NOT_ARROW)
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
