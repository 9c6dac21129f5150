//! Each service by itself.

use crate::common::{PATIENTS, argument, keyfold, run};
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
