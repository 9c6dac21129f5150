//! Which columns and paths hold which identifier: a file of the customer's, or a guess by names.

use crate::failure::{Exit, Failure};
use keyfold::{FieldPolicy, HipaaClass};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;

/// A column or path with the identifier that it holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Classified {
    /// `TABLE.COLUMN`, or `DOCUMENT PATH`.
    pub(crate) place: String,
    pub(crate) at: At,
    pub(crate) class: HipaaClass,
    /// The field that holds it, where the schema says so.
    pub(crate) field: Option<String>,
    /// Whether the class is a guess by the name.
    pub(crate) guessed: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum At {
    Column(String),
    /// In documents whose members equal these strings.
    Path(String, BTreeMap<String, String>),
    /// In HL7 v2 messages, of which schemas say nothing: a place of a policy.
    Segment(String),
}

impl At {
    /// The places of a field.
    pub(crate) fn of(field: &FieldPolicy) -> Vec<Self> {
        let columns = field.columns.iter().cloned().map(Self::Column);
        let paths = field.paths.iter().map(|path| Self::Path(path.clone(), field.only_if.clone()));
        columns.chain(paths).chain(field.segments.iter().cloned().map(Self::Segment)).collect()
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column(name) => write!(f, "column {name}"),
            Self::Segment(path) => write!(f, "segment {path}"),
            Self::Path(path, only_if) => {
                // A long path may go over several lines.
                write!(f, "path {}", path.split_whitespace().collect::<Vec<_>>().join(" "))?;
                only_if.iter().enumerate().try_for_each(|(at, (path, value))| {
                    write!(f, "{} {path} = {value:?}", if at == 0 { " if" } else { "," })
                })
            }
        }
    }
}

