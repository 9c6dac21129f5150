//! What a root key does: vouches for records, wraps and unwraps the keys under it (FORMAT.md §7.3, §7.6).

use super::{KeyState, Record, rejected};
use crate::aead::{Backend, XaesKey};
use crate::error::{Error, ErrorKind, Result};
use crate::keys::{KeyIdentity, KeySchedule, Purpose, Secret, hmac_sha256_erased};
use crate::kms::{KekAlias, WrappedKey};
use crate::random;
use crate::wire::record::{Body, Endorsement, MAX_WRAP_COUNT, ROOT_WRAP_LEN, Wrap};
use crate::wire::{KeyId, NONCE_LEN};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What a new record says beside the key.
pub(crate) struct NewRecord<'a> {
    pub(crate) identity: KeyIdentity,
    pub(crate) scope_tag: Option<[u8; 32]>,
    pub(crate) environment: &'a str,
    pub(crate) state: KeyState,
    pub(crate) now: u64,
}

/// A fresh key that has no record yet.
pub(crate) struct NewKey {
    key: Secret<32>,
    pub(crate) schedule: KeySchedule,
    pub(crate) commitment: [u8; 32],
    pub(crate) key_id: KeyId,
}

impl NewKey {
    pub(crate) fn generate(identity: KeyIdentity) -> Result<Self> {
        let key = random::secret()?;
        let schedule = KeySchedule::new(&key, identity);
        let commitment = schedule.commitment();
        Ok(Self { key, key_id: schedule.key_id(), schedule, commitment })
    }

    /// What a KEK wraps: key ‖ SHA-256(binding).
    pub(crate) fn payload(&self, new: &NewRecord<'_>) -> Secret<64> {
        let binding = kms_binding(&new.identity, &self.commitment, new.environment);
        Secret::with(|payload| {
            payload[..32].copy_from_slice(self.key.expose());
            payload[32..].copy_from_slice(&binding);
        })
    }

    fn body(&self, new: &NewRecord<'_>, authenticator: KeyId, wraps: Vec<Wrap>) -> Body {
        Body {
            class: new.identity.class,
            state: new.state,
            key_id: self.key_id,
            commitment: self.commitment,
            authenticator,
            lineage: new.identity.lineage,
            slot: new.identity.slot,
            scope_tag: new.scope_tag.unwrap_or_default(),
            sequence: 1,
            created_at: new.now,
            activated_at: if new.state == KeyState::Active { new.now } else { 0 },
            changed_at: new.now,
            environment: new.environment.to_owned(),
            wraps,
            endorsement: None,
            extensions: Vec::new(),
        }
    }
}

/// SHA-256(label ‖ identity ‖ commitment ‖ environment), so that every service binds, even one without associated data.
pub(crate) fn kms_binding(identity: &KeyIdentity, commitment: &[u8; 32], environment: &str) -> [u8; 32] {
    Sha256::new()
        .chain_update(b"keyfold/v1/kms-binding")
        .chain_update(identity.encode())
        .chain_update(commitment)
        .chain_update(environment)
        .finalize()
        .into()
}

/// A root key in use: authenticates records, wraps and unwraps the keys under it.
pub(crate) struct RootKey {
    pub(crate) key_id: KeyId,
    record_mac: Secret<32>,
    endorsement: Secret<32>,
    child_wrap: XaesKey,
}

impl RootKey {
    /// Bytes of keys that it holds.
    pub(crate) const HELD_LEN: usize = 2 * Secret::<32>::HELD_LEN + XaesKey::HELD_LEN;

    pub(crate) fn new(backend: Backend, schedule: &KeySchedule) -> Self {
        keyfold_memory::erasing_stack(|| Self {
            key_id: schedule.key_id(),
            record_mac: schedule.expand(Purpose::RecordMac),
            endorsement: schedule.expand(Purpose::Endorsement),
            child_wrap: XaesKey::new(backend, &schedule.expand(Purpose::ChildWrap)),
        })
    }

    pub(crate) fn sign(&self, body: Body) -> Record {
        let mut bytes = body.encode();
        let mac = hmac_sha256_erased(&self.record_mac, &[&bytes]);
        bytes.extend_from_slice(&mac);
        Record { body, bytes }
    }

    /// The record of a new root, wrapped by KEKs. Authenticates itself; trusted where it is pinned or endorsed.
    pub(crate) fn new_root_record(
        &self,
        key: &NewKey,
        new: &NewRecord<'_>,
        wraps: Vec<(KekAlias, WrappedKey)>,
        endorser: Option<&Self>,
    ) -> Record {
        let wraps = wraps.into_iter().map(|(alias, wrapped)| Wrap::Kek { alias, wrapped }).collect();
        let mut body = key.body(new, self.key_id, wraps);
        body.endorsement = endorser.map(|root| root.endorse(&body));
        self.sign(body)
    }

