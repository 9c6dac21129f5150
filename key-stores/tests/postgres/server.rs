//! The server that tests are given, and schemas in it.

use keyfold::{ErrorKind, Lineage, Result};
use keyfold_store::PostgresStore;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow, PgSslMode};
use sqlx::{ConnectOptions, Executor, Row};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use url::Url;

pub(crate) const OURS: Lineage = Lineage::from_bytes([1; 16]);

#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) uri: Url,
    pub(crate) ca: String,
}

impl Server {
    /// `None`, said aloud, where there is no server.
    pub(crate) fn given() -> Option<Self> {
        let Ok(uri) = std::env::var("KEYFOLD_TEST_POSTGRES") else {
            // Not by `println!`, which the test harness swallows where a test passes.
            let _ = writeln!(
                std::io::stdout(),
                "\nSKIPPED {}: KEYFOLD_TEST_POSTGRES names no PostgreSQL server",
                std::thread::current().name().unwrap_or_default()
            );
            return None;
        };
        let ca = std::env::var("KEYFOLD_TEST_POSTGRES_CA").expect("KEYFOLD_TEST_POSTGRES_CA names the CA");
        Some(Self { uri: uri.parse().expect("a URI"), ca })
    }

    pub(crate) fn password(&self) -> String {
        self.uri.password().expect("a password").to_owned()
    }

    /// A schema that no other test uses.
    pub(crate) fn schema(&self) -> Schema {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Schema { server: self.clone(), name: format!("test_{}_{number}", std::process::id()) }
    }

    /// Runs SQL as the administrator.
    pub(crate) fn sql(&self, sql: &str) -> Vec<PgRow> {
        self.try_sql(sql).expect("the SQL works")
    }

    pub(crate) fn try_sql(&self, sql: &str) -> Result<Vec<PgRow>, sqlx::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { self.connect().await?.fetch_all(sqlx::raw_sql(sql)).await })
    }

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let options = PgConnectOptions::from_url(&self.uri)?.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(&self.ca);
        options.connect().await
    }
}

/// Dropped with what is in it when the test ends.
pub(crate) struct Schema {
    pub(crate) server: Server,
    pub(crate) name: String,
}

impl Drop for Schema {
    fn drop(&mut self) {
        let _ = self.server.try_sql(&format!("DROP SCHEMA IF EXISTS {} CASCADE", self.name));
    }
}

impl Schema {
    /// The URI of a store in this schema, with `change` made.
    pub(crate) fn uri_with(&self, change: impl FnOnce(&mut Url)) -> String {
        let mut uri = self.server.uri.clone();
        uri.query_pairs_mut().append_pair("schema", &self.name).append_pair("sslrootcert", &self.server.ca);
        change(&mut uri);
        uri.into()
    }

    pub(crate) fn uri(&self) -> String {
        self.uri_with(|_| {})
    }

    pub(crate) fn create(&self) -> PostgresStore {
        PostgresStore::create(&self.uri(), here()).expect("created")
    }

    pub(crate) fn open(&self) -> PostgresStore {
        PostgresStore::open(&self.uri(), here()).expect("opened")
    }

    /// Runs SQL in the schema, as the administrator.
    pub(crate) fn sql(&self, sql: &str) -> Vec<PgRow> {
        self.try_sql(sql).expect("the SQL works")
    }

    pub(crate) fn try_sql(&self, sql: &str) -> Result<Vec<PgRow>, sqlx::Error> {
        self.server.try_sql(&format!("SET search_path = {}; {sql}", self.name))
    }

    pub(crate) fn number(&self, sql: &str) -> i64 {
        let rows = self.sql(sql);
        // The simple protocol answers in text.
        rows.last().expect("a row").try_get_unchecked::<i64, _>(0).expect("a number")
    }
}

pub(crate) fn here() -> &'static Path {
    Path::new(".")
}

/// The text of a refusal that is the store's.
#[track_caller]
pub(crate) fn refusal<T>(result: Result<T>) -> String {
    let Err(error) = result else { panic!("accepted") };
    assert_eq!(error.kind(), ErrorKind::Store, "{error}");
    // Debug shows what a log would.
    format!("{error} {error:?}")
}
