//! The configuration matrix: what each service encrypts how, and which KEKs there are.

use crate::evidence::{Evidence, KekPlace, Service};
use crate::time;
use keyfold::config::Config;
use keyfold::{
    DocumentPolicy, FieldMode, FieldPolicy, KekAlias, KekUse, KeyClass, KeyState, ManifestRule, Padding, Policy,
    Record, RowBinding,
};
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How one field of one service is encrypted.
#[derive(Clone, Debug, Serialize)]
pub struct FieldRow {
    /// The service.
    pub service: String,
    /// The field.
    pub field: String,
    /// The letter of the HIPAA identifier that it is, (A) to (R).
    pub identifier: Option<char>,
    /// What the letter stands for.
    pub identifier_title: Option<&'static str>,
    /// The mode of the policy.
    pub mode: &'static str,
    /// Suites that are opened.
    pub suites: Vec<String>,
    /// The algorithm, with its key length.
    pub algorithm: &'static str,
    /// Whether a value that was changed is refused.
    pub authenticated: bool,
    /// Of a field in JSON documents, which kinds of them have a manifest, by which values that were dropped or exchanged are missed;
    /// `None`: there are no documents that are sealed as such.
    pub manifest: Option<String>,
    /// The type of the values.
    pub value_type: &'static str,
    /// Which keys seal, and which make the tokens of its blind indexes.
    pub keys: Vec<FieldKeys>,
    /// The column or path that a value cannot be moved away from.
    pub row_binding: Option<String>,
    /// Context keys that are required.
    pub required_context: Vec<String>,
    /// How lengths are blurred.
    pub padding: String,
    /// How values are found: by the mode, and by each blind index with its bits.
    pub index: String,
    /// What whoever sees the sealed values learns.
    pub shows: String,
    /// KEKs that wrap the roots of its keys.
    pub keks: Vec<String>,
    /// Whether values in clear may still be read.
    pub migrates: bool,
}

impl FieldRow {
    /// Whether it has blind indexes.
    pub(crate) fn is_indexed(&self) -> bool {
        self.index.contains(" bits")
    }
}

/// Keys that values of a field, or their tokens, are under.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct FieldKeys {
    /// Which.
    pub keys: String,
    /// When they are replaced.
    pub rotation: String,
    /// When the newest of them was made (RFC 3339).
    pub last_rotation: Option<String>,
}

/// A KEK of the configuration.
#[derive(Clone, Debug, Serialize)]
pub struct KekRow {
    /// Its alias.
    pub kek: String,
    /// The scheme of its URI, which says what sort of key service it is in. The rest of the URI is not in a report.
    pub scheme: String,
    /// The same for people.
    pub service: &'static str,
    /// What it wraps.
    pub wraps: &'static str,
    /// When it is asked.
    pub used: &'static str,
    /// `compromised` or `retired`, if it is one of them.
    pub state: Option<&'static str>,
    /// Records that are wrapped by it now.
    pub records: usize,
    /// How far it is from the key records.
    pub place: &'static str,
    /// Whether it lies beside them: in their folder, or on their file system.
    pub beside: bool,
}

/// What there is to say of a mode.
struct Mode {
    name: &'static str,
    algorithm: &'static str,
    authenticated: bool,
    index: &'static str,
    shows: &'static str,
}

fn mode(policy: &FieldPolicy) -> Mode {
    match &policy.mode {
        FieldMode::Randomized => Mode {
            name: "randomized",
            algorithm: "XAES-256-GCM, key commitment",
            authenticated: true,
            index: "none",
            shows: if policy.padding == Padding::None { "length" } else { "blurred length" },
        },
        FieldMode::Deterministic { .. } => Mode {
            name: "deterministic",
            algorithm: "AES-256-SIV",
            authenticated: true,
            index: "equal values are equal",
            shows: "which values are equal, and their length",
        },
        FieldMode::Document => Mode {
            name: "document",
            algorithm: "AES-256-GCM, a key of its own for each document",
            authenticated: true,
            index: "none",
            shows: if policy.padding == Padding::None { "length" } else { "blurred length" },
        },
        FieldMode::Stream => Mode {
            name: "stream",
            algorithm: "AES-256-GCM in chunks, a key of its own for each stream, key commitment",
            authenticated: true,
            index: "none",
            shows: "length",
        },
        FieldMode::FormatPreserving { .. } => Mode {
            name: "format-preserving",
            algorithm: "FF1 with AES-256, NOT AUTHENTICATED",
            authenticated: false,
            index: "equal values are equal",
            shows: "which values are equal, their format and length",
        },
        FieldMode::Token { .. } => Mode {
            name: "token",
            algorithm: "random tokens; in the token table AES-256-SIV, and HMAC-SHA-256 over token and value",
            authenticated: true,
            index: "equal values have equal tokens",
            shows: "which values are equal",
        },
        _ => Mode {
            name: "other",
            algorithm: "as its suite says",
            authenticated: false,
            index: "see docs/CONFIG.md",
            shows: "see docs/CONFIG.md",
        },
    }
}

