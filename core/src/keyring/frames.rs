//! Keys that come with a value instead of from the store: frames (FORMAT.md §14, DESIGN F16).
//!
//! A frame is a store of two records that is asked when the store has none. Nothing is trusted because it came in a
//! frame: pins, endorsements by roots of the store, MACs and marks count as ever, and what the store says of a key wins.
//! What frames bring is kept apart, bounded by itself: it never seals, is never the current key of anything, and
//! however many frames arrive, no key of the keyring's own makes room for them.

use super::configured::Shares;
use super::open_key::{Material, OpenKey, OpenRoot};
use super::trust::Origin;
use super::unknown::{Quota, UnknownKeys};
use super::{Keyring, wrong_scope, wrong_state};
use crate::cache::{Cache, CachePolicy, Cached, Epoch, Lease, RETRY};
use crate::error::{Error, ErrorKind, Result};
use crate::high_water::MemoryHighWater;
use crate::record::{Record, rejected};
use crate::store::Slot;
use crate::wire::{Frame, KeyId, frame_head};
use arc_swap::ArcSwapOption;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// For how many roots a second, of frames that turn out to be no good, key services are asked.
const REFUSED_ROOTS: f64 = 10.0;
/// How many roots of the store are known by their commitments: more than lie between a pinned one and the newest.
const RECENT_ROOTS: usize = 64;

/// What a frame says before its value. By all of it and not by the key ID alone, so that a forged frame answers for
/// itself and not for a genuine one of the same key.
pub(crate) type FrameId = [u8; 32];

pub(crate) fn frame_id(frame: &Frame<'_>) -> FrameId {
    Sha256::digest(frame.head()).into()
}

/// The key of a frame.
pub(crate) enum FrameKey {
    /// The keyring's own, since the store has it.
    Own(Arc<OpenKey>),
    /// From the records of the frame.
    Framed(Arc<OpenKey>),
}

/// What is remembered of a frame.
enum Known {
    /// The store has the key: whatever the frame says does not count.
    Stored(Lease),
    Framed(Arc<OpenKey>),
}

impl Cached for Known {
    fn lease(&self) -> &Lease {
        match self {
            Self::Stored(lease) => lease,
            Self::Framed(key) => key.lease(),
        }
    }

    fn size(&self) -> usize {
        size_of::<Self>() + size_of::<OpenKey>()
    }

    fn is_usable(&self, now: u64) -> bool {
        match self {
            Self::Stored(lease) => lease.is_usable(now),
            Self::Framed(key) => key.is_usable(now),
        }
    }

    fn needs_renewal(&self, now: u64) -> bool {
        match self {
            Self::Stored(lease) => lease.needs_renewal(now),
            Self::Framed(key) => key.needs_renewal(now),
        }
    }

    fn extend(&self, now: u64, policy: &CachePolicy) -> bool {
        match self {
            Self::Stored(lease) => lease.extend(now, RETRY, policy),
            Self::Framed(key) => key.extend(now, policy),
        }
    }

    fn is_stale(&self, now: u64) -> bool {
        match self {
            Self::Stored(lease) => lease.is_stale(now),
            Self::Framed(key) => key.is_stale(now),
        }
    }
}

/// What frames brought.
// F-14.3-9, F-14.3-10.
pub(super) struct Frames {
    keys: Cache<(FrameId, Slot), Known>,
    /// By key ID and record.
    roots: Cache<(KeyId, [u8; 32]), OpenRoot>,
    /// What was seen of their keys. Counts for records of the store as well, and theirs count here.
    pub(super) seen: MemoryHighWater,
    /// What was refused, whatever for, by the slot that the caller stated.
    refused: UnknownKeys,
    /// Across all slots, as key services do not know them.
    refused_roots: Quota,
    stored_roots: ArcSwapOption<StoredRoots>,
    /// Whether a key ever came in a frame.
    has_brought: AtomicBool,
    epoch: Epoch,
}

/// The newest roots of the store, whether or not they are trusted.
struct StoredRoots {
    key_ids: Vec<KeyId>,
    lease: Lease,
}

