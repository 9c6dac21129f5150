//! The simulation: processes get their requests, refresh and restart, and time passes.

use crate::access::{Access, Asked};
use crate::operations::Operations;

use crate::prediction::Prediction;
use crate::random::Random;
use crate::scenario::Scenario;
use crate::tally::{Kind, Tally};
use crate::time::Tasks;
use crate::world::World;
use keyfold::{Clock, Keyring, Result};
use keyfold_kms::layer::Timer;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

const DAY: f64 = 86_400.0;

/// Simulates `scenario`. The same scenario gives the same prediction.
///
/// Takes as long as the requests that are made need on this machine, and sleeps never. Logs nothing: what the keyring has to say of a
/// simulated outage would be taken for a real one.
///
/// # Errors
///
/// Those of making the keyring and of what operators do at the end; failures of requests are part of the prediction.
pub fn simulate(scenario: &Scenario) -> Result<Prediction> {
    simulate_watched(scenario, |_| Ok(()))
}

/// As [`simulate`], and calls `watch` after every step with the simulated time that has passed, for those who show it. What it does has
/// no part in the prediction.
///
/// # Errors
///
/// As [`simulate`]; that of `watch`, which ends the simulation.
pub fn simulate_watched(scenario: &Scenario, watch: impl FnMut(Duration) -> Result<()>) -> Result<Prediction> {
    tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::default(), || Simulation::run(scenario, watch))
}

struct Simulation<'a> {
    scenario: &'a Scenario,
    world: Rc<World>,
    tally: Rc<RefCell<Tally>>,
    tasks: Tasks,
    access: Access,
    random: Random,
    processes: Vec<Process>,
}

struct Process {
    ring: Keyring,
    /// Whether it is the process of its place still.
    is_running: Rc<Cell<bool>>,
    restarts_at: Option<Duration>,
}

impl<'a> Simulation<'a> {
    fn run(scenario: &'a Scenario, watch: impl FnMut(Duration) -> Result<()>) -> Result<Prediction> {
        let mut random = Random::new(scenario.seed);
        let world = Rc::new(World::new(scenario, &mut random)?);
        let tally = Rc::new(RefCell::new(Tally::new(scenario, &world)));
        let mut simulation = Self {
            scenario,
            tasks: Tasks::new(world.time.clone()),
            world,
            tally,
            access: Access::of(scenario),
            random,
            processes: Vec::new(),
        };
        simulation.world.service.begin();
        for _ in 0..scenario.system.processes {
            let between = simulation.between_restarts();
            let first = between.map(|between| between.mul_f64(simulation.random.unit()));
            let process = simulation.start(first)?;
            simulation.processes.push(process);
        }
        simulation.pass_time(watch)?;
        let Self { world, tally, tasks, processes, .. } = simulation;
        let counts = world.service.counts();
        let seconds = world.service.seconds();
        // Whoever waits still has no part in what follows.
        drop((tasks, processes));
        let operations = Operations::measure(&world)?;
        Ok(Prediction::new(scenario, &world, &tally.borrow(), counts, &seconds, operations))
    }

    fn pass_time(&mut self, mut watch: impl FnMut(Duration) -> Result<()>) -> Result<()> {
        let (step, count) = (self.scenario.run.step, self.processes.len());
        let mut start = Duration::ZERO;
        while start < self.scenario.run.time {
            for place in 0..count {
                // All start in the same moment; later each has its own place in the step.
                let offset = if start.is_zero() { Duration::ZERO } else { step.mul_f64(place as f64 / count as f64) };
                self.tasks.run_until(start + offset);
                self.visit(place)?;
            }
            start += step;
            watch(start.min(self.scenario.run.time))?;
        }
        self.tasks.run_until(self.scenario.run.time);
        Ok(())
    }

    /// Lets a process do what it has to do in a step.
    fn visit(&mut self, place: usize) -> Result<()> {
        let now = self.world.time.now();
        if self.processes[place].restarts_at.is_some_and(|at| now >= at) {
            self.processes[place].is_running.set(false);
            let next = self.between_restarts().map(|between| now + between);
            self.processes[place] = self.start(next)?;
        }
        let system = &self.scenario.system;
        let of_step = self.scenario.run.step.as_secs_f64() / system.processes as f64;
        let reads = self.random.poisson(system.reads_per_second * of_step);
        let writes = self.random.poisson(system.writes_per_second * of_step);
        // What starts asks for everything at once, and that peak is not to be sampled away.
        let most = if now.is_zero() { usize::MAX } else { self.scenario.run.samples_per_step };
        for (asked, weight) in self.access.draw(&mut self.random, [reads, writes], most) {
            // The first of several may have to wait for a renewal while the others go on.
            let first = weight.min(1.0);
            self.request(place, asked, first);
            if weight > first {
                self.request(place, asked, weight - first);
            }
        }
        self.tally.borrow_mut().occupancy(now, self.processes[place].ring.occupancy());
        Ok(())
    }

    fn request(&mut self, place: usize, Asked { kind, tenant, generation }: Asked, weight: f64) {
        let (ring, world, tally) = (self.processes[place].ring.clone(), self.world.clone(), self.tally.clone());
        let row = self.random.below(self.scenario.system.patients);
        self.tasks.spawn(async move {
            let begun = world.time.now();
            let result = match kind {
                Kind::Read => world.tenants[tenant].read(&ring, generation).await,
                Kind::Write => world.tenants[tenant].write(&ring, row).await.map(|generation| {
                    tally.borrow_mut().sealed(tenant, generation, world.time.now());
                }),
            };
            tally.borrow_mut().request(kind, weight, (begun, world.time.now()), &result);
        });
    }

    /// A process that has just started, and looks after its caches for as long as it runs.
    fn start(&mut self, restarts_at: Option<Duration>) -> Result<Process> {
        let process = Process { ring: self.world.process()?, is_running: Rc::new(Cell::new(true)), restarts_at };
        let every = self.scenario.system.refresh_every;
        if !every.is_zero() {
            let (ring, is_running, time) = (process.ring.clone(), process.is_running.clone(), self.world.time.clone());
            // Programs do not refresh in step.
            let first = every.mul_f64(self.random.unit());
            self.tasks.spawn(async move {
                time.sleep(first).await;
                while is_running.get() {
                    // What could not be renewed is met by the requests.
                    let _ = ring.refresh().await;
                    time.sleep(every).await;
                }
            });
        }
        Ok(process)
    }

    fn between_restarts(&self) -> Option<Duration> {
        let per_day = self.scenario.system.restarts_per_day;
        (per_day > 0.0).then(|| Duration::from_secs_f64(DAY / per_day))
    }
}
