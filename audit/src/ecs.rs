//! Events for a SIEM: as the Elastic Common Schema names them (docs/AUDIT.md has the table).

use crate::line::ReadLine;
use keyfold::ChainId;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;

/// The version of the schema.
const VERSION: &str = "8.17.0";

/// Turns the lines of audit files into events, one after the other. Verifies nothing.
#[derive(Debug, Default)]
pub struct Ecs {
    /// Where each chain is written: what its header says.
    writers: BTreeMap<ChainId, Map<String, Json>>,
}

impl Ecs {
    /// The event of a line, without its line feed; `None`: the line is no event.
    pub fn event(&mut self, line: &[u8]) -> Option<Json> {
        let line = ReadLine::parse(line)?;
        if line.is_header() {
            self.writers.insert(line.chain, line.pick(&["host", "process", "program", "user"]));
            return None;
        }
        if !line.is_event() {
            return None;
        }
        let members = line.members()?;
        let text = |name: &str| members.get(name)?.as_str();
        let number = |name: &str| members.get(name)?.as_u64();
        let (category, kind) = classify(&line.action);
        let outcome = match text("outcome") {
            Some("ok") => "success",
            Some(_) => "failure",
            None => "unknown",
        };
        let mut event = json!({
            "kind": "event", "module": "keyfold", "dataset": "keyfold.audit", "provider": "keyfold", "action": line.action,
            "category": [category], "type": [kind], "outcome": outcome, "sequence": line.seq,
            "id": format!("{}-{}", line.chain, line.seq),
        });
        if let Some(micros) = number("latency_us") {
            event["duration"] = micros.saturating_mul(1000).into();
        }
        if let Some(reason) = text("reason") {
            event["reason"] = reason.into();
        }
        let mut out = json!({ "@timestamp": line.time, "ecs": { "version": VERSION }, "event": event });
        if outcome == "failure" {
            let code = number("code").map(|code| code.to_string());
            out["error"] = json!({ "code": code, "type": text("outcome") });
        }
        if let Some(actor) = text("actor") {
            out["service"] = json!({ "name": actor, "environment": text("environment") });
        }
        if let Some(writer) = self.writers.get(&line.chain) {
            let text = |name: &str| writer.get(name).cloned().unwrap_or_default();
            out["host"] = json!({ "name": text("host") });
            out["process"] = json!({ "pid": text("process"), "name": text("program") });
            out["user"] = json!({ "id": writer.get("user").map(ToString::to_string) });
        }
        let mut own = Map::new();
        own.insert("chain".to_owned(), line.chain.to_string().into());
        for name in ["keyring", "lineage", "key_id", "kek", "field", "details", "lost", "kind", "body"] {
            own.extend(members.get(name).map(|value| (name.to_owned(), value.clone())));
        }
        out["keyfold"] = own.into();
        Some(out)
    }
}

/// `event.category` and `event.type` of an action.
fn classify(action: &str) -> (&'static str, &'static str) {
    match action {
        "opened" => ("process", "start"),
        "wrap" | "unwrap" | "recovery" | "break-glass" | "drill" | "probe" | "provision" => ("configuration", "access"),
        "key-made" => ("configuration", "creation"),
        "shredded" => ("configuration", "deletion"),
        "use" => ("database", "access"),
        "reencrypt" | "rebind" | "backfill" => ("database", "change"),
        "backup" | "statement" | "statement-signed" => ("configuration", "info"),
        _ => ("configuration", "change"),
    }
}
