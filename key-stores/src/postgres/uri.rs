//! What a `postgres://` URI says, read strictly: an option that nobody reads must not look as if it protected something.

use keyfold::{Error, ErrorKind, Result};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use std::borrow::Cow;
use std::fmt;
use std::io::Read;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use url::Url;

const SCHEMA: &str = "keyfold";
/// PostgreSQL's limit on the length of a name.
const MAX_NAME_LEN: usize = 63;
/// Seconds that one operation may take, connecting included.
const DEADLINE: u64 = 10;
const DEADLINES: RangeInclusive<u64> = 1..=300;
/// Connections of one store.
const CONNECTION_COUNT: u64 = 8;
const CONNECTION_COUNTS: RangeInclusive<u64> = 1..=1000;
const MAX_PASSWORD_FILE_LEN: u64 = 1024;

/// How to reach a PostgreSQL database, by the rules of docs/POSTGRES.md: TLS that verifies certificate and name unless the URI
/// names something weaker, no unknown option. `Debug` and `Display` name the server, database and schema, never the password.
pub struct Settings {
    pub(super) options: PgConnectOptions,
    pub(super) schema: String,
    pub(super) deadline: Duration,
    pub(super) connection_count: usize,
    /// Whether there is a password, wherever it came from.
    pub(super) has_password: bool,
    server: String,
}

impl Settings {
    /// Reads the `uri` of a store; the paths in it are relative to `folder`.
    pub(super) fn parse(uri: &str, folder: &Path) -> Result<Self> {
        Self::parse_with(uri, folder, SCHEMA)
    }

    /// Reads `uri`; the paths in it are relative to `folder`, and `schema` is the one where it names none.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): the URI, or a file that it names.
    pub fn parse_with(uri: &str, folder: &Path, schema: &str) -> Result<Self> {
        let (mut url, parts) = split(uri)?;
        url.set_query(None);
        // Takes user, password, host and database from the URI. The environment may add what the URI leaves out: the
        // password (PGPASSWORD or a passfile) and certificates (PGSSLROOTCERT, PGSSLCERT, PGSSLKEY), but no TLS mode.
        let mut options = PgConnectOptions::from_url(&url)
            .map_err(|_| wrong("the URI of the store is not one of PostgreSQL: postgres://USER@HOST/DATABASE", ""))?
            .application_name("keyfold")
            .disable_statement_logging();
        let database = url.path().trim_start_matches('/');
        if database.is_empty() || url.username().is_empty() || url.host_str().is_none_or(str::is_empty) {
            return Err(wrong(
                "the URI of the store must name user, host and database: postgres://USER@HOST/DATABASE",
                "",
            ));
        }
        // The driver has looked everywhere. It cannot make a URL of any odd name: with those, one is assumed.
        let odd = url.username().contains('%') || url.host_str().is_none_or(|host| host.contains('%'));
        let mut has_password = odd || options.to_url_lossy().password().is_some();
        let mut schema = Cow::Borrowed(schema);
        let (mut deadline, mut connection_count) = (DEADLINE, CONNECTION_COUNT);
        let mut ssl_mode = None;
        for (name, value) in parts {
            match name.as_str() {
                "schema" => schema = Cow::Owned(value),
                "deadline" => deadline = number(&name, &value, DEADLINES)?,
                "connections" => connection_count = number(&name, &value, CONNECTION_COUNTS)?,
                "sslmode" => ssl_mode = Some(value),
                "sslrootcert" => options = options.ssl_root_cert(existing(folder, &value)?),
                "sslcert" => options = options.ssl_client_cert(existing(folder, &value)?),
                "sslkey" => options = options.ssl_client_key(existing(folder, &value)?),
                "application_name" => options = options.application_name(&value),
                "password_file" if url.password().is_some() => {
                    return Err(wrong("the URI of the store gives both a password and a password_file", ""));
                }
                "password_file" => {
                    options = options.password(&read_password(&folder.join(value))?);
                    has_password = true;
                }
                _ => return Err(wrong("the URI of the store has an option that keyfold does not know", &name)),
            }
        }
        check_name(&schema)?;
        let host = url.host_str().unwrap_or_default();
        let mode = mode(ssl_mode.as_deref(), host)?;
        Ok(Self {
            options: options.ssl_mode(mode),
            server: format!("{host}:{}{}", url.port().unwrap_or(5432), url.path()),
            schema: schema.into_owned(),
            has_password,
            deadline: Duration::from_secs(deadline),
            connection_count: usize::try_from(connection_count).unwrap_or(usize::MAX),
        })
    }

