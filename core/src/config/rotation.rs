//! `[rotation]`: from the file to a [`RotationPolicy`].

use super::duration::{parse, parse_or_never};
use super::position::{Origin, Spanned};
use crate::error::{Error, ErrorKind, Result};
use crate::rotation::RotationPolicy;
use serde::Deserialize;

/// The section `[rotation]`, as it stands in a file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotationToml {
    data_age: Option<Spanned<String>>,
    root_age: Option<Spanned<String>>,
    data_messages: Option<Spanned<MessagesToml>>,
    lead: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a whole number or \"never\"")]
enum MessagesToml {
    Count(u64),
    Word(String),
}

impl RotationToml {
    /// The policy: what the file leaves out has its default.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): with file, line and key.
    pub fn to_policy(&self, origin: &Origin<'_>) -> Result<RotationPolicy> {
        let mut policy = RotationPolicy::default();
        if let Some(text) = &self.data_age {
            let data_age = origin.at(text, |text| parse_or_never(text))?;
            policy = origin.at(text, |_| checked(RotationPolicy { data_age, ..policy }))?;
        }
        if let Some(text) = &self.root_age {
            let root_age = origin.at(text, |text| parse_or_never(text))?;
            policy = origin.at(text, |_| checked(RotationPolicy { root_age, ..policy }))?;
        }
        if let Some(messages) = &self.data_messages {
            let data_messages = origin.at(messages, MessagesToml::limit)?;
            policy = origin.at(messages, |_| checked(RotationPolicy { data_messages, ..policy }))?;
        }
        if let Some(text) = &self.lead {
            let lead = origin.at(text, |text| parse(text))?;
            policy = origin.at(text, |_| checked(RotationPolicy { lead, ..policy }))?;
        }
        Ok(policy)
    }
}

fn checked(policy: RotationPolicy) -> Result<RotationPolicy> {
    policy.check().map(|()| policy)
}

impl MessagesToml {
    fn limit(&self) -> Result<Option<u64>> {
        match self {
            Self::Count(count) => Ok(Some(*count)),
            Self::Word(word) if word == "never" => Ok(None),
            Self::Word(_) => Err(Error::new(ErrorKind::Configuration, "data_messages is a whole number or \"never\"")),
        }
    }
}
