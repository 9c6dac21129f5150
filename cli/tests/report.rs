//! `keyfold report`: what it says is what there is, it says no secret, and its control map names what exists.

#[path = "common/audited.rs"]
mod audited;
mod common;

use audited::Audited;
use common::{CANARY, POLICY, Run, STORAGE, USAGE, World, argument, contains, keyfold, run};
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const AT: &str = "2031-03-31T12:00:00Z";

fn report(world: &World, arguments: &[&str]) -> Run {
    let mut command = world.command(&[&["report", "--policy", "policy.toml"], arguments].concat());
    run(command.arg("--config").arg(world.config()), b"")
}

fn json(world: &World, arguments: &[&str]) -> Json {
    let run = report(world, &[&["--format", "json"], arguments].concat()).expect(0, &[]);
    serde_json::from_slice(&run.stdout).expect("JSON")
}

/// A trail with one event of `use` at each of `hours`, by the actor that opened as many values.
fn write_trail(file: &Path, events: &[(&str, &str, u64)]) {
    let line = |(seq, (time, actor, opened)): (usize, &(&str, &str, u64))| {
        format!(
            "{{\"chain\":\"{}\",\"seq\":{},\"at\":0,\"time\":\"{time}\",\"action\":\"use\",\"outcome\":\"ok\",\"actor\":\"{actor}\",\
             \"field\":\"patient.ssn\",\"details\":{{\"opened\":\"{opened}\"}},\"mac\":\"{}\"}}\n",
            "ab".repeat(16),
            seq + 1,
            "00".repeat(32)
        )
    };
    fs::write(file, events.iter().enumerate().map(line).collect::<String>()).expect("written");
}

fn kinds(report: &Json) -> Vec<(&str, &str)> {
    let anomalies = report["audit"]["anomalies"].as_array().expect("anomalies");
    let of = |anomaly: &'_ Json| {
        (anomaly["kind"].as_str().expect("a kind").to_owned(), anomaly["at"].as_str().expect("a time").to_owned())
    };
    anomalies.iter().map(of).map(|(kind, at)| (&*kind.leak(), &*at.leak())).collect()
}

#[test]
fn every_format_says_the_same_again_and_no_secret() {
    let audited = Audited::new();
    let world = &audited.0;
    world.protect(&["--scope", CANARY, "--context", &format!("tenant={CANARY}")]);
    world.succeeds(&["keys", "rotate"]);
    world.succeeds(&["keys", "drill"]);
    let kek = fs::read_to_string(world.keys().join("local.kek")).expect("the KEK");
    for format in ["md", "json", "html"] {
        let arguments = ["--format", format, "--at", AT];
        let first = report(world, &arguments).expect(0, &[]);
        assert_eq!(first.stdout, report(world, &arguments).expect(0, &[]).stdout, "{format} differs from run to run");
        for secret in [CANARY, "ry7391", kek.lines().nth(1).expect("the key")] {
            assert!(!contains(&first.stdout, secret.as_bytes()), "{format}");
        }
        let text = first.stdout_text().to_lowercase();
        for word in ["complian", "certified"] {
            assert!(!text.contains(word), "{format} claims {word}");
        }
        for said in ["patient.ssn", "randomized", "deterministic", "164", "drill", "overdue"] {
            assert!(text.contains(said), "{format} does not say {said}");
        }
    }
    let made = json(world, &["--at", AT]);
    assert_eq!(
        (&made["fields"][3]["identifier"], &made["fields"][3]["row_binding"]),
        (&"G".into(), &"patient_id, $.id".into())
    );
    assert_eq!(made["keys"]["counts"]["data"]["active"], 2, "of the keyring and of a scope");
    assert_eq!(made["keys"]["counts"]["root"]["active"], 1);
    assert_eq!(made["keys"]["overdue"], 3, "after four years");
    let history = made["audit"]["history"].as_array().expect("a history");
    assert!(
        ["drill", "key-made", "state-changed"]
            .iter()
            .all(|action| history.iter().any(|event| event["action"] == *action))
    );
    assert_eq!(made["audit"]["calls"][0]["kek"], "local");
}

