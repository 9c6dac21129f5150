//! Shredding (DESIGN K15): the end of a scope, scheduled, called off or carried out, and the legal hold that forbids it.

use super::open_key::unknown_state;
use super::states::Afterwards;
use super::{Keyring, wrong_state};
use crate::audit::{AuditAction, AuditEvent};
use crate::error::{Error, ErrorKind, Result};
use crate::keys::{KeyClass, SlotId};
use crate::record::{KeyState, Record};
use crate::store::{Remainder, Slot};
use crate::wire::KeyId;
use std::time::Duration;

/// How often the keys of a scope are looked through while others change them.
const ATTEMPTS: usize = 64;

/// How keys are destroyed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ShredPolicy {
    /// How long a key waits between destroy-pending and destroyed, by the store's clock.
    pub waiting: Duration,
}

impl Default for ShredPolicy {
    fn default() -> Self {
        Self { waiting: Duration::from_secs(7 * 24 * 3600) }
    }
}

/// The keys of a scope whose end is scheduled.
#[derive(Clone, Debug)]
pub struct ShredScheduled {
    /// The scope.
    pub slot: SlotId,
    /// Its records that are not destroyed yet, the newest first.
    pub keys: Vec<Record>,
    /// Before this they are not destroyed, in seconds since 1970 by the store's clock.
    pub not_before: u64,
}

/// A scope whose keys are destroyed.
#[derive(Clone, Debug)]
pub struct Shredded {
    /// The scope.
    pub slot: SlotId,
    /// The tombstones of all its keys, the newest first.
    pub keys: Vec<Record>,
    /// When the last of them was destroyed, in seconds since 1970 by the store's clock.
    pub destroyed_at: u64,
    /// Whether KEKs of its own wrapped the keys that the scope had: all of them.
    pub isolated: bool,
    /// Where bytes of their wraps were, and whether they are gone.
    pub remainders: Vec<Remainder>,
}

/// The legal hold of a scope.
#[derive(Clone, Debug)]
pub struct Hold {
    /// The scope.
    pub slot: SlotId,
    /// Its keys that are not destroyed.
    pub keys: Vec<KeyId>,
}

