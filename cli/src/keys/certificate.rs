//! Certificates of shredding: what was destroyed, and where bytes of it may still be (docs/SHREDDING.md).

use super::time;
use crate::failure::{Exit, Failure};
use keyfold::config::Config;
use keyfold::wire::Suite;
use keyfold::{CachePolicy, Error, ErrorKind, FieldMode, FieldPolicy, Remainder, Shredded};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use std::path::Path;
use std::sync::Arc;

const VERSION: u32 = 1;
/// What a certificate is called as a statement.
const KIND: &str = "shred-certificate";
/// Mark of a certificate that nobody signed.
const UNSIGNED: &str = "unsigned";
/// Longest file that is read as one.
pub(super) const MAX_LEN: u64 = 16 * 1024 * 1024;

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Certificate {
    version: u32,
    pub(super) lineage: String,
    pub(super) environment: String,
    /// The scope: never its name.
    pub(super) slot: String,
    pub(super) keys: Vec<DestroyedKey>,
    pub(super) destroyed_at: u64,
    /// When this certificate was made, by the store's clock.
    issued_at: u64,
    pub(super) complete: bool,
    /// Whether a legal hold was in force when the keys were destroyed: never.
    legal_hold: bool,
    /// Whether KEKs of its own wrapped every key of the scope.
    isolated: bool,
    pub(super) places: Vec<Place>,
    caches: Caches,
    look_up_fields: Vec<LookUpField>,
    frames: Option<Frames>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct DestroyedKey {
    pub(super) key_id: String,
    destroyed_at: u64,
}

/// A place that held bytes of the keys.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Place {
    /// `backup NAME`, `archive NAME`, `caches`, or in the store's words.
    pub(super) place: String,
    pub(super) state: State,
    /// How it is known, or what has to be done.
    how: String,
    /// When it was confirmed, in seconds since 1970 by the store's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<u64>,
    /// What the store needs to know when it is asked again.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    mark: String,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Confirmed,
    Pending,
}

/// Until when other processes may have had the keys in memory.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Caches {
    gone_by: u64,
    max_age_seconds: u64,
    grace_seconds: u64,
    clock: String,
}

/// A field whose values are under a key of a partition, not of the scope: they are deleted, not shredded.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct LookUpField {
    field: String,
    columns: Vec<String>,
    paths: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Frames {
    fields: Vec<String>,
    warning: String,
}

const FRAMES: &str = "values of the scope may have travelled in frames, which bring their key records: a frame that is left \
                      somewhere opens for a reader whose store lacks the tombstone and who has the KEK; delete such frames";
const BACKUP: &str = "backup ";
const ARCHIVE: &str = "archive ";
const CACHES: &str = "caches";
const WORD: &str = "the operator's word";

impl Certificate {
    pub(super) fn new(shredded: &Shredded, config: &Config, now: u64) -> Self {
        let keyring = &config.keyring;
        let key = |record: &keyfold::Record| DestroyedKey {
            key_id: record.key_id().to_string(),
            destroyed_at: record.changed_at(),
        };
        let fields = || keyring.policy.fields();
        let look_up = |field: &&Arc<FieldPolicy>| matches!(field.mode, FieldMode::Deterministic { .. });
        let framed = |field: &&Arc<FieldPolicy>| field.accepted_suites.contains(&Suite::Frame);
        let framed: Vec<_> = fields().filter(framed).map(|field| field.name.clone()).collect();
        let declared = |kind: &str, names: &[String]| {
            let place = |name: &String| Place {
                place: format!("{kind}{name}"),
                state: State::Pending,
                how: "declared in [shred]: destroy what is older than this, then confirm".to_owned(),
                at: None,
                mark: String::new(),
            };
            names.iter().map(place).collect::<Vec<_>>()
        };
        let CachePolicy { max_age, grace, .. } = keyring.cache;
        let mut places: Vec<_> = shredded.remainders.iter().map(|remainder| Place::of(remainder, now)).collect();
        places.extend(declared(BACKUP, &config.backups));
        places.extend(declared(ARCHIVE, &config.archives));
        let (max_age, grace) = (max_age.as_secs(), grace.as_secs());
        let gone_by = shredded.destroyed_at.saturating_add(max_age).saturating_add(grace);
        places.push(Place {
            place: CACHES.to_owned(),
            state: State::Pending,
            how: "other processes forget the keys by then".to_owned(),
            at: None,
            mark: String::new(),
        });
        let mut certificate = Self {
            version: VERSION,
            lineage: keyring.lineage.to_string(),
            environment: keyring.environment.clone(),
            slot: shredded.slot.to_string(),
            keys: shredded.keys.iter().map(key).collect(),
            destroyed_at: shredded.destroyed_at,
            issued_at: now,
            complete: false,
            legal_hold: false,
            isolated: shredded.isolated,
            places,
            caches: Caches {
                gone_by,
                max_age_seconds: max_age,
                grace_seconds: grace,
                clock: "the store's; by the [cache] of this configuration".to_owned(),
            },
            look_up_fields: fields()
                .filter(look_up)
                .map(|field| LookUpField {
                    field: field.name.clone(),
                    columns: field.columns.clone(),
                    paths: field.paths.clone(),
                })
                .collect(),
            frames: (!framed.is_empty() && !shredded.isolated)
                .then(|| Frames { fields: framed, warning: FRAMES.to_owned() }),
        };
        certificate.close(now);
        certificate
    }

