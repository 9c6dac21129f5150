//! Rows that could not be dealt with, one JSON object per line: which row and field, and the code of the error. Never a value.

use crate::args::{Errors, LedgerKeys};
use crate::failure::{Exit, Failure};
use crate::files::output::resolved;
use data_encoding::HEXLOWER;
use keyfold::{Error, ErrorKind};
use keyfold_store::files;
use keyfold_tables::RowKey;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The ledger of a run, and what counts against its limit.
pub(crate) struct Ledger {
    path: Option<PathBuf>,
    file: Option<File>,
    /// Whether a run before this one may have made the file.
    is_resumed: bool,
    keys: LedgerKeys,
    salt: [u8; 32],
    max_errors: u64,
    /// Whether errors are counted only: in a dry run.
    counts_only: bool,
    /// Errors so far, those of the runs before the checkpoint among them.
    pub(crate) count: u64,
    /// Rows that were named and are no errors.
    noted: u64,
    /// Bytes of the file.
    len: u64,
    /// The exit code of a run that reaches its end: that of keys, which may mean tampering, over that of the data.
    exit: Option<Exit>,
}

impl Ledger {
    /// The ledger of a run that begins, before its first checkpoint. A dry run has no file.
    ///
    /// # Errors
    ///
    /// The file exists, and is somebody else's.
    pub(crate) fn new(args: &Errors, dry_run: bool) -> Result<Self, Failure> {
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).map_err(|_| Error::from(ErrorKind::RandomnessUnavailable))?;
        let path = args.errors.as_ref().filter(|_| !dry_run).map(|path| resolved(path));
        match &path {
            Some(path) if path.symlink_metadata().is_ok() => {
                let why = format!("{} exists already; name another file for errors", path.display());
                return Err(Failure::new(Exit::Usage, why));
            }
            _ => {}
        }
        let (keys, max_errors) = (args.ledger_keys, args.max_errors);
        let counts_only = dry_run && args.errors.is_some();
        let (count, noted, len) = (0, 0, 0);
        let is_resumed = false;
        Ok(Self { path, file: None, is_resumed, keys, salt, max_errors, counts_only, count, noted, len, exit: None })
    }

    /// The ledger of a run that goes on behind a checkpoint, which holds what [`state`](Self::state) said then and `count` errors.
    ///
    /// # Errors
    ///
    /// The command line names another file than that of the run, or other names of rows.
    pub(crate) fn resumed(args: &Errors, state: &Json, count: u64) -> Result<Self, Failure> {
        let Some(path) = state["file"].as_str() else {
            let exit = (count > 0).then_some(Exit::Data);
            return Ok(Self { count, exit, ..Self::new(args, false)? });
        };
        if args.errors.as_deref().map(resolved).is_none_or(|given| given != Path::new(path)) {
            let why = format!("the run that goes on has its errors in {path}: name that as --errors");
            return Err(Failure::new(Exit::Usage, why));
        }
        if state["keys"] != name(args.ledger_keys) {
            return Err(Failure::new(Exit::Usage, "the run that goes on names rows differently: see --ledger-keys"));
        }
        let damaged = || Failure::new(Exit::Usage, "the checkpoint is damaged; start with another file");
        let salt = state["salt"].as_str().and_then(|salt| HEXLOWER.decode(salt.as_bytes()).ok());
        Ok(Self {
            path: Some(path.into()),
            file: None,
            is_resumed: true,
            keys: args.ledger_keys,
            salt: salt.and_then(|salt| salt.try_into().ok()).ok_or_else(damaged)?,
            max_errors: args.max_errors,
            counts_only: false,
            count,
            noted: 0,
            len: state["len"].as_u64().ok_or_else(damaged)?,
            exit: (count > 0).then_some(Exit::Data),
        })
    }

    /// For a checkpoint.
    pub(crate) fn state(&self) -> Json {
        let file = self.path.as_ref().map(|path| path.to_string_lossy());
        json!({ "file": file, "keys": name(self.keys), "salt": HEXLOWER.encode(&self.salt), "len": self.len })
    }

    /// Opens the file, once the first checkpoint speaks of it. What was written behind the checkpoint will be written again.
    ///
    /// # Errors
    ///
    /// It is not the file that the checkpoint speaks of, or others can change it. It cannot be opened.
    pub(crate) fn open(&mut self) -> Result<(), Failure> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        let cannot = |error| Failure::new(Exit::Storage, format!("cannot open {}: {error}", path.display()));
        let found = if self.is_resumed { files::open_to_append(&path).map(Some) } else { Ok(None) };
        match found {
            Ok(Some(file)) => self.go_on(&path, file)?,
            // It named no row, and went when a run was at its end; or the run ended before it was made.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.names_rows() => self.make(&path)?,
            Ok(None) => self.make(&path)?,
            Err(error) => return Err(cannot(error)),
        }
        if self.len == 0 { self.write(&self.header()) } else { Ok(()) }
    }

    /// Makes the file. That the name was free is some time ago: what has it now is nobody's of this run.
    fn make(&mut self, path: &Path) -> Result<(), Failure> {
        let made = files::create_new(path).and_then(|file| files::sync_folder(path).map(|()| file));
        self.len = 0;
        self.file = Some(made.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                let why = "was put there after this run began; nothing was changed: find out by whom, and remove it";
                Failure::new(Exit::Usage, format!("{} {why}", path.display()))
            }
            _ => Failure::new(Exit::Storage, format!("cannot make {}: {error}", path.display())),
        })?);
        Ok(())
    }

    /// Takes the file of a run before this one, if it is that.
    fn go_on(&mut self, path: &Path, mut file: File) -> Result<(), Failure> {
        let cannot = |error| Failure::new(Exit::Storage, format!("cannot open {}: {error}", path.display()));
        let metadata = file.metadata().map_err(cannot)?;
        let header = self.header();
        let mut start = Vec::new();
        Read::by_ref(&mut file).take(header.len() as u64).read_to_end(&mut start).map_err(cannot)?;
        // A file that was cut short within its first line had nothing else.
        let is_own = start == header.as_bytes() || (self.len == 0 && header.as_bytes().starts_with(&start));
        // An empty one says nothing of whose it is. The runs of one ledger are all of one user.
        let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
        if !is_own || !is_ours || metadata.len() < self.len {
            let why = format!("{} is not the file with the errors of this run; nothing was changed", path.display());
            return Err(Failure::new(Exit::Usage, why));
        }
        files::check_not_writable_by_others(&file, path)?;
        file.set_len(self.len).map_err(cannot)?;
        self.file = Some(file);
        Ok(())
    }

    /// Whether the file has more than its first line.
    fn names_rows(&self) -> bool {
        self.len > self.header().len() as u64
    }

    /// The first line, which says how rows are named.
    fn header(&self) -> String {
        let salt = (self.keys == LedgerKeys::Hash).then(|| HEXLOWER.encode(&self.salt));
        let run = HEXLOWER.encode(&Sha256::digest(self.salt)[..8]);
        format!("{}\n", json!({ "keys": name(self.keys), "salt": salt, "run": run }))
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
        if self.file.is_none() && !self.counts_only {
            let why =
                "its row is not named here, since its key may identify a patient: --errors FILE names it and goes on";
            return Err(failure.at(format!("{place}, field {field}")).add(why));
        }
        let line =
            json!({ "place": place, "row": self.row(key), "field": field, "error": kind.name(), "code": kind.code() });
        self.write(&format!("{line}\n"))?;
        if self.count > self.max_errors {
            return Err(failure
                .at(format!("{place}, field {field}"))
                .add("there are more errors than --max-errors allows"));
        }
        Ok(())
    }

    /// Names a row of which there is something to say, and which is no error: as many as there may be errors, and none without a file.
    pub(crate) fn note(&mut self, place: &str, key: &RowKey, field: &str, what: &str) -> Result<(), Failure> {
        if self.file.is_none() || self.noted == self.max_errors {
            return Ok(());
        }
        self.noted += 1;
        let line = json!({ "place": place, "row": self.row(key), "field": field, "what": what });
        self.write(&format!("{line}\n"))
    }

    /// What a row is called in the file.
    fn row(&self, key: &RowKey) -> String {
        match self.keys {
            LedgerKeys::Plain => key.to_text(),
            LedgerKeys::Hash => {
                HEXLOWER.encode(&Sha256::new().chain_update(self.salt).chain_update(key.to_text()).finalize())
            }
        }
    }

    /// Makes what was recorded durable: before the checkpoint that speaks of it.
    pub(crate) fn sync(&self) -> Result<(), Failure> {
        let Some(file) = &self.file else { return Ok(()) };
        file.sync_data().map_err(|error| self.cannot_write(&error))
    }

    /// Removes the file of a run that has ended, or cannot be gone on with, if it names no row: so that the next run may have it.
    pub(crate) fn remove_empty(&mut self) -> Result<(), Failure> {
        if self.names_rows() || self.file.take().is_none() {
            return Ok(());
        }
        let removed = self.path.as_ref().map_or(Ok(()), fs::remove_file);
        removed.map_err(|error| self.cannot_write(&error))
    }

    /// The exit code of a run that has reached its end.
    pub(crate) fn exit_code(&self) -> u8 {
        self.exit.map_or(0, |exit| exit as u8)
    }

    fn write(&mut self, line: &str) -> Result<(), Failure> {
        let Some(file) = &mut self.file else { return Ok(()) };
        self.len += line.len() as u64;
        file.write_all(line.as_bytes()).map_err(|error| self.cannot_write(&error))
    }

    fn cannot_write(&self, error: &io::Error) -> Failure {
        let path = self.path.as_deref().unwrap_or(Path::new("the file of errors"));
        Failure::new(Exit::Storage, format!("cannot write {}: {error}", path.display()))
    }
}

