/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What the library does when it is used as it should not be, on Linux: the documented result, and nothing else changes. Buffers end where
 * a page begins that nobody may touch. */
#define _GNU_SOURCE
#include "tables.h"
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int passed, failed;

static void expect(kf_result expected, kf_result result, const char *what, int line)
{
    if (result == expected) {
        passed++;
        return;
    }
    failed++;
    printf("FAILED: line %d: %s: %d instead of %d\n", line, what, (int)result, (int)expected);
}

#define EXPECT(expected, call) expect((expected), (call), #call, __LINE__)
#define CHECK(holds) expect(1, (holds) ? 1 : 0, #holds, __LINE__)

static const size_t HUGE_LENS[] = { SIZE_MAX, SIZE_MAX - 4096, (size_t)PTRDIFF_MAX + 1 };
#define EACH_HUGE(len) for (size_t huge_ = 0, len; huge_ < 3 && (len = HUGE_LENS[huge_], true); huge_++)

static void *guarded(size_t len, int fill)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (len + page) / page * page;
    uint8_t *start = mmap(NULL, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED || mprotect(start + whole, page, PROT_NONE) != 0)
        abort();
    memset(start, fill, whole);
    return start + whole - len;
}

static bool all_are(const void *bytes, size_t len, int fill)
{
    for (size_t at = 0; at < len; at++)
        if (((const uint8_t *)bytes)[at] != (uint8_t)fill)
            return false;
    return true;
}

static const void *guarded_copy(const void *bytes, size_t len)
{
    return memcpy(guarded(len, 0), bytes, len);
}

static kfd_key *key;
static const uint8_t *bundle, *transport;
static const kfd_binding PLAIN = { "f", 1, NULL, 0, NULL, 0 };

static int32_t draw(void *user, uint8_t *out, size_t len)
{
    (void)user;
    CHECK(len == 24);
    for (size_t at = 0; at < len; at++)
        out[at] = (uint8_t)at;
    return KF_OK;
}

static void keys(void)
{
    kfd_key *into = guarded(sizeof *into, 7);
    kfd_key_info info;
    EXPECT(KF_ERR_INVALID_HANDLE, kfd_key_get_info(into, &info));
    EXPECT(KF_ERR_NULL_POINTER, kfd_key_open(NULL, KFD_BUNDLE_LEN, transport, 32, 0, into));
    CHECK(all_are(into, sizeof *into, 0)); /* whatever is wrong: what was in it is no key any more */
    memset(into, 7, sizeof *into);
    EXPECT(KF_ERR_NULL_POINTER, kfd_key_open(bundle, KFD_BUNDLE_LEN, NULL, 32, 0, into));
    CHECK(all_are(into, sizeof *into, 0));
    EXPECT(KF_ERR_NULL_POINTER, kfd_key_open(bundle, KFD_BUNDLE_LEN, transport, 32, 0, NULL));
    EXPECT(KF_ERR_INVALID_INPUT, kfd_key_open(bundle, KFD_BUNDLE_LEN, transport, 32, 0, (kfd_key *)((uintptr_t)into - 4)));
    EACH_HUGE(len) {
        EXPECT(KF_ERR_INVALID_INPUT, kfd_key_open(bundle, len, transport, 32, 0, into));
        EXPECT(KF_ERR_INVALID_INPUT, kfd_key_open(bundle, KFD_BUNDLE_LEN, transport, len, 0, into));
    }
    EXPECT(KF_ERR_INVALID_INPUT, kfd_key_open(bundle, KFD_BUNDLE_LEN, transport, 31, 0, into));
    EXPECT(KF_ERR_INVALID_INPUT, kfd_key_open(bundle, KFD_BUNDLE_LEN, transport, 0, 0, into));
    EXPECT(KF_ERR_MALFORMED, kfd_key_open(bundle, 0, transport, 32, 0, into));
    EXPECT(KF_ERR_MALFORMED, kfd_key_open(NULL, 0, transport, 32, 0, into));
    for (size_t len = 0; len < KFD_BUNDLE_LEN; len++)
        EXPECT(KF_ERR_MALFORMED, kfd_key_open(guarded_copy(bundle, len), len, transport, 32, 0, into));
    EXPECT(KF_ERR_INVALID_INPUT, kfd_key_open(PASSPHRASE_BUNDLE, KFD_BUNDLE_LEN, transport, 32, 0, into));
    EXPECT(KF_ERR_RECORD_REJECTED, kfd_key_open(bundle, KFD_BUNDLE_LEN, transport, 32, UINT32_MAX, into));
    CHECK(all_are(into, sizeof *into, 0));
    union {
        kfd_key key;
        uint8_t bytes[sizeof(kfd_key)];
    } both;
    memcpy(both.bytes + 8, bundle, KFD_BUNDLE_LEN);
    EXPECT(KF_ERR_OVERLAP, kfd_key_open(both.bytes + 8, KFD_BUNDLE_LEN, transport, 32, 0, &both.key));
    CHECK(memcmp(both.bytes + 8, bundle, KFD_BUNDLE_LEN) == 0);
    EXPECT(KF_ERR_OVERLAP, kfd_key_open(bundle, KFD_BUNDLE_LEN, both.bytes + sizeof both - 32, 32, 0, &both.key));
    EXPECT(KF_OK, kfd_key_open(bundle, KFD_BUNDLE_LEN, transport, 32, 0, into));
    EXPECT(KF_OK, kfd_key_get_info(into, &info));
    EXPECT(KF_ERR_NULL_POINTER, kfd_key_get_info(NULL, &info));
    EXPECT(KF_ERR_NULL_POINTER, kfd_key_get_info(into, NULL));
    EXPECT(KF_ERR_OVERLAP, kfd_key_get_info(into, (kfd_key_info *)into));
    EXPECT(KF_ERR_INVALID_INPUT, kfd_key_get_info(into, (kfd_key_info *)((uintptr_t)&both + 1)));
    both.key = *into; /* a copy is no key */
    EXPECT(KF_ERR_INVALID_HANDLE, kfd_key_get_info(&both.key, &info));
    EXPECT(KF_OK, kfd_key_wipe(into));
    CHECK(all_are(into, sizeof *into, 0));
    EXPECT(KF_ERR_INVALID_HANDLE, kfd_key_get_info(into, &info));
    EXPECT(KF_OK, kfd_key_wipe(into));
    EXPECT(KF_ERR_NULL_POINTER, kfd_key_wipe(NULL));
    EXPECT(KF_ERR_INVALID_INPUT, kfd_key_wipe((kfd_key *)((uintptr_t)into - 1)));
    /* Wherever it is aligned as it has to be. */
    uint8_t *room = guarded(sizeof *into + 64, 0);
    for (size_t at = 0; at < 64; at += 8)
        EXPECT(KF_OK, kfd_key_open(bundle, KFD_BUNDLE_LEN, transport, 32, 0, (kfd_key *)(void *)((((uintptr_t)room + 7) & ~(uintptr_t)7) + at)));
}

