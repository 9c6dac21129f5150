//! Everything that a keyring may answer, and what is so afterwards.

use super::{Answer, CHECK_EVERY, Class, GRACE, Key, LIMIT, MAX_AGE, Model, Op, Outcome, Process, Seen, Service};
use keyfold::{ErrorKind, KeyState, KmsErrorKind};
use std::collections::BTreeSet;

type Answers = Vec<(Outcome, Model)>;

impl Model {
    /// What may come of `op` in the process `p`. Of answers that look the same, the first leaves the process the most to believe.
    pub fn step(&self, p: usize, op: &Op, values: &[(usize, usize)]) -> Answers {
        let mut answers = Vec::new();
        // While what was put aside counts as used the next key is made, and when it has come back the present one seals on.
        let limits = [(LIMIT, LIMIT), (LIMIT - 1, LIMIT), (LIMIT - 1, LIMIT - 1)];
        for ((used_up_at, limit), leads_are_over) in
            limits.into_iter().flat_map(|limits| [(limits, false), (limits, true)])
        {
            let model = Self { leads_are_over, used_up_at, limit, ..self.clone() };
            answers.extend(match op {
                Op::Seal(scope) => model.seal(p, *scope),
                Op::Open { value, scope, late } => {
                    let (key, own) = values[*value];
                    model.open(p, key, scope.unwrap_or(own), *late)
                }
                Op::Restart | Op::Wait(_) | Op::StoreClockJumps(_) | Op::Kek(..) | Op::Store(_) => model.around(p, op),
                _ => model.manage(p, op),
            });
        }
        let concerns_keys =
            !matches!(op, Op::Restart | Op::Wait(_) | Op::StoreClockJumps(_) | Op::Kek(..) | Op::Store(_));
        if concerns_keys && self.keks.contains(&Service::Answers) {
            answers.iter_mut().for_each(|(_, next)| next.process(p).roots = Some(self.now));
        }
        answers
    }

    fn process(&mut self, p: usize) -> &mut Process {
        &mut self.processes[p]
    }

    fn around(mut self, p: usize, op: &Op) -> Answers {
        match *op {
            Op::Restart => {
                let pins: BTreeSet<_> = self.of(Class::Root).collect();
                self.processes[p] = Process { pins, ..Process::default() };
            }
            Op::Wait(seconds) => {
                self.now += seconds;
                self.shaken = self.is_troubled();
                self.keks_were_away = self.keks.map(|kek| kek == Service::Away);
                self.store_was_away = self.store != Service::Answers;
            }
            Op::StoreClockJumps(seconds) => {
                self.ahead = self.ahead.saturating_add_signed(seconds);
                self.past.iter_mut().for_each(|past| past.lead_ends = None);
            }
            Op::Kek(kek, service) => {
                self.keks[kek] = service;
                self.keks_were_away[kek] |= service == Service::Away;
                if service == Service::Denies {
                    // Whoever is refused goes on with nothing.
                    self.processes.iter_mut().for_each(|process| {
                        process.opened.clear();
                        process.sealed.clear();
                    });
                }
            }
            Op::Store(service) => {
                self.store = service;
                self.store_was_away |= service != Service::Answers;
            }
            _ => unreachable!("it concerns keys"),
        }
        self.shaken |= self.is_troubled();
        vec![(Outcome::Done, self)]
    }

    fn is_troubled(&self) -> bool {
        self.store != Service::Answers || !self.failing_keks().is_empty()
    }

    /// What a person does about keys: as the records are now, or not at all.
    fn manage(self, p: usize, op: &Op) -> Answers {
        let trouble = match op {
            Op::RotateRoot if self.store == Service::Answers && !self.failing_keks().is_empty() => {
                Some(self.kek_errors())
            }
            _ => self.trouble(),
        };
        let mut answers = Vec::new();
        if self.store == Service::Answers && (trouble.is_none() || self.may_have_a_root(p)) {
            let mut next = self.clone();
            let outcome = next.managed(p, op).map_or_else(Outcome::Refused, |()| Outcome::Done);
            let makes_root = next.of(Class::Root).count() > self.of(Class::Root).count();
            if trouble.is_none() || !makes_root {
                answers.push((outcome, next));
            }
        }
        answers.extend(self.clone().failures(trouble));
        if let Some(scope) = self.is_to_seal_no_more(op) {
            // However far it came: what cannot be asked about does not go on.
            let refused = |(outcome, _): &&mut (Outcome, Self)| matches!(outcome, Outcome::Refused(_));
            answers.iter_mut().filter(refused).for_each(|(_, next)| _ = next.process(p).sealed.remove(&scope));
        }
        answers
    }

    /// The scope in which `op` is to take the key that seals out of service.
    fn is_to_seal_no_more(&self, op: &Op) -> Option<usize> {
        let &Op::ChangeState(key, KeyState::Deactivated | KeyState::Compromised) = op else { return None };
        match self.keys[key] {
            Key { class: Class::Data(scope), state: KeyState::Active, .. } => Some(scope),
            _ => None,
        }
    }

