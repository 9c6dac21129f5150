/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Made by cbindgen; changes belong into bindings-c/device. One file, however long: it is all that is needed offline. */
/*
 * NAME
 *     keyfold_device - encryption of fields on devices, under a key that a backend provisions
 *
 * SYNOPSIS
 *     #include <keyfold_device.h>
 *     cc program.c libkeyfold_device.a
 *
 * OVERVIEW
 *     A backend with a keyring makes a key bundle for one scope, such as one device: `keyfold device provision`.
 *     kfd_key_open opens it; kfd_seal seals values that the backend opens like any other of the scope, and
 *     kfd_open opens what the backend has sealed for it. There is no network, no file and no clock in this.
 *
 *     A value has a type (KFD_TYPE_*) and bytes. Text, JSON, decimals and bytes are what they are;
 *     kfd_number_encode and kfd_number_decode have the bytes of numbers, dates and times.
 *
 *     What makes a nonce is chosen by the function: kfd_seal asks a random generator of the program's,
 *     kfd_seal_counted counts, for devices without one. No function takes a nonce: one that came twice
 *     would give away what was sealed.
 *
 * RESULTS
 *     Functions return a kf_result (keyfold_result.h): KF_OK, which is 0, or what went wrong, by who has to
 *     act. The numbers are those of all of keyfold. Outputs are written on KF_OK, all of them, and on no other
 *     result, with two exceptions: a kfd_open that fails erases the buffer that it was given, and opening a
 *     key or starting a counter that fails leaves none, unless it overlaps something. Results must be looked at;
 *     compilers that can warn do.
 *
 *     Each function says what it returns. KF_ERR_INTERNAL would be a bug in keyfold.
 *
 * ARGUMENTS
 *     Lengths are explicit, in bytes, and no text needs a NUL behind it. Text is UTF-8.
 *
 *     Pointers are checked. Where a length is 0 the pointer may be NULL; where it is not, NULL is
 *     KF_ERR_NULL_POINTER. Lengths beyond PTRDIFF_MAX and pointers that are not aligned are
 *     KF_ERR_INVALID_INPUT. That a pointer is valid for the length that comes with it cannot be checked: it
 *     must be, until the call returns, and nobody may write there meanwhile.
 *
 *     Buffers are the caller's; kfd_sealed_len and kfd_open_len say how large they have to be. What is in
 *     one before does not matter. An output may not overlap an input or another output: KF_ERR_OVERLAP.
 *
 * MEMORY
 *     Nothing is allocated. kfd_key and kfd_counter are memory of the caller's, of a size that is part of
 *     the ABI. They need no initialisation; what was not opened, was wiped, or was copied elsewhere is no key:
 *     KF_ERR_INVALID_HANDLE. docs/firmware.md states flash and stack.
 *
 * THREADS, INTERRUPTS
 *     There is no global state and no lock. Functions may be called from any thread and interrupt, at the
 *     same time too, with the same key, while nobody opens or wipes that key. A counter is used by one at a
 *     time; another one that meets it in use gets KF_ERR_INVALID_HANDLE, as far as that can be seen without
 *     a lock, so have one.
 *     A process that forks goes on with a counter in one of the two only: both would make the same nonces.
 *
 *     The only thing that is waited for is what the program's own functions do. They do not call this library with
 *     the key, the counter or the buffers of the call that they are called from, and do not longjmp.
 *
 * SECRETS
 *     A kfd_key is a secret. kfd_key_wipe erases it; do that before its memory is used for anything else. What
 *     the library derives from it is erased before a call returns, as are values in buffers of its own, and the stack
 *     that a call which has a key in its hands has used. Registers are not, nor what an interrupt has saved of them.
 *
 *     Comparisons of tags take constant time, and AES is bit-sliced where the processor has no instructions
 *     for it. Power analysis and faults are not defended.
 *
 * PANICS
 *     There is nothing in this library that could panic. In the libraries below it four checks of lengths are left
 *     in which no length that they are given comes to it. Should there be a bug nevertheless, a process on Linux ends, and
 *     a microcontroller calls a function of the firmware's, which does not return: a reset is a good idea.
 *
 *         _Noreturn void kfd_panicked(const char *file, size_t file_len, uint32_t line);
 *
 * VERSIONS
 *     Until 1.0 each minor version has an ABI of its own. Within one, functions, constants and results are
 *     only added: structs do not change, and numbers keep their meaning.
 */


#ifndef KEYFOLD_DEVICE_H
#define KEYFOLD_DEVICE_H

