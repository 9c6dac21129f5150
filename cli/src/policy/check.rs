//! `keyfold policy check`: every column that is classified has a rule, and one that is strong enough.

use super::documents;
use super::schema::{self, At, Classified, Schema};
use super::strength::{Rule, weaknesses};
use crate::args::PolicyCheck;
use crate::failure::{Exit, Failure, Printable};
use crate::print_failed;
use keyfold::{DatePart, FieldMode, FieldPolicy, IndexKind, IndexPolicy, Policy};
use keyfold_documents::Coverage;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// What is wrong with a column.
struct Finding {
    name: &'static str,
    place: String,
    what: String,
}

/// Prints what is wrong. Ends with 3 if anything is.
pub(crate) fn check(args: &PolicyCheck, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let policy = super::read(&args.rules)?;
    let baseline =
        args.baseline.as_ref().map(|file| keyfold_open::read_policies(std::slice::from_ref(file))).transpose();
    let baseline = baseline.map_err(Failure::of_opening)?;
    let tables = args.database.as_ref().map(|uri| keyfold_tables::columns(uri, Path::new("."))).transpose()?;
    let schema = match (&args.schema, &tables) {
        (Some(file), _) => Schema::read(file)?,
        (None, Some(tables)) => Schema::guess(tables),
        (None, None) => return Err(Failure::new(Exit::Usage, "--schema or --database")),
    };
    let mut findings: Vec<Finding> =
        schema.classified.iter().flat_map(|column| judge(column, &policy, baseline.as_ref())).collect();
    findings.extend(baseline.iter().flat_map(|baseline| judge_documents(&policy, baseline)));
    findings.extend(policy.fields().flat_map(|field| few_values(field)));
    let mut notes = notes(&policy, &schema);
    if let Some(tables) = &tables {
        let (unclassified, missing) = schema.compare(tables);
        let is_known = |place: &String| {
            let column = place.split_once('.').map(|(_, column)| column);
            column.is_some_and(|column| is_named(column, &policy, args.schema.is_some()))
        };
        let unclassified: Vec<_> = unclassified.into_iter().filter(|place| !is_known(place)).collect();
        match args.guess_only {
            true => notes.extend(unclassified.iter().map(|place| format!("{place}: its name says nothing; nobody has looked"))),
            false => findings.extend(unclassified.into_iter().map(|place| Finding {
                name: "unclassified",
                place,
                what: match args.schema {
                    Some(_) => "the schema file says nothing of this column: classify it, or list it under clear",
                    None => "its name says nothing of what it holds: write a schema file, or take the guess alone (--guess-only)",
                }
                .to_owned(),
            })),
        }
        notes.extend(missing.into_iter().map(|place| format!("{place}: the database has no such column")));
    }
    if schema.classified.is_empty() {
        let what = "nothing is classified as an identifier: is the schema file empty, or made wrongly?".to_owned();
        findings.push(Finding { name: "empty", place: "schema".to_owned(), what });
    }
    let idle = idle(&policy, &schema);
    notes.splice(0..0, notes_of_idle(&idle, &schema));
    let ok = findings.is_empty();
    if args.json {
        let list = findings
            .iter()
            .map(|finding| json!({ "name": finding.name, "place": finding.place, "what": finding.what }));
        let list: Vec<Json> = list.collect();
        let idle: Vec<&str> = idle.iter().map(|field| &*field.name).collect();
        let said =
            json!({ "ok": ok, "classified": schema.classified.len(), "findings": list, "notes": notes, "idle": idle });
        writeln!(out, "{said}").map_err(print_failed)?;
    } else {
        print(&findings, &notes, schema.classified.len(), out).map_err(print_failed)?;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::from(Exit::Policy as u8) })
}

fn print(findings: &[Finding], notes: &[String], classified: usize, out: &mut impl Write) -> std::io::Result<()> {
    for Finding { name, place, what } in findings {
        writeln!(out, "{}: {name}: {}", Printable(place), Printable(what))?;
    }
    for note in notes {
        writeln!(out, "note: {}", Printable(note))?;
    }
    writeln!(out, "{classified} columns and paths are classified; {} findings", findings.len())
}

