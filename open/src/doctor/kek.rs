//! One KEK.

use super::{Notes, Roots, advice};
use keyfold::config::Config;
use keyfold::wire::KeyId;
use keyfold::{
    Error, ErrorKind, KekAlias, KmsContext, KmsErrorKind, KmsTrace, Record, Secret, UnwrapRequest, WrapRequest,
    WrappedKey,
};
use keyfold_kms::examine::{Binding, Examine, Finding, Profile};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a KEK wraps, and unwraps.
const PROBES: usize = 3;
/// The key that probes are for, in the logs of services: no key has it, since generations never get there.
const PROBE_KEY: KeyId = KeyId::from_bytes([0xFF; KeyId::LEN]);
/// Another one, to see that a context is not exchanged for another.
const OTHER_KEY: KeyId = KeyId::from_bytes([0xFE; KeyId::LEN]);
/// From when on a clock is wrong, in seconds.
const SKEW: u64 = 60;
/// From when on AWS refuses signatures, and others tokens.
pub(super) const TOO_MUCH_SKEW: u64 = 300;

/// What the configuration has a KEK do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Duty {
    /// Wrap and unwrap.
    Both,
    /// It is retired or compromised: it wraps nothing more.
    UnwrapAlone,
    /// It begins audit chains, and only who verifies them unwraps.
    Audit,
}

impl Duty {
    pub(super) fn of(config: &Config, alias: &KekAlias) -> Self {
        let policy = &config.keyring.keks;
        if config.audit_keks.contains_key(alias) {
            Self::Audit
        } else if policy.retired.contains(alias) || policy.compromised.contains(alias) {
            Self::UnwrapAlone
        } else {
            Self::Both
        }
    }
}

pub(super) struct Patient {
    pub(super) kek: Arc<dyn Examine>,
    pub(super) alias: KekAlias,
    pub(super) duty: Duty,
    pub(super) config: Arc<Config>,
    pub(super) end: Instant,
}

impl Patient {
    pub(super) fn check(&self, notes: &Notes, roots: &Roots) {
        let profile = self.kek.profile();
        if !profile.label.is_empty() {
            notes.add(Finding::note("key", profile.label.clone()));
        }
        notes.add(Finding::note("login", format!("logs in by {}", profile.login)));
        let probed = match self.duty {
            Duty::UnwrapAlone => {
                notes.add(Finding::note("wrap", "not asked to wrap: it is retired or compromised"));
                Ok(None)
            }
            Duty::Both | Duty::Audit => self.probe(notes, &profile),
        };
        let is_away = probed.as_ref().is_err_and(is_away);
        let version = probed.ok().flatten();
        let trace = KmsTrace::new();
        match pollster::block_on(self.kek.examine(&trace)) {
            Ok(found) => found.into_iter().for_each(|finding| notes.add(finding)),
            // The probes have said so.
            Err(error) if is_away && self::is_away(&error) => {}
            Err(error) => notes.add(Finding::note("key-state", format!("cannot be told: {error}"))),
        }
        self.note_clock(notes, &trace);
        if is_away {
            if notes.report().measured.clock_ahead.is_some() {
                clock(notes);
            }
            notes.add(Finding::note("roots", "not known whether it opens the roots: it did not answer the probes"));
            return;
        }
        if self.duty != Duty::Audit && !self.config.keyring.scope_keks.contains(&self.alias) {
            match roots.wait(self.end) {
                Some(roots) => self.open_roots(notes, &profile, &roots, version.as_deref()),
                None => {
                    notes.add(Finding::note("roots", "not known whether it opens the roots: the store has none to try"))
                }
            }
        }
        clock(notes);
    }

    fn context(&self, key: KeyId) -> KmsContext {
        KmsContext::new(&self.config.keyring.environment, self.config.keyring.lineage, key)
    }

