//! Handles with field, scope and context already bound: encrypting and decrypting with held keys, without waiting.

mod framed;
mod rebind;
mod search;

pub use rebind::Rebinder;
pub use search::Searcher;

use crate::aead::SivKey;
use crate::cache::Cached;
use crate::column::{
    ColumnBytes, ColumnValues, DeterministicSeal, FieldSeal, OpenedColumn, OpenedValue, Opening, RowError,
    SealedColumn, check_rows, seal_value,
};
use crate::context::{Aad, Context, NameKind, Strings};
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::{CurrentKey, Keyring, Material, OpenKey};
use crate::keys::KeyClass;
use crate::policy::{FieldMode, FieldPolicy, RowBinding};
use crate::store::Slot;
use crate::value::Value;
use crate::wire::{HEADER_LEN, KeyId, Sealed, Suite};
use arc_swap::ArcSwap;
use framed::{HeldFrames, Taken};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A field about to be bound. Made by [`Keyring::field`].
#[derive(Clone)]
pub struct Field {
    ring: Keyring,
    policy: Arc<FieldPolicy>,
    scope: Option<String>,
    context: Context,
}

impl Field {
    pub(crate) fn new(ring: Keyring, policy: Arc<FieldPolicy>) -> Self {
        Self { ring, policy, scope: None, context: Context::new() }
    }

    /// Uses the keys of this scope: a tenant, a clinic, a device. Ignored by deterministic fields, whose partition
    /// takes its place.
    #[must_use]
    pub fn scope(mut self, name: &str) -> Self {
        self.scope = Some(name.to_owned());
        self
    }

    /// Binds values to this context.
    #[must_use]
    pub fn context(mut self, context: Context) -> Self {
        self.context = context;
        self
    }

    /// A handle that encrypts. Makes the scope if the keyring has none of that name.
    ///
    /// At most one request to the key service per root key; none when the keyring is warm.
    ///
    /// # Errors
    ///
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): a required context key is missing; no key was touched.
    /// - Those of acquiring a key: [`RecordRejected`](ErrorKind::RecordRejected), [`KeyState`](ErrorKind::KeyState),
    ///   [`Kms`](ErrorKind::Kms), [`Store`](ErrorKind::Store).
    pub async fn encryptor(self) -> Result<Encryptor> {
        let bound = self.bind()?;
        let current = match &self.policy.mode {
            FieldMode::Deterministic { partition, .. } => {
                let keys = self.ring.lookup(partition)?;
                self.ring.current(self.ring.slot(KeyClass::Lookup, keys.partition), Some(keys.seals))
            }
            FieldMode::Randomized => self.ring.current(self.ring.data_slot_or_new(self.scope.as_deref()).await?, None),
        };
        self.ring.ready(&current).await?;
        Ok(Encryptor { ring: self.ring, policy: self.policy, bound, current })
    }

    /// A handle that decrypts. Never makes a scope.
    ///
    /// # Errors
    ///
    /// As for [`encryptor`](Self::encryptor), and [`NoMatchingKey`](ErrorKind::NoMatchingKey): there is no such scope.
    pub async fn decryptor(self) -> Result<Decryptor> {
        let bound = self.bind()?;
        let mut slots = Slots::default();
        let mut current = None;
        if self.policy.accepted_suites.contains(&Suite::Field) {
            let slot = self.ring.data_slot(self.scope.as_deref()).await?;
            slots.data = Some(slot);
            current = Some(self.ring.current(slot, None));
        }
        if let FieldMode::Deterministic { partition, .. } = &self.policy.mode {
            let keys = self.ring.lookup(partition)?;
            let slot = self.ring.slot(KeyClass::Lookup, keys.partition);
            slots.lookup = Some(slot);
            current = Some(self.ring.current(slot, Some(keys.seals)));
        }
        if let Some(current) = &current {
            self.ring.look_at_newest(current).await;
        }
        Ok(Decryptor { ring: self.ring, policy: self.policy, bound, slots, current, held: ArcSwap::default() })
    }

    fn bind(&self) -> Result<Bound> {
        for required in &self.policy.required_context {
            if !self.context.keys().any(|key| key == required) {
                return Err(Error::new(ErrorKind::PolicyRefused, "the policy requires a context key that is missing")
                    .with_detail(format!("field {}, key {required}", self.policy.name)));
            }
        }
        let (kind, name) = match &self.policy.mode {
            FieldMode::Deterministic { join_group: Some(group), .. } => (NameKind::JoinGroup, group),
            _ => (NameKind::Field, &self.policy.name),
        };
        let row_bound = self.policy.row_binding != RowBinding::None;
        Ok(Bound {
            aad: Aad::new(&[0; HEADER_LEN], &self.policy.name, &self.context, row_bound)?,
            strings: Strings::new(kind, name, &self.context)?,
        })
    }
}

