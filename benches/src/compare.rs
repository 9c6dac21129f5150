//! Two ways to do the same, measured in turns in one thread: a disturbance that lasts longer than a turn touches both.

use crate::cpu_time;
use std::hint::black_box;

/// Nanoseconds of CPU time per row of one call.
pub fn per_row<T>(rows: usize, work: impl FnOnce() -> T) -> f64 {
    let start = cpu_time();
    let result = black_box(work());
    let nanoseconds = (cpu_time() - start).as_nanos() as f64 / rows as f64;
    drop(result);
    nanoseconds
}

/// Median, 5th and 95th percentile.
#[must_use]
pub fn spread(mut all: Vec<f64>) -> (f64, f64, f64) {
    all.sort_by(f64::total_cmp);
    let at = |part: f64| all[((all.len() - 1) as f64 * part) as usize];
    (at(0.5), at(0.05), at(0.95))
}

/// Two ways to do the same, measured in turns.
pub struct Comparison {
    /// How many turns.
    pub rounds: usize,
    /// By which part of it a target may be missed before that is a failure.
    pub tolerance: f64,
    /// Whether a target was missed by more than that.
    pub failed: bool,
}

impl Comparison {
    /// Prints the ratio of `ours` to `theirs`, which return nanoseconds per row; it should be at most `target`.
    pub fn report(&mut self, what: &str, target: f64, mut ours: impl FnMut() -> f64, mut theirs: impl FnMut() -> f64) {
        ours();
        theirs();
        let (mut us, mut them, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..self.rounds {
            // Whoever goes second finds the caches as the other left them, so they take turns.
            let (a, b) = if round % 2 == 0 {
                let a = ours();
                (a, theirs())
            } else {
                let b = theirs();
                (ours(), b)
            };
            us.push(a);
            them.push(b);
            ratios.push(a / b);
        }
        let (ratio, low, high) = spread(ratios);
        let (us, them) = (spread(us).0, spread(them).0);
        self.failed |= ratio > target * (1.0 + self.tolerance);
        let mark = if ratio <= target { "" } else { "  ABOVE THE TARGET" };
        println!("{what:<34} {us:>7.1} ns {them:>7.1} ns   {ratio:.3} ({low:.3} to {high:.3}){mark}");
    }
}
