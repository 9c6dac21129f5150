//! What the adapter calls, and what it does with an HSM that behaves otherwise than SoftHSM: by a library in front of it
//! (`recorder.c`), each test in a process of its own.

use crate::common::{fork, here, refused, skip, unwrap, unwrap_traced, wrap};
use crate::token::Tokens;
use keyfold::testing::{ContextBinding, kms_conformance};
use keyfold::{ErrorKind, KmsErrorKind};
use keyfold_kms::pkcs11::Pkcs11Kek;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const FOLDER: &str = "RECORDER_FOLDER";
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pkcs11/recorder.c");

struct Recorder {
    tokens: Tokens,
    folder: PathBuf,
}

impl Recorder {
    /// In the process of the test; `None` in the one that starts it, and where there is no SoftHSM or C compiler.
    fn given(test: &str) -> Option<Self> {
        let mut tokens = Tokens::given()?;
        if let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) {
            tokens.module = folder.join("recorder.so").display().to_string();
            return Some(Self { tokens, folder });
        }
        let folder = tempfile::tempdir().expect("a folder");
        let library = folder.path().join("recorder.so");
        let built = Command::new("cc").args(["-shared", "-fPIC", SOURCE, "-ldl", "-o"]).arg(&library).status();
        if !built.is_ok_and(|status| status.success()) {
            skip(&format!("no C compiler for {SOURCE}"));
            return None;
        }
        let done = Command::new(std::env::current_exe().expect("this program"))
            .args([&format!("recorder::{test}"), "--exact", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .env("RECORDER_REAL", &tokens.module)
            .output()
            .expect("started");
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && said.contains("1 passed"), "{said} {}", String::from_utf8_lossy(&done.stderr));
        None
    }

    fn kek(&self, options: &str) -> Pkcs11Kek {
        self.tokens.kek("keyfold", "kek", options)
    }

    fn fault(&self, name: &str) {
        std::fs::write(self.folder.join("fault"), name).expect("written");
    }

    /// How often each process called `function`.
    fn calls(&self, function: &str) -> BTreeMap<String, usize> {
        let text = std::fs::read_to_string(Path::join(&self.folder, "calls")).unwrap_or_default();
        let mut counts = BTreeMap::new();
        for line in text.lines() {
            let (process, called) = line.split_once(' ').expect("a process and a function");
            *counts.entry(process.to_owned()).or_default() += usize::from(called == function);
        }
        counts
    }

    fn total(&self, function: &str) -> usize {
        self.calls(function).values().sum()
    }
}

#[test]
fn forked_children_do_not_try_a_pin_that_their_parent_was_refused() {
    let Some(recorder) = Recorder::given("forked_children_do_not_try_a_pin_that_their_parent_was_refused") else {
        return;
    };
    let pin = recorder.tokens.file("9999-wrong\n");
    let uri = recorder.tokens.uri_with_pin("wrong-pin", "kek", &pin, "attempts=1");
    let kek = Pkcs11Kek::from_uri(&uri, here()).expect("opened");
    let is_refused = || refused(wrap(&kek)).kind() == ErrorKind::Kms(KmsErrorKind::Credentials);
    assert!(is_refused());
    fork::with_children(4, is_refused);
    assert_eq!(recorder.total("C_Login"), 1, "each trial may lock the token");
}

#[test]
fn each_process_initialises_and_logs_in_once_and_none_finalises() {
    let Some(recorder) = Recorder::given("each_process_initialises_and_logs_in_once_and_none_finalises") else {
        return;
    };
    let (first, second) = (recorder.kek("sessions=2"), recorder.kek("mechanism=aes-kwp"));
    let wrapped = wrap(&first).expect("wrapped");
    fork::with_children(2, || {
        (0..5).all(|_| {
            unwrap(&first, &wrapped).is_ok() && wrap(&second).is_ok_and(|wrapped| unwrap(&first, &wrapped).is_ok())
        })
    });
    drop((first, second));
    let once: Vec<_> = recorder.calls("C_Initialize").into_values().collect();
    assert_eq!(once, [1, 1, 1], "the parent and both children");
    let processes: BTreeSet<_> = recorder.calls("C_OpenSession").into_keys().collect();
    assert_eq!(processes.len(), 3);
    assert_eq!(recorder.calls("C_Login")[&std::process::id().to_string()], 1);
    assert!(recorder.calls("C_Login").values().all(|&count| count <= 1), "{:?}", recorder.calls("C_Login"));
    assert_eq!(recorder.total("C_Finalize"), 0);
}

