//! keyfold itself, with a key in memory: nonces, row bindings and key commitment are part of what is measured.

use crate::{Column, Opened, Peer, Rows};
use keyfold::testing::block_on;
use keyfold::{SealedColumn, Value};
use keyfold_benches::{Handles, seal};

pub(crate) struct Keyfold {
    handles: Handles,
    /// A value of the key.
    sealed: SealedColumn,
}

impl Keyfold {
    pub(crate) fn new() -> Self {
        let handles = Handles::randomized();
        let sealed = seal(&handles.encryptor, &keyfold_benches::Rows::new(1));
        Self { handles, sealed }
    }
}

impl Peer for Keyfold {
    fn renew(&self) {
        block_on(self.handles.encryptor.ready()).expect("the key is there");
        block_on(self.handles.decryptor.load_keys(&self.sealed)).expect("the key is there");
    }

    fn seal(&self, value: &[u8], row: &[u8]) -> Vec<u8> {
        self.handles.encryptor.encrypt(Value::Bytes(value), Some(row)).expect("well-formed")
    }

    fn open(&self, sealed: &[u8], row: &[u8]) -> Opened {
        Opened::Keyfold(self.handles.decryptor.decrypt(sealed, Some(row)).expect("just sealed"))
    }

    fn seal_column(&self, rows: &Rows) -> Column {
        Column::Keyfold(seal(&self.handles.encryptor, &rows.arrow))
    }

    fn open_column(&self, sealed: &Column, rows: &Rows) -> Column {
        let Column::Keyfold(sealed) = sealed else { unreachable!("seal_column makes no other") };
        let opened = self.handles.decryptor.decrypt_column(sealed, Some(&rows.arrow.rows())).expect("just sealed");
        Column::KeyfoldOpened(opened)
    }

    fn shared(&self) -> Option<&(dyn Peer + Sync)> {
        Some(self)
    }

    /// The row alone: keyfold makes an AAD of 100 bytes of it.
    fn aad(&self, row: usize) -> Vec<u8> {
        format!("row-{row:012}").into_bytes()
    }
}