#include <stddef.h>
#include <stdint.h>
#include "keyfold_result.h"

/** Marks functions whose result must be looked at. */
#if defined(KFD_MUST_USE)
#elif defined(__cplusplus) && __cplusplus >= 201703L
#define KFD_MUST_USE [[nodiscard]]
#elif defined(__GNUC__) || defined(__clang__)
#define KFD_MUST_USE __attribute__((warn_unused_result))
#else
#define KFD_MUST_USE
#endif

#if UINTPTR_MAX > 0xFFFFFFFF
#define KFD_64_BIT
#else
#define KFD_32_BIT
#endif


/**
 * Bytes that sealing adds to a value.
 */
#define KFD_SEALED_OVERHEAD 67

/**
 * Bytes that kfd_open needs beyond those of the value.
 */
#define KFD_OPEN_EXTRA 17

/**
 * Most bytes of a value.
 */
#define KFD_MAX_VALUE_LEN 1048576

/**
 * Most bytes of a number, date or time.
 */
#define KFD_MAX_NUMBER_LEN 16

/**
 * Bytes of a key bundle.
 */
#define KFD_BUNDLE_LEN 178

/**
 * Bytes of a transport key.
 */
#define KFD_TRANSPORT_KEY_LEN 32

#if defined(KFD_64_BIT)
/**
 * Bytes of a kfd_key, by 8.
 */
#define KFD_KEY_WORDS 144
#endif

#if defined(KFD_32_BIT)
/**
 * Bytes of a kfd_key, by 8.
 */
#define KFD_KEY_WORDS 80
#endif

/**
 * Bytes of a key ID. The first four are the key's generation, in big-endian order.
 */
#define KFD_KEY_ID_LEN 24

/**
 * Bytes of a device ID.
 */
#define KFD_DEVICE_ID_LEN 8

/**
 * Most bytes of a passphrase.
 */
#define KFD_MAX_PASSPHRASE_LEN 1024

/**
 * Most pairs of a kfd_binding.
 */
#define KFD_MAX_PAIRS 8

/**
 * Most bytes of context and row: of keys and values together, four bytes for each pair, one more, and ten for the row.
 */
#define KFD_MAX_CONTEXT_LEN 512

/**
 * Bytes of a slot.
 */
#define KFD_SLOT_LEN 32

/**
 * Bytes of a kfd_counter, by 8.
 */
#define KFD_COUNTER_WORDS 12

/**
 * What a value is, and what its bytes mean. Types are sealed with the value and come back with it. The numbers are those of KF_TYPE_*.
 */
enum kfd_type
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint8_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Any bytes.
     */
    KFD_TYPE_BYTES = 1,
    /**
     * Text: UTF-8, never normalised.
     */
    KFD_TYPE_TEXT = 2,
    /**
     * A whole number: 1 to 16 bytes, the shortest two's complement form in big-endian order. See kfd_number_encode.
     */
    KFD_TYPE_INTEGER = 3,
    /**
     * A decimal number as it is written, in the grammar of JSON numbers: "1.50" stays "1.50".
     */
    KFD_TYPE_DECIMAL = 4,
    /**
     * An IEEE 754 double: 8 bytes in big-endian order; NaN has one form. See kfd_number_encode.
     */
    KFD_TYPE_FLOAT = 5,
    /**
     * True or false: one byte, 1 or 0.
     */
    KFD_TYPE_BOOLEAN = 6,
    /**
     * Days since 1970-01-01 in the proleptic Gregorian calendar: 4 bytes. See kfd_number_encode.
     */
    KFD_TYPE_DATE = 7,
    /**
     * A point in time: seconds since 1970-01-01T00:00:00Z and nanoseconds, 8 and 4 bytes. See kfd_number_encode.
     */
    KFD_TYPE_TIMESTAMP = 8,
    /**
     * One JSON value as it is written, in UTF-8. Not checked.
     */
    KFD_TYPE_JSON = 9,
    /**
     * Absent, where absence itself is protected: no bytes.
     */
    KFD_TYPE_NULL = 10,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum kfd_type kfd_type;
#else
typedef uint8_t kfd_type;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A value that is not bytes, as C has it.
 */
typedef struct {
    /**
     * KFD_TYPE_INTEGER: the number. KFD_TYPE_BOOLEAN: 0 or 1. KFD_TYPE_DATE: the days. KFD_TYPE_TIMESTAMP: the seconds, rounded down.
     */
    int64_t integer;
    /**
     * KFD_TYPE_FLOAT: the number.
     */
    double real;
    /**
     * KFD_TYPE_TIMESTAMP: nanoseconds within the second, below 1,000,000,000.
     */
    uint32_t nanoseconds;
    /**
     * 0.
     */
    uint32_t reserved;
} kfd_number;

