//! The KEK with a passphrase: conformance, bounds, every way in which its file can be damaged, and silence.

use keyfold::testing::{ContextBinding, block_on, kms_conformance};
use keyfold::wire::KeyId;
use keyfold::{Error, ErrorKind, Kms, KmsContext, KmsErrorKind, Lineage, Result, Secret, UnwrapRequest, WrapRequest};
use keyfold_kms::LocalKek;
use keyfold_kms::passphrase::{Argon2Params, PassphraseKek, PassphraseSource};
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tempfile::TempDir;
use zeroize::Zeroizing;

const PASSPHRASE: &str = "correct horse battery staple";

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("offline.kek");
    (folder, path)
}

fn says(passphrase: &'static str) -> PassphraseSource {
    Arc::new(move || Ok(Zeroizing::new(passphrase.to_owned())))
}

fn create(path: &Path) -> String {
    PassphraseKek::create(path, PASSPHRASE, Argon2Params::MIN).expect("created")
}

fn context() -> KmsContext {
    KmsContext::new("test", Lineage::from_bytes([1; 16]), KeyId::from_bytes([2; 24]))
}

fn payload() -> Secret<64> {
    Secret::with(|payload| payload.fill(0xC7))
}

fn wrap(kek: &dyn Kms) -> Result<keyfold::WrappedKey> {
    block_on(kek.wrap(WrapRequest::new(&payload(), &context())))
}

#[test]
fn conforms() {
    let (_folder, path) = folder();
    create(&path);
    kms_conformance(&PassphraseKek::open(&path, says(PASSPHRASE)).expect("opened"), ContextBinding::ByKeyfold);
}

#[test]
fn what_one_process_wraps_another_unwraps_and_the_passphrase_is_asked_for_once() {
    let (_folder, path) = folder();
    let id = create(&path);
    assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o7777, 0o600);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let source: PassphraseSource = Arc::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(Zeroizing::new(PASSPHRASE.to_owned()))
    });
    let kek = PassphraseKek::open(&path, source).expect("opened");
    assert_eq!(asked.load(Ordering::SeqCst), 0, "opening asks for nothing");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(wrap(&kek).expect("wrapped").kek_version, id));
        }
    });
    assert_eq!(asked.load(Ordering::SeqCst), 1, "however many wait for it");
    let wrapped = wrap(&kek).expect("wrapped");
    let other = PassphraseKek::open(&path, says(PASSPHRASE)).expect("opened");
    let found = block_on(other.unwrap(UnwrapRequest::new(&wrapped, &context()))).expect("unwrapped");
    assert!(found.expose() == payload().expose());
}

/// Covers F-A-5.
#[test]
fn a_wrong_passphrase_is_told_apart_remembered_and_never_shown() {
    let (_folder, path) = folder();
    create(&path);
    for wrong in ["correct horse battery stapl", "Correct horse battery staple", ""] {
        let kek = PassphraseKek::open(&path, says(wrong)).expect("opened");
        let began = Instant::now();
        let error = wrap(&kek).expect_err("wrong");
        assert_eq!(error.kind(), ErrorKind::Kms(KmsErrorKind::Credentials));
        let tried = began.elapsed();
        let again = || {
            let began = Instant::now();
            assert_eq!(wrap(&kek).expect_err("still wrong").kind(), ErrorKind::Kms(KmsErrorKind::Credentials));
            began.elapsed()
        };
        // Of several, of which something else may have held one up.
        let again = (0..5).map(|_| again()).min().expect("five");
        assert!(again < tried / 4, "remembered, not tried again: {again:?} after {tried:?}");
        let text = format!("{error} {error:?} {kek:?}");
        assert!(!text.contains("horse") && !text.contains("staple"), "{text}");
    }
    let kek = PassphraseKek::open(&path, says(PASSPHRASE)).expect("opened");
    wrap(&kek).expect("right");
    assert!(!format!("{kek:?}").contains("horse"));
}

#[test]
fn a_source_that_has_none_is_asked_again() {
    let (_folder, path) = folder();
    create(&path);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let source: PassphraseSource = Arc::new(move || match counted.fetch_add(1, Ordering::SeqCst) {
        0 => Err(Error::new(ErrorKind::Configuration, "no terminal")),
        1 => panic!("on purpose"),
        _ => Ok(Zeroizing::new(PASSPHRASE.to_owned())),
    });
    let kek = PassphraseKek::open(&path, source).expect("opened");
    let error = wrap(&kek).expect_err("no terminal");
    assert_eq!(error.kind(), ErrorKind::Kms(KmsErrorKind::Credentials), "others are asked then");
    assert!(error.to_string().contains("no terminal"), "{error}");
    assert_eq!(wrap(&kek).expect_err("panicked").kind(), ErrorKind::Kms(KmsErrorKind::Credentials));
    wrap(&kek).expect("the third time");
}

