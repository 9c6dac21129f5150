//! Restoring (DESIGN K12): copies of every age and honesty are put together, and no key is lost, no destroyed one comes back,
//! no generation is used twice.

use crate::common::lab::*;
use crate::common::{Shuffle, block_on, refused};
use keyfold::wire::KeyId;
use keyfold::{
    CopyStatus, ErrorKind, Evidence, HighWaterMark, KeyClass, KeyState, KmsErrorKind, Lost, Record, RecordCopy,
    RestorePlan, SeenElsewhere, SlotId,
};
use std::collections::BTreeSet;

const SCOPE: &str = "clinic";

fn copies(records: &[Record], status: CopyStatus) -> Vec<RecordCopy> {
    records.iter().map(|record| RecordCopy { record: record.clone(), status }).collect()
}

fn stored(records: &[Record]) -> Vec<RecordCopy> {
    copies(records, CopyStatus::Stored)
}

/// A year in the life of a keyring: what the store had on the day of the backup, and what it has now.
struct Year {
    lab: Lab,
    backup: Vec<Record>,
    now: Vec<Record>,
    /// Sealed before the backup and after it; in a scope that was shredded after it; under a key that was rotated.
    before: Vec<u8>,
    after: Vec<u8>,
    shredded: Vec<u8>,
    rotated: Vec<u8>,
    generation: u32,
}

impl Year {
    fn new() -> Self {
        let lab = Lab::new();
        let ring = lab.process();
        let before = seal(&ring, Some(SCOPE), "before").unwrap();
        let shredded = seal(&ring, Some("gone"), "shredded").unwrap();
        let backup = lab.store.all();
        let after = seal(&ring, Some("new ward"), "after").unwrap();
        block_on(ring.rotate_data_key(Some(SCOPE))).unwrap();
        let rotated = seal(&ring, Some(SCOPE), "rotated").unwrap();
        block_on(ring.shred_scope("gone", None)).unwrap();
        block_on(ring.finish_shred("gone", None)).unwrap();
        let (now, generation) = (lab.store.all(), lab.store.state().generation);
        Self { lab, backup, now, before, after, shredded, rotated, generation }
    }

    /// Only these records are left.
    fn back_to(&self, records: &[Record]) {
        *self.lab.store.state() = crate::common::store::State::default();
        records.iter().for_each(|record| self.lab.store.plant(record));
    }

    fn plan(&self, given: Vec<RecordCopy>, seen: &SeenElsewhere) -> RestorePlan {
        block_on(self.lab.process().plan_restore(given, seen)).unwrap()
    }

    #[track_caller]
    fn assert_whole(&self) {
        let ring = self.lab.process();
        for (scope, sealed, text) in
            [(SCOPE, &self.before, "before"), ("new ward", &self.after, "after"), (SCOPE, &self.rotated, "rotated")]
        {
            assert_eq!(reveal(&ring, Some(scope), sealed).unwrap().0, text);
        }
        assert_eq!(refused(reveal(&ring, Some("gone"), &self.shredded), "shredded"), ErrorKind::KeyState);
        block_on(ring.rotate_data_key(None)).unwrap();
        let newest = self.lab.store.all().iter().map(|record| record.key_id().generation()).max().unwrap();
        assert!(newest > self.generation, "a generation was used twice");
    }
}

#[test]
fn a_day_old_store_with_the_journal_loses_no_key_and_revives_none() {
    for empty in [false, true] {
        let year = Year::new();
        year.back_to(if empty { &[] } else { &year.backup });
        let mut shuffled = [stored(&year.backup), stored(&year.now)].concat();
        Shuffle(7).shuffle(&mut shuffled);
        let plan = year.plan(shuffled.clone(), &SeenElsewhere::default());
        assert_eq!((plan.lost.len(), plan.refused.len(), plan.keys), (0, 0, year.now.len()));
        block_on(year.lab.process().restore(&plan)).unwrap();
        let mut expected = year.now.clone();
        expected.sort_by_key(Record::key_id);
        assert_eq!(year.lab.store.all(), expected);
        assert!(year.plan(shuffled, &SeenElsewhere::default()).records.is_empty(), "once more finds nothing to do");
        year.assert_whole();
    }
}

