//! Names of tables and columns in SQL.

use keyfold::{Error, ErrorKind, Result};
use std::fmt;
use std::str::FromStr;

/// A table, with its schema if that was given. Names are the ones that are stored: nothing is folded to lower case.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TableName {
    /// The schema, in SQLite the attached database.
    pub schema: Option<String>,
    /// The table.
    pub table: String,
}

impl FromStr for TableName {
    type Err = Error;

    /// Reads `TABLE` or `SCHEMA.TABLE`; a part that has a dot or a quote stands in double quotes, with its quotes doubled.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(
                ErrorKind::InvalidInput,
                "a table is TABLE or SCHEMA.TABLE, with \"…\" around a part that has a dot",
            )
        };
        let mut parts = Vec::new();
        let mut rest = text;
        loop {
            let (part, after) = match rest.strip_prefix('"') {
                Some(quoted) => quoted_part(quoted).ok_or_else(wrong)?,
                None => {
                    let end = rest.find('.').unwrap_or(rest.len());
                    (rest[..end].to_owned(), &rest[end..])
                }
            };
            if part.is_empty() || part.contains('\0') {
                return Err(wrong());
            }
            parts.push(part);
            match after.strip_prefix('.') {
                Some(more) => rest = more,
                None if after.is_empty() => break,
                None => return Err(wrong()),
            }
        }
        let table = parts.pop().ok_or_else(wrong)?;
        let schema = parts.pop();
        if parts.is_empty() { Ok(Self { schema, table }) } else { Err(wrong()) }
    }
}

/// The name behind an opening quote, and what follows the closing one.
fn quoted_part(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"')?;
        name.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, after)),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{}.{}", quote(schema), quote(&self.table)),
            None => f.write_str(&quote(&self.table)),
        }
    }
}

/// A name as both databases take it literally.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_literally() {
        for (text, schema, table) in [
            ("patients", None, "patients"),
            ("Clinic.Patients", Some("Clinic"), "Patients"),
            ("\"a.b\".\"c\"\"d\"", Some("a.b"), "c\"d"),
            ("a\"b", None, "a\"b"),
            ("\"x; DROP TABLE y\"", None, "x; DROP TABLE y"),
        ] {
            let name: TableName = text.parse().expect("a name");
            assert_eq!((name.schema.as_deref(), name.table.as_str()), (schema, table));
            assert_eq!(name.to_string().parse::<TableName>().expect("a name"), name);
        }
        for text in ["", ".", "a.", ".a", "a.b.c", "\"a", "\"a\"b", "\"\"", "a\0b"] {
            assert!(text.parse::<TableName>().is_err(), "{text:?}");
        }
    }
}
