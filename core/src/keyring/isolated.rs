//! Isolated scopes (DESIGN K1): their keys are wrapped by KEKs of their own instead of the root, which only vouches for
//! their records. Opening one takes a request to the key service, so each use shows in the provider's log.

use super::create::Keks;
use super::{Keyring, KeyringConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::kms::KekAlias;
use crate::record::{KeyState, Record};
use crate::store::Slot;
use std::collections::BTreeSet;

impl Keyring {
    /// The KEKs that are to wrap the next key of `slot`, whose scope has the keyed name `tag`: those that the
    /// configuration names, or those of its newest key, `head`. `None`: the root wraps it.
    pub(super) async fn isolation(
        &self,
        slot: Slot,
        tag: Option<[u8; 32]>,
        head: Option<&Record>,
    ) -> Result<Option<Keks>> {
        let configured = self.configured();
        let mut aliases = None;
        if let Some(tag) = tag {
            for (name, keks) in &configured.keyring.isolated {
                if self.scope_tag(name).await? == tag {
                    aliases = Some(keks.clone());
                }
            }
        }
        if aliases.is_none()
            && let Some(head) = head.filter(|head| head.is_isolated())
        {
            aliases = Some(self.wrapping_keks(slot, head).await?);
        }
        let Some(aliases) = aliases else { return Ok(None) };
        let compromised = &configured.keyring.keks.compromised;
        let of = |alias: KekAlias| {
            let kek = configured.keks.get(&alias).cloned().ok_or_else(|| unknown_kek(&alias))?;
            Ok((alias, kek))
        };
        let keks =
            aliases.into_iter().filter(|alias| !compromised.contains(alias)).map(of).collect::<Result<Keks>>()?;
        if keks.is_empty() {
            return Err(Error::new(
                ErrorKind::PolicyRefused,
                "every KEK of the isolated scope is compromised: name another",
            ));
        }
        Ok(Some(keks))
    }

    /// The KEKs of `head`, an isolated key of `slot`; if it is a tombstone, those of the newest key that is none.
    async fn wrapping_keks(&self, slot: Slot, head: &Record) -> Result<Vec<KekAlias>> {
        let aliases = |record: &Record| record.kek_aliases().cloned().collect::<Vec<_>>();
        if head.state() != KeyState::Destroyed {
            return Ok(aliases(head));
        }
        for record in self.newest(slot, usize::MAX).await? {
            if record.state() != KeyState::Destroyed {
                self.verify(&record).await?;
                return Ok(aliases(&record));
            }
        }
        Err(Error::new(
            ErrorKind::Configuration,
            "every key of the isolated scope is destroyed: its KEKs must be named in its [scopes] section",
        ))
    }

    /// Whether the configuration wants other KEKs for the scope of `record` than those that wrap it.
    pub(super) async fn is_misplaced(&self, record: &Record) -> Result<bool> {
        if self.configured().keyring.isolated.is_empty() {
            return Ok(false);
        }
        let wanted = self.isolation(record.slot(), record.scope_tag(), Some(record)).await?;
        let needed = |wanted: &Keks| self.configured().keyring.keks.needed(wanted.len());
        Ok(wanted.is_some_and(|wanted| {
            let by: BTreeSet<_> = record.kek_aliases().collect();
            // What a quorum lacks is repaired, not replaced.
            let enough = by.len() >= needed(&wanted) && by.iter().all(|alias| wanted.contains_key(*alias));
            !record.is_isolated() || !enough
        }))
    }
}

/// Refuses a configuration whose scopes name KEKs that it does not have, or whose roots have none.
pub(super) fn check_keks(config: &KeyringConfig, keks: &Keks) -> Result<()> {
    let named = config.isolated.values().flatten().chain(&config.scope_keks);
    if let Some(missing) = named.into_iter().find(|alias| !keks.contains_key(*alias)) {
        return Err(unknown_kek(missing));
    }
    if config.isolated.values().any(Vec::is_empty) {
        return Err(Error::new(ErrorKind::Configuration, "an isolated scope needs at least one KEK"));
    }
    if keks.keys().all(|alias| config.scope_keks.contains(alias)) {
        return Err(Error::new(ErrorKind::Configuration, "every KEK is reserved for scopes, and none wraps the root"));
    }
    Ok(())
}

fn unknown_kek(alias: &KekAlias) -> Error {
    Error::new(ErrorKind::Configuration, "a scope names a KEK that is not configured").with_detail(alias.as_str())
}
