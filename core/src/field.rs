//! Handles with field, scope and context already bound: encrypting and decrypting with held keys, without waiting.
//!
//! A little over 500 lines, half of them documentation: a call that encrypts is followed from top to bottom here.

mod clear;
mod decryptor;
mod framed;
mod index;
mod live;
pub(crate) mod opening;
mod preserve;
mod prove;
mod rebind;
pub(crate) mod sealing;
mod search;
mod stream;
pub(crate) mod used;

pub use clear::Revealed;
pub use decryptor::{Decryptor, Opened};
use decryptor::{Held, Slots};
pub use index::Indexer;
pub use preserve::FormatPreserver;
pub use prove::Prover;
pub use rebind::Rebinder;
pub use search::Searcher;

use crate::aead::SivKey;
use crate::audit::Use;
use crate::column::{
    Behind, ColumnBytes, ColumnValues, DeterministicSeal, FieldSeal, RowError, SealedColumn, SealedRows, Within,
    seal_value,
};
use crate::context::{Aad, Context, NameKind, Strings};
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::{CurrentKey, Keyring, Material, OpenKey};
use crate::keys::KeyClass;
use crate::policy::{FieldMode, FieldPolicy, RowBinding};
use crate::value::Value;
use crate::wire::{HEADER_LEN, KeyId, Suite};
use arc_swap::ArcSwap;
use std::sync::Arc;
use used::Uses;

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

    /// The policy of the field.
    #[must_use]
    pub fn policy(&self) -> &FieldPolicy {
        &self.policy
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
        let uses = Uses::new(&self.ring, &self.policy.name);
        self.make_encryptor().await.map_err(|error| uses.failed(error))
    }

    async fn make_encryptor(self) -> Result<Encryptor> {
        let bound = self.bind()?;
        let current = match &self.policy.mode {
            FieldMode::Deterministic { partition, .. } | FieldMode::Token { partition, .. } => {
                let keys = self.ring.lookup(partition)?;
                self.ring.current(self.ring.slot(KeyClass::Lookup, keys.partition), Some(keys.seals))
            }
            FieldMode::Randomized => self.ring.current(self.ring.data_slot_or_new(self.scope.as_deref()).await?, None),
            FieldMode::Document => return Err(of_documents(&self.policy)),
            FieldMode::Stream => return Err(of_streams(&self.policy)),
            FieldMode::FormatPreserving { .. } => return Err(no_suite(&self.policy)),
        };
        self.ring.ready(&current).await?;
        let uses = Uses::new(&self.ring, &self.policy.name);
        Ok(Encryptor { ring: self.ring, policy: self.policy, bound, current, uses })
    }

    /// A handle that decrypts. Never makes a scope.
    ///
    /// # Errors
    ///
    /// As for [`encryptor`](Self::encryptor), and [`NoMatchingKey`](ErrorKind::NoMatchingKey): there is no such scope.
    pub async fn decryptor(self) -> Result<Decryptor> {
        let uses = Uses::new(&self.ring, &self.policy.name);
        self.make_decryptor().await.map_err(|error| uses.failed(error))
    }

    // F-8.1-3.
    async fn make_decryptor(self) -> Result<Decryptor> {
        let bound = self.bind()?;
        match &self.policy.mode {
            FieldMode::Document => return Err(of_documents(&self.policy)),
            FieldMode::Stream => return Err(of_streams(&self.policy)),
            FieldMode::FormatPreserving { .. } => return Err(no_suite(&self.policy)),
            _ => {}
        }
        let mut slots = Slots::default();
        let mut current = None;
        if self.policy.accepted_suites.contains(&Suite::Field) {
            let slot = self.ring.data_slot(self.scope.as_deref()).await?;
            slots.data = Some(slot);
            current = Some(self.ring.current(slot, None));
        }
        if let Some(partition) = self.policy.deterministic_partition() {
            let keys = self.ring.lookup(partition)?;
            let slot = self.ring.slot(KeyClass::Lookup, keys.partition);
            slots.lookup = Some(slot);
            current = Some(self.ring.current(slot, Some(keys.seals)));
        }
        if let Some(current) = &current {
            self.ring.look_at_newest(current).await;
        }
        let uses = Uses::new(&self.ring, &self.policy.name);
        Ok(Decryptor {
            ring: self.ring,
            policy: self.policy,
            bound,
            slots,
            current,
            held: ArcSwap::default(),
            uses,
            passed: clear::Passed::default(),
        })
    }

    /// Before a handle is made. The field may be older than the configuration.
    // F-8.1-2.
    fn check(&self) -> Result<()> {
        self.ring.fips().check_field(&self.policy)?;
        for required in &self.policy.required_context {
            if !self.context.keys().any(|key| key == required) {
                return Err(Error::new(ErrorKind::PolicyRefused, "the policy requires a context key that is missing")
                    .with_detail(format!("field {}, key {required}", self.policy.name)));
            }
        }
        Ok(())
    }

    fn bind(&self) -> Result<Bound> {
        self.check()?;
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

/// The key that seals, for the length of a call. Does not count its users, whose number all threads would share.
struct SealingKey(arc_swap::Guard<Option<Arc<OpenKey>>>);

impl core::ops::Deref for SealingKey {
    type Target = OpenKey;

    #[inline]
    fn deref(&self) -> &OpenKey {
        self.0.as_deref().expect("a handle is made ready before it is given out")
    }
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
    uses: Uses,
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
        self.ring.ready(&self.current).await.map_err(|error| self.uses.failed(error))?;
        Ok(self)
    }

    /// Whether [`ready`](Self::ready) has nothing to do. For callers who must prepare to wait: an interpreter's lock, an event loop.
    #[inline]
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.current.is_ready(self.ring.time())
    }

    /// The key that seals, if it may be used now, with `n` values counted against its allowance.
    #[inline]
    fn key_for(&self, n: usize) -> Result<SealingKey> {
        let key = SealingKey(self.current.key());
        self.check(&key, n, self.ring.time())?;
        Ok(key)
    }

    #[inline]
    fn check(&self, key: &SealingKey, n: usize, now: u64) -> Result<()> {
        self.ring.check_open()?;
        self.current.check_seals(key, now)?;
        key.count(n as u64)
    }

    /// Bytes that [`encrypt`](Self::encrypt) makes of `value`. They depend on the type and the length of the value and on the
    /// padding of the policy alone.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): wrong type, no canonical encoding.
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): the value is too long.
    #[inline]
    pub fn sealed_len(&self, value: Value<'_>) -> Result<usize> {
        self.len_of(value).map_err(|error| self.uses.failed(error))
    }

    #[inline]
    fn len_of(&self, value: Value<'_>) -> Result<usize> {
        check_type(&self.policy, &value)?;
        value.check()?;
        self.policy.sealed_len(value.canonical_len())
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
    ///   [`KeyState`](ErrorKind::KeyState): its record lets it seal no more, as somebody in this process has heard meanwhile.
    ///   [`ready`](Self::ready) sees to all three. A key that was revoked gives the error that revoked it.
    pub fn encrypt(&self, value: Value<'_>, row: Option<&[u8]>) -> Result<Vec<u8>> {
        let sealed = self.len_of(value).and_then(|len| {
            let mut out = vec![0; len];
            self.seal(&self.key_for(1)?, value, row, &mut out)?;
            Ok(out)
        });
        sealed.map_err(|error| self.uses.failed(error))
    }

    /// As [`encrypt`](Self::encrypt), into the first bytes of `out`, whose number it returns: [`sealed_len`](Self::sealed_len). Allocates
    /// nothing.
    ///
    /// # Errors
    ///
    /// As for [`encrypt`](Self::encrypt), and [`InvalidInput`](ErrorKind::InvalidInput): `out` is too short. Nothing of the value is
    /// in `out`.
    pub fn encrypt_into(&self, value: Value<'_>, row: Option<&[u8]>, out: &mut [u8]) -> Result<usize> {
        let key = SealingKey(self.current.key());
        self.seal_into(&key, self.ring.time(), value, row, out).map_err(|error| self.uses.failed(error))
    }

    /// As [`encrypt_into`](Self::encrypt_into), unless [`ready`](Self::ready) has something to do: `None`, and nothing is sealed. One
    /// look at key and clock for both, for callers who must prepare to wait.
    ///
    /// # Errors
    ///
    /// As for [`encrypt_into`](Self::encrypt_into).
    pub fn encrypt_if_ready(&self, value: Value<'_>, row: Option<&[u8]>, out: &mut [u8]) -> Result<Option<usize>> {
        let (now, key) = (self.ring.time(), SealingKey(self.current.key()));
        if !self.current.is_ready_with(key.0.as_deref(), now) {
            return Ok(None);
        }
        self.seal_into(&key, now, value, row, out).map(Some).map_err(|error| self.uses.failed(error))
    }

    #[inline]
    fn seal_into(
        &self,
        key: &SealingKey,
        now: u64,
        value: Value<'_>,
        row: Option<&[u8]>,
        out: &mut [u8],
    ) -> Result<usize> {
        let len = self.len_of(value)?;
        let too_short = || Error::new(ErrorKind::InvalidInput, "the buffer is shorter than the sealed value");
        let out = out.get_mut(..len).ok_or_else(too_short)?;
        self.check(key, 1, now)?;
        self.seal(key, value, row, out)?;
        Ok(len)
    }

    /// Seals a value that has been checked, into the whole of `out`.
    #[inline]
    fn seal(&self, key: &SealingKey, value: Value<'_>, row: Option<&[u8]>, out: &mut [u8]) -> Result<()> {
        match &key.material {
            Material::Data { field: xaes, .. } => {
                seal_value(&key.key_id, xaes, &self.bound.aad, self.policy.padding, value, row, out)?;
            }
            Material::Lookup { siv, .. } => self.deterministic_seal(key.key_id, siv, row)?.value(value, out)?,
        }
        self.uses.count(key.key_id, Use::Sealed, 1);
        Ok(())
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
        let mut out = SealedColumn::default();
        self.encrypt_column_into(values, rows, &mut out)?;
        Ok(out)
    }

    /// As [`encrypt_column`](Self::encrypt_column), with the rows behind those that `out` has: for streams of batches, which need no
    /// buffers of their own.
    ///
    /// # Errors
    ///
    /// As for [`encrypt`](Self::encrypt), with the row of `values`. The rows of `out` are as before, and no others.
    pub fn encrypt_column_into(
        &self,
        values: &(impl ColumnValues + ?Sized),
        rows: Option<&(impl ColumnBytes + ?Sized)>,
        out: &mut SealedColumn,
    ) -> Result<(), RowError> {
        self.seal_column(values, rows, &mut Behind::new(out))
    }

    /// As [`encrypt_column`](Self::encrypt_column), into the first bytes of `data`, whose number it returns, and the first `rows + 1` of
    /// `offsets`. Allocates nothing that depends on the number of rows.
    ///
    /// # Errors
    ///
    /// As for [`encrypt`](Self::encrypt), with the row, and [`InvalidInput`](ErrorKind::InvalidInput): a buffer is too short. Nothing of
    /// the values is in `data`: both buffers are as before, or erased where randomness ran out half way.
    pub fn encrypt_column_into_slices(
        &self,
        values: &(impl ColumnValues + ?Sized),
        rows: Option<&(impl ColumnBytes + ?Sized)>,
        data: &mut [u8],
        offsets: &mut [i64],
    ) -> Result<usize, RowError> {
        let mut out = Within::new(data, offsets);
        self.seal_column(values, rows, &mut out)?;
        Ok(out.len())
    }

    /// As [`ready`](Self::ready) and [`encrypt_column`](Self::encrypt_column), under as many keys as it takes: where the column has more
    /// rows than the rotation policy lets a key seal, the next one seals the rest.
    ///
    /// # Errors
    ///
    /// As for both. [`LimitExceeded`](ErrorKind::LimitExceeded), of the whole call: the next key does not seal yet. What was sealed until
    /// then counts, and is not returned.
    pub async fn encrypt_parts(
        &self,
        values: &(impl ColumnValues + ?Sized),
        rows: Option<&(impl ColumnBytes + ?Sized)>,
    ) -> Result<SealedColumn, RowError> {
        let mut out = SealedColumn::default();
        self.encrypt_parts_into(values, rows, &mut out).await?;
        Ok(out)
    }

    /// As [`encrypt_parts`](Self::encrypt_parts), with the rows behind those that `out` has.
    ///
    /// # Errors
    ///
    /// As for [`encrypt_parts`](Self::encrypt_parts). The rows of `out` are as before, and no others.
    pub async fn encrypt_parts_into(
        &self,
        values: &(impl ColumnValues + ?Sized),
        rows: Option<&(impl ColumnBytes + ?Sized)>,
        out: &mut SealedColumn,
    ) -> Result<(), RowError> {
        self.seal_parts(values, rows, &mut Behind::new(out)).await
    }

    /// As [`encrypt_parts`](Self::encrypt_parts), into buffers as [`encrypt_column_into_slices`](Self::encrypt_column_into_slices) does.
    ///
    /// # Errors
    ///
    /// As for [`encrypt_parts`](Self::encrypt_parts) and [`encrypt_column_into_slices`](Self::encrypt_column_into_slices). Both buffers
    /// are as before, or erased where a key cannot be had, or randomness ran out half way.
    pub async fn encrypt_parts_into_slices(
        &self,
        values: &(impl ColumnValues + ?Sized),
        rows: Option<&(impl ColumnBytes + ?Sized)>,
        data: &mut [u8],
        offsets: &mut [i64],
    ) -> Result<usize, RowError> {
        let mut out = Within::new(data, offsets);
        self.seal_parts(values, rows, &mut out).await?;
        Ok(out.len())
    }

    fn seal_column(
        &self,
        values: &(impl ColumnValues + ?Sized),
        rows: Option<&(impl ColumnBytes + ?Sized)>,
        out: &mut impl SealedRows,
    ) -> Result<(), RowError> {
        self.try_seal_column(values, rows, out).inspect_err(|failure| self.uses.count_failure(failure.error.kind()))
    }

    fn try_seal_column(
        &self,
        values: &(impl ColumnValues + ?Sized),
        rows: Option<&(impl ColumnBytes + ?Sized)>,
        out: &mut impl SealedRows,
    ) -> Result<(), RowError> {
        self.check_types(values)?;
        self.ring.check_memory()?;
        let n = values.len();
        let key = self.key_for(n)?;
        match &key.material {
            Material::Data { field: xaes, .. } => {
                let mut aad = self.bound.aad.clone();
                let mut seal = self.field_seal(&mut aad);
                let mut added = seal.begin(values, rows, out)?;
                seal.rows((&key.key_id, xaes), values, rows, 0..n, &mut added)?;
                added.finish();
            }
            Material::Lookup { siv, .. } => {
                self.deterministic_seal(key.key_id, siv, rows.map(|_| &[][..]))?.column_into(values, out)?;
            }
        }
        self.uses.count(key.key_id, Use::Sealed, n as u64);
        Ok(())
    }

    async fn seal_parts(
        &self,
        values: &(impl ColumnValues + ?Sized),
        rows: Option<&(impl ColumnBytes + ?Sized)>,
        out: &mut impl SealedRows,
    ) -> Result<(), RowError> {
        if self.policy.deterministic_partition().is_some() {
            self.ready().await?;
            return self.seal_column(values, rows, out);
        }
        let sealed = self.try_seal_parts(values, rows, out).await;
        sealed.inspect_err(|failure| self.uses.count_failure(failure.error.kind()))
    }

    async fn try_seal_parts(
        &self,
        values: &(impl ColumnValues + ?Sized),
        rows: Option<&(impl ColumnBytes + ?Sized)>,
        out: &mut impl SealedRows,
    ) -> Result<(), RowError> {
        self.check_types(values)?;
        self.ring.check_memory()?;
        let n = values.len();
        let mut aad = self.bound.aad.clone();
        let mut seal = self.field_seal(&mut aad);
        // First, so that a column that is refused counts for nothing.
        let mut added = seal.begin(values, rows, out)?;
        let (mut key, mut end) = self.ring.take(&self.current, |key| key.count_up_to(n)).await?;
        let mut start = 0;
        loop {
            let Material::Data { field: xaes, .. } = &key.material else { return Err(WRONG_CLASS.into()) };
            seal.rows((&key.key_id, xaes), values, rows, start..end, &mut added)?;
            self.uses.count(key.key_id, Use::Sealed, (end - start) as u64);
            if end == n {
                break;
            }
            start = end;
            let (next, taken) = self.ring.take(&self.current, |key| key.count_up_to(n - start)).await?;
            key = next;
            end = start + taken;
        }
        added.finish();
        Ok(())
    }

    fn check_types(&self, values: &(impl ColumnValues + ?Sized)) -> Result<(), RowError> {
        if self.policy.value_type.is_some() {
            for row in 0..values.len() {
                check_type(&self.policy, &values.value(row)).map_err(RowError::at(row))?;
            }
        }
        Ok(())
    }

    fn field_seal<'a>(&self, aad: &'a mut Aad) -> FieldSeal<'a> {
        FieldSeal { aad, padding: self.policy.padding, unlinkable: self.policy.unlinkable }
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

