/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What columns and search do when they are used as they should not be. Arguments: the configuration of a keyring, a policy. */
#include "misuse.h"

static void columns(void)
{
    uint8_t types[3] = { KF_TYPE_TEXT, KF_TYPE_TEXT, KF_TYPE_TEXT };
    int64_t offsets[4] = { 0, 1, 2, 3 };
    kf_column values = { (const uint8_t *)"abc", 3, offsets, 3 };
    size_t needed = 0;
    NEED(kf_sealed_column_len(any, &values, &needed, &error));
    CHECK(needed == 3 + 3 * KF_SEALED_OVERHEAD);
    uint8_t *data = guarded(needed, 'x');
    int64_t *ends = (int64_t *)(void *)guarded(4 * sizeof(int64_t), 'x');
    kf_column_out out = { data, needed, ends, 4 }, odd;
    kf_column bad;
#define BAD(member, value) (bad = values, bad.member = (value), &bad)
#define ODD(member, value) (odd = out, odd.member = (value), &odd)
    EXPECT(KF_ERR_NULL_POINTER, kf_sealed_column_len(any, NULL, &needed, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_sealed_column_len(any, &values, NULL, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_sealed_column_len(NULL, &values, &needed, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_sealed_column_len((kf_field *)ring, &values, &needed, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_encrypt_column(NULL, types, &values, NULL, &out, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_encrypt_column((kf_field *)ring, types, &values, NULL, &out, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_encrypt_column(any, NULL, &values, NULL, &out, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_encrypt_column(any, types, NULL, NULL, &out, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_encrypt_column(any, types, &values, NULL, NULL, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_encrypt_column(any, types, BAD(data, NULL), NULL, &out, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_encrypt_column(any, types, BAD(offsets, NULL), NULL, &out, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_encrypt_column(any, types, &values, NULL, ODD(data, NULL), &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_encrypt_column(any, types, &values, NULL, ODD(offsets, NULL), &error));
    EXPECT(KF_ERR_BUFFER_TOO_SMALL, kf_encrypt_column(any, types, &values, NULL, ODD(data_cap, needed - 1), &error));
    EXPECT(KF_ERR_BUFFER_TOO_SMALL, kf_encrypt_column(any, types, &values, NULL, ODD(offsets_cap, 3), &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_encrypt_column(any, types, BAD(data_len, 2), NULL, &out, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_encrypt_column(any, types, &values, &values, &out, &error)); /* no row is wanted */
    EXPECT(KF_ERR_INVALID_INPUT, kf_encrypt_column(bound, types, &values, NULL, &out, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_encrypt_column(bound, types, &values, BAD(rows, 2), &out, &error));
    EACH_HUGE(huge) {
        EXPECT(KF_ERR_INVALID_INPUT, kf_encrypt_column(any, types, BAD(data_len, huge), NULL, &out, &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_encrypt_column(any, types, BAD(rows, huge), NULL, &out, &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_encrypt_column(any, types, &values, NULL, ODD(data_cap, huge), &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_encrypt_column(any, types, &values, NULL, ODD(offsets_cap, huge), &error));
    }
    int64_t wrong[][4] = { { 0, 2, 1, 3 }, { -1, 1, 2, 3 }, { 0, 1, 2, 4 }, { 0, 1, 2, INT64_MAX }, { INT64_MIN, 0, 0, 0 } };
    for (size_t at = 0; at < sizeof wrong / sizeof *wrong; at++) {
        EXPECT(KF_ERR_INVALID_INPUT, kf_encrypt_column(any, types, BAD(offsets, wrong[at]), NULL, &out, &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_sealed_column_len(any, BAD(offsets, wrong[at]), &needed, &error));
    }
    uint8_t unknown[3] = { KF_TYPE_TEXT, 99, KF_TYPE_TEXT };
    EXPECT(KF_ERR_INVALID_INPUT, kf_encrypt_column(any, unknown, &values, NULL, &out, &error));
    CHECK(error.row == 1);
    EXPECT(KF_ERR_OVERLAP, kf_encrypt_column(any, data, BAD(rows, 3), NULL, &out, &error));
    EXPECT(KF_ERR_OVERLAP, kf_encrypt_column(any, types, BAD(data, data + needed - 3), NULL, &out, &error));
    EXPECT(KF_ERR_OVERLAP, kf_encrypt_column(any, types, BAD(offsets, (ends[0] = 0, ends[1] = 1, ends[2] = 2, ends[3] = 3, ends)), NULL, &out, &error));
    EXPECT(KF_ERR_OVERLAP, kf_encrypt_column(any, types, &values, NULL, ODD(offsets, (int64_t *)(void *)((uintptr_t)data / 8 * 8 + 8)), &error));
    memset(ends, 'x', 4 * sizeof *ends);
    CHECK(all_are(data, needed, 'x'));
    EXPECT(KF_OK, kf_encrypt_column(any, types, &values, NULL, &out, &error));

    kf_column sealed = values = (kf_column){ data, needed, ends, 3 };
    size_t opened_len = kf_opened_column_len_max(needed, 3);
    CHECK(opened_len == needed - 3 * KF_DETERMINISTIC_OVERHEAD);
    CHECK(kf_opened_column_len_max(0, SIZE_MAX) == 0 && kf_opened_column_len_max(SIZE_MAX, 0) == SIZE_MAX);
    uint8_t *opened_data = guarded(opened_len, 'x'), *opened_types = guarded(3, 'x');
    int64_t *opened_ends = (int64_t *)(void *)guarded(4 * sizeof(int64_t), 'x');
    kf_opened_column what;
    memset(&what, 'x', sizeof what);
    out = (kf_column_out){ opened_data, opened_len, opened_ends, 4 };
    EXPECT(KF_OK, kf_decrypt_column(any, &sealed, NULL, opened_types, 3, &out, NULL, &error));
    memset(opened_data, 'x', opened_len), memset(opened_types, 'x', 3), memset(opened_ends, 'x', 32);
    EXPECT(KF_ERR_NULL_POINTER, kf_decrypt_column(NULL, &sealed, NULL, opened_types, 3, &out, &what, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_decrypt_column((kf_field *)ring, &sealed, NULL, opened_types, 3, &out, &what, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_decrypt_column(any, NULL, NULL, opened_types, 3, &out, &what, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_decrypt_column(any, &sealed, NULL, NULL, 3, &out, &what, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_decrypt_column(any, &sealed, NULL, opened_types, 3, NULL, &what, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_decrypt_column(any, &sealed, NULL, opened_types, 3, ODD(data, NULL), &what, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_decrypt_column(any, &sealed, NULL, opened_types, 3, ODD(offsets, NULL), &what, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_decrypt_column(any, BAD(data_len, 2), NULL, opened_types, 3, &out, &what, &error));
    EACH_HUGE(huge) {
        EXPECT(KF_ERR_INVALID_INPUT, kf_decrypt_column(any, BAD(data_len, huge), NULL, opened_types, 3, &out, &what, &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_decrypt_column(any, BAD(rows, huge), NULL, opened_types, 3, &out, &what, &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_decrypt_column(any, &sealed, NULL, opened_types, huge, &out, &what, &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_decrypt_column(any, &sealed, NULL, opened_types, 3, ODD(data_cap, huge), &what, &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_decrypt_column(any, &sealed, NULL, opened_types, 3, ODD(offsets_cap, huge), &what, &error));
    }
    EXPECT(KF_ERR_OVERLAP, kf_decrypt_column(any, &sealed, NULL, opened_data, 3, &out, &what, &error));
    EXPECT(KF_ERR_OVERLAP, kf_decrypt_column(any, &sealed, NULL, data, 3, &out, &what, &error));
    EXPECT(KF_ERR_OVERLAP, kf_decrypt_column(any, &sealed, NULL, opened_types, 3, ODD(data, data), &what, &error));
    EXPECT(KF_ERR_OVERLAP, kf_decrypt_column(any, &sealed, NULL, opened_types, 3, ODD(offsets, ends), &what, &error));
    CHECK(all_are(opened_data, opened_len, 'x'));
    EXPECT(KF_ERR_BUFFER_TOO_SMALL, kf_decrypt_column(any, &sealed, NULL, opened_types, 2, &out, &what, &error));
    CHECK(all_are(opened_data, opened_len, 0));
    memset(opened_data, 'x', opened_len);
    EXPECT(KF_ERR_BUFFER_TOO_SMALL, kf_decrypt_column(any, &sealed, NULL, opened_types, 3, ODD(offsets_cap, 3), &what, &error));
    EXPECT(KF_ERR_BUFFER_TOO_SMALL, kf_decrypt_column(any, &sealed, NULL, opened_types, 3, ODD(data_cap, opened_len - 1), &what, &error));
    CHECK(all_are(opened_data, opened_len - 1, 0));
    EXPECT(KF_ERR_DECRYPTION_FAILED, kf_decrypt_column(any, (data[needed - 1] ^= 1, &sealed), NULL, opened_types, 3, &out, &what, &error));
    CHECK(error.row == 2 && all_are(&what, sizeof what, 'x') && all_are(opened_types, 3, 'x') && all_are(opened_ends, 32, 'x'));

    /* The same with a result per row. */
    data[needed - 1] ^= 1;
    opened_len = needed;
    opened_data = guarded(opened_len, 'x');
    int32_t *results = (int32_t *)(void *)guarded(3 * sizeof(int32_t), 'x');
    out = (kf_column_out){ opened_data, opened_len, opened_ends, 4 };
#define EACH(field, sealed, types, types_cap, out, results, results_cap) \
    kf_decrypt_column_each(field, sealed, NULL, types, types_cap, out, results, results_cap, &what, &error)
    EXPECT(KF_ERR_NULL_POINTER, EACH(NULL, &sealed, opened_types, 3, &out, results, 3));
    EXPECT(KF_ERR_INVALID_HANDLE, EACH((kf_field *)ring, &sealed, opened_types, 3, &out, results, 3));
    EXPECT(KF_ERR_NULL_POINTER, EACH(any, NULL, opened_types, 3, &out, results, 3));
    EXPECT(KF_ERR_NULL_POINTER, EACH(any, &sealed, NULL, 3, &out, results, 3));
    EXPECT(KF_ERR_NULL_POINTER, EACH(any, &sealed, opened_types, 3, NULL, results, 3));
    EXPECT(KF_ERR_NULL_POINTER, EACH(any, &sealed, opened_types, 3, &out, NULL, 3));
    EXPECT(KF_ERR_INVALID_INPUT, EACH(any, &sealed, opened_types, 3, &out, (int32_t *)(void *)((char *)results + 1), 2));
    EACH_HUGE(huge) EXPECT(KF_ERR_INVALID_INPUT, EACH(any, &sealed, opened_types, 3, &out, results, huge));
    EXPECT(KF_ERR_OVERLAP, EACH(any, &sealed, opened_types, 3, &out, (int32_t *)(void *)opened_ends, 3));
    EXPECT(KF_ERR_OVERLAP, EACH(any, &sealed, (uint8_t *)results, 3, &out, results, 3));
    EXPECT(KF_ERR_OVERLAP, EACH(any, &sealed, opened_types, 3, &out, (int32_t *)(void *)&what, 3));
    EXPECT(KF_ERR_OVERLAP, EACH(any, &sealed, opened_types, 3, &out, (int32_t *)(void *)(ends + 1), 3));
    CHECK(all_are(opened_data, opened_len, 'x'));
    EXPECT(KF_ERR_BUFFER_TOO_SMALL, EACH(any, &sealed, opened_types, 3, &out, results + 1, 2));
    CHECK(all_are(opened_data, opened_len, 0));
    memset(opened_data, 'x', opened_len);
    EXPECT(KF_ERR_BUFFER_TOO_SMALL, EACH(any, &sealed, opened_types, 3, ODD(data_cap, opened_len - 1), results, 3));
    CHECK(all_are(opened_data, opened_len - 1, 0) && all_are(results, 12, 'x') && all_are(&what, sizeof what, 'x'));
    CHECK(all_are(opened_types, 3, 'x') && all_are(opened_ends, 32, 'x'));
    EXPECT(KF_OK, EACH(any, &sealed, opened_types, 3, &out, results, 3));
    CHECK(what.failed == 0 && all_are(results, 12, 0));
}

static void searching(void)
{
    size_t keys = 77, needed, len = 77;
    EXPECT(KF_ERR_NULL_POINTER, kf_search_keys(NULL, &keys, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_search_keys(mrn, NULL, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_search_keys((kf_field *)context, &keys, &error));
    EXPECT(KF_ERR_POLICY_REFUSED, kf_search_keys(any, &keys, &error));
    CHECK(keys == 77);
    NEED(kf_search_keys(mrn, &keys, &error));
    NEED(kf_sealed_len(mrn, 3, &needed, &error));
    needed *= keys;
    uint8_t *out = guarded(needed, 'x'), *room = guarded(400, 'x');
#define SEARCH(field, type, value, value_len, out, out_cap, out_len) \
    kf_search(field, type, value, value_len, out, out_cap, out_len, &error)
    EXPECT(KF_OK, SEARCH(mrn, KF_TYPE_TEXT, "abc", 3, out, needed, &len));
    CHECK(len == needed);
    memset(out, 'x', needed);
    len = 77;
    EXPECT(KF_ERR_NULL_POINTER, SEARCH(NULL, KF_TYPE_TEXT, "abc", 3, out, needed, &len));
    EXPECT(KF_ERR_INVALID_HANDLE, SEARCH((kf_field *)ring, KF_TYPE_TEXT, "abc", 3, out, needed, &len));
    EXPECT(KF_ERR_POLICY_REFUSED, SEARCH(any, KF_TYPE_TEXT, "abc", 3, out, needed, &len));
    EXPECT(KF_ERR_NULL_POINTER, SEARCH(mrn, KF_TYPE_TEXT, NULL, 3, out, needed, &len));
    EXPECT(KF_ERR_NULL_POINTER, SEARCH(mrn, KF_TYPE_TEXT, "abc", 3, NULL, needed, &len));
    EXPECT(KF_ERR_NULL_POINTER, SEARCH(mrn, KF_TYPE_TEXT, "abc", 3, out, needed, NULL));
    EXPECT(KF_ERR_BUFFER_TOO_SMALL, SEARCH(mrn, KF_TYPE_TEXT, "abc", 3, out + 1, needed - 1, &len));
    EXPECT(KF_ERR_BUFFER_TOO_SMALL, SEARCH(mrn, KF_TYPE_TEXT, "abc", 3, out, 0, &len));
    EXPECT(KF_ERR_INVALID_INPUT, SEARCH(mrn, 0, "abc", 3, out, needed, &len));
    EXPECT(KF_ERR_INVALID_INPUT, SEARCH(mrn, KF_TYPE_TEXT, "\xff\xff\xff", 3, out, needed, &len));
    EXPECT(KF_ERR_INVALID_INPUT, SEARCH(mrn, KF_TYPE_BYTES, "abc", 3, out, needed, &len)); /* not the type of the field */
    static uint8_t too_long[KF_MAX_VALUE_LEN + 1];
    EXPECT(KF_ERR_LIMIT_EXCEEDED, SEARCH(mrn, KF_TYPE_TEXT, too_long, sizeof too_long, out, needed, &len));
    EACH_HUGE(huge) {
        EXPECT(KF_ERR_INVALID_INPUT, SEARCH(mrn, KF_TYPE_TEXT, "abc", huge, out, needed, &len));
        EXPECT(KF_ERR_INVALID_INPUT, SEARCH(mrn, KF_TYPE_TEXT, "abc", 3, out, huge, &len));
    }
    EXPECT(KF_ERR_OVERLAP, SEARCH(mrn, KF_TYPE_TEXT, room, 3, room, 400, &len));
    EXPECT(KF_ERR_OVERLAP, SEARCH(mrn, KF_TYPE_TEXT, room + needed - 1, 3, room, 400, &len));
    EXPECT(KF_ERR_OVERLAP, SEARCH(mrn, KF_TYPE_TEXT, "abc", 3, room, 400, (size_t *)(void *)room));
    EXPECT(KF_ERR_OVERLAP, SEARCH(mrn, KF_TYPE_TEXT, room, 3, out, needed, (size_t *)(void *)room));
    CHECK(len == 77 && all_are(out, needed, 'x') && all_are(room, 400, 'x'));
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    begin(argv[1], argv[2]);
    columns();
    searching();
    return end();
}
