//! An audit trail in a folder, and what somebody does to it.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]
#![allow(clippy::unwrap_used, reason = "a test")]

use keyfold::config::Config;
use keyfold::{AuditAction, AuditEvent, AuditSink, Clock, KekAlias, Kms, Lineage};
use keyfold_audit::{AuditText, Expected, FileAudit, FindingKind, Report, files_of};
use keyfold_kms::LocalKek;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

pub const FILE: &str = "audit.jsonl";
pub const ANCHORS: &str = "anchors.jsonl";

/// A clock that goes when it is told to.
#[derive(Default)]
pub struct TestClock(AtomicU64);

impl TestClock {
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Duration {
        Duration::from_secs(1000 + self.0.load(Ordering::Relaxed))
    }
}

pub struct Trail {
    pub folder: TempDir,
    pub kek: Arc<dyn Kms>,
    pub config: Config,
    pub clock: Arc<TestClock>,
}

impl Trail {
    /// A trail with these lines in its `[audit]` section.
    pub fn new(section: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kek = Arc::new(LocalKek::create(folder.path().join("audit.kek")).unwrap());
        Self { config: config(section), kek, folder, clock: Arc::default() }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join(FILE)
    }

    pub fn sink(&self) -> FileAudit {
        self.sink_with(self.kek.clone())
    }

    pub fn sink_with(&self, kek: Arc<dyn Kms>) -> FileAudit {
        let audit = self.config.audit.as_ref().unwrap();
        FileAudit::open_with_clock(audit, self.folder.path(), &self.config.keyring, kek, self.clock.clone()).unwrap()
    }

    pub fn texts(&self) -> Vec<AuditText> {
        files_of(&self.path()).unwrap().iter().map(|path| text(path)).collect()
    }

    pub fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.path()).unwrap()
    }

    pub fn anchors(&self) -> Vec<(String, String)> {
        vec![(ANCHORS.to_owned(), std::fs::read_to_string(self.folder.path().join(ANCHORS)).unwrap())]
    }

    pub fn expected(&self) -> Expected {
        let keks = BTreeMap::from([(KekAlias::new("audit").unwrap(), self.kek.clone())]);
        Expected { keks, lineage: Some(self.config.keyring.lineage), anchors: Vec::new() }
    }

    pub fn anchored(&self) -> Expected {
        Expected { anchors: self.anchors(), ..self.expected() }
    }

    pub fn verify(&self) -> Report {
        verify(&self.texts(), &self.expected())
    }

    /// What is found in one file with this content.
    pub fn verify_bytes(&self, bytes: &[u8]) -> Report {
        verify(&[AuditText { name: FILE.to_owned(), bytes: bytes.to_vec() }], &self.expected())
    }
}

pub fn config(section: &str) -> Config {
    let lineage = Lineage::from_bytes([0x11; 16]);
    let text = format!(
        "version = 1\n[keyring]\nname = \"clinic\"\nenvironment = \"test\"\nlineage = \"{lineage}\"\nroot_pins = [\"{:064}\"]\nscope_names = \"{:048}\"\n[store]\nuri = \"sqlite:keys.db\"\n[keks.local]\nuri = \"local:local.kek\"\n[keks.audit]\nuri = \"local:audit.kek\"\nwraps = \"audit\"\n[audit]\nfile = \"{FILE}\"\nkek = \"audit\"\nactor = \"patient-api\"\n{section}\n",
        0, 0
    );
    Config::parse(&text, "keyfold.toml").unwrap()
}

pub fn text(path: &Path) -> AuditText {
    AuditText { name: path.file_name().unwrap().to_string_lossy().into_owned(), bytes: std::fs::read(path).unwrap() }
}

pub fn verify(texts: &[AuditText], expected: &Expected) -> Report {
    pollster::block_on(keyfold_audit::verify(texts, expected))
}

pub fn event(n: u64) -> AuditEvent {
    AuditEvent::new(AuditAction::Use).detail("sealed", n)
}

pub fn record(sink: &FileAudit, events: std::ops::Range<u64>) {
    for n in events {
        sink.record(event(n)).unwrap();
    }
}

pub fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|&byte| byte == b'\n').collect()
}

pub fn kinds(report: &Report) -> Vec<(Option<u64>, FindingKind)> {
    report.findings.iter().map(|finding| (finding.line, finding.kind)).collect()
}

/// How often each number was recorded: what [`event`] said.
pub fn recorded(texts: &[AuditText]) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    for text in texts {
        for line in String::from_utf8(text.bytes.clone()).unwrap().lines() {
            // What is cut off is not recorded.
            let line = if line.ends_with("\"}") { line } else { "" };
            let Some((_, rest)) = line.split_once("\"sealed\":\"") else { continue };
            *counts.entry(rest.split('"').next().unwrap().parse().unwrap()).or_default() += 1;
        }
    }
    counts
}
