//! A look at a KEK beyond wrapping with it, for people: `keyfold doctor`.

use keyfold::{BoxFuture, Kms, KmsTrace, Result};

/// How much a [`Finding`] matters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// Good to know.
    Note,
    /// It works, and somebody should look at it.
    Warning,
    /// It does not work, or not for long: something must be done.
    Problem,
}

impl Severity {
    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// One thing that was found, in plain words. Safe to show: no credentials, and nothing that a service wrote but checked
/// names and numbers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What it is about, for programs: letters and `-`, never changed once published (docs/DOCTOR.md).
    pub name: &'static str,
    /// What was found.
    pub sentence: String,
    /// What to do about it; empty where there is nothing.
    pub advice: String,
}

impl Finding {
    /// Good to know.
    #[must_use]
    pub fn note(name: &'static str, sentence: impl Into<String>) -> Self {
        Self { severity: Severity::Note, name, sentence: sentence.into(), advice: String::new() }
    }

    /// Somebody should look at it.
    #[must_use]
    pub fn warning(name: &'static str, sentence: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, advice: advice.into(), ..Self::note(name, sentence) }
    }

    /// Something must be done.
    #[must_use]
    pub fn problem(name: &'static str, sentence: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { severity: Severity::Problem, advice: advice.into(), ..Self::note(name, sentence) }
    }

    /// The service does not let this identity look, which no service needs to: `permission` in the provider's words.
    #[must_use]
    pub fn not_permitted(name: &'static str, permission: &str) -> Self {
        Self::note(name, format!("not permitted: {permission}; services do not need it"))
    }
}

/// Who makes sure that a wrapped key opens for its own context alone.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Binding {
    /// The service: another context is refused.
    ByService,
    /// The keyring, which compares the second half of the payload after every unwrap.
    #[default]
    ByKeyfold,
    /// Unknown: functions of the host program.
    Unknown,
}

/// What is known of a KEK without asking anybody.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// Service and key.
    pub label: String,
    /// How the service knows who asks, such as `a token from file /run/secrets/vault`; never a credential.
    pub login: String,
    /// Who binds the context.
    pub binding: Binding,
    /// The permission that wrapping needs, in the provider's words.
    pub wrap_permission: String,
    /// The permission that unwrapping needs.
    pub unwrap_permission: String,
    /// The page that has set-up and policy.
    pub page: &'static str,
}

/// A KEK that tells people more than a keyring asks for.
pub trait Examine: Kms {
    /// What is known without asking anybody.
    fn profile(&self) -> Profile;

    /// Asks for what services need not know: state, rotation, attributes. A part that the service does not permit is a note.
    /// Never changes anything. `trace` notes the requests.
    ///
    /// # Errors
    ///
    /// As for [`Kms::unwrap`].
    fn examine<'a>(&'a self, trace: &'a KmsTrace) -> BoxFuture<'a, Result<Vec<Finding>>>;
}
