//! What is encrypted how. A policy is data; `config` reads it from files.
//!
//! A little over 500 lines: the rules of each mode are checked side by side, so that none is forgotten of a new one.

mod document;
mod hl7;
pub use document::{DocumentPolicy, HeaderPlace, ManifestRule};
pub use hl7::Hl7Policy;

use crate::context::MAX_NAME_LEN;
use crate::error::{Error, ErrorKind, Result};
use crate::lookup::{Format, IndexPolicy, TokenForm, most_bits};
use crate::migration::Migration;
use crate::value::{Padding, TOO_LONG, ValueType};
use crate::wire::{
    BODY_OVERHEAD, DETERMINISTIC_OVERHEAD, FIELD_OVERHEAD, MAX_FRAME_RECORDS_LEN, MAX_VALUE_LEN, Suite, TEXT_PREFIX,
};
use core::fmt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How a field is encrypted.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FieldMode {
    /// Suite 01: the same value gives a different ciphertext every time. The default, and the right one wherever
    /// nobody has to search or join by the value.
    Randomized,
    /// Suite 02: equal values give equal ciphertexts within one partition, so that they can be joined and looked
    /// up. Shows which rows are equal and how long values are; rows can be swapped.
    Deterministic {
        /// The partition inside which values are linkable: the name of a `[lookup.NAME]` section.
        partition: String,
        /// Fields with the same join group and partition give equal ciphertexts for equal values.
        join_group: Option<String>,
    },
    /// Suite 05: sealed together with the other values of its document, under the document's own key, and bound to its path in it.
    /// The sections of documents in the policy say what else is bound.
    Document,
    /// Suite 04: data of any length, such as a file or an image, sealed and opened piece by piece.
    Stream,
    /// FF1: the value is replaced by another one of the same format, for systems that accept no other. Shows which rows are equal and how
    /// long values are, and **is not authenticated**: whatever was changed opens to some value.
    FormatPreserving {
        /// The partition, with exactly one key, inside which values are linkable.
        partition: String,
        /// The format.
        format: Format,
    },
    /// A random token stands in the place of the value, which a table of tokens holds, sealed with suite 02 so that each value is there once. The
    /// handles of the field seal, find and open what is in that table.
    Token {
        /// The partition: a study, whose tokens nobody can link with those of another one.
        partition: String,
        /// How tokens look.
        form: TokenForm,
    },
}

/// Whether a field is bound to its row, so that values cannot be swapped between rows.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RowBinding {
    /// Bound to the canonical text, in clear, of an immutable identifier of the row.
    Bound {
        /// The CSV column that holds the identifier.
        column: Option<String>,
        /// The JSONPath of the identifier in JSON documents.
        path: Option<String>,
        /// The place of the identifier in HL7 v2 messages, such as `PID-3.1`; or several, whose texts are bound together (docs/HL7.md).
        segment: Option<Vec<String>>,
    },
    /// Not bound, and the policy says so.
    None,
}

/// What to do with a string whose JSON spelling differs from the one that our serialiser gives.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Spelling {
    /// Randomised fields keep the spelling; deterministic ones refuse it, since it would not join.
    #[default]
    Keep,
    /// The value is encrypted, and comes back in our serialiser's spelling.
    Normalise,
}

/// One of the 18 identifiers of HIPAA Safe Harbor, 45 CFR 164.514(b)(2)(i)(A) to (R).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HipaaClass(char);

impl HipaaClass {
    /// The class with the letter `A` to `R`.
    #[must_use]
    pub const fn new(letter: char) -> Option<Self> {
        match letter {
            'A'..='R' => Some(Self(letter)),
            _ => None,
        }
    }

    /// The letter.
    #[must_use]
    pub const fn letter(self) -> char {
        self.0
    }

