//! Devices that hold the data key of their scope (DESIGN K16): the key leaves in a bundle, and is revoked when the device is.

use super::trust::Origin;
use super::{Keyring, wrong_scope, wrong_state};
use crate::audit::{AuditAction, AuditEvent};
use crate::device::{BUNDLE_LEN, Issue, Protection};
use crate::error::{Error, ErrorKind, Result};
use crate::keys::{Secret, SlotId};
use crate::random;
use crate::record::{KeyState, Record};
use crate::store::Slot;
use crate::wire::KeyId;
use data_encoding::HEXLOWER;
use std::time::{SystemTime, UNIX_EPOCH};

/// The key of a scope, on its way to a device.
#[derive(Clone, Debug)]
pub struct Provisioned {
    /// The bundle: safe to carry in the open as long as the transport key is not.
    pub bundle: [u8; BUNDLE_LEN],
    /// The record of the key.
    pub key: Record,
}

/// The keys of a scope that were taken back.
#[derive(Clone, Debug)]
pub struct Revoked {
    /// The scope.
    pub slot: SlotId,
    /// Its keys that are compromised from now on, the newest first.
    pub keys: Vec<KeyId>,
    /// Those of them that were compromised before.
    pub already: Vec<KeyId>,
    /// The key that seals in their place, which no bundle has that was made before; `None`: none sealed before either.
    pub seals: Option<KeyId>,
}

impl Keyring {
    /// Exports the data key that seals in `scope` for a device: a bundle under `transport_key`, which is what `protection`
    /// says. Makes the scope if there is none. Whoever opens the bundle seals and opens what is under that key, until the
    /// scope is shredded; he sees no other key.
    ///
    /// The event is recorded before the bundle is returned: where the policy of the sink is to refuse, there is none without it.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): no scope can have the name.
    /// - [`KeyState`](ErrorKind::KeyState): no key of the scope seals, since it was retired, or waits for its destruction.
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): the cost of the passphrase is out of bounds.
    /// - Those of acquiring a key and of the audit sink.
    pub async fn provision_device(
        &self,
        scope: &str,
        transport_key: &Secret<32>,
        protection: Protection,
    ) -> Result<Provisioned> {
        self.check_audit()?;
        let slot = self.data_slot_or_new(Some(scope)).await?;
        let device_id = random::array()?;
        let made = self.make_bundle(slot, device_id, transport_key, protection).await;
        let mut event = AuditEvent::new(AuditAction::Provision).detail("slot", slot.id).outcome(&made);
        if let Ok(made) = &made {
            event = event.key(made.key.key_id()).detail("device", HEXLOWER.encode(&device_id));
        }
        // F-16-2.
        let recorded = self.audit(event);
        let made = made?;
        recorded.map(|()| made)
    }

    // F-16-1.
    async fn make_bundle(
        &self,
        slot: Slot,
        device_id: [u8; 8],
        transport_key: &Secret<32>,
        protection: Protection,
    ) -> Result<Provisioned> {
        let key_id = self.key_to_seal(&self.current(slot, None), None).await?;
        let record = self.record(key_id).await?;
        self.verify(&record).await?;
        if record.slot() != slot {
            return Err(wrong_scope(key_id));
        }
        if record.state() != KeyState::Active {
            return Err(wrong_state(&record));
        }
        let key = if record.is_isolated() {
            let unwrapped = self.ask_keks(&record, Origin::Store, None).await?;
            Secret::with(|key: &mut [u8; 32]| key.copy_from_slice(&unwrapped.payload.expose()[..32]))
        } else {
            self.root(record.authenticator()).await?.export_child(&record)?
        };
        let issued = issued_at(self.inner.store.now().await?);
        let issue = Issue { key_id, lineage: self.lineage(), scope: slot.id, device_id, issued, protection };
        Ok(Provisioned { bundle: issue.write(&key, transport_key)?, key: record })
    }

    /// As [`provision_device`](Self::provision_device), with a new generation of the scope's data key, which seals at once,
    /// whatever the lead of the rotation policy. What the device has sealed before still opens.
    ///
    /// # Errors
    ///
    /// As for [`provision_device`](Self::provision_device) and [`rotate_data_key`](Self::rotate_data_key).
    pub async fn rotate_device(
        &self,
        scope: &str,
        transport_key: &Secret<32>,
        protection: Protection,
    ) -> Result<Provisioned> {
        self.check_audit()?;
        if self.rotate_data_key(Some(scope)).await?.new.state() == KeyState::PreActive {
            self.activate_data_key(Some(scope)).await?;
        }
        self.provision_device(scope, transport_key, protection).await
    }

    /// Takes back what a device of `scope` holds: every key of the scope that is in use or was becomes compromised, and a
    /// new one, which no bundle has that was made before, seals. Compromised keys open only with
    /// [`KeyringConfig::open_compromised`](crate::KeyringConfig::open_compromised). That makes nobody forget the keys:
    /// [`shred_scope`](Self::shred_scope) ends the scope. `reason` goes to the audit log alone.
    ///
    /// # Errors
    ///
    /// - [`NoMatchingKey`](ErrorKind::NoMatchingKey): there is no such scope.
    /// - [`KeyState`](ErrorKind::KeyState): all its keys are destroyed, or wait for that.
    /// - Those of [`change_state`](Self::change_state): some keys may be compromised; repeat the call.
    pub async fn revoke_device(&self, scope: &str, reason: Option<&str>) -> Result<Revoked> {
        self.check_audit()?;
        let slot = self.data_slot(Some(scope)).await?;
        let revoked = self.revoke(slot).await;
        let mut event = AuditEvent::new(AuditAction::Revoke).detail("slot", slot.id).outcome(&revoked);
        if let Ok(revoked) = &revoked {
            event = event.detail("keys", revoked.keys.len());
        }
        event.reason = reason.map(str::to_owned);
        // What was done is done: the first error is the one to report.
        let recorded = self.audit(event);
        let done = revoked?;
        recorded.map(|()| done)
    }

    async fn revoke(&self, slot: Slot) -> Result<Revoked> {
        let records = self.keys_of_slot(slot.id).await?;
        let ended = |record: &&Record| matches!(record.state(), KeyState::DestroyPending | KeyState::Destroyed);
        if let Some(newest) = records.first().filter(|_| records.iter().all(|record| ended(&record))) {
            self.refuse_before_end(newest)?;
            return Err(wrong_state(newest));
        }
        let (mut keys, mut already) = (Vec::new(), Vec::new());
        // The newest first: one that waits to seal must not take the place of the one that does.
        for record in records.iter().filter(|record| !ended(record)) {
            // Repeated after a failure, it finds some that are.
            if record.state() == KeyState::Compromised {
                already.push(record.key_id());
            } else {
                self.change_state(record.key_id(), KeyState::Compromised).await?;
            }
            keys.push(record.key_id());
        }
        let seals = self.succession(slot).await?.current.map(|record| record.key_id());
        if seals.is_some_and(|seals| keys.contains(&seals)) {
            return Err(Error::new(ErrorKind::Conflict, "others change the keys of the scope: repeat the call"));
        }
        Ok(Revoked { slot: slot.id, keys, already, seals })
    }
}

/// The time of the store, which counts seconds, in microseconds: a device tells a bundle from the one before by it, and both
/// may be made within a second.
fn issued_at(store: u64) -> u64 {
    let machine = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Where the two clocks agree, theirs is one time; near the end of a second they would not fit together.
    let seconds = if machine.as_secs().abs_diff(store) <= 1 { machine.as_secs() } else { store };
    seconds.saturating_mul(1_000_000).saturating_add(machine.subsec_micros().into())
}
