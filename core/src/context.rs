//! What a value is bound to: field name, context, row (FORMAT.md §4.3). Authenticated, never stored.
//! A line over 500, half of them documentation: one value is followed from its pairs to its AAD.

use crate::error::{Error, ErrorKind, Result};
use crate::wire::HEADER_LEN;

/// Starts the part of the AAD that follows the header.
const LABEL: &[u8] = b"keyfold/field/v1";
/// Holds the row binding.
const ROW_KEY: &[u8] = b"kf:row";
/// Keys that start with this are Keyfold's own.
const RESERVED: &[u8] = b"kf:";
/// Most pairs of a caller.
pub(crate) const MAX_PAIR_COUNT: usize = 32;
/// Most bytes of an encoded context, row binding included.
pub(crate) const MAX_CONTEXT_LEN: usize = 4096;
/// Most bytes of a field's or join group's name.
#[cfg(feature = "std")]
pub(crate) const MAX_NAME_LEN: usize = 255;

/// Whether a name is a field's own or one that joined fields share.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum NameKind {
    Field = 1,
    #[cfg(feature = "std")]
    JoinGroup = 2,
}

#[cfg(feature = "std")]
pub use with_std::Context;
#[cfg(feature = "std")]
pub(crate) use with_std::{Aad, BoundContext, Strings};

/// Where encoded parts go: a growing vector, or a buffer of fixed size on a device.
pub(crate) trait Sink {
    fn put(&mut self, bytes: &[u8]) -> Result<()>;
}

/// Fills a buffer from the front.
pub(crate) struct SliceSink<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> SliceSink<'a> {
    pub(crate) const fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    pub(crate) fn into_written(self) -> Result<&'a [u8]> {
        self.buffer.get(..self.len).ok_or(FULL)
    }
}

const FULL: Error = Error::new(ErrorKind::LimitExceeded, "the context is longer than the buffer for it");

impl Sink for SliceSink<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let room = self.buffer.get_mut(self.len..).and_then(|rest| rest.get_mut(..bytes.len())).ok_or(FULL)?;
        room.copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }
}

/// header (26) ‖ 16 ‖ "keyfold/field/v1" ‖ kind of name (1) ‖ length (1) ‖ name
pub(crate) fn put_head(out: &mut impl Sink, header: &[u8; HEADER_LEN], kind: NameKind, name: &str) -> Result<()> {
    out.put(header)?;
    out.put(&[LABEL.len() as u8])?;
    out.put(LABEL)?;
    put_name(out, kind, name)
}

pub(crate) fn put_name(out: &mut impl Sink, kind: NameKind, name: &str) -> Result<()> {
    let len = u8::try_from(name.len())
        .map_err(|_| Error::new(ErrorKind::LimitExceeded, "a field's name has at most 255 bytes"))?;
    out.put(&[kind as u8, len])?;
    out.put(name.as_bytes())
}

/// key length (2) ‖ key ‖ value length (2) ‖ value
// F-4.3-4.
pub(crate) fn put_pair(out: &mut impl Sink, key: &[u8], value: &[u8]) -> Result<()> {
    put_part(out, key)?;
    put_part(out, value)
}

fn put_part(out: &mut impl Sink, part: &[u8]) -> Result<()> {
    out.put(&part_len(part)?)?;
    out.put(part)
}

fn part_len(part: &[u8]) -> Result<[u8; 2]> {
    u16::try_from(part.len()).map(u16::to_be_bytes).map_err(|_| TOO_LONG)
}

const TOO_LONG: Error =
    Error::new(ErrorKind::LimitExceeded, "the context with its row binding has at most 4,096 bytes");

