//! What is counted while the simulation runs.

use crate::scenario::{Outage, Scenario};
use crate::world::World;
use keyfold::wire::Generation;
use std::collections::BTreeMap;
use std::time::Duration;

/// Most intervals of the charts.
const MAX_INTERVALS: u64 = 48;
/// Who waits longer than this for an answer has noticed.
const NOTICED: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Kind {
    Read,
    Write,
}

/// Requests of one kind. They are sums of weights, since some stand for many.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcomes {
    pub(crate) served: f64,
    pub(crate) failed: f64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct OfInterval {
    pub(crate) reads: Outcomes,
    pub(crate) writes: Outcomes,
    /// In the caches of the process that has most.
    pub(crate) bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) interval: Duration,
    pub(crate) intervals: Vec<OfInterval>,
    pub(crate) reads: Outcomes,
    pub(crate) writes: Outcomes,
    /// Requests that were made, and for how many they stand.
    pub(crate) made: u64,
    /// Those that waited long enough to be noticed.
    pub(crate) noticed: f64,
    pub(crate) longest_wait: Duration,
    /// Requests that began in the outage.
    pub(crate) in_outage: [Outcomes; 2],
    outage: Option<Outage>,
    max_age: Duration,
    /// When requests failed that began in it or within `max_age` after it: the first and the last.
    pub(crate) failures: [Option<(Duration, Duration)>; 2],
    /// Failures by code and name of their errors.
    pub(crate) errors: BTreeMap<(u16, &'static str), f64>,
    /// Of reads and of writes, failures of the first `max_age`, and of those of the outage or of `max_age` after it.
    pub(crate) failed_when: [When; 2],
    /// Of each tenant, what is known of its rotation.
    pub(crate) rotations: Vec<RotationOf>,
    /// The greatest occupancy of a process.
    pub(crate) memory: (usize, usize),
}

/// Failures by when their requests began; the outage counts where both do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct When {
    pub(crate) at_start: f64,
    pub(crate) around_outage: f64,
}

/// How far the rotation of a tenant has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RotationOf {
    /// The newest generation before the simulation.
    old: Generation,
    /// When its data key became due.
    due: Option<Duration>,
    first_new: Option<Duration>,
    last_old: Option<Duration>,
}

impl RotationOf {
    pub(crate) fn is_due(&self) -> bool {
        self.due.is_some()
    }

    /// How long after it was due the last value was sealed under the old key, if it was rotated.
    pub(crate) fn took(&self) -> Option<Duration> {
        let (due, first) = (self.due?, self.first_new?);
        Some(self.last_old.map_or(first, |last| last.max(first)).saturating_sub(due))
    }
}

impl Tally {
    pub(crate) fn new(scenario: &Scenario, world: &World) -> Self {
        let seconds = scenario.run.time.as_secs().div_ceil(MAX_INTERVALS).max(1);
        // A whole number of minutes where it is long, so that labels are round.
        let seconds = if seconds > 60 { seconds.div_ceil(60) * 60 } else { seconds };
        let interval = Duration::from_secs(seconds);
        let count = scenario.run.time.as_secs().div_ceil(seconds);
        let tenants = world.tenants.len() as u64;
        let rotation = |(n, tenant): (usize, &crate::world::Tenant)| {
            let later = Duration::from_secs(scenario.run.rotation_spread.as_secs() * n as u64 / tenants);
            let due = match (scenario.run.rotation_at, scenario.rotation.data_age) {
                (Some(at), Some(_)) => Some(at + later),
                (None, Some(age)) if age < scenario.run.time => Some(age),
                _ => None,
            };
            let old = tenant.values.borrow().last().map_or(0, |stored| stored.generation);
            RotationOf { old, due, first_new: None, last_old: None }
        };
        Self {
            interval,
            intervals: (0..count.max(1)).map(|_| OfInterval::default()).collect(),
            reads: Outcomes::default(),
            writes: Outcomes::default(),
            made: 0,
            noticed: 0.0,
            longest_wait: Duration::ZERO,
            in_outage: [Outcomes::default(); 2],
            outage: scenario.outage.clone(),
            max_age: scenario.cache.max_age,
            failures: [None; 2],
            errors: BTreeMap::new(),
            failed_when: [When::default(); 2],
            rotations: world.tenants.iter().enumerate().map(rotation).collect(),
            memory: (0, 0),
        }
    }

    /// Notes a request that stands for `weight`, from `begun` to `ended`.
    pub(crate) fn request(
        &mut self,
        kind: Kind,
        weight: f64,
        (begun, ended): (Duration, Duration),
        result: &keyfold::Result<()>,
    ) {
        let place = self.place(begun);
        let in_outage = self.outage.as_ref().is_some_and(|outage| (outage.start..outage.end()).contains(&begun));
        let interval = &mut self.intervals[place];
        let (sum, of_interval) = match kind {
            Kind::Read => (&mut self.reads, &mut interval.reads),
            Kind::Write => (&mut self.writes, &mut interval.writes),
        };
        let during = &mut self.in_outage[kind as usize];
        for outcomes in [Some(sum), Some(of_interval), in_outage.then_some(during)].into_iter().flatten() {
            match result {
                Ok(()) => outcomes.served += weight,
                Err(_) => outcomes.failed += weight,
            }
        }
        self.made += 1;
        let wait = ended - begun;
        self.longest_wait = self.longest_wait.max(wait);
        self.noticed += if wait > NOTICED { weight } else { 0.0 };
        if let Err(error) = result {
            let error = error.kind();
            *self.errors.entry((error.code(), error.name())).or_default() += weight;
            let of_outage = |outage: &Outage| (outage.start..outage.end() + self.max_age).contains(&begun);
            let when = &mut self.failed_when[kind as usize];
            if self.outage.as_ref().is_some_and(of_outage) {
                when.around_outage += weight;
                let (first, last) = self.failures[kind as usize].get_or_insert((ended, ended));
                (*first, *last) = (ended.min(*first), ended.max(*last));
            } else if begun < self.max_age {
                when.at_start += weight;
            }
        }
    }

    /// Notes under which generation a value of a tenant was sealed at `time`.
    pub(crate) fn sealed(&mut self, tenant: usize, generation: Generation, time: Duration) {
        let rotation = &mut self.rotations[tenant];
        if generation > rotation.old {
            rotation.first_new.get_or_insert(time);
        } else if rotation.due.is_some_and(|due| time >= due) {
            rotation.last_old = Some(time);
        }
    }

    pub(crate) fn occupancy(&mut self, time: Duration, (entries, bytes): (usize, usize)) {
        let place = self.place(time);
        let interval = &mut self.intervals[place];
        interval.bytes = interval.bytes.max(bytes);
        if bytes > self.memory.1 {
            self.memory = (entries, bytes);
        }
    }

    fn place(&self, time: Duration) -> usize {
        let place = usize::try_from(time.as_nanos() / self.interval.as_nanos()).unwrap_or(usize::MAX);
        place.min(self.intervals.len() - 1)
    }
}
