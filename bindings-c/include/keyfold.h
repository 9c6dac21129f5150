/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Made by cbindgen; changes belong into bindings-c. One file, however long: it is all that is needed offline. */
/*
 * NAME
 *     keyfold - encryption of fields of patient data under keys that a key service guards
 *
 * SYNOPSIS
 *     #include <keyfold.h>
 *     cc program.c $(pkg-config --cflags --libs keyfold)
 *
 * OVERVIEW
 *     kf_keyring_open opens the keyring that a configuration file describes, kf_field_new binds a field of
 *     its policy to a scope and a context, kf_encrypt and kf_decrypt seal and open values of the field one
 *     by one, kf_encrypt_column and kf_decrypt_column many at a time. A sealed value is self-contained
 *     bytes for a BLOB column; kf_to_text has a form for columns of text. kf_index_new makes the tokens
 *     by which values are found, kf_format_encrypt values that keep their format, and kf_documents_new
 *     protects JSON documents by the paths of the policy. kf_stream_seal and kf_stream_open are for files and other
 *     data of any length, piece by piece, kf_stream_reader_new for any part of it.
 *
 *     A value has a type (KF_TYPE_*) and bytes. Text, JSON, decimals and bytes are what they are;
 *     kf_number_encode and kf_number_decode have the bytes of numbers, dates and times.
 *
 * RESULTS
 *     Every function that can fail returns a kf_result: KF_OK, which is 0, or what went wrong, by who has
 *     to act. There are no partial successes: outputs are written on KF_OK, all of them, and on no other
 *     result, with two exceptions that their functions repeat: a kf_error is written on failure, and
 *     decrypting that fails erases the buffer that it was given.
 *
 *     Most functions take a kf_error as their last argument, or NULL. It is a struct of the caller's, so
 *     nothing is to be freed and no two threads share it. It is written when the call fails, and left
 *     alone when it does not. Nothing is kept per thread.
 *
 *     Results must be looked at: compilers that can warn do. Those of functions that release are an
 *     exception; they say whether the handle was one.
 *
 * ARGUMENTS
 *     Lengths are explicit, in bytes, and no text needs a NUL behind it. KF_STR("...") is pointer and
 *     length of a literal. Text is UTF-8; paths are bytes without NUL.
 *
 *     Pointers are checked. Where a length is 0 the pointer may be NULL; where it is not, NULL is
 *     KF_ERR_NULL_POINTER. Where an argument is optional its page says what NULL stands for; `row` is
 *     one: NULL is no row, and a pointer with length 0 is an empty one, which is something else. Lengths
 *     beyond PTRDIFF_MAX and pointers that are not aligned are KF_ERR_INVALID_INPUT. That a pointer is
 *     valid for the length that comes with it cannot be checked: it must be, until the call returns, and
 *     nobody may write there meanwhile.
 *
 *     Buffers are the caller's. A function of pure arithmetic says how large one has to be; no call has to
 *     be made twice, and a buffer that is too small costs no request. What is in a buffer before does not
 *     matter. An output may not overlap an input or another output: KF_ERR_OVERLAP.
 *
 * HANDLES
 *     kf_keyring, kf_field, kf_index, kf_documents, kf_stream, kf_stream_reader, kf_context and kf_options are handles: names, not
 *     addresses, though they are pointers in C, so that compilers tell them apart. Do not follow one. A handle that was released, is
 *     of another kind, or never was one is KF_ERR_INVALID_HANDLE, in every function and thread, and does
 *     no harm. (The number of a released handle comes up again after four thousand releases of its place
 *     on 32-bit machines, and 2^34 on 64-bit ones.)
 *
 *     What a handle stands for is independent of the others: a field works on after its context is
 *     released, and options can be released once the keyring is open.
 *
 * THREADS
 *     Every function may be called from every thread, and handles are shared without locks of the
 *     caller's. What one thread releases while another one uses it goes when that use ends.
 *
 *     Each function says when it blocks. Those that do wait for files, for the store of key records, or for
 *     the key service within its deadline; a warm field does not. Keyfold has threads of its own for this,
 *     which begin when they are first needed.
 *
 *     After fork a child uses handles only if the parent has called kf_keyring_before_fork. No function
 *     may be called in a signal handler.
 *
 * CALLBACKS
 *     Functions of the program are called from any thread, several at once. They do not throw, longjmp or
 *     end the thread. They are given a pointer of the program's, and say by `release` when that is no
 *     longer needed. What they are given is valid for the call alone.
 *     They call no function of this library: it may wait for them, for ever.
 *
 * SECRETS
 *     Texts of errors hold no values, keys or contexts, and may be logged. Keys are erased from memory
 *     when they are no longer used; values that the library copies are, too. Those in the caller's buffers
 *     are the caller's to erase, before they are freed.
 *
 * PANICS
 *     A bug in keyfold becomes KF_ERR_INTERNAL and a line on standard error; it does not unwind into C. Where
 *     memory runs out the process ends.
 *
 * VERSIONS
 *     Until 1.0 each minor version has an ABI and soname of its own. Within one, functions, constants and
 *     results are only added: structs do not change, and numbers keep their meaning.
 */


#ifndef KEYFOLD_H
#define KEYFOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "keyfold_result.h"

/** Marks functions whose result must be looked at. */
#if defined(KF_MUST_USE)
#elif defined(__cplusplus) && __cplusplus >= 201703L
#define KF_MUST_USE [[nodiscard]]
#elif defined(__GNUC__) || defined(__clang__)
#define KF_MUST_USE __attribute__((warn_unused_result))
#else
#define KF_MUST_USE
#endif

/** A literal as two arguments: where it is, and how many bytes it has without its NUL. */
#define KF_STR(literal) ("" literal), (sizeof("" literal) - 1)

/** The version of this header, as kf_version has that of the library. */
#define KF_VERSION_MAJOR 0
#define KF_VERSION_MINOR 1
#define KF_VERSION_PATCH 0
#define KF_VERSION (KF_VERSION_MAJOR * 1000000 + KF_VERSION_MINOR * 1000 + KF_VERSION_PATCH)


/**
 * Bytes of the text of a kf_error, with the NUL that ends it.
 */
#define KF_ERROR_TEXT_LEN 488

/**
 * In kf_error::row: it is not about a row.
 */
#define KF_NO_ROW UINT64_MAX

/**
 * Bytes that sealing adds to a value, unless the policy has it padded. A deterministic field adds fewer.
 */
#define KF_SEALED_OVERHEAD 67

/**
 * Bytes that sealing adds to a value of a deterministic field, unless the policy has it padded.
 */
#define KF_DETERMINISTIC_OVERHEAD 43

/**
 * Most bytes of a value.
 */
#define KF_MAX_VALUE_LEN 1048576

/**
 * Most bytes of a number, date or time.
 */
#define KF_MAX_NUMBER_LEN 16

/**
 * Bytes of what a key service wraps.
 */
#define KF_PAYLOAD_LEN 64

/**
 * Most bytes of a wrapped payload.
 */
#define KF_MAX_WRAPPED_LEN 4096

/**
 * Most bytes of the version of a key in a key service.
 */
#define KF_MAX_VERSION_LEN 255

/**
 * Most bytes of a passphrase.
 */
#define KF_MAX_PASSPHRASE_LEN 1024

/**
 * Bytes of a key ID. The first four are the key's generation, in big-endian order.
 */
#define KF_KEY_ID_LEN 24

/**
 * Most tokens of one value: an index of prefixes has one for each of its lengths.
 */
#define KF_MAX_TOKENS 8

/**
 * Flag of kf_documents_new: documents that no field of the policy applies to pass as they are, instead of being refused.
 */
#define KF_PASS_UNMATCHED 1

/**
 * Flag of kf_documents_new: values that look sealed already are sealed once more, instead of being refused.
 */
#define KF_SEAL_SEALED 2

/**
 * Bytes of the header of a stream.
 */
#define KF_STREAM_HEADER_LEN 83

/**
 * Bytes of plaintext in every chunk of a stream but the last.
 */
#define KF_STREAM_CHUNK_LEN 16384

/**
 * What a key is for: kf_key_info::key_class.
 */
enum kf_key_class
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint8_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Authenticates key records and wraps the keyring's other keys.
     */
    KF_CLASS_ROOT = 1,
    /**
     * Seals fields of one scope, or of the keyring where no scope is used.
     */
    KF_CLASS_DATA = 2,
    /**
     * Seals deterministic fields of one partition.
     */
    KF_CLASS_LOOKUP = 3,
    /**
     * Starts audit chains.
     */
    KF_CLASS_AUDIT = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum kf_key_class kf_key_class;
#else
typedef uint8_t kf_key_class;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Where a key is in its life (NIST SP 800-57): kf_key_info::state.
 */