    fn managed(&mut self, p: usize, op: &Op) -> Answer<()> {
        let scope_of = |scope: &usize| Class::Data(*scope);
        match op {
            Op::Rotate(scope)
            | Op::Activate(scope)
            | Op::Shred(scope)
            | Op::CancelShred(scope)
            | Op::FinishShred(scope)
            | Op::Hold(scope)
            | Op::Release(scope)
                if self.of(scope_of(scope)).next().is_none() =>
            {
                Err(ErrorKind::NoMatchingKey)
            }
            Op::Rotate(scope) if self.waiting(scope_of(scope)).is_some() => Ok(()),
            Op::Rotate(scope) => self.rotate(scope_of(scope)).map(|_| self.look_again(p, *scope)),
            Op::Activate(scope) if self.waiting(scope_of(scope)).is_none() => self.activate_waiting(scope_of(scope)),
            Op::Activate(scope) => self.activate_waiting(scope_of(scope)).map(|()| self.look_again(p, *scope)),
            Op::RotateRoot => self.rotate(Class::Root).map(drop),
            Op::ActivateRoot => self.activate_waiting(Class::Root),
            Op::ChangeState(key, state) => {
                let class = self.keys[*key].class;
                let changed = self.change_by_hand(p, *key, *state);
                if let (Class::Data(scope), Ok(())) = (class, &changed) {
                    self.look_again(p, scope);
                }
                changed
            }
            Op::Shred(scope) => self.shred(p, *scope).map(|()| self.look_again(p, *scope)),
            Op::CancelShred(scope) => self.cancel_shred(p, *scope).map(|()| self.look_again(p, *scope)),
            Op::FinishShred(scope) => self.finish_shred(p, *scope).map(|()| self.look_again(p, *scope)),
            Op::Hold(scope) => self.set_hold(*scope, true),
            Op::Release(scope) => self.set_hold(*scope, false),
            Op::Reparent => self.reparent(p),
            Op::Rewrap => {
                self.rewrap();
                Ok(())
            }
            _ => unreachable!("it concerns values"),
        }
    }

    fn activate_waiting(&mut self, class: Class) -> Answer<()> {
        match (self.waiting(class), self.sealing(class)) {
            (Some(waiting), _) => self.activate(waiting),
            (None, Some(_)) => {}
            (None, None) => return Err(ErrorKind::KeyState),
        }
        Ok(())
    }

    /// `p` has changed keys of `scope`, and looks before it seals or reads there again. If it can: otherwise the key that it knows seals on.
    fn look_again(&mut self, p: usize, scope: usize) {
        let process = self.process(p);
        if let Some((_, seen)) = process.seals.get_mut(&scope) {
            seen.ask_again();
        }
        process.newest.entry(scope).or_default().iter_mut().for_each(|(_, seen)| seen.ask_again());
        process.sealed.remove(&scope);
    }

    /// Failures on account of `trouble`.
    fn failures(self, trouble: Option<Vec<ErrorKind>>) -> Answers {
        trouble.into_iter().flatten().map(|kind| (Outcome::Refused(kind), self.clone())).collect()
    }

    /// The same for a value. Whose only root was refused has nothing left in memory.
    fn failures_of_values(self, p: usize, trouble: Option<Vec<ErrorKind>>) -> Answers {
        let is_only_root = self.of(Class::Root).count() == 1;
        let mut answers = self.failures(trouble);
        for (outcome, next) in &mut answers {
            if is_only_root && *outcome == Outcome::Refused(ErrorKind::Kms(KmsErrorKind::AccessDenied)) {
                next.process(p).roots = None;
            }
        }
        answers
    }

    fn seal(self, p: usize, scope: usize) -> Answers {
        let (class, now, trouble) = (Class::Data(scope), self.now, self.trouble());
        let used = |model: &Self, key: usize| model.processes[p].used.get(&key).copied().unwrap_or_default();
        let seal_under = |mut model: Self, key: usize| {
            if used(&model, key) >= model.limit {
                return (Outcome::Refused(ErrorKind::LimitExceeded), model);
            }
            *model.process(p).used.entry(key).or_default() += 1;
            (Outcome::Sealed(key), model)
        };
        let mut answers = Vec::new();
        // It asks, and does what is due.
        if self.store == Service::Answers && (trouble.is_none() || self.may_have_a_root(p)) {
            let mut next = self.clone();
            let is_new = next.of(class).next().is_none();
            let made = if is_new { next.make(class, KeyState::Active).map(drop) } else { Ok(()) };
            let used_up = next.sealing(class).filter(|key| used(&next, *key) >= next.used_up_at);
            match made.and_then(|()| next.advance(class, used_up).ok_or(ErrorKind::KeyState)) {
                Ok(key) => answers.push(seal_under(next.saw(p, scope, key), key)),
                Err(kind) => answers.push((Outcome::Refused(kind), next)),
            }
            // Where nothing can be rotated the present key seals on.
            if let Some(key) = self.sealing(class).filter(|_| trouble.is_some()) {
                answers.push(seal_under(self.clone().saw(p, scope, key), key));
            }
        }
        // It goes on with what it has seen.
        let believed = self.processes[p].seals.get(&scope).filter(|(_, seen)| self.may_go_on(*seen));
        if let Some((key, _)) = believed {
            answers.push(seal_under(self.clone(), *key));
        }
        let goes_on = self.processes[p].sealed.get(&scope).is_some_and(|at| now < at + GRACE)
            && believed.is_some_and(|(key, _)| self.sealing(class) == Some(*key) && used(&self, *key) < self.limit);
        if !goes_on || self.is_refused() {
            answers.extend(self.failures_of_values(p, trouble));
        }
        answers
    }

