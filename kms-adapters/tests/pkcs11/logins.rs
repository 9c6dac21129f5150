//! PINs: wrong ones, which must not lock a token, logouts, and that none is shown.

use crate::common::fork::is_left_to_own_process;
use crate::common::logs::Logs;
use crate::common::{here, refused, unwrap, wrap};
use crate::token::Tokens;
use keyfold::{ErrorKind, KmsErrorKind};
use keyfold_kms::pkcs11::Pkcs11Kek;
use std::thread;

#[test]
fn a_wrong_pin_is_tried_once_by_however_many_threads() {
    let Some(tokens) = Tokens::given() else { return };
    let pin = tokens.file("9999-wrong\n");
    let kek =
        Pkcs11Kek::from_uri(&tokens.uri_with_pin("wrong-pin", "kek", &pin, "rate=10000"), here()).expect("opened");
    let errors: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| [refused(wrap(&kek)), refused(wrap(&kek))])).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("ended")).collect()
    });
    assert!(errors.iter().all(|error| error.kind() == ErrorKind::Kms(KmsErrorKind::Credentials)), "{errors:?}");
    let tried: Vec<_> = errors.iter().filter(|error| !error.to_string().contains("refused this PIN before")).collect();
    assert_eq!(tried.len(), 1, "the token was asked more than once: {tried:?}");
    assert!(!format!("{errors:?}").contains("9999-wrong"), "{errors:?}");
    std::fs::write(&pin, &tokens.pin).expect("written");
    assert!(wrap(&kek).is_ok(), "the right PIN in the file counts at once");
}

#[test]
fn somebody_who_logs_the_process_out_is_made_good() {
    let Some(tokens) = Tokens::given() else { return };
    let kek = tokens.kek("log-out", "kek", "");
    let wrapped = wrap(&kek).expect("wrapped");
    tokens.session("log-out").logout().expect("logged out");
    assert!(unwrap(&kek, &wrapped).is_ok());
}

#[test]
fn no_secret_is_shown() {
    let Some(tokens) = Tokens::given() else { return };
    if is_left_to_own_process("logins::no_secret_is_shown") {
        return;
    }
    let mut logs = Logs::collect();
    let wrong = tokens.file("CANARY-PIN");
    let kek = Pkcs11Kek::from_uri(&tokens.uri_with_pin("keyfold", "kek", &wrong, ""), here()).expect("opened");
    for _ in 0..2 {
        logs.note(&kek, wrap(&kek));
    }
    let mut wrapped = wrap(&tokens.kek("keyfold", "kek", "")).expect("wrapped");
    for options in ["", "mechanism=aes-kwp"] {
        let kek = tokens.kek("keyfold", "kek", options);
        wrapped = wrap(&kek).expect("wrapped");
        logs.note(&kek, unwrap(&kek, &wrapped));
        wrapped.bytes[20] ^= 1;
        logs.note(&kek, unwrap(&kek, &wrapped));
    }
    // What fails and is tried again is logged by the layer.
    let kek = tokens.kek("nowhere", "kek", "attempts=2");
    logs.note(&kek, wrap(&kek));
    logs.check(&["CANARY-PIN".to_owned(), tokens.pin.clone()], Some(&wrapped));
}
