//! The log of marks: what a crash leaves of it, what it costs, and several processes with one file.

use keyfold::wire::KeyId;
use keyfold::{ErrorKind, HighWater, HighWaterMark, KeyState, Lineage};
use keyfold_store::FileHighWater;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const OURS: Lineage = Lineage::from_bytes([1; 16]);
const FILE: &str = "KEYFOLD_TEST_FILE";
const NUMBER: &str = "KEYFOLD_TEST_NUMBER";

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("high-water");
    (folder, path)
}

fn open(path: &Path) -> FileHighWater {
    FileHighWater::open(path).expect("opened")
}

fn key(number: u32) -> KeyId {
    KeyId::new(number, &[7; 32])
}

/// Raises the key `number` to `sequence`.
fn raise(marks: &FileHighWater, number: u32, sequence: u64) {
    let mark = HighWaterMark { sequence, state: KeyState::Active };
    marks.raise(OURS, number, Some((key(number), mark))).expect("raised");
}

fn sequence(marks: &FileHighWater, number: u32) -> u64 {
    marks.mark(OURS, key(number)).expect("read").map_or(0, |mark| mark.sequence)
}

// Failure K2
#[test]
fn a_log_torn_at_any_byte_holds_its_whole_lines_and_goes_on() {
    let (_folder, path) = folder();
    raise(&open(&path), 1, 1);
    // Where the file ended when each sequence was raised.
    let mut ends = vec![0, fs::metadata(&path).expect("metadata").len()];
    for sequence in 2..=4 {
        raise(&open(&path), 1, sequence);
        ends.push(fs::metadata(&path).expect("metadata").len());
    }
    let good = fs::read(&path).expect("read");
    for len in ends[1]..=ends[4] {
        let kept = (1..=4).rev().find(|sequence| ends[*sequence] <= len).expect("one line at least");
        let cut = &good[..usize::try_from(len).expect("small")];
        let next_end = ends.get(kept + 1).map_or(len, |end| *end);
        // The size may reach the disk before the bytes do.
        let zeros = vec![0; usize::try_from(next_end - len).expect("small")];
        let late = [&vec![0; cut.len() - usize::try_from(ends[kept]).expect("small")], &good[cut.len()..]].concat();
        let late = &late[..usize::try_from(next_end - ends[kept]).expect("small")];
        let whole = &good[..usize::try_from(ends[kept]).expect("small")];
        let mut torn = vec![cut.to_owned(), [cut, &zeros].concat()];
        if len > ends[kept] {
            torn.push([whole, late].concat());
        }
        for torn in torn {
            fs::write(&path, &torn).expect("written");
            let marks = open(&path);
            assert_eq!(sequence(&marks, 1), kept as u64, "{len} bytes");
            assert_eq!(fs::read(&path).expect("read"), torn, "reading changes nothing");
            raise(&marks, 2, 9);
            assert_eq!(sequence(&marks, 1), kept as u64);
            let after = fs::read(&path).expect("read");
            assert!(after.starts_with(whole) && after.ends_with(b"\n") && !after.contains(&0), "not cut off");
            let marks = open(&path);
            assert_eq!((sequence(&marks, 1), sequence(&marks, 2)), (kept as u64, 9), "{len} bytes");
        }
    }
}

/// A handle that has read a torn line reads on when another one has cut it off.
#[test]
fn a_reader_follows_a_log_that_was_torn() {
    let (_folder, path) = folder();
    raise(&open(&path), 1, 1);
    let whole = fs::metadata(&path).expect("metadata").len();
    raise(&open(&path), 1, 2);
    let good = fs::read(&path).expect("read");
    for len in usize::try_from(whole).expect("small")..good.len() {
        fs::write(&path, &good[..len]).expect("written");
        let reader = open(&path);
        assert_eq!(sequence(&reader, 1), 1);
        raise(&open(&path), 3, 5);
        assert_eq!((sequence(&reader, 1), sequence(&reader, 3)), (1, 5), "{len} bytes");
        raise(&reader, 4, 6);
        assert_eq!(sequence(&open(&path), 4), 6);
    }
}

