//! The sink that writes a keyring's events to a file.

mod log;
mod writer;

use arc_swap::ArcSwap;
use keyfold::config::{AuditConfig, OnAuditFailure};
use keyfold::{AuditEvent, AuditSink, Clock, KeyringConfig, Kms, Result, SystemClock};
use keyfold_store::files::{io_error, resolve, with_suffix};
use metrics::counter;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use writer::Writer;

/// Writes events to a file that any number of threads, processes and keyrings share; each keyring of each process has a chain of
/// its own in it.
///
/// Events are on disk (`fdatasync`) when a call returns. The first event of a chain takes one request to the key service of the
/// audit KEK, which blocks. A forked child begins a chain of its own. Dropped, it ends its chain; after a crash the chain just
/// stops, and verification says so.
pub struct FileAudit {
    settings: Arc<Settings>,
    current: ArcSwap<OfProcess>,
}

/// What does not change while the file is written.
struct Settings {
    config: AuditConfig,
    path: PathBuf,
    anchors: Option<PathBuf>,
    keyring: Written,
    kek: Arc<dyn Kms>,
    clock: Arc<dyn Clock>,
}

/// What lines say of the keyring and of who acts.
struct Written {
    name: String,
    lineage: keyfold::Lineage,
    environment: String,
    actor: String,
}

/// A writer and the process that it belongs to.
struct OfProcess {
    id: u32,
    writer: Mutex<Writer>,
}

impl FileAudit {
    /// A sink for the events of `keyring`, in the file and with the policy of `config`, whose paths are relative to `folder`, under
    /// chains whose first keys `kek` wraps. Writes nothing yet.
    ///
    /// # Errors
    ///
    /// - [`Io`](keyfold::ErrorKind::Io): the folder of a file is missing.
    pub fn open(config: &AuditConfig, folder: &Path, keyring: &KeyringConfig, kek: Arc<dyn Kms>) -> Result<Self> {
        Self::open_with_clock(config, folder, keyring, kek, Arc::new(SystemClock))
    }

    /// As [`open`](Self::open), with another clock for the interval of anchors.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn open_with_clock(
        config: &AuditConfig,
        folder: &Path,
        keyring: &KeyringConfig,
        kek: Arc<dyn Kms>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let located = |file: &String| {
            let path = folder.join(file);
            resolve(&path).map_err(|error| io_error("cannot find the folder of an audit file", &path, error))
        };
        let settings = Settings {
            path: located(&config.file)?,
            anchors: config.anchors.as_ref().map(located).transpose()?,
            keyring: Written {
                name: keyring.name.clone(),
                lineage: keyring.lineage,
                environment: keyring.environment.clone(),
                actor: config.actor.clone().unwrap_or_else(program),
            },
            config: config.clone(),
            kek,
            clock,
        };
        let settings = Arc::new(settings);
        let current = OfProcess::new(&settings);
        Ok(Self { settings, current: ArcSwap::from_pointee(current) })
    }

    /// The writer of this process.
    fn current(&self) -> Arc<OfProcess> {
        loop {
            let current = self.current.load_full();
            if current.id == process::id() {
                return current;
            }
            // A fork: the chain, the lock and the files belong to the parent, and perhaps a thread of it held the mutex. So it is
            // neither used nor dropped here.
            drop(self.current.compare_and_swap(&current, Arc::new(OfProcess::new(&self.settings))));
            std::mem::forget(current);
        }
    }

    /// Does `work`, and what the policy says if that fails. `events` is how many are lost then.
    fn attempt(&self, events: usize, work: impl FnOnce(&mut Writer, &Settings) -> Result<()>) -> Result<()> {
        let current = self.current();
        let mut writer = current.lock();
        let Err(error) = work(&mut writer, &self.settings) else { return Ok(()) };
        counter!("keyfold_audit_failures_total").increment(1);
        match self.settings.config.on_failure {
            OnAuditFailure::Refuse => Err(error),
            OnAuditFailure::Count => {
                tracing::warn!(events, code = error.kind().code(), "events were not recorded: {error}");
                counter!("keyfold_audit_lost_events_total").increment(events as u64);
                writer.count_lost(events as u64);
                Ok(())
            }
        }
    }
}

impl AuditSink for FileAudit {
    fn record(&self, event: AuditEvent) -> Result<()> {
        self.record_all(vec![event])
    }

    fn record_all(&self, events: Vec<AuditEvent>) -> Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        self.attempt(events.len(), |writer, settings| {
            writer.write(settings, &events)?;
            counter!("keyfold_audit_events_total").increment(events.len() as u64);
            Ok(())
        })
    }

    fn check(&self) -> Result<()> {
        self.attempt(0, Writer::check)
    }

    fn interval(&self) -> Duration {
        self.settings.config.interval
    }

    fn close(&self) {
        let current = self.current();
        let closed = current.lock().close(&self.settings);
        if let Err(error) = closed {
            counter!("keyfold_audit_failures_total").increment(1);
            tracing::warn!(code = error.kind().code(), "the end of the audit chain was not recorded: {error}");
        }
    }
}

impl Drop for FileAudit {
    fn drop(&mut self) {
        if self.current.load().id == process::id() {
            self.close();
        } else {
            // The parent's: as in `current`.
            std::mem::forget(self.current.load_full());
        }
    }
}

impl fmt::Debug for FileAudit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileAudit").field("path", &self.settings.path).finish_non_exhaustive()
    }
}

impl OfProcess {
    fn new(settings: &Settings) -> Self {
        Self { id: process::id(), writer: Mutex::new(Writer::new(settings)) }
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        // A writer takes over what it has written in one step: a panic cannot leave it half changed.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The files of the audit file `path`: those that were put aside, oldest first, and itself where it exists.
///
/// # Errors
///
/// - [`Io`](keyfold::ErrorKind::Io): the folder cannot be read, or the file not be looked at.
pub fn files_of(path: &Path) -> Result<Vec<PathBuf>> {
    let aside = log::put_aside(path).map_err(|error| io_error("cannot list the audit files", path, error))?;
    let mut files: Vec<_> = aside.into_iter().map(|(_, path)| path).collect();
    let exists = path.try_exists().map_err(|error| io_error("cannot look at the audit file", path, error))?;
    files.extend(exists.then(|| path.to_owned()));
    Ok(files)
}

/// The file that writers of the audit file `path` lock.
#[must_use]
pub fn lock_of(path: &Path) -> PathBuf {
    with_suffix(path, ".lock")
}

/// The name of the program that runs.
fn program() -> String {
    let path = std::env::current_exe().ok();
    path.as_deref()
        .and_then(Path::file_name)
        .map_or_else(|| "unknown".to_owned(), |name| name.to_string_lossy().into_owned())
}
