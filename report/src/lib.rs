//! Evidence reports (docs/REPORT.md): what the configuration, the key records and the audit trail of a keyring show, for people who
//! review it.
//!
//! [`Report::new`] is a pure function of its [`Evidence`]: it reads no file, asks no key service and knows no clock, so the same evidence
//! gives the same report. It is JSON, Markdown, or one HTML file that needs nothing else.
#![forbid(unsafe_code)]

mod anomalies;
mod chart;
mod controls;
mod cost;
mod counts;
mod document;
mod evidence;
mod hours;
mod html;
mod inventory;
mod markdown;
mod overview;
pub mod page;
mod retention;
#[cfg(test)]
mod samples;
mod services;
mod text;
mod time;
mod trail;
mod uses;

pub use controls::{Control, Row, controls};
pub use cost::{Cost, Price, Prices};
pub use evidence::{Digests, Evidence, FileDigest, HighWaterFile, KekPlace, Key, Service, Trail, Watch};
pub use hours::Hours;
pub use inventory::{Inventory, KeyRow, Rotations};
pub use retention::Retention;
pub use services::{FieldKeys, FieldRow, KekRow};
pub use text::is_plain;
pub use time::parse as parse_time;
pub use trail::{Anomaly, AuditSummary, Calls, DayUse, Happening};
pub use uses::KeyUse;

use keyfold::KeyringConfig;
use serde::Serialize;

/// A report. Its JSON form has every member; docs/REPORT.md says what they mean.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The version of Keyfold.
    pub version: &'static str,
    /// When it was made, or the time that it is of (RFC 3339).
    pub at: String,
    /// Whether that time was given, so that it is not when it was made.
    pub as_of: bool,
    /// The name of the keyring, for people.
    pub keyring: String,
    /// Its environment.
    pub environment: String,
    /// What identifies it.
    pub lineage: String,
    /// What runs in a FIPS 140 module.
    pub fips: Fips,
    /// The services.
    pub services: Vec<String>,
    /// What their configurations and policies are known by.
    pub digests: Vec<ServiceDigests>,
    /// The encryption configuration matrix.
    pub fields: Vec<FieldRow>,
    /// The KEKs.
    pub keks: Vec<KekRow>,
    /// The keys.
    pub keys: Inventory,
    /// The file that remembers what this machine has seen of the keyring.
    pub high_water: HighWaterFile,
    /// The audit trail; `None`: nothing is recorded.
    pub audit: Option<AuditSummary>,
    /// Usual hours.
    pub hours: Option<String>,
    /// What a burst is: so many times a median hour before.
    pub burst: u32,
    /// Likewise, where nobody can say what is usual: more than so many values.
    pub burst_first: u64,
    /// What KEKs in key services are asked a month, and cost where prices were given.
    pub costs: Vec<Cost>,
    /// The prices that were given.
    pub prices: Option<Prices>,
    /// What would be lost before six years have passed.
    pub retention: Vec<Retention>,
    /// The control map.
    pub controls: Vec<Row>,
}

/// What the configuration of a service and its policies are known by.
#[derive(Clone, Debug, Serialize)]
pub struct ServiceDigests {
    /// The service.
    pub service: String,
    /// The digests.
    #[serde(flatten)]
    pub digests: Digests,
}

impl ServiceDigests {
    fn of(service: &Service) -> Option<Self> {
        Some(Self { service: service.name.clone(), digests: service.digests.clone()? })
    }
}

/// What runs in a FIPS 140 module, in the program that made the report; keyfold itself is not validated.
#[derive(Clone, Debug, Serialize)]
pub struct Fips {
    /// `required` or `labelled`, by the configuration.
    pub rule: &'static str,
    /// The module; `None`: there is none.
    pub module: Option<&'static str>,
    /// The version of the library that it is a part of.
    pub version: Option<&'static str>,
    /// Whether it says that it is in FIPS mode.
    pub in_fips_mode: bool,
    /// The services that it does not perform in an approved way.
    pub not_approved: Vec<&'static str>,
}

impl Fips {
    fn new(keyring: Option<&KeyringConfig>) -> Self {
        let status = keyfold::fips::status();
        Self {
            rule: keyring.map(|keyring| keyring.fips).unwrap_or_default().name(),
            module: status.module.map(|module| module.name),
            version: status.module.map(|module| module.version),
            in_fips_mode: status.module.is_some_and(|module| module.is_in_fips_mode),
            not_approved: status.not_approved().collect(),
        }
    }

