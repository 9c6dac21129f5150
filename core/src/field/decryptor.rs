//! Opening values with held keys.

use super::clear::Passed;
use super::framed::{HeldFrames, Taken};
use super::used::Uses;
use super::{Bound, WRONG_CLASS, not_accepted, refuse_row};
use crate::audit::Use;
use crate::cache::Cached;
use crate::column::{ColumnBytes, OpenedColumn, OpenedValue, Opening, RowError, check_rows};
use crate::context::Aad;
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::{CurrentKey, Keyring, Material, OpenKey};
use crate::policy::FieldPolicy;
use crate::record::KeyState;
use crate::store::Slot;
use crate::value::Value;
use crate::wire::{HEADER_LEN, KeyId, PREFIX_LEN, Sealed, Suite};
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One decrypted value. Erased on drop.
pub struct Opened {
    value: OpenedValue,
    is_current: bool,
    is_compromised: bool,
}

impl Opened {
    /// The value.
    #[must_use]
    pub fn value(&self) -> Value<'_> {
        self.value.value()
    }

    /// Whether its key is still the one that seals. If not, encrypt the value again when convenient.
    #[must_use]
    pub const fn is_current(&self) -> bool {
        self.is_current
    }

    /// Whether its key is compromised, which opens only with
    /// [`open_compromised`](crate::KeyringConfig::open_compromised): whoever has the key can have made the value.
    #[must_use]
    pub const fn is_compromised(&self) -> bool {
        self.is_compromised
    }
}

impl core::fmt::Debug for Opened {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Opened").field("value", &self.value()).field("is_current", &self.is_current).finish()
    }
}

/// Whose keys a handle may use, by suite: the caller's scope, or the field's partition (DESIGN F13).
#[derive(Clone, Copy, Default)]
pub(super) struct Slots {
    pub(super) data: Option<Slot>,
    pub(super) lookup: Option<Slot>,
}

/// The keys that a handle has loaded.
#[derive(Clone, Default)]
pub(super) struct Held {
    pub(super) keys: BTreeMap<KeyId, Arc<OpenKey>>,
    /// Those that frames brought. They open nothing but these frames.
    pub(super) frames: HeldFrames,
}

/// Rows of a column that follow each other and are of one batch: they have one header and one nonce prefix.
struct Run<'a> {
    key: &'a OpenKey,
    /// Not from a frame.
    is_plain: bool,
    /// Header and prefix, if a plain row of suite 01 can follow that has the same.
    head: Option<&'a [u8; HEADER_LEN + PREFIX_LEN]>,
    rows: usize,
}

impl Run<'_> {
    /// What follows the prefix of a row that belongs to the run. All that was checked of the first row holds for it: suite, scope and key are
    /// in the header.
    #[inline]
    fn next<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        // Compared where they are: a copy that is compared at once waits for its stores.
        let (head, body) = bytes.split_first_chunk::<{ HEADER_LEN + PREFIX_LEN }>()?;
        let is_next = self.head == Some(head) && Sealed::has_length_of(Suite::Field, bytes);
        is_next.then_some(body)
    }
}

/// Decrypts values of one field under one scope and context. Cannot encrypt; shared freely between threads.
///
/// ```
/// fn read(decryptor: &keyfold::Decryptor, sealed: &[u8]) -> keyfold::Result<keyfold::Opened> {
///     decryptor.decrypt(sealed, None)
/// }
/// ```
///
/// ```compile_fail,E0599
/// fn write(decryptor: &keyfold::Decryptor) {
///     let _ = decryptor.encrypt(keyfold::Value::Text("x"), None);
/// }
/// ```
pub struct Decryptor {
    pub(super) ring: Keyring,
    pub(super) policy: Arc<FieldPolicy>,
    pub(super) bound: Bound,
    pub(super) slots: Slots,
    pub(super) current: Option<Arc<CurrentKey>>,
    /// The keys that were loaded. Replaced as a whole, so that readers on many threads never meet.
    pub(super) held: ArcSwap<Held>,
    pub(super) uses: Uses,
    pub(super) passed: Passed,
}

impl Decryptor {
    /// The policy of the field.
    #[must_use]
    pub fn policy(&self) -> &FieldPolicy {
        &self.policy
    }

