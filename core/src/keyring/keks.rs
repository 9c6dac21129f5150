//! Which KEKs are asked, in which order, and which must wrap (DESIGN K7 to K11).

use super::observed::Unrecorded;
use super::trust::Origin;
use super::{Keyring, create::Keks};
use crate::audit::{AuditAction, AuditEvent};
use crate::error::{Error, ErrorKind, KmsErrorKind, Result};
use crate::keys::{KeyClass, KeySchedule, Secret};
use crate::kms::{KekAlias, Kms, UnwrapRequest, WrapRequest, WrappedKey};
use crate::observe;
use crate::record::{KeyState, Record, unwrapped_by_kek};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// When a KEK is asked to unwrap.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum KekUse {
    /// Always, in order of health.
    #[default]
    Always,
    /// In recovery mode only.
    Recovery,
    /// In recovery mode, and only if a reason is given.
    BreakGlass,
}

/// How the KEKs of a keyring are used.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KekPolicy {
    /// When each is asked; those that are not named, always.
    pub uses: BTreeMap<KekAlias, KekUse>,
    /// KEKs that have leaked: they unwrap what they wrapped, and wrap nothing more.
    pub compromised: BTreeSet<KekAlias>,
    /// KEKs that are to go: they unwrap what they wrapped, and wrap nothing more. [`Keyring::rewrap`] drops their wraps.
    pub retired: BTreeSet<KekAlias>,
    /// How many KEKs must wrap a new root or isolated key; `None`: all.
    pub quorum: Option<usize>,
    /// Recovery mode: every KEK that wraps a key may be asked for it, whatever the others said.
    pub recovery: Option<Recovery>,
}

/// Recovery mode.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Recovery {
    /// Why, in a person's words: never about a patient. Break-glass KEKs are asked only with one.
    pub reason: Option<String>,
}

impl Recovery {
    /// Longest reason in bytes.
    pub const MAX_REASON_LEN: usize = 512;

    /// Recovery mode for `reason`.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): the reason is blank, longer than
    ///   [`MAX_REASON_LEN`](Self::MAX_REASON_LEN), or has control characters.
    pub fn with_reason(reason: &str) -> Result<Self> {
        let good = reason.len() <= Self::MAX_REASON_LEN && !reason.chars().any(char::is_control);
        if reason.trim().is_empty() || !good {
            return Err(Error::new(ErrorKind::InvalidInput, "a reason is one line of 1 to 512 bytes"));
        }
        Ok(Self { reason: Some(reason.to_owned()) })
    }
}

impl KekPolicy {
    pub(super) fn use_of(&self, alias: &KekAlias) -> KekUse {
        self.uses.get(alias).copied().unwrap_or_default()
    }

    /// Whether the KEK may be asked for a key in the present mode.
    pub(super) fn allows(&self, alias: &KekAlias) -> bool {
        match (self.use_of(alias), &self.recovery) {
            (KekUse::Always, _) | (KekUse::Recovery, Some(_)) => true,
            (KekUse::BreakGlass, Some(Recovery { reason: Some(reason) })) => !reason.trim().is_empty(),
            (KekUse::Recovery | KekUse::BreakGlass, _) => false,
        }
    }

    /// Whether the KEK wraps new keys.
    pub(super) fn wraps_new(&self, alias: &KekAlias) -> bool {
        !self.compromised.contains(alias) && !self.retired.contains(alias)
    }

    /// How many of `count` KEKs must wrap a key.
    pub(super) fn needed(&self, count: usize) -> usize {
        self.quorum.map_or(count, |quorum| quorum.clamp(1, count.max(1)))
    }
}

/// What the failure of a KEK means for the next step.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Verdict {
    /// The service says that the key must not be used (DESIGN K9).
    Refused,
    /// The service is no help at this moment (K8).
    Away,
    /// The wrap is not what it should be (K8).
    WrongWrap,
    /// Not an answer of a key service.
    Other,
}