#[test]
fn a_log_that_is_out_of_date_is_compacted_and_readers_follow() {
    let (_folder, path) = folder();
    let (writer, reader) = (open(&path), open(&path));
    raise(&writer, 1, 1);
    let inode = |path: &Path| fs::metadata(path).expect("metadata").ino();
    let (mut last, mut compactions) = (inode(&path), 0);
    for round in 2..2500 {
        raise(&writer, 1, round);
        assert_eq!(sequence(&reader, 1), round);
        if inode(&path) != last {
            (last, compactions) = (inode(&path), compactions + 1);
            assert!(fs::metadata(&path).expect("metadata").len() < 1024);
        }
        assert!(fs::metadata(&path).expect("metadata").len() < 65 * 1024);
    }
    assert!((2..=8).contains(&compactions), "{compactions} compactions of 2,500 lines");
    let mode = fs::metadata(&path).expect("metadata").mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// A file of version 1 with `count` keys: more than a test wants to raise one by one.
fn write_many(path: &Path, count: u32) {
    let mut text = format!("keyfold-high-water 1\n{OURS} generation {count}\n");
    for number in 1..=count {
        writeln!(text, "{OURS} key {} 1 active", key(number)).expect("a string takes everything");
    }
    let mut checksum = String::from("sha256 ");
    for byte in Sha256::digest(&text) {
        write!(checksum, "{byte:02x}").expect("a string takes everything");
    }
    fs::write(path, text + &checksum + "\n").expect("written");
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("changed");
}

/// Bytes that this thread has read and written so far, as Linux counts them.
fn io_of_thread() -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/io").ok()?;
    let field = |name| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    Some(field("rchar:")? + field("wchar:")?)
}

#[test]
fn a_raise_and_a_read_cost_the_same_among_ten_and_200_000_marks() {
    const RAISE_COUNT: u32 = 1000;
    if io_of_thread().is_none() {
        // Past the harness, which hides what a test that passes prints.
        writeln!(
            std::io::stderr(),
            "\nSKIPPED {}: the kernel does not count what a thread reads and writes",
            std::thread::current().name().unwrap_or_default()
        )
        .expect("written");
        return;
    }
    let (_folder, path) = folder();
    let cost = |count| {
        write_many(&path, count);
        let (writer, reader) = (open(&path), open(&path));
        raise(&writer, count + 1, 1);
        assert_eq!(sequence(&reader, count + 1), 1);
        let (before, len) = (io_of_thread().expect("counted"), fs::metadata(&path).expect("metadata").len());
        for number in count + 2..count + 2 + RAISE_COUNT {
            raise(&writer, number, 1);
            assert_eq!(sequence(&reader, number), 1);
        }
        let grown = fs::metadata(&path).expect("metadata").len() - len;
        assert!(grown < 256 * u64::from(RAISE_COUNT), "{grown} bytes for {RAISE_COUNT} raises");
        assert_eq!(sequence(&open(&path), 1), 1);
        io_of_thread().expect("counted") - before - fs::metadata(&path).expect("metadata").len()
    };
    let (few, many) = (cost(10), cost(200_000));
    assert!(many < 2 * few && many < 1024 * u64::from(RAISE_COUNT), "{few} bytes among 10, {many} among 200,000");
}

/// For docs/LIMITS.md.
#[test]
#[ignore = "measures time"]
fn what_a_raise_costs() {
    const RAISE_COUNT: u32 = 2000;
    let (_folder, path) = folder();
    for count in [10, 100_000, 1_000_000] {
        write_many(&path, count);
        let start = Instant::now();
        let marks = open(&path);
        let opened = start.elapsed();
        raise(&marks, count + 1, 1);
        let start = Instant::now();
        for number in count + 2..count + 2 + RAISE_COUNT {
            raise(&marks, number, 1);
        }
        println!("{count} keys: opened in {opened:?}, raised in {:?} each", start.elapsed() / RAISE_COUNT);
    }
}

