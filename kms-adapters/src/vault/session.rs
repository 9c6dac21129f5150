//! Tokens: where they come from, and how long they are good for.

use super::{Transit, VaultAuth};
use crate::credentials::SecretText;
use crate::layer::{Again, Attempt, Failure};
use keyfold::{ErrorKind, KmsErrorKind, KmsTrace};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::Instant;

/// A token in use.
pub(super) struct Session {
    pub(super) token: SecretText,
    /// When to renew it; `None`: it cannot be renewed.
    renew_at: Option<Instant>,
}

#[derive(Serialize)]
struct AppRoleLogin<'a> {
    role_id: &'a str,
    secret_id: &'a str,
}

#[derive(Serialize)]
struct KubernetesLogin<'a> {
    role: &'a str,
    jwt: &'a str,
}

#[derive(Serialize)]
struct Nothing {}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    auth: Auth<'a>,
}

#[derive(Deserialize)]
struct Auth<'a> {
    client_token: &'a str,
    #[serde(default)]
    renewable: bool,
    #[serde(default)]
    lease_duration: u64,
}

impl Auth<'_> {
    fn session(&self) -> Session {
        // Two thirds of its life, so that there is time for several attempts.
        let life = Duration::from_secs(self.lease_duration.min(u64::from(u32::MAX)));
        let renew_at = (self.renewable && !life.is_zero()).then(|| Instant::now() + life * 2 / 3);
        Session { token: SecretText::new(self.client_token), renew_at }
    }
}

impl Transit {
    /// A session that can be used: the given one, renewed if it is time, or another.
    pub(super) async fn session(&self, current: Option<Session>, trace: Option<&KmsTrace>) -> Attempt<Session> {
        let current = match &self.config.auth {
            VaultAuth::Token(source) => {
                let token = source.read()?;
                match current.filter(|session| session.token.expose() == token.expose()) {
                    Some(session) => session,
                    // Renewed at once, which tells how long it is good for.
                    None => Session { token, renew_at: Some(Instant::now()) },
                }
            }
            _ => match current {
                Some(session) => session,
                None => return self.log_in(trace).await,
            },
        };
        if current.renew_at.is_none_or(|at| Instant::now() < at) {
            return Ok(current);
        }
        match self.renew(&current.token, trace).await {
            Err(failure) if is_refusal(&failure) => match &self.config.auth {
                // Some tokens cannot be renewed: what it is good for, the request itself will show.
                VaultAuth::Token(_) => Ok(Session { renew_at: None, ..current }),
                _ => self.log_in(trace).await,
            },
            renewed => renewed,
        }
    }

    async fn renew(&self, token: &SecretText, trace: Option<&KmsTrace>) -> Attempt<Session> {
        let request = self.request(self.config.url(["auth/token/renew-self"]))?;
        let answer = self.send(request.secret_header("x-vault-token", "", token)?.json(&Nothing {})?, trace).await?;
        Ok(answer.json::<Answer<'_>>()?.auth.session())
    }

    async fn log_in(&self, trace: Option<&KmsTrace>) -> Attempt<Session> {
        let login = |mount: &str| self.request(self.config.url(["auth", mount, "login"]));
        let request = match &self.config.auth {
            VaultAuth::AppRole { mount, role_id, secret_id } => {
                login(mount)?.json(&AppRoleLogin { role_id, secret_id: secret_id.read()?.expose() })?
            }
            VaultAuth::Kubernetes { mount, role, jwt } => {
                login(mount)?.json(&KubernetesLogin { role, jwt: jwt.read()?.expose() })?
            }
            VaultAuth::Token(_) => return Err(Failure::configuration("a token is not logged in with")),
        };
        match self.send(request, trace).await {
            Ok(answer) => Ok(answer.json::<Answer<'_>>()?.auth.session()),
            // It is the credentials themselves that are refused, whatever the words: the same ones again would be, too.
            Err(mut failure) if is_refusal(&failure) => {
                failure.kind = ErrorKind::Kms(KmsErrorKind::Credentials);
                Err(failure.again(Again::No))
            }
            Err(failure) => Err(failure),
        }
    }
}

/// Whether the service has answered and does not want to, rather than cannot.
fn is_refusal(failure: &Failure) -> bool {
    matches!(
        failure.kind,
        ErrorKind::Kms(
            KmsErrorKind::AccessDenied | KmsErrorKind::Credentials | KmsErrorKind::KeyNotFound | KmsErrorKind::Rejected
        )
    )
}