/// The AAD of one value on a device: pairs in strictly ascending order of key, the row binding among them.
///
/// # Errors
///
/// - [`InvalidInput`](ErrorKind::InvalidInput): not in order, or a key or row binding that no value may have. - [`LimitExceeded`](ErrorKind::LimitExceeded): too long.
pub(crate) fn write_aad<'b>(
    buffer: &'b mut [u8],
    header: &[u8; HEADER_LEN],
    name: &str,
    pairs: &[(&[u8], &[u8])],
) -> Result<&'b [u8]> {
    let mut out = SliceSink::new(buffer);
    put_head(&mut out, header, NameKind::Field, name)?;
    if pairs.len() > MAX_PAIR_COUNT + 1 {
        return Err(TOO_LONG);
    }
    if !pairs.is_sorted_by(|(a, _), (b, _)| a < b) {
        return Err(Error::new(ErrorKind::InvalidInput, "context keys must ascend"));
    }
    // What a keyring would refuse to bind, a device must not bind either: nobody could open the value.
    let allowed = |(key, value): &(&[u8], &[u8])| match *key {
        ROW_KEY => !value.is_empty(),
        key => !key.is_empty() && !key.starts_with(RESERVED) && core::str::from_utf8(key).is_ok(),
    };
    if !pairs.iter().all(allowed) {
        let why = "a context key is UTF-8, not empty and does not start with kf:, and a row binding is not empty";
        return Err(Error::new(ErrorKind::InvalidInput, why));
    }
    let start = out.len;
    out.put(&[pairs.len() as u8])?;
    for (key, value) in pairs {
        put_pair(&mut out, key, value)?;
    }
    if out.len - start > MAX_CONTEXT_LEN { Err(TOO_LONG) } else { out.into_written() }
}

#[cfg(feature = "std")]
mod with_std {
    use super::{
        Error, ErrorKind, HEADER_LEN, MAX_CONTEXT_LEN, MAX_PAIR_COUNT, NameKind, RESERVED, ROW_KEY, Result, Sink,
        SliceSink, TOO_LONG, part_len, put_head, put_name, put_pair, put_part,
    };
    use core::fmt;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    impl Sink for Vec<u8> {
        fn put(&mut self, bytes: &[u8]) -> Result<()> {
            self.extend_from_slice(bytes);
            Ok(())
        }
    }

    /// Key/value pairs that a value is bound to: tenant, table, purpose.
    ///
    /// At most 32 pairs and, encoded together with the row binding, 4,096 bytes. Sorted by the bytes of the key;
    /// values are compared as bytes and never normalised. Authenticated, never stored: whoever opens must know them.
    #[derive(Clone, Default, Eq, PartialEq)]
    pub struct Context {
        pairs: BTreeMap<String, Vec<u8>>,
        encoded_len: usize,
    }

    impl Context {
        /// The empty context.
        #[must_use]
        pub fn new() -> Self {
            Self::default()
        }

