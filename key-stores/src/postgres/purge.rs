//! Putting many records back, and making the bytes of replaced ones disappear.

use super::failure::{Failure, LOCK, PRIVILEGE};
use super::statements::{read, update_many};
use crate::memory::conflict;
use crate::row::Columns;
use keyfold::{Error, ErrorKind, Record, RecordChange, Remainder};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Executor, Row};
use std::collections::HashMap;

type Result<T, E = Failure> = std::result::Result<T, E>;

const TABLE: &str = "store";
const LOG: &str = "write-ahead log";
/// What re-reading the remainders needs.
pub(super) const PURGES: &str = "the owner's role, with pg_monitor, for VACUUM FULL and to see what is left of the log";

const STORED: &str = "SELECT lineage, key_id, class, slot, generation, scope_tag, state, sequence, record FROM records \
                      WHERE lineage = $1 AND key_id = ANY($2) FOR UPDATE";
const ADD_SCOPES: &str = "INSERT INTO scopes (lineage, scope_tag, slot) SELECT DISTINCT * FROM \
                          unnest($1::bytea[], $2::bytea[], $3::bytea[]) ON CONFLICT DO NOTHING";
const OTHER_SCOPE: &str = "SELECT c.slot FROM unnest($1::bytea[], $2::bytea[], $3::bytea[]) AS c (lineage, scope_tag, slot) \
                           JOIN scopes s ON s.lineage = c.lineage AND s.scope_tag = c.scope_tag WHERE s.slot <> c.slot LIMIT 1";
const ADD: &str = "INSERT INTO records (lineage, key_id, class, slot, generation, scope_tag, state, sequence, record) \
    SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::smallint[], $4::bytea[], $5::bigint[], $6::bytea[], $7::smallint[], \
                         $8::bigint[], $9::bytea[]) ON CONFLICT DO NOTHING";

pub(super) async fn restore(connection: &mut PgConnection, records: &[Record]) -> Result<()> {
    let mut transaction = connection.begin().await?;
    match restore_in(&mut transaction, records).await {
        Ok(()) => Ok(transaction.commit().await?),
        Err(refused @ Failure::Refused(_)) => {
            transaction.rollback().await?;
            Err(refused)
        }
        Err(error) => Err(error),
    }
}

async fn restore_in(connection: &mut PgConnection, records: &[Record]) -> Result<()> {
    let Some(first) = records.first() else { return Ok(()) };
    let key_ids: Vec<_> = records.iter().map(|record| record.key_id().as_bytes().to_vec()).collect();
    let lineage = first.lineage();
    let rows = sqlx::query(STORED).bind(lineage.as_bytes().as_slice()).bind(key_ids);
    let rows = rows.fetch_all(&mut *connection).await?;
    let stored: Vec<Record> = rows.iter().map(read).collect::<Result<_>>()?;
    let stored: HashMap<_, _> = stored.into_iter().map(|record| (record.key_id(), record)).collect();
    let new: Vec<_> = records.iter().filter(|record| !stored.contains_key(&record.key_id())).collect();
    let columns: Vec<Columns> = new.iter().map(|record| Columns::of(record)).collect::<keyfold::Result<_>>()?;
    let scopes: Vec<_> = columns.iter().filter_map(|c| Some((c, c.scope_tag.as_ref()?))).collect();
    // The first returns nothing.
    for sql in [ADD_SCOPES, OTHER_SCOPE] {
        let query = sqlx::query(sql)
            .bind(scopes.iter().map(|(c, _)| c.lineage.as_slice()).collect::<Vec<_>>())
            .bind(scopes.iter().map(|(_, tag)| tag.as_slice()).collect::<Vec<_>>())
            .bind(scopes.iter().map(|(c, _)| c.slot.as_slice()).collect::<Vec<_>>());
        if query.fetch_optional(&mut *connection).await?.is_some() {
            return Err(conflict("a scope tag belongs to another scope", first).into());
        }
    }
    let query = sqlx::query(ADD)
        .bind(columns.iter().map(|c| c.lineage.as_slice()).collect::<Vec<_>>())
        .bind(columns.iter().map(|c| c.key_id.as_slice()).collect::<Vec<_>>())
        .bind(columns.iter().map(|c| i16::from(c.class)).collect::<Vec<_>>())
        .bind(columns.iter().map(|c| c.slot.as_slice()).collect::<Vec<_>>())
        .bind(columns.iter().map(|c| i64::from(c.generation)).collect::<Vec<_>>())
        .bind(columns.iter().map(|c| c.scope_tag.as_ref().map(<[u8; 32]>::as_slice)).collect::<Vec<_>>())
        .bind(columns.iter().map(|c| i16::from(c.state)).collect::<Vec<_>>())
        .bind(columns.iter().map(|c| c.sequence).collect::<Vec<_>>())
        .bind(new.iter().map(|record| record.as_bytes()).collect::<Vec<_>>());
    let added = query.execute(&mut *connection).await?.rows_affected();
    let changes: Vec<RecordChange> = records
        .iter()
        .filter_map(|record| {
            let present = stored.get(&record.key_id()).filter(|present| record.outranks(present))?;
            Some(RecordChange { record: record.clone(), expected_sequence: present.sequence() })
        })
        .collect();
    let others = if changes.is_empty() { Vec::new() } else { update_many(connection, &changes).await? };
    if added != new.len() as u64 || !others.is_empty() {
        return Err(
            Error::new(ErrorKind::Conflict, "others changed the same keys, or a key belongs to another scope").into()
        );
    }
    Ok(())
}