    /// The record of a new key that this root wraps.
    pub(crate) fn new_child_record(&self, key: &NewKey, new: &NewRecord<'_>) -> Result<Record> {
        let wrap = self.wrap_child(&key.key, &new.identity, &key.commitment)?;
        Ok(self.sign(key.body(new, self.key_id, vec![Wrap::Root(wrap)])))
    }

    /// The record of a new key that KEKs wrap and this root only vouches for.
    pub(crate) fn new_isolated_record(
        &self,
        key: &NewKey,
        new: &NewRecord<'_>,
        wraps: Vec<(KekAlias, WrappedKey)>,
    ) -> Record {
        let wraps = wraps.into_iter().map(|(alias, wrapped)| Wrap::Kek { alias, wrapped }).collect();
        let extensions = Body::extension(Body::ISOLATED);
        self.sign(Body { extensions, ..key.body(new, self.key_id, wraps) })
    }

    /// nonce ‖ XAES-256-GCM(child-wrap key, nonce, key, AAD = identity ‖ commitment)
    fn wrap_child(
        &self,
        key: &Secret<32>,
        identity: &KeyIdentity,
        commitment: &[u8; 32],
    ) -> Result<[u8; ROOT_WRAP_LEN]> {
        let mut wrap = [0; ROOT_WRAP_LEN];
        random::fill(&mut wrap[..NONCE_LEN])?;
        let (nonce, sealed) = wrap.split_at_mut(NONCE_LEN);
        let (prefix, last) = nonce.split_first_chunk_mut().expect("the nonce has 24 bytes");
        let last = last.try_into().expect("the nonce has 24 bytes");
        let (body, tag) = sealed.split_at_mut(32);
        body.copy_from_slice(key.expose());
        let aad = child_wrap_aad(identity, commitment);
        tag.copy_from_slice(&self.child_wrap.with_derived(prefix, |key| key.seal(last, &aad, body))?);
        Ok(wrap)
    }

    /// The record that follows `record`, of a key under `old`, with this root in its place: the same key, wrapped by this
    /// root if a root wrapped it, and vouched for by this root. Wraps by KEKs and of unknown kinds stay byte for byte.
    ///
    /// # Errors
    ///
    /// - [`RecordRejected`](ErrorKind::RecordRejected): `old` does not vouch for the record, or its key is not the one
    ///   that it commits to. - [`RandomnessUnavailable`](ErrorKind::RandomnessUnavailable).
    // F-7.5-6.
    pub(crate) fn reparented(&self, old: &Self, record: &Record, now: u64) -> Result<Record> {
        old.verify(record)?;
        let mut body = record.body.clone();
        for wrap in &mut body.wraps {
            if let Wrap::Root(bytes) = wrap {
                let key = old.unwrap_child_key(record, bytes)?;
                committed(record, &key)?;
                *bytes = self.wrap_child(&key, &record.identity(), record.commitment())?;
            }
        }
        body.authenticator = self.key_id;
        body.sequence = body.sequence.checked_add(1).ok_or(ErrorKind::LimitExceeded)?;
        body.changed_at = now;
        Ok(self.sign(body))
    }

