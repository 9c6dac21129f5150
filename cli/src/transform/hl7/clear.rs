//! What messages may have beside the values that are sealed, and what they have.

use crate::failure::{Exit, Failure};
use crate::files::hl7::{Message, SegmentPath, SegmentRules, segment_id};
use keyfold::Hl7Policy;
use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, PoisonError};

/// Most places that are told: who makes up messages cannot make the list of them longer.
const MAX_LEFT: usize = 500;

/// The version of a message.
const VERSION: &str = "MSH-12.1";

/// What may stay in clear.
pub(crate) struct Clear {
    /// The place of the version, and those that the policy was made for.
    versions: Option<(SegmentPath, BTreeSet<String>)>,
    listed: Option<Listed>,
    /// What was left in clear, where the policy does not list it: fields, or segments that it does not name.
    left: Mutex<BTreeSet<String>>,
}

/// Places, and whole segments.
struct Listed {
    places: SegmentRules,
    segments: HashSet<[u8; 3]>,
}

impl Clear {
    /// `rules`: what is sealed.
    pub(crate) fn new(policy: &Hl7Policy, rules: &SegmentRules) -> Result<Self, Failure> {
        let versions = policy.versions.clone();
        let versions = versions.map(|known| SegmentPath::parse(VERSION).map(|path| (path, known))).transpose()?;
        let listed = policy.clear.as_ref().map(|clear| Listed::new(clear, rules)).transpose()?;
        Ok(Self { versions, listed, left: Mutex::default() })
    }

    /// Refuses a message that the policy was not made for, and what it neither seals nor lists; or keeps in mind what stays in clear.
    pub(super) fn check(&self, message: &Message<'_>, rules: &SegmentRules) -> Result<(), Failure> {
        let refused = |why: String| Failure::new(Exit::Policy, why).at(format!("message {}", message.number()));
        if let Some(known) = self.other_version(message) {
            let why = "the version of the message, MSH-12, is none of those in [hl7] of the policy";
            return Err(refused(format!("{why}: {}", Vec::from_iter(known.iter().map(String::as_str)).join(", "))));
        }
        self.find(message, rules, |path, _| {
            let why = "the policy neither seals it nor lists it under clear in [hl7], so it would stay in clear";
            Err(refused(format!("{path}: {why}")))
        })
    }

    /// The versions that the policy was made for, if a message is of another one.
    pub(crate) fn other_version(&self, message: &Message<'_>) -> Option<&BTreeSet<String>> {
        let (path, known) = self.versions.as_ref()?;
        let version = message.first(path, 0).and_then(|span| message.text(span).ok()).unwrap_or_default();
        (!known.contains(version)).then_some(known)
    }

    /// Hands what the policy neither seals nor lists to `unlisted`. If it lists nothing at all, keeps in mind what stays in clear instead.
    pub(crate) fn find(
        &self,
        message: &Message<'_>,
        rules: &SegmentRules,
        mut unlisted: impl FnMut(SegmentPath, &[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut left = HashSet::new();
        message.walk(|path, value| {
            if value.is_empty() || path.is_needed_to_read() || rules.select(&path) {
                return Ok(());
            }
            match &self.listed {
                None => {
                    let named = !rules.of(path.segment()).is_empty();
                    left.insert((path.segment(), named.then(|| path.to_field())));
                    Ok(())
                }
                Some(listed) if listed.has(&path) => Ok(()),
                Some(_) => unlisted(path, value),
            }
        })?;
        if left.is_empty() {
            return Ok(());
        }
        // Nothing is left half done where a thread stopped.
        let mut all = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        for (segment, field) in left {
            if all.len() < MAX_LEFT {
                all.insert(field.map_or_else(|| segment.escape_ascii().to_string(), |field| field.to_string()));
            }
        }
        Ok(())
    }

    /// What was left in clear and is not listed.
    pub(crate) fn into_left(self) -> Vec<String> {
        self.left.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect()
    }
}

impl Listed {
    fn new(clear: &BTreeSet<String>, rules: &SegmentRules) -> Result<Self, Failure> {
        let (mut paths, mut segments) = (Vec::new(), HashSet::new());
        for place in clear {
            match segment_id(place) {
                Some(id) if !rules.of(id).is_empty() => {
                    let why = format!("{place} is listed as clear, but fields seal places in it: list the others");
                    return Err(Failure::new(Exit::Policy, why));
                }
                Some(id) => {
                    segments.insert(id);
                }
                None => paths.push(SegmentPath::parse(place)?),
            }
        }
        // What is sealed is not in clear.
        SegmentRules::new([rules.paths(), &paths].concat())?;
        Ok(Self { places: SegmentRules::new(paths)?, segments })
    }

    fn has(&self, path: &SegmentPath) -> bool {
        self.segments.contains(&path.segment()) || self.places.select(path)
    }
}
