//! `keyfold scan`: data in clear where the policy says sealed. Needs no key, and says places, never values.

mod files;
mod hints;
mod judge;
mod table;

use crate::args::Scan;
use crate::census::name_of;
use crate::failure::{Exit, Failure, Printable};
use crate::files::interrupt::Interrupt;
use crate::print_failed;
use hints::Hints;
use judge::Verdict;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::ExitCode;

/// Prints what was found. Ends with 4 if anything is in clear.
pub(crate) fn run(args: &Scan, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let policy = crate::policy::read(&args.rules)?;
    let interrupt =
        Interrupt::install().map_err(|error| Failure::new(Exit::System, format!("cannot handle signals: {error}")))?;
    let hints = args.patterns.then(Hints::new).transpose()?;
    let mut found = Found::new(args.places);
    match &args.columns.sql {
        Some(sql) => table::scan(args, sql, &policy, hints.as_ref(), &interrupt, &mut found)?,
        None => {
            for file in &args.files {
                found.begin(&name_of(file));
                files::scan(args, file, &policy, hints.as_ref(), &interrupt, &mut found)?;
            }
        }
    }
    if args.json {
        writeln!(out, "{}", found.json()).map_err(print_failed)?;
    } else {
        found.print(out).map_err(print_failed)?;
    }
    let bad = found.in_clear() > 0 || (args.strict && !found.hints.is_empty());
    Ok(if bad { ExitCode::from(Exit::Data as u8) } else { ExitCode::SUCCESS })
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
    /// Fields whose values keep their format.
    untold: BTreeSet<String>,
    /// Documents that no field applies to.
    unmatched: u64,
    /// Fields of which a source has nothing: perhaps a column has another name.
    absent: Vec<(String, String)>,
}

impl Found {
    fn new(max_places: usize) -> Self {
        Self {
            source: String::new(),
            sealed: 0,
            findings: BTreeMap::new(),
            hints: BTreeMap::new(),
            places: Vec::new(),
            max_places,
            untold: BTreeSet::new(),
            unmatched: 0,
            absent: Vec::new(),
        }
    }

    fn begin(&mut self, source: &str) {
        source.clone_into(&mut self.source);
    }

    fn add(&mut self, field: &str, what: &'static str, place: impl FnOnce() -> String) {
        *self.findings.entry((field.to_owned(), what)).or_default() += 1;
        self.add_place(place, || format!("{field}: {what}"));
    }

    fn judged(&mut self, verdict: Verdict, field: &str, place: impl FnOnce() -> String) {
        match verdict {
            Verdict::Empty => {}
            Verdict::Sealed => self.sealed += 1,
            Verdict::Untold => drop(self.untold.insert(field.to_owned())),
            Verdict::Wrong(what) => self.add(field, what, place),
        }
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

    fn absent(&mut self, field: &str) {
        self.absent.push((self.source.clone(), field.to_owned()));
    }

    fn in_clear(&self) -> u64 {
        self.findings.values().sum()
    }

    fn json(&self) -> Json {
        let findings =
            self.findings.iter().map(|((field, what), n)| json!({ "field": field, "what": what, "values": n }));
        let places =
            self.places.iter().map(|(source, place, what)| json!({ "source": source, "place": place, "what": what }));
        let absent = self.absent.iter().map(|(source, field)| json!({ "source": source, "field": field }));
        json!({
            "ok": self.findings.is_empty(), "sealed": self.sealed, "findings": findings.collect::<Vec<_>>(), "hints": self.hints,
            "places": places.collect::<Vec<_>>(), "unmatched": self.unmatched, "absent": absent.collect::<Vec<_>>(),
            "untold": self.untold,
        })
    }

    fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        for (source, place, what) in &self.places {
            writeln!(out, "{}: {place}: {}", Printable(source), Printable(what))?;
        }
        for ((field, what), n) in &self.findings {
            writeln!(out, "field {}: {n} values are {what}", Printable(field))?;
        }
        for (what, n) in &self.hints {
            writeln!(out, "hint: {n} other values look like {what}")?;
        }
        for (source, field) in &self.absent {
            writeln!(out, "note: {}: nothing of field {}", Printable(source), Printable(field))?;
        }
        for field in &self.untold {
            writeln!(
                out,
                "note: values of field {} keep their format: nobody can tell them from values in clear",
                Printable(field)
            )?;
        }
        if self.unmatched > 0 {
            writeln!(out, "note: no field applies to {} documents", self.unmatched)?;
        }
        let verdict =
            if self.findings.is_empty() { "nothing is in clear that the policy names" } else { "DATA IS NOT SEALED" };
        writeln!(out, "{} values are sealed; {verdict}", self.sealed)
    }
}
