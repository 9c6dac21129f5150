//! Frames: a value that travels with its key records (FORMAT.md §14).

#[cfg(feature = "std")]
use super::header;
use super::{HEADER_LEN, KeyId, MAGIC, MAX_FRAME_RECORDS_LEN, Reader, Sealed, Suite};
use crate::error::{Error, ErrorKind, Result};

/// A frame, taken apart. Borrows from its input; says nothing about whether value or records are authentic.
///
/// ```text
/// header (26), suite 03 ‖ length of the records (4) ‖ records ‖ value of suite 01 or 02 under the same key ID
/// records = length (2) ‖ record of the key ‖ length (2) ‖ record of its root
/// ```
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    head: &'a [u8],
    record: &'a [u8],
    root_record: &'a [u8],
    value: &'a [u8],
    sealed: Sealed<'a>,
}

impl<'a> Frame<'a> {
    /// Where the records start: behind header and length.
    pub(crate) const RECORDS_AT: usize = HEADER_LEN + 4;

    /// Takes `bytes` apart. Of the records nothing but their lengths is looked at.
    ///
    /// # Errors
    ///
    /// - [`Malformed`](ErrorKind::Malformed): wrong magic, truncated, more than [`MAX_FRAME_RECORDS_LEN`] bytes of
    ///   records, other than two, or around something else than one value under the same key ID: a frame, say.
    /// - [`Unsupported`](ErrorKind::Unsupported): not a frame, or around a suite that this build cannot open.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        if bytes.first() != Some(&MAGIC) {
            return Err(ErrorKind::Malformed.into());
        }
        if Suite::from_id(*bytes.get(1).ok_or(ErrorKind::Malformed)?)? != Suite::Frame {
            return Err(Error::new(ErrorKind::Unsupported, "not a frame, but a value without key records"));
        }
        let mut reader = Reader::new(bytes);
        let header = reader.array::<HEADER_LEN>()?;
        let len = usize::try_from(u32::from_be_bytes(*reader.array()?)).map_err(|_| ErrorKind::Malformed)?;
        // F-14.1-1.
        if len > MAX_FRAME_RECORDS_LEN {
            return Err(Error::new(ErrorKind::Malformed, "a frame has at most 65,536 bytes of key records"));
        }
        let records = reader.bytes(len)?;
        let value = reader.rest();
        let head = &bytes[..bytes.len() - value.len()];
        let mut reader = Reader::new(records);
        let (record, root_record) = (reader.long()?, reader.long()?);
        // F-14.1-2.
        if !reader.rest().is_empty() {
            return Err(Error::new(ErrorKind::Malformed, "a frame has two key records: of its key and of its root"));
        }
        // F-14.1-3.
        if value.starts_with(&[MAGIC, Suite::Frame.id()]) {
            return Err(Error::new(ErrorKind::Malformed, "a frame within a frame"));
        }
        // F-14.1-4, F-14.1-5.
        let sealed = Sealed::parse(value)?;
        if sealed.header()[2..] != header[2..] {
            return Err(Error::new(ErrorKind::Malformed, "the value in the frame names another key than the frame"));
        }
        Ok(Self { head, record, root_record, value, sealed })
    }

    /// The ID of the key, of frame and value alike.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.sealed.key_id()
    }

    /// Bytes of the key records and their lengths: what a policy limits.
    #[must_use]
    pub const fn records_len(&self) -> usize {
        self.head.len() - Self::RECORDS_AT
    }

    /// Everything before the value. Two frames with equal heads carry the same records of the same key.
    #[cfg(feature = "std")]
    pub(crate) const fn head(&self) -> &'a [u8] {
        self.head
    }

    /// What should be the record of the key. Nobody has vouched for it.
    #[must_use]
    pub const fn record(&self) -> &'a [u8] {
        self.record
    }

    /// What should be the record of the root that authenticates [`record`](Self::record). Nobody has vouched for it.
    #[must_use]
    pub const fn root_record(&self) -> &'a [u8] {
        self.root_record
    }

    /// The value, as it stands without a frame: what to keep once it has arrived where the key records are.
    #[must_use]
    pub const fn value(&self) -> &'a [u8] {
        self.value
    }

    /// The value, taken apart.
    #[must_use]
    pub const fn sealed(&self) -> Sealed<'a> {
        self.sealed
    }
}

/// Everything of a frame before its value.
///
/// # Errors
///
/// - [`LimitExceeded`](ErrorKind::LimitExceeded): the records are longer than a frame can hold.
#[cfg(feature = "std")]
pub(crate) fn frame_head(key_id: &KeyId, record: &[u8], root_record: &[u8]) -> Result<Vec<u8>> {
    let len = 4 + record.len() + root_record.len();
    if len > MAX_FRAME_RECORDS_LEN {
        return Err(Error::new(ErrorKind::LimitExceeded, "the key records are longer than a frame can hold")
            .with_detail(format!("{len} bytes of at most {MAX_FRAME_RECORDS_LEN}")));
    }
    let mut head = Vec::with_capacity(HEADER_LEN + 4 + len);
    head.extend_from_slice(&header(Suite::Frame, key_id));
    head.extend_from_slice(&u32::try_from(len).expect("checked above").to_be_bytes());
    for record in [record, root_record] {
        head.extend_from_slice(&u16::try_from(record.len()).expect("a record is shorter").to_be_bytes());
        head.extend_from_slice(record);
    }
    Ok(head)
}