impl core::fmt::Debug for Field {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Field").field("name", &self.policy.name).finish_non_exhaustive()
    }
}

/// What both handles authenticate.
struct Bound {
    aad: Aad,
    strings: Strings,
}

/// Encrypts values of one field under one scope and context. Cannot decrypt; shared freely between threads.
///
/// ```
/// fn write(encryptor: &keyfold::Encryptor) -> keyfold::Result<Vec<u8>> {
///     encryptor.encrypt(keyfold::Value::Text("x"), None)
/// }
/// ```
///
/// ```compile_fail,E0599
/// fn read(encryptor: &keyfold::Encryptor, sealed: &[u8]) {
///     let _ = encryptor.decrypt(sealed, None);
/// }
/// ```
pub struct Encryptor {
    ring: Keyring,
    policy: Arc<FieldPolicy>,
    bound: Bound,
    current: Arc<CurrentKey>,
}

impl Encryptor {
    /// The policy of the field.
    #[must_use]
    pub fn policy(&self) -> &FieldPolicy {
        &self.policy
    }

    /// The key that sealed last, or would now; [`ready`](Self::ready) may bring another.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        let key = self.current.key();
        key.as_deref().expect("a handle is made ready before it is given out").key_id
    }

    /// Makes sure that the handle seals under the current key, and that this key was confirmed within the times of the
    /// [`CachePolicy`](crate::CachePolicy). Await it before you seal: it costs a few loads unless there is something
    /// to do, and while one caller renews, the others go on.
    ///
    /// A rotation that is due by the rotation policy is done here, once, by whoever comes first.
    ///
    /// # Errors
    ///
    /// As for [`Field::encryptor`]; [`Closed`](ErrorKind::Closed) after [`Keyring::close`].
    pub async fn ready(&self) -> Result<&Self> {
        self.ring.ready(&self.current).await?;
        Ok(self)
    }

    /// The key that seals, if it may be used now, with `n` values counted against its allowance.
    #[inline]
    fn key_for(&self, n: usize) -> Result<Arc<OpenKey>> {
        self.ring.check_open()?;
        let key = self.current.key();
        let key = key.as_ref().expect("a handle is made ready before it is given out");
        key.check_usable(self.ring.time())?;
        key.count(n as u64)?;
        Ok(key.clone())
    }

    /// Encrypts one value, bound to `row` where the policy binds rows.
    ///
    /// Returns the binary form: 67 bytes more than the value (43 for a deterministic field) and padding.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): wrong type, no canonical encoding, row binding missing or not wanted.
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): the value or the row binding is too long.
    /// - [`RandomnessUnavailable`](ErrorKind::RandomnessUnavailable): nothing was sealed.
    /// - [`DeadlineExceeded`](ErrorKind::DeadlineExceeded): the key has been held for as long as the cache policy allows.
    ///   [`LimitExceeded`](ErrorKind::LimitExceeded): it has sealed as many values as the rotation policy allows.
    ///   [`ready`](Self::ready) sees to both. A key that was revoked gives the error that revoked it.
    pub fn encrypt(&self, value: Value<'_>, row: Option<&[u8]>) -> Result<Vec<u8>> {
        check_type(&self.policy, &value)?;
        let key = self.key_for(1)?;
        match &key.material {
            Material::Data(xaes) => seal_value(&key.key_id, xaes, &self.bound.aad, self.policy.padding, value, row),
            Material::Lookup { siv, .. } => {
                let sealed = self.deterministic_seal(key.key_id, siv, row)?.column(&[value][..])?;
                Ok(sealed.into_parts().0)
            }
        }
    }

    /// Encrypts a column, each value bound to its row where the policy binds rows.
    ///
    /// One output buffer, no allocation per row.
    ///
    /// # Errors
    ///
    /// As for [`encrypt`](Self::encrypt), with the row. Nothing is returned for the other rows.
    pub fn encrypt_column(
        &self,
        values: &(impl ColumnValues + ?Sized),
        rows: Option<&(impl ColumnBytes + ?Sized)>,
    ) -> Result<SealedColumn, RowError> {
        for row in 0..values.len() {
            check_type(&self.policy, &values.value(row)).map_err(|error| RowError { row, error })?;
        }
        let key = self.key_for(values.len()).map_err(|error| RowError { row: 0, error })?;
        match &key.material {
            Material::Data(xaes) => {
                let mut aad = self.bound.aad.clone();
                let (padding, unlinkable) = (self.policy.padding, self.policy.unlinkable);
                FieldSeal { key_id: key.key_id, key: xaes, aad: &mut aad, padding, unlinkable }.column(values, rows)
            }
            Material::Lookup { siv, .. } => self
                .deterministic_seal(key.key_id, siv, rows.map(|_| &[][..]))
                .map_err(|error| RowError { row: 0, error })?
                .column(values),
        }
    }

    fn deterministic_seal<'a>(
        &'a self,
        key_id: KeyId,
        key: &'a SivKey,
        row: Option<&[u8]>,
    ) -> Result<DeterministicSeal<'a>> {
        refuse_row(row)?;
        Ok(DeterministicSeal { key_id, key, strings: &self.bound.strings, padding: self.policy.padding })
    }
}

