//! `keyfold simulate`: the ready scenarios are good ones, and what the command writes is what the crate predicts.

use crate::common::{POLICY, STORAGE, USAGE, World};
use keyfold_simulate::{Scenario, simulate};
use serde_json::Value as Json;
use std::fs;
use std::path::Path;

const SMALL: &str = "version = 1
name = \"small\"

[system]
processes = 2
tenants = 2
patients = 100
reads_per_second = 2.0
writes_per_second = 1.0

[key_service]
latency_milliseconds = 10.0
quota_per_second = 100
price_per_10000_calls = 0.03
price_per_key_and_month = 1.0
currency = \"EUR\"

[outage]
start = \"20m\"
length = \"30m\"

[run]
time = \"1h\"
step = \"10s\"
";

#[test]
fn ready_scenarios_are_good() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/simulate");
    let mut count = 0;
    for file in fs::read_dir(folder).expect("examples") {
        let path = file.expect("a file").path();
        let scenario = Scenario::parse(&fs::read_to_string(&path).expect("a text"), &path.display().to_string());
        scenario.unwrap_or_else(|error| panic!("{error}"));
        count += 1;
    }
    assert_eq!(count, 3);
}

#[test]
fn text_json_and_page_are_what_is_predicted() {
    let world = World::new();
    world.write("small.toml", SMALL);
    let predicted = simulate(&Scenario::parse(SMALL, "small.toml").expect("good")).expect("predicted");
    let said = world.succeeds(&["simulate", "small.toml"]);
    assert_eq!(said.stdout_text(), predicted.to_text());
    // A simulated outage is none: nothing is logged of it, and these tests ask for everything.
    assert_eq!(said.stderr, "");
    let json = world.succeeds(&["simulate", "small.toml", "--json"]);
    assert_eq!(serde_json::from_str::<Json>(json.stdout_text()).expect("JSON"), predicted.to_json());
    world.succeeds(&["simulate", "small.toml", "--format", "html", "--output", "page.html"]);
    assert_eq!(world.text("page.html"), predicted.to_html());
    assert_ne!(world.succeeds(&["simulate", "small.toml", "--seed", "9"]).stdout_text(), said.stdout_text());
}

#[test]
fn what_is_wrong_is_refused() {
    let world = World::new();
    world.write("small.toml", SMALL);
    world.write("wrong.toml", SMALL.replace("patients", "patience"));
    world.refuses(&["simulate", "wrong.toml"], POLICY, &["wrong.toml:7", "patience"]);
    world.refuses(&["simulate", "missing.toml"], STORAGE, &["cannot read missing.toml"]);
    world.refuses(&["simulate", "small.toml", "--output", "small.toml", "--force"], USAGE, &["--output"]);
    world.refuses(&["simulate", "small.toml", "--json", "--format", "html"], USAGE, &["--format"]);
}