    /// What the driver connects with. Holds the password.
    #[must_use]
    pub const fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// How long one operation may take, connecting included.
    #[must_use]
    pub const fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The schema.
    #[must_use]
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// Host, port and database.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, schema {}", self.server, self.schema)
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Settings({self})")
    }
}

/// The files that a URI names, such as those of certificates.
pub(super) fn files(uri: &str, folder: &Path) -> Result<Vec<PathBuf>> {
    let (_, parts) = split(uri)?;
    let names_file = |name: &str| matches!(name, "sslrootcert" | "sslcert" | "sslkey" | "password_file");
    Ok(parts.into_iter().filter(|(name, _)| names_file(name)).map(|(_, value)| folder.join(value)).collect())
}

fn split(uri: &str) -> Result<(Url, Vec<(String, String)>)> {
    // What cannot be parsed may hold a password anywhere, so no part of it is repeated.
    let url = Url::parse(uri).map_err(|error| wrong("the URI of the store cannot be read", &error.to_string()))?;
    if !matches!(url.scheme(), "postgres" | "postgresql") || url.fragment().is_some() {
        return Err(wrong("the URI of the store is not one of PostgreSQL: postgres://USER@HOST/DATABASE", ""));
    }
    let parts: Vec<(String, String)> =
        url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    for (i, (name, _)) in parts.iter().enumerate() {
        if parts[..i].iter().any(|(other, _)| other == name) {
            return Err(wrong("the URI of the store has an option twice", name));
        }
    }
    Ok((url, parts))
}

/// TLS that verifies certificate and name, unless the URI names something weaker.
fn mode(named: Option<&str>, host: &str) -> Result<PgSslMode> {
    // The folder of a Unix socket stands in place of the host, with its slashes encoded.
    let socket = host.to_ascii_uppercase().starts_with("%2F");
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let local = socket || host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    match named {
        // A Unix socket has no TLS, and nobody between.
        None | Some("disable") if socket => Ok(PgSslMode::Disable),
        None | Some("verify-full") if !socket => Ok(PgSslMode::VerifyFull),
        Some("require") if !socket => {
            tracing::warn!("sslmode=require: the server of the key store is not authenticated");
            Ok(PgSslMode::Require)
        }
        Some("disable") if local => Ok(PgSslMode::Disable),
        Some("disable") => Err(wrong(
            "sslmode=disable is for this machine only (a loopback address or a Unix socket); use verify-full",
            host,
        )),
        _ => Err(wrong(
            "the sslmode of the store is none of verify-full (the default), require and disable, \
             or a Unix socket has one",
            "",
        )),
    }
}

fn check_name(schema: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let good = !schema.is_empty()
        && schema.len() <= MAX_NAME_LEN
        && schema.bytes().all(allowed)
        && !schema.as_bytes()[0].is_ascii_digit()
        && !schema.starts_with("pg_");
    if good {
        return Ok(());
    }
    Err(wrong("the schema of the store is 1 to 63 of a-z, 0-9 and _, and starts with neither a digit nor pg_", schema))
}

fn number(name: &str, value: &str, range: RangeInclusive<u64>) -> Result<u64> {
    value.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        let expected = format!("{name} is a number from {} to {}", range.start(), range.end());
        wrong("an option in the URI of the store is out of range", &expected)
    })
}

fn existing(folder: &Path, file: &str) -> Result<PathBuf> {
    let path = folder.join(file);
    match path.metadata() {
        Ok(_) => Ok(path),
        Err(error) => Err(cannot_read(&path, error)),
    }
}

/// The first line of a file that only its owner reads.
fn read_password(path: &Path) -> Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| cannot_read(path, error))?;
    let mode = file.metadata().map_err(|error| cannot_read(path, error))?.mode();
    if mode & 0o077 != 0 {
        let path = path.display();
        return Err(wrong("others can read the password of the store", &format!("run: chmod 600 {path}")));
    }
    file.take(MAX_PASSWORD_FILE_LEN).read_to_string(&mut text).map_err(|error| cannot_read(path, error))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(wrong("the password file of the store is empty", &path.display().to_string()));
    }
    Ok(line.to_owned())
}

fn cannot_read(path: &Path, error: std::io::Error) -> Error {
    wrong("a file that the URI of the store names cannot be read", &format!("{}: {error}", path.display()))
        .with_source(error)
}

