/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Streams, used as they should not be. Arguments: a configuration and a policy. */
#include "misuse.h"

#define HEADER KF_STREAM_HEADER_LEN
#define ROOM (KF_STREAM_CHUNK_LEN + 16)

static kf_field *image;
static uint8_t *sealed;
static size_t sealed_len;
static int32_t answer;
static size_t too_many;

static int32_t read_at(void *user, uint64_t offset, void *out, size_t len, size_t *read)
{
    (void)user;
    size_t n = offset < sealed_len ? sealed_len - (size_t)offset : 0;
    n = n < len ? n : len;
    if (n > 0)
        memcpy(out, sealed + offset, n);
    *read = n + too_many;
    return answer;
}

static void sealing(void)
{
    kf_stream *stream = (kf_stream *)(void *)8;
    uint8_t *header = guarded(HEADER, 'x'), *room = guarded(HEADER + 64, 'x');
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_seal(NULL, NULL, 0, header, HEADER, &stream, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_stream_seal((kf_field *)ring, NULL, 0, header, HEADER, &stream, &error));
    EXPECT(KF_ERR_POLICY_REFUSED, kf_stream_seal(any, NULL, 0, header, HEADER, &stream, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_seal(image, NULL, 3, header, HEADER, &stream, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_stream_seal(image, "row", 3, header, HEADER, &stream, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_seal(image, NULL, 0, NULL, HEADER, &stream, &error));
    EXPECT(KF_ERR_BUFFER_TOO_SMALL, kf_stream_seal(image, NULL, 0, header + 1, HEADER - 1, &stream, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_seal(image, NULL, 0, header, HEADER, NULL, &error));
    EXPECT(KF_ERR_OVERLAP, kf_stream_seal(image, room, 3, room, HEADER, &stream, &error));
    uint8_t *aligned = (uint8_t *)(void *)(((uintptr_t)room + 7) / 8 * 8);
    EXPECT(KF_ERR_OVERLAP, kf_stream_seal(image, NULL, 0, aligned, HEADER, (kf_stream **)(void *)aligned, &error));
    EACH_HUGE(huge) {
        EXPECT(KF_ERR_INVALID_INPUT, kf_stream_seal(image, "row", huge, header, HEADER, &stream, &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_stream_seal(image, NULL, 0, header, huge, &stream, &error));
    }
    CHECK(stream == (kf_stream *)(void *)8 && all_are(header, HEADER, 'x') && all_are(room, HEADER + 64, 'x'));
    NEED(kf_stream_seal(image, NULL, 0, header, HEADER, &stream, &error));

    uint8_t *out = guarded(ROOM, 'x'), *both = guarded(2 * ROOM, 'x');
    size_t len = 77;
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_update(NULL, "abc", 3, out, ROOM, &len, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_stream_update((kf_stream *)image, "abc", 3, out, ROOM, &len, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_update(stream, NULL, 3, out, ROOM, &len, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_update(stream, "abc", 3, NULL, ROOM, &len, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_update(stream, "abc", 3, out, ROOM, NULL, &error));
    EXPECT(KF_ERR_BUFFER_TOO_SMALL, kf_stream_update(stream, "abc", 3, out + 1, ROOM - 1, &len, &error));
    EXPECT(KF_ERR_OVERLAP, kf_stream_update(stream, both + 1, 3, both, ROOM, &len, &error));
    EXPECT(KF_ERR_OVERLAP, kf_stream_update(stream, "abc", 3, both, ROOM, (size_t *)(void *)(((uintptr_t)both + 7) / 8 * 8), &error));
    EACH_HUGE(huge) {
        EXPECT(KF_ERR_INVALID_INPUT, kf_stream_update(stream, "abc", huge, out, ROOM, &len, &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_stream_update(stream, "abc", 3, out, huge, &len, &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_stream_finish(stream, out, huge, &len, &error));
    }
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_finish(NULL, out, ROOM, &len, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_stream_finish((kf_stream *)image, out, ROOM, &len, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_finish(stream, NULL, ROOM, &len, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_finish(stream, out, ROOM, NULL, &error));
    EXPECT(KF_ERR_BUFFER_TOO_SMALL, kf_stream_finish(stream, out + 1, ROOM - 1, &len, &error));
    bool told = true;
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_is_compromised(NULL, &told, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_stream_is_compromised((kf_stream *)image, &told, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_is_compromised(stream, NULL, &error));
    CHECK(told);
    EXPECT(KF_OK, kf_stream_is_compromised(stream, &told, &error));
    CHECK(!told);
    CHECK(len == 77 && all_are(out, ROOM, 'x') && all_are(both, 2 * ROOM, 'x'));
    /* None of these calls has taken anything. */
    EXPECT(KF_OK, kf_stream_update(stream, "abc", 3, out, ROOM, &len, &error));
    CHECK(len == 0);
    EXPECT(KF_OK, kf_stream_update(stream, NULL, 0, out, ROOM, &len, &error));
    EXPECT(KF_OK, kf_stream_finish(stream, out, ROOM, &len, &error));
    CHECK(len == 3 + 16);
    sealed_len = HEADER + len;
    sealed = guarded(sealed_len, 0);
    memcpy(sealed, header, HEADER), memcpy(sealed + HEADER, out, len);
    EXPECT(KF_ERR_CLOSED, kf_stream_update(stream, "abc", 3, out, ROOM, &len, &error));
    EXPECT(KF_ERR_CLOSED, kf_stream_finish(stream, out, ROOM, &len, &error));
    CHECK(kf_stream_free(NULL) == KF_OK && kf_stream_free((kf_stream *)image) == KF_ERR_INVALID_HANDLE);
    CHECK(kf_stream_free(stream) == KF_OK && kf_stream_free(stream) == KF_ERR_INVALID_HANDLE);
    EXPECT(KF_ERR_INVALID_HANDLE, kf_stream_update(stream, "abc", 3, out, ROOM, &len, &error));
}

static void opening(void)
{
    kf_stream *stream = (kf_stream *)(void *)8;
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_open(NULL, sealed, HEADER, NULL, 0, &stream, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_stream_open((kf_field *)ring, sealed, HEADER, NULL, 0, &stream, &error));
    EXPECT(KF_ERR_POLICY_REFUSED, kf_stream_open(any, sealed, HEADER, NULL, 0, &stream, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_open(image, NULL, HEADER, NULL, 0, &stream, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_open(image, sealed, HEADER, NULL, 3, &stream, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_open(image, sealed, HEADER, NULL, 0, NULL, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_stream_open(image, sealed, HEADER, "row", 3, &stream, &error));
    EXPECT(KF_ERR_MALFORMED, kf_stream_open(image, sealed, HEADER - 1, NULL, 0, &stream, &error));
    EXPECT(KF_ERR_MALFORMED, kf_stream_open(image, NULL, 0, NULL, 0, &stream, &error));
    EACH_HUGE(huge) {
        EXPECT(KF_ERR_INVALID_INPUT, kf_stream_open(image, sealed, huge, NULL, 0, &stream, &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_stream_open(image, sealed, HEADER, "row", huge, &stream, &error));
    }
    CHECK(stream == (kf_stream *)(void *)8);
    uint8_t *out = guarded(ROOM, 'x');
    size_t len = 77;
    NEED(kf_stream_open(image, sealed, HEADER, NULL, 0, &stream, &error));
    for (int again = 0; again < 2; again++)
        EXPECT(KF_ERR_MALFORMED, kf_stream_finish(stream, out, ROOM, &len, &error));
    CHECK(len == 77 && all_are(out, ROOM, 'x') && kf_stream_free(stream) == KF_OK);
}

static void reading(void)
{
    kf_stream_reader *reader = (kf_stream_reader *)(void *)8;
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_reader_new(NULL, sealed_len, read_at, NULL, NULL, 0, &reader, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_stream_reader_new((kf_field *)ring, sealed_len, read_at, NULL, NULL, 0, &reader, &error));
    EXPECT(KF_ERR_POLICY_REFUSED, kf_stream_reader_new(any, sealed_len, read_at, NULL, NULL, 0, &reader, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_reader_new(image, sealed_len, NULL, NULL, NULL, 0, &reader, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_reader_new(image, sealed_len, read_at, NULL, NULL, 3, &reader, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_reader_new(image, sealed_len, read_at, NULL, NULL, 0, NULL, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_stream_reader_new(image, sealed_len, read_at, NULL, "row", 3, &reader, &error));
    EACH_HUGE(huge) EXPECT(KF_ERR_INVALID_INPUT, kf_stream_reader_new(image, sealed_len, read_at, NULL, "row", huge, &reader, &error));
    answer = 7;
    EXPECT(KF_ERR_IO, kf_stream_reader_new(image, sealed_len, read_at, NULL, NULL, 0, &reader, &error));
    answer = KF_OK, too_many = SIZE_MAX / 2;
    EXPECT(KF_ERR_IO, kf_stream_reader_new(image, sealed_len, read_at, NULL, NULL, 0, &reader, &error));
    too_many = 0;
    CHECK(reader == (kf_stream_reader *)(void *)8);
    NEED(kf_stream_reader_new(image, sealed_len, read_at, NULL, NULL, 0, &reader, &error));

    uint8_t *out = guarded(8, 'x');
    size_t len = 77;
    uint64_t whole = 77;
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_read_at(NULL, 0, out, 8, &len, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_stream_read_at((kf_stream_reader *)image, 0, out, 8, &len, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_read_at(reader, 0, NULL, 8, &len, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_read_at(reader, 0, out, 8, NULL, &error));
    uint8_t *room = guarded(16, 'x');
    EXPECT(KF_ERR_OVERLAP, kf_stream_read_at(reader, 0, room, 16, (size_t *)(void *)room, &error));
    EACH_HUGE(huge) EXPECT(KF_ERR_INVALID_INPUT, kf_stream_read_at(reader, 0, out, huge, &len, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_verified_len(NULL, &whole, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_stream_verified_len((kf_stream_reader *)image, &whole, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_verified_len(reader, NULL, &error));
    bool told = true;
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_reader_is_compromised(NULL, &told, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_stream_reader_is_compromised((kf_stream_reader *)image, &told, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_stream_reader_is_compromised(reader, NULL, &error));
    CHECK(told);
    EXPECT(KF_OK, kf_stream_reader_is_compromised(reader, &told, &error));
    CHECK(!told);
    CHECK(len == 77 && whole == 77 && all_are(out, 8, 'x') && all_are(room, 16, 'x'));
    answer = 7;
    EXPECT(KF_ERR_IO, kf_stream_read_at(reader, 0, out, 8, &len, &error));
    CHECK(len == 77 && all_are(out, 8, 0));
    answer = KF_OK;
    /* What failed for want of input is read when there is some. */
    EXPECT(KF_OK, kf_stream_read_at(reader, 1, out, 8, &len, &error));
    CHECK(len == 2 && memcmp(out, "bc", 2) == 0);
    EXPECT(KF_OK, kf_stream_read_at(reader, UINT64_MAX, out, 8, &len, &error));
    CHECK(len == 0);
    EXPECT(KF_OK, kf_stream_read_at(reader, 0, NULL, 0, &len, &error));
    EXPECT(KF_OK, kf_stream_verified_len(reader, &whole, &error));
    CHECK(whole == 3);
    CHECK(kf_stream_reader_free(NULL) == KF_OK && kf_stream_reader_free((kf_stream_reader *)image) == KF_ERR_INVALID_HANDLE);
    CHECK(kf_stream_reader_free(reader) == KF_OK && kf_stream_reader_free(reader) == KF_ERR_INVALID_HANDLE);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    begin(argv[1], argv[2]);
    NEED(kf_field_new(ring, KF_STR("image"), NULL, 0, NULL, &image, &error));
    CHECK(kf_stream_out_len_max(0) == ROOM && kf_stream_out_len_max(KF_STREAM_CHUNK_LEN) == 2 * ROOM);
    EACH_HUGE(huge) CHECK(kf_stream_out_len_max(huge) >= huge);
    sealing();
    opening();
    reading();
    CHECK(kf_field_free(image) == KF_OK);
    return end();
}
