/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Sequences of calls of the C library, as the fuzzer's bytes say: handles that are in order, released, of another kind or none; lengths
 * at edges; buffers that are too short, overlap, or are NULL. Every buffer is an allocation of its own with exactly the length that
 * the library is told, so that AddressSanitizer sees each byte too many. What the header promises of each call is checked.
 *
 * Over 500 lines: all calls use the handles of all kinds. */
#include "calls.h"

static const char POLICY[] = "version = 1\n"
                             "[fields.any]\nrow_binding = \"none\"\n"
                             "[fields.bound]\nrow_binding = \"row\"\n"
                             "[fields.padded]\nrow_binding = \"none\"\npadding = \"padme\"\n"
                             "[fields.tenant]\nrow_binding = \"none\"\nrequired_context = [\"tenant\"]\n"
                             "[fields.mrn]\nmode = \"deterministic\"\n[fields.mrn.index.exact]\nkind = \"exact\"\nbits = 256\nunique = true\n"
                             "[fields.format]\nmode = \"format-preserving\"\nformat = \"digits\"\n"
                             "[fields.name]\nmode = \"document\"\npaths = [\"$.name\"]\n[documents.all]\nrow_binding = \"none\"\n"
                             "[fields.image]\nmode = \"stream\"\nrow_binding = \"none\"\n[fields.scan]\nmode = \"stream\"\nrow_binding = \"row\"\n";
static const char *const NAMES[] = { "any", "bound", "padded", "tenant", "mrn", "format", "image", "scan", "nothing" };

static kf_error error;
static char config[4096], policy[4200];
static kf_keyring *ring;
static kf_field *image;
/* What costs files is done so often and no more: the store must not grow for ever. */
static int opens = 200, rotations = 100;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    char folder[] = "/tmp/keyfold-fuzz-XXXXXX";
    const char *given = getenv("KEYFOLD_FUZZ_FOLDER");
    snprintf(config, sizeof config, "%s/ring", given ? given : mkdtemp(folder));
    ALWAYS(kf_init(config, strlen(config), KF_STR("ring"), KF_STR("test"), NULL, 0, NULL, &error) == KF_OK);
    snprintf(policy, sizeof policy, "%s/policy.toml", config);
    FILE *file = fopen(policy, "w");
    ALWAYS(file && fwrite(POLICY, sizeof POLICY - 1, 1, file) == 1 && fclose(file) == 0);
    strcat(config, "/keyfold.toml");
    kf_options *options;
    ALWAYS(kf_options_new(&options, &error) == KF_OK);
    ALWAYS(kf_options_add_policy(options, policy, strlen(policy), &error) == KF_OK);
    ALWAYS(kf_keyring_open(config, strlen(config), options, &ring, &error) == KF_OK);
    kf_options_free(options);
    ALWAYS(kf_field_new(ring, KF_STR("image"), NULL, 0, NULL, &image, &error) == KF_OK);
    return 0;
}

/* Handles of this sequence. A released one stays where it is, and is used on. */
enum { SLOTS = 4 };
static kf_field *fields[SLOTS];
static kf_context *contexts[SLOTS];
static kf_options *options[SLOTS];
static kf_keyring *rings[SLOTS];
static kf_index *indexes[SLOTS];
static kf_documents *documents[SLOTS];
static kf_stream *streams[SLOTS];
static kf_stream_reader *readers[SLOTS];
/* What was sealed last, for opening. */
static uint8_t pool[SLOTS][256];
static size_t pool_len[SLOTS];

/* A handle of a kind, or what is none. */
static void *handle(void *const *of_kind)
{
    switch (pick(16)) {
    case 0: return NULL;
    case 1: return (void *)(uintptr_t)number();
    case 2: return ring;
    case 3: return fields[pick(SLOTS)];
    case 4: return contexts[pick(SLOTS)];
    default: return of_kind[pick(SLOTS)];
    }
}

#define A_FIELD ((kf_field *)handle((void *const *)fields))
#define A_CONTEXT ((kf_context *)handle((void *const *)contexts))
#define OPTIONS ((kf_options *)handle((void *const *)options))
#define A_RING (pick(4) ? ring : (kf_keyring *)handle((void *const *)rings))

/* The address that an output struct is to be written to: mostly the right one. */
#define OUT(variable) (pick(16) ? &(variable) : NULL)

