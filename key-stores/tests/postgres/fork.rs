//! A store that was used before its process is forked.

use crate::server::{OURS, Server};
use keyfold::KeyStore;
use keyfold::testing::block_on;
use keyfold_store::PostgresStore;
use std::collections::HashSet;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::Command;

const URI: &str = "KEYFOLD_TEST_FORK";
const CHILD_COUNT: usize = 4;
const ROUND_COUNT: usize = 25;

/// Forks for real, in a process of its own.
#[test]
fn a_forked_child_uses_connections_of_its_own() {
    let Ok(uri) = std::env::var(URI) else {
        let Some(server) = Server::given() else { return };
        let schema = server.schema();
        schema.create();
        let done = Command::new(std::env::current_exe().expect("this program"))
            .args(["fork::a_forked_child_uses_connections_of_its_own", "--exact", "--nocapture", "--test-threads=1"])
            .env(URI, schema.uri())
            .output()
            .expect("started");
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && said.contains("1 passed"), "{said} {}", String::from_utf8_lossy(&done.stderr));
        let expected = 1 + (CHILD_COUNT + 1) * ROUND_COUNT + 1;
        assert_eq!(schema.number("SELECT max(generation) FROM counters"), i64::try_from(expected).expect("small"));
        return;
    };
    let store = PostgresStore::open(&uri, std::path::Path::new(".")).expect("opened");
    let allocate = || block_on(store.allocate_generation(OURS, 0)).expect("allocated");
    let first = allocate();
    let mut children = Vec::new();
    for _ in 0..CHILD_COUNT {
        let (mut read, write) = std::io::pipe().expect("a pipe");
        // SAFETY: the child touches nothing that another thread could hold, and ends with `_exit`.
        match unsafe { libc::fork() } {
            0 => {
                // SAFETY: the descriptor is open and this process has no other owner of its copy.
                let mut out = unsafe { std::fs::File::from_raw_fd(write.as_raw_fd()) };
                let mine = std::panic::catch_unwind(|| (0..ROUND_COUNT).map(|_| allocate()).collect::<Vec<_>>());
                let text = mine.map_or_else(|_| "panicked".to_owned(), |mine| format!("{mine:?}"));
                let _ = std::io::Write::write_all(&mut out, text.as_bytes());
                // SAFETY: ends this process without running what belongs to the parent.
                unsafe { libc::_exit(0) };
            }
            child => {
                assert!(child > 0, "no fork");
                drop(write);
                children.push((child, move || {
                    let mut text = String::new();
                    read.read_to_string(&mut text).map(|_| text)
                }));
            }
        }
    }
    // The parent goes on at the same time.
    let mut all: HashSet<u32> = std::iter::once(first).chain((0..ROUND_COUNT).map(|_| allocate())).collect();
    for (child, said) in children {
        let said = { said }().expect("text");
        let numbers = said.trim_matches(['[', ']']).split(", ").map(|number| number.parse::<u32>().expect(&said));
        all.extend(numbers);
        let mut status = 0;
        // SAFETY: waits for a child of ours.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
    }
    all.insert(allocate());
    assert_eq!(all.len(), 1 + (CHILD_COUNT + 1) * ROUND_COUNT + 1, "a generation was given twice");
}
