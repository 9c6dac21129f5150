//! Certificates of shredding: what was destroyed, and where bytes of it may still be (docs/SHREDDING.md).

use super::time;
use crate::failure::{Exit, Failure};
use keyfold::config::Config;
use keyfold::wire::Suite;
use keyfold::{
    CachePolicy, Error, ErrorKind, FieldMode, KeyState, Keyring, KeyringConfig, Record, Remainder, Shredded, SlotId,
};
use keyfold_open::Records;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::path::Path;

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
    lineage: String,
    environment: String,
    /// The scope: never its name.
    slot: String,
    keys: Vec<DestroyedKey>,
    destroyed_at: u64,
    /// When this certificate was made, by the store's clock.
    issued_at: u64,
    complete: bool,
    /// Whether a legal hold was in force when the keys were destroyed: never.
    legal_hold: bool,
    /// Whether KEKs of its own wrapped every key of the scope.
    isolated: bool,
    places: Vec<Place>,
    caches: Caches,
    /// `None`: not known, since no policy was given.
    look_up_fields: Option<Vec<LookUpField>>,
    /// Likewise.
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
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    segments: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Frames {
    fields: Vec<String>,
    warning: String,
}

const NO_FRAMES: &str = "no field accepts them, or the scope was isolated";
const NO_FIELDS: &str = "not known: `--confirm` with the policy (--policy) names them";
const FRAMES: &str = "values of the scope may have travelled in frames, which bring their key records: a frame that is left \
                      somewhere opens for a reader whose store lacks the tombstone and who has the KEK; delete such frames";
const BACKUP: &str = "backup ";
const ARCHIVE: &str = "archive ";
const CACHES: &str = "caches";
const WORD: &str = "the operator's word";

impl Certificate {
    pub(super) fn new(shredded: &Shredded, records: &Records, now: u64) -> Self {
        let keyring = &records.config.keyring;
        let mut certificate = Self {
            version: VERSION,
            lineage: keyring.lineage.to_string(),
            environment: keyring.environment.clone(),
            slot: shredded.slot.to_string(),
            keys: shredded.keys.iter().map(DestroyedKey::of).collect(),
            destroyed_at: shredded.destroyed_at,
            issued_at: now,
            complete: false,
            legal_hold: false,
            isolated: shredded.isolated,
            places: shredded.remainders.iter().map(|remainder| Place::of(remainder, now)).collect(),
            caches: Caches {
                gone_by: 0,
                max_age_seconds: 0,
                grace_seconds: 0,
                clock: "the store's; by the [cache] of this configuration".to_owned(),
            },
            look_up_fields: None,
            frames: None,
        };
        certificate.expect(records);
        certificate.close(now);
        certificate
    }

    /// The scope.
    pub(super) fn slot(&self) -> Result<SlotId, Failure> {
        let bytes = u128::from_str_radix(&self.slot, 16).ok().filter(|_| self.slot.len() == 32);
        let bytes = bytes.ok_or_else(|| Failure::new(Exit::Data, "the certificate names no scope"))?;
        Ok(SlotId::from_bytes(bytes.to_be_bytes()))
    }

