//! A buffer for plaintext.

use std::ops::Deref;
use zeroize::Zeroize;

/// Bytes that are erased on drop, and left nowhere when there come to be more of them.
#[derive(Default)]
pub(crate) struct Erased(Vec<u8>);

impl Erased {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// The buffer, to be written behind what it holds, with room for `len` bytes. Who writes more leaves a copy of what was there.
    pub(crate) fn with_room(&mut self, len: usize) -> &mut Vec<u8> {
        if self.0.capacity() - self.0.len() < len {
            let mut larger = Vec::with_capacity((self.0.len() + len).max(self.0.capacity() * 2));
            larger.extend_from_slice(&self.0);
            drop(Self(std::mem::replace(&mut self.0, larger)));
        }
        &mut self.0
    }
}

impl Deref for Erased {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Erased {
    fn drop(&mut self) {
        // `zeroize` erases elements one by one, but spare capacity in one go.
        self.0.clear();
        self.0.zeroize();
    }
}
