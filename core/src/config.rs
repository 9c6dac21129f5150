//! `keyfold.toml` and policy files (docs/CONFIG.md): parsing with errors that name file, line and key.
//!
//! What its sections are made of is here as well, for files of other programs that have some of them: [`Origin`], [`CacheToml`],
//! [`RotationToml`], [`parse_duration`].

mod audit;
mod cache;
mod document;
mod duration;
mod field;
mod hl7;
mod keks;
mod lookup;
mod memory;
mod position;
mod rotation;
mod shred;
mod size;
#[cfg(test)]
mod tests;

use crate::error::{Error, ErrorKind, Result};
use crate::fips;
use crate::keyring::{CreatedKeyring, KekPolicy, KeyringConfig, LookupKeys, check_environment};
use crate::kms::KekAlias;
use crate::policy::{FieldPolicy, Policy, check_shown_bits};
use audit::AuditToml;
pub use audit::{AuditConfig, OnAuditFailure};
pub use cache::CacheToml;
use document::DocumentToml;
pub use duration::parse as parse_duration;
use field::FieldToml;
use hl7::Hl7Toml;
use keks::{KekToml, RecoveryToml};
use memory::MemoryToml;
pub use position::{Origin, Spanned};
pub use rotation::RotationToml;
use serde::Deserialize;
use shred::ShredToml;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

/// The version of the file format that this build reads.
const VERSION: u32 = 1;

