/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Made by cbindgen; changes belong into bindings-c. */
/* The results of all libraries of keyfold. Included by keyfold.h. */

#ifndef KEYFOLD_RESULT_H
#define KEYFOLD_RESULT_H

#include <stdint.h>

/**
 * What a call came to. The same numbers as everywhere in keyfold; they never change their meaning, and none is used again.
 * Hundreds say who has to act: 1xx the caller, 2xx whoever sent the bytes, 3xx whoever keeps the keys, 4xx the key service,
 * 5xx the system, 6xx storage, 9xx keyfold. There will be more of them: have a `default` in each `switch`.
 */
enum kf_result
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Done. All outputs are written.
     */
    KF_OK = 0,
    /**
     * An argument breaks a documented rule.
     */
    KF_ERR_INVALID_INPUT = 100,
    /**
     * A pointer is NULL that must not be.
     */
    KF_ERR_NULL_POINTER = 101,
    /**
     * A buffer is smaller than its size function says.
     */
    KF_ERR_BUFFER_TOO_SMALL = 102,
    /**
     * A value, context, column or file is larger than its documented limit.
     */
    KF_ERR_LIMIT_EXCEEDED = 103,
    /**
     * The handle was released, is of another kind, or was never one.
     */
    KF_ERR_INVALID_HANDLE = 104,
    /**
     * An output overlaps an input or another output.
     */
    KF_ERR_OVERLAP = 105,
    /**
     * The policy does not allow it; decided before any key was touched.
     */
    KF_ERR_POLICY_REFUSED = 110,
    /**
     * The configuration or a policy file is wrong.
     */
    KF_ERR_CONFIGURATION = 111,
    /**
     * The bytes are not one canonical encoding of a known suite.
     */
    KF_ERR_MALFORMED = 200,
    /**
     * Well-formed, but a suite or version that this build does not know or that is reserved.
     */
    KF_ERR_UNSUPPORTED = 201,
    /**
     * No key of this keyring has that key ID.
     */
    KF_ERR_NO_MATCHING_KEY = 300,
    /**
     * Ciphertext, context, row, field or key is not the one it was encrypted with. Which of these is deliberately not told.
     * Treat it as tampering; do not retry.
     */
    KF_ERR_DECRYPTION_FAILED = 301,
    /**
     * The key belongs to another scope, partition or class than the caller stated.
     */
    KF_ERR_WRONG_SCOPE = 302,
    /**
     * The state of the key does not allow the operation.
     */
    KF_ERR_KEY_STATE = 303,
    /**
     * A key record is forged, edited, replayed or not vouched for by a trusted root.
     */
    KF_ERR_RECORD_REJECTED = 304,
    /**
     * The service refused for a reason that this list does not know.
     */
    KF_ERR_KMS_REJECTED = 400,
    /**
     * The identity may not use the key.
     */
    KF_ERR_KMS_ACCESS_DENIED = 401,
    /**
     * The service has no such key.
     */
    KF_ERR_KMS_KEY_NOT_FOUND = 402,
    /**
     * The key is disabled, pending deletion or destroyed.
     */
    KF_ERR_KMS_KEY_DISABLED = 403,
    /**
     * Too many requests. Retryable.
     */
    KF_ERR_KMS_THROTTLED = 404,
    /**
     * The service cannot be reached or answers with a server error. Retryable.
     */
    KF_ERR_KMS_UNAVAILABLE = 405,
    /**
     * No answer in time. Retryable.
     */
    KF_ERR_KMS_TIMEOUT = 406,
    /**
     * The TLS connection failed or the certificate is not trusted.
     */
    KF_ERR_KMS_TLS_ERROR = 407,
    /**
     * The credentials are missing, expired or invalid.
     */
    KF_ERR_KMS_CREDENTIALS = 408,
    /**
     * The service refused the request because of the time that this machine shows.
     */
    KF_ERR_KMS_CLOCK_SKEW = 409,
    /**
     * The service answered for another key than the one that was asked.
     */
    KF_ERR_KMS_WRONG_KEY = 410,
    /**
     * The wrapped bytes are not what this key wrapped under this context.
     */
    KF_ERR_KMS_INVALID_CIPHERTEXT = 411,
    /**
     * The answer does not follow the protocol or does not hold what was wrapped. Retryable.
     */
    KF_ERR_KMS_MALFORMED_RESPONSE = 412,
    /**
     * The operating system's generator failed; nothing was sealed.
     */
    KF_ERR_RANDOMNESS_UNAVAILABLE = 500,
    /**
     * The total deadline of the operation has passed. Retryable.
     */
    KF_ERR_DEADLINE_EXCEEDED = 501,
    /**
     * The keyring has been closed.
     */
    KF_ERR_CLOSED = 502,
    /**
     * The key store failed.
     */
    KF_ERR_STORE = 600,
    /**
     * A file could not be read or written.
     */
    KF_ERR_IO = 601,
    /**
     * Somebody else changed the same thing first; read again and repeat. Retryable.
     */
    KF_ERR_CONFLICT = 602,
    /**
     * A bug in keyfold.
     */
    KF_ERR_INTERNAL = 900,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum kf_result kf_result;
#else
typedef int32_t kf_result;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

#endif  /* KEYFOLD_RESULT_H */
