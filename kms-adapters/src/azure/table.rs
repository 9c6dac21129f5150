//! The error table. By `error.innererror.code` where there is one, otherwise by `error.code`; both from Microsoft's
//! documents and our fake vault, since no real one was reachable.

use crate::layer::{Again, HTTP_ROWS, Row};
use KmsErrorKind::{AccessDenied, Credentials, InvalidCiphertext, KeyDisabled, KeyNotFound, Throttled, Unavailable};
use keyfold::KmsErrorKind;

/// How the answers of Key Vault and Managed HSM are sorted.
pub const TABLE: &[Row] = &[
    Row::kms(Throttled, "the vault has had too many requests").code("Throttled"),
    Row::kms(Throttled, "the vault has had too many requests").code("VaultRequestTypeLimitReached"),
    Row::kms(KeyDisabled, "this version of the KEK is disabled").code("KeyDisabled"),
    Row::kms(KeyDisabled, "this version of the KEK is not valid yet").code("KeyNotYetValid"),
    Row::kms(KeyDisabled, "this version of the KEK has expired").code("KeyExpired"),
    Row::kms(KeyDisabled, "the KEK is deleted, but can be recovered").code("ObjectIsDeletedButRecoverable"),
    Row::kms(KeyDisabled, "the KEK is being deleted").code("ObjectIsBeingDeleted"),
    Row::kms(KeyDisabled, "this version of the KEK is disabled").status(&[403]).text("disabled key"),
    Row::configuration("the operations permitted to the KEK do not include wrapKey and unwrapKey")
        .code("KeyOperationForbidden"),
    Row::kms(
        AccessDenied,
        "the identity may not use the KEK: it needs the role Key Vault Crypto Service Encryption User",
    )
    .code("ForbiddenByRbac"),
    Row::kms(AccessDenied, "the access policy of the vault does not let the identity wrap and unwrap")
        .code("ForbiddenByPolicy"),
    Row::kms(AccessDenied, "the firewall of the vault does not let this machine in").code("ForbiddenByFirewall"),
    Row::kms(AccessDenied, "the vault takes no requests from this network").code("ForbiddenByConnection"),
    Row::kms(AccessDenied, "the identity may not use the KEK").code("AccessDenied"),
    Row::kms(AccessDenied, "the identity may not use the KEK").code("Forbidden"),
    Row::kms(KeyNotFound, "the vault has no such key, or not that version of it").code("KeyNotFound"),
    Row::kms(InvalidCiphertext, "this version of the KEK did not wrap these bytes").status(&[400]).code("BadParameter"),
    Row::kms(Unavailable, "the vault has an internal error").code("InternalServerError"),
    Row::kms(Unavailable, "the vault does not work at present").code("ServiceUnavailable"),
    Row::kms(Credentials, "the vault does not accept the token").status(&[401]).again(Again::WithNewCredentials),
    HTTP_ROWS[0],
    HTTP_ROWS[1],
    HTTP_ROWS[2],
];
