//! What requests to key services cost: an estimate from prices that are an input. There are none in here: they change, and nobody would look them up.

use serde::{Deserialize, Serialize};

/// Prices of key services.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// The date for which somebody last looked them up.
    pub as_of: String,
    /// The currency.
    pub currency: String,
    /// Each key service that charges.
    #[serde(default, rename = "provider")]
    pub providers: Vec<Price>,
}

/// The price of one key service.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// The scheme of its URIs, such as `awskms`.
    pub scheme: String,
    /// What people call it.
    pub name: String,
    /// Of one key, per month.
    pub key_month: f64,
    /// Of 10,000 requests.
    pub per_10000_requests: f64,
    /// Where it is from.
    pub source: String,
}

impl Prices {
    /// Prices of a file in the form that docs/REPORT.md shows.
    ///
    /// # Errors
    ///
    /// Says in words what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    pub(crate) fn of(&self, scheme: &str) -> Option<&Price> {
        self.providers.iter().find(|price| price.scheme == scheme)
    }
}

/// What one KEK in a key service is asked per month, and what that costs where its price is known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// The KEK.
    pub kek: String,
    /// Requests per month, at the rate of the trail.
    pub requests_month: u64,
    /// What people call its key service.
    pub provider: Option<String>,
    /// Of the key itself.
    pub key_month: Option<f64>,
    /// Of the requests.
    pub requests_cost_month: Option<f64>,
}