    /// What the letter stands for.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self.0 {
            'A' => "names",
            'B' => "geographic units smaller than a state",
            'C' => "dates except the year, ages over 89",
            'D' => "telephone numbers",
            'E' => "fax numbers",
            'F' => "e-mail addresses",
            'G' => "social security numbers",
            'H' => "medical record numbers",
            'I' => "health plan beneficiary numbers",
            'J' => "account numbers",
            'K' => "certificate and licence numbers",
            'L' => "vehicle identifiers and serial numbers",
            'M' => "device identifiers and serial numbers",
            'N' => "URLs",
            'O' => "IP addresses",
            'P' => "biometric identifiers",
            'Q' => "full-face photographs",
            _ => "any other unique identifying number, characteristic or code",
        }
    }
}

impl fmt::Display for HipaaClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The name of a field, join group or partition: 1 to 255 bytes of printable text.
pub type Name = String;

/// How one field is protected.
#[derive(Clone, Debug)]
pub struct FieldPolicy {
    /// The field's name: part of what every value is bound to, so a rename makes old values unreadable.
    pub name: Name,
    /// Randomised or deterministic.
    pub mode: FieldMode,
    /// The type of its values; `None` accepts any.
    pub value_type: Option<ValueType>,
    /// How the length of values is blurred.
    pub padding: Padding,
    /// Draws a fresh nonce prefix for every row, so that rows do not show that they were written together.
    pub unlinkable: bool,
    /// Context keys without which nothing is encrypted or decrypted.
    pub required_context: BTreeSet<String>,
    /// Whether values are bound to their row.
    pub row_binding: RowBinding,
    /// Suites that decryption accepts: one at least for values, and [`Suite::Frame`] where they may travel in frames.
    pub accepted_suites: Vec<Suite>,
    /// Most bytes of key records in a frame, sealed or opened; at most [`MAX_FRAME_RECORDS_LEN`].
    pub max_frame_records: usize,
    /// Start of a text that stays in clear in front of the sealed rest, such as `Patient/`. Deterministic fields and tokens only.
    pub keep_prefix: Option<String>,
    /// What to do with unusual JSON spellings.
    pub spelling: Spelling,
    /// Which HIPAA identifier the field is.
    pub identifier: Option<HipaaClass>,
    /// Columns of CSV files that hold the field.
    pub columns: Vec<String>,
    /// JSONPath expressions (RFC 9535) of the field in JSON documents.
    pub paths: Vec<String>,
    /// Places of the field in HL7 v2 messages, such as `PID-5` or `PID-3.1`.
    pub segments: Vec<String>,
    /// JSON members, by JSONPath, that must equal these strings for [`paths`](Self::paths) to apply.
    pub only_if: BTreeMap<String, String>,
    /// Whether a file may lack the field's column.
    pub optional: bool,
    /// What may be looked up of it without opening values.
    pub indexes: Vec<IndexPolicy>,
    /// Rows of the table that holds the field, where the policy says how many: see [`check_shown_bits`].
    pub table_rows: Option<u64>,
    /// Whether values that are not sealed yet may be read, and for how long.
    pub migration: Option<Migration>,
}

impl FieldPolicy {
    /// Enough for a root that three key services wrap.
    pub const DEFAULT_MAX_FRAME_RECORDS: usize = 4096;

