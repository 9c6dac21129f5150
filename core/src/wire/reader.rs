//! Reads fixed and length-prefixed parts from the front of untrusted bytes. Allocates nothing.

use crate::error::{ErrorKind, Result};

pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(ErrorKind::Malformed)?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<&'a [u8; N]> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(ErrorKind::Malformed)?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        self.array().map(|b| u16::from_be_bytes(*b))
    }

    /// A 2-byte length and that many bytes.
    pub(crate) fn long(&mut self) -> Result<&'a [u8]> {
        let len = self.u16()?;
        self.bytes(usize::from(len))
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }
}

#[cfg(feature = "std")]
impl<'a> Reader<'a> {
    pub(crate) fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|b| b[0])
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        self.array().map(|b| u64::from_be_bytes(*b))
    }

    /// A 1-byte length and that many bytes.
    pub(crate) fn short(&mut self) -> Result<&'a [u8]> {
        let len = self.u8()?;
        self.bytes(usize::from(len))
    }
}
