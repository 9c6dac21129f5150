//! Moving a value from one row to another on purpose: two records of one patient were merged (DESIGN F12).

use super::{Decryptor, Encryptor, Field};
use crate::column::{ColumnBytes, RowError, SealedColumn};
use crate::error::{Error, ErrorKind, Result};
use crate::policy::{FieldPolicy, RowBinding};

impl Field {
    /// A handle that moves values to other rows. Never makes a scope.
    ///
    /// # Errors
    ///
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): the policy does not bind the field to its row, so that there is
    ///   nothing to move; no key was touched.
    /// - Those of [`decryptor`](Self::decryptor) and [`encryptor`](Self::encryptor).
    pub async fn rebinder(self) -> Result<Rebinder> {
        if self.policy.row_binding == RowBinding::None {
            return Err(Error::new(ErrorKind::PolicyRefused, "the policy does not bind the field to its row")
                .with_detail(&self.policy.name));
        }
        // First, since it refuses a scope that there is not; the other would make it.
        let decryptor = self.clone().decryptor().await?;
        Ok(Rebinder { decryptor, encryptor: self.encryptor().await? })
    }
}

/// Moves values of one field from row to row, under one scope and context. Gives out no plaintext: what it opens is
/// sealed again at once, under the current key, and erased. Shared freely between threads.
///
/// Every call that succeeds is a `tracing` event of level `INFO` with the field's name and the number of values; row
/// values are in no event and no error.
pub struct Rebinder {
    decryptor: Decryptor,
    encryptor: Encryptor,
}

impl Rebinder {
    /// The policy of the field.
    #[must_use]
    pub fn policy(&self) -> &FieldPolicy {
        self.encryptor.policy()
    }

    /// Acquires the keys that `sealed` needs, and has those renewed that are due, the one that seals among them.
    ///
    /// # Errors
    ///
    /// As for [`Decryptor::load_keys`] and [`Encryptor::ready`].
    pub async fn load_keys(&self, sealed: &(impl ColumnBytes + ?Sized)) -> Result<(), RowError> {
        self.encryptor.ready().await?;
        self.decryptor.load_keys(sealed).await
    }

    /// Seals the value of the row `from` for the row `to`. Its keys must be held.
    ///
    /// `sealed` stays valid for `from`: whoever stores it removes it.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): `from` and `to` are equal.
    /// - [`KeyState`](ErrorKind::KeyState): the value is under a compromised key, so it may be forged, and under the
    ///   current one nobody could tell.
    /// - Those of [`Decryptor::decrypt`] and [`Encryptor::encrypt`].
    pub fn rebind(&self, sealed: &[u8], from: &[u8], to: &[u8]) -> Result<Vec<u8>> {
        refuse_same_row(from, to)?;
        let opened = self.decryptor.decrypt(sealed, Some(from))?;
        refuse_compromised(usize::from(opened.is_compromised()))?;
        let moved = self.encryptor.encrypt(opened.value(), Some(to))?;
        self.report(1);
        Ok(moved)
    }

    /// Seals a column of values, each of its row of `from`, for the rows `to`. The keys that open them must be held; as many seal as it takes
    /// ([`Encryptor::encrypt_parts`]).
    ///
    /// # Errors
    ///
    /// As for [`rebind`](Self::rebind), with the row. Nothing is returned for the other rows.
    pub async fn rebind_column(
        &self,
        sealed: &(impl ColumnBytes + ?Sized),
        from: &(impl ColumnBytes + ?Sized),
        to: &(impl ColumnBytes + ?Sized),
    ) -> Result<SealedColumn, RowError> {
        for row in 0..from.len().min(to.len()) {
            refuse_same_row(from.bytes(row), to.bytes(row)).map_err(RowError::at(row))?;
        }
        let opened = self.decryptor.decrypt_column(sealed, Some(from))?;
        refuse_compromised(opened.compromised())?;
        let moved = self.encryptor.encrypt_parts(&opened, Some(to)).await?;
        self.report(moved.len());
        Ok(moved)
    }

    fn report(&self, values: usize) {
        tracing::info!(field = self.policy().name, values, "values bound to another row");
    }
}

impl core::fmt::Debug for Rebinder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Rebinder").field("field", &self.policy().name).finish_non_exhaustive()
    }
}

fn refuse_same_row(from: &[u8], to: &[u8]) -> Result<()> {
    if from == to {
        return Err(Error::new(ErrorKind::InvalidInput, "a value is moved to another row than its own"));
    }
    Ok(())
}

fn refuse_compromised(values: usize) -> Result<()> {
    if values > 0 {
        return Err(Error::new(ErrorKind::KeyState, "a value under a compromised key may be forged, and is not moved"));
    }
    Ok(())
}
