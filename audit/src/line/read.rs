//! Lines as they are read. Whoever edits the files writes what he likes, so that what a line takes is bounded before anything is kept of it.

use super::{BEGUN, CONTINUED, END, ENDED, FILE_ENDED, FORMAT, MAC_LEN, MAC_MEMBER, MAX_LINE_LEN, STATEMENT};
use data_encoding::HEXLOWER;
use keyfold::{ChainId, ChainStart, KekAlias, Lineage, WrappedKey};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json};
use sha2::{Digest, Sha256};
use std::fmt;

/// A line as it was read. Nobody has vouched for it yet.
#[derive(Debug)]
pub(crate) struct ReadLine<'a> {
    pub(crate) chain: ChainId,
    pub(crate) seq: u64,
    pub(crate) at: u64,
    pub(crate) time: String,
    pub(crate) action: String,
    text: &'a str,
    /// What the MAC covers.
    pub(crate) covered: &'a [u8],
    pub(crate) mac: [u8; 32],
}

/// What every line has. Other members are skipped, and take no memory.
#[derive(Deserialize)]
struct Known {
    chain: String,
    seq: u64,
    at: u64,
    time: String,
    action: String,
    mac: String,
}

impl<'a> ReadLine<'a> {
    /// Takes a line apart, without its line feed. `None`: it is not one that a writer writes.
    // F-15.2-1.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (covered, end) = bytes.split_at_checked(bytes.len().checked_sub(MAC_LEN)?)?;
        let digits = end.strip_prefix(MAC_MEMBER)?.strip_suffix(END)?;
        let mac = <[u8; 32]>::try_from(HEXLOWER.decode(digits).ok()?).ok()?;
        let text = std::str::from_utf8(bytes).ok()?;
        let Known { chain, seq, at, time, action, mac: seen } = serde_json::from_str(text).ok()?;
        // Otherwise the MAC that JSON sees could be another one than ours.
        if seen.as_bytes() != digits || (bytes.len() > MAX_LINE_LEN && action != STATEMENT) {
            return None;
        }
        // Else a line could be one here, and none where all of its members are read.
        serde_json::from_str::<Skipped>(text).ok()?;
        Some(Self { chain: chain.parse().ok()?, seq, at, time, action, text, covered, mac })
    }

    /// All members. Of a statement that is longer than any other line `kind` alone.
    pub(crate) fn members(&self) -> Option<Map<String, Json>> {
        if self.text.len() > MAX_LINE_LEN {
            return Some(self.pick(&["kind"]));
        }
        serde_json::from_str(self.text).ok()
    }

    /// Those of the members `names` that are texts or numbers. The others take no memory.
    pub(crate) fn pick(&self, names: &[&str]) -> Map<String, Json> {
        serde_json::Deserializer::from_str(self.text).deserialize_map(Pick(names)).unwrap_or_default()
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.pick(&[name]).get(name)?.as_u64()
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
        if self.is_header() { start_of(self.chain, &self.pick(KEPT)) } else { None }
    }
}

/// A value that is valid, of which nothing is kept. As for [`Json`], and unlike [`IgnoredAny`], texts and numbers must be such, and
/// not too many be in each other.
struct Skipped;

impl<'de> Deserialize<'de> for Skipped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Skipped {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        while members.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

struct Pick<'n>(&'n [&'n str]);

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = Map<String, Json>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if !self.0.contains(&name.as_str()) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = map.next_value::<&RawValue>()?.get();
            if value.len() <= MAX_LINE_LEN && !value.starts_with(['{', '[']) {
                found.insert(name, serde_json::from_str(value).map_err(A::Error::custom)?);
            }
        }
        Ok(found)
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

/// What is kept of lines that hold a file together, and of statements.
const KEPT: &[&str] = &[
    "format",
    "file",
    "lineage",
    "environment",
    "kek",
    "kek_version",
    "wrapped",
    "commitment",
    "previous",
    "previous_file",
    "next",
    "kind",
    "lost",
];

/// What verification keeps of a line: a trail has millions of them, and what they say is read again where it is needed.
#[derive(Debug)]
pub(crate) struct Brief {
    pub(crate) chain: ChainId,
    pub(crate) seq: u64,
    pub(crate) at: u64,
    pub(crate) mac: [u8; 32],
    /// Events that could not be recorded before it.
    pub(crate) lost: u64,
    /// Of the line without its line feed: what is read again must be the same.
    sha256: [u8; 32],
    /// Action and members of the lines that hold a file together, and of statements.
    said: Option<Box<(String, Map<String, Json>)>>,
}

impl Brief {
    /// `None`: no writer writes such a line.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let line = ReadLine::parse(bytes)?;
        let is_kept = !line.is_event() || line.action == STATEMENT;
        let members = line.pick(if is_kept { KEPT } else { &["lost"] });
        let lost = members.get("lost").and_then(Json::as_u64).unwrap_or(0);
        let ReadLine { chain, seq, at, mac, action, .. } = line;
        let said = is_kept.then(|| Box::new((action, members)));
        Some(Self { chain, seq, at, mac, lost, sha256: Sha256::digest(bytes).into(), said })
    }

    /// Whether it is of this line, without its line feed.
    pub(crate) fn is_of(&self, bytes: &[u8]) -> bool {
        self.sha256 == *Sha256::digest(bytes)
    }

    /// Whether both are of lines that say the same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.sha256 == other.sha256
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
