//! Values in and out of JSON tokens.

use super::RowFailed;
use super::sealed::looks_sealed;
use crate::field::{Direction, FieldCipher, LOOKS_SEALED, Protected, Revealed, push_sealed};
use crate::{DocumentError, Token, push_string};
use keyfold::{ColumnBytes, ErrorKind, FieldPolicy, Spelling, Value, ValueType};
use zeroize::Zeroizing;

/// New texts of values, as JSON.
type Texts = Vec<Zeroizing<Vec<u8>>>;

/// The JSON strings of sealed values.
pub(super) fn protect(job: &FieldCipher, tokens: &[Token<'_>], rows: Option<&[&[u8]]>) -> Result<Texts, RowFailed> {
    let mut values = Vec::with_capacity(tokens.len());
    let mut prefixes = Vec::with_capacity(tokens.len());
    for (row, token) in tokens.iter().enumerate() {
        let (prefix, value) = value_of(job.policy(), token).map_err(|error| RowFailed { row, error })?;
        prefixes.push(prefix);
        values.push(value);
    }
    Ok(match job.protect(&values, rows)? {
        Protected::Sealed(sealed) => {
            prefixes.iter().enumerate().map(|(row, prefix)| sealed_string(prefix, sealed.bytes(row))).collect()
        }
        Protected::Replaced(texts) => prefixes
            .iter()
            .zip(&texts)
            .map(|(prefix, text)| text_string([prefix.as_bytes(), text.as_bytes()].concat().as_slice()))
            .collect(),
    })
}

/// The values of tokens, without the prefixes that stay in clear.
pub(super) fn values_of<'t>(job: &FieldCipher, tokens: &'t [Token<'_>]) -> Result<Vec<Value<'t>>, RowFailed> {
    let value = |(row, token)| match value_of(job.policy(), token) {
        Ok((_, value)) => Ok(value),
        Err(error) => Err(RowFailed { row, error }),
    };
    tokens.iter().enumerate().map(value).collect()
}

/// The JSON string of a sealed value behind the prefix that stays in clear.
pub(super) fn sealed_string(prefix: &str, sealed: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut text = Vec::new();
    // The text form has no character that JSON would escape; the prefix may.
    push_string(prefix, &mut text);
    text.pop();
    push_sealed(sealed, &mut text);
    text.push(b'"');
    Zeroizing::new(text)
}

/// The JSON string of a sealed text.
pub(super) fn text_string(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Vec::new();
    push_string(&String::from_utf8_lossy(text), &mut out);
    Zeroizing::new(out)
}

/// What is sealed in JSON strings, as JSON and as it was opened.
pub(super) fn reveal(
    job: &FieldCipher,
    tokens: &[Token<'_>],
    rows: Option<&[&[u8]]>,
    one_line: bool,
) -> Result<(Texts, Revealed), RowFailed> {
    let texts = sealed_texts(tokens)?;
    let opened = match job.reveal(&texts, rows)? {
        Revealed::Opened(opened) => opened,
        Revealed::Replaced(replaced) => {
            let json = replaced.iter().map(|text| text_string(text.as_bytes())).collect();
            return Ok((json, Revealed::Replaced(replaced)));
        }
    };
    let json = texts.iter().enumerate().map(|(row, text)| {
        let (prefix, _) = job.policy().split_prefix(text);
        let mut out = Zeroizing::new(Vec::new());
        push_value(prefix, &opened.value(row), one_line, &mut out).map_err(|error| RowFailed { row, error })?;
        Ok(out)
    });
    let json = json.collect::<Result<_, RowFailed>>()?;
    Ok((json, Revealed::Opened(opened)))
}

/// What the strings say; anything else is not sealed.
pub(super) fn sealed_texts<'t>(tokens: &'t [Token<'_>]) -> Result<Vec<&'t str>, RowFailed> {
    let not_sealed = "the value is not sealed; plaintext is never passed through";
    let texts = tokens.iter().enumerate().map(|(row, token)| match token {
        Token::String { text, .. } => Ok(text.as_str()),
        _ => Err(RowFailed::new(row, ErrorKind::Malformed, not_sealed)),
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
            if matches!(policy.mode, keyfold::FieldMode::Deterministic { .. }) || policy.value_type.is_some() {
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
    out: &mut Vec<u8>,
) -> Result<(), DocumentError> {
    let text =
        value.to_text().ok_or_else(|| DocumentError::new(ErrorKind::InvalidInput, "the value has no JSON form"))?;
    // Where it grows later, plaintext is left behind.
    out.reserve(text.len() + 2);
    let is_number = |text: &str| matches!(Token::parse(text), Some(Token::Number(_)));
    match value.value_type() {
        ValueType::Null => out.extend_from_slice(b"null"),
        // Sealed by somebody else, perhaps from a CSV cell: it must stay one value on one line.
        ValueType::Json if Token::parse(&text).is_none() || one_line && text.contains(['\n', '\r']) => {
            return Err(DocumentError::new(ErrorKind::InvalidInput, "the value is not JSON on one line"));
        }
        ValueType::Float if !is_number(&text) => {
            return Err(DocumentError::new(ErrorKind::InvalidInput, "JSON has no such number"));
        }
        ValueType::Json | ValueType::Integer | ValueType::Decimal | ValueType::Float | ValueType::Boolean => {
            out.extend_from_slice(text.as_bytes());
        }
        _ if prefix.is_empty() => push_string(&text, out),
        _ => push_string(&format!("{prefix}{text}"), out),
    }
    Ok(())
}

/// The text of a string, or the literal of a number.
pub(super) fn scalar_text(token: Option<Token<'_>>) -> Option<Zeroizing<String>> {
    match token? {
        Token::String { text, .. } => Some(Zeroizing::new(text)),
        Token::Number(literal) => Some(Zeroizing::new(literal.to_owned())),
        _ => None,
    }
}