#[test]
fn a_destroyed_key_is_never_seen_alive_and_roots_come_last() {
    let year = Year::new();
    let plan = |given: &[Record]| {
        year.back_to(given);
        year.plan(stored(&year.now), &SeenElsewhere::default()).records
    };
    let place = |records: &[Record], wanted: fn(&Record) -> bool| records.iter().position(wanted);
    let destroyed: fn(&Record) -> bool = |record| record.state() == KeyState::Destroyed;
    assert_eq!(place(&plan(&year.backup), destroyed), Some(0), "a tombstone is the first to be stored");
    let all = plan(&[]);
    assert_eq!(place(&all, destroyed), Some(0));
    assert_eq!(place(&all, |record| record.class() == KeyClass::Root), Some(all.len() - 1));
    // At every moment of it, a store that has a key of the shredded scope shows it destroyed.
    for end in 0..=all.len() {
        year.back_to(&[]);
        block_on(keyfold::KeyStore::restore(&year.lab.store, &all[..end])).unwrap();
        assert!(reveal(&year.lab.elsewhere(), Some("gone"), &year.shredded).is_err());
    }
}

#[test]
fn without_the_journal_it_says_which_keys_of_the_data_are_missing() {
    let year = Year::new();
    year.back_to(&year.backup);
    let in_data = [&year.before, &year.after, &year.rotated, &year.shredded].map(|sealed| key_id_of(sealed));
    let missing: BTreeSet<KeyId> = [&year.after, &year.rotated].map(|sealed| key_id_of(sealed)).into();
    let seen = SeenElsewhere { in_data: in_data.into(), ..SeenElsewhere::default() };
    let plan = year.plan(stored(&year.backup), &seen);
    let named = plan.lost.iter().map(|lost| match lost {
        Lost::InData(key_id) => *key_id,
        other => panic!("{other:?}"),
    });
    let lost: BTreeSet<_> = named.collect();
    assert_eq!(lost, missing);
    block_on(year.lab.process().restore(&plan)).unwrap();
    // Numbers that only the data knows are not used again; absurd ones do not use all numbers up.
    let ring = year.lab.elsewhere();
    let fresh = block_on(ring.rotate_data_key(None)).unwrap().new.key_id().generation();
    assert!(fresh > in_data.iter().map(KeyId::generation).max().unwrap());
    let absurd = KeyId::new(u32::MAX, &[1; 32]);
    let seen = SeenElsewhere { in_data: [absurd].into(), ..SeenElsewhere::default() };
    let plan = year.plan(Vec::new(), &seen);
    assert!(plan.generation < 1000 && plan.lost == [Lost::InData(absurd)]);
}

#[test]
fn what_marks_say_was_destroyed_is_destroyed_and_what_they_saw_is_not_forgotten() {
    let year = Year::new();
    year.back_to(&year.backup);
    let mark = |sequence, state| HighWaterMark { sequence, state };
    let [shredded, before] = [&year.shredded, &year.before].map(|sealed| key_id_of(sealed));
    let absent = key_id_of(&year.after);
    let seen = SeenElsewhere {
        generation: year.generation,
        given_out: 0,
        marks: vec![
            (shredded, mark(9, KeyState::Destroyed)),
            (before, mark(2, KeyState::Deactivated)),
            (absent, mark(3, KeyState::Compromised)),
            (KeyId::new(3, &[9; 32]), mark(4, KeyState::Destroyed)),
        ],
        in_data: BTreeSet::new(),
    };
    let known = SeenElsewhere { given_out: year.generation, ..seen.clone() };
    let plan = year.plan(stored(&year.backup), &known);
    let is_gap = |lost: &Lost| matches!(lost, Lost::Generations(..));
    assert!(!plan.lost.iter().any(is_gap), "a journal knows that the numbers were given out");
    let plan = year.plan(stored(&year.backup), &seen);
    let backed_up = year.backup.iter().map(|record| record.key_id().generation()).max().unwrap();
    assert_eq!(
        plan.lost,
        [
            Lost::Key(absent, mark(3, KeyState::Compromised)),
            Lost::Generations(backed_up + 1, year.generation),
            Lost::Newer(before, mark(2, KeyState::Deactivated), mark(1, KeyState::Active)),
        ]
    );
    assert_eq!((plan.destroyed.as_slice(), plan.destroys_on_doubt()), (&[(shredded, Evidence::Mark)][..], true));
    block_on(year.lab.process().restore(&plan)).unwrap();
    let tombstone = year.lab.store.find(shredded);
    assert_eq!((tombstone.state(), tombstone.sequence()), (KeyState::Destroyed, 9));
    // On this machine the old marks are in force until its high-water file is begun anew.
    let listed = block_on(year.lab.elsewhere().list(None, 1000)).unwrap();
    assert!(listed.iter().all(|info| info.verified.is_ok()));
    for ring in [year.lab.process(), year.lab.elsewhere()] {
        assert_eq!(refused(reveal(&ring, Some("gone"), &year.shredded), "destroyed"), ErrorKind::KeyState);
    }
}

