//! What a census prints.

use super::tally::{Column, Tally};
use crate::failure::{Failure, Printable};
use crate::print_failed;
use keyfold::wire::KeyId;
use keyfold::{Error, KeyState, Keyring};
use keyfold_open::is_no_answer;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;

/// Records that are read from the store at once.
const PAGE: usize = 1000;

/// The states of the keys of a keyring.
pub(crate) struct States {
    pub(crate) of: HashMap<KeyId, &'static str>,
    /// Why some cannot be told now: a KEK did not answer, or was not to be asked.
    pub(crate) unanswered: Option<Error>,
}

/// The state of every key of a keyring.
pub(crate) fn states(ring: &Keyring) -> Result<States, Failure> {
    let mut states = HashMap::new();
    let (mut after, mut unanswered) = (None, None);
    loop {
        let page = pollster::block_on(ring.list(after, PAGE))?;
        for info in &page {
            let state = match (&info.verified, info.record.state()) {
                (Err(error), _) if is_no_answer(error) => {
                    unanswered = Some(error.clone());
                    "not verified"
                }
                (Err(_), _) => "not trusted",
                (Ok(()), KeyState::Active) => "current",
                (Ok(()), KeyState::Deactivated) => "retired",
                (Ok(()), state) => state.name(),
            };
            states.insert(info.record.key_id(), state);
        }
        match page.last() {
            Some(last) => after = Some(last.record.key_id()),
            None => return Ok(States { of: states, unanswered }),
        }
    }
}

/// Prints what was found in one place.
pub(crate) fn print(
    tally: &Tally,
    states: Option<&HashMap<KeyId, &'static str>>,
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
fn generations(column: &Column, states: Option<&HashMap<KeyId, &'static str>>) -> BTreeMap<Generation, u64> {
    let mut sums = BTreeMap::new();
    for ((suite, generation, id), count) in &column.values {
        let state = states.map(|states| id.and_then(|id| states.get(&id).copied()).unwrap_or("unknown"));
        *sums.entry((*suite, *generation, state)).or_insert(0) += count;
    }
    sums
}

fn json_line(tally: &Tally, states: Option<&HashMap<KeyId, &'static str>>) -> serde_json::Value {
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
