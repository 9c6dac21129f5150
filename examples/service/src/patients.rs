//! Patients: what is sealed how, and the queries.
//!
//! Every value is sealed under the keys of the tenant's scope, with the tenant in its context, and bound to the row: a
//! value that is copied to another row or tenant does not open, whoever edits the database. The exception is
//! `mrn_lookup`, which is there to be searched: equal numbers of one tenant look equal, so it can be moved. That is
//! why the medical record number is stored once more like the rest, and compared after a search.
//!
//! Whoever controls the database can have it answer with another row than was asked for, all of whose values belong
//! together. So a value is opened under the ID that the caller asked for, never under one that the answer brought
//! along; and who searched, and knows no ID, compares what was opened with what was searched for.

use crate::api::Failure;
use keyfold::{
    Context, Decryptor, Encryptor, Error, ErrorKind, FieldMode, Keyring, Opened, Policy, Result, RowBinding, Searcher,
    Value, ValueType,
};
use keyfold_sqlx::SealedBytes;
use serde::{Deserialize, Serialize, Serializer};
use sqlx::{FromRow, PgPool};
use zeroize::Zeroizing;

/// The fields that the policy must have; see [`check_policy`].
const FIELDS: [&str; 5] = [MRN_LOOKUP, "patient.mrn", "patient.ssn", "patient.name", "patient.birth_date"];
const MRN_LOOKUP: &str = "patient.mrn_lookup";

/// The key of the context of every value.
const TENANT: &str = "tenant";

/// `tenant` and `id` are in clear: who is a customer, and how many patients there are, is not hidden.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS patients (
    tenant text NOT NULL,
    id text PRIMARY KEY,
    mrn_lookup bytea NOT NULL,
    mrn bytea NOT NULL,
    ssn bytea NOT NULL,
    name bytea NOT NULL,
    birth_date bytea NOT NULL,
    UNIQUE (tenant, mrn_lookup)
)";
/// Found under every key, so that a number is not stored twice while the look-up key is being replaced.
const INSERT: &str = "INSERT INTO patients (tenant, id, mrn_lookup, mrn, ssn, name, birth_date)
    SELECT $1, $2, $3, $4, $5, $6, $7
    WHERE NOT EXISTS (SELECT FROM patients WHERE tenant = $1 AND mrn_lookup = ANY($8)) ON CONFLICT DO NOTHING";
const BY_ID: &str = "SELECT id, mrn_lookup, mrn, ssn, name, birth_date FROM patients WHERE tenant = $1 AND id = $2";
const BY_MRN: &str =
    "SELECT id, mrn_lookup, mrn, ssn, name, birth_date FROM patients WHERE tenant = $1 AND mrn_lookup = ANY($2)";
/// In one step, and only if nobody has changed the row since it was read.
const RESEAL: &str = "UPDATE patients SET mrn_lookup = $3, mrn = $4, ssn = $5, name = $6, birth_date = $7
    WHERE tenant = $1 AND id = $2 AND mrn_lookup = $8 AND mrn = $9 AND ssn = $10 AND name = $11 AND birth_date = $12";

/// Text about a patient. Erased on drop; has no `Debug`, so that it cannot get into a log by accident.
#[derive(Clone, PartialEq)]
pub(crate) struct Secret(Zeroizing<String>);

/// Refuses a policy under which this service could not work, or would not protect what it says: found out at the start
/// rather than by every request.
///
/// # Errors
///
/// - [`PolicyRefused`](ErrorKind::PolicyRefused): names the field.
pub(crate) fn check_policy(policy: &Policy) -> Result<()> {
    for name in FIELDS {
        let wrong = |why| Err(Error::new(ErrorKind::PolicyRefused, why).with_detail(format!("field {name}")));
        let Some(field) = policy.field(name) else { return wrong("the policy lacks a field of this service") };
        let deterministic = matches!(field.mode, FieldMode::Deterministic { .. });
        if name == MRN_LOOKUP && !deterministic {
            return wrong("a field that this service searches must be deterministic");
        }
        if name != MRN_LOOKUP && (deterministic || matches!(field.row_binding, RowBinding::None)) {
            return wrong("a field that this service binds to its row must be randomized and have a row_binding");
        }
        if field.value_type.is_some_and(|of| of != ValueType::Text) {
            return wrong("the values of this service are texts");
        }
        if field.required_context.iter().any(|key| key != TENANT) {
            return wrong("this service gives no context but the tenant");
        }
    }
    Ok(())
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Secret {
    fn is_blank(&self) -> bool {
        self.0.trim().is_empty()
    }

    /// Whether it is a day of the calendar, as `YYYY-MM-DD`.
    fn is_date(&self) -> bool {
        let bytes = self.0.as_bytes();
        let digits = |range: std::ops::Range<usize>| {
            let part = bytes.get(range)?;
            part.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u32::from(byte - b'0')))
        };
        let (Some(year), Some(month), Some(day)) = (digits(0..4), digits(5..7), digits(8..10)) else { return false };
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            4 | 6 | 9 | 11 => 30,
            2 => 28 + u32::from(leap),
            1..=12 => 31,
            _ => 0,
        };
        bytes.len() == 10 && bytes[4] == b'-' && bytes[7] == b'-' && (1..=days).contains(&day)
    }

    fn of(opened: &Opened) -> Result<Self> {
        match opened.value() {
            Value::Text(text) => Ok(Self(Zeroizing::new(text.to_owned()))),
            _ => Err(Error::new(ErrorKind::Malformed, "a patient's values are texts")),
        }
    }
}

