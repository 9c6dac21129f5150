//! What is well and what is not about a configuration, in plain words (docs/DOCTOR.md): each KEK is asked to wrap and unwrap
//! random bytes, and to say what it knows of its key; store, keyring and files are looked at. Nothing is changed, and no file made.
//!
//! Every check has a thread of its own, so that one that fails or hangs hides no other.

mod files;
mod kek;
mod keyring;
mod records;

pub use keyfold_kms::examine::{Finding, Severity};

use crate::marks::Marks;
use crate::{MissingFiles, Options, folder_of, keks, missing_files, read_with};
use kek::{Duty, Patient};
use keyfold::config::Config;
use keyfold::{AuditAction, AuditEvent, Error, ErrorKind, KekAlias, KekUse, Keyring, KmsErrorKind, Record, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a check-up looks whether it was called off.
const GLANCE: Duration = Duration::from_millis(50);

/// The environment whose set-up is held to what the report of an installation finds fault with.
const PRODUCTION: &str = "production";

/// What to do where a file cannot be looked at.
const SEE: &str =
    "run doctor as the services run, or let it search the folder: it says then whether the file is missing";

/// What a check-up is about.
#[derive(Clone, Debug)]
pub struct Checkup {
    /// These KEKs alone, those for recovery among them; empty: all that are asked in the present mode.
    pub keks: BTreeSet<KekAlias>,
    /// Total time. What has not ended then is a problem.
    pub timeout: Duration,
}

/// What was found out about one KEK, the store, the keyring, or its files.
#[derive(Clone, Debug)]
pub struct Report {
    /// Such as `KEK main`, `store`, `keyring`, `files`.
    pub subject: String,
    /// The KEK, if it is one.
    pub kek: Option<KekAlias>,
    /// In the order in which they were found.
    pub findings: Vec<Finding>,
    /// What the probes of a KEK took.
    pub measured: Measured,
}

impl Report {
    /// The worst of the findings.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Note)
    }
}

/// What the probes of a KEK took. The first of each kind connects and logs in.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Of each wrap.
    pub wraps: Vec<Duration>,
    /// Of each unwrap.
    pub unwraps: Vec<Duration>,
    /// Requests to the service by the probes, logins aside where an SDK makes them.
    pub requests: u32,
    /// The provider's IDs of the last wrap and the last unwrap.
    pub request_ids: Vec<String>,
    /// By how many seconds the service's clock is ahead of this machine's.
    pub clock_ahead: Option<i64>,
}

/// What a check has found so far; others may look at any time.
#[derive(Clone)]
struct Notes(Arc<Mutex<Report>>);

impl Notes {
    fn about(subject: impl Into<String>, kek: Option<&KekAlias>) -> Self {
        let report =
            Report { subject: subject.into(), kek: kek.cloned(), findings: Vec::new(), measured: Measured::default() };
        Self(Arc::new(Mutex::new(report)))
    }

    fn add(&self, finding: Finding) {
        self.report().findings.push(finding);
    }

    fn report(&self) -> MutexGuard<'_, Report> {
        unpoisoned(&self.0)
    }
}

/// The roots of the store, which the checks of KEKs wait for. `None` inside: they cannot be had.
#[derive(Clone, Default)]
struct Roots(Arc<(Mutex<Published>, Condvar)>);

/// `None` outside: not yet.
type Published = Option<Option<Vec<Record>>>;

impl Roots {
    fn publish(&self, roots: Option<Vec<Record>>) {
        *unpoisoned(&self.0.0) = Some(roots);
        self.0.1.notify_all();
    }

    fn wait(&self, end: Instant) -> Option<Vec<Record>> {
        let left = end.saturating_duration_since(Instant::now());
        let known = self.0.1.wait_timeout_while(unpoisoned(&self.0.0), left, |roots| roots.is_none());
        known.map_or(None, |(roots, _)| roots.clone().flatten())
    }
}

