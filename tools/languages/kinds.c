/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Seals and opens, in C, each kind of data that matrix.py names: kinds seal|open KIND CONFIG POLICY. */
#include "lines.h"
#include <keyfold.h>

enum { ROWS = 64 };

static kf_error error;

static void need(kf_result result)
{
    if (result == KF_OK)
        return;
    fprintf(stderr, "kinds: [%d %s]\n", (int)result, kf_result_name((int32_t)result));
    exit(1);
}

static int32_t print_document(void *user, const char *text, size_t len)
{
    (void)user;
    print_line(text, len);
    return KF_OK;
}

/* A stream that is sealed or opened in pieces, as they come. */
static size_t stream(const kf_field *image, int seals, const uint8_t *in, size_t in_len, uint8_t *out)
{
    kf_stream *piece;
    size_t len = 0, written, at = 0;
    if (seals) {
        need(kf_stream_seal(image, NULL, 0, out, KF_STREAM_HEADER_LEN, &piece, &error));
        len = KF_STREAM_HEADER_LEN;
    } else {
        at = in_len < KF_STREAM_HEADER_LEN ? in_len : KF_STREAM_HEADER_LEN;
        need(kf_stream_open(image, in, at, NULL, 0, &piece, &error));
    }
    while (at < in_len) {
        size_t n = in_len - at < 10000 ? in_len - at : 10000;
        need(kf_stream_update(piece, in + at, n, out + len, ROOM - len, &written, &error));
        len += written;
        at += n;
    }
    need(kf_stream_finish(piece, out + len, ROOM - len, &written, &error));
    kf_stream_free(piece);
    return len + written;
}

static void column(const kf_field *field, int seals)
{
    static uint8_t data[ROOM], rows[ROOM], out[ROOM], types[ROWS];
    int64_t offsets[ROWS + 1] = {0}, row_offsets[ROWS + 1] = {0}, out_offsets[ROWS + 1];
    size_t count = 0, len, row_len;
    while (next_line(rows + row_offsets[count], &row_len, data + offsets[count], &len)) {
        types[count++] = KF_TYPE_TEXT;
        offsets[count] = offsets[count - 1] + (int64_t)len;
        row_offsets[count] = row_offsets[count - 1] + (int64_t)row_len;
    }
    kf_column values = {.data = data, .data_len = (size_t)offsets[count], .offsets = offsets, .rows = count};
    kf_column bound = {.data = rows, .data_len = (size_t)row_offsets[count], .offsets = row_offsets, .rows = count};
    kf_column_out result = {.data = out, .data_cap = sizeof out, .offsets = out_offsets, .offsets_cap = ROWS + 1};
    if (seals)
        need(kf_encrypt_column(field, types, &values, &bound, &result, &error));
    else
        need(kf_decrypt_column(field, &values, &bound, types, ROWS, &result, NULL, &error));
    for (size_t i = 0; i < count; i++)
        print_line(out + out_offsets[i], (size_t)(out_offsets[i + 1] - out_offsets[i]));
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    static uint8_t row[ROOM], in[ROOM], out[ROOM];
    const char *kind = argv[2];
    int seals = strcmp(argv[1], "seal") == 0, is_value = strcmp(kind, "value") == 0, is_equal = strcmp(kind, "equal") == 0;
    const char *name = is_equal ? "equal" : strcmp(kind, "stream") == 0 ? "image" : "value", *scope = is_value || is_equal ? NULL : "ward-1";
    kf_options *options;
    kf_keyring *ring;
    kf_context *context;
    kf_documents *documents = NULL;
    kf_field *field;
    need(kf_options_new(&options, &error));
    need(kf_options_add_policy(options, argv[4], strlen(argv[4]), &error));
    need(kf_keyring_open(argv[3], strlen(argv[3]), options, &ring, &error));
    need(kf_context_new(&context, &error));
    if (!is_value)
        need(kf_context_add(context, "tenant", 6, "t1", 2, &error));
    if (strcmp(kind, "document") == 0)
        need(kf_documents_new(ring, scope, strlen(scope), context, 0, &documents, &error));
    else
        need(kf_field_new(ring, name, strlen(name), scope, scope == NULL ? 0 : strlen(scope), context, &field, &error));
    if (strcmp(kind, "column") == 0) {
        column(field, seals);
        return 0;
    }
    size_t row_len, len, written;
    kf_opened opened;
    while (next_line(row, &row_len, in, &len)) {
        /* Deterministic values are bound to no row. */
        const uint8_t *bound = is_equal ? NULL : row;
        row_len = is_equal ? 0 : row_len;
        if (documents != NULL) {
            need((seals ? kf_document_protect : kf_document_reveal)(documents, (const char *)in, len, print_document, NULL, &error));
            continue;
        }
        if (strcmp(kind, "stream") == 0) {
            written = stream(field, seals, in, len, out);
        } else if (seals) {
            need(kf_encrypt(field, KF_TYPE_TEXT, in, len, bound, row_len, out, sizeof out, &written, &error));
        } else {
            need(kf_decrypt(field, in, len, bound, row_len, out, sizeof out, &opened, &error));
            written = opened.len;
        }
        print_line(out, written);
    }
    return 0;
}
