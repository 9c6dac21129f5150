//! What every key store must do. A little over 500 lines: one suite, which each store runs as a whole.

use super::{SampleRecord, block_on, sample_records};
use crate::error::{ErrorKind, Result};
use crate::keys::{KeyClass, Lineage, SlotId};
use crate::record::{KeyState, Record};
use crate::store::{KeyStore, RecordChange, Remainder, Slot};
use crate::wire::{Generation, KeyId};
use std::collections::{HashMap, HashSet};
use std::sync::Barrier;
use std::thread;

const OURS: Lineage = Lineage::from_bytes([0x11; 16]);
const THEIRS: Lineage = Lineage::from_bytes([0x22; 16]);
const THREAD_COUNT: usize = 16;

/// Checks that a store does what [`KeyStore`] asks. Panics with the name of the rule that it breaks.
///
/// `make` returns two handles of one new, empty database; it is called once per rule. The handles should be as
/// independent as two processes would be: two connections, not one shared connection. The rules are checked with
/// records of every class and state, through both handles, and from sixteen threads at once. Blocks.
///
/// # Panics
///
/// When a rule is broken.
///
/// # Examples
///
/// ```
/// # use keyfold::KeyStore;
/// fn conforms<S: KeyStore>(new_database: impl Fn() -> String, connect: impl Fn(&str) -> S) {
///     keyfold::testing::store_conformance(|| {
///         let database = new_database();
///         [connect(&database), connect(&database)]
///     });
/// }
/// ```
pub fn store_conformance<S: KeyStore>(mut make: impl FnMut() -> [S; 2]) {
    let rules: [(&str, Check); 17] = [
        ("an empty store", empty),
        ("records come back byte for byte", byte_for_byte),
        ("list pages in order of key ID", pages),
        ("newest comes first", newest_first),
        ("insert expects the head", expected_head),
        ("a key ID exists once", key_id_once),
        ("a scope tag has one scope", one_scope_per_tag),
        ("update expects the sequence", expected_sequence),
        ("lineages are apart", lineages_are_apart),
        ("generations are never given twice", unique_generations),
        ("one rotation wins", one_rotation_wins),
        ("many updates are one step", many_updates),
        ("one update wins", one_update_wins),
        ("one scope wins", one_scope_wins),
        ("restoring adds and raises, and never lowers", restoring),
        ("what is purged leaves the records as they are", purging),
        ("both handles read the same clock", same_clock),
    ];
    for (rule, check) in rules {
        let [a, b] = make();
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&Handles { a: &a, b: &b })));
        assert!(checked.is_ok(), "the store breaks the rule: {rule}");
    }
}

type Check = fn(&Handles<'_>);

/// Two handles of one database.
struct Handles<'a> {
    a: &'a dyn KeyStore,
    b: &'a dyn KeyStore,
}

impl Handles<'_> {
    fn either(&self, number: usize) -> &dyn KeyStore {
        if number.is_multiple_of(2) { self.a } else { self.b }
    }

    /// What both handles agree on.
    fn both<T: PartialEq + std::fmt::Debug>(&self, read: impl Fn(&dyn KeyStore) -> Result<T>) -> T {
        let (a, b) = (ok(read(self.a)), ok(read(self.b)));
        assert_eq!(a, b, "the two handles see different things");
        a
    }

    fn get(&self, record: &Record) -> Option<Record> {
        self.both(|store| block_on(store.get(record.lineage(), record.key_id())))
    }

    fn newest(&self, slot: Slot, limit: usize) -> Vec<KeyId> {
        ids(&self.both(|store| block_on(store.newest(slot, limit))))
    }

    fn list(&self, lineage: Lineage, after: Option<KeyId>, limit: usize) -> Vec<KeyId> {
        ids(&self.both(|store| block_on(store.list(lineage, after, limit))))
    }

    fn scope(&self, lineage: Lineage, tag: [u8; 32]) -> Option<SlotId> {
        self.both(|store| block_on(store.scope_by_tag(lineage, tag)))
    }

    /// Inserts through alternating handles, expecting whatever the head is.
    fn insert(&self, number: usize, record: &Record) {
        let head = self.newest(record.slot(), 1).first().copied();
        ok(insert(self.either(number), record, head));
    }

    fn assert_stored(&self, record: &Record) {
        let found = self.get(record);
        assert_eq!(found.as_ref().map(Record::as_bytes), Some(record.as_bytes()), "{record:?} did not come back");
        assert_eq!(found.as_ref(), Some(record));
    }
}