enum kf_key_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint8_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Published, so that every process can open under it before anyone seals.
     */
    KF_STATE_PRE_ACTIVE = 1,
    /**
     * Seals and opens.
     */
    KF_STATE_ACTIVE = 2,
    /**
     * Opens only.
     */
    KF_STATE_DEACTIVATED = 3,
    /**
     * Opens only where the policy says so; data under it must be re-encrypted.
     */
    KF_STATE_COMPROMISED = 4,
    /**
     * Neither seals nor opens; can still be taken back.
     */
    KF_STATE_DESTROY_PENDING = 5,
    /**
     * The key is gone.
     */
    KF_STATE_DESTROYED = 6,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum kf_key_state kf_key_state;
#else
typedef uint8_t kf_key_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How much a line of the log matters.
 */
enum kf_log_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint8_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Something is wrong that somebody has to look at.
     */
    KF_LOG_ERROR = 1,
    /**
     * Something is wrong, and keyfold goes on.
     */
    KF_LOG_WARNING = 2,
    /**
     * What was done to keys and configuration.
     */
    KF_LOG_INFO = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum kf_log_level kf_log_level;
#else
typedef uint8_t kf_log_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a value is, and what its bytes mean. Types are sealed with the value and come back with it.
 */
enum kf_type
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint8_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Any bytes.
     */
    KF_TYPE_BYTES = 1,
    /**
     * Text: UTF-8, never normalised.
     */
    KF_TYPE_TEXT = 2,
    /**
     * A whole number: 1 to 16 bytes, the shortest two's complement form in big-endian order. See kf_number_encode.
     */
    KF_TYPE_INTEGER = 3,
    /**
     * A decimal number as it is written, in the grammar of JSON numbers: "1.50" stays "1.50".
     */
    KF_TYPE_DECIMAL = 4,
    /**
     * An IEEE 754 double: 8 bytes in big-endian order; NaN has one form. See kf_number_encode.
     */
    KF_TYPE_FLOAT = 5,
    /**
     * True or false: one byte, 1 or 0.
     */
    KF_TYPE_BOOLEAN = 6,
    /**
     * Days since 1970-01-01 in the proleptic Gregorian calendar: 4 bytes. See kf_number_encode.
     */
    KF_TYPE_DATE = 7,
    /**
     * A point in time: seconds since 1970-01-01T00:00:00Z and nanoseconds, 8 and 4 bytes. See kf_number_encode.
     */
    KF_TYPE_TIMESTAMP = 8,
    /**
     * One JSON value as it is written, in UTF-8. Not checked.
     */
    KF_TYPE_JSON = 9,
    /**
     * Absent, where absence itself is protected: no bytes.
     */
    KF_TYPE_NULL = 10,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum kf_type kf_type;
#else
typedef uint8_t kf_type;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What values are bound to besides field and row: pairs such as a tenant and a table. Not stored in sealed values.
 */
typedef struct kf_context kf_context;

/**
 * What protects and reveals JSON documents by the paths of the policy, under a scope and a context.
 */
typedef struct kf_documents kf_documents;

/**
 * A field of the policy, bound to a scope and a context. Encrypts and decrypts.
 */
typedef struct kf_field kf_field;

/**
 * A blind index of a field: what is stored beside its values so that they are found without being opened.
 */
typedef struct kf_index kf_index;

/**
 * A named set of keys, which a configuration describes.
 */
typedef struct kf_keyring kf_keyring;

/**
 * What kf_keyring_open is told besides the configuration.
 */
typedef struct kf_options kf_options;

/**
 * A stream that is being sealed or opened piece by piece, in order.
 */
typedef struct kf_stream kf_stream;

/**
 * A stream of which any part can be read.
 */
typedef struct kf_stream_reader kf_stream_reader;

/**
 * A value that is not bytes, as C has it.
 */
typedef struct {
    /**
     * KF_TYPE_INTEGER: the number. KF_TYPE_BOOLEAN: 0 or 1. KF_TYPE_DATE: the days. KF_TYPE_TIMESTAMP: the seconds, rounded down.
     */
    int64_t integer;
    /**
     * KF_TYPE_FLOAT: the number.
     */
    double real;
    /**
     * KF_TYPE_TIMESTAMP: nanoseconds within the second, below 1,000,000,000.
     */
    uint32_t nanoseconds;
    /**
     * 0.
     */
    uint32_t reserved;
} kf_number;

/**
 * What went wrong, in words. The caller's; nothing has to be freed. Written when a call fails, and then completely.
 */
typedef struct {
    /**
     * The kf_result that the call returned.
     */
    int32_t code;
    /**
     * Whether the same call may succeed later without anybody changing anything.
     */
    bool is_retryable;
    /**
     * 0.
     */
    uint8_t reserved[3];
    /**
     * The row of a column that it is about, counted from 0, or KF_NO_ROW.
     */
    uint64_t row;
    /**
     * One line of UTF-8 that ends with NUL, cut where it is too long. Safe to log: it names limits, rows, fields and keys, never
     * a value, a key byte or a context value. Not a part of the API: programs look at the code.
     */
    char text[KF_ERROR_TEXT_LEN];
} kf_error;

/**
 * What a key service is told, and must bind to: it unwraps nothing under another context. It may log it. Texts are UTF-8, with a
 * NUL behind them that their lengths do not count.
 */
typedef struct {
    /**
     * The environment of the keyring ("kf:env").
     */
    const char *environment;
    /**
     * Its length.
     */
    size_t environment_len;
    /**
     * The key that is wrapped, in hexadecimal ("kf:key").
     */
    const char *key_id;
    /**
     * Its length.
     */
    size_t key_id_len;
    /**
     * The keyring, in hexadecimal ("kf:keyring").
     */
    const char *keyring;
    /**
     * Its length.
     */
    size_t keyring_len;
    /**
     * All of it in one encoding that never changes, for services that authenticate bytes.
     */
    const uint8_t *bytes;
    /**
     * Its length.
     */
    size_t bytes_len;
} kf_kms_context;

/**
 * A wrapped payload.
 */
typedef struct {
    /**
     * The bytes that the service returned, of which `len` count.
     */
    uint8_t bytes[KF_MAX_WRAPPED_LEN];
    /**
     * How many.
     */
    size_t len;
    /**
     * Which version of the key wrapped it, in UTF-8, where the bytes do not say so themselves.
     */
    char version[256];
    /**
     * How many bytes of that count.
     */
    size_t version_len;
} kf_wrapped;

/**
 * A key in a key service, which functions of the program reach. They make one attempt each; deadline, repetition with jitter, circuit
 * breaker and rate limit are keyfold's. They run on threads of keyfold's, several at once, and may block.
 *
 * They return KF_OK or one of KF_ERR_KMS_*, which says whether the attempt is repeated; any other number counts as
 * KF_ERR_KMS_REJECTED. They neither throw nor jump out, and call no function of this header on the keyring that asks them.
 */
typedef struct {
    /**
     * Wraps KF_PAYLOAD_LEN bytes under the context: fills `wrapped`, which is all zeros before.
     */
    int32_t (*wrap)(void *user,
                    const uint8_t *payload,
                    const kf_kms_context *context,
                    kf_wrapped *wrapped);
    /**
     * Unwraps what `wrap` made: writes KF_PAYLOAD_LEN bytes to `payload`.
     */
    int32_t (*unwrap)(void *user,
                      const kf_wrapped *wrapped,
                      const kf_kms_context *context,
                      uint8_t *payload);
    /**
     * Called once when nobody calls the others any more, on any thread; may be NULL.
     */
    void (*release)(void *user);
    /**
     * Passed to them; may be NULL.
     */
    void *user;
} kf_kek;

/**
 * Gives the passphrase of a KEK: writes it to `passphrase`, which has KF_MAX_PASSPHRASE_LEN bytes that keyfold erases afterwards, and
 * its length to `*passphrase_len`. Returns KF_OK, or anything else if there is none.
 */
typedef int32_t (*kf_passphrase_fn)(void *user,
                                    const char *alias,
                                    size_t alias_len,
                                    uint8_t *passphrase,
                                    size_t *passphrase_len);

/**
 * Releases what a callback was given.
 */
typedef void (*kf_release_fn)(void *user);

/**
 * Records an event, which is one JSON object in UTF-8 with the members that docs/AUDIT.md gives events, but for those that an audit file
 * adds. Returns KF_OK once it is recorded as durably as the program promises that; anything else makes the operation fail that the
 * event is about, with KF_ERR_IO, and a key that it was to bring is not used.
 */
typedef int32_t (*kf_audit_fn)(void *user, const char *event, size_t event_len);

