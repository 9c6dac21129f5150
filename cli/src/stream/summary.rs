//! What was done, for people and scripts.

use super::Job;
use crate::failure::{Failure, Printable};
use crate::files::standard::stderr;
use crate::transform::Direction;
use keyfold::wire::KeyId;
use keyfold::{KeyState, Keyring};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

#[derive(Default)]
pub(super) struct Counts {
    /// Outputs that have their names.
    pub(super) files: u64,
    /// Bytes in clear.
    pub(super) bytes: u64,
    /// Files of a folder that were there already, with the right content.
    pub(super) kept: u64,
    /// With --keep-going, files of a folder that were left out.
    pub(super) failed: u64,
    /// Likewise folders with all that is in them.
    pub(super) failed_folders: u64,
    /// Streams that were made, kept or opened, by their keys. Each of these has sealed or opened something, so there are few.
    keys: BTreeMap<KeyId, Streams>,
    /// With --resume, outputs of a folder whose input is gone.
    pub(super) left: u64,
    /// The first by name of those that are left.
    pub(super) first_left: Option<PathBuf>,
}

/// Streams under one key.
#[derive(Default)]
struct Streams {
    count: u64,
    is_outdated: bool,
    is_compromised: bool,
}

impl Counts {
    /// A stream under a key, and what is known of that now.
    pub(super) fn stream(&mut self, key_id: KeyId, is_outdated: bool, is_compromised: bool) {
        let streams = self.keys.entry(key_id).or_default();
        streams.count += 1;
        streams.is_outdated |= is_outdated;
        streams.is_compromised |= is_compromised;
    }

    /// Looks at the end what has become of the keys: a rotation during the run leaves what it made before under an old one.
    pub(super) fn judge(&mut self, ring: &Keyring) {
        match pollster::block_on(ring.states_of(&self.keys.keys().copied().collect())) {
            Ok(states) => {
                for (key_id, streams) in &mut self.keys {
                    let state = states.get(key_id).copied();
                    streams.is_outdated |= state != Some(KeyState::Active);
                    streams.is_compromised |= state == Some(KeyState::Compromised);
                }
            }
            Err(error) => {
                let failure = Failure::from(error).add("whether the keys are current by now was not asked");
                let _ = writeln!(stderr(), "keyfold: {failure}");
            }
        }
    }

    fn under(&self, is_counted: impl Fn(&Streams) -> bool) -> u64 {
        self.keys.values().filter(|streams| is_counted(streams)).map(|streams| streams.count).sum()
    }
}

/// Says on standard error what was done.
pub(super) fn report(job: &Job<'_>) {
    let is_reveal = matches!(job.direction, Direction::Reveal);
    let verb = if is_reveal { "revealed" } else { "protected" };
    let counts = &job.counts;
    let &Counts { files, bytes, kept, failed, failed_folders, left, .. } = counts;
    let outdated = counts.under(|streams| streams.is_outdated);
    let compromised = counts.under(|streams| streams.is_compromised);
    let line = if job.args.json {
        json!({
            "direction": verb, "streams": files, "bytes": bytes, "kept": kept, "failed": failed, "failed_folders": failed_folders,
            "outdated": outdated, "compromised": compromised, "left": left,
            "first_left": counts.first_left.as_ref().map(|path| path.to_string_lossy()),
        })
        .to_string()
    } else {
        let mut line = format!("{verb} {} of {}", counted(files, "stream"), counted(bytes, "byte"));
        if kept > 0 {
            let were = if kept == 1 { "was" } else { "were" };
            line.push_str(&format!("; {kept} {were} there already, with the same content"));
        }
        for (count, thing) in [(failed, "file"), (failed_folders, "folder")] {
            if count > 0 {
                line.push_str(&format!("; {} left out, each named above", counted(count, thing)));
            }
        }
        let are = |count| if count == 1 { "is" } else { "are" };
        if outdated > 0 {
            line.push_str(&format!("; {outdated} {} under an old generation", are(outdated)));
        }
        if compromised > 0 {
            let are = are(compromised);
            let again = if is_reveal { "seal them again" } else { "--force seals them again" };
            line.push_str(&format!("; {compromised} {are} under a compromised key and may be forged: {again}"));
        }
        if let Some(first) = &counts.first_left {
            let first = first.to_string_lossy();
            line.push_str(&format!(
                "; without an input any more, and left there: {}, {} first",
                counted(left, "output"),
                Printable(&first)
            ));
        }
        line
    };
    // The work is done and committed: a closed standard error is no reason to fail.
    let _ = writeln!(stderr(), "{line}");
}

/// A number of things that have a regular plural.
pub(super) fn counted(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}