impl Frames {
    pub(super) fn new(shares: &Shares, epoch: &Epoch) -> Self {
        Self {
            keys: Cache::new("frame_keys", shares.frame_keys, epoch),
            roots: Cache::new("frame_roots", shares.frame_roots, epoch),
            seen: MemoryHighWater::with_capacity(shares.frame_seen),
            refused: UnknownKeys::default(),
            refused_roots: Quota::new(REFUSED_ROOTS),
            stored_roots: ArcSwapOption::empty(),
            has_brought: AtomicBool::new(false),
            epoch: epoch.clone(),
        }
    }

    pub(super) fn set_bounds(&self, shares: &Shares) {
        self.keys.set_bounds(shares.frame_keys);
        self.roots.set_bounds(shares.frame_roots);
    }

    /// Forgets what has idled. Nothing is renewed without the frame that brought it.
    pub(super) fn sweep(&self, now: u64) {
        self.keys.sweep(now);
        self.roots.sweep(now);
    }

    pub(super) fn close(&self) {
        self.keys.close();
        self.roots.close();
    }

    /// Has the store asked before anything is next used, if any key ever came in a frame: a key was taken out of service,
    /// and handles hold those of frames when the cache no longer does.
    pub(super) fn ask_again(&self) {
        if self.has_brought.load(Ordering::SeqCst) {
            self.epoch.advance();
        }
    }

    pub(super) fn occupancy(&self) -> [(usize, usize); 2] {
        [self.keys.occupancy(), self.roots.occupancy()]
    }

    /// The root, if another record of it was opened: then this one costs no request.
    fn root(&self, key_id: KeyId, now: u64) -> Option<Arc<OpenRoot>> {
        let roots = self.roots.sweep(now).into_iter();
        roots.filter(|root| root.key.0 == key_id && root.value.is_usable(now)).map(|root| root.value).next()
    }

    /// The key IDs of roots that frames brought and a KEK unwrapped.
    fn root_ids(&self, now: u64) -> impl Iterator<Item = KeyId> {
        self.roots.sweep(now).into_iter().map(|root| root.key.0)
    }
}