    /// `p` has asked which key seals in `scope`.
    fn saw(mut self, p: usize, scope: usize, key: usize) -> Self {
        // Whoever has asked lately may not have asked again, and after trouble a root is asked about a second later: neither begins a grace.
        let has_asked =
            self.processes[p].seals.get(&scope).is_some_and(|(_, seen)| self.now < seen.asked + CHECK_EVERY);
        let (now, untroubled) = (self.now, self.trouble().is_none() && !self.shaken && !has_asked);
        let process = self.process(p);
        process.seals.insert(scope, (key, Seen::at(now)));
        process.newest.insert(scope, vec![(Some(key), Seen::at(now))]);
        process.opens.insert(key, now);
        if untroubled {
            process.sealed.insert(scope, now);
            process.opened.insert(key, now);
        }
        self
    }

    fn open(self, p: usize, key: usize, scope: usize, late: bool) -> Answers {
        let (class, now, trouble) = (Class::Data(scope), self.now, self.trouble());
        let may_ask = self.store == Service::Answers && (trouble.is_none() || self.may_have(p, self.keys[key].under));
        let refusal = if self.of(class).next().is_none() {
            Some(ErrorKind::NoMatchingKey)
        } else if self.keys[key].class != class {
            Some(ErrorKind::WrongScope)
        } else if !self.keys[key].state.may_open() {
            Some(ErrorKind::KeyState)
        } else {
            None
        };
        let own = self.keys[key].class == class;
        let believed = self.processes[p].opens.get(&key).filter(|at| own && self.may_believe(**at, MAX_AGE));
        let untroubled = trouble.is_none() && !self.shaken;
        let mut answers = Vec::new();
        if (refusal.is_none() && may_ask) || believed.is_some() {
            answers.extend(self.flags(p, key, scope, trouble.is_some()).into_iter().map(|(current, mut next)| {
                let process = next.process(p);
                if refusal.is_none() && may_ask {
                    process.opens.insert(key, now);
                }
                // What only an old handle holds is of no use to another one.
                if untroubled && !late {
                    process.opened.insert(key, now);
                }
                (Outcome::Opened { current }, next)
            }));
        }
        let may_refuse = self.store == Service::Answers && (trouble.is_none() || self.may_have_a_root(p));
        if let Some(kind) = refusal.filter(|_| may_refuse) {
            let mut next = self.clone().look(p, scope, trouble.is_some());
            if kind == ErrorKind::KeyState {
                // Heard by all handles of the process, also those that seal.
                let process = next.process(p);
                process.opens.remove(&key);
                process.opened.remove(&key);
                process.sealed.remove(&scope);
            }
            answers.push((Outcome::Refused(kind), next));
        }
        let goes_on = refusal.is_none() && self.processes[p].opened.get(&key).is_some_and(|at| now < at + GRACE);
        if !goes_on || self.is_refused() {
            answers.extend(self.look(p, scope, true).failures_of_values(p, trouble));
        }
        answers
    }

    /// Whether a value under `key` may be called current: as the store says now, or as was seen. Without an answer none is.
    fn flags(&self, p: usize, key: usize, scope: usize, trouble: bool) -> Vec<(bool, Self)> {
        let looked = self.clone().look(p, scope, trouble);
        let flagged = |flag: &bool| {
            let mut next = looked.clone();
            let newest = next.process(p).newest.get_mut(&scope)?;
            newest.retain(|(newest, _)| (*newest == Some(key)) == *flag);
            (!newest.is_empty()).then_some((*flag, next))
        };
        [true, false].iter().filter_map(flagged).collect()
    }

    /// A reader has asked which key seals, or gone on with what was seen. Who seals next believes what was read here.
    fn look(mut self, p: usize, scope: usize, trouble: bool) -> Self {
        let (present, now) = (self.sealing(Class::Data(scope)), self.now);
        let mut newest = self.processes[p].newest.get(&scope).cloned().unwrap_or_default();
        newest.retain(|(_, seen)| self.may_go_on(*seen));
        if self.store == Service::Answers {
            newest.push((present, Seen::at(now)));
            // Also where another key seals by now: it asks for that one, and seals on under its own as long as nobody answers.
            if let Some((seals, seen)) = self.process(p).seals.get_mut(&scope) {
                let asked = seen.asked.max(if Some(*seals) == present { now } else { now - CHECK_EVERY });
                *seen = Seen { asked, looked: now };
            }
        }
        if trouble || self.shaken {
            newest.push((None, Seen::at(now)));
        }
        self.process(p).newest.insert(scope, newest);
        self
    }
}