        /// Adds one pair.
        ///
        /// # Errors
        ///
        /// - [`InvalidInput`](ErrorKind::InvalidInput): the key is empty, starts with `kf:` or is there already.
        /// - [`LimitExceeded`](ErrorKind::LimitExceeded): more than 32 pairs or 4,096 bytes.
        // F-4.3-1, F-4.3-2, F-4.3-3.
        pub fn with(mut self, key: &str, value: impl AsRef<[u8]>) -> Result<Self> {
            let value = value.as_ref();
            if key.is_empty() || key.as_bytes().starts_with(RESERVED) {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    "a context key is not empty and does not start with kf:",
                ));
            }
            self.encoded_len += 4 + key.len() + value.len();
            if self.pairs.len() == MAX_PAIR_COUNT || 1 + self.encoded_len > MAX_CONTEXT_LEN {
                return Err(Error::new(ErrorKind::LimitExceeded, "a context has at most 32 pairs and 4,096 bytes"));
            }
            if self.pairs.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(Error::new(ErrorKind::InvalidInput, "a context key is given twice").with_detail(key));
            }
            Ok(self)
        }

        /// The keys, in order.
        pub fn keys(&self) -> impl Iterator<Item = &str> {
            self.pairs.keys().map(String::as_str)
        }

        fn put_where(&self, out: &mut Vec<u8>, keep: impl Fn(&[u8]) -> bool) -> Result<()> {
            self.pairs
                .iter()
                .filter(|(key, _)| keep(key.as_bytes()))
                .try_for_each(|(key, value)| put_pair(out, key.as_bytes(), value))
        }

        fn count(&self, row: bool) -> u8 {
            u8::try_from(self.pairs.len() + usize::from(row)).expect("at most 33")
        }
    }

    impl fmt::Debug for Context {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_list().entries(self.pairs.keys()).finish()
        }
    }

    /// Room for a row binding in a fresh buffer, so that most values need no second allocation.
    const ROW_ROOM: usize = 64;

    /// Makes the AAD of each row of suite 01 (FORMAT.md §4.3) in one buffer, without allocating per row.
    pub(crate) struct Aad {
        buffer: Vec<u8>,
        /// Everything before the row binding's value; constant but for the header.
        head_len: usize,
        /// The pairs whose keys sort after the row binding's.
        tail: Arc<[u8]>,
        row_bound: bool,
        max_row_len: usize,
        /// Length of the row binding that is in the buffer; 0 if there is none.
        row_len: usize,
    }

    impl Clone for Aad {
        fn clone(&self) -> Self {
            let mut buffer = Vec::with_capacity(self.buffer.len() + 2 + ROW_ROOM + self.tail.len());
            buffer.extend_from_slice(&self.buffer);
            Self { buffer, tail: Arc::clone(&self.tail), ..*self }
        }
    }

    impl Aad {
        /// # Errors
        ///
        /// - [`LimitExceeded`](ErrorKind::LimitExceeded): name or context is too long.
        pub(crate) fn new(header: &[u8; HEADER_LEN], name: &str, context: &Context, row_bound: bool) -> Result<Self> {
            let mut buffer = Vec::with_capacity(256);
            put_head(&mut buffer, header, NameKind::Field, name)?;
            buffer.push(context.count(row_bound));
            context.put_where(&mut buffer, |key| key < ROW_KEY)?;
            let mut tail = Vec::new();
            context.put_where(&mut tail, |key| key > ROW_KEY)?;
            if row_bound {
                put_part(&mut buffer, ROW_KEY)?;
            }
            let used = 1 + context.encoded_len + if row_bound { 4 + ROW_KEY.len() } else { 0 };
            let max_row_len = MAX_CONTEXT_LEN.checked_sub(used).ok_or(TOO_LONG)?;
            Ok(Self { head_len: buffer.len(), buffer, tail: tail.into(), row_bound, max_row_len, row_len: 0 })
        }

        /// From here on the AAD is of values with `header`.
        #[inline]
        pub(crate) fn set_header(&mut self, header: &[u8; HEADER_LEN]) {
            self.buffer[..HEADER_LEN].copy_from_slice(header);
        }

        /// The AAD of a value bound to `row`.
        ///
        /// # Errors
        ///
        /// - [`InvalidInput`](ErrorKind::InvalidInput): a row is given where none is bound, or the other way.
        /// - [`LimitExceeded`](ErrorKind::LimitExceeded): the row binding is too long.
        #[inline]
        pub(crate) fn of_row(&mut self, row: Option<&[u8]>) -> Result<&[u8]> {
            // Only what differs from the row before is written, which is often the row binding's bytes alone.
            match row {
                Some(row) if !row.is_empty() && row.len() == self.row_len => {
                    self.buffer[self.head_len + 2..][..row.len()].copy_from_slice(row);
                }
                _ => {
                    self.check_row(row)?;
                    self.buffer.truncate(self.head_len);
                    if let Some(row) = row {
                        self.buffer.extend_from_slice(&part_len(row)?);
                        self.buffer.extend_from_slice(row);
                        self.row_len = row.len();
                    }
                    self.buffer.extend_from_slice(&self.tail);
                }
            }
            Ok(&self.buffer)
        }

        /// As [`of_row`](Self::of_row), for a single value: passes the AAD to `seal`, from the stack if it is short.
        ///
        /// # Errors
        ///
        /// As for [`of_row`](Self::of_row), and those of `seal`.
        #[inline]
        pub(crate) fn of_one<T>(
            &self,
            header: &[u8; HEADER_LEN],
            row: Option<&[u8]>,
            seal: impl FnOnce(&[u8]) -> Result<T>,
        ) -> Result<T> {
            let mut buffer = [0; 256];
            if self.head_len + row.map_or(0, |row| 2 + row.len()) + self.tail.len() > buffer.len() {
                let mut longer = self.clone();
                longer.set_header(header);
                return seal(longer.of_row(row)?);
            }
            self.check_row(row)?;
            let mut out = SliceSink::new(&mut buffer);
            out.put(&self.buffer[..self.head_len])?;
            if let Some(row) = row {
                put_part(&mut out, row)?;
            }
            if !self.tail.is_empty() {
                out.put(&self.tail)?;
            }
            let len = out.into_written()?.len();
            buffer[..HEADER_LEN].copy_from_slice(header);
            seal(&buffer[..len])
        }

        /// Whether `row` may be bound, without building the AAD.
        ///
        /// # Errors
        ///
        /// As for [`of_row`](Self::of_row).
        #[inline]
        pub(crate) fn check_row(&self, row: Option<&[u8]>) -> Result<()> {
            check_row(row, self.row_bound, self.max_row_len)
        }
    }

    // F-8.1-10, F-18.7-5, F-19.4-4.
    #[inline]
    fn check_row(row: Option<&[u8]>, row_bound: bool, max_row_len: usize) -> Result<()> {
        match row {
            None if row_bound => {
                Err(Error::new(ErrorKind::InvalidInput, "the field is bound to its row, so a row binding is needed"))
            }
            Some(_) if !row_bound => Err(Error::new(
                ErrorKind::InvalidInput,
                "the field is not bound to its row, but a row binding is given",
            )),
            Some([]) => Err(Error::new(ErrorKind::InvalidInput, "the row binding is empty")),
            Some(row) if row.len() > max_row_len => Err(TOO_LONG),
            _ => Ok(()),
        }
    }

    /// The encoded context of each document of suite 05, its row binding within it (FORMAT.md §18.3).
    pub(crate) struct BoundContext {
        /// The number of pairs, those whose keys sort before the row binding's, and that key.
        head: Vec<u8>,
        tail: Vec<u8>,
        row_bound: bool,
        max_row_len: usize,
    }

    impl BoundContext {
        /// # Errors
        ///
        /// - [`LimitExceeded`](ErrorKind::LimitExceeded): the context leaves no room for a row binding.
        pub(crate) fn new(context: &Context, row_bound: bool) -> Result<Self> {
            let (mut head, mut tail) = (vec![context.count(row_bound)], Vec::new());
            context.put_where(&mut head, |key| key < ROW_KEY)?;
            context.put_where(&mut tail, |key| key > ROW_KEY)?;
            if row_bound {
                put_part(&mut head, ROW_KEY)?;
            }
            let used = head.len() + tail.len() + if row_bound { 2 } else { 0 };
            let max_row_len = MAX_CONTEXT_LEN.checked_sub(used).ok_or(TOO_LONG)?;
            Ok(Self { head, tail, row_bound, max_row_len })
        }

        /// Passes the parts of the context of a document bound to `row` to `derive`.
        ///
        /// # Errors
        ///
        /// As for [`Aad::of_row`].
        pub(crate) fn of_row<T>(&self, row: Option<&[u8]>, derive: impl FnOnce([&[u8]; 4]) -> T) -> Result<T> {
            check_row(row, self.row_bound, self.max_row_len)?;
            Ok(match row {
                Some(row) => derive([&self.head, &part_len(row)?, row, &self.tail]),
                None => derive([&self.head, &[], &[], &self.tail]),
            })
        }
    }

    /// The strings that suite 02 authenticates (FORMAT.md §5.2): header, name, context.
    pub(crate) struct Strings {
        name: Vec<u8>,
        context: Vec<u8>,
    }

    impl Strings {
        /// # Errors
        ///
        /// - [`LimitExceeded`](ErrorKind::LimitExceeded): the name is too long.
        pub(crate) fn new(kind: NameKind, name: &str, context: &Context) -> Result<Self> {
            let mut encoded = vec![context.count(false)];
            context.put_where(&mut encoded, |_| true)?;
            let mut named = Vec::new();
            put_name(&mut named, kind, name)?;
            Ok(Self { name: named, context: encoded })
        }

        /// name ‖ context, of which each part states its length.
        pub(crate) fn to_bytes(&self) -> Vec<u8> {
            [&self.name[..], &self.context].concat()
        }

        // F-5.2-1.
        pub(crate) fn with<'a>(&'a self, header: &'a [u8; HEADER_LEN]) -> [&'a [u8]; 3] {
            [header, &self.name, &self.context]
        }
    }

    #[cfg(test)]
    mod tests {
        use super::super::write_aad;
        use super::*;

        #[test]
        fn the_device_writes_the_same_aad() {
            let header = [7; HEADER_LEN];
            let context = Context::new().with("tenant", "t").unwrap().with("a", "").unwrap();
            let mut aad = Aad::new(&header, "patient.ssn", &context, true).unwrap();
            let expected = aad.of_row(Some(b"row-1")).unwrap().to_vec();
            let pairs: [(&[u8], &[u8]); 3] = [(b"a", b""), (b"kf:row", b"row-1"), (b"tenant", b"t")];
            let mut buffer = [0; 256];
            assert_eq!(write_aad(&mut buffer, &header, "patient.ssn", &pairs).unwrap(), expected);
            assert_eq!(aad.of_row(Some(b"row-1")).unwrap(), expected, "the buffer is reused");
            // The buffer is rewritten in part: whatever was in it, only header and row count.
            for (header, row) in [([7; 26], "row-2"), ([8; 26], "row-2"), ([8; 26], "row-10"), ([7; 26], "row-1")] {
                let fresh = Aad::new(&header, "patient.ssn", &context, true)
                    .unwrap()
                    .of_row(Some(row.as_bytes()))
                    .unwrap()
                    .to_vec();
                aad.set_header(&header);
                assert_eq!(aad.of_row(Some(row.as_bytes())).unwrap(), fresh);
                assert!(aad.of_row(None).is_err() && aad.of_row(Some(b"")).is_err());
            }
        }

        #[test]
        fn one_value_is_bound_like_a_row() {
            let (header, context) =
                ([7; HEADER_LEN], Context::new().with("tenant", "t").unwrap().with("a", "").unwrap());
            for row in [None, Some(1), Some(150), Some(1000)].map(|len| len.map(|len| vec![b'r'; len])) {
                let mut aad = Aad::new(&[0; HEADER_LEN], "patient.ssn", &context, row.is_some()).unwrap();
                let one = aad.of_one(&header, row.as_deref(), |aad| Ok(aad.to_vec())).unwrap();
                aad.set_header(&header);
                assert_eq!(one, aad.of_row(row.as_deref()).unwrap());
                let wrong = if row.is_some() { None } else { Some(&b"r"[..]) };
                assert_eq!(aad.of_one(&header, wrong, |_| Ok(())).unwrap_err().kind(), ErrorKind::InvalidInput);
            }
        }

        /// Covers F-4.3-4.
        // Failure C5
        #[test]
        fn different_inputs_never_share_an_encoding() {
            let header = [0; HEADER_LEN];
            let of = |name: &str, pairs: &[(&str, &str)], row: Option<&[u8]>| {
                let context = pairs.iter().fold(Context::new(), |c, (k, v)| c.with(k, v).unwrap());
                Aad::new(&header, name, &context, row.is_some()).unwrap().of_row(row).unwrap().to_vec()
            };
            let all = [
                of("f", &[], None),
                of("f", &[("a", "")], None),
                of("f", &[("a", "bc")], None),
                of("f", &[("ab", "c")], None),
                of("f", &[("a", "b"), ("c", "")], None),
                of("f", &[("a", "b"), ("c", "")], Some(b"r")),
                of("f", &[], Some(b"r")),
                of("fa", &[], None),
            ];
            for (i, a) in all.iter().enumerate() {
                assert!(!all[..i].contains(a), "{i}");
            }
        }

        // Failures C11, N7
        #[test]
        fn limits() {
            let mut context = Context::new();
            for i in 0..32 {
                context = context.with(&format!("k{i}"), "").unwrap();
            }
            assert_eq!(context.clone().with("k32", "").unwrap_err().kind(), ErrorKind::LimitExceeded);
            assert_eq!(Context::new().with("kf:x", "").unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(Context::new().with("", "").unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(Context::new().with("a", [0; 4096]).unwrap_err().kind(), ErrorKind::LimitExceeded);
            let full = Context::new().with("a", [0; 4090]).unwrap();
            assert_eq!(Aad::new(&[0; HEADER_LEN], "f", &full, true).err().unwrap().kind(), ErrorKind::LimitExceeded);
            let mut aad = Aad::new(&[0; HEADER_LEN], "f", &Context::new(), true).unwrap();
            let longest = vec![1; MAX_CONTEXT_LEN - 1 - 4 - 6];
            assert!(aad.of_row(Some(&longest)).is_ok());
            let too_long = vec![1; longest.len() + 1];
            assert_eq!(aad.of_row(Some(&too_long)).unwrap_err().kind(), ErrorKind::LimitExceeded);
        }
    }
}
