//! What docs say of keys, as plain data: no bytes, no caches, no cryptography. [`Model::step`] answers with everything that a keyring may
//! do about one operation; `keyring_model.rs` asks the real one and lets it do nothing else.
//!
//! There is more than one answer only where docs/CACHE.md allows it: a process may go on with what it has seen for as long as the cache
//! policy says, and what it changed itself it knows at once.
//!
//! Some lines over 500: records, and what commands make of them, are read together.

mod answers;

use keyfold::{ErrorKind, KeyState, KmsErrorKind};
use std::collections::{BTreeMap, BTreeSet};

pub const PROCESSES: usize = 2;
/// Of the keyring itself, and two that are made when something is first sealed in them.
pub const SCOPES: usize = 3;
pub const KEKS: usize = 2;

// Times are seconds.
pub const CHECK_EVERY: u64 = 60;
pub const MAX_AGE: u64 = 600;
pub const GRACE: u64 = 3600;
pub const DATA_AGE: u64 = 2000;
pub const WAITING: u64 = 500;
/// A process takes two from the count at once. Where it opens the key anew in between, one of them does not come back before nobody holds
/// the key as it was.
pub const LIMIT: u64 = 3;
/// So many that no chain of endorsements becomes too long.
const MAX_ROOTS: usize = 8;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    Root,
    Lookup,
    Data(usize),
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Key {
    pub class: Class,
    pub state: KeyState,
    /// The root that vouches for it, itself for a root that is not destroyed.
    pub under: usize,
    pub keks: BTreeSet<usize>,
    pub sequence: u64,
    /// When it was made, when it first sealed (0: never), and when its record last changed, by the store's clock.
    pub times: [u64; 3],
    pub held: bool,
}

/// What the model knows of a key beyond its record.
#[derive(Clone, Copy, Default)]
struct Past {
    endorser: Option<usize>,
    was_compromised: bool,
    /// When its lead is over; `None` if the store's clock has jumped since and processes differ about it.
    lead_ends: Option<u64>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Service {
    Answers,
    Away,
    Denies,
}

#[derive(Clone, Debug)]
pub enum Op {
    Seal(usize),
    /// A value by number, in its own scope or another one, with a new handle or one that was made long ago.
    Open {
        value: usize,
        scope: Option<usize>,
        late: bool,
    },
    Rotate(usize),
    Activate(usize),
    RotateRoot,
    ActivateRoot,
    ChangeState(usize, KeyState),
    Shred(usize),
    CancelShred(usize),
    FinishShred(usize),
    Hold(usize),
    Release(usize),
    Reparent,
    Rewrap,
    /// A new process takes the place of this one, and pins every root.
    Restart,
    Wait(u64),
    StoreClockJumps(i64),
    Kek(usize, Service),
    Store(Service),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    Sealed(usize),
    Opened { current: bool },
    Done,
    Refused(ErrorKind),
}

/// When a process learnt which key seals in a scope.
#[derive(Clone, Copy)]
struct Seen {
    /// When it asked for the key, at the latest: it asks again `CHECK_EVERY` later.
    asked: u64,
    /// When it looked which one it is. While nobody answers it goes on from then.
    looked: u64,
}

impl Seen {
    const fn at(now: u64) -> Self {
        Self { asked: now, looked: now }
    }

