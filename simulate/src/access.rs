//! Which tenants and generations the requests of a process are about.

use crate::random::{Choice, Random};
use crate::scenario::Scenario;
use crate::tally::Kind;

/// Most requests of a step that are drawn one by one; beyond, some are drawn for all. So many meet every key that is asked for often.
const MAX_DRAWN: u64 = 20_000;

/// What a request is about: one key, as far as keys are concerned.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Asked {
    pub(crate) kind: Kind,
    pub(crate) tenant: usize,
    /// Counted from the newest.
    pub(crate) generation: usize,
}

/// Who asks for what, and how often.
pub(crate) struct Access {
    tenants: Choice,
    generations: Choice,
}

impl Access {
    pub(crate) fn of(scenario: &Scenario) -> Self {
        let system = &scenario.system;
        Self {
            tenants: Choice::new(system.tenants, system.tenant_exponent),
            generations: Choice::new(system.generations, system.generation_exponent),
        }
    }

    /// The requests of one step, of which those for the same key are one with a weight. Of more than `most` keys, that many are asked for:
    /// each as likely as any other, so that those of quiet tenants are met as often as those of busy ones, and the weights stand for all.
    pub(crate) fn draw(&self, random: &mut Random, [reads, writes]: [u64; 2], most: usize) -> Vec<(Asked, f64)> {
        let count = reads + writes;
        let drawn = count.min(MAX_DRAWN);
        let mut asked: Vec<Asked> = (0..drawn)
            .map(|_| {
                let tenant = self.tenants.draw(random);
                match random.below(count) < reads {
                    true => Asked { kind: Kind::Read, tenant, generation: self.generations.draw(random) },
                    false => Asked { kind: Kind::Write, tenant, generation: 0 },
                }
            })
            .collect();
        asked.sort_unstable();
        let mut keys: Vec<(Asked, f64)> =
            asked.chunk_by(|a, b| a == b).map(|same| (same[0], same.len() as f64)).collect();
        for place in 0..most.min(keys.len()) {
            let other = place as u64 + random.below((keys.len() - place) as u64);
            keys.swap(place, usize::try_from(other).unwrap_or(place));
        }
        keys.truncate(most);
        let kept: f64 = keys.iter().map(|(_, weight)| weight).sum();
        keys.iter_mut().for_each(|(_, weight)| *weight *= count as f64 / kept);
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_for_one_key_are_one_and_weights_stand_for_all() {
        let access = Access { tenants: Choice::new(50, 1.0), generations: Choice::new(3, 0.0) };
        let mut random = Random::new(1);
        for (counts, most) in [([5, 0], 1000), ([4000, 1000], 1000), ([4000, 1000], 20), ([3_000_000, 7], 20)] {
            let asked = access.draw(&mut random, counts, most);
            assert!(asked.len() <= most.min(50 * 4));
            let sum: f64 = asked.iter().map(|(_, weight)| weight).sum();
            assert!((sum - (counts[0] + counts[1]) as f64).abs() < 1e-3, "{sum} of {counts:?}");
            let mut keys: Vec<_> = asked.iter().map(|(asked, _)| *asked).collect();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), asked.len());
        }
        assert!(access.draw(&mut random, [0, 0], 20).is_empty());
        // The quietest tenant of 50 has 1 in 225 requests, and 1 in 50 of those that are made.
        let met = (0..2000)
            .filter(|_| access.draw(&mut random, [0, 5000], 5).iter().any(|(asked, _)| asked.tenant == 49))
            .count();
        assert!((150..250).contains(&met), "{met}");
    }
}
