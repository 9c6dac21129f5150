/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What docs/firmware.md leaves to the firmware, in memory, and whether its program does what the page says. */
#include "document.h"
#include "tables.h"
#include <stdio.h>
#include <string.h>

const uint8_t transport_key[KFD_TRANSPORT_KEY_LEN] = { 0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                                       16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31 };

static uint8_t in_slots[2][KFD_SLOT_LEN], stored[2][KFD_BUNDLE_LEN];
static int is_stored[2], storing_fails, passed, failed;
/* Writes until the power fails, -1 for ever; and how many of 4 parts of that write are there. */
static int power = -1, parts;

static int32_t write_some(void *to, const void *from, size_t len)
{
    if (power == 0)
        return KF_ERR_IO;
    if (power > 0 && --power == 0) {
        memcpy(to, from, len * (size_t)parts / 4);
        return KF_ERR_IO;
    }
    memcpy(to, from, len);
    return KF_OK;
}

int32_t flash_read_slot(void *user, uint32_t slot, uint8_t *bytes)
{
    (void)user;
    memcpy(bytes, in_slots[slot], KFD_SLOT_LEN);
    return power ? KF_OK : KF_ERR_IO;
}

int32_t flash_write_slot(void *user, uint32_t slot, const uint8_t *bytes)
{
    (void)user;
    return write_some(in_slots[slot], bytes, KFD_SLOT_LEN);
}

int32_t flash_store_bundle(uint32_t at, const uint8_t *bundle)
{
    if (storing_fails)
        return KF_ERR_IO;
    is_stored[at] = 1;
    return write_some(stored[at], bundle, KFD_BUNDLE_LEN);
}

int32_t flash_load_bundle(uint32_t at, uint8_t *bundle)
{
    memcpy(bundle, stored[at], KFD_BUNDLE_LEN);
    return is_stored[at] && power ? KF_OK : KF_ERR_IO;
}

static void check(int holds, const char *what)
{
    passed += holds;
    failed += !holds;
    if (!holds)
        printf("FAILED: %s\n", what);
}

#define CHECK(expression) check((expression), #expression)

/* Key ID and nonce of everything that was sealed on one device. */
static uint8_t seen[8][48];
static size_t seen_count;

static int seals_anew(void)
{
    uint8_t sealed[KFD_MAX_NUMBER_LEN + KFD_SEALED_OVERHEAD];
    size_t len;
    int is_new = seal_glucose(112, "r-1", 3, sealed, sizeof sealed, &len) == KF_OK && seen_count < 8;
    for (size_t i = 0; i < seen_count; i++)
        is_new &= memcmp(seen[i], sealed + 2, 48) != 0;
    if (is_new)
        memcpy(seen[seen_count++], sealed + 2, 48);
    return is_new;
}

/* A rotated bundle, and the power fails at each write of installing it: the device seals at its next start, with no bundle sent again. */
static void power_cuts(void)
{
    for (int cut = 1, installed = 0; !installed; cut++)
        for (parts = 0; parts <= 4; parts++) {
            memset(in_slots, 0xFF, sizeof in_slots);
            memset(is_stored, 0, sizeof is_stored);
            seen_count = 0;
            CHECK(start() == KF_ERR_IO && install(BUNDLES[DEFAULT_KEY]) == KF_OK && seals_anew());
            power = cut;
            installed = install(BUNDLES[OTHER_KEY]) == KF_OK;
            CHECK(installed == (power > 0));
            power = -1;
            CHECK(kfd_key_wipe(&key) == KF_OK && start() == KF_OK && seals_anew());
            CHECK(kfd_key_wipe(&key) == KF_OK && start() == KF_OK && seals_anew());
            CHECK(install(BUNDLES[OTHER_KEY]) == KF_OK && seals_anew());
            CHECK(memcmp(newest.key_id, KEY_IDS[OTHER_KEY], KFD_KEY_ID_LEN) == 0);
            CHECK(install(BUNDLES[DEFAULT_KEY]) == KF_ERR_RECORD_REJECTED && seals_anew());
        }
}

int main(void)
{
    uint8_t sealed[2][KFD_MAX_NUMBER_LEN + KFD_SEALED_OVERHEAD];
    size_t len[2];
    int64_t limit = 0;
    CHECK(start() == KF_ERR_IO);
    storing_fails = 1;
    CHECK(install(BUNDLES[DEFAULT_KEY]) == KF_ERR_IO);
    CHECK(seal_glucose(112, "r-1", 3, sealed[0], sizeof *sealed, &len[0]) == KF_ERR_INVALID_HANDLE);
    storing_fails = 0;
    CHECK(install(BUNDLES[DEFAULT_KEY]) == KF_OK);
    CHECK(seal_glucose(112, "r-1", 3, sealed[0], sizeof *sealed, &len[0]) == KF_OK);
    CHECK(kfd_key_wipe(&key) == KF_OK && start() == KF_OK);
    CHECK(seal_glucose(112, "r-1", 3, sealed[1], sizeof *sealed, &len[1]) == KF_OK);
    CHECK(memcmp(sealed[0] + 26, sealed[1] + 26, 24) != 0);
    CHECK(open_limit(sealed[0], len[0], &limit) == KF_ERR_DECRYPTION_FAILED);
    const kfd_binding binding = { "config.limit", 12, NULL, 0, NULL, 0 };
    CHECK(kfd_seal_counted(&key, &counter, &binding, KFD_TYPE_INTEGER, "\x01\x2c", 2, sealed[0], sizeof *sealed, &len[0]) == KF_OK);
    CHECK(open_limit(sealed[0], len[0], &limit) == KF_OK && limit == 300);
    /* A newer bundle that cannot be stored. */
    storing_fails = 1;
    CHECK(install(BUNDLES[OTHER_KEY]) == KF_ERR_IO);
    CHECK(seal_glucose(112, "r-1", 3, sealed[1], sizeof *sealed, &len[1]) == KF_OK && memcmp(sealed[1] + 2, KEY_IDS[DEFAULT_KEY], 24) == 0);
    CHECK(kfd_key_wipe(&key) == KF_OK && start() == KF_OK);
    storing_fails = 0;
    /* One that can, after which the older one is refused. */
    CHECK(install(BUNDLES[OTHER_KEY]) == KF_OK && start() == KF_OK);
    CHECK(install(BUNDLES[DEFAULT_KEY]) == KF_ERR_RECORD_REJECTED);
    CHECK(seal_glucose(112, "r-1", 3, sealed[1], sizeof *sealed, &len[1]) == KF_OK && memcmp(sealed[1] + 2, KEY_IDS[OTHER_KEY], 24) == 0);
    /* With the counter lost, nothing that the device has had begins again at 0: the nonces would be the same. */
    memset(in_slots, 0xFF, sizeof in_slots);
    CHECK(start() == KF_ERR_KEY_STATE);
    CHECK(install(BUNDLES[OTHER_KEY]) == KF_ERR_KEY_STATE);
    CHECK(install(BUNDLES[DEFAULT_KEY]) == KF_ERR_RECORD_REJECTED);
    CHECK(seal_glucose(112, "r-1", 3, sealed[1], sizeof *sealed, &len[1]) == KF_ERR_INVALID_HANDLE);
    power_cuts();
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