#[test]
fn a_mark_alone_does_not_destroy_a_key_under_legal_hold() {
    let lab = Lab::new();
    let ring = lab.process();
    let sealed = seal(&ring, Some(SCOPE), "held").unwrap();
    block_on(ring.hold_scope(SCOPE, Some("case 7"))).unwrap();
    let held = lab.store.find(key_id_of(&sealed));
    let mark = HighWaterMark { sequence: 9, state: KeyState::Destroyed };
    let seen = SeenElsewhere { marks: vec![(held.key_id(), mark)], ..SeenElsewhere::default() };
    let plan = block_on(lab.elsewhere().plan_restore(Vec::new(), &seen)).unwrap();
    assert!(plan.records.is_empty() && plan.destroyed.is_empty());
    assert_eq!(plan.lost, [Lost::Newer(held.key_id(), mark, HighWaterMark::of(&held))]);
}

/// Covers F-D-6, F-D-7.
#[test]
fn a_tombstone_that_was_only_intended_gives_way_to_what_disproves_it_and_is_named_otherwise() {
    let lab = Lab::new();
    let parts = lab.add_scope(SCOPE, 40);
    let (first, tombstone) = (record(&parts), record(&in_state(parts.clone(), KeyState::Destroyed)));
    let second = record(&in_state(parts.clone(), KeyState::Deactivated));
    let forged = keyfold::vectors::RecordParts {
        sequence: 1000,
        root: theirs(KeyClass::Root, SlotId::NONE, ROOT),
        ..parts.clone()
    };
    let forged = record(&forged);
    use CopyStatus::{Intended, Stored};
    let plan = |given: &[(&Record, CopyStatus)]| {
        let given = given.iter().map(|(record, status)| RecordCopy { record: (*record).clone(), status: *status });
        block_on(lab.process().plan_restore(given.collect(), &SeenElsewhere::default())).unwrap()
    };
    let key_id = first.key_id();
    // The store has the first one.
    let disproved = plan(&[(&tombstone, Intended), (&second, Stored)]);
    assert_eq!((disproved.records, disproved.destroyed), (vec![second.clone()], Vec::new()));
    for given in [&[(&tombstone, Intended)][..], &[(&tombstone, Intended), (&forged, Stored)]] {
        let doubtful = plan(given);
        assert_eq!((&doubtful.destroyed[..], doubtful.tombstones), (&[(key_id, Evidence::Intent)][..], 1));
        assert!(doubtful.destroys_on_doubt());
    }
    let certain = plan(&[(&tombstone, Intended), (&tombstone, Stored), (&second, Stored)]);
    assert_eq!(certain.destroyed, [(key_id, Evidence::Tombstone)]);
    assert!(!certain.destroys_on_doubt() && certain.tombstones == 1);
}

/// Covers F-D-5.
#[test]
fn nobody_without_a_trusted_root_uses_generations_up() {
    let year = Year::new();
    year.back_to(&year.now);
    let forged =
        record(&child_parts(theirs(KeyClass::Data, SlotId::NONE, 900_000), theirs(KeyClass::Root, SlotId::NONE, ROOT)));
    let plan = year.plan(stored(&[forged]), &SeenElsewhere::default());
    assert_eq!(
        (plan.generation, plan.refused.len()),
        (year.now.iter().map(|r| r.key_id().generation()).max().unwrap(), 1)
    );
    let seen = |given_out| SeenElsewhere { given_out, ..SeenElsewhere::default() };
    assert_eq!(year.plan(Vec::new(), &seen(5000)).generation, 5000);
    let absurd = block_on(year.lab.process().plan_restore(Vec::new(), &seen(u32::MAX)));
    assert_eq!(refused(absurd, "a forged line"), ErrorKind::Malformed);
}

