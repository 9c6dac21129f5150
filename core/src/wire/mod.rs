//! The bytes: key IDs, suites, sealed values, their text form, frames, key records. Never sees a key. (docs/FORMAT.md)

#[cfg(feature = "std")]
pub(crate) mod document;
mod frame;
mod key_id;
mod reader;
#[cfg(feature = "std")]
pub(crate) mod record;
mod sealed;
#[cfg(feature = "std")]
pub(crate) mod stream;
#[cfg(feature = "std")]
mod text;
#[cfg(feature = "std")]
mod value;

#[cfg(feature = "std")]
pub use document::{
    BODY_OVERHEAD, BODY_TEXT_PREFIX, DOCUMENT_HEADER_LEN, DOCUMENT_ID_LEN, DocumentHeader, MANIFEST_LEN, MAX_BODIES,
    MAX_PATH_LEN, body_from_text, manifest_from_text, manifest_text, push_body_text,
};
pub use frame::Frame;
#[cfg(feature = "std")]
pub(crate) use frame::frame_head;
pub use key_id::{Generation, KeyId};
pub(crate) use reader::Reader;
pub(crate) use sealed::header;
pub use sealed::{Sealed, Suite, looks_sealed};
#[cfg(feature = "std")]
pub use stream::{
    CHUNK_LEN, MAX_CHUNKS, MAX_STREAM_LEN, SEALED_CHUNK_LEN, STREAM_HEADER_LEN, STREAM_SALT_LEN, StreamHeader,
    opened_stream_len, sealed_stream_len,
};
#[cfg(feature = "std")]
pub use text::{TEXT_PREFIX, from_text, looks_sealed_text, push_text, text_len};
#[cfg(feature = "std")]
pub use value::SealedValue;

/// First byte of every value; never occurs in UTF-8 (FORMAT.md §3).
pub const MAGIC: u8 = 0xF5;
/// Bytes 0 to 25: magic, suite, key ID. The same in every suite (FORMAT.md §3).
// F-3-1.
pub const HEADER_LEN: usize = 2 + KeyId::LEN;
/// Bytes that suite 01 adds to a value: header, nonce, format byte, tag (FORMAT.md §4).
// F-4.1-1.
pub const FIELD_OVERHEAD: usize = HEADER_LEN + NONCE_LEN + 1 + TAG_LEN;
/// Bytes that suite 02 adds to a value: header, synthetic IV, format byte (FORMAT.md §5).
// F-5.1-1.
pub const DETERMINISTIC_OVERHEAD: usize = HEADER_LEN + TAG_LEN + 1;
/// Most bytes of key records in a frame, with their lengths (FORMAT.md §14).
pub const MAX_FRAME_RECORDS_LEN: usize = 64 * 1024;
/// Bytes of a suite 01 nonce: 12-byte prefix and 12-byte AES-GCM nonce.
pub const NONCE_LEN: usize = PREFIX_LEN + GCM_NONCE_LEN;
/// Bytes of the nonce prefix from which the AES-256-GCM key is derived.
pub const PREFIX_LEN: usize = 12;
/// Bytes of the AES-GCM nonce.
pub const GCM_NONCE_LEN: usize = 12;
/// Bytes of an authentication tag or synthetic IV.
pub const TAG_LEN: usize = 16;
/// Longest value of a field, before the format byte and padding. Larger data goes to a stream (FORMAT.md §19).
// F-4.2-1.
pub const MAX_VALUE_LEN: usize = 1024 * 1024;
/// Longest encoded value: format byte, value and padding.
pub const MAX_ENCODED_LEN: usize = 1 + MAX_VALUE_LEN + 64 * 1024;
