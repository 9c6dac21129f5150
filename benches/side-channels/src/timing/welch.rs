//! Welch's t-test of the times of three classes, whole and cropped.

/// Percentiles below which samples count: more of them the longer the time, as dudect has them.
const CROPS: usize = 20;

/// What is added up of a class: mean and sum of squared distances from it (Welford).
#[derive(Clone, Copy, Default)]
struct Sum {
    n: f64,
    mean: f64,
    squares: f64,
}

impl Sum {
    fn add(&mut self, time: f64) {
        self.n += 1.0;
        let distance = time - self.mean;
        self.mean += distance / self.n;
        self.squares += distance * (time - self.mean);
    }

    /// Of the mean.
    fn variance(&self) -> f64 {
        self.squares / (self.n - 1.0) / self.n
    }
}

/// The times of three classes.
pub(crate) struct Comparison {
    median: u64,
    /// Times from which on samples do not count, and what is added up of those before; the last one is of all.
    crops: Vec<(u64, [Sum; 3])>,
}

impl Comparison {
    /// `first` are times that say where to crop; none of them counts.
    pub(crate) fn new(mut first: Vec<u64>) -> Self {
        first.sort_unstable();
        let at = |part: f64| first[(part * (first.len() - 1) as f64) as usize];
        let bounds = (1..=CROPS).map(|i| 1.0 - 0.5_f64.powf(10.0 * i as f64 / CROPS as f64)).map(at);
        let crops = bounds.map(|bound| bound + 1).chain([u64::MAX]).map(|bound| (bound, [Sum::default(); 3])).collect();
        Self { median: at(0.5), crops }
    }

    pub(crate) fn add(&mut self, class: usize, time: u64) {
        for (bound, sums) in self.crops.iter_mut().rev() {
            if time >= *bound {
                break;
            }
            sums[class].add(time as f64);
        }
    }

    /// In nanoseconds.
    pub(crate) const fn median(&self) -> u64 {
        self.median
    }

    /// The largest |t| of two classes. Crops with few samples do not count.
    pub(crate) fn max_t(&self) -> f64 {
        let all = self.crops.last().map_or(0.0, |(_, sums)| sums[0].n);
        let counting = self.crops.iter().filter(|(_, sums)| sums.iter().all(|sum| sum.n > all / 100.0));
        let pairs = counting.flat_map(|(_, sums)| [(0, 1), (0, 2), (1, 2)].map(|(a, b)| (sums[a], sums[b])));
        let t = |(a, b): (Sum, Sum)| match a.variance() + b.variance() {
            // All times are equal, or differ always.
            0.0 => {
                if a.mean == b.mean {
                    0.0
                } else {
                    f64::INFINITY
                }
            }
            variance => (a.mean - b.mean).abs() / variance.sqrt(),
        };
        pairs.map(t).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// t of two samples, as R's t.test has it: t.test(c(3, 4, 5, 6), c(5, 6, 8, 9))
    #[test]
    fn the_t_of_a_known_case() {
        let mut comparison = Comparison::new(vec![1; 100]);
        for (class, times) in [[3, 4, 5, 6], [5, 6, 8, 9], [5, 6, 8, 9]].iter().enumerate() {
            times.iter().for_each(|time| comparison.add(class, *time));
        }
        // (7 - 4.5) / sqrt(10/3/4 + 5/3/4)
        assert!((comparison.max_t() - 2.236_068).abs() < 1e-6, "{}", comparison.max_t());
    }
}