    /// Bytes of a sealed value whose canonical encoding has `canonical_len` bytes: what a caller's buffer must hold. Asks for no key.
    ///
    /// # Errors
    ///
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): longer than [`MAX_VALUE_LEN`].
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): the field is format-preserving, so nothing is sealed.
    pub fn sealed_len(&self, canonical_len: usize) -> Result<usize> {
        if canonical_len > MAX_VALUE_LEN {
            return Err(TOO_LONG);
        }
        let overhead = match self.mode {
            FieldMode::Randomized => FIELD_OVERHEAD,
            FieldMode::Deterministic { .. } | FieldMode::Token { .. } => DETERMINISTIC_OVERHEAD,
            FieldMode::Document => BODY_OVERHEAD,
            FieldMode::Stream => {
                return Err(Error::new(ErrorKind::PolicyRefused, "the field is one of streams, which are no values"));
            }
            FieldMode::FormatPreserving { .. } => {
                return Err(Error::new(ErrorKind::PolicyRefused, "values that keep their format have no sealed form"));
            }
        };
        Ok(overhead - 1 + self.padding.encoded_len(canonical_len))
    }

    /// A randomised field that is bound to no row.
    #[must_use]
    pub fn randomized(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            mode: FieldMode::Randomized,
            value_type: None,
            padding: Padding::None,
            unlinkable: false,
            required_context: BTreeSet::new(),
            row_binding: RowBinding::None,
            accepted_suites: vec![Suite::Field],
            max_frame_records: Self::DEFAULT_MAX_FRAME_RECORDS,
            keep_prefix: None,
            spelling: Spelling::Keep,
            identifier: None,
            columns: Vec::new(),
            paths: Vec::new(),
            segments: Vec::new(),
            only_if: BTreeMap::new(),
            optional: false,
            indexes: Vec::new(),
            table_rows: None,
            migration: None,
        }
    }

    /// Whether its indexes show something, and nobody has checked that it is not too much: the policy does not say how many rows there are.
    #[must_use]
    pub fn has_unchecked_indexes(&self) -> bool {
        self.table_rows.is_none() && self.indexes.iter().any(|index| !index.is_full_width())
    }

    /// A deterministic field of `partition`.
    #[must_use]
    pub fn deterministic(name: &str, partition: &str, join_group: Option<&str>) -> Self {
        let mode =
            FieldMode::Deterministic { partition: partition.to_owned(), join_group: join_group.map(str::to_owned) };
        Self { mode, accepted_suites: vec![Suite::Deterministic], ..Self::randomized(name) }
    }

    /// A field of documents.
    #[must_use]
    pub fn document(name: &str) -> Self {
        Self { mode: FieldMode::Document, accepted_suites: vec![Suite::Document], ..Self::randomized(name) }
    }

    /// A field of streams that is bound to no row.
    #[must_use]
    pub fn stream(name: &str) -> Self {
        let value_type = Some(ValueType::Bytes);
        Self { mode: FieldMode::Stream, value_type, accepted_suites: vec![Suite::Stream], ..Self::randomized(name) }
    }

    /// A format-preserving field of `partition`.
    #[must_use]
    pub fn format_preserving(name: &str, partition: &str, format: Format) -> Self {
        let mode = FieldMode::FormatPreserving { partition: partition.to_owned(), format };
        let value_type = Some(format.value_type());
        Self { mode, value_type, accepted_suites: Vec::new(), ..Self::randomized(name) }
    }

    /// A field of random tokens in `partition`.
    #[must_use]
    pub fn token(name: &str, partition: &str, form: TokenForm) -> Self {
        let mode = FieldMode::Token { partition: partition.to_owned(), form };
        Self { mode, accepted_suites: vec![Suite::Deterministic], ..Self::randomized(name) }
    }

    /// The partition of the suite 02 values of the field; `None`: it has none.
    pub(crate) fn deterministic_partition(&self) -> Option<&str> {
        match &self.mode {
            FieldMode::Deterministic { partition, .. } | FieldMode::Token { partition, .. } => Some(partition),
            FieldMode::Randomized | FieldMode::Stream | FieldMode::Document | FieldMode::FormatPreserving { .. } => {
                None
            }
        }
    }

    /// The partitions whose keys the field and its indexes use.
    pub fn partitions(&self) -> impl Iterator<Item = &str> {
        let own = match &self.mode {
            FieldMode::Deterministic { partition, .. }
            | FieldMode::FormatPreserving { partition, .. }
            | FieldMode::Token { partition, .. } => Some(partition.as_str()),
            FieldMode::Randomized | FieldMode::Stream | FieldMode::Document => None,
        };
        own.into_iter().chain(self.indexes.iter().map(|index| index.partition.as_str()))
    }

    /// Splits a text into the prefix that stays in clear and the rest that is sealed.
    // F-5.2-3.
    #[must_use]
    pub fn split_prefix<'t>(&self, text: &'t str) -> (&'t str, &'t str) {
        match self.keep_prefix.as_deref() {
            Some(prefix) if text.starts_with(prefix) => text.split_at(prefix.len()),
            _ => ("", text),
        }
    }

    /// Checks the rules that concern this field alone.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): names the field and the rule.
    pub fn check(&self) -> Result<()> {
        let wrong = |why: &'static str| {
            Err(Error::new(ErrorKind::Configuration, why).with_detail(format!("field {}", self.name)))
        };
        if !is_name(&self.name) {
            return wrong("a field's name has 1 to 255 bytes and no control characters");
        }
        let keeps_format = matches!(self.mode, FieldMode::FormatPreserving { .. });
        if self.accepted_suites.is_empty() && !keeps_format {
            return wrong("the list of accepted suites is empty");
        }
        if !keeps_format && self.accepted_suites.iter().all(|&suite| suite == Suite::Frame) {
            // F-8.1-13.
            return wrong("a field that accepts frames, suite 03, also accepts the suite of the values inside");
        }
        // F-14.2-3.
        if !(1..=MAX_FRAME_RECORDS_LEN).contains(&self.max_frame_records) {
            return wrong("max_frame_records is 1 to 65,536 bytes");
        }
        if let Padding::Multiple(n) = self.padding
            && !(2..=4096).contains(&n)
        {
            return wrong("padding goes to a multiple of 2 to 4096 bytes");
        }
        match &self.mode {
            FieldMode::Deterministic { partition, join_group } => {
                if !is_name(partition) || !join_group.as_deref().is_none_or(is_name) {
                    return wrong("partitions and join groups have names of 1 to 255 bytes without control characters");
                }
                if self.row_binding != RowBinding::None {
                    return wrong(
                        "a deterministic field cannot be bound to its row, since equal values must stay equal",
                    );
                }
                if self.padding != Padding::None && join_group.is_some() {
                    return wrong("joined fields share one type and no padding");
                }
                if self.unlinkable {
                    return wrong("a deterministic field is linkable by design");
                }
                if self.keep_prefix.as_deref().is_some_and(|prefix| {
                    // Nothing could tell such a prefix from the text form that follows it.
                    TEXT_PREFIX.starts_with(prefix) || prefix.starts_with(TEXT_PREFIX)
                }) {
                    return wrong("keep_prefix is not empty and not the start of a sealed text");
                }
            }
            FieldMode::FormatPreserving { partition, format } => {
                if !is_name(partition) {
                    return wrong("partitions and join groups have names of 1 to 255 bytes without control characters");
                }
                if let Err(why) = format.check() {
                    return wrong(why);
                }
                if self.value_type.is_some_and(|given| given != format.value_type()) {
                    return wrong("a format-preserving field is of the type text, or timestamp with that format");
                }
                let sealed = !self.accepted_suites.is_empty() || self.padding != Padding::None || self.unlinkable;
                let placed = self.row_binding != RowBinding::None || self.keep_prefix.is_some();
                if sealed || placed || self.migration.is_some() {
                    return wrong(
                        "a format-preserving value is replaced, not sealed: no suites, row binding, padding, prefix or migration",
                    );
                }
            }
            FieldMode::Token { partition, form } => {
                if !is_name(partition) {
                    return wrong("partitions and join groups have names of 1 to 255 bytes without control characters");
                }
                if !form.is_good() {
                    return wrong(
                        "a token has 20 to 64 digits, 16 to 64 hexadecimal ones, or 11 to 64 letters and digits",
                    );
                }
                let sealed = self.padding != Padding::None || self.unlinkable;
                let placed = self.row_binding != RowBinding::None;
                if sealed || placed || self.migration.is_some() || self.accepted_suites != [Suite::Deterministic] {
                    return wrong("a token stands for its value in any row: no row binding, padding or migration");
                }
                if self.keep_prefix.as_deref().is_some_and(|prefix| prefix.bytes().all(|b| b.is_ascii_alphanumeric())) {
                    return wrong(
                        "keep_prefix of tokens has a character that no token has, such as the slash of Patient/",
                    );
                }
            }
            FieldMode::Randomized => {
                if self.keep_prefix.is_some() {
                    return wrong("keep_prefix is for deterministic fields and tokens");
                }
                if self.accepted_suites.contains(&Suite::Deterministic) {
                    return wrong("a field that accepts suite 02 is deterministic, so that its partition is known");
                }
            }
            FieldMode::Document => self.check_of_document().or_else(wrong)?,
            FieldMode::Stream => self.check_of_stream().or_else(wrong)?,
        }
        if self.mode != FieldMode::Stream && self.accepted_suites.contains(&Suite::Stream) {
            return wrong("suite 04 is for fields with mode = \"stream\"");
        }
        if self.mode != FieldMode::Document && self.accepted_suites.contains(&Suite::Document) {
            return wrong("suite 05 is for fields with mode = \"document\"");
        }
        if self.value_type == Some(ValueType::Boolean) && self.indexes.iter().any(|index| !index.few_values) {
            return wrong(
                "a boolean has two values, which the tokens of an index tell; few_values = true accepts that",
            );
        }
        let shown: usize = self.indexes.iter().map(IndexPolicy::shown_bits).sum();
        if self.table_rows.is_none() && shown > most_bits(UNSTATED_ROWS) {
            return wrong(
                "its indexes show more than 24 bits of a row together: state the rows of the table, or let what nearly every row has one of its own of \
                 have full width, with unique = true",
            );
        }
        for (at, index) in self.indexes.iter().enumerate() {
            index.check().map_err(|error| {
                let detail = format!("field {}, {}", self.name, error.detail());
                error.with_detail(detail)
            })?;
            let others = &self.indexes[..at];
            if others.iter().any(|other| other.name == index.name) {
                return wrong("two indexes of a field have the same name");
            }
            if index.column.is_some() && others.iter().any(|other| other.column == index.column) {
                return wrong("two indexes of a field have the same column");
            }
        }
        Ok(())
    }

    /// What only values have.
    fn check_of_stream(&self) -> Result<(), &'static str> {
        if self.accepted_suites != [Suite::Stream] {
            return Err("a field of streams accepts suite 04 alone");
        }
        if self.value_type.is_some_and(|given| given != ValueType::Bytes) {
            return Err("a stream is of the type bytes");
        }
        if !(self.columns.is_empty() && self.paths.is_empty() && self.segments.is_empty() && self.only_if.is_empty()) {
            return Err("a stream is a file of its own, and stands in no column, path or segment");
        }
        if self.padding != Padding::None || self.unlinkable || self.keep_prefix.is_some() || self.migration.is_some() {
            return Err("a stream has no padding, prefix or migration, and is linked to no other one");
        }
        if !self.indexes.is_empty() || self.optional {
            return Err("a stream has no index, and no table may lack it");
        }
        Ok(())
    }

    /// What a field of documents leaves to its document.
    fn check_of_document(&self) -> Result<(), &'static str> {
        if self.accepted_suites != [Suite::Document] {
            return Err("a field of documents accepts suite 05 alone");
        }
        if self.row_binding != RowBinding::None {
            return Err("a field of documents is bound to its document, whose section says what that is bound to");
        }
        if self.keep_prefix.is_some() {
            return Err("keep_prefix is for deterministic fields");
        }
        if !self.columns.is_empty() {
            return Err("a field of documents has paths, and no columns");
        }
        if self.migration.is_some() {
            return Err("a field of documents has no migration: protect the documents anew");
        }
        if self.unlinkable {
            return Err("the values of one document are linked by being in it, so unlinkable cannot be kept");
        }
        Ok(())
    }
}