/// The fields of every service, in the order of services and names.
pub(crate) fn fields(evidence: &Evidence) -> Vec<FieldRow> {
    let of = |service: &Service| {
        let fields = service.config.keyring.policy.fields();
        fields.map(|policy| field(evidence, service, policy)).collect::<Vec<_>>()
    };
    evidence.services.iter().flat_map(of).collect()
}

fn field(evidence: &Evidence, service: &Service, policy: &FieldPolicy) -> FieldRow {
    let keyring = &service.config.keyring;
    let Mode { name, algorithm, authenticated, index, shows } = mode(policy);
    FieldRow {
        service: service.name.clone(),
        field: policy.name.clone(),
        identifier: policy.identifier.map(keyfold::HipaaClass::letter),
        identifier_title: policy.identifier.map(keyfold::HipaaClass::title),
        mode: name,
        suites: policy.accepted_suites.iter().map(ToString::to_string).collect(),
        algorithm,
        authenticated,
        manifest: manifest(policy, &keyring.policy),
        value_type: policy.value_type.map_or("any", keyfold::ValueType::name),
        keys: keys(evidence, service, policy),
        row_binding: match &policy.mode {
            // Such values are bound to their path in the document, and that to what its section says.
            FieldMode::Document => {
                let kinds: BTreeSet<_> =
                    keyring.policy.documents().filter_map(|kind| bound(&kind.row_binding)).collect();
                Some(Vec::from_iter(kinds).join(", ")).filter(|bound| !bound.is_empty())
            }
            _ => bound(&policy.row_binding),
        },
        required_context: policy.required_context.iter().cloned().collect(),
        padding: match policy.padding {
            Padding::None => "none".to_owned(),
            Padding::Multiple(n) => format!("to a multiple of {n} bytes"),
            Padding::Padme => "Padmé".to_owned(),
            _ => "other".to_owned(),
        },
        index: indexes(policy, index),
        shows: shown(policy, shows),
        keks: service
            .config
            .keks
            .keys()
            .filter(|alias| wraps_roots(&service.config, alias))
            .map(ToString::to_string)
            .collect(),
        migrates: policy.migration.is_some(),
    }
}

/// The keys that seal values of a field, then those that make the tokens of its indexes, each once.
fn keys(evidence: &Evidence, service: &Service, policy: &FieldPolicy) -> Vec<FieldKeys> {
    let keyring = &service.config.keyring;
    let newest = |is: &dyn Fn(&Record) -> bool| {
        let made = evidence.made().map(|key| &key.record).filter(|record| is(record)).map(Record::created_at);
        made.max().map(time::rfc3339)
    };
    let of_scope = || FieldKeys {
        keys: "data key of the scope".to_owned(),
        rotation: keyring
            .rotation
            .data_age
            .map_or_else(|| "by hand".to_owned(), |age| format!("after {}", time::length(age.as_secs()))),
        last_rotation: newest(&|record| record.class() == KeyClass::Data && record.state() != KeyState::Destroyed),
    };
    let of_partition = |partition: &String| {
        let seals = keyring.lookup.get(partition).map(|keys| keys.seals);
        FieldKeys {
            keys: format!("look-up key of partition {partition}"),
            rotation: "by hand".to_owned(),
            last_rotation: newest(&|record| Some(record.key_id()) == seals),
        }
    };
    let sealing = match &policy.mode {
        FieldMode::Deterministic { partition, .. }
        | FieldMode::FormatPreserving { partition, .. }
        | FieldMode::Token { partition, .. } => of_partition(partition),
        _ => of_scope(),
    };
    let mut keys = vec![sealing];
    for made in policy.indexes.iter().map(|index| of_partition(&index.partition)) {
        if !keys.contains(&made) {
            keys.push(made);
        }
    }
    keys
}

/// The column or path of a binding.
fn bound(binding: &RowBinding) -> Option<String> {
    let RowBinding::Bound { column, path, segment } = binding else { return None };
    let places = [column, path].into_iter().flatten().chain(segment.iter().flatten());
    Some(places.cloned().collect::<Vec<_>>().join(", "))
}

/// Which kinds of documents have a manifest. Any of them may apply to a document: that hangs on its members in clear.
fn manifest(field: &FieldPolicy, policy: &Policy) -> Option<String> {
    // Both look at the same document where that is the whole one, and cannot both hold if they ask for other texts.
    let may_apply = |kind: &&Arc<DocumentPolicy>| {
        let is_other = |(path, text): (&String, &String)| field.only_if.get(path).is_some_and(|own| own != text);
        kind.root != "$" || !kind.only_if.iter().any(is_other)
    };
    let kinds = policy.documents().filter(may_apply);
    let kinds: Vec<_> = kinds.map(|kind| format!("{}: {}", kind.name, manifest_rule(kind))).collect();
    (!field.paths.is_empty() && !kinds.is_empty()).then(|| kinds.join("; "))
}