/// Looks at everything that the configuration file `path` names. `stop` is asked every now and then whether to end.
///
/// Where the configuration has an `[audit]` section the trail gets an event `probe` per KEK, in a chain that is ended.
///
/// # Errors
///
/// - [`Configuration`](ErrorKind::Configuration): a KEK that is asked for by name is not configured.
/// - As for [`read_config`](crate::read_config): without a configuration there is nothing to look at.
///
/// Everything else is a finding.
pub fn examine(
    path: &Path,
    policies: &[PathBuf],
    options: &Options,
    checkup: &Checkup,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<Report>> {
    let (config, _) = read_with(path, policies, options)?;
    if let Some(alias) =
        checkup.keks.iter().find(|alias| !config.keks.contains_key(alias) && !config.audit_keks.contains_key(alias))
    {
        let unknown = Error::new(ErrorKind::Configuration, "no KEK of this name is configured");
        let there = config.keks.keys().chain(config.audit_keks.keys()).map(KekAlias::as_str).collect::<Vec<_>>();
        return Err(unknown.with_detail(format!("{alias}; there are: {}", there.join(", "))));
    }
    let folder = folder_of(path).to_owned();
    let config = Arc::new(config);
    let end = Instant::now() + checkup.timeout;
    let roots = Roots::default();
    let ring: Arc<Mutex<Option<Keyring>>> = Arc::default();
    let mut checks = Vec::new();
    // Before anything is opened: what others change from now on is no rollback, and what they make was missing.
    let (missing, unseen) = match missing_files(path) {
        Ok(missing) => (missing, None),
        Err(error) => (MissingFiles::default(), Some(error)),
    };
    let marks = Arc::new(Marks::read(&config, &folder).unwrap_or_default());

    let notes = Notes::about("store", None);
    let (of_store, seen, place) = (Arc::clone(&config), roots.clone(), folder.clone());
    let (known, gone) = (Arc::clone(&marks), missing.clone());
    checks.push(begin(notes, move |notes| keyring::check_store(notes, &of_store, &place, &known, &gone, &seen)));
    for (alias, uri) in config.keks.iter().chain(&config.audit_keks) {
        if !checkup.keks.is_empty() && !checkup.keks.contains(alias) {
            continue;
        }
        let notes = Notes::about(format!("KEK {alias}"), Some(alias));
        if let Some(finding) = not_asked(&config, alias, uri, checkup) {
            notes.add(finding);
            checks.push((notes, None));
            continue;
        }
        let (config, roots, alias, uri) = (Arc::clone(&config), roots.clone(), alias.clone(), uri.clone());
        let (folder, options) = (folder.clone(), options.clone());
        checks.push(begin(notes, move |notes| {
            match keks::open_with_id(&alias, &uri, config.deadlines.get(&alias), &folder, &options) {
                Ok((kek, _)) => {
                    let patient = Patient { kek, duty: Duty::of(&config, &alias), alias, config, end };
                    patient.check(notes, &roots);
                }
                Err(error) => {
                    const NAME: &str = "kek-opens";
                    let sentence = format!("cannot be opened: {error}");
                    let is_free =
                        |roots: Vec<Record>| roots.iter().all(|root| root.kek_aliases().all(|of| *of != alias));
                    notes.add(match error.kind() {
                        _ if Duty::of(&config, &alias) == Duty::UnwrapAlone && roots.wait(end).is_some_and(is_free) => {
                            let sentence = format!("{sentence}; it is retired or compromised, and wraps no root");
                            Finding::warning(
                                NAME,
                                sentence,
                                "take its section out, unless keys of isolated scopes need it",
                            )
                        }
                        ErrorKind::Io | ErrorKind::Malformed => Finding::problem(
                            NAME,
                            sentence,
                            "put its file where the configuration says (docs/BACKUP.md)",
                        ),
                        _ => Finding::problem(
                            NAME,
                            sentence,
                            "set right what it says; docs/CONFIG.md has the forms of uri",
                        ),
                    });
                }
            }
        }));
    }
    let of_ring = Arc::clone(&ring);
    let (path, policies, options) = (path.to_owned(), policies.to_vec(), options.clone());
    let mut to_open = keyring::ToOpen { path, policies, options, missing: missing.clone() };
    if config.keyring.keks.recovery.is_none() {
        to_open.options.passphrase = None;
    }
    let (seen, of_fips) = (roots.clone(), Arc::clone(&config));
    checks.push(begin(Notes::about("keyring", None), move |notes| {
        keyring::note_fips(notes, &of_fips);
        let Some(opened) = keyring::check_ring(notes, &to_open, &marks, &seen, end) else { return };
        *unpoisoned(&of_ring) = Some(opened);
    }));
    let (of_files, place) = (Arc::clone(&config), folder);
    checks.push(begin(Notes::about("files", None), move |notes| {
        if let Some(error) = unseen {
            notes.add(Finding::problem("missing-files", error.to_string(), SEE));
        }
        files::check(notes, &of_files, &place, &missing);
    }));

    let reports = gather(checks, end, stop);
    let ring = unpoisoned(&ring).take();
    if let Some(ring) = ring {
        record(&ring, &reports);
        ring.close();
    }
    Ok(reports)
}

type Check = (Notes, Option<std::thread::JoinHandle<()>>);

fn begin(notes: Notes, work: impl FnOnce(&Notes) + Send + 'static) -> Check {
    let own = notes.clone();
    match std::thread::Builder::new().spawn(move || work(&own)) {
        Ok(thread) => (notes, Some(thread)),
        Err(error) => {
            notes.add(Finding::problem(
                "check",
                format!("the check could not begin: {error}"),
                "free memory or threads",
            ));
            (notes, None)
        }
    }
}

/// What all checks found until `end`, or until `stop`.
fn gather(checks: Vec<Check>, end: Instant, stop: &dyn Fn() -> bool) -> Vec<Report> {
    let mut stopped = false;
    let runs = |(_, thread): &Check| thread.as_ref().is_some_and(|thread| !thread.is_finished());
    while checks.iter().any(runs) && Instant::now() < end && !stopped {
        std::thread::sleep(GLANCE.min(end.saturating_duration_since(Instant::now())));
        stopped = stop();
    }
    let mut reports = Vec::with_capacity(checks.len());
    for (notes, thread) in checks {
        let ended = thread.map(|thread| if thread.is_finished() { Ok(thread.join()) } else { Err(()) });
        match ended {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(_))) => {
                notes.add(Finding::problem("check", "the check ended by a bug of keyfold", "report it"));
            }
            Some(_) if stopped => notes.add(Finding::problem(
                "timeout",
                "the check was called off before it ended; what is above was found before",
                "run it again",
            )),
            Some(_) => notes.add(Finding::problem(
                "timeout",
                "the check did not end in time; what is above was found before",
                "see what hangs, or give it longer with --timeout",
            )),
            None => {}
        }
        reports.push(notes.report().clone());
    }
    reports
}

