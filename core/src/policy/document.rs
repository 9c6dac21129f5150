//! How documents are protected whose values are sealed together.

use super::{Name, RowBinding, is_name};
use crate::error::{Error, ErrorKind, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Where the header of a document stands in its JSON.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum HeaderPlace {
    /// In a member `_keyfold` behind the opening brace.
    #[default]
    Member,
    /// In the last entry of the member `extension`, as FHIR has it.
    FhirExtension,
}

/// Whether documents have a manifest, which detects values that were dropped, moved or rolled back one by one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ManifestRule {
    /// Written; a document without one is refused.
    #[default]
    Required,
    /// Written, and verified where it is there; documents that were sealed without one open too. It cannot be taken out of a document
    /// that has values, but such a document can be emptied of them.
    Written,
    /// Not written; verified where it is there, and values that were sealed with one do not open without it.
    None,
}

/// How one kind of documents is protected. Its values are those of the fields with [`FieldMode::Document`](super::FieldMode::Document).
#[derive(Clone, Debug)]
pub struct DocumentPolicy {
    /// The name, for people: values are not bound to it.
    pub name: Name,
    /// JSON members, by JSONPath from the top of the file or line, that must equal these strings for this kind to apply.
    pub only_if: BTreeMap<String, String>,
    /// JSONPath (RFC 9535) of the objects that are the documents: `$`, or for a FHIR Bundle `$.entry[*].resource`. Paths of fields and
    /// the row binding start there.
    pub root: String,
    /// What documents are bound to, so that they cannot be swapped.
    pub row_binding: RowBinding,
    /// Where the header stands.
    pub header: HeaderPlace,
    /// Whether there is a manifest.
    pub manifest: ManifestRule,
    /// Context keys without which nothing is sealed or opened, beside those of the fields.
    pub required_context: BTreeSet<String>,
}

impl DocumentPolicy {
    /// Documents that are whole files or lines, bound to nothing but their context, with a manifest that is required.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            only_if: BTreeMap::new(),
            root: "$".to_owned(),
            row_binding: RowBinding::None,
            header: HeaderPlace::Member,
            manifest: ManifestRule::Required,
            required_context: BTreeSet::new(),
        }
    }

    /// Checks the rules that concern this kind alone.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |why: &'static str| {
            Err(Error::new(ErrorKind::Configuration, why).with_detail(format!("document {}", self.name)))
        };
        if !is_name(&self.name) {
            return wrong("a document's name has 1 to 255 bytes and no control characters");
        }
        if matches!(&self.row_binding, RowBinding::Bound { column: Some(_), .. }) {
            return wrong("the row binding of a document is a JSONPath in it, or \"none\"");
        }
        Ok(())
    }
}
