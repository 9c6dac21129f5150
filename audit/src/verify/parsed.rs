//! A file that was taken apart, of which little is kept.

use super::AuditText;
use crate::line::{Brief, ReadLine, STATEMENT};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Longest line: a statement may list every key of a keyring.
const MAX_LINE_LEN: u64 = 64 * 1024 * 1024;

/// A file that was taken apart.
pub(super) struct Parsed<'a> {
    pub(super) name: String,
    content: Content<'a>,
    /// What its first line says.
    pub(super) number: Option<u64>,
    pub(super) lines: Vec<Line>,
}

/// Where its bytes are.
enum Content<'a> {
    Memory(Cow<'a, [u8]>),
    File(File),
}

pub(super) struct Line {
    /// Where it begins, in bytes.
    pub(super) offset: u64,
    /// Bytes, without the line feed.
    len: u32,
    /// Whether a line feed ends it.
    pub(super) whole: bool,
    pub(super) brief: Option<Brief>,
}

impl<'a> Parsed<'a> {
    pub(super) fn of_text(text: &'a AuditText) -> io::Result<Self> {
        Self::new(text.name.clone(), Content::Memory(Cow::Borrowed(&text.bytes)), &text.bytes[..])
    }

    pub(super) fn of_file(path: &Path) -> io::Result<Self> {
        let (name, mut file) = (path.display().to_string(), File::open(path)?);
        if !file.metadata()?.is_file() {
            // A pipe gives its bytes once.
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            return Self::new(name, Content::Memory(Cow::Owned(bytes.clone())), &bytes[..]);
        }
        let reader = BufReader::new(file.try_clone()?);
        Self::new(name, Content::File(file), reader)
    }

    fn new(name: String, content: Content<'a>, mut reader: impl BufRead) -> io::Result<Self> {
        let mut lines: Vec<Line> = Vec::new();
        let (mut offset, mut bytes) = (0, Vec::new());
        while reader.by_ref().take(MAX_LINE_LEN).read_until(b'\n', &mut bytes)? > 0 {
            let (line, whole) = bytes.strip_suffix(b"\n").map_or((&bytes[..], false), |line| (line, true));
            if !whole && bytes.len() as u64 == MAX_LINE_LEN {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than 64 MiB"));
            }
            let brief = if whole { ReadLine::parse(line).map(Brief::new) } else { None };
            lines.push(Line { offset, len: line.len() as u32, whole, brief });
            offset += bytes.len() as u64;
            bytes.clear();
        }
        let number = lines.iter().find_map(|line| line.brief.as_ref().filter(|line| line.is_header())?.number("file"));
        Ok(Self { name, content, number, lines })
    }

    /// A line of the file, without its line feed.
    pub(super) fn bytes(&self, line: &Line) -> io::Result<Cow<'_, [u8]>> {
        match &self.content {
            Content::Memory(bytes) => {
                let start = line.offset as usize;
                Ok(Cow::Borrowed(&bytes[start..start + line.len as usize]))
            }
            Content::File(file) => {
                let mut bytes = vec![0; line.len as usize];
                let read = file.read_exact_at(&mut bytes, line.offset);
                read.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.name)))?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// Whether no line of the file is one that a writer writes. A single line may be one that a crash cut off.
    pub(super) fn is_something_else(&self) -> bool {
        self.lines.len() > 1 && self.lines.iter().all(|line| line.brief.is_none())
    }

    /// The two lines of a statement. A file that has more is checked as a part of a trail.
    pub(super) fn is_statement(&self) -> bool {
        matches!(&self.lines[..], [_, line] if line.brief.as_ref().is_some_and(|line| line.action() == Some(STATEMENT)))
    }
}
