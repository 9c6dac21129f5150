//! Values in and out of JSON tokens.

use super::RowFailed;
use super::sealed::looks_sealed;
use crate::erased::Erased;
use crate::field::{Direction, FieldCipher, LOOKS_SEALED, Protected, Revealed, push_sealed};
use crate::{DocumentError, Token, push_string, string_len};
use keyfold::wire::text_len;
use keyfold::{ColumnBytes, ErrorKind, FieldMode, FieldPolicy, Spelling, Value, ValueType};
use std::borrow::Cow;
use zeroize::Zeroizing;

/// Values of a batch that were protected, by the row.
pub(super) struct ProtectedTexts<'t> {
    /// What stays in clear before each.
    prefixes: Vec<&'t str>,
    protected: Protected,
}

/// Protects the values of tokens.
pub(super) fn protect<'t>(
    job: &FieldCipher,
    tokens: &'t [Token<'_>],
    rows: Option<&[&[u8]]>,
) -> Result<ProtectedTexts<'t>, RowFailed> {
    let mut values = Vec::with_capacity(tokens.len());
    let mut prefixes = Vec::with_capacity(tokens.len());
    for (row, token) in tokens.iter().enumerate() {
        let (prefix, value) = value_of(job.policy(), token).map_err(|error| RowFailed { row: Some(row), error })?;
        prefixes.push(prefix);
        values.push(value);
    }
    Ok(ProtectedTexts { prefixes, protected: job.protect(&values, rows)? })
}

impl ProtectedTexts<'_> {
    /// Appends the JSON string of a row.
    pub(super) fn push(&self, row: usize, out: &mut Erased) {
        let prefix = self.prefixes[row];
        match &self.protected {
            Protected::Sealed(sealed) => push_sealed_string(prefix, sealed.bytes(row), out),
            Protected::Replaced(texts) => push_prefixed(prefix, &texts[row], out),
        }
    }
}

/// The values of tokens, without the prefixes that stay in clear.
pub(super) fn values_of<'t>(job: &FieldCipher, tokens: &'t [Token<'_>]) -> Result<Vec<Value<'t>>, RowFailed> {
    let value = |(row, token)| match value_of(job.policy(), token) {
        Ok((_, value)) => Ok(value),
        Err(error) => Err(RowFailed { row: Some(row), error }),
    };
    tokens.iter().enumerate().map(value).collect()
}

/// Appends the JSON string of a sealed value behind the prefix that stays in clear.
pub(super) fn push_sealed_string(prefix: &str, sealed: &[u8], out: &mut Erased) {
    let out = out.with_room(string_len(prefix) + text_len(sealed.len()));
    // The text form has no character that JSON would escape; the prefix may.
    push_string(prefix, out);
    out.pop();
    push_sealed(sealed, out);
    out.push(b'"');
}

/// Appends the JSON string of a text.
pub(super) fn push_text(text: &str, out: &mut Erased) {
    push_string(text, out.with_room(string_len(text)));
}

/// Appends the JSON string of a text behind its prefix.
fn push_prefixed(prefix: &str, text: &str, out: &mut Erased) {
    if prefix.is_empty() {
        return push_text(text, out);
    }
    // Erased, as it may be what was protected.
    let mut whole = Zeroizing::new(String::with_capacity(prefix.len() + text.len()));
    whole.push_str(prefix);
    whole.push_str(text);
    push_text(&whole, out);
}

/// Values of a batch that were opened, by the row.
pub(super) struct RevealedTexts<'t> {
    prefixes: Vec<&'t str>,
    revealed: Revealed,
    one_line: bool,
}

/// Opens what is sealed in JSON strings.
pub(super) fn reveal<'t>(
    job: &FieldCipher,
    tokens: &'t [Token<'_>],
    rows: Option<&[&[u8]]>,
    one_line: bool,
) -> Result<RevealedTexts<'t>, RowFailed> {
    let texts = sealed_texts(tokens)?;
    let revealed = job.reveal(&texts, rows)?;
    let prefixes = texts.into_iter().map(|text| job.policy().split_prefix(text).0).collect();
    Ok(RevealedTexts { prefixes, revealed, one_line })
}

impl RevealedTexts<'_> {
    /// Values under an old key, and under a compromised one.
    pub(super) fn counts(&self) -> (u64, u64) {
        self.revealed.counts()
    }

    /// Appends the JSON of a row.
    pub(super) fn push(&self, row: usize, out: &mut Erased) -> Result<(), RowFailed> {
        match &self.revealed {
            Revealed::Opened(opened) => push_value(self.prefixes[row], &opened.value(row), self.one_line, out)
                .map_err(|error| RowFailed { row: Some(row), error }),
            Revealed::Replaced(texts) => {
                push_text(&texts[row], out);
                Ok(())
            }
        }
    }
}

/// What an error says of something else than a string where a sealed value should be.
pub(super) const NOT_SEALED: &str = "the value is not sealed; plaintext is never passed through";

