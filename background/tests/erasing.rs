//! The threads that do network I/O, and what blocks beside it, erase what they free, whoever made it.

#[path = "../../memory/tests/support/mod.rs"]
mod support;

use std::sync::mpsc;
use support::{TEXT, found};

// Failure T4
#[test]
fn what_the_threads_of_the_background_free_is_erased() {
    assert_eq!(found(|| drop(TEXT.to_vec())), 1, "the test finds what is there");
    let text = TEXT.to_vec();
    let work = async move {
        drop(text);
        Ok(())
    };
    assert_eq!(found(|| keyfold_background::block(work).expect("done")), 0);
    let (text, (sender, receiver)) = (TEXT.to_vec(), mpsc::channel());
    let blocking = move || {
        keyfold_background::handle().expect("a runtime").spawn_blocking(move || {
            drop(text);
            sender.send(()).expect("waited for");
        });
        receiver.recv().expect("done");
    };
    assert_eq!(found(blocking), 0);
}
