//! The second pass, from the start and from headers alone, and the statement that nothing was left.

use crate::args::{Reencrypt, Transform};
use crate::census::{EXTENT, Seen, Tally, count_records};
use crate::failure::{Exit, Failure};
use crate::files::hl7::SegmentPath;
use crate::files::interrupt::Interrupt;
use crate::files::output::{Output, Target};
use crate::tables::{Bindings, Pace, Rows, TokenRows, Trouble};
use crate::transform::Input;
use data_encoding::HEXLOWER;
use keyfold::wire::{KeyId, Suite};
use keyfold::{Keyring, MAX_SCOPE_NAME_LEN, Value};
use keyfold_documents::Resealer;
use keyfold_tables::{Extent, Table};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The kind of statement.
const KIND: &str = "reencrypted";

/// What the second pass found.
pub(super) struct Found {
    place: String,
    /// Which bytes they were, if it is a file.
    file: Option<Json>,
    rows: u64,
    fields: Vec<FieldFound>,
}

#[derive(Default)]
struct FieldFound {
    name: String,
    column: String,
    /// The key that sealed when the run began: no value is under an older one. `None`: each scope has its own.
    key_id: Option<KeyId>,
    values: u64,
    clear: u64,
    empty: u64,
    malformed: u64,
    /// Values that are under an older or a compromised key, by generation.
    left: BTreeMap<u32, u64>,
    /// Values under a key that is none of the field in its scope, so that nobody knows.
    foreign: u64,
}

impl FieldFound {
    /// Counts a value of which the ciphers of one of `candidates` must say that it is not to be sealed again.
    fn add<'c>(
        &mut self,
        seen: Seen,
        count: u64,
        candidates: impl Iterator<Item = &'c Resealer>,
    ) -> Result<(), Failure> {
        let Seen::Sealed(suite, key_id) = seen else {
            *match seen {
                Seen::Clear => &mut self.clear,
                // A value of a document has no key of its own here, whatever put it into a column.
                Seen::Malformed | Seen::Part => &mut self.malformed,
                _ => &mut self.empty,
            } += count;
            return Ok(());
        };
        self.values += count;
        let mut is_foreign = true;
        for cipher in candidates {
            match pollster::block_on(cipher.is_stale(suite, key_id)).map_err(Trouble::from) {
                Ok(false) => return Ok(()),
                Ok(true) => is_foreign = false,
                Err(Trouble::Value(_)) => {}
                Err(Trouble::Run(error)) => return Err(error.into()),
            }
        }
        match is_foreign {
            true => self.foreign += count,
            false => *self.left.entry(key_id.generation()).or_insert(0) += count,
        }
        Ok(())
    }
}

/// Looks at every header of the table, from the start. `sealing` are the handles of before the run. Where each scope has its own,
/// what counts is the key that seals when the pass comes to the scope.
pub(super) fn look_at_table(
    table: &mut Table,
    bindings: &mut Bindings,
    own: &[Option<TokenRows>],
    pace: &Pace,
    sealing: Option<&[Resealer]>,
) -> Result<Found, Failure> {
    let field = |field: usize| FieldFound {
        name: bindings.name(field).to_owned(),
        column: bindings.column_name(field).to_owned(),
        key_id: sealing.map(|ciphers| ciphers[field].key_id()),
        ..FieldFound::default()
    };
    let fields = (0..bindings.len()).map(field).collect();
    let mut found = Found { place: table.place().to_owned(), file: None, rows: 0, fields };
    bindings.forget();
    // Long enough for the name of a scope, or of a field, where that is in the row.
    let extent = match bindings.is_one_scope() {
        true if own.iter().all(Option::is_none) => EXTENT,
        true => TokenRows::EXTENT,
        false => MAX_SCOPE_NAME_LEN as u32 + 1,
    };
    let mut rows = Rows::new(pace, None, Extent::Start(extent), "looking for what is left");
    while let Some(page) = rows.next(table)? {
        found.rows += page.len() as u64;
        for row in &page {
            let bound;
            let ciphers = match sealing {
                Some(ciphers) => ciphers,
                None => match bindings.bind(row) {
                    Ok(of_row) => {
                        bound = of_row;
                        &bound.ciphers[..]
                    }
                    Err(Trouble::Run(error)) => return Err(error.into()),
                    // Nobody knows which key it should have.
                    Err(Trouble::Value(_)) => &[],
                },
            };
            let is_of = |at: usize| own[at].as_ref().is_none_or(|own| own.has(row));
            for (at, field) in found.fields.iter_mut().enumerate().filter(|(at, _)| is_of(*at)) {
                field.add(Seen::cell(&row.cells[bindings.column(at)]), 1, ciphers.get(at).into_iter())?;
            }
        }
    }
    Ok(found)
}

