//! PINs: wrong ones, which must not lock a token, logouts, and that none is shown.

use crate::common::{PAYLOAD, here, logs, refused, unwrap, wrap};
use crate::token::Tokens;
use data_encoding::BASE64;
use keyfold::{ErrorKind, KmsErrorKind};
use keyfold_kms::pkcs11::Pkcs11Kek;
use std::process::Command;
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
    let tried: Vec<_> = errors.iter().filter(|error| error.to_string().contains("C_Login")).collect();
    assert_eq!(tried.len(), 1, "the token was asked more than once: {tried:?}");
    assert!(!format!("{errors:?}").contains("9999"), "{errors:?}");
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

const CHILD: &str = "KEYFOLD_TEST_LOGS";

/// In a process of its own, whose log is that of this test alone.
#[test]
fn no_secret_is_shown() {
    let Some(tokens) = Tokens::given() else { return };
    if std::env::var_os(CHILD).is_none() {
        let done = Command::new(std::env::current_exe().expect("this program"))
            .args(["logins::no_secret_is_shown", "--exact", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .expect("started");
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && said.contains("1 passed"), "{said} {}", String::from_utf8_lossy(&done.stderr));
        return;
    }
    logs::record();
    let wrong = tokens.file("CANARY-PIN");
    let kek = Pkcs11Kek::from_uri(&tokens.uri_with_pin("keyfold", "kek", &wrong, ""), here()).expect("opened");
    let mut shown = format!("{kek:?}");
    for _ in 0..2 {
        let error = refused(wrap(&kek));
        shown.push_str(&format!("{error} {error:?}"));
    }
    for options in ["", "mechanism=aes-kwp"] {
        let kek = tokens.kek("keyfold", "kek", options);
        let mut wrapped = wrap(&kek).expect("wrapped");
        assert!(unwrap(&kek, &wrapped).is_ok());
        wrapped.bytes[20] ^= 1;
        let error = refused(unwrap(&kek, &wrapped));
        shown.push_str(&format!("{kek:?} {error} {error:?}"));
    }
    // What fails and is tried again is logged by the layer.
    let error = refused(wrap(&tokens.kek("nowhere", "kek", "attempts=2")));
    shown.push_str(&format!("{error} {error:?}"));
    let log = logs::said();
    assert!(log.contains("keyfold_kms"), "the log is that of this crate as well");
    for secret in ["CANARY", tokens.pin.as_str(), &BASE64.encode(PAYLOAD)[..40]] {
        assert!(!log.contains(secret), "a log shows a secret: {:?}", log.lines().find(|line| line.contains(secret)));
        assert!(!shown.contains(secret), "an error or Debug output shows a secret");
    }
}