/**
 * Is given a line of the log: its kf_log_level, and one line of UTF-8 without a newline, safe to store as texts of errors are. Programs
 * do not parse it. It does not block for long, and calls no function of this header.
 */
typedef void (*kf_log_fn)(void *user, uint8_t level, const char *text, size_t text_len);

/**
 * A key as its record says.
 */
typedef struct {
    /**
     * Its ID.
     */
    uint8_t key_id[KF_KEY_ID_LEN];
    /**
     * Its generation: in each keyring a newer key has a higher one.
     */
    uint32_t generation;
    /**
     * What it is for: a kf_key_class.
     */
    uint8_t key_class;
    /**
     * Where it is in its life: a kf_key_state.
     */
    uint8_t state;
    /**
     * Whether a trusted root vouches for the record. Of one that is not trusted believe nothing.
     */
    bool is_trusted;
    /**
     * 0.
     */
    uint8_t reserved;
    /**
     * When it was made, in seconds since 1970 by the clock of the store.
     */
    uint64_t created_at;
} kf_key_info;

/**
 * Is given a copy of the key records, all in one piece. Returns KF_OK once it has them where they are to be.
 */
typedef int32_t (*kf_records_fn)(void *user, const void *records, size_t records_len);

/**
 * What a value was when it was sealed.
 */
typedef struct {
    /**
     * How many bytes of the buffer are the value.
     */
    size_t len;
    /**
     * Its type: one of KF_TYPE_*.
     */
    uint8_t type;
    /**
     * Whether its key is still the one that seals. If not, encrypt the value again when convenient.
     */
    bool is_current;
    /**
     * Whether its key is compromised, so that whoever has the key can have made the value. Opens only where the configuration says so.
     */
    bool is_compromised;
    /**
     * 0.
     */
    uint8_t reserved[5];
} kf_opened;

/**
 * What a database stores and compares in the place of a value.
 */
typedef struct {
    /**
     * Of an index of at most 63 bits: the token, never negative. Otherwise -1.
     */
    int64_t integer;
    /**
     * Of an index of 256 bits: the token. Otherwise zero.
     */
    uint8_t bytes[32];
} kf_token;

/**
 * Is given a JSON document, all in one piece, which is erased when it returns. Returns KF_OK once it has it where it is to be.
 */
typedef int32_t (*kf_document_fn)(void *user, const char *text, size_t text_len);

/**
 * Reads up to `len` bytes of a sealed stream, from `offset` on, into `out`, and says how many in `*read`, which is 0 before: none only where the stream ends. Returns
 * KF_OK, or anything else if it cannot.
 */
typedef int32_t (*kf_read_at_fn)(void *user, uint64_t offset, void *out, size_t len, size_t *read);

/**
 * Byte strings, one per row, in the layout of Arrow's LargeBinary: row `i` is `data[offsets[i]]` to `data[offsets[i + 1]]`.
 */
typedef struct {
    /**
     * The bytes of all rows. May be NULL if there are none.
     */
    const uint8_t *data;
    /**
     * How many.
     */
    size_t data_len;
    /**
     * Where each row begins, and where the last one ends: `rows + 1` numbers that ascend from 0 or more. May be NULL if there are no rows.
     */
    const int64_t *offsets;
    /**
     * Rows.
     */
    size_t rows;
} kf_column;

/**
 * Room for byte strings, one per row, in the same layout.
 */
typedef struct {
    /**
     * Room for the bytes of all rows.
     */
    uint8_t *data;
    /**
     * How much.
     */
    size_t data_cap;
    /**
     * Room for `rows + 1` numbers, which will begin with 0; the last one says how many bytes were written.
     */
    int64_t *offsets;
    /**
     * For how many there is room.
     */
    size_t offsets_cap;
} kf_column_out;

/**
 * What there is to know of an opened column.
 */
typedef struct {
    /**
     * Rows whose key is no longer the one that seals: what waits for being encrypted again.
     */
    size_t outdated;
    /**
     * Rows whose key is compromised; they count as outdated as well.
     */
    size_t compromised;
    /**
     * Rows that did not open, which only kf_decrypt_column_each lets happen.
     */
    size_t failed;
} kf_opened_column;

/**
 * What a sealed value says of itself. Not authenticated: only decrypting is.
 */
typedef struct {
    /**
     * The key.
     */
    uint8_t key_id[KF_KEY_ID_LEN];
    /**
     * The generation of the key.
     */
    uint32_t generation;
    /**
     * Whether it was sealed deterministically, so that equal values look equal.
     */
    bool is_deterministic;
    /**
     * Whether it is in a frame, with the records of its key in front.
     */
    bool is_framed;
    /**
     * 0.
     */
    uint8_t reserved[2];
    /**
     * Bytes of the value with its type and padding.
     */
    size_t encoded_len;
} kf_inspection;

/**
 * Which FIPS 140 module the library has. Its texts are of the library, in UTF-8 with a NUL behind, and stay.
 */
typedef struct {
    /**
     * Whether it has one.
     */
    bool has_module;
    /**
     * Whether that says that it is in FIPS mode.
     */
    bool is_in_fips_mode;
    /**
     * 0.
     */
    uint8_t reserved[6];
    /**
     * The name of the module, or nothing.
     */
    const char *module;
    /**
     * The version of the library that the module is a part of, or nothing.
     */
    const char *version;
    /**
     * Everything cryptographic that the library does but for KEKs, a line each: what for, by which algorithms, what computes them, and "approved" or
     * "not approved", with a tab between.
     */
    const char *services;
} kf_fips;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The name of a result, such as "DecryptionFailed", as documents and the other languages write it; NULL of other numbers.
 * The text is never freed.
 *
 * Threads: any. Never blocks.
 */
const char *kf_result_name(int32_t result);

/**
 * Whether a call that returned `result` may succeed later without anybody changing anything.
 *
 * Threads: any. Never blocks.
 */
bool kf_result_is_retryable(int32_t result);

/**
 * Writes the bytes of a number, date or time of type `type` to `out`, whose `out_cap` must be at least KF_MAX_NUMBER_LEN, and how many
 * they are to `*out_len`. Members of `number` that the type does not use are not looked at.
 *
 * Threads: any. Never blocks.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_BUFFER_TOO_SMALL, KF_ERR_OVERLAP; KF_ERR_INVALID_INPUT: not such a type, a date beyond 32 bits,
 * a boolean other than 0 and 1, or too many nanoseconds.
 */
KF_MUST_USE
kf_result kf_number_encode(uint8_t type,
                           const kf_number *number,
                           uint8_t *out,
                           size_t out_cap,
                           size_t *out_len,
                           kf_error *error);

/**
 * Reads a number, date or time of type `type` from its bytes. Members of `*number` that the type does not use are 0 then.
 *
 * Threads: any. Never blocks.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_OVERLAP; KF_ERR_INVALID_INPUT: not such a type, or not its bytes; KF_ERR_UNSUPPORTED: a whole
 * number beyond 64 bits, whose bytes are right.
 */
KF_MUST_USE
kf_result kf_number_decode(uint8_t type,
                           const uint8_t *value,
                           size_t value_len,
                           kf_number *number,
                           kf_error *error);

/**
 * Makes options that say nothing. Release them with kf_options_free; keyrings that were opened with them keep what they need.
 *
 * Threads: any. Never blocks.
 *
 * Returns KF_ERR_NULL_POINTER.
 */
KF_MUST_USE
kf_result kf_options_new(kf_options **options,
                         kf_error *error);

/**
 * Adds the fields of a policy file. It is read when the keyring is opened.
 *
 * Threads: any. Never blocks.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_INVALID_INPUT.
 */
KF_MUST_USE
kf_result kf_options_add_policy(kf_options *options,
                                const char *path,
                                size_t path_len,
                                kf_error *error);

/**
 * Turns recovery mode on, with the reason that break-glass KEKs need and that the audit trail gets: one line of 1 to 512 bytes.
 *
 * Threads: any. Never blocks.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_INVALID_INPUT.
 */
KF_MUST_USE
kf_result kf_options_set_recovery(kf_options *options,
                                  const char *reason,
                                  size_t reason_len,
                                  kf_error *error);

/**
 * Has keys read from a backup of the key records (`keyfold keys backup`) in the place of the store, for machines that do not reach it.
 * Nothing is made or changed then. The bytes are copied.
 *
 * Threads: any. Never blocks.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE.
 */
KF_MUST_USE
kf_result kf_options_set_records(kf_options *options,
                                 const void *records,
                                 size_t records_len,
                                 kf_error *error);

