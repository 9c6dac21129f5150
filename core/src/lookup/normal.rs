//! Normal forms (FORMAT.md §17.2): what of a value an index compares. Whatever is changed here takes a new [`VERSION`].

use super::assigned::is_assigned;
use super::index::{DatePart, IndexKind, PhoneRule};
use crate::error::{Error, ErrorKind, Result};
use crate::value::{Padding, Value};
use caseless::Caseless;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

/// The version of the rules, which each token is bound to.
// F-17.2-3.
pub(super) const VERSION: u8 = 1;

/// A normal form, and the parameter of the kind that it was made with: which part of a date, how long a prefix; otherwise 0.
pub(super) type Normal = (u8, Zeroizing<Vec<u8>>);

impl IndexKind {
    /// The normal forms of a value that is stored, one per token; none if there is nothing to find: a null, an empty text.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): the value has no normal form of this kind.
    pub(super) fn normal_forms(&self, value: &Value<'_>) -> Result<Vec<Normal>> {
        let IndexKind::Prefix(lengths) = self else { return Ok(self.normal_form(value)?.into_iter().collect()) };
        let Some(folded) = folded(value)? else { return Ok(Vec::new()) };
        // A shorter text counts as a whole, so that the number of tokens does not show how long it is.
        Ok(lengths.iter().map(|&length| (length, prefix(&folded, length))).collect())
    }

    /// The normal form of a value that is looked for; of a prefix, the longest that the index has. `None` as for
    /// [`normal_forms`](Self::normal_forms).
    ///
    /// # Errors
    ///
    /// As for [`normal_forms`](Self::normal_forms), and [`InvalidInput`](ErrorKind::InvalidInput): a prefix is shorter than all that the
    /// index has.
    pub(super) fn search_form(&self, value: &Value<'_>) -> Result<Option<Normal>> {
        let IndexKind::Prefix(lengths) = self else { return self.normal_form(value) };
        let Some(folded) = folded(value)? else { return Ok(None) };
        let count = folded.chars().count();
        match lengths.iter().rev().find(|length| usize::from(**length) <= count) {
            Some(&length) => Ok(Some((length, prefix(&folded, length)))),
            // F-17.1-6.
            None => Err(wrong("the prefix is shorter than the shortest that the index has")),
        }
    }

    /// Of every kind but prefixes, which have several.
    fn normal_form(&self, value: &Value<'_>) -> Result<Option<Normal>> {
        if matches!(value, Value::Null) {
            return Ok(None);
        }
        let of_text = |text: String| if text.is_empty() { None } else { Some(Zeroizing::new(text.into_bytes())) };
        let bytes = match self {
            Self::Exact => {
                value.check()?;
                let mut encoded = Zeroizing::new(vec![0; value.encoded_len(Padding::None)]);
                value.encode(Padding::None, &mut encoded);
                Some(encoded)
            }
            Self::CaseFolded | Self::Prefix(_) => folded(value)?.map(|text| Zeroizing::new(text.as_bytes().to_vec())),
            Self::Digits => of_text(digits(value)?),
            Self::Date => of_text(date(value)?),
            Self::DatePart(part) => of_text(part.of(&date(value)?)),
            Self::Phone(rule) => rule.normal_form(text(value)?)?,
        };
        let parameter = if let Self::DatePart(part) = self { *part as u8 } else { 0 };
        Ok(bytes.map(|bytes| (parameter, bytes)))
    }
}

fn wrong(why: &'static str) -> Error {
    Error::new(ErrorKind::InvalidInput, why)
}

fn text<'v>(value: &Value<'v>) -> Result<&'v str> {
    match value {
        Value::Text(text) => Ok(text),
        _ => Err(wrong("an index of this kind takes texts")),
    }
}

/// NFKC(fold(NFKC(fold(NFD(text))))) with spaces dropped at the ends and run together elsewhere; `None` if nothing is left.
// F-17.2-1, F-17.2-2.
fn folded(value: &Value<'_>) -> Result<Option<Zeroizing<String>>> {
    if matches!(value, Value::Null) {
        return Ok(None);
    }
    let text = text(value)?;
    // Of what is assigned Unicode promises never to change the normal form, and the table of folding is that of one version; of anything else
    // another version may have another form.
    if let Some(unknown) = text.chars().find(|c| !is_assigned(*c)) {
        let detail = format!("block U+{:02X}xx", u32::from(unknown) >> 8);
        return Err(wrong("the text has a character that Unicode 16 does not assign").with_detail(detail));
    }
    let folded: Zeroizing<String> =
        Zeroizing::new(text.nfd().default_case_fold().nfkc().default_case_fold().nfkc().collect());
    let mut spaced = Zeroizing::new(String::with_capacity(folded.len()));
    for word in folded.split(' ').filter(|word| !word.is_empty()) {
        if !spaced.is_empty() {
            spaced.push(' ');
        }
        spaced.push_str(word);
    }
    Ok((!spaced.is_empty()).then_some(spaced))
}

