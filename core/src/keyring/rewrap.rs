//! Rewrapping (DESIGN K11, K14): the same keys under other KEKs, or under new versions of them. Touches the records of
//! roots and isolated keys alone: however many scopes there are, a change of KEK costs a few requests per root.
//!
//! A little over 500 lines: the walk, what it does to one record and what it counts are read together.

mod plan;

pub use plan::{KekCalls, RewrapPlan};

use super::Keyring;
use super::keks::{Unwrapped, Verdict, alarm_missing_wrap, is_live, unwrap_one, wrap_one};
use super::open_key::OpenRoot;
use super::trust::Origin;
use crate::audit::{AuditAction, AuditEvent};
use crate::cache::Lease;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::KeyClass;
use crate::kms::{KekAlias, WrapRequest, WrappedKey};
use crate::record::{KeyState, Record, RootKey};
use crate::wire::KeyId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How often one record is read again because somebody else changed it meanwhile.
const ATTEMPTS: usize = 8;
/// Records that are read from the store at once.
const PAGE: usize = 1000;

const COMPROMISED: &str = "a KEK or a root is compromised, and new wraps would not take back what its holder has: make a new \
    root without the KEK (keys rotate --root --drop-kek), pin it, reparent, mark the old root compromised, mark the data \
    keys compromised and seal their values again, then destroy-pending for the old root";

/// What a [`Rewrap`] is to do beside making the wraps that are missing. By default nothing: that is a repair.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RewrapOptions {
    /// KEKs that have a new version: each wrap by one of these is made anew.
    ///
    /// A wrap whose [`kek_version`](WrappedKey::kek_version) is that of a fresh one is left as it is if it unwraps, so that
    /// a run that was interrupted goes on where it stopped. Where a service names no version, a new run makes all wraps anew.
    pub renew: BTreeSet<KekAlias>,
    /// KEKs that are to wrap nothing any more: they go from each record when the others were verified. One that is still
    /// configured must be [`retired`](super::KekPolicy::retired), or the next repair would bring it back.
    pub drop: BTreeSet<KekAlias>,
}

impl RewrapOptions {
    /// Whether only missing wraps are made.
    #[must_use]
    pub fn is_repair(&self) -> bool {
        self.renew.is_empty() && self.drop.is_empty()
    }
}

/// A walk through the roots and the isolated keys of a keyring that gives each the wraps it should have. Made by
/// [`Keyring::rewrap`].
///
/// Nothing is lost if it stops anywhere: each record changes in one step, and no wrap goes before the others were
/// verified. A new walk passes over what is done already.
pub struct Rewrap {
    ring: Keyring,
    options: RewrapOptions,
    /// The KEKs that the configuration names for isolated scopes, by the keyed names of these.
    isolated: BTreeMap<[u8; 32], BTreeSet<KekAlias>>,
    /// Roots that are still to be looked at, the oldest last: it vouches for the next one.
    roots: Vec<KeyId>,
    after: Option<KeyId>,
    first_pass: bool,
    changed_in_this_pass: u64,
    /// What fresh wraps said of the KEKs' present versions.
    versions: BTreeMap<KekAlias, String>,
    /// Why KEKs did not wrap. They are not asked to wrap again by this walk.
    failures: BTreeMap<KekAlias, Error>,
    /// Records of which something could not be done.
    left: BTreeSet<KeyId>,
    progress: RewrapProgress,
}

/// How far a [`Rewrap`] has come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RewrapProgress {
    /// Records that were looked at.
    pub seen: u64,
    /// Records that were changed.
    pub changed: u64,
    /// Wraps that were missing and were made.
    pub added: u64,
    /// Wraps that were made anew.
    pub renewed: u64,
    /// Wraps that were dropped.
    pub dropped: u64,
    /// Wraps that were to be dropped and stay, because too few others were verified.
    pub kept: u64,
    /// Isolated keys that no KEK unwrapped, so that nothing could be done for them.
    pub unopened: u64,
    /// Whether the walk has come to its end; what others made meanwhile was looked at once more.
    pub done: bool,
}

/// What is to be done with one record.
#[derive(Default)]
struct Work {
    add: BTreeSet<KekAlias>,
    renew: BTreeSet<KekAlias>,
    drop: BTreeSet<KekAlias>,
    /// Wraps that must be proven before others are dropped.
    prove: BTreeSet<KekAlias>,
}

