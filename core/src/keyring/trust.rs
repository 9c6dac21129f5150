//! Which records count: of this keyring, vouched for by a trusted root, and not older than what was seen
//! (FORMAT.md §7.6, DESIGN K2 to K4).

use super::open_key::OpenRoot;
use super::{Keyring, wrong_state};
use crate::cache::Lease;
use crate::error::{Error, ErrorKind, Result};
use crate::high_water::{HighWater, HighWaterMark, MemoryHighWater};
use crate::keys::KeyClass;
use crate::kms::BoxFuture;
use crate::record::{KeyState, Record, RootKey, rejected};
use crate::store::Slot;
use crate::wire::KeyId;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use subtle::ConstantTimeEq;
use tracing::Instrument as _;

/// How many endorsements may lie between a root and a pinned one.
const MAX_ENDORSEMENT_DEPTH: usize = 16;
/// Nanoseconds for which it is not said again that a mark of what was only read could not be written: some machines only read theirs.
const MARKS_QUIET: u64 = 60_000_000_000;
/// How often a slot is read while its keys change under the reader. Each key changes state a few times in its life.
const READ_ATTEMPTS: usize = 8;

/// What is said of a key that is gone, behind its ID.
const LOST: &str = ": this machine has seen the key, so that the store lost it or is an older copy";

/// Where a record was found.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Origin {
    Store,
    Frame,
}

impl Keyring {
    /// What the store shows as the newest records of `slot`: of that slot and in descending order whatever it does.
    pub(super) async fn shown(&self, slot: Slot, limit: usize) -> Result<Vec<Record>> {
        let records = self.inner.store.newest(slot, limit).await?;
        if let Some(foreign) = records.iter().find(|record| record.slot() != slot) {
            return Err(rejected(foreign, "the store returned it for another scope, partition or class"));
        }
        if !records.is_sorted_by(|a, b| a.key_id() > b.key_id()) {
            return Err(Error::new(ErrorKind::RecordRejected, "the store returned key records out of order"));
        }
        Ok(records)
    }

    /// The newest records of `slot`, none older than what was seen of its key. Nobody has vouched for them yet.
    pub(super) async fn newest(&self, slot: Slot, limit: usize) -> Result<Vec<Record>> {
        let mut attempts_left = READ_ATTEMPTS;
        loop {
            attempts_left -= 1;
            let records = self.shown(slot, limit).await?;
            match records.iter().try_for_each(|record| self.check_age(record)) {
                // Or another thread or process changed it after it was read. Then the next answer is newer.
                Err(error) if error.kind() == ErrorKind::RecordRejected && attempts_left > 0 => {}
                checked => return checked.map(|()| records),
            }
        }
    }

    /// The record of `key_id`, not older than what was seen of it. Nobody has vouched for it yet.
    pub(super) async fn record(&self, key_id: KeyId) -> Result<Record> {
        // Looked up before the store is read: what another thread or process changes meanwhile is no rollback.
        let known = self.marks(key_id)?;
        let record = self.inner.store.get(self.lineage(), key_id).await?;
        let record = record.ok_or_else(|| {
            let lost = if was_stored(&known) { LOST } else { "" };
            Error::from(ErrorKind::NoMatchingKey).with_detail(format!("{key_id}{lost}"))
        })?;
        // Otherwise a store could have values sealed under one key and labelled with the ID of another.
        // F-7.6-6.
        if record.key_id() != key_id {
            return Err(rejected(&record, "the store returned it for another key ID"));
        }
        check_against(&known, &record)?;
        Ok(record)
    }

    /// Whether `record`, whose age was checked when it was read, counts: it belongs here and a trusted root vouches
    /// for it. Then nothing older will be accepted.
    pub(super) async fn verify(&self, record: &Record) -> Result<()> {
        self.verify_shown(record).await?;
        self.mark_out_of_service(record);
        Ok(())
    }

    /// As [`verify`](Self::verify), of one of any number of records that are only shown: none costs a write.
    pub(super) async fn verify_shown(&self, record: &Record) -> Result<()> {
        self.check_domain(record)?;
        self.voucher(record).await?.verify(record)?;
        self.remember(record)
    }

    /// The root that vouches for `record`. A root vouches for itself even where its state lets it open nothing.
    // F-7.6-7.
    pub(super) async fn voucher(&self, record: &Record) -> Result<Arc<OpenRoot>> {
        let itself = record.class() == KeyClass::Root && record.authenticator() == record.key_id();
        if !itself || record.state().may_open() || record.state() == KeyState::Destroyed {
            return self.root(record.authenticator()).await;
        }
        let policy = self.configured().keyring.cache;
        let fetch = async |present: Option<&Arc<OpenRoot>>| {
            self.check_endorsed(record, 0).await?;
            self.open_root(record, present, Origin::Store).await
        };
        self.inner.dead_roots.get_or_fetch(&record.key_id(), || self.time(), &policy, fetch).await
    }

