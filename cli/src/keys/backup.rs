//! `keyfold keys backup` and `keyfold keys journal`: the records in a second place.

use crate::args::{KeysBackup, KeysJournal};
use crate::failure::{Exit, Failure};
use crate::files::output::{Output, OutputError, Target};
use crate::files::standard::stderr;
use crate::opening;
use crate::{print_done, print_failed};
use keyfold::{AuditAction, AuditEvent};
use keyfold_open::Records;
use serde_json::json;
use std::io::{self, Write};

/// Copies all records into a file, which appears whole or not at all.
pub(crate) fn backup(args: &KeysBackup) -> Result<(), Failure> {
    let target = Target::from_argument(&args.file);
    for file in keyfold_open::own_files(&args.source.config, &[])? {
        target.refuse_own(&file)?;
    }
    if let Target::Path(path) = &target
        && args.force
        && path.exists()
        && !keyfold_store::is_backup(path)
    {
        let told = format!("{} is not a backup, and is not overwritten even with --force", path.display());
        return Err(Failure::new(Exit::Usage, told));
    }
    let records = opening::records(&args.source, &[])?;
    let written = write(&records, target, args.force);
    let event = AuditEvent::new(AuditAction::Backup);
    let event = match &written {
        Ok(count) => event.detail("records", count),
        Err(_) => AuditEvent { error: Some(keyfold::ErrorKind::Io), ..event },
    };
    // A backup that is there is there: the first error is the one to report.
    let recorded = records.ring.audit(event);
    let count = written?;
    recorded?;
    let text =
        if args.json { json!({ "records": count }).to_string() } else { format!("keyfold: {count} key records") };
    writeln!(stderr(), "{text}").map_err(print_failed)
}

fn write(records: &Records, target: Target, force: bool) -> Result<u64, Failure> {
    let mut out = Written { output: Output::create(target, force)?, failed: None };
    let made = pollster::block_on(records.backup(&mut out)).map(|(_, count)| count);
    if let Some(error) = out.failed {
        return Err(error.into());
    }
    let count = made?;
    if count == 0 {
        return Err(Failure::new(Exit::Key, "the store has no key of this keyring: is it the right one?"));
    }
    out.output.commit()?;
    Ok(count)
}

/// Remembers what was wrong with the output.
struct Written {
    output: Output,
    failed: Option<OutputError>,
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes).map_err(|error| {
            let told = io::Error::other(error.to_string());
            self.failed = Some(error);
            told
        })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes the journals that are missing, and brings the others up to date.
pub(crate) fn make_journals(args: &KeysJournal, out: &mut impl Write) -> Result<(), Failure> {
    let records = opening::records(&args.source, &[])?;
    let journals = pollster::block_on(records.make_journals()).map_err(Failure::of_opening)?;
    let lines = journals.iter().map(|(path, made)| match made {
        made if args.json => json!({ "journal": path, "made": made }).to_string(),
        true => format!("{}  made from the store", path.display()),
        false => format!("{}  up to date", path.display()),
    });
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() { Ok(()) } else { print_done(out, &lines.join("\n"), "all journals are up to date") }
}
