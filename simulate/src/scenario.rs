//! Scenario files (docs/SIMULATE.md): what the simulated system is like.

use keyfold::config::{CacheToml, Origin, RotationToml, Spanned, parse_duration};
use keyfold::{CachePolicy, Error, ErrorKind, Result, RotationPolicy};
use keyfold_kms::layer::Limits;
use serde::Deserialize;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

const VERSION: u32 = 1;
/// The longest simulated time.
const MAX_TIME: Duration = Duration::from_secs(31 * 24 * 60 * 60);
/// Most steps of a simulation.
const MAX_STEPS: u64 = 1_000_000;

/// A system, what it is asked for, and what happens to it. [`parse`](Self::parse) checks the bounds of docs/SIMULATE.md; whoever changes
/// members keeps to them.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Scenario {
    /// For people.
    pub name: String,
    /// The same seed gives the same simulation.
    pub seed: u64,
    /// Who is there, and what they do.
    pub system: System,
    /// `[cache]` of the configuration.
    pub cache: CachePolicy,
    /// `[rotation]` of the configuration.
    pub rotation: RotationPolicy,
    /// The key service.
    pub key_service: KeyService,
    /// When it is away.
    pub outage: Option<Outage>,
    /// How long and how finely is simulated.
    pub run: Run,
}

/// Who is there, and what they do.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct System {
    /// Processes, each with a keyring of its own.
    pub processes: usize,
    /// How often a day each process starts anew.
    pub restarts_per_day: f64,
    /// How often a process calls `Keyring::refresh`; zero: never.
    pub refresh_every: Duration,
    /// Tenants, each a scope.
    pub tenants: usize,
    /// How many of them have a KEK of their own.
    pub isolated_tenants: usize,
    /// Patients, or devices: rows.
    pub patients: u64,
    /// Generations of data keys that each tenant has values of.
    pub generations: usize,
    /// Requests that read values of a patient, of the whole system.
    pub reads_per_second: f64,
    /// Requests that write them.
    pub writes_per_second: f64,
    /// The nth busiest tenant has 1 in n to this power of the requests; 0: all have as many.
    pub tenant_exponent: f64,
    /// Likewise of generations, the newest first.
    pub generation_exponent: f64,
}

/// The key service.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct KeyService {
    /// KEKs that wrap the root, 1 to 8.
    pub keks: usize,
    /// How long it takes to answer.
    pub latency: Duration,
    /// Requests that it answers in a second, of all KEKs together; the others are throttled.
    pub quota_per_second: u32,
    /// Total time of one operation (`[keks.ALIAS] deadline`).
    pub deadline: Duration,
    /// The price of 10,000 answered requests.
    pub price_per_10000_calls: f64,
    /// The price of a KEK for a month.
    pub price_per_key_and_month: f64,
    /// What prices are in.
    pub currency: String,
}

/// An outage of the key service.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Outage {
    /// When it begins.
    pub start: Duration,
    /// How long it lasts.
    pub length: Duration,
    /// Whether requests are refused at once or are never answered.
    pub silent: bool,
    /// How many of the KEKs that wrap the root are away, the first ones; with all of them those of tenants are away, too.
    pub keks: usize,
}

/// How long and how finely is simulated.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Run {
    /// How long.
    pub time: Duration,
    /// How often each process gets its requests.
    pub step: Duration,
    /// When data keys become as old as `data_age` allows; `None`: so long after the start.
    pub rotation_at: Option<Duration>,
    /// The keys of all tenants do so within this time, one after the other.
    pub rotation_spread: Duration,
    /// When the root becomes as old as `root_age` allows; `None`: so long after the start.
    pub root_rotation_at: Option<Duration>,
    /// Most keys that a process is asked for in a step; of more, so many stand for all.
    pub samples_per_step: usize,
}

