/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Streams, pushed and pulled. Arguments: a configuration, a policy, a stream that the command has made of the bytes of `plain`, and where to
 * write one for it, and whether the command's is under a compromised key: 0 or 1. */
#include "check.h"
#include <pthread.h>

#define LEN 100000
#define HEADER KF_STREAM_HEADER_LEN

static kf_error error;
static kf_keyring *ring;
static uint8_t plain[LEN];

struct bytes {
    uint8_t *at;
    size_t len;
    size_t read;
};

static struct bytes read_file(const char *name)
{
    FILE *file = fopen(name, "rb");
    struct bytes bytes = { (uint8_t *)malloc(2 * LEN), 0, 0 };
    if (file == NULL || bytes.at == NULL)
        exit(2);
    bytes.len = fread(bytes.at, 1, 2 * LEN, file);
    fclose(file);
    return bytes;
}

static kf_field *field(const char *name)
{
    kf_field *made;
    NEED(kf_field_new(ring, name, strlen(name), NULL, 0, NULL, &made, &error));
    return made;
}

/* Seals or opens `input` by pieces of `piece` bytes; the result of the call that fails, or of the last. */
static kf_result push(kf_stream *stream, const uint8_t *input, size_t len, size_t piece, struct bytes *out)
{
    size_t written, room = kf_stream_out_len_max(piece);
    for (size_t at = 0; at < len; at += piece) {
        size_t n = len - at < piece ? len - at : piece;
        kf_result result = kf_stream_update(stream, input + at, n, out->at + out->len, room, &written, &error);
        if (result != KF_OK)
            return result;
        out->len += written;
    }
    kf_result result = kf_stream_finish(stream, out->at + out->len, room, &written, &error);
    out->len += result == KF_OK ? written : 0;
    return result;
}

static struct bytes seal(kf_field *of, size_t len, size_t piece)
{
    struct bytes out = { (uint8_t *)malloc(4 * LEN), HEADER, 0 };
    kf_stream *stream;
    NEED(kf_stream_seal(of, NULL, 0, out.at, HEADER, &stream, &error));
    EXPECT(KF_OK, push(stream, plain, len, piece, &out));
    CHECK(kf_stream_free(stream) == KF_OK);
    return out;
}

static kf_result open_pushed(kf_field *of, struct bytes sealed, size_t piece, struct bytes *out)
{
    kf_stream *stream;
    out->len = 0;
    kf_result result = kf_stream_open(of, sealed.at, sealed.len < HEADER ? sealed.len : HEADER, NULL, 0, &stream, &error);
    if (result != KF_OK)
        return result;
    result = push(stream, sealed.at + HEADER, sealed.len - HEADER, piece, out);
    CHECK(kf_stream_free(stream) == KF_OK);
    return result;
}

static int32_t read_at(void *user, uint64_t offset, void *out, size_t len, size_t *read)
{
    struct bytes *bytes = (struct bytes *)user;
    size_t n = offset < bytes->len ? bytes->len - (size_t)offset : 0;
    n = n < len ? n : len;
    n = n < 5000 ? n : 5000; /* A little at a time. */
    if (n > 0)
        memcpy(out, bytes->at + offset, n);
    bytes->read += n;
    *read = n;
    return KF_OK;
}

static void pull(kf_field *of, struct bytes sealed)
{
    kf_stream_reader *reader;
    static uint8_t out[LEN];
    size_t len;
    uint64_t whole;
    EXPECT(KF_OK, kf_stream_reader_new(of, sealed.len, read_at, &sealed, NULL, 0, &reader, &error));
    sealed.read = 0;
    EXPECT(KF_OK, kf_stream_read_at(reader, 50000, out, 1, &len, &error));
    CHECK(len == 1 && out[0] == plain[50000] && sealed.read == KF_STREAM_CHUNK_LEN + 16);
    EXPECT(KF_OK, kf_stream_verified_len(reader, &whole, &error));
    CHECK(whole == LEN);
    EXPECT(KF_OK, kf_stream_read_at(reader, 10, out, sizeof out, &len, &error));
    CHECK(len == LEN - 10 && memcmp(out, plain + 10, len) == 0);
    EXPECT(KF_OK, kf_stream_read_at(reader, LEN, out, sizeof out, &len, &error));
    CHECK(len == 0 && kf_stream_reader_free(reader) == KF_OK);
    /* Cut between two chunks: what is left can be read, and is not all. */
    sealed.len = HEADER + 3 * (KF_STREAM_CHUNK_LEN + 16);
    EXPECT(KF_OK, kf_stream_reader_new(of, sealed.len, read_at, &sealed, NULL, 0, &reader, &error));
    EXPECT(KF_OK, kf_stream_read_at(reader, 3 * KF_STREAM_CHUNK_LEN - 5, out, 5, &len, &error));
    EXPECT(KF_ERR_MALFORMED, kf_stream_read_at(reader, 3 * KF_STREAM_CHUNK_LEN - 5, out, 6, &len, &error));
    EXPECT(KF_ERR_MALFORMED, kf_stream_verified_len(reader, &whole, &error));
    CHECK(kf_stream_reader_free(reader) == KF_OK);
}

