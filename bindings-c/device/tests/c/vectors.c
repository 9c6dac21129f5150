/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Every test vector that concerns a device, bundles, and the counter, wherever this is compiled for. */
#include "platform.h"
#include "tables.h"
#ifdef __linux__
#include <stdlib.h>
#endif

static uint32_t passed, failed;
static const char *current = "";

static void check(int holds, const char *what)
{
    if (holds) {
        passed++;
        return;
    }
    failed++;
    say("FAILED: ");
    say(current);
    say(": ");
    say(what);
    say("\n");
}

#define CHECK(expression) check((expression), #expression)

static int same(const void *one, const void *other, size_t len)
{
    for (size_t at = 0; at < len; at++)
        if (((const uint8_t *)one)[at] != ((const uint8_t *)other)[at])
            return 0;
    return 1;
}

static int all_are(const void *bytes, size_t len, uint8_t fill)
{
    for (size_t at = 0; at < len; at++)
        if (((const uint8_t *)bytes)[at] != fill)
            return 0;
    return 1;
}

static void fill(void *bytes, size_t len, uint8_t with)
{
    for (size_t at = 0; at < len; at++)
        ((uint8_t *)bytes)[at] = with;
}

static kfd_key key, second;
static uint8_t room[4400], copy[4400];

/* The nonce of a vector, in place of random bytes. */
static int32_t given(void *user, uint8_t *out, size_t len)
{
    for (size_t at = 0; at < len; at++)
        out[at] = ((const uint8_t *)user)[at];
    return KF_OK;
}

static int32_t no_random(void *user, uint8_t *out, size_t len)
{
    (void)user, (void)out, (void)len;
    return KF_ERR_IO;
}

static int32_t not_random(void *user, uint8_t *out, size_t len)
{
    fill(out, len, *(const uint8_t *)user);
    return KF_OK;
}

static kf_result open_key(size_t at, uint32_t least, kfd_key *into)
{
    return kfd_key_open(BUNDLES[at], KFD_BUNDLE_LEN, TRANSPORT_KEY, sizeof TRANSPORT_KEY, least, into);
}

static void vectors(void)
{
    size_t is_open = KEYS_LEN;
    for (size_t at = 0; at < VECTORS_LEN; at++) {
        const vector *v = &VECTORS[at];
        current = v->name;
        if (is_open != v->key)
            CHECK(open_key(v->key, 0, &key) == KF_OK);
        is_open = v->key;
        kfd_opened what;
        fill(room, sizeof room, 0x5A);
        kf_result result = kfd_open(&key, &v->binding, v->sealed, v->sealed_len, room, sizeof room, &what);
        CHECK(result == v->expect);
        if (result == KF_OK) {
            CHECK(what.value_type == v->type && what.len == v->value_len && same(room, v->value, v->value_len));
            CHECK(all_are(room + what.len, kfd_open_len(v->sealed_len) - what.len, 0));
        } else if (result >= 200) {
            CHECK(all_are(room, kfd_open_len(v->sealed_len), 0));
        }
        if (v->nonce == NULL)
            continue;
        size_t len = 0;
        union {
            const void *from;
            void *to;
        } nonce = { v->nonce };
        fill(room, sizeof room, 0x5A);
        result = kfd_seal(&key, &v->binding, v->type, v->value, v->value_len, given, nonce.to, room, sizeof room, &len);
        CHECK(result == v->expect);
        if (result == KF_OK)
            CHECK(len == v->sealed_len && len == kfd_sealed_len(v->value_len) && same(room, v->sealed, len));
        else
            CHECK(len == 0 && all_are(room, sizeof room, 0x5A));
    }
}

static void bundles(void)
{
    current = "bundles";
    for (size_t at = 0; at < KEYS_LEN; at++) {
        kfd_key_info info;
        CHECK(open_key(at, 0, &key) == KF_OK && kfd_key_get_info(&key, &info) == KF_OK);
        CHECK(same(info.key_id, KEY_IDS[at], KFD_KEY_ID_LEN) && info.device_id[7] == at + 1);
        CHECK(open_key(at, info.generation, &key) == KF_OK);
        CHECK(open_key(at, info.generation + 1, &key) == KF_ERR_RECORD_REJECTED && all_are(&key, sizeof key, 0));
        CHECK(kfd_key_get_info(&key, &info) == KF_ERR_INVALID_HANDLE);
    }
    for (size_t at = 0; at < KFD_BUNDLE_LEN; at++) {
        for (size_t to = 0; to < KFD_BUNDLE_LEN; to++)
            copy[to] = BUNDLES[DEFAULT_KEY][to];
        copy[at] ^= (uint8_t)(1U << (at % 8));
        CHECK(kfd_key_open(copy, KFD_BUNDLE_LEN, TRANSPORT_KEY, sizeof TRANSPORT_KEY, 0, &key) != KF_OK);
        CHECK(all_are(&key, sizeof key, 0));
    }
    for (size_t to = 0; to < sizeof TRANSPORT_KEY; to++)
        copy[to] = TRANSPORT_KEY[to];
    copy[31] ^= 1;
    CHECK(kfd_key_open(BUNDLES[0], KFD_BUNDLE_LEN, copy, 32, 0, &key) == KF_ERR_DECRYPTION_FAILED);
    CHECK(open_key(0, 0, &key) == KF_OK && kfd_key_wipe(&key) == KF_OK && all_are(&key, sizeof key, 0));
}

