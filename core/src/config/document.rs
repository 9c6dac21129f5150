//! `[documents.NAME]`: from the file to a [`DocumentPolicy`].

use crate::error::{Error, ErrorKind, Result};
use crate::policy::{DocumentPolicy, HeaderPlace, ManifestRule, RowBinding};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DocumentToml {
    #[serde(default)]
    only_if: BTreeMap<String, String>,
    root: Option<String>,
    row_binding: String,
    #[serde(default)]
    header: HeaderToml,
    #[serde(default)]
    manifest: ManifestToml,
    #[serde(default)]
    required_context: BTreeSet<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum HeaderToml {
    #[default]
    Member,
    FhirExtension,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ManifestToml {
    #[default]
    Required,
    Written,
    None,
}

impl DocumentToml {
    pub(super) fn to_policy(&self, name: &str) -> Result<DocumentPolicy> {
        let base = DocumentPolicy::new(name);
        let row_binding = match self.row_binding.as_str() {
            "none" => RowBinding::None,
            path if path.starts_with('$') => RowBinding::Bound { column: None, path: Some(path.to_owned()) },
            _ => {
                return Err(Error::new(
                    ErrorKind::Configuration,
                    "row_binding of a document is the JSONPath of an immutable identifier in it, such as \"$.id\", or \"none\"",
                ));
            }
        };
        Ok(DocumentPolicy {
            only_if: self.only_if.clone(),
            root: self.root.clone().unwrap_or(base.root),
            row_binding,
            header: match self.header {
                HeaderToml::Member => HeaderPlace::Member,
                HeaderToml::FhirExtension => HeaderPlace::FhirExtension,
            },
            manifest: match self.manifest {
                ManifestToml::Required => ManifestRule::Required,
                ManifestToml::Written => ManifestRule::Written,
                ManifestToml::None => ManifestRule::None,
            },
            required_context: self.required_context.clone(),
            ..base
        })
    }
}
