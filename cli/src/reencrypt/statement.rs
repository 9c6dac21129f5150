//! The second pass, from the start and from headers alone, and the statement that nothing was left.

use crate::args::{Reencrypt, Transform};
use crate::census::{EXTENT, Seen, Tally, count_file};
use crate::failure::{Exit, Failure};
use crate::files::interrupt::Interrupt;
use crate::files::output::{Output, Target};
use crate::tables::{Bindings, Pace, Rows, Trouble};
use keyfold::wire::{KeyId, Suite};
use keyfold::{ErrorKind, MAX_SCOPE_NAME_LEN, Value};
use keyfold_tables::{Extent, Table};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The kind of statement.
const KIND: &str = "reencrypted";

/// What no value of a file may be below.
pub(super) struct Floors {
    /// Of randomised fields: the generation that sealed when the run began.
    pub(super) generation: Option<u32>,
    /// Of deterministic fields: the keys that seal.
    pub(super) lookup_keys: BTreeSet<KeyId>,
}

/// What the second pass found.
pub(super) struct Found {
    place: String,
    rows: u64,
    fields: Vec<FieldFound>,
}

#[derive(Default)]
struct FieldFound {
    name: String,
    column: String,
    /// No value is under an older one. `None`: each scope has its own.
    generation: Option<u32>,
    values: u64,
    clear: u64,
    empty: u64,
    malformed: u64,
    /// Values that are under an older generation, by generation.
    left: BTreeMap<u32, u64>,
}

impl FieldFound {
    fn add(&mut self, seen: Seen, is_old: impl Fn(Suite, KeyId) -> bool) {
        match seen {
            Seen::Null | Seen::Empty => self.empty += 1,
            Seen::Clear => self.clear += 1,
            Seen::Malformed => self.malformed += 1,
            Seen::Sealed(suite, key_id) => {
                self.values += 1;
                if is_old(suite, key_id) {
                    *self.left.entry(key_id.generation()).or_insert(0) += 1;
                }
            }
        }
    }
}

/// The generations that seal now, by field; `None` where each scope has its own.
pub(super) fn generations_now(bindings: &Bindings) -> Result<Vec<Option<u32>>, Failure> {
    if !bindings.is_one_scope() {
        return Ok(vec![None; bindings.len()]);
    }
    Ok(bindings.of_scope()?.iter().map(|cipher| Some(cipher.key_id().generation())).collect())
}

/// The generations that a checkpoint remembers, of so many fields.
pub(super) fn generations_from(json: &Json, fields: usize) -> Result<Vec<Option<u32>>, Failure> {
    let generation = |json: &Json| json.as_u64().and_then(|generation| u32::try_from(generation).ok());
    match json.as_array() {
        Some(generations) if generations.len() == fields => Ok(generations.iter().map(generation).collect()),
        _ => Err(Failure::new(Exit::Usage, "the checkpoint is damaged; start with another file")),
    }
}

/// Looks at every header of the table. Where each scope has its own generation, what counts is the one that seals when the pass
/// comes to the scope.
pub(super) fn look_at_table(
    table: &mut Table,
    bindings: &mut Bindings,
    pace: &Pace,
    floors: &[Option<u32>],
) -> Result<Found, Failure> {
    let field = |field: usize| FieldFound {
        name: bindings.name(field).to_owned(),
        column: bindings.column_name(field).to_owned(),
        generation: floors[field],
        ..FieldFound::default()
    };
    let fields = (0..bindings.len()).map(field).collect();
    let mut found = Found { place: table.place().to_owned(), rows: 0, fields };
    // Long enough for the name of a scope, where that is in the row.
    let extent = if bindings.is_one_scope() { EXTENT } else { MAX_SCOPE_NAME_LEN as u32 + 1 };
    let one = if bindings.is_one_scope() { Some(bindings.of_scope()?) } else { None };
    let mut rows = Rows::new(pace, None, Extent::Start(extent), "looking for what is left");
    while let Some(page) = rows.next(table)? {
        found.rows += page.len() as u64;
        for row in &page {
            let bound;
            let ciphers = match &one {
                Some(ciphers) => &ciphers[..],
                None => match bindings.bind(row) {
                    Ok(of_row) => {
                        bound = of_row;
                        &bound.ciphers[..]
                    }
                    Err(Trouble::Run(error)) => return Err(error.into()),
                    // Nobody knows which generation it should have.
                    Err(Trouble::Value(_)) => &[],
                },
            };
            for (at, field) in found.fields.iter_mut().enumerate() {
                // A key that sealed at the beginning will do, even if it was replaced since.
                let is_old =
                    |suite, key_id| ciphers.get(at).is_none_or(|cipher| cipher.is_below(suite, key_id, floors[at]));
                field.add(Seen::cell(&row.cells[bindings.column(at)]), is_old);
            }
        }
    }
    Ok(found)
}

/// Looks at every value of the file that was just written.
pub(super) fn look_at_file(job: &Transform, floors: &Floors, interrupt: &Interrupt) -> Result<Found, Failure> {
    let format = job.format.map_or_else(|| crate::transform::format_of(&job.input), Ok)?;
    let tally: Tally = count_file(&job.output, Some(format), job.delimiter, &[], interrupt, true)?;
    let mut fields = Vec::new();
    for column in tally.columns().iter().filter(|column| !column.values.is_empty() || column.malformed > 0) {
        let mut found = FieldFound {
            column: column.name.clone(),
            generation: floors.generation,
            clear: column.clear,
            empty: column.empty + column.nulls,
            malformed: column.malformed,
            ..FieldFound::default()
        };
        for ((suite, generation, key_id), count) in &column.values {
            let is_old = match key_id {
                Some(key_id) if *suite == Suite::Deterministic.id() => !floors.lookup_keys.contains(key_id),
                _ => floors.generation.is_none_or(|floor| *generation < floor),
            };
            found.values += count;
            if is_old {
                *found.left.entry(*generation).or_insert(0) += count;
            }
        }
        fields.push(found);
    }
    Ok(Found { place: tally.place.clone(), rows: tally.rows, fields })
}

/// Writes the statement; or says what is left, and writes none.
///
/// # Errors
///
/// Something is left. The statement cannot be authenticated or written.
pub(super) fn write(args: &Reencrypt, path: &Path, found: Found) -> Result<(), Failure> {
    let left: Vec<String> = found
        .fields
        .iter()
        .flat_map(|field| {
            let column = &field.column;
            let damaged = (field.malformed > 0).then(|| format!("{} damaged in {column}", field.malformed));
            let old = |(generation, count): (&u32, &u64)| format!("{count} under generation {generation} in {column}");
            field.left.iter().map(old).chain(damaged).collect::<Vec<_>>()
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
                "generation": field.generation, "values": field.values, "older": 0, "clear": field.clear,
                "empty": field.empty,
            })
        })
        .collect();
    let body = json!({
        "version": 1, "statement": "no value under an older generation than the one named is left in this place",
        "place": found.place, "rows": found.rows, "fields": fields, "time": now(),
    });
    let text = match keyfold_open::sign_statement(&args.source.config, KIND, &body) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::Configuration => {
            let _ = writeln!(anstream::stderr(), "keyfold: the statement is not authenticated: {error}");
            let mut body = body;
            body["unsigned"] = true.into();
            format!("{body}\n")
        }
        Err(error) => return Err(error.into()),
    };
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