#[test]
fn forgeries_are_left_out_and_named_and_displace_nothing() {
    let year = Year::new();
    let genuine = year.now.clone();
    let scope_key = genuine.iter().find(|record| record.key_id() == key_id_of(&year.before)).unwrap();
    // An attacker's record of a key of ours, newer than every other one; his tombstone of our root; his keys.
    let forged_sequence = |parts: keyfold::vectors::RecordParts<'static>| {
        record(&keyfold::vectors::RecordParts {
            sequence: 1000,
            root: theirs(KeyClass::Root, SlotId::NONE, ROOT),
            ..parts
        })
    };
    let fake_root = theirs(KeyClass::Root, SlotId::NONE, 77);
    let forged = [
        forged_sequence(child_parts(data(DATA), root())),
        forged_sequence(in_state(child_parts(data(OLD_DATA), root()), KeyState::Destroyed)),
        record(&root_parts(&year.lab.kms, fake_root)),
        record(&child_parts(theirs(KeyClass::Data, SlotId::NONE, 78), fake_root)),
    ];
    year.back_to(&[]);
    let plan = year.plan([stored(&genuine), stored(&forged)].concat(), &SeenElsewhere::default());
    let left_out: BTreeSet<_> = plan.refused.iter().map(|(record, _)| record.as_bytes().to_vec()).collect();
    assert_eq!(left_out, forged.iter().map(|record| record.as_bytes().to_vec()).collect());
    block_on(year.lab.process().restore(&plan)).unwrap();
    assert_eq!(year.lab.store.find(scope_key.key_id()), *scope_key);
    assert_eq!(year.lab.store.all().len(), genuine.len());
    year.assert_whole();
    // Nothing but forgeries is no keyring.
    year.back_to(&[]);
    let nothing = block_on(year.lab.elsewhere().plan_restore(stored(&forged), &SeenElsewhere::default()));
    assert_eq!(refused(nothing, "forgeries alone"), ErrorKind::RecordRejected);
    // A key service that is away leaves nothing out.
    year.lab.kms.set_failure(Some(KmsErrorKind::Unavailable));
    let away = block_on(year.lab.elsewhere().plan_restore(stored(&genuine), &SeenElsewhere::default()));
    assert_eq!(refused(away, "no key service"), ErrorKind::Kms(KmsErrorKind::Unavailable));
}

/// Covers F-D-7.
#[test]
fn of_one_sequence_what_was_stored_counts_then_the_stricter_state() {
    let lab = Lab::new();
    let parts = lab.add_scope(SCOPE, 40);
    let at = |state| record(&in_state(parts.clone(), state));
    let (retired, compromised) = (at(KeyState::Deactivated), at(KeyState::Compromised));
    let first = record(&parts);
    let choose = |given: [(&Record, CopyStatus); 2]| {
        let given = given.map(|(record, status)| RecordCopy { record: record.clone(), status });
        let plan = block_on(lab.process().plan_restore(given.into(), &SeenElsewhere::default())).unwrap();
        plan.records.first().cloned()
    };
    use CopyStatus::{Intended, Refused, Stored};
    assert_eq!(choose([(&retired, Stored), (&compromised, Intended)]), Some(retired.clone()));
    assert_eq!(choose([(&retired, Stored), (&compromised, Stored)]), Some(compromised.clone()));
    assert_eq!(choose([(&retired, Intended), (&compromised, Intended)]), Some(compromised.clone()));
    assert_eq!(choose([(&compromised, Refused), (&first, Stored)]), None);
    assert_eq!(choose([(&retired, Intended), (&first, Stored)]), Some(retired));
    // A scope that was only to be made while somebody else made it is left out.
    let rival = keyfold::vectors::RecordParts {
        scope_tag: Some(scope_tag(SCOPE)),
        ..child_parts(ours(KeyClass::Data, SlotId::from_bytes([7; 16]), 39), root())
    };
    let rival = record(&rival);
    let given = copies(std::slice::from_ref(&rival), Intended);
    let plan = block_on(lab.process().plan_restore(given, &SeenElsewhere::default())).unwrap();
    assert_eq!((plan.records.len(), plan.refused.len()), (0, 1));
    assert_eq!(plan.refused[0].1.kind(), ErrorKind::Conflict);
}

