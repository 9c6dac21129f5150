//! `keyfold index advise`: reads how often each value occurs, and says what that means. Values are counted by a salted hash, and never shown.

use super::advice::{Column, Figures, Histogram};
use crate::args::{IndexAdvise, Kind};
use crate::failure::{Exit, Failure};
use crate::files::csv::{CsvBatch, CsvOptions, CsvSource, DEFAULT_MAX_FIELD_LEN, MAX_ROW_LEN};
use crate::print_failed;
use crate::transform::{Input, other_delimiter};
use clap::ValueEnum;
use keyfold::wire::{BODY_TEXT_PREFIX, TEXT_PREFIX, body_from_text, from_text};
use keyfold::{DatePart, IndexKind, IndexPolicy, PhoneRule, Value};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::process::ExitCode;

/// Bits that are always looked at.
const USUAL: [u16; 10] = [4, 6, 8, 10, 12, 14, 16, 20, 24, 63];

/// What was read.
#[derive(Default)]
struct Read {
    /// For each token that a row has: of prefixes one per length.
    counts: Vec<HashMap<[u8; 16], u64>>,
    /// Rows without a value to find.
    empty: u64,
    /// Rows whose value the kind refuses.
    refused: u64,
}

pub(crate) fn advise(args: &IndexAdvise, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let index = IndexPolicy::new("advised", kind(args)?, 1);
    index.check().map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let is_wrong = |bits: &u16| !(1..=IndexPolicy::MAX_INTEGER).contains(bits) && *bits != IndexPolicy::FULL;
    if let Some(bits) = args.bits.iter().copied().find(is_wrong) {
        return Err(Failure::new(Exit::Usage, format!("--bits {bits}: an index has 1 to 63 bits, or 256")));
    }
    let read = read(args, &index)?;
    let histograms = read.counts.iter().map(|counts| Histogram::new(counts.values().copied()));
    let max_bits = if args.kind == Kind::Prefix { IndexPolicy::MAX_PREFIX } else { IndexPolicy::FULL };
    let column = Column::new(histograms.collect(), max_bits);
    let histogram = column.coarsest();
    if histogram.rows() == 0 {
        let said = format!("no row has a value to find: {} empty, {}", read.empty, refused(args, &read));
        return Err(Failure::new(Exit::Data, said));
    }
    if let (Some(why), false) = (histogram.refusal(), args.force) {
        let more = match read.refused {
            0 => String::new(),
            _ => format!("; {}", refused(args, &read).replacen("refused", "more rows are refused", 1)),
        };
        let said = format!(
            "{why} ({} rows, {} distinct values, {:.1} bits of entropy, {:.1} % of the rows with the commonest{more}); --force advises all the same",
            histogram.rows(),
            histogram.distinct(),
            histogram.entropy(),
            100.0 * histogram.top_share()
        );
        return Err(Failure::new(Exit::Policy, said));
    }
    let recommended = column.recommended(args.other_bits);
    let bits: BTreeSet<u16> = USUAL.into_iter().chain(args.bits.iter().copied()).chain([recommended]).collect();
    let figures: Vec<Figures> =
        bits.into_iter().filter(|bits| (1..=max_bits).contains(bits)).map(|bits| column.figures(bits)).collect();
    let text = if args.json {
        to_json(args, &column, &read, recommended, &figures).to_string()
    } else {
        to_text(args, &column, &read, recommended, &figures)
    };
    writeln!(out, "{text}").map_err(print_failed)?;
    Ok(ExitCode::SUCCESS)
}

/// How many rows have a value that the kind refuses, and why that may be.
fn refused(args: &IndexAdvise, read: &Read) -> String {
    let kind = args.kind.to_possible_value().map_or_else(String::new, |kind| kind.get_name().to_owned());
    let hint = match args.kind {
        Kind::Phone if args.country_code.is_none() => " (--country-code says what numbers without one get)",
        _ => "",
    };
    format!("{} refused by the kind {kind}{hint}", read.refused)
}