/**
 * A key, in memory of yours: static, on the stack or wherever there is room. Its members are nobody's business. It stays where it
 * was opened: a copy is no key.
 */
typedef struct {
    uint64_t words[KFD_KEY_WORDS];
} kfd_key;

/**
 * What a bundle says of its key. All of it is public.
 */
typedef struct {
    /**
     * Which key it is: what sealed values begin with, after two bytes.
     */
    uint8_t key_id[KFD_KEY_ID_LEN];
    /**
     * The keyring's lineage.
     */
    uint8_t lineage[16];
    /**
     * The scope that it seals for.
     */
    uint8_t scope[16];
    /**
     * The ID of the device: random, another one in each bundle.
     */
    uint8_t device_id[KFD_DEVICE_ID_LEN];
    /**
     * When the bundle was made, in microseconds since 1970-01-01T00:00:00Z.
     */
    uint64_t issued;
    /**
     * The key's generation; rotation makes a higher one.
     */
    uint32_t generation;
    /**
     * 0.
     */
    uint32_t reserved;
} kfd_key_info;

/**
 * One pair of the context.
 */
typedef struct {
    /**
     * UTF-8, not empty, and not beginning with "kf:".
     */
    const char *key;
    size_t key_len;
    /**
     * Any bytes.
     */
    const void *value;
    size_t value_len;
} kfd_pair;

/**
 * What a value is bound to: nothing of it is stored, and all of it has to be the same for opening.
 */
typedef struct {
    /**
     * The name of the field, at most 255 bytes.
     */
    const char *field;
    size_t field_len;
    /**
     * Where the policy has the field bound to its row: what identifies the row, not empty. NULL is no row.
     */
    const void *row;
    size_t row_len;
    /**
     * At most KFD_MAX_PAIRS, in any order, no key twice. NULL is none.
     */
    const kfd_pair *pairs;
    size_t pairs_len;
} kfd_binding;

/**
 * Writes `len` bytes from a random generator to `out`, and returns KF_OK; anything else if it cannot. The bytes must be fit for keys.
 */
typedef int32_t (*kfd_random_fn)(void *user, uint8_t *out, size_t len);

/**
 * A counter, in memory of yours. Its members are nobody's business. It stays where it was started: a copy is no counter.
 */
typedef struct {
    uint64_t words[KFD_COUNTER_WORDS];
} kfd_counter;

/**
 * What kfd_open found.
 */
typedef struct {
    /**
     * Bytes of the value.
     */
    size_t len;
    /**
     * Its type: one of KFD_TYPE_*.
     */
    uint8_t value_type;
    /**
     * 0.
     */
    uint8_t reserved[3];
} kfd_opened;

/**
 * Two slots of KFD_SLOT_LEN bytes each in memory that survives a power cut, and of which one can be written without harm to the other: in
 * flash each has a page of its own.
 */
typedef struct {
    /**
     * Reads slot 0 or 1 into `bytes` and returns KF_OK; anything else if it cannot be read now. Bytes that were never written, or not
     * completely, may be anything.
     */
    int32_t (*read)(void *user, uint32_t slot, uint8_t *bytes);
    /**
     * Writes slot 0 or 1. Returns KF_OK once the bytes would survive a power cut; anything else if they perhaps would not.
     */
    int32_t (*write)(void *user, uint32_t slot, const uint8_t *bytes);
    /**
     * The first argument of both.
     */
    void *user;
} kfd_slots;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Writes the bytes of a number, date or time of type `type` to `out`, whose `out_cap` must be at least KFD_MAX_NUMBER_LEN, and how
 * many they are to `*out_len`. Members of `number` that the type does not use are not looked at.
 *
 * Threads: any.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_BUFFER_TOO_SMALL, KF_ERR_OVERLAP; KF_ERR_INVALID_INPUT: not such a type, a date beyond 32 bits,
 * a boolean other than 0 and 1, or too many nanoseconds.
 */
KFD_MUST_USE
kf_result kfd_number_encode(uint8_t type,
                            const kfd_number *number,
                            uint8_t *out,
                            size_t out_cap,
                            size_t *out_len);

/**
 * Reads a number, date or time of type `type` from its bytes. Members of `*number` that the type does not use are 0 then.
 *
 * Threads: any.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_OVERLAP; KF_ERR_INVALID_INPUT: not such a type, or not its bytes; KF_ERR_UNSUPPORTED: a whole
 * number beyond 64 bits, whose bytes are right.
 */