    /// Wraps and unwraps random bytes; the version of the KEK that wrapped. Notes how it failed, too.
    fn probe(&self, notes: &Notes, profile: &Profile) -> Result<Option<String>, Error> {
        let payload = match Secret::try_with(|bytes: &mut [u8; 64]| getrandom::fill(bytes)) {
            Ok(payload) => payload,
            Err(error) => {
                notes.add(Finding::problem("wrap", format!("this machine has no random bytes: {error}"), "restart it"));
                return Ok(None);
            }
        };
        let context = self.context(PROBE_KEY);
        let wrap = |trace: &KmsTrace| {
            pollster::block_on(self.kek.wrap(WrapRequest::new(&payload, &context).with_trace(trace)))
        };
        let wrapped = self.repeat(notes, "wrap", wrap).inspect_err(|error| {
            notes.add(failed("wrap", error, &profile.wrap_permission, profile));
        })?;
        let unwrap = |trace: &KmsTrace| {
            pollster::block_on(self.kek.unwrap(UnwrapRequest::new(&wrapped, &context).with_trace(trace)))
        };
        match self.repeat(notes, "unwrap", unwrap) {
            Ok(found) if found.expose() == payload.expose() => self.exchange_context(notes, profile, &wrapped),
            Ok(_) => notes.add(Finding::problem(
                "unwrap",
                "it did not return what it had wrapped",
                "use it for nothing until its provider has explained that",
            )),
            Err(error) if self.duty == Duty::Audit && error.kind() == ErrorKind::Kms(KmsErrorKind::AccessDenied) => {
                let why =
                    "may wrap and not unwrap, which is all that recording needs; `audit verify` needs another identity";
                notes.add(Finding::note("unwrap", why));
            }
            Err(error) => notes.add(failed("unwrap", &error, &profile.unwrap_permission, profile)),
        }
        Ok(Some(wrapped.kek_version))
    }

    /// Does `work` several times and says what that took; or how it failed first.
    fn repeat<T>(
        &self,
        notes: &Notes,
        name: &'static str,
        work: impl Fn(&KmsTrace) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut took = Vec::new();
        let mut last = None;
        for _ in 0..PROBES {
            let (trace, began) = (KmsTrace::new(), Instant::now());
            let result = work(&trace);
            took.push(began.elapsed());
            self.note_clock(notes, &trace);
            {
                let measured = &mut notes.report().measured;
                measured.requests += trace.requests();
                let times = if name == "wrap" { &mut measured.wraps } else { &mut measured.unwraps };
                times.push(began.elapsed());
            }
            last = Some((result?, trace.request_id()));
            // A slow service is not asked for the same again and again.
            if Instant::now() >= self.end {
                break;
            }
        }
        let (value, request_id) = last.ok_or(ErrorKind::Internal)?;
        notes.report().measured.request_ids.extend(request_id.clone());
        let first = took[0];
        took.sort_unstable();
        let id = request_id.map_or_else(String::new, |id| format!("; request ID {id}"));
        let sentence = format!("{name}s: first {}, median {}{id}", ms(first), ms(took[took.len() / 2]));
        notes.add(match self.config.deadlines.get(&self.alias) {
            Some(limit) if first > *limit => Finding::warning(
                name,
                format!("{sentence}; its deadline is {}, so the first counts as Timeout", ms(*limit)),
                "raise its deadline, or find out what makes it slow",
            ),
            _ => Finding::note(name, sentence),
        });
        Ok(value)
    }

    /// Whether another context opens what was wrapped under this one.
    fn exchange_context(&self, notes: &Notes, profile: &Profile, wrapped: &WrappedKey) {
        const NAME: &str = "context";
        let other = self.context(OTHER_KEY);
        let result = pollster::block_on(self.kek.unwrap(UnwrapRequest::new(wrapped, &other)));
        notes.add(match (result.map(drop), profile.binding) {
            (Err(error), _) if error.kind() == ErrorKind::Kms(KmsErrorKind::InvalidCiphertext) => {
                Finding::note(NAME, "the service refuses another context than the one it wrapped under")
            }
            (Err(error), _) => Finding::note(NAME, format!("not known whether another context is refused: {error}")),
            (Ok(()), Binding::ByKeyfold | Binding::Unknown) => {
                Finding::note(NAME, "the service takes no context; keyfold binds it, in what is wrapped")
            }
            (Ok(()), Binding::ByService) => Finding::problem(
                NAME,
                "the service opens under another context than it wrapped under, which it must not",
                format!("use it for nothing until its provider has explained that: {}", profile.page),
            ),
        });
    }

