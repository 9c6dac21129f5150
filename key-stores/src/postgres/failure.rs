//! Sorting what the database says into errors that tell what to do.

use super::uri::Settings;
use keyfold::{Error, ErrorKind};

/// Why an operation did not happen.
pub(super) enum Failure {
    /// The database or the way to it failed.
    Database(sqlx::Error),
    /// Keyfold's own rules forbid it; the connection is good.
    Refused(Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl Failure {
    /// The SQLSTATE, where the database itself answered.
    fn code(&self) -> Option<String> {
        match self {
            Self::Database(sqlx::Error::Database(error)) => error.code().map(|code| code.into_owned()),
            _ => None,
        }
    }

    pub(super) fn is(&self, code: &str) -> bool {
        self.code().is_some_and(|found| found == code)
    }

    /// Two transactions were in each other's way and this one was rolled back: it may succeed if repeated.
    pub(super) fn may_repeat(&self) -> bool {
        self.is(SERIALIZATION) || self.is(DEADLOCK)
    }

    /// The error for the caller. `needs` names the privileges that the operation takes.
    pub(super) fn into_error(self, settings: &Settings, needs: &str) -> Error {
        let error = match self {
            Self::Refused(error) => return error,
            Self::Database(error) => error,
        };
        let store = |message| Error::new(ErrorKind::Store, message);
        match error {
            sqlx::Error::Database(error) => {
                let code = error.code().unwrap_or_default().into_owned();
                // Only the primary message: its "detail" holds the values of rows, and so does the error's Debug form.
                let said = format!("{settings}: {} (SQLSTATE {code})", error.message());
                if code == PASSWORD && !settings.has_password {
                    return store("the key store's database asks for a password, and none was found")
                        .with_detail(format!("{settings}: looked in {PASSWORD_PLACES}"));
                }
                let detail = if code == PRIVILEGE { format!("{said}; this needs {needs}") } else { said };
                store(meaning(&code)).with_detail(detail)
            }
            // What the handshake finds comes as this kind of I/O error.
            sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                store(TLS).with_detail(format!("{settings}: {error}")).with_source(error)
            }
            sqlx::Error::Tls(error) => store(TLS).with_detail(format!("{settings}: {error}")).with_source(error),
            sqlx::Error::Io(error) => {
                store("the key store cannot be reached").with_detail(format!("{settings}: {error}")).with_source(error)
            }
            // A connection that ends in the middle of the greeting comes as this.
            error @ sqlx::Error::Protocol(_) => {
                store("the key store cannot be reached, or what answers there is not PostgreSQL")
                    .with_detail(format!("{settings}: {error}"))
            }
            error @ (sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) => {
                store("the key store holds a row of another type or length than keyfold writes")
                    .with_detail(format!("{settings}: {error}"))
            }
            error => store("the key store failed").with_detail(format!("{settings}: {error}")),
        }
    }
}

pub(super) fn no_answer(settings: &Settings) -> Error {
    let seconds = settings.deadline.as_secs();
    Error::new(ErrorKind::Store, "the key store did not answer in time")
        .with_detail(format!("{settings}: {seconds} s; deadline=SECONDS in its URI changes that"))
}

/// SQLSTATE codes, from PostgreSQL's Appendix A.
pub(super) const CHECK: &str = "23514";
pub(super) const LOCK: &str = "55P03";
pub(super) const NO_TABLE: &str = "42P01";
pub(super) const PRIVILEGE: &str = "42501";
const PASSWORD: &str = "28P01";
const SERIALIZATION: &str = "40001";
const DEADLOCK: &str = "40P01";

const PASSWORD_PLACES: &str =
    "password_file and the password of the URI, PGPASSWORD, and the passfile (PGPASSFILE, or else ~/.pgpass)";

const TLS: &str =
    "the TLS connection to the key store failed: check its certificate, sslrootcert and the name of the host";

fn meaning(code: &str) -> &'static str {
    match code {
        PRIVILEGE => "the key store's database role lacks a privilege (docs/POSTGRES.md lists them)",
        "25006" => {
            "the key store's database is read only: a standby, or default_transaction_read_only; name the primary in the URI"
        }
        PASSWORD | "28000" => "the key store's database refused the user or the password",
        "3D000" => "the key store's database does not exist",
        NO_TABLE | "3F000" => super::schema::NO_STORE,
        "53100" => "the disk of the key store is full",
        "53200" => "the key store's database is out of memory",
        "53300" => "the key store's database has no connection left",
        "57014" | LOCK | "25P03" => "the key store did not answer in time",
        SERIALIZATION | DEADLOCK => "the key store is too busy with changes of the same keys",
        "XX001" | "XX002" | "58030" => "the key store is damaged; restore it from a backup",
        _ if code.starts_with("57P") => "the key store's database is shutting down or starting",
        _ if code.starts_with("23") => "the key store's constraints refused a row; this is a bug",
        _ => "the key store failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_cannot_be_made_to_say_in_a_test_has_a_meaning_too() {
        for (code, word) in [
            ("53100", "disk"),
            ("53200", "memory"),
            ("53300", "connection"),
            ("57014", "in time"),
            ("57P03", "starting"),
            ("XX001", "damaged"),
            ("99999", "failed"),
        ] {
            assert!(meaning(code).contains(word), "{code}");
        }
    }
}
