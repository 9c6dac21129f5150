//! A cipher is made once and used for as long as the program runs.

use crate::{Lab, PROTECT, run};
use keyfold::Clock;
use keyfold::testing::block_on;
use keyfold_documents::Direction;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Hours.
#[derive(Default)]
struct Hours(AtomicU64);

impl Clock for Hours {
    fn now(&self) -> Duration {
        Duration::from_secs(3600 * self.0.load(Ordering::SeqCst))
    }
}

const POLICY: &str = r#"version = 1
[fields.id]
mode = "deterministic"
row_binding = "none"
paths = ["$.id"]
[fields.id.index.lookup]
kind = "exact"
bits = 256
unique = true
column = "id_index"
[fields.number]
mode = "format-preserving"
format = "digits"
paths = ["$.number"]
[fields.name]
row_binding = { path = "$.id" }
paths = ["$.name"]
[fields.birth]
mode = "document"
paths = ["$.birthDate"]
[documents.all]
row_binding = "$.id"
"#;

#[test]
fn it_renews_its_keys_and_follows_rotations() {
    let clock = Arc::new(Hours::default());
    let lab = Lab::with_clock(POLICY, clock.clone());
    let [protect, reveal] = [PROTECT, Direction::Reveal].map(|direction| lab.cipher(direction).expect("a cipher"));
    let text = r#"{"id":"p1","number":"123456789","name":"N","birthDate":"1970-01-01"}"#;
    let mut generations = Vec::new();
    for _ in 0..3 {
        let sealed = run(&protect, text).expect("it is protected").0;
        assert_eq!(run(&reveal, &sealed).expect("it is revealed").0, text);
        let of = |suite: &str| sealed.split_once(suite).map(|(_, rest)| rest[..8].to_owned()).expect("a value");
        generations.push([of("kf1.01"), of("kf1.05")]);
        block_on(lab.ring.rotate_data_key(None)).expect("rotated");
        // Longer than the cache policy lets a handle hold its key.
        clock.0.fetch_add(48, Ordering::SeqCst);
    }
    assert!(generations.windows(2).all(|pair| pair[0] < pair[1] && pair[0][0] == pair[0][1]), "{generations:?}");
}