static void passphrases(void)
{
    kfd_key *into = guarded(sizeof *into, 7);
    size_t need = 0, len = sizeof PASSPHRASE - 1;
    uint8_t lengthy[KFD_MAX_PASSPHRASE_LEN + 1] = { 0 };
    EXPECT(KF_ERR_NULL_POINTER, kfd_passphrase_work_len(NULL, KFD_BUNDLE_LEN, &need));
    EXPECT(KF_ERR_NULL_POINTER, kfd_passphrase_work_len(PASSPHRASE_BUNDLE, KFD_BUNDLE_LEN, NULL));
    EXPECT(KF_ERR_MALFORMED, kfd_passphrase_work_len(PASSPHRASE_BUNDLE, KFD_BUNDLE_LEN - 1, &need));
    EXPECT(KF_ERR_INVALID_INPUT, kfd_passphrase_work_len(bundle, KFD_BUNDLE_LEN, &need));
    EACH_HUGE(huge)
        EXPECT(KF_ERR_INVALID_INPUT, kfd_passphrase_work_len(PASSPHRASE_BUNDLE, huge, &need));
    CHECK(need == 0);
    EXPECT(KF_OK, kfd_passphrase_work_len(PASSPHRASE_BUNDLE, KFD_BUNDLE_LEN, &need));
    CHECK(need >= 19456 * 1024 && need < 19456 * 1024 + 4096);
    uint8_t *work = guarded(need, 7);
#define OPEN(passphrase, len, work, cap) kfd_key_open_passphrase(PASSPHRASE_BUNDLE, KFD_BUNDLE_LEN, passphrase, len, 0, work, cap, into)
/* A key that was open before is none any more. */
#define NONE_LEFT(expected, call) (memset(into, 7, sizeof *into), expect((expected), (call), #call, __LINE__), CHECK(all_are(into, sizeof *into, 0)))
    NONE_LEFT(KF_ERR_NULL_POINTER, OPEN(NULL, len, work, need));
    NONE_LEFT(KF_ERR_INVALID_INPUT, OPEN(NULL, 0, work, need));
    NONE_LEFT(KF_ERR_INVALID_INPUT, OPEN((char *)lengthy, sizeof lengthy, work, need));
    NONE_LEFT(KF_ERR_NULL_POINTER, OPEN(PASSPHRASE, len, NULL, need));
    NONE_LEFT(KF_ERR_BUFFER_TOO_SMALL, OPEN(PASSPHRASE, len, work, need - 1));
    NONE_LEFT(KF_ERR_BUFFER_TOO_SMALL, OPEN(PASSPHRASE, len, work, 0));
    EACH_HUGE(huge) {
        NONE_LEFT(KF_ERR_INVALID_INPUT, OPEN(PASSPHRASE, huge, work, need));
        NONE_LEFT(KF_ERR_INVALID_INPUT, OPEN(PASSPHRASE, len, work, huge));
    }
    EXPECT(KF_ERR_NULL_POINTER, kfd_key_open_passphrase(PASSPHRASE_BUNDLE, KFD_BUNDLE_LEN, PASSPHRASE, len, 0, work, need, NULL));
    NONE_LEFT(KF_ERR_NULL_POINTER, kfd_key_open_passphrase(NULL, KFD_BUNDLE_LEN, PASSPHRASE, len, 0, work, need, into));
    NONE_LEFT(KF_ERR_INVALID_INPUT, kfd_key_open_passphrase(bundle, KFD_BUNDLE_LEN, PASSPHRASE, len, 0, work, need, into));
    NONE_LEFT(KF_ERR_OVERLAP, kfd_key_open_passphrase(PASSPHRASE_BUNDLE, KFD_BUNDLE_LEN, (char *)work, len, 0, work, need, into));
    CHECK(all_are(work, need, 7));
    EXPECT(KF_ERR_DECRYPTION_FAILED, OPEN(PASSPHRASE, len - 1, work, need));
    CHECK(all_are(work, need, 0) && all_are(into, sizeof *into, 0));
    EXPECT(KF_OK, OPEN(PASSPHRASE, len, work, need));
    CHECK(all_are(work, need, 0));
    kfd_key_info info;
    EXPECT(KF_OK, kfd_key_get_info(into, &info));
    CHECK(memcmp(info.key_id, KEY_IDS[DEFAULT_KEY], KFD_KEY_ID_LEN) == 0);
    EXPECT(KF_ERR_RECORD_REJECTED,
           kfd_key_open_passphrase(PASSPHRASE_BUNDLE, KFD_BUNDLE_LEN, PASSPHRASE, len, info.generation + 1, work, need, into));
}