/// How rows are named, in the words of the command line.
const fn name(keys: LedgerKeys) -> &'static str {
    match keys {
        LedgerKeys::Hash => "hash",
        LedgerKeys::Plain => "plain",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use tempfile::TempDir;

    fn arguments(folder: &TempDir) -> Errors {
        Errors { errors: Some(folder.path().join("e")), max_errors: 1000, ledger_keys: LedgerKeys::Hash }
    }

    /// Ledgers of a run that has just written its first checkpoint, and of one that goes on there.
    fn at_the_start(args: &Errors) -> [Ledger; 2] {
        let new = Ledger::new(args, false).unwrap();
        let resumed = Ledger::resumed(args, &new.state(), 0).unwrap();
        [new, resumed]
    }

    fn is_refused(ledger: &mut Ledger, code: Exit, words: &str) {
        let failure = ledger.open().unwrap_err();
        assert!(failure.code == code as u8 && failure.to_string().contains(words), "{failure}");
    }

    #[test]
    fn what_is_put_there_after_the_first_checkpoint_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let args = arguments(&folder);
        let (path, aim) = (folder.path().join("e"), folder.path().join("aim"));
        // A link that leads nowhere: what it names would be made, where others can read it.
        let [mut new, mut resumed] = at_the_start(&args);
        symlink(&aim, &path).unwrap();
        is_refused(&mut new, Exit::Usage, "was put there");
        is_refused(&mut resumed, Exit::Storage, "cannot open");
        assert!(!aim.exists(), "a link was followed");
        fs::remove_file(&path).unwrap();
        // An empty file that others may write, or hold open.
        let [mut new, mut resumed] = at_the_start(&args);
        File::create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        is_refused(&mut new, Exit::Usage, "was put there");
        is_refused(&mut resumed, Exit::Policy, "others may write");
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        if rustix::process::geteuid().is_root() {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
            is_refused(&mut resumed, Exit::Usage, "is not the file");
            assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        }
        fs::remove_file(&path).unwrap();
        resumed.open().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap(), resumed.header());
    }

    #[test]
    fn a_run_that_ended_while_it_made_the_file_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let args = arguments(&folder);
        let path = folder.path().join("e");
        let mut new = Ledger::new(&args, false).unwrap();
        let state = new.state();
        new.open().unwrap();
        for cut in [0, 7, new.header().len() as u64] {
            File::options().write(true).open(&path).unwrap().set_len(cut).unwrap();
            let mut resumed = Ledger::resumed(&args, &state, 0).unwrap();
            resumed.open().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), new.header());
        }
    }

    #[test]
    fn a_file_that_names_rows_stays_though_none_of_them_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let args = arguments(&folder);
        let path = folder.path().join("e");
        let mut ledger = Ledger::new(&args, false).unwrap();
        ledger.open().unwrap();
        ledger.note("a table", &RowKey::from_text("integer", "7").unwrap(), "name", "not what it should be").unwrap();
        let mut resumed = Ledger::resumed(&args, &ledger.state(), 0).unwrap();
        resumed.open().unwrap();
        resumed.remove_empty().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
        // Nor does such a run begin anew where it is gone.
        fs::remove_file(&path).unwrap();
        let mut resumed = Ledger::resumed(&args, &ledger.state(), 0).unwrap();
        is_refused(&mut resumed, Exit::Storage, "No such file");
        assert!(!path.exists());
    }
}
