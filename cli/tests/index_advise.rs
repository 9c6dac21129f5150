//! `keyfold index advise`: what it says of a column, from values or a histogram, and that it shows none of them.

use crate::common::{CANARY, DATA, POLICY, USAGE, World};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// 6,000 rows of which the names repeat like names do, the numbers never, and the genders always.
fn patients() -> (String, BTreeMap<String, u64>) {
    let mut text = "name,number,gender,phone\n".to_owned();
    let mut names = BTreeMap::new();
    for row in 0..6_000_u64 {
        let rank = row % (1 + row / 4);
        let name = format!("{CANARY} {rank}");
        *names.entry(name.clone()).or_default() += 1;
        let gender = if row % 2 == 0 { "f" } else { "m" };
        let phone = if row % 10 == 0 { "none".to_owned() } else { format!("0{}", 30_000_000 + row) };
        // Spelled in several ways: the index does not tell them apart.
        let name = if row % 3 == 0 { name.to_uppercase() } else { name };
        text.push_str(&format!("{name},{row:09},{gender},{phone}\n"));
    }
    (text, names)
}

fn advise(world: &World, arguments: &[&str]) -> Json {
    let run = world.succeeds(&[&["index", "advise"], arguments, &["--json"]].concat());
    assert!(!run.stdout_text().contains("ry7391"), "a value is shown");
    run.json_lines().remove(0)
}

#[test]
fn values_and_their_histogram_come_to_the_same() {
    let world = World::new();
    let (text, names) = patients();
    world.write("in.csv", &text);
    let histogram: String = names.iter().map(|(name, count)| format!("{name},{count}\n")).collect();
    world.write("histogram.csv", format!("value,rows\n{histogram}"));
    let folded = ["--kind", "case-folded", "--bits", "11"];
    let of_values = advise(&world, &[&["in.csv", "--column", "name"], &folded[..]].concat());
    let of_histogram =
        advise(&world, &[&["histogram.csv", "--column", "value", "--count", "rows"], &folded[..]].concat());
    assert_eq!(of_values["rows"], 6_000);
    assert_eq!(of_values["distinct"], names.len());
    for member in ["rows", "distinct", "recommended", "allowed_bits", "unique"] {
        assert_eq!(of_values[member], of_histogram[member], "{member}");
    }
    let of_bits =
        |advice: &Json| advice["bits"].as_array().expect("a list").iter().find(|line| line["bits"] == 11).cloned();
    let [line, same] = [of_bits(&of_values), of_bits(&of_histogram)].map(|line| line.expect("11 bits"));
    // (rows − rows with the value) / 2¹¹, for a query that looks for the value of a random row.
    let matches: f64 = names.values().map(|count| (count * count) as f64 / 6_000.0).sum();
    let expected = (6_000.0 - matches) / 2048.0;
    for line in [&line, &same] {
        assert!((line["false_matches"].as_f64().expect("a number") - expected).abs() < 1e-6, "{line}");
    }
    assert!((of_values["matches"].as_f64().expect("a number") - matches).abs() < 1e-6);
    // log₂ 6,000 − 3 is 9.55.
    assert_eq!((&of_values["allowed_bits"], &of_values["unique"]), (&Json::from(9), &Json::from(false)));
    let text = world.succeeds(&[&["index", "advise", "in.csv", "--column", "name"], &folded[..]].concat());
    assert!(text.stdout_text().contains("<- recommended") && !text.stdout_text().contains("ry7391"));
    let fewer = advise(&world, &["in.csv", "--column", "name", "--kind", "case-folded", "--other-bits", "4"]);
    assert_eq!(fewer["allowed_bits"], 5);
}