/// Checks that the indexes of `fields`, which are those of one table, do not show more of a row than `rows` rows allow: see [`most_bits`].
///
/// # Errors
///
/// - [`Configuration`](ErrorKind::Configuration): they do.
pub fn check_shown_bits<'f>(rows: u64, fields: impl IntoIterator<Item = &'f FieldPolicy>) -> Result<()> {
    let shown: usize = fields.into_iter().flat_map(|field| &field.indexes).map(IndexPolicy::shown_bits).sum();
    let most = most_bits(rows);
    if shown <= most {
        return Ok(());
    }
    let why = "the indexes together show too much of a row; those of full width are not counted";
    Err(Error::new(ErrorKind::Configuration, why)
        .with_detail(format!("{shown} bits, of which {rows} rows allow {most}")))
}

/// More rows than most tables have: where a policy does not state them, its indexes are held to these at least.
const UNSTATED_ROWS: u64 = 1 << 28;

// F-4.3-5.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME_LEN && !name.chars().any(char::is_control)
}

/// The fields and documents that a program knows, by name. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    fields: Arc<BTreeMap<Name, Arc<FieldPolicy>>>,
    documents: Arc<BTreeMap<Name, Arc<DocumentPolicy>>>,
    hl7: Arc<Hl7Policy>,
}