    /// It asks before the next time.
    fn ask_again(&mut self) {
        self.asked -= CHECK_EVERY;
    }
}

/// What one process may still believe, at most: of each, and when it saw it at the latest.
#[derive(Clone, Default)]
struct Process {
    pins: BTreeSet<usize>,
    /// By scope, the key under which it seals, and each that it may take for the one that does.
    seals: BTreeMap<usize, (usize, Seen)>,
    newest: BTreeMap<usize, Vec<(Option<usize>, Seen)>>,
    /// Keys that open.
    opens: BTreeMap<usize, u64>,
    /// When roots were last unwrapped.
    roots: Option<u64>,
    /// How many values were sealed under each key.
    used: BTreeMap<usize, u64>,
    /// What worked while everybody answered, and therefore works on for the grace.
    opened: BTreeMap<usize, u64>,
    sealed: BTreeMap<usize, u64>,
}

#[derive(Clone)]
pub struct Model {
    pub keys: Vec<Key>,
    past: Vec<Past>,
    processes: [Process; PROCESSES],
    keks: [Service; KEKS],
    store: Service,
    /// Whether a KEK, or the store, was away since time last passed: a root that is used on for that is not asked about again in that
    /// moment, and nobody hears that the KEK refuses by now.
    keks_were_away: [bool; KEKS],
    store_was_away: bool,
    /// Of processes; the store's clock is ahead by `ahead`.
    now: u64,
    ahead: u64,
    lead: u64,
    /// Whether somebody was away since time last passed: leases are extended for a moment then.
    shaken: bool,
    /// What is taken for so where processes differ about a lead, or about what was sealed: how many values have the next key made, and how
    /// many are refused.
    leads_are_over: bool,
    used_up_at: u64,
    limit: u64,
}

type Answer<T> = Result<T, ErrorKind>;

impl Model {
    pub fn new(keys: Vec<Key>, now: u64, lead: u64) -> Self {
        let process = Process { pins: BTreeSet::from([0]), ..Process::default() };
        Self {
            past: vec![Past::default(); keys.len()],
            keys,
            processes: [process.clone(), process],
            keks: [Service::Answers; KEKS],
            store: Service::Answers,
            keks_were_away: [false; KEKS],
            store_was_away: false,
            now,
            ahead: 0,
            lead,
            shaken: false,
            leads_are_over: false,
            used_up_at: LIMIT,
            limit: LIMIT,
        }
    }

    pub fn store_time(&self) -> u64 {
        self.now + self.ahead
    }

    /// Whether `op` is left out: it would stop half way, which has tests of its own, or go beyond what is modelled.
    pub fn leaves_out(&self, op: &Op) -> bool {
        let trouble = self.trouble().is_some();
        match op {
            Op::CancelShred(_) | Op::Rewrap | Op::Reparent => trouble || !self.failing_keks().is_empty(),
            Op::Shred(_) | Op::FinishShred(_) => self.is_refused(),
            Op::RotateRoot => !self.failing_keks().is_empty() || self.of(Class::Root).count() >= MAX_ROOTS,
            // A new key may be activated and the one before it not be deactivated, whose root cannot be had.
            Op::ActivateRoot => !self.failing_keks().is_empty(),
            Op::ChangeState(key, _) => {
                let waits = self.keys[*key].state == KeyState::PreActive;
                !self.failing_keks().is_empty() && (waits || self.is_root(*key))
            }
            Op::Kek(_, service) => *service != Service::Answers && self.waiting(Class::Root).is_some(),
            _ => false,
        }
    }

    pub fn is_root(&self, key: usize) -> bool {
        self.keys[key].class == Class::Root
    }

    // What is so.

    /// Newest first.
    fn of(&self, class: Class) -> impl Iterator<Item = usize> {
        (0..self.keys.len()).rev().filter(move |key| self.keys[*key].class == class)
    }

    fn live(&self, scope: usize) -> Vec<usize> {
        self.of(Class::Data(scope)).filter(|key| self.keys[*key].state != KeyState::Destroyed).collect()
    }

    fn newest_that_sealed(&self, class: Class) -> Option<usize> {
        self.of(class).find(|key| self.keys[*key].times[1] != 0)
    }

    /// Of all keys that ever sealed only the newest may, and only while it is active.
    fn sealing(&self, class: Class) -> Option<usize> {
        self.newest_that_sealed(class).filter(|key| self.keys[*key].state == KeyState::Active)
    }

    fn waiting(&self, class: Class) -> Option<usize> {
        let sealed = self.newest_that_sealed(class);
        self.of(class).take_while(|key| Some(*key) != sealed).find(|key| self.keys[*key].state == KeyState::PreActive)
    }

    fn lead_is_over(&self, key: usize) -> bool {
        self.lead == 0 || self.past[key].lead_ends.map_or(self.leads_are_over, |ends| self.now >= ends)
    }

    fn is_due(&self, key: usize) -> bool {
        let Key { class, times: [_, activated, _], .. } = self.keys[key];
        class != Class::Root && self.store_time().abs_diff(activated) >= DATA_AGE - self.lead
    }

    fn failing_keks(&self) -> Vec<Service> {
        self.keks.iter().copied().filter(|kek| *kek != Service::Answers).collect()
    }