/**
 * Adds a key in a key service that the program reaches: the configuration names it by `uri = "host:NAME"`. `kek` is copied.
 * From KF_OK on its `release` is going to be called, once, after the options and the keyrings that were opened with them are released.
 *
 * Threads: any. Never blocks.
 *
 * Returns KF_ERR_NULL_POINTER: also if `wrap` or `unwrap` is NULL; KF_ERR_INVALID_HANDLE; KF_ERR_INVALID_INPUT: the name is not
 * UTF-8, or is there already.
 */
KF_MUST_USE
kf_result kf_options_add_kek(kf_options *options,
                             const char *name,
                             size_t name_len,
                             const kf_kek *kek,
                             kf_error *error);

/**
 * Has `ask` give the passphrases of KEKs. It runs on threads of keyfold's when such a KEK is first used, and may block. It is given
 * `user`, for which `release` (may be NULL) is called as kf_options_add_kek says, or when another function takes its place.
 *
 * Threads: any. Never blocks.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE.
 */
KF_MUST_USE
kf_result kf_options_set_passphrase(kf_options *options,
                                    kf_passphrase_fn ask,
                                    kf_release_fn release,
                                    void *user,
                                    kf_error *error);

/**
 * Has `record` get every event of the keyring: requests to key services, changes of keys, and counts of what was sealed and opened. For
 * configurations without an `[audit]` section. It runs on any thread, several at once, and may block; it is given `user`, for which
 * `release` (may be NULL) is called as kf_options_add_kek says, or when another function takes its place.
 *
 * Threads: any. Never blocks.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE.
 */
KF_MUST_USE
kf_result kf_options_set_audit(kf_options *options,
                               kf_audit_fn record,
                               kf_release_fn release,
                               void *user,
                               kf_error *error);

/**
 * Releases options. NULL does nothing.
 *
 * Threads: any. Never blocks, but for a `release` of the program's that does.
 *
 * Returns KF_ERR_INVALID_HANDLE.
 */
kf_result kf_options_free(kf_options *options);

/**
 * Has `log` get what keyfold logs in this process, such as that one of several KEKs cannot be reached; NULL: nobody, as at first. It
 * runs on any thread, several at once, and is given `user`, for which `release` (may be NULL) is called once, when another call of
 * this function has taken its place and it runs no more. Where `log` is NULL neither is looked at.
 *
 * Threads: any. Never blocks, but for a `release` of the program's that does.
 *
 * Returns KF_OK.
 */
kf_result kf_set_log(kf_log_fn log,
                     kf_release_fn release,
                     void *user);

/**
 * Makes an empty context. Release it with kf_context_free; fields that were made with it keep what was in it.
 *
 * Threads: any. Never blocks.
 *
 * Returns KF_ERR_NULL_POINTER.
 */
KF_MUST_USE
kf_result kf_context_new(kf_context **context,
                         kf_error *error);

/**
 * Adds a pair to a context. The value is bytes, of a text those of its UTF-8.
 *
 * Threads: any. Never blocks. On failure the context is as it was.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE; KF_ERR_INVALID_INPUT: the key is empty, not UTF-8, starts with "kf:" or
 * is there already; KF_ERR_LIMIT_EXCEEDED: more than 32 pairs or 4,096 bytes.
 */
KF_MUST_USE
kf_result kf_context_add(kf_context *context,
                         const char *key,
                         size_t key_len,
                         const void *value,
                         size_t value_len,
                         kf_error *error);

/**
 * Releases a context. NULL does nothing.
 *
 * Threads: any. Never blocks.
 *
 * Returns KF_ERR_INVALID_HANDLE.
 */
kf_result kf_context_free(kf_context *context);

/**
 * Makes a keyring in `folder`, which is made if needed: an SQLite store of key records, and a configuration `keyfold.toml`, in which the
 * key-encryption key is called "kek" and is the one of the URI `kek` (NULL: a new file of one, for one machine and for tests).
 * `environment` names the isolation domain; keys of another one never open in this one, and it cannot be changed later. `options` may
 * be NULL; passphrases and KEKs of the program count.
 *
 * Threads: any. Blocks for files, and for the key service. On failure nothing is left.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_INVALID_INPUT; KF_ERR_CONFIGURATION: the URI is none of a KEK; KF_ERR_IO: the
 * folder holds a keyring already, or cannot be written; KF_ERR_KMS_*.
 */
KF_MUST_USE
kf_result kf_init(const char *folder,
                  size_t folder_len,
                  const char *name,
                  size_t name_len,
                  const char *environment,
                  size_t environment_len,
                  const char *kek,
                  size_t kek_len,
                  const kf_options *options,
                  kf_error *error);

/**
 * Opens the keyring of the configuration file `path`. `options` may be NULL. Release the result with kf_keyring_close.
 *
 * One keyring per configuration is enough for a process: it owns the cache of unwrapped keys.
 *
 * Threads: any. Blocks for files, for a store on a server, and for the key service of an audit trail; asks no other key service yet.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_INVALID_INPUT; KF_ERR_CONFIGURATION: the text says file, line and key;
 * KF_ERR_IO, KF_ERR_STORE; KF_ERR_KMS_*: the key service of the audit trail; KF_ERR_RECORD_REJECTED, KF_ERR_MALFORMED: records that
 * the options bring.
 */
KF_MUST_USE
kf_result kf_keyring_open(const char *path,
                          size_t path_len,
                          const kf_options *options,
                          kf_keyring **keyring,
                          kf_error *error);

/**
 * Reads the configuration file `path` again, with `options`, and puts policy, pins, KEKs, cache and rotation in the place of what the
 * keyring has. Fields that exist go on with the policy that they were made with.
 *
 * Threads: any, at the same time as others use the keyring. Blocks for files.
 *
 * Returns what kf_keyring_open returns. On failure the keyring goes on as it was.
 */
KF_MUST_USE
kf_result kf_keyring_reload(kf_keyring *keyring,
                            const char *path,
                            size_t path_len,
                            const kf_options *options,
                            kf_error *error);

/**
 * Makes a new key that seals in `scope` (NULL: where no scope is used) from now on; older ones still open. Of several processes
 * that do this at once, one makes a key. Writes the new key to `*key`, unless `key` is NULL.
 *
 * Threads: any. Blocks for the store, and for the key service where the root key is not in memory.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_INVALID_INPUT; KF_ERR_NO_MATCHING_KEY: there is no such scope;
 * KF_ERR_KEY_STATE, KF_ERR_RECORD_REJECTED, KF_ERR_KMS_*, KF_ERR_STORE, KF_ERR_CONFLICT, KF_ERR_CLOSED.
 */
KF_MUST_USE
kf_result kf_keyring_rotate(kf_keyring *keyring,
                            const char *scope,
                            size_t scope_len,
                            kf_key_info *key,
                            kf_error *error);

/**
 * Lists keys in the order of their IDs: at most `keys_cap`, beginning behind the ID `after` (KF_KEY_ID_LEN bytes; NULL: at the first).
 * Writes them to `keys`, and how many they are to `*keys_len`; fewer than `keys_cap` are the last ones.
 *
 * Threads: any. Blocks for the store, and for the key service where the root key is not in memory.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_INVALID_INPUT, KF_ERR_OVERLAP, KF_ERR_KMS_*, KF_ERR_STORE,
 * KF_ERR_CLOSED.
 */
KF_MUST_USE
kf_result kf_keyring_list(const kf_keyring *keyring,
                          const uint8_t *after,
                          kf_key_info *keys,
                          size_t keys_cap,
                          size_t *keys_len,
                          kf_error *error);

/**
 * Has `write` get a copy of all key records, for kf_options_set_records on machines that do not reach the store, and for restoring. It
 * runs once, in this call, and is given `user`. A copy holds no key in clear, and is believed nowhere without a root that a KEK opens: it may
 * be sent in the open. Whoever has the KEK as well has every key. The format is that of `keyfold keys backup`.
 *
 * Threads: any. Blocks for the store, and for `write`.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_STORE, KF_ERR_CLOSED; KF_ERR_IO: `write` did not return KF_OK, or the audit
 * trail did not take it.
 */
KF_MUST_USE
kf_result kf_keyring_records(const kf_keyring *keyring,
                             kf_records_fn write,
                             void *user,
                             kf_error *error);

/**
 * Renews the keys that are in use and due, forgets what has idled, and records what was counted for an audit trail if its interval is
 * over. Call it every few seconds, on a thread of its own, and no call waits for a renewal. Without it counts are recorded with the next
 * event of another kind, by kf_keyring_before_fork, and when the keyring is closed.
 *
 * Threads: any. Blocks for the store, and for the key service.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE; KF_ERR_KMS_*, KF_ERR_STORE, KF_ERR_KEY_STATE, KF_ERR_RECORD_REJECTED, KF_ERR_CLOSED: the last
 * error of a renewal, or of recording; the others were tried all the same.
 */