impl core::fmt::Debug for Encryptor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Encryptor")
            .field("field", &self.policy.name)
            .field("key_id", &self.key_id())
            .finish_non_exhaustive()
    }
}

const WRONG_CLASS: Error = Error::new(ErrorKind::WrongScope, "the key is of a class that the suite does not use");

#[cold]
fn not_accepted(policy: &FieldPolicy, suite: Suite) -> Error {
    Error::new(ErrorKind::PolicyRefused, "the policy of the field does not accept this suite")
        .with_detail(format!("field {}, suite {suite}", policy.name))
}

#[inline]
fn check_type(policy: &FieldPolicy, value: &Value<'_>) -> Result<()> {
    match policy.value_type {
        Some(expected) if expected != value.value_type() && !matches!(value, Value::Null) => {
            Err(Error::new(ErrorKind::InvalidInput, "the value has another type than the policy gives the field")
                .with_detail(format!("{} is {}", policy.name, expected.name())))
        }
        _ => Ok(()),
    }
}

fn refuse_row(row: Option<&[u8]>) -> Result<()> {
    match row {
        None => Ok(()),
        Some(_) => Err(Error::new(ErrorKind::InvalidInput, "a deterministic field cannot be bound to its row")),
    }
}

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
struct Slots {
    data: Option<Slot>,
    lookup: Option<Slot>,
}

/// The keys that a handle has loaded.
#[derive(Clone, Default)]
struct Held {
    keys: BTreeMap<KeyId, Arc<OpenKey>>,
    /// Those that frames brought. They open nothing but these frames.
    frames: HeldFrames,
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
    ring: Keyring,
    policy: Arc<FieldPolicy>,
    bound: Bound,
    slots: Slots,
    current: Option<Arc<CurrentKey>>,
    /// The keys that were loaded. Replaced as a whole, so that readers on many threads never meet.
    held: ArcSwap<Held>,
}

impl Decryptor {
    /// The policy of the field.
    #[must_use]
    pub fn policy(&self) -> &FieldPolicy {
        &self.policy
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
        let now = self.ring.time();
        if let Some(current) = self.current.as_ref().filter(|current| current.needs_renewal(now)) {
            // Boxed, as below: what is seldom done must not make every call's future large.
            Box::pin(self.ring.look_at_newest(current)).await;
        }
        let mut last = None;
        for row in 0..sealed.len() {
            let Ok(taken) = self.take_apart(sealed.bytes(row)) else { continue };
            if let Some(frame) = &taken.frame {
                let Ok(slot) = self.slot_of(taken.sealed.suite()) else { continue };
                self.load_framed(frame, slot, now).await.map_err(|error| RowError { row, error })?;
                continue;
            }
            let key_id = taken.sealed.key_id();
            if last == Some(key_id) {
                continue;
            }
            // Before anything else, because it is so nearly always: decrypting checks scope and suite.
            if let Some(held) = self.not_ready(key_id, now) {
                let Ok(slot) = self.slot_of(taken.sealed.suite()) else { continue };
                let key = match &held {
                    Some(key) => Box::pin(self.ring.renew_held(key)).await,
                    None => Box::pin(self.ring.acquire(key_id, slot)).await,
                };
                self.hold(key.map_err(|error| RowError { row, error })?);
            }
            last = Some(key_id);
        }
        Ok(())
    }

