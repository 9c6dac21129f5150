//! What a verification found.

use data_encoding::HEXLOWER;
use keyfold::ChainId;
use serde_json::{Value as Json, json};
use std::collections::{HashMap, HashSet};
use std::fmt;

/// What is wrong with a place.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum FindingKind {
    /// The line is not what was written.
    Edited,
    /// The line is none that a writer writes, or the file has none.
    NoLine,
    /// The line cannot be checked, because the one before it in its chain is missing or was edited, or the files claim more than one run looks at.
    Unchecked,
    /// Lines are missing before this one.
    Deleted,
    /// The line was written at another place.
    Reordered,
    /// The line is there already.
    Duplicated,
    /// Bytes were put in or taken out before this line.
    Shifted,
    /// The line belongs to a chain of which the files do not say what it is, or which does not belong here.
    UnknownChain,
    /// An anchor knows a chain that is not in the files.
    MissingChain,
    /// An anchor knows a later line than the last of the chain.
    MissingTail,
    /// A file is missing.
    MissingFile,
    /// The line of an anchor file is no anchor, or the file has none.
    NoAnchor,
}

impl FindingKind {
    /// The name of the kind in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Edited => "edited",
            Self::NoLine => "no-line",
            Self::Unchecked => "unchecked",
            Self::Deleted => "deleted",
            Self::Reordered => "reordered",
            Self::Duplicated => "duplicated",
            Self::Shifted => "shifted",
            Self::UnknownChain => "unknown-chain",
            Self::MissingChain => "missing-chain",
            Self::MissingTail => "missing-tail",
            Self::MissingFile => "missing-file",
            Self::NoAnchor => "no-anchor",
        }
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// The file.
    pub file: String,
    /// The line, from 1; `None`: the file as a whole.
    pub line: Option<u64>,
    /// What is wrong.
    pub kind: FindingKind,
    /// The same for people.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}: {}", self.kind.name(), self.detail)
    }
}

/// How a chain ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChainEnd {
    /// Its writer ended it.
    Closed,
    /// It just stops: its writer still runs, or crashed, or what followed was cut off.
    Open,
}

/// What can be said of a chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChainReport {
    /// The chain.
    pub id: ChainId,
    /// Lines that are there.
    pub lines: u64,
    /// Events among them.
    pub events: u64,
    /// Events that were lost while the disk was full, as its lines say.
    pub lost: u64,
    /// Whether the MACs were checked under the audit KEK.
    pub authenticated: bool,
    /// How it ends.
    pub end: ChainEnd,
    /// The last line, and its MAC.
    pub head: (u64, [u8; 32]),
    /// Lines after the last anchor; `None`: there are no anchors.
    pub after_anchor: Option<u64>,
    /// The kind of the statement that it consists of.
    pub statement: Option<String>,
}

/// What a verification found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// The files in the order of their numbers, with how many lines they have.
    pub files: Vec<(String, u64)>,
    /// The chains.
    pub chains: Vec<ChainReport>,
    /// What is wrong, in the order of the files and lines.
    pub findings: Vec<Finding>,
    /// What is worth knowing and not wrong.
    pub notes: Vec<String>,
    /// Whether an audit KEK did not answer, so that the same verification may say more in a while.
    pub is_unanswered: bool,
    /// Lines with a finding, by file: asked of every line that is out of place, of which there may be as many as lines.
    named: HashMap<String, HashSet<u64>>,
}

