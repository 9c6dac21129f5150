//! What the cache refuses to hold, to be filled with and to be evaded by.

use crate::common::cache::Process;
use crate::common::lab::*;
use crate::common::{Shuffle, block_on};
use keyfold::wire::KeyId;
use keyfold::{CachePolicy, ColumnBytes, Decryptor, ErrorKind, RotationPolicy, SealedColumn, Value};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

// Failures B5, N6
#[test]
fn threads_together_never_seal_more_than_the_limit_under_one_key() {
    const THREADS: usize = 64;
    const EACH: usize = 200;
    for limit in [1, 100, 1_000] {
        let mut lab = Lab::new();
        lab.config.rotation = RotationPolicy { data_messages: Some(limit), ..lab.config.rotation };
        let process = Process::quick(&lab, lab.config.clone());
        let encryptor = encryptor(&process.ring, "plain", None).unwrap();
        let counts = Mutex::new(BTreeMap::<KeyId, u64>::new());
        let each = if limit == 1 { 3 } else { EACH };
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let mut sealed = 0;
                    while sealed < each {
                        block_on(encryptor.ready()).unwrap();
                        match encryptor.encrypt(Value::Text("x"), None) {
                            Ok(value) => {
                                *counts.lock().unwrap().entry(key_id_of(&value)).or_default() += 1;
                                sealed += 1;
                            }
                            // Somebody else took the last one.
                            Err(error) => assert_eq!(error.kind(), ErrorKind::LimitExceeded),
                        }
                    }
                });
            }
        });
        let counts = counts.into_inner().unwrap();
        assert_eq!(counts.values().sum::<u64>(), (THREADS * each) as u64);
        assert!(counts.values().all(|&n| n <= limit), "limit {limit}: {counts:?}");
        assert!(counts.len() as u64 >= (THREADS * each) as u64 / limit);
        if limit == 1_000 {
            // The next key is made while the old one seals, not long before.
            assert!(counts.len() <= 20, "{} keys", counts.len());
        }
    }
}

#[test]
fn a_column_counts_each_of_its_values() {
    let mut lab = Lab::new();
    lab.config.rotation = RotationPolicy { data_messages: Some(100), ..lab.config.rotation };
    let process = Process::quick(&lab, lab.config.clone());
    let encryptor = encryptor(&process.ring, "plain", None).unwrap();
    let values = [Value::Text("x"); 60];
    assert!(encryptor.encrypt_column(&values[..], None::<&[&[u8]]>).is_ok());
    // No row is at fault, and what the error says to do helps.
    let error = encryptor.encrypt_column(&values[..], None::<&[&[u8]]>).unwrap_err();
    assert_eq!((error.row, error.error.kind()), (None, ErrorKind::LimitExceeded));
    assert!(error.to_string().contains("await ready()"), "{error}");
    block_on(encryptor.ready()).unwrap();
    assert!(encryptor.encrypt_column(&values[..], None::<&[&[u8]]>).is_ok());
    // More than any key may seal.
    let error = encryptor.encrypt_column(&[Value::Null; 101][..], None::<&[&[u8]]>).unwrap_err();
    assert_eq!((error.row, error.error.kind()), (None, ErrorKind::LimitExceeded));
    assert!(error.to_string().contains("101 of 100"), "{error}");
    let before = encryptor.key_id();
    block_on(encryptor.ready()).unwrap();
    assert_eq!(encryptor.key_id(), before, "another key would not help");
}

/// Whoever seals few values goes on while the next key, which somebody with many is waiting for, cannot be made.
#[test]
fn a_key_that_is_too_small_for_a_batch_seals_on_while_the_store_is_away() {
    let mut lab = Lab::new();
    lab.config.rotation = RotationPolicy { data_messages: Some(100), ..lab.config.rotation };
    let process = Process::quick(&lab, lab.config.clone());
    let encryptor = encryptor(&process.ring, "plain", None).unwrap();
    assert!(encryptor.encrypt_column(&[Value::Null; 60][..], None::<&[&[u8]]>).is_ok());
    lab.faults.fail_store(true);
    assert!(encryptor.encrypt_column(&[Value::Null; 60][..], None::<&[&[u8]]>).is_err());
    let before = lab.faults.calls();
    for _ in 0..20 {
        block_on(encryptor.ready()).unwrap();
        encryptor.encrypt(Value::Null, None).unwrap();
    }
    assert!(lab.faults.calls() - before < 10, "the store is asked once a second at most");
    lab.faults.fail_store(false);
    process.clock.advance(Duration::from_secs(2));
    block_on(encryptor.ready()).unwrap();
    assert!(encryptor.encrypt_column(&[Value::Null; 60][..], None::<&[&[u8]]>).is_ok());
}

