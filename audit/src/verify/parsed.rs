//! A file that was taken apart, of which little is kept.

use super::AuditText;
use crate::line::{Brief, MAX_STATEMENT_LEN, STATEMENT};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Most bytes of what is no regular file, which is held in memory.
const MAX_PIPE_LEN: u64 = 1 << 30;
/// Lines of a file that are none which are looked at, far above how often a writer crashes: they may be as short as two bytes.
pub(super) const MAX_OTHERS: u64 = 1000;

/// A file that was taken apart.
pub(super) struct Parsed<'a> {
    pub(super) name: String,
    content: Content<'a>,
    /// What its first line says.
    pub(super) number: Option<u64>,
    pub(super) lines: Vec<Line>,
    /// How many there are, with those of which nothing is kept.
    pub(super) count: u64,
    /// Lines with nothing in them, which no writer writes, and no crash leaves.
    pub(super) blank: Unkept,
    /// Lines that are none, behind the first [`MAX_OTHERS`].
    pub(super) others: Unkept,
}

/// Lines of which nothing is kept.
#[derive(Default)]
pub(super) struct Unkept {
    /// The number of the first one.
    pub(super) first: u64,
    pub(super) count: u64,
}

impl Unkept {
    fn add(&mut self, number: u64) {
        if self.count == 0 {
            self.first = number;
        }
        self.count += 1;
    }
}

/// Where its bytes are.
enum Content<'a> {
    Memory(Cow<'a, [u8]>),
    File(File),
}

pub(super) struct Line {
    /// Which line of the file it is, from 1.
    pub(super) number: u64,
    /// Where it begins, in bytes.
    pub(super) offset: u64,
    /// Bytes, without the line feed; `None`: more than any line has.
    len: Option<u32>,
    /// Whether a line feed ends it.
    pub(super) whole: bool,
    pub(super) brief: Option<Brief>,
}

impl Line {
    pub(super) const fn is_too_long(&self) -> bool {
        self.len.is_none()
    }
}

/// Lines as they come.
#[derive(Default)]
struct Lines {
    lines: Vec<Line>,
    count: u64,
    offset: u64,
    /// How many of them are none.
    none: u64,
    blank: Unkept,
    others: Unkept,
}

impl Lines {
    /// Adds a line of `len` bytes, with the line feed, if it has one. `None`: it is longer than any line.
    fn push(&mut self, bytes: Option<&[u8]>, len: u64) {
        self.count += 1;
        let (number, offset) = (self.count, self.offset);
        self.offset += len;
        let content = bytes.map(|bytes| bytes.strip_suffix(b"\n").map_or((bytes, false), |line| (line, true)));
        let (line, whole) = content.unwrap_or_default();
        let brief = if whole { Brief::read(line) } else { None };
        if brief.is_none() {
            if content == Some((b"", true)) {
                return self.blank.add(number);
            }
            self.none += 1;
            if self.none > MAX_OTHERS {
                return self.others.add(number);
            }
        }
        self.lines.push(Line { number, offset, len: bytes.map(|_| line.len() as u32), whole, brief });
    }

    fn of_bytes(bytes: &[u8]) -> Self {
        let mut lines = Self::default();
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            let content = line.strip_suffix(b"\n").unwrap_or(line);
            lines.push((content.len() <= MAX_STATEMENT_LEN).then_some(line), line.len() as u64);
        }
        lines
    }

    fn of_reader(mut reader: impl BufRead) -> io::Result<Self> {
        let (mut lines, mut bytes) = (Self::default(), Vec::new());
        loop {
            bytes.clear();
            let len = reader.by_ref().take(MAX_STATEMENT_LEN as u64 + 1).read_until(b'\n', &mut bytes)?;
            if len == 0 {
                return Ok(lines);
            }
            if len > MAX_STATEMENT_LEN && bytes.last() != Some(&b'\n') {
                let rest = reader.skip_until(b'\n')?;
                lines.push(None, len as u64 + rest as u64);
            } else {
                lines.push(Some(&bytes), len as u64);
            }
        }
    }
}

impl<'a> Parsed<'a> {
    pub(super) fn of_text(text: &'a AuditText) -> Self {
        Self::new(text.name.clone(), Content::Memory(Cow::Borrowed(&text.bytes)), Lines::of_bytes(&text.bytes))
    }

    pub(super) fn of_file(path: &Path, file: File) -> io::Result<Self> {
        let name = path.display().to_string();
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            // A pipe gives its bytes once.
            let mut bytes = Vec::new();
            if file.take(MAX_PIPE_LEN + 1).read_to_end(&mut bytes)? as u64 > MAX_PIPE_LEN {
                let why = "it is no regular file and has more than 1 GiB: have it verified from a file";
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
            }
            let lines = Lines::of_bytes(&bytes);
            return Ok(Self::new(name, Content::Memory(Cow::Owned(bytes)), lines));
        }
        // No further, however fast somebody adds to it.
        let lines = Lines::of_reader(BufReader::new((&file).take(metadata.len())))?;
        Ok(Self::new(name, Content::File(file), lines))
    }

    fn new(name: String, content: Content<'a>, lines: Lines) -> Self {
        let Lines { lines, count, blank, others, .. } = lines;
        let number = lines.iter().find_map(|line| line.brief.as_ref().filter(|line| line.is_header())?.number("file"));
        Self { name, content, number, lines, count, blank, others }
    }

    /// A line of the file as it was taken apart, without its line feed; or why it cannot be had.
    pub(super) fn bytes(&self, line: &Line) -> Result<Cow<'_, [u8]>, String> {
        let Some(len) = line.len else { return Err("it is longer than 64 MiB, which no line is".to_owned()) };
        match &self.content {
            Content::Memory(bytes) => {
                let start = line.offset as usize;
                Ok(Cow::Borrowed(&bytes[start..start + len as usize]))
            }
            Content::File(file) => {
                let mut bytes = vec![0; len as usize];
                match file.read_exact_at(&mut bytes, line.offset) {
                    Ok(()) if line.brief.as_ref().is_none_or(|brief| brief.is_of(&bytes)) => Ok(Cow::Owned(bytes)),
                    Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                        Err(format!("it cannot be read again: {error}"))
                    }
                    _ => Err("it was changed while the file was read".to_owned()),
                }
            }
        }
    }

    /// Hands each line to `each`, without its line feed, as it was taken apart. What is none is handed over as an empty one.
    pub(super) fn each_line(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), (u64, String)> {
        let mut next = 1;
        for line in self.lines.iter().filter(|line| line.brief.is_some()) {
            (next..line.number).for_each(|_| each(b""));
            each(&self.bytes(line).map_err(|why| (line.number, why))?);
            next = line.number + 1;
        }
        (next..=self.count).for_each(|_| each(b""));
        Ok(())
    }

    /// Whether no line of the file is one that a writer writes. A single line may be one that a crash cut off.
    pub(super) fn is_something_else(&self) -> bool {
        self.count > 1 && self.lines.iter().all(|line| line.brief.is_none())
    }

    /// The two lines of a statement. A file that has more is checked as a part of a trail.
    pub(super) fn is_statement(&self) -> bool {
        let is_one = |line: &Line| line.brief.as_ref().is_some_and(|line| line.action() == Some(STATEMENT));
        self.count == 2 && matches!(&self.lines[..], [.., line] if line.number == 2 && is_one(line))
    }
}