    /// The services on whose account an operation may fail; `None`: it must not.
    fn trouble(&self) -> Option<Vec<ErrorKind>> {
        if self.store != Service::Answers {
            return Some(vec![ErrorKind::Store]);
        }
        // Whoever makes a key looks at the root that seals and at all that were made after it, whatever became of them: a KEK that
        // refuses one of those leaves it open which root is the newest.
        let sealed = self.newest_that_sealed(Class::Root);
        let in_use = |root: &usize| {
            let state = self.keys[*root].state;
            state.may_open() || (state != KeyState::Destroyed && Some(*root) > sealed)
        };
        let is_sure = |root: usize| {
            let keks = || self.keys[root].keks.iter().map(|kek| self.keks[*kek]);
            keks().any(|kek| kek == Service::Answers) && keks().all(|kek| kek != Service::Denies)
        };
        if self.of(Class::Root).filter(in_use).all(is_sure) { None } else { Some(self.kek_errors()) }
    }

    fn kek_errors(&self) -> Vec<ErrorKind> {
        let kind = |kek| match kek {
            Service::Denies => ErrorKind::Kms(KmsErrorKind::AccessDenied),
            _ => ErrorKind::Kms(KmsErrorKind::Unavailable),
        };
        self.failing_keks().into_iter().map(kind).collect()
    }

    fn is_refused(&self) -> bool {
        self.keks.contains(&Service::Denies)
    }

    /// Whether something seen at `at` may still be believed that is looked up again `within` so many seconds.
    fn may_believe(&self, at: u64, within: u64) -> bool {
        let longest = if self.shaken || self.trouble().is_some() { MAX_AGE + GRACE } else { within };
        self.now < at + longest
    }

    /// The same of the key that seals.
    fn may_go_on(&self, seen: Seen) -> bool {
        self.may_believe(seen.asked, CHECK_EVERY) || self.may_believe(seen.looked, 0)
    }

    /// Whether a root may be had: from a service or from memory.
    fn may_have(&self, p: usize, root: usize) -> bool {
        let some = |service| self.keys[root].keks.iter().any(|kek| self.keks[*kek] == service);
        let went_on = self.store_was_away || self.keys[root].keks.iter().any(|kek| self.keks_were_away[*kek]);
        let longest = if some(Service::Denies) && !went_on { MAX_AGE } else { MAX_AGE + GRACE };
        some(Service::Answers) || self.processes[p].roots.is_some_and(|at| self.now < at + longest)
    }

    fn may_have_a_root(&self, p: usize) -> bool {
        self.of(Class::Root).any(|root| self.keys[root].state.may_open() && self.may_have(p, root))
    }

    // What changes keys.

    fn change(&mut self, key: usize, change: impl FnOnce(&mut Key)) {
        let now = self.store_time();
        change(&mut self.keys[key]);
        self.keys[key].sequence += 1;
        self.keys[key].times[2] = now;
    }

    fn make(&mut self, class: Class, state: KeyState) -> Answer<usize> {
        let key = self.keys.len();
        let (under, endorser, keks) = match class {
            Class::Root => (key, self.sealing(Class::Root), (0..KEKS).collect()),
            _ => (self.current_root()?, None, BTreeSet::new()),
        };
        let now = self.store_time();
        let times = [now, if state == KeyState::Active { now } else { 0 }, now];
        self.keys.push(Key { class, state, under, keks, sequence: 1, times, held: false });
        self.past.push(Past { endorser, lead_ends: Some(self.now + self.lead), ..Past::default() });
        Ok(key)
    }

    /// `None`: no root seals, which nobody can bring about.
    fn current_root(&mut self) -> Answer<usize> {
        self.advance(Class::Root, None).ok_or(ErrorKind::NoMatchingKey)
    }

    fn deactivate_before(&mut self, class: Class, new: usize) {
        for key in self.of(class).filter(|key| *key < new).collect::<Vec<_>>() {
            if matches!(self.keys[key].state, KeyState::PreActive | KeyState::Active) {
                self.change(key, |key| key.state = KeyState::Deactivated);
            }
        }
    }

    fn activate(&mut self, key: usize) {
        let now = self.store_time();
        self.change(key, |key| (key.state, key.times[1]) = (KeyState::Active, now));
        self.deactivate_before(self.keys[key].class, key);
    }