/// Rewrites the table, and says up to where the log has what was in it.
pub(super) async fn purge(connection: &mut PgConnection, pending: &[Remainder]) -> Result<Vec<Remainder>> {
    let find = |place: &str| pending.iter().find(|remainder| remainder.place == place);
    let mut remainders = Vec::new();
    if pending.is_empty() || find(TABLE).is_some() {
        remainders.push(purge_table(connection, find(TABLE)).await?);
    }
    if pending.is_empty() || find(LOG).is_some() {
        let table_is_gone = remainders.first().is_none_or(|table| table.gone);
        remainders.push(look_at_log(connection, find(LOG), table_is_gone).await?);
    }
    Ok(remainders)
}

async fn purge_table(connection: &mut PgConnection, before: Option<&Remainder>) -> Result<Remainder> {
    let file_before = match before.map(|remainder| remainder.mark.clone()).filter(|mark| !mark.is_empty()) {
        Some(mark) => mark,
        None => file_of_table(connection).await?,
    };
    if file_of_table(connection).await? == file_before && !vacuum(connection).await? {
        let detail =
            "not rewritten: others use the table for too long; end their transactions, then confirm".to_owned();
        return Ok(Remainder { place: TABLE.to_owned(), gone: false, detail, mark: file_before });
    }
    let rewritten = file_of_table(connection).await? != file_before;
    let (gone, detail) = match rewritten {
        false => (false, "not rewritten: run `VACUUM FULL records` as the owner of the table, then confirm".to_owned()),
        true => match old_snapshots(connection).await? {
            Some(0) => (true, "the table's files were written anew (VACUUM FULL)".to_owned()),
            Some(count) => (
                false,
                format!(
                    "rewritten, but {count} sessions or slots can see rows from before, which stay in it: end them and confirm"
                ),
            ),
            None => (
                false,
                "rewritten; whether sessions that see older rows kept them in it can only be told with pg_monitor"
                    .to_owned(),
            ),
        },
    };
    // Where old rows may have been kept, it is to be rewritten once more.
    let mark = if gone || !rewritten { file_before } else { file_of_table(connection).await? };
    Ok(Remainder { place: TABLE.to_owned(), gone, detail, mark })
}

