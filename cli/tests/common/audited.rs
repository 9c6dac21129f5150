//! A keyring whose commands are recorded.
#![allow(dead_code, reason = "every test program uses a part of this")]

use super::common::{Run, World, keyfold, run};
use std::fs;
use std::path::PathBuf;

/// A keyring with an `[audit]` section and a KEK for it.
pub(crate) struct Audited(pub(crate) World);

impl Audited {
    pub(crate) fn new() -> Self {
        let world = World::new();
        run(keyfold().args(["keys", "new-kek"]).arg(world.keys().join("audit.kek")), b"").expect(0, &[]);
        let mut config = fs::read_to_string(world.config()).expect("the configuration");
        config.push_str(
            "[keks.audit]\nuri = \"local:audit.kek\"\nwraps = \"audit\"\n[audit]\nfile = \"audit.jsonl\"\nkek = \"audit\"\nanchors = \"anchors.jsonl\"\n",
        );
        fs::write(world.config(), config).expect("written");
        Self(world)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.keys().join("audit.jsonl")
    }

    pub(crate) fn audit(&self, arguments: &[&str]) -> Run {
        run(self.0.command(arguments).arg("--config").arg(self.0.config()), b"")
    }

    /// The actions of all lines.
    pub(crate) fn actions(&self) -> Vec<String> {
        let text = fs::read_to_string(self.file()).expect("the audit file");
        let action = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            line["action"].as_str().expect("a text").to_owned()
        };
        text.lines().map(action).collect()
    }
}