KF_MUST_USE
kf_result kf_keyring_refresh(kf_keyring *keyring,
                             kf_error *error);

/**
 * Makes the keyring ready for a fork of the process, which has to follow at once: the child can use it, its fields and all other
 * handles then. Without it a child opens the keyring anew. What was counted for the audit trail is recorded in this call, which may call
 * the kf_audit_fn; what that says is no error here.
 * Every keyring of the process is made ready so. One that was closed holds its store open as long as a field, an index, documents or a
 * stream of it are not released: release these first.
 *
 * Threads: any, while no other thread is in any function of this library, from this call until the fork is over: the child would wait for ever
 * for what that thread has, and find the store open. May block while another thread asks the store, and for the audit trail.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE.
 */
KF_MUST_USE
kf_result kf_keyring_before_fork(kf_keyring *keyring);

/**
 * Closes a keyring and releases its handle; ends its audit trail. Its fields fail with KF_ERR_CLOSED from now on and are still to be
 * released. Calls that are under way may finish, unless they would ask a KEK. KEKs are dropped, and keys erased but for those that a
 * field, documents or stream has used: they stay in memory, with those of the root above them, until that is released. The audit KEK
 * stays until all of them are. NULL does nothing.
 *
 * Threads: any. Blocks for the audit trail.
 *
 * Returns KF_ERR_INVALID_HANDLE.
 */
kf_result kf_keyring_close(kf_keyring *keyring);

/**
 * Binds a field of the policy to a scope (a tenant, a clinic, a device; NULL: none) and a context (NULL: the empty one). Release it with
 * kf_field_free. Make it once, not per value: it holds the keys that it has used.
 *
 * Threads: any. Never blocks, and asks for no key yet.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_INVALID_INPUT: not UTF-8; KF_ERR_POLICY_REFUSED: the policy has no such
 * field; KF_ERR_CLOSED.
 */
KF_MUST_USE
kf_result kf_field_new(const kf_keyring *keyring,
                       const char *name,
                       size_t name_len,
                       const char *scope,
                       size_t scope_len,
                       const kf_context *context,
                       kf_field **field,
                       kf_error *error);

/**
 * Releases a field. NULL does nothing.
 *
 * Threads: any. Never blocks.
 *
 * Returns KF_ERR_INVALID_HANDLE.
 */
kf_result kf_field_free(kf_field *field);

/**
 * Says how many bytes kf_encrypt is going to write for a value of `value_len` bytes: no more and no fewer.
 *
 * Threads: any. Never blocks.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_LIMIT_EXCEEDED.
 */
KF_MUST_USE
kf_result kf_sealed_len(const kf_field *field,
                        size_t value_len,
                        size_t *sealed_len,
                        kf_error *error);

/**
 * Bytes that a buffer must have for opening a sealed value of `sealed_len` bytes, whatever is in it. A pure function.
 *
 * Threads: any. Never blocks.
 */
KF_MUST_USE
size_t kf_opened_len_max(size_t sealed_len);

/**
 * Encrypts one value of type `type` (one of KF_TYPE_*) and writes the sealed value to `out`, whose `out_cap` must be at least what
 * kf_sealed_len says. The value is bound to `row` where the policy binds rows; otherwise `row` is NULL.
 *
 * On KF_OK `*out_len` has the number of bytes written. On any other result neither `out` nor `*out_len` has been changed; after
 * KF_ERR_INTERNAL `out` may have been erased.
 *
 * Threads: any, with the same field. Blocks for the store and for one request to the key service where the key that seals is not in
 * memory or has to be renewed; otherwise never. A buffer that is too small costs no request.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_OVERLAP; KF_ERR_BUFFER_TOO_SMALL; KF_ERR_INVALID_INPUT: not a type, not
 * the bytes of the type, not the type of the field, row missing or not wanted; KF_ERR_LIMIT_EXCEEDED: value or row is too long;
 * KF_ERR_POLICY_REFUSED: the context lacks a required key; KF_ERR_KEY_STATE, KF_ERR_RECORD_REJECTED, KF_ERR_KMS_*, KF_ERR_STORE;
 * KF_ERR_RANDOMNESS_UNAVAILABLE, KF_ERR_DEADLINE_EXCEEDED, KF_ERR_CLOSED.
 */
KF_MUST_USE
kf_result kf_encrypt(const kf_field *field,
                     uint8_t type,
                     const void *value,
                     size_t value_len,
                     const void *row,
                     size_t row_len,
                     uint8_t *out,
                     size_t out_cap,
                     size_t *out_len,
                     kf_error *error);

/**
 * Decrypts one sealed value, bound to the row that it was encrypted with, and writes the value to `out`, whose `out_cap` must be at
 * least kf_opened_len_max(sealed_len), although the value may be shorter.
 *
 * On KF_OK `*opened` says what the value is. On any other result `*opened` has not been changed, and the bytes of `out` that the call
 * could have written are zero: kf_opened_len_max(sealed_len) of them, or `out_cap` if that is less. Where handles, pointers or lengths
 * are refused, `out` has not been changed.
 *
 * Threads: any, with the same field. Blocks for the store and for one request to the key service where the key of the value is not
 * in memory or has to be renewed; otherwise never.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_OVERLAP; KF_ERR_BUFFER_TOO_SMALL; KF_ERR_INVALID_INPUT: row missing or not
 * wanted; KF_ERR_POLICY_REFUSED: the policy does not accept the suite, or the context lacks a required key; KF_ERR_MALFORMED,
 * KF_ERR_UNSUPPORTED; KF_ERR_NO_MATCHING_KEY, KF_ERR_WRONG_SCOPE, KF_ERR_KEY_STATE, KF_ERR_RECORD_REJECTED, KF_ERR_KMS_*, KF_ERR_STORE;
 * KF_ERR_DECRYPTION_FAILED; KF_ERR_DEADLINE_EXCEEDED, KF_ERR_CLOSED.
 */
KF_MUST_USE
kf_result kf_decrypt(const kf_field *field,
                     const uint8_t *sealed,
                     size_t sealed_len,
                     const void *row,
                     size_t row_len,
                     void *out,
                     size_t out_cap,
                     kf_opened *opened,
                     kf_error *error);

/**
 * Says whether a sealed value names the key that seals now. If not, encrypt the value again when convenient. Opens nothing: what a
 * sealed value says of itself is not authenticated.
 *
 * Threads: any, with the same field. Blocks as kf_decrypt does.
 *
 * Returns what kf_decrypt returns, but for KF_ERR_DECRYPTION_FAILED.
 */
KF_MUST_USE
kf_result kf_is_current(const kf_field *field,
                        const uint8_t *sealed,
                        size_t sealed_len,
                        bool *is_current,
                        kf_error *error);

/**
 * Says how many keys the values of a deterministic field can be under: the one that seals, and those before it that the configuration
 * has for the partition. As many ciphertexts kf_search writes, of this field always.
 *
 * Threads: any, with the same field. Blocks as kf_encrypt does, for each of the keys.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE; KF_ERR_POLICY_REFUSED: the field is not deterministic, or the context lacks a
 * required key; KF_ERR_NO_MATCHING_KEY, KF_ERR_WRONG_SCOPE, KF_ERR_KEY_STATE, KF_ERR_RECORD_REJECTED, KF_ERR_KMS_*, KF_ERR_STORE;
 * KF_ERR_CLOSED.
 */
KF_MUST_USE
kf_result kf_search_keys(const kf_field *field,
                         size_t *keys,
                         kf_error *error);

/**
 * Writes what a value of a deterministic field looks like when it is sealed, under each key that it can be under, the one that seals
 * first: a row whose column equals one of them has the value. They are of one length, the one that kf_sealed_len says, and follow each
 * other in `out`, whose `out_cap` must be at least kf_search_keys times that. For columns of text, pass each to kf_to_text.
 *
 * On KF_OK `*out_len` has the number of bytes written. On any other result neither `out` nor `*out_len` has been changed.
 *
 * Threads: any, with the same field. Blocks as kf_search_keys does.
 *
 * Returns what kf_search_keys returns; KF_ERR_OVERLAP, KF_ERR_BUFFER_TOO_SMALL; KF_ERR_INVALID_INPUT: not a type, not the bytes of the
 * type, not the type of the field; KF_ERR_LIMIT_EXCEEDED: the value is too long; KF_ERR_DEADLINE_EXCEEDED.
 */
KF_MUST_USE
kf_result kf_search(const kf_field *field,
                    uint8_t type,
                    const void *value,
                    size_t value_len,
                    uint8_t *out,
                    size_t out_cap,
                    size_t *out_len,
                    kf_error *error);

