//! How far a walk through a table has come, in a file: replaced as a whole after each batch, so that it is always good.

use crate::failure::{Exit, Failure};
use keyfold_tables::RowKey;
use serde_json::{Value as Json, json};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

const VERSION: u64 = 1;
/// Longest checkpoint: a census of a million keys is shorter.
const MAX_LEN: u64 = 512 * 1024 * 1024;

/// A checkpoint file, or none.
pub(crate) struct Checkpoint {
    file: Option<PathBuf>,
    /// What is walked through, and how: a checkpoint of anything else is refused.
    walk: Json,
    /// The last row that was dealt with.
    pub(crate) after: Option<RowKey>,
    /// What the command wants to know again.
    pub(crate) state: Json,
}

impl Checkpoint {
    /// Reads `file`, if it exists; otherwise the walk starts at the beginning.
    pub(crate) fn open(file: Option<&Path>, walk: Json) -> Result<Self, Failure> {
        let start = Self { file: file.map(Path::to_owned), walk, after: None, state: Json::Null };
        let Some(file) = file else { return Ok(start) };
        let read = File::open(file).and_then(|file| {
            let mut text = String::new();
            file.take(MAX_LEN).read_to_string(&mut text)?;
            Ok(text)
        });
        match read {
            Ok(text) => start.resume(&text).map_err(|failure| failure.at(file.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(start),
            Err(error) => Err(Failure::new(Exit::Storage, format!("cannot read {}: {error}", file.display()))),
        }
    }

    fn resume(self, text: &str) -> Result<Self, Failure> {
        let wrong = || Failure::new(Exit::Usage, "this is not a checkpoint that this version has written");
        let json: Json = serde_json::from_str(text).map_err(|_| wrong())?;
        if json["version"] != VERSION {
            return Err(wrong());
        }
        if json["walk"] != self.walk {
            let why =
                "the checkpoint is of another place, or of the same with other columns or fields; name another file";
            return Err(Failure::new(Exit::Usage, why));
        }
        let after = match &json["after"] {
            Json::Null => None,
            key => {
                let kind = key["kind"].as_str().ok_or_else(wrong)?;
                Some(RowKey::from_text(kind, key["text"].as_str().ok_or_else(wrong)?).map_err(|_| wrong())?)
            }
        };
        Ok(Self { after, state: json["state"].clone(), ..self })
    }

    /// Whether this walk goes on where another one has stopped.
    pub(crate) fn is_resumed(&self) -> bool {
        !self.state.is_null()
    }

    /// Whether there is a file.
    pub(crate) fn is_kept(&self) -> bool {
        self.file.is_some()
    }

    /// Puts what is known now in the place of the file: on disk when this returns, readable by its owner alone.
    pub(crate) fn save(&mut self, after: Option<&RowKey>, state: Json) -> Result<(), Failure> {
        if let Some(after) = after {
            self.after = Some(after.clone());
        }
        self.state = state;
        let Some(file) = &self.file else { return Ok(()) };
        let after = self.after.as_ref().map(|key| json!({ "kind": key.kind(), "text": key.to_text() }));
        let json = json!({ "version": VERSION, "walk": self.walk, "after": after, "state": self.state });
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut new| {
            new.write_all(json.to_string().as_bytes())?;
            new.as_file().sync_all()?;
            new.persist(file).map_err(|error| error.error)?;
            File::open(folder)?.sync_all()
        });
        written.map_err(|error| {
            let why = format!("cannot write the checkpoint {}: {error}; what was done is done", file.display());
            Failure::new(Exit::Storage, why)
        })
    }

    /// Removes the file, when there is nothing to go on with.
    pub(crate) fn remove(&self) -> Result<(), Failure> {
        match self.file.as_ref().map(fs::remove_file) {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::new(Exit::Storage, format!("cannot remove the checkpoint: {error}")))
            }
            _ => Ok(()),
        }
    }
}
