//! Values in frames: sealed with the key records that open them, and opened by those (FORMAT.md §14, DESIGN F16).

use super::{Decryptor, Encryptor, Held, not_accepted};
use crate::cache::Cached;
use crate::column::{ColumnBytes, ColumnValues, RowError, SealedColumn};
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::{FrameId, FrameKey, OpenKey, frame_id};
use crate::policy::FieldPolicy;
use crate::store::Slot;
use crate::value::Value;
use crate::wire::{Frame, MAGIC, Sealed, Suite};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The keys that frames brought, by what the frames say. As few as there are genuine records of keys of one scope.
pub(super) type HeldFrames = BTreeMap<FrameId, Arc<OpenKey>>;

/// A value, and the frame around it if there is one.
pub(super) struct Taken<'a> {
    pub(super) frame: Option<Frame<'a>>,
    pub(super) sealed: Sealed<'a>,
}

impl Taken<'_> {
    #[inline]
    pub(super) fn is_plain_under(&self, key: &OpenKey) -> bool {
        self.frame.is_none() && self.sealed.key_id() == key.key_id
    }
}

impl Encryptor {
    /// Encrypts one value as [`encrypt`](Self::encrypt) does, in a frame: with the records of its key and its root, as
    /// the store holds them now. Whoever has the keyring's configuration and a KEK opens it, even if his store does
    /// not have the records.
    ///
    /// Adds the records to the value, some 700 bytes with one KEK. They are public, and not covered by the value's
    /// authentication but by their own. Reads two records from the store.
    ///
    /// # Errors
    ///
    /// As for [`encrypt`](Self::encrypt), and
    ///
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): the policy does not accept suite 03; decided before anything is
    ///   sealed. Or the scope is isolated: what can be destroyed for good must not live on in a queue.
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): the records have more bytes than the policy's
    ///   [`max_frame_records`](FieldPolicy::max_frame_records).
    /// - Those of acquiring a key: [`RecordRejected`](ErrorKind::RecordRejected), [`KeyState`](ErrorKind::KeyState),
    ///   [`Store`](ErrorKind::Store).
    pub async fn encrypt_framed(&self, value: Value<'_>, row: Option<&[u8]>) -> Result<Vec<u8>> {
        accept_frames(&self.policy)?;
        let sealed = self.encrypt(value, row)?;
        let mut out = self.frame_head(&sealed).await?;
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Encrypts a column as [`encrypt_column`](Self::encrypt_column) does, each value in a frame of its own. Reads two
    /// records from the store.
    ///
    /// # Errors
    ///
    /// As for [`encrypt_framed`](Self::encrypt_framed), with the row.
    pub async fn encrypt_framed_column(
        &self,
        values: &(impl ColumnValues + ?Sized),
        rows: Option<&(impl ColumnBytes + ?Sized)>,
    ) -> Result<SealedColumn, RowError> {
        accept_frames(&self.policy)?;
        let sealed = self.encrypt_column(values, rows)?;
        if sealed.is_empty() {
            return Ok(sealed);
        }
        // All rows of a column are sealed under one key.
        let head = self.frame_head(sealed.bytes(0)).await?;
        Ok(sealed.each_behind(&head))
    }

    /// What a frame says before `sealed`.
    async fn frame_head(&self, sealed: &[u8]) -> Result<Vec<u8>> {
        let head = self.ring.frame_head(Sealed::parse(sealed)?.key_id()).await?;
        // F-14.4-3.
        check_records_len(&self.policy, head.len() - Frame::RECORDS_AT)?;
        Ok(head)
    }
}

impl Decryptor {
    /// Takes a value out of its frame, if it is in one. A policy that does not accept frames is not asked for more.
    #[inline]
    pub(super) fn take_apart<'b>(&self, bytes: &'b [u8]) -> Result<Taken<'b>> {
        if bytes.starts_with(&[MAGIC, Suite::Frame.id()]) {
            // F-14.2-1.
            accept_frames(&self.policy)?;
            // F-14.2-2.
            let frame = Frame::parse(bytes)?;
            // F-14.2-3.
            check_records_len(&self.policy, frame.records_len())?;
            return Ok(Taken { frame: Some(frame), sealed: frame.sealed() });
        }
        Ok(Taken { frame: None, sealed: Sealed::parse(bytes)? })
    }

    /// Acquires the key of `frame`, unless the handle holds it and it is not due.
    pub(super) async fn load_framed(&self, frame: &Frame<'_>, slot: Slot, now: u64) -> Result<()> {
        if self.framed_key(&self.held.load(), frame).is_some_and(|key| !key.needs_renewal(now)) {
            return Ok(());
        }
        match self.ring.acquire_framed(frame, slot).await? {
            FrameKey::Own(key) => self.hold(key),
            FrameKey::Framed(key) => {
                let id = frame_id(frame);
                self.held.rcu(|held| {
                    let mut held = Held::clone(held);
                    held.frames.insert(id, key.clone());
                    held
                });
            }
        }
        Ok(())
    }

    /// The key of `frame`: the keyring's own as long as it may be used, otherwise the one that the frame brought.
    pub(super) fn framed_key<'h>(&self, held: &'h Held, frame: &Frame<'_>) -> Option<&'h OpenKey> {
        let own = held.keys.get(&frame.key_id()).filter(|key| key.is_usable(self.ring.time()));
        own.or_else(|| held.frames.get(&frame_id(frame))).map(|key| &**key)
    }
}

fn accept_frames(policy: &FieldPolicy) -> Result<()> {
    match policy.accepted_suites.contains(&Suite::Frame) {
        true => Ok(()),
        false => Err(not_accepted(policy, Suite::Frame)),
    }
}

fn check_records_len(policy: &FieldPolicy, len: usize) -> Result<()> {
    if len <= policy.max_frame_records {
        return Ok(());
    }
    Err(Error::new(ErrorKind::LimitExceeded, "the frame has more key records than the policy of the field allows")
        .with_detail(format!("field {}, {len} bytes of at most {}", policy.name, policy.max_frame_records)))
}
