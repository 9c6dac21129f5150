//! One line of an audit file: a JSON object that ends with the MAC over everything before it (FORMAT.md §15.2).

use data_encoding::HEXLOWER;
use keyfold::{
    AuditEvent, ChainId, ChainStart, Error, ErrorKind, KekAlias, Lineage, Ratchet, Result, Value, WrappedKey,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
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

/// A line as it was read. Nobody has vouched for it yet.
#[derive(Debug)]
pub(crate) struct ReadLine<'a> {
    pub(crate) chain: ChainId,
    pub(crate) seq: u64,
    pub(crate) at: u64,
    pub(crate) time: String,
    pub(crate) action: String,
    /// All other members but the MAC.
    pub(crate) members: Map<String, Json>,
    /// What the MAC covers.
    pub(crate) covered: &'a [u8],
    pub(crate) mac: [u8; 32],
}

#[derive(Deserialize)]
struct Known {
    chain: String,
    seq: u64,
    at: u64,
    time: String,
    action: String,
    mac: String,
    #[serde(flatten)]
    members: Map<String, Json>,
}

impl<'a> ReadLine<'a> {
    /// Takes a line apart, without its line feed. `None`: it is not one that a writer writes.
    // F-15.2-1.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (covered, end) = bytes.split_at_checked(bytes.len().checked_sub(MAC_LEN)?)?;
        let digits = end.strip_prefix(MAC_MEMBER)?.strip_suffix(END)?;
        let mac = <[u8; 32]>::try_from(HEXLOWER.decode(digits).ok()?).ok()?;
        let known: Known = serde_json::from_slice(bytes).ok()?;
        // Otherwise the MAC that JSON sees could be another one than ours.
        if known.mac.as_bytes() != digits {
            return None;
        }
        let Known { chain, seq, at, time, action, mac: _, members } = known;
        Some(Self { chain: chain.parse().ok()?, seq, at, time, action, members, covered, mac })
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.members.get(name)?.as_str()
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.members.get(name)?.as_u64()
    }

    /// Whether the line says what its chain is.
    pub(crate) fn is_header(&self) -> bool {
        matches!(self.action.as_str(), BEGUN | CONTINUED)
    }

    /// Whether the line is an event, and not one of those that hold the file together.
    pub(crate) fn is_event(&self) -> bool {
        !self.is_header() && !matches!(self.action.as_str(), ENDED | FILE_ENDED)
    }

    /// What a header says of its chain, and under which KEK.
    pub(crate) fn start(&self) -> Option<(ChainStart, KekAlias)> {
        if self.is_header() { start_of(self.chain, &self.members) } else { None }
    }
}

/// What the members of a header say of its chain, and under which KEK.
fn start_of(chain: ChainId, members: &Map<String, Json>) -> Option<(ChainStart, KekAlias)> {
    if members.get("format")?.as_u64()? != FORMAT {
        return None;
    }
    let text = |name| members.get(name)?.as_str();
    let bytes = |name| HEXLOWER.decode(text(name)?.as_bytes()).ok();
    let start = ChainStart {
        id: chain,
        lineage: text("lineage")?.parse::<Lineage>().ok()?,
        environment: text("environment")?.to_owned(),
        commitment: bytes("commitment")?.try_into().ok()?,
        wrapped: WrappedKey { kek_version: text("kek_version")?.to_owned(), bytes: bytes("wrapped")? },
    };
    Some((start, KekAlias::new(text("kek")?).ok()?))
}

/// What verification keeps of a line: a trail has millions of them, and what they say is read again where it is needed.
#[derive(Debug)]
pub(crate) struct Brief {
    pub(crate) chain: ChainId,
    pub(crate) seq: u64,
    pub(crate) at: u64,
    pub(crate) mac: [u8; 32],
    /// Events that could not be recorded before it.
    pub(crate) lost: u64,
    /// Action and members of the lines that hold a file together, and of statements.
    said: Option<Box<(String, Map<String, Json>)>>,
}

impl Brief {
    pub(crate) fn new(line: ReadLine<'_>) -> Self {
        let lost = line.number("lost").unwrap_or(0);
        let is_kept = !line.is_event() || line.action == STATEMENT;
        let ReadLine { chain, seq, at, mac, action, members, .. } = line;
        Self { chain, seq, at, mac, lost, said: is_kept.then(|| Box::new((action, members))) }
    }

    /// The action, unless it is that of an event.
    pub(crate) fn action(&self) -> Option<&str> {
        self.said.as_ref().map(|said| said.0.as_str())
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.said.as_ref()?.1.get(name)?.as_str()
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.said.as_ref()?.1.get(name)?.as_u64()
    }

    pub(crate) fn is_header(&self) -> bool {
        matches!(self.action(), Some(BEGUN | CONTINUED))
    }

    pub(crate) fn is_event(&self) -> bool {
        matches!(self.action(), None | Some(STATEMENT))
    }

    /// As [`ReadLine::start`].
    pub(crate) fn start(&self) -> Option<(ChainStart, KekAlias)> {
        if self.is_header() { start_of(self.chain, &self.said.as_ref()?.1) } else { None }
    }
}

/// What the MAC of a line covers, which has been parsed before.
pub(crate) fn covered(line: &[u8]) -> &[u8] {
    &line[..line.len().saturating_sub(MAC_LEN)]
}

/// The time of day in UTC, to the millisecond (RFC 3339).
pub(crate) fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    let time = Value::Timestamp { seconds, nanoseconds: since.subsec_millis() * 1_000_000 };
    // A clock that is set to the year 10000 is no reason to record nothing.
    time.to_text().map_or_else(|| "9999-12-31T23:59:59Z".to_owned(), std::borrow::Cow::into_owned)
}