static void context_calls(void)
{
    kf_context **slot = &contexts[pick(SLOTS)];
    switch (pick(3)) {
    case 0: if (kf_context_free(*slot) == KF_OK) *slot = NULL; did(kf_context_new(slot, &error)); break;
    case 1: {
        struct bytes key = pick(2) ? some(8) : text("tenant"), value = some(300);
        did(kf_context_add(A_CONTEXT, (char *)key.at, key.len, value.at, value.len, &error));
        break;
    }
    default: did(kf_context_free(A_CONTEXT == NULL ? NULL : *slot));
    }
}

static int32_t count_records(void *user, const void *records, size_t records_len)
{
    *(uint32_t *)user = ((const uint8_t *)records)[records_len - 1];
    return pick(4) ? KF_OK : 1;
}

static int32_t no_passphrase(void *user, const char *alias, size_t alias_len, uint8_t *passphrase, size_t *passphrase_len)
{
    (void)user, (void)alias, (void)alias_len, (void)passphrase;
    *passphrase_len = SIZE_MAX;
    return KF_OK;
}

static void hear(void *user, uint8_t level, const char *text, size_t text_len)
{
    ALWAYS(user == NULL && level >= KF_LOG_ERROR && level <= KF_LOG_INFO && text_len > 0 && text[text_len - 1] != '\n');
}

static void option_calls(void)
{
    kf_options **slot = &options[pick(SLOTS)];
    struct bytes given = pick(2) ? some(64) : text(policy);
    kf_kek kek = { NULL, NULL, NULL, NULL };
    switch (pick(8)) {
    case 0: if (kf_options_free(*slot) == KF_OK) *slot = NULL; did(kf_options_new(slot, &error)); break;
    case 1: did(kf_options_add_policy(OPTIONS, (char *)given.at, given.len, &error)); break;
    case 2: did(kf_options_set_recovery(OPTIONS, (char *)given.at, given.len, &error)); break;
    case 3: did(kf_options_set_records(OPTIONS, given.at, given.len, &error)); break;
    case 4: did(kf_options_add_kek(OPTIONS, (char *)given.at, given.len, pick(2) ? &kek : NULL, &error)); break;
    case 5: did(kf_options_set_passphrase(OPTIONS, pick(2) ? no_passphrase : NULL, NULL, NULL, &error)); break;
    case 6: did(kf_options_set_audit(OPTIONS, NULL, NULL, NULL, &error)); break;
    default: did(kf_options_free(OPTIONS));
    }
}

static void keyring_calls(void)
{
    kf_keyring **slot = &rings[pick(SLOTS)];
    kf_key_info keys[3], made;
    size_t count = 0;
    uint32_t last;
    switch (pick(8)) {
    case 0:
        if (opens-- > 0) {
            kf_keyring_close(*slot);
            *slot = NULL;
            did(kf_keyring_open(config, strlen(config), pick(2) ? NULL : OPTIONS, slot, &error));
        }
        break;
    case 1: if (pick(64) == 0 && opens-- > 0) did(kf_keyring_reload(*slot, config, strlen(config), OPTIONS, &error)); break;
    case 2: if (pick(64) == 0 && rotations-- > 0) did(kf_keyring_rotate(A_RING, NULL, 0, OUT(made), &error)); break;
    case 3: {
        struct bytes after = exactly(KF_KEY_ID_LEN);
        did(kf_keyring_list(A_RING, pick(2) ? NULL : after.at, keys, pick(4), OUT(count), &error));
        break;
    }
    case 4: if (pick(16) == 0) did(kf_keyring_records(A_RING, pick(8) ? count_records : NULL, &last, &error)); break;
    case 5: {
        struct bytes scope = told(text("nowhere"));
        did(kf_keyring_rotate(A_RING, (char *)scope.at, scope.len, NULL, &error));
        break;
    }
    case 6: did(kf_set_log(pick(2) ? hear : NULL, NULL, NULL)); break;
    default: if (A_RING != ring) did(kf_keyring_close(*slot));
    }
}