fn to_json(args: &IndexAdvise, column: &Column, read: &Read, recommended: u16, figures: &[Figures]) -> Json {
    let histogram = column.coarsest();
    let lines: Vec<Json> = figures
        .iter()
        .map(|line| {
            let mut json = json!({
                "bits": line.bits, "false_matches": worst(line), "guessed": line.guessed, "told": line.told,
            });
            if args.kind == Kind::Prefix {
                json["by_length"] = json!(line.false_matches);
            }
            json
        })
        .collect();
    let mut json = json!({
        "rows": histogram.rows(), "distinct": histogram.distinct(), "empty": read.empty, "refused": read.refused,
        "entropy": histogram.entropy(), "top_share": histogram.top_share(), "matches": histogram.matches(),
        "unique": column.is_unique(), "allowed_bits": column.allowed_bits(args.other_bits), "recommended": recommended, "bits": lines,
    });
    if args.kind == Kind::Prefix {
        let of_length = |(length, of): (&u8, &Histogram)| json!({ "length": length, "distinct": of.distinct(), "matches": of.matches() });
        json["lengths"] = lengths(args).iter().zip(column.histograms()).map(of_length).collect();
    }
    json
}

/// Of prefixes of several lengths a query for the longest has the most.
fn worst(line: &Figures) -> f64 {
    line.false_matches.iter().copied().fold(0.0, f64::max)
}

fn to_text(args: &IndexAdvise, column: &Column, read: &Read, recommended: u16, figures: &[Figures]) -> String {
    let histogram = column.coarsest();
    let mut text = format!(
        "{} rows with a value, {} distinct; {} without, {} refused\n\
         entropy {:.1} bits; the commonest value has {:.4} % of the rows; a query finds {:.2} rows with its value\n",
        histogram.rows(),
        histogram.distinct(),
        read.empty,
        read.refused,
        histogram.entropy(),
        100.0 * histogram.top_share(),
        histogram.matches()
    );
    if column.histograms().len() > 1 {
        text.push_str(&format!(
            "these are of prefixes of {} characters; each row has one token per length:\n",
            lengths(args)[0]
        ));
        for (length, of) in lengths(args).iter().zip(column.histograms()) {
            let (distinct, matches) = (of.distinct(), of.matches());
            text.push_str(&format!(
                "  {length} characters: {distinct} distinct; a query finds {matches:.2} rows with its prefix\n"
            ));
        }
    }
    text.push_str("\nbits   false matches per query   rows guessed right   rows told by frequency\n");
    for line in figures {
        let mark = if line.bits == recommended { "  <- recommended" } else { "" };
        text.push_str(&format!(
            "{:4}   {:23.2}   {:16.3} %   {:20.3} %{mark}\n",
            line.bits,
            worst(line),
            100.0 * line.guessed,
            100.0 * line.told
        ));
    }
    let allowed = column.allowed_bits(args.other_bits);
    text.push_str(&match recommended {
        0 => "\nno index: the rows are too few, or other indexes show as much of them as may be shown".to_owned(),
        _ if column.is_unique() => {
            "\nnearly every value is unique: full width, 63 bits or 256, shows which rows are equal, which few are; so it is if this was the whole \
             table, and no sample of it"
                .to_owned()
        }
        _ => format!("\nall indexes of the table that are not of full width may show {allowed} bits more together"),
    });
    text
}

/// Of prefixes, ascending.
fn lengths(args: &IndexAdvise) -> Vec<u8> {
    args.length.iter().copied().collect::<BTreeSet<u8>>().into_iter().collect()
}

