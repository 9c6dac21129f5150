//! `kill -9` at random points while a table is re-encrypted: every value opens, the counts add up, and resuming finishes.

mod common;
#[path = "common/tables.rs"]
mod tables;

use common::kills;
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tables::{Database, FIELDS, Hospital, databases, key_id};

const ROWS: usize = 400;

// Failure N12
#[test]
fn every_value_opens_after_kill_9_at_random_points_and_resuming_finishes() {
    kill(databases().remove(0), kills(60));
}

#[test]
fn likewise_on_a_database() {
    for database in databases().into_iter().filter(Database::is_postgres) {
        kill(database, kills(12));
    }
}

/// Not for keys.
fn below(random: &mut u64, n: u64) -> u64 {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*random >> 33) % n
}

fn kill(database: Database, kills: usize) {
    let hospital = Hospital::new(database);
    hospital.add(0..ROWS, None);
    let options = [&FIELDS[..], &["--checkpoint", "point", "--batch-rows", "10", "--errors", "ledger"]].concat();
    // Slowly, so that it is killed between its steps as well as within them.
    let slow = [&options[..], &["--rows-per-second", "4000"]].concat();
    hospital.rotate(None);
    let began = Instant::now();
    hospital.run("reencrypt", &slow).expect(0, &[]);
    let takes = began.elapsed();
    let (mut random, mut killed, mut half_way, mut resumed) = (0x5EED, 0, 0, 0);
    hospital.world.succeeds(&["keys", "rotate"]);
    for run in 0.. {
        if killed == kills {
            break;
        }
        assert!(run < 5 * kills, "only {killed} of {run} were killed before their end");
        resumed += usize::from(hospital.world.path("point").exists());
        let mut command = hospital.world.command(&hospital.arguments("reencrypt", &slow));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        sleep(takes.mul_f64(below(&mut random, 1200) as f64 / 1000.0));
        child.kill().expect("killed");
        let status = child.wait().expect("it ends");
        let rows = hospital.rows();
        assert_eq!(rows.len(), ROWS);
        let keys: BTreeSet<_> = rows.iter().map(|row| key_id(&row.cells[1])).collect();
        half_way += usize::from(keys.len() > 1);
        hospital.assert_open(&rows, |_| None);
        match status.code() {
            None => killed += 1,
            // It was faster than that: something to do again.
            Some(code) => {
                assert_eq!(code, 0);
                hospital.rotate(None);
            }
        }
    }
    assert!(half_way > 0 && resumed > 0, "none was killed half way");
    let finish = [&options[..], &["--statement", "statement", "--json"]].concat();
    let end = hospital.run("reencrypt", &finish).expect(0, &[]);
    let summary: Json =
        serde_json::from_str(end.stderr.lines().find(|line| line.starts_with('{')).expect("a summary")).expect("JSON");
    let number = |name: &str| summary[name].as_u64().expect(name);
    let sum: u64 = ["resealed", "current", "failed", "empty", "gone", "busy"].map(number).iter().sum();
    assert_eq!((number("rows"), sum), (ROWS as u64, 2 * ROWS as u64));
    let rows = hospital.rows();
    let keys: BTreeSet<_> = rows.iter().flat_map(|row| [key_id(&row.cells[1]), key_id(&row.cells[2])]).collect();
    assert_eq!(keys.len(), 1);
    hospital.assert_open(&rows, |_| None);
    hospital.assert_silent(&["statement"]);
    assert!(!hospital.world.path("point").exists() && !hospital.world.path("ledger").exists());
    println!("{killed} killed before their end, {half_way} half way, {resumed} resumed, a run takes {takes:?}");
    assert!(takes > Duration::from_millis(50));
}