    /// The state of the key `key_id`, as the store says now, if values of `suite` may be under it in this field and scope. Opens
    /// nothing: what a header claims is not authenticated.
    ///
    /// # Errors
    ///
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): the policy does not accept the suite.
    /// - [`NoMatchingKey`](ErrorKind::NoMatchingKey), [`WrongScope`](ErrorKind::WrongScope),
    ///   [`RecordRejected`](ErrorKind::RecordRejected): the keyring has no such key, or has it for something else.
    /// - [`Store`](ErrorKind::Store), [`Closed`](ErrorKind::Closed).
    pub async fn key_state(&self, suite: Suite, key_id: KeyId) -> Result<KeyState> {
        self.ring.state_in(key_id, self.slot_of(suite)?).await
    }

    /// Acquires the keys that `sealed` needs and that this handle does not hold yet, and has those renewed that are due.
    /// Costs a few loads when there is nothing to do.
    ///
    /// Values that are not well-formed are passed over here; decrypting them says what is wrong. Where the policy
    /// accepts frames, the records in a frame count if the store does not have its key.
    ///
    /// # Errors
    ///
    /// - [`NoMatchingKey`](ErrorKind::NoMatchingKey), [`WrongScope`](ErrorKind::WrongScope),
    ///   [`RecordRejected`](ErrorKind::RecordRejected), [`KeyState`](ErrorKind::KeyState), [`Kms`](ErrorKind::Kms),
    ///   [`Store`](ErrorKind::Store), with the row. Keys of earlier rows are held.
    /// - [`Closed`](ErrorKind::Closed): after [`Keyring::close`].
    pub async fn load_keys(&self, sealed: &(impl ColumnBytes + ?Sized)) -> Result<(), RowError> {
        let loaded = self.load_keys_of(sealed).await;
        loaded.inspect_err(|failure| self.uses.count_failure(failure.error.kind()))
    }

    async fn load_keys_of(&self, sealed: &(impl ColumnBytes + ?Sized)) -> Result<(), RowError> {
        let now = self.ring.time();
        if let Some(current) = self.current.as_ref().filter(|current| current.needs_renewal(now)) {
            // Boxed, as below: what is seldom done must not make every call's future large.
            Box::pin(self.ring.look_at_newest(current)).await;
        }
        // The header of the last plain row, which names suite and key. Rows that have it too, as nearly all of a column do, are not looked
        // at any further.
        let mut last: Option<&[u8; HEADER_LEN]> = None;
        for row in 0..sealed.len() {
            let bytes = sealed.bytes(row);
            if last.is_some_and(|header| bytes.starts_with(header)) {
                continue;
            }
            let Ok(taken) = self.take_apart(bytes) else { continue };
            if let Some(frame) = &taken.frame {
                let Ok(slot) = self.slot_of(taken.sealed.suite()) else { continue };
                self.load_framed(frame, slot, now).await.map_err(RowError::at(row))?;
                continue;
            }
            let key_id = taken.sealed.key_id();
            // Before anything else, because it is so nearly always: decrypting checks scope and suite.
            if let Some(held) = self.not_ready(key_id, now) {
                let Ok(slot) = self.slot_of(taken.sealed.suite()) else { continue };
                let key = match &held {
                    Some(key) => Box::pin(self.ring.renew_held(key)).await,
                    None => Box::pin(self.ring.acquire(key_id, slot)).await,
                };
                self.hold(key.map_err(RowError::at(row))?);
            }
            last = bytes.first_chunk();
        }
        Ok(())
    }

    /// Whether `sealed` names the key that seals, as [`load_keys`](Self::load_keys) last saw it, of whatever values. If not, encrypt
    /// the value again when convenient. Opens nothing: what a header claims is not authenticated.
    ///
    /// # Errors
    ///
    /// - [`Malformed`](ErrorKind::Malformed), [`Unsupported`](ErrorKind::Unsupported): not a value that this build opens.
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused), [`LimitExceeded`](ErrorKind::LimitExceeded): a frame that the policy does
    ///   not accept.
    pub fn is_current(&self, sealed: &[u8]) -> Result<bool> {
        Ok(self.newest() == Some(self.take_apart(sealed)?.sealed.key_id()))
    }

    /// `None`: the key is held and not due. Otherwise the key, if it is held.
    #[inline]
    fn not_ready(&self, key_id: KeyId, now: u64) -> Option<Option<Arc<OpenKey>>> {
        let held = self.held.load();
        let key = held.keys.get(&key_id);
        if key.is_some_and(|key| !key.needs_renewal(now)) { None } else { Some(key.cloned()) }
    }

    pub(super) fn hold(&self, key: Arc<OpenKey>) {
        self.held.rcu(|held| {
            let mut held = Held::clone(held);
            held.keys.insert(key.key_id, key.clone());
            held
        });
    }

    /// Decrypts one value.
    ///
    /// # Errors
    ///
    /// - [`Malformed`](ErrorKind::Malformed), [`Unsupported`](ErrorKind::Unsupported): not a value that this build opens.
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): the policy does not accept its suite.
    ///   [`LimitExceeded`](ErrorKind::LimitExceeded): a frame with more key records than the policy allows.
    /// - [`NoMatchingKey`](ErrorKind::NoMatchingKey): its key is not held; [`load_keys`](Self::load_keys) acquires it.
    /// - [`WrongScope`](ErrorKind::WrongScope): its key belongs to another scope, partition or class.
    /// - [`DeadlineExceeded`](ErrorKind::DeadlineExceeded): its key has been held for as long as the cache policy
    ///   allows; [`load_keys`](Self::load_keys) renews it. A key that was revoked gives the error that revoked it.
    /// - [`DecryptionFailed`](ErrorKind::DecryptionFailed): anything else. The plaintext has been erased.
    pub fn decrypt(&self, sealed: &[u8], row: Option<&[u8]>) -> Result<Opened> {
        let opened = self.ring.check_open().and_then(|()| {
            let taken = self.take_apart(sealed)?;
            self.open(&self.held.load(), &taken, row, self.ring.time())
        });
        opened.map_err(|error| self.uses.failed(error))
    }

    /// As [`decrypt`](Self::decrypt), unless [`load_keys`](Self::load_keys) has something to do for `sealed`, as it always has for a
    /// frame: `None`. One look at key and clock for both, for callers who must prepare to wait: an interpreter's lock, an event loop.
    ///
    /// # Errors
    ///
    /// As for [`decrypt`](Self::decrypt).
    pub fn decrypt_if_ready(&self, sealed: &[u8], row: Option<&[u8]>) -> Result<Option<Opened>> {
        let opened = self.ring.check_open().and_then(|()| {
            let now = self.ring.time();
            let taken = self.take_apart(sealed)?;
            let held = self.held.load();
            let is_held = |key: &Arc<OpenKey>| !key.needs_renewal(now);
            let is_ready = !self.current.as_ref().is_some_and(|current| current.needs_renewal(now))
                && taken.frame.is_none()
                && held.keys.get(&taken.sealed.key_id()).is_some_and(is_held);
            if is_ready { self.open(&held, &taken, row, now).map(Some) } else { Ok(None) }
        });
        opened.map_err(|error| self.uses.failed(error))
    }

    #[inline]
    fn open(&self, held: &Held, taken: &Taken<'_>, row: Option<&[u8]>, now: u64) -> Result<Opened> {
        let sealed = taken.sealed;
        let key = self.key_of(held, taken, now)?;
        let value = match (sealed.suite(), &key.material) {
            (Suite::Field, Material::Data { field: key, .. }) => {
                self.bound.aad.of_one(sealed.header(), row, |aad| OpenedValue::field(key, &sealed, aad))?
            }
            (Suite::Deterministic, Material::Lookup { siv, .. }) => {
                refuse_row(row)?;
                OpenedValue::deterministic(siv, &sealed, &self.bound.strings)?
            }
            _ => return Err(WRONG_CLASS),
        };
        self.uses.count(sealed.key_id(), Use::Opened, 1);
        let is_current = self.newest() == Some(sealed.key_id());
        Ok(Opened { value, is_current, is_compromised: key.is_compromised() })
    }

    /// Decrypts a column; the keys must be held.
    ///
    /// # Errors
    ///
    /// As for [`decrypt`](Self::decrypt), with the row. The plaintext of the other rows has been erased.
    pub fn decrypt_column(
        &self,
        sealed: &(impl ColumnBytes + ?Sized),
        rows: Option<&(impl ColumnBytes + ?Sized)>,
    ) -> Result<OpenedColumn, RowError> {
        self.open_column(sealed, rows).inspect_err(|failure| self.uses.count_failure(failure.error.kind()))
    }

    fn open_column(
        &self,
        sealed: &(impl ColumnBytes + ?Sized),
        rows: Option<&(impl ColumnBytes + ?Sized)>,
    ) -> Result<OpenedColumn, RowError> {
        check_rows(sealed.len(), rows)?;
        let mut opening = Opening::new(sealed);
        let mut aad = self.bound.aad.clone();
        self.ring.check_open()?;
        let (held, newest) = (self.held.load(), self.newest());
        let mut batch = self.uses.batch(Use::Opened);
        let mut count = |run: Run<'_>, opening: &mut Opening| {
            batch.add(run.key.key_id, run.rows);
            opening.count(run.rows, newest != Some(run.key.key_id), run.key.is_compromised());
        };
        let mut run: Option<Run<'_>> = None;
        for row in 0..sealed.len() {
            let (bytes, binding) = (sealed.bytes(row), rows.map(|r| r.bytes(row)));
            if let Some(run) = &mut run
                && let Some(body) = run.next(bytes)
            {
                aad.of_row(binding).and_then(|aad| opening.next_field(body, aad)).map_err(RowError::at(row))?;
                run.rows += 1;
                continue;
            }
            let last = run.as_ref().filter(|run| run.is_plain).map(|run| run.key);
            let first =
                self.open_first(&held, last, bytes, binding, &mut opening, &mut aad).map_err(RowError::at(row))?;
            if let Some(run) = run.replace(first) {
                count(run, &mut opening);
            }
        }
        if let Some(run) = run {
            count(run, &mut opening);
        }
        // Keys are gone before anything else is written down, into which parts of them could be copied from the stack.
        let opened = opening.finish();
        batch.finish();
        Ok(opened)
    }

    /// Opens a row that may differ in everything from the row before, whose key is `last`.
    fn open_first<'a>(
        &self,
        held: &'a Held,
        last: Option<&'a OpenKey>,
        bytes: &'a [u8],
        row: Option<&[u8]>,
        opening: &mut Opening,
        aad: &mut Aad,
    ) -> Result<Run<'a>> {
        let taken = self.take_apart(bytes)?;
        let sealed = taken.sealed;
        // The last key again, unless it or this one comes from a frame, which opens itself alone.
        let key = match last {
            Some(key) if taken.is_plain_under(key) && self.slot_of(sealed.suite())? == key.slot => key,
            _ => self.key_of(held, &taken, self.ring.time())?,
        };
        match (sealed.suite(), &key.material) {
            (Suite::Field, Material::Data { field: key, .. }) => {
                aad.set_header(sealed.header());
                opening.field(key, &sealed, aad.of_row(row)?)?;
            }
            (Suite::Deterministic, Material::Lookup { siv, .. }) => {
                refuse_row(row)?;
                opening.deterministic(siv, &sealed, &self.bound.strings)?;
            }
            _ => return Err(WRONG_CLASS),
        }
        let is_plain = taken.frame.is_none();
        let head = bytes.first_chunk().filter(|_| is_plain && sealed.suite() == Suite::Field);
        Ok(Run { key, is_plain, head, rows: 1 })
    }

    /// The held key of a value, which must belong to the caller's scope or partition and be accepted by the policy.
    fn key_of<'h>(&self, held: &'h Held, taken: &Taken<'_>, now: u64) -> Result<&'h OpenKey> {
        let slot = self.slot_of(taken.sealed.suite())?;
        let key_id = taken.sealed.key_id();
        let framed = taken.frame.as_ref().and_then(|frame| self.framed_key(held, frame));
        let key = framed.or_else(|| held.keys.get(&key_id).map(|key| &**key)).ok_or_else(|| {
            Error::new(ErrorKind::NoMatchingKey, "the handle does not hold the key: call load_keys first")
                .with_detail(key_id.to_string())
        })?;
        if key.slot != slot {
            // F-8.1-9.
            return Err(Error::new(ErrorKind::WrongScope, "the key belongs to another scope, partition or class")
                .with_detail(key_id.to_string()));
        }
        key.check_usable(now)?;
        Ok(key)
    }

    /// The key that seals now, as far as is known.
    fn newest(&self) -> Option<KeyId> {
        self.current.as_ref().and_then(|current| current.key_id())
    }

    /// The scope or partition that a value of this suite must belong to.
    fn slot_of(&self, suite: Suite) -> Result<Slot> {
        let slot = match suite {
            Suite::Field => self.slots.data,
            Suite::Deterministic => self.slots.lookup,
            // What is in the frame must belong somewhere; the frame itself is `take_apart`'s.
            Suite::Frame | Suite::Stream | Suite::Document => None,
        };
        slot.filter(|_| self.policy.accepted_suites.contains(&suite)).ok_or_else(|| not_accepted(&self.policy, suite))
    }
}

impl core::fmt::Debug for Decryptor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Decryptor").field("field", &self.policy.name).finish_non_exhaustive()
    }
}