    fn rotate(&mut self, class: Class) -> Answer<usize> {
        let head = self.of(class).next().ok_or(ErrorKind::NoMatchingKey)?;
        if let Some(waiting) = self.waiting(class) {
            return Ok(waiting);
        }
        if class != Class::Root && self.keys[head].state == KeyState::DestroyPending {
            return Err(ErrorKind::KeyState);
        }
        let at_once = self.lead == 0 || self.sealing(class).is_none();
        let new = self.make(class, if at_once { KeyState::Active } else { KeyState::PreActive })?;
        if at_once {
            self.deactivate_before(class, new);
        }
        Ok(new)
    }

    fn rotate_at_once(&mut self, class: Class) -> Answer<()> {
        let new = self.rotate(class)?;
        if self.keys[new].state == KeyState::PreActive {
            self.activate(new);
        }
        Ok(())
    }

    /// The key that seals, after whatever rotation is due.
    fn advance(&mut self, class: Class, used_up: Option<usize>) -> Option<usize> {
        if let Some(waiting) = self.waiting(class) {
            if self.lead_is_over(waiting) {
                self.activate(waiting);
            }
        } else if let Some(key) = self.sealing(class)
            && (self.is_due(key) || used_up == Some(key))
        {
            // What cannot be rotated seals on.
            let _ = self.rotate(class);
        }
        self.sealing(class)
    }

    /// By hand: only the changes of NIST SP 800-57 that FORMAT.md §7.5 allows.
    fn set_state(&mut self, key: usize, state: KeyState) -> Answer<()> {
        use KeyState::{Active, Compromised, Deactivated, DestroyPending, Destroyed, PreActive};
        let allowed = match self.keys[key].state {
            PreActive => [Deactivated, Compromised].contains(&state),
            Active => [Deactivated, Compromised].contains(&state),
            Deactivated => [Compromised, DestroyPending].contains(&state),
            Compromised => state == DestroyPending,
            DestroyPending if self.past[key].was_compromised => [Compromised, Destroyed].contains(&state),
            DestroyPending => [Deactivated, Compromised, Destroyed].contains(&state),
            _ => false,
        };
        if !allowed {
            return Err(ErrorKind::KeyState);
        }
        self.past[key].was_compromised |= self.keys[key].state == Compromised && state == DestroyPending;
        self.change(key, |key| key.state = state);
        if state == Destroyed {
            self.keys[key].keks.clear();
        }
        Ok(())
    }

    fn refuse_held(&self, class: Class) -> Answer<()> {
        let held = |key: usize| self.keys[key].held && self.keys[key].state != KeyState::Destroyed;
        if self.of(class).any(held) { Err(ErrorKind::PolicyRefused) } else { Ok(()) }
    }

    fn refuse_too_early(&self, key: usize) -> Answer<()> {
        let early = self.store_time() < self.keys[key].times[2] + WAITING;
        if early { Err(ErrorKind::PolicyRefused) } else { Ok(()) }
    }

    fn refuse_needed(&self, p: usize, key: usize) -> Answer<()> {
        let pinned = |root: usize| self.processes[p].pins.contains(&root);
        let depends = |other: usize| {
            let endorsed = self.past[other].endorser == Some(key) && !pinned(other);
            other != key && (self.keys[other].under == key || endorsed)
        };
        let needed = match self.keys[key].class {
            Class::Data(_) => false,
            Class::Lookup => true,
            Class::Root => {
                self.keys[key].state == KeyState::Active
                    || !self.sealing(Class::Root).is_some_and(pinned)
                    || (0..self.keys.len()).any(depends)
            }
        };
        if needed { Err(ErrorKind::PolicyRefused) } else { Ok(()) }
    }

    fn change_by_hand(&mut self, p: usize, key: usize, state: KeyState) -> Answer<()> {
        use KeyState::{Active, Compromised, DestroyPending, Destroyed, PreActive};
        let Key { class, state: before, .. } = self.keys[key];
        if (before, state) == (PreActive, Active) {
            self.activate(key);
            return Ok(());
        }
        self.refuse_needed(p, key)?;
        if matches!(state, DestroyPending | Destroyed) {
            self.refuse_held(class)?;
        }
        if (before, state) == (DestroyPending, Destroyed) {
            self.refuse_too_early(key)?;
        }
        if (before, state) == (Active, Compromised) {
            self.rotate_at_once(class)?;
        }
        if (class, state) == (Class::Root, Destroyed) {
            return self.destroy(p, key);
        }
        self.set_state(key, state)?;
        self.forget(p, key);
        Ok(())
    }

