//! What the benchmarks share: a keyring in memory, columns of 16-byte values, and bare ring over the same bytes.
#![forbid(unsafe_code)]

mod compare;

pub use compare::{Comparison, per_row, spread};

use keyfold::testing::{FakeKms, block_on};
use keyfold::{
    AuditEvent, AuditSink, Column, Context, Decryptor, Encryptor, FieldPolicy, KekAlias, Keyring, Kms, MemoryHighWater,
    Policy, RowBinding, SealedColumn, StreamOpener, StreamSealer,
};
use keyfold_store::MemoryStore;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of every value.
pub const VALUE_LEN: usize = 16;
/// Bytes of every row binding.
pub const ROW_LEN: usize = 16;
/// Bytes of a value after its format byte: what is encrypted.
pub const ENCODED_LEN: usize = 1 + VALUE_LEN;
/// Bytes that are authenticated with every value: header, label, name, one context pair, row binding.
pub const AAD_LEN: usize = 100;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
/// Bytes that bare ring needs for a value: nonce, ciphertext, tag.
pub const BARE_LEN: usize = NONCE_LEN + ENCODED_LEN + TAG_LEN;
/// Most rows under one nonce prefix: one batch (FORMAT.md §4.4).
pub const BATCH_ROWS: usize = 1 << 16;

/// The field whose values are sealed.
pub const FIELD: &str = "patient.mrn";
const TENANT: &str = "clinic7";

/// A resource as Synthea writes it.
pub const PATIENT: &str = include_str!("patient.json").trim_ascii_end();

/// CPU time of the calling thread: on a shared machine the wall clock measures the neighbours.
#[must_use]
pub fn cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().expect("a thread has used no negative time")
}

/// The two handles of a field.
pub struct Handles {
    /// Seals.
    pub encryptor: Encryptor,
    /// Opens.
    pub decryptor: Decryptor,
}

impl Handles {
    /// Those of a randomised field that is bound to tenant and row.
    #[must_use]
    pub fn randomized() -> Self {
        Self::with(bound_to_rows(), context(), false)
    }

    /// Those of a deterministic field that is bound to the tenant.
    #[must_use]
    pub fn deterministic() -> Self {
        Self::with(FieldPolicy::deterministic(FIELD, "default", None), context(), false)
    }

    /// Those of a field with this policy and context, of a keyring in memory. `counted`: it has an audit sink, for which each value is counted.
    ///
    /// # Panics
    ///
    /// If the policy is not good.
    #[must_use]
    pub fn with(policy: FieldPolicy, context: Context, counted: bool) -> Self {
        let keyring = keyring(|all| all.add(policy));
        if counted {
            keyring.set_audit(Arc::new(Forgetful)).expect("the first sink");
        }
        Self::of(&keyring, context, None)
    }

    /// Those of `count` scopes of one keyring, with the policy of [`randomized`](Self::randomized).
    #[must_use]
    pub fn of_scopes(count: usize) -> Vec<Self> {
        let keyring = keyring(|all| all.add(bound_to_rows()));
        (0..count).map(|n| Self::of(&keyring, context(), Some(&format!("device-{n}")))).collect()
    }

    fn of(keyring: &Keyring, context: Context, scope: Option<&str>) -> Self {
        let field = keyring.field(FIELD).expect("it was just added").context(context);
        let field = match scope {
            Some(name) => field.scope(name),
            None => field,
        };
        block_on(async {
            Self {
                encryptor: field.clone().encryptor().await.expect("the keyring has a data key"),
                decryptor: field.decryptor().await.expect("the keyring has a data key"),
            }
        })
    }
}

/// The policy of a randomised field that is bound to its row.
#[must_use]
pub fn bound_to_rows() -> FieldPolicy {
    let row_binding = RowBinding::Bound { column: None, path: None, segment: None };
    FieldPolicy { row_binding, ..FieldPolicy::randomized(FIELD) }
}

/// A context of one pair.
///
/// # Panics
///
/// Never: it is short.
#[must_use]
pub fn context() -> Context {
    Context::new().with("tenant", TENANT).expect("a short context")
}