/// A patient, in clear.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Patient {
    mrn: Secret,
    ssn: Secret,
    name: Secret,
    birth_date: Secret,
}

impl Patient {
    /// What is wrong with it, without repeating it.
    pub(crate) fn check(&self) -> std::result::Result<(), Failure> {
        check_mrn(&self.mrn)?;
        if self.ssn.is_blank() {
            return Err(Failure::Invalid("ssn is empty"));
        }
        if self.name.is_blank() {
            return Err(Failure::Invalid("name is empty"));
        }
        if !self.birth_date.is_date() {
            return Err(Failure::Invalid("birth_date is not a date such as 1950-12-10"));
        }
        Ok(())
    }
}

/// No patient has an empty medical record number, so nobody searches for one on purpose.
pub(crate) fn check_mrn(mrn: &Secret) -> std::result::Result<(), Failure> {
    if mrn.is_blank() { Err(Failure::Invalid("mrn is empty")) } else { Ok(()) }
}

/// A patient as the table has it. The types keep ciphertext and plaintext apart.
#[derive(FromRow)]
struct Row {
    id: String,
    mrn_lookup: SealedBytes,
    mrn: SealedBytes,
    ssn: SealedBytes,
    name: SealedBytes,
    birth_date: SealedBytes,
}

/// One field under the keys of one tenant.
struct Handles {
    encryptor: Encryptor,
    decryptor: Decryptor,
}

impl Handles {
    async fn new(ring: &Keyring, tenant: &str, field: &str) -> Result<Self> {
        let field = ring.field(field)?.scope(tenant).context(Context::new().with(TENANT, tenant)?);
        Ok(Self { encryptor: field.clone().encryptor().await?, decryptor: field.decryptor().await? })
    }

    async fn seal(&self, secret: &Secret, row: Option<&str>) -> Result<SealedBytes> {
        let encryptor = self.encryptor.ready().await?;
        encryptor.encrypt(Value::Text(&secret.0), row.map(str::as_bytes))?.try_into()
    }

    /// The value as it was opened, which says whether its key still seals.
    async fn open(&self, sealed: &SealedBytes, row: Option<&str>) -> Result<Opened> {
        self.decryptor.load_keys(std::slice::from_ref(sealed)).await?;
        self.decryptor.decrypt(sealed.as_bytes(), row.map(str::as_bytes))
    }
}

/// The fields under the keys of one tenant: made once, shared by all requests.
pub(crate) struct Tenant {
    name: String,
    lookup: Handles,
    searcher: Searcher,
    mrn: Handles,
    ssn: Handles,
    full_name: Handles,
    birth_date: Handles,
}

impl Tenant {
    /// May call the key service; makes the tenant's scope if it is new.
    pub(crate) async fn new(ring: &Keyring, name: &str) -> Result<Self> {
        let [lookup, mrn, ssn, full_name, birth_date] = FIELDS.map(|field| Handles::new(ring, name, field));
        let searched = ring.field(MRN_LOOKUP)?.context(Context::new().with(TENANT, name)?);
        Ok(Self {
            name: name.to_owned(),
            // One after the other: the first makes the scope.
            mrn: mrn.await?,
            ssn: ssn.await?,
            full_name: full_name.await?,
            birth_date: birth_date.await?,
            lookup: lookup.await?,
            searcher: searched.searcher().await?,
        })
    }

    /// Makes sure that every key may be used now.
    pub(crate) async fn ready(&self) -> Result<()> {
        for field in [&self.lookup, &self.mrn, &self.ssn, &self.full_name, &self.birth_date] {
            field.encryptor.ready().await?;
        }
        self.searcher.ready().await.map(drop)
    }

    /// Whether every key may be used at this moment. Asks nobody.
    pub(crate) fn usable(&self) -> Result<()> {
        let probe = Value::Text("");
        for field in [&self.mrn, &self.ssn, &self.full_name, &self.birth_date] {
            field.encryptor.encrypt(probe, Some(b"probe"))?;
        }
        self.lookup.encryptor.encrypt(probe, None)?;
        self.searcher.ciphertexts(probe).map(drop)
    }

