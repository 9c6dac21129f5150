//! What each operation says to the database.

use super::failure::{CHECK, Failure};
use crate::memory::{NO_GENERATION_LEFT, conflict, no_matching_key};
use crate::row::Columns;
use keyfold::wire::{Generation, KeyId};
use keyfold::{Error, ErrorKind, Lineage, Record, RecordChange, Slot, SlotId};
use sha2::{Digest, Sha256};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Row};
use std::collections::HashSet;

type Result<T, E = Failure> = std::result::Result<T, E>;

const GET: &str = "SELECT lineage, key_id, class, slot, generation, scope_tag, state, sequence, record FROM records \
                   WHERE lineage = $1 AND key_id = $2";
const NEWEST: &str = "SELECT lineage, key_id, class, slot, generation, scope_tag, state, sequence, record FROM records \
                      WHERE lineage = $1 AND class = $2 AND slot = $3 ORDER BY key_id DESC LIMIT $4";
const LIST: &str = "SELECT lineage, key_id, class, slot, generation, scope_tag, state, sequence, record FROM records \
                    WHERE lineage = $1 AND key_id > $2 ORDER BY key_id LIMIT $3";
const HEAD: &str =
    "SELECT key_id FROM records WHERE lineage = $1 AND class = $2 AND slot = $3 ORDER BY key_id DESC LIMIT 1";
const SCOPE: &str = "SELECT slot FROM scopes WHERE lineage = $1 AND scope_tag = $2";
/// One statement: the row lock of the counter orders those who allocate at once.
const ALLOCATE: &str = "INSERT INTO counters AS c (lineage, generation) SELECT $1, 1 + greatest($2, \
                        (SELECT generation FROM records WHERE lineage = $1 ORDER BY key_id DESC LIMIT 1)) \
                        ON CONFLICT (lineage) DO UPDATE SET generation = greatest(c.generation + 1, excluded.generation) \
                        RETURNING generation";
const INSERT: &str = "INSERT INTO records (lineage, key_id, class, slot, generation, scope_tag, state, sequence, record) \
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING";
const INSERT_SCOPE: &str = "INSERT INTO scopes (lineage, scope_tag, slot) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
const UPDATE: &str = "UPDATE records SET state = $7, sequence = $8, record = $9 WHERE lineage = $1 AND key_id = $2 \
                      AND class = $3 AND slot = $4 AND scope_tag IS NOT DISTINCT FROM $5 AND sequence = $6";
const UPDATE_MANY: &str = "UPDATE records r SET state = c.state, sequence = c.sequence, record = c.record \
    FROM unnest($1::bytea[], $2::bytea[], $3::smallint[], $4::bytea[], $5::bytea[], $6::bigint[], $7::smallint[], \
                $8::bigint[], $9::bytea[]) \
        WITH ORDINALITY AS c (lineage, key_id, class, slot, scope_tag, expected, state, sequence, record, position) \
    WHERE r.lineage = c.lineage AND r.key_id = c.key_id AND r.class = c.class AND r.slot = c.slot \
        AND r.scope_tag IS NOT DISTINCT FROM c.scope_tag AND r.sequence = c.expected \
    RETURNING c.position";

/// The privileges that operations need, for errors.
pub(super) const READ: &str = "SELECT on records";
pub(super) const READ_SCOPE: &str = "SELECT on scopes";
pub(super) const ALLOCATES: &str = "SELECT on records, and SELECT, INSERT and UPDATE (generation) on counters";
pub(super) const ADDS: &str = "SELECT and INSERT on records and scopes";
pub(super) const RESTORES: &str =
    "SELECT and INSERT on records and scopes, and UPDATE (state, sequence, record) on records";
pub(super) const REPLACES: &str = "SELECT and UPDATE (state, sequence, record) on records";

pub(super) async fn get(connection: &mut PgConnection, lineage: Lineage, key_id: KeyId) -> Result<Option<Record>> {
    let query = sqlx::query(GET).bind(lineage.as_bytes().as_slice()).bind(key_id.as_bytes().as_slice());
    query.fetch_optional(connection).await?.map(|row| read(&row)).transpose()
}

pub(super) async fn newest(connection: &mut PgConnection, slot: Slot, limit: usize) -> Result<Vec<Record>> {
    let query = sqlx::query(NEWEST)
        .bind(slot.lineage.as_bytes().as_slice())
        .bind(i16::from(slot.class.id()))
        .bind(slot.id.as_bytes().as_slice())
        .bind(clamped(limit));
    query.fetch_all(connection).await?.iter().map(read).collect()
}