/// The rows that each key has sealed, in order.
fn rows_by_key(sealed: &SealedColumn) -> Vec<usize> {
    let keys: Vec<KeyId> = (0..ColumnBytes::len(sealed)).map(|row| key_id_of(sealed.bytes(row))).collect();
    keys.chunk_by(|a, b| a == b).map(<[KeyId]>::len).collect()
}

/// A column of any length is sealed, by keys that each keep to their allowance, and no row is half written.
#[test]
fn a_column_is_sealed_in_parts_by_as_many_keys_as_it_takes() {
    let mut lab = Lab::new();
    lab.config.rotation = RotationPolicy { data_messages: Some(100), ..lab.config.rotation };
    let process = Process::quick(&lab, lab.config.clone());
    let ring = &process.ring;
    let texts: Vec<String> = (0..1_000).map(|n| format!("value {n}")).collect();
    let values: Vec<Value<'_>> = texts.iter().map(|text| Value::Text(text)).collect();
    let rows: Vec<Vec<u8>> = (0..values.len()).map(|n| n.to_string().into_bytes()).collect();
    let handle = encryptor(ring, "bound", None).unwrap();
    let reader = decryptor(ring, "bound", None).unwrap();
    let opens = |sealed: &SealedColumn, rows: &[Vec<u8>], values: &[Value<'_>]| {
        block_on(reader.load_keys(sealed)).unwrap();
        let opened = reader.decrypt_column(sealed, Some(rows)).unwrap();
        assert!(opened.len() == values.len() && (0..values.len()).all(|row| opened.value(row) == values[row]));
    };
    // What a key has left is used first.
    handle.encrypt_column(&values[..60], Some(&rows[..60])).unwrap();
    let mut sealed = block_on(handle.encrypt_parts(&values[..], Some(&rows[..]))).unwrap();
    let parts = rows_by_key(&sealed);
    assert!(parts[0] <= 40 && parts.iter().all(|&part| part <= 100) && parts.len() <= 12, "{parts:?}");
    opens(&sealed, &rows, &values);
    // Behind others, and in the caller's buffers.
    block_on(handle.encrypt_parts_into(&values[..250], Some(&rows[..250]), &mut sealed)).unwrap();
    opens(&sealed, &[&rows[..], &rows[..250]].concat(), &[&values[..], &values[..250]].concat());
    let (mut data, mut offsets) = (vec![0; sealed.data().len()], vec![0; 1_001]);
    let len =
        block_on(handle.encrypt_parts_into_slices(&values[..], Some(&rows[..]), &mut data, &mut offsets)).unwrap();
    data.truncate(len);
    opens(&SealedColumn::from_parts(data, offsets).unwrap(), &rows, &values);
    // A row that cannot be sealed is told as ever, and what was there stays.
    let before = (sealed.data().to_vec(), sealed.offsets().to_vec());
    let mut bad = values.clone();
    bad[777] = Value::Decimal("1,5");
    let error = block_on(handle.encrypt_parts_into(&bad[..], Some(&rows[..]), &mut sealed)).unwrap_err();
    assert_eq!((error.row, error.error.kind()), (Some(777), ErrorKind::InvalidInput));
    assert_eq!((sealed.data(), sealed.offsets()), (&before.0[..], &before.1[..]));
    // Fields without a limit of their own, and none at all.
    let names = encryptor(ring, "alone", None).unwrap();
    assert_eq!(rows_by_key(&block_on(names.encrypt_parts(&values[..], None::<&[&[u8]]>)).unwrap()), [1_000]);
    assert!(block_on(handle.encrypt_parts(&[] as &[Value<'_>], None::<&[&[u8]]>)).unwrap().is_empty());
}

#[test]
fn columns_of_many_threads_are_all_sealed_in_parts() {
    let mut lab = Lab::new();
    lab.config.rotation = RotationPolicy { data_messages: Some(100), ..lab.config.rotation };
    let process = Process::quick(&lab, lab.config.clone());
    let handle = encryptor(&process.ring, "plain", None).unwrap();
    let counts = Mutex::new(BTreeMap::<KeyId, usize>::new());
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let column =
                        block_on(handle.encrypt_parts(&[Value::Text("x"); 130][..], None::<&[&[u8]]>)).unwrap();
                    let mut counts = counts.lock().unwrap();
                    (0..130).for_each(|row| *counts.entry(key_id_of(column.bytes(row))).or_default() += 1);
                }
            });
        }
    });
    let counts = counts.into_inner().unwrap();
    assert_eq!(counts.values().sum::<usize>(), 16 * 5 * 130);
    assert!(counts.values().all(|&count| count <= 100), "{counts:?}");
}