impl Verdict {
    // KC-26, KC-40.
    pub(super) fn of(error: &Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Kms(kind) => kind,
            // A KEK that is set up wrongly is no help either, and no reason not to ask one that is not.
            ErrorKind::Configuration => return Self::Away,
            _ => return Self::Other,
        };
        match kind {
            KmsErrorKind::AccessDenied | KmsErrorKind::KeyDisabled | KmsErrorKind::KeyNotFound => Self::Refused,
            KmsErrorKind::WrongKey | KmsErrorKind::InvalidCiphertext => Self::WrongWrap,
            KmsErrorKind::Rejected
            | KmsErrorKind::Throttled
            | KmsErrorKind::Unavailable
            | KmsErrorKind::Timeout
            | KmsErrorKind::TlsError
            | KmsErrorKind::Credentials
            | KmsErrorKind::ClockSkew
            | KmsErrorKind::MalformedResponse => Self::Away,
        }
    }
}

/// Which KEKs were away when they were last asked, so that the others come first. Of this process; fades.
#[derive(Default)]
pub(super) struct Health(Mutex<BTreeMap<KekAlias, Illness>>);

#[derive(Default)]
struct Illness {
    in_a_row: u32,
    until: u64,
}

impl Health {
    /// How long a KEK is asked after the others once it was away; twice as long each time in a row.
    const FIRST: Duration = Duration::from_secs(30);
    const LONGEST: Duration = Duration::from_secs(300);

    fn is_ill(&self, alias: &KekAlias, now: u64) -> bool {
        self.lock().get(alias).is_some_and(|illness| now < illness.until)
    }

    fn was_away(&self, alias: &KekAlias, now: u64) {
        let mut all = self.lock();
        let illness = all.entry(alias.clone()).or_default();
        // Many requests that fail at once are one failure.
        if now >= illness.until {
            illness.in_a_row = illness.in_a_row.saturating_add(1);
        }
        let times = 1_u32.checked_shl(illness.in_a_row - 1).unwrap_or(u32::MAX);
        let lasts = Self::FIRST.saturating_mul(times).min(Self::LONGEST);
        illness.until = now.saturating_add(crate::clock::nanos(lasts));
    }

