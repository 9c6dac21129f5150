//! Bodies of 64 MB do not end up in memory, whatever the adapter. In a process of its own, because it watches the memory of
//! the whole process.

#![cfg(target_os = "linux")]

mod common;

use common::rest::providers;
use common::server::Reply;
use common::{refused, unwrap};
use std::io::Write;
use std::time::Duration;

/// Kilobytes in use: `VmRSS` now, `VmHWM` at most since the mark was reset.
fn kilobytes(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find(|line| line.starts_with(name)).expect("a line");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn hostile_answers_take_less_than_two_megabytes() {
    let long = 64 << 20;
    for provider in providers() {
        let ask = |reply: Reply| {
            let server = provider.serve(reply);
            let opened = provider.kek(&format!("http://{}", server.address), Duration::from_secs(10), "");
            refused(unwrap(&*opened.kek, &(provider.wrapped)()))
        };
        // Once for what stays: the runtime, buffers, threads.
        for reply in [Reply::Long(1 << 20), Reply::json(400, "{}")] {
            ask(reply);
        }
        let mut most = 0;
        for reply in [Reply::Long(long), Reply::LongChunked(long), Reply::LongHeaders, Reply::Bomb, Reply::Echo(400)] {
            std::fs::write("/proc/self/clear_refs", "5").expect("the mark is reset");
            let before = kilobytes("VmRSS");
            ask(reply.clone());
            let grown = kilobytes("VmHWM").saturating_sub(before);
            assert!(grown < 2048, "{}, {reply:?}: {grown} KiB more", provider.name);
            most = grown.max(most);
        }
        let _ = writeln!(std::io::stdout(), "\n{}: hostile answers took {most} KiB at most", provider.name);
    }
}