fn wrong(message: &'static str, detail: &str) -> Error {
    let error = Error::new(ErrorKind::Configuration, message);
    if detail.is_empty() { error } else { error.with_detail(detail) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn parse(uri: &str) -> Result<Settings> {
        Settings::parse(uri, Path::new("/nowhere"))
    }

    fn refusal(uri: &str) -> String {
        let error = parse(uri).expect_err(uri);
        assert_eq!(error.kind(), ErrorKind::Configuration, "{uri}");
        let text = format!("{error} {error:?}");
        assert!(!text.contains("hunter2"), "{text}");
        text
    }

    #[test]
    fn tls_verifies_everything_unless_the_uri_says_otherwise() {
        let mode = |uri: &str| format!("{:?}", parse(uri).expect(uri).options.get_ssl_mode());
        assert_eq!(mode("postgres://u@db.example/d"), "VerifyFull");
        assert_eq!(mode("postgresql://u@127.0.0.1/d"), "VerifyFull");
        assert_eq!(mode("postgres://u@db.example/d?sslmode=require"), "Require");
        for local in ["127.0.0.1", "127.9.9.9:5555", "localhost", "[::1]"] {
            assert_eq!(mode(&format!("postgres://u@{local}/d?sslmode=disable")), "Disable");
        }
        assert_eq!(mode("postgres://u@%2frun%2Fpostgresql/d"), "Disable");
        for elsewhere in ["db.example", "10.0.0.1", "localhost.example", "[2001:db8::1]"] {
            let text = refusal(&format!("postgres://u:hunter2@{elsewhere}/d?sslmode=disable"));
            assert!(text.contains("loopback"), "{text}");
        }
        for weak in ["prefer", "allow", "verify-ca", "", "VERIFY-FULL"] {
            assert!(refusal(&format!("postgres://u:hunter2@db.example/d?sslmode={weak}")).contains("sslmode"));
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_without_repeating_a_password() {
        for (uri, says) in [
            ("postgres://u:hunter2@h/d?slmode=require", "slmode"),
            ("postgres://u:hunter2@h/d?schema=a&schema=b", "twice"),
            ("postgres://u:hunter2@h/d?schema=a\"; DROP", "1 to 63"),
            ("postgres://u:hunter2@h/d?schema=pg_x", "1 to 63"),
            ("postgres://u:hunter2@h/d?schema=", "1 to 63"),
            ("postgres://u:hunter2@h/d?schema=Keys", "1 to 63"),
            ("postgres://u:hunter2@h/d?deadline=0", "1 to 300"),
            ("postgres://u:hunter2@h/d?connections=x", "1 to 1000"),
            ("postgres://u:hunter2@h", "must name"),
            ("postgres://h/d", "must name"),
            ("postgres:///d", "must name"),
            ("postgres://u:hunter2@/d", "cannot be read"),
            ("postgres://u:hunter2@%2Frun/d?sslmode=verify-full", "Unix socket"),
            ("postgres://u:hunter2@h/d?sslrootcert=absent.pem", "absent.pem"),
            ("postgres://u:hunter2@h/d?password_file=absent", "both"),
            ("postgres://u:hunter2@h:port/d", "cannot be read"),
            ("mysql://u:hunter2@h/d", "PostgreSQL"),
            ("postgres://u:hunter2@h/d#x", "PostgreSQL"),
        ] {
            assert!(refusal(uri).contains(says), "{uri}: {}", refusal(uri));
        }
    }

    #[test]
    fn nothing_shows_the_password() {
        let settings = parse("postgres://u:hunter2@h:77/d?schema=clinic").expect("good");
        assert_eq!(settings.to_string(), "h:77/d, schema clinic");
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[test]
    fn a_password_file_is_the_owners_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pw");
        std::fs::write(&path, "hunter2\n").expect("written");
        let uri = "postgres://u@h/d?password_file=pw";
        let chmod = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        chmod(0o640);
        assert!(Settings::parse(uri, folder.path()).expect_err("readable").to_string().contains("chmod 600"));
        chmod(0o600);
        let settings = Settings::parse(uri, folder.path()).expect("good");
        assert!(format!("{:?}", settings.options).contains("hunter2"), "the password was not taken");
        std::fs::write(&path, "\n").expect("written");
        assert!(Settings::parse(uri, folder.path()).expect_err("empty").to_string().contains("empty"));
        assert_eq!(files(uri, Path::new("/etc")).expect("good"), [PathBuf::from("/etc/pw")]);
    }
}
