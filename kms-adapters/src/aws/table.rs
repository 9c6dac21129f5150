//! The error table. By code, because statuses differ between the documents and the wire.

use crate::layer::{Again, HTTP_ROWS, Row};
use KmsErrorKind::{
    AccessDenied, ClockSkew, Credentials, InvalidCiphertext, KeyDisabled, KeyNotFound, Throttled, Timeout, Unavailable,
    WrongKey,
};
use keyfold::KmsErrorKind;

/// How the answers of AWS KMS are sorted.
pub const TABLE: &[Row] = &[
    Row::kms(InvalidCiphertext, "the KEK did not wrap these bytes under this context")
        .code("InvalidCiphertextException"),
    Row::kms(WrongKey, "another KEK of AWS wrapped these bytes").code("IncorrectKeyException"),
    Row::kms(KeyDisabled, "the KEK is disabled").code("DisabledException"),
    Row::kms(KeyDisabled, "the KEK is pending deletion").code("KMSInvalidStateException").text("pending deletion"),
    // Keys outside of AWS, and in CloudHSM: what fails there is an outage, and has this code all the same.
    Row::kms(Unavailable, "the external key store of the KEK does not answer as it should")
        .code("KMSInvalidStateException")
        .text("external key"),
    Row::kms(Unavailable, "the custom key store of the KEK is not connected")
        .code("KMSInvalidStateException")
        .text("custom key store"),
    Row::kms(KeyDisabled, "the KEK is in a state in which it cannot be used").code("KMSInvalidStateException"),
    Row::kms(KeyNotFound, "there is no such key or alias in this account and region").code("NotFoundException"),
    Row::kms(AccessDenied, "the identity may not use the KEK: it needs kms:Encrypt and kms:Decrypt")
        .code("AccessDeniedException"),
    Row::kms(AccessDenied, "the account may not use AWS KMS").code("OptInRequired"),
    Row::kms(Throttled, "the account has used up its request quota of AWS KMS").code("ThrottlingException"),
    Row::kms(Throttled, "the account has used up its request quota of AWS KMS").code("Throttling"),
    Row::kms(Throttled, "the account has used up its request quota of AWS KMS").code("TooManyRequestsException"),
    Row::kms(Throttled, "the account has used up its request quota of AWS KMS").code("RequestLimitExceeded"),
    Row::kms(Throttled, "the account has used up its request quota of AWS KMS").code("LimitExceededException"),
    Row::kms(Unavailable, "AWS KMS has an internal error").code("KMSInternalException"),
    Row::kms(Unavailable, "AWS KMS has an internal error").code("InternalFailure"),
    Row::kms(Unavailable, "AWS KMS waits for another service").code("DependencyTimeoutException"),
    Row::kms(Unavailable, "the KEK is not available at present").code("KeyUnavailableException"),
    Row::kms(Unavailable, "AWS KMS does not work at present").code("ServiceUnavailable"),
    Row::kms(Unavailable, "AWS KMS does not work at present").code("ServiceUnavailableException"),
    Row::kms(Timeout, "AWS KMS gave up waiting for the request").code("RequestTimeoutException"),
    // Before what else is wrong with a signature.
    Row::kms(ClockSkew, "the clock of this machine is wrong: the signature is out of date")
        .code("InvalidSignatureException")
        .text("signature expired"),
    Row::kms(ClockSkew, "the clock of this machine is wrong: the signature is of the future")
        .code("InvalidSignatureException")
        .text("not yet current"),
    Row::kms(ClockSkew, "the clock of this machine is wrong").code("RequestExpired"),
    Row::kms(ClockSkew, "the clock of this machine is wrong").code("RequestTimeTooSkewed"),
    Row::kms(Credentials, "the credentials have expired")
        .code("ExpiredTokenException")
        .again(Again::WithNewCredentials),
    Row::kms(Credentials, "the credentials have expired").code("ExpiredToken").again(Again::WithNewCredentials),
    Row::kms(Credentials, "AWS does not know the access key").code("UnrecognizedClientException"),
    Row::kms(Credentials, "AWS does not know the access key").code("InvalidClientTokenId"),
    Row::kms(Credentials, "the secret access key does not belong to the access key").code("InvalidSignatureException"),
    Row::kms(Credentials, "the secret access key does not belong to the access key").code("SignatureDoesNotMatch"),
    Row::kms(Credentials, "the request lacks credentials").code("MissingAuthenticationTokenException"),
    Row::kms(Credentials, "the request lacks credentials").code("IncompleteSignature"),
    Row::configuration("the KEK is not a symmetric key for encrypting: make one of SYMMETRIC_DEFAULT")
        .code("InvalidKeyUsageException"),
    Row::configuration("the KEK is not named as AWS KMS names keys").code("InvalidArnException"),
    Row::configuration("AWS KMS does not do this with the KEK").code("UnsupportedOperationException"),
    Row::configuration("AWS KMS finds the request wrong, perhaps the name of the KEK").code("ValidationException"),
    HTTP_ROWS[0],
    HTTP_ROWS[1],
    HTTP_ROWS[2],
    HTTP_ROWS[3],
];