    /// Whether the KEK opens every root that it wraps, and which version wrapped it.
    fn open_roots(&self, notes: &Notes, profile: &Profile, roots: &[Record], version: Option<&str>) {
        let mut opened = 0;
        let mut has_wrap = false;
        for root in roots {
            let Some((_, wrapped)) = root.kek_wraps().find(|(alias, _)| **alias == self.alias) else { continue };
            has_wrap = true;
            let context = root.kms_context();
            let unwrapped = pollster::block_on(self.kek.unwrap(UnwrapRequest::new(wrapped, &context)));
            match unwrapped.and_then(|payload| root.check_unwrapped(&payload)) {
                Ok(()) => opened += 1,
                Err(error) => {
                    let finding = failed("roots", &error, &profile.unwrap_permission, profile);
                    let sentence = format!("root {} does not open: {}", root.key_id(), finding.sentence);
                    notes.add(Finding { sentence, ..finding });
                    continue;
                }
            }
            if let Some(current) = version.filter(|current| **current != *wrapped.kek_version) {
                notes.add(Finding {
                    advice: format!("run keys rewrap --renew {}, before the older version goes", self.alias),
                    ..Finding::note(
                        "kek-version",
                        format!(
                            "root {} is wrapped under version {}, current is {}",
                            root.key_id(),
                            short(&wrapped.kek_version),
                            short(current)
                        ),
                    )
                });
            }
        }
        if opened > 0 {
            notes.add(Finding::note(
                "roots",
                format!("opens {opened} of {} roots; `keys drill` proves the rest", roots.len()),
            ));
        } else if !has_wrap && self.duty == Duty::Both {
            notes.add(Finding::warning("roots", "wraps no root yet, so it would save nothing", "run keys repair"));
        } else if !has_wrap {
            notes.add(Finding::note("roots", "wraps no root any more"));
        }
    }

    fn note_clock(&self, notes: &Notes, trace: &KmsTrace) {
        if let Some(ahead) = trace.clock_ahead() {
            notes.report().measured.clock_ahead = Some(ahead);
        }
    }
}

/// Whether the service, or the login to it, is of no help for anything.
fn is_away(error: &Error) -> bool {
    use KmsErrorKind::{ClockSkew, Credentials, Throttled, Timeout, TlsError, Unavailable};
    matches!(error.kind(), ErrorKind::Kms(ClockSkew | Credentials | Throttled | Timeout | TlsError | Unavailable))
}

/// What a failure means.
fn failed(name: &'static str, error: &Error, permission: &str, profile: &Profile) -> Finding {
    let advice = advice(error, &profile.login, profile.page);
    match error.kind() {
        ErrorKind::Kms(KmsErrorKind::AccessDenied) if !permission.is_empty() => {
            Finding::problem("permission", format!("the identity lacks {permission}: {error}"), advice)
        }
        _ => Finding::problem(name, error.to_string(), advice),
    }
}

/// What the clocks say.
fn clock(notes: &Notes) {
    let ahead = notes.report().measured.clock_ahead;
    notes.add(match ahead {
        Some(ahead) => of_clock("the service", ahead),
        None => Finding::note("clock", "the service does not tell the time"),
    });
}

/// `ahead` is by how many seconds the clock of `whose` is ahead of ours.
pub(super) fn of_clock(whose: &str, ahead: i64) -> Finding {
    const ADVICE: &str = "one of the two is wrong, most likely this one: look at NTP (timedatectl, chronyc tracking)";
    let seconds = ahead.unsigned_abs();
    let direction = if ahead < 0 { "ahead of" } else { "behind" };
    let sentence = format!("this machine's clock is {seconds} s {direction} that of {whose}");
    match seconds {
        0 | 1 => Finding::note("clock", format!("this machine's clock agrees with that of {whose}")),
        _ if seconds > TOO_MUCH_SKEW => {
            Finding::problem("clock", format!("{sentence}; signatures and tokens are refused"), ADVICE)
        }
        _ if seconds > SKEW => Finding::warning("clock", sentence, ADVICE),
        _ => Finding::note("clock", sentence),
    }
}

fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

/// The end of a long version, which tells versions apart. It may come from a record that nobody has vouched for.
fn short(version: &str) -> String {
    let last = version.rsplit('/').next().unwrap_or_default();
    last.chars().filter(|c| !c.is_control()).take(64).collect()
}
