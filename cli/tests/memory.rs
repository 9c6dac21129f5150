//! A stream that does not fit: what goes in comes out, and neither side ever holds much of it. Nor does a report of its trail.

#[path = "common/audited.rs"]
mod audited;
mod common;

use audited::Audited;
use common::World;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that go through. `KEYFOLD_STREAM_MIB` makes it more, for a look at a machine.
const DEFAULT_MIB: usize = 60;
const MAX_RESIDENT_KIB: u64 = 200 * 1024;

/// The `n`th part of the stream: 1,000 rows.
fn part(n: usize) -> Vec<u8> {
    let mut text = String::new();
    if n == 0 {
        text.push_str("patient_id,name,ssn,note,state\n");
    }
    for row in n * 1000..(n + 1) * 1000 {
        writeln!(text, "{row},Canáry7391 Ångström-{row},Canáry7391-{row},\"Canáry7391, note about {row}\",KS")
            .expect("memory");
    }
    text.into_bytes()
}

/// The greatest resident size of a process so far.
fn peak_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Watches a process until it ends; its peak, and its exit code.
fn watch(mut child: Child) -> (u64, Option<i32>) {
    let mut peak = 0;
    loop {
        peak = peak_kib(child.id()).unwrap_or(peak);
        if let Some(status) = child.try_wait().expect("a status") {
            return (peak, status.code());
        }
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_stream_of_any_length_needs_little_memory() {
    let parts = std::env::var("KEYFOLD_STREAM_MIB").map_or(DEFAULT_MIB, |mib| mib.parse().expect("a number"))
        * (1 << 20)
        / part(1).len();
    let world = World::new();
    let start = |verb: &str, input: Stdio| {
        let mut command = world.command(&[verb, "-", "--format", "csv", "--output", "-", "--threads", "2"]);
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts")
    };
    let mut protect = start("protect", Stdio::piped());
    let mut reveal = start("reveal", protect.stdout.take().expect("a pipe").into());
    let (mut into, mut out) = (protect.stdin.take().expect("a pipe"), reveal.stdout.take().expect("a pipe"));
    let feeder = thread::spawn(move || (0..parts).try_for_each(|n| into.write_all(&part(n))));
    let watchers = [protect, reveal].map(|child| thread::spawn(move || watch(child)));
    let mut buffer = Vec::new();
    for n in 0..parts {
        let expected = part(n);
        buffer.resize(expected.len(), 0);
        out.read_exact(&mut buffer).expect("as much as went in");
        assert!(buffer == expected, "part {n} came back changed");
    }
    assert_eq!(out.read(&mut buffer).expect("the end"), 0);
    feeder.join().expect("the feeder").expect("all was read");
    for watcher in watchers {
        let (peak, code) = watcher.join().expect("a peak");
        assert_eq!(code, Some(0));
        println!("peak resident size: {} MiB", peak / 1024);
        assert!((1..MAX_RESIDENT_KIB).contains(&peak), "{peak} KiB");
    }
}

/// Lines of the long trail.
const LINES: usize = 300_000;

/// Whoever writes the folder of a trail has what he likes in it: lines with nothing in them, millions of values in one line, a line without an end.
#[test]
fn what_somebody_made_up_costs_little_memory_and_time() {
    let audited = Audited::new();
    let world = &audited.0;
    world.protect(&[]);
    let good = fs::read(audited.file()).expect("the trail");
    let chain = "ab".repeat(16);
    let line = |action: &str| {
        let values = "[0],".repeat(2 << 20);
        format!(
            "{{\"chain\":\"{chain}\",\"seq\":0,\"at\":0,\"time\":\"\",\"action\":\"{action}\",\"body\":[{values}0],\"mac\":\"{}\"}}\n",
            "00".repeat(32)
        )
    };
    let no_end = vec![b'x'; 200 << 20];
    for (name, made_up, max_mib) in [
        ("blank lines", vec![b'\n'; 5 << 20], 60),
        ("short lines", b"x\n".repeat(5 << 20), 60),
        ("values of an event", line("use").into_bytes(), 60),
        ("values of a statement", line("statement").into_bytes(), 60),
        ("no end", no_end, 170),
    ] {
        fs::write(audited.file(), [&good[..], &made_up].concat()).expect("written");
        for arguments in [
            &["audit", "verify"][..],
            &["audit", "export", "--format", "ecs"],
            &["report", "--verify", "--output", "report.json", "--format", "json", "--force"],
        ] {
            let mut command = world.command(arguments);
            command.arg("--config").arg(world.config()).stdout(Stdio::null()).stderr(Stdio::null());
            let begun = Instant::now();
            let (peak, code) = watch(command.spawn().expect("it starts"));
            println!("{name}, {arguments:?}: {} MiB, {:?}, {code:?}", peak / 1024, begun.elapsed());
            assert!((1..max_mib * 1024).contains(&peak), "{name}, {arguments:?}: {peak} KiB");
            assert!(begun.elapsed() < Duration::from_secs(20), "{name}, {arguments:?}: {:?}", begun.elapsed());
            let is_export = arguments[1] == "export";
            assert_eq!(code, Some(if is_export && name != "no end" { 0 } else { 4 }), "{name}, {arguments:?}");
        }
    }
}

#[test]
fn a_report_holds_little_of_a_long_trail() {
    let audited = Audited::new();
    let world = &audited.0;
    let mut text = String::new();
    for seq in 0..LINES {
        let at = text.len();
        writeln!(
            text,
            "{{\"chain\":\"{}\",\"seq\":{seq},\"at\":{at},\"time\":\"2031-03-{:02}T{:02}:00:00Z\",\"action\":\"use\",\"outcome\":\"ok\",\
             \"keyring\":\"default\",\"environment\":\"development\",\"actor\":\"patient-api\",\"key_id\":\"00000001{}\",\
             \"field\":\"patient.ssn\",\"details\":{{\"opened\":\"3\",\"sealed\":\"1\"}},\"mac\":\"{}\"}}",
            "ab".repeat(16),
            1 + seq % 28,
            seq % 24,
            "cd".repeat(8),
            "00".repeat(32)
        )
        .expect("memory");
    }
    fs::write(audited.file(), &text).expect("written");
    let mut command = world.command(&["report", "--format", "json", "--output", "report.json", "--at", "2031-03-31"]);
    let child = command.arg("--config").arg(world.config()).stderr(Stdio::null()).spawn().expect("it starts");
    let (peak, code) = watch(child);
    assert_eq!(code, Some(0));
    let report: serde_json::Value = serde_json::from_str(&world.text("report.json")).expect("JSON");
    assert_eq!((&report["audit"]["events"], &report["audit"]["total"]["opened"]), (&LINES.into(), &(3 * LINES).into()));
    println!("peak resident size: {} MiB, of a trail of {} MiB", peak / 1024, text.len() >> 20);
    assert!((1..text.len() as u64 / 1024).contains(&peak), "{peak} KiB");
}
