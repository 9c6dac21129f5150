//! The local KEK: conformance, who may read the file, and every way in which it can be damaged.

use keyfold::testing::{ContextBinding, block_on, kms_conformance};
use keyfold::wire::KeyId;
use keyfold::{ErrorKind, Kms, KmsContext, KmsErrorKind, Lineage, Secret, UnwrapRequest, WrapRequest, WrappedKey};
use keyfold_kms::LocalKek;
use rustix::fs::{CWD, FileType, Mode};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("local.kek");
    (folder, path)
}

fn context() -> KmsContext {
    KmsContext::new("test", Lineage::from_bytes([1; 16]), KeyId::from_bytes([2; 24]))
}

fn wrap(kek: &LocalKek, payload: &Secret<64>) -> WrappedKey {
    block_on(kek.wrap(WrapRequest::new(payload, &context()))).expect("wrapped")
}

fn unwrap(kek: &LocalKek, wrapped: &WrappedKey) -> Result<Secret<64>, ErrorKind> {
    block_on(kek.unwrap(UnwrapRequest::new(wrapped, &context()))).map_err(|error| error.kind())
}

fn payload() -> Secret<64> {
    Secret::with(|payload| payload.fill(0xC7))
}

/// Opening fails; the error names the file and shows no part of the key in it.
fn refusal(path: &Path, what: &str) -> (ErrorKind, String) {
    let Err(error) = LocalKek::open(path) else { panic!("{what}: accepted") };
    let text = format!("{error} {error:?}");
    assert!(text.contains(path.to_str().expect("text")), "{what}: {text}");
    if let Ok(content) = fs::read_to_string(path) {
        let digits = content.lines().nth(1).unwrap_or_default();
        for part in digits.as_bytes().chunks_exact(8) {
            assert!(!text.contains(std::str::from_utf8(part).expect("text")), "{what}: shows the key");
        }
    }
    (error.kind(), text)
}

fn write(path: &Path, content: &[u8]) {
    fs::write(path, content).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("changed");
}

#[test]
fn conforms() {
    let (_folder, path) = folder();
    kms_conformance(&LocalKek::create(&path).expect("created"), ContextBinding::ByKeyfold);
}

#[test]
fn what_one_process_wraps_another_unwraps() {
    let (_folder, path) = folder();
    let created = LocalKek::create(&path).expect("created");
    let wrapped = wrap(&created, &payload());
    assert_eq!(wrapped.bytes.len(), 72);
    let opened = LocalKek::open(&path).expect("opened");
    assert_eq!(opened.id(), created.id());
    assert!(unwrap(&opened, &wrapped).is_ok_and(|found| found.expose() == payload().expose()));
}

/// Covers F-A-2.
#[test]
fn another_kek_is_told_apart_from_damaged_bytes() {
    let (folder, path) = folder();
    let ours = LocalKek::create(&path).expect("created");
    let theirs = LocalKek::create(folder.path().join("other.kek")).expect("created");
    assert_ne!(ours.id(), theirs.id());
    let wrapped = wrap(&ours, &payload());
    assert_eq!(unwrap(&theirs, &wrapped).err(), Some(ErrorKind::Kms(KmsErrorKind::WrongKey)));
    // Whoever edits the version gains nothing.
    let relabelled = WrappedKey { kek_version: theirs.id().to_owned(), ..wrapped };
    assert_eq!(unwrap(&theirs, &relabelled).err(), Some(ErrorKind::Kms(KmsErrorKind::InvalidCiphertext)));
}

/// Covers F-A-2, KC-4.
#[test]
fn a_payload_of_another_length_is_refused() {
    use aes_kw::{KeyInit, KwpAes256};
    let (_folder, path) = folder();
    let kek = LocalKek::create(&path).expect("created");
    let text = fs::read_to_string(&path).expect("read");
    let digits = text.lines().nth(1).expect("a key").as_bytes();
    let key: [u8; 32] = data_encoding::HEXLOWER.decode(digits).expect("hexadecimal").try_into().expect("32 bytes");
    for len in 57..=64 {
        let mut bytes = vec![0; 72];
        KwpAes256::new(&key.into()).wrap_key(&[7; 64][..len], &mut bytes).expect("wrapped");
        let wrapped = WrappedKey { kek_version: kek.id().to_owned(), bytes };
        let expected = (len < 64).then_some(ErrorKind::Kms(KmsErrorKind::InvalidCiphertext));
        assert_eq!(unwrap(&kek, &wrapped).err(), expected, "{len} bytes");
    }
}

