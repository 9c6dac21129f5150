//! `keyfold scan`: data in clear where the policy says sealed. Needs no key, and says places, never values.

mod csv;
mod files;
mod hints;
mod hl7;
mod json;
mod judge;
mod table;

use crate::args::Scan;
use crate::census::name_of;
use crate::failure::{Exit, Failure, Printable};
use crate::files::interrupt::Interrupt;
use crate::files::standard::stderr;
use crate::print_failed;
use hints::Hints;
use judge::{Indexed, Spread, Verdict};
use keyfold::{FieldPolicy, IndexPolicy, Token};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::ExitCode;

/// Prints what was found. Ends with 4 if anything is in clear, or if a document has nothing that a field selects, unless that is to pass. A source that fails ends
/// with its own code if nothing was found, in it or in any other.
pub(crate) fn run(args: &Scan, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let policy = crate::policy::read(&args.rules)?;
    let interrupt =
        Interrupt::install().map_err(|error| Failure::new(Exit::System, format!("cannot handle signals: {error}")))?;
    let hints = args.patterns.then(Hints::new).transpose()?;
    let mut found = Found::new(args);
    match &args.columns.sql {
        Some(sql) => {
            let scanned = table::scan(args, sql, &policy, hints.as_ref(), &interrupt, &mut found);
            found.end(scanned)?;
        }
        None => {
            for file in &args.files {
                found.begin(&name_of(file));
                let scanned = files::scan(args, file, &policy, hints.as_ref(), &interrupt, &mut found);
                found.end(scanned)?;
            }
        }
    }
    if args.json {
        writeln!(out, "{}", found.json()).map_err(print_failed)?;
    } else {
        found.print(out).map_err(print_failed)?;
    }
    let bad = !found.has_nothing_wrong() || (args.strict && !found.hints.is_empty());
    Ok(match found.failed.first() {
        _ if bad => ExitCode::from(Exit::Data as u8),
        Some(failed) => ExitCode::from(failed.code),
        None => ExitCode::SUCCESS,
    })
}

/// Most places of messages, and of a source with --clear, that are told one by one: who makes up data cannot make the list of them longer.
const MAX_ELSEWHERE: usize = 500;
/// Longest place that is told: names in documents are as long as who makes them up likes.
const MAX_PLACE_LEN: usize = 300;
/// All others.
const OTHER_PLACES: &str = "other places";

fn values_are(n: u64) -> String {
    if n == 1 { "1 value is".to_owned() } else { format!("{n} values are") }
}

