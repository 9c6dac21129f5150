//! What a report is made from.

use crate::cost::Prices;
use crate::hours::Hours;
use keyfold::Record;
use keyfold::config::Config;
use keyfold_audit::AuditText;

/// What there is to be seen of a keyring. Holds no key and no value.
pub struct Evidence {
    /// When the report is made, in seconds since 1970: ages are counted up to here, and nothing later is looked at.
    pub at: u64,
    /// Who uses the keyring, each with its configuration and policies. The first is the one whose keys and trail are reported on.
    pub services: Vec<Service>,
    /// The key records of the store.
    pub keys: Vec<Key>,
    /// Where keyrings are recorded; `None`: the configuration has no `[audit]` section.
    pub trail: Option<Trail>,
    /// What counts as an anomaly.
    pub watch: Watch,
    /// What requests to key services cost.
    pub prices: Prices,
}

/// A service, as its configuration describes it.
pub struct Service {
    /// Its name: `actor` of its `[audit]` section, or the name of the keyring.
    pub name: String,
    /// Its configuration, with the fields of its policies.
    pub config: Config,
}

impl Service {
    /// The service of a configuration.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let actor = config.audit.as_ref().and_then(|audit| audit.actor.clone());
        Self { name: actor.unwrap_or_else(|| config.keyring.name.clone()), config }
    }
}

/// A key record, and whether a trusted root vouches for it.
pub struct Key {
    /// The record.
    pub record: Record,
    /// `None`: nobody has looked.
    pub verified: Option<bool>,
}

/// The audit files, and what their verification said.
pub struct Trail {
    /// The files, oldest first.
    pub files: Vec<AuditText>,
    /// What is wrong with them.
    pub verification: keyfold_audit::Report,
    /// Audit KEKs under which whoever runs a service could forge chains.
    pub forgeable: Vec<String>,
}

/// What counts as an anomaly.
pub struct Watch {
    /// When values are usually opened and keys changed; `None`: at any time.
    pub hours: Option<Hours>,
    /// An hour in which one actor opens more than so many times as many values of a field as in his median hour is a burst.
    pub burst: u32,
}