#[test]
fn a_failure_at_every_call_leaves_a_store_that_can_be_restored() {
    let mut failures = 0;
    for empty in [false, true] {
        for after in [false, true] {
            for n in 1.. {
                let year = Year::new();
                year.back_to(if empty { &[] } else { &year.backup });
                let given = || [stored(&year.backup), stored(&year.now)].concat();
                let run = || {
                    let ring = year.lab.process();
                    let plan = block_on(ring.plan_restore(given(), &SeenElsewhere::default()))?;
                    block_on(ring.restore(&plan))
                };
                year.lab.faults.fail_nth(n, after);
                let first = run();
                let calls = year.lab.faults.calls();
                year.lab.faults.off();
                assert!(reveal(&year.lab.elsewhere(), Some("gone"), &year.shredded).is_err() || !empty);
                if first.is_ok() && calls < n {
                    break;
                }
                failures += usize::from(first.is_err());
                run().unwrap_or_else(|error| panic!("call {n}, after {after}: {error}"));
                year.assert_whole();
            }
        }
    }
    assert!(failures > 50, "only {failures} failures");
}

#[test]
fn restoring_never_lowers_what_others_write_meanwhile() {
    let lab = Lab::new();
    let parts = lab.add_scope(SCOPE, 40);
    let all = lab.store.all();
    lab.store.state().records.clear();
    let ring = lab.process();
    let plan = block_on(ring.plan_restore(stored(&all), &SeenElsewhere::default())).unwrap();
    let newer = record(&in_state(parts, KeyState::Deactivated));
    lab.store.plant(&newer);
    block_on(ring.restore(&plan)).unwrap();
    assert_eq!(lab.store.find(newer.key_id()), newer);
}

/// The record with a bit turned over in its MAC.
fn damaged(record: &Record) -> Record {
    let mut bytes = record.as_bytes().to_vec();
    let at = bytes.len() - 5;
    bytes[at] ^= 1;
    Record::parse(&bytes).unwrap()
}

#[test]
fn a_damaged_record_of_the_store_gives_way_to_a_good_copy_of_the_same_rank() {
    let year = Year::new();
    let mut expected = year.now.clone();
    expected.sort_by_key(Record::key_id);
    for record in &year.now {
        let bad = damaged(record);
        // A journal that was made from the damaged store, before the good copy and after it.
        let journal = stored(std::slice::from_ref(&bad));
        let orders =
            [stored(&year.now), [journal.clone(), stored(&year.now)].concat(), [stored(&year.now), journal].concat()];
        for given in orders {
            year.back_to(&year.now);
            year.lab.store.plant(&bad);
            let plan = year.plan(given.clone(), &SeenElsewhere::default());
            let refused: Vec<_> = plan.refused.iter().map(|(record, _)| record.clone()).collect();
            let displacing: Vec<_> = plan.displacing.iter().map(|change| change.record.clone()).collect();
            assert_eq!((refused, displacing), (vec![bad.clone()], vec![record.clone()]), "{record:?}");
            assert_eq!((plan.records.len(), plan.lost.len(), plan.to_store()), (0, 0, 1));
            block_on(year.lab.process().restore(&plan)).unwrap();
            assert_eq!(year.lab.store.all(), expected);
            assert_eq!(year.plan(given, &SeenElsewhere::default()).to_store(), 0, "once more finds nothing to do");
        }
        // Nor is anything wrong with a journal that has the good one behind it.
        let mended = [stored(std::slice::from_ref(&bad)), stored(&year.now)].concat();
        assert!(block_on(year.lab.process().check_copies(mended)).unwrap().is_empty());
    }
    year.assert_whole();
}