#[test]
fn weak_passphrases_and_parameters_are_refused_and_leave_no_file() {
    let (_folder, path) = folder();
    let long = "a".repeat(4097);
    for passphrase in ["", "elevencharä", "with a\nline feed", "with a\0zero byte", &long] {
        let error = PassphraseKek::create(&path, passphrase, Argon2Params::MIN).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(passphrase.is_empty() || !error.to_string().contains(passphrase));
    }
    // Characters, not bytes.
    PassphraseKek::create(path.with_extension("ä"), "zwölfzeichää", Argon2Params::MIN).expect("twelve");
    for (memory, passes, lanes) in [
        (19 * 1024 - 1, 2, 1),
        ((1 << 20) + 1, 2, 1),
        (1 << 15, 1, 1),
        (1 << 15, 17, 1),
        (1 << 15, 2, 0),
        (1 << 15, 2, 9),
        (0, 0, 0),
    ] {
        let refused = Argon2Params::new(memory, passes, lanes).expect_err("out of bounds");
        assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
    }
    assert!(Argon2Params::new(19 * 1024, 2, 1).is_ok() && Argon2Params::new(1 << 20, 16, 8).is_ok());
    assert!(!path.exists());
    create(&path);
    let before = fs::read(&path).expect("read");
    assert_eq!(PassphraseKek::create(&path, PASSPHRASE, Argon2Params::MIN).expect_err("exists").kind(), ErrorKind::Io);
    assert_eq!(fs::read(&path).expect("read"), before);
}

fn write(path: &Path, content: &[u8]) {
    fs::write(path, content).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("changed");
}

fn opening(path: &Path) -> ErrorKind {
    let source: PassphraseSource = Arc::new(|| panic!("asked for the passphrase of a damaged file"));
    PassphraseKek::open(path, source).expect_err("refused").kind()
}

/// Covers F-A-3.
#[test]
fn every_changed_byte_and_every_cut_is_found_before_anybody_is_asked() {
    let (_folder, path) = folder();
    create(&path);
    let good = fs::read(&path).expect("read");
    for at in 0..good.len() {
        for bit in [1, 4, 32, 128] {
            let mut bytes = good.clone();
            bytes[at] ^= bit;
            write(&path, &bytes);
            let kind = opening(&path);
            let expected = [ErrorKind::Malformed, ErrorKind::Unsupported, ErrorKind::Configuration];
            assert!(expected.contains(&kind) && (at < 25 || kind == ErrorKind::Malformed), "byte {at}: {kind:?}");
        }
        write(&path, &good[..at]);
        assert_eq!(opening(&path), ErrorKind::Malformed, "cut at {at}");
    }
    for more in [&b"\n"[..], b"x", b"more\n"] {
        write(&path, &[&good, more].concat());
        assert_eq!(opening(&path), ErrorKind::Malformed);
    }
}

/// The file with another line of parameters, and the checksum that fits.
fn with_params(good: &str, params: &str) -> String {
    let lines: Vec<&str> = good.lines().collect();
    let text = format!("{}\n{params}\n{}\n{}\n", lines[0], lines[2], lines[3]);
    let digest = Sha256::digest(&text);
    let checksum: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{text}{checksum}\n")
}

/// Covers F-A-3, F-A-4.
// Failure K7
#[test]
fn parameters_of_a_file_are_bounded_both_ways_and_have_one_spelling() {
    let (_folder, path) = folder();
    create(&path);
    let good = fs::read_to_string(&path).expect("read");
    let same = good.lines().nth(1).expect("a line").to_owned();
    assert_eq!(with_params(&good, &same), good);
    for params in [
        "argon2id m=19455 t=2 p=1",
        "argon2id m=1048577 t=2 p=1",
        "argon2id m=4294967295 t=2 p=1",
        "argon2id m=4294967296 t=2 p=1",
        "argon2id m=19456 t=1 p=1",
        "argon2id m=19456 t=17 p=1",
        "argon2id m=19456 t=2 p=0",
        "argon2id m=19456 t=2 p=9",
        "argon2id m=019456 t=2 p=1",
        "argon2id m=+19456 t=2 p=1",
        "argon2id m=19456  t=2 p=1",
        "argon2id m=19456 t=2 p=1 ",
        "argon2id m=19456 t=2 p=1 x=1",
        "argon2id t=2 m=19456 p=1",
        "argon2i m=19456 t=2 p=1",
        "argon2id",
        "",
    ] {
        write(&path, with_params(&good, params).as_bytes());
        assert_eq!(opening(&path), ErrorKind::Malformed, "{params:?}");
    }
    // Within the bounds, but not those under which the key was wrapped: no key comes out.
    write(&path, with_params(&good, "argon2id m=19456 t=3 p=1").as_bytes());
    let kek = PassphraseKek::open(&path, says(PASSPHRASE)).expect("opened");
    assert_eq!(wrap(&kek).expect_err("another key").kind(), ErrorKind::Kms(KmsErrorKind::Credentials));
}

#[test]
fn other_files_are_refused() {
    let (folder, path) = folder();
    LocalKek::create(&path).expect("created");
    assert_eq!(opening(&path), ErrorKind::Configuration);
    fs::remove_file(&path).expect("removed");
    create(&path);
    assert_eq!(LocalKek::open(&path).err().map(|error| error.kind()), Some(ErrorKind::Configuration));
    let newer = fs::read_to_string(&path).expect("read").replace("-kek-1", "-kek-2");
    let link = folder.path().join("link");
    symlink(&path, &link).expect("linked");
    assert_eq!(opening(&link), ErrorKind::Configuration);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("changed");
    assert_eq!(opening(&path), ErrorKind::Configuration);
    write(&path, newer.as_bytes());
    assert_eq!(opening(&path), ErrorKind::Unsupported);
    assert_eq!(opening(&folder.path().join("missing")), ErrorKind::Io);
}