static void field_calls(void)
{
    kf_field **slot = &fields[pick(SLOTS)];
    /* Few: each scope that seals gets a key. */
    static const char *const SCOPES[] = { "a", "b", "\xff", "" };
    struct bytes name = some(8), scope = told(text(SCOPES[pick(4)]));
    const char *known = NAMES[pick(sizeof NAMES / sizeof *NAMES)];
    size_t len = 0;
    switch (pick(4)) {
    case 0:
    case 1: {
        kf_field *made = *slot;
        if (pick(4))
            scope = (struct bytes){ NULL, 0 };
        kf_result result = kf_field_new(A_RING, known, strlen(known), (char *)scope.at, scope.len, pick(2) ? NULL : A_CONTEXT, &made, &error);
        did(result);
        if (result == KF_OK) {
            kf_field_free(*slot);
            *slot = made;
        } else {
            ALWAYS(made == *slot);
        }
        break;
    }
    case 2: did(kf_field_new(A_RING, (char *)name.at, name.len, NULL, 0, NULL, slot, &error)); break;
    default: did(pick(2) ? kf_field_free(A_FIELD) : kf_sealed_len(A_FIELD, (size_t)number(), OUT(len), &error));
    }
}

static void encrypt(void)
{
    const kf_field *field = A_FIELD;
    struct bytes value = some(100), row = some(20);
    size_t needed = 150, len = 77;
    if (kf_sealed_len(field, value.len, &needed, NULL) != KF_OK || needed > 4096)
        needed = 150;
    struct bytes out = room(needed);
    kf_result result = kf_encrypt(field, (uint8_t)pick(12), value.at, value.len, row.at, row.len, out.at, out.len, OUT(len), &error);
    did(result);
    if (result != KF_OK) {
        ALWAYS(len == 77 && untouched(out));
    } else {
        ALWAYS(len == needed);
        struct bytes opened = exactly(kf_opened_len_max(len));
        kf_opened what;
        kf_result back = kf_decrypt(field, out.at, len, row.at, row.len, opened.at, opened.len, &what, &error);
        ALWAYS(back == KF_OK && what.len == value.len && (value.len == 0 || memcmp(opened.at, value.at, value.len) == 0));
        size_t slot = pick(SLOTS);
        pool_len[slot] = len < sizeof pool[slot] ? len : 0;
        memcpy(pool[slot], out.at, pool_len[slot]);
    }
}

/* Something that was sealed, mostly as it was. */
static struct bytes sealed(void)
{
    size_t slot = pick(SLOTS);
    struct bytes copy = exactly(pool_len[slot]);
    if (copy.len > 0)
        memcpy(copy.at, pool[slot], copy.len);
    if (pick(3) == 0 && copy.len > 0)
        copy.at[number() % copy.len] ^= (uint8_t)(1 + pick(255));
    if (pick(6) == 0)
        copy = cut(copy);
    return pick(8) ? copy : some(120);
}

static void decrypt(void)
{
    const kf_field *field = A_FIELD;
    struct bytes given = sealed(), row = some(20);
    struct bytes out = pick(8) ? room(kf_opened_len_max(given.len)) : given;
    kf_opened what;
    memset(&what, 'x', sizeof what);
    bool is_current;
    kf_result result = kf_decrypt(field, given.at, given.len, row.at, row.len, out.at, out.len, pick(16) ? &what : NULL, &error);
    did(result);
    if (result != KF_OK)
        ALWAYS(all_are(&what, sizeof what, 'x') && (out.at == given.at || untouched(out) || erased(out, kf_opened_len_max(given.len))));
    did(kf_is_current(field, given.at, given.len, OUT(is_current), &error));
}

static void search(void)
{
    const kf_field *field = A_FIELD;
    struct bytes value = some(40);
    size_t keys = 1, each = 100, len = 77;
    did(kf_search_keys(field, OUT(keys), &error));
    if (kf_sealed_len(field, value.len, &each, NULL) != KF_OK || each > 4096)
        each = 100;
    struct bytes out = pick(8) ? room(keys * each) : value;
    kf_result result = kf_search(field, (uint8_t)pick(12), value.at, value.len, out.at, out.len, OUT(len), &error);
    did(result);
    ALWAYS(result == KF_OK ? len == keys * each : len == 77);
}

