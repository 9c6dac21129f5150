//! Audit files that are held open, so that what is said of them is said of one and the same bytes.

use super::budget::Budget;
use super::parsed::Parsed;
use super::{AuditText, Expected, Report, verify_parsed};
use crate::anchor::Anchor;
use keyfold::{Error, ErrorKind, Result};
use keyfold_store::files::{io_error, open_regular};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Audit files that were taken apart and are held open, in any order: those of one name, all of them or the latest ones, and statements, each of
/// which is verified by itself, without anchors.
///
/// Whoever writes their folder can put other files in their place at any time, and change what is in them: what is read here after
/// [`verify`](Self::verify) is what was verified, or an error. What is added to them later is not looked at.
///
/// Of each line some 170 bytes are kept, and it is read again where it is needed.
pub struct AuditFiles<'a> {
    /// In the order of their numbers.
    trail: Vec<Parsed<'a>>,
    statements: Vec<Parsed<'a>>,
}

impl<'a> AuditFiles<'a> {
    /// Files in memory.
    #[must_use]
    pub fn in_memory(files: &'a [AuditText]) -> Self {
        Self::new(files.iter().map(Parsed::of_text).collect())
    }

    fn new(files: Vec<Parsed<'a>>) -> Self {
        let (statements, mut trail): (Vec<_>, Vec<_>) = files.into_iter().partition(Parsed::is_statement);
        trail.sort_by_key(|file| file.number);
        Self { trail, statements }
    }

    /// Whether there is a file that is no statement.
    #[must_use]
    pub fn has_trail(&self) -> bool {
        !self.trail.is_empty()
    }

    /// The statements, as they were taken apart.
    ///
    /// # Errors
    ///
    /// - [`Io`](ErrorKind::Io): one was changed meanwhile, or cannot be read again.
    pub fn statements(&self) -> Result<Vec<AuditText>> {
        let text = |file: &Parsed<'_>| {
            let mut bytes = Vec::new();
            let add = &mut |line: &[u8]| {
                bytes.extend_from_slice(line);
                bytes.push(b'\n');
            };
            file.each_line(add).map_err(|(line, why)| changed(file, line, &why))?;
            Ok(AuditText { name: file.name.clone(), bytes })
        };
        self.statements.iter().map(text).collect()
    }

    /// Verifies them. One request to a key service per chain, which needs the right to decrypt. After 1,000 headers that gave no key it asks no
    /// more, and says so.
    pub async fn verify(&self, expected: &Expected) -> Report {
        self.verify_within(expected, Budget::default()).await
    }

    pub(super) async fn verify_within(&self, expected: &Expected, budget: Budget) -> Report {
        verify_parsed(&self.trail, &self.statements, expected, budget).await
    }

    /// Hands each line to `each`, without its line feed, as it was taken apart: those of the trail by the numbers of the files, then those
    /// of statements. What is no line of an audit file is handed over as an empty one.
    ///
    /// # Errors
    ///
    /// - [`Io`](ErrorKind::Io): a line was changed meanwhile, or cannot be read again.
    pub fn each_line(&self, mut each: impl FnMut(&[u8])) -> Result<()> {
        for file in self.trail.iter().chain(&self.statements) {
            file.each_line(&mut each).map_err(|(line, why)| changed(file, line, &why))?;
        }
        Ok(())
    }

    /// The heads of all chains that have not ended: what [`Anchor::to_line`] of each writes down by hand. Nothing is verified.
    ///
    /// # Errors
    ///
    /// - [`Malformed`](ErrorKind::Malformed): a line is longer than 64 MiB, so that nobody knows whose head it is.
    pub fn heads(&self) -> Result<Vec<Anchor>> {
        let mut heads = BTreeMap::new();
        for file in self.trail.iter().chain(&self.statements) {
            if let Some(line) = file.lines.iter().find(|line| line.is_too_long()) {
                let place = format!("{}:{}", file.name, line.number);
                return Err(Error::new(
                    ErrorKind::Malformed,
                    "a line is longer than 64 MiB, which none of an audit file is",
                )
                .with_detail(place));
            }
            for line in file.lines.iter().filter_map(|line| line.brief.as_ref()) {
                let head = Anchor { file: file.number.unwrap_or(1), chain: line.chain, seq: line.seq, mac: line.mac };
                let known = heads.entry(line.chain).or_insert_with(|| head.clone());
                if known.seq < head.seq {
                    *known = head;
                }
            }
        }
        Ok(heads.into_values().collect())
    }
}

impl AuditFiles<'static> {
    /// The files of a trail. A link, or what is no regular file, is refused, as by those who write it; nobody is waited for.
    ///
    /// # Errors
    ///
    /// - [`Io`](ErrorKind::Io): a file cannot be read, or is no regular one.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        Self::open_with(paths, open_regular)
    }

    /// Files that somebody named, which may be links, or pipes of up to 1 GiB: those are held in memory.
    ///
    /// # Errors
    ///
    /// - [`Io`](ErrorKind::Io): a file cannot be read.
    pub fn open_named(paths: &[PathBuf]) -> Result<Self> {
        Self::open_with(paths, |path| File::open(path))
    }

    fn open_with(paths: &[PathBuf], open: impl Fn(&Path) -> io::Result<File>) -> Result<Self> {
        let parse = |path: &PathBuf| {
            let parsed = open(path).and_then(|file| Parsed::of_file(path, file));
            parsed.map_err(|error| io_error("cannot read the audit file", path, error))
        };
        Ok(Self::new(paths.iter().map(parse).collect::<Result<_>>()?))
    }
}

fn changed(file: &Parsed<'_>, line: u64, why: &str) -> Error {
    Error::new(ErrorKind::Io, "an audit file is no longer what was read first")
        .with_detail(format!("{}:{line}: {why}", file.name))
}
