//! Key records: what is accepted is what is written, and only the genuine ones open anything.

use crate::memory::bounded;
use crate::world::{Opening, World, bytes, members};
use keyfold::aead::Backend;
use keyfold::wire::{KeyId, Suite};
use keyfold::{Padding, Record, Value, vectors};
use std::sync::{Mutex, OnceLock, PoisonError};

struct Lab {
    world: Mutex<World>,
    opening: Opening,
    sealed: Vec<u8>,
    /// The keys that the value needs, with their records.
    genuine: [(KeyId, Vec<u8>); 2],
}

/// Parses the bytes, and has a store serve them in the place of a data key's record and of its root's.
pub fn run(data: &[u8]) {
    let Ok(record) = bounded(data.len(), 8, || Record::parse(data)) else { return };
    assert_eq!(record.as_bytes(), data);
    assert_eq!(reference_len(data), data.len(), "something is missing or follows");
    assert_eq!(data[6..30], *record.key_id().as_bytes());
    assert_eq!(data[30..50], record.key_id().as_bytes()[4..]);
    assert!(record.kek_aliases().count() <= 8 && record.kek_wraps().count() <= 8);
    assert!(!record.outranks(&record));
    let _ = (record.is_isolated(), record.held_since(), record.scope_tag(), record.kms_context().canonical());

    static LAB: OnceLock<Lab> = OnceLock::new();
    let lab = LAB.get_or_init(Lab::new);
    let mut world = lab.world.lock().unwrap_or_else(PoisonError::into_inner);
    for (key_id, genuine) in &lab.genuine {
        world.store.0.insert(*key_id, data.to_vec());
        let opened = lab.opening.open(&world, &lab.sealed);
        world.store.0.insert(*key_id, genuine.clone());
        match opened {
            Ok(_) => assert_eq!(data, genuine, "a record that nobody vouches for was used"),
            Err(error) => assert_ne!(data, genuine, "{error}"),
        }
    }
}

/// Where a record of these bytes ends, by FORMAT.md §7.1 and §7.2.
fn reference_len(data: &[u8]) -> usize {
    let long = |at: usize| 2 + usize::from(u16::from_be_bytes([data[at], data[at + 1]]));
    let short = |at: usize| 1 + usize::from(data[at]);
    let mut at = 182;
    at += short(at);
    let wraps = data[at];
    at += 1;
    for _ in 0..wraps {
        at += 1;
        at += short(at);
        at += short(at);
        at += long(at);
    }
    at += 1 + 56 * usize::from(data[at]);
    at + long(at) + 32
}

impl Lab {
    fn new() -> Self {
        let members = members();
        let find = |name: &str| members.iter().find(|member| member.name == name).expect("a member");
        let (data, root) = (find("data"), find("root-1"));
        let opening = Opening { field: "patient.ssn".into(), ..Opening::default() };
        let encoded = vectors::encode(Value::Text("123-45-6789"), Padding::None).expect("a short text");
        let aad = vectors::aad(&data.key.header(Suite::Field), "patient.ssn", &opening.context(), None).expect("short");
        let sealed = data.key.seal_field(Backend::default(), &bytes("fuzz record"), &aad, &encoded).expect("it seals");
        let genuine = [data, root].map(|member| (member.key.key_id(), member.parts.to_bytes()));
        Self { world: Mutex::new(World::generated()), opening, sealed, genuine }
    }
}