/// A keyring in memory with the policy that `fill` makes.
///
/// # Panics
///
/// If the policy is not good.
#[must_use]
pub fn keyring(fill: impl FnOnce(&mut Policy) -> keyfold::Result<()>) -> Keyring {
    let store = Arc::new(MemoryStore::new());
    let kms: Arc<dyn Kms> = Arc::new(FakeKms::new());
    let alias = KekAlias::new("bench").expect("an alias");
    let keks = BTreeMap::from([(alias, kms)]);
    let high_water = Arc::new(MemoryHighWater::default());
    let created = Keyring::create("bench", "bench", store.clone(), keks.clone(), high_water.clone());
    let mut created = block_on(created).expect("an empty store takes a keyring");
    fill(&mut created.config.policy).expect("a good policy");
    Keyring::open(created.config, store, keks, high_water).expect("it was just made")
}

/// What seals and opens the streams of a field; the key is there.
///
/// # Panics
///
/// Never: the policy is good.
#[must_use]
pub fn streams() -> (StreamSealer, StreamOpener) {
    let ring = keyring(|policy| policy.add(FieldPolicy::stream(FIELD)));
    let field = || ring.field(FIELD).expect("of the policy");
    let sealer = block_on(field().stream_sealer()).expect("it seals");
    let opener = block_on(field().stream_opener()).expect("it opens");
    block_on(opener.load_key(sealer.begin(None).expect("ready").header())).expect("its own key");
    (sealer, opener)
}

/// A sink for which all is counted, and which keeps nothing.
struct Forgetful;

impl AuditSink for Forgetful {
    fn record(&self, _: AuditEvent) -> keyfold::Result<()> {
        Ok(())
    }
}

/// Values of 16 bytes with a row binding of 16 bytes each, in Arrow's layout.
pub struct Rows {
    values: Vec<u8>,
    rows: Vec<u8>,
    offsets: Vec<i64>,
}

impl Rows {
    /// `n` rows.
    #[must_use]
    pub fn new(n: usize) -> Self {
        let spell = |what: &str| (0..n).flat_map(|row| format!("{what}{row:012}").into_bytes()).collect::<Vec<u8>>();
        let (values, rows) = (spell("MRN-"), spell("row-"));
        assert_eq!((values.len(), rows.len()), (n * VALUE_LEN, n * ROW_LEN));
        Self { values, rows, offsets: (0..=n).map(|row| (row * VALUE_LEN) as i64).collect() }
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values.
    #[must_use]
    pub fn values(&self) -> Column<'_> {
        Column::new(&self.values, &self.offsets).expect("offsets ascend")
    }

    /// The row bindings.
    #[must_use]
    pub fn rows(&self) -> Column<'_> {
        Column::new(&self.rows, &self.offsets).expect("offsets ascend")
    }
}

/// Rows sealed one by one or in small batches, in any order.
pub struct Shuffled {
    /// The sealed values.
    pub sealed: Vec<Vec<u8>>,
    /// Their row bindings.
    pub rows: Vec<Vec<u8>>,
}

impl Shuffled {
    /// Seals `batches` columns of `len` rows; the result is in the order of the batches.
    #[must_use]
    pub fn sorted(encryptor: &Encryptor, batches: usize, len: usize) -> Self {
        use keyfold::ColumnBytes;
        let data = Rows::new(len);
        let rows = data.rows();
        let mut all = Self { sealed: Vec::new(), rows: Vec::new() };
        for _ in 0..batches {
            let column = seal(encryptor, &data);
            all.sealed.extend((0..len).map(|row| column.bytes(row).to_vec()));
            all.rows.extend((0..len).map(|row| rows.bytes(row).to_vec()));
        }
        all
    }

    /// The same rows in an order that is random and always the same.
    #[must_use]
    pub fn shuffled(self) -> Self {
        self.clustered(1)
    }

    /// The same rows in runs of `run` that stay together, the runs in an order that is random and always the same.
    ///
    /// # Panics
    ///
    /// If `run` does not divide the number of rows.
    #[must_use]
    pub fn clustered(mut self, run: usize) -> Self {
        assert!(self.sealed.len().is_multiple_of(run));
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        for i in (1..self.sealed.len() / run).rev() {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let j = (state % (i as u64 + 1)) as usize;
            for row in 0..run {
                self.sealed.swap(i * run + row, j * run + row);
                self.rows.swap(i * run + row, j * run + row);
            }
        }
        self
    }
}

