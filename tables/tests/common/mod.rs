//! Databases for the tests: an SQLite file, and a schema of the PostgreSQL server that they are given.
#![allow(dead_code, reason = "every test program uses a part of this")]

use keyfold::Result;
use keyfold_tables::{Access, Extent, Location, Row, Table, TableName};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Executor};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// What the same test is run on.
pub(crate) struct Database {
    folder: TempDir,
    server: Option<(String, String)>,
    pub(crate) uri: String,
    pub(crate) schema: String,
}

/// Both databases, or SQLite alone, said aloud, where there is no server.
pub(crate) fn databases() -> Vec<Database> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut databases = vec![Database {
        uri: format!("sqlite:{}/data.db", folder.path().display()),
        folder,
        server: None,
        schema: "main".to_owned(),
    }];
    match std::env::var("KEYFOLD_TEST_POSTGRES") {
        Err(_) => {
            let _ = writeln!(
                std::io::stdout(),
                "\nSKIPPED {}: KEYFOLD_TEST_POSTGRES names no PostgreSQL server",
                std::thread::current().name().unwrap_or_default()
            );
        }
        Ok(uri) => {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let ca = std::env::var("KEYFOLD_TEST_POSTGRES_CA").expect("KEYFOLD_TEST_POSTGRES_CA names the CA");
            let schema = format!("tables_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
            let folder = tempfile::tempdir().expect("a folder");
            let full = format!("{uri}?sslrootcert={ca}&schema={schema}");
            let database = Database { folder, server: Some((uri, ca)), uri: full, schema };
            database.sql(&format!("CREATE SCHEMA {}", database.schema));
            databases.push(database);
        }
    }
    databases
}

impl Database {
    pub(crate) fn is_postgres(&self) -> bool {
        self.server.is_some()
    }

    /// The type of binary columns.
    pub(crate) fn bytes(&self) -> &'static str {
        if self.is_postgres() { "BYTEA" } else { "BLOB" }
    }

    /// Bytes as a literal.
    pub(crate) fn literal(&self, hex: &str) -> String {
        if self.is_postgres() { format!("'\\x{hex}'") } else { format!("x'{hex}'") }
    }

    /// Runs SQL that works on both, as another client.
    pub(crate) fn sql(&self, sql: &str) {
        let Some((uri, ca)) = &self.server else {
            let connection = rusqlite::Connection::open(self.folder.path().join("data.db")).expect("opened");
            connection.busy_timeout(std::time::Duration::from_secs(10)).expect("set");
            return connection.execute_batch(sql).expect("the SQL works");
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let options: PgConnectOptions = uri.parse().expect("a URI");
            let options = options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(ca);
            let mut connection = options.connect().await.expect("connected");
            let path = format!("SET search_path = {}", self.schema);
            connection.execute(sqlx::raw_sql(&path)).await.expect("set");
            // Apart from the above: some statements are allowed alone only.
            connection.execute(sqlx::raw_sql(sql)).await.expect("the SQL works");
        });
    }

    /// The whole table, in the order of its key.
    pub(crate) fn rows(&self, table: &str, key: &str, columns: &[&str]) -> Vec<Row> {
        let mut table = self.open(table, key, columns).expect("opened");
        table.page(None, 100_000, Extent::Whole).expect("rows")
    }

    pub(crate) fn open(&self, table: &str, key: &str, columns: &[&str]) -> Result<Table> {
        let table: TableName = table.parse()?;
        let columns: Vec<String> = columns.iter().map(|&name| name.to_owned()).collect();
        let folder: &Path = self.folder.path();
        let location = Location { uri: &self.uri, folder, table: &table, key, columns: &columns };
        Table::open(&location, Access::Write)
    }

    /// The table as another role of the server sees it, whose password is `x`.
    pub(crate) fn as_role(&self, role: &str, table: &str, key: &str, columns: &[&str]) -> Table {
        let (uri, ca) = self.server.as_ref().expect("a server");
        let host = uri.rsplit_once('@').expect("a host").1;
        let uri = format!("postgres://{role}:x@{host}?sslrootcert={ca}&schema={}", self.schema);
        let columns: Vec<String> = columns.iter().map(|&name| name.to_owned()).collect();
        let table: TableName = table.parse().expect("a name");
        let location = Location { uri: &uri, folder: self.folder.path(), table: &table, key, columns: &columns };
        Table::open(&location, Access::Read).expect("opened")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.is_postgres() {
            self.sql(&format!("DROP SCHEMA IF EXISTS {} CASCADE", self.schema));
        }
    }
}