// Failure K8
#[test]
fn create_makes_a_private_file_and_replaces_nothing() {
    let (folder, path) = folder();
    LocalKek::create(&path).expect("created");
    assert_eq!(fs::metadata(&path).expect("metadata").permissions().mode() & 0o7777, 0o600);
    let before = fs::read(&path).expect("read");
    let target = folder.path().join("target");
    let link = folder.path().join("link");
    symlink(&target, &link).expect("linked");
    for taken in [&path, &link, &folder.path().to_path_buf()] {
        assert_eq!(LocalKek::create(taken).err().map(|e| e.kind()), Some(ErrorKind::Io), "{}", taken.display());
    }
    assert_eq!(fs::read(&path).expect("read"), before);
    assert!(!target.exists(), "create followed a link");
    let missing = folder.path().join("missing/local.kek");
    assert_eq!(LocalKek::create(missing).err().map(|e| e.kind()), Some(ErrorKind::Io));
}

// Failure K1
#[test]
fn every_permission_of_others_is_refused() {
    let (_folder, path) = folder();
    LocalKek::create(&path).expect("created");
    for mode in (0..=0o777).filter(|mode| mode & 0o400 != 0) {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("changed");
        if mode & 0o077 == 0 {
            assert!(LocalKek::open(&path).is_ok(), "{mode:o}");
            continue;
        }
        let (kind, text) = refusal(&path, &format!("{mode:o}"));
        assert_eq!(kind, ErrorKind::Configuration);
        assert!(text.contains(&format!("mode {mode:04o}")) && text.contains("chmod 600"), "{text}");
    }
}

// Failure K1
#[test]
fn links_folders_pipes_and_foreign_files_are_refused() {
    let (folder, path) = folder();
    LocalKek::create(&path).expect("created");
    let link = folder.path().join("link");
    symlink(&path, &link).expect("linked");
    assert_eq!(refusal(&link, "a link").0, ErrorKind::Configuration);
    assert_eq!(refusal(folder.path(), "a folder").0, ErrorKind::Configuration);
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
    let (kind, text) = match LocalKek::open(&pipe) {
        Err(error) => (error.kind(), error.to_string()),
        Ok(_) => panic!("a pipe was accepted"),
    };
    assert_eq!(kind, ErrorKind::Configuration, "{text}");
    assert_eq!(refusal(&folder.path().join("missing"), "missing").0, ErrorKind::Io);
    // A second name of the same file does no harm.
    let second = folder.path().join("second");
    fs::hard_link(&path, &second).expect("linked");
    assert!(LocalKek::open(&second).is_ok());
    // Only root can give a file away.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(12_345), None).expect("given away");
        assert_eq!(refusal(&path, "a foreign file").0, ErrorKind::Configuration);
    }
}

/// Covers F-A-1.
// Failure K4
#[test]
fn every_truncation_and_every_flipped_bit_is_refused() {
    let (_folder, path) = folder();
    LocalKek::create(&path).expect("created");
    let good = fs::read(&path).expect("read");
    for len in 0..good.len() {
        write(&path, &good[..len]);
        assert_eq!(refusal(&path, &format!("{len} bytes")).0, ErrorKind::Malformed);
    }
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        write(&path, &bad);
        let (kind, _) = refusal(&path, &format!("bit {bit}"));
        let allowed: &[ErrorKind] = match bit / 8 {
            0..=17 => &[ErrorKind::Configuration],
            18 => &[ErrorKind::Unsupported, ErrorKind::Malformed],
            _ => &[ErrorKind::Malformed],
        };
        assert!(allowed.contains(&kind), "bit {bit}: {kind:?}");
    }
}

/// Covers F-A-1.
#[test]
fn other_contents_are_refused_with_their_reason() {
    let (_folder, path) = folder();
    LocalKek::create(&path).expect("created");
    let good = fs::read_to_string(&path).expect("read");
    let cases = [
        ("a line feed more", format!("{good}\n"), ErrorKind::Malformed),
        ("a megabyte more", format!("{good}{}", "0".repeat(1 << 20)), ErrorKind::Malformed),
        ("carriage returns", good.replace('\n', "\r\n"), ErrorKind::Malformed),
        (
            "digits in upper case",
            good.to_uppercase().replacen("KEYFOLD-LOCAL-KEK", "keyfold-local-kek", 1),
            ErrorKind::Malformed,
        ),
        ("a newer version", good.replacen("kek-1", "kek-2", 1), ErrorKind::Unsupported),
        ("a much newer version", good.replacen("kek-1", "kek-10", 1), ErrorKind::Unsupported),
        ("another file", "-----BEGIN PRIVATE KEY-----\n".repeat(10), ErrorKind::Configuration),
        ("zeros", "\0".repeat(good.len()), ErrorKind::Configuration),
    ];
    for (what, content, expected) in cases {
        write(&path, content.as_bytes());
        assert_eq!(refusal(&path, what).0, expected, "{what}");
    }
    write(&path, good.as_bytes());
    assert!(LocalKek::open(&path).is_ok());
}

#[test]
fn debug_shows_no_key() {
    let (_folder, path) = folder();
    let kek = LocalKek::create(&path).expect("created");
    assert_eq!(format!("{kek:?}"), format!("LocalKek {{ id: {:?}, .. }}", kek.id()));
}