/// Starts the test `name` of this file as a process of its own, in a shell that has done `first`.
fn start(name: &str, path: &Path, number: u32, first: &str) -> Child {
    Command::new("sh")
        .args(["-c", &format!("{first} exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().expect("this program"))
        .args([name, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(FILE, path)
        .env(NUMBER, number.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started")
}

/// The file and the number that [`start`] passed on.
fn given() -> (PathBuf, u32) {
    let path = std::env::var_os(FILE).expect("only started by another test");
    (path.into(), std::env::var(NUMBER).ok().and_then(|number| number.parse().ok()).expect("a number"))
}

const ROUND_COUNT: u64 = 800;

#[test]
#[ignore = "started by processes_that_append_and_compact_at_once_lose_nothing as a process of its own"]
fn raise_many() {
    let (path, number) = given();
    let marks = open(&path);
    for round in 1..=ROUND_COUNT {
        raise(&marks, number, round);
        assert_eq!(sequence(&marks, number), round);
        let other = (number + 1) % 4;
        assert!(sequence(&marks, other) <= ROUND_COUNT);
    }
}

// Failure K5
#[test]
fn processes_that_append_and_compact_at_once_lose_nothing() {
    let (_folder, path) = folder();
    let reader = open(&path);
    let mut children: Vec<Child> = (0..4).map(|number| start("raise_many", &path, number, "")).collect();
    let (mut files, mut known) = (std::collections::HashSet::new(), [0; 4]);
    while children.iter_mut().any(|child| child.try_wait().expect("asked").is_none()) {
        // One that reads all, and one that reads what is added.
        for marks in [&reader, &open(&path)] {
            for (number, known) in (0..4).zip(&mut known) {
                let sequence = sequence(marks, number);
                assert!(sequence >= *known, "a mark went back");
                *known = sequence;
            }
        }
        files.extend(fs::metadata(&path).map(|metadata| metadata.ino()));
    }
    for mut child in children {
        assert!(child.wait().expect("ended").success());
    }
    assert!(files.len() > 1, "never compacted");
    for marks in [&reader, &open(&path)] {
        assert_eq!([0, 1, 2, 3].map(|number| sequence(marks, number)), [ROUND_COUNT; 4]);
    }
}

#[test]
#[ignore = "started by a_killed_process_loses_no_mark_that_it_reported as a process of its own"]
fn raise_until_killed() {
    let (path, number) = given();
    let marks = open(&path);
    let mut out = std::io::stdout().lock();
    writeln!(out).expect("written");
    for round in 1.. {
        raise(&marks, number, round);
        writeln!(out, "done {round}").expect("written");
        out.flush().expect("written");
    }
}

// Failure K2
#[test]
fn a_killed_process_loses_no_mark_that_it_reported() {
    let (_folder, path) = folder();
    let mut reported = Vec::new();
    // Until the file was compacted: how many raises there are by then depends on the disk.
    for kill in 0..240_u32 {
        if kill >= 24 && reported.iter().sum::<u64>() > 700 {
            break;
        }
        let mut child = start("raise_until_killed", &path, kill, "");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        while !line.starts_with("done") {
            line.clear();
            assert_ne!(output.read_line(&mut line).expect("text"), 0, "the process ended");
        }
        std::thread::sleep(Duration::from_micros(u64::from(500 * (kill % 24).pow(2))));
        child.kill().expect("killed");
        child.wait().expect("ended");
        let rest = line + &std::io::read_to_string(output).expect("text");
        // The last line may be cut off.
        let complete = rest.rfind('\n').map_or("", |end| &rest[..end]);
        let last = complete.lines().last().and_then(|line| line.strip_prefix("done ")).expect("a line");
        reported.push(last.parse::<u64>().expect("a number"));
        let marks = open(&path);
        for (number, reported) in (0..).zip(&reported) {
            assert!(sequence(&marks, number) >= *reported, "lost a mark after kill {kill}");
        }
    }
    let total: u64 = reported.iter().sum();
    assert!(total > 700, "only {total} raises: never compacted");
}

#[test]
#[ignore = "started by a_raise_that_fails_leaves_the_marks_as_before as a process of its own"]
fn raise_until_full() {
    let (path, _) = given();
    let marks = open(&path);
    for round in 1..1000 {
        let len = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        let mark = HighWaterMark { sequence: round, state: KeyState::Active };
        if let Err(error) = marks.raise(OURS, 1, Some((key(1), mark))) {
            assert_eq!(error.kind(), ErrorKind::Io);
            assert_eq!(fs::metadata(&path).expect("metadata").len(), len, "a part of a line stayed");
            assert_eq!((sequence(&marks, 1), sequence(&open(&path), 1)), (round - 1, round - 1));
            println!("\nfull after {}", round - 1);
            return;
        }
    }
}

// Failure K3
#[test]
fn a_raise_that_fails_leaves_the_marks_as_before() {
    let (_folder, path) = folder();
    // No file may be longer than 4 blocks, and writing more is an error rather than the end.
    let child = start("raise_until_full", &path, 0, "trap '' XFSZ; ulimit -f 4;");
    let output = child.wait_with_output().expect("ended");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let last = text.lines().find_map(|line| line.strip_prefix("full after ")).expect("it became full");
    let last: u64 = last.parse().expect("a number");
    assert!(last > 5);
    let marks = open(&path);
    assert_eq!(sequence(&marks, 1), last);
    raise(&marks, 1, last + 1);
    assert_eq!(sequence(&open(&path), 1), last + 1);
}