    /// Stores a patient; returns the ID.
    pub(crate) async fn insert(&self, database: &PgPool, patient: &Patient) -> std::result::Result<String, Failure> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| Error::from(ErrorKind::RandomnessUnavailable))?;
        let row = self.seal(data_encoding::HEXLOWER.encode(&id), patient).await?;
        let found = self.searcher.ready().await?.ciphertexts(Value::Text(&patient.mrn.0))?;
        let insert = sqlx::query(INSERT).bind(&self.name).bind(&row.id).bind(row.mrn_lookup).bind(row.mrn);
        let insert = insert.bind(row.ssn).bind(row.name).bind(row.birth_date).bind(found);
        match insert.execute(database).await?.rows_affected() {
            0 => Err(Failure::Conflict),
            _ => Ok(row.id),
        }
    }

    /// The patient with this ID.
    pub(crate) async fn get(&self, database: &PgPool, id: &str) -> std::result::Result<Patient, Failure> {
        let row: Option<Row> = sqlx::query_as(BY_ID).bind(&self.name).bind(id).fetch_optional(database).await?;
        let row = row.ok_or(Failure::NotFound)?;
        if row.id != id {
            return Err(another_patient());
        }
        self.open(database, id, row).await
    }

    /// The patient with this medical record number, and the ID.
    pub(crate) async fn find(
        &self,
        database: &PgPool,
        mrn: &Secret,
    ) -> std::result::Result<(String, Patient), Failure> {
        // What it looks like under every key that may have sealed it.
        let sealed = self.searcher.ready().await?.ciphertexts(Value::Text(&mrn.0))?;
        let row: Option<Row> = sqlx::query_as(BY_MRN).bind(&self.name).bind(sealed).fetch_optional(database).await?;
        let row = row.ok_or(Failure::NotFound)?;
        let id = row.id.clone();
        let patient = self.open(database, &id, row).await?;
        if patient.mrn != *mrn {
            return Err(another_patient());
        }
        Ok((id, patient))
    }

    async fn seal(&self, id: String, patient: &Patient) -> Result<Row> {
        Ok(Row {
            mrn_lookup: self.lookup.seal(&patient.mrn, None).await?,
            mrn: self.mrn.seal(&patient.mrn, Some(&id)).await?,
            ssn: self.ssn.seal(&patient.ssn, Some(&id)).await?,
            name: self.full_name.seal(&patient.name, Some(&id)).await?,
            birth_date: self.birth_date.seal(&patient.birth_date, Some(&id)).await?,
            id,
        })
    }

    /// Opens what the database answered with, as the patient with this ID and no other.
    async fn open(&self, database: &PgPool, id: &str, row: Row) -> std::result::Result<Patient, Failure> {
        let opened = self.lookup.open(&row.mrn_lookup, None).await?;
        let lookup = Secret::of(&opened)?;
        let (mut all_current, mut compromised) = (opened.is_current(), opened.is_compromised());
        let mut open = async |field: &Handles, sealed: &SealedBytes| {
            let opened = field.open(sealed, Some(id)).await?;
            all_current &= opened.is_current();
            compromised |= opened.is_compromised();
            Secret::of(&opened)
        };
        let patient = Patient {
            mrn: open(&self.mrn, &row.mrn).await?,
            ssn: open(&self.ssn, &row.ssn).await?,
            name: open(&self.full_name, &row.name).await?,
            birth_date: open(&self.birth_date, &row.birth_date).await?,
        };
        if lookup != patient.mrn {
            // Somebody has moved it here from another row.
            return Err(another_patient());
        }
        if compromised {
            // Whoever has the key can have written it: sealed again it would look as good as any other.
            tracing::warn!("a value under a compromised key was read, and is not sealed again by itself");
        } else if !all_current {
            self.reseal(database, id, row, &patient).await;
        }
        Ok(patient)
    }

    /// Seals a patient again under the current keys. Whoever asked has the answer even if this fails: the next one to
    /// ask tries again.
    async fn reseal(&self, database: &PgPool, id: &str, old: Row, patient: &Patient) {
        let result = async {
            let row = self.seal(id.to_owned(), patient).await?;
            let update = sqlx::query(RESEAL).bind(&self.name).bind(row.id).bind(row.mrn_lookup).bind(row.mrn);
            let update = update.bind(row.ssn).bind(row.name).bind(row.birth_date).bind(old.mrn_lookup).bind(old.mrn);
            let update = update.bind(old.ssn).bind(old.name).bind(old.birth_date);
            Ok::<_, Failure>(update.execute(database).await?.rows_affected())
        };
        match result.await {
            Ok(rows) => tracing::info!(rows, "sealed again under the current key"),
            Err(failure) => tracing::warn!(error = failure.name(), "could not be sealed again"),
        }
    }
}

/// The database answered with what it was not asked for: the same as a value that was moved to another row.
fn another_patient() -> Failure {
    Error::from(ErrorKind::DecryptionFailed).into()
}

/// Makes the table if it is missing.
pub(crate) async fn create_table(database: &PgPool) -> sqlx::Result<()> {
    sqlx::query(TABLE).execute(database).await.map(drop)
}
