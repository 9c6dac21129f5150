//! Names of keys in AWS.

use keyfold::{Error, ErrorKind, Result};
use std::fmt;

const WRONG: Error = Error::new(
    ErrorKind::Configuration,
    "a KEK of AWS is named by a whole ARN: arn:aws:kms:REGION:ACCOUNT:key/ID or arn:aws:kms:REGION:ACCOUNT:alias/NAME",
);
/// Longest name of an alias in bytes, with `alias/`.
const MAX_ALIAS_LEN: usize = 256;

/// The ARN of a key or of an alias.
///
/// # Examples
///
/// ```
/// use keyfold_kms::aws::Arn;
///
/// let arn: Arn = "arn:aws:kms:eu-central-1:111122223333:alias/patients".parse()?;
/// assert_eq!(arn.region(), "eu-central-1");
/// # Ok::<(), keyfold::Error>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Arn {
    partition: String,
    region: String,
    account: String,
    /// `key/ID` or `alias/NAME`.
    resource: String,
}

impl Arn {
    /// The region.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Whether it names an alias rather than a key.
    #[must_use]
    pub fn is_alias(&self) -> bool {
        self.resource.starts_with("alias/")
    }

    /// The key that must have answered where this name was asked for what the key `wrapper` wrapped; `None` if it is a
    /// foreign one.
    ///
    /// - The same key, or its replica in another region: the multi-Region keys of one ID share their key material.
    /// - Under an alias, whichever key of its account the service takes it for: whether it is that one, the answer says.
    pub(super) fn opener_of(&self, wrapper: &Self) -> Option<Self> {
        let here = Self { region: self.region.clone(), ..wrapper.clone() };
        let is_near = wrapper.region == self.region || wrapper.resource.starts_with("key/mrk-");
        let is_ours = self.is_alias() || self.resource == wrapper.resource;
        let is_same_account = wrapper.partition == self.partition && wrapper.account == self.account;
        (!wrapper.is_alias() && is_same_account && is_near && is_ours).then_some(here)
    }
}

impl std::str::FromStr for Arn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.splitn(6, ':');
        let mut next = || parts.next().ok_or(WRONG);
        let (arn, partition, service, region, account, resource) =
            (next()?, next()?, next()?, next()?, next()?, next()?);
        let is_name = |text: &str, more: &[u8]| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
        };
        let is_resource = match resource.split_once('/') {
            Some(("key", id)) => id.len() <= 64 && is_name(id, b"-"),
            Some(("alias", name)) => resource.len() <= MAX_ALIAS_LEN && is_name(name, b"-_/"),
            _ => false,
        };
        let is_place = |text: &str| text.len() <= 32 && is_name(text, b"-");
        let is_account = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
        let fits = arn == "arn" && service == "kms" && is_account && is_resource;
        if !fits || !is_place(partition) || !is_place(region) {
            return Err(WRONG);
        }
        let [partition, region, account, resource] = [partition, region, account, resource].map(str::to_owned);
        Ok(Self { partition, region, account, resource })
    }
}

impl fmt::Display for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, region, account, resource } = self;
        write!(f, "arn:{partition}:kms:{region}:{account}:{resource}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    fn arn(text: &str) -> Arn {
        text.parse().unwrap()
    }

    #[test]
    fn whole_arns_of_keys_and_aliases_alone() {
        for good in [
            KEY,
            "arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab",
            "arn:aws:kms:eu-central-1:111122223333:alias/clinic/patients_2",
        ] {
            assert_eq!(arn(good).to_string(), good);
        }
        for bad in [
            "",
            "alias/clinic",
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "arn:aws:kms:eu-central-1:111122223333:grant/x",
            "arn:aws:kms:eu-central-1:111122223333:key/",
            "arn:aws:kms:eu-central-1:111122223333:alias/",
            "arn:aws:kms:eu-central-1:11112222333:key/x",
            "arn:aws:kms::111122223333:key/x",
            "arn:aws:s3:eu-central-1:111122223333:key/x",
            "arn:aws:kms:eu-central-1:111122223333:key/x y",
            "arn:aws:kms:evil.example/:111122223333:key/x",
            &format!("{KEY}:x"),
        ] {
            assert_eq!(bad.parse::<Arn>().unwrap_err().kind(), ErrorKind::Configuration, "{bad}");
        }
    }

    #[test]
    fn what_opens_what() {
        let opener =
            |configured: &str, wrapper: &str| arn(configured).opener_of(&arn(wrapper)).map(|arn| arn.to_string());
        let replica =
            |region: &str| format!("arn:aws:kms:{region}:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab");
        let alias = "arn:aws:kms:eu-central-1:111122223333:alias/clinic";
        assert_eq!(opener(KEY, KEY).as_deref(), Some(KEY));
        assert_eq!(opener(alias, KEY).as_deref(), Some(KEY));
        assert_eq!(opener(&replica("eu-west-1"), &replica("us-east-1")), Some(replica("eu-west-1")));
        assert_eq!(opener(alias, &replica("us-east-1")), Some(replica("eu-central-1")));
        for foreign in [
            "arn:aws:kms:eu-central-1:999999999999:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            "arn:aws-cn:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            "arn:aws:kms:eu-central-1:111122223333:alias/clinic",
        ] {
            assert_eq!(opener(KEY, foreign), None, "{foreign}");
            assert_eq!(opener(alias, foreign), None, "{foreign}");
        }
        assert_eq!(opener(KEY, &KEY.replace("90ab", "90ac")), None);
    }
}
