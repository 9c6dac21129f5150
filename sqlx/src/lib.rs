//! Columns of sealed values for sqlx: [`SealedBytes`] for binary columns (`BYTEA`, `BLOB`), [`SealedText`] for text
//! columns.
//!
//! Both are [`SealedValue`]s, and neither converts from or to a string or a byte string by itself: a member of a row
//! struct that holds ciphertext cannot be filled with plaintext, nor shown as if it were. What the database returns is
//! taken apart before it gets in: a value that was never sealed, or that is damaged, is an error of that column.
//!
//! What a value is bound to when it is opened comes from whoever asked, never from the row that the database answered
//! with, which may be another patient's. After a search, which does not know the row, compare the opened value.
//!
//! They work with every database of sqlx that has such columns, and bring none in: choose driver, runtime and TLS by the
//! features of sqlx in your own `Cargo.toml`.
//!
//! ```
//! #[derive(Debug)]
//! struct Patient {
//!     id: String,
//!     ssn: keyfold_sqlx::SealedBytes,
//! }
//! ```
//!
//! ```compile_fail,E0308
//! struct Patient {
//!     ssn: keyfold_sqlx::SealedBytes,
//! }
//! let patient = Patient { ssn: b"999-81-5679".to_vec() };
//! ```
#![forbid(unsafe_code)]

use keyfold::Error;
use keyfold::wire::SealedValue;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::{Database, Decode, Encode, Type};
use std::ops::Deref;

/// A sealed value in a binary column.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct SealedBytes(pub SealedValue);

/// A sealed value in its text form, in a text column.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct SealedText(pub SealedValue);

impl<DB: Database> Type<DB> for SealedBytes
where
    Vec<u8>: Type<DB>,
{
    fn type_info() -> DB::TypeInfo {
        <Vec<u8> as Type<DB>>::type_info()
    }

    fn compatible(ty: &DB::TypeInfo) -> bool {
        <Vec<u8> as Type<DB>>::compatible(ty)
    }
}

impl<'q, DB: Database> Encode<'q, DB> for SealedBytes
where
    Vec<u8>: Encode<'q, DB>,
{
    fn encode_by_ref(&self, buffer: &mut DB::ArgumentBuffer<'q>) -> Result<IsNull, BoxDynError> {
        self.0.as_bytes().to_vec().encode(buffer)
    }

    fn size_hint(&self) -> usize {
        self.0.as_bytes().len()
    }
}

impl<'r, DB: Database> Decode<'r, DB> for SealedBytes
where
    Vec<u8>: Decode<'r, DB>,
{
    fn decode(value: DB::ValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(Self(SealedValue::from_bytes(Vec::decode(value)?)?))
    }
}

impl<DB: Database> Type<DB> for SealedText
where
    String: Type<DB>,
{
    fn type_info() -> DB::TypeInfo {
        <String as Type<DB>>::type_info()
    }

    fn compatible(ty: &DB::TypeInfo) -> bool {
        <String as Type<DB>>::compatible(ty)
    }
}

impl<'q, DB: Database> Encode<'q, DB> for SealedText
where
    String: Encode<'q, DB>,
{
    fn encode_by_ref(&self, buffer: &mut DB::ArgumentBuffer<'q>) -> Result<IsNull, BoxDynError> {
        self.0.to_text().encode(buffer)
    }

    fn size_hint(&self) -> usize {
        keyfold::wire::text_len(self.0.as_bytes().len())
    }
}

impl<'r, DB: Database> Decode<'r, DB> for SealedText
where
    String: Decode<'r, DB>,
{
    fn decode(value: DB::ValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(Self(SealedValue::from_text(&String::decode(value)?)?))
    }
}

macro_rules! sealed_column {
    ($($name:ident)*) => {$(
        impl Deref for $name {
            type Target = SealedValue;

            fn deref(&self) -> &SealedValue {
                &self.0
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                self.0.as_bytes()
            }
        }

        impl From<SealedValue> for $name {
            fn from(value: SealedValue) -> Self {
                Self(value)
            }
        }

        impl TryFrom<Vec<u8>> for $name {
            type Error = Error;

            /// Takes what an encryptor returned.
            fn try_from(bytes: Vec<u8>) -> Result<Self, Error> {
                SealedValue::from_bytes(bytes).map(Self)
            }
        }
    )*};
}

sealed_column! { SealedBytes SealedText }
