//! What an index finds and shows, from how often each value occurs. The arithmetic takes tokens for random, which those of HMAC are to
//! whoever lacks the key, and rounds nothing.
//!
//! With N rows that have a value, counts c of the D distinct values, and M = 2^bits tokens. A query looks for the value of a row, each row
//! as likely as any other.
//!
//! - *matches*: rows with the value, Σ c² / N.
//! - *false matches*: rows with another value and a token of that number by chance, Σ (c / N) · (N − c) · (1 − (1 − 1/M)^L), where each row has L tokens: of prefixes
//!   one per length, otherwise one, for which it is 1/M. What a search opens for nothing. This is the mean over all keys. Under one key the figure spreads around it with variance (4 / N²) · (1/M) · (1 − 1/M) · Σ c² · c′² over pairs of values:
//!   little where no value is frequent, and so much where one is that the mean says little of any key.
//! - *guessed*: the share of rows whose value is the commonest of those with their token. Whoever knew for each token the commonest value, from
//!   a leak say, would be right so often: Σ (c / N) · (1 − 1/M)^r, where r values come before it in order of frequency.
//! - *told*: the share of rows whose value whoever knows all frequencies tells from the frequency of its token: values whose count differs from the next
//!   ones in order by more than twice σ, where σ² = Σ c² / M is the noise that chance adds to a token. With full width σ is 0, so these are the
//!   values that no other is as frequent as.
//!
//! Of prefixes of several lengths, *guessed* and *told* are those of the longest, for one token of L · bits bits: at most so much, since starts that are
//! shared make more of the tokens equal.

use keyfold::{IndexPolicy, most_bits};

/// How often each distinct value occurs, most frequent first.
pub(super) struct Histogram {
    counts: Vec<u64>,
    rows: u64,
    /// Σ c²
    squares: f64,
}

/// A column as an index sees it.
pub(super) struct Column {
    /// Of prefixes one per length, the shortest first; otherwise one. All have as many rows.
    histograms: Vec<Histogram>,
    /// The most bits that a token of the kind may have.
    max_bits: u16,
}

/// What an index of so many bits finds and shows.
pub(super) struct Figures {
    pub(super) bits: u16,
    /// For each histogram, of a query for a value of it.
    pub(super) false_matches: Vec<f64>,
    pub(super) guessed: f64,
    pub(super) told: f64,
}

/// Below this entropy, in bits, whoever knows the frequencies reads the column: a year of birth has 6 to 7, a birthday 8.5.
const MIN_ENTROPY: f64 = 8.0;
/// The same if one value has a larger share of the rows.
const MAX_SHARE: f64 = 0.1;
/// Fewer rows say nothing about whether values are unique.
const MIN_ROWS: u64 = 1000;

impl Histogram {
    pub(super) fn new(counts: impl IntoIterator<Item = u64>) -> Self {
        let mut counts: Vec<u64> = counts.into_iter().filter(|count| *count > 0).collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let rows = counts.iter().sum();
        let squares = counts.iter().map(|count| *count as f64 * *count as f64).sum();
        Self { counts, rows, squares }
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn distinct(&self) -> u64 {
        self.counts.len() as u64
    }

    fn share(&self, count: u64) -> f64 {
        count as f64 / self.rows as f64
    }

    /// The share of rows that have the commonest value.
    pub(super) fn top_share(&self) -> f64 {
        self.counts.first().map_or(0.0, |count| self.share(*count))
    }

    /// Shannon's, in bits.
    pub(super) fn entropy(&self) -> f64 {
        // Not −0 for a single value.
        self.counts.iter().map(|count| self.share(*count) * -self.share(*count).log2()).sum::<f64>() + 0.0
    }

    /// Rows with the value of a query.
    pub(super) fn matches(&self) -> f64 {
        self.squares / self.rows as f64
    }

    /// The shares that are guessed and told by tokens of so many bits.
    fn shown(&self, bits: u16) -> (f64, f64) {
        let tokens = f64::from(bits).exp2();
        let spared = 1.0 - 1.0 / tokens;
        let by_rank = self.counts.iter().enumerate();
        let guessed = by_rank.map(|(rank, count)| self.share(*count) * spared.powf(rank as f64)).sum();
        let noise = if bits >= IndexPolicy::MAX_INTEGER { 0.0 } else { 2.0 * (self.squares / tokens).sqrt() };
        let apart = |a: Option<&u64>, b: u64| a.is_none_or(|a| a.abs_diff(b) as f64 > noise);
        let stands_out = |at: usize, count: u64| {
            let before = at.checked_sub(1).and_then(|at| self.counts.get(at));
            // Less than the noise of an empty token is not seen at all.
            apart(before, count) && apart(self.counts.get(at + 1), count) && count as f64 > noise
        };
        let told = self.counts.iter().enumerate().filter(|(at, count)| stands_out(*at, **count));
        let told = told.map(|(_, count)| self.share(*count)).sum::<f64>();
        // Not −0 for no value.
        (guessed, told + 0.0)
    }

    /// Why the column should not be indexed at all.
    pub(super) fn refusal(&self) -> Option<&'static str> {
        // So few rows cannot have the entropy, whatever the column holds.
        if self.rows < MIN_ROWS && self.distinct() * 4 >= self.rows && self.entropy() < MIN_ENTROPY {
            return Some("too few to tell whether values repeat: give the whole table");
        }
        if self.entropy() < MIN_ENTROPY {
            return Some(
                "the column has few values, such as a gender or a year of birth: the frequency of a token tells the value",
            );
        }
        if self.top_share() > MAX_SHARE {
            return Some("more than a tenth of the rows have one value: its token is told by its frequency");
        }
        None
    }
}

