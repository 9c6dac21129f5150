//! `[keks.ALIAS]`, `[recovery]` and `quorum`: which KEKs there are, and how they are used.

use super::position::{Origin, Spanned};
use super::{Config, duration};
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::{KekUse, Recovery};
use crate::kms::KekAlias;
use serde::Deserialize;

/// Longest deadline of a KEK, in seconds.
const MAX_DEADLINE: u64 = 300;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KekToml {
    uri: String,
    #[serde(default)]
    wraps: WrapsToml,
    #[serde(default, rename = "use")]
    use_: UseToml,
    #[serde(default)]
    compromised: bool,
    #[serde(default)]
    retired: bool,
    deadline: Option<Spanned<String>>,
}

/// What a KEK wraps.
#[derive(Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum WrapsToml {
    /// The root keys, and the isolated scopes that name it.
    #[default]
    Roots,
    /// The isolated scopes that name it, and nothing else.
    Scopes,
    /// The first keys of audit chains, and nothing else. The right to encrypt is enough for who records.
    Audit,
}

/// When a KEK is asked.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum UseToml {
    #[default]
    Always,
    Recovery,
    BreakGlass,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecoveryToml {
    on: bool,
    reason: Option<String>,
}

impl RecoveryToml {
    pub(super) fn to_policy(&self) -> Result<Option<Recovery>> {
        let recovery = self.reason.as_deref().map_or(Ok(Recovery::default()), Recovery::with_reason)?;
        Ok(self.on.then_some(recovery))
    }
}

impl Config {
    /// Refuses a KEK that another alias stands for already: it would count as two.
    pub(super) fn check_uri(&self, alias: &KekAlias, kek: &KekToml) -> Result<()> {
        let same = |(_, uri): &(&KekAlias, &String)| **uri == kek.uri;
        match self.keks.iter().find(same).filter(|_| kek.wraps != WrapsToml::Audit) {
            None => Ok(()),
            Some((other, _)) => Err(Error::new(
                ErrorKind::Configuration,
                "two aliases have the same URI, and one KEK would count as two",
            )
            .with_detail(format!("{other}, {alias}"))),
        }
    }

    pub(super) fn add_kek(&mut self, origin: &Origin<'_>, alias: KekAlias, kek: KekToml) -> Result<()> {
        if let Some(deadline) = &kek.deadline {
            let deadline = origin.at(deadline, |text| {
                let deadline = duration::parse(text)?;
                if !(1..=MAX_DEADLINE).contains(&deadline.as_secs()) {
                    return Err(Error::new(ErrorKind::Configuration, "the deadline of a KEK is 1 second to 5 minutes"));
                }
                Ok(deadline)
            })?;
            self.deadlines.insert(alias.clone(), deadline);
        }
        if kek.wraps == WrapsToml::Audit {
            self.audit_keks.insert(alias, kek.uri);
            return Ok(());
        }
        let use_ = match kek.use_ {
            UseToml::Always => KekUse::Always,
            UseToml::Recovery => KekUse::Recovery,
            UseToml::BreakGlass => KekUse::BreakGlass,
        };
        if use_ != KekUse::Always {
            self.keyring.keks.uses.insert(alias.clone(), use_);
        }
        if kek.compromised {
            self.keyring.keks.compromised.insert(alias.clone());
        }
        if kek.retired {
            self.keyring.keks.retired.insert(alias.clone());
        }
        if kek.wraps == WrapsToml::Scopes {
            self.keyring.scope_keks.insert(alias.clone());
        }
        self.keks.insert(alias, kek.uri);
        Ok(())
    }

    /// Takes the quorum, once all KEKs are known.
    pub(super) fn set_quorum(&mut self, origin: &Origin<'_>, quorum: Option<&Spanned<usize>>) -> Result<()> {
        let Some(quorum) = quorum else { return Ok(()) };
        let policy = &self.keyring.keks;
        let is_out = |alias: &KekAlias| policy.compromised.contains(alias) || policy.retired.contains(alias);
        let wraps = |alias: &&KekAlias| !self.keyring.scope_keks.contains(*alias) && !is_out(alias);
        let most = self.keks.keys().filter(wraps).count();
        self.keyring.keks.quorum = origin.at(quorum, |quorum| {
            if (1..=most).contains(quorum) {
                return Ok(Some(*quorum));
            }
            Err(Error::new(
                ErrorKind::Configuration,
                "the quorum is 1 to the number of KEKs that wrap roots and are neither compromised nor retired",
            )
            .with_detail(format!("{quorum} of {most}")))
        })?;
        Ok(())
    }
}