static void opened_bundle(const bundle_vector *v)
{
    kfd_key_info info;
    kfd_opened what;
    size_t len;
    union {
        const void *from;
        void *to;
    } nonce = { v->nonce };
    CHECK(kfd_key_get_info(&key, &info) == KF_OK);
    CHECK(same(info.key_id, v->key_id, KFD_KEY_ID_LEN) && same(info.device_id, v->device_id, KFD_DEVICE_ID_LEN) && info.issued == v->issued);
    CHECK(kfd_open(&key, &v->binding, v->sealed, v->sealed_len, room, sizeof room, &what) == KF_OK);
    CHECK(what.value_type == v->type && what.len == v->value_len && same(room, v->value, v->value_len));
    CHECK(kfd_seal(&key, &v->binding, v->type, v->value, v->value_len, given, nonce.to, room, sizeof room, &len) == KF_OK);
    CHECK(len == v->sealed_len && same(room, v->sealed, len));
}

static void bundle_vectors(void)
{
    for (size_t at = 0; at < BUNDLE_VECTORS_LEN; at++) {
        const bundle_vector *v = &BUNDLE_VECTORS[at];
        current = v->name;
        kf_result result = kfd_key_open(v->bundle, v->bundle_len, v->transport_key, v->transport_key_len, 0, &key);
        CHECK(result == v->expect);
        if (result == KF_OK)
            opened_bundle(v);
        else
            CHECK(all_are(&key, sizeof key, 0));
#ifdef __linux__
        if (v->passphrase != NULL) {
            size_t need;
            CHECK(kfd_passphrase_work_len(v->bundle, v->bundle_len, &need) == KF_OK);
            uint8_t *work = malloc(need);
            result = kfd_key_open_passphrase(v->bundle, v->bundle_len, (const char *)v->passphrase, v->passphrase_len, 0, work, need, &key);
            CHECK(result == v->expect_passphrase);
            if (result == KF_OK)
                opened_bundle(v);
            free(work);
        }
#endif
    }
}

static void numbers(void)
{
    static const kfd_number SOME[] = { { 0, 0, 0, 0 }, { -1, -1.5, 999999999, 0 }, { 112, 1e300, 1, 0 }, { INT32_MAX, 0.1, 0, 0 } };
    current = "numbers";
    for (size_t at = 0; at < sizeof SOME / sizeof *SOME; at++)
        for (unsigned type = 0; type < 256; type++) {
            uint8_t bytes[KFD_MAX_NUMBER_LEN];
            size_t len;
            kfd_number back;
            kf_result result = kfd_number_encode((uint8_t)type, &SOME[at], bytes, sizeof bytes, &len);
            int is_number = type == KFD_TYPE_INTEGER || type == KFD_TYPE_FLOAT || type == KFD_TYPE_DATE || type == KFD_TYPE_TIMESTAMP;
            if (type == KFD_TYPE_BOOLEAN)
                is_number = SOME[at].integer == 0;
            CHECK(result == (is_number ? KF_OK : KF_ERR_INVALID_INPUT));
            if (result != KF_OK)
                continue;
            CHECK(kfd_number_decode((uint8_t)type, bytes, len, &back) == KF_OK);
            CHECK(back.integer == (type == KFD_TYPE_FLOAT ? 0 : SOME[at].integer));
            CHECK(type != KFD_TYPE_FLOAT || same(&back.real, &SOME[at].real, sizeof(double)));
            CHECK(back.nanoseconds == (type == KFD_TYPE_TIMESTAMP ? SOME[at].nanoseconds : 0));
        }
}

/* Memory that keeps two slots. */
static struct {
    uint8_t slots[2][KFD_SLOT_LEN];
    unsigned writes, fails_after;
} memory;

static int32_t read_slot(void *user, uint32_t slot, uint8_t *bytes)
{
    (void)user;
    for (size_t at = 0; at < KFD_SLOT_LEN; at++)
        bytes[at] = memory.slots[slot][at];
    return KF_OK;
}

static int32_t write_slot(void *user, uint32_t slot, const uint8_t *bytes)
{
    (void)user;
    if (memory.writes++ >= memory.fails_after)
        return KF_ERR_IO;
    for (size_t at = 0; at < KFD_SLOT_LEN; at++)
        memory.slots[slot][at] = bytes[at];
    return KF_OK;
}