static void lookups(void)
{
    kf_index **slot = &indexes[pick(SLOTS)];
    const kf_index *index = (kf_index *)handle((void *const *)indexes);
    struct bytes name = told(text("exact")), value = some(40), out = room(KF_MAX_TOKENS * sizeof(kf_token));
    size_t keys = 1, len = 77;
    if (pick(3) == 0) {
        kf_index *made = *slot;
        kf_result result = kf_index_new(A_FIELD, (char *)name.at, name.len, &made, &error);
        did(result);
        ALWAYS(result == KF_OK || made == *slot);
        if (result == KF_OK)
            (void)kf_index_free(*slot);
        *slot = made;
    } else if (pick(16) == 0) {
        did(kf_index_free((kf_index *)handle((void *const *)indexes)));
    }
    did(kf_index_keys(index, OUT(keys), &error));
    uint8_t type = (uint8_t)pick(12);
    kf_token *tokens = (kf_token *)(void *)out.at;
    size_t cap = out.len / sizeof(kf_token);
    kf_result result = pick(2) ? kf_index_tokens(index, type, value.at, value.len, tokens, cap, OUT(len), &error)
                               : kf_index_search(index, type, value.at, value.len, tokens, cap, OUT(len), &error);
    did(result);
    ALWAYS(result == KF_OK ? len <= KF_MAX_TOKENS : len == 77 && untouched(out));
}

static void format(void)
{
    const kf_field *field = A_FIELD;
    struct bytes given = pick(2) ? told(text("123-4567")) : some(20), out = pick(8) ? room(given.len) : given;
    size_t len = 77, back_len;
    kf_result result = kf_format_encrypt(field, (char *)given.at, given.len, (char *)out.at, out.len, OUT(len), &error);
    did(result);
    if (result == KF_OK) {
        struct bytes back = exactly(len);
        ALWAYS(kf_format_decrypt(field, (char *)out.at, len, (char *)back.at, back.len, &back_len, &error) == KF_OK);
        ALWAYS(back_len == given.len && memcmp(back.at, given.at, back_len) == 0);
    } else {
        ALWAYS(len == 77 && (out.at == given.at || untouched(out)));
    }
    did(kf_format_decrypt(A_FIELD, (char *)given.at, given.len, (char *)out.at, out.len, OUT(len), &error));
}

/* What a document became. */
static struct {
    char bytes[1024];
    size_t len;
} became;

static int32_t take_document(void *user, const char *document, size_t document_len)
{
    ALWAYS(user == &became && document != NULL);
    became.len = document_len < sizeof became.bytes ? document_len : 0;
    memcpy(became.bytes, document, became.len);
    return pick(16) ? KF_OK : 1;
}

static void document_calls(void)
{
    kf_documents **slot = &documents[pick(SLOTS)];
    const kf_documents *all = (kf_documents *)handle((void *const *)documents);
    struct bytes given = pick(4) ? told(text("{ \"name\" : \"Ada\", \"n\": 1.50 }")) : some(40);
    if (pick(4) == 0) {
        kf_documents *made = *slot;
        kf_result result = kf_documents_new(A_RING, NULL, 0, pick(2) ? NULL : A_CONTEXT, (uint32_t)pick(5), &made, &error);
        did(result);
        ALWAYS(result == KF_OK || made == *slot);
        if (result == KF_OK)
            (void)kf_documents_free(*slot);
        *slot = made;
    } else if (pick(16) == 0) {
        did(kf_documents_free((kf_documents *)handle((void *const *)documents)));
    }
    kf_document_fn take = pick(16) ? take_document : NULL;
    kf_result result = kf_document_protect(all, (char *)given.at, given.len, take, &became, &error);
    did(result);
    if (result == KF_OK && became.len > 0) {
        struct bytes sealed_text = exactly(became.len);
        memcpy(sealed_text.at, became.bytes, became.len);
        if (pick(4) == 0)
            sealed_text.at[number() % sealed_text.len] ^= (uint8_t)(1 + pick(255));
        did(kf_document_reveal(all, (char *)sealed_text.at, sealed_text.len, take_document, &became, &error));
    }
    did(kf_document_reveal(all, (char *)given.at, given.len, take, &became, &error));
    did(kf_documents_refuse_unused(all, &error));
}

/* A column of `data`: offsets that mostly are in order. */
static kf_column column(struct bytes data, int64_t *offsets, size_t rows)
{
    for (size_t row = 0; row <= rows; row++) {
        uint64_t before = row ? (uint64_t)offsets[row - 1] : 0;
        uint64_t after = data.len <= PTRDIFF_MAX && before <= data.len ? data.len - before : 0;
        offsets[row] = (int64_t)(pick(32) ? before + number() % (after + 1) : number());
    }
    return (kf_column){ data.at, data.len, pick(32) ? offsets : NULL, pick(64) ? rows : (size_t)number() | (SIZE_MAX / 2 + 1) };
}