fn ok<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("the store failed: {error:?}"))
}

fn ids(records: &[Record]) -> Vec<KeyId> {
    records.iter().map(Record::key_id).collect()
}

fn insert(store: &dyn KeyStore, record: &Record, head: Option<KeyId>) -> Result<()> {
    block_on(store.insert(record, head))
}

fn update(store: &dyn KeyStore, record: &Record, sequence: u64) -> Result<()> {
    block_on(store.update(record, sequence))
}

fn assert_kind(result: Result<()>, kind: ErrorKind, what: &str) {
    assert_eq!(result.err().map(|error| error.kind()), Some(kind), "{what}");
}

fn sample(generation: Generation) -> SampleRecord {
    SampleRecord::new(OURS, generation)
}

fn empty(store: &Handles<'_>) {
    let record = sample(1).build();
    assert_eq!(store.get(&record), None);
    assert_eq!(store.newest(record.slot(), 10), []);
    assert_eq!(store.list(OURS, None, 10), []);
    assert_eq!(store.list(OURS, Some(record.key_id()), 10), []);
    assert_eq!(store.scope(OURS, [0; 32]), None);
    assert_kind(update(store.a, &record, 1), ErrorKind::NoMatchingKey, "update of a record that is not there");
    assert_eq!(store.get(&record), None);
}

fn byte_for_byte(store: &Handles<'_>) {
    let records = sample_records(OURS);
    for (i, record) in records.iter().enumerate() {
        store.insert(i, record);
        store.assert_stored(record);
    }
    records.iter().for_each(|record| store.assert_stored(record));
    let mut all = ids(&records);
    all.sort();
    assert_eq!(store.list(OURS, None, 1000), all);
    for record in &records {
        if let Some(tag) = record.scope_tag() {
            assert_eq!(store.scope(OURS, tag), Some(record.slot_id()));
        }
    }
}

fn pages(store: &Handles<'_>) {
    // 256 and 1 differ in an early byte of the big-endian generation, so numbers sorted as text would show.
    let generations = [300, 2, 256, 10, 1, 255, 9, 70_000, 100, 3, 20];
    let classes = [KeyClass::Data, KeyClass::Lookup, KeyClass::Root];
    for (i, generation) in generations.into_iter().enumerate() {
        store.insert(i, &sample(generation).class(classes[i % 3]).slot(SlotId::from_bytes([i as u8; 16])).build());
    }
    let all = store.list(OURS, None, usize::MAX);
    assert_eq!(all.len(), generations.len());
    assert!(all.is_sorted_by(|a, b| a < b), "not in ascending order");
    for limit in [1, 2, 7, 11, 12] {
        let mut paged: Vec<KeyId> = Vec::new();
        loop {
            let page = store.list(OURS, paged.last().copied(), limit);
            assert!(page.len() <= limit, "more than the limit");
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, all, "pages of {limit}");
    }
    assert_eq!(store.list(OURS, None, 0), []);
    let absent = KeyId::new(150, &[0; 32]);
    assert_eq!(store.list(OURS, Some(absent), 2), all[7..9], "after a key ID that is not there");
    assert_eq!(store.list(OURS, Some(KeyId::from_bytes([0xFF; KeyId::LEN])), 10), []);
}

fn newest_first(store: &Handles<'_>) {
    let slot = SlotId::from_bytes([3; 16]);
    for (i, generation) in [2, 255, 256, 1000].into_iter().enumerate() {
        store.insert(i, &sample(generation).slot(slot).build());
        store.insert(i, &sample(generation + 5000).slot(SlotId::from_bytes([4; 16])).build());
        store.insert(i, &sample(generation + 6000).slot(slot).class(KeyClass::Lookup).build());
    }
    let data = Slot { lineage: OURS, class: KeyClass::Data, id: slot };
    let generations = |limit| store.newest(data, limit).iter().map(KeyId::generation).collect::<Vec<_>>();
    assert_eq!(generations(0), []);
    assert_eq!(generations(1), [1000]);
    assert_eq!(generations(3), [1000, 256, 255]);
    assert_eq!(generations(usize::MAX), [1000, 256, 255, 2]);
    assert_eq!(store.newest(Slot { class: KeyClass::Audit, ..data }, 10), []);
    assert_eq!(store.newest(Slot { lineage: THEIRS, ..data }, 10), []);
    assert_eq!(store.newest(Slot { id: SlotId::NONE, ..data }, 10), []);
}