/// What is wrong with one column.
fn judge(column: &Classified, policy: &Policy, baseline: Option<&Policy>) -> Vec<Finding> {
    let finding = |name, what| Finding { name, place: column.place.clone(), what };
    let class =
        format!("({}) {}{}", column.class, column.class.title(), if column.guessed { ", by its name" } else { "" });
    let rules = rules(column, policy);
    if rules.is_empty() {
        let what = match &column.field {
            Some(field) => format!("{class}: the policy has no field {field}"),
            None => format!("{class}: no rule, so it is in clear"),
        };
        return vec![finding("no-rule", what)];
    }
    let mut found = Vec::new();
    let is_whole = rules.iter().any(|rule| holds(rule, &column.at) || is_of_index(rule, &column.at));
    if let (At::Path(at, _), false) = (&column.at, is_whole) {
        let parts: Vec<_> = rules.iter().flat_map(|rule| parts(rule, &column.at)).collect();
        found.push(match (&parts[..], &column.field) {
            ([], Some(field)) => finding("elsewhere", format!("{class}: field {field} has no path that leads here")),
            _ => {
                let why = "what they leave is in clear; classify the parts one by one";
                finding("in-parts", format!("{class}: of {at} there are rules for {} alone: {why}", parts.join(", ")))
            }
        });
    }
    for rule in rules {
        // A guess is no reason to doubt what the policy says.
        match rule.identifier {
            // Nor is one class for parts that may have several.
            Some(other) if other != column.class && !column.guessed && (is_whole || column.field.is_some()) => {
                found.push(finding("other-class", format!("field {} says ({other}), the schema {class}", rule.name)));
            }
            _ => {}
        }
        for bar in baseline.iter().flat_map(|baseline| bars(column, rule, baseline)) {
            let weaker = weaknesses(Rule { field: rule, policy }, bar).into_iter();
            found.extend(
                weaker.map(|what| finding("weaker", format!("field {} against {}: {what}", rule.name, bar.field.name))),
            );
        }
    }
    found
}

/// Kinds of documents that are weaker than those of the baseline.
fn judge_documents(policy: &Policy, baseline: &Policy) -> Vec<Finding> {
    let mut found = Vec::new();
    for kind in policy.documents() {
        for bar in documents::bars(kind, baseline) {
            let weaker = documents::weaknesses(kind, bar).into_iter();
            found.extend(weaker.map(|what| Finding {
                name: "weaker",
                place: format!("documents {}", kind.name),
                what: format!("against {} of the baseline: {what}", bar.name),
            }));
        }
    }
    found
}

/// Indexes of what has few values, by the kind or by the names of the field: whoever sees the table reads them from how often each token is there.
fn few_values(field: &FieldPolicy) -> Vec<Finding> {
    let names = [&field.name].into_iter().chain(&field.columns).chain(&field.paths).chain(&field.segments);
    let is_named = names.into_iter().any(|name| schema::has_few_values(name));
    let is_few = |index: &&IndexPolicy| {
        !index.few_values && (is_named || matches!(index.kind, IndexKind::DatePart(DatePart::Year)))
    };
    let finding = |index: &IndexPolicy| Finding {
        name: "few-values",
        place: format!("field {}", field.name),
        what: format!(
            "index {}: few values, which the frequencies of its tokens tell; keyfold index advise counts them, few_values = true accepts it",
            index.name
        ),
    };
    field.indexes.iter().filter(is_few).map(finding).collect()
}

/// The rules that hold for a column: for its values, or where it is that of an index, for what its tokens are of. For a path that no rule holds for as a
/// whole, those for parts of it.
fn rules<'p>(column: &Classified, policy: &'p Policy) -> Vec<&'p FieldPolicy> {
    if let Some(field) = &column.field {
        return policy.field(field).map(|field| &**field).into_iter().collect();
    }
    let all = || policy.fields().map(|field| &**field);
    let whole: Vec<_> = all().filter(|field| holds(field, &column.at) || is_of_index(field, &column.at)).collect();
    if whole.is_empty() { all().filter(|field| !parts(field, &column.at).is_empty()).collect() } else { whole }
}

/// Whether a field seals what is there, by itself or with something that it is in.
pub(super) fn holds(field: &FieldPolicy, at: &At) -> bool {
    match at {
        At::Column(name) => field.columns.contains(name),
        At::Path(path, only_if) => {
            let covers = |known: &String| Coverage::of(path, known) == Coverage::All;
            field.paths.iter().any(covers) && is_met(&field.only_if, only_if)
        }
        At::Segment(path) => {
            let is_in = |known: &String| path.strip_prefix(known.as_str()).is_some_and(|rest| rest.starts_with('.'));
            field.segments.iter().any(|known| known == path || is_in(known))
        }
    }
}

/// Whether a field that holds what is there seals it with something that it is in alone, or by its parts.
pub(super) fn holds_otherwise(field: &FieldPolicy, at: &At) -> bool {
    match at {
        At::Column(_) => false,
        At::Path(path, _) => !field.paths.iter().any(|known| Coverage::is_same(path, known)),
        At::Segment(path) => !field.segments.contains(path),
    }
}

/// Whether an index of the field has its tokens there, beside the values: they are no values in clear.
fn is_of_index(field: &FieldPolicy, at: &At) -> bool {
    let columns = || field.indexes.iter().filter_map(|index| index.column.as_deref());
    match at {
        At::Column(name) => columns().any(|column| column == name),
        At::Path(path, only_if) => {
            let is_member = |column: &str| Coverage::of(path, &format!("$['{column}']")) == Coverage::All;
            !field.paths.is_empty() && columns().any(is_member) && is_met(&field.only_if, only_if)
        }
        At::Segment(_) => false,
    }
}