impl Report {
    pub(super) fn new<'a>(files: impl Iterator<Item = (&'a str, u64)>) -> Self {
        let files = files.map(|(name, lines)| (name.to_owned(), lines)).collect();
        Self {
            files,
            chains: Vec::new(),
            findings: Vec::new(),
            notes: Vec::new(),
            is_unanswered: false,
            named: HashMap::new(),
        }
    }

    pub(super) fn add(&mut self, file: &str, line: Option<u64>, kind: FindingKind, detail: String) {
        if let Some(line) = line {
            // Names are few, and lines are many.
            match self.named.get_mut(file) {
                Some(lines) => drop(lines.insert(line)),
                None => drop(self.named.insert(file.to_owned(), HashSet::from([line]))),
            }
        }
        self.findings.push(Finding { file: file.to_owned(), line, kind, detail });
    }

    pub(super) fn has(&self, file: &str, line: u64) -> bool {
        self.named.get(file).is_some_and(|lines| lines.contains(&line))
    }

    pub(super) fn finish(&mut self) {
        self.notes.sort_unstable();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for (place, (name, _)) in self.files.iter().enumerate() {
            places.entry(name).or_insert(place);
        }
        let place = |file: &str| places.get(file).copied().unwrap_or(usize::MAX);
        self.findings.sort_by_cached_key(|finding| (place(&finding.file), finding.line));
        let gap = self.gap();
        match gap {
            Some(0) => {}
            Some(lines) => self.notes.push(format!(
                "{lines} lines follow the last anchors of their chains: if later ones were cut off, that does not show"
            )),
            None => self.notes.push(
                "there are no anchors: if lines were cut off the end of a chain that is not closed, or the last chains are missing, that does not show"
                    .to_owned(),
            ),
        }
        let (unanchored, chains) = (self.unanchored(), self.chains.len());
        if unanchored > 0 {
            self.notes.push(format!(
                "{unanchored} of {chains} chains are in no anchor: anchors came later into the configuration, could not be written, or were lost and begun anew; \
                 what was cut off these chains, and what stood beside them, does not show"
            ));
        }
    }

    /// Whether nothing wrong was found. Of a chain that no audit KEK opened only the structure was looked at: ask
    /// [`is_authenticated`](Self::is_authenticated), too.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Whether every chain was checked under the audit KEK. If not, only the structure was: it shows accidents, not forgeries.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.chains.iter().all(|chain| chain.authenticated)
    }

    /// Lines after the last anchors of their chains, statements aside; `None`: there are no anchors.
    #[must_use]
    pub fn gap(&self) -> Option<u64> {
        let trail = self.chains.iter().filter(|chain| chain.statement.is_none());
        trail.map(|chain| chain.after_anchor).collect::<Option<Vec<_>>>().map(|lines| sum(lines.into_iter()))
    }

    /// Chains of which no anchor knows a line, although there are anchors; those aside that began in an earlier file, and those of one event, which
    /// is recorded before its chain is anchored.
    #[must_use]
    pub fn unanchored(&self) -> u64 {
        let is_known = |chain: &ChainReport| chain.after_anchor.is_none_or(|after| after <= chain.head.0);
        let is_whole = |chain: &ChainReport| chain.head.0 > 2 && chain.lines > chain.head.0;
        self.chains.iter().filter(|chain| is_whole(chain) && !is_known(chain)).count() as u64
    }

    /// Events that were lost while the disk was full, as the chains say.
    #[must_use]
    pub fn lost(&self) -> u64 {
        sum(self.chains.iter().map(|chain| chain.lost))
    }

    /// The report as one JSON object.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let findings = self.findings.iter().map(|finding| {
            json!({ "file": finding.file, "line": finding.line, "kind": finding.kind.name(), "detail": finding.detail })
        });
        let chains = self.chains.iter().map(|chain| {
            json!({
                "chain": chain.id.to_string(), "lines": chain.lines, "events": chain.events, "lost": chain.lost,
                "authenticated": chain.authenticated, "closed": chain.end == ChainEnd::Closed,
                "last": chain.head.0, "mac": HEXLOWER.encode(&chain.head.1), "after_anchor": chain.after_anchor,
                "statement": chain.statement,
            })
        });
        let files = self.files.iter().map(|(name, lines)| json!({ "file": name, "lines": lines }));
        json!({
            "clean": self.is_clean(), "authenticated": self.is_authenticated(), "unanswered": self.is_unanswered,
            "gap": self.gap(),
            "unanchored": self.unanchored(),
            "files": files.collect::<Vec<_>>(), "chains": chains.collect::<Vec<_>>(),
            "findings": findings.collect::<Vec<_>>(), "notes": self.notes,
        })
    }
}

/// The sum of numbers of which lines say what somebody likes: the largest one where it would be larger.
pub(super) fn sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}
