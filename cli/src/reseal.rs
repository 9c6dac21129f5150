//! One field with its keys, in one scope and context: which values are under an older key, and the same values under the
//! current one.

use crate::failure::{Exit, Failure};
use keyfold::wire::{Frame, KeyId, MAGIC, Sealed, Suite};
use keyfold::{Decryptor, Encryptor, Error, ErrorKind, Field, FieldMode, FieldPolicy, Keyring, Opened, Result, Value};

/// A field that is opened and sealed.
pub(crate) struct Resealer {
    encryptor: Encryptor,
    decryptor: Decryptor,
}

/// A value under the current key.
pub(crate) struct Resealed {
    pub(crate) bytes: Vec<u8>,
    /// Whether the old one was under a compromised key: whoever has that can have made it.
    pub(crate) compromised: bool,
}

impl Resealer {
    /// Acquires the current key. Makes the scope if there is none of that name.
    pub(crate) async fn new(field: Field) -> Result<Self> {
        let decryptor = field.clone().decryptor();
        // The encryptor first: a new scope is made by it alone.
        let encryptor = field.encryptor().await?;
        Ok(Self { encryptor, decryptor: decryptor.await? })
    }

    pub(crate) fn policy(&self) -> &FieldPolicy {
        self.encryptor.policy()
    }

    /// The key that seals.
    pub(crate) fn key_id(&self) -> KeyId {
        self.encryptor.key_id()
    }

    /// Whether a value with this header is to be sealed again: under an older generation, or for a deterministic field under
    /// another look-up key than the one that seals, or in another suite than the field is sealed in now.
    pub(crate) fn is_stale(&self, suite: Suite, key_id: KeyId) -> bool {
        match &self.policy().mode {
            FieldMode::Deterministic { .. } => suite == Suite::Field || key_id != self.key_id(),
            _ => key_id.generation() < self.key_id().generation(),
        }
    }

    /// As [`is_stale`](Self::is_stale), where a key of a randomised field will do that is of the generation `floor` at least.
    pub(crate) fn is_below(&self, suite: Suite, key_id: KeyId, floor: Option<u32>) -> bool {
        match (&self.policy().mode, floor) {
            (FieldMode::Randomized, Some(floor)) => key_id.generation() < floor,
            _ => self.is_stale(suite, key_id),
        }
    }

    /// Whether the value `sealed` is to be sealed again.
    ///
    /// # Errors
    ///
    /// As for [`header`].
    pub(crate) fn needs(&self, sealed: &[u8]) -> Result<bool> {
        let (suite, key_id) = header(sealed)?;
        Ok(self.is_stale(suite, key_id))
    }

    /// Opens a value, whatever key it is under.
    ///
    /// # Errors
    ///
    /// Those of acquiring its key and of [`Decryptor::decrypt`].
    pub(crate) async fn open(&self, sealed: &[u8], row: Option<&[u8]>) -> Result<Opened> {
        self.decryptor.load_keys(&[sealed][..]).await.map_err(|error| error.error)?;
        self.decryptor.decrypt(sealed, row)
    }

    /// Seals a value under the current key, in a frame if `framed`, and opens it again to compare.
    ///
    /// # Errors
    ///
    /// Those of [`Encryptor::ready`] and [`Encryptor::encrypt`]. [`Internal`](ErrorKind::Internal): what was sealed does not open
    /// to the same value.
    pub(crate) async fn seal(&self, value: Value<'_>, row: Option<&[u8]>, framed: bool) -> Result<Vec<u8>> {
        self.encryptor.ready().await?;
        let sealed = match framed {
            true => self.encryptor.encrypt_framed(value, row).await?,
            false => self.encryptor.encrypt(value, row)?,
        };
        let opened = self.open(&sealed, row).await?;
        if same(&opened.value(), &value) {
            return Ok(sealed);
        }
        Err(Error::new(ErrorKind::Internal, "a value that was just sealed opens to another one; nothing was written"))
    }

    /// The value `sealed` under the current key.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open) and [`seal`](Self::seal).
    pub(crate) async fn reseal(&self, sealed: &[u8], row: Option<&[u8]>) -> Result<Resealed> {
        let opened = self.open(sealed, row).await?;
        let bytes = self.seal(opened.value(), row, is_frame(sealed)).await?;
        Ok(Resealed { bytes, compromised: opened.is_compromised() })
    }
}

/// Refuses a scope that the keyring does not have: sealing would make it.
pub(crate) fn refuse_new_scope(ring: &Keyring, scope: Option<&str>) -> Result<(), Failure> {
    match scope {
        Some(scope) if !pollster::block_on(ring.has_scope(scope))? => {
            Err(Failure::new(Exit::Key, "the keyring has no scope of the name that --scope gives"))
        }
        _ => Ok(()),
    }
}

fn is_frame(sealed: &[u8]) -> bool {
    sealed.starts_with(&[MAGIC, Suite::Frame.id()])
}

/// Suite and key ID of a value, of the one inside if it is in a frame.
///
/// # Errors
///
/// [`Malformed`](ErrorKind::Malformed), [`Unsupported`](ErrorKind::Unsupported).
fn header(sealed: &[u8]) -> Result<(Suite, KeyId)> {
    let sealed = if is_frame(sealed) { Frame::parse(sealed)?.sealed() } else { Sealed::parse(sealed)? };
    Ok((sealed.suite(), sealed.key_id()))
}

/// Whether two values are the same, bit by bit: a float that is no number equals itself here.
pub(crate) fn same(a: &Value<'_>, b: &Value<'_>) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()),
        _ => a == b,
    }
}