/// The classification of a database and of documents.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    pub(crate) classified: Vec<Classified>,
    /// Of each table, the columns that somebody has looked at.
    reviewed: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SchemaToml {
    version: u32,
    #[serde(default)]
    tables: BTreeMap<String, TableToml>,
    #[serde(default)]
    documents: BTreeMap<String, DocumentToml>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TableToml {
    #[serde(default)]
    columns: BTreeMap<String, ColumnToml>,
    /// Columns that hold no identifier.
    #[serde(default)]
    clear: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentToml {
    #[serde(default)]
    only_if: BTreeMap<String, String>,
    paths: BTreeMap<String, ColumnToml>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a letter from A to R, or { identifier = …, field = … }")]
enum ColumnToml {
    Letter(char),
    Table(FieldToml),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FieldToml {
    identifier: char,
    field: Option<String>,
}

impl ColumnToml {
    fn parts(self) -> (char, Option<String>) {
        match self {
            Self::Letter(letter) => (letter, None),
            Self::Table(FieldToml { identifier, field }) => (identifier, field),
        }
    }
}

impl Schema {
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path)
            .map_err(|error| Failure::new(Exit::Storage, format!("cannot read {}: {error}", path.display())))?;
        Self::parse(&text).map_err(|why| Failure::new(Exit::Policy, why).at(path.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: SchemaToml = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            format!("line {line}: {}", error.message())
        })?;
        if file.version != 1 {
            return Err("this build reads version 1".to_owned());
        }
        let mut schema = Self::default();
        let classify = |place: &str, column: ColumnToml, at: At| {
            let (letter, field) = column.parts();
            let class = HipaaClass::new(letter)
                .ok_or_else(|| format!("{place}: a letter from A to R, of 45 CFR 164.514(b)(2)(i)"))?;
            Ok::<_, String>(Classified { place: place.to_owned(), at, class, field, guessed: false })
        };
        for (table, TableToml { columns, clear }) in file.tables {
            let reviewed = schema.reviewed.entry(table.clone()).or_default();
            reviewed.extend(clear);
            for (name, column) in columns {
                if !reviewed.insert(name.clone()) {
                    return Err(format!("{table}.{name} is classified and clear as well"));
                }
                schema.classified.push(classify(&format!("{table}.{name}"), column, At::Column(name))?);
            }
        }
        for (document, DocumentToml { only_if, paths }) in file.documents {
            for (path, column) in paths {
                let at = At::Path(path.clone(), only_if.clone());
                schema.classified.push(classify(&format!("{document} {path}"), column, at)?);
            }
        }
        Ok(schema)
    }

    /// What names of columns say of themselves. Those that say nothing have not been looked at.
    pub(crate) fn guess(tables: &BTreeMap<String, Vec<String>>) -> Self {
        let mut schema = Self::default();
        for (table, columns) in tables {
            for column in columns {
                if let Some(class) = guess(column) {
                    let (place, at) = (format!("{table}.{column}"), At::Column(column.clone()));
                    schema.classified.push(Classified { place, at, class, field: None, guessed: true });
                    schema.reviewed.entry(table.clone()).or_default().insert(column.clone());
                }
            }
        }
        schema
    }

    /// Columns of the database that nobody has classified, and columns of the schema that the database does not have.
    pub(crate) fn compare(&self, tables: &BTreeMap<String, Vec<String>>) -> (Vec<String>, Vec<String>) {
        let all = |tables: &mut dyn Iterator<Item = (&String, Vec<&String>)>| -> BTreeSet<String> {
            tables
                .flat_map(|(table, columns)| columns.into_iter().map(move |column| format!("{table}.{column}")))
                .collect()
        };
        let there = all(&mut tables.iter().map(|(table, columns)| (table, columns.iter().collect())));
        let known = all(&mut self.reviewed.iter().map(|(table, columns)| (table, columns.iter().collect())));
        (there.difference(&known).cloned().collect(), known.difference(&there).cloned().collect())
    }
}

/// What names of columns contain, and the class that this suggests. The first that fits is taken.
const PARTS: [(&str, char); 65] = [
    ("ssn", 'G'),
    ("socialsecurity", 'G'),
    ("mrn", 'H'),
    ("medicalrecord", 'H'),
    ("chartnumber", 'H'),
    ("email", 'F'),
    ("fax", 'E'),
    ("phone", 'D'),
    ("mobile", 'D'),
    ("telecom", 'D'),
    ("pager", 'D'),
    ("birth", 'C'),
    ("death", 'C'),
    ("deceased", 'C'),
    ("admission", 'C'),
    ("admitted", 'C'),
    ("discharge", 'C'),
    ("street", 'B'),
    ("ipaddr", 'O'),
    ("macaddr", 'M'),
    ("address", 'B'),
    ("county", 'B'),
    ("precinct", 'B'),
    ("parish", 'B'),
    ("zip", 'B'),
    ("postal", 'B'),
    ("postcode", 'B'),
    ("latitude", 'B'),
    ("longitude", 'B'),
    ("geolocation", 'B'),
    ("member", 'I'),
    ("beneficiary", 'I'),
    ("subscriber", 'I'),
    ("insurance", 'I'),
    ("account", 'J'),
    ("iban", 'J'),
    ("creditcard", 'J'),
    ("licenseplate", 'L'),
    ("license", 'K'),
    ("licence", 'K'),
    ("certificate", 'K'),
    ("vehicle", 'L'),
    ("numberplate", 'L'),
    ("serial", 'M'),
    ("website", 'N'),
    ("homepage", 'N'),
    ("ipv4", 'O'),
    ("ipv6", 'O'),
    ("fingerprint", 'P'),
    ("voiceprint", 'P'),
    ("biometric", 'P'),
    ("retina", 'P'),
    ("photo", 'Q'),
    ("portrait", 'Q'),
    ("passport", 'R'),
    ("username", 'A'),
    ("firstname", 'A'),
    ("lastname", 'A'),
    ("givenname", 'A'),
    ("familyname", 'A'),
    ("fullname", 'A'),
    ("surname", 'A'),
    ("maiden", 'A'),
    ("patientname", 'A'),
    ("nickname", 'A'),
];

/// Words of names, as `full_name` and `homeAddress2` have two: as a part of another word they say nothing.
const WORDS: [(&str, char); 29] = [
    ("name", 'A'),
    ("initials", 'A'),
    ("dob", 'C'),
    ("dod", 'C'),
    ("age", 'C'),
    ("tel", 'D'),
    ("cell", 'D'),
    ("lat", 'B'),
    ("lon", 'B'),
    ("lng", 'B'),
    ("city", 'B'),
    ("town", 'B'),
    ("geo", 'B'),
    ("vin", 'L'),
    ("plate", 'L'),
    ("imei", 'M'),
    ("udi", 'M'),
    ("mac", 'M'),
    ("url", 'N'),
    ("uri", 'N'),
    ("ip", 'O'),
    ("iris", 'P'),
    ("face", 'Q'),
    ("image", 'Q'),
    ("picture", 'Q'),
    // Free text holds what people wrote.
    ("note", 'R'),
    ("notes", 'R'),
    ("comment", 'R'),
    ("narrative", 'R'),
];

/// Words of names of what has few values.
const FEW: [&str; 13] = [
    "gender",
    "sex",
    "race",
    "ethnicity",
    "religion",
    "marital",
    "language",
    "nationality",
    "citizenship",
    "birthyear",
    "year",
    "deceased",
    "smoker",
];

/// Whether the last name in the name of a field, a column or a path suggests that there are few values.
pub(super) fn has_few_values(name: &str) -> bool {
    let last = name.rsplit(['.', '[', ']']).find(|part| part.chars().any(char::is_alphabetic)).unwrap_or_default();
    words(last).iter().any(|word| FEW.contains(&word.as_str()))
}

/// The class that the name of a column suggests.
fn guess(column: &str) -> Option<HipaaClass> {
    let plain: String = column.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    let words = words(column);
    let part = PARTS.iter().find(|(part, _)| plain.contains(part));
    let found = part.or_else(|| WORDS.iter().find(|(word, _)| words.iter().any(|known| known == word)));
    found.and_then(|(_, letter)| HipaaClass::new(*letter))
}

/// The words of a name, in lower case: apart from each other by what is no letter, or by a capital behind a small letter.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_small = false;
    for c in name.chars() {
        if !c.is_ascii_alphabetic() || (was_small && c.is_ascii_uppercase()) {
            words.push(String::new());
        }
        was_small = c.is_ascii_lowercase();
        if let (true, Some(word)) = (c.is_ascii_alphabetic(), words.last_mut()) {
            word.push(c.to_ascii_lowercase());
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_and_their_errors() {
        let schema = Schema::parse(
            "version = 1\n[tables.patients]\nclear = [\"state\"]\ncolumns = { ssn = \"G\", name = { identifier = \"A\", field = \"patient.name\" } }\n\
             [documents.Patient]\nonly_if = { \"$.resourceType\" = \"Patient\" }\npaths = { \"$.name\" = \"A\" }\n",
        )
        .expect("a schema");
        let places: Vec<_> =
            schema.classified.iter().map(|column| (column.place.as_str(), column.class.letter())).collect();
        assert_eq!(places, [("patients.name", 'A'), ("patients.ssn", 'G'), ("Patient $.name", 'A')]);
        for (wrong, why) in [
            ("version = 2\n", "version 1"),
            ("version = 1\n[tables.p]\ncolumns = { ssn = \"Z\" }\n", "from A to R"),
            ("version = 1\n[tables.p]\ncolumns = { ssn = \"G\" }\nclear = [\"ssn\"]\n", "clear as well"),
            ("version = 1\n[tables.p]\nclean = []\n", "line 3"),
        ] {
            let error = Schema::parse(wrong).expect_err(wrong);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn names_are_guessed() {
        for (letter, names) in [
            ('A', &["last_name", "name", "full_name", "displayName"][..]),
            ('B', &["zip_code", "county", "lat"]),
            ('C', &["Birth_Date", "age", "ageYears"]),
            ('D', &["phone2", "tel"]),
            ('F', &["e_mail"]),
            ('G', &["SSN"]),
            ('L', &["vin"]),
            ('N', &["url", "profile_url"]),
            ('O', &["ip", "client_ip", "ip_address"]),
            ('Q', &["photo", "face_image"]),
            ('R', &["note", "clinical_notes"]),
        ] {
            for name in names {
                assert_eq!(guess(name).map(HipaaClass::letter), Some(letter), "{name}");
            }
        }
        for name in ["gender", "state", "language", "page_count", "description", "giving", "status", "ethnicity"] {
            assert_eq!(guess(name), None, "{name}");
        }
    }

    #[test]
    fn names_say_what_has_few_values() {
        for name in
            ["gender", "patient.gender", "birth_year", "maritalStatus", "$.name[*].sex", "$['race'][0]", "$.gender[*]"]
        {
            assert!(has_few_values(name), "{name}");
        }
        for name in ["name", "gender.note", "sextant", "PID-8", "birth_date", "$.race[*].id"] {
            assert!(!has_few_values(name), "{name}");
        }
    }

    #[test]
    fn what_is_not_guessed_was_not_looked_at() {
        let tables = [("patients".to_owned(), ["ssn", "gender"].map(str::to_owned).into())].into();
        let (unclassified, missing) = Schema::guess(&tables).compare(&tables);
        assert_eq!((unclassified, missing), (vec!["patients.gender".to_owned()], vec![]));
    }
}
