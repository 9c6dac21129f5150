//! The version of the tables, and the migrations that lead to it.

use super::failure::{Failure, NO_TABLE};
use super::uri::Settings;
use keyfold::{Error, ErrorKind};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor, Row};

/// In order; each is applied once, in one transaction with the entry that says so. Never edited after a release.
const MIGRATIONS: [&str; 2] =
    [include_str!("migrations/0001_tables.sql"), include_str!("migrations/0002_no_statistics.sql")];
/// The version that this build reads and writes.
const VERSION: i32 = 2;
const _: () = assert!(MIGRATIONS.len() == VERSION as usize);

pub(super) const NO_STORE: &str = "the database has no key store in that schema that this role can see: `keyfold migrate --store URI` makes one, as the \
     schema's owner; other roles need the GRANTs of docs/POSTGRES.md";
/// What `open` needs.
pub(super) const READ_VERSION: &str = "the GRANTs of docs/POSTGRES.md part 2 for this role, made after `keyfold migrate` \
     has made the tables; never the owner's role";
/// What `create` needs where there is something to do, and of a role that only has to find that there is nothing.
pub(super) const MIGRATE: &str = "to make or update tables, the owner of the schema (or CREATE on the database where the \
     schema is missing), for `keyfold migrate` alone; for a keyring in tables that exist, the GRANTs of docs/POSTGRES.md part 2";

/// # Errors
///
/// The database failed, or the tables have another version than this build.
pub(super) async fn check(connection: &mut PgConnection, settings: &Settings) -> Result<(), Failure> {
    let about = |message| Error::new(ErrorKind::Store, message);
    match version(connection).await? {
        Some(VERSION) => Ok(()),
        Some(found) if found < VERSION => Err(about(
            "the key store was written by an older keyfold: `keyfold migrate --store URI` updates its tables, as their owner",
        )
        .with_detail(format!("{settings}: version {found}, this build knows {VERSION}"))
        .into()),
        Some(found) => {
            Err(about("the key store was written by a newer keyfold; use that version. It was not changed")
                .with_detail(format!("{settings}: version {found}, this build knows {VERSION}"))
                .into())
        }
        None => Err(about(NO_STORE).with_detail(settings.to_string()).into()),
    }
}

/// The version of the tables; `None` where there are none.
async fn version(connection: &mut PgConnection) -> Result<Option<i32>, Failure> {
    let found = sqlx::query("SELECT max(version) FROM migrations").persistent(false).fetch_one(connection).await;
    match found.map_err(Failure::from) {
        Ok(row) => Ok(row.try_get(0)?),
        Err(error) if error.is(NO_TABLE) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes the schema and its tables, or brings older ones up to date. Processes that do it at once wait for each other.
/// Touches nothing, and needs no more than reading, where the version is right.
pub(super) async fn migrate(connection: &mut PgConnection, settings: &Settings) -> Result<(), Failure> {
    if version(connection).await? == Some(VERSION) {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('keyfold migrations ' || $1, 0))")
        .bind(settings.schema.clone())
        .execute(&mut *transaction)
        .await?;
    let exists = sqlx::query("SELECT to_regnamespace($1) IS NOT NULL, to_regclass($1 || '.migrations') IS NOT NULL")
        .bind(settings.schema.clone())
        .fetch_one(&mut *transaction)
        .await?;
    // Checked first, since IF NOT EXISTS asks for the privilege all the same. The name was checked when it was read.
    if !exists.try_get::<bool, _>(0)? {
        let create = format!("CREATE SCHEMA \"{}\"", settings.schema);
        transaction.execute(sqlx::raw_sql(&create)).await?;
    }
    // Tables go into the first schema of the path that is not PostgreSQL's own.
    sqlx::query("SELECT set_config('search_path', $1, true)")
        .bind(format!("\"{}\"", settings.schema))
        .execute(&mut *transaction)
        .await?;
    if !exists.try_get::<bool, _>(1)? {
        let table =
            "CREATE TABLE migrations (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())";
        transaction.execute(sqlx::raw_sql(table)).await?;
    }
    let applied = version(&mut transaction).await?.unwrap_or(0);
    for (number, migration) in (1..).zip(MIGRATIONS).filter(|(number, _)| *number > applied) {
        transaction.execute(sqlx::raw_sql(migration)).await?;
        sqlx::query("INSERT INTO migrations (version) VALUES ($1)").bind(number).execute(&mut *transaction).await?;
        tracing::info!(schema = settings.schema, version = number, "migrated the key store");
    }
    transaction.commit().await?;
    Ok(())
}