impl Keyring {
    /// Begins to give every root and every isolated key the wraps it should have: by each configured KEK that wraps roots,
    /// or by those of the scope. No data is touched, no other record changes, and values open all the while.
    ///
    /// Per record that changes one request to unwrap its key, and two per new wrap: to make it and to verify it. Records
    /// that are destroyed are left out, and so are compromised roots, which open nothing, and roots that were replaced and
    /// are neither pinned nor endorsed any more.
    ///
    /// With the default of `options` it is a repair: it makes up for KEKs that were away when a root was made, or were
    /// configured later.
    ///
    /// # Errors
    ///
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): wraps are to be renewed or dropped, and a KEK that wraps a root or
    ///   is named in `options`, or a root, is compromised; the text says what helps then. Or no KEK would be left.
    /// - [`InvalidInput`](ErrorKind::InvalidInput): a KEK is to be renewed that is to be dropped as well.
    /// - [`Configuration`](ErrorKind::Configuration): a KEK is to be renewed that is not configured; or one is to be dropped
    ///   that is configured and not retired, or that neither is configured nor wraps any record.
    /// - Those of acquiring a key, where the configuration names isolated scopes.
    pub async fn rewrap(&self, options: RewrapOptions) -> Result<Rewrap> {
        self.check_open()?;
        if let Some(both) = options.renew.intersection(&options.drop).next() {
            return Err(
                Error::new(ErrorKind::InvalidInput, "a KEK is either renewed or dropped").with_detail(both.as_str())
            );
        }
        let configured = self.configured();
        if let Some(unknown) = options.renew.iter().find(|alias| !configured.keks.contains_key(*alias)) {
            return Err(Error::new(
                ErrorKind::Configuration,
                "a KEK that is not configured here cannot wrap anything anew",
            )
            .with_detail(unknown.as_str()));
        }
        let mut isolated = BTreeMap::new();
        for (name, keks) in &configured.keyring.isolated {
            isolated.insert(self.scope_tag(name).await?, keks.iter().cloned().collect());
        }
        let mut rewrap = Rewrap {
            ring: self.clone(),
            options,
            isolated,
            roots: Vec::new(),
            after: None,
            first_pass: true,
            changed_in_this_pass: 0,
            versions: BTreeMap::new(),
            failures: BTreeMap::new(),
            left: BTreeSet::new(),
            progress: RewrapProgress::default(),
        };
        let roots = self.roots_in_use().await?;
        rewrap.refuse_pretence(&roots)?;
        self.check_dropped(&rewrap.options.drop).await?;
        rewrap.roots = roots.iter().map(Record::key_id).collect();
        Ok(rewrap)
    }

    /// Refuses to drop KEKs that nobody knows, and those that the next repair would have wrap again.
    async fn check_dropped(&self, dropped: &BTreeSet<KekAlias>) -> Result<()> {
        let configured = self.configured();
        let policy = &configured.keyring.keks;
        let mut unknown: BTreeSet<&KekAlias> = BTreeSet::new();
        for alias in dropped {
            if !configured.keks.contains_key(alias) {
                unknown.insert(alias);
            } else if policy.wraps_new(alias) {
                return Err(Error::new(
                    ErrorKind::Configuration,
                    "the KEK is to wrap new keys, and the next repair would bring it back: say `retired = true` in its \
                     section, or remove that, before its wraps are dropped",
                )
                .with_detail(alias.as_str()));
            }
        }
        let mut after = None;
        while !unknown.is_empty() {
            let page = self.inner.store.list(self.lineage(), after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key_id());
            for record in &page {
                unknown.retain(|unknown| record.kek_aliases().all(|alias| alias != *unknown));
            }
        }
        let Some(alias) = unknown.first() else { return Ok(()) };
        Err(Error::new(ErrorKind::Configuration, "the KEK to be dropped neither is configured nor wraps any key")
            .with_detail(alias.as_str()))
    }

    /// The roots, the newest first, without those that were replaced and are not trusted any more.
    pub(super) async fn roots_in_use(&self) -> Result<Vec<Record>> {
        let mut roots = Vec::new();
        for root in self.newest(self.roots(), usize::MAX).await? {
            if root.state() == KeyState::Active || self.may_be_trusted(&root).await? {
                roots.push(root);
            }
        }
        Ok(roots)
    }
}

impl Rewrap {
    /// How far the walk has come.
    #[must_use]
    pub fn progress(&self) -> RewrapProgress {
        self.progress
    }

    /// The KEKs that did not wrap or verify when they were asked to, each with the reason: what they lack is to be
    /// repaired by another walk.
    #[must_use]
    pub fn failures(&self) -> &BTreeMap<KekAlias, Error> {
        &self.failures
    }