impl Keyring {
    /// Schedules the end of `scope`: all its data keys become destroy-pending, so that nothing in it is sealed or opened,
    /// and nobody makes another key. [`cancel_shred`](Self::cancel_shred) takes that back,
    /// [`finish_shred`](Self::finish_shred) destroys the keys once [`ShredPolicy::waiting`] has passed. May be repeated.
    ///
    /// This keyring stops using the keys at once, handles included; others at their next renewal, see
    /// [`CachePolicy`](crate::CachePolicy). Look-up keys belong to partitions and stay. `reason` goes to the audit log alone,
    /// here and below.
    ///
    /// # Errors
    ///
    /// - [`NoMatchingKey`](ErrorKind::NoMatchingKey): there is no such scope.
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): the scope is under legal hold.
    /// - [`KeyState`](ErrorKind::KeyState): all its keys are destroyed already.
    /// - [`Conflict`](ErrorKind::Conflict), and those of acquiring a key: some keys may be destroy-pending; repeat the
    ///   call, or take it back.
    pub async fn shred_scope(&self, scope: &str, reason: Option<&str>) -> Result<ShredScheduled> {
        let slot = self.data_slot(Some(scope)).await?;
        let scheduled = self.schedule(slot).await;
        self.recorded(AuditAction::ShredScheduled, slot, reason, scheduled)
    }

    /// Takes the scheduled end of `scope` back: its keys open again, compromised ones as such, and a new one seals.
    ///
    /// # Errors
    ///
    /// - [`NoMatchingKey`](ErrorKind::NoMatchingKey): there is no such scope.
    /// - [`KeyState`](ErrorKind::KeyState): its end is not scheduled, or all its keys are destroyed.
    /// - Those of [`rotate_data_key`](Self::rotate_data_key). Some keys may be back; repeat the call.
    pub async fn cancel_shred(&self, scope: &str, reason: Option<&str>) -> Result<Record> {
        let slot = self.data_slot(Some(scope)).await?;
        let cancelled = self.cancel(slot).await;
        self.recorded(AuditAction::ShredCancelled, slot, reason, cancelled)
    }

    /// Destroys the keys of `scope`, whose end was scheduled, for good: tombstones take the place of their records, and
    /// the store makes the bytes of the wraps disappear as far as it can. May be repeated after a failure, and when
    /// everything is destroyed, to have the store look again.
    ///
    /// # Errors
    ///
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): the waiting period has not passed, or the scope is under legal hold.
    /// - [`KeyState`](ErrorKind::KeyState): the end of the scope was not scheduled. Nothing was destroyed in both cases.
    /// - [`Conflict`](ErrorKind::Conflict), and those of acquiring a key and of the store: some keys may be destroyed;
    ///   repeat the call.
    pub async fn finish_shred(&self, scope: &str, reason: Option<&str>) -> Result<Shredded> {
        let slot = self.data_slot(Some(scope)).await?;
        let shredded = self.destroy(slot).await;
        self.recorded(AuditAction::Shredded, slot, reason, shredded)
    }

    /// All data keys of the scope `slot`, tombstones included, the newest first: what a certificate of its end is held to.
    ///
    /// # Errors
    ///
    /// - [`NoMatchingKey`](ErrorKind::NoMatchingKey): there is no such scope.
    /// - Those of acquiring a key.
    pub async fn keys_of_slot(&self, slot: SlotId) -> Result<Vec<Record>> {
        let records = self.all_of(self.slot(KeyClass::Data, slot)).await?;
        if records.is_empty() { Err(ErrorKind::NoMatchingKey.into()) } else { Ok(records) }
    }

    /// The places of which [`purge`](Self::purge) says whether something is left in them.
    #[must_use]
    pub fn places(&self) -> Vec<String> {
        self.inner.store.places()
    }

    /// Looks again at what was left of shredded keys: see [`KeyStore::purge`](crate::KeyStore::purge).
    ///
    /// # Errors
    ///
    /// - [`Store`](ErrorKind::Store): the database failed.
    pub async fn purge(&self, pending: &[Remainder]) -> Result<Vec<Remainder>> {
        self.inner.store.purge(pending).await
    }

    /// The time of the store in seconds since 1970, by which waiting periods and certificates count.
    ///
    /// # Errors
    ///
    /// - [`Store`](ErrorKind::Store): the database failed.
    pub async fn store_time(&self) -> Result<u64> {
        self.inner.store.now().await
    }

    /// Places a legal hold on `scope`: none of its keys can be scheduled for destruction or destroyed before
    /// [`release_scope`](Self::release_scope) lifts it. `reason` goes to the audit log alone.
    ///
    /// # Errors
    ///
    /// - [`NoMatchingKey`](ErrorKind::NoMatchingKey): there is no such scope.
    /// - [`KeyState`](ErrorKind::KeyState): all its keys are destroyed.
    /// - [`Conflict`](ErrorKind::Conflict), and those of acquiring a key. One held key holds the scope; repeat the call.
    pub async fn hold_scope(&self, scope: &str, reason: Option<&str>) -> Result<Hold> {
        let slot = self.data_slot(Some(scope)).await?;
        let held = self.set_hold(slot, true).await;
        self.recorded(AuditAction::HoldPlaced, slot, reason, held)
    }

    /// Lifts the legal hold of `scope`. The waiting period of a scheduled end begins anew.
    ///
    /// # Errors
    ///
    /// As for [`hold_scope`](Self::hold_scope), and [`KeyState`](ErrorKind::KeyState) where none of its keys is held. One key
    /// that is still held holds the scope; repeat the call.
    pub async fn release_scope(&self, scope: &str, reason: Option<&str>) -> Result<Hold> {
        let slot = self.data_slot(Some(scope)).await?;
        let released = self.set_hold(slot, false).await;
        self.recorded(AuditAction::HoldLifted, slot, reason, released)
    }

    fn recorded<T>(&self, action: AuditAction, slot: Slot, reason: Option<&str>, result: Result<T>) -> Result<T> {
        let mut event = AuditEvent::new(action).detail("slot", slot.id).outcome(&result);
        event.reason = reason.map(str::to_owned);
        // What was done is done: the first error is the one to report.
        let recorded = self.audit(event);
        let done = result?;
        recorded.map(|()| done)
    }

    /// Every record of a slot, the newest first; a trusted root vouches for each.
    async fn all_of(&self, slot: Slot) -> Result<Vec<Record>> {
        let records = self.newest(slot, usize::MAX).await?;
        for record in &records {
            self.verify(record).await?;
        }
        Ok(records)
    }

    async fn schedule(&self, slot: Slot) -> Result<ShredScheduled> {
        for _ in 0..ATTEMPTS {
            let records = self.all_of(slot).await?;
            refuse_held(&records)?;
            let keys = live(&records)?;
            if keys.iter().all(|record| record.state() == KeyState::DestroyPending) {
                let waiting = self.configured().keyring.shred.waiting.as_secs();
                let since = keys.iter().map(Record::changed_at).max().unwrap_or_default();
                // Also those whose end somebody else has scheduled.
                keys.iter().for_each(|record| self.stop_using(record));
                return Ok(ShredScheduled { slot: slot.id, keys, not_before: since.saturating_add(waiting) });
            }
            // The newest first: as long as that one waits for its end, nobody makes another. Whoever was about to looks at
            // it afterwards, and this looks for his key once more, so one of the two notices.
            for record in keys {
                let next = match record.state() {
                    KeyState::DestroyPending => continue,
                    KeyState::PreActive | KeyState::Active => KeyState::Deactivated,
                    _ => KeyState::DestroyPending,
                };
                match self.put_in_state(&record, next).await {
                    Err(error) if error.kind() == ErrorKind::Conflict => {}
                    result => drop(result?),
                }
            }
        }
        Err(Error::new(ErrorKind::Conflict, "others change the keys of the scope all the while"))
    }

    async fn cancel(&self, slot: Slot) -> Result<Record> {
        let mut scheduled = false;
        for record in live(&self.all_of(slot).await?)? {
            if record.state() == KeyState::DestroyPending {
                scheduled = true;
                let back = if record.was_compromised() { KeyState::Compromised } else { KeyState::Deactivated };
                self.put_in_state(&record, back).await?;
            }
        }
        // The next key seals, also where that is not heard.
        let _asks = Afterwards(|| self.expire_current(slot));
        let succession = self.succession(slot).await?;
        match (succession.current, succession.head) {
            (Some(_), _) if !scheduled => Err(Error::new(
                ErrorKind::KeyState,
                "the end of the scope is not scheduled: there is nothing to take back",
            )),
            (Some(current), _) => Ok(current),
            (None, Some(head)) => {
                let rotated = self.rotate(slot, head.key_id(), &[]).await?.new;
                if rotated.state() == KeyState::PreActive { self.activate(slot, &rotated).await } else { Ok(rotated) }
            }
            (None, None) => Err(ErrorKind::NoMatchingKey.into()),
        }
    }

    async fn destroy(&self, slot: Slot) -> Result<Shredded> {
        let records = self.all_of(slot).await?;
        refuse_held(&records)?;
        let gone = |record: &&Record| record.state() == KeyState::Destroyed;
        let pending: Vec<_> = records.iter().filter(|record| !gone(record)).collect();
        let now = self.inner.store.now().await?;
        for record in &pending {
            if record.state() != KeyState::DestroyPending {
                return Err(wrong_state(record));
            }
            self.refuse_to_destroy(record, now)?;
        }
        // The newest last: until then nobody makes another.
        for record in pending.into_iter().rev() {
            self.put_in_state(record, KeyState::Destroyed).await?;
        }
        let keys = self.all_of(slot).await?;
        if let Some(made) = keys.iter().find(|record| !gone(record)) {
            return Err(Error::new(
                ErrorKind::Conflict,
                "a key of the scope was made meanwhile: schedule its end again",
            )
            .with_detail(made.key_id().to_string()));
        }
        keys.iter().for_each(|record| self.stop_using(record));
        let remainders = self.inner.store.purge(&[]).await?;
        Ok(Shredded {
            slot: slot.id,
            destroyed_at: keys.iter().map(Record::changed_at).max().unwrap_or_default(),
            isolated: keys.iter().all(Record::is_isolated),
            keys,
            remainders,
        })
    }

    async fn set_hold(&self, slot: Slot, hold: bool) -> Result<Hold> {
        let maker = self.maker();
        for attempt in 0..ATTEMPTS {
            let keys = live(&self.all_of(slot).await?)?;
            let differs = |record: &&Record| record.held_since().is_some() != hold;
            if attempt == 0 && !hold && !keys.iter().any(|record| differs(&record)) {
                return Err(Error::new(
                    ErrorKind::KeyState,
                    "the scope is not under legal hold: there is nothing to lift",
                ));
            }
            if !keys.iter().any(|record| differs(&record)) {
                return Ok(Hold { slot: slot.id, keys: keys.iter().map(Record::key_id).collect() });
            }
            for record in keys.iter().filter(differs) {
                let root = self.voucher(record).await?;
                let next = root.with_hold(record, hold, maker.now().await?)?;
                match maker.update(&next, record.sequence()).await {
                    Err(error) if error.kind() == ErrorKind::Conflict => {}
                    result => result?,
                }
            }
        }
        Err(Error::new(ErrorKind::Conflict, "others change the keys of the scope all the while"))
    }

    /// Stores `record` in another state, and ends what this process does with the key where it opens nothing there.
    async fn put_in_state(&self, record: &Record, state: KeyState) -> Result<Record> {
        let root = match state {
            // A tombstone is the current root's word: the one before may go once nothing depends on it.
            KeyState::Destroyed => self.current_root().await?,
            _ => self.voucher(record).await?,
        };
        let next = root.with_state(record, state, self.maker().now().await?)?;
        self.put(&next, record.sequence()).await?;
        Ok(next)
    }

    /// Lets this process go on with a key, handles included, only as far as `record` allows.
    pub(super) fn stop_using(&self, record: &Record) {
        self.stop_using_as(record, Some(record.state()), &wrong_state(record));
    }

    /// As [`stop_using`](Self::stop_using), where nobody knows whether the key is in the state that `record` says.
    pub(super) fn stop_using_unless_known(&self, record: &Record) {
        self.stop_using_as(record, None, &unknown_state(record.key_id()));
    }

    /// Handles that ask nobody hear `why`, if nothing opens under the key, and otherwise what its `state` is.
    fn stop_using_as(&self, record: &Record, state: Option<KeyState>, why: &Error) {
        let (inner, key_id, slot) = (&*self.inner, record.key_id(), record.slot());
        if record.state().may_open() {
            return self.stop_sealing(record, state);
        }
        match record.class() {
            KeyClass::Root => inner.roots.end(&key_id, why),
            _ => inner.keys.end(&(key_id, slot), why),
        }
        inner.frames.ask_again();
        self.withdraw(slot, key_id);
    }

    /// Nothing is sealed under the key of `record` any more, also by handles that ask nobody: its state is `state`, or nobody knows.
    /// What opens goes on, and hears more when it is next awaited; so does what is being fetched.
    pub(super) fn stop_sealing(&self, record: &Record, state: Option<KeyState>) {
        self.ask_for_key_again(record);
        self.inner.keys.remove_and(&(record.key_id(), record.slot()), |held| held.set_state(state));
        self.withdraw(record.slot(), record.key_id());
    }

    /// Has the key of `record` confirmed before whoever is awaited goes on with it.
    pub(super) fn ask_for_key_again(&self, record: &Record) {
        let (inner, key_id, slot) = (&*self.inner, record.key_id(), record.slot());
        match record.class() {
            KeyClass::Root => inner.roots.ask_again(|root| *root == key_id),
            _ => inner.keys.ask_again(|key| *key == (key_id, slot)),
        }
    }

    /// Takes a key that was just made in a scope whose end was scheduled meanwhile out of service, before anything is
    /// sealed under it. `head` is the record that it follows.
    pub(super) async fn refuse_after_end(&self, head: &Record, made: &Record) -> Result<()> {
        let now = self.record(head.key_id()).await?;
        let ends = matches!(now.state(), KeyState::DestroyPending | KeyState::Destroyed);
        if !ends || now.state() == head.state() {
            return Ok(());
        }
        self.verify(&now).await?;
        let retired = self.put_in_state(made, KeyState::Deactivated).await?;
        self.put_in_state(&retired, KeyState::DestroyPending).await?;
        Err(wrong_state(&now))
    }

    /// Refuses to go on after a key that waits for its end.
    pub(super) fn refuse_before_end(&self, head: &Record) -> Result<()> {
        if head.class() == KeyClass::Data && head.state() == KeyState::DestroyPending {
            return Err(Error::new(
                ErrorKind::KeyState,
                "the keys of the scope wait for their destruction: `keys shred --cancel` takes that back, `--finish` ends it",
            )
            .with_detail(head.key_id().to_string()));
        }
        Ok(())
    }

    /// Refuses to move a key towards its end where its scope is under legal hold: keys made later are not held one by one.
    pub(super) async fn refuse_if_scope_is_held(&self, record: &Record) -> Result<()> {
        match record.class() {
            KeyClass::Data => refuse_held(&self.all_of(record.slot()).await?),
            _ => refuse_held(std::slice::from_ref(record)),
        }
    }

    /// Refuses to destroy a key before its time or under legal hold.
    pub(super) fn refuse_to_destroy(&self, record: &Record, now: u64) -> Result<()> {
        refuse_held(std::slice::from_ref(record))?;
        let waiting = self.configured().keyring.shred.waiting.as_secs();
        let remaining = record.changed_at().saturating_add(waiting).saturating_sub(now);
        if remaining > 0 {
            return Err(Error::new(ErrorKind::PolicyRefused, "the waiting period before destruction has not passed")
                .with_detail(format!("{}: {remaining} s remain", record.key_id())));
        }
        Ok(())
    }
}

/// Refuses to end a scope of which one key is under legal hold.
// F-7.5-2.
fn refuse_held(records: &[Record]) -> Result<()> {
    let held = |record: &&Record| record.state() != KeyState::Destroyed && record.held_since().is_some();
    match records.iter().find(held) {
        None => Ok(()),
        Some(held) => {
            Err(Error::new(ErrorKind::PolicyRefused, "the key is under legal hold: keys hold --release lifts it")
                .with_detail(held.key_id().to_string()))
        }
    }
}

/// The records of keys that are not destroyed.
fn live(records: &[Record]) -> Result<Vec<Record>> {
    let live: Vec<_> = records.iter().filter(|record| record.state() != KeyState::Destroyed).cloned().collect();
    match records.first() {
        Some(newest) if live.is_empty() => Err(wrong_state(newest)),
        _ => Ok(live),
    }
}
