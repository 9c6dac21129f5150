//! `keyfold report`: what it says is what there is, it says no secret, and its control map names what exists.
//!
//! Over 500 lines: every part of a report is looked at in one that is made in the same way.

use crate::audited::Audited;
use crate::common::{self, CANARY, DATA, POLICY, Run, STORAGE, USAGE, World, argument, contains, keyfold, run, skip};
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) const AT: &str = "2031-03-31T12:00:00Z";

pub(crate) fn report(world: &World, arguments: &[&str]) -> Run {
    let mut command = world.command(&[&["report", "--policy", "policy.toml"], arguments].concat());
    run(command.arg("--config").arg(world.config()), b"")
}

pub(crate) fn json(world: &World, arguments: &[&str]) -> Json {
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

pub(crate) fn kinds(report: &Json) -> Vec<(&str, &str)> {
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
    let run = report(world, &["--verify", "--format", "json"])
        .expect(DATA, &["the audit trail is not what was written", "audit verify", "the report was made, and says so"]);
    let made: Json = serde_json::from_slice(&run.stdout).expect("JSON");
    assert_eq!(made["audit"]["clean"], false);
    assert!(made["audit"]["findings"][0].as_str().expect("a finding").contains("edited"));
    assert!(report(world, &["--verify"]).expect(DATA, &[]).stdout_text().contains("NOT WHAT WAS WRITTEN"));
    // What else keeps it from verifying is told with it.
    fs::rename(world.keys().join("local.kek"), world.path("kept")).expect("renamed");
    report(world, &["--verify"]).expect(STORAGE, &["local.kek", "the audit trail is not what was written"]);
    // Without the KEK nobody is asked, and nothing keeps anyone from a report.
    report(world, &[]).expect(0, &[]);
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
    // Until he has been seen for long `export` is held against the other one.
    let bursts = ["12", "11", "10", "09", "08"].map(|hour| ("burst", &*format!("2031-03-27 {hour}:00").leak()));
    assert_eq!(kinds(&quiet), bursts);
    let watched = json(world, &["--at", AT, "--hours", "mon-fri 07:00-19:00"]);
    let all: Vec<_> = std::iter::once(("outside-hours", "2031-03-28")).chain(bursts).collect();
    assert_eq!(kinds(&watched), all);
    assert_eq!(kinds(&json(world, &["--at", AT, "--burst", "60"])), []);
    // Later events are in no figure but the one that says so.
    let earlier = json(world, &["--at", "2031-03-27T09:20:00Z"]);
    assert_eq!(kinds(&earlier), [("future", "2031-03-28 02:10"), ("future", "2031-03-27 11:30")]);
    assert_eq!((&earlier["audit"]["later"], &earlier["audit"]["total"]["opened"]), (&7.into(), &5210.into()));
    let days = watched["audit"]["days"].as_array().expect("days");
    assert_eq!((days.len(), &days[29]["day"]), (30, &"2031-03-31".into()));
    assert_eq!((&days[25]["day"], &days[25]["opened"]), (&"2031-03-27".into(), &25_400.into()));
}

#[test]
fn a_new_actor_and_a_clock_that_is_ahead_are_anomalies() {
    let audited = Audited::new();
    let world = &audited.0;
    let ordinary =
        ["08", "09", "10", "11"].map(|hour| (&*format!("2031-03-27T{hour}:10:00Z").leak(), "patient-api", 100));
    let with = |more: &[(&'static str, &'static str, u64)]| {
        write_trail(&audited.file(), &[&ordinary[..], more].concat());
        json(world, &["--at", AT])
    };
    assert_eq!(kinds(&with(&[])), []);
    let stolen = with(&[("2031-03-27T12:10:00Z", "intruder", 1_000_000)]);
    assert_eq!(kinds(&stolen), [("burst", "2031-03-27 12:00")], "the first day of a trail has new actors alone");
    let later = with(&[("2031-03-28T12:10:00Z", "intruder", 7), ("2031-03-28T13:10:00Z", "another", 8)]);
    assert_eq!(kinds(&later), [("new-actor", "2031-03-28")]);
    let what = later["audit"]["anomalies"][0]["what"].as_str().expect("words");
    assert_eq!(what, "another, intruder opened values for the first time, 15 of them on this day");
    assert!(
        stolen["audit"]["anomalies"][0]["what"].as_str().expect("words").contains("intruder is not known for long")
    );
    assert_eq!(stolen["audit"]["actors"], serde_json::json!(["intruder", "patient-api"]));
    let ahead = with(&[("2031-04-30T12:10:00Z", "intruder", 900_000)]);
    assert_eq!(kinds(&ahead), [("future", "2031-04-30 12:10")]);
    let what = ahead["audit"]["anomalies"][0]["what"].as_str().expect("words");
    assert!(what.contains("900000 opened values") && what.contains("intruder"), "{what}");
    assert_eq!((&ahead["audit"]["later"], &ahead["audit"]["total"]["opened"]), (&1.into(), &400.into()));
    // What is no event is counted as well.
    let text = fs::read_to_string(audited.file()).expect("the trail");
    fs::write(audited.file(), text.replacen("\"action\"", "\"acton\"", 1)).expect("written");
    let damaged = json(world, &["--at", AT]);
    assert_eq!(damaged["audit"]["unread"], 1);
    assert!(kinds(&damaged).iter().any(|(kind, _)| *kind == "unreadable"));
}

#[test]
fn a_kek_beside_the_key_records_is_said() {
    let audited = Audited::new();
    let world = &audited.0;
    let place = |made: &Json| (made["keks"][0]["place"].clone(), made["keks"][0]["beside"].clone());
    let separation = |made: &Json| {
        let controls = made["controls"].as_array().expect("controls").clone();
        let row = controls.into_iter().find(|row| row["clause"] == "unreadable health information").expect("a row");
        row["measured"].to_string()
    };
    let beside = json(world, &[]);
    assert_eq!(place(&beside), ("IN THE FOLDER OF THE KEY RECORDS".into(), true.into()));
    // So does one that wraps audit chains alone: it is no key service.
    let audit = &beside["keks"][1];
    assert_eq!(
        (&audit["wraps"], &audit["place"], &audit["beside"]),
        (&"audit chains".into(), &"IN THE FOLDER OF THE KEY RECORDS".into(), &true.into())
    );
    assert!(!beside.to_string().contains("in a key service"));
    assert!(separation(&beside).contains("IN THE FOLDER OF THE KEY RECORDS"));
    assert!(
        report(world, &[]).expect(0, &[]).stdout_text().contains("1 OF THOSE THAT WRAP KEYS BESIDE THE KEY RECORDS")
    );
    // In another folder, of the same disk.
    fs::create_dir(world.path("safe")).expect("a folder");
    fs::rename(world.keys().join("local.kek"), world.path("safe/local.kek")).expect("moved");
    let config = fs::read_to_string(world.config()).expect("the configuration");
    let uri = format!("local:{}", world.path("safe/local.kek").display());
    fs::write(world.config(), config.replace("local:local.kek", &uri)).expect("written");
    assert_eq!(place(&json(world, &[])), ("ON THE FILE SYSTEM OF THE KEY RECORDS".into(), true.into()));
    fs::remove_file(world.path("safe/local.kek")).expect("removed");
    let gone = json(world, &[]);
    assert_eq!(place(&gone), ("not on this machine".into(), false.into()));
    assert!(separation(&gone).contains("\"KEK local (file) is not on this machine\""));
    let overview = report(world, &[]).expect(0, &[]);
    assert!(overview.stdout_text().contains("2; 1 KEK file not on this machine, so nobody knows"), "no promise");
}

#[test]
fn the_first_key_is_no_rotation() {
    let world = World::new();
    let rotations = |world: &World, class: &str| json(world, &[])["keys"]["rotations"][class]["count"].clone();
    world.protect(&["--scope", "one"]);
    world.protect(&["--scope", "two"]);
    assert_eq!((rotations(&world, "data"), rotations(&world, "root")), (0.into(), 0.into()));
    let text = report(&world, &[]).expect(0, &[]);
    assert!(text.stdout_text().contains("no data key took the place of another one yet"));
    world.succeeds(&["keys", "rotate"]);
    assert_eq!((rotations(&world, "data"), rotations(&world, "root")), (1.into(), 0.into()));
    assert!(report(&world, &[]).expect(0, &[]).stdout_text().contains("1 of data keys, the last "));
}

#[test]
fn a_root_that_was_retired_is_no_sign_of_tampering() {
    let world = World::new();
    world.protect(&[]);
    let config = fs::read_to_string(world.config()).expect("the configuration");
    let rotated = world.run(&["keys", "rotate", "--root", "--json"]).expect(0, &[]);
    let pin = rotated.json_lines()[0]["root_pin"].as_str().expect("a pin").to_owned();
    let line = |pins: &str| {
        let old = config.lines().find(|line| line.starts_with("root_pins")).expect("pins");
        fs::write(world.config(), config.replace(old, &format!("root_pins = [{pins}]"))).expect("written");
    };
    let old = config.split("root_pins = [").nth(1).expect("pins").split(']').next().expect("pins");
    line(&format!("\"{pin}\", {old}"));
    world.succeeds(&["keys", "reparent"]);
    line(&format!("\"{pin}\""));
    let made = json(&world, &["--verify"]);
    assert_eq!((&made["keys"]["verified"], &made["keys"]["refused"]), (&true.into(), &0.into()));
    let text = report(&world, &["--verify"]).expect(0, &[]);
    assert!(text.stdout_text().contains("not pinned any more, and no key needs it"));
}

// Failure T11
#[test]
fn names_that_are_not_what_they_look_like_are_shown_as_they_are() {
    let world = World::new();
    world.write(
        "odd.toml",
        "version = 1\n[fields.\"patient.\u{202e}nss\u{200b}\"]\nidentifier = \"G\"\nrow_binding = \"none\"\n",
    );
    for format in ["md", "html"] {
        let made = report(&world, &["--policy", "odd.toml", "--format", format]).expect(0, &[]);
        let text = made.stdout_text().replace("\\\\", "\\");
        assert!(text.contains("patient.\\u{202e}nss\\u{200b}"), "{format}");
        assert!(!text.contains(['\u{202e}', '\u{200b}']), "{format}");
    }
    let diff = world.run(&["policy", "diff", "policy.toml", "odd.toml"]);
    assert!(!diff.stdout_text().contains(['\u{202e}', '\u{200b}']), "{}", diff.stdout_text());
}

/// Tokens, indexes, a format that is kept, and documents with and without a manifest.
const MODERN: &str = r#"version = 1
[documents.patient]
only_if = { "$.resourceType" = "Patient" }
row_binding = "$.id"
[documents.device]
only_if = { "$.resourceType" = "Device" }
row_binding = "$.id"
manifest = "none"
[fields."p.name"]
identifier = "A"
mode = "document"
paths = ["$.name"]
[fields."p.code"]
mode = "token"
columns = ["code"]
[fields."p.number"]
mode = "format-preserving"
format = "digits"
columns = ["number"]
[fields."p.mrn"]
identifier = "H"
row_binding = "none"
columns = ["mrn"]
[fields."p.mrn".index.lookup]
kind = "digits"
bits = 12
"#;

#[test]
fn tokens_indexes_formats_and_manifests_are_in_the_matrix() {
    let world = World::new();
    world.write("modern.toml", MODERN);
    let made = json(&world, &["--policy", "modern.toml"]);
    let fields = made["fields"].as_array().expect("fields");
    let field = |name: &str| fields.iter().find(|field| field["field"] == name).expect("the field").clone();
    assert_eq!(field("p.name")["manifest"], "device: NONE; patient: required");
    assert_eq!((&field("p.name")["authenticated"], &field("p.number")["authenticated"]), (&true.into(), &false.into()));
    assert_eq!(field("p.code")["authenticated"], true);
    let index = |policy: &str| {
        world.write("modern.toml", policy);
        let made = json(&world, &["--policy", "modern.toml"]);
        let fields = made["fields"].as_array().expect("fields");
        let field = fields.iter().find(|field| field["field"] == "p.mrn").expect("the field");
        field["index"].as_str().expect("a text").to_owned()
    };
    let rows = MODERN.replace("version = 1\n", "version = 1\nrows = 1000000\n");
    assert_eq!(index(&rows), "lookup (digits, 12 bits, partition default); rows = 1000000");
    assert_eq!(index(MODERN), "lookup (digits, 12 bits, partition default); NO ROWS STATED, SO THE BITS ARE UNCHECKED");
    let shows = |policy: &str| {
        world.write("modern.toml", policy);
        let made = json(&world, &["--policy", "modern.toml"]);
        let fields = made["fields"].as_array().expect("fields");
        let field = fields.iter().find(|field| field["field"] == "p.mrn").expect("the field");
        field["shows"].as_str().expect("a text").to_owned()
    };
    assert_eq!(shows(&rows), "length; by index lookup in part which values are equal");
    let wide = MODERN.replace("bits = 12", "bits = 24");
    assert_eq!(shows(&wide), "length; by index lookup WHICH VALUES ARE EQUAL, unless checked bits say otherwise");
    let unique = MODERN.replace("bits = 12", "bits = 63\nunique = true");
    assert_eq!(shows(&unique), "length; by index lookup which values are equal");
    world.write("modern.toml", MODERN);
    let text = report(&world, &["--policy", "modern.toml"]).expect(0, &[]);
    assert!(text.stdout_text().contains("row: $.id") && !text.stdout_text().contains("$.id, $.id"), "once");
    assert!(!text.stdout_text().contains("suite <br>") && text.stdout_text().contains("1 retention warning "));
    let formats = made["controls"].as_array().expect("controls").iter().find(|row| row["clause"] == "FF1");
    let measured = &formats.expect("the row")["measured"];
    assert_eq!(*measured, serde_json::json!(["format-preserving, NOT AUTHENTICATED: p.number"]));
    for said in [
        "1 format-preserving, NOT AUTHENTICATED",
        "[documents]: device (manifest NONE), patient (manifest required)",
        "mode = \"token\": p.code",
        "fields of random tokens: p.code; derived, so no such codes: patient.id (deterministic), p.number (format-preserving), p.mrn (tokens of blind indexes)",
        "blind indexes: p.mrn: lookup (digits, 12 bits",
    ] {
        let said = said.replace('[', "\\[").replace(']', "\\]");
        assert!(text.stdout_text().contains(&said), "{said}");
    }
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
    let without = json(world, &[]);
    assert_eq!((&without["costs"], &without["prices"]), (&Json::Array(vec![]), &Json::Null), "a file costs nothing");
    assert!(report(world, &[]).expect(0, &[]).stdout_text().contains("No prices were given"));
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

    let other = World::new();
    let service = format!("{},other.toml", other.config().display());
    report(&world, &["--service", &service]).expect(POLICY, &["another keyring", "lineage"]);
}

#[test]
fn keys_of_blind_indexes_are_keys_of_the_field() {
    let world = World::new();
    world.write("modern.toml", MODERN);
    let made = json(&world, &["--policy", "modern.toml"]);
    let field = |name: &str| {
        let fields = made["fields"].as_array().expect("fields");
        let keys =
            fields.iter().find(|field| field["field"] == name).expect("the field")["keys"].as_array().expect("keys");
        keys.iter().map(|keys| keys["keys"].as_str().expect("a text").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(field("p.mrn"), ["data key of the scope", "look-up key of partition default"]);
    assert_eq!(field("p.name"), ["data key of the scope"]);
    let text = report(&world, &["--policy", "modern.toml"]).expect(0, &[]);
    assert!(text.stdout_text().contains("p.mrn (tokens of blind indexes)"));
}

#[test]
fn of_no_fields_nothing_is_said() {
    let world = World::new();
    let mut command = world.command(&["report"]);
    let text = run(command.arg("--config").arg(world.config()), b"").expect(0, &[]);
    assert!(text.stdout_text().contains("NO FIELD WAS GIVEN TO THIS REPORT"));
    for said in ["all authenticated", "every field is authenticated"] {
        assert!(!text.stdout_text().contains(said), "{said}");
    }
    // Without an audit trail nobody has looked.
    let text = String::from_utf8(report(&world, &[]).expect(0, &[]).stdout).expect("a text");
    assert!(text.contains("| To look at | anomalies are not known: there is no audit trail, "), "{text}");
}

#[test]
fn a_report_of_the_past_leaves_out_keys_that_were_not_there() {
    let world = World::new();
    let made = json(&world, &["--at", "2020-01-01"]);
    assert_eq!((&made["keys"]["keys"], &made["keys"]["counts"]), (&serde_json::json!([]), &serde_json::json!({})));
    let fields = made["fields"].as_array().expect("fields");
    assert!(
        fields
            .iter()
            .flat_map(|field| field["keys"].as_array().expect("keys"))
            .all(|keys| keys["last_rotation"].is_null())
    );
    let later = made["keys"]["later"].as_u64().expect("a number");
    assert!(later > 0 && json(&world, &[])["keys"]["later"] == 0);
    let text = report(&world, &["--at", "2020-01-01"]).expect(0, &[]);
    assert!(text.stdout_text().contains(&format!("Left out: {later} keys, made after this report's time")));
}

#[test]
fn that_a_key_was_compromised_outlives_the_state() {
    let audited = Audited::new();
    let world = &audited.0;
    world.protect(&[]);
    let key = json(world, &[])["keys"]["keys"]
        .as_array()
        .expect("keys")
        .iter()
        .find(|key| key["class"] == "data")
        .expect("a key")["key_id"]
        .as_str()
        .expect("an ID")
        .to_owned();
    world.succeeds(&["keys", "state", &key, "compromised"]);
    world.succeeds(&["keys", "state", &key, "destroy-pending"]);
    let made = json(world, &[]);
    assert!(kinds(&made).iter().any(|(kind, _)| *kind == "compromised"), "{:?}", kinds(&made));
    let text = report(world, &[]).expect(0, &[]);
    assert!(text.stdout_text().contains("1 destroy-pending; 1 MARKED COMPROMISED by the trail, the last on "));
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

/// Whether a text has a test of this name, and not only a function.
fn has_test(text: &str, function: &str) -> bool {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let at = lines.iter().position(|line| line.starts_with("fn ") && line.contains(&format!("fn {function}(")));
    let before =
        |at: usize| lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
    at.is_some_and(|at| before(at).any(|line| line.contains("test]")))
}

#[test]
fn every_row_of_the_control_map_names_what_exists() {
    let steps = Command::new(root().join("test")).arg("--list").output().ok().filter(|done| done.status.success());
    let steps = steps.map(|done| String::from_utf8(done.stdout).expect("text"));
    if steps.is_none() {
        skip("the steps of ./test, which cannot be run here");
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
                    assert!(has_test(&text, function), "{row}: there is no test {test}");
                }
                (None, None) => panic!("{row}: {test} is neither a step of ./test nor FILE::FUNCTION"),
            }
        }
    }
    for command in commands {
        let words: Vec<_> = command.split(' ').collect();
        match words[..] {
            ["python3", file] => assert!(root().join(file).exists(), "there is no {file}"),
            ["keyfold", ..] => {
                let help = run(keyfold().args(&words[1..]).arg("--help"), b"").expect(0, &[]);
                assert!(
                    help.stdout_text().contains(&format!("Usage: {command} ")),
                    "{command}: {}",
                    help.stdout_text()
                );
            }
            _ => panic!("{command} is neither of keyfold nor of tools"),
        }
    }
}