    // F-7.6-6.
    pub(super) fn check_domain(&self, record: &Record) -> Result<()> {
        let configured = self.configured();
        let config = &configured.keyring;
        if record.lineage() != config.lineage {
            return Err(rejected(record, "it belongs to another keyring"));
        }
        if record.environment() != config.environment {
            return Err(rejected(record, "it belongs to another environment"));
        }
        Ok(())
    }

    /// What this process and this machine have seen of a key.
    fn marks(&self, key_id: KeyId) -> Result<[Option<HighWaterMark>; 3]> {
        let (inner, lineage) = (&*self.inner, self.lineage());
        let marks: [&dyn HighWater; 3] = [&inner.seen, &inner.frames.seen, &*inner.high_water];
        let [own, framed, machine] = marks.map(|marks| marks.mark(lineage, key_id));
        Ok([own?, framed?, machine?])
    }

    /// Whether this process or this machine has seen `key_id` in the store. Marks that cannot be read say nothing.
    pub(super) fn has_seen(&self, key_id: KeyId) -> bool {
        self.marks(key_id).is_ok_and(|known| was_stored(&known))
    }

    /// Refuses a record that is older than one seen before.
    pub(super) fn check_age(&self, record: &Record) -> Result<()> {
        check_against(&self.marks(record.key_id())?, record)
    }

    /// Remembers, for the life of the process, a record that a root vouches for.
    pub(super) fn remember(&self, record: &Record) -> Result<()> {
        self.remember_in(&self.inner.seen, record)
    }

    /// Gives a key that is out of service its mark where that is missing: whoever changed its state may not have been able to write
    /// it, and nobody makes the change again.
    fn mark_out_of_service(&self, record: &Record) {
        let (key_id, mark) = (record.key_id(), HighWaterMark::of(record));
        if record.class() == KeyClass::Root || matches!(mark.state, KeyState::PreActive | KeyState::Active) {
            return;
        }
        let known = self.inner.high_water.mark(record.lineage(), key_id);
        if known.is_ok_and(|known| known.is_none_or(|k| mark.sequence > k.sequence && mark.state != k.state)) {
            self.raise_marks(record, Some((key_id, mark)));
        }
    }

    pub(super) fn remember_in(&self, seen: &MemoryHighWater, record: &Record) -> Result<()> {
        let mark = (record.key_id(), HighWaterMark::of(record));
        let (lineage, generation) = (record.lineage(), record.key_id().generation());
        seen.raise(lineage, generation, Some(mark))?;
        // Outside of the process: how far the generations have come, and roots.
        let root = (record.class() == KeyClass::Root).then_some(mark);
        let marks = &self.inner.high_water;
        let news = generation > marks.generation(lineage)?
            || root.is_some_and(|(key_id, mark)| {
                marks.mark(lineage, key_id).is_ok_and(|known| known.is_none_or(|k| mark.sequence > k.sequence))
            });
        if news {
            self.raise_marks(record, root);
        }
        Ok(())
    }

    /// Raises the marks of the machine for what was only read. One that cannot write its marks can still read data, so this is best
    /// effort.
    fn raise_marks(&self, record: &Record, mark: Option<(KeyId, HighWaterMark)>) {
        let raised = self.inner.high_water.raise(record.lineage(), record.key_id().generation(), mark);
        let (now, quiet) = (self.time(), &self.inner.marks_quiet);
        if let Err(error) = raised
            && now >= quiet.load(Ordering::Relaxed)
        {
            quiet.store(now.saturating_add(MARKS_QUIET), Ordering::Relaxed);
            tracing::warn!("the high-water file was not raised: {error}");
        }
    }

    /// The root `key_id`, if it is pinned or a chain of endorsements leads from a pinned one to it.
    pub(super) async fn root(&self, key_id: KeyId) -> Result<Arc<OpenRoot>> {
        self.root_at_depth(key_id, 0).await
    }

    /// Refuses to endorse one more root after `record` where nobody who knows the configured pins alone would follow.
    pub(super) async fn refuse_long_chain(&self, mut record: Record) -> Result<()> {
        for _ in 1..MAX_ENDORSEMENT_DEPTH {
            match record.endorsed_by().filter(|_| !self.is_pinned(&record)) {
                Some(endorser) => record = self.record(endorser).await?,
                None => return Ok(()),
            }
        }
        Err(Error::new(
            ErrorKind::PolicyRefused,
            "too many roots since a pinned one: add the pin of the current root first",
        ))
    }

    // F-1-4.
    pub(super) fn is_pinned(&self, record: &Record) -> bool {
        self.configured().keyring.root_pins.iter().any(|pin| bool::from(pin.ct_eq(record.commitment())))
    }