static void seals(void)
{
    enum { LEN = 16, SEALED = LEN + KFD_SEALED_OVERHEAD };
    const uint8_t *value = guarded(LEN, 1);
    uint8_t *out = guarded(SEALED, 7);
    size_t len = 99;
    kfd_key *never = guarded(sizeof *never, 7);
#define SEAL(key, binding, type, value, value_len, out, cap, len) kfd_seal(key, binding, type, value, value_len, draw, NULL, out, cap, len)
    EXPECT(KF_ERR_NULL_POINTER, SEAL(NULL, &PLAIN, 1, value, LEN, out, SEALED, &len));
    EXPECT(KF_ERR_NULL_POINTER, SEAL(key, NULL, 1, value, LEN, out, SEALED, &len));
    EXPECT(KF_ERR_NULL_POINTER, SEAL(key, &PLAIN, 1, NULL, LEN, out, SEALED, &len));
    EXPECT(KF_ERR_NULL_POINTER, SEAL(key, &PLAIN, 1, value, LEN, NULL, SEALED, &len));
    EXPECT(KF_ERR_NULL_POINTER, SEAL(key, &PLAIN, 1, value, LEN, out, SEALED, NULL));
    EXPECT(KF_ERR_NULL_POINTER, kfd_seal(key, &PLAIN, 1, value, LEN, NULL, NULL, out, SEALED, &len));
    EXPECT(KF_ERR_INVALID_HANDLE, SEAL(never, &PLAIN, 1, value, LEN, out, SEALED, &len));
    EXPECT(KF_ERR_INVALID_INPUT, SEAL((kfd_key *)((uintptr_t)key + 1), &PLAIN, 1, value, LEN, out, SEALED, &len));
    EXPECT(KF_ERR_BUFFER_TOO_SMALL, SEAL(key, &PLAIN, 1, value, LEN, out, SEALED - 1, &len));
    EXPECT(KF_ERR_BUFFER_TOO_SMALL, SEAL(key, &PLAIN, 1, value, LEN, out, 0, &len));
    EXPECT(KF_ERR_LIMIT_EXCEEDED, SEAL(key, &PLAIN, 1, value, KFD_MAX_VALUE_LEN + 1, out, SEALED, &len));
    EACH_HUGE(huge) {
        EXPECT(KF_ERR_INVALID_INPUT, SEAL(key, &PLAIN, 1, value, huge, out, SEALED, &len));
        EXPECT(KF_ERR_INVALID_INPUT, SEAL(key, &PLAIN, 1, value, LEN, out, huge, &len));
    }
    EXPECT(KF_ERR_INVALID_INPUT, SEAL(key, &PLAIN, 0, value, LEN, out, SEALED, &len));
    EXPECT(KF_ERR_INVALID_INPUT, SEAL(key, &PLAIN, 11, value, LEN, out, SEALED, &len));
    EXPECT(KF_ERR_INVALID_INPUT, SEAL(key, &PLAIN, 0x81, value, LEN, out, SEALED, &len));
    EXPECT(KF_ERR_INVALID_INPUT, SEAL(key, &PLAIN, KFD_TYPE_TEXT, "\xff", 1, out, SEALED, &len));
    EXPECT(KF_ERR_INVALID_INPUT, SEAL(key, &PLAIN, KFD_TYPE_BOOLEAN, "\2", 1, out, SEALED, &len));
    EXPECT(KF_ERR_INVALID_INPUT, SEAL(key, &PLAIN, KFD_TYPE_NULL, "\2", 1, out, SEALED, &len));
    EXPECT(KF_ERR_INVALID_INPUT, SEAL(key, &PLAIN, KFD_TYPE_DECIMAL, "1.", 2, out, SEALED, &len));
    EXPECT(KF_ERR_INVALID_INPUT, SEAL(key, &PLAIN, KFD_TYPE_INTEGER, "\0\1", 2, out, SEALED, &len));
    EXPECT(KF_ERR_OVERLAP, SEAL(key, &PLAIN, 1, out, LEN, out, SEALED, &len));
    EXPECT(KF_ERR_OVERLAP, SEAL(key, &PLAIN, 1, out + KFD_SEALED_OVERHEAD, 1, out, SEALED, &len));
    EXPECT(KF_ERR_OVERLAP, SEAL(key, &PLAIN, 1, value, LEN, (uint8_t *)key, SEALED, &len));
    EXPECT(KF_ERR_OVERLAP, SEAL(key, &PLAIN, 1, value, LEN, (uint8_t *)&len, SEALED, &len));
    EXPECT(KF_ERR_OVERLAP, SEAL(key, &PLAIN, 1, value, LEN, out, SEALED, (size_t *)(void *)key));
    CHECK(all_are(out, SEALED, 7) && len == 99);

    /* Bindings. */
    kfd_pair pairs[KFD_MAX_PAIRS + 1];
    for (size_t at = 0; at <= KFD_MAX_PAIRS; at++)
        pairs[at] = (kfd_pair){ "abcdefghij" + at, 1, "v", 1 };
    char longest[256] = "";
    memset(longest, 'x', sizeof longest);
    kfd_binding b = PLAIN;
#define BINDING(expected, change)                                          \
    do {                                                                   \
        b = (kfd_binding){ "f", 1, "r", 1, pairs, 2 };                     \
        change;                                                            \
        EXPECT(expected, SEAL(key, &b, 1, value, LEN, out, SEALED, &len)); \
    } while (0)
    BINDING(KF_ERR_NULL_POINTER, b.field = NULL);
    BINDING(KF_ERR_NULL_POINTER, b.row = NULL);
    BINDING(KF_ERR_NULL_POINTER, b.pairs = NULL);
    BINDING(KF_ERR_INVALID_INPUT, b.row_len = 0);
    BINDING(KF_ERR_INVALID_INPUT, b.field = "\xff");
    BINDING(KF_ERR_INVALID_INPUT, b.pairs = (kfd_pair *)((uintptr_t)pairs + 1));
    EACH_HUGE(huge) {
        BINDING(KF_ERR_INVALID_INPUT, b.field_len = huge);
        BINDING(KF_ERR_INVALID_INPUT, b.row_len = huge);
        BINDING(KF_ERR_INVALID_INPUT, b.pairs_len = huge);
    }
    BINDING(KF_ERR_LIMIT_EXCEEDED, b.pairs_len = KFD_MAX_PAIRS + 1);
    BINDING(KF_ERR_LIMIT_EXCEEDED, (b.field = longest, b.field_len = 256));
    pairs[1] = pairs[0];
    BINDING(KF_ERR_INVALID_INPUT, ); /* a key twice */
    pairs[1] = (kfd_pair){ "", 0, "v", 1 };
    BINDING(KF_ERR_INVALID_INPUT, );
    pairs[1] = (kfd_pair){ "kf:x", 4, "v", 1 };
    BINDING(KF_ERR_INVALID_INPUT, );
    pairs[1] = (kfd_pair){ "kf:row", 6, "v", 1 };
    BINDING(KF_ERR_INVALID_INPUT, (b.row = NULL, b.row_len = 0));
    pairs[1] = (kfd_pair){ "\xff", 1, "v", 1 };
    BINDING(KF_ERR_INVALID_INPUT, );
    pairs[1] = (kfd_pair){ NULL, 1, "v", 1 };
    BINDING(KF_ERR_NULL_POINTER, );
    pairs[1] = (kfd_pair){ "k", 1, NULL, 1 };
    BINDING(KF_ERR_NULL_POINTER, );
    EACH_HUGE(huge) {
        pairs[1] = (kfd_pair){ "k", huge, "v", 1 };
        BINDING(KF_ERR_INVALID_INPUT, );
        pairs[1] = (kfd_pair){ "k", 1, "v", huge };
        BINDING(KF_ERR_INVALID_INPUT, );
    }
    /* A pair of four bytes and its parts, one byte more, ten and the row's; a name that is shorter does not make room. */
    enum { REST = KFD_MAX_CONTEXT_LEN - 4 - 1 - 1 - 10 - 1 };
    pairs[1] = (kfd_pair){ "k", 1, guarded(REST + 1, 0), REST + 1 };
    BINDING(KF_ERR_LIMIT_EXCEEDED, (b.pairs++, b.pairs_len = 1));
    uint8_t fits[SEALED];
    pairs[1].value_len = REST;
    EXPECT(KF_OK, SEAL(key, &b, 1, value, LEN, fits, SEALED, &len));
    len = 99;
    pairs[1] = (kfd_pair){ "k", 1, out, 1 };
    BINDING(KF_ERR_OVERLAP, );
    pairs[1] = (kfd_pair){ (const char *)out + SEALED - 1, 1, "v", 1 };
    BINDING(KF_ERR_OVERLAP, );
    pairs[1] = pairs[2];
    BINDING(KF_ERR_OVERLAP, b.row = out);
    BINDING(KF_ERR_OVERLAP, (b.field = (const char *)out, b.field_len = 1));
    BINDING(KF_ERR_OVERLAP, (b.row = &len, b.row_len = 1));
    BINDING(KF_ERR_OVERLAP, (b.field = (const char *)&len, b.field_len = 1));
    CHECK(all_are(out, SEALED, 7) && len == 99);

    /* The order of pairs is not bound. */
    uint8_t other[SEALED];
    BINDING(KF_OK, (b.pairs = pairs + 2, b.pairs_len = KFD_MAX_PAIRS - 1));
    kfd_pair turned[KFD_MAX_PAIRS];
    for (size_t at = 0; at < KFD_MAX_PAIRS - 1; at++)
        turned[at] = pairs[KFD_MAX_PAIRS - at];
    b.pairs = turned;
    EXPECT(KF_OK, SEAL(key, &b, 1, value, LEN, other, SEALED, &len));
    CHECK(memcmp(out, other, SEALED) == 0 && len == SEALED);
    EXPECT(KF_OK, SEAL(key, &PLAIN, KFD_TYPE_NULL, NULL, 0, out, KFD_SEALED_OVERHEAD, &len));
    CHECK(len == KFD_SEALED_OVERHEAD);
}