/// Looks at every value of the file that was just written. `sealing` are the fields of before the run.
pub(super) fn look_at_file(job: &Transform, sealing: &[Resealer], interrupt: &Interrupt) -> Result<Found, Failure> {
    let format = job.format.map_or_else(|| crate::transform::format_of(&job.input), Ok)?;
    let path = Path::new(&job.output);
    let place = path.display().to_string();
    let at = |failure: Failure| failure.at(&place);
    // Opened once: by the time of a second look another file may lie there, and the statement is of the one that was counted.
    let mut input = Hashed::new(Input::open_watched(&job.output, interrupt)?);
    let tally = count_records(&mut input, format, job.delimiter, &[], Tally::new(&place, &[], true)).map_err(at)?;
    let file = input.finish(path).map_err(at)?;
    let mut fields = Vec::new();
    for column in tally.columns().iter().filter(|column| !column.values.is_empty() || column.malformed > 0) {
        let is_of = |cipher: &&Resealer| {
            let policy = cipher.policy();
            policy.columns.contains(&column.name)
                || policy.paths.contains(&column.name)
                || is_at(&policy.segments, &column.name)
        };
        let own = sealing.iter().find(is_of);
        let mut found = FieldFound {
            name: own.map(|cipher| cipher.policy().name.clone()).unwrap_or_default(),
            column: column.name.clone(),
            key_id: own.map(Resealer::key_id),
            clear: column.clear,
            empty: column.empty + column.nulls,
            malformed: column.malformed,
            ..FieldFound::default()
        };
        for ((suite, _, key_id), count) in &column.values {
            let Some(key_id) = key_id else { continue };
            // By a path with wildcards, it is of one of them.
            let candidates = sealing.iter().filter(|cipher| own.is_none_or(|own| std::ptr::eq(own, *cipher)));
            found.add(Seen::Sealed(Suite::from_id(*suite)?, *key_id), *count, candidates)?;
        }
        fields.push(found);
    }
    Ok(Found { place: tally.place.clone(), file: Some(file), rows: tally.rows, fields })
}

/// Whether one of `segments` is at `place` of an HL7 message, where `PID-3` is `PID-3.1` as well if it has no components.
fn is_at(segments: &[String], place: &str) -> bool {
    let path = |text: &str| SegmentPath::parse(text).ok();
    let Some(place) = path(place) else { return false };
    segments.iter().filter_map(|segment| path(segment)).any(|segment| segment.overlaps(&place.to_first_part()))
}

/// A file, and the SHA-256 of what was read of it.
struct Hashed<R> {
    input: R,
    hash: Sha256,
    len: u64,
}

impl<R: Read> Hashed<R> {
    fn new(input: R) -> Self {
        Self { input, hash: Sha256::new(), len: 0 }
    }

    /// Path, length and SHA-256 of the file, the rest of which is read.
    fn finish(mut self, path: &Path) -> Result<Json, Failure> {
        let mut finish = || {
            io::copy(&mut self, &mut io::sink())?;
            path.canonicalize()
        };
        let absolute = finish().map_err(|error| Failure::new(Exit::Storage, format!("cannot read it: {error}")))?;
        let sha256 = HEXLOWER.encode(&self.hash.finalize());
        Ok(json!({ "path": absolute.to_string_lossy(), "len": self.len, "sha256": sha256 }))
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.input.read(buffer)?;
        self.hash.update(&buffer[..len]);
        self.len += len as u64;
        Ok(len)
    }
}

