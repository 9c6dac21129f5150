//! Random tokens that stand for values in a table (docs/LOOKUP.md): drawn, never derived.

use crate::error::Result;
use crate::random;
use crate::value::Value;

/// How a random token looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TokenForm {
    /// Its characters.
    pub alphabet: TokenAlphabet,
    /// How many: so many that there are 2⁶⁴ tokens, and at most 64, which every ID of FHIR may have.
    pub length: u8,
}

/// The characters of a random token, all of which an ID of FHIR may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TokenAlphabet {
    /// 0 to 9: 20 characters at least.
    Digits,
    /// 0 to 9 and a to f: 16 at least.
    Hex,
    /// 0 to 9, A to Z and a to z: 11 at least.
    Alphanumeric,
}

impl TokenAlphabet {
    /// Every alphabet.
    pub const ALL: [Self; 3] = [Self::Digits, Self::Hex, Self::Alphanumeric];

    /// The name in configurations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Digits => "digits",
            Self::Hex => "hex",
            Self::Alphanumeric => "alphanumeric",
        }
    }

    const fn characters(self) -> &'static [u8] {
        match self {
            Self::Digits => b"0123456789",
            Self::Hex => b"0123456789abcdef",
            Self::Alphanumeric => b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
        }
    }

    const fn shortest(self) -> u8 {
        match self {
            Self::Digits => 20,
            Self::Hex => 16,
            Self::Alphanumeric => 11,
        }
    }
}

impl Default for TokenForm {
    /// 22 letters and digits: 131 bits.
    fn default() -> Self {
        Self { alphabet: TokenAlphabet::Alphanumeric, length: 22 }
    }
}

impl TokenForm {
    /// Whether tokens of the form can be told apart and not be guessed.
    pub(crate) const fn is_good(self) -> bool {
        self.length >= self.alphabet.shortest() && self.length <= 64
    }

    /// A new token, each of which is as likely as any other.
    ///
    /// # Errors
    ///
    /// - [`RandomnessUnavailable`](crate::ErrorKind::RandomnessUnavailable): there is none.
    pub fn draw(self) -> Result<String> {
        let characters = self.alphabet.characters();
        // What is left over of a byte's range would make some characters likelier.
        let even = 256 / characters.len() * characters.len();
        let mut token = String::with_capacity(usize::from(self.length));
        while token.len() < usize::from(self.length) {
            let bytes: [u8; 64] = random::array()?;
            let chosen = bytes.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < even);
            let left = usize::from(self.length) - token.len();
            token.extend(chosen.take(left).map(|byte| char::from(characters[byte % characters.len()])));
        }
        Ok(token)
    }

    /// Whether `value` may be such a token: a text of so many of its characters.
    #[must_use]
    pub fn fits(self, value: &Value<'_>) -> bool {
        matches!(value, Value::Text(text) if text.len() == usize::from(self.length)
            && text.bytes().all(|byte| self.alphabet.characters().contains(&byte)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn tokens_have_their_form_and_differ() {
        for alphabet in TokenAlphabet::ALL {
            assert!(!TokenForm { alphabet, length: alphabet.shortest() - 1 }.is_good());
            assert!(!TokenForm { alphabet, length: 65 }.is_good());
            for length in [alphabet.shortest(), 64] {
                let form = TokenForm { alphabet, length };
                assert!(form.is_good() && f64::from(length) * (alphabet.characters().len() as f64).log2() >= 64.0);
                let tokens: HashSet<String> = (0..1_000).map(|_| form.draw().unwrap()).collect();
                assert_eq!(tokens.len(), 1_000);
                assert!(tokens.iter().all(|token| form.fits(&Value::Text(token))));
                let used: HashSet<char> = tokens.iter().flat_map(|token| token.chars()).collect();
                assert_eq!(used.len(), alphabet.characters().len());
            }
        }
    }
}