impl Outage {
    /// When it ends.
    #[must_use]
    pub fn end(&self) -> Duration {
        self.start + self.length
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScenarioToml {
    version: Spanned<u32>,
    name: String,
    #[serde(default)]
    seed: u64,
    system: SystemToml,
    #[serde(default)]
    cache: CacheToml,
    #[serde(default)]
    rotation: RotationToml,
    key_service: KeyServiceToml,
    outage: Option<OutageToml>,
    run: RunToml,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SystemToml {
    processes: Spanned<usize>,
    restarts_per_day: Option<Spanned<f64>>,
    refresh_every: Option<Spanned<String>>,
    tenants: Spanned<usize>,
    isolated_tenants: Option<Spanned<usize>>,
    patients: Spanned<u64>,
    generations: Option<Spanned<usize>>,
    reads_per_second: Spanned<f64>,
    writes_per_second: Spanned<f64>,
    tenant_access: Option<Spanned<Access>>,
    generation_access: Option<Spanned<Access>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected \"uniform\", \"zipf\" or the exponent of Zipf's law, such as 1.2")]
enum Access {
    Name(String),
    Exponent(f64),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyServiceToml {
    keks: Option<Spanned<usize>>,
    latency_milliseconds: Spanned<f64>,
    quota_per_second: Spanned<u32>,
    deadline: Option<Spanned<String>>,
    price_per_10000_calls: Spanned<f64>,
    price_per_key_and_month: Spanned<f64>,
    currency: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutageToml {
    start: Spanned<String>,
    length: Spanned<String>,
    silent: Option<bool>,
    keks: Option<Spanned<usize>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RunToml {
    time: Spanned<String>,
    step: Spanned<String>,
    rotation_at: Option<Spanned<String>>,
    rotation_spread: Option<Spanned<String>>,
    root_rotation_at: Option<Spanned<String>>,
    samples_per_step: Option<Spanned<usize>>,
}

impl Scenario {
    /// Parses the text of a scenario file; `origin` names it in errors.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): with file, line and key.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let file = File(Origin::new(origin, text));
        let toml: ScenarioToml = file.0.parse()?;
        file.0.check_version(&toml.version, VERSION)?;
        let key_service = file.key_service(toml.key_service)?;
        let run = file.run(&toml.run)?;
        let rotation = toml.rotation.to_policy(&file.0)?;
        file.rotates(toml.run.rotation_at.as_ref(), rotation.data_age)?;
        file.rotates(toml.run.root_rotation_at.as_ref(), rotation.root_age)?;
        Ok(Self {
            name: toml.name,
            seed: toml.seed,
            system: file.system(&toml.system)?,
            cache: toml.cache.to_policy(&file.0)?,
            rotation,
            outage: toml.outage.map(|outage| file.outage(&outage, &key_service, &run)).transpose()?,
            key_service,
            run,
        })
    }

    /// A longer step shows in the results.
    pub(crate) fn unseen_step(&self) -> Duration {
        self.cache.check_every / 10
    }

    /// The step to take where `step` shows in the results: the longest that does not, in whole seconds, or the shortest that may be.
    /// `None` if there is no better one.
    pub(crate) fn finer_step(&self) -> Option<Duration> {
        let least = self.run.time.as_secs().div_ceil(MAX_STEPS).max(1);
        let finer = Duration::from_secs(self.unseen_step().as_secs().max(least));
        (finer < self.run.step).then_some(finer)
    }
}

struct File<'a>(Origin<'a>);

impl File<'_> {
    fn system(&self, toml: &SystemToml) -> Result<System> {
        let tenants = self.within(&toml.tenants, 1..=100_000)?;
        let refresh_every = self.duration_or(toml.refresh_every.as_ref(), Duration::from_secs(5))?;
        Ok(System {
            processes: self.within(&toml.processes, 1..=1000)?,
            restarts_per_day: self.or(toml.restarts_per_day.as_ref(), 0.0, 0.0..=1000.0)?,
            refresh_every,
            tenants,
            isolated_tenants: self.or(toml.isolated_tenants.as_ref(), 0, 0..=tenants)?,
            patients: self.within(&toml.patients, 1..=u64::from(u32::MAX))?,
            generations: self.or(toml.generations.as_ref(), 1, 1..=100)?,
            reads_per_second: self.within(&toml.reads_per_second, 0.0..=1e9)?,
            writes_per_second: self.within(&toml.writes_per_second, 0.0..=1e9)?,
            tenant_exponent: self.exponent(toml.tenant_access.as_ref())?,
            generation_exponent: self.exponent(toml.generation_access.as_ref())?,
        })
    }

    fn key_service(&self, toml: KeyServiceToml) -> Result<KeyService> {
        let latency = self.within(&toml.latency_milliseconds, 0.0..=60_000.0)?;
        let deadline = self.duration_or(toml.deadline.as_ref(), Duration::from_secs(10))?;
        if let Some(text) = &toml.deadline {
            let allowed = Duration::from_secs(1)..=Duration::from_secs(300);
            self.check(text, allowed.contains(&deadline), "a deadline is 1s to 5m")?;
        }
        let in_time = latency / 1000.0 < deadline.as_secs_f64();
        self.check(&toml.latency_milliseconds, in_time, "a key service answers before the deadline")?;
        // World::new leaves it as it is.
        let attempt = Limits::default().attempt;
        self.0.at(&toml.latency_milliseconds, |_| match latency / 1000.0 < attempt.as_secs_f64() {
            true => Ok(()),
            false => {
                Err(wrong("a key service answers within the time of one attempt").with_detail(format!("{attempt:?}")))
            }
        })?;
        Ok(KeyService {
            keks: self.or(toml.keks.as_ref(), 1, 1..=8)?,
            latency: Duration::from_secs_f64(latency / 1000.0),
            quota_per_second: self.within(&toml.quota_per_second, 1..=1_000_000)?,
            deadline,
            price_per_10000_calls: self.within(&toml.price_per_10000_calls, 0.0..=1e6)?,
            price_per_key_and_month: self.within(&toml.price_per_key_and_month, 0.0..=1e6)?,
            currency: toml.currency,
        })
    }

    fn outage(&self, toml: &OutageToml, service: &KeyService, run: &Run) -> Result<Outage> {
        let outage = Outage {
            start: self.duration(&toml.start)?,
            length: self.duration(&toml.length)?,
            silent: toml.silent.unwrap_or(false),
            keks: self.or(toml.keks.as_ref(), service.keks, 1..=service.keks)?,
        };
        self.check(&toml.length, !outage.length.is_zero(), "an outage takes some time")?;
        self.check(&toml.start, outage.start < run.time, "the outage begins within the simulated time")?;
        let end = outage.start.checked_add(outage.length);
        self.check(&toml.length, end.is_some_and(|end| end <= run.time), "the outage ends before the simulation does")?;
        Ok(outage)
    }

    fn run(&self, toml: &RunToml) -> Result<Run> {
        let (time, step) = (self.duration(&toml.time)?, self.duration(&toml.step)?);
        self.check(&toml.time, !time.is_zero() && time <= MAX_TIME, "1s to 31d are simulated")?;
        self.check(&toml.step, !step.is_zero() && step <= time, "a step is 1s up to the simulated time")?;
        let steps = time.as_nanos() / step.as_nanos().max(1);
        self.check(&toml.step, steps <= u128::from(MAX_STEPS), "there are at most 1,000,000 steps: make them longer")?;
        let moment = |text: Option<&Spanned<String>>| -> Result<Option<Duration>> {
            let Some(text) = text else { return Ok(None) };
            let moment = self.duration(text)?;
            self.check(text, moment < time, "it is within the simulated time")?;
            Ok(Some(moment))
        };
        Ok(Run {
            time,
            step,
            rotation_at: moment(toml.rotation_at.as_ref())?,
            rotation_spread: moment(toml.rotation_spread.as_ref())?.unwrap_or_default(),
            root_rotation_at: moment(toml.root_rotation_at.as_ref())?,
            samples_per_step: self.or(toml.samples_per_step.as_ref(), 50, 1..=100_000)?,
        })
    }

    /// What never gets too old has no moment at which it does.
    fn rotates(&self, at: Option<&Spanned<String>>, age: Option<Duration>) -> Result<()> {
        at.map_or(Ok(()), |at| self.check(at, age.is_some(), "no key becomes due: [rotation] says never"))
    }

    fn exponent(&self, access: Option<&Spanned<Access>>) -> Result<f64> {
        let Some(access) = access else { return Ok(0.0) };
        self.0.at(access, |access| match access {
            Access::Name(name) if name == "uniform" => Ok(0.0),
            Access::Name(name) if name == "zipf" => Ok(1.0),
            Access::Exponent(exponent) if (0.0..=10.0).contains(exponent) => Ok(*exponent),
            _ => Err(wrong("access is \"uniform\", \"zipf\" or an exponent from 0.0 to 10.0")),
        })
    }

    fn duration(&self, text: &Spanned<String>) -> Result<Duration> {
        self.0.at(text, |text| parse_duration(text))
    }

    fn duration_or(&self, text: Option<&Spanned<String>>, default: Duration) -> Result<Duration> {
        text.map_or(Ok(default), |text| self.duration(text))
    }

    fn or<T: Copy + PartialOrd + Display>(
        &self,
        value: Option<&Spanned<T>>,
        default: T,
        allowed: RangeInclusive<T>,
    ) -> Result<T> {
        value.map_or(Ok(default), |value| self.within(value, allowed))
    }

    fn within<T: Copy + PartialOrd + Display>(&self, value: &Spanned<T>, allowed: RangeInclusive<T>) -> Result<T> {
        self.0.at(value, |value| match allowed.contains(value) {
            true => Ok(*value),
            false => Err(wrong("it is out of its bounds").with_detail(format!(
                "{value}, and {} to {} are allowed",
                allowed.start(),
                allowed.end()
            ))),
        })
    }

    fn check<T>(&self, value: &Spanned<T>, holds: bool, rule: &'static str) -> Result<()> {
        self.0.at(value, |_| if holds { Ok(()) } else { Err(wrong(rule)) })
    }
}

fn wrong(rule: &'static str) -> Error {
    Error::new(ErrorKind::Configuration, rule)
}
