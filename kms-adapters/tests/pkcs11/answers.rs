//! Every answer that SoftHSM can give, by making it do so.

use crate::common::classes::Classes;
use crate::common::{context, here, payload, refused, unwrap, wrap};
use crate::token::Tokens;
use cryptoki::object::Attribute;
use keyfold::testing::block_on;
use keyfold::{ErrorKind, Kms, KmsContext, KmsErrorKind, Lineage, UnwrapRequest, WrapRequest, WrappedKey, wire::KeyId};
use keyfold_kms::layer::sort;
use keyfold_kms::pkcs11::{Pkcs11Kek, TABLE};

#[test]
fn every_answer_has_its_class() {
    let Some(tokens) = Tokens::given() else { return };
    let mut answers = Classes::of("pkcs11", "real library, SoftHSM");
    contexts_and_bytes(&tokens, &mut answers);
    keys(&tokens, &mut answers);
    set_up(&tokens, &mut answers);
    removed(&tokens, &mut answers);
}

fn contexts_and_bytes(tokens: &Tokens, answers: &mut Classes) {
    let mut add = |what, error| answers.add(what, ErrorKind::Kms(KmsErrorKind::InvalidCiphertext), error);
    let tampered = |wrapped: &WrappedKey| {
        let mut bytes = wrapped.bytes.clone();
        bytes[40] ^= 1;
        WrappedKey { bytes, ..wrapped.clone() }
    };
    let kek = tokens.kek("keyfold", "kek", "");
    let good = wrap(&kek).expect("wrapped");
    let other = KmsContext::new("staging", Lineage::from_bytes([1; 16]), KeyId::from_bytes([2; 24]));
    add("wrong context", refused(block_on(kek.unwrap(UnwrapRequest::new(&good, &other)))));
    add("tampered bytes, AES-GCM", refused(unwrap(&kek, &tampered(&good))));
    let by_kwp = wrap(&tokens.kek("keyfold", "kek", "mechanism=aes-kwp")).expect("wrapped");
    add("tampered bytes, AES-KWP", refused(unwrap(&kek, &tampered(&by_kwp))));
    let short = WrappedKey { bytes: good.bytes[..91].to_vec(), ..good.clone() };
    add("bytes cut off", refused(unwrap(&kek, &short)));
    let elsewhere = wrap(&tokens.kek("removed", "kek", "")).expect("wrapped");
    add("wrapped by another token", refused(unwrap(&kek, &WrappedKey { bytes: elsewhere.bytes, ..good })));
}

fn keys(tokens: &Tokens, answers: &mut Classes) {
    let mut add = |what, kind, error| answers.add(what, ErrorKind::Kms(kind), error);
    let (gcm, kwp) = (tokens.kek("changed", "disabled", ""), tokens.kek("changed", "disabled", "mechanism=aes-kwp"));
    let wrapped = [wrap(&gcm).expect("wrapped"), wrap(&kwp).expect("wrapped")];
    let session = tokens.session("changed");
    let off = [Attribute::Encrypt(false), Attribute::Decrypt(false), Attribute::Wrap(false), Attribute::Unwrap(false)];
    session.update_attributes(Tokens::find(&session, "disabled")[0], &off).expect("disabled");
    add("disabled: AES-GCM wrap", KmsErrorKind::KeyDisabled, refused(wrap(&gcm)));
    add("disabled: AES-GCM unwrap", KmsErrorKind::KeyDisabled, refused(unwrap(&gcm, &wrapped[0])));
    add("disabled: AES-KWP wrap", KmsErrorKind::KeyDisabled, refused(wrap(&kwp)));
    add("disabled: AES-KWP unwrap", KmsErrorKind::KeyDisabled, refused(unwrap(&kwp, &wrapped[1])));
    assert!(wrap(&tokens.kek("keyfold", "kek", "")).is_ok());

    let kek = tokens.kek("changed", "deleted", "");
    let wrapped = wrap(&kek).expect("wrapped");
    session.destroy_object(Tokens::find(&session, "deleted")[0]).expect("destroyed");
    add("destroyed while it was in use", KmsErrorKind::KeyNotFound, refused(unwrap(&kek, &wrapped)));
    add("destroyed: wrap", KmsErrorKind::KeyNotFound, refused(wrap(&kek)));
}

