//! `keyfold keys reparent`: every key under the current root.

use crate::args::KeysReparent;
use crate::failure::{Exit, Failure};
use crate::files::interrupt::Interrupt;
use crate::print_failed;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::io::Write;
use std::time::{Duration, Instant};

/// Records that are read and stored in one step, for which a store of one file is locked.
const STEP: usize = 250;

/// Walks through the keys until a whole walk finds nothing left to do. May be stopped anywhere and repeated.
pub(crate) fn reparent(args: &KeysReparent, out: &mut impl Write) -> Result<(), Failure> {
    let ring = keyfold_open::open(&args.source.config, &[]).map_err(Failure::of_opening)?;
    let interrupt =
        Interrupt::install().map_err(|error| Failure::new(Exit::System, format!("cannot handle signals: {error}")))?;
    let mut walk = pollster::block_on(ring.reparent())?;
    // Hidden by itself where standard error is not a terminal.
    let bar = ProgressBar::new_spinner();
    bar.set_style(
        ProgressStyle::with_template("reparenting {spinner} {pos} keys looked at, {msg} moved, {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    let step = args.records_per_second.map_or(STEP, |rate| STEP.min(rate as usize));
    let progress = loop {
        interrupt.check()?;
        let began = Instant::now();
        let progress = pollster::block_on(walk.step(step))?;
        if progress.done {
            break progress;
        }
        bar.set_position(progress.seen);
        bar.set_message(progress.moved.to_string());
        if let Some(rate) = args.records_per_second {
            let due = Duration::from_secs_f64(step as f64 / f64::from(rate));
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
    };
    bar.finish_and_clear();
    let text = if args.json {
        json!({ "root": walk.root().to_string(), "seen": progress.seen, "moved": progress.moved }).to_string()
    } else {
        format!(
            "{} keys were put under root {}; no key is under another one\nthe pins of older roots can be removed from root_pins wherever this keyring is configured, once the pin of this root is in each",
            progress.moved,
            walk.root()
        )
    };
    writeln!(out, "{text}").map_err(print_failed)
}
