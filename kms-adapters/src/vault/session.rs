//! Tokens: where they come from, and how long they are good for.

use super::{Transit, VaultAuth};
use crate::credentials::SecretText;
use crate::layer::{Again, Attempt, Failure};
use keyfold::{ErrorKind, KmsErrorKind, KmsTrace};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// How long a token is used as it is after a renewal that the service did not answer.
const RENEW_AGAIN_AFTER: Duration = Duration::from_secs(5);

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
    /// A token that can be used: the one in use, renewed if it is time, or another.
    pub(super) async fn token(
        &self,
        session: &Mutex<Option<Session>>,
        trace: Option<&KmsTrace>,
    ) -> Attempt<SecretText> {
        let mut held = session.lock().await;
        if let VaultAuth::Token(source) = &self.config.auth {
            let token = source.read()?;
            if held.as_ref().is_none_or(|session| session.token.expose() != token.expose()) {
                // Renewed at once, which tells how long it is good for.
                *held = Some(Session { token, renew_at: Some(Instant::now()) });
            }
        }
        let current = self.logged_in(&mut held, trace).await?;
        let token = current.token.clone();
        let now = Instant::now();
        if current.renew_at.is_none_or(|at| now < at) {
            return Ok(token);
        }
        // KC-1.
        // Until then the token is used as it is: by others meanwhile, and by everybody if this comes to nothing.
        current.renew_at = Some(now + RENEW_AGAIN_AFTER);
        drop(held);
        // Time is left for the request itself.
        let renewed = match timeout(self.config.limits.attempt / 3, self.renew(&token, trace)).await {
            Ok(Ok(renewed)) => Some(renewed),
            Ok(Err(failure)) if is_refusal(&failure) => match &self.config.auth {
                // Some tokens cannot be renewed: what it is good for, the request itself will show.
                VaultAuth::Token(_) => Some(Session { token: token.clone(), renew_at: None }),
                _ => None,
            },
            // That the service could not tells nothing about the token.
            Ok(Err(_)) | Err(_) => return Ok(token),
        };
        let mut held = session.lock().await;
        // Another thread may have got a new one meanwhile.
        if held.as_ref().is_some_and(|session| session.token.expose() == token.expose()) {
            *held = renewed;
        }
        Ok(self.logged_in(&mut held, trace).await?.token.clone())
    }

    /// The session in use, or that of a login. Only a login is waited for, so that a session is never lost on the way.
    async fn logged_in<'a>(
        &self,
        session: &'a mut Option<Session>,
        trace: Option<&KmsTrace>,
    ) -> Attempt<&'a mut Session> {
        let current = match session.take() {
            Some(current) => current,
            None => self.log_in(trace).await?,
        };
        Ok(session.insert(current))
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