    /// Goes on with at most `limit` records. Whoever must spare the store or the key services waits between the steps.
    ///
    /// # Errors
    ///
    /// - [`Kms`](ErrorKind::Kms): no KEK unwrapped a root.
    /// - [`RecordRejected`](ErrorKind::RecordRejected): no trusted root vouches for a record; what to do about it is for a
    ///   person to decide.
    /// - [`Store`](ErrorKind::Store), [`Closed`](ErrorKind::Closed), those of the audit sink.
    ///
    /// The step can be repeated in each case; what it had done before stays done.
    pub async fn step(&mut self, limit: usize) -> Result<RewrapProgress> {
        let ring = self.ring.clone();
        ring.check_open()?;
        let mut limit = limit.max(1);
        while let Some(&key_id) = self.roots.last() {
            if limit == 0 {
                return Ok(self.progress);
            }
            self.one(key_id).await?;
            self.roots.pop();
            self.progress.seen += u64::from(self.first_pass);
            limit -= 1;
        }
        let page = ring.inner.store.list(ring.lineage(), self.after, limit.max(1)).await?;
        if page.is_empty() {
            // What others made meanwhile is met on the next walk.
            self.progress.done = self.changed_in_this_pass == 0 || !self.first_pass;
            (self.after, self.changed_in_this_pass, self.first_pass) = (None, 0, false);
            if !self.progress.done {
                let roots = ring.roots_in_use().await?;
                self.roots = roots.iter().map(Record::key_id).collect();
            }
            return Ok(self.progress);
        }
        for record in page {
            if record.class() != KeyClass::Root {
                if record.is_isolated() {
                    self.one(record.key_id()).await?;
                }
                self.progress.seen += u64::from(self.first_pass);
            }
            self.after = Some(record.key_id());
        }
        Ok(self.progress)
    }

    /// Gives one record the wraps it should have.
    async fn one(&mut self, key_id: KeyId) -> Result<()> {
        let mut attempts_left = ATTEMPTS;
        loop {
            attempts_left -= 1;
            let record = self.ring.record(key_id).await?;
            let Some(work) = self.work_of(&record) else { return Ok(()) };
            let to_drop = work.drop.len();
            let rewrapped = self.rewrapped(&record, work).await?;
            if let Some((next, done)) = &rewrapped {
                let event = AuditEvent::new(AuditAction::Rewrap)
                    .key(key_id)
                    .detail("added", names(&done.add))
                    .detail("renewed", names(&done.renew))
                    .detail("dropped", names(&done.drop));
                match self.ring.maker().rewrap(next, record.sequence(), event).await {
                    Err(error) if error.kind() == ErrorKind::Conflict && attempts_left > 0 => continue,
                    replaced => replaced?,
                }
            }
            let kept = to_drop - rewrapped.as_ref().map_or(0, |(_, done)| done.drop.len());
            if kept > 0 {
                self.progress.kept += kept as u64;
                self.left.insert(key_id);
            }
            let Some((_, done)) = rewrapped else { return Ok(()) };
            self.changed_in_this_pass += 1;
            self.progress.changed += 1;
            self.progress.added += done.add.len() as u64;
            self.progress.renewed += done.renew.len() as u64;
            self.progress.dropped += done.drop.len() as u64;
            return Ok(());
        }
    }

    /// What is to be done with `record`, as far as it can be told without a key service; `None`: nothing.
    fn work_of(&self, record: &Record) -> Option<Work> {
        let dead = record.state() == KeyState::Destroyed
            || (record.class() == KeyClass::Root && record.state() == KeyState::Compromised);
        if dead || self.left.contains(&record.key_id()) {
            return None;
        }
        let present: BTreeMap<_, _> = record.kek_wraps().collect();
        let wanted = self.wanted(record);
        let is_current = |alias: &KekAlias| {
            let version = &present[alias].kek_version;
            !version.is_empty() && self.versions.get(alias) == Some(version)
        };
        let asked = |alias: &&KekAlias| !self.failures.contains_key(*alias);
        let add: BTreeSet<_> =
            wanted.iter().filter(|alias| !present.contains_key(alias)).filter(asked).cloned().collect();
        let renew: BTreeSet<_> = wanted
            .iter()
            .filter(|alias| self.first_pass && self.options.renew.contains(*alias))
            .filter(|alias| present.contains_key(alias) && !is_current(alias))
            .filter(asked)
            .cloned()
            .collect();
        let drop: BTreeSet<_> = self.options.drop.iter().filter(|alias| present.contains_key(alias)).cloned().collect();
        let proven = |alias: &&KekAlias| present.contains_key(*alias) && !renew.contains(*alias);
        let prove = if drop.is_empty() { BTreeSet::new() } else { wanted.iter().filter(proven).cloned().collect() };
        let nothing = add.is_empty() && renew.is_empty() && drop.is_empty();
        (!nothing).then_some(Work { add, renew, drop, prove })
    }

