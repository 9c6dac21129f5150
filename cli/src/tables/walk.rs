//! Walking through a table: page by page, not faster than allowed, until it ends or a signal asks to stop.

use crate::failure::Failure;
use crate::files::interrupt::{Interrupt, Interrupted};
use crate::progress;
use indicatif::ProgressBar;
use keyfold_tables::{Extent, Row, RowKey, Table};
use std::time::{Duration, Instant};

/// How fast, and who may stop it.
pub(crate) struct Pace {
    pub(crate) interrupt: Interrupt,
    pub(crate) batch_rows: u32,
    pub(crate) rows_per_second: Option<u32>,
}

/// The pages of a table.
pub(crate) struct Rows<'p> {
    pace: &'p Pace,
    extent: Extent,
    after: Option<RowKey>,
    bar: ProgressBar,
    began: Option<Instant>,
    seen: u64,
    ended: bool,
}

impl Pace {
    /// Rows in a page: no more than a second's worth.
    fn limit(&self) -> usize {
        self.rows_per_second.map_or(self.batch_rows, |rate| self.batch_rows.min(rate)) as usize
    }
}

impl<'p> Rows<'p> {
    /// The rows behind `after`; `verb` is what the progress line says.
    pub(crate) fn new(pace: &'p Pace, after: Option<RowKey>, extent: Extent, verb: &'static str) -> Self {
        let bar = progress::bar(None, "{prefix} {spinner} {pos} rows, {elapsed}");
        bar.set_prefix(verb);
        Self { pace, extent, after, bar, began: None, seen: 0, ended: false }
    }

    /// The next page; `None`: there is none.
    ///
    /// # Errors
    ///
    /// Those of [`Table::page`]; a signal. What was read before has been dealt with then.
    pub(crate) fn next(&mut self, table: &mut Table) -> Result<Option<Vec<Row>>, Failure> {
        if self.ended {
            self.bar.finish_and_clear();
            return Ok(None);
        }
        self.wait()?;
        self.began = Some(Instant::now());
        let limit = self.pace.limit();
        let page = table.page(self.after.as_ref(), limit, self.extent)?;
        // A page that is not full is the last one.
        self.ended = page.len() < limit;
        self.seen += page.len() as u64;
        self.bar.set_position(self.seen);
        match page.last() {
            Some(last) => self.after = Some(last.key.clone()),
            None => {
                self.bar.finish_and_clear();
                return Ok(None);
            }
        }
        Ok(Some(page))
    }

    /// Waits until the next page is due.
    fn wait(&self) -> Result<(), Interrupted> {
        let due = match (self.began, self.pace.rows_per_second) {
            (Some(began), Some(rate)) => began + Duration::from_secs_f64(self.pace.limit() as f64 / f64::from(rate)),
            _ => return self.pace.interrupt.check(),
        };
        loop {
            self.pace.interrupt.check()?;
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }
}