fn expected_head(store: &Handles<'_>) {
    let [first, second, third] = [1, 2, 3].map(|generation| sample(generation).build());
    let refused = |record: &Record, head: Option<&Record>, what: &str| {
        let before = store.list(OURS, None, 100);
        assert_kind(insert(store.a, record, head.map(Record::key_id)), ErrorKind::Conflict, what);
        assert_kind(insert(store.b, record, head.map(Record::key_id)), ErrorKind::Conflict, what);
        assert_eq!(store.get(record), None, "{what}: stored all the same");
        assert_eq!(store.list(OURS, None, 100), before, "{what}: something was stored");
    };
    refused(&first, Some(&second), "a head expected in an empty slot");
    ok(insert(store.a, &first, None));
    refused(&second, None, "no head expected where there is one");
    refused(&second, Some(&third), "a head expected that is not there");
    ok(insert(store.b, &second, Some(first.key_id())));
    refused(&third, Some(&first), "an old head expected");
    ok(insert(store.a, &third, Some(second.key_id())));
    [first, second, third].iter().for_each(|record| store.assert_stored(record));
}

fn key_id_once(store: &Handles<'_>) {
    let record = sample(1).build();
    let again = sample(1).sequence(9).state(KeyState::Deactivated).build();
    let elsewhere = sample(1).slot(SlotId::from_bytes([9; 16])).key_id_of(&record).build();
    ok(insert(store.a, &record, None));
    assert_kind(insert(store.a, &record, Some(record.key_id())), ErrorKind::Conflict, "the same record twice");
    assert_kind(insert(store.b, &again, Some(record.key_id())), ErrorKind::Conflict, "the same key ID twice");
    assert_kind(insert(store.b, &elsewhere, None), ErrorKind::Conflict, "the same key ID in another slot");
    store.assert_stored(&record);
    assert_eq!(store.newest(elsewhere.slot(), 1), [], "stored in spite of the conflict");
}

fn one_scope_per_tag(store: &Handles<'_>) {
    let [one, two] = [1, 2].map(|i| SlotId::from_bytes([i; 16]));
    let (tag, other_tag) = ([0x7A; 32], [0x7B; 32]);
    let first = sample(1).scope(one, tag).build();
    let rival = sample(2).scope(two, tag).build();
    ok(insert(store.a, &first, None));
    assert_kind(insert(store.a, &rival, None), ErrorKind::Conflict, "a second scope for one tag");
    assert_kind(insert(store.b, &rival, None), ErrorKind::Conflict, "a second scope for one tag");
    assert_eq!(store.get(&rival), None, "stored in spite of the conflict");
    assert_eq!(store.newest(rival.slot(), 1), []);
    assert_eq!(store.scope(OURS, tag), Some(one));
    let next = sample(3).scope(one, tag).build();
    ok(insert(store.b, &next, Some(first.key_id())));
    ok(insert(store.b, &sample(4).scope(two, other_tag).build(), None));
    assert_eq!(store.scope(OURS, other_tag), Some(two));
    // The conflict must not have taken the tag: a failed insert changes nothing.
    let late = [0x7C; 32];
    let wrong_head = insert(store.a, &sample(5).scope(SlotId::from_bytes([5; 16]), late).build(), Some(next.key_id()));
    assert_kind(wrong_head, ErrorKind::Conflict, "a head expected in an empty slot");
    assert_eq!(store.scope(OURS, late), None, "a refused insert took the scope tag");
    // A tombstone keeps its scope.
    let tombstone = sample(1).scope(one, tag).sequence(2).state(KeyState::Destroyed).build();
    ok(update(store.a, &tombstone, 1));
    assert_eq!(store.scope(OURS, tag), Some(one));
}