static void sizes(void)
{
    CHECK(kfd_sealed_len(0) == KFD_SEALED_OVERHEAD && kfd_sealed_len(KFD_MAX_VALUE_LEN) == KFD_MAX_VALUE_LEN + KFD_SEALED_OVERHEAD);
    CHECK(kfd_sealed_len(KFD_MAX_VALUE_LEN + 1) == 0 && kfd_sealed_len(SIZE_MAX) == 0);
    CHECK(kfd_open_len(0) == 0 && kfd_open_len(KFD_SEALED_OVERHEAD) == KFD_OPEN_EXTRA);
    CHECK(kfd_open_len(SIZE_MAX) == SIZE_MAX - KFD_SEALED_OVERHEAD + KFD_OPEN_EXTRA);
}

static void opens(void)
{
    enum { LEN = 16, SEALED = LEN + KFD_SEALED_OVERHEAD, ROOM = LEN + KFD_OPEN_EXTRA };
    uint8_t sealed[SEALED], *room = guarded(ROOM, 7);
    size_t len;
    kfd_opened what = { 99, 9, { 0 } };
    kfd_key *never = guarded(sizeof *never, 7);
    EXPECT(KF_OK, SEAL(key, &PLAIN, 1, "0123456789abcdef", LEN, sealed, SEALED, &len));
    EXPECT(KF_ERR_NULL_POINTER, kfd_open(NULL, &PLAIN, sealed, SEALED, room, ROOM, &what));
    EXPECT(KF_ERR_NULL_POINTER, kfd_open(key, NULL, sealed, SEALED, room, ROOM, &what));
    EXPECT(KF_ERR_NULL_POINTER, kfd_open(key, &PLAIN, NULL, SEALED, room, ROOM, &what));
    EXPECT(KF_ERR_NULL_POINTER, kfd_open(key, &PLAIN, sealed, SEALED, NULL, ROOM, &what));
    EXPECT(KF_ERR_NULL_POINTER, kfd_open(key, &PLAIN, sealed, SEALED, room, ROOM, NULL));
    EXPECT(KF_ERR_INVALID_HANDLE, kfd_open(never, &PLAIN, sealed, SEALED, room, ROOM, &what));
    EXPECT(KF_ERR_BUFFER_TOO_SMALL, kfd_open(key, &PLAIN, sealed, SEALED, room, ROOM - 1, &what));
    EACH_HUGE(huge) {
        EXPECT(KF_ERR_INVALID_INPUT, kfd_open(key, &PLAIN, sealed, huge, room, ROOM, &what));
        EXPECT(KF_ERR_INVALID_INPUT, kfd_open(key, &PLAIN, sealed, SEALED, room, huge, &what));
    }
    EXPECT(KF_ERR_OVERLAP, kfd_open(key, &PLAIN, sealed, SEALED, sealed, ROOM, &what));
    const kfd_binding over = { "f", 1, &what, 1, NULL, 0 };
    EXPECT(KF_ERR_OVERLAP, kfd_open(key, &over, sealed, SEALED, room, ROOM, &what));
    EXPECT(KF_ERR_OVERLAP, kfd_open(key, &PLAIN, sealed, SEALED, key, ROOM, &what));
    EXPECT(KF_ERR_OVERLAP, kfd_open(key, &PLAIN, sealed, SEALED, room, ROOM, (kfd_opened *)(void *)key));
    CHECK(all_are(room, ROOM, 7) && what.len == 99);
    for (size_t cut = 0; cut < SEALED; cut++) {
        const uint8_t *shorter = guarded_copy(sealed, cut);
        kf_result result = kfd_open(key, &PLAIN, shorter, cut, room, ROOM, &what);
        CHECK(result == (cut < KFD_SEALED_OVERHEAD ? KF_ERR_MALFORMED : KF_ERR_DECRYPTION_FAILED) && what.len == 99);
    }
    memset(room, 7, ROOM);
    sealed[SEALED - 1] ^= 1;
    EXPECT(KF_ERR_DECRYPTION_FAILED, kfd_open(key, &PLAIN, sealed, SEALED, room, ROOM, &what));
    CHECK(all_are(room, ROOM, 0) && what.len == 99);
    sealed[SEALED - 1] ^= 1;
    EXPECT(KF_OK, kfd_open(key, &PLAIN, sealed, SEALED, room, ROOM, &what));
    CHECK(what.len == LEN && what.value_type == KFD_TYPE_BYTES && memcmp(room, "0123456789abcdef", LEN) == 0 && all_are(room + LEN, ROOM - LEN, 0));
}

