//! Threads, processes, forks, kills and a full disk. Processes are this test program started again.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::*;
use keyfold::AuditSink;
use keyfold::config::OnAuditFailure;
use keyfold_audit::{ChainEnd, FileAudit};
use keyfold_kms::LocalKek;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

const FOLDER: &str = "KEYFOLD_TEST_FOLDER";
const ROLE: &str = "KEYFOLD_TEST_ROLE";

const THREADS: u64 = 8;
const PER_THREAD: u64 = 100;

/// Starts `role` as a process of its own, after the shell commands `before`.
fn start(role: &str, folder: &Path, before: &str) -> Child {
    let script = format!("{before} exec \"$0\" \"$@\"");
    Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["role", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(ROLE, role)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A sink in the folder of another process.
fn sink_of(folder: &Path, change: impl FnOnce(&mut keyfold::config::AuditConfig)) -> FileAudit {
    let mut config = config("");
    let audit = config.audit.as_mut().unwrap();
    change(audit);
    let kek = Arc::new(LocalKek::open(folder.join("audit.kek")).unwrap());
    FileAudit::open(audit, folder, &config.keyring, kek).unwrap()
}

#[test]
#[ignore = "started by the other tests as a process of its own"]
fn role() {
    let folder = std::env::var_os(FOLDER).unwrap();
    let folder = Path::new(&folder);
    match std::env::var(ROLE).unwrap().as_str() {
        "threads" => {
            let sink = sink_of(folder, |audit| audit.max_size = 64 * 1024);
            let first = THREADS * PER_THREAD;
            append_in_threads(&sink, first);
        }
        "endless" => {
            let sink = sink_of(folder, |audit| audit.max_size = 64 * 1024);
            for n in 0.. {
                sink.record(event(n)).unwrap();
                println!("\nrecorded {n}");
            }
        }
        "refuse" => {
            let sink = sink_of(folder, |_| {});
            let recorded = (0..1000).take_while(|n| sink.record(event(*n)).is_ok()).count();
            assert!(sink.record(event(recorded as u64)).is_err());
            println!("\nrecorded {recorded}");
        }
        "count" => {
            let sink = sink_of(folder, |audit| audit.on_failure = OnAuditFailure::Count);
            for n in 0..1000 {
                sink.record(event(n)).unwrap();
            }
            sink.check().unwrap();
            // There is room again: the file was taken away.
            std::fs::rename(folder.join(FILE), folder.join("full")).unwrap();
            sink.record(event(1000)).unwrap();
        }
        other => panic!("{other}"),
    }
}

fn append_in_threads(sink: &FileAudit, first: u64) {
    thread::scope(|scope| {
        for n in 0..THREADS {
            scope.spawn(move || record(sink, first + n * PER_THREAD..first + (n + 1) * PER_THREAD));
        }
    });
}

/// Covers F-15.3-1, F-15.3-2.
// Failure K5
#[test]
fn two_processes_of_eight_threads_share_one_file_and_put_it_aside() {
    let trail = Trail::new("max_size = \"64KiB\"");
    let mut other = start("threads", trail.folder.path(), "");
    append_in_threads(&trail.sink(), 0);
    assert!(other.wait().unwrap().success());
    let report = trail.verify();
    assert!(report.is_clean() && report.is_authenticated() && report.chains.len() == 2, "{report:?}");
    assert!(report.files.len() > 3);
    assert_eq!(recorded(&trail.texts()), (0..2 * THREADS * PER_THREAD).map(|n| (n, 1)).collect());
}

#[test]
fn after_a_fork_parent_and_child_have_chains_of_their_own() {
    let trail = Trail::new("");
    let sink = trail.sink();
    record(&sink, 0..10);
    // SAFETY: the child runs this thread alone. It takes no lock that another thread of the test could have held, since it makes
    // its own; and it leaves by `_exit`, without destructors.
    let child = match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                record(&sink, 10..20);
                sink.close();
            }));
            // SAFETY: ends this process at once; nothing of it is used afterwards.
            unsafe { libc::_exit(i32::from(done.is_err())) }
        }
        child => child,
    };
    record(&sink, 20..30);
    let mut status = 0;
    // SAFETY: waits for a child of this process; `status` outlives the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
    record(&sink, 30..40);
    drop(sink);
    let report = trail.verify();
    assert!(report.is_clean() && report.chains.len() == 2, "{report:?}");
    assert!(report.chains.iter().all(|chain| chain.end == ChainEnd::Closed));
    assert_eq!(recorded(&trail.texts()), (0..40).map(|n| (n, 1)).collect());
}

#[test]
fn a_process_that_is_killed_leaves_an_open_chain_and_every_event_that_it_recorded() {
    let trail = Trail::new("max_size = \"64KiB\"");
    for round in 1..=8_u64 {
        let mut child = start("endless", trail.folder.path(), "");
        let mut last = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            if let Some(n) = line.unwrap().strip_prefix("recorded ") {
                last = n.parse::<u64>().unwrap();
                if last >= 40 * round {
                    break;
                }
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let report = trail.verify();
        assert!(report.is_clean() && report.is_authenticated(), "{report:?}");
        assert_eq!(report.chains.len() as u64, round);
        assert!(report.chains.iter().all(|chain| chain.end == ChainEnd::Open));
        assert!((0..=last).all(|n| recorded(&trail.texts()).contains_key(&n)));
    }
    record(&trail.sink(), 0..1);
    assert!(trail.verify().is_clean());
}

/// A limit on the size of files stands for a full disk: a write is cut short, then refused.
// Failure K15
#[test]
fn a_full_disk_refuses_or_is_counted_by_policy() {
    let full = "trap '' XFSZ; ulimit -f 24;";
    let trail = Trail::new("");
    let child = start("refuse", trail.folder.path(), full).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(child.status.success(), "{text}");
    let recorded_then: usize = text.lines().find_map(|line| line.strip_prefix("recorded ")).unwrap().parse().unwrap();
    let report = trail.verify();
    assert!(report.is_clean(), "no part of a line is left: {report:?}");
    assert!(recorded_then > 5 && recorded(&trail.texts()).len() == recorded_then);
    // Under a limit, it goes on where it stopped.
    record(&trail.sink(), 2000..2001);
    assert!(trail.verify().is_clean());

    let trail = Trail::new("");
    let child = start("count", trail.folder.path(), full).wait_with_output().unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    let full = text_of(&trail, "full");
    let first = recorded(std::slice::from_ref(&full)).len() as u64;
    let after = trail.texts();
    let report = verify(&[full, after[0].clone()], &trail.expected());
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.chains[0].lost, 1000 - first);
    assert_eq!(recorded(&after).into_keys().collect::<Vec<_>>(), [1000]);
}

fn text_of(trail: &Trail, name: &str) -> keyfold_audit::AuditText {
    text(&trail.folder.path().join(name))
}