fn expected_sequence(store: &Handles<'_>) {
    let (slot, tag) = (SlotId::from_bytes([1; 16]), [2; 32]);
    let at = |sequence| sample(1).scope(slot, tag).sequence(sequence);
    let first = at(1).build();
    let second = at(2).state(KeyState::Deactivated).build();
    let third = at(3).state(KeyState::Destroyed).build();
    ok(insert(store.a, &first, None));
    for (store_handle, sequence) in [(store.a, 0), (store.b, 2), (store.a, u64::MAX)] {
        assert_kind(update(store_handle, &second, sequence), ErrorKind::Conflict, "update of another sequence");
    }
    store.assert_stored(&first);
    ok(update(store.a, &second, 1));
    store.assert_stored(&second);
    assert_kind(update(store.b, &third, 1), ErrorKind::Conflict, "the same update twice");
    ok(update(store.b, &third, 2));
    store.assert_stored(&third);
    assert_eq!(store.list(OURS, None, 10), [first.key_id()], "an update added a record");
    assert_eq!(store.newest(first.slot(), 10), [first.key_id()]);

    let absent = sample(7).build();
    assert_kind(update(store.a, &absent, 1), ErrorKind::NoMatchingKey, "update of a record that is not there");
    assert_eq!(store.get(&absent), None, "update added a record");
    let moved = [
        at(4).slot(SlotId::from_bytes([9; 16])).key_id_of(&first).build(),
        at(4).class(KeyClass::Lookup).key_id_of(&first).build(),
        sample(1).slot(slot).sequence(4).key_id_of(&first).build(),
        sample(1).scope(slot, [3; 32]).sequence(4).key_id_of(&first).build(),
    ];
    for record in moved {
        assert_kind(update(store.a, &record, 3), ErrorKind::Conflict, "update to another class, slot or scope tag");
    }
    store.assert_stored(&third);
    assert_eq!(store.scope(OURS, [3; 32]), None);
}

fn many_updates(store: &Handles<'_>) {
    let slot = |n: u8| SlotId::from_bytes([n; 16]);
    let at = |n: u8, sequence| sample(Generation::from(n)).slot(slot(n)).sequence(sequence);
    let first: Vec<_> = (1..=40).map(|n| at(n, 1).build()).collect();
    first.iter().enumerate().for_each(|(number, record)| store.insert(number, record));
    assert_eq!(ok(block_on(store.a.update_many(&[]))), []);
    // Every fourth is expected at a sequence that it does not have, and one is not there at all.
    let changes: Vec<_> = (1..=41)
        .map(|n| RecordChange {
            record: at(n, 2).state(KeyState::Deactivated).build(),
            expected_sequence: if n % 4 == 0 { 7 } else { 1 },
        })
        .collect();
    let refused: Vec<_> = changes.iter().filter(|c| c.expected_sequence == 7).map(|c| c.record.key_id()).collect();
    let refused = [refused, vec![changes[40].record.key_id()]].concat();
    assert_eq!(ok(block_on(store.b.update_many(&changes))), refused);
    for (change, old) in changes.iter().zip(&first) {
        store.assert_stored(if refused.contains(&old.key_id()) { old } else { &change.record });
    }
    assert_eq!(store.get(&changes[40].record), None, "an update added a record");
    let again: Vec<_> = changes.iter().map(|change| change.record.key_id()).collect();
    assert_eq!(ok(block_on(store.a.update_many(&changes))), again, "the same changes twice");
}

fn restoring(store: &Handles<'_>) {
    let (slot, tag) = (SlotId::from_bytes([1; 16]), [2; 32]);
    let at = |generation: u8, sequence| sample(Generation::from(generation)).scope(slot, tag).sequence(sequence);
    let restore = |handle: &dyn KeyStore, records: &[Record]| block_on(handle.restore(records));
    // An empty store takes everything, in whatever order, and more than a few at once.
    let all = sample_records(OURS);
    let backwards: Vec<_> = all.iter().rev().cloned().collect();
    ok(restore(store.a, &backwards));
    all.iter().for_each(|record| store.assert_stored(record));
    assert_eq!(store.list(OURS, None, usize::MAX).len(), all.len());
    ok(restore(store.b, &backwards));
    ok(restore(store.b, &[]));
    all.iter().for_each(|record| store.assert_stored(record));

    // Of one scope: an older key behind a newer one, a higher sequence, the more restrictive state, a tombstone.
    let newest = at(90, 4).build();
    ok(restore(store.a, std::slice::from_ref(&newest)));
    assert_eq!(store.scope(OURS, tag), Some(slot));
    let older = at(80, 1).build();
    ok(restore(store.b, &[older.clone(), newest.clone()]));
    assert_eq!(store.newest(newest.slot(), 9), [newest.key_id(), older.key_id()]);
    let lower = at(90, 3).state(KeyState::Compromised).build();
    ok(restore(store.a, &[lower]));
    store.assert_stored(&newest);
    for record in [
        at(90, 9).build(),
        at(90, 9).state(KeyState::Deactivated).build(),
        at(90, 9).state(KeyState::DestroyPending).build(),
        at(90, 5).state(KeyState::Destroyed).build(),
    ] {
        ok(restore(store.b, std::slice::from_ref(&record)));
        store.assert_stored(&record);
    }
    let tombstone = at(90, 5).state(KeyState::Destroyed).build();
    ok(restore(store.a, &[at(90, 99).build()]));
    store.assert_stored(&tombstone);

    // Two scopes of one name contradict each other, and so does a key in another slot.
    let rival = sample(95).scope(SlotId::from_bytes([9; 16]), tag).build();
    assert_kind(restore(store.a, std::slice::from_ref(&rival)), ErrorKind::Conflict, "a second scope for one tag");
    assert_eq!(store.get(&rival), None, "stored in spite of the conflict");
    let moved = at(80, 7).slot(SlotId::from_bytes([9; 16])).key_id_of(&older).build();
    assert_kind(restore(store.b, &[moved]), ErrorKind::Conflict, "a key in another slot");
    store.assert_stored(&older);
    // Generations go on behind what was restored.
    assert!(ok(block_on(store.a.allocate_generation(OURS, 0))) > 90);
}