/// What the strings say; anything else is not sealed.
pub(super) fn sealed_texts<'t>(tokens: &'t [Token<'_>]) -> Result<Vec<&'t str>, RowFailed> {
    let texts = tokens.iter().enumerate().map(|(row, token)| match token {
        Token::String { text, .. } => Ok(&**text),
        // F-18.5-2.
        _ => Err(RowFailed::new(row, ErrorKind::Malformed, NOT_SEALED)),
    });
    texts.collect()
}

/// The value of a token of a document.
pub(super) fn protect_value<'t>(
    policy: &FieldPolicy,
    token: &'t Token<'_>,
    direction: Direction,
) -> Result<Value<'t>, DocumentError> {
    if !matches!(direction, Direction::Protect { seal_sealed: true }) && looks_sealed(token) {
        return Err(DocumentError::new(ErrorKind::PolicyRefused, LOOKS_SEALED));
    }
    value_of(policy, token).map(|(_, value)| value)
}

/// The prefix that stays in clear and the value of a token, by the type that the policy gives the field.
fn value_of<'t>(policy: &FieldPolicy, token: &'t Token<'_>) -> Result<(&'t str, Value<'t>), DocumentError> {
    let mismatch = || {
        let expected = policy.value_type.map_or("any", ValueType::name);
        DocumentError::new(ErrorKind::InvalidInput, "the value is not of the field's type").with_detail(expected)
    };
    match (token, policy.value_type) {
        (Token::Null, _) => Ok(("", Value::Null)),
        (
            Token::String { raw, .. } | Token::Number(raw) | Token::Array(raw) | Token::Object(raw),
            Some(ValueType::Json),
        ) => Ok(("", Value::Json(raw))),
        (Token::String { text, canonical, raw }, None | Some(ValueType::Text)) => {
            let (prefix, rest) = policy.split_prefix(text);
            if *canonical || policy.spelling == Spelling::Normalise {
                return Ok((prefix, Value::Text(rest)));
            }
            // Of which equal values have one form, or one token.
            let is_one = matches!(policy.mode, FieldMode::Deterministic { .. } | FieldMode::Token { .. });
            if is_one || policy.value_type.is_some() {
                let why = "the string is spelled with unusual escapes, so it would not join or come back; spelling = \"normalise\" in the policy accepts it";
                return Err(DocumentError::new(ErrorKind::InvalidInput, why));
            }
            Ok(("", Value::Json(raw)))
        }
        (Token::String { text, canonical: true, .. }, Some(value_type @ (ValueType::Date | ValueType::Timestamp))) => {
            Ok(("", Value::from_text(value_type, text)?))
        }
        (Token::Number(literal), None) => Ok((
            "",
            match Value::from_text(ValueType::Integer, literal) {
                Ok(integer) => integer,
                Err(error) if error.kind() == ErrorKind::InvalidInput => Value::Decimal(literal),
                Err(error) => return Err(error.into()),
            },
        )),
        (Token::Number(literal), Some(value_type @ (ValueType::Integer | ValueType::Decimal | ValueType::Float))) => {
            Ok(("", Value::from_text(value_type, literal)?))
        }
        (Token::Bool(truth), None | Some(ValueType::Boolean)) => Ok(("", Value::Boolean(*truth))),
        (Token::Array(raw) | Token::Object(raw), None) => Ok(("", Value::Json(raw))),
        _ => Err(mismatch()),
    }
}

/// Appends the JSON spelling of a value that was opened.
pub(super) fn push_value(
    prefix: &str,
    value: &Value<'_>,
    one_line: bool,
    out: &mut Erased,
) -> Result<(), DocumentError> {
    let text =
        value.to_text().ok_or_else(|| DocumentError::new(ErrorKind::InvalidInput, "the value has no JSON form"))?;
    let is_number = |text: &str| matches!(Token::parse(text), Some(Token::Number(_)));
    match value.value_type() {
        ValueType::Null => out.with_room(4).extend_from_slice(b"null"),
        // Sealed by somebody else, perhaps from a CSV cell: it must stay one value on one line.
        ValueType::Json if Token::parse(&text).is_none() || one_line && text.contains(['\n', '\r']) => {
            return Err(DocumentError::new(ErrorKind::InvalidInput, "the value is not JSON on one line"));
        }
        ValueType::Float if !is_number(&text) => {
            return Err(DocumentError::new(ErrorKind::InvalidInput, "JSON has no such number"));
        }
        ValueType::Json | ValueType::Integer | ValueType::Decimal | ValueType::Float | ValueType::Boolean => {
            out.with_room(text.len()).extend_from_slice(text.as_bytes());
        }
        _ => push_prefixed(prefix, &text, out),
    }
    Ok(())
}

/// The text of a string, or the literal of a number.
pub(super) fn scalar_text(token: Option<Token<'_>>) -> Option<Cow<'_, str>> {
    match token? {
        Token::String { text, .. } => Some(text),
        Token::Number(literal) => Some(literal.into()),
        _ => None,
    }
}
