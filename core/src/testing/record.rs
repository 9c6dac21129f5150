//! Key records to test stores with.

use crate::keys::{KeyClass, Lineage, SlotId};
use crate::kms::{KekAlias, WrappedKey};
use crate::record::{KeyState, Record};
use crate::wire::record::{Body, Endorsement, MAC_LEN, ROOT_WRAP_LEN, Wrap};
use crate::wire::{Generation, KeyId};
use sha2::{Digest, Sha256};

/// Makes records that parse, for tests of stores.
///
/// The key does not exist and the MAC is arbitrary, so every keyring refuses them. The key ID depends on lineage,
/// class, slot, generation and [`key`](Self::key), not on state and sequence: the same key can be built in
/// several states.
///
/// # Examples
///
/// ```
/// use keyfold::testing::SampleRecord;
/// use keyfold::{KeyState, Lineage};
///
/// let active = SampleRecord::new(Lineage::from_bytes([7; 16]), 3);
/// let retired = active.clone().sequence(2).state(KeyState::Deactivated);
/// assert_eq!(active.build().key_id(), retired.build().key_id());
/// assert_ne!(active.build(), retired.build());
/// ```
#[derive(Clone, Debug)]
pub struct SampleRecord {
    lineage: Lineage,
    generation: Generation,
    class: KeyClass,
    slot: SlotId,
    scope_tag: Option<[u8; 32]>,
    state: KeyState,
    sequence: u64,
    key: u64,
    key_id: Option<(KeyId, [u8; 32])>,
    wrap_count: usize,
}

impl SampleRecord {
    /// An active data key without scope, with sequence 1.
    ///
    /// # Panics
    ///
    /// If `generation` is 0, which no key has.
    #[must_use]
    pub fn new(lineage: Lineage, generation: Generation) -> Self {
        assert_ne!(generation, 0, "generations start at 1");
        Self {
            lineage,
            generation,
            class: KeyClass::Data,
            slot: SlotId::NONE,
            scope_tag: None,
            state: KeyState::Active,
            sequence: 1,
            key: 0,
            key_id: None,
            wrap_count: 2,
        }
    }

    /// Of another class.
    #[must_use]
    pub fn class(mut self, class: KeyClass) -> Self {
        self.class = class;
        self
    }

    /// Of the scope `slot`, whose keyed name is `tag`.
    #[must_use]
    pub fn scope(mut self, slot: SlotId, tag: [u8; 32]) -> Self {
        self.slot = slot;
        self.scope_tag = Some(tag);
        self
    }

    /// Of the partition `slot`, without a scope tag.
    #[must_use]
    pub fn slot(mut self, slot: SlotId) -> Self {
        self.slot = slot;
        self
    }

    /// In another state.
    #[must_use]
    pub fn state(mut self, state: KeyState) -> Self {
        self.state = state;
        self
    }

    /// With another sequence.
    #[must_use]
    pub fn sequence(mut self, sequence: u64) -> Self {
        self.sequence = sequence;
        self
    }

    /// Of another key of the same generation.
    #[must_use]
    pub fn key(mut self, key: u64) -> Self {
        self.key = key;
        self
    }

    /// With the key ID of `record`, whatever else was chosen. No honest record is like that.
    #[must_use]
    pub fn key_id_of(mut self, record: &Record) -> Self {
        self.key_id = Some((record.key_id(), *record.commitment()));
        self
    }

    /// With `count` wraps, 1 to 8, the second and later ones by KEKs and of different lengths.
    #[must_use]
    pub fn wraps(mut self, count: usize) -> Self {
        self.wrap_count = count;
        self
    }

    /// The record.
    #[must_use]
    pub fn build(&self) -> Record {
        let (key_id, commitment) = self.key_id.unwrap_or_else(|| {
            let commitment = self.commitment();
            (KeyId::new(self.generation, &commitment), commitment)
        });
        let root = self.class == KeyClass::Root;
        let body = Body {
            class: self.class,
            state: self.state,
            key_id,
            commitment,
            authenticator: if root { key_id } else { KeyId::from_bytes([0xA7; KeyId::LEN]) },
            lineage: self.lineage,
            slot: self.slot,
            scope_tag: self.scope_tag.unwrap_or_default(),
            sequence: self.sequence,
            created_at: 1_790_000_000,
            activated_at: 1_790_000_000,
            changed_at: 1_790_000_000 + self.sequence % 1_000_000,
            environment: "test".to_owned(),
            // A tombstone has no wraps.
            wraps: if self.state == KeyState::Destroyed { Vec::new() } else { self.sample_wraps() },
            endorsement: root.then(|| Endorsement { by: KeyId::from_bytes([0xE1; KeyId::LEN]), mac: [0xE2; MAC_LEN] }),
            extensions: b"\x00\x01\x00\x05later".to_vec(),
        };
        let mut bytes = body.encode();
        let mac = Sha256::digest(&bytes);
        bytes.extend_from_slice(&mac);
        Record::parse(&bytes).expect("a sample record is canonical")
    }

    fn commitment(&self) -> [u8; 32] {
        Sha256::new()
            .chain_update(self.lineage.as_bytes())
            .chain_update([self.class.id()])
            .chain_update(self.slot.as_bytes())
            .chain_update(self.generation.to_be_bytes())
            .chain_update(self.key.to_be_bytes())
            .finalize()
            .into()
    }

    fn sample_wraps(&self) -> Vec<Wrap> {
        (0..self.wrap_count)
            .map(|i| match i {
                0 if self.class != KeyClass::Root => Wrap::Root([0x5A; ROOT_WRAP_LEN]),
                _ => Wrap::Kek {
                    alias: KekAlias::new(&format!("kek-{i}")).expect("a valid alias"),
                    wrapped: WrappedKey { kek_version: format!("v{i}"), bytes: vec![0x57; 64 << (i % 7)] },
                },
            })
            .collect()
    }
}

/// One record of each class in each state, with one to eight wraps, in scopes and without; all of different keys.
///
/// Data keys have a scope each.
#[must_use]
pub fn sample_records(lineage: Lineage) -> Vec<Record> {
    const CLASSES: [KeyClass; 4] = [KeyClass::Root, KeyClass::Data, KeyClass::Lookup, KeyClass::Audit];
    let pairs = CLASSES.into_iter().flat_map(|class| KeyState::ALL.into_iter().map(move |state| (class, state)));
    (1_u8..)
        .zip(pairs)
        .map(|(i, (class, state))| {
            let sample = SampleRecord::new(lineage, Generation::from(i))
                .class(class)
                .state(state)
                .sequence(u64::from(i) * 1_000_000_007)
                .wraps(1 + usize::from(i) % 8);
            match class {
                KeyClass::Root => sample,
                KeyClass::Data => sample.scope(SlotId::from_bytes([i; 16]), [i; 32]),
                _ => sample.slot(SlotId::from_bytes([i; 16])),
            }
            .build()
        })
        .collect()
}