/**
 * Takes the blind index of a field that has this name in the policy. Release it with kf_index_free. It has the context of the field; scope
 * and row play no part. Make it once, not per value: it holds the keys that it has used.
 *
 * Threads: any. Never blocks, and asks for no key yet.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE; KF_ERR_INVALID_INPUT: not UTF-8; KF_ERR_POLICY_REFUSED: the field has no such index.
 */
KF_MUST_USE
kf_result kf_index_new(const kf_field *field,
                       const char *name,
                       size_t name_len,
                       kf_index **index,
                       kf_error *error);

/**
 * Releases an index. NULL does nothing.
 *
 * Threads: any. Never blocks.
 *
 * Returns KF_ERR_INVALID_HANDLE.
 */
kf_result kf_index_free(kf_index *index);

/**
 * Says under how many keys a value is looked for: the one that writers use, and the others that the configuration has for the partition.
 * As many tokens kf_index_search writes, of this index always.
 *
 * Threads: any, with the same index. Blocks as kf_encrypt does, for each of the keys.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE; KF_ERR_POLICY_REFUSED: the context lacks a required key; KF_ERR_NO_MATCHING_KEY,
 * KF_ERR_WRONG_SCOPE, KF_ERR_KEY_STATE, KF_ERR_RECORD_REJECTED, KF_ERR_KMS_*, KF_ERR_STORE, KF_ERR_CLOSED.
 */
KF_MUST_USE
kf_result kf_index_keys(const kf_index *index,
                        size_t *keys,
                        kf_error *error);

/**
 * Writes what to store of a value: one token; of prefixes one per length, in ascending order; none of a null and of what has nothing to
 * find, an empty text say. `tokens_cap` is at least KF_MAX_TOKENS.
 *
 * On KF_OK `*tokens_len` has the number of tokens written. On any other result neither `tokens` nor `*tokens_len` has been changed.
 *
 * Threads: any, with the same index. Blocks as kf_index_keys does.
 *
 * Returns what kf_index_keys returns; KF_ERR_OVERLAP, KF_ERR_BUFFER_TOO_SMALL; KF_ERR_INVALID_INPUT: not a type, not the bytes of the
 * type, not the type of the field, or the index has no normal form of the value (no telephone number, no date); KF_ERR_LIMIT_EXCEEDED: the
 * value is too long; KF_ERR_DEADLINE_EXCEEDED.
 */
KF_MUST_USE
kf_result kf_index_tokens(const kf_index *index,
                          uint8_t type,
                          const void *value,
                          size_t value_len,
                          kf_token *tokens,
                          size_t tokens_cap,
                          size_t *tokens_len,
                          kf_error *error);

/**
 * Writes what to look for to find a value: a token under each key, the one that writers use first. A row that has any of them may have the
 * value, or start with it; open it and compare. `tokens_cap` is at least what kf_index_keys says.
 *
 * On KF_OK `*tokens_len` has the number of tokens written. On any other result neither `tokens` nor `*tokens_len` has been changed.
 *
 * Threads: any, with the same index. Blocks as kf_index_keys does.
 *
 * Returns what kf_index_tokens returns; KF_ERR_INVALID_INPUT also where there is nothing to find, or the prefix is shorter than the shortest
 * of the index.
 */
KF_MUST_USE
kf_result kf_index_search(const kf_index *index,
                          uint8_t type,
                          const void *value,
                          size_t value_len,
                          kf_token *tokens,
                          size_t tokens_cap,
                          size_t *tokens_len,
                          kf_error *error);

/**
 * Writes the text that stands in the place of a text, of a field whose mode is "format-preserving": as long, with the same separators.
 * `out_cap` is at least `text_len`.
 *
 * NOT AUTHENTICATED: every text of the format opens to some value, so what was changed, moved to another row or sealed under another key is
 * not noticed. Equal texts are replaced by equal ones. Bound to the field, its context, the partition and the format, to no row and no scope.
 *
 * On KF_OK `*out_len` has the number of bytes written. On any other result neither `out` nor `*out_len` has been changed.
 *
 * Threads: any, with the same field. Blocks as kf_encrypt does.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_OVERLAP, KF_ERR_BUFFER_TOO_SMALL; KF_ERR_INVALID_INPUT: not UTF-8, not of the
 * format, or fewer than 1,000,000 texts are; KF_ERR_LIMIT_EXCEEDED: more than 256 characters would vary; KF_ERR_POLICY_REFUSED: the field
 * has another mode, or the context lacks a required key; KF_ERR_CONFIGURATION: the partition has more than one key; KF_ERR_NO_MATCHING_KEY,
 * KF_ERR_WRONG_SCOPE, KF_ERR_KEY_STATE, KF_ERR_RECORD_REJECTED, KF_ERR_KMS_*, KF_ERR_STORE, KF_ERR_DEADLINE_EXCEEDED, KF_ERR_CLOSED.
 */
KF_MUST_USE
kf_result kf_format_encrypt(const kf_field *field,
                            const char *text,
                            size_t text_len,
                            char *out,
                            size_t out_cap,
                            size_t *out_len,
                            kf_error *error);

/**
 * Writes the text that kf_format_encrypt was given. Nothing shows whether it has made this one. `out_cap` is at least `text_len`.
 *
 * On KF_OK `*out_len` has the number of bytes written. On any other result neither `out` nor `*out_len` has been changed.
 *
 * Threads: any, with the same field. Blocks as kf_decrypt does.
 *
 * Returns what kf_format_encrypt returns.
 */
KF_MUST_USE
kf_result kf_format_decrypt(const kf_field *field,
                            const char *text,
                            size_t text_len,
                            char *out,
                            size_t out_cap,
                            size_t *out_len,
                            kf_error *error);

/**
 * Makes what protects and reveals JSON documents by the paths of the policy, under a scope (NULL: none) and a context (NULL: the empty one).
 * `flags` is 0, or KF_PASS_UNMATCHED, KF_SEAL_SEALED or both. Release it with kf_documents_free. Make it once, not per document: it holds
 * the keys that it has used.
 *
 * Fields may be of any mode but "token". Those of mode "document" are sealed together, under one header and, as the section [documents] of
 * the policy says, a manifest that shows which protected values there are. What the command protects is revealed here, and the other way
 * round.
 *
 * Threads: any. Never blocks, and asks for no key yet.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE; KF_ERR_INVALID_INPUT: not UTF-8, or not a flag.
 */
KF_MUST_USE
kf_result kf_documents_new(const kf_keyring *keyring,
                           const char *scope,
                           size_t scope_len,
                           const kf_context *context,
                           uint32_t flags,
                           kf_documents **documents,
                           kf_error *error);

/**
 * Releases what kf_documents_new has made. NULL does nothing.
 *
 * Threads: any. Never blocks.
 *
 * Returns KF_ERR_INVALID_HANDLE.
 */
kf_result kf_documents_free(kf_documents *documents);

/**
 * Has `write` get a JSON document with the values protected that the policy's paths select; every other byte is as it was. `write` runs once,
 * in this call, and is given `user`: how long the text becomes depends on what is in it, so there is no size to be asked for. It may use
 * keyfold.
 *
 * Threads: any, with the same documents. Blocks as kf_encrypt does, for each key, and for `write`.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE; KF_ERR_INVALID_INPUT: not one JSON document, two members of one name, a value of
 * another type than the policy says, a row binding that is not there once; KF_ERR_LIMIT_EXCEEDED: more than 16 MiB, or a value is too long;
 * KF_ERR_POLICY_REFUSED: no field applies, a value looks sealed already, the policy does not say where a field is in JSON, a field has
 * random tokens, the context lacks a required key; KF_ERR_CONFIGURATION: a path is not one of RFC 9535; KF_ERR_KEY_STATE,
 * KF_ERR_RECORD_REJECTED, KF_ERR_KMS_*, KF_ERR_STORE, KF_ERR_RANDOMNESS_UNAVAILABLE, KF_ERR_DEADLINE_EXCEEDED, KF_ERR_CLOSED; KF_ERR_IO: `write`
 * did not return KF_OK. Only then has `write` run.
 */
KF_MUST_USE
kf_result kf_document_protect(const kf_documents *documents,
                              const char *text,
                              size_t text_len,
                              kf_document_fn write,
                              void *user,
                              kf_error *error);

/**
 * Has `write` get a protected JSON document as it was, byte for byte, as kf_document_protect says.
 *
 * Threads: any, with the same documents. Blocks as kf_decrypt does, for each key, and for `write`.
 *
 * Returns what kf_document_protect returns; KF_ERR_MALFORMED: a value is not sealed, or a header is damaged; KF_ERR_POLICY_REFUSED also
 * where a manifest is missing that is required; KF_ERR_NO_MATCHING_KEY, KF_ERR_WRONG_SCOPE; KF_ERR_DECRYPTION_FAILED: values were moved,
 * copied, dropped or changed, or scope, context or row is not the right one.
 */