    /// The record that follows `record`: the same key without its wraps by the KEKs that `drops` names, and with `fresh`
    /// ones, each in the place of one by the same KEK. Endorsement, wraps of unknown kinds and all else stay byte for byte.
    ///
    /// # Errors
    ///
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): more wraps than a record has room for.
    // F-7.5-6.
    pub(crate) fn rewrapped(
        &self,
        record: &Record,
        drops: impl Fn(&KekAlias) -> bool,
        fresh: Vec<(KekAlias, WrappedKey)>,
        now: u64,
    ) -> Result<Record> {
        let mut body = record.body.clone();
        let replaced = |alias: &KekAlias| drops(alias) || fresh.iter().any(|(fresh, _)| fresh == alias);
        body.wraps.retain(|wrap| !matches!(wrap, Wrap::Kek { alias, .. } if replaced(alias)));
        body.wraps.extend(fresh.into_iter().map(|(alias, wrapped)| Wrap::Kek { alias, wrapped }));
        if body.wraps.len() > MAX_WRAP_COUNT {
            return Err(Error::new(ErrorKind::LimitExceeded, "a key record has at most 8 wraps")
                .with_detail(record.key_id().to_string()));
        }
        body.sequence = body.sequence.checked_add(1).ok_or(ErrorKind::LimitExceeded)?;
        body.changed_at = now;
        Ok(self.sign(body))
    }

    /// The record that follows `record`, in state `state`.
    ///
    /// # Errors
    ///
    /// - [`KeyState`](ErrorKind::KeyState): the state cannot change that way.
    pub(crate) fn with_state(&self, record: &Record, state: KeyState, now: u64) -> Result<Record> {
        // F-7.5-3.
        let reprieved = record.was_compromised() && state == KeyState::Deactivated;
        if !record.state().may_become(state) || reprieved {
            return Err(Error::new(ErrorKind::KeyState, "the state of the key cannot change that way").with_detail(
                format!("{} is {}, not to become {}", record.key_id(), record.state().name(), state.name()),
            ));
        }
        let mut body = record.body.clone();
        body.state = state;
        if state == KeyState::Active {
            body.activated_at = now;
        }
        if record.state() == KeyState::Compromised && state == KeyState::DestroyPending {
            body.set_extension(Body::COMPROMISED, Some(&[]))?;
        }
        let sequence = body.sequence.checked_add(1).ok_or(ErrorKind::LimitExceeded)?;
        if state == KeyState::Destroyed {
            return Ok(self.tombstone(record, sequence, now));
        }
        body.sequence = sequence;
        body.changed_at = now;
        Ok(self.sign(body))
    }

    /// The tombstone of the key of `record`, whatever its state: without wraps, and vouched for by whoever writes it,
    /// since its own key is gone.
    // F-7.1-8.
    pub(crate) fn tombstone(&self, record: &Record, sequence: u64, now: u64) -> Record {
        let state = KeyState::Destroyed;
        let (wraps, authenticator) = (Vec::new(), self.key_id);
        self.sign(Body { state, wraps, authenticator, sequence, changed_at: now, ..record.body.clone() })
    }

    /// The record that follows `record`, under legal hold since `now`, or not any more.
    ///
    /// # Errors
    ///
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): the record has no room for it.
    pub(crate) fn with_hold(&self, record: &Record, hold: bool, now: u64) -> Result<Record> {
        let (mut body, since) = (record.body.clone(), now.to_be_bytes());
        body.set_extension(Body::HOLD, hold.then_some(&since))?;
        body.sequence = body.sequence.checked_add(1).ok_or(ErrorKind::LimitExceeded)?;
        body.changed_at = now;
        Ok(self.sign(body))
    }

    /// Whether this root vouches for `record`, byte for byte.
    ///
    /// # Errors
    ///
    /// - [`RecordRejected`](ErrorKind::RecordRejected): forged or edited.
    // F-7.6-5, F-7.6-8, F-1-4.
    pub(crate) fn verify(&self, record: &Record) -> Result<()> {
        let expected = hmac_sha256_erased(&self.record_mac, &[record.authenticated_part()]);
        let authentic = record.authenticator() == self.key_id && bool::from(expected.ct_eq(record.mac()));
        if authentic { Ok(()) } else { Err(rejected(record, "its MAC does not verify")) }
    }

    /// Unwraps the key of a record that [`verify`](Self::verify) accepted, and checks it against its commitment.
    pub(crate) fn unwrap_child(&self, record: &Record) -> Result<KeySchedule> {
        committed(record, &self.unwrap_child_key(record, child_wrap(record)?)?)
    }

    /// As [`unwrap_child`](Self::unwrap_child), of a key that leaves for a device: its bytes.
    pub(crate) fn export_child(&self, record: &Record) -> Result<Secret<32>> {
        let key = self.unwrap_child_key(record, child_wrap(record)?)?;
        committed(record, &key)?;
        Ok(key)
    }

    /// The key in one wrap of `record`, not yet checked against its commitment.
    // F-7.3-1.
    fn unwrap_child_key(&self, record: &Record, wrap: &[u8; ROOT_WRAP_LEN]) -> Result<Secret<32>> {
        let (nonce, sealed) = wrap.split_at(NONCE_LEN);
        let (prefix, last) = nonce.split_at(12);
        let prefix = prefix.try_into().expect("the nonce has 24 bytes");
        let last = last.try_into().expect("the nonce has 24 bytes");
        let aad = child_wrap_aad(&record.identity(), record.commitment());
        let mut opened = Secret::<48>::with(|buffer| buffer.copy_from_slice(sealed));
        Secret::try_with(|key: &mut [u8; 32]| {
            let opened = opened.expose_mut();
            let plaintext = self.child_wrap.with_derived(prefix, |key| key.open(last, &aad, opened))?;
            key.copy_from_slice(plaintext);
            Ok::<(), crate::aead::OpenFailed>(())
        })
        .map_err(|_| rejected(record, "its key does not unwrap"))
    }

    /// endorsement = HMAC(endorsement key, new root's key ID ‖ commitment ‖ lineage)
    pub(crate) fn endorse(&self, body: &Body) -> Endorsement {
        let mac =
            hmac_sha256_erased(&self.endorsement, &[body.key_id.as_bytes(), &body.commitment, body.lineage.as_bytes()]);
        Endorsement { by: self.key_id, mac }
    }

    /// Whether this root endorsed the root of `record`. Needs no key of the endorsed root, so it comes before any KMS call.
    ///
    /// # Errors
    ///
    /// - [`RecordRejected`](ErrorKind::RecordRejected): it did not.
    // F-7.6-2.
    pub(crate) fn verify_endorsement(&self, record: &Record) -> Result<()> {
        let expected = self.endorse(&record.body);
        match record.body.endorsement {
            Some(found) if found.by == expected.by && bool::from(found.mac.ct_eq(&expected.mac)) => Ok(()),
            _ => Err(rejected(record, "its endorsement does not verify")),
        }
    }
}