static uint8_t slots[2][KFD_SLOT_LEN];
static kfd_counter *in_use;

static int32_t read_slot(void *user, uint32_t slot, uint8_t *bytes)
{
    CHECK(slot < 2);
    memcpy(bytes, slots[slot], KFD_SLOT_LEN);
    return user != NULL ? KF_ERR_IO : KF_OK;
}

static int32_t write_slot(void *user, uint32_t slot, const uint8_t *bytes)
{
    (void)user;
    CHECK(slot < 2);
    memcpy(slots[slot], bytes, KFD_SLOT_LEN);
    if (in_use != NULL) {
        /* From within: the counter is in use. */
        uint8_t out[1 + KFD_SEALED_OVERHEAD];
        size_t len;
        EXPECT(KF_ERR_INVALID_HANDLE, kfd_seal_counted(key, in_use, &PLAIN, 1, "x", 1, out, sizeof out, &len));
    }
    return KF_OK;
}

static void counters(void)
{
    enum { SEALED = 1 + KFD_SEALED_OVERHEAD };
    kfd_counter *counter = guarded(sizeof *counter, 7);
    kfd_slots good = { read_slot, write_slot, NULL }, no_read = { NULL, write_slot, NULL }, no_write = { read_slot, NULL, NULL };
    kfd_slots unreadable = { read_slot, write_slot, &good };
    kfd_key *never = guarded(sizeof *never, 7);
    uint8_t *out = guarded(SEALED, 7);
    size_t len = 99;
    kf_result (*const begin[])(const kfd_key *, const kfd_slots *, kfd_counter *) = { kfd_counter_create, kfd_counter_start };
    for (size_t at = 0; at < 2; at++) {
        EXPECT(KF_ERR_NULL_POINTER, begin[at](NULL, &good, counter));
        EXPECT(KF_ERR_NULL_POINTER, begin[at](key, NULL, counter));
        EXPECT(KF_ERR_NULL_POINTER, begin[at](key, &good, NULL));
        EXPECT(KF_ERR_NULL_POINTER, begin[at](key, &no_read, counter));
        EXPECT(KF_ERR_NULL_POINTER, begin[at](key, &no_write, counter));
        EXPECT(KF_ERR_INVALID_HANDLE, begin[at](never, &good, counter));
        EXPECT(KF_ERR_INVALID_INPUT, begin[at](key, &good, (kfd_counter *)((uintptr_t)counter - 4)));
        EXPECT(KF_ERR_OVERLAP, begin[at](key, &good, (kfd_counter *)(void *)key));
        EXPECT(KF_ERR_STORE, begin[at](key, &unreadable, counter));
    }
    EXPECT(KF_ERR_INVALID_HANDLE, kfd_seal_counted(key, counter, &PLAIN, 1, "x", 1, out, SEALED, &len));
    EXPECT(KF_OK, kfd_counter_create(key, &good, counter));
#define COUNTED(key, counter, binding, value, value_len, out, cap, len) kfd_seal_counted(key, counter, binding, 1, value, value_len, out, cap, len)
    EXPECT(KF_ERR_NULL_POINTER, COUNTED(NULL, counter, &PLAIN, "x", 1, out, SEALED, &len));
    EXPECT(KF_ERR_NULL_POINTER, COUNTED(key, NULL, &PLAIN, "x", 1, out, SEALED, &len));
    EXPECT(KF_ERR_NULL_POINTER, COUNTED(key, counter, NULL, "x", 1, out, SEALED, &len));
    EXPECT(KF_ERR_NULL_POINTER, COUNTED(key, counter, &PLAIN, NULL, 1, out, SEALED, &len));
    EXPECT(KF_ERR_NULL_POINTER, COUNTED(key, counter, &PLAIN, "x", 1, NULL, SEALED, &len));
    EXPECT(KF_ERR_NULL_POINTER, COUNTED(key, counter, &PLAIN, "x", 1, out, SEALED, NULL));
    EXPECT(KF_ERR_INVALID_HANDLE, COUNTED(never, counter, &PLAIN, "x", 1, out, SEALED, &len));
    EXPECT(KF_ERR_INVALID_INPUT, COUNTED(key, (kfd_counter *)((uintptr_t)counter - 1), &PLAIN, "x", 1, out, SEALED, &len));
    EXPECT(KF_ERR_BUFFER_TOO_SMALL, COUNTED(key, counter, &PLAIN, "x", 1, out, SEALED - 1, &len));
    EXPECT(KF_ERR_OVERLAP, COUNTED(key, counter, &PLAIN, "x", 1, (uint8_t *)counter, SEALED, &len));
    EXPECT(KF_ERR_OVERLAP, COUNTED(key, counter, &PLAIN, "x", 1, out, SEALED, (size_t *)(void *)counter));
    EACH_HUGE(huge)
        EXPECT(KF_ERR_INVALID_INPUT, COUNTED(key, counter, &PLAIN, "x", huge, out, SEALED, &len));
    CHECK(all_are(out, SEALED, 7) && len == 99);
    /* None of these has used a number. */
    EXPECT(KF_OK, COUNTED(key, counter, &PLAIN, "x", 1, out, SEALED, &len));
    CHECK(out[26 + 23] == 0);
    /* A prefix ends after 65,536, within a call, and the slot is written from there. */
    in_use = counter;
    uint8_t last[4];
    for (uint32_t message = 1; message < 65536; message++)
        if (COUNTED(key, counter, &PLAIN, "x", 1, out, SEALED, &len) != KF_OK)
            abort();
    memcpy(last, out + 26 + 8, 4);
    CHECK(out[26 + 21] == 0 && out[26 + 22] == 0xFF && out[26 + 23] == 0xFF);
    EXPECT(KF_OK, COUNTED(key, counter, &PLAIN, "x", 1, out, SEALED, &len));
    CHECK(out[26 + 11] == last[3] + 1 && out[26 + 22] == 0 && out[26 + 23] == 0);
    in_use = NULL;
    /* Starting one that fails leaves none, whatever is wrong. */
    EXPECT(KF_ERR_INVALID_HANDLE, kfd_counter_start(never, &good, counter));
    EXPECT(KF_ERR_INVALID_HANDLE, COUNTED(key, counter, &PLAIN, "x", 1, out, SEALED, &len));
}