#[test]
fn a_call_that_hangs_keeps_its_session_and_nobody_else() {
    let Some(recorder) = Recorder::given("a_call_that_hangs_keeps_its_session_and_nobody_else") else { return };
    let kek = recorder.kek("sessions=1&timeout=150ms").with_deadline(Duration::from_millis(400)).expect("a deadline");
    let other = recorder.kek("");
    let wrapped = wrap(&kek).expect("wrapped");
    recorder.fault("hang");
    let begun = Instant::now();
    assert_eq!(refused(unwrap(&kek, &wrapped)).kind(), ErrorKind::Kms(KmsErrorKind::Timeout));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(recorder.total("C_Decrypt"), 1, "one session, so one call");
    recorder.fault("");
    assert!(unwrap(&other, &wrapped).is_ok(), "another KEK of the token works meanwhile");
    while begun.elapsed() < Duration::from_secs(3) && unwrap(&kek, &wrapped).is_err() {}
    assert!(unwrap(&kek, &wrapped).is_ok(), "the session is back with its call");
}

#[test]
fn an_hsm_that_chooses_the_nonce_conforms() {
    let Some(recorder) = Recorder::given("an_hsm_that_chooses_the_nonce_conforms") else { return };
    recorder.fault("own-nonce");
    let kek = recorder.kek("mechanism=aes-gcm-hsm-nonce");
    kms_conformance(&kek, ContextBinding::ByService);
    let [first, second] = [wrap(&kek), wrap(&kek)].map(|wrapped| wrapped.expect("wrapped").bytes);
    assert_ne!(first[..12], second[..12]);
}

#[test]
fn faults_of_the_hsm_have_their_class() {
    let Some(recorder) = Recorder::given("faults_of_the_hsm_have_their_class") else { return };
    recorder.fault("final-try");
    let error = refused(wrap(&recorder.kek("")));
    assert_eq!(error.kind(), ErrorKind::Kms(KmsErrorKind::Credentials), "{error}");
    assert_eq!(recorder.total("C_Login"), 0, "the last trial is left to somebody who knows the PIN");
    recorder.fault("session-count");
    let error = refused(wrap(&recorder.kek("attempts=2")));
    assert_eq!(error.kind(), ErrorKind::Kms(KmsErrorKind::Throttled), "{error}");
    recorder.fault("");
    let kek = recorder.kek("attempts=2");
    let wrapped = wrap(&kek).expect("wrapped");
    let sessions = recorder.total("C_OpenSession");
    recorder.fault("device-error");
    let (result, requests) = unwrap_traced(&kek, &wrapped);
    assert_eq!((refused(result).kind(), requests), (ErrorKind::Kms(KmsErrorKind::Unavailable), 2));
    recorder.fault("");
    assert!(unwrap(&kek, &wrapped).is_ok());
    assert_eq!(recorder.total("C_OpenSession") - sessions, 2, "a session that failed is not used again");
}

/// The object holds the payload, and it can be taken out of the token.
#[test]
fn session_objects_are_destroyed_whatever_came_of_their_use() {
    let Some(recorder) = Recorder::given("session_objects_are_destroyed_whatever_came_of_their_use") else { return };
    let kek = recorder.kek("mechanism=aes-kwp&attempts=2");
    let wrapped = wrap(&kek).expect("wrapped");
    unwrap(&kek, &wrapped).expect("unwrapped");
    recorder.fault("device-error");
    assert_eq!(refused(wrap(&kek)).kind(), ErrorKind::Kms(KmsErrorKind::Unavailable));
    recorder.fault("");
    unwrap(&kek, &wrapped).expect("unwrapped");
    recorder.fault("attributes");
    assert_eq!(refused(unwrap(&kek, &wrapped)).kind(), ErrorKind::Kms(KmsErrorKind::Unavailable));
    let made = recorder.total("C_CreateObject") + recorder.total("C_UnwrapKey");
    // In the second attempt to unwrap no session could be opened, because that looks at the attributes of the key.
    assert_eq!((recorder.total("C_CreateObject"), recorder.total("C_UnwrapKey")), (3, 3));
    assert_eq!(recorder.total("C_DestroyObject"), made);
}
