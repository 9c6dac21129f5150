//! Key bundles of devices: none opens but what a keyring made, or who has its transport key; and the C library for devices says the same.

use crate::edit::{Edit, edit};
use crate::lab::{SCOPE, ring};
use crate::memory::bounded;
use aes_kw::{KeyInit, KwpAes256};
use arbitrary::{Arbitrary, Unstructured};
use keyfold::aead::Backend;
use keyfold::device::{BUNDLE_LEN, Bundle, PassphraseCost, Protection};
use keyfold::testing::block_on;
use keyfold::vectors::Key;
use keyfold::{ErrorKind, KeyClass, Secret};
use keyfold_device::{
    KFD_KEY_WORDS, kf_result, kfd_key, kfd_key_get_info, kfd_key_info, kfd_key_open, kfd_passphrase_work_len,
};
use sha2::{Digest, Sha256};
use std::sync::OnceLock;

/// Bytes of a bundle before what is wrapped.
const HEADER_LEN: usize = 106;
/// The most that a device is asked for: 1 GiB, what each lane is rounded up by, and an alignment.
const MAX_WORK_LEN: usize = (1 << 30) + (1 << 20);

struct Lab {
    /// What a keyring made, under which transport key.
    made: Vec<(Vec<u8>, u8)>,
    bytes: Vec<Vec<u8>>,
    /// The key of the scope.
    key: [u8; 32],
}

#[derive(Arbitrary, Debug)]
enum Attack {
    Raw(Vec<u8>),
    /// By somebody who has no transport key.
    Edited {
        which: u8,
        edits: Vec<Edit>,
    },
    /// By somebody who has one: the header, and what is wrapped with it.
    Wrapped {
        which: u8,
        edits: Vec<Edit>,
        key: Option<[u8; 32]>,
        binding: Option<[u8; 32]>,
        cut: u8,
    },
}

#[derive(Arbitrary, Debug)]
struct Input {
    attack: Attack,
    transport_key: bool,
}

/// Changes a bundle, and has it opened.
pub fn run(data: &[u8]) {
    static LAB: OnceLock<Lab> = OnceLock::new();
    let lab = LAB.get_or_init(Lab::new);
    check(data, 6, |_| false, lab);
    let Ok(Input { attack, transport_key }) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let under = 6 + u8::from(transport_key);
    match attack {
        Attack::Raw(bytes) => check(&bytes, under, |_| false, lab),
        Attack::Edited { which, edits } => {
            let bytes = edit(&lab.made[usize::from(which) % lab.made.len()].0, &edits, &lab.bytes);
            check(&bytes, under, |_| false, lab);
        }
        Attack::Wrapped { which, edits, key, binding, cut } => {
            let mut header = edit(&lab.made[usize::from(which) % lab.made.len()].0[..HEADER_LEN], &edits, &lab.bytes);
            header.resize(HEADER_LEN, 0);
            let own: [u8; 32] =
                Sha256::new().chain_update(b"keyfold/device-bundle/v1").chain_update(&header).finalize().into();
            let (key, bound) = (key.unwrap_or(lab.key), binding.unwrap_or(own));
            // Up to 7 bytes less are wrapped to the same length.
            let mut payload = [key, bound].concat();
            payload.truncate(64 - usize::from(cut % 8));
            let mut wrapped = vec![0; payload.len().next_multiple_of(8) + 8];
            KwpAes256::new((&[under; 32]).into()).wrap_key(&payload, &mut wrapped).expect("some bytes wrap");
            let fits = |bundle: &Bundle<'_>| {
                let (lineage, slot) = (bundle.lineage(), bundle.scope());
                let generation = bundle.key_id().generation();
                let key = Key { bytes: key, lineage, class: KeyClass::Data, slot, generation };
                bound == own && cut % 8 == 0 && key.key_id() == bundle.key_id()
            };
            check(&[header, wrapped].concat(), under, fits, lab);
        }
    }
}

