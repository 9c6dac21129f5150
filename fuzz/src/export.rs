//! What `keyfold audit export` makes of lines: an event of each that is one, on one line, which says nothing that the line does not.

use crate::memory::bounded;
use crate::trail::{Entry, entries};
use arbitrary::Unstructured;
use keyfold_audit::{Ecs, Event};
use serde_json::Value as Json;
use std::collections::HashMap;

/// Actions of lines that are no events.
const HOLD_TOGETHER: [&str; 4] = ["chain-begun", "chain-continued", "chain-ended", "file-ended"];

/// Exports the bytes as a file, and lines that somebody makes up.
pub fn run(data: &[u8]) {
    let split: Vec<Vec<u8>> = data.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    check(&split, false);
    let entries = entries(&mut Unstructured::new(data));
    let lines: Vec<Vec<u8>> = entries.iter().map(Entry::bytes).collect();
    check(&lines, entries.iter().all(|entry| matches!(entry, Entry::Line(_))));
}

fn check(lines: &[Vec<u8>], all_are_lines: bool) {
    let (mut ecs, mut headers) = (Ecs::default(), HashMap::new());
    for line in lines {
        let line = line.trim_ascii_end();
        let event = bounded(line.len(), 32, || ecs.event(line));
        let read = Event::read(line);
        assert_eq!(event.is_some(), matches!(read, Ok(Some(_))), "a line is an event for one and not for the other");
        assert!(read.is_ok() || !all_are_lines, "a line was not read: {}", line.escape_ascii());
        let said: Json = serde_json::from_slice(line).unwrap_or_default();
        let (chain, action) = (said["chain"].as_str(), said["action"].as_str());
        if read.is_ok() {
            assert_eq!(event.is_none(), action.is_some_and(|action| HOLD_TOGETHER.contains(&action)));
            if matches!(action, Some("chain-begun" | "chain-continued")) {
                headers.insert(chain.map(str::to_owned), said.clone());
            }
        }
        let Some(event) = event else { continue };
        assert!(!event.to_string().contains('\n'), "an event on two lines");
        let header = headers.get(&chain.map(str::to_owned));
        let text = |name: &str| said[name].as_str();
        assert_eq!((event["@timestamp"].as_str(), event["event"]["action"].as_str()), (text("time"), action));
        assert_eq!(event["event"]["id"], format!("{}-{}", chain.unwrap_or_default(), said["seq"]));
        let micros = said["latency_us"].as_u64().map(u128::from);
        let nanos = micros.map(|micros| u64::try_from(micros * 1000).unwrap_or(u64::MAX));
        assert_eq!(event["event"]["duration"].as_u64(), nanos);
        assert_eq!(event["service"]["name"].as_str(), text("actor"));
        // One that is no text takes as much memory as somebody likes.
        let host = header.map(|header| &header["host"]).filter(|host| !host.is_array() && !host.is_object());
        let host = host.unwrap_or(&Json::Null);
        assert_eq!(event["host"]["name"], *host, "the host of another header");
        let outcome = match text("outcome") {
            Some("ok") => "success",
            Some(_) => "failure",
            None => "unknown",
        };
        assert_eq!(event["event"]["outcome"], outcome);
        for name in ["key_id", "kek", "field", "details", "lost"] {
            assert_eq!(event["keyfold"][name], said[name]);
        }
    }
}
