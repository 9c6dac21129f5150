//! The states of a single key, changed by hand (NIST SP 800-57 part 1, §7).

use super::{Keyring, wrong_scope};
use crate::error::{Error, ErrorKind, Result};
use crate::keys::KeyClass;
use crate::record::{KeyState, Record};
use crate::store::Slot;
use crate::wire::KeyId;
use std::sync::atomic::{AtomicBool, Ordering};

/// Records that are read from the store at once.
const PAGE: usize = 1000;

/// Whether the store may have written what it was asked to, although it answered with `error`: any but those with which it
/// says that it has not.
fn may_be_stored(error: &Error) -> bool {
    !matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NoMatchingKey)
}

/// What is done after a call whatever became of it, also when it is dropped because nobody waits for it any more.
pub(super) struct Afterwards<F: Fn()>(pub(super) F);

impl<F: Fn()> Drop for Afterwards<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl Keyring {
    /// The state of a key that must belong to `slot`, as the store says now. Opens nothing.
    pub(crate) async fn state_in(&self, key_id: KeyId, slot: Slot) -> Result<KeyState> {
        self.check_open()?;
        let record = self.record(key_id).await?;
        self.verify(&record).await?;
        if record.slot() == slot { Ok(record.state()) } else { Err(wrong_scope(key_id)) }
    }