fn kind(args: &IndexAdvise) -> Result<IndexKind, Failure> {
    let usage = |why: &str| Err(Failure::new(Exit::Usage, why));
    let given = [
        (args.part.is_some(), Kind::DatePart, "--part is for --kind date-part"),
        (!args.length.is_empty(), Kind::Prefix, "--length is for --kind prefix"),
        (args.country_code.is_some(), Kind::Phone, "--country-code is for --kind phone"),
        (args.international_prefix.is_some(), Kind::Phone, "--international-prefix is for --kind phone"),
    ];
    if let Some((_, _, why)) = given.iter().find(|(given, kind, _)| *given && *kind != args.kind) {
        return usage(why);
    }
    Ok(match args.kind {
        Kind::Exact => IndexKind::Exact,
        Kind::CaseFolded => IndexKind::CaseFolded,
        Kind::Digits => IndexKind::Digits,
        Kind::Date => IndexKind::Date,
        Kind::DatePart => match DatePart::ALL.into_iter().find(|part| args.part.as_deref() == Some(part.name())) {
            Some(part) => IndexKind::DatePart(part),
            None => return usage("--kind date-part needs --part"),
        },
        Kind::Phone => IndexKind::Phone(PhoneRule {
            country_code: args.country_code.clone(),
            trunk_prefix: args.trunk_prefix.clone(),
            international_prefix: args.international_prefix.clone(),
        }),
        Kind::Prefix => match &lengths(args)[..] {
            [] => return usage("--kind prefix needs --length"),
            lengths => IndexKind::Prefix(lengths.to_vec()),
        },
    })
}

fn read(args: &IndexAdvise, index: &IndexPolicy) -> Result<Read, Failure> {
    let columns: Vec<String> = [Some(&args.column), args.count.as_ref()].into_iter().flatten().cloned().collect();
    let options = CsvOptions {
        delimiter: args.delimiter,
        columns: columns.clone(),
        max_field_len: DEFAULT_MAX_FIELD_LEN,
        max_row_len: MAX_ROW_LEN,
    };
    let mut source = CsvSource::new(Input::open(&args.input)?, options)?;
    let positions: Vec<usize> = columns
        .iter()
        .zip(source.positions())
        .map(|(name, position)| {
            position.ok_or_else(|| {
                let failure = Failure::new(
                    Exit::Usage,
                    format!("the input has no column {name:?}: it is read as CSV with a header, whatever its name"),
                );
                match other_delimiter(source.header()) {
                    Some(hint) => failure.add(hint),
                    None => failure,
                }
            })
        })
        .collect::<Result<_, _>>()?;
    // So that what is in memory, or swapped out, is no list of values.
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|error| Failure::new(Exit::System, format!("no random numbers: {error}")))?;
    let mut read = Read { counts: vec![HashMap::new(); index.tokens_per_value()], ..Read::default() };
    while let Some(batch) = source.next_batch()? {
        for row in 0..batch.rows() {
            let rows = match positions.get(1) {
                Some(&column) => count(&batch, row, column)?,
                None => 1,
            };
            let text = batch.text(row, positions[0])?;
            if is_sealed(text) {
                let why = "the value is sealed, and sealed values differ where values in clear do not: give the column in clear";
                return Err(Failure::new(Exit::Data, why).at(batch.place(row, positions[0])));
            }
            match index.normal_forms(&Value::Text(text)) {
                Err(_) => read.refused += rows,
                Ok(forms) => match forms.first() {
                    None => read.empty += rows,
                    // An exact index has a token for the empty text; it tells that there is nothing.
                    Some(_) if batch.cell(row, positions[0]).is_empty() => read.empty += rows,
                    Some(_) => {
                        for (form, counts) in forms.iter().zip(&mut read.counts) {
                            let digest: [u8; 32] =
                                Sha256::new().chain_update(salt).chain_update(&form[..]).finalize().into();
                            *counts.entry(digest.first_chunk().copied().unwrap_or_default()).or_default() += rows;
                        }
                    }
                },
            }
        }
    }
    Ok(read)
}

/// Whether a text ends with a sealed value, which may be behind a prefix in clear.
fn is_sealed(text: &str) -> bool {
    let sealed_from = |prefix: &str| text.find(prefix).map(|start| &text.as_bytes()[start..]);
    sealed_from(TEXT_PREFIX).is_some_and(|rest| from_text(rest, &mut Vec::new()).is_ok())
        || sealed_from(BODY_TEXT_PREFIX).is_some_and(|rest| body_from_text(rest, &mut Vec::new()).is_ok())
}

fn count(batch: &CsvBatch, row: usize, column: usize) -> Result<u64, Failure> {
    let number = batch.text(row, column)?.trim().parse().ok().filter(|count| *count <= 1 << 40);
    number.ok_or_else(|| Failure::new(Exit::Data, "the cell is no number of rows").at(batch.place(row, column)))
}
