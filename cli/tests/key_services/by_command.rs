//! Each service by itself.

use crate::common::{KMS, PATIENTS, POLICY, USAGE, World, argument, keyfold, run};
use crate::keyring::{Ring, section};
use crate::services::{Service, alone, say};
use serde_json::Value;
use std::fs;

/// Those whose answers have an ID under which the provider's own log has the request.
const WITH_REQUEST_ID: [Service; 3] = [Service::Vault, Service::Aws, Service::Azure];

#[test]
fn a_root_in_each_key_service_by_command() {
    let _alone = alone();
    for service in Service::given().into_iter().filter(|service| *service != Service::Callback) {
        let ring = Ring::new();
        let (world, keys) = (&ring.world, ring.world.keys());
        let uri = ring.move_to(service);
        let audit = keys.join("audit.kek");
        run(keyfold().args(["keys", "new-kek", argument(&audit)]), b"").expect(0, &[]);
        let audit = "[keks.audit]\nuri = \"local:audit.kek\"\nwraps = \"audit\"\n[audit]\nfile = \"audit.jsonl\"\nkek = \"audit\"\n";
        ring.configure(&(section(service, &uri) + audit));
        world.protect(&[]);
        world.succeeds(&["reveal", "sealed.csv", "--output", "out.csv"]);
        assert_eq!(world.text("out.csv"), PATIENTS, "{service:?}");
        let drill = world.succeeds(&["keys", "drill"]);
        assert!(drill.stdout_text().contains(&format!("KEK {}: ok", service.alias())), "{}", drill.stdout_text());
        world.succeeds(&["keys", "rotate", "--root"]);
        let events = fs::read_to_string(keys.join("audit.jsonl")).expect("the audit file");
        let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let asked = |action: &str| {
            let is_meant = |event: &&Value| event["action"] == action && event["kek"] == service.alias();
            events.iter().filter(is_meant).collect::<Vec<_>>()
        };
        // `protect`, `reveal` and the drill; the new root.
        let (wraps, unwraps) = (asked("wrap"), asked("unwrap"));
        assert!(!wraps.is_empty() && unwraps.len() >= 3, "{service:?}: {wraps:?} {unwraps:?}");
        for event in wraps.iter().chain(&unwraps) {
            assert_eq!(event["outcome"], "ok", "{event}");
            let id = event["details"]["request_id"].as_str();
            assert_eq!(id.is_some_and(|id| id.len() >= 16), WITH_REQUEST_ID.contains(&service), "{event}");
        }
        say(&format!("{service:?}: {} wraps, {} unwraps by command, recorded", wraps.len(), unwraps.len()));
    }
}

#[test]
fn a_keyring_can_begin_in_each_key_service() {
    let _alone = alone();
    for service in Service::given().into_iter().filter(|service| *service != Service::Callback) {
        let (world, folder) = (World::new(), tempfile::tempdir().expect("a folder"));
        let uri = service.new_key(folder.path());
        let (config, kek) = (folder.path().join("keyfold.toml"), format!("{}={uri}", service.alias()));
        let made = run(keyfold().arg("init").arg(folder.path()).args(["--kek", &kek]), b"").expect(0, &[]);
        assert!(made.stdout_text().contains("opens the keyring"), "{}", made.stdout_text());
        assert!(!folder.path().join("local.kek").exists(), "{service:?}");
        let config = argument(&config);
        world.succeeds(&["protect", "in.csv", "--output", "own.csv", "--config", config]);
        world.succeeds(&["reveal", "own.csv", "--output", "out.csv", "--config", config]);
        assert_eq!(world.text("out.csv"), PATIENTS, "{service:?}");
        // What `init` made is of this KEK alone.
        world
            .command(&["reveal", "own.csv", "--output", "other.csv"])
            .output()
            .map(|run| assert!(!run.status.success()))
            .expect("ran");
    }
}

#[test]
fn a_kek_that_does_not_answer_leaves_no_keyring() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("token"), "s.token").expect("written");
    let away = "a=vault://127.0.0.1:1/transit/k?token_file=token&tls=off";
    for (keks, code, says) in [
        (vec![away], KMS, "cannot be reached"),
        (vec![away, "b=vault://127.0.0.1:1/transit/k?token_file=token&tls=off"], POLICY, "two aliases"),
        (vec![away, away], USAGE, "names an alias twice"),
        (vec!["a=ftp://127.0.0.1/k"], POLICY, "not one that this build knows"),
        (vec!["vault://127.0.0.1:1/transit/k"], USAGE, "ALIAS=URI, such as"),
    ] {
        let mut init = keyfold();
        init.arg("init").arg(folder.path()).args(keks.iter().flat_map(|kek| ["--kek", *kek]));
        run(&mut init, b"").expect(code, &[says]);
        let left: Vec<_> =
            fs::read_dir(&folder).expect("read").map(|entry| entry.expect("an entry").file_name()).collect();
        assert_eq!(left, ["token"], "{keks:?}");
    }
}
