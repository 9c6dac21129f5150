/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Indexes, formats and documents, used as they should not be: kf_index_tokens(), kf_index_search(), kf_format_encrypt(), kf_format_decrypt()
 * and kf_document_reveal() through pointers. Arguments: a configuration and a policy. */
#include "misuse.h"

static int calls;

static int32_t take(void *user, const char *text, size_t text_len)
{
    (void)user, (void)text, (void)text_len;
    calls++;
    return KF_OK;
}

static void indexes(void)
{
    kf_index *index = (kf_index *)(void *)8, *names;
    EXPECT(KF_ERR_NULL_POINTER, kf_index_new(NULL, KF_STR("exact"), &index, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_index_new((kf_field *)ring, KF_STR("exact"), &index, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_index_new(mrn, NULL, 5, &index, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_index_new(mrn, KF_STR("exact"), NULL, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_index_new(mrn, "\xff", 1, &index, &error));
    EXPECT(KF_ERR_POLICY_REFUSED, kf_index_new(mrn, KF_STR("none"), &index, &error));
    EXPECT(KF_ERR_POLICY_REFUSED, kf_index_new(mrn, NULL, 0, &index, &error));
    EACH_HUGE(huge) EXPECT(KF_ERR_INVALID_INPUT, kf_index_new(mrn, "exact", huge, &index, &error));
    CHECK(index == (kf_index *)(void *)8);
    NEED(kf_index_new(mrn, KF_STR("exact"), &index, &error));
    NEED(kf_index_new(mrn, KF_STR("start"), &names, &error));

    size_t keys = 77, len = 77;
    EXPECT(KF_ERR_NULL_POINTER, kf_index_keys(NULL, &keys, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_index_keys(index, NULL, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_index_keys((kf_index *)mrn, &keys, &error));
    CHECK(keys == 77);
    NEED(kf_index_keys(index, &keys, &error));

    static uint8_t too_long[KF_MAX_VALUE_LEN + 1];
    const size_t size = sizeof(kf_token);
    struct {
        kf_result (*call)(const kf_index *, uint8_t, const void *, size_t, kf_token *, size_t, size_t *, kf_error *);
        size_t needed;
    } ways[] = { { kf_index_tokens, KF_MAX_TOKENS }, { kf_index_search, keys } };
    for (size_t way = 0; way < 2; way++) {
#define WAY(index, type, value, value_len, out, out_cap, out_len) \
    ways[way].call(index, type, value, value_len, out, out_cap, out_len, &error)
        const size_t needed = ways[way].needed;
        kf_token *out = (kf_token *)(void *)guarded(needed * size, 'x'), *room = (kf_token *)(void *)guarded(9 * size, 'x');
        uint8_t *bytes = (uint8_t *)room;
        len = 77;
        EXPECT(KF_ERR_NULL_POINTER, WAY(NULL, KF_TYPE_TEXT, "abc", 3, out, needed, &len));
        EXPECT(KF_ERR_INVALID_HANDLE, WAY((kf_index *)ring, KF_TYPE_TEXT, "abc", 3, out, needed, &len));
        EXPECT(KF_ERR_NULL_POINTER, WAY(index, KF_TYPE_TEXT, NULL, 3, out, needed, &len));
        EXPECT(KF_ERR_NULL_POINTER, WAY(index, KF_TYPE_TEXT, "abc", 3, NULL, needed, &len));
        EXPECT(KF_ERR_NULL_POINTER, WAY(index, KF_TYPE_TEXT, "abc", 3, out, needed, NULL));
        EXPECT(KF_ERR_BUFFER_TOO_SMALL, WAY(index, KF_TYPE_TEXT, "abc", 3, out + 1, needed - 1, &len));
        EXPECT(KF_ERR_BUFFER_TOO_SMALL, WAY(index, KF_TYPE_TEXT, "abc", 3, out, 0, &len));
        EXPECT(KF_ERR_INVALID_INPUT, WAY(index, KF_TYPE_TEXT, "abc", 3, (kf_token *)(void *)((char *)room + 1), 8, &len));
        EXPECT(KF_ERR_INVALID_INPUT, WAY(index, 0, "abc", 3, out, needed, &len));
        EXPECT(KF_ERR_INVALID_INPUT, WAY(index, KF_TYPE_TEXT, "\xff\xff\xff", 3, out, needed, &len));
        EXPECT(KF_ERR_INVALID_INPUT, WAY(index, KF_TYPE_BYTES, "abc", 3, out, needed, &len)); /* not the type of the field */
        EXPECT(KF_ERR_LIMIT_EXCEEDED, WAY(index, KF_TYPE_TEXT, too_long, sizeof too_long, out, needed, &len));
        EACH_HUGE(huge) {
            EXPECT(KF_ERR_INVALID_INPUT, WAY(index, KF_TYPE_TEXT, "abc", huge, out, needed, &len));
            EXPECT(KF_ERR_INVALID_INPUT, WAY(index, KF_TYPE_TEXT, "abc", 3, out, huge, &len));
        }
        EXPECT(KF_ERR_OVERLAP, WAY(index, KF_TYPE_TEXT, bytes, 3, room, 9, &len));
        EXPECT(KF_ERR_OVERLAP, WAY(index, KF_TYPE_TEXT, bytes + needed * size - 1, 1, room, 9, &len));
        EXPECT(KF_ERR_OVERLAP, WAY(index, KF_TYPE_TEXT, "abc", 3, room, 9, (size_t *)(void *)room));
        EXPECT(KF_ERR_OVERLAP, WAY(index, KF_TYPE_TEXT, bytes, 3, out, needed, (size_t *)(void *)bytes));
        CHECK(len == 77 && all_are(out, needed * size, 'x') && all_are(room, 9 * size, 'x'));
        EXPECT(KF_OK, WAY(index, KF_TYPE_TEXT, "abc", 3, out, needed, &len));
        CHECK(len == 1 && out[0].integer == -1);
        /* No prefix of three characters. */
        EXPECT(way == 0 ? KF_OK : KF_ERR_INVALID_INPUT, WAY(names, KF_TYPE_TEXT, "ab", 2, out, needed, &len));
    }
    CHECK(kf_index_free(NULL) == KF_OK && kf_index_free((kf_index *)mrn) == KF_ERR_INVALID_HANDLE);
    CHECK(kf_index_free(names) == KF_OK && kf_index_free(index) == KF_OK && kf_index_free(index) == KF_ERR_INVALID_HANDLE);
    EXPECT(KF_ERR_INVALID_HANDLE, kf_index_keys(index, &keys, &error));
}

static void formats(void)
{
    kf_field *format;
    NEED(kf_field_new(ring, KF_STR("format"), NULL, 0, NULL, &format, &error));
    kf_result (*ways[])(const kf_field *, const char *, size_t, char *, size_t, size_t *, kf_error *) = { kf_format_encrypt, kf_format_decrypt };
    char *out = (char *)guarded(7, 'x'), *room = (char *)guarded(64, 'x');
    for (size_t way = 0; way < 2; way++) {
        size_t len = 77;
        EXPECT(KF_ERR_NULL_POINTER, ways[way](NULL, "1234567", 7, out, 7, &len, &error));
        EXPECT(KF_ERR_INVALID_HANDLE, ways[way]((kf_field *)ring, "1234567", 7, out, 7, &len, &error));
        EXPECT(KF_ERR_POLICY_REFUSED, ways[way](any, "1234567", 7, out, 7, &len, &error));
        EXPECT(KF_ERR_NULL_POINTER, ways[way](format, NULL, 7, out, 7, &len, &error));
        EXPECT(KF_ERR_NULL_POINTER, ways[way](format, "1234567", 7, NULL, 7, &len, &error));
        EXPECT(KF_ERR_NULL_POINTER, ways[way](format, "1234567", 7, out, 7, NULL, &error));
        EXPECT(KF_ERR_BUFFER_TOO_SMALL, ways[way](format, "1234567", 7, out + 1, 6, &len, &error));
        EXPECT(KF_ERR_INVALID_INPUT, ways[way](format, "12345\xff\xff", 7, out, 7, &len, &error));
        EXPECT(KF_ERR_INVALID_INPUT, ways[way](format, "1234", 4, out, 7, &len, &error));
        EXPECT(KF_ERR_INVALID_INPUT, ways[way](format, NULL, 0, out, 7, &len, &error));
        EACH_HUGE(huge) {
            EXPECT(KF_ERR_INVALID_INPUT, ways[way](format, "1234567", huge, out, 7, &len, &error));
            EXPECT(KF_ERR_INVALID_INPUT, ways[way](format, "1234567", 7, out, huge, &len, &error));
        }
        EXPECT(KF_ERR_OVERLAP, ways[way](format, room, 7, room, 64, &len, &error));
        EXPECT(KF_ERR_OVERLAP, ways[way](format, "1234567", 7, room, 64, (size_t *)(void *)room, &error));
        CHECK(len == 77 && all_are(out, 7, 'x') && all_are(room, 64, 'x'));
        static char many[300];
        memset(many, '1', sizeof many);
        static char wide[300];
        EXPECT(KF_ERR_LIMIT_EXCEEDED, ways[way](format, many, sizeof many, wide, sizeof wide, &len, &error));
    }
    kf_field_free(format);
}

static void documents(void)
{
    kf_documents *all = (kf_documents *)(void *)8;
    EXPECT(KF_ERR_NULL_POINTER, kf_documents_new(NULL, NULL, 0, NULL, 0, &all, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_documents_new((kf_keyring *)mrn, NULL, 0, NULL, 0, &all, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_documents_new(ring, NULL, 3, NULL, 0, &all, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_documents_new(ring, NULL, 0, NULL, 0, NULL, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_documents_new(ring, NULL, 0, (kf_context *)mrn, 0, &all, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_documents_new(ring, "\xff", 1, NULL, 0, &all, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_documents_new(ring, NULL, 0, NULL, 1U << 31, &all, &error));
    EACH_HUGE(huge) EXPECT(KF_ERR_INVALID_INPUT, kf_documents_new(ring, "clinic", huge, NULL, 0, &all, &error));
    CHECK(all == (kf_documents *)(void *)8);
    NEED(kf_documents_new(ring, NULL, 0, context, KF_PASS_UNMATCHED, &all, &error));

    kf_result (*ways[])(const kf_documents *, const char *, size_t, kf_document_fn, void *, kf_error *) = { kf_document_protect, kf_document_reveal };
    for (size_t way = 0; way < 2; way++) {
        EXPECT(KF_ERR_NULL_POINTER, ways[way](NULL, "{}", 2, take, NULL, &error));
        EXPECT(KF_ERR_INVALID_HANDLE, ways[way]((kf_documents *)ring, "{}", 2, take, NULL, &error));
        EXPECT(KF_ERR_NULL_POINTER, ways[way](all, NULL, 2, take, NULL, &error));
        EXPECT(KF_ERR_NULL_POINTER, ways[way](all, "{}", 2, NULL, NULL, &error));
        EXPECT(KF_ERR_INVALID_INPUT, ways[way](all, "{\"\xff\":1}", 7, take, NULL, &error));
        EXPECT(KF_ERR_INVALID_INPUT, ways[way](all, NULL, 0, take, NULL, &error));
        EXPECT(KF_ERR_INVALID_INPUT, ways[way](all, "{} {}", 5, take, NULL, &error));
        EACH_HUGE(huge) EXPECT(KF_ERR_INVALID_INPUT, ways[way](all, "{}", huge, take, NULL, &error));
        const size_t limit = (size_t)(way + 1) << 24;
        char *large = (char *)malloc(limit + 1);
        memset(large, ' ', limit + 1);
        memcpy(large, "{}", 2);
        CHECK(calls == (int)way);
        EXPECT(KF_ERR_LIMIT_EXCEEDED, ways[way](all, large, limit + 1, take, NULL, &error));
        CHECK(calls == (int)way);
        EXPECT(KF_OK, ways[way](all, large, limit, take, NULL, &error));
        CHECK(calls == (int)way + 1);
        free(large);
    }
    EXPECT(KF_ERR_NULL_POINTER, kf_documents_refuse_unused(NULL, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_documents_refuse_unused((kf_documents *)mrn, &error));
    CHECK(kf_documents_free(NULL) == KF_OK && kf_documents_free((kf_documents *)mrn) == KF_ERR_INVALID_HANDLE);
    CHECK(kf_documents_free(all) == KF_OK && kf_documents_free(all) == KF_ERR_INVALID_HANDLE);
    EXPECT(KF_ERR_INVALID_HANDLE, kf_document_protect(all, "{}", 2, take, NULL, &error));
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    begin(argv[1], argv[2]);
    indexes();
    formats();
    documents();
    return end();
}