    /// Whether `record`, a root, is pinned or says that a chain of endorsements leads to it from one that is. No key is
    /// needed to see that, nor is it proof. A root that has been replaced and whose pin is gone is nobody's any more.
    pub(super) async fn may_be_trusted(&self, record: &Record) -> Result<bool> {
        let mut record = record.clone();
        for _ in 0..=MAX_ENDORSEMENT_DEPTH {
            if self.is_pinned(&record) {
                return Ok(true);
            }
            let Some(endorser) = record.endorsed_by() else { return Ok(false) };
            record = match self.record(endorser).await {
                Err(error) if error.kind() == ErrorKind::NoMatchingKey => return Ok(false),
                endorser => endorser?,
            };
        }
        Ok(false)
    }

    fn root_at_depth(&self, key_id: KeyId, depth: usize) -> BoxFuture<'_, Result<Arc<OpenRoot>>> {
        Box::pin(async move {
            self.check_open()?;
            let policy = self.configured().keyring.cache;
            let fetch = async |present: Option<&Arc<OpenRoot>>| {
                let span = tracing::debug_span!("keyfold_acquire_key", %key_id, class = KeyClass::Root.name());
                self.read_root(key_id, depth, present).instrument(span).await
            };
            self.inner.roots.get_or_fetch(&key_id, || self.time(), &policy, fetch).await
        })
    }

    /// Reads the record of a root and has a KEK unwrap it; with `present` only to confirm that it still may be used.
    // F-7.6-1.
    async fn read_root(&self, key_id: KeyId, depth: usize, present: Option<&Arc<OpenRoot>>) -> Result<Arc<OpenRoot>> {
        let record = self.record(key_id).await.map_err(|error| match error.kind() {
            // Not `NoMatchingKey`: the key that was asked for exists, but nobody vouches for it.
            ErrorKind::NoMatchingKey if present.is_none() => Error::new(
                ErrorKind::RecordRejected,
                "the root that should vouch for the key record is not in the store",
            )
            .with_detail(key_id.to_string()),
            _ => error,
        })?;
        self.check_domain(&record)?;
        self.check_trusted(&record, depth).await?;
        self.open_root(&record, present, Origin::Store).await
    }

    /// Has a KEK unwrap the root of `record`, which is trusted, and remembers the record.
    pub(super) async fn open_root(
        &self,
        record: &Record,
        present: Option<&Arc<OpenRoot>>,
        origin: Origin,
    ) -> Result<Arc<OpenRoot>> {
        let seen = match origin {
            Origin::Store => &self.inner.seen,
            Origin::Frame => &self.inner.frames.seen,
        };
        let schedule = self.unwrap_by_keks(record, origin).await?;
        let age = self.configured().keyring.cache.max_age;
        if let Some(present) = present {
            present.verify(record)?;
            self.remember_in(seen, record)?;
            present.lease.renew(self.time(), age)?;
            return Ok(present.clone());
        }
        let key = RootKey::new(self.inner.backend, &schedule);
        self.check_memory()?;
        key.verify(record)?;
        self.remember_in(seen, record)?;
        Ok(Arc::new(OpenRoot { key, lease: Lease::new(&self.inner.epoch, self.time(), age) }))
    }

    /// Refuses a root that is neither pinned nor endorsed, or whose state lets nothing open, before any key service is
    /// called for it.
    // F-7.6-3.
    pub(super) async fn check_trusted(&self, record: &Record, depth: usize) -> Result<()> {
        self.check_endorsed(record, depth).await?;
        if record.state().may_open() { Ok(()) } else { Err(wrong_state(record)) }
    }

    // F-7.6-2.
    pub(super) async fn check_endorsed(&self, record: &Record, depth: usize) -> Result<()> {
        if record.class() != KeyClass::Root {
            return Err(rejected(record, "it is not a root, but another record names it as one"));
        }
        if !self.is_pinned(record) {
            let endorser = record
                .endorsed_by()
                .filter(|_| depth < MAX_ENDORSEMENT_DEPTH)
                .ok_or_else(|| rejected(record, "its root is neither pinned in the configuration nor endorsed"))?;
            // Chains go back in time. Without this a store could lay one in a ring, for readers to wait on each other.
            if endorser.generation() >= record.key_id().generation() {
                return Err(rejected(record, "its root is endorsed by one that is not older"));
            }
            self.root_at_depth(endorser, depth + 1).await?.verify_endorsement(record)?;
        }
        Ok(())
    }
}

/// Whether `known`, the marks of a key by the process, by frames and by the machine, say that the store had it: what came in a frame was
/// never there.
fn was_stored([own, _, machine]: &[Option<HighWaterMark>; 3]) -> bool {
    own.or(*machine).is_some()
}

/// Refuses a record that is older than one of `known`.
// F-7.6-9, F-14.3-8.
fn check_against(known: &[Option<HighWaterMark>], record: &Record) -> Result<()> {
    let mark = HighWaterMark::of(record);
    let older = |error: Error| error.with_detail(record.key_id().to_string());
    known.iter().flatten().try_for_each(|known| known.check(mark)).map_err(older)
}
