/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Tokens of indexes, values that keep their format, and JSON documents. Arguments: a configuration, a policy, and what the command has made:
 * a protected document, the token of its number, the text of it that keeps its format. Prints the same document protected in C. */
#include "check.h"
#include <pthread.h>

static const char NUMBER[] = "999-81-5679", TEXT[] = "{ \"kind\":\"patient\", \"id\": \"p-17\", \"ssn\": \"999-81-5679\",\n\"name\":[\"Ada\",\"Ada\"], \"n\" : 1.50 }";
static kf_error error;
static kf_keyring *ring;

static kf_field *field(const char *name, const char *scope)
{
    kf_field *made;
    NEED(kf_field_new(ring, name, strlen(name), scope, scope == NULL ? 0 : strlen(scope), NULL, &made, &error));
    return made;
}

static kf_index *index_of(kf_field *of, const char *name)
{
    kf_index *made;
    NEED(kf_index_new(of, name, strlen(name), &made, &error));
    return made;
}

static bool same(const kf_token *a, const kf_token *b)
{
    return a->integer == b->integer && memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

/* `token`: what the command has for the same number. */
static void indexes(const char *token)
{
    kf_field *ssn = field("patient.ssn", NULL), *name = field("patient.name", NULL), *scoped = field("patient.ssn", "clinic-17");
    kf_index *lookup = index_of(ssn, "lookup"), *whole = index_of(ssn, "whole"), *start = index_of(name, "start"), *of_scope = index_of(scoped, "lookup");
    kf_index *none = (kf_index *)(void *)8;
    EXPECT(KF_ERR_POLICY_REFUSED, kf_index_new(ssn, KF_STR("start"), &none, &error));
    CHECK(none == (kf_index *)(void *)8);
    /* An index outlives the handle of its field. */
    kf_field_free(name);

    kf_token tokens[KF_MAX_TOKENS], found[KF_MAX_TOKENS];
    size_t len, found_len, keys;
    EXPECT(KF_OK, kf_index_keys(lookup, &keys, &error));
    CHECK(keys == 1);
    EXPECT(KF_OK, kf_index_tokens(lookup, KF_TYPE_TEXT, NUMBER, strlen(NUMBER), tokens, KF_MAX_TOKENS, &len, &error));
    char decimal[32];
    snprintf(decimal, sizeof decimal, "%lld", (long long)tokens[0].integer);
    CHECK(len == 1 && strcmp(decimal, token) == 0 && all_are(tokens[0].bytes, 32, 0));
    /* Of the digits alone, whatever stands between. */
    EXPECT(KF_OK, kf_index_search(lookup, KF_TYPE_TEXT, KF_STR("999 815 679"), found, keys, &found_len, &error));
    CHECK(found_len == 1 && same(found, tokens));
    EXPECT(KF_OK, kf_index_search(of_scope, KF_TYPE_TEXT, KF_STR("999815679"), found, keys, &found_len, &error));
    CHECK(same(found, tokens));
    EXPECT(KF_OK, kf_index_search(lookup, KF_TYPE_TEXT, KF_STR("999815678"), found, keys, &found_len, &error));
    CHECK(!same(found, tokens));
    EXPECT(KF_OK, kf_index_tokens(lookup, KF_TYPE_TEXT, "", 0, tokens, KF_MAX_TOKENS, &len, &error));
    CHECK(len == 0);
    EXPECT(KF_OK, kf_index_tokens(lookup, KF_TYPE_NULL, "", 0, tokens, KF_MAX_TOKENS, &len, &error));
    CHECK(len == 0);
    EXPECT(KF_ERR_INVALID_INPUT, kf_index_search(lookup, KF_TYPE_TEXT, "", 0, found, keys, &found_len, &error));

    EXPECT(KF_OK, kf_index_tokens(whole, KF_TYPE_TEXT, NUMBER, strlen(NUMBER), tokens, KF_MAX_TOKENS, &len, &error));
    CHECK(len == 1 && tokens[0].integer == -1 && !all_are(tokens[0].bytes, 32, 0));
    EXPECT(KF_OK, kf_index_search(whole, KF_TYPE_TEXT, KF_STR("999815679"), found, keys, &found_len, &error));
    CHECK(!same(found, tokens));

    EXPECT(KF_OK, kf_index_tokens(start, KF_TYPE_TEXT, KF_STR("Lovelace"), tokens, KF_MAX_TOKENS, &len, &error));
    CHECK(len == 2 && tokens[0].integer <= tokens[1].integer);
    EXPECT(KF_OK, kf_index_search(start, KF_TYPE_TEXT, KF_STR("LOVE"), found, keys, &found_len, &error));
    CHECK(found_len == 1 && (same(found, tokens) || same(found, tokens + 1)));
    EXPECT(KF_ERR_INVALID_INPUT, kf_index_search(start, KF_TYPE_TEXT, KF_STR("Lo"), found, keys, &found_len, &error));
    CHECK(kf_index_free(lookup) == KF_OK && kf_index_free(whole) == KF_OK && kf_index_free(start) == KF_OK && kf_index_free(of_scope) == KF_OK);
    kf_field_free(ssn);
    kf_field_free(scoped);
}

/* `replaced`: what the command has in the place of the number. */
static void formats(const char *replaced)
{
    kf_field *mrn = field("patient.mrn", NULL), *ssn = field("patient.ssn", NULL);
    char out[64];
    size_t len;
    EXPECT(KF_OK, kf_format_encrypt(mrn, NUMBER, strlen(NUMBER), out, strlen(NUMBER), &len, &error));
    CHECK(len == strlen(NUMBER) && out[3] == '-' && out[6] == '-' && memcmp(out, NUMBER, len) != 0);
    CHECK(strlen(replaced) == len && memcmp(out, replaced, len) == 0);
    EXPECT(KF_OK, kf_format_decrypt(mrn, replaced, len, out, sizeof out, &len, &error));
    CHECK(len == strlen(NUMBER) && memcmp(out, NUMBER, len) == 0);
    EXPECT(KF_ERR_INVALID_INPUT, kf_format_encrypt(mrn, KF_STR("12"), out, sizeof out, &len, &error));
    EXPECT(KF_ERR_POLICY_REFUSED, kf_format_encrypt(ssn, NUMBER, strlen(NUMBER), out, sizeof out, &len, &error));
    EXPECT(KF_ERR_POLICY_REFUSED, kf_encrypt(mrn, KF_TYPE_TEXT, KF_STR("1234567"), NULL, 0, (uint8_t *)out, sizeof out, &len, &error));
    kf_field_free(mrn);
    kf_field_free(ssn);
}

struct text {
    char bytes[4096];
    size_t len;
    int calls;
    int32_t answer;
};

static int32_t take(void *user, const char *text, size_t text_len)
{
    struct text *taken = (struct text *)user;
    taken->calls++;
    if (taken->answer == KF_OK && text_len < sizeof taken->bytes) {
        memcpy(taken->bytes, text, text_len);
        taken->bytes[taken->len = text_len] = 0;
    }
    return taken->answer;
}

static kf_documents *documents(const char *scope, uint32_t flags)
{
    kf_documents *made;
    NEED(kf_documents_new(ring, scope, scope == NULL ? 0 : strlen(scope), NULL, flags, &made, &error));
    return made;
}

static void *many(void *of)
{
    for (int i = 0; i < 50; i++) {
        struct text sealed = { .calls = 0 }, back = { .calls = 0 };
        kf_error what;
        CHECK(kf_document_protect((kf_documents *)of, TEXT, strlen(TEXT), take, &sealed, &what) == KF_OK);
        CHECK(kf_document_reveal((kf_documents *)of, sealed.bytes, sealed.len, take, &back, &what) == KF_OK);
        CHECK(strcmp(back.bytes, TEXT) == 0);
    }
    return NULL;
}

/* `protected`: what the command has made of the text. */
static void whole(const char *protected)
{
    kf_documents *all = documents(NULL, 0), *lax = documents(NULL, KF_PASS_UNMATCHED | KF_SEAL_SEALED), *scoped = documents("clinic-17", 0), *none;
    struct text sealed = { .calls = 0 }, back = { .calls = 0 }, other = { .calls = 0 };
    EXPECT(KF_OK, kf_document_reveal(all, protected, strlen(protected), take, &back, &error));
    CHECK(back.calls == 1 && back.len == strlen(TEXT) && strcmp(back.bytes, TEXT) == 0);
    EXPECT(KF_OK, kf_document_protect(all, TEXT, strlen(TEXT), take, &sealed, &error));
    CHECK(sealed.calls == 1 && strstr(sealed.bytes, "Ada") == NULL && strstr(sealed.bytes, NUMBER) == NULL && strstr(sealed.bytes, "\"_keyfold\":"));
    EXPECT(KF_OK, kf_document_reveal(all, sealed.bytes, sealed.len, take, &back, &error));
    CHECK(strcmp(back.bytes, TEXT) == 0);
    EXPECT(KF_OK, kf_documents_refuse_unused(all, &error));
    EXPECT(KF_OK, kf_documents_refuse_unused(scoped, &error));

    /* In another scope there is another key. */
    EXPECT(KF_OK, kf_document_protect(scoped, TEXT, strlen(TEXT), take, &other, &error));
    EXPECT(KF_OK, kf_document_reveal(scoped, other.bytes, other.len, take, &back, &error));
    struct text nothing = { .calls = 0 };
    EXPECT(KF_ERR_WRONG_SCOPE, kf_document_reveal(all, other.bytes, other.len, take, &nothing, &error));
    /* Two bodies of one field swapped, and the manifest taken out. */
    struct text moved = sealed;
    char *one = strstr(moved.bytes, "[\"kf1d.") + 7, *two = strstr(one, "\",\"kf1d.") + 8, body[64];
    size_t body_len = (size_t)(strchr(one, '"') - one);
    CHECK(body_len < sizeof body && strchr(two, '"') == two + body_len);
    memcpy(body, one, body_len), memcpy(one, two, body_len), memcpy(two, body, body_len);
    EXPECT(KF_ERR_DECRYPTION_FAILED, kf_document_reveal(all, moved.bytes, moved.len, take, &nothing, &error));
    moved = sealed;
    char *manifest = strstr(moved.bytes, ",\"manifest\":\""), *behind = strchr(manifest + 13, '"') + 1;
    memmove(manifest, behind, moved.len - (size_t)(behind - moved.bytes) + 1);
    EXPECT(KF_ERR_POLICY_REFUSED, kf_document_reveal(all, moved.bytes, strlen(moved.bytes), take, &nothing, &error));

    EXPECT(KF_ERR_POLICY_REFUSED, kf_document_protect(all, sealed.bytes, sealed.len, take, &nothing, &error)); /* sealed already */
    EXPECT(KF_ERR_POLICY_REFUSED, kf_document_protect(all, KF_STR("{\"other\":1}"), take, &nothing, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_document_protect(all, KF_STR("{\"ssn\":"), take, &nothing, &error));
    CHECK(strstr(error.text, "ssn") == NULL);
    EXPECT(KF_ERR_MALFORMED, kf_document_reveal(all, TEXT, strlen(TEXT), take, &nothing, &error));
    CHECK(nothing.calls == 0);
    EXPECT(KF_OK, kf_document_protect(lax, KF_STR("{\"other\":1}"), take, &nothing, &error));
    CHECK(nothing.calls == 1 && strcmp(nothing.bytes, "{\"other\":1}") == 0);
    nothing.answer = 7;
    EXPECT(KF_ERR_IO, kf_document_protect(all, TEXT, strlen(TEXT), take, &nothing, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_documents_new(ring, NULL, 0, NULL, 4, &none, &error));

    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(threads + i, NULL, many, all);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK(kf_documents_free(all) == KF_OK && kf_documents_free(lax) == KF_OK && kf_documents_free(scoped) == KF_OK);
    printf("%s\n", sealed.bytes);
}

int main(int argc, char **argv)
{
    if (argc != 6)
        return 2;
    kf_options *options;
    NEED(kf_options_new(&options, &error));
    NEED(kf_options_add_policy(options, argv[2], strlen(argv[2]), &error));
    NEED(kf_keyring_open(argv[1], strlen(argv[1]), options, &ring, &error));
    indexes(argv[4]);
    formats(argv[5]);
    whole(argv[3]);
    CHECK(kf_keyring_close(ring) == KF_OK && kf_options_free(options) == KF_OK);
    return report();
}
