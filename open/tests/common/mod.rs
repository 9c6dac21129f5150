//! What the tests of this crate share.
#![allow(dead_code, reason = "every test program uses a part of this")]

pub(crate) mod residue;

use keyfold::{Keyring, Result, Value};
use keyfold_open::{Initialised, NewKeyring};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use url::Url;

pub(crate) const POLICY: &str = "version = 1\n[fields.note]\nrow_binding = \"none\"\ncolumns = [\"note\"]\n";

/// The URI of a schema of its own on the server that tests are given; `None`, said aloud, where there is none.
pub(crate) fn postgres(schema: &str) -> Option<String> {
    let Ok(uri) = std::env::var("KEYFOLD_TEST_POSTGRES") else {
        // Not by `println!`, which the test harness swallows where a test passes.
        let _ = writeln!(
            std::io::stdout(),
            "\nSKIPPED {}: KEYFOLD_TEST_POSTGRES names no PostgreSQL server",
            std::thread::current().name().unwrap_or_default()
        );
        return None;
    };
    let ca = std::env::var("KEYFOLD_TEST_POSTGRES_CA").expect("KEYFOLD_TEST_POSTGRES_CA names the CA");
    let mut uri: Url = uri.parse().expect("a URI");
    let schema = format!("{schema}_{}", std::process::id());
    uri.query_pairs_mut().append_pair("sslrootcert", &ca).append_pair("schema", &schema);
    Some(uri.into())
}

/// Makes a keyring and a policy in `folder`, in the database `store` or in an SQLite file.
pub(crate) fn init(folder: &Path, environment: &str, store: Option<&str>) -> Initialised {
    let new = NewKeyring {
        name: "ring".to_owned(),
        environment: environment.to_owned(),
        store: store.map(str::to_owned),
        ..NewKeyring::default()
    };
    let made = pollster::block_on(keyfold_open::init_with(folder, &new, &keyfold_open::Options::default()));
    fs::write(policy(folder), POLICY).expect("written");
    made.expect("a keyring")
}

pub(crate) fn policy(folder: &Path) -> PathBuf {
    folder.join("policy.toml")
}

pub(crate) fn open(folder: &Path) -> Keyring {
    keyfold_open::open(&folder.join("keyfold.toml"), &[policy(folder)]).expect("opened")
}

pub(crate) fn seal(ring: &Keyring, text: &str) -> Vec<u8> {
    let sealed = pollster::block_on(async { ring.field("note")?.encryptor().await?.encrypt(Value::Text(text), None) });
    sealed.expect("sealed")
}

pub(crate) fn reveal(ring: &Keyring, sealed: &[u8]) -> Result<String> {
    pollster::block_on(async {
        let reader = ring.field("note")?.decryptor().await?;
        reader.load_keys(&[sealed][..]).await.map_err(|error| error.error)?;
        let opened = reader.decrypt(sealed, None)?;
        match opened.value() {
            Value::Text(text) => Ok(text.to_owned()),
            other => panic!("{other:?} is no text"),
        }
    })
}

/// A keyring in a folder, and its configuration.
pub(crate) fn keyring() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    pollster::block_on(keyfold_open::init(folder.path(), "clinic", "test")).expect("a keyring");
    let config = folder.path().join("keyfold.toml");
    (folder, config)
}