    /// The current root vouches for the tombstone.
    fn destroy(&mut self, p: usize, key: usize) -> Answer<()> {
        let root = self.current_root()?;
        self.set_state(key, KeyState::Destroyed)?;
        self.keys[key].under = root;
        self.forget(p, key);
        Ok(())
    }

    /// What `p` did with a key itself it knows, in all of its handles.
    fn forget(&mut self, p: usize, key: usize) {
        let (process, may_open) = (&mut self.processes[p], self.keys[key].state.may_open());
        process.opens.retain(|held, _| *held != key || may_open);
        process.opened.remove(&key);
        process.seals.retain(|_, (seals, _)| *seals != key);
        process.newest.values_mut().for_each(|newest| newest.retain(|(newest, _)| *newest != Some(key)));
    }

    fn shred(&mut self, p: usize, scope: usize) -> Answer<()> {
        self.refuse_held(Class::Data(scope))?;
        for key in self.live_or_refused(scope)? {
            if matches!(self.keys[key].state, KeyState::PreActive | KeyState::Active) {
                self.set_state(key, KeyState::Deactivated)?;
            }
            if self.keys[key].state != KeyState::DestroyPending {
                self.set_state(key, KeyState::DestroyPending)?;
            }
            self.forget(p, key);
        }
        Ok(())
    }

    fn live_or_refused(&self, scope: usize) -> Answer<Vec<usize>> {
        let live = self.live(scope);
        if live.is_empty() { Err(ErrorKind::KeyState) } else { Ok(live) }
    }

    fn cancel_shred(&mut self, p: usize, scope: usize) -> Answer<()> {
        let live = self.live_or_refused(scope)?;
        let scheduled = live.into_iter().filter(|key| self.keys[*key].state == KeyState::DestroyPending);
        let scheduled: Vec<_> = scheduled.collect();
        for key in &scheduled {
            let compromised = self.past[*key].was_compromised;
            self.set_state(*key, if compromised { KeyState::Compromised } else { KeyState::Deactivated })?;
            self.forget(p, *key);
        }
        match self.sealing(Class::Data(scope)) {
            Some(_) if scheduled.is_empty() => Err(ErrorKind::KeyState),
            Some(_) => Ok(()),
            None => self.rotate_at_once(Class::Data(scope)),
        }
    }

    fn finish_shred(&mut self, p: usize, scope: usize) -> Answer<()> {
        self.refuse_held(Class::Data(scope))?;
        let live = self.live(scope);
        for key in &live {
            if self.keys[*key].state != KeyState::DestroyPending {
                return Err(ErrorKind::KeyState);
            }
            self.refuse_too_early(*key)?;
        }
        for key in live {
            self.destroy(p, key)?;
        }
        self.of(Class::Data(scope)).collect::<Vec<_>>().into_iter().for_each(|key| self.forget(p, key));
        Ok(())
    }

    fn set_hold(&mut self, scope: usize, hold: bool) -> Answer<()> {
        let live = self.live_or_refused(scope)?;
        if !hold && !live.iter().any(|key| self.keys[*key].held) {
            return Err(ErrorKind::KeyState);
        }
        for key in live.into_iter().filter(|key| self.keys[*key].held != hold).collect::<Vec<_>>() {
            self.change(key, |key| key.held = hold);
        }
        Ok(())
    }

    fn reparent(&mut self, p: usize) -> Answer<()> {
        let root = self.current_root()?;
        if self.waiting(Class::Root).is_some() {
            return Err(ErrorKind::Conflict);
        }
        for key in 0..self.keys.len() {
            let stays = self.is_root(key) && self.keys[key].state != KeyState::Destroyed;
            if !stays && self.keys[key].under < root {
                self.change(key, |key| key.under = root);
                // A handle that was made before holds it as it was.
                self.processes[p].opened.remove(&key);
            }
        }
        Ok(())
    }

    fn rewrap(&mut self) {
        for root in self.of(Class::Root).collect::<Vec<_>>() {
            let Key { state, keks, .. } = &self.keys[root];
            let left_out = matches!(state, KeyState::Compromised | KeyState::Destroyed);
            if !left_out && keks.len() < KEKS {
                self.change(root, |root| root.keks = (0..KEKS).collect());
            }
        }
    }
}
