//! Numbers by chance that repeat themselves under a seed. For traffic and for the drift of renewals, never for keys.

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another sequence, for another use.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to less than 1.
    #[allow(clippy::cast_precision_loss, reason = "53 bits are what a float has")]
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From 0 to less than `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // The bias of the remainder is at most `end` in 2⁶⁴.
        self.next() % end
    }

    /// How often something happened that happens `mean` times on average.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, rounded and not below 0")]
    pub(crate) fn poisson(&mut self, mean: f64) -> u64 {
        if mean > 50.0 {
            // Normal, by Box and Muller: beyond here nobody sees the difference.
            let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
            let normal = radius * (std::f64::consts::TAU * self.unit()).cos();
            return normal.mul_add(mean.sqrt(), mean).round().max(0.0) as u64;
        }
        let (limit, mut product, mut count) = ((-mean).exp(), self.unit(), 0);
        while product > limit {
            product *= self.unit();
            count += 1;
        }
        count
    }
}

/// Which of some things is asked for: the nth as often as 1 in n to the power of an exponent. With exponent 0 all are alike.
#[derive(Debug)]
pub(crate) struct Choice {
    /// Sums of the weights up to each.
    sums: Vec<f64>,
}

impl Choice {
    #[allow(clippy::cast_precision_loss, reason = "ranks are small")]
    pub(crate) fn new(count: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let weight = |rank: usize| (rank as f64).powf(-exponent);
        let sums = (1..=count.max(1)).map(weight).map(|weight| {
            sum += weight;
            sum
        });
        Self { sums: sums.collect() }
    }

    pub(crate) fn draw(&self, random: &mut Random) -> usize {
        let last = self.sums.len() - 1;
        let place = random.unit() * self.sums[last];
        self.sums.partition_point(|sum| *sum <= place).min(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        // The first numbers for seed 1234567 in the authors' own code.
        let mut random = Random::new(1_234_567);
        assert_eq!([random.next(), random.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
        let mut other = Random::new(1_234_567).fork();
        assert_ne!(other.next(), Random::new(1_234_567).next());
    }

    #[test]
    fn counts_have_their_mean_and_spread() {
        let mut random = Random::new(1);
        for mean in [0.0, 0.2, 4.0, 49.0, 51.0, 3000.0] {
            let counts: Vec<f64> = (0..20_000).map(|_| random.poisson(mean) as f64).collect();
            let found = counts.iter().sum::<f64>() / 20_000.0;
            let variance = counts.iter().map(|count| (count - found).powi(2)).sum::<f64>() / 20_000.0;
            assert!((found - mean).abs() <= 0.02 * mean.max(1.0), "mean {found} of {mean}");
            assert!((variance - mean).abs() <= 0.06 * mean.max(1.0), "variance {variance} of {mean}");
        }
    }

    #[test]
    fn the_first_is_asked_for_most_often() {
        let mut random = Random::new(2);
        let mut count = |choice: &Choice| {
            let mut counts = [0_u32; 4];
            (0..100_000).for_each(|_| counts[choice.draw(&mut random)] += 1);
            counts
        };
        assert!(count(&Choice::new(4, 0.0)).iter().all(|&count| count.abs_diff(25_000) < 700));
        // 1, 1/2, 1/3, 1/4 of 25/12
        let zipf = count(&Choice::new(4, 1.0));
        for (found, wanted) in zipf.into_iter().zip([48_000, 24_000, 16_000, 12_000]) {
            assert!(found.abs_diff(wanted) < 700, "{zipf:?}");
        }
        assert_eq!(count(&Choice::new(1, 1.0))[0], 100_000);
    }
}
