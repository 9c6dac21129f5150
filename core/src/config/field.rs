//! `[fields.NAME]`: from the file to a [`FieldPolicy`].

use super::lookup::{FormatToml, IndexToml, token_form};
use crate::error::{Error, ErrorKind, Result};
use crate::migration::{Migration, MigrationPhase};
use crate::policy::{FieldMode, FieldPolicy, HipaaClass, RowBinding, Spelling};
use crate::value::{Padding, ValueType};
use crate::wire::Suite;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FieldToml {
    #[serde(default)]
    mode: ModeToml,
    partition: Option<String>,
    join_group: Option<String>,
    #[serde(rename = "type")]
    value_type: Option<String>,
    identifier: Option<char>,
    row_binding: Option<RowBindingToml>,
    #[serde(default)]
    columns: Vec<String>,
    #[serde(default)]
    paths: Vec<String>,
    #[serde(default)]
    segments: Vec<String>,
    #[serde(default)]
    only_if: BTreeMap<String, String>,
    #[serde(default)]
    required_context: BTreeSet<String>,
    accept: Option<Vec<String>>,
    max_frame_records: Option<usize>,
    padding: Option<PaddingToml>,
    #[serde(default)]
    unlinkable: bool,
    keep_prefix: Option<String>,
    #[serde(default)]
    spelling: SpellingToml,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    index: BTreeMap<String, IndexToml>,
    format: Option<String>,
    from: Option<String>,
    until: Option<String>,
    unit: Option<String>,
    alphabet: Option<String>,
    length: Option<u8>,
    migration: Option<MigrationToml>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MigrationToml {
    until: String,
    phase: PhaseToml,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PhaseToml {
    DualWrite,
    CutOver,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ModeToml {
    #[default]
    Randomized,
    Deterministic,
    Document,
    Stream,
    FormatPreserving,
    Token,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SpellingToml {
    #[default]
    Keep,
    Normalise,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a column, a JSONPath, { column = …, path = …, segment = … or segments = […] } or \"none\""
)]
enum RowBindingToml {
    Name(String),
    Each(RowBindingTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RowBindingTable {
    column: Option<String>,
    path: Option<String>,
    segment: Option<String>,
    segments: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number of bytes or \"padme\"")]
enum PaddingToml {
    Multiple(u16),
    Named(String),
}

impl MigrationToml {
    fn to_migration(&self) -> Result<Migration> {
        let phase = match self.phase {
            PhaseToml::DualWrite => MigrationPhase::DualWrite,
            PhaseToml::CutOver => MigrationPhase::CutOver,
        };
        Migration::until(&self.until, phase)
            .map_err(|_| wrong("until is the last day of the migration, such as \"2027-03-31\""))
    }
}

pub(super) fn wrong(why: &'static str) -> Error {
    Error::new(ErrorKind::Configuration, why)
}

impl FieldToml {
    pub(super) fn to_policy(&self, name: &str) -> Result<FieldPolicy> {
        let format = FormatToml {
            format: self.format.as_deref(),
            from: self.from.as_deref(),
            until: self.until.as_deref(),
            unit: self.unit.as_deref(),
        };
        if !matches!(self.mode, ModeToml::FormatPreserving) && !format.is_empty() {
            return Err(wrong("format, from, until and unit are for mode = \"format-preserving\""));
        }
        if !matches!(self.mode, ModeToml::Token) && (self.alphabet.is_some() || self.length.is_some()) {
            return Err(wrong("alphabet and length are for mode = \"token\""));
        }
        let partition = self.partition.as_deref().unwrap_or("default");
        let base = match self.mode {
            ModeToml::Randomized => {
                if self.partition.is_some() || self.join_group.is_some() {
                    return Err(wrong("partition and join_group are for deterministic fields"));
                }
                FieldPolicy::randomized(name)
            }
            ModeToml::Document | ModeToml::Stream if self.partition.is_some() || self.join_group.is_some() => {
                return Err(wrong("partition and join_group are for deterministic fields"));
            }
            ModeToml::Document => FieldPolicy::document(name),
            ModeToml::Stream => FieldPolicy::stream(name),
            ModeToml::Deterministic => FieldPolicy::deterministic(name, partition, self.join_group.as_deref()),
            ModeToml::FormatPreserving => {
                if self.join_group.is_some() {
                    return Err(wrong("join_group is for deterministic fields"));
                }
                FieldPolicy::format_preserving(name, partition, format.to_format()?)
            }
            ModeToml::Token => {
                if self.join_group.is_some() {
                    return Err(wrong("join_group is for deterministic fields"));
                }
                FieldPolicy::token(name, partition, token_form(self.alphabet.as_deref(), self.length)?)
            }
        };
        let accepted_suites = match &self.accept {
            None => base.accepted_suites.clone(),
            Some(list) => list.iter().map(|id| parse_suite(id)).collect::<Result<_>>()?,
        };
        if self.max_frame_records.is_some() && !accepted_suites.contains(&Suite::Frame) {
            return Err(wrong("max_frame_records is for fields that accept frames: accept = [\"01\", \"03\"]"));
        }
        Ok(FieldPolicy {
            value_type: self.value_type.as_deref().map(parse_type).transpose()?.or(base.value_type),
            padding: self.padding()?,
            unlinkable: self.unlinkable,
            required_context: self.required_context.clone(),
            row_binding: self.row_binding(&base.mode)?,
            accepted_suites,
            max_frame_records: self.max_frame_records.unwrap_or(base.max_frame_records),
            keep_prefix: self.keep_prefix.clone(),
            spelling: match self.spelling {
                SpellingToml::Keep => Spelling::Keep,
                SpellingToml::Normalise => Spelling::Normalise,
            },
            identifier: self.identifier.map(parse_identifier).transpose()?,
            columns: self.columns.clone(),
            paths: self.paths.clone(),
            segments: self.segments.clone(),
            only_if: self.only_if.clone(),
            optional: self.optional,
            indexes: self.index.iter().map(|(name, toml)| toml.to_policy(name, partition)).collect::<Result<_>>()?,
            migration: self.migration.as_ref().map(MigrationToml::to_migration).transpose()?,
            ..base
        })
    }

    fn row_binding(&self, mode: &FieldMode) -> Result<RowBinding> {
        let bound = |column: Option<&String>, path: Option<&String>| RowBinding::Bound {
            column: column.cloned(),
            path: path.cloned(),
            segment: None,
        };
        match &self.row_binding {
            None if self.identifier.is_some() && *mode == FieldMode::Stream => Err(wrong(
                "an identifier must be bound to its row: set row_binding to a name for what tells the streams apart, such as \
                 \"image_id\", or to \"none\" if they may be exchanged for each other",
            )),
            None if self.identifier.is_some() && *mode == FieldMode::Randomized => Err(wrong(
                "an identifier must be bound to its row: set row_binding to the column, path or segment of an immutable \
                 identifier, or to \"none\" if values may be swapped between rows",
            )),
            None => Ok(RowBinding::None),
            Some(RowBindingToml::Name(name)) if name == "none" => Ok(RowBinding::None),
            Some(RowBindingToml::Name(name)) if name.starts_with('$') => Ok(bound(None, Some(name))),
            Some(RowBindingToml::Name(name)) => Ok(bound(Some(name), None)),
            Some(RowBindingToml::Each(RowBindingTable { column, path, segment, segments })) => {
                let segment = match (segment, segments) {
                    (Some(_), Some(_)) => return Err(wrong("row_binding has either segment or segments")),
                    (Some(segment), None) => Some(vec![segment.clone()]),
                    (None, segments) => segments.clone(),
                };
                if column.is_none() && path.is_none() && segment.as_ref().is_none_or(Vec::is_empty) {
                    return Err(wrong("row_binding names no column, no path and no segment"));
                }
                Ok(RowBinding::Bound { column: column.clone(), path: path.clone(), segment })
            }
        }
    }

    fn padding(&self) -> Result<Padding> {
        match &self.padding {
            None => Ok(Padding::None),
            Some(PaddingToml::Multiple(n)) => Ok(Padding::Multiple(*n)),
            Some(PaddingToml::Named(name)) if name == "padme" => Ok(Padding::Padme),
            Some(PaddingToml::Named(_)) => Err(wrong("padding is a number of bytes or \"padme\"")),
        }
    }
}

fn parse_suite(id: &str) -> Result<Suite> {
    [Suite::Field, Suite::Deterministic, Suite::Frame, Suite::Stream, Suite::Document]
        .into_iter()
        .find(|suite| suite.to_string() == id)
        .ok_or_else(|| wrong("accept lists suites that this build opens: \"01\", \"02\", \"03\", \"04\" and \"05\""))
}

fn parse_type(name: &str) -> Result<ValueType> {
    ValueType::ALL
        .into_iter()
        .find(|known| known.name() == name && *known != ValueType::Null)
        .ok_or_else(|| wrong("type is one of bytes, text, integer, decimal, float, boolean, date, timestamp, json"))
}

fn parse_identifier(letter: char) -> Result<HipaaClass> {
    HipaaClass::new(letter).ok_or_else(|| wrong("identifier is a letter from A to R, of 45 CFR 164.514(b)(2)(i)"))
}