/// The key of a KEK-wrapped record from what the KEK unwrapped, checked against binding and commitment.
///
/// # Errors
///
/// - [`Kms`](ErrorKind::Kms) with `InvalidCiphertext`: the service unwrapped something that was not wrapped for this record.
pub(crate) fn unwrapped_by_kek(record: &Record, payload: &Secret<64>) -> Result<KeySchedule> {
    let binding = kms_binding(&record.identity(), record.commitment(), record.environment());
    let (key, bound) = payload.expose().split_at(32);
    // F-7.3-3, F-1-4.
    if !bool::from(bound.ct_eq(&binding)) {
        return Err(Error::new(
            ErrorKind::Kms(crate::KmsErrorKind::InvalidCiphertext),
            "the key service unwrapped something that was not wrapped for this key record",
        ));
    }
    committed(record, &Secret::with(|k| k.copy_from_slice(key)))
}

/// The wrap of `record` under its root.
// F-8.2-6.
fn child_wrap(record: &Record) -> Result<&[u8; ROOT_WRAP_LEN]> {
    let wrap = record.body.wraps.iter().find_map(|wrap| if let Wrap::Root(bytes) = wrap { Some(bytes) } else { None });
    wrap.ok_or_else(|| rejected(record, "it has no wrap under its root"))
}

/// A key is used only after its commitment was recomputed and compared with the record and the key ID in it.
// F-2.3-1, F-8.2-7.
fn committed(record: &Record, key: &Secret<32>) -> Result<KeySchedule> {
    let schedule = KeySchedule::new(key, record.identity());
    if !bool::from(schedule.commitment().ct_eq(record.commitment())) {
        return Err(rejected(record, "its key is not the one that it commits to"));
    }
    Ok(schedule)
}

pub(crate) fn child_wrap_aad(identity: &KeyIdentity, commitment: &[u8; 32]) -> [u8; KeyIdentity::LEN + 32] {
    let mut aad = [0; KeyIdentity::LEN + 32];
    aad[..KeyIdentity::LEN].copy_from_slice(&identity.encode());
    aad[KeyIdentity::LEN..].copy_from_slice(commitment);
    aad
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{KeyClass, Lineage, SlotId};

    /// Covers F-7.1-8.
    #[test]
    fn a_destroyed_key_leaves_a_tombstone_that_parses() {
        let identity = |class, generation| KeyIdentity {
            lineage: Lineage::from_bytes([1; 16]),
            class,
            slot: SlotId::NONE,
            generation,
        };
        let root_key = NewKey::generate(identity(KeyClass::Root, 1)).unwrap();
        let root = RootKey::new(Backend::default(), &root_key.schedule);
        let new = NewRecord {
            identity: identity(KeyClass::Data, 2),
            scope_tag: None,
            environment: "test",
            state: KeyState::Active,
            now: 1,
        };
        let mut record = root.new_child_record(&NewKey::generate(new.identity).unwrap(), &new).unwrap();
        for state in [KeyState::Deactivated, KeyState::DestroyPending, KeyState::Destroyed] {
            record = root.with_state(&record, state, 2).unwrap();
            let parsed = Record::parse(record.as_bytes()).unwrap();
            assert!(parsed == record && root.verify(&parsed).is_ok(), "{state:?}");
        }
        assert!(record.body.wraps.is_empty());
    }
}