    /// `None`: the key is held and not due. Otherwise the key, if it is held.
    #[inline]
    fn not_ready(&self, key_id: KeyId, now: u64) -> Option<Option<Arc<OpenKey>>> {
        let held = self.held.load();
        let key = held.keys.get(&key_id);
        if key.is_some_and(|key| !key.needs_renewal(now)) { None } else { Some(key.cloned()) }
    }

    fn hold(&self, key: Arc<OpenKey>) {
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
        self.ring.check_open()?;
        let taken = self.take_apart(sealed)?;
        let sealed = taken.sealed;
        let held = self.held.load();
        let key = self.key_of(&held, &taken)?;
        let value = match (sealed.suite(), &key.material) {
            (Suite::Field, Material::Data(key)) => {
                self.bound.aad.of_one(sealed.header(), row, |aad| OpenedValue::field(key, &sealed, aad))?
            }
            (Suite::Deterministic, Material::Lookup { siv, .. }) => {
                refuse_row(row)?;
                OpenedValue::deterministic(siv, &sealed, &self.bound.strings)?
            }
            _ => return Err(WRONG_CLASS),
        };
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
        check_rows(sealed.len(), rows)?;
        let mut opening = Opening::new(sealed);
        let mut aad = self.bound.aad.clone();
        let at_row = |error| RowError { row: 0, error };
        self.ring.check_open().map_err(at_row)?;
        let (held, newest) = (self.held.load(), self.newest());
        let mut last: Option<&OpenKey> = None;
        for row in 0..sealed.len() {
            let opened = self.take_apart(sealed.bytes(row)).and_then(|taken| {
                // The last key again, unless it or this one comes from a frame, which opens itself alone.
                let key = match last {
                    Some(key) if taken.is_plain_under(key) && self.slot_of(taken.sealed.suite())? == key.slot => key,
                    _ => self.key_of(&held, &taken)?,
                };
                last = taken.frame.is_none().then_some(key);
                self.open_row(key, &mut opening, &mut aad, &taken.sealed, rows.map(|r| r.bytes(row)))
            });
            let key_id = opened.map_err(|error| RowError { row, error })?;
            if newest != Some(key_id) {
                opening.count_outdated();
            }
            if last.is_some_and(OpenKey::is_compromised) {
                opening.count_compromised();
            }
        }
        Ok(opening.finish())
    }

    #[inline]
    fn open_row(
        &self,
        key: &OpenKey,
        opening: &mut Opening,
        aad: &mut Aad,
        sealed: &Sealed<'_>,
        row: Option<&[u8]>,
    ) -> Result<KeyId> {
        match (sealed.suite(), &key.material) {
            (Suite::Field, Material::Data(key)) => opening.field(key, sealed, aad.of_row(sealed.header(), row)?)?,
            (Suite::Deterministic, Material::Lookup { siv, .. }) => {
                refuse_row(row)?;
                opening.deterministic(siv, sealed, &self.bound.strings)?;
            }
            _ => return Err(WRONG_CLASS),
        }
        Ok(sealed.key_id())
    }

    /// The held key of a value, which must belong to the caller's scope or partition and be accepted by the policy.
    fn key_of<'h>(&self, held: &'h Held, taken: &Taken<'_>) -> Result<&'h OpenKey> {
        let slot = self.slot_of(taken.sealed.suite())?;
        let key_id = taken.sealed.key_id();
        let framed = taken.frame.as_ref().and_then(|frame| self.framed_key(held, frame));
        let key = framed.or_else(|| held.keys.get(&key_id).map(|key| &**key)).ok_or_else(|| {
            Error::new(ErrorKind::NoMatchingKey, "the handle does not hold the key: call load_keys first")
                .with_detail(key_id.to_string())
        })?;
        if key.slot != slot {
            return Err(Error::new(ErrorKind::WrongScope, "the key belongs to another scope, partition or class")
                .with_detail(key_id.to_string()));
        }
        key.check_usable(self.ring.time())?;
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
            Suite::Frame => None,
        };
        slot.filter(|_| self.policy.accepted_suites.contains(&suite)).ok_or_else(|| not_accepted(&self.policy, suite))
    }
}

impl core::fmt::Debug for Decryptor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Decryptor").field("field", &self.policy.name).finish_non_exhaustive()
    }
}