fn purging(store: &Handles<'_>) {
    let tombstone = sample(1).sequence(2).state(KeyState::Destroyed).build();
    let other = sample(2).slot(SlotId::from_bytes([2; 16])).build();
    ok(insert(store.a, &sample(1).build(), None));
    ok(insert(store.b, &other, None));
    ok(update(store.a, &tombstone, 1));
    let first = ok(block_on(store.a.purge(&[])));
    let again = ok(block_on(store.b.purge(&first)));
    assert_eq!(again.len(), first.len(), "a place was forgotten");
    let places = |remainders: &[Remainder]| remainders.iter().map(|r| r.place.clone()).collect::<HashSet<_>>();
    assert_eq!(places(&first), places(&again), "other places than before");
    store.assert_stored(&tombstone);
    store.assert_stored(&other);
}

fn lineages_are_apart(store: &Handles<'_>) {
    let (slot, tag) = (SlotId::from_bytes([1; 16]), [2; 32]);
    let ours = sample(5).scope(slot, tag).build();
    ok(insert(store.a, &ours, None));
    let seen_by_them = store.both(|s| block_on(s.get(THEIRS, ours.key_id())));
    assert_eq!(seen_by_them, None, "a record of another keyring");
    assert_eq!(store.list(THEIRS, None, 10), []);
    assert_eq!(store.newest(Slot { lineage: THEIRS, ..ours.slot() }, 10), []);
    assert_eq!(store.scope(THEIRS, tag), None);

    // The same key ID, slot and tag in another keyring are another key, slot and tag.
    let elsewhere = SlotId::from_bytes([3; 16]);
    let theirs = SampleRecord::new(THEIRS, 5).scope(elsewhere, tag).key_id_of(&ours).build();
    ok(insert(store.b, &theirs, None));
    assert_eq!((store.scope(OURS, tag), store.scope(THEIRS, tag)), (Some(slot), Some(elsewhere)));
    let retired = sample(5).scope(slot, tag).sequence(2).state(KeyState::Deactivated).build();
    ok(update(store.b, &retired, 1));
    store.assert_stored(&retired);
    store.assert_stored(&theirs);
}

fn unique_generations(store: &Handles<'_>) {
    const ROUND_COUNT: usize = 8;
    let allocate = |handle: &dyn KeyStore, lineage, above| block_on(handle.allocate_generation(lineage, above));
    assert!(ok(allocate(store.a, OURS, 0)) > 0, "generations start at 1");
    let given: Vec<Generation> = on_threads(store, |handle, _| {
        let mine: Vec<_> = (0..ROUND_COUNT).map(|_| ok(allocate(handle, OURS, 0))).collect();
        assert!(mine.is_sorted_by(|a, b| a < b), "a generation went back");
        mine
    })
    .concat();
    let different: HashSet<_> = given.iter().collect();
    assert_eq!(different.len(), THREAD_COUNT * ROUND_COUNT, "a generation was given twice");

    let highest = given.iter().copied().max().unwrap_or_default();
    assert!(ok(allocate(store.b, OURS, highest + 1000)) > highest + 1000, "not above what was asked");
    assert!(ok(allocate(store.a, OURS, 3)) > highest + 1001, "a lower `above` took the counter back");
    assert!(ok(allocate(store.a, THEIRS, 0)) <= highest, "keyrings share a counter");

    assert_eq!(ok(allocate(store.a, OURS, Generation::MAX - 1)), Generation::MAX);
    for handle in [store.a, store.b] {
        for above in [0, Generation::MAX] {
            let result = allocate(handle, OURS, above).map(drop);
            assert_kind(result, ErrorKind::LimitExceeded, "more generations than there are");
        }
    }
    let result = allocate(store.a, Lineage::from_bytes([0x33; 16]), Generation::MAX).map(drop);
    assert_kind(result, ErrorKind::LimitExceeded, "a generation above the greatest");
    assert!(ok(allocate(store.b, THEIRS, 0)) <= highest + 1);
}

