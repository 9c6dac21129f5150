/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Seals and opens with the library for devices what matrix.py names: device seal|open BUNDLE TRANSPORT_KEY SLOTS. Of what it seals, every
 * second value has a nonce that is counted, in the file SLOTS: without it the nonces of an earlier run would come again. */
#define _GNU_SOURCE
#include "lines.h"
#include <keyfold_device.h>
#include <sys/random.h>

static int32_t from_system(void *user, uint8_t *out, size_t len)
{
    (void)user;
    return getrandom(out, len, 0) == (ssize_t)len ? KF_OK : KF_ERR_RANDOMNESS_UNAVAILABLE;
}

static void need(kf_result result)
{
    if (result == KF_OK)
        return;
    fprintf(stderr, "device: [%d %s]\n", (int)result, kfd_result_name((int32_t)result));
    exit(1);
}

static size_t read_file(const char *path, uint8_t *out, size_t cap)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        exit(2);
    size_t len = fread(out, 1, cap, file);
    fclose(file);
    return len;
}

static int32_t read_slot(void *path, uint32_t slot, uint8_t *bytes)
{
    FILE *file = fopen(path, "rb");
    memset(bytes, 0xff, KFD_SLOT_LEN);
    if (file == NULL)
        return KF_OK;
    /* What was never written may be anything. */
    if (fseek(file, (long)(slot * KFD_SLOT_LEN), SEEK_SET) != 0 || fread(bytes, 1, KFD_SLOT_LEN, file) > KFD_SLOT_LEN)
        exit(2);
    fclose(file);
    return KF_OK;
}

static int32_t write_slot(void *path, uint32_t slot, const uint8_t *bytes)
{
    FILE *file = fopen(path, "r+b");
    if (file == NULL)
        file = fopen(path, "w+b");
    if (file == NULL)
        return KF_ERR_STORE;
    int is_written = fseek(file, (long)(slot * KFD_SLOT_LEN), SEEK_SET) == 0 && fwrite(bytes, 1, KFD_SLOT_LEN, file) == KFD_SLOT_LEN;
    return fclose(file) == 0 && is_written ? KF_OK : KF_ERR_STORE;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    static uint8_t row[ROOM], in[ROOM], out[ROOM];
    static kfd_key key;
    uint8_t bundle[KFD_BUNDLE_LEN + 1], transport_key[KFD_TRANSPORT_KEY_LEN + 1];
    size_t bundle_len = read_file(argv[2], bundle, sizeof bundle), key_len = read_file(argv[3], transport_key, sizeof transport_key);
    need(kfd_key_open(bundle, bundle_len, transport_key, key_len, 0, &key));
    kfd_pair tenant = {.key = "tenant", .key_len = 6, .value = "t1", .value_len = 2};
    kfd_slots slots = {.read = read_slot, .write = write_slot, .user = argv[4]};
    kfd_counter counter;
    int seals = strcmp(argv[1], "seal") == 0;
    if (seals) {
        kf_result started = kfd_counter_start(&key, &slots, &counter);
        need(started == KF_ERR_KEY_STATE ? kfd_counter_create(&key, &slots, &counter) : started);
    }
    size_t row_len, len, count = 0;
    while (next_line(row, &row_len, in, &len)) {
        kfd_binding binding = {.field = "value", .field_len = 5, .row = row, .row_len = row_len, .pairs = &tenant, .pairs_len = 1};
        kfd_opened opened;
        if (seals && count++ % 2 == 1) {
            need(kfd_seal_counted(&key, &counter, &binding, KFD_TYPE_TEXT, in, len, out, sizeof out, &opened.len));
        } else if (seals) {
            need(kfd_seal(&key, &binding, KFD_TYPE_TEXT, in, len, from_system, NULL, out, sizeof out, &opened.len));
        } else {
            need(kfd_open(&key, &binding, in, len, out, sizeof out, &opened));
        }
        print_line(out, opened.len);
    }
    kfd_key_wipe(&key);
    return 0;
}
