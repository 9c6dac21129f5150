//! The context of a wrapped key as the bytes that a service authenticates.

use keyfold::KmsContext;

/// For each pair: length of the name (8) ‖ name ‖ length of the value (8) ‖ value. Lengths are big-endian, pairs are sorted
/// by name, so that there is one encoding and none reads as another.
pub(crate) fn canonical(context: &KmsContext) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in context.pairs() {
        for part in [name, &value] {
            out.extend_from_slice(&(part.len() as u64).to_be_bytes());
            out.extend_from_slice(part.as_bytes());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyfold::{Lineage, wire::KeyId};

    #[test]
    fn the_encoding_never_changes() {
        let context = KmsContext::new("prod", Lineage::from_bytes([1; 16]), KeyId::from_bytes([2; 24]));
        let bytes = canonical(&context);
        assert!(bytes.starts_with(b"\0\0\0\0\0\0\0\x06kf:env\0\0\0\0\0\0\0\x04prod\0\0\0\0\0\0\0\x06kf:key"));
        let other = KmsContext::new("pro", Lineage::from_bytes([1; 16]), KeyId::from_bytes([2; 24]));
        assert_ne!(bytes, canonical(&other));
    }
}
