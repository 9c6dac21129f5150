//! Answers that were damaged on their way, and answers for somebody else: none is used.

use crate::common::{refused, unwrap, wrap};
use crate::fake::{Fake, May};
use data_encoding::BASE64;
use keyfold::{ErrorKind, KmsErrorKind};
use serde_json::{Value, json};

/// Wrong for as long as it is asked: the error, and how many requests were made.
fn always(fake: &Fake, members: &Value, wraps: bool) -> (ErrorKind, u64) {
    let key = fake.key();
    let options = format!("token_file={}&attempts=3", fake.file(&fake.token(May::Both)).display());
    let kek = fake.kek_with(&key, &options);
    let good = wrap(&kek).expect("wrapped");
    let before = fake.requests(&key);
    fake.merge(&key, 3, members);
    let error = if wraps { refused(wrap(&kek)) } else { refused(unwrap(&kek, &good)) };
    (error.kind(), fake.requests(&key) - before)
}

/// Covers KC-4.
// Failure A14
#[test]
fn what_fails_its_checksum_is_asked_for_again_and_never_used() {
    let Some(fake) = Fake::given() else { return };
    let of_wrap = [
        json!({ "verifiedPlaintextCrc32c": null }),
        json!({ "verifiedPlaintextCrc32c": false }),
        json!({ "verifiedAdditionalAuthenticatedDataCrc32c": null }),
        json!({ "ciphertextCrc32c": "1" }),
        json!({ "ciphertextCrc32c": "-1" }),
        json!({ "ciphertextCrc32c": "" }),
        json!({ "ciphertext": BASE64.encode(&[7; 100]) }),
    ];
    let of_unwrap = [
        json!({ "plaintextCrc32c": "1" }),
        json!({ "plaintextCrc32c": "" }),
        json!({ "plaintext": BASE64.encode(&[7; 64]) }),
    ];
    let all = of_wrap.iter().map(|members| (members, true)).chain(of_unwrap.iter().map(|members| (members, false)));
    for (members, wraps) in all {
        let malformed = ErrorKind::Kms(KmsErrorKind::MalformedResponse);
        assert_eq!(always(&fake, members, wraps), (malformed, 3), "{members}");
    }
    // Damaged once, it works at the next attempt.
    let key = fake.key();
    let kek = fake.kek(&key);
    fake.merge(&key, 1, &of_wrap[0]);
    let wrapped = wrap(&kek).expect("wrapped");
    fake.merge(&key, 1, &of_unwrap[2]);
    assert!(unwrap(&kek, &wrapped).is_ok());
    assert_eq!(fake.requests(&key), 4);
}

#[test]
fn what_does_not_follow_the_protocol_is_refused_at_once() {
    let Some(fake) = Fake::given() else { return };
    let of_wrap = [
        json!({ "name": null }),
        json!({ "ciphertext": null }),
        json!({ "ciphertext": "%%" }),
        json!({ "ciphertextCrc32c": null }),
        json!({ "ciphertextCrc32c": 7 }),
        json!({ "ciphertext": "", "ciphertextCrc32c": "0" }),
        json!({ "ciphertext": BASE64.encode(&[0; 4097]), "ciphertextCrc32c": crc32c::crc32c(&[0; 4097]).to_string() }),
    ];
    let of_unwrap = [
        json!({ "plaintext": null }),
        json!({ "plaintextCrc32c": null }),
        json!({ "plaintext": BASE64.encode(&[0; 63]), "plaintextCrc32c": crc32c::crc32c(&[0; 63]).to_string() }),
        json!({ "plaintext": BASE64.encode(&[0; 65]), "plaintextCrc32c": crc32c::crc32c(&[0; 65]).to_string() }),
        json!({ "plaintext": "%%" }),
    ];
    let all = of_wrap.iter().map(|members| (members, true)).chain(of_unwrap.iter().map(|members| (members, false)));
    for (members, wraps) in all {
        let malformed = ErrorKind::Kms(KmsErrorKind::MalformedResponse);
        assert_eq!(always(&fake, members, wraps), (malformed, 1), "{members}");
    }
    for name in ["", "projects/evil/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1"] {
        let wrong = ErrorKind::Kms(KmsErrorKind::WrongKey);
        assert_eq!(always(&fake, &json!({ "name": name }), true), (wrong, 1), "{name}");
    }
}

/// Google's writers of JSON escape `=` in places, and padded base64 ends with it.
#[test]
fn escaped_answers_are_read() {
    let Some(fake) = Fake::given() else { return };
    let key = fake.key();
    let kek = fake.kek(&key);
    let wrapped = wrap(&kek).expect("wrapped");
    let payload = crate::common::payload();
    let text = BASE64.encode(payload.expose()).replace('=', "\\u003d");
    let body = format!("{{\"plaintext\":\"{text}\",\"plaintextCrc32c\":\"{}\"}}", crc32c::crc32c(payload.expose()));
    fake.reply(&key, 1, 200, &json!({}), &json!(body));
    assert!(unwrap(&kek, &wrapped).is_ok_and(|found| found.expose() == payload.expose()));
}
