//! The error table. Vault and OpenBao give no codes, only texts, so most rows go by text; each was seen from OpenBao 2.7.2,
//! except where a comment says otherwise.

use crate::layer::{Again, HTTP_ROWS, Row};
use keyfold::KmsErrorKind;

/// What only a derived key says.
pub(super) const LACKS_CONTEXT: &str = "the transit key is derived and was given no context";

/// What a key says that is there, derived or not.
pub(super) const VERSION_RETIRED: &str = "this version of the transit key has been retired (min_decryption_version)";

/// How the answers of the transit engine and of logins are sorted.
pub const TABLE: &[Row] = &[
    Row::configuration(LACKS_CONTEXT).status(&[400]).text("missing 'context' for key derivation"),
    Row::kms(KmsErrorKind::KeyDisabled, VERSION_RETIRED).status(&[400]).text("disallowed by policy (too old)"),
    Row::kms(KmsErrorKind::KeyDisabled, "the transit key has been soft-deleted")
        .status(&[400])
        .text("refusing to use soft-deleted key"),
    Row::kms(KmsErrorKind::KeyNotFound, "the transit engine has no such key")
        .status(&[400])
        .text("encryption key not found"),
    Row::kms(KmsErrorKind::InvalidCiphertext, "the transit key did not wrap these bytes under this context")
        .status(&[400])
        .text("message authentication failed"),
    Row::kms(KmsErrorKind::InvalidCiphertext, "the bytes are not what a transit key wrapped")
        .status(&[400])
        .text("invalid ciphertext"),
    Row::configuration(
        "the transit key is of a type that does not encrypt: make one of type aes256-gcm96 with derived=true",
    )
    .status(&[400])
    .text("not supported for key type"),
    Row::configuration(
        "the transit key is an RSA key, which binds no context: make one of type aes256-gcm96 with derived=true",
    )
    .text("failed to rsa decrypt"),
    Row::kms(KmsErrorKind::Credentials, "the role ID or secret ID of the AppRole is wrong or expired")
        .status(&[400])
        .text("invalid role or secret id"),
    Row::kms(KmsErrorKind::Credentials, "the auth method has no such role").status(&[400]).text("invalid role name"),
    // Not seen: HashiCorp Vault from 1.16 on.
    Row::kms(KmsErrorKind::Credentials, "the token is not valid, or no longer")
        .status(&[403])
        .text("invalid token")
        .again(Again::WithNewCredentials),
    Row::kms(KmsErrorKind::AccessDenied, "no policy of the token allows this on the transit key")
        .status(&[403])
        .text("1 error occurred"),
    Row::kms(KmsErrorKind::Credentials, "the token or the login is not valid, or no longer")
        .status(&[403])
        .text("permission denied")
        .again(Again::WithNewCredentials),
    Row::kms(KmsErrorKind::KeyNotFound, "no secrets engine or auth method is mounted there")
        .status(&[404])
        .text("no handler for route"),
    Row::kms(KmsErrorKind::KeyNotFound, "there is no such namespace").status(&[404]).text("namespace not found"),
    // Somebody has to unseal it, so that asking again at once is in vain; the circuit breaker keeps asking.
    Row::kms(KmsErrorKind::Unavailable, "the vault is sealed").status(&[503]).text("sealed").again(Again::No),
    // Not seen: Vault Enterprise, a node that lags behind.
    Row::kms(KmsErrorKind::Unavailable, "this node of the vault is not up to date yet").status(&[412]),
    HTTP_ROWS[0],
    HTTP_ROWS[1],
    HTTP_ROWS[2],
    HTTP_ROWS[3],
];