/// While the next key waits for its lead nothing more can be sealed, and nothing is left of what was.
#[test]
fn with_a_lead_a_column_in_parts_fails_whole() {
    let mut lab = Lab::new();
    lab.config.rotation =
        RotationPolicy { data_messages: Some(100), lead: Duration::from_secs(600), ..lab.config.rotation };
    let process = Process::quick(&lab, lab.config.clone());
    let handle = encryptor(&process.ring, "plain", None).unwrap();
    let mut out = handle.encrypt_column(&[Value::Text("first")][..], None::<&[&[u8]]>).unwrap();
    let error = block_on(handle.encrypt_parts_into(&[Value::Text("x"); 130][..], None::<&[&[u8]]>, &mut out));
    let error = error.unwrap_err();
    assert_eq!((error.row, error.error.kind()), (None, ErrorKind::LimitExceeded));
    assert_eq!(ColumnBytes::len(&out), 1);
}

/// What keeps the next key from being made is told, and not that the last one is used up.
#[test]
fn a_column_in_parts_without_a_store_fails_because_of_the_store() {
    let mut lab = Lab::new();
    lab.config.rotation = RotationPolicy { data_messages: Some(100), ..lab.config.rotation };
    let process = Process::quick(&lab, lab.config.clone());
    let handle = encryptor(&process.ring, "plain", None).unwrap();
    let mut out = handle.encrypt_column(&[Value::Text("first")][..], None::<&[&[u8]]>).unwrap();
    lab.faults.fail_store(true);
    let error = block_on(handle.encrypt_parts_into(&[Value::Text("x"); 130][..], None::<&[&[u8]]>, &mut out));
    assert_eq!(error.unwrap_err().error.kind(), ErrorKind::Store);
    assert_eq!(ColumnBytes::len(&out), 1);
}

/// What a key had put aside for its threads goes back to the count with it.
#[test]
fn a_key_that_leaves_memory_and_comes_back_loses_nothing_of_what_it_may_seal() {
    const VALUES: u64 = 2048;
    let mut lab = Lab::new();
    lab.config.rotation = RotationPolicy { data_messages: Some(VALUES), ..lab.config.rotation };
    lab.config.cache.max_keys = 0;
    let process = Process::quick(&lab, lab.config.clone());
    let handle = encryptor(&process.ring, "plain", None).unwrap();
    let first = handle.key_id();
    // The next key is made when an eighth is left, less what is put aside at this moment.
    for n in 0..VALUES - VALUES / 8 - VALUES / 1024 {
        process.ring.invalidate();
        assert_eq!(block_on(handle.ready()).unwrap().key_id(), first, "value {n}");
        handle.encrypt(Value::Text("x"), None).unwrap();
    }
}

/// Caches that hold nothing, one key, or less than one key cost requests to the store and change no result.
// Failures B1, B4, B9
#[test]
fn caches_of_no_and_of_one_key_give_the_same_results() {
    for (max_keys, max_bytes) in [(0, 0), (0, 1 << 26), (1, 1 << 26), (100_000, 0), (100_000, 1), (1, 4096)] {
        let mut lab = Lab::new();
        lab.config.cache = CachePolicy { max_keys, max_bytes, ..lab.config.cache };
        let scopes = ["a", "b", "c"].map(|name| (name, lab.add_scope(name, 60 + u32::from(name.as_bytes()[0]))));
        let process = Process::quick(&lab, lab.config.clone());
        let ring = &process.ring;
        let handles = scopes.each_ref().map(|(name, _)| encryptor(ring, "plain", Some(name)).unwrap());
        for _ in 0..3 {
            for ((name, parts), handle) in scopes.iter().zip(&handles) {
                let sealed = seal(ring, Some(name), name).unwrap();
                assert_eq!(reveal(ring, Some(name), &sealed).unwrap(), ((*name).to_owned(), true));
                block_on(handle.ready()).unwrap();
                let held = handle.encrypt(Value::Text(name), None).unwrap();
                assert_eq!(key_id_of(&held), parts.key.key_id());
                assert!(reveal(ring, None, &held).is_err(), "of another scope");
            }
            // Threads meet at the same few places.
            thread::scope(|threads| {
                for _ in 0..8 {
                    threads.spawn(|| {
                        for (name, parts) in &scopes {
                            let sealed = sealed_under(&parts.key, &[3; 24], name);
                            assert_eq!(reveal(ring, Some(name), &sealed).unwrap().0, *name);
                        }
                    });
                }
            });
        }
        assert_eq!(lab.kms.unwrap_count(), 1, "max_keys {max_keys}, max_bytes {max_bytes}: the root is always held");
        let (entries, bytes) = ring.occupancy();
        // The root, and notes of what the handles hold.
        let beside = 4096 + handles.len() * 1024;
        assert!(entries <= 4 * max_keys + 20 && bytes <= max_bytes + beside, "{entries} entries, {bytes} bytes");
    }
}

