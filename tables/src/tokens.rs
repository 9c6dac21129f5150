//! Random tokens in the place of values, and the table that says which stands for which (DESIGN F22): codes that do not derive from the patient.

mod table;

pub use table::TokenTable;

use keyfold::{Decryptor, Error, ErrorKind, Field, FieldMode, OpenedColumn, Prover, Result, RowError};
use keyfold::{Searcher, TokenAlphabet, TokenForm, Value};
use table::{Drawn, Space};
use zeroize::Zeroizing;

/// How often a token is drawn again that another value has already.
const MAX_DRAWS: u32 = 8;

/// The tokens of one field. Every row of the table that it reads is checked: one that was exchanged, copied or forged by somebody without the look-up key
/// is an error. The empty text has no row: its token is empty.
///
/// Shared freely between threads.
#[derive(Debug)]
pub struct Tokenizer {
    space: Space,
    form: TokenForm,
    searcher: Searcher,
    decryptor: Decryptor,
    prover: Prover,
}

impl Tokenizer {
    /// That of a field with `mode = "token"`.
    ///
    /// # Errors
    ///
    /// As for [`Field::prover`].
    pub fn new(field: Field) -> Result<Self> {
        let FieldMode::Token { partition, form } = field.policy().mode.clone() else {
            return Err(Error::new(ErrorKind::PolicyRefused, "the values of this field have no random tokens"));
        };
        Ok(Self {
            space: Space { field: field.policy().name.clone(), partition },
            form,
            searcher: pollster::block_on(field.clone().searcher())?,
            decryptor: pollster::block_on(field.clone().decryptor())?,
            prover: pollster::block_on(field.prover())?,
        })
    }