    /// Moves a key to `state` by hand: deactivates it, marks it compromised, schedules or takes back its destruction,
    /// or destroys it. Destroying removes its wraps from the store for good and leaves a tombstone, so that errors
    /// say what happened to the key.
    ///
    /// A data key that seals and is marked compromised gets a successor first, which seals at once; one that is
    /// deactivated does not, so that nothing is sealed in its scope until somebody rotates it, or until a key that is
    /// published already takes over. Other look-up keys stay as they are, since the configuration says which of them seals. A root is taken out of service only when
    /// nothing depends on it any more: rotate it and [`reparent`](Self::reparent) first.
    ///
    /// A key waits between `DestroyPending` and `Destroyed` as long as [`ShredPolicy`](crate::ShredPolicy) says. This keyring stops using the
    /// key at once, handles included; others at their next renewal, see [`CachePolicy`](crate::CachePolicy).
    ///
    /// # Errors
    ///
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): the configuration names the key, or other keys would be lost
    ///   with it; or it is to be destroyed under legal hold, or before its waiting period has passed.
    /// - [`KeyState`](ErrorKind::KeyState): the state cannot change that way.
    /// - [`Conflict`](ErrorKind::Conflict): somebody else changed the key first; read again and repeat.
    /// - Those of acquiring a key, of the marks and of the audit sink. The error says where the key is in the new state all the same,
    ///   since its mark or event alone could not be written. Otherwise it has not changed, but where the answer of the store was lost:
    ///   until it is known again this keyring does not go on with the key. Repeat the call; a key that was to be compromised may have
    ///   its successor by then.
    pub async fn change_state(&self, key_id: KeyId, state: KeyState) -> Result<Record> {
        let record = self.record(key_id).await?;
        self.verify(&record).await?;
        if state == KeyState::Active && record.state() == KeyState::PreActive {
            // The store may let it seal without saying so.
            let _asks = Afterwards(|| self.expire_current(record.slot()));
            // By way of the succession, so that the key before it is deactivated.
            return self.activate(record.slot(), &record).await;
        }
        self.refuse_if_needed(&record).await?;
        if matches!(state, KeyState::DestroyPending | KeyState::Destroyed) {
            self.refuse_if_scope_is_held(&record).await?;
        }
        if state == KeyState::Destroyed && record.state().may_become(state) {
            self.refuse_to_destroy(&record, self.inner.store.now().await?)?;
        }
        // Which look-up key seals the configuration says, and not which is the newest: the others of its partition stay as they are.
        let succeeds = record.class() != KeyClass::Lookup;
        if succeeds && record.state() == KeyState::Active && record.state().may_become(state) {
            // Where nothing could be recorded nothing changes.
            self.check_audit()?;
            // What a rotation left that stopped half way must not seal in its place.
            self.deactivate_before(record.slot(), &record).await?;
            if state == KeyState::Compromised {
                // The store may have its successor without saying so, and somebody wants it out of service.
                let _unknown = Afterwards(|| self.stop_sealing(&record, None));
                self.replace_at_once(&record).await?;
            }
        }
        // Whatever replaced it has deactivated it.
        let record = self.record(key_id).await?;
        self.verify(&record).await?;
        let root = match record.class() {
            // A root cannot vouch for its own end: its tombstone is its successor's word.
            KeyClass::Root if state == KeyState::Destroyed => self.current_root().await?,
            _ => self.voucher(&record).await?,
        };
        let next = root.with_state(&record, state, self.maker().now().await?)?;
        self.put(&next, record.sequence()).await?;
        if record.class() == KeyClass::Root
            && state == KeyState::DestroyPending
            && let Err(error) = self.refuse_if_needed(&next).await
        {
            // Somebody made a key under it meanwhile. From now on nobody does: he looks at its state afterwards.
            let back = root.with_state(&next, KeyState::Deactivated, self.maker().now().await?)?;
            self.put(&back, next.sequence()).await?;
            return Err(error);
        }
        Ok(next)
    }

    /// Stores `next`, the record of a key in another state. From now on this process goes on with the key only as far as
    /// that allows, also where nobody hears that the store has it: the answer was lost, or is not waited for any more.
    pub(super) async fn put(&self, next: &Record, expected_sequence: u64) -> Result<()> {
        // Where nothing could be recorded the store is not asked, and nothing changes.
        self.check_audit()?;
        let is_known = AtomicBool::new(false);
        let _unless_known = Afterwards(|| {
            if is_known.load(Ordering::Relaxed) {
                return;
            }
            self.stop_using_unless_known(next);
        });
        let stored = self.inner.store.update(next, expected_sequence).await;
        if stored.as_ref().is_err_and(may_be_stored) {
            return stored;
        }
        is_known.store(true, Ordering::Relaxed);
        match stored {
            Ok(()) => {
                // First: whether it can be remembered and recorded does not matter to the key.
                self.stop_using(next);
                self.maker().has_updated(next)
            }
            Err(error) => {
                // Somebody else changed the key: into which state is known when it is next asked for.
                self.ask_for_key_again(next);
                Err(error)
            }
        }
    }

    /// Has another key seal in place of `record` from now on.
    async fn replace_at_once(&self, record: &Record) -> Result<()> {
        let head = self.succession(record.slot()).await?.head;
        let rotated = self.rotate(record.slot(), head.map_or(record.key_id(), |head| head.key_id()), &[]).await?;
        if rotated.new.state() == KeyState::PreActive {
            self.activate(record.slot(), &rotated.new).await?;
        }
        Ok(())
    }

    async fn refuse_if_needed(&self, record: &Record) -> Result<()> {
        let refused = |why| Err(Error::new(ErrorKind::PolicyRefused, why).with_detail(record.key_id().to_string()));
        let configured = self.configured();
        let config = &configured.keyring;
        let key_id = record.key_id();
        let named = key_id == config.scope_names
            || config.lookup.values().any(|keys| keys.seals == key_id || keys.opens.contains(&key_id));
        if named {
            return refused("the state of a key that the configuration names is not changed by hand");
        }
        if record.class() != KeyClass::Root {
            return Ok(());
        }
        if record.state() == KeyState::Active {
            return refused("the root is the one under which keys are made: rotate it and reparent the keys first");
        }
        let current = self.succession(self.roots()).await?.current;
        if current.is_none_or(|current| !self.is_pinned(&current)) {
            return refused("the current root is not pinned: add its pin everywhere first, then remove this one's");
        }
        let mut after = None;
        loop {
            let page = self.inner.store.list(self.lineage(), after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.key_id());
            let depends = |other: &&Record| {
                other.key_id() != key_id
                    && (other.authenticator() == key_id
                        || (other.endorsed_by() == Some(key_id) && !self.is_pinned(other)))
            };
            if let Some(other) = page.iter().find(depends) {
                return Err(Error::new(
                    ErrorKind::PolicyRefused,
                    "other keys depend on the root: reparent them, and pin the roots that it endorsed, first",
                )
                .with_detail(format!("{key_id}, needed by {}", other.key_id())));
            }
        }
    }
}