/// Nobody was asked about a key that is not looked up: it is used on by whoever holds it, and confirmed.
#[test]
fn a_flood_of_unknown_keys_ends_nothing_that_is_held() {
    let mut lab = Lab::new();
    lab.config.cache.max_keys = 0;
    let CachePolicy { max_age, .. } = lab.config.cache;
    let process = Process::quick(&lab, lab.config.clone());
    let handle = encryptor(&process.ring, "plain", None).unwrap();
    let reader = decryptor(&process.ring, "plain", None).unwrap();
    let sealed = handle.encrypt(Value::Text("x"), None).unwrap();
    let load =
        |reader: &Decryptor, sealed: &[u8]| block_on(reader.load_keys(&[sealed][..])).map_err(|e| e.error.kind());
    load(&reader, &sealed).unwrap();
    let newcomer = decryptor(&process.ring, "plain", None).unwrap();
    let (mut random, mut garbage) = (Shuffle(3), sealed.clone());
    let mut flood = || {
        loop {
            garbage[6..26].iter_mut().for_each(|byte| *byte = random.below(256) as u8);
            match load(&newcomer, &garbage).unwrap_err() {
                ErrorKind::LimitExceeded => return,
                kind => assert_eq!(kind, ErrorKind::NoMatchingKey),
            }
        }
    };
    for round in 0..3 {
        // Due, but not over.
        process.clock.advance(max_age * 19 / 20);
        flood();
        assert_eq!(load(&newcomer, &sealed), Err(ErrorKind::LimitExceeded), "of no handle's");
        let held = [reader.decrypt(&sealed, None).map(drop), handle.encrypt(Value::Text("x"), None).map(drop)];
        held.into_iter().for_each(|used| used.unwrap());
        load(&reader, &sealed).unwrap_or_else(|kind| panic!("round {round}: {kind:?}"));
        block_on(handle.ready()).unwrap();
    }
    // Nor does it cost the grace.
    flood();
    assert_eq!(load(&newcomer, &sealed), Err(ErrorKind::LimitExceeded));
    lab.faults.fail_store(true);
    process.clock.advance(max_age);
    block_on(handle.ready()).unwrap();
    load(&reader, &sealed).unwrap();
    reader.decrypt(&sealed, None).unwrap();
}

// Failures B3, B15
#[test]
fn a_million_invented_key_ids_do_not_push_good_keys_out() {
    const INVENTED: usize = 1_000_000;
    let mut lab = Lab::new();
    lab.config.cache = CachePolicy { max_keys: 64, negative: Duration::from_secs(1), ..lab.config.cache };
    let names: Vec<_> = (0..16).map(|n| format!("clinic-{n}")).collect();
    let good: Vec<_> = names
        .iter()
        .zip(100..)
        .map(|(name, generation)| sealed_under(&lab.add_scope(name, generation).key, &[5; 24], "x"))
        .collect();
    let process = Process::quick(&lab, lab.config.clone());
    let readers: Vec<_> = names.iter().map(|name| decryptor(&process.ring, "plain", Some(name)).unwrap()).collect();
    for (reader, sealed) in readers.iter().zip(&good) {
        block_on(reader.load_keys(&[&sealed[..]][..])).unwrap();
    }
    let attacked = decryptor(&process.ring, "plain", Some("clinic-0")).unwrap();
    let before = process.ring.occupancy();
    lab.faults.reset();
    let (mut random, mut garbage) = (Shuffle(3), good[0].clone());
    let mut good_reads = 0_u64;
    for n in 0..INVENTED {
        for byte in &mut garbage[6..26] {
            *byte = random.below(256) as u8;
        }
        let error = block_on(attacked.load_keys(&[&garbage[..]][..])).unwrap_err().error.kind();
        assert!(matches!(error, ErrorKind::NoMatchingKey | ErrorKind::LimitExceeded), "{error:?}");
        if n % 100 == 0 {
            // A fresh handle: its key must come from the cache, or from the store.
            let clinic = n / 100 % names.len();
            let reader = decryptor(&process.ring, "plain", Some(&names[clinic])).unwrap();
            block_on(reader.load_keys(&[&good[clinic][..]][..])).unwrap();
            good_reads += 1;
            process.clock.advance(Duration::from_micros(1));
        }
    }
    let calls = lab.faults.log();
    let looked_up = calls.iter().filter(|call| **call == "get").count();
    // A thousand, and as many more as a second refills in these ten milliseconds.
    assert!((1000..=1010).contains(&looked_up), "{looked_up} look-ups for a million invented keys");
    assert_eq!(process.ring.occupancy(), before, "nothing invented is held");
    assert_eq!(good_reads, 10_000);
    // Another clinic's keys that are not in memory are still looked up.
    let late = lab.add_scope("late", 900);
    assert!(reveal(&process.ring, Some("late"), &sealed_under(&late.key, &[5; 24], "x")).is_ok());
}
