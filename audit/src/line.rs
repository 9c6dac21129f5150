//! One line of an audit file: a JSON object that ends with the MAC over everything before it (FORMAT.md §15.2).

mod read;

pub(crate) use read::{Brief, ReadLine, covered};

use data_encoding::HEXLOWER;
use keyfold::{AuditEvent, ChainStart, Error, ErrorKind, KekAlias, Ratchet, Result, Value};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// The version of the format, in the first line of each chain.
pub(crate) const FORMAT: u64 = 1;

/// How every line begins.
pub(crate) const BEGINS: &[u8] = b"{\"chain\":\"";

/// Actions of the lines that hold a file together; all others are events.
pub(crate) const BEGUN: &str = "chain-begun";
pub(crate) const CONTINUED: &str = "chain-continued";
pub(crate) const ENDED: &str = "chain-ended";
pub(crate) const FILE_ENDED: &str = "file-ended";
pub(crate) const STATEMENT: &str = "statement";

/// Longest statement: it may list every key of a keyring.
pub(crate) const MAX_STATEMENT_LEN: usize = 64 * 1024 * 1024;
/// Longest line of any other kind, far above what is written: whoever reads one as JSON needs a hundred times its length.
pub(crate) const MAX_LINE_LEN: usize = 256 * 1024;

/// What stands between the bytes that a MAC covers and its 64 digits.
const MAC_MEMBER: &[u8] = b",\"mac\":\"";
/// What ends a line.
const END: &[u8] = b"\"}";
/// Bytes of a line that its MAC does not cover, without the line feed.
const MAC_LEN: usize = MAC_MEMBER.len() + 64 + END.len();

/// A chain as its writer sees it: what its first line said, and where it is now.
pub(crate) struct Chain {
    pub(crate) start: ChainStart,
    pub(crate) kek: KekAlias,
    ratchet: Ratchet,
    /// The MAC of the last line; zeros before the first.
    pub(crate) previous: [u8; 32],
}

impl Chain {
    pub(crate) fn new(start: ChainStart, kek: KekAlias, ratchet: Ratchet) -> Self {
        Self { start, kek, ratchet, previous: [0; 32] }
    }

    /// The number of the line that comes next.
    pub(crate) fn seq(&self) -> u64 {
        self.ratchet.seq()
    }

    /// A copy to write lines with that may fail to be written. One of the two is dropped right after.
    pub(crate) fn ahead(&self) -> Self {
        Self {
            start: self.start.clone(),
            kek: self.kek.clone(),
            ratchet: self.ratchet.ahead(),
            previous: self.previous,
        }
    }

    /// Adds a line that begins at the byte `at` of its file to `out`, and forgets its key.
    pub(crate) fn add_line(
        &mut self,
        out: &mut Vec<u8>,
        at: u64,
        action: &str,
        members: impl FnOnce(&mut Members<'_>) -> Result<()>,
    ) -> Result<()> {
        let begin = out.len();
        out.push(b'{');
        let mut line = Members { out: &mut *out, first: true };
        line.add("chain", self.start.id.to_string())?;
        line.add("seq", self.seq())?;
        // F-15.2-3.
        line.add("at", at)?;
        line.add("time", now())?;
        line.add("action", action)?;
        members(&mut line)?;
        // What nobody reads must not be written.
        let max = if action == STATEMENT { MAX_STATEMENT_LEN } else { MAX_LINE_LEN };
        if out.len() - begin + MAC_LEN > max {
            let detail = format!("{action}: more than {max} bytes");
            return Err(Error::new(ErrorKind::LimitExceeded, "an audit line is too long").with_detail(detail));
        }
        let mac = self.ratchet.mac(&self.previous, &out[begin..]);
        out.extend_from_slice(MAC_MEMBER);
        out.extend_from_slice(HEXLOWER.encode(&mac).as_bytes());
        out.extend_from_slice(END);
        out.push(b'\n');
        self.ratchet.step();
        self.previous = mac;
        Ok(())
    }

    /// The members of a line that say what the chain is.
    pub(crate) fn describe(&self, line: &mut Members<'_>) -> Result<()> {
        let ChainStart { id: _, lineage, environment, commitment, wrapped } = &self.start;
        line.add("format", FORMAT)?;
        line.add("lineage", lineage.to_string())?;
        line.add("environment", environment)?;
        line.add("kek", self.kek.as_str())?;
        line.add("kek_version", &wrapped.kek_version)?;
        line.add("wrapped", HEXLOWER.encode(&wrapped.bytes))?;
        line.add("commitment", HEXLOWER.encode(commitment))
    }
}

/// The members of a line that is being written.
pub(crate) struct Members<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl Members<'_> {
    pub(crate) fn add(&mut self, name: &str, value: impl Serialize) -> Result<()> {
        let failed =
            |error| Error::new(ErrorKind::Internal, "an audit line cannot be written as JSON").with_source(error);
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        serde_json::to_writer(&mut *self.out, name).map_err(failed)?;
        self.out.push(b':');
        serde_json::to_writer(&mut *self.out, &value).map_err(failed)
    }

    pub(crate) fn add_some(&mut self, name: &str, value: Option<impl Serialize>) -> Result<()> {
        value.map_or(Ok(()), |value| self.add(name, value))
    }

    /// Adds how an event ended.
    pub(crate) fn add_outcome(&mut self, event: &AuditEvent) -> Result<()> {
        self.add("outcome", event.error.map_or("ok", |kind| kind.name()))?;
        self.add_some("code", event.error.map(|kind| kind.code()))
    }

    /// Adds what else an event says of itself.
    pub(crate) fn add_event(&mut self, event: &AuditEvent) -> Result<()> {
        // Destructured so that a new member forces a decision.
        let AuditEvent { action: _, error: _, key_id, kek, latency, field, reason, details } = event;
        self.add_some("key_id", key_id.map(|id| id.to_string()))?;
        self.add_some("kek", kek.as_ref().map(|alias| alias.as_str()))?;
        self.add_some("latency_us", latency.map(|latency| u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)))?;
        self.add_some("field", field.as_ref())?;
        self.add_some("reason", reason.as_ref())?;
        if details.is_empty() {
            return Ok(());
        }
        self.add("details", details.iter().map(|(name, value)| (*name, value)).collect::<BTreeMap<_, _>>())
    }
}

/// `event` as a JSON object with the members that it has in an audit file, but without those that the file adds: time, keyring,
/// chain, MAC. For sinks of other programs.
///
/// # Errors
///
/// - [`Internal`](ErrorKind::Internal): it cannot be written as JSON.
pub fn event_json(event: &AuditEvent) -> Result<String> {
    let mut out = vec![b'{'];
    let mut line = Members { out: &mut out, first: true };
    line.add("action", event.action.name())?;
    line.add_outcome(event)?;
    line.add_event(event)?;
    out.push(b'}');
    String::from_utf8(out).map_err(|error| Error::new(ErrorKind::Internal, "JSON is UTF-8").with_source(error))
}

/// The time of day in UTC, to the millisecond (RFC 3339).
pub(crate) fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    let time = Value::Timestamp { seconds, nanoseconds: since.subsec_millis() * 1_000_000 };
    // A clock that is set to the year 10000 is no reason to record nothing.
    time.to_text().map_or_else(|| "9999-12-31T23:59:59Z".to_owned(), std::borrow::Cow::into_owned)
}
