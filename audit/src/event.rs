//! Events as they are in audit files, for reports.

use crate::line::ReadLine;
use keyfold::ChainId;
use serde_json::{Map, Value as Json};

/// An event of an audit file. Nobody has vouched for it: that is what [`verify`](crate::verify) does with the whole file.
#[derive(Clone, Debug)]
pub struct Event {
    /// The chain that it is in.
    pub chain: ChainId,
    /// When it was recorded, by the clock of the machine (RFC 3339, UTC).
    pub time: String,
    /// What was done, or tried.
    pub action: String,
    members: Map<String, Json>,
}

/// A line that no writer writes: damage, or the remains of a write that a crash cut off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoLine;

impl Event {
    /// The event of a line, without its line feed; `None`: the line is one of those that hold a file together.
    ///
    /// # Errors
    ///
    /// - [`NoLine`]: no writer writes such a line.
    pub fn read(line: &[u8]) -> Result<Option<Self>, NoLine> {
        let line = ReadLine::parse(line).ok_or(NoLine)?;
        let is_event = line.is_event();
        let members = line.members().ok_or(NoLine)?;
        let event = Self { chain: line.chain, time: line.time, action: line.action, members };
        Ok(is_event.then_some(event))
    }

    /// A member that is a text, such as `outcome`, `actor`, `key_id`, `kek` or `field`.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.members.get(name)?.as_str()
    }

    /// A member that is a number, such as `latency_us` or `lost`.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.members.get(name)?.as_u64()
    }

    /// What else belongs to the action, such as counts.
    pub fn details(&self) -> impl Iterator<Item = (&str, &str)> {
        let details = self.members.get("details").and_then(Json::as_object);
        details.into_iter().flatten().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
    }

    /// One of [`details`](Self::details).
    #[must_use]
    pub fn detail(&self, name: &str) -> Option<&str> {
        self.members.get("details")?.get(name)?.as_str()
    }
}