/// Opens `bytes` under a transport key. They open if a keyring made them under it, or if `fits` says so, and not otherwise.
fn check(bytes: &[u8], under: u8, fits: impl Fn(&Bundle<'_>) -> bool, lab: &Lab) {
    let transport_key = Secret::with(|key: &mut [u8; 32]| key.fill(under));
    let is_made = lab.made.iter().any(|(made, by)| made == bytes && *by == under);
    let opened = bounded(bytes.len(), 1, || {
        let bundle = Bundle::parse(bytes)?;
        let opened = bundle.open(Backend::RustCrypto, &transport_key);
        assert_eq!(opened.is_ok(), is_made || fits(&bundle), "{bundle:?}");
        if let Ok(key) = &opened {
            assert_eq!(key.key_id(), bundle.key_id());
        }
        opened.map(|_| bundle)
    });
    if let Err(error) = &opened {
        let kinds = [ErrorKind::Malformed, ErrorKind::Unsupported, ErrorKind::DecryptionFailed];
        assert!(kinds.contains(&error.kind()), "{error}");
    }
    let protection = Bundle::parse(bytes).ok().map(|bundle| bundle.protection());
    let is_plain = protection == Some(Protection::TransportKey);
    assert_eq!(opens_on_a_device(bytes, &[under; 32]), opened.is_ok() && is_plain);
    let work = work_len(bytes);
    assert_eq!(work.is_some(), matches!(protection, Some(Protection::Passphrase(_))));
    assert!(work.is_none_or(|len| len <= MAX_WORK_LEN), "{work:?} bytes of memory");
}

/// Whether the C library opens it. What it refuses leaves no key, and nothing of one.
fn opens_on_a_device(bytes: &[u8], transport_key: &[u8; 32]) -> bool {
    let mut key = Box::new(kfd_key { words: [0x5A5A_5A5A_5A5A_5A5A; KFD_KEY_WORDS] });
    let mut info = kfd_key_info {
        key_id: [0; 24],
        lineage: [0; 16],
        scope: [0; 16],
        device_id: [0; 8],
        issued: 0,
        generation: 0,
        reserved: 0,
    };
    // SAFETY: all pointers are to memory of the stated length that nothing else uses.
    let result =
        unsafe { kfd_key_open(bytes.as_ptr(), bytes.len(), transport_key.as_ptr(), transport_key.len(), 0, &mut *key) };
    // SAFETY: likewise.
    let known = unsafe { kfd_key_get_info(&*key, &mut info) };
    let is_open = result == kf_result::OK;
    assert_eq!(known == kf_result::OK, is_open);
    if is_open {
        assert_eq!((&info.key_id[..], &info.device_id[..]), (&bytes[6..30], &bytes[62..70]));
    } else {
        assert!(key.words.iter().all(|word| *word == 0), "something of a key was left");
    }
    is_open
}

/// What the C library wants for the passphrase of a bundle.
fn work_len(bytes: &[u8]) -> Option<usize> {
    let mut len = 0;
    // SAFETY: both pointers are to memory of the stated length that nothing else uses.
    let result = unsafe { kfd_passphrase_work_len(bytes.as_ptr(), bytes.len(), &mut len) };
    (result == kf_result::OK).then_some(len)
}

impl Lab {
    fn new() -> Self {
        let ring = ring("version = 1\n");
        let cost = PassphraseCost { salt: [9; 16], memory: 19_456, passes: 2, lanes: 1 };
        let make = |(protection, under): (Protection, u8)| {
            let transport_key = Secret::with(|key: &mut [u8; 32]| key.fill(under));
            let made = block_on(ring.provision_device(SCOPE, &transport_key, protection)).expect("a bundle");
            assert_eq!(made.bundle.len(), BUNDLE_LEN);
            (made.bundle.to_vec(), under)
        };
        let protections = [Protection::TransportKey, Protection::Passphrase(cost)];
        let made: Vec<_> =
            protections.into_iter().flat_map(|protection| [6, 7].map(|under| (protection, under))).map(make).collect();
        let bytes = made.iter().map(|(made, _)| made.clone()).collect();
        let member =
            crate::world::members().into_iter().find(|member| member.scope == SCOPE).expect("a key of the scope");
        Self { made, bytes, key: member.key.bytes }
    }
}