    /// The KEKs that should wrap `record`: configured, neither compromised nor retired, not to be dropped.
    fn wanted(&self, record: &Record) -> BTreeSet<KekAlias> {
        let configured = self.ring.configured();
        let policy = &configured.keyring.keks;
        let named: BTreeSet<KekAlias> = match record.class() {
            KeyClass::Root => self.ring.root_keks().into_keys().collect(),
            _ => match record.scope_tag().and_then(|tag| self.isolated.get(&tag)) {
                Some(named) => named.clone(),
                None => record.kek_aliases().cloned().collect(),
            },
        };
        let may_wrap = |alias: &KekAlias| {
            configured.keks.contains_key(alias) && policy.wraps_new(alias) && !self.options.drop.contains(alias)
        };
        named.into_iter().filter(may_wrap).collect()
    }

    /// The record that follows `record` when `work` is done, and what of it was; `None`: nothing.
    async fn rewrapped(&mut self, record: &Record, work: Work) -> Result<Option<(Record, Work)>> {
        let ring = self.ring.clone();
        let opened = self.open(record).await;
        let (root, unwrapped) = match opened {
            // A tenant that has closed its KEK does not keep the others from theirs.
            Err(error) if record.class() != KeyClass::Root && is_no_kek(&error) => {
                tracing::warn!(key_id = %record.key_id(), "no KEK unwraps an isolated key, which stays as it is: {error}");
                self.left.insert(record.key_id());
                self.progress.unopened += 1;
                return Ok(None);
            }
            opened => opened?,
        };
        let mut done = Work::default();
        let mut fresh: Vec<(KekAlias, WrappedKey)> = Vec::new();
        let mut verified = BTreeSet::new();
        for alias in work.add.iter().chain(&work.renew) {
            let present = record.kek_wraps().find(|(by, _)| *by == alias).map(|(_, wrapped)| wrapped);
            match self.fresh_wrap(record, alias, present, &unwrapped).await {
                Ok(Some(wrapped)) => {
                    fresh.push((alias.clone(), wrapped));
                    let kind = if present.is_none() { &mut done.add } else { &mut done.renew };
                    kind.insert(alias.clone());
                    verified.insert(alias.clone());
                }
                Ok(None) => drop(verified.insert(alias.clone())),
                Err(error) => self.failed(alias, error)?,
            }
        }
        for alias in &work.prove {
            let proven = match (ring.configured().keks.get(alias), record.kek_wraps().find(|(by, _)| *by == alias)) {
                (Some(kms), Some((_, wrapped))) => unwrap_one(&**kms, record, wrapped).await,
                _ => continue,
            };
            match proven {
                Ok(_) => drop(verified.insert(alias.clone())),
                // Of the present version, and damaged: it was to be made anew.
                Err(error) if Verdict::of(&error) == Verdict::WrongWrap && self.options.renew.contains(alias) => {
                    match self.fresh_wrap(record, alias, None, &unwrapped).await {
                        Ok(Some(wrapped)) => {
                            fresh.push((alias.clone(), wrapped));
                            done.renew.insert(alias.clone());
                            verified.insert(alias.clone());
                        }
                        Ok(None) => {}
                        Err(error) => self.failed(alias, error)?,
                    }
                }
                Err(error) => self.failed(alias, error)?,
            }
        }
        if self.may_drop(record, &verified) {
            done.drop = work.drop;
        }
        if fresh.is_empty() && done.drop.is_empty() {
            return Ok(None);
        }
        let now = ring.inner.store.now().await?;
        let next = root.rewrapped(record, |alias| done.drop.contains(alias), fresh, now)?;
        Ok(Some((next, done)))
    }

    /// The root that signs the next record, and the key of `record`, which is trusted.
    async fn open(&self, record: &Record) -> Result<(Arc<OpenRoot>, Unwrapped)> {
        let ring = &self.ring;
        if record.class() != KeyClass::Root {
            ring.verify(record).await?;
            let root = ring.voucher(record).await?;
            return Ok((root, ring.ask_keks(record, Origin::Store, None).await?));
        }
        ring.check_domain(record)?;
        ring.check_endorsed(record, 0).await?;
        let unwrapped = ring.ask_keks(record, Origin::Store, None).await?;
        let key = RootKey::new(ring.inner.backend, &unwrapped.schedule);
        key.verify(record)?;
        ring.remember(record)?;
        let policy = ring.configured().keyring.cache;
        let root = Arc::new(OpenRoot { key, lease: Lease::new(&ring.inner.epoch, ring.time(), policy.max_age) });
        if record.state().may_open() {
            // Whoever it vouches for need not ask a KEK for it once more.
            let fetched = async |_: Option<&Arc<OpenRoot>>| Ok(root.clone());
            ring.inner.roots.get_or_fetch(&record.key_id(), || ring.time(), &policy, fetched).await?;
        }
        Ok((root, unwrapped))
    }

