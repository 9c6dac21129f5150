//! `keyfold simulate`: the ready scenarios are good ones, and what the command writes is what the crate predicts.

use crate::common::{POLICY, STORAGE, USAGE, World, run, skip};
use keyfold_simulate::{Scenario, simulate};
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// An hour of a small system: what is predicted of it takes no time.
pub(crate) const SMALL: &str = "version = 1
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

/// Where nobody asks nobody waits.
#[test]
fn no_requests_do_not_wait() {
    let quiet = SMALL.replace("reads_per_second = 2.0", "reads_per_second = 0.0");
    let quiet = quiet.replace("writes_per_second = 1.0", "writes_per_second = 0.0");
    let predicted = simulate(&Scenario::parse(&quiet, "quiet.toml").expect("good")).expect("predicted");
    assert_eq!(predicted.traffic.waited_percent, 0.0);
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
    for (line, key, text) in
        [(19, "start", SMALL.replace("\"20m\"", "\"2h\"")), (20, "length", SMALL.replace("30m", "50m"))]
    {
        world.write("outage.toml", text);
        world.refuses(&["simulate", "outage.toml"], POLICY, &[&format!("outage.toml:{line}, {key}: "), "simulat"]);
    }
}

/// What takes longer than an attempt may would fail to make the keyring, and tell no line.
#[test]
fn a_latency_is_shorter_than_an_attempt() {
    let world = World::new();
    for latency in ["3000.0", "4000.0", "9999.0"] {
        world.write("slow.toml", SMALL.replace("10.0", latency));
        let says = ["slow.toml:12, latency_milliseconds: ", "within the time of one attempt: 3s"];
        world.refuses(&["simulate", "slow.toml"], POLICY, &says);
    }
    world.write("slow.toml", SMALL.replace("10.0", "2999.0"));
    world.succeeds(&["simulate", "slow.toml"]);
}

/// `command` at a terminal of 80 columns, with what `typed` prints typed into it: exit code and all that is shown. None without `script`.
fn at_a_terminal(world: &World, typed: &str, command: &str) -> Option<(Option<i32>, String)> {
    let line = format!("{typed} | script -qec 'stty cols 80; {command}' /dev/null");
    let output = Command::new("sh").args(["-c", &line]).current_dir(world.data()).stdin(Stdio::null()).output();
    let output = output.expect("a shell");
    if output.status.code() == Some(127) {
        skip("a terminal (no script)");
        return None;
    }
    Some((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

#[test]
fn progress_is_shown_at_a_terminal_and_a_signal_ends_it() {
    let world = World::new();
    world.write("long.toml", SMALL.replace("1h", "7d").replace("patients = 100", "patients = 100000"));
    let keyfold = env!("CARGO_BIN_EXE_keyfold");
    // In the foreground it sends one signal; otherwise two, of which the second ends the command in silence.
    let command = format!("timeout --foreground --preserve-status -s TERM 2 {keyfold} simulate long.toml --output out");
    let Some((code, text)) = at_a_terminal(&world, "true", &command) else { return };
    assert_eq!(code, Some(143), "{text:?}");
    assert!(text.contains("simulating") && text.contains("%, "), "{text:?}");
    // Cleared before anything else is said.
    let last = text.split("\u{1b}[2K").last().unwrap_or_default();
    assert_eq!(last.trim_end(), "keyfold: interrupted by SIGTERM", "{text:?}");
    assert!(!world.path("out").exists());
    world.write("small.toml", SMALL);
    let said = world.succeeds(&["simulate", "small.toml"]);
    assert_eq!(said.stderr, "", "no progress where there is no terminal");
}

#[test]
fn a_scenario_comes_from_standard_input() {
    let world = World::new();
    world.write("small.toml", SMALL);
    let said = run(&mut world.command(&["simulate", "-"]), SMALL.as_bytes()).expect(0, &[]);
    assert_eq!(said.stdout, world.succeeds(&["simulate", "small.toml"]).stdout);
    let wrong = SMALL.replace("patients", "patience");
    run(&mut world.command(&["simulate", "-"]), wrong.as_bytes()).expect(POLICY, &["standard input:7", "patience"]);
    run(&mut world.command(&["simulate", "-"]), b"\xff").expect(STORAGE, &["cannot read standard input"]);
}

/// Names of members, of those inside as well.
fn members(json: &Json, found: &mut BTreeSet<String>) {
    match json {
        Json::Object(object) => object.iter().for_each(|(name, inside)| {
            found.insert(name.clone());
            members(inside, found);
        }),
        Json::Array(array) => array.iter().for_each(|inside| members(inside, found)),
        _ => {}
    }
}

#[test]
fn every_member_is_documented() {
    let world = World::new();
    // With all that there is: an outage, rotation, and failures at the start and in the outage.
    let busy = SMALL
        .replace("quota_per_second = 100", "quota_per_second = 5")
        .replace("processes = 2", "processes = 40")
        .replace("s_per_second = 2.0", "s_per_second = 20.0")
        .replace("[outage]", "[cache]\nmax_age = \"1m\"\ngrace = \"1m\"\n\n[outage]");
    world.write("busy.toml", format!("{busy}rotation_at = \"5m\"\n"));
    let said = world.succeeds(&["simulate", "busy.toml", "--json"]);
    let json: Json = serde_json::from_str(said.stdout_text()).expect("JSON");
    assert_eq!(json["version"], 1);
    let mut found = BTreeSet::new();
    members(&json, &mut found);
    assert!(found.contains("reads_served_percent") && found.contains("median_seconds"), "{found:?}");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/SIMULATE.md");
    let page = fs::read_to_string(page).expect("docs/SIMULATE.md");
    let missing: Vec<_> = found.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // What failed has its name, and when it did is told.
    let traffic = &json["traffic"];
    let names: Vec<_> = traffic["failures"].as_array().expect("a list").iter().map(|of| &of["name"]).collect();
    assert!(names.contains(&&"Throttled".into()) && names.contains(&&"Unavailable".into()), "{traffic}");
    assert!(traffic["failed_reads_at_start"].as_u64() > Some(0), "{traffic}");
    assert!(traffic["failed_reads_around_outage"].as_u64() > Some(0), "{traffic}");
    let text = world.succeeds(&["simulate", "busy.toml"]);
    let text = text.stdout_text();
    for says in [
        "404 Throttled",
        "405 Unavailable",
        "at the start (within max_age)",
        "in the outage or within max_age after it",
    ] {
        assert!(text.contains(says), "{says}: {text}");
    }
}