KFD_MUST_USE
kf_result kfd_number_decode(uint8_t type,
                            const uint8_t *value,
                            size_t value_len,
                            kfd_number *number);

/**
 * Opens a key bundle under a transport key of KFD_TRANSPORT_KEY_LEN bytes, into `*key`, which is erased if that fails. A bundle whose
 * key has a generation below `least_generation` is refused, so that nobody puts back an old one: pass that of the key in use, or 0.
 *
 * Threads: any; nobody uses `*key` meanwhile.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_OVERLAP; KF_ERR_INVALID_INPUT: a transport key of another length, a wrong alignment, or the bundle is
 * under a passphrase; KF_ERR_MALFORMED: not a bundle, or not all of one; KF_ERR_UNSUPPORTED: a bundle of a version that this build does not
 * know; KF_ERR_DECRYPTION_FAILED: the transport key is another one, or the bundle was changed; KF_ERR_RECORD_REJECTED: an old bundle.
 */
KFD_MUST_USE
kf_result kfd_key_open(const uint8_t *bundle,
                       size_t bundle_len,
                       const uint8_t *transport_key,
                       size_t transport_key_len,
                       uint32_t least_generation,
                       kfd_key *key);

/**
 * Erases a key, open or not. It is not one any more.
 *
 * Threads: any; nobody uses `*key` meanwhile.
 *
 * Returns KF_ERR_NULL_POINTER; KF_ERR_INVALID_INPUT: not aligned.
 */
kf_result kfd_key_wipe(kfd_key *key);

/**
 * What the bundle of `*key` says.
 *
 * Threads: any.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_OVERLAP.
 */
KFD_MUST_USE kf_result kfd_key_get_info(const kfd_key *key, kfd_key_info *info);

/**
 * Bytes of memory that kfd_key_open_passphrase needs for this bundle: at least 19 MiB, and as many as who made it wanted.
 *
 * Threads: any.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_OVERLAP; KF_ERR_INVALID_INPUT: the bundle is not under a passphrase; KF_ERR_MALFORMED,
 * KF_ERR_UNSUPPORTED: as for kfd_key_open; KF_ERR_LIMIT_EXCEEDED: more than this machine can address.
 */
KFD_MUST_USE
kf_result kfd_passphrase_work_len(const uint8_t *bundle,
                                  size_t bundle_len,
                                  size_t *len);

/**
 * As kfd_key_open, under a passphrase of 1 to KFD_MAX_PASSPHRASE_LEN bytes. `work` is memory of the caller's, of as many bytes as
 * kfd_passphrase_work_len says; it is erased. Takes 0.2 s for 64 MiB on a server's processor, and seconds on a small one: the time is what
 * makes guessing dear.
 *
 * Threads: any; nobody uses `*key` and `work` meanwhile.
 *
 * Returns what kfd_key_open does, and KF_ERR_BUFFER_TOO_SMALL; KF_ERR_INVALID_INPUT: a passphrase of another length, a wrong alignment, or the
 * bundle is not under one;
 * KF_ERR_DECRYPTION_FAILED: another passphrase, or the bundle was changed.
 */
KFD_MUST_USE
kf_result kfd_key_open_passphrase(const uint8_t *bundle,
                                  size_t bundle_len,
                                  const char *passphrase,
                                  size_t passphrase_len,
                                  uint32_t least_generation,
                                  uint8_t *work,
                                  size_t work_cap,
                                  kfd_key *key);

/**
 * Bytes that a value of `value_len` bytes takes when it is sealed; 0 if it is too long.
 *
 * Threads: any.
 */
size_t kfd_sealed_len(size_t value_len);

/**
 * Bytes that kfd_open needs for a sealed value of `sealed_len` bytes: those of the value and KFD_OPEN_EXTRA more.
 *
 * Threads: any.
 */
size_t kfd_open_len(size_t sealed_len);

/**
 * Seals a value with a nonce of random bytes: writes kfd_sealed_len(value_len) bytes to `out`, and how many to `*out_len`. `random` is
 * called once, for 24 bytes; bytes that are all the same are not random and are refused.
 *
 * Threads: any; `random` is called on the caller's.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_BUFFER_TOO_SMALL, KF_ERR_INVALID_HANDLE, KF_ERR_OVERLAP; KF_ERR_INVALID_INPUT: not the bytes of a
 * value of the type, or a binding that no value may have; KF_ERR_LIMIT_EXCEEDED: value, name or context are too long;
 * KF_ERR_RANDOMNESS_UNAVAILABLE: `random` returned something else than KF_OK, or bytes that are all the same.
 */
