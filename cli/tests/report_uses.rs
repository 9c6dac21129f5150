//! `keyfold report`: who used which key when, with drills apart, and the trail and the configuration that it judged.

use crate::audited::Audited;
use crate::common::World;
use crate::report::{AT, json, kinds, report};
use serde_json::{Value as Json, json as value};
use std::fs;
use std::path::Path;

/// Events of a trail: time, action, actor, further members.
fn write_events(file: &Path, events: &[(&str, &str, &str, Json)]) {
    let line = |(seq, (time, action, actor, more)): (usize, &(&str, &str, &str, Json))| {
        let mut line = value!({
            "chain": "ab".repeat(16), "seq": seq + 1, "at": 0, "time": time, "action": action, "outcome": "ok", "actor": actor,
        });
        let members = more.as_object().expect("members").clone();
        line.as_object_mut().expect("an object").extend(members);
        // The MAC is the last member of a line.
        let text = line.to_string();
        format!("{},\"mac\":\"{}\"}}\n", text.strip_suffix('}').expect("an object"), "00".repeat(32))
    };
    fs::write(file, events.iter().enumerate().map(line).collect::<String>()).expect("written");
}

fn uses(report: &Json) -> &[Json] {
    report["audit"]["uses"].as_array().expect("uses")
}

/// The key that seals in the keyring, and its root.
fn keys(world: &World) -> (String, String) {
    let made = json(world, &[]);
    let all = made["keys"]["keys"].as_array().expect("keys");
    let of = |class: &str| {
        let is = |key: &&Json| key["class"] == class && key["slot"].is_null();
        all.iter().find(is).expect("a key")["key_id"].as_str().expect("an ID").to_owned()
    };
    (of("data"), of("root"))
}

#[test]
fn who_used_a_key_when_is_said_by_key_and_actor() {
    let audited = Audited::new();
    let world = &audited.0;
    world.protect(&[]);
    world.succeeds(&["reveal", "sealed.csv", "--output", "out.csv"]);
    let (data, root) = keys(world);
    let made = json(world, &[]);
    let of = |key: &str| uses(&made).iter().find(|of| of["key_id"] == key).expect("it was used");
    let (of_data, of_root) = (of(&data), of(&root));
    assert_eq!((&of_data["actor"], &of_data["class"]), (&"keyfold".into(), &"data".into()));
    // All but the IDs, which are under a look-up key.
    assert_eq!((&of_data["sealed"], &of_data["opened"]), (&9.into(), &9.into()));
    assert_eq!((&of_root["class"], &of_root["unwrapped"], &of_root["opened"]), (&"root".into(), &2.into(), &0.into()));
    assert!(of_data["first"].as_str() <= of_data["last"].as_str() && of_data["first"].is_string());
    for format in ["md", "html"] {
        let text = report(world, &["--format", format]).expect(0, &[]);
        for said in ["Use of keys", data.as_str(), "opened: 9", "sealed: 9", "unwrapped by a key service: 2"] {
            assert!(text.stdout_text().contains(said), "{format}: {said}");
        }
    }

    // Two services and some intervals; a key of which there is no record; values that name none.
    let key_of = |key: &str, opened: u64| value!({ "key_id": key, "field": "patient.ssn", "details": { "opened": opened.to_string(), "sealed": "2" } });
    let unknown = "ff".repeat(24);
    write_events(
        &audited.file(),
        &[
            ("2031-03-27T08:10:00.25Z", "use", "patient-api", key_of(&data, 5)),
            ("2031-03-27T09:10:00Z", "use", "export", key_of(&data, 700)),
            ("2031-03-28T08:10:00Z", "use", "patient-api", key_of(&data, 6)),
            ("2031-03-29T08:10:00Z", "use", "export", key_of(&unknown, 1)),
            (
                "2031-03-30T08:10:00Z",
                "use",
                "export",
                value!({ "field": "patient.ssn", "details": { "DecryptionFailed": "3" } }),
            ),
            ("2031-04-30T08:10:00Z", "use", "export", key_of(&data, 1)),
        ],
    );
    let made = json(world, &["--at", AT]);
    let row = |of: &Json| value!([of["key_id"], of["actor"], of["first"], of["opened"], of["sealed"], of["failed"]]);
    let expected = value!([
        [null, "export", "2031-03-30T08:10:00Z", 0, 0, 3],
        [unknown, "export", "2031-03-29T08:10:00Z", 1, 2, 0],
        [data, "patient-api", "2031-03-27T08:10:00Z", 11, 4, 0],
        [data, "export", "2031-03-27T09:10:00Z", 700, 2, 0],
    ]);
    let said: Json = uses(&made).iter().map(row).collect();
    assert_eq!(said, expected, "who used a key last comes first, and what is dated later is left out");
    assert_eq!(uses(&made)[2]["last"], "2031-03-28T08:10:00Z");
    let text = report(world, &["--at", AT]).expect(0, &[]);
    assert!(text.stdout_text().contains("NO RECORD OF THIS KEY") && text.stdout_text().contains("failed: 3"));
}

