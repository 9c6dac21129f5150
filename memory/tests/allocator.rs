//! What the erasing allocator leaves in blocks that it gives back. One test, because the allocator is that of the whole process.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use keyfold_memory::erase_what_this_thread_frees;
use std::sync::mpsc;
use std::thread;
use support::{TEXT, found};

/// Frees one block, and has others grow and shrink: four come back.
fn free_four() {
    // Of lengths that are multiples of what is erased at once, and of none.
    drop(TEXT.repeat(10).into_boxed_slice());
    let mut grows = TEXT.repeat(3);
    grows.shrink_to_fit();
    grows.reserve_exact(1000);
    assert!(grows.chunks(16).all(|part| part == TEXT));
    grows.truncate(17);
    grows.shrink_to_fit();
    assert_eq!(grows[..16], TEXT);
}

// Failure T4
#[test]
fn what_a_chosen_thread_frees_is_erased_and_what_others_free_is_not() {
    assert_eq!(found(free_four), 4, "the test finds what is there");
    thread::spawn(|| {
        erase_what_this_thread_frees();
        assert_eq!(found(free_four), 0);
        // Whoever made it.
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(TEXT.to_vec()).unwrap()).join().unwrap();
        assert_eq!(found(|| drop(receiver.recv().unwrap())), 0);
        // What was freed empty, and what is made empty.
        let mut zeros = vec![0_u8; 100];
        zeros.resize(10_000, 1);
        assert!(zeros[..100].iter().all(|&byte| byte == 0) && zeros[100..].iter().all(|&byte| byte == 1));
    })
    .join()
    .unwrap();
    // The thread has chosen for itself alone.
    assert_eq!(found(free_four), 4);
    // Also when it ends, and its own values are dropped.
    thread_local!(static LAST: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) });
    let at_the_end = || {
        thread::spawn(|| {
            erase_what_this_thread_frees();
            LAST.set(TEXT.to_vec());
        })
        .join()
        .unwrap();
    };
    assert_eq!(found(at_the_end), 0);
}