/// What is good to know elsewhere, and in production for somebody to look at.
fn in_production(config: &Config, name: &'static str, sentence: impl Into<String>, advice: &str) -> Finding {
    let severity = if config.keyring.environment == PRODUCTION { Severity::Warning } else { Severity::Note };
    Finding { severity, advice: advice.to_owned(), ..Finding::note(name, sentence) }
}

/// Why a KEK is left alone.
fn not_asked(config: &Config, alias: &KekAlias, uri: &str, checkup: &Checkup) -> Option<Finding> {
    const NAME: &str = "not-asked";
    let policy = &config.keyring.keks;
    let is_named = checkup.keks.contains(alias);
    let has_reason = policy.recovery.as_ref().is_some_and(|recovery| recovery.reason.is_some());
    match policy.uses.get(alias).copied().unwrap_or_default() {
        KekUse::BreakGlass if !has_reason => {
            Some(Finding::note(NAME, "not asked: a break-glass KEK is asked for a reason alone (--recovery=REASON)"))
        }
        KekUse::Recovery if policy.recovery.is_none() && !is_named => {
            Some(Finding::note(NAME, format!("not asked: it is for recovery (--recovery, or --kek {alias})")))
        }
        _ if uri.starts_with("passphrase:") && policy.recovery.is_none() && !is_named => {
            Some(Finding::note(NAME, format!("not asked: it opens with a passphrase (--recovery, or --kek {alias})")))
        }
        _ => None,
    }
}