KF_MUST_USE
kf_result kf_document_reveal(const kf_documents *documents,
                             const char *text,
                             size_t text_len,
                             kf_document_fn write,
                             void *user,
                             kf_error *error);

/**
 * Refuses fields that applied to documents and selected nothing in all that were protected so far: a path with a typo leaves values in clear.
 * Call it after the last document, as the command does at the end of a file.
 *
 * Threads: any, with the same documents. Never blocks.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE; KF_ERR_POLICY_REFUSED: a field selected nothing, and is not `optional` in the policy.
 */
KF_MUST_USE
kf_result kf_documents_refuse_unused(const kf_documents *documents,
                                     kf_error *error);

/**
 * Bytes that `out` of kf_stream_update must have for `input_len` bytes of input, and of kf_stream_finish for 0, although fewer may be written. A pure
 * function.
 *
 * Threads: any. Never blocks.
 */
KF_MUST_USE
size_t kf_stream_out_len_max(size_t input_len);

/**
 * Begins to seal a stream for a field with mode = "stream", bound to `row` where the policy binds it; otherwise `row` is NULL. Writes the header, the first
 * KF_STREAM_HEADER_LEN bytes of the stream, to `header`; what kf_stream_update and kf_stream_finish write follows it, in order. Release the
 * stream with kf_stream_free.
 *
 * Only kf_stream_finish makes the stream complete: one that was released before is refused at its end, whatever is read of it until then.
 * After a fork only the process that has begun a stream goes on with it: KF_ERR_CLOSED in others, since two would seal with the same nonces.
 *
 * Threads: any, with the same field. Blocks as kf_encrypt does.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_OVERLAP; KF_ERR_BUFFER_TOO_SMALL; KF_ERR_INVALID_INPUT: row missing or not wanted;
 * KF_ERR_LIMIT_EXCEEDED: the row is too long; KF_ERR_POLICY_REFUSED: the field is none of streams, or the context lacks a required key; KF_ERR_KEY_STATE,
 * KF_ERR_RECORD_REJECTED, KF_ERR_KMS_*, KF_ERR_STORE; KF_ERR_RANDOMNESS_UNAVAILABLE, KF_ERR_DEADLINE_EXCEEDED, KF_ERR_CLOSED.
 */
KF_MUST_USE
kf_result kf_stream_seal(const kf_field *field,
                         const void *row,
                         size_t row_len,
                         uint8_t *header,
                         size_t header_cap,
                         kf_stream **stream,
                         kf_error *error);

/**
 * Begins to open the stream that starts with `header`, KF_STREAM_HEADER_LEN bytes, for a field with mode = "stream", bound to the row that it was sealed with.
 * What follows the header goes to kf_stream_update, in order, and gives plaintext that was verified. Release the stream with kf_stream_free.
 *
 * **Plaintext is not final until kf_stream_finish has returned KF_OK.** What was given out before stands where it was put, but may not be all: act on nothing that
 * must be whole before that.
 *
 * Threads: any, with the same field. Blocks as kf_decrypt does.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_OVERLAP; KF_ERR_INVALID_INPUT: row missing or not wanted; KF_ERR_POLICY_REFUSED: the
 * field is none of streams, or the context lacks a required key; KF_ERR_MALFORMED, KF_ERR_UNSUPPORTED: not the header of a stream; KF_ERR_NO_MATCHING_KEY,
 * KF_ERR_WRONG_SCOPE, KF_ERR_KEY_STATE, KF_ERR_RECORD_REJECTED, KF_ERR_KMS_*, KF_ERR_STORE; KF_ERR_DECRYPTION_FAILED: another field, context or
 * row; KF_ERR_DEADLINE_EXCEEDED, KF_ERR_CLOSED.
 */
KF_MUST_USE
kf_result kf_stream_open(const kf_field *field,
                         const uint8_t *header,
                         size_t header_len,
                         const void *row,
                         size_t row_len,
                         kf_stream **stream,
                         kf_error *error);

/**
 * Seals or opens the next bytes of a stream, any number of them: writes the chunks that they complete to `out`, whose `out_cap` must be at least what
 * kf_stream_out_len_max says, and holds back the rest. `*out_len` may be 0.
 *
 * On KF_OK `*out_len` has the number of bytes written. On any other result neither `out` nor `*out_len` has been changed, and nothing of `input` was
 * taken. Where the key could not be confirmed, as after KF_ERR_KMS_*, KF_ERR_STORE and KF_ERR_DEADLINE_EXCEEDED, the call can be repeated; after
 * KF_ERR_DECRYPTION_FAILED, KF_ERR_LIMIT_EXCEEDED and KF_ERR_CLOSED every further call fails.
 *
 * Threads: any; calls with one stream wait for each other. Blocks for the store and for one request to the key service where the key of the
 * stream has to be confirmed, which is seldom.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_OVERLAP; KF_ERR_BUFFER_TOO_SMALL; KF_ERR_LIMIT_EXCEEDED: more than 4 PiB; KF_ERR_DECRYPTION_FAILED: a
 * chunk was changed, moved, repeated or left out; KF_ERR_KEY_STATE, KF_ERR_RECORD_REJECTED, KF_ERR_KMS_*, KF_ERR_STORE, KF_ERR_DEADLINE_EXCEEDED;
 * KF_ERR_CLOSED: the keyring is closed, or the stream is finished.
 */
KF_MUST_USE
kf_result kf_stream_update(kf_stream *stream,
                           const void *input,
                           size_t input_len,
                           void *out,
                           size_t out_cap,
                           size_t *out_len,
                           kf_error *error);

/**
 * Seals or opens the last chunk of a stream, from what was held back, and writes it to `out`, whose `out_cap` must be at least kf_stream_out_len_max(0). On
 * KF_OK the stream is complete: of one that was opened it is known now that nothing is missing. The handle is still to be released.
 *
 * On KF_OK `*out_len` has the number of bytes written. On any other result neither `out` nor `*out_len` has been changed, and the call can be
 * repeated where kf_stream_update can.
 *
 * Threads, blocking: as for kf_stream_update.
 *
 * Returns what kf_stream_update does, and KF_ERR_MALFORMED: the stream that was opened was cut, or never finished. KF_ERR_DECRYPTION_FAILED is also one that
 * was cut within a chunk, or lengthened.
 */
KF_MUST_USE
kf_result kf_stream_finish(kf_stream *stream,
                           void *out,
                           size_t out_cap,
                           size_t *out_len,
                           kf_error *error);

/**
 * Says in `*is_compromised` whether the key of a stream that is opened is compromised, as kf_opened does of a value: whoever has the key can have made the
 * stream. Such a stream opens only where the configuration says so. Of one that is sealed it says false.
 *
 * Threads: any; calls with one stream wait for each other. Asks nobody: it says what was so when the key was last confirmed.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE.
 */
KF_MUST_USE
kf_result kf_stream_is_compromised(kf_stream *stream,
                                   bool *is_compromised,
                                   kf_error *error);

/**
 * Releases a stream, finished or not. NULL does nothing.
 *
 * Threads: any. Never blocks.
 *
 * Returns KF_ERR_INVALID_HANDLE.
 */
kf_result kf_stream_free(kf_stream *stream);

/**
 * Makes a reader of any part of a stream of `sealed_len` bytes, header included, which `read_at` reads; it is called in this call and in those that read,
 * one at a time, and given `user`. Release the reader with kf_stream_reader_free, before what `user` stands for.
 *
 * Threads: any, with the same field. Blocks as kf_decrypt does, and for `read_at`.
 *
 * Returns what kf_stream_open does; KF_ERR_IO: `read_at` did not return KF_OK.
 */
KF_MUST_USE
kf_result kf_stream_reader_new(const kf_field *field,
                               uint64_t sealed_len,
                               kf_read_at_fn read_at,
                               void *user,
                               const void *row,
                               size_t row_len,
                               kf_stream_reader **reader,
                               kf_error *error);

/**
 * Reads plaintext from `offset` on into `out`, and says in `*out_len` how much: `out_cap` bytes, or fewer where the stream ends, which was verified then. Asks
 * `read_at` for one chunk where that is enough. What was read proves nothing about what follows it.
 *
 * On any other result than KF_OK `*out_len` has not been changed, and `out` is zero.
 *
 * Threads: any; calls with one reader wait for each other. Blocks for `read_at`, and as kf_stream_update does.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_OVERLAP; KF_ERR_DECRYPTION_FAILED: a chunk was changed, moved, repeated or left
 * out; KF_ERR_MALFORMED: the stream was cut, or never finished, and `offset` is behind that; KF_ERR_IO; and those of keys.
 */
