//! Values that keep their format (DESIGN F22): FF1, not authenticated.

use super::live::LiveKeys;
use super::{Field, WRONG_CLASS};
use crate::audit::Use;
use crate::column::RowError;
use crate::context::{NameKind, Strings};
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::Material;
use crate::lookup::{Format, FormatKey, Way};
use crate::policy::{FieldMode, FieldPolicy};
use crate::wire::KeyId;
use keyfold_memory::erasing_stack;
use std::sync::Arc;
use zeroize::Zeroizing;

impl Field {
    /// A handle that replaces values by others of the same format, and back.
    ///
    /// # Errors
    ///
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): the field is not format-preserving, or a required context key is missing.
    /// - [`Configuration`](ErrorKind::Configuration): the partition has more than one key, and a value does not say under which it is.
    /// - Those of acquiring the key; see [`decryptor`](Self::decryptor).
    pub async fn format_preserver(self) -> Result<FormatPreserver> {
        self.check()?;
        let FieldMode::FormatPreserving { partition, format } = &self.policy.mode else {
            return Err(Error::new(ErrorKind::PolicyRefused, "the values of this field do not keep their format")
                .with_detail(&self.policy.name));
        };
        let keys = LiveKeys::of(self.ring, &self.policy.name, partition)?;
        // F-17.4-5.
        if keys.key_ids().len() != 1 {
            let why =
                "a format-preserving value does not say its key, so its partition has exactly one: opens must be empty";
            return Err(Error::new(ErrorKind::Configuration, why).with_detail(format!("partition {partition}")));
        }
        let format = *format;
        let tweak = format.tweak(&Strings::new(NameKind::Field, &self.policy.name, &self.context)?.to_bytes());
        let preserver = FormatPreserver { policy: self.policy, format, tweak, keys };
        preserver.ready().await?;
        Ok(preserver)
    }
}

/// Replaces values of one field by others of the same format, and back. Shared freely between threads.
///
/// **Not authenticated.** Every text of the format opens to some value: what was changed, moved to another row, or sealed under another key is not
/// noticed. Equal values are replaced by equal ones. Bound to the field, its context, the partition and the format; to no row and no scope.
pub struct FormatPreserver {
    policy: Arc<FieldPolicy>,
    format: Format,
    tweak: Vec<u8>,
    keys: LiveKeys,
}

impl FormatPreserver {
    /// The policy of the field.
    #[must_use]
    pub fn policy(&self) -> &FieldPolicy {
        &self.policy
    }

    /// The key of the partition.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.keys.key_ids()[0]
    }

    /// Makes sure that the key may be used, within the times of the [`CachePolicy`](crate::CachePolicy). Await it before the other calls: it costs
    /// a few loads unless there is something to do.
    ///
    /// # Errors
    ///
    /// As for [`Field::format_preserver`]; [`Closed`](ErrorKind::Closed) after [`Keyring::close`](crate::Keyring::close).
    pub async fn ready(&self) -> Result<&Self> {
        self.keys.ready().await?;
        Ok(self)
    }

    /// The text that stands in the place of `text`: as long, with the same separators.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): not of the format, or fewer than 10⁶ values are.
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): more than 256 characters would vary.
    /// - [`KeyState`](ErrorKind::KeyState): the key only opens.
    /// - [`DeadlineExceeded`](ErrorKind::DeadlineExceeded): the key has been held for as long as the cache policy allows;
    ///   [`ready`](Self::ready) renews it. A key that was revoked gives the error that revoked it.
    pub fn encrypt(&self, text: &str) -> Result<String> {
        let mut encrypted = self.column(Way::Encrypt, &[text]).map_err(|failed| failed.error)?;
        Ok(encrypted.pop().map(|mut text| std::mem::take(&mut *text)).unwrap_or_default())
    }

    /// The text that `encrypted` stands for. Nothing shows whether it was made by [`encrypt`](Self::encrypt).
    ///
    /// # Errors
    ///
    /// As for [`encrypt`](Self::encrypt); a key that only opens will do.
    pub fn decrypt(&self, encrypted: &str) -> Result<Zeroizing<String>> {
        let mut texts = self.column(Way::Decrypt, &[encrypted]).map_err(|failed| failed.error)?;
        Ok(texts.pop().unwrap_or_default())
    }

    /// As [`encrypt`](Self::encrypt), for each row of a column. Erased on drop.
    ///
    /// # Errors
    ///
    /// As for [`encrypt`](Self::encrypt), with the row. Nothing is returned for the other rows.
    pub fn encrypt_column(&self, texts: &[&str]) -> Result<Vec<Zeroizing<String>>, RowError> {
        self.column(Way::Encrypt, texts)
    }

    /// As [`decrypt`](Self::decrypt), for each row of a column. Erased on drop.
    ///
    /// # Errors
    ///
    /// As for [`decrypt`](Self::decrypt), with the row. Nothing is returned for the other rows.
    pub fn decrypt_column(&self, encrypted: &[&str]) -> Result<Vec<Zeroizing<String>>, RowError> {
        self.column(Way::Decrypt, encrypted)
    }

    fn column(&self, way: Way, texts: &[&str]) -> Result<Vec<Zeroizing<String>>, RowError> {
        let failed = |error| self.keys.uses.failed(error);
        let key = if way == Way::Encrypt { self.keys.sealing() } else { self.keys.first() }.map_err(failed)?;
        let Material::Lookup { format_preserving, .. } = &key.material else { return Err(failed(WRONG_CLASS).into()) };
        // FF1 expands the key, and copies what it has expanded.
        let replaced = erasing_stack(|| {
            let cipher = FormatKey::new(self.format, &self.tweak, format_preserving);
            let one =
                |(row, text): (usize, &&str)| cipher.apply(way, text).map_err(|error| RowError::at(row)(failed(error)));
            texts.iter().enumerate().map(one).collect::<Result<_, _>>()
        })?;
        let used = if way == Way::Encrypt { Use::Sealed } else { Use::Opened };
        self.keys.uses.count(key.key_id, used, texts.len() as u64);
        Ok(replaced)
    }
}

impl core::fmt::Debug for FormatPreserver {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("FormatPreserver")
            .field("field", &self.policy.name)
            .field("key_id", &self.key_id())
            .finish_non_exhaustive()
    }
}
