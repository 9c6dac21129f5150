//! Which rows take the place of which: the map of `keyfold rebind`.

use crate::args::Rebind;
use crate::failure::{Exit, Failure};
use crate::files::csv::{CsvOptions, CsvSource, DEFAULT_MAX_FIELD_LEN, MAX_ROW_LEN};
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use zeroize::Zeroizing;

/// Longest map in bytes: it is held in memory.
const MAX_MAP_LEN: u64 = 64 * 1024 * 1024;

/// Identifiers, in clear, and what replaces them. Erased on drop; no message has one, but the line where it stands.
#[derive(Default)]
pub(super) struct Merges {
    file: PathBuf,
    /// By `from`, each once.
    merges: Vec<Merge>,
    row: Option<String>,
    allow_missing: bool,
}

/// Where the values of one row go.
pub(super) struct Merge {
    from: Zeroizing<String>,
    pub(super) to: Zeroizing<String>,
    line: u64,
    /// Whether some row had this identifier.
    found: AtomicBool,
}

impl Merges {
    /// Reads the map.
    pub(super) fn read(args: &Rebind) -> Result<Self, Failure> {
        let merges = read_map(&args.map).map_err(|failure| failure.at(args.map.display()))?;
        Ok(Self { file: args.map.clone(), merges, row: args.row.clone(), allow_missing: args.allow_missing })
    }

    /// The file, if there is one.
    pub(super) fn file(&self) -> Option<&Path> {
        (!self.merges.is_empty()).then_some(&*self.file)
    }

    /// The merge of the row with this identifier, which counts as found from now on.
    pub(super) fn merge(&self, row: &[u8]) -> Option<&Merge> {
        let index = self.merges.binary_search_by(|merge| merge.from.as_bytes().cmp(row)).ok()?;
        let merge = &self.merges[index];
        merge.found.store(true, Ordering::Relaxed);
        Some(merge)
    }

    /// Which of these columns or paths holds the identifiers.
    pub(super) fn choose_row<'n>(&self, names: &[&'n str]) -> Result<&'n str, Failure> {
        let listed = || names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        match (&self.row, names) {
            (_, []) => Err(Failure::new(Exit::Policy, "no field of the policy is bound to a row of this input")),
            (None, [name]) => Ok(name),
            (None, _) => {
                let why =
                    format!("the policy binds values to several: {}; --row says which the map speaks of", listed());
                Err(Failure::new(Exit::Usage, why))
            }
            (Some(row), _) => names.iter().find(|name| *name == row).copied().ok_or_else(|| {
                let why = format!("--row: the policy binds no value of this input to {row:?}, but to {}", listed());
                Failure::new(Exit::Usage, why)
            }),
        }
    }

    /// Refuses a map of which a row was not found: most likely it, or the input, is the wrong one.
    pub(super) fn refuse_missing(&self) -> Result<(), Failure> {
        let missing = || self.merges.iter().filter(|merge| !merge.found.load(Ordering::Relaxed));
        match missing().map(|merge| merge.line).min() {
            Some(line) if !self.allow_missing => {
                let count = missing().count();
                let why = format!(
                    "{count} identifiers of the map occur in no row, the first on line {line}; --allow-missing goes on"
                );
                Err(Failure::new(Exit::Data, why).at(self.file.display()))
            }
            _ => Ok(()),
        }
    }
}

fn read_map(path: &Path) -> Result<Vec<Merge>, Failure> {
    let cannot = |error: io::Error| Failure::new(Exit::Storage, format!("cannot read the map: {error}"));
    let file = File::open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if !metadata.is_file() || metadata.len() > MAX_MAP_LEN {
        return Err(Failure::new(Exit::Usage, "a map is a regular file of at most 64 MiB"));
    }
    if metadata.permissions().mode() & 0o002 != 0 {
        let why = "anyone on the machine can write the map, and it decides whose data goes where: run chmod o-w";
        return Err(Failure::new(Exit::Usage, why));
    }
    let columns = ["from", "to"].map(str::to_owned).to_vec();
    let options =
        CsvOptions { delimiter: b',', columns, max_field_len: DEFAULT_MAX_FIELD_LEN, max_row_len: MAX_ROW_LEN };
    let mut source = CsvSource::new(file, options)?;
    if source.header() != ["from", "to"] {
        return Err(Failure::new(Exit::Data, "the header of a map is from,to"));
    }
    let mut merges = Vec::new();
    while let Some(batch) = source.next_batch()? {
        for (row, line) in batch.lines().enumerate() {
            let [from, to] = [batch.text(row, 0)?, batch.text(row, 1)?].map(|text| Zeroizing::new(text.to_owned()));
            let wrong = |why: &str| Err(Failure::new(Exit::Data, format!("line {line}: {why}")));
            if from.is_empty() || to.is_empty() {
                return wrong("an identifier is empty");
            }
            if from == to {
                return wrong("the two identifiers are the same");
            }
            merges.push(Merge { from, to, line, found: AtomicBool::new(false) });
        }
    }
    if merges.is_empty() {
        return Err(Failure::new(Exit::Data, "the map has no rows"));
    }
    merges.sort_by(|a, b| (a.from.as_str(), a.line).cmp(&(&b.from, b.line)));
    if let Some(twice) = merges.windows(2).find(|pair| pair[0].from == pair[1].from) {
        let why = format!("line {} and line {} say what becomes of the same identifier", twice[0].line, twice[1].line);
        return Err(Failure::new(Exit::Data, why));
    }
    for merge in &merges {
        if let Ok(index) = merges.binary_search_by(|other| other.from.as_str().cmp(&merge.to)) {
            let why = format!(
                "line {} leads to the identifier that line {} replaces; say where it leads in the end",
                merge.line, merges[index].line
            );
            return Err(Failure::new(Exit::Data, why));
        }
    }
    Ok(merges)
}
