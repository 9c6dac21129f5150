//! Counting the streams below a folder, by their headers.

use super::{Seen, Tally};
use crate::failure::{Exit, Failure};
use crate::files::interrupt::Interrupt;
use crate::files::output;
use crate::files::standard::stderr;
use keyfold::wire::{MAGIC, STREAM_HEADER_LEN, StreamHeader, Suite};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

/// Counts every file below `folder` as one value of the only column of `tally`. Keeps no list of them. What cannot be read is named and passed over.
pub(super) fn count(folder: &Path, mut tally: Tally, interrupt: &Interrupt) -> Result<Tally, Failure> {
    walk(folder, &mut tally, interrupt)?;
    Ok(tally)
}

fn walk(folder: &Path, tally: &mut Tally, interrupt: &Interrupt) -> Result<(), Failure> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            pass_over(tally, folder, &error);
            return Ok(());
        }
    };
    for entry in entries {
        interrupt.check()?;
        let (path, file_type) = match entry.and_then(|entry| Ok((entry.path(), entry.file_type()?))) {
            Ok(entry) => entry,
            Err(error) => {
                pass_over(tally, folder, &error);
                continue;
            }
        };
        if file_type.is_dir() {
            walk(&path, tally, interrupt)?;
        } else if file_type.is_file() {
            let seen = match look(&path) {
                Ok(seen) => seen,
                Err(error) => {
                    pass_over(tally, &path, &error);
                    continue;
                }
            };
            tally.rows += 1;
            tally.add(0, seen).map_err(|failure| failure.at(path.display()))?;
        } else {
            // `protect --stream` makes none.
            let why = format!("{} is {}, and is not counted", path.display(), output::kind_of(file_type));
            drop(writeln!(stderr(), "keyfold: {}", Failure::new(Exit::Data, why)));
        }
    }
    Ok(())
}

/// What the first bytes of a file say.
fn look(path: &Path) -> io::Result<Seen> {
    let mut head = Vec::with_capacity(STREAM_HEADER_LEN);
    File::open(path)?.take(STREAM_HEADER_LEN as u64).read_to_end(&mut head)?;
    Ok(match (StreamHeader::parse(&head), &*head) {
        (Ok(header), _) => Seen::Sealed(Suite::Stream, header.key_id()),
        (Err(_), []) => Seen::Empty,
        (Err(_), [MAGIC]) => Seen::Malformed,
        (Err(_), [MAGIC, suite, ..]) if *suite == Suite::Stream.id() => Seen::Malformed,
        (Err(_), _) => Seen::Clear,
    })
}

fn pass_over(tally: &mut Tally, path: &Path, error: &io::Error) {
    tally.unread += 1;
    let why = format!("cannot read {}: {error}; it is not counted", path.display());
    drop(writeln!(stderr(), "keyfold: {}", Failure::new(Exit::Storage, why)));
}
