//! What a census prints.

use super::tally::{Column, Tally};
use crate::failure::{Failure, Printable};
use crate::print_failed;
use keyfold::wire::KeyId;
use keyfold::{Error, KeyInfo, KeyState, Keyring};
use keyfold_open::is_no_answer;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;

/// Records that are read from the store at once.
const PAGE: usize = 1000;

const NOT_TRUSTED: &str = "not trusted";
/// A KEK did not answer, or was not to be asked.
const NOT_VERIFIED: &str = "not verified";

/// What a keyring says of its keys.
pub(crate) struct States(HashMap<KeyId, (&'static str, Option<Error>)>);

impl States {
    /// # Errors
    ///
    /// The store cannot be read.
    pub(crate) fn of(ring: &Keyring) -> Result<Self, Failure> {
        let mut states = HashMap::new();
        let mut after = None;
        loop {
            let page = pollster::block_on(ring.list(after, PAGE))?;
            after = page.last().map(|last| last.record.key_id());
            if after.is_none() {
                return Ok(Self(states));
            }
            for KeyInfo { record, verified, .. } in page {
                let name = match (&verified, record.state()) {
                    (Err(error), _) if is_no_answer(error) => NOT_VERIFIED,
                    (Err(_), _) => NOT_TRUSTED,
                    (Ok(()), KeyState::Active) => "current",
                    (Ok(()), KeyState::Deactivated) => "retired",
                    (Ok(()), state) => state.name(),
                };
                states.insert(record.key_id(), (name, verified.err()));
            }
        }
    }

    fn name(&self, id: KeyId) -> &'static str {
        self.0.get(&id).map_or("unknown", |(name, _)| name)
    }

    /// What keeps a key of what was counted from being trusted: first that something is wrong with it, then that nobody can tell now.
    pub(crate) fn check(&self, tallies: &[Tally]) -> Result<(), Failure> {
        let values = || tallies.iter().flat_map(Tally::columns).flat_map(|column| column.values.keys());
        let first = |wanted| {
            values().find_map(|(_, _, id)| match self.0.get(id.as_ref()?) {
                Some((name, Some(error))) if *name == wanted => Some((id.as_ref()?, error.clone())),
                _ => None,
            })
        };
        if let Some((id, error)) = first(NOT_TRUSTED) {
            let failure = Failure::from(error).at(format_args!("key {id}"));
            return Err(failure.add("values were counted under it, and it cannot be trusted").of_keys());
        }
        match first(NOT_VERIFIED) {
            Some((_, error)) => Err(Failure::from(error)
                .add("the states of keys cannot be told until that is changed; what was counted counts")),
            None => Ok(()),
        }
    }
}

/// Prints what was found in one place.
pub(crate) fn print(
    tally: &Tally,
    states: Option<&States>,
    as_json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    if as_json {
        return writeln!(out, "{}", json_line(tally, states)).map_err(print_failed);
    }
    let rows = if tally.rows == 1 { "row" } else { "rows" };
    writeln!(out, "{}: {} {rows}", Printable(&tally.place), tally.rows).map_err(print_failed)?;
    writeln!(out, "  {:<32}  {:<5}  {:>10}  {:>12}  state", "column", "suite", "generation", "values")
        .map_err(print_failed)?;
    for column in shown(tally) {
        let name = Printable(&column.name).to_string();
        for ((suite, generation, state), count) in generations(column, states) {
            let suite = format!("{suite:02x}");
            let line = format!("  {name:<32}  {suite:<5}  {generation:>10}  {count:>12}  {}", state.unwrap_or(""));
            writeln!(out, "{}", line.trim_end()).map_err(print_failed)?;
        }
        for (what, count) in [
            ("in clear", column.clear),
            ("damaged, or of a suite that this build does not know", column.malformed),
            ("of documents, whose headers have the key", column.parts),
            ("empty", column.empty),
            ("null", column.nulls),
        ] {
            if count > 0 {
                writeln!(out, "  {name:<32}  {:<5}  {:>10}  {count:>12}  {what}", "-", "-").map_err(print_failed)?;
            }
        }
    }
    Ok(())
}

/// The columns that somebody has named, and others in which something looks sealed: their names may be somebody's data.
fn shown(tally: &Tally) -> impl Iterator<Item = &Column> {
    tally
        .columns()
        .iter()
        .filter(|column| tally.named || !column.values.is_empty() || column.malformed + column.parts > 0)
}

type Generation = (u8, u32, Option<&'static str>);

/// Values by suite, generation and state.
fn generations(column: &Column, states: Option<&States>) -> BTreeMap<Generation, u64> {
    let mut sums = BTreeMap::new();
    for ((suite, generation, id), count) in &column.values {
        let state = states.map(|states| id.map_or("unknown", |id| states.name(id)));
        *sums.entry((*suite, *generation, state)).or_insert(0) += count;
    }
    sums
}

fn json_line(tally: &Tally, states: Option<&States>) -> serde_json::Value {
    let columns: Vec<_> = shown(tally)
        .map(|column| {
            let generations: Vec<_> = generations(column, states)
                .into_iter()
                .map(|((suite, generation, state), values)| {
                    json!({ "suite": format!("{suite:02x}"), "generation": generation, "state": state, "values": values })
                })
                .collect();
            json!({
                "column": column.name, "generations": generations, "clear": column.clear, "malformed": column.malformed,
                "parts": column.parts,
                "empty": column.empty, "null": column.nulls,
            })
        })
        .collect();
    json!({ "place": tally.place, "rows": tally.rows, "columns": columns })
}