static void columns(void)
{
    enum { MOST = 6 };
    const kf_field *field = A_FIELD;
    size_t n = pick(MOST + 1), needed = 0;
    struct bytes data = some(100), names = some(40), types = exactly(n);
    int64_t *offsets = (int64_t *)(void *)exactly((n + 1) * 8).at, *name_offsets = (int64_t *)(void *)exactly((n + 1) * 8).at;
    for (size_t row = 0; row < n; row++)
        types.at[row] = (uint8_t)(pick(8) ? KF_TYPE_BYTES : pick(12));
    kf_column values = column(data, offsets, n), rows = column(names, name_offsets, n);
    const kf_column *bound = pick(2) ? &rows : NULL;
    did(kf_sealed_column_len(field, &values, OUT(needed), &error));
    if (kf_sealed_column_len(field, &values, &needed, NULL) != KF_OK)
        needed = 0;
    struct bytes out = room(needed), ends = room((n + 1) * 8);
    kf_column_out to = { out.at, out.len, (int64_t *)(void *)ends.at, ends.len <= PTRDIFF_MAX ? ends.len / 8 : ends.len };
    kf_result result = kf_encrypt_column(field, types.at, &values, bound, pick(32) ? &to : NULL, &error);
    did(result);
    if (result != KF_OK) {
        ALWAYS(untouched(out) && untouched(ends));
        return;
    }
    ALWAYS((size_t)to.offsets[n] == needed);
    bool is_changed = needed > 0 && pick(3) == 0;
    if (is_changed)
        out.at[number() % needed] ^= 1;
    kf_column back = { out.at, needed, to.offsets, n };
    bool each = pick(2);
    struct bytes opened = room(each ? needed : kf_opened_column_len_max(needed, n)), kinds = room(n), results = room(n * 4);
    struct bytes opened_ends = room((n + 1) * 8);
    kf_column_out there = { opened.at, opened.len, (int64_t *)(void *)opened_ends.at, opened_ends.len <= PTRDIFF_MAX ? opened_ends.len / 8 : opened_ends.len };
    kf_opened_column what;
    memset(&what, 'x', sizeof what);
    if (each)
        result = kf_decrypt_column_each(field, &back, bound, kinds.at, kinds.len, &there, (int32_t *)(void *)results.at, results.len <= PTRDIFF_MAX ? results.len / 4 : results.len, &what, &error);
    else
        result = kf_decrypt_column(field, &back, bound, kinds.at, kinds.len, &there, pick(2) ? &what : NULL, &error);
    did(result);
    if (result != KF_OK) {
        ALWAYS(untouched(kinds) && untouched(results) && untouched(opened_ends) && all_are(&what, sizeof what, 'x'));
        ALWAYS(untouched(opened) || erased(opened, each ? needed : kf_opened_column_len_max(needed, n)));
    } else if (!is_changed) {
        size_t start = (size_t)offsets[0], len = (size_t)offsets[n] - start;
        ALWAYS((size_t)there.offsets[n] == len && (len == 0 || memcmp(opened.at, data.at + start, len) == 0));
        ALWAYS(n == 0 || memcmp(kinds.at, types.at, n) == 0);
    }
}

/* What a stream is to have: bytes that tell chunks from each other. */
static struct bytes clear_of_stream(void)
{
    static const size_t LENGTHS[] = { 0, 1, 100, KF_STREAM_CHUNK_LEN - 1, KF_STREAM_CHUNK_LEN, KF_STREAM_CHUNK_LEN + 1, 2 * KF_STREAM_CHUNK_LEN + 5 };
    struct bytes made = exactly(LENGTHS[pick(7)]);
    for (size_t at = 0; at < made.len; at++)
        made.at[at] = (uint8_t)(at / KF_STREAM_CHUNK_LEN * 37 + at % 251);
    return made;
}