static const kfd_binding BINDING = { "device.serial", 13, "row-17", 6, NULL, 0 };

static void counted(void)
{
    static const kfd_slots SLOTS = { read_slot, write_slot, NULL };
    kfd_counter counter, other;
    uint8_t sealed[1 + KFD_SEALED_OVERHEAD], opened[1 + KFD_OPEN_EXTRA];
    size_t len;
    kfd_opened what;
    current = "counter";
    memory.fails_after = 1000;
    fill(memory.slots, sizeof memory.slots, 0xFF);
    CHECK(open_key(DEFAULT_KEY, 0, &key) == KF_OK && open_key(OTHER_KEY, 0, &second) == KF_OK);
    CHECK(kfd_counter_start(&key, &SLOTS, &counter) == KF_ERR_KEY_STATE);
    CHECK(kfd_seal_counted(&key, &counter, &BINDING, KFD_TYPE_BYTES, "x", 1, sealed, sizeof sealed, &len) == KF_ERR_INVALID_HANDLE);
    CHECK(kfd_counter_create(&key, &SLOTS, &counter) == KF_OK && memory.writes == 2);
    CHECK(kfd_counter_create(&key, &SLOTS, &other) == KF_ERR_KEY_STATE);
    for (uint32_t boot = 1; boot < 4; boot++) {
        for (uint8_t message = 0; message < 3; message++) {
            CHECK(kfd_seal_counted(&key, &counter, &BINDING, KFD_TYPE_BYTES, "x", 1, sealed, sizeof sealed, &len) == KF_OK);
            const uint8_t nonce[24] = { 0, 0, 0, 0, 0, 0, 0, DEFAULT_KEY + 1, 0, 0, 0, (uint8_t)boot, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, message };
            CHECK(len == sizeof sealed && same(sealed + 26, nonce, sizeof nonce));
            CHECK(kfd_open(&key, &BINDING, sealed, len, opened, sizeof opened, &what) == KF_OK && what.len == 1 && opened[0] == 'x');
        }
        CHECK(kfd_counter_start(&key, &SLOTS, &counter) == KF_OK);
    }
    /* Not this key's, and not where it was started. */
    CHECK(kfd_seal_counted(&second, &counter, &BINDING, KFD_TYPE_BYTES, "x", 1, sealed, sizeof sealed, &len) == KF_ERR_WRONG_SCOPE);
    other = counter;
    CHECK(kfd_seal_counted(&key, &other, &BINDING, KFD_TYPE_BYTES, "x", 1, sealed, sizeof sealed, &len) == KF_ERR_INVALID_HANDLE);
    /* A write that fails is no counter, and neither is one that another bundle has gone over. */
    memory.fails_after = 0;
    CHECK(kfd_counter_start(&key, &SLOTS, &other) == KF_ERR_STORE);
    CHECK(kfd_seal_counted(&key, &other, &BINDING, KFD_TYPE_BYTES, "x", 1, sealed, sizeof sealed, &len) == KF_ERR_INVALID_HANDLE);
    memory.fails_after = 1000;
    CHECK(kfd_counter_create(&second, &SLOTS, &other) == (OTHER_KEY > DEFAULT_KEY ? KF_OK : KF_ERR_RECORD_REJECTED));
    CHECK(kfd_counter_start(&key, &SLOTS, &counter) == (OTHER_KEY > DEFAULT_KEY ? KF_ERR_KEY_STATE : KF_OK));
}

static void randomness(void)
{
    uint8_t sealed[1 + KFD_SEALED_OVERHEAD], zero = 0, ones = 0xFF;
    size_t len = 0;
    current = "randomness";
    CHECK(open_key(DEFAULT_KEY, 0, &key) == KF_OK);
    fill(sealed, sizeof sealed, 7);
    CHECK(kfd_seal(&key, &BINDING, KFD_TYPE_BYTES, "x", 1, no_random, NULL, sealed, sizeof sealed, &len) == KF_ERR_RANDOMNESS_UNAVAILABLE);
    CHECK(kfd_seal(&key, &BINDING, KFD_TYPE_BYTES, "x", 1, not_random, &zero, sealed, sizeof sealed, &len) == KF_ERR_RANDOMNESS_UNAVAILABLE);
    CHECK(kfd_seal(&key, &BINDING, KFD_TYPE_BYTES, "x", 1, not_random, &ones, sealed, sizeof sealed, &len) == KF_ERR_RANDOMNESS_UNAVAILABLE);
    CHECK(len == 0 && all_are(sealed, sizeof sealed, 7));
}

int main(void)
{
    vectors();
    bundles();
    bundle_vectors();
    numbers();
    counted();
    randomness();
    say_number(passed);
    say(" passed, ");
    say_number(failed);
    say(" failed\n");
    return failed != 0;
}
