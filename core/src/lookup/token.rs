//! Tokens of an index (FORMAT.md §17.1).

use super::index::IndexPolicy;
use super::normal::{Normal, VERSION};
use crate::error::Result;
use crate::keys::{Secret, hmac_sha256};
use crate::value::Value;

/// What a database stores and compares in the place of a value.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Token {
    /// Of an index of at most 63 bits: never negative.
    Integer(i64),
    /// Of an index of 256 bits.
    Bytes([u8; 32]),
}

/// The tokens of one value, none for nulls, empty texts and what is skipped; or of all rows of a column, row by row.
pub type Tokens = Vec<Token>;

/// Starts what is hashed.
const LABEL: &[u8] = b"keyfold/index/v1";

impl std::fmt::Display for Token {
    /// As a file shows it: a decimal number, or 64 lower-case hexadecimal digits.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(number) => write!(f, "{number}"),
            Self::Bytes(bytes) => f.write_str(&data_encoding::HEXLOWER.encode(bytes)),
        }
    }
}

impl IndexPolicy {
    /// label length (1) ‖ label ‖ `bound`: the part that all tokens of an index share.
    pub(crate) fn head(bound: &[u8]) -> Vec<u8> {
        [&[LABEL.len() as u8], LABEL, bound].concat()
    }

    /// The tokens that are stored of a value, sorted; `None`: the index cannot take it, and skips it.
    ///
    /// # Errors
    ///
    /// As for [`normal_forms`](Self::normal_forms).
    pub(crate) fn tokens(&self, key: &Secret<32>, head: &[u8], value: &Value<'_>) -> Result<Option<Tokens>> {
        let Some(forms) = self.stored_forms(value)? else { return Ok(None) };
        let mut tokens: Tokens = forms.iter().map(|form| self.token(key, head, form)).collect();
        // F-17.1-5.
        // In the order of lengths a column would say which token belongs to which.
        tokens.sort_unstable();
        Ok(Some(tokens))
    }

    /// The token of a value that is looked for; `None` if nothing is found by it.
    ///
    /// # Errors
    ///
    /// As for [`tokens`](Self::tokens); a prefix may be too short.
    pub(crate) fn search_token(&self, key: &Secret<32>, head: &[u8], value: &Value<'_>) -> Result<Option<Token>> {
        Ok(self.kind.search_form(value)?.map(|form| self.token(key, head, &form)))
    }

    /// HMAC(key, head ‖ kind (1) ‖ parameter (1) ‖ version of the rules (1) ‖ bits (2) ‖ normal form), cut to its first bits.
    // F-17.1-2.
    fn token(&self, key: &Secret<32>, head: &[u8], (parameter, form): &Normal) -> Token {
        let rule = [self.kind.id(), *parameter, VERSION];
        let mac = hmac_sha256(key, &[head, &rule, &self.bits.to_be_bytes(), form]);
        if self.bits == Self::FULL {
            return Token::Bytes(mac);
        }
        let (first, _) = mac.split_first_chunk::<8>().expect("a MAC has 32 bytes");
        let cut = u64::from_be_bytes(*first) >> (64 - u32::from(self.bits));
        Token::Integer(i64::try_from(cut).expect("at most 63 bits"))
    }
}