/// The first `length` characters of a folded text.
fn prefix(folded: &str, length: u8) -> Zeroizing<Vec<u8>> {
    let end = folded.char_indices().nth(usize::from(length)).map_or(folded.len(), |(at, _)| at);
    Zeroizing::new(folded.as_bytes()[..end].to_vec())
}

/// 0 to 9 in order, and nothing else. Digits of other scripts are refused, since they would be lost.
fn digits(value: &Value<'_>) -> Result<String> {
    let spelled = match value {
        Value::Integer(_) => value.to_text().unwrap_or_default(),
        _ => text(value)?.into(),
    };
    if spelled.chars().any(|c| c.is_numeric() && !c.is_ascii_digit()) {
        return Err(wrong("the text has digits other than 0 to 9"));
    }
    Ok(spelled.chars().filter(char::is_ascii_digit).collect())
}

/// `YYYY-MM-DD`
fn date(value: &Value<'_>) -> Result<String> {
    use crate::value::ValueType;
    let days = match *value {
        Value::Date(_) => *value,
        Value::Timestamp { seconds, .. } => {
            let days = i32::try_from(seconds.div_euclid(86_400));
            Value::Date(days.map_err(|_| wrong("the date is outside the years 0000 to 9999"))?)
        }
        Value::Text("") => return Ok(String::new()),
        Value::Text(text) => Value::from_text(ValueType::Date, text)
            .map_err(|_| wrong("an index of dates takes texts of the form YYYY-MM-DD"))?,
        _ => return Err(wrong("an index of dates takes dates and timestamps")),
    };
    days.to_text().map(String::from).ok_or_else(|| wrong("the date is outside the years 0000 to 9999"))
}

impl DatePart {
    fn of(self, date: &str) -> String {
        let part = match self {
            Self::Year => date.get(..4),
            Self::YearMonth => date.get(..7),
            Self::MonthDay => date.get(5..),
        };
        part.unwrap_or_default().to_owned()
    }
}