    /// Holds what was read to the keyring: `found` are all keys of the scope. Nothing that the store knows is believed.
    pub(super) fn hold_to(&mut self, found: &[Record], records: &Records) -> Result<(), Failure> {
        let keyring = &records.config.keyring;
        if self.lineage != keyring.lineage.to_string() || self.environment != keyring.environment {
            return Err(Failure::new(Exit::Data, "the certificate is about another keyring"));
        }
        let named: BTreeSet<_> = self.keys.iter().map(|key| key.key_id.as_str()).collect();
        let (tombstones, others): (Vec<_>, Vec<_>) = found.iter().partition(|record| {
            record.state() == KeyState::Destroyed && named.contains(record.key_id().to_string().as_str())
        });
        let shown: BTreeSet<_> = tombstones.iter().map(|record| record.key_id().to_string()).collect();
        if let Some(key_id) = named.iter().find(|key_id| !shown.contains(**key_id)) {
            let why = "the store does not show the key as destroyed, or not in this scope: was it rolled back? \
                       `keyfold keys restore` helps";
            return Err(Failure::new(Exit::Key, format!("{key_id}: {why}")));
        }
        let destroyed_at = tombstones.iter().map(|record| record.changed_at()).max();
        let destroyed_at = destroyed_at.ok_or_else(|| Failure::new(Exit::Data, "the certificate names no key"))?;
        // Somebody may have wanted the scope back, afterwards.
        let newest = tombstones.iter().map(|record| record.key_id()).max();
        let belongs = |record: &&&Record| {
            Some(record.key_id()) < newest
                || record.created_at() < self.destroyed_at
                || (record.state() == KeyState::Destroyed && record.changed_at() <= self.destroyed_at)
        };
        if let Some(other) = others.iter().find(belongs) {
            let why = "the certificate does not name this key of the scope";
            return Err(Failure::new(Exit::Data, format!("{}: {why}", other.key_id())));
        }
        self.keys = tombstones.iter().map(|record| DestroyedKey::of(record)).collect();
        self.destroyed_at = destroyed_at;
        self.isolated = tombstones.iter().all(|record| record.is_isolated());
        self.legal_hold = false;
        self.expect(records);
        Ok(())
    }