/// The paths of the field that lead to a part of what is there, and not to all of it.
fn parts(field: &FieldPolicy, at: &At) -> Vec<String> {
    let At::Path(path, only_if) = at else { return Vec::new() };
    let is_part = |known: &&String| Coverage::of(path, known) == Coverage::Parts;
    let paths = field.paths.iter().filter(is_part).filter(|_| is_met(&field.only_if, only_if));
    // A long path may go over several lines.
    paths.map(|path| path.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn is_met(needed: &BTreeMap<String, String>, given: &BTreeMap<String, String>) -> bool {
    needed.iter().all(|(path, value)| given.get(path) == Some(value))
}

/// The rules of the baseline that a rule is held to: of the same name or place, or else of the same class.
fn bars<'b>(column: &Classified, rule: &FieldPolicy, baseline: &'b Policy) -> Vec<Rule<'b>> {
    let all = || baseline.fields().map(|field| Rule { field, policy: baseline });
    let near: Vec<_> = all().filter(|bar| bar.field.name == rule.name || holds(bar.field, &column.at)).collect();
    if near.is_empty() { all().filter(|bar| bar.field.identifier == Some(column.class)).collect() } else { near }
}

/// Whether nobody has to classify a column: it has the tokens of an index; or there is no schema file, and the policy names it for a field.
fn is_named(column: &str, policy: &Policy, has_schema: bool) -> bool {
    let at = At::Column(column.to_owned());
    policy.fields().any(|field| is_of_index(field, &at) || !has_schema && holds(field, &at))
}

/// Fields with an identifier that no column of the schema has: they may be of another place, or a name has changed.
fn idle<'p>(policy: &'p Policy, schema: &Schema) -> Vec<&'p FieldPolicy> {
    let is_known = |field: &FieldPolicy| {
        let is_its = |column: &Classified| holds(field, &column.at) || !parts(field, &column.at).is_empty();
        schema.classified.iter().any(|column| column.field.as_ref() == Some(&field.name) || is_its(column))
    };
    policy.fields().map(|field| &**field).filter(|field| field.identifier.is_some() && !is_known(field)).collect()
}

/// A note for each of these fields; one for all that are optional, that apply to some documents alone, or of whose kind of places the schema has none.
fn notes_of_idle(idle: &[&FieldPolicy], schema: &Schema) -> Vec<String> {
    let has = |is_kind: fn(&At) -> bool| schema.classified.iter().any(|column| is_kind(&column.at));
    let (has_columns, has_paths) = (has(|at| matches!(at, At::Column(_))), has(|at| matches!(at, At::Path(..))));
    let is_expected = |field: &&FieldPolicy| {
        let may_be_there = has_columns && !field.columns.is_empty() || has_paths && !field.paths.is_empty();
        field.optional || !field.only_if.is_empty() || !may_be_there
    };
    let (expected, others): (Vec<&FieldPolicy>, Vec<&FieldPolicy>) = idle.iter().copied().partition(is_expected);
    let mut notes: Vec<String> =
        others.iter().map(|field| format!("field {}: nothing that is classified is held by it", field.name)).collect();
    if !expected.is_empty() {
        let what = "nothing that is classified is held by them; they are optional, apply to some documents alone, or the schema has no such places";
        notes.push(format!("{} more fields: {what} (--json names them)", expected.len()));
    }
    notes
}

/// What a field shows, or lets others change, by the choice of its mode and its indexes.
fn notes(policy: &Policy, schema: &Schema) -> Vec<String> {
    let is_free = |field: &&Arc<FieldPolicy>| matches!(field.mode, FieldMode::FormatPreserving { .. });
    let free = policy.fields().filter(is_free).map(|field| {
        format!(
            "field {}: its values keep their format, and are NOT AUTHENTICATED: what was changed is not noticed",
            field.name
        )
    });
    let unchecked = policy.fields().filter(|field| field.has_unchecked_indexes()).map(|field| {
        format!(
            "field {}: without rows in its file nobody checks what the indexes of a table show together",
            field.name
        )
    });
    let on_its_word = schema.classified.iter().filter_map(|column| on_its_word(column, policy));
    let of_tokens = schema.classified.iter().filter_map(|column| of_tokens(column, policy));
    on_its_word.chain(of_tokens).chain(free).chain(unchecked).collect()
}

/// A column or member of an index: the policy says that tokens stand there, and only a look at the data whether they do.
fn of_tokens(column: &Classified, policy: &Policy) -> Option<String> {
    let field = policy.fields().find(|field| is_of_index(field, &column.at))?;
    let is_held = policy.fields().any(|field| holds(field, &column.at));
    (!is_held).then(|| {
        format!(
            "{}: that tokens of field {} stand there, and no values, is the policy's word: keyfold scan looks whether they have the form of tokens",
            column.place, field.name
        )
    })
}

/// A column of which the schema alone says that a field holds it: no policy names columns of SQL tables, so that only a look at the data can tell.
fn on_its_word(column: &Classified, policy: &Policy) -> Option<String> {
    let (At::Column(name), Some(field)) = (&column.at, &column.field) else { return None };
    let is_elsewhere =
        policy.field(field).is_some_and(|rule| !holds(rule, &column.at) && !is_of_index(rule, &column.at));
    is_elsewhere.then(|| {
        format!(
            "{}: that field {field} holds it is the schema's word: keyfold scan --sql … --field {field}={name} looks whether it is sealed",
            column.place
        )
    })
}