fn set_up(tokens: &Tokens, answers: &mut Classes) {
    let kek = tokens.kek("keyfold", "twice", "");
    answers.add("two keys of that label", ErrorKind::Configuration, refused(wrap(&kek)));
    let uri = tokens.uri("keyfold", "twice;id=%05", "");
    assert!(wrap(&Pkcs11Kek::from_uri(&uri, here()).expect("opened")).is_ok(), "the ID tells them apart");
    let uri = tokens.uri("keyfold", "kek;id=%09", "");
    let kek = Pkcs11Kek::from_uri(&uri, here()).expect("opened");
    answers.add("no key of that ID", ErrorKind::Kms(KmsErrorKind::KeyNotFound), refused(wrap(&kek)));
    let kek = tokens.kek("nowhere", "kek", "attempts=1");
    answers.add("no token of that label", ErrorKind::Kms(KmsErrorKind::Unavailable), refused(wrap(&kek)));
    let kek = tokens.kek("keyfold", "kek", "mechanism=aes-gcm-hsm-nonce");
    answers.add("the HSM chooses no nonce", ErrorKind::Configuration, refused(wrap(&kek)));
    let uri = tokens.uri_with_pin("log-out", "kek", "/nonexistent/pin".as_ref(), "");
    let kek = Pkcs11Kek::from_uri(&uri, here()).expect("opened");
    answers.add("no PIN file", ErrorKind::Kms(KmsErrorKind::Credentials), refused(wrap(&kek)));
}

/// A token of SoftHSM is a folder: without it, the token is gone.
fn removed(tokens: &Tokens, answers: &mut Classes) {
    let mut add = |what, error| answers.add(what, ErrorKind::Kms(KmsErrorKind::Unavailable), error);
    let gcm = tokens.kek("removed", "kek", "attempts=2");
    let kwp = tokens.kek("removed", "kek", "attempts=2&mechanism=aes-kwp");
    let wrapped = [wrap(&gcm).expect("wrapped"), wrap(&kwp).expect("wrapped")];
    let holds = |folder: &std::path::Path| {
        let label = std::fs::read(folder.join("token.object")).unwrap_or_default();
        label.windows(7).any(|part| part == b"removed")
    };
    let folders = std::fs::read_dir(&tokens.tokens).expect("a folder").flatten().map(|entry| entry.path());
    let folder = folders.into_iter().find(|folder| holds(folder)).expect("the token");
    let outside = tokens.tokens.with_file_name("away");
    std::fs::rename(&folder, &outside).expect("moved");
    add("token removed: AES-GCM unwrap", refused(unwrap(&gcm, &wrapped[0])));
    add("token removed: AES-KWP unwrap", refused(unwrap(&kwp, &wrapped[1])));
    add("token removed: wrap", refused(block_on(gcm.wrap(WrapRequest::new(&payload(), &context())))));
    // Not tested here: SoftHSM does not take a token back before it is initialised anew.
    std::fs::rename(&outside, &folder).expect("moved back");
}

/// What SoftHSM does not return, by the table alone.
#[test]
fn values_of_other_hsms_have_their_class() {
    let kms = |kind| ErrorKind::Kms(kind);
    let cases = [
        ("SessionCount", "OpenSession", kms(KmsErrorKind::Throttled)),
        ("DeviceMemory", "Encrypt", kms(KmsErrorKind::Throttled)),
        ("DeviceError", "Decrypt", kms(KmsErrorKind::Unavailable)),
        ("TokenNotPresent", "Decrypt", kms(KmsErrorKind::Unavailable)),
        ("GeneralError", "DecryptInit", kms(KmsErrorKind::Unavailable)),
        ("GeneralError", "Encrypt", kms(KmsErrorKind::Unavailable)),
        ("GeneralError", "Decrypt", kms(KmsErrorKind::InvalidCiphertext)),
        ("GeneralError", "UnwrapKey", kms(KmsErrorKind::InvalidCiphertext)),
        ("EncryptedDataInvalid", "Decrypt", kms(KmsErrorKind::InvalidCiphertext)),
        ("UnknownErrorCode(66)", "Decrypt", kms(KmsErrorKind::InvalidCiphertext)),
        ("WrappedKeyInvalid", "UnwrapKey", kms(KmsErrorKind::InvalidCiphertext)),
        ("PinLocked", "Login", kms(KmsErrorKind::Credentials)),
        ("PinExpired", "Login", kms(KmsErrorKind::Credentials)),
        ("FunctionRejected", "Decrypt", kms(KmsErrorKind::AccessDenied)),
        ("UserAnotherAlreadyLoggedIn", "Login", kms(KmsErrorKind::Credentials)),
        ("MechanismInvalid", "EncryptInit", ErrorKind::Configuration),
        ("MechanismParamInvalid", "EncryptInit", ErrorKind::Configuration),
        ("VendorDefined(2147483649)", "Decrypt", kms(KmsErrorKind::Rejected)),
    ];
    for (value, function, expected) in cases {
        assert_eq!(sort(TABLE, 0, value, function).kind, expected, "{value} from {function}");
    }
}