    /// Adds what this configuration knows: places, pending, how long caches keep keys, and fields.
    fn expect(&mut self, records: &Records) {
        let config = &records.config;
        let named = |kind: &'static str, names: &[String]| {
            let how = "declared in [shred]: destroy what is older than this, then confirm";
            names.iter().map(move |name| (format!("{kind}{name}"), how)).collect::<Vec<_>>()
        };
        let of_store = records.ring.places().into_iter().map(|place| (place, "not asked yet"));
        let caches = (CACHES.to_owned(), "other processes forget the keys by then");
        let declared = [named(BACKUP, &config.backups), named(ARCHIVE, &config.archives)].concat();
        for (place, how) in of_store.chain(declared).chain([caches]) {
            if !self.places.iter().any(|known| known.place == place) {
                self.places.push(Place {
                    place,
                    state: State::Pending,
                    how: how.to_owned(),
                    at: None,
                    mark: String::new(),
                });
            }
        }
        let CachePolicy { max_age, grace, .. } = config.keyring.cache;
        let caches = &mut self.caches;
        caches.max_age_seconds = caches.max_age_seconds.max(max_age.as_secs());
        caches.grace_seconds = caches.grace_seconds.max(grace.as_secs());
        caches.gone_by = self.destroyed_at.saturating_add(caches.max_age_seconds).saturating_add(caches.grace_seconds);
        self.name_fields(&config.keyring);
    }

    /// Names look-up fields and frames, beside those that are named already. Without a field nothing is known.
    fn name_fields(&mut self, keyring: &KeyringConfig) {
        let fields: Vec<_> = keyring.policy.fields().collect();
        if fields.is_empty() {
            return;
        }
        let look_up = self.look_up_fields.get_or_insert_default();
        let framed = &mut self.frames.get_or_insert_default().fields;
        for field in fields {
            // What is sealed under the scope's keys goes with them; what partitions made stays.
            let stays = !matches!(field.mode, FieldMode::Randomized | FieldMode::Stream | FieldMode::Document);
            let own = if stays { field.columns.clone() } else { Vec::new() };
            let columns: Vec<String> =
                own.into_iter().chain(field.indexes.iter().filter_map(|index| index.column.clone())).collect();
            if (stays || !field.indexes.is_empty()) && !look_up.iter().any(|known| known.field == field.name) {
                look_up.push(LookUpField {
                    field: field.name.clone(),
                    columns,
                    paths: if stays { field.paths.clone() } else { Vec::new() },
                    segments: if stays { field.segments.clone() } else { Vec::new() },
                });
            }
            let travels = field.accepted_suites.contains(&Suite::Frame) && !self.isolated;
            if travels && !framed.contains(&field.name) {
                framed.push(field.name.clone());
            }
        }
        if let Some(frames) = &mut self.frames {
            frames.warning = if frames.fields.is_empty() { NO_FRAMES } else { FRAMES }.to_owned();
        }
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

    /// Takes the operator's word for places, backups and archives. Returns those.
    pub(super) fn take_word(
        &mut self,
        [places, backups, archives]: [&[String]; 3],
        now: u64,
    ) -> Result<Vec<String>, Failure> {
        let named = |kind: &'static str, names: &[String]| {
            names.iter().map(move |name| format!("{kind}{name}")).collect::<Vec<_>>()
        };
        let all = [named("", places), named(BACKUP, backups), named(ARCHIVE, archives)].concat();
        for name in &all {
            let known = self.places.iter_mut().find(|place| place.place == *name && name != CACHES);
            let place = known.ok_or_else(|| Failure::new(Exit::Usage, format!("the certificate names no {name:?}")))?;
            if place.state == State::Pending {
                place.state = State::Confirmed;
                place.how = WORD.to_owned();
                place.at = Some(now);
            }
        }
        Ok(all)
    }

    /// Sees what time alone confirms, and whether anything is pending.
    pub(super) fn close(&mut self, now: u64) {
        let gone = now >= self.caches.gone_by;
        if let Some(caches) = self.places.iter_mut().find(|place| place.place == CACHES) {
            *caches = if !gone {
                Place { state: State::Pending, at: None, ..caches.clone() }
            } else {
                Place {
                    state: State::Confirmed,
                    how: "max_age and grace have passed since the keys were destroyed".to_owned(),
                    at: caches.at.or(Some(now)),
                    ..caches.clone()
                }
            };
        }
        self.issued_at = now;
        self.complete = self.number_pending() == 0;
    }

    pub(super) fn number_pending(&self) -> usize {
        self.places.iter().filter(|place| place.state == State::Pending).count()
    }

    pub(super) fn json(&self) -> Result<Json, Failure> {
        serde_json::to_value(self).map_err(|error| Failure::new(Exit::Internal, format!("no certificate: {error}")))
    }

    /// The text of the file: signed under the audit KEK, or saying that it is not.
    pub(super) fn text(&self, ring: &Keyring, config: &Path) -> Result<String, Failure> {
        let body = self.json()?;
        Ok(keyfold_open::sign_statement(ring, config, KIND, &body)?
            .unwrap_or_else(|| format!("{:#}\n", json!({ UNSIGNED: true, "certificate": body }))))
    }

    /// Reads a certificate. One that is signed must verify, and one that is not counts only where none is.
    pub(super) fn parse(text: &str, path: &Path, config: &Config) -> Result<Self, Failure> {
        let wrong = |error: serde_json::Error| {
            Failure::new(
                Exit::Data,
                format!("not a certificate of shredding: line {}, column {}", error.line(), error.column()),
            )
        };
        let unsigned = serde_json::from_str::<Json>(text).ok().filter(|json| json[UNSIGNED] == true);
        let body = match unsigned {
            Some(_) if config.audit.is_some() => {
                let why = "the certificate is not signed, and this configuration signs them: `keys shred --finish` makes a \
                           signed one, also where the keys are destroyed already";
                return Err(Error::new(ErrorKind::PolicyRefused, why).into());
            }
            Some(mut json) => json["certificate"].take(),
            None => keyfold_open::verify_statement(path, KIND, text)?,
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
        for field in self.look_up_fields.iter().flatten() {
            let places = [&field.columns[..], &field.paths, &field.segments].concat().join(", ");
            text.push_str(&format!("\n  delete the values of the look-up field {} ({places}) yourself", field.field));
        }
        match &self.frames {
            None => text.push_str(&format!("\n  look-up fields and frames: {NO_FIELDS}")),
            Some(frames) if frames.fields.is_empty() => {}
            Some(frames) => text.push_str(&format!("\n  {}: {}", frames.fields.join(", "), frames.warning)),
        }
        text.push_str(if self.complete {
            "\nnothing is pending"
        } else {
            "\nthe certificate is pending: `keyfold keys shred --confirm FILE --certificate NEXT` looks again"
        });
        text
    }
}

impl DestroyedKey {
    fn of(record: &Record) -> Self {
        Self { key_id: record.key_id().to_string(), destroyed_at: record.changed_at() }
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
