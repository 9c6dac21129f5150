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

/// Counts every file below `folder` as one value of the only column of `tally`. Keeps no list of them.
pub(super) fn count(folder: &Path, mut tally: Tally, interrupt: &Interrupt) -> Result<Tally, Failure> {
    walk(folder, &mut tally, interrupt)?;
    Ok(tally)
}

fn walk(folder: &Path, tally: &mut Tally, interrupt: &Interrupt) -> Result<(), Failure> {
    for entry in fs::read_dir(folder).map_err(|error| cannot_read(folder, &error))? {
        interrupt.check()?;
        let entry = entry.map_err(|error| cannot_read(folder, &error))?;
        let path = entry.path();
        let file_type = entry.file_type().map_err(|error| cannot_read(&path, &error))?;
        if file_type.is_dir() {
            walk(&path, tally, interrupt)?;
        } else if file_type.is_file() {
            let seen = look(&path).map_err(|error| cannot_read(&path, &error))?;
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

fn cannot_read(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Storage, format!("cannot read {}: {error}", path.display()))
}