/* Any call with any stream. */
static void stream_calls(void)
{
    kf_stream **slot = &streams[pick(SLOTS)], *made = *slot;
    kf_stream *stream = (kf_stream *)handle((void *const *)streams);
    kf_stream_reader *reader = (kf_stream_reader *)handle((void *const *)readers);
    const kf_field *field = pick(3) ? image : A_FIELD;
    struct bytes row = pick(3) ? (struct bytes){ NULL, 0 } : some(20), head = room(KF_STREAM_HEADER_LEN), given = told(clear_of_stream()), out;
    size_t len = 77, most = kf_stream_out_len_max(given.len);
    uint64_t whole = 77;
    kf_result result;
    switch (pick(7)) {
    case 0:
        result = kf_stream_seal(field, row.at, row.len, head.at, head.len, OUT(made), &error);
        did(result);
        ALWAYS(result == KF_OK || (made == *slot && untouched(head)));
        if (result == KF_OK) {
            size_t kept = pick(SLOTS);
            pool_len[kept] = KF_STREAM_HEADER_LEN;
            memcpy(pool[kept], head.at, KF_STREAM_HEADER_LEN);
        }
        break;
    case 1: {
        struct bytes header = sealed();
        result = kf_stream_open(field, header.at, header.len, row.at, row.len, OUT(made), &error);
        did(result);
        ALWAYS(result == KF_OK || made == *slot);
        break;
    }
    case 2:
        out = pick(8) ? room(most) : given;
        result = kf_stream_update(stream, given.at, given.len, out.at, out.len, OUT(len), &error);
        did(result);
        ALWAYS(result == KF_OK ? len <= most && len <= out.len : len == 77 && (out.at == given.at || untouched(out)));
        return;
    case 3:
        out = room(kf_stream_out_len_max(0));
        result = kf_stream_finish(stream, out.at, out.len, OUT(len), &error);
        did(result);
        ALWAYS(result == KF_OK ? len <= out.len : len == 77 && untouched(out));
        return;
    case 4:
        /* None that is in order: those have a function and what it reads, which are gone with their call. */
        out = room(100);
        ALWAYS(kf_stream_read_at(reader, number(), out.at, out.len, OUT(len), &error) != KF_OK && len == 77 && untouched(out));
        ALWAYS(kf_stream_verified_len(reader, OUT(whole), &error) != KF_OK && whole == 77);
        ALWAYS(kf_stream_reader_free(reader) == (reader ? KF_ERR_INVALID_HANDLE : KF_OK));
        return;
    case 5: {
        bool told = true;
        result = kf_stream_is_compromised(stream, OUT(told), &error);
        did(result);
        ALWAYS(result == KF_OK ? !told : told);
        ALWAYS(kf_stream_reader_is_compromised(reader, OUT(told), &error) != KF_OK);
        return;
    }
    default: did(kf_stream_free(stream)); return;
    }
    if (made != *slot) {
        (void)kf_stream_free(*slot);
        *slot = made;
    }
}

/* Gives a stream all of `from` in pieces, and its end; what comes of it is put to `to` from `*at` on. */
static kf_result push(kf_stream *stream, struct bytes from, struct bytes to, size_t *at)
{
    size_t done = 0, written = 0;
    bool ended = false;
    for (int pieces = 0; !ended; pieces++) {
        ended = done == from.len;
        struct bytes piece = exactly(pieces < 8 && !ended ? 1 + number() % (from.len - done) : from.len - done);
        struct bytes out = exactly(kf_stream_out_len_max(piece.len));
        if (piece.len > 0)
            memcpy(piece.at, from.at + done, piece.len);
        kf_result result = ended ? kf_stream_finish(stream, out.at, out.len, &written, &error)
                                 : kf_stream_update(stream, piece.at, piece.len, out.at, out.len, &written, &error);
        did(result);
        if (result != KF_OK) {
            ALWAYS(untouched(out));
            return result;
        }
        ALWAYS(written <= out.len && written <= to.len - *at);
        memcpy(to.at + *at, out.at, written);
        *at += written, done += piece.len;
    }
    return KF_OK;
}

/* A sealed stream, and whether reading it has failed. */
struct source {
    struct bytes sealed;
    bool failed;
};

static int32_t read_source(void *user, uint64_t offset, void *out, size_t len, size_t *read)
{
    struct source *source = (struct source *)user;
    ALWAYS(*read == 0);
    if (pick(32) == 1) {
        source->failed = true;
        *read = pick(2) ? len + 1 : 0;
        return *read ? KF_OK : 1;
    }
    size_t left = offset < source->sealed.len ? source->sealed.len - (size_t)offset : 0;
    *read = len < left ? len : left;
    if (*read > 1 && pick(4) == 1)
        *read = 1 + number() % *read;
    if (*read > 0)
        memcpy(out, source->sealed.at + offset, *read);
    return KF_OK;
}