static void *both_ways(void *of)
{
    struct bytes out = { (uint8_t *)malloc(4 * LEN), 0, 0 };
    for (int i = 0; i < 10; i++) {
        struct bytes sealed = seal((kf_field *)of, LEN, 9999);
        CHECK(open_pushed((kf_field *)of, sealed, 7777, &out) == KF_OK && out.len == LEN && memcmp(out.at, plain, LEN) == 0);
        free(sealed.at);
    }
    free(out.at);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 6)
        return 2;
    for (size_t i = 0; i < LEN; i++)
        plain[i] = (uint8_t)(i % 251);
    kf_options *options;
    NEED(kf_options_new(&options, &error));
    NEED(kf_options_add_policy(options, argv[2], strlen(argv[2]), &error));
    NEED(kf_keyring_open(argv[1], strlen(argv[1]), options, &ring, &error));
    kf_field *image = field("image");
    struct bytes out = { (uint8_t *)malloc(4 * LEN), 0, 0 };

    struct bytes theirs = read_file(argv[3]);
    EXPECT(KF_OK, open_pushed(image, theirs, 1000, &out));
    CHECK(out.len == LEN && memcmp(out.at, plain, LEN) == 0);
    pull(image, theirs);
    kf_stream *stream;
    kf_stream_reader *reader;
    bool is_compromised = argv[5][0] == '1', told = !is_compromised, told_by_reader = told;
    NEED(kf_stream_open(image, theirs.at, HEADER, NULL, 0, &stream, &error));
    EXPECT(KF_OK, kf_stream_is_compromised(stream, &told, &error));
    NEED(kf_stream_reader_new(image, theirs.len, read_at, &theirs, NULL, 0, &reader, &error));
    EXPECT(KF_OK, kf_stream_reader_is_compromised(reader, &told_by_reader, &error));
    CHECK(told == is_compromised && told_by_reader == is_compromised);
    CHECK(kf_stream_free(stream) == KF_OK && kf_stream_reader_free(reader) == KF_OK);

    static const size_t lens[] = { 0, 1, KF_STREAM_CHUNK_LEN - 1, KF_STREAM_CHUNK_LEN, KF_STREAM_CHUNK_LEN + 1, LEN };
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        struct bytes sealed = seal(image, lens[i], 1 + i * 7000);
        CHECK(sealed.len == HEADER + lens[i] + 16 * (lens[i] / KF_STREAM_CHUNK_LEN + 1));
        EXPECT(KF_OK, open_pushed(image, sealed, 20000, &out));
        CHECK(out.len == lens[i] && memcmp(out.at, plain, out.len) == 0);
        free(sealed.at);
    }
    struct bytes sealed = seal(image, LEN, LEN);
    NEED(kf_stream_open(image, sealed.at, HEADER, NULL, 0, &stream, &error));
    EXPECT(KF_OK, kf_stream_is_compromised(stream, &told, &error));
    CHECK(!told && kf_stream_free(stream) == KF_OK);
    FILE *file = fopen(argv[4], "wb");
    CHECK(file != NULL && fwrite(sealed.at, 1, sealed.len, file) == sealed.len && fclose(file) == 0);
    /* Cut, lengthened, changed. */
    struct bytes changed = sealed;
    for (size_t chunks = 0; chunks < 6; chunks++) {
        changed.len = HEADER + chunks * (KF_STREAM_CHUNK_LEN + 16);
        EXPECT(KF_ERR_MALFORMED, open_pushed(image, changed, 5000, &out));
        CHECK(out.len == chunks * KF_STREAM_CHUNK_LEN);
    }
    changed.len = sealed.len - 1;
    EXPECT(KF_ERR_DECRYPTION_FAILED, open_pushed(image, changed, 5000, &out));
    changed.len = sealed.len + 1;
    EXPECT(KF_ERR_DECRYPTION_FAILED, open_pushed(image, changed, 5000, &out));
    changed.len = sealed.len;
    changed.at[HEADER + 40000] ^= 1;
    EXPECT(KF_ERR_DECRYPTION_FAILED, open_pushed(image, changed, 5000, &out));
    CHECK(out.len == 2 * KF_STREAM_CHUNK_LEN && memcmp(out.at, plain, out.len) == 0);
    changed.at[HEADER + 40000] ^= 1;
    changed.at[40] ^= 1;
    EXPECT(KF_ERR_DECRYPTION_FAILED, open_pushed(image, changed, 5000, &out));
    kf_field *other = field("scan");
    changed.at[40] ^= 1;
    EXPECT(KF_ERR_DECRYPTION_FAILED, open_pushed(other, changed, 5000, &out));

    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(threads + i, NULL, both_ways, image);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK(kf_field_free(image) == KF_OK && kf_field_free(other) == KF_OK && kf_keyring_close(ring) == KF_OK && kf_options_free(options) == KF_OK);
    free(out.at), free(theirs.at), free(sealed.at);
    return report();
}