/// Rewrites the table, unless others keep it from being locked. Without the owner's role the server warns and does nothing.
async fn vacuum(connection: &mut PgConnection) -> Result<bool> {
    // It may take longer than an operation of a service, but everybody waits while it waits for its lock.
    let patience: String =
        sqlx::query("SELECT current_setting('statement_timeout')").fetch_one(&mut *connection).await?.try_get(0)?;
    connection.execute(sqlx::raw_sql("SET statement_timeout = 0; SET lock_timeout = '5s'")).await?;
    let vacuumed = connection.execute(sqlx::raw_sql("VACUUM FULL records")).await.map_err(Failure::from);
    let query =
        sqlx::query("SELECT set_config('statement_timeout', $1, false), set_config('lock_timeout', '0', false)");
    query.bind(patience).execute(connection).await?;
    match vacuumed {
        Ok(_) => Ok(true),
        Err(error) if error.is(LOCK) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn file_of_table(connection: &mut PgConnection) -> Result<String> {
    let row = sqlx::query("SELECT pg_relation_filenode('records')::text").fetch_one(connection).await?;
    Ok(row.try_get(0)?)
}

/// How many sessions, prepared transactions and slots hold back what VACUUM may remove; `None` if the role cannot see that.
async fn old_snapshots(connection: &mut PgConnection) -> Result<Option<i64>> {
    let row = sqlx::query(
        "SELECT pg_has_role('pg_read_all_stats', 'USAGE'), \
            (SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_xmin IS NOT NULL \
                AND (datname IS NULL OR datname = current_database())) \
            + (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()) \
            + (SELECT count(*) FROM pg_replication_slots WHERE xmin IS NOT NULL)",
    )
    .fetch_one(connection)
    .await?;
    Ok(row.try_get::<bool, _>(0)?.then_some(row.try_get(1)?))
}

/// The mark of the log: `after S` while files up to segment S may be there under their names, then `past S` while files that
/// were renamed for use again may be, which have names up to S.
async fn look_at_log(
    connection: &mut PgConnection,
    before: Option<&Remainder>,
    table_is_gone: bool,
) -> Result<Remainder> {
    let said = |gone, detail: String, mark: String| Remainder { place: LOG.to_owned(), gone, detail, mark };
    let current = "SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 9)";
    let current: String = sqlx::query(current).fetch_one(&mut *connection).await?.try_get(0)?;
    let mark = before.map(|remainder| remainder.mark.as_str()).filter(|mark| !mark.is_empty() && table_is_gone);
    let Some((phase, segment)) = mark.and_then(|mark| mark.split_once(' ')) else {
        let detail = format!("segments up to {current} hold it; they go with checkpoints and with what keeps them");
        return Ok(said(false, detail, format!("after {current}")));
    };
    let files = sqlx::query(
        "SELECT min(substr(name, 9)), max(substr(name, 9)) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'",
    );
    let row = match files.fetch_one(&mut *connection).await.map_err(Failure::from) {
        Ok(row) => row,
        Err(error) if error.is(PRIVILEGE) => {
            let detail =
                format!("segments up to {segment} held it; what is left of the log can only be seen with pg_monitor");
            return Ok(said(false, detail, format!("{phase} {segment}")));
        }
        Err(error) => return Err(error),
    };
    let name =
        |row: &PgRow, column| -> Result<String> { Ok(row.try_get::<Option<String>, _>(column)?.unwrap_or_default()) };
    let (first, last) = (name(&row, 0)?, name(&row, 1)?);
    Ok(match phase {
        "after" if first.as_str() <= segment => said(
            false,
            format!("segments from {first} are there; those up to {segment} hold it"),
            format!("after {segment}"),
        ),
        // Files of old segments are renamed and used again; until they are written over, the bytes are in them.
        "after" => said(
            false,
            format!(
                "no segment up to {segment} is left; files that were renamed for use again are written over by {last}"
            ),
            format!("past {last}"),
        ),
        _ if current.as_str() <= segment => said(
            false,
            format!("segment {current} is being written; the log is clean after {segment}"),
            format!("past {segment}"),
        ),
        _ => said(true, format!("every segment up to {segment} was written over or removed"), String::new()),
    })
}