/* A stream from its beginning to its end, both pushed and pulled, and what can be made of it in between. */
static void whole_stream(void)
{
    enum { SEALED_CHUNK_LEN = KF_STREAM_CHUNK_LEN + 16 };
    struct bytes clear = clear_of_stream(), opened = exactly(clear.len + 1);
    struct bytes whole = exactly(KF_STREAM_HEADER_LEN + clear.len + (clear.len / KF_STREAM_CHUNK_LEN + 1) * 16);
    size_t at = KF_STREAM_HEADER_LEN, got = 0, header_len;
    kf_stream *stream;
    ALWAYS(kf_stream_seal(image, NULL, 0, whole.at, KF_STREAM_HEADER_LEN, &stream, &error) == KF_OK);
    ALWAYS(push(stream, clear, whole, &at) == KF_OK && at == whole.len);
    ALWAYS(kf_stream_update(stream, NULL, 0, opened.at, 0, &got, &error) != KF_OK && kf_stream_free(stream) == KF_OK);

    struct source source = { exactly(whole.len), false };
    memcpy(source.sealed.at, whole.at, whole.len);
    size_t slot = pick(SLOTS);
    bool is_changed = true;
    switch (pick(6)) {
    case 1: source.sealed.at[number() % whole.len] ^= (uint8_t)(1 + pick(255)); break;
    case 2: source.sealed.len = number() % whole.len; break;
    case 3: /* to a border */
        source.sealed.len = KF_STREAM_HEADER_LEN + pick(clear.len / KF_STREAM_CHUNK_LEN + 1) * SEALED_CHUNK_LEN;
        break;
    case 4:
        is_changed = clear.len >= 2 * KF_STREAM_CHUNK_LEN;
        if (is_changed) {
            memcpy(source.sealed.at + KF_STREAM_HEADER_LEN, whole.at + KF_STREAM_HEADER_LEN + SEALED_CHUNK_LEN, SEALED_CHUNK_LEN);
            memcpy(source.sealed.at + KF_STREAM_HEADER_LEN + SEALED_CHUNK_LEN, whole.at + KF_STREAM_HEADER_LEN, SEALED_CHUNK_LEN);
        }
        break;
    default: is_changed = false;
    }
    header_len = source.sealed.len < KF_STREAM_HEADER_LEN ? source.sealed.len : KF_STREAM_HEADER_LEN;
    struct bytes header = exactly(header_len), rest = { source.sealed.at + header_len, source.sealed.len - header_len };
    if (header_len > 0)
        memcpy(header.at, source.sealed.at, header_len);
    kf_result result = kf_stream_open(image, header.at, header_len, NULL, 0, &stream, &error);
    did(result);
    if (result == KF_OK) {
        got = 0;
        result = push(stream, rest, opened, &got);
        ALWAYS(got <= clear.len && (got == 0 || memcmp(opened.at, clear.at, got) == 0));
        ALWAYS(kf_stream_free(stream) == KF_OK);
        if (streams[slot] == NULL)
            streams[slot] = stream; /* released */
    }
    ALWAYS((result == KF_OK) == !is_changed && (result != KF_OK || got == clear.len));

    kf_stream_reader *reader;
    result = kf_stream_reader_new(image, source.sealed.len, pick(32) ? read_source : NULL, &source, NULL, 0, &reader, &error);
    did(result);
    if (result != KF_OK)
        return;
    for (int turn = 0; turn < 3; turn++) {
        struct bytes part = exactly(pick(2) ? pick(200) : clear.len + pick(3));
        uint64_t offset = pick(3) ? number() % (clear.len + 1) : number(), len = 77;
        size_t n = 77;
        result = kf_stream_read_at(reader, offset, part.at, part.len, &n, &error);
        did(result);
        if (result == KF_OK) {
            size_t left = offset < clear.len ? clear.len - (size_t)offset : 0;
            ALWAYS(n == (left < part.len ? left : part.len) && (n == 0 || memcmp(part.at, clear.at + offset, n) == 0));
        } else {
            ALWAYS((is_changed || source.failed) && n == 77 && erased(part, part.len));
        }
        result = kf_stream_verified_len(reader, &len, &error);
        did(result);
        ALWAYS(result == KF_OK ? len == clear.len : len == 77 && (is_changed || source.failed));
    }
    ALWAYS(kf_stream_reader_free(reader) == KF_OK);
    readers[slot] = reader; /* released */
}