impl Column {
    /// `histograms` is not empty.
    pub(super) fn new(histograms: Vec<Histogram>, max_bits: u16) -> Self {
        Self { histograms, max_bits }
    }

    /// Those of each token that a row has.
    pub(super) fn histograms(&self) -> &[Histogram] {
        &self.histograms
    }

    /// That of the shortest prefix, which shows the most by its frequency.
    pub(super) fn coarsest(&self) -> &Histogram {
        &self.histograms[0]
    }

    fn tokens_per_row(&self) -> usize {
        self.histograms.len()
    }

    pub(super) fn figures(&self, bits: u16) -> Figures {
        let tokens = f64::from(bits).exp2();
        // 1 − (1 − 1/M)^L, also where M is so large that 1 − 1/M is 1.
        let shared = -(self.tokens_per_row() as f64 * (-1.0 / tokens).ln_1p()).exp_m1();
        let false_matches = |of: &Histogram| (of.rows as f64 - of.matches()) * shared;
        let all_bits = bits.saturating_mul(u16::try_from(self.tokens_per_row()).unwrap_or(u16::MAX));
        let (guessed, told) = self.histograms.last().map_or((0.0, 0.0), |finest| finest.shown(all_bits));
        Figures { bits, false_matches: self.histograms.iter().map(false_matches).collect(), guessed, told }
    }

    /// Whether nearly every row has a value of its own, so that full width shows little.
    pub(super) fn is_unique(&self) -> bool {
        let Histogram { counts, rows, .. } = self.coarsest();
        self.max_bits >= IndexPolicy::MAX_INTEGER && *rows >= MIN_ROWS && counts.len() as f64 >= 0.95 * *rows as f64
    }

    /// The bits that all tokens of a row may have together, beside other indexes.
    pub(super) fn allowed_bits(&self, other_bits: usize) -> usize {
        most_bits(self.coarsest().rows).saturating_sub(other_bits)
    }