pub(super) async fn list(
    connection: &mut PgConnection,
    lineage: Lineage,
    after: Option<KeyId>,
    limit: usize,
) -> Result<Vec<Record>> {
    // Every key ID is greater than no bytes at all.
    let after = after.map_or(Vec::new(), |key_id| key_id.as_bytes().to_vec());
    let query = sqlx::query(LIST).bind(lineage.as_bytes().as_slice()).bind(after).bind(clamped(limit));
    query.fetch_all(connection).await?.iter().map(read).collect()
}

pub(super) async fn scope_by_tag(
    connection: &mut PgConnection,
    lineage: Lineage,
    tag: [u8; 32],
) -> Result<Option<SlotId>> {
    let query = sqlx::query(SCOPE).bind(lineage.as_bytes().as_slice()).bind(tag.as_slice());
    let row = query.fetch_optional(connection).await?;
    row.map(|row| Ok(SlotId::from_bytes(bytes(&row, 0)?))).transpose()
}

pub(super) async fn allocate_generation(
    connection: &mut PgConnection,
    lineage: Lineage,
    above: Generation,
) -> Result<Generation> {
    let query = sqlx::query(ALLOCATE).bind(lineage.as_bytes().as_slice()).bind(i64::from(above));
    let row = query.fetch_one(connection).await.map_err(Failure::from).map_err(|error| {
        // The constraint on the counter is its upper end.
        if error.is(CHECK) { NO_GENERATION_LEFT.into() } else { error }
    })?;
    let next: i64 = row.try_get(0)?;
    Generation::try_from(next).map_err(|_| NO_GENERATION_LEFT.into())
}

pub(super) async fn insert(connection: &mut PgConnection, record: &Record, expected_head: Option<KeyId>) -> Result<()> {
    let columns = Columns::of(record)?;
    let mut transaction = connection.begin().await?;
    match insert_locked(&mut transaction, record, &columns, expected_head).await {
        Ok(()) => Ok(transaction.commit().await?),
        Err(refused @ Failure::Refused(_)) => {
            // Now, not when the connection is used next: the lock of the slot ends with it.
            transaction.rollback().await?;
            Err(refused)
        }
        Err(error) => Err(error),
    }
}

async fn insert_locked(
    connection: &mut PgConnection,
    record: &Record,
    columns: &Columns,
    expected_head: Option<KeyId>,
) -> Result<()> {
    // A statement of its own: the next one sees what was committed before the lock was free.
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(lock_number(columns)).execute(&mut *connection).await?;
    let head = sqlx::query(HEAD)
        .bind(columns.lineage.as_slice())
        .bind(i16::from(columns.class))
        .bind(columns.slot.as_slice())
        .fetch_optional(&mut *connection)
        .await?;
    let head = head.map(|row| bytes(&row, 0)).transpose()?;
    if head.map(KeyId::from_bytes) != expected_head {
        return Err(conflict("the newest key is not the expected one", record).into());
    }
    if let Some(tag) = columns.scope_tag {
        let query = sqlx::query(INSERT_SCOPE)
            .bind(columns.lineage.as_slice())
            .bind(tag.as_slice())
            .bind(columns.slot.as_slice());
        query.execute(&mut *connection).await?;
        if scope_by_tag(connection, record.lineage(), tag).await? != Some(record.slot_id()) {
            return Err(conflict("the scope tag belongs to another scope", record).into());
        }
    }
    let query = sqlx::query(INSERT)
        .bind(columns.lineage.as_slice())
        .bind(columns.key_id.as_slice())
        .bind(i16::from(columns.class))
        .bind(columns.slot.as_slice())
        .bind(i64::from(columns.generation))
        .bind(columns.scope_tag.as_ref().map(<[u8; 32]>::as_slice))
        .bind(i16::from(columns.state))
        .bind(columns.sequence)
        .bind(record.as_bytes());
    match query.execute(connection).await?.rows_affected() {
        1 => Ok(()),
        _ => Err(conflict("the key ID exists", record).into()),
    }
}

/// The advisory lock under which keys are added to a slot. Slots that share a number wait for each other for nothing.
fn lock_number(columns: &Columns) -> i64 {
    let mut hash = Sha256::new();
    hash.update(columns.lineage);
    hash.update([columns.class]);
    hash.update(columns.slot);
    let hash = hash.finalize();
    i64::from_be_bytes(std::array::from_fn(|i| hash[i]))
}