#[test]
fn of_many_keys_the_latest_are_written_out_and_json_has_all() {
    let audited = Audited::new();
    let ids: Vec<_> = (0..130).map(|n| format!("{n:048x}")).collect();
    let times: Vec<_> = (0..130).map(|n| format!("2031-03-27T{:02}:{:02}:00Z", n / 60, n % 60)).collect();
    let of = |(id, time): (&String, &String)| {
        (time.clone(), value!({ "key_id": id, "field": "patient.ssn", "details": { "opened": "1" } }))
    };
    let events: Vec<_> = ids.iter().zip(&times).map(of).collect();
    let events: Vec<_> = events.iter().map(|(time, more)| (time.as_str(), "use", "api", more.clone())).collect();
    write_events(&audited.file(), &events);
    let made = json(&audited.0, &["--at", AT]);
    assert_eq!((uses(&made).len(), &uses(&made)[0]["key_id"]), (130, &ids[129].clone().into()));
    let text = report(&audited.0, &["--at", AT]).expect(0, &[]);
    assert!(text.stdout_text().contains("the latest 100 of 130") && text.stdout_text().contains("And 30 more"));
    assert!(text.stdout_text().contains(&ids[30]) && !text.stdout_text().contains(&ids[29]));
    // Without a trail nobody can say.
    let text = report(&World::new(), &[]).expect(0, &[]);
    assert!(text.stdout_text().contains("nobody can say who used a key"));
}

#[test]
fn drills_are_no_opened_values() {
    let audited = Audited::new();
    let world = &audited.0;
    world.protect(&[]);
    world.succeeds(&["reveal", "sealed.csv", "--output", "out.csv"]);
    let before = json(world, &[]);
    for _ in 0..3 {
        world.succeeds(&["keys", "drill"]);
    }
    // Whatever the time, it is outside of these hours.
    let made = json(world, &["--hours", "mon 00:00-00:01"]);
    let (audit, earlier) = (&made["audit"], &before["audit"]);
    assert_eq!((&audit["total"], &audit["days"][29]), (&earlier["total"], &earlier["days"][29]));
    assert_eq!((&audit["drilled"], &earlier["drilled"]), (&3.into(), &0.into()));
    let (data, _) = keys(world);
    let of_data = uses(&made).iter().find(|of| of["key_id"] == data.as_str()).expect("it was used");
    assert_eq!((&of_data["opened"], &of_data["drilled"]), (&9.into(), &3.into()));
    assert!(kinds(&made).iter().all(|(kind, _)| *kind == "outside-hours"), "{:?}", kinds(&made));
    assert!(!audit["anomalies"].to_string().contains("15 values"), "{}", audit["anomalies"]);
    let text = report(world, &[]).expect(0, &[]);
    assert!(text.stdout_text().contains("| Values that drills opened, in no other figure of values | 3 |"));

    // A field of that name hides nothing.
    let opened = |n: &str| value!({ "key_id": data, "field": "keyfold.drill", "details": { "opened": n } });
    let of_drill = |n: &str| {
        let drill = ("2031-03-27T08:10:01Z", "drill", "api", value!({ "kek": "local" }));
        write_events(&audited.file(), &[("2031-03-27T08:10:00Z", "use", "api", opened(n)), drill]);
        json(world, &["--at", AT])
    };
    assert_eq!(kinds(&of_drill("1")), []);
    let many = of_drill("2");
    assert_eq!(kinds(&many), [("drills", "2031-03-27 08:10")]);
    let what = many["audit"]["anomalies"][0]["what"].as_str().expect("words");
    assert!(what.contains("api opened 2 values of keyfold.drill, and the trail has 1 drill of KEKs"), "{what}");
}

#[test]
fn a_time_that_was_given_is_not_when_the_report_was_made() {
    let world = World::new();
    let text = |arguments: &[&str]| String::from_utf8(report(&world, arguments).expect(0, &[]).stdout).expect("a text");
    let given = text(&["--at", AT]);
    assert!(given.contains("| As of | 2031-03-31 12:00 UTC (--at), by keyfold ") && !given.contains("| Made | 20"));
    assert_eq!((&json(&world, &["--at", AT])["as_of"], &json(&world, &[])["as_of"]), (&true.into(), &false.into()));
    assert!(text(&[]).contains("| Made | 20") && !text(&[]).contains("As of"));
}

#[test]
fn a_report_says_which_configuration_and_policies_it_judged() {
    let audited = Audited::new();
    let world = &audited.0;
    world.protect(&[]);
    let made = json(world, &[]);
    let of = &made["digests"][0];
    let files = of["files"].as_array().expect("files");
    let named: Vec<_> = files.iter().map(|file| file["file"].as_str().expect("a name")).collect();
    assert_eq!(named, [world.config().to_str().expect("a name"), "policy.toml"]);
    let digest = |file: &Path| keyfold_open::statement_digest(&fs::read(file).expect("a file"));
    assert_eq!(files[0]["sha256"], digest(&world.config()));
    assert_eq!(files[1]["sha256"], digest(&world.path("policy.toml")));
    // As the trail knows the two together, wherever a keyring was opened with them.
    let all = of["configuration_sha256"].as_str().expect("a digest");
    let trail = fs::read_to_string(audited.file()).expect("the trail");
    assert!(trail.contains(&format!("\"configuration_sha256\":\"{all}\"")), "{trail}");
    let text = report(world, &[]).expect(0, &[]);
    assert!(text.stdout_text().contains(all) && text.stdout_text().contains(&digest(&world.path("policy.toml"))));
    // Another policy is another one.
    world.write("policy.toml", world.text("policy.toml") + "\n");
    assert!(json(world, &[])["digests"][0]["configuration_sha256"] != all);
}