/// Writes the statement; or says what is left, and writes none.
///
/// # Errors
///
/// Something is left. The statement cannot be authenticated or written.
pub(super) fn write(ring: &Keyring, args: &Reencrypt, path: &Path, found: Found) -> Result<(), Failure> {
    let left: Vec<String> = found
        .fields
        .iter()
        .flat_map(|field| {
            let column = &field.column;
            let damaged = (field.malformed > 0).then(|| format!("{} damaged in {column}", field.malformed));
            let old = |(generation, count): (&u32, &u64)| format!("{count} under generation {generation} in {column}");
            let foreign = (field.foreign > 0).then(|| {
                format!("{} in {column} under keys that the field does not have in this scope", field.foreign)
            });
            field.left.iter().map(old).chain(foreign).chain(damaged).collect::<Vec<_>>()
        })
        .collect();
    if !left.is_empty() {
        let why = format!("no statement was written, since values are left: {}", left.join(", "));
        return Err(Failure::new(Exit::Data, why).at(&found.place));
    }
    let fields: Vec<Json> = found
        .fields
        .iter()
        .map(|field| {
            json!({
                "field": (!field.name.is_empty()).then_some(&field.name), "column": field.column,
                "generation": field.key_id.map(|key_id| key_id.generation()),
                "key_id": field.key_id.map(|key_id| key_id.to_string()), "values": field.values, "older": 0, "clear": field.clear,
                "empty": field.empty,
            })
        })
        .collect();
    let body = json!({
        "version": 1, "statement": "no value under an older generation than the one named is left in this place",
        "place": found.place, "file": found.file, "rows": found.rows, "fields": fields, "time": now(),
    });
    let text = keyfold_open::sign_statement(ring, &args.source.config, KIND, &body)?.unwrap_or_else(|| {
        let mut body = body;
        body["unsigned"] = true.into();
        format!("{body}\n")
    });
    let mut output = Output::create(Target::Path(path.to_owned()), args.force)?;
    output.write(text.as_bytes())?;
    Ok(output.commit()?)
}

/// Before a long run, rather than at its end.
pub(super) fn refuse_existing(path: &Path, force: bool) -> Result<(), Failure> {
    Output::create(Target::Path(path.to_owned()), force).map(drop).map_err(Failure::from)
}

fn now() -> Option<String> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let seconds = i64::try_from(since.as_secs()).ok()?;
    Value::Timestamp { seconds, nanoseconds: 0 }.to_text().map(|text| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::{Hashed, is_at};
    use std::io::Read;

    /// Covers that a statement is of the bytes that were counted: there is one reading, of one opened file.
    #[test]
    fn the_digest_is_of_what_was_read_and_of_the_rest() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out.csv");
        std::fs::write(&path, b"counted,and the rest").expect("written");
        let mut input = Hashed::new(std::fs::File::open(&path).expect("a file"));
        input.read_exact(&mut [0; 7]).expect("read");
        std::fs::rename(&path, folder.path().join("aside")).expect("renamed");
        std::fs::write(&path, b"another file").expect("written");
        let file = input.finish(&path).expect("a digest");
        // printf 'counted,and the rest' | sha256sum
        assert_eq!(
            (file["len"].as_u64(), file["sha256"].as_str()),
            (Some(20), Some("8492e1a9380f8222ab086e560b8342c1c3b521ef77b44df8eeb2cc30de3a2881"))
        );
    }

    #[test]
    fn a_field_without_components_is_its_own_first_one() {
        let at = |segment: &str, place: &str| is_at(&[segment.to_owned()], place);
        assert!(
            at("PID-3.1", "PID-3") && at("PID-3.1", "PID-3.1") && at("PID-11", "PID-11") && at("PID-11", "PID-11.2")
        );
        assert!(!at("PID-3.7", "PID-3") && !at("PID-3.1", "PID-3.7") && !at("PID-5", "PID-3"));
    }
}
