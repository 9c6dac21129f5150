//! `keyfold keys reparent`: every key under the current root.

use super::walk::{End, Place, walk};
use crate::args::KeysReparent;
use crate::failure::Failure;
use crate::files::standard::stderr;
use crate::init::hex;
use crate::opening;
use crate::print_done;
use keyfold::Keyring;
use serde_json::json;
use std::io::Write;

/// Walks through the keys until a whole walk finds nothing left to do. May be stopped anywhere and repeated.
pub(crate) fn reparent(args: &KeysReparent, out: &mut impl Write) -> Result<(), Failure> {
    let ring = opening::open(&args.source, &[])?;
    let mut reparent = pollster::block_on(ring.reparent())?;
    let end = walk(("reparenting", "moved"), args.records_per_second, async |limit| {
        let progress = reparent.step(limit).await?;
        Ok(Place { seen: progress.seen, changed: progress.moved, done: progress.done })
    })?;
    let (root, progress) = (reparent.root(), reparent.progress());
    let text = if args.json {
        json!({ "root": root.to_string(), "seen": progress.seen, "moved": progress.moved, "done": progress.done })
            .to_string()
    } else if progress.done {
        format!(
            "{} keys were put under root {root}; no key is under another one\nthe pins of older roots can be removed from root_pins wherever this keyring is configured, once the pin of this root is in each",
            progress.moved
        )
    } else {
        format!(
            "{} of {} keys that were looked at were put under root {root}; run it again to go on, and keep every pin until then",
            progress.moved, progress.seen
        )
    };
    let moved = progress.moved;
    print_done(
        out,
        &text,
        &format!("{moved} keys were put under root {root}: run it again to see whether any is left"),
    )?;
    note_pins(&ring);
    match end {
        End::Done => Ok(()),
        End::Interrupted(interrupted) => Err(interrupted.into()),
    }
}

/// Whoever takes the older pins away while the root is not pinned has a keyring that trusts nothing. A note: what was done is done and told.
fn note_pins(ring: &Keyring) {
    for root in pollster::block_on(ring.unpinned_roots()).unwrap_or_default() {
        let pin = hex(root.commitment());
        let note = "is not pinned here: if you know of it, add that to root_pins, wherever this keyring is configured, before an older pin goes; if not, docs/runbooks/kek-compromised.md";
        let _ = writeln!(stderr(), "keyfold: root {}, pin {pin}, {note}", root.key_id());
    }
}