    /// The bits to choose: full width for what is unique; otherwise what the rows allow beside other indexes, and no more than leaves four
    /// distinct values to a token. 0: none.
    pub(super) fn recommended(&self, other_bits: usize) -> u16 {
        if self.is_unique() {
            return IndexPolicy::MAX_INTEGER;
        }
        let distinct = self.coarsest().distinct().checked_ilog2().unwrap_or(0).saturating_sub(2) as usize;
        let allowed = self.allowed_bits(other_bits) / self.tokens_per_row();
        u16::try_from(allowed.min(distinct)).unwrap_or_default().min(self.max_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyfold::IndexKind;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    fn column(counts: impl IntoIterator<Item = u64>) -> Column {
        Column::new(vec![Histogram::new(counts)], IndexPolicy::FULL)
    }

    #[test]
    fn figures_by_hand() {
        // Three values: 4, 2 and 2 rows, one bit.
        let histogram = Histogram::new([2, 4, 0, 2]);
        assert_eq!((histogram.rows(), histogram.distinct()), (8, 3));
        assert!(
            close(histogram.entropy(), 1.5) && close(histogram.top_share(), 0.5) && close(histogram.matches(), 3.0)
        );
        let one = column([2, 4, 2]);
        let figures = one.figures(1);
        assert!(close(figures.false_matches[0], 2.5));
        assert!(close(figures.guessed, 0.5 + 0.25 * 0.5 + 0.25 * 0.25));
        assert_eq!(format!("{:.3}", figures.told), "0.000");
        let full = one.figures(256);
        let false_matches = full.false_matches[0];
        assert!(false_matches > 0.0 && false_matches < 1e-70 && close(full.guessed, 1.0) && close(full.told, 0.5));
        // Two tokens to a row, of the same rows by their starts and as they are: three of four miss both of one bit.
        let both = Column::new(vec![Histogram::new([4, 4]), Histogram::new([2, 4, 2])], IndexPolicy::MAX_PREFIX);
        let figures = both.figures(1);
        assert!(close(figures.false_matches[0], 4.0 * 0.75) && close(figures.false_matches[1], 5.0 * 0.75));
        assert!(close(figures.guessed, one.figures(2).guessed));
    }

    #[test]
    fn what_has_few_values_is_refused() {
        let gender = Histogram::new([5_000, 5_100, 12]);
        let year_of_birth = Histogram::new((0..100).map(|year| 100 + year));
        let common = Histogram::new((0..2_000).map(|n| if n == 0 { 1_000 } else { 1 }));
        for histogram in [&gender, &year_of_birth, &common, &Histogram::new([7])] {
            assert!(histogram.refusal().is_some());
        }
        let birthdays = column((0..366).map(|day| 2_700 + day % 60));
        assert!(birthdays.coarsest().refusal().is_none());
        assert_eq!(birthdays.recommended(0), 6, "four days to a token, and more than the 16 bits of a million rows");
        assert_eq!(birthdays.recommended(14), 2);
        assert_eq!(birthdays.recommended(17), 0);
        let numbers = column((0..10_000).map(|_| 1));
        assert!(numbers.is_unique() && numbers.recommended(0) == 63);
        let names = column((1..20_000).map(|rank| 1 + 40_000 / rank));
        assert!(names.coarsest().refusal().is_none() && !names.is_unique());
        assert_eq!(usize::from(names.recommended(0)), most_bits(names.coarsest().rows()).min(12));
        // A prefix is never of full width, and the policy counts the bits of each of its tokens.
        for lengths in 1..=8 {
            let starts = (0..lengths).map(|_| Histogram::new((0..1_000).map(|_| 1))).collect();
            let starts = Column::new(starts, IndexPolicy::MAX_PREFIX);
            assert!(!starts.is_unique());
            assert_eq!((most_bits(1_000), usize::from(starts.recommended(0))), (6, 6 / lengths), "{lengths}");
        }
    }

    /// The advisor's false matches are those of tokens, counted, over many keys: of names, and of names with their starts.
    #[test]
    fn false_matches_are_what_tokens_do() {
        use sha2::{Digest, Sha256};
        // Frequent values do not start alike, or a few tokens would decide over most rows, and it would take thousands of keys.
        let value = |n: u64| (format!("{:04}", n * 7_919 % 10_000), 1 + 3_000 / n);
        let values: Vec<(String, u64)> = (1..3_000_u64).map(value).collect();
        let bits = 8;
        for lengths in [&[4][..], &[2, 3, 4]] {
            let of_length = |length: &usize| {
                let mut counts = std::collections::BTreeMap::<&str, u64>::new();
                for (value, count) in &values {
                    *counts.entry(&value[..*length]).or_default() += count;
                }
                Histogram::new(counts.into_values())
            };
            let column = Column::new(lengths.iter().map(of_length).collect(), IndexPolicy::MAX_PREFIX);
            let expected = column.figures(bits).false_matches;
            let rounds = 64_u8;
            for (&length, expected) in lengths.iter().zip(expected) {
                let mut measured = 0.0;
                for round in 0..rounds {
                    // Any function that looks random will do: SHA-256 in the place of HMAC.
                    let token = |start: &str| Sha256::new().chain_update([round]).chain_update(start).finalize()[0];
                    // By token, the rows that have it; and those of them that have the start as well.
                    let (mut rows_of, mut same) = ([0_u64; 256], std::collections::BTreeMap::<&str, u64>::new());
                    for (value, count) in &values {
                        let tokens: std::collections::BTreeSet<u8> =
                            lengths.iter().map(|end| token(&value[..*end])).collect();
                        tokens.into_iter().for_each(|token| rows_of[usize::from(token)] += count);
                        *same.entry(&value[..length]).or_default() += count;
                    }
                    let rows = column.coarsest().rows() as f64;
                    let per_query = |(start, count): (&&str, &u64)| {
                        *count as f64 / rows * (rows_of[usize::from(token(start))] - count) as f64
                    };
                    measured += same.iter().map(per_query).sum::<f64>() / f64::from(rounds);
                }
                assert!(
                    (measured / expected - 1.0).abs() < 0.1,
                    "{lengths:?}, {length}: {measured}, expected {expected}"
                );
            }
        }
        assert_eq!(IndexPolicy::new("i", IndexKind::Exact, bits).shown_bits(), 8);
    }
}
