//! Handles for fields that are streams (DESIGN F23).

use super::Field;
use super::sealing::SealingKeys;
use super::used::Uses;
use crate::context::BoundContext;
use crate::error::{Error, ErrorKind, Result};
use crate::policy::{FieldMode, RowBinding};
use crate::stream::{Bound, StreamOpener, StreamSealer};

impl Field {
    /// A handle that seals streams. Makes the scope if the keyring has none of that name.
    ///
    /// # Errors
    ///
    /// As for [`encryptor`](Self::encryptor), and [`PolicyRefused`](ErrorKind::PolicyRefused): the field is none of streams, or only what
    /// FIPS 140 approves [is allowed](crate::fips::Rule::Required), which streams are opened with, not sealed: their nonces count.
    // F-19.3-2 (crate::stream).
    pub async fn stream_sealer(self) -> Result<StreamSealer> {
        let uses = Uses::new(&self.ring, &self.policy.name);
        let made = async {
            let bound = self.bind_streams()?;
            self.ring.fips().refuse(&self.policy.name, "AES-GCM under nonces that count")?;
            let slot = self.ring.data_slot_or_new(self.scope.as_deref()).await?;
            let current = self.ring.current(slot, None);
            let keys = SealingKeys::new(&self.ring, current).await?;
            Ok(StreamSealer::new(bound, keys))
        };
        made.await.map_err(|error| uses.failed(error))
    }

    /// A handle that opens streams. Never makes a scope.
    ///
    /// # Errors
    ///
    /// As for [`stream_sealer`](Self::stream_sealer), and [`NoMatchingKey`](ErrorKind::NoMatchingKey): there is no such scope.
    // F-19.4-5, F-19.4-7, F-19.4-8 (crate::stream).
    pub async fn stream_opener(self) -> Result<StreamOpener> {
        let uses = Uses::new(&self.ring, &self.policy.name);
        let made = async {
            let bound = self.bind_streams()?;
            let slot = self.ring.data_slot(self.scope.as_deref()).await?;
            let current = self.ring.current(slot, None);
            self.ring.look_at_newest(&current).await;
            Ok(StreamOpener::new(bound, slot, current))
        };
        made.await.map_err(|error| uses.failed(error))
    }

    // F-19.4-1, F-19.4-3.
    fn bind_streams(&self) -> Result<Bound> {
        self.check()?;
        if self.policy.mode != FieldMode::Stream {
            return Err(Error::new(
                ErrorKind::PolicyRefused,
                "the field is none of streams: mode = \"stream\" makes one",
            )
            .with_detail(format!("field {}", self.policy.name)));
        }
        Ok(Bound {
            ring: self.ring.clone(),
            policy: self.policy.clone(),
            context: BoundContext::new(&self.context, self.policy.row_binding != RowBinding::None)?,
            uses: Uses::new(&self.ring, &self.policy.name),
        })
    }
}