#[test]
fn html_loads_and_runs_nothing_and_names_are_no_markup() {
    let audited = Audited::new();
    let world = &audited.0;
    let name = "<script>alert(1)</script>|[x](y)";
    let config = fs::read_to_string(world.config()).expect("the configuration");
    fs::write(world.config(), config.replace("name = \"default\"", &format!("name = \"{name}\""))).expect("written");
    let html = report(world, &["--format", "html"]).expect(0, &[]);
    let html = html.stdout_text();
    assert!(html.contains("default-src 'none'; style-src 'sha256-") && html.contains("<html lang=\"en\">"));
    for forbidden in ["<script", "style=", "src=", "@import", "url(", "<link", " onload"] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    assert_eq!(html.matches("href=").count(), html.matches("href=\"#s").count());
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    let markdown = report(world, &[]).expect(0, &[]);
    assert!(
        markdown
            .stdout_text()
            .starts_with("# Keyfold evidence report: &lt;script&gt;alert(1)&lt;/script&gt;\\|\\[x\\](y)\n")
    );
}

#[test]
fn no_kek_is_asked_unless_it_is_to_verify() {
    let audited = Audited::new();
    let world = &audited.0;
    world.protect(&[]);
    let trail = fs::read(audited.file()).expect("the trail");
    fs::rename(world.keys().join("local.kek"), world.path("kept")).expect("renamed");
    let made = json(world, &[]);
    assert_eq!((&made["keys"]["verified"], &made["audit"]["authenticated"]), (&false.into(), &false.into()));
    assert_eq!(fs::read(audited.file()).expect("the trail"), trail, "a report leaves no trace");
    report(world, &["--verify"]).expect(STORAGE, &["local.kek"]);
    fs::rename(world.path("kept"), world.keys().join("local.kek")).expect("renamed");

    let made = json(world, &["--verify"]);
    assert_eq!((&made["keys"]["verified"], &made["keys"]["refused"]), (&true.into(), &0.into()));
    assert_eq!((&made["audit"]["authenticated"], &made["audit"]["clean"]), (&true.into(), &true.into()));
    let text = report(world, &["--verify"]).expect(0, &[]);
    assert!(text.stdout_text().contains("verified under the audit KEK, nothing is wrong"));

    let good = fs::read_to_string(audited.file()).expect("the trail");
    fs::write(audited.file(), good.replacen("\"sealed\":\"", "\"sealed\":\"9", 1)).expect("written");
    let made = json(world, &["--verify"]);
    assert_eq!(made["audit"]["clean"], false);
    assert!(made["audit"]["findings"][0].as_str().expect("a finding").contains("edited"));
    assert!(report(world, &["--verify"]).expect(0, &[]).stdout_text().contains("NOT WHAT WAS WRITTEN"));
}

#[test]
fn anomalies_are_told_from_ordinary_days() {
    let audited = Audited::new();
    let world = &audited.0;
    // Four ordinary hours on a Thursday, one with fifty times as much, and one at night; another actor opens as much as ever.
    let mut events: Vec<_> = [
        ("2031-03-27T08:10:00Z", 100),
        ("2031-03-27T09:10:00Z", 110),
        ("2031-03-27T10:10:00Z", 90),
        ("2031-03-27T11:10:00Z", 100),
        ("2031-03-27T12:10:00Z", 5000),
        ("2031-03-28T02:10:00Z", 100),
    ]
    .map(|(time, opened)| (time, "patient-api", opened))
    .into();
    events.extend(["08", "09", "10", "11"].map(|hour| (&*format!("2031-03-27T{hour}:30:00Z").leak(), "export", 5000)));
    write_trail(&audited.file(), &events);
    let quiet = json(world, &["--at", AT]);
    assert_eq!(kinds(&quiet), [("burst", "2031-03-27 12:00")]);
    let watched = json(world, &["--at", AT, "--hours", "mon-fri 07:00-19:00"]);
    assert_eq!(kinds(&watched), [("outside-hours", "2031-03-28"), ("burst", "2031-03-27 12:00")]);
    assert_eq!(kinds(&json(world, &["--at", AT, "--burst", "60"])), []);
    assert_eq!(kinds(&json(world, &["--at", "2031-03-27T11:30:00Z"])), [], "later events are left out");
    let days = watched["audit"]["days"].as_array().expect("days");
    assert_eq!((days.len(), &days[29]["day"]), (30, &"2031-03-31".into()));
    assert_eq!((&days[25]["day"], &days[25]["opened"]), (&"2031-03-27".into(), &25_400.into()));
}