/// Tells the audit trail which KEKs were probed.
fn record(ring: &Keyring, reports: &[Report]) {
    for report in reports {
        let (Some(alias), Some(first)) =
            (&report.kek, report.measured.wraps.iter().chain(&report.measured.unwraps).next())
        else {
            continue;
        };
        let mut event = AuditEvent::new(AuditAction::Probe).kek(alias).detail("severity", report.severity().name());
        event.latency = Some(*first);
        if let Err(error) = ring.audit(event) {
            tracing::warn!("a probe was not recorded: {error}");
        }
    }
}

/// What to do about the failure of a KEK.
fn advice(error: &Error, login: &str, page: &str) -> String {
    let ErrorKind::Kms(kind) = error.kind() else { return format!("set right what it says: {page}") };
    match kind {
        KmsErrorKind::AccessDenied if page == "docs/kms/vault.md" => {
            // It answers the same where there is no such key or mount.
            format!("grant it ({page}, \"Set-up in five steps\"), or correct the name of key or mount in the URI")
        }
        KmsErrorKind::AccessDenied => format!("grant it: {page}, \"Set-up in five steps\""),
        KmsErrorKind::Credentials if page.starts_with("docs/kms/") => {
            format!("look at how keyfold logs in, by {login}: {page}, \"Options\"")
        }
        KmsErrorKind::Credentials => {
            "name a file with --passphrase-file, or run it at a terminal (docs/CLI.md, \"Recovery mode and passphrases\")"
                .to_owned()
        }
        KmsErrorKind::ClockSkew => {
            "set this machine's clock right: look at NTP (timedatectl, chronyc tracking)".to_owned()
        }
        KmsErrorKind::KeyDisabled => {
            "unless it is meant: enable the key again; if it is to be deleted, cancel the deletion first".to_owned()
        }
        KmsErrorKind::KeyNotFound => "compare the name of the key in the URI with what the service has".to_owned(),
        KmsErrorKind::WrongKey | KmsErrorKind::InvalidCiphertext if page == "docs/RECOVERY.md" => {
            "see whether the file is the one that wrapped it, and was not put here from elsewhere: docs/RECOVERY.md".to_owned()
        }
        KmsErrorKind::Throttled => {
            format!("wait, lower rate= in the URI, or ask for a higher quota: {page}, \"Cost and quota\"")
        }
        KmsErrorKind::Unavailable if error.to_string().starts_with("the vault is sealed") => {
            "unseal it (bao operator unseal, vault operator unseal)".to_owned()
        }
        KmsErrorKind::Unavailable | KmsErrorKind::Timeout if page == "docs/kms/pkcs11.md" => {
            "see whether the HSM is there (pkcs11-tool --list-slots), and whether token= in the URI is its label".to_owned()
        }
        KmsErrorKind::Unavailable | KmsErrorKind::Timeout => {
            "see whether the service works, and whether name, port and firewall let this machine reach it".to_owned()
        }
        KmsErrorKind::TlsError => {
            "see whether the certificate is valid for that name, and add ca=FILE with its CA where that is not one of the system's".to_owned()
        }
        _ => format!("see {page}"),
    }
}

fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