/// Seals a column with keyfold.
///
/// # Panics
///
/// If keyfold refuses it.
#[must_use]
pub fn seal(encryptor: &Encryptor, data: &Rows) -> SealedColumn {
    encryptor.encrypt_column(&data.values(), Some(&data.rows())).expect("values and rows are well-formed")
}

/// AES-256-GCM of ring, with everything ready that a caller could have ready: the key is expanded, and values with
/// their format byte, AAD and nonces of all rows lie in memory. Nothing remains to be done but AES-GCM itself.
pub struct Bare {
    key: LessSafeKey,
    encoded: Vec<u8>,
    aad: Vec<u8>,
    nonces: Vec<u8>,
}

impl Bare {
    /// Over the same values and AAD as keyfold's for `data` under the key of `encryptor`.
    ///
    /// # Panics
    ///
    /// If the operating system gives no random bytes.
    #[must_use]
    pub fn new(encryptor: &Encryptor, data: &Rows) -> Self {
        let mut key = [0; 32];
        getrandom::fill(&mut key).expect("the system has randomness");
        let mut nonces = vec![0; data.len() * NONCE_LEN];
        getrandom::fill(&mut nonces).expect("the system has randomness");
        let encoded = data.values.chunks(VALUE_LEN).flat_map(|value| [&[1], value].concat()).collect();
        let aad = data.rows.chunks(ROW_LEN).flat_map(|row| aad(encryptor, row)).collect::<Vec<u8>>();
        assert_eq!(aad.len(), data.len() * AAD_LEN);
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).expect("32 bytes"));
        Self { key, encoded, aad, nonces }
    }

    /// Seals all rows into `out`: nonce, ciphertext and tag of each.
    ///
    /// # Panics
    ///
    /// If `out` has not [`BARE_LEN`] bytes for each row.
    pub fn seal(&self, out: &mut [u8]) {
        assert_eq!(out.len(), self.encoded.len() / ENCODED_LEN * BARE_LEN);
        for (row, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            self.seal_row(row, out);
        }
    }

    /// Seals one row.
    ///
    /// # Panics
    ///
    /// If there is no such row.
    #[inline]
    pub fn seal_row(&self, row: usize, out: &mut [u8; BARE_LEN]) {
        let nonce = self.nonces.as_chunks().0[row];
        out[..NONCE_LEN].copy_from_slice(&nonce);
        let (body, tag) = out[NONCE_LEN..].split_at_mut(ENCODED_LEN);
        body.copy_from_slice(&self.encoded.as_chunks::<ENCODED_LEN>().0[row]);
        let (nonce, aad) = (Nonce::assume_unique_for_key(nonce), Aad::from(&self.aad.as_chunks::<AAD_LEN>().0[row]));
        let sealed = self.key.seal_in_place_separate_tag(nonce, aad, body).expect("short");
        tag.copy_from_slice(sealed.as_ref());
    }

    /// Opens all rows that [`seal`](Self::seal) wrote, into `out`, one after the other.
    ///
    /// # Panics
    ///
    /// If a row does not open.
    pub fn open(&self, sealed: &[u8], out: &mut Vec<u8>) {
        for (row, sealed) in sealed.as_chunks().0.iter().enumerate() {
            self.open_row(row, sealed, out);
        }
    }

    /// Opens one row, to the end of `out`.
    ///
    /// # Panics
    ///
    /// If it does not open.
    #[inline]
    pub fn open_row(&self, row: usize, sealed: &[u8; BARE_LEN], out: &mut Vec<u8>) {
        let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>().expect("longer");
        let start = out.len();
        out.extend_from_slice(body);
        let (nonce, aad) = (Nonce::assume_unique_for_key(*nonce), Aad::from(&self.aad.as_chunks::<AAD_LEN>().0[row]));
        self.key.open_in_place(nonce, aad, &mut out[start..]).expect("sealed by this key");
        out.truncate(start + ENCODED_LEN);
    }
}

/// The AAD of keyfold (FORMAT.md §4.3), written out once more.
fn aad(encryptor: &Encryptor, row: &[u8]) -> Vec<u8> {
    let part = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let mut aad = vec![0xF5, 1];
    aad.extend(encryptor.key_id().as_bytes());
    aad.extend(b"\x10keyfold/field/v1\x01\x0bpatient.mrn\x02");
    aad.extend([part(b"kf:row"), part(row), part(b"tenant"), part(TENANT.as_bytes())].concat());
    aad
}