    /// The token of each value, made where there is none: however many writers ask at once, a value gets one.
    ///
    /// # Errors
    ///
    /// With the row; tokens that were made stay.
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): a null, or of the wrong type.
    /// - [`DecryptionFailed`](ErrorKind::DecryptionFailed): the table has a token for the value that nobody with the look-up key has put there.
    /// - [`Configuration`](ErrorKind::Configuration): there is no such table, or it lacks a column or a constraint.
    /// - [`Store`](ErrorKind::Store): the database failed.
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): every token that was drawn is taken: they are too short.
    /// - Those of [`Searcher::ciphertexts`] and [`Prover::prove`].
    pub fn tokens(&self, table: &TokenTable, values: &[Value<'_>]) -> Result<Vec<String>, RowError> {
        self.ready()?;
        let mut tokens = vec![None; values.len()];
        for (row, value) in values.iter().enumerate() {
            match value {
                Value::Null => {
                    return Err(RowError::at(row)(Error::new(ErrorKind::InvalidInput, "a null has no token")));
                }
                Value::Text("") => tokens[row] = Some(String::new()),
                _ => {}
            }
        }
        for _ in 0..MAX_DRAWS {
            let missing: Vec<usize> = (0..values.len()).filter(|&row| tokens[row].is_none()).collect();
            if missing.is_empty() {
                break;
            }
            let drawn = missing.iter().map(|&row| self.draw(values[row]).map_err(RowError::at(row)));
            let drawn: Vec<Drawn> = drawn.collect::<Result<_, _>>()?;
            let found = table.find_or_add(&self.space, drawn)?;
            for (row, found) in missing.into_iter().zip(found) {
                let Some((token, proof)) = found else { continue };
                self.prover.check(&token, values[row], &proof).map_err(RowError::at(row))?;
                tokens[row] = Some(token);
            }
        }
        let taken = || Error::new(ErrorKind::LimitExceeded, "every token that was drawn is taken: make tokens longer");
        tokens.into_iter().enumerate().map(|(row, token)| token.ok_or_else(|| RowError::at(row)(taken()))).collect()
    }

    /// A row for the case that the value has none.
    fn draw(&self, value: Value<'_>) -> Result<Drawn> {
        let token = self.form.draw()?;
        let proof = self.prover.prove(&token, value)?.to_vec();
        Ok(Drawn { forms: self.searcher.ciphertexts(value)?, token, proof })
    }

    /// The first of `values` that is a token of the field already: whoever protects a file twice would put tokens in the place of tokens. The table is asked
    /// for values of the form of a token alone, whatever white space is around them and apostrophe before them, escapes of a JSON string spell them, and the case of hexadecimal
    /// digits is.
    ///
    /// # Errors
    ///
    /// With the row.
    ///
    /// - [`DecryptionFailed`](ErrorKind::DecryptionFailed): somebody without the look-up key has put the token into the table.
    /// - [`Configuration`](ErrorKind::Configuration), [`Store`](ErrorKind::Store): as for [`tokens`](Self::tokens).
    /// - Those of [`Decryptor::decrypt_column`].
    pub fn known(&self, table: &TokenTable, values: &[Value<'_>]) -> Result<Option<usize>, RowError> {
        // Values, so erased.
        let texts = values.iter().enumerate().filter_map(|(row, value)| Some((row, self.as_token(value)?)));
        let like: Vec<(usize, Zeroizing<String>)> =
            texts.filter(|(_, text)| self.form.fits(&Value::Text(text))).collect();
        if like.is_empty() {
            return Ok(None);
        }
        let tokens: Vec<&str> = like.iter().map(|(_, text)| text.as_str()).collect();
        let found = table.find(&self.space, &tokens)?.iter().position(Option::is_some);
        let Some(found) = found else { return Ok(None) };
        let row = like[found].0;
        // A row that is not proven is nobody's token, but no reason to go on either.
        self.values(table, &tokens[found..=found])
            .map_err(|failed| RowError { row: failed.row.map(|_| row), ..failed })?;
        Ok(Some(row))
    }

    /// The value of each token.
    ///
    /// # Errors
    ///
    /// With the row; nothing is returned for the others.
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): the text is no token, or the table does not have it.
    /// - [`DecryptionFailed`](ErrorKind::DecryptionFailed): somebody without the look-up key has changed its row.
    /// - [`Configuration`](ErrorKind::Configuration), [`Store`](ErrorKind::Store): as for [`tokens`](Self::tokens).
    /// - Those of [`Decryptor::decrypt_column`].
    pub fn values(&self, table: &TokenTable, tokens: &[&str]) -> Result<OpenedColumn, RowError> {
        let refused = |row, why| RowError::at(row)(Error::new(ErrorKind::InvalidInput, why));
        let is_wrong = |token: &&str| !token.is_empty() && !self.form.fits(&Value::Text(token));
        if let Some(row) = tokens.iter().position(is_wrong) {
            let spelt = self.as_token(&Value::Text(tokens[row]));
            let is_spelt_otherwise = spelt.is_some_and(|token| self.form.fits(&Value::Text(&token)));
            let why = match is_spelt_otherwise {
                true => {
                    "the value is a token with white space around it, an apostrophe before it or capitals: give it as it was made"
                }
                false => "the value is no token; plaintext is never passed through",
            };
            return Err(refused(row, why));
        }
        self.ready()?;
        let rows = table.find(&self.space, tokens)?;
        // What is opened in the place of an empty token.
        let mut empty = Vec::new();
        if tokens.contains(&"") {
            empty = self.searcher.ciphertexts(Value::Text(""))?.swap_remove(0);
        }
        let sealed = tokens.iter().zip(&rows).enumerate().map(|(row, (token, found))| match found {
            _ if token.is_empty() => Ok(&empty[..]),
            Some((value, _)) => Ok(&value[..]),
            None => Err(refused(row, "the table of tokens does not have the token")),
        });
        let sealed: Vec<&[u8]> = sealed.collect::<Result<_, _>>()?;
        pollster::block_on(self.decryptor.load_keys(&sealed[..]))?;
        let opened = self.decryptor.decrypt_column(&sealed[..], None::<&[&[u8]]>)?;
        for (row, (token, found)) in tokens.iter().zip(&rows).enumerate() {
            if let (false, Some((_, proof))) = (token.is_empty(), found) {
                self.prover.check(token, opened.value(row), proof).map_err(RowError::at(row))?;
            }
        }
        Ok(opened)
    }

    /// The text of a value, of a JSON string as well, as a token would be spelt.
    fn as_token(&self, value: &Value<'_>) -> Option<Zeroizing<String>> {
        let text = match value {
            Value::Json(raw) => json_text(raw)?,
            value => Zeroizing::new(value.to_text()?.into_owned()),
        };
        // A spreadsheet writes an apostrophe before what is to stay a text, and a web page has spaces that do not break.
        let mut token = Zeroizing::new(text.trim().trim_start_matches('\'').trim_start().to_owned());
        // The one alphabet in which the case of a letter says nothing.
        if self.form.alphabet == TokenAlphabet::Hex {
            token.make_ascii_lowercase();
        }
        Some(token)
    }

    fn ready(&self) -> Result<(), RowError> {
        pollster::block_on(self.searcher.ready())?;
        pollster::block_on(self.prover.ready())?;
        Ok(())
    }
}

/// What a JSON string says; `None` of anything else, and of one with an escape that none of a token's characters has, nor white space around it.
fn json_text(raw: &str) -> Option<Zeroizing<String>> {
    let mut rest = raw.strip_prefix('"')?.strip_suffix('"')?;
    // It does not get longer, so nothing is left where it grew.
    let mut text = Zeroizing::new(String::with_capacity(rest.len()));
    while let Some((plain, escape)) = rest.split_once('\\') {
        text.push_str(plain);
        let digits = escape.strip_prefix('u').and_then(|behind| behind.get(..4));
        let (character, len) = match digits {
            Some(digits) => (char::from_u32(u32::from_str_radix(digits, 16).ok()?)?, 5),
            None => (escape.starts_with(['t', 'n', 'r']).then_some(' ')?, 1),
        };
        text.push(character);
        rest = &escape[len..];
    }
    text.push_str(rest);
    Some(text)
}