/// A configuration file: a keyring, where its records are kept, and which KEKs wrap its root.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the keyring is and what it trusts, with the fields of the file and of added policies.
    pub keyring: KeyringConfig,
    /// Where key records are kept, such as `sqlite:keys.db`; paths are relative to the file.
    pub store: String,
    /// Files in which every key is recorded before the store shows it, such as `file:/other/disk/keys.journal`; relative to
    /// the configuration file.
    pub journals: Vec<String>,
    /// Backups that a shredded key must leave before a certificate is complete, by the operator's names.
    pub backups: Vec<String>,
    /// Likewise, archives of the database's write-ahead log.
    pub archives: Vec<String>,
    /// The file that remembers how far the keyring has come; relative to the configuration file.
    pub high_water: Option<String>,
    /// The KEKs, by alias, such as `local:local.kek`; paths are relative to the file.
    pub keks: BTreeMap<KekAlias, String>,
    /// How long each KEK may take to answer a request, by alias; those that are not named: as long as they like.
    pub deadlines: BTreeMap<KekAlias, Duration>,
    /// Configuration files of keyrings that are only asked whose an unknown key is; relative to the file.
    pub neighbours: BTreeMap<String, String>,
    /// The KEKs that wrap audit chains and nothing else, by alias, such as `local:audit.kek`; relative to the file.
    pub audit_keks: BTreeMap<KekAlias, String>,
    /// Where events are recorded; `None`: nowhere.
    pub audit: Option<AuditConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigToml {
    version: Spanned<u32>,
    keyring: KeyringToml,
    store: StoreToml,
    keks: BTreeMap<String, Spanned<KekToml>>,
    recovery: Option<Spanned<RecoveryToml>>,
    #[serde(default)]
    cache: CacheToml,
    audit: Option<AuditToml>,
    #[serde(default)]
    neighbours: BTreeMap<String, String>,
    #[serde(default)]
    rotation: RotationToml,
    #[serde(default)]
    shred: ShredToml,
    #[serde(default)]
    memory: MemoryToml,
    #[serde(default)]
    scopes: BTreeMap<String, Spanned<ScopeToml>>,
    #[serde(default)]
    lookup: BTreeMap<String, LookupToml>,
    rows: Option<Spanned<u64>>,
    hl7: Option<Hl7Toml>,
    #[serde(default)]
    documents: BTreeMap<String, Spanned<DocumentToml>>,
    #[serde(default)]
    fields: BTreeMap<String, Spanned<FieldToml>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyToml {
    version: Spanned<u32>,
    rows: Option<Spanned<u64>>,
    hl7: Option<Hl7Toml>,
    #[serde(default)]
    documents: BTreeMap<String, Spanned<DocumentToml>>,
    #[serde(default)]
    fields: BTreeMap<String, Spanned<FieldToml>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyringToml {
    name: String,
    environment: Spanned<String>,
    lineage: Spanned<String>,
    root_pins: Vec<Spanned<String>>,
    scope_names: Spanned<String>,
    quorum: Option<Spanned<usize>>,
    #[serde(default)]
    open_compromised: bool,
    #[serde(default)]
    fips: FipsToml,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FipsToml {
    #[default]
    Labelled,
    Required,
}

impl From<FipsToml> for fips::Rule {
    fn from(rule: FipsToml) -> Self {
        match rule {
            FipsToml::Labelled => Self::Labelled,
            FipsToml::Required => Self::Required,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoreToml {
    uri: String,
    high_water: Option<String>,
    #[serde(default)]
    journal: OneOrMore,
}

/// A text, or a list of them.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Default for OneOrMore {
    fn default() -> Self {
        Self::More(Vec::new())
    }
}

impl From<OneOrMore> for Vec<String> {
    fn from(texts: OneOrMore) -> Self {
        match texts {
            OneOrMore::One(text) => vec![text],
            OneOrMore::More(texts) => texts,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeToml {
    keks: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LookupToml {
    partition: Spanned<String>,
    seals: Spanned<String>,
    #[serde(default)]
    opens: Vec<Spanned<String>>,
}

impl Config {
    /// Parses the text of a configuration file; `origin` names it in errors.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): with file, line and key.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let origin = Origin::new(origin, text);
        let file: ConfigToml = origin.parse()?;
        origin.check_version(&file.version, VERSION)?;
        let keyring = file.keyring;
        origin.at(&keyring.environment, |text| check_environment(text))?;
        let mut config = Self {
            keyring: KeyringConfig {
                name: keyring.name,
                environment: keyring.environment.get_ref().clone(),
                lineage: origin.at(&keyring.lineage, |text| text.parse())?,
                root_pins: keyring
                    .root_pins
                    .iter()
                    .map(|pin| origin.at(pin, |text| parse_pin(text)))
                    .collect::<Result<_>>()?,
                scope_names: origin.at(&keyring.scope_names, |text| text.parse())?,
                lookup: BTreeMap::new(),
                cache: file.cache.to_policy(&origin)?,
                rotation: file.rotation.to_policy(&origin)?,
                isolated: BTreeMap::new(),
                scope_keks: BTreeSet::new(),
                open_compromised: keyring.open_compromised,
                keks: KekPolicy::default(),
                shred: file.shred.to_policy(&origin)?,
                fips: keyring.fips.into(),
                memory: file.memory.lock.into(),
                policy: Policy::new(),
            },
            store: file.store.uri,
            journals: file.store.journal.into(),
            backups: file.shred.backups,
            archives: file.shred.archives,
            high_water: file.store.high_water,
            keks: BTreeMap::new(),
            deadlines: BTreeMap::new(),
            neighbours: file.neighbours,
            audit_keks: BTreeMap::new(),
            audit: None,
        };
        for (alias, kek) in file.keks {
            let alias = origin.at(&kek, |_| KekAlias::new(&alias))?;
            origin.at(&kek, |kek| config.check_uri(&alias, kek))?;
            config.add_kek(&origin, alias, kek.into_inner())?;
        }
        config.set_quorum(&origin, keyring.quorum.as_ref())?;
        if let Some(recovery) = &file.recovery {
            config.keyring.keks.recovery = origin.at(recovery, RecoveryToml::to_policy)?;
        }
        config.audit = file.audit.map(|audit| audit.to_config(&origin, &config.audit_keks)).transpose()?;
        for (name, scope) in file.scopes {
            let keks = origin.at(&scope, |scope| config.isolating_keks(scope))?;
            config.keyring.isolated.insert(name, keks);
        }
        for (name, lookup) in file.lookup {
            let keys = LookupKeys {
                partition: origin.at(&lookup.partition, |text| text.parse())?,
                seals: origin.at(&lookup.seals, |text| text.parse())?,
                opens: lookup.opens.iter().map(|id| origin.at(id, |text| text.parse())).collect::<Result<_>>()?,
            };
            config.keyring.lookup.insert(name, keys);
        }
        hl7::add(&mut config.keyring.policy, file.hl7);
        add_fields(&mut config.keyring.policy, &origin, file.documents, file.fields, file.rows.as_ref())?;
        Ok(config)
    }

    fn isolating_keks(&self, scope: &ScopeToml) -> Result<Vec<KekAlias>> {
        let of = |alias: &String| {
            let known = KekAlias::new(alias).ok().filter(|alias| self.keks.contains_key(alias));
            known.ok_or_else(|| {
                Error::new(ErrorKind::Configuration, "there is no [keks] section of this name").with_detail(alias)
            })
        };
        if scope.keks.is_empty() {
            return Err(Error::new(ErrorKind::Configuration, "an isolated scope needs at least one KEK"));
        }
        scope.keks.iter().map(of).collect()
    }

    /// Adds the fields and documents of a policy file; `origin` names it in errors.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): with file, line and key; also when one of them is defined already.
    pub fn add_policy(&mut self, text: &str, origin: &str) -> Result<()> {
        add_policy(&mut self.keyring.policy, text, origin)
    }

    /// The text of a configuration file for a keyring that was just made.
    #[must_use]
    pub fn template(
        created: &CreatedKeyring,
        store: &str,
        high_water: &str,
        keks: &BTreeMap<KekAlias, String>,
    ) -> String {
        let keyring = &created.config;
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let mut out = String::new();
        let mut line = |text: std::fmt::Arguments<'_>| {
            out.write_fmt(text).expect("writing to a String cannot fail");
            out.push('\n');
        };
        line(format_args!(
            "# Keyfold keyring. Holds no secret, but decides what is trusted: let only administrators write it."
        ));
        line(format_args!("version = 1\n\n[keyring]"));
        line(format_args!("name = {}", quoted(&keyring.name)));
        line(format_args!("# The isolation domain: keys of another environment never open here."));
        line(format_args!("environment = {}", quoted(&keyring.environment)));
        line(format_args!("lineage = \"{}\"", keyring.lineage));
        line(format_args!("# Commitments of the root keys that are trusted. Keep a copy elsewhere."));
        for pin in &keyring.root_pins {
            line(format_args!("root_pins = [\"{}\"]", data_encoding::HEXLOWER.encode(pin)));
        }
        line(format_args!("# The key that hides the names of scopes."));
        line(format_args!("scope_names = \"{}\"\n\n[store]", keyring.scope_names));
        line(format_args!("uri = {}", quoted(store)));
        line(format_args!("# Remembers how far the keyring has come, so that an older copy of the store is noticed."));
        line(format_args!("high_water = {}", quoted(high_water)));
        for (alias, uri) in keks {
            line(format_args!("\n[keks.{alias}]\nuri = {}", quoted(uri)));
        }
        for (name, keys) in &keyring.lookup {
            line(format_args!("\n# Keys for deterministic fields: the partition inside which values are linkable."));
            line(format_args!("{}", Self::partition(name, keys)));
        }
        line(format_args!("\n# Fields may stand here, or in policy files that are added with --policy. For example:"));
        line(format_args!("# [fields.\"patient.ssn\"]\n# identifier = \"G\"            # HIPAA Safe Harbor class"));
        line(format_args!(
            "# row_binding = \"patient_id\"  # values cannot be swapped between rows\n# columns = [\"ssn\"]"
        ));
        out
    }

    /// The section of the partition `name`, to be added to a configuration.
    #[must_use]
    pub fn partition(name: &str, keys: &LookupKeys) -> String {
        // A key cannot be written as some values are, and a name has no control characters.
        let name = format!("\"{}\"", name.replace('\\', r"\\").replace('"', "\\\""));
        let opens = keys.opens.iter().map(|key_id| format!("\"{key_id}\"")).collect::<Vec<_>>().join(", ");
        format!("[lookup.{name}]\npartition = \"{}\"\nseals = \"{}\"\nopens = [{opens}]", keys.partition, keys.seals)
    }
}

/// Adds the fields of a policy file to `policy`, without a keyring; `origin` names the file in errors.
///
/// # Errors
///
/// As for [`Config::add_policy`].
pub fn add_policy(policy: &mut Policy, text: &str, origin: &str) -> Result<()> {
    let origin = Origin::new(origin, text);
    let file: PolicyToml = origin.parse()?;
    origin.check_version(&file.version, VERSION)?;
    hl7::add(policy, file.hl7);
    add_fields(policy, &origin, file.documents, file.fields, file.rows.as_ref())
}

/// `rows`: how many the table of these fields has, where the file says so.
fn add_fields(
    policy: &mut Policy,
    origin: &Origin<'_>,
    documents: BTreeMap<String, Spanned<DocumentToml>>,
    fields: BTreeMap<String, Spanned<FieldToml>>,
    rows: Option<&Spanned<u64>>,
) -> Result<()> {
    for (name, document) in documents {
        origin.at(&document, |toml| policy.add_document(toml.to_policy(&name)?))?;
    }
    let mut added = Vec::with_capacity(fields.len());
    for (name, field) in fields {
        origin.at(&field, |toml| {
            let field = FieldPolicy { table_rows: rows.map(|rows| *rows.get_ref()), ..toml.to_policy(&name)? };
            added.push(field.clone());
            policy.add(field)
        })?;
    }
    match rows {
        Some(rows) => origin.at(rows, |rows| check_shown_bits(*rows, &added)),
        None => Ok(()),
    }
}

/// The pin of a root as the configuration writes it: its commitment in lower-case hexadecimal.
fn parse_pin(text: &str) -> Result<[u8; 32]> {
    let decoded = data_encoding::HEXLOWER.decode(text.as_bytes()).ok();
    decoded
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| Error::new(ErrorKind::Configuration, "a root pin is 64 lower-case hexadecimal digits"))
}
