//! Scopes whose KEKs are in key services, each opened by its URI.

#![cfg(any(feature = "gcp", feature = "pkcs11"))]

mod common;

use common::{init, policy};
use keyfold::{ErrorKind, Keyring, Result, Value};
use std::fs;
use std::io::Write;
use std::path::Path;

const SCOPE: &str = "tenant 7";

/// A keyring in `folder` whose scope `tenant 7` has the KEK that `uri` names.
fn keyring(folder: &Path, uri: &str) -> Result<Keyring> {
    if !folder.join("keyfold.toml").exists() {
        init(folder, "test", None);
        fs::copy(folder.join("keyfold.toml"), folder.join("without.toml")).expect("copied");
    }
    let without = fs::read_to_string(folder.join("without.toml")).expect("the configuration");
    let tenant =
        format!("[keks.tenant]\nuri = \"{uri}\"\nwraps = \"scopes\"\n[scopes.\"{SCOPE}\"]\nkeks = [\"tenant\"]");
    fs::write(folder.join("keyfold.toml"), format!("{without}\n{tenant}\n")).expect("written");
    keyfold_open::open(&folder.join("keyfold.toml"), &[policy(folder)])
}

fn seal(ring: &Keyring) -> Result<Vec<u8>> {
    pollster::block_on(async { ring.field("note")?.scope(SCOPE).encryptor().await?.encrypt(Value::Text("Anna"), None) })
}

fn opens(ring: &Keyring, sealed: &[u8]) -> Result<bool> {
    pollster::block_on(async {
        let reader = ring.field("note")?.scope(SCOPE).decryptor().await?;
        reader.load_keys(&[sealed][..]).await.map_err(|error| error.error)?;
        Ok(matches!(reader.decrypt(sealed, None)?.value(), Value::Text("Anna")))
    })
}

/// Seals under the KEK that `uri` names and opens again after a restart, and the credential in the file `credential` is needed
/// for that and never overwritten.
fn works(folder: &Path, uri: &str, credential: &str) {
    let sealed = seal(&keyring(folder, uri).expect("opened")).expect("sealed");
    assert!(opens(&keyring(folder, uri).expect("opened"), &sealed).expect("revealed"));
    let own = keyfold_open::own_files(&folder.join("keyfold.toml"), &[]).expect("listed");
    assert!(own.contains(&folder.join(credential)), "{own:?}");
}

/// Not by `println!`, which the test harness swallows where a test passes.
fn skipped(variable: &str) {
    let _ = writeln!(
        std::io::stdout(),
        "\nSKIPPED {}: {variable} is not set",
        std::thread::current().name().unwrap_or_default()
    );
}

#[cfg(feature = "pkcs11")]
#[test]
fn a_scope_whose_kek_is_in_an_hsm() {
    let Ok(module) = std::env::var("KEYFOLD_TEST_PKCS11_MODULE") else { return skipped("KEYFOLD_TEST_PKCS11_MODULE") };
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("pin"), std::env::var("KEYFOLD_TEST_PKCS11_PIN").expect("a PIN")).expect("written");
    let uri = format!("pkcs11://token=keyfold;object=kek?module-path={module}&pin_file=pin");
    works(folder.path(), &uri, "pin");
    let own = keyfold_open::own_files(&folder.path().join("keyfold.toml"), &[]).expect("listed");
    assert!(own.contains(&module.into()), "{own:?}");
}

#[cfg(feature = "gcp")]
#[test]
fn a_scope_whose_kek_is_in_google_cloud() {
    let Ok(address) = std::env::var("KEYFOLD_TEST_GOOGLE_KMS") else { return skipped("KEYFOLD_TEST_GOOGLE_KMS") };
    let folder = tempfile::tempdir().expect("a folder");
    let key = ask(&address, "key", "{}");
    let may =
        r#"{"permissions":["cloudkms.cryptoKeyVersions.useToEncrypt","cloudkms.cryptoKeyVersions.useToDecrypt"]}"#;
    fs::write(folder.path().join("token"), ask(&address, "token", may)).expect("written");
    works(folder.path(), &format!("gcpkms://{key}?endpoint={address}&token_file=token"), "token");
}

/// Asks the fake of Cloud KMS for something that has one member, which is text.
#[cfg(feature = "gcp")]
fn ask(address: &str, what: &str, body: &str) -> String {
    use std::io::Read;
    let host = address.strip_prefix("http://").expect("an HTTP address");
    let mut stream = std::net::TcpStream::connect(host).expect("connected");
    let head =
        format!("POST /fake/{what} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {}", body.len());
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.rsplit('"').nth(1).expect("a member").to_owned()
}

// Failure T10
#[test]
fn a_credential_in_a_uri_is_refused_and_not_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let uris = [
        "pkcs11://token=a;object=b?module-path=m&pin-value=hunter2",
        "pkcs11:token=a;object=b?module-path=m&pin-value=hunter2",
        "gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k?token=hunter2",
        "gcpkms2://projects/p/locations/l/keyRings/r/cryptoKeys/k?token=hunter2",
    ];
    for uri in uris {
        // A KEK of scopes that cannot be opened is a warning, and what it is needed for fails.
        let error = keyring(folder.path(), uri).and_then(|ring| seal(&ring)).expect_err("refused");
        assert!(matches!(error.kind(), ErrorKind::Configuration | ErrorKind::Kms(_)), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}