    /// The places of the store that are pending, to ask it again.
    pub(super) fn pending(&self) -> Vec<Remainder> {
        let of_store = |place: &&Place| {
            let others = place.place == CACHES || place.place.starts_with(BACKUP) || place.place.starts_with(ARCHIVE);
            place.state == State::Pending && !others
        };
        let remainder = |place: &Place| Remainder {
            place: place.place.clone(),
            gone: false,
            detail: place.how.clone(),
            mark: place.mark.clone(),
        };
        self.places.iter().filter(of_store).map(remainder).collect()
    }

    /// Takes up what the store says now.
    pub(super) fn update(&mut self, remainders: &[Remainder], now: u64) {
        for remainder in remainders {
            let known = self.places.iter_mut().find(|place| place.place == remainder.place);
            if let Some(place) = known.filter(|place| place.state == State::Pending) {
                *place = Place::of(remainder, now);
            }
        }
    }

    /// Takes the operator's word for places, backups and archives.
    pub(super) fn take_word(&mut self, [places, backups, archives]: [&[String]; 3], now: u64) -> Result<(), Failure> {
        let named = |kind: &'static str, names: &[String]| {
            names.iter().map(move |name| format!("{kind}{name}")).collect::<Vec<_>>()
        };
        let all = [named("", places), named(BACKUP, backups), named(ARCHIVE, archives)].concat();
        for name in all {
            let known = self.places.iter_mut().find(|place| place.place == name && name != CACHES);
            let place = known.ok_or_else(|| Failure::new(Exit::Usage, format!("the certificate names no {name:?}")))?;
            if place.state == State::Pending {
                place.state = State::Confirmed;
                place.how = WORD.to_owned();
                place.at = Some(now);
            }
        }
        Ok(())
    }

    /// Sees what time alone confirms, and whether anything is pending.
    pub(super) fn close(&mut self, now: u64) {
        let gone_by = self.caches.gone_by;
        if let Some(caches) = self.places.iter_mut().find(|place| place.place == CACHES && now >= gone_by) {
            if caches.state == State::Pending {
                caches.at = Some(now);
            }
            caches.state = State::Confirmed;
            caches.how = "max_age and grace have passed since the keys were destroyed".to_owned();
        }
        self.issued_at = now;
        self.complete = self.places.iter().all(|place| place.state == State::Confirmed);
    }

    pub(super) fn json(&self) -> Result<Json, Failure> {
        serde_json::to_value(self).map_err(|error| Failure::new(Exit::Internal, format!("no certificate: {error}")))
    }

    /// The text of the file: signed under the audit KEK, or saying that it is not.
    pub(super) fn text(&self, config: &Path) -> Result<String, Failure> {
        let body = self.json()?;
        match keyfold_open::sign_statement(config, KIND, &body) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == ErrorKind::Configuration => {
                tracing::warn!("the certificate is not signed: {error}");
                Ok(format!("{:#}\n", json!({ UNSIGNED: true, "certificate": body })))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a certificate. One that is signed must verify.
    pub(super) fn parse(text: &str, config: &Path) -> Result<Self, Failure> {
        let wrong = |error: serde_json::Error| {
            Failure::new(
                Exit::Data,
                format!("not a certificate of shredding: line {}, column {}", error.line(), error.column()),
            )
        };
        let unsigned = serde_json::from_str::<Json>(text).ok().filter(|json| json[UNSIGNED] == true);
        let body = match unsigned {
            Some(mut json) => json["certificate"].take(),
            None => keyfold_open::verify_statement(config, KIND, text)?,
        };
        let certificate: Self = serde_json::from_value(body).map_err(wrong)?;
        if certificate.version != VERSION {
            return Err(Error::new(ErrorKind::Unsupported, "the certificate was written by a newer keyfold").into());
        }
        Ok(certificate)
    }

    /// What people read.
    pub(super) fn summary(&self) -> String {
        let mut text = format!("scope {}: {} keys are destroyed", self.slot, self.keys.len());
        for place in &self.places {
            let state = if place.state == State::Confirmed { "gone" } else { "PENDING" };
            text.push_str(&format!("\n  {}: {state}: {}", place.place, place.how));
        }
        text.push_str(&format!("\n  caches are gone by {} by the store's clock", time(self.caches.gone_by)));
        for field in &self.look_up_fields {
            let columns = field.columns.iter().chain(&field.paths).cloned().collect::<Vec<_>>().join(", ");
            text.push_str(&format!("\n  delete the values of the look-up field {} ({columns}) yourself", field.field));
        }
        if let Some(frames) = &self.frames {
            text.push_str(&format!("\n  {}: {}", frames.fields.join(", "), frames.warning));
        }
        text.push_str(if self.complete {
            "\nnothing is pending"
        } else {
            "\nthe certificate is pending: `keyfold keys shred --confirm FILE --certificate NEXT` looks again"
        });
        text
    }
}

impl Place {
    fn of(remainder: &Remainder, now: u64) -> Self {
        Self {
            place: remainder.place.clone(),
            state: if remainder.gone { State::Confirmed } else { State::Pending },
            how: remainder.detail.clone(),
            at: remainder.gone.then_some(now),
            mark: remainder.mark.clone(),
        }
    }
}