impl Keyring {
    /// Replaces the key records in `frame` by those that the store holds now: after a KEK or a root was replaced, or
    /// where the frame's records are older than what its reader has seen. The value stays as it is, byte for byte, and
    /// is not opened.
    ///
    /// Reads two records. One request to the key service if the root is not in memory.
    ///
    /// # Errors
    ///
    /// - [`Malformed`](ErrorKind::Malformed), [`Unsupported`](ErrorKind::Unsupported): not a frame that this build opens.
    /// - [`NoMatchingKey`](ErrorKind::NoMatchingKey): the store does not have the key.
    /// - [`KeyState`](ErrorKind::KeyState): nothing may be opened under it.
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): the key does not travel; see
    ///   [`Encryptor::encrypt_framed`](crate::Encryptor::encrypt_framed).
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): the records are longer than a frame can hold.
    /// - [`RecordRejected`](ErrorKind::RecordRejected), [`Kms`](ErrorKind::Kms), [`Store`](ErrorKind::Store).
    // F-14.1-6.
    pub async fn reframe(&self, frame: &[u8]) -> Result<Vec<u8>> {
        let frame = Frame::parse(frame)?;
        let mut out = self.frame_head(frame.key_id()).await?;
        out.extend_from_slice(frame.value());
        Ok(out)
    }

    /// What a frame around values of `key_id` says before the value: the records that the store holds now, once a
    /// trusted root has vouched for them.
    pub(crate) async fn frame_head(&self, key_id: KeyId) -> Result<Vec<u8>> {
        self.check_open()?;
        let record = self.record(key_id).await?;
        self.verify(&record).await?;
        // F-14.4-2.
        // Wrapped by KEKs itself, so that it can be destroyed for good: it must not live on in a queue (DESIGN K15).
        if record.kek_aliases().next().is_some() {
            return Err(Error::new(ErrorKind::PolicyRefused, "the key of an isolated scope does not travel in frames")
                .with_detail(key_id.to_string()));
        }
        let root = self.record(record.authenticator()).await?;
        self.verify(&root).await?;
        if let Some(unusable) = [&record, &root].into_iter().find(|record| !record.state().may_open()) {
            // F-14.4-1.
            return Err(wrong_state(unusable));
        }
        frame_head(&key_id, record.as_bytes(), root.as_bytes())
    }

    /// The key of `frame`, which must belong to `slot`: the store's where the store has it, otherwise the frame's.
    pub(crate) async fn acquire_framed(&self, frame: &Frame<'_>, slot: Slot) -> Result<FrameKey> {
        self.check_open()?;
        let key_id = frame.key_id();
        let is_own = self.inner.keys.get(&(key_id, slot), self.time()).is_some_and(|key| key.is_usable(self.time()));
        if !is_own {
            let policy = self.configured().keyring.cache;
            let fetch = async |present: Option<&Arc<Known>>| self.read_frame(frame, slot, present).await;
            let id = (frame_id(frame), slot);
            let known = self.inner.frames.keys.get_or_fetch(&id, || self.time(), &policy, fetch).await?;
            if let Known::Framed(key) = &*known {
                return Ok(FrameKey::Framed(key.clone()));
            }
        }
        self.acquire(key_id, slot).await.map(FrameKey::Own)
    }

    async fn read_frame(&self, frame: &Frame<'_>, slot: Slot, present: Option<&Arc<Known>>) -> Result<Arc<Known>> {
        let refused = &self.inner.frames.refused;
        if present.is_none() && refused.check(slot.id, self.time()).is_err() {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                "more than 1,000 frames within a second brought keys that were refused: frames whose keys are not in memory are looked at again in a moment",
            ));
        }
        let key_id = frame.key_id();
        let framed = match present.map(|known| &**known) {
            Some(Known::Framed(key)) => Some(key),
            _ => None,
        };
        // F-14.3-1.
        if self.is_stored(key_id).await? {
            if let Some(key) = framed {
                key.lease.end(&Error::new(
                    ErrorKind::DeadlineExceeded,
                    "the store has the key of the frame by now: await load_keys() and repeat",
                ));
            }
            let check_every = self.configured().keyring.cache.check_every;
            return Ok(Arc::new(Known::Stored(Lease::new(&self.inner.epoch, self.time(), check_every))));
        }
        // Before the records are judged: whoever takes a key out of service meanwhile has it judged again.
        self.inner.frames.has_brought.store(true, Ordering::SeqCst);
        let opened = self.open_framed(frame, slot, framed).await.map(Known::Framed).map(Arc::new);
        // A key that is in memory was genuine once, and whoever stops it floods nobody.
        if present.is_none() && opened.as_ref().is_err_and(|error| error.kind() != ErrorKind::Store) {
            refused.count_refused(slot.id, self.time());
        }
        opened
    }

    /// Opens the key in the records of `frame`; with `present` only confirms that it may still be used.
    async fn open_framed(&self, frame: &Frame<'_>, slot: Slot, present: Option<&Arc<OpenKey>>) -> Result<Arc<OpenKey>> {
        let key_id = frame.key_id();
        let presumed = present.map(|present| present.presumed());
        // F-14.3-2, F-14.3-3.
        let record = self.framed_record(key_id, frame.record())?;
        self.check_framed_age(&record)?;
        let root = self.framed_root(&record, frame.root_record()).await?;
        // F-14.3-6.
        root.verify(&record)?;
        self.remember_in(&self.inner.frames.seen, &record)?;
        if record.slot() != slot {
            return Err(wrong_scope(key_id));
        }
        self.check_opens(&record)?;
        let age = self.configured().keyring.cache.max_age;
        if let Some((present, presumed)) =
            present.zip(presumed).filter(|(present, _)| Arc::ptr_eq(&present.root, &root))
        {
            present.confirm_state(presumed, record.state());
            present.lease.renew(self.time(), age)?;
            return Ok(present.clone());
        }
        let schedule = root.unwrap_child(&record)?;
        let material = Material::of(record.class(), &schedule, self.inner.backend)
            .ok_or_else(|| rejected(&record, "keys of its class seal no values"))?;
        self.check_memory()?;
        tracing::debug!(key_id = %key_id, class = record.class().name(), "key opened from a frame");
        let lease = Lease::new(&self.inner.epoch, self.time(), age);
        Ok(Arc::new(OpenKey::new(key_id, slot, record.state(), material, lease, root, None)))
    }

    /// The root of `record`: the store's where the store has it, otherwise that of `bytes`, which must be its record
    /// either way.
    async fn framed_root(&self, record: &Record, bytes: &[u8]) -> Result<Arc<OpenRoot>> {
        let key_id = record.authenticator();
        let root_record = self.framed_record(key_id, bytes)?;
        let is_own = self.inner.roots.get(&key_id, self.time()).is_some_and(|root| root.is_usable(self.time()));
        // F-14.3-4.
        if is_own || self.is_stored(key_id).await? {
            let root = self.root(key_id).await?;
            root.verify(&root_record)?;
            return Ok(root);
        }
        self.check_framed_age(&root_record)?;
        let policy = self.configured().keyring.cache;
        let fetch = async |present: Option<&Arc<OpenRoot>>| self.read_framed_root(&root_record, present).await;
        let id = (key_id, Sha256::digest(bytes).into());
        self.inner.frames.roots.get_or_fetch(&id, || self.time(), &policy, fetch).await
    }

    // F-14.3-5.
    async fn read_framed_root(&self, record: &Record, present: Option<&Arc<OpenRoot>>) -> Result<Arc<OpenRoot>> {
        let frames = &self.inner.frames;
        // Who endorses it, if it is not pinned, is read from the store alone.
        self.check_trusted(record, 0).await?;
        if present.is_some() {
            return self.open_root(record, present, Origin::Frame).await;
        }
        if let Some(known) = frames.root(record.key_id(), self.time()) {
            known.verify(record)?;
            self.remember_in(&frames.seen, record)?;
            return Ok(known);
        }
        self.check_generation(record).await?;
        // Taken before the request and put back after a good one: however many are under way, no more can fail.
        if !frames.refused_roots.take(self.time()) {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                "more than 10 frames within a second brought roots that no KEK unwrapped: roots of frames that are not in memory are unwrapped again in a moment",
            ));
        }
        let opened = self.open_root(record, None, Origin::Frame).await?;
        frames.refused_roots.put_back(self.time());
        Ok(opened)
    }

    /// Refuses a root whose commitment is known under another generation. A commitment belongs to one only, and pins
    /// are public: whoever knows one can put it into records under as many key IDs as he likes, all of them wrong.
    // F-14.3-7.
    async fn check_generation(&self, record: &Record) -> Result<()> {
        let key_id = record.key_id();
        let same_commitment = |known: &KeyId| *known == KeyId::new(known.generation(), record.commitment());
        let stored = self.stored_roots().await?;
        let known = stored.key_ids.iter().copied().chain(self.inner.frames.root_ids(self.time()));
        if known.filter(same_commitment).any(|known| known != key_id) {
            return Err(rejected(record, "its commitment is that of a root of another generation"));
        }
        Ok(())
    }

    async fn stored_roots(&self) -> Result<Arc<StoredRoots>> {
        let frames = &self.inner.frames;
        if let Some(present) = frames.stored_roots.load_full().filter(|roots| !roots.lease.needs_renewal(self.time())) {
            return Ok(present);
        }
        // Begins before the store is read, as what it then shows may have changed by the end.
        let lease = Lease::new(&self.inner.epoch, self.time(), self.configured().keyring.cache.check_every);
        let records = self.shown(self.roots(), RECENT_ROOTS).await?;
        let roots = Arc::new(StoredRoots { key_ids: records.iter().map(Record::key_id).collect(), lease });
        frames.stored_roots.store(Some(roots.clone()));
        Ok(roots)
    }

    /// Refuses a record of a frame that is older than one seen before.
    // F-14.4-4.
    fn check_framed_age(&self, record: &Record) -> Result<()> {
        self.check_age(record).map_err(|error| match error.kind() {
            ErrorKind::RecordRejected => Error::new(
                ErrorKind::RecordRejected,
                "a key record in the frame is older than one seen before, or was edited: reframe the frame where the store has the key",
            )
            .with_detail(record.key_id().to_string()),
            _ => error,
        })
    }

    /// Whether the store has the key. A store that does not answer says nothing, so that its tombstones count.
    async fn is_stored(&self, key_id: KeyId) -> Result<bool> {
        match self.record(key_id).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NoMatchingKey => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The record in a frame that should be that of `key_id`. Nobody has vouched for it yet.
    fn framed_record(&self, key_id: KeyId, bytes: &[u8]) -> Result<Record> {
        let record = Record::parse(bytes)?;
        if record.key_id() != key_id {
            return Err(rejected(&record, "the frame carries it for another key ID"));
        }
        self.check_domain(&record)?;
        Ok(record)
    }
}
