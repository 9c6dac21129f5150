//! JSON, a document per line or one in the whole file: what is around the documents stays as it is.

use super::merges::Merges;
use super::progress::Progress;
use super::{Counts, Direction, Done, Job, pump, unauthenticated};
use crate::failure::Failure;
use crate::files::interrupt::Interrupt;
use crate::files::json::{LineBatch, LineSource};
use crate::files::output::Output;
use keyfold_documents::{DocumentCipher, DocumentOptions, DocumentText, MAX_TEXT_LEN, RowMap};
use std::io::Read;
use zeroize::Zeroizing;

pub(super) fn run(
    job: &Job<'_>,
    input: impl Read + Send,
    whole: bool,
    output: &mut Output,
    interrupt: &Interrupt,
    progress: &mut Progress,
    counts: &mut Counts,
) -> Result<(), Failure> {
    let options = DocumentOptions { pass_unmatched: job.args.pass_unmatched, many_lines: whole };
    let mut cipher = DocumentCipher::new(&job.keys(|field| !field.paths.is_empty())?, options)?;
    if job.direction == Direction::Rebind {
        let names: Vec<&str> = cipher.row_paths().iter().map(String::as_str).collect();
        let chosen = job.merges.choose_row(&names)?.to_owned();
        cipher = cipher.moving(&chosen, job.merges);
    }
    counts.unauthenticated = unauthenticated(cipher.fields());
    let max_len = job.direction.limit(MAX_TEXT_LEN);
    let mut source = if whole { LineSource::whole(input, max_len) } else { LineSource::new(input, max_len) };
    let read = || source.next_batch().map_err(Failure::from);
    pump(job, read, |batch| transform(&cipher, &batch), interrupt, progress, counts, output)?;
    cipher.refuse_unused()?;
    if job.direction == Direction::Reencrypt {
        counts.left_tokens = cipher.seen_members().map(str::to_owned).collect();
    }
    Ok(())
}

fn transform(cipher: &DocumentCipher<'_>, batch: &LineBatch) -> Result<Done, Failure> {
    let lines = (0..batch.len()).filter(|&index| !batch.is_blank(index));
    let texts: Vec<DocumentText<'_>> =
        lines.map(|index| DocumentText { content: batch.line(index), line: batch.number(index) }).collect();
    let mut changed = cipher.transform(&texts)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(batch.raw_len() * 2));
    batch.render(&mut bytes, |_, out| changed.push_next(out))?;
    let done = changed.counts();
    let counts = Counts {
        input_len: batch.raw_len() as u64,
        records: texts.len() as u64,
        values: done.values,
        rebound: done.rebound,
        outdated: done.outdated,
        compromised: done.compromised,
        unmatched: done.unmatched,
        unindexed: done.unindexed,
        still_sealed: done.still_sealed,
        ..Counts::default()
    };
    Ok(Done { bytes, counts })
}

impl RowMap for Merges {
    fn find(&self, from: &[u8]) -> Option<&str> {
        self.merge(from).map(|merge| merge.to.as_str())
    }
}
