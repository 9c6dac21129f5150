//! The PKCS#11 adapter against tokens of SoftHSM, which KEYFOLD_TEST_PKCS11_* name (`./test` makes them, and so does
//! `python3 tools/servers/softhsm.py cargo test …`).

#[path = "../common/mod.rs"]
mod common;

mod answers;
mod fork;
mod logins;
mod recorder;
mod token;

use common::{here, payload, refused, unwrap, unwrap_traced, use_from_everywhere, wrap};
use keyfold::testing::{ContextBinding, kms_conformance};
use keyfold::{ErrorKind, KmsErrorKind, WrappedKey};
use keyfold_kms::layer::Adapter;
use keyfold_kms::pkcs11::Pkcs11Kek;
use std::io::Write;
use std::thread;
use token::Tokens;

#[test]
fn conforms() {
    let Some(tokens) = Tokens::given() else { return };
    let _ = writeln!(std::io::stdout(), "\npkcs11: real library, SoftHSM, {}", tokens.module);
    kms_conformance(&tokens.kek("keyfold", "kek", ""), ContextBinding::ByService);
    kms_conformance(&tokens.kek("keyfold", "kek", "mechanism=aes-kwp"), ContextBinding::ByKeyfold);
}

#[test]
fn either_mechanism_opens_what_the_other_wrapped() {
    let Some(tokens) = Tokens::given() else { return };
    let (gcm, kwp) = (tokens.kek("keyfold", "kek", ""), tokens.kek("keyfold", "kek", "mechanism=aes-kwp"));
    let by_gcm = wrap(&gcm).expect("wrapped");
    assert_eq!((by_gcm.kek_version.as_str(), by_gcm.bytes.len()), ("aes-gcm;token=keyfold;object=kek", 92));
    let by_kwp = wrap(&kwp).expect("wrapped");
    assert_eq!((by_kwp.kek_version.as_str(), by_kwp.bytes.len()), ("aes-kwp;token=keyfold;object=kek", 72));
    for kek in [&gcm, &kwp] {
        for wrapped in [&by_gcm, &by_kwp] {
            assert!(unwrap(kek, wrapped).is_ok_and(|found| found.expose() == payload().expose()));
        }
    }
    // RFC 5649, checked without the HSM: the length of the plaintext stands in no other wrap.
    assert_ne!(wrap(&gcm).expect("wrapped").bytes[..12], by_gcm.bytes[..12], "a nonce came twice");
}

/// Covers KC-7.
#[test]
fn a_record_that_names_another_key_costs_no_call() {
    let Some(tokens) = Tokens::given() else { return };
    let kek = tokens.kek("keyfold", "kek", "");
    let good = wrap(&kek).expect("wrapped");
    let foreign = [
        "",
        "aes-gcm",
        "aes-cbc;token=keyfold;object=kek",
        "aes-gcm;token=keyfold;object=deleted",
        "aes-gcm;token=removed;object=kek",
        "aes-gcm;token=keyfold;object=kek;id=%01",
        "pkcs11://token=evil;object=kek?module-path=/tmp/evil.so",
        "https://evil.example/kek",
    ];
    for version in foreign {
        let wrapped = WrappedKey { kek_version: version.to_owned(), ..good.clone() };
        let (result, requests) = unwrap_traced(&kek, &wrapped);
        assert_eq!((refused(result).kind(), requests), (ErrorKind::Kms(KmsErrorKind::WrongKey), 0), "{version}");
    }
}

#[test]
fn works_inside_a_runtime_outside_and_from_many_threads() {
    let Some(tokens) = Tokens::given() else { return };
    use_from_everywhere(|| Box::new(tokens.kek("keyfold", "kek", "")));
}

#[test]
fn eight_threads_share_two_sessions() {
    let Some(tokens) = Tokens::given() else { return };
    let kek = tokens.kek("keyfold", "kek", "sessions=2");
    let other = tokens.kek("keyfold", "kek", "sessions=1&mechanism=aes-kwp");
    thread::scope(|scope| {
        for number in 0..8 {
            let kek = if number % 2 == 0 { &kek } else { &other };
            scope.spawn(move || {
                for _ in 0..50 {
                    let wrapped = wrap(kek).expect("wrapped");
                    assert!(unwrap(kek, &wrapped).is_ok_and(|found| found.expose() == payload().expose()));
                }
            });
        }
    });
}

#[test]
fn a_library_that_is_none_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("text.so"), "not a library").expect("written");
    for module in ["missing.so", "text.so", "."] {
        let uri = format!("pkcs11://token=a;object=b?module-path={module}&pin_env=PATH");
        let kek = Pkcs11Kek::from_uri(&uri, folder.path()).expect("opened: nothing is loaded yet");
        assert_eq!(refused(wrap(&kek)).kind(), ErrorKind::Configuration, "{module}");
    }
    assert!(Pkcs11Kek::from_uri("pkcs11://token=a;object=b?module-path=m", here()).is_err(), "no PIN");
}

/// Two aliases of one name would be taken for one key.
#[test]
fn keys_that_only_serial_or_id_tell_apart_have_names_of_their_own() {
    let label = |rest: &str| {
        let uri = format!("pkcs11://token=t;object=o{rest}?module-path=m&pin_env=PIN");
        Pkcs11Kek::from_uri(&uri, here()).expect("a URI").adapter().label().to_owned()
    };
    assert_eq!(label(""), "pkcs11://token=t;object=o");
    assert_eq!(label(";serial=7;id=%04%41"), "pkcs11://token=t;object=o;serial=7;id=%04A");
}
