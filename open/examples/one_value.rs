//! One value, from a service: encrypt, decrypt, and see whether its key is still the current one.
//!
//!     cargo run -p keyfold-open --example one_value -- FOLDER
//!
//! makes a keyring in FOLDER if there is none. In a service, open the keyring and make the handles once, and share them.

use keyfold::{Result, Value};
use std::path::Path;

const POLICY: &str =
    "version = 1\n[fields.\"patient.ssn\"]\nidentifier = \"G\"\nrow_binding = \"patient_id\"\ncolumns = [\"ssn\"]\n";

async fn run(folder: &Path) -> Result<()> {
    let (config, policy) = (folder.join("keyfold.toml"), folder.join("policy.toml"));
    if !config.exists() {
        keyfold_open::init(folder, "example", "development").await?;
        std::fs::write(&policy, POLICY).expect("the folder was just made");
    }
    let ring = keyfold_open::open(&config, &[policy])?;

    let ssn = ring.field("patient.ssn")?.encryptor().await?; // may call the key service
    let sealed = ssn.encrypt(Value::Text("999-81-5679"), Some(b"p-17"))?; // never does; bytes for a BLOB or BYTEA column

    let reader = ring.field("patient.ssn")?.decryptor().await?;
    reader.load_keys(&[&sealed][..]).await?; // may call the key service; once per batch of values
    let opened = reader.decrypt(&sealed, Some(b"p-17"))?;
    assert!(opened.value() == Value::Text("999-81-5679"));
    assert!(reader.decrypt(&sealed, Some(b"p-18")).is_err(), "another patient's row");
    println!("{} bytes under {}, current: {}", sealed.len(), ssn.key_id(), opened.is_current());

    // In text columns, CSV and JSON the same value has a text form, which the command reads and writes.
    let mut text = Vec::new();
    keyfold::wire::push_text(&sealed, &mut text)?;
    println!("{}", String::from_utf8_lossy(&text));
    Ok(())
}

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "ring".to_owned());
    pollster::block_on(run(Path::new(&folder)))
}