    fn answered(&self, alias: &KekAlias) {
        self.lock().remove(alias);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<KekAlias, Illness>> {
        // Changed in single steps: a panic elsewhere cannot leave it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a KEK unwrapped: belongs to the record, byte for byte.
pub(super) struct Unwrapped {
    pub(super) payload: Secret<64>,
    pub(super) schedule: KeySchedule,
}

impl Keyring {
    /// The KEKs that are to wrap roots: one that is compromised or retired wraps nothing more.
    pub(super) fn root_keks(&self) -> Keks {
        let configured = self.configured();
        let config = &configured.keyring;
        let wraps_roots = |alias: &KekAlias| !config.scope_keks.contains(alias) && config.keks.wraps_new(alias);
        let keks = configured.keks.iter().filter(|(alias, _)| wraps_roots(alias));
        keks.map(|(alias, kek)| (alias.clone(), kek.clone())).collect()
    }

    /// The configured KEKs that should wrap `record` and do not, if it is a root in service: one of them was away when
    /// the root was made, or it was configured later. [`rewrap`](Self::rewrap) makes the missing wraps.
    #[must_use]
    pub fn missing_keks(&self, record: &Record) -> Vec<KekAlias> {
        if record.class() != KeyClass::Root || !record.state().may_open() {
            return Vec::new();
        }
        let present: BTreeSet<_> = record.kek_aliases().collect();
        self.root_keks().into_keys().filter(|alias| !present.contains(alias)).collect()
    }

    /// Has one of the configured KEKs unwrap the key of `record`, a root or an isolated key.
    pub(super) async fn unwrap_by_keks(&self, record: &Record, origin: Origin) -> Result<KeySchedule> {
        self.ask_keks(record, origin, None).await.map(|unwrapped| unwrapped.schedule)
    }

    /// The KEKs that wrap `record` and may be asked, in the order in which they are: those that need no recovery mode
    /// first, and those that were not away lately.
    // F-7.2-7.
    pub(super) fn order_of_asking<'r>(&self, record: &'r Record) -> Vec<(&'r KekAlias, &'r WrappedKey)> {
        let configured = self.configured();
        let policy = &configured.keyring.keks;
        let (health, now) = (&self.inner.health, self.time());
        let mut wraps: Vec<_> = record
            .kek_wraps()
            .filter(|(alias, _)| configured.keks.contains_key(*alias) && policy.allows(alias))
            .collect();
        wraps.sort_by_cached_key(|(alias, _)| (policy.use_of(alias), health.is_ill(alias, now)));
        wraps
    }

    /// As [`unwrap_by_keks`](Self::unwrap_by_keks), by those of `among` alone.
    // F-7.6-4.
    pub(super) async fn ask_keks(
        &self,
        record: &Record,
        origin: Origin,
        among: Option<&BTreeSet<KekAlias>>,
    ) -> Result<Unwrapped> {
        let configured = self.configured();
        let policy = &configured.keyring.keks;
        let (mut failure, mut refused, mut lasts, mut asked) = (None, false, true, Vec::new());
        for (alias, wrapped) in self.order_of_asking(record) {
            let Some(kms) = configured.keks.get(alias) else { continue };
            // F-14.3-5.
            // Anyone may send a frame, and none costs a key service more than one request.
            let again = origin == Origin::Frame && asked.contains(&alias);
            if again || among.is_some_and(|among| !among.contains(alias)) {
                continue;
            }
            asked.push(alias);
            let asked_at = Instant::now();
            let answer = unwrap_one(&**kms, record, wrapped).await;
            let exception = match policy.use_of(alias) {
                KekUse::Always => refused.then_some(AuditAction::Recovery),
                KekUse::Recovery => Some(AuditAction::Recovery),
                KekUse::BreakGlass => Some(AuditAction::BreakGlass),
            };
            if let Some(action) = exception {
                self.record_exception(action, record, alias, &answer, asked_at.elapsed())?;
            }
            let error = match answer {
                Ok(unwrapped) => {
                    self.inner.health.answered(alias);
                    return Ok(unwrapped);
                }
                Err(error) => error,
            };
            if Unrecorded::is_source_of(&error) {
                return Err(error);
            }
            let verdict = Verdict::of(&error);
            self.note_failure(alias, record, &error, origin);
            let error = of_kek(error, alias);
            lasts &= does_last(&error);
            if verdict == Verdict::Other {
                return Err(error);
            }
            // A refusal is what the caller must hear of: it ends the outage grace of the caches (K17).
            let counts = |former: &Error| verdict == Verdict::Refused || weight(&error) >= weight(former);
            if !refused && failure.as_ref().is_none_or(counts) {
                failure = Some(error);
            }
            refused |= verdict == Verdict::Refused;
            if refused && policy.recovery.is_none() {
                break;
            }
        }
        let Some(error) = failure else { return Err(self.nobody_to_ask(record)) };
        let error = match (lasts, refused) {
            (true, _) => error.lasting(),
            (false, false) => error,
            (false, true) => {
                let detail = format!("{}; another KEK of the key did not answer", error.detail());
                error.with_detail(detail)
            }
        };
        // A refusal ends the search outside of recovery mode: there is no other way then.
        Err(if refused && policy.recovery.is_none() { error } else { self.with_way_out(error, record, among) })
    }

    /// Says which KEKs could still be asked for the key, in another mode.
    fn with_way_out(&self, error: Error, record: &Record, among: Option<&BTreeSet<KekAlias>>) -> Error {
        let configured = self.configured();
        let policy = &configured.keyring.keks;
        let waiting = |alias: &&KekAlias| {
            configured.keks.contains_key(*alias)
                && !policy.allows(alias)
                && among.is_none_or(|among| among.contains(*alias))
        };
        let waiting: Vec<_> = record.kek_aliases().filter(waiting).map(KekAlias::as_str).collect();
        if waiting.is_empty() {
            return error;
        }
        let needs = match policy.recovery {
            None => "asked in recovery mode alone (--recovery, a break-glass one with =REASON)",
            Some(_) => "asked for a reason alone (--recovery=REASON)",
        };
        let detail = format!("{}; not asked: KEK {}, which is {needs}", error.detail(), waiting.join(", "));
        error.with_detail(detail)
    }

    /// A KEK was asked that is not asked otherwise. Where that cannot be recorded, the key is not used.
    fn record_exception(
        &self,
        action: AuditAction,
        record: &Record,
        alias: &KekAlias,
        answer: &Result<Unwrapped>,
        took: Duration,
    ) -> Result<()> {
        observe::recovery_unwrap(alias.as_str(), action.name());
        tracing::warn!(kek = %alias, key_id = %record.key_id(), action = action.name(), "a KEK was asked in recovery mode");
        let recovery = self.configured().keyring.keks.recovery.clone();
        let mut event = AuditEvent::new(action).key(record.key_id()).kek(alias).outcome(answer);
        event.latency = Some(took);
        event.reason = recovery.and_then(|recovery| recovery.reason);
        self.audit(event)
    }

    fn note_failure(&self, alias: &KekAlias, record: &Record, error: &Error, origin: Origin) {
        let (key_id, code) = (record.key_id(), error.kind().code());
        match Verdict::of(error) {
            Verdict::WrongWrap => {
                observe::bad_wrap(alias.as_str());
                tracing::error!(kek = %alias, %key_id, code, "KEK did not unwrap: the wrap is damaged, forged, or of another KEK under this alias");
            }
            verdict => {
                tracing::warn!(kek = %alias, %key_id, code, "KEK did not unwrap");
                // What comes in frames anybody may have made, so that it says nothing of the service.
                if verdict == Verdict::Away && origin == Origin::Store {
                    self.inner.health.was_away(alias, self.time());
                }
            }
        }
    }

    /// Why no KEK is asked for the key of `record`.
    pub(super) fn nobody_to_ask(&self, record: &Record) -> Error {
        let configured = self.configured();
        let error = if record.kek_aliases().any(|alias| configured.keks.contains_key(alias)) {
            Error::new(
                ErrorKind::PolicyRefused,
                "the KEKs that wrap the key are asked in recovery mode only (--recovery), a break-glass one with a reason (--recovery=REASON)",
            )
        } else {
            Error::new(ErrorKind::Configuration, "none of the KEKs that wrap the key is configured here")
        };
        error.with_detail(record.kek_aliases().map(KekAlias::as_str).collect::<Vec<_>>().join(", ")).lasting()
    }
}

/// Whether a KEK that failed so fails until somebody changes something.
fn does_last(error: &Error) -> bool {
    let verdict = Verdict::of(error);
    error.is_lasting()
        || matches!(verdict, Verdict::Refused | Verdict::WrongWrap)
        || error.kind() == ErrorKind::Configuration
}

/// Which of several failures is told, refusals aside: that a service is away is more than what lasts, since it comes back; of that, a wrap that somebody may have
/// changed is more than a KEK that is not there; and that a KEK is set up wrongly is least.
fn weight(error: &Error) -> u8 {
    match error.kind() {
        ErrorKind::Configuration => 0,
        _ if Verdict::of(error) == Verdict::WrongWrap => 2,
        _ if does_last(error) => 1,
        _ => 3,
    }
}

/// The same error, with the KEK that gave it.
pub(super) fn of_kek(error: Error, alias: &KekAlias) -> Error {
    let detail = match error.detail() {
        "" => format!("KEK {alias}"),
        detail => format!("KEK {alias}: {detail}"),
    };
    error.with_detail(detail)
}

/// One request: what `kms` says that `wrapped` holds, if that is the key of `record`.
pub(super) async fn unwrap_one(kms: &dyn Kms, record: &Record, wrapped: &WrappedKey) -> Result<Unwrapped> {
    let context = record.kms_context();
    let payload = kms.unwrap(UnwrapRequest::new(wrapped, &context)).await?;
    let schedule = unwrapped_by_kek(record, &payload)?;
    Ok(Unwrapped { payload, schedule })
}

/// One request: `payload` under the present version of the KEK.
pub(super) async fn wrap_one(kms: &dyn Kms, request: WrapRequest<'_>) -> Result<WrappedKey> {
    let wrapped = kms.wrap(request).await?;
    if wrapped.bytes.is_empty()
        || wrapped.bytes.len() > WrappedKey::MAX_LEN
        || wrapped.kek_version.len() > WrappedKey::MAX_VERSION_LEN
    {
        return Err(Error::new(
            ErrorKind::Kms(KmsErrorKind::MalformedResponse),
            "the key service returned a wrap of an impossible length",
        ));
    }
    Ok(wrapped)
}

/// A key was made, or is kept, without the wrap of a KEK.
pub(super) fn alarm_missing_wrap(alias: &KekAlias, error: &Error) {
    observe::missing_wrap(alias.as_str());
    let why = why_missing(error);
    tracing::warn!(kek = %alias, code = error.kind().code(), "a key has no good wrap of the KEK, which {why}: {error}");
}

/// What the KEK did, and what is to be done about it.
fn why_missing(error: &Error) -> &'static str {
    match Verdict::of(error) {
        _ if error.kind() == ErrorKind::Configuration => "is set up wrongly: correct that, then run keys repair",
        Verdict::Refused => "refused: run keys repair when it may be used again",
        Verdict::WrongWrap => "did not open what it had wrapped: run keys repair when that is mended",
        Verdict::Away | Verdict::Other => {
            "gave no wrap: run keys repair when it is back, or what is said here is mended"
        }
    }
}

/// Whether a root is one that keys or values may still depend on.
pub(super) fn is_live(record: &Record) -> bool {
    !matches!(record.state(), KeyState::DestroyPending | KeyState::Destroyed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_wrap_is_blamed_on_what_the_kek_did() {
        use KmsErrorKind::{
            AccessDenied, InvalidCiphertext, KeyDisabled, KeyNotFound, Throttled, Timeout, Unavailable,
        };
        let why = |kind: ErrorKind| why_missing(&Error::new(kind, "a reason")).split(':').next().unwrap().to_owned();
        for kind in [AccessDenied, KeyDisabled, KeyNotFound] {
            assert_eq!(why(ErrorKind::Kms(kind)), "refused");
        }
        for kind in [Throttled, Timeout, Unavailable] {
            assert_eq!(why(ErrorKind::Kms(kind)), "gave no wrap");
        }
        assert_eq!(why(ErrorKind::Kms(InvalidCiphertext)), "did not open what it had wrapped");
        assert_eq!(why(ErrorKind::Configuration), "is set up wrongly");
    }

    #[test]
    fn illness_fades_doubles_and_ends_with_an_answer() {
        let health = Health::default();
        let alias = KekAlias::new("a").unwrap();
        let second = 1_000_000_000;
        let mut now = 0;
        for lasts in [30, 60, 120, 240, 300, 300] {
            health.was_away(&alias, now);
            // Others that fail at the same time make it no worse.
            health.was_away(&alias, now);
            assert!(health.is_ill(&alias, now + lasts * second - 1), "{lasts}");
            now += lasts * second;
            assert!(!health.is_ill(&alias, now), "{lasts}");
        }
        health.was_away(&alias, now);
        health.answered(&alias);
        assert!(!health.is_ill(&alias, now));
        health.was_away(&alias, now);
        assert!(!health.is_ill(&alias, now + 30 * second));
    }
}
