//! `[audit]`: from the file to an [`AuditConfig`].

use super::duration::parse;
use super::position::{Origin, Spanned};
use super::size::SizeToml;
use crate::error::{Error, ErrorKind, Result};
use crate::kms::KekAlias;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Shortest and longest time between two records of how often keys were used.
const INTERVAL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60 * 60);
/// Shortest and longest time between two anchors.
const ANCHOR_INTERVAL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
/// Least bytes after which an audit file is put aside: a line may have 16 KiB.
const MIN_SIZE: usize = 64 * 1024;
const MAX_ANCHOR_EVERY: u64 = 1_000_000;
const MAX_ACTOR_LEN: usize = 128;

/// Where events are recorded, and how.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// The audit file; relative to the configuration file.
    pub file: String,
    /// The KEK that wraps the first keys of chains: one of [`Config::audit_keks`](super::Config::audit_keks).
    pub kek: KekAlias,
    /// What becomes of an operation whose event cannot be recorded.
    pub on_failure: OnAuditFailure,
    /// How often the counts of sealed and opened values are recorded.
    pub interval: Duration,
    /// Bytes after which the file is put aside and another one begun.
    pub max_size: u64,
    /// The file that heads of chains are copied to, on another medium; relative to the configuration file.
    pub anchors: Option<String>,
    /// Most events that no anchor protects.
    pub anchor_every: u64,
    /// Longest time for which an event is not protected by an anchor, while others follow.
    pub anchor_interval: Duration,
    /// Who acts, such as the name of a service; by default the name of the program.
    pub actor: Option<String>,
}

/// What becomes of an operation whose event cannot be recorded, because the disk is full, say.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum OnAuditFailure {
    /// It fails: a key that cannot be seen to be used is not used.
    #[default]
    Refuse,
    /// It goes on, and the next event that is recorded says how many were lost.
    Count,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditToml {
    file: Spanned<String>,
    kek: Spanned<String>,
    #[serde(default)]
    on_failure: OnAuditFailure,
    interval: Option<Spanned<String>>,
    max_size: Option<Spanned<SizeToml>>,
    anchors: Option<Spanned<String>>,
    anchor_every: Option<Spanned<u64>>,
    anchor_interval: Option<Spanned<String>>,
    actor: Option<Spanned<String>>,
}

impl AuditToml {
    /// The configuration: what the file leaves out has its default. `keks` are those that wrap audit chains.
    pub(super) fn to_config(&self, origin: &Origin<'_>, keks: &BTreeMap<KekAlias, String>) -> Result<AuditConfig> {
        let duration = |text: &Option<Spanned<String>>, default, allowed: RangeInclusive<Duration>| {
            let Some(text) = text else { return Ok(default) };
            origin.at(text, |text| parse(text).and_then(|duration| within(duration, &allowed)))
        };
        let max_size = match &self.max_size {
            None => 64 * 1024 * 1024,
            Some(size) => origin.at(size, |size| within(size.bytes()?, &(MIN_SIZE..=usize::MAX)))?,
        };
        let anchor_every = match &self.anchor_every {
            None => 1000,
            Some(count) => origin.at(count, |count| within(*count, &(1..=MAX_ANCHOR_EVERY)))?,
        };
        Ok(AuditConfig {
            file: origin.at(&self.file, |file| named(file))?,
            kek: origin.at(&self.kek, |alias| {
                KekAlias::new(alias).ok().filter(|alias| keks.contains_key(alias)).ok_or_else(|| {
                    Error::new(
                        ErrorKind::Configuration,
                        "there is no [keks] section of this name with wraps = \"audit\"",
                    )
                })
            })?,
            on_failure: self.on_failure,
            interval: duration(&self.interval, Duration::from_secs(60), INTERVAL)?,
            max_size: max_size as u64,
            anchors: self.anchors.as_ref().map(|file| origin.at(file, |file| named(file))).transpose()?,
            anchor_every,
            anchor_interval: duration(&self.anchor_interval, Duration::from_secs(600), ANCHOR_INTERVAL)?,
            actor: self.actor.as_ref().map(|actor| origin.at(actor, |actor| checked_actor(actor))).transpose()?,
        })
    }
}

fn within<T: PartialOrd>(value: T, allowed: &RangeInclusive<T>) -> Result<T> {
    if allowed.contains(&value) {
        return Ok(value);
    }
    Err(Error::new(
        ErrorKind::Configuration,
        "out of bounds: interval is 1s to 1h, anchor_interval 1s to 1d, anchor_every 1 to 1,000,000, max_size 64KiB or more",
    ))
}

fn named(file: &str) -> Result<String> {
    if file.is_empty() { Err(Error::new(ErrorKind::Configuration, "the name of a file")) } else { Ok(file.to_owned()) }
}

fn checked_actor(actor: &str) -> Result<String> {
    if actor.is_empty() || actor.len() > MAX_ACTOR_LEN || actor.chars().any(char::is_control) {
        return Err(Error::new(ErrorKind::Configuration, "an actor is a name of 1 to 128 bytes"));
    }
    Ok(actor.to_owned())
}
