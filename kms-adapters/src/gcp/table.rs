//! The error table: by status, `google.rpc.Code` and message. Texts are those that Google documents or that its clients'
//! logs show; none was seen from the service itself.

use crate::layer::{Again, HTTP_ROWS, Row};
use keyfold::KmsErrorKind;

/// How the answers of Cloud KMS are sorted.
pub const TABLE: &[Row] = &[
    Row::kms(KmsErrorKind::WrongKey, "these bytes were wrapped by another CryptoKey")
        .status(&[400])
        .code("INVALID_ARGUMENT")
        .text("refers to the correct cryptokey"),
    Row::kms(KmsErrorKind::InvalidCiphertext, "the CryptoKey did not wrap these bytes under this context")
        .status(&[400])
        .code("INVALID_ARGUMENT")
        .text("decryption failed"),
    // What we sent arrived damaged, so it is no judgement of it.
    Row::kms(KmsErrorKind::MalformedResponse, "the request was damaged on its way to Cloud KMS")
        .status(&[400])
        .text("did not match the data in field"),
    Row::configuration("the CryptoKey is not one for symmetric encryption: make one with the purpose ENCRYPT_DECRYPT")
        .status(&[400])
        .text("purpose"),
    Row::kms(KmsErrorKind::KeyDisabled, "this version of the CryptoKey is destroyed, or scheduled to be")
        .status(&[400])
        .code("FAILED_PRECONDITION")
        .text("current state is: destroy"),
    Row::kms(KmsErrorKind::KeyDisabled, "this version of the CryptoKey is disabled, or not ready to be used")
        .status(&[400])
        .code("FAILED_PRECONDITION")
        .text("is not enabled"),
    Row::kms(KmsErrorKind::KeyDisabled, "the CryptoKey has no primary version")
        .status(&[400])
        .code("FAILED_PRECONDITION")
        .text("primary"),
    // Keys in an external key manager: what fails there is an outage.
    Row::kms(
        KmsErrorKind::Unavailable,
        "Cloud KMS cannot use the CryptoKey at present, perhaps an external key manager",
    )
    .status(&[400])
    .code("FAILED_PRECONDITION"),
    Row::kms(KmsErrorKind::Unavailable, "billing of the Google Cloud project is off").status(&[403]).text("billing"),
    Row::kms(KmsErrorKind::Credentials, "Google does not accept the access token, or no longer")
        .status(&[401])
        .again(Again::WithNewCredentials),
    Row::kms(
        KmsErrorKind::Credentials,
        "the access token is not for Cloud KMS: its scopes lack cloudkms or cloud-platform",
    )
    .status(&[403])
    .text("insufficient authentication scopes"),
    Row::configuration("the Cloud KMS API is not enabled in the project")
        .status(&[403])
        .text("has not been used in project"),
    Row::kms(KmsErrorKind::AccessDenied, "the identity may not use the CryptoKey, or there is no such key")
        .status(&[403])
        .code("PERMISSION_DENIED"),
    Row::kms(KmsErrorKind::KeyNotFound, "Cloud KMS has no such CryptoKey or version").status(&[404]).code("NOT_FOUND"),
    Row::kms(KmsErrorKind::Throttled, "the quota of cryptographic requests of the project is used up").status(&[429]),
    HTTP_ROWS[1],
    HTTP_ROWS[2],
];
