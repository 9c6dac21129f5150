//! What a search finds for nothing, counted in a table of 100,000 patients, is what `keyfold index advise` says: on average over keys, for names and for
//! their starts. Counts only; the times are in cli/benches/lookup.rs.
//!
//! Under one key the figure varies. Its standard deviation is √(2 · 2^bits) · Σ p² of the advisor's, for shares p of the values (docs/LOOKUP.md): here 5.5 % of it for
//! names in 10 bits, about 1 % for starts in 5. The mean over 40 keys has a √40th of that, so that 10 % is more than ten standard deviations.

use crate::common::World;
use crate::tables::databases;
use keyfold::config::Config;
use keyfold::{Indexer, Token, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

const ROWS: usize = 100_000;
const KEYS: usize = 40;
const NAMES: usize = 5_000;
const TOLERANCE: f64 = 0.1;

/// Names, and how many patients have each: about as frequent as family names are.
fn names() -> Vec<(String, u64)> {
    let weights: Vec<f64> = (1..=NAMES as u32).map(|rank| f64::from(rank).powf(-0.65)).collect();
    let total: f64 = weights.iter().sum();
    let letters = |rank: usize| -> String {
        // Three syllables; frequent names do not start alike.
        let number = (rank * 7_919 + 13) % 1_000_000;
        let syllable = |of: usize| [char::from(b"bcdfghjklmnpqrstvwxz"[of % 100 / 5]), char::from(b"aeiou"[of % 5])];
        [number / 10_000, number / 100, number].into_iter().flat_map(syllable).collect()
    };
    weights
        .iter()
        .enumerate()
        .map(|(rank, weight)| (letters(rank), 1 + (ROWS as f64 * weight / total) as u64))
        .collect()
}

fn numbers(tokens: &[Token]) -> BTreeSet<i64> {
    let number = |token: &Token| match token {
        Token::Integer(number) => *number,
        Token::Bytes(_) => panic!("no index here has bytes"),
    };
    tokens.iter().map(number).collect()
}

/// Rows that a query for the start of `length` characters of a random patient's name finds for nothing, exactly.
fn false_matches(indexer: &Indexer, names: &[(String, u64)], length: usize) -> f64 {
    let (mut rows_of, mut asked) = (BTreeMap::<i64, u64>::new(), BTreeMap::<&str, u64>::new());
    for (name, count) in names {
        let tokens = numbers(&indexer.tokens(Value::Text(name)).expect("tokens"));
        tokens.into_iter().for_each(|token| *rows_of.entry(token).or_default() += count);
        *asked.entry(&name[..length]).or_default() += count;
    }
    let rows: u64 = names.iter().map(|(_, count)| count).sum();
    let of_query = |(start, count): (&&str, &u64)| {
        let found: u64 = numbers(&indexer.search_tokens(Value::Text(start)).expect("tokens"))
            .iter()
            .map(|token| rows_of[token])
            .sum();
        *count as f64 / rows as f64 * (found - count) as f64
    };
    asked.iter().map(of_query).sum()
}

// Failure T12
#[test]
fn a_search_finds_as_much_for_nothing_as_advised() {
    let world = World::new();
    let names = names();
    let rows: u64 = names.iter().map(|(_, count)| count).sum();
    assert!(rows >= ROWS as u64);
    let histogram: String = names.iter().map(|(name, count)| format!("{name},{count}\n")).collect();
    world.write("histogram.csv", format!("name,rows\n{histogram}"));
    let advised = |bits: u16, kind: &[&str]| -> Vec<f64> {
        let text = bits.to_string();
        let advise =
            ["index", "advise", "histogram.csv", "--column", "name", "--count", "rows", "--json", "--bits", &text];
        let json = world.succeeds(&[&advise[..], kind].concat()).json_lines().remove(0);
        let line = json["bits"].as_array().expect("a list").iter().find(|line| line["bits"] == bits);
        let line = line.expect("the bits");
        let number = |json: &serde_json::Value| json.as_f64().expect("a number");
        line["by_length"]
            .as_array()
            .map_or_else(|| vec![number(&line["false_matches"])], |list| list.iter().map(number).collect())
    };
    let of_names = advised(10, &["--kind", "case-folded"]);
    let of_starts = advised(5, &["--kind", "prefix", "--length", "3", "--length", "5"]);

    // A field for each, in a partition with a key of its own: of one field all indexes count together, for what they show.
    let mut config = fs::read_to_string(world.config()).expect("a configuration");
    let ring = keyfold_open::open(&world.config(), &[]).expect("it opens");
    let mut policy = "version = 1\n".to_owned();
    for key in 0..KEYS {
        let name = format!("key-{key}");
        let keys = pollster::block_on(ring.create_partition(&name)).expect("a partition");
        config.push_str(&format!("\n{}\n", Config::partition(&name, &keys)));
        let parts = format!("partition = \"{name}\"\n");
        policy.push_str(&format!("[fields.name-{key}.index.name]\nkind = \"case-folded\"\nbits = 10\n{parts}"));
        policy.push_str(&format!(
            "[fields.name-{key}.index.start]\nkind = \"prefix\"\nlength = [3, 5]\nbits = 5\n{parts}"
        ));
    }
    fs::write(world.config(), config).expect("written");
    world.write("names.toml", policy);
    let ring = keyfold_open::open(&world.config(), &[world.path("names.toml")]).expect("it opens");
    let indexer = |key: usize, index: &str| {
        let field = ring.field(&format!("name-{key}")).expect("a field");
        pollster::block_on(field.indexer(index)).expect("a key")
    };
    for (what, length, advised) in [("name", 6, of_names[0]), ("start", 3, of_starts[0]), ("start", 5, of_starts[1])] {
        let of_key = |key| false_matches(&indexer(key, what), &names, length);
        let mean = (0..KEYS).map(of_key).sum::<f64>() / KEYS as f64;
        assert!((mean / advised - 1.0).abs() <= TOLERANCE, "{what} of {length}: {mean} on average, advised {advised}");
    }

    // A database counts the same.
    let of_first = indexer(0, "name");
    let token = |name: &str| *numbers(&of_first.tokens(Value::Text(name)).expect("a token")).first().expect("a token");
    let expected = false_matches(&of_first, &names, 6);
    for database in databases() {
        database.sql("CREATE TABLE patients (name TEXT NOT NULL, name_index INTEGER NOT NULL); CREATE TABLE counted (k INTEGER NOT NULL PRIMARY KEY, n TEXT)");
        let values: Vec<String> = names
            .iter()
            .flat_map(|(name, count)| std::iter::repeat_n(format!("('{name}', {})", token(name)), *count as usize))
            .collect();
        for chunk in values.chunks(10_000) {
            database.sql(&format!("INSERT INTO patients VALUES {}", chunk.join(", ")));
        }
        database.sql(
            "INSERT INTO counted SELECT 1, CAST(sum(t.n * (k.n - t.n)) AS TEXT) FROM \
             (SELECT name, name_index, count(*) AS n FROM patients GROUP BY name, name_index) AS t \
             JOIN (SELECT name_index, count(*) AS n FROM patients GROUP BY name_index) AS k ON k.name_index = t.name_index",
        );
        let cell = database.rows("counted", "k", &["n"]).remove(0).cells.remove(0);
        let sum: f64 =
            std::str::from_utf8(cell.as_bytes().expect("a number")).expect("text").parse().expect("a number");
        assert!((sum / rows as f64 / expected - 1.0).abs() < 1e-9, "{sum} of {rows} rows, expected {expected}");
    }
}
