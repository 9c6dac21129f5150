//! The error table: by return value, as the crate `cryptoki` calls it, and by the function that returned it (as `text`).
//! The standard leaves much to the makers; what SoftHSM 2.6.1 returns is marked as seen.

use crate::layer::{Again, Failure, Row, sort};
use cryptoki::error::Error;
use keyfold::{ErrorKind, KmsErrorKind};

const DAMAGED: Row =
    Row::kms(KmsErrorKind::InvalidCiphertext, "the key of the HSM did not wrap these bytes under this context");
const PIN: Row =
    Row::kms(KmsErrorKind::Credentials, "the token refuses the PIN, which is not tried again until it changes");
const STALE: Row =
    Row::kms(KmsErrorKind::Unavailable, "the session with the HSM or its handle of the key is no longer valid");
const GONE: Row = Row::kms(KmsErrorKind::Unavailable, "the token is not there");
const BROKEN: Row = Row::kms(KmsErrorKind::Unavailable, "the HSM or its library reports a failure of its own");
const FULL: Row = Row::kms(KmsErrorKind::Throttled, "the HSM has no session or memory left");
const MECHANISM: Row =
    Row::configuration("the HSM does not take this mechanism for this key: see the option mechanism");
const TEMPLATE: Row = Row::configuration("the HSM does not take the session object that aes-kwp needs");
const LIBRARY: Row = Row::configuration("the library of the HSM cannot be used by a program with threads");

/// How the return values of a PKCS#11 library are sorted.
pub const TABLE: &[Row] = &[
    DAMAGED.code("EncryptedDataInvalid"),
    DAMAGED.code("EncryptedDataLenRange"),
    DAMAGED.code("WrappedKeyInvalid"),
    DAMAGED.code("WrappedKeyLenRange"),
    // CKR_AEAD_DECRYPT_FAILED of PKCS#11 3.0.
    DAMAGED.code("UnknownErrorCode(66)"),
    BROKEN.code("GeneralError").text("init"),
    // Seen: a wrong tag. The adapter makes sure that the token is alive before it believes this.
    DAMAGED.code("GeneralError").text("decrypt"),
    DAMAGED.code("GeneralError").text("unwrapkey"),
    DAMAGED.code("FunctionFailed").text("decrypt"),
    DAMAGED.code("FunctionFailed").text("unwrapkey"),
    // Seen.
    PIN.code("PinIncorrect"),
    PIN.code("PinInvalid"),
    PIN.code("PinLenRange"),
    Row::kms(KmsErrorKind::Credentials, "the PIN of the token has expired: set another one").code("PinExpired"),
    Row::kms(KmsErrorKind::Credentials, "the PIN of the token is locked: its security officer can set another one")
        .code("PinLocked"),
    Row::kms(KmsErrorKind::Credentials, "the token has no user PIN yet").code("UserPinNotInitialized"),
    Row::kms(KmsErrorKind::Credentials, "somebody has logged this process out of the token")
        .code("UserNotLoggedIn")
        .again(Again::WithNewCredentials),
    // No refusal of the key, which would end its use: somebody else in this process holds the token.
    Row::kms(KmsErrorKind::Credentials, "this process is logged in to the token as another user")
        .code("UserAnotherAlreadyLoggedIn"),
    Row::kms(KmsErrorKind::Credentials, "the token has no user of that type").code("UserTypeInvalid"),
    Row::kms(KmsErrorKind::AccessDenied, "the token does not allow that").code("ActionProhibited"),
    Row::kms(KmsErrorKind::AccessDenied, "the HSM refused the request").code("FunctionRejected"),
    // Seen.
    Row::kms(
        KmsErrorKind::KeyDisabled,
        "the attributes of the key do not allow that (CKA_ENCRYPT, CKA_DECRYPT, CKA_WRAP, CKA_UNWRAP)",
    )
    .code("KeyFunctionNotPermitted"),
    STALE.code("ObjectHandleInvalid"),
    STALE.code("KeyHandleInvalid"),
    STALE.code("WrappingKeyHandleInvalid"),
    STALE.code("UnwrappingKeyHandleInvalid"),
    STALE.code("KeyChanged"),
    STALE.code("SessionHandleInvalid"),
    STALE.code("SessionClosed"),
    STALE.code("OperationActive"),
    STALE.code("CryptokiNotInitialized"),
    GONE.code("TokenNotPresent"),
    GONE.code("TokenNotRecognized"),
    GONE.code("DeviceRemoved"),
    GONE.code("SlotIdInvalid"),
    FULL.code("SessionCount"),
    FULL.code("DeviceMemory"),
    BROKEN.code("GeneralError"),
    BROKEN.code("FunctionFailed"),
    BROKEN.code("FunctionCanceled"),
    BROKEN.code("DeviceError"),
    BROKEN.code("HostMemory"),
    BROKEN.code("FipsSelfTestFailed"),
    MECHANISM.code("MechanismInvalid"),
    MECHANISM.code("MechanismParamInvalid"),
    MECHANISM.code("KeyTypeInconsistent"),
    MECHANISM.code("KeySizeRange"),
    MECHANISM.code("WrappingKeyTypeInconsistent"),
    MECHANISM.code("WrappingKeySizeRange"),
    MECHANISM.code("UnwrappingKeyTypeInconsistent"),
    MECHANISM.code("UnwrappingKeySizeRange"),
    MECHANISM.code("FunctionNotSupported"),
    MECHANISM.code("RandomNoRng"),
    TEMPLATE.code("TemplateInconsistent"),
    TEMPLATE.code("TemplateIncomplete"),
    TEMPLATE.code("AttributeValueInvalid"),
    TEMPLATE.code("AttributeTypeInvalid"),
    TEMPLATE.code("AttributeSensitive"),
    TEMPLATE.code("KeyNotWrappable"),
    TEMPLATE.code("KeyUnextractable"),
    LIBRARY.code("CantLock"),
    LIBRARY.code("NeedToCreateThreads"),
];

/// Sorts an error of the library or of the crate.
pub(super) fn failure(error: &Error) -> Failure {
    match error {
        Error::Pkcs11(value, function) => {
            let (value, function) = (format!("{value:?}"), format!("{function:?}"));
            // The names of constants, so safe to show.
            sort(TABLE, 0, &value, &function).detail(format!("{value} from C_{function}"))
        }
        Error::LibraryLoading(cause) => {
            Failure::configuration("the PKCS#11 module cannot be loaded").detail(cause.to_string())
        }
        Error::NullFunctionPointer | Error::MissingSymbol(_) => {
            Failure::configuration("the PKCS#11 module lacks a function that is needed")
        }
        _ => Failure::malformed("the library of the HSM does not follow the standard"),
    }
}

/// Whether `failure` judges the bytes, so that session and token are as good as before.
pub(super) fn is_judgement(failure: &Failure) -> bool {
    failure.kind == ErrorKind::Kms(KmsErrorKind::InvalidCiphertext)
}
