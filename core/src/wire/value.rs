//! A sealed value that somebody owns, for what stores and sends it.

use super::{KeyId, Sealed, Suite, from_text, push_text};
use crate::error::{Error, Result};
use core::fmt;

/// A sealed value: well-formed, and of a type that plaintext does not have.
///
/// Give the members of a struct that hold ciphertext this type, and the compiler tells them from those that do not. It
/// has been taken apart, not opened: whether it is genuine shows when it is decrypted.
///
/// ```
/// # fn example(sealed: Vec<u8>, decryptor: &keyfold::Decryptor) -> keyfold::Result<()> {
/// struct Patient {
///     id: String,
///     ssn: keyfold::wire::SealedValue,
/// }
/// let patient = Patient { id: "p-17".to_owned(), ssn: sealed.try_into()? };
/// let opened = decryptor.decrypt(patient.ssn.as_bytes(), Some(patient.id.as_bytes()))?;
/// # Ok(())
/// # }
/// ```
///
/// ```compile_fail,E0308
/// struct Patient {
///     ssn: keyfold::wire::SealedValue,
/// }
/// let patient = Patient { ssn: "999-81-5679".to_owned() };
/// ```
///
/// With the feature `serde` it is the text form in formats that people read, such as JSON, and bytes in the others.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct SealedValue(Vec<u8>);

impl SealedValue {
    /// The value with this binary form.
    ///
    /// # Errors
    ///
    /// As for [`Sealed::parse`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        Sealed::parse(&bytes)?;
        Ok(Self(bytes))
    }

    /// The value with this text form. Exactly one text of each value is accepted.
    ///
    /// # Errors
    ///
    /// As for [`from_text`] and [`Sealed::parse`].
    pub fn from_text(text: &str) -> Result<Self> {
        let mut bytes = Vec::new();
        from_text(text.as_bytes(), &mut bytes)?;
        Self::from_bytes(bytes)
    }

    /// The binary form.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The binary form.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The text form.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = Vec::new();
        push_text(&self.0, &mut text).expect("a well-formed value has a text form");
        String::from_utf8(text).expect("the text form is ASCII")
    }

    /// The suite.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.parsed().suite()
    }

    /// The ID of the key that this claims to be sealed under.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.parsed().key_id()
    }

    fn parsed(&self) -> Sealed<'_> {
        Sealed::parse(&self.0).expect("parsed when it was made")
    }
}

impl AsRef<[u8]> for SealedValue {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Vec<u8>> for SealedValue {
    type Error = Error;

    fn try_from(bytes: Vec<u8>) -> Result<Self> {
        Self::from_bytes(bytes)
    }
}

impl From<SealedValue> for Vec<u8> {
    fn from(value: SealedValue) -> Self {
        value.0
    }
}

impl fmt::Debug for SealedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedValue(suite {}, generation {})", self.suite(), self.key_id().generation())
    }
}

#[cfg(feature = "serde")]
mod with_serde {
    use super::SealedValue;
    use core::fmt;
    use serde::de::{Error, SeqAccess, Unexpected, Visitor};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    impl Serialize for SealedValue {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            if serializer.is_human_readable() {
                serializer.serialize_str(&self.to_text())
            } else {
                serializer.serialize_bytes(self.as_bytes())
            }
        }
    }

    impl<'de> Deserialize<'de> for SealedValue {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            if deserializer.is_human_readable() {
                deserializer.deserialize_str(TextVisitor)
            } else {
                deserializer.deserialize_byte_buf(BytesVisitor)
            }
        }
    }

    struct TextVisitor;

    impl Visitor<'_> for TextVisitor {
        type Value = SealedValue;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the text form of a sealed value")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<SealedValue, E> {
            // The text stays out of the message: it may be plaintext that was never sealed.
            SealedValue::from_text(text).map_err(E::custom)
        }
    }

    struct BytesVisitor;

    impl<'de> Visitor<'de> for BytesVisitor {
        type Value = SealedValue;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the bytes of a sealed value")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<SealedValue, E> {
            self.visit_byte_buf(bytes.to_vec())
        }

        fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<SealedValue, E> {
            SealedValue::from_bytes(bytes).map_err(E::custom)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<SealedValue, A::Error> {
            let mut bytes = Vec::new();
            while let Some(byte) = seq.next_element()? {
                bytes.push(byte);
            }
            SealedValue::from_bytes(bytes).map_err(A::Error::custom)
        }

        fn visit_str<E: Error>(self, _: &str) -> Result<SealedValue, E> {
            // Serde's own message would repeat the text.
            Err(E::invalid_type(Unexpected::Other("text"), &self))
        }
    }
}
