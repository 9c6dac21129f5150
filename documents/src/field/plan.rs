//! What every file format plans alike: which fields it has, in which order, bound to what, and which of them were never met.

use super::{FieldCipher, FieldKeys};
use crate::DocumentError;
use keyfold::{Error, ErrorKind, FieldPolicy, Policy, RowBinding};
use std::sync::atomic::{AtomicBool, Ordering};

/// How a file format says where the values of a field are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Locator {
    /// By the names of CSV columns.
    Columns,
    /// By JSONPath.
    Paths,
    /// By segments of HL7 v2 messages.
    Segments,
}

impl Locator {
    const ALL: [Self; 3] = [Self::Columns, Self::Paths, Self::Segments];

    /// The places of a field.
    #[must_use]
    pub fn places(self, field: &FieldPolicy) -> &[String] {
        match self {
            Self::Columns => &field.columns,
            Self::Paths => &field.paths,
            Self::Segments => &field.segments,
        }
    }

    /// The places that a row binding names; `None`: nothing is bound.
    ///
    /// # Errors
    ///
    /// [`PolicyRefused`](ErrorKind::PolicyRefused): it names places of other formats only.
    pub fn row(self, binding: &RowBinding) -> Result<Option<&[String]>, Error> {
        let RowBinding::Bound { column, path, segment } = binding else { return Ok(None) };
        let (places, why) = match self {
            Self::Columns => (column.as_slice(), "its row_binding names no CSV column; write { column = … }"),
            Self::Paths => (path.as_slice(), "its row_binding names no JSONPath; write { path = … }"),
            Self::Segments => {
                let why = "its row_binding names no HL7 segment; write { segment = … }";
                (segment.as_deref().unwrap_or_default(), why)
            }
        };
        if places.is_empty() { Err(Error::new(ErrorKind::PolicyRefused, why)) } else { Ok(Some(places)) }
    }

    /// Refuses fields that say where they are in other formats only: the same data in this one would stay in clear.
    ///
    /// # Errors
    ///
    /// [`PolicyRefused`](ErrorKind::PolicyRefused).
    pub fn refuse_elsewhere(self, policy: &Policy) -> Result<(), DocumentError> {
        let is_elsewhere = |field: &FieldPolicy| Self::ALL.iter().any(|other| !other.places(field).is_empty());
        let missing = |field: &FieldPolicy| self.places(field).is_empty() && is_elsewhere(field);
        let Some(field) = policy.fields().find(|field| !field.optional && missing(field)) else { return Ok(()) };
        let why = match self {
            Self::Columns => "the policy gives it no columns, so it would stay in clear; optional = true allows that",
            Self::Paths => "the policy gives it no paths, so it would stay in clear; optional = true allows that",
            Self::Segments => "the policy gives it no segments, so it would stay in clear; optional = true allows that",
        };
        Err(DocumentError::new(ErrorKind::PolicyRefused, why).of_field(&field.name))
    }
}

impl FieldKeys<'_> {
    /// The fields that `keep` chooses, with their keys, in the order in which their values are opened: first those that others may be
    /// bound to, last those of documents. `none` is what is said where there are none.
    ///
    /// # Errors
    ///
    /// As for [`fields`](Self::fields); [`PolicyRefused`](ErrorKind::PolicyRefused): there are none.
    pub fn plan(
        &self,
        keep: impl Fn(&FieldPolicy) -> bool,
        none: &'static str,
    ) -> Result<Vec<FieldCipher>, DocumentError> {
        let mut fields = self.fields(keep)?;
        if fields.is_empty() {
            return Err(DocumentError::new(ErrorKind::PolicyRefused, none));
        }
        fields.sort_by_key(|field| (field.is_of_documents(), !field.may_be_row()));
        Ok(fields)
    }
}

/// Which fields applied to a part of the input, and which selected a value in it.
pub struct Used(Vec<[AtomicBool; 2]>);

impl Used {
    /// Of so many fields, none so far.
    #[must_use]
    pub fn new(fields: usize) -> Self {
        Self((0..fields).map(|_| Default::default()).collect())
    }

    /// A field applied.
    pub fn applied(&self, field: usize) {
        self.0[field][0].store(true, Ordering::Relaxed);
    }

    /// A field selected a value.
    pub fn selected(&self, field: usize) {
        self.0[field][1].store(true, Ordering::Relaxed);
    }

    /// Refuses a field that applied and never selected anything: a place with a typo leaves values in clear.
    ///
    /// # Errors
    ///
    /// [`PolicyRefused`](ErrorKind::PolicyRefused).
    pub fn refuse_unused(&self, fields: &[FieldCipher]) -> Result<(), DocumentError> {
        let is_unused = |flags: &[AtomicBool; 2]| {
            let [applied, selected] = flags.each_ref().map(|flag| flag.load(Ordering::Relaxed));
            applied && !selected
        };
        let mut unused =
            fields.iter().zip(&self.0).filter(|(field, flags)| is_unused(flags) && !field.policy().optional);
        let Some((field, _)) = unused.next() else { return Ok(()) };
        let why = "its places select nothing in the whole input (a typo?); optional = true in the policy allows that";
        Err(DocumentError::new(ErrorKind::PolicyRefused, why).of_field(&field.policy().name))
    }
}