    /// A wrap by the present version of the KEK that was unwrapped again; `None`: `present` is by that version, and unwraps.
    async fn fresh_wrap(
        &mut self,
        record: &Record,
        alias: &KekAlias,
        present: Option<&WrappedKey>,
        unwrapped: &Unwrapped,
    ) -> Result<Option<WrappedKey>> {
        let configured = self.ring.configured();
        let kms = configured.keks.get(alias).ok_or(ErrorKind::Configuration)?;
        let wrapped = wrap_one(&**kms, WrapRequest::new(&unwrapped.payload, &record.kms_context())).await?;
        self.versions.insert(alias.clone(), wrapped.kek_version.clone());
        let same = |present: &WrappedKey| !wrapped.kek_version.is_empty() && present.kek_version == wrapped.kek_version;
        if let Some(present) = present.filter(|present| same(present))
            && unwrap_one(&**kms, record, present).await.is_ok()
        {
            return Ok(None);
        }
        unwrap_one(&**kms, record, &wrapped).await?;
        Ok(Some(wrapped))
    }

    /// A KEK that does not answer keeps no other from its wraps; whatever else went wrong ends the step.
    fn failed(&mut self, alias: &KekAlias, error: Error) -> Result<()> {
        if Verdict::of(&error) == Verdict::Other {
            return Err(error);
        }
        alarm_missing_wrap(alias, &error);
        self.failures.insert(alias.clone(), error);
        Ok(())
    }

    /// Whether `verified` wraps are enough for `record` to be without the others: all that it should have or a quorum, and
    /// one at least that is asked without recovery mode.
    fn may_drop(&self, record: &Record, verified: &BTreeSet<KekAlias>) -> bool {
        let configured = self.ring.configured();
        let policy = &configured.keyring.keks;
        let usual = |alias: &KekAlias| policy.use_of(alias) == super::KekUse::Always;
        verified.len() >= policy.needed(self.wanted(record).len()) && verified.iter().any(usual)
    }

    /// Refuses to renew or drop wraps where that would only look like safety, or would leave roots without a KEK.
    fn refuse_pretence(&self, roots: &[Record]) -> Result<()> {
        if self.options.is_repair() {
            return Ok(());
        }
        let configured = self.ring.configured();
        let compromised = &configured.keyring.keks.compromised;
        let refused = |what: String| Err(Error::new(ErrorKind::PolicyRefused, COMPROMISED).with_detail(what));
        if let Some(alias) = self.options.renew.union(&self.options.drop).find(|alias| compromised.contains(*alias)) {
            return refused(format!("KEK {alias}"));
        }
        for root in roots.iter().filter(|root| is_live(root)) {
            if root.state() == KeyState::Compromised {
                return refused(format!("root {}", root.key_id()));
            }
            if let Some(alias) = root.kek_aliases().find(|alias| compromised.contains(*alias)) {
                return refused(format!("KEK {alias} of root {}", root.key_id()));
            }
            if self.options.drop.is_empty() {
                continue;
            }
            let policy = &configured.keyring.keks;
            let left = self.wanted(root);
            let usual = left.iter().any(|alias| policy.use_of(alias) == super::KekUse::Always);
            if !usual || policy.quorum.is_some_and(|quorum| left.len() < quorum) {
                return Err(Error::new(
                    ErrorKind::PolicyRefused,
                    "too few KEKs would be left: configure another one, always in use, before this one is dropped",
                )
                .with_detail(left.iter().map(KekAlias::as_str).collect::<Vec<_>>().join(", ")));
            }
        }
        Ok(())
    }
}

/// Whether the error says that no KEK gives the key: for now, in this mode, or on this machine.
fn is_no_kek(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Kms(_) | ErrorKind::PolicyRefused | ErrorKind::Configuration)
}

fn names(aliases: &BTreeSet<KekAlias>) -> String {
    aliases.iter().map(KekAlias::as_str).collect::<Vec<_>>().join(" ")
}

impl core::fmt::Debug for Rewrap {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Rewrap")
            .field("options", &self.options)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}