static void numbers(void)
{
    kfd_number one = { 1, 0, 0, 0 }, *into = guarded(sizeof *into, 7);
    uint8_t *out = guarded(KFD_MAX_NUMBER_LEN, 7), wide[16] = { 1 };
    size_t len = 99;
    EXPECT(KF_ERR_NULL_POINTER, kfd_number_encode(3, NULL, out, KFD_MAX_NUMBER_LEN, &len));
    EXPECT(KF_ERR_NULL_POINTER, kfd_number_encode(3, &one, NULL, KFD_MAX_NUMBER_LEN, &len));
    EXPECT(KF_ERR_NULL_POINTER, kfd_number_encode(3, &one, out, KFD_MAX_NUMBER_LEN, NULL));
    EXPECT(KF_ERR_BUFFER_TOO_SMALL, kfd_number_encode(3, &one, out, KFD_MAX_NUMBER_LEN - 1, &len));
    EXPECT(KF_ERR_INVALID_INPUT, kfd_number_encode(3, (kfd_number *)((uintptr_t)&one + 1), out, KFD_MAX_NUMBER_LEN, &len));
    EXPECT(KF_ERR_OVERLAP, kfd_number_encode(3, &one, (uint8_t *)&one, KFD_MAX_NUMBER_LEN, &len));
    EACH_HUGE(huge) {
        EXPECT(KF_ERR_INVALID_INPUT, kfd_number_encode(3, &one, out, huge, &len));
        EXPECT(KF_ERR_INVALID_INPUT, kfd_number_decode(3, out, huge, into));
    }
    CHECK(all_are(out, KFD_MAX_NUMBER_LEN, 7) && len == 99);
    EXPECT(KF_ERR_NULL_POINTER, kfd_number_decode(3, NULL, 1, into));
    EXPECT(KF_ERR_NULL_POINTER, kfd_number_decode(3, wide, 1, NULL));
    EXPECT(KF_ERR_INVALID_INPUT, kfd_number_decode(3, wide, 0, into));
    EXPECT(KF_ERR_UNSUPPORTED, kfd_number_decode(3, wide, 16, into));
    EXPECT(KF_ERR_INVALID_INPUT, kfd_number_decode(KFD_TYPE_TEXT, wide, 1, into));
    EXPECT(KF_ERR_INVALID_INPUT, kfd_number_decode(KFD_TYPE_FLOAT, wide, 7, into));
    EXPECT(KF_ERR_OVERLAP, kfd_number_decode(3, (uint8_t *)into, 1, into));
    CHECK(all_are(into, sizeof *into, 7));
}

int main(int argc, char **argv)
{
    (void)argv;
    bundle = guarded_copy(BUNDLES[DEFAULT_KEY], KFD_BUNDLE_LEN);
    transport = guarded_copy(TRANSPORT_KEY, sizeof TRANSPORT_KEY);
    key = guarded(sizeof *key, 7);
    EXPECT(KF_OK, kfd_key_open(bundle, KFD_BUNDLE_LEN, transport, sizeof TRANSPORT_KEY, 0, key));
    if (argc > 1) {
        /* Lies about its buffer: the page behind it is there. */
        size_t len;
        return kfd_seal(key, &PLAIN, 1, "x", 1, draw, NULL, guarded(KFD_SEALED_OVERHEAD, 0), 1 + KFD_SEALED_OVERHEAD, &len);
    }
    keys();
    passphrases();
    sizes();
    seals();
    opens();
    counters();
    numbers();
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