pub(super) async fn update(connection: &mut PgConnection, record: &Record, expected_sequence: u64) -> Result<()> {
    let columns = Columns::of(record)?;
    let query = sqlx::query(UPDATE)
        .bind(columns.lineage.as_slice())
        .bind(columns.key_id.as_slice())
        .bind(i16::from(columns.class))
        .bind(columns.slot.as_slice())
        .bind(columns.scope_tag.as_ref().map(<[u8; 32]>::as_slice))
        .bind(stored_sequence(expected_sequence))
        .bind(i16::from(columns.state))
        .bind(columns.sequence)
        .bind(record.as_bytes());
    if query.execute(&mut *connection).await?.rows_affected() == 1 {
        return Ok(());
    }
    let Some(stored) = get(connection, record.lineage(), record.key_id()).await? else {
        return Err(no_matching_key(record).into());
    };
    let why = if (stored.slot(), stored.scope_tag()) == (record.slot(), record.scope_tag()) {
        "the record has changed"
    } else {
        "the key belongs to another class or scope"
    };
    Err(conflict(why, record).into())
}

pub(super) async fn update_many(connection: &mut PgConnection, changes: &[RecordChange]) -> Result<Vec<KeyId>> {
    let columns: Vec<Columns> =
        changes.iter().map(|change| Columns::of(&change.record)).collect::<keyfold::Result<_>>()?;
    let expected: Vec<i64> = changes.iter().map(|change| stored_sequence(change.expected_sequence)).collect();
    let query = sqlx::query(UPDATE_MANY)
        .bind(columns.iter().map(|c| c.lineage.as_slice()).collect::<Vec<_>>())
        .bind(columns.iter().map(|c| c.key_id.as_slice()).collect::<Vec<_>>())
        .bind(columns.iter().map(|c| i16::from(c.class)).collect::<Vec<_>>())
        .bind(columns.iter().map(|c| c.slot.as_slice()).collect::<Vec<_>>())
        .bind(columns.iter().map(|c| c.scope_tag.as_ref().map(<[u8; 32]>::as_slice)).collect::<Vec<_>>())
        .bind(expected)
        .bind(columns.iter().map(|c| i16::from(c.state)).collect::<Vec<_>>())
        .bind(columns.iter().map(|c| c.sequence).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.record.as_bytes()).collect::<Vec<_>>());
    let rows = query.fetch_all(connection).await?;
    let replaced = rows.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<HashSet<i64>>>()?;
    Ok((1..).zip(changes).filter(|(i, _)| !replaced.contains(i)).map(|(_, change)| change.record.key_id()).collect())
}

/// The clock of the database.
pub(super) async fn now(connection: &mut PgConnection) -> Result<u64> {
    let query = sqlx::query("SELECT floor(extract(epoch FROM clock_timestamp()))::bigint");
    let seconds: i64 = query.fetch_one(connection).await?.try_get(0)?;
    u64::try_from(seconds)
        .map_err(|_| Error::new(ErrorKind::Store, "the clock of the key store shows a time before 1970").into())
}

/// The record of a row. Nothing in the row is believed.
pub(super) fn read(row: &PgRow) -> Result<Record> {
    let out_of_range = |_| Error::new(ErrorKind::Store, "the key store holds a row that keyfold did not write");
    let columns = Columns {
        lineage: bytes(row, 0)?,
        key_id: bytes(row, 1)?,
        class: row.try_get::<i16, _>(2)?.try_into().map_err(out_of_range)?,
        slot: bytes(row, 3)?,
        generation: row.try_get::<i64, _>(4)?.try_into().map_err(out_of_range)?,
        scope_tag: row.try_get::<Option<&[u8]>, _>(5)?.map(fixed).transpose()?,
        state: row.try_get::<i16, _>(6)?.try_into().map_err(out_of_range)?,
        sequence: row.try_get(7)?,
    };
    Ok(columns.record(row.try_get(8)?)?)
}

fn bytes<const N: usize>(row: &PgRow, column: usize) -> Result<[u8; N]> {
    fixed(row.try_get(column)?)
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| {
        Error::new(ErrorKind::Store, "the key store holds a row of another length than keyfold writes").into()
    })
}

/// A sequence as it is stored; one that no row can have where it is too large.
fn stored_sequence(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(-1)
}

fn clamped(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