KFD_MUST_USE
kf_result kfd_seal(const kfd_key *key,
                   const kfd_binding *binding,
                   uint8_t type,
                   const void *value,
                   size_t value_len,
                   kfd_random_fn random,
                   void *user,
                   uint8_t *out,
                   size_t out_cap,
                   size_t *out_len);

/**
 * As kfd_seal, with a nonce that is counted, for devices that have no random generator to be trusted. After 65,536 values, or 64 GiB, a
 * slot is written first.
 *
 * Threads: any; nobody uses `*counter` meanwhile, an interrupt included: KF_ERR_INVALID_HANDLE.
 *
 * Returns what kfd_seal does, without the last one; KF_ERR_WRONG_SCOPE: the counter is not that of this key's bundle; KF_ERR_STORE: a slot
 * cannot be read or written, and nothing was sealed; KF_ERR_LIMIT_EXCEEDED also if the counter has come to its end; KF_ERR_KEY_STATE: another
 * one was started with the same slots since.
 */
KFD_MUST_USE
kf_result kfd_seal_counted(const kfd_key *key,
                           kfd_counter *counter,
                           const kfd_binding *binding,
                           uint8_t type,
                           const void *value,
                           size_t value_len,
                           uint8_t *out,
                           size_t out_cap,
                           size_t *out_len);

/**
 * Opens a sealed value, which is at the front of `out` then; what it is is in `*opened`. `out` needs kfd_open_len(sealed_len) bytes, and is
 * erased behind the value. If opening fails, these bytes are erased, unless it is for an argument (1xx).
 *
 * One key opens what is sealed under that key: after a rotation of the scope the backend seals under the next one, and what it has sealed before
 * takes the one before. Keep the key of the bundle before open in a second kfd_key, and try both.
 *
 * Threads: any.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_BUFFER_TOO_SMALL, KF_ERR_INVALID_HANDLE, KF_ERR_OVERLAP; KF_ERR_INVALID_INPUT: a binding that no
 * value may have; KF_ERR_LIMIT_EXCEEDED: name or context are too long; KF_ERR_MALFORMED: not a sealed value; KF_ERR_UNSUPPORTED: one of
 * another suite than 01; KF_ERR_NO_MATCHING_KEY: sealed under another key; KF_ERR_DECRYPTION_FAILED: anything else.
 */
KFD_MUST_USE
kf_result kfd_open(const kfd_key *key,
                   const kfd_binding *binding,
                   const uint8_t *sealed,
                   size_t sealed_len,
                   void *out,
                   size_t out_cap,
                   kfd_opened *opened);

/**
 * Begins to count for a bundle that this device has never had. Both slots are written; a bundle that was there before cannot be used with a
 * counter any more: until this returns, a power cut may leave either in use, so the device keeps both. `*slots` is copied; what its `user`
 * points to has to stay.
 *
 * Threads: any; nobody uses `*counter` or the slots meanwhile.
 *
 * Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_OVERLAP; KF_ERR_INVALID_INPUT: not aligned; KF_ERR_KEY_STATE: this bundle has
 * counted already: kfd_counter_start goes on; KF_ERR_RECORD_REJECTED: a bundle that was issued later has; KF_ERR_STORE: a slot cannot be
 * read or written, or does not read as it was written.
 */
KFD_MUST_USE
kf_result kfd_counter_create(const kfd_key *key,
                             const kfd_slots *slots,
                             kfd_counter *counter);

/**
 * Goes on counting after a start of the device, once for each start. Writes a slot. A counter that was started with the same slots before
 * ends with its 65,536 values.
 *
 * Threads: any; nobody uses `*counter` or the slots meanwhile.
 *
 * Returns what kfd_counter_create does, but KF_ERR_KEY_STATE: neither slot has a counter of this bundle, so nobody knows which nonces were
 * used, and the device needs a new bundle; KF_ERR_LIMIT_EXCEEDED: the counter has come to its end, likewise.
 */
KFD_MUST_USE
kf_result kfd_counter_start(const kfd_key *key,
                            const kfd_slots *slots,
                            kfd_counter *counter);

/**
 * The name of a result, such as "DecryptionFailed", or NULL where this library returns none of that number: functions of the program that it
 * calls may. Valid for ever. Firmware that does not call it does not have the texts.
 */
const char *kfd_result_name(int32_t result);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* KEYFOLD_DEVICE_H */