static void pure(void)
{
    struct bytes given = sealed();
    kf_inspection seen;
    size_t len = 77, back = 77;
    did(kf_inspect(given.at, given.len, OUT(seen), &error));
    size_t needed = kf_text_len(given.len);
    struct bytes text = room(needed);
    kf_result result = kf_to_text(given.at, given.len, (char *)text.at, text.len, OUT(len), &error);
    did(result);
    if (result == KF_OK) {
        ALWAYS(len == needed);
        struct bytes again = exactly(kf_text_sealed_len_max(len));
        ALWAYS(kf_from_text((char *)text.at, len, again.at, again.len, &back, &error) == KF_OK);
        ALWAYS(back == given.len && memcmp(again.at, given.at, back) == 0);
    }
    struct bytes garbage = some(100), sealed_room = room(kf_text_sealed_len_max(garbage.len));
    did(kf_from_text((char *)garbage.at, garbage.len, sealed_room.at, sealed_room.len, OUT(back), &error));
    struct bytes bytes = room(KF_MAX_NUMBER_LEN);
    kf_number one = { (int64_t)number(), 0.5, (uint32_t)number(), 0 }, two;
    uint8_t type = (uint8_t)pick(12);
    result = kf_number_encode(type, OUT(one), bytes.at, bytes.len, &len, &error);
    did(result);
    if (result == KF_OK)
        ALWAYS(len <= KF_MAX_NUMBER_LEN && kf_number_decode(type, bytes.at, len, &two, &error) == KF_OK);
    did(kf_number_decode((uint8_t)pick(12), garbage.at, garbage.len, OUT(two), &error));
    ALWAYS(!kf_result_is_retryable(KF_OK) && kf_result_name(KF_OK) != NULL);
    size_t long_len = (size_t)number();
    ALWAYS(kf_opened_len_max(long_len) <= long_len && kf_opened_column_len_max(long_len, (size_t)number()) <= long_len);
    ALWAYS(kf_text_len(long_len) > long_len || long_len > SIZE_MAX - 15);
    ALWAYS(kf_text_sealed_len_max(long_len) <= long_len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    start(data, len);
    ALWAYS(kf_field_new(ring, KF_STR("any"), NULL, 0, NULL, &fields[0], &error) == KF_OK);
    ALWAYS(kf_field_new(ring, KF_STR("bound"), NULL, 0, NULL, &fields[1], &error) == KF_OK);
    ALWAYS(kf_field_new(ring, KF_STR("mrn"), NULL, 0, NULL, &fields[2], &error) == KF_OK);
    ALWAYS(kf_field_new(ring, KF_STR("format"), NULL, 0, NULL, &fields[3], &error) == KF_OK);
    ALWAYS(kf_index_new(fields[2], KF_STR("exact"), &indexes[0], &error) == KF_OK);
    ALWAYS(kf_documents_new(ring, NULL, 0, NULL, 0, &documents[0], &error) == KF_OK);
    static void (*const calls[])(void) = { context_calls, option_calls, keyring_calls, field_calls, encrypt, encrypt, decrypt, decrypt, search, lookups, format, document_calls, columns, columns, stream_calls, stream_calls, whole_stream, pure };
    while (more()) {
        calls[pick(sizeof calls / sizeof *calls)]();
        give_back();
    }
    for (int slot = 0; slot < SLOTS; slot++) {
        (void)kf_field_free(fields[slot]);
        (void)kf_context_free(contexts[slot]);
        (void)kf_options_free(options[slot]);
        (void)kf_keyring_close(rings[slot]);
        (void)kf_index_free(indexes[slot]);
        (void)kf_documents_free(documents[slot]);
        (void)kf_stream_free(streams[slot]);
        fields[slot] = NULL, contexts[slot] = NULL, options[slot] = NULL, rings[slot] = NULL;
        indexes[slot] = NULL, documents[slot] = NULL;
        streams[slot] = NULL, readers[slot] = NULL;
    }
    return 0;
}