#[test]
fn failures_and_recovery_are_anomalies() {
    let audited = Audited::new();
    let world = &audited.0;
    world.protect(&[]);
    world.run(&["reveal", "sealed.csv", "--output", "out.csv", "--context", "tenant=x"]).expect(common::KEY, &[]);
    world.succeeds(&["keys", "list", "--recovery"]);
    let made = json(world, &[]);
    let anomalies = made["audit"]["anomalies"].as_array().expect("anomalies");
    let failed = anomalies.iter().find(|anomaly| anomaly["kind"] == "failures").expect("a failure");
    assert!(failed["what"].as_str().expect("words").contains("DecryptionFailed"), "{failed}");
    assert_eq!(made["audit"]["total"]["failed"], 1);
}

#[test]
fn what_would_be_lost_before_six_years_is_a_warning() {
    let warnings = |report: &Json| -> Vec<String> {
        let found = report["retention"].as_array().expect("warnings");
        found.iter().map(|warning| warning["warning"].as_str().expect("a name").to_owned()).collect()
    };
    let world = World::new();
    assert_eq!(warnings(&json(&world, &[])), ["no-trail"]);

    let audited = Audited::new();
    let world = &audited.0;
    let config = fs::read_to_string(world.config()).expect("the configuration");
    fs::write(world.config(), format!("{config}[shred]\nwaiting = \"none\"\n")).expect("written");
    world.protect(&["--scope", "study"]);
    assert_eq!(warnings(&json(world, &["--verify"])), ["audit-kek-is-a-file", "no-backup"]);
    assert_eq!(warnings(&json(world, &[])), ["unverifiable", "audit-kek-is-a-file", "no-backup"]);
    world.succeeds(&["keys", "backup", "keys.backup"]);
    world.succeeds(&["keys", "shred", "--scope", "study"]);
    assert_eq!(warnings(&json(world, &["--verify"])), ["audit-kek-is-a-file", "destroy-pending"]);
    world.succeeds(&["keys", "shred", "--scope", "study", "--finish", "--yes", "--certificate", "certificate"]);
    assert_eq!(warnings(&json(world, &["--verify"])), ["audit-kek-is-a-file", "destroyed"]);
    assert_eq!(
        warnings(&json(world, &["--verify", "--at", "2040-01-01"])),
        ["audit-kek-is-a-file"],
        "six years have passed"
    );
    // What was put aside and is gone is missed.
    fs::rename(audited.file(), world.path("elsewhere")).expect("renamed");
    let missing = warnings(&json(world, &[]));
    assert!(missing.contains(&"earlier-files".to_owned()), "{missing:?}");
    fs::rename(world.path("elsewhere"), audited.file()).expect("renamed");
    write_trail(&audited.file(), &[("2031-03-27T08:10:00Z", "patient-api", 1)]);
    let late = warnings(&json(world, &["--at", AT]));
    assert!(late.contains(&"trail-begins-late".to_owned()), "{late:?}");
}