#[test]
fn unique_numbers_may_have_full_width_and_genders_no_index() {
    let world = World::new();
    world.write("in.csv", patients().0);
    let numbers = advise(&world, &["in.csv", "--column", "number", "--kind", "digits"]);
    assert_eq!((&numbers["recommended"], &numbers["unique"]), (&Json::from(63), &Json::from(true)));
    let gender = ["index", "advise", "in.csv", "--column", "gender"];
    world.refuses(&gender, POLICY, &["few values", "2 distinct values", "--force"]);
    world.succeeds(&[&gender[..], &["--force"]].concat());
    let phones = advise(
        &world,
        &["in.csv", "--column", "phone", "--kind", "phone", "--country-code", "49", "--trunk-prefix", "0"],
    );
    assert_eq!((&phones["rows"], &phones["refused"]), (&Json::from(5_400), &Json::from(600)));
    let prefixes = ["in.csv", "--column", "number", "--kind", "prefix", "--length", "9"];
    let whole = advise(&world, &prefixes);
    assert!(whole["bits"].as_array().expect("a list").iter().all(|line| line["bits"].as_u64() <= Some(16)));
    // All differ, and yet they have no full width, but what the policy allows: 9 bits for one token, 3 for each of three.
    assert_eq!((&whole["recommended"], &whole["unique"]), (&Json::from(9), &Json::from(false)));
    let three =
        advise(&world, &[&prefixes[..], &["--length", "8", "--length", "7", "--bits", "3", "--force"]].concat());
    assert_eq!((&three["recommended"], &three["allowed_bits"]), (&Json::from(3), &Json::from(9)));
    let line = three["bits"].as_array().expect("a list").iter().find(|line| line["bits"] == 3).expect("3 bits");
    // Of 7, 8 and 9 digits: 60 and 600 prefixes of 100 and 10 rows, and 6,000. Any of three tokens may be that of a query.
    for (length, same) in [100.0, 10.0, 1.0].into_iter().enumerate() {
        let expected = (6_000.0 - same) * (1.0 - 0.875_f64.powi(3));
        assert!((line["by_length"][length].as_f64().expect("a number") - expected).abs() < 1e-6, "{line}");
    }
    assert_eq!(line["false_matches"], line["by_length"][2]);
    for text in [&prefixes[..], &[&prefixes[..], &["--length", "8"]].concat()] {
        let run = world.succeeds(&[&["index", "advise"], text].concat());
        assert!(!run.stdout_text().contains("-0.000") && !run.stdout_text().contains("full width,"));
    }

    world.refuses(&["index", "advise", "in.csv", "--column", "none"], USAGE, &["no column"]);
    world.refuses(&["index", "advise", "in.csv", "--column", "name", "--kind", "prefix"], USAGE, &["--length"]);
    world.refuses(&["index", "advise", "in.csv", "--column", "name", "--bits", "64"], USAGE, &["1 to 63 bits, or 256"]);
    world.refuses(
        &["index", "advise", "in.csv", "--column", "name", "--count", "gender"],
        DATA,
        &["no number of rows"],
    );
    world.write("empty.csv", "name\n\"\"\n");
    world.refuses(&["index", "advise", "empty.csv", "--column", "name"], DATA, &["no row", "1 empty, 0 refused"]);
}

/// Each sealed value is another one, so full width would be the advice for every column.
#[test]
fn sealed_values_are_refused() {
    let world = World::new();
    world.protect(&[]);
    for column in ["name", "ssn", "patient_id"] {
        let advise = ["index", "advise", "sealed.csv", "--column", column];
        world.refuses(&advise, DATA, &["row 1", column, "is sealed", "in clear"]);
        world.refuses(&[&advise[..], &["--force", "--kind", "digits"]].concat(), DATA, &["is sealed"]);
    }
    let cell = world.text("sealed.csv").lines().nth(1).and_then(|line| line.split(',').next()).map(str::to_owned);
    let value = cell.expect("a value");
    let advise = ["index", "advise", "in.csv", "--column", "patient", "--force"];
    world.write("in.csv", format!("patient\nPatient/1\nPatient/{value}\n"));
    world.refuses(&advise, DATA, &["row 2", "is sealed"]);
    world.write("in.csv", format!("patient\n{value}!\nkf1.none\n"));
    world.succeeds(&advise);
    world.write("in.ndjson", "{\"patient\":\"1\"}\n");
    world.refuses(&["index", "advise", "in.ndjson", "--column", "patient"], USAGE, &["as CSV"]);
}

/// A sample of a column says little, which is not that the column has few values.
#[test]
fn few_rows_are_told_from_few_values() {
    let world = World::new();
    let row = |n: u32| {
        format!("{:09},{},555-{:03}-{:04}\n", n * 7_919, if n.is_multiple_of(2) { "f" } else { "m" }, n, n * 31)
    };
    let rows: String = (0..120).map(row).collect();
    world.write("in.csv", format!("number,gender,phone\n{rows}"));
    let advise = |column: &'static str, more: &[&'static str]| {
        [&["index", "advise", "in.csv", "--column", column], more].concat()
    };
    let run = world
        .run(&advise("number", &["--kind", "digits"]))
        .expect(POLICY, &["120 rows", "too few", "the whole table", "--force"]);
    assert!(!run.stderr.contains("few values, such as"), "{}", run.stderr);
    world.refuses(&advise("gender", &[]), POLICY, &["few values, such as a gender"]);
    // What a kind refuses is not a lack of values.
    world.refuses(
        &advise("phone", &["--kind", "phone"]),
        DATA,
        &["no row has a value", "0 empty, 120 refused", "--country-code"],
    );
    world.refuses(
        &advise("number", &["--kind", "date"]),
        DATA,
        &["no row has a value", "120 refused by the kind date"],
    );
    let mixed: String = (0..2_000)
        .map(|n: u32| if n.is_multiple_of(100) { format!("+4930{n:07}\n") } else { format!("{n:09}\n") })
        .collect();
    world.write("in.csv", format!("phone\n{mixed}"));
    world.refuses(
        &advise("phone", &["--kind", "phone"]),
        POLICY,
        &["1980 more rows are refused by the kind phone", "--country-code"],
    );
}
