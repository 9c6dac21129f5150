//! What a report is made from.

use crate::cost::Prices;
use crate::counts::Counts;
use crate::hours::Hours;
use keyfold::config::Config;
use keyfold::{KekAlias, Record};
use serde::Serialize;
use std::collections::BTreeMap;

/// What there is to be seen of a keyring. Holds no key and no value.
pub struct Evidence {
    /// When the report is made, in seconds since 1970: ages are counted up to here, and nothing later is looked at.
    pub at: u64,
    /// Whether somebody chose that time, so that it is not when the report is made.
    pub as_of: bool,
    /// Who uses the keyring, each with its configuration and policies. The first is the one whose keys and trail are reported on.
    pub services: Vec<Service>,
    /// The key records of the store.
    pub keys: Vec<Key>,
    /// Why nobody could look whether a trusted root vouches for them, or for some, though that was asked for.
    pub not_verified: Option<String>,
    /// The file that remembers what this machine has seen of the keyring.
    pub high_water: HighWaterFile,
    /// Where keyrings are recorded; `None`: the configuration has no `[audit]` section.
    pub trail: Option<Trail>,
    /// What counts as an anomaly.
    pub watch: Watch,
    /// What requests to key services cost; `None`: nobody has said.
    pub prices: Option<Prices>,
    /// Where the KEKs that are files lie.
    pub places: BTreeMap<KekAlias, KekPlace>,
}

impl Evidence {
    /// The keys that had been made by the time of the report, and those that nobody vouches for, whose time may be anything.
    pub(crate) fn made(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(|key| key.record.created_at() <= self.at || key.verified == Some(false))
    }

    /// When the first of them was made.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.made().map(|key| key.record.created_at()).min()
    }

    /// Takes the next line of the audit files, without its line feed, in any order of files. Does nothing without a [`trail`](Self::trail).
    pub fn read_line(&mut self, line: &[u8]) {
        if let Some(trail) = &mut self.trail {
            trail.counts.add(line, self.at, &self.watch);
        }
    }
}

/// How far a KEK that is a file is from the key records that it opens: the store, its journals.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum KekPlace {
    /// In the folder of a file with key records.
    SameFolder,
    /// On the file system of such a file.
    SameFileSystem,
    /// On a file system without key records, which may be in a database server.
    Apart,
    /// The file is not here.
    Missing,
}

/// The file that remembers how far a keyring has come, so that an older copy of its store is noticed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HighWaterFile {
    /// The configuration names none.
    NotSet,
    /// It is there.
    There,
    /// The configuration names one that is not there.
    Missing,
}

impl HighWaterFile {
    /// The same for people.
    pub(crate) const fn sentence(self) -> &'static str {
        match self {
            Self::NotSet => "not set: an older copy of the store would not be noticed",
            Self::There => "there",
            Self::Missing => {
                "MISSING on this machine: an older copy of the store would not be noticed. Unless the machine is new, find out where it went; \
                 this report has not made it anew, but the next command that opens the keyring does"
            }
        }
    }
}

/// A service, as its configuration describes it.
pub struct Service {
    /// Its name: `actor` of its `[audit]` section, or the name of the keyring.
    pub name: String,
    /// Its configuration, with the fields of its policies.
    pub config: Config,
    /// What these are known by; `None`: they are of no file.
    pub digests: Option<Digests>,
}

/// What the configuration of a service and its policies are known by.
#[derive(Clone, Debug, Serialize)]
pub struct Digests {
    /// The SHA-256 of all of them together, in hexadecimal: what the audit trail has of a keyring that is opened with them.
    pub configuration_sha256: String,
    /// Those of each file, the configuration first.
    pub files: Vec<FileDigest>,
}

/// A file and its SHA-256.
#[derive(Clone, Debug, Serialize)]
pub struct FileDigest {
    /// Its name, as it was given.
    pub file: String,
    /// The digest, in hexadecimal.
    pub sha256: String,
}

impl Service {
    /// The service of a configuration that is of no file.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let actor = config.audit.as_ref().and_then(|audit| audit.actor.clone());
        Self { name: actor.unwrap_or_else(|| config.keyring.name.clone()), config, digests: None }
    }
}

/// A key record, and whether a trusted root vouches for it.
pub struct Key {
    /// The record.
    pub record: Record,
    /// `None`: nobody has looked.
    pub verified: Option<bool>,
}

/// The audit files, in numbers, and what their verification said.
pub struct Trail {
    /// What is wrong with them.
    pub(crate) verification: keyfold_audit::Report,
    /// Audit KEKs under which whoever runs a service could forge chains.
    pub(crate) forgeable: Vec<String>,
    pub(crate) counts: Counts,
}

impl Trail {
    /// A trail whose lines [`Evidence::read_line`] takes next.
    #[must_use]
    pub fn new(verification: keyfold_audit::Report, forgeable: Vec<String>) -> Self {
        Self { verification, forgeable, counts: Counts::default() }
    }
}

/// What counts as an anomaly.
pub struct Watch {
    /// When values are usually opened and keys changed; `None`: at any time.
    pub hours: Option<Hours>,
    /// An hour in which one actor opens more than so many times as many values of a field, or of all, as in a median hour before is a burst;
    /// for who is not known for long that of others, if it is less.
    pub burst: u32,
    /// Most values of a field that an actor opens in an hour where nobody can say what is usual.
    pub unknown_max: u64,
}