#[test]
fn costs_follow_the_prices_that_are_given() {
    let audited = Audited::new();
    let world = &audited.0;
    world.protect(&[]);
    assert_eq!(json(world, &[])["costs"], Json::Array(vec![]), "a file costs nothing");
    world.write(
        "prices.toml",
        "as_of = \"2026-01-01\"\ncurrency = \"EUR\"\n[[provider]]\nscheme = \"local\"\nname = \"drawer\"\nkey_month = 2.5\nper_10000_requests = 1.0\nsource = \"-\"\n",
    );
    let made = json(world, &["--prices", "prices.toml"]);
    assert_eq!((&made["costs"][0]["provider"], &made["costs"][0]["key_month"]), (&"drawer".into(), &2.5.into()));
    assert_eq!(made["prices"]["currency"], "EUR");
    world.write("prices.toml", "as_of = 1\n");
    report(world, &["--prices", "prices.toml"]).expect(POLICY, &["prices.toml"]);
    report(world, &["--prices", "missing"]).expect(STORAGE, &["missing"]);
}

#[test]
fn another_service_has_its_rows_in_the_matrix() {
    let world = World::new();
    world.write("other.toml", "version = 1\n[fields.\"device.serial\"]\nidentifier = \"M\"\nrow_binding = \"id\"\n");
    let service = format!("{},other.toml", world.config().display());
    let made = json(&world, &["--service", &service]);
    let fields: BTreeSet<_> =
        made["fields"].as_array().expect("fields").iter().map(|field| field["field"].as_str()).collect();
    assert!(fields.contains(&Some("device.serial")) && fields.contains(&Some("patient.ssn")));
}

#[test]
fn wrong_arguments_write_nothing() {
    let world = World::new();
    let config = world.config();
    let config = ["--config", argument(&config)];
    world.refuses(&[&["report", "--at", "soon"], &config[..]].concat(), USAGE, &["2026-11-26"]);
    world.refuses(&[&["report", "--hours", "always"], &config[..]].concat(), USAGE, &["mon-fri"]);
    let store = world.keys().join("keys.db");
    world.refuses(
        &[&["report", "--force", "--output", argument(&store)], &config[..]].concat(),
        USAGE,
        &["never overwritten"],
    );
    world.write("there", "x");
    world.refuses(&[&["report", "--output", "there"], &config[..]].concat(), USAGE, &["there"]);
}

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder").to_owned()
}

#[test]
fn every_row_of_the_control_map_names_what_exists() {
    let steps = Command::new(root().join("test")).arg("--list").output().ok().filter(|done| done.status.success());
    let steps = steps.map(|done| String::from_utf8(done.stdout).expect("text"));
    if steps.is_none() {
        println!("SKIPPED: the steps of ./test, which cannot be run here");
    }
    let mut commands = BTreeSet::new();
    for control in keyfold_report::controls() {
        let row = format!("{} {}", control.source, control.clause);
        commands.extend(control.commands);
        for test in control.tests {
            match (test.strip_prefix("./test "), test.split_once("::")) {
                (Some(step), _) => {
                    let is_there =
                        |steps: &String| steps.lines().any(|line| line.split_whitespace().next() == Some(step));
                    assert!(steps.as_ref().is_none_or(is_there), "{row}: there is no step {step}");
                }
                (None, Some((file, function))) => {
                    let text = fs::read_to_string(root().join(file)).unwrap_or_default();
                    assert!(text.contains(&format!("fn {function}(")), "{row}: there is no test {test}");
                }
                (None, None) => panic!("{row}: {test} is neither a step of ./test nor FILE::FUNCTION"),
            }
        }
    }
    for command in commands {
        let words: Vec<_> = command.split(' ').collect();
        assert_eq!(words[0], "keyfold", "{command}");
        let help = run(keyfold().args(&words[1..]).arg("--help"), b"").expect(0, &[]);
        assert!(help.stdout_text().contains(&format!("Usage: {command} ")), "{command}: {}", help.stdout_text());
    }
}
