//! Bodies of 64 MB do not end up in memory. In a process of its own, because it watches the memory of the whole process.

#![cfg(target_os = "linux")]

mod common;

use common::server::{Reply, Server};
use common::{here, refused, unwrap};
use keyfold::WrappedKey;
use keyfold_kms::vault::VaultKek;

/// Kilobytes in use: `VmRSS` now, `VmHWM` at most since the mark was reset.
fn kilobytes(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find(|line| line.starts_with(name)).expect("a line");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn long_answers_take_less_than_two_megabytes() {
    let token = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token.path(), "s.token").expect("written");
    let wrapped = WrappedKey { kek_version: "1".to_owned(), bytes: vec![7; 92] };
    let ask = |reply: Reply| {
        let server = Server::always(reply);
        let uri = format!("vault://{}/transit/k?tls=off&token_file={}", server.address, token.path().display());
        refused(unwrap(&VaultKek::from_uri(&uri, here()).expect("opened"), &wrapped))
    };
    let long = 64 << 20;
    // Once for what stays: the runtime, buffers, threads.
    for reply in [Reply::Long(1 << 20), Reply::json(400, "{}")] {
        ask(reply);
    }
    for reply in [Reply::Long(long), Reply::LongChunked(long), Reply::LongHeaders, Reply::Echo(400)] {
        std::fs::write("/proc/self/clear_refs", "5").expect("the mark is reset");
        let before = kilobytes("VmRSS");
        ask(reply.clone());
        let grown = kilobytes("VmHWM").saturating_sub(before);
        assert!(grown < 2048, "{reply:?}: {grown} KiB more");
        eprintln!("{reply:?}: {grown} KiB more");
    }
}
