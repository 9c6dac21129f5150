//! `[cache]`: from the file to a [`CachePolicy`].

use super::duration::parse;
use super::position::{Origin, Spanned};
use super::size::SizeToml;
use crate::cache::CachePolicy;
use crate::error::Result;
use serde::Deserialize;

/// The section `[cache]`, as it stands in a file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheToml {
    max_age: Option<Spanned<String>>,
    grace: Option<Spanned<String>>,
    max_idle: Option<Spanned<String>>,
    check_every: Option<Spanned<String>>,
    negative: Option<Spanned<String>>,
    max_keys: Option<usize>,
    max_bytes: Option<Spanned<SizeToml>>,
}

impl CacheToml {
    /// The policy: what the file leaves out has its default, or the nearest that fits a `max_age` that it gives.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](crate::ErrorKind::Configuration): with file, line and key.
    pub fn to_policy(&self, origin: &Origin<'_>) -> Result<CachePolicy> {
        let mut policy = CachePolicy::default();
        if let Some(text) = &self.max_age {
            let max_age = origin.at(text, |text| parse(text))?;
            let (max_idle, check_every) = (policy.max_idle.max(max_age), policy.check_every.min(max_age));
            policy = origin.at(text, |_| checked(CachePolicy { max_age, max_idle, check_every, ..policy }))?;
        }
        if let Some(text) = &self.grace {
            let grace = origin.at(text, |text| parse(text))?;
            policy = origin.at(text, |_| checked(CachePolicy { grace, ..policy }))?;
        }
        if let Some(text) = &self.max_idle {
            let max_idle = origin.at(text, |text| parse(text))?;
            policy = origin.at(text, |_| checked(CachePolicy { max_idle, ..policy }))?;
        }
        if let Some(text) = &self.check_every {
            let check_every = origin.at(text, |text| parse(text))?;
            policy = origin.at(text, |_| checked(CachePolicy { check_every, ..policy }))?;
        }
        if let Some(text) = &self.negative {
            let negative = origin.at(text, |text| parse(text))?;
            policy = origin.at(text, |_| checked(CachePolicy { negative, ..policy }))?;
        }
        if let Some(size) = &self.max_bytes {
            policy.max_bytes = origin.at(size, SizeToml::bytes)?;
        }
        policy.max_keys = self.max_keys.unwrap_or(policy.max_keys);
        Ok(policy)
    }
}

fn checked(policy: CachePolicy) -> Result<CachePolicy> {
    policy.check().map(|()| policy)
}