KF_MUST_USE
kf_result kf_stream_read_at(kf_stream_reader *reader,
                            uint64_t offset,
                            void *out,
                            size_t out_cap,
                            size_t *out_len,
                            kf_error *error);

/**
 * Says how many bytes of plaintext the stream has, after it has opened the last chunk: so nobody has cut or lengthened it.
 *
 * Threads, blocking: as for kf_stream_read_at.
 *
 * Returns what kf_stream_read_at does.
 */
KF_MUST_USE
kf_result kf_stream_verified_len(kf_stream_reader *reader,
                                 uint64_t *len,
                                 kf_error *error);

/**
 * As kf_stream_is_compromised, of a reader.
 *
 * Threads, blocking, results: as for kf_stream_is_compromised; it waits for calls with the same reader.
 */
KF_MUST_USE
kf_result kf_stream_reader_is_compromised(kf_stream_reader *reader,
                                          bool *is_compromised,
                                          kf_error *error);

/**
 * Releases a reader. NULL does nothing.
 *
 * Threads: any. Never blocks.
 *
 * Returns KF_ERR_INVALID_HANDLE.
 */
kf_result kf_stream_reader_free(kf_stream_reader *reader);

/**
 * Says how many bytes kf_encrypt_column is going to write for `values`: no more and no fewer. Looks at offsets only.
 *
 * Threads: any. Never blocks.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_OVERLAP; KF_ERR_INVALID_INPUT: the offsets do not ascend within the data;
 * KF_ERR_LIMIT_EXCEEDED: a value is too long, or all are.
 */
KF_MUST_USE
kf_result kf_sealed_column_len(const kf_field *field,
                               const kf_column *values,
                               size_t *sealed_len,
                               kf_error *error);

/**
 * Encrypts a column. `types` has the type of each row (KF_TYPE_*), `values` their bytes; `rows` what each is bound to, where the policy binds
 * rows, and is NULL otherwise. Rows that are absent are left out by the caller, or are of KF_TYPE_NULL where absence itself is protected.
 * `out` needs what kf_sealed_column_len says.
 *
 * Where the column has more rows than the rotation policy lets a key seal, the next key seals the rest.
 *
 * On KF_OK all rows are written. On any other result nothing has been changed, and kf_error::row says which row it is about, or is KF_NO_ROW;
 * after KF_ERR_RANDOMNESS_UNAVAILABLE and KF_ERR_INTERNAL, and where another key than the first could not be had, data and offsets may have
 * been erased.
 *
 * Threads: any, with the same field. Blocks as kf_encrypt does.
 *
 * Returns what kf_encrypt returns; KF_ERR_INVALID_INPUT also where `rows` has another number of rows.
 */
KF_MUST_USE
kf_result kf_encrypt_column(const kf_field *field,
                            const uint8_t *types,
                            const kf_column *values,
                            const kf_column *rows,
                            const kf_column_out *out,
                            kf_error *error);

/**
 * Bytes of data that `out` must have for opening a column of `sealed_len` bytes in `rows` rows, whatever is in it. A pure function.
 *
 * Threads: any. Never blocks.
 */
KF_MUST_USE
size_t kf_opened_column_len_max(size_t sealed_len,
                                size_t rows);

/**
 * Decrypts a column, each row bound to what it was encrypted with, and writes types, values and offsets. `types` has room for a type per
 * row, `out` for kf_opened_column_len_max(sealed->data_len, sealed->rows) bytes and `rows + 1` offsets. `opened` may be NULL.
 *
 * On KF_OK all rows are written. On any other result `types`, the offsets and `*opened` have not been changed, kf_error::row says which
 * row it is about, and the room for data is zero or unchanged as kf_decrypt says of `out`.
 *
 * Threads: any, with the same field. Blocks as kf_decrypt does, for each key that is in the column.
 *
 * Returns what kf_decrypt returns; KF_ERR_INVALID_INPUT also where `rows` has another number of rows.
 */
KF_MUST_USE
kf_result kf_decrypt_column(const kf_field *field,
                            const kf_column *sealed,
                            const kf_column *rows,
                            uint8_t *types,
                            size_t types_cap,
                            const kf_column_out *out,
                            kf_opened_column *opened,
                            kf_error *error);

/**
 * Decrypts a column as kf_decrypt_column does, where a row that does not open leaves the others alone: `results` has room for a
 * kf_result per row, which is KF_OK or says why there is none, and then its type is 0 and it has no bytes. `out` needs room for
 * sealed->data_len bytes, since a row that is no sealed value can be of any length.
 *
 * On KF_OK all rows are written, be it that none of them opened: look at `opened->failed`. On any other result nothing can be opened
 * at present, or at all; then `results` has not been changed either, and all else is as kf_decrypt_column says.
 *
 * Threads: any, with the same field. Blocks as kf_decrypt_column does.
 *
 * Returns what kf_decrypt_column returns. Only in `results` are, with a row: KF_ERR_MALFORMED, KF_ERR_UNSUPPORTED,
 * KF_ERR_NO_MATCHING_KEY, KF_ERR_WRONG_SCOPE, KF_ERR_KEY_STATE, KF_ERR_RECORD_REJECTED, KF_ERR_DECRYPTION_FAILED; KF_ERR_POLICY_REFUSED: the
 * suite; KF_ERR_INVALID_INPUT, KF_ERR_LIMIT_EXCEEDED: what the row is bound to is empty or too long.
 */
KF_MUST_USE
kf_result kf_decrypt_column_each(const kf_field *field,
                                 const kf_column *sealed,
                                 const kf_column *rows,
                                 uint8_t *types,
                                 size_t types_cap,
                                 const kf_column_out *out,
                                 int32_t *results,
                                 size_t results_cap,
                                 kf_opened_column *opened,
                                 kf_error *error);

/**
 * Says what a sealed value says of itself.
 *
 * Threads: any. Never blocks.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_OVERLAP; KF_ERR_MALFORMED, KF_ERR_UNSUPPORTED: not a value that this build opens.
 */
KF_MUST_USE
kf_result kf_inspect(const uint8_t *sealed,
                     size_t sealed_len,
                     kf_inspection *inspection,
                     kf_error *error);

/**
 * Characters of the text form of a sealed value of `sealed_len` bytes, without a NUL behind it; SIZE_MAX if there is no such number.
 * A pure function.
 *
 * Threads: any. Never blocks.
 */
KF_MUST_USE
size_t kf_text_len(size_t sealed_len);

/**
 * Bytes that a buffer must have for the sealed value whose text form has `text_len` characters. A pure function.
 *
 * Threads: any. Never blocks.
 */
KF_MUST_USE
size_t kf_text_sealed_len_max(size_t text_len);

/**
 * Writes the text form of a sealed value, for columns and documents of text: ASCII that URLs, JSON and CSV leave alone. `text_cap` must be
 * at least kf_text_len(sealed_len). No NUL is added. On any result but KF_OK nothing has been changed.
 *
 * Threads: any. Never blocks.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_BUFFER_TOO_SMALL, KF_ERR_OVERLAP; KF_ERR_MALFORMED, KF_ERR_UNSUPPORTED: not a value that this build
 * opens, or a frame, which has no text form.
 */
KF_MUST_USE
kf_result kf_to_text(const uint8_t *sealed,
                     size_t sealed_len,
                     char *text,
                     size_t text_cap,
                     size_t *text_len,
                     kf_error *error);

/**
 * Writes the sealed value whose text form is `text`. `sealed_cap` must be at least kf_text_sealed_len_max(text_len). On any result but KF_OK nothing
 * has been changed.
 *
 * Threads: any. Never blocks.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_BUFFER_TOO_SMALL, KF_ERR_OVERLAP; KF_ERR_MALFORMED, KF_ERR_UNSUPPORTED: not the text form of a value.
 */
KF_MUST_USE
kf_result kf_from_text(const char *text,
                       size_t text_len,
                       uint8_t *sealed,
                       size_t sealed_cap,
                       size_t *sealed_len,
                       kf_error *error);

/**
 * The version of the library as a number: major * 1,000,000 + minor * 1,000 + patch. KF_VERSION is that of the header.
 *
 * Threads: any. Never blocks.
 */
KF_MUST_USE
uint32_t kf_version(void);

/**
 * Says which FIPS 140 module this library has, whether it is in FIPS mode, and what runs in it. Keyfold itself is not validated.
 *
 * Threads: any. Never blocks.
 *
 * Returns KF_ERR_NULL_POINTER.
 */
KF_MUST_USE
kf_result kf_fips_status(kf_fips *status,
                         kf_error *error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* KEYFOLD_H */