/// The rule for manifests of a kind of documents.
pub(crate) fn manifest_rule(kind: &DocumentPolicy) -> &'static str {
    match kind.manifest {
        ManifestRule::Required => "required",
        ManifestRule::Written => "WRITTEN, NOT REQUIRED",
        ManifestRule::None => "NONE",
    }
}

/// What the mode shows, and each blind index. Bits that were not checked against the rows of the table may be so many that hardly two values
/// share a token by chance.
fn shown(policy: &FieldPolicy, by_mode: &str) -> String {
    let of = |index: &keyfold::IndexPolicy| {
        let what = match () {
            () if index.is_full_width() => "which values are equal",
            () if policy.table_rows.is_some() => "in part which values are equal",
            () => "WHICH VALUES ARE EQUAL, unless checked bits say otherwise",
        };
        format!("by index {} {what}", index.name)
    };
    std::iter::once(by_mode.to_owned()).chain(policy.indexes.iter().map(of)).collect::<Vec<_>>().join("; ")
}

/// What the mode lets find, and each blind index, with the rows that their bits were checked against.
fn indexes(policy: &FieldPolicy, by_mode: &str) -> String {
    let blind = policy.indexes.iter();
    let blind = blind.map(|index| {
        format!("{} ({}, {} bits, partition {})", index.name, index.kind.name(), index.bits, index.partition)
    });
    let by_mode = (by_mode != "none" || policy.indexes.is_empty()).then(|| by_mode.to_owned());
    let rows = match policy.table_rows {
        Some(rows) => Some(format!("rows = {rows}")),
        None => policy.has_unchecked_indexes().then(|| "NO ROWS STATED, SO THE BITS ARE UNCHECKED".to_owned()),
    };
    by_mode.into_iter().chain(blind).chain(rows).collect::<Vec<_>>().join("; ")
}

fn wraps_roots(config: &Config, alias: &KekAlias) -> bool {
    !config.keyring.scope_keks.contains(alias)
}

/// The KEKs of the first service, those for audit chains among them.
pub(crate) fn keks(evidence: &Evidence) -> Vec<KekRow> {
    let Some(Service { config, .. }) = evidence.services.first() else { return Vec::new() };
    let policy = &config.keyring.keks;
    let row = |alias: &KekAlias, uri: &str, wraps| {
        let scheme = uri.split_once(':').map_or(uri, |(scheme, _)| scheme);
        let place = evidence.places.get(alias).copied();
        KekRow {
            kek: alias.to_string(),
            scheme: scheme.to_owned(),
            service: key_service(scheme),
            wraps,
            used: match policy.uses.get(alias).copied().unwrap_or_default() {
                KekUse::Always => "always",
                KekUse::Recovery => "in recovery mode",
                KekUse::BreakGlass => "break-glass, with a reason",
            },
            state: match () {
                () if policy.compromised.contains(alias) => Some("compromised"),
                () if policy.retired.contains(alias) => Some("retired"),
                () => None,
            },
            records: evidence.made().filter(|key| key.record.kek_aliases().any(|known| known == alias)).count(),
            place: match place {
                Some(KekPlace::SameFolder) => "IN THE FOLDER OF THE KEY RECORDS",
                Some(KekPlace::SameFileSystem) => "ON THE FILE SYSTEM OF THE KEY RECORDS",
                Some(KekPlace::Apart) => "on a file system without key records",
                Some(KekPlace::Missing) => NOT_HERE,
                None => match scheme {
                    "local" | "passphrase" => "in a file, where was not looked",
                    "host" => "where the program has it",
                    _ => "in a key service",
                },
            },
            beside: matches!(place, Some(KekPlace::SameFolder | KekPlace::SameFileSystem)),
        }
    };
    let of_keys = config
        .keks
        .iter()
        .map(|(alias, uri)| row(alias, uri, if wraps_roots(config, alias) { "roots" } else { "isolated scopes" }));
    of_keys.chain(config.audit_keks.iter().map(|(alias, uri)| row(alias, uri, "audit chains"))).collect()
}

/// The place of a KEK file that is missing: nobody knows what is beside it.
pub(crate) const NOT_HERE: &str = "not on this machine";

fn key_service(scheme: &str) -> &'static str {
    match scheme {
        "local" => "file",
        "passphrase" => "file with a passphrase",
        "host" => "the program itself",
        "awskms" => "AWS KMS",
        "azurekv" => "Azure Key Vault",
        "gcpkms" => "Google Cloud KMS",
        "pkcs11" => "HSM by PKCS#11",
        "vault" => "Vault or OpenBao",
        _ => "other",
    }
}

/// An age of the rotation policy for people.
pub(crate) fn age(age: Option<Duration>) -> String {
    age.map_or_else(|| "never by age".to_owned(), |age| format!("after {}", time::length(age.as_secs())))
}
