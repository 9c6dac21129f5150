//! The steps over the rows of a table.

use super::counts::Counts;
use super::pair::{Pair, compare, seal};
use crate::args::Backfill;
use crate::failure::{Exit, Failure};
use crate::tables::{Bindings, Checkpoint, Ledger, Pace, Rows, Trouble, settle};
use keyfold_tables::{Cell, ColumnKind, Extent, Guard, Row, Table};
use serde_json::json;

/// What is done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    Fill,
    Verify,
    Undo,
    Finish,
}

impl Step {
    pub(super) const fn of(args: &Backfill) -> Self {
        match (args.verify, args.undo, args.finish) {
            (true, _, _) => Self::Verify,
            (_, true, _) => Self::Undo,
            (_, _, true) => Self::Finish,
            _ => Self::Fill,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Fill => "backfill",
            Self::Verify => "verify",
            Self::Undo => "undo",
            Self::Finish => "finish",
        }
    }
}

pub(super) struct Job {
    pub(super) table: Table,
    /// Of the one field, whose column is the sealed one.
    pub(super) bindings: Bindings,
    pub(super) ledger: Ledger,
    pub(super) counts: Counts,
    /// The column with plaintext.
    pub(super) from: usize,
    pub(super) step: Step,
    /// Otherwise nothing is changed.
    pub(super) write: bool,
}

/// A change that was made.
enum Made {
    Sealed,
    Replaced,
    Emptied,
}

impl Job {
    pub(super) fn run(&mut self, pace: &Pace, checkpoint: &mut Checkpoint) -> Result<(), Failure> {
        if self.step != Step::Finish {
            return self.walk(self.step, pace, checkpoint);
        }
        self.walk(Step::Verify, pace, checkpoint)?;
        if self.is_incomplete() {
            let why = format!("nothing was emptied, since not every plaintext is sealed: {}", self.counts);
            return Err(Failure::new(Exit::Data, why));
        }
        self.counts = Counts::default();
        self.walk(Step::Finish, pace, checkpoint)
    }

    fn walk(&mut self, step: Step, pace: &Pace, checkpoint: &mut Checkpoint) -> Result<(), Failure> {
        let verb = match step {
            Step::Fill => "sealing",
            Step::Verify => "comparing",
            Step::Undo | Step::Finish => "emptying",
        };
        let mut rows = Rows::new(pace, checkpoint.after.clone(), Extent::Whole, verb);
        while let Some(page) = rows.next(&mut self.table)? {
            let last = page.last().map(|row| row.key.clone());
            self.counts.rows += page.len() as u64;
            self.batch(step, page)?;
            if checkpoint.is_kept() {
                self.ledger.sync()?;
                checkpoint.save(last.as_ref(), state(&self.counts, self.ledger.len))?;
            }
        }
        Ok(())
    }

    fn batch(&mut self, step: Step, page: Vec<Row>) -> Result<(), Failure> {
        let Self { table, bindings, ledger, counts, from, write, .. } = self;
        let (from, to, place) = (*from, bindings.column(0), table.place().to_owned());
        let changed = if step == Step::Finish { from } else { to };
        let kind = table.kind(to);
        let write = *write && step != Step::Verify;
        // The whole row: what was sealed is true of the plaintext, the identifier and the context that were read.
        let settled = settle(table, page, &[changed], Guard::Row, write, |row, _| {
            match next(step, bindings, counts, row, from, kind) {
                Ok(change) => Ok(change),
                Err(Trouble::Run(error)) => Err(error.into()),
                Err(Trouble::Value(error)) => {
                    counts.failed += 1;
                    ledger.record(&place, &row.key, bindings.name(0), error)?;
                    Ok(None)
                }
            }
        })?;
        for made in settled.made {
            match made {
                Made::Sealed => counts.sealed += 1,
                Made::Replaced => counts.replaced += 1,
                Made::Emptied => counts.emptied += 1,
            }
        }
        counts.gone += settled.gone;
        counts.busy += settled.busy;
        Ok(())
    }

    /// Whether a plaintext would be lost with its column; after an undo, nothing is to be sealed.
    fn is_incomplete(&self) -> bool {
        let counts = &self.counts;
        let missing = if self.step == Step::Undo { 0 } else { counts.missing };
        missing + counts.different + counts.failed > 0
    }

    /// The exit code of a run that has reached its end.
    pub(super) fn exit_code(&self) -> u8 {
        let kept = self.step == Step::Undo && self.counts.sealed_only > 0;
        match self.ledger.exit_code() {
            0 if self.is_incomplete() || kept || self.counts.busy > 0 => Exit::Data as u8,
            code => code,
        }
    }
}

/// What a run that goes on has to know.
pub(super) fn state(counts: &Counts, ledger_len: u64) -> serde_json::Value {
    json!({ "counts": counts.to_json(), "ledger_len": ledger_len })
}

/// The new value of the column that the step changes; `None`: the row stays as it is, and is counted.
fn next(
    step: Step,
    bindings: &mut Bindings,
    counts: &mut Counts,
    row: &Row,
    from: usize,
    kind: ColumnKind,
) -> Result<Option<(Cell, Made)>, Trouble> {
    let (clear, sealed) = (&row.cells[from], &row.cells[bindings.column(0)]);
    if *clear == Cell::Null && sealed.as_bytes().is_none_or(<[u8]>::is_empty) {
        counts.empty += 1;
        return Ok(None);
    }
    let bound = bindings.bind(row)?;
    let binding = bindings.row_of(&bound, 0)?;
    let binding = binding.as_deref().map(Vec::as_slice);
    let cipher = &bound.ciphers[0];
    let pair = compare(clear, sealed, cipher, binding)?;
    match (step, pair) {
        (Step::Fill, Pair::Missing) => return Ok(Some((seal(clear, kind, cipher, binding)?, Made::Sealed))),
        (Step::Fill, Pair::Different) => return Ok(Some((seal(clear, kind, cipher, binding)?, Made::Replaced))),
        (Step::Undo | Step::Finish, Pair::Equal) => return Ok(Some((Cell::Null, Made::Emptied))),
        (_, Pair::Empty) => counts.empty += 1,
        (_, Pair::Missing) => counts.missing += 1,
        (_, Pair::SealedOnly) => counts.sealed_only += 1,
        (_, Pair::Equal) => counts.equal += 1,
        (_, Pair::Different) => counts.different += 1,
    }
    Ok(None)
}