fn one_rotation_wins(store: &Handles<'_>) {
    let slot = Slot { lineage: OURS, class: KeyClass::Data, id: SlotId::NONE };
    for round in 1..=8_usize {
        let barrier = Barrier::new(THREAD_COUNT);
        let outcomes = on_threads(store, |handle, number| {
            let head = ok(block_on(handle.newest(slot, 1))).first().map(Record::key_id);
            let generation = ok(block_on(handle.allocate_generation(OURS, 0)));
            let record = sample(generation).key(number as u64).build();
            barrier.wait();
            (insert(handle, &record, head).map_err(|error| error.kind()), record)
        });
        let winner = assert_one_winner(&outcomes);
        store.assert_stored(winner);
        assert_eq!(store.list(OURS, None, usize::MAX).len(), round, "a loser was stored");
        assert!(store.newest(slot, usize::MAX).contains(&winner.key_id()));
    }
}

fn one_update_wins(store: &Handles<'_>) {
    ok(insert(store.a, &sample(1).build(), None));
    for sequence in 1..=8_u64 {
        let barrier = Barrier::new(THREAD_COUNT);
        let outcomes = on_threads(store, |handle, number| {
            // Different records with the same sequence.
            let record = sample(1).sequence(sequence + 1).wraps(1 + number % 8).build();
            barrier.wait();
            (update(handle, &record, sequence).map_err(|error| error.kind()), record)
        });
        store.assert_stored(assert_one_winner(&outcomes));
    }
}

fn one_scope_wins(store: &Handles<'_>) {
    for round in 0..8_u8 {
        let tag = [round + 1; 32];
        let barrier = Barrier::new(THREAD_COUNT);
        let outcomes = on_threads(store, |handle, number| {
            let id = SlotId::from_bytes([u8::try_from(number + 1).unwrap_or(u8::MAX) + round * 16; 16]);
            let record = sample(ok(block_on(handle.allocate_generation(OURS, 0)))).scope(id, tag).build();
            barrier.wait();
            (insert(handle, &record, None).map_err(|error| error.kind()), record)
        });
        let winner = assert_one_winner(&outcomes);
        assert_eq!(store.scope(OURS, tag), Some(winner.slot_id()));
        store.assert_stored(winner);
    }
    assert_eq!(store.list(OURS, None, usize::MAX).len(), 8, "a loser was stored");
}

fn same_clock(store: &Handles<'_>) {
    let earlier = ok(block_on(store.a.now()));
    let later = ok(block_on(store.b.now()));
    assert!(later >= earlier && later - earlier < 60, "{earlier} and then {later}");
}

/// Calls `work` on sixteen threads, half of them with each handle.
fn on_threads<T: Send>(store: &Handles<'_>, work: impl Fn(&dyn KeyStore, usize) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> =
            (0..THREAD_COUNT).map(|number| scope.spawn(move || work(store.either(number), number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| panic!("a thread panicked"))).collect()
    })
}

/// Exactly one succeeded, the others lost by `Conflict`.
fn assert_one_winner(outcomes: &[(Result<(), ErrorKind>, Record)]) -> &Record {
    let mut counts: HashMap<Option<ErrorKind>, usize> = HashMap::new();
    for (outcome, _) in outcomes {
        *counts.entry(outcome.err()).or_default() += 1;
    }
    let expected = HashMap::from([(None, 1), (Some(ErrorKind::Conflict), outcomes.len() - 1)]);
    assert_eq!(counts, expected, "None is success");
    outcomes.iter().find(|(outcome, _)| outcome.is_ok()).map(|(_, record)| record).expect("one succeeded")
}