pub(crate) const WRONG_CLASS: Error =
    Error::new(ErrorKind::WrongScope, "the key is of a class that the suite does not use");

#[cold]
fn of_documents(policy: &FieldPolicy) -> Error {
    Error::new(ErrorKind::PolicyRefused, "the values of the field are sealed and opened with their documents")
        .with_detail(format!("field {}", policy.name))
}

#[cold]
fn of_streams(policy: &FieldPolicy) -> Error {
    Error::new(
        ErrorKind::PolicyRefused,
        "the field is one of streams: Field::stream_sealer and Field::stream_opener make its handles",
    )
    .with_detail(format!("field {}", policy.name))
}

#[cold]
fn no_suite(policy: &FieldPolicy) -> Error {
    Error::new(
        ErrorKind::PolicyRefused,
        "values that keep their format have no suite: Field::format_preserver replaces them",
    )
    .with_detail(format!("field {}", policy.name))
}

// F-3.1-2, F-8.1-8, F-14.2-4.
#[cold]
fn not_accepted(policy: &FieldPolicy, suite: Suite) -> Error {
    Error::new(ErrorKind::PolicyRefused, "the policy of the field does not accept this suite")
        .with_detail(format!("field {}, suite {suite}", policy.name))
}

#[inline]
pub(crate) fn check_type(policy: &FieldPolicy, value: &Value<'_>) -> Result<()> {
    match policy.value_type {
        Some(expected) if expected != value.value_type() && !matches!(value, Value::Null) => {
            Err(Error::new(ErrorKind::InvalidInput, "the value has another type than the policy gives the field")
                .with_detail(format!("{} is {}", policy.name, expected.name())))
        }
        _ => Ok(()),
    }
}

// F-5.1-2.
fn refuse_row(row: Option<&[u8]>) -> Result<()> {
    match row {
        None => Ok(()),
        Some(_) => Err(Error::new(ErrorKind::InvalidInput, "a deterministic field cannot be bound to its row")),
    }
}