impl PhoneRule {
    /// The digits of E.164, without the plus sign.
    fn normal_form(&self, text: &str) -> Result<Option<Zeroizing<Vec<u8>>>> {
        // F-17.3-1.
        let text = text.trim_matches(' ');
        if text.is_empty() {
            return Ok(None);
        }
        // F-17.3-2.
        let has_plus = text.starts_with('+');
        let mut digits = Zeroizing::new(String::with_capacity(text.len() + 3));
        // Where a bracket was opened, and whether there was one with a zero alone in it.
        let (mut bracketed, mut has_optional_zero) = (None, false);
        for c in text[usize::from(has_plus)..].chars() {
            // F-17.3-3.
            match c {
                '0'..='9' => digits.push(c),
                '(' => bracketed = Some(digits.len()),
                ')' => has_optional_zero |= bracketed.take().is_some_and(|at| &digits[at..] == "0"),
                ' ' | '-' | '.' | '/' | '\u{a0}' => {}
                _ => return Err(wrong("a telephone number has digits, spaces and the characters + - . / ( ) only")),
            }
        }
        // F-17.3-4.
        let prefixes = ["00"].into_iter().chain(self.international_prefix.as_deref());
        let behind = prefixes.filter_map(|prefix| digits.strip_prefix(prefix)).next();
        let is_international = has_plus || behind.is_some();
        // F-17.3-5.
        if is_international && has_optional_zero {
            return Err(wrong(
                "the telephone number has (0) behind its country code, which is part of it in some countries and not in others",
            ));
        }
        let number = match (has_plus, behind, &self.country_code) {
            (true, ..) => digits,
            (false, Some(rest), _) => Zeroizing::new(rest.to_owned()),
            // F-17.3-6.
            (false, None, Some(country)) => {
                let national = self.trunk_prefix.as_deref().and_then(|trunk| digits.strip_prefix(trunk));
                Zeroizing::new(format!("{country}{}", national.unwrap_or(&digits)))
            }
            (false, None, None) => {
                return Err(wrong("the telephone number has no country code, and the index has no country_code"));
            }
        };
        // F-17.3-7.
        // Otherwise a number with the prefix 011 would be one of North America.
        if number.starts_with('1') && number.len() != 11 {
            return Err(wrong("a telephone number with the country code 1 has 10 more digits"));
        }
        if !(7..=15).contains(&number.len()) || number.starts_with('0') {
            return Err(wrong(
                "a telephone number has 7 to 15 digits with its country code, which does not start with 0",
            ));
        }
        Ok(Some(Zeroizing::new(number.as_bytes().to_vec())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::ValueType;

    fn form(kind: &IndexKind, text: &str) -> String {
        let forms = kind.normal_forms(&Value::Text(text)).unwrap();
        forms.iter().map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect::<Vec<_>>().join("|")
    }

    fn refused(kind: &IndexKind, value: Value<'_>) {
        assert_eq!(kind.normal_forms(&value).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    /// Covers F-17.2-1, F-17.2-3.
    #[test]
    fn case_folding_is_that_of_unicode() {
        assert_eq!(caseless::UNICODE_VERSION, (16, 0, 0), "another table changes what is in indexes: FORMAT.md §17.2");
        let kind = IndexKind::CaseFolded;
        for same in ["STRASSE", "Straße", "strasse", " straße  ", "ＳＴＲＡＳＳＥ"] {
            assert_eq!(form(&kind, same), "strasse", "{same}");
        }
        assert_eq!(form(&kind, "O’BRIEN   Zoe\u{308}"), "o’brien zoë");
        assert_eq!(form(&kind, "İ"), "i̇");
        assert_eq!(form(&kind, "Ⅷ ﬁ"), "viii fi");
        assert_eq!(form(&kind, "a\u{a0}b"), "a b");
        assert_eq!(form(&kind, "  "), "");
        // The second is assigned since Unicode 17, whose folding the table does not have.
        for later in ["a\u{378}", "a\u{a7ce}", "a\u{e000}"] {
            refused(&kind, Value::Text(later));
        }
        refused(&kind, Value::Bytes(b"a"));
        // Folding what is folded changes nothing, or a search for what was found would miss it.
        for c in ('\0'..=char::MAX).filter(|c| is_assigned(*c)) {
            let once = form(&kind, &format!("x{c}x"));
            assert_eq!(form(&kind, &once), once, "{:x}", u32::from(c));
        }
    }

    #[test]
    fn digits_dates_and_phones() {
        assert_eq!(form(&IndexKind::Digits, "123-45-6789"), "123456789");
        assert_eq!(form(&IndexKind::Digits, "n/a"), "");
        refused(&IndexKind::Digits, Value::Text("١٢٣"));
        refused(&IndexKind::Digits, Value::Text("x²"));
        for (part, expected) in
            [(DatePart::Year, "1980"), (DatePart::YearMonth, "1980-02"), (DatePart::MonthDay, "02-29")]
        {
            let kind = IndexKind::DatePart(part);
            assert_eq!(form(&kind, "1980-02-29"), expected);
            let date = Value::from_text(ValueType::Date, "1980-02-29").unwrap();
            assert_eq!(&*kind.normal_forms(&date).unwrap()[0].1, expected.as_bytes());
        }
        let late = Value::from_text(ValueType::Timestamp, "1969-12-31T23:59:59Z").unwrap();
        assert_eq!(&*IndexKind::Date.normal_forms(&late).unwrap()[0].1, b"1969-12-31");
        refused(&IndexKind::Date, Value::Text("29.02.1980"));
        refused(&IndexKind::Date, Value::Text("1981-02-29"));
        refused(&IndexKind::Date, Value::Date(i32::MAX));

        let none = IndexKind::Phone(PhoneRule::default());
        assert_eq!(form(&none, "+1 (555) 010-4477"), "15550104477");
        assert_eq!(form(&none, "0049 30 901820"), "4930901820");
        for text in ["555 0104", "+1 555 010-4477 x12", "+49", "+0 555 010 4477", "+2345678901234567", "tel"] {
            refused(&none, Value::Text(text));
        }
        // Whether the 0 belongs to the number depends on the country, and 10 digits follow a 1.
        for text in ["+49 (0)30 901820", "0049 ( 0 ) 30 901820", "+1 555 010 447", "+1 555 010 44771"] {
            refused(&none, Value::Text(text));
        }
        let rule = |country: &str, trunk: &str| {
            IndexKind::Phone(PhoneRule {
                country_code: Some(country.into()),
                trunk_prefix: Some(trunk.into()),
                international_prefix: None,
            })
        };
        let america = rule("1", "1");
        for same in ["+1 555 010 4477", "1-555-010-4477", "(555) 010-4477", "555.010.4477", "001 555 010 4477"] {
            assert_eq!(form(&america, same), "15550104477", "{same}");
        }
        assert_eq!(form(&rule("49", "0"), "030/901820"), form(&none, "+49 30 901820"));
        assert_eq!(form(&rule("49", "0"), "(0) 30/901820"), form(&none, "+49 30 901820"));
        refused(&america, Value::Text("011 49 30 901820"));
        let IndexKind::Phone(american) = america else { panic!("a rule for numbers") };
        let abroad = IndexKind::Phone(PhoneRule { international_prefix: Some("011".into()), ..american });
        for same in ["011 49 30 901820", "00 49 30 901820", "+49 30 901820"] {
            assert_eq!(form(&abroad, same), "4930901820", "{same}");
        }
        refused(&abroad, Value::Text("011 49 (0)30 901820"));
    }

    #[test]
    fn prefixes_are_as_many_for_every_text() {
        let kind = IndexKind::Prefix(vec![3, 5]);
        assert_eq!(form(&kind, "Müller"), "mül|mülle");
        assert_eq!(form(&kind, "Mü"), "mü|mü");
        assert_eq!(form(&kind, ""), "");
        let search = |text: &str| {
            let found = kind.search_form(&Value::Text(text));
            found.map(|found| found.map(|(length, bytes)| (length, String::from_utf8_lossy(&bytes).into_owned())))
        };
        assert_eq!(search("MÜL").unwrap(), Some((3, "mül".into())));
        assert_eq!(search("MÜLL").unwrap(), Some((3, "mül".into())));
        assert_eq!(search("Müller-Lüdenscheidt").unwrap(), Some((5, "mülle".into())));
        assert_eq!(search("Mü").unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
