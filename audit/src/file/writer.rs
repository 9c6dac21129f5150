//! The chain of one keyring in one process: begins it, adds lines, anchors it, ends it.

use super::log::{End, Guard, Log};
use super::{Settings, program};
use crate::anchor::Anchor;
use crate::line::{BEGUN, CONTINUED, Chain, ENDED, FILE_ENDED, Members};
use keyfold::config::OnAuditFailure;
use keyfold::{AuditEvent, ChainStart, Error, ErrorKind, Result};
use metrics::counter;
use std::time::Duration;

/// Lines after which a chain is ended and another one begun, so that verifying a file by itself takes seconds: whoever does steps
/// through all keys of the chain before it.
const MAX_LINES: u64 = (1 << 24) - (1 << 20);
/// How long a key service that did not wrap the key of a chain is left alone.
const RETRY: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    log: Log,
    chain: Option<Chain>,
    /// The number of the file that has the chain's latest header.
    introduced_in: Option<u64>,
    /// Events that could not be recorded and that no line speaks of yet.
    lost: u64,
    /// Lines that no anchor protects, and since when there are some.
    unanchored: u64,
    anchored_at: Duration,
    /// Why a chain could not be begun, and when.
    refused: Option<(Error, Duration)>,
}

impl Writer {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            log: Log::new(settings.path.clone()),
            chain: None,
            introduced_in: None,
            lost: 0,
            unanchored: 0,
            anchored_at: Duration::ZERO,
            refused: None,
        }
    }

    pub(super) fn count_lost(&mut self, events: u64) {
        self.lost = self.lost.saturating_add(events);
    }

    /// Writes events, all of them or none.
    pub(super) fn write(&mut self, settings: &Settings, events: &[AuditEvent]) -> Result<()> {
        self.keep_anchored(settings, events.len() as u64)?;
        self.begin(settings)?;
        let guard = self.log.lock()?;
        let end = self.end(&guard, settings)?;
        let mut lost = self.lost;
        self.add(&guard, end, settings, |chain, out| {
            for event in events {
                let at = end.len + out.len() as u64;
                let lost = std::mem::take(&mut lost);
                chain.add_line(out, at, event.action.name(), |line| describe(event, settings, lost, line))?;
            }
            Ok(())
        })?;
        drop(guard);
        self.lost = 0;
        if (self.unanchored >= settings.config.anchor_every || self.is_anchor_due(settings))
            && let Err(error) = self.anchor(settings)
        {
            // The events are recorded. Whether more may follow is decided before the next one.
            warn_unanchored(&error);
        }
        Ok(())
    }

    /// Whether events could be written now.
    pub(super) fn check(&mut self, settings: &Settings) -> Result<()> {
        self.keep_anchored(settings, 1)?;
        self.begin(settings)?;
        let guard = self.log.lock()?;
        let end = self.end(&guard, settings)?;
        self.log.reserve(&guard, end)
    }

    /// Ends the chain. A further event begins another one.
    pub(super) fn close(&mut self, settings: &Settings) -> Result<()> {
        if self.introduced_in.is_none() {
            // Nothing was written.
            self.chain = None;
            return Ok(());
        }
        let guard = self.log.lock()?;
        let end = self.end(&guard, settings)?;
        let lost = (self.lost > 0).then_some(self.lost);
        self.add(&guard, end, settings, |chain, out| {
            let at = end.len + out.len() as u64;
            chain.add_line(out, at, ENDED, |line| line.add_some("lost", lost))
        })?;
        drop(guard);
        self.lost = 0;
        let anchored = self.anchor(settings);
        (self.chain, self.introduced_in) = (None, None);
        anchored
    }

    /// Has the audit KEK wrap the key of a new chain, unless there is a chain.
    fn begin(&mut self, settings: &Settings) -> Result<()> {
        if self.chain.as_ref().is_some_and(|chain| chain.seq() >= MAX_LINES) {
            self.close(settings)?;
        }
        if self.chain.is_some() {
            return Ok(());
        }
        let now = settings.clock.now();
        if let Some((error, at)) = &self.refused
            && now < *at + RETRY
        {
            return Err(error.clone());
        }
        let (kek, keyring) = (settings.kek.clone(), &settings.keyring);
        let (lineage, environment) = (keyring.lineage, keyring.environment.clone());
        let begun = keyfold_background::block(async move { ChainStart::begin(&*kek, lineage, &environment).await });
        match begun {
            Ok((start, ratchet)) => {
                self.chain = Some(Chain::new(start, settings.config.kek.clone(), ratchet));
                self.refused = None;
                Ok(())
            }
            Err(error) => {
                let detail = format!("audit KEK {}: {}", settings.config.kek, error.detail());
                let error = error.with_detail(detail.trim_end_matches(": "));
                self.refused = Some((error.clone(), now));
                Err(error)
            }
        }
    }

    /// The end of the file that the next lines go to, which is a new one where the present one is full.
    fn end(&mut self, guard: &Guard, settings: &Settings) -> Result<End> {
        let end = self.log.end(guard)?;
        if end.len < settings.config.max_size {
            return Ok(end);
        }
        let (renamed, next) = self.log.put_aside(guard, end)?;
        let linked = self.add(guard, end, settings, |chain, out| {
            let at = end.len + out.len() as u64;
            chain.add_line(out, at, FILE_ENDED, |line| {
                line.add("renamed", &renamed)?;
                line.add("next", next)
            })
        });
        if let Err(error) = linked {
            // The numbers of the files still tell that one is missing, unless it is the last.
            tracing::warn!(code = error.kind().code(), "an audit file does not say that another one follows: {error}");
        }
        self.log.end(guard)
    }

    /// Adds lines at `end`, behind a header where this file has none of the chain's. The chain steps on only if they are written.
    fn add(
        &mut self,
        guard: &Guard,
        end: End,
        settings: &Settings,
        lines: impl FnOnce(&mut Chain, &mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        let chain = self.chain.as_ref().ok_or_else(|| Error::new(ErrorKind::Internal, "a chain was begun"))?;
        let (mut ahead, first) = (chain.ahead(), chain.seq());
        let mut out = Vec::new();
        if end.torn {
            out.push(b'\n');
        }
        if self.introduced_in != Some(end.number) {
            let at = end.len + out.len() as u64;
            let action = if first == 0 { BEGUN } else { CONTINUED };
            ahead.add_line(&mut out, at, action, |line| {
                introduce(chain, end.number, settings, line)?;
                line.add_some("previous_file", self.introduced_in)
            })?;
        }
        lines(&mut ahead, &mut out)?;
        self.log.append(guard, end, &out)?;
        self.unanchored += ahead.seq() - first;
        (self.chain, self.introduced_in) = (Some(ahead), Some(end.number));
        if first == 0 {
            // That there is a chain is what an anchor must know first of all.
            self.unanchored = self.unanchored.max(settings.config.anchor_every);
        }
        Ok(())
    }

    /// Refuses `lines` more where they would leave more lines without an anchor than the policy allows.
    fn keep_anchored(&mut self, settings: &Settings, lines: u64) -> Result<()> {
        let is_within = self.unanchored == 0 || self.unanchored + lines <= settings.config.anchor_every;
        match if is_within { Ok(()) } else { self.anchor(settings) } {
            Err(error) if settings.config.on_failure == OnAuditFailure::Count => {
                warn_unanchored(&error);
                Ok(())
            }
            anchored => anchored,
        }
    }

    fn is_anchor_due(&self, settings: &Settings) -> bool {
        settings.clock.now().saturating_sub(self.anchored_at) >= settings.config.anchor_interval
    }

    /// Writes down how far the chain has come.
    fn anchor(&mut self, settings: &Settings) -> Result<()> {
        let (Some(path), Some(chain), Some(file)) = (&settings.anchors, &self.chain, self.introduced_in) else {
            self.unanchored = 0;
            return Ok(());
        };
        if self.unanchored == 0 {
            return Ok(());
        }
        let anchor = Anchor { file, chain: chain.start.id, seq: chain.seq() - 1, mac: chain.previous };
        anchor.append(path).inspect_err(|_| counter!("keyfold_audit_anchor_failures_total").increment(1))?;
        (self.unanchored, self.anchored_at) = (0, settings.clock.now());
        Ok(())
    }
}