impl Policy {
    /// A policy without fields.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): the field breaks a rule, is there already, or disagrees with
    ///   another field of its join group about the type.
    pub fn add(&mut self, field: FieldPolicy) -> Result<()> {
        field.check()?;
        if let FieldMode::Deterministic { partition, join_group: Some(group) } = &field.mode {
            for other in self.fields.values() {
                let FieldMode::Deterministic { partition: p, join_group: Some(g) } = &other.mode else { continue };
                // F-5.2-2.
                if (p, g) == (partition, group) && other.value_type != field.value_type {
                    return Err(Error::new(ErrorKind::Configuration, "joined fields share one type and no padding")
                        .with_detail(format!("fields {} and {}", other.name, field.name)));
                }
            }
        }
        if self.fields.contains_key(&field.name) {
            return Err(Error::new(ErrorKind::Configuration, "a field is defined twice").with_detail(&field.name));
        }
        Arc::make_mut(&mut self.fields).insert(field.name.clone(), Arc::new(field));
        Ok(())
    }

    /// The field with this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Arc<FieldPolicy>> {
        self.fields.get(name)
    }

    /// The field with this name. The error names some of those that there are, since one of them is meant.
    pub(crate) fn named(&self, name: &str) -> Result<&Arc<FieldPolicy>> {
        const MOST: usize = 10;
        self.field(name).ok_or_else(|| {
            let names = self.fields.keys().take(MOST).map(String::as_str).collect::<Vec<_>>().join(", ");
            let has = match self.fields.len() {
                0 => "it has none".to_owned(),
                count if count > MOST => format!("it has {names} and {} more", count - MOST),
                _ => format!("it has {names}"),
            };
            let refused = Error::new(ErrorKind::PolicyRefused, "the policy has no such field");
            refused.with_detail(format!("{name}; {has}"))
        })
    }

    /// Adds a kind of documents.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): it breaks a rule, or is there already.
    pub fn add_document(&mut self, document: DocumentPolicy) -> Result<()> {
        document.check()?;
        if self.documents.contains_key(&document.name) {
            return Err(Error::new(ErrorKind::Configuration, "a document is defined twice").with_detail(&document.name));
        }
        Arc::make_mut(&mut self.documents).insert(document.name.clone(), Arc::new(document));
        Ok(())
    }

    /// The kind of documents with this name.
    #[must_use]
    pub fn document(&self, name: &str) -> Option<&Arc<DocumentPolicy>> {
        self.documents.get(name)
    }

    /// All kinds of documents, by name.
    pub fn documents(&self) -> impl Iterator<Item = &Arc<DocumentPolicy>> {
        self.documents.values()
    }

    /// Adds what may be in HL7 v2 messages: lists of several files are one.
    pub fn add_hl7(&mut self, hl7: Hl7Policy) {
        Arc::make_mut(&mut self.hl7).add(hl7);
    }

    /// What may be in HL7 v2 messages beside the values of fields.
    #[must_use]
    pub fn hl7(&self) -> &Hl7Policy {
        &self.hl7
    }

    /// All fields, by name.
    pub fn fields(&self) -> impl Iterator<Item = &Arc<FieldPolicy>> {
        self.fields.values()
    }
}
