//! One field with its keys, in one scope and context: which values are under an older key, and the same values under the
//! current one.

use keyfold::wire::{Frame, KeyId, MAGIC, Sealed, Suite};
use keyfold::{Decryptor, Encryptor, Error, ErrorKind, Field, FieldMode, FieldPolicy, KeyState, Opened, Result, Value};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// A field that is opened and sealed.
pub struct Resealer {
    encryptor: Encryptor,
    decryptor: Decryptor,
    /// Of keys of this field and scope that were met, by suite: no more than there are.
    states: Mutex<HashMap<(u8, KeyId), KeyState>>,
}

/// A value under the current key.
pub struct Resealed {
    /// The value, sealed.
    pub bytes: Vec<u8>,
    /// Whether the old one was under a compromised key: whoever has that can have made it.
    pub compromised: bool,
}

impl Resealer {
    /// Acquires the current key. Makes the scope if there is none of that name.
    ///
    /// # Errors
    ///
    /// Those of [`Field::encryptor`] and [`Field::decryptor`].
    pub async fn new(field: Field) -> Result<Self> {
        let decryptor = field.clone().decryptor();
        // The encryptor first: a new scope is made by it alone.
        let encryptor = field.encryptor().await?;
        Ok(Self { encryptor, decryptor: decryptor.await?, states: Mutex::default() })
    }

    /// The policy of the field.
    #[must_use]
    pub fn policy(&self) -> &FieldPolicy {
        self.encryptor.policy()
    }

    /// The key that seals.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.encryptor.key_id()
    }

    /// Whether a value with this header is to be sealed again. It is not under the key that seals, nor under one of the same
    /// slot that came after it. Generations alone say nothing: they count over the whole keyring.
    ///
    /// # Errors
    ///
    /// Those of [`Decryptor::key_state`]: the key is none of this field in this scope, so that nobody knows.
    pub async fn is_stale(&self, suite: Suite, key_id: KeyId) -> Result<bool> {
        let own = if matches!(self.policy().mode, FieldMode::Deterministic { .. } | FieldMode::Token { .. }) {
            Suite::Deterministic
        } else {
            Suite::Field
        };
        let suite = if suite == Suite::Frame { own } else { suite };
        let known = self.states.lock().unwrap_or_else(PoisonError::into_inner).get(&(suite.id(), key_id)).copied();
        let state = match known {
            Some(state) => state,
            None => {
                let state = self.decryptor.key_state(suite, key_id).await?;
                self.states.lock().unwrap_or_else(PoisonError::into_inner).insert((suite.id(), key_id), state);
                state
            }
        };
        Ok(match state {
            KeyState::Compromised => true,
            _ if key_id == self.key_id() => false,
            _ => suite != own || own == Suite::Deterministic || key_id.generation() < self.key_id().generation(),
        })
    }

    /// Whether the value `sealed` is to be sealed again.
    ///
    /// # Errors
    ///
    /// [`Malformed`](ErrorKind::Malformed), [`Unsupported`](ErrorKind::Unsupported); those of [`is_stale`](Self::is_stale).
    pub async fn needs(&self, sealed: &[u8]) -> Result<bool> {
        let (suite, key_id) = header(sealed)?;
        self.is_stale(suite, key_id).await
    }

    /// Opens a value, whatever key it is under.
    ///
    /// # Errors
    ///
    /// Those of acquiring its key and of [`Decryptor::decrypt`].
    pub async fn open(&self, sealed: &[u8], row: Option<&[u8]>) -> Result<Opened> {
        self.decryptor.load_keys(&[sealed][..]).await.map_err(|error| error.error)?;
        self.decryptor.decrypt(sealed, row)
    }

    /// Seals a value under the current key, in a frame if `framed`, and opens it again to compare.
    ///
    /// # Errors
    ///
    /// Those of [`Encryptor::ready`] and [`Encryptor::encrypt`]. [`Internal`](ErrorKind::Internal): what was sealed does not open
    /// to the same value.
    pub async fn seal(&self, value: Value<'_>, row: Option<&[u8]>, framed: bool) -> Result<Vec<u8>> {
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
    pub async fn reseal(&self, sealed: &[u8], row: Option<&[u8]>) -> Result<Resealed> {
        let opened = self.open(sealed, row).await?;
        let bytes = self.seal(opened.value(), row, is_frame(sealed)).await?;
        Ok(Resealed { bytes, compromised: opened.is_compromised() })
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
#[must_use]
pub fn same(a: &Value<'_>, b: &Value<'_>) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()),
        _ => a == b,
    }
}