fn warn_unanchored(error: &Error) {
    tracing::warn!(code = error.kind().code(), "the audit chain is not anchored: {error}");
}

/// The members of the first line of a chain in a file.
// F-15.2-2.
fn introduce(chain: &Chain, file: u64, settings: &Settings, line: &mut Members<'_>) -> Result<()> {
    line.add("file", file)?;
    chain.describe(line)?;
    if chain.seq() > 0 {
        line.add("previous", data_encoding::HEXLOWER.encode(&chain.previous))?;
    }
    line.add("keyring", &settings.keyring.name)?;
    line.add("actor", &settings.keyring.actor)?;
    line.add("host", rustix::system::uname().nodename().to_string_lossy())?;
    line.add("process", std::process::id())?;
    line.add("user", rustix::process::getuid().as_raw())?;
    line.add("program", program())
}

/// The members of an event.
fn describe(event: &AuditEvent, settings: &Settings, lost: u64, line: &mut Members<'_>) -> Result<()> {
    let keyring = &settings.keyring;
    line.add_outcome(event)?;
    line.add("keyring", &keyring.name)?;
    line.add("lineage", keyring.lineage.to_string())?;
    line.add("environment", &keyring.environment)?;
    line.add("actor", &keyring.actor)?;
    line.add_event(event)?;
    line.add_some("lost", (lost > 0).then_some(lost))
}