    fn sentence(&self) -> String {
        format!("fips = \"{}\": {}", self.rule, keyfold::fips::status())
    }
}

impl Report {
    /// The report of `evidence`.
    #[must_use]
    pub fn new(evidence: &Evidence) -> Self {
        let keyring = evidence.services.first().map(|service| &service.config.keyring);
        let audit = evidence.trail.as_ref().map(|trail| AuditSummary::new(evidence, trail));
        let (keys, keks) = (Inventory::new(evidence), services::keks(evidence));
        let mut report = Self {
            version: env!("CARGO_PKG_VERSION"),
            at: time::rfc3339(evidence.at),
            as_of: evidence.as_of,
            keyring: keyring.map(|keyring| keyring.name.clone()).unwrap_or_default(),
            environment: keyring.map(|keyring| keyring.environment.clone()).unwrap_or_default(),
            lineage: keyring.map(|keyring| keyring.lineage.to_string()).unwrap_or_default(),
            fips: Fips::new(keyring),
            services: evidence.services.iter().map(|service| service.name.clone()).collect(),
            digests: evidence.services.iter().filter_map(ServiceDigests::of).collect(),
            fields: services::fields(evidence),
            costs: audit.as_ref().map_or_else(Vec::new, |audit| audit.costs(evidence, &keks)),
            retention: retention::warnings(evidence, &keys, audit.as_ref()),
            hours: evidence.watch.hours.as_ref().map(ToString::to_string),
            burst: evidence.watch.burst,
            burst_first: evidence.watch.unknown_max,
            prices: evidence.prices.clone(),
            controls: Vec::new(),
            high_water: evidence.high_water,
            keks,
            keys,
            audit,
        };
        report.controls = controls::rows(evidence, &report);
        report
    }

    /// The report as one JSON object.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("names are texts, and numbers are finite")
    }

    /// The report as Markdown.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        markdown::render(self)
    }

    /// The report as one HTML file, which loads nothing and runs nothing.
    #[must_use]
    pub fn to_html(&self) -> String {
        html::render(self)
    }

    fn title(&self) -> String {
        format!("Keyfold evidence report: {}", self.keyring)
    }

    /// Fields that are bound to their row.
    fn bound(&self) -> usize {
        self.fields.iter().filter(|field| field.row_binding.is_some()).count()
    }

    /// Fields whose values anybody can change without its being noticed.
    fn unauthenticated(&self) -> Vec<&FieldRow> {
        self.fields.iter().filter(|field| !field.authenticated).collect()
    }

    /// Keys by state, and how many the trail says were ever compromised: what comes after that state hides it.
    fn keys_by_state(&self) -> String {
        let marked = self.audit.as_ref().map_or_else(Vec::new, AuditSummary::compromised);
        match marked.first() {
            None => self.keys.by_state(),
            Some((latest, _)) => {
                let ids: std::collections::BTreeSet<_> = marked.iter().map(|(_, id)| id).collect();
                format!("{}; {} MARKED COMPROMISED by the trail, the last on {latest}", self.keys.by_state(), ids.len())
            }
        }
    }

    /// Whether every field is authenticated, in words; of no fields nothing can be said.
    fn authenticity(&self) -> String {
        match (self.fields.len(), self.unauthenticated().len()) {
            (0, _) => "NO FIELD WAS GIVEN TO THIS REPORT (--policy)".to_owned(),
            (_, 0) => "all authenticated".to_owned(),
            (_, n) => format!("{n} NOT AUTHENTICATED"),
        }
    }

    /// Fields with the letter of an identifier.
    fn classified(&self) -> usize {
        self.fields.iter().filter(|field| field.identifier.is_some()).count()
    }
}

impl AuditSummary {
    /// What verification said, in one sentence.
    fn verdict(&self) -> String {
        match (self.events, self.clean, self.authenticated) {
            (0, true, _) => "nothing is recorded yet".to_owned(),
            (_, true, true) => "verified under the audit KEK, nothing is wrong".to_owned(),
            (_, true, false) => "only the structure was checked, which whoever edits the files can make fit (--verify asks the audit KEK)".to_owned(),
            (_, false, _) => format!("NOT WHAT WAS WRITTEN: {}", text::counted(self.findings.len(), "finding")),
        }
    }
}
