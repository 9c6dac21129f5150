//! Patients: what is sealed how, and the queries.
//!
//! Every value is sealed under the keys of the tenant's scope, with the tenant in its context, and bound to the row: a
//! value that is copied to another row or tenant does not open, whoever edits the database. The exception is
//! `mrn_lookup`, which is there to be searched: equal numbers of one tenant look equal, so it can be moved. That is
//! why the medical record number is stored once more like the rest, and compared after a search.

use crate::api::Failure;
use keyfold::{Context, Decryptor, Encryptor, Error, ErrorKind, Keyring, Opened, Result, Searcher, Value};
use keyfold_sqlx::SealedBytes;
use serde::{Deserialize, Serialize, Serializer};
use sqlx::{FromRow, PgPool};
use zeroize::Zeroizing;

/// The fields that the policy must have.
pub(crate) const FIELDS: [&str; 5] = [MRN_LOOKUP, "patient.mrn", "patient.ssn", "patient.name", "patient.birth_date"];
const MRN_LOOKUP: &str = "patient.mrn_lookup";

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
        let field = ring.field(field)?.scope(tenant).context(Context::new().with("tenant", tenant)?);
        Ok(Self { encryptor: field.clone().encryptor().await?, decryptor: field.decryptor().await? })
    }

    async fn seal(&self, secret: &Secret, row: Option<&str>) -> Result<SealedBytes> {
        let encryptor = self.encryptor.ready().await?;
        encryptor.encrypt(Value::Text(&secret.0), row.map(str::as_bytes))?.try_into()
    }

    /// The value, and whether its key still seals.
    async fn open(&self, sealed: &SealedBytes, row: Option<&str>) -> Result<(Secret, bool)> {
        self.decryptor.load_keys(std::slice::from_ref(sealed)).await?;
        let opened = self.decryptor.decrypt(sealed.as_bytes(), row.map(str::as_bytes))?;
        Ok((Secret::of(&opened)?, opened.is_current()))
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
        let searched = ring.field(MRN_LOOKUP)?.context(Context::new().with("tenant", name)?);
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
        self.open(database, row.ok_or(Failure::NotFound)?).await
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
        Ok((id, self.open(database, row).await?))
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

    async fn open(&self, database: &PgPool, row: Row) -> std::result::Result<Patient, Failure> {
        let (lookup, current) = self.lookup.open(&row.mrn_lookup, None).await?;
        let mut all_current = current;
        let mut open = async |field: &Handles, sealed: &SealedBytes| {
            let (secret, current) = field.open(sealed, Some(&row.id)).await?;
            all_current &= current;
            Ok::<_, Error>(secret)
        };
        let patient = Patient {
            mrn: open(&self.mrn, &row.mrn).await?,
            ssn: open(&self.ssn, &row.ssn).await?,
            name: open(&self.full_name, &row.name).await?,
            birth_date: open(&self.birth_date, &row.birth_date).await?,
        };
        if lookup != patient.mrn {
            // Somebody has moved it here from another row.
            return Err(Error::from(ErrorKind::DecryptionFailed).into());
        }
        if !all_current {
            self.reseal(database, row, &patient).await;
        }
        Ok(patient)
    }

    /// Seals a patient again under the current keys. Whoever asked has the answer even if this fails: the next one to
    /// ask tries again.
    async fn reseal(&self, database: &PgPool, old: Row, patient: &Patient) {
        let result = async {
            let row = self.seal(old.id, patient).await?;
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

/// Makes the table if it is missing.
pub(crate) async fn create_table(database: &PgPool) -> sqlx::Result<()> {
    sqlx::query(TABLE).execute(database).await.map(drop)
}