/// What was found.
struct Found {
    /// The file or table that is looked at.
    source: String,
    /// Values of fields that are sealed as they should be.
    sealed: u64,
    /// By field and what is wrong.
    findings: BTreeMap<(String, &'static str), u64>,
    /// By what they look like.
    hints: BTreeMap<&'static str, u64>,
    /// The first of both: source, place, and what.
    places: Vec<(String, String, String)>,
    max_places: usize,
    /// Fields whose values keep their format or have that of tokens, and indexes of integers: how many values there are.
    untold: BTreeMap<String, u64>,
    /// Indexes that have rows or documents without a token: how many.
    without_tokens: BTreeMap<String, u64>,
    /// What may be wrong with the header of the source that is looked at.
    hint_at_header: Option<&'static str>,
    /// What was not looked at to its end.
    failed: Vec<Failed>,
    /// Documents and messages in which no field selects anything.
    unmatched: u64,
    pass_unmatched: bool,
    /// Of HL7 messages: by place that no field has, and what is wrong.
    elsewhere: BTreeMap<(String, &'static str), u64>,
    /// Fields and segments of HL7 messages that stay in clear, where the policy has no list of them.
    clear_columns: BTreeSet<String>,
    /// With --clear: by source, places that the policy names for nothing, and how many values stand there in clear.
    clear: Option<Vec<(String, BTreeMap<String, u64>)>>,
    /// By name, what stands in the columns of indexes of the source that is looked at.
    spreads: BTreeMap<String, Seen>,
    /// Fields of which a source has nothing, and may have nothing.
    absent: Vec<(String, String)>,
    /// Fields of which a source should have something, and what is wrong: perhaps a column has another name.
    missing: Vec<(String, String, String)>,
}

/// A source that was not looked at to its end.
struct Failed {
    source: String,
    code: u8,
    error: String,
}

/// Integers of an index.
struct Seen {
    index: IndexPolicy,
    column: String,
    spread: Spread,
    /// Where the least of them is, if it is tiny.
    least_at: String,
}

/// Adds the hints of a value that no field has.
fn add_hints(text: &str, hints: Option<&Hints>, found: &mut Found, place: impl Fn() -> String) {
    if judge::is_sealed(text) {
        return;
    }
    for what in hints.into_iter().flat_map(|hints| hints.of(text)) {
        found.hint(what, &place);
    }
}

impl Found {
    fn new(args: &Scan) -> Self {
        Self {
            source: String::new(),
            sealed: 0,
            findings: BTreeMap::new(),
            hints: BTreeMap::new(),
            places: Vec::new(),
            max_places: args.places,
            untold: BTreeMap::new(),
            without_tokens: BTreeMap::new(),
            hint_at_header: None,
            failed: Vec::new(),
            unmatched: 0,
            pass_unmatched: args.pass_unmatched,
            elsewhere: BTreeMap::new(),
            clear_columns: BTreeSet::new(),
            clear: args.clear.then(Vec::new),
            spreads: BTreeMap::new(),
            absent: Vec::new(),
            missing: Vec::new(),
        }
    }

    fn begin(&mut self, source: &str) {
        source.clone_into(&mut self.source);
        self.hint_at_header = None;
        if let Some(clear) = &mut self.clear {
            clear.push((source.to_owned(), BTreeMap::new()));
        }
    }

    /// What can be said of a source once all of it has been seen, or as much as there was before it failed. The others are looked at all the same, unless somebody
    /// has interrupted.
    fn end(&mut self, scanned: Result<(), Failure>) -> Result<(), Failure> {
        for (name, Seen { index, column, spread, least_at }) in std::mem::take(&mut self.spreads) {
            let many = spread.too_small(&index).map(|small| (small, format!("column or member {column:?}")));
            if let Some((values, place)) = many.or_else(|| Some((spread.impossible(&index)?, least_at))) {
                *self.findings.entry((name.clone(), judge::TOO_SMALL)).or_default() += values;
                self.add_place(|| place, || format!("{name}: {}", judge::TOO_SMALL));
            }
        }
        let Err(failure) = scanned else { return Ok(()) };
        if failure.is_interruption() || self.source.is_empty() {
            // Of a table that cannot be opened nothing was looked at.
            return Err(failure);
        }
        // What was found is on standard output, and has the failure as well.
        let _ = writeln!(stderr(), "keyfold: {failure}");
        self.failed.push(Failed { source: self.source.clone(), code: failure.code, error: failure.to_string() });
        Ok(())
    }

    fn add(&mut self, field: &str, what: &'static str, place: impl FnOnce() -> String) {
        *self.findings.entry((field.to_owned(), what)).or_default() += 1;
        self.add_place(place, || format!("{field}: {what}"));
    }

    /// Something in a message that is of no field.
    fn elsewhere(&mut self, path: &str, what: &'static str, place: impl FnOnce() -> String) {
        let key = (path.to_owned(), what);
        let is_shown = self.elsewhere.len() < MAX_ELSEWHERE || self.elsewhere.contains_key(&key);
        let key = if is_shown { key } else { (OTHER_PLACES.to_owned(), what) };
        *self.elsewhere.entry(key).or_default() += 1;
        self.add_place(place, || what.to_owned());
    }

    fn judged(&mut self, verdict: Verdict, field: &str, place: impl FnOnce() -> String) {
        match verdict {
            Verdict::Empty => {}
            Verdict::Sealed => self.sealed += 1,
            Verdict::Untold => *self.untold.entry(field.to_owned()).or_default() += 1,
            Verdict::Wrong(what) => self.add(field, what, place),
        }
    }

    /// What stands in the column or member of an index: its tokens, or something else.
    fn tokens(&mut self, of: &Indexed<'_>, tokens: Option<Vec<Token>>, place: impl Fn() -> String) {
        let Some(tokens) = tokens else { return self.add(&of.name, judge::NOT_OF_INDEX, place) };
        if tokens.is_empty() {
            *self.without_tokens.entry(of.name.clone()).or_default() += 1;
        }
        for token in tokens {
            *self.untold.entry(of.name.clone()).or_default() += 1;
            let Token::Integer(number) = token else { continue };
            let seen = self.spreads.entry(of.name.clone()).or_insert_with(|| Seen {
                index: of.policy.clone(),
                column: of.column.to_owned(),
                spread: Spread::default(),
                least_at: String::new(),
            });
            if seen.spread.add(of.policy, number) {
                seen.least_at = place();
            }
        }
    }

    /// A value that no field of the policy selects.
    fn in_clear(&mut self, place: &str, text: &str) {
        let Some((_, places)) = self.clear.as_mut().and_then(|clear| clear.last_mut()) else { return };
        if text.is_empty() || judge::is_sealed(text) {
            return;
        }
        if let Some(n) = places.get_mut(place) {
            *n += 1;
            return;
        }
        let is_shown = places.len() < MAX_ELSEWHERE && place.len() <= MAX_PLACE_LEN;
        *places.entry(if is_shown { place } else { OTHER_PLACES }.to_owned()).or_default() += 1;
    }

    fn hint(&mut self, what: &'static str, place: impl FnOnce() -> String) {
        *self.hints.entry(what).or_default() += 1;
        self.add_place(place, || format!("hint: {what}"));
    }

    fn add_place(&mut self, place: impl FnOnce() -> String, what: impl FnOnce() -> String) {
        if self.places.len() < self.max_places {
            self.places.push((self.source.clone(), place(), what()));
        }
    }

    /// A source has nothing of a field, which is what protecting refuses if the field applied to something in it and is not optional.
    fn absent(&mut self, field: &FieldPolicy, applied: bool) {
        match applied && !field.optional {
            true => {
                let another = "perhaps a column or member has another name";
                let perhaps = self.hint_at_header.unwrap_or(another);
                self.missing(&field.name, format!("nothing of it is there, and it is not optional: {perhaps}"));
            }
            false => self.absent.push((self.source.clone(), field.name.clone())),
        }
    }

    fn missing(&mut self, field: &str, what: String) {
        self.missing.push((self.source.clone(), field.to_owned(), what));
    }

    fn is_sealed(&self) -> bool {
        self.findings.is_empty() && self.elsewhere.is_empty()
    }

    fn has_nothing_wrong(&self) -> bool {
        self.is_sealed() && self.missing.is_empty() && (self.unmatched == 0 || self.pass_unmatched)
    }

    fn is_ok(&self) -> bool {
        self.has_nothing_wrong() && self.failed.is_empty()
    }

    /// How many values of which fields and indexes nobody can tell from values in clear.
    fn untold(&self) -> Option<String> {
        const NAMED: usize = 3;
        let mut of: Vec<String> =
            self.untold.iter().take(NAMED).map(|(name, n)| format!("{n} of {}", Printable(name))).collect();
        let others = self.untold.iter().skip(NAMED);
        if others.len() > 0 {
            of.push(format!("{} of {} others", others.clone().map(|(_, n)| n).sum::<u64>(), others.len()));
        }
        (!of.is_empty()).then(|| format!("cannot be told from values in clear: {}", of.join(", ")))
    }

    fn json(&self) -> Json {
        let findings =
            self.findings.iter().map(|((field, what), n)| json!({ "field": field, "what": what, "values": n }));
        let places =
            self.places.iter().map(|(source, place, what)| json!({ "source": source, "place": place, "what": what }));
        let absent = self.absent.iter().map(|(source, field)| json!({ "source": source, "field": field }));
        let missing = self.missing.iter();
        let missing = missing.map(|(source, field, what)| json!({ "source": source, "field": field, "what": what }));
        let elsewhere = self.elsewhere.iter();
        let elsewhere = elsewhere.map(|((place, what), n)| json!({ "place": place, "what": what, "values": n }));
        let clear = self.clear.iter().flatten().flat_map(|(source, places)| {
            places.iter().map(move |(place, n)| json!({ "source": source, "place": place, "values": n }))
        });
        let failed = self.failed.iter();
        let failed =
            failed.map(|Failed { source, code, error }| json!({ "source": source, "code": code, "error": error }));
        json!({
            "ok": self.is_ok(), "sealed": self.sealed, "findings": findings.collect::<Vec<_>>(), "hints": self.hints,
            "places": places.collect::<Vec<_>>(), "unmatched": self.unmatched, "absent": absent.collect::<Vec<_>>(),
            "missing": missing.collect::<Vec<_>>(),
            "failed": failed.collect::<Vec<_>>(), "without_tokens": self.without_tokens,
            "untold": self.untold.keys().collect::<Vec<_>>(), "untold_values": self.untold, "clear": clear.collect::<Vec<_>>(), "elsewhere": elsewhere.collect::<Vec<_>>(), "clear_columns": self.clear_columns,
        })
    }

    fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        for (source, place, what) in &self.places {
            writeln!(out, "{}: {place}: {}", Printable(source), Printable(what))?;
        }
        for ((field, what), n) in &self.findings {
            writeln!(out, "field {}: {} {what}", Printable(field), values_are(*n))?;
        }
        for ((place, what), n) in &self.elsewhere {
            writeln!(out, "{}: {} {what}", Printable(place), values_are(*n))?;
        }
        for (what, n) in &self.hints {
            writeln!(out, "hint: {n} other values look like {what}")?;
        }
        for (source, places) in self.clear.iter().flatten() {
            for (place, n) in places {
                writeln!(out, "{}: in clear: {}: {n}", Printable(source), Printable(place))?;
            }
        }
        for (source, field, what) in &self.missing {
            writeln!(out, "{}: field {}: {}", Printable(source), Printable(field), Printable(what))?;
        }
        for absent in self.absent.chunk_by(|(source, _), (next, _)| source == next) {
            let fields =
                if absent.len() == 1 { "1 field that is" } else { &format!("{} fields that are", absent.len()) };
            let source = Printable(&absent[0].0);
            writeln!(out, "note: {source}: nothing of {fields} optional or did not apply (--json names them)")?;
        }
        for field in self.untold.keys() {
            writeln!(
                out,
                "note: field {}: values keep their format, or have that of tokens: one by one nobody can tell them from such values in clear",
                Printable(field)
            )?;
        }
        for (index, n) in &self.without_tokens {
            let rows = if *n == 1 { "1 row or document has" } else { &format!("{n} rows or documents have") };
            writeln!(
                out,
                "note: {}: {rows} no token of it, as of a value that is empty: no search by it finds them",
                Printable(index)
            )?;
        }
        if !self.clear_columns.is_empty() {
            let names: Vec<String> = self.clear_columns.iter().map(|name| format!("{name:?}")).collect();
            writeln!(out, "note: in clear: {}; [hl7] of the policy has no list of what may be", names.join(", "))?;
        }
        if self.unmatched > 0 {
            let documents = if self.unmatched == 1 { "document or message" } else { "documents or messages" };
            let what = format!("no field of the policy selects anything in {} {documents}", self.unmatched);
            match self.pass_unmatched {
                true => writeln!(out, "note: {what}")?,
                false => writeln!(out, "{what}; --pass-unmatched would pass them")?,
            }
        }
        let verdict = match () {
            () if !self.is_sealed() => "DATA IS NOT SEALED",
            () if !self.missing.is_empty() => "A FIELD IS NOT THERE",
            () if !self.has_nothing_wrong() => "DOCUMENTS ARE AS THEY WERE",
            () if !self.failed.is_empty() => "NOT EVERYTHING WAS LOOKED AT",
            () => "nothing is in clear that the policy names",
        };
        for Failed { source, .. } in &self.failed {
            writeln!(out, "{}: not looked at to its end", Printable(source))?;
        }
        let untold = self.untold().map(|untold| format!("; {untold}")).unwrap_or_default();
        writeln!(out, "{} values are sealed; {verdict}{untold}", self.sealed)
    }
}
