//! Rows that could not be dealt with, one JSON object per line: which row and field, and the code of the error. Never a value.

use crate::args::{Errors, LedgerKeys};
use crate::failure::{Exit, Failure};
use data_encoding::HEXLOWER;
use keyfold::{Error, ErrorKind};
use keyfold_tables::RowKey;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// The ledger of a run, and what counts against its limit.
pub(crate) struct Ledger {
    file: Option<(PathBuf, File)>,
    keys: LedgerKeys,
    salt: [u8; 32],
    max_errors: u64,
    /// Errors so far, those of the runs before the checkpoint among them.
    pub(crate) count: u64,
    /// Bytes of the file.
    pub(crate) len: u64,
    /// The exit code of a run that reaches its end: that of keys, which may mean tampering, over that of the data.
    exit: Option<Exit>,
}

impl Ledger {
    /// Refuses a file that exists: before the checkpoint of a new run, from which on it is ours.
    pub(crate) fn refuse_existing(args: &Errors) -> Result<(), Failure> {
        match &args.errors {
            Some(path) if path.symlink_metadata().is_ok() => Err(Failure::new(
                Exit::Usage,
                format!("{} exists already; name another file for errors", path.display()),
            )),
            _ => Ok(()),
        }
    }

    /// Opens the ledger, which had `resume_at` bytes at the checkpoint from which the walk goes on: what was written behind that
    /// will be written again. `count` is how many errors there were by then.
    pub(crate) fn open(args: &Errors, count: u64, resume_at: u64) -> Result<Self, Failure> {
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).map_err(|_| Error::from(ErrorKind::RandomnessUnavailable))?;
        let mut ledger = Self {
            file: None,
            keys: args.ledger_keys,
            salt,
            max_errors: args.max_errors,
            count,
            len: 0,
            exit: (count > 0).then_some(Exit::Data),
        };
        let Some(path) = &args.errors else { return Ok(ledger) };
        let mut options = OpenOptions::new();
        let opened = options.write(true).create(true).truncate(false).mode(0o600).open(path).and_then(|mut file| {
            file.set_len(resume_at)?;
            ledger.len = file.seek(SeekFrom::End(0))?;
            Ok(file)
        });
        let file =
            opened.map_err(|error| Failure::new(Exit::Storage, format!("cannot open {}: {error}", path.display())))?;
        ledger.file = Some((path.clone(), file));
        let salt = (ledger.keys == LedgerKeys::Hash).then(|| HEXLOWER.encode(&ledger.salt));
        ledger.write(&json!({ "keys": if salt.is_some() { "hash" } else { "plain" }, "salt": salt }))?;
        Ok(ledger)
    }

    /// Records that a value is left as it was. Without a file, and behind the limit, the run ends with that error.
    pub(crate) fn record(&mut self, place: &str, key: &RowKey, field: &str, error: Error) -> Result<(), Failure> {
        self.count += 1;
        let kind = error.kind();
        let failure = Failure::from(error);
        let exit = if failure.code == Exit::Key as u8 { Exit::Key } else { Exit::Data };
        if self.exit != Some(Exit::Key) {
            self.exit = Some(exit);
        }
        if self.file.is_none() {
            let why =
                "its row is not named here, since its key may identify a patient: --errors FILE names it and goes on";
            return Err(failure.at(format!("{place}, field {field}")).add(why));
        }
        let row = match self.keys {
            LedgerKeys::Plain => key.to_text(),
            LedgerKeys::Hash => {
                HEXLOWER.encode(&Sha256::new().chain_update(self.salt).chain_update(key.to_text()).finalize())
            }
        };
        let line = json!({ "place": place, "row": row, "field": field, "error": kind.name(), "code": kind.code() });
        self.write(&line)?;
        if self.count > self.max_errors {
            return Err(failure
                .at(format!("{place}, field {field}"))
                .add("there are more errors than --max-errors allows"));
        }
        Ok(())
    }

    /// Makes what was recorded durable: before the checkpoint that speaks of it.
    pub(crate) fn sync(&self) -> Result<(), Failure> {
        let Some((path, file)) = &self.file else { return Ok(()) };
        file.sync_data()
            .map_err(|error| Failure::new(Exit::Storage, format!("cannot write {}: {error}", path.display())))
    }

    /// The exit code of a run that has reached its end.
    pub(crate) fn exit_code(&self) -> u8 {
        self.exit.map_or(0, |exit| exit as u8)
    }

    fn write(&mut self, line: &serde_json::Value) -> Result<(), Failure> {
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        let line = format!("{line}\n");
        self.len += line.len() as u64;
        file.write_all(line.as_bytes())
            .map_err(|error| Failure::new(Exit::Storage, format!("cannot write {}: {error}", path.display())))
    }
}
