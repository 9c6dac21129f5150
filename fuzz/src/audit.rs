//! Audit files: any bytes are reported on, and every edit of a trail shows.

use crate::edit::{Edit, edit};
use arbitrary::{Arbitrary, Unstructured};
use keyfold::config::Config;
use keyfold::testing::{FakeKms, block_on};
use keyfold::{AuditAction, AuditEvent, AuditSink, KekAlias, Kms, Lineage};
use keyfold_audit::{Anchor, AuditFiles, AuditText, ChainEnd, Expected, FileAudit, verify, verify_statement};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

struct Lab {
    trail: Vec<u8>,
    other: Vec<u8>,
    expected: Expected,
}

/// A change of whole lines.
#[derive(Arbitrary, Debug)]
enum Lines {
    Delete(u8),
    Swap(u8, u8),
    Repeat { line: u8, at: u8 },
    Foreign { line: u8, at: u8 },
    Cut(u8),
}

#[derive(Arbitrary, Debug)]
enum Attack {
    Raw(Vec<u8>),
    Bytes(Vec<Edit>),
    Lines(Vec<Lines>),
}

/// Changes a trail, and has it verified.
pub fn run(data: &[u8]) {
    static LAB: OnceLock<Lab> = OnceLock::new();
    let lab = LAB.get_or_init(Lab::new);
    let Ok(attack) = Attack::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let changed = match attack {
        Attack::Raw(bytes) => bytes,
        Attack::Bytes(edits) => edit(&lab.trail, &edits, &[lab.trail.clone(), lab.other.clone()]),
        Attack::Lines(moves) => lab.rearranged(&moves),
    };
    let file = AuditText { name: "audit.jsonl".into(), bytes: changed };
    let files = AuditFiles::in_memory(std::slice::from_ref(&file));
    let report = block_on(files.verify(&lab.expected));
    let structure = block_on(verify(std::slice::from_ref(&file), &Expected::default()));
    let _ = (report.to_json(), structure.to_json());
    let mut lines = 0;
    files.each_line(|_| lines += 1).expect("memory does not change");
    assert_eq!(report.files[0].1, lines, "each line is handed over, whatever it is");
    assert_eq!(files.statements().expect("memory does not change").len(), usize::from(!files.has_trail()));
    for head in files.heads().expect("no line is that long") {
        let line = head.to_line().expect("an anchor has a line");
        let again = Anchor::parse(line.trim_end()).expect("an anchor is read again");
        assert!((again.file, again.chain, again.seq, again.mac) == (head.file, head.chain, head.seq, head.mac));
    }
    let is_whole = file.bytes == lab.trail || file.bytes == lab.other;
    if is_whole {
        assert!(report.is_clean() && structure.is_clean(), "{:?}", report.findings);
    } else if report.is_clean() && report.is_authenticated() {
        // A header that no audit KEK unwraps is of another KEK, which the report says. What a crash leaves of a line is none, and without
        // anchors it does not show that a chain went on. Nothing else stays hidden.
        let lines = file.bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\"}\n"));
        let whole = lines.collect::<Vec<_>>().concat();
        let is_cut = [&lab.trail, &lab.other].into_iter().any(|trail| trail.starts_with(&whole));
        let is_open = report.chains.iter().all(|chain| chain.end == ChainEnd::Open);
        assert!(is_cut, "an edit that does not show: {}", file.bytes.escape_ascii());
        assert!(is_open || [&lab.trail, &lab.other].contains(&&whole), "a chain that ends without its end");
    }
    if let (Ok(text), Some(kek)) = (std::str::from_utf8(&file.bytes), lab.expected.keks.values().next()) {
        assert!(block_on(verify_statement(text, &**kek)).is_err(), "a statement that nobody signed");
    }
}

impl Lab {
    fn new() -> Self {
        let lineage = Lineage::from_bytes([0x11; 16]);
        let text = format!(
            "version = 1\n[keyring]\nname = \"clinic\"\nenvironment = \"test\"\nlineage = \"{lineage}\"\nroot_pins = [\"{:064}\"]\nscope_names = \"{:048}\"\n[store]\nuri = \"sqlite:keys.db\"\n[keks.local]\nuri = \"local:local.kek\"\n[keks.audit]\nuri = \"local:audit.kek\"\nwraps = \"audit\"\n[audit]\nfile = \"audit.jsonl\"\nkek = \"audit\"\nactor = \"fuzz\"\n",
            0, 0
        );
        let config = Config::parse(&text, "keyfold.toml").expect("a configuration");
        let kek: Arc<dyn Kms> = Arc::new(FakeKms::new());
        let trail = || {
            let folder = tempfile::tempdir().expect("a folder");
            let audit = config.audit.as_ref().expect("it has one");
            let sink = FileAudit::open(audit, folder.path(), &config.keyring, kek.clone()).expect("a sink");
            for n in 0..4_u64 {
                sink.record(AuditEvent::new(AuditAction::Use).detail("sealed", n)).expect("recorded");
            }
            drop(sink);
            std::fs::read(folder.path().join("audit.jsonl")).expect("it was written")
        };
        let (trail, other) = (trail(), trail());
        let keks = BTreeMap::from([(KekAlias::new("audit").expect("an alias"), kek)]);
        Self { trail, other, expected: Expected { keks, lineage: Some(lineage), ..Expected::default() } }
    }

    fn rearranged(&self, moves: &[Lines]) -> Vec<u8> {
        let split = |trail: &[u8]| trail.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
        let (mut lines, theirs) = (split(&self.trail), split(&self.other));
        for one in moves {
            if lines.is_empty() {
                break;
            }
            let count = lines.len();
            let at = |at: &u8| usize::from(*at) % count;
            match one {
                Lines::Delete(line) => drop(lines.remove(at(line))),
                Lines::Swap(a, b) => lines.swap(at(a), at(b)),
                Lines::Repeat { line, at: to } => lines.insert(at(to), lines[at(line)].clone()),
                Lines::Foreign { line, at: to } => {
                    lines.insert(at(to), theirs[usize::from(*line) % theirs.len()].clone())
                }
                Lines::Cut(line) => lines.truncate(at(line)),
            }
        }
        lines.concat()
    }
}