#[test]
fn an_older_copy_takes_the_place_only_of_what_nobody_vouches_for_and_is_a_loss() {
    let lab = Lab::new();
    let parts = lab.add_scope(SCOPE, 40);
    let (first, key_id) = (record(&parts), record(&parts).key_id());
    let retired = record(&in_state(parts.clone(), KeyState::Deactivated));
    let tombstone = record(&in_state(parts.clone(), KeyState::Destroyed));
    // Of a root that is not trusted here: forged, or a pin is missing.
    let of_other = theirs(KeyClass::Root, SlotId::NONE, ROOT);
    let of_other = record(&keyfold::vectors::RecordParts { sequence: 9, root: of_other, ..parts.clone() });
    let plan = |present: &Record, copy: &Record, marks: &[HighWaterMark]| {
        lab.store.plant(present);
        let marks = marks.iter().map(|mark| (key_id, *mark)).collect();
        let seen = SeenElsewhere { marks, ..SeenElsewhere::default() };
        block_on(lab.process().plan_restore(stored(std::slice::from_ref(copy)), &seen)).unwrap()
    };
    for bad in [damaged(&retired), damaged(&tombstone), of_other] {
        let plan = plan(&bad, &first, &[]);
        assert_eq!(plan.lost, [Lost::Unvouched(key_id, HighWaterMark::of(&bad), HighWaterMark::of(&first))]);
        assert_eq!((plan.refused.len(), &plan.refused[0].0, plan.destroyed.len()), (1, &bad, 0));
        block_on(lab.process().restore(&plan)).unwrap();
        assert_eq!(lab.store.find(key_id), first);
    }
    // The marks count, whatever became of the tombstone.
    let destroyed = plan(&damaged(&tombstone), &first, &[HighWaterMark::of(&tombstone)]);
    assert_eq!((&destroyed.destroyed[..], destroyed.lost.len()), (&[(key_id, Evidence::Mark)][..], 0));
    block_on(lab.process().restore(&destroyed)).unwrap();
    assert_eq!(lab.store.find(key_id).state(), KeyState::Destroyed);
    // What is vouched for stays, beside older copies and beside newer bad ones.
    for copy in [&first, &damaged(&tombstone)] {
        assert_eq!(plan(&retired, copy, &[]).to_store(), 0);
    }
    // Another process was faster.
    let plan = plan(&damaged(&first), &first, &[]);
    lab.store.plant(&retired);
    assert_eq!(refused(block_on(lab.process().restore(&plan)), "somebody else"), ErrorKind::Conflict);
    assert_eq!(lab.store.find(key_id), retired);
}

#[test]
fn a_root_that_was_replaced_is_not_lost_unless_a_key_needs_it_or_no_copy_has_it() {
    let lab = Lab::new();
    let old = theirs(KeyClass::Root, SlotId::NONE, 7);
    let active = root_parts(&lab.kms, old);
    let (active, retired) = (record(&active), record(&in_state(active.clone(), KeyState::Deactivated)));
    let child = record(&child_parts(theirs(KeyClass::Data, SlotId::NONE, 8), old));
    let mark = |state, sequence| HighWaterMark { sequence, state };
    let last_seen = HighWaterMark::of(&retired);
    let plan = |given: &[&Record], mark| {
        let given: Vec<_> = given.iter().map(|record| (*record).clone()).collect();
        let seen = SeenElsewhere { marks: vec![(retired.key_id(), mark)], ..SeenElsewhere::default() };
        block_on(lab.process().plan_restore(stored(&given), &seen)).unwrap()
    };
    let named =
        |records: &[(Record, keyfold::Error)]| records.iter().map(|(record, _)| record.clone()).collect::<Vec<_>>();
    // A journal keeps older records of it.
    let gone = plan(&[&active, &retired], last_seen);
    assert_eq!(
        (gone.lost, gone.refused.len(), named(&gone.retired)),
        (vec![], 0, vec![retired.clone(), active.clone()])
    );
    for (given, mark) in [
        (&[][..], last_seen),
        (&[&retired, &child], last_seen),
        (&[&active], mark(KeyState::Active, 1)),
        (&[&retired], mark(KeyState::Compromised, 3)),
    ] {
        let plan = plan(given, mark);
        assert!(plan.lost.contains(&Lost::Key(retired.key_id(), mark)), "{given:?}: {:?}", plan.lost);
    }
    lab.store.plant(&retired);
    let in_store = plan(&[], last_seen);
    assert_eq!((in_store.lost, named(&in_store.retired), in_store.records), (vec![], vec![retired.clone()], vec![]));
}
