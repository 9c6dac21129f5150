//! How much one run does for lines that nobody has checked yet: whoever edits the files has them claim what he likes.

/// No chain has a line with this number or a higher one.
pub(super) const MAX_LINES: u64 = 1 << 24;
/// Headers that give no key, behind which no key is asked for any more: whoever makes headers up has a key service asked once for each.
pub(super) const MAX_REFUSED: u64 = 1000;

/// What is left of it, for all files together.
pub(super) struct Budget {
    /// Lines that are missing and may yet be stepped over, beyond as many as the chain has lines that are there.
    missing: u64,
    /// Headers that may yet give no key.
    refused: u64,
}

impl Default for Budget {
    /// Enough for one chain whose lines are in earlier files, whatever other chains claim.
    fn default() -> Self {
        Self { missing: MAX_LINES, refused: MAX_REFUSED }
    }
}

impl Budget {
    #[cfg(test)]
    pub(super) const fn of_missing(missing: u64) -> Self {
        Self { missing, refused: MAX_REFUSED }
    }

    /// Whether a chain may go `steps` further, which has `own` steps of its own left.
    pub(super) fn step(&mut self, own: &mut u64, steps: u64) -> bool {
        let beyond = steps.saturating_sub(*own);
        let is_left = beyond <= self.missing;
        if is_left {
            self.missing -= beyond;
            *own -= steps - beyond;
        }
        is_left
    }

    /// Whether a key may still be asked for.
    pub(super) const fn may_ask(&self) -> bool {
        self.refused > 0
    }

    /// Counts a header that gave no key.
    pub(super) const fn refuse(&mut self) {
        self.refused -= 1;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::Budget;
    use crate::line::{BEGUN, CONTINUED, Chain, ENDED};
    use crate::verify::{AuditFiles, AuditText, Expected, FindingKind};
    use keyfold::{ChainStart, KekAlias, Kms, Lineage};
    use keyfold_kms::LocalKek;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    const LINEAGE: Lineage = Lineage::from_bytes([0x11; 16]);

    #[test]
    fn what_is_there_costs_a_chain_nothing_that_others_need() {
        let mut budget = Budget::of_missing(10);
        let (mut whole, mut torn, mut last) = (5, 2, 3);
        assert!(budget.step(&mut torn, 12), "its own two, and all that others have");
        assert!(!budget.step(&mut torn, 1) && (torn, budget.missing) == (0, 0));
        assert!((0..5).all(|_| budget.step(&mut whole, 1)) && !budget.step(&mut whole, 1));
        assert!(!budget.step(&mut last, 4) && last == 3, "what is refused takes nothing");
    }

    /// Headers that claim to follow on lines of an earlier file, of chains whose key unwraps, and a chain that is whole.
    #[test]
    fn the_steps_to_lines_that_nobody_has_seen_are_counted_for_all_chains_together() {
        let folder = tempfile::tempdir().unwrap();
        let kek: Arc<dyn Kms> = Arc::new(LocalKek::create(folder.path().join("audit.kek")).unwrap());
        let alias = KekAlias::new("audit").unwrap();
        let begin = || {
            let (start, ratchet) = pollster::block_on(ChainStart::begin(&*kek, LINEAGE, "test")).unwrap();
            Chain::new(start, alias.clone(), ratchet)
        };
        let (mut bytes, previous) = (Vec::new(), "00".repeat(32));
        let mut whole = begin();
        for action in [BEGUN, "use", "use", ENDED] {
            let at = bytes.len() as u64;
            let header = |chain: &Chain, line: &mut crate::line::Members<'_>| match action {
                BEGUN => line.add("file", 1).and_then(|()| chain.describe(line)),
                _ => Ok(()),
            };
            let chain = whole.ahead();
            whole.add_line(&mut bytes, at, action, |line| header(&chain, line)).unwrap();
        }
        for _ in 0..3 {
            let chain = begin();
            let (at, mut line) = (bytes.len() as u64, Vec::new());
            let describe = |line: &mut crate::line::Members<'_>| {
                line.add("file", 1)?;
                line.add("previous", &previous)?;
                line.add("previous_file", 0)?;
                chain.describe(line)
            };
            chain.ahead().add_line(&mut line, at, CONTINUED, describe).unwrap();
            let forged = String::from_utf8(line).unwrap().replacen("\"seq\":0,", "\"seq\":5000,", 1);
            bytes.extend_from_slice(forged.as_bytes());
        }
        let texts = [AuditText { name: "audit.jsonl".to_owned(), bytes }];
        let expected = Expected { keks: BTreeMap::from([(alias, kek)]), lineage: Some(LINEAGE), ..Expected::default() };
        let verify = |missing| {
            let files = AuditFiles::in_memory(&texts);
            let report = pollster::block_on(files.verify_within(&expected, Budget::of_missing(missing)));
            let of = |kind| report.findings.iter().filter(|finding| finding.kind == kind).count();
            let out_of_reach =
                report.findings.iter().filter(|finding| finding.detail.contains("than one run goes over"));
            assert!(out_of_reach.clone().all(|finding| finding.kind == FindingKind::Unchecked), "{report:?}");
            assert!(report.findings.iter().all(|finding| finding.line > Some(4)), "the whole chain: {report:?}");
            (of(FindingKind::Edited), out_of_reach.count())
        };
        assert_eq!(verify(0), (0, 3));
        assert_eq!(verify(4998), (0, 3));
        assert_eq!(verify(4999), (1, 2));
        assert_eq!(verify(2 * 4999 + 4998), (2, 1));
        assert_eq!(verify(3 * 4999), (3, 0));
    }
}
